"""From alarms to problems: what correlation concludes is written on the alarms, and whom it affects beside them.

Every change of an alarm has its neighbourhood looked at: what is open there is read, the pure answer is computed, and
what differs from it is written (``correlate``). Who writes what the network says asks for the look by itself
(``have_looked``); for what others change its event does (``take_up``). Looks of one tenant come one after the other,
and each begins after the change that asked for it, so the last one has seen everything. The answer does not depend on
what earlier looks wrote, so nothing has to be looked at because of that; a look that died half way is done again. One
look takes along those of which this process knows that they wait behind it: so the more there are, the less each costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Any

from convergedon.core import trace
from convergedon.core.bus import Message, partition, token
from convergedon.core.errors import Conflict, NotFound, Stale, Unavailable
from convergedon.core.store import Draft, Outgoing, Record, Store, find_any
from convergedon.handlers.affected_parties import AFFECTED_PARTY
from convergedon.handlers.alarms import ALARM, referred
from convergedon.handlers.service_inventory import SERVICE
from convergedon.mediation import affected, aside, inventory
from convergedon.mediation.affected import OVER, Open, Told, Wanted
from convergedon.mediation.correlation import (
    Alarm,
    Correlation,
    Topology,
    Verdict,
    called,
    closure,
    device_of,
    evidence,
    first_signs,
    kind_of,
    needed,
    partners,
    rank,
    reconsidered,
)
from convergedon.mediation.inventory import Service
from convergedon.mediation.topology import part_at
from convergedon.mediation.work import Work

CONCLUDED = frozenset(
    (
        "perceivedSeverity",
        "alarmType",
        "isRootCause",
        "why",
        "parentAlarm",
        "correlatedAlarm",
        "serviceAffecting",
        "affectedService",
        "expectedRestoration",
    )
)
"""Members of which a change has an alarm looked at: what conclusions are drawn from, and what they are."""
MOST_CORRELATED = 2_000
"""Alarms that a head lists: each of its events carries the list. All of them name it as their parent."""
OURS = "fault line"
"""Who made a change of which the event asks for no look: one was asked for, or it was made by one."""
CLOSED = dict.fromkeys(("openKey", "openAt", "openOn"))
"""What an alarm gives free when it is over: its condition's key, and its place among what is open."""


def over(alarm: Record) -> dict[str, Any]:
    """The facts that change when an alarm is over. One that disturbs customers and was never looked at keeps its place:
    a look has yet to tell of it.
    """
    if "head" in alarm.facts or not alarm.facts.get("touches"):
        return CLOSED
    was = alarm.body["perceivedSeverity"]
    return {"openKey": None} | ({} if was == "cleared" else {"was": was})


MANY, GATHERED = 10, 0.25
"""Changes of a neighbourhood that begin a storm; a look at it waits so many seconds for more of them."""
PUT_OFF, PUT_OFF_EACH, PUT_OFF_MOST = 2.0, 0.01, 60.0
"""Seconds for which a look may be left to a later one; how many more for each change that was, though for no more than
there are parts; and how many in all. So it waits as long as a hundred changes a second come: of a cut that is half
known, links and devices by the thousand are inferred to be taken back, which takes longer.
"""
WIDENED = 3
"""Times that a look is widened by the parts of which it finds that it has something to say; what is left after that is
looked at by itself. Of a cut that is half known there are devices by the hundred, all in each other's neighbourhood.
"""
WAITED = 0.25
"""Seconds after which a message was not alone: then its whole device is looked at, for all that wait behind it."""

# asking for a look


def is_known(message: Message) -> bool:
    """Whether an event of an alarm asks for no look: nothing is concluded from what changed, or one was asked for."""
    fields = message.body["event"].get("fieldPath")
    return message.body.get("by") == OURS or (fields is not None and CONCLUDED.isdisjoint(fields.split(",")))


async def take_up(work: Work, message: Message) -> None:
    """An event of an alarm: have its neighbourhood looked at, if anything is concluded from what changed."""
    event = message.body["event"]
    tenant, id = message.body["tenant"], message.body["id"]
    for look in [_look(tenant, place, event["eventId"]) for place in await _places(work, tenant, id, event)]:
        await work.bus.publish(look.subject, look.body, look.id, look.headers)


async def _places(work: Work, tenant: str, id: str, event: Mapping[str, Any]) -> list[str]:
    """Where an alarm's change matters: at its own place, and at the head that it leaves or is no more under."""
    try:
        alarm = await work.store.get(ALARM.name, tenant, id)
    except NotFound:
        said = event["event"][ALARM.name].get("alarmedObject") or {}
        return [own(id), *([said["id"]] if said.get("id") else [])]
    if "place" not in alarm.facts:
        return [own(id)]
    head = [alarm.facts["headAt"]] if alarm.body["state"] == "cleared" and "headAt" in alarm.facts else []
    return list(dict.fromkeys([alarm.facts["place"], *head]))


def own(id: str) -> str:
    """The place of an alarm that a client reported: where it is said to be is not ours to judge, so it stands alone."""
    return f"alarm {id}"


def _look(tenant: str, place: str, cause: str, changes: int = 1, also: Sequence[str] = (), of: str = "") -> Outgoing:
    """A look at a place, and at others with it. Where many looks at one neighbourhood may come (``of`` names it), they
    have a subject of their own, by which the newest of them is found.
    """
    about = {"kind": ALARM.name, "tenant": tenant, "id": place}
    body = {"look": place, "also": [*also], "changes": changes, "about": about}
    subject = f"task.{partition(f'alarms of {tenant}')}.{token(tenant)}" + (f".{token(of)}" if of else "")
    return Outgoing(f"{cause}:{place}", subject, body, trace.headers())


def _near(message: Message, topology: Topology) -> frozenset[str]:
    """The neighbourhood at which a message asks to look."""
    return reconsidered((message.body["look"], *message.body.get("also", ())), topology)


async def have_looked(work: Work, tenant: str, places: Iterable[str], cause: str) -> None:
    """Have these places looked at: one look for all that are of one neighbourhood."""
    for near, changed in (await neighbourhoods(work, tenant, places)).items():
        look = _look(tenant, changed[0], cause, len(changed), of=min(near) if len(near) > 1 else "")
        if len(changed) < MANY:
            work.known.asks(tenant, near, look.id)
        await work.bus.publish(look.subject, look.body, look.id, look.headers)


async def neighbourhoods(work: Work, tenant: str, places: Iterable[str]) -> dict[frozenset[str], list[str]]:
    """The neighbourhoods of these places, each with those that are of it."""
    topology = await work.known.topologies.of(work.store, tenant)
    found: dict[frozenset[str], list[str]] = {}
    for place in sorted(places):
        found.setdefault(reconsidered([place], topology), []).append(place)
    return found


def look_at_head(alarm: Record, topology: Topology) -> list[Outgoing]:
    """A look at the head that an alarm leaves when it is cleared, where one at its own place does not reach that."""
    place = alarm.facts["place"]
    head = alarm.facts.get("headAt", place)
    reached = head == place or _is_in(head, reconsidered([place], topology))
    return [] if reached else [_look(alarm.tenant, head, f"{alarm.id}:{alarm.revision}")]


def _is_in(place: str, near: Collection[str]) -> bool:
    """Whether a place is among these, of which a device stands for all that is part of it."""
    return place in near or device_of(place) in near


def is_going_on(message: Message) -> bool:
    """Whether an event of a service says neither that it ended nor that it is there again."""
    event = message.body["event"]
    state = event["event"][SERVICE.name].get("state")
    return event["eventType"] == "ServiceStateChangeEvent" and state not in ("terminated", "active")


async def let_go(work: Work, message: Message) -> None:
    """A service has ended: those who suffer by it hear so now, not when what disturbs it is over.

    And one that is there again, because the order that ended it was taken back, may be disturbed.
    """
    tenant, id, event = message.body["tenant"], message.body["id"], message.body["event"]
    customers = {*message.body.get("parties", ()), *inventory.customers(event["event"][SERVICE.name])}
    where = {"tenant": tenant, "facts.openFor": {"$in": sorted(customers)}}
    told = await work.store.find(AFFECTED_PARTY.name, where) if customers else []
    mine = [record for record in told if any(service["id"] == id for service in record.body["service"])]
    places = {place for record in mine for place in affected.places(record)}
    for place in sorted(places | {*await inventory.places(work.store, tenant, id)}):
        look = _look(tenant, place, event["eventId"])
        await work.bus.publish(look.subject, look.body, look.id, look.headers)


async def looks(store: Store, tenant: str, cause: str) -> list[Outgoing]:
    """Looks at everything that is open, for when the topology has changed."""
    kinds = (ALARM.name, AFFECTED_PARTY.name)
    alarms, told = [await store.find(kind, {"tenant": tenant, "facts.openAt": {"$gt": ""}}) for kind in kinds]
    places = {record.facts["openAt"] for record in alarms} | {one for record in told for one in affected.places(record)}
    return [_look(tenant, place, cause) for place in sorted(places)]


# a look


async def correlate(work: Work, message: Message) -> None:
    """Look at a neighbourhood, unless that was done since it was asked for, and at those that wait behind it.

    One that comes again goes alone: what kept it from its end may be one of the others.
    """
    tenant, place = message.body["about"]["tenant"], message.body["look"]
    topology = await work.known.topologies.of(work.store, tenant)
    near = _near(message, topology)
    taken_along = work.known.took_up(tenant, message.id)
    if taken_along or work.known.has_seen(tenant, near, message.position):
        return
    if len(near) == 1 and device_of(place) and time() - message.stored > WAITED:
        near = reconsidered([device_of(place)], topology)
    changes = message.body.get("changes", 1)
    work.known.asked(tenant, near, changes)
    newest = await work.bus.last(message.subject) if message.behind else None
    if changes >= MANY and not _is_left_to(newest, work, message, near, topology):
        newest = await _gathered(work, message, near, topology)
    if _is_left_to(newest, work, message, near, topology):
        return
    beside = work.known.take_along(tenant) if message.attempt == 1 else {}
    look = await _read(work, tenant, near.union(*beside.values()), topology)
    for _ in range(WIDENED):
        if not (beyond := look.beyond()):
            break
        look = await _read(work, tenant, look.near | reconsidered(beyond, topology), topology)
    if not await look.write():
        again = f"again {message.position.sequence}"
        await work.bus.publish(message.subject, message.body, f"{again}:{place}", trace.headers())
        return
    if turned := look.turned():
        further = _look(tenant, turned[0], message.id, also=turned[1:])
        await work.bus.publish(further.subject, further.body, further.id, further.headers)
    work.known.taken_along(tenant, beside)
    for seen in {near, look.near}:
        work.known.note(tenant, seen, newest.position if newest else message.position)


async def _gathered(work: Work, message: Message, near: frozenset[str], topology: Topology) -> Message | None:
    """The newest request of a storm, when there is one that does for this, or the storm seems to be over."""
    while True:
        await asyncio.sleep(GATHERED)
        newest = await work.bus.last(message.subject)
        if _is_left_to(newest, work, message, near, topology):
            return newest
        if not (work.known.is_hearing(message.body["about"]["tenant"], near) and _may_wait(work, message, near)):
            return newest


def _is_left_to(newest: Message | None, work: Work, message: Message, near: frozenset[str], topology: Topology) -> bool:
    """Whether the newest request is for the same neighbourhood, so that its look does for this one: for a while.

    In a storm that is the rule, and a look at half of it would be taken back by the next.
    """
    if newest is None or newest.position.sequence <= message.position.sequence or "look" not in newest.body:
        return False
    return _near(newest, topology) == near and _may_wait(work, message, near)


def _may_wait(work: Work, message: Message, near: frozenset[str]) -> bool:
    waited, changes = work.known.waiting(message.body["about"]["tenant"], near)
    return waited < min(PUT_OFF + PUT_OFF_EACH * min(changes, len(near)), PUT_OFF_MOST)


async def _read(work: Work, tenant: str, near: frozenset[str], topology: Topology) -> Look:
    (there, watched), told = await aside.both(
        _alarms(work, tenant, near, topology), _open_at(work, AFFECTED_PARTY.name, tenant, near)
    )
    open_ = [record for record in there if record.body["state"] != "cleared"]
    cleared = [record for record in there if record.body["state"] == "cleared" and "openAt" in record.facts]
    return Look(work, tenant, near, topology, open_, [one for one in told if OVER not in one.facts], watched, cleared)


async def _alarms(
    work: Work, tenant: str, near: frozenset[str], topology: Topology
) -> tuple[list[Record], Sequence[str]]:
    """What is open in a neighbourhood and where its answer depends on it, and the devices there that may be cut off."""
    alone = next((place.partition(" ")[2] for place in near if place.startswith("alarm ")), None)
    if alone is not None:
        found = await work.store.find(ALARM.name, {"id": alone})
        return [record for record in found if record.tenant == tenant and "place" not in record.facts], ()
    known = needed(near, topology)
    found, watched = await _known_at(work, tenant, known, topology)
    failing = {_place(record) for record in found if _fails(record)}
    inferred = {record.facts["openAt"] for record in found if record.facts.get("inferred")}
    if others := partners(watched, failing, inferred, topology) - known:  # hardly ever: then they must be known as well
        further, _ = await _known_at(work, tenant, needed({*near, *others}, topology) - known, topology)
        found = list({record.id: record for record in (*found, *further)}.values())
    return found, sorted({*watched, *others})


async def _known_at(
    work: Work, tenant: str, known: Collection[str], topology: Topology
) -> tuple[list[Record], Sequence[str]]:
    """What is open there, with what tells which of the devices there are cut off, and those that may be."""
    there = await _open_at(work, ALARM.name, tenant, known)
    watched = sorted(place for place in known if topology.is_watched(place))
    return there + await _heard_of(work, tenant, known, watched, topology, there), watched


async def _heard_of(
    work: Work,
    tenant: str,
    known: Collection[str],
    watched: Sequence[str],
    topology: Topology,
    there: Sequence[Record],
) -> list[Record]:
    """The alarms beyond what is known that tell which of these devices are cut off.

    Of each two signs are looked for first: hardly ever are they there, and then the others matter not.
    """

    def beyond(places: Iterable[str]) -> set[str]:
        return {place for place in places if place not in known and device_of(place) not in known}

    first = {device: first_signs(device, topology) for device in watched}
    looked = set().union(*first.values())
    found = await _exactly_at(work, tenant, beyond(looked))
    open_ = {record.facts["openAt"] for record in (*there, *found)}
    doubtful = [device for device in watched if not first[device].isdisjoint(open_)]
    return found + await _exactly_at(work, tenant, beyond(evidence(doubtful, topology)) - looked)


async def _exactly_at(work: Work, tenant: str, places: Collection[str]) -> list[Record]:
    """What is open at these places alone."""
    return await find_any(work.store, ALARM.name, {"tenant": tenant}, "facts.openAt", sorted(places))


async def _open_at(work: Work, kind: str, tenant: str, places: Collection[str]) -> list[Record]:
    """What is open at these places; a device stands for all that is part of it."""
    devices = {place for place in places if kind_of(place) == "device"}
    others = [place for place in places if device_of(place) not in devices]
    at, on = await aside.both(
        find_any(work.store, kind, {"tenant": tenant}, "facts.openAt", sorted(others)),
        find_any(work.store, kind, {"tenant": tenant}, "facts.openOn", sorted(devices)),
    )
    return list({record.id: record for record in (*at, *on)}.values())


@dataclass
class Look:
    """One look: what is open in a neighbourhood, and what is known of whom it affects."""

    work: Work
    tenant: str
    near: frozenset[str]
    topology: Topology
    open: Sequence[Record]
    told: Sequence[Record]
    watched: Sequence[str]
    cleared: Sequence[Record]

    def __post_init__(self) -> None:
        self._inferred = {record.facts["openAt"]: record for record in self.open if record.facts.get("inferred")}
        self._records = {_key(record): record for record in self.open if not record.facts.get("inferred")}
        self._correlation = Correlation(map(_alarm, self._records.values()), self.topology)
        self._near = {key: one for key, one in self._records.items() if self._is_near(_place(one))}
        self._verdicts = {key: self._correlation.verdict(key) for key in sorted(self._near)}
        self._problems: dict[tuple[str, str | None], list[str]] = {}
        for key, found in self._verdicts.items():
            self._problems.setdefault((found.part, found.root), []).append(key)

    def beyond(self) -> set[str]:
        """The parts outside of which this look finds something else than is written: heads that alarms leave or join,
        and devices.
        """
        heads = {head for key, verdict in self._verdicts.items() for head in self._exchanged(self._near[key], verdict)}
        return {head for head in heads if not self._is_near(head)} | {*self.turned()}

    def _exchanged(self, record: Record, verdict: Verdict) -> set[str]:
        """The parts that an alarm leaves and joins, where it is written under another head than is found."""
        root = self._records[verdict.root] if verdict.root else self._inferred.get(verdict.part)
        if "place" not in record.facts or (root and root.id == record.facts.get("head")):
            return set()
        return {verdict.part, str(record.facts.get("headAt", verdict.part))}

    def turned(self) -> list[str]:
        """Devices outside that are found cut off, or so no more, or by other signs, and of which that is not written;
        and their groups.
        """
        places = [*self.watched, *sorted(self.topology.groups(self.watched))]
        outside = [place for place in places if not self._is_near(place)]
        said = {place: self._inferred[place].body.get("why") for place in outside if place in self._inferred}
        return [one for one in outside if self._correlation.why_root(one) != said.get(one, "")]

    def _is_near(self, place: str) -> bool:
        return _is_in(place, self.near)

    async def write(self) -> bool:
        """Write what differs: what is found to fail, whom it affects, what follows, and what is found no more.

        Says whether all of it was written: somebody else may have changed an alarm meanwhile.
        """
        await aside.all_of(self._infer(part, under) for part, under in self._found_to_fail().items())
        services = await self._services()
        await self._tell_of_what_is_over()
        inferred = {part: record for part, record in self._inferred.items() if self._is_near(part)}
        roots = [part for part in inferred if self._correlation.root_of(part)]
        over = [record for part, record in inferred.items() if part not in roots]
        concluded = [
            *(self._of_alarm(key, services) for key in self._verdicts),
            *(self._of_head(inferred[part], part, services) for part in roots),
        ]
        _, outcomes = await aside.both(self._write_affected(services), self._written(concluded))
        freed = (self.work.resources.changed(ALARM, one, facts=CLOSED | {"was": None}) for one in self.cleared)
        outcomes += await self._written([*map(self._dismissed, over), *freed])
        written = {outcome.id for outcome in outcomes if isinstance(outcome, Record)}
        for record in over:
            if record.id in written:
                with trace.span("alarm.clear", record.facts.get("carrier")):
                    self.work.audit.record("alarm.cleared", self.tenant, "convergedon", f"alarm/{record.id}", "done")
        return len(written) == len(outcomes)

    async def _written(self, drafts: Sequence[Draft | None]) -> list[Record | Conflict | Stale]:
        return await self.work.resources.write([draft for draft in drafts if draft])

    def _found_to_fail(self) -> dict[str, list[Record]]:
        """The parts that are roots though no alarm says so, with the alarms from which that follows."""
        found: dict[str, list[Record]] = {}
        for key, verdict in self._verdicts.items():
            if verdict.root is None:
                found.setdefault(verdict.part, []).append(self._near[key])
        return found

    async def _infer(self, part: str, under: Sequence[Record]) -> None:
        """Raise the alarm of a link, group or device that is taken to fail, unless it is raised."""
        if part in self._inferred:
            return
        body = _inferred(part, under)
        first = min(under, key=lambda record: (record.body["alarmRaisedTime"], _key(record)))
        with trace.span("alarm.infer", first.facts.get("carrier")):
            facts = {
                "place": part,
                "openAt": part,
                "openKey": f"inferred {part}",
                "key": f"inferred {part}",
                "inferred": True,
                "count": 1,
                "carrier": trace.headers(),
                "parties": [],
            }
            try:
                draft = self.work.resources.new(ALARM, self.tenant, {**body, "state": "raised"}, facts, by=OURS)
                made = await self.work.store.create(*draft)
            except Conflict as error:
                raise Unavailable(f"the alarm of {called(part)} was inferred by somebody else") from error
            self.work.audit.record("alarm.inferred", self.tenant, "convergedon", f"alarm/{made.id}", "done", part=part)
        self._inferred[part] = made

    def _dismissed(self, record: Record) -> Draft | None:
        """The network does not say any more what this was concluded from."""
        with trace.span("alarm.clear", record.facts.get("carrier")):
            body = {"state": "cleared", "perceivedSeverity": "cleared", "clearSystemId": "convergedon"}
            return self.work.resources.changed(ALARM, record, body, CLOSED, by=OURS)

    # what stands on what fails

    def _failing(self, part: str, fails: bool) -> frozenset[str]:
        return frozenset(closure([part], self.topology.below)) if fails else frozenset()

    def _all_failing(self) -> dict[str, frozenset[str]]:
        """key of an alarm, or a part that is found to fail -> what is out of service because of it."""
        found = {key: self._failing(_place(one), _fails(one)) for key, one in self._near.items()}
        return found | {part: self._failing(part, True) for part in self._inferred if self._is_near(part)}

    async def _services(self) -> dict[str, list[Service]]:
        """key of an alarm, or a part that is found to fail -> the services that it takes out of service."""
        failing = self._all_failing()
        ids = {part_at(self.tenant, part)[1]: part for parts in failing.values() for part in parts if _is_part(part)}
        standing = await inventory.standing(self.work.store, self.tenant, sorted(ids))
        at: dict[str, dict[str, Service]] = {}
        for id, services in standing.items():
            at.setdefault(ids[id], {}).update({service.id: service for service in services})
        found = {
            name: {id: service for part in parts for id, service in at.get(part, {}).items()}
            for name, parts in failing.items()
        }
        for key, record in self._near.items():
            if "place" not in record.facts:  # what a client reported says itself what it affects
                listed = [referred(one) for one in record.body.get("affectedService") or []]
                named = await inventory.named(self.work.store, self.tenant, listed)
                found[key] = {one.id: one for one in named if not one.ended}
        return {name: [services[id] for id in sorted(services)] for name, services in found.items()}

    # whom it affects

    async def _tell_of_what_is_over(self) -> None:
        """Alarms that were over before anybody looked: their customers hear of both, unless something that still fails
        explains them.
        """
        told = {problem for record in self.told for problem in affected.problems(record)}
        unseen = [one for one in self.cleared if "head" not in one.facts and one.id not in told]
        brief = [one for one in unseen if one.facts.get("touches")]
        for record in sorted(brief, key=lambda one: str(one.body["alarmRaisedTime"])):
            place = _place(record)
            if self._correlation.top(place) not in (None, place):
                continue
            touched = {one["id"] for services in record.facts["touches"].values() for one in services}
            services = await inventory.named(self.work.store, self.tenant, sorted(touched))
            as_raised = record.with_({"perceivedSeverity": record.facts.get("was", "indeterminate")})
            await affected.tell_of_both(self.work, self._for_each(as_raised, place, services))

    def _for_each(self, record: Record, place: str, services: Sequence[Service]) -> dict[Told, Wanted]:
        """What an alarm that is over meant for each of its customers."""
        since, cause = record.body["alarmRaisedTime"], _cause(record)
        return {
            Told(customer, record.id): Wanted(record, place, device_of(place), theirs, since, record.id, cause)
            for customer, theirs in _by_customer(services).items()
        }

    async def _write_affected(self, services: Mapping[str, Sequence[Service]]) -> None:
        wanted: dict[Told, Wanted] = {}
        for key, record in self._near.items():
            if self._verdicts[key].root == key:
                wanted |= self._wanted(record, _place(record), _cause(record), services)
        for part, record in self._inferred.items():
            if self._is_near(part) and self._correlation.root_of(part):
                wanted |= self._wanted(record, part, f"{called(part)} fails", services)
        settled = [Open(record, decided) for record in self.told if (decided := self._decided(record))]
        await affected.write(self.work, settled, wanted, self._over(settled))

    def _over(self, told: Sequence[Open]) -> set[str]:
        """The problems of which the network says that they are over: in its own words, or by those that they were
        inferred from. One that is found to be another, though all still fails, is not.
        """
        there = {one.id for one in self.open}
        inferred = {
            one.id
            for part, one in self._inferred.items()
            if not (self._correlation.root_of(part) or there.issuperset(one.facts.get("listed") or ()))
        }
        return {problem for one in told for problem in one.decided if problem not in there} | inferred

    def _wanted(
        self, record: Record, place: str, cause: str, services: Mapping[str, Sequence[Service]]
    ) -> dict[Told, Wanted]:
        """What a problem means for each of its customers."""
        root = None if record.facts.get("inferred") else _key(record)
        firsts = self._firsts(root, self._problems.get((place, root), []), services)
        return {
            Told(customer, record.id): Wanted(
                record, place, device_of(place), theirs, first.body["alarmRaisedTime"], first.id, cause
            )
            for customer, theirs in _by_customer(services.get(root or place, ())).items()
            if (first := firsts.get(customer, firsts.get(None)))
        }

    def _firsts(
        self, root: str | None, keys: Sequence[str], services: Mapping[str, Sequence[Service]]
    ) -> dict[str | None, Record]:
        """customer -> the root, or the first alarm of its problem that disturbs the customer; for all others (None)
        the root, or the first of all.
        """
        disturbing: dict[str | None, list[str]] = {None: [root] if root else [*keys]}
        for key in keys:
            for customer in {one for service in services.get(key, ()) for one in service.customers}:
                disturbing.setdefault(customer, [root] if root else []).append(key)
        return {
            customer: self._near[min(begun, key=lambda key: (self._near[key].body["alarmRaisedTime"], key))]
            for customer, begun in disturbing.items()
            if begun
        }

    def _decided(self, told: Record) -> list[str]:
        """The problems of a record on which this look decides: of no part that is, or fails because of one, outside."""
        return [problem for problem, place in affected.problems(told).items() if self._is_decided(place)]

    def _is_decided(self, place: str) -> bool:
        top = self._correlation.top(place)
        return self._is_near(place) and (top is None or self._is_near(top))

    # what is written on alarms

    def _of_alarm(self, key: str, services: Mapping[str, Sequence[Service]]) -> Draft | None:
        record, verdict = self._near[key], self._verdicts[key]
        if "place" not in record.facts:
            return None
        head = self._head_of(verdict)
        under = self._under(_place(record), key) if head.id == record.id else []
        why = verdict.why + self._correlation.heard_of(_place(record), under)
        return self._concluded(
            record, None if head.id == record.id else head, verdict.part, why, under, services.get(key, ())
        )

    def _of_head(self, record: Record, part: str, services: Mapping[str, Sequence[Service]]) -> Draft | None:
        under = self._under(part, None)
        said = _inferred(part, [self._near[key] for key in under])
        return self._concluded(record, None, part, self._correlation.signs(part), under, services.get(part, ()), said)

    def _concluded(
        self,
        record: Record,
        head: Record | None,
        part: str,
        why: str,
        under: Sequence[str],
        services: Sequence[Service],
        said: Mapping[str, Any] | None = None,
    ) -> Draft | None:
        """An alarm with what is concluded of it; ``head`` is None for one that is a root itself."""
        parents, parent = self._parents(record, head)
        children, listed = self._children(record, under)
        change = {
            **(said or {}),
            "isRootCause": head is None,
            "why": why,
            "serviceAffecting": bool(services),
            "affectedService": [inventory.reference(self.work.resources, service) for service in services],
            **parents,
            **children,
        }
        facts = {"headAt": part, "parent": parent, "listed": listed, **touches(self.work, services)}
        facts["head"] = (head or record).id
        also = self._looks_elsewhere(record, (head or record).id, part)
        with trace.span("alarm.correlate", record.facts.get("carrier")):
            return self.work.resources.changed(ALARM, record, change, facts, also, by=OURS)

    def _head_of(self, verdict: Verdict) -> Record:
        return self._records[verdict.root] if verdict.root else self._inferred[verdict.part]

    def _under(self, part: str, root: str | None) -> list[str]:
        """The alarms that follow from this one."""
        return [key for key in self._problems.get((part, root), ()) if key != root]

    def _parents(self, record: Record, head: Record | None) -> tuple[dict[str, Any], str | None]:
        """The network's parent beside those that people gave it; those are theirs."""
        said = record.body.get("parentAlarm") or []
        people = [one for one in said if referred(one) != record.facts.get("parent")]
        ours = head if head and head.id not in map(referred, people) else None
        found = [*people, self._reference(ours)] if ours else people
        return ({"parentAlarm": found} if found != said else {}), ours.id if ours else None

    def _children(self, record: Record, under: Sequence[str]) -> tuple[dict[str, Any], list[str] | None]:
        """The network's children of a head, as many as it may list, beside those that people put there."""
        said = record.body.get("correlatedAlarm") or []
        former = set(record.facts.get("listed") or ())
        people = [one for one in said if referred(one) not in former]
        ids = set(map(referred, people))
        ours = [self._near[key] for key in under[:MOST_CORRELATED] if self._near[key].id not in ids]
        found = [*people, *map(self._reference, ours)]
        return ({"correlatedAlarm": found} if found != said else {}), [one.id for one in ours] or None

    def _reference(self, record: Record) -> dict[str, str]:
        return {"id": record.id, "href": self.work.resources.href(ALARM.name, record.id)}

    def _looks_elsewhere(self, record: Record, head: str, part: str) -> list[Outgoing]:
        """Looks at the heads that the alarm leaves and joins, where this one does not reach: they list it."""
        if record.facts.get("head") == head:
            return []
        heads = {part, str(record.facts.get("headAt", part))}
        cause = f"{record.id}:{record.revision}"
        return [_look(self.tenant, place, cause) for place in sorted(heads) if not self._is_near(place)]


def _by_customer(services: Iterable[Service]) -> dict[str, list[Service]]:
    found: dict[str, list[Service]] = {}
    for service in services:
        for customer in service.customers:
            found.setdefault(customer, []).append(service)
    return found


def _key(record: Record) -> str:
    return str(record.facts.get("key") or own(record.id))


def _place(record: Record) -> str:
    return str(record.facts.get("place") or own(record.id))


def _alarm(record: Record) -> Alarm:
    body = record.body
    severity = body["perceivedSeverity"] if record.facts.get("fault") else "indeterminate"
    return Alarm(_key(record), _place(record), severity, body["alarmType"], body.get("specificProblem", ""))


def _fails(record: Record) -> bool:
    return _alarm(record).fails


def _is_part(place: str) -> bool:
    return not place.startswith("alarm ")


def _cause(record: Record) -> str:
    return record.body.get("specificProblem") or "a fault"


def _inferred(part: str, under: Sequence[Record]) -> dict[str, Any]:
    """What is said of a link, group or device that is taken to fail: as grave as the gravest sign, since the first."""
    severities = [record.body["perceivedSeverity"] for record in under]
    return {
        "alarmType": "communicationsAlarm",
        "perceivedSeverity": min(severities, key=rank),
        "probableCause": "communicationsSubsystemFailure",
        "specificProblem": f"{called(part)} fails",
        "alarmedObject": {"id": part},
        "alarmedObjectType": "sharedRiskGroup" if kind_of(part) == "group" else kind_of(part),
        "sourceSystemId": "convergedon",
        "reportingSystemId": "convergedon-correlation",
        "alarmRaisedTime": min(record.body["alarmRaisedTime"] for record in under),
    }


def touches(work: Work, services: Sequence[Service]) -> dict[str, Any]:
    """Which customers may see an alarm, and which of its services each of them."""
    touched: dict[str, list[dict[str, str]]] = {}
    for service in services:
        for customer in service.customers:
            touched.setdefault(customer, []).append(inventory.reference(work.resources, service))
    return {"parties": sorted(touched), "touches": touched}
