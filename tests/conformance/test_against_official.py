"""Our documents say what the official ones say, apart from the differences listed here with their reasons.

The official documents are not part of this repository: CONVERGEDON_TMF_DOCUMENTS names the folder they are in,
as ``TMF622/v4.0.0.json`` and so on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from convergedon import openapi

BESIDE = Path(__file__).parents[3] / "shared" / "tmf"
FOLDER = Path(os.environ.get("CONVERGEDON_TMF_DOCUMENTS", BESIDE))
PAIRS = {name.partition("-")[0]: name for name in openapi.NAMES if name.startswith("TMF")}

# Every difference reads "API what: official -> ours"; a line covers what its pattern matches.
DIFFERENCES = [
    # not served
    ("* POST /listener/*: served -> absent", "the callbacks are paths of the client, not ours"),
    # wire
    ("* media types: application/json;charset=utf-8 -> *", "connexion compares media types with their parameters"),
    ("TMF642 base path: /tmf-api/alarm/v4 -> *", "the conformance kit and the samples say alarmManagement"),
    ("* GET /*[!}] 206: absent -> array of *", "TMF630 part 1, 4.5: a page that is not everything answers 206"),
    ("* GET /*[!}] query sort: absent -> string", "TMF630 part 1, 4.7"),
    ("* GET /*[!}] query filter: absent -> string", "TMF630 part 6: JSONPath"),
    (
        "* PATCH * body json-patch*: absent -> JsonPatch",
        "TMF630 parts 1 and 5: a client may choose how it says a change",
    ),
    ("* JsonPatch*: absent -> *", "the body of such a patch"),
    (
        "* PATCH * body merge-patch: absent -> *_Update",
        "TMF630 part 1: plain JSON means a merge patch, which may say so",
    ),
    ("* POST /* header Idempotency-Key: absent -> string", "trying again after a lost answer must not create twice"),
    ("* header If-Match: absent -> string", "RFC 9110: no change on top of one that the client has not seen"),
    # answers
    ("* GET /*[!}] 404: Error -> absent", "a list of nothing is an empty list"),
    ("* POST /hub 404: Error -> absent", "what is asked for need not exist yet"),
    ("* GET * 409: Error -> absent", "reading conflicts with nothing"),
    ("* POST /hub 409: Error -> absent", "there may be many listeners"),
    ("* 406: absent -> Error", "RFC 9110: where JSON is not accepted"),
    ("* 412: absent -> Error", "RFC 9110: If-Match"),
    ("* P* 413: absent -> Error", "bodies have a largest size"),
    ("* P* 415: absent -> Error", "bodies have media types"),
    ("* P* 422: absent -> Error", "an Idempotency-Key used again for something else; a patch that leads nowhere"),
    ("* 429: absent -> Error", "TMF630 part 1: a caller may be too fast"),
    ("* GET /*[!}] 501: absent -> Error", "TMF630 part 6: a filter beyond what is supported"),
    ("* 503: absent -> Error", "the store or the policies may be out of reach"),
    ("* 401 WWW-Authenticate: absent -> string", "RFC 9110: a 401 says how to do better"),
    ("* 405 Allow: absent -> string", "RFC 9110: a 405 says what there is"),
    ("* 429 Retry-After: absent -> integer", "RFC 6585: when to come back"),
    ("* 503 Retry-After: absent -> integer", "RFC 9110: when to come back"),
    ("* 201 Location: absent -> string", "TMF630 part 1: what was created is found there"),
    ("* POST /hub 201 X-Hub-Secret: absent -> string", "Standard Webhooks: a listener can tell our events from others"),
    ("* 20[01] ETag: absent -> string", "RFC 9110: what If-Match is given"),
    ("* GET /*[!}] 20[06] Link: absent -> string", "TMF630 part 1, 4.5: where the other pages are"),
    ("* GET /*[!}] 206 X-*-Count: absent -> integer", "a page has the headers of a list"),
    ("* X-Trace-Id: absent -> string", "one trace leads from the request to all that follows from it"),
    # too strict or wrong in the official document
    ("TMF622 ProductOrder required: productOrderItem -> ", "fields= answers carry parts of an order"),
    ("TMF622 CancelProductOrder required: productOrder -> ", "fields= answers carry parts of a request"),
    ("TMF622 ProductOrder_Update required: productOrderItem -> ", "a patch of the state alone must be possible"),
    ("TMF622 ProductStatusType: *aborted *", "'aborted ' ends in a blank by mistake; the word without it is taken too"),
    ("TMF642 Alarm*.id: integer -> string", "AlarmRef, the tasks and the conformance kit have strings"),
    ("TMF63[58] *.href: string uri -> string", "the others have a string, and relative hrefs are in use"),
    ("TMF639 *Resource required: href id -> ", "said as in the others, which require nothing of what is read"),
    ("TMF639 PUT /logicalResource/{id}: served -> absent", "no other resource of any API has it; PATCH does the same"),
    # stricter: how far a task is and what came of it is the server's to say
    ("TMF642 *Alarms_Create.state: string -> absent", "every task begins acknowledged"),
    ("TMF642 *Alarms_Create.*edAlarm: array of AlarmRefOrValue -> absent", "the result is not the asker's to give"),
    ("TMF642 *Alarms.*: array of Alarm* -> array of Alarm* minItems 1", "what was asked is shown as it was asked"),
    # held to more than asked, because only we send events
    ("* *Event required:  -> event eventId eventTime eventType", "every event we send has them"),
    ("* *Event.eventType: string -> string enum *", "an event names the schema it follows"),
    ("* *EventPayload required:  -> *", "an event without its resource tells nothing"),
    ("TMF63[58] *Event.id: absent -> string", "said as in the other APIs"),
    ("TMF63[58] *Event.href: absent -> string", "said as in the other APIs"),
    # added
    ("TMF638 Service*.@*: absent -> string*", "TMF630 part 1: every resource may be extended, and says so"),
    ("TMF639 LogicalResource*Event: absent -> declared", "the other two kinds of resource have them"),
    ("TMF678 *Event: absent -> declared", "version 4 has a hub but says of no event what it looks like"),
]


def _official(api: str) -> dict[str, Any]:
    major = PAIRS[api].rpartition("-")[2]
    found = sorted(FOLDER.glob(f"{api}/{major}.*.json"))
    if not found:
        pytest.skip(f"no {api}/{major}.*.json in {FOLDER}; set CONVERGEDON_TMF_DOCUMENTS to where the documents are")
    swagger: dict[str, Any] = json.loads(found[-1].read_text(encoding="utf-8"))
    return swagger


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in item.keys() & {"get", "post", "put", "patch", "delete"}:
            parameters = item.get("parameters", []) + item[method].get("parameters", [])
            yield (
                f"{method.upper()} {path}",
                {**item[method], "parameters": [_followed(document, p) for p in parameters]},
            )


def _followed(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for key in node.get("$ref", "").split("/")[1:]:
        node = node[key] if "$ref" not in node else document[key]
    return node


def _schemas(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = document.get("definitions") or document["components"]["schemas"]
    return found


def _whole(schemas: dict[str, dict[str, Any]], schema: dict[str, Any]) -> dict[str, Any]:
    """Put the parts of an allOf together; a later part says more exactly what an earlier one says."""
    whole: dict[str, Any] = {"properties": {}, "required": [], **{k: v for k, v in schema.items() if k != "allOf"}}
    for part in schema.get("allOf", []):
        part = _whole(schemas, schemas[part["$ref"].rpartition("/")[2]] if "$ref" in part else part)
        whole["properties"] |= part["properties"]
        whole["required"] = [*whole["required"], *part["required"]]
    return whole


def _shape(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    words = [schema.get("type", "any"), schema.get("format", "")]
    if "items" in schema:
        words.append(f"of {_shape(schema['items'])}")
    words.extend(f"{key} {schema[key]}" for key in ("minItems", "default") if key in schema)
    if "enum" in schema:
        words.append("enum " + "|".join(sorted(schema["enum"])))
    return " ".join(word for word in words if word)


def _content(node: dict[str, Any]) -> str:
    """The schema of an answer, the same in all its media types."""
    shapes = {_shape(media["schema"]) for media in node.get("content", {}).values()}
    return _shape(node["schema"]) if "schema" in node else " or ".join(sorted(shapes)) or "nothing"


def _exchange(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What an operation takes and answers."""
    for parameter in operation["parameters"]:
        if parameter["in"] == "body":
            yield "body", _shape(parameter["schema"])
        else:
            yield f"{parameter['in']} {parameter['name']}", _shape(parameter.get("schema", parameter))
    for type_, media in _followed(document, operation.get("requestBody", {})).get("content", {}).items():
        kind = type_.removeprefix("application/").removesuffix("json").rstrip("+")
        yield f"body {kind}".strip(), _shape(media["schema"])
    for code, response in operation["responses"].items():
        answer = _followed(document, response)
        yield code, _content(answer)
        for name, header in answer.get("headers", {}).items():
            header = _followed(document, header)
            yield f"{code} {name}", _shape(header.get("schema", header))


def _facts(document: dict[str, Any], operations: set[str], events: set[str]) -> dict[str, str]:
    """What a document says, as flat facts: everything about the operations and events given, and that others exist."""
    schemas, facts, pending = _schemas(document), {}, sorted(events & _schemas(document).keys())
    facts |= {name: "declared" for name in schemas if name.endswith("Event") and name != "Event"}
    for name, operation in _operations(document):
        facts[name] = "served"
        if name not in operations:
            continue
        facts[f"{name} operationId"] = operation["operationId"]
        for what, shape in _exchange(document, operation):
            facts[f"{name} {what}"] = shape
            pending.extend(word for word in shape.split() if word in schemas)
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        schema = _whole(schemas, schemas[name])
        facts[f"{name} required"] = " ".join(sorted(schema["required"]))
        if not name.endswith("Event"):
            facts[name] = _shape(schema)
        for member, inner in schema["properties"].items():
            facts[f"{name}.{member}"] = _shape(inner)
            pending.extend(word for word in _shape(inner).split() if word in schemas)
    return facts


def _media_types(document: dict[str, Any]) -> str:
    if "swagger" in document:
        return " ".join(sorted({*document["consumes"], *document["produces"]}))
    bodies = [body for _, operation in _operations(document) for body in (operation.get("requestBody"),) if body]
    return " ".join(sorted({media for body in bodies for media in body["content"]}))


def _differences(api: str) -> list[str]:
    official, ours = _official(api), openapi.document(PAIRS[api])
    operations = {name for name, _ in _operations(official)} & {name for name, _ in _operations(ours)}
    events = {name for name in _schemas(official).keys() & _schemas(ours).keys() if name.endswith("Event")}
    theirs = _facts(official, operations, events) | {
        "base path": official["basePath"].rstrip("/"),
        "media types": _media_types(official),
    }
    mine = _facts(ours, operations, events) | {
        "base path": ours["servers"][0]["url"],
        "media types": _media_types(ours),
    }
    return [
        f"{api} {key}: {theirs.get(key, 'absent')} -> {mine.get(key, 'absent')}"
        for key in sorted(theirs.keys() | mine.keys())
        if theirs.get(key) != mine.get(key)
    ]


@pytest.mark.parametrize("api", PAIRS)
def test_every_difference_has_a_reason(api: str) -> None:
    """Whoever knows the official document knows ours, or finds the reason in the table."""
    unexplained = [
        difference
        for difference in _differences(api)
        if not any(fnmatchcase(difference, pattern) for pattern, _ in DIFFERENCES)
    ]

    assert unexplained == []


def test_every_line_of_the_table_is_needed() -> None:
    """A difference that is gone takes its line with it."""
    differences = [difference for api in PAIRS for difference in _differences(api)]

    idle = [pattern for pattern, _ in DIFFERENCES if not any(fnmatchcase(found, pattern) for found in differences)]

    assert idle == []
