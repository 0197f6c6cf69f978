"""What policies read of a question: never too little, as answers are remembered by it."""

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from convergedon.core import bundles, policy
from convergedon.core.bundles import Bundle
from convergedon.core.engines import Embedded
from convergedon.core.errors import Unavailable
from convergedon.core.policy import RULE
from convergedon.core.reads import ABSENT, reads
from tests.questions import BUSY, VALUES, question

SAME = object()
QUESTION: dict[str, Any] = {
    "action": "list",
    "body": {"a": {"x": 1}, "b": [1, 2]},
    "resource": {"kind": "k", "id": "7"},
}


def read_by(rules: str, asked: Mapping[str, Any]) -> bytes:
    return reads(Embedded(Bundle({"p.rego": f"package p\n\n{rules}\n"}, {})).tree()).of(asked)


def changed(path: tuple[str, ...], value: Any = "other") -> dict[str, Any]:
    """The question with another value at one place."""
    asked = json.loads(json.dumps(QUESTION))
    here = asked
    for name in path[:-1]:
        here = here[name]
    here[path[-1]] = value
    return asked


@pytest.mark.parametrize(
    ("rules", "matters", "unread"),
    [
        ("r if input.action", [("action",)], [("body",), ("resource", "id")]),
        ('r if input["resource"].kind == "k"', [("resource", "kind"), ("resource",)], [("resource", "id"), ("body",)]),
        ("r if input.body.a", [("body", "a", "x"), ("body", "a"), ("body",)], [("body", "b"), ("body", "c")]),
        ("r if input.body.b[_] == 2", [("body", "b")], [("body", "a"), ("action",)]),
        ("r if input.body[input.action].x", [("body", "c"), ("action",)], [("resource",)]),
        ('r if input.body[["a", "b"][_]]', [("body", "a", "x"), ("body", "c")], [("resource",)]),
        ("r if some one in input.body", [("body", "c")], [("action",)]),
        ("r if { b := input.body\n b.a }", [("body", "c")], [("action",)]),
        ("r if f(input.resource)\nf(x) if x.kind", [("resource", "id")], [("action",)]),
        ("r if f(input)\nf(x) if x.kind", [("action",), ("body", "b"), ("new",)], []),
        ("r if walk(input, [_, 7])", [("action",), ("new",)], []),
        ("r := {one.id | one := input.resource}", [("resource", "id")], [("body",)]),
        ("r if every one in input.body.b { one > 0 }", [("body", "b")], [("body", "a")]),
        ("r if not input.body.z", [("body", "z")], [("body", "a")]),
        ("r if q with input as {\"action\": input.body.a}\nq if input.action", [("body", "a"), ("action",)], []),
        ("r := input.action if false else := input.resource.id", [("resource", "id")], [("resource", "kind")]),
        ("r[input.action] := input.resource.id", [("action",), ("resource", "id")], [("body",)]),
        ("f(x) := x if x == input.body.a.x", [("body", "a", "x")], [("body", "a", "y")]),
        ("import input.body as b\nr if b.a", [("body", "c")], [("action",)]),
        ("r if is_object(input.body)", [("body",)], [("body", "a"), ("action",)]),
        ("r if is_object(input.body[input.action])", [("body", "a"), ("action",)], [("resource",)]),
        ("r if is_object(input.body)\nis_object(x) if x.a", [("body", "a")], [("action",)]),
        ("default is_object(_) := 1\nr if is_object(input.body)", [("body", "a")], [("action",)]),
        ("r if is_object(input)", [("body",)], []),
    ],
)  # fmt: skip
def test_what_a_rule_can_see_counts_and_nothing_else(
    rules: str, matters: list[tuple[str, ...]], unread: list[tuple[str, ...]]
) -> None:
    """Whatever the form in which a rule comes by it."""
    before = read_by(rules, QUESTION)

    assert [path for path in matters if read_by(rules, changed(path)) == before] == []
    assert [path for path in unread if read_by(rules, changed(path)) != before] == []


def test_what_is_there_in_another_form_is_another_question() -> None:
    """Absent, null, empty, a list that looks like what is noted of an object, and what stands for what is absent."""
    rules = "r if input.body.a\nq if input.action"
    bodies = [SAME, None, {}, [], "", 0, False, [[1]], {"a": 1}, {"a": [1]}, [1], {"a": ABSENT}, {"a": None}, ABSENT]
    asked = [{"body": body} if body is not SAME else {} for body in [*bodies, {"no object": 1}, {"no object": []}]]

    kinds = {read_by(rules, each) for each in asked}

    without_a = [each for each in asked if isinstance(each.get("body"), dict) and "a" not in each["body"]]
    assert len(kinds) == len(asked) - len(without_a) + 1


@pytest.mark.parametrize("more", [{}, BUSY], ids=["as they ship", "with much to say"])
async def test_remembering_changes_no_answer(more: dict[str, Any]) -> None:
    """Of generated questions, each asked again with one thing in it changed: remembered answers are evaluated ones."""
    dice = random.Random(20261126)
    shipped = policy.read()
    engine = Embedded(bundles.bundle(shipped.policies, {**shipped.data, **more}).in_force)
    hits = 0
    for _ in range(500):
        asked = question(dice)
        for each in (asked, altered(asked, dice), altered(asked, dice)):
            before = len(engine._answers)
            assert await answer(engine, each) == evaluated(engine, each)
            hits += len(engine._answers) == before
    assert hits > 100  # or nothing was shown


async def answer(engine: Embedded, asked: Mapping[str, Any]) -> Any:
    try:
        return await engine.evaluate(asked)
    except Unavailable as error:
        return str(error)


def evaluated(engine: Embedded, asked: Mapping[str, Any]) -> Any:
    try:
        return engine.ask(RULE, asked)
    except Unavailable as error:
        return str(error)


def altered(asked: Mapping[str, Any], dice: random.Random) -> Any:
    """The same with one member, anywhere in it, that is another, new or gone."""
    copy = json.loads(json.dumps(asked))
    places = list(_places(copy))
    if not places:
        return copy
    here, name = dice.choice(places)
    if dice.random() < 0.4:
        here, name = dice.choice(places)[0], dice.choice(("externalId", "id", "party", "record"))
    if dice.random() < 0.3 and name in here:
        del here[name]
    else:
        here[name] = dice.choice(VALUES)
    return copy


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        for name, member in value.items():
            yield value, name
            yield from _places(member)
    elif isinstance(value, list):
        for member in value:
            yield from _places(member)
