"""`convergedon demo` and `campaign`: the system tried on itself."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from convergedon.core.commands.shared import data_option, running_system, settings_of, until_told


@click.command()
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the results here.")
@click.option("--url", help="Gateway to use; without it the system on --data, or one of its own.")
@data_option
def demo(json_file: Path | None, url: str | None, data: Path | None) -> None:
    """Show the three lines from end to end on simulated network elements."""
    from importlib import import_module

    settings = settings_of(data)
    if url is None and "data" in settings.model_fields_set and (running := running_system(settings)):
        url = running.gateway
    run = import_module("convergedon.demo.run").run
    if not asyncio.run(until_told(run(settings, url, json_file))):
        sys.exit(1)


@click.group()
def campaign() -> None:
    """Trials that count what should not happen."""


@campaign.command("escapes")
@click.option("-n", "number", type=click.IntRange(1), default=200, show_default=True, help="Violations to try.")
@click.option("--seed", type=int, default=1, show_default=True, help="What chance begins with.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the outcomes here.")
def campaign_escapes(number: int, seed: int, json_file: Path | None) -> None:
    """Try to get past the policies on every path, and count what took effect; on systems of its own."""
    from importlib import import_module

    run = import_module("convergedon.demo.campaign").run
    if not asyncio.run(until_told(run(settings_of(None), number, seed, json_file))):
        sys.exit(1)
