"""`convergedon lab`: simulated elements, and what befalls them on command."""

from __future__ import annotations

from pathlib import Path

import click

from convergedon.core.commands.shared import announce, ask, data_option, run_role, settings_of

LAB_FAULTS = ("ifdown", "ifup", "hang", "flap", "refuse-commit", "slow", "silent", "reboot", "worse", "mend")


@click.group(invoke_without_command=True)
@data_option
@click.pass_context
def lab(ctx: click.Context, data: Path | None) -> None:
    """Tell the simulated network elements of `convergedon up --lab` what is to happen; by itself: be those elements."""
    from convergedon.core import app

    if ctx.invoked_subcommand is None:
        run_role(app.lab(settings_of(data), announce))


@lab.command("fault")
@click.argument("device")
@click.argument("kind", type=click.Choice(LAB_FAULTS))
@click.argument("interface", default="")
@click.option("--turns", type=click.IntRange(1, 100), help="How often it flaps, 6 times where nothing is said.")
@data_option
def lab_fault(device: str, kind: str, interface: str, turns: int | None, data: Path | None) -> None:
    """Have something go wrong on an element, or end it (ifup, mend)."""
    from convergedon.core import app

    if turns is not None and kind != "flap":
        raise click.UsageError(f"--turns is of flap: {kind} happens once")
    asked: dict[str, object] = {"command": "fault", "device": device, "kind": kind, "interface": interface}
    asked |= {"turns": turns} if turns else {}
    click.echo(ask(app.lab_asked(settings_of(data), **asked)))


@lab.command("traffic")
@click.argument("device")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=60, help="How long it is simulated to have flowed.")
@data_option
def lab_traffic(device: str, seconds: float, data: Path | None) -> None:
    """Have an element export flow records of what its accesses are configured for."""
    from convergedon.core import app

    click.echo(ask(app.lab_asked(settings_of(data), command="traffic", device=device, seconds=seconds)))
