"""`convergedon up` and the roles that it starts: gateway and worker."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from convergedon.core.commands.shared import announce, connected, data_option, run_role, until_told
from convergedon.core.errors import Misconfigured

if TYPE_CHECKING:
    from convergedon.core.settings import Settings
    from convergedon.core.supervisor import Component, Supervisor

SIMULATION = "loopback"
"""The adapter that only tests and the lab's own checks use."""


@click.command()
@data_option
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the gateway; 0 takes a free one.  [default: 8080]")
@click.option("--trap-port", type=click.IntRange(0, 65535), help="UDP port for SNMP traps.  [default: 1162]")
@click.option("--flow-port", type=click.IntRange(0, 65535), help="UDP port for flow records.  [default: 2055]")
@click.option("--lab", is_flag=True, help="Add simulated network elements.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Worker processes.")
def up(
    data: Path | None, port: int | None, trap_port: int | None, flow_port: int | None, lab: bool, workers: int
) -> None:
    """Run everything on this machine until Ctrl-C."""
    from convergedon.core import settings

    read = settings.load(data=data, port=port, trap_port=trap_port, flow_port=flow_port)
    _warn(read)
    asyncio.run(until_told(_up(read, lab, workers)))


def _warn(settings: Settings) -> None:
    """Say so when the policies of the folder cannot be used: everything runs then, and nothing is allowed."""
    from convergedon.core import bundles, engines

    if settings.opa_url or settings.policies is None:
        return
    try:
        engines.compiled(bundles.read(settings.policies))
    except Misconfigured as error:
        words = " ".join(str(error).split())
        click.echo(f"{words}: nothing is allowed until this is mended, or other policies are activated", err=True)


async def _up(settings: Settings, lab: bool, workers: int) -> None:
    from convergedon.core.up import system

    async with system(settings, lab=lab, workers=workers, adapters=adapter_names(), changed=_report) as running:
        found = running.connection
        for what, where in {
            "gateway": found.gateway,
            "console": f"{found.gateway}/console",
            "traps": f"{found.trap} (UDP)" if found.trap else "",
            "flows": f"{found.flow} (UDP)" if found.flow else "",
            "data": settings.data.absolute(),
        }.items():
            click.echo(f"{what:<9}{where or 'not running'}")
        click.echo("ready")
        with _on_hangup(running.supervisor):
            await running.supervisor.watch()


@contextmanager
def _on_hangup(supervisor: Supervisor) -> Iterator[None]:
    """Pass SIGHUP on to the adapters, which read devices and mappings again, and to the workers, which read the rules
    for notifications again; the end of our terminal is our end.
    """
    loop = asyncio.get_running_loop()
    in_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # as nohup has it

    def told() -> None:
        if in_terminal and not _has_terminal():
            signal.raise_signal(signal.SIGTERM)
        else:
            for group in ("adapters", "workers"):
                supervisor.pass_on(signal.SIGHUP, group)

    loop.add_signal_handler(signal.SIGHUP, told)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _has_terminal() -> bool:
    try:
        os.close(os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _report(name: str, component: Component) -> None:
    if component.state == "restarting":
        click.echo(f"{name} stopped ({component.reason}) and is started again", err=True)


def adapter_names() -> list[str]:
    """The adapters that `up` runs: all that are installed but the simulation."""
    from convergedon.adapters import discovery

    return sorted(name for name in discovery.adapters() if name != SIMULATION)


@click.command()
@data_option
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
def gateway(data: Path | None, port: int | None) -> None:
    """Answer the TM Forum APIs."""
    from convergedon.core import app

    run_role(app.gateway(connected(data, port=port), announce))


@click.command()
@data_option
def worker(data: Path | None) -> None:
    """Do what orders, alarms and usage ask for."""
    from convergedon.core import app

    run_role(app.worker(connected(data), announce))
