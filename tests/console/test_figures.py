"""The figures say what their definitions say."""

import pytest

from convergedon.handlers import figures
from convergedon.handlers.figures import compute, duration, named


def entry(
    what: str, outcome: str = "done", time: float = 1.0, on: str = "productOrder/1", **detail: object
) -> dict[str, object]:
    return {"what": what, "outcome": outcome, "time": time, "on": on, "detail": detail}


ENTRIES = [
    entry("order.finished", seconds=0.2, time=1),
    entry("order.finished", seconds=0.4, time=3),
    entry("order.finished", seconds=3.0, time=2),
    entry("order.finished", "failed", seconds=9.0),
    entry("event.delivered", seconds=0.05),
    entry("event.delivered"),
    entry("call.create", "refused"),
    entry("intent.performed", "refused"),
    entry("intent.performed", "failed"),
    entry("call.list", "refused"),
    entry("event.withheld", "refused"),
    entry("step.refused", "refused"),
    entry("call.list"),
    entry("message.parked", "failed", on="event.1.acme.ProductOrderCreateEvent"),
    entry("usage.rejected", "failed"),
]


@pytest.mark.parametrize(
    ("name", "value", "note"),
    [
        ("activation", "0.40 s", "3 orders completed, slowest 3.00 s"),
        ("fault-to-customer", "50 ms", "1 message delivered, slowest 50 ms"),
        ("refusals", "5", "calls 2, intents 1, notifications 1, steps 1"),
        ("hand-offs", "2", "in the last 24 hours"),
    ],
)
def test_each_figure_counts_its_own_records(name: str, value: str, note: str) -> None:
    definition = named(name)
    assert definition

    figure = compute(definition, ENTRIES)

    assert (figure.value, figure.note) == (value, note)


def test_records_behind_a_figure_are_those_that_counted_newest_first() -> None:
    figure = compute(figures.FIGURES[0], ENTRIES)

    assert [one["time"] for one in figure.entries] == [3, 2, 1]


def test_without_records_a_time_is_unknown_and_a_count_is_zero() -> None:
    assert [compute(definition, []).value for definition in figures.FIGURES] == ["–", "–", "0", "0", "–"]


INCIDENTS = [
    *(entry("customer.told", on=f"alarm/{number}") for number in (1, 2, 3, 4, 4, 4)),
    entry("customer.told", "refused", on="alarm/5"),
    entry("workflow.escalated", "refused", on="workflowRun/1"),
    entry("workflow.escalated", on="workflowRun/2"),
    entry("workflow.approval", on="workflowRun/3"),
    entry("workflow.approval", "refused", on="workflowRun/3"),
    entry("workflow.begun", on="workflowRun/4"),
    entry("message.parked", "failed", on="network.3.pe1"),
    entry("message.parked", "failed", on="event.1.acme.AlarmCreateEvent"),
    entry("message.parked", "failed", on="event.1.acme.ProductOrderCreateEvent"),
    entry("message.parked", "failed", on="event.1.acme.UsageCreateEvent"),
]


def test_hand_offs_are_counted_for_a_hundred_problems_that_customers_were_told_of() -> None:
    """Each problem once, however many customers it had; what is refused or about orders is none."""
    definition = named("hand-offs-per-100")
    assert definition

    figure = compute(definition, INCIDENTS)

    assert (figure.value, figure.note) == ("125.0", "5 hand-offs, 4 incidents")
    assert len(figure.entries) == 5


def test_hand_offs_without_incidents_are_no_ratio_but_are_counted() -> None:
    definition = named("hand-offs-per-100")
    assert definition

    figure = compute(definition, [entry("workflow.escalated", on="workflowRun/1")])

    assert (figure.value, figure.note) == ("–", "1 hand-off, 0 incidents")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.085, "85 ms"), (0.0996, "100 ms"), (0.25, "0.25 s"), (12.34, "12.3 s"), (59.97, "1 min 0 s"),
     (200, "3 min 20 s"), (7500, "2 h 5 min")],
)  # fmt: skip
def test_durations_are_read_by_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words
