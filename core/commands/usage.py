"""`convergedon usage`: what a usage was made of."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from convergedon.core.commands.shared import ask, connected, data_option, json_option, moment
from convergedon.core.errors import Misconfigured

DAY, LONGEST = timedelta(days=1), timedelta(days=366)


@click.group()
def usage() -> None:
    """What was counted for customers."""


@usage.command("sources")
@click.argument("id", required=False)
@click.option("--tenant", required=True, help="Tenant of the usage.")
@click.option("--from", "start", metavar="TIME", help="Without an ID: from when on, RFC 3339; else a day before --to.")
@click.option("--to", "end", metavar="TIME", help="Likewise: until when; else now.")
@click.option("--above", metavar="PERCENT", type=float, help="Only services whose sources are further apart than that.")
@json_option
@data_option
def usage_sources(
    id: str | None,
    tenant: str,
    start: str | None,
    end: str | None,
    above: float | None,
    as_json: bool,
    data: Path | None,
) -> None:
    """Show what a usage was made of: exporters, records, sampling, and what was missing.

    Without ID: what each source (flows, counters, files) has of each service, and how far they are apart.
    """
    from convergedon.core import app

    if id is None:
        span = _span(start, end)
        if above is not None and not 0 <= above <= 100:
            raise Misconfigured(f"--above is a number of per cent from 0 to 100, not {above:g}")
        settings = connected(data)
        for one in ask(app.usage_drift(settings, tenant, *span, above or 0.0)) or ():
            click.echo(json.dumps(one.document) if as_json else str(one))
        return
    if start or end or above is not None:
        raise Misconfigured("--from, --to and --above compare the sources of services: leave out the id of a usage")
    found = ask(app.usage_sources(connected(data), tenant, id))
    if found is not None:
        click.echo(json.dumps(found.document) if as_json else str(found))


def _span(start: str | None, end: str | None) -> tuple[datetime, datetime]:
    until = moment(end, "--to") if end else datetime.now(UTC)
    since = moment(start) if start else until - DAY
    if since >= until:
        raise Misconfigured(f"--from {since.isoformat()} is not before --to {until.isoformat()}")
    if until - since > LONGEST:
        raise Misconfigured(f"--from and --to are {(until - since).days} days apart: compare {LONGEST.days} at most")
    return since, until
