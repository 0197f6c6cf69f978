"""TMF642 Alarm Management v4: alarms, and the six tasks that work on many of them.

The rules of an alarm hold whoever changes it. To give it the severity ``cleared`` is to clear it, and what is cleared
has that severity and a time; neither is taken back. That it is acknowledged, commented or grouped is the operator's
mark on it and says nothing of its state, as in the samples of the standard: ``updated`` is said by who reports the
alarm, by the network when it reports again or by a client in so many words.

What the network said of an alarm that it reported is not a client's to change: where it is, what it is, and that the
device itself has cleared it. How grave it is, what it follows from and that it is over anybody may say who may patch
it, in a name of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convergedon.core.errors import Conflict, Invalid
from convergedon.core.lifecycle import LIFECYCLES
from convergedon.core.store import Record
from convergedon.handlers.resource import Api, Body, Resource, now

ACK_STATES = ("acknowledged", "unacknowledged")
REPORTED = (
    *("alarmedObject", "alarmedObjectType", "probableCause", "specificProblem", "alarmDetails"),
    *("reportingSystemId", "alarmReportingTime", "externalAlarmId", "crossedThresholdInformation"),
)
"""What the network says of its alarms, beside what no client may patch: the document's Alarm_Update has not got it."""


def _new_alarm(body: Body) -> dict[str, Any]:
    return {"alarmReportingTime": body.get("alarmReportingTime") or now(), **_in_agreement(body)}


def _changed(body: Body) -> dict[str, Any]:
    """Every change is timed."""
    return {"alarmChangedTime": now(), **_in_agreement(body)}


def _in_agreement(body: Body) -> dict[str, Any]:
    """State, severity, the time of clearing and the mark of acknowledgement, as they follow from each other."""
    members: dict[str, Any] = {"ackState": _ack_state(body.get("ackState"))}
    if "cleared" in (body.get("state"), body.get("perceivedSeverity")):
        members |= {"state": "cleared", "perceivedSeverity": "cleared"}
        members |= {"flapping": False} if body.get("flapping") else {}
        members["alarmClearedTime"] = body.get("alarmClearedTime") or now()
    return members


def _ack_state(said: Any) -> str:
    """The standard's own samples write UNacknowledged too."""
    found = "unacknowledged" if said is None else str(said).lower()
    if found not in ACK_STATES:
        raise Invalid(f"ackState is {' or '.join(ACK_STATES)}, not {said!r}")
    return found


def _alarm_rule(before: Body | None, after: Body) -> None:
    """What is cleared stays so, and since when is known."""
    if before is None or before["state"] != "cleared":
        return
    for member in ("state", "perceivedSeverity"):
        if after.get(member) != "cleared":
            raise Conflict(f"{member} cannot move from cleared to {after.get(member)}; allowed: nothing, it is final")
    if not after.get("alarmClearedTime"):
        raise Conflict("alarmClearedTime of a cleared alarm cannot be removed; another time is allowed")


def _reported(alarm: Record, after: Body) -> tuple[str, ...]:
    """Of an alarm of the network what it said, and that its device has cleared it: by that it is seen to flap."""
    if "key" not in alarm.facts:
        return ()
    by_device = alarm.body["sourceSystemId"] in (alarm.body.get("clearSystemId"), after.get("clearSystemId"))
    return (*REPORTED, "clearSystemId", "alarmClearedTime") if by_device else REPORTED


def _views(facts: Body) -> dict[str, Body]:
    """A customer sees its own services among the affected ones."""
    return {customer: {"affectedService": services} for customer, services in facts.get("touches", {}).items()}


ALARM = Resource(
    "alarm",
    "Alarm",
    new=_new_alarm,
    parties=lambda _: [],
    lifecycle=LIFECYCLES["alarm"],
    indexes=(
        "body.alarmedObject.id",
        ("body.perceivedSeverity", "facts.at.alarmRaisedTime", "id"),
        ("body.state", "facts.at.alarmRaisedTime", "id"),
        ("facts.at.alarmRaisedTime", "id"),
        ("facts.key", "facts.at.alarmClearedTime"),
        "facts.openAt",
        "facts.openOn",
    ),
    unique=("facts.openKey",),
    swept=("facts.quietAt",),
    changed=_changed,
    rule=_alarm_rule,
    reported=_reported,
    views=_views,
    viewed=("affectedService",),
)


def attributes(pattern: Body) -> dict[str, Any]:
    """What a pattern asks of an alarm: of an href the id at its end, and nothing that only references have."""
    asked = {
        name: value for name, value in pattern.items() if not name.startswith("@") and name not in ("href", "name")
    }
    if id := referred(pattern):
        asked["id"] = id
    if "ackState" in asked:
        asked["ackState"] = str(asked["ackState"]).lower()
    return asked


def referred(reference: Body) -> str:
    """The id that a reference names, by itself or at the end of its href; empty when it names none."""
    return str(reference.get("id") or str(reference.get("href") or "").rstrip("/").rpartition("/")[2])


def _matching(body: Body) -> dict[str, Any]:
    """Refuse a pattern that asks for nothing: it would match every alarm, and nobody means to clear them all."""
    for number, pattern in enumerate(body["alarmPattern"]):
        if not any(_asks(value) for value in attributes(pattern).values()):
            raise Invalid(f"alarmPattern.{number} names no attribute of an alarm and would match every alarm")
    return {}


def _asks(value: Any) -> bool:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else None
    return inner is None or any(_asks(one) for one in inner)


def _acknowledging(body: Body) -> dict[str, Any]:
    return {**_matching(body), "ackTime": body.get("ackTime") or now()}


def _commenting(body: Body) -> dict[str, Any]:
    return {**_matching(body), "comment": {"time": now(), **body["comment"]}}


def _grouping(body: Body) -> dict[str, Any]:
    """Refuse an alarm that is described but not named: to group by description could mean any number of parents."""
    for name, reference in (
        ("parentAlarm", body["parentAlarm"]),
        *(("correlatedAlarm", c) for c in body["correlatedAlarm"]),
    ):
        if not referred(reference):
            raise Invalid(f"{name} must name its alarm by id or href")
    return {}


def _task(name: str, schema: str, result: str, new: Callable[[Body], Body]) -> Resource:
    """What is asked for many alarms at once: stored as it is asked, done by the worker. It concerns no party.

    ``result`` lists the alarms that it was done to, too many for an event.
    """
    return Resource(
        name,
        schema,
        new=lambda body: {"state": "acknowledged", **new(body)},
        parties=lambda _: [],
        lifecycle=LIFECYCLES["task"],
        indexes=("body.state",),
        untold=(result,),
    )


ACK_ALARMS = _task("ackAlarms", "AckAlarms", "ackedAlarm", _acknowledging)
UN_ACK_ALARMS = _task("unAckAlarms", "UnAckAlarms", "unAckedAlarm", _acknowledging)
CLEAR_ALARMS = _task("clearAlarms", "ClearAlarms", "clearedAlarm", _matching)
COMMENT_ALARMS = _task("commentAlarms", "CommentAlarms", "commentedAlarm", _commenting)
GROUP_ALARMS = _task("groupAlarms", "GroupAlarms", "groupedAlarm", _grouping)
UN_GROUP_ALARMS = _task("unGroupAlarms", "UnGroupAlarms", "unGroupedAlarm", _grouping)
TASKS = (ACK_ALARMS, UN_ACK_ALARMS, CLEAR_ALARMS, COMMENT_ALARMS, GROUP_ALARMS, UN_GROUP_ALARMS)

API = Api("TMF642-Alarm-v4", "/tmf-api/alarmManagement/v4", (ALARM, *TASKS))
