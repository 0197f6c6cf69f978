"""Whom a problem affects: one record for each customer and problem, which is what customers are told and can ask for.

What is to be known of whom follows from the problems as they are now (``Wanted``). What was known before is continued:
a record follows its problem when that turns out to be part of another, ends in that one's record where there is one
already, and ends with the all-clear when none of its services suffers any more. Whoever tells customers (``tell``)
reads the events of these records and nothing else, so what they can ask for is what they were told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from time import time
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from convergedon.core import trace
from convergedon.core.bus import Message
from convergedon.core.errors import Conflict, NotFound, Unavailable
from convergedon.core.store import Record
from convergedon.handlers.affected_parties import AFFECTED_PARTY
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.customer_notifications import CUSTOMER_NOTIFICATION
from convergedon.handlers.resource import now
from convergedon.mediation import aside
from convergedon.mediation.inventory import Service
from convergedon.mediation.notification import notification_id, notify
from convergedon.mediation.work import Work

TOLD = frozenset(("service", "cause", "affectedSince", "expectedRestoration"))
"""Members of which a customer hears when they change."""

OVER = "over"
"""The fact that a record was made of a problem that was over: who made it ends it, and nothing else continues it."""


class Told(NamedTuple):
    """A customer and the alarm at the head of a problem."""

    customer: str
    head: str


@dataclass(frozen=True)
class Wanted:
    """What one problem means for one customer. ``place`` is the problem's part, ``device`` what that is part of.

    ``began`` is the alarm by which the customer has suffered ``since``.
    """

    alarm: Record
    place: str
    device: str
    services: Sequence[Service]
    since: str
    began: str
    cause: str


@dataclass(frozen=True)
class Step:
    """What becomes of a record (None: a new one): it says what is wanted of ``told``, or ends."""

    record: Record | None
    told: Told | None

    @property
    def customer(self) -> str:
        return self.told.customer if self.told else str(self.record.facts["customer"]) if self.record else ""


def steps(records: Sequence[Record], wanted: Mapping[Told, Wanted]) -> list[Step]:
    """What becomes of the open records of a neighbourhood, and which are new. Pure."""
    found: dict[Told, Step] = {}
    strays = []
    for record in sorted(records, key=lambda one: one.id):
        told = Told(record.facts["customer"], record.facts["problem"])
        if told in wanted and told not in found:
            found[told] = Step(record, told)
        else:
            strays.append(record)
    ending = []
    for record in strays:
        sharing = (told for told in sorted(wanted) if _shares(record, told, wanted[told]))
        free = next((told for told in sharing if told not in found), None)
        if free:
            found[free] = Step(record, free)
        else:
            ending.append(Step(record, None))
    new = [Step(None, told) for told in sorted(wanted) if told not in found]
    return [*found.values(), *new, *ending]


def _shares(record: Record, told: Told, wanted: Wanted) -> bool:
    """Whether a problem disturbs a service that a record of this customer speaks of."""
    had = {service["id"] for service in record.body["service"]}
    return told.customer == record.facts["customer"] and any(service.id in had for service in wanted.services)


async def write(work: Work, records: Sequence[Record], wanted: Mapping[Told, Wanted]) -> None:
    """Bring the records of a neighbourhood to what is wanted; what ends does so last. Twice is once."""
    by_customer: dict[str, list[Step]] = {}
    for step in steps(records, wanted):
        by_customer.setdefault(step.customer, []).append(step)
    suffering: dict[str, set[str]] = {customer: set() for customer in by_customer}
    for told, about in wanted.items():
        suffering[told.customer] |= {service.id for service in about.services}

    async def for_one(customer: str) -> None:
        for step in by_customer[customer]:
            if step.told:
                await _say(work, step.record, step.told, wanted[step.told], suffering[customer])
            elif step.record:
                await _end(work, step.record, suffering[customer])

    await aside.all_of(map(for_one, sorted(by_customer)))


async def _say(work: Work, record: Record | None, told: Told, wanted: Wanted, suffering: Collection[str]) -> None:
    """``suffering`` are the services of this customer that some problem of the neighbourhood disturbs."""
    with trace.span("affected", wanted.alarm.facts.get("carrier")):
        facts = _facts(told, wanted)
        if record is None:
            await _create(work, wanted, told)
            return
        if await _began_before(work, record, wanted):
            wanted = replace(wanted, since=record.body["affectedSince"], began=record.facts["began"])
            facts = _facts(told, wanted)
        body = _body(work, wanted)
        well = await _well_again(work, record, suffering)
        fresh = {name: value for name, value in body.items() if value != record.body.get(name)}
        if TOLD & fresh.keys():
            said = _disturbed(body, wanted.services) + (f" {_names(well)} works again." if well else "")
            fresh |= {"activity": [*record.body["activity"], _activity(said)], "restoredService": well}
        await work.resources.change(AFFECTED_PARTY, record, fresh, facts)


async def tell_of_both(work: Work, wanted: Mapping[Told, Wanted]) -> None:
    """A problem that is over before its customers heard of it: its records say that it was, and then that it is over.

    Their ids follow from whom they are for, so that whoever does this again finds them made.
    """

    async def for_one(told: Told, about: Wanted) -> None:
        tenant, id = about.alarm.tenant, str(uuid5(NAMESPACE_URL, f"{about.alarm.id}|{told.customer}|over"))
        with trace.span("affected", about.alarm.facts.get("carrier")), suppress(Conflict):
            await _made(work, about, told, {OVER: True}, id)
        with suppress(NotFound):  # an open record speaks of this very alarm, and ends as others do
            record = await work.store.get(AFFECTED_PARTY.name, tenant, id)
            if record.body["status"] == "affected":
                await _end(work, record, ())

    await aside.all_of(for_one(told, about) for told, about in wanted.items())


async def _began_before(work: Work, record: Record, wanted: Wanted) -> bool:
    """Whether the services have suffered since an alarm that is over by now, while the problem goes on."""
    if record.body["affectedSince"] >= wanted.since:
        return False
    try:
        first = await work.store.get(ALARM.name, record.tenant, record.facts["began"])
    except NotFound:
        return True
    return bool(first.body["state"] == "cleared")


async def _well_again(work: Work, record: Record, suffering: Collection[str]) -> list[dict[str, Any]]:
    """The services of which a record spoke that do not suffer any more, by this problem or by another."""
    gone = [service for service in record.body["service"] if service["id"] not in suffering]
    if not gone:
        return []
    others = {service["id"] for other in await _elsewhere(work, record) for service in other.body["service"]}
    return [service for service in gone if service["id"] not in others]


def _names(services: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{service['name']} {service['id']}" for service in services)


def _facts(told: Told, wanted: Wanted) -> dict[str, Any]:
    return {
        "customer": told.customer,
        "line": told.customer,
        "problem": told.head,
        "openKey": f"{told.customer}|{told.head}",
        "openAt": wanted.place,
        "openOn": wanted.device or None,
        "openFor": told.customer,
        "began": wanted.began,
        "carrier": wanted.alarm.facts.get("carrier"),
    }


async def _create(work: Work, wanted: Wanted, told: Told) -> None:
    try:
        await _made(work, wanted, told, {})
    except Conflict as error:
        raise Unavailable(f"the record of {told.customer} is being written by somebody else") from error


async def _made(work: Work, wanted: Wanted, told: Told, more: Mapping[str, Any], id: str | None = None) -> None:
    """Raises Conflict."""
    customer = {"id": told.customer, "role": "customer", "@referredType": "Organization"}
    body = {"status": "affected", "relatedParty": [customer], **_body(work, wanted)}
    body["activity"] = [_activity(_disturbed(body, wanted.services))]
    facts = {name: value for name, value in {**_facts(told, wanted), **more}.items() if value is not None}
    await work.resources.create(AFFECTED_PARTY, wanted.alarm.tenant, body, facts, id)


def _body(work: Work, wanted: Wanted) -> dict[str, Any]:
    href, services = work.resources.href, wanted.services
    orders = sorted({service.order for service in services} - {""})
    body = {
        "service": [{"id": one.id, "href": href("service", one.id), "name": one.name} for one in services],
        "productOrder": [{"id": id, "href": href("productOrder", id)} for id in orders],
        "alarm": {"id": wanted.alarm.id, "href": href(ALARM.name, wanted.alarm.id)},
        "perceivedSeverity": wanted.alarm.body["perceivedSeverity"],
        "cause": wanted.cause,
        "affectedSince": wanted.since,
    }
    if estimate := wanted.alarm.body.get("expectedRestoration"):
        body["expectedRestoration"] = estimate
    return body


def _activity(text: str) -> dict[str, str]:
    return {"date": now(), "text": text}


def _disturbed(body: Mapping[str, Any], services: Sequence[Service]) -> str:
    estimate = body.get("expectedRestoration")
    until = f" It is expected to work again at {estimate}." if estimate else ""
    return f"{named(services)} has been disturbed since {body['affectedSince']}: {body['cause']}.{until}"


def named(services: Sequence[Service]) -> str:
    return ", ".join(
        f"{service.name} {service.id}" + (f" (order {service.order})" if service.order else "") for service in services
    )


async def _end(work: Work, record: Record, suffering: Collection[str]) -> None:
    """The problem is over for this customer: the all-clear, or its services suffer from another one."""
    closed: dict[str, Any] = dict.fromkeys(("openKey", "openAt", "openOn", "openFor"))
    well = await _well_again(work, record, suffering)
    with trace.span("affected", record.facts.get("carrier")):
        if not well:
            await work.resources.change(AFFECTED_PARTY, record, await _continued(work, record), closed)
            return
        restored = await _over_since(work, record)
        said = _activity(f"{_names(well)} works again since {restored}.")
        body = {"status": "restored", "restoredAt": restored, "activity": [*record.body["activity"], said]}
        body |= {"service": well, "restoredService": []}
        await work.resources.change(AFFECTED_PARTY, record, body, closed)


async def _continued(work: Work, record: Record) -> dict[str, Any]:
    """Another record of this customer speaks of the services."""
    had = {service["id"] for service in record.body["service"]}
    sharing = [
        one for one in await _elsewhere(work, record) if had & {service["id"] for service in one.body["service"]}
    ]
    where = {"id": sharing[0].id, "href": work.resources.href(AFFECTED_PARTY.name, sharing[0].id)} if sharing else {}
    return {"status": "continued", **({"continuedBy": where} if where else {})}


async def _elsewhere(work: Work, record: Record) -> list[Record]:
    """What else this customer suffers from."""
    where = {"tenant": record.tenant, "facts.openFor": record.facts["customer"]}
    found = await work.store.find(AFFECTED_PARTY.name, where, sort=[("id", 1)])
    return [one for one in found if one.id != record.id]


async def _over_since(work: Work, record: Record) -> str:
    try:
        alarm = await work.store.get(ALARM.name, record.tenant, record.facts["problem"])
    except NotFound:
        return now()
    return str(alarm.body.get("alarmClearedTime") or now())


# telling


async def tell(work: Work, message: Message) -> None:
    """An event of such a record: its customer hears what it says, each thing once and in order."""
    event = message.body["event"]
    what, body = event["eventType"], event["event"][AFFECTED_PARTY.name]
    about = Record(
        AFFECTED_PARTY.name, message.body["id"], message.body["tenant"], body, {"trace": event["correlationId"]}
    )
    customer = body["relatedParty"][0]["id"]
    if what.endswith("CreateEvent"):
        await _tell_of_the_fault(work, about, customer)
        return
    if what.endswith("StateChangeEvent") and body["status"] == "restored":
        kind = "serviceRestored"
    elif what.endswith("AttributeValueChangeEvent") and TOLD & set(event["fieldPath"].split(",")):
        kind = "serviceUpdated"
    else:
        return
    await _wait_for_the_bad_news(work, about, customer)
    again = event["eventId"] if kind == "serviceUpdated" else ""
    await notify(work, about, customer, _notification(work, kind, about), again)


async def _tell_of_the_fault(work: Work, about: Record, customer: str) -> None:
    if await notify(work, about, customer, _notification(work, "serviceAffected", about)):
        seconds = time() - datetime.fromisoformat(about.body["affectedSince"]).timestamp()
        on = f"alarm/{about.body['alarm']['id']}"
        work.audit.record("customer.told", about.tenant, "convergedon", on, "done", seconds=round(seconds, 3))


async def _wait_for_the_bad_news(work: Work, about: Record, customer: str) -> None:
    """An all-clear must not overtake the fault that it ends, not even one whose teller died before it was published.

    Raises Unavailable while that still stands in its outbox.
    """
    id = notification_id(about, customer, "serviceAffected")
    try:
        told = await work.store.get(CUSTOMER_NOTIFICATION.name, about.tenant, id)
    except NotFound:
        return
    if not all(work.published(message.id) for message in told.unsent):
        raise Unavailable(f"notification {id} is not out yet")


SAID = (
    "relatedParty",
    "service",
    "restoredService",
    "productOrder",
    "alarm",
    "affectedSince",
    "expectedRestoration",
    "restoredAt",
)


def _notification(work: Work, type_: str, about: Record) -> dict[str, Any]:
    body = about.body
    said = {name: body[name] for name in SAID if body.get(name)}
    this = {"id": about.id, "href": work.resources.href(AFFECTED_PARTY.name, about.id)}
    return {"notificationType": type_, "text": body["activity"][-1]["text"], **said, "affectedParty": this}
