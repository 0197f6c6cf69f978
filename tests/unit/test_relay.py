"""From the outbox to the bus: nothing lost, nothing out of order, the same ids again after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from convergedon.core.errors import Unavailable
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.relay import Relay
from convergedon.core.store import Kind, Outgoing, Record, Unsent

SUBJECT = "event.0.acme.Thing"


class Unsteady(MemoryBus):
    """A bus that can be away, and remembers every id that it was given, also those that it had already."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.given: list[str] = []

    async def publish(
        self, subject: str, body: Mapping[str, Any], id: str, headers: Mapping[str, str] | None = None
    ) -> None:
        if self.away:
            raise Unavailable("the bus is away")
        self.given.append(id)
        await super().publish(subject, body, id, headers)

    async def ids(self) -> list[str]:
        return [body["id"] for body in await self.read("event.>")]


class Forgetful(MemoryStore):
    """A store that cannot mark messages sent, as if the process had died before it did."""

    deaf = False

    async def sent(self, done: Iterable[Unsent]) -> None:
        if self.deaf:
            raise Unavailable("the store is away")
        await super().sent(done)


def a_store() -> Forgetful:
    return Forgetful([Kind("thing")])


def message(id: str) -> Outgoing:
    return Outgoing(id, SUBJECT, {"id": id})


def thing(id: str = "1") -> Record:
    return Record("thing", id, "acme", {})


@asynccontextmanager
async def running(store: MemoryStore, bus: MemoryBus, sweep_after: float = 0.05) -> AsyncIterator[Relay]:
    relay = Relay(store, bus, sweep_after)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


async def test_what_is_written_is_published_and_forgotten() -> None:
    """At once, without waiting for the sweeper."""
    store, bus = a_store(), Unsteady()
    async with running(store, bus, 60):
        await store.create(thing(), [message("a"), message("b")])
        await until(lambda: bus.given == ["a", "b"])
        async with asyncio.timeout(10):
            while await store.unsent(-1):
                await asyncio.sleep(0.01)


async def test_nothing_is_lost_while_the_bus_is_away() -> None:
    """It waits in the store, and each record's messages come in their order."""
    store, bus = a_store(), Unsteady()
    bus.away = True
    async with running(store, bus):
        records = {id: await store.create(thing(id), [message(f"{id}0")]) for id in "xyz"}
        await asyncio.sleep(0.1)
        for step in (1, 2):
            for id, record in records.items():
                records[id] = await store.replace(record, [message(f"{id}{step}")])
        await asyncio.sleep(0.1)
        assert await bus.ids() == []
        bus.away = False
        await until(lambda: len(set(bus.given)) == 9)

    for id in "xyz":
        assert [said for said in await bus.ids() if said[0] == id] == [f"{id}0", f"{id}1", f"{id}2"]
    assert await store.unsent(-1) == []


async def test_order_is_kept_when_the_bus_comes_and_goes() -> None:
    """A later change never overtakes an earlier one, however often publishing fails between."""
    store, bus = a_store(), Unsteady()
    async with running(store, bus):
        await store.create(thing(), [message("00")])
        for number in range(1, 30):
            bus.away = number % 3 != 0
            await store.replace(await store.get("thing", "acme", "1"), [message(f"{number:02}")])
            await asyncio.sleep(0.004)
        bus.away = False
        await until(lambda: "29" in bus.given)

    assert await bus.ids() == [f"{number:02}" for number in range(30)]


async def test_a_crash_between_publishing_and_marking_gives_the_same_ids_again() -> None:
    """The bus drops what it has by its id: who listens hears it once."""
    store, bus = a_store(), Unsteady()
    store.deaf = True
    async with running(store, bus):
        await store.create(thing(), [message("a"), message("b")])
        await until(lambda: len(bus.given) == 2)
    store.deaf = False
    async with running(store, bus):
        await until(lambda: len(bus.given) == 4)

    assert bus.given == ["a", "b", "a", "b"]
    assert await bus.ids() == ["a", "b"]
    assert await store.unsent(-1) == []


async def test_the_sweeper_takes_what_a_dead_process_left() -> None:
    """Another process publishes it, in the order in which it was written."""
    store, bus = a_store(), Unsteady()
    record = await store.create(thing(), [message("a")])
    await store.replace(record, [message("b")])
    await store.create(thing("2"), [message("c")])

    async with running(store, bus):
        await until(lambda: len(bus.given) == 3)

    assert [id for id in bus.given if id != "c"] == ["a", "b"]
    assert await store.unsent(-1) == []


async def test_what_is_fresh_is_left_to_the_one_who_wrote_it() -> None:
    """A sweeper that took everything at once would do all work twice."""
    store, bus = a_store(), Unsteady()
    await store.create(thing(), [message("a")])

    async with running(store, bus, 60):
        await asyncio.sleep(0.05)

    assert bus.given == []


async def test_the_last_message_of_a_deleted_record_goes_out() -> None:
    """And then the record is gone for good."""
    store, bus = a_store(), Unsteady()
    async with running(store, bus):
        record = await store.create(thing(), [message("a")])
        await store.delete(record, [message("b")])
        await until(lambda: bus.given[-1:] == ["b"])
        await asyncio.sleep(0.01)

    assert await bus.ids() == ["a", "b"]
    await store.create(thing())


async def test_one_bad_message_does_not_hold_up_other_records() -> None:
    """What cannot be published for one record is no reason to keep back another's."""
    store, bus = a_store(), Unsteady()
    async with running(store, bus):
        await store.create(thing("1"), [Outgoing("bad", "nowhere.0", {})])
        await store.create(thing("2"), [message("good")])
        await until(lambda: "good" in bus.given)


async def test_stopping_publishes_what_was_written() -> None:
    """A clean stop leaves nothing to the sweeper."""
    store, bus = a_store(), Unsteady()
    async with running(store, bus, 60):
        for number in range(50):
            await store.create(thing(str(number)), [message(str(number))])

    assert len(await bus.ids()) == 50
    assert await store.unsent(-1) == []
