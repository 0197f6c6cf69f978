"""Decisions of the past, looked at again: why one was made, and which another bundle would have made otherwise.

Both work on recorded questions. Nothing is done a second time.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from convergedon.core.bundles import Bundle
from convergedon.core.decisions import Entry
from convergedon.core.errors import Misconfigured, Unavailable
from convergedon.core.policy import is_decision
from convergedon.core.rules import Apart

Former = Callable[[str], Bundle | None]
"""Finds the bundle of a revision, where it is still known."""
EXAMPLES = 3


def explain(entry: Entry, bundle: Bundle | None) -> str:
    """Why a decision was made, rule by rule, as far as the policies that made it are still known."""
    return "\n".join([*_head(entry), *_because(entry, bundle)])


def _head(entry: Entry) -> Iterator[str]:
    yield f"decision  {entry.id}"
    yield f"made      {_moment(entry.at)} by revision {entry.revision}, in {entry.ms:g} ms"
    question = entry.question
    if question is not None:
        subject, resource = question.get("subject") or {}, question.get("resource") or {}
        party = f", party {subject['party']}" if subject.get("party") else ""
        roles = ", ".join(map(str, subject.get("roles") or ())) or "none"
        yield f"subject   {subject.get('id')} of tenant {subject.get('tenant')}{party}, roles {roles}"
        yield f"asked     {question.get('action')} {_named(resource)}, on channel {question.get('channel')}"
    yield f"answer    {'allowed' if entry.allow else 'refused'}"
    for name, value in (("filter", entry.filter), ("obliged", entry.obligations)):
        if value:
            yield f"{name:<10}{value}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _named(resource: Mapping[str, Any]) -> str:
    id = f" {resource['id']}" if resource.get("id") else ""
    rest = {name: value for name, value in resource.items() if name not in ("kind", "id", "api") and value}
    more = ", ".join(f"{name} {value}" for name, value in sorted(rest.items()))
    return f"{resource.get('kind')}{id}" + (f" ({more})" if more else "")


def _because(entry: Entry, bundle: Bundle | None) -> Iterator[str]:
    """The rules that were for it and against it."""
    if entry.question is None or bundle is None:
        why = "its question was too large to be kept" if bundle else f"the policies {entry.revision} are not known here"
        for reason in entry.reasons:
            yield f"against   {reason}"
        yield f"the rules cannot be named: {why}"
        return
    apart = Apart(bundle)
    against = apart.against(entry.question)
    for rule, reasons in against:
        for reason in reasons:
            yield f"against   {rule.place} ({rule.package}): {reason}"
    for reason in set(entry.reasons).difference(*(reasons for _, reasons in against)):
        yield f"against   {reason}"
    grants = apart.grants(entry.question)
    for rule, said in grants:
        yield f"for       {rule.place} ({rule.package}): {rule.name}" + ("" if said is True else f" {_listed(said)}")
    if not grants:
        asked = ", ".join(f"{rule.place} ({rule.package}.{rule.name})" for rule in apart.granting())
        yield f"for       nothing: none of {asked} holds"
    if not entry.allow:
        may = apart.roles_that_may(entry.question)
        yield "roles     " + (f"{', '.join(may)} would have been allowed" if may else "none would have been allowed")


def _listed(said: Any) -> str:
    return ", ".join(map(str, said)) if isinstance(said, list) else str(said)


@dataclass
class Change:
    """Decisions that would be made otherwise, for one and the same cause."""

    change: str
    rule: str
    reason: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, id: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(id)


@dataclass
class Replay:
    """What a bundle would have decided in the place of others."""

    revision: str
    decisions: int = 0
    same: int = 0
    changes: list[Change] = field(default_factory=list)
    failures: list[Change] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        failed = [
            {name: value for name, value in asdict(one).items() if name not in ("change", "rule")}
            for one in self.failures
        ]
        return {
            "revision": self.revision,
            "decisions": self.decisions,
            "same": self.same,
            "changed": sum(one.count for one in self.changes),
            "changes": [asdict(one) for one in self.changes],
            "notReplayed": failed,
        }

    @property
    def words(self) -> str:
        changed = sum(one.count for one in self.changes)
        lines = [f"{self.decisions} decisions tried on revision {self.revision}: {changed} would change"]
        for one in self.changes:
            where = f" ({one.rule})" if one.rule else ""
            lines += [f"{one.count:>8}  {one.change}: {one.reason}{where}", f"{'':10}such as {', '.join(one.examples)}"]
        for one in self.failures:
            lines += [
                f"{one.count:>8}  could not be tried: {one.reason}",
                f"{'':10}such as {', '.join(one.examples)}",
            ]
        return "\n".join(lines)


async def replay(entries: AsyncIterator[Entry], bundle: Bundle, former: Former) -> Replay:
    """Ask a bundle what others were asked. Raises Misconfigured when it does not compile."""
    trial, result = _Trial(bundle, former), Replay(bundle.revision)
    changes: dict[tuple[str, str], Change] = {}
    failures: dict[str, Change] = {}
    async for entry in entries:
        result.decisions += 1
        try:
            found = trial.change(entry)
        except Unavailable as error:
            reason = " ".join(str(error).split())
            failures.setdefault(reason, Change("", "", reason)).add(entry.id)
            continue
        if found is None:
            result.same += 1
            continue
        kind, rule, reason = found
        key = (kind, rule or _pattern(reason))
        changes.setdefault(key, Change(kind, rule, reason)).add(entry.id)
    result.changes = sorted(changes.values(), key=lambda one: (-one.count, one.change, one.rule))
    result.failures = sorted(failures.values(), key=lambda one: -one.count)
    return result


class _Trial:
    """The bundle on trial beside those that decided."""

    def __init__(self, bundle: Bundle, former: Former) -> None:
        self._apart, self._former = Apart(bundle), former
        self._known: dict[str, Apart | None] = {}
        self._places: dict[tuple[Any, ...], str] = {}

    def change(self, entry: Entry) -> tuple[str, str, str] | None:
        """What would be otherwise, by which rules, for which reasons. Raises Unavailable if it cannot be tried."""
        if entry.question is None:
            raise Unavailable("the question was too large to be kept")
        answer = self._apart.decision(entry.question)
        if not is_decision(answer, entry.question):
            raise Unavailable("the policies give no decision")
        if answer["allow"] and not entry.allow:
            return "refused -> allowed", *self._causes(self._before(entry.revision), entry.question, entry.reasons)
        if entry.allow and not answer["allow"]:
            return "allowed -> refused", *self._causes(self._apart, entry.question, answer["reasons"])
        if not entry.allow:
            return None
        own = {"tenant": entry.question["subject"]["tenant"]}
        for name, before, always in (("filter", entry.filter, own), ("obligations", entry.obligations, {})):
            after = {**always, **(answer.get(name) or {})}
            if after != before:
                return f"other {name}", "", f"{_shape(before)} -> {_shape(after)}"
        return None

    def _before(self, revision: str) -> Apart | None:
        """The bundle that decided, taken apart; None where nobody knows it any more."""
        if revision not in self._known:
            bundle = self._former(revision)
            try:
                self._known[revision] = Apart(bundle) if bundle else None
            except Misconfigured:
                self._known[revision] = None
        return self._known[revision]

    def _causes(self, apart: Apart | None, question: Mapping[str, Any], reasons: Any) -> tuple[str, str]:
        """The places of the rules that refused, and what they said.

        The rules are asked once for each kind of question and reason: all of them take a millisecond.
        """
        about = (question["resource"].get("kind"), question["action"], question["channel"])
        key = (id(apart), *about, *map(_pattern, reasons))
        if key not in self._places:
            said = apart.against(question) if apart else []
            self._places[key] = ", ".join(rule.place for rule, _ in said)
        return self._places[key], "; ".join(reasons) or "nothing grants it"


def _pattern(reason: str) -> str:
    """A reason without its figures: one rule gives a thousand of them."""
    return re.sub(r"\d+(\.\d+)?", "N", reason)


def _shape(value: Mapping[str, Any]) -> str:
    """What a filter or an obligation is about, whoever it concerns."""
    return ", ".join(sorted(value)) or "none"
