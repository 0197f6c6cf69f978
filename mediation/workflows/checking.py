"""What is wrong with a definition before it is in force: everything that could be known without running it.

The schema comes first; of what it accepts, the calls are held against what adapters, documents and policies know, and
the order of tasks against the promises of remediation: what changes the network is approved where the policy asks for
it, is compensated, is proven, and ends.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from time import time
from typing import Any, NamedTuple, get_args

import orjson

from convergedon.adapters import discovery
from convergedon.adapters.netconf import mapping as netconf
from convergedon.adapters.x733 import AlarmType, Severity
from convergedon.core import strict
from convergedon.core.bundles import Bundle
from convergedon.core.errors import Misconfigured
from convergedon.core.lifecycle import LIFECYCLES
from convergedon.core.policy import Policy, system
from convergedon.core.settings import Settings
from convergedon.handlers import documents
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.alarms import API as ALARMS
from convergedon.mediation.workflows import definitions, paths
from convergedon.mediation.workflows.course import filters as heard
from convergedon.mediation.workflows.definitions import Definition, Task, inner, is_effect, keyword, named
from convergedon.mediation.workflows.expressions import WORD, expressions, fault, is_expression

FUNCTIONS = ("approval", "clear", "http", "intent", "observe", "policy")
DIRECTIVES = ("continue", "exit", "end")
ERRORS = (
    *("refused", "rolledBack", "unknown", "policy", "notApproved"),
    *("timeout", "proof", "worse", "communication", "expression"),
)
"""The types of errors that tasks have, docs/workflows.md."""
COMPENSATING = ("call", "do", "for", "set", "switch")
"""The tasks of which a compensation consists: it waits for nobody."""
WORDS: Mapping[str, Sequence[str]] = {
    "state": LIFECYCLES["alarm"].initial,
    "perceivedSeverity": get_args(Severity),
    "alarmType": get_args(AlarmType),
}
"""The values that our document says in words."""
QUOTED = re.compile(r'"([^"\\\n]+)"')
LITERAL = r'\s*[!=]=\s*("[^"\\]*"|true\b|false\b|\d+\b)'
COMPARED = re.compile(rf"\.alarm\.(\w+){LITERAL}")
"""An attribute of the alarm that is compared with what is written there."""
HEARD = re.compile(rf"(?:\$\{{|\band\b|\bor\b|\bnot\b|\()\s*\.(\w+){LITERAL}")
"""The same of an event's alarm, where nothing says that it is of anything else."""


class Offered(NamedTuple):
    """The characteristics of a service: those that an intent may have, and those that can only be read."""

    asked: frozenset[str]
    read: frozenset[str] = frozenset()


Services = Mapping[str, Mapping[str, Offered]]
"""adapter -> service -> its characteristics, as far as they are known before anything is asked."""


@dataclass(frozen=True)
class Place:
    """Where a list of tasks stands: its path, the variables known there, and what came before it."""

    path: str
    variables: tuple[str, ...] = ()
    before: tuple[Task, ...] = ()
    compensating: bool = False
    forked: bool = False


@dataclass
class Findings:
    """``misled``: a task leads nowhere or back, so that the ways through the definition cannot be walked.

    ``said`` are the words of the policies that are set, where these are known.
    """

    source: str
    sentences: list[str] = field(default_factory=list)
    misled: bool = False
    said: frozenset[str] | None = None

    def add(self, path: str, words: str) -> None:
        self.sentences.append(f"{self.source}: {path}: {words}")


def services(settings: Settings) -> Services:
    """What the installed adapters are known to take. Raises Misconfigured."""
    file = strict.mapping_file(settings.mappings, "netconf.yaml", netconf.SHIPPED)
    known = {
        name: Offered(frozenset(service.leaves), frozenset(service.reads))
        for name, service in netconf.load(file).items()
    }
    return {**{name: {} for name in discovery.adapters()}, "netconf": known}


def words_of(rules: Bundle) -> frozenset[str]:
    """What stands in quotes in policies that are in force, and what their data grants to roles."""
    quoted = {word for text in rules.in_force.policies.values() for word in QUOTED.findall(text)}
    granted = [grant for grants in rules.data.get("roles", {}).values() for grant in grants.values()]
    return frozenset(quoted.union(*granted))


async def check_all(
    files: Iterable[Traversable | Path],
    known: Services,
    policy: Policy | None,
    tenant: str,
    secrets: Collection[str] = (),
    said: frozenset[str] | None = None,
) -> list[str]:
    """Every sentence about these files; an empty list when all of them may be put in force.

    ``secrets`` are the names of those that requests may use, ``said`` the words of the policies.
    """
    sentences: list[str] = []
    seen: dict[tuple[str, str], str] = {}
    for file in files:
        try:
            document = definitions.plain(strict.parsed(file)[1])
        except Misconfigured as error:
            sentences.append(str(error))
            continue
        if wrong := definitions.violations(document):
            sentences += [f"{file}: {words}" for words in wrong]
            continue
        definition = Definition(document, str(file))
        first = seen.setdefault((definition.name, definition.version), str(file))
        if first != str(file):
            sentences.append(f"{file}: {definition.name} {definition.version} is defined in {first} already")
            continue
        sentences += await check(definition, known, policy, tenant, secrets, said)
    return sentences


async def check(
    definition: Definition,
    known: Services,
    policy: Policy | None,
    tenant: str,
    secrets: Collection[str] = (),
    said: frozenset[str] | None = None,
) -> list[str]:
    """What is wrong with one definition that the schema accepts."""
    findings = Findings(definition.source, said=said)
    _trigger(findings, definition)
    _secrets(findings, definition, secrets)
    _tasks(findings, definition.document["do"], Place("do"), known)
    _errors(findings, definition)
    _waits(findings, definition)
    approved = True
    if definition.changes and policy:
        approved = await _policy(findings, definition, policy, tenant)
    if not findings.misled:
        _ways(findings, definition, approved)
    return findings.sentences


def _ways(findings: Findings, definition: Definition, approved: bool) -> None:
    """What is not proven, or not approved where it must be, on some way through the definition."""
    ways = paths.walked(definition.document["do"])
    for path in ways.unproven:
        words = "nothing after it proves what it did: listen to AlarmStateChangeEvent, or observe what it asked for"
        findings.add(path, f"{words}, on every way")
    for path in ways.unapproved if not approved else ():
        words = "the policy wants an approval, and no task before it asks for one (call approval) on every way"
        findings.add(path, words)


def _trigger(findings: Findings, definition: Definition) -> None:
    _expressions(findings, "schedule", definition.document["schedule"], ())
    changed = definition.trigger.get("fieldPath")
    if changed and not documents.shape(ALARMS.document, ALARM.schema).has(changed):
        findings.add("schedule", f"an alarm has no {changed} ({ALARMS.document})")


def _secrets(findings: Findings, definition: Definition, known: Collection[str]) -> None:
    """Each that a request uses is declared, and each that is declared is there."""
    for name in sorted(definition.secrets - set(known)):
        findings.add("use.secrets", f"there is no secret {name} in the file of CONVERGEDON_WORKFLOW_SECRETS")
    for path, task in definitions.every_task_and_compensation(definition.document["do"], "do"):
        used = definitions.endpoint(task["with"])[1] if task.get("call") == "http" else {}
        for name in sorted({one["use"] for one in used.values()} - definition.secrets):
            findings.add(path, f"secret {name} is not in use.secrets")


def _errors(findings: Findings, definition: Definition) -> None:
    """What is caught must be something that a task fails with."""
    tasks = list(definitions.every_task(definition.document["do"], "do"))
    raised = {str(task["raise"]["error"]["type"]) for _, task in tasks if "raise" in task}
    if any(is_expression(type_) for type_ in raised):
        return
    for path, task in tasks:
        caught = task["catch"].get("errors", {}).get("with", {}).get("type") if "try" in task else None
        if caught is not None and not is_expression(caught) and caught not in {*ERRORS, *raised}:
            words = f"no task fails with {caught}: there are {', '.join(ERRORS)}, and what raise says"
            findings.add(f"{path}/catch", words)


def _waits(findings: Findings, definition: Definition) -> None:
    whole = definitions.seconds(definition.document["timeout"]["after"])
    for path, task in definitions.every_task(definition.document["do"], "do"):
        if "wait" in task and definitions.seconds(task["wait"]) >= whole:
            findings.add(path, "it waits for as long as the workflow as a whole has, which fails by then")


# tasks


def _tasks(findings: Findings, tasks: Sequence[Task], place: Place, known: Services) -> None:
    names = [name for _, name, _ in named(tasks)]
    bodies = [task for _, _, task in named(tasks)]
    for number, name, task in named(tasks):
        path = f"{place.path}/{number}/{name}"
        if names.index(name) < number:
            findings.add(path, f"there is another task {name} in this list")
        here = Place(
            path,
            place.variables,
            (*place.before, *bodies[:number]),
            place.compensating,
            place.forked,
        )
        _task(findings, task, here, known)
        for directive in _directives(task):
            if words := _misled(directive, names, number):
                findings.add(path, words)
                findings.misled = True
        _below(findings, task, here, known)


def _below(findings: Findings, task: Task, here: Place, known: Services) -> None:
    for below, listed in inner(task):
        variables = here.variables
        if keyword(task) == "for":
            variables = (*variables, task["for"].get("each", "item"), task["for"].get("at", "index"))
        elif below == "catch/do":
            variables = (*variables, task["catch"].get("as", "error"))
        forked = here.forked or below == "fork/branches"
        place = Place(f"{here.path}/{below}", variables, here.before, here.compensating, forked)
        _tasks(findings, listed, place, known)
    if compensation := (task.get("metadata") or {}).get("compensate"):
        place = Place(f"{here.path}/metadata/compensate", here.variables, compensating=True)
        _tasks(findings, compensation, place, known)


def _task(findings: Findings, task: Task, here: Place, known: Services) -> None:
    kind = keyword(task)
    if not kind:
        findings.add(here.path, f"it must have one of {', '.join(definitions.KEYWORDS)}")
        return
    if here.compensating and kind not in COMPENSATING:
        findings.add(here.path, f"a compensation has no {kind}: it waits for nobody")
    if here.forked and "export" in task:
        findings.add(here.path, "export inside fork: the context would depend on which branch is first")
    own = {name: value for name, value in task.items() if name not in ("do", "fork", "try", "catch", "metadata")}
    _expressions(findings, here.path, own, _variables(task, here))
    if kind == "try":
        conditions = {name: value for name, value in task["catch"].items() if name != "do"}
        _expressions(findings, f"{here.path}/catch", conditions, (*here.variables, task["catch"].get("as", "error")))
    if kind == "listen":
        _heard(findings, here.path, task)
    if kind == "call":
        _call(findings, task, here, known)
    if is_effect(task) and not here.compensating and not (task.get("metadata") or {}).get("compensate"):
        findings.add(here.path, "it changes something outside and has no metadata.compensate that takes it back")


def _variables(task: Task, here: Place) -> tuple[str, ...]:
    if keyword(task) == "for":  # while sees the item; in does not, but its names do no harm there
        return (*here.variables, task["for"].get("each", "item"), task["for"].get("at", "index"))
    return here.variables


def _expressions(findings: Findings, path: str, value: Any, variables: Sequence[str]) -> None:
    for where, expression in expressions(value):
        if words := fault(expression, variables):
            findings.add(path, f"{where}: {words}")
        for member in _alarm_members(expression):
            if not documents.shape(ALARMS.document, ALARM.schema).has(member):
                findings.add(path, f"{where}: an alarm has no {member} ({ALARMS.document})")
        for member, literal in COMPARED.findall(expression):
            if words := _never(member, orjson.loads(literal)):
                findings.add(path, f"{where}: {words}")


def _heard(findings: Findings, path: str, task: Task) -> None:
    """What a listen waits for is an event of an alarm, which is its input."""
    for one in heard(task):
        for member, literal in HEARD.findall(one["with"].get("data", "")):
            if words := _never(member, orjson.loads(literal)):
                findings.add(path, f"listen: {words}")


def _never(member: str, value: Any) -> str:
    """Why an attribute of an alarm never is a value; empty where it may be."""
    if not documents.shape(ALARMS.document, ALARM.schema).has(member):
        return f"an alarm has no {member} ({ALARMS.document})"
    if member in WORDS:
        return "" if value in WORDS[member] else f"{member} of an alarm is one of {', '.join(WORDS[member])}"
    faults = documents.schema(ALARMS.document, ALARM.schema).faults({member: value})
    said = orjson.dumps(value).decode()
    return f"{member} of an alarm is never {said} ({ALARMS.document})" if [member] in faults else ""


def _alarm_members(expression: str) -> list[str]:
    """The members of the alarm that an expression names."""
    parts = expression.split(".alarm.")[1:]
    return [found[0] for part in parts if (found := WORD.findall(part.split(".")[0]))]


def _directives(task: Task) -> Iterator[str]:
    if "then" in task:
        yield task["then"]
    for case in task.get("switch") or ():
        for about in case.values():
            yield about["then"]


def _misled(directive: str, names: Sequence[str], number: int) -> str:
    """Why a task cannot lead there: only forward, so that every workflow ends."""
    if directive in DIRECTIVES:
        return ""
    if directive not in names:
        return f"then {directive}: there is no such task in this list"
    if names.index(directive) <= number:
        return f"then {directive}: it leads back, and the loop would have no bound; use for or retry"
    return ""


# calls


def _call(findings: Findings, task: Task, here: Place, known: Services) -> None:
    function = task["call"]
    if function not in FUNCTIONS:
        findings.add(here.path, f"there is no function {function}; known are {', '.join(FUNCTIONS)}")
        return
    if here.compensating and function not in ("intent", "http"):
        findings.add(here.path, f"a compensation does not call {function}")
    if function == "policy" and findings.said is not None:
        _asked(findings, task["with"]["action"], here.path)
    if function in ("intent", "observe"):
        _intent(findings, task, here, known)
    if function == "observe" and _looks_past(task["with"], here.before):
        findings.add(here.path, "it must observe what an intent before it asked for, in the same words")
    if function == "clear" and not any(_wants(one) for one in _flat(here.before)):
        findings.add(here.path, "an alarm is cleared on evidence: no observe comes before it")


def _asked(findings: Findings, action: str, path: str) -> None:
    """The gateway may do whatever no policy speaks of, so that a misspelt question is always answered with yes."""
    if not (is_expression(action) or action in (findings.said or ())):
        findings.add(path, f"no policy says anything of the action {action}: whatever it is asked of would be allowed")


def _flat(tasks: Iterable[Task]) -> Iterator[Task]:
    """The tasks, and all inside them."""
    for task in tasks:
        yield task
        for below, listed in inner(task):
            yield from (one for _, one in definitions.every_task(listed, below))


def _looks_past(seen: Mapping[str, Any], before: Iterable[Task]) -> bool:
    """Whether it wants something of a service that an intent has changed, and not what that asked for."""
    same = [
        one["with"]
        for one in _flat(before)
        if one.get("call") == "intent" and definitions.place(one["with"]) == definitions.place(seen)
    ]
    return bool(same) and seen["values"] != {} and not any(definitions.covers(seen, one) for one in same)


def _wants(task: Task) -> bool:
    return task.get("call") == "observe" and task["with"]["values"] != {}


def _intent(findings: Findings, task: Task, here: Place, known: Services) -> None:
    given = task["with"]
    adapter, service, values = given["adapter"], given["service"], given["values"]
    if is_expression(adapter):
        return
    if adapter not in known:
        findings.add(here.path, f"there is no adapter {adapter}; installed are {', '.join(sorted(known))}")
        return
    offered = known[adapter]
    if not offered or is_expression(service):
        return
    if service not in offered:
        findings.add(here.path, f"adapter {adapter} has no service {service}; it has {', '.join(sorted(offered))}")
        return
    asked, read = offered[service]
    named = values.keys() if isinstance(values, Mapping) else set()
    if unknown := sorted(named - asked - read):
        findings.add(here.path, f"service {service} has no characteristic {unknown[0]}")
    elif task["call"] == "intent" and (only := sorted(named & read)):
        findings.add(here.path, f"{only[0]} of service {service} can only be read: observe it")


# policy


async def _policy(findings: Findings, definition: Definition, policy: Policy, tenant: str) -> bool:
    """Whether the policy lets it run without anybody's approval; a finding where no approval would help either."""
    if (await _may(policy, definition, tenant, None)).allow:
        return True
    approver = {"id": "an-approver", "tenant": tenant, "roles": ["noc", "admin"], "issued": time()}
    also = {**approver, "id": "another-approver"}
    approval = {"by": approver, "time": time(), "decision": "approved", "second": {**_given(also)}}
    decision = await _may(policy, definition, tenant, approval)
    if not decision.allow:
        words = "; ".join(decision.reasons) or "no reason is given"
        findings.add("the policy", f"it would refuse every intent of {definition.name}, approved or not: {words}")
    return False


def _given(by: Mapping[str, Any]) -> dict[str, Any]:
    return {"by": by, "time": time(), "decision": "approved"}


async def _may(policy: Policy, definition: Definition, tenant: str, approval: Mapping[str, Any] | None) -> Any:
    resource: dict[str, Any] = {
        "kind": "intent",
        "tenant": tenant,
        "purpose": "remediation",
        "workflow": definition.name,
    }
    if approval:
        resource["approval"] = approval
    return await policy.decide(system(tenant), "perform", resource, {}, channel="check")
