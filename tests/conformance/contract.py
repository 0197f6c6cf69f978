"""What the documents say, for the tests to ask: every operation of every API, and how to reach what it needs.

Nothing is listed here: an API that is declared in APIS and its document are found, and its operations with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
import jsonschema_rs
import pytest
from conftest import URL, Gateway

from convergedon import openapi
from convergedon.core.store import Record
from convergedon.handlers import documents
from convergedon.handlers.apis import APIS
from convergedon.handlers.resource import Api, Resource

METHODS = ("get", "post", "put", "patch", "delete")
NOBODY = "00000000-0000-4000-8000-000000000000"
CALLBACK = {"callback": "http://127.0.0.1:9/events"}
VERBS = {"post": "create", "patch": "patch", "delete": "delete"}


@dataclass(frozen=True)
class Operation:
    """One operation of a document, served under its API's base."""

    api: Api
    template: str
    method: str
    declared: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.method.upper()} {'/'.join(self.api.base.split('/')[2:])}{self.template}"

    @property
    def name(self) -> str:
        return self.template.split("/")[1]

    @property
    def is_hub(self) -> bool:
        return self.name == "hub"

    @property
    def at_id(self) -> bool:
        return "{id}" in self.template

    @property
    def action(self) -> str:
        return VERBS.get(self.method) or ("retrieve" if self.at_id else "list")

    @property
    def resource(self) -> Resource:
        resource = self.api.find(self.name)
        assert resource, f"{self} is of no resource"
        return resource

    @property
    def shape(self) -> documents.Shape:
        return documents.shape(self.api.document, schema_of(self))

    @property
    def media(self) -> Mapping[str, Any]:
        """What its body may be, by media type."""
        found: Mapping[str, Any] = self.declared.get("requestBody", {}).get("content", {})
        return found

    @property
    def examples(self) -> Any:
        return self.media["application/json"].get("example")

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
RESOURCES = [one for one in OPERATIONS if one.action == "list" and not one.is_hub and not one.resource.computed]
"""Those of which there are as many as a test wants."""
TOLD = [one for one in RESOURCES if "/hub" in openapi.document(one.api.document)["paths"]]
CREATABLE = [one for one in OPERATIONS if one.action == "create" and not one.is_hub]
PATCHED = [one for one in OPERATIONS if one.action == "patch"]
DELETED = [one for one in OPERATIONS if one.action == "delete" and not one.is_hub]
WITH_BODY = [one for one in OPERATIONS if one.media]
HUBS = [one for one in OPERATIONS if one.is_hub and one.action == "create"]


def each(operations: list[Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("operation", operations, ids=str)


def other(operation: Operation, method: str, id: bool) -> Operation | None:
    """Another operation on the same resource."""
    template = f"/{operation.name}" + ("/{id}" if id else "")
    fitting = (one for one in OPERATIONS if (one.api, one.template, one.method) == (operation.api, template, method))
    return next(fitting, None)


def retrieving(operation: Operation) -> Operation:
    """The operation that reads one resource; each has it."""
    retrieve = other(operation, "get", True)
    assert retrieve, f"{operation} has no way to read one"
    return retrieve


@cache
def validator(document: str, schema: str) -> jsonschema_rs.Draft4Validator:
    components = openapi.document(document)["components"]
    whole = {"$ref": f"#/components/schemas/{schema}", "components": components}
    return jsonschema_rs.Draft4Validator(whole, validate_formats=True)


def check(api: Api, schema: str, body: Any) -> None:
    faults = validator(api.document, schema).iter_errors(body)
    assert [f"{fault.instance_path}: {fault.message}" for fault in faults] == []


def schema_of(operation: Operation) -> str:
    return operation.api.schema(operation.resource)


def properties(api: Api, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a schema with theirs, wherever it has them from."""
    schemas = openapi.document(api.document)["components"]["schemas"]
    while "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    inherited = {n: p for part in schema.get("allOf", ()) for n, p in properties(api, part).items()}
    return inherited | schema.get("properties", {})


def members(api: Api, schema: str) -> set[str]:
    schemas = openapi.document(api.document)["components"]["schemas"]
    return set(properties(api, schemas.get(schema, {})))


def set_by_server(operation: Operation, body: Mapping[str, Any]) -> set[str]:
    """The members of a new resource that are not as they were sent, in the words of the operation's version."""
    resource = operation.resource
    translation = operation.api.translation(resource.name)
    kept, _ = translation.inward({name: value for name, value in body.items() if name not in ("id", "href")})
    own = {**resource.new(kept), **({resource.lifecycle.member: ""} if resource.lifecycle else {})}
    names = {*own}
    for name in members(operation.api, schema_of(operation)):
        if translation.path(name).removeprefix("body.").partition(".")[0] in own:
            names.add(name)
    return names


def changed_by_server(operation: Operation, body: Mapping[str, Any]) -> set[str]:
    """The members that follow from any change."""
    kept, _ = operation.api.translation(operation.resource.name).inward(
        {n: v for n, v in body.items() if n not in ("id", "href")}
    )
    return set(operation.resource.changed(kept))


def refused(operation: Operation, answer: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an error, which is the document's Error and says nothing of our inside."""
    body: dict[str, Any] = answer.json()
    assert answer.status_code == status, body
    assert answer.headers["content-type"] == "application/json"
    check(operation.api, "Error", body)
    assert (body["code"], body["status"], body["@type"]) == (f"ERR{status}", str(status), "Error")
    assert "Traceback" not in answer.text
    return body


def settled(operation: Operation, answer: httpx.Response) -> dict[str, Any]:
    """The body of an answer that did what was asked."""
    assert answer.status_code == (201 if operation.action == "create" else 200), answer.text
    return dict(answer.json())


async def written(gateway: Gateway, operation: Operation, body: Mapping[str, Any] | None = None) -> Record:
    """A resource as the gateway writes it itself, where the API has no way to create one."""
    resource = operation.resource
    if resource.computed:  # nobody writes it
        return (await resource.computed(gateway.built.store, gateway.tenant))[0]
    begin = {resource.lifecycle.member: resource.lifecycle.initial[0]} if resource.lifecycle else {}
    party = about_party(operation, "northwind")
    related = {"relatedParty": party} if "relatedParty" in members(operation.api, schema_of(operation)) else {}
    whole = {**related, **begin, **(body or {})}
    facts = {"parties": [p["id"] for p in whole.get("relatedParty", party)]}
    return await gateway.built.resources.create(resource, gateway.tenant, whole, facts)


async def made(gateway: Gateway, operation: Operation, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A resource of the tenant: by the API where it can be created there, else as the gateway writes it itself."""
    create = other(operation, "post", False)
    if create:
        return settled(create, await gateway.ask("POST", create.path(), json=body or create.examples))
    record = await written(gateway, operation, body)
    return {"id": record.id, **gateway.built.resources.present(record, URL, operation.api)}


async def target(gateway: Gateway, operation: Operation) -> str:
    """The path of an operation on something that is there."""
    if not operation.at_id:
        return operation.path()
    if operation.is_hub:
        answer = await gateway.ask("POST", operation.api.base + "/hub", json=hub_body(operation))
        return operation.path(answer.json()["id"])
    return operation.path((await made(gateway, operation))["id"])


async def listed(gateway: Gateway, operation: Operation, **parameters: Any) -> list[dict[str, Any]]:
    listing = other(operation, "get", False)
    assert listing
    answer = await gateway.ask("GET", listing.path(), params=parameters)
    assert answer.status_code in (200, 206), answer.text
    return list(answer.json())


def about_party(operation: Operation, party: str) -> list[Any]:
    """The relatedParty of a resource that concerns a party, in the form that its version has."""
    create = other(operation, "post", False)
    shown = create.examples.get("relatedParty") if create else None
    return [_named(one, party) for one in shown or [{"id": "", "role": "customer", "@referredType": "Organization"}]]


def _named(value: Any, id: str) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: id if name == "id" else _named(inner, id) for name, inner in value.items()}


def hub_body(operation: Operation) -> dict[str, Any]:
    """The example of a listener, on this machine."""
    register = other(operation, "post", False)
    return {**(register.examples if register else {}), **CALLBACK}


def sent(operation: Operation) -> dict[str, Any]:
    """A body that the operation understands, if it takes one."""
    if not operation.media:
        return {}
    return {"json": hub_body(operation) if operation.is_hub else operation.examples}


def pairs() -> Iterator[tuple[Operation, str]]:
    """Every operation with every status that its document declares."""
    for operation in OPERATIONS:
        for status in operation.declared["responses"]:
            yield operation, status
