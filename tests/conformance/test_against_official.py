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
import yaml

from convergedon import openapi

BESIDE = Path(__file__).parents[3] / "shared" / "tmf"
FOLDER = Path(os.environ.get("CONVERGEDON_TMF_DOCUMENTS", BESIDE))
PAIRS = {
    name.partition("-")[0] + ("v5" if name.endswith("-v5") else ""): name
    for name in openapi.NAMES
    if name.startswith("TMF")
}

NOT_READ = {"PartyOrPartyRole"}
"""What its alternatives are is not followed: a party that an order describes is kept as it is said."""
ANY, AS = "AnyCharacteristic", '/Characteristic"'
"""Ours lists the kinds of characteristics, as nothing that reads documents follows a discriminator (they are compared
one by one)."""

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
    ("* P* 422: absent -> Error", "an Idempotency-Key used again for something else"),
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
    ("* X-Decision-Id: absent -> string", "a caller can name the decision that allowed or refused"),
    ("* X-Trace-Id: absent -> string", "one trace leads from the request to all that follows from it"),
    # too strict or wrong in the official document
    ("TMF622 ProductOrder required: productOrderItem -> ", "fields= answers carry parts of an order"),
    ("TMF622 CancelProductOrder required: productOrder -> ", "fields= answers carry parts of a request"),
    ("TMF622 ProductOrder_Update required: productOrderItem -> ", "a patch of the state alone must be possible"),
    (
        "TMF622* ProductStatusType: *aborted *",
        "'aborted ' ends in a blank by mistake; the word without it is taken too",
    ),
    ("TMF642* Alarm*.why: absent -> string", "a conclusion that nobody can follow is not believed"),
    ("TMF642* Alarm*.flapping: absent -> boolean", "what comes and goes is one alarm, and this says which"),
    ("TMF642* Alarm*.lastRaisedTime: absent -> string*", "how fresh a fault is says no other time"),
    ("TMF642* Alarm*.raisedCount: absent -> integer", "how often is a number, and not words in alarmDetails"),
    ("TMF642* Alarm*.expectedRestoration: absent -> string*", "whoever is affected asks until when, and hears this"),
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
    # version 5: its names for what the others have too, and what goes without saying
    ("*v5 DELETE /hub/{id} operationId: hubDelete -> unregisterListener", "said as in the other APIs"),
    ("*v5 POST /hub operationId: createHub -> registerListener", "said as in the other APIs"),
    ("*v5 * /hub*default: Error -> absent", "each way to fail is said by itself"),
    ("*v5 * /hub* 4??: absent -> Error", "each way to fail is said by itself"),
    ("*v5 * /hub* 500: absent -> Error", "each way to fail is said by itself"),
    ("*v5 * 202: nothing -> absent", "what is asked for is kept when the answer comes"),
    ("*v5 * 501: Error -> absent", "these operations are there"),
    ("*v5 POST * 404: Error -> absent", "what is asked for need not exist yet"),
    ("*v5 P* query fields: string -> absent", "a write is answered with the whole, as in version 4"),
    ("TMF622v5 PATCH * 200: ProductOrder or any -> ProductOrder", "the answer is the order, however it was asked for"),
    ("*v5 base path: https://serverRoot* -> *", "where a server is, it says itself"),
    ("*v5 * needs @type: yes -> absent", "it may be left out of what is sent; answers have it everywhere"),
    ("*v5 *_?VO.id: string -> absent", "the gateway gives the id"),
    ("*v5 *_?VO.href: string -> absent", "the gateway gives the address"),
    ("*v5 Hub required: callback -> callback id", "without its id it cannot be ended"),
    ("*v5 Error.*: string -> string uri", "shared with version 4"),
    ("*v5 BaseEvent: declared -> absent", "an envelope without a use"),
    ("*v5 *Event.@type: string -> string enum *", "an event names the schema it follows"),
    ("*v5 *Event.fieldPath: absent -> string", "what changed is told as in version 4"),
    ("*v5 *Payload required:  -> *", "an event without its resource tells nothing"),
    ("TMF622v5 *Payload.informationRequired: * -> absent", "one operation cannot name all that lacks; fieldPath does"),
    ("TMF622v5 *Payload.*roductOrder: *Ref -> *", "the whole of what it refers to"),
    ("TMF622v5 CancelProductOrderRef*: * -> absent", "used for nothing else"),
    ("TMF622v5 *Payload.canc*elProductOrder: *", "'canccelProductOrder' is a slip"),
    # version 5: every order can be said in both versions
    ("TMF622v5 Duration.amount: integer -> number", "version 4 takes fractions"),
    ("TMF622v5 *.orderItemAction: ItemActionType -> string", "version 4 takes any word"),
    ("TMF622v5 ProductRelationship required: id -> ", "version 4 may describe the product that is related"),
    ("TMF622v5 ProductOrderItem required:  -> action id", "no item of version 4 is without"),
    ("TMF622v5 *Characteristic required:  -> name", "asked for when an order is placed, and never removed"),
    ("TMF622v5 Characteristic.value: absent -> Any", "a filter may ask for it whatever its kind"),
    ("TMF622v5 ExternalIdentifier required:  -> id", "asked for when an order is placed, and never removed"),
    ("TMF622v5 OrderRelationship required: id -> *", "asked for when an order is placed, and never removed"),
    ("TMF622v5 *Price* required:  -> price priceType", "no alteration or price of version 4 is without"),
    ("TMF622v5 *ItemRef required:  -> *", "asked for when an order is placed, and never removed"),
    ("TMF622v5 TargetProductSchema required:  -> @schemaLocation", "none of version 4 is without"),
    ("TMF622v5 Expression.expressionValue: string -> Any", "the official example has an object"),
    ("TMF622v5 PartyOrPartyRole alternatives: *", "a party that an order describes is kept as it is said"),
    ("TMF622v5 TargetProductSchema needs @type: absent -> yes", "none of version 4 is without"),
    # version 5: every alarm that version 4 keeps can be read
    ("TMF642v5 GET /hub/{id} operationId: hubGet -> retrieveListener", "said as in the other APIs"),
    ("TMF642v5 *.@schemaLocation: string -> string uri", "it is a link, as in version 4"),
    ("TMF642v5 Alarm.ackState: string enum * -> string", "version 4 has any word in the pattern of a task"),
    ("TMF642v5 Alarm.state: string enum * -> string", "version 4 has any word in the pattern of a task"),
    (
        "TMF642v5 Alarm.alarmType: AlarmType -> string",
        "version 4 takes any word; what is sent here is held to the list",
    ),
    ("TMF642v5 Alarm.perceivedSeverity: PerceivedSeverity -> string", "version 4 takes any word, too"),
    ("TMF642v5 Alarm.plannedOutageIndicator: string enum * -> string", "version 4 takes any word, too"),
    ("TMF642v5 AlarmedObjectRef required: id -> ", "version 4 may leave it out; a new alarm of version 5 may not"),
    ("TMF642v5 ServiceRef required: id -> ", "version 4 may leave it out; a new alarm of version 5 may not"),
    ("TMF642v5 Alarm_FVO.a*: *Ref -> *Ref_FVO", "what a new alarm must say of it"),
    ("TMF642v5 *Ref_FVO*: absent -> *", "what a new alarm must say of it"),
    (
        "TMF642v5 RelatedPlace required:  -> role",
        "asked for when an alarm is reported, and no place of version 4 is without",
    ),
    ("TMF642v5 Place.name: absent -> string", "version 4 has names of places"),
    ("TMF642v5 Place.@referredType: absent -> string", "version 4 says what kind of place is referred to"),
    # version 5: what came of a task is the server's to say, and a task is about something
    ("TMF642v5 *Alarm_FVO.state: string enum acknowledged|cancel* -> absent", "every task begins acknowledged"),
    ("TMF642v5 *Alarm_FVO.*edAlarm: array of AlarmRefOrValue -> absent", "the result is not the asker's to give"),
    ("TMF642v5 *: array of AlarmRefOrValue -> array of AlarmRefOrValue minItems 1", "nothing asked for is a mistake"),
    ("* Any*: absent -> *", "any JSON value by its name"),
    ("* JsonPatchOperation.value: any -> Any", "any JSON value by its name"),
    # added
    ("TMF638 Service*.@*: absent -> string*", "TMF630 part 1: every resource may be extended, and says so"),
    ("TMF639 LogicalResource*Event: absent -> declared", "the other two kinds of resource have them"),
    ("TMF678 *Event: absent -> declared", "version 4 has a hub but says of no event what it looks like"),
]


def _official(api: str) -> dict[str, Any]:
    number, major = PAIRS[api].partition("-")[0], PAIRS[api].rpartition("-")[2]
    found = sorted(FOLDER.glob(f"{number}/{major}.*.json")) + sorted(FOLDER.glob(f"{number}/{major}.*.yaml"))
    found = found or sorted(FOLDER.glob(f"rebuilt/{number}-{major}.*.yaml"))
    if not found:
        pytest.skip(f"no {number}/{major}.*.json in {FOLDER}; set CONVERGEDON_TMF_DOCUMENTS to where the documents are")
    text = found[-1].read_text(encoding="utf-8")
    official: dict[str, Any] = json.loads(text) if found[-1].suffix == ".json" else yaml.safe_load(text)
    return official if "swagger" in official else _folded(official, openapi.document(PAIRS[api]))


def _folded(official: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Version 5 has three variants of every part; ours has those that differ, and one name for the others."""
    text = json.dumps(official, default=str).replace('/JsonPatch"', '/JsonPatchOperation"')
    text = text.replace('/JsonPatchOperations"', '/JsonPatch"').replace('"JsonPatch":', '"JsonPatchOperation":')
    text = text.replace('"JsonPatchOperations":', '"JsonPatch":')
    for name in official["components"]["schemas"]:
        part, _, variant = name.partition("_")
        if variant and name not in ours["components"]["schemas"]:
            text = text.replace(f'"#/components/schemas/{name}"', f'"#/components/schemas/{part}"')
    found: dict[str, Any] = json.loads(text)
    return found


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
    whole["properties"] = dict(whole["properties"])
    if "allOf" in schema:
        whole.setdefault("type", "object")
    for part in schema.get("allOf", []):
        part = _whole(schemas, schemas[part["$ref"].rpartition("/")[2]] if "$ref" in part else part)
        whole["properties"] |= part["properties"]
        whole["required"] = [*whole["required"], *part["required"]]
    return whole


def _shape(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    words = [schema.get("type", "object" if "allOf" in schema else "any"), schema.get("format", "")]
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
    pending += sorted(name for name in schemas if name.endswith("Characteristic") and "StringCharacteristic" in schemas)
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
        alternatives = [_shape(part) for word in ("oneOf", "anyOf") for part in schema.get(word, ())]
        if alternatives:
            facts[f"{name} alternatives"] = " ".join(sorted(alternatives))
            pending.extend(alternatives if name not in NOT_READ else ())
        facts[f"{name} required"] = " ".join(sorted({*schema["required"]} - {"@type"}))
        if "@type" in schema["required"]:
            facts[f"{name} needs @type"] = "yes"
        if not name.endswith("Event"):
            facts[name] = _shape(schema)
            pending.extend(word for word in _shape(schema).split() if word in schemas)
        for member, inner in schema["properties"].items():
            facts[f"{name}.{member}"] = _shape(inner)
            pending.extend(word for word in _shape(inner).split() if word in schemas)
    return facts


def _media_types(document: dict[str, Any]) -> str:
    if "swagger" in document:
        return " ".join(sorted({*document["consumes"], *document["produces"]}))
    bodies = [body for _, operation in _operations(document) for body in (operation.get("requestBody"),) if body]
    return " ".join(sorted({media for body in bodies for media in _followed(document, body)["content"]}))


def _base(document: dict[str, Any]) -> str:
    path = document["basePath"] if "basePath" in document else document["servers"][0]["url"]
    return str(path).rstrip("/")


def _differences(api: str) -> list[str]:
    official, ours = _official(api), json.loads(json.dumps(openapi.document(PAIRS[api])).replace(f'/{ANY}"', AS))
    operations = {name for name, _ in _operations(official)} & {name for name, _ in _operations(ours)}
    events = {name for name in _schemas(official).keys() & _schemas(ours).keys() if name.endswith("Event")}
    theirs = _facts(official, operations, events) | {
        "base path": _base(official),
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
