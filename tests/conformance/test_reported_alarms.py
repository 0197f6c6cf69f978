"""What the network said of its alarms no client changes, in whichever version; what people say stays theirs."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Gateway

from convergedon.core.store import Record
from convergedon.handlers.alarms import ALARM, REPORTED

V4, V5 = "/tmf-api/alarmManagement/v4", "/tmf-api/alarmManagement/v5"
BODY = {
    "alarmType": "communicationsAlarm",
    "perceivedSeverity": "major",
    "probableCause": "lossOfSignal",
    "alarmedObject": {"id": "pe1/ge-0/0/1"},
    "sourceSystemId": "pe1",
    "state": "raised",
    "alarmRaisedTime": "2026-02-20T09:31:04Z",
    "raisedCount": 1,
}
OTHERWISE: dict[str, Any] = {
    "alarmedObject": {"id": "pe2/ge-0/0/1"},
    "alarmedObjectType": "device",
    "probableCause": "fire",
    "specificProblem": "another",
    "alarmDetails": "seen never",
    "reportingSystemId": "me",
    "alarmReportingTime": "2026-02-20T09:31:04Z",
    "externalAlarmId": "7",
    "crossedThresholdInformation": {"threshold": {"id": "9"}},
}
FROZEN: dict[str, Any] = {
    "flapping": True,
    "raisedCount": 9,
    "lastRaisedTime": "2026-02-20T09:31:04Z",
    "why": "I say so",
    "alarmRaisedTime": "2026-02-20T10:31:04Z",
    "sourceSystemId": "pe2",
}


async def reported(gateway: Gateway, **given: Any) -> Record:
    """An alarm as the fault line writes it."""
    return await gateway.built.resources.create(ALARM, gateway.tenant, {**BODY, **given}, {"key": "pe1|linkDown"})


async def patched(gateway: Gateway, base: str, alarm: Record, change: Any, **headers: str) -> Any:
    return await gateway.ask("PATCH", f"{base}/alarm/{alarm.id}", json=change, headers=headers)


@pytest.mark.parametrize("base", [V4, V5])
async def test_what_the_network_said_is_refused_and_stays(gateway: Gateway, base: str) -> None:
    """Members of the document that it said, by 409; those that no client may write at all, by 400."""
    alarm = await reported(gateway)
    assert OTHERWISE.keys() == {*REPORTED}

    for name, value in {**OTHERWISE, **FROZEN}.items():
        answer = await patched(gateway, base, alarm, {name: value, "ackState": "acknowledged"})

        status = 409 if name in OTHERWISE else 400
        assert (name, answer.status_code) == (name, status)
        told = answer.json()
        assert told.keys() >= {"code", "reason", "message"}
        assert name in told["message"]
        assert ("is what the network said" if status == 409 else "cannot be changed") in told["message"]
    assert (await gateway.built.resources.store.get(ALARM.name, gateway.tenant, alarm.id)).body == alarm.body


async def test_flapping_is_not_to_be_said_in_other_words(gateway: Gateway) -> None:
    """Nor by a JSON Patch, nor at the beginning of an alarm of a client's own: it begins workflows."""
    alarm = await reported(gateway)
    steps = [{"op": "add", "path": "/flapping", "value": True}]

    answer = await gateway.ask(
        "PATCH",
        f"{V4}/alarm/{alarm.id}",
        json=steps,
        headers={"Content-Type": "application/json-patch+json"},
    )
    made = await gateway.ask("POST", f"{V4}/alarm", json={**BODY, "flapping": True})

    assert (answer.status_code, answer.json()["message"]) == (400, "cannot be changed: flapping")
    assert made.status_code == 400 or "flapping" not in made.json()


async def test_people_clear_in_their_own_name(gateway: Gateway) -> None:
    """Not in that of the device: its clears are what an alarm is seen to flap by."""
    alarm = await reported(gateway)
    over = {"state": "cleared", "alarmClearedTime": "2026-02-20T10:00:00Z"}

    forged = await patched(gateway, V4, alarm, {**over, "clearSystemId": "pe1"})
    own = await patched(gateway, V4, alarm, {**over, "clearSystemId": "oss-1", "clearUserId": "mara"})
    later = await patched(gateway, V4, alarm, {"alarmClearedTime": "2026-02-20T11:00:00Z"})
    after = await patched(gateway, V4, alarm, {"clearSystemId": "pe1"})

    assert (forged.status_code, own.status_code, later.status_code, after.status_code) == (409, 200, 200, 409)
    assert forged.json()["message"].startswith("alarmClearedTime, clearSystemId of alarm")


async def test_when_the_device_cleared_it_is_the_devices_to_say(gateway: Gateway) -> None:
    at = {"state": "cleared", "perceivedSeverity": "cleared", "alarmClearedTime": "2026-02-20T10:00:00Z"}
    alarm = await reported(gateway)
    cleared = await gateway.built.resources.change(ALARM, alarm, {**at, "clearSystemId": "pe1"})

    answer = await patched(gateway, V4, cleared, {"alarmClearedTime": "2026-02-20T11:00:00Z"})

    assert answer.status_code == 409
    assert answer.json()["message"].startswith("alarmClearedTime of alarm")


async def test_what_people_say_of_it_is_theirs(gateway: Gateway) -> None:
    alarm = await reported(gateway)
    said = {"perceivedSeverity": "critical", "ackState": "acknowledged", "plannedOutageIndicator": "notPlanned"}

    answer = await patched(gateway, V4, alarm, said)
    deleted = await gateway.ask("DELETE", f"{V4}/alarm/{alarm.id}")

    assert (answer.status_code, deleted.status_code) == (200, 204), answer.text


async def test_an_alarm_of_a_clients_own_is_its_to_correct(gateway: Gateway) -> None:
    made = await gateway.ask("POST", f"{V4}/alarm", json=without_count())
    path = f"{V4}/alarm/{made.json()['id']}"

    answer = await gateway.ask("PATCH", path, json={"alarmedObject": {"id": "pe2"}, "clearSystemId": "pe1"})

    assert (made.status_code, answer.status_code) == (201, 200), answer.text


def without_count() -> dict[str, Any]:
    return {name: value for name, value in BODY.items() if name != "raisedCount"}
