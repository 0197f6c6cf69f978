"""The OpenAPI documents asked: which members a resource has, which may be changed, whether a body is valid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jsonschema_rs

from convergedon.core.errors import Invalid
from convergedon.openapi import document

DEPTH = 64
SHOWN = 5


class Shape:
    """The schema of a resource in a document, with its create and update variants."""

    def __init__(self, name: str, schema: str) -> None:
        self._schemas = document(name)["components"]["schemas"]
        self.schema = schema
        self.creatable = self._variant("_Create")
        self.patchable = self._variant("_Update")
        self.required = frozenset(self._required(self._schemas.get(f"{schema}_Create", {})))

    def _variant(self, suffix: str) -> frozenset[str]:
        name = self.schema + suffix
        return frozenset(self._properties(self._schemas[name])) if name in self._schemas else frozenset()

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rsplit("/", 1)[1]]
        return schema

    def _properties(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        schema = self._resolved(schema)
        found = dict(schema.get("properties", {}))
        for part in schema.get("allOf", ()):
            found.update(self._properties(part))
        return found

    def _required(self, schema: Mapping[str, Any]) -> list[str]:
        schema = self._resolved(schema)
        return [
            *schema.get("required", ()),
            *(name for part in schema.get("allOf", ()) for name in self._required(part)),
        ]

    def value(self, path: str, text: str) -> Any:
        """The text of a query parameter as a value of the attribute's type. Raises Invalid for an unknown one."""
        schema: Mapping[str, Any] = {"$ref": f"#/components/schemas/{self.schema}"}
        for name in path.split("."):
            known = self._properties(schema)
            if name not in known:
                # a member of free form (a characteristic's value) may hold anything below it
                if not known and schema is not None and not self._resolved(schema).get("type"):
                    return text
                raise Invalid(f"{self.schema} has no attribute {path}")
            schema = self._resolved(known[name])
            if schema.get("type") == "array":
                schema = self._resolved(schema.get("items", {}))
        return _typed(schema.get("type", ""), text)


def _typed(type_: str, text: str) -> Any:
    if type_ == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return {"integer": int, "number": float}.get(type_, str)(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class Schema:
    """A compiled schema; ``check`` raises Invalid that says where and what, for the first few faults."""

    name: str
    _errors: Callable[[Any], Iterable[Any]]

    def check(self, body: Any) -> None:
        faults = [fault for fault, _ in zip(self._errors(body), range(SHOWN), strict=False)]
        if faults:
            raise Invalid("; ".join(f"{_path(fault)}: {fault.message}" for fault in faults)[:2000])


def _path(fault: Any) -> str:
    return ".".join(str(part) for part in fault.instance_path) or "body"


@cache
def schema(name: str, of: str) -> Schema:
    """Compile a schema of a document. JSON Schema draft 4 is what OpenAPI 3.0 builds on."""
    whole = {"$ref": f"#/components/schemas/{of}", "components": {"schemas": document(name)["components"]["schemas"]}}
    return Schema(of, jsonschema_rs.Draft4Validator(whole, validate_formats=True).iter_errors)


@cache
def shape(name: str, of: str) -> Shape:
    return Shape(name, of)


def check_depth(raw: bytes, body: Any) -> None:
    """Refuse what nests deeper than the store and the policies take. Raises Invalid."""
    if raw.count(b"{") + raw.count(b"[") <= DEPTH:
        return
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
