"""Measuring side by side: contestants take turns, and only what happened in one round is compared.

The machine may be shared, so a figure by itself is worth little; the median of the rounds' ratios is worth more.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

Turn = Callable[[], Awaitable[float]]
"""One measurement of one contestant; what it returns is compared with the others' of the same round."""


@dataclass(frozen=True)
class Effort:
    """``seconds`` that one measurement may take, ``rounds`` how often each contestant has its turn.

    ``most`` records are listed, on the embedded store and on ``stores``, others by name and URL.
    ``attempts`` is how many violations of policy are tried, ``megabytes`` how large a file is read.
    """

    seconds: float = 3.0
    rounds: int = 5
    most: int = 10_000
    stores: tuple[tuple[str, str], ...] = ()
    attempts: int = 2_000
    megabytes: float = 0


@dataclass
class Result:
    """What a benchmark found: figures of each contestant, ratios between them, and words to read them by."""

    title: str
    unit: str
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        return vars(self)


async def in_turn(contestants: Mapping[str, Turn], rounds: int, budget: float = 0) -> dict[str, list[float]]:
    """A B C A B C ...: the same number of turns for each, ``rounds`` of them or as many as fit in the budget."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    end, done = perf_counter() + budget, 0
    while done < rounds or perf_counter() < end:
        for name, turn in contestants.items():
            found[name].append(await turn())
        done += 1
    return found


def ratios(found: Mapping[str, Sequence[float]], *pairs: tuple[str, str]) -> dict[str, float]:
    """The median of the rounds' ratios of each pair."""
    return {
        f"{one} / {other}": rounded(statistics.median(a / b for a, b in zip(found[one], found[other], strict=True)))
        for one, other in pairs
    }


def spread(values: Sequence[float], scale: float = 1.0) -> dict[str, float]:
    """Median and 99th percentile (of fewer than a hundred values that is the largest), and how many there were."""
    ordered = sorted(values)
    return {
        "p50": rounded(scale * statistics.median(ordered)),
        "p99": rounded(scale * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]),
        "count": len(ordered),
    }


def rounded(value: float) -> float:
    """Three digits are more than a shared machine can tell."""
    return float(f"{value:.3g}") if abs(value) < 1000 else float(round(value))
