"""What a client may do to an order in which state, and how the items follow it."""

from __future__ import annotations

from typing import Any

import pytest

from convergedon.core.errors import Conflict
from convergedon.core.lifecycle import LIFECYCLES
from convergedon.handlers.documents import shape
from convergedon.handlers.product_ordering import API, ENDED, PRODUCT_ORDER, in_state, items

MOVES = LIFECYCLES["productOrder"].moves
CANCELLING = {"assessingCancellation", "pendingCancellation"}
DESCRIPTIVE = shape(API.document, PRODUCT_ORDER.schema).patchable - {
    *("state", "productOrderItem", "completionDate", "cancellationDate", "cancellationReason"),
    *("note", "externalId"),
}

every_state = pytest.mark.parametrize("state", MOVES)


def order(state: str, /, **given: Any) -> dict[str, Any]:
    nested = [{"id": "1", "action": "add", "productOrderItem": [{"id": "2", "action": "add"}]}]
    body = {"state": state, "productOrderItem": nested, "relatedParty": []}
    return {**body, "productOrderItem": in_state(body, "failed" if state == "partial" else state), **given}


def refused(before: dict[str, Any], after: dict[str, Any] | None) -> str:
    with pytest.raises(Conflict) as raised:
        PRODUCT_ORDER.guard(before, after)
    return str(raised.value)


@every_state
@pytest.mark.parametrize("new", MOVES)
def test_a_client_may_only_cancel_what_waits(state: str, new: str) -> None:
    """Or acknowledge its draft. Any other move is refused: by the table, or as the gateway's own."""
    after = order(state, state=new)
    if (
        new == state
        or (new == "cancelled" and state in ("pending", "held"))
        or (state == "draft" and new in MOVES[state])
    ):
        PRODUCT_ORDER.guard(order(state), after)
        return

    words = refused(order(state), after)
    assert f"from {state} to {new}" in words
    if new not in MOVES[state]:
        assert all(allowed in words for allowed in MOVES[state])
    else:
        assert "by the gateway's work only" in words
    if new == "cancelled" or new in MOVES[state]:
        assert "cancelProductOrder" in words


@every_state
@pytest.mark.parametrize("member", sorted(DESCRIPTIVE))
def test_what_describes_an_order_is_open_until_it_ends(state: str, member: str) -> None:
    """And not while it is being cancelled."""
    after = order(state, **{member: "new"})
    if state in ENDED | CANCELLING:
        assert refused(order(state), after) == f"{member} of an order that is {state} cannot be changed"
    else:
        PRODUCT_ORDER.guard(order(state), after)


@every_state
def test_notes_and_the_orderers_number_are_always_open(state: str) -> None:
    """What was said of an order afterwards belongs to it."""
    PRODUCT_ORDER.guard(order(state), order(state, note=[{"text": "x"}], externalId="x"))


@every_state
@pytest.mark.parametrize("member", ["completionDate", "cancellationDate", "cancellationReason"])
def test_dates_of_the_end_are_the_gateways(state: str, member: str) -> None:
    """A reason may be given with the cancelling itself."""
    assert f"{member} of an order that is {state}" in refused(order(state), order(state, **{member: "x"}))
    PRODUCT_ORDER.guard(order("pending"), order("pending", state="cancelled", cancellationReason="x"))


@every_state
def test_items_are_open_while_the_order_waits_for_information(state: str) -> None:
    """Or is a draft. Their states are not, at any depth."""
    changed = order(state)
    changed["productOrderItem"][0]["productOrderItem"][0]["quantity"] = 2
    if state not in ("draft", "pending"):
        assert "productOrderItem" in refused(order(state), changed)
        return

    PRODUCT_ORDER.guard(order(state), changed)
    changed["productOrderItem"][0]["productOrderItem"][0]["state"] = "completed"
    assert "item 2: its state follows the work" in refused(order(state), changed)


@every_state
def test_an_order_that_is_worked_on_is_not_deleted(state: str) -> None:
    """Nor one that is being cancelled."""
    if state in {"inProgress", "held", *CANCELLING}:
        assert f"an order that is {state} cannot be deleted" in refused(order(state), None)
    else:
        PRODUCT_ORDER.guard(order(state), None)


@every_state
@pytest.mark.parametrize("new", MOVES)
def test_items_are_where_their_order_is(state: str, new: str) -> None:
    """Until it ends, when each says how it ended itself; all are cancelled with it, and none goes where it cannot."""
    moved = order(state, state=new)
    alone = new in ENDED - {"cancelled"}
    if not alone and new != state and (state == "partial" or new not in MOVES[state]):
        with pytest.raises(Conflict, match="item 1: state cannot move from"):
            PRODUCT_ORDER.changed(moved)
        return

    after = moved | PRODUCT_ORDER.changed(moved)
    assert {item["state"] for item in items(after)} == {item["state"] for item in items(order(state if alone else new))}
    assert ("cancellationDate" in after) == (new == "cancelled" != state)


def test_an_item_makes_no_move_that_its_lifecycle_has_not() -> None:
    """Whoever writes it, at any depth; the refusal names the item."""
    before, after = order("inProgress"), order("inProgress")
    after["productOrderItem"][0]["productOrderItem"][0]["state"] = "acknowledged"

    with pytest.raises(Conflict) as raised:
        PRODUCT_ORDER.rule(before, after)
    assert "item 2: state cannot move from inProgress to acknowledged; allowed: pending" in str(raised.value)
    with pytest.raises(Conflict):
        PRODUCT_ORDER.rule(None, order("completed"))
