"""The embedded store leaves work out, and nothing else: what it keeps is what SecantusDB alone would keep."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from typing import Any

import bson
import pytest
from bson import SON, Binary, Code, Decimal128, Int64, MinKey, ObjectId, Regex
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from secantus import aggregate, commands, storage, transactions, update
from secantus.storage import IndexConflict, Storage
from secantus.transactions import TransactionRegistry
from wiredtiger import swig_wiredtiger

from convergedon.core import lean_store
from convergedon.core.lean_store import (
    KEYS,
    PACKED,
    PROBLEM,
    TRIED,
    UNPACKED,
    LeanStorage,
    copied,
    index_keys,
    packed,
    path_values,
    unpacked,
)

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
            (storage, "get_path_values"),
            (storage, "_index_key_variants"),
            (commands, "expression_problem_in_pipeline"),
            (update, "copy"),
            (aggregate, "copy"),
            (swig_wiredtiger, "pack"),
            (swig_wiredtiger, "unpack"),
            (transactions, "_strip_per_attempt_fields"),
            (TransactionRegistry, "_prune_retryable_locked"),
        ):
            patch.setattr(where, name, getattr(where, name))
        lean_store.lean()
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
    """What was changed is logged as the whole document, where SecantusDB may log what has changed in it."""
    lean = stores[1]
    insert(lean, "logged", "0")
    for change in ([{"$set": {"facts.at": 7}}], {"$set": {"facts.at": 8}}):
        lean.update_matching("db", "logged", {"_id": {"$in": ["0"]}}, change, multi=True)
        *_, logged = [entry for entry in log_of(lean) if entry["ns"] == "db.logged" and entry["op"] == "u"]

        assert [logged["o"]] == lean.find_matching("db", "logged", {})


FORMS = ("u", "q", "SS", "SSu", "SSq", "SSS", "SSSu", "SqS")
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-70, 70) | st.sampled_from([8255, 8256, 8257, -8256, -8257])


@given(
    form=st.sampled_from(FORMS),
    texts=st.lists(st.text("a\0é", max_size=3), min_size=3, max_size=3),
    end=st.binary(max_size=3),
    number=NUMBERS,
)
def test_keys_are_packed_and_unpacked_as_they_would_be(form: str, texts: list[str], end: bytes, number: int) -> None:
    values: list[Any] = texts[: form.count("S")]
    if "q" in form:
        values.insert(form.index("q"), number)
    values += [end] if form.endswith("u") else []
    kept = PACKED(form, *values)

    assert packed(form, *values) == kept
    assert unpacked(form, kept) == UNPACKED(form, kept)


LEAVES = st.one_of(
    VALUES,
    st.sampled_from(["\0", "a\0", "é\0\0a", "\0\xff"]),
    st.sampled_from([1.5, float("inf"), float("nan"), 2**40, -3, b"\0a", datetime(2026, 1, 2), Int64(7)]),
    st.sampled_from([ObjectId(b"a" * 12), Decimal128("1.50"), Regex("a", "i"), Code("a"), MinKey(), Binary(b"a", 4)]),
)
NAMES = st.sampled_from(["a", "b", "0"])


def _inside(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.dictionaries(NAMES, parts, max_size=2)
    return objects | objects.map(SON) | st.lists(parts, max_size=2) | st.lists(objects, min_size=2, max_size=2)


DOCUMENTS = st.dictionaries(NAMES, LEAVES | _inside(LEAVES | _inside(LEAVES)), min_size=1, max_size=3)
INDEXED = st.sampled_from(["a", "a.b", "a.0", "b", "b.a.b", "a.b.0"])


@settings(max_examples=400)
@given(
    document=DOCUMENTS, keys=st.dictionaries(INDEXED, st.sampled_from([1, 1, 1, -1]), min_size=1), sparse=st.booleans()
)
@example({"a": "x\0", "b": "y"}, {"a": 1, "b": 1}, False)
@example({"a": [{"b": "x"}, {"b": "y"}]}, {"a.b": 1}, True)
@example({"a": Code("x")}, {"a": 1}, False)
def test_documents_have_the_keys_that_they_would_have(document: Any, keys: dict[str, int], sparse: bool) -> None:
    assert index_keys(document, keys, sparse=sparse) == KEYS(document, keys, sparse=sparse)
    for path in keys:
        assert repr(path_values(document, path)) == repr(lean_store.VALUES(document, path))


@given(document=DOCUMENTS)
@example({"a": SON([("b", [1])])})
def test_a_copy_is_the_same_and_changes_alone(document: Any) -> None:
    before = repr(document)
    copy = copied(document)

    assert repr(copy) == before
    emptied(copy)
    assert repr(document) == before


def emptied(value: Any) -> None:
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        emptied(one)
    if isinstance(value, dict | list):
        value.clear()


def test_what_is_wrong_with_a_change_is_found_each_time(stores: list[Storage]) -> None:
    """A change is gone through once while nothing is wrong with it; one that is wrong is refused again and again."""
    right, wrong = [{"$set": {"a": "$$value"}}], [{"$set": {"a": {"$unheardOf": 1}}}]
    for bound in (frozenset({"value"}), frozenset[str]()):
        for change in (right, wrong, right, wrong):
            found = commands.expression_problem_in_pipeline(change, bound)
            assert found == PROBLEM(change, bound)
            assert (found is None) == (change is right and bool(bound))


def test_what_becomes_of_an_index_is_known_at_once(stores: list[Storage]) -> None:
    lean = stores[1]
    insert(lean, "indexed", "1")
    lean.create_index("db", "indexed", "state", {"body.state": 1}, {})
    assert not lean.index_is_multikey("db", "indexed", "state")
    lean.update_matching("db", "indexed", {"_id": "1"}, {"$set": {"body.state": ["a", "b"]}})

    assert lean.index_is_multikey("db", "indexed", "state")
    assert [one["_id"] for one in lean.find_matching("db", "indexed", {"body.state": "b"})] == ["1"]
    lean.drop_index("db", "indexed", "state")
    assert [one["name"] for one in lean.list_indexes("db", "indexed")] == ["_id_"]


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
