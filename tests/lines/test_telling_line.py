"""Customers under the rules for notifications: what they are told and when, whatever happens and whoever dies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import time

import pytest
from scene import BERLIN, Scene, item, pumped

from convergedon.core.store import Store
from convergedon.mediation.telling import cases

HOLDS = "default: {holdDown: {major: 60, critical: 5}, updateInterval: 600}\n"


@dataclass
class Clock:
    """Ours, which a test sets forward."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time() + self.ahead


@dataclass
class Told:
    """A scene under rules, and its clock."""

    scene: Scene
    clock: Clock = field(default_factory=Clock)

    async def later(self, seconds: float) -> None:
        """Have it be so much later, and done what is due then."""
        self.clock.ahead += seconds
        await self.due()

    async def due(self) -> None:
        await cases.look_after(self.scene.work)
        await self.scene.pump()

    async def said(self, customer: str = "northwind") -> list[str]:
        """What a customer was told of services, in its order."""
        found = await self.scene.store.find("customerNotification", {})
        mine = [one.body for one in found if one.body["relatedParty"][0]["id"] == customer]
        mine = [one for one in mine if one["notificationType"].startswith("service")]
        return [one["notificationType"].removeprefix("service") for one in mine]


@asynccontextmanager
async def governed(folder: Path, rules: str = HOLDS, store: Store | None = None) -> AsyncIterator[Told]:
    (folder / "notifications.yaml").write_text(rules)
    async with pumped(folder, store, notifications=folder / "notifications.yaml") as scene:
        told = Told(scene)
        assert scene.work.notifications
        scene.work.notifications.clock = told.clock
        yield told


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Told]:
    async with governed(tmp_path) as found:
        await found.scene.ended(await found.scene.order(item(**BERLIN)))
        yield found


async def test_a_problem_is_told_when_it_has_lasted_its_hold_down(told: Told) -> None:
    await told.scene.say("fault")
    await told.scene.settled()
    assert await told.said() == []
    await told.later(58)
    assert await told.said() == []
    await told.later(3)

    assert await told.said() == ["Affected"]
    assert await told.scene.bus.parked() == []


async def test_a_problem_that_ends_within_it_is_never_told_and_recorded_as_such(told: Told) -> None:
    await told.scene.say("fault")
    await told.scene.settled()
    await told.scene.say("clear")
    await told.scene.settled()
    await told.later(1000)

    assert await told.said() == []
    (kept,) = await told.scene.find("telling")
    assert kept.facts["why"] == "over within its hold-down of 60 s: never told"


async def test_who_was_told_is_told_the_end_at_once(told: Told) -> None:
    await told.scene.say("fault")
    await told.scene.settled()
    await told.later(61)
    await told.scene.say("clear")
    await told.scene.settled()

    assert await told.said() == ["Affected", "Restored"]
