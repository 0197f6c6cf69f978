"""What happened, in a chain of hashes: an edited, missing or moved record is noticed.

Each process writes a chain of its own. Records go to the store in small batches; after each batch the chain's head is
published to a stream that denies delete and purge, so that a cut tail shows too. The console's figures come from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Mapping
from time import time
from typing import Any
from uuid import uuid4

import orjson
import structlog

from convergedon.core import trace
from convergedon.core.bus import Bus
from convergedon.core.errors import ConvergedonError
from convergedon.core.policy import Decision
from convergedon.core.store import Kind, Record, Store

log = structlog.get_logger()

KIND = Kind("audit", ("body.what", "body.trace", "body.on", "body.time"))
START = "0" * 64
BATCH = 500
GATHER = 0.1
"""Seconds in which records gather into one write; so much of the record a killed process may take with it."""


def digest(previous: str, body: Mapping[str, Any]) -> str:
    """The hash that a record carries: of the one before and of its own content without its hash."""
    content = {name: value for name, value in body.items() if name != "hash"}
    return hashlib.sha256(previous.encode() + orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


class Audit:
    """One writer. ``record`` never waits; what it took is stored within some milliseconds, and on ``stop``."""

    def __init__(self, store: Store, bus: Bus, role: str) -> None:
        self._store, self._bus = store, bus
        self.writer = f"{role}-{uuid4().hex[:12]}"
        self._sequence, self._previous = 0, START
        self._waiting: list[Record] = []
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def record(
        self,
        what: str,
        tenant: str,
        subject: str,
        on: str,
        outcome: str,
        decision: Decision | None = None,
        **detail: Any,
    ) -> None:
        """``what`` is noun.verb (order.completed), ``on`` kind/id, ``outcome`` done, refused or failed.

        ``decision`` is the one without which it would not have happened, or the one that refused it.
        """
        self._sequence += 1
        body: dict[str, Any] = {
            "time": round(time(), 3),
            "trace": trace.trace_id(),
            "tenant": tenant,
            "subject": subject,
            "what": what,
            "on": on,
            "outcome": outcome,
            "decision": decision.id if decision else "",
            "detail": {**(decision.told if decision else {}), **detail},
            "writer": self.writer,
            "sequence": self._sequence,
            "previous": self._previous,
        }
        self._previous = body["hash"] = digest(self._previous, body)
        self._waiting.append(Record(KIND.name, f"{self.writer}:{self._sequence:012d}", tenant, body))
        self._bell.set()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._write())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(ConvergedonError):
            await self._flush()

    async def _write(self) -> None:
        while True:
            await self._bell.wait()
            await asyncio.sleep(GATHER)
            self._bell.clear()
            try:
                await self._flush()
            except ConvergedonError as error:
                log.warning("audit waits", reason=str(error), waiting=len(self._waiting))
                await asyncio.sleep(0.5)
                self._bell.set()

    async def _flush(self) -> None:
        while self._waiting:
            batch = self._waiting[:BATCH]
            await self._store.append(batch)
            head = batch[-1].body
            anchor = {"writer": self.writer, "sequence": head["sequence"], "hash": head["hash"]}
            await self._bus.publish(f"audit.{self.writer}", anchor, f"{self.writer}:{head['sequence']}")
            # only now: stored records whose head could not be published are appended again, which changes nothing
            del self._waiting[: len(batch)]


async def verify(store: Store, bus: Bus) -> tuple[int, str | None]:
    """Walk every chain: how many records are there, and what is wrong with the first bad one (None: nothing)."""
    records = await store.find(KIND.name, {}, sort=[("id", 1)])
    heads = await bus.read("audit.>")
    expected = {head["writer"]: head for head in heads}
    chains: dict[str, list[Record]] = {writer: [] for writer in expected}
    for record in records:
        chains.setdefault(record.id.rsplit(":", 1)[0], []).append(record)
    for writer, chain in sorted(chains.items()):
        wrong = _check(writer, chain, expected.get(writer))
        if wrong:
            return len(records), wrong
    return len(records), None


def _check(writer: str, chain: list[Record], head: Mapping[str, Any] | None) -> str | None:
    previous = START
    for place, record in enumerate(chain, 1):
        body = record.body
        if record.id != f"{writer}:{place:012d}" or body.get("sequence") != place or body.get("writer") != writer:
            return f"record {place} of {writer} is missing or moved"
        if (
            body.get("previous") != previous
            or body.get("hash") != digest(previous, body)
            or body["tenant"] != record.tenant
        ):
            return f"record {place} of {writer} was changed ({body.get('what')} on {body.get('on')})"
        previous = body["hash"]
    if head and head["sequence"] > len(chain):
        return f"records after {len(chain)} of {writer} are missing: {head['sequence']} were written"
    if head and chain[head["sequence"] - 1].body["hash"] != head["hash"]:
        return f"record {head['sequence']} of {writer} is not the one that was anchored"
    return None
