"""net-snmp's agent polled by community and by user: its counters are the kernel's, and silence is one fault."""

import asyncio
import os
import socket
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest
import yaml
from peers import peer

from convergedon.adapters.contract import Device
from convergedon.adapters.snmp import create, recording
from convergedon.core import settings

pytestmark = pytest.mark.live

USER = {"user": "reader", "authKey": "reader-auth-phrase", "privKey": "reader-priv-phrase"}


class Snmpd:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    async def start(self) -> None:
        conf = self.folder / "snmpd.conf"
        conf.write_text(
            f"agentAddress udp:127.0.0.1:{self.port}\nrocommunity public\n"
            f"createUser reader SHA-256 {USER['authKey']} AES {USER['privKey']}\nrouser reader priv\n"
        )
        words = ("-f", "-Lf", str(self.folder / "log"), "-C", "-c", str(conf), "-p", str(self.folder / "pid"))
        own = os.environ | {"MIBS": "", "SNMP_PERSISTENT_DIR": str(self.folder)}
        self.process = await asyncio.create_subprocess_exec(peer("snmpd"), *words, env=own)

    async def stop(self) -> None:
        self.process.terminate()
        await self.process.wait()


@pytest.fixture
async def agent(tmp_path):
    agent = Snmpd(tmp_path)
    await agent.start()
    yield agent
    if agent.process.returncode is None:
        await agent.stop()


class Heard:
    def __init__(self):
        self.told, self.bell = [], asyncio.Event()

    async def __call__(self, observation):
        self.told.append(observation)
        self.bell.set()

    async def until(self, holds):
        async with asyncio.timeout(40):
            while not (found := [each for each in self.told if holds(each)]):
                self.bell.clear()
                await self.bell.wait()
        return found[0]


def of(seen, interface):
    return next((one for one in seen.attributes["records"] if one["interface"] == interface), None)


@pytest.mark.parametrize("given", [{"community": "public"}, USER], ids=["community", "user"])
async def test_the_counters_are_those_of_the_kernel(agent, tmp_path, given):
    snmp = {"host": "127.0.0.1", "port": agent.port, "poll": {"interval": 1}, **given}
    device = Device("lo1", "acme", "127.0.0.9", {"snmp": snmp})
    adapter, heard = create(settings.load(trap_port=0, data=tmp_path), {"lo1": device}), Heard()
    await adapter.start(heard)
    began = time.time()
    # the agent itself looks at the kernel's counters every few seconds only
    seen = await heard.until(lambda each: each.kind == "counter" and of(each, "lo"))
    loopback = of(seen, "lo")
    health = await adapter.health()
    await adapter.stop()

    assert (seen.device, seen.tenant) == ("lo1", "acme")
    assert loopback["counts"]["octetsIn"] == loopback["counts"]["octetsOut"] > 0
    assert loopback["counts"]["packetsIn"] > 0
    assert began - 1 < loopback["start"] < loopback["end"] <= time.time()
    assert health["polling"]["unreachable"] == []


async def test_a_device_that_is_silent_is_one_fault_until_it_answers(agent, tmp_path):
    snmp = {"host": "127.0.0.1", "port": agent.port, "poll": {"interval": 1}, "community": "public"}
    device = Device("lo1", "acme", "127.0.0.9", {"snmp": snmp})
    adapter, heard = create(settings.load(trap_port=0, data=tmp_path), {"lo1": device}), Heard()
    await agent.stop()
    await adapter.start(heard)
    await heard.until(lambda each: each.kind == "fault")
    await agent.start()
    cleared = await heard.until(lambda each: each.kind == "clear")
    await adapter.stop()

    faults = [each for each in heard.told if each.kind == "fault"]
    assert [(each.device, each.key) for each in faults] == [("lo1", cleared.key)]
    assert "public" not in str(faults)


@pytest.mark.parametrize("given", [{"community": "public"}, USER], ids=["community", "user"])
async def test_it_is_recorded_by_the_command_without_its_names(agent, tmp_path, given):
    """What the recording plays back is read as the device was, but for who it is."""
    snmp = {"host": "127.0.0.1", "port": agent.port, **given}
    devices = {"devices": {"sw1": {"tenant": "acme", "address": "192.0.2.9", "snmp": snmp}}}
    (tmp_path / "devices.yaml").write_text(yaml.safe_dump(devices))
    command = ["adapter", "record", str(tmp_path / "case"), "--walk", "sw1", "--seconds", "0.5"]
    own = {"CONVERGEDON_DEVICES": str(tmp_path / "devices.yaml"), "CONVERGEDON_DATA": str(tmp_path)}

    async def run():
        words = (sys.executable, "-P", "-m", "convergedon.core.cli", *command)
        process = await asyncio.create_subprocess_exec(*words, env=os.environ | own, stdout=PIPE, stderr=STDOUT)
        told, _ = await process.communicate()
        return process.returncode, told.decode()

    code, told = await run()
    again, refusal = await run()
    found = recording.read(tmp_path / "case" / "walk.yaml")

    assert code == 0, told
    assert "values of sw1 are in" in told
    assert found["1.3.6.1.2.1.1.5.0"].value == "device-1"
    assert socket.gethostname() not in found["1.3.6.1.2.1.1.1.0"].value.split()
    assert "lo" in {value.value for oid, value in found.items() if oid.startswith("1.3.6.1.2.1.31.1.1.1.1.")}
    assert again == 78
    assert "cannot be written" in refusal
