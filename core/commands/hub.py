"""`convergedon hub`: who listens, and what they are told again."""

from __future__ import annotations

from pathlib import Path

import click

from convergedon.core.commands.shared import ask, calling, connected, data_option, moment, show


@click.group()
def hub() -> None:
    """Listeners that events are sent to."""


@hub.command("list")
@data_option
def hub_list(data: Path | None) -> None:
    """Show who listens, and how many events wait for each."""
    from convergedon.core import app

    show(ask(app.hub_list(connected(data))))


@hub.command("test")
@click.argument("id")
@data_option
def hub_test(id: str, data: Path | None) -> None:
    """Send a test event to a listener and say what it answered."""
    from convergedon.core import app

    show(ask(app.hub_test(calling(connected(data)), id)))


@hub.command("replay")
@click.argument("id")
@click.option("--from", "start", required=True, metavar="TIME", help="RFC 3339, for example 2026-05-01T12:00:00Z.")
@data_option
def hub_replay(id: str, start: str, data: Path | None) -> None:
    """Send a listener again what happened since a time."""
    from convergedon.core import app

    show(ask(app.hub_replay(connected(data), id, moment(start))))
