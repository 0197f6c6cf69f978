"""Whether a bundle is fit to be put in force: its tests, and what its authors agreed on for every policy."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import PurePosixPath

from convergedon.core import rules
from convergedon.core.bundles import Bundle
from convergedon.core.engines import Embedded, compiled
from convergedon.core.errors import Unavailable
from convergedon.core.rules import REASONS, Rule

_ASKED = "create list retrieve patch delete receive perform run fulfil tell send prove remediate approve"
ACTIONS = frozenset(_ASKED.split())
"""What can be asked for, beside ``*``."""
BEYOND = {
    "time.now_ns": "use input.environment.time, or a decision could not be tried again",
    "http.send": "a decision rests on its question and data.json alone",
    "opa.runtime": "a decision rests on its question and data.json alone",
    "rand.intn": "the same question must have the same answer",
    "uuid.rfc4122": "the same question must have the same answer",
}
"""What a policy may not call, and why."""


def run_tests(bundle: Bundle) -> list[tuple[str, bool]]:
    """Evaluate every rule ``test_*`` of the packages whose name ends in ``_test``: (name, passed)."""
    engine = Embedded(bundle)
    return [(name, _passes(engine, name)) for name in _tests(bundle)]


def _tests(bundle: Bundle) -> Iterator[str]:
    for text in bundle.policies.values():
        lines = text.splitlines()
        package = next((line.split()[1] for line in lines if line.startswith("package ")), "")
        names = {line.split()[0] for line in lines if line.startswith("test_")}
        if package.endswith("_test"):
            yield from (f"{package}.{name}" for name in sorted(names))


def _passes(engine: Embedded, test: str) -> bool:
    try:
        return engine.ask(f"data.{test}", {}) is True
    except Unavailable:
        return False


def check(bundle: Bundle, kinds: Collection[str]) -> list[str]:
    """What is to be mended, a sentence each. ``kinds`` are those of the resources that are asked about.

    Raises Misconfigured for a bundle that does not compile or answer.
    """
    compiled(bundle)
    found = rules.parse(bundle)
    wrong = [*_places(found), *_defaults(found), *_calls(bundle), *_grants(bundle, kinds)]
    failed = [name for name, passed in run_tests(bundle) if not passed]
    if failed:  # what a test is worth shows only where all pass
        return [*wrong, f"{len(failed)} tests fail: {', '.join(failed)}"]
    return [*wrong, *_untested(bundle, found)]


def _places(found: list[Rule]) -> Iterator[str]:
    """The package follows the path."""
    packages = {rule.path: rule.package for rule in found}
    for path, package in packages.items():
        wanted = ".".join(PurePosixPath(path).with_suffix("").parts)
        if package != wanted:
            yield f"{path}: package {package} stands where package {wanted} should"


def _defaults(found: list[Rule]) -> Iterator[str]:
    """What nothing was said about is refused."""
    main = {rule.name: rule for rule in found if rule.package == "main" and rule.kind == "Default"}
    wanted: Mapping[str, Callable[[object], bool]] = {
        "allow": lambda value: value is False,
        "decision": lambda value: isinstance(value, dict) and value.get("allow") is False,
    }
    for name, denies in wanted.items():
        if name not in main:
            yield f"main.rego: there is no `default {name}`, so what nobody thought of would not be refused"
        elif not denies(main[name].value):
            yield f"{main[name].place}: the default of {name} must deny"


def _calls(bundle: Bundle) -> Iterator[str]:
    for path, text in bundle.policies.items():
        for number, line in enumerate(text.splitlines(), 1):
            code = re.sub(r'"(\\.|[^"\\])*"', '""', line).partition("#")[0]
            for name, why in BEYOND.items():
                if f"{name}(" in code:
                    yield f"{path}:{number}: {name} may not be called: {why}"


def _grants(bundle: Bundle, kinds: Collection[str]) -> Iterator[str]:
    """Grants of what is never asked for: a slip of the pen that would go unseen."""
    granted = bundle.data.get("roles")
    if not isinstance(granted, Mapping):
        return
    for role, given in granted.items():
        if not isinstance(given, Mapping):
            yield f"data.json: role {role} must map kinds of resources to lists of actions"
            continue
        for kind, actions in given.items():
            if kind != "*" and kind not in kinds:
                yield f"data.json: role {role} is granted {kind}, which is no kind of resource"
            if not isinstance(actions, list):
                yield f"data.json: role {role}: the actions on {kind} must be a list"
                continue
            unknown = [str(action) for action in actions if action != "*" and action not in ACTIONS]
            if unknown:
                yield f"data.json: role {role} may {', '.join(unknown)} {kind}, but nothing ever asks for that"


def _untested(bundle: Bundle, found: list[Rule]) -> Iterator[str]:
    """Rules without which every test passes as well: nobody would notice if they were gone.

    The tests beside a rule are asked first: most of the others have no use for it.
    """
    tests = list(_tests(bundle))
    for rule in found:
        if rule.kind == "Set" and rule.name == REASONS and not rule.is_test:
            left = Embedded(rules.without(bundle, rule))
            beside = f"{rule.package}_test."
            if all(_passes(left, test) for test in sorted(tests, key=lambda test: not test.startswith(beside))):
                yield f"{rule.place}: every test passes without this rule of {rule.package}: write one that needs it"


def strange_roles(bundle: Bundle, known: Collection[str]) -> list[str]:
    """Roles of data.json that are none of those that ship: whoever issues tokens must give them."""
    granted = bundle.data.get("roles")
    return sorted(set(granted) - set(known)) if isinstance(granted, Mapping) else []
