"""An audit record that was edited, deleted, moved, inserted or cut off is noticed."""

from __future__ import annotations

import asyncio
import copy
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from convergedon.core import audit, checkpoints
from convergedon.core.audit import KIND, KINDS, START, Audit, canonical, digest, record_of
from convergedon.core.bus import Message
from convergedon.core.checkpoints import Notary
from convergedon.core.errors import Stale, Unavailable
from convergedon.core.memory import MemoryBus, MemoryStore, as_said
from convergedon.core.store import Record
from convergedon.core.verification import COUNTS, PIECE, Verified, verify

KEY = Ed25519PrivateKey.generate()
Document = dict[str, Any]


class Doctored(MemoryStore):
    """A store that holds exactly these documents, however they came there."""

    def __init__(self, documents: Sequence[Document]) -> None:
        super().__init__(KINDS)
        self._documents = documents

    async def kept(self, kind: str, ids: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        return [document for document in self._documents if document["id"] in ids]

    async def number(self, kind: str) -> int:
        return len(self._documents)

    async def ids(self, kind: str) -> AsyncIterator[Sequence[Any]]:
        yield [document["id"] for document in self._documents]


@dataclass
class World:
    """Everything that an audit record consists of: documents, the stream of anchors, the file."""

    documents: list[Document]
    messages: list[Message]
    file: bytes

    async def verified(self) -> Verified:
        bus = MemoryBus()
        bus._streams["AUDIT"] = [*map(as_said, self.messages)]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "anchors"
            file.write_bytes(self.file)
            return await verify(Doctored(self.documents), bus, KEY.public_key(), file, late=0)

    @property
    def wrong(self) -> str:
        return asyncio.run(self.verified()).wrong


async def written(count: int, writers: int = 1, batch: int = 3) -> World:
    """The record of some writers, checkpoints after each batch, as a store and a bus then have it."""
    store, bus = MemoryStore(KINDS), MemoryBus()
    with tempfile.TemporaryDirectory() as folder:
        notary = Notary(bus, KEY, Path(folder) / "anchors")
        for number in range(writers):
            writer = Audit(store, bus, f"test{number}")
            for done in range(count):
                writer.record("order.completed", "acme", "vendor", f"productOrder/{done}", "done", number=done)
                if done % batch == batch - 1:
                    await writer._flush()
                    await notary.attest()
            await writer.stop()
        await notary.stop()
        documents = [dict(one) async for ids in store.ids(KIND.name) for one in await store.kept(KIND.name, ids)]
        messages = [one.message for one in bus._streams["AUDIT"]]
        return World(documents, messages, (Path(folder) / "anchors").read_bytes())


@cache
def whole() -> World:
    return asyncio.run(written(7, writers=2))


@pytest.fixture
def world() -> World:
    return copy.deepcopy(whole())


def rechained(documents: list[Document]) -> None:
    """All hashes made anew, as one would who knows how they are made."""
    previous = START
    for document in documents:
        body = document["body"]
        body["previous"] = previous
        previous = body["hash"] = digest(previous, canonical(body))


def numbered(documents: list[Document]) -> None:
    for place, document in enumerate(documents, 1):
        document["body"]["sequence"] = place
        document["id"] = f"{document['body']['writer']}:{place:012d}"


def test_what_nobody_touched_is_whole(world: World) -> None:
    """Nothing is reported where nothing was done."""
    found = asyncio.run(world.verified())

    assert (found.records, found.wrong, found.unstored) == (14, "", 0)
    assert found.checkpoints == len(world.file.splitlines()) >= 4
    assert sorted({one["body"]["sequence"] for one in world.documents}) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "members",
    [
        {"outcome": "refused"},
        {"subject": "somebody"},
        {"tenant": "globex"},
        {"time": "2026-01-01T00:00:00.000Z"},
        {"detail": {}},
        {"trace": "1" * 32},
        {"hash": "0" * 64},
        {"previous": "0" * 63 + "1"},
        {"added": True},
    ],
)
@pytest.mark.parametrize("place", [0, 2, 6])
def test_an_edited_record_is_named(world: World, members: Mapping[str, Any], place: int) -> None:
    """Whatever was edited, in whichever record."""
    body = world.documents[place]["body"]
    body.update(members)

    assert f"record {place + 1} of {body['writer']} was changed" in world.wrong


@pytest.mark.parametrize(
    "members",
    [{"tenant": "globex"}, {"facts": {}}, {"facts": {"at": {"time": 0}}}, {"revision": 2}, {"outbox": [{}]}, {"x": 1}],
)
def test_what_stands_beside_a_record_is_part_of_it(world: World, members: Mapping[str, Any]) -> None:
    """A record cannot be hidden in another tenant or another time, and nothing hung onto it."""
    world.documents[1].update(members)

    assert "record 2 of" in world.wrong


@pytest.mark.parametrize("place", [0, 2, 6])
def test_a_deleted_record_is_named(world: World, place: int) -> None:
    """At the beginning, in the middle and at the end."""
    gone = world.documents.pop(place)
    writer = gone["body"]["writer"]

    words = f"record {place + 1} of {writer} is missing" if place < 6 else f"records after 6 of {writer} are missing"
    assert words in world.wrong


def test_records_that_changed_places_are_named(world: World) -> None:
    """Also when they are given each other's ids."""
    second, third = world.documents[1:3]
    second["id"], third["id"] = third["id"], second["id"]

    assert "record 2 of" in world.wrong


def test_an_inserted_record_is_named(world: World) -> None:
    """A record between two others moves all that follow, also when every hash is made anew."""
    added = copy.deepcopy(world.documents[2])
    added["body"]["on"] = "productOrder/7"
    chain = [*world.documents[:2], added, *world.documents[2:7]]
    numbered(chain)
    world.documents[:7] = chain
    assert "record 3 of" in world.wrong

    rechained(chain)
    assert "record 3 of" in world.wrong


@pytest.mark.parametrize("left", [0, 1, 6])
def test_a_cut_tail_shows(world: World, left: int) -> None:
    """The bus keeps how far each chain had come, where nobody can delete it."""
    del world.documents[left:7]

    assert f"records after {left} of" in world.wrong
    assert "7 were written" in world.wrong


def test_a_chain_made_anew_is_not_the_one_that_was_anchored(world: World) -> None:
    """Who edits a record and makes all hashes anew still cannot change the anchor."""
    world.documents[1]["body"]["outcome"] = "refused"
    rechained(world.documents[:7])

    assert "anchored" in world.wrong


def test_a_record_behind_the_last_anchor_was_added(world: World) -> None:
    """What continues a chain that has ended, by the book, was still written by nobody."""
    added = copy.deepcopy(world.documents[6])
    added["body"]["previous"] = added["body"]["hash"]
    chain = [*world.documents[:7], added]
    numbered(chain)
    added["body"]["hash"] = digest(added["body"]["previous"], canonical(added["body"]))
    world.documents.append(added)

    assert "record 8 of" in world.wrong
    assert "was never announced" in world.wrong


def test_a_chain_of_nobody_is_named(world: World) -> None:
    """A chain that is whole in itself, of a writer without an anchor."""
    forged = copy.deepcopy(world.documents[:3])
    for document in forged:
        document["body"]["writer"] = "gateway-000000000000"
    numbered(forged)
    rechained(forged)
    world.documents += forged

    assert "record 1 of gateway-000000000000" in world.wrong


@pytest.mark.parametrize("id", ["{writer}:000000000000", "{writer}:0000000000001", "{writer}:" + "9" * 5000, "x", 7])
def test_what_is_under_no_records_id_is_named(world: World, id: Any) -> None:
    """Whatever the id is: one before the first, one that looks like another's, none that anybody writes."""
    added = copy.deepcopy(world.documents[0])
    added["id"] = id.format(writer=added["body"]["writer"]) if isinstance(id, str) else id
    world.documents.append(added)

    assert world.wrong == f"record {added['id']} is of no writer"


class Watched(MemoryStore):
    """A store that tells how much was asked of it at once, and in which something happens at each count."""

    most = 0
    counted = 0
    walked = 0

    async def kept(self, kind: str, ids: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        self.most = max(self.most, len(ids))
        return await super().kept(kind, ids)

    async def number(self, kind: str) -> int:
        self.counted += 1
        await self.happens()
        return await super().number(kind)

    async def happens(self) -> None: ...

    async def ids(self, kind: str) -> AsyncIterator[Sequence[Any]]:
        async for ids in super().ids(kind):
            self.walked += len(ids)
            yield ids


async def test_no_more_than_a_piece_is_read_at_once() -> None:
    """However long the chains are; and where nothing was added no question is asked for everything."""
    store, bus = Watched(KINDS), MemoryBus()
    for name in ("gateway", "worker"):
        writer = Audit(store, bus, name)
        for number in range(PIECE + 100):
            writer.record("order.completed", "acme", "vendor", f"productOrder/{number}", "done")
        await writer.stop()

    assert await verify(store, bus) == Verified(2 * (PIECE + 100))
    assert (store.most, store.counted, store.walked) == (PIECE, 1, 0)


@pytest.mark.parametrize("times", [1, 3, COUNTS])
@pytest.mark.parametrize("is_forged", [False, True])
async def test_who_writes_meanwhile_hides_nothing(times: int, is_forged: bool) -> None:
    """Nor is it taken for a stranger; if somebody writes at each count all ids are gone through."""
    store, bus = Watched(KINDS), MemoryBus()
    writer = Audit(store, bus, "gateway")

    async def write() -> None:
        if store.counted <= times:
            writer.record("order.completed", "acme", "vendor", f"productOrder/{store.counted}", "done")
            await writer._flush()

    await write()
    store.happens = write  # type: ignore[method-assign]
    if is_forged:
        body = copy.deepcopy(dict((await store.find(KIND.name, {}))[0].body))
        body["hash"] = digest(START, canonical(body := {**body, "writer": "nobody"}))
        await store.append([record_of(body)])

    wrong = "record 1 of nobody is of a writer that was never announced: it was added" if is_forged else ""
    assert await verify(store, bus) == Verified(times + 1 + is_forged, wrong)
    assert bool(store.walked) == (is_forged or times == COUNTS)


def test_a_checkpoint_by_another_key_is_forged(world: World) -> None:
    """Also one that says the same."""
    other = Ed25519PrivateKey.generate()
    place = next(i for i, one in enumerate(world.messages) if one.subject == checkpoints.SUBJECT)
    said = world.messages[place].body
    world.messages[place] = replace(
        world.messages[place], body={**said, "signature": other.sign(said["text"].encode()).hex()}
    )

    assert "checkpoint 1 was changed or forged" in world.wrong


def bytewise(value: Any, data: st.DataObject) -> Any:
    """The value with one byte of its JSON changed to another, so that it says something else."""
    text = orjson.dumps(value)
    place = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.integers(32, 126).filter(lambda byte: byte != text[place]))
    try:
        edited = orjson.loads(text[:place] + bytes([byte]) + text[place + 1 :])
    except orjson.JSONDecodeError:
        assume(False)
    assume(orjson.dumps(edited, option=orjson.OPT_SORT_KEYS) != orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
    return edited


def edit_a_record(world: World, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(world.documents) - 1))
    edited = bytewise(world.documents[place], data)
    assume(isinstance(edited, dict))
    world.documents[place] = {"id": None, **edited}


def remove_records(world: World, data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.integers(0, len(world.documents) - 1), min_size=1))
    world.documents = [one for place, one in enumerate(world.documents) if place not in gone]


def cut_a_tail(world: World, data: st.DataObject) -> None:
    writers = sorted({one["body"]["writer"] for one in world.documents})
    writer, left = data.draw(st.sampled_from(writers)), data.draw(st.integers(0, 6))
    world.documents = [
        one for one in world.documents if one["body"]["writer"] != writer or one["body"]["sequence"] <= left
    ]


def exchange_records(world: World, data: st.DataObject) -> None:
    places = data.draw(st.permutations(range(len(world.documents))))
    ids = [one["id"] for one in world.documents]
    assume([ids[place] for place in places] != ids)
    for document, place in zip(world.documents, places, strict=True):
        document["id"] = ids[place]


def insert_a_record(world: World, data: st.DataObject) -> None:
    """One more of a chain, all hashes made anew or not."""
    writer = world.documents[data.draw(st.integers(0, len(world.documents) - 1))]["body"]["writer"]
    chain = [one for one in world.documents if one["body"]["writer"] == writer]
    rest = [one for one in world.documents if one["body"]["writer"] != writer]
    place = data.draw(st.integers(0, len(chain)))
    chain.insert(place, copy.deepcopy(chain[min(place, len(chain) - 1)]))
    numbered(chain)
    if data.draw(st.booleans()):
        rechained(chain)
    world.documents = rest + chain


def edit_an_anchor(world: World, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(world.messages) - 1))
    message = world.messages[place]
    edited = bytewise({"subject": message.subject, "body": message.body}, data)
    assume(isinstance(edited.get("subject"), str) and isinstance(edited.get("body"), dict))
    assume(edited["subject"].startswith("audit."))
    world.messages[place] = replace(message, subject=edited["subject"], body=edited["body"])


def remove_anchors(world: World, data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.integers(0, len(world.messages) - 1), min_size=1))
    world.messages = [one for place, one in enumerate(world.messages) if place not in gone]


def exchange_anchors(world: World, data: st.DataObject) -> None:
    """Two that say the same kind of thing: between chains there is no order, and none is claimed."""
    alike: dict[Any, list[int]] = {}
    for place, message in enumerate(world.messages):
        alike.setdefault((message.body.get("writer"), message.body.get("stored")), []).append(place)
    group = data.draw(st.sampled_from([places for places in alike.values() if len(places) > 1]))
    one, other = data.draw(st.lists(st.sampled_from(group), min_size=2, max_size=2, unique=True))
    first, second = world.messages[one], world.messages[other]
    world.messages[one] = replace(second, position=first.position)
    world.messages[other] = replace(first, position=second.position)


def edit_the_file(world: World, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(world.file) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != world.file[place]))
    world.file = world.file[:place] + bytes([byte]) + world.file[place + 1 :]


def cut_the_file(world: World, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(world.file) - 1))
    end = data.draw(st.integers(begin + 1, len(world.file)))
    world.file = world.file[:begin] + world.file[end:]


TAMPERING = (
    edit_a_record,
    remove_records,
    cut_a_tail,
    exchange_records,
    insert_a_record,
    edit_an_anchor,
    remove_anchors,
    exchange_anchors,
    edit_the_file,
    cut_the_file,
)


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda one: one.__name__)
@given(data=st.data())
@effort(max_examples=100, deadline=None)
def test_nothing_is_changed_unseen(tamper: Any, data: st.DataObject) -> None:
    """Any one byte, any deletion, order, insertion and cut; in records, anchors, checkpoints and the file."""
    world = copy.deepcopy(whole())
    tamper(world, data)

    assert world.wrong


class Away(MemoryBus):
    """A bus that cannot be reached for its first publishes."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def publish(self, *args: Any, **named: Any) -> None:
        if self.times:
            self.times -= 1
            raise Unavailable("the bus is away")
        await super().publish(*args, **named)


async def test_records_wait_for_a_bus_that_is_away() -> None:
    """They are written as they were, once, when it is back."""
    store, bus = MemoryStore(KINDS), Away(1)
    writer = Audit(store, bus, "test")
    await writer.start()
    writer.record("order.completed", "acme", "vendor", "productOrder/1", "done")
    async with asyncio.timeout(5):
        while len(await bus.read("audit.>")) < 2:
            await asyncio.sleep(0.01)
    await writer.stop()

    assert await verify(store, bus) == Verified(1)


class Dying(MemoryStore):
    """A store whose process is killed while it takes a batch: of it only some arrives."""

    taken = 0

    async def append(self, records: Sequence[Record]) -> None:
        await super().append(records[: self.taken])
        raise Unavailable("killed")


@pytest.mark.parametrize("taken", [0, 2, 5])
async def test_a_killed_process_is_no_tampering(taken: int) -> None:
    """What it had announced and not stored is missing, counted, and no fault; what it had stored is checked."""
    store, bus = Dying(KINDS), MemoryBus()
    store.taken = taken
    writer = Audit(store, bus, "test")
    for number in range(5):
        writer.record("order.completed", "acme", "", f"productOrder/{number}", "done")
    await writer.stop()

    assert await verify(store, bus) == Verified(taken, unstored=5 - taken)


async def test_what_was_recorded_is_stored_at_the_end() -> None:
    """Stopping leaves nothing behind, however much was recorded last."""
    store, bus = MemoryStore(KINDS), MemoryBus()
    writer = Audit(store, bus, "test")
    for number in range(audit.BATCH * 2 + 1):
        writer.record("order.completed", "acme", "vendor", f"productOrder/{number}", "done")
    await writer.stop()

    assert await verify(store, bus) == Verified(audit.BATCH * 2 + 1)


async def test_what_finds_no_place_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is away for long does not fill the memory, and how many records that cost is recorded."""
    monkeypatch.setattr(audit, "MOST_WAITING", 10)
    store, bus = MemoryStore(KINDS), MemoryBus()
    writer = Audit(store, bus, "test")
    for number in range(13):
        writer.record("order.completed", "acme", "", f"productOrder/{number}", "done")
    await writer.stop()

    records = await store.find(KIND.name, {}, [("id", 1)])
    assert [records[-1].body["what"], records[-1].body["detail"]] == ["audit.lost", {"count": 3}]
    assert await verify(store, bus) == Verified(11)


@pytest.mark.parametrize(
    "detail",
    [{"n": 1 << 70}, {"n": float("nan")}, {"words": "half \ud800"}, {"when": Path("x")}, {"words": "nul \0"},
     {"words": "long " * 20_000}, {"deep": {"\0": [1, {"a": ("b",)}]}}],
)  # fmt: skip
async def test_whatever_is_recorded_can_be_stored(detail: dict[str, Any]) -> None:
    """A record that cannot be written would hold up all that come after it."""
    store, bus = MemoryStore(KINDS), MemoryBus()
    writer = Audit(store, bus, "test")
    writer.record("order.completed", "acme", "vendor", "productOrder/1", "done", **detail)
    await writer.stop()

    assert await verify(store, bus) == Verified(1)


async def test_the_batches_of_an_adapter_are_stored_by_a_worker() -> None:
    """Once, however often they come, in a chain of the adapter's own."""
    store, bus = MemoryStore(KINDS), MemoryBus()
    writer = Audit(None, bus, "netconf")
    for number in range(audit.CARRIED + 1):
        writer.record("device.rpc", "acme", "convergedon", "device/pe1", "done", rpc=str(number))
    await writer.stop()
    assert (await verify(store, bus)).unstored == audit.CARRIED + 1

    taking = bus.consume(audit.taking(store, bus))
    async with asyncio.timeout(5):
        while (await verify(store, bus)).unstored:
            await asyncio.sleep(0.01)
    taking.cancel()

    assert await verify(store, bus) == Verified(audit.CARRIED + 1)


async def test_workers_make_one_chain_of_checkpoints() -> None:
    """Who comes second at the same place is refused, and makes the next one."""
    store, bus = MemoryStore(KINDS), MemoryBus()
    notaries = [Notary(bus, KEY), Notary(bus, KEY)]
    for number in range(3):
        writer = Audit(store, bus, "test")
        writer.record("order.completed", "acme", "", f"productOrder/{number}", "done")
        await writer.stop()
        made = await asyncio.gather(*(notary.attest() for notary in notaries), return_exceptions=True)
        assert sum(one is True for one in made) == 1
        assert all(isinstance(one, bool | Stale) for one in made)

    assert await verify(store, bus, KEY.public_key()) == Verified(3, checkpoints=3)
    assert not await notaries[0].attest()


async def test_a_worker_with_another_key_makes_no_checkpoint() -> None:
    """It says what to set, instead of making a chain that no one key can check."""
    store, bus = MemoryStore(KINDS), MemoryBus()
    for key in (KEY, Ed25519PrivateKey.generate()):
        writer = Audit(store, bus, "test")
        writer.record("order.completed", "acme", "", "productOrder/1", "done")
        await writer.stop()
        await Notary(bus, key).stop()

    assert await verify(store, bus, KEY.public_key()) == Verified(2, checkpoints=1)


async def test_a_torn_line_of_the_file_is_written_again(tmp_path: Path) -> None:
    """Its writer died over it: the next one goes on behind the last whole line."""
    store, bus, file = MemoryStore(KINDS), MemoryBus(), tmp_path / "anchors"
    notary = Notary(bus, KEY, file)
    for _ in range(2):
        writer = Audit(store, bus, "test")
        writer.record("order.completed", "acme", "", "productOrder/1", "done")
        await writer.stop()
        await notary.attest()
    file.write_bytes(file.read_bytes()[:-5])
    assert "ends before checkpoint 2" in (await verify(store, bus, KEY.public_key(), file, late=0)).wrong

    await Notary(bus, KEY, file).attest()

    assert await verify(store, bus, KEY.public_key(), file, late=0) == Verified(2, checkpoints=2)


async def test_several_workers_keep_one_file(tmp_path: Path) -> None:
    """Each checkpoint once, in order, whoever made it; what somebody cut off is written again."""
    store, bus, file = MemoryStore(KINDS), MemoryBus(), tmp_path / "anchors"
    notaries = [Notary(bus, KEY, file) for _ in range(3)]

    async def round_() -> None:
        writer = Audit(store, bus, "test")
        writer.record("order.completed", "acme", "", "productOrder/1", "done")
        await writer.stop()
        for notary in notaries:
            await notary._try()

    for _ in range(4):
        await round_()
    assert await verify(store, bus, KEY.public_key(), file, late=0) == Verified(4, checkpoints=4)

    file.write_bytes(b"".join(file.read_bytes().splitlines(True)[:1]))
    for _ in range(2):
        await round_()

    assert await verify(store, bus, KEY.public_key(), file, late=0) == Verified(6, checkpoints=6)
