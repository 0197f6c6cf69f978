"""The cancel task of the order line: a CancelProductOrder is taken up, assessed, and answered by what became of it.

cancel -> assess -> withdrawal -> conclude. An order that nothing was asked for yet is cancelled at once: one that is
acknowledged waits first (pending), so that nobody begins it. One in progress is assessed and, unless somebody built on
it, taken back from the network. One that has ended stays as it ended: what was delivered is ended by a delete order.
"""

from __future__ import annotations

from contextlib import suppress
from time import time

from convergedon.core.bus import Message
from convergedon.core.errors import NotFound, Stale
from convergedon.core.store import Record
from convergedon.handlers import documents
from convergedon.handlers.product_ordering import CANCEL_PRODUCT_ORDER, CANCELLING, ENDED, PRODUCT_ORDER
from convergedon.mediation import asked as asking
from convergedon.mediation import ordering, withdrawal
from convergedon.mediation.withdrawal import Cancel
from convergedon.mediation.work import Work


async def cancel(work: Work, message: Message) -> None:
    """A CancelProductOrderCreateEvent: cancel the order, now or when it is asked for."""
    with suppress(NotFound):
        task = await work.store.get(CANCEL_PRODUCT_ORDER.name, message.body["tenant"], message.body["id"])
        await _pursue(work, task)


async def take_up_due(work: Work) -> None:
    """Cancellations that were asked for later and whose time has come, and any that a dead worker left."""
    for task in await work.store.find(CANCEL_PRODUCT_ORDER.name, {"facts.due": {"$lt": time()}}, limit=100):
        with suppress(Stale):
            await _pursue(work, task)


async def _pursue(work: Work, task: Record) -> None:
    if task.body["state"] == "acknowledged":
        begin = _asked_for(task)
        if begin > time():
            await work.resources.change(CANCEL_PRODUCT_ORDER, task, facts={"due": begin})
            return
        facts = {"due": asking.due(work), "parties": await _parties(work, task)}
        task = await work.resources.change(CANCEL_PRODUCT_ORDER, task, {"state": "inProgress"}, facts)
    if task.body["state"] == "inProgress" and (denied := await _carry_out(work, task)):
        await _end(work, task, "terminatedWithError", denied)


def _asked_for(task: Record) -> float:
    """Seconds since the epoch from which on the order may be cancelled; what cannot be read is now."""
    try:
        return documents.instant(task.body["requestedCancellationDate"]) / 1e6
    except (KeyError, ValueError):
        return 0.0


async def _parties(work: Work, task: Record) -> list[str]:
    """Whoever may see the order may see that it is cancelled."""
    try:
        order = await work.store.get(PRODUCT_ORDER.name, task.tenant, task.body["productOrder"]["id"])
    except NotFound:
        return []
    return list(order.facts.get("parties", []))


async def _carry_out(work: Work, task: Record) -> str:
    """Cancel the order as far as it can be now; returns why not when it cannot be."""
    id = task.body["productOrder"]["id"]
    try:
        order = await work.store.get(PRODUCT_ORDER.name, task.tenant, id)
    except NotFound:
        return f"there is no product order {id}"
    state, cancel = order.body["state"], order.facts.get("cancel") or {}
    mine = cancel.get("task") == task.id
    if mine and (state == "cancelled" or "stuck" in cancel):
        await _conclude(work, order)
        return ""
    if state in ENDED:
        return f"product order {id} is {state} already"
    if cancel and not mine and not await _is_over(work, task.tenant, cancel["task"]):
        return f"product order {id} is being cancelled by cancelProductOrder {cancel['task']}"
    wanted = {
        "task": task.id,
        "reason": task.body.get("cancellationReason", ""),
        "since": cancel.get("since", state) if mine else state,
    }
    if state == "pendingCancellation":
        if not mine:
            await _conclude(work, await withdrawal.withdraw(work, order, wanted))
        return ""
    if state in ("inProgress", "held", "assessingCancellation"):
        return await _assess(work, order, wanted)
    if state == "acknowledged":
        order = await work.resources.change(PRODUCT_ORDER, order, {"state": "pending"}, {"cancel": wanted})
    await _conclude(work, await withdrawal.cancelled(work, order, wanted, {}))
    return ""


async def _is_over(work: Work, tenant: str, id: str) -> bool:
    """Whether a cancel task has ended, so that another one may take up what it left."""
    try:
        task = await work.store.get(CANCEL_PRODUCT_ORDER.name, tenant, id)
    except NotFound:
        return True
    return task.body["state"] not in ("acknowledged", "inProgress")


async def _assess(work: Work, order: Record, wanted: Cancel) -> str:
    """Take an order in progress back, or put it back to work and say why."""
    order = await work.resources.change(
        PRODUCT_ORDER, order, {"state": "assessingCancellation"}, {"cancel": dict(wanted)}
    )
    objection = await withdrawal.objection(work, order)
    if not objection:
        await _conclude(work, await withdrawal.withdraw(work, order, wanted))
        return ""
    back = {"state": wanted["since"]}
    order = await work.resources.change(PRODUCT_ORDER, order, back, {"cancel": None}, description=objection)
    if order.body["state"] == "inProgress":
        await ordering.finish(work, order, asking.copied(order))  # answers may have come meanwhile
    return objection


async def conclude(work: Work, message: Message) -> None:
    """An order has changed: the task that cancels it ends when the order is cancelled, or cannot be."""
    if message.body["event"]["event"][PRODUCT_ORDER.name]["state"] not in CANCELLING | {"cancelled"}:
        return
    with suppress(NotFound):
        await _conclude(work, await work.store.get(PRODUCT_ORDER.name, message.body["tenant"], message.body["id"]))


async def _conclude(work: Work, order: Record) -> None:
    cancel = order.facts.get("cancel") or {}
    if not cancel:
        return
    task = await work.store.get(CANCEL_PRODUCT_ORDER.name, order.tenant, cancel["task"])
    if order.body["state"] == "cancelled":
        await _end(work, task, "done", date=order.body["cancellationDate"])
    elif "stuck" in cancel:
        await _end(work, task, "terminatedWithError", cancel["stuck"], decide=True)


async def _end(work: Work, task: Record, state: str, words: str = "", date: str = "", decide: bool = False) -> None:
    """End a task, saying why when it did not do what it was asked; ``decide``: a person has to."""
    if task.body["state"] != "inProgress":
        return
    change = {"state": state} | ({"effectiveCancellationDate": date} if date else {})
    also = [work.resources.inform(CANCEL_PRODUCT_ORDER, task, "productOrder", words)] if decide else []
    await work.resources.change(CANCEL_PRODUCT_ORDER, task, change, {"due": None}, also, description=words)
    on, outcome = f"{task.kind}/{task.id}", "done" if state == "done" else "refused"
    work.audit.record("cancellation.ended", task.tenant, "convergedon", on, outcome, state=state, reason=words)
