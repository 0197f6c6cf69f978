"""The button that stops all workflows: of one tenant, or of the whole installation."""

from __future__ import annotations

from uuid import uuid4

from convergedon.core.store import Record, Store
from convergedon.handlers.remediation import WORKFLOW_CONTROL
from convergedon.handlers.resource import now

EVERYONE = "*"
"""The tenant of what the operator of the installation decides, which no token names."""


async def stopped(store: Store, tenant: str) -> str:
    """Why workflows may do nothing now; empty when they may."""
    for whose in (EVERYONE, tenant):
        newest = await _newest(store, whose)
        if newest and newest.body["state"] == "stopped":
            return str(newest.body.get("reason") or "no reason was given")
    return ""


async def press(store: Store, state: str, reason: str) -> None:
    """Stop workflows of all tenants, or let them go on."""
    body = {"state": state, "time": now(), **({"reason": reason} if reason else {})}
    await store.create(Record(WORKFLOW_CONTROL.name, str(uuid4()), EVERYONE, body, {"parties": []}))


async def _newest(store: Store, tenant: str) -> Record | None:
    found = await store.find(WORKFLOW_CONTROL.name, {"tenant": tenant}, [("body.time", -1)], limit=1)
    return found[0] if found else None
