"""What a service is on a NETCONF device: strict data in mapping.yaml, and its XML there and back.

A ``Service`` builds the filter that reads one instance and the payload that changes it, and reads an instance out of
what the device answers. It knows no session; the adapter knows no leaf.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from convergedon.core.errors import Invalid, Misconfigured
from lxml import etree  # type: ignore[import-untyped]

BASE = "urn:ietf:params:xml:ns:netconf:base:1.0"
SETTLE = 2.0
SHIPPED = files("convergedon.adapters.netconf") / "mapping.yaml"

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_INTEGER = re.compile(r"0|-?[1-9]\d*")
_KEYS = ("namespace", "path", "key", "leaves", "constants", "verify", "settle")
_REQUIRED = ("namespace", "path", "key", "leaves")


@dataclass(frozen=True)
class Constant:
    """A value that every entry gets. With a namespace it is the name of an identity there."""

    text: str
    namespace: str = ""


@dataclass(frozen=True)
class Service:
    """How one service stands in the configuration of a device."""

    name: str
    source: str
    namespace: str
    path: tuple[str, ...]
    key: str
    leaves: Mapping[str, str]
    constants: Mapping[str, Constant]
    verify: Mapping[str, str]
    settle: float

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
        texts = {leaf: self._text(name, values.get(name)) for name, leaf in self.verify.items()}
        return {leaf: text for leaf, text in texts.items() if text is not None}

    def subtree(self, instance: str) -> etree._Element:
        """Build the filter that selects the instance."""
        root = etree.Element(f"{{{BASE}}}filter", {"type": "subtree"}, nsmap={None: BASE})
        self._entry(root, instance)
        return root

    def payload(self, instance: str, wanted: Mapping[str, str | None] | None) -> etree._Element:
        """Build the edit-config payload that brings the instance to what is wanted; None takes it away."""
        root = etree.Element(f"{{{BASE}}}config", nsmap={None: BASE})
        entry = self._entry(root, instance)
        if wanted is None:
            entry.set(f"{{{BASE}}}operation", "remove")
            return root
        for leaf, text in wanted.items():
            constant = self.constants.get(leaf)
            if constant and constant.namespace:
                etree.SubElement(entry, self._tag(leaf), nsmap={"v": constant.namespace}).text = f"v:{text}"
            elif text is None:
                etree.SubElement(entry, self._tag(leaf)).set(f"{{{BASE}}}operation", "remove")
            else:
                self._write(etree.SubElement(entry, self._tag(leaf)), leaf, text)
        return root

    def read(self, found: etree._Element | None, instance: str) -> dict[str, str] | None:
        """Read the leaves of the instance out of a <data> element; None where the device does not have it."""
        if found is None:
            return None
        for entry in found.iterfind("/".join(self._tag(step) for step in self.path)):
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

    def _entry(self, root: etree._Element, instance: str) -> etree._Element:
        parent = root
        for number, step in enumerate(self.path):
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


def load(source: Path | Traversable = SHIPPED) -> dict[str, Service]:
    """Read the services of a mapping file. Raises Misconfigured with file and key."""
    try:
        document = yaml.load(source.read_text(encoding="utf-8"), Loader=_Strict)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise Misconfigured(f"{source}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{source}: not the YAML it must be: {' '.join(str(error).split())}") from error
    name = source.name
    top = _keys(name, "", document, ("services",), ("services",))
    if not isinstance(top["services"], Mapping) or not top["services"]:
        raise Misconfigured(f"{name}: services: a mapping of service names is needed")
    return {str(service): _service(name, str(service), body) for service, body in top["services"].items()}


def _service(file: str, name: str, body: Any) -> Service:
    at = f"services.{name}"
    given = _keys(file, at, body, _KEYS, _REQUIRED)
    path = given["path"]
    if not isinstance(path, str) or not path.startswith("/"):
        raise Misconfigured(f"{file}: {at}.path: must begin with / and name a list, as /accesses/access")
    leaves = _leaves(file, f"{at}.leaves", given["leaves"])
    verify = _leaves(file, f"{at}.verify", given.get("verify", {}), empty=True)
    if strangers := sorted(set(verify) - set(leaves)):
        raise Misconfigured(f"{file}: {at}.verify.{strangers[0]}: no such characteristic in {at}.leaves")
    constants = given.get("constants", {})
    if not isinstance(constants, Mapping):
        raise Misconfigured(f"{file}: {at}.constants: a mapping of leaf names is needed")
    fixed = {
        _identifier(file, f"{at}.constants", k): _constant(file, f"{at}.constants.{k}", v) for k, v in constants.items()
    }
    key = _identifier(file, f"{at}.key", given["key"])
    used = [key, *leaves.values(), *fixed]
    if twice := sorted({leaf for leaf in used if used.count(leaf) > 1}):
        raise Misconfigured(f"{file}: {at}: leaf {twice[0]!r} is written twice")
    settle = given.get("settle", SETTLE)
    if isinstance(settle, bool) or not isinstance(settle, int | float) or settle < 0:
        raise Misconfigured(f"{file}: {at}.settle: must be a number of seconds")
    if not isinstance(given["namespace"], str) or not given["namespace"].strip():
        raise Misconfigured(f"{file}: {at}.namespace: must be the namespace of the YANG module")
    return Service(
        name=name,
        source=file,
        namespace=given["namespace"],
        path=tuple(_identifier(file, f"{at}.path", step) for step in path[1:].split("/")),
        key=key,
        leaves=leaves,
        constants=fixed,
        verify=verify,
        settle=float(settle),
    )


def _keys(file: str, at: str, body: Any, allowed: tuple[str, ...], required: tuple[str, ...]) -> Mapping[str, Any]:
    where = f"{at}." if at else ""
    if not isinstance(body, Mapping):
        raise Misconfigured(f"{file}: {at or 'the file'}: a mapping with {', '.join(required)} is needed")
    for key in body:
        if key not in allowed:
            raise Misconfigured(f"{file}: {where}{key}: unknown key; known are {', '.join(allowed)}")
    for key in required:
        if key not in body:
            raise Misconfigured(f"{file}: {where}{key}: is missing")
    return body


def _leaves(file: str, at: str, body: Any, empty: bool = False) -> dict[str, str]:
    if not isinstance(body, Mapping) or not (body or empty):
        raise Misconfigured(f"{file}: {at}: a mapping of characteristic to leaf is needed")
    return {str(name): _identifier(file, f"{at}.{name}", leaf) for name, leaf in body.items()}


def _constant(file: str, at: str, value: Any) -> Constant:
    if isinstance(value, Mapping):
        given = _keys(file, at, value, ("identity", "namespace"), ("identity", "namespace"))
        return Constant(_identifier(file, f"{at}.identity", given["identity"]), str(given["namespace"]))
    if isinstance(value, bool):
        return Constant("true" if value else "false")
    if isinstance(value, str | int | float):
        return Constant(str(value))
    raise Misconfigured(f"{file}: {at}: must be a single value or an identity with its namespace")


def _identifier(file: str, at: str, value: Any) -> str:
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
        raise Misconfigured(f"{file}: {at}: {value!r} is not a YANG name")
    return value


class _Strict(yaml.SafeLoader):
    """YAML that refuses a key given twice, which plain YAML readers take silently for the last one."""


def _unique(loader: _Strict, node: yaml.MappingNode) -> dict[Hashable, Any]:
    pairs = [
        (loader.construct_object(key, deep=True), loader.construct_object(value, deep=True))
        for key, value in node.value
    ]
    names = [name for name, _ in pairs]
    for name in names:
        if not isinstance(name, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a single value", node.start_mark)
        if names.count(name) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"key {name!r} is given twice", node.start_mark)
    return dict(pairs)


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique)
