"""What every store promises; the twin in memory and the real one pass the same suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from convergedon.core.errors import Conflict, Invalid, NotFound, Stale
from convergedon.core.matching import matches
from convergedon.core.memory import MemoryStore
from convergedon.core.store import GONE, HANDFUL, WALKED, Draft, Kind, MongoStore, Outgoing, Record, Store, Unsent

KINDS = [Kind("thing", ("body.state", "facts.parties"), ("facts.openKey",), sole=("facts.lock",))]


@pytest.fixture(params=["memory", "mongodb"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore(KINDS)
        return
    url = request.getfixturevalue("mongodb_url")
    real = await MongoStore(url, f"test{uuid4().hex[:8]}", KINDS).open()
    yield real
    await real.close()


def thing(id: str = "1", tenant: str = "acme", **body: object) -> Record:
    return Record("thing", id, tenant, body, {"parties": ["northwind"]})


def message(id: str) -> Outgoing:
    return Outgoing(id, "event.0.acme.Thing", {"id": id}, {"traceparent": "00-1-1-01"})


async def test_what_was_stored_is_read(store: Store) -> None:
    await store.create(thing(state="new", nested={"a.b": [1, {"$c": None}]}))

    found = await store.get("thing", "acme", "1")
    assert found.body == {"state": "new", "nested": {"a.b": [1, {"$c": None}]}}
    assert found.revision == 1


async def test_other_tenants_record_does_not_exist(store: Store) -> None:
    await store.create(thing())

    with pytest.raises(NotFound):
        await store.get("thing", "globex", "1")


async def test_what_concerns_none_of_the_parties_does_not_exist(store: Store) -> None:
    await store.create(thing())

    assert (await store.get("thing", "acme", "1", ["contoso", "northwind"])).id == "1"
    for tenant, parties in (("acme", ["contoso"]), ("acme", []), ("globex", ["northwind"])):
        with pytest.raises(NotFound):
            await store.get("thing", tenant, "1", parties)


async def test_an_id_is_stored_once(store: Store) -> None:
    await store.create(thing(state="first"))

    with pytest.raises(Conflict):
        await store.create(thing(state="second"))
    assert (await store.get("thing", "acme", "1")).body == {"state": "first"}


async def test_a_unique_fact_binds_while_it_is_set(store: Store) -> None:
    first = await store.create(thing("1").with_(facts={"openKey": "link:1"}))
    with pytest.raises(Conflict):
        await store.create(thing("2").with_(facts={"openKey": "link:1"}))

    await store.create(thing("3", tenant="globex").with_(facts={"openKey": "link:1"}))
    facts = {name: value for name, value in first.facts.items() if name != "openKey"}
    await store.replace(Record(first.kind, first.id, first.tenant, first.body, facts, first.revision))
    await store.create(thing("4").with_(facts={"openKey": "link:1"}))
    await store.create(thing("5"))
    await store.create(thing("6"))


async def test_a_sole_fact_binds_over_all_tenants_while_it_is_set(store: Store) -> None:
    first = await store.create(thing("1").with_(facts={"lock": "pe1"}))
    for tenant in ("acme", "globex"):
        with pytest.raises(Conflict):
            await store.create(thing("2", tenant=tenant).with_(facts={"lock": "pe1"}))
    other = await store.create(thing("3", tenant="globex").with_(facts={"lock": "pe2"}))
    with pytest.raises(Conflict):
        await store.replace(other.with_(facts={"lock": "pe1"}))

    assert [one.id for one in await store.find("thing", {"facts.lock": "pe1"})] == ["1"]
    facts = {name: value for name, value in first.facts.items() if name != "lock"}
    await store.replace(Record(first.kind, first.id, first.tenant, first.body, facts, first.revision))
    await store.create(thing("4", tenant="globex").with_(facts={"lock": "pe1"}))


async def test_only_the_revision_that_was_read_can_be_replaced(store: Store) -> None:
    await store.create(thing(n=0))
    mine, yours = await store.get("thing", "acme", "1"), await store.get("thing", "acme", "1")
    await store.replace(mine.with_({"n": 1}))

    with pytest.raises(Stale):
        await store.replace(yours.with_({"n": 2}))
    assert (await store.get("thing", "acme", "1")).body == {"n": 1}


async def test_of_many_writers_exactly_one_wins_each_revision(store: Store) -> None:
    await store.create(thing(n=0))

    async def add() -> None:
        while True:
            record = await store.get("thing", "acme", "1")
            try:
                await store.replace(record.with_({"n": record.body["n"] + 1}))
                return
            except Stale:
                continue

    await asyncio.gather(*(add() for _ in range(20)))

    assert (await store.get("thing", "acme", "1")).body == {"n": 20}


async def test_many_are_created_each_as_if_alone(store: Store) -> None:
    """Those that exist already hold up none of the others, and messages are told of what is stored alone."""
    told: list[Unsent] = []
    store.written = told.append
    await store.create(thing("1", state="first"))
    keyed = thing("2").with_(facts={"openKey": "link:1"})
    drafts = [Draft(thing("1", state="second")), Draft(keyed, [message("a")]), Draft(thing("3"), [message("b")])]
    drafts += [Draft(replace(keyed, id="4"), [message("c")]), Draft(thing("5", nested={"a.b": [{"$c": None}]}))]

    first, *others = await store.create_all(drafts)
    kinds = [type(one) for one in (first, *others)]
    assert kinds == [Conflict, Record, Record, Conflict, Record]
    assert others[0] == await store.get("thing", "acme", "2")
    assert (await store.get("thing", "acme", "1")).body == {"state": "first"}
    assert (await store.get("thing", "acme", "5")).body == {"nested": {"a.b": [{"$c": None}]}}
    assert sorted(m.id for unsent in told for m in unsent.messages) == ["a", "b"]
    assert sorted(m.id for unsent in await store.unsent(-1) for m in unsent.messages) == ["a", "b"]
    assert await store.create_all([]) == []


async def test_many_are_replaced_each_as_if_alone(store: Store) -> None:
    """Whichever of them somebody else has changed or removed, or has a fact that another holds: the others are done."""
    told: list[Unsent] = []
    await store.append([thing(str(n), n=n, nested={"a.b": [{"$c": n}]}) for n in range(60)])
    held = await store.get("thing", "acme", "7")
    await store.replace(held.with_(facts={"openKey": "taken"}))
    read = sorted(await store.find("thing", {}), key=lambda record: int(record.id))
    await store.replace(read[3].with_({"n": "by another"}), [message("another")])
    await store.delete(read[4])
    store.written = told.append
    drafts = [Draft(record.with_({"m": 1}), [message(f"m{record.id}")]) for record in read]
    drafts[5] = Draft(read[5].with_({"m": 1}, {"openKey": "taken"}), [message("m5")])
    drafts[6] = Draft(read[6].with_({"m": 1}))

    done = await store.replace_all(drafts)
    failed = {n: type(one) for n, one in enumerate(done) if not isinstance(one, Record)}
    assert failed == {3: Stale, 4: Stale, 5: Conflict}
    for n, one in enumerate(done):
        if isinstance(one, Record):
            assert one == await store.get("thing", "acme", str(n))
            assert (one.body["m"], one.body["nested"]) == (1, {"a.b": [{"$c": n}]})
    assert (await store.get("thing", "acme", "3")).body["n"] == "by another"
    assert {m.id for unsent in told for m in unsent.messages} == {f"m{n}" for n in range(60)} - {"m3", "m4", "m5", "m6"}
    assert {unsent.id for unsent in await store.unsent(-1)} == {str(n) for n in range(60)} - {"5", "6"}
    assert await store.replace_all([]) == []


async def test_what_has_left_does_not_wait_on(store: Store) -> None:
    """A later change takes out of the outbox what was published meanwhile, and nothing that was not."""
    first = await store.create(thing(), [message("a"), message("b")])
    store.published = lambda id: id == "a"
    await store.replace_all([Draft(first.with_({"n": 1}), [message("c")])])

    assert [[m.id for m in u.messages] for u in await store.unsent(-1)] == [["b", "c"]]


async def test_messages_wait_until_they_are_sent(store: Store) -> None:
    told: list[Unsent] = []
    store.written = told.append
    first = await store.create(thing(), [message("a")])
    await store.replace(first.with_({"n": 1}), [message("b")])

    waiting = await store.unsent(-1)
    assert [[m.id for m in u.messages] for u in waiting] == [["a", "b"]]
    assert waiting[0].messages[0] == message("a")
    await store.sent(told[:1])
    assert [[m.id for m in u.messages] for u in await store.unsent(-1)] == [["b"]]
    await store.sent(told[1:])
    assert await store.unsent(-1) == []
    assert await store.unsent(60) == []


async def test_marking_in_any_order_forgets_nothing(store: Store) -> None:
    told: list[Unsent] = []
    store.written = told.append
    first = await store.create(thing(), [message("a")])
    await store.replace(first.with_({"n": 1}), [message("b")])

    await store.sent(told[1:])
    await store.sent(told[:1])
    assert await store.unsent(-1) == []


async def test_a_later_writer_hands_on_what_an_earlier_one_left(store: Store) -> None:
    await store.create(thing(), [message("a")])
    told: list[Unsent] = []
    store.written = told.append

    await store.replace((await store.get("thing", "acme", "1")).with_({"n": 1}), [message("b")])

    assert [m.id for m in told[0].messages] == ["a", "b"]


async def test_deleted_is_gone_at_once_and_removed_when_its_message_is_out(store: Store) -> None:
    record = await store.create(thing())
    await store.delete(record, [message("deleted")])

    with pytest.raises(NotFound):
        await store.get("thing", "acme", "1")
    assert await store.count("thing", {"tenant": "acme"}) == 0
    waiting = await store.unsent(-1)
    assert [m.id for m in waiting[0].messages] == ["deleted"]
    await store.sent(waiting)
    assert await store.unsent(-1) == []
    await store.create(thing())


async def test_lists_filter_sort_and_page(store: Store) -> None:
    for n in range(5):
        await store.create(thing(str(n), n=n, state="even" if n % 2 == 0 else "odd"))

    even = {"tenant": "acme", "body.state": "even"}
    assert [r.id for r in await store.find("thing", even, [("body.n", -1)])] == ["4", "2", "0"]
    assert [r.id for r in await store.find("thing", {}, [("id", 1)], skip=1, limit=2)] == ["1", "2"]
    assert await store.count("thing", {"facts.parties": {"$in": ["northwind"]}}) == 5
    assert await store.count("thing", {"body.n": {"$gte": 3}}) == 2
    assert await store.count("thing", {"$or": [{"body.n": 0}, {"body.state": "odd"}]}) == 3


VALUES: list[Any] = [
    *(1, 1.0, 0, -1, 0.1, 2**40, True, False, "1", "", "a", "true", "A\nb", "\u00e9", 2026, "2026"),
    *(None, [], {}, [1, 2], ["a", None], [True], ["1"], [[1]], [0, "z"]),
    *({"a": 1}, {"a": []}, {"a": None}, {"a": {"b": 1}}, [{"a": 1, "b": 2}, {"a": 3, "b": 4}], [{"a": [1, 2]}]),
    *([[{"a": 1}]], [{"a": None}], [{}], [{"b": 2}, 7]),
]
SCALARS = [1, 1.0, 0.1, True, False, "1", "", "a", 2026]
CONDITIONS: list[dict[str, Any]] = [
    *({"body.v": {way: value}} for way in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte") for value in SCALARS),
    *({"body.v": value} for value in SCALARS),
    *({"body.v.a": {way: 1}} for way in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")),
    *({"body.v": {way: values}} for way in ("$in", "$nin") for values in ([1], ["1", 1], [True], ["1", "a", 0.1])),
    *({path: {"$exists": there}} for path in ("body.v", "body.v.a", "body.v.a.b") for there in (True, False)),
    *({"body.v": {"$regex": text}} for text in ("", "a", "^A$", "^A", "b$", "(?i)a", "\\d", ".", "(a+)+$", "\\w")),
    *({"body.v": {"$elemMatch": part}} for part in ({"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 4}, {"a": {"$gte": 2}})),
    *({"body.v": {"$elemMatch": part}} for part in ({"a": {"$ne": 1}}, {"b": {"$exists": False}}, {"a": {"$in": [3]}})),
    {"body.v": {"$elemMatch": {"$or": [{"a": 1}, {"b": 4}]}}},
    {"body.v": {"$elemMatch": {"$nor": [{"a": 1}]}}},
    {"body.v": {"$gte": 0, "$lt": 2}},
    {"$nor": [{"body.v": 1}]},
    {"$nor": [{"body.v.a": {"$gt": 0}}, {"body.v": {"$regex": "a"}}]},
    {"$nor": [{"body.v": {"$elemMatch": {"a": 1}}}]},
    {"$or": [{"body.v": 1}, {"body.v": {"$regex": "a"}}]},
    {"$or": [{"body.v": "a"}, {"body.v": {"$gt": 5}}], "body.v": {"$ne": 2026}},
    {"$and": [{"body.v": {"$exists": True}}, {"$and": [{"body.v": {"$ne": 1}}, {"body.v": {"$ne": "a"}}]}]},
    {"id": {"$in": ["3", "4"]}, "body.v": {"$exists": True}},
    {"id": "3", "body.v": -1},
    {"id": {"$gte": "3"}, "body.v": {"$lt": 1}},
]


async def test_both_stores_answer_alike(store: Store) -> None:
    """Whatever the condition and whatever the value, the server and the twin choose the same records."""
    records = [thing(str(n), v=value) for n, value in enumerate(VALUES)] + [thing("none")]
    await store.append(records)
    whole = [{"id": r.id, "tenant": r.tenant, "body": r.body, "facts": r.facts} for r in records]

    for condition in CONDITIONS:
        for where in (condition, {"tenant": "acme", **condition}, {"$and": [{"tenant": "acme"}, condition]}):
            wanted = sorted(document["id"] for document in whole if matches(document, where))
            assert sorted(r.id for r in await store.find("thing", where)) == wanted, where
            assert await store.count("thing", where) == len(wanted), where


async def test_both_stores_order_alike(store: Store) -> None:
    """By type, then by value; of an array its least upwards and its greatest downwards; what is not there first."""
    values = [3, 1, "b", "a", True, 2.5, [9, 0], [], ["c"], {"x": 1}, None]
    await store.append([thing(str(n), v=value) for n, value in enumerate(values)] + [thing("none")])

    up = [r.body.get("v") for r in await store.find("thing", {}, [("body.v", 1), ("id", 1)])]
    down = [r.body.get("v") for r in await store.find("thing", {}, [("body.v", -1), ("id", 1)])]
    assert up == [[], None, None, [9, 0], 1, 2.5, 3, "a", "b", ["c"], {"x": 1}, True]
    assert down == [True, {"x": 1}, ["c"], "b", "a", [9, 0], 3, 2.5, 1, None, None, []]


async def test_a_page_of_what_is_looked_at_here_is_a_page(store: Store) -> None:
    """A regular expression goes with sort, skip and limit as any other condition does."""
    await store.append([thing(str(n), state="even" if n % 2 == 0 else "odd") for n in range(9)])

    where = {"tenant": "acme", "body.state": {"$regex": "^e"}}
    assert [r.id for r in await store.find("thing", where, [("id", -1)], skip=1, limit=2)] == ["6", "4"]
    assert await store.count("thing", where) == 5


async def test_a_hostile_expression_takes_no_time(store: Store) -> None:
    """What makes others run for hours is over at once, and what RE2 does not know is refused with the reason."""
    await store.create(thing(text="a" * 100_000 + "b"))

    async with asyncio.timeout(5):
        assert await store.count("thing", {"body.text": {"$regex": "(a+)+$"}}) == 0
        assert await store.count("thing", {"body.text": {"$regex": "(a|aa)+b$"}}) == 1
    with pytest.raises(Invalid, match="refused"):
        await store.find("thing", {"body.text": {"$regex": r"(a)\1"}})


async def test_appending_twice_is_appending_once(store: Store) -> None:
    await store.append([thing("1"), thing("2")])
    await store.append([thing("2"), thing("3")])

    assert await store.count("thing", {}) == 3


async def test_what_the_store_cannot_hold_is_refused(store: Store) -> None:
    with pytest.raises(Invalid):
        await store.create(thing(number=2**70))


async def test_everything_is_found_as_it_is_kept(store: Store) -> None:
    """By its id, in the count and among the ids, also what no list shows: a deleted record whose message is not out."""
    records = [thing(f"{n:04d}", tenant=f"t{n % 2}", n=n) for n in range(WALKED + 1)]
    await store.append(records)
    gone = await store.get("thing", "t0", "0000")
    await store.delete(gone, [message("deleted")])

    batches = [batch async for batch in store.ids("thing")]
    asked = ["nothing", *(f"{n:04d}" for n in range(HANDFUL + 1))]
    found = {document["id"]: document for document in await store.kept("thing", asked)}

    assert await store.number("thing") == WALKED + 1
    assert max(len(batch) for batch in batches) <= WALKED
    assert sorted(id for batch in batches for id in batch) == [record.id for record in records]
    assert sorted(found) == asked[1:]
    assert found["0001"] == {
        "id": "0001",
        "tenant": "t1",
        "revision": 1,
        "body": {"n": 1},
        "facts": {"parties": ["northwind"]},
        "outbox": [],
    }
    assert found["0000"]["tenant"] == GONE + "t0"
    assert [one["id"] for one in found["0000"]["outbox"]] == ["deleted"]
    assert await store.kept("thing", []) == []
