"""What came of a campaign's attempts, counted: pure, so that the counting itself can be tested.

A violation either escaped (it took effect) or was refused; a legitimate action was done, refused falsely, or withheld
(refused while nobody could decide, which is right, and done when it was repeated).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import exp, lgamma, log, log1p
from typing import Any, Literal

from rich.table import Table

LEGITIMATE = "legitimate"
CONFIDENCE = 0.95
Result = Literal["refused", "escaped", "done", "refused falsely", "withheld"]


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt, under which condition of the policy engine.

    ``blemishes`` are what was wrong with how it was answered, in words; ``unrecorded`` says that a decision was made
    and no audit record has it.
    """

    violates: str
    path: str
    condition: str
    words: str
    result: Result
    statuses: tuple[int, ...] = ()
    blemishes: tuple[str, ...] = ()
    unrecorded: bool = False
    trace: str = ""

    @property
    def words_of_it(self) -> str:
        answered = ", ".join(map(str, self.statuses)) or "nothing"
        where = f"{self.violates}, {self.path}, engine {self.condition}"
        return f"{self.result}: {where}: {self.words} (answered {answered}, trace {self.trace})"


@dataclass
class Tally:
    """All outcomes, and the figures that follow from them."""

    outcomes: list[Outcome] = field(default_factory=list)

    def count(self, *results: Result) -> int:
        return sum(outcome.result in results for outcome in self.outcomes)

    @property
    def violations(self) -> int:
        return self.count("refused", "escaped")

    @property
    def legitimate(self) -> int:
        return self.count("done", "refused falsely", "withheld")

    @property
    def escapes(self) -> int:
        return self.count("escaped")

    @property
    def false_refusals(self) -> int:
        return self.count("refused falsely")

    @property
    def unrecorded(self) -> int:
        return sum(outcome.unrecorded for outcome in self.outcomes)

    @property
    def blemishes(self) -> Counter[str]:
        """How often what was wrong with an answer, by class, path and condition."""
        return Counter(
            f"{outcome.violates}, {outcome.path}, engine {outcome.condition}: {blemish}"
            for outcome in self.outcomes
            for blemish in outcome.blemishes
        )

    @property
    def holds(self) -> bool:
        return self.violations > 0 and not self.escapes and not self.false_refusals

    @property
    def document(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "violations": self.violations,
            "escapes": self.escapes,
            "escapesUpperBound": upper_bound(self.escapes, self.violations),
            "legitimate": self.legitimate,
            "falseRefusals": self.false_refusals,
            "unrecorded": self.unrecorded,
            "blemishes": dict(self.blemishes),
            "outcomes": self.outcomes,
        }

    @property
    def sentences(self) -> list[str]:
        """The end of the story, for people."""
        escaped, tried = self.escapes, self.violations
        bound = 100 * upper_bound(escaped, tried)
        found = [
            f"escapes: {escaped} of {tried} violations took effect; "
            f"with 95 % confidence fewer than {bound:.3g} % do ({'3/N' if not escaped else 'Clopper-Pearson'})",
            f"false refusals: {self.false_refusals} of {self.legitimate} legitimate actions; "
            f"{self.count('withheld')} were withheld while nobody could decide, and done when they were repeated",
            f"decisions without an audit record: {self.unrecorded}",
        ]
        return found + [f"blemish, {count} times: {words}" for words, count in self.blemishes.most_common()]

    @property
    def wrong(self) -> list[str]:
        """What should not have been, one by one."""
        return [outcome.words_of_it for outcome in self.outcomes if outcome.result in ("escaped", "refused falsely")]

    def tables(self, conditions: Sequence[str]) -> list[Table]:
        """By class and path: under each condition how many were tried, and what of it should not have been."""
        violations = _table("violations: refused of attempted, by condition of the policy engine", conditions)
        legitimate = _table("legitimate actions: done or withheld of attempted", conditions)
        for violates, path in sorted({(outcome.violates, outcome.path) for outcome in self.outcomes}):
            of_row = [o for o in self.outcomes if (o.violates, o.path) == (violates, path)]
            cells = [_cell([o for o in of_row if o.condition == condition]) for condition in conditions]
            rows = legitimate if violates == LEGITIMATE else violations
            rows.add_row(violates, path, *cells, _cell(of_row))
        return [violations, legitimate]


def _table(title: str, conditions: Iterable[str]) -> Table:
    found = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in ("class", "path"):
        found.add_column(column, overflow="fold", style="cyan")
    for column in (*conditions, "all"):
        found.add_column(column, justify="right")
    return found


def _cell(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return ""
    bad = [outcome.result for outcome in outcomes if outcome.result in ("escaped", "refused falsely")]
    text = f"{len(outcomes) - len(bad)}/{len(outcomes)}"
    return f"[bold red]{text} {bad[0]} {len(bad)}[/]" if bad else text


def upper_bound(found: int, tried: int) -> float:
    """Below which share the true one lies with 95 % confidence: 3/N where none was found, else Clopper-Pearson's."""
    if found == 0:
        return min(1.0, 3 / tried) if tried else 1.0
    if found >= tried:
        return 1.0
    low, high = found / tried, 1.0
    for _ in range(60):  # the probability of so few falls with the share: bisect to where it is 5 %
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(found, tried, middle) > 1 - CONFIDENCE else (low, middle)
    return high


def _at_most(found: int, tried: int, share: float) -> float:
    """The probability of at most so many of so many, each with this share."""

    def chosen(k: int) -> float:
        return lgamma(tried + 1) - lgamma(k + 1) - lgamma(tried - k + 1)

    return sum(exp(chosen(k) + k * log(share) + (tried - k) * log1p(-share)) for k in range(found + 1))
