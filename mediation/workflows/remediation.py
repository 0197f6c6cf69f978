"""The repairing half of the fault line: an alarm begins workflows, and what happens makes them go on.

begin -> (persons approve, devices answer, the network speaks, time passes) -> go on, until a run ends. The policy is
told before a run begins what ran lately on its target and how much it would touch, and says whether it may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import time
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import structlog

from convergedon.adapters.contract import Outcome, Reading
from convergedon.core import trace
from convergedon.core.bus import Message
from convergedon.core.errors import NotFound, Refused, Stale, Unavailable
from convergedon.core.policy import known
from convergedon.core.store import Record
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.remediation import WORKFLOW_APPROVAL, WORKFLOW_RUN
from convergedon.mediation.work import Work
from convergedon.mediation.workflows import away, proof, web
from convergedon.mediation.workflows.beginning import begin_again, created, take_turn
from convergedon.mediation.workflows.course import error
from convergedon.mediation.workflows.definitions import Definition
from convergedon.mediation.workflows.guards import incident, triggered
from convergedon.mediation.workflows.past import instant
from convergedon.mediation.workflows.running import (
    ENDED,
    WAITS,
    Course,
    conclude,
    course_of,
    done,
    failed,
    fall_short,
    go_on,
    is_back,
    key_of,
    may_change,
)

log = structlog.get_logger()

MOST_EVENTS = 200
"""Events of its alarm that a run keeps; what comes after is of an alarm that flaps, and it has a time-out."""


async def begin(work: Work, message: Message) -> None:
    """An AlarmCreateEvent or AlarmAttributeValueChangeEvent: begin the workflows that it is for, each once."""
    try:
        alarm = await work.store.get(ALARM.name, message.body["tenant"], message.body["id"])
    except NotFound:
        return
    given = await incident(work.resources, alarm)
    for definition in meant(work, message):
        if triggered(definition, given):
            await _begin(work, alarm, definition, given, run_id(alarm, definition, message.body["event"]))


def meant(work: Work, message: Message) -> list[Definition]:
    """The workflows that events like this one may begin: of most changes of alarms there are none."""
    return [definition for definition in work.workflows if definition.begins_with(message.body["event"])]


def run_id(alarm: Record, definition: Definition, event: Mapping[str, Any]) -> str:
    """One run of each workflow, of whatever version, for each alarm; for each change of it where that begins it."""
    which = f"|{event['eventId']}" if "fieldPath" in definition.trigger else ""
    return str(uuid5(NAMESPACE_URL, f"{alarm.tenant}|{alarm.id}|{definition.name}{which}"))


async def _begin(work: Work, alarm: Record, definition: Definition, given: Mapping[str, Any], id: str) -> None:
    try:
        run = await work.store.get(WORKFLOW_RUN.name, alarm.tenant, id)
    except NotFound:
        if alarm.body["state"] == "cleared":
            return  # over before anything was begun
        run = await created(work, alarm, definition, given, id)
    await go_on(work, run, course_of(run))


# what makes a run go on


async def _carry_on(work: Work, run: Record, course: Course) -> None:
    if run.body["state"] == WAITS:
        run = await take_turn(work, run)
        course = course_of(run)
    run = await go_on(work, run, course)
    if is_back(run):
        await begin_again(work, run)


async def hear(work: Work, message: Message) -> None:
    """An event of an alarm: the runs that are there for it hear of it."""
    event = message.body["event"]
    about = {"tenant": message.body["tenant"], "body.alarm.id": message.body["id"]}
    for run in await work.store.find(WORKFLOW_RUN.name, about):
        if run.body["state"] in ENDED:
            continue
        course = course_of(run)
        if run.body["state"] == WAITS:
            await _carry_on(work, run, course)
            continue
        if all(one["id"] != event["eventId"] for one in course.events) and len(course.events) < MOST_EVENTS:
            data = event["event"][ALARM.name]
            course.events.append({"id": event["eventId"], "type": event["eventType"], "data": data})
        await go_on(work, run, course)


async def take(work: Work, message: Message) -> None:
    """What a device made of an intent, or what was read of it."""
    about, told = message.body["about"], message.body
    answer = Reading.told(told["reading"]) if "reading" in told else Outcome(**told["outcome"])
    run = await work.store.get(WORKFLOW_RUN.name, about["tenant"], about["id"])
    course = course_of(run)
    found = [(path, entry) for path, entry in course.told.items() if key_of(run, entry) == answer.key]
    for path, entry in found:
        if entry["status"] != "asked" or run.body["state"] in ENDED:
            continue
        if isinstance(answer, Reading):
            await _read(work, run, course, path, answer)
        else:
            _performed(course, path, answer)
        if away.is_away(answer):
            entry["away"] = True
    await _carry_on(work, run, course)


def _performed(course: Course, path: str, outcome: Outcome) -> None:
    entry = course.told[path]
    if outcome.done:
        diff = {leaf: list(values) for leaf, values in outcome.diff.items()}
        done(entry, {"status": outcome.status, "words": outcome.words, "diff": diff})
    else:
        wrong = error(outcome.status, 409, outcome.status, outcome.words or outcome.status, path)
        fall_short(course, path, wrong, outcome.status == "unknown", away.may_come(outcome))


async def _read(work: Work, run: Record, course: Course, path: str, reading: Reading) -> None:
    """A reading proves a change if the device has and does all that was wanted, and nothing is worse than before."""
    entry = course.told[path]
    if path == away.PROBE and not away.is_away(reading):
        done(entry, None)  # whatever it says, it answers
    elif not reading.agrees:
        kind = "proof" if reading.status == "read" else reading.status
        words = f"{reading.device}: {reading.words}"
        fall_short(course, path, error(kind, 409, "it is not shown", words, path), may_come=away.is_away(reading))
    else:
        await _shown(work, run, course, path, {"state": reading.state})


async def _shown(work: Work, run: Record, course: Course, path: str, output: Any) -> None:
    before = proof.baseline(course.told)
    if before is None or course.error or not proof.shows(course.told, course.told[path]["given"]):
        done(course.told[path], output)
    else:
        await conclude(work, run, course, path, before, output)


async def request(work: Work, message: Message) -> None:
    """A request that a run makes of a web service: once it is answered, it is not made again."""
    about = message.body["about"]
    run = await work.store.get(WORKFLOW_RUN.name, about["tenant"], about["id"])
    course = course_of(run)
    path, entry = next((p, e) for p, e in course.told.items() if e["order"] == message.body["request"])
    if entry["status"] != "asked":
        return
    try:
        settings = work.settings
        answer = await web.call(
            settings.callback_networks, settings.workflow_secrets, entry["given"], key_of(run, entry)
        )
    except Unavailable:
        raise
    except Refused as refused:
        failed(entry, error("communication", 502, "the request failed", str(refused), path))
    else:
        done(entry, answer)
    await go_on(work, run, course)


async def approve(work: Work, message: Message) -> None:
    """A WorkflowApprovalCreateEvent: what a person says to what a run asks, if the policy lets it count."""
    record = await work.store.get(WORKFLOW_APPROVAL.name, message.body["tenant"], message.body["id"])
    if record.body["state"] != "acknowledged":
        return
    reason = await _approved(work, record)
    change = {"state": "rejected", "reason": reason} if reason else {"state": "accepted"}
    await work.resources.change(WORKFLOW_APPROVAL, record, change, description=reason)
    by, on = record.facts["owner"]["id"], f"{WORKFLOW_RUN.name}/{record.body['workflowRun']['id']}"
    outcome = "refused" if reason else "done"
    work.audit.record("workflow.approval", record.tenant, by, on, outcome, decision=None, said=record.body["decision"])


async def _approved(work: Work, record: Record) -> str:
    """Have a run go on with an approval; the words are why it does not count."""
    try:
        run = await work.store.get(WORKFLOW_RUN.name, record.tenant, record.body["workflowRun"]["id"])
    except NotFound as missing:
        return str(missing)
    course = course_of(run)
    if any(one["record"] == record.id for one in course.approvals):
        return ""  # it counted already, and its own state was not written
    waiting = [(p, e) for p, e in course.told.items() if e["function"] == "approval" and e["status"] == "asked"]
    if not waiting or run.body["state"] in ENDED:
        return f"run {run.id} does not ask for an approval"
    path, entry = waiting[0]
    by = record.facts["owner"]
    resource = {
        "kind": WORKFLOW_RUN.name,
        "tenant": run.tenant,
        "workflow": course.definition.name,
        "approvers": [one["by"]["id"] for one in course.answers(path)],
    }
    decision = await work.policy.decide(known(by), "approve", resource, channel="task")
    if not decision.allow:
        return "; ".join(decision.reasons)
    said, when = record.body["decision"], instant(record.body["creationDate"])
    course.approvals.append({"by": by, "time": when, "decision": said, "record": record.id, "task": path})
    if said != "approved":
        failed(entry, error("notApproved", 403, "not approved", f"{by['id']} refused it", path))
    elif await _is_enough(work, run, course, entry["given"].get("persons", 1)):
        done(entry, {"by": [one["by"]["id"] for one in course.answers(path)]})
    await go_on(work, run, course)
    return ""


async def _is_enough(work: Work, run: Record, course: Course, persons: int) -> bool:
    """Whether as many have approved as the workflow wants, and the policy."""
    return len(course.answers()) >= persons and (await may_change(work, run, course)).allow


async def look_after(work: Work) -> None:
    """Runs whose time has come: a wait is over, an answer did not come, a stop may have ended."""
    for run in await work.store.find(WORKFLOW_RUN.name, {"facts.due": {"$lt": time()}}, limit=100):
        try:
            with suppress(Stale), trace.span("workflow.timer", None):
                await _carry_on(work, run, course_of(run))
        except Refused:
            log.exception("a run cannot go on", run=run.id)  # and must not keep the others from it


def newest(definitions: Sequence[Definition]) -> tuple[Definition, ...]:
    """Of each name the highest version: what begins from now on. What runs keeps the one that it began with."""
    found: dict[str, Definition] = {}
    for definition in sorted(definitions, key=lambda one: [int(part) for part in one.version.split(".")]):
        found[definition.name] = definition
    return tuple(found.values())
