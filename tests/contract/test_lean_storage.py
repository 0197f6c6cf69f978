"""The embedded store leaves work out, and nothing else: what it keeps is what SecantusDB alone would keep."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import bson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from secantus import storage, transactions
from secantus.storage import IndexConflict, Storage
from secantus.transactions import TransactionRegistry
from wiredtiger import swig_wiredtiger

from convergedon.core import embedded_store
from convergedon.core.embedded_store import PACKED, TRIED, LeanStorage, packed

PRUNE = TransactionRegistry._prune_retryable_locked
INDEXES: list[tuple[dict[str, int], dict[str, Any]]] = [
    ({"tenant": 1, "facts.parties": 1, "_id": 1}, {}),
    ({"tenant": 1, "body.state": 1, "facts.at": 1}, {}),
    ({"tenant": 1, "facts.key": 1}, {"unique": True, "partialFilterExpression": {"facts.key": {"$exists": True}}}),
    ({"waiting": 1}, {"sparse": True}),
    ({"body.list.id": 1}, {}),
    ({"body.other": 1}, {"partialFilterExpression": {"waiting": {"$exists": True}}}),
]
VALUES = st.one_of(st.none(), st.booleans(), st.sampled_from([0, 1, 0.0, -0.0, 1.0, 2]), st.sampled_from(["", "a"]))
PATHS = ("body.state", "facts.at", "facts.key", "waiting", "body.other", "tenant")
LISTS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3)
CHANGES = st.one_of(
    st.fixed_dictionaries({"$set": st.dictionaries(st.sampled_from(PATHS), VALUES, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"$set": st.fixed_dictionaries({"facts.parties": LISTS})}),
    st.builds(lambda ids: {"$set": {"body.list": [{"id": id} for id in ids]}}, LISTS),
    st.sampled_from([{"$unset": {path: ""}} for path in (*PATHS, "facts.parties", "body.list")]),
    st.builds(lambda value: [{"$set": {"facts.at": value}}], st.sampled_from([1, "x"])),
)
IDS = st.sampled_from(["0", "1", "2", "3", 4, 5])
TEXTS = st.lists(st.sampled_from(["0", "1", "2", "3"]), min_size=1, max_size=4)
BESIDE = st.sampled_from([{}, {"tenant": "t"}, {"facts.at": {"$in": [1, 2]}}])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), TEXTS | st.lists(IDS, min_size=1, max_size=4), st.booleans(), CHANGES, BESIDE),
        st.tuples(st.just("insert"), IDS),
        st.tuples(st.just("delete"), IDS),
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Storage]]:
    opened = [kind(str(tmp_path_factory.mktemp(kind.__name__))) for kind in (Storage, LeanStorage)]
    with pytest.MonkeyPatch.context() as patch:
        for where, name in (
            (storage, "matches"),
            (storage, "_update_oplog_o"),
            (storage, "bson"),
            (swig_wiredtiger, "pack"),
            (transactions, "_strip_per_attempt_fields"),
            (TransactionRegistry, "_prune_retryable_locked"),
        ):
            patch.setattr(where, name, getattr(where, name))
        embedded_store.lean()
        yield opened
        for one in opened:
            one.close()


def test_it_is_the_version_that_was_tried() -> None:
    """Another SecantusDB does all its work itself, and nobody would see how slow that is."""
    assert version("SecantusDB") == TRIED


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, number=st.uuids())
def test_indexes_hold_what_they_would(stores: list[Storage], steps: list[Any], number: object) -> None:
    """Whatever is inserted, changed and deleted: documents, index entries and answers are the same."""
    kept = [run(store, f"things-{number}", steps) for store in stores]

    assert kept[0] == kept[1]


def test_the_log_of_changes_leads_to_what_is_kept(stores: list[Storage]) -> None:
    """What a pipeline changed is logged as the whole document, where SecantusDB may log what has changed in it."""
    lean = stores[1]
    insert(lean, "logged", "0")
    lean.update_matching("db", "logged", {"_id": {"$in": ["0"]}}, [{"$set": {"facts.at": 7}}], multi=True)
    (logged,) = [entry for entry in log_of(lean) if entry["ns"] == "db.logged" and entry["op"] == "u"]

    assert [logged["o"]] == lean.find_matching("db", "logged", {})


@given(texts=st.lists(st.text("a\0é", max_size=3), min_size=3, max_size=3), end=st.binary(max_size=3))
def test_keys_are_packed_as_they_would_be(texts: list[str], end: bytes) -> None:
    assert packed("SSSu", *texts, end) == PACKED("SSSu", *texts, end)
    assert packed("u", end) == PACKED("u", end)
    assert packed("SSu", *texts[:2], end) == PACKED("SSu", *texts[:2], end)


def test_how_statements_are_profiled_is_what_was_set(stores: list[Storage]) -> None:
    told = []
    for store in stores:
        before = store.get_profile("db")
        store.set_profile("db", level=2, slowms=5)
        told.append((before, store.get_profile("db"), store.get_profile("other")))

    assert told[0] == told[1]
    assert told[1][1]["level"] == 2


@pytest.mark.usefixtures("stores")
@given(steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=40))
def test_answers_to_writes_are_kept_as_long_as_they_would_be(steps: list[tuple[int, int]]) -> None:
    """Until they are too old, and no more than SecantusDB would keep; one that is asked for again is the same."""
    now = [0.0]
    lean, whole = (TransactionRegistry(time_func=lambda: now[0]) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transactions, "_RETRYABLE_RECORD_MAX", 5)
        patch.setattr(transactions, "_RETRYABLE_RECORD_LIFETIME_SECONDS", 10.0)
        patch.setattr(whole, "_prune_retryable_locked", lambda: PRUNE(whole))
        for number, (later, asked) in enumerate(steps):
            now[0] += later
            answer = {"ok": 1.0, "n": number, "errorLabels": ["x"]}
            for registry in (lean, whole):
                registry.record_retryable(b"session", number, b"command", answer)
            found = [registry.retryable_reply(b"session", number - asked, b"command") for registry in (lean, whole)]
            assert found[0] == found[1]
            assert lean._retryable.keys() == whole._retryable.keys()
            assert found[0] is None or found[0] == {"ok": 1.0, "n": number - asked}


def log_of(store: Storage) -> list[dict[str, Any]]:
    cursor = store._session().open_cursor("table:secantus_oplog", None)
    found = []
    while cursor.next() == 0:
        found.append(bson.decode(bytes(cursor.get_value())))
    cursor.close()
    return found


def run(store: Storage, collection: str, steps: list[Any]) -> list[Any]:
    """What became of each step, and all that is kept at the end."""
    for number, (keys, options) in enumerate(INDEXES):
        store.create_index("db", collection, f"index {number}", keys, options)
    for id in ("0", "1", "2", "3"):
        insert(store, collection, id)
    outcomes = [step(store, collection, *what) for what in steps]
    found = [
        sorted(repr(one) for one in store.find_matching("db", collection, where))
        for where in ({}, {"waiting": "a"}, {"tenant": "a", "facts.key": "k1"}, {"tenant": "t", "body.state": 1})
    ]
    return [outcomes, entries(store, collection), found]


def insert(store: Storage, collection: str, id: str | int) -> Any:
    number = int(id)
    facts = {"key": f"k{number}", "at": number, "parties": ["a"][: number % 2]}
    document = {"_id": id, "tenant": "t", "body": {"state": "raised"}, "facts": facts}
    return store.insert("db", collection, [document])


def step(
    store: Storage, collection: str, what: str, which: Any, many: bool = False, change: Any = None, beside: Any = None
) -> Any:
    if what == "insert":
        return insert(store, collection, which)
    if what == "delete":
        return store.delete_matching("db", collection, {"_id": which})
    try:
        return store.update_matching("db", collection, {"_id": {"$in": which}, **beside}, change, multi=many)
    except IndexConflict as error:
        return error.key_value


def entries(store: Storage, collection: str) -> list[Any]:
    """All index entries of a collection, and the claims on what only one may have."""
    found = []
    for table in ("table:secantus_index_entries", "table:secantus_unique_keys"):
        cursor = store._session().open_cursor(table, None)
        while cursor.next() == 0:
            key = cursor.get_key()
            if key[1] == collection:
                found.append((table, *key[2:]))
        cursor.close()
    return found
