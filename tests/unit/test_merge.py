"""JSON merge patch as RFC 7396 has it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.handlers.patching import merge

# The cases of the RFC's appendix A: original, patch, result
CASES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("original", "patch", "result"), CASES)
def test_the_cases_of_the_standard(original: Any, patch: Any, result: Any) -> None:
    """Appendix A, each line."""
    assert merge(original, patch) == result


@given(VALUES, VALUES)
def test_merging_twice_is_merging_once(original: Any, patch: Any) -> None:
    """A repeated patch changes nothing more."""
    once = merge(original, patch)

    assert merge(once, patch) == once


@given(VALUES, VALUES)
def test_merging_leaves_its_arguments_alone(original: Any, patch: Any) -> None:
    """What was read from the store stays as it was read."""
    before = deepcopy((original, patch))
    merge(original, patch)

    assert (original, patch) == before
