"""TMF642 Alarm Management v4."""

from __future__ import annotations

from typing import Any

from convergedon.core.lifecycle import LIFECYCLES
from convergedon.handlers.resource import Api, Body, Resource, now


def _new_alarm(body: Body) -> dict[str, Any]:
    return {"alarmReportingTime": now(), "ackState": body.get("ackState", "unacknowledged")}


def _changed(body: Body) -> dict[str, Any]:
    """Every change is timed; what is cleared, by whomever, has the severity and the time of it."""
    time = now()
    if body.get("state") != "cleared":
        return {"alarmChangedTime": time}
    cleared = body.get("alarmClearedTime") or time
    return {"alarmChangedTime": time, "alarmClearedTime": cleared, "perceivedSeverity": "cleared"}


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
    changed=_changed,
    views=_views,
)


def _task(name: str, schema: str) -> Resource:
    """What is asked for many alarms at once: stored as it is asked, done by the worker. It concerns no party."""
    return Resource(
        name,
        schema,
        new=lambda _: {"state": "acknowledged"},
        parties=lambda _: [],
        lifecycle=LIFECYCLES["task"],
        indexes=("body.state",),
    )


ACK_ALARMS = _task("ackAlarms", "AckAlarms")
UN_ACK_ALARMS = _task("unAckAlarms", "UnAckAlarms")
CLEAR_ALARMS = _task("clearAlarms", "ClearAlarms")
COMMENT_ALARMS = _task("commentAlarms", "CommentAlarms")
GROUP_ALARMS = _task("groupAlarms", "GroupAlarms")
UN_GROUP_ALARMS = _task("unGroupAlarms", "UnGroupAlarms")
TASKS = (ACK_ALARMS, UN_ACK_ALARMS, CLEAR_ALARMS, COMMENT_ALARMS, GROUP_ALARMS, UN_GROUP_ALARMS)

API = Api("TMF642-Alarm-v4", "/tmf-api/alarmManagement/v4", (ALARM, *TASKS))
