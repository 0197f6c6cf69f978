"""Repairs by workflow, our extension: what runs and ran, what persons say to it, and the button that stops it all."""

from __future__ import annotations

from convergedon.core.lifecycle import LIFECYCLES
from convergedon.handlers.resource import Api, Body, Resource, now


def _approval(body: Body) -> dict[str, str]:
    return {"state": "acknowledged", "creationDate": now()}


WORKFLOW_RUN = Resource(
    "workflowRun",
    "WorkflowRun",
    parties=lambda _: [],
    lifecycle=LIFECYCLES["workflowRun"],
    indexes=("body.alarm.id", "body.target", "body.state"),
    sole=("facts.lock",),
    swept=("facts.due",),
)
WORKFLOW_APPROVAL = Resource(
    "workflowApproval",
    "WorkflowApproval",
    new=_approval,
    parties=lambda _: [],
    lifecycle=LIFECYCLES["workflowApproval"],
)
WORKFLOW_CONTROL = Resource(
    "workflowControl", "WorkflowControl", new=lambda _: {"time": now()}, parties=lambda _: [], indexes=("body.time",)
)

API = Api("remediation-v1", "/convergedon-api/remediation/v1", (WORKFLOW_RUN, WORKFLOW_APPROVAL, WORKFLOW_CONTROL))
