"""Flow records of NetFlow and IPFIX: the beginning of the usage line."""

from convergedon.adapters.flow.adapter import create

__all__ = ["create"]
