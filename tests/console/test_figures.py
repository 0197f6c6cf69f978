"""The four figures say what their definitions say."""

import pytest

from convergedon.handlers.console import figures
from convergedon.handlers.console.figures import compute, duration, named


def entry(what: str, outcome: str = "done", time: float = 1.0, **detail: object) -> dict[str, object]:
    return {"what": what, "outcome": outcome, "time": time, "detail": detail}


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
    entry("message.parked", "failed"),
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
    assert [compute(definition, []).value for definition in figures.FIGURES] == ["–", "–", "0", "0"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.085, "85 ms"), (0.0996, "100 ms"), (0.25, "0.25 s"), (12.34, "12.3 s"), (59.97, "1 min 0 s"),
     (200, "3 min 20 s"), (7500, "2 h 5 min")],
)  # fmt: skip
def test_durations_are_read_by_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words
