"""`convergedon token`: a token of the development issuer."""

from __future__ import annotations

from pathlib import Path

import click

from convergedon.core.commands.shared import ask, data_option, settings_of, show


@click.command()
@click.option("--tenant", required=True, help="Tenant the token is for.")
@click.option("--role", required=True, help="csr, noc, mediation, billing, customer, reader, auditor or admin.")
@click.option("--party", help="Party the token is for: a customer sees its own things alone.")
@data_option
def token(tenant: str, role: str, party: str | None, data: Path | None) -> None:
    """Print a token of the local development issuer."""
    from convergedon.core import app

    show(ask(app.token(settings_of(data), tenant, role, party)))
