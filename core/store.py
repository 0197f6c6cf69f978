"""Records and their unsent messages, written together.

A record and its outbox are one document, so one MongoDB write stores the change and the messages that tell of it, on
any MongoDB and without a transaction. The relay publishes what is in the outbox and then marks it sent; a crash between
any two lines loses nothing. ``MongoStore`` and ``memory.MemoryStore`` pass the same suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from time import monotonic, time
from typing import Any, NamedTuple, Protocol, TypeVar

import mongoengine
import pymongo
import structlog
from bson.errors import BSONError
from mongoengine import DictField, DynamicDocument, IntField, ListField, StringField
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    PyMongoError,
)

from convergedon.core import encryption
from convergedon.core.combining import Combined
from convergedon.core.errors import Conflict, Invalid, NotFound, Stale, Unavailable
from convergedon.core.matching import Where as Where
from convergedon.core.matching import conjunction, conjuncts, matches

log = structlog.get_logger()
T = TypeVar("T")
R = TypeVar("R")
Index = str | tuple[str, ...]
"""A path that is looked up, or several that are looked up together: equal ones first, a range last.

One by which lists are sorted ends in ``id``, as their order does: so a page is read off the index, and nothing sorted.
"""


@dataclass(frozen=True)
class Outgoing:
    """A message that waits in an outbox. ``id`` stays the same however often it is published."""

    id: str
    subject: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """A resource as we keep it: ``body`` is what clients see, ``facts`` what only we know of it.

    ``unsent`` is the outbox as it was read: the next change hands it on, so messages leave in their order even when
    the process that wrote the earlier ones died before it published them.
    """

    kind: str
    id: str
    tenant: str
    body: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 0
    unsent: tuple[Outgoing, ...] = ()

    def with_(self, body: Mapping[str, Any] | None = None, facts: Mapping[str, Any] | None = None) -> Record:
        """The same record with members of body and facts replaced."""
        return replace(self, body={**self.body, **(body or {})}, facts={**self.facts, **(facts or {})})


@dataclass(frozen=True)
class Unsent:
    """What the relay needs: all messages in a record's outbox at a revision, in their order."""

    kind: str
    id: str
    revision: int
    messages: tuple[Outgoing, ...]
    gone: bool = False


Written = Callable[[Unsent], None]
"""Is told what was written with messages."""
Published = Callable[[str], bool]
"""Whether the message with this id has left this process: it need not stand in an outbox any more."""


class Draft(NamedTuple):
    """A record as it is to be written, with the messages that tell of it."""

    record: Record
    messages: Sequence[Outgoing] = ()


class Store(Protocol):
    """Where records are kept. Every method raises Unavailable while the store cannot be reached."""

    written: Written
    published: Published

    async def create(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        """Store a new record and its messages. Raises Conflict when its id, or a unique fact, exists."""
        ...

    async def create_all(self, drafts: Sequence[Draft]) -> list[Record | Conflict]:
        """Store new records of one kind, each as ``create`` does: of each the record, or why it was not stored."""
        ...

    async def append(self, records: Sequence[Record]) -> None:
        """Store new records of one kind, without messages, in one write; those that exist already are left alone."""
        ...

    async def kept(self, kind: str, ids: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        """What is kept under these ids, as it is kept, in any order: whatever its tenant is, and deleted or not.

        Of each ``id``, tenant, revision, body, facts, outbox, and whatever else stands there.
        """
        ...

    async def number(self, kind: str) -> int:
        """How many records there are of a kind, whatever they are, counted one by one."""
        ...

    def ids(self, kind: str) -> AsyncIterator[Sequence[Any]]:
        """The ids of all there are, in the order in which the store has them: many at a time."""
        ...

    async def get(self, kind: str, tenant: str, id: str, parties: Sequence[str] | None = None) -> Record:
        """Raises NotFound, also when the record belongs to another tenant, or concerns none of the parties.

        Who asks cannot tell which, nor by the time that it takes: a record that is not to be seen is not read.
        """
        ...

    async def find(
        self, kind: str, where: Where, sort: Sequence[tuple[str, int]] = (), skip: int = 0, limit: int = 0
    ) -> list[Record]: ...

    async def count(self, kind: str, where: Where) -> int: ...

    async def replace(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        """Store body and facts if the revision is still the one read; returns the record with its new revision.

        Raises Stale when it is not, Conflict when a unique fact exists elsewhere.
        """
        ...

    async def replace_all(self, drafts: Sequence[Draft]) -> list[Record | Conflict | Stale]:
        """Replace records of one kind, each as ``replace`` does: of each the record, or why it was not replaced."""
        ...

    async def delete(self, record: Record, messages: Sequence[Outgoing] = ()) -> None: ...

    async def unsent(self, older_than: float) -> list[Unsent]:
        """Records whose outbox has waited for so many seconds, oldest first, some hundred at most."""
        ...

    async def sent(self, done: Iterable[Unsent]) -> None:
        """Take published messages out of their outboxes."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Kind:
    """A collection: its name, the paths that lists and flows look up, and facts that only one record may have.

    The more selective indexes stand first: where several could answer a filter, the first does on the embedded store.
    A unique fact binds only while it is set: an alarm gives its key free when it is cleared. One that is ``sole`` only
    one record of all tenants may have. ``swept`` are paths that few records have and that are looked up for all tenants
    together.
    """

    name: str
    indexes: tuple[Index, ...] = ()
    unique: tuple[str, ...] = ()
    swept: tuple[str, ...] = ()
    sole: tuple[str, ...] = ()


class _Stored(DynamicDocument):  # type: ignore[misc]
    """The document: mongoengine declares it and its indexes; the hot path goes to its collection directly."""

    meta = {"abstract": True, "auto_create_index": False, "index_background": True}  # noqa: RUF012
    id = StringField(primary_key=True)
    tenant = StringField(required=True)
    revision = IntField(required=True)
    body = DictField()
    facts = DictField()
    outbox = ListField(DictField())


def _paths(index: Index) -> tuple[str, ...]:
    return (index,) if isinstance(index, str) else index


def _keys(index: Index) -> list[str]:
    return ["_id" if path == "id" else path for path in _paths(index)]


def _declare(kind: Kind, alias: str) -> Any:
    # the embedded store looks nothing up in an index that binds only some records, so those have a plain one too
    indexes: list[Any] = [{"fields": ["tenant", *_keys(index)]} for index in kind.indexes]
    indexes += [{"fields": [path, "tenant"]} for path in (*kind.unique, *kind.sole)]
    bound = [*(["tenant", path] for path in kind.unique), *([path] for path in kind.sole)]
    indexes += [
        {"fields": fields, "unique": True, "partialFilterExpression": {fields[-1]: {"$exists": True}}}
        for fields in bound
    ]
    indexes += [{"fields": [path], "sparse": True} for path in ("waiting", *kind.swept)]
    meta = {"collection": kind.name, "db_alias": alias, "indexes": indexes, "auto_create_index": False}
    return type(kind.name[0].upper() + kind.name[1:], (_Stored,), {"meta": meta})


def _outbox(messages: Sequence[Outgoing]) -> list[dict[str, Any]]:
    return [{"id": m.id, "subject": m.subject, "body": m.body, "headers": m.headers} for m in messages]


def handfuls(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """These, as many at a time as are looked up at once."""
    return (values[begin : begin + HANDFUL] for begin in range(0, len(values), HANDFUL))


async def find_any(store: Store, kind: str, where: Where, path: str, values: Sequence[Any]) -> list[Record]:
    """The records that satisfy a condition and have one of these values at a path."""

    async def some(wanted: Sequence[Any]) -> list[Record]:
        return await store.find(kind, {**where, path: {"$in": [*wanted]}})

    return await by_handfuls(some, values)


async def by_handfuls(do: Callable[[Sequence[T]], Awaitable[Sequence[R]]], values: Sequence[T]) -> list[R]:
    """What comes of all these, in their order: a few handfuls at once, all to their end. Raises the first error."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def some(few: Sequence[T]) -> Sequence[R]:
        async with turns:
            return await do(few)

    outcomes = await asyncio.gather(*map(some, handfuls(values)), return_exceptions=True)
    found: list[R] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        found += outcome
    return found


def _document(draft: Draft, at: float) -> dict[str, Any]:
    """A new record as it is kept."""
    record, messages = draft
    written = {
        "_id": record.id,
        "tenant": record.tenant,
        "revision": 1,
        "body": record.body,
        "facts": record.facts,
        "outbox": _outbox(messages),
    }
    return written | ({"waiting": at} if messages else {})


def _record(kind: str, document: Mapping[str, Any]) -> Record:
    return Record(
        kind,
        document["_id"],
        document["tenant"],
        document["body"],
        document["facts"],
        document["revision"],
        tuple(Outgoing(**message) for message in document["outbox"]),
    )


def _identified(document: dict[str, Any]) -> dict[str, Any]:
    document["id"] = document.pop("_id")
    return document


def _renamed(where: Where) -> dict[str, Any]:
    """The filter with our name for the key; alternatives hold filters themselves."""
    return {
        "_id" if name == "id" else name: [_renamed(part) for part in value] if name in LOGICAL else value
        for name, value in where.items()
    }


LOGICAL = ("$and", "$or", "$nor")
LOOKED_UP = frozenset(("$eq", "$in", "$gt", "$gte", "$lt", "$lte"))
DUPLICATE = 11000
"""How a server says that something exists that may exist once."""
INSERTED = 100
"""Records that are inserted by one statement."""
HANDFUL = 50
"""Values that are looked up at once: the embedded store compares each record that it has found with each of them."""
AT_ONCE = 3
"""Handfuls side by side, so that the server need not wait while what it found is read here, or the next written."""
WALKED = 2000
"""Ids that a walk takes at a time."""
WALK_SILENCE = 600_000
"""Milliseconds that a walk or a count may take: the embedded store gathers all records before it gives the first id."""
PATIENCE = 10.0
"""Seconds that the reading of one list may take."""


def _lookup(kind: Kind, flat: Where) -> dict[str, Any]:
    """The part of a filter that an index answers: the id, else the first declared index for an equal value, then for
    one of several, then for a range, with as many of its fields as are asked.

    The embedded store uses an index for a filter of exactly its fields and reads everything for one that has a third
    condition, so this part is a stage of its own. A real planner joins the stages and chooses by itself.
    """
    declared = [*kind.unique, *kind.indexes]
    if "id" not in declared and "id" in flat and _indexable(flat["id"]) and _narrowness(flat["id"]) > RANGE:
        return {"id": flat["id"]}
    fitting = [paths for index in declared for paths in _beginnings(_paths(index)) if _answers(paths, flat)]
    best = max(fitting, key=lambda paths: _narrowness(flat[paths[0]]), default=())
    if best and best[0] in kind.unique and _narrowness(flat[best[0]]) < ONE:
        return {best[0]: flat[best[0]]}  # its plain index begins with it: with the tenant, all of that would be read
    return {path: flat[path] for path in ("tenant", *best) if path in flat}


def _answers(paths: tuple[str, ...], flat: Where) -> bool:
    there = all(path in flat and _indexable(flat[path]) for path in ("tenant", *paths))
    return there and all(_narrowness(flat[path]) == ONE for path in paths[:-1])


def _indexable(wanted: Any) -> bool:
    return not isinstance(wanted, Mapping) or LOOKED_UP.issuperset(wanted)


def _beginnings(paths: tuple[str, ...]) -> list[tuple[str, ...]]:
    """An index answers for its first fields, too: the most of them first."""
    return [paths[:length] for length in range(len(paths), 0, -1)]


def _single(wanted: Any) -> Any:
    """One of a single value is that value, which an index finds sooner."""
    few = wanted.get("$in") if isinstance(wanted, Mapping) and len(wanted) == 1 else None
    return few[0] if few and len(few) == 1 and isinstance(few[0], str | int | float) else wanted


ONE, SOME, RANGE = 1.0, 0.5, 0.1


def _narrowness(wanted: Any) -> float:
    return ONE if not isinstance(wanted, Mapping) else SOME if "$in" in wanted else RANGE


def _servable(condition: Any) -> bool:
    """Whether a server is asked this. Not for regular expressions: each server has its own dialect, and the embedded
    one stands still as long as a hostile one takes. Nor for alternatives inside one element, which that one has not.
    """
    if isinstance(condition, Mapping):
        element = condition.get("$elemMatch", ())
        return (
            "$regex" not in condition
            and not any(name.startswith("$") for name in element)
            and all(_servable(part) for part in condition.values())
        )
    return not isinstance(condition, list) or all(_servable(part) for part in condition)


def _kept(documents: Iterable[dict[str, Any]], here: Where) -> Iterator[dict[str, Any]]:
    """What of the documents read satisfies a condition that the server was not asked."""
    until = monotonic() + PATIENCE
    for document in documents:
        if monotonic() > until:
            raise Invalid(f"this filter has too much to look at in {PATIENCE:g} s: narrow it with further conditions")
        if matches({"id": document["_id"], **document}, here):
            yield document


GONE = "\0"
"""What stands before the tenant of a deleted record until its messages are out.

Not a condition on a field of its own: the embedded store uses an index of two fields only for a filter of just those.
"""


class MongoStore:
    """The store on MongoDB's wire protocol.

    mongoengine is synchronous, so calls run in threads. What is written while something of the same kind is being
    written goes together next. No findAndModify and no sorted scans where a point lookup does: the embedded store
    reads every match for them.
    """

    def __init__(
        self,
        url: str,
        database: str,
        kinds: Iterable[Kind],
        threads: int = 16,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.written: Written = lambda _: None
        self.published: Published = lambda _: False
        self._alias = f"{database}-{id(self)}"
        self._kinds = {kind.name: kind for kind in kinds}
        self._documents = {name: _declare(kind, self._alias) for name, kind in self._kinds.items()}
        self._creates: Mapping[str, Combined[Draft, Record]] = {
            name: Combined(self._create_some, INSERTED) for name in self._kinds
        }
        self._changes: Mapping[str, Combined[Draft, Record]] = {
            name: Combined(self._replace_together) for name in self._kinds
        }
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._url, self._database, self._options = url, database, options or {}

    async def open(self) -> MongoStore:
        """Connect and make the indexes. Raises Unavailable when the server does not answer."""
        await self._call(self._open)
        return self

    def _open(self) -> None:
        mongoengine.connect(
            self._database,
            alias=self._alias,
            host=self._url,
            serverSelectionTimeoutMS=5000,
            connectTimeoutMS=5000,
            socketTimeoutMS=20000,
            uuidRepresentation="standard",
            maxPoolSize=32,
            **self._options,
        )
        for document in self._documents.values():
            document.ensure_indexes()

    def _collection(self, kind: str) -> pymongo.collection.Collection[dict[str, Any]]:
        return self._documents[kind]._get_collection()  # type: ignore[no-any-return]

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except DuplicateKeyError as error:
            raise Conflict(f"it exists already: {error.details.get('keyValue') if error.details else error}") from error
        except (BSONError, OverflowError, DocumentTooLarge) as error:
            raise Invalid(f"cannot be stored: {error}") from error
        except AutoReconnect as error:
            reason = encryption.why(error) or type(error).__name__
            raise Unavailable(f"the store does not answer: {reason}") from error
        except ExecutionTimeout as error:
            raise Unavailable("the store took too long: ask for less, or with a narrower filter") from error
        except PyMongoError as error:
            # its words name our database and what is in it: they are for the log alone
            log.warning("the store refused", error=str(error))
            raise Unavailable(f"the store refused: {type(error).__name__}") from error

    async def create(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        return await self._creates[record.kind](Draft(record, messages))

    async def _create_some(self, drafts: Sequence[Draft]) -> Sequence[Record | Exception]:
        """New ones of one kind that came together. One that cannot be stored at all is the others' no harm."""
        if len(drafts) > 1:
            with suppress(Invalid):
                return await self._insert(drafts)
        return await _each(self._create, drafts)

    async def _create(self, draft: Draft) -> Record:
        document = _document(draft, time())
        await self._call(lambda: self._collection(draft.record.kind).insert_one(document))
        return self._tell(replace(draft.record, revision=1), draft.messages)

    async def create_all(self, drafts: Sequence[Draft]) -> list[Record | Conflict]:
        creating = (self.create(*draft) for draft in drafts)
        found: list[Record | Conflict] = []
        for outcome in await asyncio.gather(*creating, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, Conflict):
                raise outcome
            found.append(outcome)
        return found

    async def _insert(self, drafts: Sequence[Draft]) -> list[Record | Exception]:
        """In one statement."""
        collection, at = self._collection(drafts[0].record.kind), time()
        documents = [_document(draft, at) for draft in drafts]

        def write() -> dict[int, Mapping[str, Any]]:
            try:
                collection.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                failures = error.details["writeErrors"]
                if any(failure.get("code") != DUPLICATE for failure in failures):
                    raise
                return {failure["index"]: failure for failure in failures}
            return {}

        failed = await self._call(write)
        return [
            Conflict(f"it exists already: {failed[number].get('keyValue', draft.record.id)}")
            if number in failed
            else self._tell(replace(draft.record, revision=1), draft.messages)
            for number, draft in enumerate(drafts)
        ]

    def _tell(self, record: Record, messages: Sequence[Outgoing], gone: bool = False) -> Record:
        now = replace(record, unsent=(*record.unsent, *messages))
        if messages or gone:
            self.written(Unsent(now.kind, now.id, now.revision, now.unsent, gone))
        return now

    async def append(self, records: Sequence[Record]) -> None:
        documents = [
            {"_id": r.id, "tenant": r.tenant, "revision": 1, "body": r.body, "facts": r.facts, "outbox": []}
            for r in records
        ]
        collection = self._collection(records[0].kind)

        def write() -> None:
            try:
                collection.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                if any(failure.get("code") != DUPLICATE for failure in error.details["writeErrors"]):
                    raise

        await self._call(write)

    async def kept(self, kind: str, ids: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        collection = self._collection(kind)

        def read() -> list[dict[str, Any]]:
            return [_identified(one) for few in handfuls(ids) for one in collection.find({"_id": {"$in": [*few]}})]

        return await self._call(read)

    async def number(self, kind: str) -> int:
        def count() -> int:
            with self._patient() as client:
                collection = client[self._database][kind]
                if "secantusVersion" in client.server_info():
                    return collection.estimated_document_count()  # which counts; the other way it gathers them all
                return collection.count_documents({})  # MongoDB's estimate is a note, wrong after a crash

        return await self._call(count)

    async def ids(self, kind: str) -> AsyncIterator[Sequence[Any]]:
        client = self._patient()
        cursor = client[self._database][kind].find({}, {"_id": 1}, batch_size=WALKED)

        def read() -> list[Any]:
            return [document["_id"] for document in islice(cursor, WALKED)]

        try:
            while batch := await self._call(read):
                yield batch
        finally:
            await self._call(client.close)

    def _patient(self) -> pymongo.MongoClient[dict[str, Any]]:
        """A client of its own: the time that a socket may be silent belongs to a client."""
        return pymongo.MongoClient(
            self._url, socketTimeoutMS=WALK_SILENCE, serverSelectionTimeoutMS=5000, **self._options
        )

    async def get(self, kind: str, tenant: str, id: str, parties: Sequence[str] | None = None) -> Record:
        # all that is asked stands in one index of the kind, and where there is none, the id is looked up first
        mine: dict[str, Any] = {"_id": id, "tenant": tenant}
        asked = [mine] if parties is None else [{**mine, "facts.parties": party} for party in parties]

        def read() -> dict[str, Any] | None:
            found = map(self._collection(kind).find_one, asked)
            return next((document for document in found if document is not None), None)

        document = await self._call(read)
        if document is None:
            raise NotFound(f"there is no {kind} {id}")
        return _record(kind, document)

    async def find(
        self, kind: str, where: Where, sort: Sequence[tuple[str, int]] = (), skip: int = 0, limit: int = 0
    ) -> list[Record]:
        stages, here = self.stages(kind, where)
        if sort:
            stages.append({"$sort": {"_id" if path == "id" else path: way for path, way in sort}})
        if not here:
            stages += [{"$skip": skip}] if skip else []
            stages += [{"$limit": limit}] if limit else []

        def read() -> list[Record]:
            found: Iterable[dict[str, Any]] = self._aggregate(kind, stages)
            if here:
                found = islice(_kept(found, here), skip, skip + limit if limit else None)
            return [_record(kind, document) for document in found if not document["tenant"].startswith(GONE)]

        return await self._call(read)

    async def count(self, kind: str, where: Where) -> int:
        stages, here = self.stages(kind, where)
        if here:
            return await self._call(lambda: sum(1 for _ in _kept(self._aggregate(kind, stages), here)))
        counted = await self._call(lambda: list(self._aggregate(kind, [*stages, {"$count": "number"}])))
        return int(counted[0]["number"]) if counted else 0

    def stages(self, kind: str, where: Where) -> tuple[list[dict[str, Any]], Where]:
        """How a filter is answered: what the server is asked stage by stage, and what is left to be looked at here."""
        parts = conjuncts(where)
        flat = conjunction([part for part in parts if _servable(part)])
        flat = {path: _single(wanted) for path, wanted in flat.items()}
        looked = _lookup(self._kinds[kind], flat)
        checked = {path: wanted for path, wanted in flat.items() if path not in looked}
        asked = [{"$match": _renamed(part)} for part in (looked, checked) if part]
        return asked, conjunction([part for part in parts if not _servable(part)])

    def _aggregate(self, kind: str, stages: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
        return self._collection(kind).aggregate(stages, maxTimeMS=int(PATIENCE * 1000))

    async def replace(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        return await self._changes[record.kind](Draft(record, messages))

    async def _replace_together(self, drafts: Sequence[Draft]) -> Sequence[Record | Exception]:
        """Changes of one kind that came together. Of several of one record at most one finds it as it was read."""
        if len({draft.record.id for draft in drafts}) == len(drafts) > 1:
            with suppress(Invalid):
                return await self.replace_all(drafts)
        return await _each(self._replace, drafts)

    async def _replace(self, draft: Draft) -> Record:
        record, messages = draft
        return await self._guarded(record, {"body": record.body, "facts": record.facts}, messages)

    async def delete(self, record: Record, messages: Sequence[Outgoing] = ()) -> None:
        await self._guarded(record, {"tenant": GONE + record.tenant}, messages, gone=True)

    async def _guarded(
        self, record: Record, change: dict[str, Any], messages: Sequence[Outgoing], gone: bool = False
    ) -> Record:
        update: dict[str, Any] = {"$set": change, "$inc": {"revision": 1}}
        if messages or gone:
            change["waiting"] = time()
            update["$push"] = {"outbox": {"$each": _outbox(messages)}}
        where = {"_id": record.id, "tenant": record.tenant, "revision": record.revision}
        result = await self._call(lambda: self._collection(record.kind).update_one(where, update))
        if result.matched_count == 0:
            raise Stale(f"{record.kind} {record.id} was changed by somebody else")
        return self._tell(replace(record, revision=record.revision + 1), messages, gone)

    async def replace_all(self, drafts: Sequence[Draft]) -> list[Record | Conflict | Stale]:
        return await by_handfuls(self._replace_some, drafts)

    async def _replace_some(self, drafts: Sequence[Draft]) -> list[Record | Conflict | Stale]:
        """In one statement: the embedded store takes less than half of what it takes for as many."""
        collection, ids = self._collection(drafts[0].record.kind), [draft.record.id for draft in drafts]
        change, values = _replacing(drafts, self.published, time())

        def write() -> bool:
            try:
                return collection.update_many({"_id": {"$in": ids}}, change, let=values).modified_count == len(drafts)
            except DuplicateKeyError:
                return False  # those before it are replaced all the same

        if await self._call(write):
            return [self._told(draft) for draft in drafts]
        there = {document["id"]: document for document in await self.kept(drafts[0].record.kind, ids)}
        return [await self._replaced(draft, there.get(draft.record.id, {})) for draft in drafts]

    def _told(self, draft: Draft) -> Record:
        record, messages = draft
        return self._tell(replace(record, revision=record.revision + 1), messages)

    async def _replaced(self, draft: Draft, document: Mapping[str, Any]) -> Record | Conflict | Stale:
        """What became of one where not all were replaced; the others come again, one at a time."""
        record = draft.record
        if document.get("revision") == record.revision + 1 and _is_ours(draft, document):
            return self._told(draft)
        try:
            return await self._replace(draft)
        except (Conflict, Stale) as error:
            return error

    async def unsent(self, older_than: float) -> list[Unsent]:
        latest = time() - older_than

        def read() -> list[Unsent]:
            return [
                Unsent(
                    kind,
                    document["_id"],
                    document["revision"],
                    tuple(Outgoing(**message) for message in document["outbox"]),
                    document["tenant"].startswith(GONE),
                )
                for kind in self._kinds
                for document in self._collection(kind)
                .find({"waiting": {"$lt": latest}}, {"outbox": 1, "revision": 1, "tenant": 1})
                .limit(200)
            ]

        return await self._call(read)

    async def sent(self, done: Iterable[Unsent]) -> None:
        by_kind: dict[str, list[Unsent]] = {}
        for unsent in done:
            by_kind.setdefault(unsent.kind, []).append(unsent)
        for kind, several in by_kind.items():
            await self._call(partial(self._mark, self._collection(kind), several))

    def _mark(self, collection: pymongo.collection.Collection[dict[str, Any]], several: Sequence[Unsent]) -> None:
        """What was published goes; what a later revision has added stays."""
        revisions: dict[int, list[Unsent]] = {}
        for unsent in several:
            revisions.setdefault(unsent.revision, []).append(unsent)
        for revision, alike in revisions.items():
            for some in handfuls(alike):
                _empty(collection, revision, some)
        gone = [pymongo.DeleteOne({"_id": one.id, "revision": one.revision}) for one in several if one.gone]
        if gone:
            collection.bulk_write(gone, ordered=False)

    async def ping(self) -> None:
        await self._call(lambda: mongoengine.get_connection(self._alias).admin.command("ping"))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, mongoengine.disconnect, self._alias)
        self._pool.shutdown(wait=True)


async def _each(write: Callable[[Draft], Awaitable[Record]], drafts: Sequence[Draft]) -> list[Record | Exception]:
    """One by one: of each the record, or what went wrong."""

    async def outcome(draft: Draft) -> Record | Exception:
        try:
            return await write(draft)
        except Exception as error:
            return error

    return list(await asyncio.gather(*map(outcome, drafts)))


def _replacing(drafts: Sequence[Draft], published: Published, at: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The change of all these records: of each by its id, if it is still as it was read; and its values.

    They stand beside the change, in which the embedded store would look for operators in each of them.
    """
    ids = [draft.record.id for draft in drafts]
    fresh = [
        {
            "tenant": record.tenant,
            "revision": record.revision,
            "body": record.body,
            "facts": record.facts,
            "outbox": _outbox(messages),
            "out": [message.id for message in record.unsent if published(message.id)],
            "at": [at] if messages else [],
        }
        for record, messages in drafts
    ]
    mine = {"$arrayElemAt": ["$$all", {"$indexOfArray": ["$$ids", "$_id"]}]}
    same = {"$and": [{"$eq": ["$$fresh.revision", "$revision"]}, {"$eq": ["$$fresh.tenant", "$tenant"]}]}
    changed = {
        "revision": {"$add": ["$revision", 1]},
        "body": "$$fresh.body",
        "facts": "$$fresh.facts",
        "outbox": {"$concatArrays": [_without("$$fresh.out"), "$$fresh.outbox"]},
        "waiting": {"$ifNull": [{"$arrayElemAt": ["$$fresh.at", 0]}, "$waiting"]},
    }
    whole = {"$cond": [same, {"$mergeObjects": ["$$ROOT", changed]}, "$$ROOT"]}
    values = {"all": {"$literal": fresh}, "ids": {"$literal": ids}}
    return [{"$replaceWith": {"$let": {"vars": {"fresh": mine}, "in": whole}}}], values


def _without(ids: Any) -> dict[str, Any]:
    """An outbox without the messages that an expression names."""
    return {"$filter": {"input": "$outbox", "as": "one", "cond": {"$not": [{"$in": ["$$one.id", ids]}]}}}


def _is_ours(draft: Draft, document: Mapping[str, Any]) -> bool:
    """Whether a record stands as we meant to write it."""
    record, messages = draft
    if messages:
        return any(kept["id"] == messages[0].id for kept in document["outbox"])
    return bool(document["body"] == record.body and document["facts"] == record.facts)


def _empty(collection: pymongo.collection.Collection[dict[str, Any]], revision: int, several: Sequence[Unsent]) -> None:
    """Take what was published out of records that were at this revision: of one that still is, all there is."""
    ids = [unsent.id for unsent in several]
    unchanged = {"_id": {"$in": ids}, "revision": revision}
    # no operators: for those the embedded store copies the whole document first, and finds out what they changed
    emptied: list[dict[str, Any]] = [{"$set": {"outbox": []}}, {"$unset": "waiting"}]
    if collection.update_many(unchanged, emptied).matched_count < len(ids):
        collection.update_many({"_id": {"$in": ids}}, _emptying(several))


def _emptying(several: Sequence[Unsent]) -> list[dict[str, Any]]:
    """The change that takes these messages out of the outboxes that they stand in."""
    ids = [message.id for unsent in several for message in unsent.messages]
    waits = {"$cond": [{"$eq": ["$outbox", []]}, "$$REMOVE", "$waiting"]}
    return [{"$set": {"outbox": _without({"$literal": ids})}}, {"$set": {"waiting": waits}}]
