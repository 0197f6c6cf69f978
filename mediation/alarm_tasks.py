"""The tasks of TMF642: acknowledge, clear, comment and group many alarms at once.

begin -> (choose -> apply a slice -> apply the next ...) -> finish. The alarms are chosen once, before any is touched,
and kept with the task: what a slice does to an alarm may well end its matching. Each slice is a message of its own in
a lane of its own, so ten thousand alarms hold up neither the network's messages nor a small task behind them, and a
process that dies leaves at most one slice to be done again. To do a thing to an alarm that has it already is to
succeed and to change nothing, which is also why every step may be done twice.

A task is ``done`` when every alarm that it means was dealt with, be it none at all. It is ``terminatedWithError``,
with the reason in its event, when its owner may not, when it means more alarms than MOST, when an alarm that it names
by id is not there, or when an alarm refused; what succeeded all the same is in its list and stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from convergedon.core import trace
from convergedon.core.bus import Message, partition, token
from convergedon.core.errors import Conflict, NotFound, Refused, Stale
from convergedon.core.policy import Decision, Subject, system
from convergedon.core.store import Outgoing, Record
from convergedon.handlers import hub
from convergedon.handlers.alarms import (
    ACK_ALARMS,
    ALARM,
    CLEAR_ALARMS,
    COMMENT_ALARMS,
    GROUP_ALARMS,
    TASKS,
    UN_ACK_ALARMS,
    UN_GROUP_ALARMS,
    referred,
)
from convergedon.mediation import alarm_patterns
from convergedon.mediation.work import Work

Body = Mapping[str, Any]
Wanted = Callable[[Record], Body | None]

MOST = 20_000
"""Alarms that one task may mean: their ids, and in the end their references, are kept in its document."""

MOST_CORRELATED = 2_000
"""Alarms under one parent: each event of the parent carries the list."""

SLICE = 200
"""Alarms between two looks at what else waits."""

PAGE = 2_000
"""Alarms in memory at a time."""

ASIDE = 4
"""Writes side by side: few beside the threads of the store, so that others find one; more are hardly faster there."""

TRIES = 20
"""How often an alarm is read again because somebody else changed it; the slice comes back then."""

SHOWN = 5
"""Failures that are told in words; the others are counted."""

GROUPING = (GROUP_ALARMS.name, UN_GROUP_ALARMS.name)

Failed = dict[str, Any]
"""What failed: {count, words}."""

_TASKS = {task.name: task for task in TASKS}


async def begin(work: Work, message: Message) -> None:
    """A task was created: say that it is under way, and put it in its lane."""
    task = await work.store.get(message.body["kind"], message.body["tenant"], message.body["id"])
    if task.body["state"] == "acknowledged":
        await work.resources.change(
            _TASKS[task.kind], task, {"state": "inProgress"}, {"next": 0}, also=[_slice_message(task, 0)]
        )


def _slice_message(task: Record, first: int) -> Outgoing:
    """What has the slice done that begins with this alarm: the same message however often it is sent."""
    body = {"slice": first, "about": {"kind": task.kind, "tenant": task.tenant, "id": task.id}}
    subject = f"task.{partition(task.id)}.{token(task.tenant)}"
    return Outgoing(f"{task.id}:{first}", subject, body, trace.headers())


async def carry_on(work: Work, message: Message) -> None:
    """One slice of a task: choose its alarms if that is still to be done, change some of them, note how far it is."""
    about = message.body["about"]
    task = await work.store.get(about["kind"], about["tenant"], about["id"])
    if task.body["state"] != "inProgress" or task.facts["next"] != message.body["slice"]:
        return  # this slice is done
    try:
        sight = await _sight(work, task)
        if "chosen" not in task.facts:
            task = await _keep_choice(work, task, sight)
        undone, failed = await _do_slice(work, task, sight)
    except Refused as error:
        await _finish(work, task, task.facts["next"], task.facts.get("undone", []), _noted(task, [str(error)]))
        return
    after = task.facts["next"] + SLICE
    if after >= len(task.facts["chosen"]):
        await _finish(work, task, after, undone, failed)
        return
    facts = {"next": after, "undone": undone, "failed": failed}
    await work.resources.change(_TASKS[task.kind], task, facts=facts, also=[_slice_message(task, after)])


async def _finish(work: Work, task: Record, until: int, undone: Sequence[str], failed: Failed) -> None:
    """Say how the task ended, and list the alarms that have now what it gives."""
    without = set(undone)
    done = [id for id in task.facts.get("chosen", [])[:until] if id not in without]
    if done and task.kind in GROUPING:
        with suppress(NotFound):
            done = [(await work.store.get(ALARM.name, task.tenant, _parent_id(task))).id, *done]
    (result,) = _TASKS[task.kind].untold
    state = "terminatedWithError" if failed["count"] else "done"
    more = failed["count"] - len(failed["words"])
    words = "; ".join([*failed["words"], *([f"and {more} more"] if more else [])])
    body = {"state": state, result: [_reference(work, id) for id in done]}
    over = {"next": None, "chosen": None, "undone": None, "failed": None}
    await work.resources.change(_TASKS[task.kind], task, body, over, description=words)
    outcome = "failed" if failed["count"] else "done"
    on = f"{task.kind}/{task.id}"
    work.audit.record("task.finished", task.tenant, owner(task).id, on, outcome, alarms=len(done), reason=words)


def _noted(task: Record, words: Sequence[str]) -> Failed:
    """The failures of the task with these: all are counted, the first are kept in words."""
    before: Failed = task.facts.get("failed") or {"count": 0, "words": []}
    return {"count": before["count"] + len(words), "words": [*before["words"], *words][:SHOWN]}


async def _sight(work: Work, task: Record) -> Decision:
    """Ask the policy whether the owner may do to alarms what the task does, and which of them it lets through.

    Raises Forbidden when not.
    """
    resource = {"kind": ALARM.name, "tenant": task.tenant, "task": f"{task.kind}/{task.id}"}
    change = _change(work, task, {})
    return (await work.policy.decide(owner(task), "patch", resource, change, channel="task")).require()


def owner(task: Record) -> Subject:
    """Who asked for the task; the gateway itself where nobody did."""
    return hub.owner(task) if "owner" in task.facts else system(task.tenant)


# choosing


async def _keep_choice(work: Work, task: Record, sight: Decision) -> Record:
    """Choose the alarms and keep which they are, before one of them is changed. Raises Conflict for too many."""
    chosen, missing = await _choose(work, task, sight)
    if len(chosen) > MOST:
        raise Conflict(f"more than {MOST} alarms are meant: narrower patterns are needed; nothing was changed")
    facts = {"chosen": chosen, "failed": _noted(task, [f"there is no alarm {id}" for id in missing])}
    return await work.resources.change(_TASKS[task.kind], task, facts=facts)


async def _choose(work: Work, task: Record, sight: Decision) -> tuple[list[str], list[str]]:
    """The ids of the alarms that a task means, and those that it names though no alarm has them."""
    if task.kind in GROUPING:
        return await _choose_group(work, task, sight)
    patterns = task.body["alarmPattern"]
    ids = alarm_patterns.named(patterns)
    found = await _look_up(work, ids, sight)
    chosen = dict.fromkeys(alarm.id for alarm in found if _meant(task, alarm))
    if others := alarm_patterns.unnamed(patterns):
        await _look_for(work, others, sight, chosen)
    return list(chosen), _missing(ids, found)


async def _choose_group(work: Work, task: Record, sight: Decision) -> tuple[list[str], list[str]]:
    """The children. One that has gone can still be taken out of its parent's list, but not be put in.

    Raises NotFound when there is no parent to put them under.
    """
    parent, ids = _parent_id(task), list(dict.fromkeys(map(referred, task.body["correlatedAlarm"])))
    found = await _look_up(work, [parent, *ids], sight)
    missing = _missing([parent, *ids], found)
    if task.kind == UN_GROUP_ALARMS.name:
        return ids, missing
    if parent in missing:
        raise NotFound(f"there is no alarm {parent} to be the parent")
    return [id for id in ids if id not in missing], missing


def _missing(ids: Sequence[str], found: Sequence[Record]) -> list[str]:
    there = {alarm.id for alarm in found}
    return [id for id in ids if id not in there]


def _meant(task: Record, alarm: Record) -> bool:
    return alarm_patterns.matches(task.body["alarmPattern"], {"id": alarm.id, **alarm.body})


async def _look_up(work: Work, ids: Sequence[str], sight: Decision) -> list[Record]:
    """The alarms with these ids, as far as they are there and may be seen, in this order."""
    found: dict[str, Record] = {}
    for first in range(0, len(ids), SLICE):
        # by nothing but the ids: with any other condition the embedded store reads the whole collection
        some = await work.store.find(ALARM.name, {"id": {"$in": list(ids[first : first + SLICE])}})
        found |= {alarm.id: alarm for alarm in some if sight.sees(alarm)}
    return [found[id] for id in ids if id in found]


async def _look_for(work: Work, patterns: Sequence[Body], sight: Decision, chosen: dict[str, None]) -> None:
    """Add the ids of the alarms that match, a page at a time; one more than MOST is enough to know."""
    wanted, after = {**sight.where, **alarm_patterns.where(patterns)}, ""
    while len(chosen) <= MOST:
        page = await work.store.find(ALARM.name, {**wanted, "id": {"$gt": after}}, [("id", 1)], limit=PAGE)
        matching = (alarm.id for alarm in page if alarm_patterns.matches(patterns, {"id": alarm.id, **alarm.body}))
        chosen.update(dict.fromkeys(matching))
        if len(page) < PAGE:
            return
        after = page[-1].id


# changing


async def _do_slice(work: Work, task: Record, sight: Decision) -> tuple[list[str], Failed]:
    """Change the alarms of one slice. Returns which of all until here were not, and how many failed."""
    first = task.facts["next"]
    some = task.facts["chosen"][first : first + SLICE]
    done, failed = await (_do_group if task.kind in GROUPING else _do_all)(work, task, some, sight)
    return [*task.facts.get("undone", []), *(id for id in some if id not in done)], _noted(task, failed)


async def _do_all(work: Work, task: Record, ids: Sequence[str], sight: Decision) -> tuple[set[str], list[str]]:
    """Change these alarms side by side, each with an event of its own: those that have it now, the words of others."""
    turns, done, failed = asyncio.Semaphore(ASIDE), set(), []

    async def one(id: str) -> None:
        async with turns:
            try:
                if await _do_one(work, task, id, sight, partial(_wanted, work, task)):
                    done.add(id)
            except Refused as error:
                failed.append(f"alarm {id}: {error}")

    for outcome in await asyncio.gather(*map(one, ids), return_exceptions=True):
        if outcome is not None:
            raise outcome
    return done, failed


async def _do_one(work: Work, task: Record, id: str, sight: Decision, wanted: Wanted) -> bool:
    """Whether the alarm is now as wanted; not one that has gone, or is not meant any more."""
    for attempt in range(1, TRIES + 1):
        try:
            alarm = await _visible(work, id, sight)
        except NotFound:
            return False
        change = wanted(alarm)
        if change is None:
            return False
        try:
            await _write(work, task, alarm, change)
            return True
        except Stale:
            if attempt == TRIES:
                raise
    raise AssertionError("an alarm is tried at least once")


async def _visible(work: Work, id: str, sight: Decision) -> Record:
    alarm = await work.store.get(ALARM.name, sight.filter["tenant"], id)
    if not sight.sees(alarm):
        raise NotFound(f"there is no alarm {id}")
    return alarm


async def _write(work: Work, task: Record, alarm: Record, change: Body) -> None:
    if change.get("state") != "cleared":
        await work.resources.change(ALARM, alarm, change)
        return
    ALARM.admit(alarm, {**alarm.body, **change})
    # the all-clear belongs to the trace that the fault began; the same fault may come again
    with trace.span("alarm.clear", alarm.facts.get("carrier")):
        await work.resources.change(ALARM, alarm, change, {"openKey": None})
        work.audit.record("alarm.cleared", alarm.tenant, owner(task).id, f"alarm/{alarm.id}", "done")


def _wanted(work: Work, task: Record, alarm: Record) -> Body | None:
    """What the task changes in an alarm: nothing when it is so already, None when it is not meant any more."""
    change = _change(work, task, alarm.body)
    return change if not change or task.kind in GROUPING or _meant(task, alarm) else None


def _change(work: Work, task: Record, alarm: Body) -> Body:
    """What the task changes in an alarm; nothing when it is so already, whoever brought that about."""
    asked = task.body
    match task.kind:
        case ACK_ALARMS.name if alarm.get("ackState") != "acknowledged":
            return {"ackState": "acknowledged", **_of(asked, "ackUserId", "ackSystemId")}
        case UN_ACK_ALARMS.name if alarm.get("ackState") != "unacknowledged":
            return {"ackState": "unacknowledged", **_of(asked, "ackUserId", "ackSystemId")}
        case CLEAR_ALARMS.name if alarm.get("state") != "cleared":
            by = _of(asked, "alarmClearedTime", "clearUserId", "clearSystemId")
            return {"state": "cleared", "perceivedSeverity": "cleared", **by}
        case COMMENT_ALARMS.name if asked["comment"] not in alarm.get("comment", []):
            return {"comment": [*alarm.get("comment", []), asked["comment"]]}
        case GROUP_ALARMS.name:
            return _with(alarm, "parentAlarm", [_reference(work, _parent_id(task))])
        case UN_GROUP_ALARMS.name:
            return _without(alarm, "parentAlarm", {_parent_id(task)})
    return {}


def _of(body: Body, *members: str) -> dict[str, Any]:
    return {name: body[name] for name in members if name in body}


# grouping


def _parent_id(task: Record) -> str:
    return referred(task.body["parentAlarm"])


def _reference(work: Work, id: str) -> dict[str, str]:
    return {"id": id, "href": work.resources.href(ALARM.name, id)}


def _with(alarm: Body, member: str, references: Sequence[Body]) -> Body:
    had = {referred(reference) for reference in alarm.get(member, [])}
    new = [reference for reference in references if referred(reference) not in had]
    return {member: [*alarm.get(member, []), *new]} if new else {}


def _without(alarm: Body, member: str, ids: set[str]) -> Body:
    left = [reference for reference in alarm.get(member, []) if referred(reference) not in ids]
    return {member: left} if len(left) < len(alarm.get(member, [])) else {}


async def _do_group(work: Work, task: Record, ids: Sequence[str], sight: Decision) -> tuple[set[str], list[str]]:
    """Change the children, then their parent's list of them: a crash between is mended when the slice comes again."""
    parent = _parent_id(task)
    if task.kind == UN_GROUP_ALARMS.name:
        done, failed = await _do_all(work, task, ids, sight)
        await _do_one(work, task, parent, sight, lambda alarm: _without(alarm.body, "correlatedAlarm", set(ids)))
        return done, failed
    able, unable = await _able(work, parent, ids, sight)
    done, failed = await _do_all(work, task, able, sight)
    new = [_reference(work, id) for id in able if id in done]
    await _do_one(work, task, parent, sight, lambda alarm: _with(alarm.body, "correlatedAlarm", new))
    return done, [*unable, *failed]


async def _able(work: Work, parent: str, ids: Sequence[str], sight: Decision) -> tuple[list[str], list[str]]:
    """Which of these alarms can stand under the parent, and why the others cannot."""
    above = await _above(work, parent, sight)
    had = {
        referred(child)
        for alarm in await _look_up(work, [parent], sight)
        for child in alarm.body.get("correlatedAlarm", [])
    }
    able, unable, room = [], [], MOST_CORRELATED - len(had)
    for id in ids:
        if id in above:
            unable.append(f"alarm {id} cannot stand under {parent}: it is that alarm or stands above it")
        elif id not in had and room < 1:
            unable.append(f"alarm {id}: {parent} has {MOST_CORRELATED} correlated alarms already")
        else:
            room -= id not in had
            able.append(id)
    return able, unable


async def _above(work: Work, id: str, sight: Decision) -> set[str]:
    """The alarm, its parents, theirs and so on."""
    above: set[str] = set()
    level = [id]
    while level:
        above |= set(level)
        found = await _look_up(work, level, sight)
        level = sorted({referred(up) for alarm in found for up in alarm.body.get("parentAlarm", [])} - above)
    return above
