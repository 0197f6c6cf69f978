"""Telling customers of problems under the rules: each event and each timer has a case decided, and done what it says.

hear (an event of an affectedParty) or look_after (time has passed) -> consider -> decide -> tell, wait, rest or
summarise. What is known of a problem stands in its affectedParty; what its customer knows, and when to decide again,
in a record of its own, whose revision says who was first. A message is noted with its words before it is made, under an
id that follows from what was noted before: whoever is not the first makes none, and whoever dies between the two, the
next one makes it. So it is the same whoever decides, and how often, and after which restart. Where several cases of a
customer owe the all-clear of one service, the first to claim it pays for all of them (allclear.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from time import time
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

import structlog

from convergedon.core import trace
from convergedon.core.bus import Message
from convergedon.core.errors import Conflict, NotFound, Refused, Stale, Unavailable
from convergedon.core.store import Draft, Record
from convergedon.handlers.affected_parties import AFFECTED_PARTY
from convergedon.handlers.customer_notifications import CUSTOMER_NOTIFICATION, TELLING
from convergedon.handlers.product_ordering import ENDED, PRODUCT_ORDER, items
from convergedon.handlers.resource import now
from convergedon.handlers.service_inventory import SERVICE
from convergedon.mediation import affected, aside, inventory, notification
from convergedon.mediation.correlation import device_of, kind_of
from convergedon.mediation.notification import bring_out, notification_id
from convergedon.mediation.telling import allclear, keeping
from convergedon.mediation.telling.governance import Case, Kept, Told, Verdict, decide, window_over
from convergedon.mediation.telling.keeping import clock
from convergedon.mediation.telling.rules import Notifications, none
from convergedon.mediation.work import Work

log = structlog.get_logger()

AT_ONCE = 5.0
"""Seconds within which an event comes for the first time: what comes again was taken before, by whoever died then."""
MADE_BY = 10.0
"""Seconds after which it is looked whether a message was made that no event would have made again."""
LOOK_AGAIN = 60.0
"""Seconds after which it is looked whether services that a customer was told of still suffer from something else."""
REFUSED = 3_600.0
"""Seconds after which it is tried again what was refused."""
MOST = 1_000
"""Cases whose time has come that are decided in one go."""
STEPS = 5
"""Verdicts that may follow from each other at once."""

Services = dict[str, Any]
"""id -> the reference that says its name and where it is."""


class Considered(NamedTuple):
    """A case that was decided on, and services of which it said that they work again and no other case owes that."""

    case: Record
    alone: Collection[str] = ()


async def hear(work: Work, message: Message) -> None:
    """An event of an affectedParty. Without rules its customer is told at once what it says."""
    if work.notifications is None:
        await affected.tell(work, message)
        return
    rules, new = work.notifications, message.body["event"]["eventType"].endswith("CreateEvent")
    if new:
        record, case = await _there(work, AFFECTED_PARTY.name, message), None
    else:
        record, case = await aside.both(_there(work, AFFECTED_PARTY.name, message), _there(work, TELLING.name, message))
    if record is None:
        return
    found = await _begun(work, rules, record, message) if new else None
    if found is None:
        kept = case or await _kept(work, record)
        if not kept.revision and _is_long_over(work, record, message):
            return
        found = await consider(work, rules, record, kept, just_now=True)
    await _settle(work, rules, record, found)


async def _there(work: Work, kind: str, message: Message) -> Record | None:
    """What is kept of a kind under the id of what an event is of."""
    with suppress(NotFound):
        return await work.store.get(kind, message.body["tenant"], message.body["id"])
    return None


async def _begun(work: Work, rules: Notifications, record: Record, message: Message) -> Considered | None:
    """The case of a problem that was found a moment ago: nobody can have told anything of it, so nothing is looked up.

    None if somebody has begun it all the same, and for what is no such problem.
    """
    if record.body["status"] != "affected" or time() - message.stored > AT_ONCE:
        return None
    try:
        return await consider(work, rules, record, _new(work, record))
    except Stale:
        return None


def _is_long_over(work: Work, record: Record, message: Message) -> bool:
    """Whether an event comes so late (a person had it tried again) that what was known of its problem may be gone."""
    said = _instant(message.body["event"]["eventTime"])
    return record.body["status"] != "affected" and keeping.is_past(work, said)


async def let_go(work: Work, message: Message) -> None:
    """A notification was deleted: the words of it that a case has, should it have to be made again, go as well."""
    said = message.body["event"]["event"][CUSTOMER_NOTIFICATION.name]
    with suppress(NotFound):
        case = await work.store.get(TELLING.name, message.body["tenant"], said.get("affectedParty", {}).get("id", ""))
        if case.facts.get("saying", {}).get("id") == message.body["id"]:
            await _write(work, _set(case, {"saying": None}))


async def look_after(work: Work) -> None:
    """Cases whose time has come: a hold-down, an interval, a window or quiet hours are over."""
    due = await work.store.find(TELLING.name, {"facts.due": {"$lt": clock(work)}}, limit=MOST)
    await _side_by_side(work, due)


async def decide_anew(work: Work) -> None:
    """Whatever waits, by rules that are new: it may wait longer by them, or no more.

    What is summed up at the end of a window is so still.
    """
    waiting = await work.store.find(TELLING.name, {"facts.due": {"$gt": 0}})
    await _side_by_side(work, [case for case in waiting if "entries" not in case.facts])


async def _side_by_side(work: Work, cases: Sequence[Record]) -> None:
    """Those of one customer one after the other: what is told of one may be what is owed by the next."""
    of: dict[tuple[str, Any], list[Record]] = {}
    for case in cases:
        of.setdefault((case.tenant, case.facts.get("customer")), []).append(case)

    async def in_turn(mine: Sequence[Record]) -> None:
        for case in mine:
            await _in_time(work, case)

    await aside.all_of(map(in_turn, of.values()))


async def _in_time(work: Work, case: Record) -> None:
    """What cannot go on must not keep the others from it."""
    try:
        with suppress(Stale), trace.span("telling.timer", case.facts.get("carrier")):
            await _go_on(work, case)
    except Unavailable as error:
        log.info("a case waits", id=case.id, reason=str(error))
    except Refused:
        log.exception("a case cannot go on", id=case.id)
        with suppress(Stale):
            await work.store.replace(_set(case, {"due": clock(work) + REFUSED}))


async def _go_on(work: Work, case: Record) -> None:
    if "later" in case.facts:
        await notification.take_up(work, case)
    elif "entries" in case.facts:
        await _sum_up(work, case)
    else:
        given = work.notifications or none()  # what waits when the rules are taken away is told in its time
        record = await work.store.get(AFFECTED_PARTY.name, case.tenant, case.id)
        await _settle(work, given, record, await consider(work, given, record, in_time=True))


# one case


async def consider(
    work: Work,
    rules: Notifications,
    record: Record,
    kept: Record | None = None,
    just_now: bool = False,
    in_time: bool = False,
) -> Considered:
    """Decide what is to be told of a problem to its customer now, and do it.

    ``just_now``: nothing that this customer suffers from can have been told since the record said what works again.
    ``in_time``: a time has come, so that nothing but the time has this done again should it not come to its end.
    Raises Stale or Unavailable.
    """
    kept = written = kept or await _kept(work, record)
    out = await _see_made(work, kept)
    said: Draft | None = None
    alone: set[str] = set()
    for _ in range(STEPS):
        case, verdict = await _verdict(work, rules, record, kept, just_now)
        if verdict.what == "tell" and said:
            kept, said = await _say(work, rules, record, await _write(work, kept), said), None
            written = kept
        if verdict.what == "tell":
            verdict, draft = await _word(work, rules, record, kept, case, verdict, out)
            if draft and case.well:
                paid, shared = await _paid_elsewhere(work, kept, case.well)
                if paid:
                    kept = _relieved(kept, paid)
                    continue
                alone |= case.well - shared
            kept, said = (_as_told(kept, draft), draft) if draft else (kept, None)
        if verdict.what == "tell":
            continue  # what is told is noted together with what is decided next
        if verdict.what == "summarise":
            await _keep_for_summary(work, record, verdict)
        kept = await _note(work, record, written, kept, verdict, bool(said and in_time))
        return Considered(await _say(work, rules, record, kept, said) if said else kept, alone)
    raise Unavailable(f"affectedParty {record.id} changes too fast")


async def _paid_elsewhere(work: Work, kept: Record, well: Collection[str]) -> tuple[set[str], set[str]]:
    """Of these services those of which another case of this customer says that they work again, so that this one may
    not; and all that others owe, too. The rest of them is for this one to tell from now on.
    """
    owing = await _owing(work, kept, well)
    debts = {id: {one.id: _debts(one)[id] for one in (kept, *owing) if id in _debts(one)} for id in sorted(well)}
    shared = {id: by for id, by in debts.items() if by.keys() > {kept.id}}
    paid = {id for id, by in shared.items() if not await allclear.claim(work, kept, id, by)}
    return paid, {*shared}


async def _owing(work: Work, kept: Record, services: Collection[str]) -> list[Record]:
    """The other cases of this customer that owe the all-clear of any of these services."""
    where = {"tenant": kept.tenant, "facts.owes": {"$in": _owes(kept.facts["customer"], services)}}
    return [one for one in await work.store.find(TELLING.name, where) if one.id != kept.id]


async def _kept(work: Work, record: Record) -> Record:
    """What is kept of the case so far; what was told before there were rules counts."""
    try:
        return await work.store.get(TELLING.name, record.tenant, record.id)
    except NotFound:
        pass
    new, customer = _new(work, record), _customer(record)
    said = await _said(work, record, customer, "serviceAffected")
    if said is None:
        return new
    over = await _said(work, record, customer, "serviceRestored")
    new = _set(_as_told(new, Draft(said, said.unsent)), {"saying": None})
    return new.with_(facts=_believing(new, {})) if over else new


def _new(work: Work, record: Record) -> Record:
    """A case of which nothing was told."""
    seen = {"customer": _customer(record), "number": 0, "seen": clock(work)}
    return Record(TELLING.name, record.id, record.tenant, {}, {**seen, "believed": {}, "carrier": trace.headers()})


async def _said(work: Work, record: Record, customer: str, type_: str) -> Record | None:
    with suppress(NotFound):
        id = notification_id(record, customer, type_)
        return await work.store.get(CUSTOMER_NOTIFICATION.name, record.tenant, id)
    return None


async def _verdict(
    work: Work, rules: Notifications, record: Record, kept: Record, just_now: bool
) -> tuple[Case, Verdict]:
    """What would be told is only told if no window keeps it back: those are looked for last, as they take looking."""
    case = await _case(work, record, kept, just_now)
    ways, moment = rules.of(record.tenant, _customer(record)), rules.clock()
    verdict = decide(case, ways.rules, moment)
    if verdict.what == "tell" and case.going_on and (window := await _window(work, rules, record, moment)):
        verdict = decide(case, ways.rules, moment, window)
    return case, verdict


async def _case(work: Work, record: Record, kept: Record, just_now: bool) -> Case:
    body, facts = record.body, kept.facts
    going_on = body["status"] == "affected"
    since = min(_instant(body["affectedSince"]), facts["seen"])
    suffering = _services(body) if going_on else {}
    less = frozenset(facts["believed"].keys() - suffering.keys())
    is_said = just_now and body["status"] == "restored" and less <= _services(body).keys()
    well = less if is_said or not less else less - await _suffering_elsewhere(work, record, less)
    return Case(
        body.get("perceivedSeverity", "indeterminate"),
        since,
        frozenset(suffering),
        going_on,
        _instant(body["restoredAt"]) if "restoredAt" in body else None,
        body["cause"],
        body.get("expectedRestoration", ""),
        _told(facts),
        well,
        frozenset(await _ended(work, record, well)),
        Kept(**facts["kept"]) if "kept" in facts else None,
    )


async def _ended(work: Work, record: Record, well: Collection[str]) -> set[str]:
    """The services that have ended, as the record says; of those that it does not speak of as they are."""
    body = record.body
    known = {one["id"] for one in body.get("endedService") or []}
    told_here = {*_services(body), *(one["id"] for one in body.get("restoredService") or [])}
    unknown = sorted(set(well) - known - told_here)
    return known | {*await inventory.ended(work.store, record.tenant, unknown)} if unknown else known


def _told(facts: Mapping[str, Any]) -> Told | None:
    if "told" not in facts:
        return None
    told = facts["told"]
    return Told(told["at"], frozenset(told["services"]), told["cause"], told["estimate"])


async def _suffering_elsewhere(work: Work, record: Record, services: Collection[str]) -> set[str]:
    """Those of these services of this customer that another problem disturbs."""
    others = await affected.elsewhere(work, record, services)
    return {id for other in others for id in _services(other.body)}


async def _note(
    work: Work, record: Record, written: Record, kept: Record, verdict: Verdict, look_again: bool = False
) -> Record:
    """Keep what is told and decided, and when to decide again. Raises Stale when somebody else was first."""
    times = [_due(record, kept, verdict, clock(work)), clock(work) + MADE_BY if look_again else None]
    due = min((one for one in times if one is not None), default=None)
    facts: dict[str, Any] = {"verdict": verdict.what, "why": verdict.why, "due": due}
    if facts["due"] is None and record.body["status"] != "affected":
        facts["over"] = kept.facts.get("over", clock(work))
    if verdict.kept and "told" not in kept.facts:
        facts["kept"] = {"by": verdict.kept.by, "until": verdict.kept.until}
    changed = _set(kept, facts)
    if changed == written:
        return written
    if written.facts.get("saying") == kept.facts.get("saying"):
        changed = _set(changed, {"saying": None})  # it was made
    changed = await _write(work, changed)
    if record.body["status"] == "restored" and "told" not in kept.facts:
        on = f"{AFFECTED_PARTY.name}/{record.id}"
        work.audit.record("customer.spared", record.tenant, "convergedon", on, "done", reason=verdict.why)
    return changed


def _due(record: Record, kept: Record, verdict: Verdict, moment: float) -> float | None:
    """When to decide again. Whoever is owed an all-clear is not forgotten, though no event should tell of it."""
    if verdict.what == "wait":
        return verdict.until
    if record.body["status"] == "affected" or not kept.facts["believed"]:
        return None
    before = float(kept.facts.get("due", 0))
    return before if before > moment else moment + LOOK_AGAIN


# telling


async def _word(
    work: Work, rules: Notifications, record: Record, kept: Record, case: Case, verdict: Verdict, out: str
) -> tuple[Verdict, Draft | None]:
    """What is to be told; the verdict is another when the policy keeps it back or refuses it. Raises Unavailable.

    ``out`` is the message that is known to be on the bus.
    """
    customer, facts = _customer(record), kept.facts
    if facts.get("last", out) != out and not _is_out(work, facts):
        await bring_out(work, record.tenant, facts["last"])
    again = "" if verdict.type == "serviceAffected" else f"{facts['number']}"
    about = replace(record, facts={"trace": _trace(kept), "line": customer})
    body = await _notification(work, record, kept, case, verdict.type)
    found = await notification.word(work, about, customer, body, again, case.severity)
    if isinstance(found, Draft):
        return verdict, found
    if found.what == "later":
        ways = rules.of(record.tenant, customer).rules
        return decide(case, ways, rules.clock(), None, Kept("quiet hours", found.until)), None
    return Verdict("wait", "the policy refuses it", until=rules.clock() + REFUSED), None


async def _say(work: Work, rules: Notifications, record: Record, kept: Record, said: Draft) -> Record:
    """Make a message that was noted; returns the case."""
    answer = await notification.say(work, _customer(record), said)
    if answer.what == "made" and said.record.body["notificationType"] == "serviceAffected":
        seconds = round(rules.clock() - _instant(record.body["affectedSince"]), 3)
        on = f"alarm/{record.body['alarm']['id']}"
        work.audit.record("customer.told", record.tenant, "convergedon", on, "done", seconds=seconds)
    return kept


async def _see_made(work: Work, kept: Record) -> str:
    """Have the message that was noted last made and handed to all channels, if whoever noted it may have died before.

    Returns its id if it is on the bus.
    """
    saying = kept.facts.get("saying")
    if saying is None or (work.known.has_said(saying["id"]) and _is_out(work, kept.facts)):
        return ""
    is_out = await bring_out(work, kept.tenant, saying["id"])
    draft = work.resources.new(CUSTOMER_NOTIFICATION, kept.tenant, saying["body"], saying["facts"], saying["id"])
    await notification.say(work, kept.facts["customer"], draft)
    return str(saying["id"]) if is_out else ""


def _is_out(work: Work, facts: Mapping[str, Any]) -> bool:
    """Whether this process has put the last message on the bus itself: then it need not be read to be known."""
    return bool(facts.get("events")) and all(map(work.published, facts["events"]))


def _as_told(kept: Record, said: Draft) -> Record:
    """The case after a notification; what it says is what its customer believes."""
    note, messages = said
    body, well = note.body, note.body["notificationType"] in ("serviceRestored", "serviceEnded")
    named = {one["id"]: one for one in body.get("service") or []}
    less = [*(body.get("restoredService") or []), *(body.get("endedService") or [])]
    restored = {one["id"] for one in less} | (named.keys() if well else set())
    believed = {**kept.facts["believed"], **({} if well else named)}
    believed = {id: one for id, one in believed.items() if id not in restored}
    at = _instant(body["notificationTime"])
    facts = {
        "number": kept.facts["number"] + 1,
        "last": note.id,
        "events": [message.id for message in messages],
        "saying": {"id": note.id, "body": dict(note.body), "facts": dict(note.facts)},
        **_believing(kept, believed),
        "cleared": {**kept.facts.get("cleared", {}), **dict.fromkeys(restored, at)},
        "told": {
            "at": at,
            "services": sorted({*believed}),
            "cause": body.get("cause", ""),
            "estimate": body.get("expectedRestoration", ""),
        },
    }
    return _set(kept, facts)


def _believing(kept: Record, believed: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a customer who believes that these services are disturbed: it is owed their all-clear.

    A debt is named after the writing by which it came to be: a service that is disturbed again is owed another.
    """
    known = _debts(kept)
    debts = {id: known.get(id, kept.revision) for id in believed}
    return {"believed": dict(believed), "owes": _owes(kept.facts["customer"], believed), "debts": debts}


def _debts(kept: Record) -> dict[str, int]:
    """The services of which an all-clear is owed, each with the name of its debt."""
    return {id: kept.facts.get("debts", {}).get(id, 0) for id in kept.facts.get("believed", {})}


def _owes(customer: str, services: Collection[str]) -> list[str]:
    """For whom and for which services an all-clear is owed, as it is looked up."""
    return [f"{customer}|{id}" for id in sorted(services)]


async def _notification(work: Work, record: Record, kept: Record, case: Case, type_: str) -> dict[str, Any]:
    body, believed = record.body, kept.facts["believed"]
    well = [believed[id] for id in sorted(case.well - case.gone)]
    gone = [believed[id] for id in sorted(case.well & case.gone)]
    ended = {"endedService": gone} if gone else {}
    said = {
        "notificationType": type_,
        "relatedParty": body["relatedParty"],
        "productOrder": body.get("productOrder") or [],
        "alarm": body["alarm"],
        "cause": body["cause"],
        "affectedSince": body["affectedSince"],
        "affectedParty": {"id": record.id, "href": work.resources.href(AFFECTED_PARTY.name, record.id)},
    }
    if type_ == "serviceRestored":
        restored = body.get("restoredAt") or await _restored_since(work, record, case.well)
        text = f"{_names(well)} works again since {restored}."
        text += f" {_names(gone)} has ended." if gone else ""
        return {**said, "service": well, "restoredAt": restored, "text": text, **ended}
    if type_ == "serviceEnded":
        text = f"{_names(gone)} has ended, and with it the disturbance since {body['affectedSince']}."
        return {**said, "service": gone, "endedAt": body.get("endedAt") or now(), "text": text}
    estimate = body.get("expectedRestoration")
    until = f" It is expected to work again at {estimate}." if estimate else ""
    text = f"{_names(body['service'])} has been disturbed since {body['affectedSince']}: {body['cause']}.{until}"
    text += f" {_names(well)} works again." if well else ""
    text += f" {_names(gone)} has ended." if gone else ""
    said |= {"service": body["service"], "text": text, **ended}
    return said | ({"restoredService": well} if well else {}) | ({"expectedRestoration": estimate} if estimate else {})


async def _restored_since(work: Work, record: Record, well: Collection[str]) -> str:
    """Since when services work again that suffered from another problem in the end."""
    where = {"tenant": record.tenant, "facts.parties": _customer(record), "body.status": "restored"}
    others = await work.store.find(AFFECTED_PARTY.name, where)
    return max((one.body["restoredAt"] for one in others if well & _services(one.body).keys()), default=now())


async def _settle(work: Work, rules: Notifications, record: Record, considered: Considered) -> None:
    """What this record says may concern others by which its customer was told of the same services.

    One that goes on as part of another passes on that it was told; of a service that works again each customer hears
    once, by whichever it suffered from last. What only goes on ends nothing for anybody.
    """
    mine, alone = considered
    cleared = mine.facts.get("cleared", {})
    if "continuedBy" in record.body and "told" in mine.facts:
        await _pass_on(work, rules, mine, record.body["continuedBy"]["id"])
    ended = [*(record.body.get("restoredService") or []), *(record.body.get("endedService") or [])]
    if record.body["status"] == "affected" and not (cleared or ended):
        return
    services = {*_services(record.body), *cleared, *(one["id"] for one in ended)}.difference(alone)
    for other in await _owing(work, mine, services) if services else ():
        if said := await _paid_by(work, mine, other, cleared):
            other = await _write(work, _relieved(other, said))
        about = await work.store.get(AFFECTED_PARTY.name, record.tenant, other.id)
        told = await consider(work, rules, about, in_time=True)
        if told.case.facts.get("cleared", {}) != other.facts.get("cleared", {}):  # others owe that no more
            await _settle(work, rules, about, told)


async def _paid_by(work: Work, mine: Record, other: Record, cleared: Collection[str]) -> set[str]:
    """The services of which this case has said that they work again for that other one, too."""
    both = [id for id in cleared if id in _debts(other) and id not in _debts(mine)]
    return {id for id in both if await allclear.is_paid(work, mine, other, id, _debts(other)[id])}


def _relieved(kept: Record, said: Collection[str]) -> Record:
    """A case whose customer is told elsewhere that these services work again."""
    believed = {id: one for id, one in kept.facts["believed"].items() if id not in said}
    told = {**kept.facts["told"], "services": [id for id in kept.facts["told"]["services"] if id not in said]}
    return _set(kept, {**_believing(kept, believed), "told": told})


async def _pass_on(work: Work, rules: Notifications, kept: Record, heir: str) -> None:
    """The customer knows of the problem of which this one was found to be a part: what is new of it is an update."""
    record = await work.store.get(AFFECTED_PARTY.name, kept.tenant, heir)
    its = await _kept(work, record)
    believed = {id: one for id, one in kept.facts["believed"].items() if id in _services(record.body)}
    if "told" in its.facts or not believed:
        return
    passed = await _write(work, _set(its, {"told": kept.facts["told"], **_believing(its, believed)}))
    await consider(work, rules, record, passed, in_time=True)


# windows


async def _window(work: Work, rules: Notifications, record: Record, moment: float) -> Kept | None:
    """The planned work in which this problem is expected, by the calendar or by an order of its customer."""
    windows = [one for one in rules.windows if one.tenant == record.tenant and one.begin <= moment < one.end]
    found = None
    if windows:
        devices, sites = await _devices(work, record), await _sites(work, record)
        found = window_over(windows, record.tenant, devices, sites, moment)
    ordered = await _order_window(work, rules, record, moment)
    return max(filter(None, (found, ordered)), key=lambda one: one.until, default=None)


async def _devices(work: Work, record: Record) -> set[str]:
    """The devices whose maintenance explains the problem: its part's own, and those at the other end of its links.

    A shared-risk group does not fail because somebody works on one of many devices.
    """
    found: set[str] = set()
    topology = await work.known.topologies.of(work.store, record.tenant)
    for place in affected.places(record):
        if kind_of(place) in ("device", "group"):
            found.add(place)
            continue
        ends = {end for link in {place, *topology.witnessed(place)} for end in topology.ends.get(link, ())}
        found |= {device_of(end) for end in {*ends, place}}
    return found


async def _sites(work: Work, record: Record) -> set[str]:
    """The sites of the services that suffer."""
    found = set()
    for id in _services(record.body):
        with suppress(NotFound):
            service = await work.store.get(SERVICE.name, record.tenant, id)
            found |= {one.get("site", "") for one in service.facts.get("present", {}).get("wanted", [])}
    return found - {""}


async def _order_window(work: Work, rules: Notifications, record: Record, moment: float) -> Kept | None:
    """The time that an open order gives for a change of one of these services."""
    if not rules.order_windows:
        return None
    where = {"tenant": record.tenant, "facts.parties": _customer(record)}
    services, found = _services(record.body).keys(), []
    for order in await work.store.find(PRODUCT_ORDER.name, where):
        changed = {(item.get("product") or {}).get("id") for item in items(order.body)}
        begin, end = (order.body.get(name) for name in ("requestedStartDate", "requestedCompletionDate"))
        if order.body["state"] in {*ENDED, "draft"} or not (begin and end and changed & services):
            continue
        first, last = _instant(begin), _instant(end)
        if first <= moment < last <= first + rules.order_windows:
            found.append(Kept(f"the change that order {order.id} asks for", last))
    return max(found, key=lambda one: one.until, default=None)


# summaries


async def _keep_for_summary(work: Work, record: Record, verdict: Verdict) -> None:
    """Put an end that was never told among those that are summed up together. Doing it twice is doing it once."""
    customer, by = _customer(record), verdict.kept.by if verdict.kept else ""
    key = f"{by}|{verdict.until:.0f}" if verdict.kept else record.id
    id = str(uuid5(NAMESPACE_URL, f"summary|{record.tenant}|{customer}|{key}"))
    try:
        summary = await work.store.get(TELLING.name, record.tenant, id)
    except NotFound:
        facts = {"customer": customer, "by": by, "entries": [], "done": [], "number": 0, "carrier": trace.headers()}
        summary = Record(TELLING.name, id, record.tenant, {}, facts)
    if record.id in {*summary.facts["done"], *(one["id"] for one in summary.facts["entries"])}:
        return
    body = record.body
    entry = {name: body[name] for name in ("service", "affectedSince", "cause")}
    entry |= {"id": record.id, "restoredAt": body.get("restoredAt") or now()}
    entries = [*summary.facts["entries"], entry]
    changed = {"entries": entries, "due": verdict.until, "over": None, "party": body["relatedParty"]}
    await _write(work, _set(summary, changed))


async def _sum_up(work: Work, summary: Record) -> None:
    """Tell a customer what was kept back and is over."""
    facts = summary.facts
    entries = sorted(facts["entries"], key=lambda one: (one["affectedSince"], one["id"]))
    services = {one["id"]: one for entry in entries for one in entry["service"]}
    told = [{name: value for name, value in entry.items() if name != "id"} for entry in entries]
    body = {
        "notificationType": "serviceSummary",
        "relatedParty": facts["party"],
        "service": [services[id] for id in sorted(services)],
        "disturbance": told,
        "text": _summary(facts["by"], entries),
        **({"keptBackBy": facts["by"]} if facts["by"] else {}),
    }
    about = replace(summary, facts={"trace": _trace(summary), "line": facts["customer"]})
    answer = await notification.tell(work, about, facts["customer"], body, f"{facts['number']}")
    if answer.what == "later":
        await _write(work, _set(summary, {"due": answer.until}))
        return
    # one that was made before a crash may say less than is kept by now: the rest is told in the next one
    said = (answer.record.body if answer.record else body).get("disturbance") or []
    left = [entry for entry, one in zip(entries, told, strict=True) if one not in said]
    done = [*facts["done"], *(entry["id"] for entry in entries if entry not in left)]
    when = {"due": clock(work), "over": None} if left else {"due": None, "over": clock(work)}
    await _write(work, _set(summary, {"entries": left, "done": done, "number": facts["number"] + 1, **when}))


def _summary(by: str, entries: Collection[Mapping[str, Any]]) -> str:
    each = [
        f"{_names(one['service'])} was disturbed from {one['affectedSince']} to {one['restoredAt']}: {one['cause']}."
        for one in entries
    ]
    return " ".join([f"Kept back by {by}:" if by else "It is over:", *each])


# records


def _customer(record: Record) -> str:
    return str(record.body["relatedParty"][0]["id"])


def _services(body: Mapping[str, Any]) -> Services:
    return {one["id"]: one for one in body.get("service") or []}


def _names(services: Collection[Mapping[str, Any]]) -> str:
    return ", ".join(f"{service['name']} {service['id']}" for service in services)


def _instant(text: str) -> float:
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _trace(kept: Record) -> str:
    return str(kept.facts.get("carrier", {}).get("traceparent", "--").split("-")[1])


def _set(record: Record, facts: Mapping[str, Any]) -> Record:
    """With these facts; without those that are None."""
    known = {**record.facts, **facts}
    return replace(record, facts={name: value for name, value in known.items() if value is not None})


async def _write(work: Work, record: Record) -> Record:
    """Raises Stale when somebody else was first, whether it is there already or not."""
    if record.revision:
        return await work.store.replace(record)
    try:
        return await work.store.create(record)
    except Conflict as error:
        raise Stale(f"telling {record.id} was begun by somebody else") from error
