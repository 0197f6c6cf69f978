"""From a notification to the channels of its customer: each kept until it is handed over, in order for each customer.
And from what a workflow has left to a person to the channels of operators, by the same way.

begin -> ask the policy -> write -> send -> end, or try again later, or hand over to a person. What is to be sent is a
record; who sends it claims it for a time, so a worker that dies leaves it to another, and the far side may get it once
more under the same id. Whoever makes a letter has claimed it, and sends it at once. Only what is told by the same
channel to the same customer waits for another.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from random import random
from time import monotonic, time
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import structlog

from convergedon.core import metrics, trace
from convergedon.core.bus import Message, partition, token
from convergedon.core.errors import Conflict, ConvergedonError, NotFound, Refused, Stale, Unavailable
from convergedon.core.policy import Decision, system
from convergedon.core.store import Outgoing, Record
from convergedon.core.tasks import end
from convergedon.handlers.customer_notifications import CUSTOMER_NOTIFICATION, DISPATCH
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.handlers.remediation import WORKFLOW_RUN
from convergedon.handlers.resource import narrowed, without
from convergedon.mediation.privacy import private
from convergedon.mediation.telling import escalations, keeping
from convergedon.mediation.telling.channels.contract import Channel, Letter
from convergedon.mediation.telling.rules import Notifications, Recipient
from convergedon.mediation.work import Work

log = structlog.get_logger()

EVERY = 1.0
"""Seconds between two looks at what is due."""
LEASE = 2.0
"""A letter is claimed for its channel's patience times this, so that two workers do not send it at once."""
FIRST, LONGEST = 5.0, 900.0
"""Seconds until what failed is tried again: by chance up to the first, twice that, and so on to the longest."""
NEWER = 600.0
"""Seconds for which a letter waits where the rules do not name its channel: another worker's may be newer."""
MOST = 200
"""Letters beside those under way that are looked at in one go."""
WHAT = {CUSTOMER_NOTIFICATION.name: "notification", WORKFLOW_RUN.name: "escalation of run"}
IN_LINE = 50
"""Letters that wait here for each connection of a channel; what comes beyond steps back, for those of others."""


async def begin(work: Work, notification: Record, customer: str) -> None:
    """Keep a letter for each channel that the customer hears this by. Doing it twice is doing it once.

    Of what was told so long ago that its letters are gone by now, none is made again.
    """
    if work.notifications is None or keeping.is_past(work, _told_at(notification)):
        return
    rules, channels = work.notifications, work.notifications.channels  # these, should others come meanwhile
    for recipient in rules.of(notification.tenant, customer).recipients:
        if recipient.hears(notification.body["notificationType"]):
            patience = channels[recipient.channel].patience
            letter = _letter(notification, customer, recipient.channel, patience)
            with suppress(Conflict):
                rules.fresh.append((await work.store.create(letter), notification))
    rules.waiting.set()


def is_for_nobody(work: Work, message: Message) -> bool:
    """Whether no operator is to be told of what has become of a run."""
    run = message.body["event"]["event"][WORKFLOW_RUN.name]
    rules = work.notifications
    return rules is None or not run.get("escalated") or not rules.operators_of(message.body["tenant"])


async def tell_operators(work: Work, message: Message) -> None:
    """An event of a workflowRun that is left to a person: keep a letter for each channel that operators hear it by.

    Doing it twice is doing it once.
    """
    run = await work.store.get(WORKFLOW_RUN.name, message.body["tenant"], message.body["id"])
    rules = work.notifications
    if rules is None or keeping.is_past(work, _told_at(run)):
        return
    channels = rules.channels
    for recipient in rules.operators_of(run.tenant):
        if recipient.hears(run.body["state"]):
            patience = channels[recipient.channel].patience
            letter = _letter(run, "", recipient.channel, patience, escalations.same(run))
            with suppress(Conflict):
                rules.fresh.append((await work.store.create(letter), run))
    rules.waiting.set()


def _letter(told: Record, customer: str, channel: str, patience: float, which: str = "") -> Record:
    """A letter that is claimed by who makes it. ``which`` tells what is told apart from others, where not its id."""
    facts = {
        "of": told.kind,
        "customer": customer,
        "channel": channel,
        "notification": told.id,
        "lane": _lane(channel, customer),
        "order": _told_at(told),
        "begun": time(),
        "carrier": trace.headers(),
        **_claim(patience),
    }
    id = str(uuid5(NAMESPACE_URL, f"{which or told.id}|{channel}"))
    return Record(DISPATCH.name, id, told.tenant, {"state": "waiting", "tries": 1}, facts)


def _lane(channel: str, customer: str) -> str:
    return f"{channel}|{customer}"


def _claim(patience: float) -> dict[str, Any]:
    return {"due": time() + patience * LEASE, "claimed": True}


def _told_at(told: Record) -> float:
    member = "endedAt" if told.kind == WORKFLOW_RUN.name else "notificationTime"
    return datetime.fromisoformat(told.body[member]).timestamp()


def _kind(letter: Record) -> str:
    """What a letter tells of: a notification of a customer's, or a run that operators hear of."""
    return str(letter.facts.get("of", CUSTOMER_NOTIFICATION.name))


async def hand_over(work: Work, message: Message) -> None:
    """A letter that could not be delivered: it waits for a person, who may have it tried again.

    Raises Refused with the reason, which parks the message.
    """
    about = message.body["about"]
    try:
        letter = await work.store.get(DISPATCH.name, about["tenant"], about["id"])
    except NotFound as error:
        raise Refused(f"{message.body['undelivered']}; that is too long ago for it to be sent again") from error
    if not message.id.startswith("retry:"):
        raise Refused(message.body["undelivered"])
    if letter.body["state"] == "undelivered":
        due = {"due": time(), "begun": time(), "lane": _lane(letter.facts["channel"], letter.facts["customer"])}
        waiting = letter.with_({"state": "waiting", "tries": 0, "reason": ""}, due)
        await work.store.replace(replace(waiting, facts=without(waiting.facts, ("over",))))


class Sending:
    """The sending of letters, as far as this worker takes part in it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._tasks: list[asyncio.Task[None]] = []
        self._under_way: dict[str, tuple[Record, asyncio.Task[None]]] = {}
        self._places: dict[str, asyncio.Semaphore] = {}
        self._line: Counter[str] = Counter()
        self._last: dict[str, asyncio.Task[None]] = {}
        self._looked = 0.0
        self._parting: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        if rules := self._work.notifications:
            self._places = _places(rules)
            self._tasks = [asyncio.create_task(self._run(rules))]

    def go_on_by(self, rules: Notifications, former: Sequence[Channel]) -> None:
        """Other channels are in force: the former are closed when what they have under way is sent."""
        self._places = _places(rules)
        under_way = [task for _, task in self._under_way.values()]
        parting = asyncio.create_task(_close(former, under_way))
        self._parting.add(parting)
        parting.add_done_callback(self._parting.discard)
        rules.waiting.set()

    async def stop(self) -> None:
        """What is under way may be sent again by another, under the same id, and what was not begun, at once."""
        under_way = [*self._under_way.values()]
        await end([*self._tasks, *(task for _, task in under_way)])
        await asyncio.gather(*self._parting)
        if rules := self._work.notifications:
            for letter in [letter for letter, _ in (*under_way, *rules.fresh)]:
                with suppress(Stale, Unavailable):  # it is sent, or was claimed anew: that claim runs out
                    await _put_off(self._work, letter, time())
            await rules.close()

    async def _run(self, rules: Notifications) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(rules.waiting.wait(), EVERY)
            rules.waiting.clear()
            try:
                while rules.fresh:
                    await self._take_up(rules, *rules.fresh.popleft())
                if monotonic() - self._looked >= EVERY:
                    self._looked = monotonic()
                    await self._take_up_due(rules)
            except Unavailable as error:
                log.info("letters wait", reason=str(error))
            except Exception:
                log.exception("letters wait")

    async def _take_up_due(self, rules: Notifications) -> None:
        where, most = {"facts.due": {"$lte": time()}}, MOST + len(self._under_way)
        for letter in await self._work.store.find(DISPATCH.name, where, sort=[("facts.due", 1)], limit=most):
            await self._take_up(rules, letter)

    async def _take_up(self, rules: Notifications, letter: Record, notification: Record | None = None) -> None:
        """Begin to send a letter: when those before it that go the same way are sent or put off."""
        channel, lane = letter.facts["channel"], letter.facts["lane"]
        if letter.id in self._under_way:
            return
        if channel in rules.channels and self._line[channel] >= IN_LINE * rules.channels[channel].connections:
            await self._step_back(letter)
            return
        task = asyncio.create_task(self._send(rules, letter, notification, self._last.get(lane)))
        self._under_way[letter.id], self._last[lane] = (letter, task), task
        self._line[channel] += 1
        task.add_done_callback(partial(self._ended, letter))

    async def _step_back(self, letter: Record) -> None:
        """More than a channel can take wait for it: each time twice as long, so that they are not in others' way."""
        stepped = letter.facts.get("stepped", 0) + 1
        pause = random() * min(FIRST * 2 ** min(stepped, 20), LONGEST)
        with suppress(Stale):
            await self._work.store.replace(
                letter.with_(facts={"stepped": stepped, "due": time() + pause, "claimed": False})
            )

    def _ended(self, letter: Record, task: asyncio.Task[None]) -> None:
        self._under_way.pop(letter.id, None)
        self._line[letter.facts["channel"]] -= 1
        if self._last.get(letter.facts["lane"]) is task:
            del self._last[letter.facts["lane"]]

    async def _send(
        self, rules: Notifications, letter: Record, notification: Record | None, before: asyncio.Task[None] | None
    ) -> None:
        if before:
            await asyncio.wait([before])
        try:
            with trace.span("notification.send", letter.facts["carrier"]):
                async with self._places.get(letter.facts["channel"], asyncio.Semaphore()):
                    await send(self._work, rules, letter, notification)
        except (Stale, Unavailable) as error:  # somebody else has it, or the store is away: it is still there
            log.info("letter comes back", id=letter.id, reason=str(error))
        except Exception:
            log.exception("letter comes back", id=letter.id)


def _places(rules: Notifications) -> dict[str, asyncio.Semaphore]:
    return {name: asyncio.Semaphore(channel.connections) for name, channel in rules.channels.items()}


async def _close(channels: Sequence[Channel], under_way: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*under_way, return_exceptions=True)
    for channel in channels:
        await channel.close()


async def send(work: Work, rules: Notifications, letter: Record, notification: Record | None = None) -> None:
    """Send one letter that is due, or that this process has made: then its notification is known.

    Raises Stale when somebody else does, Unavailable when it cannot be kept.
    """
    facts = letter.facts
    channel = rules.channels.get(facts["channel"])
    if channel is None or (recipient := _recipient(rules, letter)) is None:
        if time() - facts["begun"] < NEWER:
            await _put_off(work, letter, time() + FIRST)
            return
        await _finish(work, letter, "withdrawn", "the rules name no such channel for whom it is for any more")
        return
    if (before := await _before(work, letter)) is not None:
        await _put_off(work, letter, max(before, time() + EVERY))
        return
    if notification is None or facts["due"] - time() < channel.patience:
        claimed = letter.with_({"tries": letter.body["tries"] + 1}, _claim(channel.patience))
        letter = await work.store.replace(claimed)
    try:
        decision = await _deliver(work, rules, channel, recipient, letter, notification)
    except (Unavailable, TimeoutError) as error:
        await _again(work, letter, error)
    except (Refused, NotFound) as error:
        await _give_up(work, letter, str(error))
    except ConvergedonError:
        raise
    except Exception as error:  # whatever a channel of somebody else's does; its words may name an address
        log.warning("channel failed", channel=facts["channel"], error=type(error).__name__)
        await _again(work, letter, Unavailable(f"the channel failed: {type(error).__name__}"))
    else:
        if decision.allow:
            await _finish(work, letter, "sent", "", decision)
        else:
            await _finish(work, letter, "withheld", "; ".join(decision.reasons), decision)


async def _put_off(work: Work, letter: Record, until: float) -> None:
    await work.store.replace(letter.with_(facts={"due": until, "claimed": False}))


def _recipient(rules: Notifications, letter: Record) -> Recipient | None:
    of_operators = _kind(letter) == WORKFLOW_RUN.name
    listed = rules.operators_of(letter.tenant) if of_operators else _recipients(rules, letter)
    return next((one for one in listed if one.channel == letter.facts["channel"]), None)


def _recipients(rules: Notifications, letter: Record) -> Sequence[Recipient]:
    return rules.of(letter.tenant, letter.facts["customer"]).recipients


async def _before(work: Work, letter: Record) -> float | None:
    """When an earlier letter to the same customer by the same channel is tried, if there is one; one that is claimed is
    being sent now.
    """
    where = {
        "tenant": letter.tenant,
        "facts.lane": letter.facts["lane"],
        "facts.order": {"$lte": letter.facts["order"]},
    }
    mine = (letter.facts["order"], letter.id)
    earlier = [
        0.0 if one.facts.get("claimed") else one.facts["due"]
        for one in await work.store.find(DISPATCH.name, where)
        if (one.facts["order"], one.id) < mine and "due" in one.facts
    ]
    return min(earlier) if earlier else None


async def _deliver(
    work: Work,
    rules: Notifications,
    channel: Channel,
    recipient: Recipient,
    letter: Record,
    notification: Record | None,
) -> Decision:
    """Hand it over, if the policy lets it go by this channel, with what of it may. Raises Unavailable or Refused."""
    facts = letter.facts
    notification = notification or await work.store.get(_kind(letter), letter.tenant, facts["notification"])
    body, customers = work.resources.present(notification), [facts["customer"]]
    if notification.kind == WORKFLOW_RUN.name:
        body, customers = escalations.told(notification, body), []
    resource = {
        "kind": notification.kind,
        "tenant": letter.tenant,
        "id": notification.id,
        "parties": customers,
        "type": body["notificationType"],
        "via": facts["channel"],
        "viaKind": rules.kinds[facts["channel"]],
    }
    decision = await work.policy.decide(system(letter.tenant), "send", resource, body, channel="notification")
    if decision.allow:
        views = CUSTOMER_NOTIFICATION.views(notification.facts) if customers else {}
        told = narrowed(private(body, decision.obligations), views, customers)
        to = await _contact(work, notification) if recipient.contact else recipient.to
        written = rules.wording.write(letter.tenant, told, rules.of(letter.tenant, facts["customer"]).zone)
        sent = datetime.fromisoformat(body["notificationTime"])
        envelope = Letter(letter.id, to, *written, sent, told, trace.headers())
        async with asyncio.timeout(channel.patience):
            await channel.send(envelope)
    return decision


async def _contact(work: Work, notification: Record) -> str:
    """Who is to be told, as the orders say by which its services were bought. Raises Refused where none says it."""
    for reference in notification.body.get("productOrder") or []:
        with suppress(NotFound):
            order = await work.store.get(PRODUCT_ORDER.name, notification.tenant, reference["id"])
            if contact := str(order.body.get("notificationContact") or "").strip():
                return contact
    raise Refused("no order of it has a notificationContact to tell")


async def _again(work: Work, letter: Record, error: BaseException) -> None:
    """Try it again later, or give it up when that has gone on for too long."""
    reason = str(error) or type(error).__name__
    if time() - letter.facts["begun"] > work.settings.delivery_horizon:
        await _give_up(work, letter, f"gave up after {work.settings.delivery_horizon:g} s: {reason}")
        return
    wished = error.after if isinstance(error, Unavailable) else None
    pause = min(FIRST * 2 ** min(letter.body["tries"] - 1, 20), LONGEST)
    wait = wished if wished is not None else random() * pause
    metrics.LETTERS.labels(letter.facts["channel"], "later").inc()
    await work.store.replace(letter.with_({"reason": reason}, {"due": time() + wait, "claimed": False}))


async def _give_up(work: Work, letter: Record, reason: str) -> None:
    """It will never succeed as it stands: a person is told, by a message that is parked with the reason."""
    channel = letter.facts["channel"]
    words = f"{WHAT[_kind(letter)]} {letter.facts['notification']} cannot be sent by {channel}: {reason}"
    body = {"undelivered": words, "about": {"kind": DISPATCH.name, "tenant": letter.tenant, "id": letter.id}}
    subject = f"task.{partition(letter.id)}.{token(letter.tenant)}"
    told = Outgoing(f"undelivered:{letter.id}:{letter.revision}", subject, body, trace.headers())
    await _finish(work, letter, "undelivered", reason, also=told)


async def _finish(
    work: Work, letter: Record, state: str, reason: str, decision: Decision | None = None, also: Outgoing | None = None
) -> None:
    kept = {**without(letter.facts, ("due", "lane", "claimed")), "over": time()}
    ended = Record(
        letter.kind, letter.id, letter.tenant, {**letter.body, "state": state, "reason": reason}, kept, letter.revision
    )
    await work.store.replace(ended, [also] if also else [])
    channel, on = letter.facts["channel"], f"{_kind(letter)}/{letter.facts['notification']}"
    metrics.LETTERS.labels(channel, state).inc()
    outcome = {"sent": "done", "undelivered": "failed"}.get(state, "refused")
    detail: dict[str, Any] = {"channel": channel, "tries": letter.body["tries"]}
    detail |= {"reason": reason} if reason else {"seconds": round(time() - letter.facts["begun"], 3)}
    work.audit.record("notification.sent", letter.tenant, "convergedon", on, outcome, decision, **detail)
