"""The shipped workflows on the lab's elements: from the trap to the proof, over processes, REST and NETCONF."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from convergedon.adapters import lab
from convergedon.adapters.snmp.lab import trap_cold_start, trap_link
from convergedon.core import settings, tokens, up
from convergedon.core.cli import adapter_names
from convergedon.mediation.workflows import definitions
from tests.lines.test_crash import configured, order

ORDERING = "/tmf-api/productOrderingManagement/v4"
ALARMS = "/tmf-api/alarmManagement/v4"
REPAIRS = "/convergedon-api/remediation/v1"
ELEMENT, PORT = "pe1", "ge-0/0/1"


class Site:
    """The system as its operator reaches it."""

    def __init__(self, system: up.System, given: settings.Settings) -> None:
        self.system, self.data = system, given.data
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

    async def run(self, workflow: str, *states: str) -> dict[str, Any]:
        def there(one: Mapping[str, Any]) -> bool:
            return one["workflow"]["name"] == workflow and one["state"] in states

        try:
            return await self.until(f"{REPAIRS}/workflowRun", there)
        except TimeoutError:
            raise AssertionError((await self.client.get(f"{REPAIRS}/workflowRun")).text) from None

    async def ordered(self) -> dict[str, Any]:
        answer = await self.client.post(f"{ORDERING}/productOrder", json=order(0), headers=self.desk)
        assert answer.status_code == 201, answer.text
        return await self.until(f"{ORDERING}/productOrder", lambda one: one["state"] == "completed")

    async def approve(self, run: Mapping[str, Any]) -> None:
        body = {"workflowRun": {"id": run["id"]}, "decision": "approved"}
        answer = await self.client.post(f"{REPAIRS}/workflowApproval", json=body)
        assert answer.status_code == 201, answer.text

    async def command(self, *words: str) -> str:
        """What the command line answers."""
        command = [sys.executable, "-P", "-m", "convergedon.core.cli", "workflow", *words, "--data", str(self.data)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        return str(done.stdout.strip())

    async def on_device(self) -> dict[str, dict[str, str]]:
        return await asyncio.to_thread(configured, self.data)


def take_away(data: Path) -> None:
    """What a device loses that comes up with an empty configuration."""
    from ncclient import manager

    reach = yaml.safe_load((data / "lab" / "devices.yaml").read_text())["devices"][ELEMENT]["netconf"]
    nothing = (
        '<config xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><accesses xmlns="urn:convergedon:yang:access" '
        'xmlns:nc="urn:ietf:params:xml:ns:netconf:base:1.0" nc:operation="remove"/></config>'
    )
    with manager.connect(
        host=reach["host"],
        port=reach["port"],
        username=reach["username"],
        password=reach["password"],
        hostkey_verify=False,
        allow_agent=False,
        look_for_keys=False,
    ) as session:
        session.edit_config(nothing, target="candidate")
        session.commit()


@pytest.fixture
async def site(tmp_path: Path) -> Any:
    folder = tmp_path / "workflows"
    folder.mkdir()
    for file in definitions.sources(None):
        if "ticket" not in file.name:
            (folder / file.name).write_text(file.read_text(encoding="utf-8"))
    given = settings.load(data=tmp_path / "data", port=0, trap_port=0, flow_port=0, workflows=folder)
    async with up.system(given, lab=True, workers=2, adapters=adapter_names()) as system:
        found = Site(system, given)
        yield found
        await found.client.aclose()


async def test_a_failed_interface_is_gone_round_and_a_restarted_device_is_restored(site: Site) -> None:
    """Each repair is asked for by a person, read on the device, and ended by what the network says."""
    completed = await site.ordered()
    access = f"{completed['id']}-1"
    home = (await site.on_device())[access]
    assert home["interface"] == PORT

    trap_link("down", lab.address(ELEMENT), PORT, 1, "public", site.trap)
    run = await site.run("reroute-to-backup-path", "waitingForApproval")
    assert run["question"] == f"Move 1 services from {ELEMENT}/{PORT} to its backup?"
    assert (await site.on_device())[access] == home
    await site.approve(run)
    await site.until(f"{REPAIRS}/workflowRun", lambda one: any(s["name"] == "hear" for s in one.get("step", [])))
    moved = (await site.on_device())[access]
    alarm = await site.until(f"{ALARMS}/alarm", lambda one: one["id"] == run["alarm"]["id"])
    trap_link("up", lab.address(ELEMENT), PORT, 1, "public", site.trap)
    rerouted = await site.run("reroute-to-backup-path", "completed", "failed", "compensated")
    back = (await site.on_device())[access]

    assert moved == {**home, "interface": "ge-0/0/2"}
    assert alarm["state"] == "raised"
    assert (rerouted["state"], back) == ("completed", home)

    await asyncio.to_thread(take_away, site.data)
    assert access not in await site.on_device()
    trap_cold_start(lab.address(ELEMENT), "public", site.trap)
    run = await site.run("restore-confirmed-configuration", "waitingForApproval")
    assert await site.command("stop", "--reason", "night shift") == "workflows of all tenants are stopped"
    await site.approve(run)
    held = await site.run("restore-confirmed-configuration", "stopped")
    assert held["reason"] == "all workflows are stopped: night shift"
    assert access not in await site.on_device()
    assert await site.command("resume") == "workflows of all tenants are running"
    restored = await site.run("restore-confirmed-configuration", "completed", "failed", "compensated")
    alarm = await site.until(f"{ALARMS}/alarm", lambda one: one["id"] == run["alarm"]["id"])

    assert restored["state"] == "completed"
    assert (await site.on_device())[access] == home
    assert alarm["state"] == "cleared"
