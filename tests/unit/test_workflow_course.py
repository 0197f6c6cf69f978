"""Where a course leads, from its definition and what was told of it alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from convergedon.mediation.workflows.course import Told, Walked, error, walk, walk_back
from convergedon.mediation.workflows.definitions import Definition, violations

ABOUT = {"id": "r1", "input": {"items": ["a", "b", "c"], "n": 2}, "startedAt": {"iso8601": "2026-01-01T00:00:00Z"}}


def defined(*tasks: Mapping[str, Any]) -> Definition:
    document = {
        "document": {"dsl": "1.0.0", "namespace": "test", "name": "course", "version": "1.0.0"},
        "schedule": {"on": {"one": {"with": {"type": "AlarmCreateEvent"}}}},
        "timeout": {"after": {"hours": 1}},
        "do": list(tasks),
    }
    assert violations(document) == []
    return Definition(document)


def do(what: Any) -> dict[str, Any]:
    """Something that changes the world, and is taken back by ``no`` of the same."""
    back = [{"back": {"call": "intent", "with": intent(f"not {what}")}}]
    return {"call": "intent", "with": intent(what), "metadata": {"compensate": back}}


def intent(what: Any) -> dict[str, Any]:
    return {"adapter": "x", "device": "d", "service": "s", "instance": what, "values": {}}


class Script:
    """Answers what is asked: by the instance of an intent, or the name of anything else; what is not in it is done."""

    def __init__(self, definition: Definition, failing: Mapping[str, str] | None = None) -> None:
        self.definition, self.failing = definition, dict(failing or {})
        self.told: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.events: list[Mapping[str, Any]] = []

    def go(self, walking: Any = walk, order: Sequence[int] = ()) -> Walked:
        """To the end; of several that are asked at once the next answered is chosen by ``order``."""
        choice = itertools.chain(order, itertools.repeat(0))
        while True:
            walked: Walked = walking(self.definition, ABOUT, self.told, self.events)
            for ask in walked.asks:
                self.told[ask.path] = {"order": len(self.told), "status": "asked", "ask": ask}
            for heard in walked.heard:
                self.told[heard.path] = {"order": len(self.told), "status": "done", "event": heard.number}
            waiting = [path for path, entry in self.told.items() if entry["status"] == "asked"]
            if walked.over or not waiting:
                return walked
            self._answer(waiting[next(choice) % len(waiting)])

    def _answer(self, path: str) -> None:
        entry = self.told[path]
        ask = entry["ask"]
        what = ask.given["instance"] if ask.function == "intent" else ask.name
        self.asked.append(what)
        if what in self.failing:
            entry |= {"status": "failed", "error": error(self.failing[what], 500, what, what, path)}
        else:
            entry |= {"status": "done", "output": {"of": what}}


def test_each_item_has_its_turn() -> None:
    script = Script(defined({"all": {"for": {"in": "${ .items }"}, "do": [{"one": do("${ $item }")}]}}))

    assert script.go().output == {"of": "c"}
    assert script.asked == ["a", "b", "c"]


def test_a_loop_has_a_bound() -> None:
    many = defined(
        {"many": {"set": {"items": list(range(101))}}},
        {"all": {"for": {"in": "${ .items }"}, "do": [{"one": {"set": {"a": 1}}}]}},
    )

    walked = Script(many).go()

    assert walked.error
    assert walked.error["detail"] == "for.in must be a list of at most 100"


def test_a_choice_leads_where_it_says() -> None:
    choose = {"switch": [{"two": {"when": "${ .n == 2 }", "then": "second"}}, {"else": {"then": "end"}}]}
    script = Script(defined({"choose": choose}, {"first": do("first")}, {"second": do("second")}))

    script.go()

    assert script.asked == ["second"]


def test_what_is_tried_again_ends() -> None:
    """Three attempts and the pauses between them; then catch says what becomes of it."""
    catch = {"retry": {"delay": {"seconds": 1}, "limit": {"attempt": {"count": 2}}}, "do": [{"note": do("note")}]}
    script = Script(defined({"try": {"try": [{"one": do("bad")}], "catch": catch}}), {"bad": "refused"})

    walked = script.go()

    assert script.asked == ["bad", "try", "bad", "try", "bad", "note"]
    assert walked.error is None


def test_only_what_is_meant_is_caught() -> None:
    catch = {"errors": {"with": {"type": "timeout"}}, "do": [{"note": do("note")}]}
    script = Script(defined({"try": {"try": [{"one": do("bad")}], "catch": catch}}), {"bad": "refused"})

    walked = script.go()

    assert walked.error
    assert walked.error["type"] == "refused"
    assert script.asked == ["bad"]


def test_an_event_is_heard_once() -> None:
    """Also one that came before anybody listened."""
    listen = {
        "listen": {"to": {"one": {"with": {"type": "AlarmStateChangeEvent"}}}},
        "timeout": {"after": {"hours": 1}},
    }
    script = Script(defined({"first": listen}, {"second": listen}))
    script.events = [{"type": "AlarmStateChangeEvent", "data": {"n": 1}}]

    walked = walk(script.definition, ABOUT, script.told, script.events)
    assert [heard.number for heard in walked.heard] == [0]
    assert [ask.name for ask in walked.asks] == ["second"]

    script.events.append({"type": "AlarmStateChangeEvent", "data": {"n": 2}})
    assert script.go().output == {"n": 2}


FORKED = defined(
    {"a": do("a")},
    {"fork": {"fork": {"branches": [{"b": {"do": [{"b1": do("b1")}, {"b2": do("b2")}]}}, {"c": do("c")}]}}},
    {"try": {"try": [{"d": do("d")}], "catch": {"do": [{"e": do("e")}]}}},
    {"f": do("f")},
)


@given(st.lists(st.integers(0, 5), max_size=12), st.sampled_from([{}, {"d": "x"}, {"f": "x"}, {"b2": "x"}, {"c": "x"}]))
def test_the_order_of_answers_does_not_matter(order: list[int], failing: dict[str, str]) -> None:
    """However branches are answered, the same is asked, and it ends in the same way."""
    script, usual = Script(FORKED, failing), Script(FORKED, failing)

    found, expected = script.go(order=order), usual.go()

    assert sorted(script.asked) == sorted(usual.asked)
    assert (found.output, found.error) == (expected.output, expected.error)


@given(st.lists(st.integers(0, 5), max_size=12), st.sampled_from([{"f": "x"}, {"b2": "x"}, {"c": "x"}]))
def test_what_was_done_is_taken_back_last_first(order: list[int], failing: dict[str, str]) -> None:
    script = Script(FORKED, failing)
    script.go(order=order)
    done = asked_in_order(script.told)
    script.asked.clear()

    walked = script.go(walk_back)

    assert walked.over
    assert script.asked == [f"not {what}" for what in reversed(done)]


def asked_in_order(told: Told) -> list[str]:
    done = [entry for entry in told.values() if entry["status"] == "done"]
    return [entry["ask"].given["instance"] for entry in sorted(done, key=lambda entry: entry["order"])]
