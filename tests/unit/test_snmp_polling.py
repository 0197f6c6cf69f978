"""Many devices are polled side by side, each as it is: fast and slow counters, restarts, silence, and circles."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from simulated import UPTIME, Agent, capture

from convergedon.adapters.contract import Device
from convergedon.adapters.snmp import ber, polling
from convergedon.adapters.snmp.asking import Engines
from convergedon.adapters.snmp.polling import Polling
from convergedon.core.errors import Unavailable

HIGH = capture("snmpd")
# as an old switch has it: no table of 64 bits
LOW = {oid: bound for oid, bound in HIGH.items() if not oid.startswith("1.3.6.1.2.1.31.")}
LO_IN = "1.3.6.1.2.1.31.1.1.1.6.1"


class Scene:
    def __init__(self):
        self.told, self.bell, self.agents = [], asyncio.Event(), {}

    def tell(self, observations):
        self.told += observations
        self.bell.set()

    def of(self, device, kind="counter"):
        return [each for each in self.told if (each.device, each.kind) == (device, kind)]

    async def until(self, holds):
        async with asyncio.timeout(60):
            while not holds():
                self.bell.clear()
                await self.bell.wait()


@asynccontextmanager
async def polled(agents, **given):
    """These agents, by name, polled; the interval is shorter than a devices file may say."""
    scene, devices = Scene(), []
    scene.agents = agents
    for name, agent in agents.items():
        snmp = {"host": "127.0.0.1", "port": await agent.start(), "community": "public", "poll": {"interval": 0.2}}
        devices.append(Device(name, "acme", "127.0.0.9", {"snmp": snmp | given}))
    scene.polling = Polling(devices, scene.tell)
    scene.polling.start()
    try:
        yield scene
    finally:
        await scene.polling.stop()
        for agent in agents.values():
            agent.transport.close()


def counts(seen, interface="lo"):
    return next(one["counts"] for one in seen.attributes["records"] if one["interface"] == interface)


async def test_thirty_devices_are_polled_side_by_side():
    async with polled({f"pe{n}": Agent(HIGH, more=1000 + n) for n in range(30)}) as scene:
        await scene.until(lambda: all(scene.of(name) for name in scene.agents))

    for number, name in enumerate(scene.agents):
        found = counts(scene.of(name)[0])
        # one that is asked twice, because the first answer came late, goes on twice
        assert found["octetsIn"] == found["octetsOut"] > 0
        assert found["octetsIn"] % (1000 + number) == 0
    assert scene.polling.counts["polled"] >= 60


async def test_a_device_without_counters_of_64_bits_is_counted_by_those_of_32():
    async with polled({"old": Agent(LOW, more=700)}) as scene:
        await scene.until(lambda: len(scene.of("old")) >= 2)

    assert [counts(each)["octetsIn"] for each in scene.of("old")[:2]] == [700, 700]


async def test_the_devices_file_names_interfaces():
    async with polled({"pe1": Agent(HIGH)}, interfaces={1: "ge-0/0/1"}) as scene:
        await scene.until(lambda: scene.of("pe1"))

    assert counts(scene.of("pe1")[0], "ge-0/0/1")["octetsIn"] == 1000


async def test_what_was_counted_before_a_restart_is_not_counted_again():
    agent = Agent(HIGH)

    def restart():
        if agent.asked == 3:
            agent.values[UPTIME] = (ber.TICKS, 5)
            agent.values[LO_IN] = (ber.COUNTER64, 900)

    agent.change = restart
    async with polled({"pe1": agent}) as scene:
        await scene.until(lambda: len(scene.of("pe1")) >= 3)

    assert {counts(each)["octetsIn"] for each in scene.of("pe1")} == {1000}
    assert scene.polling.counts["restart"] > 0


async def test_a_device_that_is_silent_holds_up_no_other_and_is_one_fault():
    agents = {"pe1": Agent(HIGH), "pe2": Agent(HIGH)}
    agents["pe2"].silent = True
    async with polled(agents, timeout=0.3) as scene:
        await scene.until(lambda: len(scene.of("pe1")) >= 3 and scene.of("pe2", "fault"))
        counted = len(scene.of("pe1"))
        await scene.until(lambda: len(scene.of("pe1")) >= counted + 5)
        silent, faults = list(scene.polling.silent), scene.of("pe2", "fault")
        agents["pe2"].silent = False
        await scene.until(lambda: scene.of("pe2", "clear") and scene.of("pe2"))

    assert silent == ["pe2"]
    assert [fault.key for fault in faults] == [scene.of("pe2", "clear")[0].key]


async def test_the_first_answer_ends_a_silence_that_an_earlier_process_told_of():
    """Once: from then on it is known whether there is one."""
    async with polled({"pe1": Agent(HIGH)}) as scene:
        await scene.until(lambda: len(scene.of("pe1")) >= 3)

    assert [one.key for one in scene.of("pe1", "clear")] == ["snmp:unreachable"]


@pytest.mark.parametrize("values", [HIGH, {UPTIME: (ber.TICKS, 5)}], ids=["circles", "nothing"])
async def test_a_device_that_tells_nonsense_is_no_endless_walk(values):
    agent = Agent(values)
    agent.circles = values is HIGH
    async with polled({"pe1": agent}) as scene:
        await scene.until(lambda: scene.of("pe1", "fault"))

    assert not scene.of("pe1")


async def test_a_device_that_tells_on_and_on_is_no_endless_walk():
    """Each answer has a name that was not there yet."""
    agent, engines = Agent(HIGH), Engines()
    agent.onward = True
    snmp = {"host": "127.0.0.1", "port": await agent.start(), "community": "public"}
    asking = polling.Agent(engines, Device("pe1", "acme", "127.0.0.9", {"snmp": snmp}))
    asking._peer.most_answers = 20
    with pytest.raises(Unavailable, match=r"pe1 cannot be read: its table .* has no end"):
        await asking.read()
    engines.close()
    agent.transport.close()
