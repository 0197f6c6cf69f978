"""Events to their listeners: fanned out to a queue for each hub, posted in order, tried again until the horizon.

A listener that is slow or away holds up nobody but itself: its queue is a durable consumer of its own. What is posted
again carries the same eventId.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from time import time
from typing import Any

import httpx
import structlog

from convergedon.core import metrics, trace
from convergedon.core.bus import Consumer, Message
from convergedon.core.errors import Invalid, NotFound, Unavailable
from convergedon.core.policy import Decision
from convergedon.core.store import Record
from convergedon.handlers import hub
from convergedon.handlers.query import event_matches
from convergedon.handlers.resource import HUB, narrowed
from convergedon.mediation.work import Work

log = structlog.get_logger()

PATIENCE = httpx.Timeout(10, connect=3)


class Delivery:
    """The queues of all listeners, as far as this worker takes part in emptying them."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._client = httpx.AsyncClient(timeout=PATIENCE, follow_redirects=False, trust_env=False)
        self._queues: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def attend(self) -> None:
        """Take part in the queues of all listeners there are; end those of listeners that have gone since."""
        known = set(self._queues)
        there = {record.id for record in await self._work.store.find(HUB.name, {})}
        for id in there:
            self._attend(id)
        for id in known - there:
            self._forget(id)

    async def stop(self) -> None:
        for task in self._queues.values():
            task.cancel()
        await asyncio.gather(*self._queues.values(), *self._ending, return_exceptions=True)
        await self._client.aclose()

    def _attend(self, id: str) -> None:
        if id not in self._queues:
            horizon = self._work.settings.delivery_horizon
            consumer = Consumer(f"hub-{id}", f"delivery.{id}", partial(self._deliver, id), horizon, pause=60.0)
            self._queues[id] = self._work.bus.consume(consumer)

    async def fan_out(self, work: Work, message: Message) -> None:
        """Any event: queue it for each listener of its tenant and API who asked for it and may hear it."""
        about = message.body
        for record in await work.store.find(HUB.name, {"tenant": about["tenant"], "facts.api": about["base"]}):
            if not event_matches(record.body["query"], about["event"]):
                continue
            decision = await self._decide(record, about)
            if decision.allow:
                self._attend(record.id)
                event = _narrowed(about, decision)
                await work.bus.publish(
                    f"delivery.{record.id}",
                    {"event": event, "tenant": about["tenant"]},
                    f"{event['eventId']}:{record.id}",
                )

    async def _decide(self, record: Record, about: Mapping[str, Any]) -> Decision:
        resource = {
            "kind": "event",
            "tenant": about["tenant"],
            "parties": about["parties"],
            "of": about["kind"],
            "type": about["event"]["eventType"],
        }
        return await self._work.policy.decide(hub.owner(record), "receive", resource, channel="delivery")

    async def _deliver(self, id: str, message: Message) -> None:
        """Post one event. Raises Unavailable, so that it comes back, unless the listener took it or is gone."""
        try:
            record = await self._work.store.get(HUB.name, message.body["tenant"], id)
        except NotFound:
            self._forget(id)
            return
        event = message.body["event"]
        status = await self._post(record, event)
        metrics.DELIVERIES.labels(str(status // 100) + "xx").inc()
        if status == 410:
            await self._work.store.delete(record)
            self._forget(id)
        elif not 200 <= status < 300:
            raise Unavailable(f"listener {id} answered {status}")
        else:
            self._record(record, event)

    async def _post(self, record: Record, event: Mapping[str, Any]) -> int:
        callback = record.body["callback"]
        try:
            await hub.check_callback(callback, self._work.settings.callback_networks)
            answer = await self._client.post(callback, json=event, headers=trace.headers())
        except (httpx.HTTPError, httpx.InvalidURL, Invalid) as error:
            metrics.DELIVERIES.labels("error").inc()
            raise Unavailable(f"listener {record.id} cannot be reached: {error or type(error).__name__}") from error
        return answer.status_code

    def _forget(self, id: str) -> None:
        """The hub is gone: end its queue, from outside the consumer that noticed."""

        async def end(task: asyncio.Task[None] | None) -> None:
            if task:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            try:
                await self._work.bus.forget("DELIVERY", f"hub-{id}")
            except Unavailable as error:
                log.info("queue of a gone listener stays", hub=id, reason=str(error))

        ending = asyncio.create_task(end(self._queues.pop(id, None)))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def _record(self, record: Record, event: Mapping[str, Any]) -> None:
        detail: dict[str, Any] = {"eventId": event["eventId"], "eventType": event["eventType"]}
        told = event["event"].get("customerNotification")
        if told and told.get("notificationType") == "serviceAffected":
            detail["seconds"] = round(time() - datetime.fromisoformat(told["affectedSince"]).timestamp(), 3)
        self._work.audit.record(
            "event.delivered", record.tenant, record.facts["owner"]["id"], f"hub/{record.id}", "done", **detail
        )


def _narrowed(about: Mapping[str, Any], decision: Decision) -> Mapping[str, Any]:
    """The event as its listener may see it."""
    event, parties = about["event"], decision.filter.get("parties")
    if parties is None:
        return event  # type: ignore[no-any-return]
    seen = {name: narrowed(body, about.get("views", {}), parties) for name, body in event["event"].items()}
    return {**event, "event": seen}
