"""An audit record that was edited, deleted, moved, inserted or cut off is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.core import audit
from convergedon.core.audit import KIND, Audit, digest, verify
from convergedon.core.errors import Unavailable
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.store import Record


async def written(count: int) -> tuple[MemoryStore, MemoryBus, list[Record]]:
    store, bus = MemoryStore([KIND]), MemoryBus()
    writer = Audit(store, bus, "test")
    for number in range(count):
        writer.record("order.completed", "acme", "vendor", f"productOrder/{number}", "done", number=number)
    await writer.stop()
    return store, bus, await store.find(KIND.name, {}, sort=[("id", 1)])


async def kept(records: Sequence[Record]) -> MemoryStore:
    """A store that holds these records and nothing else."""
    store = MemoryStore([KIND])
    await store.append(records)
    return store


def edited(record: Record, **members: Any) -> Record:
    return replace(record, body={**record.body, **members})


def rechained(records: Sequence[Record]) -> list[Record]:
    """The records with all hashes made anew, as one would who knows how they are made."""
    previous, found = audit.START, []
    for record in records:
        body = {**record.body, "previous": previous}
        previous = body["hash"] = digest(previous, body)
        found.append(replace(record, body=body))
    return found


async def test_whole_chains_are_whole() -> None:
    """Nothing is reported where nothing was done."""
    store, bus, records = await written(5)

    assert await verify(store, bus) == (5, None)
    assert [r.body["sequence"] for r in records] == [1, 2, 3, 4, 5]
    assert records[0].body["trace"] == ""


async def test_two_writers_have_chains_of_their_own() -> None:
    """Processes do not wait for each other."""
    store, bus = MemoryStore([KIND]), MemoryBus()
    for _ in range(2):
        writer = Audit(store, bus, "worker")
        writer.record("order.completed", "acme", "vendor", "productOrder/1", "done")
        await writer.stop()

    assert await verify(store, bus) == (2, None)


@pytest.mark.parametrize(
    "members",
    [
        {"outcome": "refused"},
        {"subject": "somebody"},
        {"tenant": "globex"},
        {"time": 0},
        {"detail": {}},
        {"trace": "1" * 32},
        {"hash": "0" * 64},
        {"previous": "0" * 63 + "1"},
        {"added": True},
    ],
)
@pytest.mark.parametrize("place", [0, 2, 4])
async def test_an_edited_record_is_named(members: Mapping[str, Any], place: int) -> None:
    """Whatever was edited, in whichever record."""
    _, bus, records = await written(5)
    records[place] = edited(records[place], **members)

    count, wrong = await verify(await kept(records), bus)
    assert count == 5
    assert wrong
    assert f"record {place + 1} of {records[0].body['writer']} was changed" in wrong


async def test_a_record_under_another_tenant_is_named() -> None:
    """The tenant by which it is found is the tenant that it tells."""
    _, bus, records = await written(3)
    records[1] = replace(records[1], tenant="globex")

    _, wrong = await verify(await kept(records), bus)
    assert wrong
    assert "record 2 of" in wrong


@pytest.mark.parametrize("place", [0, 2, 4])
async def test_a_deleted_record_is_named(place: int) -> None:
    """At the beginning, in the middle and at the end."""
    _, bus, records = await written(5)
    del records[place]

    _, wrong = await verify(await kept(records), bus)
    assert wrong
    assert "missing" in wrong


async def test_records_that_changed_places_are_named() -> None:
    """Also when they are given each other's ids."""
    _, bus, records = await written(5)
    second, third = records[1:3]
    records[1:3] = [replace(third, id=second.id), replace(second, id=third.id)]

    _, wrong = await verify(await kept(records), bus)
    assert wrong
    assert "record 2 of" in wrong


async def test_an_inserted_record_is_named() -> None:
    """A record between two others moves all that follow, also when every hash is made anew."""
    _, bus, records = await written(5)
    forged = [*records[:2], edited(records[2], on="productOrder/7"), *records[2:]]
    writer = records[0].body["writer"]
    numbered = [
        replace(record, id=f"{writer}:{place:012d}", body={**record.body, "sequence": place})
        for place, record in enumerate(forged, 1)
    ]

    for chain in (numbered, rechained(numbered)):
        _, wrong = await verify(await kept(chain), bus)
        assert wrong


@pytest.mark.parametrize("left", [0, 1, 4])
async def test_a_cut_tail_shows(left: int) -> None:
    """The bus keeps how far each chain had come, where nobody can delete it."""
    _, bus, records = await written(5)

    _, wrong = await verify(await kept(records[:left]), bus)
    assert wrong
    assert f"records after {left} of" in wrong
    assert "5 were written" in wrong


async def test_a_chain_made_anew_is_not_the_one_that_was_anchored() -> None:
    """Who edits a record and makes all hashes anew still cannot change the anchor."""
    _, bus, records = await written(5)
    records[1] = edited(records[1], outcome="refused")

    _, wrong = await verify(await kept(rechained(records)), bus)
    assert wrong
    assert "anchored" in wrong


@given(st.data())
def test_no_other_list_of_the_records_is_whole(data: st.DataObject) -> None:
    """Any records, in any number and any order of ids, that are not exactly those written, are noticed."""

    async def check() -> None:
        _, bus, records = await written(4)
        order = data.draw(st.permutations(range(4)))
        taken = data.draw(st.lists(st.sampled_from(order), unique=True))
        if taken == [0, 1, 2, 3]:
            return
        forged = [replace(records[number], id=records[place].id) for place, number in enumerate(taken)]

        assert (await verify(await kept(forged), bus))[1]

    asyncio.run(check())


class Away(MemoryBus):
    """A bus that cannot be reached for its first publishes."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def publish(
        self, subject: str, body: Mapping[str, Any], id: str, headers: Mapping[str, str] | None = None
    ) -> None:
        if self.times:
            self.times -= 1
            raise Unavailable("the bus is away")
        await super().publish(subject, body, id, headers)


async def test_an_anchor_is_kept_until_the_bus_takes_it() -> None:
    """A bus that was away when the last batch was stored does not leave the tail free to be cut."""
    store, bus = MemoryStore([KIND]), Away(1)
    writer = Audit(store, bus, "test")
    await writer.start()
    writer.record("order.completed", "acme", "vendor", "productOrder/1", "done")
    async with asyncio.timeout(5):
        while not await bus.read("audit.>"):
            await asyncio.sleep(0.01)
    await writer.stop()

    assert (await verify(await kept([]), bus))[1]
    assert await verify(store, bus) == (1, None)


async def test_what_was_recorded_is_stored_at_the_end() -> None:
    """Stopping leaves nothing behind, however much was recorded last."""
    store, bus, _ = await written(audit.BATCH * 2 + 1)

    assert await verify(store, bus) == (audit.BATCH * 2 + 1, None)
