"""Every operation of every API document does what the document and TMF630 say. A new API is found, not listed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import jsonschema_rs
import pytest
from conftest import LIMIT, URL, Gateway

from convergedon import openapi
from convergedon.core import policy
from convergedon.handlers.apis import APIS
from convergedon.handlers.resource import Api

METHODS = ("get", "post", "put", "patch", "delete")
NOBODY = "00000000-0000-4000-8000-000000000000"
CALLBACK = {"callback": "http://127.0.0.1:9/events"}


@dataclass(frozen=True)
class Operation:
    """One operation of a document, served under its API's base."""

    api: Api
    template: str
    method: str
    declared: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.api.base.rsplit('/', 2)[1]}{self.template}"

    @property
    def name(self) -> str:
        return self.template.split("/")[1]

    @property
    def kind(self) -> str:
        return self.name

    @property
    def action(self) -> str:
        verbs = {"post": "create", "patch": "patch", "delete": "delete"}
        return verbs.get(self.method) or ("retrieve" if "{id}" in self.template else "list")

    @property
    def examples(self) -> Any:
        return self.declared["requestBody"]["content"]["application/json"].get("example")

    def path(self, id: str = NOBODY) -> str:
        return self.api.base + self.template.replace("{id}", id)


def found() -> list[Operation]:
    return [
        Operation(api, path, method, item[method])
        for api in APIS
        for path, item in openapi.document(api.document)["paths"].items()
        for method in METHODS
        if method in item
    ]


OPERATIONS = found()
RESOURCES = [operation for operation in OPERATIONS if operation.action == "list"]
CREATABLE = [one for one in OPERATIONS if one.action == "create" and one.name != "hub"]


def each(operations: list[Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("operation", operations, ids=str)


def validator(api: Api, schema: str) -> jsonschema_rs.Draft4Validator:
    components = openapi.document(api.document)["components"]
    whole = {"$ref": f"#/components/schemas/{schema}", "components": components}
    return jsonschema_rs.Draft4Validator(whole, validate_formats=True)


def check(api: Api, schema: str, body: Any) -> None:
    assert [f"{fault.instance_path}: {fault.message}" for fault in validator(api, schema).iter_errors(body)] == []


def schema_of(operation: Operation) -> str:
    return operation.api.resource(operation.name).schema


def members(api: Api, schema: str) -> set[str]:
    return set(openapi.document(api.document)["components"]["schemas"].get(schema, {}).get("properties", {}))


def other(operation: Operation, method: str, id: bool) -> Operation | None:
    """Another operation on the same resource."""
    template = f"/{operation.name}" + ("/{id}" if id else "")
    fitting = (one for one in OPERATIONS if (one.api, one.template, one.method) == (operation.api, template, method))
    return next(fitting, None)


def refused(operation: Operation, answer: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an error, which is the document's Error and says nothing of our inside."""
    body: dict[str, Any] = answer.json()
    assert answer.status_code == status, body
    assert answer.headers["content-type"] == "application/json"
    check(operation.api, "Error", body)
    assert (body["code"], body["status"], body["@type"]) == (f"ERR{status}", str(status), "Error")
    assert "Traceback" not in answer.text
    return body


async def made(gateway: Gateway, operation: Operation, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A resource of the tenant: by the API where it can be created there, else as the gateway writes it itself."""
    create = other(operation, "post", False)
    if create:
        answer = await gateway.ask("POST", create.path(), json=body or create.examples)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())
    resource = operation.api.resource(operation.name)
    begin = {resource.lifecycle.member: resource.lifecycle.initial[0]} if resource.lifecycle else {}
    party = [{"id": "northwind", "role": "customer", "@referredType": "Organization"}]
    facts = {"parties": [p["id"] for p in (body or {}).get("relatedParty", party)]}
    related = {"relatedParty": party} if "relatedParty" in members(operation.api, resource.schema) else {}
    whole = {**related, **begin, **(body or {})}
    record = await gateway.built.resources.create(resource, gateway.tenant, whole, facts)
    return {"id": record.id, **gateway.built.resources.present(record, URL)}


async def listed(gateway: Gateway, operation: Operation, **parameters: Any) -> list[dict[str, Any]]:
    listing = other(operation, "get", False)
    assert listing
    answer = await gateway.ask("GET", listing.path(), params=parameters)
    assert answer.status_code in (200, 206), answer.text
    return list(answer.json())


def sent(operation: Operation) -> dict[str, Any]:
    """A body that the operation understands, if it takes one."""
    if "requestBody" not in operation.declared:
        return {}
    return {"json": CALLBACK if operation.name == "hub" else operation.examples}


# who may call


@each(OPERATIONS)
@pytest.mark.parametrize("said", [None, "", "Bearer", "Bearer x.y.z", "Basic dXNlcjpwYXNz"])
async def test_without_a_valid_token_nothing_is_done(gateway: Gateway, operation: Operation, said: str | None) -> None:
    """401, and how to ask (RFC 6750)."""
    headers = {} if said is None else {"Authorization": said}
    answer = await gateway.client.request(operation.method, operation.path(), headers=headers, **sent(operation))

    refused(operation, answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


@each(OPERATIONS)
async def test_a_role_without_the_grant_is_refused_with_the_reasons(gateway: Gateway, operation: Operation) -> None:
    """403 for every role that the policies do not grant it to, saying why, and under which id it is recorded."""
    grants = policy.read().data["roles"]
    kind = operation.kind
    granted = {
        role
        for role, kinds in grants.items()
        if {operation.action, "*"} & {action for name in (kind, "*") for action in kinds.get(name, ())}
    }
    for role in ["nobody", *(grants.keys() - granted)]:
        answer = await gateway.ask(
            operation.method,
            operation.path(),
            headers=gateway.token(role, party="northwind" if role == "customer" else None),
            **sent(operation),
        )

        body = refused(operation, answer, 403)
        assert f"none of the roles [{role}] may {operation.action} a {kind}" in body["message"]
        assert body["referenceError"].startswith("urn:convergedon:decision:")


@each(OPERATIONS)
async def test_a_path_says_which_methods_it_takes(gateway: Gateway, operation: Operation) -> None:
    """405 for every other method, with all that are taken in Allow."""
    item = openapi.document(operation.api.document)["paths"][operation.template]
    for method in set(METHODS) - item.keys():
        answer = await gateway.ask(method, operation.path())

        refused(operation, answer, 405)
        assert set(answer.headers["allow"].split(", ")) == {name.upper() for name in METHODS if name in item}


# what is not there


@each([one for one in OPERATIONS if "{id}" in one.template])
@pytest.mark.parametrize("id", [NOBODY, "x", "%00", "%F0%9F%98%80", "..%2F..%2Fetc", "a" * 3000, "$ne", "%C3%28"])
async def test_an_unknown_id_is_not_found(gateway: Gateway, operation: Operation, id: str) -> None:
    """404 for whatever text is no id of ours."""
    body = {"json": {}} if operation.method == "patch" else {}
    answer = await gateway.ask(operation.method, operation.path(id), **body)

    refused(operation, answer, 404)


@each([one for one in OPERATIONS if "{id}" in one.template and one.name != "hub"])
async def test_another_tenants_resource_does_not_exist(gateway: Gateway, operation: Operation) -> None:
    """It is not found, not forbidden, and it is as it was afterwards."""
    mine = await made(gateway, operation)
    theirs = gateway.token("admin", tenant="another")
    body = {"json": operation.examples} if operation.method == "patch" else {}
    answer = await gateway.ask(operation.method, operation.path(mine["id"]), headers=theirs, **body)

    refused(operation, answer, 404)
    retrieve = other(operation, "get", True)
    assert retrieve
    assert (await gateway.ask("GET", retrieve.path(mine["id"]))).json() == mine


@each(RESOURCES)
async def test_another_tenants_resources_are_in_no_list(gateway: Gateway, operation: Operation) -> None:
    """Neither the element nor its count, whatever is asked for."""
    mine = await made(gateway, operation)
    for asked in ("", f"?id={mine['id']}", "?limit=5", "?sort=-id"):
        answer = await gateway.ask(
            "GET", operation.path() + asked, headers=gateway.token("admin", tenant=f"not-{gateway.tenant}")
        )

        assert (answer.status_code, answer.json(), answer.headers["x-total-count"]) == (200, [], "0")


# bodies


WITH_BODY = [one for one in OPERATIONS if "requestBody" in one.declared]


async def target(gateway: Gateway, operation: Operation) -> str:
    """The path of an operation on something that is there."""
    return operation.path((await made(gateway, operation))["id"]) if "{id}" in operation.template else operation.path()


@each(WITH_BODY)
@pytest.mark.parametrize("type_", ["text/plain", "application/xml", "application/merge-patch+xml", "nonsense"])
async def test_an_unknown_media_type_is_refused(gateway: Gateway, operation: Operation, type_: str) -> None:
    """415 before anything is read."""
    answer = await gateway.ask(
        operation.method, await target(gateway, operation), headers={"Content-Type": type_}, content=b"{}"
    )

    refused(operation, answer, 415)


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
    schema = "EventSubscriptionInput" if operation.name == "hub" else f"{schema_of(operation)}_Create"
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


@each([one for one in WITH_BODY if one.name != "hub"])
async def test_no_body_makes_the_gateway_fail(any_gateway: Gateway, operation: Operation) -> None:
    """What cannot be kept is refused as the caller's fault; what was taken can be read and listed again."""
    retrieve = other(operation, "get", True)
    assert retrieve
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


# resources


@each(CREATABLE)
async def test_what_was_created_is_what_is_read(gateway: Gateway, operation: Operation) -> None:
    """201 with Location equal to href; the body is the document's, holds what was sent, and is found there."""
    answer = await gateway.ask("POST", operation.path(), json=operation.examples)

    body = answer.json()
    assert answer.status_code == 201, body
    assert answer.headers["location"] == body["href"]
    assert body["href"] == f"{URL}{operation.path()}/{body['id']}"
    check(operation.api, schema_of(operation), body)
    resource = operation.api.resource(operation.name)
    ours = {*resource.new(operation.examples)} | ({resource.lifecycle.member} if resource.lifecycle else set())
    assert {name: body[name] for name in operation.examples if name not in ours} == {
        name: value for name, value in operation.examples.items() if name not in ours
    }
    read = await gateway.ask("GET", body["href"])
    assert read.json() == body
    assert read.headers["etag"] == answer.headers["etag"]
    assert [one for one in await listed(gateway, operation) if one["id"] == body["id"]] == [body]


@each(CREATABLE)
async def test_what_the_server_sets_a_client_cannot(gateway: Gateway, operation: Operation) -> None:
    """id, href and members that may not be given are ignored or refused, never taken."""
    settable = members(operation.api, f"{schema_of(operation)}_Create")
    forbidden = sorted(members(operation.api, schema_of(operation)) - settable)
    for name in {*forbidden, "id", "href"}:
        answer = await gateway.ask("POST", operation.path(), json={**operation.examples, name: "mine"})

        assert answer.status_code in (201, 400)
        if answer.status_code == 201:
            assert answer.json().get(name) != "mine"


MANDATORY = {
    "productOrder": {"orderDate", "state", "productOrderItem", "relatedParty"},
    "alarm": {
        "alarmType",
        "perceivedSeverity",
        "probableCause",
        "alarmedObject",
        "sourceSystemId",
        "state",
        "alarmRaisedTime",
    },
    "usage": {"status"},
    "usageSpecification": {"lastUpdate"},
    "customerBillOnDemand": {"state"},
}


def least(operation: Operation) -> dict[str, Any]:
    """The example without what is not required."""
    schemas = openapi.document(operation.api.document)["components"]["schemas"]
    required = schemas[f"{schema_of(operation)}_Create"].get("required", [])
    return {name: operation.examples[name] for name in required}


@each(CREATABLE)
async def test_every_element_has_the_mandatory_members(gateway: Gateway, operation: Operation) -> None:
    """Also of a resource that was created with the least, and after a client removed all that can be removed."""
    start = least(operation)
    wanted = {"id", "href"} | MANDATORY.get(operation.name, start.keys())
    body = await made(gateway, operation, start or {"description": "x"})
    patch = other(operation, "patch", True)
    if patch:
        for name in members(operation.api, f"{schema_of(operation)}_Update"):
            await gateway.ask("PATCH", patch.path(body["id"]), json={name: None})

    for element in [body, *await listed(gateway, operation)]:
        assert wanted <= element.keys()


PATCHED = [one for one in OPERATIONS if one.method == "patch"]


@each(PATCHED)
@pytest.mark.parametrize("type_", ["application/json-patch+json", "application/json-patch-query+json"])
async def test_the_operations_that_are_shown_can_be_done(gateway: Gateway, operation: Operation, type_: str) -> None:
    """On what was created by the example; only the members that the operations name are another."""
    before = await made(gateway, operation)
    path = operation.path(before["id"])
    steps = operation.declared["requestBody"]["content"][type_]["example"]
    answer = await gateway.ask("PATCH", path, headers={"Content-Type": type_}, content=json.dumps(steps))

    after = answer.json()
    assert answer.status_code == 200, after
    named = {step["path"].split("/")[1] for step in steps if step["op"] != "test"}
    ours = set(operation.api.resource(operation.name).changed(after))
    assert {name for name in after if after[name] != before.get(name)} - ours == named
    check(operation.api, schema_of(operation), after)


@each(PATCHED)
@pytest.mark.parametrize("type_", ["application/json", "application/merge-patch+json"])
async def test_a_patch_changes_what_it_names(gateway: Gateway, operation: Operation, type_: str) -> None:
    """The answer is the whole resource as it is from now on; what was not named is as it was."""
    before = await made(gateway, operation)
    path = operation.path(before["id"])
    answer = await gateway.ask("PATCH", path, headers={"Content-Type": type_}, json=operation.examples)

    after = answer.json()
    assert answer.status_code == 200, after
    for name, value in operation.examples.items():
        assert after[name] == ({**before.get(name, {}), **value} if isinstance(value, dict) else value)
    resource = operation.api.resource(operation.name)
    ours = set(resource.changed(after))
    assert {n: v for n, v in after.items() if n not in operation.examples and n not in ours} == {
        n: v for n, v in before.items() if n not in operation.examples and n not in ours
    }
    check(operation.api, schema_of(operation), after)
    read = await gateway.ask("GET", path)
    assert read.json() == after
    assert read.headers["etag"] == answer.headers["etag"] != '"1"'


@each(PATCHED)
async def test_a_patch_that_changes_nothing_writes_nothing(gateway: Gateway, operation: Operation) -> None:
    """The same again is no new revision and no event."""
    path = operation.path((await made(gateway, operation))["id"])
    first = await gateway.ask("PATCH", path, json=operation.examples)
    told = len(await gateway.events())
    second = await gateway.ask("PATCH", path, json=operation.examples)

    assert second.headers["etag"] == first.headers["etag"]
    assert second.json() == first.json()
    assert len(await gateway.events()) == told


@each(PATCHED)
async def test_members_that_may_not_change_are_refused(gateway: Gateway, operation: Operation) -> None:
    """400 naming the member, for each that the document has no update for; nothing is changed."""
    before = await made(gateway, operation)
    path = operation.path(before["id"])
    frozen = members(operation.api, schema_of(operation)) - members(operation.api, f"{schema_of(operation)}_Update")
    assert {"id", "href"} <= frozen
    for name in [*frozen, "unknown"]:
        answer = await gateway.ask("PATCH", path, json={name: "mine", "@type": "Changed"})

        assert name in refused(operation, answer, 400)["message"]
    assert (await gateway.ask("GET", path)).json() == before


@each(PATCHED)
async def test_required_members_cannot_be_removed(gateway: Gateway, operation: Operation) -> None:
    """What a new resource must have, a changed one has too."""
    before = await made(gateway, operation)
    schemas = openapi.document(operation.api.document)["components"]["schemas"]
    updatable = members(operation.api, f"{schema_of(operation)}_Update")
    for name in schemas.get(f"{schema_of(operation)}_Create", {}).get("required", []):
        if name in updatable:
            answer = await gateway.ask("PATCH", operation.path(before["id"]), json={name: None})
            assert answer.status_code in (400, 409), answer.text


@each([one for one in OPERATIONS if one.action in ("patch", "delete") and one.name != "hub"])
async def test_an_outdated_representation_changes_nothing(gateway: Gateway, operation: Operation) -> None:
    """412 where If-Match does not name the revision; with the right one, any of several, or * it is done."""
    retrieve = other(operation, "get", True)
    assert retrieve
    body = sent(operation)
    for right in ('"1"', '"7", "1"', "*"):
        before = await made(gateway, operation)
        path = operation.path(before["id"])
        assert (await gateway.ask("GET", path)).headers["etag"] == '"1"'
        for wrong in ('"2"', '"x"', '"11"', 'W/"2"'):
            answer = await gateway.ask(operation.method, path, headers={"If-Match": wrong}, **body)
            refused(operation, answer, 412)
        assert (await gateway.ask("GET", path)).json() == before
        answer = await gateway.ask(operation.method, path, headers={"If-Match": right}, **body)
        assert answer.status_code in (200, 204)


@each([one for one in OPERATIONS if one.action == "delete" and one.name != "hub"])
async def test_what_was_deleted_is_gone(gateway: Gateway, operation: Operation) -> None:
    """204 with nothing, then it is neither found nor listed, and cannot be deleted again."""
    path = operation.path((await made(gateway, operation))["id"])
    answer = await gateway.ask("DELETE", path)

    assert (answer.status_code, answer.content) == (204, b"")
    refused(operation, await gateway.ask("GET", path), 404)
    refused(operation, await gateway.ask("DELETE", path), 404)
    assert await listed(gateway, operation) == []


# lists


@each(RESOURCES)
async def test_fields_are_exactly_those_asked_for(gateway: Gateway, operation: Operation) -> None:
    """id, href and the named members that are there, in lists and alone; none is id and href."""
    whole = await made(gateway, operation)
    retrieve = other(operation, "get", True)
    assert retrieve
    for name in [*whole, "none", ",".join(list(whole)[:4])]:
        wanted = {"id", "href"} | ({*name.split(",")} & whole.keys())
        alone = await gateway.ask("GET", retrieve.path(whole["id"]), params={"fields": name})
        (element,) = await listed(gateway, operation, fields=name)

        assert alone.json() == element == {n: v for n, v in whole.items() if n in wanted}
    refused(operation, await gateway.ask("GET", operation.path(), params={"fields": "unknown"}), 400)


@each(RESOURCES)
async def test_pages_add_up_to_the_list(gateway: Gateway, operation: Operation) -> None:
    """206 for a page that is not everything, 200 for all; headers count; links lead over everything once."""
    ids = sorted([(await made(gateway, operation))["id"] for _ in range(5)])
    whole = await gateway.ask("GET", operation.path())
    assert (whole.status_code, whole.headers["x-total-count"], whole.headers["x-result-count"]) == (200, "5", "5")

    url, seen = f"{operation.path()}?limit=2&sort=id", []
    while url:
        page = await gateway.ask("GET", url)
        assert page.status_code == 206
        assert page.headers["x-total-count"] == "5"
        assert page.headers["x-result-count"] == str(len(page.json()))
        seen += [element["id"] for element in page.json()]
        links = dict(reversed(part.split("; rel=")) for part in page.headers["link"].split(", "))
        assert {'"self"', '"first"', '"last"'} <= links.keys()
        url = links.get('"next"', "<>")[1:-1]
        assert not url or url.startswith(f"{URL}{operation.path()}?")
        assert not url or dict(parse_qsl(urlsplit(url).query))["sort"] == "id"
    assert seen == ids


@each(RESOURCES)
@pytest.mark.parametrize(
    ("asked", "status", "count"),
    [
        ("limit=3", 200, 3),
        ("limit=9", 200, 3),
        ("limit=2", 206, 2),
        ("limit=2&offset=2", 206, 1),
        ("limit=0", 206, 0),
        ("offset=3", 200, 0),
        ("offset=99", 200, 0),
        ("limit=2&offset=99", 200, 0),
    ],
)
async def test_a_page_says_whether_it_is_everything(
    gateway: Gateway, operation: Operation, asked: str, status: int, count: int
) -> None:
    """206 only for a part; past the end is an empty list."""
    for _ in range(3):
        await made(gateway, operation)
    answer = await gateway.ask("GET", f"{operation.path()}?{asked}")

    assert (answer.status_code, len(answer.json())) == (status, count)
    assert (answer.headers["x-total-count"], answer.headers["x-result-count"]) == ("3", str(count))


@each(RESOURCES)
@pytest.mark.parametrize("asked", ["limit=-1", "limit=x", "offset=-1", "offset=x", "unknown=1", "sort=unknown"])
async def test_a_list_that_cannot_be_read_is_refused(gateway: Gateway, operation: Operation, asked: str) -> None:
    """400 rather than another list than was asked for."""
    refused(operation, await gateway.ask("GET", f"{operation.path()}?{asked}"), 400)


@each(RESOURCES)
async def test_a_list_is_filtered_and_sorted_by_members(gateway: Gateway, operation: Operation) -> None:
    """One value, several, quoted or not, and the order that was asked for."""
    ids = [(await made(gateway, operation))["id"] for _ in range(3)]

    assert {one["id"] for one in await listed(gateway, operation, id=ids[0])} == {ids[0]}
    assert {one["id"] for one in await listed(gateway, operation, id=f"'{ids[0]}'")} == {ids[0]}
    assert {one["id"] for one in await listed(gateway, operation, id=f"{ids[0]},{ids[2]}")} == {ids[0], ids[2]}
    assert await listed(gateway, operation, id=NOBODY) == []
    for sort, wanted in (("id", sorted(ids)), ("-id", sorted(ids, reverse=True))):
        assert [one["id"] for one in await listed(gateway, operation, sort=sort)] == wanted


# events


@each(RESOURCES)
async def test_every_change_is_told_as_the_document_says(gateway: Gateway, operation: Operation) -> None:
    """The events of creating, changing and deleting exist in the document and are valid; each has an id of its own."""
    body = await made(gateway, operation)
    patch, delete = other(operation, "patch", True), other(operation, "delete", True)
    if patch:
        answer = await gateway.ask("PATCH", patch.path(body["id"]), json={**patch.examples, "@type": "Changed"})
        assert answer.status_code == 200, answer.text
    if delete:
        await gateway.ask("DELETE", delete.path(body["id"]))

    events = await gateway.events()
    types = [event["eventType"] for event in events]
    schema = schema_of(operation)
    assert types[0] == f"{schema}CreateEvent"
    assert not patch or types[1] in (f"{schema}AttributeValueChangeEvent", f"{schema}StateChangeEvent")
    assert not delete or types[-1] == f"{schema}DeleteEvent"
    assert len(types) == 1 + bool(patch) + bool(delete)
    declared = openapi.document(operation.api.document)["components"]["schemas"]
    for event in events:
        assert event["eventType"] in declared
        check(operation.api, event["eventType"], event)
        assert event["event"][operation.name]["id"] == body["id"]
        assert event["eventTime"].endswith("Z")
    assert len({event["eventId"] for event in events}) == len(events)


# customers


CUSTOMERS = sorted(policy.read().data["roles"]["customer"].keys() - {"hub", "event"})


@each([one for one in RESOURCES if one.name in CUSTOMERS])
async def test_a_customer_sees_what_concerns_its_party(gateway: Gateway, operation: Operation) -> None:
    """In lists, in their counts and alone; another party's is not found."""
    create = other(operation, "post", False)
    ids = {}
    resource = operation.api.resource(operation.name)
    for party in ("northwind", "contoso"):
        related = [{"id": party, "role": "customer", "@referredType": "Organization"}]
        if create and "relatedParty" in members(operation.api, schema_of(operation)):
            ids[party] = (await made(gateway, operation, {**create.examples, "relatedParty": related}))["id"]
        else:
            body = create.examples if create else {}
            record = await gateway.built.resources.create(resource, gateway.tenant, body, {"parties": [party]})
            ids[party] = record.id
    retrieve = other(operation, "get", True)
    assert retrieve
    northwind = gateway.token("customer", party="northwind")

    for asked in ("", "?limit=1", f"?id={ids['northwind']},{ids['contoso']}"):
        answer = await gateway.ask("GET", operation.path() + asked, headers=northwind)
        assert [one["id"] for one in answer.json()] == [ids["northwind"]]
        assert answer.headers["x-total-count"] == "1"
    assert (await gateway.ask("GET", retrieve.path(ids["northwind"]), headers=northwind)).status_code == 200
    refused(operation, await gateway.ask("GET", retrieve.path(ids["contoso"]), headers=northwind), 404)
    assert len((await gateway.ask("GET", operation.path())).json()) == 2


async def test_a_customer_without_a_party_is_refused(gateway: Gateway) -> None:
    """It must not see what concerns nobody."""
    (orders,) = [one for one in RESOURCES if one.name == "productOrder"]
    answer = await gateway.ask("GET", orders.path(), headers=gateway.token("customer"))

    refused(orders, answer, 403)


# listeners


HUBS = [one for one in OPERATIONS if one.template == "/hub"]


@each(HUBS)
async def test_a_listener_is_registered_and_unregistered(gateway: Gateway, operation: Operation) -> None:
    """201 with its id, callback and query; 204 once, then it is not found."""
    asked = {**CALLBACK, "query": "eventType=ProductOrderCreateEvent"}
    answer = await gateway.ask("POST", operation.path(), json=asked)

    body = answer.json()
    assert answer.status_code == 201
    check(operation.api, "EventSubscription", body)
    assert body == {**asked, "id": body["id"]}
    path = f"{operation.path()}/{body['id']}"
    assert answer.headers["location"] == URL + path
    assert answer.headers["x-hub-secret"].startswith("whsec_")
    assert answer.headers["cache-control"] == "no-store"
    assert (await gateway.ask("DELETE", path)).status_code == 204
    refused(operation, await gateway.ask("DELETE", path), 404)


@each(HUBS)
@pytest.mark.parametrize("query", ["nix=1", "event.nix.id=1", "filter=$[?(", "id.regex=(", "eventTime.gt=yesterday"])
async def test_a_query_that_cannot_be_understood_is_refused(gateway: Gateway, operation: Operation, query: str) -> None:
    """400 at registration, rather than silence for ever."""
    answer = await gateway.ask("POST", operation.path(), json={**CALLBACK, "query": query})

    refused(operation, answer, 400)


@each(HUBS)
async def test_another_tenants_and_another_apis_listener_does_not_exist(gateway: Gateway, operation: Operation) -> None:
    """Nobody ends what others hear; afterwards its owner can."""
    body = (await gateway.ask("POST", operation.path(), json=CALLBACK)).json()
    theirs = gateway.token("admin", tenant=f"not-{gateway.tenant}")
    elsewhere = next(hub for hub in HUBS if hub.api != operation.api)

    refused(operation, await gateway.ask("DELETE", f"{operation.path()}/{body['id']}", headers=theirs), 404)
    refused(operation, await gateway.ask("DELETE", f"{elsewhere.path()}/{body['id']}"), 404)
    assert (await gateway.ask("DELETE", f"{operation.path()}/{body['id']}")).status_code == 204


async def test_a_customer_ends_only_its_own_subscription(gateway: Gateway) -> None:
    """Another party's is not found."""
    hub = HUBS[0]
    northwind, contoso = [gateway.token("customer", party=party) for party in ("northwind", "contoso")]
    body = (await gateway.ask("POST", hub.path(), headers=northwind, json=CALLBACK)).json()
    path = f"{hub.path()}/{body['id']}"

    refused(hub, await gateway.ask("DELETE", path, headers=contoso), 404)
    assert (await gateway.ask("DELETE", path, headers=northwind)).status_code == 204


@pytest.mark.parametrize(
    "callback",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[::ffff:169.254.169.254]/",
        "http://10.0.0.1/events",
        "http://192.168.1.1:8080/events",
        "http://0.0.0.0/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:10.0.0.1]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://100.64.0.1/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[64:ff9b::808:808]/",
        "http://[2002:7f00:1::]/",
        "http://[2002:808:808::]/",
        "http://[2001:0:808:808::80ff:fffe]/",
        "http://[::127.0.0.1]/",
        "http://[fec0::1]/",
        "http://[fd00::1]/",
        "http://[ff02::1]/",
        "http://192.88.99.1/",
        "http://2852039166/",
        "http://user:password@127.0.0.1/",
        "http://user@127.0.0.1/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "//127.0.0.1/",
        "127.0.0.1",
        "http://",
        "http:///events",
        "",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:port/",
        "http://[::1",
        "http://[nonsense]/",
        "http://a..b/",
        "http://" + "a" * 300 + "/",
        "http://a\x00b/",
        "http://127.0.0.1\x00/",
        "http://127.0.0.1/a b",
        "http://\U0001f600..example/",
    ],
)
async def test_places_that_may_not_be_called_are_refused(gateway: Gateway, callback: str) -> None:
    """400 for link-local, private, special and malformed addresses, and for what is no web address."""
    answer = await gateway.ask("POST", HUBS[0].path(), json={"callback": callback})

    refused(HUBS[0], answer, 400)


async def test_a_host_that_does_not_exist_is_refused(gateway: Gateway) -> None:
    """400, or 503 where names cannot be looked up now; nothing is kept."""
    answer = await gateway.ask("POST", HUBS[0].path(), json={"callback": "http://nowhere.invalid/events"})

    refused(HUBS[0], answer, 503 if answer.status_code == 503 else 400)


async def test_loopback_is_refused_unless_it_is_allowed(gateway: Gateway) -> None:
    """The setting opens a network; link-local stays closed even then."""
    from convergedon.core.errors import Invalid
    from convergedon.core.settings import load
    from convergedon.handlers.hub import check_callback

    allowed = load(callback_networks="127.0.0.0/8,::1/128,0.0.0.0/0,::/0").callback_networks
    await check_callback("http://127.0.0.1:80/", allowed)
    await check_callback("http://[::1]:80/", allowed)

    with pytest.raises(Invalid):
        await check_callback("http://127.0.0.1:80/", [])
    for address in ("169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "224.0.0.1"):
        with pytest.raises(Invalid):
            await check_callback(f"http://{address}/", allowed)


# beside the APIs


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/tmf-api/productOrderingManagement/v9/productOrder", "/favicon.ico"]
)
async def test_a_path_that_is_not_there_is_the_error_of_the_standard(gateway: Gateway, path: str) -> None:
    """404 in the same form as everywhere."""
    refused(OPERATIONS[0], await gateway.ask("GET", path), 404)


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.document)
async def test_the_document_is_served_to_everybody(gateway: Gateway, api: Api) -> None:
    """With the address at which it is served."""
    answer = await gateway.client.get(f"{api.base}/openapi.json")

    assert answer.status_code == 200
    assert answer.json()["servers"] == [{"url": api.base}]
    assert answer.json()["paths"].keys() == openapi.document(api.document)["paths"].keys()


async def test_answers_carry_the_trace_they_continue(gateway: Gateway) -> None:
    """A client finds its request again."""
    from convergedon.core import trace

    trace.configure("test")
    headers = {"traceparent": f"00-{'a1' * 16}-{'b2' * 8}-01"}
    answer = await gateway.ask("GET", RESOURCES[0].path(), headers=headers)

    assert answer.headers["x-trace-id"] == "a1" * 16
