"""The worker: takes what happened from the bus, partition by partition, and runs the steps that FLOWS names for it."""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from convergedon.core import metrics
from convergedon.core.bus import PARTITIONS, Consumer, Message
from convergedon.core.errors import Unavailable
from convergedon.mediation import cancellation, inventory, ordering
from convergedon.mediation.delivery import Delivery
from convergedon.mediation.flows import FLOWS, name_of
from convergedon.mediation.work import Work

log = structlog.get_logger()

EVERY = 15.0
"""Seconds between two looks at what is overdue."""


class Worker:
    """Any number of these may run: of one partition one message is under way at a time, whoever takes it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._delivery = Delivery(work, self._parked)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await inventory.adopt(self._work.resources)
        await self._delivery.attend()
        horizon = self._work.settings.retry_horizon
        for number in range(PARTITIONS):
            for name, subject, handler in (
                (f"flow-events-{number}", f"event.{number}.>", self._flow),
                (f"flow-network-{number}", f"network.{number}.>", self._flow),
                (f"flow-tasks-{number}", f"task.{number}.>", self._flow),
                (f"fan-out-{number}", f"event.{number}.>", partial(self._delivery.fan_out, self._work)),
            ):
                self._work.bus.consume(Consumer(name, subject, handler, horizon, parked=self._parked))

        self._tasks = [asyncio.create_task(self._look_after())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._delivery.stop()

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.look_after()
            except Unavailable as error:
                log.info("overdue orders wait", reason=str(error))
            except Exception:
                log.exception("overdue orders wait")

    async def look_after(self) -> None:
        """What no message tells of: time that has run out, and listeners that have gone."""
        await ordering.end_overdue(self._work)
        await cancellation.take_up_due(self._work)
        await self._delivery.attend()

    async def _flow(self, message: Message) -> None:
        for step in FLOWS.get(name_of(message), ()):
            with metrics.STEP_SECONDS.labels(step.__name__).time():
                await step(self._work, message)

    def _parked(self, message: Message, reason: str) -> None:
        """A parked message waits for a person: it counts as a hand-off."""
        body = message.body
        parts = (body, body.get("about", {}), body.get("observation", {}))
        tenant = next((part["tenant"] for part in parts if "tenant" in part), "")
        self._work.audit.record("message.parked", tenant, "convergedon", message.subject, "failed", reason=reason)
