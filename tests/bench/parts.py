"""Where the time of a POST goes: each part by itself, in this process, and its share of a POST of the gateway.

The POST is the one of the benchmark ``post`` on in-memory twins, measured in the same rounds. Parts that a POST does
not wait for (the bus, the audit's write) take their share of the process all the same.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

import orjson
from connexion.json_schema import resolve_refs
from connexion.validators.json import JSONRequestBodyValidator

from convergedon.core import audit, embedded, policy, settings, tokens, trace
from convergedon.core.audit import Audit
from convergedon.core.bus import Bus, NatsBus
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.policy import Decision, Embedded, Policy, Subject
from convergedon.core.store import MongoStore, Store
from convergedon.handlers import documents
from convergedon.handlers.apis import APIS, KINDS
from convergedon.handlers.product_ordering import API, PRODUCT_ORDER
from convergedon.handlers.resource import Resources
from convergedon.openapi import document
from tests.bench import load, servers
from tests.bench.orders import ORDER, request
from tests.bench.post import CONNECTIONS, ORDERS
from tests.bench.rounds import Effort, Result, in_turn, rounded

IN_FLIGHT = 256
POST = "POST (in-memory, a core)"
SUBJECT = Subject("acme-csr", "acme", ("csr",))
DECISION = Decision("1", True, (), {}, "1")
Part = Callable[[], Awaitable[Any]]


def _each(part: Part, seconds: float, at_once: int = 1) -> Callable[[], Awaitable[float]]:
    """Seconds of one of many, one after another or so many in flight."""

    async def turn() -> float:
        done, begun = 0, perf_counter()
        while not done or perf_counter() - begun < seconds:
            if at_once == 1:
                await part()
            else:
                await asyncio.gather(*(part() for _ in range(at_once)))
            done += at_once
        return (perf_counter() - begun) / done

    return turn


async def measure(effort: Effort) -> Result:
    result = Result("parts of a POST productOrder", "us; share of a POST in %")
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "metrics").mkdir()
        given = settings.load(data=folder)
        token = tokens.issue(given, "acme", "csr")
        env = {
            "CONVERGEDON_DATA": str(folder),
            "CONVERGEDON_PORT": "0",
            "CONVERGEDON_LOG_LEVEL": "warning",
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
        }
        trace.configure("bench")
        async with AsyncExitStack() as stack:
            store, bus = await _servers(folder, stack)
            gateway = await stack.enter_async_context(servers.running("memory", env))
            seconds = effort.seconds / 5
            contestants = {**_pure(given, token, seconds), **_stored(store, bus, seconds)}

            async def post() -> float:
                asked = [request("POST", ORDERS, token, ORDER)]
                found = await load.measure(gateway, asked, CONNECTIONS, effort.seconds)
                return 1 / float(found["rate"])

            gc.freeze()
            found = await in_turn({POST: post, **contestants}, effort.rounds)
    for name, took in found.items():
        share = statistics.median(a / b for a, b in zip(took, found[POST], strict=True))
        result.figures[name] = {"us": rounded(1e6 * statistics.median(took)), "share": rounded(100 * share)}
    checked = zip(found["schema: connexion's, as it ships"], found["schema: ours, compiled"], strict=True)
    result.ratios = {"connexion's schema check / ours": rounded(statistics.median(a / b for a, b in checked))}
    return result


async def _servers(folder: Path, stack: AsyncExitStack) -> tuple[Store, Bus]:
    for server in ("nats", "mongodb"):
        (folder / server).mkdir()
    nats = await stack.enter_async_context(embedded.nats(folder / "nats"))
    mongodb = await stack.enter_async_context(embedded.mongodb(folder / "mongodb"))
    bus = await NatsBus(nats.url, "bench").open()
    stack.push_async_callback(bus.close)
    store = await MongoStore(mongodb.url, "bench", [*KINDS, *audit.KINDS]).open()
    stack.push_async_callback(store.close)
    return store, bus


def _pure(given: settings.Settings, token: str, seconds: float) -> Mapping[str, Callable[[], Awaitable[float]]]:
    """What needs no server."""
    rules = Policy(Embedded(policy.read()))
    about = {"api": API.base, "kind": "productOrder", "tenant": "acme", "id": ""}
    verifier, raw = tokens.Verifier(given), orjson.dumps(ORDER)
    ours = documents.schema(API.document, "ProductOrder_Create")
    whole = document(API.document)
    theirs = resolve_refs(whole)["components"]["schemas"]["ProductOrder_Create"]
    resources = Resources(MemoryStore(KINDS), APIS, "http://gateway.example")
    writer = Audit(MemoryStore(audit.KINDS), MemoryBus(), "bench")

    async def decide() -> None:
        (await rules.decide(SUBJECT, "create", about, ORDER)).require()

    async def known() -> None:
        await verifier.verify(token)

    async def unknown() -> None:
        verifier._known.clear()
        await verifier.verify(token)

    async def check() -> None:
        ours.check(orjson.loads(raw))

    async def check_theirs() -> None:
        validator = JSONRequestBodyValidator(
            schema=theirs, required=True, nullable=False, encoding="utf-8", strict_validation=False
        )
        validator._validate(orjson.loads(raw))

    async def create() -> None:
        with trace.span("bench"):
            await resources.create(PRODUCT_ORDER, "acme", ORDER)

    async def record() -> None:
        with trace.span("bench"):
            writer.record("call.create", "acme", "acme-csr", "productOrder/1", "done", DECISION)
        if len(writer._waiting) > 10_000:
            writer._waiting.clear()

    async def span() -> None:
        with trace.span("bench"):
            pass

    return {
        "policy decision, embedded": _each(decide, seconds),
        "token, seen before": _each(known, seconds),
        "token, first time": _each(unknown, seconds),
        "schema: ours, compiled": _each(check, seconds),
        "schema: connexion's, as it ships": _each(check_theirs, seconds),
        "create: record, event, in-memory store": _each(create, seconds),
        "audit: record and hash": _each(record, seconds),
        "span": _each(span, seconds),
    }


def _stored(store: Store, bus: Bus, seconds: float) -> Mapping[str, Callable[[], Awaitable[float]]]:
    """What is stored by the embedded servers."""
    resources = Resources(store, APIS, "http://gateway.example")
    numbers, run = count(), uuid4().hex
    event = {"event": {"eventId": "1", "event": {"productOrder": ORDER}}, "tenant": "acme", "kind": "productOrder"}

    async def create() -> None:
        await resources.create(PRODUCT_ORDER, "acme", ORDER)

    async def publish() -> None:
        number = next(numbers)
        await bus.publish(f"event.{number % 16}.bench.X", event, f"{run}-{number}")

    async def append() -> None:
        writer = Audit(store, bus, f"bench{next(numbers)}")
        for _ in range(audit.BATCH):
            writer.record("call.create", "acme", "acme-csr", "productOrder/1", "done", DECISION)
        await writer._flush()

    appended = _each(append, seconds)

    async def one_of_a_batch() -> float:
        return await appended() / audit.BATCH

    return {
        "create: embedded store, one by one": _each(create, seconds),
        f"create: embedded store, {CONNECTIONS} at once": _each(create, seconds, CONNECTIONS),
        "publish: embedded bus, one by one": _each(publish, seconds),
        f"publish: embedded bus, {IN_FLIGHT} in flight": _each(publish, seconds, IN_FLIGHT),
        f"audit: stored and anchored, {audit.BATCH} a batch": one_of_a_batch,
    }
