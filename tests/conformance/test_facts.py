"""What contract suites silently count on: the wire forms that no document states and TM Forum's own kits depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
from conftest import Gateway
from contract import (
    CREATABLE,
    OPERATIONS,
    PATCHED,
    RESOURCES,
    Operation,
    each,
    made,
    members,
    other,
    properties,
    refused,
    retrieving,
    schema_of,
    set_by_server,
    settled,
)

from convergedon import openapi
from convergedon.core import trace

TIMES = (
    "2026-02-20T09:31:04Z",
    "2026-02-20T09:31:04.5+02:00",
    "2026-02-20T09:31:04.123456-11:30",
    "1999-12-31T23:59:59z",
)


def dated(operation: Operation) -> set[str]:
    """The resource's own members that are date-times."""
    schemas = openapi.document(operation.api.document)["components"]["schemas"]
    found = properties(operation.api, schemas[schema_of(operation)])
    return {name for name, schema in found.items() if schema.get("format") == "date-time"}


def elsewhere(value: Any) -> Any:
    """The same with every id and href inside it being one that we do not hold."""
    if isinstance(value, list):
        return [elsewhere(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    other = {"href": "https://elsewhere.example/x"} if "href" in value and "id" in value else {}
    return {name: elsewhere(inner) for name, inner in value.items()} | other


@each(CREATABLE)
async def test_times_of_ours_end_in_z_and_are_found_as_they_stand(gateway: Gateway, operation: Operation) -> None:
    """A client that puts one into a query as it is gets the resource: a plus sign would arrive there as a blank."""
    body = await made(gateway, operation)
    for name in dated(operation) & body.keys():
        if name not in operation.examples:
            assert body[name].endswith("Z"), name
        for quote in ("", "'", '"'):
            found = await gateway.ask("GET", f"{operation.path()}?{name}={quote}{body[name]}{quote}")
            assert [one["id"] for one in found.json()] == [body["id"]], (name, quote)


@each(CREATABLE)
@pytest.mark.parametrize("time", TIMES)
async def test_times_come_back_as_they_were_sent(gateway: Gateway, operation: Operation, time: str) -> None:
    """In any offset and precision."""
    names = (dated(operation) & operation.shape.creatable) - set_by_server(operation, operation.examples)
    body = {**operation.examples, **dict.fromkeys(names, time)}
    answer = settled(operation, await gateway.ask("POST", operation.path(), json=body))

    assert {name: answer[name] for name in names} == dict.fromkeys(names, time)
    read = (await gateway.ask("GET", retrieving(operation).path(answer["id"]))).json()
    assert {name: read[name] for name in names} == dict.fromkeys(names, time)


@each(RESOURCES)
async def test_a_whole_list_is_no_part(gateway: Gateway, operation: Operation) -> None:
    """200 without limit and offset, however many there are; nothing is an empty list, and a list."""
    empty = await gateway.ask("GET", operation.path())
    for _ in range(12):
        await made(gateway, operation)
    answer = await gateway.ask("GET", operation.path())

    assert (empty.status_code, empty.json()) == (200, [])
    assert (answer.status_code, len(answer.json())) == (200, 12)


@each(RESOURCES)
async def test_text_is_not_escaped(gateway: Gateway, operation: Operation) -> None:
    """An href is in the body as a client compares it: no \\/ and no \\u."""
    body = await made(gateway, operation)
    for answer in (
        await gateway.ask("GET", operation.path()),
        await gateway.ask("GET", retrieving(operation).path(body["id"])),
    ):
        assert body["href"] in answer.text
        assert "\\/" not in answer.text
        assert "\\u" not in answer.text


@each(CREATABLE)
async def test_references_may_lead_elsewhere(gateway: Gateway, operation: Operation) -> None:
    """What a resource refers to need not be here."""
    body = elsewhere(operation.examples)
    answer = settled(operation, await gateway.ask("POST", operation.path(), json=body))

    assert "https://elsewhere.example/x" in json.dumps(answer) or body == operation.examples


@each([one for one in CREATABLE if one.name == "alarm" and not one.shape.always])
async def test_an_alarm_may_be_about_nothing_in_particular(gateway: Gateway, operation: Operation) -> None:
    """An empty alarmedObject is taken and given back in version 4; version 5 asks for its id."""
    body = {**deepcopy(operation.examples), "alarmedObject": {}}
    answer = await gateway.ask("POST", operation.path(), json=body)

    assert settled(operation, answer)["alarmedObject"] == {}


@each(PATCHED)
async def test_plain_json_is_a_merge_patch(gateway: Gateway, operation: Operation) -> None:
    """That is how clients of version 4 send it: what is not named stays, null removes."""
    before = await made(gateway, operation)
    path = operation.path(before["id"])
    await gateway.ask("PATCH", path, json={"@baseType": "X"})
    assert (await gateway.ask("GET", path)).json()["@baseType"] == "X"
    answer = settled(operation, await gateway.ask("PATCH", path, json={"@baseType": None}))

    assert "@baseType" not in answer


@each(OPERATIONS)
async def test_every_answer_names_its_trace(gateway: Gateway, operation: Operation) -> None:
    """The one that the caller began, also when it is refused."""
    trace.configure("test")
    for turn, headers in enumerate(({}, {"Accept": "text/html"}, gateway.token("nobody"))):
        id = f"{turn + 1:032x}"
        answer = await gateway.ask(
            operation.method, operation.path(), headers={**headers, "traceparent": f"00-{id}-{'b2' * 8}-01"}
        )
        assert answer.headers["x-trace-id"] == id, answer.status_code


TAKES_JSON = ["*/*", "application/json", "application/*", "text/html, */*;q=0.1", "application/json;charset=utf-8"]
TAKES_NO_JSON = ["text/html", "application/xml", "application/json;q=0", "*/*;q=0", "application/json;q=0, */*"]


@each(RESOURCES)
async def test_accept_is_heeded(gateway: Gateway, operation: Operation) -> None:
    """What takes JSON in any way gets it; what does not is refused with 406."""
    for accept in TAKES_JSON:
        assert (await gateway.ask("GET", operation.path(), headers={"Accept": accept})).status_code == 200, accept
    for accept in TAKES_NO_JSON:
        refused(operation, await gateway.ask("GET", operation.path(), headers={"Accept": accept}), 406)


@each(RESOURCES)
async def test_who_asks_too_often_is_told_when_to_come_back(gateway: Gateway, operation: Operation) -> None:
    """429 with Retry-After in whole seconds; another caller and another tenant are not held up."""
    hurried = gateway.beside(rate_limit=0.5)
    assert (await hurried.ask("GET", operation.path())).status_code == 200
    answer = await hurried.ask("GET", operation.path())

    refused(operation, answer, 429)
    assert 1 <= int(answer.headers["retry-after"]) <= 2
    for others in (hurried.token("admin", party="another"), hurried.token("admin", tenant=f"not-{hurried.tenant}")):
        assert (await hurried.ask("GET", operation.path(), headers=others)).status_code == 200


# §8: every way to say "or"


@each(RESOURCES)
async def test_alternatives_are_said_in_any_way(gateway: Gateway, operation: Operation) -> None:
    """By comma, by semicolon and by saying the name again."""
    ids = [(await made(gateway, operation))["id"] for _ in range(3)]
    wanted = {ids[0], ids[2]}
    for asked in (f"id={ids[0]},{ids[2]}", f"id={ids[0]}&id={ids[2]}", f"id={ids[0]};id={ids[2]}"):
        answer = await gateway.ask("GET", f"{operation.path()}?{asked}")
        assert {one["id"] for one in answer.json()} == wanted, asked


def test_no_resource_lacks_a_way_to_be_read() -> None:
    """What can be listed can be read alone, and what can be changed can be read."""
    for operation in OPERATIONS:
        if not operation.is_hub:
            assert other(operation, "get", True)
            assert other(operation, "get", False)
            assert {"id", "href"} <= members(operation.api, schema_of(operation))
