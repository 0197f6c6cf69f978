"""Conditions on a resource's attributes (TMF630 part 1, filtering): read from a query string, answered by a store
or, for an event, here.

``jsonpath`` reads the same conditions from a ``filter`` expression.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from convergedon.core.errors import Invalid, Unsupported
from convergedon.core.matching import comparable, conjunction, pattern, same, values_at
from convergedon.handlers.documents import Shape, instant

Value = str | int | float | bool
MOST_VALUES = 1000
LARGEST = 2**63
SUFFIXES = frozenset(("eq", "ne", "gt", "gte", "lt", "lte", "regex"))
SIGNS = {
    "=": "eq",
    "==": "eq",
    "!=": "ne",
    ">": "gt",
    ">=": "gte",
    "<": "lt",
    "<=": "lte",
    "*=": "regex",
    "=~": "regex",
}
SIGN = re.compile(r"([^<>=*!~]+)(>=|<=|==|!=|\*=|=~|=|>|<)(.*)", re.DOTALL)
SIGNED = re.compile(r"[<>=*!~]")
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
BLANK_OFFSET = re.compile(r"(T.*:\d\d(?:\.\d+)?) (\d\d:\d\d)\Z", re.ASCII)
COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


@dataclass(frozen=True)
class Test:
    """One attribute against one or several values, of which one must do (for ``ne``: none may be equal).

    An ``exact`` value was typed by its asker (a JSONPath literal); a query string has only texts.
    """

    path: str
    operator: str
    values: tuple[Value, ...] = ()
    exact: bool = False


@dataclass(frozen=True)
class All:
    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Either:
    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    part: Condition


@dataclass(frozen=True)
class Element:
    """One and the same element of an array satisfies all of a condition."""

    path: str
    part: Condition


Condition = Test | All | Either | Not | Element
Declares = Callable[[str], bool]


# From a query string


def conditions(parameters: Iterable[tuple[str, str]], declares: Declares) -> list[Condition]:
    """What must all hold. Alternatives stand in one value (comma, semicolon) or in a parameter that is repeated."""
    tests: dict[tuple[str, str], list[str]] = {}
    mixed: list[Condition] = []
    for name, value in parameters:
        asked = _alternatives(name, value, declares)
        first = asked[0][:2]
        if all(one[:2] == first for one in asked):
            tests.setdefault(first, []).extend(text for one in asked for text in one[2])
        else:
            mixed.append(Either(tuple(Test(path, way, tuple(texts)) for path, way, texts in asked)))
    for (path, _), texts in tests.items():
        if len(texts) > MOST_VALUES:
            raise Invalid(f"{path[:200]} is given more than {MOST_VALUES} values")
    return [*(Test(path, way, tuple(texts)) for (path, way), texts in tests.items()), *mixed]


def _alternatives(name: str, value: str, declares: Declares) -> list[tuple[str, str, list[str]]]:
    """``state=a;b`` and ``state=a;state=b``; after a semicolon another attribute may be named, too."""
    path, way, text = _assignment(name, value, declares)
    if way == "regex":
        return [(path, way, [_unquoted(text)])]
    first, *others = _split(text, ";")
    asked = [(path, way, [_unquoted(piece) for piece in _split(first, ",")])]
    for part in others:
        again = SIGN.fullmatch(part)
        if again and (declared := _operator(again[1], SIGNS[again[2]], declares)) and declares(declared[0]):
            asked.append((*declared, [_unquoted(piece) for piece in _split(again[3], ",")]))
        else:
            asked.append((path, way, [_unquoted(piece) for piece in _split(part, ",")]))
    return asked


def _assignment(name: str, value: str, declares: Declares) -> tuple[str, str, str]:
    """Attribute, operator and text of a pair.

    The encoded signs of TMF630 stand in the name (``orderDate%3E2013-04-20``) or are cut in two at the sign of
    equality (``orderDate>=2013-04-20``), so the pair is put together again.
    """
    if not SIGNED.search(name) and value[:1] not in ("=", "~"):
        return (*_operator(name, "eq", declares), value)
    whole = f"{name}={value}" if value or not SIGN.fullmatch(name) else name
    found = SIGN.fullmatch(whole)
    if found is None:
        raise Invalid(f"there is no attribute {name[:200]}")
    return (*_operator(found[1], SIGNS[found[2]], declares), found[3])


def _operator(path: str, way: str, declares: Declares) -> tuple[str, str]:
    """``quantity.gte``: a suffix names an operator unless the resource has a member of that name."""
    base, _, suffix = path.rpartition(".")
    if way == "eq" and base and suffix in SUFFIXES and not declares(path):
        return base, suffix
    return path, way


def _split(text: str, separator: str) -> list[str]:
    """The parts of a text; what stands in quotes is not split."""
    if separator not in text:
        return [text]
    if "'" not in text and '"' not in text:
        return text.split(separator)
    parts, start, place, opening = [], 0, 0, True
    unclosed: set[str] = set()
    while place < len(text):
        character = text[place]
        if opening and character in "'\"" and character not in unclosed:
            end = re.compile(f"{character}(?=[,;]|\\Z)").search(text, place + 1)
            if end:
                place, opening = end.end(), False
                continue
            unclosed.add(character)
        if character == separator:
            parts.append(text[start:place])
            start = place + 1
        opening = character in ",;=<>"
        place += 1
    return [*parts, text[start:]]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


# To a store


def where(condition: Condition, shape: Shape, inside: str = "") -> dict[str, Any]:
    """A condition in the store's language. Raises Invalid for attributes that are not there and values of another
    type, Unsupported for what the store cannot be asked."""
    if isinstance(condition, Test):
        return _test(condition, shape, inside)
    if isinstance(condition, All):
        return conjunction([where(part, shape, inside) for part in condition.parts])
    if isinstance(condition, Either):
        return {"$or": [where(part, shape, inside) for part in condition.parts]}
    if isinstance(condition, Not):
        return {"$nor": [where(condition.part, shape, inside)]}
    whole = inside + condition.path
    if not shape.attribute(whole).many:
        raise Invalid(f"{whole} is no array")
    field = condition.path if inside else f"body.{condition.path}"
    return {field: {"$elemMatch": where(condition.part, shape, f"{whole}.")}}


def _test(test: Test, shape: Shape, inside: str) -> dict[str, Any]:
    name = inside + test.path
    type_ = shape.attribute(name).type
    if name == "href":
        test = _by_id(test)
    if test.operator in ("exists", "regex"):
        field = test.path if inside else field_of(name, "text")
        return {field: {"$exists": True}} if test.operator == "exists" else _found(test, field, type_, name)
    if type_ == "object":
        raise Invalid(f"{name} is an object: name one of its members")
    if inside and type_ == "instant":
        raise Unsupported(f"{name}: date-times are not compared inside of a nested filter")
    read = [value for given in test.values for value in _read(type_, given, test.exact, name)]
    return _compared(test.path if inside else field_of(name, type_), test.operator, read)


def _found(test: Test, field: str, type_: str, name: str) -> dict[str, Any]:
    if type_ not in ("text", "free", "instant"):
        raise Invalid(f"{name} is no text: regular expressions are for texts")
    return _either([{field: {"$regex": _checked(text)}} for text in test.values])


def field_of(name: str, type_: str) -> str:
    """Where an attribute is kept; the order of date-times is that of the instants which they name."""
    if name in ("id", "href"):
        return "id"
    return f"facts.at.{name}" if type_ == "instant" else f"body.{name}"


def _by_id(test: Test) -> Test:
    """href is made when a resource is shown and ends in its id."""
    if test.operator == "exists":
        return test
    if test.operator not in ("eq", "ne"):
        raise Unsupported("href: only .eq and .ne are supported")
    return Test("id", test.operator, tuple(str(value).rsplit("/", 1)[-1] for value in test.values), test.exact)


def _compared(field: str, way: str, values: Sequence[Value]) -> dict[str, Any]:
    if way == "eq":
        return {field: values[0]} if len(values) == 1 else {field: {"$in": list(values)}}
    if way == "ne":
        return {field: {"$ne": values[0]}} if len(values) == 1 else {field: {"$nin": list(values)}}
    kinds: dict[str, list[Value]] = {}
    for value in values:
        kinds.setdefault(_kind(value), []).append(value)
    # greater than one of several is greater than the least of them
    nearest = min if way in ("gt", "gte") else max
    return _either([{field: {f"${way}": nearest(several)}} for several in kinds.values()])


def _either(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return parts[0] if len(parts) == 1 else {"$or": parts}


def _kind(value: Value) -> str:
    return "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _checked(text: Value) -> str:
    if not isinstance(text, str):
        raise Invalid("a regular expression is a text")
    pattern(text)
    return text


def _read(type_: str, given: Value, exact: bool, name: str) -> list[Value]:
    """A value as the attribute has it; in free form a text of a query may mean several."""
    if type_ == "free":
        return [_storable(value, name) for value in _meanings(given, exact)]
    if type_ == "instant" and isinstance(given, str):
        return [_instant(given, name)]
    if type_ == "text" and isinstance(given, str):
        return [_storable(given, name)]
    found = next((value for value in _meanings(given, exact) if _kind(value) == type_), None)
    if found is None:
        raise Invalid(f"{name} is a {type_}, which {str(given)[:100]!r} is not")
    return [_storable(found, name)]


def _meanings(given: Value, exact: bool) -> list[Value]:
    """What a text of a query string may stand for: itself, and the number or boolean that it spells."""
    if exact or not isinstance(given, str):
        return [given]
    return [given, *_spelled(given)]


@lru_cache(1024)
def _spelled(text: str) -> tuple[Value, ...]:
    if text.lower() in ("true", "false"):
        return (text.lower() == "true",)
    if not NUMBER.fullmatch(text) or len(text) > 100:
        return ()
    number = float(text) if set(text) & set(".eE") else int(text)
    return (number,) if math.isfinite(number) else ()


def _storable(value: Value, name: str) -> Value:
    """Integers have 64 bits in the store and texts are Unicode."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Invalid(f"{name}: the text is not Unicode") from error
        return value
    return float(value) if not -LARGEST <= value < LARGEST else value


def _instant(text: str, name: str) -> int:
    """A date-time; the plus sign of an offset that was not encoded arrives as a blank."""
    try:
        return instant(BLANK_OFFSET.sub(r"\1+\2", text))
    except ValueError as error:
        raise Invalid(f"{name} is a date-time, which {text[:100]!r} is not") from error


# To an event


Look = Callable[[str], list[Any]]


def holds(condition: Condition, look: Look) -> bool:
    """Whether a condition holds of what ``look`` finds at a path. What has no schema is compared by what it is."""
    if isinstance(condition, All):
        return all(holds(part, look) for part in condition.parts)
    if isinstance(condition, Either):
        return any(holds(part, look) for part in condition.parts)
    if isinstance(condition, Not):
        return not holds(condition.part, look)
    found = look(condition.path)
    if isinstance(condition, Element):
        part = condition.part
        return any(
            holds(part, lambda path, element=element: values_at(element, path))  # type: ignore[misc]
            for array in found
            if isinstance(array, list)
            for element in array
        )
    return _passes(condition, found)


def _passes(test: Test, found: list[Any]) -> bool:
    if test.operator == "exists":
        return bool(found)
    if test.operator == "regex":
        return any(isinstance(v, str) and pattern(_checked(text))(v) for v in found for text in test.values)
    meant = [value for given in test.values for value in _meanings(given, test.exact)]
    if test.operator in ("eq", "ne"):
        return any(same(a, b) for v in found for m in meant for a, b in (_level(v, m),)) is (test.operator == "eq")
    way = COMPARE[test.operator]
    return any(comparable(a, b) and way(a, b) for v in found for m in meant for a, b in (_level(v, m),))


def _level(value: Any, wanted: Value) -> tuple[Any, Any]:
    """Two texts that both name an instant are compared as instants."""
    if isinstance(value, str) and isinstance(wanted, str) and value != wanted and value[10:11] in ("T", "t"):
        a, b = _moment(value), _moment(wanted)
        if a is not None and b is not None:
            return a, b
    return value, wanted


@lru_cache(4096)
def _moment(text: str) -> int | None:
    try:
        return _instant(text, "")
    except Invalid:
        return None
