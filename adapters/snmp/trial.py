"""How the SNMP adapter is tried: by datagrams, by its mapping, and on a recorded device whose interfaces are set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from convergedon.adapters.contract import Device, Intent
from convergedon.adapters.snmp import mapping
from convergedon.adapters.snmp.agent import Access, Agent
from convergedon.adapters.snmp.recording import Recording, Value, read
from convergedon.adapters.testing import Trial

HERE = files("convergedon.adapters.snmp")
RECORDED = HERE / "recordings" / "net-snmp.yaml"
COMMUNITY = "trial"
TIMEOUT = 5.0
"""Seconds that an agent on loopback has for an answer, be the machine as busy as it may."""
MOVED = 0.5
"""The same where answers are kept from us, so that silence does not take long."""
WANTED = Intent("order-1", "acme", "sw1", "access-port", "acc-1", {"interface": "eth0", "state": "up"}, 0)


@cache
def _recorded() -> Mapping[str, Value]:
    return read(RECORDED)


@asynccontextmanager
async def devices(folder: Path) -> AsyncIterator[Mapping[str, Device]]:
    access = Access((COMMUNITY.encode(),), writers=frozenset({COMMUNITY.encode()}))
    agent = Agent(Recording(_recorded()), access)
    port = await agent.start()
    snmp = {"host": "127.0.0.1", "port": port, "community": COMMUNITY, "set": True, "timeout": TIMEOUT}
    try:
        yield {"sw1": Device("sw1", "acme", "192.0.2.9", {"snmp": snmp})}
    finally:
        await agent.stop()


def place(device: Device) -> tuple[str, int]:
    reach = device.settings["snmp"]
    return reach["host"], reach["port"]


def moved(device: Device, host: str, port: int) -> Device:
    return replace(device, settings={"snmp": {**device.settings["snmp"], "host": host, "port": port, "timeout": MOVED}})


TRIAL = Trial(
    devices,
    WANTED,
    replace(WANTED, key="order-2", instance="acc-2", values={"interface": "eth9", "state": "up"}),
    place,
    moved,
    datagrams=True,
    golden=HERE / "golden",
    mapping=("snmp.yaml", mapping.SHIPPED),
    patience=150.0,  # pysnmp reads its own MIBs for each adapter that is made
)
