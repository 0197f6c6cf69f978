"""The in-memory twins of store and bus: same promises, same suite, nothing kept. For tests and benchmarks."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from time import time
from typing import Any

import orjson
from nats.js.api import RetentionPolicy

from convergedon.core import trace
from convergedon.core.bus import STREAMS, Consumer, Message, Parked, Position, delay, dispose, stream_of
from convergedon.core.errors import Conflict, Invalid, NotFound, Stale
from convergedon.core.matching import Where, matches, rank, values_at
from convergedon.core.store import GONE, WALKED, Kind, Outgoing, Record, Unsent, Written


@dataclass
class _Kept:
    record: Record
    waiting: float | None = None
    gone: bool = False

    @property
    def document(self) -> dict[str, Any]:
        r = self.record
        return {"id": r.id, "tenant": r.tenant, "revision": r.revision, "body": r.body, "facts": r.facts}


def _whole(kept: _Kept) -> dict[str, Any]:
    outbox = [asdict(message) for message in kept.record.unsent]
    gone = {"tenant": GONE + kept.record.tenant} if kept.gone else {}
    return {**kept.document, "outbox": outbox, **gone}


def _json(value: Any) -> Any:
    """A copy, as a store keeps it: through the text, ten times as fast as a copy of every object."""
    try:
        return orjson.loads(orjson.dumps(value))
    except orjson.JSONEncodeError as error:
        raise Invalid(f"cannot be stored: {error}") from error


def _copied(record: Record, **changes: Any) -> Record:
    """A record that shares nothing with the given one that anybody could change."""
    return replace(record, body=_json(record.body), facts=_json(record.facts), **changes)


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
        self._kinds = {kind.name: kind for kind in kinds}
        self._kept: dict[str, dict[str, _Kept]] = {name: {} for name in self._kinds}

    def _refuse_twins(self, record: Record) -> None:
        for path in self._kinds[record.kind].unique:
            mine = values_at({"body": record.body, "facts": record.facts}, path)
            for kept in self._kept[record.kind].values() if mine else ():
                same = kept.record.tenant == record.tenant and values_at(kept.document, path) == mine
                if same and kept.record.id != record.id:
                    raise Conflict(f"it exists already: {path}")

    async def create(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        if record.id in self._kept[record.kind]:
            raise Conflict(f"it exists already: {record.id}")
        self._refuse_twins(record)
        stored = _copied(record, revision=1)
        kept = self._kept[record.kind][record.id] = _Kept(stored)
        return self._push(kept, messages)

    async def append(self, records: Sequence[Record]) -> None:
        for record in records:
            body, facts = _json(record.body), _json(record.facts)
            kept = _Kept(Record(record.kind, record.id, record.tenant, body, facts, 1))
            self._kept[record.kind].setdefault(record.id, kept)

    async def walk(self, kind: str) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        kept = list(self._kept[kind].values())
        for begin in range(0, len(kept), WALKED):
            yield [_whole(one) for one in kept[begin : begin + WALKED]]

    async def get(self, kind: str, tenant: str, id: str) -> Record:
        kept = self._kept[kind].get(id)
        if kept is None or kept.gone or kept.record.tenant != tenant:
            raise NotFound(f"there is no {kind} {id}")
        return _copied(kept.record)

    async def find(
        self, kind: str, where: Where, sort: Sequence[tuple[str, int]] = (), skip: int = 0, limit: int = 0
    ) -> list[Record]:
        found = self._matching(kind, where)
        for path, way in reversed(sort):
            found.sort(key=lambda k, p=path, w=way: rank(values_at(k.document, p), w), reverse=way < 0)  # type: ignore[misc]
        return [_copied(k.record) for k in found[skip : skip + limit if limit else None]]

    async def count(self, kind: str, where: Where) -> int:
        return len(self._matching(kind, where))

    def _matching(self, kind: str, where: Where) -> list[_Kept]:
        tenant, rest = _of_tenant(where)
        there = (k for k in self._kept[kind].values() if not k.gone and tenant in (None, k.record.tenant))
        return [k for k in there if not rest or matches(k.document, rest)]

    async def replace(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        kept = self._guarded(record)
        self._refuse_twins(record)
        kept.record = _copied(record, revision=record.revision + 1, unsent=kept.record.unsent)
        return self._push(kept, messages)

    async def delete(self, record: Record, messages: Sequence[Outgoing] = ()) -> None:
        kept = self._guarded(record)
        kept.record = replace(kept.record, revision=record.revision + 1)
        kept.gone = True
        self._push(kept, messages)

    def _guarded(self, record: Record) -> _Kept:
        kept = self._kept[record.kind].get(record.id)
        if kept is None or kept.gone or kept.record.revision != record.revision or kept.record.tenant != record.tenant:
            raise Stale(f"{record.kind} {record.id} was changed by somebody else")
        return kept

    def _push(self, kept: _Kept, messages: Sequence[Outgoing]) -> Record:
        said = [replace(message, body=_json(message.body)) for message in messages]
        now = kept.record = replace(kept.record, unsent=(*kept.record.unsent, *said))
        if messages or kept.gone:
            kept.waiting = time()
            self.written(Unsent(now.kind, now.id, now.revision, now.unsent, kept.gone))
        return _copied(now)

    async def unsent(self, older_than: float) -> list[Unsent]:
        latest = time() - older_than
        return [
            Unsent(kind, id, kept.record.revision, kept.record.unsent, kept.gone)
            for kind, records in self._kept.items()
            for id, kept in records.items()
            if kept.waiting is not None and kept.waiting < latest
        ]

    async def sent(self, done: Iterable[Unsent]) -> None:
        for unsent in done:
            kept = self._kept[unsent.kind].get(unsent.id)
            if kept is None:
                continue
            ids = {message.id for message in unsent.messages}
            left = tuple(message for message in kept.record.unsent if message.id not in ids)
            kept.record = replace(kept.record, unsent=left)
            if kept.record.revision == unsent.revision:
                kept.waiting = None
                if kept.gone:
                    del self._kept[unsent.kind][unsent.id]

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        return None


@dataclass
class _Queue:
    """One durable consumer: what it has yet to take, and a bell."""

    consumer: str
    subject: str
    waiting: list[Message] = field(default_factory=list)
    bell: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryBus:
    def __init__(self) -> None:
        self._streams: dict[str, list[Message]] = defaultdict(list)
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
        position = Position("memory", len(self._ids[stream]))
        carried = {**trace.headers(), **(headers or {}), "Nats-Msg-Id": id}
        message = Message(id, subject, orjson.loads(orjson.dumps(body)), carried, position, time())
        self._streams[stream].append(message)
        self._trim(stream, message)
        for queue in self._queues.values():
            if subject_matches(subject, queue.subject):
                queue.waiting.append(message)
                queue.bell.set()
        for wanted, listener in self._listeners:
            if subject_matches(subject, wanted) and not listener.full():
                listener.put_nowait(message)

    def _trim(self, stream: str, newest: Message) -> None:
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
        attempt = 0
        while True:
            while not queue.waiting:
                queue.bell.clear()
                await queue.bell.wait()
            message, attempt = queue.waiting[0], attempt + 1
            what, reason, after = await dispose(consumer, message, attempt)
            if what == "later":
                await asyncio.sleep(delay(consumer, attempt, after))
                continue
            attempt = 0
            queue.waiting.remove(message)
            stream = stream_of(message.subject)
            if STREAMS[stream].retention is RetentionPolicy.WORK_QUEUE:
                self._streams[stream].remove(message)
            if what == "park":
                self._park(consumer, message, reason)

    def _park(self, consumer: Consumer, message: Message, reason: str) -> None:
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

    async def since(self, subject: str, start: float, beyond: int = 0) -> AsyncIterator[Message]:
        for message in list(self._streams[stream_of(subject)]):
            there = _place(message) > beyond if beyond else message.stored >= start
            if there and subject_matches(message.subject, subject):
                yield message

    async def last(self, subject: str) -> Message | None:
        mine = [message for message in self._streams[stream_of(subject)] if message.subject == subject]
        return mine[-1] if mine else None

    async def erase(self, message: Message) -> None:
        stream = stream_of(message.subject)
        self._streams[stream] = [one for one in self._streams[stream] if one.position != message.position]

    async def waiting(self, stream: str) -> Mapping[str, int]:
        return Counter(message.subject for message in self._streams[stream])

    async def parked(self) -> list[Parked]:
        return list(self._parked.values())

    async def retry(self, id: int) -> None:
        if id not in self._parked:
            raise NotFound(f"there is no parked message {id}")
        parked = self._parked.pop(id)
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
