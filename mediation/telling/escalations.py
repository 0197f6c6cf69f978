"""What operators are told of a workflow that has left its fault to a person, and when that is the same once more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from convergedon.core.store import Record

TYPE = "workflowEscalated"


def told(run: Record, shown: Mapping[str, Any]) -> dict[str, Any]:
    """What leaves through channels, in the form of a notification; ``shown`` is the run as clients see it."""
    name, device, state, reason = run.body["workflow"]["name"], run.body["target"], run.body["state"], _reason(run)
    said = {"refused": "was not begun", "compensated": "failed, and what it had done is taken back"}
    text = (
        f"{name} on {device} {said.get(state, 'failed, and not all that it had done could be taken back')}: {reason}."
    )
    return {
        "id": run.id,
        "href": shown["href"],
        "notificationType": TYPE,
        "notificationTime": run.body["endedAt"],
        "text": f"{text} A person must see to it.",
        "workflowRun": {
            "id": run.id,
            "href": shown["href"],
            "workflow": name,
            "device": device,
            "state": state,
            "reason": reason,
        },
        "alarm": run.body["alarm"],
    }


def same(run: Record) -> str:
    """By what an escalation is known: it is told once. A run is one; of those that were not begun, as in a fibre cut,
    those are that say the same of the same device within an hour.
    """
    if run.body["state"] != "refused":
        return run.id
    reason = re.sub(r"\d+", "", _reason(run))
    return "|".join((run.tenant, run.body["workflow"]["name"], run.body["target"], reason, run.body["endedAt"][:13]))


def _reason(run: Record) -> str:
    return str(run.body.get("reason") or "no reason is known")
