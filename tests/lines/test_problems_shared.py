"""Several workers over one store and bus come to the same problems as one alone, and to the same last words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import uuid4

from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scene import STORE_KINDS, Scene, playing
from test_alarm_tasks import worker
from test_problems import FAULTS, MIXED, furnish, hold, left, observation, outcome, play, reordered, timeless

from convergedon.adapters.contract import Observation
from convergedon.adapters.intake import Told
from convergedon.adapters.reporting import Reporting
from convergedon.core import embedded
from convergedon.core.bus import Bus, NatsBus
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.store import MongoStore, Record, Store
from convergedon.handlers.apis import APIS
from convergedon.handlers.resource import Resources
from convergedon.mediation.known import Known
from convergedon.mediation.worker import Worker

WORKERS = 3
T = TypeVar("T")


class Dawdling(MemoryStore):
    """Lets others go first, before and after what it does, as a store over a wire does."""

    def __init__(self, chance: Random) -> None:
        super().__init__(STORE_KINDS)
        self._chance = chance

    async def _among_others(self, work: Awaitable[T]) -> T:
        for _ in range(self._chance.randint(0, 3)):
            await asyncio.sleep(0)
        done = await work
        for _ in range(self._chance.randint(0, 3)):
            await asyncio.sleep(0)
        return done

    async def create(self, *given: Any) -> Record:
        return await self._among_others(super().create(*given))

    async def replace(self, *given: Any) -> Record:
        return await self._among_others(super().replace(*given))

    async def get(self, *given: Any) -> Record:
        return await self._among_others(super().get(*given))

    async def find(self, *given: Any, **how: Any) -> list[Record]:
        return await self._among_others(super().find(*given, **how))


async def say(bus: Bus, seen: Sequence[Observation], chance: Random) -> None:
    """Put observations on the bus as they may arrive: alone or together, at once or after a while."""
    ahead = list(seen)
    while ahead:
        number = chance.randint(1, 4)
        now, ahead = ahead[:number], ahead[number:]
        for parcel in Reporting("loopback", bus).pack([Told(one, None) for one in now]):
            await parcel.send()
        await asyncio.sleep(chance.choice((0, 0, 0.002, 0.02)))


async def shared(seen: Sequence[Observation], chance: Random) -> dict[str, Any]:
    """What observations come to where several workers take them side by side."""
    bus = MemoryBus()
    with TemporaryDirectory() as folder:
        async with playing(Dawdling(chance), bus, Path(folder)) as scene:
            await furnish(scene)
            others = [Worker(replace(scene.work, known=Known())) for _ in range(WORKERS - 1)]
            for other in others:
                await other.start()
            try:
                await say(bus, seen, chance)
                await scene.settled(0.5)
                while not bus.is_idle:
                    await scene.settled(0.5)
                assert [one.reason for one in await bus.parked()] == []
                await hold(scene)
                return await outcome(scene)
            finally:
                for other in others:
                    await other.stop()


@effort(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(FAULTS, st.integers(0, 2**32))
def test_several_workers_come_to_what_one_comes_to(seen: list[Observation], seed: int) -> None:
    chance = Random(seed)
    alone = asyncio.run(play(seen, Random(1), 0))

    assert left(asyncio.run(shared(reordered(seen, chance), chance))) == left(alone)


@effort(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(MIXED, st.integers(0, 2**32))
def test_what_ends_while_others_look_is_nobodys_loss(seen: list[Observation], seed: int) -> None:
    """Also where an alarm is over between a look's reading of it and its writing."""
    chance = Random(seed)
    alone = asyncio.run(play(seen, Random(1), 0))

    assert timeless(asyncio.run(shared(reordered(seen, chance), chance))) == timeless(alone)


@dataclass
class Seen:
    """What there is to see from outside the processes."""

    store: Store
    resources: Resources

    async def find(self, kind: str, tenant: str = "acme", **where: Any) -> list[Record]:
        return await self.store.find(kind, {"tenant": tenant, **where}, sort=[("id", 1)])

    async def pump(self) -> None:
        """Nobody has to tell processes to go on."""


async def test_workers_of_which_one_is_killed_come_to_it_too(tmp_path: Path, mongodb_url: str) -> None:
    """Three processes on real servers, a cut with a late parent, and the first of them is killed while it lasts."""
    places = ["pe2/ge-8", "pe1/ge-9", "cpe", "pe1/ge-8", "pe3/ge-9", "pe1/ge-1", "pe3"]
    said = [observation(number, place, "fault") for number, place in enumerate(places)]
    alone = await play(said, Random(1), 0)
    database = f"shared{uuid4().hex[:8]}"
    store = await MongoStore(mongodb_url, database, STORE_KINDS).open()
    (tmp_path / "nats").mkdir()
    with embedded.running(embedded.nats_command(tmp_path / "nats")) as server:
        bus = await NatsBus(server.url, "test").open()
        given_ = {"nats_url": server.url, "mongodb_url": mongodb_url, "database": database}
        scene: Any = Seen(store, Resources(store, APIS, "http://gateway.example"))
        await furnish(scene)
        async with AsyncExitStack() as processes:
            first, *_ = [await processes.enter_async_context(worker(tmp_path, **given_)) for _ in range(WORKERS)]
            await say(bus, reordered(said, Random(7))[:4], Random(7))
            async with asyncio.timeout(60):
                while not await scene.find("alarm"):
                    await asyncio.sleep(0.05)
            first.kill()
            await say(bus, reordered(said, Random(7))[4:], Random(7))
            async with asyncio.timeout(60):
                while await _found(scene) != left(alone) or not await _all_is_said(scene):
                    await asyncio.sleep(0.2)
            await hold(scene)
        assert await bus.parked() == []
        await bus.close()
    await store.close()


async def _found(scene: Scene) -> dict[str, Any]:
    try:
        return left(await outcome(scene))
    except KeyError:  # in the midst of a look
        return {}


async def _all_is_said(scene: Scene) -> bool:
    """Whether customers have heard what their records say: that comes after."""
    said = {note.body["text"] for note in await scene.find("customerNotification")}
    records = await scene.find("affectedParty")
    return all(entry["text"] in said for record in records for entry in record.body["activity"])
