"""How the loopback adapter is tried: on devices whose memory outlives the adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from convergedon.adapters.contract import Device, Intent
from convergedon.adapters.testing import Trial


@asynccontextmanager
async def devices(folder: Path) -> AsyncIterator[Mapping[str, Device]]:
    yield {"pe1": Device("pe1", "acme", "127.0.0.1", {"loopback": {"memory": {}}})}


WANTED = Intent("order-1/pe1", "acme", "pe1", "access", "site-1", {"vlan": 100, "bandwidth": 50}, 0)
REFUSED = Intent("order-2/pe1", "acme", "pe1", "access", "site-2", {"refuse": "no such vlan"}, 0)
TRIAL = Trial(devices, WANTED, REFUSED, golden=files("convergedon.adapters.loopback") / "golden")
