"""`convergedon usage`: what a usage was made of."""

from __future__ import annotations

import json
from pathlib import Path

import click

from convergedon.core.commands.shared import ask, connected, data_option, json_option


@click.group()
def usage() -> None:
    """What was counted for customers."""


@usage.command("sources")
@click.argument("id")
@click.option("--tenant", required=True, help="Tenant of the usage.")
@json_option
@data_option
def usage_sources(id: str, tenant: str, as_json: bool, data: Path | None) -> None:
    """Show what a usage was made of: exporters, records, sampling, and what was missing."""
    from convergedon.core import app

    found = ask(app.usage_sources(connected(data), tenant, id))
    if found is not None:
        click.echo(json.dumps(found.document) if as_json else str(found))
