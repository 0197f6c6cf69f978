"""What workflows may do at all is bounded, the bounds are the policy's, and what was decided can be seen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from scene import BERLIN, STORE_KINDS, Scene, item, pumped, twice
from test_workflow_line import ASK, HEAR, MEND, answer, asked, definition, press, run_of, say
from test_workflow_requests import audited

from convergedon.core import policy
from convergedon.core.errors import Misconfigured
from convergedon.core.memory import MemoryStore
from convergedon.core.policy import Embedded, Policy
from convergedon.core.store import Record
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.resource import now
from convergedon.mediation import flapping
from convergedon.mediation.workflows import guards, rehearsal
from convergedon.mediation.workflows.definitions import Definition

SHIPPED = policy.read()


@cache
def engine(told: str) -> Embedded:
    """Kept: it may not be freed in a thread that did not make it."""
    remediation = {**SHIPPED.data["remediation"], "automatic": {"*": ["mend", "tear"]}, **json.loads(told)}
    return Embedded(replace(SHIPPED, data={**SHIPPED.data, "remediation": remediation}))


def bounds(**changed: Any) -> Policy:
    """The policies that ship, with other limits."""
    return Policy(engine(json.dumps({"limits": {**SHIPPED.data["remediation"]["limits"], **changed}})))


@asynccontextmanager
async def within(folder: Path, rules: Policy, *workflows: Definition, **given: Any) -> AsyncIterator[Scene]:
    mends = workflows or (definition(MEND, HEAR),)
    async with pumped(folder, MemoryStore(STORE_KINDS), workflows=mends, rules=rules, **given) as scene:
        yield scene


async def once(scene: Scene, key: str, **said: Any) -> None:
    """A fault, its repair if there is one, and its end."""
    await scene.say("fault", key=key, **said)
    await scene.pump()
    await scene.say("clear", key=key, **said)
    await scene.pump()


def ends(runs: list[Record]) -> list[str]:
    """How the runs ended, in the order in which they began."""
    ordered = sorted(runs, key=lambda run: str(run.body["startedAt"]))
    return [str(run.body["reason"] if run.body["state"] == "refused" else run.body["state"]) for run in ordered]


async def test_one_workflow_on_one_device_runs_so_often_and_another_device_is_another(tmp_path: Path) -> None:
    async with within(tmp_path, bounds(perHour=2)) as scene:
        for key in "abc":
            await once(scene, key, object=key)
        await once(scene, "d", device="pe2")
        runs = await scene.find("workflowRun")

    words = "mend has run on pe1 2 times within an hour: a person must look at it"
    assert ends([run for run in runs if run.body["target"] == "pe1"]) == ["completed", "completed", words]
    assert ends([run for run in runs if run.body["target"] == "pe2"]) != [words]
    assert [run.body["escalated"] for run in runs if run.body["state"] == "refused"] == [True]


async def test_a_workflow_may_have_a_bound_of_its_own(tmp_path: Path) -> None:
    async with within(tmp_path, bounds(each={"mend": {"perHour": 1}})) as scene:
        for key in "ab":
            await once(scene, key, object=key)
        runs = await scene.find("workflowRun")

    assert sorted(run.body["state"] for run in runs) == ["completed", "refused"]


async def test_repairs_that_raise_each_others_alarms_are_stopped(tmp_path: Path) -> None:
    """Two workflows in a circle: each within its own bound, and together more than the device may have."""
    names = ("mend", "tear")
    mends = [definition(MEND, HEAR, name=name, data=f'${{ .alarm.specificProblem == "{name}" }}') for name in names]
    async with within(tmp_path, bounds(perHour=10, perTarget=3), *mends) as scene:
        for number in range(4):
            await once(scene, f"k{number}", object=f"o{number}", specificProblem=names[number % 2])
        runs = await scene.find("workflowRun")

    assert ends(runs)[3] == (
        "workflows have run on pe1 3 times within an hour: they may go round in circles, and a person must look at it"
    )
    assert sum(run.body["state"] == "completed" for run in runs) == 3


async def test_what_touches_too_much_is_left_to_a_person(tmp_path: Path) -> None:
    async with within(tmp_path, bounds(affected=0)) as scene:
        assert (await scene.ended(await scene.order(item(**BERLIN))))["state"] == "completed"
        await once(scene, "a")
        (run,) = await scene.find("workflowRun")

    assert run.body["reason"] == "the fault touches 1 services, and workflows may touch 0"
    assert run.body["guard"] == {"affected": 1, "recent": 0, "repairs": 0, "raised": 1, "underWay": 0, "waiting": 0}


async def test_so_many_are_under_way_at_once(tmp_path: Path) -> None:
    async with within(tmp_path, bounds(underWay=1)) as scene:
        await scene.say("fault", key="a")
        await scene.pump()
        await scene.say("fault", key="b", device="pe2")
        await scene.pump()
        runs = await scene.find("workflowRun")

    assert sorted(ends(runs)) == ["1 workflows are under way already", "running"]


async def test_the_lock_on_a_device_is_one_for_all_tenants(tmp_path: Path) -> None:
    """While one tenant repairs on a device that two have things on, the other does not, and is not told by what."""
    async with within(tmp_path, bounds(), repair_patience=0) as scene:
        await scene.say("fault", key="a", tenant="acme")
        await scene.pump()
        await scene.say("fault", key="b", tenant="globex")
        await scene.pump()
        (other,) = await scene.find("workflowRun", tenant="globex")
        await scene.say("clear", key="a", tenant="acme")
        await scene.pump()
        await scene.say("clear", key="b", tenant="globex")
        await scene.say("fault", key="c", tenant="globex")
        await scene.pump()
        (mine,) = await scene.find("workflowRun")
        later = [run for run in await scene.find("workflowRun", tenant="globex") if run.id != other.id]

    assert (other.body["state"], other.body["escalated"]) == ("refused", True)
    assert other.body["reason"] == "pe1 is locked by a workflow of another tenant"
    assert mine.body["state"] == "completed"
    assert [run.body["state"] for run in later] != ["refused"]


async def test_how_often_a_device_was_repaired_counts_for_all_tenants(tmp_path: Path) -> None:
    async with within(tmp_path, bounds(perHour=1)) as scene:
        await once(scene, "a", tenant="acme")
        await once(scene, "b", tenant="globex")
        (other,) = await scene.find("workflowRun", tenant="globex")

    assert other.body["reason"] == "mend has run on pe1 1 times within an hour: a person must look at it"


@pytest.mark.parametrize("standing", [False, True])
async def test_an_alarm_that_a_client_made_locks_no_device_that_is_not_its_tenants(
    standing: bool, tmp_path: Path
) -> None:
    """It may name any; one on which a service of the tenant stands is repaired all the same."""
    body = {
        "state": "raised",
        "alarmType": "communicationsAlarm",
        "perceivedSeverity": "major",
        "probableCause": "lossOfSignal",
        "alarmedObject": {"id": "pe1/ge-1"},
        "sourceSystemId": "pe1",
        "alarmRaisedTime": now(),
    }
    async with within(tmp_path, bounds()) as scene:
        if standing:
            assert (await scene.ended(await scene.order(item(**BERLIN))))["state"] == "completed"
        await scene.resources.create(ALARM, "acme" if standing else "globex", body)
        await scene.pump()
        (run,) = await scene.find("workflowRun", tenant="acme" if standing else "globex")
        await scene.say("fault", key="real")
        await scene.pump()
        real = [one for one in await scene.find("workflowRun") if one.id != run.id]

    if standing:
        assert run.body["state"] == "running"
    else:
        assert run.body["reason"] == (
            "pe1 is not known to be of tenant globex: it has told nothing of this, and no service stands on it"
        )
        assert [one.body["state"] for one in real] == ["running"]


async def test_what_was_refused_is_in_the_audit_record_with_the_decision(tmp_path: Path) -> None:
    recorded: list[tuple[str, str, Any]] = []
    async with within(tmp_path, bounds(perHour=0)) as scene:
        record = scene.audit.record

        def told(what: str, *rest: Any, **detail: Any) -> None:
            recorded.append((what, str(rest[3]), detail.get("reason")))
            record(what, *rest, **detail)

        scene.audit.record = told  # type: ignore[method-assign]
        await once(scene, "a")

    words = "mend has run on pe1 0 times within an hour: a person must look at it"
    assert ("workflow.escalated", "refused", words) in recorded


@pytest.mark.parametrize("patience", [0, 3600])
@pytest.mark.parametrize("limits", [{}, {"perHour": 2}, {"perTarget": 3}, {"raised": 3}, {"affected": 0}])
async def test_a_recorded_incident_is_decided_as_it_was(
    limits: dict[str, int], patience: float, tmp_path: Path
) -> None:
    """A rehearsal goes by what happened before on the device, whenever it is recorded, and whoever else was there."""
    flow, rules = definition(MEND, HEAR), bounds(**{"perHour": 9, "raised": 9, "perTarget": 9, **limits})
    async with within(tmp_path, rules, flow, flap_clears=0, repair_patience=patience) as scene:
        await scene.ended(await scene.order(item(**BERLIN)))
        for _ in range(4):
            await say(scene)
            await say(scene, "clear")
        await say(scene)
        await say(scene, key="another", object="ge-2")  # waits for its turn, if the first has the device
        await say(scene, "clear")
        runs = sorted(await scene.find("workflowRun"), key=lambda run: str(run.body["startedAt"]))
        said = [await rehearsed(scene, run, flow, rules) for run in runs]

    live = [(run.facts["input"]["earlier"], run.body["state"], run.body.get("reason", "")) for run in runs]
    assert len(live) == 6
    assert {"refused", "waitingForTurn"} & {state for _, state, _ in live}
    for (earlier, state, reason), (then, lines) in zip(live, said, strict=True):
        first, last = lines[0], lines[-1]
        assert then == earlier
        assert last.startswith("it would be refused") == (state == "refused"), (state, reason, last)
        assert state != "refused" or last.partition("told: ")[2] == reason.partition(" (run ")[0]
        waits = f"waits for its turn: {reason.partition(' (run ')[0]}"
        assert first.startswith("waits for its turn") == (state == "waitingForTurn"), (state, reason, first)
        assert state != "waitingForTurn" or first == waits


@pytest.mark.parametrize("whose", ["acme", "*"])
async def test_a_recorded_incident_knows_when_workflows_were_stopped(whose: str, tmp_path: Path) -> None:
    """It is refused as it was then, though they may go on by now; what came after may begin."""
    flow, rules = definition(MEND, HEAR), bounds()
    async with within(tmp_path, rules, flow) as scene:
        await press(scene, "stopped", whose)
        await say(scene)
        await press(scene, "running", whose)
        await say(scene, key="another", device="pe2")
        runs = sorted(await scene.find("workflowRun"), key=lambda run: str(run.body["target"]))
        said = [(await rehearsed(scene, run, flow, rules))[1][-1] for run in runs]

    assert [run.body["state"] == "refused" for run in runs] == [True, False]
    assert said[0] == "it would be refused, and a person would be told: all workflows are stopped: maintenance"
    assert not said[1].startswith("it would be refused")


async def rehearsed(scene: Scene, run: Record, flow: Definition, rules: Policy) -> tuple[int, list[str]]:
    """How often it ran there before, and how it would go, by what is recorded of the alarm of a run."""
    alarm = await scene.store.get(ALARM.name, "acme", run.body["alarm"]["id"])
    told = await guards.recorded(scene.resources, alarm)
    file = scene.work.settings.data / "incident.json"
    file.write_text(json.dumps({**told, "events": [{"type": "AlarmStateChangeEvent", "data": {"state": "cleared"}}]}))
    played = rehearsal.read(flow, file, "elsewhere", rules, scene.work.settings.repair_patience)
    lines = await played.run()
    return int(played.incident["earlier"]), lines


@pytest.mark.parametrize(
    ("earlier", "words"),
    [
        ({}, "'runs'"),
        ({"until": "noon", "runs": [], "raised": [], "underWay": 0}, "noon"),
        ([], "'runs'"),
        ({"until": now(), "runs": [], "raised": [], "underWay": 0, "pressed": [{"at": "dusk"}]}, "state"),
        (None, "None"),
    ],
)
def test_a_past_that_is_none_is_refused_in_a_sentence(earlier: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / "incident.json"
    incident = {"alarm": {}, "target": {}, "services": [], "confirmed": []}
    file.write_text(json.dumps({"incident": incident, "earlier": earlier}))

    with pytest.raises(Misconfigured, match="earlier is not as `convergedon workflow record` writes it") as wrong:
        rehearsal.read(definition(MEND, HEAR), file, "acme", bounds(), 60.0)

    assert words in str(wrong.value)


FLAPPING = {"type": "AlarmAttributeValueChangeEvent", "fieldPath": "flapping", "data": "${ .alarm.flapping == true }"}


def throttle(*tasks: Any) -> Definition:
    document = json.loads(json.dumps(definition(*tasks).document))
    document["schedule"]["on"]["one"]["with"] = FLAPPING
    return Definition(document)


async def flap(scene: Scene, times: int) -> None:
    for _ in range(times):
        await scene.say("fault")
        await scene.pump()
        await scene.say("clear")
        await scene.pump()


async def test_a_change_of_an_alarm_begins_a_workflow_once_each_time(tmp_path: Path) -> None:
    """Not by its creation, nor by other changes while it flaps; and once more when it flaps again later."""
    async with within(tmp_path, bounds(perHour=9), throttle(MEND, HEAR), flap_clears=2, flap_quiet=0.01) as scene:
        await scene.say("fault")
        await scene.pump()
        nothing = await scene.find("workflowRun")
        await scene.say("clear")
        await flap(scene, 1)
        changed = await twice(scene)
        first = await scene.find("workflowRun")
        await flap(scene, 2)
        still = await scene.find("workflowRun")

    assert nothing == []
    assert changed == []
    assert len(first) == len(still) == 1
    assert first[0].facts["input"]["earlier"] == 0
    assert asked(scene) == [("remediation", {"via": "ge-2"})]


async def test_a_change_that_can_begin_nothing_is_no_step(tmp_path: Path) -> None:
    """Nobody is asked whether it may, and nothing is recorded: a fibre cut changes each of its alarms several times."""
    async with within(tmp_path, bounds(), throttle(MEND, HEAR), flap_clears=2, flap_quiet=60) as scene:
        recorded = audited(scene)
        await scene.say("fault")
        await scene.pump()
        (alarm,) = await scene.find("alarm")
        await scene.resources.change(ALARM, alarm, {"alarmDetails": "seen"})
        await scene.pump()
        before = [detail.get("step") for _, detail in recorded]
        await scene.say("clear")
        await flap(scene, 1)
        after = [detail.get("step") for _, detail in recorded]

    assert "assurance.hear" in before
    assert "remediation.begin" not in before
    assert after.count("remediation.begin") == 1


async def test_an_alarm_that_flaps_again_begins_another_run_that_knows_of_the_first(tmp_path: Path) -> None:
    rules = bounds(perHour=9, raised=99)
    async with within(tmp_path, rules, throttle(MEND, HEAR), flap_clears=2, flap_quiet=0.01) as scene:
        for turn in range(2):
            await flap(scene, 2)

            async def quiet() -> bool:
                await flapping.release(scene.work)
                await scene.pump()
                return all(run.body["state"] == "completed" for run in await scene.find("workflowRun"))

            await scene.until(quiet)
            assert len(await scene.find("workflowRun")) == turn + 1
        runs = await scene.find("workflowRun")

    assert sorted(run.facts["input"]["earlier"] for run in runs) == [0, 1]


async def test_the_button_holds_what_is_asked_and_no_run_begins(tmp_path: Path) -> None:
    async with within(tmp_path, bounds(), definition(ASK, MEND, HEAR)) as scene:
        await press(scene, "stopped")
        run = await say(scene)

    assert run
    assert run.body["reason"] == "all workflows are stopped: maintenance"
    assert asked(scene) == []


@pytest.mark.parametrize("decision", ["approved", "refused"])
async def test_what_a_person_said_is_on_the_run(decision: str, tmp_path: Path) -> None:
    async with pumped(tmp_path, workflows=[definition(ASK, MEND, HEAR)]) as scene:
        await say(scene)
        await answer(scene, decision)
        run = await run_of(scene)

    assert run.body["step"][0]["name"] == "ask"
    assert run.body["step"][0]["status"] == {"approved": "done", "refused": "failed"}[decision]
