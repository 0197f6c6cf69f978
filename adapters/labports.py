"""The interfaces of a lab element, whichever protocol they are asked by: up or down, and counting what they carry.

What an access carries is simulated, and nothing else is: a part of what it is shaped to, all the time. An interface's
counters are the sum of its accesses', so flow records and counters of the same seconds say the same.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

UTILISATION = 0.5
"""The part of its bandwidth that an access is simulated to use, in each direction."""
OCTETS_A_MEGABIT = 125_000
OCTETS_A_PACKET = 1_000


@dataclass(frozen=True)
class Shaped:
    """What is configured: an access on an interface, the customer's address, and Mbit/s."""

    name: str
    interface: str
    address: str
    bandwidth: int


@dataclass
class Port:
    """One interface. ``index`` is its ifIndex; ``octets`` and ``packets`` are what it carried in each direction.

    It is up while it is ``enabled`` and there is somebody at the other end of the line. A line that is ``hung`` comes
    back when the interface was switched off.
    """

    name: str
    index: int
    capacity: int
    linked: bool = True
    enabled: bool = True
    hung: bool = False
    changed: float = 0.0
    """When it went up or down for the last time, in seconds since the element started."""
    octets: float = 0.0

    @property
    def up(self) -> bool:
        return self.linked and self.enabled

    @property
    def packets(self) -> int:
        return int(self.octets) // OCTETS_A_PACKET


class Ports:
    """All interfaces of an element, and what their accesses carry.

    ``capacities`` are in Mbit/s. Counters grow by the rates that were in force, whatever those are by now, and begin
    at nothing when the element starts.
    """

    def __init__(self, capacities: dict[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        self.capacities = capacities
        self._clock = clock
        self._ports = {name: Port(name, index, 0) for index, name in enumerate(capacities, 1)}
        self._accesses: dict[str, Shaped] = {}
        self._carried: defaultdict[str, float] = defaultdict(float)
        self.started = self._looked = clock()

    def restart(self) -> None:
        """What an element that starts does: it counts from nothing. What is down or off stays so."""
        self.started = self._looked = self._clock()
        self._carried.clear()
        for port in self._ports.values():
            port.octets, port.changed = 0.0, 0.0

    @property
    def uptime(self) -> float:
        """Seconds since the element started."""
        return self._clock() - self.started

    def read(self) -> dict[str, Port]:
        """The interfaces as they are now, by their names."""
        self._count()
        return {name: replace(port, capacity=self.capacities[name]) for name, port in self._ports.items()}

    def is_up(self, name: str) -> bool:
        return self._ports[name].up

    def set_link(self, name: str, linked: bool, hung: bool = False) -> bool:
        """Take the line of an interface up or down; whether the interface went up or down by that."""
        return self._set(name, linked=linked, hung=hung)

    def enable(self, name: str, enabled: bool) -> bool:
        """Switch an interface on or off; whether it went up or down by that."""
        port = self._ports[name]
        mended = port.hung and not enabled
        return self._set(name, enabled=enabled, linked=port.linked or mended, hung=port.hung and not mended)

    def _set(self, name: str, **state: bool) -> bool:
        self._count()
        port, before = self._ports[name], self._ports[name].up
        for member, value in state.items():
            setattr(port, member, value)
        if moved := port.up != before:
            port.changed = self.uptime
        return moved

    def configure(self, accesses: Iterable[Shaped]) -> None:
        """These are the accesses from now on."""
        self._count()
        self._accesses = {access.name: access for access in accesses}

    def shaped(self, access: Shaped) -> int:
        """What an access gives (Mbit/s): what was configured, as far as its interface can."""
        port = self._ports.get(access.interface)
        return min(access.bandwidth, self.capacities[port.name]) if port and port.up else 0

    def rates(self) -> dict[str, float]:
        """What each access carries now, in octets a second: together no more than their interface can."""
        given = {name: self.shaped(access) for name, access in self._accesses.items()}
        sold: defaultdict[str, int] = defaultdict(int)
        for name, rate in given.items():
            sold[self._accesses[name].interface] += rate
        part = {port: min(1.0, self.capacities[port] / rate) for port, rate in sold.items() if rate}
        whole = UTILISATION * OCTETS_A_MEGABIT
        return {name: whole * rate * part[self._accesses[name].interface] for name, rate in given.items() if rate}

    def carried(self) -> dict[str, tuple[str, float]]:
        """What each access that has an address carried in each direction since the element started, in octets."""
        self._count()
        found = {name: access.address.partition("/")[0] for name, access in self._accesses.items() if access.address}
        return {name: (address, self._carried[name]) for name, address in found.items()}

    def _count(self) -> None:
        """Count until now by the rates that were in force; they change only after this."""
        now = self._clock()
        passed, self._looked = max(0.0, now - self._looked), now
        for name, rate in self.rates().items():
            self._carried[name] += passed * rate
            self._ports[self._accesses[name].interface].octets += passed * rate
