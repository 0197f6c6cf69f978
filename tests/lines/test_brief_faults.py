"""A fault that is over before anybody looked at it is not lost: its customers hear that it was, and that it is over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import Any, Literal

import pytest
from faulty import FaultyStore
from scene import BERLIN, STORE_KINDS, Scene, item, pumped, twice

from convergedon.adapters.contract import Observation
from convergedon.adapters.intake import Told
from convergedon.adapters.reporting import Reporting
from convergedon.core.memory import MemoryStore

ABOUT = {
    "alarmType": "communicationsAlarm",
    "perceivedSeverity": "major",
    "probableCause": "lossOfSignal",
    "specificProblem": "link down",
    "details": {},
}


async def say_at_once(scene: Scene, *kinds: str, object: str = "ge-1", before: Sequence[Observation] = ()) -> None:
    """Have pe1 say these in one message, so that they are taken before anybody looks."""
    begun = time()
    said = [
        Observation(f"{begun}-{n}", kind, "loopback", "pe1", "acme", begun + n / 1000, object, f"down:{object}", ABOUT)  # type: ignore[arg-type]
        for n, kind in enumerate(kinds)
    ]
    for parcel in Reporting("loopback", scene.bus).pack([Told(one, None) for one in (*before, *said)]):
        await parcel.send()


async def heard(scene: Scene) -> list[str]:
    """What customers were told, in the order in which it was made."""
    return [one.body["notificationType"] for one in await scene.store.find("customerNotification", {"tenant": "acme"})]


async def of_faults(scene: Scene) -> list[str]:
    return [one for one in await heard(scene) if one.startswith("service")]


async def test_customers_hear_of_both_once(still: Scene) -> None:
    """Since when and until when it was, as the network said; and nothing more, however often it is delivered."""
    await still.ended(await still.order(item(**BERLIN)))
    await say_at_once(still, "fault", "clear")

    assert await twice(still) == []
    assert await of_faults(still) == ["serviceAffected", "serviceRestored"]
    (record,) = await still.find("affectedParty")
    (alarm,) = await still.find("alarm")
    assert record.body["status"] == "restored"
    assert record.body["perceivedSeverity"] == "major"
    assert record.body["affectedSince"] == alarm.body["alarmRaisedTime"]
    assert record.body["restoredAt"] == alarm.body["alarmClearedTime"]
    assert {"openKey", "openAt", "openOn"}.isdisjoint({*alarm.facts, *record.facts})


async def test_each_of_several_and_what_is_left_is_told_in_order(still: Scene) -> None:
    await still.ended(await still.order(item(**BERLIN)))
    await say_at_once(still, "fault", "clear", "fault", "clear", "fault")
    await still.settled()

    assert await of_faults(still) == ["serviceAffected", "serviceRestored"] * 2 + ["serviceAffected"]
    assert sorted(one.body["state"] for one in await still.find("alarm")) == ["cleared", "cleared", "raised"]


async def test_what_a_greater_fault_explains_is_told_by_that(still: Scene) -> None:
    """A port that came and went while its device fails is part of that problem."""
    await still.ended(await still.order(item(**BERLIN)))
    device = Observation("device", "fault", "loopback", "pe1", "acme", time(), "", "deviceDown", ABOUT)
    await say_at_once(still, "fault", "clear", before=[device])
    await still.settled()

    assert await of_faults(still) == ["serviceAffected"]
    await still.say("clear", object="", key="deviceDown")
    await still.settled()
    assert await of_faults(still) == ["serviceAffected", "serviceRestored"]


async def test_what_touches_nobody_is_told_to_nobody(still: Scene) -> None:
    await say_at_once(still, "fault", "clear")
    await still.settled()

    (alarm,) = await still.find("alarm")
    assert await heard(still) == []
    assert "openAt" not in alarm.facts


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cut_at_any_write_changes_no_end(tmp_path: Path, when: Literal["before", "after"]) -> None:
    """Whichever write of the store fails, done or not, everybody is told of both once."""
    for at in range(1, 100):
        store: Any = FaultyStore(MemoryStore(STORE_KINDS), 0, when)
        async with pumped(tmp_path, store) as scene:
            await scene.ended(await scene.order(item(**BERLIN)))
            store.writes, store.fails_at = 0, at
            await say_at_once(scene, "fault", "clear", "fault")
            await scene.settled()
            assert await of_faults(scene) == ["serviceAffected", "serviceRestored", "serviceAffected"], at
            assert sorted(one.body["state"] for one in await scene.find("alarm")) == ["cleared", "raised"]
            assert scene.bus.parked_ == []
            passed = store.writes < at
        if passed:
            break
    assert at > 5
