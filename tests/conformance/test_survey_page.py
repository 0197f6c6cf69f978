"""Who has the link of a survey answers one question, and gets nothing else; who has none gets nothing at all."""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from time import time
from typing import Any

import httpx
import pytest
from conftest import URL

from convergedon.core import logs, policy, settings
from convergedon.core.audit import KINDS as AUDIT_KINDS
from convergedon.core.audit import Audit
from convergedon.core.engines import Closed
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.policy import Embedded, Policy
from convergedon.core.store import Record
from convergedon.core.tokens import Verifier, issue
from convergedon.handlers.affected_parties import AFFECTED_PARTY
from convergedon.handlers.apis import APIS, KINDS
from convergedon.handlers.gateway import application
from convergedon.handlers.operations import Operations
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.handlers.resource import Resources
from convergedon.handlers.survey_page import Survey
from convergedon.handlers.surveys import Invitation, Links, links

ANSWERS = "/convergedon-api/survey/v1/surveyAnswer"
PAGE = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
COMMENT = "Frau Meier was <b>very</b> kind, call 0171 2345678"


@cache
def engine() -> Embedded:
    return Embedded(policy.read())


class Site:
    """The survey page of a gateway; ``whole``: with its APIs."""

    def __init__(self, folder: Path, whole: bool = False, **given: Any) -> None:
        self.settings = settings.load(data=folder, public_url=URL, **{"failure_limit": 0, **given})
        self.store, self.bus = MemoryStore([*KINDS, *AUDIT_KINDS]), MemoryBus()
        self.questions: list[bytes] = []
        self.rules = Policy(engine(), taken=lambda *told: self.questions.append(told[-1]))
        self.audit = Audit(self.store, self.bus, "test")
        self.resources = Resources(self.store, APIS, URL)
        self.links: Links = links(self.settings)

        async def readiness() -> tuple[bool, Mapping[str, Any]]:
            return True, {}

        operations = Operations(self.resources, self.rules, self.audit, self.settings)
        survey, apis = Survey(self.settings, self.resources, self.rules, self.audit), APIS if whole else ()
        app = application(apis, operations, Verifier(self.settings), readiness, 65_536, survey.routes)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url=URL)

    async def order(self, party: str = "northwind", tenant: str = "acme") -> Record:
        body = {"relatedParty": [{"id": party, "role": "customer"}], "productOrderItem": []}
        return await self.resources.create(PRODUCT_ORDER, tenant, body)

    def invitation(self, order: Record, party: str = "northwind") -> Invitation:
        return Invitation(order.tenant, party, order.kind, order.id, int(time()) + 600)

    def path(self, invitation: Invitation) -> str:
        return f"/survey/{self.links.write(invitation)}"

    async def ask(self, method: str, path: str, role: str, party: str = "", **given: Any) -> httpx.Response:
        token = issue(self.settings, "acme", role, party)
        return await self.client.request(method, path, headers={"Authorization": f"Bearer {token}"}, **given)

    async def answers(self) -> list[Record]:
        return await self.store.find("surveyAnswer", {})


@pytest.fixture
def site(tmp_path: Path) -> Site:
    logs.configure("gateway", "info")
    return Site(tmp_path)


class Form(HTMLParser):
    """What a browser finds on a page, and what it would send."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


async def test_a_customer_answers_on_a_page_that_needs_no_script(site: Site) -> None:
    path = site.path(site.invitation(await site.order()))
    page = await site.client.get(path, headers=PAGE)
    form = Form(page.text)
    done = await site.client.post(path, headers=PAGE, data={"score": "9", "comment": COMMENT})

    assert (page.status_code, done.status_code) == (200, 200)
    assert not form.of("script")
    style = page.text.partition("<style>")[2].partition("</style>")[0].encode()
    assert f"'sha256-{b64encode(sha256(style).digest()).decode()}'" in page.headers["content-security-policy"]
    assert [one["value"] for one in form.of("input")] == [str(score) for score in range(11)]
    assert form.of("html") == [{"lang": "en"}]
    assert {one["for"] for one in form.of("label") if "for" in one} == {one["id"] for one in form.of("textarea")}
    assert len(form.of("fieldset")) == len(form.of("legend")) == len(form.of("main")) == len(form.of("h1")) == 1
    assert "You answered 9 of 10." in done.text
    (kept,) = await site.answers()
    assert (kept.body["score"], kept.body["comment"], kept.facts["parties"]) == (9, COMMENT, ["northwind"])


async def test_the_page_says_what_it_is_about(site: Site) -> None:
    order = await site.order()
    body = {
        "status": "affected",
        "relatedParty": [{"id": "northwind", "role": "customer"}],
        "service": [{"id": "s1", "name": "Access <Berlin>"}],
        "affectedSince": "2026-02-20T09:31:04.220Z",
    }
    trouble = await site.resources.create(AFFECTED_PARTY, "acme", body)
    pages = [
        (await site.client.get(site.path(site.invitation(about)), headers=PAGE)).text for about in (order, trouble)
    ]

    assert f"This is about order {order.id}, which is completed." in pages[0]
    assert "the disturbance of Access &lt;Berlin&gt; that began at 2026-02-20T09:31:04.220Z." in pages[1]


async def test_answers_are_protected_against_the_browser_they_are_shown_in(site: Site) -> None:
    path = site.path(site.invitation(await site.order()))
    for answer in (await site.client.get(path, headers=PAGE), await site.client.get("/survey/a.b", headers=PAGE)):
        rules = answer.headers["content-security-policy"]

        assert rules.startswith("default-src 'none'; style-src 'sha256-")
        assert "frame-ancestors 'none'" in rules
        assert "unsafe" not in rules
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-trace-id"]


async def test_the_same_as_json(site: Site) -> None:
    path = site.path(site.invitation(await site.order()))
    asked = await site.client.get(path)
    first = await site.client.post(path, json={"score": 3, "comment": "slow"})
    second = await site.client.post(path, json={"score": 10})

    assert asked.json()["notificationType"] == "orderCompleted"
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert second.json().keys() == {"id", "score", "answeredAt"}


async def test_the_last_answer_counts_and_replaces_what_was_said_before(site: Site) -> None:
    path = site.path(site.invitation(await site.order()))
    await site.client.post(path, json={"score": 3, "comment": "slow"})
    await site.client.post(path, json={"score": 10})

    (kept,) = await site.answers()
    assert (kept.body["score"], "comment" in kept.body) == (10, False)


async def test_what_is_no_link_of_ours_gets_nothing_and_learns_nothing(site: Site) -> None:
    """Forged, expired, of another customer, another tenant, another kind, of what is gone: all the same."""
    order = await site.order()
    good = site.invitation(order)
    other = Links([b"x" * 32]).write(good)
    gone = await site.order()
    await site.resources.delete(PRODUCT_ORDER, gone)
    paths = [
        "/survey/a.b",
        f"/survey/{other}",
        f"/survey/{site.links.write(good)[:-1]}",
        site.path(replace(good, until=int(time()) - 1)),
        site.path(replace(good, customer="contoso")),
        site.path(replace(good, tenant="globex")),
        site.path(replace(good, kind="customerBill")),
        site.path(site.invitation(gone)),
    ]
    told = set()
    for path in paths:
        for headers in (PAGE, {}):
            for answer in (
                await site.client.get(path, headers=headers),
                await site.client.post(path, headers=headers, data={"score": "0"}),
            ):
                assert answer.status_code == 404, path
                told.add((bool(headers), answer.text))

    assert len(told) == 2
    assert await site.answers() == []
    assert all(secret not in text for _, text in told for secret in ("northwind", "acme", order.id))


async def test_the_policy_is_asked_and_says_no_by_default(tmp_path: Path) -> None:
    """In whose name is what the link says; the answer itself it is not told."""
    site = Site(tmp_path)
    path = site.path(site.invitation(await site.order()))
    site.rules.swap(Closed("no policies were read yet"))
    closed = await site.client.post(path, json={"score": 1})
    bundle = policy.read()
    roles = json.loads(json.dumps(bundle.data["roles"]))
    del roles["respondent"]
    site.rules.swap(Embedded(replace(bundle, data={**bundle.data, "roles": roles})))
    refused = await site.client.post(path, json={"score": 1})

    assert (closed.status_code, refused.status_code) == (503, 403)
    assert await site.answers() == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"score": 11}, 400),
        ({"score": -1}, 400),
        ({"score": True}, 400),
        ({"score": "9"}, 400),
        ({"score": 9.5}, 400),
        ({}, 400),
        ([], 400),
        ({"score": 9, "tenant": "globex"}, 400),
        ({"score": 9, "comment": ["a"]}, 400),
        ({"score": 9, "comment": "x" * 2_001}, 400),
        ({"score": 9, "comment": "x" * 20_000}, 413),
    ],
)
async def test_what_is_no_answer_is_refused_in_words_that_do_not_repeat_it(site: Site, body: Any, status: int) -> None:
    path = site.path(site.invitation(await site.order()))
    answer = await site.client.post(path, json=body)

    assert answer.status_code == status
    assert "xxx" not in answer.text
    assert await site.answers() == []


async def test_a_form_that_lacks_the_number_comes_back_with_what_was_written(site: Site) -> None:
    path = site.path(site.invitation(await site.order()))
    page = await site.client.post(path, headers=PAGE, data={"comment": COMMENT})

    assert page.status_code == 400
    assert 'role="alert"' in page.text
    assert "Frau Meier was &lt;b&gt;very&lt;/b&gt; kind" in page.text


@pytest.mark.parametrize(("type_", "body"), [("text/plain", b"9"), ("", b"9"), ("multipart/form-data", b"9")])
async def test_other_bodies_are_not_read(site: Site, type_: str, body: bytes) -> None:
    path = site.path(site.invitation(await site.order()))

    answer = await site.client.post(path, content=body, headers={"Content-Type": type_})

    assert answer.status_code == 415


async def test_who_guesses_is_held_up_and_a_link_is_used_so_often(tmp_path: Path) -> None:
    site = Site(tmp_path, failure_limit=1)
    order = await site.order()
    guessed = [(await site.client.get(f"/survey/a.{number}")).status_code for number in range(4)]
    assert guessed == [404, 404, 429, 429]
    held = await site.client.get(site.path(site.invitation(order)))
    assert (held.status_code, held.headers["retry-after"]) == (429, "1")

    other = Site(tmp_path)
    path = other.path(other.invitation(await other.order()))
    often = [(await other.client.get(path)).status_code for _ in range(12)]
    assert set(often[:10]) == {200}
    assert often[-1] == 429


async def test_comments_are_read_where_they_are_kept_and_nowhere_else(
    site: Site, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """In no log, no event, no question to the policy and no audit record; and erased they are gone."""
    caplog.set_level(logging.DEBUG)
    path = site.path(site.invitation(await site.order()))
    await site.client.post(path, headers=PAGE, data={"score": "2", "comment": COMMENT})
    (kept,) = await site.answers()
    told = "".join(json.dumps(message.body) for one in await site.store.unsent(-1) for message in one.messages)
    await site.audit.start()
    await site.audit.stop()
    records = json.dumps([dict(one.body) for one in await site.store.find("audit", {})])

    assert kept.body["comment"] == COMMENT
    assert len(site.questions) == 1
    for said in (told, records, caplog.text, "".join(capfd.readouterr()), *map(bytes.decode, site.questions)):
        assert "Meier" not in said
        assert path.rpartition("/")[2] not in said
    assert "SurveyAnswerCreateEvent" in told
    assert "call.create" in records


async def test_a_customer_sees_and_erases_its_own_answers_alone(tmp_path: Path) -> None:
    site = Site(tmp_path, whole=True)
    path = site.path(site.invitation(await site.order()))
    await site.client.post(path, json={"score": 2, "comment": COMMENT})
    (kept,) = await site.answers()

    for method in ("GET", "DELETE"):
        other = await site.ask(method, f"{ANSWERS}/{kept.id}", "customer", "contoso")
        assert other.status_code == 404
    assert (await site.ask("DELETE", f"{ANSWERS}/{kept.id}", "csr")).status_code == 403
    mine = await site.ask("GET", f"{ANSWERS}/{kept.id}", "customer", "northwind")
    assert (mine.json()["score"], mine.json()["comment"]) == (2, COMMENT)
    assert (await site.ask("DELETE", f"{ANSWERS}/{kept.id}", "customer", "northwind")).status_code == 204
    assert await site.answers() == []
