"""The lifecycles of the v4 diagrams, refused alike wherever a state is changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.core.errors import Conflict
from convergedon.core.lifecycle import LIFECYCLES, order_state

every_lifecycle = pytest.mark.parametrize("name", LIFECYCLES)

FINAL = {
    "workflowRun": {"completed", "compensated", "failed", "refused"},
    "workflowApproval": {"accepted", "rejected"},
    "productOrder": {"rejected", "completed", "failed", "partial", "cancelled"},
    "productOrderItem": {"rejected", "completed", "failed", "cancelled"},
    "alarm": {"cleared"},
    "usage": {"billed"},
    "customerBill": {"settled"},
    "customerBillOnDemand": {"done", "terminatedWithError", "rejected"},
    "service": {"terminated"},
    "task": {"done", "terminatedWithError"},
}
LASTING = {"administrativeState", "operationalState", "usageState", "resourceStatus"}
"""The states of what is there whoever uses it: they have no end."""


@every_lifecycle
def test_every_state_can_be_reached(name: str) -> None:
    """A state that nothing leads to is a slip in the table."""
    lifecycle = LIFECYCLES[name]
    reached, pending = set(), list(lifecycle.initial)
    while pending:
        state = pending.pop()
        if state not in reached:
            reached.add(state)
            pending.extend(lifecycle.moves[state])

    assert reached == lifecycle.moves.keys()


@pytest.mark.parametrize("name", sorted(LASTING))
def test_what_lasts_comes_from_each_state_to_each(name: str) -> None:
    """No state is a trap; and each may be the first that is known."""
    moves = LIFECYCLES[name].moves
    assert set(LIFECYCLES[name].initial) == moves.keys()

    for start in moves:
        reached = {start}
        while more := {state for one in reached for state in moves[one]} - reached:
            reached |= more
        assert reached == moves.keys()


@pytest.mark.parametrize("name", sorted(LIFECYCLES.keys() - LASTING))
def test_every_state_leads_to_an_end(name: str) -> None:
    """There is a way out of each state, and the ends are those of the diagrams."""
    moves = LIFECYCLES[name].moves
    ending = {state for state, allowed in moves.items() if not allowed}
    assert ending == FINAL[name]

    while more := {state for state, allowed in moves.items() if state not in ending and ending & set(allowed)}:
        ending |= more
    assert ending == moves.keys()


@every_lifecycle
def test_exactly_the_moves_of_the_table_are_allowed(name: str) -> None:
    """Any other move is refused, naming from, to and what is allowed."""
    lifecycle = LIFECYCLES[name]
    for old, allowed in lifecycle.moves.items():
        for new in lifecycle.moves.keys() - {old}:
            if new in allowed:
                lifecycle.check(old, new)
                continue
            with pytest.raises(Conflict) as refused:
                lifecycle.check(old, new)
            assert f"{lifecycle.member} cannot move from {old} to {new}" in str(refused.value)
            assert all(state in str(refused.value) for state in allowed)


@every_lifecycle
def test_a_state_may_be_said_again(name: str) -> None:
    """Writing the state that it has is no move."""
    for state in LIFECYCLES[name].moves:
        LIFECYCLES[name].check(state, state)


@every_lifecycle
def test_nothing_begins_in_the_middle(name: str) -> None:
    """Only the states at creation may come first."""
    lifecycle = LIFECYCLES[name]
    for state in lifecycle.moves:
        if state in lifecycle.initial:
            lifecycle.check(None, state)
        else:
            with pytest.raises(Conflict, match=f"cannot begin as {state}"):
                lifecycle.check(None, state)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("productOrder", "acknowledged", "completed"),
        ("productOrder", "completed", "inProgress"),
        ("productOrder", "pending", "completed"),
        ("productOrder", "assessingCancellation", "cancelled"),
        ("productOrderItem", "inProgress", "partial"),
        ("usage", "received", "rated"),
        ("usage", "rejected", "guided"),
        ("usage", "billed", "rated"),
        ("service", "feasibilityChecked", "active"),
        ("service", "active", "designed"),
        ("service", "terminated", "active"),
        ("administrativeState", "locked", "shutdown"),
        ("resourceStatus", "suspended", "alarm"),
        ("alarm", "cleared", "raised"),
        ("alarm", "cleared", "updated"),
    ],
)
def test_what_the_diagrams_do_not_draw_is_refused(name: str, old: str, new: str) -> None:
    """The moves that are most easily made by mistake."""
    with pytest.raises(Conflict):
        LIFECYCLES[name].check(old, new)


def test_a_state_that_does_not_exist_is_refused() -> None:
    """Neither from nor to a word that is no state."""
    with pytest.raises(Conflict):
        LIFECYCLES["productOrder"].check("acknowledged", "happy")
    with pytest.raises(Conflict):
        LIFECYCLES["productOrder"].check("happy", "completed")


ITEM_STATES = sorted(LIFECYCLES["productOrderItem"].moves)
ENDS = FINAL["productOrderItem"]


@given(st.lists(st.sampled_from(ITEM_STATES), min_size=1))
def test_an_order_is_where_its_items_are(states: list[str]) -> None:
    """It has ended when all of them have, as one of them if they agree and partially if not; order and number are
    of no matter."""
    state = order_state(states)

    assert (state in FINAL["productOrder"]) == (set(states) <= ENDS)
    assert (state == "partial") == (set(states) <= ENDS and len(set(states)) > 1)
    if len(set(states)) == 1:
        assert state == states[0]
    assert state == order_state(reversed(states)) == order_state(states * 2)


@given(st.lists(st.sampled_from(ITEM_STATES), min_size=1), st.data())
def test_an_item_that_ends_begins_its_order(states: list[str], data: st.DataObject) -> None:
    """An order is acknowledged only while all its items are."""
    assert (order_state(states) == "acknowledged") == (set(states) == {"acknowledged"})
    more = data.draw(st.sampled_from(sorted(ENDS)))
    assert order_state([*states, more]) != "acknowledged"
