"""A rehearsal shows what would be asked, step by step, and asks nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convergedon.core import policy
from convergedon.core.errors import Misconfigured
from convergedon.core.policy import Embedded, Policy
from convergedon.mediation.workflows import definitions, rehearsal

WANTED = {
    "adapter": "netconf",
    "device": "pe1",
    "service": "internet-access",
    "instance": "51c0-1",
    "object": "ge-0/0/1",
    "site": "berlin-1",
    "values": {"interface": "ge-0/0/1", "vlan": 10, "bandwidth": 100},
}
INCIDENT: dict[str, Any] = {
    "alarm": {"id": "a1", "probableCause": "lossOfSignal", "perceivedSeverity": "major", "state": "raised"},
    "target": {"device": "pe1", "object": "ge-0/0/1"},
    "services": [{"id": "51c0-1", "name": "Internet access"}],
    "confirmed": [WANTED],
}
PATIENCE = 3600.0
CLEARED = {"type": "AlarmStateChangeEvent", "data": {"state": "cleared"}}


REFUSED = "it would be refused, and a person would be told: pe1 is locked by workflow bounce-interface"


async def rehearsed(
    tmp_path: Path, name: str = "reroute-to-backup-path", patience: float = PATIENCE, **said: Any
) -> list[str]:
    (source,) = [file for file in definitions.sources(None) if file.name == f"{name}.yaml"]
    incident = tmp_path / "incident.json"
    incident.write_text(json.dumps({"incident": INCIDENT, **said}))
    rules = Policy(Embedded(policy.read()))
    return await rehearsal.read(definitions.read(source), incident, "acme", rules, patience).run()


def named(lines: list[str]) -> list[str]:
    return [line.partition(":")[0].rpartition("/")[2] for line in lines[:-1]]


async def test_each_step_is_shown_as_it_would_be(tmp_path: Path) -> None:
    lines = await rehearsed(tmp_path, events=[CLEARED])

    assert named(lines) == ["approve", "move", "settle", "look", "hear", "ask", "moveHome", "settleHome", "lookHome"]
    assert lines[1] == (
        "do/2/reroute/do[0]/0/move: would ask pe1 for internet-access 51c0-1 "
        '{"interface":"ge-0/0/2","vlan":10,"bandwidth":100} and is told {"status":"applied","words":"","diff":{}}'
    )
    assert lines[-1] == "it would end completed"


PORT_DOWN = {**INCIDENT["alarm"], "alarmedObjectType": "interface", "serviceAffecting": True}
FLAPS = {**PORT_DOWN, "flapping": True, "specificProblem": "link down"}
SHIPPED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "bounce-interface": (PORT_DOWN, ["look", "approve", "switchOff", "rest", "switchOn", "settle", "see", "clear"]),
    "open-trouble-ticket": (PORT_DOWN, ["open", "untilItIsOver", "resolve"]),
    "reroute-to-backup-path": (
        PORT_DOWN,
        ["approve", "move", "settle", "look", "hear", "ask", "moveHome", "settleHome", "lookHome"],
    ),
    "restore-confirmed-configuration": (
        {**INCIDENT["alarm"], "probableCause": "reinitialized"},
        ["approve", "apply", "settle", "look", "clear"],
    ),
    "throttle-flapping-port": (FLAPS, ["approve", "hold", "short", "release", "settle", "see", "untilItIsQuiet"]),
}


@pytest.mark.parametrize("name", [file.name.removesuffix(".yaml") for file in definitions.sources(None)])
async def test_what_ships_rehearses_an_incident_of_its_kind(name: str, tmp_path: Path) -> None:
    alarm, steps = SHIPPED[name]

    lines = await rehearsed(tmp_path, name, incident={**INCIDENT, "alarm": alarm}, events=[CLEARED])

    assert named(lines) == steps
    assert lines[-1] == "it would end completed"


@pytest.mark.parametrize(("earlier", "waits"), [(0, "60"), (1, "300"), (2, "900"), (7, "900")])
async def test_a_port_that_flaps_again_is_held_down_longer(earlier: int, waits: str, tmp_path: Path) -> None:
    incident = {**INCIDENT, "alarm": FLAPS, "earlier": earlier}

    lines = await rehearsed(tmp_path, "throttle-flapping-port", incident=incident, events=[CLEARED])

    assert f"waits {waits} s " in lines[2]


@pytest.mark.parametrize("state", [{"oper-status": "up"}, {"oper-status": "down", "enabled": "false"}])
async def test_a_port_that_works_or_was_switched_off_is_not_bounced(state: dict[str, str], tmp_path: Path) -> None:
    answers = {"look": {"output": {"state": state}}}

    lines = await rehearsed(tmp_path, "bounce-interface", incident={**INCIDENT, "alarm": PORT_DOWN}, answers=answers)

    assert named(lines) == ["look"]
    assert lines[-1] == "it would end completed"


async def test_a_request_says_by_whose_secret_and_never_what_it_is(tmp_path: Path) -> None:
    (source,) = [file for file in definitions.sources(None) if "ticket" in file.name]
    document = json.loads(json.dumps(definitions.read(source).document))
    document["use"] = {"secrets": ["tickets"]}
    document["do"][0]["open"]["with"]["endpoint"] = {
        "uri": "https://tickets.example",
        "authentication": {"bearer": {"use": "tickets"}},
    }
    assert definitions.violations(document) == []
    file = tmp_path / "incident.json"
    file.write_text(json.dumps({"incident": {**INCIDENT, "alarm": PORT_DOWN}, "events": [CLEARED]}))
    rules = Policy(Embedded(policy.read()))

    lines = await rehearsal.read(definitions.Definition(document), file, "acme", rules, PATIENCE).run()

    assert lines[0].startswith("do/0/open: would post https://tickets.example with secret tickets {")


async def test_an_answer_may_be_a_failure(tmp_path: Path) -> None:
    """Then what was done is taken back, in the words of the definition."""
    lines = await rehearsed(tmp_path, answers={"look": {"error": {"type": "proof", "detail": "it was lost"}}})

    assert named(lines)[:5] == ["approve", "move", "settle", "look", "it would fail"]
    assert lines[-2].startswith("do/2/reroute/do[0]/0/move/compensate/0/moveBack: would ask pe1 for")
    assert lines[-1] == "it would end compensated, and a person would be told"


async def test_what_the_policy_would_refuse_fails(tmp_path: Path) -> None:
    """More than the tenant's contract has: no approval helps."""
    big = {**INCIDENT, "confirmed": [{**WANTED, "values": {**WANTED["values"], "bandwidth": 400000}}]}
    lines = await rehearsed(tmp_path, incident=big)

    assert any("move: " in line and "fails: policy: " in line for line in lines), lines


async def test_what_does_not_begin_says_so(tmp_path: Path) -> None:
    lines = await rehearsed(tmp_path, "restore-confirmed-configuration")

    assert lines == ["restore-confirmed-configuration would not begin: its condition is not met by this incident"]


@pytest.mark.parametrize(
    ("patience", "ended", "last"),
    [
        (600.0, "10:09", "it would end completed"),
        (600.0, "10:11", f"{REFUSED}; its turn did not come in time"),
        (600.0, "", "it would end completed"),
        (0.0, "10:01", REFUSED),
    ],
)
async def test_a_turn_that_would_not_come_in_time_is_a_persons(
    patience: float, ended: str, last: str, tmp_path: Path
) -> None:
    """Going by when the run ended that had the device, as far as that is recorded."""
    had = {"workflow": "bounce-interface", "object": "ge-0/0/2", "changes": True, "startedAt": "2026-11-02T09:59:00Z"}
    had["endedAt"] = ended and f"2026-11-02T{ended}:00Z"
    earlier = {"until": "2026-11-02T10:00:00Z", "runs": [had], "raised": [], "underWay": 1}

    lines = await rehearsed(tmp_path, events=[CLEARED], patience=patience, earlier=earlier)

    assert lines[-1] == last
    assert lines[0].startswith("waits for its turn: pe1 is locked by workflow bounce-interface") == (last != lines[0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "incident is missing"),
        ({"incident": {"alarm": {}}}, "incident.confirmed is missing"),
        ({"incident": INCIDENT, "wishes": []}, "wishes is not known"),
    ],
)
def test_a_file_that_is_no_incident_is_one_sentence(tmp_path: Path, content: Any, words: str) -> None:
    file = tmp_path / "incident.json"
    file.write_text(json.dumps(content))
    definition = definitions.read(definitions.sources(None)[0])

    with pytest.raises(Misconfigured, match=words):
        rehearsal.read(definition, file, "acme", Policy(Embedded(policy.read())), PATIENCE)
