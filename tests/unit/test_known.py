"""What a process knows between two looks: whether more is on its way, and how long a look has waited for it."""

from __future__ import annotations

from time import monotonic

import pytest

from convergedon.mediation import known
from convergedon.mediation.known import Known

DUCT, OTHER = frozenset(("group duct", "pe1/ge-1")), frozenset(("pe9",))


def test_what_is_being_heard_is_known_of_its_own_neighbourhood() -> None:
    """Not of another tenant's of the same name, and not when it was heard."""
    mine = Known()

    with mine.hearing("network.1", {("acme", DUCT)}, behind=0):
        assert mine.is_hearing("acme", DUCT)
        assert not mine.is_hearing("acme", OTHER)
        assert not mine.is_hearing("globex", DUCT)
    assert not mine.is_hearing("acme", DUCT)


def test_more_is_on_its_way_where_more_stands_behind() -> None:
    """Until the next is taken, and says what it is about."""
    mine = Known()
    with mine.hearing("network.1", {("acme", DUCT)}, behind=3):
        pass

    assert mine.is_hearing("acme", DUCT)
    with mine.hearing("network.1", {("acme", OTHER)}, behind=2):
        assert not mine.is_hearing("acme", DUCT)


def test_a_look_waits_from_the_first_request_on_and_for_the_changes_of_all() -> None:
    """Until somebody has looked."""
    mine = Known()
    mine.asked("acme", DUCT, 10)
    mine.asked("acme", DUCT, 5)
    mine.asked("acme", OTHER, 1)

    assert mine.waiting("acme", DUCT)[1] == 15
    mine.note("acme", DUCT, known.Position("", 1))
    assert mine.waiting("acme", DUCT)[1] == 0
    assert mine.waiting("acme", OTHER)[1] == 1


def test_a_look_that_was_taken_along_has_had_its_turn() -> None:
    """Once: what is asked for again after that is another look."""
    mine = Known()
    mine.asks("acme", DUCT, "a")
    mine.asks("acme", OTHER, "b")

    assert not mine.took_up("acme", "a")
    along = mine.take_along("acme")
    assert along == {"b": OTHER}
    mine.taken_along("acme", along)
    assert mine.take_along("acme") == {}
    assert mine.took_up("acme", "b")
    assert not mine.took_up("acme", "b")


@pytest.mark.parametrize("meanwhile", [True, False])
def test_what_is_asked_for_anew_waits_for_a_look_of_its_own(meanwhile: bool) -> None:
    """Whoever asks has written more since: since the look, or while it was under way."""
    mine = Known()
    mine.asks("acme", OTHER, "b")
    along = mine.take_along("acme")
    if meanwhile:
        mine.asks("acme", OTHER, "b")
    mine.taken_along("acme", along)
    if not meanwhile:
        mine.asks("acme", OTHER, "b")

    assert not mine.took_up("acme", "b")


def test_looks_of_which_no_turn_comes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process had it."""
    mine = Known()
    mine.asks("acme", OTHER, "b")
    later = monotonic() + known.ASKED + 1
    monkeypatch.setattr(known, "monotonic", lambda: later)

    assert mine.take_along("acme") == {}
