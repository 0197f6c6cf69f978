"""The fault line: what the network reports becomes one alarm for each condition, and customers hear of it once.

raise_alarm / clear_alarm -> tell_affected / tell_restored. Observations of one device come in order, one at a time; an
alarm keeps the position of the last one it counted, so a message that is delivered again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from time import time
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from convergedon.adapters.contract import Observation
from convergedon.core import trace
from convergedon.core.bus import Message
from convergedon.core.errors import Conflict, NotFound, Unavailable
from convergedon.core.policy import system
from convergedon.core.store import Record
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.customer_notifications import CUSTOMER_NOTIFICATION
from convergedon.mediation import inventory
from convergedon.mediation.inventory import Service
from convergedon.mediation.privacy import private
from convergedon.mediation.work import Work


def instant(seconds: float) -> str:
    """Seconds since the epoch as the timestamp that every resource uses."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def raise_alarm(work: Work, message: Message) -> None:
    """A fault or an unmapped trap: a new alarm, or one more time the one that is open for this condition."""
    seen = Observation(**message.body["observation"])
    open_ = await _open(work, seen)
    if open_ is None:
        await _raise(work, seen, message)
    elif not _counted(open_, message):
        count = open_.facts["count"] + 1
        change = {"state": "updated", "alarmDetails": _details(seen, count), "perceivedSeverity": _severity(seen)}
        await work.resources.change(ALARM, open_, change, {"count": count, **_position(message)})


async def clear_alarm(work: Work, message: Message) -> None:
    """The network says that the condition is over: that is the evidence on which the alarm is cleared."""
    seen = Observation(**message.body["observation"])
    open_ = await _open(work, seen)
    if open_ is None or _counted(open_, message):
        return
    change = {
        "state": "cleared",
        "perceivedSeverity": "cleared",
        "alarmClearedTime": instant(seen.time),
        "clearSystemId": seen.device,
    }
    # the all-clear belongs to the trace that the fault began
    with trace.span("alarm.clear", open_.facts["carrier"]):
        await work.resources.change(ALARM, open_, change, {"openKey": None, **_position(message)})
        work.audit.record("alarm.cleared", open_.tenant, f"device/{seen.device}", f"alarm/{open_.id}", "done")


def _key(seen: Observation) -> str:
    return f"{seen.device}|{seen.key}"


async def _open(work: Work, seen: Observation) -> Record | None:
    """The alarm that is open for this condition. One that a client cleared is over: it gives its key free."""
    found = await work.store.find(ALARM.name, {"tenant": seen.tenant, "facts.openKey": _key(seen)}, limit=1)
    if found and found[0].body["state"] == "cleared":
        await work.resources.change(ALARM, found[0], facts={"openKey": None})
        return None
    return found[0] if found else None


def _position(message: Message) -> dict[str, Any]:
    place = message.position
    return {"epoch": place.epoch, "sequence": place.sequence, "part": place.part}


def _counted(alarm: Record, message: Message) -> bool:
    """Whether the alarm has taken this message already. A stream that was made anew counts from one again."""
    facts, place = alarm.facts, message.position
    same = facts.get("epoch") == place.epoch
    return same and (int(facts["sequence"]), int(facts.get("part", 0))) >= (place.sequence, place.part)


async def _raise(work: Work, seen: Observation, message: Message) -> None:
    affected = await inventory.on(work.store, seen.tenant, seen.device, seen.object) if seen.kind == "fault" else []
    facts = {
        "key": _key(seen),
        "openKey": _key(seen),
        "count": 1,
        "carrier": trace.headers(),
        "parties": sorted({customer for service in affected for customer in service.customers}),
        "touches": _touches(work, affected),
        **_position(message),
    }
    place = message.position
    which = f"{place.sequence}.{place.part}" if place.part else f"{place.sequence}"
    id = str(uuid5(NAMESPACE_URL, f"{seen.tenant}|{_key(seen)}|{place.epoch}|{which}"))
    try:
        alarm = await work.resources.create(ALARM, seen.tenant, _alarm(work, seen, affected), facts, id)
    except Conflict:
        await _raised_before(work, seen, id)
        return
    who, on = f"device/{seen.device}", f"alarm/{alarm.id}"
    work.audit.record("alarm.raised", seen.tenant, who, on, "done", services=len(affected))


async def _raised_before(work: Work, seen: Observation, id: str) -> None:
    """This very message raised the alarm, and it was cleared since: nothing to do. Anything else is tried again."""
    try:
        await work.store.get(ALARM.name, seen.tenant, id)
    except NotFound as error:
        raise Unavailable(f"another alarm still holds {_key(seen)}") from error


def _touches(work: Work, affected: Sequence[Service]) -> dict[str, list[dict[str, str]]]:
    """customer -> its services among the affected, as the alarm names them."""
    touched: dict[str, list[dict[str, str]]] = {}
    for service in affected:
        for customer in service.customers:
            touched.setdefault(customer, []).append(inventory.reference(work.resources, service))
    return touched


def _alarm(work: Work, seen: Observation, affected: Sequence[Service]) -> dict[str, Any]:
    about = seen.attributes
    place = f"{seen.device}/{seen.object}" if seen.object else seen.device
    return {
        "state": "raised",
        "alarmType": about["alarmType"],
        "perceivedSeverity": _severity(seen),
        "probableCause": about["probableCause"],
        "specificProblem": about.get("specificProblem", ""),
        "alarmedObject": {"id": place},
        "alarmedObjectType": "interface" if seen.object else "device",
        "sourceSystemId": seen.device,
        "reportingSystemId": f"convergedon-{seen.adapter}",
        "alarmRaisedTime": instant(seen.time),
        "alarmDetails": _details(seen, 1),
        "serviceAffecting": bool(affected),
        "affectedService": [inventory.reference(work.resources, service) for service in affected],
    }


def _severity(seen: Observation) -> str:
    return str(seen.attributes["perceivedSeverity"])


def _details(seen: Observation, count: int) -> str:
    """What the network said, in one line; the number of times is at its end."""
    said = [f"{oid}={text}" for oid, text in seen.attributes.get("details", {}).items()]
    if seen.kind == "unmapped" and "oid" in seen.attributes:
        said.insert(0, f"{seen.attributes['oid']} from {seen.attributes.get('source', seen.device)}")
    return f"{', '.join(said)[:4000]}; seen {count} time{'s' if count > 1 else ''}"


async def tell_affected(work: Work, message: Message) -> None:
    """An AlarmCreateEvent: one notification to each customer whose service the alarm touches."""
    try:
        alarm = await work.store.get(ALARM.name, message.body["tenant"], message.body["id"])
    except NotFound:
        return  # deleted since: nothing would ever tell its end
    for customer, services in (await _by_customer(work, alarm)).items():
        since = alarm.body["alarmRaisedTime"]
        text = f"{_named(services)} has been disturbed since {since}: {alarm.body['specificProblem'] or 'a fault'}."
        body = _notification("serviceAffected", alarm, customer, services, text)
        if await notify(work, alarm, customer, body):
            seconds = time() - datetime.fromisoformat(since).timestamp()
            on = f"alarm/{alarm.id}"
            work.audit.record("customer.told", alarm.tenant, "convergedon", on, "done", seconds=round(seconds, 3))


async def tell_restored(work: Work, message: Message) -> None:
    """An AlarmStateChangeEvent: when it is cleared, the all-clear to those who heard of the fault."""
    if message.body["event"]["event"][ALARM.name]["state"] != "cleared":
        return
    alarm = await _told_of(work, ALARM.name, message)
    for customer, services in (await _by_customer(work, alarm)).items():
        await _wait_for_the_bad_news(work, alarm, customer)
        cleared = alarm.body["alarmClearedTime"]
        body = _notification(
            "serviceRestored", alarm, customer, services, f"{_named(services)} works again since {cleared}."
        )
        await notify(work, alarm, customer, {**body, "restoredAt": cleared})


async def _told_of(work: Work, kind: str, message: Message) -> Record:
    """What an event is about: as the event has it where it was deleted since, since its customers hear all the same."""
    tenant, id, event = message.body["tenant"], message.body["id"], message.body["event"]
    try:
        return await work.store.get(kind, tenant, id)
    except NotFound:
        return Record(kind, id, tenant, event["event"][kind], {"trace": event["correlationId"]})


async def _wait_for_the_bad_news(work: Work, alarm: Record, customer: str) -> None:
    """An all-clear must not overtake the fault that it ends, not even one whose teller died before it was published.

    Raises Unavailable while that still stands in its outbox.
    """
    id = _notification_id(alarm, customer, "serviceAffected")
    try:
        told = await work.store.get(CUSTOMER_NOTIFICATION.name, alarm.tenant, id)
    except NotFound:
        return
    if not all(work.published(message.id) for message in told.unsent):
        raise Unavailable(f"notification {id} is not out yet")


async def _by_customer(work: Work, alarm: Record) -> dict[str, list[Service]]:
    ids = [service["id"] for service in alarm.body.get("affectedService") or []]
    found = await inventory.named(work.store, alarm.tenant, ids)
    by_customer: dict[str, list[Service]] = {}
    for service in found:
        for customer in service.customers:
            by_customer.setdefault(customer, []).append(service)
    return by_customer


def _named(services: Sequence[Service]) -> str:
    return ", ".join(
        f"{service.name} {service.id}" + (f" (order {service.order})" if service.order else "") for service in services
    )


def _notification(type_: str, alarm: Record, customer: str, services: Sequence[Service], text: str) -> dict[str, Any]:
    return {
        "notificationType": type_,
        "text": text,
        "relatedParty": [{"id": customer, "role": "customer", "@referredType": "Organization"}],
        "service": [{"id": service.id, "name": service.name} for service in services],
        "productOrder": [{"id": id} for id in sorted({service.order for service in services} - {""})],
        "alarm": {"id": alarm.id},
        "affectedSince": alarm.body["alarmRaisedTime"],
    }


async def notify(work: Work, about: Record, customer: str, body: Mapping[str, Any]) -> bool:
    """Say a thing to a customer once: the same thing about the same record is the same notification.

    The policy says whether, and what of it: what devices and people wrote may hold what is nobody else's business.
    """
    id = _notification_id(about, customer, body["notificationType"])
    resource = {"kind": CUSTOMER_NOTIFICATION.name, "tenant": about.tenant, "id": id, "parties": [customer]}
    decision = await work.policy.decide(system(about.tenant), "tell", resource, body, channel="flow")
    if not decision.allow:
        on = f"{CUSTOMER_NOTIFICATION.name}/{id}"
        reasons = list(decision.reasons)
        work.audit.record("customer.told", about.tenant, "convergedon", on, "refused", decision, reasons=reasons)
        return False
    body = private(body, decision.obligations)
    try:
        body = {**body, **_linked(work, body), "traceId": about.facts.get("trace", "")}
        facts = {"trace": about.facts.get("trace", ""), "line": about.id}
        await work.resources.create(CUSTOMER_NOTIFICATION, about.tenant, body, facts, id)
    except Conflict:
        return False
    return True


def _notification_id(about: Record, customer: str, type_: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"{about.kind}|{about.id}|{customer}|{type_}"))


def _linked(work: Work, body: Mapping[str, Any]) -> dict[str, Any]:
    """References get the href of what they point at, where it is served."""
    linked: dict[str, Any] = {}
    if "service" in body:
        linked["service"] = [
            {**service, "href": work.resources.href("service", service["id"])} for service in body["service"]
        ]
    if "alarm" in body:
        linked["alarm"] = {**body["alarm"], "href": work.resources.href(ALARM.name, body["alarm"]["id"])}
    if "productOrder" in body:
        linked["productOrder"] = [
            {**order, "href": work.resources.href("productOrder", order["id"])} for order in body["productOrder"]
        ]
    return linked


async def tell_order_ended(work: Work, message: Message) -> None:
    """A ProductOrderStateChangeEvent: its customers hear that it is completed or cancelled, or why it failed."""
    order = message.body["event"]["event"]["productOrder"]
    types = {
        "completed": "orderCompleted",
        "failed": "orderFailed",
        "partial": "orderFailed",
        "cancelled": "orderCancelled",
    }
    if order["state"] not in types:
        return
    record = await _told_of(work, "productOrder", message)
    notes = [note["text"] for note in order.get("note") or [] if note.get("author") == "ConvergedON"]
    text = f"Order {order['id']} is {order['state']}." + (f" {' '.join(notes)}" if notes else "")
    for customer in inventory.customers(order):
        body = {
            "notificationType": types[order["state"]],
            "text": text,
            "relatedParty": [{"id": customer, "role": "customer", "@referredType": "Organization"}],
            "productOrder": [{"id": order["id"]}],
        }
        await notify(work, record, customer, body)
