"""The four figures, each a definition over audit records and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Entry = Mapping[str, Any]
"""The body of an audit record."""

WINDOW = 86_400
CALLS = ("call.list", "call.retrieve", "call.create", "call.patch", "call.delete")


@dataclass(frozen=True)
class Definition:
    """``whats`` are the audit records that may count, ``counts`` which of them do; ``seconds``: of a median."""

    name: str
    title: str
    definition: str
    one: str
    whats: tuple[str, ...]
    counts: Callable[[Entry], bool]
    seconds: bool = False
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
        "order completed",
        ("order.finished",),
        lambda entry: entry["outcome"] == "done" and _took(entry) is not None,
        seconds=True,
        many="orders completed",
    ),
    Definition(
        "fault-to-customer",
        "Fault to customer",
        "Median time from the reception of a fault's trap to the customer's listener accepting the message about it "
        "(answer 2xx), over the messages of the last 24 hours (audit event.delivered with seconds).",
        "message delivered",
        ("event.delivered",),
        lambda entry: entry["outcome"] == "done" and _took(entry) is not None,
        seconds=True,
        many="messages delivered",
    ),
    Definition(
        "refusals",
        "Refused by policy",
        "Calls of the APIs and of this console that policy refused in the last 24 hours "
        "(audit call.* with outcome refused).",
        "call refused",
        CALLS,
        lambda entry: entry["outcome"] == "refused",
        many="calls refused",
    ),
    Definition(
        "hand-offs",
        "Handed to people",
        "Times in the last 24 hours that the gateway could not end its work and a person has to: messages it parked "
        "(audit message.parked) and orders that ended failed or partial (audit order.finished with outcome failed).",
        "hand-off",
        ("message.parked", "order.finished"),
        lambda entry: entry["what"] == "message.parked" or entry["outcome"] == "failed",
        many="hand-offs",
    ),
)


def named(name: str) -> Definition | None:
    return next((definition for definition in FIGURES if definition.name == name), None)


def compute(definition: Definition, entries: Sequence[Entry]) -> Figure:
    """The figure over these audit records; records of other kinds among them do not count."""
    counted = [entry for entry in entries if entry["what"] in definition.whats and definition.counts(entry)]
    counted.sort(key=lambda entry: entry["time"], reverse=True)
    number = len(counted)
    note = f"{number} {definition.one if number == 1 else definition.many}"
    if not definition.seconds:
        return Figure(definition, str(number), note, tuple(counted))
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
