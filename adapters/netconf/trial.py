"""How the NETCONF adapter is tried: on simulated elements of the lab, which are real servers (the extra lab)."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from convergedon.adapters.contract import Device, Intent
from convergedon.adapters.netconf import mapping
from convergedon.adapters.netconf.lab import Element
from convergedon.adapters.testing import Trial

INTERFACES = {"ge-0/0/1": 1000}
GOLD = {"interface": "ge-0/0/1", "vlan": 100, "bandwidth": 200}
WANTED = Intent("order-1", "acme", "pe1", "internet-access", "acc-1", GOLD, 0)


@asynccontextmanager
async def devices(folder: Path) -> AsyncIterator[Mapping[str, Device]]:
    element = Element("pe1", folder, INTERFACES, password=secrets.token_hex(8))
    await element.start()
    try:
        yield {"pe1": Device("pe1", "acme", "127.0.0.1", {"netconf": element.device_entry()["netconf"]})}
    finally:
        await element.stop()


def place(device: Device) -> tuple[str, int]:
    reach = device.settings["netconf"]
    return reach["host"], reach["port"]


def moved(device: Device, host: str, port: int) -> Device:
    return replace(device, settings={"netconf": {**device.settings["netconf"], "host": host, "port": port}})


TRIAL = Trial(
    devices,
    WANTED,
    replace(WANTED, key="order-2", instance="acc-2", values={**GOLD, "vlan": 5000}),
    place,
    moved,
    golden=files("convergedon.adapters.netconf") / "golden",
    mapping=("netconf.yaml", mapping.SHIPPED),
    given={"confirm_timeout": 5},
)
