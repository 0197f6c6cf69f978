"""The command line. Each command says what it needs and hands over to core/app.py, imported only then: it is large."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from time import monotonic, time
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from convergedon.core.errors import ConvergedonError, Findings, Invalid, Misconfigured

if TYPE_CHECKING:
    from convergedon.core.settings import Settings
    from convergedon.core.supervisor import Component, Supervisor
    from convergedon.core.up import Connection

Answer = TypeVar("Answer")
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
STOPS = (signal.SIGTERM, signal.SIGINT)
LAB_FAULTS = ("ifdown", "ifup", "hang", "flap", "refuse-commit", "slow", "silent", "reboot", "worse", "mend")
SIMULATION = "loopback"
"""The adapter that only tests and the lab's own checks use."""


class Commands(click.Group):
    """Commands whose errors end as one sentence, and with 78 where the operator must change something."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConvergedonError as error:
            _refuse(ctx, error)
        except BaseExceptionGroup as group:
            ours = _first(group)
            if ours is None:
                raise
            _refuse(ctx, ours)


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of the system (CONVERGEDON_DATA, else ./convergedon-data).",
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="convergedon", message="convergedon %(version)s")
def main() -> None:
    """ConvergedON joins business systems and networks through TM Forum Open APIs."""


@main.command()
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
    asyncio.run(_until_told(_up(read, lab, workers)))


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
    """Pass SIGHUP on to the adapters, which read devices and mappings again; the end of our terminal is our end."""
    loop = asyncio.get_running_loop()
    in_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # as nohup has it

    def told() -> None:
        if in_terminal and not _has_terminal():
            signal.raise_signal(signal.SIGTERM)
        else:
            supervisor.pass_on(signal.SIGHUP, "adapters")

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


@main.command()
@data_option
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
def gateway(data: Path | None, port: int | None) -> None:
    """Answer the TM Forum APIs."""
    from convergedon.core import app

    _role(app.gateway(_connected(data, port=port), _announce))


@main.command()
@data_option
def worker(data: Path | None) -> None:
    """Do what orders, alarms and usage ask for."""
    from convergedon.core import app

    _role(app.worker(_connected(data), _announce))


class Adapters(click.Group):
    """Commands about adapters; whatever else is named is an adapter that is to run."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else [RUN, *args])


RUN = "run"
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@main.group(cls=Adapters, subcommand_metavar="NAME | COMMAND [ARGS]...")
def adapter() -> None:
    """Speak one protocol with the network: `adapter NAME` runs an adapter until it is told to stop."""


@adapter.command(RUN, hidden=True)
@click.argument("name")
@data_option
def adapter_run(name: str, data: Path | None) -> None:
    """Run an adapter."""
    from convergedon.core import app

    _role(app.adapter(_connected(data, ["nats_url"]), name, _announce))


@adapter.command("list")
@json_option
@data_option
def adapter_list(as_json: bool, data: Path | None) -> None:
    """Show which adapters are installed, and what they can do."""
    from convergedon.core import app

    found = _ask(app.adapter_list(_settings(data))) or []
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
    found = _ask(app.adapter_check(name))
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

    settings = _settings(data)
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
    """Write traps that arrive, and what they become, to a new FOLDER: a golden case of a mapping."""
    from itertools import islice

    from convergedon.adapters import inventory
    from convergedon.adapters.snmp import trying

    settings = _settings(data, trap_port=trap_port)
    devices = inventory.load(settings.devices)
    if device is not None:
        click.echo(_ask(trying.walked(devices, device, folder, seconds)))
        return
    reader = trying.Reader(settings, devices)
    packets = list(islice(trying.notifications(reader, trying.heard(settings, seconds)), count))
    if not packets:
        raise Misconfigured(f"nothing came to UDP port {settings.trap_port} within {seconds:g} s")
    trying.record(settings, devices, folder, packets)
    click.echo(f"{len(packets)} packets are in {folder}")


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

    found = _ask(app.adapter_asked(_connected(data, ["nats_url"]), what, name)) or []
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


@main.group(invoke_without_command=True)
@data_option
@click.pass_context
def lab(ctx: click.Context, data: Path | None) -> None:
    """Tell the simulated network elements of `convergedon up --lab` what is to happen; by itself: be those elements."""
    from convergedon.core import app

    if ctx.invoked_subcommand is None:
        _role(app.lab(_settings(data), _announce))


@lab.command("fault")
@click.argument("device")
@click.argument("kind", type=click.Choice(LAB_FAULTS))
@click.argument("interface", default="")
@data_option
def lab_fault(device: str, kind: str, interface: str, data: Path | None) -> None:
    """Have something go wrong on an element, or end it (ifup, mend)."""
    from convergedon.core import app

    asked = {"command": "fault", "device": device, "kind": kind, "interface": interface}
    click.echo(_ask(app.lab_asked(_settings(data), **asked)))


@lab.command("traffic")
@click.argument("device")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=60, help="How long it is simulated to have flowed.")
@data_option
def lab_traffic(device: str, seconds: float, data: Path | None) -> None:
    """Have an element export flow records of what its accesses are configured for."""
    from convergedon.core import app

    click.echo(_ask(app.lab_asked(_settings(data), command="traffic", device=device, seconds=seconds)))


@main.command()
@click.option("--tenant", required=True, help="Tenant the token is for.")
@click.option("--role", required=True, help="csr, noc, mediation, billing, customer, reader, auditor or admin.")
@click.option("--party", help="Party the token is for: a customer sees its own things alone.")
@data_option
def token(tenant: str, role: str, party: str | None, data: Path | None) -> None:
    """Print a token of the local development issuer."""
    from convergedon.core import app

    _show(_ask(app.token(_settings(data), tenant, role, party)))


@main.group()
def audit() -> None:
    """The record of what was done."""


@audit.command("verify")
@data_option
def audit_verify(data: Path | None) -> None:
    """Check that no record was changed, added or cut off."""
    from convergedon.core import app

    _show(_ask(app.audit_verify(_connected(data))))


@audit.command("key")
@data_option
def audit_key(data: Path | None) -> None:
    """Print the public key with which checkpoints are checked."""
    from convergedon.core import app

    _show(_ask(app.audit_key(_settings(data))))


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

    span = [_time(text, name) if text else None for name, text in (("--since", since), ("--until", until))]
    _show(_ask(app.audit_export(_connected(data), Asked(tenant, *span), file)))


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
    _show(_ask(app.audit_erase(_connected(data), tenant, subject or party or "")))


@main.group()
def policy() -> None:
    """The rules that everything is checked by."""


@policy.command("test")
@click.argument("folder", type=FOLDER, required=False)
@data_option
def policy_test(folder: Path | None, data: Path | None) -> None:
    """Run the tests beside the policies of FOLDER, or beside those that are set."""
    from convergedon.core import app

    _show(_ask(app.policy_test(_settings(data), folder)))


@policy.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@data_option
def policy_export(folder: Path, data: Path | None) -> None:
    """Write the policies that are in force to a new FOLDER."""
    from convergedon.core import app

    _show(_ask(app.policy_export(_connected(data), folder)))


@policy.command("check")
@click.argument("folder", type=FOLDER, required=False)
@data_option
def policy_check(folder: Path | None, data: Path | None) -> None:
    """Say what is to be mended in the policies of FOLDER, or in those that are set."""
    from convergedon.core import app

    _show(_ask(app.policy_check(_settings(data), folder)))


@policy.command("explain")
@click.argument("decision")
@data_option
def policy_explain(decision: str, data: Path | None) -> None:
    """Say why a decision was made: the rules for it and against it. DECISION is its id."""
    from convergedon.core import app

    _show(_ask(app.policy_explain(_connected(data), decision.removeprefix("urn:convergedon:decision:"))))


@policy.command("replay")
@click.argument("folder", type=FOLDER)
@click.option("--since", required=True, metavar="TIME", help="How far back, as 90m, 24h or 7d.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@data_option
def policy_replay(folder: Path, since: str, as_json: bool, data: Path | None) -> None:
    """Say which past decisions the policies of FOLDER would have made otherwise."""
    from convergedon.core import app

    start = time() - _duration(since)
    found = _ask(app.policy_replay(_connected(data), folder, start))
    if found is not None:
        click.echo(json.dumps(found.document) if as_json else found.words)


@policy.command("activate")
@click.argument("folder", type=FOLDER)
@click.option("--note", default="", help="What it is for, kept with it.")
@data_option
def policy_activate(folder: Path, note: str, data: Path | None) -> None:
    """Put the policies of FOLDER in force, in every process."""
    from convergedon.core import app

    _show(_ask(app.policy_activate(_connected(data), folder, note)))


@policy.command("rollback")
@data_option
def policy_rollback(data: Path | None) -> None:
    """Put in force again what was before the last activation."""
    from convergedon.core import app

    _show(_ask(app.policy_rollback(_connected(data))))


@policy.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@data_option
def policy_status(as_json: bool, data: Path | None) -> None:
    """Show which policies are in force, and in which processes."""
    from convergedon.core import app
    from convergedon.core.activation import told

    found = _ask(app.policy_status(_connected(data)))
    if found is not None:
        click.echo(json.dumps(found) if as_json else told(found))


@main.group()
def notifications() -> None:
    """What customers are told, when and how."""


@notifications.command("check")
@click.argument("file", type=FILE)
@data_option
def notifications_check(file: Path, data: Path | None) -> None:
    """Say what is to be mended in FILE, rules of notifications, and in its templates."""
    from convergedon.core import app

    _show(_ask(app.notifications_check(_settings(data), file)))


@main.group()
def workflow() -> None:
    """Repairs that are declared, approved and proven."""


@workflow.command("check")
@click.argument("place", metavar="[FILE|FOLDER]", type=click.Path(path_type=Path), required=False)
@data_option
def workflow_check(place: Path | None, data: Path | None) -> None:
    """Say what is to be mended in a definition, or in all of a folder; of none, in those that ship."""
    from convergedon.core import app

    _show(_ask(app.workflow_check(_settings(data), place)))


@main.group()
def topology() -> None:
    """What depends on what in the network."""


@topology.command("import")
@click.argument("file", type=click.Path(exists=True, path_type=Path, dir_okay=False))
@data_option
def topology_import(file: Path, data: Path | None) -> None:
    """Record the devices, links and shared-risk groups of FILE (YAML or JSON); it is the whole of them."""
    from convergedon.core import app

    _show(_ask(app.topology_import(_connected(data), file)))


@workflow.command("run")
@click.argument("file", type=FILE)
@click.option("--dry", is_flag=True, required=True, help="Nothing is done: what would be is shown.")
@click.option("--incident", type=FILE, required=True, help="File of an incident, as `workflow record` writes it.")
@data_option
def workflow_run(file: Path, dry: bool, incident: Path, data: Path | None) -> None:
    """Show what the workflow of FILE would do about a recorded incident."""
    from convergedon.core import app

    _show(_ask(app.workflow_rehearse(_settings(data), file, incident)))


@workflow.command("record")
@click.argument("alarm")
@click.option("--tenant", required=True, help="Tenant of the alarm.")
@data_option
def workflow_record(alarm: str, tenant: str, data: Path | None) -> None:
    """Print the incident that a workflow for this ALARM would be given."""
    from convergedon.core import app

    _show(_ask(app.workflow_record(_connected(data), tenant, alarm)))


@workflow.command("stop")
@click.option("--reason", default="", help="Why, for those who look at a run.")
@data_option
def workflow_stop(reason: str, data: Path | None) -> None:
    """Stop all workflows of all tenants."""
    from convergedon.core import app

    _show(_ask(app.workflow_press(_connected(data), "stopped", reason)))


@workflow.command("resume")
@data_option
def workflow_resume(data: Path | None) -> None:
    """Let workflows go on, unless a tenant has stopped its own."""
    from convergedon.core import app

    _show(_ask(app.workflow_press(_connected(data), "running", "")))


@main.group()
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

    found = _ask(app.usage_sources(_connected(data), tenant, id))
    if found is not None:
        click.echo(json.dumps(found.document) if as_json else str(found))


@main.group()
def parked() -> None:
    """Messages that could not succeed."""


@parked.command("list")
@data_option
def parked_list(data: Path | None) -> None:
    """Show what is parked, and why."""
    from convergedon.core import app

    _show(_ask(app.parked_list(_connected(data))))


@parked.command("retry")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@data_option
def parked_retry(ids: tuple[str, ...], data: Path | None) -> None:
    """Try parked messages again: those named, or all."""
    from convergedon.core import app

    _show(_ask(app.parked_retry(_connected(data), list(ids))))


@main.group()
def hub() -> None:
    """Listeners that events are sent to."""


@hub.command("list")
@data_option
def hub_list(data: Path | None) -> None:
    """Show who listens, and how many events wait for each."""
    from convergedon.core import app

    _show(_ask(app.hub_list(_connected(data))))


@hub.command("test")
@click.argument("id")
@data_option
def hub_test(id: str, data: Path | None) -> None:
    """Send a test event to a listener and say what it answered."""
    from convergedon.core import app

    _show(_ask(app.hub_test(_calling(_connected(data)), id)))


@hub.command("replay")
@click.argument("id")
@click.option("--from", "start", required=True, metavar="TIME", help="RFC 3339, for example 2026-05-01T12:00:00Z.")
@data_option
def hub_replay(id: str, start: str, data: Path | None) -> None:
    """Send a listener again what happened since a time."""
    from convergedon.core import app

    _show(_ask(app.hub_replay(_connected(data), id, _time(start))))


@main.command()
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the results here.")
@click.option("--url", help="Gateway to use; without it the system on --data, or one of its own.")
@data_option
def demo(json_file: Path | None, url: str | None, data: Path | None) -> None:
    """Show the three lines from end to end on simulated network elements."""
    from importlib import import_module

    settings = _settings(data)
    if url is None and "data" in settings.model_fields_set and (running := _find(settings)):
        url = running.gateway
    run = import_module("convergedon.demo.run").run
    if not asyncio.run(_until_told(run(settings, url, json_file))):
        sys.exit(1)


@main.group()
def campaign() -> None:
    """Trials that count what should not happen."""


@campaign.command("escapes")
@click.option("-n", "number", type=click.IntRange(1), default=200, show_default=True, help="Violations to try.")
@click.option("--seed", type=int, default=1, show_default=True, help="What chance begins with.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the outcomes here.")
def campaign_escapes(number: int, seed: int, json_file: Path | None) -> None:
    """Try to get past the policies on every path, and count what took effect; on systems of its own."""
    from importlib import import_module

    run = import_module("convergedon.demo.campaign").run
    if not asyncio.run(_until_told(run(_settings(None), number, seed, json_file))):
        sys.exit(1)


def _settings(data: Path | None, **given: object) -> Settings:
    from convergedon.core import settings

    return settings.load(data=data, **given)


SERVERS = ("nats_url", "mongodb_url")


def _connected(data: Path | None, servers: Iterable[str] = SERVERS, **given: object) -> Settings:
    """The settings, with the servers of the system that runs on the folder where they name none.

    Raises Misconfigured when there are none.
    """
    settings = _settings(data, **given)
    unnamed = [url for url in servers if not getattr(settings, url).get_secret_value()]
    if not unnamed:
        return settings
    found = _find(settings)
    if found is None:
        raise Misconfigured(
            f"no system runs in {settings.data}: start it with `convergedon up --data {settings.data}`, "
            f"or set {' and '.join(f'CONVERGEDON_{url.upper()}' for url in servers)}"
        )
    return _settings(data, **given, **{url: getattr(found, url.removesuffix("_url")) for url in unnamed})


def _calling(settings: Settings) -> Settings:
    """The settings, with the callbacks that `up` allows where it runs: those on this machine."""
    if _find(settings) is None:
        return settings
    from ipaddress import ip_network

    from convergedon.core.up import LOOPBACK

    allowed = [*settings.callback_networks, *map(ip_network, LOOPBACK)]
    return settings.model_copy(update={"callback_networks": allowed})


def _time(text: str, name: str = "--from") -> datetime:
    """Raises Misconfigured."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.min
    if time.tzinfo is None:
        raise Misconfigured(f"{name} is a time with its zone, for example 2026-05-01T12:00:00Z")
    return time


def _duration(text: str) -> float:
    """Seconds. Raises Misconfigured."""
    number, unit = text[:-1], text[-1:]
    if not number.isdigit() or unit not in UNITS:
        raise Misconfigured(f"--since is a number with s, m, h or d, for example 24h, not {text}")
    return float(int(number) * UNITS[unit])


def _find(settings: Settings) -> Connection | None:
    from convergedon.core.up import find

    return find(settings.data)


def _role(work: Coroutine[Any, Any, None]) -> None:
    """Run one role until it is told to stop."""
    import uvloop

    uvloop.run(_until_told(work))


def _ask(question: Coroutine[Any, Any, Answer]) -> Answer | None:
    return asyncio.run(_until_told(question))


async def _until_told(work: Coroutine[Any, Any, Answer]) -> Answer | None:
    """Work until done, or until SIGTERM or Ctrl-C: the first cancels the work, which then has time to clean up.

    One more after a second ends the process there and then: work that does not listen cannot be cancelled.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)

    told = 0.0

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal told
        if not told:
            told = monotonic()
            loop.call_soon_threadsafe(task.cancel)
        elif monotonic() - told > 1:
            os._exit(128 + number)

    # not loop.add_signal_handler: a web server that replaces a handler by signal.signal would leave that one alive too
    for number in STOPS:
        signal.signal(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        return None


def _announce(address: str) -> None:
    """Tell the supervisor, or a script, that the role is ready. Standard output is for this line alone."""
    os.write(sys.stdout.fileno(), (json.dumps({"ready": True, "address": address}) + "\n").encode())


def _show(answer: str | Iterable[Mapping[str, Any]] | None) -> None:
    """Print a sentence as it is and records as a JSON object a line."""
    if isinstance(answer, str):
        click.echo(answer)
        return
    for record in answer or ():
        click.echo(json.dumps(record, default=str))


def _refuse(ctx: click.Context, error: ConvergedonError) -> None:
    for sentence in error.sentences if isinstance(error, Findings) else [str(error)]:
        click.echo(" ".join(sentence.split()), err=True)
    ctx.exit(os.EX_CONFIG if isinstance(error, Misconfigured) else 1)


def _first(group: BaseExceptionGroup[BaseException]) -> ConvergedonError | None:
    """The first of our errors in a group that a task group raised."""
    for error in group.exceptions:
        found = _first(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, ConvergedonError):
            return found
    return None


if __name__ == "__main__":
    main()
