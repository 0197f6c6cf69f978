"""The beginning of the usage line: what was observed is added up for each customer's service and interval.

meter (or take) -> close -> a usage, and from there the line goes on in billing. What an observation comes to in each
interval is safe on the bus (stream METERED, a subject for each interval) before its message is done. An interval is
closed as a whole: where it is cut is stored first, so a run that died anywhere ends in the same usage; what came after
the cut is found by the next, as a correction. Which observations were counted is kept with the interval: none is
counted twice, however late it comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from time import time
from typing import Any, NamedTuple
from urllib.parse import unquote
from uuid import NAMESPACE_URL, uuid5

import structlog

from convergedon.adapters.contract import Observation
from convergedon.core import metrics
from convergedon.core.bus import Message, partition, token
from convergedon.core.errors import Conflict, NotFound
from convergedon.core.store import Record, Store
from convergedon.handlers.usage import METERING, USAGE
from convergedon.mediation import intervals
from convergedon.mediation.assurance import instant
from convergedon.mediation.intervals import IP_TRAFFIC, TRAFFIC, Intervals, Kept, Rule, Sum
from convergedon.mediation.work import Work

AT_ONCE = 16
"""Usages that are written side by side."""
SOURCES_TOGETHER = 10_000
"""Observations that one record names at most: a document of the store has its bounds."""
CROWDED = 3 / 4
"""Of the bytes that what is metered may have: from there on intervals are closed before their time."""
LARGEST = (1 << 63) - 1
"""What a store's integer holds; a sum beyond is written as text."""


log = structlog.get_logger()


class Interval(NamedTuple):
    """Of which tenant and usage type, and from when on (seconds since the epoch)."""

    tenant: str
    usage_type: str
    begin: int

    @property
    def subject(self) -> str:
        return f"metered.{token(self.tenant)}.{token(self.usage_type)}.{self.begin}"

    @property
    def id(self) -> str:
        return str(uuid5(NAMESPACE_URL, f"interval|{self.tenant}|{self.usage_type}|{self.begin}"))


def _interval(subject: str) -> Interval:
    _, tenant, usage_type, begin = subject.split(".")
    return Interval(unquote(tenant), unquote(usage_type), int(begin))


# what was observed comes to


async def meter(work: Work, message: Message) -> None:
    """Flow records of one observation: what each customer's address has in them, by interval."""
    seen = Observation(**message.body["observation"])
    records, rule = seen.attributes["records"], work.metering.usageTypes[IP_TRAFFIC]
    addresses = {intervals.canonical(record[end]) for record in records for end in ("source", "destination")}
    known = await work.addresses.known(work.store, seen.tenant, addresses)
    found, unassigned, misdated = intervals.of_flows(records, known, rule, seen.device, seen.time)
    metrics.UNASSIGNED.inc(unassigned)
    metrics.MISDATED.labels(IP_TRAFFIC).inc(misdated)
    await _make_safe(work, message, seen, IP_TRAFFIC, TRAFFIC, rule, found)


async def take(work: Work, message: Message) -> None:
    """Call records of one observation: added up by interval, or a usage each where their type has no rule."""
    seen = Observation(**message.body["observation"])
    usage_type, names = seen.attributes["usageType"], seen.attributes["names"]
    rule = work.metering.usageTypes.get(usage_type)
    if rule is None:
        await _in_turns(_take_one(work, seen, usage_type, record) for record in seen.attributes["records"])
        return
    found, misdated = intervals.of_calls(seen.attributes["records"], names, rule, seen.device, seen.time)
    metrics.MISDATED.labels(usage_type).inc(misdated)
    await _make_safe(work, message, seen, usage_type, names, rule, found)


async def _make_safe(
    work: Work,
    message: Message,
    seen: Observation,
    usage_type: str,
    names: Sequence[str],
    rule: Rule,
    found: Intervals,
) -> None:
    at = [message.position.epoch, message.position.sequence]
    for begin, totals in found.items():
        interval = Interval(seen.tenant, usage_type, begin)
        body = {
            "observation": seen.id,
            "at": at,
            "end": begin + rule.interval,
            "names": names,
            "keys": rule.keys,
            "rows": intervals.rows(totals),
        }
        await work.bus.publish(interval.subject, body, f"{seen.id}:{usage_type}:{begin}")


async def _take_one(work: Work, seen: Observation, usage_type: str, record: Mapping[str, Any]) -> None:
    one = Sum(record["start"], record["end"], record["counts"], 1, [seen.id])
    kept = Kept(intervals.whose(record), tuple(record["texts"].items()))
    texts = {"exporter": seen.device, "record": record["id"]}
    id = str(uuid5(NAMESPACE_URL, f"call|{seen.tenant}|{record['id']}"))
    await _create(work, seen.tenant, id, usage_body(usage_type, kept, one, texts), {"sources": one.sources})


async def _in_turns(writes: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do many writes, as many at once as the store has threads. Raises what the first one that failed raised."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(write: Coroutine[Any, Any, None]) -> None:
        async with room:
            await write

    for ended in await asyncio.gather(*map(one, writes), return_exceptions=True):
        if ended is not None:
            raise ended


async def _create(work: Work, tenant: str, id: str, body: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    try:
        await work.resources.create(USAGE, tenant, body, facts, id)
    except Conflict:
        return  # made before: by a run that was cut, or of the same records that came again


def usage_body(usage_type: str, kept: Kept, one: Sum, texts: Mapping[str, str]) -> dict[str, Any]:
    """A usage as it stands in the API: what was counted, of whom, from when to when, and what leads back."""
    counts = {**one.counts, "records": one.records}
    said = {kept.who.by: kept.who.name, **dict(kept.keys), **texts}
    said |= {"start": instant(one.start), "end": instant(one.end)}
    words = "IP traffic" if usage_type == IP_TRAFFIC else usage_type
    return {
        "usageType": usage_type,
        "usageDate": said["end"],
        "description": f"{words} of {kept.who.name}",
        "usageSpecification": {"id": usage_type, "@referredType": "UsageSpecification"},
        "usageCharacteristic": [
            *({"name": name, "value": _stored(value), "valueType": "integer"} for name, value in counts.items()),
            *({"name": name, "value": value, "valueType": "string"} for name, value in said.items()),
        ],
    }


def _stored(value: int) -> int | str:
    return value if value <= LARGEST else str(value)


# an interval is closed


async def ask(work: Work, now: float | None = None) -> None:
    """Ask for each interval that may be closed that it be: once, whoever asks, until it is done.

    Where there is little room left all are closed, whatever their time: what comes later makes corrections of them.
    """
    now = time() if now is None else now
    early = await work.bus.size("METERED") > CROWDED * work.settings.metered_bytes
    if early:
        log.warning("intervals are closed before their time: CONVERGEDON_METERED_BYTES is nearly reached")
    for subject in await work.bus.waiting("METERED"):
        interval = _interval(subject)
        rule = work.metering.usageTypes.get(interval.usage_type)
        grace = rule.grace if rule else 0
        if now < interval.begin + grace and not early:
            continue
        last = await work.bus.last(subject)
        if last is None or not (early or intervals.due(last.body["end"], grace, last.stored, now)):
            continue
        about = {"kind": "interval", "id": f"{interval.usage_type}/{interval.begin}", "tenant": interval.tenant}
        task = f"task.{partition(subject)}.{token(interval.tenant)}.interval"
        id = f"close:{interval.id}:{last.position.epoch}:{last.position.sequence}"
        headers = {name: last.headers[name] for name in ("traceparent",) if name in last.headers}
        await work.bus.publish(task, {"about": about, "interval": interval._asdict()}, id, headers)


async def close(work: Work, message: Message) -> None:
    """Make usage of what was metered for an interval until now, and of what was not yet: all of it, or it goes on."""
    interval = Interval(**message.body["interval"])
    closing = await _cut(work, interval)
    if closing is None:
        return
    facts, counted = closing.facts, await _counted(work.store, closing)
    sums: dict[Kept, Sum] = {}
    places: dict[str, int] = {}
    repeated = 0
    async for metered in _metered(work, interval, facts):
        if metered["observation"] in counted or metered["observation"] in places:
            repeated += 1
            continue
        places[metered["observation"]] = metered["at"][1]
        intervals.merge(sums, metered)
    metrics.REPEATED.inc(repeated)
    part = facts["parts"]
    if part and sums:
        metrics.CORRECTIONS.labels(interval.usage_type).inc(len(sums))
    await _in_turns(_make(work, interval, part, kept, one) for kept, one in sums.items())
    await _remember(work.store, closing, places)
    done = {**facts, "done": facts["cut"], "cut": None, "parts": part + 1}
    await work.store.replace(replace(closing, facts=done))
    await work.bus.purge(interval.subject, facts["cut"])


async def _cut(work: Work, interval: Interval) -> Record | None:
    """The interval's record with where it is cut, which is stored before anything is made; None: there is nothing."""
    try:
        closing = await work.store.get(METERING.name, interval.tenant, interval.id)
    except NotFound:
        begun = {"interval": interval._asdict(), "epoch": "", "done": 0, "cut": None, "parts": 0}
        try:
            closing = await work.store.create(Record(METERING.name, interval.id, interval.tenant, {}, begun))
        except Conflict:
            closing = await work.store.get(METERING.name, interval.tenant, interval.id)
    facts = dict(closing.facts)
    if facts["cut"] is not None:
        return closing
    last = await work.bus.last(interval.subject)
    if last is None:
        return None
    if last.position.epoch != facts["epoch"]:  # the stream was made anew, and counts anew
        facts |= {"epoch": last.position.epoch, "done": 0}
    if last.position.sequence <= facts["done"]:
        await work.bus.purge(interval.subject, facts["done"])
        return None
    as_ruled = {"seconds": last.body["end"] - interval.begin, "keys": last.body["keys"]}
    return await work.store.replace(replace(closing, facts={**facts, **as_ruled, "cut": last.position.sequence}))


async def _metered(work: Work, interval: Interval, facts: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
    """What stands between the last cut and this one."""
    async with aclosing(work.bus.since(interval.subject, 0, facts["done"])) as messages:
        async for message in messages:
            if message.position.sequence > facts["cut"]:
                return
            yield message.body


async def _make(work: Work, interval: Interval, part: int, kept: Kept, one: Sum) -> None:
    id = str(uuid5(NAMESPACE_URL, f"{interval.id}|{part}|{kept.who.by}|{kept.who.name}|{kept.keys}"))
    body = usage_body(interval.usage_type, kept, one, {"interval": instant(interval.begin)})
    if part:
        body["usageCharacteristic"].append({"name": "correction", "value": part, "valueType": "integer"})
    await _create(work, interval.tenant, id, body, {"sources": one.sources, "metering": interval.id})


async def _counted(store: Store, closing: Record) -> set[str]:
    """The observations of which usage was made before, for this interval."""
    if not closing.facts["parts"]:
        return set()
    # of earlier parts: this one may have been cut after it had remembered
    found = await store.find(METERING.name, {"tenant": closing.tenant, "facts.of": closing.id})
    earlier = (record.facts["sources"] for record in found if record.facts["part"] < closing.facts["parts"])
    return {id for sources in earlier for id, _ in sources}


async def _remember(store: Store, closing: Record, places: Mapping[str, int]) -> None:
    """Keep which observations were counted, and where in the stream of observations each stands."""
    listed, part = list(places.items()), closing.facts["parts"]
    together = [listed[at : at + SOURCES_TOGETHER] for at in range(0, len(listed), SOURCES_TOGETHER)]
    records = [
        Record(
            METERING.name,
            f"{closing.id}:{part}:{n}",
            closing.tenant,
            {},
            {"of": closing.id, "part": part, "sources": sources},
        )
        for n, sources in enumerate(together)
    ]
    if records:
        await store.append(records)
