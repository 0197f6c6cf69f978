"""To its customer a disturbance is one from its first word to its last: when its root is over and parts still fail."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scene import BERLIN, STORE_KINDS, PumpBus, Scene, item, playing
from test_problems import Scattered, furnish, observation
from test_telling_line import governed

from convergedon.core.memory import MemoryStore
from convergedon.handlers.service_inventory import SERVICE
from convergedon.mediation import inventory
from convergedon.mediation.telling import cases

RULES = "default: {updateInterval: 0}\n"
PARTS = {"pe3": ("cpe", "pe3/ge-1", "pe3/ge-9"), "link": ("pe1/ge-8", "pe2/ge-8")}


@asynccontextmanager
async def furnished(folder: Path, rules: bool, bus: PumpBus | None = None) -> AsyncIterator[Scene]:
    """The network of test_problems, with rules or without."""
    if rules:
        async with governed(folder, RULES, None, bus) as told:
            await furnish(told.scene)
            yield told.scene
    else:
        async with playing(MemoryStore(STORE_KINDS), bus or PumpBus(), folder) as scene:
            await furnish(scene)
            yield scene


async def play(scene: Scene, said: Sequence[tuple[str, str]], begin: int = 0) -> None:
    for number, (place, kind) in enumerate(said, begin):
        await scene.network.say(observation(number, place, kind))
        await scene.settled()
        await cases.look_after(scene.work)
        await scene.pump()


async def heard(scene: Scene) -> dict[str, list[dict[str, Any]]]:
    """customer -> what it was told of services, in its order."""
    found = defaultdict(list)
    for note in await scene.store.find("customerNotification", {}):
        if note.body["notificationType"].startswith("service"):
            found[note.body["relatedParty"][0]["id"]].append(dict(note.body))
    return found


def kinds(notes: Sequence[dict[str, Any]]) -> list[str]:
    return [one["notificationType"].removeprefix("service") for one in notes]


@pytest.mark.parametrize("rules", [False, True])
async def test_what_is_left_of_a_problem_is_told_as_the_same_disturbance(tmp_path: Path, rules: bool) -> None:
    """With what it is by now, since when it was, and one all-clear when the last of it is over."""
    async with furnished(tmp_path, rules) as scene:
        await play(scene, [(place, "fault") for place in ("pe3", *PARTS["pe3"])])
        await play(scene, [("pe3", "clear")], 10)
        (record,) = await scene.find("affectedParty", **{"facts.openFor": "fabrikam"})
        at = {alarm.id: alarm.body["alarmedObject"]["id"] for alarm in await scene.find("alarm")}
        alarms = {at[record.body["alarm"]["id"]], *(at[one["id"]] for one in record.body["furtherAlarm"])}
        await play(scene, [(place, "clear") for place in PARTS["pe3"]], 20)
        notes = (await heard(scene))["fabrikam"]
        (over,) = await scene.find("affectedParty", **{"facts.customer": "fabrikam"})

    assert alarms == {"cpe", "pe3/ge-1"}
    assert kinds(notes) == ["Affected", "Updated", "Updated", "Restored"]
    assert notes[1]["text"].endswith(": cpe is down; pe3/ge-1 is down.")
    assert len({note["affectedSince"] for note in notes}) == 1
    assert {note["affectedParty"]["id"] for note in notes} == {over.id}
    assert over.body["activity"][-1]["text"] == notes[-1]["text"]


@effort(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(
    st.sampled_from(["link", "pe3", "pe3"]),
    st.permutations(range(4)),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_whatever_is_over_first_it_is_one_disturbance_with_one_end(
    root: str, order: list[int], rules: bool, seed: int
) -> None:
    """Whichever alarms are cleared in whatever order, and whichever worker looks when."""
    asyncio.run(_one_disturbance(root, order, rules, Random(seed)))


async def _one_disturbance(root: str, order: Sequence[int], rules: bool, chance: Random) -> None:
    failing = [*([root] if "link" not in root else []), *PARTS[root]]
    with TemporaryDirectory() as folder:
        async with furnished(Path(folder), rules, Scattered(chance)) as scene:
            await play(scene, [(place, "fault") for place in failing])
            first = await heard(scene)
            if chance.random() < 0.7:
                order = sorted(order, key=bool)  # the root first
            for number in order:
                if number < len(failing):
                    await scene.network.say(observation(10 + number, failing[number], "clear"))
                    await scene.bus.run(scene.store, most=chance.choice((10, 1_000_000, 1_000_000)))
                    await cases.look_after(scene.work)
            await scene.pump()
            await cases.look_after(scene.work)
            await scene.pump()
            assert scene.bus.parked_ == []
            records = await scene.find("affectedParty")
            for customer, notes in (await heard(scene)).items():
                assert kinds(notes).count("Affected") == kinds(notes).count("Restored") == 1, notes
                assert kinds(notes)[-1] == "Restored"
                after = notes[len(first[customer]) - 1 :]
                assert len({note["affectedSince"] for note in after}) == 1, notes
                (record,) = [one for one in records if one.facts["customer"] == customer]
                assert {note["affectedParty"]["id"] for note in notes} == {record.id}
                assert record.body["status"] == "restored"
                assert record.body["restoredAt"] == notes[-1]["restoredAt"]
                said = {one["id"] for one in record.body["service"]}  # under rules two ends may be one message
                assert said <= {one["id"] for one in notes[-1]["service"]}


@pytest.mark.parametrize("rules", [False, True])
async def test_a_service_that_ends_is_the_last_word_of_it(tmp_path: Path, rules: bool) -> None:
    """Of one of two the other is still told of; a client's own, and one that is deleted, end as others do."""
    async with furnished(tmp_path, rules) as scene:
        await play(scene, [("pe3", "fault")])
        service = await scene.store.get(SERVICE.name, "acme", "s5")
        await scene.resources.change(SERVICE, service, {"state": "terminated"})
        await scene.settled()
        s3 = await scene.store.get(SERVICE.name, "acme", "s3")
        await scene.resources.delete(SERVICE, s3)
        await scene.settled()
        await play(scene, [("pe3", "clear")], 10)
        notes = await heard(scene)
        status = {one.facts["customer"]: one.body["status"] for one in await scene.find("affectedParty")}

    assert kinds(notes["fabrikam"]) == ["Affected", "Updated", "Restored"]
    assert [one["id"] for one in notes["fabrikam"][1]["endedService"]] == ["s5"]
    assert [one["id"] for one in notes["fabrikam"][1]["service"]] == ["s4"]
    assert [one["id"] for one in notes["fabrikam"][2]["service"]] == ["s4"]
    assert kinds(notes["northwind"]) == ["Affected", "Ended"]
    assert status == {"fabrikam": "restored", "contoso": "restored", "northwind": "ended"}


async def test_a_service_that_is_there_again_is_told_of_again(tmp_path: Path) -> None:
    """The order that ended it was cancelled, and what disturbed it still does."""
    async with playing(MemoryStore(STORE_KINDS), PumpBus(), tmp_path) as scene:
        await scene.ended(await scene.order(item(**BERLIN)))
        await scene.say("fault")
        await scene.settled()
        (service,) = await scene.find("service")
        await scene.ended(await scene.order(item("delete", product=service.id)))
        assert kinds((await heard(scene))["northwind"]) == ["Affected", "Ended"]
        await inventory.restore(scene.resources, "acme", service.id, service.body, service.facts)
        await scene.settled()

        assert kinds((await heard(scene))["northwind"]) == ["Affected", "Ended", "Affected"]
