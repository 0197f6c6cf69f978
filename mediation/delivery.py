"""Events to their listeners: fanned out to a queue for each hub, posted in order, tried again until the horizon.

A listener that is slow or away holds up nobody but itself: its queue is a durable consumer of its own, its connection
too. What is posted again carries the same eventId.

The policy is asked for each listener's owner when an event is fanned out, and again when it is posted late: a role that
was withdrawn meanwhile stops what is queued. What it obliges to is done to the event before its listener's query is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from datetime import datetime
from functools import partial
from time import time
from typing import Any, NamedTuple

import orjson
import structlog

from convergedon.core import metrics, trace
from convergedon.core.bus import Bus, Consumer, Message
from convergedon.core.errors import Refused, Unavailable
from convergedon.core.policy import Decision, Policy, Subject, recalled
from convergedon.core.store import Record
from convergedon.core.tasks import end
from convergedon.handlers import hub, signing, telling
from convergedon.handlers.query import event_fields, event_matches, select
from convergedon.handlers.resource import HUB, narrowed, without
from convergedon.handlers.versions import BEYOND
from convergedon.mediation.posting import Answer, Poster
from convergedon.mediation.privacy import masked, private
from convergedon.mediation.work import Work

log = structlog.get_logger()

Event = Mapping[str, Any]
Decide = Callable[[Subject], Awaitable[Decision]]

PAUSE = 60.0
"""The longest pause between two tries, in seconds, where the listener did not ask for another."""
WISHES = (1.0, 900.0)
"""What a listener may ask for by Retry-After, in seconds."""
DOUBTFUL = 64
"""How many listeners that failed last time are posted to at once; of those that answer, all are."""
LATE = 60.0
"""Seconds for which a decision to tell something holds; a post that failed ends that sooner."""
NAMED = 20
"""Decisions by which an event was withheld that its audit record names; all are counted."""


class Delivery:
    """The queues of all listeners, as far as this worker takes part in emptying them.

    ``parked`` is told of each event that is given up.
    """

    def __init__(self, work: Work, parked: Callable[[Message, str], None] = lambda *_: None) -> None:
        self._work, self._parked = work, parked
        self._listeners = hub.Listeners(work.store)
        self._signer = signing.signer(work.settings)
        self._poster = Poster(work.settings.callback_networks)
        self._failing: set[str] = set()
        self._places = asyncio.Semaphore(DOUBTFUL)
        self._queues: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def attend(self) -> None:
        """Take part in the queues of all listeners there are; end those of listeners that have gone since."""
        waiting = await self._work.bus.waiting("DELIVERY")
        known = {*self._queues, *(subject.partition(".")[2] for subject in waiting)}
        there = {record.id: record for record in await self._work.store.find(HUB.name, {})}
        for record in there.values():
            self._attend(record)
        for id in known - there.keys():
            self._forget(id)
        metrics.WAITING.set(sum(waiting.values()))
        await self._poster.tidy()

    async def stop(self) -> None:
        await end(self._queues.values())
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._poster.close()

    def _attend(self, record: Record) -> None:
        id = record.id
        if id in self._queues and not self._queues[id].done():
            return
        if not self._signer.knows(record.facts.get("mark", self._signer.mark)):
            log.warning("the listener cannot check our signatures: its secret follows from another key", hub=id)
        horizon, deliver, parked = self._work.settings.delivery_horizon, partial(self._deliver, id), self._parked
        consumer = Consumer(f"hub-{id}", f"delivery.{id}", deliver, horizon, pause=PAUSE, parked=parked, light=True)
        self._queues[id] = self._work.bus.consume(consumer)

    async def fan_out(self, work: Work, message: Message) -> None:
        """Any event: queue it for each listener of its tenant and API who asked for it and may hear it."""
        about, queued, withheld = message.body, [], []
        decide = judge(work.policy, about)
        for base in telling.bases(about):
            for record in (await self._listeners.of(about["tenant"], base)).values():
                told = await heard(record, about, decide)
                if isinstance(told, Heard):
                    self._attend(record)
                    queued.append(queue(work.bus, record, told))
                elif told:
                    withheld.append(told)
        self._record_withheld(about, withheld)
        # side by side, and all of them to their end: this event comes before the next in each queue
        for result in await asyncio.gather(*queued, return_exceptions=True):
            if result is not None:
                raise result

    async def _deliver(self, id: str, message: Message) -> None:
        """Post one event. Raises Unavailable, so that it comes back, unless the listener took it or is gone."""
        about = message.body
        async with self._place(id):
            record = (await self._listeners.of(about["tenant"], about["base"])).get(id)
            if record is None:
                self._forget(id)
                return
            event, decision = about["event"], _decided(about)
            if decision and (id in self._failing or time() - message.stored > LATE):
                event, decision = await self._ask_again(record, about, decision)
                if not decision.allow:
                    self._record(record, event, decision)
                    return
            answer = await self._post(record, event)
        if answer.status == 410:
            await self._end(record)
        elif not 200 <= answer.status < 300:
            raise Unavailable(f"listener {id} {words(answer)}", wish(answer))
        else:
            self._failing.discard(id)
            metrics.DELIVERY_SECONDS.observe(max(0.0, time() - message.stored))
            self._record(record, event, decision)

    async def _ask_again(self, record: Record, about: Event, before: Decision) -> tuple[Event, Decision]:
        """Whether the listener may still hear the event, and what of it.

        An event that was shaped for one who might see more is not told at all.
        """
        decision = await ask(self._work.policy, hub.owner(record), about["about"])
        if decision.allow and decision.filter != before.filter:
            decision = replace(decision, allow=False, reasons=("what may be seen has changed since it was queued",))
        return _without_private(about["event"], decision), decision

    def _place(self, id: str) -> AbstractAsyncContextManager[None]:
        """Those that hang may take all the time they are given, but not all our sockets and look-ups."""
        return self._places if id in self._failing else nullcontext()

    async def _post(self, record: Record, event: Event) -> Answer:
        self._failing.add(record.id)
        try:
            answer = await send(self._poster, self._signer, record, event)
        except Unavailable as error:
            metrics.DELIVERIES.labels("error").inc()
            raise Unavailable(f"listener {record.id} {error}") from error
        metrics.DELIVERIES.labels(f"{answer.status // 100}xx").inc()
        return answer

    async def _end(self, record: Record) -> None:
        """The listener said that it is gone: its registration ends."""
        await self._work.store.delete(record)
        self._listeners.changed(record.tenant)
        self._forget(record.id)
        who = record.facts["owner"]["id"]
        self._work.audit.record("hub.ended", record.tenant, who, f"hub/{record.id}", "done", reason="it answered 410")

    def _forget(self, id: str) -> None:
        """The hub is gone: end its queue, from outside the consumer that noticed."""

        async def clear(task: asyncio.Task[None] | None) -> None:
            await end([task] if task else [])
            try:
                await self._work.bus.forget("DELIVERY", f"hub-{id}", f"delivery.{id}")
            except Unavailable as error:
                log.info("queue of a gone listener stays", hub=id, reason=str(error))

        self._failing.discard(id)
        ending = asyncio.create_task(clear(self._queues.pop(id, None)))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def _record_withheld(self, about: Event, withheld: Iterable[Decision]) -> None:
        """One record of all who may not hear an event, however many they are."""
        decisions = {decision.id: decision for decision in withheld}
        if not decisions:
            return
        reasons = sorted({reason for decision in decisions.values() for reason in decision.reasons})
        ids = [*decisions]
        detail = {"eventId": about["event"]["eventId"], "eventType": about["event"]["eventType"]}
        detail |= {"owners": len(ids), "decisions": ids[:NAMED], "reasons": reasons[:NAMED]}
        on = f"{about['kind']}/{about['id']}"
        first = decisions[ids[0]]
        self._work.audit.record("event.withheld", about["tenant"], "convergedon", on, "refused", first, **detail)

    def _record(self, record: Record, event: Event, decision: Decision | None) -> None:
        detail: dict[str, Any] = {"eventId": event["eventId"], "eventType": event["eventType"]}
        what, outcome = "event.delivered", "done"
        if decision and not decision.allow:
            what, outcome = "event.withheld", "refused"
            detail |= {"owners": 1, "decisions": [decision.id], "reasons": list(decision.reasons)}
        told = event["event"].get("customerNotification")
        if told and told.get("notificationType") == "serviceAffected" and "affectedSince" in told:
            detail["seconds"] = round(time() - datetime.fromisoformat(told["affectedSince"]).timestamp(), 3)
        who = record.facts["owner"]["id"]
        self._work.audit.record(what, record.tenant, who, f"hub/{record.id}", outcome, decision, **detail)


def concerned(about: Mapping[str, Any]) -> dict[str, Any]:
    """What the policy is told of an event."""
    return {
        "kind": "event",
        "tenant": about["tenant"],
        "parties": about["parties"],
        "of": about["kind"],
        "record": about["id"],
        "type": about["event"]["eventType"],
    }


async def ask(policy: Policy, who: Subject, event: Mapping[str, Any]) -> Decision:
    return await policy.decide(who, "receive", event, channel="delivery")


def judge(policy: Policy, about: Mapping[str, Any]) -> Decide:
    """Asks whether somebody may hear of this event; of the same one only once."""
    made: dict[Subject, Decision] = {}
    resource = concerned(about)

    async def decide(who: Subject) -> Decision:
        if who not in made:
            made[who] = await ask(policy, who, resource)
            await asyncio.sleep(0)  # a thousand owners are a tenth of a second: others have their turn between
        return made[who]

    return decide


class Heard(NamedTuple):
    """What a listener is told, by which decision, and what the policy was told of it."""

    event: Event
    decision: Decision
    about: Mapping[str, Any]


async def heard(record: Record, about: Mapping[str, Any], decide: Decide) -> Heard | Decision | None:
    """The event as a listener hears it, the decision that it may not, or nothing: it did not ask for it."""
    views, base = about.get("views") or {}, record.facts["api"]
    event = telling.told(about, base)
    if event is None:
        return None
    # where parties see different things, only what this one sees may decide: a filter would tell the rest
    if not views and not _asked(record, event):
        return None
    decision = await decide(hub.owner(record))
    if not decision.allow:
        return decision
    if views:
        event = telling.told(_narrowed(about, views, decision), base)
    if event is None:
        return None
    event = _without_private(event, decision)
    # nor may a query find out what is taken away
    if (views or decision.obligations) and not _asked(record, event):
        return None
    return Heard(_selected(event, record.body["query"]), decision, concerned(about))


def _without_private(event: Event, decision: Decision) -> Event:
    """The event as the decision obliges to tell it."""
    if not decision.obligations:
        return event
    own = decision.filter.get("parties", ())
    bodies = {name: private(body, decision.obligations, own) for name, body in event["event"].items()}
    kinds = decision.obligations.get("mask", ())
    words = {name: masked(event[name], kinds) for name in ("description", "title") if name in event}
    return {**event, **words, "event": bodies}


def _decided(queued: Mapping[str, Any]) -> Decision | None:
    """The decision by which an event was queued; an earlier build kept none."""
    if "decision" not in queued:
        return None
    return replace(recalled(queued["decision"], True), filter=queued["decision"]["filter"])


def _asked(record: Record, event: Event) -> bool:
    try:
        return event_matches(record.body["query"], event)
    except Refused as error:  # taken by another version of the gateway
        log.warning("the listener's query is not understood", hub=record.id, reason=str(error))
        return False


def _narrowed(about: Mapping[str, Any], views: Mapping[str, Any], decision: Decision) -> Mapping[str, Any]:
    """What is told as its listener may see it, in the form in which it is kept."""
    parties = decision.filter.get("parties")
    if parties is None:
        return about
    event, kind = about["event"], about["kind"]
    seen = {**event, "event": {kind: narrowed(event["event"][kind], views, parties)}}
    viewed = {name for view in views.values() for name in view}
    return {**about, "event": seen, BEYOND: without(about.get(BEYOND) or {}, viewed)}


def _selected(event: Event, query: str) -> Event:
    """The event with the members of its resource that the query's ``fields`` names."""
    wanted = event_fields(query)
    if wanted is None:
        return event
    if "@type" in event:  # version 5 never leaves it out
        wanted = {**wanted, "@type": {}}
    return {**event, "event": {name: select(body, wanted) for name, body in event["event"].items()}}


async def queue(
    bus: Bus, record: Record, heard: Heard, run: str = "", headers: Mapping[str, str] | None = None
) -> None:
    """Put an event into a listener's queue; ``run`` tells one time from another."""
    decision = {"id": heard.decision.id, "filter": heard.decision.filter, **heard.decision.told}
    body = {"event": heard.event, "tenant": record.tenant, "base": record.facts["api"]}
    body |= {"about": heard.about, "decision": decision}
    await bus.publish(f"delivery.{record.id}", body, f"{run}{heard.event['eventId']}:{record.id}", headers)


async def send(poster: Poster, signer: signing.Signer, record: Record, event: Event) -> Answer:
    """Post an event, signed, to a listener. Raises Unavailable when there is no answer."""
    body = orjson.dumps(event)
    headers = {**trace.headers(), **signer.headers(record.id, event["eventId"], body)}
    return await poster.post(record.id, record.body["callback"], body, headers)


def words(answer: Answer) -> str:
    return f"answered {answer.status}" + (": redirects are not followed" if answer.status // 100 == 3 else "")


def wish(answer: Answer) -> float | None:
    """When a listener that has too much to do wants to be asked again, within bounds."""
    if answer.status not in (429, 503) or answer.after is None:
        return None
    least, most = WISHES
    return min(max(answer.after, least), most)
