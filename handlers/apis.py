"""Every API that is served. A new one is its document, its declaration module and one line here."""

from __future__ import annotations

from convergedon.core import audit
from convergedon.core.store import Kind
from convergedon.handlers import (
    affected_parties,
    alarms,
    alarms_v5,
    audit_records,
    customer_bills,
    customer_notifications,
    kpis,
    product_ordering,
    product_ordering_v5,
    remediation,
    resource_inventory,
    service_inventory,
    surveys,
    usage,
)
from convergedon.handlers.resource import HUB, Api

APIS: tuple[Api, ...] = (
    product_ordering.API,
    product_ordering_v5.API,
    alarms.API,
    alarms_v5.API,
    usage.API,
    customer_bills.API,
    service_inventory.API,
    resource_inventory.API,
    customer_notifications.API,
    remediation.API,
    affected_parties.API,
    audit_records.API,
    surveys.API,
    kpis.API,
)

_OURS = (*audit.KINDS, usage.METERING, customer_notifications.TELLING, customer_notifications.DISPATCH)
OWN = {kind.name: kind for kind in _OURS}
"""Kinds that are not written as resources are, whether or not they are served."""

KINDS: tuple[Kind, ...] = (
    HUB,
    resource_inventory.TOPOLOGY,
    *({resource.name: resource.kind for api in APIS for resource in api.resources} | OWN).values(),
)
