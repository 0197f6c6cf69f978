"""What an operator sees of repairs by workflow, and says to them: yes or no to what a run asks, stop, and go on.

What is said here is what the API keeps of the same: an approval or a control, which the workers judge by the policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convergedon.core.errors import Forbidden, Invalid
from convergedon.core.store import Record
from convergedon.handlers.console.reading import LATEST, Desk
from convergedon.handlers.remediation import WORKFLOW_APPROVAL, WORKFLOW_CONTROL, WORKFLOW_RUN, stopped
from convergedon.handlers.resource import Resource, Resources

DECISIONS = ("approved", "refused")
STATES = ("stopped", "running")
LONGEST = 2_000
"""Characters of a comment or a reason."""


@dataclass(frozen=True)
class Repair:
    """A run, and what persons said to it, the last first."""

    record: Record
    said: Sequence[Record]


@dataclass(frozen=True)
class Repairs:
    """``stopped`` is why workflows may do nothing now; ``approves`` and ``stops`` whether this operator may."""

    runs: Sequence[Repair] = ()
    stopped: str = ""
    approves: bool = False
    stops: bool = False
    hidden: str = ""


async def seen(desk: Desk) -> Repairs:
    """The runs that wait for a person, then the latest others, and whether all are stopped."""
    try:
        waiting = await desk.visible(WORKFLOW_RUN.name, {"body.state": "waitingForApproval"})
        latest = await desk.latest(WORKFLOW_RUN.name, "startedAt")
    except Forbidden as error:
        return Repairs(hidden=str(error))
    runs = [*waiting, *(run for run in latest if run.body["state"] != "waitingForApproval")][:LATEST]
    hears = await _may(desk, "list", WORKFLOW_APPROVAL)
    said = await desk.latest(WORKFLOW_APPROVAL.name, "creationDate") if hears else []
    return Repairs(
        [Repair(run, [one for one in said if one.body["workflowRun"]["id"] == run.id]) for run in runs],
        await stopped(desk.store, desk.operator.tenant),
        await _may(desk, "create", WORKFLOW_APPROVAL),
        await _may(desk, "create", WORKFLOW_CONTROL),
    )


async def answer(desk: Desk, resources: Resources, given: Mapping[str, str]) -> None:
    """Say yes or no to a run. Raises Forbidden, Invalid, and NotFound for a run that is not the tenant's."""
    decision, comment = given.get("decision", ""), given.get("comment", "").strip()
    if decision not in DECISIONS:
        raise Invalid(f"a decision is {' or '.join(DECISIONS)}")
    run = await desk.store.get(WORKFLOW_RUN.name, desk.operator.tenant, given.get("run", ""))
    body = {"workflowRun": {"id": run.id}, "decision": decision}
    await _keep(desk, resources, WORKFLOW_APPROVAL, body, "comment", comment)


async def press(desk: Desk, resources: Resources, given: Mapping[str, str]) -> None:
    """Stop all workflows of the tenant, or let them go on. Raises Forbidden and Invalid."""
    state = given.get("state", "")
    if state not in STATES:
        raise Invalid(f"workflows are {' or '.join(STATES)}")
    await _keep(desk, resources, WORKFLOW_CONTROL, {"state": state}, "reason", given.get("reason", "").strip())


async def _keep(
    desk: Desk, resources: Resources, resource: Resource, body: dict[str, Any], member: str, words: str
) -> None:
    if len(words) > LONGEST:
        raise Invalid(f"{member} has more than {LONGEST} characters")
    whole = {**body, member: words} if words else body
    allowed = await desk.door.allowed(desk.operator, "create", resource.name, body=whole)
    kept = await resources.create(resource, desk.operator.tenant, whole, {"owner": desk.operator.document})
    desk.door.record(desk.operator, "create", f"{resource.name}/{kept.id}", "done", allowed)


async def _may(desk: Desk, action: str, resource: Resource) -> bool:
    try:
        await desk.door.allowed(desk.operator, action, resource.name)
    except Forbidden:
        return False
    return True
