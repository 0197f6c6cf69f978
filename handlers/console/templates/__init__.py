"""The pages of the console (Jinja)."""
