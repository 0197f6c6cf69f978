"""Call records in files: CSV or JSON Lines that switches and mediation systems drop into a folder."""

from convergedon.adapters.file.adapter import create

__all__ = ["create"]
