"""An order whose product is set over SNMP: from TMF622 to the device's own objects, and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scene import Scene, in_memory, item

from convergedon.adapters.contract import Device
from convergedon.adapters.role import AdapterRole
from convergedon.adapters.snmp import create, recording, trial
from convergedon.adapters.snmp.agent import Access, Agent
from convergedon.core import settings

PRODUCTS = """
offerings:
  port:
    name: Port
    characteristics:
      site: {type: site}
    intents:
      - adapter: snmp
        device: site.device
        service: access-port
        object: site.port
        values: {interface: site.port, state: site.state}
sites:
  acme:
    berlin: {device: pe1, port: ifb0, state: up}
    potsdam: {device: pe1, port: ifb1, state: up}
    nowhere: {device: pe1, port: ge-9/9/9, state: up}
"""
ADMIN, ALIAS = (1, 3, 6, 1, 2, 1, 2, 2, 1, 7, 2), (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 18, 2)
UP, DOWN = 1, 2


@dataclass
class Played:
    scene: Scene
    agent: Agent

    def value(self, name: tuple[int, ...]) -> object:
        bound = self.agent.objects.value(name)
        return bound and bound[1]


@pytest.fixture
async def played(tmp_path: Path) -> AsyncIterator[Played]:
    """A worker, and the SNMP adapter for one recorded device."""
    agent = Agent(recording.Recording(recording.read(trial.RECORDED)), Access((b"rw",), writers=frozenset({b"rw"})))
    snmp = {"host": "127.0.0.1", "port": await agent.start(), "community": "rw", "set": True}
    devices = {"pe1": Device("pe1", "acme", "192.0.2.1", {"snmp": snmp})}
    async with in_memory(tmp_path, products=PRODUCTS) as scene:
        adapter = create(settings.load(data=tmp_path, trap_port=0), devices)
        role = AdapterRole(adapter, scene.bus, devices, scene.work.policy, scene.work.seals, scene.audit)
        await role.start()
        yield Played(scene, agent)
        await role.stop()
    await agent.stop()


async def test_a_port_is_labelled_with_its_service_and_switched_on_and_given_back(played: Played) -> None:
    scene = played.scene
    added = await scene.order(item(offering="port", site="berlin"))
    ended = await scene.ended(added)
    label, state = played.value(ALIAS), played.value(ADMIN)
    service = f"{added}-1"
    deleted = await scene.ended(await scene.order(item("delete", product=service)))

    assert ended["state"] == "completed", ended.get("note")
    assert (label, state) == (service.encode(), UP)
    assert deleted["state"] == "completed", deleted.get("note")
    assert (played.value(ALIAS), played.value(ADMIN)) == (b"", DOWN)


async def test_a_port_that_is_not_there_fails_the_order_with_the_reason(played: Played) -> None:
    ended = await played.scene.ended(await played.scene.order(item(offering="port", site="nowhere")))

    assert ended["state"] == "failed"
    assert "pe1 has no interface ge-9/9/9" in str(ended["note"])


async def test_a_port_that_bears_another_label_is_left_to_whoever_put_it_there(played: Played) -> None:
    played.agent.objects.put(ALIAS, (4, b"customer 12"))
    ended = await played.scene.ended(await played.scene.order(item(offering="port", site="berlin")))

    assert ended["state"] == "failed"
    assert "labelled customer 12 already" in str(ended["note"])
    assert (played.value(ALIAS), played.value(ADMIN)) == (b"customer 12", DOWN)


async def test_what_a_device_is_told_stands_in_the_audit_record_without_what_was_said(played: Played) -> None:
    added = await played.scene.order(item(offering="port", site="berlin"))
    await played.scene.ended(added)
    await played.scene.audit.stop()
    calls = [one.body for one in await played.scene.store.find("audit", {"body.what": "device.rpc"})]

    assert {one["detail"]["rpc"] for one in calls} == {"get", "bulk", "set"}
    assert all(one["outcome"] == "done" for one in calls)
    assert "ifb0" not in str(calls)
