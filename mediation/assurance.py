"""The fault line: what the network reports becomes one alarm for each condition, and customers hear of it once.

raise_alarm / clear_alarm -> problems.correlate -> affected.tell. Observations of one device come in order, one at a
time; an alarm keeps the position of the last one it counted, so a message that is delivered again changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from convergedon.adapters.contract import Observation
from convergedon.core import trace
from convergedon.core.bus import Message
from convergedon.core.errors import Conflict, NotFound, Unavailable
from convergedon.core.store import Record
from convergedon.handlers.alarms import ALARM
from convergedon.mediation import flapping, inventory, parts
from convergedon.mediation.correlation import fails
from convergedon.mediation.inventory import Service
from convergedon.mediation.notification import notify
from convergedon.mediation.problems import CLOSED, touches
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
        change = {"state": "updated", "perceivedSeverity": _severity(seen), **_counted_as(seen, count)}
        quiet = flapping.once_quiet(work.settings, open_, {})
        await work.resources.change(ALARM, open_, change, {"count": count, **quiet, **_position(message)})


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
    if await flapping.holds_open(work, open_, seen, change, _position(message)):
        return
    # the all-clear belongs to the trace that the fault began
    with trace.span("alarm.clear", open_.facts["carrier"]):
        await work.resources.change(ALARM, open_, change, {**CLOSED, **_position(message)})
        work.audit.record("alarm.cleared", open_.tenant, f"device/{seen.device}", f"alarm/{open_.id}", "done")


def _key(seen: Observation) -> str:
    return f"{seen.device}|{seen.key}"


async def _open(work: Work, seen: Observation) -> Record | None:
    """The alarm that is open for this condition. One that a client cleared is over: it gives its key free."""
    found = await work.store.find(ALARM.name, {"tenant": seen.tenant, "facts.openKey": _key(seen)}, limit=1)
    if found and found[0].body["state"] == "cleared":
        await work.resources.change(ALARM, found[0], facts=CLOSED)
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
    affected = await inventory.on(work.store, seen.tenant, seen.device, seen.object) if _disturbs(seen) else []
    at = parts.place(seen.device, seen.object)
    facts = {
        "key": _key(seen),
        "openKey": _key(seen),
        "place": at,
        "openAt": at,
        "openOn": seen.device,
        "fault": seen.kind == "fault",
        "count": 1,
        "carrier": trace.headers(),
        **touches(work, affected),
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


def _disturbs(seen: Observation) -> bool:
    """Whether it says that something is out of service."""
    return seen.kind == "fault" and fails(seen.attributes["alarmType"], _severity(seen))


def _alarm(work: Work, seen: Observation, affected: Sequence[Service]) -> dict[str, Any]:
    about = seen.attributes
    return {
        "state": "raised",
        "alarmType": about["alarmType"],
        "perceivedSeverity": _severity(seen),
        "probableCause": about["probableCause"],
        "specificProblem": about.get("specificProblem", ""),
        "alarmedObject": {"id": parts.place(seen.device, seen.object)},
        "alarmedObjectType": "interface" if seen.object else "device",
        "sourceSystemId": seen.device,
        "reportingSystemId": f"convergedon-{seen.adapter}",
        "alarmRaisedTime": instant(seen.time),
        **_counted_as(seen, 1),
        "serviceAffecting": bool(affected),
        "affectedService": [inventory.reference(work.resources, service) for service in affected],
    }


def _severity(seen: Observation) -> str:
    return str(seen.attributes["perceivedSeverity"])


def _counted_as(seen: Observation, count: int) -> dict[str, Any]:
    """What an alarm says of how often the network raised it, and what it said last."""
    return {"alarmDetails": _details(seen, count), "raisedCount": count, "lastRaisedTime": instant(seen.time)}


def _details(seen: Observation, count: int) -> str:
    """What the network said, in one line; the number of times is at its end."""
    said = [f"{oid}={text}" for oid, text in seen.attributes.get("details", {}).items()]
    if seen.kind == "unmapped" and "oid" in seen.attributes:
        said.insert(0, f"{seen.attributes['oid']} from {seen.attributes.get('source', seen.device)}")
    return f"{', '.join(said)[:4000]}; seen {count} time{'s' if count > 1 else ''}"


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
            "productOrder": [{"id": order["id"], "href": work.resources.href("productOrder", order["id"])}],
        }
        await notify(work, record, customer, body)


async def _told_of(work: Work, kind: str, message: Message) -> Record:
    """What an event is about: as the event has it where it was deleted since, since its customers hear all the same."""
    tenant, id, event = message.body["tenant"], message.body["id"], message.body["event"]
    try:
        return await work.store.get(kind, tenant, id)
    except NotFound:
        return Record(kind, id, tenant, event["event"][kind], {"trace": event["correlationId"]})
