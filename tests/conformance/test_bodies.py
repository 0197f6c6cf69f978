"""What is sent to an operation: bodies and queries that are wrong, hostile or too large make no gateway fail."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from conftest import LIMIT, Gateway
from contract import (
    CREATABLE,
    RESOURCES,
    WITH_BODY,
    Operation,
    each,
    listed,
    refused,
    retrieving,
    sent,
    target,
)

from convergedon import openapi
from convergedon.handlers import documents


@each(WITH_BODY)
@pytest.mark.parametrize("type_", ["text/plain", "application/xml", "application/merge-patch+xml", "nonsense"])
async def test_an_unknown_media_type_is_refused(gateway: Gateway, operation: Operation, type_: str) -> None:
    """415 before anything is read."""
    answer = await gateway.ask(
        operation.method, await target(gateway, operation), headers={"Content-Type": type_}, content=b"{}"
    )

    refused(operation, answer, 415)


@each(WITH_BODY)
async def test_a_body_that_is_compressed_is_refused_as_such(gateway: Gateway, operation: Operation) -> None:
    """415 that names the encoding; who reads that its JSON is broken looks for a fault that is not there."""
    answer = await gateway.ask(
        operation.method,
        await target(gateway, operation),
        headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
        content=gzip.compress(json.dumps(sent(operation)["json"]).encode()),
    )

    refused(operation, answer, 415)
    assert "gzip" in answer.json()["message"]


@each(WITH_BODY)
@pytest.mark.parametrize("type_", ["application/json;charset=utf-8", "application/json; charset=UTF-8"])
async def test_json_may_say_its_charset(gateway: Gateway, operation: Operation, type_: str) -> None:
    """Clients of the v4 documents send exactly that (their documents say so)."""
    answer = await gateway.ask(
        operation.method,
        await target(gateway, operation),
        headers={"Content-Type": type_},
        content=json.dumps(sent(operation)["json"]),
    )

    assert answer.status_code in (200, 201), answer.text


@each(WITH_BODY)
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1,", b"nonsense", b"{'a': 1}", b'{"a": NaN}', b"\xff\xfe", b'"\xed\xa0\x80"', b'{"a": 01}', b"{}{}"],
)
async def test_what_is_not_json_is_refused(gateway: Gateway, operation: Operation, body: bytes) -> None:
    """400, also for what some readers let pass."""
    answer = await gateway.ask(
        operation.method,
        await target(gateway, operation),
        headers={"Content-Type": "application/json"},
        content=body,
    )

    refused(operation, answer, 400)


@each(WITH_BODY)
@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"5", b"true", b"[{}]"])
async def test_what_is_no_object_is_refused(gateway: Gateway, operation: Operation, body: bytes) -> None:
    """Every body is an object."""
    answer = await gateway.ask(
        operation.method,
        await target(gateway, operation),
        headers={"Content-Type": "application/json"},
        content=body,
    )

    refused(operation, answer, 400)


@each([one for one in WITH_BODY if one.method == "post"])
async def test_an_empty_object_lacks_what_is_required(gateway: Gateway, operation: Operation) -> None:
    """400 naming what is required; where nothing is required it is taken."""
    schema = documents.hub(operation.api.document) if operation.name == "hub" else operation.shape.create
    required = openapi.document(operation.api.document)["components"]["schemas"][schema].get("required", [])
    answer = await gateway.ask("POST", operation.path(), json={})

    if required:
        message = refused(operation, answer, 400)["message"]
        assert any(name in message for name in required)
    else:
        assert answer.status_code == 201


@each(WITH_BODY)
async def test_a_body_above_the_limit_is_refused(gateway: Gateway, operation: Operation) -> None:
    """413, whether or not the request tells its length."""
    path = await target(gateway, operation)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * (LIMIT // 2)

    for content in (b" " * (LIMIT + 1), parts()):
        answer = await gateway.ask(
            operation.method, path, headers={"Content-Type": "application/json"}, content=content
        )
        refused(operation, answer, 413)


def hostile(example: Mapping[str, Any]) -> list[bytes]:
    """Bodies that have the form of the example and hold what a store or a policy may stumble over."""

    def with_(value: str, name: str = '"note"') -> bytes:
        begin = json.dumps(example)[:-1]
        return f"{begin}, {name}: {value}}}".encode()

    item = '[{"text": "x", "extra": %s}]'
    values = [
        "9" * 30,
        str(2**64),
        str(-(2**70)),
        "1e400",
        "-0.0",
        "1e-400",
        '"\\u0000"',
        '"\\ud83d\\ude00"',
        '"\\ufeff"',
    ]
    return [
        with_("[" * 100 + "]" * 100),
        with_('{"a":' * 500 + "1" + "}" * 500),
        with_("[" * 20_000 + "]" * 20_000),
        *(with_(item % value) for value in values),
        *(with_(value, '"description"') for value in ('"\\u0000"', '"\\u202e\\u0300"', '"' + "\\u00ff" * 5000 + '"')),
        with_(item % '{"a\\u0000b": 1}'),
        with_(item % '{"": 1, ".": 2, "$where": 3, "a.b": 4, "__proto__": 5, "_id": 6}'),
        with_('"x"', '"$set"'),
        with_('"x"', '"@extra"'),
        with_('{"$gt": ""}', '"@type"'),
        with_('"x"', '"@a.b"'),
        with_('"x"', '"@\\u0000"'),
    ]


@each([one for one in WITH_BODY if not one.is_hub])
async def test_no_body_makes_the_gateway_fail(any_gateway: Gateway, operation: Operation) -> None:
    """What cannot be kept is refused as the caller's fault; what was taken can be read and listed again."""
    retrieve = retrieving(operation)
    for body in hostile(operation.examples):
        path = await target(any_gateway, operation)
        answer = await any_gateway.ask(
            operation.method, path, headers={"Content-Type": "application/json"}, content=body
        )

        assert answer.status_code in (200, 201, 400), (body[:200], answer.text)
        if answer.status_code == 400:
            refused(operation, answer, 400)
        else:
            again = await any_gateway.ask("GET", retrieve.path(answer.json()["id"]))
            assert again.json() == answer.json()
    assert await listed(any_gateway, operation)


@each(RESOURCES)
@pytest.mark.parametrize(
    "asked",
    [
        "id=%00",
        "id=%FF",
        "id=$ne",
        "id[$ne]=x",
        "id=" + "x" * 5000,
        "href=x",
        "=x",
        "&&&",
        "fields=%00",
        "sort=%00",
        "sort=-",
        "limit=5&limit=6",
        "relatedParty.id=%F0%9F%98%80",
        "usageCharacteristic.value.$where=x",
        "usageCharacteristic.value.a%00b=x",
        "usageCharacteristic.value..=x",
        "productOrderItem.quantity=" + "9" * 40,
        "productOrderItem.product.productCharacteristic.value.%24=1",
        "ratedProductUsage.taxRate=nan",
        "isBilled=maybe",
        "@type=%27",
        "id=" + ",".join(map(str, range(500))),
        "filter=[?(@.x)]",
        "%00=1",
    ],
)
async def test_no_query_makes_the_gateway_fail(any_gateway: Gateway, operation: Operation, asked: str) -> None:
    """A list is answered or refused as the caller's fault."""
    answer = await any_gateway.ask("GET", f"{operation.path()}?{asked}")

    assert answer.status_code in (200, 206, 400, 501), answer.text
    if answer.status_code == 400:
        refused(operation, answer, 400)


async def test_a_caller_that_goes_away_is_no_failure_of_ours(gateway: Gateway) -> None:
    """A body that never ends leaves nothing behind, and the log calls it no fault."""
    path = next(one for one in CREATABLE if one.name == "alarm").path()
    token = gateway.token("admin")["Authorization"].encode()
    headers = [(b"host", b"gateway.example"), (b"authorization", token), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers, "scheme": "http"}
    parts = iter([{"type": "http.request", "body": b'{"half', "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(parts)

    async def send(message: Any) -> None:
        sent.append(message)

    await gateway.built.app({**scope, "raw_path": path.encode(), "root_path": "", "http_version": "1.1"}, receive, send)

    assert [message["status"] for message in sent if "status" in message] == [400]
