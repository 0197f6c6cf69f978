"""The cases of the kit in one table: each is a promise, the adapters that it is for, and how it is tried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from convergedon.adapters.testing.trial import Bench

Group = Literal["contract", "golden", "faults", "fuzz"]
Play = Callable[[Bench], Awaitable[None]]
Applies = Callable[[Bench], str]
"""Why a case does not concern an adapter; empty when it does."""


class Broken(AssertionError):
    """A promise that is not kept, in words."""


@dataclass(frozen=True)
class Case:
    group: Group
    play: Play
    applies: Applies

    @property
    def name(self) -> str:
        return self.play.__name__.replace("_", "-")

    @property
    def promise(self) -> str:
        return " ".join((self.play.__doc__ or "").split())


CASES: list[Case] = []


def everybody(bench: Bench) -> str:
    return ""


def performers(bench: Bench) -> str:
    return "" if bench.performs else "it takes no intents"


def case(group: Group, applies: Applies = everybody) -> Callable[[Play], Play]:
    """Put a function into the table."""

    def put(play: Play) -> Play:
        CASES.append(Case(group, play, applies))
        return play

    return put


def require(kept: object, *words: Any) -> None:
    """Raise Broken unless it is kept."""
    if not kept:
        raise Broken(" ".join(str(word) for word in words))
