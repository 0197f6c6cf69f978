"""Two versions of one API over the same records: what is said in either is kept, and shows in the other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convergedon.core.errors import Invalid
from convergedon.handlers import alarms, alarms_v5, documents, product_ordering, product_ordering_v5
from convergedon.handlers.apis import APIS
from convergedon.handlers.resource import Api
from convergedon.handlers.versions import Only, Rule
from convergedon.openapi import document

V4, V5 = product_ordering.API, product_ordering_v5.API
TELLING = [api for api in APIS if "/hub" in document(api.document)["paths"]]
TRANSLATED = [api for api in TELLING if documents.shape(api.document, "Event").always]
"""The APIs that serve in another form what is kept in that of the first API with the resource."""
every_resource = pytest.mark.parametrize(
    ("api", "name"),
    [pytest.param(api, one.name, id=f"{api.document}-{one.name}") for api in TRANSLATED for one in api.resources],
)
TEXTS = st.text("abc1é ", max_size=6)
DATES = st.sampled_from(["2026-02-20T09:30:00Z", "2026-02-20T09:30:00.5+02:00"])
SCALARS = st.one_of(TEXTS, st.integers(-5, 5), st.booleans(), st.sampled_from([0.5, 1.25]))
ANYTHING = st.one_of(SCALARS, st.none(), st.lists(SCALARS, max_size=2), st.dictionaries(TEXTS, SCALARS, max_size=2))
DEPTH = 6
bounded = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def values(
    name: str, schema: Mapping[str, Any], types: bool, depth: int = DEPTH, of: str = ""
) -> st.SearchStrategy[Any]:
    """What a schema of a document allows; ``types``: every object says what it is, as version 5 wants it."""
    if "$ref" in schema:
        return referred(name, schema["$ref"].rpartition("/")[2], types, depth)
    if "anyOf" in schema:
        return st.one_of([values(name, part, types, depth) for part in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("format") == "date-time":
        return DATES
    plain = {
        "string": TEXTS,
        "integer": st.integers(-5, 5),
        "number": st.sampled_from([0.5, 2]),
        "boolean": st.booleans(),
    }
    if schema.get("type") in plain:
        return plain[schema["type"]]
    if schema.get("type") == "array":
        least = schema.get("minItems", 0)
        return st.lists(values(name, schema["items"], types, depth - 1), min_size=least, max_size=2)
    return objects(name, schema, types, depth, of) if "properties" in schema or "allOf" in schema else ANYTHING


@cache
def referred(name: str, of: str, types: bool, depth: int) -> st.SearchStrategy[Any]:
    return values(name, document(name)["components"]["schemas"][of], types, depth, of)


def objects(name: str, schema: Mapping[str, Any], types: bool, depth: int, of: str) -> st.SearchStrategy[Any]:
    schemas = document(name)["components"]["schemas"]
    properties, required = dict(schema.get("properties", {})), {*schema.get("required", ())}
    for part in schema.get("allOf", ()):
        part = schemas[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        properties |= part.get("properties", {})
        required |= {*part.get("required", ())}
    if of.endswith("Characteristic") and of != "Characteristic":
        required.add("value")
    # of alternatives one may take any text where the others want a link
    links = [one for one, part in properties.items() if part.get("format") == "uri" or one == "@schemaLocation"]
    uris = {one: st.just("urn:x") for one in links}
    members = {
        one: values(name, part, types, depth) for one, part in properties.items() if depth > 0 or one in required
    }
    members |= uris
    listed = properties.get("@type", {}).get("enum")
    type_ = st.sampled_from(listed or [of, of, f"My{of}"])
    if types and "@type" in properties:
        members["@type"], required = type_, required | {"@type"}
    free = sorted(members.keys() - required)
    chosen = st.lists(st.sampled_from(free), max_size=4, unique=True) if free else st.just([])
    return chosen.flatmap(lambda some: st.fixed_dictionaries({one: members[one] for one in [*required, *some]}))


def home(name: str) -> Api:
    """The API in whose form a resource is kept."""
    return next(api for api in APIS if any(one.name == name for one in api.resources))


def resource(api: Api, name: str, types: bool) -> st.SearchStrategy[dict[str, Any]]:
    declared = api.resource(name)
    found = values(api.document, {"$ref": f"#/components/schemas/{api.schema(declared)}"}, types)

    def settled(body: dict[str, Any]) -> dict[str, Any]:
        """Without what the gateway adds, and in a state: version 4 does not always enumerate them."""
        lifecycle = declared.lifecycle
        if lifecycle and body.get(lifecycle.member, "draft") not in (*lifecycle.moves, "inProgress.accepted"):
            body = {**body, lifecycle.member: lifecycle.initial[0]}
        return {one: value for one, value in body.items() if one not in ("id", "href")}

    return found.map(settled)


def check(api: Api, name: str, body: Any) -> None:
    documents.schema(api.document, api.schema(api.resource(name))).check(body)


@every_resource
@bounded
@given(data=st.data())
def test_what_version_5_says_reads_back_whole_in_version_5(api: Api, name: str, data: st.DataObject) -> None:
    """And what is kept of it is a resource of version 4."""
    said = data.draw(resource(api, name, True))
    if "requestedInitialState" in said:
        said.setdefault("state", "acknowledged")

    kept, beyond = api.translation(name).inward(said)

    assert api.translation(name).outward(kept, beyond) == said
    faults = documents.schema(home(name).document, home(name).resource(name).schema).faults(kept)
    assert [path for path in faults if path[-1] != "state"] == []  # states are the lifecycle's


@every_resource
@bounded
@given(data=st.data())
def test_what_version_4_said_survives_a_write_of_version_5(api: Api, name: str, data: st.DataObject) -> None:
    """What shows as it did is kept as it was, and all that shows is valid in version 5."""
    body = data.draw(resource(home(name), name, False))

    shown = api.translation(name).outward(body, {})

    check(api, name, shown)
    assert api.translation(name).inward(shown, (body, {})) == (body, {})


@bounded
@given(data=st.data())
def test_a_change_in_one_version_leaves_the_rest_as_the_other_said_it(data: st.DataObject) -> None:
    """Version 4 writes one member, version 5 another."""
    translation = V5.translation("productOrder")
    kept, beyond = translation.inward(data.draw(resource(V5, "productOrder", True)))
    before = translation.outward(kept, beyond)
    kept = {**kept, "description": "by version 4"}
    shown = translation.outward(kept, beyond)
    assert shown == {**before, "description": "by version 4"}

    again, more = translation.inward({**shown, "category": "by version 5"}, (kept, beyond))

    assert again == {**kept, "category": "by version 5"}
    assert translation.outward(again, more) == {**shown, "category": "by version 5"}


ORDER: dict[str, Any] = {
    "@type": "ProductOrder",
    "externalId": [
        {"@type": "ExternalIdentifier", "id": "a", "owner": "x"},
        {"@type": "ExternalIdentifier", "id": "b"},
    ],
    "relatedParty": [
        {
            "@type": "RelatedPartyRefOrPartyRoleRef",
            "role": "customer",
            "partyOrPartyRole": {"@type": "PartyRoleRef", "id": "northwind", "partyId": "7"},
        }
    ],
    "productOrderItem": [{"@type": "ProductOrderItem", "id": "1", "action": "add"}],
}


def test_version_4_sees_its_part() -> None:
    kept, _ = V5.translation("productOrder").inward(ORDER)

    assert kept == {
        "externalId": "a",
        "relatedParty": [
            {"id": "northwind", "partyId": "7", "role": "customer", "@referredType": "Party", "@type": "PartyRoleRef"}
        ],
        "productOrderItem": [{"id": "1", "action": "add"}],
    }


def test_what_version_4_changes_shows_in_version_5() -> None:
    """The member has another form there, and more than it: what it was said of is gone, the rest stays."""
    translation = V5.translation("productOrder")
    kept, beyond = translation.inward(ORDER)

    shown = translation.outward({**kept, "externalId": "c"}, beyond)

    assert shown == {**ORDER, "externalId": [{"@type": "ExternalIdentifier", "id": "c"}, ORDER["externalId"][1]]}


def test_a_type_that_goes_without_saying_may_be_left_out() -> None:
    """It is in every answer all the same."""
    translation = V5.translation("productOrder")
    value = {"name": "vlan", "value": 5}
    item = {"id": "1", "action": "add", "product": {"productCharacteristic": [value]}}

    shown = translation.outward(*translation.inward({"productOrderItem": [item]}))

    assert shown["@type"] == "ProductOrder"
    (product,) = [one["product"] for one in shown["productOrderItem"]]
    assert product == {"@type": "Product", "productCharacteristic": [{**value, "@type": "IntegerCharacteristic"}]}


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("IntegerCharacteristic", "five"),
        ("IntegerCharacteristic", 0.5),
        ("StringCharacteristic", 5),
        ("BooleanCharacteristic", "true"),
        ("ObjectCharacteristic", []),
        ("NumberArrayCharacteristic", ["1"]),
    ],
)
def test_a_value_is_what_its_type_says(type_: str, value: Any) -> None:
    """No reader of documents checks that, so the translation does."""
    characteristic = {"@type": type_, "name": "vlan", "value": value}
    item = {"id": "1", "action": "add", "product": {"productCharacteristic": [characteristic]}}

    with pytest.raises(Invalid, match="value"):
        V5.translation("productOrder").inward({"productOrderItem": [item]})


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("creationDate", "body.orderDate"),
        ("state", "body.state"),
        ("externalId.id", "body.externalId"),
        ("externalId.owner", "facts.beyond.externalId.each.in.owner.is"),
        ("relatedParty.role", "body.relatedParty.role"),
        ("relatedParty.partyOrPartyRole.id", "body.relatedParty.id"),
        ("channel.channel.id", "body.channel.id"),
        ("orderRelationship.id", "facts.beyond.orderRelationship.is.id"),
        ("productOrderItem.product.agreementItem.agreementId", "body.productOrderItem.product.agreement.id"),
        ("productOrderItem.product.place.place.id", "body.productOrderItem.product.place.id"),
        (
            "productOrderItem.product.productRelationship.id",
            "body.productOrderItem.product.productRelationship.product.id",
        ),
        ("productOrderItem.note.text", "facts.beyond.productOrderItem.each.in.note.is.text"),
    ],
)
def test_an_attribute_is_found_where_it_is_kept(path: str, kept: str) -> None:
    assert V5.translation("productOrder").path(path) == kept


def test_every_member_of_version_5_has_a_place() -> None:
    """In the kept form by its own name or by a rule, or beside it: nothing is kept in a form that version 4 has not."""
    form, homeless = product_ordering_v5.FORM, []
    fourth, fifth = (documents.shape(api.document, "ProductOrder") for api in (V4, V5))
    todo = [(name, "ProductOrder") for name in _members(V5.document, "ProductOrder")]
    for path, _ in todo:
        kept = V5.translation("productOrder").path(path)
        if kept.startswith("body.") and not fourth.has(kept.removeprefix("body.")):
            homeless.append(path)
    assert fifth.has("creationDate")
    assert form.members("ProductOrder")
    assert homeless == []


def _members(name: str, schema: str) -> list[str]:
    found: list[str] = [*document(name)["components"]["schemas"][schema]["properties"]]
    return found


def test_a_rule_leaves_alone_what_it_does_not_know() -> None:
    body = {"other": 1}
    for rule in [rule for rules in product_ordering_v5.RULES.values() for rule in rules]:
        if isinstance(rule, Rule) and type(rule).__name__ in (
            "Renamed",
            "Only",
            "Listed",
            "Supplied",
            "Valued",
            "Begins",
        ):
            rule.outward(body)
            rule.inward(body)

    assert body == {"other": 1}
    assert Only(("a",)).beyond(["a", "b"])


# drafts


def test_a_draft_is_kept_as_one_and_shown_to_version_4_as_pending() -> None:
    kept, beyond = V5.translation("productOrder").inward({**ORDER, "requestedInitialState": "draft"})
    whole = {**kept, **product_ordering.PRODUCT_ORDER.new(kept)}

    assert whole["state"] == whole["productOrderItem"][0]["state"] == "draft"
    fourth = V4.translation("productOrder").outward(whole, beyond)
    fifth = V5.translation("productOrder").outward(whole, beyond)
    assert (fourth["state"], fourth["productOrderItem"][0]["state"]) == ("pending", "pending")
    assert (fifth["state"], fifth["productOrderItem"][0]["state"]) == ("draft", "pending")
    for api, shown in ((V4, fourth), (V5, fifth)):
        check(api, "productOrder", shown)
        assert api.translation("productOrder").inward(shown, (whole, beyond)) == (whole, beyond)


def test_version_4_finds_a_draft_as_what_it_shows() -> None:
    assert V4.translation("productOrder").values("state", "pending") == ["pending", "draft"]
    assert V5.translation("productOrder").values("state", "pending") == ["pending"]


# alarms

ALARM: dict[str, Any] = {
    "alarmType": "said by version 4",
    "perceivedSeverity": "bad",
    "alarmedObject": {"href": "pe1/ge-1"},
    "affectedService": [{"id": "s"}],
    "place": [{"id": "berlin-1", "role": "site"}],
}


def test_an_alarm_of_version_4_can_be_read_whatever_words_it_is_in() -> None:
    """And every object in it says what it is."""
    shown = alarms_v5.API.translation("alarm").outward(ALARM, {})

    assert shown == {
        "@type": "Alarm",
        "alarmType": "said by version 4",
        "perceivedSeverity": "bad",
        "alarmedObject": {"@type": "AlarmedObjectRef", "href": "pe1/ge-1"},
        "affectedService": [{"@type": "ServiceRef", "id": "s"}],
        "place": [{"@type": "RelatedPlace", "role": "site", "relatedPlace": {"@type": "Place", "id": "berlin-1"}}],
    }
    check(alarms_v5.API, "alarm", shown)


def test_what_a_task_is_to_be_done_to_is_kept_whole() -> None:
    """In the form of version 4, which it is matched in."""
    place = {"@type": "RelatedPlace", "role": "site", "relatedPlace": {"@type": "Place", "id": "berlin-1"}}
    named = {"@type": "AlarmRef", "id": "a", "name": "first", "@referredType": "Alarm"}
    body = {"@type": "AckAlarm", "alarmPattern": [{"@type": "Alarm", "place": [place]}, named]}

    kept, _ = alarms_v5.API.translation("ackAlarms").inward(body)

    first, second = kept["alarmPattern"]
    assert alarms.attributes(first) == {"place": [{"id": "berlin-1", "role": "site"}]}
    assert alarms.attributes(second) == {"id": "a"}


def test_a_condition_that_cannot_be_kept_is_refused() -> None:
    """Without it, more alarms would be cleared than were meant."""
    pattern = {"sourceSystemId": "pe1", "place": [{"relatedPlace": {"id": "berlin-1"}}]}

    with pytest.raises(Invalid, match=r"alarmPattern\.0\.place\.0"):
        alarms_v5.API.translation("clearAlarms").inward({"alarmPattern": [pattern]})
