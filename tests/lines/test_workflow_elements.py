"""Whatever befalls a lab element, or the way to it, at whichever step of a shipped repair: the run ends, and says how;
the element has its old configuration, or that of a whole step; and only what the network says has cleared the alarm.

A row is a workflow, one of the things that it asks of the device, and what happens then: commands of ``lab fault``, or
the way to the device is closed, cut or silent. All rows are played side by side, each on a lab of its own.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from scene import STORE_KINDS, Scene, item, playing

from convergedon.adapters import inventory, netconf, snmp
from convergedon.adapters.lab import Lab, Receivers
from convergedon.adapters.netconf.lab import Element
from convergedon.adapters.testing.turns import BreakingProxy
from convergedon.core import policy, settings
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.policy import Embedded, Policy
from convergedon.core.store import Record
from convergedon.demo import past
from convergedon.mediation.workflows import definitions
from convergedon.mediation.workflows.definitions import Definition

PORT, BACKUP = "ge-0/0/1", "ge-0/0/2"
BOUNCE, REROUTE = "bounce-interface", "reroute-to-backup-path"
RESTORE, THROTTLE = "restore-confirmed-configuration", "throttle-flapping-port"
ASKED = {
    BOUNCE: ("look", "switchOff", "switchOn", "see"),
    REROUTE: ("move", "look", "moveHome", "lookHome"),
    RESTORE: ("apply", "look"),
    THROTTLE: ("hold", "release", "see"),
}
"""What each asks of its device, in order."""
PATIENCE = {"seconds": 3}
"""With each intent and reading from the faulty step on."""
TIMER = 10
"""Seconds until a device undoes by itself what was not confirmed: more than a busy machine keeps a commit waiting."""
PRODUCTS = (files("convergedon.mediation") / "products.yaml").read_text(encoding="utf-8")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@cache
def rules() -> Policy:
    """Those that ship, where nobody needs to approve."""
    shipped = policy.read()
    remediation = {**shipped.data["remediation"], "automatic": {"*": list(ASKED)}}
    return Policy(Embedded(replace(shipped, data={**shipped.data, "remediation": remediation})))


def hasty(name: str, step: str = "") -> Definition:
    """A shipped definition that waits for less, for devices from a step on: what comes before must come to pass."""
    asked = ASKED.get(name, ())
    patient = asked[: asked.index(step)] if step in asked else asked
    (source,) = [file for file in definitions.sources(None) if file.name == f"{name}.yaml"]
    document = json.loads(json.dumps(definitions.read(source).document))
    for path, task in definitions.every_task_and_compensation(document["do"], "do"):
        if task.get("call") in ("intent", "observe") and path.rpartition("/")[2] not in patient:
            task["timeout"] = {"after": PATIENCE}
        if "wait" in task:
            task["wait"] = {"milliseconds": 600}
        if "retry" in task.get("catch", {}):
            task["catch"]["retry"] = {"delay": {"milliseconds": 300}, "limit": {"attempt": {"count": 1}}}
    assert definitions.violations(document) == []
    return Definition(document)


class Telling(MemoryBus):
    """A bus on which something happens just before the device is asked for the so-manieth time.

    ``told_well`` says whether the network has said that something is over.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left, self.happens, self.told_well = 0, lambda: asyncio.sleep(0), False

    async def publish(self, subject: str, body: Mapping[str, Any], id: str, *more: Any, **given: Any) -> None:
        if subject.startswith("intent.netconf.") and self.left and id not in self._ids["INTENTS"]:
            self.left -= 1
            if not self.left:
                await self.happens()
        if subject.startswith("network."):
            self.told_well |= "'kind': 'clear'" in repr(body)
        await super().publish(subject, body, id, *more, **given)


@dataclass
class Site:
    """A system in this process, and the element that its faults are of: its own lab, and a proxy on the way."""

    scene: Scene
    bus: Telling
    lab: Lab
    proxy: BreakingProxy
    place: Mapping[str, Any]

    @property
    def element(self) -> Element:
        return self.lab._elements["pe1"]

    def configuration(self) -> Any:
        ports = {name: port.enabled for name, port in self.element.ports().items()}
        return json.loads(json.dumps([self.element.running(), ports]))

    async def run(self, workflow: str) -> Record:
        """The run of a workflow, when it has ended; what a reroute waits for comes to pass."""
        part, found = "" if workflow == RESTORE else PORT, []

        async def over() -> bool:
            runs = [
                one for one in await self.scene.find("workflowRun") if one.facts["input"]["target"]["object"] == part
            ]
            found[:] = sorted(runs, key=lambda one: str(one.body["startedAt"]))[:1]
            steps = [step["name"] for one in found for step in one.body.get("step", ())]
            if "hear" in steps and not self.element.ports()[PORT].linked:
                await self.lab.fault("pe1", "ifup", PORT)
            return bool(found) and "endedAt" in found[0].body

        await self.scene.until(over, 90)
        return found[0]


# what happens

Happens = Callable[[Site], Awaitable[Any]]


def command(kind: str, interface: str = "") -> Happens:
    async def happen(site: Site) -> None:
        await site.lab.fault("pe1", kind, interface)

    return happen


async def closed(site: Site) -> None:
    """Nobody listens there any more, and what was open is reset."""
    site.proxy.away = True
    site.proxy.cut()


def cut(turn: int) -> Happens:
    """The connection is reset once, in the middle of what is said."""

    async def happen(site: Site) -> None:
        site.proxy.arm(turn, "after")

    return happen


async def lost(site: Site) -> None:
    """Answers reach nobody, and the connection stays as if nothing were."""
    site.proxy.arm(6, "silence")


FAULTS: dict[str, Happens] = {
    "refuse-commit": command("refuse-commit"),
    "slow": command("slow"),
    "silent": command("silent"),
    "reboot": command("reboot"),
    "worse": command("worse", BACKUP),
    "ifdown": command("ifdown", BACKUP),
    "hang": command("hang", BACKUP),
    "closed port": closed,
    "cut before the commit": cut(4),
    "cut at the commit": cut(6),
    "cut after the commit": cut(8),
    "answers lost": lost,
}
STEPS = [(workflow, step) for workflow, steps in ASKED.items() for step in steps]
ALL = [(*step, fault) for step in STEPS for fault in FAULTS]
SOME = [(*step, [*FAULTS][(5 * number + place) % len(FAULTS)]) for number, step in enumerate(STEPS) for place in (0, 6)]
"""Two at each step, so that each fault is there twice; ``WORKFLOW_FAULTS=all`` plays all of them."""
WORSE = (REROUTE, "moveHome", "worse")
"""The one thing that only shows around the device: what was on the backup since is taken down by the way home."""
SOME = [*dict.fromkeys([*SOME, WORSE])]
ROWS = ALL if os.environ.get("WORKFLOW_FAULTS") == "all" else SOME
ASIDE = 13


# the rows


NOTHING = (
    '<config xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><accesses xmlns="urn:convergedon:yang:access" '
    'xmlns:nc="urn:ietf:params:xml:ns:netconf:base:1.0" nc:operation="remove"/></config>'
)


def take_away(place: Mapping[str, Any]) -> None:
    """What a device loses that comes up with an empty configuration."""
    with past.session(place) as session:
        session.edit_config(NOTHING, target="candidate")
        session.commit()


@dataclass(frozen=True)
class Ended:
    """What a row came to. ``whole`` are the configurations after a whole number of steps, the old one first."""

    run: Record
    alarm: Record
    befallen: bool
    whole: list[Any]
    held: Any
    told_well: bool


@asynccontextmanager
async def on_lab(folder: Path, workflow: Definition, **more: Any) -> AsyncIterator[Site]:
    """A system with one workflow in force, and an access that was ordered."""
    folder.mkdir()
    traps = [("127.0.0.1", 9)]
    lab = Lab(folder / "lab", lambda: Receivers(traps[0], ("127.0.0.1", 9), "public"))
    devices = inventory.load(await lab.start())
    place = devices["pe1"].settings["netconf"]
    proxy = BreakingProxy("127.0.0.1", place["port"])
    around = {**devices["pe1"].settings, "netconf": {**place, "port": await proxy.start()}}
    devices = {**devices, "pe1": replace(devices["pe1"], settings=around)}
    limits: dict[str, Any] = {"confirm_timeout": TIMER, "flap_clears": 2, "flap_quiet": 1, "repair_patience": 0, **more}
    given = settings.load(data=folder, trap_port=0, **limits)
    adapters, bus = [netconf.create(given, devices), snmp.create(given, devices)], Telling()
    try:
        async with playing(
            MemoryStore(STORE_KINDS), bus, folder, PRODUCTS, [workflow], rules(), adapters, devices, **limits
        ) as scene:
            traps[0] = ("127.0.0.1", int(scene.listens[-1].rpartition(":")[2]))
            access = item(offering="internet-access", bandwidth=10, vlan=100, site="berlin-1")
            assert (await scene.ended(await scene.order(access)))["state"] == "completed"
            yield Site(scene, bus, lab, proxy, place)
    finally:
        await proxy.stop()
        await lab.stop()


async def suffered(site: Site, workflow: str, step: str, fault: str) -> Ended:
    befallen = asyncio.Event()

    async def happen() -> None:
        befallen.set()
        await FAULTS[fault](site)

    whole = [site.configuration()]
    whole.append(otherwise(workflow, whole[0]))
    site.bus.left, site.bus.happens = ASKED[workflow].index(step) + 1, happen
    await begun(site, workflow)
    run = await site.run(workflow)
    site.proxy.away, site.element.silent, site.element.latency = False, False, 0.0
    await asyncio.wait_for(site.element.until(lambda: not site.element.pending), 2 * TIMER)
    alarm = await site.scene.store.get("alarm", "acme", run.body["alarm"]["id"])
    return Ended(run, alarm, befallen.is_set(), whole, site.configuration(), site.bus.told_well)


async def begun(site: Site, workflow: str) -> None:
    """What each workflow is for."""
    if workflow == RESTORE:
        await asyncio.to_thread(take_away, site.place)
        await site.lab.fault("pe1", "reboot")
    elif workflow == THROTTLE:
        await site.lab.fault("pe1", "flap", PORT, 3)
    else:
        await site.lab.fault("pe1", "hang" if workflow == BOUNCE else "ifdown", PORT)


def otherwise(workflow: str, old: Any) -> Any:
    """What the element has after the first change of a workflow, or before a restoration."""
    accesses, ports = copy.deepcopy(old)
    if workflow == RESTORE:
        return [{}, ports]
    if workflow == REROUTE:
        return [{name: {**access, "interface": BACKUP} for name, access in accesses.items()}, ports]
    return [accesses, {**ports, PORT: False}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ends(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str, str], Ended]:
    """All rows, some at a time: most of each is waiting."""
    folder, turns = tmp_path_factory.mktemp("elements"), asyncio.Semaphore(ASIDE)

    async def one(number: int, row: tuple[str, str, str]) -> Ended:
        async with turns, on_lab(folder / str(number), hasty(*row[:2])) as site:
            return await suffered(site, *row)

    played_ = await asyncio.gather(*(one(number, row) for number, row in enumerate(ROWS)))
    return dict(zip(ROWS, played_, strict=True))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", ROWS, ids=" ".join)
async def test_it_ends_in_a_state_that_is_said_and_known(
    row: tuple[str, str, str], ends: Mapping[tuple[str, str, str], Ended]
) -> None:
    """Completed or taken back: as before (a restored one as was confirmed); else what stands is a whole step, and a
    person is told that it could not be taken back. An alarm is over only if the network said or showed so; then nobody
    needs to be told of what was taken back since the device was away.
    """
    end, workflow = ends[row], row[0]
    state, old, other = end.run.body["state"], *end.whole
    words = (row, state, end.run.body.get("reason"), end.alarm.body["state"], end.held)

    assert end.befallen, words
    over = "the alarm was cleared before it was begun again" in end.run.body.get("reason", "")
    assert end.run.body["escalated"] is not (state == "completed" or over), words
    if state == "completed":
        assert end.held == old, words
    elif state == "compensated":
        assert end.held == (other if workflow == RESTORE else old), words
    else:
        assert state == "failed", words
        assert end.held in end.whole, words
        assert "what was done could not be taken back" in end.run.body["reason"], words
    if end.alarm.body["state"] == "cleared":
        shown = [step["status"] for step in end.run.body["step"] if step["name"] == "clear"]
        assert end.told_well or shown == ["done"], words
        assert end.alarm.body["clearSystemId"] == "pe1", words
    if row == WORSE:
        assert end.run.body["reason"].startswith("worse: it is worse than before: 1 alarms"), words
