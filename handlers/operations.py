"""The operations of every TM Forum API, written once: list, retrieve, create, patch, delete, and the hub's three.

Each one asks the policy, does its work on records, leaves an audit record and answers. The resolver binds them to
paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import orjson
from starlette.requests import Request
from starlette.responses import Response

from convergedon.core.audit import Audit, narrowed
from convergedon.core.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    Stale,
    Unprocessable,
)
from convergedon.core.matching import differing, written_alike
from convergedon.core.memory import MemoryStore
from convergedon.core.persons import Persons
from convergedon.core.policy import Decision, Policy, Subject
from convergedon.core.settings import Settings
from convergedon.core.store import Record, Store
from convergedon.handlers import documents, hub, patching, query, signing
from convergedon.handlers.admission import Shares
from convergedon.handlers.answers import answer
from convergedon.handlers.resource import HUB, Api, Resource, Resources
from convergedon.handlers.versions import BEYOND, Translation

TRIES = 5
"""How often a patch is applied anew because somebody else changed the resource meanwhile."""
LONGEST_KEY = 255
OF_HUBS = {"register": ("create", "hub"), "subscription": ("retrieve", "hub"), "unregister": ("delete", "hub")}
"""Operations of the hub as policies know them: action and kind."""


@dataclass(frozen=True)
class Call:
    """One request to one resource of one API. ``decisions`` are those that were made on it, the last one for all."""

    api: Api
    resource: Resource
    request: Request
    subject: Subject
    id: str
    media_type: str = "application/json"
    public_url: str = ""
    decisions: list[Decision] = field(default_factory=list)

    @cached_property
    def url(self) -> str:
        """Where clients reach us: as it is set, else as the request says."""
        return self.public_url or f"{self.request.url.scheme}://{self.request.url.netloc}"

    @cached_property
    def parameters(self) -> list[tuple[str, str]]:
        return list(self.request.query_params.multi_items())

    @cached_property
    def shape(self) -> documents.Shape:
        return documents.shape(self.api.document, self.api.schema(self.resource))

    @property
    def translation(self) -> Translation:
        return self.api.translation(self.resource.name)

    async def body(self) -> Any:
        raw = await self.request.body()
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise Invalid(f"the body is not JSON: {error}") from error
        documents.check_depth(raw, body)
        return body


class Operations:
    def __init__(self, resources: Resources, policy: Policy, audit: Audit, settings: Settings) -> None:
        self._resources, self._store = resources, resources.store
        self._persons = Persons(resources.store)
        self._policy, self._audit, self._settings = policy, audit, settings
        self.public_url = settings.url if settings.public_url else ""
        self.shares = Shares(settings.rate_limit)

    async def _allowed(self, call: Call, action: str, kind: str = "", body: Any = None, before: Any = None) -> Decision:
        """Ask whether the caller may. Raises Forbidden, recorded, when not."""
        kind = kind or call.resource.name
        resource = {"api": call.api.base, "kind": kind, "tenant": call.subject.tenant, "id": call.id}
        decision = await self._policy.decide(call.subject, action, resource, body, before)
        call.decisions.append(decision)
        if not decision.allow:
            self._record(call, action, f"{kind}/{call.id}", "refused", decision, reasons=list(decision.reasons))
            raise Forbidden(decision.reasons, decision.id)
        return decision

    def _record(self, call: Call, action: str, on: str, outcome: str, decision: Decision, **detail: Any) -> None:
        self._audit.record(f"call.{action}", call.subject.tenant, call.subject.id, on, outcome, decision, **detail)

    def failed(self, call: Call, verb: str, status: int) -> None:
        """Record a call that was allowed and came to nothing: who tries one id after another leaves a track."""
        if call.decisions and call.decisions[-1].allow:
            action, kind = OF_HUBS.get(verb, (verb, call.resource.name))
            self._record(call, action, f"{kind}/{call.id}", "failed", call.decisions[-1], status=status)

    async def _read(self, call: Call, decision: Decision) -> Record:
        """The record that the path names, as far as the caller may see it. Raises NotFound, for hidden ones too."""
        visible = decision.filter
        store = await self._shelf(call, visible["tenant"])
        return await store.get(call.resource.name, visible["tenant"], call.id, visible.get("parties"))

    async def _shelf(self, call: Call, tenant: str) -> Store:
        """Where the resource is: in the store, or what is computed of it now."""
        if call.resource.computed is None:
            return self._store
        shelf = MemoryStore([call.resource.kind])
        for record in await call.resource.computed(self._store, tenant):
            await shelf.create(record)
        return shelf

    def _present(self, call: Call, decision: Decision, record: Record) -> dict[str, Any]:
        parties = decision.filter.get("parties")
        if parties is None:
            return self._resources.present(record, call.url, call.api)
        return self._resources.present_to(parties, call.resource, record, call.url, call.api)

    async def _in_clear(self, call: Call, found: Sequence[Record]) -> Sequence[Record]:
        """The records with persons by name, as far as they are known still."""
        if not call.resource.told_of_persons:
            return found
        told = await self._persons.told(call.subject.tenant, [record.body for record in found])
        return [replace(record, body=body) for record, body in zip(found, told, strict=True)]

    async def list(self, call: Call) -> Response:
        decision = await self._allowed(call, "list")
        asked = query.parse(call.parameters, call.shape, call.translation)
        if "parties" in decision.filter and asked.about(call.resource.viewed):
            raise Invalid(f"only who sees all of {', '.join(call.resource.viewed)} can ask for it")
        visible = decision.where
        where: Mapping[str, Any] = {"$and": [visible, asked.where]} if asked.where else visible
        if call.resource.told_of_persons:
            where = await self._persons.asked(call.subject.tenant, narrowed(where))
        limit = self._most(asked)
        store = await self._shelf(call, decision.filter["tenant"])
        found = await store.find(call.resource.name, where, asked.sort, asked.offset, limit) if limit else []
        total = asked.offset + len(found)
        if asked.limit is None and len(found) == limit:
            raise Invalid(f"more than {limit - 1} match: narrow the list, or ask for pages with limit and offset")
        if len(found) == limit or (asked.offset and not found):
            total = await store.count(call.resource.name, where)
        told = await self._in_clear(call, found)
        content = [query.select(self._present(call, decision, record), asked.fields) for record in told]
        self._record(call, "list", call.resource.name, "done", decision, count=len(found))
        headers = {"X-Total-Count": str(total), "X-Result-Count": str(len(found))}
        if asked.limit is not None:
            url = f"{call.url}{call.api.base}/{call.api.word(call.resource.name)}"
            headers["Link"] = query.links(url, call.parameters, replace(asked, limit=limit), total)
        # a page past the end is an empty list, not a part of one
        part = len(found) < total and asked.offset < total and "Link" in headers
        return answer(content, 206 if part else 200, **headers)

    def _most(self, asked: query.Query) -> int:
        """How many to read: of a page no more than a list may have, of a whole list one more, to see that it is."""
        most = self._settings.list_limit
        return most + 1 if asked.limit is None else min(asked.limit, most)

    async def retrieve(self, call: Call) -> Response:
        decision = await self._allowed(call, "retrieve")
        (record,) = await self._in_clear(call, [await self._read(call, decision)])
        wanted = query.fields(call.parameters, call.shape)
        content = query.select(self._present(call, decision, record), wanted)
        self._record(call, "retrieve", f"{call.resource.name}/{call.id}", "done", decision)
        return answer(content, ETag=f'"{record.facts.get("tag", record.revision)}"')

    async def create(self, call: Call) -> Response:
        body = await call.body()
        documents.schema(call.api.document, call.shape.create).check(body)
        given = {name: value for name, value in body.items() if name in call.shape.creatable or name.startswith("@")}
        kept, beyond = call.translation.inward(given)
        # policies are written for one form of a resource: no version of an API is a way around them
        decision = await self._allowed(call, "create", body=kept)
        record = await self._created(call, kept, {BEYOND: beyond} if beyond else {})
        self._record(call, "create", f"{call.resource.name}/{record.id}", "done", decision)
        content = self._resources.present(record, call.url, call.api)
        return answer(content, 201, Location=content["href"], ETag=f'"{record.revision}"')

    async def _created(self, call: Call, body: Mapping[str, Any], facts: Mapping[str, Any]) -> Record:
        """A new record; for a request that came before under its Idempotency-Key, the one that it made then.

        The key makes the id, so no second record can come to be, whoever takes the repetition. Raises Unprocessable
        when the key was used for another body.
        """
        tenant, key = call.subject.tenant, call.request.headers.get("idempotency-key")
        known = {"owner": call.subject.document, **facts}
        if key is None:
            return await self._resources.create(call.resource, tenant, body, known)
        if not 0 < len(key) <= LONGEST_KEY:
            raise Invalid(f"an Idempotency-Key has 1 to {LONGEST_KEY} characters")
        id = str(uuid5(NAMESPACE_URL, f"{tenant}|{call.subject.id}|{call.resource.name}|{key}"))
        request = sha256(await call.request.body()).hexdigest()
        try:
            return await self._resources.create(call.resource, tenant, body, known | {"request": request}, id)
        except Conflict as conflict:
            try:
                before = await self._store.get(call.resource.name, tenant, id)
            except NotFound:
                raise conflict from None  # another rule than the id's, or it is being deleted just now
        if before.facts.get("request") != request:
            raise Unprocessable("this Idempotency-Key was used for another request")
        return before

    async def patch(self, call: Call) -> Response:
        asked = await call.body()
        may = await self._allowed(call, "patch")
        decision, record, members = await self._patched(call, may, asked)
        self._record(call, "patch", f"{call.resource.name}/{call.id}", "done", decision, members=members)
        return answer(self._present(call, decision, record), ETag=f'"{record.revision}"')

    async def _patched(self, call: Call, may: Decision, asked: Any) -> tuple[Decision, Record, Sequence[str]]:
        """Apply a patch to what is there now; whoever names no revision has it applied to the next one too."""
        for attempt in range(1, TRIES + 1):
            record = await self._read(call, may)
            self._check_match(call, record)
            before = self._resources.present(record, call.url, call.api)
            after = patching.APPLY[call.media_type](before, asked, self._settings.body_limit)
            members = self._check_patch(call, before, after)
            said = {name: value for name, value in after.items() if name not in ("id", "href")}
            kept, beyond = call.translation.inward(said, (record.body, record.facts.get(BEYOND, {})))
            decision = may
            if members:  # the policy sees what changes in whatever way it was written
                fresh = {name: kept[name] for name in differing(record.body, kept) if name in kept}
                decision = await self._allowed(call, "patch", body=fresh, before=record.body)
            call.resource.admit(record, kept)
            try:
                changed = await self._resources.change(
                    call.resource, record, kept, {BEYOND: beyond or None}, whole=True
                )
            except Stale:
                if attempt == TRIES or call.request.headers.get("if-match"):
                    raise
            else:
                return decision, changed, members
        raise AssertionError("a patch is tried at least once")

    def _check_patch(self, call: Call, before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[str]:
        """The members that a patch changes. Raises Invalid for those that may not be, and for unfit values."""
        names = sorted(before.keys() | after.keys())
        members = [name for name in names if not written_alike(before.get(name, ...), after.get(name, ...))]
        frozen = [name for name in members if name not in call.shape.patchable and not name.startswith("@")]
        if frozen:
            raise Invalid(f"cannot be changed: {', '.join(frozen)}")
        documents.check_nesting(after)
        # what is left as it was may be in words of another version
        changed = {name: after[name] for name in members if name in after}
        documents.schema(call.api.document, call.shape.update).check(changed)
        self._keep_required(call, after)
        return members

    def _keep_required(self, call: Call, fresh: Mapping[str, Any]) -> None:
        """What a new resource must have, a changed one must still have."""
        missing = sorted(call.shape.required - fresh.keys() - {"id", "href"})
        if missing:
            raise Invalid(f"cannot be removed: {', '.join(missing)}")

    def _check_match(self, call: Call, record: Record) -> None:
        wanted = call.request.headers.get("if-match")
        if wanted and wanted != "*" and f'"{record.revision}"' not in (tag.strip() for tag in wanted.split(",")):
            raise PreconditionFailed(f'{call.resource.name} {call.id} is at "{record.revision}", not {wanted}')

    async def delete(self, call: Call) -> Response:
        decision = await self._allowed(call, "delete")
        record = await self._read(call, decision)
        self._check_match(call, record)
        call.resource.admit(record, None)
        await self._resources.delete(call.resource, record)
        self._record(call, "delete", f"{call.resource.name}/{call.id}", "done", decision)
        return Response(status_code=204)

    async def register(self, call: Call) -> Response:
        body = await call.body()
        documents.schema(call.api.document, documents.hub(call.api.document)).check(body)
        shown = {**body, "callback": hub.shown(body["callback"])}
        decision = await self._allowed(call, "create", "hub", body=shown)
        hub.check_query(call.api, body.get("query") or "")
        await hub.check_callback(body["callback"], self._settings.callback_networks)
        signer = signing.signer(self._settings)
        record = await hub.register(self._store, hub.subscription(call.api, call.subject, body, signer.mark))
        self._record(call, "create", f"hub/{record.id}", "done", decision)
        content = self._listener(call, record)
        location = f"{call.url}{call.api.base}/hub/{record.id}"
        # told this once, and to nobody on the way
        told = {"X-Hub-Secret": signer.secret(record.id), "Cache-Control": "no-store"}
        return answer(content, 201, Location=location, **told)

    def _listener(self, call: Call, record: Record) -> dict[str, Any]:
        return {"id": record.id, **call.api.translation(HUB.name).outward(record.body, {})}

    async def _own(self, call: Call, decision: Decision) -> Record:
        """The listener that the path names. Raises NotFound, for those of others too."""
        visible = decision.filter
        record = await self._store.get(HUB.name, visible["tenant"], call.id, visible.get("parties"))
        if record.facts["api"] != call.api.base or not hub.owned(record, call.subject, decision):
            raise NotFound(f"there is no hub {call.id}")
        return record

    async def subscription(self, call: Call) -> Response:
        """A listener as kept; its secret was told when it was registered."""
        decision = await self._allowed(call, "retrieve", "hub")
        record = await self._own(call, decision)
        self._record(call, "retrieve", f"hub/{call.id}", "done", decision)
        return answer(self._listener(call, record))

    async def unregister(self, call: Call) -> Response:
        decision = await self._allowed(call, "delete", "hub")
        record = await self._own(call, decision)
        await hub.unregister(self._store, record)
        self._record(call, "delete", f"hub/{call.id}", "done", decision)
        return Response(status_code=204)
