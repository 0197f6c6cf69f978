"""From a notification to the channels of its customer: each kept until it is handed over, in order for each customer.

begin -> (due) -> claim -> ask the policy -> write -> send -> end, or try again later, or hand over to a person. What is
to be sent is a record; who sends it claims it for a time, so a worker that dies leaves it to another, and the far side
may get it once more under the same id. Only what is told by the same channel to the same customer waits for another.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import datetime
from functools import partial
from random import random
from time import time
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
from convergedon.handlers.resource import narrowed
from convergedon.mediation.privacy import private
from convergedon.mediation.telling.channels.contract import Channel, Letter
from convergedon.mediation.telling.rules import Notifications, Recipient
from convergedon.mediation.work import Work

log = structlog.get_logger()

AT_ONCE, EVERY = 0.02, 1.0
"""Seconds between two looks at what is due: when something was just made, and when nothing was."""
LEASE = 2.0
"""A letter is claimed for its channel's patience times this, so that two workers do not send it at once."""
FIRST, LONGEST = 5.0, 900.0
"""Seconds until what failed is tried again: by chance up to the first, twice that, and so on to the longest."""
MOST = 200
"""Letters beside those under way that are looked at in one go."""
IN_LINE = 50
"""Letters that wait here for each connection of a channel; what comes beyond steps back, for those of others."""


async def begin(work: Work, notification: Record, customer: str) -> None:
    """Keep a letter for each channel that the customer hears this by. Doing it twice is doing it once."""
    if work.notifications is None:
        return
    for recipient in work.notifications.of(notification.tenant, customer).recipients:
        if recipient.hears(notification.body["notificationType"]):
            await _begin(work, notification, customer, recipient.channel)
    work.notifications.waiting.set()


async def _begin(work: Work, notification: Record, customer: str, channel: str) -> None:
    facts = {
        "customer": customer,
        "channel": channel,
        "notification": notification.id,
        "lane": f"{channel}|{customer}",
        "order": datetime.fromisoformat(notification.body["notificationTime"]).timestamp(),
        "begun": time(),
        "due": time(),
        "carrier": trace.headers(),
    }
    id = str(uuid5(NAMESPACE_URL, f"{notification.id}|{channel}"))
    with suppress(Conflict):
        await work.store.create(Record(DISPATCH.name, id, notification.tenant, {"state": "waiting", "tries": 0}, facts))


async def hand_over(work: Work, message: Message) -> None:
    """A letter that could not be delivered: it waits for a person, who may have it tried again.

    Raises Refused with the reason, which parks the message.
    """
    about = message.body["about"]
    letter = await work.store.get(DISPATCH.name, about["tenant"], about["id"])
    if not message.id.startswith("retry:"):
        raise Refused(message.body["undelivered"])
    if letter.body["state"] == "undelivered":
        due = {"due": time(), "begun": time(), "lane": f"{letter.facts['channel']}|{letter.facts['customer']}"}
        await work.store.replace(letter.with_({"state": "waiting", "tries": 0, "reason": ""}, due))


class Sending:
    """The sending of letters, as far as this worker takes part in it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._tasks: list[asyncio.Task[None]] = []
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._places: dict[str, asyncio.Semaphore] = {}
        self._line: Counter[str] = Counter()

    def start(self) -> None:
        if rules := self._work.notifications:
            self._places = {name: asyncio.Semaphore(channel.connections) for name, channel in rules.channels.items()}
            self._tasks = [asyncio.create_task(self._run(rules))]

    async def stop(self) -> None:
        """What is under way may be sent again by another, under the same id."""
        await end([*self._tasks, *self._under_way.values()])
        if self._work.notifications:
            await self._work.notifications.close()

    async def _run(self, rules: Notifications) -> None:
        while True:
            await asyncio.sleep(AT_ONCE)
            with suppress(TimeoutError):
                await asyncio.wait_for(rules.waiting.wait(), EVERY)
            rules.waiting.clear()
            try:
                await self._take_up_due(rules)
            except Unavailable as error:
                log.info("letters wait", reason=str(error))
            except Exception:
                log.exception("letters wait")

    async def _take_up_due(self, rules: Notifications) -> None:
        where, most = {"facts.due": {"$lte": time()}}, MOST + len(self._under_way)
        for letter in await self._work.store.find(DISPATCH.name, where, sort=[("facts.due", 1)], limit=most):
            channel = letter.facts["channel"]
            if letter.id in self._under_way:
                continue
            if channel in rules.channels and self._line[channel] >= IN_LINE * rules.channels[channel].connections:
                await self._step_back(letter)
                continue
            task = asyncio.create_task(self._send(rules, letter))
            self._under_way[letter.id] = task
            self._line[channel] += 1
            task.add_done_callback(partial(self._ended, rules, letter))

    async def _step_back(self, letter: Record) -> None:
        """More than a channel can take wait for it: each time twice as long, so that they are not in others' way."""
        stepped = letter.facts.get("stepped", 0) + 1
        pause = random() * min(FIRST * 2 ** min(stepped, 20), LONGEST)
        with suppress(Stale):
            await self._work.store.replace(letter.with_(facts={"stepped": stepped, "due": time() + pause}))

    def _ended(self, rules: Notifications, letter: Record, _: asyncio.Task[None]) -> None:
        """The next for this customer may go, if it has waited."""
        self._under_way.pop(letter.id, None)
        self._line[letter.facts["channel"]] -= 1
        rules.waiting.set()

    async def _send(self, rules: Notifications, letter: Record) -> None:
        try:
            with trace.span("notification.send", letter.facts["carrier"]):
                async with self._places.get(letter.facts["channel"], asyncio.Semaphore()):
                    await send(self._work, rules, letter)
        except (Stale, Unavailable) as error:  # somebody else has it, or the store is away: it is still there
            log.info("letter comes back", id=letter.id, reason=str(error))
        except Exception:
            log.exception("letter comes back", id=letter.id)


async def send(work: Work, rules: Notifications, letter: Record) -> None:
    """Send one letter that is due. Raises Stale when somebody else does, Unavailable when it cannot be kept."""
    facts = letter.facts
    channel = rules.channels.get(facts["channel"])
    if channel is None or (recipient := _recipient(rules, letter)) is None:
        await _finish(work, letter, "withdrawn", "the rules name no such channel for this customer any more")
        return
    if before := await _before(work, letter):
        await work.store.replace(letter.with_(facts={"due": max(before, time() + EVERY)}))
        return
    tries = letter.body["tries"] + 1
    letter = await work.store.replace(letter.with_({"tries": tries}, {"due": time() + channel.patience * LEASE}))
    try:
        decision = await _deliver(work, rules, channel, recipient, letter)
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


def _recipient(rules: Notifications, letter: Record) -> Recipient | None:
    listed = rules.of(letter.tenant, letter.facts["customer"]).recipients
    return next((one for one in listed if one.channel == letter.facts["channel"]), None)


async def _before(work: Work, letter: Record) -> float | None:
    """When an earlier letter to the same customer by the same channel is tried, if there is one."""
    where = {"tenant": letter.tenant, "facts.lane": letter.facts["lane"]}
    mine = (letter.facts["order"], letter.id)
    earlier = [
        one.facts["due"]
        for one in await work.store.find(DISPATCH.name, where)
        if (one.facts["order"], one.id) < mine and "due" in one.facts
    ]
    return min(earlier) if earlier else None


async def _deliver(
    work: Work, rules: Notifications, channel: Channel, recipient: Recipient, letter: Record
) -> Decision:
    """Hand it over, if the policy lets it go by this channel, with what of it may. Raises Unavailable or Refused."""
    facts = letter.facts
    notification = await work.store.get(CUSTOMER_NOTIFICATION.name, letter.tenant, facts["notification"])
    body = work.resources.present(notification)
    resource = {
        "kind": CUSTOMER_NOTIFICATION.name,
        "tenant": letter.tenant,
        "id": notification.id,
        "parties": [facts["customer"]],
        "type": body["notificationType"],
        "via": facts["channel"],
        "viaKind": rules.kinds[facts["channel"]],
    }
    decision = await work.policy.decide(system(letter.tenant), "send", resource, body, channel="notification")
    if decision.allow:
        views = CUSTOMER_NOTIFICATION.views(notification.facts)
        told = narrowed(private(body, decision.obligations), views, [facts["customer"]])
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
    await work.store.replace(letter.with_({"reason": reason}, {"due": time() + wait}))


async def _give_up(work: Work, letter: Record, reason: str) -> None:
    """It will never succeed as it stands: a person is told, by a message that is parked with the reason."""
    channel = letter.facts["channel"]
    words = f"notification {letter.facts['notification']} cannot be sent by {channel}: {reason}"
    body = {"undelivered": words, "about": {"kind": DISPATCH.name, "tenant": letter.tenant, "id": letter.id}}
    subject = f"task.{partition(letter.id)}.{token(letter.tenant)}"
    told = Outgoing(f"undelivered:{letter.id}:{letter.revision}", subject, body, trace.headers())
    await _finish(work, letter, "undelivered", reason, also=told)


async def _finish(
    work: Work, letter: Record, state: str, reason: str, decision: Decision | None = None, also: Outgoing | None = None
) -> None:
    kept = {name: value for name, value in letter.facts.items() if name not in ("due", "lane")}
    ended = Record(
        letter.kind, letter.id, letter.tenant, {**letter.body, "state": state, "reason": reason}, kept, letter.revision
    )
    await work.store.replace(ended, [also] if also else [])
    channel, on = letter.facts["channel"], f"{CUSTOMER_NOTIFICATION.name}/{letter.facts['notification']}"
    metrics.LETTERS.labels(channel, state).inc()
    outcome = {"sent": "done", "undelivered": "failed"}.get(state, "refused")
    detail: dict[str, Any] = {"channel": channel, "tries": letter.body["tries"]}
    detail |= {"reason": reason} if reason else {"seconds": round(time() - letter.facts["begun"], 3)}
    work.audit.record("notification.sent", letter.tenant, "convergedon", on, outcome, decision, **detail)
