"""Customers under the rules for notifications: what they are told and when, whatever happens and whoever dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import time
from typing import Any

import pytest
from faulty import FaultyStore
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scene import BERLIN, HAMBURG, STORE_KINDS, PumpBus, Scene, item, playing, twice
from test_problems import PLACES, SERVICES, Scattered, furnish, observation

from convergedon.core.memory import MemoryStore
from convergedon.core.policy import Embedded
from convergedon.core.store import Record, Store
from convergedon.handlers.affected_parties import AFFECTED_PARTY
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.mediation.telling import cases

HOLDS = "default: {holdDown: {major: 60, critical: 5}, updateInterval: 600}\n"


@dataclass
class Clock:
    """Ours, which a test sets forward. It goes on by itself, too: leave it half a minute on a slow machine."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time() + self.ahead


@dataclass
class Told:
    """A scene under rules, and its clock."""

    scene: Scene
    clock: Clock = field(default_factory=Clock)

    async def say(self, kind: str, **given: Any) -> None:
        """Have a device say something now, by our clock."""
        seen = await self.scene.say(kind, **given) if not self.clock.ahead else None
        if seen is None:
            seen = replace(observation(0, "pe1/ge-1", kind, given.get("perceivedSeverity", "major")), id=str(time()))
            seen = replace(seen, time=self.clock(), key="linkDown:ge-1")
            await self.scene.network.say(seen)
        await self.scene.settled()

    async def later(self, seconds: float) -> None:
        """Have it be so much later, and done what is due then."""
        self.clock.ahead += seconds
        await self.due()

    async def due(self) -> None:
        await cases.look_after(self.scene.work)
        await self.scene.pump()

    async def notes(self, customer: str = "northwind") -> list[dict[str, Any]]:
        """What a customer was told of services, in its order."""
        found = await self.scene.store.find("customerNotification", {})
        mine = [dict(one.body) for one in found if one.body["relatedParty"][0]["id"] == customer]
        return [one for one in mine if one["notificationType"].startswith("service")]

    async def said(self, customer: str = "northwind") -> list[str]:
        return [one["notificationType"].removeprefix("service") for one in await self.notes(customer)]

    async def alarm(self) -> Record:
        (found,) = [one for one in await self.scene.find("alarm") if one.body["state"] != "cleared"]
        return found


@asynccontextmanager
async def governed(
    folder: Path, rules: str = HOLDS, store: Store | None = None, bus: PumpBus | None = None
) -> AsyncIterator[Told]:
    (folder / "notifications.yaml").write_text(rules)
    store, given = store or MemoryStore(STORE_KINDS), {"notifications": folder / "notifications.yaml"}
    async with playing(store, bus or PumpBus(), folder, **given) as scene:
        told = Told(scene)
        assert scene.work.notifications
        scene.work.notifications.clock = told.clock
        yield told


@asynccontextmanager
async def ordered(folder: Path, rules: str = HOLDS) -> AsyncIterator[Told]:
    """With a service in Berlin."""
    async with governed(folder, rules) as told:
        await told.scene.ended(await told.scene.order(item(**BERLIN)))
        yield told


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Told]:
    async with ordered(tmp_path) as found:
        yield found


def at(seconds: float) -> str:
    """So many seconds from now, as YAML and the APIs have it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds").replace("+00:00", "Z")


# hold-down


async def test_a_problem_is_told_when_it_has_lasted_its_hold_down(told: Told) -> None:
    await told.say("fault")
    assert await told.said() == []
    await told.later(20)
    assert await told.said() == []
    await told.later(50)

    assert await told.said() == ["Affected"]
    assert await told.scene.bus.parked() == []


async def test_a_problem_that_ends_within_it_is_never_told_and_recorded_as_such(told: Told) -> None:
    await told.say("fault")
    await told.say("clear")
    await told.later(1000)

    assert await told.said() == []
    (kept,) = await told.scene.find("telling")
    assert kept.facts["why"] == "over within its hold-down of 60 s: never told"


async def test_what_has_become_graver_is_told_sooner(told: Told) -> None:
    """The hold-down is that of the severity that the problem has by now."""
    await told.say("fault")
    await told.later(10)
    assert await told.said() == []
    await told.say("fault", perceivedSeverity="critical")

    assert await told.said() == ["Affected"]


async def test_without_rules_of_their_own_customers_have_those_of_the_tenant_or_of_all(tmp_path: Path) -> None:
    rules = "default: {holdDown: {major: 60}}\ntenants: {acme: {customers: {contoso: {holdDown: {}}}}}\n"
    async with governed(tmp_path, rules) as told:
        for party in ("northwind", "contoso"):
            vlan = {"vlan": 10 + len(party)}
            await told.scene.ended(await told.scene.order(item(**{**BERLIN, **vlan}), party=party))
        await told.say("fault")

        assert await told.said("contoso") == ["Affected"]
        assert await told.said("northwind") == []


async def test_what_was_over_before_it_could_be_told_is_summed_up(told: Told) -> None:
    """As when no worker ran for a while."""
    await told.say("fault")
    told.clock.ahead = 100
    await told.say("clear")
    await told.later(0)

    assert await told.said() == ["Summary"]
    (note,) = await told.notes()
    assert [service["id"] for service in note["service"]] == [one.id for one in await told.scene.find("service")]


# updates


async def test_what_grows_is_one_message_and_not_fifty(told: Told) -> None:
    """However often the estimate changes; the last word is the last estimate."""
    await told.say("fault")
    await told.later(61)
    for minute in range(50):
        alarm = await told.alarm()
        await told.scene.resources.change(ALARM, alarm, {"expectedRestoration": f"2027-03-02T17:{minute:02}:00Z"})
        await told.scene.settled()
        await told.later(1)
    assert await told.said() == ["Affected"]
    await told.later(600)
    await told.later(600)

    assert await told.said() == ["Affected", "Updated"]
    assert (await told.notes())[-1]["expectedRestoration"] == "2027-03-02T17:49:00Z"


async def test_what_changed_and_changed_back_is_no_news(told: Told) -> None:
    await told.say("fault")
    await told.later(61)
    for estimate in ("2027-03-02T17:00:00Z", None):
        alarm = await told.alarm()
        body = {name: value for name, value in alarm.body.items() if name != "expectedRestoration"}
        changed = {**body, "expectedRestoration": estimate} if estimate else body
        await told.scene.resources.change(ALARM, alarm, changed, whole=True)
        await told.scene.settled()
    await told.later(700)

    said = await told.said()
    assert said == ["Affected"] or said == ["Affected", "Updated"]


# the all-clear, in every path


async def test_the_network_says_that_it_is_over(told: Told) -> None:
    await told.say("fault")
    await told.later(61)
    await told.say("clear")

    assert await told.said() == ["Affected", "Restored"]


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_person_says_that_it_is_over(told: Told, deleted: bool) -> None:
    await told.say("fault")
    await told.later(61)
    alarm = await told.scene.resources.change(ALARM, await told.alarm(), {"state": "cleared"})
    if deleted:
        await told.scene.resources.delete(ALARM, alarm)
    await told.scene.settled()

    assert await told.said() == ["Affected", "Restored"]


async def test_the_alarm_is_deleted_while_it_is_open(told: Told) -> None:
    await told.say("fault")
    await told.later(61)
    await told.scene.resources.delete(ALARM, await told.alarm())
    await told.scene.settled()
    await told.say("fault")
    await told.say("clear")
    await told.later(100)

    assert (await told.said())[:2] == ["Affected", "Restored"]
    assert Counter(await told.said())["Affected"] == Counter(await told.said())["Restored"]


async def test_the_service_ends(told: Told) -> None:
    """Its customer gave it up, and hears so at once: what is over for it is not told again when the alarm is."""
    await told.say("fault")
    await told.later(61)
    (service,) = await told.scene.find("service")
    await told.scene.ended(await told.scene.order(item("delete", product=service.id)))
    assert await told.said() == ["Affected", "Ended"]
    await told.say("clear")
    await told.later(100)

    assert await told.said() == ["Affected", "Ended"]
    (record,) = await told.scene.find("affectedParty")
    note = (await told.notes())[-1]
    assert (record.body["status"], record.body["endedAt"]) == ("ended", note["endedAt"])
    assert note["text"] == record.body["activity"][-1]["text"]


async def test_the_service_ends_before_anybody_was_told(told: Told) -> None:
    """Then there is nothing to be told of it."""
    await told.say("fault")
    (service,) = await told.scene.find("service")
    await told.scene.ended(await told.scene.order(item("delete", product=service.id)))
    await told.later(61)
    await told.say("clear")
    await told.later(100)

    assert await told.said() == []


async def test_the_problem_turns_out_to_be_part_of_another(tmp_path: Path) -> None:
    """Whoever was told of the part hears of the whole as an update, and of its end once."""
    async with governed(tmp_path, "default: {holdDown: {major: 60, critical: 60}, updateInterval: 0}\n") as told:
        await furnish(told.scene)
        await told.scene.network.say(replace(observation(1, "pe2/ge-8", "fault"), time=told.clock()))
        await told.scene.settled()
        await told.later(61)
        assert await told.said("contoso") == ["Affected"]
        for number, place in ((2, "pe1/ge-8"), (3, "pe1")):
            await told.scene.network.say(replace(observation(number, place, "fault"), time=told.clock()))
            await told.scene.settled()
            await told.later(1)
        for number, place in ((4, "pe1"), (5, "pe1/ge-8"), (6, "pe2/ge-8")):
            await told.scene.network.say(replace(observation(number, place, "clear"), time=told.clock()))
            await told.scene.settled()
            await told.later(100)

        said = await told.said("contoso")
        assert said[0] == "Affected"
        assert said[-1] == "Restored"
        assert Counter(said)["Affected"] == Counter(said)["Restored"] == 1


# several problems of one customer


@asynccontextmanager
async def furnished(folder: Path, rules: str = HOLDS) -> AsyncIterator[Told]:
    """With the network and services of test_problems."""
    async with governed(folder, rules) as told:
        await furnish(told.scene)
        yield told


AT_ONCE = "default: {holdDown: {major: 60, critical: 0}, updateInterval: 0}\n"


async def hear(told: Told, number: int, place: str, kind: str, severity: str = "major") -> None:
    await told.scene.network.say(replace(observation(number, place, kind, severity), time=told.clock()))
    await told.scene.settled()


async def test_what_was_told_of_a_part_is_known_of_the_whole(tmp_path: Path) -> None:
    """Whichever of two records goes on: what its customer knows from the other one is not told as another problem."""
    async with furnished(tmp_path) as told:
        for number, place in enumerate(("pe3/ge-1", "cpe")):
            await hear(told, number, place, "fault")
        found = await told.scene.find("affectedParty", **{"facts.customer": "fabrikam"})
        *_, ends = sorted(found, key=lambda one: one.id)  # the first goes on
        await hear(told, 2, str(ends.facts["openAt"]), "fault", "critical")
        await told.later(6)
        assert await told.said("fabrikam") == ["Affected"]
        await hear(told, 3, "pe3", "fault")
        await told.later(700)
        assert await told.said("fabrikam") == ["Affected", "Updated"]
        for number, place in enumerate(("pe3/ge-1", "cpe", "pe3"), 4):
            await hear(told, number, place, "clear")
            await told.later(700)

        assert await told.said("fabrikam") == ["Affected", "Updated", "Restored"]


async def two_of_one_service(told: Told) -> None:
    """s4 suffers from two faults, of which its customers were told; one of them ends."""
    for number, place in enumerate(("pe1/ge-8", "pe3/ge-1")):
        await hear(told, number, place, "fault")
        await told.later(100)
    await hear(told, 2, "pe1/ge-8", "clear")
    assert await told.said("fabrikam") == ["Affected", "Affected"]


async def test_a_service_that_suffered_twice_is_owed_one_all_clear(tmp_path: Path) -> None:
    """At the end of the second."""
    async with furnished(tmp_path) as told:
        await two_of_one_service(told)
        await hear(told, 3, "pe3/ge-1", "clear")
        assert await told.said("fabrikam") == ["Affected", "Affected", "Restored"]
        for _ in range(3):
            await told.later(100)

        assert await told.said("fabrikam") == ["Affected", "Affected", "Restored"]


async def test_an_all_clear_that_is_owed_is_not_forgotten_though_no_event_tells_of_it(tmp_path: Path) -> None:
    async with furnished(tmp_path) as told:
        await two_of_one_service(told)
        (second,) = await told.scene.find("affectedParty", **{"facts.openFor": "fabrikam"})
        facts = {name: value for name, value in second.facts.items() if not name.startswith("open")}
        await told.scene.store.replace(replace(second, body={**second.body, "status": "continued"}, facts=facts))
        await told.later(100)

        assert (await told.said("fabrikam"))[-1] == "Restored"


async def test_what_works_again_by_another_end_is_told_where_it_was_told(tmp_path: Path) -> None:
    """s4 was told as part of a link; what it suffered from last was over too soon to be told."""
    async with furnished(tmp_path, AT_ONCE) as told:
        for number, place in enumerate(("pe1/ge-8", "pe2/ge-8")):
            await hear(told, number, place, "fault", "critical")
        await hear(told, 2, "pe3/ge-1", "fault")
        await hear(told, 3, "pe1/ge-8", "clear")
        await hear(told, 4, "pe3/ge-1", "clear")

        note = (await told.notes("contoso"))[-1]
        assert note["notificationType"] == "serviceUpdated"
        assert [one["id"] for one in note["restoredService"]] == ["s4"]
        assert [one["id"] for one in note["service"]] == ["s2"]


async def test_an_all_clear_does_not_overtake_the_problem(told: Told) -> None:
    """Not even if whoever told that died before it was published."""
    await told.say("fault")
    told.clock.ahead += 70
    await cases.look_after(told.scene.work)
    (record,) = await told.scene.find("affectedParty")
    over = {"status": "restored", "restoredAt": at(0)}
    record = await told.scene.resources.change(AFFECTED_PARTY, record, over, {"openFor": None})
    assert told.scene.work.notifications
    await cases.consider(told.scene.work, told.scene.work.notifications, record)
    on_the_bus = [one.subject.rpartition(".")[2] for one in told.scene.bus.messages[-1:]]
    assert on_the_bus == ["CustomerNotificationCreateEvent"]  # the fault, while its end is still in its outbox
    await told.scene.pump()

    assert await told.said() == ["Affected", "Restored"]


# windows


def window(begin: float, end: float, **where: Sequence[str]) -> str:
    places = "".join(f", {name}: [{', '.join(listed)}]" for name, listed in where.items())
    return f"maintenance: [{{name: core upgrade, tenant: acme, from: {at(begin)}, to: {at(end)}{places}}}]\n{HOLDS}"


@pytest.mark.parametrize("where", [{"devices": ["pe1"]}, {"sites": ["berlin"]}, {}])
async def test_what_is_over_within_a_window_is_summed_up_at_its_end(tmp_path: Path, where: dict[str, Any]) -> None:
    """In one message, however often it was disturbed."""
    async with ordered(tmp_path, window(-10, 3600, **where)) as told:
        for _ in range(2):
            await told.say("fault")
            await told.later(200)
            await told.say("clear")
        assert await told.said() == []
        await told.later(3600)
        await told.later(100)

        assert await told.said() == ["Summary"]
        (note,) = await told.notes()
        assert note["keptBackBy"] == "maintenance core upgrade"
        assert len(note["disturbance"]) == 2


async def test_what_is_not_over_by_then_is_told(tmp_path: Path) -> None:
    async with ordered(tmp_path, window(-10, 3600, devices=["pe1"])) as told:
        await told.say("fault")
        await told.later(200)
        assert await told.said() == []
        await told.later(3600)
        assert await told.said() == ["Affected"]
        await told.say("clear")

        assert await told.said() == ["Affected", "Restored"]


async def test_a_window_elsewhere_keeps_nothing_back(tmp_path: Path) -> None:
    async with ordered(tmp_path, window(-10, 3600, devices=["pe2"], sites=["hamburg"])) as told:
        await told.say("fault")
        await told.later(61)

        assert await told.said() == ["Affected"]


@pytest.mark.parametrize(("device", "silent"), [("pe1", True), ("pe3", False)])
async def test_work_at_the_other_end_of_a_link_is_expected_to_disturb(
    tmp_path: Path, device: str, silent: bool
) -> None:
    async with governed(tmp_path, window(-10, 3600, devices=[device])) as told:
        await furnish(told.scene)
        await told.scene.network.say(replace(observation(1, "pe2/ge-8", "fault"), time=told.clock()))
        await told.scene.settled()
        await told.later(70)

        assert await told.said("contoso") == ([] if silent else ["Affected"])


async def test_no_window_keeps_an_all_clear_back(tmp_path: Path) -> None:
    """Nor does one that began after the problem was told let it be updated."""
    async with ordered(tmp_path, window(100, 7200)) as told:
        await told.say("fault")
        await told.later(61)
        await told.later(1000)
        await told.scene.resources.change(ALARM, await told.alarm(), {"expectedRestoration": "2027-03-02T17:00:00Z"})
        await told.scene.settled()
        assert await told.said() == ["Affected"]
        await told.say("clear")

        assert await told.said() == ["Affected", "Restored"]


@pytest.mark.parametrize(("hours", "silent"), [(2, True), (200, False)])
async def test_an_order_that_changes_a_service_makes_a_window(tmp_path: Path, hours: int, silent: bool) -> None:
    """From when it may begin to when it is to be done; if that is weeks, it makes none."""
    async with ordered(tmp_path, f"orderWindows: 14400\n{HOLDS}") as told:
        (service,) = await told.scene.find("service")
        order = {
            # it waits for what the second item does not say
            "productOrderItem": [item("modify", product=service.id, bandwidth=50), item(id="2", vlan=30)],
            "relatedParty": [{"id": "northwind", "role": "customer"}],
            "requestedStartDate": at(-60),
            "requestedCompletionDate": at(3600 * hours),
        }
        await told.scene.resources.create(PRODUCT_ORDER, "acme", order)
        await told.scene.settled()
        await told.say("fault")
        await told.later(100)

        assert await told.said() == ([] if silent else ["Affected"])


# quiet hours


def quiet(minutes: int = 120, rest: str = HOLDS) -> str:
    """Quiet from an hour ago on, for so many minutes from now."""
    begin, end = (datetime.now(UTC) + timedelta(minutes=shift) for shift in (-60, minutes))
    hours = f"{{from: '{begin:%H:%M}', to: '{end:%H:%M}', breakThrough: [critical]}}"
    return rest.replace("updateInterval", f"quietHours: {hours}, updateInterval")


async def test_what_happens_in_quiet_hours_is_told_when_they_end(tmp_path: Path) -> None:
    async with ordered(tmp_path, quiet()) as told:
        await told.say("fault")
        await told.later(100)
        assert await told.said() == []
        await told.later(3 * 3600)

        assert await told.said() == ["Affected"]


async def test_what_is_over_in_quiet_hours_is_summed_up_when_they_end(tmp_path: Path) -> None:
    async with ordered(tmp_path, quiet()) as told:
        await told.say("fault")
        await told.later(100)
        await told.say("clear")
        await told.later(60)
        assert await told.said() == []
        await told.later(3 * 3600)

        assert await told.said() == ["Summary"]
        assert (await told.notes())[0]["keptBackBy"] == "quiet hours"


async def test_what_is_grave_breaks_through_with_its_all_clear(tmp_path: Path) -> None:
    async with ordered(tmp_path, quiet()) as told:
        await told.say("fault", perceivedSeverity="critical")
        await told.later(6)
        assert await told.said() == ["Affected"]
        await told.say("clear")

        assert await told.said() == ["Affected", "Restored"]


async def test_an_order_that_ends_in_quiet_hours_is_told_when_they_end(tmp_path: Path) -> None:
    """Once, also when its event comes twice."""
    async with governed(tmp_path, quiet()) as told:
        await told.scene.order(item(**HAMBURG))
        assert await twice(told.scene) == []
        assert await told.scene.find("customerNotification") == []
        await told.later(3 * 3600)
        await told.later(60)

        (note,) = await told.scene.find("customerNotification")
        assert note.body["notificationType"] == "orderCompleted"
        assert await told.scene.find("telling") == []


# what may be told


async def test_what_the_policy_refuses_is_asked_again_and_never_forgotten(told: Told) -> None:
    """And who was not told of the problem is not told of its end."""
    (engine, refuse) = told.scene.work.policy._engine, Refusing(told.scene.work.policy._engine)
    told.scene.work.policy.swap(refuse)
    await told.say("fault")
    await told.later(61)
    assert await told.said() == []
    told.scene.work.policy.swap(engine)
    await told.later(3601)

    assert await told.said() == ["Affected"]


class Refusing:
    """An engine that lets nobody be told anything."""

    revision = "refusing"

    def __init__(self, other: Embedded) -> None:
        self._other = other

    async def evaluate(self, question: Any) -> Any:
        answer = await self._other.evaluate(question)
        no = {"allow": False, "reasons": ["not today"], "filter": {}, "obligations": {}}
        return no if question["action"] == "tell" else answer

    async def close(self) -> None:
        return None


async def test_rules_that_come_later_know_what_was_told_before(tmp_path: Path) -> None:
    """The problem is not told again, and its end is."""
    store = MemoryStore(STORE_KINDS)
    async with playing(store, PumpBus(), tmp_path) as scene:
        await scene.ended(await scene.order(item(**BERLIN)))
        await scene.say("fault")
        await scene.settled()
    async with governed(tmp_path, HOLDS, store) as told:
        alarm = await told.alarm()
        await told.scene.resources.change(ALARM, alarm, {"expectedRestoration": "2027-03-02T17:00:00Z"})
        await told.scene.settled()
        await told.later(700)
        await told.scene.resources.change(ALARM, await told.alarm(), {"state": "cleared"})
        await told.scene.settled()

        assert await told.said() == ["Affected", "Updated", "Restored"]


async def test_what_waits_when_the_rules_are_taken_away_is_told_in_its_time(tmp_path: Path) -> None:
    store = MemoryStore(STORE_KINDS)
    async with governed(tmp_path, "default: {holdDown: {major: 1}}\n", store) as told:
        await told.scene.ended(await told.scene.order(item(**BERLIN)))
        await told.say("fault")
        assert await told.said() == []
    async with playing(store, PumpBus(), tmp_path) as scene:
        told = Told(scene)

        async def heard() -> bool:
            await told.due()
            return await told.said() == ["Affected"]

        await scene.until(heard)


# whoever dies, and in whatever order


async def test_workers_that_decide_at_the_same_time_say_it_once(told: Told) -> None:
    await told.say("fault")
    told.clock.ahead += 70
    await asyncio.gather(*(cases.look_after(told.scene.work) for _ in range(4)))
    await told.scene.pump()

    assert await told.said() == ["Affected"]


async def test_second_delivery_changes_nothing(told: Told) -> None:
    changed = []
    for kind in ("fault", "fault", "clear", "fault"):
        await told.scene.say(kind)
        changed += await twice(told.scene)
        await told.later(61)
        changed += await twice(told.scene)

    assert changed == []
    assert await told.said() == ["Affected", "Restored", "Affected"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cut_at_any_write_changes_no_message(tmp_path: Path, when: Any) -> None:
    """Whichever write fails, done or not, between a decision, its message and its note: each is told once."""
    for number in range(1, 100):
        store = FaultyStore(MemoryStore(STORE_KINDS), 0, when)
        async with governed(tmp_path, window(-10, 300) + "", store) as told:
            await told.scene.ended(await told.scene.order(item(**BERLIN)))
            store.writes, store.fails_at = 0, number
            await told.say("fault")
            await told.later(100)
            await told.say("clear")
            await told.later(300)
            await told.later(2)
            await told.say("fault")
            await told.later(70)
            await told.later(2)
            await told.say("clear")
            await told.later(2)
            assert await told.said() == ["Summary", "Affected", "Restored"], number
            assert told.scene.bus.parked_ == []
            passed = store.writes < number
        if passed:
            break
    assert number > 10


RESTLESS = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(["fault", "fault", "clear"]), st.integers(0, 90)),
    min_size=2,
    max_size=16,
)


@effort(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(RESTLESS, st.integers(0, 2**32))
def test_everybody_has_the_last_word_and_no_end_without_a_beginning(
    said: list[tuple[str, str, int]], seed: int
) -> None:
    """Whatever fails and works again, whoever decides when: in the end every customer knows how things are."""
    asyncio.run(_play(said, Random(seed)))


async def _play(said: list[tuple[str, str, int]], chance: Random) -> None:
    rules = "default: {holdDown: {major: 60}, updateInterval: 30}\n"
    with TemporaryDirectory() as folder:
        async with governed(Path(folder), rules, None, Scattered(chance)) as told:
            await furnish(told.scene)
            for number, (place, kind, pause) in enumerate(said):
                await told.scene.network.say(replace(observation(number, place, kind), time=told.clock()))
                await told.scene.bus.run(told.scene.store, most=chance.randint(0, 30))
                told.clock.ahead += pause
                if chance.random() < 0.7:
                    await cases.look_after(told.scene.work)
            await told.scene.pump()
            for _ in range(6):
                await told.later(61)
            assert told.scene.bus.parked_ == []
            await _hold(told)


async def _hold(told: Told) -> None:
    """Whoever suffers was told last that it does, whoever does not was not; and nothing is told over and over."""
    suffering = {
        (one.body["relatedParty"][0]["id"], service["id"])
        for one in await told.scene.find("affectedParty", **{"body.status": "affected"})
        for service in one.body["service"]
    }
    word: dict[tuple[str, str], str] = {}
    for note in await told.scene.store.find("customerNotification", {}):
        body, customer = note.body, note.body["relatedParty"][0]["id"]
        restored = {one["id"] for name in ("restoredService", "endedService") for one in body.get(name, [])}
        named = {one["id"] for one in body["service"]}
        if body["notificationType"] in ("serviceRestored", "serviceEnded"):
            restored, named = restored | named, set()
        elif body["notificationType"] == "serviceSummary":
            named = set()
        for id in restored:
            assert word.get((customer, id)) == "disturbed", f"{customer} knows nothing of a disturbance of {id}"
            word[customer, id] = "works"
        for id in named:
            word[customer, id] = "disturbed"
    assert {who for who, last in word.items() if last == "disturbed"} == suffering
    assert not suffering - {(customer, id) for id, (_, customers) in SERVICES.items() for customer in customers}
