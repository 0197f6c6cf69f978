"""The process of the embedded store: SecantusDB with one user, who is known before anybody can connect.

    python -P -m convergedon.core.embedded_store FOLDER options...

SecantusDB itself takes a first user over its port, which is open to everybody until then; here it is written to the
store before there is a port. The folder keeps the password; who removes it gets another at the next start.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bson
from secantus import cli, server
from secantus.auth import SCRAM_SHA_256, derive_credentials
from secantus.storage import Storage

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
    indexes and puts it in again: with the dozen that an alarm has, that was most of its processor time.
    """

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
            self._tls.is_changing = before

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
