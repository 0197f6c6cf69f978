"""`convergedon workflow`: workflows are checked, rehearsed, stopped and let go on."""

from __future__ import annotations

from pathlib import Path

import click

from convergedon.core.commands.shared import FILE, ask, connected, data_option, settings_of, show


@click.group()
def workflow() -> None:
    """Repairs that are declared, approved and proven."""


@workflow.command("check")
@click.argument("place", metavar="[FILE|FOLDER]", type=click.Path(path_type=Path), required=False)
@data_option
def workflow_check(place: Path | None, data: Path | None) -> None:
    """Say what is to be mended in a definition, or in all of a folder; of none, in those that ship."""
    from convergedon.core import app

    show(ask(app.workflow_check(settings_of(data), place)))


@workflow.command("run")
@click.argument("file", type=FILE)
@click.option("--dry", is_flag=True, required=True, help="Nothing is done: what would be is shown.")
@click.option("--incident", type=FILE, required=True, help="File of an incident, as `workflow record` writes it.")
@data_option
def workflow_run(file: Path, dry: bool, incident: Path, data: Path | None) -> None:
    """Show what the workflow of FILE would do about a recorded incident."""
    from convergedon.core import app

    show(ask(app.workflow_rehearse(settings_of(data), file, incident)))


@workflow.command("record")
@click.argument("alarm")
@click.option("--tenant", required=True, help="Tenant of the alarm.")
@data_option
def workflow_record(alarm: str, tenant: str, data: Path | None) -> None:
    """Print the incident that a workflow for this ALARM would be given."""
    from convergedon.core import app

    show(ask(app.workflow_record(connected(data), tenant, alarm)))


@workflow.command("stop")
@click.option("--reason", default="", help="Why, for those who look at a run.")
@data_option
def workflow_stop(reason: str, data: Path | None) -> None:
    """Stop all workflows of all tenants."""
    from convergedon.core import app

    show(ask(app.workflow_press(connected(data), "stopped", reason)))


@workflow.command("resume")
@data_option
def workflow_resume(data: Path | None) -> None:
    """Let workflows go on, unless a tenant has stopped its own."""
    from convergedon.core import app

    show(ask(app.workflow_press(connected(data), "running", "")))
