"""What the audit record costs to write and to verify, on the embedded store and bus.

    python -m tests.bench audit --most 1000000

The records are written by the writer itself, batch by batch with their anchors. Verification is timed by the clock and
by the processor time of this process: the store's server works beside it.
"""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter, process_time
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from convergedon.core import audit, embedded, trace, verification
from convergedon.core.audit import Audit
from convergedon.core.bus import NatsBus
from convergedon.core.checkpoints import Notary
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.policy import Decision
from convergedon.core.store import Kind, MongoStore
from tests.bench.rounds import Effort, Result, rounded

DECISION = Decision(uuid4().hex, True, (), {}, "610878066b65", input="c642ce98" * 8, seconds=0.0002)
CHECKPOINT = 50_000
"""Records between two checkpoints."""
FLUSHED = 5_000
MINUTE = 60.0
PLAIN = (Kind(audit.KIND.name), audit.KINDS[1])
"""Verification looks nothing up, and without indexes a million records are written in minutes."""


def _record(writer: Audit, number: int) -> None:
    with trace.span("bench"):
        writer.record("call.create", "acme", f"client-{number % 50}", f"productOrder/{uuid4()}", "done", DECISION)


async def measure(effort: Effort) -> Result:
    result = Result("the audit record", "us a record")
    trace.configure("bench")
    await _twins(result, min(effort.most, 20_000))
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for server in ("nats", "mongodb"):
            (folder / server).mkdir()
        async with AsyncExitStack() as stack:
            nats = await stack.enter_async_context(embedded.nats(folder / "nats"))
            mongodb = await stack.enter_async_context(embedded.mongodb(folder / "mongodb"))
            bus = await NatsBus(nats.url, "bench").open()
            stack.push_async_callback(bus.close)
            for database, kinds, measured in (("writing", audit.KINDS, _flushed), ("reading", PLAIN, _verified)):
                store = await MongoStore(mongodb.url, database, kinds).open()
                stack.push_async_callback(store.close)
                await measured(result, store, bus, effort.most)
    return result


async def _twins(result: Result, count: int) -> None:
    """What a call waits for (record), and what the process does for it afterwards (flush), without any server."""
    writer = Audit(MemoryStore(audit.KINDS), MemoryBus(), "bench")
    begun = process_time()
    for number in range(count):
        _record(writer, number)
    recorded = process_time()
    await writer._flush()
    flushed = process_time()
    result.figures["record, which the call waits for"] = {"processor": rounded(1e6 * (recorded - begun) / count)}
    result.figures["flush, in-memory store and bus"] = {"processor": rounded(1e6 * (flushed - recorded) / count)}


async def _flushed(result: Result, store: MongoStore, bus: NatsBus, most: int) -> None:
    count = min(most, FLUSHED)
    writer = Audit(store, MemoryBus(), "bench")
    for number in range(count):
        _record(writer, number)
    begun, used = perf_counter(), process_time()
    await writer._flush()
    _tell(result, "flush, embedded store", count, perf_counter() - begun, process_time() - used)


async def _verified(result: Result, store: MongoStore, bus: NatsBus, count: int) -> None:
    key = Ed25519PrivateKey.generate()
    writer, notary = Audit(store, bus, "bench"), Notary(bus, key)
    for first in range(0, count, CHECKPOINT):
        for number in range(first, min(first + CHECKPOINT, count)):
            _record(writer, number)
        await writer._flush()
        await notary.attest()
    begun, used = perf_counter(), process_time()
    found = await verification.verify(store, bus, key.public_key())
    took, worked = perf_counter() - begun, process_time() - used
    _tell(result, "verify, embedded store and bus", count, took, worked)
    if found.wrong or found.records != count:
        raise AssertionError(found)
    for name, seconds in (("seconds", took), ("processor seconds", worked)):
        result.ratios[f"{name} to verify a million / a minute"] = rounded(seconds / count * 1_000_000 / MINUTE)
    result.notes.append(f"{count} records, {found.checkpoints} checkpoints, verified in {took:.1f} s")


def _tell(result: Result, what: str, count: int, clock: float, processor: float) -> None:
    figures = {"clock": 1e6 * clock / count, "processor": 1e6 * processor / count}
    result.figures[what] = {name: rounded(value) for name, value in figures.items()}
