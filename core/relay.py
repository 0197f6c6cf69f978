"""From the outbox to the bus: at once for what this process wrote, by sweeping for what a dead process left."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from convergedon.core import metrics
from convergedon.core.bus import Bus, stream_of
from convergedon.core.errors import Unavailable
from convergedon.core.store import Store, Unsent

log = structlog.get_logger()

BATCH = 256


class Relay:
    """Publishes the outboxes of one store. Several may run: the bus drops a message that it has by its id.

    ``sweep_after`` is how long (seconds) a message may wait before any relay takes it, whoever wrote it.
    """

    def __init__(self, store: Store, bus: Bus, sweep_after: float = 2.0) -> None:
        self._store, self._bus, self._sweep_after = store, bus, sweep_after
        self._written: asyncio.Queue[Unsent] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        store.written = self._written.put_nowait

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._sweep())]

    async def stop(self) -> None:
        """Publish what is written already, for two seconds at most; the rest waits in the store."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._written.join(), 2)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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
                for _ in batch:
                    self._written.task_done()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_after / 2)
            try:
                waiting = await self._store.unsent(self._sweep_after)
                if waiting:
                    await self._publish(waiting)
            except Unavailable as error:
                log.info("outbox waits", reason=str(error))
            except Exception:
                log.exception("outbox waits")

    async def _publish(self, batch: list[Unsent]) -> None:
        """Publish records side by side, each one's messages in their order; its last state stands for all."""
        latest = {(unsent.kind, unsent.id): unsent for unsent in batch}
        results = await asyncio.gather(*map(self._publish_one, latest.values()), return_exceptions=True)
        await self._store.sent(u for u, result in zip(latest.values(), results, strict=True) if result is None)
        for result in results:
            if result is not None:
                raise result

    async def _publish_one(self, unsent: Unsent) -> None:
        for message in unsent.messages:
            await self._bus.publish(message.subject, message.body, message.id, message.headers)
            metrics.RELAYED.labels(stream_of(message.subject)).inc()
