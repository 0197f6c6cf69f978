"""What the interfaces of devices are called, so that whatever speaks of one speaks of it by one name.

A linkDown may carry a name, and the linkUp that follows the ifIndex alone, or the other way round. Polls read the
device's own names, and a notification that carries index and name teaches one. What a fault was told as stays until it
is cleared, whatever names come meanwhile. An ifIndex may be another interface's after a restart (RFC 2863 3.1.5): then
what was learned is forgotten, and a clear that does not carry the name is told again when a poll brings it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from convergedon.adapters.contract import Observation
from convergedon.adapters.snmp.mapping import IF_NAME, Meaning

MOST = 100_000
"""Of all devices together: whoever knows a community can name as many as it likes."""
REORDERED = 6_000
"""Hundredths of seconds by which the uptime in a notification may lie before an earlier one's: the network may have
changed their order. By more the device has restarted."""

Condition: TypeAlias = tuple[str, int]
"""The key of a mapping's entry, and an ifIndex."""


@dataclass(frozen=True)
class Told:
    """As what an interface's fault was told, and by which names, each in its column."""

    object: str
    names: Mapping[str, str]

    def may_be(self, names: Mapping[str, str]) -> bool:
        """Whether it is the same interface, as far as they say."""
        return all(names.get(column, name) == name for column, name in self.names.items())


@dataclass
class Known:
    """What is known of one device."""

    names: dict[int, str] = field(default_factory=dict)
    told: dict[Condition, Told] = field(default_factory=dict)
    at: dict[tuple[str, str], Condition] = field(default_factory=dict)
    """Where a part was told of last, by the key of the entry and its name."""
    unnamed: dict[Condition, tuple[Meaning, Observation]] = field(default_factory=dict)
    uptime: int = 0

    @property
    def size(self) -> int:
        return 1 + len(self.names) + len(self.told) + len(self.at) + len(self.unnamed)

    def restarted(self) -> None:
        """What has no other name than its index keeps that."""
        self.names.clear()
        self.unnamed.clear()
        self.keep({condition: told for condition, told in self.told.items() if not told.names})

    def keep(self, told: dict[Condition, Told]) -> None:
        self.told = told
        self.at = {(condition[0], one.object): condition for condition, one in told.items()}

    def stands(self, condition: Condition, told: Told) -> None:
        self._let_go(condition)
        self.told[condition] = told
        self.at[condition[0], told.object] = condition

    def over(self, condition: Condition, part: str) -> None:
        """By whatever index it was told of."""
        self._let_go(condition)
        if (other := self.at.get((condition[0], part))) is not None:
            self._let_go(other)

    def _let_go(self, condition: Condition) -> None:
        if (told := self.told.pop(condition, None)) is not None:
            self.at.pop((condition[0], told.object), None)


class Interfaces:
    """Of all devices; where there are too many, the one that was not heard of for longest is forgotten."""

    def __init__(self) -> None:
        self._devices: OrderedDict[str, Known] = OrderedDict()
        self._size = 0
        self.changed: set[str] = set()
        """Devices of which something is known that was not, or is no more; whoever keeps that takes them out."""

    def known(self, device: str) -> Known | None:
        return self._devices.get(device)

    def restore(self, known: Mapping[str, Known], at: float) -> None:
        """Go on with what was known at that time of devices of which nothing is known yet.

        Who is up for less than since then, and what it was up before, has restarted in between.
        """
        passed = max(0, int(100 * (time.time() - at)))
        for device, one in known.items():
            if device not in self._devices:
                one.uptime += passed if one.uptime else 0
                self._devices[device] = one
                self._bound(one.size)

    def names(self, device: str) -> Mapping[int, str]:
        known = self._devices.get(device)
        return known.names if known else {}

    def heard(self, device: str, uptime: int | None, begins: bool) -> None:
        """A notification says how long the device is up, or that it begins."""
        if (known := self._devices.get(device)) is None:
            return
        if begins or (uptime is not None and uptime < known.uptime - REORDERED):
            size = known.size
            known.restarted()
            known.uptime = uptime or 0
            self.changed.add(device)
            self._bound(known.size - size)
        elif uptime is not None and uptime > known.uptime:
            known.uptime = uptime

    def object(self, device: str, meaning: Meaning, uptime: int | None) -> str:
        """As what the part of the device is told that a notification speaks of."""
        if meaning.index is None:
            return meaning.object
        self.changed.add(device)
        known, condition = self._known(device, uptime), (meaning.template, meaning.index)
        size, told = known.size, known.told.get(condition)
        if told is not None and not told.may_be(meaning.names):
            told = None  # the index is another interface's now, and nobody said so
        if name := meaning.names.get(IF_NAME):
            known.names[meaning.index] = name
        found = told.object if told else meaning.object
        known.unnamed.pop(condition, None)
        if meaning.kind == "fault":
            known.stands(condition, Told(found, {**told.names, **meaning.names} if told else meaning.names))
        else:
            known.over(condition, found)
        self._bound(known.size - size)
        return found

    def cleared(self, device: str, meaning: Meaning, seen: Observation) -> None:
        """Keep a clear that does not say what the device calls the interface, until it is known."""
        if meaning.kind == "clear" and meaning.index is not None and IF_NAME not in meaning.names:
            known = self._known(device, None)
            size = known.size
            known.unnamed[meaning.template, meaning.index] = meaning, seen
            self.changed.add(device)
            self._bound(known.size - size)

    def learn(self, device: str, names: Mapping[int, str]) -> Iterable[tuple[Meaning, Observation, str]]:
        """These are its interfaces now; clears that were told by another name, with the one that they should have."""
        known = self._known(device, None)
        size = known.size
        named_otherwise = known.names != names
        known.names = dict(names)
        known.keep({at: one for at, one in known.told.items() if one.may_be({IF_NAME: names.get(at[1], "")})})
        settled = [
            (meaning, seen, name)
            for (_, index), (meaning, seen) in known.unnamed.items()
            if (name := names.get(index, seen.object)) != seen.object
        ]
        known.unnamed = {at: kept for at, kept in known.unnamed.items() if at[1] not in names}
        if named_otherwise or known.size != size:
            self.changed.add(device)
        self._bound(known.size - size)
        return settled

    def _known(self, device: str, uptime: int | None) -> Known:
        if device not in self._devices:
            self._devices[device] = Known(uptime=uptime or 0)
            self._size += 1
        self._devices.move_to_end(device)
        return self._devices[device]

    def _bound(self, grown: int) -> None:
        self._size += grown
        while self._size > MOST:
            device, forgotten = self._devices.popitem(last=False)
            self._size -= forgotten.size
            self.changed.add(device)
