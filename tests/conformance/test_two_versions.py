"""TMF622 v4 and v5 over the same orders, through the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from conftest import Gateway
from contract import check
from test_against_official import FOLDER

from convergedon import openapi
from convergedon.handlers import documents, telling
from convergedon.handlers.product_ordering import API as V4
from convergedon.handlers.product_ordering_v5 import API as V5


def example(api: Any, path: str = "/productOrder") -> dict[str, Any]:
    media = openapi.document(api.document)["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    return dict(media["example"])


def official() -> Iterator[Any]:
    """The examples of the official document; without it, one that is skipped."""
    found = sorted(FOLDER.glob("TMF622/v5.*.yaml"))
    if not found:
        yield pytest.param("", {}, marks=pytest.mark.skip(f"no TMF622/v5.*.yaml in {FOLDER}"))
        return
    examples = yaml.safe_load(found[-1].read_text(encoding="utf-8"))["components"]["examples"]
    for name, held in json.loads(json.dumps(examples, default=str)).items():
        if name.startswith("Create") and name.endswith("_request"):
            yield pytest.param(name, held["value"], id=name)


@pytest.mark.parametrize(
    ("expression", "status", "found"),
    [
        ("$[?(@.externalId[?(@.id=='NW-2291')])]", 501, 0),
        ("$[?(@.productOrderItem[?(@.note.text=='x' && @.id=='1')])]", 501, 0),
        ("$[?(@.orderRelationship[?(@.relationshipType=='dependency' && @.id=='o-1')])]", 200, 1),
        ("$[?(@.relatedParty[?(@.role=='customer' && @.partyOrPartyRole.id=='northwind')])]", 200, 1),
    ],
)
async def test_a_nested_filter_finds_or_says_that_it_cannot(
    gateway: Gateway, expression: str, status: int, found: int
) -> None:
    """An empty list would say that there is no such order."""
    related = {"@type": "OrderRelationship", "id": "o-1", "relationshipType": "dependency"}
    await order(gateway, V5, orderRelationship=[related])
    answer = await gateway.ask("GET", f"{V5.base}/productOrder", params={"filter": expression})

    assert answer.status_code == status, answer.text
    assert status != 200 or len(answer.json()) == found


async def order(gateway: Gateway, api: Any, **changed: Any) -> dict[str, Any]:
    answer = await gateway.ask("POST", f"{api.base}/productOrder", json={**example(api), **changed})
    assert answer.status_code == 201, answer.text
    check(api, "ProductOrder", answer.json())
    return dict(answer.json())


async def read(gateway: Gateway, api: Any, id: str) -> dict[str, Any]:
    answer = await gateway.ask("GET", f"{api.base}/productOrder/{id}")
    assert answer.status_code == 200, answer.text
    check(api, "ProductOrder", answer.json())
    return dict(answer.json())


@pytest.mark.parametrize(("name", "body"), [*official()])
async def test_the_examples_of_the_official_document_are_taken(gateway: Gateway, name: str, body: Any) -> None:
    """And come back as they were sent, as far as the document has their members.

    Times without a T are no date-times, so they are not sent.
    """
    resource = "cancelProductOrder" if "Cancel" in name else "productOrder"
    said = {one: value for one, value in body.items() if str(value)[10:11] != " "}

    answer = await gateway.ask("POST", f"{V5.base}/{resource}", json=said)

    assert answer.status_code == 201, answer.text
    shown = answer.json()
    for item in shown.get("productOrderItem", ()):
        del item["state"]
    declared = documents.shape(V5.document, resource[0].upper() + resource[1:])
    said = {one: value for one, value in said.items() if declared.has(one)}
    assert {one: shown[one] for one in said} == said


async def test_an_order_of_either_version_is_there_in_both(gateway: Gateway) -> None:
    """With the same words where they have the same, and an address of its own in each."""
    for api in (V4, V5):
        id = (await order(gateway, api))["id"]
        fourth, fifth = await read(gateway, V4, id), await read(gateway, V5, id)

        assert fourth["externalId"] == fifth["externalId"][0]["id"] == "NW-2291"
        assert fourth["orderDate"] == fifth["creationDate"]
        assert fourth["relatedParty"][0]["id"] == fifth["relatedParty"][0]["partyOrPartyRole"]["id"] == "northwind"
        assert fourth["href"].replace("/v4/", "/v5/") == fifth["href"]


@pytest.mark.parametrize(
    "asked",
    [
        {"creationDate.gt": "2020-01-01T00:00:00Z"},
        {"externalId.id": "NW-2291"},
        {"externalId.owner": "northwind"},
        {"externalId.id": "second"},
        {"externalId.owner": "customer"},
        {"relatedParty.partyOrPartyRole.id": "northwind"},
        {"productOrderItem.product.place.place.id": "berlin-1"},
        {"productOrderItem.product.productCharacteristic.value": "110"},
        {"orderRelationship.relationshipType": "follows"},
        {"filter": "$[?(@.relatedParty[?(@.partyOrPartyRole.id=='northwind' && @.role=='customer')])]"},
    ],
)
async def test_filters_are_in_the_words_of_version_5(gateway: Gateway, asked: dict[str, str]) -> None:
    """Also for what only that version has."""
    await order(gateway, V5, externalId=[], relatedParty=[], productOrderItem=[{"id": "9", "action": "add"}])
    related = {"@type": "OrderRelationship", "id": "1", "relationshipType": "follows"}
    second = {"@type": "ExternalIdentifier", "id": "second", "owner": "customer"}
    named = [*example(V5)["externalId"], second]
    wanted = await order(gateway, V5, orderRelationship=[related], externalId=named)
    if "creationDate.gt" in asked:
        asked = {**asked, "externalId.id": "NW-2291"}

    answer = await gateway.ask("GET", f"{V5.base}/productOrder", params=asked)

    assert [one["id"] for one in answer.json()] == [wanted["id"]], answer.text


async def test_lists_are_sorted_and_cut_in_the_words_of_version_5(gateway: Gateway) -> None:
    ids = [(await order(gateway, V5))["id"] for _ in range(3)]
    path = f"{V5.base}/productOrder?sort=-creationDate&fields=creationDate"

    found = (await gateway.ask("GET", path)).json()

    assert sorted(one["id"] for one in found) == sorted(ids)
    assert [one["creationDate"] for one in found] == sorted((one["creationDate"] for one in found), reverse=True)
    assert all(one.keys() == {"id", "href", "@type", "creationDate"} for one in found)


async def test_no_version_is_a_way_around_the_policies(gateway: Gateway) -> None:
    """Above the contract's bandwidth is 403 in both, however it is written."""
    for api in (V4, V5):
        body = example(api)
        (item,) = body["productOrderItem"]
        wide = {"name": "bandwidth", "value": 999_999} | ({"@type": "IntegerCharacteristic"} if api is V5 else {})
        item = {**item, "product": {**item["product"], "productCharacteristic": [wide]}}
        answer = await gateway.ask("POST", f"{api.base}/productOrder", json={**body, "productOrderItem": [item]})

        assert answer.status_code == 403, answer.text
        assert "bandwidth" in answer.json()["message"]


async def test_a_draft_is_nobodys_work_until_it_is_acknowledged(gateway: Gateway) -> None:
    """Version 4 sees it waiting and finds it so; only version 5 can submit it."""
    draft = await order(gateway, V5, requestedInitialState="draft")
    assert (draft["state"], draft["requestedInitialState"]) == ("draft", "draft")
    assert (await read(gateway, V4, draft["id"]))["state"] == "pending"
    for path, found in ((f"{V4.base}/productOrder?state=pending", 1), (f"{V5.base}/productOrder?state=pending", 0)):
        assert len((await gateway.ask("GET", path)).json()) == found

    changed = await gateway.ask("PATCH", f"{V4.base}/productOrder/{draft['id']}", json={"description": "still one"})
    assert (changed.status_code, changed.json()["state"]) == (200, "pending")
    refused = await gateway.ask("PATCH", f"{V4.base}/productOrder/{draft['id']}", json={"state": "inProgress"})
    assert refused.status_code == 409
    assert (await read(gateway, V5, draft["id"]))["state"] == "draft"

    submitted = await gateway.ask("PATCH", f"{V5.base}/productOrder/{draft['id']}", json={"state": "acknowledged"})
    assert submitted.status_code == 200, submitted.text
    assert {submitted.json()["state"], submitted.json()["productOrderItem"][0]["state"]} == {"acknowledged"}


async def test_each_version_tells_one_change_in_its_own_form(gateway: Gateway) -> None:
    """The same events with the same ids; what only version 5 can say is told there alone."""
    id = (await order(gateway, V5))["id"]
    await gateway.ask("PATCH", f"{V5.base}/productOrder/{id}", json={"description": "other"})
    milestone = {"@type": "ProductOrderMilestone", "id": "1", "status": "Completed"}
    await gateway.ask("PATCH", f"{V5.base}/productOrder/{id}", json={"productOrderMilestone": [milestone]})
    await gateway.ask("DELETE", f"{V4.base}/productOrder/{id}")

    fourth, fifth = await gateway.events(V4.base), await gateway.events(V5.base)

    for api, events in ((V4, fourth), (V5, fifth)):
        for event in events:
            check(api, event["eventType"], event)
            assert f"{api.base}/productOrder/{id}" in event["event"]["productOrder"]["href"]
    (only,) = [event for event in fifth if event["eventId"] not in {one["eventId"] for one in fourth}]
    assert (only["@type"], only["fieldPath"]) == ("ProductOrderAttributeValueChangeEvent", "productOrderMilestone")
    assert [one["eventType"] for one in fifth if one is not only] == [one["eventType"] for one in fourth]
    assert "timeOcurred" in fourth[0]
    assert "timeOccurred" in fifth[0]
    assert fifth[0]["@baseType"] == "Event"


def test_an_event_is_for_the_listeners_of_all_versions() -> None:
    assert telling.bases({"base": V4.base, "kind": "productOrder"}) == (V4.base, V5.base)
    assert telling.bases({"base": "/other", "kind": "other"}) == ("/other",)
