"""`convergedon parked`: messages that wait for a person."""

from __future__ import annotations

from pathlib import Path

import click

from convergedon.core.commands.shared import ask, connected, data_option, show


@click.group()
def parked() -> None:
    """Messages that could not succeed."""


@parked.command("list")
@data_option
def parked_list(data: Path | None) -> None:
    """Show what is parked, and why."""
    from convergedon.core import app

    show(ask(app.parked_list(connected(data))))


@parked.command("retry")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@data_option
def parked_retry(ids: tuple[str, ...], data: Path | None) -> None:
    """Try parked messages again: those named, or all."""
    from convergedon.core import app

    show(ask(app.parked_retry(connected(data), list(ids))))
