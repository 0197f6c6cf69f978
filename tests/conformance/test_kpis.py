"""The figures over REST: of the caller's tenant, computed when they are asked for, and none without its ground."""

from __future__ import annotations

from time import time
from typing import Any

import pytest
from conftest import Gateway

from convergedon.core.audit import KIND
from convergedon.core.store import Record
from convergedon.handlers import kpis
from convergedon.handlers.surveys import SURVEY_ANSWER

FIGURES = "/convergedon-api/figure/v1/figure"
DAY = 86_400_000_000


async def answered(gateway: Gateway, *scores: int, days: float = 0, tenant: str = "") -> None:
    for score in scores:
        record = await gateway.built.resources.create(SURVEY_ANSWER, tenant or gateway.tenant, {"score": score})
        at = {"answeredAt": record.facts["at"]["answeredAt"] - int(days * DAY)}
        await gateway.built.store.replace(record.with_(facts={"at": at}))


async def audited(gateway: Gateway, number: int, **said: Any) -> None:
    at = {"at": {"time": int(time() * 1_000_000)}}
    body = {"time": "2026-02-20T09:31:06.220Z", "outcome": "done", "subject": "x", "detail": {}, **said}
    await gateway.built.store.create(Record(KIND.name, f"{gateway.tenant}:{number}", gateway.tenant, body, at))


async def read(gateway: Gateway, **asked: str) -> dict[tuple[str, str], dict[str, Any]]:
    answer = await gateway.ask("GET", FIGURES, params=asked)
    assert answer.status_code == 200, answer.text
    return {(one["name"], one["period"]): one for one in answer.json()}


async def test_what_customers_say_is_told_by_period_with_the_number_of_answers(gateway: Gateway) -> None:
    await answered(gateway, 10, 9, 3)
    await answered(gateway, 0, days=3)
    await answered(gateway, 10, days=20)
    await answered(gateway, 0, 0, days=100)
    await answered(gateway, 0, tenant=f"not-{gateway.tenant}")

    found = await read(gateway, name="nps")

    assert {period: (one["value"], one["count"]) for (_, period), one in found.items()} == {
        "P1D": (33, 3),
        "P7D": (0, 4),
        "P30D": (20, 5),
        "P90D": (20, 5),
    }
    assert found["nps", "P7D"]["note"] == "4 answers in the last 7 days"


async def test_figures_are_of_all_there_is_however_many_pages_that_takes(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where more records are of one instant than a page has."""
    monkeypatch.setattr(kpis, "PAGE", 2)
    await answered(gateway, 10, 10, 10, 10, 0)
    at = int(time() * 1_000_000)
    for number in range(9):
        body = {"time": "2026-02-20T09:31:06.220Z", "what": "message.parked", "outcome": "failed", "detail": {}}
        facts = {"at": {"time": at - number // 5}}
        entry = Record(KIND.name, f"{gateway.tenant}:{number}", gateway.tenant, {**body, "on": "event.x.Alarm"}, facts)
        await gateway.built.store.create(entry)

    found = await read(gateway)

    assert (found["hand-offs", "P1D"]["value"], found["nps", "P1D"]["count"]) == (9, 5)


async def test_there_is_no_figure_without_answers_or_incidents(gateway: Gateway) -> None:
    found = await read(gateway)

    assert all("value" not in found["nps", period] for period in ("P1D", "P7D", "P30D", "P90D"))
    assert "value" not in found["hand-offs-per-100", "P1D"]
    assert (found["hand-offs", "P1D"]["value"], found["nps", "P1D"]["count"]) == (0, 0)


async def test_hand_offs_are_counted_from_the_audit_record(gateway: Gateway) -> None:
    for number in range(8):
        await audited(gateway, number, what="customer.told", on=f"alarm/{number % 4}")
    await audited(gateway, 9, what="workflow.escalated", on="workflowRun/1")

    figure = (await read(gateway))["hand-offs-per-100", "P1D"]

    assert (figure["value"], figure["unit"], figure["count"]) == (25.0, "perHundred", 4)
    assert figure["note"] == "1 hand-off, 4 incidents"


async def test_a_figure_is_read_by_its_id_and_its_tag_changes_with_it(gateway: Gateway) -> None:
    first = (await read(gateway, name="nps", period="P1D"))["nps", "P1D"]
    before = await gateway.ask("GET", f"{FIGURES}/{first['id']}")
    again = await gateway.ask("GET", f"{FIGURES}/{first['id']}")
    await answered(gateway, 9)
    after = await gateway.ask("GET", f"{FIGURES}/{first['id']}")

    assert before.headers["etag"] == again.headers["etag"] != after.headers["etag"]
    assert after.json()["value"] == 100


async def test_customers_are_told_no_figures(gateway: Gateway) -> None:
    who = gateway.token("customer", party="northwind")

    assert (await gateway.ask("GET", FIGURES, headers=who)).status_code == 403
