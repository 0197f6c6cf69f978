"""What an order did, taken back: the former state on every device, then in the inventory, and only then cancelled.

withdraw -> (adapters perform) -> settle. An order is never called cancelled while something of it stands on a device:
it stays pendingCancellation, says what stands and why, and the next cancelProductOrder asks for it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convergedon.core.errors import NotFound
from convergedon.core.store import Record
from convergedon.handlers.product_ordering import PRODUCT_ORDER, items
from convergedon.handlers.resource import now
from convergedon.handlers.service_inventory import SERVICE
from convergedon.mediation import asked as asking
from convergedon.mediation import inventory, planning
from convergedon.mediation.asked import Asked
from convergedon.mediation.planning import Present, Wanted
from convergedon.mediation.work import Work

Cancel = Mapping[str, Any]
"""Who cancels an order: {task, reason, since}, since being its state before; ``stuck``: why it could not be done."""


async def objection(work: Work, order: Record) -> str:
    """Why an order cannot be taken back: somebody has built on what it made. Empty when it can."""
    for item in _planned(order):
        if await _now(work, order, item) == "other":
            return f"product {asking.service_id(order, item)} was changed since by another order"
    return ""


async def withdraw(work: Work, order: Record, cancel: Cancel) -> Record:
    """Ask back everything that is or may be on a device, in one write with the order's state.

    What is unanswered is asked back too: a device takes its intents in their order, so nothing comes after.
    """
    asked = asking.copied(order)
    undo = asking.undo(order, asked, asking.standing(asked))
    facts = {"asked": asked | undo, "cancel": dict(cancel), "due": asking.due(work)}
    intents = asking.intents(work, order, undo)
    order = await work.resources.change(PRODUCT_ORDER, order, {"state": "pendingCancellation"}, facts, intents)
    return await settle(work, order, asked | undo)


async def settle(work: Work, order: Record, asked: Asked) -> Record:
    """When all answers are there the order is cancelled, or says what still stands."""
    if asking.is_open(asked):
        return await work.resources.change(PRODUCT_ORDER, order, facts={"asked": asked})
    if left := asking.standing(asked):
        return await _say_what_stands(work, order, asked, left)
    for item in _planned(order):
        await _restore(work, order, item)
    return await cancelled(work, order, order.facts["cancel"], {"asked": asked})


async def cancelled(work: Work, order: Record, cancel: Cancel, facts: Mapping[str, Any]) -> Record:
    """End an order of which nothing stands on a device."""
    on = sorted({entry["wanted"]["device"] for entry in facts.get("asked", {}).values() if entry["undoes"]})
    words = f"The former state is back on {', '.join(on)}." if on else "No device had been changed."
    text = f"Reason given: {cancel['reason']}. {words}" if cancel["reason"] else words
    change = {"state": "cancelled", "note": noted(order, "cancellation", text)}
    if cancel["reason"]:
        change["cancellationReason"] = cancel["reason"]
    known = {**facts, "cancel": dict(cancel), "due": None}
    done = await work.resources.change(PRODUCT_ORDER, order, change, known, description=text)
    on_what = f"{order.kind}/{order.id}"
    work.audit.record("order.cancelled", order.tenant, "convergedon", on_what, "done", task=cancel["task"])
    return done


async def _say_what_stands(work: Work, order: Record, asked: Asked, left: list[str]) -> Record:
    """A device did not take back what it has: a person must see to it, and cancel again."""
    if "stuck" in order.facts["cancel"]:
        return await work.resources.change(PRODUCT_ORDER, order, facts={"asked": asked})
    refused = {entry["undoes"]: entry for entry in asked.values()}  # the last that was tried of each
    words = "; ".join(f"not taken back: {asking.words(refused[key])}" for key in left)
    facts = {"asked": asked, "due": None, "cancel": {**order.facts["cancel"], "stuck": words}}
    change = {"note": noted(order, "cancellation", words)}
    stuck = await work.resources.change(PRODUCT_ORDER, order, change, facts, description=words)
    task = order.facts["cancel"]["task"]
    work.audit.record(
        "order.cancelled", order.tenant, "convergedon", f"{order.kind}/{order.id}", "failed", task=task, reason=words
    )
    return stuck


def noted(order: Record, id: str, text: str) -> list[dict[str, Any]]:
    before = order.body.get("note") or []
    return [*before, {"id": f"{id}-{len(before) + 1}", "author": "ConvergedON", "date": now(), "text": text}]


def made(order: Record, item: Mapping[str, Any], asked: Asked) -> Present:
    """The service as an item makes it."""
    mine = [entry for entry in asked.values() if entry["item"] == item["id"] and not entry["undoes"]]
    wanted = [Wanted(**entry["wanted"]) for entry in mine if "wanted" in entry]
    before = order.facts["before"].get(item["id"], {"offering": "", "given": {}})
    offering = planning.offering_id(item) or before["offering"]
    given = {**before["given"], **planning.characteristics(item)}
    return Present(offering, given, tuple(w for w in wanted if w.values is not None))


def _planned(order: Record) -> list[Mapping[str, Any]]:
    """The items that make, change or end a service."""
    groups = order.facts.get("groups", [])
    return [item for item in items(order.body) if item["id"] not in groups and item["action"] != "noChange"]


async def _now(work: Work, order: Record, item: Mapping[str, Any]) -> str:
    """What the inventory has of an item's service: as it was before (former), as the item made it (made), or other."""
    former = order.facts.get("former", {}).get(item["id"])
    if not former and item["action"] != "add":
        return "former"  # it could not be planned: there is nothing that it changes
    try:
        service = await work.store.get(SERVICE.name, order.tenant, asking.service_id(order, item))
    except NotFound:
        return "former"
    if service.body["state"] != "active":
        return "former" if not former else "made" if item["action"] == "delete" else "other"
    if former and service.facts["present"] == former["facts"]["present"]:
        return "former"
    if item["action"] != "delete" and inventory.present(service) == made(order, item, asking.copied(order)):
        return "made"
    return "other"


async def _restore(work: Work, order: Record, item: Mapping[str, Any]) -> None:
    """Bring the inventory to where it was. Before the order says so: a crash between is done again."""
    if await _now(work, order, item) != "made":
        return
    id, former = asking.service_id(order, item), order.facts.get("former", {}).get(item["id"])
    if former:
        await inventory.restore(work.resources, order.tenant, id, former["body"], former["facts"])
    else:
        await inventory.end(work.resources, order.tenant, id)
