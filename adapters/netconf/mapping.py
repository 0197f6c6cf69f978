"""What a service is on a NETCONF device: strict data in mapping.yaml, and its XML there and back.

A ``Service`` builds the filter that reads one instance and the payload that changes it, and reads an instance out of
what the device answers. It knows no session; the adapter knows no leaf.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Self

from lxml import etree  # type: ignore[import-untyped]
from pydantic import Field, StringConstraints, model_validator

from convergedon.adapters.netconf.events import Event, Events
from convergedon.core import strict
from convergedon.core.errors import Invalid

BASE = "urn:ietf:params:xml:ns:netconf:base:1.0"
SETTLE = 2.0
SHIPPED = files("convergedon.adapters.netconf") / "mapping.yaml"

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_INTEGER = re.compile(r"0|-?[1-9]\d*")


@dataclass(frozen=True)
class Constant:
    """A value that every entry gets. With a namespace it is the name of an identity there."""

    text: str
    namespace: str = ""


@dataclass(frozen=True)
class Service:
    """How one service stands in the configuration of a device.

    ``becomes`` has, for a characteristic of ``verify`` whose operational leaf speaks otherwise, what it says for which
    configured value; for a value that is not there it may say anything. ``reads`` can only be looked at. ``state`` is
    where operational leaves stand on devices that keep them apart from the configuration.
    """

    name: str
    source: str
    namespace: str
    path: tuple[str, ...]
    key: str
    leaves: Mapping[str, str]
    constants: Mapping[str, Constant]
    verify: Mapping[str, str]
    settle: float
    becomes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reads: Mapping[str, str] = field(default_factory=dict)
    state: tuple[str, ...] = ()

    def wanted(self, values: Mapping[str, Any]) -> dict[str, str | None]:
        """Say in text what each leaf must hold; None for a leaf that must not be there.

        Leaves of characteristics that are not named stay as they are. Raises Invalid for a characteristic that the
        mapping does not know or a value that no leaf can hold.
        """
        if unknown := sorted(set(values) - set(self.leaves)):
            raise Invalid(f"{self.source}, services.{self.name}.leaves: no leaf for characteristic {unknown[0]!r}")
        found = {self.leaves[name]: self._text(name, value) for name, value in values.items()}
        return {**{leaf: constant.text for leaf, constant in self.constants.items()}, **found}

    def operational(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Say in text what each operational leaf must become."""
        texts = {leaf: self._becoming(name, values.get(name)) for name, leaf in self.verify.items()}
        return {leaf: text for leaf, text in texts.items() if text is not None}

    def _becoming(self, name: str, value: Any) -> str | None:
        text = self._text(name, value)
        return text if text is None or name not in self.becomes else self.becomes[name].get(text)

    def compared(self, values: Mapping[str, Any]) -> tuple[dict[str, str | None], dict[str, str]]:
        """Say in text what each leaf that is named must hold, of the configuration and of what the device does.

        Raises Invalid for a characteristic that the mapping does not know.
        """
        named = {name: value for name, value in values.items() if name not in self.reads}
        told = self.wanted(named)
        read = {leaf: self._text(name, values[name]) or "" for name, leaf in self.reads.items() if name in values}
        return {self.leaves[name]: told[self.leaves[name]] for name in named}, {**self.operational(values), **read}

    def subtree(self, instance: str, state: bool = False) -> etree._Element:
        """Build the filter that selects the instance: as it is configured, or with its operational state."""
        root = etree.Element(f"{{{BASE}}}filter", {"type": "subtree"}, nsmap={None: BASE})
        self._entry(root, instance, self.path)
        if state and self.state:
            self._entry(root, instance, self.state)
        return root

    def payload(self, instance: str, wanted: Mapping[str, str | None] | None) -> etree._Element:
        """Build the edit-config payload that brings the instance to what is wanted; None takes it away."""
        root = etree.Element(f"{{{BASE}}}config", nsmap={None: BASE})
        entry = self._entry(root, instance, self.path)
        if wanted is None:
            entry.set(f"{{{BASE}}}operation", "remove")
            return root
        for leaf, text in wanted.items():
            constant = self.constants.get(leaf)
            if constant and constant.namespace:
                name = (text or "").rpartition(":")[2]  # what was read back has the device's own prefix, or none
                etree.SubElement(entry, self._tag(leaf), nsmap={"v": constant.namespace}).text = f"v:{name}"
            elif text is None:
                etree.SubElement(entry, self._tag(leaf)).set(f"{{{BASE}}}operation", "remove")
            else:
                self._write(etree.SubElement(entry, self._tag(leaf)), leaf, text)
        return root

    def read(self, found: etree._Element | None, instance: str) -> dict[str, str] | None:
        """Read the leaves of the instance out of a <data> element; None where the device does not have it."""
        parts = [self._leaves(found, instance, path) for path in (self.state, self.path) if path and found is not None]
        there = [part for part in parts if part is not None]
        return {leaf: text for part in there for leaf, text in part.items()} if there else None

    def _leaves(self, found: etree._Element, instance: str, path: tuple[str, ...]) -> dict[str, str] | None:
        for entry in found.iterfind("/".join(self._tag(step) for step in path)):
            if entry.findtext(self._tag(self.key), "").strip() == instance.strip():
                leaves = [child for child in entry.iterchildren(tag=etree.Element) if not len(child)]
                return {etree.QName(leaf).localname: (leaf.text or "").strip() for leaf in leaves}
        return None

    def differing(self, wanted: Mapping[str, str | None], found: Mapping[str, str] | None) -> list[str]:
        """Name the leaves that do not hold what is wanted."""
        held = found or {}
        return [leaf for leaf, text in wanted.items() if not self._same(leaf, text, held.get(leaf))]

    def _same(self, leaf: str, wanted: str | None, found: str | None) -> bool:
        if wanted is None or found is None or wanted == found:
            return wanted == found
        constant = self.constants.get(leaf)
        if constant and constant.namespace:  # the device writes an identity with its own prefix, or none
            return found.rpartition(":")[2] == wanted
        numbers = _NUMBER.fullmatch(wanted) and _NUMBER.fullmatch(found)
        return bool(numbers) and Decimal(wanted) == Decimal(found)

    def _entry(self, root: etree._Element, instance: str, path: tuple[str, ...]) -> etree._Element:
        parent = root
        for number, step in enumerate(path):
            parent = etree.SubElement(parent, self._tag(step), nsmap=None if number else {None: self.namespace})
        self._write(etree.SubElement(parent, self._tag(self.key)), self.key, instance)
        return parent

    def _write(self, element: etree._Element, leaf: str, text: str) -> None:
        try:
            element.text = text
        except ValueError as error:
            raise Invalid(f"leaf {leaf!r} of {self.name}: the value has characters that XML cannot carry") from error

    def _tag(self, name: str) -> str:
        return f"{{{self.namespace}}}{name}"

    def _text(self, characteristic: str, value: Any) -> str | None:
        match value:
            case None:
                return None
            case bool():
                return "true" if value else "false"
            case float() if value.is_integer():
                return str(int(value))
            case str() | int() | float() | Decimal():
                return str(value)
        raise Invalid(f"{self.name}: characteristic {characteristic!r} is not a single value")


def plain(text: str | None) -> int | str | None:
    """Give a leaf's text as a person would write it in a report: digits as a number."""
    return int(text) if text is not None and _INTEGER.fullmatch(text) else text


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")]
Text = Annotated[str, StringConstraints(min_length=1)]
Path = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z_][A-Za-z0-9_.-]*)+$")]


class Identity(strict.Strict):
    """An identity of some module, as the value of a leaf."""

    identity: Name
    namespace: Text


class Becoming(strict.Strict):
    """An operational leaf that follows a configured one in words of its own."""

    leaf: Name
    values: dict[Text, Text] = Field(min_length=1)


class Entry(strict.Strict):
    """One service as the file describes it."""

    namespace: Text
    path: Path
    state: Path | None = None
    key: Name
    leaves: dict[Text, Name] = Field(min_length=1)
    constants: dict[Name, Identity | bool | int | float | str] = Field(default_factory=dict)
    verify: dict[Text, Name | Becoming] = Field(default_factory=dict)
    reads: dict[Text, Name] = Field(default_factory=dict)
    settle: float = Field(SETTLE, ge=0)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for characteristic in self.verify:
            if characteristic not in self.leaves:
                raise ValueError(f"verify.{characteristic}: no such characteristic in leaves")
        for characteristic in self.reads:
            if characteristic in self.leaves:
                raise ValueError(f"reads.{characteristic}: it stands in leaves already")
        used = [self.key, *self.leaves.values(), *self.constants]
        for leaf in used:
            if used.count(leaf) > 1:
                raise ValueError(f"leaf {leaf!r} is written twice")
        return self


class Document(strict.Strict):
    """The file as a whole."""

    services: dict[Text, Entry] = Field(min_length=1)
    notifications: tuple[Event, ...] = Field((), strict=False)
    silent: frozenset[Text] = Field(frozenset(), strict=False)


def load(file: Traversable = SHIPPED) -> dict[str, Service]:
    """Read the services of a mapping file. Raises Misconfigured with file and key."""
    return {name: _service(file.name, name, entry) for name, entry in strict.read(Document, file).services.items()}


def load_events(file: Traversable = SHIPPED) -> Events:
    """Read what notifications mean. Raises Misconfigured with file and key."""
    found = strict.read(Document, file)
    return Events(found.notifications, found.silent)


def _service(source: str, name: str, entry: Entry) -> Service:
    return Service(
        name=name,
        source=source,
        namespace=entry.namespace,
        path=_steps(entry.path),
        key=entry.key,
        leaves=entry.leaves,
        constants={leaf: _constant(value) for leaf, value in entry.constants.items()},
        verify={name: to.leaf if isinstance(to, Becoming) else to for name, to in entry.verify.items()},
        settle=entry.settle,
        becomes={name: to.values for name, to in entry.verify.items() if isinstance(to, Becoming)},
        reads=entry.reads,
        state=_steps(entry.state) if entry.state else (),
    )


def _steps(path: str) -> tuple[str, ...]:
    return tuple(path[1:].split("/"))


def _constant(value: Identity | bool | int | float | str) -> Constant:
    if isinstance(value, Identity):
        return Constant(value.identity, value.namespace)
    return Constant(str(value).lower() if isinstance(value, bool) else str(value))
