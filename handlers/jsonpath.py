"""JSONPath expressions of ``filter`` (TMF630 part 6, RFC 9535) as conditions.

The whole of the language selects parts of a document; a list needs to know whether one of its elements is meant, so
what is taken is one filter selector: comparisons with literals, regular expressions, existence, logic, and filters in
filters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jsonpath
from jsonpath import filter as tree
from jsonpath import segments, selectors

from convergedon.core.errors import Invalid, Unsupported
from convergedon.handlers.filtering import All, Condition, Either, Element, Not, Test, Value

LONGEST = 4096
DEEPEST = 32
WAYS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte", "=~": "regex"}
MIRRORED = {"lt": "gt", "lte": "gte", "gt": "lt", "gte": "lte"}
# any element of ``note[*].author`` may equal a value: comparing with several nodes is what RFC 9535 forbids
LANGUAGE = jsonpath.JSONPathEnvironment(well_typed=False)


def parse(text: str) -> Condition:
    """Read an expression. Raises Invalid for what is none, Unsupported for what is outside of the part taken."""
    if len(text) > LONGEST:
        raise Invalid(f"a filter has at most {LONGEST} characters")
    try:
        query = LANGUAGE.compile(_whole(text.strip()))
    except Exception as error:  # the reader of the library meets any text: it also raises what is not its own
        raise Invalid(f"the filter is not a JSONPath expression: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(query, jsonpath.JSONPath):
        raise Unsupported("filter: unions and intersections of queries are not supported")
    return All(tuple(_filter(segment, DEEPEST) for segment in query.segments) or _nothing())


def _nothing() -> tuple[Condition, ...]:
    raise Invalid("filter: an expression must have a filter selector, [?(...)]")


def _whole(text: str) -> str:
    """``[?(...)]`` with its root, which may be left out, as may the selector around a condition."""
    if text.startswith("$"):
        return text
    if text.startswith("["):
        return f"${text}"
    return f"$[{text}]" if text.startswith("?") else f"$[?({text})]"


def _filter(segment: Any, depth: int) -> Condition:
    if not isinstance(segment, segments.JSONPathChildSegment):
        raise Unsupported("filter: descendants (..) are not supported")
    chosen = [_selected(selector, depth) for selector in segment.selectors]
    return chosen[0] if len(chosen) == 1 else Either(tuple(chosen))


def _selected(selector: Any, depth: int) -> Condition:
    if not isinstance(selector, selectors.Filter):
        raise Unsupported("filter: only filter selectors, [?(...)], choose elements of the list")
    return _condition(selector.expression, depth)


def _condition(node: Any, depth: int) -> Condition:
    if depth == 0:
        raise Invalid(f"the filter nests deeper than {DEEPEST} levels")
    if isinstance(node, tree.FilterExpression):
        return _condition(node.expression, depth)
    if isinstance(node, tree.PrefixExpression) and node.operator == "!":
        return Not(_condition(node.right, depth - 1))
    if isinstance(node, tree.InfixExpression):
        return _logical(node, depth) if node.operator in ("&&", "||") else _comparison(node)
    if isinstance(node, tree.RelativeFilterQuery):
        return _existence(node.path.segments, depth)
    if isinstance(node, tree.FunctionExtension) and node.name in ("match", "search") and len(node.args) == 2:
        return _search(node)
    raise Unsupported(f"filter: {_called(node)} is not supported here")


def _logical(node: Any, depth: int) -> Condition:
    """``a && b && c`` is one conjunction, however long and from whichever side the library nests it."""
    way, parts, left = node.operator, [], [node]
    while left:
        node = left.pop()
        if isinstance(node, tree.InfixExpression) and node.operator == way:
            left += [node.right, node.left]
        else:
            parts.append(_condition(node, depth - 1))
    return (All if way == "&&" else Either)(tuple(parts))


def _comparison(node: Any) -> Condition:
    way = WAYS.get(node.operator)
    if way is None:
        raise Unsupported(f"filter: the operator {node.operator} is not supported")
    left, right = node.left, node.right
    if not isinstance(left, tree.RelativeFilterQuery):
        left, right, way = right, left, MIRRORED.get(way, way)
    if not isinstance(left, tree.RelativeFilterQuery):
        raise Unsupported("filter: a comparison has an attribute (@.name) on one side")
    path, element = _path(left.path.segments)
    if element is not None or not path:
        raise Unsupported("filter: what is compared is an attribute, not a filter or the element itself")
    return Test(path, way, (_literal(right),), exact=True)


def _literal(node: Any) -> Value:
    if isinstance(node, tree.RegexLiteral):
        flags = "i" if node.value.flags & re.IGNORECASE else ""
        return f"(?{flags}){node.value.pattern}" if flags else str(node.value.pattern)
    literals = (tree.StringLiteral, tree.IntegerLiteral, tree.FloatLiteral, tree.BooleanLiteral)
    if isinstance(node, literals):
        return node.value
    raise Unsupported(f"filter: a comparison with {_called(node)} is not supported")


def _existence(steps: Sequence[Any], depth: int) -> Condition:
    path, element = _path(steps)
    if not path:
        raise Unsupported("filter: the element itself (@) is not asked for")
    return Test(path, "exists") if element is None else Element(path, _condition(element, depth - 1))


def _search(node: Any) -> Condition:
    """The functions of RFC 9535: ``match`` is about the whole text, ``search`` about a part."""
    asked, wanted = node.args
    path, element = _path(asked.path.segments) if isinstance(asked, tree.RelativeFilterQuery) else ("", None)
    if not path or element is not None or not isinstance(wanted, tree.StringLiteral):
        raise Unsupported(f"filter: {node.name} takes an attribute and a text")
    return Test(path, "regex", (f"^(?:{wanted.value})$" if node.name == "match" else wanted.value,), exact=True)


def _path(steps: Sequence[Any]) -> tuple[str, Any]:
    """The dotted path of an attribute, where ``[*]`` adds nothing, and the filter that stands at its end."""
    names: list[str] = []
    for place, step in enumerate(steps):
        if not isinstance(step, segments.JSONPathChildSegment) or len(step.selectors) != 1:
            raise Unsupported("filter: descendants (..) and several selectors in a path are not supported")
        selector = step.selectors[0]
        if isinstance(selector, selectors.Filter):
            if place < len(steps) - 1:
                raise Unsupported("filter: nothing follows a filter in a path")
            return ".".join(names), selector.expression
        if isinstance(selector, selectors.NameSelector):
            if "." in selector.name:
                raise Invalid(f"there is no attribute {selector.name[:200]}")
            names.append(selector.name)
        elif not isinstance(selector, selectors.WildcardSelector) or not names:
            raise Unsupported("filter: indexes and slices are not supported, any element is meant")
    return ".".join(names), None


def _called(node: Any) -> str:
    """What a part of an expression is, in words: "Function extension", "Nil"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).capitalize()


PLAIN = jsonpath.JSONPathEnvironment(well_typed=False)
PLAIN.function_extensions = {}
STEPS = (selectors.NameSelector, selectors.IndexSelector, selectors.WildcardSelector, selectors.Filter)


def places(path: str, body: Any) -> list[str]:
    """The JSON pointers of what a path such as ``$.note[?(@.author=='Mara')].text`` selects in a body.

    A member at its end need not be there yet. Raises Invalid for what is no such path: without descendants, functions
    and regular expressions, whose time nobody could bound.
    """
    try:
        query = PLAIN.compile(path if path.startswith("$") else f"$.{path.removeprefix('/')}")
    except Exception as error:  # as in parse
        raise Invalid(f"the path is not a JSONPath expression: {str(error).partition(chr(10))[0]}") from error
    steps = query.segments if isinstance(query, jsonpath.JSONPath) else ()
    if not steps or "=~" in path or not all(_is_plain(step) for step in steps):
        raise Invalid("a path has members, indexes and filters without functions")
    last = steps[-1].selectors[0]
    member = last.name if isinstance(last, selectors.NameSelector) else None
    above = jsonpath.JSONPath(env=PLAIN, segments=steps if member is None else steps[:-1])
    try:
        found = list(above.finditer(body))
    except Exception as error:  # as in parse: a filter may compare what cannot be compared
        raise Invalid(f"the path cannot be followed: {str(error).partition(chr(10))[0]}") from error
    if member is None:
        return [str(match.pointer()) for match in found]
    name = member.replace("~", "~0").replace("/", "~1")
    return [f"{match.pointer()}/{name}" for match in found if isinstance(match.obj, dict)]


def _is_plain(step: Any) -> bool:
    return (
        isinstance(step, segments.JSONPathChildSegment)
        and len(step.selectors) == 1
        and isinstance(step.selectors[0], STEPS)
    )
