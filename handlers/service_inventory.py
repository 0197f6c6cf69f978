"""TMF638 Service Inventory v4: the services that run on the network, and others that clients record.

The order line makes a service, changes it and ends it; a client describes it. While one that an order made runs, what
follows from orders (``FROM_ORDERS``) is changed by orders alone, and it is not deleted: a TMF622 order ends it.
"""

from __future__ import annotations

from convergedon.core.lifecycle import LIFECYCLES
from convergedon.handlers.resource import Api, Body, Resource

FROM_ORDERS = (
    "endDate",
    "hasStarted",
    "isServiceEnabled",
    "relatedParty",
    "serviceCharacteristic",
    "serviceOrderItem",
    "serviceSpecification",
    "serviceType",
    "startDate",
    "state",
    "supportingResource",
)


def _ours(facts: Body) -> tuple[str, ...]:
    """``standing`` is a service that an order made, from then until it ends."""
    return FROM_ORDERS if facts.get("standing") else ()


SERVICE = Resource(
    "service",
    "Service",
    lifecycle=LIFECYCLES["service"],
    indexes=("body.supportingResource.id", "facts.addresses", "body.state"),
    swept=("facts.objects",),  # those of the version that kept services for itself alone, until a worker completes them
    ours=_ours,
)

API = Api("TMF638-ServiceInventory-v4", "/tmf-api/serviceInventory/v4", (SERVICE,))
