"""A rehearsal: what a workflow would do about an incident that was recorded, without anything being done.

Everything outside is assumed to answer well, but for what the file of the incident says otherwise. Waits take no time,
and a listen hears the events of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from convergedon.core import strict
from convergedon.core.errors import Misconfigured
from convergedon.core.policy import Policy, system
from convergedon.handlers.resource import now
from convergedon.mediation.workflows import past, proof
from convergedon.mediation.workflows.course import Ask, Error, Walked, error, walk, walk_back
from convergedon.mediation.workflows.definitions import Definition, endpoint
from convergedon.mediation.workflows.guards import may_begin, triggered
from convergedon.mediation.workflows.past import Past, Recorded

MEMBERS = {"incident", "earlier", "answers", "events", "tenant"}
LONGEST = 200
"""Characters of what is shown of one thing."""


@dataclass
class Rehearsal:
    """``answers``: name of a task -> {output: ...} or {error: {type, ...}}; ``events``: [{type, data}]; ``patience``:
    seconds for which it would wait for a device that another run has.
    """

    definition: Definition
    incident: Mapping[str, Any]
    answers: Mapping[str, Any]
    events: list[Mapping[str, Any]]
    tenant: str
    policy: Policy
    patience: float
    recorded: Recorded
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @property
    def _about(self) -> dict[str, Any]:
        return {"id": "rehearsal", "input": self.incident, "startedAt": {"iso8601": "1970-01-01T00:00:00.000Z"}}

    async def run(self) -> list[str]:
        """One line for each step, and how it would end."""
        if not triggered(self.definition, self.incident):
            return [f"{self.definition.name} would not begin: its condition is not met by this incident"]
        refusal, holder = await self._refused()
        if refusal:
            return [f"it would be refused, and a person would be told: {refusal}"]
        if holder:
            self.lines.append(f"waits for its turn: {holder}")
        walked = await self._through(walk)
        wrong = walked.error or (proof.missing() if proof.unproven(self.told) else None)
        if wrong is None:
            return [*self.lines, "it would end completed"]
        self.lines.append(f"it would fail: {_words(wrong)}")
        back = await self._through(walk_back)
        for path, wrong in back.unsuccessful:
            self.lines.append(f"{path} could not be taken back: {_words(wrong)}")
        state = "failed" if back.unsuccessful else "compensated"
        return [*self.lines, f"it would end {state}, and a person would be told"]

    async def _refused(self) -> tuple[str, str]:
        """Why it may not begin, and what it waits for, going by what happened before; how often it ran there then is
        its input.
        """
        name, target = self.definition.name, self.incident["target"]
        before, moment = self.recorded.of(name, str(self.incident["alarm"].get("id", "")))
        self.incident = {"earlier": before.earlier(name, target["object"]), **self.incident}
        figures = before.figures(name, self.incident, moment)
        decision = await may_begin(
            self.policy,
            self.tenant,
            self.definition,
            target["device"],
            known=self.recorded.known,
            stopped=self.recorded.stopped(moment),
            **figures,
        )
        if not decision.allow:
            return "; ".join(decision.reasons), ""
        holder = before.holder(moment) if self.definition.changes else None
        if holder is None:
            return "", ""
        why = f"{target['device']} is locked by workflow {holder.workflow}"
        if not self.patience:
            return why, ""
        if holder.endedAt and holder.is_under_way(moment + self.patience):
            return f"{why}; its turn did not come in time", ""
        return "", why

    async def _through(self, go: Any) -> Walked:
        while True:
            walked: Walked = go(self.definition, self._about, self.told, self.events)
            for heard in walked.heard:
                self._tell(Ask(heard.path, heard.path.rpartition("/")[2], "listen", None), self.events[heard.number])
                self.told[heard.path] |= {"event": heard.number, "output": self.events[heard.number]["data"]}
            if not (walked.asks or walked.heard):
                return walked
            for ask in walked.asks:
                await self._answer(ask)

    async def _answer(self, ask: Ask) -> None:
        said = self.answers.get(ask.name)
        if ask.function == "listen":
            said = said or {"error": error("timeout", 408, "time-out", f"{ask.name}: no answer in time", ask.path)}
        if ask.function == "intent" and (refusal := await self._refusal(ask)):
            said = {"error": error("policy", 403, "the policy refuses it", refusal, ask.path)}
        if ask.function == "policy":
            said = said or {"output": await self._decided(ask)}
        self._tell(ask, said or {"output": _usual(ask)})

    def _tell(self, ask: Ask, said: Mapping[str, Any]) -> None:
        entry: dict[str, Any] = {"order": len(self.told), "name": ask.name, "function": ask.function}
        entry["given"] = ask.given
        if "error" in said:
            wrong = {"status": 500, "title": "", "detail": "", "instance": ask.path, **said["error"]}
            entry |= {"status": "failed", "error": wrong, "unknown": wrong["type"] == "unknown"}
            came = f"fails: {_words(wrong)}"
        else:
            entry |= {"status": "done", "output": said.get("output")}
            came = f"is told {_shown(said.get('output', said.get('data')))}"
        self.told[ask.path] = entry
        self.lines.append(f"{ask.path}: {_wording(ask)} and {came}")

    async def _refusal(self, ask: Ask) -> str:
        """Why the policy would refuse it even though persons have approved; empty when it would not."""
        if ask.given["device"] != self.incident["target"]["device"]:
            return f"{ask.given['device']} is not the device of the alarm"
        resource: dict[str, Any] = {"kind": "intent", "tenant": self.tenant, "workflow": self.definition.name}
        resource |= {"purpose": "undo" if "/compensate/" in ask.path else "remediation"}
        resource |= {name: ask.given[name] for name in ("device", "service", "site") if ask.given.get(name)}
        decision = await self.policy.decide(
            system(self.tenant), "perform", resource, ask.given["values"], channel="flow"
        )
        wanting = [reason for reason in decision.reasons if "approval" not in reason]
        return "; ".join(wanting)

    async def _decided(self, ask: Ask) -> Any:
        resource = {**ask.given["resource"], "tenant": self.tenant}
        body = ask.given.get("body")
        decision = await self.policy.decide(system(self.tenant), ask.given["action"], resource, body, channel="flow")
        return {"allow": decision.allow, "reasons": list(decision.reasons)}


def read(definition: Definition, file: Path, tenant: str, policy: Policy, patience: float) -> Rehearsal:
    """A rehearsal with an incident file. Raises Misconfigured."""
    given = strict.parsed(file)[1]
    if not isinstance(given, Mapping) or not isinstance(given.get("incident"), Mapping):
        raise Misconfigured(f"{file}: incident is missing; `convergedon workflow record` writes such a file")
    if unknown := sorted(given.keys() - MEMBERS):
        raise Misconfigured(f"{file}: {unknown[0]} is not known; there are {', '.join(sorted(MEMBERS))}")
    if missing := sorted({"alarm", "target", "services", "confirmed"} - given["incident"].keys()):
        raise Misconfigured(f"{file}: incident.{missing[0]} is missing")
    whose = str(given.get("tenant", tenant))
    answers, events = given.get("answers") or {}, list(given.get("events") or [])
    return Rehearsal(definition, given["incident"], answers, events, whose, policy, patience, _earlier(file, given))


def _earlier(file: Path, given: Mapping[str, Any]) -> Recorded:
    """What happened before; nothing, where the file says nothing. Raises Misconfigured."""
    if "earlier" not in given:
        return Recorded(now(), Past())
    try:
        return past.read(given["earlier"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise Misconfigured(f"{file}: earlier is not as `convergedon workflow record` writes it: {error}") from error


def _usual(ask: Ask) -> Any:
    match ask.function:
        case "intent":
            return {"status": "applied", "words": "", "diff": {}}
        case "observe":
            return {"state": ask.given["values"]}
        case "approval":
            return {"by": ["a person"]}
    return None


def _wording(ask: Ask) -> str:
    match ask.function:
        case "wait":
            return f"waits {ask.within:g} s"
        case "approval":
            return (
                f"would ask {ask.given.get('persons', 1)} person(s) where the policy wants it: {ask.given['question']}"
            )
        case "intent" | "observe":
            given = ask.given
            verb = "ask" if ask.function == "intent" else "look at"
            return (
                f"would {verb} {given['device']} for {given['service']} {given['instance']} {_shown(given['values'])}"
            )
        case "http":
            url, authentication = endpoint(ask.given)
            known = "".join(f" with secret {one['use']}" for one in authentication.values())
            return f"would {ask.given['method']} {url}{known} {_shown(ask.given.get('body'))}"
        case "listen":
            return f"listens for {ask.within:g} s" if ask.within else "listens"
    return f"would {ask.function} {_shown(ask.given)}"


def _shown(value: Any) -> str:
    text = "nothing" if value is None else orjson.dumps(value).decode()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _words(wrong: Error) -> str:
    return f"{wrong['type']}: {wrong['detail'] or wrong['title']}"
