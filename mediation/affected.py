"""Whom a problem affects: one record for each customer and problem, which is what customers are told and can ask for.

What is to be known of whom follows from the problems as they are now (``Wanted``). What was known before is continued:
a record follows its problem when that turns out to be part of another, ends in that one's record where there is one
already, and ends with the all-clear when none of its services suffers any more, or with its services. When the root of
a problem is over and parts of it still fail, each by itself now, the record goes on and speaks of all of them
(``Share``): to its customer it is one disturbance. Whoever tells customers (``tell``) reads the events of these records
and nothing else, so what they can ask for is what they were told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from time import time
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from convergedon.core import trace
from convergedon.core.bus import Message
from convergedon.core.errors import Conflict, NotFound, Unavailable
from convergedon.core.store import Record, find_any
from convergedon.handlers.affected_parties import AFFECTED_PARTY
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.resource import now
from convergedon.mediation import aside, inventory
from convergedon.mediation.correlation import rank
from convergedon.mediation.inventory import Service
from convergedon.mediation.notification import bring_out, notification_id, notify
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
class Share:
    """What a record says of one of its problems: as ``Wanted`` has it, in the form in which it is kept."""

    problem: str
    place: str
    device: str
    service: Sequence[Mapping[str, Any]]
    since: str
    began: str
    cause: str
    severity: str
    estimate: str = ""


def _share(wanted: Wanted) -> Share:
    services = [{"id": one.id, "name": one.name, "order": one.order} for one in wanted.services]
    body, place = wanted.alarm.body, (wanted.place, wanted.device)
    said = (wanted.cause, body["perceivedSeverity"], body.get("expectedRestoration") or "")
    return Share(wanted.alarm.id, *place, services, wanted.since, wanted.began, *said)


def problems(record: Record) -> Mapping[str, str]:
    """The problems that an open record speaks of, and the part of the network of each."""
    facts = record.facts
    if several := facts.get("shares"):
        return {one["problem"]: one["place"] for one in several}
    return {facts["problem"]: facts.get("openAt", "")}


def places(record: Record) -> list[str]:
    """The parts of the network at which an open record has a problem."""
    return sorted({*problems(record).values()})


@dataclass(frozen=True)
class Open:
    """An open record, and those of its problems that are decided on now; the others stay as they are."""

    record: Record
    decided: Collection[str]

    @property
    def others(self) -> list[Share]:
        kept = (Share(**one) for one in self.record.facts.get("shares") or ())
        return [share for share in kept if share.problem not in self.decided]

    def services(self, problem: str) -> set[str]:
        """Those of which it says that they suffer from a problem."""
        several = {one["problem"]: one["service"] for one in self.record.facts.get("shares") or ()}
        return {service["id"] for service in several.get(problem, self.record.body["service"])}


@dataclass(frozen=True)
class Step:
    """What becomes of a record (None: a new one): it says what is wanted of all ``told``, or ends."""

    open: Open | None
    told: Sequence[Told]

    @property
    def customer(self) -> str:
        return self.told[0].customer if self.told else str(self.open.record.facts["customer"]) if self.open else ""


def steps(records: Sequence[Open], wanted: Mapping[Told, Wanted], over: Collection[str] = ()) -> list[Step]:
    """What becomes of the open records of a neighbourhood, and which are new. Pure.

    ``over`` are problems of which the network says that they are: their records go on with all that is left of them.
    """
    found: dict[str, list[Told]] = {}
    taken: set[Told] = set()
    strays = []
    by_id = sorted(records, key=lambda one: one.record.id)
    for one in by_id:
        for problem in sorted(one.decided):
            told = Told(one.record.facts["customer"], problem)
            if told in wanted and told not in taken:
                found.setdefault(one.record.id, []).append(told)
                taken.add(told)
            else:
                strays.append((one, problem))
    for one, problem in strays:
        free = [told for told in sorted(wanted) if told not in taken and _shares(one, problem, told, wanted[told])]
        goes_on = free if problem in over else free[:1]
        found.setdefault(one.record.id, []).extend(goes_on)
        taken.update(goes_on)
    known = [Step(one, found.get(one.record.id, [])) for one in by_id]
    new = [Step(None, [told]) for told in sorted(wanted) if told not in taken]
    going_on = [step for step in known if step.told or (step.open and step.open.others)]
    return [*going_on, *new, *(step for step in known if step not in going_on)]


def _shares(one: Open, problem: str, told: Told, wanted: Wanted) -> bool:
    """Whether a problem disturbs a service that a record of this customer speaks of."""
    had = one.services(problem)
    return told.customer == one.record.facts["customer"] and any(service.id in had for service in wanted.services)


async def write(work: Work, records: Sequence[Open], wanted: Mapping[Told, Wanted], over: Collection[str] = ()) -> None:
    """Bring the records of a neighbourhood to what is wanted; what ends does so last. Twice is once."""
    by_customer: dict[str, list[Step]] = {}
    for step in steps(records, wanted, over):
        by_customer.setdefault(step.customer, []).append(step)
    suffering: dict[str, set[str]] = {customer: set() for customer in by_customer}
    for told, about in wanted.items():
        suffering[told.customer] |= {service.id for service in about.services}
    ended = await _ended(work, records, wanted, over)

    async def for_one(customer: str) -> None:
        for step in by_customer[customer]:
            shares = [_share(wanted[told]) for told in step.told]
            if step.open is None:
                await _create(work, wanted[step.told[0]], step.told[0])
            elif shares or step.open.others:
                carrier = wanted[step.told[0]].alarm.facts.get("carrier") if step.told else None
                await _say(work, step.open, shares, over, suffering[customer], ended, carrier)
            else:
                await _end(work, step.open, suffering[customer], ended)

    await aside.all_of(map(for_one, sorted(by_customer)))


async def _ended(
    work: Work, records: Sequence[Open], wanted: Mapping[Told, Wanted], over: Collection[str]
) -> Mapping[str, str]:
    """The services that have ended, and when, of those that suffer no more though the network does not say so."""
    doubtful = [one for one in records if not set(over).issuperset(one.decided)]
    gone = {service["id"] for one in doubtful for service in one.record.body["service"]}
    gone -= {service.id for about in wanted.values() for service in about.services}
    return await inventory.ended(work.store, doubtful[0].record.tenant, sorted(gone)) if gone else {}


async def _say(
    work: Work,
    open_: Open,
    shares: Sequence[Share],
    over: Collection[str],
    suffering: Collection[str],
    ended: Mapping[str, str],
    carrier: Mapping[str, str] | None,
) -> None:
    """``suffering`` are the services of this customer that some problem of the neighbourhood disturbs."""
    record, whole = open_.record, sorted([*shares, *open_.others], key=_age)
    first = next((one for one in whole if one.problem == record.facts["problem"]), whole[0])
    whole = [first, *(one for one in whole if one is not first)]
    since, began = min((one.since, one.began) for one in whole)
    with trace.span("affected", carrier or record.facts.get("carrier")):
        if await _began_before(work, record, since, over):
            since, began = record.body["affectedSince"], record.facts["began"]
        body = _body(work, whole, since)
        if "furtherAlarm" in record.body:
            body.setdefault("furtherAlarm", [])
        disturbed = {id for one in whole for id in _ids(one.service)}
        well, gone = await _well_again(work, record, {*suffering, *disturbed}, ended)
        fresh = {name: value for name, value in body.items() if value != record.body.get(name)}
        if TOLD & fresh.keys():
            said = _disturbed(body, whole) + (f" {_names(well)} works again." if well else "")
            said += f" {_names(gone)} has ended." if gone else ""
            fresh |= {"activity": [*record.body["activity"], _activity(said)], "restoredService": well}
            fresh |= _with_ended(record, gone)
        facts = _facts(record.facts["customer"], whole, began, carrier or record.facts.get("carrier"))
        await work.resources.change(AFFECTED_PARTY, record, fresh, facts)


def _age(share: Share) -> tuple[str, str]:
    return share.since, share.problem


def _ids(services: Iterable[Mapping[str, Any]]) -> list[str]:
    return [service["id"] for service in services]


def _with_ended(record: Record, gone: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All services that ended while they were disturbed."""
    return {"endedService": [*(record.body.get("endedService") or []), *gone]} if gone else {}


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
                await _end(work, Open(record, ()), (), {})

    await aside.all_of(for_one(told, about) for told, about in wanted.items())


async def _began_before(work: Work, record: Record, since: str, over: Collection[str]) -> bool:
    """Whether the services have suffered since an alarm that is over by now, while the problem goes on."""
    if record.body["affectedSince"] >= since:
        return False
    if not problems(record).keys().isdisjoint(over):
        return True
    try:
        first = await work.store.get(ALARM.name, record.tenant, record.facts["began"])
    except NotFound:
        return True
    return bool(first.body["state"] == "cleared")


async def _well_again(
    work: Work, record: Record, suffering: Collection[str], ended: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The services of which a record spoke that do not suffer any more, by this problem or by another: those that work
    again, and those that have ended.
    """
    gone = [service for service in record.body["service"] if service["id"] not in suffering]
    if not gone:
        return [], []
    sharing = await elsewhere(work, record, _ids(gone))
    others = {service["id"] for other in sharing for service in other.body["service"]}
    well = [service for service in gone if service["id"] not in others]
    return [one for one in well if one["id"] not in ended], [one for one in well if one["id"] in ended]


def _names(services: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{service['name']} {service['id']}" for service in services)


def _facts(customer: str, shares: Sequence[Share], began: str, carrier: Mapping[str, str] | None) -> dict[str, Any]:
    """Where there is one problem, its place is one; where there are several, they are looked up by each."""
    first, *others = shares
    at, on = {one.place: None for one in shares}, {one.device: None for one in shares if one.device}
    return {
        "customer": customer,
        "line": customer,
        "problem": first.problem,
        "openKey": f"{customer}|{first.problem}",
        "openAt": [*at] if others else first.place,
        "openOn": ([*on] if others else first.device) or None,
        "openFor": customer,
        "began": began,
        "carrier": carrier,
        "shares": [asdict(one) for one in shares] if others else None,
    }


async def _create(work: Work, wanted: Wanted, told: Told) -> None:
    with trace.span("affected", wanted.alarm.facts.get("carrier")):
        try:
            await _made(work, wanted, told, {})
        except Conflict as error:
            raise Unavailable(f"the record of {told.customer} is being written by somebody else") from error


async def _made(work: Work, wanted: Wanted, told: Told, more: Mapping[str, Any], id: str | None = None) -> None:
    """Raises Conflict."""
    share = _share(wanted)
    customer = {"id": told.customer, "role": "customer", "@referredType": "Organization"}
    body = {"status": "affected", "relatedParty": [customer], **_body(work, [share], share.since)}
    body["activity"] = [_activity(_disturbed(body, [share]))]
    facts = {**_facts(told.customer, [share], share.began, wanted.alarm.facts.get("carrier")), **more}
    facts = {name: value for name, value in facts.items() if value is not None}
    await work.resources.create(AFFECTED_PARTY, wanted.alarm.tenant, body, facts, id)


def _body(work: Work, shares: Sequence[Share], since: str) -> dict[str, Any]:
    href, first = work.resources.href, shares[0]
    services = {one["id"]: one for share in shares for one in share.service}
    orders = sorted({one["order"] for one in services.values()} - {""})
    alarms = [{"id": one.problem, "href": href(ALARM.name, one.problem)} for one in shares]
    body: dict[str, Any] = {
        "service": [{"id": id, "href": href("service", id), "name": services[id]["name"]} for id in sorted(services)],
        "productOrder": [{"id": id, "href": href("productOrder", id)} for id in orders],
        "alarm": alarms[0],
        **({"furtherAlarm": alarms[1:]} if alarms[1:] else {}),
        "perceivedSeverity": min((one.severity for one in shares), key=rank),
        "cause": "; ".join(dict.fromkeys(one.cause for one in shares)),
        "affectedSince": since,
    }
    if first.estimate and all(one.estimate for one in shares):
        body["expectedRestoration"] = max((one.estimate for one in shares), key=datetime.fromisoformat)
    return body


def _activity(text: str) -> dict[str, str]:
    return {"date": now(), "text": text}


def _disturbed(body: Mapping[str, Any], shares: Sequence[Share]) -> str:
    estimate = body.get("expectedRestoration")
    until = f" It is expected to work again at {estimate}." if estimate else ""
    services = {one["id"]: one for share in shares for one in share.service}
    named = ", ".join(
        f"{one['name']} {id}" + (f" (order {one['order']})" if one["order"] else "")
        for id, one in sorted(services.items())
    )
    return f"{named} has been disturbed since {body['affectedSince']}: {body['cause']}.{until}"


async def _end(work: Work, open_: Open, suffering: Collection[str], ended: Mapping[str, str]) -> None:
    """The problem is over for this customer: the all-clear, or its services suffer from another one, or have ended."""
    record = open_.record
    closed: dict[str, Any] = dict.fromkeys(("openKey", "openAt", "openOn", "openFor", "shares"))
    well, gone = await _well_again(work, record, suffering, ended)
    with trace.span("affected", record.facts.get("carrier")):
        if not (well or gone):
            await work.resources.change(AFFECTED_PARTY, record, await _continued(work, record), closed)
            return
        body: dict[str, Any] = {"service": [*well, *gone], "restoredService": [], **_with_ended(record, gone)}
        if well:
            restored = await _over_since(work, record)
            said = f"{_names(well)} works again since {restored}." + (f" {_names(gone)} has ended." if gone else "")
            body |= {"status": "restored", "restoredAt": restored}
        else:
            body |= {"status": "ended", "endedAt": max(ended[one["id"]] for one in gone)}
            said = f"{_names(gone)} has ended, and with it the disturbance since {record.body['affectedSince']}."
        body["activity"] = [*record.body["activity"], _activity(said)]
        await work.resources.change(AFFECTED_PARTY, record, body, closed)


async def _continued(work: Work, record: Record) -> dict[str, Any]:
    """Another record of this customer speaks of the services."""
    sharing = sorted(await elsewhere(work, record, _ids(record.body["service"])), key=lambda one: one.id)
    where = {"id": sharing[0].id, "href": work.resources.href(AFFECTED_PARTY.name, sharing[0].id)} if sharing else {}
    return {"status": "continued", **({"continuedBy": where} if where else {})}


async def elsewhere(work: Work, record: Record, services: Iterable[str]) -> list[Record]:
    """What else the customer of a record suffers from that disturbs one of these services."""
    where = {"tenant": record.tenant, "facts.openFor": record.body["relatedParty"][0]["id"]}
    found = await find_any(work.store, AFFECTED_PARTY.name, where, "body.service.id", sorted({*services}))
    return [one for one in {one.id: one for one in found}.values() if one.id != record.id]


async def _over_since(work: Work, record: Record) -> str:
    """When the network said of the last of its problems that it is over."""
    said = []
    for problem in problems(record):
        with suppress(NotFound):
            alarm = await work.store.get(ALARM.name, record.tenant, problem)
            said.append(str(alarm.body.get("alarmClearedTime") or ""))
    return max(said, default="") or now()


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
    elif what.endswith("StateChangeEvent") and body["status"] == "ended":
        kind = "serviceEnded"
    elif what.endswith("AttributeValueChangeEvent") and TOLD & set(event["fieldPath"].split(",")):
        kind = "serviceUpdated"
    else:
        return
    await bring_out(work, about.tenant, notification_id(about, customer, "serviceAffected"))
    again = event["eventId"] if kind == "serviceUpdated" else ""
    await notify(work, about, customer, _notification(work, kind, about), again)


async def _tell_of_the_fault(work: Work, about: Record, customer: str) -> None:
    if await notify(work, about, customer, _notification(work, "serviceAffected", about)):
        seconds = time() - datetime.fromisoformat(about.body["affectedSince"]).timestamp()
        on = f"alarm/{about.body['alarm']['id']}"
        work.audit.record("customer.told", about.tenant, "convergedon", on, "done", seconds=round(seconds, 3))


SAID = (
    "relatedParty",
    "service",
    "restoredService",
    "endedService",
    "productOrder",
    "alarm",
    "affectedSince",
    "expectedRestoration",
    "restoredAt",
    "endedAt",
)


def _notification(work: Work, type_: str, about: Record) -> dict[str, Any]:
    body = about.body
    said = {name: body[name] for name in SAID if body.get(name)}
    this = {"id": about.id, "href": work.resources.href(AFFECTED_PARTY.name, about.id)}
    return {"notificationType": type_, "text": body["activity"][-1]["text"], **said, "affectedParty": this}
