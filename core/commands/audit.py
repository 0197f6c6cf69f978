"""`convergedon audit`: the record is verified, exported with its proof, and forgets a person."""

from __future__ import annotations

from pathlib import Path

import click

from convergedon.core.commands.shared import ask, connected, data_option, moment, settings_of, show
from convergedon.core.errors import Misconfigured


@click.group()
def audit() -> None:
    """The record of what was done."""


@audit.command("verify")
@data_option
def audit_verify(data: Path | None) -> None:
    """Check that no record was changed, added or cut off."""
    from convergedon.core import app

    show(ask(app.audit_verify(connected(data))))


@audit.command("key")
@data_option
def audit_key(data: Path | None) -> None:
    """Print the public key with which checkpoints are checked."""
    from convergedon.core import app

    show(ask(app.audit_key(settings_of(data))))


@audit.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--tenant", default="", help="Only this tenant's records; others stand in it by their hashes.")
@click.option("--since", metavar="TIME", help="RFC 3339, for example 2026-05-01T12:00:00Z.")
@click.option("--until", metavar="TIME", help="Likewise.")
@data_option
def audit_export(file: Path, tenant: str, since: str | None, until: str | None, data: Path | None) -> None:
    """Write records to FILE with a proof that anybody can check."""
    from convergedon.core import app
    from convergedon.core.proof import Asked

    span = [moment(text, name) if text else None for name, text in (("--since", since), ("--until", until))]
    show(ask(app.audit_export(connected(data), Asked(tenant, *span), file)))


@audit.command("erase")
@click.option("--tenant", required=True, help="Tenant of whom is erased.")
@click.option("--subject", help="A client or user, as its tokens name it.")
@click.option("--party", help="A party, as resources name it.")
@data_option
def audit_erase(tenant: str, subject: str | None, party: str | None, data: Path | None) -> None:
    """Make a person's references lead to nobody; the record stays whole."""
    from convergedon.core import app

    if bool(subject) == bool(party):
        raise Misconfigured("say who is erased: --subject or --party")
    show(ask(app.audit_erase(connected(data), tenant, subject or party or "")))
