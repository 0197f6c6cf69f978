"""The button that stops all workflows: of one tenant, or of the whole installation."""

from __future__ import annotations

from uuid import uuid4

from convergedon.core.store import Record, Store
from convergedon.handlers.remediation import EVERYONE as EVERYONE
from convergedon.handlers.remediation import WORKFLOW_CONTROL
from convergedon.handlers.remediation import stopped as stopped
from convergedon.handlers.resource import now


async def press(store: Store, state: str, reason: str) -> None:
    """Stop workflows of all tenants, or let them go on."""
    body = {"state": state, "time": now(), **({"reason": reason} if reason else {})}
    await store.create(Record(WORKFLOW_CONTROL.name, str(uuid4()), EVERYONE, body, {"parties": []}))
