"""Services and resources over HTTP: what follows from orders is changed by orders, the rest by who describes it."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Gateway

from convergedon.core.store import Record
from convergedon.handlers.resource_inventory import LOGICAL_RESOURCE, STATES
from convergedon.handlers.service_inventory import FROM_ORDERS, SERVICE

SERVICES = "/tmf-api/serviceInventory/v4/service"
RESOURCES = "/tmf-api/resourceInventoryManagement/v4"
BODY = {
    "state": "active",
    "name": "Access",
    "serviceSpecification": {"id": "access"},
    "relatedParty": [{"id": "northwind", "role": "customer", "@referredType": "Organization"}],
}
OTHERWISE: dict[str, Any] = {
    "endDate": "2026-02-20T09:31:06Z",
    "hasStarted": False,
    "isServiceEnabled": False,
    "relatedParty": [],
    "serviceCharacteristic": [{"name": "bandwidth", "value": 9}],
    "serviceOrderItem": [],
    "serviceSpecification": {"id": "voice"},
    "serviceType": "voice",
    "startDate": "2026-02-20T09:31:06Z",
    "state": "terminated",
    "supportingResource": [{"id": "1"}],
}


async def ordered(gateway: Gateway) -> Record:
    """A service as the order line writes it."""
    return await gateway.built.resources.create(SERVICE, gateway.tenant, BODY, {"standing": True})


async def test_what_follows_from_orders_only_orders_change(gateway: Gateway) -> None:
    """409 for each such member, in words that say what to do; nothing is changed by it."""
    path = f"{SERVICES}/{(await ordered(gateway)).id}"
    before = (await gateway.ask("GET", path)).json()
    assert OTHERWISE.keys() == {*FROM_ORDERS}
    for name, value in OTHERWISE.items():
        answer = await gateway.ask("PATCH", path, json={name: value, "description": "x"})

        assert answer.status_code == 409, name
        assert f"{name} of service" in answer.json()["message"]
        assert "order the change" in answer.json()["message"]
    assert (await gateway.ask("GET", path)).json() == before


async def test_a_service_that_runs_is_described_but_not_deleted(gateway: Gateway) -> None:
    """What clients say of it is theirs; when an order has ended it, it may go."""
    record = await ordered(gateway)
    path, said = f"{SERVICES}/{record.id}", {"name": "Berlin office", "description": "first floor", "category": "RFS"}
    answer = await gateway.ask("PATCH", path, json=said)
    assert (answer.status_code, {name: answer.json()[name] for name in said}) == (200, said)
    answer = await gateway.ask("DELETE", path)
    assert (answer.status_code, "an order made it" in answer.json()["message"]) == (409, True)

    now = await gateway.built.store.get("service", gateway.tenant, record.id)
    await gateway.built.resources.change(SERVICE, now, {"state": "terminated"}, {"standing": None})
    assert (await gateway.ask("DELETE", path)).status_code == 204


async def test_a_service_that_a_client_recorded_is_the_clients(gateway: Gateway) -> None:
    """It moves as the lifecycle allows, and is deleted when it likes."""
    path = f"{SERVICES}/{(await gateway.ask('POST', SERVICES, json={**BODY, 'state': 'reserved'})).json()['id']}"
    for state, status in (("active", 200), ("designed", 409), ("inactive", 200), ("terminated", 200), ("active", 409)):
        answer = await gateway.ask("PATCH", path, json={"state": state})
        assert answer.status_code == status, (state, answer.text)
    types = [event["eventType"] for event in await gateway.events()]
    assert types == ["ServiceCreateEvent"] + 3 * ["ServiceStateChangeEvent"]
    assert (await gateway.ask("DELETE", path)).status_code == 204
    answer = await gateway.ask("POST", SERVICES, json={**BODY, "state": "terminated"})
    assert answer.status_code == 409


@pytest.mark.parametrize("kind", ["resource", "physicalResource", "logicalResource"])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.member)
async def test_each_state_of_a_resource_moves_by_itself(gateway: Gateway, kind: str, state: Any) -> None:
    """A move of any of the four is a StateChangeEvent; one that X.731 has not is refused; none is taken back."""
    path = f"{RESOURCES}/{kind}"
    first = next(iter(state.moves))
    path = f"{path}/{(await gateway.ask('POST', path, json={'name': 'pe9', state.member: first})).json()['id']}"
    for new in state.moves[first][:1]:
        assert (await gateway.ask("PATCH", path, json={state.member: new})).status_code == 200
    assert (await gateway.ask("PATCH", path, json={state.member: None})).status_code == 409
    assert (await gateway.ask("PATCH", path, json={"description": "spare"})).status_code == 200

    schema = kind[0].upper() + kind[1:]
    types = [event["eventType"].removeprefix(schema) for event in await gateway.events()]
    assert types == ["CreateEvent", "StateChangeEvent", "AttributeValueChangeEvent"]
    for old, allowed in state.moves.items():
        refused = state.moves.keys() - {old, *allowed}
        made = (await gateway.ask("POST", f"{RESOURCES}/{kind}", json={"name": "x", state.member: old})).json()
        for new in refused:
            answer = await gateway.ask("PATCH", f"{RESOURCES}/{kind}/{made['id']}", json={state.member: new})
            assert answer.status_code == 409, (old, new)


async def test_a_part_of_the_network_in_use_keeps_its_name_and_place(gateway: Gateway) -> None:
    """Its states and what is said of it may change; it is not deleted while services stand on it."""
    body = {"name": "pe1/ge-1", "usageState": "active"}
    record = await gateway.built.resources.create(LOGICAL_RESOURCE, gateway.tenant, body, {"standing": True})
    path = f"{RESOURCES}/logicalResource/{record.id}"

    for name, value in (("name", "pe1"), ("resourceRelationship", [{"id": "1"}])):
        assert (await gateway.ask("PATCH", path, json={name: value})).status_code == 409
    assert (await gateway.ask("DELETE", path)).status_code == 409
    noc = gateway.token("noc")
    answer = await gateway.ask("PATCH", path, headers=noc, json={"operationalState": "disable", "description": "x"})
    assert (answer.status_code, answer.json()["operationalState"]) == (200, "disable")


async def test_a_customer_reads_its_services_and_changes_nothing(gateway: Gateway) -> None:
    """Neither the services of others nor the network that they stand on."""
    mine = (await ordered(gateway)).id
    northwind, contoso = [gateway.token("customer", party=party) for party in ("northwind", "contoso")]

    assert [one["id"] for one in (await gateway.ask("GET", SERVICES, headers=northwind)).json()] == [mine]
    assert (await gateway.ask("GET", SERVICES, headers=contoso)).json() == []
    assert (await gateway.ask("GET", f"{SERVICES}/{mine}", headers=contoso)).status_code == 404
    assert (await gateway.ask("PATCH", f"{SERVICES}/{mine}", headers=northwind, json={})).status_code == 403
    assert (await gateway.ask("GET", f"{RESOURCES}/logicalResource", headers=northwind)).status_code == 403
