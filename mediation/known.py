"""What a process remembers between two looks at alarms; nothing is wrong without it, only slower."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

from convergedon.core.bus import Position
from convergedon.mediation.correlation import device_of, kind_of
from convergedon.mediation.topology import Topologies

MOST = 10_000
"""Neighbourhoods that are remembered."""


@dataclass
class Known:
    """The topologies, and until which message of its lane a neighbourhood was looked at."""

    topologies: Topologies = field(default_factory=Topologies)
    _until: dict[tuple[str, str | frozenset[str]], Position] = field(default_factory=dict)
    _put_off: dict[tuple[str, frozenset[str]], float] = field(default_factory=dict)

    def has_seen(self, tenant: str, near: frozenset[str], asked: Position) -> bool:
        """Whether a look at this neighbourhood began after it was asked for."""
        until = self._until.get((tenant, near))
        if until is None and len(near) == 1:
            until = self._until.get((tenant, device_of(*near)))
        return until is not None and until.epoch == asked.epoch and until.sequence >= asked.sequence

    def put_off(self, tenant: str, near: frozenset[str]) -> float:
        """For how long (seconds) looks at this neighbourhood have been left to later ones, from now on counted."""
        return monotonic() - self._put_off.setdefault((tenant, near), monotonic())

    def note(self, tenant: str, near: frozenset[str], until: Position) -> None:
        if len(self._until) > MOST:
            self._until.clear()
        self._put_off.pop((tenant, near), None)
        self._until[tenant, near] = until
        for place in near:
            if kind_of(place) == "device":
                self._until[tenant, place] = until
