"""What was observed is added up once, in its interval or in a correction of it, whatever is cut, repeated or late."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import pytest
from faulty import FaultyStore
from scene import BERLIN, STORE_KINDS, Scene, item, pumped, twice

from convergedon.core.errors import NotFound, Unavailable
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.handlers.usage import METERING
from convergedon.mediation import intervals, metering, sources

NOW = float(int(time()))
PEER, HERE = "192.0.2.1", "10.1.0.10"


def record(octets: int, ago: float = 100, **given: Any) -> dict[str, Any]:
    """A flow to our customer that ended so long ago."""
    ends = {"source": PEER, "destination": HERE}
    return {**ends, "octets": octets, "packets": 1, "start": NOW - ago - 1, "end": NOW - ago, **given}


def counts(usage: Any) -> dict[str, Any]:
    return {one["name"]: one["value"] for one in usage.body["usageCharacteristic"]}


async def usages(scene: Scene) -> list[dict[str, Any]]:
    return [counts(usage) for usage in await scene.find("usage")]


@pytest.fixture
async def still(still: Scene) -> Scene:
    await still.ended(await still.order(item(**BERLIN)))
    return still


async def test_all_of_an_interval_is_one_usage_that_leads_back_to_each_observation(still: Scene) -> None:
    for number in range(5):
        up = {"source": HERE, "destination": PEER, "packets": 7}
        await still.say("flow", id=f"seen-{number}", records=[record(1000 + number), record(10, **up)])
    await still.say("flow", id="another interval", records=[record(5, ago=200)])
    await still.settled()
    (most, few) = sorted(await still.find("usage"), key=lambda usage: -counts(usage)["records"])

    sums = {"octetsDown": 5010, "octetsUp": 50, "packetsDown": 5, "packetsUp": 35, "records": 10}
    assert {name: counts(most)[name] for name in sums} == sums
    assert most.facts["sources"] == [f"seen-{number}" for number in range(5)]
    assert (counts(few)["octetsDown"], few.facts["sources"]) == (5, ["another interval"])
    kept = {record.id: record for record in await still.find(METERING.name)}
    places = [place for record in kept.values() if record.facts.get("of") == most.facts["metering"]
              for _, place in record.facts["sources"]]  # fmt: skip
    said = [message.body["observation"]["id"] for message in still.bus.messages if message.position.sequence in places]
    assert said == most.facts["sources"]


async def test_what_comes_after_its_interval_was_closed_is_a_correction(still: Scene) -> None:
    for number in range(3):
        await still.say("flow", id=f"seen-{number}", records=[record(100 + number)])
        await still.settled()

    assert [(one["octetsDown"], one.get("correction")) for one in sorted(await usages(still), key=str)] == [
        (100, None), (101, 1), (102, 2)
    ]  # fmt: skip
    assert {one["interval"] for one in await usages(still)} == {counts((await still.find("usage"))[0])["interval"]}


async def test_an_observation_that_comes_again_after_its_interval_was_closed_is_not_counted(still: Scene) -> None:
    """The bus knows what is published twice for two minutes; after that the interval's own record does."""
    for turn in range(3):
        await still.say("flow", id="seen-once", records=[record(100)])
        await still.settled()
        still.bus.messages = [  # the bus has forgotten
            message for message in still.bus.messages if not message.subject.startswith(("network", "metered"))
        ]
        still.bus._next = len(still.bus.messages)
        if turn:
            await still.say("flow", id=f"new-{turn}", records=[record(1)])

    found = await usages(still)
    assert sum(one["octetsDown"] for one in found) == 100 + 1
    assert await twice(still) == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_closing_that_is_cut_anywhere_counts_each_record_once(tmp_path: Path, when: Any) -> None:
    """Whichever write fails, done or not; what comes in between is a correction, whole."""
    for at in range(1, 40):
        store = FaultyStore(MemoryStore(STORE_KINDS), 0, when)
        async with pumped(tmp_path, store) as scene:
            await scene.ended(await scene.order(item(**BERLIN)))
            for number in range(3):
                await scene.say("flow", id=f"seen-{number}", records=[record(100, source=f"10.9.0.{number}")])
            await scene.bus.run(scene.store)
            await scene.over()
            task = scene.bus.messages[-1]
            store.writes, store.fails_at = 0, at
            with suppress(Unavailable):
                await metering.close(scene.work, task)
            await scene.say("flow", id="meanwhile", records=[record(100)])
            await metering.meter(scene.work, scene.bus.messages[-1])  # before the closing comes back
            passed = store.writes < at
            store.fails_at = 0
            await scene.settled()
            await scene.settled()
            found = await usages(scene)

            assert sum(one["octetsDown"] for one in found) == 400, at
            assert sum(one["records"] for one in found) == 4, at
            assert scene.bus.parked_ == []
        if passed:
            break
    assert at > 4


async def test_keys_keep_apart_what_else_is_added_up(still: Scene) -> None:
    rule = intervals.Rule(interval=60, grace=0, keys=["protocol", "exporter"])
    still.work.metering.usageTypes["ip-traffic"] = rule
    about = [record(10, protocol=6), record(20, protocol=6), record(5, protocol=17), record(1)]
    await still.say("flow", records=about)
    await still.say("flow", device="pe2", records=[record(3, protocol=6)])
    await still.settled()

    found = sorted((one["exporter"], one["protocol"], one["octetsDown"]) for one in await usages(still))
    assert found == [("pe1", "", 1), ("pe1", "17", 5), ("pe1", "6", 30), ("pe2", "6", 3)]


async def test_a_record_whose_time_cannot_be_right_belongs_to_its_receipt(still: Scene) -> None:
    """An exporter's clock in 1970, or years ahead, loses nothing and opens no interval of its own."""
    await still.say("flow", records=[record(1, start=5, end=6), record(2, end=NOW + 1e7)])
    await still.settled()

    (found,) = await usages(still)
    assert (found["octetsDown"], found["records"]) == (3, 2)
    assert found["start"][:4] == found["end"][:4] >= "2026"


async def test_a_sum_that_no_integer_of_the_store_holds_is_kept_and_priced(still: Scene) -> None:
    await still.say("flow", records=[record(2**63 - 1), record(2**63 - 1)])
    await still.settled()

    (usage,) = await still.find("usage")
    assert counts(usage)["octetsDown"] == str(2 * (2**63 - 1))
    assert usage.body["status"] == "rated"


async def test_call_records_become_a_usage_each_or_are_added_up_as_the_rules_say(still: Scene) -> None:
    (service,) = await still.find("service")
    calls = [
        {"id": f"calls.csv:{n}", "service": service.id, "start": NOW - 50, "end": NOW - 40,
         "counts": {"seconds": n}, "texts": {"called": f"+49{n}"}}
        for n in range(1, 4)
    ]  # fmt: skip
    for rule in (None, intervals.Rule(interval=3600, grace=0)):
        if rule:
            still.work.metering.usageTypes["voice"] = rule
        for seen in ("calls-1", "calls-1 again"):
            listed = {"usageType": "voice", "names": ["seconds"], "records": calls}
            await still.say("call", id=seen if not rule else "added up", **listed)
            await still.settled()
    found = await still.find("usage")
    each = [counts(one) for one in found if counts(one)["records"] == 1]
    (whole,) = [counts(one) for one in found if counts(one)["records"] == 3]

    assert sorted((one["seconds"], one["called"], one["record"]) for one in each) == [
        (n, f"+49{n}", f"calls.csv:{n}") for n in range(1, 4)
    ]
    assert (whole["seconds"], whole["service"]) == (6, service.id)
    assert all("no usage type 'voice'" in one.body["description"] for one in found)  # guided, and without a price
    made = [await sources.made_of(still.store, still.bus, one.tenant, one.id) for one in found]
    assert [str(one).splitlines()[-1] for one in made if one.adds_up] == ["  these come to the same"]
    assert [str(one).splitlines()[-1] for one in made if "record" in one.said] == [
        f"  it is one record: {one.said['record']} (hash of its file, and line)" for one in made if "record" in one.said
    ]


async def test_a_usage_tells_which_exporters_said_it_in_how_many_records_and_what_was_missing(scene: Scene) -> None:
    """On the real bus and store: what is read again comes to what the usage says."""
    await scene.ended(await scene.order(item(**BERLIN)))
    now = time()
    about = record(1000, start=now - 3, end=now - 2)
    await scene.say("flow", id="seen-1", records=[about, about, record(7, destination="10.99.0.9")], sampling=100)
    await scene.say("flow", id="seen-2", records=[record(9, destination="10.99.0.9")], missing=4)
    await scene.say("flow", id="seen-3", records=[about], missing=1, sampling=10)

    async def all_there() -> bool:
        return sum(one["records"] for one in await usages(scene)) == 3

    await scene.until(all_there)
    [usage] = await scene.find("usage")
    made = await sources.made_of(scene.store, scene.bus, usage.tenant, usage.id)

    assert str(made).splitlines()[1:] == [
        "  pe1 (loopback): 2 observations, 3 records, sampled 1 in 10, 100, 5 missing in between",
        "  these come to the same",
    ]
    assert made.document["exporters"][0]["counts"]["octetsDown"] == 3000
    assert made.adds_up
    with pytest.raises(NotFound):
        await sources.made_of(scene.store, scene.bus, usage.tenant, "no such usage")


async def test_answers_to_intents_that_stand_between_observations_are_passed_over() -> None:
    bus = MemoryBus()
    told = {"id": "seen-1", "kind": "flow", "adapter": "flow", "device": "pe1", "tenant": "acme", "time": NOW}
    await bus.publish("network.0.flow.pe1", {"observation": told}, "1")
    await bus.publish("network.0.outcome.order-1", {"outcome": {"status": "applied"}, "about": {}}, "2")
    await bus.publish("network.0.flow.%", {"observations": [{"observation": {**told, "id": "seen-2"}}]}, "3")

    assert [seen.id async for seen in sources._between(bus, [1, 3])] == ["seen-1", "seen-2"]


async def test_what_is_not_kept_any_more_is_said_of_a_usage(scene: Scene) -> None:
    await scene.ended(await scene.order(item(**BERLIN)))
    now = time()
    await scene.say("flow", id="seen-1", records=[record(1000, start=now - 3, end=now - 2)])

    async def is_there() -> bool:
        return bool(await scene.find("usage"))

    await scene.until(is_there)
    for message in [one async for one in scene.bus.since("network.>", 0)]:
        await scene.bus.erase(message)
    [usage] = await scene.find("usage")
    made = await sources.made_of(scene.store, scene.bus, usage.tenant, usage.id)

    assert (made.observations, made.kept, made.adds_up) == (1, 0, None)
    assert str(made).endswith("1 observation of 1: not kept by the bus any more")


async def test_intervals_are_closed_before_their_time_when_there_is_little_room_for_them(still: Scene) -> None:
    """Nothing is refused and nothing is lost: what comes later makes corrections."""
    crowded = replace(still.work, settings=still.work.settings.model_copy(update={"metered_bytes": 200}))
    for number, work in enumerate((still.work, crowded, crowded)):
        await still.say("flow", id=f"seen-{number}", records=[record(100 + number, ago=-100)])
        await still.bus.run(still.store)
        await metering.ask(work, NOW)
        await still.bus.run(still.store)

    assert sorted((one["octetsDown"], one.get("correction")) for one in await usages(still)) == [(102, 1), (201, None)]
    assert await still.bus.size("METERED") == 0


async def test_the_real_bus_and_store_add_up_as_the_twins_do(scene: Scene) -> None:
    await scene.ended(await scene.order(item(**BERLIN)))
    now = time()
    for number in range(20):
        about = record(number, start=now - 3, end=now - 2)
        await scene.say("flow", id=f"seen-{number}", records=[about])
        await scene.say("flow", id=f"seen-{number}", records=[about])

    async def all_there() -> bool:
        return sum(one["octetsDown"] for one in await usages(scene)) >= sum(range(20))

    await scene.until(all_there)
    await scene.settled()
    found = await usages(scene)
    assert (sum(one["octetsDown"] for one in found), sum(one["records"] for one in found)) == (190, 20)
    assert await scene.bus.waiting("METERED") == {}
