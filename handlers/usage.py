"""TMF635 Usage Management v4."""

from __future__ import annotations

from convergedon.core.lifecycle import LIFECYCLES
from convergedon.core.store import Kind
from convergedon.handlers.resource import Api, Resource, now

USAGE = Resource(
    "usage",
    "Usage",
    new=lambda body: {"status": "received", "usageDate": body.get("usageDate") or now()},
    lifecycle=LIFECYCLES["usage"],
    indexes=(
        "body.relatedParty.id",
        ("body.status", "facts.at.usageDate", "id"),
        ("facts.at.usageDate", "id"),
        "facts.bill",
        "facts.unbilled",
    ),
)
USAGE_SPECIFICATION = Resource(
    "usageSpecification",
    "UsageSpecification",
    new=lambda _: {"lastUpdate": now()},
    changed=lambda _: {"lastUpdate": now()},
)

API = Api("TMF635-Usage-v4", "/tmf-api/usageManagement/v4", (USAGE, USAGE_SPECIFICATION))

METERING = Kind("metering", ("facts.of",))
"""Intervals of which usage was made: up to where, and of which observations. For the usage line alone."""
