"""`convergedon notifications`: rules for what customers are told, tried before they are in force."""

from __future__ import annotations

from pathlib import Path

import click

from convergedon.core.commands.shared import FILE, ask, data_option, settings_of, show


@click.group()
def notifications() -> None:
    """What customers are told, when and how."""


@notifications.command("check")
@click.argument("file", type=FILE)
@data_option
def notifications_check(file: Path, data: Path | None) -> None:
    """Say what is to be mended in FILE, rules of notifications, and in its templates."""
    from convergedon.core import app

    show(ask(app.notifications_check(settings_of(data), file)))
