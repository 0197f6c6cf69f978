"""Whatever goes wrong at whichever step of a repair: it is taken back and told, and its alarm stands.

A row for each: when it happens, what, and how the run ends. What could not be taken back is said, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from scene import BERLIN, Scene, item, pumped
from test_workflow_line import ASK, CLEAR, CLEARED, MARA, PASSES, definition

from convergedon.core.errors import OutcomeUnknown, Refused
from convergedon.core.store import Record
from convergedon.handlers.remediation import WORKFLOW_APPROVAL
from convergedon.mediation.workflows import remediation

Happens = Callable[[Scene], Awaitable[Any]]
FAULT = {"object": "ge-9", "key": "the fault"}


def of(name: str) -> dict[str, Any]:
    return {"adapter": "loopback", "device": "pe1", "service": "detour", "instance": name, "values": {"n": name}}


def changing(name: str) -> dict[str, Any]:
    back = [{f"{name}Back": {"call": "intent", "with": {**of(name), "values": None}}}]
    return {name: {"call": "intent", "with": of(name), "metadata": {"compensate": back}}}


def looking(name: str) -> dict[str, Any]:
    return {f"{name}Seen": {"call": "observe", "with": of(name)}}


REST = {"rest": {"wait": {"milliseconds": 300}}}
READ = (ASK, changing("first"), changing("second"), REST, looking("first"), looking("second"), CLEAR)
HEARD = (
    *(ASK, changing("first"), REST),
    {"hear": {"listen": {"to": {"one": {"with": CLEARED}}}, "timeout": {"after": PASSES}}},
)


class Row(NamedTuple):
    """``before`` anything is done or ``between`` it and its proof something happens; ``reason`` begins the run's."""

    state: str
    reason: str
    before: Happens | None = None
    between: Happens | None = None
    tasks: tuple[Any, ...] = READ


def fails(instance: str, error: Exception) -> Happens:
    async def happen(scene: Scene) -> None:
        scene.network.failing[instance] = error

    return happen


def loses(instance: str) -> Happens:
    async def happen(scene: Scene) -> None:
        del scene.network.state["pe1"]["detour", instance]

    return happen


async def goes_away(scene: Scene) -> None:
    scene.network.unreachable.add("pe1")


async def keeps(scene: Scene) -> None:
    scene.network.keeping["pe1"] = "it is in use"
    await loses("second")(scene)


def alarms(**said: Any) -> Happens:
    async def happen(scene: Scene) -> None:
        await scene.say("fault", **said)
        await scene.pump()

    return happen


async def is_over(scene: Scene) -> None:
    await scene.say("clear", **FAULT)
    await scene.pump()


async def is_over_and_worse(scene: Scene) -> None:
    await alarms(key="customer", object="ge-1")(scene)
    await is_over(scene)


UNKNOWN = OutcomeUnknown("pe1 did not answer")
ROWS = {
    "the first is refused": Row("compensated", "refused: no room", fails("first", Refused("no room"))),
    "the second is refused": Row("compensated", "refused: no room", fails("second", Refused("no room"))),
    "the first is not answered": Row(
        "compensated",
        "rolledBack: gave up at its deadline: pe1 did not answer; the former state is back",
        fails("first", UNKNOWN),
    ),
    "the second is not answered": Row(
        "compensated",
        "rolledBack: gave up at its deadline: pe1 did not answer; the former state is back",
        fails("second", UNKNOWN),
    ),
    "the device is away": Row("failed", "unknown: gave up at its deadline: pe1 cannot be reached", goes_away),
    "the device is away when it is to be read": Row(
        "failed", "unknown: pe1: pe1 cannot be reached; what was done could not be taken back", None, goes_away
    ),
    "the first did not stay": Row("compensated", "proof: pe1: the service is not there", None, loses("first")),
    "the second did not stay": Row("compensated", "proof: pe1: the service is not there", None, loses("second")),
    "it does not stay and is not given back": Row(
        "failed", "proof: pe1: the service is not there; what was done could not be taken back: refused", None, keeps
    ),
    "a customer has lost his service since": Row(
        "compensated",
        "worse: it is worse than before: 1 services of pe1 are out of service that worked",
        None,
        alarms(key="customer", object="ge-1"),
    ),
    "more is out of order since": Row(
        "compensated",
        "worse: it is worse than before: 2 alarms are open on pe1, and there were 1",
        None,
        alarms(key="more", object="ge-3"),
    ),
    "a listen hears nothing": Row("compensated", "timeout: hear: no answer in time", tasks=HEARD),
    "a listen hears that it is over, and it is worse": Row(
        "compensated",
        "worse: it is worse than before: 1 services of pe1 are out of service that worked",
        None,
        is_over_and_worse,
        HEARD,
    ),
    # and what is no fault of the repair
    "nothing": Row("completed", ""),
    "it was as bad before": Row("completed", "", alarms(key="customer", object="ge-1")),
    "another device has an alarm": Row("completed", "", None, alarms(key="more", device="pe2")),
    "something is told that is not grave": Row(
        "completed", "", None, alarms(key="more", object="ge-3", perceivedSeverity="warning")
    ),
    "a listen hears that it is over": Row("completed", "", None, is_over, HEARD),
}


async def first(scene: Scene) -> Record:
    """The run of the fault that is repaired; those of what happens besides find its device locked."""
    (run,) = [run for run in await scene.find("workflowRun") if run.facts["input"]["target"]["object"] == "ge-9"]
    return run


async def answer_first(scene: Scene) -> None:
    body = {"workflowRun": {"id": (await first(scene)).id}, "decision": "approved"}
    await scene.resources.create(WORKFLOW_APPROVAL, "acme", body, {"owner": MARA.document})
    await scene.pump()


async def over(scene: Scene) -> Record:
    """The run when it has ended: timers run out."""

    async def ended() -> bool:
        await remediation.look_after(scene.work)
        await scene.pump()
        return "endedAt" in (await first(scene)).body

    await scene.until(ended)
    return await first(scene)


@pytest.mark.parametrize("name", ROWS)
async def test_whatever_goes_wrong_is_taken_back_and_told(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    async with pumped(tmp_path, workflows=[definition(*row.tasks)], intent_deadline=2, repair_patience=0) as scene:
        assert (await scene.ended(await scene.order(item(**BERLIN))))["state"] == "completed"
        await scene.say("fault", **FAULT)
        await scene.pump()
        if row.before:
            await row.before(scene)
        await answer_first(scene)
        if row.between:
            await row.between(scene)
        run = await over(scene)
        (alarm,) = await scene.find("alarm", id=run.body["alarm"]["id"])
        detours = [instance for service, instance in scene.network.state.get("pe1", {}) if service == "detour"]

    assert (run.body["state"], run.body["escalated"]) == (row.state, row.state != "completed")
    assert run.body.get("reason", "").startswith(row.reason)
    assert (alarm.body["state"] == "cleared") == (row.state == "completed" or row.between is is_over_and_worse)
    if row.state == "compensated":
        assert detours == []
