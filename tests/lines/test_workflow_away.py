"""A device that goes away under a repair: what was done is taken back when it answers again, and the repair begun anew.

Both within the patience that is set and under all guards, whichever worker dies; else a person is told.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faulty import FaultyStore
from scene import STORE_KINDS, Scene, pumped, twice
from test_workflow_elements import ASKED, BOUNCE, PORT, closed, hasty, on_lab
from test_workflow_guards import bounds, within
from test_workflow_line import HEAR, LOOK, MEND, SERVICE, UNDONE, WAY, asked, definition, press, run_of, say

from convergedon.core.errors import Unavailable
from convergedon.core.memory import MemoryStore
from convergedon.core.store import Record
from convergedon.handlers.remediation import WORKFLOW_RUN
from convergedon.mediation.workflows import remediation
from convergedon.mediation.workflows.definitions import Definition

AT_ONCE = {"intent_deadline": 2}
"""Nearer than the adapter tries again: it answers at once that the device is away."""
UNSEEN = "unknown: pe1: pe1 cannot be reached"
GIVEN_UP = "unknown: gave up at its deadline: pe1 cannot be reached"
REST = {"rest": {"wait": WAY}}
SEE = {"see": {"call": "observe", "with": {**SERVICE, "values": None}}}
FLOW = definition(SEE, MEND, REST, LOOK, HEAR)


async def runs(scene: Scene) -> list[Record]:
    """The runs in the order in which they began."""
    return sorted(await scene.find("workflowRun"), key=lambda run: ("follows" in run.body, str(run.body["startedAt"])))


async def later(scene: Scene, died: int = 0) -> None:
    """Have whatever rests be due now. Workers that die have others look."""
    for run in await scene.find("workflowRun"):
        told = copy.deepcopy(dict(run.facts["told"]))
        for entry in told.values():
            if entry["due"] is not None and (entry.get("resting") or entry["function"] == "wait"):
                entry["due"] = 1.0
        if run.facts.get("due") is not None:
            kept = run.with_(facts={"told": told, "due": 1.0})
            await getattr(scene.store, "inner", scene.store).replace(kept)
    for _ in range(1 + died):
        try:
            await remediation.look_after(scene.work)
        except Unavailable:
            continue
        await scene.pump()


async def lost_after_the_change(scene: Scene) -> Record:
    """The device goes away between a change and its proof."""
    await scene.say("fault")
    await scene.pump()
    scene.network.unreachable.add("pe1")
    await later(scene, died=1)
    return (await runs(scene))[0]


async def test_what_was_done_is_taken_back_when_the_device_is_back(tmp_path: Path) -> None:
    """Also by workers that were started since; nobody is told before, and the record says what is waited for."""
    store = MemoryStore(STORE_KINDS)
    async with within_(tmp_path, FLOW, store) as scene:
        first = await lost_after_the_change(scene)
        memory = scene.network.state
    async with within_(tmp_path, FLOW, store) as scene:
        scene.network.state, scene.network.unreachable = memory, {"pe1"}
        await later(scene)
        still = await run_of(scene)
        scene.network.unreachable.clear()
        await later(scene)
        await later(scene)
        old, new = await runs(scene)

    assert (first.body["state"], still.body["state"]) == ("compensating", "compensating")
    assert "escalated" not in still.body
    assert f"unknown: pe1: pe1 cannot be reached; {GIVEN_UP}; it is asked again until 20" in still.body["reason"]
    (waits,) = [step for step in still.body["step"] if step["name"] == "back"]
    assert waits["status"] == "asked"
    assert waits["reason"] == f"asked again 2 times: {GIVEN_UP}"
    assert (old.body["state"], old.body["escalated"]) == ("compensated", False)
    assert asked(scene)[0] == ("undo", None)
    assert old.body["followedBy"]["id"] == new.id
    assert new.body["follows"]["id"] == old.id


def within_(folder: Path, flow: Definition, store: Any = None, rules: Any = None, **given: Any) -> Any:
    given = {**AT_ONCE, **given}
    return pumped(folder, store or MemoryStore(STORE_KINDS), workflows=[flow], rules=rules or bounds(), **given)


async def waiting(scene: Scene) -> Record:
    """A run that could not do anything, and waits for its device."""
    scene.network.unreachable.add("pe1")
    await scene.say("fault")
    await scene.pump()
    await later(scene)
    (run,) = await scene.find("workflowRun")
    assert run.body["state"] == "waitingForDevice", run.body
    return run


async def test_a_repair_is_begun_again_once_its_device_answers(tmp_path: Path) -> None:
    """It is another run, decided by the policy with the first among what it counts."""
    async with within_(tmp_path, FLOW) as scene:
        await waiting(scene)
        await later(scene)
        scene.network.unreachable.clear()
        await later(scene)
        changed = await twice(scene)
        await later(scene)
        await later(scene)
        old, new = await runs(scene)
        await say(scene, "clear")
        new = await scene.store.get(WORKFLOW_RUN.name, "acme", new.id)

    assert changed == []
    assert old.body["reason"] == f"{UNSEEN}; begun again"
    assert (old.body["state"], old.body["escalated"]) == ("compensated", False)
    assert new.body["guard"]["recent"] == 1
    assert (new.body["state"], new.body["escalated"]) == ("completed", False)
    assert scene.bus.parked_ == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_whichever_write_a_worker_dies_at_it_is_begun_again_once(tmp_path: Path, when: Any) -> None:
    async def played(store: FaultyStore) -> tuple[list[Any], list[Any]]:
        async with within_(tmp_path, FLOW, store) as scene:
            await lost_after_the_change(scene)
            scene.network.unreachable.clear()
            for _ in range(6):
                await later(scene, died=1)
            found = [(run.body["state"], run.body.get("escalated")) for run in await runs(scene)]
            return found, [(intent.purpose, intent.values) for intent in scene.network.performed]

    counting = FaultyStore(MemoryStore(STORE_KINDS))
    ended, asked_of = await played(counting)
    assert ended == [("compensated", False), ("running", None)]
    assert asked_of == [*UNDONE, ("remediation", {"via": "ge-2"})]

    for number in range(1, counting.writes + 1):
        assert (number, *await played(FaultyStore(MemoryStore(STORE_KINDS), number, when))) == (number, ended, asked_of)


async def test_it_is_begun_again_no_oftener_than_the_guard_says(tmp_path: Path) -> None:
    async with within_(tmp_path, FLOW, rules=bounds(perHour=1)) as scene:
        await waiting(scene)
        scene.network.unreachable.clear()
        await later(scene)
        old, new = await runs(scene)

    assert (old.body["state"], old.body["escalated"]) == ("compensated", False)
    assert (new.body["state"], new.body["escalated"]) == ("refused", True)
    assert new.body["reason"] == "mend has run on pe1 1 times within an hour: a person must look at it"
    assert asked(scene) == []


async def test_a_device_that_does_not_come_back_is_left_to_a_person(tmp_path: Path) -> None:
    async with within_(tmp_path, FLOW) as scene:
        run = await waiting(scene)
        await scene.store.replace(run.with_(facts={"patience": 1.0}))
        await later(scene)
        await later(scene)
        run = await run_of(scene)

    assert (run.body["state"], run.body["escalated"]) == ("compensated", True)
    assert run.body["reason"] == f"{UNSEEN}; pe1 did not answer again in time"


async def test_what_cannot_be_taken_back_in_time_is_left_to_a_person(tmp_path: Path) -> None:
    async with within_(tmp_path, FLOW) as scene:
        run = await lost_after_the_change(scene)
        await scene.store.replace(run.with_(facts={"patience": 1.0}))
        await later(scene)
        await later(scene)
        run = await run_of(scene)

    assert (run.body["state"], run.body["escalated"]) == ("failed", True)
    assert run.body["reason"].endswith(f"; what was done could not be taken back: {GIVEN_UP}")


async def test_a_fault_that_is_over_meanwhile_is_left_to_nobody(tmp_path: Path) -> None:
    async with within_(tmp_path, FLOW) as scene:
        await waiting(scene)
        await say(scene, "clear")
        run = await run_of(scene)
        scene.network.unreachable.clear()
        await later(scene)

        assert (run.body["state"], run.body["escalated"]) == ("compensated", False)
        assert run.body["reason"] == f"{UNSEEN}; the alarm was cleared before it was begun again"
        assert len(await scene.find("workflowRun")) == 1


async def test_nothing_is_begun_again_while_workflows_are_stopped(tmp_path: Path) -> None:
    async with within_(tmp_path, FLOW) as scene:
        await waiting(scene)
        await press(scene, "stopped")
        scene.network.unreachable.clear()
        for _ in range(3):
            await later(scene)
        stopped = await run_of(scene)
        await press(scene, "running")
        for _ in range(2):
            await later(scene)
        _, new = await runs(scene)

    assert (stopped.body["state"], stopped.body["reason"]) == ("stopped", "all workflows are stopped: maintenance")
    assert new.body["state"] == "running", new.body


async def test_it_waits_for_its_turn_on_the_device(tmp_path: Path) -> None:
    """One that waits holds nobody up; what repairs there meanwhile comes to its end first."""
    there = {"mend": {**MEND["mend"], "with": {**MEND["mend"]["with"], "instance": "other"}}}
    other = definition(there, HEAR, name="tear", data='${ .target.object == "ge-2" }')
    mine = definition(SEE, MEND, REST, LOOK, HEAR, data='${ .target.object == "ge-1" }')
    async with within(tmp_path, bounds(), mine, other, **AT_ONCE) as scene:
        await waiting(scene)
        scene.network.unreachable.clear()
        await scene.say("fault", object="ge-2", key="other")
        await scene.pump()
        await later(scene)
        waits = [(run.body["workflow"]["name"], run.body["state"]) for run in await runs(scene)]
        await scene.say("clear", object="ge-2", key="other")
        await scene.pump()
        for run in await runs(scene):
            await scene.store.replace(run.with_(facts={"due": 1.0}) if run.body["state"] == "waitingForTurn" else run)
        await later(scene)
        after = [(run.body["workflow"]["name"], run.body["state"]) for run in await runs(scene)]

    assert sorted(waits) == [("mend", "compensated"), ("mend", "waitingForTurn"), ("tear", "running")]
    assert sorted(after) == [("mend", "compensated"), ("mend", "running"), ("tear", "completed")]


async def test_a_workflow_that_is_in_force_no_more_is_not_begun_again(tmp_path: Path) -> None:
    store = MemoryStore(STORE_KINDS)
    async with within_(tmp_path, FLOW, store) as scene:
        await waiting(scene)
    async with within_(tmp_path, definition(MEND, HEAR, name="another"), store) as scene:
        await later(scene)
        await later(scene)
        run = await run_of(scene)

    assert (run.body["state"], run.body["escalated"]) == ("compensated", True)
    assert run.body["reason"] == f"{UNSEEN}; no workflow of this name is for this alarm any more"


async def test_a_task_that_is_called_compensate_is_none(tmp_path: Path) -> None:
    """What was asked in it when the run as a whole took too long is not waited for."""
    inside = {"compensate": {"do": [MEND]}}
    async with within_(tmp_path, definition(inside, HEAR)) as scene:
        deaf = [one for one in scene.bus.consumers if one.subject.startswith("intent.")]
        scene.bus.consumers = [one for one in scene.bus.consumers if one not in deaf]
        run = await say(scene)
        assert run
        scene.bus.consumers += deaf
        await scene.store.replace(run.with_(facts={"until": 1.0, "due": 1.0}))
        await remediation.look_after(scene.work)
        await scene.pump()

        assert (await run_of(scene)).body["state"] == "compensated"


@dataclass
class Away:
    """What came of a bounce whose element went away at a step, and was back when the run waited for it."""

    runs: list[Record]
    alarm: Record
    off: bool
    on: bool


async def bounced(folder: Path, step: str) -> Away:
    async with on_lab(folder, hasty(BOUNCE, step), repair_patience=60) as site:

        async def lost() -> None:
            await closed(site)

        async def waits() -> bool:
            return any(
                f"it is {what}" in run.body.get("reason", "") for run in await runs(site.scene) for what in WAITS
            )

        async def over() -> bool:
            return all("endedAt" in run.body for run in await runs(site.scene))

        site.bus.left, site.bus.happens = ASKED[BOUNCE].index(step) + 1, lost
        await site.lab.fault("pe1", "hang", PORT)
        await site.scene.until(waits, 40)
        off = not site.element.ports()[PORT].enabled
        site.proxy.away = False
        await site.scene.until(over, 40)
        found = await runs(site.scene)
        alarm = await site.scene.store.get("alarm", "acme", found[0].body["alarm"]["id"])
        return Away(found, alarm, off, site.element.ports()[PORT].enabled)


WAITS = ("asked again until", "begun again if")


async def test_an_element_that_was_away_has_its_port_on_and_is_repaired(tmp_path: Path) -> None:
    """Lost between off and on, the port is switched on as soon as it answers; lost before, it is bounced then."""
    between, before = await asyncio.gather(*(bounced(tmp_path / step, step) for step in ("switchOn", "look")))

    assert (between.off, between.on) == (True, True)
    assert [run.body["state"] for run in between.runs] == ["compensated"]
    assert between.runs[0].body["reason"].endswith("; the alarm was cleared before it was begun again")
    assert [run.body["state"] for run in before.runs] == ["compensated", "completed"]
    assert (before.off, before.on) == (False, True)
    for one in (between, before):
        assert [run.body["escalated"] for run in one.runs] == [False] * len(one.runs)
        assert (one.alarm.body["state"], one.alarm.body["clearSystemId"]) == ("cleared", "pe1")
