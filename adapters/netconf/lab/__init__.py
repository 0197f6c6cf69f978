"""A NETCONF element to learn and to test with: a real server over real SSH that keeps what it is told.

It has candidate and running, locks, confirmed commit 1.1 and validation by libyang against convergedon-access.yang and
what it has of ietf-interfaces, and keeps its configuration in a folder. Its interfaces shape no faster than they can:
an access sold above the capacity of its port is accepted and then reads the capacity as its ``oper-bandwidth``, as real
shapers do. Faults are given to it as a list, so that a test says where on the line something breaks.
"""

from convergedon.adapters.netconf.lab.element import CAPABILITIES, Element, running
from convergedon.adapters.netconf.lab.faults import Fault
from convergedon.adapters.netconf.lab.messages import ACCESS, NOTIFICATION

__all__ = ["ACCESS", "CAPABILITIES", "NOTIFICATION", "Element", "Fault", "running"]
