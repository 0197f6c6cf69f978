"""What evaluates policies: the Rego engine in the process, an Open Policy Agent beside it, or nothing that can."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from threading import get_ident
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson

from convergedon.core import encryption
from convergedon.core.bundles import Bundle
from convergedon.core.errors import Misconfigured, Unavailable
from convergedon.core.reads import reads

RULE = "data.main.decision"
UNDEFINED = "<undefined>"
"""What the embedded engine says of a rule that has no value."""
NO_RULE = "not a valid rule path"
"""And of one that there is not."""
MOST_ANSWERS = 1024
LARGEST = 4096
"""Answers that are remembered, and the bytes that what was read for one may have: together some megabytes at most."""


class Engine(Protocol):
    """Something that evaluates Rego.

    ``revision`` says which policies gave the last answer: of a bundle the hash of its content.
    """

    revision: str

    async def evaluate(self, question: Mapping[str, Any]) -> Any: ...

    async def close(self) -> None: ...


class Closed:
    """No policies that could be asked, and why: every question is Unavailable, so nothing is done."""

    revision = ""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    async def evaluate(self, question: Mapping[str, Any]) -> Any:
        raise Unavailable(self.reason)

    async def close(self) -> None:
        """There is nothing to close."""


class Embedded:
    """The Rego engine in the process (regorus). Raises Misconfigured for policies that do not compile.

    An answer is remembered for all questions that agree in what the policies read, as clients, listeners and flows ask
    the same again and again: the time, in whole seconds, is part of it and the only clock that policies have.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.revision = bundle.revision
        self._thread, self._engine = get_ident(), _regorus()
        self._answers: dict[bytes, str] = {}
        try:
            for path, text in bundle.policies.items():
                self._engine.add_policy(path, text)
            self._engine.add_data(bundle.data)
        except Exception as error:
            raise Misconfigured(f"policy does not compile: {_words(error)}") from error
        self._reads = reads(self.tree())

    def __del__(self) -> None:
        """The garbage collector runs in whichever thread allocates; regorus lets go only in the one that made it."""
        if get_ident() != self._thread:
            _left.append((self._thread, self._engine))

    async def evaluate(self, question: Mapping[str, Any]) -> Any:
        try:
            read = self._reads.of(question)
        except orjson.JSONEncodeError as error:
            raise Unavailable(f"the policy could not be asked: {error}") from error
        answer = self._answers.get(read)
        if answer is None:
            answer = self._answer(RULE, _text(question))
            if len(read) <= LARGEST:
                if len(self._answers) >= MOST_ANSWERS:
                    self._answers.clear()
                self._answers[read] = answer
        return _value(answer)

    async def close(self) -> None:
        """There is nothing to close."""

    def tree(self) -> str:
        """The syntax trees of its policies, as JSON."""
        return str(self._engine.get_ast_as_json())

    def ask(self, rule: str, question: Mapping[str, Any]) -> Any:
        return _value(self._answer(rule, _text(question)))

    def _answer(self, rule: str, question: str) -> str:
        try:
            self._engine.set_input_json(question)
            return str(self._engine.eval_rule_as_json(rule))
        except Exception as error:
            raise Unavailable(f"the policy could not be evaluated: {_words(error)}") from error


def _text(question: Mapping[str, Any]) -> str:
    try:
        return orjson.dumps(question).decode()
    except orjson.JSONEncodeError as error:
        raise Unavailable(f"the policy could not be asked: {error}") from error


def _value(answer: str) -> Any:
    value = orjson.loads(answer)
    return None if value == UNDEFINED else value


_left: list[tuple[int, Any]] = []
"""Engines that nobody uses any more, with the thread that may drop them."""


def require_embedded() -> None:
    """Raises Misconfigured on a machine for which there is no engine."""
    _regorus()


def _regorus() -> Any:
    try:
        import regorus
    except ImportError as error:
        raise Misconfigured(
            "there is no Rego engine for this machine: set CONVERGEDON_OPA_URL to an Open Policy Agent server"
        ) from error
    _left[:] = [(thread, engine) for thread, engine in _left if thread != get_ident()]
    return regorus.Engine()


def _words(error: Exception) -> str:
    """What the engine says, without the stack of its own that it adds."""
    return str(error).partition("\n\nStack backtrace")[0]


def compiled(bundle: Bundle) -> Embedded:
    """An engine that has answered once: some mistakes show only then. Raises Misconfigured.

    It knows nothing of the policies' tests, with which a decision takes a tenth longer.
    """
    engine = Embedded(bundle.in_force)
    try:
        answer = engine.ask(RULE, {})
    except Unavailable as error:
        if NO_RULE not in str(error):
            raise Misconfigured(str(error)) from error
        answer = None
    if answer is None:
        raise Misconfigured("the policies have no rule main.decision that answers: nothing could be allowed")
    return engine


class OpaServer:
    """An Open Policy Agent server beside the gateway, which holds the same policies.

    Connections are made when they are needed, so a server that comes back is used again. Raises Misconfigured for an
    address that is none. The revision is that of the server's bundles, where it has any.
    """

    def __init__(self, url: str, wait: float = 2.0, context: ssl.SSLContext | None = None, token: str = "") -> None:
        from convergedon.core.opa import Client

        host, port, secure = _address(url)
        self._address = self.revision = f"server {host}:{port}"
        self._client = Client(context, host=host, port=port, ssl=secure, timeout=wait, token=token or None)
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
                answer = await self._client.query_rule(dict(question), package, rule, {"provenance": "true"})
        except TimeoutError as error:
            raise Unavailable(f"the policy server does not answer within {self._wait:g} s") from error
        except Exception as error:
            reason = encryption.why(error) or type(error).__name__
            raise Unavailable(f"the policy server does not answer: {reason}") from error
        if not isinstance(answer, Mapping):
            return None
        self.revision = _bundles(answer.get("provenance")) or self._address
        return answer.get("result")

    async def close(self) -> None:
        """Close the connections; what is asked afterwards is Unavailable."""
        self._opened = True
        await self._open.aclose()


def _bundles(provenance: Any) -> str:
    """The revisions of the bundles that a server says it answered from."""
    bundles = provenance.get("bundles") if isinstance(provenance, Mapping) else None
    named = bundles.items() if isinstance(bundles, Mapping) else ()
    told = {name: about.get("revision") for name, about in named if isinstance(about, Mapping)}
    return ", ".join(f"{name} {revision}" for name, revision in sorted(told.items()) if revision)


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
