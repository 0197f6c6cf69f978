"""A definition is checked before it is in force: each sentence names the file, the place and what is wrong."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from convergedon.core import policy, settings
from convergedon.core.errors import Invalid, Misconfigured
from convergedon.core.policy import Embedded, Policy
from convergedon.mediation.workflows import checking, definitions
from convergedon.mediation.workflows.expressions import evaluate, fault

INTENT = {"adapter": "netconf", "device": "pe1", "service": "internet-access", "instance": "a", "values": {"vlan": 1}}
BACK = [{"back": {"call": "intent", "with": {**INTENT, "values": None}}}]
WAY = {"minutes": 5}
GOOD: dict[str, Any] = {
    "document": {"dsl": "1.0.0", "namespace": "test", "name": "mend", "version": "1.0.0"},
    "schedule": {"on": {"one": {"with": {"type": "AlarmCreateEvent", "data": '${ .alarm.state == "raised" }'}}}},
    "timeout": {"after": {"hours": 1}},
    "do": [
        {"ask": {"call": "approval", "with": {"question": "Mend it?"}, "timeout": {"after": WAY}}},
        {"mend": {"call": "intent", "with": INTENT, "metadata": {"compensate": BACK}}},
        {"look": {"call": "observe", "with": INTENT}},
    ],
}


@pytest.fixture(scope="module")
def rules() -> Policy:
    return Policy(Embedded(policy.read()))


async def findings(document: Any, tmp_path: Path, rules: Policy) -> list[str]:
    file = tmp_path / "mend.yaml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False))
    known = checking.services(settings.load(data=tmp_path))
    found = await checking.check_all([file], known, rules, "acme", (), checking.words_of(policy.read()))
    assert all(sentence.startswith(str(file)) for sentence in found), found
    return [sentence.removeprefix(f"{file}: ").removeprefix(f"{file}, ") for sentence in found]


def changed(change: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(GOOD))
    change(document)
    return document


def task(name: str, body: Any, at: int = 3) -> Any:
    return lambda document: document["do"].insert(at, {name: body})


async def test_what_is_in_order_has_no_findings(tmp_path: Path, rules: Policy) -> None:
    assert await findings(GOOD, tmp_path, rules) == []


async def test_what_ships_is_in_order(tmp_path: Path, rules: Policy) -> None:
    known = checking.services(settings.load(data=tmp_path))

    assert definitions.sources(None)
    assert await checking.check_all(definitions.sources(None), known, rules, "acme") == []


LISTEN = {"listen": {"to": {"one": {"with": {"type": "AlarmStateChangeEvent"}}}}}
CLEAR = {"call": "clear"}


def hearing(data: str) -> dict[str, Any]:
    told = {"type": "AlarmStateChangeEvent", "data": data}
    return {"listen": {"to": {"one": {"with": told}}}, "timeout": {"after": WAY}}


CRITICAL = '${ .alarm.perceivedSeverity == "critical" }'
AWAY = {"try": [{"see": {"call": "observe", "with": INTENT}}], "catch": {"do": [{"note": {"set": {"a": 1}}}]}}
PORT = {"adapter": "netconf", "device": "pe1", "service": "port", "instance": "ge-0/0/1"}
URI = {"uri": "https://tickets.example"}
GET = {"method": "get", "endpoint": "https://tickets.example"}
BEARER = {"bearer": {"use": "tickets"}}
CASES: dict[str, tuple[Any, str]] = {
    "no timeout of the whole": (lambda d: d.pop("timeout"), '"timeout" is a required property'),
    "unknown key": (lambda d: d.update(until="noon"), "the file: not known here: 'until'"),
    "unknown task": (task("run", {"run": {"shell": {"command": "rm"}}}), "do/3/run: it must have one of call"),
    "two tasks in one": (task("both", {"set": {"a": 1}, "wait": WAY}), "not known here"),
    "a listen without time-out": (task("hear", LISTEN), '"timeout" is a required property'),
    "an approval without time-out": (lambda d: d["do"][0]["ask"].pop("timeout"), '"timeout" is a required property'),
    "an unlimited retry": (
        task("again", {"try": [{"one": {"set": {"a": 1}}}], "catch": {"retry": {}}}),
        '"limit" is a required property',
    ),
    "unknown function": (task("dig", {"call": "dig"}), "do/3/dig: there is no function dig; known are approval, "),
    "unknown adapter": (
        lambda d: d["do"][1]["mend"]["with"].update(adapter="telepathy"),
        "do/1/mend: there is no adapter telepathy; installed are",
    ),
    "unknown service": (
        lambda d: d["do"][1]["mend"]["with"].update(service="teleport"),
        "do/1/mend: adapter netconf has no service teleport; it has internet-access",
    ),
    "unknown characteristic": (
        lambda d: d["do"][1]["mend"]["with"]["values"].update(colour="red"),
        "do/1/mend: service internet-access has no characteristic colour",
    ),
    "unknown attribute of an alarm": (
        task("keep", {"set": {"a": "${ $workflow.input.alarm.colour }"}}),
        "do/3/keep: set.a: an alarm has no colour (TMF642-Alarm-v4)",
    ),
    "a value that an attribute never has": (
        task("keep", {"set": {"a": '${ $workflow.input.alarm.perceivedSeverity == "grave" }'}}),
        "do/3/keep: set.a: perceivedSeverity of an alarm is one of critical, major",
    ),
    "a value of another type": (
        lambda d: d["schedule"]["on"]["one"]["with"].update(data='${ .alarm.serviceAffecting == "true" }'),
        'schedule: on.one.with.data: serviceAffecting of an alarm is never "true" (TMF642-Alarm-v4)',
    ),
    "a state that an alarm never has": (
        task("hear", hearing('${ .state == "over" }')),
        "do/3/hear: listen: state of an alarm is one of raised, updated, cleared",
    ),
    "an event's attribute that an alarm has not": (
        task("hear", hearing('${ (.colour == "red") }')),
        "do/3/hear: listen: an alarm has no colour (TMF642-Alarm-v4)",
    ),
    "a question of which no policy speaks": (
        task("may", {"call": "policy", "with": {"action": "aprove", "resource": {"kind": "workflowRun"}}}),
        "do/3/may: no policy says anything of the action aprove: whatever it is asked of would be allowed",
    ),
    "an error that no task has": (
        task("attempt", {"try": [{"keep": {"set": {"a": 1}}}], "catch": {"errors": {"with": {"type": "refusal"}}}}),
        "do/3/attempt/catch: no task fails with refusal: there are refused, rolledBack",
    ),
    "a wait that is longer than the whole": (
        task("rest", {"wait": {"minutes": 60}}),
        "do/3/rest: it waits for as long as the workflow as a whole has, which fails by then",
    ),
    "no compensation": (
        lambda d: d["do"][1]["mend"].pop("metadata"),
        "do/1/mend: it changes something outside and has no metadata.compensate that takes it back",
    ),
    "a request without compensation": (
        task("tell", {"call": "http", "with": {"method": "post", "endpoint": "https://t.example"}}),
        "do/3/tell: it changes something outside and has no metadata.compensate that takes it back",
    ),
    "a compensation that waits": (
        lambda d: d["do"][1]["mend"]["metadata"]["compensate"].append({"sleep": {"wait": WAY}}),
        "do/1/mend/metadata/compensate/1/sleep: a compensation has no wait: it waits for nobody",
    ),
    "no proof": (
        lambda d: d["do"].pop(2),
        "do/1/mend: nothing after it proves what it did: listen to AlarmStateChangeEvent, or observe",
    ),
    "a proof of something else": (
        lambda d: d["do"][2]["look"]["with"].update(instance="b"),
        "do/1/mend: nothing after it proves what it did",
    ),
    "a proof of less": (
        lambda d: d["do"][2]["look"]["with"].update(values={}),
        "do/1/mend: nothing after it proves what it did",
    ),
    "a proof of another value": (
        lambda d: d["do"].insert(2, {"other": {"call": "observe", "with": {**INTENT, "values": {"vlan": 2}}}}),
        "do/2/other: it must observe what an intent before it asked for, in the same words",
    ),
    "cleared without evidence": (
        lambda d: d["do"].insert(0, {"clear": {"call": "clear"}}),
        "do/0/clear: an alarm is cleared on evidence: no observe comes before it",
    ),
    "cleared on a look that wants nothing": (
        lambda d: d.update(do=[{"look": {"call": "observe", "with": {**INTENT, "values": {}}}}, {"clear": CLEAR}]),
        "do/1/clear: an alarm is cleared on evidence: no observe comes before it",
    ),
    "an order of what can only be read": (
        lambda d: d["do"][1]["mend"].update({"with": {**PORT, "values": {"operStatus": "up"}}}),
        "do/1/mend: operStatus of service port can only be read: observe it",
    ),
    "a change of nothing in particular": (
        lambda d: d["schedule"]["on"]["one"]["with"].update(type="AlarmAttributeValueChangeEvent"),
        '"fieldPath" is a required property',
    ),
    "a change of what an alarm has not": (
        lambda d: d["schedule"]["on"]["one"]["with"].update(type="AlarmAttributeValueChangeEvent", fieldPath="colour"),
        "schedule: an alarm has no colour (TMF642-Alarm-v4)",
    ),
    "a creation by its change": (
        lambda d: d["schedule"]["on"]["one"]["with"].update(fieldPath="flapping"),
        "schedule/on/one/with/fieldPath: False schema does not allow",
    ),
    "a key that YAML takes for a truth value": (
        lambda d: d["do"].append({True: {"set": {"a": 1}}}),
        "do/3: a key is no text: YAML takes on, off, yes, no and numbers for others; quote it",
    ),
    "credentials in the file": (
        task("tell", {"call": "http", "with": {**GET, "headers": {"Authorization": "Bearer s3cret"}}}),
        "do/3/tell/with/headers",
    ),
    "a token in the file": (
        task(
            "tell", {"call": "http", "with": {**GET, "endpoint": {**URI, "authentication": {"bearer": {"token": "x"}}}}}
        ),
        "do/3/tell/with/endpoint",
    ),
    "a secret that is not declared": (
        task("tell", {"call": "http", "with": {**GET, "endpoint": {**URI, "authentication": BEARER}}}),
        "do/3/tell: secret tickets is not in use.secrets",
    ),
    "a secret that nobody keeps": (
        lambda d: d.update(use={"secrets": ["tickets"]}),
        "use.secrets: there is no secret tickets in the file of CONVERGEDON_WORKFLOW_SECRETS",
    ),
    "no approval": (
        lambda d: d["do"].pop(0),
        "do/0/mend: the policy wants an approval, and no task before it asks for one (call approval)",
    ),
    "a way past the approval": (
        task("urgent", {"switch": [{"now": {"when": CRITICAL, "then": "mend"}}]}, 0),
        "do/2/mend: the policy wants an approval, and no task before it asks for one (call approval) on every way",
    ),
    "an approval that may be left out": (
        lambda d: d["do"][0]["ask"].update({"if": CRITICAL}),
        "do/1/mend: the policy wants an approval, and no task before it asks for one (call approval) on every way",
    ),
    "an end before the proof": (
        lambda d: d["do"][1]["mend"].update(then="end"),
        "do/1/mend: nothing after it proves what it did: listen to AlarmStateChangeEvent, or observe",
    ),
    "a way past the proof": (
        task("hurry", {"switch": [{"on": {"when": CRITICAL, "then": "exit"}}]}, 2),
        "do/1/mend: nothing after it proves what it did",
    ),
    "a proof that may be left out": (
        lambda d: d["do"][2]["look"].update({"if": CRITICAL}),
        "do/1/mend: nothing after it proves what it did",
    ),
    "a proof whose failure is caught": (
        lambda d: d["do"].append({"try": AWAY}) or d["do"].pop(2),
        "do/1/mend: nothing after it proves what it did",
    ),
    "an approval after it": (
        lambda d: d["do"].append(d["do"].pop(0)),
        "do/0/mend: the policy wants an approval, and no task before it asks for one (call approval)",
    ),
    "a loop without bound": (
        task("back", {"set": {"a": 1}, "then": "ask"}),
        "do/3/back: then ask: it leads back, and the loop would have no bound; use for or retry",
    ),
    "a jump to nowhere": (
        task("choose", {"switch": [{"one": {"when": "${ true }", "then": "nowhere"}}]}),
        "do/3/choose: then nowhere: there is no such task in this list",
    ),
    "an expression that is none": (task("sum", {"set": {"a": "${ 1 + }"}}), "do/3/sum: set.a: syntax error"),
    "an unknown variable": (task("take", {"set": {"a": "${ $item }"}}), "do/3/take: set.a: $item is not defined"),
    "an expression that changes": (task("now", {"set": {"a": "${ now }"}}), "now is not allowed in expressions"),
    "an expression without end": (task("loop", {"set": {"a": "${ [repeat(1)] }"}}), "repeat is not allowed"),
    "the environment": (task("env", {"set": {"a": "${ $ENV.HOME }"}}), "$ENV is not allowed in expressions"),
    "exports in branches": (
        task("fork", {"fork": {"branches": [{"a": {"set": {"a": 1}, "export": {"as": "${ . }"}}}]}}),
        "do/3/fork/fork/branches/0/a: export inside fork",
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_is_wrong_is_said_with_its_place(name: str, tmp_path: Path, rules: Policy) -> None:
    change, words = CASES[name]

    found = await findings(changed(change), tmp_path, rules)

    assert any(words in sentence for sentence in found), found


async def test_a_look_needs_no_intent_and_a_reading_may_want_more(tmp_path: Path, rules: Policy) -> None:
    off, on, seen = ({**PORT, "values": values} for values in ({"enabled": False}, {"enabled": True}, {}))
    document = copy.deepcopy(GOOD)
    document["do"][1:] = [
        {"look": {"call": "observe", "with": seen}},
        {
            "switchOff": {
                "call": "intent",
                "with": off,
                "metadata": {"compensate": [{"a": {"call": "intent", "with": on}}]},
            }
        },
        {"switchOn": {"call": "intent", "with": on, "metadata": {"compensate": [{"a": {"set": {"a": 1}}}]}}},
        {"see": {"call": "observe", "with": {**PORT, "values": {"enabled": True, "operStatus": "up"}}}},
        {"clear": CLEAR},
    ]

    assert await findings(document, tmp_path, rules) == []


async def test_a_policy_that_refuses_in_any_case_is_said(tmp_path: Path) -> None:
    """Not only what is missing in the file, but what will never be allowed."""
    bundle = policy.read()
    data = dict(bundle.data) | {"remediation": {"approvers": [], "automatic": {}, "valid": 3600}}
    rules = Policy(Embedded(replace(bundle, data=data)))

    found = await findings(GOOD, tmp_path, rules)

    assert found[0].startswith("the policy: it would refuse every intent of mend, approved or not: ")


async def test_the_same_version_is_defined_once(tmp_path: Path, rules: Policy) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump(GOOD, sort_keys=False))
    known = checking.services(settings.load(data=tmp_path))

    found = await checking.check_all(definitions.sources(tmp_path), known, rules, "acme")

    assert found == [f"{tmp_path / 'b.yaml'}: mend 1.0.0 is defined in {tmp_path / 'a.yaml'} already"]


async def test_on_is_a_word(tmp_path: Path, rules: Policy) -> None:
    """YAML 1.1 reads an unquoted on as true; a definition may write it all the same."""
    text = yaml.safe_dump(GOOD, sort_keys=False).replace("'on':", "on:")
    assert "\n  on:" in text

    assert await findings(text, tmp_path, rules) == []


def test_a_file_that_is_no_yaml_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: [")

    with pytest.raises(Misconfigured, match=r"x\.yaml, line 1"):
        definitions.read(file)


def test_the_hash_is_of_what_is_said_not_how() -> None:
    other = yaml.safe_load(yaml.safe_dump(GOOD, sort_keys=True))

    assert definitions.Definition(GOOD).hash == definitions.Definition(other).hash
    assert definitions.Definition(changed(lambda d: d["do"].pop())).hash != definitions.Definition(GOOD).hash


def test_expressions_see_what_they_are_given() -> None:
    value = {"text": "as it is", "sum": "${ .a + $context.b }", "list": ["${ $item }"]}

    found = evaluate(value, {"a": 1}, {"context": {"b": 2}, "item": {"x": None}})

    assert found == {"text": "as it is", "sum": 3, "list": [{"x": None}]}


@pytest.mark.parametrize("text", ["${ empty }", "${ 1, 2 }", '${ error("no") }', "${ .a.b }", '${ "x" * 300000 }'])
def test_an_expression_has_one_value(text: str) -> None:
    with pytest.raises(Invalid):
        evaluate(text, {"a": 1}, {})


def test_members_may_be_called_what_functions_are() -> None:
    assert fault("${ .env.now | .input }") == ""
    assert fault("${ env }") != ""
