"""What a list may be asked (TMF630): filters, fields, sort, offset and limit, and which events a listener hears."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode

from convergedon.core.errors import Invalid, Unsupported
from convergedon.core.matching import conjunction, values_at
from convergedon.handlers import jsonpath
from convergedon.handlers.documents import Shape
from convergedon.handlers.filtering import (
    SUFFIXES,
    All,
    Condition,
    Either,
    Element,
    Not,
    Test,
    conditions,
    field_of,
    holds,
    where,
)
from convergedon.handlers.versions import SAME, Translation, kept_field, kept_where

RESERVED = frozenset(("fields", "offset", "limit", "sort", "filter"))
LONGEST_EVENT_QUERY = 4096
MOST_SORTED = 8

Fields = Mapping[str, "Fields"]
"""Members by name, each with those wanted of it; none are all of it."""


@dataclass(frozen=True)
class Query:
    """``limit`` None is the whole list; ``fields`` None is the whole resource."""

    where: Mapping[str, Any]
    sort: Sequence[tuple[str, int]]
    offset: int
    limit: int | None
    fields: Fields | None

    def about(self, members: Iterable[str]) -> bool:
        """Whether the choice or the order depends on any of these members, or on what is inside them."""
        paths = [*_paths(self.where), *(path for path, _ in self.sort)]
        return any(f"{path}.".startswith(f"body.{member}.") for path in paths for member in members)


def _paths(where: Any) -> Iterator[str]:
    """The fields that a filter looks at, by their full names where it does not lead into one."""
    if isinstance(where, Mapping):
        for name, value in where.items():
            yield name
            yield from _paths(value)
    elif isinstance(where, list | tuple):
        for part in where:
            yield from _paths(part)


NOTHING = Query({}, (), 0, None, None)


def parse(parameters: Sequence[tuple[str, str]], shape: Shape, translation: Translation = SAME) -> Query:
    """Read a query string's pairs, in the words of the version that has this shape and translation.

    Raises Invalid for what cannot be read, Unsupported for JSONPath beyond our part.
    """
    if not parameters:
        return NOTHING
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        if name in RESERVED:
            given.setdefault(name, []).append(value)
    asked = conditions([pair for pair in parameters if pair[0] not in RESERVED], shape.declares)
    asked += [jsonpath.parse(text) for text in given.get("filter", ())]
    wanted = kept_where(conjunction([where(condition, shape) for condition in asked]), translation)
    offset, limit = _number(given, "offset") or 0, _number(given, "limit")
    sort = [(kept_field(field, translation), way) for field, way in _sort(given.get("sort", ()), shape)]
    return Query(wanted, sort, offset, limit, _fields(given.get("fields", ()), shape))


def fields(parameters: Sequence[tuple[str, str]], shape: Shape) -> Fields | None:
    """The members asked for by ``fields``; ``none`` asks for id and href alone. Raises Invalid for an unknown one."""
    return _fields([value for name, value in parameters if name == "fields"], shape)


def _fields(texts: Iterable[str], shape: Shape) -> Fields | None:
    names = _names(texts)
    for name in names:
        if name != "none":
            shape.attribute(name)
    wanted = _tree(names)
    return None if wanted is None else {**wanted, **{name: {} for name in shape.always}}


def _names(texts: Iterable[str]) -> list[str]:
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def _tree(names: Sequence[str]) -> Fields | None:
    """``note,note.text`` is all of note: shorter names are planted first and nothing grows below them."""
    if not names:
        return None
    root: dict[str, Any] = {}
    for name in sorted(set(names) - {"none"}, key=len):
        *way, last = name.split(".")
        branch: dict[str, Any] | None = root
        for step in way:
            branch = None if branch is None or branch.get(step) == {} else branch.setdefault(step, {})
        if branch is not None:
            branch[last] = {}
    return root


def select(body: Mapping[str, Any], wanted: Fields | None) -> Mapping[str, Any]:
    """A representation with the asked members; id and href always stay (v4)."""
    if wanted is None:
        return body
    return {
        name: _part(value, wanted.get(name, {}))
        for name, value in body.items()
        if name in wanted or name in ("id", "href")
    }


def _part(value: Any, wanted: Fields) -> Any:
    if isinstance(value, list):
        return [_part(item, wanted) for item in value]
    if not wanted or not isinstance(value, Mapping):
        return value
    return {name: _part(value[name], below) for name, below in wanted.items() if name in value}


def _number(given: Mapping[str, list[str]], name: str) -> int | None:
    if name not in given:
        return None
    text = given[name][-1]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Invalid(f"{name} must be a whole number from 0 to 999999999, not {text[:100]!r}")
    return int(text)


def _sort(texts: Iterable[str], shape: Shape) -> list[tuple[str, int]]:
    """``sort=-a,+b``; a plus sign that was not encoded arrives as a blank.

    What is alike in all of them stands in the order of the ids, so that pages neither repeat nor leave out: in the
    direction of the last attribute, as a server reads an index from one end or from the other.
    """
    found: dict[str, int] = {}
    for text in _names([part.replace(" ", "") for part in texts]):
        name = text.lstrip("+-")
        found.setdefault(field_of(name, shape.attribute(name).type), -1 if text.startswith("-") else 1)
    if len(found) > MOST_SORTED:
        raise Invalid(f"sort takes at most {MOST_SORTED} attributes")
    if found:
        found.setdefault("id", list(found.values())[-1])
    return list(found.items())


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
    others = urlencode([(name, value) for name, value in parameters if name not in ("offset", "limit")])
    begin = f"{url}?{others}&" if others else f"{url}?"
    return ", ".join(f'<{begin}offset={offset}&limit={limit}>; rel="{relation}"' for relation, offset in pages.items())


@dataclass(frozen=True)
class Listening:
    """A subscription's query, read: what must hold of an event, and which members of its resource are wanted."""

    condition: All
    fields: Fields | None

    def hears(self, envelope: Mapping[str, Any]) -> bool:
        """Paths begin at the event (``event.alarm.state``) or at the resource in it (``state``)."""
        if not self.condition.parts:
            return True
        resource: Any = next(iter(envelope["event"].values()), {})
        return holds(self.condition, lambda path: values_at(envelope, path) + values_at(resource, path))


@lru_cache(4096)
def compiled(query: str) -> Listening:
    """Read a subscription's query, in the grammar of a list's. Raises Invalid and Unsupported as ``parse`` does."""
    if len(query) > LONGEST_EVENT_QUERY:
        raise Invalid(f"a query has at most {LONGEST_EVENT_QUERY} characters")
    pairs = parse_qsl(query.lstrip("?"), keep_blank_values=True)
    asked = conditions([pair for pair in pairs if pair[0] not in RESERVED], _may_be_an_attribute)
    asked += [jsonpath.parse(value) for name, value in pairs if name == "filter"]
    names = _names(value for name, value in pairs if name == "fields")
    return Listening(All(tuple(asked)), _tree([_in_resource(name) for name in names]))


def _may_be_an_attribute(path: str) -> bool:
    """Without a schema a name is taken for an attribute's as far as it looks like one."""
    return all(part.removeprefix("@").isalnum() for part in path.split(".")) and path.rpartition(".")[2] not in SUFFIXES


def _in_resource(path: str) -> str:
    """``event.alarm.state`` as a member of the alarm."""
    first, *rest = path.split(".")
    return ".".join(rest[1:]) if first == "event" and len(rest) > 1 else path


def event_matches(query: str, envelope: Mapping[str, Any]) -> bool:
    """Whether an event passes a subscription's query. Raises Invalid and Unsupported for one that cannot be read."""
    return compiled(query).hears(envelope)


def event_fields(query: str) -> Fields | None:
    """The members of an event's resource that a subscription asks for, as ``select`` takes them."""
    return compiled(query).fields


def check_event_query(query: str, shapes: Sequence[Shape] = ()) -> None:
    """Raises Invalid or Unsupported for what cannot be read; an attribute must be one of a schema's, if some are given.

    ``shapes`` are those of the events and of the resources that a listener may hear of.
    """
    listening = compiled(query)
    for condition in listening.condition.parts:
        _check(condition, shapes)
    for path in _leaves(listening.fields or {}):
        if shapes and not any(shape.has(path) for shape in shapes):
            raise Invalid(f"there is no attribute {path[:200]}")


def _leaves(fields: Fields, above: str = "") -> Iterator[str]:
    for name, below in fields.items():
        yield from _leaves(below, f"{above}{name}.") if below else (f"{above}{name}",)


def _check(condition: Condition, shapes: Sequence[Shape]) -> None:
    """One schema must take the whole of a test; alternatives may be of different ones."""
    if isinstance(condition, All | Either):
        for part in condition.parts:
            _check(part, shapes)
    elif isinstance(condition, Not):
        _check(condition.part, shapes)
    else:
        _check_test(condition, shapes)


def _check_test(test: Test | Element, shapes: Sequence[Shape]) -> None:
    if isinstance(test, Test) and test.operator == "regex":
        holds(test, lambda _: [""])
    knowing = [shape for shape in shapes if shape.has(test.path)]
    if shapes and not knowing:
        raise Invalid(f"there is no attribute {test.path[:200]}")
    refused: list[Exception] = []
    for shape in knowing:
        try:
            where(test, shape)
        except Invalid as error:
            refused.append(error)
        except Unsupported:
            return  # a store cannot answer it, an event can
        else:
            return
    if refused:
        raise refused[0]
