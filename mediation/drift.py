"""What different sources say of the same service: flow records, interface counters, call records, side by side.

Each source is a usage type. A service that several count octets of should have about the same from each: how far they
are apart tells an operator of an exporter that lost packets, of sampling that is not what it says, or of a port that
somebody else uses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from convergedon.core.store import Record, Store
from convergedon.handlers.usage import USAGE
from convergedon.mediation import inventory
from convergedon.mediation.intervals import IP_TRAFFIC

OCTETS = "octets"
"""What begins the name of each count of them."""
SLICE = 3600
"""Seconds of usages that are in hand at a time."""
SOURCES = {IP_TRAFFIC: "flow records", "interface-traffic": "interface counters"}
"""What makes usage of a type; any other is of call records, or of who posts usages."""


@dataclass
class Source:
    """What one source says of a service."""

    usageType: str
    counts: Counter[str] = field(default_factory=Counter)
    usages: int = 0
    records: int = 0
    first: str = ""
    last: str = ""
    percent: float | None = None
    """How much less it has than the source that has most; None where it counts no octets, or no other does."""

    @property
    def octets(self) -> int | None:
        found = [count for name, count in self.counts.items() if name.startswith(OCTETS)]
        return sum(found) if found else None

    @property
    def document(self) -> dict[str, Any]:
        return {**vars(self), "counts": dict(self.counts), "octets": self.octets}

    def take(self, said: dict[str, Any]) -> None:
        self.usages += 1
        self.records += int(said.get("records", 1))
        self.first = min(filter(None, (self.first, str(said.get("start", "")))), default="")
        self.last = max(self.last, str(said.get("end", "")))
        self.counts.update({name: int(value) for name, value in said.items() if _is_count(name, value)})

    def __str__(self) -> str:
        counted = ", ".join(f"{name} {count:,}" for name, count in sorted(self.counts.items()) if count)
        span = f", {self.first} to {self.last}" if self.first else ""
        apart = f": {self.percent:.1f} % less" if self.percent else ""
        what = SOURCES.get(self.usageType, "records")
        return f"{self.usageType} ({what}) {counted or 'nothing'} in {self.records:,} records{span}{apart}"


def _is_count(name: str, value: Any) -> bool:
    """Whether it is a number of something that was counted; one that no integer of the store holds is a text."""
    counted = isinstance(value, int) and not isinstance(value, bool) and name not in ("records", "correction")
    return counted or (name.startswith(OCTETS) and isinstance(value, str) and value.isdigit())


@dataclass
class Compared:
    """A service, and what each of its sources says; without an id what belongs to none (yet)."""

    service: str
    name: str = ""
    sources: dict[str, Source] = field(default_factory=dict)

    @property
    def percent(self) -> float:
        """How far the sources are apart."""
        return max((one.percent or 0.0 for one in self.sources.values()), default=0.0)

    @property
    def document(self) -> dict[str, Any]:
        sources = [one.document for one in self.sources.values()]
        return {"service": self.service, "name": self.name, "percent": self.percent, "sources": sources}

    def compare(self) -> None:
        """Only what counts octets can be compared, and only with another that does."""
        octets = {name: one.octets for name, one in self.sources.items() if one.octets is not None}
        most = max((count for count in octets.values() if count is not None), default=0)
        for name, count in octets.items():
            if self.service and len(octets) > 1 and count is not None:
                self.sources[name].percent = round(100 * (most - count) / most, 2) if most else 0.0

    def __str__(self) -> str:
        who = f"service {self.service} ({self.name})" if self.service else "of no service that is known (yet)"
        compared = any(one.percent is not None for one in self.sources.values())
        apart = f": {self.percent:.1f} % apart" if compared else ": no two sources that count octets"
        return "\n".join([who + apart, *(f"  {one}" for one in self.sources.values())])


def compared(usages: Iterable[Record], known: dict[str, Compared]) -> None:
    """Add what usages say to what is known of their services."""
    for usage in usages:
        service = usage.facts.get("service", "")
        said = {one["name"]: one["value"] for one in usage.body.get("usageCharacteristic") or []}
        type_ = usage.body["usageType"]
        known.setdefault(service, Compared(service)).sources.setdefault(type_, Source(type_)).take(said)


async def between(store: Store, tenant: str, start: datetime, end: datetime, above: float = 0.0) -> list[Compared]:
    """Each service of which usage ended in this time, the one whose sources are furthest apart first.

    With ``above`` only those whose sources are further apart than so many per cent.
    """
    known: dict[str, Compared] = {}
    for begin, until in _slices(start, end):
        where = {"tenant": tenant, "facts.at.usageDate": {"$gte": begin, "$lt": until}}
        compared(await store.find(USAGE.name, where), known)
    for one in known.values():
        one.compare()
    found = [one for one in known.values() if not above or one.percent > above]
    named = {one.id: one.name for one in await inventory.named(store, tenant, [one.service for one in found])}
    for one in found:
        one.name = named.get(one.service, "")
        one.sources = dict(sorted(one.sources.items()))
    return sorted(found, key=lambda one: (-one.percent, one.service))


def _slices(start: datetime, end: datetime) -> Iterator[tuple[int, int]]:
    """In microseconds since the epoch."""
    begin, last = (round(moment.timestamp() * 1_000_000) for moment in (start, end))
    for at in range(begin, last, SLICE * 1_000_000):
        yield at, min(at + SLICE * 1_000_000, last)
