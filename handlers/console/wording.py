"""Records in an operator's words: the steps of an order, states with their colour, amounts and volumes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from markupsafe import Markup

from convergedon.core.store import Record

ENDED = ("completed", "failed", "partial", "cancelled", "rejected")

TONES: Mapping[str, str] = {
    **dict.fromkeys(("completed", "cleared", "done", "billed", "settled", "serviceRestored", "orderCompleted"), "good"),
    **dict.fromkeys(("failed", "rejected", "partial", "critical", "major", "orderFailed", "serviceAffected"), "bad"),
    **dict.fromkeys(("refused", "minor", "warning", "raised", "updated", "held", "pending", "cancelled"), "warn"),
    "flapping": "warn",
    **dict.fromkeys(("compensated", "escalated"), "bad"),
    **dict.fromkeys(("waitingForApproval", "waitingForTurn", "waitingForDevice", "stopped", "compensating"), "warn"),
    **dict.fromkeys(("running", "acknowledged", "inProgress", "received", "guided", "rated", "new", "sent"), "busy"),
}
"""State -> the colour of its badge. The badge always says the state in words too."""

WORDS: Mapping[str, str] = {
    "inProgress": "in progress",
    "rolledBack": "rolled back",
    "waitingForApproval": "waits for approval",
    "waitingForTurn": "waits for its turn",
    "waitingForDevice": "waits for its device",
    "compensating": "being taken back",
    "compensated": "taken back",
    "escalated": "for a person",
    "assessingCancellation": "assessing cancellation",
    "pendingCancellation": "pending cancellation",
    "onHold": "on hold",
    "partiallyPaid": "partially paid",
    "serviceAffected": "disturbance told",
    "serviceUpdated": "change told",
    "serviceRestored": "all-clear told",
    "serviceEnded": "end of service told",
    "serviceSummary": "summary told",
    "orderCompleted": "completion told",
    "orderFailed": "failure told",
    "orderCancelled": "cancellation told",
}


@dataclass(frozen=True)
class Step:
    """One step of an order: ``state`` is done, now or failed."""

    name: str
    state: str
    words: str = ""
    time: str = ""


def steps(order: Record) -> list[Step]:
    """Taken, at work or waiting, each device's answer, the end: as far as the order has come."""
    state, asked = order.body["state"], order.facts.get("asked", {})
    ended, taken = state in ENDED, state not in ("draft", "acknowledged")
    begin = "draft" if state == "draft" else "acknowledged"
    found = [Step(begin, "done" if taken else "now", time=order.body.get("orderDate", ""))]
    if asked or (taken and state not in ("rejected", "cancelled")):
        found.append(Step("in progress" if ended else words(state), "done" if ended else "now"))
    found += [_answer(entry) for entry in asked.values()]
    if ended:
        time = order.body.get("completionDate") or order.body.get("cancellationDate", "")
        found.append(Step(words(state), "done" if state == "completed" else "failed", time=time))
    return found


def _answer(entry: Mapping[str, Any]) -> Step:
    where = entry.get("wanted", {}).get("device") or "plan"
    said = words(str(entry.get("result") or entry["status"]))
    undone = "undo " if entry.get("undoes") else ""
    state = {"done": "done", "failed": "failed"}.get(entry["status"], "now")
    return Step(f"{where}: {undone}{said}", state, str(entry.get("words", "")))


def failures(order: Record) -> list[str]:
    """Why an order did not end well, in the words of network, plan or policy."""
    return [note["text"] for note in order.body.get("note") or [] if note.get("author") == "ConvergedON"]


def products(order: Record) -> list[str]:
    """Each item in a line: add internet-access, bandwidth 100, vlan 110, site berlin-1."""
    told = []
    for item in order.body.get("productOrderItem") or []:
        offering = (item.get("productOffering") or {}).get("id") or (item.get("product") or {}).get("id", "")
        given = (item.get("product") or {}).get("productCharacteristic") or []
        values = ", ".join(f"{one.get('name')} {one.get('value')}" for one in given)
        told.append(f"{item.get('action', '')} {offering}".strip() + (f": {values}" if values else ""))
    return told


def customers(body: Mapping[str, Any]) -> str:
    """The parties a resource names, in a line."""
    listed = body.get("relatedParty") or []
    return ", ".join(sorted({str(party.get("id", "")) for party in ([listed] if isinstance(listed, dict) else listed)}))


def title(record: Record) -> str:
    """What a person calls a record: an alarm by its problem and place, a bill by its number, else its own id."""
    body = record.body
    if record.kind == "alarm":
        where = (body.get("alarmedObject") or {}).get("id") or body.get("sourceSystemId", "")
        return f"{body.get('specificProblem') or body.get('alarmType', '')} on {where}"
    if record.kind == "workflowRun":
        return f"{body['workflow']['name']} on {body['target']}"
    return str(body.get("externalId") or body.get("billNo") or body.get("name") or record.id)


def characteristic(usage: Record, name: str) -> Any:
    listed = usage.body.get("usageCharacteristic") or []
    return next((one.get("value") for one in listed if one.get("name") == name), None)


def rated(usage: Record) -> str:
    """What a usage costs, net; empty while it has no price."""
    amounts = [part.get("taxExcludedRatingAmount") or {} for part in usage.body.get("ratedProductUsage") or []]
    if not amounts:
        return ""
    return money({"value": sum(one.get("value", 0) for one in amounts), "unit": amounts[0].get("unit", "")})


def money(amount: Mapping[str, Any] | None) -> str:
    return f"{amount['value']:,.2f} {amount.get('unit', '')}".strip() if amount and "value" in amount else ""


def volume(octets: Any) -> str:
    """Octets as a person reads them: 5.0 GB."""
    if not isinstance(octets, int | float):
        return ""
    size, units = float(octets), iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while size >= 999.5 and (larger := next(units, "")):
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def usage_ids(line: Record) -> Sequence[str]:
    listed = line.body.get("characteristic") or []
    return next((one["value"] for one in listed if one.get("name") == "usageId"), [])


def whole(text: str) -> str:
    """The same text with its units on the line of their numbers."""
    return re.sub(r"(\d) (ms|s|min|h)\b", "\\1\u00a0\\2", text)


def words(state: str) -> str:
    return WORDS.get(state, state)


def tone(state: str) -> str:
    return TONES.get(state, "plain")


def short(id: str) -> str:
    """The beginning of a long id, enough to tell two apart."""
    return id if len(id) <= 12 else id[:8]


def moment(when: Any) -> Markup:
    """A time element: ISO for machines and in its title; UTC in its text, which the page's script makes local."""
    if not when:
        return Markup("")
    try:
        at = datetime.fromtimestamp(when, UTC) if isinstance(when, int | float) else datetime.fromisoformat(str(when))
    except ValueError:
        return Markup.escape(when)
    iso = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    at = at.astimezone(UTC)
    return Markup('<time datetime="{0}" title="{0}">{1:%Y-%m-%d %H:%M:%S} UTC</time>').format(iso, at)


def readable(content: Any) -> str:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2, default=str).decode()
