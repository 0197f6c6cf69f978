"""From the outbox to the bus: at once for what this process wrote, by sweeping for what a dead process left."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from time import monotonic

import structlog

from convergedon.core import metrics
from convergedon.core.bus import Bus, lane, stream_of
from convergedon.core.errors import Unavailable
from convergedon.core.store import Outgoing, Store, Unsent
from convergedon.core.tasks import end

log = structlog.get_logger()

BATCH = 256
REMEMBERED = 20_000
MARK_EVERY = 0.2
MARK_AFTER = 3.0
"""Seconds for which what is published stays in its outbox: a record that changes meanwhile takes it out by itself.

Less than what a sweep waits for, so that no other process takes it for left behind.
"""
MARKS_PASSED = 4
"""Of these turns all but one may be passed over while there is much to publish: what changes again needs no mark."""
PASSED = 10
"""Sweeps that may be passed over."""

Key = tuple[str, str]


class Relay:
    """Publishes the outboxes of one store. Several may run: the bus drops a message that it has by its id.

    ``sweep_after`` is how long (seconds) a message may wait before any relay takes it, whoever wrote it.
    """

    def __init__(self, store: Store, bus: Bus, sweep_after: float = 4.0) -> None:
        self._store, self._bus, self._sweep_after = store, bus, sweep_after
        self._written: asyncio.Queue[Unsent] = asyncio.Queue()
        self._queued: Counter[Key] = Counter()
        self._published: OrderedDict[str, None] = OrderedDict()
        self._mark_after = min(MARK_AFTER, sweep_after * 3 / 4)
        self._done: dict[Key, tuple[float, Unsent]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._relayed = cache(metrics.RELAYED.labels)
        store.written, store.published = self._take, self.published

    def _take(self, unsent: Unsent) -> None:
        self._queued[_key(unsent)] += 1
        self._written.put_nowait(unsent)

    def published(self, id: str) -> bool:
        """Whether this relay has published the message lately: it may still stand in its outbox."""
        return id in self._published

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(work) for work in (self._follow(), self._sweep(), self._mark())]

    async def stop(self) -> None:
        """Publish what is written already, for two seconds at most; the rest waits in the store."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._written.join(), 2)
        await end(self._tasks)
        self._mark_after = 0
        with contextlib.suppress(Unavailable):
            await self._mark_done()

    async def _follow(self) -> None:
        while True:
            batch = [await self._written.get()]
            while len(batch) < BATCH and not self._written.empty():
                batch.append(self._written.get_nowait())
            try:
                await self._publish(batch)
            except Unavailable as error:
                log.info("outbox waits", reason=str(error))
            except Exception:
                log.exception("outbox waits")
            finally:
                for unsent in batch:
                    self._queued[_key(unsent)] -= 1
                    self._written.task_done()
                self._queued = +self._queued

    async def _sweep(self) -> None:
        """What a dead process left, or what could not be published; not what still stands in our own queue.

        While there is much of our own, what waits is that, and it is read more rarely.
        """
        passed = 0
        while True:
            await asyncio.sleep(self._sweep_after / 2)
            passed += 1
            if len(self._queued) + len(self._done) > BATCH and passed < PASSED:
                continue
            passed = 0
            try:
                waiting = await self._store.unsent(self._sweep_after)
                mine = self._queued.keys() | self._done.keys()
                await self._publish([unsent for unsent in waiting if _key(unsent) not in mine])
            except Unavailable as error:
                log.info("outbox waits", reason=str(error))
            except Exception:
                log.exception("outbox waits")

    async def _publish(self, batch: list[Unsent]) -> None:
        """Publish records side by side, each one's messages in their order; its last state stands for all."""
        latest = {_key(unsent): unsent for unsent in batch}
        ahead = {key: [one for one in unsent.messages if not self.published(one.id)] for key, unsent in latest.items()}
        failed: dict[Key, BaseException] = {}
        while turn := {key: left.pop(0) for key, left in ahead.items() if left and key not in failed}:
            failed |= await self._publish_each(turn)
        self._done |= {key: (monotonic(), unsent) for key, unsent in latest.items() if key not in failed}
        while len(self._published) > REMEMBERED:
            self._published.popitem(last=False)
        for error in failed.values():
            raise error

    async def _publish_each(self, turn: Mapping[Key, Outgoing]) -> dict[Key, BaseException]:
        """Publish one message of each of these records, those of one lane at once; which failed, and why."""
        lanes: dict[str, list[Key]] = {}
        for key, message in turn.items():
            lanes.setdefault(lane(message.subject) or message.id, []).append(key)
        publishing = [self._publish_all([turn[key] for key in keys]) for keys in lanes.values()]
        outcomes = await asyncio.gather(*publishing, return_exceptions=True)
        return {
            key: outcome
            for keys, outcome in zip(lanes.values(), outcomes, strict=True)
            for key in keys
            if outcome is not None
        }

    async def _publish_all(self, messages: Sequence[Outgoing]) -> None:
        await self._bus.publish_all(messages)
        for message in messages:
            self._relayed(stream_of(message.subject)).inc()
            self._published[message.id] = None

    async def _mark(self) -> None:
        passed = 0
        while True:
            await asyncio.sleep(MARK_EVERY)
            passed += 1
            if len(self._queued) > BATCH and passed < MARKS_PASSED:
                continue
            passed = 0
            try:
                await self._mark_done()
            except Unavailable as error:
                log.info("outbox is marked later", reason=str(error))
            except Exception:
                log.exception("outbox is marked later")

    async def _mark_done(self) -> None:
        """A batch at a time: the embedded store takes milliseconds for each record, a call has twenty seconds."""
        for _ in range(-(-len(self._done) // BATCH)):
            taken = dict(islice(self._settled(), BATCH))
            if not taken:
                return
            for key in taken:
                del self._done[key]
            try:
                await self._store.sent([unsent for _, unsent in taken.values()])
            except BaseException:
                self._done = {**taken, **self._done}
                raise

    def _settled(self) -> Iterator[tuple[Key, tuple[float, Unsent]]]:
        """What is to be marked by now. A record that is gone keeps its id from others until then."""
        until = monotonic() - self._mark_after
        for key, (at, unsent) in self._done.items():
            if key not in self._queued and (unsent.gone or at <= until):
                yield key, (at, unsent)


def _key(unsent: Unsent) -> Key:
    return unsent.kind, unsent.id
