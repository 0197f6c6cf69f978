"""TMF642 Alarm Management v5, over the alarms of v4: what the two versions call differently, schema by schema.

A task is called for one alarm here (``ackAlarm``) and for many in v4 (``ackAlarms``), where it is kept. What v4 said in
words that v5 does not enumerate is shown in them.
"""

from __future__ import annotations

from convergedon.handlers.alarms import API as V4
from convergedon.handlers.alarms import TASKS
from convergedon.handlers.resource import HUB, Api, Body, Resource
from convergedon.handlers.versions import Enclosed, Form, Rules, Version

DOCUMENT = "TMF642-Alarm-v5"
REFERENCE = frozenset(("id", "href", "name", "@type", "@baseType", "@schemaLocation", "@referredType"))
EXACT = ("alarmPattern", "parentAlarm", "correlatedAlarm")
"""What a task is to be done to: half a condition would mean more alarms than were meant."""

_PLACE = (Enclosed("relatedPlace", outside=("role",)),)

RULES: Rules = {"RelatedPlace": _PLACE}


def _alarm(body: Body) -> str:
    return "AlarmRef" if "id" in body and body.keys() <= REFERENCE else "Alarm"


FORM = Form(
    DOCUMENT,
    RULES,
    {
        "AlarmRefOrValue": _alarm,
        "PartyRefOrPartyRoleRef": lambda _: "PartyRef",
    },
)


def _version(resource: Resource) -> Version:
    exact = EXACT if resource in TASKS else ()
    return Version(FORM, _singular(resource.schema), V4.document, resource.schema, exact)


def _singular(name: str) -> str:
    return name.removesuffix("s")


API = Api(
    DOCUMENT,
    "/tmf-api/alarmManagement/v5",
    V4.resources,
    {
        **{resource.name: _version(resource) for resource in V4.resources},
        HUB.name: Version(FORM, "Hub", V4.document),
    },
    words={task.name: _singular(task.name) for task in TASKS},
)
