"""The OpenAPI documents asked: which members a resource has, which may be changed, whether a body is valid."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

import jsonschema_rs

from convergedon.core.errors import Invalid
from convergedon.openapi import document

DEPTH = 64
SHOWN = 5
REMEMBERED = 1000
LONGEST_NAME = 200
NAME = re.compile(r"[\w@-]+")
TYPES = {"integer": "number", "number": "number", "boolean": "boolean", "object": "object"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

Dated = list[tuple[str, "Callable[[], Dated] | None"]]
"""Members that are date-times (None) or lead to some (what those are)."""


def instant(text: str) -> int:
    """An RFC 3339 date-time as microseconds since 1970 in UTC; without an offset it counts as UTC, a date as midnight.

    Raises ValueError for what cannot be read.
    """
    try:
        read, leap = datetime.fromisoformat(text), 0
    except ValueError:
        # what RFC 3339 allows beyond Python: small letters and the leap second
        text, leap = text.upper(), 1_000_000 * (text[16:19] == ":60")
        read = datetime.fromisoformat(f"{text[:17]}59{text[19:]}" if leap else text)
    # the difference, unlike a conversion to UTC, exists at both ends of the calendar too
    return (read - EPOCH if read.tzinfo else read.replace(tzinfo=UTC) - EPOCH) // MICROSECOND + leap


@dataclass(frozen=True)
class Attribute:
    """What may be asked of a member: its ``type`` (text, number, boolean, instant, object, free), ``many`` in an array.

    A free one holds any JSON value; what is named below one is not ``declared``.
    """

    type: str
    many: bool
    declared: bool = True


class Shape:
    """The schema of a resource in a document, with its create and update variants (X_FVO and X_MVO in version 5)."""

    def __init__(self, name: str, schema: str) -> None:
        self._schemas = document(name)["components"]["schemas"]
        self.schema = schema
        self.create = next((name for name in (f"{schema}_Create", f"{schema}_FVO") if name in self._schemas), "")
        self.update = next((name for name in (f"{schema}_Update", f"{schema}_MVO") if name in self._schemas), "")
        self.creatable = frozenset(self._properties(self._schemas.get(self.create, {})))
        self.patchable = frozenset(self._properties(self._schemas.get(self.update, {})))
        self.required = frozenset(self._required(self._schemas.get(self.create, {})))
        self.always = frozenset(self._required(self._schemas[schema])) & {"@type"}
        self._dated: dict[int, Dated] = {}
        self._attributes: dict[str, Attribute] = {}

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rsplit("/", 1)[1]]
        return schema

    def _properties(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        schema = self._resolved(schema)
        found = dict(schema.get("properties", {}))
        for word in ("allOf", "oneOf", "anyOf"):
            for part in schema.get(word, ()):
                found.update(self._properties(part))
        return found

    def _required(self, schema: Mapping[str, Any]) -> list[str]:
        schema = self._resolved(schema)
        return [
            *schema.get("required", ()),
            *(name for part in schema.get("allOf", ()) for name in self._required(part)),
        ]

    def attribute(self, path: str) -> Attribute:
        """What stands at a dotted path, whatever arrays are on the way. Raises Invalid for what the schema has not."""
        if path not in self._attributes:
            if len(self._attributes) >= REMEMBERED:
                self._attributes.clear()
            self._attributes[path] = self._find(path)
        return self._attributes[path]

    def declares(self, path: str) -> bool:
        """Whether the schema itself has an attribute of this name."""
        return self.has(path) and self.attribute(path).declared

    def has(self, path: str) -> bool:
        try:
            self.attribute(path)
        except Invalid:
            return False
        return True

    def _find(self, path: str) -> Attribute:
        names = path.split(".")
        schema: Mapping[str, Any] = self._schemas[self.schema]
        many = False
        for depth, name in enumerate(names):
            known = self._properties(schema)
            if name not in known:
                # a member of free form (a characteristic's value) may hold anything below it
                if depth and _is_free(schema, known) and len(names) <= DEPTH and all(map(NAME.fullmatch, names)):
                    return Attribute("free", True, False)
                raise Invalid(f"{self.schema} has no attribute {path[:LONGEST_NAME]}")
            schema = self._resolved(known[name])
            many = schema.get("type") == "array"
            schema = self._element(schema)
        return Attribute(_type(schema, self._properties(schema)), many)

    def instants(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The date-time members of a body as ``instant`` reads them, mirrored by path.

        An array on the way collapses: the member is then the list of what all its elements hold. What cannot be read
        is left out.
        """
        return _gather([body], self.dated(self._schemas[self.schema]), False, DEPTH)

    def dated(self, schema: Mapping[str, Any]) -> Dated:
        """The date-times of a schema, looked for once; their members only when they are met, as schemas recur."""
        if id(schema) not in self._dated:
            self._dated[id(schema)] = []
            members = ((name, self._element(part)) for name, part in self._properties(schema).items())
            self._dated[id(schema)] += [
                (name, None if part.get("format") == "date-time" else partial(self.dated, part))
                for name, part in members
                if self._tells_time(part, set())
            ]
        return self._dated[id(schema)]

    def _element(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema of a value, in an array of one of its elements."""
        schema = self._resolved(schema)
        while schema.get("type") == "array":
            schema = self._resolved(schema.get("items", {}))
        return schema

    def _tells_time(self, schema: Mapping[str, Any], seen: set[int]) -> bool:
        if schema.get("format") == "date-time":
            return True
        if id(schema) in seen:
            return False
        seen.add(id(schema))
        return any(self._tells_time(self._element(part), seen) for part in self._properties(schema).values())


def _gather(objects: Sequence[Mapping[str, Any]], dated: Dated, many: bool, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, below in dated if depth else ():
        values = [value[name] for value in objects if name in value]
        if not values:
            continue  # schemas recur: what is not there leads nowhere
        several = many
        while any(isinstance(value, list) for value in values):
            values = [item for value in values for item in (value if isinstance(value, list) else (value,))]
            several = True
        if below:
            held: Any = _gather([value for value in values if isinstance(value, dict)], below(), several, depth - 1)
        else:
            read = [moment for moment in map(_instant, values) if moment is not None]
            held = read if several or not read else read[0]
        if held or held == 0:
            found[name] = held
    return found


def _instant(value: Any) -> int | None:
    try:
        return instant(value)
    except (ValueError, TypeError, AttributeError):
        return None


def _is_free(schema: Mapping[str, Any], properties: Mapping[str, Any]) -> bool:
    return not properties and schema.get("type") in (None, "object")


def _type(schema: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    if schema.get("format") == "date-time":
        return "instant"
    if _is_free(schema, properties):
        return "free"
    return TYPES.get(schema.get("type", "object"), "text")


@dataclass(frozen=True)
class Schema:
    """A compiled schema; ``check`` raises Invalid that says where and what, for the first few faults."""

    name: str
    _errors: Callable[[Any], Iterable[Any]]

    def faults(self, body: Any) -> list[list[str | int]]:
        """Where a body does not follow the schema."""
        return [list(fault.instance_path) for fault in self._errors(body)]

    def check(self, body: Any, *where: str) -> None:
        """``where`` is what stands before the path of a fault, if the body is a part of another."""
        faults = [fault for fault, _ in zip(self._errors(body), range(SHOWN), strict=False)]
        if faults:
            raise Invalid("; ".join(f"{_path(fault, where)}: {fault.message}" for fault in faults)[:2000])


def _path(fault: Any, where: Sequence[str] = ()) -> str:
    return ".".join([*where, *map(str, fault.instance_path)]) or "body"


@cache
def schema(name: str, of: str) -> Schema:
    """Compile a schema of a document. JSON Schema draft 4 is what OpenAPI 3.0 builds on."""
    whole = {"$ref": f"#/components/schemas/{of}", "components": {"schemas": document(name)["components"]["schemas"]}}
    return Schema(of, jsonschema_rs.Draft4Validator(whole, validate_formats=True).iter_errors)


def hub(name: str) -> str:
    """The schema of a subscription as it is asked for; version 5 calls it like its other bodies."""
    return "Hub_FVO" if "Hub_FVO" in document(name)["components"]["schemas"] else "EventSubscriptionInput"


@cache
def shape(name: str, of: str) -> Shape:
    return Shape(name, of)


def check_depth(raw: bytes, body: Any) -> None:
    """The same of a body just read, quickly where its text cannot nest so deep. Raises Invalid."""
    if raw.count(b"{") + raw.count(b"[") > DEPTH:
        check_nesting(body)


def check_nesting(body: Any) -> None:
    """Refuse what nests deeper than the store and the policies take. Raises Invalid."""
    level = [body]
    for _ in range(DEPTH):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise Invalid(f"the body nests deeper than {DEPTH} levels")
