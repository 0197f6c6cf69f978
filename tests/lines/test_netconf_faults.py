"""A connection that breaks at every step of a change: a known outcome, and the old or the new configuration."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convergedon.adapters.contract import Device, Intent, Rpc, witness
from convergedon.adapters.netconf import NetconfAdapter, create, mapping
from convergedon.adapters.netconf.lab import CAPABILITIES, Element
from convergedon.adapters.testing.trial import ignore
from convergedon.adapters.testing.turns import BreakingProxy, How
from convergedon.adapters.transaction import perform
from convergedon.core import settings
from convergedon.core.errors import Unavailable

RUNNING = "urn:ietf:params:netconf:capability:writable-running:1.0"
DEVICES = {
    "confirmed commit": CAPABILITIES,
    "confirmed commit 1.0": tuple(uri for uri in CAPABILITIES if "confirmed-commit:1.1" not in uri),
    "candidate": tuple(uri for uri in CAPABILITIES if "confirmed-commit" not in uri),
    "running": (*(uri for uri in CAPABILITIES if ":candidate:" not in uri and "confirmed" not in uri), RUNNING),
}
OLD = {"interface": "ge-0/0/1", "vlan": 100, "bandwidth": 200}
NEW = {"vlan": 101, "bandwidth": 300}
HELD = {
    "old": {"name": "acc-1", "interface": "ge-0/0/1", "vlan-id": "100", "bandwidth": "200"},
    "new": {"name": "acc-1", "interface": "ge-0/0/1", "vlan-id": "101", "bandwidth": "300"},
}
STEPS = {
    "confirmed commit": [
        "get-config", "lock", "get-config", "discard-changes", "edit-config", "commit", "get", "confirm", "unlock",
    ],
    "confirmed commit 1.0": [
        "get-config", "lock", "get-config", "discard-changes", "edit-config", "commit", "get", "commit", "unlock",
    ],
    "candidate": ["get-config", "lock", "get-config", "discard-changes", "edit-config", "commit", "get", "unlock"],
    "running": ["get-config", "lock", "get-config", "edit-config", "get", "unlock"],
}  # fmt: skip


CONFIRMED = ["confirmed commit", "confirmed commit 1.0"]


class Scene:
    """An element behind a proxy, an adapter, and what the adapter's calls of the device came to."""

    def __init__(self, element: Element, proxy: BreakingProxy, port: int) -> None:
        self.element, self.proxy, self._port = element, proxy, port
        self.adapters: list[NetconfAdapter] = []
        self.rpcs: list[Rpc] = []

    async def adapter(self) -> NetconfAdapter:
        entry = {**self.element.device_entry()["netconf"], "port": self._port}
        device = Device("pe1", "acme", "127.0.0.1", {"netconf": entry})
        services = {name: replace(service, settle=0.1) for name, service in mapping.load().items()}
        self.adapters.append(NetconfAdapter(settings.load(confirm_timeout=20), {"pe1": device}, services))
        await self.adapters[-1].start(ignore)
        return self.adapters[-1]

    def held(self) -> str:
        found = self.element.running().get("acc-1")
        return next((name for name, held in HELD.items() if held == found), f"between: {found}")


@pytest.fixture
def kind() -> str:
    return "confirmed commit"


@pytest.fixture
async def scene(kind: str, tmp_path: Path) -> AsyncIterator[Scene]:
    element = Element("pe1", tmp_path / "pe1", {"ge-0/0/1": 1000}, capabilities=DEVICES[kind])
    proxy = BreakingProxy("127.0.0.1", await element.start())
    scene = Scene(element, proxy, await proxy.start())
    before = witness.set(scene.rpcs.append)
    await perform(await scene.adapter(), intent(OLD, "order-1"))
    scene.rpcs.clear()
    yield scene
    witness.reset(before)
    for adapter in scene.adapters:
        await adapter.stop()
    await proxy.stop()
    await element.stop()


def intent(values: dict[str, Any] | None, key: str = "order-2", within: float = 60) -> Intent:
    return Intent(key, "acme", "pe1", "internet-access", "acc-1", values, time.time() + within)


@pytest.mark.parametrize("kind", DEVICES)
async def test_the_steps_of_a_change_are_these(kind: str, scene: Scene) -> None:
    """So many turns the tests below break; and what the device cannot is not claimed."""
    scene.proxy.arm(100, "before")

    outcome = await perform(scene.adapters[0], intent(NEW))
    capabilities = await scene.adapters[0].capabilities("pe1")

    assert outcome.status == "applied"
    assert [rpc.name for rpc in scene.rpcs] == STEPS[kind]
    assert scene.proxy.turns == len(STEPS[kind])
    assert scene.held() == "new"
    assert {"candidate", "confirmedCommit"} & capabilities == {
        "confirmed commit": {"candidate", "confirmedCommit"},
        "confirmed commit 1.0": {"candidate", "confirmedCommit"},
        "candidate": {"candidate"},
        "running": set(),
    }[kind]


@pytest.mark.parametrize("how", ["before", "half", "after"])
@pytest.mark.parametrize(
    ("kind", "turn"), [(kind, turn) for kind, steps in STEPS.items() for turn in range(1, len(steps) + 1)]
)
async def test_a_cut_at_any_step_leaves_the_old_or_the_new(kind: str, turn: int, how: How, scene: Scene) -> None:
    """What is said is what is there, and when the intent comes again it is done, once and for good."""
    scene.proxy.arm(turn, how)

    first = await perform(scene.adapters[0], intent(NEW))
    between = scene.held()
    second = await perform(scene.adapters[0], intent(NEW))

    assert scene.proxy.broke
    assert [rpc.name for rpc in scene.rpcs if rpc.outcome == "failed"] == [STEPS[kind][turn - 1]]
    assert between in {
        "applied": ["new"], "rolledBack": ["old"], "refused": ["old"], "unknown": ["old", "new"]
    }[first.status]  # fmt: skip
    assert first.done or first.retriable
    assert second.status == ("unchanged" if between == "new" else "applied")
    assert scene.held() == "new"
    assert not scene.element.pending
    assert not scene.element.locked


@pytest.mark.parametrize("kind", CONFIRMED)
@pytest.mark.parametrize("turn", range(1, len(STEPS["confirmed commit"]) + 1))
async def test_a_gateway_that_dies_at_any_step_is_followed_by_one_that_finishes(
    turn: int, kind: str, scene: Scene
) -> None:
    """The one that follows knows nothing but the intent, and finds the rest on the device."""
    scene.proxy.arm(turn, "silence")
    dying = asyncio.ensure_future(perform(scene.adapters[0], intent(NEW)))
    await scene.proxy.until_broke()
    between = scene.held()
    scene.proxy.cut()

    scene.proxy.away = True  # so that the one that dies does not mend it
    await dying
    scene.proxy.away = False
    again = await perform(await scene.adapter(), intent(NEW))

    assert between in ("old", "new")
    assert again.done
    assert scene.held() == "new"
    assert not scene.element.pending


@pytest.mark.parametrize("kind", CONFIRMED)
@pytest.mark.parametrize("turn", range(1, len(STEPS["confirmed commit"]) + 1))
async def test_a_device_that_restarts_at_any_step_has_the_old_or_the_new(turn: int, kind: str, scene: Scene) -> None:
    scene.proxy.arm(turn, "silence")
    lost = asyncio.ensure_future(perform(scene.adapters[0], intent(NEW)))
    await scene.proxy.until_broke()

    scene.proxy.away = True
    scene.proxy.cut()
    await scene.element.stop()
    await scene.element.start()
    first = await lost
    between = scene.held()
    scene.proxy.away = False
    again = await perform(scene.adapters[0], intent(NEW))

    assert between == ("new" if turn >= STEPS["confirmed commit"].index("confirm") + 1 else "old")
    assert first.done or first.retriable
    assert again.done
    assert scene.held() == "new"


async def test_a_device_that_can_only_be_read_is_refused_and_says_so(tmp_path: Path) -> None:
    element = Element(
        "pe1", tmp_path / "pe1", {}, capabilities=[uri for uri in CAPABILITIES if ":candidate:" not in uri]
    )
    await element.start()
    adapter = create(
        settings.load(), {"pe1": Device("pe1", "acme", "", {"netconf": element.device_entry()["netconf"]})}
    )
    await adapter.start(ignore)

    outcome = await perform(adapter, intent(OLD))
    capabilities = await adapter.capabilities("pe1")
    await adapter.stop()
    await element.stop()

    assert (outcome.status, outcome.reason) == ("refused", "capability")
    assert "neither a candidate nor a writable running configuration" in outcome.words
    assert capabilities == {"read", "verify", "notifications"}


@pytest.mark.parametrize("kind", ["candidate", "running"])
async def test_without_confirmed_commit_a_change_without_effect_is_edited_back(kind: str, scene: Scene) -> None:
    outcome = await perform(scene.adapters[0], intent({"vlan": 101, "bandwidth": 5000, "description": "fast"}))

    assert (outcome.status, outcome.reason) == ("rolledBack", "verification")
    assert scene.held() == "old"
    assert not scene.element.locked


@pytest.mark.parametrize("kind", ["candidate", "running"])
async def test_without_confirmed_commit_what_was_new_is_taken_away_again(kind: str, scene: Scene) -> None:
    other = {"interface": "ge-0/0/1", "vlan": 102, "bandwidth": 5000}

    outcome = await perform(
        scene.adapters[0], Intent("order-3", "acme", "pe1", "internet-access", "acc-2", other, time.time() + 60)
    )

    assert outcome.status == "rolledBack"
    assert list(scene.element.running()) == ["acc-1"]


@pytest.mark.parametrize("kind", ["confirmed commit 1.0"])
async def test_a_commit_that_only_its_session_confirms_is_undone_with_it(kind: str, scene: Scene) -> None:
    """Version 1.0: no id goes out; what is not well is undone by leaving, and no later session is taken in by it."""
    refused = await perform(scene.adapters[0], intent({"vlan": 101, "bandwidth": 5000}))
    held, sessions = scene.held(), scene.element.sessions_opened
    scene.rpcs.clear()
    again = await perform(scene.adapters[0], intent(OLD, "order-3"))

    assert (refused.status, refused.reason, held) == ("rolledBack", "verification", "old")
    assert sessions == 2
    assert again.status == "unchanged"
    assert [rpc.name for rpc in scene.rpcs] == ["get-config", "lock", "unlock", "get"]
    assert scene.element.requests["cancel-commit"] == 0


@pytest.mark.parametrize("kind", ["confirmed commit 1.0"])
async def test_another_session_than_the_one_that_committed_confirms_nothing(kind: str, scene: Scene) -> None:
    """It would be told ok, and the change is gone."""
    adapter = scene.adapters[0]
    change = await adapter.prepare(intent(NEW))
    await adapter.commit(change)
    held = scene.held()
    for session in list(scene.element.sessions.values()):
        session.drop()
    async with asyncio.timeout(10):
        while (await adapter.health())["devices"]["pe1"]["state"] == "connected":
            await asyncio.sleep(0.01)

    with pytest.raises(Unavailable, match="the session that committed has ended, and the change with it"):
        await adapter.confirm(change)
    missing = await adapter.rollback(change)
    await adapter.release(change)

    assert (held, missing, scene.held()) == ("new", [], "old")


@pytest.mark.parametrize("kind", ["confirmed commit 1.0"])
async def test_what_another_session_has_not_confirmed_is_not_taken_for_done(kind: str, scene: Scene) -> None:
    """Its gateway lost its machine: the device does not know it yet, and undoes it when its timer ends."""
    dying = await scene.adapter()
    change = await dying.prepare(intent(NEW))
    await dying.commit(change)
    waiting = asyncio.ensure_future(perform(scene.adapters[0], intent(NEW)))
    async with asyncio.timeout(20):
        await scene.element.until(lambda: scene.element.requests["lock"] >= 4)
    pending, held = scene.element.pending, scene.held()
    for session in list(scene.element.sessions.values())[1:]:
        session.drop()
    outcome = await waiting
    await dying.release(change)

    assert (pending, held) == (True, "new")
    assert outcome.done
    assert scene.held() == "new"
    assert not scene.element.pending


async def test_a_slow_verification_sets_the_devices_timer_anew(tmp_path: Path) -> None:
    """The operational state follows after more than the time in which the device undoes an unconfirmed commit."""
    element = Element("pe1", tmp_path / "pe1", {"ge-0/0/1": 100})
    await element.start()
    device = Device("pe1", "acme", "", {"netconf": element.device_entry()["netconf"]})
    (tmp_path / "netconf.yaml").write_text(
        "services: {internet-access: {namespace: 'urn:convergedon:yang:access', path: /accesses/access, key: name,"
        " leaves: {interface: interface, vlan: vlan-id, bandwidth: bandwidth}, verify: {bandwidth: oper-bandwidth},"
        " settle: 30}}"
    )
    adapter = create(settings.load(confirm_timeout=5, mappings=tmp_path), {"pe1": device})
    await adapter.start(ignore)
    performing = asyncio.ensure_future(perform(adapter, intent(OLD)))

    async with asyncio.timeout(60):
        await element.until(lambda: element.requests["commit-confirmed"] == 5)  # four times anew: 6.7 s at least
    pending = element.pending
    element.interfaces["ge-0/0/1"] = 1000
    outcome = await performing
    await adapter.stop()
    await element.stop()

    assert pending
    assert outcome.status == "applied"
    assert element.running() == {"acc-1": HELD["old"]}
