"""Which alarms a task means: an alarm that has all attributes of any of its patterns (TMF642).

``matches`` decides; ``where`` asks the store for no fewer than match, so that most others are never read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from convergedon.core.store import Where
from convergedon.handlers import documents
from convergedon.handlers.alarms import ALARM, API, attributes

Pattern = Mapping[str, Any]

PLAIN = re.compile(r"[A-Za-z@_]\w*")
"""A name that means itself in a path of the store: no dots, no operators."""

MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d")


def matches(patterns: Sequence[Pattern], alarm: Mapping[str, Any]) -> bool:
    """Whether the alarm, with its id among its members, has all attributes of one of the patterns."""
    return any(_has(attributes(pattern), alarm) for pattern in patterns)


def _has(wanted: Any, found: Any) -> bool:
    """Objects are compared by the members that are given, arrays by element, times as instants."""
    if isinstance(wanted, list):
        return isinstance(found, list) and all(_has(one, found) for one in wanted)
    if isinstance(found, list):
        return any(_has(wanted, one) for one in found)
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(_has(value, found.get(name)) for name, value in wanted.items())
    if wanted == found:
        return isinstance(wanted, bool) == isinstance(found, bool)  # in Python 1 is True
    moment = _moment(wanted)
    return moment is not None and moment == _moment(found)


def _moment(value: Any) -> int | None:
    if not isinstance(value, str) or not MOMENT.match(value):
        return None
    try:
        return documents.instant(value)
    except ValueError:
        return None


def named(patterns: Sequence[Pattern]) -> list[str]:
    """The ids that patterns name, each once, in their order."""
    return list(dict.fromkeys(str(asked["id"]) for asked in map(attributes, patterns) if "id" in asked))


def unnamed(patterns: Sequence[Pattern]) -> list[Pattern]:
    """The patterns that name no id: what they mean must be looked for."""
    return [pattern for pattern in patterns if "id" not in attributes(pattern)]


def where(patterns: Sequence[Pattern]) -> Where:
    """A filter that lets through every alarm that matches one of the patterns, and as few others as it can say."""
    filters = [dict(_conditions(attributes(pattern))) for pattern in patterns]
    return filters[0] if len(filters) == 1 else {"$or": filters}


def _conditions(asked: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    at = documents.shape(API.document, ALARM.schema).instants(asked)
    for name, value in asked.items():
        if isinstance(at.get(name), int):
            yield f"facts.at.{name}", at[name]
        elif PLAIN.fullmatch(name):
            yield from _below(f"body.{name}", value)


def _below(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a value asks of a path; of an array its first element does, as several cannot be asked of one path."""
    if isinstance(value, list):
        yield from _below(path, value[0]) if value else ()
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if PLAIN.fullmatch(name):
                yield from _below(f"{path}.{name}", inner)
    elif value is not None and not (isinstance(value, str) and MOMENT.match(value)):
        yield path, value
