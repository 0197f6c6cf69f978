"""A network in memory: the twin that tests and trials use where no device is."""

from convergedon.adapters.loopback.adapter import LoopbackAdapter, create

__all__ = ["LoopbackAdapter", "create"]
