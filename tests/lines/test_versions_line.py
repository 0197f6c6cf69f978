"""The order line with two versions of TMF622: drafts, and listeners of each version to one order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scene import BERLIN, Scene, in_memory, item, listening

from convergedon.core.policy import Subject
from convergedon.core.store import Record
from convergedon.handlers import documents, hub
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
