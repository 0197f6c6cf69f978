"""Repairs by workflow, our extension: what runs and ran, what persons say to it, and the button that stops it all."""

from __future__ import annotations

from convergedon.core.lifecycle import LIFECYCLES
from convergedon.core.store import Record, Store
from convergedon.handlers.resource import Api, Body, Resource, now


def _approval(body: Body) -> dict[str, str]:
    return {"state": "acknowledged", "creationDate": now()}


WORKFLOW_RUN = Resource(
    "workflowRun",
    "WorkflowRun",
    parties=lambda _: [],
    lifecycle=LIFECYCLES["workflowRun"],
    indexes=("body.alarm.id", "body.target", "body.state", ("facts.at.startedAt", "id")),
    sole=("facts.lock",),
    swept=("facts.due", "body.target"),
)
WORKFLOW_APPROVAL = Resource(
    "workflowApproval",
    "WorkflowApproval",
    new=_approval,
    parties=lambda _: [],
    lifecycle=LIFECYCLES["workflowApproval"],
    indexes=(("facts.at.creationDate", "id"),),
)
WORKFLOW_CONTROL = Resource(
    "workflowControl", "WorkflowControl", new=lambda _: {"time": now()}, parties=lambda _: [], indexes=("body.time",)
)

API = Api("remediation-v1", "/convergedon-api/remediation/v1", (WORKFLOW_RUN, WORKFLOW_APPROVAL, WORKFLOW_CONTROL))

EVERYONE = "*"
"""The tenant of what the operator of the installation decides, which no token names."""
NO_REASON = "no reason was given"


async def stopped(store: Store, tenant: str) -> str:
    """Why workflows may do nothing now; empty when they may."""
    for whose in (EVERYONE, tenant):
        newest = await _newest(store, whose)
        if newest and newest.body["state"] == "stopped":
            return str(newest.body.get("reason") or NO_REASON)
    return ""


async def _newest(store: Store, tenant: str) -> Record | None:
    found = await store.find(WORKFLOW_CONTROL.name, {"tenant": tenant}, [("body.time", -1)], limit=1)
    return found[0] if found else None
