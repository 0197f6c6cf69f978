"""The figures, each a definition over audit records and nothing else; and what customers say, over their answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from convergedon.handlers.surveys import nps

Entry = Mapping[str, Any]
"""The body of an audit record."""

WINDOW = 86_400
NONE = "–"
"""What stands where there is no figure."""
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
    and ``many``) it is of. With ``per`` it is told how many there are for a hundred of what that tells apart: it gives
    the name of the one that a record is about, nothing for records that are about none. An ``opinion`` is of
    answers, and not of audit records.
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
    per: Callable[[Entry], str] | None = None
    opinion: bool = False

    @property
    def unit(self) -> str:
        return "s" if self.seconds else "perHundred" if self.per else "points" if self.opinion else "1"


@dataclass(frozen=True)
class Figure:
    """A definition with its value over some records; ``entries`` are those that counted, newest first.

    ``number`` is the value as a number, where there is one; ``count`` says of how many it is.
    """

    definition: Definition
    value: str
    note: str
    entries: tuple[Entry, ...] = ()
    number: float | None = None
    count: int = 0


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
    Definition(
        "hand-offs-per-100",
        "Hand-offs per 100 incidents",
        "Times in the last 24 hours that a person had to act on a disturbance, for a hundred problems of the network "
        "that customers were told of (audit customer.told with outcome done, each alarm once): workflows that were "
        "handed over (audit workflow.escalated), approvals that persons gave or refused (workflow.approval), and "
        "messages that were parked but for those of orders, usage and bills (message.parked).",
        {"body.what": {"$in": ["customer.told", "workflow.escalated", "workflow.approval", "message.parked"]}},
        lambda entry: _is_hand_off(entry),
        one="hand-off",
        many="hand-offs",
        per=lambda entry: _incident(entry),
    ),
)
ABOUT_INCIDENTS = ("Alarm", "AffectedParty", "CustomerNotification", "Workflow")
"""What the types of those events begin with that tell of incidents."""


def _is_hand_off(entry: Entry) -> bool:
    if entry["what"] == "message.parked":
        subject = str(entry["on"])
        return not subject.startswith("event.") or subject.rpartition(".")[2].startswith(ABOUT_INCIDENTS)
    decided = entry["what"] == "workflow.approval" and entry["outcome"] == "done"
    return bool(decided or entry["what"] == "workflow.escalated")


def _incident(entry: Entry) -> str:
    """The alarm at the head of a problem that a customer was told of."""
    return entry["on"] if entry["what"] == "customer.told" and entry["outcome"] == "done" else ""


def named(name: str) -> Definition | None:
    return next((definition for definition in (*FIGURES, NPS) if definition.name == name), None)


def compute(definition: Definition, entries: Sequence[Entry]) -> Figure:
    """The figure over these audit records; records of other kinds among them do not count."""
    counted = [entry for entry in entries if definition.counts(entry)]
    counted.sort(key=lambda entry: entry["time"], reverse=True)
    number = len(counted)
    if definition.per:
        incidents = len({name for entry in entries if (name := definition.per(entry))})
        note = f"{_so_many(number, definition.one, definition.many)}, {_so_many(incidents, 'incident', 'incidents')}"
        ratio = round(100 * number / incidents, 1) if incidents else None
        return Figure(definition, NONE if ratio is None else str(ratio), note, tuple(counted), ratio, incidents)
    if not definition.seconds:
        parts = Counter(definition.parts[entry["what"]] for entry in counted if definition.parts)
        by_part = ", ".join(f"{name} {count}" for name, count in parts.most_common())
        note = by_part or "in the last 24 hours"
        return Figure(definition, str(number), note, tuple(counted), number, number)
    note = _so_many(number, definition.one, definition.many)
    took = [seconds for seconds in map(_took, counted) if seconds is not None]
    if not took:
        return Figure(definition, NONE, note)
    middle = median(took)
    note = f"{note}, slowest {duration(max(took))}"
    return Figure(definition, duration(middle), note, tuple(counted), round(middle, 6), number)


NPS = Definition(
    "nps",
    "Net promoter score",
    "Customers who would recommend us (9 or 10 of 10) less those who would not (0 to 6), in per cent of all who "
    "answered: the answers that customers gave last after an all-clear or a completed order.",
    {},
    lambda _: False,
    opinion=True,
)
OPINION_DAYS = 30


def opinion(answers: Sequence[Mapping[str, Any]], days: int = OPINION_DAYS) -> Figure:
    """The net promoter score over these answers; of none there is no figure."""
    score, number = nps(answer["score"] for answer in answers), len(answers)
    value = NONE if score is None else f"{score:+d}"
    note = f"{_so_many(number, 'answer', 'answers')} in the last {'24 hours' if days == 1 else f'{days} days'}"
    return Figure(NPS, value, note, number=score, count=number)


def _so_many(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


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
