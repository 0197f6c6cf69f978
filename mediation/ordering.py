"""The order line: an accepted order becomes intents, the network's answers become its end.

fulfil -> begin -> (adapters perform) -> advance -> finish. Every step may be delivered twice and does its work once:
what was asked of the network and what it answered is kept in the order's record, written together with its state.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from time import time
from typing import Any

from convergedon.adapters.contract import Intent, Outcome
from convergedon.core import trace
from convergedon.core.bus import Message, partition, token
from convergedon.core.errors import Forbidden, Invalid, NotFound, Stale
from convergedon.core.policy import system
from convergedon.core.store import Outgoing, Record
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.handlers.resource import now
from convergedon.mediation import inventory, planning
from convergedon.mediation.planning import Present, Wanted
from convergedon.mediation.work import Work

OVERDUE = "unknown"
GRACE = 60.0
"""Seconds after an intent's deadline in which its answer is still waited for."""

Asked = dict[str, dict[str, Any]]
"""What was asked of the network, by intent key: {item, wanted, undoes, status, words}; status asked, done or failed."""


async def fulfil(work: Work, message: Message) -> None:
    """A ProductOrderCreateEvent: plan the order and ask the network for what it needs."""
    try:
        order = await work.store.get(PRODUCT_ORDER.name, message.body["tenant"], message.body["id"])
    except NotFound:
        return  # deleted before anything was begun
    if order.body["state"] == "acknowledged":
        order = await begin(work, order)
    if order.body["state"] == "inProgress":
        await finish(work, order, order.facts["asked"])


async def begin(work: Work, order: Record) -> Record:
    """Put the order and its items in progress together with the intents, in one write."""
    asked: Asked = {}
    before: dict[str, Any] = {}
    items = []
    for item in order.body["productOrderItem"]:
        service = await inventory.find(work.store, order.tenant, _service_id(order, item))
        if service:
            before[item["id"]] = service.facts["present"]
        items.append({**item, "state": "inProgress"})
        asked.update(await _ask(work, order, item, inventory.present(service) if service else None))
    intents = [_intent(work, order, key, asked[key]) for key in asked if asked[key]["status"] == "asked"]
    facts = {"asked": asked, "before": before, "due": time() + work.settings.intent_deadline + GRACE}
    return await work.resources.change(
        PRODUCT_ORDER, order, {"state": "inProgress", "productOrderItem": items}, facts, intents
    )


async def _ask(work: Work, order: Record, item: Mapping[str, Any], present: Present | None) -> Asked:
    """What one item asks of the network; a refusal by plan or policy is kept as a failure with its words."""
    asked: Asked = {}
    try:
        if [one["id"] for one in order.body["productOrderItem"]].count(item["id"]) > 1:
            raise Invalid(f"two items have the id {item['id']}")
        for number, wanted in enumerate(planning.plan(item, order.tenant, work.products, present)):
            resource = {"kind": "intent", "tenant": order.tenant, "device": wanted.device, "order": order.id}
            decision = await work.policy.decide(
                system(order.tenant), "perform", resource, wanted.values or {}, channel="adapter"
            )
            decision.require()
            asked[f"{order.id}:{item['id']}:{number}"] = _entry(item["id"], wanted)
    except (Invalid, Forbidden) as error:
        return {f"{order.id}:{item['id']}:plan": {"item": item["id"], "status": "failed", "words": str(error)}}
    return asked


def _entry(item: str, wanted: Wanted, undoes: str = "") -> dict[str, Any]:
    return {"item": item, "wanted": asdict(wanted), "undoes": undoes, "status": "asked", "words": ""}


def _service_id(order: Record, item: Mapping[str, Any]) -> str:
    """A new service is named by the order and item that make it; others by the product that the item names."""
    if item["action"] == "add":
        return f"{order.id}-{item['id']}"
    return str((item.get("product") or {}).get("id", ""))


def _intent(work: Work, order: Record, key: str, entry: Mapping[str, Any]) -> Outgoing:
    """The message to the adapter: the same key and message id however often it is sent."""
    wanted, item = entry["wanted"], _item(order, entry["item"])
    intent = Intent(
        key=key,
        tenant=order.tenant,
        device=wanted["device"],
        service=wanted["service"],
        instance=_service_id(order, item),
        values=wanted["values"],
        deadline=time() + work.settings.intent_deadline,
    )
    body = {
        "intent": asdict(intent),
        "reply": f"network.{partition(order.id)}.outcome",
        "about": {"kind": order.kind, "tenant": order.tenant, "id": order.id},
    }
    return Outgoing(key, f"intent.{token(wanted['adapter'])}.{token(wanted['device'])}", body, trace.headers())


def _item(order: Record, id: str) -> Mapping[str, Any]:
    return next(item for item in order.body["productOrderItem"] if item["id"] == id)


async def advance(work: Work, message: Message) -> None:
    """An outcome: what the network made of one intent. When it was the last one, the order is finished."""
    about, outcome = message.body["about"], Outcome(**message.body["outcome"])
    order = await work.store.get(PRODUCT_ORDER.name, about["tenant"], about["id"])
    asked: Asked = {key: dict(entry) for key, entry in order.facts.get("asked", {}).items()}
    entry = asked.get(outcome.key)
    if entry is None:
        return
    if order.body["state"] != "inProgress":
        await _take_back(work, order, asked, outcome)
        return
    if entry["status"] == "asked":
        entry.update(status="done" if outcome.done else "failed", words=outcome.words, result=outcome.status)
        what = {"device": outcome.device, "result": outcome.status}
        work.audit.record(
            "intent.answered",
            order.tenant,
            outcome.device,
            f"{order.kind}/{order.id}",
            "done" if outcome.done else "failed",
            **what,
        )
    await finish(work, order, asked)


async def _take_back(work: Work, order: Record, asked: Asked, outcome: Outcome) -> None:
    """An answer that came after the order had ended without it: what the device did all the same is undone."""
    if asked[outcome.key].get("result") != OVERDUE or not outcome.done:
        return
    entry, key = asked[outcome.key], f"{outcome.key}:undo"
    entry.update(status="done", result=outcome.status)
    asked[key] = _entry(entry["item"], _former(order, entry), undoes=outcome.key)
    intent = _intent(work, order, key, asked[key])
    await work.resources.change(PRODUCT_ORDER, order, facts={"asked": asked}, also=[intent])


async def end_overdue(work: Work) -> None:
    """Orders whose devices never answered (no adapter runs for them) end as failed, saying so."""
    for order in await work.store.find(PRODUCT_ORDER.name, {"facts.due": {"$lt": time()}}, limit=100):
        asked: Asked = {key: dict(entry) for key, entry in order.facts["asked"].items()}
        for entry in asked.values():
            if entry["status"] == "asked":
                entry.update(status="failed", result=OVERDUE, words="the device did not answer until its deadline")
        with suppress(Stale):
            await finish(work, order, asked)


async def finish(work: Work, order: Record, asked: Asked) -> None:
    """Settle items whose answers are all there, undo the half of one that failed, end the order with its last."""
    undo = _undo(order, asked)
    items = [_settled(item, asked | undo) for item in order.body["productOrderItem"]]
    for item in items:
        if item["state"] == "completed":
            await _keep_inventory(work, order, item, asked)
    change: dict[str, Any] = {"productOrderItem": [_with_product(order, item) for item in items]}
    states = {item["state"] for item in items}
    if "inProgress" not in states:
        change |= {"state": states.pop() if len(states) == 1 else "partial"}
        change |= _end(order, asked) if change["state"] != "completed" else {"completionDate": now()}
    intents = [_intent(work, order, key, undo[key]) for key in undo]
    facts = {"asked": asked | undo} | ({"due": None} if "state" in change else {})
    done = await work.resources.change(PRODUCT_ORDER, order, change, facts, intents)
    if "state" in change:
        _record_end(work, done)


def _undo(order: Record, asked: Asked) -> Asked:
    """For each item with a failure: the intents that take back what was done, unless they were asked already."""
    undone = {entry["undoes"] for entry in asked.values() if entry.get("undoes")}
    found: Asked = {}
    for item in {entry["item"] for entry in asked.values() if entry["status"] == "failed" and not entry.get("undoes")}:
        for key, entry in asked.items():
            if entry["item"] == item and entry["status"] == "done" and not entry["undoes"] and key not in undone:
                found[f"{key}:undo"] = _entry(item, _former(order, entry), undoes=key)
    return found


def _former(order: Record, entry: Mapping[str, Any]) -> Wanted:
    """What was there before: nothing for an add, the service's former values for a change or an end."""
    wanted = Wanted(**entry["wanted"])
    before = order.facts["before"].get(entry["item"], {"wanted": ()})
    former = {former.place: former for former in (Wanted(**kept) for kept in before["wanted"])}
    return former.get(wanted.place, replace(wanted, values=None))


def _settled(item: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    mine = [entry for entry in asked.values() if entry["item"] == item["id"]]
    if any(entry["status"] == "asked" for entry in mine):
        return dict(item)
    failed = any(entry["status"] == "failed" for entry in mine)
    return {**item, "state": "failed" if failed else "completed"}


def _with_product(order: Record, item: Mapping[str, Any]) -> dict[str, Any]:
    """A completed item names the product that it made, so that a later order can change or end it."""
    if item["state"] != "completed" or item["action"] == "noChange":
        return dict(item)
    status = "terminated" if item["action"] == "delete" else "active"
    return {**item, "product": {**(item.get("product") or {}), "id": _service_id(order, item), "status": status}}


async def _keep_inventory(work: Work, order: Record, item: Mapping[str, Any], asked: Asked) -> None:
    """Write the service that the network confirmed. Before the order says so: a crash between is done again."""
    if item["action"] == "noChange":
        return
    id = _service_id(order, item)
    if item["action"] == "delete":
        await inventory.end(work.store, order.tenant, id)
        return
    wanted = [Wanted(**entry["wanted"]) for entry in asked.values() if entry["item"] == item["id"]]
    before = order.facts["before"].get(item["id"], {"offering": "", "given": {}})
    offering = planning.offering_id(item) or before["offering"]
    given = {**before["given"], **planning.characteristics(item)}
    present = Present(offering, given, tuple(w for w in wanted if w.values is not None))
    await inventory.keep(work.store, order, id, work.products.offerings[offering].name, present)


def _end(order: Record, asked: Asked) -> dict[str, Any]:
    """The notes of a failed order: for each failure the network's, the plan's or the policy's own words."""
    told = [
        {"id": f"failure-{number}", "author": "ConvergedON", "date": now(), "text": _words(entry)}
        for number, entry in enumerate((e for e in asked.values() if e["status"] == "failed"), 1)
    ]
    return {"note": [*(order.body.get("note") or []), *told], "completionDate": now()}


def _words(entry: Mapping[str, Any]) -> str:
    device = entry["wanted"]["device"] if "wanted" in entry else ""
    place = f" on {device}" if device and not entry["words"].startswith(device) else ""
    result = f"{entry['result']}: " if entry.get("result") else ""
    return f"item {entry['item']}{place}: {result}{entry['words'] or 'no words were given'}"


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
