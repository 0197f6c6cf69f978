"""HTTP in: the same functions for every TM Forum API."""
