"""What a list may be asked (TMF630): attribute filters, fields, sort, offset and limit, and filters on events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from convergedon.core.errors import Invalid
from convergedon.core.matching import values_at
from convergedon.handlers.documents import Shape

RESERVED = ("fields", "offset", "limit", "sort")
MOST = 1000


@dataclass(frozen=True)
class Query:
    """``limit`` None is the whole list; ``fields`` None is the whole resource."""

    where: Mapping[str, Any]
    sort: Sequence[tuple[str, int]]
    offset: int
    limit: int | None
    fields: frozenset[str] | None


def parse(parameters: Sequence[tuple[str, str]], shape: Shape) -> Query:
    """Read a query string's pairs. Raises Invalid for an unknown attribute or an unreadable number."""
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        given.setdefault(name, []).append(value)
    where: dict[str, Any] = {}
    for name in given.keys() - set(RESERVED):
        values = [shape.value(name, text) for value in given[name] for text in _unquoted(value).split(",")]
        where[name if name == "id" else f"body.{name}"] = {"$in": values} if len(values) > 1 else values[0]
    limit = _number(given, "limit")
    return Query(where, _sort(given, shape), _number(given, "offset") or 0, limit, fields(parameters, shape))


def fields(parameters: Sequence[tuple[str, str]], shape: Shape) -> frozenset[str] | None:
    """The members asked for by ``fields``; ``none`` asks for id and href alone. Raises Invalid for an unknown one."""
    texts = [value for name, value in parameters if name == "fields" and value]
    names = frozenset(name.strip() for text in texts for name in text.split(",") if name.strip())
    for name in names - {"none"}:
        shape.value(name, "")
    return frozenset(name.split(".")[0] for name in names) if names else None


def select(body: Mapping[str, Any], wanted: frozenset[str] | None) -> Mapping[str, Any]:
    """A representation with the asked members; id and href always stay (v4)."""
    if wanted is None:
        return body
    return {name: value for name, value in body.items() if name in wanted or name in ("id", "href")}


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _number(given: Mapping[str, list[str]], name: str) -> int | None:
    if name not in given:
        return None
    text = given[name][-1]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Invalid(f"{name} must be a whole number from 0, not {text!r}")
    return min(int(text), MOST) if name == "limit" else int(text)


def _sort(given: Mapping[str, list[str]], shape: Shape) -> list[tuple[str, int]]:
    """``sort=-a,+b``; a plus sign that was not encoded arrives as a blank."""
    names = [name for text in given.get("sort", []) for name in text.split(",") if name.strip()]
    for name in names:
        shape.value(name.lstrip("+- "), "")
    return [
        ("id" if name.lstrip("+- ") == "id" else f"body.{name.lstrip('+- ')}", -1 if name.startswith("-") else 1)
        for name in names
    ]


def links(url: str, parameters: Sequence[tuple[str, str]], query: Query, total: int) -> str:
    """The Link header of a page (RFC 8288): self, first and last, and previous and next where there are any."""
    limit = query.limit or 0
    pages = {"self": query.offset, "first": 0}
    if limit and query.offset > 0:
        pages["prev"] = max(0, query.offset - limit)
    if limit and query.offset + limit < total:
        pages["next"] = query.offset + limit
    if limit and total:
        pages["last"] = (total - 1) // limit * limit
    others = [(name, value) for name, value in parameters if name not in ("offset", "limit")]
    return ", ".join(
        f'<{url}?{urlencode([*others, ("offset", offset), ("limit", limit)])}>; rel="{relation}"'
        for relation, offset in pages.items()
    )


def event_matches(query: str, envelope: Mapping[str, Any]) -> bool:
    """Whether an event passes a subscription's query: attribute=value pairs, all of which must hold, values by comma.

    Paths begin at the event (``eventType``, ``event.alarm.state``); the resource's own members may be named alone.
    """
    for name, value in parse_qsl(query.lstrip("?"), keep_blank_values=True):
        if name == "fields":
            continue
        resource: Mapping[str, Any] = next(iter(envelope["event"].values()), {})
        found = values_at(envelope, name) or values_at(resource, name)
        wanted = _unquoted(value).split(",")
        if not any(_text(item) in wanted for item in found):
            return False
    return True


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
