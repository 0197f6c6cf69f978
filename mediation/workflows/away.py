"""A device that is away while a run needs it: it is asked again, and the repair is begun anew when it answers.

What takes something back is asked again until the device has answered. A run that failed since its device was away,
and has taken back what it did, waits until that answers, by a reading that changes nothing. Both for so long and no
longer; then a person is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from convergedon.adapters.contract import Outcome, Reading, Reason
from convergedon.mediation.workflows.course import Ask, Error

REASONS: frozenset[Reason] = frozenset({"unreachable", "timeout", "unavailable"})
"""Why a device could not be asked, where that may be otherwise later and nobody needs to do anything about it."""
REST = 2.0
"""Seconds until it is asked again; the adapter itself tries until the deadline of what was asked."""
TAKING_BACK = re.compile(r"/compensate/\d")
"""In the path of what takes something back, also where a task calls itself compensate."""
PROBE = "again"
"""The path of the reading by which a run that is over waits for its device."""


def is_away(answer: Outcome | Reading) -> bool:
    """Whether the device could not be asked: nobody knows what it has."""
    return answer.status == "unknown" and answer.reason in REASONS


def may_come(outcome: Outcome) -> bool:
    """Whether the same, asked again later, may be done."""
    return outcome.retriable or outcome.reason == "deadline"


def is_patient(path: str) -> bool:
    """Whether a task waits for a device that is away: one that takes something back, or that waits for nothing else."""
    return path == PROBE or bool(TAKING_BACK.search(path))


def rest(entry: dict[str, Any], words: str, moment: float) -> None:
    """Have it be asked again: under another key, so that a late answer to this time is not taken for the next."""
    entry.update(tries=tries(entry) + 1, resting=True, words=words, due=moment + REST)


def tries(entry: Mapping[str, Any]) -> int:
    return int(entry.get("tries", 0))


def probe(told: Mapping[str, Mapping[str, Any]], wrong: Error | None) -> Ask | None:
    """The reading to wait by, where a run failed because a device was away; none where it failed otherwise."""
    failed = told.get(str(wrong["instance"])) if wrong else None
    if not (failed and failed.get("away")):
        return None
    return Ask(PROBE, "untilItAnswers", "observe", {**failed["given"], "values": {}})
