"""YANG modules that ship; a mapping names what it needs of them."""
