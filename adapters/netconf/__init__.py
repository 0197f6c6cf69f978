"""NETCONF (RFC 6241): intents become configuration that the device has confirmed, or none at all."""

from convergedon.adapters.netconf.adapter import NetconfAdapter, create

__all__ = ["NetconfAdapter", "create"]
