"""The lifecycles of TM Forum resources as one table: state -> the states it may move to (v4 lifecycle diagrams).

An order may also begin as a draft, as version 5 has it: nothing is done for it before its customer acknowledges it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from convergedon.core.errors import Conflict


@dataclass(frozen=True)
class Lifecycle:
    """``member`` holds the state; ``moves`` are all states with what may follow; ``initial`` are those at creation."""

    member: str
    initial: tuple[str, ...]
    moves: Mapping[str, tuple[str, ...]]

    def check(self, old: str | None, new: str) -> None:
        """Raise Conflict, naming from, to and what is allowed, unless the move is in the table."""
        if old == new:
            return
        allowed = self.initial if old is None else self.moves.get(old, ())
        if new not in allowed:
            begin = f"{self.member} cannot move from {old} to {new}" if old else f"{self.member} cannot begin as {new}"
            raise Conflict(f"{begin}; allowed: {', '.join(allowed) or 'nothing, it is final'}")


_ORDER: Mapping[str, tuple[str, ...]] = {
    "draft": ("acknowledged", "cancelled"),
    "acknowledged": ("inProgress", "pending"),
    "inProgress": ("pending", "held", "assessingCancellation", "completed", "failed", "partial"),
    "pending": ("inProgress", "assessingCancellation", "cancelled"),
    "held": ("inProgress", "assessingCancellation", "cancelled"),
    "assessingCancellation": ("inProgress", "pending", "held", "pendingCancellation"),
    "pendingCancellation": ("cancelled",),
    "rejected": (),
    "completed": (),
    "failed": (),
    "partial": (),
    "cancelled": (),
}

_STATUS: Mapping[str, tuple[str, ...]] = {
    "unknown": ("standby", "alarm", "available", "reserved", "suspended"),
    "available": ("standby", "alarm", "reserved", "suspended", "unknown"),
    "reserved": ("standby", "alarm", "available", "suspended", "unknown"),
    "standby": ("alarm", "available", "suspended", "unknown"),
    "alarm": ("standby", "available", "reserved", "suspended", "unknown"),
    "suspended": ("standby", "available", "unknown"),
}

_X731: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "administrativeState": {
        "locked": ("unlocked",),
        "unlocked": ("locked", "shutdown"),
        "shutdown": ("locked", "unlocked"),
    },
    "operationalState": {"enable": ("disable",), "disable": ("enable",)},
    "usageState": {"idle": ("active", "busy"), "active": ("idle", "busy"), "busy": ("idle", "active")},
    "resourceStatus": _STATUS,
}
"""The states of a resource (X.731): independent of each other, without an end, and each may be what is found first.

What is locked has no user to be waited for, so it is not shut down; what is suspended is out of service, so it neither
raises an alarm nor is it kept for somebody before it is back.
"""

LEFT = ("compensating", "waitingForDevice", "completed", "compensated", "failed")
"""Where a run of a workflow goes that goes on no further."""
LIFECYCLES: Mapping[str, Lifecycle] = {
    "productOrder": Lifecycle("state", ("acknowledged", "rejected", "draft"), _ORDER),
    "productOrderItem": Lifecycle(
        "state",
        ("acknowledged", "rejected", "draft"),
        {
            state: tuple(to for to in allowed if to != "partial")
            for state, allowed in _ORDER.items()
            if state != "partial"
        },
    ),
    "alarm": Lifecycle(
        "state",
        ("raised", "updated", "cleared"),
        {"raised": ("updated", "cleared"), "updated": ("cleared",), "cleared": ()},
    ),
    "usage": Lifecycle(
        "status",
        ("received",),
        {
            "received": ("guided", "rejected"),
            "guided": ("rated", "rejected"),
            "rejected": ("recycled",),
            "recycled": ("guided", "rejected"),
            "rated": ("rerated", "billed"),
            "rerated": ("rated",),
            "billed": (),
        },
    ),
    "customerBill": Lifecycle(
        "state",
        ("new",),
        {
            "new": ("onHold", "validated"),
            "onHold": ("validated",),
            "validated": ("sent",),
            "sent": ("partiallyPaid", "settled"),
            "partiallyPaid": ("settled",),
            "settled": (),
        },
    ),
    "customerBillOnDemand": Lifecycle(
        "state",
        ("inProgress",),
        {
            "inProgress": ("done", "terminatedWithError", "rejected"),
            "done": (),
            "terminatedWithError": (),
            "rejected": (),
        },
    ),
    "service": Lifecycle(
        "state",
        ("feasibilityChecked", "designed", "reserved", "inactive", "active"),
        {
            "feasibilityChecked": ("designed", "reserved", "terminated"),
            "designed": ("reserved", "inactive", "active", "terminated"),
            "reserved": ("designed", "inactive", "active", "terminated"),
            "inactive": ("active", "terminated"),
            "active": ("inactive", "terminated"),
            "terminated": (),
        },
    ),
    **{member: Lifecycle(member, tuple(moves), moves) for member, moves in _X731.items()},
    "task": Lifecycle(
        "state",
        ("acknowledged",),
        {
            "acknowledged": ("inProgress",),
            "inProgress": ("done", "terminatedWithError"),
            "done": (),
            "terminatedWithError": (),
        },
    ),
    "workflowRun": Lifecycle(
        "state",
        ("running", "waitingForTurn", "refused"),
        {
            "waitingForTurn": ("running", "refused"),
            "running": ("waitingForApproval", "stopped", *LEFT),
            "waitingForApproval": ("running", "stopped", *LEFT),
            "stopped": ("running", "waitingForApproval", *LEFT),
            "compensating": ("stopped", "waitingForDevice", "compensated", "failed"),
            "waitingForDevice": ("stopped", "compensated"),
            "completed": (),
            "compensated": (),
            "failed": (),
            "refused": (),
        },
    ),
    "workflowApproval": Lifecycle(
        "state", ("acknowledged",), {"acknowledged": ("accepted", "rejected"), "accepted": (), "rejected": ()}
    ),
}


def order_state(items: Iterable[str]) -> str:
    """The state of an order whose items, at whatever depth, have these states.

    All in one state: that one. All at an end, but not at the same: partial. Else the first of those in which work may
    be, most pressing first; work that has ended or begun on one item has begun on the order.
    """
    states = set(items)
    if len(states) == 1:
        return states.pop()
    pressing = ("assessingCancellation", "pendingCancellation", "held", "pending", "inProgress")
    if found := [state for state in pressing if state in states]:
        return found[0]
    return "inProgress" if states & {"draft", "acknowledged"} else "partial"
