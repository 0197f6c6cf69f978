"""The log of decisions: every one with its whole question, so that it can be explained and tried on other policies.

Questions hold personal data. They are in a stream that forgets by itself and out of which a person can be taken, and
nowhere else: an audit record has a decision's id and a keyed hash of its question.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import groupby
from math import inf
from typing import Any
from uuid import uuid4

import orjson
import structlog

from convergedon.core import metrics
from convergedon.core.bus import Bus, token
from convergedon.core.errors import ConvergedonError, NotFound
from convergedon.core.gathering import Writing
from convergedon.core.policy import Decision, made

log = structlog.get_logger()

BATCH_BYTES = 400_000
LARGEST = 800_000
"""Bytes that a question may have: NATS takes a million in one message."""
WAITING_BYTES = 32 << 20
"""Bytes of questions that may wait for the bus; what comes then is counted and dropped."""
LATE = 600.0
"""Seconds after which a decision is not looked for any more; so long it may have waited for the bus."""


@dataclass(frozen=True)
class Entry:
    """One decision as it was made. ``question`` is None where it was too large to be kept."""

    id: str
    revision: str
    allow: bool
    reasons: tuple[str, ...]
    filter: Mapping[str, Any]
    obligations: Mapping[str, Any]
    input: str
    ms: float
    question: Mapping[str, Any] | None
    at: float = field(compare=False, default=0.0)


Waiting = tuple[str, Decision, bytes]


class DecisionLog:
    """``take`` never waits; what it took is stored a moment later, and on ``stop``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: deque[Waiting] = deque()
        self._batch: list[Waiting] = []
        self._bytes = 0
        self._writing = Writing(self._flush, self._waits)

    def take(self, decision: Decision, tenant: str, question: bytes) -> None:
        if self._bytes > WAITING_BYTES:
            metrics.UNLOGGED.labels("the bus is away").inc()
            return
        one = (tenant, decision, question)
        self._waiting.append(one)
        self._bytes += _size(one)
        self._writing.ring()

    async def start(self) -> None:
        await self._writing.start()

    async def stop(self) -> None:
        """Store what was taken. Of what the bus does not take now, the number is logged."""
        try:
            await self._writing.stop()
        except ConvergedonError as error:
            metrics.UNLOGGED.labels("the bus is away").inc(self._count)
            log.warning("decisions are not logged", count=self._count, reason=str(error))

    @property
    def _count(self) -> int:
        return len(self._batch) + len(self._waiting)

    def _waits(self, error: ConvergedonError) -> None:
        log.info("decisions wait", reason=str(error), waiting=self._count)

    async def _flush(self) -> None:
        while self._batch or self._waiting:
            if not self._batch:
                self._gather()
            # a batch that was not taken stays as it is: published again it has the ids that it had, and changes nothing
            # where the bus took it after all
            for tenant, own in groupby(sorted(self._batch, key=_tenant), key=_tenant):
                entries = [_written(decision, question) for _, decision, question in own]
                await self._bus.publish(f"{subject(tenant)}.made", {"decisions": entries}, entries[0]["id"])
            metrics.LOGGED.inc(len(self._batch))
            self._bytes -= sum(map(_size, self._batch))
            self._batch = []

    def _gather(self) -> None:
        size = 0
        while self._waiting and (not self._batch or size + _size(self._waiting[0]) < BATCH_BYTES):
            size += _size(self._waiting[0])
            self._batch.append(self._waiting.popleft())


def _tenant(one: Waiting) -> str:
    return one[0]


def _size(one: Waiting) -> int:
    """About the bytes of an entry."""
    return len(one[2]) + 400 + 2 * sum(map(len, one[1].reasons))


def subject(tenant: str) -> str:
    """What is before the last word of its subjects: ``made``, or ``rewritten`` where somebody was forgotten."""
    return f"decision.{token(tenant)}"


def _written(decision: Decision, question: bytes) -> dict[str, Any]:
    whole = len(question) <= LARGEST
    if not whole:
        metrics.UNLOGGED.labels("its question is too large").inc()
    return {
        "id": decision.id,
        "revision": decision.revision,
        "allow": decision.allow,
        "reasons": decision.reasons,
        "filter": decision.filter,
        "obligations": decision.obligations,
        "input": decision.input,
        "ms": round(1000 * decision.seconds, 3),
        "question": orjson.Fragment(question) if whole else None,
    }


async def since(bus: Bus, start: float) -> AsyncIterator[Entry]:
    """The decisions that were made from then on until now, in the order in which they were stored."""
    async for message in bus.since("decision.>", start):
        for entry in map(_entry, message.body["decisions"]):
            if entry.at > start - 0.001:  # ids say milliseconds
                yield entry


async def find(bus: Bus, id: str) -> Entry:
    """Raises NotFound, saying why it may be so."""
    at = made(id)
    if at is None:
        raise NotFound(f"{id} is no id of a decision: the header X-Decision-Id of an answer has one")
    for subjects, until in (("decision.*.made", at + LATE), ("decision.*.rewritten", inf)):
        async with aclosing(bus.since(subjects, at - 1)) as stored:
            async for message in stored:
                for written in message.body["decisions"]:
                    if written["id"] == id:
                        return _entry(written)
                if message.stored > until:
                    break
    raise NotFound(
        f"the log has no decision {id}: it forgets after a time (CONVERGEDON_DECISION_AGE), "
        "and it may have been made by a process that was killed, or have concerned a person who was erased"
    )


def _entry(written: Mapping[str, Any]) -> Entry:
    return Entry(
        **{**written, "reasons": tuple(written["reasons"])},
        at=made(written["id"]) or 0.0,
    )


async def forget(bus: Bus, tenant: str, person: str) -> int:
    """Take every decision that mentions a person out of the log of a tenant; how many those were.

    ``person`` is a party or a subject, by id. A message keeps its other decisions: they are published anew before it is
    erased, so that a crash between leaves them twice and never loses one.
    """
    count = 0
    mentions = re.compile(rf"(?<![\w-]){re.escape(person)}(?![\w-])").search
    async for message in bus.since(f"{subject(tenant)}.>", 0):
        written = message.body["decisions"]
        left = [one for one in written if not _mentions(one, mentions)]
        if len(left) == len(written):
            continue
        if left:
            again = f"{subject(tenant)}.rewritten"
            await bus.publish(again, {"decisions": left}, f"{message.position.sequence}:{uuid4().hex}")
        await bus.erase(message)
        count += len(written) - len(left)
    return count


def _mentions(value: Any, mentions: Any) -> bool:
    """Whether a text of it has the name in it, as a word of its own."""
    if isinstance(value, str):
        return bool(mentions(value))
    if isinstance(value, Mapping):
        return any(_mentions(part, mentions) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_mentions(part, mentions) for part in value)
