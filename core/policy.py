"""The one decision point: what may happen, asked on every path (REST calls, deliveries, intents to devices).

A question is {subject, action, resource, body, before, channel, environment}; the answer is ``data.main.decision`` of
the policies: {allow, reasons, filter, obligations}. A policy that cannot be asked says no: Unavailable, and nothing is
done.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from time import perf_counter, time
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import orjson

from convergedon.core import metrics
from convergedon.core.errors import Forbidden, Misconfigured, Unavailable

RULE = "data.main.decision"
OBLIGATIONS: frozenset[str] = frozenset()
"""Those that the gateway can carry out."""


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
    """``filter`` narrows what may be seen: {"parties": [...]} lets through only what concerns one of them.

    ``obligations`` are what whoever goes on must do besides; what it cannot do it must not go on with. ``input`` is the
    hash of the question, ``seconds`` how long the answer took.
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

    def require(self) -> Decision:
        """Raise Forbidden with the reasons unless it is allowed."""
        if not self.allow:
            raise Forbidden(self.reasons, self.id)
        return self


class Engine(Protocol):
    """Something that evaluates Rego. ``revision`` is the hash of the policies' content."""

    revision: str

    async def evaluate(self, question: Mapping[str, Any]) -> Any: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Bundle:
    """The texts of policies and their data, by path below the policy folder."""

    policies: Mapping[str, str]
    data: Mapping[str, Any]
    revision: str = field(default="")


def read(folder: Path | None = None) -> Bundle:
    """Read the policies of a folder, or those that ship. Raises Misconfigured when it has none."""
    root = folder or files("convergedon.policies")
    policies, data = dict(_texts(root)) if root.is_dir() else {}, root / "data.json"
    if not policies:
        raise Misconfigured(f"no policies (*.rego) in {root}")
    try:
        values = json.loads(data.read_text()) if data.is_file() else {}
    except ValueError as error:
        raise Misconfigured(f"{data} is not JSON: {error}") from error
    content = json.dumps([policies, values], sort_keys=True).encode()
    return Bundle(policies, values, hashlib.sha256(content).hexdigest()[:12])


def _texts(folder: Any, prefix: str = "") -> Sequence[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        path = f"{prefix}{entry.name}"
        if isinstance(entry, Path) and entry.is_symlink() and entry.is_dir():
            continue  # it may lead back to where it stands
        if entry.is_dir():
            found.extend(_texts(entry, f"{path}/"))
        elif path.endswith(".rego"):
            found.append((path, entry.read_text()))
    return found


class Embedded:
    """The Rego engine in the process (regorus)."""

    def __init__(self, bundle: Bundle) -> None:
        try:
            import regorus
        except ImportError as error:
            raise Misconfigured(
                "there is no Rego engine for this machine: set CONVERGEDON_OPA_URL to an Open Policy Agent server"
            ) from error
        self.revision = bundle.revision
        self._engine: Any = regorus.Engine()
        try:
            for path, text in bundle.policies.items():
                self._engine.add_policy(path, text)
            self._engine.add_data(bundle.data)
        except Exception as error:
            raise Misconfigured(f"policy does not compile: {_words(error)}") from error

    async def evaluate(self, question: Mapping[str, Any]) -> Any:
        return self.ask(RULE, question)

    async def close(self) -> None:
        """There is nothing to close."""

    def ask(self, rule: str, question: Mapping[str, Any]) -> Any:
        try:
            self._engine.set_input_json(json.dumps(question))
            return json.loads(self._engine.eval_rule_as_json(rule))
        except Exception as error:
            raise Unavailable(f"the policy could not be evaluated: {_words(error)}") from error


def _words(error: Exception) -> str:
    """What the engine says, without the stack of its own that it adds."""
    return str(error).partition("\n\nStack backtrace")[0]


class OpaServer:
    """An Open Policy Agent server beside the gateway, which holds the same policies.

    Connections are made when they are needed, so a server that comes back is used again. Raises Misconfigured for an
    address that is none.
    """

    def __init__(self, url: str, wait: float = 2.0) -> None:
        from opa_client.opa_async import AsyncOpaClient

        host, port, secure = _address(url)
        self.revision = f"server {host}:{port}"
        self._client = AsyncOpaClient(host=host, port=port, ssl=secure, timeout=wait)
        self._open = AsyncExitStack()
        self._opened = False
        self._wait = wait

    async def evaluate(self, question: Mapping[str, Any]) -> Any:
        package, _, rule = RULE.removeprefix("data.").rpartition(".")
        try:
            async with asyncio.timeout(self._wait):
                if not self._opened:  # the client makes its session here, and nothing else comes in between
                    self._opened = True
                    await self._open.enter_async_context(self._client)
                answer = await self._client.query_rule(dict(question), package, rule)
        except TimeoutError as error:
            raise Unavailable(f"the policy server does not answer within {self._wait:g} s") from error
        except Exception as error:
            raise Unavailable(f"the policy server does not answer: {type(error).__name__}") from error
        return answer.get("result") if isinstance(answer, Mapping) else None

    async def close(self) -> None:
        """Close the connections; what is asked afterwards is Unavailable."""
        self._opened = True
        await self._open.aclose()


def _address(url: str) -> tuple[str, int, bool]:
    """Host, port and whether by TLS."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 8181
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or parts.path.strip("/"):
        raise Misconfigured("CONVERGEDON_OPA_URL must be http://HOST:PORT or https://HOST:PORT")
    return f"[{host}]" if ":" in host else host, port, parts.scheme == "https"


class Policy:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def revision(self) -> str:
        return self._engine.revision

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
        question = {
            "subject": subject.document,
            "action": action,
            "resource": resource,
            "body": body,
            "before": before,
            "channel": channel,
            "environment": {"time": int(time())},
        }
        begun = perf_counter()
        answer = await self._engine.evaluate(question)
        if not _is_decision(answer):
            raise Unavailable("the policy gave no decision")
        metrics.DECISIONS.labels(channel, str(answer["allow"]).lower()).inc()
        return Decision(
            uuid4().hex,
            answer["allow"],
            tuple(answer.get("reasons", ())),
            answer.get("filter") or {},
            self.revision,
            answer.get("obligations") or {},
            hashlib.sha256(orjson.dumps(question, option=orjson.OPT_SORT_KEYS)).hexdigest(),
            perf_counter() - begun,
        )


def _is_decision(answer: Any) -> bool:
    """Whether an answer has the form that is agreed: a filter that is not understood would show too much, and an
    obligation that is not would be left undone.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get("allow"), bool):
        return False
    found, obliged = answer.get("filter") or {}, answer.get("obligations") or {}
    return (
        isinstance(obliged, Mapping)
        and not obliged.keys() - OBLIGATIONS
        and _is_texts(answer.get("reasons", []))
        and isinstance(found, Mapping)
        and not found.keys() - {"parties"}
        and _is_texts(found.get("parties", []))
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def run_tests(bundle: Bundle) -> list[tuple[str, bool]]:
    """Evaluate every rule ``test_*`` of the packages whose name ends in ``_test``: (name, passed)."""
    engine, results = Embedded(bundle), []
    for text in bundle.policies.values():
        lines = text.splitlines()
        package = next(line.split()[1] for line in lines if line.startswith("package "))
        names = {line.split()[0] for line in lines if line.startswith("test_")}
        if package.endswith("_test"):
            results += [(f"{package}.{name}", _passes(engine, f"data.{package}.{name}")) for name in sorted(names)]
    return results


def _passes(engine: Embedded, rule: str) -> bool:
    try:
        return engine.ask(rule, {}) is True
    except Unavailable:
        return False
