"""Every operation of every API does what its document and TMF630 say. A new API is found, not listed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import URL, Gateway
from contract import (
    CREATABLE,
    DELETED,
    METHODS,
    NOBODY,
    OPERATIONS,
    PATCHED,
    RESOURCES,
    TOLD,
    Operation,
    about_party,
    check,
    each,
    listed,
    made,
    members,
    other,
    refused,
    retrieving,
    schema_of,
    sent,
    target,
)

from convergedon import openapi
from convergedon.core import policy
from convergedon.handlers.apis import APIS
from convergedon.handlers.documents import shape
from convergedon.handlers.resource import Api

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
    kind = "hub" if operation.is_hub else operation.resource.name  # policies know one name for it
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
        assert body["referenceError"] == f"urn:convergedon:decision:{answer.headers['x-decision-id']}"


@each(OPERATIONS)
async def test_a_path_says_which_methods_it_takes(gateway: Gateway, operation: Operation) -> None:
    """405 for every other method, with all that are taken in Allow."""
    item = openapi.document(operation.api.document)["paths"][operation.template]
    for method in set(METHODS) - item.keys():
        answer = await gateway.ask(method, operation.path())

        refused(operation, answer, 405)
        taken = {name.upper() for name in METHODS if name in item}
        assert set(answer.headers["allow"].split(", ")) == taken | ({"HEAD"} if "GET" in taken else set())


@each([one for one in OPERATIONS if one.method == "get"])
async def test_what_is_read_has_a_head(gateway: Gateway, operation: Operation) -> None:
    """HEAD is answered as GET is, without the body (RFC 9110, 9.3.2): Allow may name it."""
    path = await target(gateway, operation)
    whole, head = await gateway.ask("GET", path), await gateway.ask("HEAD", path)

    assert head.status_code == whole.status_code
    assert head.headers["content-length"] == whole.headers["content-length"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", *(f"{api.base}/openapi.json" for api in APIS)])
async def test_pages_beside_the_operations_are_only_read(gateway: Gateway, path: str) -> None:
    """405 that says so, not 404: the page is there."""
    answer = await gateway.client.post(path)

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.json()["code"] == "ERR405"


# what is not there


@each([one for one in OPERATIONS if one.at_id])
@pytest.mark.parametrize("id", [NOBODY, "x", "%00", "%F0%9F%98%80", "..%2F..%2Fetc", "a" * 3000, "$ne", "%C3%28"])
async def test_an_unknown_id_is_not_found(gateway: Gateway, operation: Operation, id: str) -> None:
    """404 for whatever text is no id of ours."""
    body = {"json": {}} if operation.method == "patch" else {}
    answer = await gateway.ask(operation.method, operation.path(id), **body)

    refused(operation, answer, 404)


@each([one for one in OPERATIONS if one.at_id and not one.is_hub])
async def test_another_tenants_resource_does_not_exist(gateway: Gateway, operation: Operation) -> None:
    """It is not found, not forbidden, and it is as it was afterwards."""
    mine = await made(gateway, operation)
    theirs = gateway.token("admin", tenant="another")
    body = {"json": operation.examples} if operation.method == "patch" else {}
    answer = await gateway.ask(operation.method, operation.path(mine["id"]), headers=theirs, **body)

    refused(operation, answer, 404)
    retrieve = retrieving(operation)
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
    resource = operation.resource
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
    settable = members(operation.api, operation.shape.create)
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
    required = schemas[operation.shape.create].get("required", [])
    return {name: operation.examples[name] for name in required}


@each(CREATABLE)
async def test_every_element_has_the_mandatory_members(gateway: Gateway, operation: Operation) -> None:
    """Also of a resource that was created with the least, and after a client removed all that can be removed."""
    start = least(operation)
    wanted = {"id", "href"} | (start.keys() if operation.shape.always else MANDATORY.get(operation.name, start.keys()))
    body = await made(gateway, operation, start or {"description": "x"})
    patch = other(operation, "patch", True)
    if patch:
        for name in members(operation.api, operation.shape.update):
            await gateway.ask("PATCH", patch.path(body["id"]), json={name: None})

    for element in [body, *await listed(gateway, operation)]:
        assert wanted <= element.keys()


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
    ours = set(operation.resource.changed(after))
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
    resource = operation.resource
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
    frozen = members(operation.api, schema_of(operation)) - members(operation.api, operation.shape.update)
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
    updatable = members(operation.api, operation.shape.update)
    for name in schemas.get(operation.shape.create, {}).get("required", []):
        if name in updatable:
            answer = await gateway.ask("PATCH", operation.path(before["id"]), json={name: None})
            assert answer.status_code in (400, 409), answer.text


@each(PATCHED + DELETED)
async def test_an_outdated_representation_changes_nothing(gateway: Gateway, operation: Operation) -> None:
    """412 where If-Match does not name the revision; with the right one, any of several, or * it is done."""
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


@each(DELETED)
async def test_what_was_deleted_is_gone(gateway: Gateway, operation: Operation) -> None:
    """204 with nothing, then it is neither found nor listed, and cannot be deleted again."""
    path = operation.path((await made(gateway, operation))["id"])
    answer = await gateway.ask("DELETE", path)

    assert (answer.status_code, answer.content) == (204, b"")
    refused(operation, await gateway.ask("GET", path), 404)
    refused(operation, await gateway.ask("DELETE", path), 404)
    assert await listed(gateway, operation) == []


# events


@each(TOLD)
async def test_every_change_is_told_as_the_document_says(gateway: Gateway, operation: Operation) -> None:
    """The events of creating, changing and deleting exist in the document, are valid and say nothing that it has not;
    each has an id of its own."""
    body = await made(gateway, operation)
    patch, delete = other(operation, "patch", True), other(operation, "delete", True)
    if patch:
        answer = await gateway.ask("PATCH", patch.path(body["id"]), json={**patch.examples, "@type": "Changed"})
        assert answer.status_code == 200, answer.text
    if delete:
        await gateway.ask("DELETE", delete.path(body["id"]))

    events = await gateway.events(operation.api.base)
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
        assert [name for name in event if not shape(operation.api.document, event["eventType"]).has(name)] == []
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
    resource = operation.resource
    for party in ("northwind", "contoso"):
        related = about_party(operation, party)
        if create and "relatedParty" in members(operation.api, schema_of(operation)):
            ids[party] = (await made(gateway, operation, {**create.examples, "relatedParty": related}))["id"]
        else:
            body = create.examples if create else {}
            record = await gateway.built.resources.create(resource, gateway.tenant, body, {"parties": [party]})
            ids[party] = record.id
    retrieve = retrieving(operation)
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
    orders = next(one for one in RESOURCES if one.name == "productOrder")
    answer = await gateway.ask("GET", orders.path(), headers=gateway.token("customer"))

    refused(orders, answer, 403)


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
