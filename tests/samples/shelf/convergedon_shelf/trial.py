"""How the kit tries the adapter: on a simulated shelf, new each time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from convergedon.adapters.contract import Device, Intent
from convergedon.adapters.testing import Trial
from convergedon_shelf.simulator import Shelf

WANTED = Intent("order-1", "acme", "shelf-1", "port", "port-7", {"speed": 100, "lane": 3}, 0)


@asynccontextmanager
async def shelves(folder: Path) -> AsyncIterator[Mapping[str, Device]]:
    shelf = Shelf()
    port = await shelf.start()
    try:
        yield {"shelf-1": Device("shelf-1", "acme", "127.0.0.1", {"shelf": {"port": port}})}
    finally:
        await shelf.stop()


def place(device: Device) -> tuple[str, int]:
    return device.address, device.settings["shelf"]["port"]


def moved(device: Device, host: str, port: int) -> Device:
    return replace(device, address=host, settings={"shelf": {"port": port}})


TRIAL = Trial(
    shelves,
    wanted=WANTED,
    refused=replace(WANTED, key="order-2", values={"speed": 5000}),
    place=place,
    moved=moved,
    golden=files("convergedon_shelf") / "golden",
)
