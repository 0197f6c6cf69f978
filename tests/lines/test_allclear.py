"""Two workers that decide for one customer at the same time: one is the first, and each thing is said once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from faulty import FaultyStore
from scene import STORE_KINDS
from test_problems import furnish
from test_telling_line import HOLDS, Told, at, governed, hear

from convergedon.core.bus import Message
from convergedon.core.errors import ConvergedonError
from convergedon.core.memory import MemoryStore
from convergedon.core.store import MongoStore, Outgoing, Record, Store, Where
from convergedon.handlers.affected_parties import AFFECTED_PARTY
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.customer_notifications import CUSTOMER_NOTIFICATION, TELLING
from convergedon.mediation.telling import cases

Opened = Callable[[], Awaitable[Store]]


class Meeting(FaultyStore):
    """Lets nobody go on from a certain step before all who are awaited have come to it."""

    def __init__(self, store: Store, fails_at: int = 0, when: Any = "before") -> None:
        super().__init__(store, fails_at, when)
        self.at, self._gate = "", asyncio.Barrier(1)
        self._met: set[asyncio.Task[Any] | None] = set()

    async def meet(self, at: str, *deciding: Coroutine[Any, Any, Any]) -> list[Any]:
        """Have two decide side by side, who meet at ``reads`` of what else owes an all-clear, or ``writes`` of cases.

        Whoever has come to its end is waited for no more.
        """
        self.at, self._gate, self._met = at, asyncio.Barrier(len(deciding)), set()
        tasks = [asyncio.create_task(one) for one in deciding]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await self._gate.abort()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        mistakes = [one for one in outcomes if isinstance(one, BaseException) and not isinstance(one, ConvergedonError)]
        assert mistakes == []
        return outcomes

    async def _come(self, at: str) -> None:
        if at == self.at and (task := asyncio.current_task()) not in self._met:
            self._met.add(task)
            with suppress(asyncio.BrokenBarrierError):
                await self._gate.wait()

    async def find(
        self, kind: str, where: Where, sort: Sequence[tuple[str, int]] = (), skip: int = 0, limit: int = 0
    ) -> list[Record]:
        found = await super().find(kind, where, sort, skip, limit)
        if kind == TELLING.name and "facts.owes" in where:
            await self._come("reads")
        return found

    async def replace(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        if record.kind == TELLING.name:
            await self._come("writes")
        return await super().replace(record, messages)


@pytest.fixture(params=["memory", "embedded"])
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[Opened]:
    """New stores, in memory and on the embedded server."""
    made: list[Store] = []

    async def one() -> Store:
        if request.param == "memory":
            return MemoryStore(STORE_KINDS)
        url = request.getfixturevalue("mongodb_url")
        made.append(await MongoStore(url, f"lines{uuid4().hex[:8]}", STORE_KINDS).open())
        return made[-1]

    yield one
    for store in made:
        await store.close()


@asynccontextmanager
async def two_over(folder: Path, store: Meeting) -> AsyncIterator[tuple[Told, list[Message]]]:
    """s4 suffered from two faults, of which fabrikam was told; both are over, and nobody has heard of that yet."""
    async with governed(folder, HOLDS, store) as told:
        await furnish(told.scene)
        for number, place in enumerate(("pe1/ge-8", "pe3/ge-1")):
            await hear(told, number, place, "fault")
        await told.later(100)
        for record in await told.scene.find("affectedParty", **{"facts.openFor": "fabrikam"}):
            closed = dict.fromkeys(("openKey", "openAt", "openOn", "openFor"))
            over = {"status": "restored", "restoredAt": at(0)}
            await told.scene.resources.change(AFFECTED_PARTY, record, over, closed)
        before = len(told.scene.bus.messages)
        for unsent in await store.unsent(-1):
            for message in unsent.messages:
                await told.scene.bus.publish(message.subject, message.body, message.id, message.headers)
        yield told, told.scene.bus.messages[before:]


async def owed(told: Told) -> list[str]:
    return [owed for case in await told.scene.find("telling") for owed in case.facts.get("owes", ())]


async def ends(told: Told) -> list[list[str]]:
    """Of each message that said to fabrikam that services work again, which."""
    named = [
        [*note.get("restoredService", ()), *(note["service"] if note["notificationType"] == "serviceRestored" else ())]
        for note in await told.notes("fabrikam")
    ]
    return [[one["id"] for one in services] for services in named if services]


async def test_two_cases_that_are_over_at_the_same_time_have_one_all_clear(tmp_path: Path, opened: Opened) -> None:
    """Both have read what is owed before either has written: one pays for both."""
    store = Meeting(await opened())
    async with two_over(tmp_path, store) as (told, events):
        assert await told.said("fabrikam") == ["Affected", "Affected"]
        await store.meet("reads", *(cases.hear(told.scene.work, event) for event in events))
        await told.due()

        assert await ends(told) == [["s4"]]
        assert [one for one in await owed(told) if one.startswith("fabrikam")] == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_whoever_of_them_dies_there_is_one_all_clear(tmp_path: Path, when: Any) -> None:
    """At any write, done or not, while the other one goes on: what died is done again, as the bus has it."""
    for number in range(1, 40):
        store = Meeting(MemoryStore(STORE_KINDS), 0, when)
        async with two_over(tmp_path, store) as (told, events):
            store.writes, store.fails_at = 0, number
            outcomes = await store.meet("reads", *(cases.hear(told.scene.work, event) for event in events))
            for event, outcome in zip(events, outcomes, strict=True):
                if isinstance(outcome, BaseException):
                    await cases.hear(told.scene.work, event)
            await told.due()
            assert await ends(told) == [["s4"]], number
            assert [one for one in await owed(told) if one.startswith("fabrikam")] == [], number
            passed = store.writes < number
        if passed:
            break
    assert number > 5


async def test_a_service_that_is_disturbed_again_is_owed_another_all_clear(tmp_path: Path) -> None:
    """What was claimed for the first time binds nobody the next time."""
    async with governed(tmp_path, HOLDS) as told:
        await furnish(told.scene)
        for turn in range(3):
            for number, place in enumerate(("pe1/ge-8", "pe3/ge-1")):
                await hear(told, 10 * turn + number, place, "fault")
            await told.later(100)
            for number, place in enumerate(("pe1/ge-8", "pe3/ge-1")):
                await hear(told, 10 * turn + 5 + number, place, "clear")
            await told.due()

        assert await told.said("fabrikam") == ["Affected", "Affected", "Restored"] * 3


async def test_who_is_not_the_first_says_nothing(tmp_path: Path, opened: Opened) -> None:
    """An update and an all-clear of one case that were decided at the same time: the all-clear is the last word."""
    store = Meeting(await opened())
    async with governed(tmp_path, HOLDS, store) as told:
        await furnish(told.scene)
        await hear(told, 0, "pe3/ge-1", "fault")
        await told.later(100)
        (record,) = await told.scene.find("affectedParty", **{"facts.openFor": "fabrikam"})
        told.clock.ahead += 700
        grown = replace(record, body={**record.body, "cause": "another"})
        over = replace(record, body={**record.body, "status": "restored", "restoredAt": at(0)})
        work, rules = told.scene.work, told.scene.work.notifications
        assert rules
        await store.meet("writes", *(cases.consider(work, rules, one, just_now=True) for one in (grown, over)))
        said = await told.said("fabrikam")
        assert said in (["Affected", "Updated"], ["Affected", "Restored"])
        await cases.consider(work, rules, over)

        assert (await told.said("fabrikam"))[1:] in (["Updated", "Restored"], ["Restored"])


@pytest.mark.parametrize("by", ["event", "time"])
async def test_a_message_that_was_noted_and_not_made_is_made(tmp_path: Path, by: str) -> None:
    """By whoever comes next: its event, or a time that was noted with it."""
    store = Unmade(MemoryStore(STORE_KINDS))
    async with governed(tmp_path, "default: {holdDown: {major: 60}}\n" if by == "time" else "{}\n", store) as told:
        await furnish(told.scene)
        store.dies = True
        await hear(told, 0, "pe3/ge-1", "fault")
        await told.later(61)
        await told.later(11)

        assert await told.said("fabrikam") == ["Affected"]
        assert store.died > 0


class Unmade(FaultyStore):
    """A worker dies each time that it would make a message for the first time."""

    dies, died = False, 0

    async def create(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        if self.dies and record.kind == CUSTOMER_NOTIFICATION.name and self.died < 3:
            self.died += 1
            self.writes, self.fails_at = 0, 1
        return await super().create(record, messages)


async def test_a_message_that_was_deleted_is_not_made_again(tmp_path: Path) -> None:
    """Nor are its words kept: whoever has them erased has them erased."""
    async with governed(tmp_path, HOLDS) as told:
        await furnish(told.scene)
        await hear(told, 0, "pe3/ge-1", "fault")
        await told.later(61)
        for note in await told.scene.find("customerNotification"):
            await told.scene.resources.delete(CUSTOMER_NOTIFICATION, note)
        await told.scene.settled()
        await told.later(11)
        assert [one for one in await told.scene.find("telling") if "saying" in one.facts] == []
        (alarm,) = await told.scene.find("alarm")
        await told.scene.resources.change(ALARM, alarm, {"expectedRestoration": "2027-03-02T17:00:00Z"})
        await told.scene.settled()
        await told.later(700)

        assert await told.said("fabrikam") == ["Updated"]
