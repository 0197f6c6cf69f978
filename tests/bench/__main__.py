"""`make bench`: what the gateway costs, side by side with what it is built on and what it replaces.

    python -m tests.bench [post] [read] [order] [fault] [governed] [parts] [cost] [lists] [audit] [escapes] [netconf]
                            [traps] [flows] [calls] [correlation] [steady] [--json FILE]
    python -m tests.bench ... [--seconds N] [--rounds N]
    python -m tests.bench lists audit [--most N] [--store NAME=mongodb://...]

Figures are of this machine in this minute; the ratios are medians over rounds in which all took their turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import facts
from tests.bench.rounds import Effort, Result

NAMES = (
    *("post", "read", "order", "fault", "governed", "parts", "cost", "lists", "audit", "escapes"),
    *("netconf", "traps", "flows", "calls", "correlation", "steady"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}; all when none is named")
    parser.add_argument("--json", type=Path, default=Path("artefacts/bench.json"), metavar="FILE")
    parser.add_argument("--seconds", type=float, default=Effort.seconds, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=Effort.rounds, help="in which each contestant has its turn")
    parser.add_argument("--most", type=int, default=Effort.most, help="records that lists and audit are measured on")
    further = "a further store for lists, audit, correlation and fault"
    parser.add_argument("--store", type=_named, action="append", default=[], metavar="NAME=URL", help=further)
    parser.add_argument("--attempts", type=int, default=Effort.attempts, help="violations of policy that are tried")
    parser.add_argument("--megabytes", type=float, default=Effort.megabytes, help="of the large file of calls")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    effort = Effort(given.seconds, given.rounds, given.most, tuple(given.store), given.attempts, given.megabytes)
    # a store's URL may hold a password
    spent = {name: value for name, value in vars(effort).items() if name != "stores"}
    report: dict[str, Any] = {"machine": facts.machine(), "effort": spent, "benchmarks": {}}
    for name in given.names or NAMES:
        result = asyncio.run(import_module(f"tests.bench.{name}").measure(effort))
        report["benchmarks"][name] = result.document
        show(result)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {given.json}")


def _named(text: str) -> tuple[str, str]:
    name, sign, url = text.partition("=")
    if not (name and sign and url.startswith("mongodb")):
        raise argparse.ArgumentTypeError("a store is named NAME=mongodb://...")
    return name, url


def show(result: Result) -> None:
    """A table of the figures, the ratios below it."""
    console = Console()
    columns = list(dict.fromkeys(column for figures in result.figures.values() for column in figures))
    table = Table(title=f"{result.title} ({result.unit})", title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, figures in result.figures.items():
        table.add_row(name, *(f"{figures[column]:,g}" if column in figures else "" for column in columns))
    console.print(table)
    for pair, ratio in result.ratios.items():
        console.print(f"  {pair}: {ratio:g}", highlight=False)
    for note in result.notes:
        console.print(f"  {note}", style="dim", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
