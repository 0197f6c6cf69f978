"""What happened, in chains of hashes: an edited, missing, moved or added record is noticed.

Each process writes a chain of its own, so none waits for another. A batch of records goes to the store between two
anchors in a stream that denies delete and purge: the first says what will be written, so that nothing else counts as
ours, the second that it is stored, so that a cut tail shows. ``core/checkpoints.py`` binds the chains together,
``core/verification.py`` walks them. Persons are told by references (``core/persons.py``).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from math import isfinite
from time import time
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import orjson
import structlog

from convergedon.core import metrics, persons, trace
from convergedon.core.bus import Bus, Consumer, Message, token
from convergedon.core.errors import ConvergedonError
from convergedon.core.gathering import Writing
from convergedon.core.matching import conjuncts
from convergedon.core.persons import Name, Persons
from convergedon.core.policy import Decision, made
from convergedon.core.store import Kind, Record, Store

log = structlog.get_logger()

KIND = Kind("audit", ("body.trace", "body.on", "body.subject", ("facts.at.time", "id")))
"""Each index costs as much as the record itself on the embedded store, and there is a record of each call."""
KINDS = (KIND, persons.KIND)
HEADS = "audit.head"
START = "0" * 64
BATCH = 500
CARRIED = 200
"""Records in one message: far below the size that a bus takes."""
EARLY, LATE = 60.0, 3600.0
"""Seconds before and after a decision within which the records of what was done by it are looked for."""
LONGEST = 32_768
"""Bytes of one record; what is longer is cut."""
MOST_WAITING = 100_000
"""Records that wait for a store or bus that is away; what comes on top is counted, and the number recorded."""


def narrowed(where: Mapping[str, Any]) -> Mapping[str, Any]:
    """A filter that names a decision, with the span of time that follows from the decision's id.

    So records are found by a decision without an index of its own.
    """
    named = next((part["body.decision"] for part in conjuncts(where) if "body.decision" in part), None)
    at = made(named) if isinstance(named, str) else None
    if at is None:
        return where
    span = {"$gte": int((at - EARLY) * 1_000_000), "$lte": int((at + LATE) * 1_000_000)}
    return {"$and": [where, {"facts.at.time": span}]}


def canonical(body: Mapping[str, Any]) -> bytes:
    """The text of a record whose hash is taken: JSON, members sorted, without blanks, and without its own hash."""
    content = {name: value for name, value in body.items() if name != "hash"}
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def digest(previous: str, text: bytes) -> str:
    """The hash that a record carries: of the one before and of the hash of its own text.

    By the text's hash alone a link can be checked where the text is not for everybody's eyes.
    """
    return hashlib.sha256((previous + hashlib.sha256(text).hexdigest()).encode()).hexdigest()


def id_of(writer: str, sequence: int) -> str:
    return f"{writer}:{sequence:012d}"


def record_of(body: Mapping[str, Any]) -> Record:
    """The record as the store keeps it: everything in it but the body follows from the body."""
    id = id_of(body["writer"], body["sequence"])
    return Record(KIND.name, id, body["tenant"], body, {"at": {"time": _micros(body["time"])}})


def _micros(text: str) -> int:
    """A time that ``written`` wrote, as microseconds since the epoch. Raises ValueError."""
    return _since_epoch(text[:19]) * 1_000_000 + int(text[20:23]) * 1000


@lru_cache(1024)
def _since_epoch(second: str) -> int:
    return int(datetime.fromisoformat(f"{second}+00:00").timestamp())


class Entry(NamedTuple):
    """What was recorded, before it is a record."""

    time: float
    trace: str
    tenant: str
    subject: str
    what: str
    on: str
    outcome: str
    decision: str
    detail: Mapping[str, Any]

    @property
    def names(self) -> set[str]:
        """The persons in it: who did it, and whom the detail names."""
        names = persons.spoken(self.detail)
        if persons.is_person(self.subject):
            names.add(self.subject)
        return names

    def body(self, known: Mapping[str, str], writer: str, sequence: int, previous: str) -> dict[str, Any]:
        """The record's body with references in the place of names, but for its hash."""
        return {
            "time": written(self.time),
            "trace": self.trace,
            "tenant": self.tenant,
            "subject": known.get(self.subject, self.subject),
            "what": self.what,
            "on": self.on,
            "outcome": self.outcome,
            "decision": self.decision,
            "detail": persons.referred(self.detail, known) if known else self.detail,
            "writer": writer,
            "sequence": sequence,
            "previous": previous,
        }


def written(time: float) -> str:
    """A time as all of ours are written: UTC, milliseconds, ending in Z."""
    seconds, milliseconds = divmod(round(time * 1000), 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class Keeping(Protocol):
    """Where batches go. Every method raises Unavailable while that cannot be reached."""

    most: int

    async def references(self, names: Iterable[Name]) -> Mapping[Name, str]: ...

    async def keep(self, records: Sequence[Record]) -> None:
        """Make a batch durable; the same batch again changes nothing."""
        ...


class Stored:
    """Batches go into the store."""

    most = BATCH

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store, self._bus, self._persons = store, bus, Persons(store)

    async def references(self, names: Iterable[Name]) -> Mapping[Name, str]:
        return await self._persons.references(names)

    async def keep(self, records: Sequence[Record]) -> None:
        await self._store.append(records)
        await anchor(self._bus, records[-1].body, stored=True)


class Carried:
    """Batches go over the bus to a process that has a store (``take``): adapters have none."""

    most = CARRIED

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def references(self, names: Iterable[Name]) -> Mapping[Name, str]:
        """Adapters act for the gateway and know no persons; whoever is named all the same is not in clear anywhere."""
        return {name: persons.reference(uuid4().bytes, *name) for name in set(names)}

    async def keep(self, records: Sequence[Record]) -> None:
        head = records[-1].body
        batch = {"records": [record.body for record in records]}
        await self._bus.publish(f"records.{head['writer']}", batch, f"{head['writer']}:{head['sequence']}")


def taking(store: Store, bus: Bus, horizon: float = float("inf")) -> Consumer:
    """The consumer that stores the batches of those who have no store."""
    stored = Stored(store, bus)

    async def take(message: Message) -> None:
        await stored.keep([record_of(body) for body in message.body["records"]])

    return Consumer("audit-records", "records.>", take, horizon)


async def anchor(bus: Bus, head: Mapping[str, Any], stored: bool) -> None:
    """Say how far a chain goes: before its records are written, and when they are stored."""
    writer, sequence = head["writer"], head["sequence"]
    said = {"writer": writer, "sequence": sequence, "hash": head["hash"], "stored": stored}
    await bus.publish(f"{HEADS}.{token(writer)}", said, f"{writer}:{sequence}:{stored}")


class Audit:
    """One writer. ``record`` never waits; what it took is stored within some milliseconds, and on ``stop``.

    Without a store its batches are carried to a process that has one.
    """

    def __init__(self, store: Store | None, bus: Bus, role: str) -> None:
        self._keeping: Keeping = Stored(store, bus) if store is not None else Carried(bus)
        self._bus = bus
        self.writer = f"{role}-{uuid4().hex[:12]}"
        self._sequence, self._previous = 0, START
        self._waiting: list[Entry] = []
        self._chained: list[Record] = []
        self._lost = 0
        self._writing = Writing(self._flush, self._waits)

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
        if len(self._waiting) >= MOST_WAITING:
            self._lost += 1
            metrics.AUDIT_LOST.inc()
            return
        if decision:
            detail = {**decision.told, **detail}
        id = decision.id if decision else ""
        self._waiting.append(Entry(time(), trace.trace_id(), tenant, subject, what, on, outcome, id, detail))
        self._writing.ring()

    async def start(self) -> None:
        await self._writing.start()

    async def stop(self) -> None:
        with contextlib.suppress(ConvergedonError):
            await self._writing.stop()

    def _waits(self, error: ConvergedonError) -> None:
        log.warning("audit waits", reason=str(error), waiting=len(self._waiting))

    async def _flush(self) -> None:
        """Write what waits, batch by batch. A batch that could not be written is written again as it was."""
        while self._waiting or self._chained:
            if not self._chained:
                await self._chain()
            await anchor(self._bus, self._chained[-1].body, stored=False)
            await self._keeping.keep(self._chained)
            self._chained = []
            if self._lost:
                lost, self._lost = self._lost, 0
                self.record("audit.lost", "", "convergedon", f"audit/{self.writer}", "failed", count=lost)

    async def _chain(self) -> None:
        """Make records of what has waited longest. Nothing is changed if the persons in it cannot be asked for."""
        batch = self._waiting[: self._keeping.most]
        named = [(entry, entry.names) for entry in batch]
        known = await self._keeping.references({(entry.tenant, name) for entry, names in named for name in names})
        self._chained = [
            self._linked(entry, {name: known[entry.tenant, name] for name in names}) for entry, names in named
        ]
        del self._waiting[: len(batch)]

    def _linked(self, entry: Entry, known: Mapping[str, str]) -> Record:
        self._sequence += 1
        body, text = _storable(entry.body(known, self.writer, self._sequence, self._previous))
        self._previous = body["hash"] = digest(self._previous, text)
        return record_of(body)


def _storable(body: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """A body and its text. What is stored is what the hash is taken of, whatever was handed in."""
    try:
        text = _dumped(body)
    except TypeError:
        body = _plain(body)
        text = _dumped(body)
    if len(text) > LONGEST or b"\\u0000" in text:
        words = text.decode().replace("\\u0000", "")
        body = {**body, "on": str(body["on"]).replace("\0", "")[:1000], "detail": {"cut": words[: LONGEST // 4]}}
        text = _dumped(body)
    return (body if all(map(_same_anywhere, body["detail"].values())) else orjson.loads(text)), text


def _same_anywhere(value: Any) -> bool:
    """Whether a value is the same in the store as in its text; most are, and the way through the text takes time."""
    return type(value) in (str, int, bool) or (type(value) is float and isfinite(value))


def _dumped(body: Mapping[str, Any]) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER, default=str)


def _plain(value: Any) -> Any:
    """The same in what JSON and the store have in common: no halves of characters, no endless numbers."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {_plain(str(name)): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 53):
        return value
    return _plain(str(value))
