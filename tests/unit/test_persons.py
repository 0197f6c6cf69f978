"""Persons are told by references that lead to nobody once their key is gone."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from convergedon.core import persons
from convergedon.core.audit import KIND, KINDS, Audit
from convergedon.core.errors import NotFound, Unavailable
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.persons import REFERENCE, Persons
from convergedon.core.relay import Relay
from convergedon.core.verification import Verified, verify

MARIA = "maria.huber@acme.example"


async def recorded(store: MemoryStore, bus: MemoryBus, subject: str = MARIA, **detail: Any) -> dict[str, Any]:
    """What is stored of one record."""
    before = await store.count(KIND.name, {})
    writer = Audit(store, bus, "test")
    writer.record("call.create", "acme", subject, "productOrder/1", "refused", **detail)
    await writer.stop()
    assert await store.count(KIND.name, {}) == before + 1
    (found,) = await store.find(KIND.name, {"body.writer": writer.writer})
    return dict(found.body)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(KINDS)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


async def test_no_record_holds_a_name(store: MemoryStore, bus: MemoryBus) -> None:
    """Neither as its subject, nor in a member that is somebody's, nor quoted in a sentence."""
    said = await recorded(
        store, bus, reasons=[f"{MARIA} may not"], parties=["northwind"], other={"owner": "northwind"}, count=1
    )

    assert REFERENCE.fullmatch(said["subject"])
    assert not any(name in orjson.dumps(said).decode() for name in (MARIA, "northwind"))
    assert said["detail"]["count"] == 1


async def test_it_is_read_in_clear(store: MemoryStore, bus: MemoryBus) -> None:
    """By who reads records, as long as the name is known."""
    detail = {"reasons": [f"{MARIA} may not"], "parties": ["northwind"]}
    said = await recorded(store, bus, **detail)

    (told,) = await Persons(store).told("acme", [said])
    assert (told["subject"], told["detail"]) == (MARIA, detail)
    assert (await Persons(store).told("globex", [said]))[0]["subject"] == said["subject"]


async def test_everybody_has_one_reference_whoever_writes(store: MemoryStore, bus: MemoryBus) -> None:
    """Also when several processes meet somebody for the first time at once; another tenant's is another's."""
    several = [Persons(store) for _ in range(5)]

    found = await asyncio.gather(*(one.references([("acme", MARIA)]) for one in several))
    other = await several[0].references([("globex", MARIA)])

    assert len({one["acme", MARIA] for one in found}) == 1
    assert other["globex", MARIA] != found[0]["acme", MARIA]


async def test_the_gateway_a_device_and_nobody_are_no_persons(store: MemoryStore, bus: MemoryBus) -> None:
    for subject in ("convergedon", "", "device/pe1"):
        assert (await recorded(store, bus, subject))["subject"] == subject
    assert await store.count(persons.KIND.name, {}) == 0


async def test_an_erased_person_is_in_no_record_and_every_chain_is_whole(store: MemoryStore, bus: MemoryBus) -> None:
    """What was recorded stays, the reference leads nowhere, and whoever comes again under the name is somebody new."""
    said = await recorded(store, bus, parties=[MARIA])
    people = Persons(store)

    assert await people.erase("acme", MARIA) == said["subject"]

    assert (await people.told("acme", [said]))[0] == said
    assert MARIA not in orjson.dumps([one.body async for one in everything(store)]).decode()
    assert await verify(store, bus) == Verified(1)
    with pytest.raises(NotFound):
        await people.erase("acme", MARIA)
    with pytest.raises(Unavailable):
        await people.references([("acme", MARIA)])
    await relayed(store, bus)
    assert (await people.references([("acme", MARIA)]))["acme", MARIA] != said["subject"]


async def everything(store: MemoryStore) -> Any:
    for kind in KINDS:
        for record in await store.find(kind.name, {}):
            yield record


async def relayed(store: MemoryStore, bus: MemoryBus) -> None:
    """Take away what was deleted, as a relay does."""
    relay = Relay(store, bus, 0)
    await relay.start()
    async with asyncio.timeout(5):
        while await store.unsent(-1):
            await asyncio.sleep(0.01)
    await relay.stop()


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (MARIA, 1),
        ({"$eq": MARIA}, 1),
        ({"$in": [MARIA, "convergedon"]}, 2),
        ({"$ne": MARIA}, 2),
        ({"$nin": [MARIA, "convergedon"]}, 1),
        ("somebody else", 0),
    ],
)
async def test_records_are_found_by_the_name(store: MemoryStore, bus: MemoryBus, condition: Any, found: int) -> None:
    for subject in (MARIA, "northwind", "convergedon"):
        await recorded(store, bus, subject)

    for where in ({"body.subject": condition}, {"$and": [{"$or": [{"body.subject": condition}]}]}):
        asked = await Persons(store).asked("acme", where)
        assert await store.count(KIND.name, asked) == found
