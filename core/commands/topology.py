"""`convergedon topology`: what is connected to what, from a file."""

from __future__ import annotations

from pathlib import Path

import click

from convergedon.core.commands.shared import ask, connected, data_option, show


@click.group()
def topology() -> None:
    """What depends on what in the network."""


@topology.command("import")
@click.argument("file", type=click.Path(exists=True, path_type=Path, dir_okay=False))
@data_option
def topology_import(file: Path, data: Path | None) -> None:
    """Record the devices, links and shared-risk groups of FILE (YAML or JSON); it is the whole of them."""
    from convergedon.core import app

    show(ask(app.topology_import(connected(data), file)))
