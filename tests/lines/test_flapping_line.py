"""A condition that comes and goes: one alarm that stays open, counts on, and is released when it is quiet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import Phase, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scene import BERLIN, STORE_KINDS, Scene, item, playing, pumped, twice
from test_told_together import packed, seen, send

from convergedon.adapters.contract import Observation
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.store import MongoStore, Record
from convergedon.handlers.alarms import ALARM
from convergedon.mediation import flapping

SOON = {"flap_clears": 3, "flap_window": 60, "flap_quiet": 0.05}


@pytest.fixture
async def restless(tmp_path: Path) -> AsyncIterator[Scene]:
    """One message at a time; the third clear is one too many, and nothing is quiet for long enough."""
    async with pumped(tmp_path, **SOON | {"flap_quiet": 3600}) as scene:
        yield scene


async def turns(scene: Scene, number: int) -> None:
    for _ in range(number):
        for kind in ("fault", "clear"):
            await scene.say(kind)
            await scene.settled()


async def open_(scene: Scene) -> Record:
    (alarm,) = [one for one in await scene.find("alarm") if one.body["state"] != "cleared"]
    return alarm


async def events(scene: Scene, alarm: Record) -> list[tuple[str, str]]:
    told = [one["event"] for one in await scene.bus.read("event.>") if one["id"] == alarm.id]
    return [(event["eventType"], event.get("fieldPath", "")) for event in told]


async def quiet(scene: Scene) -> None:
    """Have the time of all that flaps be over, and what is due be done."""
    for alarm in await scene.find("alarm"):
        if "quietAt" in alarm.facts:
            await scene.resources.change(ALARM, alarm, facts={"quietAt": 1.0})
    await flapping.release(scene.work)
    await scene.settled()


async def said(scene: Scene) -> list[str]:
    return [one.body["notificationType"] for one in await scene.find("customerNotification")]


async def test_what_comes_and_goes_becomes_one_alarm_that_stays_open(restless: Scene) -> None:
    """An event of its own says so; then it counts on, and nothing else is raised or cleared."""
    await turns(restless, 3)

    alarm = await open_(restless)
    assert (alarm.body["flapping"], alarm.body["perceivedSeverity"]) == (True, "major")
    assert ("AlarmAttributeValueChangeEvent", "flapping") in await events(restless, alarm)

    await turns(restless, 20)

    assert len(await restless.find("alarm")) == 3
    alarm = await open_(restless)
    assert (alarm.body["raisedCount"], alarm.body["flapping"]) == (21, True)
    assert alarm.body["alarmDetails"].endswith("seen 21 times")


async def test_customers_are_not_told_of_each_turn(restless: Scene) -> None:
    await restless.ended(await restless.order(item(**BERLIN)))
    await turns(restless, 3)
    before = await said(restless)

    await turns(restless, 20)

    assert await said(restless) == before
    assert before.count("serviceAffected") == before.count("serviceRestored") + 1


async def test_it_is_cleared_when_it_is_quiet_after_a_clear(restless: Scene) -> None:
    """Since when the network said so, and customers hear the all-clear."""
    await restless.ended(await restless.order(item(**BERLIN)))
    await turns(restless, 4)
    alarm = await open_(restless)

    await quiet(restless)

    after = await restless.store.get("alarm", "acme", alarm.id)
    assert (after.body["state"], after.body["flapping"], after.body["clearSystemId"]) == ("cleared", False, "pe1")
    assert after.body["lastRaisedTime"] <= after.body["alarmClearedTime"] <= after.body["alarmChangedTime"]
    assert not {"openKey", "openAt", "quietAt", "onceQuiet"} & after.facts.keys()
    counted = await said(restless)
    assert counted.count("serviceAffected") == counted.count("serviceRestored") == 3


async def test_it_is_an_open_alarm_like_others_when_it_is_quiet_after_a_fault(restless: Scene) -> None:
    await turns(restless, 3)
    await restless.say("fault")
    await restless.settled()

    await quiet(restless)

    alarm = await open_(restless)
    assert (alarm.body["flapping"], "quietAt" in alarm.facts) == (False, False)
    assert (await events(restless, alarm))[-1] == ("AlarmAttributeValueChangeEvent", "flapping")


async def test_what_was_long_ago_does_not_count(restless: Scene) -> None:
    """Two clears within the window and one before it."""
    await turns(restless, 2)
    for alarm in await restless.find("alarm"):
        await restless.resources.change(ALARM, alarm, {"alarmClearedTime": "2026-01-01T00:00:00Z"})

    await turns(restless, 2)

    assert {one.body["state"] for one in await restless.find("alarm")} == {"cleared"}


async def test_what_persons_clear_is_no_flapping(restless: Scene) -> None:
    for _ in range(5):
        await restless.say("fault")
        await restless.settled()
        await restless.resources.change(ALARM, await open_(restless), {"state": "cleared", "clearUserId": "mara"})

    await turns(restless, 1)

    assert {one.body["state"] for one in await restless.find("alarm")} == {"cleared"}


async def test_a_flapping_alarm_that_a_person_clears_is_over(restless: Scene) -> None:
    """And flaps no more; the network's next word is of another alarm."""
    await turns(restless, 3)
    alarm = await open_(restless)
    await restless.resources.change(ALARM, alarm, {"state": "cleared", "clearUserId": "mara"})
    await quiet(restless)

    after = await restless.store.get("alarm", "acme", alarm.id)
    assert (after.body["flapping"], "quietAt" in after.facts) == (False, False)
    await restless.say("fault")
    await restless.settled()
    assert (await open_(restless)).id != alarm.id


async def test_other_conditions_of_the_device_do_not_count(restless: Scene) -> None:
    await turns(restless, 2)
    await restless.say("fault", key="other")
    await restless.say("clear", key="other")
    await restless.settled()

    assert {one.body["state"] for one in await restless.find("alarm")} == {"cleared"}


async def test_each_word_counts_once_however_often_it_is_delivered(restless: Scene) -> None:
    for _ in range(5):
        await restless.say("fault")
        await restless.say("clear")

    assert await twice(restless) == []
    alarm = await open_(restless)
    assert (alarm.body["raisedCount"], alarm.body["flapping"], len(await restless.find("alarm"))) == (3, True, 3)


@effort(max_examples=12, deadline=None, phases=[Phase.generate])
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["fault", "clear"])), max_size=30), st.data())
def test_however_words_are_put_into_messages_it_comes_to_the_same(
    words: list[tuple[str, str]], data: st.DataObject
) -> None:
    """And as the rule says: the third clear that would end an alarm leaves it open, and then nothing else ends it."""
    said = [seen(number, kind=kind, key=key) for number, (key, kind) in enumerate(words)]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(said)))))
    parcels = [said[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(said)], strict=True) if begin < end]

    alone, together = asyncio.run(heard([[one] for one in said])), asyncio.run(heard(parcels))

    assert alone == together
    for key in "ab":
        assert [state[1:] for state in alone if state[0] == f"pe1|{key}"] == by_the_rule(
            [kind for one, kind in words if one == key]
        )


async def heard(parcels: Iterable[Sequence[Observation]]) -> list[tuple[str, str, bool, int]]:
    """What there is of alarms when these have been told."""
    with TemporaryDirectory() as folder:
        async with pumped(Path(folder), **SOON | {"flap_quiet": 3600}) as scene:
            for parcel in parcels:
                await send(packed(scene, *parcel))
                await scene.pump()
            found = await scene.find("alarm")
    return sorted(
        (one.facts["key"], one.body["state"] != "cleared", one.body.get("flapping", False), one.facts["count"])
        for one in found
    )


def by_the_rule(kinds: Iterable[str]) -> list[tuple[bool, bool, int]]:
    """The alarms of one condition: whether open, whether flapping, how often raised."""
    alarms: list[tuple[bool, bool, int]] = []
    for kind in kinds:
        open_, flaps, count = alarms[-1] if alarms else (False, False, 0)
        if kind == "fault" and open_:
            alarms[-1] = (True, flaps, count + 1)
        elif kind == "fault":
            alarms.append((True, False, 1))
        elif open_ and not flaps:
            third = len(alarms) >= SOON["flap_clears"]
            alarms[-1] = (third, third, count)
    return sorted(alarms)


async def test_the_release_survives_the_workers(tmp_path: Path) -> None:
    """Its time passes while none is there; the next one that comes does it."""
    store = MemoryStore(STORE_KINDS)
    async with pumped(tmp_path, store, **SOON) as scene:
        await turns(scene, 3)
    async with playing(store, MemoryBus(), tmp_path, **SOON) as scene:

        async def released() -> bool:
            return all(one.body["state"] == "cleared" for one in await scene.find("alarm"))

        await scene.until(released)


async def test_of_several_workers_one_releases(tmp_path: Path, mongodb_url: str) -> None:
    store = await MongoStore(mongodb_url, f"flapping{uuid4().hex[:8]}", STORE_KINDS).open()
    async with pumped(tmp_path, store, **SOON | {"flap_quiet": 3600}) as scene:
        await turns(scene, 3)
        alarm = await open_(scene)
        await scene.resources.change(ALARM, alarm, facts={"quietAt": 1.0})

        await asyncio.gather(*(flapping.release(scene.work) for _ in range(4)))

        await scene.settled()
        told = [what for what, _ in await events(scene, alarm) if what == "AlarmStateChangeEvent"]
        assert len(told) == 1
        await scene.audit.start()
        await scene.audit.stop()
        over = await scene.find("audit", **{"body.what": "alarm.cleared", "body.on": f"alarm/{alarm.id}"})
        assert len(over) == 1
    await store.close()


async def test_the_last_time_and_the_count_are_members_of_their_own(still: Scene) -> None:
    """Which a person's mark on the alarm does not change."""
    first = await still.say("fault")
    await still.settled()
    alarm = await open_(still)
    assert (alarm.body["raisedCount"], alarm.body["lastRaisedTime"]) == (1, alarm.body["alarmRaisedTime"])

    last = await still.say("fault", perceivedSeverity="minor")
    await still.settled()
    marked = await still.resources.change(ALARM, await open_(still), {"ackState": "acknowledged"})

    assert first.time < last.time
    body: dict[str, Any] = dict(marked.body)
    assert (body["raisedCount"], body["perceivedSeverity"], body["state"]) == (2, "minor", "updated")
    assert body["alarmRaisedTime"] < body["lastRaisedTime"] < body["alarmChangedTime"]
