"""Who is affected by what, our extension: one resource for each customer and problem, while it lasts and after.

The worker writes it, and customers are told what it says; nobody writes it over REST.
"""

from __future__ import annotations

from collections.abc import Mapping

from convergedon.core.lifecycle import Lifecycle
from convergedon.handlers.resource import Api, Resource

ENDS = ("restored", "continued", "ended")
STATES: Mapping[str, tuple[str, ...]] = {"affected": ENDS, **dict.fromkeys(ENDS, ())}

AFFECTED_PARTY = Resource(
    "affectedParty",
    "AffectedParty",
    lifecycle=Lifecycle("status", ("affected",), STATES),
    indexes=(
        "facts.openAt",
        "facts.openOn",
        ("facts.openFor", "body.service.id"),
        "facts.problem",
        "body.alarm.id",
        "body.status",
    ),
    unique=("facts.openKey",),
)

API = Api("affected-party-v1", "/convergedon-api/affectedParty/v1", (AFFECTED_PARTY,))
