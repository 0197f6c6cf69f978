"""The spine: streams of messages that survive their reader, with order kept for each resource and each device.

A subject carries a partition derived from the resource's or device's name. Each partition has a durable consumer with
one message under way at a time, so any number of workers may pull and all that concerns one resource happens in order.
``NatsBus`` and ``memory.MemoryBus`` pass the same suite.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from random import random
from time import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol
from zlib import crc32

import orjson
import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StoreCompression,
    StreamConfig,
)
from nats.js.errors import BadRequestError, NotFoundError, ServerError

from convergedon.core import encryption, metrics, trace
from convergedon.core.errors import ConvergedonError, Misconfigured, NotFound, Stale, Unavailable
from convergedon.core.peers import NatsClient
from convergedon.core.progress import Progress
from convergedon.core.pulling import Pull
from convergedon.core.tasks import end

if TYPE_CHECKING:  # processes without a store need none of what that imports
    from convergedon.core.store import Outgoing

log = structlog.get_logger()

PARTITIONS = 16
SEVERAL = "several"
"""The member of a message, and the end of its subject, that holds several which were stored as one."""
LARGEST_PACK = 512 * 1024
"""Bytes of such a message; the bus takes more."""
DAY = 86_400
PATIENCE = 5
"""Seconds that the servers have to let us in, or to answer; one of them has less, so that another is tried."""
LOOKED_PAST = 200
"""Ids of parked messages that are gone, on the way to those that were parked last."""
NOT_THERE = 10043
"""How the server says that it has no message of that sequence."""
NO_ROOM = 10047
"""And that a stream may grow larger than its storage."""
FULL = 10077
"""And that a stream which lets go of nothing has no room for another message."""
LIMITS = {
    "DECISIONS": "CONVERGEDON_DECISION_BYTES",
    "METERED": "CONVERGEDON_METERED_BYTES",
    "PARKED": "CONVERGEDON_PARKED_BYTES",
}
"""The streams whose bounds are settings, and the one that says how large they may grow."""
WRONG_LAST = 10071
"""The server's code for a message that was to stand after another than the last."""

STREAMS: Mapping[str, StreamConfig] = {
    "EVENTS": StreamConfig(subjects=["event.>"], max_age=7 * DAY),
    "NETWORK": StreamConfig(subjects=["network.>"], max_age=7 * DAY),
    # how far adapters have heard devices that can tell again, and workers have taken their lanes
    "POSITIONS": StreamConfig(subjects=["position.>"], max_msgs_per_subject=1),
    # what observations came to for each usage type and interval, until usage was made of it: none goes for another
    "METERED": StreamConfig(
        subjects=["metered.>"], max_bytes=1 << 30, discard=DiscardPolicy.NEW, compression=StoreCompression.S2
    ),
    "INTENTS": StreamConfig(subjects=["intent.>"], retention=RetentionPolicy.WORK_QUEUE),
    "TASKS": StreamConfig(subjects=["task.>"], retention=RetentionPolicy.WORK_QUEUE),
    "DELIVERY": StreamConfig(subjects=["delivery.>"], retention=RetentionPolicy.WORK_QUEUE),
    # nobody has seen to these yet: none goes for another (core/parking.py)
    "PARKED": StreamConfig(subjects=["parked.>"], max_bytes=1 << 30, discard=DiscardPolicy.NEW),
    # what commands ask of adapters, and their answers
    "ADAPTERS": StreamConfig(subjects=["adapter.>"], max_msgs=10_000, max_age=600, storage=StorageType.MEMORY),
    "RECORDS": StreamConfig(subjects=["records.>"], retention=RetentionPolicy.WORK_QUEUE),
    "AUDIT": StreamConfig(subjects=["audit.>"], deny_delete=True, deny_purge=True),
    # the bundles that were put in force, and which of them each process runs
    "POLICIES": StreamConfig(subjects=["policy.>"], max_msgs=50),
    "RUNNING": StreamConfig(subjects=["running.>"], max_msgs_per_subject=1, max_age=3600, storage=StorageType.MEMORY),
    "DECISIONS": StreamConfig(
        subjects=["decision.>"], max_age=7 * DAY, max_bytes=2 << 30, compression=StoreCompression.S2
    ),
}


PLAIN = re.compile(r"[\w-]+")
"""Names that are tokens as they are: letters, digits, hyphens and underscores."""


def partition(name: str) -> int:
    """The partition in which everything about this resource or device stays in order."""
    return crc32(name.encode()) % PARTITIONS


def token(name: str) -> str:
    """A name as one token of a subject: what would separate or match tokens is written as %XX."""
    if PLAIN.fullmatch(name):
        return name
    return "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):02X}" for c in name) or "%"


def lane(subject: str) -> str:
    """What the subjects of events have in common that may be stored as one message: partition and tenant.

    Empty for what is always a message of its own.
    """
    return ".".join(subject.split(".")[:3]) if subject.startswith("event.") else ""


def stream_of(subject: str) -> str:
    prefix = subject.split(".", 1)[0] + ".>"
    return next(name for name, config in STREAMS.items() if prefix in (config.subjects or ()))


@dataclass(frozen=True)
class Position:
    """Where a message stands in its stream. Positions of one epoch (one life of the stream) can be compared.

    ``part`` tells those apart that came in one message.
    """

    epoch: str
    sequence: int
    part: int = 0


@dataclass(frozen=True)
class Message:
    id: str
    subject: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    position: Position
    stored: float
    attempt: int = 1
    """Which delivery to its consumer this is."""
    behind: int = 1
    """How many its consumer had yet to be given when it was given this one; where nobody knows there may be one."""


def unpacked(message: Message) -> list[Message]:
    """The messages that were stored as one, each at its place in it; most are one."""
    if SEVERAL not in message.body:
        return [message]
    return [
        replace(message, **one, position=replace(message.position, part=number))
        for number, one in enumerate(message.body[SEVERAL])
    ]


@dataclass(frozen=True)
class Parked:
    """A message that could not succeed, with its reason."""

    id: int
    stream: str
    consumer: str
    subject: str
    reason: str
    parked: float
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ParkedLast:
    """The messages that were parked last, newest first; ``earlier`` counts the others that are parked."""

    messages: Sequence[Parked]
    earlier: int


class Disposal(NamedTuple):
    """What becomes of a message, why, and when it is to come back where that is known (seconds)."""

    what: Literal["done", "later", "park"]
    reason: str = ""
    after: float | None = None


Handler = Callable[[Message], Awaitable[None]]
Park = Callable[[Message, str], Awaitable[None]]
"""Put a message aside with its reason. Raises Unavailable while there is no room for it."""


@dataclass(frozen=True)
class Consumer:
    """Who takes which messages: a durable name, a subject filter, and for how long work is tried again (seconds).

    A message whose taker died comes to another after ``ack_wait`` seconds; a living taker extends that by itself.
    ``pause`` is the longest time between two tries. ``parked`` is told of each message that is given up.
    ``light``: the server keeps its place in memory alone, which is noted now and then (``core/progress.py``): when that
    server dies, what was done in the half second before is given again.
    """

    name: str
    subject: str
    handler: Handler
    horizon: float = 3600.0
    attempts: int = 5
    ack_wait: float = 6.0
    pause: float = 15.0
    parked: Callable[[Message, str], None] = lambda *_: None
    light: bool = False


async def dispose(consumer: Consumer, message: Message, attempt: int, park: Park) -> Disposal:
    """Run the handler and decide what becomes of the message.

    What may succeed later comes back until the horizon; a refusal is parked at once; a fault of our own is tried again
    a few times (a restart may bring the mended code) and then parked. Nothing is swallowed, nothing retried for ever;
    but what cannot be parked comes back until it can.
    """
    stream = stream_of(message.subject)
    if attempt > 1:
        message = replace(message, attempt=attempt)
    try:
        with trace.span(f"{consumer.name}", message.headers):
            await consumer.handler(message)
    except (Unavailable, Stale) as error:
        if time() - message.stored < consumer.horizon:
            metrics.CONSUMED.labels(stream, "later").inc()
            log.info("message comes back", consumer=consumer.name, subject=message.subject, reason=str(error))
            return Disposal("later", str(error), error.after if isinstance(error, Unavailable) else None)
        reason = f"gave up after {consumer.horizon:.0f} s: {error}"
    except ConvergedonError as error:
        reason = str(error)
    except Exception as error:
        log.exception("handler failed", consumer=consumer.name, subject=message.subject, attempt=attempt)
        if attempt < consumer.attempts:
            metrics.CONSUMED.labels(stream, "later").inc()
            return Disposal("later", repr(error))
        reason = f"failed {attempt} times: {error!r}"
    else:
        metrics.CONSUMED.labels(stream, "done").inc()
        return Disposal("done")
    try:
        await park(message, reason)
    except Unavailable as error:
        metrics.CONSUMED.labels(stream, "later").inc()
        metrics.UNPARKED.labels(stream).inc()
        log.warning(
            "message cannot be parked and comes back",
            consumer=consumer.name,
            subject=message.subject,
            reason=str(error),
            wanted=reason,
        )
        return Disposal("later", str(error))
    metrics.CONSUMED.labels(stream, "parked").inc()
    metrics.PARKED.labels(stream).inc()
    log.warning("message parked", consumer=consumer.name, subject=message.subject, reason=reason)
    consumer.parked(message, reason)
    return Disposal("park", reason)


def delay(consumer: Consumer, attempt: int, after: float | None = None) -> float:
    """Seconds until a message comes back: as its peer wished, else by chance up to 0.2, 0.4 .. the longest pause.

    By chance from nothing (full jitter): what failed together does not come back together.
    """
    if after is not None:
        return after
    return random() * float(min(0.2 * 2 ** min(attempt - 1, 20), consumer.pause))


class Bus(Protocol):
    """Every method raises Unavailable while the bus cannot be reached."""

    async def publish(
        self,
        subject: str,
        body: Mapping[str, Any],
        id: str,
        headers: Mapping[str, str] | None = None,
        after: int | None = None,
    ) -> None:
        """Store a message durably. A second one with the same id within two minutes changes nothing.

        With ``after`` only if the last message of its subject stands there (0: if there is none). Raises Stale.
        """
        ...

    async def publish_all(self, messages: Sequence[Outgoing]) -> None:
        """Store messages of one lane durably, in their order, with as few writes as may be.

        Whoever takes or reads them has each by itself. One that comes again in other company is not known again.
        """
        ...

    def consume(self, consumer: Consumer) -> asyncio.Task[None]:
        """Take messages one at a time until the task is cancelled."""
        ...

    async def forget(self, stream: str, consumer: str, subject: str) -> None:
        """Remove a durable consumer, if it is there, and the messages of its subject."""
        ...

    async def read(self, subject: str) -> list[Mapping[str, Any]]:
        """The bodies of all stored messages that match, oldest first."""
        ...

    def since(self, subject: str, start: float, beyond: int = 0) -> AsyncGenerator[Message, None]:
        """The messages that match and were stored from then on until now, oldest first.

        With ``beyond`` those that stand after this place of the stream, instead.
        """
        ...

    async def last(self, subject: str) -> Message | None:
        """The newest stored message of this very subject."""
        ...

    async def erase(self, message: Message) -> None:
        """Take one stored message out of its stream, if it is still there, without a trace of its content."""
        ...

    async def purge(self, subject: str, through: int) -> None:
        """Take the messages of this very subject out of their stream that stand up to this place of it."""
        ...

    async def waiting(self, stream: str) -> Mapping[str, int]:
        """How many messages of each subject the stream holds; of a work queue: how many are not done."""
        ...

    async def size(self, stream: str) -> int:
        """How many bytes the stream holds."""
        ...

    async def parked(self, most: int = 0, beyond: int = 0) -> list[Parked]:
        """What is parked, oldest first: so many at most, where that is given, of those after this id."""
        ...

    async def parked_last(self, most: int) -> ParkedLast:
        """What was parked last, so many at most; ids that are gone again are looked past, but not without end."""
        ...

    async def retry(self, id: int) -> None:
        """Put a parked message back where it came from. Raises NotFound."""
        ...

    async def drop(self, id: int) -> Parked:
        """Let a parked message go for good. Raises NotFound."""
        ...

    def listen(self, subject: str) -> contextlib.AbstractAsyncContextManager[asyncio.Queue[Message]]:
        """What is published from now on, for watching: nothing is kept for a listener that is away or slow."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class Keep(NamedTuple):
    """How long (seconds; 0: any time) and how much (bytes) a stream keeps at most."""

    age: float
    bytes: int


class NatsBus:
    """``keep`` says how much some streams (LIMITS) keep; of others it is left as another process has set it."""

    def __init__(
        self, url: str, name: str, keep: Mapping[str, Keep] | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        self._servers = [server.strip() for server in url.split(",")]
        self._name = name
        self._keep = keep or {}
        self._client, self._options = NatsClient(), options or {}
        self._epochs: dict[str, str] = {}
        self._reached: dict[str, tuple[int, int]] = {}
        self._progress = Progress(self.last, self.publish)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pulls: set[Pull] = set()

    async def open(self) -> NatsBus:
        """Connect and make the streams. Raises Unavailable, with the reason, when no server has let us in within five
        seconds.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await self._connect()
        except (NatsError, OSError, NatsTimeout, TimeoutError) as error:
            reason = (self._client.last_error if isinstance(error, TimeoutError) else None) or error
            await self._client.close()
            self._client = NatsClient()
            words = encryption.why(reason) or str(reason) or type(reason).__name__
            raise Unavailable(f"NATS does not answer: {' '.join(words.split())}") from error
        except Misconfigured:
            await self._client.close()
            raise
        except ValueError as error:
            raise Misconfigured(f"CONVERGEDON_NATS_URL cannot be used: {type(error).__name__}") from error
        return self

    async def _connect(self) -> None:
        """The client tries its servers one after the other, and again from the first, for as long as it may."""
        await self._client.connect(
            servers=self._servers,
            name=self._name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2,  # type: ignore[arg-type]  # only slept
            connect_timeout=2,
            allow_reconnect=True,
            error_cb=self._report,
            reconnected_cb=self._ask_again,
            pending_size=16 << 20,
            **self._options,
        )
        self._stream = self._client.jetstream(timeout=PATIENCE)
        for name, config in STREAMS.items():
            await self._make(name, config)

    async def _ask_again(self) -> None:
        for pull in self._pulls:
            pull.again()

    async def _report(self, error: Exception) -> None:
        log.warning("bus", reason=_why(error))

    async def _make(self, name: str, config: StreamConfig) -> None:
        wanted = config.evolve(name=name, duplicate_window=120)
        if keep := self._keep.get(name):
            wanted = wanted.evolve(max_age=keep.age, max_bytes=keep.bytes)
        try:
            try:
                await self._stream.add_stream(wanted)
            except BadRequestError:  # it is there, and otherwise
                if keep or name not in LIMITS:
                    await self._stream.update_stream(wanted)
        except ServerError as error:
            if error.err_code != NO_ROOM:
                raise
            raise Misconfigured(
                f"NATS has no room for the {wanted.max_bytes:,} bytes of its stream {name}: give it more storage"
                + (f", or lower {LIMITS[name]}" if name in LIMITS else "")
            ) from error

    async def _epoch(self, stream: str) -> str:
        """When the stream was made: sequences begin again if it is made anew."""
        if stream not in self._epochs:
            info = await self._stream.stream_info(stream)
            self._epochs[stream] = str(info.created)
        return self._epochs[stream]

    async def publish(
        self,
        subject: str,
        body: Mapping[str, Any],
        id: str,
        headers: Mapping[str, str] | None = None,
        after: int | None = None,
    ) -> None:
        carried = {**(headers or {}), "Nats-Msg-Id": id}
        if "traceparent" not in carried:
            carried.update(trace.headers())
        if after is not None:
            carried["Nats-Expected-Last-Subject-Sequence"] = str(after)
        await self._store(subject, orjson.dumps(body), carried)

    async def _store(self, subject: str, data: bytes, headers: Mapping[str, str]) -> None:
        try:
            await self._stream.publish(subject, data, headers=dict(headers), timeout=5)
        except BadRequestError as error:
            if error.err_code != WRONG_LAST:
                raise Unavailable(f"NATS does not take messages: {error}") from error
            raise Stale(f"somebody else has published on {subject}") from error
        except (NatsError, OSError, TimeoutError) as error:
            if getattr(error, "err_code", 0) == FULL:
                stream = stream_of(subject)
                raise Unavailable(f"the stream {stream} is full: raise {LIMITS.get(stream, 'its bound')}") from error
            raise Unavailable(f"NATS does not take messages: {_why(error)}") from error

    async def publish_all(self, messages: Sequence[Outgoing]) -> None:
        for some in _packed(messages):
            first = some[0][0]
            if len(some) == 1:
                await self.publish(first.subject, first.body, first.id, first.headers)
            else:
                body = {SEVERAL: [written for _, written in some]}
                id = f"{first.id}+{len(some) - 1}"
                await self.publish(f"{lane(first.subject)}.{SEVERAL}", body, id, first.headers)

    def consume(self, consumer: Consumer) -> asyncio.Task[None]:
        task = asyncio.create_task(self._consume(consumer), name=consumer.name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _consume(self, consumer: Consumer) -> None:
        stream = stream_of(consumer.subject)
        notes = _is_noted(consumer)
        if notes:
            await self._progress.start()
        config = ConsumerConfig(
            durable_name=consumer.name,
            filter_subject=consumer.subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=consumer.ack_wait,
            max_ack_pending=1,
            max_deliver=-1,
            mem_storage=consumer.light or None,
        )
        pull = Pull(self._client, self._stream, stream, config, partial(self._place, consumer) if notes else None)
        self._pulls.add(pull)
        try:
            while True:
                try:
                    await self._handle(consumer, await pull.next(), await self._epoch(stream))
                except (NatsTimeout, TimeoutError):
                    continue
                except (NatsError, OSError, Unavailable, Stale) as error:
                    log.info("bus away", consumer=consumer.name, reason=_why(error))
                    await pull.close()
                    self._epochs.pop(stream, None)
                    await asyncio.sleep(0.5)
        finally:
            self._pulls.discard(pull)
            await pull.close()

    async def _place(self, consumer: Consumer, before: ConsumerInfo | None) -> int:
        """Up to where a consumer has taken its stream, which is noted where the server has kept it until now."""
        stream = stream_of(consumer.subject)
        epoch = await self._epoch(stream)
        if before and before.ack_floor:
            self._progress.reached(consumer.name, epoch, before.ack_floor.stream_seq)
            await self._progress.note()
        last = (await self._stream.stream_info(stream)).state.last_seq
        return await self._progress.of(consumer.name, epoch, last)

    async def _handle(self, consumer: Consumer, received: Msg, epoch: str) -> None:
        data = received.metadata
        try:
            message = _message(received, epoch)
        except orjson.JSONDecodeError:
            await self._park_unread(consumer, received, epoch)
            return
        with _KeptAlive(received, consumer.ack_wait / 3):
            sequence, reached = self._reached.pop(consumer.name, (0, 0))
            for part in unpacked(message)[reached if sequence == message.position.sequence else 0 :]:
                what, _, after = await dispose(consumer, part, data.num_delivered, partial(self._park_part, consumer))
                if what == "later":  # those after it wait; whoever takes it elsewhere takes those before it again
                    self._reached[consumer.name] = part.position.sequence, part.position.part
                    await received.nak(delay(consumer, data.num_delivered, after))
                    return
        await self._done(consumer, received, epoch)

    async def _done(self, consumer: Consumer, received: Msg, epoch: str) -> None:
        await received.ack()
        if _is_noted(consumer):
            self._progress.reached(consumer.name, epoch, received.metadata.sequence.stream)

    async def _park_unread(self, consumer: Consumer, received: Msg, epoch: str) -> None:
        data, stream = received.metadata, stream_of(received.subject)
        reason = f"not JSON: {received.data[:80]!r}"
        which = f"{data.sequence.stream}"
        try:
            await self._park(consumer, received.subject, received.data, received.headers or {}, which, reason)
        except Unavailable as error:
            metrics.UNPARKED.labels(stream).inc()
            log.warning("message cannot be parked and comes back", subject=received.subject, reason=str(error))
            await received.nak(delay(consumer, data.num_delivered))
            return
        await self._done(consumer, received, epoch)

    async def _park_part(self, consumer: Consumer, part: Message, reason: str) -> None:
        place = part.position
        which = f"{place.sequence}.{place.part}" if place.part else f"{place.sequence}"
        await self._park(consumer, part.subject, orjson.dumps(part.body), part.headers, which, reason)

    async def _park(
        self, consumer: Consumer, subject: str, data: bytes, headers: Mapping[str, str], which: str, reason: str
    ) -> None:
        """Copy a message with its reason, before it is taken away: a crash between leaves a duplicate, never a gap.

        Raises Unavailable, also where there is no room for it.
        """
        about = {
            "Parked-Subject": subject,
            "Parked-Reason": " ".join(reason.split())[:1000],
            "Parked-Time": f"{time():.3f}",
            "Nats-Msg-Id": f"{consumer.name}:{which}",
        }
        await self._store(f"parked.{stream_of(subject)}.{consumer.name}", data, {**headers, **about})

    async def forget(self, stream: str, consumer: str, subject: str) -> None:
        with _reached():
            with contextlib.suppress(NotFoundError):
                await self._stream.delete_consumer(stream, consumer)
            await self._stream.purge_stream(stream, subject=subject)

    async def read(self, subject: str) -> list[Mapping[str, Any]]:
        return [message.body async for message in self.since(subject, 0)]

    async def since(self, subject: str, start: float, beyond: int = 0) -> AsyncGenerator[Message, None]:
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        if beyond:
            config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=beyond + 1)
        elif start:
            config = ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=datetime.fromtimestamp(start, UTC)
            )
        with _reached():
            reader = await self._stream.subscribe(
                subject, stream=stream_of(subject), ordered_consumer=True, config=config
            )
            try:
                info = await reader.consumer_info()
                # the server may have delivered some already when it is asked what is pending
                stored = (info.num_pending or 0) + (info.delivered.consumer_seq if info.delivered else 0)
                for _ in range(stored):
                    for message in unpacked(_message(await reader.next_msg(timeout=5), "")):
                        yield message
            finally:
                await reader.unsubscribe()

    async def last(self, subject: str) -> Message | None:
        stream = stream_of(subject)
        try:
            raw = await self._stream.get_last_msg(stream, subject)
            epoch = await self._epoch(stream)
        except NotFoundError:
            return None
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"NATS does not answer: {_why(error)}") from error
        headers = dict(raw.headers or {})
        stored = raw.time.timestamp() if raw.time else 0.0
        position = Position(epoch, raw.seq or 0)
        return Message(
            headers.get("Nats-Msg-Id", ""), subject, orjson.loads(raw.data or b"null"), headers, position, stored
        )

    async def erase(self, message: Message) -> None:
        try:
            await self._stream.delete_msg(stream_of(message.subject), message.position.sequence)
        except (NatsError, OSError, TimeoutError) as error:
            if isinstance(error, BadRequestError) and error.err_code == NOT_THERE:
                return
            raise Unavailable(f"NATS does not answer: {_why(error)}") from error

    async def purge(self, subject: str, through: int) -> None:
        with _reached():
            await self._stream.purge_stream(stream_of(subject), seq=through + 1, subject=subject)

    async def waiting(self, stream: str) -> Mapping[str, int]:
        with _reached():
            return (await self._stream.stream_info(stream, subjects_filter=">")).state.subjects or {}

    async def size(self, stream: str) -> int:
        with _reached():
            return int((await self._stream.stream_info(stream)).state.bytes)

    async def parked(self, most: int = 0, beyond: int = 0) -> list[Parked]:
        with _reached():
            state = (await self._stream.stream_info("PARKED")).state
            found: list[Parked] = []
            for sequence in range(max(state.first_seq, beyond + 1), state.last_seq + 1) if state.messages else ():
                if most and len(found) == most:
                    break
                with contextlib.suppress(NotFoundError):
                    found.append(await self._read_parked(sequence))
            return found

    async def parked_last(self, most: int) -> ParkedLast:
        with _reached():
            state = (await self._stream.stream_info("PARKED")).state
            found: list[Parked] = []
            first = max(state.first_seq, state.last_seq + 1 - most - LOOKED_PAST)
            for sequence in range(state.last_seq, first - 1, -1):
                if len(found) == min(most, state.messages):
                    break
                with contextlib.suppress(NotFoundError):
                    found.append(await self._read_parked(sequence))
            return ParkedLast(found, max(0, state.messages - len(found)))

    async def _read_parked(self, sequence: int) -> Parked:
        raw = await self._stream.get_msg("PARKED", sequence)
        headers = raw.headers or {}
        _, stream, consumer = (raw.subject or "").split(".", 2)
        try:
            body = orjson.loads(raw.data or b"null")
        except orjson.JSONDecodeError:
            body = (raw.data or b"").decode(errors="replace")
        return Parked(
            sequence,
            stream,
            consumer,
            headers.get("Parked-Subject", ""),
            headers.get("Parked-Reason", ""),
            float(headers.get("Parked-Time", 0)),
            body,
            {name: value for name, value in headers.items() if not name.startswith("Parked-")},
        )

    async def retry(self, id: int) -> None:
        parked = await self._known(id)
        original = parked.headers.get("traceparent")
        headers = {"traceparent": original} if original else None
        await self.publish(parked.subject, parked.body, f"retry:{id}:{parked.parked}", headers)
        await self._forget_parked(id)

    async def drop(self, id: int) -> Parked:
        parked = await self._known(id)
        await self._forget_parked(id)
        return parked

    async def _known(self, id: int) -> Parked:
        try:
            return await self._read_parked(id)
        except NotFoundError as error:
            raise NotFound(f"there is no parked message {id}") from error
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"NATS does not answer: {_why(error)}") from error

    async def _forget_parked(self, id: int) -> None:
        with _reached():
            await self._stream.delete_msg("PARKED", id)

    @contextlib.asynccontextmanager
    async def listen(self, subject: str) -> AsyncIterator[asyncio.Queue[Message]]:
        queue: asyncio.Queue[Message] = asyncio.Queue(1000)

        async def take(received: Msg) -> None:
            message = Message(
                (received.headers or {}).get("Nats-Msg-Id", ""),
                received.subject,
                orjson.loads(received.data),
                received.headers or {},
                Position("", 0),
                time(),
            )
            with contextlib.suppress(asyncio.QueueFull):
                for one in unpacked(message):
                    queue.put_nowait(one)

        subscription = await self._client.subscribe(subject, cb=take)
        try:
            yield queue
        finally:
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()

    async def ping(self) -> None:
        if not self._client.is_connected:
            reason = encryption.why(self._client.last_error) if self._client.last_error else ""
            raise Unavailable(f"NATS is not connected{reason and ': '}{reason}")
        with _reached():
            await self._stream.account_info()

    async def close(self) -> None:
        await end(self._tasks)
        await self._progress.stop()
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await self._client.close()


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """What NATS is asked in here and does not answer is Unavailable."""
    try:
        yield
    except (NatsError, OSError, TimeoutError) as error:
        raise Unavailable(f"NATS does not answer: {_why(error)}") from error


def _why(error: Exception) -> str:
    """What NATS or its client says, in words: the text of an error of JetStream's lists all that it has."""
    return str(getattr(error, "description", None) or error) or type(error).__name__


def _is_noted(consumer: Consumer) -> bool:
    """Whether it must be known how far it has got: a work queue holds only what is yet to be done."""
    return consumer.light and STREAMS[stream_of(consumer.subject)].retention != RetentionPolicy.WORK_QUEUE


def _packed(messages: Sequence[Outgoing]) -> list[list[tuple[Outgoing, orjson.Fragment]]]:
    """The messages as JSON, as many together as one message holds."""
    found: list[list[tuple[Outgoing, orjson.Fragment]]] = []
    room = 0
    for one in messages:
        headers = {**one.headers, "Nats-Msg-Id": one.id}
        text = orjson.dumps({"id": one.id, "subject": one.subject, "body": one.body, "headers": headers})
        if len(text) > room:
            found.append([])
            room = LARGEST_PACK
        room -= len(text)
        found[-1].append((one, orjson.Fragment(text)))
    return found


def _message(received: Msg, epoch: str) -> Message:
    """Raises JSONDecodeError."""
    data, headers = received.metadata, dict(received.headers or {})
    position = Position(epoch, data.sequence.stream)
    id, body = headers.get("Nats-Msg-Id", ""), orjson.loads(received.data)
    stored, behind = data.timestamp.timestamp(), data.num_pending
    return Message(id, received.subject, body, headers, position, stored, behind=behind)


class _KeptAlive:
    """While a handler works, tell the server so: a slow device must not bring its intent to a second worker."""

    def __init__(self, received: Msg, every: float) -> None:
        self._received, self._every = received, every
        self._loop = asyncio.get_running_loop()
        self._telling: asyncio.Task[None] | None = None
        self._works = True

    def __enter__(self) -> None:
        self._timer = self._loop.call_later(self._every, self._begin)

    def __exit__(self, *_: object) -> None:
        self._works = False
        self._timer.cancel()
        if self._telling:
            self._telling.cancel()

    def _begin(self) -> None:
        self._telling = self._loop.create_task(self._tell())

    async def _tell(self) -> None:
        while self._works:
            with contextlib.suppress(NatsError, OSError):
                await self._received.in_progress()
            await asyncio.sleep(self._every)
