"""The interfaces of a lab element: up or down, and counting what the accesses on them are simulated to carry."""

from __future__ import annotations

from collections.abc import ItemsView, Mapping
from dataclasses import dataclass

UTILISATION = 0.5
"""The part of its bandwidth that an access is simulated to use, in each direction."""
OCTETS_A_MEGABIT = 125_000


@dataclass
class Port:
    """One interface; ``rate`` in octets a second is what it carries in each direction since it was looked at last.

    It is up while it is ``enabled`` and there is somebody at the other end of the line. A line that is ``hung`` comes
    back when the interface was switched off.
    """

    capacity: int
    linked: bool = True
    enabled: bool = True
    hung: bool = False
    octets: float = 0.0
    rate: float = 0.0

    @property
    def up(self) -> bool:
        return self.linked and self.enabled


class Ports:
    """All interfaces. Counters grow by the rates that were in force, whatever those are by now."""

    def __init__(self, names: Mapping[str, int], now: float) -> None:
        self._ports = {name: Port(capacity) for name, capacity in names.items()}
        self._looked = now

    def items(self) -> ItemsView[str, Port]:
        return self._ports.items()

    def begin_anew(self, now: float) -> None:
        """Count from nothing, as after a restart; lines and what was told to be off stay as they are."""
        self._looked = now
        for port in self._ports.values():
            port.octets = port.rate = 0.0

    def __getitem__(self, name: str) -> Port:
        return self._ports[name]

    def look(self, now: float, rates: Mapping[str, int]) -> None:
        """Count until now, and go on with what the accesses of each interface are shaped to (Mbit/s)."""
        passed, self._looked = max(0.0, now - self._looked), now
        for name, port in self._ports.items():
            port.octets += passed * port.rate
            port.rate = UTILISATION * OCTETS_A_MEGABIT * rates.get(name, 0) if port.up else 0.0
