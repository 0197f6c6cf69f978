"""The one decision point: what cannot be asked, or answers nonsense, says no."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from time import time
from typing import Any
from uuid import UUID

import orjson
import pytest

from convergedon.core import engines, policy, settings
from convergedon.core.commands import system
from convergedon.core.errors import Forbidden, Misconfigured, Unavailable
from convergedon.core.policy import Bundle, Closed, Decision, Embedded, OpaServer, Policy, Subject

CSR = Subject("vendor", "acme", ("csr",))
SHIPPED = policy.read()


class Says:
    """An engine that gives one answer to every question."""

    revision = "test"

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def evaluate(self, question: Mapping[str, Any]) -> Any:
        return self._answer


@pytest.mark.parametrize(("name", "passed"), policy.run_tests(SHIPPED))
def test_shipped_policy(name: str, passed: bool) -> None:
    """Each rule test_* beside the policies holds in the embedded engine."""
    assert passed, name


def test_a_failing_policy_test_is_told_from_a_passing_one() -> None:
    """A test that is false, undefined or broken has not passed."""
    text = "package a_test\n\ntest_good if true\n\ntest_false if 1 == 2\n\ntest_undefined if input.nothing\n"

    assert policy.run_tests(Bundle({"a_test.rego": text}, {})) == [
        ("a_test.test_false", False),
        ("a_test.test_good", True),
        ("a_test.test_undefined", False),
    ]


def test_what_decides_knows_no_tests() -> None:
    """They would make each decision slower; the revision is that of the whole bundle."""
    engine = engines.compiled(SHIPPED)

    assert engine.revision == SHIPPED.revision
    assert engine.ask("data.main.decision", {})["allow"] is False
    assert Embedded(SHIPPED).ask("data.tmf.authz_test.test_csr_creates_orders", {}) is True
    with pytest.raises(Unavailable, match="not a valid rule path"):
        engine.ask("data.tmf.authz_test.test_csr_creates_orders", {})


async def test_the_empty_question_is_refused() -> None:
    """Who says nothing may nothing."""
    answer = await Embedded(SHIPPED).evaluate({})

    assert answer["allow"] is False


CHANCE = """package main

decision := {"allow": true, "reasons": [uuid.rfc4122(sprintf("%v %v", [input.action, input.environment.time]))]}
"""


def question(action: str = "list", second: int = 1, **more: Any) -> Mapping[str, Any]:
    return {"action": action, "body": None, "before": None, "environment": {"time": second}, **more}


async def test_the_same_question_within_a_second_is_answered_once() -> None:
    """A rule that is drawn by lot shows when it is: in the next second, and for another question, but not for one that
    differs only in what the rule does not read.
    """
    engine = Embedded(Bundle({"main.rego": CHANCE}, {}))
    asked = [question(), question(second=2), question("retrieve")]
    first = [await engine.evaluate(each) for each in asked]
    again = [await engine.evaluate(each) for each in asked]
    content = [await engine.evaluate(question(body={"externalId": name})) for name in ("one", "two")]

    assert first == again
    assert len({answer["reasons"][0] for answer in first}) == 3
    assert content == [first[0], first[0]]


async def test_what_is_remembered_is_bounded_and_goes_with_its_policies() -> None:
    """However many ask, memory does not grow; other policies answer at once."""
    engine = Embedded(Bundle({"main.rego": CHANCE}, {}))
    before = await engine.evaluate(question())
    for second in range(2, engines.MOST_ANSWERS + 2):
        await engine.evaluate(question(second=second))
    rules = Policy(engine)
    allowed = await rules.decide(CSR, "delete", {"kind": "alarm", "tenant": "acme"})
    rules.swap(Embedded(SHIPPED))
    refused = await rules.decide(CSR, "delete", {"kind": "alarm", "tenant": "acme"})

    assert await engine.evaluate(question()) != before
    assert (allowed.allow, refused.allow) == (True, False)


async def test_a_refusal_has_its_reasons_and_an_id() -> None:
    """The caller is told why, and where it is recorded."""
    decision = await Policy(Embedded(SHIPPED)).decide(CSR, "delete", {"kind": "alarm", "tenant": "acme"})

    with pytest.raises(Forbidden) as refused:
        decision.require()
    assert refused.value.reasons == ("none of the roles [csr] may delete a alarm",)
    assert refused.value.decision == decision.id


async def test_every_decision_has_an_id_of_its_own() -> None:
    """Two calls are two decisions in the audit record."""
    asked = Policy(Embedded(SHIPPED))
    first, second = [await asked.decide(CSR, "list", {"kind": "productOrder", "tenant": "acme"}) for _ in range(2)]

    assert first.allow
    assert first.id != second.id
    assert first.revision == SHIPPED.revision


@pytest.mark.parametrize(
    "answer",
    [
        None,
        True,
        "yes",
        [],
        {},
        {"allow": "true"},
        {"allow": 1},
        {"allow": None},
        {"reasons": []},
        {"allow": True, "reasons": None},
        {"allow": True, "reasons": 5},
        {"allow": True, "reasons": "because"},
        {"allow": True, "reasons": [], "filter": "parties"},
        {"allow": True, "reasons": [], "filter": ["parties"]},
        {"allow": True, "reasons": [], "filter": {"parties": None}},
        {"allow": True, "reasons": [], "filter": {"parties": "northwind"}},
        {"allow": True, "reasons": [], "filter": {"parties": [7]}},
        {"allow": True, "reasons": [], "filter": {"party": ["northwind"]}},
        {"allow": True, "reasons": [], "filter": {"tenant": "globex"}},
        {"allow": True, "reasons": [], "filter": {"tenant": None}},
        {"allow": True, "reasons": [], "obligations": {"redact": ["relatedParty.name"]}},
        {"allow": True, "reasons": [], "obligations": {"notBefore": 1}},
    ],
)
async def test_nonsense_is_no_decision(answer: Any) -> None:
    """An answer of another form must neither allow nor show more than it says."""
    with pytest.raises(Unavailable, match="no decision"):
        await Policy(Says(answer)).decide(CSR, "list", {"kind": "alarm"})


@pytest.mark.parametrize("filter", [None, {}, {"parties": []}, {"parties": ["northwind"]}])
async def test_a_filter_is_handed_on(filter: Any) -> None:
    """The subject's own tenant whatever is said, and a list of parties: an empty one shows nothing."""
    decision = await Policy(Says({"allow": True, "reasons": [], "filter": filter})).decide(CSR, "list", {})

    assert decision.filter == {"tenant": "acme", **(filter or {})}


async def test_an_engine_that_fails_is_unavailable() -> None:
    """A policy that cannot be asked says no, and says that it could not be asked."""
    engine = Embedded(Bundle({"main.rego": "package main\n\ndecision := 1 / input.zero\n"}, {}))

    with pytest.raises(Unavailable):
        await Policy(engine).decide(CSR, "list", {})


async def test_a_server_that_is_away_is_unavailable() -> None:
    """The same for an Open Policy Agent that does not answer."""
    server = OpaServer("http://127.0.0.1:9", wait=1)

    with pytest.raises(Unavailable, match="policy server"):
        await Policy(server).decide(CSR, "list", {})

    await server.close()


@pytest.mark.parametrize(
    "url", ["opa:8181", "ftp://opa", "http://", "http://opa:x", "http://opa:99999", "http://opa/v1/data", "http://[::1"]
)
def test_an_address_of_a_policy_server_that_is_none_is_refused(url: str) -> None:
    """What would be asked nowhere, or in another place than was meant, is one sentence at the start."""
    with pytest.raises(Misconfigured, match="CONVERGEDON_OPA_URL must be"):
        OpaServer(url)


@pytest.mark.parametrize(
    ("url", "where"), [("http://opa", "opa:8181"), ("https://opa:443/", "opa:443"), ("http://[::1]:1", "[::1]:1")]
)
def test_a_decision_names_its_server(url: str, where: str) -> None:
    """The revision of what a server decides is the server: its policies are its own."""
    assert OpaServer(url).revision == f"server {where}"


@pytest.mark.parametrize("text", ["package main\n\nallow if {", "allow := true\n"])
def test_a_policy_that_does_not_compile_is_the_operators_to_mend(text: str) -> None:
    """At the start, not at the first request."""
    with pytest.raises(Misconfigured, match="does not compile"):
        Embedded(Bundle({"main.rego": text}, {}))


async def test_a_policy_without_the_question_is_no_answer() -> None:
    """Policies that say other things than decision allow nothing; what is said of it is one line."""
    with pytest.raises(Unavailable) as refused:
        await Policy(Embedded(Bundle({"main.rego": "package main\n\nallow := true\n"}, {}))).decide(CSR, "list", {})

    assert "\n" not in str(refused.value)


def test_a_folder_without_policies_is_refused(tmp_path: Path) -> None:
    """An empty folder must not mean that everything, or nothing, is allowed."""
    with pytest.raises(Misconfigured, match="no policies"):
        policy.read(tmp_path)


def test_a_link_that_leads_back_is_not_followed(tmp_path: Path) -> None:
    """A folder that holds a link to itself is read once."""
    (tmp_path / "main.rego").write_text("package main\n")
    (tmp_path / "again").symlink_to(tmp_path)

    assert list(policy.read(tmp_path).policies) == ["main.rego"]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A slip in the path is one sentence."""
    with pytest.raises(Misconfigured, match="absent"):
        policy.read(tmp_path / "absent")


def test_data_that_is_not_json_is_refused(tmp_path: Path) -> None:
    """The sentence names the file."""
    (tmp_path / "main.rego").write_text("package main\n")
    (tmp_path / "data.json").write_text("{")

    with pytest.raises(Misconfigured, match=r"data\.json is not JSON"):
        policy.read(tmp_path)


def test_the_revision_changes_with_every_word(tmp_path: Path) -> None:
    """A decision can be led back to the policies that made it."""
    (tmp_path / "main.rego").write_text("package main\n")
    first = policy.read(tmp_path).revision
    (tmp_path / "data.json").write_text('{"limit": 1}')
    second = policy.read(tmp_path).revision
    (tmp_path / "data.json").write_text('{"limit": 2}')

    assert len({first, second, policy.read(tmp_path).revision}) == 3
    assert policy.read(tmp_path).revision == policy.read(tmp_path).revision


# --- the engine in force, and what is told of a decision


async def test_the_next_question_is_put_to_the_next_engine() -> None:
    """And one that is under way is answered by the engine that it was put to, with its revision."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Says):
        revision = "old"

        async def evaluate(self, question: Mapping[str, Any]) -> Any:
            asked.set()
            await go_on.wait()
            return self._answer

    rules = Policy(Slow({"allow": False, "reasons": ["old"]}))
    under_way = asyncio.create_task(rules.decide(CSR, "list", {"kind": "alarm"}))
    await asked.wait()
    rules.swap(Says({"allow": True}))
    after = await rules.decide(CSR, "list", {"kind": "alarm"})
    go_on.set()
    before = await under_way

    assert (before.allow, before.revision) == (False, "old")
    assert (after.allow, after.revision) == (True, "test")
    assert rules.revision == "test"


async def test_a_closed_policy_says_why() -> None:
    rules = Policy(Embedded(SHIPPED))
    rules.swap(Closed("no policies (*.rego) in /etc/policies"))

    with pytest.raises(Unavailable, match="no policies"):
        await rules.ping()
    assert rules.revision == ""


async def test_the_hash_of_a_question_is_one_under_the_key() -> None:
    """Every process with the key makes the same, and nobody without it can try out what was asked."""
    told: list[tuple[Decision, str, bytes]] = []
    rules = Policy(Embedded(SHIPPED), b"k" * 32, lambda *one: told.append(one))
    decision = await rules.decide(CSR, "list", {"kind": "productOrder", "tenant": "acme"})
    ((logged, tenant, question),) = told

    assert (logged, tenant) == (decision, "acme")
    assert decision.input == hmac.digest(b"k" * 32, question, "sha256").hex()
    assert decision.input != hashlib.sha256(question).hexdigest()
    other = await Policy(Embedded(SHIPPED)).decide(CSR, "list", {"kind": "productOrder", "tenant": "acme"})
    assert other.input not in (decision.input, hashlib.sha256(question).hexdigest())


async def test_an_id_says_when_the_decision_was_made() -> None:
    """To the millisecond; and many made in one differ."""
    rules = Policy(Says({"allow": True}))
    made = [(await rules.decide(CSR, "list", {})).id for _ in range(500)]

    assert len(set(made)) == 500
    assert all(abs((policy.made(id) or 0) - time()) < 60 for id in made)
    assert [policy.made(text) for text in ("", "7", "x" * 32, "0" * 12 + "4" + "0" * 19)] == [None] * 4
    assert UUID(made[0]).version == 7


@pytest.mark.parametrize(
    ("callback", "seen"),
    [
        ("https://bss:s3cret@example.org:8443/events?token=s3cret#s3cret", "https://example.org:8443/events"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("http://[s3cret", ""),
        ("s3cret", ""),
    ],
)
async def test_policies_see_of_a_callback_where_it_leads(callback: str, seen: str) -> None:
    """Whatever else stands in it may be a secret; the registration itself keeps it."""
    told: list[bytes] = []
    rules = Policy(Says({"allow": True}), taken=lambda _, __, question: told.append(question))
    body = {"callback": callback}
    await rules.decide(CSR, "create", {"kind": "hub"}, body)

    assert orjson.loads(told[0])["body"] == {"callback": seen}
    assert body == {"callback": callback}


@pytest.mark.parametrize(
    ("provenance", "named"),
    [
        ({"bundles": {"b": {"revision": "2"}, "a": {"revision": "1"}}}, "a 1, b 2"),
        ({"bundles": {"a": {}}}, ""),
        ({"version": "1"}, ""),
        ("x", ""),
        (None, ""),
    ],
)
def test_a_server_may_say_which_bundles_it_answers_from(provenance: Any, named: str) -> None:
    assert engines._bundles(provenance) == named


def test_up_says_that_nothing_is_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs all the same; with policies that can be used it says nothing."""
    system._warn(settings.load(policies=tmp_path))
    system._warn(settings.load())

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"no policies (*.rego) in {tmp_path}: nothing is allowed until")


def test_an_engine_is_let_go_where_it_was_made() -> None:
    """Whichever thread finds that nobody uses it: regorus refuses in any other, and would keep it for ever."""
    raised: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, raised.append
    try:
        unused = [Embedded(SHIPPED)]
        thread = Thread(target=unused.clear)
        thread.start()
        thread.join()
        Embedded(SHIPPED)
    finally:
        sys.unraisablehook = before

    assert [told.exc_value for told in raised] == []
