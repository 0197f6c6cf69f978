"""The shipped workflows on the lab's elements: from the trap to the proof, over processes, REST and NETCONF."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from convergedon.adapters import labcontrol
from convergedon.adapters.netconf import mapping
from convergedon.core import settings, tokens, up
from convergedon.core.commands.system import adapter_names
from convergedon.core.supervisor import Patience
from convergedon.demo import past
from convergedon.mediation.workflows import definitions
from convergedon.mediation.workflows.definitions import Definition
from tests.lines.test_crash import configured, order
from tests.lines.websink import Sink, sinking

ORDERING = "/tmf-api/productOrderingManagement/v4"
ALARMS = "/tmf-api/alarmManagement/v4"
REPAIRS = "/convergedon-api/remediation/v1"
REROUTE, RESTORE = "reroute-to-backup-path", "restore-confirmed-configuration"
BOUNCE, THROTTLE, TICKET = "bounce-interface", "throttle-flapping-port", "open-trouble-ticket"
ELEMENT, PORT, BACKUP = "pe1", "ge-0/0/1", "ge-0/0/2"
OTHER = "pe2"


class Site:
    """The system as its operator reaches it."""

    def __init__(self, system: up.System, given: settings.Settings, tickets: Sink) -> None:
        self.tickets = tickets
        self.system, self.data, self.workflows = system, given.data, given.workflows or given.data
        headers = {"Authorization": f"Bearer {tokens.issue(given, 'acme', 'noc')}"}
        self.client = httpx.AsyncClient(base_url=system.connection.gateway, timeout=20, headers=headers)
        self.desk = {"Authorization": f"Bearer {tokens.issue(given, 'acme', 'csr')}"}
        host, port = system.connection.trap.split(":")
        self.trap = (host, int(port))

    async def until(
        self, path: str, there: Callable[[Mapping[str, Any]], bool], patience: float = 40
    ) -> dict[str, Any]:
        """The first of a list that is as wanted."""
        async with asyncio.timeout(patience):
            while True:
                answer = await self.client.get(path)
                assert answer.status_code == 200, answer.text
                if found := [one for one in answer.json() if there(one)]:
                    return dict(found[0])
                await asyncio.sleep(0.05)

    async def run(self, workflow: str, state: str) -> dict[str, Any]:
        def there(one: Mapping[str, Any]) -> bool:
            return one["workflow"]["name"] == workflow and one["state"] == state

        try:
            return await self.until(f"{REPAIRS}/workflowRun", there)
        except TimeoutError:
            raise AssertionError((await self.client.get(f"{REPAIRS}/workflowRun")).text) from None

    async def ordered(self, number: int) -> str:
        """The name of an access that was ordered and is there."""
        answer = await self.client.post(f"{ORDERING}/productOrder", json=order(number), headers=self.desk)
        assert answer.status_code == 201, answer.text
        id = answer.json()["id"]
        await self.until(f"{ORDERING}/productOrder", lambda one: one["id"] == id and one["state"] == "completed")
        return f"{id}-1"

    async def approve(self, run: Mapping[str, Any]) -> None:
        body = {"workflowRun": {"id": run["id"]}, "decision": "approved"}
        answer = await self.client.post(f"{REPAIRS}/workflowApproval", json=body)
        assert answer.status_code == 201, answer.text

    async def fault(self, kind: str, interface: str = "", device: str = ELEMENT) -> None:
        await labcontrol.ask(self.data / "lab", command="fault", device=device, kind=kind, interface=interface)

    async def port(self, interface: str) -> dict[str, str]:
        """What the other element says of an interface, to whoever asks it."""
        return await asyncio.to_thread(port_of, self.data, interface)

    async def repaired(self) -> dict[str, Any]:
        """The end of the repair of a port that goes down, and that somebody has approved."""
        await self.fault("ifdown", PORT)
        run = await self.run(REROUTE, "waitingForApproval")
        await self.approve(run)
        return await self.ended(run)

    async def alarm(self, run: Mapping[str, Any]) -> dict[str, Any]:
        return await self.until(f"{ALARMS}/alarm", lambda one: one["id"] == run["alarm"]["id"])

    async def ended(self, run: Mapping[str, Any]) -> dict[str, Any]:
        return await self.until(f"{REPAIRS}/workflowRun", lambda one: one["id"] == run["id"] and "endedAt" in one)

    async def at(self, run: Mapping[str, Any], step: str) -> None:
        def there(one: Mapping[str, Any]) -> bool:
            return one["id"] == run["id"] and any(each["name"] == step for each in one.get("step", []))

        await self.until(f"{REPAIRS}/workflowRun", there)

    def kill(self, component: str) -> None:
        os.kill(self.system.supervisor.components[component].pid, signal.SIGKILL)

    async def kill_workers(self) -> None:
        """Kill them, as soon as they are there; returns when others are."""
        killed = [self.system.supervisor.components[name] for name in ("worker-1", "worker-2")]
        restarts = [component.restarts for component in killed]
        for component in killed:
            with suppress(ProcessLookupError):
                os.kill(component.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while not all(
                component.restarts > before and component.state == "ready"
                for component, before in zip(killed, restarts, strict=True)
            ):
                await asyncio.sleep(0.02)

    async def ended_though_killed(self, run: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The end of a run while both workers are killed at each step that it takes, and which steps those were."""
        steps: list[str] = []
        while True:
            now = await self.until(f"{REPAIRS}/workflowRun", lambda one: one["id"] == run["id"])
            fresh = [step["path"] for step in now.get("step", []) if step["path"] not in steps]
            if fresh:
                steps += fresh
                await self.kill_workers()
            elif "endedAt" in now:
                return now, steps
            await asyncio.sleep(0.02)

    async def command(self, *words: str) -> str:
        """What the command line answers."""
        command = [sys.executable, "-P", "-m", "convergedon.core.cli", *words, "--data", str(self.data)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        return str(done.stdout.strip())

    async def on_device(self) -> dict[str, dict[str, str]]:
        return await asyncio.to_thread(configured, self.data)


def session(data: Path, device: str) -> Any:
    """A session of somebody else's with an element."""
    devices = yaml.safe_load((data / "lab" / "devices.yaml").read_text())["devices"]
    return past.session(devices[device]["netconf"])


def take_away(data: Path) -> None:
    """What a device loses that comes up with an empty configuration."""
    nothing = (
        '<config xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><accesses xmlns="urn:convergedon:yang:access" '
        'xmlns:nc="urn:ietf:params:xml:ns:netconf:base:1.0" nc:operation="remove"/></config>'
    )
    with session(data, ELEMENT) as open_:
        open_.edit_config(nothing, target="candidate")
        open_.commit()


def port_of(data: Path, interface: str) -> dict[str, str]:
    service = mapping.load()["port"]
    with session(data, OTHER) as open_:
        found = open_.get(filter=service.subtree(interface))
    return service.read(found.data_ele, interface) or {}


def ours(definition: Definition) -> dict[str, Any]:
    """A definition with the names of what it may touch here, and with less patience."""
    document = json.loads(json.dumps(definition.document))
    about = document["document"].get("metadata", {})
    about.update({"backup": {ELEMENT: {PORT: BACKUP}}} if "backup" in about else {})
    about.update({"may": {OTHER: [PORT if definition.name == BOUNCE else BACKUP]}} if "may" in about else {})
    for _, task in definitions.every_task(document["do"], "do"):
        if "wait" in task:
            task["wait"] = {"milliseconds": 500}
        if "retry" in task.get("catch", {}):
            task["catch"]["retry"] = {"delay": {"milliseconds": 500}, "limit": {"attempt": {"count": 2}}}
    return document


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    tmp_path = tmp_path_factory.mktemp("repairs")
    folder = tmp_path / "workflows"
    folder.mkdir()
    given = settings.load(data=tmp_path / "data", port=0, trap_port=0, flow_port=0, workflows=folder, flap_quiet=5)
    soon = Patience(most=0.2)
    async with sinking() as tickets:
        for file in definitions.sources(None):
            document = ours(definitions.read(file))
            if document["document"]["name"] == TICKET:
                document["document"]["metadata"]["url"] = f"{tickets.url}/tickets"
            (folder / file.name).write_text(yaml.safe_dump(document, sort_keys=False))
        async with running(given, soon, tickets) as found:
            yield found


@asynccontextmanager
async def running(given: settings.Settings, soon: Patience, tickets: Sink) -> AsyncIterator[Site]:
    async with up.system(given, lab=True, workers=2, adapters=adapter_names(), patience=soon) as system:
        found = Site(system, given, tickets)
        yield found
        await found.client.aclose()


async def test_what_goes_wrong_is_left_as_it_was_and_told(site: Site) -> None:
    """A device that refuses, and a backup that is no better: nothing is changed, and a person must see to it."""
    access = await site.ordered(0)
    home = (await site.on_device())[access]

    await site.fault("refuse-commit")
    refused = await site.repaired()
    await site.fault("ifup", PORT)
    await site.fault("ifdown", BACKUP)
    useless = await site.repaired()

    assert refused["state"] == "compensated"
    assert refused["escalated"] is True
    assert "the element was told to refuse this commit" in refused["reason"]
    assert useless["state"] == "compensated"
    assert "oper-bandwidth: wanted 10, found 0" in useless["reason"]
    assert (await site.on_device())[access] == home
    alarm = await site.alarm(useless)
    assert alarm["state"] == "raised"
    await site.fault("mend")
    await site.until(f"{ALARMS}/alarm", lambda one: one["id"] == alarm["id"] and one["state"] == "cleared")


async def test_a_failed_interface_is_gone_round_and_a_restarted_device_is_restored(site: Site) -> None:
    """Each repair is asked for by a person, read on the device, and ended by what the network says.

    Both workers are killed on the way, and all workflows are stopped for a while.
    """
    access = await site.ordered(3)
    home = (await site.on_device())[access]
    assert home["interface"] == PORT

    await site.fault("ifdown", PORT)
    run = await site.run(REROUTE, "waitingForApproval")
    assert run["question"] == f"Move 2 services from {ELEMENT}/{PORT} to its backup?"
    assert (await site.on_device())[access] == home
    await site.approve(run)
    site.kill("worker-1")
    site.kill("worker-2")
    await site.at(run, "hear")
    moved = (await site.on_device())[access]
    alarm = await site.alarm(run)
    await site.fault("ifup", PORT)
    rerouted = await site.ended(run)
    back = (await site.on_device())[access]

    assert moved == {**home, "interface": BACKUP}
    assert alarm["state"] == "raised"
    assert (rerouted["state"], back) == ("completed", home)

    await asyncio.to_thread(take_away, site.data)
    assert access not in await site.on_device()
    await site.fault("reboot")
    run = await site.run(RESTORE, "waitingForApproval")
    assert await site.command("workflow", "stop", "--reason", "night shift") == "workflows of all tenants are stopped"
    await site.approve(run)
    held = await site.run(RESTORE, "stopped")
    assert held["reason"] == "all workflows are stopped: night shift"
    assert access not in await site.on_device()
    assert await site.command("workflow", "resume") == "workflows of all tenants are running"
    restored = await site.ended(run)
    alarm = await site.alarm(run)

    assert restored["state"] == "completed"
    assert (await site.on_device())[access] == home
    assert alarm["state"] == "cleared"


async def bounced(site: Site) -> dict[str, Any]:
    """The end of a run that somebody approved, and the port as it is then."""
    run = await site.run(BOUNCE, "waitingForApproval")
    await site.approve(run)
    return await site.ended(run)


async def test_a_hanging_port_is_switched_off_and_on_and_its_alarm_cleared_by_what_it_shows(site: Site) -> None:
    """The one that bouncing helps; one that it does not help is left on, told, and its alarm stands."""
    await site.fault("hang", PORT, OTHER)
    mended = await bounced(site)
    alarm = await site.alarm(mended)
    after = await site.port(PORT)
    await site.fault("ifdown", PORT, OTHER)
    useless = await bounced(site)
    still = await site.alarm(useless)
    left = await site.port(PORT)
    await site.fault("mend", device=OTHER)
    await site.until(f"{ALARMS}/alarm", lambda one: one["id"] == still["id"] and one["state"] == "cleared")

    assert [step["name"] for step in mended["step"]] == [
        *("look", "approve", "switchOff", "rest", "switchOn", "settle", "see", "clear"),
    ]
    assert (mended["state"], alarm["state"]) == ("completed", "cleared")
    assert (after["enabled"], after["oper-status"]) == ("true", "up")
    assert (useless["state"], useless["escalated"]) == ("compensated", True)
    assert useless["reason"] == f"proof: {OTHER}: leaf oper-status: wanted up, found down"
    assert [step["name"] for step in useless["step"]].count("see") == 3
    assert still["state"] != "cleared"
    assert (left["enabled"], left["oper-status"]) == ("true", "down")


async def test_a_flapping_port_is_held_down_and_let_go_until_it_is_quiet(site: Site) -> None:
    """From one command of an operator, by the settings that ship and traps, to the network's word that it is over; the
    port is down while it is held."""
    flaps = asyncio.create_task(site.command("lab", "fault", OTHER, "flap", BACKUP))
    run = await site.run(THROTTLE, "waitingForApproval")
    flapping = await site.alarm(run)
    await site.approve(run)
    await site.at(run, "short")
    held = await site.port(BACKUP)
    ended = await site.ended(run)
    alarm = await site.alarm(run)
    incident = json.loads(await site.command("workflow", "record", alarm["id"], "--tenant", "acme"))

    assert incident["earlier"]["decided"][THROTTLE]["at"] == run["startedAt"]
    assert run["question"] == f"Hold {BACKUP} of {OTHER} down, which flaps?"
    assert await flaps == f"{BACKUP} of {OTHER} went down and up 6 times, and is up"
    assert (flapping["flapping"], flapping["reportingSystemId"]) == (True, "convergedon-snmp")
    assert (held["enabled"], held["oper-status"]) == ("false", "down")
    assert [step["name"] for step in ended["step"]] == [
        *("approve", "hold", "short", "release", "settle", "see", "untilItIsQuiet"),
    ]
    assert (ended["state"], alarm["state"], alarm["flapping"]) == ("completed", "cleared", False)
    assert (await site.port(BACKUP))["oper-status"] == "up"


def telling(bounce: dict[str, Any], url: str) -> dict[str, Any]:
    """The bounce with a ticket that is opened before it and resolved after it, and something that it says."""
    document = copy.deepcopy(bounce)
    document["document"] |= {"name": "bounce-and-tell", "metadata": {"may": {ELEMENT: [BACKUP]}}}
    back = [{"withdraw": {"call": "http", "with": {"method": "post", "endpoint": f"{url}/withdraw"}}}]

    def ask(what: str) -> dict[str, Any]:
        return {
            "call": "http",
            "with": {"method": "post", "endpoint": f"{url}/{what}"},
            "metadata": {"compensate": back},
        }

    names = [next(iter(task)) for task in document["do"]]
    note = {"emit": {"event": {"with": {"type": "told", "data": "${ $workflow.input.target }"}}}}
    document["do"].insert(names.index("switchOff"), {"open": ask("open")})
    document["do"] += [{"resolve": ask("resolve")}, {"note": note}]
    return document


def told_of(data: Path, interface: str, since: datetime) -> list[str]:
    """What the element told of an interface since then: it replays that."""
    found = []
    with session(data, ELEMENT) as open_:
        open_.create_subscription(start_time=since.isoformat())
        while (told := open_.take_notification(timeout=2)) is not None:
            text = told.notification_xml
            if "replayComplete" in text:
                break
            found += [state for state in ("up", "down") if f">{state}<" in text and f">{interface}<" in text]
    return found


async def test_a_ticket_is_one_though_the_workers_are_killed_that_open_it(site: Site) -> None:
    """Both, while the ticket system has the request and has not answered: others ask again under the same key."""
    await site.ordered(9)
    tickets = site.tickets
    tickets.got.clear()
    tickets.held = asyncio.Event()
    await site.fault("ifdown", PORT)
    async with asyncio.timeout(40):
        while not tickets.got:
            await asyncio.sleep(0.02)
    await site.kill_workers()
    tickets.held.set()
    run = await site.run(TICKET, "running")
    await site.at(run, "untilItIsOver")
    await site.fault("ifup", PORT)
    ended = await site.ended(run)

    opens = [one for one in tickets.got if one.path == "/tickets" and one.body["externalId"] == run["id"]]
    assert ended["state"] == "completed"
    assert len(opens) > 1
    assert len({one.headers["idempotency-key"] for one in opens}) == 1
    assert len([path for path, _ in tickets.done() if path.endswith("/resolve")]) == 1


async def test_workers_are_killed_at_every_step_and_nothing_is_done_twice(site: Site) -> None:
    """SIGKILL of both, when each step appears: the port went down and up once, each request is one by its key."""
    begun = datetime.now(UTC)
    file = site.workflows / f"{BOUNCE}.yaml"
    bounce = yaml.safe_load(file.read_text())
    async with sinking() as sink:
        file.write_text(yaml.safe_dump(telling(definitions.plain(bounce), sink.url), sort_keys=False))
        await site.kill_workers()  # others read it
        await site.fault("hang", BACKUP)
        run = await site.run("bounce-and-tell", "waitingForApproval")
        await site.approve(run)
        ended, steps = await site.ended_though_killed(run)
        alarm = await site.alarm(run)
        links = await asyncio.to_thread(told_of, site.data, BACKUP, begun)
        file.write_text(yaml.safe_dump(definitions.plain(bounce), sort_keys=False))
        await site.kill_workers()

    names = [step["name"] for step in ended["step"]]
    assert (ended["state"], alarm["state"]) == ("completed", "cleared")
    assert names == [
        *("look", "approve", "open", "switchOff", "rest", "switchOn", "settle", "see", "clear", "resolve", "note"),
    ]
    assert len(steps) == len(names)
    assert [path for path, _ in sink.done()] == ["/open", "/resolve"]
    assert links == ["down", "up"]  # it hung; it was off already, and came up once
    assert [one["type"] for one in ended["said"]] == ["told"]
