"""The one decision point: what cannot be asked, or answers nonsense, says no."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from convergedon.core import policy
from convergedon.core.errors import Forbidden, Misconfigured, Unavailable
from convergedon.core.policy import Bundle, Embedded, OpaServer, Policy, Subject

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


async def test_the_empty_question_is_refused() -> None:
    """Who says nothing may nothing."""
    answer = await Embedded(SHIPPED).evaluate({})

    assert answer["allow"] is False


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
