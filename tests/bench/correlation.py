"""What one more alarm costs among many open ones: the pure answer, the look at the store; and fibre cuts of many sizes
until each is one problem, on the servers, with the law by which that grows.

The network is made of devices with two links each, in ducts of ten; a tenth of the ducts is cut for as many alarms as
are wanted open, so that problems are of the size of a duct and their number grows. Figures of the pure part are CPU
time; those of the store are on the embedded one, with a worker in this process. The cuts are measured on further stores
too, where some are named.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from math import log
from pathlib import Path
from statistics import linear_regression
from time import perf_counter, process_time, time
from typing import Any
from uuid import uuid4

from convergedon.adapters.contract import Observation
from convergedon.adapters.intake import OBSERVE_BATCH, Told
from convergedon.adapters.reporting import Reporting
from convergedon.core import audit, bundles, embedded, seals, settings
from convergedon.core.audit import Audit
from convergedon.core.bus import Message, NatsBus, Position, partition
from convergedon.core.engines import Embedded
from convergedon.core.policy import Policy
from convergedon.core.relay import Relay
from convergedon.core.store import MongoStore, Record
from convergedon.handlers.apis import APIS, KINDS
from convergedon.handlers.resource import Resources
from convergedon.mediation import planning, problems, rating, topology
from convergedon.mediation.correlation import Alarm, Correlation, Relation, Topology, needed, reconsidered
from convergedon.mediation.topology import Plan
from convergedon.mediation.work import Work
from convergedon.mediation.worker import Worker
from tests.bench.rounds import Effort, Result, rounded, spread

TENANT = "acme"
DUCT = 5
"""Links in a duct: their ten ends are one problem when it is cut."""
CUTS = (10, 100, 1_000, 2_000, 10_000)
"""Traps of the cuts, each in a network and on servers of its own; where little is to be measured, to a tenth of it."""
DRAWN = 200
"""Alarms whose links are in the topology of the store; the others stand for themselves."""
PATIENCE = 300.0


def network(links: int, duct: int = DUCT) -> list[Relation]:
    found = []
    for number in range(links):
        found += [Relation("connects", f"link {number}", end) for end in ends(number)]
        found.append(Relation("contains", f"group {number // duct}", f"link {number}"))
    return found


def ends(link: int) -> tuple[str, str]:
    return f"pe{link}/ge-1", f"pe{link + 1}/ge-2"


def places(alarms: int) -> list[str]:
    return [end for link in range(alarms // 2) for end in ends(link)]


async def measure(effort: Effort) -> Result:
    result = Result("correlation: one more alarm among so many open ones", "ms")
    sizes = [size for size in (10, 100, 1_000, 10_000) if size <= effort.most]
    for size in sizes:
        result.figures[f"pure, {size} open"] = spread(list(_pure(size, effort)), 1000)
    async with _worked() as work:
        for size in sizes:
            result.figures[f"store, {size} open"] = spread(await _stored(work, size, effort), 1000)
    for part in ("pure", "store"):
        few, many = (result.figures[f"{part}, {size} open"]["p50"] for size in (sizes[0], sizes[-1]))
        result.ratios[f"{part}, {sizes[-1]} / {sizes[0]} open"] = rounded(many / few)
    for name, url in (("embedded", ""), *effort.stores):
        took = {}
        for traps in (size for size in CUTS if size <= (effort.most if effort.most >= CUTS[-1] else effort.most // 10)):
            async with _worked(url) as work:
                result.figures[f"{name}: a cut of {traps} traps"] = figures = await _cut(work, traps)
            took[traps] = figures["after the last"]
        few, many = min(took), max(took)
        result.ratios[f"{name}: a cut of {many} traps / of {few}"] = rounded(took[many] / took[few])
        if len(took) > 2:
            result.ratios[f"{name}: time to settle grows with the traps to the power of"] = rounded(power(took))
    result.notes = [
        "pure figures are CPU time, the others on the clock",
        "a cut: its traps at once, one worker; the power is a straight line through the logarithms of all sizes, "
        "and of small ones most is the quarter of a second that a look waits for more",
    ]
    return result


def power(took: Mapping[int, float]) -> float:
    """The exponent b of the law time = a * size ** b that lies nearest to these, by least squares of logarithms."""
    sizes, times = [log(size) for size in took], [log(time) for time in took.values()]
    return linear_regression(sizes, times).slope


def _pure(size: int, effort: Effort) -> Iterator[float]:
    """CPU seconds for the conclusions on all that one more alarm can change."""
    known = Topology(network(size))
    at = {place: Alarm(f"down {place}", place, "major") for place in places(size)}
    end = perf_counter() + effort.seconds
    number = 0
    while not number or perf_counter() < end:
        link = size // 2 + number % (size // 2)
        new = Alarm("new", ends(link)[0], "major")
        begun = process_time()
        near = reconsidered([new.place], known)
        there = [at[place] for place in needed(near, known) if place in at]
        found = Correlation([*there, new], known)
        for alarm in (*there, new):
            found.verdict(alarm.key)
        yield process_time() - begun
        number += 1


@asynccontextmanager
async def _worked(url: str = "") -> AsyncIterator[Work]:
    """What a worker has, on servers of its own; on a database of its own of another store, where one is named."""
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-", ignore_cleanup_errors=True) as folder:
        chosen = settings.load(data=Path(folder))
        (chosen.data / "nats").mkdir()
        with embedded.running(embedded.nats_command(chosen.data / "nats")) as spine:
            async with _store(url, Path(folder)) as store:
                bus = await NatsBus(spine.url, "bench").open()
                rules, writer = Policy(Embedded(bundles.read(None))), Audit(store, bus, "bench")
                relay = Relay(store, bus)
                resources = Resources(store, APIS, "http://gateway.example")
                products, tariff = planning.load(None), rating.load(None)
                work = Work(
                    resources, bus, rules, writer, products, tariff, chosen, seals.seals(chosen), relay.published
                )
                await writer.start()
                await relay.start()
                try:
                    yield work
                finally:
                    await relay.stop()
                    await writer.stop()
                    await bus.close()


@asynccontextmanager
async def _store(url: str, folder: Path) -> AsyncIterator[MongoStore]:
    kinds = [*KINDS, audit.KIND]
    if url:
        store = await MongoStore(url, f"bench-{uuid4().hex}", kinds).open()
        yield store
        await store.close()
        return
    async with embedded.mongodb(folder) as server:
        store = await MongoStore(server.url, "bench", kinds).open()
        yield store
        await store.close()


async def _stored(work: Work, size: int, effort: Effort) -> list[float]:
    """Seconds that a look takes for an alarm that was raised at a place where none is, until all is written."""
    there = await work.store.count("alarm", {"tenant": TENANT})
    if not there:
        await topology.keep(work.resources, Plan(TENANT, _plan(DRAWN)))
    fresh = [_record(place) for place in places(size)[there:]]
    for first in range(0, len(fresh), 500):
        await work.store.append(fresh[first : first + 500])
    took = []
    end = perf_counter() + max(effort.seconds, 1.0)
    while not took or perf_counter() < end:
        place = f"pe{len(took)}/ge-{100 + size}"
        record = await work.store.create(_record(place))
        begun = perf_counter()
        await problems.correlate(work, _look(place, len(took)))
        took.append(perf_counter() - begun)
        await work.store.delete(await work.store.get("alarm", TENANT, record.id))
    return took


def _plan(most: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for relation in network(most // 2):
        found.setdefault(relation.of, []).append(relation.to)
        found.setdefault(relation.to, [])
        if "/" in relation.to:
            found.setdefault(relation.to.partition("/")[0], [])
    return found


def _look(place: str, number: int) -> Message:
    about = {"kind": "alarm", "tenant": TENANT, "id": place}
    subject = f"task.{partition(f'alarms of {TENANT}')}.{TENANT}"
    return Message(f"look {number}", subject, {"look": place, "about": about}, {}, Position("", number), time())


def _record(place: str) -> Record:
    device, _, port = place.partition("/")
    key = f"{device}|down:{port}"
    facts = {"key": key, "openKey": key, "place": place, "openAt": place, "openOn": device, "fault": True, "count": 1}
    body = {
        "state": "raised",
        "alarmType": "communicationsAlarm",
        "perceivedSeverity": "major",
        "probableCause": "lossOfSignal",
        "specificProblem": "linkDown",
        "alarmedObject": {"id": place},
        "alarmRaisedTime": "2026-05-01T12:00:00Z",
    }
    return Record("alarm", f"alarm-{place.replace('/', '-')}", TENANT, body, {**facts, "parties": []})


async def _cut(work: Work, traps: int) -> dict[str, float]:
    """All links of one duct fail: from the last trap until every alarm names the duct as its parent."""
    plan: dict[str, list[str]] = {}
    for relation in network(traps // 2, traps):
        plan.setdefault(relation.of, []).append(relation.to)
        plan.setdefault(relation.to, [])
    worker = Worker(work)
    await worker.start()
    try:
        await topology.keep(work.resources, Plan(TENANT, plan))
        await _quiet(work)
        await work.known.topologies.of(work.store, TENANT)  # as one that has run for a while knows it
        begun, cpu = perf_counter(), process_time()
        seen = [_trap(number, place) for number, place in enumerate(places(traps))]
        for first in range(0, traps, OBSERVE_BATCH):  # as an intake takes them from a full queue
            await _send(work, seen[first : first + OBSERVE_BATCH])
        last = perf_counter()
        await _until_one(work, traps)
        settled = perf_counter()
    finally:
        await worker.stop()
    figures = {
        "traps sent": 1000 * (last - begun),
        "after the last": 1000 * (settled - last),
        "CPU of the worker": 1000 * (process_time() - cpu),
    }
    figures["traps/s, from the first until settled"] = traps / (settled - begun)
    return {name: rounded(value) for name, value in figures.items()}


async def _quiet(work: Work) -> None:
    """Until what tells of the topology is out and taken: it is no part of a cut. Raises TimeoutError."""
    stream = work.bus._stream  # type: ignore[attr-defined]
    async with asyncio.timeout(PATIENCE):
        while await work.store.unsent(0) or any(
            one.num_pending or one.num_ack_pending for one in await stream.consumers_info("EVENTS")
        ):
            await asyncio.sleep(0.2)


async def _send(work: Work, seen: Sequence[Observation]) -> None:
    parcels = Reporting("snmp", work.bus).pack([Told(one, None) for one in seen])
    await asyncio.gather(*(parcel.send() for parcel in parcels))


def _trap(number: int, place: str) -> Observation:
    device, _, port = place.partition("/")
    about: dict[str, Any] = {
        "alarmType": "communicationsAlarm",
        "perceivedSeverity": "major",
        "probableCause": "lossOfSignal",
        "specificProblem": "linkDown",
        "details": {},
    }
    return Observation(f"trap{number}", "fault", "snmp", device, TENANT, time(), port, f"link:{port}", about)


async def _until_one(work: Work, traps: int) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while True:
            heads = await work.store.find("alarm", {"tenant": TENANT, "facts.openAt": "group 0"})
            if heads and len(heads[0].body.get("correlatedAlarm", ())) == min(traps, problems.MOST_CORRELATED):
                head = {"tenant": TENANT, "facts.head": heads[0].id}
                if await work.store.count("alarm", head) == traps + 1:
                    return
            await asyncio.sleep(0.1)
