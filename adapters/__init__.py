"""The network: one folder for each protocol."""
