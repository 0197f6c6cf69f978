"""SecantusDB without the work that changes nothing: what it keeps and answers is the same.

It does in Python what other servers do in a compiled language, so what it does needlessly is most of what a write
takes. Each function here that stands in for one of SecantusDB's asks that one for all that it does not know.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any, TypeVar
from uuid import UUID

import bson
from bson import Binary, Decimal128, Int64, ObjectId
from secantus import aggregate, commands, storage, transactions, update
from secantus.sortkey import COMPOUND_SEP, RANK_STRING, encode_value
from secantus.storage import Storage
from wiredtiger import WT_NOTFOUND, swig_wiredtiger
from wiredtiger.intpacking import pack_int, unpack_int

TRIED = "0.7.0b3"
"""The SecantusDB whose inner parts are known here; any other does its work alone."""
MISSING = object()
MANY, LARGEST = 1000, 4096
"""Answers that are remembered, and the bytes that a change has for which one is."""

T = TypeVar("T")
Index = tuple[str, Mapping[str, Any], bool, bool]
Definition = tuple[str, dict[str, Any], dict[str, Any]]


class Remembered(dict[Hashable, T]):
    """What was found out once, by all that it follows from."""

    def __call__(self, asked: Hashable, find_out: Callable[[], T]) -> T:
        try:
            return self[asked]
        except KeyError:
            if len(self) >= MANY:
                self.clear()
            return self.setdefault(asked, find_out())


@dataclass(frozen=True)
class Definitions:
    """The indexes of a collection, as SecantusDB asks for them."""

    rows: list[Definition]
    indexes: list[Index]
    partial: dict[str, dict[str, Any]]
    multikey: frozenset[str]
    options: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, keys: Sequence[bytes], values: Sequence[bytes]) -> Definitions:
        kept = [(unpacked("SSS", key)[2], bson.decode(value)) for key, value in zip(keys, values, strict=True)]
        rows = [(name, one.get("key", {}), one.get("options", {})) for name, one in kept]
        return cls(
            rows,
            [(name, key, bool(how.get("sparse")), bool(how.get("unique"))) for name, key, how in rows],
            {name: how["partialFilterExpression"] for name, _, how in rows if how.get("partialFilterExpression")},
            frozenset(name for name, _, how in rows if how.get("multikey")),
            {name: how for name, _, how in rows},
        )


class LeanStorage(Storage):  # type: ignore[misc]
    """SecantusDB's storage, which reads less.

    Left to itself it reads the definitions of a collection's indexes some four times for each statement, and for each
    document that it writes, and decodes them each time; it takes each document that it changes out of all indexes and
    puts it in again. With the dozen that an alarm has, that was most of its processor time. Of many documents that are
    changed by their ids it compares each with each id, twice, encodes each four times, and finds out what has changed
    in it for the log of changes, where the whole document does as well. After each statement it reads whether that is
    to be profiled.
    """

    def __init__(self, *what: Any, **how: Any) -> None:
        self._profiles: dict[str, dict[str, Any]] = {}
        self._decoded = Remembered[Definitions]()
        self._options = Remembered[dict[str, Any]]()
        super().__init__(*what, **how)

    def get_profile(self, db: str) -> dict[str, Any]:
        if db not in self._profiles:
            with self._lock:
                self._profiles[db] = super().get_profile(db)
        return self._profiles[db]

    def set_profile(self, db: str, **how: Any) -> None:
        with self._lock:
            super().set_profile(db, **how)
            self._profiles[db] = super().get_profile(db)

    def update_matching(self, db: str, coll: str, filter: dict[str, Any], *what: Any, **how: Any) -> Any:
        with _leaving_out(filter):
            return super().update_matching(db, coll, filter, *what, **how)

    @contextmanager
    def _batch_transaction(self, *, sync: bool = False) -> Iterator[Any]:
        with super()._batch_transaction(sync=sync) as session, self._reading_once():
            yield session

    def _try_index_id_keys(self, *what: Any, **how: Any) -> Any:
        with self._reading_once():  # to choose an index each kind of it is looked for by itself
            return super()._try_index_id_keys(*what, **how)

    @contextmanager
    def _reading_once(self) -> Iterator[None]:
        """Until its end the definitions of the indexes stay as they are read first."""
        before = getattr(self._tls, "definitions", None)
        self._tls.definitions = {} if before is None else before
        try:
            yield
        finally:
            self._tls.definitions = before

    def _iter_indexes(self, db: str, coll: str) -> Iterable[Definition]:
        return self._defined(db, coll).rows

    def _all_indexes(self, db: str, coll: str) -> list[Index]:
        return self._defined(db, coll).indexes

    def _partial_filters(self, db: str, coll: str) -> dict[str, dict[str, Any]]:
        return self._defined(db, coll).partial

    def _multikey_index_names(self, db: str, coll: str) -> set[str]:
        return {*self._defined(db, coll).multikey}

    def _index_options_map(self, db: str, coll: str) -> dict[str, dict[str, Any]]:
        return self._defined(db, coll).options

    def _defined(self, db: str, coll: str) -> Definitions:
        known = getattr(self._tls, "definitions", None)
        if known is None:
            return self._read_definitions(db, coll)
        if (db, coll) not in known:
            known[db, coll] = self._read_definitions(db, coll)
        return known[db, coll]  # type: ignore[no-any-return]

    def _read_definitions(self, db: str, coll: str) -> Definitions:
        """What is kept of a collection's indexes; it is decoded once as long as it stays as it is."""
        cursor, begin = self._cursor(storage._IDX_TABLE), packed("SS", db, coll)
        cursor.set_key(db, coll, "")
        kept, nearest = [], cursor.search_near()
        rest = nearest != WT_NOTFOUND and (nearest >= 0 or cursor.next() == 0)
        while rest and (key := cursor._get_key()).startswith(begin):
            kept += [key, cursor._get_value()]
            rest = cursor.next() == 0
        return self._decoded(tuple(kept), lambda: Definitions.of(kept[::2], kept[1::2]))

    def _coll_options(self, db: str, coll: str) -> dict[str, Any] | None:
        cursor = self._cursor(storage._COLL_TABLE)
        cursor.set_key(db, coll)
        if cursor.search() != 0:
            return None
        kept = cursor._get_value()
        return {**self._options(kept, lambda: bson.decode(kept) if kept else {})}

    def _update_chunk(self, *what: Any, **how: Any) -> Any:
        with self._changing(True):
            return super()._update_chunk(*what, **how)

    def _update_matching_single_txn(self, *what: Any, **how: Any) -> Any:
        with self._changing(True):
            return super()._update_matching_single_txn(*what, **how)

    def _enforce_capped_bounds_locked(self, *what: Any, **how: Any) -> Any:
        with self._changing(False):  # it takes documents out for good
            return super()._enforce_capped_bounds_locked(*what, **how)

    @contextmanager
    def _changing(self, is_changing: bool) -> Iterator[None]:
        """While documents are changed what is taken out of the indexes is put in again, changed, as the next thing."""
        before = getattr(self._tls, "is_changing", False)
        self._tls.is_changing, self._tls.before = is_changing, None
        try:
            yield
        finally:
            self._tls.is_changing, self._tls.before = before, None

    def _delete_index_entries(
        self, db: str, coll: str, doc: dict[str, Any], indexes: Any, partials: Any = None, *, recordid: int
    ) -> None:
        if getattr(self._tls, "is_changing", False):
            self._tls.before = recordid, doc
        else:
            super()._delete_index_entries(db, coll, doc, indexes, partials, recordid=recordid)

    def _write_index_entries(
        self, db: str, coll: str, doc: dict[str, Any], indexes: Any, partials: Any = None, *, recordid: int
    ) -> None:
        before = getattr(self._tls, "before", None)
        if before and before[0] == recordid:
            self._tls.before = None
            filters = self._partial_filters(db, coll) if partials is None else partials
            indexes = [one for one in indexes if not alike(before[1], doc, one, filters.get(one[0]) or {})]
            super()._delete_index_entries(db, coll, before[1], indexes, partials, recordid=recordid)
        super()._write_index_entries(db, coll, doc, indexes, partials, recordid=recordid)


class _LeftOut(threading.local):
    """What a thread leaves out while it changes documents: ``filter`` asks for one of these ``ids`` and for ``others``,
    ``encoded`` is the document that was encoded last, and its bytes.
    """

    is_on = False
    filter: object = None
    ids: frozenset[str] = frozenset()
    others: Mapping[str, Any] = {}
    encoded: tuple[object, bytes] = (None, b"")


_left_out = _LeftOut()


@contextmanager
def _leaving_out(filter: Mapping[str, Any]) -> Iterator[None]:
    asked = filter.get("_id")
    ids = asked.get("$in") if isinstance(asked, dict) and len(asked) == 1 else None
    if isinstance(ids, list) and all(type(id) is str for id in ids):
        others = {path: wanted for path, wanted in filter.items() if path != "_id"}
        _left_out.filter, _left_out.ids, _left_out.others = filter, frozenset(ids), others
    _left_out.is_on = True
    try:
        yield
    finally:
        _left_out.is_on, _left_out.filter, _left_out.encoded = False, None, (None, b"")


def _matches(document: Mapping[str, Any], filter: Mapping[str, Any], *, collation: Any = None, **how: Any) -> bool:
    """SecantusDB's, but for a text as an id: that is among those that a filter names, or it is not."""
    if filter is _left_out.filter and collation is None and type(document["_id"]) is str:
        return document["_id"] in _left_out.ids and bool(MATCHES(document, _left_out.others, **how))
    return bool(MATCHES(document, filter, collation=collation, **how))


def _encode(document: Any, *what: Any, **how: Any) -> bytes:
    """BSON's, but for the document that was encoded just before: between two of these a change does not touch it."""
    if not _left_out.is_on or what or how:
        return bson.encode(document, *what, **how)
    if _left_out.encoded[0] is not document:
        _left_out.encoded = document, bson.encode(document)
    return _left_out.encoded[1]


def _logged(before: Any, after: dict[str, Any], update: Any, is_whole: bool) -> Any:
    """SecantusDB's, but what was changed is logged as a document that replaces another, however it was changed."""
    return LOGGED(before, after, update, True)


_faultless = Remembered[None]()


def _problem(pipeline: Any, bound: frozenset[str], values: Mapping[str, Any] | None = None) -> Any:
    """SecantusDB's, but a change in which it has found no problem is not gone through again. What is wrong with it for
    other values is found where it is made.
    """
    is_change = isinstance(pipeline, list) and pipeline and isinstance(pipeline[0], dict)
    asked = (bson.encode({"": pipeline}), bound) if is_change and pipeline[0].keys() <= CHANGES else None
    if asked in _faultless:
        return None
    found = PROBLEM(pipeline, bound, values)
    if not found and asked and len(asked[0]) <= LARGEST:
        _faultless(asked, lambda: None)
    return found


TEXTS = {"u": 0, "q": 0, "SS": 2, "SSu": 2, "SSq": 2, "SSS": 3, "SSSu": 3}
"""How many texts a form begins with, of those that SecantusDB's tables have; behind them some bytes or a number."""


def packed(form: str, *values: Any) -> Any:
    """WiredTiger's, which goes through the form a letter at a time: here by all of it."""
    texts = TEXTS.get(form, -1)
    end = values[-1] if form[-1] in "uq" else b""
    if texts < 0 or type(end) not in (bytes, int):
        return PACKED(form, *values)
    begin = "\0".join(values[:texts]).encode() + b"\0" if texts else b""
    if begin.count(b"\0") != texts:
        return PACKED(form, *values)
    return begin + (pack_int(end) if form[-1] == "q" else end)


def unpacked(form: str, kept: bytes) -> Any:
    """WiredTiger's, of what ``packed`` has packed."""
    if form == "u":
        return [kept or b""]
    texts = TEXTS.get(form, -1)
    if texts < 0:
        return UNPACKED(form, kept)
    *begin, end = kept.split(b"\0", texts)
    found: list[Any] = [text.decode() for text in begin]
    if form[-1] in "uq":
        found.append(end if form[-1] == "u" else unpack_int(end)[0])
    return found


def path_values(document: Any, path: str) -> tuple[list[Any], bool]:
    """SecantusDB's, but for a path that leads through no array."""
    found = document
    for name in path.split("."):
        if type(found) is not dict:
            return VALUES(document, path)  # type: ignore[no-any-return]
        if name not in found:
            return [], False
        found = found[name]
    return [found], False


def index_keys(document: Mapping[str, Any], keys: Mapping[str, Any], *, sparse: bool, collation: Any = None) -> Any:
    """SecantusDB's, but for paths with one value each, or none: most documents have one key in most indexes."""
    if collation is not None:
        return KEYS(document, keys, sparse=sparse, collation=collation)
    parts, is_there = [], False
    for path, way in keys.items():
        values, is_through_array = path_values(document, path)
        value = values[0] if values else None
        if way != 1 or is_through_array or type(value) is list:
            return KEYS(document, keys, sparse=sparse)
        parts.append(TEXT + value.encode().replace(b"\0", b"\0\xff") if type(value) is str else encode_value(value))
        is_there = is_there or bool(values)
    return [COMPOUND_SEP.join(parts)] if is_there or not sparse else []


TEXT = bytes([RANK_STRING])
PLAIN = frozenset((str, int, float, bool, bytes, type(None), datetime, ObjectId, Int64, Decimal128, Binary, UUID))


def copied(value: Any) -> Any:
    """A copy of a document: its leaves cannot be changed."""
    kind = type(value)
    if kind is dict:
        return {name: one if type(one) in PLAIN else copied(one) for name, one in value.items()}
    if kind is list:
        return [one if type(one) in PLAIN else copied(one) for one in value]
    return value if kind in PLAIN else deepcopy(value)


CHANGES = frozenset(("$set", "$replaceWith"))
MATCHES, LOGGED, PROBLEM = storage.matches, storage._update_oplog_o, commands.expression_problem_in_pipeline
VALUES, KEYS = storage.get_path_values, storage._index_key_variants
PACKED, UNPACKED = swig_wiredtiger.pack, swig_wiredtiger.unpack


def pruned(registry: transactions.TransactionRegistry) -> None:
    """SecantusDB's, which looks at all ten thousand answers to writes that it keeps, twice for each write, and sorts
    them by their age once there are more: ten times what the write itself takes. They stand in the order in which they
    were given, so the oldest are the first.
    """
    kept, until = registry._retryable, registry._time() - transactions._RETRYABLE_RECORD_LIFETIME_SECONDS
    while kept:
        oldest = next(iter(kept))
        if len(kept) <= transactions._RETRYABLE_RECORD_MAX and kept[oldest][1] >= until:
            return
        del kept[oldest]


def answer(reply: Mapping[str, Any]) -> dict[str, Any]:
    """SecantusDB's, which copies the answer to a write throughout; nothing in it is changed once it is given."""
    return {name: value for name, value in reply.items() if name not in ("writeConcernError", "errorLabels")}


def lean() -> None:
    """Have SecantusDB use these in place of its own, which they ask for all else."""
    transactions.TransactionRegistry._prune_retryable_locked = pruned
    transactions._strip_per_attempt_fields = answer
    storage.matches, storage._update_oplog_o = _matches, _logged
    commands.expression_problem_in_pipeline = _problem
    storage.get_path_values, storage._index_key_variants = path_values, index_keys
    swig_wiredtiger.pack, swig_wiredtiger.unpack = packed, unpacked
    update.copy = aggregate.copy = SimpleNamespace(**{**vars(copy), "deepcopy": copied})
    storage.bson = SimpleNamespace(**{**vars(bson), "encode": _encode})


def alike(one: Mapping[str, Any], other: Mapping[str, Any], index: Index, partial: Mapping[str, Any]) -> bool:
    """Whether two documents surely have the same entries in an index: all that it asks of them is the same."""
    if any(path.startswith("$") for path in partial):
        return False
    return all(_same(_at(one, path), _at(other, path)) for path in (*index[1], *partial))


def _at(document: Mapping[str, Any], path: str) -> Any:
    """What stands at a path; of one that leads through an array, the whole array."""
    found: Any = document
    for name in path.split("."):
        if not isinstance(found, Mapping):
            return found if isinstance(found, list) else MISSING
        found = found.get(name, MISSING)
    return found


def _same(one: Any, other: Any) -> bool:
    """Whether two values are kept as the same bytes: 1, 1.0 and True are not."""
    if one is other:
        return True
    if isinstance(one, str) or one is MISSING or other is MISSING:
        return type(one) is type(other) and bool(one == other)
    return bool(bson.encode({"": one}) == bson.encode({"": other}))
