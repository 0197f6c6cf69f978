"""Filters as they arrive: over HTTP, encoded as clients encode them; and lists that are too long to be whole."""

from __future__ import annotations

import pytest
from conftest import Gateway
from contract import RESOURCES, Operation, each, made

from convergedon.handlers.alarms import ALARM

ALARMS = "/tmf-api/alarmManagement/v4/alarm"
ORDERS = "/tmf-api/productOrderingManagement/v4/productOrder"


@each(RESOURCES)
async def test_a_list_is_whole_or_refused(gateway: Gateway, operation: Operation) -> None:
    """Who asks for no page gets everything with 200, or is told to ask for pages; never a part with 206."""
    for _ in range(3):
        await made(gateway, operation)
    few, enough = gateway.beside(list_limit=2), gateway.beside(list_limit=3)

    whole = await enough.ask("GET", operation.path())
    assert (whole.status_code, len(whole.json())) == (200, 3)
    assert "link" not in whole.headers
    refused = await few.ask("GET", operation.path())
    assert refused.status_code == 400
    assert "limit and offset" in refused.json()["message"]
    page = await few.ask("GET", operation.path(), params={"limit": 100})
    assert (page.status_code, len(page.json()), page.headers["x-total-count"]) == (206, 2, "3")


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("orderDate%3E2013-04-20", 1),
        ("orderDate%3E%3D2013-04-20&orderDate%3C2014-01-01", 0),
        ("orderDate>=2013-04-20T00:00:00+02:00", 1),
        ("externalId%3D%3Da", 1),
        ("externalId*=%5Ea$", 1),
        ("externalId=b;externalId=a", 1),
        ("externalId=%22a%22&state.ne=held,pending", 1),
        (
            "filter=%24%5B%3F(%40.externalId%3D%3D'a')%5D&orderDate.gt=2013-04-20&fields=state&sort=-orderDate&limit=5",
            1,
        ),
    ],
)
async def test_a_filter_arrives_as_it_was_written(gateway: Gateway, query: str, count: int) -> None:
    """The operators of TMF630 stand in the parameter's name as often as beside it."""
    item = {"id": "1", "action": "add"}
    created = await gateway.ask("POST", ORDERS, json={"externalId": "a", "productOrderItem": [item]})
    assert created.status_code == 201

    answer = await gateway.ask("GET", f"{ORDERS}?{query}")
    assert (answer.status_code, len(answer.json())) == (200, count)


async def test_unsupported_jsonpath_is_501(gateway: Gateway) -> None:
    """A valid expression outside of what is taken is told from a mistake (TMF630 part 6)."""
    answers = {text: await gateway.ask("GET", ORDERS, params={"filter": text}) for text in ("$..state", "$[?(")}

    assert [answer.status_code for answer in answers.values()] == [501, 400]
    assert all(answer.json()["message"].startswith(("filter", "the filter")) for answer in answers.values())


@pytest.mark.parametrize(
    "asked",
    [
        "affectedService.id=hidden",
        "affectedService.id.ne=x",
        "affectedService.id.regex=h.*",
        "state=raised;affectedService.id=hidden",
        "filter=[?(@.affectedService[?(@.id=='hidden')])]",
        "filter=[?(!(@.affectedService[*].id=='hidden') || @.state=='raised')]",
        "sort=affectedService.id",
    ],
)
async def test_who_sees_a_part_cannot_ask_for_the_rest(gateway: Gateway, asked: str) -> None:
    """A count would tell a customer which of its neighbours' services an alarm touches too."""
    body = {"state": "raised", "perceivedSeverity": "major", "affectedService": [{"id": "hidden"}, {"id": "own"}]}
    facts = {"parties": ["northwind"], "touches": {"northwind": [{"id": "own"}]}}
    await gateway.built.resources.create(ALARM, gateway.tenant, body, facts)
    northwind = gateway.token("customer", party="northwind")

    refused = await gateway.ask("GET", f"{ALARMS}?{asked}", headers=northwind)
    assert (refused.status_code, "affectedService" in refused.json()["message"]) == (400, True)
    assert (await gateway.ask("GET", f"{ALARMS}?{asked}")).status_code == 200
    seen = await gateway.ask("GET", f"{ALARMS}?state=raised&fields=affectedService", headers=northwind)
    assert [one["affectedService"] for one in seen.json()] == [[{"id": "own"}]]
