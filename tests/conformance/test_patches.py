"""A PATCH means the same in whichever of the four ways it is written, holds as a whole, and is checked alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from conftest import Gateway
from contract import (
    PATCHED,
    Operation,
    changed_by_server,
    check,
    each,
    made,
    members,
    refused,
    retrieving,
    schema_of,
    set_by_server,
    settled,
)
from test_matrix import Rivalled

from convergedon.handlers.patching import APPLY, merge
from convergedon.handlers.product_ordering import PRODUCT_ORDER

ORDERS = "/tmf-api/productOrderingManagement/v4/productOrder"
MERGES = ("application/json", "application/merge-patch+json")
STEPS = ("application/json-patch+json", "application/json-patch-query+json")


def each_way(types: Sequence[str] = (*MERGES, *STEPS)) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("type_", types, ids=lambda type_: type_.removeprefix("application/"))


def written(type_: str, before: Mapping[str, Any], change: Mapping[str, Any]) -> str:
    """A merge patch in the words of a media type."""
    if type_ in MERGES:
        return json.dumps(change)
    after = merge(before, change)
    gone = [{"op": "remove", "path": f"/{name}"} for name in change if name not in after]
    return json.dumps([*gone, *({"op": "add", "path": f"/{n}", "value": after[n]} for n in change if n in after)])


async def patched(gateway: Gateway, path: str, type_: str, content: str, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.ask("PATCH", path, headers={"Content-Type": type_, **named}, content=content)


@each(PATCHED)
async def test_every_declared_way_is_understood(operation: Operation) -> None:
    """What the document offers is what there is."""
    assert operation.media.keys() == APPLY.keys()


@each(PATCHED)
async def test_what_says_the_same_does_the_same(gateway: Gateway, operation: Operation) -> None:
    """The same resource after it, and the same event, whichever way it was written."""
    results, told = [], []
    for type_ in operation.media:
        before = await made(gateway, operation)
        path = operation.path(before["id"])
        known = len(await gateway.events())
        after = settled(operation, await patched(gateway, path, type_, written(type_, before, operation.examples)))
        (event,) = (await gateway.events())[known:]

        ours = {"id", "href", *changed_by_server(operation, after), *set_by_server(operation, before)}
        results.append({name: value for name, value in after.items() if name not in ours})
        told.append((event["eventType"], event.get("fieldPath")))
        check(operation.api, schema_of(operation), after)
        assert any(after[name] != before.get(name) for name in operation.examples)

    assert results == [results[0]] * len(results)
    assert told == [told[0]] * len(told)


WRONG_STEPS: Sequence[tuple[Mapping[str, Any], int]] = (
    ({"op": "test", "path": "/href", "value": "elsewhere"}, 409),
    ({"op": "remove", "path": "/nothing/here"}, 409),
    ({"op": "replace", "path": "/id", "value": "mine"}, 400),
    ({"op": "replace", "path": "/unknown", "value": 1}, 409),
    ({"op": "add", "path": "/unknown", "value": 1}, 400),
    ({"op": "move", "from": "/id", "path": "/@baseType"}, 400),
    ({"op": "copy", "from": "/nothing", "path": "/@baseType"}, 409),
    ({"op": "remove", "path": ""}, 409),
    ({"op": "replace", "path": "", "value": {}}, 400),
    ({"op": "replace", "path": "", "value": [1]}, 400),
    ({"op": "whatever", "path": "/id"}, 400),
    ({"op": "add", "path": "/@baseType"}, 400),
    ({"op": "add", "path": "@type", "value": "x"}, 400),
    ({"op": "add", "path": "/@baseType", "value": 5}, 400),
    ({"path": "/@baseType", "value": "x"}, 400),
    ({"op": "add", "path": 5, "value": "x"}, 400),
)


@each(PATCHED)
@each_way(STEPS)
async def test_one_step_that_fails_changes_nothing(gateway: Gateway, operation: Operation, type_: str) -> None:
    """Neither the resource nor its revision, and no event: 400 for a wrong step, 409 for one that does not fit."""
    before = await made(gateway, operation)
    path = operation.path(before["id"])
    known = len(await gateway.events())
    for step, status in WRONG_STEPS:
        right = json.loads(written(type_, before, operation.examples))
        last = await patched(gateway, path, type_, json.dumps([*right, step]))
        first = await patched(gateway, path, type_, json.dumps([step, *right]))

        assert last.status_code == status, (step, last.text)
        assert first.status_code in (400, 409), (step, first.text)

    read = await gateway.ask("GET", path)
    assert (read.json(), read.headers["etag"]) == (before, '"1"')
    assert len(await gateway.events()) == known


@each(PATCHED)
@each_way(STEPS)
async def test_a_test_that_holds_lets_pass(gateway: Gateway, operation: Operation, type_: str) -> None:
    """On every member as it is, values of any form."""
    before = await made(gateway, operation)
    tests = [{"op": "test", "path": f"/{name}", "value": value} for name, value in before.items()]
    right = json.loads(written(type_, before, operation.examples))

    settled(operation, await patched(gateway, operation.path(before["id"]), type_, json.dumps([*tests, *right])))


@each(PATCHED)
@each_way()
async def test_what_may_not_change_is_refused_in_every_way(gateway: Gateway, operation: Operation, type_: str) -> None:
    """400 naming the member; the resource is as it was."""
    before = await made(gateway, operation)
    path = operation.path(before["id"])
    frozen = members(operation.api, schema_of(operation)) - operation.shape.patchable
    for name in {n for n in frozen if not n.startswith("@")} | {"unknown"}:
        answer = await patched(gateway, path, type_, written(type_, before, {name: "mine"}))

        assert name in refused(operation, answer, 400)["message"]
    assert (await gateway.ask("GET", path)).json() == before


@each(PATCHED)
@each_way()
async def test_a_body_of_another_form_is_refused(gateway: Gateway, operation: Operation, type_: str) -> None:
    """A merge patch is an object and a list of steps is a list of objects: 400 for the other, never a guess."""
    path = operation.path((await made(gateway, operation))["id"])
    for content in ("[]" if type_ in MERGES else "{}", "null", '"text"', "5", "[5]", "[null]", "[[]]"):
        refused(operation, await patched(gateway, path, type_, content), 400)


@each(PATCHED)
@each_way()
async def test_a_rival_does_not_make_a_patch_fail(gateway: Gateway, operation: Operation, type_: str) -> None:
    """Whoever names no revision has the patch applied to what the rival left; whoever names one is told."""
    rivalled = gateway.beside(Rivalled)
    for headers, statuses in (({}, {200}), ({"If_Match": '"1"'}, {409, 412})):
        before = await made(gateway, operation)
        content = written(type_, before, operation.examples)
        answer = await patched(rivalled, operation.path(before["id"]), type_, content, **headers)

        assert answer.status_code in statuses, answer.text
        read = await gateway.ask("GET", retrieving(operation).path(before["id"]))
        assert (read.json() == before) == (answer.status_code != 200)


@each(PATCHED)
async def test_patches_at_once_all_hold(any_gateway: Gateway, operation: Operation) -> None:
    """As many as a patch is tried: each adds a member of its own, and all are there."""
    id = (await made(any_gateway, operation))["id"]
    path = operation.path(id)
    wanted = {"@type": "A", "@baseType": "B", "@schemaLocation": "https://c.example/"}
    answers = await asyncio.gather(
        *(any_gateway.ask("PATCH", path, json={name: value}) for name, value in wanted.items())
    )

    assert [answer.status_code for answer in answers] == [200] * len(answers)
    read = await any_gateway.ask("GET", path)
    assert wanted.items() <= read.json().items()
    assert read.headers["etag"] == f'"{1 + len(wanted)}"'


def ordered(bandwidth: int) -> dict[str, Any]:
    characteristic = {"name": "bandwidth", "value": bandwidth}
    return {"id": "1", "action": "add", "product": {"productCharacteristic": [characteristic]}}


ABOVE = 10**9
BANDWIDTH = "/productOrderItem/0/product/productCharacteristic/0/value"


@pytest.mark.parametrize(
    ("type_", "asked"),
    [
        *((type_, {"productOrderItem": [ordered(ABOVE)]}) for type_ in MERGES),
        *((type_, [{"op": "replace", "path": BANDWIDTH, "value": ABOVE}]) for type_ in STEPS),
        (STEPS[0], [{"op": "replace", "path": "/productOrderItem", "value": [ordered(ABOVE)]}]),
        (STEPS[0], [{"op": "add", "path": "/productOrderItem/-", "value": {**ordered(ABOVE), "id": "2"}}]),
        (
            STEPS[0],
            [
                {"op": "copy", "from": "/priority", "path": "/category"},
                {"op": "replace", "path": BANDWIDTH, "value": ABOVE},
            ],
        ),
        (
            STEPS[1],
            [
                {
                    "op": "replace",
                    "path": "/productOrderItem/product/productCharacteristic/value?productOrderItem.id=1"
                    "&productOrderItem.product.productCharacteristic.name=bandwidth",
                    "value": ABOVE,
                }
            ],
        ),
    ],
)
async def test_no_way_of_writing_leads_past_a_policy(gateway: Gateway, type_: str, asked: Any) -> None:
    """What the contract does not allow is refused with its sentence, and is not there."""
    body = {"productOrderItem": [ordered(10)], "priority": "1"}
    record = await gateway.built.resources.create(PRODUCT_ORDER, gateway.tenant, body)
    record = await gateway.built.resources.change(PRODUCT_ORDER, record, {"state": "pending"})
    path = f"{ORDERS}/{record.id}"
    before = (await gateway.ask("GET", path)).json()
    answer = await patched(gateway, path, type_, json.dumps(asked))

    assert answer.status_code == 403, answer.text
    assert f"bandwidth {ABOVE} Mbit/s is above" in answer.json()["message"]
    assert (await gateway.ask("GET", path)).json() == before


SPECIFICATIONS = "/tmf-api/usageManagement/v4/usageSpecification"


@each_way()
async def test_false_is_not_nought(gateway: Gateway, type_: str) -> None:
    """What Python calls equal is a change in JSON: one that does not fit is refused, one that does is kept."""
    for value, other, status in ((0, False, 400), (1, True, 400), (0, 1, 200)):
        body = {"name": "calls", "specCharacteristic": [{"name": "minutes", "maxCardinality": value}]}
        before = (await gateway.ask("POST", SPECIFICATIONS, json=body)).json()
        path, change = f"{SPECIFICATIONS}/{before['id']}", [{"name": "minutes", "maxCardinality": other}]
        answer = await patched(gateway, path, type_, written(type_, before, {"specCharacteristic": change}))

        assert answer.status_code == status, answer.text
        read = (await gateway.ask("GET", path)).json()["specCharacteristic"][0]["maxCardinality"]
        assert read is (other if status == 200 else value)


@each_way()
async def test_what_only_python_calls_equal_is_a_change(gateway: Gateway, type_: str) -> None:
    """A characteristic holds any JSON: true instead of 1 is kept."""
    ordered_so = [{**ordered(10), "product": {"productCharacteristic": [{"name": "static", "value": 1}]}}]
    record = await gateway.built.resources.create(PRODUCT_ORDER, gateway.tenant, {"productOrderItem": ordered_so})
    record = await gateway.built.resources.change(PRODUCT_ORDER, record, {"state": "pending"})
    path = f"{ORDERS}/{record.id}"
    before = (await gateway.ask("GET", path)).json()
    wanted = json.loads(json.dumps(before["productOrderItem"]))
    wanted[0]["product"]["productCharacteristic"][0]["value"] = True
    answer = await patched(gateway, path, type_, written(type_, before, {"productOrderItem": wanted}))

    assert answer.status_code == 200, answer.text
    for told in (answer.json(), (await gateway.ask("GET", path)).json()):
        assert told["productOrderItem"][0]["product"]["productCharacteristic"][0]["value"] is True
