"""TMF622 Product Ordering v4."""

from __future__ import annotations

from typing import Any

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


PRODUCT_ORDER = Resource(
    "productOrder",
    "ProductOrder",
    new=_new_order,
    lifecycle=LIFECYCLES["productOrder"],
    indexes=("body.state", "body.externalId", "body.orderDate"),
)

API = Api("TMF622-ProductOrdering-v4", "/tmf-api/productOrderingManagement/v4", (PRODUCT_ORDER,))
