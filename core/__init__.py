"""What every part of the gateway may use, and which uses none of them."""
