"""What an alarm may become, and which alarms a pattern means."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from convergedon.core.errors import Conflict, Invalid
from convergedon.core.memory import MemoryStore, matches
from convergedon.core.store import Record
from convergedon.handlers import documents
from convergedon.handlers.alarms import ALARM, API, TASKS
from convergedon.handlers.apis import APIS, KINDS
from convergedon.handlers.resource import Resources
from convergedon.mediation import alarm_patterns

ALARMED = {
    "alarmType": "communicationsAlarm",
    "perceivedSeverity": "major",
    "probableCause": "lossOfSignal",
    "alarmedObject": {"id": "pe1/ge-1", "href": "https://inventory.example/pe1"},
    "sourceSystemId": "pe1",
    "state": "raised",
    "alarmRaisedTime": "2026-02-20T10:31:04.220+01:00",
    "serviceAffecting": True,
    "comment": [{"userId": "mara", "comment": "seen"}, {"userId": "jon", "comment": "on my way"}],
    "parentAlarm": [{"id": "p1"}],
}


@pytest.fixture
def resources() -> Resources:
    return Resources(MemoryStore(KINDS), APIS, "http://gateway.example")


async def changed(resources: Resources, *changes: dict[str, Any], **given: Any) -> Record:
    """An alarm after these changes."""
    record = await resources.create(ALARM, "acme", {**ALARMED, **given})
    for change in changes:
        record = await resources.change(ALARM, record, change)
    return record


def told(record: Record) -> list[str]:
    return [message.body["event"]["eventType"] for message in record.unsent]


@pytest.mark.parametrize(
    "change",
    [{"state": "cleared"}, {"perceivedSeverity": "cleared"}, {"perceivedSeverity": "cleared", "state": "updated"}],
)
async def test_state_and_severity_are_cleared_together(resources: Resources, change: dict[str, Any]) -> None:
    """By whichever of the two, with the time of it, and it is told as a move of the state."""
    alarm = await changed(resources, change)

    assert (alarm.body["state"], alarm.body["perceivedSeverity"]) == ("cleared", "cleared")
    assert alarm.body["alarmClearedTime"].endswith("Z")
    assert told(alarm) == ["AlarmCreateEvent", "AlarmStateChangeEvent"]


async def test_a_time_of_clearing_that_is_given_stays(resources: Resources) -> None:
    """At the move, and when something else changes after."""
    time = "2026-02-20T11:00:00+01:00"
    alarm = await changed(resources, {"state": "cleared", "alarmClearedTime": time}, {"ackState": "acknowledged"})

    assert alarm.body["alarmClearedTime"] == time


@pytest.mark.parametrize(
    "change",
    [
        {"perceivedSeverity": "major"},
        {"perceivedSeverity": None},
        {"state": "raised"},
        {"state": "updated"},
        {"state": "raised", "perceivedSeverity": "major"},
    ],
)
async def test_what_is_cleared_stays_so(resources: Resources, change: dict[str, Any]) -> None:
    """A severity or a state is refused, naming from, to and what is allowed; nothing is written."""
    alarm = await changed(resources, {"state": "cleared"})

    with pytest.raises(Conflict, match=r"cannot move from cleared to .*; allowed: nothing, it is final"):
        await resources.change(ALARM, alarm, change)

    assert await resources.store.get("alarm", "acme", alarm.id) == alarm


async def test_since_when_it_is_cleared_is_not_forgotten(resources: Resources) -> None:
    """The time may be corrected, not taken away."""
    alarm = await changed(resources, {"state": "cleared"}, {"alarmClearedTime": "2026-02-20T11:00:00Z"})

    with pytest.raises(Conflict, match="alarmClearedTime"):
        await resources.change(ALARM, alarm, {"alarmClearedTime": None})


async def test_to_clear_what_is_cleared_changes_nothing(resources: Resources) -> None:
    """No event, no other time."""
    once = await changed(resources, {"state": "cleared"})
    again = await resources.change(ALARM, once, {"state": "cleared", "perceivedSeverity": "cleared"})

    assert again == once


@pytest.mark.parametrize("given", [{"state": "cleared"}, {"perceivedSeverity": "cleared"}])
async def test_an_alarm_may_be_reported_when_it_is_over(resources: Resources, given: dict[str, Any]) -> None:
    """It begins cleared, in all its members."""
    alarm = await changed(resources, **given)

    assert (alarm.body["state"], alarm.body["perceivedSeverity"]) == ("cleared", "cleared")
    assert "alarmClearedTime" in alarm.body


@pytest.mark.parametrize("state", ["raised", "updated", "cleared"])
async def test_acknowledging_is_independent_of_the_state(resources: Resources, state: str) -> None:
    """To and fro, in every state, which it leaves as it is."""
    alarm = await changed(resources, state=state)
    for said in ("acknowledged", "unacknowledged", "acknowledged"):
        alarm = await resources.change(ALARM, alarm, {"ackState": said})
        assert (alarm.body["ackState"], alarm.body["state"]) == (said, state)

    assert told(alarm)[1:] == ["AlarmAttributeValueChangeEvent"] * 3


async def test_an_ack_state_is_one_of_two(resources: Resources) -> None:
    """In any letters, as the standard's samples have it; anything else is refused."""
    alarm = await changed(resources, ackState="UNacknowledged")
    assert alarm.body["ackState"] == "unacknowledged"

    for wrong in ("maybe", 1):
        with pytest.raises(Invalid, match="ackState is acknowledged or unacknowledged"):
            await resources.change(ALARM, alarm, {"ackState": wrong})
        with pytest.raises(Invalid, match="ackState"):
            await changed(resources, ackState=wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"alarmType": "equipmentAlarm"},
        {"perceivedSeverity": "minor"},
        {"probableCause": "fire"},
        {"state": "updated"},
        {"ackState": "acknowledged"},
        {"comment": []},
    ],
)
async def test_every_change_is_timed_and_changes_what_it_names(resources: Resources, change: dict[str, Any]) -> None:
    """A client that wants the state updated says so."""
    alarm = await changed(resources, change)

    assert alarm.body["alarmChangedTime"].endswith("Z")
    assert {name: alarm.body[name] for name in change} == change
    assert alarm.body["state"] == change.get("state", "raised")


MEANT: list[dict[str, Any]] = [
    {"perceivedSeverity": "major"},
    {"perceivedSeverity": "major", "sourceSystemId": "pe1"},
    {"alarmedObject": {"id": "pe1/ge-1"}},
    {"alarmRaisedTime": "2026-02-20T09:31:04.220Z"},
    {"serviceAffecting": True},
    {"comment": [{"userId": "jon"}]},
    {"comment": [{"comment": "on my way"}, {"userId": "mara"}]},
    {"parentAlarm": {"id": "p1"}},
    {"ackUserId": None, "state": "raised"},
    {"ackState": "UNacknowledged"},
    {"@type": "Alarm", "@baseType": "Alarm", "state": "raised"},
    {"id": "a1"},
    {"href": "/alarmManagement/v4/alarm/a1"},
    {"id": "a1", "href": "https://elsewhere.example/alarm/a1", "state": "raised"},
]
NOT_MEANT: list[dict[str, Any]] = [
    {"perceivedSeverity": "minor"},
    {"perceivedSeverity": "major", "sourceSystemId": "pe2"},
    {"alarmedObject": {"id": "pe1/ge-1", "@type": "Port"}},
    {"alarmRaisedTime": "2026-02-20T10:31:04.220Z"},
    {"serviceAffecting": 1},
    {"comment": [{"userId": "jon", "comment": "seen"}]},
    {"comment": [{"userId": "jon"}, {"userId": "eve"}]},
    {"ackUserId": "mara"},
    {"state": {"$ne": "cleared"}},
    {"alarmedObject.id": "pe1/ge-1"},
    {"$where": "true"},
    {"id": "a2", "state": "raised"},
]


@pytest.mark.parametrize("pattern", MEANT, ids=str)
async def test_an_alarm_with_all_attributes_is_meant(resources: Resources, pattern: dict[str, Any]) -> None:
    """And the store's filter lets it through, also as one of several patterns."""
    alarm = await resources.create(ALARM, "acme", ALARMED, id="a1")

    for patterns in ([pattern], [{"state": "nothing"}, pattern]):
        assert alarm_patterns.matches(patterns, {"id": alarm.id, **alarm.body})
        if "id" not in pattern and "href" not in pattern:
            assert matches({"body": alarm.body, "facts": alarm.facts}, alarm_patterns.where(patterns))


@pytest.mark.parametrize("pattern", NOT_MEANT, ids=str)
async def test_an_alarm_that_lacks_one_is_not_meant(resources: Resources, pattern: dict[str, Any]) -> None:
    """Nothing in a pattern is read as an operator."""
    alarm = await resources.create(ALARM, "acme", ALARMED, id="a1")

    assert not alarm_patterns.matches([pattern], {"id": alarm.id, **alarm.body})
    assert "$where" not in str(alarm_patterns.where([pattern]))
    assert "$ne" not in str(alarm_patterns.where([pattern]))


BY_PATTERN = [task for task in TASKS if "roup" not in task.name]
GROUPING = [task for task in TASKS if "roup" in task.name]


@pytest.mark.parametrize("task", BY_PATTERN, ids=lambda task: task.name)
@pytest.mark.parametrize("empty", [{}, {"@type": "Alarm"}, {"alarmedObject": {}}, {"comment": [{}]}], ids=str)
async def test_a_pattern_that_would_match_everything_is_refused(resources: Resources, task: Any, empty: Any) -> None:
    """However it is empty; the one beside it does not excuse it."""
    body = {"alarmPattern": [{"state": "raised"}, empty], "comment": {}}

    with pytest.raises(Invalid, match=r"alarmPattern.1 names no attribute"):
        await resources.create(task, "acme", body)


@pytest.mark.parametrize("task", GROUPING, ids=lambda task: task.name)
@pytest.mark.parametrize(
    "body",
    [
        {"parentAlarm": {"state": "raised"}, "correlatedAlarm": [{"id": "a"}]},
        {"parentAlarm": {"id": "a"}, "correlatedAlarm": [{"id": "b"}, {"sourceSystemId": "pe1"}]},
    ],
    ids=["parent", "child"],
)
async def test_what_is_grouped_is_named(resources: Resources, task: Any, body: Any) -> None:
    """A description could mean any number of parents."""
    with pytest.raises(Invalid, match="by id or href"):
        await resources.create(task, "acme", body)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
async def test_the_samples_of_the_standard_are_taken(resources: Resources, task: Any) -> None:
    """What they hold beyond a request, such as an outcome, is left aside."""
    beside = Path(__file__).parents[3] / "shared" / "tmf"
    folder = Path(os.environ.get("CONVERGEDON_TMF_DOCUMENTS", beside)) / "samples" / "TMF642_Alarm"
    if not folder.is_dir():
        pytest.skip("CONVERGEDON_TMF_DOCUMENTS names no folder with the samples")
    sample = json.loads((folder / f"{task.schema}.example.json").read_text())

    documents.schema(API.document, f"{task.schema}_Create").check(sample)
    creatable = documents.shape(API.document, task.schema).creatable
    taken = await resources.create(task, "acme", {name: sample[name] for name in sample if name in creatable})

    assert taken.body["state"] == "acknowledged"
    assert task.untold[0] not in taken.body
