"""The four ways in which a PATCH may be written. JSON merge patch has its own cases in test_merge.py."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from convergedon.core.errors import Conflict, Invalid, Refused, TooLarge
from convergedon.handlers.patching import APPLY, OPERATIONS, json_patch, json_patch_query, merge_patch

ORDER: dict[str, Any] = {
    "id": "7",
    "description": "two lines",
    "priority": "2",
    "note": [{"author": "Mara", "text": "a"}, {"author": "Jo", "text": "b"}, {"author": "Mara", "text": "c"}],
    "productOrderItem": [
        {"id": "1", "quantity": 1, "isBundle": False, "note": [{"author": "Mara", "text": "i"}, {"author": "Jo"}]},
        {"id": "120", "quantity": 2, "billingAccount": {"id": "1"}},
    ],
}
LIMIT = 10_000


def do(operation: str, path: str, *value: Any, **more: Any) -> dict[str, Any]:
    return {"op": operation, "path": path, **({"value": value[0]} if value else {}), **more}


def changed(path: list[Any], value: Any) -> dict[str, Any]:
    """The order with one thing another."""
    order = deepcopy(ORDER)
    at: Any = order
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return order


@pytest.mark.parametrize(
    ("patch", "wanted"),
    [
        ([], ORDER),
        ([do("replace", "/priority", "1")], changed(["priority"], "1")),
        ([do("add", "/category", "b2b")], changed(["category"], "b2b")),
        ([do("add", "/note/-", {"text": "d"})], changed(["note"], [*ORDER["note"], {"text": "d"}])),
        ([do("add", "/note/0", {"text": "d"})], changed(["note"], [{"text": "d"}, *ORDER["note"]])),
        ([do("remove", "/note/1")], changed(["note"], [ORDER["note"][0], ORDER["note"][2]])),
        ([do("copy", "/category", **{"from": "/priority"})], changed(["category"], "2")),
        ([do("test", "/priority", "2"), do("replace", "/priority", "0")], changed(["priority"], "0")),
        (
            [do("move", "/note/0", **{"from": "/note/2"})],
            changed(["note"], [ORDER["note"][2], ORDER["note"][0], ORDER["note"][1]]),
        ),
    ],
)
def test_operations_are_performed_in_their_order(patch: list[Any], wanted: dict[str, Any]) -> None:
    """As RFC 6902 has them; what was given is left as it was."""
    given = deepcopy(ORDER)

    assert json_patch(given, patch, LIMIT) == wanted
    assert json_patch_query(given, patch, LIMIT) == wanted
    assert given == ORDER


@pytest.mark.parametrize(
    ("patch", "wanted"),
    [
        ([do("test", "/priority", "1")], Conflict),
        ([do("test", "/productOrderItem/0/isBundle", 0)], Conflict),
        ([do("test", "/absent", None)], Conflict),
        ([do("remove", "/absent")], Conflict),
        ([do("replace", "/absent", 1)], Conflict),
        ([do("add", "/absent/below", 1)], Conflict),
        ([do("remove", "/note/9")], Conflict),
        ([do("move", "/x", **{"from": "/absent"})], Conflict),
        ([do("move", "/note/0", **{"from": "/note"})], Conflict),
        ([do("replace", "/priority", "0"), do("test", "/priority", "2")], Conflict),
        ([do("explode", "/priority")], Invalid),
        ([do("add", "priority", 1)], Invalid),
        ([do("add", "/priority")], Invalid),
        ([do("copy", "/priority")], Invalid),
        ([do("replace", "", [])], Invalid),
        ([do("replace", "", None)], Invalid),
        ([do("replace", "", [1]), do("remove", "/a?b=1")], Invalid),
        ([do("replace", "", None), do("replace", "", {})], Invalid),
        ([{"op": "add"}], Invalid),
        ([{"path": "/priority"}], Invalid),
        ([{"op": ["add"], "path": "/x", "value": 1}], Invalid),
        ([{"op": "add", "path": 5, "value": 1}], Invalid),
        ([{"op": "move", "path": "/x", "from": 5}], Invalid),
        ([do("add", "/note/01", 1)], Conflict),
        ([5], Invalid),
        (5, Invalid),
        ({}, Invalid),
        (None, Invalid),
        ([do("test", "/priority", "2")] * (OPERATIONS + 1), Invalid),
    ],
)
@pytest.mark.parametrize("apply", [json_patch, json_patch_query])
def test_a_patch_that_does_not_fit_changes_nothing(apply: Any, patch: Any, wanted: type[Refused]) -> None:
    """409 where the resource is not as the patch expects, 400 where it is no patch; the resource is as it was."""
    given = deepcopy(ORDER)

    with pytest.raises(wanted):
        apply(given, patch, LIMIT)

    assert given == ORDER


def test_copies_of_everything_into_itself_end_at_the_limit() -> None:
    """Twenty short operations must not fill the memory."""
    doubling = [do("copy", f"/x{number}", **{"from": ""}) for number in range(40)]

    with pytest.raises((TooLarge, Invalid)):
        json_patch(ORDER, doubling, LIMIT)


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [
        (
            do("replace", "/productOrderItem/billingAccount/id?productOrderItem.id=120", "1889"),
            changed(["productOrderItem", 1, "billingAccount", "id"], "1889"),
        ),
        (do("replace", "/productOrderItem/quantity?id=1", 5), changed(["productOrderItem", 0, "quantity"], 5)),
        (do("remove", "/note?note.author=Mara"), changed(["note"], [ORDER["note"][1]])),
        (do("remove", "/note?note.author='Mara'&note.text=c"), changed(["note"], ORDER["note"][:2])),
        (do("add", "/note/date?note.author=Jo", "now"), changed(["note", 1, "date"], "now")),
        (
            do("replace", "/productOrderItem/note/text?productOrderItem.id=1&productOrderItem.note.author=Mara", "j"),
            changed(["productOrderItem", 0, "note", 0, "text"], "j"),
        ),
        (
            do("replace", "/productOrderItem/note?productOrderItem.id=1", []),
            changed(["productOrderItem", 0, "note"], []),
        ),
        (
            do("replace", "/productOrderItem/quantity?productOrderItem.isBundle=false", 3),
            changed(["productOrderItem", 0, "quantity"], 3),
        ),
        (do("copy", "/priority", **{"from": "/note/text?note.author=Jo"}), changed(["priority"], "b")),
        (do("test", "/note/text?note.author=Jo", "b"), ORDER),
        (do("remove", "$.note[?(@.author=='Mara')]"), changed(["note"], [ORDER["note"][1]])),
        (do("remove", "note[?(@.author=='Mara' && @.text=='c')]"), changed(["note"], ORDER["note"][:2])),
        (do("add", "$.note[?(@.author=='Jo')].date", "now"), changed(["note", 1, "date"], "now")),
        (
            do("replace", "$.productOrderItem[?(@.id=='1')].note[0].text", "j"),
            changed(["productOrderItem", 0, "note", 0, "text"], "j"),
        ),
        (do("replace", "$.priority", "0"), changed(["priority"], "0")),
    ],
)
def test_a_query_selects_elements_of_arrays(operation: dict[str, Any], wanted: dict[str, Any]) -> None:
    """TMF630 part 5: all that it selects are changed."""
    assert json_patch_query(ORDER, [operation], LIMIT) == wanted


@pytest.mark.parametrize(
    "operation",
    [
        do("remove", "/note?note.author=Nobody"),
        do("remove", "/description?id=7"),
        do("remove", "/absent?id=7"),
        do("remove", "$.note[?(@.author=='Nobody')]"),
        do("replace", "$.note[?(@.author=='Jo')].absent", 1),
        do("remove", "/productOrderItem/note?productOrderItem.note.author=Nobody"),
        do("copy", "/priority", **{"from": "/note/text?note.author=Mara"}),
    ],
)
def test_a_query_that_selects_nothing_is_a_conflict(operation: dict[str, Any]) -> None:
    """Nothing is done rather than something else; a value comes from one place."""
    with pytest.raises(Conflict):
        json_patch_query(ORDER, [operation], LIMIT)


@pytest.mark.parametrize(
    "path",
    [
        "note?note.author=Jo",
        "/note?note.author",
        "/note?" + "&".join(["a=b"] * 30),
        "$.note[?(@.author",
        "$..text",
        "$",
        "$.note[?(match(@.author, '(a+)+b'))]",
        "$.note[?(@.author =~ /(a+)+b/)]",
        "$.note[0,1]",
        "$.note" + "[0]" * 400,
    ],
)
def test_a_query_that_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(Invalid):
        json_patch_query(ORDER, [do("remove", path)], LIMIT)


def test_a_plain_patch_knows_no_queries() -> None:
    """In RFC 6902 a question mark is part of a name."""
    assert json_patch({}, [do("add", "/a?b=c", 1)], LIMIT) == {"a?b=c": 1}


def test_a_merge_patch_leaves_a_resource() -> None:
    for patch in (None, [], "x", 5):
        with pytest.raises(Invalid):
            merge_patch(ORDER, patch, LIMIT)
    assert APPLY["application/json"] is APPLY["application/merge-patch+json"]
