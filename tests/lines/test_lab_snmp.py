"""The lab's elements over SNMP: what they are, what goes wrong on them, and what is set on them, as over NETCONF."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from elements import PORT, Elements, intent

from convergedon.adapters import inventory, lab
from convergedon.adapters.snmp import ber, create, recording
from convergedon.adapters.snmp.asking import Engines, Peer
from convergedon.adapters.snmp.counters import Reading, between
from convergedon.adapters.snmp.polling import Agent
from convergedon.adapters.testing.golden import Heard
from convergedon.adapters.transaction import perform, read
from convergedon.core import settings
from convergedon.core.errors import Misconfigured, Unreachable

OTHER = "ge-0/0/2"
OPER, ADMIN, ALIAS = "1.3.6.1.2.1.2.2.1.8.1", "1.3.6.1.2.1.2.2.1.7.1", "1.3.6.1.2.1.31.1.1.1.18.1"
IN, NAME = "1.3.6.1.2.1.31.1.1.1.6.1", "1.3.6.1.2.1.31.1.1.1.1.1"


class Scene(Elements):
    """The lab, an adapter of each protocol for it, and what traps say."""

    def __init__(self, folder: Path) -> None:
        self.heard = Heard()
        super().__init__(folder, self.heard)
        self.engines = Engines()

    async def start(self) -> None:
        await super().start()
        self.snmp = create(self.given, self.devices)
        [where] = await self.snmp.start(self.heard)
        self.traps = ("127.0.0.1", int(where.rpartition(":")[2]))
        self.device = self.devices["pe1"]
        self.peer = Peer(self.engines, self.device)

    async def stop(self) -> None:
        self.engines.close()
        await self.snmp.stop()
        await super().stop()

    async def get(self, *oids: str) -> list[Any]:
        return [value for _, _, value in await self.peer.get(oids)]

    async def order(self, bandwidth: int) -> None:
        await self.access("pe1", "acc-1", bandwidth=bandwidth, address="10.1.1.1/30")

    async def told(self, kind: str) -> Any:
        """The first that is told of a link; of the device itself it may be told that it is no more silent."""
        async with asyncio.timeout(20):
            while not (
                found := [each for each in self.heard.seen if each.kind == kind and each.key.startswith("link:")]
            ):
                await self.heard.until(len(self.heard.seen) + 1, 1)
        return found[0]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    await scene.start()
    yield scene
    await scene.stop()


async def test_an_element_is_polled_and_counts_what_is_configured(scene: Scene) -> None:
    """What NETCONF and flow records have of the same moment, and half of 80 Mbit/s."""
    await scene.order(80)
    agent, element = Agent(scene.engines, scene.device), scene.lab._elements["pe1"]

    def counted() -> tuple[float, float]:
        return element.ports()[PORT].octets, time.monotonic()

    around = [counted()]
    before = await agent.read()
    around.append(counted())
    async with asyncio.timeout(20):
        while counted()[0] < around[1][0] + 1_000_000:
            await asyncio.sleep(0.01)
    around.append(counted())
    after = await agent.read()
    around.append(counted())
    [went] = [went for name, went in between(before, after) if name == PORT]
    octets = [one for one, _ in around]

    assert isinstance(went, dict)
    assert int(octets[0]) <= before.interfaces[PORT].counts["octetsIn"] <= octets[1]
    assert int(octets[2]) <= after.interfaces[PORT].counts["octetsIn"] <= octets[3]
    assert went["octetsIn"] == went["octetsOut"]
    assert went["packetsIn"] == pytest.approx(went["octetsIn"] / 1000, abs=1)
    assert octets[3] - octets[0] == pytest.approx(0.5 * 80 * 125_000 * (around[3][1] - around[0][1]), rel=0.05)
    assert after.interfaces[PORT].speed == 1_000_000_000


async def test_a_link_that_goes_down_is_down_and_carries_nothing(scene: Scene) -> None:
    await scene.order(80)
    await scene.lab.fault("pe1", "ifdown", PORT)
    found, counted = await scene.get(ADMIN, OPER), await scene.get(IN)
    fault = await scene.told("fault")
    again = await scene.get(IN)
    await scene.lab.fault("pe1", "ifup", PORT)

    assert found == [1, 2]
    assert (fault.device, fault.object) == ("pe1", PORT)
    assert again == counted
    assert await scene.get(OPER) == [1]


async def test_an_interface_that_is_switched_off_over_snmp_is_down_over_netconf_and_says_so(scene: Scene) -> None:
    await scene.order(80)
    off = await perform(scene.snmp, intent("pe1", "port", PORT, {"state": "down", "description": "broken optic"}))
    fault = await scene.told("fault")
    state = await scene.netconf.compare(intent("pe1", "internet-access", "acc-1", {"bandwidth": 80}))
    on = await perform(scene.snmp, intent("pe1", "port", PORT, {"state": "up"}))
    clear = await scene.told("clear")

    assert (off.status, on.status) == ("applied", "applied")
    assert off.diff == {"state": ("up", "down"), "description": ("", "broken optic")}
    assert (fault.key, clear.key) == (f"link:{PORT}", f"link:{PORT}")
    assert "oper-bandwidth" in str(state[1])
    assert await scene.get(ALIAS) == [b"broken optic"]


async def test_a_line_that_is_cut_is_not_mended_by_switching_on(scene: Scene) -> None:
    """Switched off, it does as it was told; on it does not, and what was there before is brought back."""
    await scene.lab.fault("pe1", "ifdown", PORT)
    off = await perform(scene.snmp, intent("pe1", "port", PORT, {"state": "down"}))
    soon = replace(intent("pe1", "port", PORT, {"state": "up"}), deadline=time.time() + 2)
    on = await perform(scene.snmp, soon)
    found = await scene.get(ADMIN, OPER)
    await scene.lab.fault("pe1", "ifup", PORT)
    mended = await perform(scene.snmp, intent("pe1", "port", PORT, {"state": "up"}))

    assert off.status == "applied"
    assert (on.status, on.reason) == ("rolledBack", "verification")
    assert "operStatus" in on.words
    assert found == [2, 2]
    assert mended.status == "applied"
    assert await scene.get(ADMIN, OPER) == [1, 1]


async def test_whether_a_repair_helped_is_read_and_never_ordered(scene: Scene, tmp_path: Path) -> None:
    """``ifOperStatus`` is in each reading and may be wanted there, also of a device that is asked and never set."""
    watched = replace(scene.device, settings={"snmp": {**scene.device.settings["snmp"], "set": False}})
    watching = create(settings.load(trap_port=0, data=tmp_path / "watching"), {"pe1": watched})
    await watching.start(scene.heard)
    works = intent("pe1", "port", PORT, {"state": "up", "operStatus": "up"})
    assert await watching.capabilities("pe1") == {"read", "notifications"}
    seen = {"before": await read(watching, works)}
    await scene.lab.fault("pe1", "ifdown", PORT)
    seen["cut"] = await read(watching, replace(works, values={"operStatus": "up"}))
    seen["looked at"] = await read(scene.snmp, replace(works, values={}))
    seen["nonsense"] = await read(scene.snmp, replace(works, values={"operStatus": "well"}))
    ordered, set_ = await perform(scene.snmp, works), await perform(watching, replace(works, values={"state": "up"}))
    await watching.stop()

    assert (seen["before"].status, seen["before"].differences) == ("read", ())
    assert seen["cut"].words == "leaf operStatus: wanted up, found down"
    assert seen["looked at"].state == {"state": "up", "description": "", "operStatus": "down"}
    assert seen["nonsense"].status == "refused"
    assert "must be one of up, down" in seen["nonsense"].words
    assert (ordered.status, ordered.words) == ("refused", "operStatus can only be read")
    assert (set_.status, set_.reason) == ("refused", "capability")


async def test_a_flap_is_a_trap_for_each_turn_down_and_up(tmp_path: Path) -> None:
    """Alternately, of one interface, and each says what RFC 2863 has in it: index, admin status, and how it is now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind(("127.0.0.1", 0))
        port.setblocking(False)
        simulated = lab.Lab(tmp_path, lambda: lab.Receivers(port.getsockname(), ("127.0.0.1", 9), "public"))
        await simulated.start()
        await simulated.fault("pe1", "flap", PORT, turns=3)
        await simulated.stop()
        sent = []
        with suppress(BlockingIOError):
            while True:
                sent.append(ber.decode(port.recv(2000)))
    varbinds = [{name: value for name, _, value in one.varbinds} for one in sent]

    assert [one.oid for one in sent] == [f"{ber.STANDARD_TRAPS}.3", f"{ber.STANDARD_TRAPS}.4"] * 3
    assert [one[OPER] for one in varbinds] == [2, 1] * 3
    assert {(one["1.3.6.1.2.1.2.2.1.1.1"], one[ADMIN], one[NAME]) for one in varbinds} == {(1, 1, PORT.encode())}
    assert sorted(one[ber.UPTIME] for one in varbinds) == [one[ber.UPTIME] for one in varbinds]
    assert len({one.request for one in sent}) == 6
    assert not any(one.inform for one in sent)


async def test_what_an_intent_does_not_name_is_not_verified(scene: Scene) -> None:
    """A label on a port that nothing is plugged into."""
    await scene.lab.fault("pe1", "ifdown", PORT)
    outcome = await perform(scene.snmp, intent("pe1", "port", PORT, {"description": "spare"}))

    assert outcome.status == "applied"


async def test_a_restart_begins_uptime_and_counters_anew(scene: Scene) -> None:
    """Less of both is read than before; where the reading took longer than the element had run, after one more."""
    await scene.order(800)
    agent = Agent(scene.engines, scene.device)
    async with asyncio.timeout(20):
        while (before := await agent.read()).uptime < 60 or not before.interfaces[PORT].counts["octetsIn"]:
            await asyncio.sleep(0.05)
        await scene.lab.fault("pe1", "reboot")
        while not _younger(after := await agent.read(), before):
            before = after
            await scene.lab.fault("pe1", "reboot")

    assert dict(between(before, after)) == {PORT: "restart", OTHER: "restart"}


def _younger(one: Reading, other: Reading) -> bool:
    octets, before = (each.interfaces[PORT].counts["octetsIn"] for each in (one, other))
    return one.uptime < other.uptime and octets < before


async def test_one_that_is_slow_takes_its_time_and_a_silent_one_does_not_answer(scene: Scene) -> None:
    element = scene.lab._elements["pe1"]
    await scene.lab.fault("pe1", "slow")
    begun = time.monotonic()
    assert await scene.get(OPER) == [1]
    took = time.monotonic() - begun
    await scene.lab.fault("pe1", "silent")
    element.latency = 0.0
    scene.peer._patience = scene.peer._patience / 20
    scene.peer._target = None
    with pytest.raises(Unreachable):
        await scene.get(OPER)
    await scene.lab.fault("pe1", "mend")

    assert took >= lab.SLOW
    assert await scene.get(OPER) == [1]


async def test_its_address_and_community_stay_and_nobody_else_reads_them(scene: Scene) -> None:
    """A gateway that is started again finds the element by the devices file that it knows."""
    kept = scene.folder / "lab" / "pe1" / "snmp.json"
    before = kept.read_text()
    await scene.lab.stop()
    await scene.lab.start()

    assert kept.read_text() == before
    assert kept.stat().st_mode & 0o077 == 0
    assert re.search(r"community: \S{12,}", (scene.folder / "lab" / "devices.yaml").read_text())


async def test_a_recorded_device_is_one_more_of_the_lab(tmp_path: Path) -> None:
    """From the command that records one of ours to the lab that plays it back, and counts on."""
    first = Scene(tmp_path)
    await first.start()
    await first.order(800)
    recorded = await recording.record(first.peer, 0.5, "elsewhere")
    await first.stop()
    recording.write(recorded, tmp_path / "lab" / "recordings" / "ce1.yaml")
    second = Scene(tmp_path)
    await second.start()
    device = inventory.load(tmp_path / "lab" / "devices.yaml")["ce1"]
    agent = Agent(second.engines, device)
    before, after = await agent.read(), await agent.read()
    await second.stop()

    assert device.tenant == "acme"
    assert {name: interface.speed for name, interface in before.interfaces.items()} == {PORT: 10**9, OTHER: 10**9}
    assert after.interfaces[PORT].counts["octetsIn"] > before.interfaces[PORT].counts["octetsIn"] > 0


async def test_a_recording_that_is_wrong_keeps_the_lab_from_starting_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "lab" / "recordings").mkdir(parents=True)
    (tmp_path / "lab" / "recordings" / "ce1.yaml").write_text("about: it\nvalues: {1.3.6.1: {kind: flag, value: 1}}\n")
    scene = Scene(tmp_path)
    with pytest.raises(Misconfigured, match=r"ce1.yaml, line 2: values.1.3.6.1.kind"):
        await scene.lab.start()
    await scene.lab.stop()
