"""What the console says of an order."""

from __future__ import annotations

from typing import Any

import pytest

from convergedon.core.store import Record
from convergedon.handlers.console.wording import steps

DONE = {"status": "done", "result": "applied", "wanted": {"device": "pe1"}}


@pytest.mark.parametrize(
    ("state", "asked", "wanted"),
    [
        ("draft", {}, [("draft", "now")]),
        ("acknowledged", {}, [("acknowledged", "now")]),
        ("rejected", {}, [("acknowledged", "done"), ("rejected", "failed")]),
        ("pending", {}, [("acknowledged", "done"), ("pending", "now")]),
        ("inProgress", {"1": DONE}, [("acknowledged", "done"), ("in progress", "now"), ("pe1: applied", "done")]),
        (
            "pendingCancellation",
            {"1": DONE},
            [("acknowledged", "done"), ("pending cancellation", "now"), ("pe1: applied", "done")],
        ),
        (
            "completed",
            {"1": DONE},
            [("acknowledged", "done"), ("in progress", "done"), ("pe1: applied", "done"), ("completed", "done")],
        ),
        ("cancelled", {}, [("acknowledged", "done"), ("cancelled", "failed")]),
    ],
)
def test_an_order_is_shown_as_far_as_it_has_come(state: str, asked: Any, wanted: Any) -> None:
    """One that waits is not said to be at work, and one that was cancelled before any work was never at it."""
    order = Record("productOrder", "1", "acme", {"state": state, "cancellationDate": "c"}, {"asked": asked})

    told = steps(order)

    assert [(step.name, step.state) for step in told] == wanted
    assert told[-1].time == ("c" if state in ("completed", "cancelled", "rejected") else "")
