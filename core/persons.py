"""Who is meant by a record that nobody may change: a reference by a keyed hash, whose clear text stands elsewhere.

Each client, user or party of a tenant has a random key of its own. A record tells it by the hash of its name under that
key; name and key stand in a collection of their own. With them gone, what the records say of it leads to nobody, and
the records are as they were.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

from convergedon.core.errors import Conflict, NotFound, Unavailable
from convergedon.core.store import Kind, Record, Store

KIND = Kind("auditPerson", ("body.reference",))
REFERENCE = re.compile(r"~[0-9a-f]{32}")
NOBODY = frozenset(("", "convergedon"))
"""Subjects that are no person: the gateway itself, and none."""
REMEMBERED = 4096
FRESH = 20.0
"""Seconds that a process believes what it knows of a person: so long after an erasure the old reference may go on."""

DEVICE = "device/"
"""What the name of a device stands behind where it is the subject of a record: it is no person either."""

Name = tuple[str, str]
"""A tenant, and a name in it."""


def reference(key: bytes, tenant: str, name: str) -> str:
    return "~" + hmac.new(key, f"{tenant}\0{name}".encode(), hashlib.sha256).hexdigest()[:32]


def is_person(subject: str) -> bool:
    return subject not in NOBODY and not subject.startswith(DEVICE)


def _id(tenant: str, name: str) -> str:
    """Where a person's key is found; it goes with the person."""
    return hashlib.sha256(f"{tenant}\0{name}".encode()).hexdigest()[:40]


class Persons:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[Name, tuple[float, str]] = {}

    async def references(self, names: Iterable[Name]) -> Mapping[Name, str]:
        """The reference of each; who has none is given one. Raises Unavailable."""
        now, found, asked = monotonic(), {}, []
        for name in set(names):
            until, known = self._known.get(name, (0.0, ""))
            if until > now:
                found[name] = known
            else:
                asked.append(name)
        for name, told in zip(asked, await asyncio.gather(*(self._referred(*name) for name in asked)), strict=True):
            found[name] = told
            self._known[name] = (now + FRESH, told)
        while len(self._known) > REMEMBERED:
            self._known.pop(next(iter(self._known)))
        return found

    async def _referred(self, tenant: str, name: str) -> str:
        id = _id(tenant, name)
        try:
            return str((await self._store.get(KIND.name, tenant, id)).body["reference"])
        except NotFound:
            key = secrets.token_bytes(32)
        body = {"name": name, "key": key.hex(), "reference": reference(key, tenant, name)}
        try:
            await self._store.create(Record(KIND.name, id, tenant, body))
        except Conflict:  # another process was first, or it is being erased just now
            try:
                body = dict((await self._store.get(KIND.name, tenant, id)).body)
            except NotFound as error:
                raise Unavailable("a person's reference is being erased") from error
        return str(body["reference"])

    async def of(self, tenant: str, names: Iterable[str]) -> Mapping[str, str]:
        """The references that there are for these names."""
        ids = {_id(tenant, name): name for name in names}
        found = await self._store.find(KIND.name, {"tenant": tenant, "id": {"$in": list(ids)}}) if ids else []
        return {ids[record.id]: record.body["reference"] for record in found if record.body}

    async def names(self, tenant: str, references: Iterable[str]) -> Mapping[str, str]:
        """The names behind references, as far as they are known still."""
        asked = sorted(set(references))
        where = {"tenant": tenant, "body.reference": {"$in": asked}}
        found = await self._store.find(KIND.name, where) if asked else []
        return {record.body["reference"]: record.body["name"] for record in found}

    async def told(self, tenant: str, bodies: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The same, with names in the place of references wherever they stand."""
        texts = [text for body in bodies for text in (body.get("subject"), body.get("detail")) if text]
        known = await self.names(tenant, {found for text in texts for found in _references(text)})
        return [_named(body, known) for body in bodies] if known else list(bodies)

    async def asked(self, tenant: str, where: Mapping[str, Any]) -> Mapping[str, Any]:
        """A filter by the names of subjects, as one by what the records hold."""
        names = {text for condition in _conditions(where) for text in _texts(condition)}
        known = await self.of(tenant, filter(is_person, names))
        return _with_references(where, known) if known else where

    async def erase(self, tenant: str, name: str) -> str:
        """Destroy name and key; returns the reference that leads nowhere now. Raises NotFound."""
        try:
            record = await self._store.get(KIND.name, tenant, _id(tenant, name))
        except NotFound as error:
            raise NotFound(f"the audit record knows no {name} of tenant {tenant}") from error
        self._known.pop((tenant, name), None)
        # emptied first: a deleted record stays until a relay takes it away
        emptied = await self._store.replace(Record(KIND.name, record.id, tenant, {}, {}, record.revision))
        await self._store.delete(emptied)
        return str(record.body["reference"])


SUBJECT = "body.subject"


def _conditions(where: Any) -> Iterable[Any]:
    if isinstance(where, Mapping):
        for path, wanted in where.items():
            yield from (wanted,) if path == SUBJECT else _conditions(wanted)
    elif isinstance(where, list | tuple):
        for part in where:
            yield from _conditions(part)


def _texts(condition: Any) -> Iterable[str]:
    if isinstance(condition, str):
        yield condition
    elif isinstance(condition, Mapping):
        for operator in ("$eq", "$ne", "$in", "$nin"):
            yield from _texts(condition.get(operator))
    elif isinstance(condition, list | tuple):
        for part in condition:
            yield from _texts(part)


def _with_references(where: Any, known: Mapping[str, str]) -> Any:
    if isinstance(where, Mapping):
        return {
            path: _condition(wanted, known) if path == SUBJECT else _with_references(wanted, known)
            for path, wanted in where.items()
        }
    return [_with_references(part, known) for part in where] if isinstance(where, list | tuple) else where


def _condition(wanted: Any, known: Mapping[str, str]) -> Any:
    """``several`` of one: the name itself stays, as a device or an older record has it."""
    if isinstance(wanted, str):
        return {"$in": [wanted, known[wanted]]} if wanted in known else wanted
    if not isinstance(wanted, Mapping):
        return wanted
    some = {"$eq": "$in", "$ne": "$nin"}
    told: dict[str, Any] = {}
    operator: str
    for operator, value in wanted.items():
        values = list(_texts(value)) if operator in ("$eq", "$ne", "$in", "$nin") else []
        more = [known[text] for text in values if text in known]
        if more:
            told[some.get(operator, operator)] = [*(value if isinstance(value, list) else [value]), *more]
        else:
            told[operator] = value
    return told


def _references(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        if "~" in value:
            yield from REFERENCE.findall(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)


def _named(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return REFERENCE.sub(lambda found: known.get(found[0], found[0]), value) if "~" in value else value
    if isinstance(value, Mapping):
        return {name: _named(part, known) for name, part in value.items()}
    return [_named(part, known) for part in value] if isinstance(value, list) else value


PERSONAL = frozenset(("party", "parties", "owner", "callback", "client", "customer"))
"""Members of a record's detail whose texts are somebody's."""


def spoken(detail: Mapping[str, Any]) -> set[str]:
    """The names that a detail holds by themselves."""
    if PERSONAL.isdisjoint(detail):
        return set()
    return {text for member in PERSONAL.intersection(detail) for text in _texts(detail[member]) if is_person(text)}


def referred(value: Any, known: Mapping[str, str], own: bool = False) -> Any:
    """A detail with references in the place of names: of whole texts of personal members (``own``), and wherever a
    sentence quotes one.
    """
    if isinstance(value, str):
        return known.get(value, value) if own else _quoting(value, known)
    if isinstance(value, dict):
        return {
            name: part if type(part) in UNSPOKEN else referred(part, known, name in PERSONAL)
            for name, part in value.items()
        }
    return [referred(part, known, own) for part in value] if isinstance(value, list | tuple) else value


UNSPOKEN = frozenset((int, float, bool, type(None)))


def _quoting(text: str, known: Mapping[str, str]) -> str:
    for name, told in known.items():
        if name in text:
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", told, text)
    return text
