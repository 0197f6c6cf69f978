"""The order line: an order is completed when the network has confirmed it, and ends in words when it has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faulty import FaultyStore
from scene import BERLIN, HAMBURG, STORE_KINDS, Scene, item, pumped, twice

from convergedon.core.memory import MemoryStore
from convergedon.handlers.product_ordering import PRODUCT_ORDER, items


def states(order: dict[str, Any]) -> list[str]:
    return [one["state"] for one in order["productOrderItem"]]


def words(order: dict[str, Any]) -> str:
    return " ".join(note["text"] for note in order.get("note", []))


async def test_an_order_is_completed_when_the_device_has_it(scene: Scene) -> None:
    """The device has what was asked for, the item names its product, and the customer is told once."""
    id = await scene.order(item(**BERLIN))
    order = await scene.ended(id)

    assert (order["state"], states(order)) == ("completed", ["completed"])
    assert "completionDate" in order
    assert order["productOrderItem"][0]["product"]["id"] == f"{id}-1"
    assert scene.network.services == {"pe1": [{"bandwidth": 100, "vlan": 10}]}
    await scene.settled()
    (service,) = await scene.find("service")
    assert (service.id, service.body["state"], service.facts["addresses"]) == (f"{id}-1", "active", ["10.1.0.10"])
    (told,) = await scene.find("customerNotification")
    assert (told.body["notificationType"], told.facts["parties"]) == ("orderCompleted", ["northwind"])


async def test_a_refusal_of_the_device_ends_the_order_in_its_words(scene: Scene) -> None:
    """Nothing is left on the device, no service is kept, and the customer hears why."""
    scene.network.refusing["pe1"] = "vlan 10 is taken by Contoso's leased line"
    order = await scene.ended(await scene.order(item(**BERLIN)))

    assert (order["state"], states(order)) == ("failed", ["failed"])
    assert "vlan 10 is taken by Contoso's leased line" in words(order)
    assert "on pe1" in words(order)
    assert scene.network.services == {}
    await scene.settled()
    assert await scene.find("service") == []
    (told,) = await scene.find("customerNotification")
    assert told.body["notificationType"] == "orderFailed"
    assert "vlan 10 is taken" in told.body["text"]


async def test_what_changes_and_ends_a_service_reaches_the_device(scene: Scene) -> None:
    """A modify changes it in place, a move leaves nothing behind, a delete leaves nothing at all."""
    product = f"{await scene.order(item(**BERLIN))}-1"
    await scene.ended(product[:-2])

    order = await scene.ended(await scene.order(item("modify", product=product, bandwidth=200)))
    assert order["state"] == "completed"
    assert scene.network.services == {"pe1": [{"bandwidth": 200, "vlan": 10}]}
    order = await scene.ended(await scene.order(item("modify", product=product, site="hamburg")))
    assert order["state"] == "completed"
    assert scene.network.services == {"pe2": [{"bandwidth": 200, "vlan": 10}]}
    order = await scene.ended(await scene.order(item("delete", product=product)))
    assert (order["state"], order["productOrderItem"][0]["product"]["status"]) == ("completed", "terminated")
    assert scene.network.services == {}
    (service,) = await scene.find("service")
    assert service.body["state"] == "terminated"


async def test_a_second_refusal_undoes_the_first_half(scene: Scene) -> None:
    """An item that needs two devices is on both or on none."""
    scene.network.refusing["pe2"] = "no resources"
    order = await scene.ended(await scene.order(item(offering="protected-access", **BERLIN)))

    assert order["state"] == "failed"
    assert "no resources" in words(order)
    assert scene.network.services == {}
    assert {intent.device for intent in scene.network.performed if intent.values} == {"pe1", "pe2"}


async def test_a_change_that_fails_leaves_what_was_there(scene: Scene) -> None:
    """The half that was done is set back to the former values."""
    id = await scene.order(item(offering="protected-access", **BERLIN))
    await scene.ended(id)
    scene.network.refusing["pe2"] = "no resources"
    order = await scene.ended(await scene.order(item("modify", "protected-access", product=f"{id}-1", bandwidth=500)))

    assert order["state"] == "failed"
    assert scene.network.services == {"pe1": [{"bandwidth": 100, "vlan": 10}], "pe2": [{"bandwidth": 100}]}
    (service,) = await scene.find("service")
    assert {"name": "bandwidth", "value": 100} in service.body["serviceCharacteristic"]


async def test_an_order_of_which_a_part_fails_is_partial(still: Scene) -> None:
    """Each item says how it ended, and what was done stays."""
    still.network.refusing["pe2"] = "no resources"
    order = await still.ended(await still.order(item(**BERLIN), item(id="2", **HAMBURG)))

    assert (order["state"], states(order)) == ("partial", ["completed", "failed"])
    assert "item 2 on pe2: refused: no resources" in words(order)
    assert list(still.network.services) == ["pe1"]
    assert [service.id for service in await still.find("service")] == [
        order["productOrderItem"][0]["product"]["id"],
    ]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (item(offering="television", **BERLIN), "there is no product offering 'television'"),
        (item(**BERLIN | {"site": "paris"}), "site 'paris' is none of"),
        (item(**BERLIN | {"site": ["berlin"]}), "site ['berlin'] is none of"),
        (item(**BERLIN | {"vlan": 257}), "no address number 257"),
        (item("modify", product="nothing", bandwidth=5), "must name the id of an active product"),
        (item("delete", product="nothing"), "must name the id of an active product"),
    ],
)
async def test_what_cannot_be_planned_fails_in_words(still: Scene, asked: dict[str, Any], reason: str) -> None:
    """No device is asked, nothing is parked."""
    order = await still.ended(await still.order(asked))

    assert order["state"] == "failed"
    assert reason in words(order)
    assert still.network.performed == []
    assert await still.bus.parked() == []


async def test_a_policy_refuses_before_the_device_is_touched(still: Scene) -> None:
    """The contract holds for what the order line itself does, too."""
    order = await still.ended(await still.order(item(**BERLIN | {"bandwidth": 5001})))

    assert order["state"] == "failed"
    assert "bandwidth 5001 Mbit/s is above the 5000 Mbit/s of tenant acme's contract" in words(order)
    assert still.network.performed == []


async def test_items_with_one_id_are_refused(still: Scene) -> None:
    """Two items that cannot be told apart are not done as one."""
    order = await still.ended(await still.order(item(**BERLIN), item(**HAMBURG)))

    assert (order["state"], states(order)) == ("failed", ["failed", "failed"])
    assert still.network.services == {}


async def test_another_tenants_service_cannot_be_changed(still: Scene) -> None:
    """It is not there for others."""
    id = await still.order(item(**BERLIN))
    await still.ended(id)
    theirs = await still.order(item("delete", product=f"{id}-1"), tenant="globex")
    order = await still.ended(theirs, "globex")

    assert order["state"] == "failed"
    assert still.network.services == {"pe1": [{"bandwidth": 100, "vlan": 10}]}


async def test_a_change_that_names_nobody_keeps_the_customer(still: Scene) -> None:
    """Whoever has the service goes on hearing of it."""
    id = await still.order(item(**BERLIN))
    await still.ended(id)
    await still.ended(await still.order(item("modify", product=f"{id}-1", bandwidth=200), party=""))

    (service,) = await still.find("service")
    assert service.facts["customers"] == ["northwind"]
    assert service.facts["order"] == id


async def the_whole_life(scene: Scene) -> list[dict[str, Any]]:
    """One order of each kind, one after the other; returns how they ended."""
    first = await scene.order(item(offering="protected-access", **BERLIN))
    ends = [await scene.ended(first)]
    for asked in (
        item("modify", "protected-access", product=f"{first}-1", bandwidth=200),
        item("modify", "protected-access", product=f"{first}-1", site="hamburg"),
        item("noChange", product=f"{first}-1"),
        item("delete", product=f"{first}-1"),
    ):
        ends.append(await scene.ended(await scene.order(asked)))
    return ends


async def test_second_delivery_changes_nothing(still: Scene) -> None:
    """Every message of adding, changing, moving, failing and ending comes twice, and is done once."""
    first = await still.order(item(offering="protected-access", **BERLIN))
    changed = await twice(still)
    for asked in (
        item("modify", "protected-access", product=f"{first}-1", bandwidth=200),
        item("modify", "protected-access", product=f"{first}-1", site="hamburg"),
        item("delete", product=f"{first}-1"),
        item(offering="television"),
    ):
        await still.order(asked)
        changed += await twice(still)
    still.network.refusing["pe2"] = "no resources"
    await still.order(item(offering="protected-access", **BERLIN), item(id="2", **BERLIN | {"vlan": 11}))
    changed += await twice(still)

    assert changed == []
    keys = [intent.key for intent in still.network.performed]
    assert len(keys) == len(set(keys))
    assert await still.bus.parked() == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cut_at_any_write_changes_no_end(tmp_path: Path, when: Any) -> None:
    """Whichever write of the store fails, done or not, the same orders end the same."""
    for at in range(1, 200):
        store = FaultyStore(MemoryStore(STORE_KINDS), 0, when)
        async with pumped(tmp_path, store) as scene:
            first = await scene.order(item(offering="protected-access", **BERLIN))
            store.writes, store.fails_at = 0, at
            ends = [await scene.ended(first)]
            scene.network.refusing["pe2"] = "no resources"
            store.fails_at = 0 if store.writes >= at else at
            second = await _placed(scene, store, item("modify", "protected-access", product=f"{first}-1", bandwidth=9))
            ends.append(await scene.ended(second))
            passed = store.writes < at
            assert [end["state"] for end in ends] == ["completed", "failed"], at
            assert scene.network.services == {"pe1": [{"bandwidth": 100, "vlan": 10}], "pe2": [{"bandwidth": 100}]}, at
            told = [record.body["notificationType"] for record in await scene.find("customerNotification")]
            assert sorted(told) == ["orderCompleted", "orderFailed"], at
            assert scene.bus.parked_ == []
        if passed:
            break
    assert at > 8


async def _placed(scene: Scene, store: FaultyStore, asked: dict[str, Any]) -> str:
    """An order that was taken: the gateway's own write is not the one that fails."""
    at, writes, store.fails_at = store.fails_at, store.writes, 0
    id = await scene.order(asked)
    store.fails_at, store.writes = at, writes
    return id


async def patched(scene: Scene, id: str, **members: Any) -> None:
    """A PATCH as the gateway takes it."""
    order = await scene.store.get("productOrder", "acme", id)
    PRODUCT_ORDER.guard(order.body, {**order.body, **members})
    await scene.resources.change(PRODUCT_ORDER, order, members)


async def informed(scene: Scene) -> list[tuple[str, str]]:
    """fieldPath and words of what was asked of the orderer."""
    said = [event for event in await scene.bus.read("event.>") if "InformationRequired" in event["event"]["eventType"]]
    return [(one["event"]["fieldPath"], one["event"]["description"]) for one in said]


@pytest.mark.parametrize(
    ("asked", "path", "words"),
    [
        (
            item(bandwidth=100),
            "productOrderItem.product.productCharacteristic",
            "item 1: access needs the characteristics vlan, site",
        ),
        (item(offering="", **BERLIN), "productOrderItem.productOffering", "item 1: an add must name its product"),
        (item("delete"), "productOrderItem.product.id", "item 1: a delete must name the id of an active product"),
        (
            item()
            | {"productOffering": {"id": "bundle"}, "productOrderItem": [item(id="1.1", bandwidth=1, site="berlin")]},
            "productOrderItem.productOrderItem.product.productCharacteristic",
            "item 1.1: access needs the characteristic vlan",
        ),
    ],
    ids=["characteristics", "offering", "product", "of a part"],
)
async def test_an_order_that_lacks_something_waits_for_it(
    still: Scene, asked: dict[str, Any], path: str, words: str
) -> None:
    """It is pending with all its items, the orderer is told once what is missing, and no device is asked."""
    id = await still.order(asked, item(id="2", **HAMBURG))
    await still.pump()
    await patched(still, id, description="no help")
    await still.pump()

    order = (await still.store.get("productOrder", "acme", id)).body
    assert {order["state"], *(one["state"] for one in items(order))} == {"pending"}
    ((told, said),) = await informed(still)
    assert told == path
    assert said.startswith(words)
    assert still.network.performed == []
    assert await still.bus.parked() == []


async def test_an_order_goes_on_when_it_has_what_it_lacked(scene: Scene) -> None:
    """What is supplied bit by bit is asked for bit by bit; the whole order is then done."""
    id = await scene.order(item(bandwidth=100, site="berlin"), item(id="2", bandwidth=5, site="hamburg"))

    async def asked_for(number: int) -> bool:
        await scene.pump()
        return len(await informed(scene)) == number

    await scene.until(lambda: asked_for(1))
    await patched(scene, id, productOrderItem=[item(**BERLIN), item(id="2", bandwidth=5, site="hamburg")])
    await scene.until(lambda: asked_for(2))
    await patched(scene, id, productOrderItem=[item(**BERLIN), item(id="2", **HAMBURG)])

    async def completed() -> bool:
        return states((await scene.store.get("productOrder", "acme", id)).body) == ["completed", "completed"]

    await scene.pump()
    await scene.until(completed)
    paths, said = zip(*await informed(scene), strict=True)
    assert set(paths) == {"productOrderItem.product.productCharacteristic"}
    assert said == (
        "item 1: access needs the characteristic vlan; item 2: access needs the characteristic vlan",
        "item 2: access needs the characteristic vlan",
    )
    assert scene.network.services.keys() == {"pe1", "pe2"}


async def test_what_is_supplied_may_be_wrong(still: Scene) -> None:
    """Then the order fails as any other does."""
    id = await still.order(item(bandwidth=100, site="berlin"))
    await still.pump()
    await patched(still, id, productOrderItem=[item(**BERLIN | {"vlan": 301})])
    order = await still.ended(id)

    assert (order["state"], states(order)) == ("failed", ["failed"])
    assert "vlan must be between 1 and 300, not 301" in words(order)


def bundle(*parts: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {**item(id="b", **given), "productOffering": {"id": "bundle"}, "productOrderItem": list(parts)}


async def test_items_inside_an_item_are_done_like_any_other(still: Scene) -> None:
    """Each is planned and named; what only holds them together is completed with them."""
    id = await still.order(bundle(item(id="b.1", **BERLIN), bundle(item(id="b.2.1", **HAMBURG)) | {"id": "b.2"}))
    order = await still.ended(id)

    assert order["state"] == "completed"
    assert {one["id"]: one["state"] for one in items(order)} == dict.fromkeys(("b", "b.1", "b.2", "b.2.1"), "completed")
    assert still.network.services.keys() == {"pe1", "pe2"}
    named = {one["id"]: (one.get("product") or {}).get("id") for one in items(order)}
    assert named == {"b": None, "b.1": f"{id}-b.1", "b.2": None, "b.2.1": f"{id}-b.2.1"}
    assert [service.id for service in await still.find("service")] == [f"{id}-b.1", f"{id}-b.2.1"]


async def test_an_order_is_partial_when_a_part_of_an_item_failed(still: Scene) -> None:
    """At whatever depth: the item that holds the parts together has failed, what was done stays."""
    still.network.refusing["pe2"] = "no resources"
    order = await still.ended(await still.order(bundle(item(id="b.1", **BERLIN), item(id="b.2", **HAMBURG))))

    assert order["state"] == "partial"
    assert {one["id"]: one["state"] for one in items(order)} == {"b": "failed", "b.1": "completed", "b.2": "failed"}
    assert still.network.services.keys() == {"pe1"}


async def test_ids_of_items_are_their_own_at_every_depth(still: Scene) -> None:
    """A part that cannot be told from another item is refused."""
    order = await still.ended(await still.order(item(**BERLIN) | {"productOrderItem": [item(**HAMBURG)]}))

    assert order["state"] == "failed"
    assert "two items have the id 1" in words(order)
    assert still.network.services == {}
