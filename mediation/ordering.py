"""The order line: an accepted order becomes intents, the network's answers become its end.

fulfil -> begin -> (adapters perform) -> advance -> finish. Every step may be delivered twice and does its work once:
what was asked of the network and what it answered is kept in the order's record, written together with its state.

Before anything is asked of the network the policy is: whether this may be done, for whoever ordered it, at these sites,
at this price; and when. An order whose change window is closed is held until it opens.

Items inside other items are planned like any other; one whose offering the product model does not know only holds
its parts together. Until the order ends all its items are where it is, so that a cancellation can still take all of
them back; what an item made is in the inventory as soon as the network has confirmed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import time
from typing import Any

from convergedon.adapters.contract import Outcome
from convergedon.core.bus import Message
from convergedon.core.errors import Forbidden, Invalid, NotFound, Stale
from convergedon.core.lifecycle import order_state
from convergedon.core.policy import Decision, recalled, system
from convergedon.core.store import Record
from convergedon.handlers.product_ordering import CANCELLING, PRODUCT_ORDER, each_item, in_state, items
from convergedon.handlers.resource import now
from convergedon.mediation import asked as asking
from convergedon.mediation import inventory, planning, withdrawal
from convergedon.mediation.asked import Asked
from convergedon.mediation.planning import Incomplete, Present, Wanted
from convergedon.mediation.work import Work


async def fulfil(work: Work, message: Message) -> None:
    """A ProductOrderCreateEvent: plan the order and ask the network for what it needs."""
    await _go_on(work, message, "acknowledged")


async def resume(work: Work, message: Message) -> None:
    """A ProductOrderAttributeValueChangeEvent: an order that waits for information may have it now."""
    if message.body["event"]["event"][PRODUCT_ORDER.name]["state"] == "pending":
        await _go_on(work, message, "pending")


async def _go_on(work: Work, message: Message, waiting: str) -> None:
    try:
        order = await work.store.get(PRODUCT_ORDER.name, message.body["tenant"], message.body["id"])
    except NotFound:
        return  # deleted before anything was begun
    if order.body["state"] == waiting and "cancel" not in order.facts:
        order = await begin(work, order)
    if order.body["state"] == "inProgress" and "notBefore" in order.facts:
        order = await _held(work, order)  # somebody died between the two writes of holding it
    if order.body["state"] == "inProgress":
        await finish(work, order, asking.copied(order))


async def begin(work: Work, order: Record) -> Record:
    """Put the order in progress together with its intents, in one write; or let it wait for what it does not say."""
    asked: Asked = {}
    former: dict[str, Any] = {}
    groups, lacking = [], []
    for item in items(order.body):
        service = await inventory.find(work.store, order.tenant, asking.service_id(order, item))
        if service:
            former[item["id"]] = {"body": service.body, "facts": service.facts}
        elif _is_group(work, item):
            groups.append(item["id"])
            continue
        try:
            asked.update(await _ask(work, order, item, inventory.present(service) if service else None))
        except Incomplete as error:
            lacking.append((item["id"], error))
    if lacking:
        return await _wait_for(work, order, lacking)
    may = await _ask_to_begin(work, order, asked)
    if until := may.obligations.get("notBefore") if may.allow else None:
        return await _hold(work, order, float(until), may)
    if not may.allow:
        asked = _refused(order, groups, may)
    _record(work, order, "order.begun", may)
    before = {id: kept["facts"]["present"] for id, kept in former.items()}
    facts = {"asked": asked, "before": before, "former": former, "groups": groups, "kept": [], "lacks": None}
    facts["notBefore"] = None
    return await work.resources.change(
        PRODUCT_ORDER,
        order,
        {"state": "inProgress"},
        facts | {"due": asking.due(work)},
        asking.intents(work, order, asked),
    )


def _is_group(work: Work, item: Mapping[str, Any]) -> bool:
    return bool(item.get("productOrderItem")) and planning.offering_id(item) not in work.products.offerings


async def _ask_to_begin(work: Work, order: Record, asked: Asked) -> Decision:
    """Ask whether the order may be begun now that it is known what it does, and where."""
    sites = sorted({one["wanted"]["site"] for one in asked.values() if "wanted" in one} - {""})
    owner = order.facts.get("owner")
    about = {"tenant": order.tenant, "id": order.id, "sites": sites, **({"owner": owner} if owner else {})}
    return await work.policy.decide(
        system(order.tenant), "fulfil", {"kind": order.kind, **about}, order.body, channel="flow"
    )


def _refused(order: Record, groups: Sequence[str], may: Decision) -> Asked:
    """Every item as a failure, in the policy's words."""
    words = "; ".join(may.reasons)
    return {
        f"{order.id}:{item['id']}:policy": {"item": item["id"], "undoes": "", "status": "failed", "words": words}
        for item in items(order.body)
        if item["id"] not in groups
    }


def _record(work: Work, order: Record, what: str, decision: Decision, **detail: Any) -> None:
    who = (order.facts.get("owner") or {}).get("id", "convergedon")
    outcome = "done" if decision.allow else "refused"
    told = detail if decision.allow else {**detail, "reasons": list(decision.reasons)}
    work.audit.record(what, order.tenant, who, f"{order.kind}/{order.id}", outcome, decision, **told)


async def _hold(work: Work, order: Record, until: float, may: Decision) -> Record:
    """Let the order wait for its change window. It is in progress first: from there the lifecycle leads to held."""
    _record(work, order, "order.held", may, until=until)
    facts = {"notBefore": until, "due": until, "lacks": None}
    if order.body["state"] == "held":
        return await work.resources.change(PRODUCT_ORDER, order, facts=facts)
    return await _held(work, await work.resources.change(PRODUCT_ORDER, order, {"state": "inProgress"}, facts))


async def _held(work: Work, order: Record) -> Record:
    opens = datetime.fromtimestamp(order.facts["notBefore"], UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    words = f"The change window opens at {opens}: the order goes on then."
    change = {"state": "held", "note": withdrawal.noted(order, "held", words)}
    return await work.resources.change(PRODUCT_ORDER, order, change, description=words)


async def _wait_for(work: Work, order: Record, lacking: Iterable[tuple[str, Incomplete]]) -> Record:
    """Say what is missing, once for each time that it is something else; nothing is asked of the network yet."""
    words = "; ".join(f"item {id}: {error}" for id, error in lacking)
    if order.facts.get("lacks") == words:
        return order
    depths = _depths(order.body)
    paths = sorted({f"{depths[id]}.{error.path}" for id, error in lacking})
    waiting = order.with_({"state": "pending", "productOrderItem": in_state(order.body, "pending")})
    told = work.resources.inform(PRODUCT_ORDER, waiting, ",".join(paths), words)
    return await work.resources.change(
        PRODUCT_ORDER, order, {"state": "pending"}, {"lacks": words}, [told], description=words
    )


def _depths(body: Mapping[str, Any], path: str = "productOrderItem") -> dict[str, str]:
    """item id -> the path of members that leads to the item."""
    found: dict[str, str] = {}
    for item in body.get("productOrderItem") or ():
        found |= {item["id"]: path} | _depths(item, f"{path}.productOrderItem")
    return found


async def _ask(work: Work, order: Record, item: Mapping[str, Any], present: Present | None) -> Asked:
    """What one item asks of the network; a refusal by plan or policy is kept as a failure with its words."""
    asked: Asked = {}
    try:
        if [one["id"] for one in items(order.body)].count(item["id"]) > 1:
            raise Invalid(f"two items have the id {item['id']}")
        for number, wanted in enumerate(planning.plan(item, order.tenant, work.products, present)):
            await _ask_to_perform(work, order, wanted)
            asked[f"{order.id}:{item['id']}:{number}"] = asking.entry(item["id"], wanted)
    except Incomplete:
        raise
    except (Invalid, Forbidden) as error:
        return {
            f"{order.id}:{item['id']}:plan": {
                "item": item["id"],
                "undoes": "",
                "status": "failed",
                "words": str(error),
            }
        }
    return asked


async def _ask_to_perform(work: Work, order: Record, wanted: Wanted) -> None:
    """Ask what the adapter will ask, so that a refusal comes before any device is touched. Raises Forbidden."""
    owner = order.facts.get("owner")
    said = {"device": wanted.device, "service": wanted.service, "site": wanted.site, "owner": owner}
    resource = {"kind": "intent", "tenant": order.tenant, "order": order.id, "purpose": "order"}
    resource |= {name: value for name, value in said.items() if value}
    decision = await work.policy.decide(system(order.tenant), "perform", resource, wanted.values, channel="flow")
    decision.require()


async def advance(work: Work, message: Message) -> None:
    """An outcome: what the network made of one intent. When it was the last one, the order is finished."""
    about, outcome = message.body["about"], Outcome(**message.body["outcome"])
    order = await work.store.get(PRODUCT_ORDER.name, about["tenant"], about["id"])
    asked = asking.copied(order)
    if outcome.key not in asked:
        return
    if asking.take(asked, outcome):
        _record_answer(work, order, outcome, message.body.get("decision"))
    if order.body["state"] == "inProgress":
        await finish(work, order, asked)
    elif order.body["state"] == "pendingCancellation":
        await withdrawal.settle(work, order, asked)
    elif order.body["state"] in CANCELLING:
        await work.resources.change(PRODUCT_ORDER, order, facts={"asked": asked})
    else:
        await _take_back(work, order, asked)


async def _take_back(work: Work, order: Record, asked: Asked) -> None:
    """The order has ended: what a device did all the same after it was given up is undone."""
    undo = asking.undo_failed(order, asked)
    intents = asking.intents(work, order, undo)
    await work.resources.change(PRODUCT_ORDER, order, facts={"asked": asked | undo}, also=intents)


async def end_overdue(work: Work) -> None:
    """Orders whose devices never answered (no adapter runs for them) end, saying so; held ones go on."""
    for order in await work.store.find(PRODUCT_ORDER.name, {"facts.due": {"$lt": time()}}, limit=100):
        asked = asking.copied(order)
        asking.give_up(asked)
        with suppress(Stale):
            if "notBefore" in order.facts:
                await _go_on_in_window(work, order)
            elif order.body["state"] == "inProgress":
                await finish(work, order, asked)
            elif order.body["state"] == "pendingCancellation":
                await withdrawal.settle(work, order, asked)


async def _go_on_in_window(work: Work, order: Record) -> None:
    if order.body["state"] == "inProgress":
        order = await _held(work, order)
    if order.body["state"] == "held":
        order = await begin(work, order)
    if order.body["state"] == "inProgress" and "notBefore" not in order.facts:
        await finish(work, order, asking.copied(order))


async def finish(work: Work, order: Record, asked: Asked) -> None:
    """Keep what is confirmed, undo the half of an item that failed; with the last answer the order ends."""
    undo = asking.undo_failed(order, asked)
    asked = asked | undo
    kept = list(order.facts.get("kept", []))
    for item in items(order.body):
        if item["id"] not in kept and item["id"] not in _groups(order) and _outcome(item, asked) == "completed":
            await _keep_inventory(work, order, item, asked)
            kept.append(item["id"])
    facts = {"asked": asked, "kept": kept}
    if asking.is_open(asked):
        await work.resources.change(PRODUCT_ORDER, order, None, facts, asking.intents(work, order, undo))
        return
    ended = each_item(order.body, lambda item: _ended(order, item, asked))
    state = order_state(item["state"] for item in items({"productOrderItem": ended}))
    change = {"state": state, "productOrderItem": ended, "completionDate": now()}
    told = []
    if state != "completed":
        notes = _notes(asked)
        change["note"] = [*(order.body.get("note") or []), *notes]
        words = " ".join(note["text"] for note in notes)
        told = [work.resources.tell(PRODUCT_ORDER, order.with_(change), "ErrorMessage", words)]
    done = await work.resources.change(PRODUCT_ORDER, order, change, {**facts, "due": None}, told)
    _record_end(work, done)


def _groups(order: Record) -> list[str]:
    """The items that only hold their parts together."""
    return list(order.facts.get("groups", []))


def _outcome(item: Mapping[str, Any], asked: Asked) -> str:
    mine = {entry["status"] for entry in asked.values() if entry["item"] == item["id"]}
    return "inProgress" if "asked" in mine else "failed" if "failed" in mine else "completed"


def _ended(order: Record, item: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """An item at its end. One that holds others together has failed when any of them has.

    A completed one names the product that it made, so that a later order can change or end it.
    """
    if item["id"] in _groups(order):
        parts = {part["state"] for part in item["productOrderItem"]}
        return {**item, "state": "completed" if parts == {"completed"} else "failed"}
    state = _outcome(item, asked)
    if state == "failed" or item["action"] == "noChange":
        return {**item, "state": state}
    status = "terminated" if item["action"] == "delete" else "active"
    product = {**(item.get("product") or {}), "id": asking.service_id(order, item), "status": status}
    return {**item, "state": state, "product": product}


async def _keep_inventory(work: Work, order: Record, item: Mapping[str, Any], asked: Asked) -> None:
    """Write the service that the network confirmed. Before the order says so: a crash between is done again."""
    if item["action"] == "noChange":
        return
    id = asking.service_id(order, item)
    if item["action"] == "delete":
        await inventory.end(work.resources, order.tenant, id, (order.id, item))
        return
    made = withdrawal.made(order, item, asked)
    name = work.products.offerings[made.offering].name
    await inventory.keep(work.resources, order, item, id, name, made)


def _notes(asked: Asked) -> list[dict[str, Any]]:
    """The notes of an order that failed: for each failure its words."""
    failed = [entry for entry in asked.values() if entry["status"] == "failed"]
    return [
        {"id": f"failure-{number}", "author": "ConvergedON", "date": now(), "text": asking.words(entry)}
        for number, entry in enumerate(failed, 1)
    ]


def _record_answer(work: Work, order: Record, outcome: Outcome, decided: Mapping[str, Any] | None) -> None:
    """``decided`` is what the adapter was told when it asked whether it may."""
    what: dict[str, Any] = {"device": outcome.device, "result": outcome.status}
    done = "done" if outcome.done else "failed"
    decision = recalled(decided, outcome.status != "refused") if decided else None
    who, on = f"device/{outcome.device}", f"{order.kind}/{order.id}"
    work.audit.record("intent.answered", order.tenant, who, on, done, decision, **what)


def _record_end(work: Work, order: Record) -> None:
    begun = datetime.fromisoformat(order.body["orderDate"]).timestamp()
    work.audit.record(
        "order.finished",
        order.tenant,
        "convergedon",
        f"{order.kind}/{order.id}",
        "done" if order.body["state"] == "completed" else "failed",
        state=order.body["state"],
        seconds=round(time() - begun, 3),
    )
