"""A story that checks itself: claims and times as they become known, tables, and one sentence about all of them.

It knows nothing of what is told; the demonstration (demo.py) tells it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from convergedon.core.errors import Misconfigured

FILE_WIDTH = 120
"""Columns of the tables where they are not printed to a terminal."""


def check_writable(file: Path | None) -> None:
    """Raises Misconfigured at once for a file that results could not be written to in the end."""
    try:
        if file:
            file.touch()
    except OSError as error:
        raise Misconfigured(f"cannot write to {file}: {error.strerror}") from error


# --- what happened, and whether it is true


class Broken(Exception):
    """A claim failed without which its line cannot go on."""


@dataclass(frozen=True)
class Claim:
    """``at`` is in seconds since the beginning; ``found`` is kept where it does not hold."""

    line: str
    words: str
    holds: bool
    at: float
    found: Any = None


@dataclass(frozen=True)
class Step:
    """How long something took; ``simulated`` when a simulated element's time is in it."""

    line: str
    words: str
    seconds: float
    simulated: bool

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s{' simulated' if self.simulated else ''}"


class Story:
    """Collects claims and times, says each as it is known, and ends with a sentence about all of them."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.steps: list[Step] = []
        self.facts: dict[str, Any] = {}
        self._began, self._started = time.monotonic(), datetime.now(UTC)
        self._line = ""
        self._console = Console(highlight=False, markup=False)
        if not self._console.is_terminal:
            self._console.width = FILE_WIDTH

    @contextmanager
    def line(self, name: str) -> Iterator[None]:
        """A part of the story; one that breaks is left, and the story goes on with the next."""
        if name != self._line:
            self.say(name, "bold")
        self._line = name
        with suppress(Broken):
            yield

    def check(self, words: str, holds: bool, found: Any = None, took: Step | None = None) -> bool:
        """Keep a claim, and say it."""
        claim = Claim(self._line, words, holds, round(time.monotonic() - self._began, 3), None if holds else found)
        self.claims.append(claim)
        mark = Text("ok    ", "green") if holds else Text("FAILED", "bold red")
        self.say(Text.assemble(mark, f" {claim.at:6.2f} s  {words}", (f" ({took})" if took else "", "dim")))
        return holds

    def need(self, words: str, holds: bool, found: Any = None, took: Step | None = None) -> None:
        """A claim without which its line cannot go on. Raises Broken."""
        if not self.check(words, holds, found, took):
            raise Broken(words)

    def took(self, words: str, seconds: float, simulated: bool = False) -> Step:
        self.steps.append(Step(self._line, words, round(seconds, 3), simulated))
        return self.steps[-1]

    def say(self, text: str | Text, style: str = "") -> None:
        """One line, cut at the edge of a terminal and whole in a file."""
        if self._console.is_terminal:
            self._console.print(text, style=style, no_wrap=True, overflow="ellipsis")
        else:
            self._console.print(text, style=style, soft_wrap=True)

    @property
    def failed(self) -> list[Claim]:
        return [claim for claim in self.claims if not claim.holds]

    @property
    def holds(self) -> bool:
        return bool(self.claims) and not self.failed

    @property
    def sentence(self) -> str:
        if self.holds:
            return f"all {len(self.claims)} claims hold"
        named = "; ".join(f"{claim.line}: {claim.words}" for claim in self.failed)
        return f"{len(self.failed)} of {len(self.claims)} claims failed: {named}"

    def end(self, json_file: Path | None, tables: Sequence[Table]) -> None:
        """The times, more tables, what was found instead of what failed, and the last sentence."""
        if json_file:
            text = json.dumps(self.document(), indent=2, default=_plain)
            json_file.write_text(f"{text}\n", encoding="utf-8")
        for rows in (_times(self.steps), *tables):
            self._console.print("", rows)
        self.say("")
        for claim in self.failed:
            self._console.print(f"{claim.line}: {claim.words}; found {_short(claim.found)}", style="red")
        self._console.print(self.sentence, style="bold green" if self.holds else "bold red", soft_wrap=True)

    def document(self) -> dict[str, Any]:
        """All of it, for a machine."""
        return {
            "holds": self.holds,
            "sentence": self.sentence,
            "started": self._started.isoformat(timespec="milliseconds"),
            "seconds": round(time.monotonic() - self._began, 3),
            "claims": self.claims,
            "steps": self.steps,
            **self.facts,
        }


def _times(steps: Sequence[Step]) -> Table:
    found = table("time after the call or datagram (simulated: a simulated element's time is in it)")
    for before, step in zip((None, *steps), steps, strict=False):
        found.add_row("" if before and before.line == step.line else step.line, step.words, str(step))
    return found


def table(title: str) -> Table:
    found = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    for number in range(3):
        found.add_column(overflow="fold", style="" if number else "cyan")
    return found


def _short(found: Any) -> str:
    text = found if isinstance(found, str) else json.dumps(found, default=_plain)
    return text if len(text) < 1000 else f"{text[:1000]} ..."


def _plain(value: Any) -> Any:
    """What JSON has no word for."""
    if isinstance(value, Decimal):
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
