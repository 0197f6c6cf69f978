"""A run of a workflow: what is kept of it, and how it goes on, one write for each step.

What a step asks of the world (an intent, a request) is in the outbox of the same write that says it was asked, so a
worker may die anywhere: the message comes again, finds what was done, and goes on from there. ``remediation`` says what
makes a run go on; ``course`` what it does next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import time
from typing import Any

from convergedon.adapters.contract import Intent
from convergedon.core import trace
from convergedon.core.bus import partition, token
from convergedon.core.errors import NotFound
from convergedon.core.policy import Decision, system
from convergedon.core.store import Outgoing, Record
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.remediation import WORKFLOW_RUN
from convergedon.handlers.resource import now
from convergedon.mediation.assurance import instant
from convergedon.mediation.work import Work
from convergedon.mediation.workflows import away, controls, proof
from convergedon.mediation.workflows.course import Ask, Error, Heard, Walked, error, walk, walk_back
from convergedon.mediation.workflows.definitions import Definition

ENDED = ("completed", "compensated", "failed", "refused")
WAITS = "waitingForTurn"
"""The state of a run that is not begun yet, since another one has its device."""
OUTSIDE = ("intent", "observe", "http", "clear")
"""What is not begun while workflows are stopped."""
LOOK_AGAIN = 5.0
"""Seconds after which a run that was stopped looks whether it may go on."""
REQUEST_PATIENCE = 60.0
"""Seconds for which a request is tried where its task has no time-out."""


@dataclass
class Course:
    """What is kept of a run, while it goes on. ``patience`` is until when one that failed waits for its device."""

    definition: Definition
    about: Mapping[str, Any]
    told: dict[str, dict[str, Any]]
    events: list[Mapping[str, Any]]
    error: Error | None
    until: float
    said: list[Mapping[str, Any]]
    approvals: list[Mapping[str, Any]]
    patience: float | None = None
    stopped: str = ""
    held: bool = False
    messages: list[Outgoing] = field(default_factory=list)

    @property
    def approval(self) -> Mapping[str, Any] | None:
        """What was approved last, as policies and intents have it: the second person's beside the first's."""
        given = [one for one in self.answers() if one["decision"] == "approved"]
        if not given:
            return None
        first, *more = given
        return {**first, "second": more[0]} if more else first

    def answers(self, task: str = "") -> list[Mapping[str, Any]]:
        """What persons said to one task; to the one that asked last where none is named."""
        wanted = task or (self.approvals[-1]["task"] if self.approvals else "")
        return [one for one in self.approvals if one["task"] == wanted]

    def asked(self, ask: Ask, due: float | None = None) -> dict[str, Any]:
        """Note that something was asked, and until when an answer is waited for."""
        entry = {
            "order": len(self.told),
            "name": ask.name,
            "function": ask.function,
            "status": "asked",
            "given": ask.given,
            "time": now(),
            "due": due,
        }
        self.told[ask.path] = entry
        return entry


def course_of(run: Record) -> Course:
    facts = run.facts
    about = {"id": run.id, "input": facts["input"], "startedAt": {"iso8601": run.body["startedAt"]}}
    return Course(
        Definition(facts["definition"]),
        about,
        {path: dict(entry) for path, entry in facts["told"].items()},
        list(facts["events"]),
        facts.get("error"),
        facts["until"],
        list(run.body.get("said", [])),
        list(facts["approvals"]),
        facts.get("patience"),
    )


def done(entry: dict[str, Any], output: Any) -> None:
    entry.update(status="done", output=output, due=None)


def failed(entry: dict[str, Any], wrong: Error, unknown: bool = False) -> None:
    entry.update(status="failed", error=wrong, due=None)
    if unknown:
        entry["unknown"] = True


async def go_on(work: Work, run: Record, course: Course) -> Record:
    """Do all that can be done now, and keep it in one write. Raises Stale when somebody else was first."""
    if run.body["state"] in (*ENDED, WAITS):
        return run
    course.stopped = await controls.stopped(work.store, run.tenant)
    _give_up(course, time())
    _ask_again(work, run, course, time())
    walked = await _forward(work, run, course)
    if course.error or walked.error or (walked.over and proof.unproven(course.told)):
        course.error = course.error or walked.error or proof.missing()
        course.patience = course.patience or time() + work.settings.repair_patience
        walked = await _back(work, run, course)
        await _wait_for_device(work, run, course, walked)
    return await _keep(work, run, course, walked)


def _give_up(course: Course, moment: float) -> None:
    """What has waited long enough: a wait is over, anything else has failed; with the whole, all has."""
    for path, entry in course.told.items():
        if entry["status"] != "asked" or entry["due"] is None or entry["due"] > moment or entry.get("resting"):
            continue
        if entry["function"] == "wait":
            done(entry, None)
        else:
            words = f"{entry['name']}: no answer in time"
            wrong = error("timeout", 408, "time-out", words, path)
            fall_short(course, path, wrong, entry["function"] in ("intent", "http"), True)
            entry["away"] = entry["function"] in ("intent", "observe")
    if moment >= course.until and course.error is None:
        course.error = error("timeout", 408, "time-out", "the workflow as a whole has taken too long")


def fall_short(course: Course, path: str, wrong: Error, unknown: bool = False, may_come: bool = False) -> None:
    """What was asked has failed; where it waits for a device that is away and may yet come, it is asked again."""
    entry = course.told[path]
    of_device = entry["function"] in ("intent", "observe")
    if may_come and of_device and away.is_patient(path) and _is_patient(course):
        away.rest(entry, _words(wrong), time())
    else:
        failed(entry, wrong, unknown)


def _ask_again(work: Work, run: Record, course: Course, moment: float) -> None:
    """Ask once more what has rested for long enough."""
    for entry in course.told.values():
        if entry["status"] != "asked" or not entry.get("resting") or entry["due"] > moment:
            continue
        if course.stopped:
            course.held, entry["due"] = True, moment + LOOK_AGAIN
        else:
            entry["resting"] = False
            _send(work, run, course, entry)


async def _wait_for_device(work: Work, run: Record, course: Course, walked: Walked) -> None:
    """Where a device that was away is what it failed by, and nothing of it is left: wait until that answers."""
    ask, entry = away.probe(course.told, course.error), course.told.get(away.PROBE)
    if entry:
        course.held = course.held or bool(course.stopped and entry["status"] == "done")
    elif ask and walked.over and not walked.unsuccessful and not _is_cleared(course) and _is_patient(course):
        await _take_up_all(work, run, course, [ask])


def _is_patient(course: Course) -> bool:
    return course.patience is not None and time() < course.patience


async def _forward(work: Work, run: Record, course: Course) -> Walked:
    """Walk and take up what is asked, until all of it waits for somebody else."""
    while True:
        walked = walk(course.definition, course.about, course.told, course.events)
        if not all([await _hear(work, run, course, heard) for heard in walked.heard]):
            continue
        fresh = [ask for ask in walked.asks if ask.path not in course.told]
        if course.error or not (fresh or walked.heard):
            return walked
        if not await _take_up_all(work, run, course, fresh) and not walked.heard:
            return walked


async def _hear(work: Work, run: Record, course: Course, heard: Heard) -> bool:
    """Take an event for the listen that waits for it; whether that ends it well."""
    name = heard.path.rpartition("/")[2]
    entry = course.told.get(heard.path) or course.asked(Ask(heard.path, name, "listen", None))
    entry["event"] = heard.number
    before = proof.baseline(course.told, first=True)
    if before is None or course.error:
        done(entry, course.events[heard.number]["data"])
        return True
    return await conclude(work, run, course, heard.path, before, course.events[heard.number]["data"])


async def conclude(work: Work, run: Record, course: Course, path: str, before: proof.Sight, output: Any) -> bool:
    """End a task that proves a change: done, unless the policy finds it worse around the device than before."""
    entry, device = course.told[path], run.body["target"]
    figures = proof.compared(before, await proof.look_around(work, run.tenant, device))
    about = {"kind": run.kind, "tenant": run.tenant, "workflow": course.definition.name, "device": device, **figures}
    decision = await work.policy.decide(system(run.tenant), "prove", about, channel="flow")
    if decision.allow:
        done(entry, output)
        entry["proved"] = True
    else:
        failed(entry, error("worse", 409, "worse than before", "; ".join(decision.reasons), path))
        _record(work, run, "workflow.worse", "refused", decision, task=entry["name"], **figures)
    return decision.allow


async def _back(work: Work, run: Record, course: Course) -> Walked:
    """Take back what was done; of what is still unanswered nobody knows, so it is taken back, too."""
    for path, entry in course.told.items():
        if entry["status"] == "asked" and not away.is_patient(path):
            failed(entry, error("unknown", 503, "unanswered", "it was not waited for any more", path), True)
    while True:
        walked = walk_back(course.definition, course.about, course.told, course.events)
        fresh = [ask for ask in walked.asks if ask.path not in course.told]
        if not fresh or not await _take_up_all(work, run, course, fresh):
            return walked


async def _take_up_all(work: Work, run: Record, course: Course, asks: Sequence[Ask]) -> bool:
    """Whether any of it is answered already, so that the walk goes on."""
    answered = False
    for ask in asks:
        if course.stopped and ask.function in OUTSIDE:
            course.held = True
            continue
        await _take_up(work, run, course, ask)
        answered = answered or course.told[ask.path]["status"] != "asked"
    return answered


async def _take_up(work: Work, run: Record, course: Course, ask: Ask) -> None:
    match ask.function:
        case "wait" | "listen":
            course.asked(ask, time() + (ask.within or 0))
        case "emit":
            course.said.append({**ask.given, "time": now()})
            done(course.asked(ask), None)
        case "policy":
            await _ask_policy(work, run, course, ask)
        case "approval":
            await _ask_for_approval(work, run, course, ask)
        case "clear":
            await _clear(work, run, course, ask)
        case "http":
            due = time() + (ask.within or REQUEST_PATIENCE)
            entry = course.asked(ask, due if ask.within else max(due, course.patience or 0))
            course.messages.append(_request(run, entry))
        case "intent" | "observe":
            await _ask_device(work, run, course, ask)


async def _ask_policy(work: Work, run: Record, course: Course, ask: Ask) -> None:
    given = ask.given
    resource = {**given["resource"], "tenant": run.tenant}
    decision = await work.policy.decide(
        system(run.tenant), given["action"], resource, given.get("body"), channel="flow"
    )
    done(course.asked(ask), {"allow": decision.allow, "reasons": list(decision.reasons)})


async def _ask_for_approval(work: Work, run: Record, course: Course, ask: Ask) -> None:
    """A person is asked only where the policy does not let the workflow run by itself."""
    decision = await may_change(work, run, course)
    if decision.allow:
        done(course.asked(ask), {"automatic": True})
        return
    course.asked(ask, time() + (ask.within or 0))


async def may_change(work: Work, run: Record, course: Course, values: Any = None, **said: Any) -> Decision:
    """Ask what an adapter will ask before it does anything for this run."""
    purpose = "undo" if course.error else "remediation"
    resource = {"kind": "intent", "tenant": run.tenant, "purpose": purpose, "workflow": course.definition.name, **said}
    if course.approval:
        resource["approval"] = course.approval
    return await work.policy.decide(system(run.tenant), "perform", resource, values, channel="flow")


async def _ask_device(work: Work, run: Record, course: Course, ask: Ask) -> None:
    entry = course.asked(ask)
    if ask.function == "intent" and not await _may_ask(work, run, course, ask, entry):
        return
    entry["within"] = min(ask.within or work.settings.intent_deadline, work.settings.intent_deadline)
    _send(work, run, course, entry)


def _send(work: Work, run: Record, course: Course, entry: dict[str, Any]) -> None:
    """Ask the device, also once more."""
    deadline = time() + entry["within"]
    entry["due"] = deadline + GRACE
    course.messages.append(_intent(work, run, course, entry, deadline))


async def _may_ask(work: Work, run: Record, course: Course, ask: Ask, entry: dict[str, Any]) -> bool:
    """Whether an intent is of the device that is locked, and the policy lets it be; then what was there is noted."""
    given, target = ask.given, run.body["target"]
    if given["device"] != target:
        words = f"{given['device']} is not the device of the alarm: only {target} is locked for this run"
        failed(entry, error("refused", 403, "another device", words, ask.path))
        return False
    said = {name: given[name] for name in ("device", "service", "site") if given.get(name)}
    decision = await may_change(work, run, course, given["values"], **said)
    if not decision.allow:
        failed(entry, error("policy", 403, "the policy refuses it", "; ".join(decision.reasons), ask.path))
        _record(work, run, "workflow.refused", "refused", decision, task=ask.name, reasons=list(decision.reasons))
    elif not course.error and proof.baseline(course.told, first=True) is None:
        entry["before"] = await proof.look_around(work, run.tenant, target)
    return decision.allow


GRACE = 5.0
"""Seconds after an intent's deadline in which its answer is still waited for."""


def key_of(run: Record, entry: Mapping[str, Any]) -> str:
    """The same however often it is delivered."""
    again = f".{tries}" if (tries := away.tries(entry)) else ""
    return f"{run.id}:{entry['order']}{again}"


def _intent(work: Work, run: Record, course: Course, entry: Mapping[str, Any], deadline: float) -> Outgoing:
    given = entry["given"]
    intent = Intent(
        key=key_of(run, entry),
        tenant=run.tenant,
        device=given["device"],
        service=given["service"],
        instance=given["instance"],
        values=given["values"],
        deadline=deadline,
        purpose="undo" if course.error else "remediation",
        site=given.get("site") or "",
        workflow=course.definition.name,
        approval=course.approval,
        trace=trace.headers().get("traceparent", ""),
    )
    subject = f"intent.{token(given['adapter'])}.{token(given['device'])}"
    kind = "reading" if entry["function"] == "observe" else "intent"
    body = {kind: asdict(intent), "reply": f"network.{partition(run.id)}.outcome", "about": _about(run)}
    return Outgoing(intent.key, subject, work.seals.sealed(subject, body), trace.headers())


def _request(run: Record, entry: Mapping[str, Any]) -> Outgoing:
    body = {"request": entry["order"], "about": _about(run)}
    return Outgoing(key_of(run, entry), f"task.{partition(run.id)}.{token(run.tenant)}", body, trace.headers())


def _about(run: Record) -> dict[str, str]:
    return {"kind": run.kind, "tenant": run.tenant, "id": run.id}


async def _clear(work: Work, run: Record, course: Course, ask: Ask) -> None:
    """Clear the alarm on the evidence of readings that are newer than whatever was done."""
    entry = course.asked(ask)
    if proof.lacking(course.told):
        failed(
            entry, error("proof", 409, "no evidence", "nothing that was read shows that the fault is over", ask.path)
        )
        return
    try:
        alarm = await work.store.get(ALARM.name, run.tenant, run.body["alarm"]["id"])
    except NotFound:
        done(entry, None)
        return
    if alarm.body["state"] != "cleared":
        change = {"state": "cleared", "clearSystemId": run.body["target"]}
        with trace.span("alarm.clear", alarm.facts.get("carrier")):
            await work.resources.change(ALARM, alarm, change, {"openKey": None})
            work.audit.record("alarm.cleared", run.tenant, "convergedon", f"alarm/{alarm.id}", "done", run=run.id)
    done(entry, None)


# keeping


async def _keep(work: Work, run: Record, course: Course, walked: Walked) -> Record:
    state, reason = _state(course, walked)
    over = state in ENDED
    body: dict[str, Any] = {"state": state, "step": _steps(course), "reason": reason or None}
    body["question"] = _question(course) if state == "waitingForApproval" else None
    if course.said:
        body["said"] = course.said
    if over:
        body |= {
            "endedAt": now(),
            "escalated": not (state == "completed" or (state == "compensated" and _is_needless_now(course))),
        }
    facts = {
        "told": course.told,
        "events": course.events,
        "approvals": course.approvals,
        "error": course.error,
        "patience": course.patience,
        "due": None if over else _due(course),
        **({"lock": None} if over or away.PROBE in course.told else {}),
    }
    members = {name: value for name, value in {**run.body, **body}.items() if value is not None}
    kept = await work.resources.change(
        WORKFLOW_RUN, run, members, facts, course.messages, whole=True, description=reason
    )
    if over:
        tell_end(work, kept)
    return kept


def _state(course: Course, walked: Walked) -> tuple[str, str]:
    """Where the run is now, and why."""
    wrong = _words(course.error) if course.error else ""
    if _needless(course):
        return "completed", "the alarm was cleared before anything was done"
    if walked.over and not course.error:
        return "completed", ""
    if walked.over and walked.unsuccessful:
        left = "; ".join(_words(error) for _, error in walked.unsuccessful)
        return "failed", f"{wrong}; what was done could not be taken back: {left}"
    if walked.over and (waiting := _for_device(course)):
        return waiting
    if walked.over:
        return "compensated", wrong
    if course.held:
        return _held(course)
    if course.error:
        resting = [entry["words"] for entry in course.told.values() if entry["status"] == "asked" and "words" in entry]
        again = [f"it is asked again until {instant(course.patience or 0)}"] if resting else []
        return "compensating", "; ".join([wrong, *resting, *again])
    return ("waitingForApproval" if _waiting(course, "approval") else "running"), ""


def _held(course: Course) -> tuple[str, str]:
    return "stopped", f"all workflows are stopped: {course.stopped}"


def _for_device(course: Course) -> tuple[str, str] | None:
    """How a run stands that has taken back all, and waits for its device or has waited; None where it does not."""
    wrong, entry = _words(course.error) if course.error else "", course.told.get(away.PROBE)
    if _is_needless_now(course):
        return "compensated", f"{wrong}; the alarm was cleared before it was begun again"
    if course.held and away.probe(course.told, course.error):
        return _held(course)
    if entry is None:
        return None
    device = entry["given"]["device"]
    if entry["status"] == "failed":
        return "compensated", f"{wrong}; {device} did not answer again in time"
    return "waitingForDevice", f"{wrong}; it is begun again if {device} answers by {instant(course.patience or 0)}"


def is_back(run: Record) -> bool:
    """Whether the device has answered that a run waits for."""
    told = run.facts["told"].get(away.PROBE, {})
    return bool(run.body["state"] == "waitingForDevice" and told["status"] == "done")


def _is_needless_now(course: Course) -> bool:
    """Whether a fault is over that a run failed to repair as its device was away: there is nothing to begin again."""
    return away.probe(course.told, course.error) is not None and _is_cleared(course)


def _is_cleared(course: Course) -> bool:
    return any(event["data"].get("state") == "cleared" for event in course.events)


def _needless(course: Course) -> bool:
    """Whether a person would be asked about a fault that is over, and nothing was done yet."""
    cleared = _is_cleared(course)
    acted = any(entry["function"] in ("intent", "http") for entry in course.told.values())
    return cleared and not acted and bool(_waiting(course, "approval"))


def _words(error: Error) -> str:
    return f"{error['type']}: {error['detail'] or error['title']}"


def _waiting(course: Course, function: str) -> list[dict[str, Any]]:
    return [entry for entry in course.told.values() if entry["status"] == "asked" and entry["function"] == function]


def _question(course: Course) -> str:
    return "; ".join(entry["given"]["question"] for entry in _waiting(course, "approval"))


def _steps(course: Course) -> list[dict[str, Any]]:
    ordered = sorted(course.told.items(), key=lambda one: int(one[1]["order"]))
    return [
        {
            "name": entry["name"],
            "path": path,
            "function": entry["function"],
            "status": entry["status"],
            "time": entry["time"],
            **({"reason": words} if (words := _step_words(course, path, entry)) else {}),
        }
        for path, entry in ordered
    ]


def _step_words(course: Course, path: str, entry: Mapping[str, Any]) -> str:
    """Why it failed; else who has approved it, or how often a device that was away was asked."""
    if "error" in entry:
        return _words(entry["error"])
    if given := [one["by"]["id"] for one in course.answers(path) if one["decision"] == "approved"]:
        more = "; another person is needed" if entry["status"] == "asked" else ""
        return f"approved by {', '.join(given)}{more}"
    return f"asked again {away.tries(entry)} times: {entry['words']}" if "words" in entry else ""


def _due(course: Course) -> float:
    """When the run must be looked at although nothing was told."""
    open_ = [entry["due"] for entry in course.told.values() if entry["status"] == "asked" and entry["due"] is not None]
    again = [time() + LOOK_AGAIN] if course.held else []
    return float(min([*open_, *again, *([] if course.error else [course.until])], default=time() + LOOK_AGAIN))


def tell_end(work: Work, run: Record) -> None:
    """Record how a run has ended, and that it is left to a person."""
    state, reason = run.body["state"], run.body.get("reason", "")
    outcome = "done" if state == "completed" else "failed"
    _record(work, run, "workflow.ended", outcome, None, state=state, reason=reason)
    if run.body["escalated"]:
        _record(work, run, "workflow.escalated", "done", None, reason=reason)


def _record(work: Work, run: Record, what: str, outcome: str, decision: Decision | None, **detail: Any) -> None:
    on = f"{run.kind}/{run.id}"
    work.audit.record(
        what, run.tenant, "convergedon", on, outcome, decision, workflow=run.body["workflow"]["name"], **detail
    )
