"""Who calls: the bearer token of a request, checked before anything else is looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import Any

from connexion.lifecycle import ConnexionRequest
from connexion.security import AbstractSecurityHandler
from starlette.types import Scope

from convergedon.core.errors import Unauthenticated
from convergedon.core.policy import Subject
from convergedon.core.tokens import Verifier

Check = Callable[[ConnexionRequest], Awaitable[Mapping[str, Any]]]


def bearer_token(headers: Mapping[str, str]) -> str:
    """The token of an Authorization header (RFC 6750). Raises Unauthenticated when there is none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise Unauthenticated("a bearer token is needed: Authorization: Bearer ...")
    return token.strip()


def address(scope: Scope) -> str:
    """Where a request comes from, as far as is known."""
    return (scope.get("client") or ("",))[0]


def is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def security_map(verifier: Verifier) -> dict[str, Any]:
    """What connexion asks for a document's http bearer scheme: our verifier, whose answer is the ``subject``."""

    async def check(request: ConnexionRequest) -> Mapping[str, Any]:
        subject: Subject = await verifier.verify(bearer_token(request.headers), address(request.scope))
        return {"subject": subject}

    class Bearer(AbstractSecurityHandler):  # type: ignore[misc]
        def get_fn(self, security_scheme: Mapping[str, Any], required_scopes: list[str]) -> Check:
            return check

    return {"bearer": Bearer}
