"""TMF622 Product Ordering v4."""

from __future__ import annotations

from typing import Any

from convergedon.core.errors import Conflict
from convergedon.core.lifecycle import LIFECYCLES
from convergedon.handlers.resource import Api, Body, Resource, now


def _new_order(body: Body) -> dict[str, Any]:
    """Accepted orders begin acknowledged, with all their items; relatedParty is mandatory in every answer."""
    items = [{**item, "state": "acknowledged"} for item in body["productOrderItem"]]
    return {
        "orderDate": now(),
        "state": "acknowledged",
        "productOrderItem": items,
        "relatedParty": body.get("relatedParty", []),
    }


def _guard(before: Body, after: Body | None) -> None:
    """An order's state and items follow the work on it: who sets them would contradict the network."""
    if after is None:
        if before["state"] == "inProgress":
            raise Conflict("an order in progress cannot be deleted: the network is at work on it")
        return
    for member in ("state", "productOrderItem"):
        if before[member] != after.get(member):
            raise Conflict(f"{member} follows the work on the order and cannot be set")


PRODUCT_ORDER = Resource(
    "productOrder",
    "ProductOrder",
    new=_new_order,
    lifecycle=LIFECYCLES["productOrder"],
    guard=_guard,
    changed=lambda body: {"relatedParty": body.get("relatedParty", [])},
    swept=("facts.due",),
    indexes=("body.state", "body.externalId", "body.orderDate"),
)

CANCEL_PRODUCT_ORDER = Resource(
    "cancelProductOrder",
    "CancelProductOrder",
    new=lambda _: {"state": "acknowledged"},
    lifecycle=LIFECYCLES["task"],
    indexes=("body.state", "body.productOrder.id"),
)

API = Api(
    "TMF622-ProductOrdering-v4",
    "/tmf-api/productOrderingManagement/v4",
    (PRODUCT_ORDER, CANCEL_PRODUCT_ORDER),
)
