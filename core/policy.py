"""The one decision point: what may happen, asked on four paths (REST calls, deliveries, steps of flows, intents).

A question is {subject, action, resource, body, before, channel, environment}; the answer is ``data.main.decision`` of
the policies: {allow, reasons, filter, obligations}. A policy that cannot be asked says no: Unavailable, and nothing is
done.

``resource`` has kind and tenant, and by channel: rest and console id and api; delivery of (the kind it tells of),
record, type and parties; flow, of a step its name, of, record and owner, of an order that is begun id, owner and sites,
of a notification id and parties, and under rules type, severity and quiet; notification the same and via and viaKind;
link id, parties and of; adapter device, deviceTenant, service, site, order, owner, purpose, workflow and approval.
docs/policies.md says what each of them is.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import Any
from urllib.parse import urlsplit

import orjson

from convergedon.core import metrics
from convergedon.core.bundles import Bundle, read
from convergedon.core.checking import run_tests
from convergedon.core.engines import RULE, Closed, Embedded, Engine, OpaServer
from convergedon.core.errors import Forbidden, Unavailable
from convergedon.core.store import Record

__all__ = [
    "OBLIGATIONS",
    "RULE",
    "Bundle",
    "Closed",
    "Decision",
    "Embedded",
    "Engine",
    "OpaServer",
    "Policy",
    "Subject",
    "known",
    "made",
    "read",
    "recalled",
    "run_tests",
    "system",
]

OBLIGATIONS: Mapping[str, frozenset[str]] = {
    "receive": frozenset({"redact", "mask"}),
    "tell": frozenset({"redact", "mask", "notBefore"}),
    "send": frozenset({"redact", "mask"}),
    "fulfil": frozenset({"notBefore"}),
}
"""Those that the gateway can carry out, by action: nothing else that a policy obliges to is understood."""

OTHER_KINDS = frozenset({"intent", "hub", "event", "step", "console", "readiness"})
"""Kinds of resources that are asked about and are none of an API."""


@dataclass(frozen=True)
class Subject:
    """Who acts: a client by its token, or the gateway itself (role system).

    ``issued`` is when it was given its roles (a token's iat, in seconds since the epoch), where that is known.
    """

    id: str
    tenant: str
    roles: tuple[str, ...]
    party: str | None = None
    issued: float | None = None

    @property
    def document(self) -> dict[str, Any]:
        """What policies are told, and what is kept beside a record to ask for its owner later."""
        named = {"id": self.id, "tenant": self.tenant, "roles": list(self.roles)}
        more = {"party": self.party or None, "issued": self.issued}
        return named | {name: value for name, value in more.items() if value is not None}


def recalled(document: Mapping[str, Any], allow: bool) -> Decision:
    """A decision that another process made, from what it told of it: its id and ``Decision.told``."""
    seconds = document["ms"] / 1000
    return Decision(document["id"], allow, (), {}, document["revision"], {}, document["input"], seconds)


def known(document: Mapping[str, Any]) -> Subject:
    """The subject that a document tells of."""
    return Subject(
        document["id"],
        document["tenant"],
        tuple(document["roles"]),
        document.get("party"),
        document.get("issued"),
    )


def system(tenant: str) -> Subject:
    return Subject("convergedon", tenant, ("system",))


@dataclass(frozen=True)
class Decision:
    """``filter`` narrows what may be seen: to the subject's tenant ({"tenant": ...}) always, and by {"parties": [...]}
    to what concerns one of them.

    ``obligations`` are what whoever goes on must do besides; what it cannot do it must not go on with. ``input`` is the
    keyed hash of the question, ``seconds`` how long the answer took.
    """

    id: str
    allow: bool
    reasons: tuple[str, ...]
    filter: Mapping[str, Any]
    revision: str
    obligations: Mapping[str, Any] = field(default_factory=dict)
    input: str = ""
    seconds: float = 0.0

    @property
    def told(self) -> dict[str, Any]:
        """What an audit record says of it beside its id."""
        return {"revision": self.revision, "input": self.input, "ms": round(1000 * self.seconds, 3)}

    @property
    def where(self) -> dict[str, Any]:
        """The records that it lets through, for the store."""
        parties = self.filter.get("parties")
        return {"tenant": self.filter["tenant"]} | ({} if parties is None else {"facts.parties": {"$in": [*parties]}})

    def sees(self, record: Record) -> bool:
        """Whether it lets a record through."""
        parties = self.filter.get("parties")
        concerned = parties is None or set(parties) & set(record.facts.get("parties", []))
        return record.tenant == self.filter["tenant"] and bool(concerned)

    def require(self) -> Decision:
        """Raise Forbidden with the reasons unless it is allowed."""
        if not self.allow:
            raise Forbidden(self.reasons, self.id)
        return self


Taken = Callable[[Decision, str, bytes], None]
"""Is told each decision, the tenant it was made for, and its question as JSON."""


class Policy:
    """Asks the engine that is in force. It can be replaced at any time: a question under way is answered by the one
    that it was put to, and its decision says which that was.

    ``key`` makes the hashes of questions, the same in every process; ``taken`` must not wait.
    """

    def __init__(
        self, engine: Engine, key: bytes = b"", taken: Taken = lambda decision, tenant, question: None
    ) -> None:
        self._engine, self._key, self._taken = engine, key or secrets.token_bytes(32), taken

    @property
    def revision(self) -> str:
        return self._engine.revision

    def swap(self, engine: Engine) -> None:
        """Put another engine in force, from the next question on."""
        self._engine = engine

    async def ping(self) -> None:
        """Ask something that every policy answers. Raises Unavailable when there is no decision."""
        nobody = Subject("readiness", "", ())
        await self.decide(nobody, "retrieve", {"kind": "readiness"}, channel="readiness")

    async def decide(
        self,
        subject: Subject,
        action: str,
        resource: Mapping[str, Any],
        body: Any = None,
        before: Any = None,
        channel: str = "rest",
    ) -> Decision:
        """Ask. Raises Unavailable when there is no answer, or one that is not a decision."""
        now = time()
        question = {
            "subject": subject.document,
            "action": action,
            "resource": resource,
            "body": _public(body) if resource.get("kind") == "hub" else body,
            "before": before,
            "channel": channel,
            "environment": {"time": int(now)},
        }
        begun, engine = perf_counter(), self._engine
        try:
            content = orjson.dumps(question, option=orjson.OPT_SORT_KEYS)
        except orjson.JSONEncodeError as error:
            raise Unavailable(f"the policy could not be asked: {error}") from error
        answer = await engine.evaluate(question)
        revision = engine.revision  # at once: after the next wait it may be that of another answer
        if not is_decision(answer, question):
            raise Unavailable("the policy gave no decision")
        metrics.DECISIONS.labels(channel, str(answer["allow"]).lower()).inc()
        decision = Decision(
            _id(now),
            answer["allow"],
            tuple(answer.get("reasons", ())),
            {"tenant": subject.tenant, **(answer.get("filter") or {})},
            revision,
            answer.get("obligations") or {},
            hmac.digest(self._key, content, "sha256").hex(),
            perf_counter() - begun,
        )
        if channel != "readiness":
            self._taken(decision, subject.tenant, content)
        return decision


def _id(now: float) -> str:
    """An id that says when, to the millisecond (a UUID of version 7): a decision is found in its log by its time."""
    chance = secrets.token_hex(9)
    return f"{int(now * 1000):012x}7{chance[:3]}8{chance[3:]}"


def made(id: str) -> float | None:
    """When the decision of this id was made; None if it is no id of a decision."""
    if len(id) != 32 or id[12] != "7":
        return None
    try:
        return int(id[:12], 16) / 1000
    except ValueError:
        return None


def _public(body: Any) -> Any:
    """A registration without the secrets that its callback may hold: a policy sees where it leads, and no log more."""
    if not isinstance(body, Mapping) or not isinstance(body.get("callback"), str):
        return body
    try:
        parts = urlsplit(body["callback"])
    except ValueError:
        return {**body, "callback": ""}
    if not parts.scheme or not parts.netloc:
        return {**body, "callback": ""}
    return {**body, "callback": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"}


def is_decision(answer: Any, question: Mapping[str, Any]) -> bool:
    """Whether an answer has the form that is agreed: a filter that is not understood, or another tenant's, would show
    too much, and an obligation that is not would be left undone.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get("allow"), bool):
        return False
    found, obliged = answer.get("filter") or {}, answer.get("obligations") or {}
    tenant = question["subject"]["tenant"]
    return (
        isinstance(obliged, Mapping)
        and not obliged.keys() - OBLIGATIONS.get(question["action"], frozenset())
        and all(_is_obligation(name, value) for name, value in obliged.items())
        and _is_texts(answer.get("reasons", []))
        and isinstance(found, Mapping)
        and not found.keys() - {"tenant", "parties"}
        and found.get("tenant", tenant) == tenant
        and _is_texts(found.get("parties", []))
    )


def _is_obligation(name: str, value: Any) -> bool:
    if name == "notBefore":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return _is_texts(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
