"""A device that another run has: whoever comes second waits for its turn, and no person is needed for that.

In the order in which they came, so many and for so long as is set, and under all guards when the turn comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from faulty import FaultyStore
from scene import STORE_KINDS, Scene, pumped
from test_workflow_elements import BACKUP, BOUNCE, PORT, hasty, on_lab
from test_workflow_guards import bounds, within
from test_workflow_line import HEAR, MEND, definition, press
from test_workflow_requests import audited

from convergedon.core.errors import Unavailable
from convergedon.core.memory import MemoryStore
from convergedon.core.store import Outgoing, Record
from convergedon.mediation.workflows import remediation


async def say(scene: Scene, number: int, kind: str = "fault", **said: Any) -> None:
    """What pe1 says of one of its interfaces."""
    await scene.say(kind, key=f"k{number}", object=f"ge-{number}", **said)
    await scene.pump()


async def runs(scene: Scene, tenant: str = "acme") -> dict[int, Record]:
    """The run of each interface."""
    found = await scene.find("workflowRun", tenant)
    return {int(run.facts["input"]["target"]["object"].rpartition("-")[2]): run for run in found}


async def states(scene: Scene) -> dict[int, str]:
    return {number: str(run.body["state"]) for number, run in (await runs(scene)).items()}


async def look(scene: Scene, died: int = 0) -> None:
    """Have every run that waits for its turn look whether that has come. Workers that die have others look."""
    for run in (await runs(scene)).values():
        if run.body["state"] == "waitingForTurn":
            await getattr(scene.store, "inner", scene.store).replace(run.with_(facts={"due": 1.0}))
    for _ in range(1 + died):
        with suppress(Unavailable):
            await remediation.look_after(scene.work)
        await scene.pump()


async def test_two_interfaces_that_fail_at_once_are_repaired_one_after_the_other(tmp_path: Path) -> None:
    async with within(tmp_path, bounds()) as scene:
        recorded = audited(scene)
        await say(scene, 1)
        await say(scene, 2)
        before = await runs(scene)
        await look(scene)
        still = await states(scene)
        await say(scene, 1, "clear")
        await look(scene)
        begun = (await runs(scene))[2]
        await say(scene, 2, "clear")
        after = await runs(scene)

    waits = before[2].body
    words = f"pe1 is locked by workflow mend (run {before[1].id}); it begins after that, if by 20"
    assert waits["reason"].startswith(words)
    assert "escalated" not in waits
    assert still == {1: "running", 2: "waitingForTurn"}
    assert (begun.body["state"], begun.body.get("reason")) == ("running", None)
    assert begun.body["startedAt"] > waits["startedAt"]
    assert (begun.body["guard"]["recent"], begun.body["guard"]["waiting"]) == (1, 0)
    assert {run.body["state"] for run in after.values()} == {"completed"}
    assert [run.body["escalated"] for run in after.values()] == [False, False]
    assert [said[0] for said, _ in recorded if said[0].startswith("workflow.")] == [
        "workflow.begun",
        "workflow.waiting",
        "workflow.ended",
        "workflow.begun",
        "workflow.ended",
    ]
    assert scene.bus.parked_ == []


async def test_they_have_it_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    """Also where one comes when it has just become free, and others wait."""
    async with within(tmp_path, bounds(perHour=9)) as scene:
        for number in (1, 2, 3):
            await say(scene, number)
        await say(scene, 1, "clear")
        await say(scene, 4)
        queue = (await runs(scene))[4].body
        told = [await states(scene)]
        for number in (2, 3):
            await look(scene)
            told.append(await states(scene))
            await say(scene, number, "clear")
        await look(scene)
        told.append(await states(scene))

    assert queue["reason"].startswith("2 workflows wait for pe1 before it; ")
    assert [{number for number, state in one.items() if state == "running"} for one in told] == [set(), {2}, {3}, {4}]


async def test_a_fault_that_is_over_before_is_left_to_nobody_and_counts_for_nothing(tmp_path: Path) -> None:
    async with within(tmp_path, bounds(perHour=2)) as scene:
        await say(scene, 1)
        await say(scene, 2)
        await say(scene, 2, "clear")
        over = (await runs(scene))[2].body
        await say(scene, 1, "clear")
        await say(scene, 3)
        third = (await runs(scene))[3].body

    assert (over["state"], over["escalated"]) == ("refused", False)
    assert over["reason"] == "the alarm was over before its turn came"
    assert (third["state"], third["guard"]["recent"]) == ("running", 1)


async def test_a_turn_that_does_not_come_in_time_is_left_to_a_person(tmp_path: Path) -> None:
    async with within(tmp_path, bounds()) as scene:
        await say(scene, 1)
        await say(scene, 2)
        found = await runs(scene)
        first, second = found[1], found[2]
        await scene.store.replace(second.with_(facts={"turn": 1.0}))
        await look(scene)
        late = (await runs(scene))[2].body

    assert (late["state"], late["escalated"]) == ("refused", True)
    assert late["reason"] == f"pe1 is locked by workflow mend (run {first.id}); its turn did not come in time"


async def test_without_patience_it_is_a_persons_at_once(tmp_path: Path) -> None:
    async with within(tmp_path, bounds(), repair_patience=0) as scene:
        await say(scene, 1)
        await say(scene, 2)
        found = await runs(scene)
        first, second = found[1], found[2]

    assert (second.body["state"], second.body["escalated"]) == ("refused", True)
    assert second.body["reason"] == f"pe1 is locked by workflow mend (run {first.id})"


async def test_so_many_wait_and_no_more(tmp_path: Path) -> None:
    """The bound is the policy's, and is 5 for one that says none."""
    async with within(tmp_path, bounds(waiting=1)) as scene:
        for number in (1, 2, 3):
            await say(scene, number)
        found = await runs(scene)

    assert {number: run.body["state"] for number, run in found.items()} == {
        1: "running",
        2: "waitingForTurn",
        3: "refused",
    }
    assert found[3].body["reason"] == "1 workflows wait for pe1 already"


async def test_nothing_has_its_turn_while_workflows_are_stopped(tmp_path: Path) -> None:
    async with within(tmp_path, bounds()) as scene:
        await say(scene, 1)
        await say(scene, 2)
        await say(scene, 1, "clear")
        await press(scene, "stopped")
        await look(scene)
        stopped = (await runs(scene))[2].body
        await press(scene, "running")
        await look(scene)
        after = await states(scene)

    assert stopped["state"] == "waitingForTurn"
    assert stopped["reason"].startswith("all workflows are stopped: maintenance; ")
    assert after[2] == "running"


async def test_the_guards_are_asked_when_the_turn_comes(tmp_path: Path) -> None:
    """What ran before it counts by then, and what was told of it then is shown."""
    async with within(tmp_path, bounds(perHour=2)) as scene:
        for number in (1, 2, 3):
            await say(scene, number)
        for number in (1, 2):
            await say(scene, number, "clear")
            await look(scene)
        third = (await runs(scene))[3].body

    assert (third["state"], third["escalated"]) == ("refused", True)
    assert third["reason"] == "mend has run on pe1 2 times within an hour: a person must look at it"
    assert (third["guard"]["recent"], third["guard"]["waiting"]) == (2, 0)


async def test_a_workflow_that_is_in_force_no_more_does_not_have_its_turn(tmp_path: Path) -> None:
    """One that is in force in a newer version has it in that."""
    store, other = MemoryStore(STORE_KINDS), definition(MEND, HEAR, name="another")
    given = {"rules": bounds(), "workflows": [definition(MEND, HEAR)]}
    async with pumped(tmp_path, store, **given) as scene:
        for number in (1, 2, 3):
            await say(scene, number)
        await say(scene, 1, "clear")
    async with pumped(tmp_path, store, **{**given, "workflows": [definition(MEND, HEAR, version="1.1.0")]}) as scene:
        await look(scene)
    async with pumped(tmp_path, store, **{**given, "workflows": [other]}) as scene:
        await look(scene)
        found = await runs(scene)

    assert (found[2].body["state"], found[2].body["workflow"]["version"]) == ("running", "1.1.0")
    assert (found[3].body["state"], found[3].body["escalated"]) == ("refused", True)
    assert found[3].body["reason"] == "no workflow of this name is for this alarm any more"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_whichever_write_a_worker_dies_at_each_has_its_turn_once(tmp_path: Path, when: Any) -> None:
    async def played(store: FaultyStore) -> tuple[dict[int, str], list[Any]]:
        async with within_(tmp_path, store) as scene:
            for number in (1, 2):
                await say(scene, number)
            await say(scene, 1, "clear")
            for _ in range(2):
                await look(scene, died=1)
            asked = [intent.key for intent in scene.network.performed]
            await say(scene, 2, "clear")
            return await states(scene), asked

    counting = FaultyStore(MemoryStore(STORE_KINDS))
    ended, asked = await played(counting)
    assert ended == {1: "completed", 2: "completed"}
    assert len(asked) == 2

    for number in range(1, counting.writes + 1):
        died = await played(FaultyStore(MemoryStore(STORE_KINDS), number, when))
        assert (number, died[0], len(died[1])) == (number, ended, len(asked))


def within_(folder: Path, store: Any) -> Any:
    return pumped(folder, store, workflows=[definition(MEND, HEAR)], rules=bounds())


class Overtaken(MemoryStore):
    """A store in which another worker is there first: ``sooner`` is made just before the next write, or as that is."""

    def __init__(self, *kinds: Any) -> None:
        super().__init__(*kinds)
        self.sooner: Record | None = None
        self.alike = False

    async def create(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        if self.alike and record.kind == "workflowRun":
            self.alike = False
            await super().create(record, messages)
        return await super().create(record, messages)

    async def replace(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        sooner, self.sooner = self.sooner, None
        if sooner is not None:
            await super().create(sooner)
        return await super().replace(record, messages)


async def test_who_is_overtaken_waits_on(tmp_path: Path) -> None:
    """And looks again later, not at once; the lock is another's, of whatever tenant."""
    store = Overtaken(STORE_KINDS)
    async with within_(tmp_path, store) as scene:
        await say(scene, 1)
        await say(scene, 2)
        await say(scene, 1, "clear")
        found = await runs(scene)
        await store.replace(found[2].with_(facts={"due": 1.0}))
        facts = {**found[1].facts, "lock": "pe1", "due": None}
        store.sooner = Record("workflowRun", "other", "globex", {**found[1].body, "state": "running"}, facts)
        await remediation.look_after(scene.work)
        waits = (await runs(scene))[2]
        await look(scene)
        after = (await runs(scene))[2].body

    assert waits.body["reason"].startswith("pe1 has changed hands; ")
    assert "lock" not in waits.facts
    assert waits.facts["due"] > 1.0
    assert after["reason"].startswith("pe1 is locked by a workflow of another tenant; ")


async def test_who_finds_its_run_begun_by_another_worker_goes_on_with_it(tmp_path: Path) -> None:
    """It does not wait for itself, and nothing is parked: neither of one that begins nor of one that waits."""
    store = Overtaken(STORE_KINDS)
    async with within_(tmp_path, store) as scene:
        for number in (1, 2):
            store.alike = True
            await say(scene, number)
        between = await states(scene)
        await say(scene, 1, "clear")
        await look(scene)
        await say(scene, 2, "clear")

        assert between == {1: "running", 2: "waitingForTurn"}
        assert await states(scene) == {1: "completed", 2: "completed"}
        assert len(scene.network.performed) == 2
        assert scene.bus.parked_ == []


async def test_two_ports_of_an_element_that_hang_at_once_are_both_repaired(tmp_path: Path) -> None:
    """On the lab's element, whose link says that it is over; nobody is told."""
    async with on_lab(tmp_path / "lab", hasty(BOUNCE), repair_patience=60) as site:
        await site.lab.fault("pe1", "hang", PORT)
        await site.lab.fault("pe1", "hang", BACKUP)

        async def over() -> bool:
            found = await site.scene.find("workflowRun")
            return len(found) == 2 and all("endedAt" in run.body for run in found)

        await site.scene.until(over, 60)
        found = await site.scene.find("workflowRun")
        alarms = await site.scene.find("alarm")
        ports = site.element.ports()

    assert [(run.body["state"], run.body["escalated"]) for run in found] == [("completed", False)] * 2
    assert {alarm.body["state"] for alarm in alarms} == {"cleared"}
    assert (ports[PORT].linked, ports[BACKUP].linked) == (True, True)
