"""TMF642 Alarm Management v4."""

from __future__ import annotations

from typing import Any

from convergedon.core.lifecycle import LIFECYCLES
from convergedon.handlers.resource import Api, Body, Resource, now


def _new_alarm(body: Body) -> dict[str, Any]:
    return {"alarmReportingTime": now(), "ackState": body.get("ackState", "unacknowledged")}


def _views(facts: Body) -> dict[str, Body]:
    """A customer sees its own services among the affected ones."""
    return {customer: {"affectedService": services} for customer, services in facts.get("touches", {}).items()}


ALARM = Resource(
    "alarm",
    "Alarm",
    new=_new_alarm,
    parties=lambda _: [],
    lifecycle=LIFECYCLES["alarm"],
    indexes=("body.state", "body.perceivedSeverity", "body.alarmedObject.id", "facts.key"),
    unique=("facts.openKey",),
    changed=lambda _: {"alarmChangedTime": now()},
    views=_views,
)

API = Api("TMF642-Alarm-v4", "/tmf-api/alarmManagement/v4", (ALARM,))
