"""The lines with two versions of an API: drafts, a task of version 5 on alarms of version 4, listeners of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scene import BERLIN, Scene, in_memory, item, listening

from convergedon.core.policy import Subject
from convergedon.core.store import Record
from convergedon.handlers import alarms, alarms_v5, documents, hub
from convergedon.handlers.product_ordering import API as V4
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.handlers.product_ordering_v5 import API as V5
from convergedon.handlers.resource import Api
from convergedon.handlers.versions import BEYOND

DESK = Subject("desk", "acme", ("admin",))


async def order(scene: Scene, **more: Any) -> Record:
    """An order as version 5 takes it."""
    party = {"role": "customer", "partyOrPartyRole": {"id": "northwind", "@type": "PartyRef"}}
    kept, beyond = V5.translation("productOrder").inward(
        {"productOrderItem": [item(**BERLIN)], "relatedParty": [party], **more}
    )
    return await scene.resources.create(PRODUCT_ORDER, "acme", kept, {BEYOND: beyond})


async def test_a_draft_is_begun_when_it_is_acknowledged(tmp_path: Path) -> None:
    """Before that no device hears of it, whatever else is changed of it; afterwards it is an order like any other."""
    async with in_memory(tmp_path) as scene:
        draft = await order(scene, requestedInitialState="draft")
        draft = await scene.resources.change(PRODUCT_ORDER, draft, {"description": "wait"})
        await scene.settled()
        assert scene.network.services == {}
        assert (await scene.store.get("productOrder", "acme", draft.id)).body["state"] == "draft"

        await scene.resources.change(PRODUCT_ORDER, draft, {"state": "acknowledged"})

        assert (await scene.ended(draft.id))["state"] == "completed"
        assert scene.network.services == {"pe1": [{"bandwidth": 100, "vlan": 10}]}


async def test_an_order_of_version_5_is_completed_and_reads_back_whole(tmp_path: Path) -> None:
    """What only that version can say stays, though the line itself has written the order meanwhile."""
    milestone = {"@type": "ProductOrderMilestone", "id": "1", "status": "Yet-To-Reach"}
    note = {"@type": "Note", "text": "of the item"}
    async with in_memory(tmp_path) as scene:
        taken = await order(
            scene, productOrderMilestone=[milestone], productOrderItem=[{**item(**BERLIN), "note": [note]}]
        )
        await scene.ended(taken.id)

        shown = scene.resources.present(await scene.store.get("productOrder", "acme", taken.id), "", V5)
        assert (shown["state"], shown["productOrderMilestone"]) == ("completed", [milestone])
        assert shown["productOrderItem"][0]["note"] == [note]
        assert shown["productOrderItem"][0]["product"]["id"] == f"{taken.id}-1"
        documents.schema(V5.document, "ProductOrder").check(shown)


async def listen(scene: Scene, api: Api, url: str, query: str = "") -> None:
    await hub.register(scene.store, hub.subscription(api, DESK, {"callback": url, "query": query}))


async def test_what_went_wrong_is_an_event_of_version_5(tmp_path: Path) -> None:
    """It says so in the network's words, there and in the order; version 4 has notes and hears of no such event."""
    async with in_memory(tmp_path) as scene, listening() as listener:
        scene.network.refusing["pe1"] = "port pe1:1 has no bandwidth left"
        await listen(scene, V4, listener.url("fourth"))
        await listen(scene, V5, listener.url("fifth"))
        taken = await order(scene)
        await scene.ended(taken.id)

        async def heard() -> bool:
            last = [[event["eventType"] for event in listener.of(who)][-1:] for who in ("fourth", "fifth")]
            return last == [["ProductOrderStateChangeEvent"], ["ProductOrderErrorMessageEvent"]]

        await scene.settled()
        await scene.until(heard)

    told = listener.of("fifth")[-1]
    assert "no bandwidth left" in told["description"]
    (error,) = told["event"]["productOrder"]["productOrderErrorMessage"]
    assert "no bandwidth left" in error["message"]
    documents.schema(V5.document, "ProductOrderErrorMessageEvent").check(told)
    assert listener.of("fourth")[-1]["event"]["productOrder"]["state"] == "failed"
    assert "productOrderErrorMessage" not in listener.of("fourth")[-1]["event"]["productOrder"]


async def test_listeners_of_both_versions_hear_one_order(tmp_path: Path) -> None:
    """The same events with the same ids, each in the form of the version at which its listener is registered."""

    def ids(events: list[Mapping[str, Any]]) -> list[str]:
        return [event["eventId"] for event in events]

    async with in_memory(tmp_path) as scene, listening() as listener:
        await listen(scene, V4, listener.url("fourth"))
        await listen(scene, V5, listener.url("fifth"))
        await listen(scene, V5, listener.url("some"), "event.productOrder.relatedParty.partyOrPartyRole.id=contoso")
        taken = await order(scene)
        await scene.ended(taken.id)

        async def heard() -> bool:
            return listener.of("fifth")[-1:] != [] and ids(listener.of("fourth")) == ids(listener.of("fifth"))

        await scene.settled()
        await scene.until(heard)

    for api, who in ((V4, "fourth"), (V5, "fifth")):
        for event in listener.of(who):
            documents.schema(api.document, event["eventType"]).check(event)
            assert event["event"]["productOrder"]["href"].endswith(f"{api.base}/productOrder/{taken.id}")
    assert listener.of("fifth")[-1]["event"]["productOrder"]["state"] == "completed"
    assert listener.of("some") == []


async def test_a_task_of_version_5_acknowledges_alarms_of_version_4(tmp_path: Path) -> None:
    """What came of it is seen in both versions, and told to the listeners of each in their own words."""
    fourth, fifth = alarms.API, alarms_v5.API
    raised = {
        "alarmType": "a word of version 4",
        "perceivedSeverity": "major",
        "probableCause": "lossOfSignal",
        "alarmedObject": {"id": "pe1/ge-1"},
        "state": "raised",
        "alarmRaisedTime": "2026-02-20T09:31:04.220Z",
    }
    said = {
        "@type": "AckAlarm",
        "ackUserId": "mara",
        "ackSystemId": "desk",
        "alarmPattern": [
            {"@type": "Alarm", "sourceSystemId": "pe1"},
            {"@type": "AlarmRef", "id": "c", "name": "of pe2"},
        ],
    }
    async with in_memory(tmp_path) as scene, listening() as listener:
        for api, who in ((fourth, "fourth"), (fifth, "fifth")):
            await hub.register(scene.store, hub.subscription(api, DESK, {"callback": listener.url(who)}))
        only = {"callback": listener.url("only"), "query": "eventType=AckAlarmStateChangeEvent"}
        await hub.register(scene.store, hub.subscription(fifth, DESK, only))
        for id, source in (("a", "pe1"), ("b", "pe1"), ("c", "pe2"), ("d", "pe2")):
            await scene.resources.create(alarms.ALARM, "acme", {**raised, "sourceSystemId": source}, id=id)
        kept, beyond = fifth.translation("ackAlarms").inward(said)
        facts = {"owner": DESK.document} | ({BEYOND: beyond} if beyond else {})
        task = await scene.resources.create(alarms.ACK_ALARMS, "acme", kept, facts)

        async def done() -> bool:
            return (await scene.store.get("ackAlarms", "acme", task.id)).body["state"] == "done"

        async def heard() -> bool:
            ids = [[event["eventId"] for event in listener.of(who)] for who in ("fourth", "fifth")]
            return len(listener.of("only")) == 2 and sorted(ids[0]) == sorted(ids[1])

        await scene.until(done)
        await scene.settled()
        await scene.until(heard)
        ended = await scene.store.get("ackAlarms", "acme", task.id)
        for api, type_ in ((fourth, {}), (fifth, {"@type": "AlarmRef"})):
            shown = scene.resources.present(ended, "", api)
            documents.schema(api.document, api.schema(alarms.ACK_ALARMS)).check(shown)
            assert shown["href"] == f"{api.base}/{api.word('ackAlarms')}/{task.id}"
            assert sorted(one["id"] for one in shown["ackedAlarm"]) == ["a", "b", "c"]
            assert all(type_.items() <= one.items() for one in shown["ackedAlarm"])
            found = [scene.resources.present(await scene.store.get("alarm", "acme", id), "", api) for id in "abcd"]
            assert [alarm["ackState"] for alarm in found] == [*["acknowledged"] * 3, "unacknowledged"]
            assert {alarm["alarmType"] for alarm in found} == {"a word of version 4"}

    for api, who in ((fourth, "fourth"), (fifth, "fifth")):
        for event in listener.of(who):
            documents.schema(api.document, event["eventType"]).check(event)
    assert {event["eventType"] for event in listener.of("fifth")} == {
        "AlarmCreateEvent",
        "AlarmAttributeValueChangeEvent",
        "AckAlarmCreateEvent",
        "AckAlarmStateChangeEvent",
    }
    last = listener.of("only")[-1]
    assert last["event"]["ackAlarm"]["state"] == "done"
    assert last["source"]["@referredType"] == last["event"]["ackAlarm"]["@type"] == "AckAlarm"
    assert last["href"].endswith(f"{fifth.base}/ackAlarm/{task.id}")
