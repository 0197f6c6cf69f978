"""What the audit record costs to write and to verify, on the embedded store and bus and on other stores.

    python -m tests.bench audit --most 1000000 --store NAME=mongodb://...

The records are written by the writer itself, batch by batch with their anchors. Verification is timed by the clock, by
the processor time of this process and by that of the embedded store's server, which works beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from os import getloadavg
from pathlib import Path
from time import perf_counter, process_time
from typing import TypeVar
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from convergedon.core import audit, embedded, trace, verification
from convergedon.core.audit import Audit
from convergedon.core.bus import NatsBus
from convergedon.core.checkpoints import Notary
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.policy import Decision
from convergedon.core.store import Kind, MongoStore
from tests.bench import servers
from tests.bench.rounds import Effort, Result, rounded

Edge = TypeVar("Edge", MongoStore, NatsBus)
EMBEDDED = "embedded store"
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
        async with embedded.mongodb(folder / "mongodb") as mongodb:
            await _flushed(result, mongodb.url, effort.most)
            await _verified(result, EMBEDDED, mongodb.url, effort.most, folder, mongodb.pid)
            for other, url in effort.stores:
                await _verified(result, other, url, effort.most, folder)
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


async def _flushed(result: Result, url: str, most: int) -> None:
    count = min(most, FLUSHED)
    async with opened(MongoStore(url, "writing", audit.KINDS)) as store:
        writer = Audit(store, MemoryBus(), "bench")
        for number in range(count):
            _record(writer, number)
        begun, used = perf_counter(), process_time()
        await writer._flush()
        _tell(result, f"flush, {EMBEDDED}", count, perf_counter() - begun, process_time() - used)


async def _verified(result: Result, name: str, url: str, count: int, folder: Path, server: int = 0) -> None:
    """A record of that many, with a bus of its own. ``server`` is the process of the store, if that is ours."""
    key = Ed25519PrivateKey.generate()
    async with (
        embedded.nats(Path(tempfile.mkdtemp(dir=folder))) as nats,
        opened(MongoStore(url, f"bench{uuid4().hex[:8]}", PLAIN)) as store,
        opened(NatsBus(nats.url, "bench")) as bus,
    ):
        await _write(Audit(store, bus, "bench"), Notary(bus, key), count)
        begun, used, served = perf_counter(), process_time(), servers.spent(server) if server else 0.0
        found = await verification.verify(store, bus, key.public_key())
        took, worked = perf_counter() - begun, process_time() - used
        beside = f" and {servers.spent(server) - served:.1f} s of the server's" if server else ""
    if found.wrong or found.records != count:
        raise AssertionError(found)
    _tell(result, f"verify, {name}", count, took, worked)
    for what, seconds in (("seconds", took), ("processor seconds", worked)):
        result.ratios[f"{name}: {what} to verify a million / a minute"] = rounded(seconds / count * 1e6 / MINUTE)
    result.notes.append(
        f"{name}: {count} records, {found.checkpoints} checkpoints, verified in {took:.1f} s by the clock, "
        f"{worked:.1f} s of this process's processor{beside}; load {getloadavg()[0]:.1f}"
    )


async def _write(writer: Audit, notary: Notary, count: int) -> None:
    for first in range(0, count, CHECKPOINT):
        for number in range(first, min(first + CHECKPOINT, count)):
            _record(writer, number)
        await writer._flush()
        await notary.attest()


@asynccontextmanager
async def opened(edge: Edge) -> AsyncIterator[Edge]:
    await edge.open()
    yield edge
    await edge.close()


def _tell(result: Result, what: str, count: int, clock: float, processor: float) -> None:
    figures = {"clock": 1e6 * clock / count, "processor": 1e6 * processor / count}
    result.figures[what] = {name: rounded(value) for name, value in figures.items()}
