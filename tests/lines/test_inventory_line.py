"""The inventories say what the network has: the order line fills them, the other lines find what they need there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from faulty import FaultyStore
from scene import BERLIN, STORE_KINDS, Listener, Scene, item, listening, pumped, twice

from convergedon.core.memory import MemoryStore
from convergedon.core.policy import Subject
from convergedon.core.store import Record
from convergedon.handlers import hub, service_inventory
from convergedon.handlers.service_inventory import SERVICE
from convergedon.mediation import inventory, parts

NORTHWIND = [{"id": "northwind", "role": "customer", "@referredType": "Organization"}]
PROTECTED = {"offering": "protected-access", **BERLIN}


async def made(scene: Scene, **given: Any) -> str:
    """The id of the service that an order has made."""
    id = await scene.order(item(**(given or BERLIN)))
    assert (await scene.ended(id))["state"] == "completed"
    return f"{id}-1"


async def service(scene: Scene, id: str) -> Mapping[str, Any]:
    return (await scene.store.get("service", "acme", id)).body


async def led_to(scene: Scene, reference: Mapping[str, Any]) -> Record:
    """What a reference leads to, by its href alone."""
    kind, _, id = reference["href"].rpartition("/")
    kind = kind.rpartition("/")[2]
    assert reference["href"] == scene.resources.href(kind, id)
    assert reference["id"] == id
    return await scene.store.get(kind, "acme", id)


async def network(scene: Scene) -> dict[str, tuple[str, str]]:
    """name -> usage and status of all that is recorded of the network."""
    found = [*await scene.find("physicalResource"), *await scene.find("logicalResource")]
    return {record.body["name"]: (record.body["usageState"], record.body["resourceStatus"]) for record in found}


def told(scene: Scene, kind: str) -> list[tuple[str, str]]:
    """(what happened, id) for every event about a kind of resource, each event once."""
    said = [message.body for message in scene.bus.messages if message.subject.startswith("event.")]
    events = {body["event"]["eventId"]: body for body in said if body["kind"] == kind}
    named = kind[0].upper() + kind[1:]
    return [
        (body["event"]["eventType"].removeprefix(named).removesuffix("Event"), body["id"]) for body in events.values()
    ]


async def test_an_order_fills_both_inventories(scene: Scene) -> None:
    """What was ordered, by which item and for whom; all that it stands on is where its references lead."""
    id = await made(scene)
    await scene.settled()
    body = await service(scene, id)

    assert (body["state"], body["hasStarted"], body["isServiceEnabled"]) == ("active", True, True)
    assert (body["serviceSpecification"]["id"], body["serviceType"]) == ("access", "access")
    assert {"name": "vlan", "value": 10} in body["serviceCharacteristic"]
    assert body["relatedParty"] == NORTHWIND
    (asked,) = body["serviceOrderItem"]
    assert (asked["itemId"], asked["itemAction"], asked["@referredType"]) == ("1", "add", "ProductOrder")
    order = await led_to(scene, {"id": asked["serviceOrderId"], "href": asked["serviceOrderHref"]})
    assert order.body["productOrderItem"][0]["product"]["id"] == id

    own, interface, device = [await led_to(scene, reference) for reference in body["supportingResource"]]
    assert (own.kind, interface.kind, device.kind) == ("logicalResource", "logicalResource", "physicalResource")
    assert (own.body["category"], interface.body["name"], device.body["name"]) == ("access", "pe1/ge-1", "pe1")
    assert {"name": "address", "value": "10.1.0.10"} in own.body["resourceCharacteristic"]
    for part, on, how in ((own, interface, "configuredOn"), (interface, device, "partOf")):
        (relation,) = part.body["resourceRelationship"]
        assert (relation["relationshipType"], await led_to(scene, relation)) == (how, on)
    assert set((await network(scene)).values()) == {("active", "available")}


async def test_a_fault_names_services_that_can_be_followed(scene: Scene) -> None:
    """In the alarm, for each who sees it, and in what the customer is told."""
    id = await made(scene)
    await scene.say("fault")

    async def heard() -> bool:
        return len(await scene.find("customerNotification")) == 2

    await scene.until(heard)
    (alarm,) = await scene.find("alarm")
    (note,) = [one for one in await scene.find("customerNotification") if "alarm" in one.body]
    for affected in (alarm.body["affectedService"], alarm.facts["touches"]["northwind"], note.body["service"]):
        (reference,) = affected
        assert (await led_to(scene, reference)).id == id


async def test_what_changes_moves_and_ends_a_service_shows_in_both(still: Scene) -> None:
    """Each item is named; a port that was left is idle, what was configured there is out of use."""
    id = await made(still)
    first = await service(still, id)
    for asked in (
        item("modify", product=id, bandwidth=200),
        item("modify", product=id, site="hamburg"),
        item("delete", product=id),
    ):
        await still.ended(await still.order(asked))
        if asked["action"] == "delete":
            break
        body = await service(still, id)
        assert [body[name] for name in ("state", "startDate")] == ["active", first["startDate"]]
    moved, ended = body, await service(still, id)

    assert {"name": "bandwidth", "value": 200} in moved["serviceCharacteristic"]
    assert [one["name"] for one in moved["supportingResource"]][1:] == ["pe2/ge-1", "pe2"]
    assert [one["itemAction"] for one in ended["serviceOrderItem"]] == ["add", "modify", "modify", "delete"]
    assert (ended["state"], ended["isServiceEnabled"], ended["supportingResource"]) == ("terminated", False, [])
    assert "endDate" in ended
    left, gone = ("idle", "available"), ("idle", "suspended")
    assert await network(still) == {
        "pe1": left,
        "pe1/ge-1": left,
        f"access of {id} on pe1/ge-1": gone,
        "pe2": left,
        "pe2/ge-1": left,
        f"access of {id} on pe2/ge-1": gone,
    }


async def test_a_port_is_in_use_as_long_as_any_service_is_on_it(still: Scene) -> None:
    """And then its record may be deleted, not before."""
    one, other = await made(still), await made(still, **BERLIN | {"vlan": 11})
    await still.ended(await still.order(item("delete", product=one)))
    assert (await network(still))["pe1/ge-1"] == ("active", "available")
    await still.ended(await still.order(item("delete", product=other)))
    assert (await network(still))["pe1/ge-1"] == ("idle", "available")
    await made(still, **BERLIN | {"vlan": 12})
    assert (await network(still))["pe1/ge-1"] == ("active", "available")


async def test_everything_that_happens_to_a_service_is_told_once(still: Scene) -> None:
    """However often a message comes: its beginning, its change, its end; a customer hears of its own."""
    async with listening() as listener:
        for who in ("northwind", "contoso"):
            await hears(still, listener, who)
        order = await still.order(item(**BERLIN))
        id = f"{order}-1"
        changed = await twice(still)
        for asked in (item("modify", product=id, bandwidth=200), item("delete", product=id)):
            await still.order(asked)
            changed += await twice(still)

        assert changed == []
        assert told(still, "service") == [("Create", id), ("AttributeValueChange", id), ("StateChange", id)]
        own = parts.id_of("acme", id, "loopback", "pe1", "access")
        assert [what for what, of in told(still, "logicalResource") if of == own] == [
            "Create",
            "AttributeValueChange",
            "StateChange",
        ]
        assert {event["eventType"] for event in listener.of("northwind")} == {
            "ServiceCreateEvent",
            "ServiceAttributeValueChangeEvent",
            "ServiceStateChangeEvent",
        }
        assert listener.of("contoso") == []


async def hears(scene: Scene, listener: Listener, who: str) -> None:
    subject = Subject(who, "acme", ("customer",), who)
    await hub.register(scene.store, hub.subscription(service_inventory.API, subject, {"callback": listener.url(who)}))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cut_at_any_write_leaves_the_same_inventory(tmp_path: Path, when: Any) -> None:
    """Of a service that was made, moved and ended, and of one that stays."""
    for at in range(1, 200):
        store = FaultyStore(MemoryStore(STORE_KINDS), 0, when)
        async with pumped(tmp_path, store) as scene:
            ids: list[str] = []
            written = 0
            for asked in (
                lambda _: item(**PROTECTED),
                lambda _: item(**PROTECTED | {"vlan": 11}),
                lambda ids: item("modify", "protected-access", product=ids[0], site="hamburg"),
                lambda ids: item("delete", product=ids[0]),
            ):
                store.fails_at = 0  # the gateway's own write is not the one that fails
                order = await scene.order(asked(ids))
                store.writes, store.fails_at = written, at
                assert (await scene.ended(order))["state"] == "completed", at
                written = store.writes
                ids.append(f"{order}-1")
            stays, gone = await service(scene, ids[1]), await service(scene, ids[0])

            assert (stays["state"], gone["state"]) == ("active", "terminated"), at
            found = await network(scene)
            assert {name for name, (usage, _) in found.items() if usage == "active"} == {
                "pe1",
                "pe1/ge-1",
                "pe2",
                f"access of {ids[1]} on pe1/ge-1",
                f"spare of {ids[1]} on pe2",
            }, at
            for reference in stays["supportingResource"]:
                await led_to(scene, reference)
            assert len(told(scene, "service")) == 4, at
            assert scene.bus.parked_ == []
        if written < at:
            break
    assert at > 20


async def test_an_end_that_is_taken_back_was_none(still: Scene) -> None:
    """The service and what it stands on are in use again; what a client said of it meanwhile stays."""
    id = await made(still)
    former = await still.store.get("service", "acme", id)
    await inventory.end(still.resources, "acme", id, ("o-7", {"id": "1", "action": "delete"}))
    ended = await still.store.get("service", "acme", id)
    await still.resources.change(SERVICE, ended, {"description": "in the basement"})
    assert ("idle", "suspended") in (await network(still)).values()

    for _ in range(2):
        await inventory.restore(still.resources, "acme", id, former.body, former.facts)

    assert await service(still, id) == {**former.body, "description": "in the basement"}
    assert set((await network(still)).values()) == {("active", "available")}


async def recorded(scene: Scene, **members: Any) -> str:
    """A service as a client records it over TMF638."""
    body = {"state": "active", "serviceSpecification": {"id": "voice"}, "relatedParty": NORTHWIND, **members}
    return (await scene.resources.create(SERVICE, "acme", body)).id


async def test_a_service_that_a_client_recorded_is_affected_by_what_it_stands_on(still: Scene) -> None:
    """Where it names a part of the network that we know; its customer is told, without an order."""
    await made(still, **BERLIN)
    interface = parts.id_of("acme", "pe1/ge-1")
    id = await recorded(still, supportingResource=[{"id": interface}])
    await recorded(still, supportingResource=[{"id": interface}], state="inactive")
    await recorded(still)
    await still.say("fault")
    await still.settled()

    (alarm,) = await still.find("alarm")
    assert id in {one["id"] for one in alarm.body["affectedService"]}
    assert len(alarm.body["affectedService"]) == 2
    (note,) = [one.body for one in await still.find("customerNotification") if "alarm" in one.body]
    assert f"{id} has been disturbed" in note["text"] or f"{id}," in note["text"]
    assert len(note["productOrder"]) == 1
    assert still.bus.parked_ == []


@pytest.mark.parametrize("action", ["modify", "delete"])
async def test_an_order_changes_only_what_an_order_made(still: Scene, action: str) -> None:
    """The network does not know what a client recorded."""
    id = await recorded(still)
    before = await service(still, id)
    order = await still.ended(await still.order(item(action, product=id)))

    assert order["state"] == "failed"
    assert "must name the id of an active product" in order["note"][0]["text"]
    assert await service(still, id) == before


async def of_the_former_version(scene: Scene, id: str) -> None:
    """Put a service into the form in which the order line kept it for itself."""
    record = await scene.store.get("service", "acme", id)
    body = {name: record.body[name] for name in ("name", "state", "serviceCharacteristic", "relatedParty")}
    facts = {name: record.facts[name] for name in ("order", "customers", "parties", "addresses", "present")}
    facts["objects"] = ["pe1/ge-1", "pe1"]
    await scene.store.replace(Record("service", id, "acme", body, facts, record.revision, record.unsent))
    for kind in ("logicalResource", "physicalResource"):
        for part in await scene.find(kind):
            await scene.store.delete(part)


async def test_services_of_the_former_version_are_found_changed_and_ended(scene: Scene) -> None:
    """A worker completes them when it starts: nobody is told of that, and it finds itself done."""
    id = await made(scene)
    await scene.settled()
    whole = await service(scene, id)
    await of_the_former_version(scene, id)
    await inventory.adopt(scene.resources)
    revision = (await scene.store.get("service", "acme", id)).revision
    await inventory.adopt(scene.resources)

    assert (await scene.store.get("service", "acme", id)).revision == revision
    dates = ("startDate", "serviceDate")
    assert await service(scene, id) == {name: value for name, value in whole.items() if name not in dates}
    assert [one.id for one in await inventory.on(scene.store, "acme", "pe1", "ge-1")] == [id]
    assert {*await inventory.at(scene.store, "acme", ["10.1.0.10", "10.1.0.11"])} == {"10.1.0.10"}
    order = await scene.ended(await scene.order(item("modify", product=id, bandwidth=300)))
    assert order["state"] == "completed"
    order = await scene.ended(await scene.order(item("delete", product=id)))
    assert order["state"] == "completed"
    assert (await service(scene, id))["state"] == "terminated"
    assert await inventory.on(scene.store, "acme", "pe1", "") == []


async def test_what_ended_under_the_former_version_stays_ended(still: Scene) -> None:
    """It is completed, and stands on nothing."""
    id = await made(still)
    await still.ended(await still.order(item("delete", product=id)))
    await of_the_former_version(still, id)
    await inventory.adopt(still.resources)

    body = await service(still, id)
    assert (body["state"], body["supportingResource"], body["isServiceEnabled"]) == ("terminated", [], False)
    assert await network(still) == {}
