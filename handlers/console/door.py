"""Who may come in: a bearer token opens a session, a signed cookie carries it, the policy is asked each time."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from time import time
from typing import Any

import jwt

from convergedon.core import keys, trace
from convergedon.core.audit import Audit
from convergedon.core.errors import Misconfigured
from convergedon.core.policy import Decision, Policy, Subject
from convergedon.core.tokens import Verifier

LONGEST = 8 * 3600
"""Seconds a session lasts at most; it never outlives its token."""


def session_key(folder: Path) -> bytes:
    """The key that signs sessions; made on first use, readable by its owner alone. Raises Misconfigured."""
    path = folder / "keys" / "console.key"
    try:
        key = keys.kept(path, lambda: secrets.token_bytes(32))
    except OSError as error:
        raise Misconfigured(f"the console's key {path} cannot be used: {error}") from error
    if len(key) < 32:
        raise Misconfigured(f"the console's key {path} is not whole: remove it, and a new one is made")
    return key


class Door:
    """Sessions and what they allow. A session that was ended stays ended, as far as this process knows."""

    def __init__(self, rules: Policy, verifier: Verifier, writer: Audit | None) -> None:
        self._rules, self._verifier, self._writer = rules, verifier, writer
        self._ended: dict[str, float] = {}

    async def enter(self, token: str, address: str = "") -> dict[str, Any]:
        """What a new session keeps of a token: who it is, and until when.

        Raises Unauthenticated, Forbidden, or TooManyRequests when too many bad ones came from the address.
        """
        operator = await self._verifier.verify(token, address)
        ends = float(jwt.decode(token, options={"verify_signature": False})["exp"])  # verified in the line above
        decision = await self.allowed(operator, "retrieve", "console")
        self.record(operator, "retrieve", "console", "done", decision)
        return {
            "session": secrets.token_urlsafe(16),
            "id": operator.id,
            "tenant": operator.tenant,
            "roles": list(operator.roles),
            "party": operator.party,
            "issued": operator.issued,
            "until": min(ends, time() + LONGEST),
        }

    def operator(self, session: Mapping[str, Any]) -> Subject | None:
        """Who the session belongs to; None when it has ended or never began."""
        if session.get("until", 0) <= time() or session["session"] in self._ended or "issued" not in session:
            return None  # a session of an earlier release does not say when it was given its roles
        return Subject(session["id"], session["tenant"], tuple(session["roles"]), session["party"], session["issued"])

    def leave(self, session: Mapping[str, Any]) -> None:
        self._ended = {ended: until for ended, until in self._ended.items() if until > time()}
        if "session" in session:
            self._ended[session["session"]] = session["until"]

    async def allowed(
        self, operator: Subject, action: str, kind: str, id: str = "", body: Mapping[str, Any] | None = None
    ) -> Decision:
        """Ask the policy whether the operator may. Raises Forbidden when not; recorded where it was to be done."""
        resource = {"kind": kind, "tenant": operator.tenant, "id": id}
        decision = await self._rules.decide(operator, action, resource, body, channel="console")
        if not decision.allow and (action == "retrieve" or body is not None):
            on = f"{kind}/{id}" if id else kind
            self.record(operator, action, on, "refused", decision, reasons=list(decision.reasons))
        return decision.require()

    def record(self, operator: Subject, action: str, on: str, outcome: str, decision: Decision, **detail: Any) -> None:
        """Leave the record that the API leaves of the same thing. On the loop: the writer is not made for threads."""
        if self._writer is not None:
            with trace.span("console"):
                told = {"channel": "console", **detail}
                self._writer.record(f"call.{action}", operator.tenant, operator.id, on, outcome, decision, **told)


def form_token(session: MutableMapping[str, Any]) -> str:
    """The value that every form of this session carries, so that no other site can post in its name."""
    if "form" not in session:
        session["form"] = secrets.token_urlsafe(24)
    return str(session["form"])


def is_own_form(session: Mapping[str, Any], given: str) -> bool:
    return hmac.compare_digest(str(session.get("form", "")).encode(), given.encode()) and "form" in session
