"""`convergedon policy`: policies are tested, checked, explained, replayed and put in force."""

from __future__ import annotations

import json
from pathlib import Path
from time import time

import click

from convergedon.core.commands.shared import FOLDER, ask, connected, data_option, duration, settings_of, show


@click.group()
def policy() -> None:
    """The rules that everything is checked by."""


@policy.command("test")
@click.argument("folder", type=FOLDER, required=False)
@data_option
def policy_test(folder: Path | None, data: Path | None) -> None:
    """Run the tests beside the policies of FOLDER, or beside those that are set."""
    from convergedon.core import app

    show(ask(app.policy_test(settings_of(data), folder)))


@policy.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@data_option
def policy_export(folder: Path, data: Path | None) -> None:
    """Write the policies that are in force to a new FOLDER."""
    from convergedon.core import app

    show(ask(app.policy_export(connected(data), folder)))


@policy.command("check")
@click.argument("folder", type=FOLDER, required=False)
@data_option
def policy_check(folder: Path | None, data: Path | None) -> None:
    """Say what is to be mended in the policies of FOLDER, or in those that are set."""
    from convergedon.core import app

    show(ask(app.policy_check(settings_of(data), folder)))


@policy.command("explain")
@click.argument("decision")
@data_option
def policy_explain(decision: str, data: Path | None) -> None:
    """Say why a decision was made: the rules for it and against it. DECISION is its id."""
    from convergedon.core import app

    show(ask(app.policy_explain(connected(data), decision.removeprefix("urn:convergedon:decision:"))))


@policy.command("replay")
@click.argument("folder", type=FOLDER)
@click.option("--since", required=True, metavar="TIME", help="How far back, as 90m, 24h or 7d.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@data_option
def policy_replay(folder: Path, since: str, as_json: bool, data: Path | None) -> None:
    """Say which past decisions the policies of FOLDER would have made otherwise."""
    from convergedon.core import app

    start = time() - duration(since)
    found = ask(app.policy_replay(connected(data), folder, start))
    if found is not None:
        click.echo(json.dumps(found.document) if as_json else found.words)


@policy.command("activate")
@click.argument("folder", type=FOLDER)
@click.option("--note", default="", help="What it is for, kept with it.")
@data_option
def policy_activate(folder: Path, note: str, data: Path | None) -> None:
    """Put the policies of FOLDER in force, in every process."""
    from convergedon.core import app

    show(ask(app.policy_activate(connected(data), folder, note)))


@policy.command("rollback")
@data_option
def policy_rollback(data: Path | None) -> None:
    """Put in force again what was before the last activation."""
    from convergedon.core import app

    show(ask(app.policy_rollback(connected(data))))


@policy.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@data_option
def policy_status(as_json: bool, data: Path | None) -> None:
    """Show which policies are in force, and in which processes."""
    from convergedon.core import app
    from convergedon.core.activation import told

    found = ask(app.policy_status(connected(data)))
    if found is not None:
        click.echo(json.dumps(found) if as_json else told(found))
