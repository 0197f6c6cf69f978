"""The fault line: what the network reports becomes one alarm for each condition, and customers hear of it once.

hear -> problems.correlate -> affected.tell. Observations of one device come in order; an alarm keeps the position of
the last one it counted, so a message that is delivered again changes nothing. What comes in one is written together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, NamedTuple, TypeVar
from uuid import NAMESPACE_URL, uuid5

from convergedon.adapters.contract import Observation
from convergedon.core import trace
from convergedon.core.bus import Message
from convergedon.core.errors import Conflict, NotFound, Stale, Unavailable
from convergedon.core.store import Draft, Outgoing, Record, find_any
from convergedon.handlers.alarms import ALARM
from convergedon.mediation import flapping, inventory, parts
from convergedon.mediation.correlation import Topology, fails
from convergedon.mediation.inventory import Service
from convergedon.mediation.notification import notify
from convergedon.mediation.problems import OURS, have_looked, look_at_head, neighbourhoods, over, touches
from convergedon.mediation.work import Work

T = TypeVar("T")


def instant(seconds: float) -> str:
    """Seconds since the epoch as the timestamp that every resource uses."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Condition(NamedTuple):
    """What can be wrong at one place of one device: at most one alarm is open for it."""

    tenant: str
    key: str


@dataclass(frozen=True)
class Heard:
    """An observation of a condition, and the message that it came in or was a part of."""

    seen: Observation
    message: Message

    @property
    def condition(self) -> Condition:
        return Condition(self.seen.tenant, f"{self.seen.device}|{self.seen.key}")

    @property
    def clears(self) -> bool:
        return self.seen.kind == "clear"

    @property
    def place(self) -> str:
        return parts.place(self.seen.device, self.seen.object)

    @property
    def part(self) -> str:
        """The id of the place."""
        return parts.id_of(self.seen.tenant, self.place)

    @property
    def position(self) -> dict[str, Any]:
        place = self.message.position
        return {"epoch": place.epoch, "sequence": place.sequence, "part": place.part}

    @property
    def span(self) -> AbstractContextManager[None]:
        return trace.span("observation", self.message.headers)


class Turn(NamedTuple):
    """What is written at once of a condition: its alarm (None: a new one), and what is said of it."""

    alarm: Record | None
    said: Sequence[Heard]

    @property
    def last(self) -> Heard:
        return self.said[-1]


async def hear(work: Work, message: Message) -> None:
    """What the network says of a condition: a new alarm, one more time the one that is open, or its end."""
    await hear_all(work, [message])


async def hear_all(work: Work, messages: Sequence[Message]) -> None:
    """The same for many of one tenant's devices or of several's, in the order in which it was said.

    The conditions are taken side by side, and what is said of each in its order. Then their neighbourhoods are asked to
    be looked at, also of what was counted before: whoever counted it may have died before it asked.
    """
    said = [Heard(Observation(**message.body["observation"]), message) for message in messages]
    by_tenant = _sorted(said, lambda one: one.seen.tenant)
    near = {
        (tenant, one)
        for tenant, heard in by_tenant.items()
        for one in await neighbourhoods(work, tenant, [each.place for each in heard])
    }
    lane = ".".join(messages[0].subject.split(".")[:2])
    with work.known.hearing(lane, near, messages[0].behind):
        await _write(work, said)
        for tenant, heard in by_tenant.items():
            await have_looked(work, tenant, [one.place for one in heard], messages[0].id)


async def _write(work: Work, said: Sequence[Heard]) -> None:
    """Write what was said on the alarms, turn by turn."""
    ahead = _sorted(said, lambda one: one.condition)
    alarms = await _open(work, list(ahead))
    while turns := [turn for one in ahead if (turn := _next(alarms.get(one), ahead[one]))]:
        for turn, alarm in await _take(work, turns):
            one = turn.last.condition
            ahead[one] = [heard for heard in ahead[one] if not _counted(alarm, heard)]
            alarms[one] = None if alarm.body["state"] == "cleared" else alarm


def _sorted(said: Iterable[Heard], by: Callable[[Heard], T]) -> dict[T, list[Heard]]:
    found: dict[T, list[Heard]] = {}
    for heard in said:
        found.setdefault(by(heard), []).append(heard)
    return found


def _next(alarm: Record | None, ahead: Sequence[Heard]) -> Turn | None:
    """The next turn of a condition. To be raised again with the same severity is one, however often. Pure."""
    if alarm is None:
        first = next((one for one in ahead if not one.clears), None)
        return Turn(None, [first]) if first else None
    left = [one for one in ahead if not _counted(alarm, one)]
    same = takewhile(lambda one: not one.clears and _severity(one.seen) == _severity(left[0].seen), left)
    return Turn(alarm, [*same] or left[:1]) if left else None


def _counted(alarm: Record, heard: Heard) -> bool:
    """Whether the alarm has taken this already. A stream that was made anew counts from one again."""
    facts, place = alarm.facts, heard.message.position
    same = facts.get("epoch") == place.epoch
    return same and (int(facts["sequence"]), int(facts.get("part", 0))) >= (place.sequence, place.part)


async def _open(work: Work, conditions: Sequence[Condition]) -> dict[Condition, Record | None]:
    """The alarms that are open for these. One that a client cleared is over: it gives its key free."""
    found = []
    for tenant in {condition.tenant for condition in conditions}:
        keys = [condition.key for condition in conditions if condition.tenant == tenant]
        found += await find_any(work.store, ALARM.name, {"tenant": tenant}, "facts.openKey", keys)
    for record in found:
        if record.body["state"] == "cleared":
            await work.resources.change(ALARM, record, facts=over(record))
    return {Condition(one.tenant, one.facts["key"]): one for one in found if one.body["state"] != "cleared"}


async def _take(work: Work, turns: Sequence[Turn]) -> list[tuple[Turn, Record]]:
    """Write these turns, each of another condition. Raises Unavailable or Stale if one of them could not be written."""
    drafts = [*await _new(work, turns), *await _changed(work, turns)]
    outcomes = await work.resources.write([draft for _, draft in drafts])
    taken: list[tuple[Turn, Record]] = []
    stale: list[Stale] = []
    for (turn, draft), outcome in zip(drafts, outcomes, strict=True):
        if isinstance(outcome, Stale):
            stale.append(outcome)
        elif isinstance(outcome, Conflict):
            taken.append((turn, await _raised_before(work, draft.record)))
        else:
            _record(work, turn, outcome)
            taken.append((turn, outcome))
    if stale:
        raise stale[0]
    return taken


async def _raised_before(work: Work, alarm: Record) -> Record:
    """The alarm that this very message raised before, and that is over since. Anything else is tried again."""
    try:
        found = await work.store.get(ALARM.name, alarm.tenant, alarm.id)
    except NotFound as error:
        raise Unavailable(f"another alarm still holds {alarm.facts['key']}") from error
    if found.body["state"] != "cleared":
        raise Unavailable(f"somebody else raises {alarm.facts['key']}")
    return found


def _record(work: Work, turn: Turn, alarm: Record) -> None:
    """Each alarm that is raised, cleared or flaps leaves a record."""
    who, on = f"device/{turn.last.seen.device}", f"alarm/{alarm.id}"
    with trace.span("alarm", alarm.facts["carrier"]):
        if turn.alarm is None:
            services = len(alarm.body["affectedService"])
            work.audit.record("alarm.raised", alarm.tenant, who, on, "done", services=services)
        elif alarm.body["state"] == "cleared":
            work.audit.record("alarm.cleared", alarm.tenant, who, on, "done")
        elif alarm.body.get("flapping") and not turn.alarm.body.get("flapping"):
            work.audit.record("alarm.flapping", alarm.tenant, who, on, "done", raised=alarm.facts["count"])


async def _new(work: Work, turns: Sequence[Turn]) -> list[tuple[Turn, Draft]]:
    """The alarms of those turns that raise one."""
    new = [turn for turn in turns if turn.alarm is None]
    disturbing = [turn.last for turn in new if _disturbs(turn.last.seen)]
    standing: dict[str, Sequence[Service]] = {}
    for tenant, said in _sorted(disturbing, lambda one: one.seen.tenant).items():
        standing |= await inventory.standing(work.store, tenant, sorted({one.part for one in said}))
    drafts = []
    for turn in new:
        affected = standing.get(turn.last.part, ()) if _disturbs(turn.last.seen) else ()
        with turn.last.span:
            drafts.append((turn, _raise(work, turn.last, affected)))
    return drafts


def _raise(work: Work, heard: Heard, affected: Sequence[Service]) -> Draft:
    seen, key, place = heard.seen, heard.condition.key, heard.message.position
    facts = {
        "key": key,
        "openKey": key,
        "place": heard.place,
        "openAt": heard.place,
        "openOn": seen.device,
        "fault": seen.kind == "fault",
        "count": 1,
        "carrier": trace.headers(),
        **touches(work, affected),
        **heard.position,
    }
    which = f"{place.sequence}.{place.part}" if place.part else f"{place.sequence}"
    id = str(uuid5(NAMESPACE_URL, f"{seen.tenant}|{key}|{place.epoch}|{which}"))
    return work.resources.new(ALARM, seen.tenant, _alarm(work, seen, affected), facts, id, by=OURS)


async def _changed(work: Work, turns: Sequence[Turn]) -> list[tuple[Turn, Draft]]:
    """The alarms that are raised once more, cleared, or found to flap."""
    known = [(turn, turn.alarm) for turn in turns if turn.alarm]
    before = await flapping.cleared_before(work, [(alarm, turn.last.seen) for turn, alarm in known if turn.last.clears])
    tenants = {alarm.tenant for turn, alarm in known if turn.last.clears}
    topologies = {tenant: await work.known.topologies.of(work.store, tenant) for tenant in tenants}
    return [
        (
            turn,
            _clear(work, alarm, turn.last, before.get(alarm.id, ()), topologies[alarm.tenant])
            if turn.last.clears
            else _raise_again(work, alarm, turn.said),
        )
        for turn, alarm in known
    ]


def _raise_again(work: Work, alarm: Record, said: Sequence[Heard]) -> Draft:
    count, last = alarm.facts["count"] + len(said), said[-1]
    change = {"state": "updated", "perceivedSeverity": _severity(last.seen), **_counted_as(last.seen, count)}
    facts = {"count": count, **flapping.once_quiet(work.settings, alarm, {}), **last.position}
    with last.span:
        return _change(work, alarm, change, facts)


def _clear(work: Work, alarm: Record, last: Heard, before: Sequence[float], topology: Topology) -> Draft:
    """The network says that the condition is over: that is the evidence on which the alarm is cleared."""
    change = {
        "state": "cleared",
        "perceivedSeverity": "cleared",
        "alarmClearedTime": instant(last.seen.time),
        "clearSystemId": last.seen.device,
    }
    facts = {**over(alarm), **last.position}
    also = look_at_head(alarm, topology)
    if flapping.stays_open(work.settings, alarm, before, last.seen.time):
        change, facts = flapping.open_until_quiet(work.settings, alarm, change, last.position)
    # the all-clear belongs to the trace that the fault began
    with trace.span("alarm.clear", alarm.facts["carrier"]):
        return _change(work, alarm, change, facts, also)


def _change(
    work: Work, alarm: Record, body: Mapping[str, Any], facts: Mapping[str, Any], also: Sequence[Outgoing] = ()
) -> Draft:
    return work.resources.changed(ALARM, alarm, body, facts, also, by=OURS) or Draft(alarm)


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
