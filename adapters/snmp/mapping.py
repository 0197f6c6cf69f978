"""What a trap means and what can be set: mapping.yaml, read once and strictly, and what it makes of a notification."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from convergedon.adapters.contract import ObservationKind
from convergedon.adapters.snmp import ber, mibs
from convergedon.adapters.snmp.names import Oid, Text
from convergedon.adapters.snmp.services import Service
from convergedon.adapters.x733 import UNMAPPED, AlarmType, ProbableCause, Severity, cause, numbered
from convergedon.core import strict
from convergedon.core.errors import Misconfigured

SHIPPED = files("convergedon.adapters.snmp") / "mapping.yaml"
LONGEST_OBJECT = 255
IF_NAME = "1.3.6.1.2.1.31.1.1.1.1"
LONGEST_INDEX = 10
NONE_KNOWN: Mapping[int, str] = {}
# sysUpTime.0 and snmpTrapOID.0 say nothing that the alarm does not; the community is a secret
NOT_DETAILS = frozenset({ber.UPTIME, ber.TRAP_OID, ber.TRAP_COMMUNITY})


class Index(strict.Strict):
    """Take the index of a varbind below an OID: as the devices file calls it (interfaces), as the device does (known),
    or as a text with {index}.
    """

    index: Oid
    form: Text | None = Field(None, alias="as")
    names: Literal["interfaces", "known"] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.form is None and self.names is None:
            raise ValueError("as or names is needed")
        if self.form is not None and _placeholders(self.form) != {"index"}:
            raise ValueError("as must have {index} in it and no other placeholder")
        return self


class Carried(strict.Strict):
    """The cause whose number in IANA's list stands in the varbind below an OID; another one where that says none."""

    number: Oid
    otherwise: ProbableCause


class Entry(strict.Strict):
    """What one notification means."""

    name: Text
    kind: Literal["fault", "clear"]
    alarmType: AlarmType
    perceivedSeverity: Severity
    probableCause: str | Carried
    specificProblem: Text
    object: tuple[Oid | Index, ...] = Field((), strict=False)
    key: Text

    @cached_property
    def columns(self) -> frozenset[str]:
        """Below which OIDs the name of the part is looked for."""
        return frozenset(choice if isinstance(choice, str) else choice.index for choice in self.object)

    @cached_property
    def has_names(self) -> bool:
        """Whether what it speaks of is an interface, which has a name of its own beside what the notification says."""
        return any(isinstance(choice, Index) and choice.names for choice in self.object)

    @field_validator("probableCause", mode="before")
    @classmethod
    def _is_a_cause(cls, given: Any) -> Any:
        return given if isinstance(given, Mapping) else cause(given)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.kind == "clear") != (self.perceivedSeverity == "cleared"):
            raise ValueError("perceivedSeverity is cleared for a clear and for nothing else")
        if self.object and _placeholders(self.key) != {"object"}:
            raise ValueError("key must have {object} in it: two parts of a device would share one condition")
        if not self.object and _placeholders(self.key):
            raise ValueError("key names {object} and there is no object list to take it from")
        return self


class Mapped(strict.Strict):
    """The file as a whole."""

    notifications: dict[Oid, Entry]
    services: dict[Text, Service] = Field(default_factory=dict)

    @field_validator("notifications")
    @classmethod
    def _clears_something(cls, found: dict[str, Entry]) -> dict[str, Entry]:
        faults = {entry.key for entry in found.values() if entry.kind == "fault"}
        for oid, entry in found.items():
            if entry.kind == "clear" and entry.key not in faults:
                raise ValueError(f"{oid}.key: no fault has the key {entry.key} that {entry.name} would clear")
        return found


@dataclass(frozen=True, slots=True)
class Meaning:
    """What of an observation the notification itself decides."""

    kind: ObservationKind
    object: str
    template: str
    attributes: Mapping[str, Any]
    index: int | None = None
    """The ifIndex of what it speaks of, where the entry has names for such."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The names that it was called by, each by its column."""

    @property
    def key(self) -> str:
        return self.key_of(self.object)

    def key_of(self, part: str) -> str:
        return self.template.replace("{object}", part)


@dataclass(frozen=True)
class Meant:
    """The file with names as OIDs: notification -> what it means, and the services that can be set."""

    notifications: Mapping[str, Entry]
    services: Mapping[str, Service]


def load(file: Traversable = SHIPPED, texts: Path | None = None, kept: Path | None = None) -> Meant:
    """Read the mapping, with names as the MIB texts of a folder have them. Raises Misconfigured with line and key.

    What was read of the texts is kept in a file, where one is given.
    """
    given, names = strict.read(Mapped, file), mibs.load(texts, kept)

    def number(oid: str, *place: str | int) -> str:
        try:
            return names.oid(oid) if "::" in oid else oid
        except Misconfigured as error:
            raise Misconfigured(f"{strict.where(file, *place)}: {error}") from None

    found: dict[str, Entry] = {}
    for key, entry in given.notifications.items():
        oid = number(key, "notifications", key)
        if oid in found:
            raise Misconfigured(f"{strict.where(file, 'notifications', key)}: {oid} is given twice")
        found[oid] = _numbered(entry, partial(_placed, number, "notifications", key))
    services = {name: one.named(partial(_placed, number, "services", name)) for name, one in given.services.items()}
    return Meant(found, services)


@cache
def shipped() -> Meant:
    """The mapping that ships, read once."""
    return load()


Number = Callable[..., str]
"""Makes an OID of a name; it is given where that stands, too."""


def _placed(number: Number, section: str, key: str, oid: str, *place: str | int) -> str:
    return number(oid, section, key, *place)


def _numbered(entry: Entry, number: Number) -> Entry:
    """The same with the names of objects as OIDs."""
    choices: list[str | Index] = []
    for at, choice in enumerate(entry.object):
        if isinstance(choice, str):
            choices.append(number(choice, "object", at))
        else:
            choices.append(choice.model_copy(update={"index": number(choice.index, "object", at, "index")}))
    carried = entry.probableCause
    if isinstance(carried, Carried):
        carried = carried.model_copy(update={"number": number(carried.number, "probableCause", "number")})
    return entry.model_copy(update={"object": tuple(choices), "probableCause": carried})


def interpret(
    notification: ber.Notification,
    mapping: Mapping[str, Entry],
    interfaces: Mapping[int, str],
    source: str,
    known: Mapping[int, str] = NONE_KNOWN,
) -> Meaning:
    """Say what a notification means; one that the mapping does not know is ``unmapped`` and keeps all it carried.

    ``interfaces`` are the names that the devices file has, ``known`` those of the device itself, both by ifIndex.
    """
    told = {
        "oid": notification.oid,
        "source": source,
        "details": {
            name: ber.text(tag, value) for name, tag, value in notification.varbinds if name not in NOT_DETAILS
        },
    }
    entry = mapping.get(notification.oid)
    if entry is None:
        return Meaning("unmapped", "", f"unmapped:{notification.oid}", {**UNMAPPED, **told})
    words = {
        "notification": entry.name,
        "alarmType": entry.alarmType,
        "perceivedSeverity": entry.perceivedSeverity,
        "probableCause": _cause(entry.probableCause, notification.varbinds),
        "specificProblem": entry.specificProblem,
    }
    part = _part(entry, notification.varbinds, {"interfaces": interfaces, "known": known})
    return Meaning(entry.kind, part.object, entry.key, {**words, **told}, part.index, part.names)


def _cause(given: str | Carried, varbinds: tuple[ber.Varbind, ...]) -> str:
    if isinstance(given, str):
        return given
    for name, _, value in varbinds:
        if name.startswith(f"{given.number}.") and isinstance(value, int) and value in numbered():
            return numbered()[value]
    return given.otherwise


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a device that a notification speaks of, as ``Meaning`` has it."""

    object: str
    index: int | None
    names: Mapping[str, str]


Carrying = Mapping[str, tuple[str, int, ber.Value]]
"""Column -> the index, the tag and the value of the first varbind below it."""


def _part(entry: Entry, varbinds: tuple[ber.Varbind, ...], named: Mapping[str, Mapping[int, str]]) -> Part:
    carrying = _carrying(entry, varbinds)
    index = _if_index(carrying) if entry.has_names else None
    found, names = "", {}
    for choice in entry.object:
        if isinstance(choice, str):
            words = _text(carrying, choice)
            if index is not None and words:
                names[choice] = words
        else:
            words = "" if found else _called(choice, carrying, index, named)
        found = found or words
    if index is not None and IF_NAME not in names and index in named["known"]:
        names[IF_NAME] = named["known"][index]
    return Part(found, index, names)


def _carrying(entry: Entry, varbinds: tuple[ber.Varbind, ...]) -> Carrying:
    columns, found = entry.columns, {}
    for name, tag, value in varbinds:
        if entry.has_names:  # an ifIndex is one number
            column, _, at = name.rpartition(".")
            if column in columns and column not in found:
                found[column] = at, tag, value
            continue
        for column in columns:
            if column not in found and name.startswith(column) and name[len(column) : len(column) + 1] == ".":
                found[column] = name[len(column) + 1 :], tag, value
    return found


def _if_index(carrying: Carrying) -> int | None:
    """What has names is an interface, and every varbind of it has the ifIndex as its own."""
    for at, _, _ in carrying.values():
        if at.isdecimal() and len(at) <= LONGEST_INDEX:
            return int(at)
    return None


def _text(carrying: Carrying, column: str) -> str:
    if column not in carrying:
        return ""
    _, tag, value = carrying[column]
    return ber.text(tag, value).strip()[:LONGEST_OBJECT]


def _called(choice: Index, carrying: Carrying, index: int | None, named: Mapping[str, Mapping[int, str]]) -> str:
    if choice.names and index is not None and (name := named[choice.names].get(index)):
        return name
    if choice.form is None or choice.index not in carrying:
        return ""
    at = carrying[choice.index][0] if index is None else str(index)
    return choice.form.replace("{index}", at)[:LONGEST_OBJECT]


def _placeholders(template: str) -> set[str]:
    return set(re.findall(r"\{(.*?)\}", template))


def interfaces(settings: Mapping[str, Any], device: str) -> Mapping[int, str]:
    """The device's own names of its interfaces by ifIndex. Raises Misconfigured."""
    found = settings.get("interfaces", {})
    if not isinstance(found, Mapping) or any(
        not isinstance(index, int) or not isinstance(name, str) or not name for index, name in found.items()
    ):
        raise Misconfigured(f"device {device}: snmp.interfaces: must map an ifIndex to a name")
    return found
