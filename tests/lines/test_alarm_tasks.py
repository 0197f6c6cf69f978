"""Tasks on many alarms: each alarm that is meant is changed once, whatever dies on the way and whoever else writes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from faulty import FaultyStore
from scene import BERLIN, STORE_KINDS, PumpBus, Scene, item, pumped, twice

from convergedon.core import embedded
from convergedon.core.bus import NatsBus
from convergedon.core.memory import MemoryStore
from convergedon.core.policy import Subject
from convergedon.core.store import MongoStore, Record, Store
from convergedon.handlers.alarms import (
    ACK_ALARMS,
    ALARM,
    CLEAR_ALARMS,
    COMMENT_ALARMS,
    GROUP_ALARMS,
    TASKS,
    UN_ACK_ALARMS,
    UN_GROUP_ALARMS,
)
from convergedon.handlers.apis import APIS
from convergedon.handlers.resource import Resource, Resources
from convergedon.mediation import alarm_tasks

MARA = Subject("mara", "acme", ("noc",))
OVER = "2026-02-20T11:00:00.000Z"
ENDED = ("done", "terminatedWithError")
ALARMED: dict[str, Any] = {
    "alarmType": "communicationsAlarm",
    "perceivedSeverity": "major",
    "probableCause": "lossOfSignal",
    "alarmedObject": {"id": "pe1/ge-1"},
    "sourceSystemId": "pe1",
    "state": "raised",
    "ackState": "unacknowledged",
    "alarmRaisedTime": "2026-02-20T09:31:04.220Z",
}
SAID: Mapping[str, dict[str, Any]] = {
    "ackAlarms": {"ackUserId": "mara", "ackSystemId": "desk"},
    "unAckAlarms": {"ackUserId": "mara", "ackSystemId": "desk"},
    "clearAlarms": {"clearUserId": "mara", "clearSystemId": "desk", "alarmClearedTime": OVER},
    "commentAlarms": {"comment": {"userId": "mara", "systemId": "desk", "comment": "seen"}},
    "groupAlarms": {"sourceSystemId": "desk", "alarmChangedTime": OVER},
    "unGroupAlarms": {"sourceSystemId": "desk", "alarmChangedTime": OVER},
}
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
by_pattern = pytest.mark.parametrize("task", TASKS[:4], ids=lambda task: task.name)


async def alarm(scene: Scene, id: str, tenant: str = "acme", **given: Any) -> Record:
    return await scene.resources.create(ALARM, tenant, {**ALARMED, **given}, id=id)


async def ask(scene: Scene, task: Resource, owner: Subject = MARA, **given: Any) -> str:
    """A task as the gateway takes it; returns its id."""
    body = {**SAID[task.name], **given}
    return (await scene.resources.create(task, owner.tenant, body, {"owner": owner.document})).id


async def ask_on(scene: Scene, task: Resource, *ids: str) -> str:
    """The same about alarms that are named, p being the parent where there is one."""
    named = [{"id": id} for id in ids]
    if task in (GROUP_ALARMS, UN_GROUP_ALARMS):
        return await ask(scene, task, parentAlarm={"id": "p"}, correlatedAlarm=named)
    return await ask(scene, task, alarmPattern=named)


async def ended(scene: Scene, task: Resource, id: str, patience: float = 20) -> Record:
    await scene.pump()

    async def over() -> bool:
        return (await scene.store.get(task.name, "acme", id)).body["state"] in ENDED

    await scene.until(over, patience)
    return await scene.store.get(task.name, "acme", id)


async def body(scene: Scene, id: str) -> Mapping[str, Any]:
    return (await scene.store.get("alarm", "acme", id)).body


def listed(task: Record) -> list[str]:
    """The ids in the task's list of what it was done to, which holds references alone."""
    (references,) = [task.body[member] for resource in TASKS for member in resource.untold if member in task.body]
    assert all(set(reference) == {"id", "href"} for reference in references)
    return [reference["id"] for reference in references]


def events(scene: Scene, prefix: str = "") -> list[Mapping[str, Any]]:
    told = [message.body["event"] for message in scene.bus.messages if "event" in message.body]
    return [event for event in told if event["eventType"].startswith(prefix)]


async def prepared(scene: Scene, task: Resource) -> None:
    """Three alarms to which the task can still be done, and p."""
    await alarm(scene, "p")
    for id in "abc":
        grouped = {"parentAlarm": [{"id": "p"}]} if task is UN_GROUP_ALARMS else {}
        acked = {"ackState": "acknowledged"} if task is UN_ACK_ALARMS else {}
        await alarm(scene, id, **grouped, **acked)
    if task is UN_GROUP_ALARMS:
        parent = await scene.store.get("alarm", "acme", "p")
        await scene.resources.change(ALARM, parent, {"correlatedAlarm": [{"id": id} for id in "abc"]})


def is_done(task: Resource, alarm: Mapping[str, Any]) -> bool:
    """Whether an alarm has what the task gives."""
    by = {"ackUserId": "mara", "ackSystemId": "desk"}
    over = {"clearUserId": "mara", "clearSystemId": "desk", "alarmClearedTime": OVER, "perceivedSeverity": "cleared"}
    wanted: dict[str, dict[str, Any]] = {
        "ackAlarms": {"ackState": "acknowledged", **by},
        "unAckAlarms": {"ackState": "unacknowledged", **by},
        "clearAlarms": {"state": "cleared", **over},
        "commentAlarms": {},
        "groupAlarms": {},
        "unGroupAlarms": {"parentAlarm": []},
    }
    if task is COMMENT_ALARMS:
        return [comment["comment"] for comment in alarm.get("comment", [])] == ["seen"]
    if task is GROUP_ALARMS:
        return [parent["id"] for parent in alarm.get("parentAlarm", [])] == ["p"]
    return {name: alarm.get(name) for name in wanted[task.name]} == wanted[task.name]


# what a task does


@every_task
async def test_a_task_is_done_to_the_alarms_that_it_means(scene: Scene, task: Resource) -> None:
    """To those and no others, each timed; the task lists them."""
    await prepared(scene, task)
    done = await ended(scene, task, await ask_on(scene, task, "a", "b"))

    assert done.body["state"] == "done"
    assert listed(done) == (["p", "a", "b"] if task in (GROUP_ALARMS, UN_GROUP_ALARMS) else ["a", "b"])
    assert [is_done(task, await body(scene, id)) for id in "abc"] == [True, True, False]
    assert "alarmChangedTime" in await body(scene, "a")
    assert "alarmChangedTime" not in await body(scene, "c")
    children = [child["id"] for child in (await body(scene, "p")).get("correlatedAlarm", [])]
    assert children == {"groupAlarms": ["a", "b"], "unGroupAlarms": ["c"]}.get(task.name, [])
    assert not {"chosen", "undone", "failed", "next"} & done.facts.keys()


@every_task
async def test_a_task_tells_of_itself_and_each_alarm_of_its_own_change(still: Scene, task: Resource) -> None:
    """Created, under way, ended; its list, which may be long, is in no event."""
    await prepared(still, task)
    await still.pump()
    before = len(events(still, "Alarm"))
    await ended(still, task, await ask_on(still, task, "a", "b"))

    told = events(still, task.schema)
    assert [event["eventType"].removeprefix(task.schema) for event in told] == [
        "CreateEvent",
        *["StateChangeEvent"] * 2,
    ]
    assert [event["event"][task.name]["state"] for event in told] == ["acknowledged", "inProgress", "done"]
    assert all(task.untold[0] not in event["event"][task.name] for event in told)
    kind = "AlarmStateChangeEvent" if task is CLEAR_ALARMS else "AlarmAttributeValueChangeEvent"
    changed = events(still, "Alarm")[before:]
    parents = ["p"] if task in (GROUP_ALARMS, UN_GROUP_ALARMS) else []
    assert sorted((event["event"]["alarm"]["id"], event["eventType"]) for event in changed) == [
        (id, kind) for id in ["a", "b", *parents]
    ]


async def test_patterns_are_alternatives_of_all_their_attributes(scene: Scene) -> None:
    """All in one, any of several, of the caller's tenant; an alarm that two of them mean is changed once."""
    for id, given in {
        "a": {"perceivedSeverity": "minor"},
        "b": {"perceivedSeverity": "minor", "sourceSystemId": "pe2"},
        "c": {"alarmedObject": {"id": "pe9", "href": "https://inventory.example/pe9"}},
        "d": {},
        "e": {"alarmRaisedTime": "2026-02-20T12:00:00+02:00"},
    }.items():
        await alarm(scene, id, **given)
    await alarm(scene, "x", "globex", perceivedSeverity="minor")
    patterns = [
        {"perceivedSeverity": "minor", "sourceSystemId": "pe1"},
        {"alarmedObject": {"id": "pe9"}},
        {"id": "c"},
        {"alarmRaisedTime": "2026-02-20T10:00:00Z"},
    ]
    done = await ended(scene, COMMENT_ALARMS, await ask(scene, COMMENT_ALARMS, alarmPattern=patterns))

    assert (done.body["state"], sorted(listed(done))) == ("done", ["a", "c", "e"])
    assert [is_done(COMMENT_ALARMS, await body(scene, id)) for id in "abcde"] == [True, False, True, False, True]
    assert "comment" not in (await scene.store.get("alarm", "globex", "x")).body


async def test_a_task_that_means_nothing_is_done(still: Scene) -> None:
    """That no alarm is as described is no error."""
    await alarm(still, "a")
    done = await ended(still, CLEAR_ALARMS, await ask(still, CLEAR_ALARMS, alarmPattern=[{"state": "updated"}]))

    assert (done.body["state"], listed(done)) == ("done", [])


@every_task
async def test_what_is_so_already_is_a_success_that_changes_nothing(still: Scene, task: Resource) -> None:
    """Who was first stays named; nothing is told of the alarm."""
    await prepared(still, task)
    await ended(still, task, await ask_on(still, task, "a"))
    before = await still.find("alarm")
    other = {name: value for name, value in SAID[task.name].items() if name == "comment"}
    given = {**{name: "eve" for name in SAID[task.name] if name.endswith("UserId")}, **other}
    if task is COMMENT_ALARMS:
        given["comment"] = (await body(still, "a"))["comment"][0]
    named = {"parentAlarm": {"id": "p"}, "correlatedAlarm": [{"id": "a"}]}
    about = named if task in (GROUP_ALARMS, UN_GROUP_ALARMS) else {"alarmPattern": [{"id": "a"}]}
    done = await ended(still, task, await ask(still, task, **given, **about))

    assert (done.body["state"], listed(done)[-1]) == ("done", "a")
    assert await still.find("alarm") == before


@every_task
async def test_what_is_named_and_not_there_is_an_error(still: Scene, task: Resource) -> None:
    """The others are done all the same, and the event says which was not there."""
    await prepared(still, task)
    done = await ended(still, task, await ask_on(still, task, "a", "nowhere", "b"))

    assert (done.body["state"], listed(done)[-2:]) == ("terminatedWithError", ["a", "b"])
    assert events(still, task.schema)[-1]["description"] == "there is no alarm nowhere"


@every_task
async def test_a_task_does_what_its_owner_may(still: Scene, task: Resource) -> None:
    """Who may not change alarms changes none by a task; the reason is told."""
    await prepared(still, task)
    before = await still.find("alarm")
    given = {"parentAlarm": {"id": "p"}, "correlatedAlarm": [{"id": "a"}], "alarmPattern": [{"id": "a"}]}
    id = await ask(still, task, Subject("rae", "acme", ("reader",)), **given)
    done = await ended(still, task, id)

    assert (done.body["state"], listed(done)) == ("terminatedWithError", [])
    assert "may patch a alarm" in events(still, task.schema)[-1]["description"]
    assert [record.body for record in await still.find("alarm")] == [record.body for record in before]


async def test_a_task_that_means_too_many_changes_none(still: Scene) -> None:
    """It says so before the first is touched."""
    many = [Record("alarm", f"{n:06}", "acme", ALARMED) for n in range(alarm_tasks.MOST + 1)]
    await still.store.append(many)
    done = await ended(still, CLEAR_ALARMS, await ask(still, CLEAR_ALARMS, alarmPattern=[{"state": "raised"}]))

    assert (done.body["state"], listed(done)) == ("terminatedWithError", [])
    assert f"more than {alarm_tasks.MOST} alarms" in events(still, "ClearAlarms")[-1]["description"]
    assert await still.store.count("alarm", {"body.state": "cleared"}) == 0


# grouping


async def test_an_alarm_does_not_stand_above_itself(still: Scene) -> None:
    """Not as its own parent, nor through others; what can be grouped is."""
    for id in "gpab":
        await alarm(still, id)
    assert (await ended(still, GROUP_ALARMS, await ask_on(still, GROUP_ALARMS, "a"))).body["state"] == "done"
    above = await ask(still, GROUP_ALARMS, parentAlarm={"id": "g"}, correlatedAlarm=[{"id": "p"}])
    assert (await ended(still, GROUP_ALARMS, above)).body["state"] == "done"

    done = await ended(still, GROUP_ALARMS, await ask_on(still, GROUP_ALARMS, "p", "g", "b"))

    assert (done.body["state"], listed(done)) == ("terminatedWithError", ["p", "b"])
    assert [child["id"] for child in (await body(still, "p"))["correlatedAlarm"]] == ["a", "b"]
    assert "parentAlarm" not in await body(still, "g")


async def test_a_parent_that_is_not_there_groups_nothing(still: Scene) -> None:
    """The children stay as they are."""
    await alarm(still, "a")
    done = await ended(still, GROUP_ALARMS, await ask_on(still, GROUP_ALARMS, "a"))

    assert (done.body["state"], listed(done)) == ("terminatedWithError", [])
    assert "parentAlarm" not in await body(still, "a")


async def test_what_is_left_of_a_group_can_be_taken_apart(still: Scene) -> None:
    """Where the child has gone, or the parent."""
    await prepared(still, UN_GROUP_ALARMS)
    await still.resources.delete(ALARM, await still.store.get("alarm", "acme", "a"))
    await ended(still, UN_GROUP_ALARMS, await ask_on(still, UN_GROUP_ALARMS, "a"))
    assert [child["id"] for child in (await body(still, "p"))["correlatedAlarm"]] == ["b", "c"]

    await still.resources.delete(ALARM, await still.store.get("alarm", "acme", "p"))
    done = await ended(still, UN_GROUP_ALARMS, await ask_on(still, UN_GROUP_ALARMS, "b"))
    assert (done.body["state"], listed(done)) == ("terminatedWithError", ["b"])
    assert (await body(still, "b"))["parentAlarm"] == []


async def test_a_parent_holds_so_many_and_no_more(still: Scene) -> None:
    """Its events carry the list; the rest is refused in words and stays without the parent."""
    full = [{"id": f"child-{n}"} for n in range(alarm_tasks.MOST_CORRELATED - 1)]
    await alarm(still, "p", correlatedAlarm=full)
    for id in "ab":
        await alarm(still, id)
    done = await ended(still, GROUP_ALARMS, await ask_on(still, GROUP_ALARMS, "a", "b"))

    assert (done.body["state"], listed(done)) == ("terminatedWithError", ["p", "a"])
    assert len((await body(still, "p"))["correlatedAlarm"]) == alarm_tasks.MOST_CORRELATED
    assert "parentAlarm" not in await body(still, "b")


# with the fault line


async def test_an_alarm_that_a_task_clears_ends_like_others(still: Scene) -> None:
    """Customers hear the all-clear once, in the trace of the fault; the network's clear changes nothing then, and its
    next fault is another alarm."""
    await still.ended(await still.order(item(**BERLIN)))
    await still.say("fault")
    await still.settled()
    (raised,) = await still.find("alarm")
    await ended(still, CLEAR_ALARMS, await ask_on(still, CLEAR_ALARMS, raised.id))
    cleared = await still.store.get("alarm", "acme", raised.id)
    assert "openKey" not in cleared.facts

    await still.say("clear")
    await still.settled()
    assert (await still.store.get("alarm", "acme", raised.id)).body == cleared.body
    await still.say("fault")
    await still.settled()

    notes = [note.body for note in await still.find("customerNotification")]
    mine = [note for note in notes if note.get("alarm", {}).get("id") == raised.id]
    assert sorted(note["notificationType"] for note in mine) == ["serviceAffected", "serviceRestored"]
    assert {note["traceId"] for note in mine} == {raised.facts["trace"]}
    restored = next(note for note in mine if note["notificationType"] == "serviceRestored")
    assert restored["restoredAt"] == OVER
    assert sorted(record.body["state"] for record in await still.find("alarm")) == ["cleared", "raised"]
    assert await still.bus.parked() == []


async def test_nobody_clears_in_the_name_of_the_device(still: Scene) -> None:
    """What it cleared itself is what its alarms are seen to flap by."""
    await still.say("fault")
    await still.pump()
    (raised,) = await still.find("alarm")

    id = await ask(still, CLEAR_ALARMS, alarmPattern=[{"id": raised.id}], clearSystemId="pe1")
    await still.pump()

    task = await still.store.get(CLEAR_ALARMS.name, "acme", id)
    assert task.body["state"] == "terminatedWithError"
    assert (await still.find("alarm"))[0].body["state"] == "raised"


async def test_customers_see_no_tasks(still: Scene) -> None:
    """Not by reading, nor in events."""
    customer = Subject("northwind", "acme", ("customer",), "northwind")
    for task in TASKS:
        decision = await still.work.policy.decide(customer, "list", {"kind": task.name, "tenant": "acme"})
        assert not decision.allow
        about = {"kind": "event", "tenant": "acme", "parties": [], "of": task.name}
        decision = await still.work.policy.decide(customer, "receive", about, channel="delivery")
        assert not decision.allow


# twice, cut off, side by side


@every_task
async def test_second_delivery_changes_nothing(still: Scene, task: Resource) -> None:
    """Every message of a task comes twice."""
    await prepared(still, task)
    await still.pump()
    await ask_on(still, task, "a", "nowhere", "b")

    assert await twice(still) == []
    assert await still.bus.parked() == []
    assert [is_done(task, await body(still, id)) for id in "abc"] == [True, True, False]


@pytest.mark.parametrize("when", ["before", "after"])
@every_task
async def test_a_cut_at_any_write_changes_no_end(tmp_path: Path, task: Resource, when: Any) -> None:
    """Whichever write of the store fails, done or not: the same alarms, the same list, the same end."""
    for at in range(1, 100):
        store = FaultyStore(MemoryStore(STORE_KINDS), 0, when)
        async with pumped(tmp_path, store) as scene:
            await prepared(scene, task)
            await scene.pump()
            id = await ask_on(scene, task, "a", "b", "c")
            store.writes, store.fails_at = 0, at
            done = await ended(scene, task, id)
            assert (done.body["state"], sorted(listed(done))[:3]) == ("done", ["a", "b", "c"]), at
            assert all([is_done(task, await body(scene, one)) for one in "abc"]), at
            children = [child["id"] for child in (await body(scene, "p")).get("correlatedAlarm", [])]
            assert sorted(children) == (["a", "b", "c"] if task is GROUP_ALARMS else []), at
            told = [event["event"]["alarm"]["id"] for event in events(scene, "Alarm") if "Change" in event["eventType"]]
            assert sorted(told[-4:])[:3] == ["a", "b", "c"], at
            assert scene.bus.parked_ == []
            passed = store.writes < at
        if passed:
            break
    assert at > 5


async def test_comments_of_several_at_once_are_all_kept(scene: Scene) -> None:
    """Tasks and other writers on the same alarms: whoever comes second reads again."""
    for id in "abc":
        await alarm(scene, id)
    said = [{"userId": "mara", "comment": f"number {n}"} for n in range(6)]
    ids = await asyncio.gather(
        *(ask(scene, COMMENT_ALARMS, comment=c, alarmPattern=[{"state": "raised"}]) for c in said)
    )
    for id in ids:
        assert (await ended(scene, COMMENT_ALARMS, id)).body["state"] == "done"

    for id in "abc":
        kept = [comment["comment"] for comment in (await body(scene, id))["comment"]]
        assert sorted(kept) == [comment["comment"] for comment in said]


async def crowd(store: Store, many: int, **given: Any) -> None:
    for first in range(0, many, 1000):
        some = range(first, min(first + 1000, many))
        await store.append([Record("alarm", f"crowd-{n:06}", "acme", {**ALARMED, **given}) for n in some])


async def test_a_task_on_many_lets_others_pass(still: Scene) -> None:
    """It goes on slice by slice: what comes to the same lane meanwhile is done before it ends."""
    many = 2 * alarm_tasks.SLICE + 1
    await crowd(still.store, many)
    await alarm(still, "a", state="updated")
    pattern = [{"state": "raised"}]
    big = await ask(still, COMMENT_ALARMS, alarmPattern=pattern)
    small = await ask_on(still, ACK_ALARMS, "a")
    done = await ended(still, COMMENT_ALARMS, big)

    assert len(listed(done)) == many
    ends = [(event["event"].keys(), next(iter(event["event"].values()))) for event in events(still)]
    order = [told["id"] for _, told in ends if told.get("state") in ENDED]
    assert order == [small, big]
    slices = [message.body["slice"] for message in still.bus.messages if "slice" in message.body]
    assert slices.count(0) == 2
    assert max(slices) == 2 * alarm_tasks.SLICE


async def test_what_is_not_meant_any_more_is_left(still: Scene) -> None:
    """Between choosing and changing somebody else may have been there: the alarm is not in the list."""
    await crowd(still.store, alarm_tasks.SLICE + 1)
    last = f"crowd-{alarm_tasks.SLICE:06}"
    id = await ask(still, ACK_ALARMS, alarmPattern=[{"state": "raised", "perceivedSeverity": "major"}])
    bus = still.bus
    assert isinstance(bus, PumpBus)

    async def worsen(message: Any, _: Any) -> None:
        if message.body.get("slice") == 0:
            record = await still.store.get("alarm", "acme", last)
            if record.body["perceivedSeverity"] == "major":
                await still.resources.change(ALARM, record, {"perceivedSeverity": "critical"})

    await bus.run(still.store, 2, None, worsen)
    done = await ended(still, ACK_ALARMS, id)

    assert (done.body["state"], len(listed(done))) == ("done", alarm_tasks.SLICE)
    assert (await body(still, last))["ackState"] == "unacknowledged"


@asynccontextmanager
async def worker(folder: Path, **given: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker as a process of its own; killed at the end, if not before."""
    said = {f"CONVERGEDON_{name.upper()}": value for name, value in {"data": str(folder), **given}.items()}
    command = (sys.executable, "-P", "-m", "convergedon.core.cli", "worker")
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **said}, stdout=quiet, stderr=quiet)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_task_outlives_the_worker_that_is_killed_over_it(tmp_path: Path, mongodb_url: str) -> None:
    """Killed in the middle of a slice: another goes on where it was, and every alarm has the comment once."""
    database, many = f"tasks{uuid4().hex[:8]}", alarm_tasks.SLICE + alarm_tasks.SLICE // 2
    store = await MongoStore(mongodb_url, database, STORE_KINDS).open()
    (tmp_path / "nats").mkdir()
    with embedded.running(embedded.nats_command(tmp_path / "nats")) as server:
        await (await NatsBus(server.url, "test").open()).close()
        given = {"nats_url": server.url, "mongodb_url": mongodb_url, "database": database}
        await crowd(store, many)
        asked = {**SAID["commentAlarms"], "alarmPattern": [{"state": "raised"}]}
        resources = Resources(store, APIS, "http://gateway.example")
        id = (await resources.create(COMMENT_ALARMS, "acme", asked, {"owner": MARA.document})).id

        async def reached(true: Callable[[Record], bool]) -> Record:
            async with asyncio.timeout(60):
                while not true(task := await store.get("commentAlarms", "acme", id)):
                    await asyncio.sleep(0.01)
            return task

        async with worker(tmp_path, **given) as first:
            await reached(lambda task: task.facts.get("next") == alarm_tasks.SLICE)
            first.kill()
            await first.wait()
        interrupted = await store.get("commentAlarms", "acme", id)
        async with worker(tmp_path, **given):
            done = await reached(lambda task: task.body["state"] in ENDED)

    assert interrupted.body["state"] == "inProgress"
    assert (done.body["state"], len(listed(done))) == ("done", many)
    for record in await store.find("alarm", {"tenant": "acme"}):
        assert is_done(COMMENT_ALARMS, record.body), record.id
    await store.close()
