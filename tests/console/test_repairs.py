"""Repairs on the operator's page: what waits for a person is answered there, and the button stops them all."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from twins import Place, form_of, log_in

from convergedon.core.store import Record
from convergedon.handlers.remediation import WORKFLOW_APPROVAL, WORKFLOW_CONTROL, WORKFLOW_RUN

GUARD = {"recent": 1, "repairs": 2, "affected": 3, "raised": 4, "underWay": 0}


async def run(place: Place, state: str = "waitingForApproval", tenant: str = "acme", **said: Any) -> Record:
    body = {
        "workflow": {"name": "bounce-interface", "version": "1.0.0", "hash": "x"},
        "state": "running",
        "alarm": {"id": "a1"},
        "target": "pe1",
        "startedAt": said.pop("startedAt", "2026-11-26T12:00:00.000Z"),
        "guard": GUARD,
    }
    made = await place.resources.create(WORKFLOW_RUN, tenant, body)
    return await place.resources.change(WORKFLOW_RUN, made, {"state": state, **said}) if state != "running" else made


async def post(client: httpx.AsyncClient, path: str, **fields: str) -> httpx.Response:
    form = form_of(await client.get("/console/"))
    return await client.post(f"/console/{path}", data={"form": form, **fields})


async def kept(place: Place, kind: str, tenant: str = "acme") -> list[dict[str, Any]]:
    return [dict(one.body) for one in await place.store.find(kind, {"tenant": tenant})]


async def test_what_waits_for_a_person_stands_first_with_its_question_and_what_the_guards_saw(place: Place) -> None:
    await run(place, question="Switch <b>ge-1</b> off and on?")
    await run(place, "compensated", reason="pe1 did not come up", escalated=True, startedAt="2026-11-26T13:00:00.000Z")
    await run(place, tenant="globex", question="not ours")
    async with place.client() as client:
        await log_in(client, place.token(role="noc"))
        page = (await client.get("/console/fragment/repairs")).text

    assert "Switch &lt;b&gt;ge-1&lt;/b&gt; off and on?" in page
    assert "not ours" not in page
    assert page.index("waits for approval") < page.index("pe1 did not come up")
    assert "1 of it and 2 repairs here within an hour, 3 services touched, raised 4 times" in page
    assert "for a person" in page
    assert page.count(">Approve</button>") == 1


@pytest.mark.parametrize("decision", ["approved", "refused"])
async def test_who_may_answers_from_the_page(decision: str, place: Place) -> None:
    """As over the API: kept in the operator's name, recorded, and judged by the workers."""
    asked = await run(place, question="Mend it?")
    async with place.client() as client:
        await log_in(client, place.token(role="noc"))
        answer = await post(client, "approval", run=asked.id, decision=decision, comment=" go on ")
        (said,) = await place.store.find(WORKFLOW_APPROVAL.name, {"tenant": "acme"})
        rejected = {"state": "rejected", "reason": "another person is needed"}
        await place.resources.change(WORKFLOW_APPROVAL, said, rejected)
        page = (await client.get("/console/")).text

    assert answer.status_code == 302
    assert answer.headers["location"] == "/console/#repairs"
    assert said.body["workflowRun"] == {"id": asked.id}
    assert (said.body["decision"], said.body["comment"], said.body["state"]) == (decision, "go on", "acknowledged")
    assert said.facts["owner"]["roles"] == ["noc"]
    recorded = {"what": "call.create", "on": f"workflowApproval/{said.id}", "outcome": "done", "channel": "console"}
    assert recorded.items() <= place.trail[-2].items() or recorded.items() <= place.trail[-1].items()
    assert f"{said.facts['owner']['id']}: {decision}, which does not count: another person is needed" in page


@pytest.mark.parametrize("path", ["approval", "control"])
@pytest.mark.parametrize("form", [{}, {"form": "guessed"}])
async def test_a_form_of_another_site_changes_nothing(path: str, form: dict[str, str], place: Place) -> None:
    asked = await run(place, question="Mend it?")
    async with place.client() as client:
        await log_in(client, place.token(role="noc"))
        answer = await client.post(
            f"/console/{path}", data={"run": asked.id, "decision": "approved", "state": "stopped", **form}
        )

    assert answer.status_code == 403
    assert "the form has expired" in answer.text
    assert await kept(place, WORKFLOW_APPROVAL.name) == await kept(place, WORKFLOW_CONTROL.name) == []


async def test_without_a_session_nothing_is_said(place: Place) -> None:
    async with place.client() as client:
        form = form_of(await client.get("/console/login"))
        answer = await client.post("/console/control", data={"form": form, "state": "stopped"})

    assert (answer.status_code, answer.headers["location"]) == (302, "/console/login")
    assert await kept(place, WORKFLOW_CONTROL.name) == []


async def test_a_role_that_may_not_is_shown_no_button_and_refused(place: Place) -> None:
    """An auditor sees the page, not the repairs; who posts all the same is told why not."""
    asked = await run(place, question="Mend it?")
    async with place.client() as client:
        await log_in(client, place.token(role="auditor"))
        page = (await client.get("/console/fragment/repairs")).text
        answers = [
            await post(client, "approval", run=asked.id, decision="approved"),
            await post(client, "control", state="stopped"),
        ]

    assert "Not shown: none of the roles [auditor] may list a workflowRun" in page
    assert "<button" not in page
    assert [answer.status_code for answer in answers] == [403, 403]
    assert "may create a workflowApproval" in answers[0].text
    refused = [(one["what"], one["on"]) for one in place.trail if one["outcome"] == "refused"]
    assert refused == [("call.create", "workflowApproval"), ("call.create", "workflowControl")]
    assert await kept(place, WORKFLOW_APPROVAL.name) == await kept(place, WORKFLOW_CONTROL.name) == []


async def test_another_tenants_run_is_not_there(place: Place) -> None:
    theirs = await run(place, tenant="globex", question="theirs")
    async with place.client() as client:
        await log_in(client, place.token(role="noc"))
        answer = await post(client, "approval", run=theirs.id, decision="approved")

    assert answer.status_code == 404
    assert await kept(place, WORKFLOW_APPROVAL.name, "globex") == await kept(place, WORKFLOW_APPROVAL.name) == []


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("approval", {"decision": "perhaps"}, "a decision is approved or refused"),
        ("approval", {"decision": "approved", "comment": 2001 * "x"}, "comment has more than 2000 characters"),
        ("control", {"state": "faster"}, "workflows are stopped or running"),
    ],
)
async def test_what_makes_no_sense_is_told_so(path: str, fields: dict[str, str], words: str, place: Place) -> None:
    asked = await run(place, question="Mend it?")
    async with place.client() as client:
        await log_in(client, place.token(role="noc"))
        answer = await post(client, path, run=asked.id, **fields)

    assert answer.status_code == 400
    assert words in answer.text


async def test_the_button_stops_all_workflows_of_the_tenant_and_lets_them_go_on(place: Place) -> None:
    async with place.client() as client:
        await log_in(client, place.token(role="noc"))
        before = (await client.get("/console/fragment/repairs")).text
        await post(client, "control", state="stopped", reason="storm <now>")
        during = (await client.get("/console/fragment/repairs")).text
        await post(client, "control", state="running")
        after = (await client.get("/console/fragment/repairs")).text

    assert "Workflows may run." in before
    assert "Stop all workflows" in before
    assert "All workflows are stopped: storm &lt;now&gt;." in during
    assert "Let workflows go on" in during
    assert "Workflows may run." in after
    assert [one["state"] for one in await kept(place, WORKFLOW_CONTROL.name)] == ["stopped", "running"]
