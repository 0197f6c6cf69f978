"""What distinguishes one TM Forum resource from another, and the only way in which any of them is written.

Everything uniform is in ``Resources``: a record, its lifecycle and its events are one write. What differs stands in a
``Resource``: its name, its lifecycle, what the server adds to a new one and whom it concerns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from convergedon.core import trace
from convergedon.core.bus import partition, token
from convergedon.core.errors import Conflict, Stale
from convergedon.core.lifecycle import Lifecycle
from convergedon.core.matching import differing
from convergedon.core.store import Draft, Index, Kind, Outgoing, Record, Store
from convergedon.handlers import documents
from convergedon.handlers.versions import BEYOND, SAME, Translation

Body = Mapping[str, Any]
HIDDEN: Sequence[Index] = (("facts.parties", "id"), "id")
"""How one record is looked up, together with who may see it: what is another's is not even read, or the time that an
answer takes would tell of it."""


def now() -> str:
    """The present in the form that every timestamp of ours has: UTC, milliseconds, ending in Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def related_parties(body: Body) -> list[str]:
    """The ids of the parties that a resource concerns (its relatedParty members)."""
    return sorted({party["id"] for party in body.get("relatedParty") or [] if isinstance(party.get("id"), str)})


@dataclass(frozen=True)
class Resource:
    """``name`` is its path segment and collection, ``schema`` its name in the document and in event types.

    ``new`` returns the members that the server sets when one is created, ``changed`` those that follow from any change;
    ``parties`` says whom it concerns. ``rule`` is given the body before (None: a new one) and after each write, whoever
    writes, and raises Conflict for what may not be; ``guard`` likewise for what a client asks (after None: its
    deletion), for what only the gateway may do. ``views`` are, from the facts, the members that a party sees in place
    of the resource's own: what touches several customers shows each only what is its; ``viewed`` names them all, and
    who sees a part cannot ask by them. ``untold`` are members that are too large for an event.
    ``states`` are the lifecycles of further members that are states too (X.731 has several).
    ``ours`` are, from the facts, the members that only the gateway's own work changes; while there are any, no client
    deletes the resource. ``reported`` are, of a record and what a client would make of it, the members that only the
    network writes. ``told_of_persons`` says that it holds references to persons (core/persons.py), which are read
    and asked for by name. ``dated`` are date-times that only another version than the one of the records declares.
    ``computed`` tells of a resource that is not kept what there is of a tenant's now.
    """

    name: str
    schema: str
    new: Callable[[Body], Body] = lambda _: {}
    parties: Callable[[Body], list[str]] = related_parties
    lifecycle: Lifecycle | None = None
    indexes: tuple[Index, ...] = ()
    unique: tuple[str, ...] = ()
    swept: tuple[str, ...] = ()
    sole: tuple[str, ...] = ()
    changed: Callable[[Body], Body] = lambda _: {}
    rule: Callable[[Body | None, Body], None] = lambda *_: None
    guard: Callable[[Body, Body | None], None] = lambda *_: None
    views: Callable[[Body], Mapping[str, Body]] = lambda _: {}
    viewed: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    states: tuple[Lifecycle, ...] = ()
    ours: Callable[[Body], Collection[str]] = lambda _: ()
    reported: Callable[[Record, Body], Collection[str]] = lambda *_: ()
    dated: tuple[str, ...] = ()
    computed: Callable[[Store, str], Awaitable[Sequence[Record]]] | None = None
    told_of_persons: bool = False

    @property
    def lifecycles(self) -> tuple[Lifecycle, ...]:
        return (self.lifecycle, *self.states) if self.lifecycle else self.states

    def admit(self, record: Record, after: Body | None) -> None:
        """Raise Conflict for what a client may not ask: a change (after None: the deletion) that is not its to make."""
        self.guard(record.body, after)
        ours = self.ours(record.facts)
        if ours and after is None:
            raise Conflict(f"{self.name} {record.id} cannot be deleted: an order made it and it is in use")
        if kept := sorted(set(ours) & set(differing(record.body, after or record.body))):
            raise Conflict(f"{', '.join(kept)} of {self.name} {record.id} follows from orders: order the change")
        reported = set(self.reported(record, after)) if after is not None else set()
        if said := sorted(reported & set(differing(record.body, after or record.body))):
            raise Conflict(
                f"{', '.join(said)} of {self.name} {record.id} is what the network said: it alone changes it"
            )

    @property
    def kind(self) -> Kind:
        return Kind(self.name, (*HIDDEN, *self.indexes), self.unique, self.swept, self.sole)


@dataclass(frozen=True)
class Api:
    """One API version: the document that declares it, the path it is served under, and its resources.

    A version that serves the records of another has a translation for each resource, by name, and in ``words`` what it
    calls those that it calls otherwise.
    """

    document: str
    base: str
    resources: tuple[Resource, ...]
    translations: Mapping[str, Translation] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    def translation(self, name: str) -> Translation:
        return self.translations.get(name, SAME)

    def word(self, name: str) -> str:
        """What a resource is called here: its path segment, and its member in events."""
        return self.words.get(name, name)

    def schema(self, resource: Resource) -> str:
        """Its name in the document and in event types."""
        word = self.words.get(resource.name, "")
        return word[:1].upper() + word[1:] or resource.schema

    def find(self, word: str) -> Resource | None:
        return next((resource for resource in self.resources if self.word(resource.name) == word), None)

    def resource(self, name: str) -> Resource:
        return next(resource for resource in self.resources if resource.name == name)


def narrowed(body: Body, views: Mapping[str, Body], parties: Sequence[str]) -> dict[str, Any]:
    """A representation with the members that these parties see in their place."""
    return {**body, **{name: value for party in parties for name, value in views.get(party, {}).items()}}


def without(body: Body, names: Collection[str]) -> dict[str, Any]:
    """A body but for some of its members."""
    return {name: value for name, value in body.items() if name not in names}


HUB = Kind("hub", (*HIDDEN, "facts.api"))


@dataclass
class Resources:
    """Reads and writes resources; each change and the events that tell of it are one write in the store.

    ``url`` is where clients reach the gateway: it begins the href of everything that is told in events.
    """

    store: Store
    apis: Sequence[Api]
    url: str
    _homes: dict[str, Api] = field(init=False)

    def __post_init__(self) -> None:
        self._homes = {resource.name: api for api in reversed(self.apis) for resource in api.resources}

    def href(self, kind: str, id: str, url: str | None = None, api: Api | None = None) -> str:
        """Where a resource is: as events say it, or as the caller reached us (``url``) in one version (``api``)."""
        api = api or self._homes[kind]
        return f"{self.url if url is None else url}{api.base}/{api.word(kind)}/{id}"

    def present(self, record: Record, url: str | None = None, api: Api | None = None) -> dict[str, Any]:
        """A record as clients see it, of the version in which it is kept if none is named."""
        href = self.href(record.kind, record.id, url, api)
        translation = api.translation(record.kind) if api else SAME
        return {"id": record.id, "href": href, **translation.outward(record.body, record.facts.get(BEYOND, {}))}

    def present_to(
        self, parties: Sequence[str], resource: Resource, record: Record, url: str, api: Api | None = None
    ) -> dict[str, Any]:
        """A record as one who speaks for these parties alone sees it."""
        beyond = without(record.facts.get(BEYOND, {}), resource.viewed)
        body = narrowed(record.body, resource.views(record.facts), parties)
        return self.present(replace(record, body=body, facts={**record.facts, BEYOND: beyond}), url, api)

    async def create(
        self,
        resource: Resource,
        tenant: str,
        body: Body,
        facts: Body | None = None,
        id: str | None = None,
        also: Sequence[Outgoing] = (),
    ) -> Record:
        """Store a new resource and its CreateEvent. Raises Conflict when it exists or cannot begin in its state."""
        return await self.store.create(*self.new(resource, tenant, body, facts, id, also))

    def new(
        self,
        resource: Resource,
        tenant: str,
        body: Body,
        facts: Body | None = None,
        id: str | None = None,
        also: Sequence[Outgoing] = (),
        by: str = "",
    ) -> Draft:
        """What ``create`` stores. Raises Conflict when it cannot begin in its state."""
        whole = {**body, **resource.new(body)}
        for lifecycle in resource.lifecycles:
            if lifecycle.member in whole:
                lifecycle.check(None, whole[lifecycle.member])
        resource.rule(None, whole)
        known = {"parties": resource.parties(whole), "trace": trace.trace_id(), **(facts or {})}
        known.update(self._instants(resource, whole))
        record = Record(resource.name, id or str(uuid4()), tenant, whole, known)
        return Draft(record, [self._event(resource, record, "Create", by=by), *also])

    def _instants(self, resource: Resource, body: Body) -> dict[str, Any]:
        """The body's date-times as numbers, which queries and sorts compare: the texts may have any offset."""
        at = documents.shape(self._homes[resource.name].document, resource.schema).instants(body)
        at |= {name: documents.instant(body[name]) for name in resource.dated if name in body}
        return {"at": at} if at else {}

    async def change(
        self,
        resource: Resource,
        record: Record,
        body: Body | None = None,
        facts: Body | None = None,
        also: Sequence[Outgoing] = (),
        whole: bool = False,
        description: str = "",
    ) -> Record:
        """Store changed members (``whole``: the body as a whole) and the event of the change.

        ``description`` says in the event why. Nothing changed is nothing written. Raises Conflict for a move that the
        lifecycle has not, Stale when somebody else was first.
        """
        draft = self.changed(resource, record, body, facts, also, whole, description)
        return await self.store.replace(*draft) if draft else record

    def changed(
        self,
        resource: Resource,
        record: Record,
        body: Body | None = None,
        facts: Body | None = None,
        also: Sequence[Outgoing] = (),
        whole: bool = False,
        description: str = "",
        by: str = "",
    ) -> Draft | None:
        """What ``change`` stores; nothing where nothing changed. Raises Conflict for a move that there is not."""
        fresh = dict(body or {}) if whole else {**record.body, **(body or {})}
        members = differing(record.body, fresh)
        if members:
            resource.rule(record.body, fresh)
            fresh.update(resource.changed(fresh))
        known = {**record.facts, "parties": resource.parties(fresh) or record.facts.get("parties", []), **(facts or {})}
        if members:
            known.update({"at": None} | self._instants(resource, fresh))
        known = {name: value for name, value in known.items() if value is not None}
        news = differing(record.facts.get(BEYOND, {}), known.get(BEYOND, {}))
        if not members and known == record.facts and not also:
            return None
        changed = Record(record.kind, record.id, record.tenant, fresh, known, record.revision, record.unsent)
        told = []
        if members:
            what = self._what(resource, record.body, fresh)
            told = [self._event(resource, changed, what, members, description, news, by)]
        elif news:
            told = [self._event(resource, changed, "AttributeValueChange", (), description, news, by)]
        return Draft(changed, [*told, *also])

    def _what(self, resource: Resource, before: Body, after: Body) -> str:
        """The kind of change. Raises Conflict when it may not be."""
        moved = [one for one in resource.lifecycles if before.get(one.member) != after.get(one.member)]
        for lifecycle in moved:
            if after.get(lifecycle.member) is None:
                raise Conflict(f"{lifecycle.member} cannot be removed")
            lifecycle.check(before.get(lifecycle.member), after[lifecycle.member])
        return "StateChange" if moved else "AttributeValueChange"

    async def write(self, drafts: Sequence[Draft]) -> list[Record | Conflict | Stale]:
        """Store what ``new`` and ``changed`` made, of each the record or why it was not; at once where it can be.

        Raises Unavailable: any of them may be stored then.
        """
        groups: dict[tuple[str, bool], list[int]] = {}
        for number, (record, _) in enumerate(drafts):
            groups.setdefault((record.kind, record.revision > 0), []).append(number)
        outcomes: dict[int, Record | Conflict | Stale] = {}
        for (_, is_there), numbers in groups.items():
            some = [drafts[number] for number in numbers]
            stored = await (self.store.replace_all(some) if is_there else self.store.create_all(some))
            outcomes |= dict(zip(numbers, stored, strict=True))
        return [outcomes[number] for number in range(len(drafts))]

    async def delete(self, resource: Resource, record: Record) -> None:
        await self.store.delete(record, [self._event(resource, record, "Delete")])

    def inform(self, resource: Resource, record: Record, field_path: str, description: str) -> Outgoing:
        """The event that asks for something without which the work cannot go on, to be written with a change."""
        return self._event(resource, record, "InformationRequired", [field_path], description)

    def tell(self, resource: Resource, record: Record, what: str, description: str) -> Outgoing:
        """A further event, to be written with a change: told by the versions whose documents have it."""
        return self._event(resource, record, what, (), description)

    def _event(
        self,
        resource: Resource,
        record: Record,
        what: str,
        members: Sequence[str] = (),
        description: str = "",
        news: Sequence[str] = (),
        by: str = "",
    ) -> Outgoing:
        """The message that tells of a change: an event of TMF630's v4 form, and what the gateway knows beside it.

        ``news`` are changed members that only another version has; ``by`` is the part of the gateway that made the
        change, where that has seen to what follows from it by itself.
        """
        type_ = f"{resource.schema}{what}Event"
        time = now()
        id = str(uuid4())
        home = self._homes[resource.name]
        told = {name: value for name, value in self.present(record).items() if name not in resource.untold}
        envelope: dict[str, Any] = {
            "eventId": id,
            "eventTime": time,
            "eventType": type_,
            "correlationId": trace.trace_id() or record.facts.get("trace", ""),
            "domain": home.base.split("/")[2],
            "title": type_,
            "timeOcurred": time,
            "event": {resource.name: told},
        }
        if what in ("AttributeValueChange", "InformationRequired"):
            envelope["fieldPath"] = ",".join(members)
        else:
            envelope |= {"id": record.id, "href": told["href"]}
        if description:
            envelope["description"] = description
        about = {
            "event": envelope,
            "tenant": record.tenant,
            "kind": record.kind,
            "id": record.id,
            "parties": record.facts.get("parties", []),
            "owner": record.facts.get("owner"),
            "views": resource.views(record.facts),
            "base": home.base,
            BEYOND: record.facts.get(BEYOND, {}),
            "news": list(news),
            "by": by,
        }
        # what is said of one thing stays in order, also where each saying is a record of its own
        subject = f"event.{partition(record.facts.get('line', record.id))}.{token(record.tenant)}.{type_}"
        return Outgoing(id, subject, about, trace.headers())
