"""Requests of workflows say who makes them by a secret that nobody else is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from scene import STORE_KINDS, Scene, pumped
from test_workflow_line import definition, run_of
from websink import sinking

from convergedon.core.errors import Misconfigured
from convergedon.core.memory import MemoryStore
from convergedon.mediation.workflows import secrets
from convergedon.mediation.workflows.definitions import Definition

TOKEN, PASSWORD = "t0ken-of-the-tickets", "p4ss-of-billing"
FILE = """
secrets:
  tickets: {tokenFile: tickets.token}
  billing: {username: gateway, passwordEnv: BILLING_PASSWORD}
"""
BEARER, BASIC = {"bearer": {"use": "tickets"}}, {"basic": {"use": "billing"}}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tickets.token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("BILLING_PASSWORD", PASSWORD)
    file = tmp_path / "secrets.yaml"
    file.write_text(FILE)
    return file


def asking(url: str, authentication: Mapping[str, Any], method: str = "get") -> Definition:
    endpoint = {"uri": url, **({"authentication": authentication} if authentication else {})}
    document = dict(definition({"tell": {"call": "http", "with": {"method": method, "endpoint": endpoint}}}).document)
    document["use"] = {"secrets": ["tickets", "billing"]}
    return Definition(document)


async def told(scene: Scene) -> str:
    """The reason of the run's end, or nothing where it ended well."""
    await scene.say("fault")
    await scene.pump()
    return str((await run_of(scene)).body.get("reason", ""))


def audited(scene: Scene) -> list[Any]:
    """What is recorded from now on."""
    found: list[Any] = []
    record = scene.audit.record

    def told(*said: Any, **detail: Any) -> None:
        found.append((said, detail))
        record(*said, **detail)

    scene.audit.record = told  # type: ignore[method-assign]
    return found


async def everything(scene: Scene) -> str:
    """All that is kept and was told on the bus."""
    kept = [vars(record) for kind in STORE_KINDS for record in await scene.store.find(kind.name, {})]
    return repr((kept, [vars(message) for message in scene.bus.messages]))


@pytest.mark.parametrize(
    ("authentication", "header"),
    [
        (BEARER, f"Bearer {TOKEN}"),
        (BASIC, "Basic Z2F0ZXdheTpwNHNzLW9mLWJpbGxpbmc="),
        ({}, None),
    ],
)
async def test_the_service_is_told_who_asks_and_nobody_else_is(
    authentication: Mapping[str, Any], header: str | None, kept: Path, tmp_path: Path
) -> None:
    """Though the service repeats the whole request in its answer, which the run keeps."""
    async with sinking() as sink:
        asked = asking(f"{sink.url}/tickets", authentication)
        with structlog.testing.capture_logs() as logged:
            async with pumped(tmp_path, MemoryStore(STORE_KINDS), workflows=[asked], workflow_secrets=kept) as scene:
                recorded = audited(scene)
                reason = await told(scene)
                run = await run_of(scene)
                found = await everything(scene) + repr((recorded, logged))

    assert (reason, run.body["state"]) == ("", "completed")
    assert sink.got[0].headers.get("authorization") == header
    assert run.facts["told"]["do/0/tell"]["output"]["id"] == "1"
    assert recorded
    assert [secret for secret in (TOKEN, PASSWORD, "Z2F0ZXdheTpwNHNz") if secret in found] == []


async def test_a_new_token_is_in_force_at_once(kept: Path, tmp_path: Path) -> None:
    async with sinking() as sink:
        asked = asking(f"{sink.url}/tickets", BEARER)
        async with pumped(tmp_path, workflows=[asked], workflow_secrets=kept) as scene:
            await told(scene)
            (tmp_path / "tickets.token").write_text("another")
            await scene.say("fault", key="b")
            await scene.pump()

    assert [one.headers["authorization"] for one in sink.got] == [f"Bearer {TOKEN}", "Bearer another"]


@pytest.mark.parametrize(
    ("url", "authentication", "words"),
    [
        ("http://192.0.2.7/tickets", BEARER, "192.0.2.7 is not told who we are without TLS: use https"),
        ("SINK", {"bearer": {"use": "billing"}}, "bearer needs a token"),
        ("SINK", {"basic": {"use": "tickets"}}, "basic needs a username and a password"),
        ("SINK", {"bearer": {"use": "nobody"}}, "there is no secret nobody"),
    ],
)
async def test_who_cannot_be_named_safely_asks_nothing(
    url: str, authentication: Mapping[str, Any], words: str, kept: Path, tmp_path: Path
) -> None:
    async with sinking() as sink:
        asked = asking(url.replace("SINK", sink.url), authentication)
        async with pumped(tmp_path, workflows=[asked], workflow_secrets=kept) as scene:
            reason = await told(scene)

    assert words in reason
    assert TOKEN not in reason
    assert sink.got == []


async def test_a_refused_request_tells_no_secret(kept: Path, tmp_path: Path) -> None:
    async with sinking() as sink:
        sink.statuses = [403]
        async with pumped(tmp_path, workflows=[asking(sink.url, BEARER)], workflow_secrets=kept) as scene:
            reason = await told(scene)

    assert reason == "communication: 127.0.0.1 answered 403"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("secrets: {a: {}}", "give one of tokenFile, tokenEnv, passwordFile and passwordEnv"),
        ("secrets: {a: {tokenFile: x, tokenEnv: Y}}", "give one of tokenFile"),
        ("secrets: {a: {username: me, tokenEnv: HOME}}", "a username is given with a password"),
        ("secrets: {a: {passwordEnv: HOME}}", "a username is given with a password"),
        ("secrets: {a: {token: s3cret}}", "this key is not known"),
        ("secrets: {a: {tokenFile: nowhere}}", "its file cannot be read"),
        ("secrets: {a: {tokenEnv: NOT_SET_AT_ALL}}", "there is nothing there"),
        ("secrets: {a: {tokenFile: two}}", "it has characters that no header can carry"),
    ],
)
def test_a_file_of_secrets_that_is_wrong_is_one_sentence_without_them(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "two").write_text("one\nX-Other: two")
    file = tmp_path / "secrets.yaml"
    file.write_text(text)

    with pytest.raises(Misconfigured, match=words) as told:
        secrets.names(file)
    assert "secrets.yaml" in str(told.value)
    assert "s3cret" not in str(told.value)


def test_a_credential_is_not_shown(kept: Path) -> None:
    known = secrets.credential(kept, BEARER)

    assert TOKEN not in repr(known)
    assert known.hidden(orjson.dumps({"a": TOKEN}).decode()) == '{"a":"(secret)"}'


def test_the_names_are_known(kept: Path) -> None:
    assert secrets.names(kept) == {"tickets", "billing"}
    assert secrets.names(None) == frozenset()
