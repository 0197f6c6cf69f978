"""Nobody gets in without a token: every route of the whole application is tried, found where the application has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask
from starlette.routing import BaseRoute, Mount, Route

from convergedon.core import bundles, settings
from convergedon.core.audit import KIND, Audit
from convergedon.core.engines import Embedded
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.policy import Policy
from convergedon.core.tokens import Verifier, issue
from convergedon.handlers.apis import APIS, KINDS
from convergedon.handlers.console import mounts
from convergedon.handlers.console.bridge import Bridge
from convergedon.handlers.console.door import Door
from convergedon.handlers.console.pages import site
from convergedon.handlers.gateway import application
from convergedon.handlers.operations import Operations
from convergedon.handlers.resource import Resources
from convergedon.handlers.survey_page import Survey
from convergedon.openapi import document

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "QUERY")
OPEN = {
    "/healthz": "who watches a process has no token",
    "/readyz": "nor has a load balancer",
    "/console": "leads to the login",
    "/console/login": "where a token is given",
    "/console/static/console.css": "the login's looks",
    **{f"{api.base}/openapi.json": "a document" for api in APIS},
    **{f"{api.base}/ui": "a document" for api in APIS},
}
"""What may be read without a token, each with its reason."""
STRANGER = ("203.0.113.9", 4711)


class Built:
    def __init__(self, data: Path, **given: Any) -> None:
        self.settings = settings.load(data=data, **{"failure_limit": 0, **given})
        store, bus = MemoryStore([*KINDS, KIND]), MemoryBus()
        rules, verifier, writer = Policy(Embedded(bundles.read())), Verifier(self.settings), Audit(store, bus, "test")
        operations = Operations(Resources(store, APIS, self.settings.url), rules, writer, self.settings)

        async def readiness() -> tuple[bool, Mapping[str, Any]]:
            return True, {}

        survey = Survey(self.settings, Resources(store, APIS, self.settings.url), rules, writer)
        self.beside: list[BaseRoute] = [*mounts(self.settings, store, bus, rules, verifier, writer), *survey.routes]
        self.console: Flask = site(self.settings, store, bus, Door(rules, verifier, writer), Bridge())
        self.application: Any = application(
            APIS,
            operations,
            verifier,
            readiness,
            1_000_000,
            self.beside,
            metrics_token=self.settings.metrics_token.get_secret_value(),
        )

    def client(self, address: tuple[str, int] = STRANGER) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.application, client=address)
        return httpx.AsyncClient(transport=transport, base_url="http://gateway")

    def paths(self) -> list[str]:
        """Every path that the application knows, with something for each parameter."""
        found = {path for api in APIS for path in of_api(api.base, document(api.document))}
        found |= set(of_routes(self.application._app._beside.routes))
        found |= {f"/console{filled(rule.rule)}" for rule in self.console.url_map.iter_rules()}
        return sorted(found)


def of_api(base: str, whole: Mapping[str, Any]) -> Iterator[str]:
    for path in whole["paths"]:
        yield base + filled(path.replace("{", "<").replace("}", ">"))


def of_routes(routes: list[BaseRoute]) -> Iterator[str]:
    for route in routes:
        if isinstance(route, Route):
            yield route.path
        elif isinstance(route, Mount):
            yield f"{route.path}/anything"


def filled(rule: str) -> str:
    known = {"<path:filename>": "console.css", "<name>": "orders", "<kind>": "productOrder"}
    for name, value in known.items():
        rule = rule.replace(name, value)
    return "/".join("1" if part.startswith("<") else part for part in rule.split("/"))


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return Built(tmp_path)


def is_shut(path: str, answer: httpx.Response) -> bool:
    """A refusal, or for a browser the way to the login; a form of nobody's is refused as such."""
    if answer.status_code == 302:
        return answer.headers["location"].partition("?")[0] == "/console/login"
    return answer.status_code in (401, 404, 405) or (path.startswith("/console") and answer.status_code == 403)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer x.y.z"},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {"Cookie": "convergedon_console=eyJpZCI6ImFkbWluIn0.x.y"},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
    ids=["nothing", "empty", "no token", "nonsense", "a password", "a session", "a proxy"],
)
async def test_without_a_token_nothing_is_answered(built: Built, headers: dict[str, str]) -> None:
    """By any method, with nothing, with nonsense, with somebody's idea of a session."""
    paths, let_in = built.paths(), []
    async with built.client() as client:
        for path in paths:
            for method in METHODS:
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code < 500, (method, path)
                if path in OPEN and method in ("GET", "HEAD"):
                    assert answer.status_code in (200, 302, 307), (method, path, answer.text)
                elif path in OPEN and answer.status_code == 200:
                    assert method == "OPTIONS", (method, path)  # which tells the methods alone
                elif not is_shut(path, answer) and not (method == "OPTIONS" and not answer.content):
                    let_in.append((method, path, answer.status_code))

    assert let_in == []
    assert len(paths) > 100
    assert OPEN.keys() - {"/console"} <= set(paths)


async def test_every_form_of_the_console_needs_its_own_value(built: Built) -> None:
    """Each page that takes a POST refuses one that another site could have made, with a session as without."""
    posts = [
        f"/console{filled(rule.rule)}" for rule in built.console.url_map.iter_rules() if "POST" in (rule.methods or ())
    ]
    async with built.client() as client:
        page = await client.get("/console/login")
        form = page.text.partition('name="form" value="')[2].partition('"')[0]
        entered = await client.post(
            "/console/login", data={"form": form, "token": issue(built.settings, "acme", "admin")}
        )
        for path in posts:
            for data in ({}, {"form": ""}, {"form": form}):
                answer = await client.post(path, data=data)
                assert answer.status_code == 403, (path, data)

    assert entered.status_code == 302
    assert {"/console/login", "/console/logout"} <= set(posts)


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        (("127.0.0.1", 1), {}, 200),
        (("::1", 1), {}, 200),
        (("127.0.0.1", 1), {"X-Forwarded-For": "127.0.0.1"}, 401),
        (("127.0.0.1", 1), {"Forwarded": "for=127.0.0.1"}, 401),
        (STRANGER, {}, 401),
        (("unknown", 1), {}, 401),
    ],
)
async def test_metrics_are_for_this_machine(
    built: Built, address: tuple[str, int], headers: dict[str, str], status: int
) -> None:
    """Where there is no token for them; a proxy here speaks for others."""
    async with built.client(address) as client:
        answer = await client.get("/metrics", headers=headers)

    assert answer.status_code == status


async def test_metrics_may_have_a_token(tmp_path: Path) -> None:
    """Then it alone counts, from wherever."""
    built = Built(tmp_path, metrics_token="s3cret-scraper")
    async with built.client() as client:
        good = await client.get("/metrics", headers={"Authorization": "Bearer s3cret-scraper"})
        bad = await client.get("/metrics", headers={"Authorization": "Bearer other"})
    async with built.client(("127.0.0.1", 1)) as client:
        none = await client.get("/metrics")

    assert [answer.status_code for answer in (good, bad, none)] == [200, 401, 401]
    assert "convergedon_http_requests_total" in good.text
    assert "s3cret" not in bad.text


async def test_answers_of_the_apis_are_kept_nowhere(built: Built) -> None:
    """What a token opened is in no cache, and no browser takes it for a page."""
    token = issue(built.settings, "acme", "csr")
    async with built.client() as client:
        answer = await client.get(
            f"{APIS[0].base}/{APIS[0].resources[0].name}", headers={"Authorization": f"Bearer {token}"}
        )
        page = await client.get(f"{APIS[0].base}/ui")

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert len(page.headers.get_list("content-security-policy")) == 1


async def test_bad_tokens_are_counted_by_address(tmp_path: Path) -> None:
    """One address that guesses is told to wait, at every API alike; another one is served."""
    built = Built(tmp_path, failure_limit=1)
    path = f"{APIS[0].base}/{APIS[0].resources[0].name}"
    bad = {"Authorization": "Bearer x.y.z"}
    async with built.client() as client:
        before = [(await client.get(path, headers=bad)).status_code for _ in range(10)]
        refused = await client.get(f"{APIS[1].base}/{APIS[1].resources[0].name}", headers=bad)
    good = {"Authorization": f"Bearer {issue(built.settings, 'acme', 'admin')}"}
    async with built.client(("198.51.100.7", 1)) as client:
        served = await client.get(path, headers=good)

    assert before == [401] * 10
    assert (refused.status_code, refused.json()["code"], served.status_code) == (429, "ERR429", 200)
    assert int(refused.headers["retry-after"]) >= 1
