"""What a process remembers of what it did; nothing is wrong without it, only slower."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from time import monotonic

from convergedon.core.bus import Position
from convergedon.mediation.correlation import device_of, kind_of
from convergedon.mediation.topology import Topologies

Near = tuple[str, frozenset[str]]
"""A neighbourhood of a tenant's."""
MOST = 10_000
"""Neighbourhoods that are remembered."""
BESIDE = 32
"""Looks that are taken along with another, at most."""
ASKED = 5.0
"""Seconds after which a look that this process asked for is somebody else's, if not done."""
NEXT = 1.0
"""Seconds within which what stands behind a message is taken, if by this process at all."""


@dataclass
class Known:
    """The topologies, until which message of its lane a neighbourhood was looked at, and what was said to customers."""

    topologies: Topologies = field(default_factory=Topologies)
    _until: dict[tuple[str, str | frozenset[str]], Position] = field(default_factory=dict)
    _asked: dict[Near, tuple[float, int]] = field(default_factory=dict)
    _beside: dict[str, dict[str, tuple[float, frozenset[str]]]] = field(default_factory=dict)
    _taken_along: dict[str, None] = field(default_factory=dict)
    _said: dict[str, None] = field(default_factory=dict)
    _hearing: dict[str, tuple[float, Collection[Near]]] = field(default_factory=dict)

    def has_seen(self, tenant: str, near: frozenset[str], asked: Position) -> bool:
        """Whether a look at this neighbourhood began after it was asked for."""
        until = self._until.get((tenant, near))
        if until is None and len(near) == 1:
            until = self._until.get((tenant, device_of(*near)))
        return until is not None and until.epoch == asked.epoch and until.sequence >= asked.sequence

    def asked(self, tenant: str, near: frozenset[str], changes: int) -> None:
        """A look at this neighbourhood is asked for because of so many changes."""
        since, before = self._asked.get((tenant, near), (monotonic(), 0))
        self._asked[tenant, near] = since, before + changes

    def waiting(self, tenant: str, near: frozenset[str]) -> tuple[float, int]:
        """For how long (seconds) a look at this neighbourhood has been asked for, and because of how many changes."""
        since, changes = self._asked.get((tenant, near), (monotonic(), 0))
        return monotonic() - since, changes

    def asks(self, tenant: str, near: frozenset[str], id: str) -> None:
        """This process is about to ask for a look at this neighbourhood, by a message of this id."""
        self._taken_along.pop(id, None)
        asked = self._beside.setdefault(tenant, {})
        asked[id] = monotonic() + ASKED, near
        if len(asked) > MOST:  # another process has their turns
            del asked[next(iter(asked))]

    def took_up(self, tenant: str, id: str) -> bool:
        """A look that was asked for has its turn; says whether another one has taken it along."""
        self._beside.get(tenant, {}).pop(id, None)
        return self._taken_along.pop(id, "none") is None

    def take_along(self, tenant: str) -> Mapping[str, frozenset[str]]:
        """Looks of which this process knows that they wait for their turn: the ids of their messages, and where."""
        asked = self._beside.get(tenant, {})
        taken = {id: asked.pop(id) for id in [*islice(asked, BESIDE)]}
        return {id: near for id, (until, near) in taken.items() if until > monotonic()}

    def taken_along(self, tenant: str, ids: Iterable[str]) -> None:
        """These looks were done with another one; one that was asked for anew meanwhile has yet to be."""
        if len(self._taken_along) > MOST:
            self._taken_along.clear()
        self._taken_along |= {id: None for id in ids if id not in self._beside.get(tenant, {})}

    def said(self, notification: str) -> None:
        """A notification is made, and handed to all channels that its customer has."""
        if len(self._said) > MOST:
            self._said.clear()
        self._said[notification] = None

    def has_said(self, notification: str) -> bool:
        return notification in self._said

    @contextmanager
    def hearing(self, lane: str, near: Collection[Near], behind: int) -> Iterator[None]:
        """While a lane is heard on what is of these neighbourhoods; and a moment more, where more stands behind it."""
        self._hearing[lane] = inf, near
        try:
            yield
        finally:
            self._hearing[lane] = (monotonic() + NEXT if behind else 0.0), near

    def is_hearing(self, tenant: str, near: frozenset[str]) -> bool:
        """Whether more of what the network says of this neighbourhood is on its way through this process."""
        return any(until > monotonic() and (tenant, near) in heard for until, heard in self._hearing.values())

    def note(self, tenant: str, near: frozenset[str], until: Position) -> None:
        if len(self._until) > MOST:
            self._until.clear()
        self._asked.pop((tenant, near), None)
        self._until[tenant, near] = until
        for place in near:
            if kind_of(place) == "device":
                self._until[tenant, place] = until
