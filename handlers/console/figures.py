"""The four figures, each a definition over audit records and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Entry = Mapping[str, Any]
"""The body of an audit record."""

WINDOW = 86_400
REFUSALS = {
    **dict.fromkeys(("call.list", "call.retrieve", "call.create", "call.patch", "call.delete"), "calls"),
    **dict.fromkeys(("step.refused", "order.begun"), "steps"),
    "intent.performed": "intents",
    "event.withheld": "notifications",
}
"""What may be refused -> on which of the four paths."""


@dataclass(frozen=True)
class Definition:
    """``where`` finds the audit records that may count (a store's filter), ``counts`` says which of them do.

    ``parts`` are what they are counted by besides. With ``seconds`` the median is told, and beside it how many (``one``
    and ``many``) it is of.
    """

    name: str
    title: str
    definition: str
    where: Mapping[str, Any]
    counts: Callable[[Entry], bool]
    seconds: bool = False
    parts: Mapping[str, str] = field(default_factory=dict)
    one: str = ""
    many: str = ""


@dataclass(frozen=True)
class Figure:
    """A definition with its value over some records; ``entries`` are those that counted, newest first."""

    definition: Definition
    value: str
    note: str
    entries: tuple[Entry, ...]


def _took(entry: Entry) -> float | None:
    seconds = entry["detail"].get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


FIGURES = (
    Definition(
        "activation",
        "Activation time",
        "Median time from an order's orderDate to its completion, over the orders completed in the last 24 hours "
        "(audit order.finished with outcome done).",
        {"body.what": "order.finished", "body.outcome": "done"},
        lambda entry: entry["what"] == "order.finished" and entry["outcome"] == "done" and _took(entry) is not None,
        seconds=True,
        one="order completed",
        many="orders completed",
    ),
    Definition(
        "fault-to-customer",
        "Fault to customer",
        "Median time from the reception of a fault's trap to the customer's listener accepting the message about it "
        "(answer 2xx), over the messages of the last 24 hours (audit event.delivered with seconds).",
        {"body.what": "event.delivered", "body.detail.seconds": {"$exists": True}},
        lambda entry: entry["what"] == "event.delivered" and entry["outcome"] == "done" and _took(entry) is not None,
        seconds=True,
        one="message delivered",
        many="messages delivered",
    ),
    Definition(
        "refusals",
        "Refused by policy",
        "Violations of policy that were refused in the last 24 hours, on all four paths: calls of the APIs and of this "
        "console, steps of flows, intents to devices and notifications (audit call.*, step.refused, order.begun, "
        "intent.performed and event.withheld with outcome refused). What would have taken effect unseen no record can "
        "tell: convergedon campaign escapes tries to get past the policies and counts that from outside.",
        {"body.what": {"$in": list(REFUSALS)}, "body.outcome": "refused"},
        lambda entry: entry["what"] in REFUSALS and entry["outcome"] == "refused",
        parts=REFUSALS,
    ),
    Definition(
        "hand-offs",
        "Handed to people",
        "Times in the last 24 hours that the gateway could not end its work and a person has to: messages it parked "
        "(audit message.parked) and orders that ended failed or partial (audit order.finished with outcome failed).",
        {"body.what": {"$in": ["message.parked", "order.finished"]}, "body.outcome": "failed"},
        lambda entry: entry["what"] in ("message.parked", "order.finished") and entry["outcome"] == "failed",
    ),
)


def named(name: str) -> Definition | None:
    return next((definition for definition in FIGURES if definition.name == name), None)


def compute(definition: Definition, entries: Sequence[Entry]) -> Figure:
    """The figure over these audit records; records of other kinds among them do not count."""
    counted = [entry for entry in entries if definition.counts(entry)]
    counted.sort(key=lambda entry: entry["time"], reverse=True)
    number = len(counted)
    if not definition.seconds:
        parts = Counter(definition.parts[entry["what"]] for entry in counted if definition.parts)
        by_part = ", ".join(f"{name} {count}" for name, count in parts.most_common())
        return Figure(definition, str(number), by_part or "in the last 24 hours", tuple(counted))
    note = f"{number} {definition.one if number == 1 else definition.many}"
    took = [seconds for seconds in map(_took, counted) if seconds is not None]
    if not took:
        return Figure(definition, "–", note, ())
    return Figure(definition, duration(median(took)), f"{note}, slowest {duration(max(took))}", tuple(counted))


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 85 ms, 0.25 s, 12.3 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
