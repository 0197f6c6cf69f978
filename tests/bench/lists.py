"""How long the usual lists take, from a thousand records of a kind to a million, on the embedded store and on others.

    python -m tests.bench lists --most 1000000 --store NAME=mongodb://...

The query strings are read with the API's own document and answered by the store as the operation ``list`` has it: a
page, and where the page is full the count that X-Total-Count says. Each asking is for other values. What takes longer
than a person waits is not asked at larger sizes.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

from pymongo import MongoClient

from convergedon.core import embedded
from convergedon.core.errors import Unavailable
from convergedon.core.store import MongoStore, Record
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.alarms import API as ALARMS
from convergedon.handlers.documents import Shape, shape
from convergedon.handlers.product_ordering import API as ORDERS
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.handlers.query import parse
from tests.bench.rounds import Effort, Result, in_turn, rounded
from tests.bench.stock import TENANT, TENANTS, Stock, stock

PAGE = 20
USUAL = {
    "order by id": ("productOrder", "id={id}"),
    "orders by externalId": ("productOrder", "externalId={external}"),
    "orders by relatedParty.id": ("productOrder", "relatedParty.id={party}"),
    "a party's own orders": ("productOrder", "mine"),
    "orders of a day, newest first": ("productOrder", "orderDate.gte={day}&orderDate.lt={next}&sort=-orderDate"),
    "orders held (0.4 %)": ("productOrder", "state=held"),
    "orders held, newest first": ("productOrder", "state=held&sort=-orderDate"),
    "orders completed (90 %)": ("productOrder", "state=completed"),
    "newest orders": ("productOrder", "sort=-orderDate"),
    "orders": ("productOrder", ""),
    "alarms by alarmedObject.id": ("alarm", "alarmedObject.id={object}"),
    "alarms critical (0.25 %)": ("alarm", "perceivedSeverity=critical"),
    "alarms major and open (1.2 %)": ("alarm", "perceivedSeverity=major&state=raised,updated"),
    "alarms of a day, newest first": (
        "alarm",
        "alarmRaisedTime.gte={day}&alarmRaisedTime.lt={next}&sort=-alarmRaisedTime",
    ),
    "newest alarms": ("alarm", "sort=-alarmRaisedTime"),
}
SHAPES: Mapping[str, Shape] = {
    PRODUCT_ORDER.name: shape(ORDERS.document, PRODUCT_ORDER.schema),
    ALARM.name: shape(ALARMS.document, ALARM.schema),
}
KINDS = (PRODUCT_ORDER.kind, ALARM.kind)
BATCH = 1000
COUNT = ": count"
EMBEDDED_MOST = 100_000
"""The embedded store takes minutes for more and is not meant for it."""
LONGEST = 2.0
"""Seconds after which a list is not asked at larger sizes."""


@dataclass
class Contestant:
    """A store under measurement: what of it took how long at the present size, and what it is not asked any more."""

    name: str
    version: str
    client: MongoClient[dict[str, Any]]
    database: str
    store: MongoStore
    most: int
    found: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    over: dict[str, str] = field(default_factory=dict)
    loading: float = 0.0


async def measure(effort: Effort) -> Result:
    sizes = [*(size for size in (10**power for power in range(3, 8)) if size < effort.most), effort.most]
    result = Result(f"lists: a page of {PAGE}, and the count where it is full", "ms, by records of a kind")
    things = await stock()
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-", ignore_cleanup_errors=True) as folder:
        async with AsyncExitStack() as stack:
            running = [await _embedded(Path(folder), stack)]
            running += [await _other(name, url, stack) for name, url in effort.stores]
            begin = 0
            for size in sizes:
                there = [one for one in running if one.most >= size]
                await _load(there, things, begin, size)
                for one in there:
                    await one.store.find(ALARM.name, {"tenant": TENANT, "id": ""})  # the first is slow on any server
                begin = size
                for label in USUAL:
                    await _ask(there, label, things, size, effort)
                _report(result, there, size)
    _compare(result, running, sizes)
    return result


async def _embedded(folder: Path, stack: AsyncExitStack) -> Contestant:
    server = await stack.enter_async_context(embedded.mongodb(folder))
    return await _opened("embedded", server.url, EMBEDDED_MOST, stack)


async def _other(name: str, url: str, stack: AsyncExitStack) -> Contestant:
    one = await _opened(name, url, 10**9, stack)
    stack.callback(one.client.drop_database, one.database)
    return one


async def _opened(name: str, url: str, most: int, stack: AsyncExitStack) -> Contestant:
    """A store in a database of its own."""
    database = f"bench{uuid4().hex[:8]}"
    client: MongoClient[dict[str, Any]] = stack.enter_context(MongoClient(url))
    version = str(client.server_info()["version"])
    store = await MongoStore(url, database, KINDS).open()
    stack.push_async_callback(store.close)
    return Contestant(name, version, client, database, store, most)


async def _load(running: list[Contestant], things: Stock, begin: int, end: int) -> None:
    """Bring every collection to a size; each store is given the same batches, the next being made meanwhile."""
    written = asyncio.gather()
    for kind in SHAPES:
        for first in range(begin, end, BATCH):
            records = list(things.records(kind, first, min(first + BATCH, end)))
            await written
            written = asyncio.gather(*(_append(one, records) for one in running))
            await asyncio.sleep(0)
    await written


async def _append(one: Contestant, records: Sequence[Record]) -> None:
    begun = perf_counter()
    await one.store.append(records)
    one.loading += perf_counter() - begun


async def _ask(running: list[Contestant], label: str, things: Stock, size: int, effort: Effort) -> None:
    """One list, the stores in turn; one that is too slow for it is not asked on."""
    asking = {
        one.name: _turns(one, label, things, size, effort.seconds / 10) for one in running if label not in one.over
    }
    await in_turn(asking, effort.rounds)


def _turns(one: Contestant, label: str, things: Stock, size: int, seconds: float) -> Callable[[], Awaitable[float]]:
    kind, text = USUAL[label]
    chance = Random(label)

    async def turn() -> float:
        if label in one.over:
            return 0.0
        end = perf_counter() + seconds
        while not one.found[label] or perf_counter() < end:
            where, query = _asked(kind, text, things, size, chance)
            begun = perf_counter()
            try:
                page = await one.store.find(kind, where, query.sort, query.offset, PAGE)
                read = perf_counter()
                one.found[label].append(read - begun)
                if len(page) == PAGE:
                    await one.store.count(kind, where)
                    one.found[label + COUNT].append(perf_counter() - read)
            except Unavailable as error:
                one.over[label] = (
                    f"at {size:,} it was given up after {perf_counter() - begun:.0f} s ({str(error)[:60]})"
                )
                break
            slow = [took for took in one.found[label] if took > LONGEST]
            if len(slow) > 1:  # one may have met the server at its housekeeping
                one.over[label] = f"at {size:,} it took {min(slow):.1f} s"
                break
        return 0.0

    return turn


def _asked(kind: str, text: str, things: Stock, size: int, chance: Random) -> tuple[dict[str, Any], Any]:
    """The filter of the operation ``list`` for what a record of ours answers."""
    mine = [number for number in range(len(TENANTS)) if TENANTS[number] == TENANT]
    number = chance.randrange(size // len(TENANTS)) * len(TENANTS) + chance.choice(mine)
    words = things.words(things.record(kind, number))
    if text == "mine":
        return {"tenant": TENANT, "facts.parties": {"$in": [words["party"]]}}, parse((), SHAPES[kind])
    query = parse(parse_qsl(text.format(**words)), SHAPES[kind])
    visible = {"tenant": TENANT}
    return {"$and": [visible, query.where]} if query.where else visible, query


def _report(result: Result, running: list[Contestant], size: int) -> None:
    for one in running:
        for label, took in one.found.items():
            if not took or 2 * len(took) < len(one.found[label.removesuffix(COUNT)]):
                continue  # given up, or few of its pages were full
            figures = result.figures.setdefault(f"{one.name}: {label}", {})
            figures[f"{size:,}"] = rounded(1000 * statistics.median(took))
        one.found.clear()


def _compare(result: Result, running: list[Contestant], sizes: list[int]) -> None:
    """How each list grows with the collection, and how the stores stand to each other where both were asked."""
    for name, figures in result.figures.items():
        measured = list(figures)
        if len(measured) > 1:
            last = measured[-1]
            result.ratios[f"{name}: {last} / {measured[0]}"] = rounded(figures[last] / figures[measured[0]])
    ours, *others = running
    for other in others:
        for label in USUAL:
            one, two = (result.figures.get(f"{c.name}: {label}", {}) for c in (ours, other))
            if both := [size for size in one if size in two]:
                pair = f"{label}, {both[-1]}: {ours.name} / {other.name}"
                result.ratios[pair] = rounded(one[both[-1]] / two[both[-1]])
    for one in running:
        loaded = len(SHAPES) * min(one.most, sizes[-1])
        said = f"{one.name}: version {one.version}; {loaded:,} records loaded at {loaded / one.loading:,.0f}/s"
        result.notes.append(said)
        result.notes += [f"{one.name}: {label}: {why}" for label, why in one.over.items()]
    if not others:
        result.notes.append("only the embedded store was measured: name others with --store NAME=mongodb://...")
