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
from convergedon.core.errors import Conflict, Invalid, NotFound, Refused, Stale, Unavailable
from convergedon.core.policy import Decision, Policy, known, system
from convergedon.core.store import Record, Store
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.remediation import WORKFLOW_APPROVAL, WORKFLOW_CONTROL, WORKFLOW_RUN
from convergedon.handlers.resource import Resources, now
from convergedon.handlers.service_inventory import SERVICE
from convergedon.mediation import inventory, parts
from convergedon.mediation.work import Work
from convergedon.mediation.workflows import away, controls, past, proof, web
from convergedon.mediation.workflows.course import error
from convergedon.mediation.workflows.definitions import Definition, seconds
from convergedon.mediation.workflows.expressions import evaluate
from convergedon.mediation.workflows.past import Past, instant
from convergedon.mediation.workflows.running import (
    ENDED,
    LOOK_AGAIN,
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
    tell_end,
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


async def incident(resources: Resources, alarm: Record) -> dict[str, Any]:
    """What a workflow is given: the alarm, where it is, the services that it touches, and what was confirmed there.

    What was confirmed is that of every service that stands there: a device that restarted may have lost them all,
    though a warning touches none.
    """
    place, _, part = str(alarm.body["alarmedObject"]["id"]).partition("/")
    device = str(alarm.body.get("sourceSystemId") or place)
    ids = [service["id"] for service in alarm.body.get("affectedService") or []]
    services = await resources.store.find(SERVICE.name, {"id": {"$in": ids}}) if ids else []
    found = sorted((one for one in services if one.tenant == alarm.tenant), key=lambda one: one.id)
    here = {"tenant": alarm.tenant, "body.supportingResource.id": parts.id_of(alarm.tenant, parts.place(device, part))}
    standing = await resources.store.find(SERVICE.name, here, sort=[("id", 1)])
    return {
        "alarm": resources.present(alarm),
        "target": {"device": device, "object": part},
        "services": [{"id": one.id, "name": one.body.get("name", "")} for one in found],
        "confirmed": [
            {**wanted, "instance": one.id}
            for one in standing
            if one.body["state"] == "active"
            for wanted in one.facts.get("present", {}).get("wanted", [])
            if wanted["device"] == device and wanted["values"] is not None
        ],
    }


def triggered(definition: Definition, given: Mapping[str, Any]) -> bool:
    """Whether a definition is for this. One whose condition cannot be answered is not."""
    known = {"workflow": {"definition": definition.document}}
    if "data" not in definition.trigger:
        return True
    with suppress(Invalid):
        return bool(evaluate(definition.trigger["data"], given, known))
    return False


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
        run = await _created(work, alarm, definition, given, id)
    await go_on(work, run, course_of(run))


async def _created(
    work: Work, alarm: Record, definition: Definition, given: Mapping[str, Any], id: str, former: Record | None = None
) -> Record:
    """A new run, with the lock on its device if it changes any; or one that says why it may not be.

    ``former`` is the one that it begins again.
    """
    before = await _past(work.store, alarm, given["target"]["device"], time() - past.A_DAY)
    given = {**given, "earlier": before.earlier(definition.name, given["target"]["object"])}
    figures = before.figures(definition.name, given, time())
    decision = await _may_begin(work, alarm, definition, given, figures)
    refused = "" if decision.allow else "; ".join(decision.reasons)
    device = given["target"]["device"]
    body = {
        "workflow": {"name": definition.name, "version": definition.version, "hash": definition.hash},
        "state": "refused" if refused else "running",
        "alarm": {"id": alarm.id, "href": work.resources.href(ALARM.name, alarm.id)},
        "target": device,
        "startedAt": now(),
        "guard": figures,
        **({"follows": _reference(work, former.id)} if former else {}),
    }
    until = time() + seconds(definition.document["timeout"]["after"])
    facts: dict[str, Any] = {
        "definition": definition.document,
        "input": given,
        "told": {},
        "events": [],
        "approvals": [],
        "until": until,
        "due": time() if former else until,
        "line": alarm.id,
    }
    if definition.changes and not refused:
        facts["lock"] = device
        with suppress(Conflict):
            return await _create(work, alarm, body, facts, id, decision)
        refused = await _held_by(work, alarm, device, id)
        del facts["lock"]
    if refused:
        facts["due"] = None
        body |= {"state": "refused", "reason": refused, "escalated": True, "endedAt": now()}
    return await _create(work, alarm, body, facts, id, decision)


async def _create(
    work: Work, alarm: Record, body: Mapping[str, Any], facts: Mapping[str, Any], id: str, decision: Decision
) -> Record:
    run = await work.resources.create(WORKFLOW_RUN, alarm.tenant, body, facts, id)
    refused = body["state"] == "refused"
    what, outcome = ("workflow.escalated", "refused") if refused else ("workflow.begun", "done")
    detail = {"workflow": body["workflow"]["name"], "alarm": alarm.id, "target": body["target"]}
    if refused:
        detail["reason"] = body["reason"]
    work.audit.record(what, alarm.tenant, "convergedon", f"{run.kind}/{run.id}", outcome, decision, **detail)
    return run


def _reference(work: Work, id: str) -> dict[str, str]:
    return {"id": id, "href": work.resources.href(WORKFLOW_RUN.name, id)}


async def _held_by(work: Work, alarm: Record, device: str, id: str) -> str:
    """Why the lock, which is one for all tenants, was not to be had.

    Raises Stale when it is free by now, or this run is there by now.
    """
    holders = await work.store.find(WORKFLOW_RUN.name, {"facts.lock": device}, limit=1)
    if not holders or holders[0].id == id:
        raise Stale(f"the lock on {device} has changed hands")
    if holders[0].tenant != alarm.tenant:
        return f"{device} is locked by a workflow of another tenant"
    holder = holders[0].body["workflow"]["name"]
    return f"{device} is locked by workflow {holder} (run {holders[0].id})"


async def _past(store: Store, alarm: Record, device: str, since: float) -> Past:
    """What the guards go by: the runs on a device that were begun since then, whosever they are, as it is one device;
    when this alarm was raised; and how many runs of its tenant are under way.
    """
    found = await store.find(WORKFLOW_RUN.name, {"body.target": device})
    begun = [run for run in found if run.body["state"] != "refused" and instant(run.body["startedAt"]) >= since]
    alarms = await store.find(ALARM.name, {"tenant": alarm.tenant, "facts.key": alarm.facts.get("key", "")})
    raised = [str(one.body["alarmRaisedTime"]) for one in alarms if "alarmRaisedTime" in one.body]
    under_way = {"tenant": alarm.tenant, "body.state": {"$in": ["running", "stopped", "compensating"]}}
    return Past([past.run_of(run) for run in begun], raised, await store.count(WORKFLOW_RUN.name, under_way))


async def recorded(resources: Resources, alarm: Record) -> dict[str, Any]:
    """An incident, and what happened before it on its device, as a rehearsal reads it.

    Where workflows were to begin for it, that is kept too: what was decided then is decided in the rehearsal.
    """
    store, given = resources.store, await incident(resources, alarm)
    device = given["target"]["device"]
    runs = await store.find(WORKFLOW_RUN.name, {"tenant": alarm.tenant, "body.alarm.id": alarm.id})
    ordered = sorted(runs, key=lambda run: str(run.body["startedAt"]))
    decided = {
        run.body["workflow"]["name"]: past.Decided(run.body["startedAt"], run.body["guard"]["underWay"])
        for run in ordered
    }
    first = min((instant(one.at) for one in decided.values()), default=time())
    before = await _past(store, alarm, device, first - past.A_DAY)
    known, pressed = await _is_known(store, alarm, device), await _pressed(store, alarm.tenant, first)
    earlier = past.Recorded(now(), before, known, decided, pressed)
    return {"tenant": alarm.tenant, "incident": given, "earlier": earlier.written}


async def _pressed(store: Store, tenant: str, since: float) -> list[past.Press]:
    """When workflows were stopped and let go on: what counted then, and what was pressed since."""
    found: list[past.Press] = []
    for whose in (controls.EVERYONE, tenant):
        for record in await store.find(WORKFLOW_CONTROL.name, {"tenant": whose}, [("body.time", -1)]):
            body = record.body
            found.append(past.Press(body["time"], body["state"], body.get("reason", ""), whose == controls.EVERYONE))
            if instant(body["time"]) <= since:
                break
    return found


async def _may_begin(
    work: Work, alarm: Record, definition: Definition, given: Mapping[str, Any], figures: Mapping[str, int]
) -> Decision:
    """Ask the policy, with what it needs for the guards."""
    device = given["target"]["device"]
    known = await _is_known(work.store, alarm, device)
    stopped = await controls.stopped(work.store, alarm.tenant)
    return await may_begin(work.policy, alarm.tenant, definition, device, known=known, stopped=stopped, **figures)


async def may_begin(policy: Policy, tenant: str, definition: Definition, device: str, **said: Any) -> Decision:
    """Ask whether a workflow may begin on a device."""
    about = {"kind": WORKFLOW_RUN.name, "tenant": tenant, "workflow": definition.name, "device": device}
    return await policy.decide(
        system(tenant), "remediate", {**about, "changes": definition.changes, **said}, channel="flow"
    )


async def _is_known(store: Store, alarm: Record, device: str) -> bool:
    """Whether the device has to do with the tenant: it told of this itself, or a service stands on it.

    An alarm that a client made may name any device, and the lock on that is one for all tenants.
    """
    return "key" in alarm.facts or bool(await inventory.on(store, alarm.tenant, device, ""))


async def _begin_again(work: Work, run: Record) -> None:
    """The device of a run that failed answers again: begin its workflow anew, where its guards let it, once."""
    if (again := await _anew(work, run)) is not None:
        await _conclude(work, run, "begun again", escalated=False, followedBy=_reference(work, again.id))
        await go_on(work, again, course_of(again))


async def _anew(work: Work, run: Record) -> Record | None:
    """The run that begins this one's workflow again; none where it has ended for good, or waits for its turn."""
    id = str(uuid5(NAMESPACE_URL, f"{run.id}|again"))
    with suppress(NotFound):
        return await work.store.get(WORKFLOW_RUN.name, run.tenant, id)
    alarm, definition, given = await _still(work, run)
    if alarm is None:
        await _conclude(work, run, "the alarm was over before it was begun again", escalated=False)
    elif definition is None:
        await _conclude(work, run, "no workflow of this name is for this alarm any more", escalated=True)
    elif await _is_free(work, run, definition):
        try:
            return await _created(work, alarm, definition, given, id, run)
        except Conflict as other:
            raise Stale(f"another worker has begun run {run.id} again") from other
    return None


async def _still(work: Work, run: Record) -> tuple[Record | None, Definition | None, Mapping[str, Any]]:
    """The alarm of a run if it is still open, the workflow if it is still for that, and what it would be given."""
    try:
        alarm = await work.store.get(ALARM.name, run.tenant, run.body["alarm"]["id"])
    except NotFound:
        return None, None, {}
    if alarm.body["state"] == "cleared":
        return None, None, {}
    given = await incident(work.resources, alarm)
    mine = [one for one in work.workflows if one.name == run.body["workflow"]["name"] and triggered(one, given)]
    return alarm, next(iter(mine), None), given


async def _is_free(work: Work, run: Record, definition: Definition) -> bool:
    """Whether no other run has the device; while one has, this one waits, as long as it waited for the device."""
    held = {"facts.lock": run.body["target"]}
    if definition.changes and time() < run.facts["patience"] and await work.store.count(WORKFLOW_RUN.name, held):
        await work.resources.change(WORKFLOW_RUN, run, facts={"due": time() + LOOK_AGAIN})
        return False
    return True


async def _conclude(work: Work, run: Record, words: str, **said: Any) -> None:
    """End a run that has waited for its device."""
    reason = f"{run.facts['error']['type']}: {run.facts['error']['detail']}; {words}"
    body = {"state": "compensated", "endedAt": now(), "reason": reason, **said}
    tell_end(work, await work.resources.change(WORKFLOW_RUN, run, body, {"due": None}, description=reason))


# what makes a run go on


async def _carry_on(work: Work, run: Record, course: Course) -> None:
    run = await go_on(work, run, course)
    if is_back(run):
        await _begin_again(work, run)


async def hear(work: Work, message: Message) -> None:
    """An event of an alarm: the runs that are there for it hear of it."""
    event = message.body["event"]
    about = {"tenant": message.body["tenant"], "body.alarm.id": message.body["id"]}
    for run in await work.store.find(WORKFLOW_RUN.name, about):
        if run.body["state"] in ENDED:
            continue
        course = course_of(run)
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
