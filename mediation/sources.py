"""What a usage was made of: which exporters said it, in how many records, how they sampled and what was missing.

Observations are read again where the bus still keeps them (a week), and added up again as they were: so it shows
whether a usage is what its records come to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from convergedon.adapters.contract import Observation
from convergedon.core.bus import Bus
from convergedon.core.store import Record, Store
from convergedon.handlers.usage import METERING, USAGE
from convergedon.mediation import intervals
from convergedon.mediation.intervals import TRAFFIC, Kept, Rule, Total, Who
from convergedon.mediation.metering import Interval


@dataclass
class Exporter:
    """What one exporter or file has to do with a usage."""

    name: str
    adapter: str
    observations: int = 0
    records: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    sampling: set[float] = field(default_factory=set)
    missing: int = 0

    def __str__(self) -> str:
        found = f"{self.name} ({self.adapter}): {_some(self.observations, 'observation')}"
        if self.records:
            found += f", {_some(self.records, 'record')}"
        if self.sampling:
            found += f", sampled 1 in {', '.join(f'{rate:g}' for rate in sorted(self.sampling))}"
        if self.missing:
            found += f", {self.missing} missing in between"
        return found


@dataclass
class Made:
    """What a usage says, and what it was made of."""

    usage: str
    usageType: str
    of: str
    said: Mapping[str, Any]
    observations: int = 0
    kept: int = 0
    exporters: dict[str, Exporter] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        exporters = [{**vars(one), "sampling": sorted(one.sampling)} for one in self.exporters.values()]
        return {**vars(self), "exporters": exporters, "addsUp": self.adds_up}

    @property
    def adds_up(self) -> bool | None:
        """Whether what is kept comes to what the usage says; None where not all is kept, or it is not added up."""
        found: Counter[str] = Counter()
        for exporter in self.exporters.values():
            found.update({**exporter.counts, "records": exporter.records})
        if self.kept < self.observations or not any(exporter.counts for exporter in self.exporters.values()):
            return None
        return all(found[name] == value for name, value in self.said.items() if name in found)

    def __str__(self) -> str:
        counted = ", ".join(f"{name} {value}" for name, value in self.said.items() if isinstance(value, int))
        lines = [f"usage {self.usage}: {self.usageType} of {self.of}, {counted}"]
        lines += [f"  {exporter}" for exporter in self.exporters.values()]
        if self.kept < self.observations:
            gone = self.observations - self.kept
            lines.append(f"  {_some(gone, 'observation')} of {self.observations}: not kept by the bus any more")
        elif self.adds_up is not None:
            lines.append(f"  these come to {'the same' if self.adds_up else 'something else'}")
        if "record" in self.said:
            lines.append(f"  it is one record: {self.said['record']} (hash of its file, and line)")
        return "\n".join(lines)


def _some(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


async def made_of(store: Store, bus: Bus, tenant: str, id: str) -> Made:
    """Read a usage and all that it came from. Raises NotFound where there is no such usage."""
    usage = await store.get(USAGE.name, tenant, id)
    said = {one["name"]: one["value"] for one in usage.body.get("usageCharacteristic") or []}
    made = Made(usage.id, usage.body["usageType"], str(said.get("address") or said.get("service", "?")), said)
    sources = usage.facts.get("sources", [])
    made.observations = len(sources)
    if not (metering := usage.facts.get("metering")):
        if sources and "exporter" in said:
            made.exporters[said["exporter"]] = Exporter(said["exporter"], "file", 1, 1)
            made.kept = 1
        return made
    closed = await store.get(METERING.name, tenant, metering)
    places = await _places(store, closed, set(sources))
    rule = Rule(interval=closed.facts["seconds"], grace=0, keys=closed.facts["keys"])
    wanted = Interval(**closed.facts["interval"]).begin, _kept(said, rule)
    async for seen in _between(bus, places.values()):
        if seen.id in places:
            made.kept += 1
            _take(made, seen, rule, *wanted)
        elif seen.device in made.exporters:
            made.exporters[seen.device].missing += seen.attributes.get("missing", 0)
    return made


async def _places(store: Store, closed: Record, wanted: Collection[str]) -> dict[str, int]:
    """Where each observation stands in the stream of observations."""
    found = await store.find(METERING.name, {"tenant": closed.tenant, "facts.of": closed.id})
    return {id: place for record in found for id, place in record.facts["sources"] if id in wanted}


async def _between(bus: Bus, places: Collection[int]) -> AsyncIterator[Observation]:
    """All observations from the first of these places to the last."""
    if not places:
        return
    async with aclosing(bus.since("network.>", 0, min(places) - 1)) as messages:
        async for message in messages:
            if message.position.sequence > max(places):
                return
            for each in message.body.get("observations") or [message.body]:
                if "observation" in each:  # answers to intents stand between them
                    yield Observation(**each["observation"])


def _kept(said: Mapping[str, Any], rule: Rule) -> Kept:
    who = Who("address", said["address"]) if "address" in said else Who("service", said.get("service", ""))
    return Kept(who, tuple(said.get(key, "") for key in rule.keys))


def _take(made: Made, seen: Observation, rule: Rule, begin: int, wanted: Kept) -> None:
    exporter = made.exporters.setdefault(seen.device, Exporter(seen.device, seen.adapter))
    exporter.observations += 1
    exporter.missing += seen.attributes.get("missing", 0)
    if sampling := seen.attributes.get("sampling"):
        exporter.sampling.add(sampling)
    total, names = _total(seen, rule, begin, wanted)
    if total is not None:
        exporter.records += total.records
        exporter.counts.update(dict(zip(names, total.sums, strict=True)))


def _total(seen: Observation, rule: Rule, begin: int, wanted: Kept) -> tuple[Total | None, tuple[str, ...]]:
    """What an observation comes to for one of those kept apart."""
    records = seen.attributes["records"]
    if seen.kind == "flow":
        found, *_ = intervals.of_flows(records, {wanted.who.name}, rule, seen.device, seen.time)
        return found.get(begin, {}).get(wanted), TRAFFIC
    if seen.kind == "call":
        names = tuple(seen.attributes["names"])
        mine = [record for record in records if intervals.whose(record) == wanted.who]
        found, _ = intervals.of_calls(mine, names, rule, seen.device, seen.time)
        return found.get(begin, {}).get(wanted), names
    return None, ()
