"""TMF642 v4 and v5 over the same alarms and tasks, through the gateway."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Gateway
from contract import check

from convergedon import openapi
from convergedon.handlers import hub
from convergedon.handlers.alarms import ALARM, TASKS
from convergedon.handlers.alarms import API as V4
from convergedon.handlers.alarms_v5 import API as V5
from convergedon.handlers.resource import Api

ODD = {"alarmType": "of our own", "perceivedSeverity": "bad", "plannedOutageIndicator": "no", "alarmedObject": {}}


def example(api: Api, path: str = "/alarm") -> dict[str, Any]:
    media = openapi.document(api.document)["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    return dict(media["example"])


async def raised(gateway: Gateway, api: Api, **changed: Any) -> str:
    answer = await gateway.ask("POST", f"{api.base}/alarm", json={**example(api), **changed})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def read(gateway: Gateway, api: Api, path: str) -> dict[str, Any]:
    answer = await gateway.ask("GET", f"{api.base}/{path}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_an_alarm_of_either_version_is_there_in_both(gateway: Gateway) -> None:
    place = {"role": "installation address", "id": "berlin-1", "name": "Berlin office"}
    for api, given in ((V4, {"place": [place]}), (V5, {})):
        id = await raised(gateway, api, **given)
        fourth, fifth = await read(gateway, V4, f"alarm/{id}"), await read(gateway, V5, f"alarm/{id}")

        assert fourth["place"] == [place]
        assert fifth["place"][0]["relatedPlace"] == {"@type": "Place", "id": "berlin-1", "name": "Berlin office"}
        assert fourth["alarmedObject"] == {"id": "pe1/ge-0/0/1"}
        assert fifth["alarmedObject"] == {"@type": "AlarmedObjectRef", "id": "pe1/ge-0/0/1"}
        assert fifth["comment"][0]["@type"] == "Comment"
        assert fourth["href"].replace("/v4/", "/v5/") == fifth["href"]


async def test_what_version_4_said_in_its_own_words_is_shown_and_stays(gateway: Gateway) -> None:
    """Also when version 5 changes another member; it can only say its own words itself."""
    id = await raised(gateway, V4, **ODD)
    shown = await read(gateway, V5, f"alarm/{id}")
    assert {name: shown[name] for name in ODD} == {**ODD, "alarmedObject": {"@type": "AlarmedObjectRef"}}

    changed = await gateway.ask("PATCH", f"{V5.base}/alarm/{id}", json={"ackState": "acknowledged"})

    assert (changed.status_code, changed.json()["ackState"]) == (200, "acknowledged")
    kept = await read(gateway, V4, f"alarm/{id}")
    assert {name: kept[name] for name in ODD} == ODD


@pytest.mark.parametrize("name", ["alarmType", "perceivedSeverity", "plannedOutageIndicator", "state", "ackState"])
async def test_version_5_takes_its_own_words_only(gateway: Gateway, name: str) -> None:
    id = await raised(gateway, V5)

    refused = [
        await gateway.ask("POST", f"{V5.base}/alarm", json={**example(V5), name: "else"}),
        await gateway.ask("PATCH", f"{V5.base}/alarm/{id}", json={name: "else"}),
    ]

    assert [(answer.status_code, name in answer.json()["message"]) for answer in refused] == [(400, True)] * 2


@pytest.mark.parametrize("name", ["alarmRaisedTime", "sourceSystemId"])
async def test_when_and_where_an_alarm_began_is_not_changed(gateway: Gateway, name: str) -> None:
    id = await raised(gateway, V5)
    value = "2026-02-20T09:00:00Z"

    answer = await gateway.ask("PATCH", f"{V5.base}/alarm/{id}", json={name: value})

    assert (answer.status_code, answer.json()["message"]) == (400, f"cannot be changed: {name}")


@pytest.mark.parametrize(
    "asked",
    [
        {"place.relatedPlace.id": "berlin-2"},
        {"alarmedObject.id": "other"},
        {"filter": "$[?(@.place[?(@.relatedPlace.id=='berlin-2' && @.role=='site')])]"},
        {"alarmRaisedTime.gt": "2027-01-01T00:00:00Z"},
    ],
)
async def test_filters_are_in_the_words_of_version_5(gateway: Gateway, asked: dict[str, str]) -> None:
    await raised(gateway, V5)
    place = {"role": "site", "relatedPlace": {"id": "berlin-2"}}
    began = "2027-02-20T09:31:04Z"
    wanted = await raised(gateway, V5, place=[place], alarmedObject={"id": "other"}, alarmRaisedTime=began)

    answer = await gateway.ask("GET", f"{V5.base}/alarm", params=asked)

    assert [one["id"] for one in answer.json()] == [wanted], answer.text


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
async def test_a_task_is_the_same_by_either_name(gateway: Gateway, task: Any) -> None:
    """Found and read in both versions, told in both, and at an address of its own in each."""
    word = V5.word(task.name)
    assert word == task.name.removesuffix("s")
    asked = [(V4, f"{V4.base}/{task.name}"), (V5, f"{V5.base}/{word}")]
    ids = []
    for api, path in asked:
        answer = await gateway.ask("POST", path, json=example(api, f"/{api.word(task.name)}"))
        assert answer.status_code == 201, answer.text
        ids.append(answer.json()["id"])
        assert answer.headers["location"] == answer.json()["href"]
        assert answer.json()["href"].endswith(f"{path}/{ids[-1]}")

    for api, path in asked:
        found = await gateway.ask("GET", path, params={"limit": "1"})
        assert found.headers["x-total-count"] == "2"
        assert f"{path}?" in found.headers["link"]
        events = await gateway.events(api.base)
        assert [event["eventType"] for event in events] == [f"{api.schema(task)}CreateEvent"] * 2
        for event, id in zip(events, ids, strict=True):
            check(api, event["eventType"], event)
            assert event["event"][api.word(task.name)]["href"].endswith(f"{path}/{id}")
    assert (await gateway.ask("GET", f"{V5.base}/{task.name}/{ids[0]}")).status_code == 404


async def test_what_alarms_a_task_is_about_can_be_said_to_a_listener(gateway: Gateway) -> None:
    """In the names of the version alone: version 4's are not known in version 5."""
    hub.check_query(V5, "event.ackAlarm.ackUserId=mara&eventType=AckAlarmCreateEvent")
    body = {"callback": "http://127.0.0.1:9/events", "query": "event.ackAlarm.nothing=1"}

    answer = await gateway.ask("POST", f"{V5.base}/hub", json=body)

    assert answer.status_code == 400, answer.text


async def test_a_customer_sees_its_own_services_alone_in_version_5_too(gateway: Gateway) -> None:
    """Nothing that is kept beside the alarm shows what the others have, either."""
    bare = {"href": "urn:of-contoso", "@baseType": "Service"}
    body = {**example(V5), "affectedService": [{"id": "ours"}, {"id": "theirs"}]}
    kept, beyond = V5.translation("alarm").inward(body)
    difference = {**beyond, "affectedService": {"each": [{"is": bare, "at": 1}]}}
    facts = {"parties": ["northwind"], "touches": {"northwind": [{"id": "ours"}]}, "beyond": difference}
    record = await gateway.built.resources.create(ALARM, gateway.tenant, kept, facts)

    customer = gateway.token("customer", party="northwind")
    answer = await gateway.ask("GET", f"{V5.base}/alarm/{record.id}", headers=customer)

    assert answer.json()["affectedService"] == [{"@type": "ServiceRef", "id": "ours"}]
