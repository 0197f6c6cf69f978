"""A run of a workflow ends as its definition says, whoever dies; nothing is done twice, or without leave."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from faulty import FaultyStore
from scene import BERLIN, STORE_KINDS, Scene, item, listening, pumped, twice

from convergedon.adapters.contract import Outcome
from convergedon.core.bus import partition
from convergedon.core.memory import MemoryStore
from convergedon.core.policy import Subject
from convergedon.core.store import Record, Store
from convergedon.handlers.apis import APIS
from convergedon.handlers.remediation import WORKFLOW_APPROVAL, WORKFLOW_CONTROL
from convergedon.handlers.resource import Resources, now
from convergedon.mediation.workflows import definitions, remediation
from convergedon.mediation.workflows.definitions import Definition, violations

MARA, ZOE = Subject("mara", "acme", ("noc",)), Subject("zoe", "acme", ("noc",))
SERVICE = {"adapter": "loopback", "device": "pe1", "service": "detour", "instance": "mend"}
WAY = {"minutes": 5}
CLEARED = {"type": "AlarmStateChangeEvent", "data": '${ .state == "cleared" }'}
ASK = {"ask": {"call": "approval", "with": {"question": "Mend it?"}, "timeout": {"after": WAY}}}
BACK = [{"back": {"call": "intent", "with": {**SERVICE, "values": None}}}]
MEND = {"mend": {"call": "intent", "with": {**SERVICE, "values": {"via": "ge-2"}}, "metadata": {"compensate": BACK}}}
HEAR = {"hear": {"listen": {"to": {"one": {"with": CLEARED}}}, "timeout": {"after": WAY}}}
PASSES = {"milliseconds": 1}
LOOK = {"look": {"call": "observe", "with": {**SERVICE, "values": {"via": "ge-2"}}}}
LOOK_AT_MORE = {"seen": {"call": "observe", "with": {**SERVICE, "instance": "more", "values": {"via": "ge-2"}}}}


def definition(
    *tasks: Mapping[str, Any], name: str = "mend", version: str = "1.0.0", data: str = "${ true }"
) -> Definition:
    document = {
        "document": {"dsl": "1.0.0", "namespace": "test", "name": name, "version": version},
        "schedule": {"on": {"one": {"with": {"type": "AlarmCreateEvent", "data": data}}}},
        "timeout": {"after": {"hours": 1}},
        "do": copy.deepcopy(list(tasks)),
    }
    assert violations(document) == []
    return Definition(document)


@asynccontextmanager
async def playing(
    folder: Path, *tasks: Mapping[str, Any], store: Store | None = None, **given: Any
) -> AsyncIterator[Scene]:
    async with pumped(folder, store, workflows=[definition(*tasks)], **given) as scene:
        yield scene


async def run_of(scene: Scene) -> Record:
    (run,) = await scene.find("workflowRun")
    return run


async def say(scene: Scene, kind: str = "fault", **given: Any) -> Record | None:
    """Have pe1 say something; the run that there is when all is quiet."""
    await scene.say(kind, **given)
    await scene.pump()
    found = await scene.find("workflowRun")
    return found[0] if found else None


async def answer(scene: Scene, decision: str = "approved", by: Subject = MARA) -> Record:
    run = await run_of(scene)
    body = {"workflowRun": {"id": run.id}, "decision": decision}
    approval = await scene.resources.create(WORKFLOW_APPROVAL, "acme", body, {"owner": by.document})
    await scene.pump()
    return await scene.store.get(WORKFLOW_APPROVAL.name, "acme", approval.id)


async def press(scene: Scene, state: str, tenant: str = "acme") -> None:
    """What is pressed is known to the millisecond: nothing else is in this one."""
    await a_moment(scene)
    await scene.resources.create(WORKFLOW_CONTROL, tenant, {"state": state, "reason": "maintenance"})
    await scene.pump()
    await a_moment(scene)


async def a_moment(scene: Scene) -> None:
    at = now()

    async def is_over() -> bool:
        return now() > at

    await scene.until(is_over)


async def pass_time(scene: Scene, state: str) -> Record:
    """Let timers run out until the run is there."""

    async def there() -> bool:
        await remediation.look_after(scene.work)
        await scene.pump()
        return (await run_of(scene)).body["state"] == state

    await scene.until(there, 10)
    return await run_of(scene)


def asked(scene: Scene) -> list[tuple[str, Any]]:
    return [(intent.purpose, intent.values) for intent in scene.network.performed]


DONE = [("remediation", {"via": "ge-2"})]
UNDONE = [*DONE, ("undo", None)]


async def test_from_the_alarm_to_the_proof(tmp_path: Path) -> None:
    """Nothing before the approval; not over before the network says so; the alarm is never cleared by an action."""
    async with playing(tmp_path, ASK, MEND, HEAR) as scene:
        run = await say(scene)
        assert run
        assert run.body["state"] == "waitingForApproval"
        assert run.body["question"] == "Mend it?"
        assert asked(scene) == []

        approval = await answer(scene)
        assert approval.body["state"] == "accepted"
        run = await run_of(scene)
        assert run.body["state"] == "running"
        assert asked(scene) == DONE
        assert scene.network.performed[0].approval["by"] == MARA.document
        (alarm,) = await scene.find("alarm")
        assert alarm.body["state"] == "raised"

        run = await say(scene, "clear")

    assert run
    assert run.body["state"] == "completed"
    assert [(step["name"], step["status"]) for step in run.body["step"]] == [
        ("ask", "done"),
        ("mend", "done"),
        ("hear", "done"),
    ]
    assert asked(scene) == DONE
    assert scene.bus.parked_ == []


async def test_a_repair_that_is_not_proven_is_taken_back(tmp_path: Path) -> None:
    late = {"hear": {**HEAR["hear"], "timeout": {"after": PASSES}}}
    async with playing(tmp_path, ASK, MEND, late) as scene:
        await say(scene)
        await answer(scene)
        run = await pass_time(scene, "compensated")
        (alarm,) = await scene.find("alarm")

    assert asked(scene) == UNDONE
    assert scene.network.services == {}
    assert run.body["escalated"] is True
    assert run.body["reason"] == "timeout: hear: no answer in time"
    assert alarm.body["state"] == "raised"


async def test_what_was_done_is_taken_back_last_first(tmp_path: Path) -> None:
    def step(name: str) -> dict[str, Any]:
        there = {**SERVICE, "instance": name}
        back = [{"back": {"call": "intent", "with": {**there, "values": None}}}]
        return {name: {"call": "intent", "with": {**there, "values": {"n": name}}, "metadata": {"compensate": back}}}

    refused = step("c")
    refused["c"]["with"]["values"] = {"refuse": "no room"}
    async with playing(tmp_path, ASK, step("a"), step("b"), refused, HEAR) as scene:
        await say(scene)
        await answer(scene)
        run = await run_of(scene)

    assert run.body["state"] == "compensated"
    assert run.body["reason"] == "refused: no room"
    assert [(intent.instance, intent.values) for intent in scene.network.performed] == [
        ("a", {"n": "a"}),
        ("b", {"n": "b"}),
        ("c", {"refuse": "no room"}),
        ("b", None),
        ("a", None),
    ]


async def test_what_cannot_be_taken_back_is_said(tmp_path: Path) -> None:
    stop = {"stop": {"raise": {"error": {"type": "worse", "status": 500, "detail": "it is worse than before"}}}}
    async with playing(tmp_path, ASK, MEND, stop, HEAR) as scene:
        scene.network.keeping["pe1"] = "it is in use"
        await say(scene)
        await answer(scene)
        run = await run_of(scene)

    assert run.body["state"] == "failed"
    assert run.body["escalated"] is True
    assert run.body["reason"] == (
        "worse: it is worse than before; what was done could not be taken back: refused: it is in use"
    )


async def test_a_refusal_changes_nothing(tmp_path: Path) -> None:
    async with playing(tmp_path, ASK, MEND, HEAR) as scene:
        await say(scene)
        approval = await answer(scene, "refused")
        run = await run_of(scene)

    assert approval.body["state"] == "accepted"
    assert (run.body["state"], run.body["reason"]) == ("compensated", "notApproved: mara refused it")
    assert asked(scene) == []


async def test_nobody_answers(tmp_path: Path) -> None:
    ask = {"ask": {**ASK["ask"], "timeout": {"after": PASSES}}}
    async with playing(tmp_path, ask, MEND, HEAR) as scene:
        await say(scene)
        run = await pass_time(scene, "compensated")
        approval = await answer(scene)

    assert run.body["reason"] == "timeout: ask: no answer in time"
    assert asked(scene) == []
    assert approval.body["state"] == "rejected"
    assert approval.body["reason"] == f"run {run.id} does not ask for an approval"


async def test_two_persons_are_two(tmp_path: Path) -> None:
    ask = {"ask": {**ASK["ask"], "with": {"question": "Mend it?", "persons": 2}}}
    async with playing(tmp_path, ask, MEND, HEAR) as scene:
        await say(scene)
        await answer(scene)
        again = await answer(scene)
        half = await run_of(scene)
        assert asked(scene) == []
        other = await answer(scene, by=ZOE)

    run = await run_of(scene)
    assert run.body["state"] == "running"
    assert half.body["step"][0]["reason"] == "approved by mara; another person is needed"
    assert run.body["step"][0]["reason"] == "approved by mara, zoe"
    assert again.body["reason"] == "mara has approved mend already: another person is needed"
    assert other.body["state"] == "accepted"
    assert scene.network.performed[0].approval["second"]["by"] == ZOE.document


CLEAR = {"clear": {"call": "clear"}}


async def test_a_reading_is_evidence(tmp_path: Path) -> None:
    async with playing(tmp_path, ASK, MEND, LOOK, CLEAR) as scene:
        await say(scene)
        await answer(scene)
        run = await run_of(scene)
        (alarm,) = await scene.find("alarm")

    assert run.body["state"] == "completed"
    assert (alarm.body["state"], alarm.body["clearSystemId"]) == ("cleared", "pe1")


async def test_what_did_not_stay_is_no_proof(tmp_path: Path) -> None:
    """The device took the change and has lost it when it is looked at: taken back, told, and the alarm stands."""
    async with playing(tmp_path, ASK, MEND, {"rest": {"wait": PASSES}}, LOOK, CLEAR) as scene:
        await say(scene)
        await answer(scene)
        del scene.network.state["pe1"]["detour", "mend"]
        run = await pass_time(scene, "compensated")
        (alarm,) = await scene.find("alarm")

    assert run.body["reason"] == "proof: pe1: the service is not there"
    assert run.body["escalated"] is True
    assert scene.network.services == {}
    assert alarm.body["state"] == "raised"


async def test_a_way_past_the_proof_is_no_end(tmp_path: Path) -> None:
    """Whatever way a definition finds to its end: what is not shown is taken back, and a person is told."""
    hurried = {"mend": {**MEND["mend"], "then": "end"}}
    async with playing(tmp_path, ASK, hurried, LOOK, CLEAR) as scene:
        await say(scene)
        await answer(scene)
        run = await run_of(scene)

    assert asked(scene) == UNDONE
    assert (run.body["state"], run.body["escalated"]) == ("compensated", True)
    assert run.body["reason"] == "proof: nothing that was heard or read shows what became of its changes"


async def test_a_reading_from_before_the_last_change_is_no_evidence(tmp_path: Path) -> None:
    more = {"more": {**MEND["mend"], "with": {**MEND["mend"]["with"], "instance": "more"}}}
    async with playing(tmp_path, ASK, MEND, LOOK, more, CLEAR) as scene:
        await say(scene)
        await answer(scene)
        run = await run_of(scene)
        (alarm,) = await scene.find("alarm")

    assert run.body["state"] == "compensated"
    assert run.body["reason"] == "proof: nothing that was read shows that the fault is over"
    assert alarm.body["state"] == "raised"


async def test_an_approval_that_is_too_old_is_asked_for_again(tmp_path: Path) -> None:
    """It counts for an hour; a later approval goes on by itself within it, and asks after it."""
    again = {"again": {"call": "approval", "with": {"question": "Once more?"}, "timeout": {"after": WAY}}}
    more = {"more": {**MEND["mend"], "with": {**MEND["mend"]["with"], "instance": "more"}}}
    for age, state in ((0, "completed"), (3700, "waitingForApproval")):
        async with playing(tmp_path, ASK, MEND, HEAR, again, more, LOOK_AT_MORE) as scene:
            await say(scene)
            await answer(scene)
            run = await run_of(scene)
            aged = [{**one, "time": one["time"] - age} for one in run.facts["approvals"]]
            await scene.store.replace(run.with_(facts={"approvals": aged}))
            ended = await say(scene, "clear")
            assert ended
            assert ended.body["state"] == state
            if age:
                assert ended.body["question"] == "Once more?"
                await answer(scene)
            assert (await run_of(scene)).body["state"] == "completed"


async def test_whose_role_does_not_approve_is_told_so(tmp_path: Path) -> None:
    async with playing(tmp_path, ASK, MEND, HEAR) as scene:
        await say(scene)
        approval = await answer(scene, by=Subject("carl", "acme", ("billing",)))

    assert approval.body["state"] == "rejected"
    assert "remediation mend is approved by the roles noc, admin" in approval.body["reason"]
    assert asked(scene) == []


async def test_nothing_is_done_elsewhere_than_on_the_locked_device(tmp_path: Path) -> None:
    elsewhere = {"mend": {**MEND["mend"], "with": {**MEND["mend"]["with"], "device": "pe2"}}}
    async with playing(tmp_path, ASK, elsewhere, HEAR) as scene:
        await say(scene)
        await answer(scene)
        run = await run_of(scene)

    assert asked(scene) == []
    assert run.body["reason"] == ("refused: pe2 is not the device of the alarm: only pe1 is locked for this run")


async def test_one_workflow_at_a_time_changes_a_device(tmp_path: Path) -> None:
    """The lock is on the device, whatever part of it the alarm is of; it is free when the run has ended."""
    async with playing(tmp_path, ASK, MEND, HEAR, repair_patience=0) as scene:
        first = await say(scene, key="a", object="ge-1")
        await say(scene, key="b", object="ge-2")
        runs = {run.id: run.body for run in await scene.find("workflowRun")}
        (second,) = [body for id, body in runs.items() if id != first.id]
        assert second["state"] == "refused"
        assert second["reason"] == f"pe1 is locked by workflow mend (run {first.id})"
        await say(scene, "clear", key="a", object="ge-1")
        await say(scene, key="c", object="ge-2")
        states = [(run.body["state"], run.body.get("reason")) for run in await scene.find("workflowRun")]

    assert sorted(state for state, _ in states) == ["completed", "refused", "waitingForApproval"]
    assert ("completed", "the alarm was cleared before anything was done") in states


async def test_the_button_stops_everything_and_lets_it_go_on(tmp_path: Path) -> None:
    """What is not begun yet is not begun, a compensation neither; nothing is lost by it."""
    async with playing(tmp_path, ASK, MEND, HEAR) as scene:
        await say(scene)
        await press(scene, "stopped")
        await answer(scene)
        run = await run_of(scene)
        assert (run.body["state"], run.body["reason"]) == ("stopped", "all workflows are stopped: maintenance")
        assert asked(scene) == []
        await say(scene, key="other", device="pe2")
        other = next(one for one in await scene.find("workflowRun") if one.body["target"] == "pe2")
        await press(scene, "running")
        await remediation.go_on(scene.work, run, remediation.course_of(run))
        await scene.pump()

    assert other.body["reason"] == "all workflows are stopped: maintenance"
    assert asked(scene) == DONE


async def test_the_operators_button_stops_every_tenant(tmp_path: Path) -> None:
    async with playing(tmp_path, ASK, MEND, HEAR) as scene:
        await press(scene, "stopped", "*")
        run = await say(scene)

    assert run
    assert (run.body["state"], run.body["escalated"]) == ("refused", True)


async def test_what_flaps_is_left_to_a_person(tmp_path: Path) -> None:
    """Each time the same fault comes back a workflow may try, but not for ever, be it an alarm of its own each time."""
    async with playing(tmp_path, ASK, MEND, HEAR, flap_clears=0) as scene:
        for _ in range(5):
            await say(scene)
            if any(run.body["state"] == "waitingForApproval" for run in await scene.find("workflowRun")):
                run = next(r for r in await scene.find("workflowRun") if r.body["state"] == "waitingForApproval")
                body = {"workflowRun": {"id": run.id}, "decision": "approved"}
                await scene.resources.create(WORKFLOW_APPROVAL, "acme", body, {"owner": MARA.document})
                await scene.pump()
            await say(scene, "clear")
        runs = await scene.find("workflowRun")

    refused = [run.body["reason"] for run in runs if run.body["state"] == "refused"]
    assert len(runs) == 5
    assert sum(run.body["state"] == "completed" for run in runs) == 3
    assert any("mend has run on pe1 3 times within an hour" in words for words in refused)
    assert any("it flaps, and a person must look at it" in words for words in refused)
    assert all(run.body["escalated"] for run in runs if run.body["state"] == "refused")


async def test_a_run_keeps_the_definition_that_it_began_with(tmp_path: Path) -> None:
    store = MemoryStore(STORE_KINDS)
    async with playing(tmp_path, ASK, MEND, HEAR, store=store) as scene:
        await say(scene)
    newer = definition(ASK, {"nothing": {"set": {"a": 1}}}, version="2.0.0")
    async with pumped(tmp_path, store, workflows=[newer]) as scene:
        await answer(scene)
        await scene.say("fault", device="pe2", key="other")
        await scene.pump()
        versions = {run.body["target"]: run.body["workflow"]["version"] for run in await scene.find("workflowRun")}

    assert versions == {"pe1": "1.0.0", "pe2": "2.0.0"}
    assert asked(scene) == DONE


def test_of_each_name_the_highest_version_begins() -> None:
    versions = ["1.9.0", "1.10.0", "1.2.0"]

    found = remediation.newest([definition(MEND, version=version) for version in versions])

    assert [one.version for one in found] == ["1.10.0"]


TICKET = {
    "ticket": {
        "call": "http",
        "with": {
            "method": "post",
            "endpoint": "${ $workflow.definition.document.metadata.url }",
            "body": {"about": "${ $workflow.input.alarm.id }"},
        },
        "metadata": {
            "compensate": [
                {
                    "withdraw": {
                        "call": "http",
                        "with": {"method": "post", "endpoint": "${ $workflow.definition.document.metadata.url }/x"},
                    }
                }
            ]
        },
    }
}


async def test_a_request_is_made_once_it_is_answered(tmp_path: Path) -> None:
    async with listening() as listener:
        document = dict(definition(TICKET).document)
        document["document"] = {**document["document"], "metadata": {"url": listener.url("tickets")}}
        async with pumped(tmp_path, workflows=[Definition(document)]) as scene:
            await scene.say("fault")
            changed = await twice(scene)
            run = await run_of(scene)
            (alarm,) = await scene.find("alarm")

    assert changed == []
    assert run.body["state"] == "completed"
    assert listener.of("tickets") == [{"about": alarm.id}]


async def test_the_shipped_ticket_is_opened_once_and_resolved_by_the_all_clear(tmp_path: Path) -> None:
    """Also where the ticket system is away for a while."""
    (source,) = [file for file in definitions.sources(None) if "ticket" in file.name]
    async with listening() as listener:
        document = dict(definitions.read(source).document)
        document["document"] = {**document["document"], "metadata": {"url": listener.url("tickets")}}
        async with pumped(tmp_path, workflows=[Definition(document)]) as scene:
            assert (await scene.ended(await scene.order(item(**BERLIN))))["state"] == "completed"
            listener.answers["tickets"] = 503
            await scene.say("fault")
            with pytest.raises(AssertionError, match=r"came back for ever: 127\.0\.0\.1 answered 503"):
                await scene.pump()
            assert (await run_of(scene)).body["state"] == "running"
            listener.answers["tickets"] = 201
            listener.got.clear()
            (again,) = [one for one in scene.bus.messages if "request" in one.body]
            await scene.bus.publish(again.subject, again.body, "once more")
            await scene.pump()
            await scene.say("clear")
            await scene.pump()
            run = await run_of(scene)

    assert run.body["state"] == "completed"
    assert [path for path, _ in listener.got] == ["tickets", "tickets/null/resolve"]
    assert listener.of("tickets")[0]["name"] == "link down on pe1 ge-1"
    assert [one["@referredType"] for one in listener.of("tickets")[0]["relatedEntity"]] == ["Alarm", "Service"]


# everything that may go wrong, at every step


FORK = {
    "both": {
        "fork": {
            "branches": [
                {
                    "left": {
                        "call": "intent",
                        "with": {**SERVICE, "instance": "l", "values": {"a": 1}},
                        "metadata": {"compensate": BACK},
                    }
                },
                {
                    "right": {
                        "call": "intent",
                        "with": {**SERVICE, "instance": "r", "values": {"a": 2}},
                        "metadata": {"compensate": BACK},
                    }
                },
            ]
        }
    }
}
TRY = {
    "attempt": {
        "try": [
            {
                "worse": {
                    "call": "intent",
                    "with": {**SERVICE, "instance": "no", "values": {"refuse": "not here"}},
                    "metadata": {"compensate": BACK},
                }
            }
        ],
        "catch": {
            "errors": {"with": {"type": "refused"}},
            "as": "why",
            "do": [{"note": {"emit": {"event": {"with": {"type": "refused", "data": "${ $why.detail }"}}}}}],
        },
    }
}
ALL = (ASK, MEND, FORK, TRY, LOOK, HEAR)


async def test_second_delivery_changes_nothing(tmp_path: Path) -> None:
    async with playing(tmp_path, *ALL) as scene:
        await scene.say("fault")
        changed = await twice(scene)
        await scene.resources.create(
            WORKFLOW_APPROVAL,
            "acme",
            {"workflowRun": {"id": (await run_of(scene)).id}, "decision": "approved"},
            {"owner": MARA.document},
        )
        changed += await twice(scene)
        await scene.say("clear")
        changed += await twice(scene)
        run = await run_of(scene)

    assert changed == []
    assert run.body["state"] == "completed"
    assert [one["data"] for one in run.body["said"]] == ["not here"]


async def whole(scene: Scene, store: FaultyStore) -> None:
    """A run from its alarm to the all-clear; the person's answer is written by the gateway, which does not fail."""
    await scene.say("fault")
    await scene.pump()
    (run,) = await scene.find("workflowRun")
    body = {"workflowRun": {"id": run.id}, "decision": "approved"}
    gateway = Resources(store.inner, APIS, "http://gateway.example")
    await gateway.create(WORKFLOW_APPROVAL, "acme", body, {"owner": MARA.document})
    await scene.pump()
    await scene.say("clear")
    await scene.pump()


def seen(scene: Scene) -> list[tuple[str, str, Any]]:
    return [(intent.key.partition(":")[2], intent.purpose, intent.values) for intent in scene.network.performed]


WORSE = {"stop": {"raise": {"error": {"type": "worse", "status": 500, "detail": "worse than before"}}}}
COURSES = {"completed": ALL, "compensated": (ASK, MEND, FORK, WORSE, HEAR)}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("end", COURSES)
async def test_a_worker_may_die_at_every_write(tmp_path: Path, end: str, when: Any) -> None:
    """Each write fails once, not done or with its answer lost: the end, the steps and what devices saw are the same."""
    counting = FaultyStore(MemoryStore(STORE_KINDS))
    async with playing(tmp_path, *COURSES[end], store=counting) as scene:
        await whole(scene, counting)
        expected, steps = seen(scene), (await run_of(scene)).body["step"]
        assert (await run_of(scene)).body["state"] == end
    assert len(expected) == {"completed": 4, "compensated": 6}[end]
    assert counting.writes > 10

    for number in range(1, counting.writes + 1):
        store = FaultyStore(MemoryStore(STORE_KINDS), number, when)
        async with playing(tmp_path, *COURSES[end], store=store) as scene:
            await whole(scene, store)
            run = await run_of(scene)

            assert run.body["state"] == end, number
            ended = [(step["path"], step["status"]) for step in run.body["step"]]
            assert ended == [(step["path"], step["status"]) for step in steps], number
            assert seen(scene) == expected, number
            assert scene.bus.parked_ == [], number


async def test_what_nobody_knows_is_taken_back_too(tmp_path: Path) -> None:
    """A device that did not answer may have done it all the same."""
    async with playing(tmp_path, ASK, MEND, HEAR) as scene:
        await say(scene)
        deaf = [one for one in scene.bus.consumers if one.subject.startswith("intent.")]
        scene.bus.consumers = [one for one in scene.bus.consumers if one not in deaf]
        await answer(scene)
        run = await run_of(scene)
        scene.bus.consumers += deaf
        outcome = asdict(Outcome(f"{run.id}:1", "pe1", "unknown", "pe1 did not answer"))
        about = {"kind": run.kind, "tenant": run.tenant, "id": run.id}
        await scene.bus.publish(
            f"network.{partition(run.id)}.outcome.x", {"outcome": outcome, "about": about}, "outcome:1"
        )
        await scene.pump()
        run = await run_of(scene)

    assert run.body["state"] == "compensated"
    assert asked(scene) == [("undo", None)]


async def test_an_event_that_comes_twice_is_heard_once(tmp_path: Path) -> None:
    anything = {"listen": {"to": {"one": {"with": {"type": "AlarmStateChangeEvent"}}}}, "timeout": {"after": WAY}}
    async with playing(tmp_path, {"first": anything}, {"second": anything}) as scene:
        await say(scene)
        await scene.say("clear")
        changed = await twice(scene)
        run = await run_of(scene)

    assert changed == []
    assert [(step["name"], step["status"]) for step in run.body["step"]] == [("first", "done"), ("second", "asked")]


async def test_a_run_that_takes_too_long_is_taken_back(tmp_path: Path) -> None:
    """Although a device has not answered yet: nobody waits for it any more, and what it may have done is undone."""
    async with playing(tmp_path, ASK, MEND, HEAR) as scene:
        await say(scene)
        deaf = [one for one in scene.bus.consumers if one.subject.startswith("intent.")]
        scene.bus.consumers = [one for one in scene.bus.consumers if one not in deaf]
        await answer(scene)
        scene.bus.consumers += deaf
        run = await run_of(scene)
        await scene.store.replace(run.with_(facts={"until": 1.0, "due": 1.0}))
        run = await pass_time(scene, "compensated")

    assert run.body["reason"] == "timeout: the workflow as a whole has taken too long"
    assert [(step["name"], step["status"]) for step in run.body["step"]] == [
        ("ask", "done"),
        ("mend", "failed"),
        ("back", "done"),
    ]
    assert asked(scene) == [("undo", None)]


async def test_waits_survive_a_restart(tmp_path: Path) -> None:
    store = MemoryStore(STORE_KINDS)
    wait = {"rest": {"wait": {"milliseconds": 30}}}
    async with playing(tmp_path, wait, {"end": {"set": {"a": 1}}}, store=store) as scene:
        run = await say(scene)
        assert run
        assert run.body["state"] == "running"
    async with pumped(tmp_path, store) as scene:
        run = await pass_time(scene, "completed")

    assert [(step["name"], step["status"]) for step in run.body["step"]] == [("rest", "done")]
