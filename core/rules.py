"""The rules of a bundle, each with its place, so that one of them can be asked alone or taken away.

Read from the engine's own syntax tree: what it runs is what is found here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from convergedon.core import bundles
from convergedon.core.bundles import Bundle
from convergedon.core.engines import Embedded
from convergedon.core.errors import Unavailable

REASONS = "reasons"
GRANTS = ("granted", "granting_roles")
"""What the rules are called that speak for an action."""


@dataclass(frozen=True)
class Rule:
    """``kind`` is how it begins: as a member of a set, as a value, as a function or as a default.

    ``value`` is that of a default, where it is true or false or an object.
    """

    package: str
    name: str
    kind: Literal["Set", "Compr", "Func", "Default"]
    path: str
    line: int
    begins: int
    ends: int
    value: Any = None

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def is_test(self) -> bool:
        return self.package.endswith("_test")


def parse(bundle: Bundle) -> list[Rule]:
    """Every rule in the order of the texts. Raises Misconfigured for policies that do not compile."""
    modules = json.loads(Embedded(bundle).tree())
    return [rule for module in modules for rule in _rules(module)]


def _rules(module: Mapping[str, Any]) -> Iterable[Rule]:
    tree, path = module["ast"], module["source"]["file"]
    package = ".".join(_names(tree["package"]["refr"]))
    found = [next(iter(rule.items())) for rule in tree["rules"]]
    starts = [rule["span"]["start"] for _, rule in found]
    ends = [*starts[1:], len(module["source"]["contents"].encode())]
    for (kind, rule), begins, end in zip(found, starts, ends, strict=True):
        head = rule if kind == "Default" else next(iter(rule["head"].values()))
        shape: Any = "Default" if kind == "Default" else next(iter(rule["head"]))
        name = ".".join(_names(head["refr"]))
        yield Rule(package, name, shape, path, rule["span"]["line"], begins, end, _value(rule.get("value")))


def _names(reference: Mapping[str, Any]) -> list[str]:
    """The parts of ``a.b["c"]``."""
    kind, node = next(iter(reference.items()))
    if kind == "RefDot":
        return [*_names(node["refr"]), node["field"][1]]
    if kind == "RefBrack":
        return [*_names(node["refr"]), *_names(node["index"])]
    return [str(node.get("value", ""))]


def _value(node: Mapping[str, Any] | None) -> Any:
    kind, content = next(iter((node or {"": {}}).items()))
    if kind == "Object":
        return {_value(key): _value(value) for _, key, value in content["fields"]}
    return content.get("value") if kind in ("Bool", "String", "Number") else None


def without(bundle: Bundle, rule: Rule) -> Bundle:
    """The bundle as it would be if this member of a set never were in it; every other rule stays where it is."""
    text = bundle.policies[rule.path].encode()
    lines = text[rule.begins : rule.ends].count(b"\n")
    never = f'{rule.name} contains "never" if false'.encode() + b"\n" * lines
    changed = (text[: rule.begins] + never + text[rule.ends :]).decode()
    return bundles.bundle({**bundle.policies, rule.path: changed}, bundle.data)


class Apart:
    """A bundle whose rules for and against can be asked one at a time: each stands in it once more by its own name."""

    def __init__(self, bundle: Bundle) -> None:
        kept = [rule for rule in parse(bundle) if not rule.is_test]
        self._against = [rule for rule in kept if rule.kind == "Set" and rule.name == REASONS]
        self._grants = [rule for rule in kept if rule.kind in ("Set", "Compr") and rule.name in GRANTS]
        texts = {path: text for path, text in bundle.policies.items() if not path.endswith(bundles.TESTS)}
        for rule in (*self._against, *self._grants):
            own = bundle.policies[rule.path].encode()[rule.begins : rule.ends].decode().removeprefix(rule.name)
            texts[rule.path] += f"\n{_own(rule)}{own}"
        self._engine = Embedded(bundles.bundle(texts, bundle.data))
        self._roles = [role for role in bundle.data.get("roles", ()) if role != "system"]

    def decision(self, question: Mapping[str, Any]) -> Any:
        """Raises Unavailable."""
        return self._engine.ask("data.main.decision", question)

    def against(self, question: Mapping[str, Any]) -> list[tuple[Rule, list[str]]]:
        """The rules that gave reasons, with them."""
        asked = [(rule, self._ask(rule, question)) for rule in self._against]
        return [(rule, said) for rule, said in asked if said and isinstance(said, list)]

    def grants(self, question: Mapping[str, Any]) -> list[tuple[Rule, Any]]:
        """The rules that spoke for it, with what they said: true, or the members of a set."""
        asked = [(rule, self._ask(rule, question)) for rule in self._grants]
        return [(rule, said) for rule, said in asked if said]

    def granting(self) -> Sequence[Rule]:
        return self._grants

    def roles_that_may(self, question: Mapping[str, Any]) -> list[str]:
        """The roles with any one of which alone the same would be allowed."""
        return [role for role in self._roles if self._allowed_to(role, question)]

    def _allowed_to(self, role: str, question: Mapping[str, Any]) -> bool:
        subject = {**question["subject"], "roles": [role]}
        try:
            answer = self.decision({**question, "subject": subject})
        except Unavailable:
            return False
        return isinstance(answer, Mapping) and answer.get("allow") is True

    def _ask(self, rule: Rule, question: Mapping[str, Any]) -> Any:
        try:
            return self._engine.ask(f"data.{rule.package}.{_own(rule)}", question)
        except Unavailable:
            return None


def _own(rule: Rule) -> str:
    return f"{rule.name}_of_line_{rule.line}"
