"""The fault line: one alarm for each condition, counted exactly, and who is affected hears of it once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import pytest
from faulty import FaultyStore
from scene import BERLIN, HAMBURG, STORE_KINDS, Listener, Scene, item, listening, pumped, twice

from convergedon.core.bus import Message, Position
from convergedon.core.memory import MemoryStore
from convergedon.core.policy import Subject
from convergedon.core.store import Outgoing
from convergedon.handlers import customer_notifications, hub
from convergedon.handlers.affected_parties import AFFECTED_PARTY
from convergedon.handlers.alarms import ALARM, API
from convergedon.mediation import affected


async def alarms(scene: Scene, tenant: str = "acme") -> list[dict[str, Any]]:
    return [record.body for record in await scene.find("alarm", tenant)]


async def told(scene: Scene, type_: str, tenant: str = "acme") -> list[dict[str, Any]]:
    found = await scene.find("customerNotification", tenant)
    return [record.body for record in found if record.body["notificationType"] == type_]


async def hear(scene: Scene, listener: Listener, who: str, tenant: str = "acme", role: str = "customer") -> str:
    """Register a listener of notifications; returns its id."""
    subject = Subject(who, tenant, (role,), who if role == "customer" else None)
    body = {"callback": listener.url(who), "query": "notificationType=serviceAffected,serviceRestored"}
    return (await hub.register(scene.store, hub.subscription(customer_notifications.API, subject, body))).id


async def test_a_fault_is_told_to_whom_it_affects_and_nobody_else(scene: Scene) -> None:
    """Once, with service and order; the all-clear too, when the network says that it is over."""
    northwind, contoso, globex = [
        await scene.order(item(**given), party=party, tenant=tenant)
        for party, tenant, given in (
            ("northwind", "acme", BERLIN),
            ("contoso", "acme", HAMBURG),
            ("fabrikam", "globex", BERLIN | {"site": "munich"}),
        )
    ]
    for id, tenant in ((northwind, "acme"), (contoso, "acme"), (globex, "globex")):
        assert (await scene.ended(id, tenant))["state"] == "completed"
    async with listening() as listener:
        for who, tenant in (("northwind", "acme"), ("contoso", "acme"), ("fabrikam", "globex")):
            await hear(scene, listener, who, tenant)
        for _ in range(3):
            await scene.say("fault")

        async def heard() -> bool:
            return bool(listener.of("northwind"))

        await scene.until(heard)
        await scene.settled()
        (alarm,) = await alarms(scene)
        assert (alarm["state"], alarm["serviceAffecting"]) == ("updated", True)
        assert alarm["alarmDetails"].endswith("seen 3 times")
        (said,) = [event["event"]["customerNotification"] for event in listener.of("northwind")]
        assert (said["notificationType"], said["service"][0]["id"]) == ("serviceAffected", f"{northwind}-1")
        assert said["productOrder"][0]["id"] == northwind

        await scene.say("clear")

        async def restored() -> bool:
            return len(listener.of("northwind")) == 2

        await scene.until(restored)
        await scene.settled()
        (alarm,) = await alarms(scene)
        assert (alarm["state"], alarm["perceivedSeverity"]) == ("cleared", "cleared")
        said = listener.of("northwind")[1]["event"]["customerNotification"]
        assert (said["notificationType"], said["restoredAt"]) == ("serviceRestored", alarm["alarmClearedTime"])
        assert {who for who, _ in listener.got} == {"northwind"}


async def test_a_condition_that_comes_again_is_another_alarm(scene: Scene) -> None:
    """And a clear of what is not open is none."""
    await scene.say("clear")
    await scene.say("fault")
    await scene.say("clear")
    await scene.say("fault")

    async def two() -> bool:
        return len(await alarms(scene)) == 2

    await scene.until(two)
    await scene.settled()
    assert sorted(alarm["state"] for alarm in await alarms(scene)) == ["cleared", "raised"]


async def test_a_device_whose_word_is_unknown_is_heard(still: Scene) -> None:
    """An unmapped trap is an alarm, but disturbs no customer."""
    await still.ended(await still.order(item(**BERLIN)))
    await still.say("unmapped", object="", perceivedSeverity="indeterminate", details={"1.3.6.1.4.1.9": "x"})
    await still.settled()

    (alarm,) = await alarms(still)
    assert (alarm["state"], alarm["perceivedSeverity"]) == ("raised", "indeterminate")
    assert "1.3.6.1.4.1.9=x" in alarm["alarmDetails"]
    assert await told(still, "serviceAffected") == []


async def test_different_conditions_are_different_alarms(still: Scene) -> None:
    """By device and key, also in one tenant."""
    for device, key in (("pe1", "linkDown:1"), ("pe1", "linkDown:2"), ("pe2", "linkDown:1")):
        await still.say("fault", device, key=key)
    await still.say("clear", "pe1", key="linkDown:2")
    await still.settled()

    assert sorted((a["sourceSystemId"], a["state"]) for a in await alarms(still)) == [
        ("pe1", "cleared"),
        ("pe1", "raised"),
        ("pe2", "raised"),
    ]


async def test_a_device_that_is_down_affects_all_that_stands_on_it(still: Scene) -> None:
    """A fault without a part is the device's; one of another port is not the service's."""
    await still.ended(await still.order(item(**BERLIN), item(id="2", **BERLIN | {"vlan": 11})))
    await still.ended(await still.order(item(**BERLIN | {"vlan": 12}), party="contoso"))
    await still.say("fault", object="ge-9")
    await still.settled()
    assert await told(still, "serviceAffected") == []

    await still.say("fault", object="", key="deviceDown")
    await still.settled()
    said = {note["relatedParty"][0]["id"]: len(note["service"]) for note in await told(still, "serviceAffected")}
    assert said == {"northwind": 2, "contoso": 1}


async def test_a_service_that_has_ended_is_not_affected(still: Scene) -> None:
    """Nobody hears of what he has no more."""
    id = await still.order(item(**BERLIN))
    await still.ended(id)
    await still.ended(await still.order(item("delete", product=f"{id}-1")))
    await still.say("fault")
    await still.settled()

    assert await told(still, "serviceAffected") == []


async def test_a_customer_is_told_nothing_of_others(still: Scene) -> None:
    """Two customers on one port hear of their own service and order only."""
    for party, vlan in (("northwind", 10), ("contoso", 11)):
        await still.ended(await still.order(item(**BERLIN | {"vlan": vlan}), party=party))
    await still.say("fault")
    await still.settled()

    notes = await told(still, "serviceAffected")
    assert len(notes) == 2
    for note in notes:
        assert (len(note["service"]), len(note["productOrder"]), len(note["relatedParty"])) == (1, 1, 1)
        (other,) = [one for one in notes if one is not note]
        assert other["service"][0]["id"] not in str(note)
        assert other["relatedParty"][0]["id"] not in str(note)


async def test_an_alarm_shows_a_customer_its_own_services_alone(still: Scene) -> None:
    """Over REST and in events: two customers on one port do not learn of each other; the operator sees both."""
    async with listening() as listener:
        for who in ("northwind", "contoso"):
            subject = Subject(who, "acme", ("customer",), who)
            await hub.register(still.store, hub.subscription(API, subject, {"callback": listener.url(who)}))
        desk = Subject("desk", "acme", ("noc",))
        await hub.register(still.store, hub.subscription(API, desk, {"callback": listener.url("desk")}))
        for party, vlan in (("northwind", 10), ("contoso", 11)):
            await still.ended(await still.order(item(**BERLIN | {"vlan": vlan}), party=party))
        await still.say("fault")
        await still.settled()

        heard = {
            who: {service["id"] for service in listener.of(who)[0]["event"]["alarm"]["affectedService"]}
            for who in ("northwind", "contoso", "desk")
        }
    (alarm,) = await still.store.find("alarm", {})
    shown = {
        who: {one["id"] for one in still.work.resources.present_to([who], ALARM, alarm, "")["affectedService"]}
        for who in ("northwind", "contoso")
    }
    assert [len(heard[who]) for who in heard] == [1, 1, 2]
    assert heard["northwind"] | heard["contoso"] == heard["desk"]
    assert shown == {who: heard[who] for who in shown}


async def test_an_all_clear_does_not_overtake_the_fault_that_it_ends(still: Scene) -> None:
    """Not even when whoever told of the fault died before that was published: it is brought out first."""
    await still.ended(await still.order(item(**BERLIN)))
    await still.say("fault")
    await still.settled()
    (note,) = await still.store.find("customerNotification", {"body.notificationType": "serviceAffected"})
    await still.store.replace(note, [Outgoing("late", "event.0.acme.Late", {"event": {"eventType": "Late"}})])
    (record,) = await still.store.find("affectedParty", {})
    over = await still.resources.change(AFFECTED_PARTY, record, {"status": "restored"})
    event = over.unsent[-1]

    await affected.tell(still.work, Message(event.id, event.subject, event.body, {}, Position("pump", 0), time()))
    out = [message.id for message in still.bus.messages]  # the all-clear is in its outbox yet
    await still.settled()

    assert out[-1] == "late"
    assert len(await told(still, "serviceRestored")) == 1


async def test_an_alarm_that_a_person_cleared_does_not_hold_up_the_next(still: Scene) -> None:
    """The condition that comes again raises another; nothing is parked."""
    await still.say("fault")
    await still.settled()
    (record,) = await still.find("alarm")
    await still.resources.change(ALARM, record, {"state": "cleared"})
    await still.say("fault")
    await still.settled()

    assert sorted(alarm["state"] for alarm in await alarms(still)) == ["cleared", "raised"]
    assert await still.bus.parked() == []


async def test_an_alarm_that_a_person_deleted_does_not_hold_up_the_next(still: Scene) -> None:
    """The condition that comes again raises another; nothing is lost."""
    await still.say("fault")
    await still.settled()
    (record,) = await still.find("alarm")
    await still.resources.delete(ALARM, record)
    await still.pump()
    await still.say("fault")
    await still.settled()

    assert [alarm["state"] for alarm in await alarms(still)] == ["raised"]


async def test_an_alarm_that_is_deleted_at_once_is_told_to_nobody(still: Scene) -> None:
    """Nothing would ever tell that it is over."""
    await still.ended(await still.order(item(**BERLIN)))
    (service,) = await still.find("service")
    body = {"state": "raised", "specificProblem": "loss of light", "affectedService": [{"id": service.id}]}
    record = await still.resources.create(ALARM, "acme", {**body, "alarmRaisedTime": "2026-05-01T12:00:00Z"})
    await still.resources.delete(ALARM, record)
    await still.pump()

    assert await told(still, "serviceAffected") == []
    assert await still.bus.parked() == []


async def test_who_heard_of_a_fault_hears_of_its_end_though_the_alarm_was_deleted(still: Scene) -> None:
    """A person cleared it and removed it at once."""
    await still.ended(await still.order(item(**BERLIN)))
    await still.say("fault")
    await still.settled()
    (record,) = await still.find("alarm")
    record = await still.resources.change(ALARM, record, {"state": "cleared"})
    await still.resources.delete(ALARM, record)
    await still.pump()

    assert len(await told(still, "serviceAffected")) == 1
    assert len(await told(still, "serviceRestored")) == 1
    assert await still.bus.parked() == []


async def test_second_delivery_changes_nothing(still: Scene) -> None:
    """Faults, repetitions, clears and what follows from them come twice; the count stays exact."""
    await still.ended(await still.order(item(**BERLIN)))
    changed = []
    for kind in ("fault", "fault", "fault", "clear", "clear", "fault", "unmapped"):
        await still.say(kind)
        changed += await twice(still)

    assert changed == []
    assert sorted(a["alarmDetails"].rsplit("; ")[-1] for a in await alarms(still)) == ["seen 2 times", "seen 3 times"]
    assert await still.bus.parked() == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cut_at_any_write_changes_no_end(tmp_path: Path, when: Any) -> None:
    """Whichever write of the store fails, done or not, the count is exact and everybody is told once."""
    for at in range(1, 100):
        store = FaultyStore(MemoryStore(STORE_KINDS), 0, when)
        async with pumped(tmp_path, store) as scene:
            await scene.ended(await scene.order(item(**BERLIN)))
            store.writes, store.fails_at = 0, at
            for kind in ("fault", "fault", "clear", "fault"):
                await scene.say(kind)
                await scene.settled()
            assert sorted((a["state"], a["alarmDetails"].rsplit("; ")[-1]) for a in await alarms(scene)) == [
                ("cleared", "seen 2 times"),
                ("raised", "seen 1 time"),
            ], at
            assert len(await told(scene, "serviceAffected")) == 2
            assert len(await told(scene, "serviceRestored")) == 1
            assert scene.bus.parked_ == []
            passed = store.writes < at
        if passed:
            break
    assert at > 5


# delivery


async def test_a_dead_listener_holds_up_nobody(scene: Scene) -> None:
    """The others hear at once; what failed comes again with the same eventId, in order, until it is taken."""
    await scene.ended(await scene.order(item(**BERLIN)))
    async with listening() as listener:
        listener.answers["northwind"] = 503
        await hear(scene, listener, "northwind")
        await hear(scene, listener, "desk", role="noc")
        await scene.say("fault")

        async def others() -> bool:
            return len(listener.of("desk")) == 1 and len(listener.of("northwind")) >= 2

        await scene.until(others)
        await scene.say("clear")

        async def cleared() -> bool:
            return len(listener.of("desk")) == 2

        await scene.until(cleared)
        assert {event["eventId"] for event in listener.of("northwind")} == {listener.of("desk")[0]["eventId"]}
        listener.answers["northwind"] = 204
        tried = len(listener.of("northwind"))

        async def taken() -> bool:
            return len({event["eventId"] for event in listener.of("northwind")}) == 2

        await scene.until(taken)
        ids = [event["eventId"] for event in listener.of("northwind")[tried:]]
        assert ids == [event["eventId"] for event in listener.of("desk")]


async def test_a_listener_that_is_gone_is_unregistered(scene: Scene) -> None:
    """410 ends the subscription, and its queue."""
    await scene.ended(await scene.order(item(**BERLIN)))
    async with listening() as listener:
        listener.answers["northwind"] = 410
        await hear(scene, listener, "northwind")
        await scene.say("fault")

        async def gone() -> bool:
            return await scene.find("hub") == []

        await scene.until(gone)
        await scene.say("clear")
        await scene.settled()
        assert len(listener.of("northwind")) == 1


async def test_the_queue_of_a_removed_listener_disappears(still: Scene) -> None:
    """Also when nothing is to be delivered to it any more; that of others stays."""
    async with listening() as listener:
        gone, stays = [await hear(still, listener, "northwind") for _ in range(2)]
        await still.worker.look_after()
        assert {f"hub-{gone}", f"hub-{stays}"} <= {one.name for one in still.bus.consumers}
        await still.store.delete(await still.store.get("hub", "acme", gone))
        await still.worker.look_after()

        async def ended() -> bool:
            return f"hub-{gone}" not in {one.name for one in still.bus.consumers}

        await still.until(ended, 2)
        assert f"hub-{stays}" in {one.name for one in still.bus.consumers}


async def test_another_tenants_listener_hears_nothing(still: Scene) -> None:
    """Nor does one of another API."""
    async with listening() as listener:
        await hear(still, listener, "northwind", "globex")
        subject = Subject("desk", "acme", ("noc",))
        await hub.register(still.store, hub.subscription(API, subject, {"callback": listener.url("alarms")}))
        await still.ended(await still.order(item(**BERLIN)))
        await still.settled()
        assert listener.got == []
        await still.say("fault")
        await still.settled()

        assert [event["eventType"] for event in listener.of("alarms")] == [
            "AlarmCreateEvent",
            "AlarmAttributeValueChangeEvent",
        ]
        assert listener.of("northwind") == []


async def test_a_listener_hears_what_it_asked_for(still: Scene) -> None:
    """Its query is kept to."""
    async with listening() as listener:
        record = hub.subscription(API, Subject("desk", "acme", ("noc",)), {"callback": listener.url("x")})
        asked = replace(record, body={**record.body, "query": "eventType=AlarmStateChangeEvent"})
        await hub.register(still.store, asked)
        await still.say("fault")
        await still.say("clear")
        await still.settled()

        assert [event["eventType"] for event in listener.of("x")] == ["AlarmStateChangeEvent"]
