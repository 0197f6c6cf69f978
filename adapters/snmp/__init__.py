"""SNMP notifications: the beginning of the fault line."""

from convergedon.adapters.snmp.adapter import create

__all__ = ["create"]
