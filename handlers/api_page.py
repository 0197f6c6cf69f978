"""A page that shows an API's document to people: operations, schemas and events, each linked to what it names.

connexion's own page fails on recursive schemas; here a schema is an anchor, so recursion is a link.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

import jinja2
from markupsafe import Markup, escape

from convergedon.openapi import document

METHODS = ("get", "post", "patch", "put", "delete")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def page(name: str, base: str) -> str:
    """The HTML of a document served under a base path. It needs no script and no other file."""
    whole = document(name)
    shown = [(schema, about, _members(about, whole)) for schema, about in sorted(_schemas(whole).items())]
    return _template().render(
        info=whole["info"],
        base=base,
        groups=[(tag, list(some)) for tag, some in groupby(_operations(whole), lambda one: one["tags"][0])],
        sections=[
            ("schemas", "Schemas", [one for one in shown if not _about_events(one[0])]),
            ("events", "Events", [one for one in shown if _about_events(one[0])]),
        ],
        type_of=type_of,
        words=words,
        pretty=lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    )


@cache
def _template() -> jinja2.Template:
    return jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files(__package__).joinpath("api_page.html").read_text(encoding="utf-8")
    )


def _about_events(schema: str) -> bool:
    return schema.endswith(("Event", "EventPayload"))


def _schemas(whole: Mapping[str, Any]) -> Mapping[str, Any]:
    schemas: Mapping[str, Any] = whole["components"]["schemas"]
    return schemas


def _operations(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for path, item in whole["paths"].items():
        for method in METHODS:
            if method not in item:
                continue
            operation = item[method]
            given = [*item.get("parameters", ()), *operation.get("parameters", ())]
            responses = {code: _resolved(one, whole) for code, one in sorted(operation["responses"].items())}
            yield {
                **operation,
                "path": path,
                "method": method.upper(),
                "parameters": [_resolved(parameter, whole) for parameter in given],
                "bodies": _bodies(operation, whole),
                "responses": responses,
            }


def _bodies(operation: Mapping[str, Any], whole: Mapping[str, Any]) -> list[tuple[list[str], Mapping[str, Any]]]:
    """What may be sent, with the media types in which it means the same."""
    content = _resolved(operation.get("requestBody", {}), whole).get("content", {})
    return [([name for name, _ in some], media) for media, some in groupby(content.items(), lambda item: item[1])]


def _resolved(node: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    """A parameter, body or response, which may be a reference into the components."""
    if "$ref" not in node:
        return node
    found: Any = whole
    for key in node["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    return found  # type: ignore[no-any-return]


def _members(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], bool]]:
    """name, schema and whether it is required, with the members of what a schema is made of."""
    parts = [_resolved(part, whole) for part in schema.get("allOf", ())]
    found = [member for part in parts for member in _members(part, whole)]
    required = schema.get("required", ())
    found += [(name, member, name in required) for name, member in schema.get("properties", {}).items()]
    return sorted({name: (name, member, needed) for name, member, needed in found}.values(), key=_place)


def _place(member: tuple[str, Mapping[str, Any], bool]) -> int:
    """What identifies first, what extends last; between them the document's order."""
    return -1 if member[0] in ("id", "href") else member[0].startswith("@")


def words(text: str) -> Markup:
    """A description; what stands between backticks is code."""
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", escape(text or "")))


def type_of(schema: Mapping[str, Any]) -> Markup:
    """A schema in a word or two; what it names is a link to its anchor."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return Markup('<a href="#{0}">{0}</a>').format(name)
    if schema.get("type") == "array":
        return Markup("list of {}").format(type_of(schema.get("items", {})))
    if "enum" in schema:
        return Markup(", ").join(Markup("<code>{}</code>").format(value) for value in schema["enum"])
    return escape(" ".join(schema[name] for name in ("type", "format") if name in schema) or "any")
