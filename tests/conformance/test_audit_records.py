"""The audit record over REST: who reads it, in whose words, and that nobody writes it."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Gateway

from convergedon.core import policy
from convergedon.core.audit import KIND, Audit
from convergedon.core.engines import Embedded
from convergedon.core.persons import REFERENCE, Persons
from convergedon.core.policy import Policy, Subject

RECORDS = "/convergedon-api/audit/v1/auditRecord"


async def recorded(gateway: Gateway, *subjects: str) -> None:
    """Records of the tenant and of another, written as the gateway writes its own."""
    writer = Audit(gateway.built.store, gateway.built.bus, "test")
    for number, subject in enumerate(subjects):
        for tenant in (gateway.tenant, f"other-{gateway.tenant}"):
            detail: dict[str, Any] = {"reasons": [f"{subject} may not"]}
            writer.record("call.create", tenant, subject, f"productOrder/{number}", "refused", **detail)
    await writer.stop()


async def found(gateway: Gateway, role: str = "auditor", **asked: str) -> list[dict[str, Any]]:
    answer = await gateway.ask("GET", RECORDS, params=asked, headers=gateway.token(role))
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()
    assert int(answer.headers["x-total-count"]) == len(listed)
    return listed


async def test_an_auditor_finds_records_of_its_tenant(any_gateway: Gateway) -> None:
    """By subject, resource, trace, what, outcome and time; whole, and with persons in clear."""
    await recorded(any_gateway, "maria", "otto", "convergedon")

    (one,) = await found(any_gateway, subject="maria")
    assert (one["subject"], one["tenant"], one["on"]) == ("maria", any_gateway.tenant, "productOrder/0")
    assert one["detail"]["reasons"] == ["maria may not"]
    for asked in (
        {"on": "productOrder/0"},
        {"subject": "maria", "outcome": "refused"},
        {"filter": "$[?(@.subject=='maria')]"},
        {"what": "call.create", "time": one["time"], "on": "productOrder/0"},
        {"id": one["id"]},
    ):
        assert [record["id"] for record in await found(any_gateway, **asked)] == [one["id"]]
    assert {record["subject"] for record in await found(any_gateway, **{"subject.ne": "maria"})} == {
        "otto",
        "convergedon",
    }
    assert len(await found(any_gateway, **{"time.gte": one["time"], "sort": "-time"})) == 3
    alone = await any_gateway.ask("GET", f"{RECORDS}/{one['id']}", headers=any_gateway.token("auditor"))
    assert alone.json() == one


async def test_what_was_done_by_a_decision_is_found_by_it(any_gateway: Gateway) -> None:
    """The id tells when it was made, so no index is needed."""
    writer = Audit(any_gateway.built.store, any_gateway.built.bus, "test")
    rules = Policy(Embedded(policy.read()))
    resource = {"kind": "productOrder", "tenant": any_gateway.tenant, "id": "1"}
    made = [await rules.decide(Subject("maria", any_gateway.tenant, ("csr",)), "list", resource) for _ in range(2)]
    for decision in made:
        writer.record("call.list", any_gateway.tenant, "maria", "productOrder", "done", decision)
    await writer.stop()

    (one,) = await found(any_gateway, decision=made[1].id)
    assert one["decision"] == made[1].id
    assert await found(any_gateway, decision=made[1].id, outcome="refused") == []
    assert await found(any_gateway, decision="1") == []


async def test_an_erased_person_is_found_by_nobody(any_gateway: Gateway) -> None:
    await recorded(any_gateway, "maria", "otto")
    await Persons(any_gateway.built.store).erase(any_gateway.tenant, "maria")

    listed = await found(any_gateway, sort="id")

    assert await found(any_gateway, subject="maria") == []
    assert [bool(REFERENCE.fullmatch(record["subject"])) for record in listed] == [True, False]
    assert listed[0]["detail"]["reasons"] == [f"{listed[0]['subject']} may not"]


@pytest.mark.parametrize("role", ["csr", "mediation", "billing", "noc", "customer"])
async def test_others_read_no_records(gateway: Gateway, role: str) -> None:
    """Not a customer either: what it did stands beside what was done about it."""
    answer = await gateway.ask("GET", RECORDS, headers=gateway.token(role, party="northwind"))

    assert answer.status_code == 403


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT"])
async def test_nobody_writes_records(gateway: Gateway, method: str) -> None:
    for path in (RECORDS, f"{RECORDS}/test-000000000000:000000000001"):
        answer = await gateway.ask(method, path, json={})
        assert answer.status_code == 405


async def test_a_call_that_came_to_nothing_is_recorded_with_its_decision(any_gateway: Gateway) -> None:
    """Who tries one id after another leaves a track, though nothing was refused by policy."""
    path = "/tmf-api/productOrderingManagement/v4/productOrder/not-there"
    missed = await any_gateway.ask("GET", path, headers=any_gateway.token("csr"))
    unheard = await any_gateway.ask(
        "DELETE", "/tmf-api/productOrderingManagement/v4/hub/none", headers=any_gateway.token("csr")
    )

    await any_gateway.built.audit.stop()

    async def track(answer: Any) -> list[tuple[str, str, str, int]]:
        wanted = {"body.decision": answer.headers["x-decision-id"]}
        entries = [record.body for record in await any_gateway.built.audited.find(KIND.name, wanted)]
        return [(one["what"], one["on"], one["outcome"], one["detail"]["status"]) for one in entries]

    assert await track(missed) == [("call.retrieve", "productOrder/not-there", "failed", 404)]
    assert await track(unheard) == [("call.delete", "hub/none", "failed", 404)]
