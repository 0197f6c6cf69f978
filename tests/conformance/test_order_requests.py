"""Orders over HTTP: what a client may change in which state, and the cancel task as clients meet it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Gateway
from test_against_official import FOLDER

from convergedon.core.store import Record
from convergedon.handlers.product_ordering import CANCEL_PRODUCT_ORDER, PRODUCT_ORDER, items

ORDERS = "/tmf-api/productOrderingManagement/v4/productOrder"
CANCELS = "/tmf-api/productOrderingManagement/v4/cancelProductOrder"
SAMPLE = Path(FOLDER) / "samples" / "TMF622_Product_Ordering" / "CancelProductOrder.example.json"


async def placed(gateway: Gateway, *states: str) -> Record:
    """An order that has gone through these states."""
    nested = {"id": "1", "action": "add", "productOrderItem": [{"id": "2", "action": "add"}]}
    record = await gateway.built.resources.create(PRODUCT_ORDER, gateway.tenant, {"productOrderItem": [nested]})
    for state in states:
        record = await gateway.built.resources.change(PRODUCT_ORDER, record, {"state": state})
    return record


def conflict(answer: Any) -> str:
    assert (answer.status_code, answer.json()["code"]) == (409, "ERR409")
    return str(answer.json()["message"])


async def test_a_move_that_is_not_in_the_table_is_refused(gateway: Gateway) -> None:
    """409, naming from, to and what is allowed; nothing is changed."""
    order = await placed(gateway, "inProgress")
    words = conflict(await gateway.ask("PATCH", f"{ORDERS}/{order.id}", json={"state": "acknowledged"}))

    assert words.startswith("state cannot move from inProgress to acknowledged; allowed: pending, held, assessing")
    assert (await gateway.ask("GET", f"{ORDERS}/{order.id}")).json()["state"] == "inProgress"


@pytest.mark.parametrize("state", ["completed", "assessingCancellation", "held"])
async def test_a_move_that_only_work_makes_is_refused(gateway: Gateway, state: str) -> None:
    """409, saying so, and naming the task that cancels."""
    order = await placed(gateway, "inProgress")
    words = conflict(await gateway.ask("PATCH", f"{ORDERS}/{order.id}", json={"state": state}))

    assert f"from inProgress to {state} by the gateway's work only" in words
    assert "cancelProductOrder" in words


@pytest.mark.parametrize(
    "type_", ["application/json", "application/merge-patch+json", "application/json-patch+json"], ids=lambda t: t[12:]
)
async def test_a_client_cancels_an_order_that_waits(gateway: Gateway, type_: str) -> None:
    """Order and items are cancelled, with date and reason, and one StateChangeEvent tells of it."""
    order = await placed(gateway, "pending")
    asked: Any = {"state": "cancelled", "cancellationReason": "not needed"}
    if "json-patch" in type_:
        asked = [{"op": "add", "path": f"/{name}", "value": value} for name, value in asked.items()]
    headers = gateway.token("csr") | {"content-type": type_}
    answer = await gateway.ask("PATCH", f"{ORDERS}/{order.id}", content=json.dumps(asked), headers=headers)

    body = answer.json()
    assert (answer.status_code, body["state"], body["cancellationReason"]) == (200, "cancelled", "not needed")
    assert body["cancellationDate"].endswith("Z")
    assert {item["state"] for item in items(body)} == {"cancelled"}
    told = [one["eventType"] for one in await gateway.events() if one.get("id") == order.id]
    assert told[1:] == ["ProductOrderStateChangeEvent"] * 2


async def test_what_is_missing_can_be_supplied_while_the_order_waits(gateway: Gateway) -> None:
    """The items may be replaced then, and only then; their states stay the gateway's."""
    order = await placed(gateway)
    fresh = {"productOrderItem": [{"id": "7", "action": "add"}]}
    assert "productOrderItem" in conflict(await gateway.ask("PATCH", f"{ORDERS}/{order.id}", json=fresh))
    await gateway.built.resources.change(PRODUCT_ORDER, order, {"state": "pending"})

    answer = await gateway.ask("PATCH", f"{ORDERS}/{order.id}", json=fresh)
    assert (answer.status_code, answer.json()["productOrderItem"]) == (
        200,
        [{"id": "7", "action": "add", "state": "pending"}],
    )
    fresh["productOrderItem"][0]["state"] = "completed"
    assert "item 7: its state follows" in conflict(await gateway.ask("PATCH", f"{ORDERS}/{order.id}", json=fresh))


async def test_an_order_that_has_ended_takes_notes_only(gateway: Gateway) -> None:
    """And may be removed, which one in progress may not."""
    order = await placed(gateway, "inProgress")
    assert "cannot be deleted" in conflict(await gateway.ask("DELETE", f"{ORDERS}/{order.id}"))
    await gateway.built.resources.change(PRODUCT_ORDER, order, {"state": "failed"})

    assert "priority of an order that is failed" in conflict(
        await gateway.ask("PATCH", f"{ORDERS}/{order.id}", json={"priority": "1"})
    )
    note = {"note": [{"text": "told the customer"}], "externalId": "x-1"}
    assert (await gateway.ask("PATCH", f"{ORDERS}/{order.id}", json=note)).status_code == 200
    assert (await gateway.ask("DELETE", f"{ORDERS}/{order.id}")).status_code == 204


async def test_a_cancel_task_is_taken_whatever_it_names(gateway: Gateway) -> None:
    """201 with a Location, acknowledged; what becomes of it is the worker's. The official sample is taken, too."""
    asked = {"productOrder": {"id": "45f-98f-ss45"}, "cancellationReason": "Duplicate order"}
    if SAMPLE.exists():
        asked = json.loads(SAMPLE.read_text())
    answer = await gateway.ask("POST", CANCELS, json=asked, headers=gateway.token("csr"))

    task = answer.json()
    assert (answer.status_code, task["state"]) == (201, "acknowledged")
    assert answer.headers["location"] == task["href"]
    assert "effectiveCancellationDate" not in task
    assert (await gateway.ask("GET", f"{CANCELS}/{task['id']}")).json() == task
    for method in ("PATCH", "DELETE"):
        assert (await gateway.ask(method, f"{CANCELS}/{task['id']}", json={})).status_code == 405
    (told,) = await gateway.events()
    assert (told["eventType"], told["id"]) == (f"{CANCEL_PRODUCT_ORDER.schema}CreateEvent", task["id"])
