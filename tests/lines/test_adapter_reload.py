"""Devices and mappings are read again while an adapter works: nothing is lost, and a mistake changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import time
from typing import Any

import pytest
import yaml

from convergedon.adapters import inventory, snmp
from convergedon.adapters.attending import QUESTION, ask, process_of
from convergedon.adapters.contract import Adapter, Device, Intent, Rpc, tell
from convergedon.adapters.loopback.adapter import LoopbackAdapter
from convergedon.adapters.readandset import Setting
from convergedon.adapters.role import AdapterRole
from convergedon.adapters.snmp import lab, mapping
from convergedon.core import policy
from convergedon.core.errors import Unreachable
from convergedon.core.memory import MemoryBus
from convergedon.core.policy import Embedded, Policy
from convergedon.core.seals import Seals
from convergedon.core.settings import load

ME = process_of("loopback")
SEALS = Seals([b"k" * 32])
LINK_DOWN = "IF-MIB::linkDown"
DEVICES = "devices: {{{}}}"
PE = "{}: {{tenant: acme, address: 127.0.0.{}}}"


class Shared(LoopbackAdapter):
    """One of several that reach the same devices, which answer when they are let; it can be seen to be stopped."""

    def __init__(self, state: dict[str, dict[tuple[str, str], dict[str, Any]]], answers: asyncio.Event) -> None:
        super().__init__()
        self.state, self.answers = state, answers
        self.stopped = asyncio.Event()
        self.begun = asyncio.Event()

    async def commit(self, change: Setting) -> None:
        self.begun.set()
        await self.answers.wait()
        await super().commit(change)

    async def capabilities(self, device: str) -> Any:
        if device in self.unreachable:
            raise Unreachable(f"{device} cannot be reached")
        return await super().capabilities(device)

    async def stop(self) -> None:
        await super().stop()
        self.stopped.set()


class Becoming(Shared):
    """One that takes over what another has read."""

    became: list[Adapter]

    def become(self, other: Adapter) -> None:
        self.became = [*getattr(self, "became", []), other]


@dataclass
class Scene:
    folder: Path
    kind: type[Shared] = Shared
    bus: MemoryBus = field(default_factory=MemoryBus)
    state: dict[str, Any] = field(default_factory=dict)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    made: list[Shared] = field(default_factory=list)

    def write(self, text: str) -> None:
        (self.folder / "devices.yaml").write_text(text)

    def devices(self, *numbers: int) -> None:
        self.write(DEVICES.format(", ".join(PE.format(f"pe{number}", number) for number in numbers)))

    def read(self) -> tuple[Mapping[str, Device], Adapter]:
        found = inventory.load(self.folder / "devices.yaml")
        self.made.append(self.kind(self.state, self.answers))
        return found, self.made[-1]

    async def wants(self, device: str, key: str) -> None:
        intent = Intent(key, "acme", device, "access", key, {"bandwidth": 1}, time() + 60)
        subject = f"intent.loopback.{device}"
        body = {"intent": asdict(intent), "reply": "network.0.outcome", "about": {"tenant": "acme"}}
        await self.bus.publish(subject, SEALS.sealed(subject, body), key)

    async def outcome(self, key: str) -> str:
        async with asyncio.timeout(10):
            while not (answer := await self.bus.last(f"network.0.outcome.{key}")):
                await asyncio.sleep(0.01)
        return str(answer.body["outcome"]["status"])


@asynccontextmanager
async def playing(scene: Scene) -> AsyncIterator[AdapterRole]:
    scene.devices(1)
    scene.answers.set()
    devices, adapter = scene.read()
    role = AdapterRole(adapter, scene.bus, devices, Policy(Embedded(policy.read())), SEALS, read=scene.read)
    await role.start()
    try:
        yield role
    finally:
        await role.stop()
        await scene.bus.close()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_a_device_that_was_added_is_reached_and_what_waited_for_it_is_done(scene: Scene) -> None:
    async with playing(scene) as role:
        await scene.wants("pe2", "early")
        scene.devices(1, 2)
        answer = await role.reload()

        assert (answer.state, answer.words) == ("done", "2 devices are in force")
        assert await scene.outcome("early") == "applied"


async def test_what_is_under_way_ends_on_the_old_adapter_which_is_stopped_then(scene: Scene) -> None:
    """Nothing waits for it, nothing is done twice, and a device that is gone is not left in the middle."""
    async with playing(scene) as role:
        scene.answers.clear()
        await scene.wants("pe1", "slow")
        await scene.made[0].begun.wait()
        scene.devices(2)
        answer = await role.reload()
        await scene.wants("pe2", "next")
        await scene.made[1].begun.wait()
        waiting = not scene.made[0].stopped.is_set()
        scene.answers.set()

        assert answer.state == "done"
        assert waiting
        assert [await scene.outcome(key) for key in ("slow", "next")] == ["applied", "applied"]
        await asyncio.wait_for(scene.made[0].stopped.wait(), 10)
        assert [len(made.performed) for made in scene.made] == [1, 1]


async def test_at_the_end_the_old_one_is_stopped_too(scene: Scene) -> None:
    """Whatever is still under way on it."""
    async with playing(scene) as role:
        scene.answers.clear()
        await scene.wants("pe1", "slow")
        await scene.made[0].begun.wait()
        await role.reload()

    assert [made.stopped.is_set() for made in scene.made] == [True, True]


async def test_calls_of_devices_are_timed_and_health_tells_of_them(scene: Scene) -> None:
    """Those of intents, and those that the adapter makes by itself, in whatever it has started."""
    async with playing(scene) as role:
        await scene.wants("pe1", "one")
        await scene.outcome("one")
        await asyncio.create_task(asyncio.to_thread(tell, Rpc("pe1", "poll", "done", 0.25)))
        told = (await role.health()).told["metrics"]

    assert told["convergedon_adapter_rpc_seconds_sum,rpc=poll"] >= 0.25
    assert told["convergedon_adapter_intents_total,status=applied"] >= 1


async def test_of_a_device_that_is_gone_nothing_is_taken_any_more(scene: Scene) -> None:
    """What comes for it waits for one who has it."""
    async with playing(scene) as role:
        scene.devices(2)
        await role.reload()
        await asyncio.sleep(0)
        await scene.wants("pe1", "late")
        await scene.wants("pe2", "next")

        assert await scene.outcome("next") == "applied"
        assert (await scene.bus.waiting("INTENTS")) == {"intent.loopback.pe1": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("devices:\n  pe1:\n    tenant: acme\n    address: pe1", "devices.yaml, line 4: devices.pe1.address"),
        ("devices:\n  pe1: {tenant: a, address: pe1}", "devices.yaml, line 2: devices.pe1.address"),
        ("devices:\n  - [", "devices.yaml, line 2"),
    ],
)
async def test_a_mistake_leaves_the_old_in_force_and_says_where_it_is(scene: Scene, text: str, words: str) -> None:
    async with playing(scene) as role:
        scene.write(text)
        answer = await role.reload()
        await scene.wants("pe1", "after")

        assert answer.state == "failed"
        assert words in answer.words
        assert answer.words.endswith("; what was in force still is")
        assert await scene.outcome("after") == "applied"
        assert not scene.made[0].stopped.is_set()


async def test_an_adapter_that_takes_over_what_was_read_is_not_stopped(tmp_path: Path) -> None:
    """Its sockets stay open, so no packet is lost."""
    scene = Scene(tmp_path, Becoming)
    async with playing(scene) as role:
        scene.devices(1, 2)
        await role.reload()
        await scene.wants("pe2", "new")

        assert await scene.outcome("new") == "applied"
        assert scene.made[0].became == [scene.made[1]]  # type: ignore[attr-defined]
        assert not scene.made[0].stopped.is_set()


async def test_commands_are_answered_by_each_process_that_runs(scene: Scene) -> None:
    """How it and its devices are; one that is known and says nothing is told of."""
    async with playing(scene):
        scene.devices(1, 2)
        (reloaded,) = await ask(scene.bus, SEALS, "reload", "loopback", [ME])
        scene.made[1].unreachable.add("pe2")
        well, silent = sorted(
            await ask(scene.bus, SEALS, "health", "", [ME, "zeta@there:7"], patience=1), key=lambda one: one.process
        )

        assert reloaded.state == "done"
        assert well.state == "degraded"
        assert well.words == "pe2: pe2 cannot be reached"
        assert well.told["devices"]["pe1"] == {"state": "ready", "capabilities": ["read", "rollback"]}
        assert well.told["devices"]["pe2"]["state"] == "unreachable"
        assert (silent.process, silent.state) == ("zeta@there:7", "silent")


async def test_what_no_command_asked_is_not_answered(scene: Scene) -> None:
    """Nor what is for another adapter."""
    async with playing(scene):
        body = {"id": "x", "what": "reload", "adapter": "", "time": time()}
        await scene.bus.publish(QUESTION, body, "unsealed")
        await scene.bus.publish(QUESTION, Seals([b"x"]).sealed(QUESTION, body), "another")
        await scene.bus.publish(QUESTION, SEALS.sealed(QUESTION, {**body, "adapter": "snmp"}), "snmp")
        await scene.bus.publish(QUESTION, SEALS.sealed(QUESTION, {**body, "time": time() - 3600}), "old")
        await ask(scene.bus, SEALS, "health", "", [ME])

        assert len(scene.made) == 1
        assert await scene.bus.read("adapter.told.x") == []


def told(messages: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The observations of messages of one or of many."""
    return [part["observation"] for message in messages for part in message.get("observations", [message])]


async def test_no_trap_is_lost_while_devices_and_mapping_are_read_again(scene: Scene) -> None:
    """The socket stays open: what is sent meanwhile is read, by what is in force then."""
    settings = load(trap_port=0, data=scene.folder, mappings=scene.folder)
    shipped = yaml.safe_load(mapping.SHIPPED.read_text())

    def read() -> tuple[Mapping[str, Device], Adapter]:
        found = inventory.load(scene.folder / "devices.yaml")
        return found, snmp.create(settings, found)

    def write(severity: str, *numbers: int) -> None:
        shipped["notifications"][LINK_DOWN]["perceivedSeverity"] = severity
        (scene.folder / "snmp.yaml").write_text(yaml.safe_dump(shipped))
        scene.devices(*numbers)

    write("major")
    devices, adapter = read()
    role = AdapterRole(adapter, scene.bus, devices, Policy(Embedded(policy.read())), SEALS, read=read)
    host, _, port = (await role.start()).rpartition(":")
    for number, severity in enumerate(("minor", "warning", "minor", "critical")):
        for _ in range(50):
            lab.trap_link("down", "127.0.0.1", "eth1", 1, "public", (host, int(port)))
        write(severity, *range(2, 2 + number), 1)
        assert (await role.reload()).state == "done"
    lab.trap_link("down", "127.0.0.1", "eth1", 1, "public", (host, int(port)))
    async with asyncio.timeout(20):
        while len(seen := told(await scene.bus.read("network.>"))) < 201:
            await asyncio.sleep(0.02)
    await role.stop()
    await scene.bus.close()

    assert len(seen) == 201
    assert (seen[-1]["device"], seen[-1]["attributes"]["perceivedSeverity"]) == ("pe1", "critical")


async def test_an_adapter_that_breaks_when_it_is_made_again_leaves_the_old_in_force(scene: Scene) -> None:
    async with playing(scene) as role:
        scene.kind = None  # type: ignore[assignment]
        answer = await role.reload()
        await scene.wants("pe1", "after")

        assert (answer.state, answer.words[:26]) == ("failed", "the adapter broke (TypeErr")
        assert await scene.outcome("after") == "applied"
