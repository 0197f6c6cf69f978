"""`convergedon parked`: messages that wait for a person."""

from __future__ import annotations

from pathlib import Path

import click

from convergedon.core.commands.shared import ask, connected, data_option, show


@click.group()
def parked() -> None:
    """Messages that could not succeed."""


@parked.command("list")
@click.option(
    "--most", type=click.IntRange(1), default=1000, show_default=True, help="So many at most, the oldest first."
)
@data_option
def parked_list(most: int, data: Path | None) -> None:
    """Show what is parked, and why."""
    from convergedon.core import app

    show(ask(app.parked_list(connected(data), most)))


@parked.command("retry")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@data_option
def parked_retry(ids: tuple[str, ...], data: Path | None) -> None:
    """Try parked messages again: those named, or all."""
    from convergedon.core import app

    show(ask(app.parked_retry(connected(data), list(ids))))


@parked.command("drop")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are parked now.")
@data_option
def parked_drop(ids: tuple[str, ...], everything: bool, data: Path | None) -> None:
    """Let parked messages go for good; the audit record says which, and who did it."""
    from convergedon.core import app

    show(ask(app.parked_drop(connected(data), list(ids), everything)))
