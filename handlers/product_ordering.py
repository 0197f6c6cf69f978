"""TMF622 Product Ordering v4: what a client may change of an order, and how its items follow it.

What a client may do in which state of the order:

| state | PATCH | DELETE |
|---|---|---|
| draft | that, productOrderItem, and state acknowledged or cancelled | yes |
| acknowledged | all but what the gateway sets | yes |
| pending | that, productOrderItem, and state cancelled | yes |
| held | as acknowledged, and state cancelled | no |
| inProgress | all but what the gateway sets | no |
| assessingCancellation, pendingCancellation | note, externalId | no |
| completed, failed, partial, cancelled, rejected | note, externalId | yes |

The gateway sets state, completionDate and cancellationDate, and productOrderItem except while it waits for information;
cancellationReason goes with state cancelled. Anything else that is tried is refused with 409. An order
is held before anything is asked of the network, while its change window is closed. Version 4 has no word for
a draft and shows it as pending.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from convergedon.core.errors import Conflict
from convergedon.core.lifecycle import LIFECYCLES
from convergedon.core.matching import differing
from convergedon.handlers.resource import Api, Body, Resource, now
from convergedon.handlers.versions import Hidden, Valued, Worded

_ORDER, _ITEM = LIFECYCLES["productOrder"], LIFECYCLES["productOrderItem"]
ENDED = frozenset(state for state, moves in _ORDER.moves.items() if not moves)
CANCELLING = frozenset({"assessingCancellation", "pendingCancellation"})
UNDER_WORK = CANCELLING | {"inProgress", "held"}
WITHDRAWABLE = frozenset({"draft", "pending", "held"})
"""States that the diagram leaves for cancelled without any work, so that a client may say so itself."""

ALWAYS_OPEN = frozenset({"note", "externalId"})
SET_BY_WORK = frozenset({"completionDate", "cancellationDate"})


def items(body: Body) -> Iterator[Body]:
    """All items of an order at every depth, each before its parts."""
    for item in body.get("productOrderItem") or ():
        yield item
        yield from items(item)


def each_item(body: Body, change: Callable[[Body], Body]) -> list[Body]:
    """The items with a change made to each of them; an item's parts have changed before it."""
    return [
        change({**item, "productOrderItem": each_item(item, change)} if item.get("productOrderItem") else item)
        for item in body["productOrderItem"]
    ]


def in_state(body: Body, state: str) -> list[Body]:
    """The items, all in one state."""
    return each_item(body, lambda item: {**item, "state": state})


def _new_order(body: Body) -> dict[str, Any]:
    """An order begins acknowledged or as a draft, with all its items; relatedParty is mandatory in every answer."""
    state = "draft" if body.get("state") == "draft" else "acknowledged"
    return {
        "orderDate": now(),
        "state": state,
        "productOrderItem": in_state(body, state),
        "relatedParty": body.get("relatedParty", []),
    }


def _follow(body: Body) -> dict[str, Any]:
    """Until an order ends all its items are where it is: they are asked for together and can be cancelled together."""
    follow: dict[str, Any] = {"relatedParty": body.get("relatedParty", [])}
    state = str(body.get("state"))
    if state in ENDED and state != "cancelled":
        return follow
    if state == "cancelled" and any(item.get("state") != "cancelled" for item in items(body)):
        follow["cancellationDate"] = now()
    for item in items(body):
        if item.get("state"):
            _check_move(item, item["state"], state)
    return {**follow, "productOrderItem": in_state(body, state)}


def _item_rule(before: Body | None, after: Body) -> None:
    """Raise Conflict for a move of an item that its lifecycle has not; one that says no state follows its order."""
    known = {item["id"]: item.get("state") for item in items(before or {})}
    for item in items(after):
        if item.get("state"):
            _check_move(item, (known.get(item["id"]) or before["state"]) if before else None, item["state"])


def _check_move(item: Body, old: str | None, new: str) -> None:
    try:
        _ITEM.check(old, new)
    except Conflict as error:
        raise Conflict(f"item {item['id']}: {error}") from error


def _guard(before: Body, after: Body | None) -> None:
    """Raise Conflict for what a client may not do in the order's state (the table above)."""
    state = str(before["state"])
    if after is None:
        if state in UNDER_WORK:
            raise Conflict(f"an order that is {state} cannot be deleted: the network is at work on it")
        return
    changed = set(differing(before, after))
    if "state" in changed:
        _guard_move(state, after.get("state"))
    if frozen := sorted(name for name in changed - {"state"} if not _open(name, state, after)):
        raise Conflict(f"{', '.join(frozen)} of an order that is {state} cannot be changed")
    if "productOrderItem" in changed:
        _guard_item_states(before, after)


def _open(member: str, state: str, after: Body) -> bool:
    if state in ENDED | CANCELLING:
        return member in ALWAYS_OPEN
    if member == "productOrderItem":
        return state in ("draft", "pending")
    if member == "cancellationReason":
        return after.get("state") == "cancelled"
    return member not in SET_BY_WORK


def _guard_move(old: str, new: Any) -> None:
    if new is None:
        raise Conflict("state cannot be removed")
    try:
        _ORDER.check(old, new)
    except Conflict as error:
        hint = "; a cancelProductOrder cancels an order" if new == "cancelled" else ""
        raise Conflict(f"{error}{hint}") from error
    if not (old == "draft" or (new == "cancelled" and old in WITHDRAWABLE)):
        raise Conflict(
            f"state moves from {old} to {new} by the gateway's work only, no client can set it; "
            "a cancelProductOrder cancels an order"
        )


def _guard_item_states(before: Body, after: Body) -> None:
    known = {item["id"]: item.get("state") for item in items(before)}
    for item in items(after):
        if item.get("state", before["state"]) != known.get(item["id"], before["state"]):
            raise Conflict(f"item {item['id']}: its state follows the work on the order and cannot be set")


PRODUCT_ORDER = Resource(
    "productOrder",
    "ProductOrder",
    new=_new_order,
    lifecycle=_ORDER,
    rule=_item_rule,
    guard=_guard,
    changed=_follow,
    swept=("facts.due",),
    indexes=(
        "body.externalId",
        "body.relatedParty.id",
        ("body.state", "facts.at.orderDate", "id"),
        ("facts.at.orderDate", "id"),
    ),
)

CANCEL_PRODUCT_ORDER = Resource(
    "cancelProductOrder",
    "CancelProductOrder",
    new=lambda _: {"state": "acknowledged", "creationDate": now()},
    dated=("creationDate",),
    lifecycle=LIFECYCLES["task"],
    swept=("facts.due",),
    indexes=("body.state", "body.productOrder.id"),
)

DOCUMENT = "TMF622-ProductOrdering-v4"
_AS_PENDING = (Valued("state", {"draft": "pending"}),)

API = Api(
    DOCUMENT,
    "/tmf-api/productOrderingManagement/v4",
    (PRODUCT_ORDER, CANCEL_PRODUCT_ORDER),
    {
        "productOrder": Worded(
            DOCUMENT, "ProductOrder", dict.fromkeys(("ProductOrder", "ProductOrderItem"), _AS_PENDING)
        ),
        "cancelProductOrder": Worded(DOCUMENT, "CancelProductOrder", {"CancelProductOrder": (Hidden("creationDate"),)}),
    },
)
