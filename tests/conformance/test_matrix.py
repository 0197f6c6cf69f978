"""Every status that a document declares for an operation is one that the operation answers, and here is how.

CASES has for each status the way to provoke it; a way finds by itself what the operation needs. A declared status
without a way fails by name, and so does a way or a waiver that nothing needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import httpx
import pytest
from conftest import LIMIT, Gateway
from contract import METHODS, Operation, made, pairs, refused, sent, target

from convergedon import openapi
from convergedon.core.errors import Unavailable
from convergedon.core.store import Outgoing, Record, Store

Case = Callable[[Gateway, Operation], Awaitable[httpx.Response]]


async def asked(gateway: Gateway, operation: Operation, query: str = "", **given: Any) -> httpx.Response:
    """The operation on something that is there, with a body that it understands unless another is given."""
    if not given.keys() & {"json", "content"}:
        given |= sent(operation)
    return await gateway.ask(operation.method, await target(gateway, operation) + query, **given)


async def a_page(gateway: Gateway, operation: Operation) -> httpx.Response:
    for _ in range(2):
        await made(gateway, operation)
    return await asked(gateway, operation, "?limit=1")


async def unreadable(gateway: Gateway, operation: Operation) -> httpx.Response:
    if operation.media:
        return await asked(gateway, operation, content=b"{", headers={"Content-Type": "application/json"})
    return await asked(gateway, operation, "?fields=nonsense" if operation.at_id else "?limit=nonsense")


async def by_nobody(gateway: Gateway, operation: Operation) -> httpx.Response:
    return await gateway.client.request(operation.method, operation.path(), **sent(operation))


async def by_one_who_may_nothing(gateway: Gateway, operation: Operation) -> httpx.Response:
    return await gateway.ask(operation.method, operation.path(), headers=gateway.token("nobody"), **sent(operation))


async def of_nothing(gateway: Gateway, operation: Operation) -> httpx.Response:
    return await gateway.ask(operation.method, operation.path(), **sent(operation))


async def by_another_method(gateway: Gateway, operation: Operation) -> httpx.Response:
    item = openapi.document(operation.api.document)["paths"][operation.template]
    return await gateway.ask(next(name for name in METHODS if name not in item), operation.path())


async def where_json_is_not_read(gateway: Gateway, operation: Operation) -> httpx.Response:
    return await asked(gateway, operation, headers={"Accept": "text/html"})


async def in_the_way(gateway: Gateway, operation: Operation) -> httpx.Response:
    """An id that is taken, a patch that does not fit, and a rival between reading and deleting."""
    if operation.action == "create":
        return await again_after_deletion(gateway, operation)
    if operation.action == "patch":
        steps = [{"op": "test", "path": "/id", "value": "another"}]
        return await asked(gateway, operation, json=steps, headers={"Content-Type": "application/json-patch+json"})
    path = await target(gateway, operation)
    return await gateway.beside(Rivalled).ask("DELETE", path, headers={"If-Match": '"1"'})


async def again_after_deletion(gateway: Gateway, operation: Operation) -> httpx.Response:
    """What a key made is being deleted while its request is repeated."""
    again = {"headers": {"Idempotency-Key": "once"}, **sent(operation)}
    answer = await gateway.ask("POST", operation.path(), **again)
    record = await gateway.built.store.get(operation.resource.name, gateway.tenant, answer.json()["id"])
    await gateway.built.store.delete(record)
    return await gateway.ask("POST", operation.path(), **again)


async def from_an_old_representation(gateway: Gateway, operation: Operation) -> httpx.Response:
    return await asked(gateway, operation, headers={"If-Match": '"0"'})


async def too_large(gateway: Gateway, operation: Operation) -> httpx.Response:
    content = b" " * (LIMIT + 1)
    return await asked(gateway, operation, content=content, headers={"Content-Type": "application/json"})


async def as_plain_text(gateway: Gateway, operation: Operation) -> httpx.Response:
    return await asked(gateway, operation, content=b"{}", headers={"Content-Type": "text/plain"})


async def with_a_used_key(gateway: Gateway, operation: Operation) -> httpx.Response:
    key = {"Idempotency-Key": "once"}
    await gateway.ask("POST", operation.path(), headers=key, json=operation.examples)
    return await gateway.ask("POST", operation.path(), headers=key, json={**operation.examples, "@baseType": "Other"})


async def too_often(gateway: Gateway, operation: Operation) -> httpx.Response:
    hurried = gateway.beside(rate_limit=0.001)
    await hurried.ask(operation.method, operation.path(), **sent(operation))
    return await hurried.ask(operation.method, operation.path(), **sent(operation))


async def with_a_store_that_fails(gateway: Gateway, operation: Operation) -> httpx.Response:
    return await gateway.beside(Faulty).ask(operation.method, operation.path(), **sent(operation))


async def beyond_what_is_supported(gateway: Gateway, operation: Operation) -> httpx.Response:
    return await gateway.ask("GET", operation.path(), params={"filter": "$..[?(@.id)]"})


async def with_a_store_that_is_away(gateway: Gateway, operation: Operation) -> httpx.Response:
    return await gateway.beside(Away).ask(operation.method, operation.path(), **sent(operation))


CASES: Mapping[str, Case] = {
    "200": asked,
    "201": asked,
    "204": asked,
    "206": a_page,
    "400": unreadable,
    "401": by_nobody,
    "403": by_one_who_may_nothing,
    "404": of_nothing,
    "405": by_another_method,
    "406": where_json_is_not_read,
    "409": in_the_way,
    "412": from_an_old_representation,
    "413": too_large,
    "415": as_plain_text,
    "422": with_a_used_key,
    "429": too_often,
    "500": with_a_store_that_fails,
    "501": beyond_what_is_supported,
    "503": with_a_store_that_is_away,
}

# "operation status": why nothing provokes it although the document declares it
WAIVERS: Mapping[str, str] = {
    "DELETE * 400": "the official documents declare it, clients may count on it; nothing in ours can be wrong",
    "GET */hub/{id} 400": "as for DELETE: it takes nothing that could be wrong",
}


class Faulty:
    """A store that fails in a way that nobody thought of."""

    def __init__(self, store: Store) -> None:
        self.written: Any = lambda _: None

    def __getattr__(self, name: str) -> Any:
        async def fail(*_: Any, **__: Any) -> Any:
            raise self.fault()

        return fail

    def fault(self) -> Exception:
        return RuntimeError(f"secret-of-the-inside {id(self)}")


class Away(Faulty):
    """A store that cannot be reached."""

    def fault(self) -> Exception:
        return Unavailable("the store cannot be reached")


class Rivalled:
    """A store in which somebody else changes a record just before it is replaced or deleted, once for each record."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._met: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def replace(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        await self._rival(record)
        return await self._store.replace(record, messages)

    async def delete(self, record: Record, messages: Sequence[Outgoing] = ()) -> None:
        await self._rival(record)
        await self._store.delete(record, messages)

    async def _rival(self, record: Record) -> None:
        if record.id not in self._met:
            self._met.add(record.id)
            await self._store.replace(await self._store.get(record.kind, record.tenant, record.id))


def waived(operation: Operation, status: str) -> str:
    return next((why for pattern, why in WAIVERS.items() if fnmatchcase(f"{operation} {status}", pattern)), "")


@pytest.mark.parametrize(("operation", "status"), [pytest.param(*p, id=f"{p[0]} {p[1]}") for p in pairs()])
async def test_every_declared_status_is_answered(gateway: Gateway, operation: Operation, status: str) -> None:
    """As the document says it (each answer is compared), and an error is the standard's; what is waived is not."""
    assert status in CASES, f"nothing here provokes {status}, which {operation} declares"
    answer = await CASES[status](gateway, operation)

    assert (str(answer.status_code) == status) == (not waived(operation, status)), answer.text
    if waived(operation, status):
        return
    if status[0] in "45":
        refused(operation, answer, int(status))
    assert "secret-of-the-inside" not in answer.text


def test_every_case_and_waiver_is_needed() -> None:
    """What is declared no longer takes its line with it."""
    declared = [(f"{operation} {status}", status) for operation, status in pairs()]

    assert [status for status in CASES if status not in {status for _, status in declared}] == []
    assert [line for line in WAIVERS if not any(fnmatchcase(name, line) for name, _ in declared)] == []
