"""The in-memory twins of store and bus: same promises, same suite, nothing kept. For tests and benchmarks."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from time import time
from typing import Any, NamedTuple

import orjson
from nats.js.api import RetentionPolicy

from convergedon.core import trace
from convergedon.core.bus import STREAMS, Consumer, Message, Parked, ParkedLast, Position, delay, dispose, stream_of
from convergedon.core.errors import Conflict, Invalid, NotFound, Stale, Unavailable
from convergedon.core.matching import Where, matches, rank, values_at
from convergedon.core.store import GONE, WALKED, Draft, Kind, Outgoing, Published, Record, Unsent, Written

EPOCH = "memory"


class _Kept:
    """A record as a store keeps it: body and facts as text, so that nobody shares them, and that the garbage collector
    has nothing to look through that is only kept. Once read for a filter they stay until they change.
    """

    def __init__(self, record: Record) -> None:
        self.kind, self.id, self.tenant, self.revision = record.kind, record.id, record.tenant, 1
        self.unsent: tuple[Outgoing, ...] = ()
        self.waiting: float | None = None
        self.gone = False
        self._read: dict[str, Any] | None = None
        self.keep(record)

    def keep(self, record: Record) -> None:
        self._text, self._read = _text({"body": record.body, "facts": record.facts}), None
        self._parties = frozenset(record.facts.get("parties", ()))

    def concerns(self, parties: Sequence[str] | None) -> bool:
        return parties is None or not self._parties.isdisjoint(parties)

    @property
    def copy(self) -> Record:
        read = orjson.loads(self._text)
        return Record(self.kind, self.id, self.tenant, read["body"], read["facts"], self.revision, self.unsent)

    @property
    def document(self) -> dict[str, Any]:
        """What filters and orders look at; nobody changes it."""
        if self._read is None:
            self._read = {"id": self.id, "tenant": self.tenant, **orjson.loads(self._text)}
        return {**self._read, "revision": self.revision}

    @property
    def whole(self) -> dict[str, Any]:
        """All of it, as it stands in a store."""
        copy = self.copy
        tenant = GONE + self.tenant if self.gone else self.tenant
        outbox = [asdict(message) for message in self.unsent]
        named = {"id": self.id, "tenant": tenant, "revision": self.revision}
        return {**named, "body": copy.body, "facts": copy.facts, "outbox": outbox}

    def push(self, messages: Sequence[Outgoing], published: Published) -> Unsent:
        self.unsent = (*(one for one in self.unsent if not published(one.id)), *messages)
        self.waiting = time()
        return self.outbox

    @property
    def outbox(self) -> Unsent:
        return Unsent(self.kind, self.id, self.revision, self.unsent, self.gone)


def _text(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise Invalid(f"cannot be stored: {error}") from error


def _of_tenant(where: Where) -> tuple[str | None, Where]:
    """The tenant that a filter names, if it does, and what else it asks: most filters ask nothing else."""
    parts = where.get("$and")
    if len(where) == 1 and parts and "tenant" in parts[0]:
        tenant, rest = _of_tenant(parts[0])
        return tenant, {"$and": [part for part in (rest, *parts[1:]) if part]}
    if not isinstance(where.get("tenant"), str):
        return None, where
    return where["tenant"], {path: wanted for path, wanted in where.items() if path != "tenant"}


class MemoryStore:
    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.written: Written = lambda _: None
        self.published: Published = lambda _: False
        self._kinds = {kind.name: kind for kind in kinds}
        self._kept: dict[str, dict[str, _Kept]] = {name: {} for name in self._kinds}

    def _refuse_twins(self, record: Record) -> None:
        kind = self._kinds[record.kind]
        for path in (*kind.unique, *kind.sole):
            mine = values_at({"body": record.body, "facts": record.facts}, path)
            for kept in self._kept[record.kind].values() if mine else ():
                near = path in kind.sole or kept.tenant == record.tenant
                same = near and values_at(kept.document, path) == mine
                if same and kept.id != record.id:
                    raise Conflict(f"it exists already: {path}")

    async def create(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        if record.id in self._kept[record.kind]:
            raise Conflict(f"it exists already: {record.id}")
        self._refuse_twins(record)
        kept = self._kept[record.kind][record.id] = _Kept(record)
        return self._told(kept, record, messages)

    async def create_all(self, drafts: Sequence[Draft]) -> list[Record | Conflict]:
        created: list[Record | Conflict] = []
        for record, messages in drafts:
            try:
                created.append(await self.create(record, messages))
            except Conflict as error:
                created.append(error)
        return created

    async def append(self, records: Sequence[Record]) -> None:
        for record in records:
            self._kept[record.kind].setdefault(record.id, _Kept(record))

    async def kept(self, kind: str, ids: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        return [self._kept[kind][id].whole for id in ids if id in self._kept[kind]]

    async def number(self, kind: str) -> int:
        return len(self._kept[kind])

    async def ids(self, kind: str) -> AsyncIterator[Sequence[Any]]:
        there = list(self._kept[kind])
        for begin in range(0, len(there), WALKED):
            yield there[begin : begin + WALKED]

    async def get(self, kind: str, tenant: str, id: str, parties: Sequence[str] | None = None) -> Record:
        kept = self._kept[kind].get(id)
        if kept is None or kept.gone or kept.tenant != tenant or not kept.concerns(parties):
            raise NotFound(f"there is no {kind} {id}")
        return kept.copy

    async def find(
        self, kind: str, where: Where, sort: Sequence[tuple[str, int]] = (), skip: int = 0, limit: int = 0
    ) -> list[Record]:
        found = self._matching(kind, where)
        for path, way in reversed(sort):
            found.sort(key=lambda k, p=path, w=way: rank(values_at(k.document, p), w), reverse=way < 0)  # type: ignore[misc]
        return [kept.copy for kept in found[skip : skip + limit if limit else None]]

    async def count(self, kind: str, where: Where) -> int:
        return len(self._matching(kind, where))

    def _matching(self, kind: str, where: Where) -> list[_Kept]:
        tenant, rest = _of_tenant(where)
        there = (k for k in self._kept[kind].values() if not k.gone and tenant in (None, k.tenant))
        return [k for k in there if not rest or matches(k.document, rest)]

    async def replace(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        kept = self._guarded(record)
        self._refuse_twins(record)
        kept.keep(record)
        kept.revision += 1
        return self._told(kept, record, messages)

    async def replace_all(self, drafts: Sequence[Draft]) -> list[Record | Conflict | Stale]:
        replaced: list[Record | Conflict | Stale] = []
        for record, messages in drafts:
            try:
                replaced.append(await self.replace(record, messages))
            except (Conflict, Stale) as error:
                replaced.append(error)
        return replaced

    async def delete(self, record: Record, messages: Sequence[Outgoing] = ()) -> None:
        kept = self._guarded(record)
        kept.revision += 1
        kept.gone = True
        self._told(kept, record, messages)

    def _guarded(self, record: Record) -> _Kept:
        kept = self._kept[record.kind].get(record.id)
        if kept is None or kept.gone or kept.revision != record.revision or kept.tenant != record.tenant:
            raise Stale(f"{record.kind} {record.id} was changed by somebody else")
        return kept

    def _told(self, kept: _Kept, record: Record, messages: Sequence[Outgoing]) -> Record:
        """What was written, as its writer knows it, its messages handed on."""
        if messages or kept.gone:
            self.written(kept.push(messages, self.published))
        return replace(record, revision=kept.revision, unsent=kept.unsent)

    async def unsent(self, older_than: float) -> list[Unsent]:
        latest = time() - older_than
        return [
            kept.outbox
            for records in self._kept.values()
            for kept in records.values()
            if kept.waiting is not None and kept.waiting < latest
        ]

    async def sent(self, done: Iterable[Unsent]) -> None:
        for unsent in done:
            kept = self._kept[unsent.kind].get(unsent.id)
            if kept is None:
                continue
            ids = {message.id for message in unsent.messages}
            kept.unsent = tuple(message for message in kept.unsent if message.id not in ids)
            if kept.revision == unsent.revision:
                kept.waiting = None
                if kept.gone:
                    del self._kept[unsent.kind][unsent.id]

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        return None


class Said(NamedTuple):
    """A message as a stream keeps it."""

    id: str
    subject: str
    text: bytes
    headers: Mapping[str, str]
    sequence: int
    stored: float

    @property
    def message(self) -> Message:
        position = Position(EPOCH, self.sequence)
        return Message(self.id, self.subject, orjson.loads(self.text), self.headers, position, self.stored)


def as_said(message: Message) -> Said:
    text = orjson.dumps(message.body)
    return Said(message.id, message.subject, text, message.headers, message.position.sequence, message.stored)


@dataclass
class _Queue:
    """One durable consumer: what it has yet to take, a bell, and whose turn it is: one message is under way at once."""

    consumer: str
    subject: str
    waiting: list[Said] = field(default_factory=list)
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    attempt: int = 0


class MemoryBus:
    """``parked_bytes`` is what parked messages may have, together."""

    def __init__(self, parked_bytes: int = 1 << 30) -> None:
        self._parked_bytes = parked_bytes
        self._streams: dict[str, list[Said]] = defaultdict(list)
        self._ids: dict[str, set[str]] = defaultdict(set)
        self._queues: dict[str, _Queue] = {}
        self._parked: dict[int, Parked] = {}
        self._listeners: list[tuple[str, asyncio.Queue[Message]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def publish(
        self,
        subject: str,
        body: Mapping[str, Any],
        id: str,
        headers: Mapping[str, str] | None = None,
        after: int | None = None,
    ) -> None:
        stream = stream_of(subject)
        if id in self._ids[stream]:
            return
        if after is not None and after != _place(await self.last(subject)):
            raise Stale(f"somebody else has published on {subject}")
        self._ids[stream].add(id)
        carried = {**trace.headers(), **(headers or {}), "Nats-Msg-Id": id}
        message = Said(id, subject, orjson.dumps(body), carried, len(self._ids[stream]), time())
        self._streams[stream].append(message)
        self._trim(stream, message)
        for queue in self._queues.values():
            if subject_matches(subject, queue.subject):
                queue.waiting.append(message)
                queue.bell.set()
        for wanted, listener in self._listeners:
            if subject_matches(subject, wanted) and not listener.full():
                listener.put_nowait(message.message)

    async def publish_all(self, messages: Sequence[Outgoing]) -> None:
        for one in messages:
            await self.publish(one.subject, one.body, one.id, one.headers)

    def _trim(self, stream: str, newest: Said) -> None:
        """Let go of what the stream does not keep beside the newest message."""
        config, kept = STREAMS[stream], self._streams[stream]
        if config.max_msgs_per_subject > 0:
            same = [message for message in kept if message.subject == newest.subject]
            for message in same[: -config.max_msgs_per_subject]:
                kept.remove(message)
        if config.max_msgs:
            del kept[: -config.max_msgs]

    def consume(self, consumer: Consumer) -> asyncio.Task[None]:
        if consumer.name not in self._queues:
            stored = self._streams[stream_of(consumer.subject)]
            matching = [message for message in stored if subject_matches(message.subject, consumer.subject)]
            self._queues[consumer.name] = _Queue(consumer.name, consumer.subject, matching)
        task = asyncio.create_task(self._consume(consumer, self._queues[consumer.name]), name=consumer.name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _consume(self, consumer: Consumer, queue: _Queue) -> None:
        while True:
            while not queue.waiting:
                queue.bell.clear()
                await queue.bell.wait()
            async with queue.turn:
                if queue.waiting:
                    await self._take(consumer, queue)

    async def _take(self, consumer: Consumer, queue: _Queue) -> None:
        """Take the oldest message, or put it off."""
        said, queue.attempt = queue.waiting[0], queue.attempt + 1
        message = said.message
        what, _, after = await dispose(consumer, message, queue.attempt, partial(self._park, consumer))
        if what == "later":
            await asyncio.sleep(delay(consumer, queue.attempt, after))
            return
        queue.attempt = 0
        queue.waiting.remove(said)
        stream = stream_of(message.subject)
        if STREAMS[stream].retention is RetentionPolicy.WORK_QUEUE:
            self._streams[stream].remove(said)

    async def _park(self, consumer: Consumer, message: Message, reason: str) -> None:
        if await self.size("PARKED") + len(orjson.dumps(message.body)) > self._parked_bytes:
            raise Unavailable("the stream PARKED is full: raise CONVERGEDON_PARKED_BYTES")
        id = max(self._parked, default=0) + 1
        stream = stream_of(message.subject)
        self._parked[id] = Parked(
            id, stream, consumer.name, message.subject, reason, time(), message.body, message.headers
        )

    async def forget(self, stream: str, consumer: str, subject: str) -> None:
        self._queues.pop(consumer, None)
        kept = [message for message in self._streams[stream] if not subject_matches(message.subject, subject)]
        self._streams[stream] = kept

    async def read(self, subject: str) -> list[Mapping[str, Any]]:
        return [message.body async for message in self.since(subject, 0)]

    async def since(self, subject: str, start: float, beyond: int = 0) -> AsyncGenerator[Message, None]:
        for said in list(self._streams[stream_of(subject)]):
            there = said.sequence > beyond if beyond else said.stored >= start
            if there and subject_matches(said.subject, subject):
                yield said.message

    async def last(self, subject: str) -> Message | None:
        mine = [message for message in self._streams[stream_of(subject)] if message.subject == subject]
        return mine[-1].message if mine else None

    async def erase(self, message: Message) -> None:
        stream = stream_of(message.subject)
        self._streams[stream] = [one for one in self._streams[stream] if one.sequence != message.position.sequence]

    async def purge(self, subject: str, through: int) -> None:
        stream = stream_of(subject)
        self._streams[stream] = [
            one for one in self._streams[stream] if one.subject != subject or one.sequence > through
        ]

    async def waiting(self, stream: str) -> Mapping[str, int]:
        return Counter(message.subject for message in self._streams[stream])

    async def size(self, stream: str) -> int:
        if stream == "PARKED":
            return sum(len(orjson.dumps(message.body)) for message in self._parked.values())
        return sum(len(message.text) for message in self._streams[stream])

    async def parked(self, most: int = 0, beyond: int = 0) -> list[Parked]:
        found = [message for id, message in self._parked.items() if id > beyond]
        return found[:most] if most else found

    async def parked_last(self, most: int) -> ParkedLast:
        found = list(reversed(self._parked.values()))
        return ParkedLast(found[:most], len(found[most:]))

    async def drop(self, id: int) -> Parked:
        if id not in self._parked:
            raise NotFound(f"there is no parked message {id}")
        return self._parked.pop(id)

    async def retry(self, id: int) -> None:
        parked = await self.drop(id)
        original = parked.headers.get("traceparent")
        headers = {"traceparent": original} if original else None
        await self.publish(parked.subject, parked.body, f"retry:{id}:{parked.parked}", headers)

    @asynccontextmanager
    async def listen(self, subject: str) -> AsyncIterator[asyncio.Queue[Message]]:
        entry: tuple[str, asyncio.Queue[Message]] = (subject, asyncio.Queue(1000))
        self._listeners.append(entry)
        try:
            yield entry[1]
        finally:
            self._listeners.remove(entry)

    @property
    def is_idle(self) -> bool:
        """Whether everything was taken by all who take it."""
        return not any(queue.waiting for queue in self._queues.values())

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _place(message: Message | None) -> int:
    return message.position.sequence if message else 0


def subject_matches(subject: str, pattern: str) -> bool:
    """NATS wildcards: ``*`` is one token, ``>`` the rest."""
    said, wanted = subject.split("."), pattern.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(said) > index
        if index >= len(said) or token not in ("*", said[index]):
            return False
    return len(said) == len(wanted)
