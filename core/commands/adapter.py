"""`convergedon adapter`: run one, look at those that run, and make and check what they read."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from convergedon.core.commands.shared import (
    announce,
    ask,
    connected,
    data_option,
    json_option,
    run_role,
    settings_of,
)
from convergedon.core.errors import Invalid, Misconfigured


class Adapters(click.Group):
    """Commands about adapters; whatever else is named is an adapter that is to run."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else [RUN, *args])


RUN = "run"


@click.group(cls=Adapters, subcommand_metavar="NAME | COMMAND [ARGS]...")
def adapter() -> None:
    """Speak one protocol with the network: `adapter NAME` runs an adapter until it is told to stop."""


@adapter.command(RUN, hidden=True)
@click.argument("name")
@data_option
def adapter_run(name: str, data: Path | None) -> None:
    """Run an adapter."""
    from convergedon.core import app

    run_role(app.adapter(connected(data, ["nats_url"]), name, announce))


@adapter.command("list")
@json_option
@data_option
def adapter_list(as_json: bool, data: Path | None) -> None:
    """Show which adapters are installed, and what they can do."""
    from convergedon.core import app

    found = ask(app.adapter_list(settings_of(data))) or []
    if as_json:
        click.echo(json.dumps(found))
        return
    for one in found:
        does = one["words"] or ("takes intents" if one["performs"] else "observes")
        can = f" ({', '.join(one['capabilities'])})" if one["capabilities"] else ""
        click.echo(f"{one['name']:<12}{one['version']:<10}{one['distribution']:<24}{does}{can}")


@adapter.command("check")
@click.argument("name")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the findings here, as JSON.")
def adapter_check(name: str, report: Path | None) -> None:
    """Try whether an adapter keeps what every adapter promises; needs the extra kit."""
    from convergedon.core import app, logs

    logs.configure("check", "critical")
    found = ask(app.adapter_check(name))
    if found is None:
        return
    if report:
        try:
            report.write_text(f"{json.dumps(found.document, indent=1)}\n", encoding="utf-8")
        except OSError as error:
            raise Misconfigured(f"{report} cannot be written: {error.strerror}") from error
    click.echo(found.words)
    if not found.holds:
        sys.exit(1)


@adapter.command("map")
@click.option(
    "--trap",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A datagram, as it was or in hexadecimal, or a capture (pcap, pcapng).",
)
@click.option("--source", default="127.0.0.1", show_default=True, help="Address that a datagram came from.")
@click.option("--port", "ports", type=click.IntRange(1, 65535), multiple=True, help="Of a capture, traps to this port.")
@data_option
def adapter_map(file: Path, source: str, ports: tuple[int, ...], data: Path | None) -> None:
    """Show what a recorded trap, or each of a capture, would become."""
    from convergedon.adapters import inventory
    from convergedon.adapters.snmp import trying

    settings = settings_of(data)
    reader = trying.Reader(settings, inventory.load(settings.devices))
    packets = trying.recorded(file, source, ports or trying.PORTS)
    if len(packets) == 1:
        click.echo(json.dumps(reader.meaning(packets[0]), indent=1, ensure_ascii=False))
        return
    for packet in packets:
        try:
            told: Mapping[str, Any] = reader.meaning(packet)
        except Invalid as error:
            told = {"source": packet.source, "error": str(error)}
        click.echo(json.dumps(told, ensure_ascii=False))


@adapter.command("record")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seconds", type=click.FloatRange(min=0.1), default=60, show_default=True, help="How long to listen.")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="Traps after which it is enough.")
@click.option("--trap-port", type=click.IntRange(1, 65535), help="UDP port to listen on.")
@click.option("--walk", "device", help="Walk this device of the devices file instead, twice, SECONDS apart.")
@data_option
def adapter_record(
    folder: Path, seconds: float, count: int, trap_port: int | None, device: str | None, data: Path | None
) -> None:
    """Write traps that arrive, and what they become, to a new FOLDER: a golden case of a mapping.

    Informs are answered once they are written.
    """
    from convergedon.adapters import inventory
    from convergedon.adapters.snmp import hearing, trying

    settings = settings_of(data, trap_port=trap_port)
    devices = inventory.load(settings.devices)
    if device is not None:
        click.echo(ask(trying.walked(devices, device, folder, seconds)))
        return
    case, packets = trying.Case(trying.Reader(settings, devices), folder), 0
    with hearing.Ear(settings, devices) as ear:
        for packet in ear.heard(seconds, count):
            case.add(packet)
            packets += 1
    if not packets:
        raise Misconfigured(f"nothing came to UDP port {settings.trap_port} within {seconds:g} s")
    click.echo(f"{packets} {'packets are' if packets > 1 else 'packet is'} in {folder}")


@adapter.command("health")
@click.argument("name", default="")
@json_option
@data_option
def adapter_health(name: str, as_json: bool, data: Path | None) -> None:
    """Ask the adapters that run, and their devices, how they are."""
    _show_answers("health", name, as_json, data)


@adapter.command("reload")
@click.argument("name", default="")
@json_option
@data_option
def adapter_reload(name: str, as_json: bool, data: Path | None) -> None:
    """Have the adapters that run read their devices and mappings again."""
    _show_answers("reload", name, as_json, data)


def _show_answers(what: str, name: str, as_json: bool, data: Path | None) -> None:
    """What each process answers; the exit code is 1 if one of them is not well, or could not."""
    from dataclasses import asdict

    from convergedon.core import app

    found = ask(app.adapter_asked(connected(data, ["nats_url"]), what, name)) or []
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
    else:
        for one in found:
            click.echo(f"{one.process} {one.state}" + (f": {one.words}" if one.words else ""))
            for device, about in sorted(one.told.get("devices", {}).items()) if what == "health" else ():
                words = about.get("words") or ", ".join(about.get("capabilities", ()))
                click.echo(f"  {device:<20}{about.get('state', ''):<14}{words}")
    if any(one.state not in ("ready", "done") for one in found):
        sys.exit(1)
