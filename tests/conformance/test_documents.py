"""Our documents are sound in themselves, and connexion can serve them as they are."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import httpx
import jsonschema_rs
import pytest
import yaml
from openapi_spec_validator import validate

from convergedon import openapi

with warnings.catch_warnings():  # starlette's test client, which connexion imports, wants a renamed httpx
    warnings.simplefilter("ignore")
    from connexion import AsyncApp
    from connexion.resolver import Resolver

METHODS = {"get", "post", "put", "patch", "delete"}
MERGES = ("application/json", "application/merge-patch+json")
PATCHES = ("application/json-patch+json", "application/json-patch-query+json")
PARAMETERS = {
    ("get", False): ["fields", "offset", "limit", "sort", "filter"],
    ("get", True): ["fields"],
    ("post", False): ["Idempotency-Key"],
    ("patch", True): ["If-Match"],
    ("delete", True): ["If-Match"],
}
BESIDE_ERRORS = {"401": {"WWW-Authenticate"}, "405": {"Allow"}, "429": {"Retry-After"}, "503": {"Retry-After"}}
UNDECIDED = {"401", "405", "406", "413", "415", "429"}
"""Refused before the policy is asked."""
FILES = sorted(file.name for file in files(openapi.__name__).iterdir() if file.name.endswith(".yaml"))
every_document = pytest.mark.parametrize("name", openapi.NAMES)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in item.keys() & METHODS:
            yield path, method, item[method]


def _inside(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document, the outermost first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _inside(value)


def _followed(document: dict[str, Any], node: dict[str, Any]) -> Any:
    if "$ref" not in node:
        return node
    found: Any = document
    for key in node["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    return found


def _validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema_rs.Draft4Validator:
    return jsonschema_rs.Draft4Validator({**schema, "components": document["components"]}, validate_formats=True)


def test_the_folder_says_which_documents_there_are() -> None:
    """A document is added by its file."""
    assert {*FILES} == {openapi.COMMON, *(f"{name}.yaml" for name in openapi.NAMES)}


@pytest.mark.parametrize("file", FILES)
def test_no_key_is_written_twice(file: str) -> None:
    """YAML forbids it, and the reader we use would silently keep the last."""
    pending = [yaml.compose(files(openapi.__name__).joinpath(file).read_text(encoding="utf-8"))]
    twice = []
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            twice.extend(f"{key} at line {node.start_mark.line + 1}" for key in {*keys} if keys.count(key) > 1)
            pending.extend(value for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            pending.extend(node.value)

    assert twice == []


@every_document
def test_document_is_valid_and_plain_json(name: str) -> None:
    """It can be served as openapi.json and read by any tool for OpenAPI 3.0."""
    document = openapi.document(name)

    validate(document)
    assert json.loads(json.dumps(document)) == document


@every_document
def test_document_stands_alone(name: str) -> None:
    """Every reference points at something in the document itself."""
    document = openapi.document(name)

    references = [node for node in _inside(document) if "$ref" in node]
    assert references
    for reference in references:
        assert reference["$ref"].startswith("#/components/")
        assert isinstance(_followed(document, reference), dict)


def test_nothing_shared_is_unused() -> None:
    """What no document uses does not belong in common.yaml."""
    common = yaml.safe_load(files(openapi.__name__).joinpath(openapi.COMMON).read_text(encoding="utf-8"))
    used = {
        (section, key)
        for name in openapi.NAMES
        for section, parts in openapi.document(name)["components"].items()
        for key in parts
    }

    assert {(section, key) for section, parts in common["components"].items() for key in parts} <= used


@every_document
def test_no_component_is_unused(name: str) -> None:
    """Everything in a document is reached from an operation, an event or the security requirement."""
    document = openapi.document(name)
    pending = [document["paths"], *(s for k, s in document["components"]["schemas"].items() if k.endswith("Event"))]
    reached: set[str] = set()
    while pending:
        for node in _inside(pending.pop()):
            if "$ref" in node and node["$ref"] not in reached:
                reached.add(node["$ref"])
                pending.append(_followed(document, node))

    idle = {
        f"#/components/{section}/{key}"
        for section, parts in document["components"].items()
        for key in parts
        if section != "securitySchemes" and not key.endswith("Event")
    } - reached
    assert idle == set()


@every_document
def test_every_operation_has_a_name_of_its_own_and_needs_a_token(name: str) -> None:
    """The name is what policies and audit records call it."""
    document = openapi.document(name)

    identities = [operation["operationId"] for _, _, operation in _operations(document)]
    assert len(identities) == len({*identities})
    for _, _, operation in _operations(document):
        assert operation.get("security", document["security"]) == [{"bearerAuth": []}]
    assert document["components"]["securitySchemes"]["bearerAuth"]["scheme"] == "bearer"


@every_document
def test_every_operation_says_how_it_fails(name: str) -> None:
    """Every refusal has the one body that TM Forum clients know."""
    document = openapi.document(name)

    for path, method, operation in _operations(document):
        failures = {code: answer for code, answer in operation["responses"].items() if code[0] in "45"}
        expected = {"400", "401", "403", "405", "406", "429", "500", "503"}
        expected |= {"404"} if "{id}" in path else set()
        expected |= {"413", "415"} if "requestBody" in operation else set()
        expected |= {"409", "422"} if method == "post" and path != "/hub" else set()
        expected |= {"409", "412"} if method in {"patch", "delete"} and path != "/hub/{id}" else set()
        expected |= {"501"} if method == "get" and "{id}" not in path else set()
        assert failures.keys() == expected, f"{method} {path}"
        for code, answer in failures.items():
            answer = _followed(document, answer)
            assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
            decided = set() if code in UNDECIDED else {"X-Decision-Id"}
            assert answer.get("headers", {}).keys() == {"X-Trace-Id"} | decided | BESIDE_ERRORS.get(code, set())


@every_document
def test_every_operation_has_the_shape_of_its_kind(name: str) -> None:
    """Handlers are written once for all APIs (decision 1), so no document may go its own way."""
    document = openapi.document(name)
    kinds: dict[tuple[str, bool], set[str]] = {
        ("get", False): {"200", "206"},
        ("get", True): {"200"},
        ("post", False): {"201"},
        ("patch", True): {"200"},
        ("delete", True): {"204"},
    }

    for path, method, operation in _operations(document):
        at_id = path.endswith("/{id}")
        answers = {code: _followed(document, answer) for code, answer in operation["responses"].items()}
        assert {code for code in answers if code[0] == "2"} == kinds[method, at_id], f"{method} {path}"
        parameters = [_followed(document, parameter)["name"] for parameter in operation.get("parameters", [])]
        ours = not path.startswith("/hub")
        assert parameters == (PARAMETERS[method, at_id] if ours else []), f"{method} {path}"
        for code, answer in answers.items():
            if code[0] == "2":
                every = {"X-Trace-Id", "X-Decision-Id"}
                assert answer["headers"].keys() == every | _headers(method, at_id, ours), f"{method} {path}"
        if method == "post":
            assert operation["requestBody"]["content"].keys() == {"application/json"}
        if method == "patch":
            bodies = {type_: media["schema"] for type_, media in operation["requestBody"]["content"].items()}
            assert bodies.keys() == {*MERGES, *PATCHES}
            assert all(bodies[type_]["$ref"].endswith(("_Update", "_MVO")) for type_ in MERGES)
            assert all(bodies[type_] == {"$ref": "#/components/schemas/JsonPatch"} for type_ in PATCHES)


def _headers(method: str, at_id: bool, ours: bool) -> set[str]:
    if method == "get" and not at_id:
        return {"X-Total-Count", "X-Result-Count", "Link"}
    if method == "post" and not ours:
        return {"Location", "X-Hub-Secret"}
    return ({"Location"} if method == "post" else set()) | ({"ETag"} if ours and method != "delete" else set())


def test_every_list_tells_alike_how_to_filter() -> None:
    """Filters are free query parameters, so a sentence stands for them: the same in all documents."""
    told = {
        operation["description"]
        for name in openapi.NAMES
        for path, method, operation in _operations(openapi.document(name))
        if method == "get" and "{id}" not in path
    }

    assert len(told) == 1


@every_document
def test_what_may_be_written_is_part_of_what_is_read(name: str) -> None:
    """X_Create and X_Update leave members out and add none; in version 5 X_FVO and X_MVO, of parts too."""
    schemas = openapi.document(name)["components"]["schemas"]
    resources = {node["$ref"].rpartition("/")[2] for node in _inside(openapi.document(name)["paths"]) if "$ref" in node}

    for written, schema in schemas.items():
        resource, _, variant = written.partition("_")
        if variant and "anyOf" not in schema:
            read = schemas[resource]["properties"]
            assert variant in ({"FVO", "MVO"} if name.endswith("-v5") else {"Create", "Update"})
            assert {*schema.get("required", [])} <= schema["properties"].keys()
            as_read = json.loads(json.dumps(schema["properties"]).replace("_FVO", "").replace("_MVO", ""))
            for key, part in as_read.items():
                assert part == read[key] or _narrows(schemas, part, read[key]), key
            assert written not in resources or not schema["properties"].keys() & {"id", "href"}


def _narrows(schemas: Mapping[str, Any], written: Mapping[str, Any], read: Mapping[str, Any]) -> bool:
    """Whether one of a few words is written where any may be read: version 4 enumerates less."""
    said = schemas[written["$ref"].rpartition("/")[2]] if "$ref" in written else written
    return "enum" in said and (said["type"], read.get("type")) == ("string", "string")


@every_document
def test_every_event_names_itself_and_carries_its_resource(name: str) -> None:
    """A delivery is checked against the schema that its eventType names; where nobody listens there are none."""
    document = openapi.document(name)
    schemas = document["components"]["schemas"]
    events = [key for key in schemas if key.endswith("Event") and key != "Event"]

    assert bool(events) == ("/hub" in document["paths"])
    for event in events:
        served = sorted({path.split("/")[1] for path in document["paths"]}, key=len, reverse=True)
        member = next(name for name in served if event.startswith(name[0].upper() + name[1:]))
        resource = member[0].upper() + member[1:]
        check = _validator(document, {"$ref": f"#/components/schemas/{event}"})
        delivery = {"eventId": "1", "eventTime": "2026-02-20T09:31:04Z", "eventType": event, "event": {member: {}}}
        delivery |= {"@type": event} if name.endswith("-v5") else {}
        minimal = dict.fromkeys(schemas[resource].get("required", []), "1")
        assert list(check.iter_errors(delivery | {"event": {member: minimal}})) == []
        assert not check.is_valid(delivery | {"eventType": "SomethingElse"})
        assert not check.is_valid(delivery | {"event": {}})


@every_document
def test_every_example_is_valid(name: str) -> None:
    """What the API page shows can be sent as it is."""
    document = openapi.document(name)
    shown = [media for media in _inside(document["paths"]) if "schema" in media and "example" in media]
    taken = [operation["requestBody"] for _, _, operation in _operations(document) if "requestBody" in operation]

    assert all("example" in media for body in taken for media in body["content"].values())
    for media in shown:
        assert list(_validator(document, media["schema"]).iter_errors(media["example"])) == []


@every_document
def test_every_patch_shown_leads_somewhere(name: str) -> None:
    """Each path begins at a member that may be patched and that what was created by the example has."""
    document = openapi.document(name)
    examples = {
        path: operation["requestBody"]["content"]["application/json"]["example"]
        for path, method, operation in _operations(document)
        if method == "post"
    }

    for path, method, operation in _operations(document):
        for type_, media in operation["requestBody"]["content"].items() if method == "patch" else ():
            settable = _followed(document, media["schema"] if type_ in MERGES else _merged(operation))["properties"]
            example = examples.get(path.removesuffix("/{id}"), settable)
            members = media["example"] if type_ in MERGES else [step["path"].split("/")[1] for step in media["example"]]
            assert members
            for member in members:
                assert member in settable
                assert type_ in MERGES or member in example
            for step in media["example"] if type_ == "application/json-patch-query+json" else ():
                place, _, query = step["path"].partition("?")
                array, key = query.partition("=")[0].rpartition(".")[::2]
                wanted = query.partition("=")[2]
                assert not query or place.startswith(f"/{array}/")
                assert not query or [str(element.get(key)) for element in example[array]].count(wanted) == 1


def _merged(operation: dict[str, Any]) -> dict[str, Any]:
    """The schema of an operation's merge patch."""
    schema: dict[str, Any] = operation["requestBody"]["content"]["application/merge-patch+json"]["schema"]
    return schema


@every_document
def test_a_task_is_asked_for_and_followed(name: str) -> None:
    """Only its beginning is the asker's: neither its state nor its result may be given, and nothing may be changed."""
    document = openapi.document(name)
    paths, schemas = document["paths"], document["components"]["schemas"]

    for task in (key for key, value in schemas.items() if f"{key}StateChangeEvent" in schemas):
        member = task[0].lower() + task[1:]
        create = next((found for found in (f"{task}_Create", f"{task}_FVO") if found in schemas), "")
        if {*paths[f"/{member}/{{id}}"]} & {"patch", "delete"} or not create:
            continue
        assert paths[f"/{member}"].keys() & METHODS == {"get", "post"}
        assert f"{task}CreateEvent" in schemas
        if task != "CustomerBillOnDemand":  # version 4 lets its state be given; the gateway sets it all the same
            given = schemas[task]["properties"].keys() - schemas[create]["properties"].keys()
            assert {"id", "href", "state"} < given
            assert len(given - {"creationDate"}) == 4


class _AnyToken:
    """Let every bearer through: who may do what is not a question for a document."""

    def get_fn(self, scheme: dict[str, Any], scopes: list[str]) -> Any:
        async def accept(request: Any) -> dict[str, Any]:
            return {}

        return accept


class _Echo(Resolver):
    """Answer every operation with the body it was sent."""

    def resolve_function_from_operation_id(self, operation_id: str) -> Any:
        async def echo(body: Any = None, id: str = "") -> tuple[Any, int]:
            return body, 201

        return echo


def _client(name: str) -> httpx.AsyncClient:
    app = AsyncApp(__name__, security_map={"bearer": _AnyToken})
    document = json.loads(json.dumps(openapi.document(name)))
    app.add_api(document, base_path="/api", resolver=_Echo(), swagger_ui_options=None, validate_responses=True)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway.example/api")


@every_document
async def test_connexion_takes_every_create_example(name: str) -> None:
    """What is valid by the document reaches the handler and comes back."""
    async with _client(name) as client:
        for path, method, operation in _operations(openapi.document(name)):
            if method == "post" and path != "/hub":
                example = operation["requestBody"]["content"]["application/json"]["example"]
                answer = await client.post(path, json=example)

                assert (answer.status_code, answer.json()) == (201, example), answer.text


async def test_connexion_checks_an_item_within_an_item() -> None:
    """A recursive schema holds at any depth."""
    name = "TMF622-ProductOrdering-v4"
    item = {"id": "1", "action": "add", "productOrderItem": [{"id": "1.1", "action": "whatever"}]}

    async with _client(name) as client:
        refused = await client.post("/productOrder", json={"productOrderItem": [item]})
        item["productOrderItem"] = [{"id": "1.1", "action": "noChange"}]
        taken = await client.post("/productOrder", json={"productOrderItem": [item]})

    assert (refused.status_code, taken.status_code) == (400, 201)


async def test_connexion_takes_a_patch_of_the_state_alone() -> None:
    """Both media types reach the handler."""
    async with _client("TMF622-ProductOrdering-v4") as client:
        for media_type in ("application/json", "application/merge-patch+json"):
            answer = await client.patch(
                "/productOrder/1", content='{"state": "cancelled"}', headers={"content-type": media_type}
            )

            assert answer.json() == {"state": "cancelled"}
