"""What an order asked of the network and what came of it: entries by intent key, kept in the order's record.

An entry is {item, wanted, undoes, status, words, result}; status is asked, done or failed, result the adapter's word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from time import time
from typing import Any

from convergedon.adapters.contract import Intent, Outcome
from convergedon.core import trace
from convergedon.core.bus import partition, token
from convergedon.core.store import Outgoing, Record
from convergedon.handlers.product_ordering import items
from convergedon.mediation.planning import Wanted
from convergedon.mediation.work import Work

UNKNOWN = "unknown"
"""The result of an intent of which nobody knows whether the device did it."""
GRACE = 60.0
"""Seconds after an intent's deadline in which its answer is still waited for."""

Asked = dict[str, dict[str, Any]]


def copied(order: Record) -> Asked:
    return {key: dict(entry) for key, entry in order.facts.get("asked", {}).items()}


def entry(item: str, wanted: Wanted, undoes: str = "") -> dict[str, Any]:
    return {"item": item, "wanted": asdict(wanted), "undoes": undoes, "status": "asked", "words": ""}


def due(work: Work) -> float:
    """Until when answers to what is asked now are waited for."""
    return time() + work.settings.intent_deadline + GRACE


def service_id(order: Record, item: Mapping[str, Any]) -> str:
    """A new service is named by the order and item that make it; others by the product that the item names."""
    if item["action"] == "add":
        return f"{order.id}-{item['id']}"
    return str((item.get("product") or {}).get("id", ""))


def intents(work: Work, order: Record, asked: Asked) -> list[Outgoing]:
    """The messages to the adapters for what is not answered yet."""
    return [_intent(work, order, key, one) for key, one in asked.items() if one["status"] == "asked"]


def _intent(work: Work, order: Record, key: str, one: Mapping[str, Any]) -> Outgoing:
    """The same key and message id however often it is sent."""
    wanted = one["wanted"]
    item = next(item for item in items(order.body) if item["id"] == one["item"])
    intent = Intent(
        key=key,
        tenant=order.tenant,
        device=wanted["device"],
        service=wanted["service"],
        instance=service_id(order, item),
        values=wanted["values"],
        deadline=time() + work.settings.intent_deadline,
        purpose="undo" if one["undoes"] else "order",
        order=order.id,
        site=wanted.get("site", ""),
        owner=order.facts.get("owner"),
        trace=trace.headers().get("traceparent", ""),
    )
    subject = f"intent.{token(wanted['adapter'])}.{token(wanted['device'])}"
    body = {
        "intent": asdict(intent),
        "reply": f"network.{partition(order.id)}.outcome",
        "about": {"kind": order.kind, "tenant": order.tenant, "id": order.id},
    }
    return Outgoing(key, subject, work.seals.sealed(subject, body), trace.headers())


def take(asked: Asked, outcome: Outcome) -> bool:
    """Enter an answer; False when it says nothing new.

    One that comes after the order stopped waiting for it counts only if the device did it all the same: what was asked
    back is then back, anything else ``stands`` there although its item has failed.
    """
    one = asked[outcome.key]
    late = one["status"] == "failed" and one.get("result") == UNKNOWN and outcome.done
    if late:
        one.update({"status": "done"} if one["undoes"] else {"stands": True}, result=outcome.status)
    elif one["status"] == "asked":
        one.update(status="done" if outcome.done else "failed", words=outcome.words, result=outcome.status)
    else:
        return False
    return True


def give_up(asked: Asked) -> None:
    """Enter for all that is unanswered that nobody knows what became of it."""
    for one in asked.values():
        if one["status"] == "asked":
            one.update(status="failed", result=UNKNOWN, words="the device did not answer until its deadline")


def is_open(asked: Asked) -> bool:
    return any(one["status"] == "asked" for one in asked.values())


def undo_failed(order: Record, asked: Asked) -> Asked:
    """For each item with a failure: the entries that take back what was done, unless they were asked already."""
    failed = {one["item"] for one in asked.values() if one["status"] == "failed" and not one["undoes"]}
    undone = {one["undoes"] for one in asked.values()}
    did = [
        key
        for key, one in asked.items()
        if one["item"] in failed and not one["undoes"] and (one["status"] == "done" or one.get("stands"))
    ]
    return undo(order, asked, [key for key in did if key not in undone])


def standing(asked: Asked) -> list[str]:
    """What is or may be on a device and is not taken back: done, unanswered, or nobody knows."""
    back = {one["undoes"] for one in asked.values() if one["status"] in ("asked", "done")}
    return [key for key, one in asked.items() if not one["undoes"] and key not in back and _may_stand(one)]


def _may_stand(one: Mapping[str, Any]) -> bool:
    return one["status"] != "failed" or one.get("result") == UNKNOWN or bool(one.get("stands"))


def undo(order: Record, asked: Asked, keys: Iterable[str]) -> Asked:
    """The entries that bring the former state back. A device that said no to one is asked with a new key."""
    times = [one["undoes"] for one in asked.values()]
    return {
        f"{key}:undo{times.count(key) or ''}": entry(asked[key]["item"], _former(order, asked[key]), undoes=key)
        for key in keys
    }


def _former(order: Record, one: Mapping[str, Any]) -> Wanted:
    """What was there before: nothing for an add, the service's former values for a change or an end."""
    wanted = Wanted(**one["wanted"])
    before = order.facts.get("before", {}).get(one["item"], {"wanted": ()})
    former = {former.place: former for former in (Wanted(**kept) for kept in before["wanted"])}
    return former.get(wanted.place, replace(wanted, values=None))


def words(one: Mapping[str, Any]) -> str:
    """What a person reads of a failure: item, device, and the network's, the plan's or the policy's own words."""
    device = one["wanted"]["device"] if "wanted" in one else ""
    place = f" on {device}" if device and not one["words"].startswith(device) else ""
    result = f"{one['result']}: " if one.get("result") else ""
    return f"item {one['item']}{place}: {result}{one['words'] or 'no words were given'}"
