"""What makes a condition flap: so many clears within a window, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.core import settings
from convergedon.core.store import Record
from convergedon.mediation.flapping import is_one_too_many, once_quiet

CHOSEN = settings.load(flap_clears=3, flap_window=60, flap_quiet=10)
TIMES = st.lists(st.integers(0, 300), max_size=12)


@pytest.mark.parametrize(
    ("before", "flaps"),
    [([], False), ([99], False), ([98, 99], True), ([39, 99], False), ([40, 99], True), ([101, 102], False)],
)
def test_the_third_clear_within_a_minute_is_one_too_many(before: list[float], flaps: bool) -> None:
    assert is_one_too_many(CHOSEN, before, 100) is flaps


@given(TIMES, st.integers(0, 300))
def test_the_order_of_what_is_remembered_does_not_matter(before: list[float], now: int) -> None:
    assert is_one_too_many(CHOSEN, before, now) is is_one_too_many(CHOSEN, sorted(before), now)


@given(TIMES, st.integers(0, 300))
def test_what_is_switched_off_never_flaps(before: list[float], now: int) -> None:
    assert not is_one_too_many(settings.load(flap_clears=0), before, now)


def test_the_same_word_again_puts_the_release_off_no_further() -> None:
    """A device that repeats its trap every minute does not flap for ever."""
    flapping = Record("alarm", "1", "acme", {"flapping": True}, {"onceQuiet": {}, "quietAt": 10.0})

    assert once_quiet(CHOSEN, flapping, {}) == {}
    assert once_quiet(CHOSEN, flapping, {"state": "cleared"})["onceQuiet"] == {"state": "cleared"}
    assert once_quiet(CHOSEN, flapping.with_({"flapping": False}), {"state": "cleared"}) == {}
