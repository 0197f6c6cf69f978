"""The process of the embedded store: SecantusDB with one user, who is known before anybody can connect.

    python -P -m convergedon.core.embedded_store FOLDER options...

SecantusDB itself takes a first user over its port, which is open to everybody until then; here it is written to the
store before there is a port. The folder keeps the password; who removes it gets another at the next start.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bson
from secantus import cli, server, storage, transactions
from secantus.auth import SCRAM_SHA_256, derive_credentials
from secantus.storage import Storage
from wiredtiger import swig_wiredtiger

USER = "convergedon"
DATABASE = "admin"


TRIED = "0.7.0b3"
"""The SecantusDB whose inner parts ``LeanStorage`` knows; any other does its work alone."""
MISSING = object()

Index = tuple[str, Mapping[str, Any], bool, bool]
Definition = tuple[str, dict[str, Any], dict[str, Any]]


class LeanStorage(Storage):  # type: ignore[misc]
    """SecantusDB's storage without the work that changes nothing.

    Left to itself it reads the definitions of a collection's indexes some four times for each statement, and for each
    document that it writes, though it sees the same each time, and takes each document that it changes out of all
    indexes and puts it in again: with the dozen that an alarm has, that was most of its processor time. Of many
    documents that are changed by their ids it compares each with each id, twice, encodes each four times, and finds out
    what a pipeline has changed in it for the log of changes, where the whole document does as well. After each
    statement it reads whether that is to be profiled.
    """

    def __init__(self, *what: Any, **how: Any) -> None:
        self._profiles: dict[str, dict[str, Any]] = {}
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
        known = getattr(self._tls, "definitions", None)
        if known is None:
            return super()._iter_indexes(db, coll)  # type: ignore[no-any-return]
        if (db, coll) not in known:
            known[db, coll] = [*super()._iter_indexes(db, coll)]
        return known[db, coll]  # type: ignore[no-any-return]

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
    """SecantusDB's, but for what a pipeline has changed: that is logged as a document that replaces another."""
    return LOGGED(before, after, update, is_whole or (_left_out.is_on and isinstance(update, list)))


def packed(form: str, *values: Any) -> Any:
    """WiredTiger's, but for some bytes, and for keys of three texts and some bytes: values, and entries of indexes."""
    if form == "u" and type(values[0]) is bytes:
        return values[0]
    if form == "SSSu" and type(values[3]) is bytes:
        texts = "\0".join(values[:3])
        if texts.count("\0") == 2:
            return b"%b\0%b" % (texts.encode(), values[3])
    return PACKED(form, *values)


MATCHES, LOGGED, PACKED = storage.matches, storage._update_oplog_o, swig_wiredtiger.pack


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
    storage.matches, storage._update_oplog_o, swig_wiredtiger.pack = _matches, _logged, packed
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
    if isinstance(one, str) or one is MISSING or other is MISSING:
        return type(one) is type(other) and bool(one == other)
    return bool(bson.encode({"": one}) == bson.encode({"": other}))


def main() -> None:
    folder, options = Path(sys.argv[1]), sys.argv[2:]
    _admit(folder / "store", (folder / "password").read_text(), folder / "admitted")
    if version("SecantusDB") == TRIED:
        lean()
        server.Storage = LeanStorage
    sys.exit(cli.main([*options, "--storage-path", str(folder / "store"), "--auth"]))


def _admit(store: Path, password: str, admitted: Path) -> None:
    """Let the user in by this password, and by no other. ``admitted`` notes which that is."""
    which = sha256(password.encode()).hexdigest()
    if admitted.exists() and admitted.read_text() == which:
        return
    user = {
        "_id": f"{DATABASE}.{USER}",
        "user": USER,
        "db": DATABASE,
        "credentials": derive_credentials(password, mechanism=SCRAM_SHA_256, username=USER).to_doc(),
        "roles": [{"role": "root", "db": DATABASE}],
        "mechanisms": [SCRAM_SHA_256],
    }
    opened = Storage(str(store), sync_on_commit=True)
    try:
        opened.add_user(DATABASE, USER, user, replace=True)
    finally:
        opened.close()
    admitted.write_text(which)


if __name__ == "__main__":
    main()
