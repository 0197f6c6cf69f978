"""What `policy check` finds in a bundle: each slip is named with its place, and the shipped policies have none."""

from __future__ import annotations

from typing import Any

import pytest

from convergedon.core import bundles, checking, rules
from convergedon.core.bundles import Bundle
from convergedon.core.errors import Misconfigured
from convergedon.core.policy import OTHER_KINDS
from convergedon.handlers.apis import KINDS

ALL = {kind.name for kind in KINDS} | OTHER_KINDS
MAIN = """package main

default decision := {"allow": false, "reasons": ["no policy answered"], "filter": {}}

decision := {"allow": allow, "reasons": sort(reasons), "filter": {}}

default allow := false

allow if {
	count(reasons) == 0
	input.action == "list"
}

reasons := data.tmf.night.reasons
"""
NIGHT = """package tmf.night

reasons contains "it is night" if input.night

reasons contains sprintf("%v is too much", [input.much]) if input.much > 5
"""
TEST = """package tmf.night_test

import data.main

test_day if main.decision.allow with input as {"action": "list"}

test_night if not main.decision.allow with input as {"action": "list", "night": true}

test_much if not main.decision.allow with input as {"action": "list", "much": 6}
"""
DATA: dict[str, Any] = {"roles": {"noc": {"alarm": ["*"], "*": ["list"]}}}


def made(data: dict[str, Any] | None = None, **texts: str) -> Bundle:
    """The good bundle with other texts: main, night, night_test, or a path with / as __."""
    paths = {"main": "main.rego", "night": "tmf/night.rego", "night_test": "tmf/night_test.rego"}
    given = {paths.get(name, f"{name.replace('__', '/')}.rego"): text for name, text in texts.items()}
    good = {"main.rego": MAIN, "tmf/night.rego": NIGHT, "tmf/night_test.rego": TEST}
    return bundles.bundle({**good, **given}, DATA if data is None else data)


def test_a_good_bundle_has_no_findings() -> None:
    assert checking.check(made(), ALL) == []


def test_the_shipped_policies_have_no_findings() -> None:
    assert checking.check(bundles.read(), ALL) == []


@pytest.mark.parametrize(
    ("bundle", "finding"),
    [
        (made(tmf__other="package tmf.night2\n\nx := 1\n"), "tmf/other.rego: package tmf.night2 stands where"),
        (made(main=MAIN.replace("default allow := false\n", "")), "main.rego: there is no `default allow`"),
        (made(main=MAIN.replace("default allow := false", "default allow := true")), "main.rego:7: the default of"),
        (
            made(main=MAIN.replace('default decision := {"allow": false', 'default decision := {"allow": true')),
            "main.rego:3: the default of decision must deny",
        ),
        (
            made(night_test=TEST.replace("test_much", "something")),
            "tmf/night.rego:5: every test passes without this rule of tmf.night",
        ),
        (made(night_test=TEST + "\ntest_never if false\n"), "1 tests fail: tmf.night_test.test_never"),
        (
            made(night=NIGHT + '\nreasons contains "late" if time.now_ns() > 2000000000000000000\n'),
            "tmf/night.rego:7: time.now_ns may not be called: use input.environment.time",
        ),
        (made({"roles": {"noc": {"alarm": ["updat"]}}}), "data.json: role noc may updat alarm, but nothing ever asks"),
        (made({"roles": {"noc": {"alram": ["list"]}}}), "data.json: role noc is granted alram, which is no kind of"),
        (made({"roles": {"noc": {"alarm": "list"}}}), "data.json: role noc: the actions on alarm must be a list"),
        (made({"roles": {"noc": ["alarm"]}}), "data.json: role noc must map kinds of resources"),
    ],
)
def test_a_slip_is_named_with_its_place(bundle: Bundle, finding: str) -> None:
    """What follows from it besides, as that a test fails, may be named too."""
    found = checking.check(bundle, ALL)

    assert [one for one in found if one.startswith(finding)]
    assert len(found) <= 2


def test_a_call_that_is_only_spoken_of_is_none() -> None:
    """In a text or a remark."""
    said = NIGHT + '\n# not time.now_ns()\nwords := "use time.now_ns() never"\n'

    assert checking.check(made(night=said), ALL) == []


@pytest.mark.parametrize("text", ["package main\n\nallow if {", "package main\n\nallow := true\n", "nonsense"])
def test_what_does_not_compile_or_answer_is_refused_at_once(text: str) -> None:
    with pytest.raises(Misconfigured):
        checking.check(bundles.bundle({"main.rego": text}, {}), ALL)


def test_roles_that_do_not_ship_are_named() -> None:
    """They are no slip, but somebody must give them."""
    assert checking.strange_roles(made({"roles": {"noc": {}, "auditor": {}}}), {"noc"}) == ["auditor"]
    assert checking.strange_roles(made({}), {"noc"}) == []


def test_a_rule_taken_away_leaves_the_others_where_they_are() -> None:
    """What is found in the rest has its own line."""
    bundle = made(night="# ü\n" + NIGHT)
    (first, second) = [rule for rule in rules.parse(bundle) if rule.name == "reasons" and rule.package == "tmf.night"]

    left = rules.without(bundle, first)

    assert (first.place, second.place) == ("tmf/night.rego:4", "tmf/night.rego:6")
    assert [rule.line for rule in rules.parse(left) if rule.package == "tmf.night"] == [4, 6]
    assert "it is night" not in left.policies["tmf/night.rego"]
    assert "is too much" in left.policies["tmf/night.rego"]
