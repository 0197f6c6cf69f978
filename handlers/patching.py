"""What a PATCH makes of a representation, by the media type in which it is written.

A patch is applied to a copy: it holds as a whole or not at all. ``APPLY`` is the list of what is understood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any
from urllib.parse import parse_qsl

import jsonpatch
import orjson
from jsonpointer import JsonPointerException

from convergedon.core.errors import Conflict, Invalid, TooLarge
from convergedon.core.matching import values_at
from convergedon.handlers import jsonpath
from convergedon.handlers.documents import check_nesting

OPERATIONS = 1000
"""Operations that one JSON Patch may have."""
LONGEST_PATH = 1000

Body = dict[str, Any]
Condition = tuple[tuple[str, ...], str]
"""A member's path and the text that it must have."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396: null removes, an object merges, anything else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def merge_patch(body: Body, patch: Any, limit: int) -> Body:
    """RFC 7396 on a resource. Raises Invalid for a patch that would replace it by something else."""
    if not isinstance(patch, dict):
        raise Invalid("a merge patch must be a JSON object (RFC 7396)")
    return merge(body, patch)  # type: ignore[no-any-return]


def json_patch(body: Body, patch: Any, limit: int) -> Body:
    """RFC 6902. Raises Invalid for what is no patch, Conflict when an operation does not fit, TooLarge."""
    changed = deepcopy(body)
    for number, operation in enumerate(_operations(patch)):
        changed = _performed(changed, operation, number, limit)
    return changed


def json_patch_query(body: Body, patch: Any, limit: int) -> Body:
    """TMF630 part 5: JSON Patch whose paths may select elements of arrays, ``/note/text?note.author=Mara``, or in its
    later form by JSONPath, ``$.note[?(@.author=='Mara')].text``.

    An operation is performed on all that its path selects. Raises as json_patch does, Conflict when nothing is
    selected.
    """
    changed = deepcopy(body)
    for number, operation in enumerate(_operations(patch)):
        for plain in _plain(changed, operation, number):
            changed = _performed(changed, plain, number, limit)
    return changed


APPLY: Mapping[str, Callable[[Body, Any, int], Body]] = {
    "application/json": merge_patch,
    "application/merge-patch+json": merge_patch,
    "application/json-patch+json": json_patch,
    "application/json-patch-query+json": json_patch_query,
}
"""Media type -> (representation, patch, most bytes) -> changed representation."""


def _operations(patch: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(patch, list) or not all(isinstance(operation, dict) for operation in patch):
        raise Invalid("a JSON Patch is an array of operations (RFC 6902)")
    if len(patch) > OPERATIONS:
        raise Invalid(f"a JSON Patch has at most {OPERATIONS} operations")
    return patch


def _performed(body: Body, operation: Mapping[str, Any], number: int, limit: int) -> Body:
    """The body after one operation, which may change the given one in place."""
    try:
        patch = jsonpatch.JsonPatch([operation])
    except (jsonpatch.JsonPatchException, JsonPointerException) as error:
        raise Invalid(f"operation {number}: {str(error)[:200]}") from error
    try:
        body = patch.apply(body, in_place=True)
    except jsonpatch.InvalidJsonPatch as error:
        raise Invalid(f"operation {number}: {str(error)[:200]}") from error
    except (jsonpatch.JsonPatchException, JsonPointerException) as error:
        raise Conflict(f"operation {number} does not fit: {str(error)[:200]}") from error
    if not isinstance(body, dict):
        raise Invalid(f"operation {number}: a resource is a JSON object and cannot be replaced by something else")
    if operation["op"] in ("copy", "move"):
        check_nesting(body)
    # a few copies of everything into itself would fill any memory
    if operation["op"] == "copy" and len(orjson.dumps(body)) > limit:
        raise TooLarge(f"operation {number} makes the resource larger than {limit} bytes")
    return body


def _plain(body: Any, operation: Mapping[str, Any], number: int) -> Iterator[Mapping[str, Any]]:
    """The operations of RFC 6902 that one with a query stands for; from the back, so that places stay what they are."""
    path, source = operation.get("path"), operation.get("from")
    if not isinstance(path, str) or not isinstance(source, str | None):
        raise Invalid(f"operation {number}: path and from are text")
    try:
        sources = _selected(body, source) if source is not None else [None]
        places = _selected(body, path)
    except Invalid as error:
        raise Invalid(f"operation {number}: {error}") from error
    if len(sources) != 1:
        raise Conflict(f"operation {number}: from selects {len(sources)} places, not one")
    if not places:
        raise Conflict(f"operation {number}: {path} selects nothing")
    for place in reversed(places):
        yield {**operation, "path": place} | ({"from": sources[0]} if source is not None else {})


def _selected(body: Any, path: str) -> list[str]:
    """The JSON pointers that a path with a query selects; a path without one is a pointer itself."""
    if path.startswith("$") or "[?" in path:
        if len(path) > LONGEST_PATH:
            raise Invalid(f"a path has at most {LONGEST_PATH} characters")
        return jsonpath.places(path, body)
    pointer, _, query = path.partition("?")
    if not query:
        return [path]
    if not pointer.startswith("/"):
        raise Invalid(f"{path[:200]} is no JSON pointer with a query")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=20)
    except ValueError as error:
        raise Invalid(f"{query[:200]} is no query: attribute=value, joined by &") from error
    conditions = [(tuple(name.split(".")), value.strip("'\"")) for name, value in pairs]
    return list(_walk(body, tuple(pointer.split("/")[1:]), (), "", conditions, False))


def _walk(
    value: Any,
    tokens: tuple[str, ...],
    names: tuple[str, ...],
    place: str,
    conditions: Sequence[Condition],
    entered: bool,
) -> Iterator[str]:
    """Follow the tokens; an array that is not entered by an index is entered by the elements that are asked for.

    A condition is about the elements of the array whose name it begins with, else about those of the first array.
    """
    indexed = bool(tokens) and (tokens[0].isdigit() or tokens[0] == "-")
    if isinstance(value, list) and not indexed:
        mine = [(name[len(names) :], text) for name, text in conditions if name[: len(names)] == names]
        mine += [(name, text) for name, text in conditions if name[0] != names[0] and not entered]
        if not mine and not tokens and entered:
            yield place
        for index, element in enumerate(value):
            if mine and all(_has(element, name, text) for name, text in mine):
                yield from _walk(element, tokens, names, f"{place}/{index}", conditions, True)
    elif not tokens:
        if entered:
            yield place
    else:
        yield from _step(value, tokens, names, place, conditions, entered)


def _step(
    value: Any,
    tokens: tuple[str, ...],
    names: tuple[str, ...],
    place: str,
    conditions: Sequence[Condition],
    entered: bool,
) -> Iterator[str]:
    token, rest = tokens[0], tokens[1:]
    name, further = token.replace("~1", "/").replace("~0", "~"), f"{place}/{token}"
    if isinstance(value, dict) and name in value:
        yield from _walk(value[name], rest, (*names, name), further, conditions, entered)
    elif isinstance(value, list) and token.isdigit() and int(token) < len(value):
        yield from _walk(value[int(token)], rest, names, further, conditions, entered)
    elif not rest and entered:
        yield further


def _has(element: Any, name: tuple[str, ...], text: str) -> bool:
    found = values_at(element, ".".join(name)) if name else [element]
    return any((str(value).lower() if isinstance(value, bool) else str(value)) == text for value in found)
