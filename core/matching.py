"""Filters in MongoDB's language, answered here: by the store in memory, and for what a server is not asked.

Only the part of the language that the gateway uses. Its regular expressions are RE2's: whatever the pattern and the
text, they take time in proportion to the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
import re2

from convergedon.core.errors import Invalid

Where = Mapping[str, Any]
"""A filter in MongoDB's language over ``id``, ``tenant``, ``body.*`` and ``facts.*``."""

LONGEST_PATTERN = 200
PATTERN_MEMORY = 1 << 20


@lru_cache(1024)
def pattern(text: str) -> Callable[[str], bool]:
    """What tells whether a regular expression is found in a text. Raises Invalid for one that RE2 does not take."""
    if len(text) > LONGEST_PATTERN:
        raise Invalid(f"a regular expression has at most {LONGEST_PATTERN} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_MEMORY
    try:
        search = re2.compile(text, options=options).search
    except (re2.error, UnicodeError) as error:
        raise Invalid(f"the regular expression {text!r} is refused: {_reason(error)}") from error
    return lambda value: search(value) is not None


def _reason(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    return told.decode(errors="replace") if isinstance(told, bytes) else str(error)


def values_at(document: Any, path: str) -> list[Any]:
    """All values at a dotted path; an array on the way, and at its end, stands for each of its elements, too."""
    found = _held(document, path)
    return found + [item for value in found if isinstance(value, list) for item in value]


def _held(document: Any, path: str) -> list[Any]:
    found = [document]
    for name in path.split("."):
        step: list[Any] = []
        for value in found:
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Mapping) and name in item:
                    step.append(item[name])
        found = step
    return found


def comparable(a: Any, b: Any) -> bool:
    """Whether two values have an order: numbers among themselves, texts, booleans (which are no numbers)."""
    if isinstance(a, bool) or isinstance(b, bool):
        return isinstance(a, bool) and isinstance(b, bool)
    if isinstance(a, int | float):
        return isinstance(b, int | float)
    return isinstance(a, str) and isinstance(b, str)


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The members that two JSON objects do not have in common; one that is null counts as absent."""
    return sorted(name for name in before.keys() | after.keys() if not written_alike(before.get(name), after.get(name)))


def written_alike(a: Any, b: Any) -> bool:
    """Whether two values are the same JSON, at any depth: in Python ``False == 0`` and ``1 == 1.0``."""
    if a is b or a != b:
        return a is b
    return isinstance(a, str) or _text(a) == _text(b)


def _text(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def same(a: Any, b: Any) -> bool:
    return bool(a == b) and (comparable(a, b) or not isinstance(a, int | float))


def _equals(values: list[Any], wanted: Any) -> bool:
    return any(same(value, wanted) for value in values) or (wanted is None and not values)


def _is_one_of(values: list[Any], wanted: Sequence[Any]) -> bool:
    return any(_equals(values, one) for one in wanted)


def _compare(way: Callable[[Any, Any], bool]) -> Callable[[list[Any], Any], bool]:
    return lambda values, wanted: any(comparable(value, wanted) and way(value, wanted) for value in values)


def _has_element(values: list[Any], wanted: Where) -> bool:
    """Whether an array has an element that satisfies the whole of a filter."""
    elements = (item for value in values if isinstance(value, list) for item in value if isinstance(item, Mapping))
    return any(matches(element, wanted) for element in elements)


OPERATORS: Mapping[str, Callable[[list[Any], Any], bool]] = {
    "$eq": _equals,
    "$ne": lambda values, wanted: not _equals(values, wanted),
    "$in": _is_one_of,
    "$nin": lambda values, wanted: not _is_one_of(values, wanted),
    "$exists": lambda values, wanted: bool(values) == wanted,
    "$gt": _compare(lambda a, b: a > b),
    "$gte": _compare(lambda a, b: a >= b),
    "$lt": _compare(lambda a, b: a < b),
    "$lte": _compare(lambda a, b: a <= b),
    "$regex": lambda values, wanted: any(isinstance(v, str) and pattern(wanted)(v) for v in values),
    "$elemMatch": _has_element,
}


def matches(document: Mapping[str, Any], where: Where) -> bool:
    """Whether a document satisfies a filter."""
    for path, wanted in where.items():
        if path == "$and":
            good = all(matches(document, part) for part in wanted)
        elif path == "$or":
            good = any(matches(document, part) for part in wanted)
        elif path == "$nor":
            good = not any(matches(document, part) for part in wanted)
        else:
            test = wanted if isinstance(wanted, Mapping) and all(k in OPERATORS for k in wanted) else {"$eq": wanted}
            values = values_at(document, path)
            good = all(
                OPERATORS[name](_held(document, path) if name == "$elemMatch" else values, operand)
                for name, operand in test.items()
            )
        if not good:
            return False
    return True


def conjuncts(where: Where) -> list[dict[str, Any]]:
    """The parts of a filter that must all hold, each with one key; what ``$and`` holds lies flat among them."""
    return [
        part
        for path, wanted in where.items()
        for part in ([p for one in wanted for p in conjuncts(one)] if path == "$and" else [{path: wanted}])
    ]


def conjunction(parts: Sequence[Where]) -> dict[str, Any]:
    """One filter for parts that must all hold: as flat as it can be, since servers look up indexes for flat ones."""
    if len(parts) == 1:
        return dict(parts[0])
    joined: dict[str, Any] = {}
    left: list[Where] = []
    for part in parts:
        for path, wanted in part.items():
            there = joined.get(path, {})
            if path not in joined:
                joined[path] = wanted
            elif _tests(there) and _tests(wanted) and not there.keys() & wanted.keys():
                joined[path] = {**there, **wanted}
            else:
                left.append({path: wanted})
    return {**joined, "$and": [*joined.get("$and", ()), *left]} if left else joined


def _tests(wanted: Any) -> bool:
    return isinstance(wanted, Mapping) and all(name in OPERATORS for name in wanted)


TYPES: tuple[Any, ...] = (type(None), (int, float), str, Mapping, list)
BOOLEAN = len(TYPES)
EMPTY = (-1, 0)


def rank(values: Sequence[Any], way: int) -> tuple[int, Any]:
    """Where a record stands in an order, as MongoDB has it: by type first; with several values by its first in it."""
    ranks = [_rank(value) for value in values if not isinstance(value, list)]
    ranks += [EMPTY for value in values if value == []]
    return (min if way > 0 else max)(ranks, default=(0, 0))


def _rank(value: Any) -> tuple[int, Any]:
    if isinstance(value, bool):
        return BOOLEAN, value
    type_ = next(place for place, kind in enumerate(TYPES) if isinstance(value, kind))
    return type_, value if type_ in (1, 2) else 0
