"""Devices and mappings are read again, over and over, while flow records and call records come in: none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from convergedon.adapters import file, flow, inventory
from convergedon.adapters.contract import Adapter, Device
from convergedon.adapters.file.trial import drop
from convergedon.adapters.flow import lab
from convergedon.adapters.role import AdapterRole
from convergedon.core import policy
from convergedon.core.memory import MemoryBus
from convergedon.core.policy import Embedded, Policy
from convergedon.core.seals import Seals
from convergedon.core.settings import Settings, load

DATAGRAMS, EACH = 2_000, 4
FILES, LINES = 24, 700
SINCE = 1_790_000_000.0
Create = Callable[[Settings, Mapping[str, Device]], Adapter]


@dataclass
class Running:
    """An adapter as a role on a bus, and how often it has read its files again."""

    role: AdapterRole
    bus: MemoryBus
    where: str
    reloads: int = 0

    async def observations(self) -> list[Mapping[str, Any]]:
        messages = await self.bus.read("network.>")
        return [part["observation"] for message in messages for part in message.get("observations", [message])]

    async def records(self) -> list[Mapping[str, Any]]:
        return [record for seen in await self.observations() for record in seen["attributes"]["records"]]

    async def reload_while(self, work: asyncio.Task[None], change: Callable[[int], None]) -> None:
        while not work.done():
            change(self.reloads)
            answer = await self.role.reload()
            assert answer.state == "done", answer.words
            self.reloads += 1
        await work


@asynccontextmanager
async def running(create: Create, settings: Settings) -> AsyncIterator[Running]:
    def read() -> tuple[Mapping[str, Device], Adapter]:
        found = inventory.load(settings.devices)
        return found, create(settings, found)

    devices, adapter = read()
    bus = MemoryBus()
    role = AdapterRole(adapter, bus, devices, Policy(Embedded(policy.read())), Seals([b"k" * 32]), read=read)
    where = await role.start()
    try:
        yield Running(role, bus, where)
    finally:
        await role.stop()
        await bus.close()


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.02)


async def test_no_flow_record_is_lost_while_devices_are_read_again(tmp_path: Path) -> None:
    """The sequence numbers are whole, and the template that came once is known to the end; each record is of the
    tenant that was in force when it came.
    """
    devices = tmp_path / "devices.yaml"

    def change(number: int) -> None:
        tenant = ("acme", "globex")[number % 2]
        draft = devices.with_suffix(".new")
        draft.write_text(f"devices: {{pe1: {{tenant: {tenant}, address: 127.0.0.1}}}}")
        draft.replace(devices)

    change(0)
    async with running(flow.create, load(flow_port=0, data=tmp_path, devices=devices)) as adapter:
        host, _, port = adapter.where.rpartition(":")

        async def send() -> None:
            ends = {"destination": "192.0.2.1", "packets": 1, "start": SINCE, "end": SINCE + 1}
            for number in range(DATAGRAMS):
                records = [{"source": f"10.0.0.{n}", "octets": number * EACH + n, **ends} for n in range(EACH)]
                sent = lab.ipfix(records, 7, number * EACH, templates=not number)
                lab.send([sent], (host, int(port)), "127.0.0.1")
                if number % 20 == 0:
                    await asyncio.sleep(0)

        await adapter.reload_while(asyncio.create_task(send()), change)

        async def all_there() -> bool:
            return len(await adapter.records()) >= DATAGRAMS * EACH

        await until(all_there)
        octets = [record["octets"] for record in await adapter.records()]
        health = (await adapter.role.health()).told
        tenants = {seen["tenant"] for seen in await adapter.observations()}

    assert sorted(octets) == list(range(DATAGRAMS * EACH))
    assert (health["missing"], health["dropped"], health["lostInKernel"]) == ({}, {}, 0)
    assert adapter.reloads > 10
    assert tenants == {"acme", "globex"}


async def test_no_call_record_is_lost_while_mappings_are_read_again(tmp_path: Path) -> None:
    """Nor read twice; a file that is begun is read to its end as it was begun."""
    mapping = tmp_path / "mappings" / "file.yaml"
    mapping.parent.mkdir()

    def change(number: int) -> None:
        draft = mapping.with_suffix(".new")
        draft.write_text(
            "sources: {calls: {files: '*.csv', format: csv, whose: {service: service}, start: {column: begin}, "
            f"usageType: voice-{number % 2}, counts: {{seconds: {{column: seconds}}}}}}}}"
        )
        draft.replace(mapping)

    change(0)
    async with running(file.create, load(data=tmp_path, mappings=mapping.parent)) as adapter:

        async def write() -> None:
            for number in range(FILES):
                lines = [f"svc-{number},2026-05-01T12:00:00Z,{number * LINES + n}" for n in range(LINES)]
                drop(adapter.where, ["\n".join(["service,begin,seconds", *lines]).encode()])
                while len(list(Path(adapter.where, "done").iterdir())) < number - 1:
                    await asyncio.sleep(0.01)

        async with asyncio.timeout(60):
            await adapter.reload_while(asyncio.create_task(write()), change)

        async def all_there() -> bool:
            return len(await adapter.records()) >= FILES * LINES

        await until(all_there)
        seconds = [record["counts"]["seconds"] for record in await adapter.records()]
        kinds: dict[str, set[str]] = {}
        for seen in await adapter.observations():
            for record in seen["attributes"]["records"]:
                kinds.setdefault(record["service"], set()).add(seen["attributes"]["usageType"])

    assert sorted(seconds) == list(range(FILES * LINES))
    assert all(len(found) == 1 for found in kinds.values())
    assert {kind for found in kinds.values() for kind in found} == {"voice-0", "voice-1"}
    assert adapter.reloads > 10


pytestmark = pytest.mark.timeout(120)
