"""Parked messages are listed, put back and let go by commands, and how much room they take is told in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from convergedon.core import app, embedded, parking, settings
from convergedon.core.audit import KIND
from convergedon.core.bus import Consumer, Message
from convergedon.core.errors import Invalid, Misconfigured, NotFound
from convergedon.core.metrics import PARKED_BYTES, PARKED_MOST
from convergedon.core.settings import Settings

MOST = 1 << 20


@pytest.fixture
async def given(tmp_path: Path) -> AsyncIterator[Settings]:
    """Settings of a system whose servers run, with room for a megabyte of parked messages; five take 0.6 of it."""
    for name in ("nats", "mongodb"):
        (tmp_path / name).mkdir()
    async with embedded.nats(tmp_path / "nats") as nats, embedded.mongodb(tmp_path / "mongodb") as mongodb:
        made = settings.load(data=tmp_path, nats_url=nats.url, mongodb_url=mongodb.url, parked_bytes=MOST)
        await park(made, 5, 125_000)
        yield made


async def park(given: Settings, count: int, size: int) -> None:
    all_of_them, told = asyncio.Event(), list[str]()

    async def refuse(message: Message) -> None:
        raise Invalid("no such thing")

    def parked(message: Message, reason: str) -> None:
        told.append(reason)
        if len(told) == count:
            all_of_them.set()

    async with app.connected(given, "test") as (_, bus):
        for number in range(count):
            body = {"tenant": "acme", "n": number, "words": "x" * size}
            await bus.publish("event.0.acme.Thing", body, f"{number}")
        taking = bus.consume(Consumer("test", "event.0.acme.Thing", refuse, parked=parked))
        await asyncio.wait_for(all_of_them.wait(), 20)
        taking.cancel()


async def numbers(given: Settings, most: int = 100) -> list[int]:
    return [one["body"]["n"] for one in await app.parked_list(given, most)]


async def test_they_are_emptied_by_hand_and_the_record_says_who_let_go_of_what(given: Settings) -> None:
    found = list(await app.parked_list(given, 2))
    gone = await app.parked_drop(given, [f"{found[1]['id']}"], False)
    async with app.connected(given, "test") as (store, _):
        (record,) = await store.find(KIND.name, {"body.what": "message.dropped"})
    left = await numbers(given)
    back = await app.parked_retry(given, [])
    rest = await numbers(given)

    assert [one["body"]["n"] for one in found] == [0, 1]
    assert gone == "1 messages are gone for good"
    assert (record.tenant, record.body["on"]) == ("acme", "event.0.acme.Thing")
    assert record.body["detail"] == {"reason": "no such thing", "parked": found[1]["id"]}
    assert left == [0, 2, 3, 4]
    assert back == "4 messages go back to where they came from"
    assert rest == []


async def test_none_is_let_go_by_mistake(given: Settings) -> None:
    for ids, everything, words in (
        ([], False, "say which parked messages are to go for good: their ids, or --all"),
        (["3"], True, "say which parked messages are to go for good: their ids, or --all"),
        (["first"], False, "an id of a parked message is a number"),
    ):
        with pytest.raises(Misconfigured, match=words):
            await app.parked_drop(given, ids, everything)
    with pytest.raises(NotFound, match="there is no parked message 99"):
        await app.parked_drop(given, ["99"], False)

    assert await numbers(given) == [0, 1, 2, 3, 4]
    assert await app.parked_drop(given, [], True) == "5 messages are gone for good"
    assert await numbers(given) == []


async def test_that_there_is_not_much_room_left_is_told_while_there_is_some(given: Settings) -> None:
    """In readiness, in the log and by numbers; a component that is in want of room is not ready when it has none."""
    async with app.connected(given, "test") as (_, bus):
        said = await app._parked(given, bus)
        with capture_logs() as logged:
            await parking.watch(bus, MOST)
        size = await bus.size("PARKED")
        await bus.drop(1)
        await bus.drop(2)
        later = await app._parked(given, bus)
    full = parking.Room(MOST - 1000, MOST)

    assert (said["state"], said["bytes"]) == ("ready", size)
    assert said["reason"].startswith("parked messages take 60% of the 1,048,576 bytes that they may: see `convergedon")
    assert [one["event"] for one in logged] == [said["reason"]]
    assert (PARKED_BYTES._value.get(), PARKED_MOST._value.get()) == (size, MOST)
    assert later.keys() == {"state", "bytes"}
    assert full.state == "full"
