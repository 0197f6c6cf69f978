"""What is another tenant's, or another party's, is answered as what never existed: every operation of every document.

Compared are status, headers and body, byte by byte but for the id that was asked for and the ids of trace and decision.
Nor does it show in the time: the store is asked for id, tenant and party together, whether it is there or not.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Gateway
from contract import (
    CREATABLE,
    NOBODY,
    OPERATIONS,
    RESOURCES,
    Operation,
    about_party,
    each,
    hub_body,
    made,
    members,
    other,
    schema_of,
    sent,
    written,
)

from convergedon import policies
from convergedon.core.store import Store

AT_ID = [one for one in OPERATIONS if one.at_id]
KEPT = [one for one in AT_ID if one.is_hub or not one.resource.computed]
ITS_OWN = {"x-trace-id", "x-decision-id", "content-length"}
"""Headers that differ from request to request; the length differs as the ids do."""


def likeness(answer: httpx.Response, id: str) -> tuple[Any, ...]:
    """What a caller can tell from an answer, apart from the id that it asked for itself."""
    headers = {name: value for name, value in answer.headers.items() if name not in ITS_OWN}
    body = re.sub(r"urn:convergedon:decision:\w+", "DECISION", answer.text.replace(id, "ID"))
    return answer.status_code, headers, body


def ways(operation: Operation) -> list[dict[str, Any]]:
    """How an operation may be asked: with and without a body, a condition, and something that is not understood."""
    body = sent(operation)
    found: list[dict[str, Any]] = [body, {**body, "params": {"fields": "nonsense"}}]
    if operation.method in ("patch", "delete") and not operation.is_hub:
        found += [{**body, "headers": {"If-Match": tag}} for tag in ('"0"', '"1"', "*")]
    if operation.method == "patch":
        steps = [{"op": "test", "path": "/id", "value": "x"}]
        found += [
            {"json": {"nonsense": 1}},
            {"content": b"{"},
            {"json": {}},
            {"json": steps, "headers": {"Content-Type": "application/json-patch+json"}},
        ]
    return found


async def told(gateway: Gateway, operation: Operation, id: str, who: Mapping[str, str]) -> list[tuple[Any, ...]]:
    """What somebody is told about an id, each way."""
    return [
        likeness(
            await gateway.ask(
                operation.method, operation.path(id), **{**way, "headers": {**way.get("headers", {}), **who}}
            ),
            id,
        )
        for way in ways(operation)
    ]


async def mine(gateway: Gateway, operation: Operation) -> str:
    """The id of something of the tenant that concerns northwind; of its own listener where it is about listeners."""
    if operation.is_hub:
        answer = await gateway.ask(
            "POST",
            operation.api.base + "/hub",
            json=hub_body(operation),
            headers=gateway.token("admin", party="northwind"),
        )
        return str(answer.json()["id"])
    create = other(operation, "post", False)
    if create and "relatedParty" in members(operation.api, schema_of(operation)):
        shown = create.examples.get("relatedParty")
        one = isinstance(shown, dict)  # a bill on demand is for one party alone
        party = {**shown, "id": "northwind"} if one else about_party(operation, "northwind")
        return str((await made(gateway, operation, {**create.examples, "relatedParty": party}))["id"])
    return (await written(gateway, operation)).id if not create else str((await made(gateway, operation))["id"])


@each(AT_ID)
async def test_another_tenants_is_as_what_never_existed(gateway: Gateway, operation: Operation) -> None:
    """Whoever asks, and however."""
    id = await mine(gateway, operation)
    for role, party in (("admin", None), ("customer", "northwind"), ("reader", None), ("nobody", None)):
        who = gateway.token(role, tenant=f"not-{gateway.tenant}", party=party)

        assert await told(gateway, operation, id, who) == await told(gateway, operation, NOBODY, who)


@pytest.fixture
def wide(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    """The same with customers who may do everything to what is theirs."""
    folder = gateway.built.settings.data / "wide"
    if not folder.exists():
        shutil.copytree(Path(policies.__file__).parent, folder)
        data = json.loads((folder / "data.json").read_text())
        data["roles"]["customer"] = {"*": ["*"]}
        (folder / "data.json").write_text(json.dumps(data))
    return gateway.beside(policies=folder)


@each(AT_ID)
async def test_another_partys_is_as_what_never_existed(wide: Gateway, operation: Operation) -> None:
    """Also to a customer who might change and delete what is its own."""
    id = await mine(wide, operation)
    contoso = wide.token("customer", party="contoso")

    assert await told(wide, operation, id, contoso) == await told(wide, operation, NOBODY, contoso)


class Watched:
    """A store that notes what it is asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def noted(*given: Any, **named: Any) -> Any:
            self.asked.append((name, *given, named))
            return await method(*given, **named)

        return noted

    def about(self, id: str) -> list[tuple[Any, ...]]:
        """What was asked since the last time, but for the id."""
        asked, self.asked = self.asked, []
        return [tuple("ID" if part == id else part for part in one) for one in asked]


@each(KEPT)
async def test_the_store_is_asked_the_same_whether_it_is_there_or_not(wide: Gateway, operation: Operation) -> None:
    """Once, for id, tenant and party together: nothing is read and then withheld, which would show in the time."""
    id = await mine(wide, operation)
    watched = wide.beside(Watched, policies=wide.built.settings.policies)
    store: Any = watched.built.store
    kind = "hub" if operation.is_hub else operation.resource.name
    stranger, asked_at_all = f"not-{wide.tenant}", False
    for tenant, party in ((stranger, None), (stranger, "northwind"), (wide.tenant, "contoso")):
        who = watched.token("customer" if party else "admin", tenant=tenant, party=party)
        for way in ways(operation):
            seen = []
            for asked in (id, NOBODY):
                headers = {**way.get("headers", {}), **who}
                await watched.ask(operation.method, operation.path(asked), **{**way, "headers": headers})
                seen.append(store.about(asked))

            assert seen[0] == seen[1]
            assert all(one == ("get", kind, tenant, "ID", [party] if party else None, {}) for one in seen[0])
            assert len(seen[0]) <= 1
            asked_at_all |= bool(seen[0])
    assert asked_at_all


@each(RESOURCES)
async def test_no_list_tells_of_others(wide: Gateway, operation: Operation) -> None:
    """No filter, sort, page or count says more to another party, or to another tenant, than of an empty collection."""
    id = await mine(wide, operation)
    never = NOBODY
    strangers = [
        wide.token("customer", party="contoso"),
        wide.token("admin", tenant=f"not-{wide.tenant}"),
        wide.token("customer", tenant=f"not-{wide.tenant}", party="northwind"),
    ]
    for who in strangers:
        for asked in ({}, {"id": id}, {"id.ne": never}, {"sort": "-id"}, {"limit": "5"}, {"offset": "1", "limit": "1"}):
            answer = await wide.ask("GET", operation.path(), headers=who, params=asked)

            assert (answer.status_code, answer.json(), answer.headers["x-total-count"]) == (200, [], "0"), asked


@each(CREATABLE)
async def test_a_key_of_another_tenant_is_free(gateway: Gateway, operation: Operation) -> None:
    """The same Idempotency-Key with another body, of another tenant or another caller, tells of no request before."""
    key = {"Idempotency-Key": "the same"}
    answer = await gateway.ask("POST", operation.path(), json=operation.examples, headers=key)
    strangers = [
        gateway.token("admin", tenant=f"not-{gateway.tenant}"),
        gateway.token("admin", party="somebody-else"),
    ]
    for who in strangers:
        again = await gateway.ask(
            "POST", operation.path(), json={**operation.examples, "@baseType": "Other"}, headers={**who, **key}
        )

        assert again.status_code == 201, again.text
        assert again.json()["id"] != answer.json()["id"]
