"""What a notification of a device means (RFC 5277): an observation, as the mapping file words it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from lxml import etree  # type: ignore[import-untyped]
from pydantic import Field, StringConstraints, model_validator

from convergedon.adapters.contract import Observation
from convergedon.adapters.x733 import UNMAPPED, AlarmType, ProbableCause, Severity
from convergedon.core import strict

NOTIFICATION = "urn:ietf:params:xml:ns:netconf:notification:1.0"
REPLAY = frozenset(
    {f"{space}#{name}" for space in (NOTIFICATION, "urn:ietf:params:xml:ns:netmod:notification")
     for name in ("replayComplete", "notificationComplete")}
)  # fmt: skip
LONGEST = 255

Text = Annotated[str, StringConstraints(min_length=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")]


class Event(strict.Strict):
    """What one kind of notification means."""

    name: Name
    namespace: Text
    where: dict[Name, Text] = Field(default_factory=dict)
    kind: Literal["fault", "clear"]
    alarmType: AlarmType
    perceivedSeverity: Severity
    probableCause: ProbableCause
    specificProblem: Text
    object: Name | None = None
    key: Text

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.kind == "clear") != (self.perceivedSeverity == "cleared"):
            raise ValueError("perceivedSeverity is cleared for a clear and for nothing else")
        if ("{object}" in self.key) != (self.object is not None):
            raise ValueError("key has {object} in it where an object is named, and only there")
        return self

    def fits(self, name: str, leaves: Mapping[str, str]) -> bool:
        named = f"{self.namespace}#{self.name}" == name
        return named and all(leaves.get(leaf) == value for leaf, value in self.where.items())


@dataclass(frozen=True)
class Events:
    """The mapping's part about notifications."""

    events: tuple[Event, ...] = ()
    silent: frozenset[str] = frozenset()

    def observation(
        self, notification: etree._Element, device: str, tenant: str, number: int = 0
    ) -> Observation | None:
        """What a notification says; None where that is nothing to anybody.

        The same notification has the same id whenever it is told again, as a replay does. ``number`` says which it is
        of those that are alike to the letter: netconfd, for one, tells the time in whole seconds.
        """
        content = next((child for child in notification.iterchildren(tag=etree.Element) if not _is_time(child)), None)
        if content is None:
            return None
        name = f"{etree.QName(content).namespace}#{etree.QName(content).localname}"
        if name in self.silent or name in REPLAY:
            return None
        leaves = {
            str(etree.QName(leaf).localname): (leaf.text or "").strip()
            for leaf in content.iter(etree.Element)
            if leaf is not content and not len(leaf)
        }
        event = next((event for event in self.events if event.fits(name, leaves)), None)
        found = leaves.get(event.object, "")[:LONGEST] if event and event.object else ""
        told = {"notification": name, "details": {leaf: text[:LONGEST] for leaf, text in leaves.items()}}
        return Observation(
            id=hashlib.sha256(f"{device} {number} ".encode() + written(notification)).hexdigest()[:32],
            kind=event.kind if event else "unmapped",
            adapter="netconf",
            device=device,
            tenant=tenant,
            time=happened(notification),
            object=found,
            key=event.key.replace("{object}", found) if event else f"unmapped:{name}",
            attributes={**(_words(event) if event else UNMAPPED), **told},
        )


def written(notification: etree._Element) -> bytes:
    """The notification as it is written, whichever way its prefixes and spaces were.

    One with a relative namespace, which has no canonical form and is sent by devices all the same, as it came.
    """
    try:
        return bytes(etree.tostring(notification, method="c14n"))
    except etree.C14NError:
        return bytes(etree.tostring(notification))


def event_time(notification: etree._Element) -> str:
    return str(notification.findtext(f"{{{NOTIFICATION}}}eventTime", "")).strip()


def happened(notification: etree._Element) -> float:
    """When it happened, in seconds since the epoch. Raises ValueError where it does not say."""
    return moment(event_time(notification))


def moment(text: str) -> float:
    """Seconds since the epoch of a time as devices write it. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()


def _is_time(element: etree._Element) -> bool:
    return bool(element.tag == f"{{{NOTIFICATION}}}eventTime")


def _words(event: Event) -> dict[str, Any]:
    return {
        "alarmType": event.alarmType,
        "perceivedSeverity": event.perceivedSeverity,
        "probableCause": event.probableCause,
        "specificProblem": event.specificProblem,
    }
