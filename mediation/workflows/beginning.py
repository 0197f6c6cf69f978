"""How a run comes to be: at once, when others have left its device, or again when its device answers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from time import time
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from convergedon.core.errors import Conflict, NotFound, Stale
from convergedon.core.policy import Decision
from convergedon.core.store import Record
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.remediation import WORKFLOW_RUN
from convergedon.handlers.resource import now
from convergedon.mediation.assurance import instant
from convergedon.mediation.work import Work
from convergedon.mediation.workflows import controls
from convergedon.mediation.workflows.definitions import Definition, seconds
from convergedon.mediation.workflows.guards import Judged, incident, judged, triggered
from convergedon.mediation.workflows.running import LOOK_AGAIN, WAITS, course_of, go_on, tell_end

NOT_FOR_IT = "no workflow of this name is for this alarm any more"


async def created(
    work: Work, alarm: Record, definition: Definition, given: Mapping[str, Any], id: str, former: Record | None = None
) -> Record:
    """A new run, with the lock on its device if it changes any; or one that waits for that, or says why it may not be.

    ``former`` is the one that it begins again. Raises Stale when it is there by now, or the device is free by now.
    """
    may = await judged(work, alarm, definition, given)
    device, turn = given["target"]["device"], time() + work.settings.repair_patience
    body = {
        "alarm": {"id": alarm.id, "href": work.resources.href(ALARM.name, alarm.id)},
        "target": device,
        **_begun(definition, may),
        **({"follows": _reference(work, former.id)} if former else {}),
    }
    facts = {"told": {}, "events": [], "approvals": [], "line": alarm.id, **_kept(definition, may)}
    if former:
        facts["due"] = time()  # no message has it go on if we die
    if may.refused:
        return await _create(work, alarm, _refused(body, may.refused), {**facts, "due": None}, id, may.decision)
    if not (why := await _before_it(work, alarm.tenant, definition, device, turn)):
        locked = {"lock": device} if definition.changes else {}
        with suppress(Stale):
            return await _create(work, alarm, body, {**facts, **locked}, id, may.decision)
        why = await _before_it(work, alarm.tenant, definition, device, turn, id)
    if not why:
        raise Stale(f"run {id} is there by now, or {device} was free for a moment")
    if not work.settings.repair_patience:
        return await _create(work, alarm, _refused(body, why), {**facts, "due": None}, id, may.decision)
    waits = {"state": WAITS, "reason": _waiting(why, turn)}
    return await _create(work, alarm, {**body, **waits}, {**facts, "turn": turn, "due": time() + LOOK_AGAIN}, id)


async def take_turn(work: Work, run: Record) -> Record:
    """Begin a run that waits for its turn, where that has come; end it where there is nothing left to do, where the
    policy does not let it begin, and where it has waited for too long.
    """
    alarm, definition, given = await _still(work, run)
    if alarm is None:
        return await _not_begun(work, run, "the alarm was over before its turn came", escalated=False)
    if definition is None:
        return await _not_begun(work, run, NOT_FOR_IT)
    turn = run.facts["turn"]
    why = await _before_it(work, run.tenant, definition, run.body["target"], turn)
    if stopped := await controls.stopped(work.store, run.tenant):
        why = f"all workflows are stopped: {stopped}"
    if why and time() >= turn:
        return await _not_begun(work, run, f"{why}; its turn did not come in time")
    if why:
        return await _wait(work, run, why)
    may = await judged(work, alarm, definition, given, waited=True)
    if may.refused:
        return await _not_begun(work, run, may.refused, may.decision, guard=may.figures)
    body = {name: value for name, value in run.body.items() if name != "reason"} | _begun(definition, may)
    facts = {**_kept(definition, may), "turn": None, "lock": run.body["target"] if definition.changes else None}
    try:
        begun = await work.resources.change(WORKFLOW_RUN, run, body, {**facts, "due": time()}, whole=True)
    except Conflict:
        return await _wait(work, run, f"{run.body['target']} has changed hands")
    _note(work, begun, may.decision)
    return begun


async def begin_again(work: Work, run: Record) -> None:
    """The device of a run that failed answers again: begin its workflow anew, where its guards let it, once."""
    if (again := await _anew(work, run)) is not None:
        await _conclude(work, run, "begun again", escalated=False, followedBy=_reference(work, again.id))
        await go_on(work, again, course_of(again))


async def _anew(work: Work, run: Record) -> Record | None:
    """The run that begins this one's workflow again; none where it has ended for good."""
    id = str(uuid5(NAMESPACE_URL, f"{run.id}|again"))
    with suppress(NotFound):
        return await work.store.get(WORKFLOW_RUN.name, run.tenant, id)
    alarm, definition, given = await _still(work, run)
    if alarm is None:
        await _conclude(work, run, "the alarm was over before it was begun again", escalated=False)
    elif definition is None:
        await _conclude(work, run, NOT_FOR_IT, escalated=True)
    else:
        return await created(work, alarm, definition, given, id, run)
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


async def _before_it(work: Work, tenant: str, definition: Definition, device: str, turn: float, mine: str = "") -> str:
    """Why a run that changes something may not have its device yet, which is one for all tenants; empty where it may.

    Whoever waits for it has it in the order in which they came. ``mine`` is the id of a run that may have it itself.
    """
    if not definition.changes:
        return ""
    holders = await work.store.find(WORKFLOW_RUN.name, {"facts.lock": device}, limit=1)
    if holders and holders[0].id != mine:
        if holders[0].tenant != tenant:
            return f"{device} is locked by a workflow of another tenant"
        return f"{device} is locked by workflow {holders[0].body['workflow']['name']} (run {holders[0].id})"
    sooner = {"body.target": device, "facts.turn": {"$gt": time(), "$lt": turn}}
    waiting = await work.store.count(WORKFLOW_RUN.name, sooner)
    return f"{waiting} workflows wait for {device} before it" if waiting else ""


def _begun(definition: Definition, may: Judged) -> dict[str, Any]:
    """What a run shows from when it begins."""
    return {
        "workflow": {"name": definition.name, "version": definition.version, "hash": definition.hash},
        "state": "running",
        "startedAt": now(),
        "guard": may.figures,
    }


def _kept(definition: Definition, may: Judged) -> dict[str, Any]:
    """What it goes by from then on."""
    until = time() + seconds(definition.document["timeout"]["after"])
    return {"definition": definition.document, "input": may.given, "until": until, "due": until}


def _refused(body: Mapping[str, Any], why: str) -> dict[str, Any]:
    return {**body, "state": "refused", "reason": why, "escalated": True, "endedAt": now()}


def _waiting(why: str, turn: float) -> str:
    return f"{why}; it begins after that, if by {instant(turn)}"


async def _create(
    work: Work,
    alarm: Record,
    body: Mapping[str, Any],
    facts: Mapping[str, Any],
    id: str,
    decision: Decision | None = None,
) -> Record:
    try:
        run = await work.resources.create(WORKFLOW_RUN, alarm.tenant, body, facts, id)
    except Conflict as other:
        raise Stale(f"run {id} is there by now, or {body['target']} has changed hands") from other
    _note(work, run, decision)
    return run


async def _wait(work: Work, run: Record, why: str) -> Record:
    body, facts = {"reason": _waiting(why, run.facts["turn"])}, {"due": time() + LOOK_AGAIN}
    return await work.resources.change(WORKFLOW_RUN, run, body, facts)


async def _not_begun(
    work: Work, run: Record, why: str, decision: Decision | None = None, escalated: bool = True, **shown: Any
) -> Record:
    """End a run whose turn did not come, or is not needed."""
    body = {"state": "refused", "reason": why, "escalated": escalated, "endedAt": now(), **shown}
    ended = await work.resources.change(WORKFLOW_RUN, run, body, {"due": None, "turn": None}, description=why)
    _note(work, ended, decision)
    return ended


async def _conclude(work: Work, run: Record, words: str, **said: Any) -> None:
    """End a run that has waited for its device."""
    reason = f"{run.facts['error']['type']}: {run.facts['error']['detail']}; {words}"
    body = {"state": "compensated", "endedAt": now(), "reason": reason, **said}
    tell_end(work, await work.resources.change(WORKFLOW_RUN, run, body, {"due": None}, description=reason))


def _note(work: Work, run: Record, decision: Decision | None) -> None:
    """Record that a run was begun, waits, or was left to a person or to nobody."""
    body, outcome = run.body, "done"
    what = {"refused": "workflow.ended", WAITS: "workflow.waiting"}.get(body["state"], "workflow.begun")
    if body.get("escalated"):
        what, outcome = "workflow.escalated", "refused"
    detail = {"workflow": body["workflow"]["name"], "alarm": body["alarm"]["id"], "target": body["target"]}
    if "reason" in body:
        detail["reason"] = body["reason"]
    work.audit.record(what, run.tenant, "convergedon", f"{run.kind}/{run.id}", outcome, decision, **detail)


def _reference(work: Work, id: str) -> dict[str, str]:
    return {"id": id, "href": work.resources.href(WORKFLOW_RUN.name, id)}
