"""Why a decision was made, and what other policies would have decided: from what was recorded, rule by rule."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from convergedon.core import bundles, decisions, explaining
from convergedon.core.bundles import Bundle
from convergedon.core.decisions import Entry
from convergedon.core.errors import Misconfigured
from convergedon.core.memory import MemoryBus
from convergedon.core.policy import Embedded, Policy, Subject

MAIN = """package main

default decision := {"allow": false, "reasons": ["no policy answered"], "filter": {}}

decision := {"allow": allow, "reasons": sort(reasons), "filter": filter}

default allow := false

allow if {
	data.tmf.authz.granted
	count(reasons) == 0
}

reasons := data.tmf.authz.reasons | data.tmf.limits.reasons

filter := {"parties": [input.subject.party]} if input.subject.party

filter := {} if not input.subject.party
"""
AUTHZ = """package tmf.authz

default granted := false

granted if input.action in data.roles[input.subject.roles[_]][input.resource.kind]

reasons contains "nobody may" if not granted
"""
LIMITS = """package tmf.limits

reasons contains sprintf("%v is above %v", [input.body.much, data.limit]) if input.body.much > data.limit

reasons contains "it is closed" if input.body.closed
"""
ROLES = {"noc": {"alarm": ["list", "patch"]}, "csr": {"alarm": ["list"]}, "admin": {"alarm": ["list", "delete"]}}


def made(limit: int = 10, roles: Any = None, **texts: str) -> Bundle:
    given = {"main.rego": MAIN, "tmf/authz.rego": AUTHZ, "tmf/limits.rego": LIMITS}
    return bundles.bundle(
        {**given, **{f"tmf/{name}.rego": text for name, text in texts.items()}},
        {"limit": limit, "roles": roles or ROLES},
    )


OLD = made()


async def asked(*questions: dict[str, Any], bundle: Bundle = OLD) -> list[Entry]:
    """The entries of the log for these questions."""
    bus = MemoryBus()
    log = decisions.DecisionLog(bus)
    policy = Policy(Embedded(bundle), taken=log.take)
    for given in questions:
        subject = Subject("mara", "acme", given.get("roles", ("noc",)), given.get("party"))
        resource = {"kind": "alarm", "tenant": "acme", "id": "7"}
        await policy.decide(subject, given.get("action", "list"), resource, given.get("body"))
    await log.stop()
    return [entry async for entry in decisions.since(bus, 0)]


async def tried(entries: Iterable[Entry], bundle: Bundle, *known: Bundle) -> explaining.Replay:
    async def each() -> AsyncIterator[Entry]:
        for entry in entries:
            yield entry

    return await explaining.replay(each(), bundle, {one.revision: one for one in known}.get)


async def test_a_refusal_is_led_back_to_the_rules_that_said_no() -> None:
    """Each with its file and line, and who would have been allowed."""
    (entry,) = await asked({"body": {"much": 11, "closed": True}, "action": "delete"})

    said = explaining.explain(entry, OLD)

    assert "asked     delete alarm 7 (tenant acme), on channel rest" in said
    assert f"by revision {OLD.revision}" in said
    assert "answer    refused" in said
    assert "against   tmf/limits.rego:3 (tmf.limits): 11 is above 10" in said
    assert "against   tmf/limits.rego:5 (tmf.limits): it is closed" in said
    assert "against   tmf/authz.rego:7 (tmf.authz): nobody may" in said
    assert "for       nothing: none of tmf/authz.rego:5 (tmf.authz.granted) holds" in said
    assert "roles     none would have been allowed" in said


async def test_the_roles_that_may_are_named() -> None:
    (entry,) = await asked({"action": "delete"})

    assert "roles     admin would have been allowed" in explaining.explain(entry, OLD)


async def test_what_was_allowed_names_its_grant() -> None:
    """And what it is narrowed by."""
    (entry,) = await asked({"party": "northwind"})

    said = explaining.explain(entry, OLD)

    assert "answer    allowed" in said
    assert "for       tmf/authz.rego:5 (tmf.authz): granted" in said
    assert "filter    {'tenant': 'acme', 'parties': ['northwind']}" in said
    assert "against" not in said


async def test_where_the_policies_are_gone_the_reasons_are_still_told() -> None:
    (entry,) = await asked({"action": "delete"})

    said = explaining.explain(entry, None)

    assert "against   nobody may" in said
    assert f"the rules cannot be named: the policies {OLD.revision} are not known here" in said


async def test_the_same_policies_change_nothing() -> None:
    """Whatever was asked."""
    entries = await asked({}, {"action": "delete"}, {"body": {"much": 11}}, {"party": "northwind"}, {"roles": ()})

    result = await tried(entries, OLD)

    assert (result.decisions, result.same, result.changes, result.failures) == (5, 5, [], [])
    assert result.words == f"5 decisions tried on revision {OLD.revision}: 0 would change"


async def test_what_a_lower_limit_would_have_refused_is_one_change_with_examples() -> None:
    """Grouped by the rule, though each has its own figures."""
    entries = await asked(*({"body": {"much": n}} for n in range(1, 11)))

    result = await tried(entries, made(limit=5))

    (change,) = result.changes
    assert (change.change, change.rule, change.count) == ("allowed -> refused", "tmf/limits.rego:3", 5)
    assert change.reason == "6 is above 5"
    assert change.examples == [entry.id for entry in entries[5:8]]
    assert (result.decisions, result.same) == (10, 5)
    assert f"such as {entries[5].id}" in result.words


async def test_what_would_be_allowed_names_the_rule_that_refused() -> None:
    """That of the policies of then, where they are known; without them refusals are grouped by their words."""
    entries = await asked(*({"body": {"much": n}} for n in (11, 12, 13, 99)))

    (known,) = (await tried(entries, made(limit=50), OLD)).changes
    (unknown,) = (await tried(entries, made(limit=50))).changes

    assert (known.change, known.rule, known.count) == ("refused -> allowed", "tmf/limits.rego:3", 3)
    assert (unknown.change, unknown.rule, unknown.count) == ("refused -> allowed", "", 3)
    assert unknown.reason == known.reason == "11 is above 10"


async def test_another_filter_or_obligation_is_a_change() -> None:
    """What may be seen is as much decided as whether."""
    entries = await asked({"party": "northwind"}, {"party": "contoso"}, {})
    open_ = MAIN.replace('filter := {"parties": [input.subject.party]}', "filter := {}")

    result = await tried(entries, bundles.bundle({**OLD.policies, "main.rego": open_}, OLD.data))

    (change,) = result.changes
    assert (change.change, change.reason, change.count) == ("other filter", "parties, tenant -> tenant", 2)


async def test_what_cannot_be_tried_is_counted_with_the_reason() -> None:
    """A question that was too large for the log, and one that the policies cannot answer."""
    entries = await asked({}, {"body": {"much": 1}})
    blank = Entry(**{**vars(entries[0]), "question": None})
    odd = (
        MAIN.replace('"filter": filter}', '"filter": odd}')
        + '\nodd := {"all": true} if input.body.much\n\nodd := {} if not input.body.much\n'
    )

    result = await tried([blank, *entries], bundles.bundle({**OLD.policies, "main.rego": odd}, OLD.data))

    assert result.document == {
        "revision": result.revision,
        "decisions": 3,
        "same": 1,
        "changed": 0,
        "changes": [],
        "notReplayed": [
            {"reason": "the question was too large to be kept", "count": 1, "examples": [blank.id]},
            {"reason": "the policies give no decision", "count": 1, "examples": [entries[1].id]},
        ],
    }


async def test_policies_that_do_not_compile_are_not_tried() -> None:
    with pytest.raises(Misconfigured, match="does not compile"):
        await tried([], made(limits="package tmf.limits\n\nreasons if {"))
