"""TMF639 Resource Inventory v4: devices, interfaces, and what is configured on them.

The four states of a resource are independent of each other (X.731), so each has a lifecycle of its own; a move of any
is a StateChangeEvent. What the order line records of the network (fact ``standing``) keeps its name and its place in
it, and is not deleted while services stand on it; anything else of it clients may change, its states too.

``resource`` is for what is neither physical nor logical, a duct for example: each kind is found under its own path.
"""

from __future__ import annotations

from convergedon.core.lifecycle import LIFECYCLES
from convergedon.core.store import Kind
from convergedon.handlers.resource import Api, Body, Resource

STATES = tuple(LIFECYCLES[name] for name in ("administrativeState", "operationalState", "usageState", "resourceStatus"))
FROM_ORDERS = ("name", "resourceRelationship")


def _ours(facts: Body) -> tuple[str, ...]:
    return FROM_ORDERS if facts.get("standing") else ()


def _resource(name: str, schema: str) -> Resource:
    return Resource(name, schema, states=STATES, indexes=("body.name", "body.category", "facts.imported"), ours=_ours)


RESOURCE = _resource("resource", "Resource")
PHYSICAL_RESOURCE = _resource("physicalResource", "PhysicalResource")
LOGICAL_RESOURCE = _resource("logicalResource", "LogicalResource")

TOPOLOGY = Kind("topology")
"""One record for each tenant, whose revision says whether its links, groups and devices are still those one knows."""

API = Api(
    "TMF639-ResourceInventory-v4",
    "/tmf-api/resourceInventoryManagement/v4",
    (RESOURCE, PHYSICAL_RESOURCE, LOGICAL_RESOURCE),
)
