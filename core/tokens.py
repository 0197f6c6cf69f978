"""Bearer tokens (RFC 6750, JWT): the local development issuer and the verifier of any issuer's tokens."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path
from time import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from convergedon.core import keys
from convergedon.core.errors import Misconfigured, Unauthenticated, Unavailable
from convergedon.core.policy import Subject
from convergedon.core.settings import Settings

LOCAL = "convergedon-local"
ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA")
LEEWAY = 30
KEPT = 1024
ROLES = ("csr", "noc", "mediation", "billing", "customer", "reader", "admin")


def _key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """The local issuer's key."""
    path = folder / "keys" / "issuer.pem"
    try:
        key = load_pem_private_key(keys.kept(path, _fresh), None)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"the local issuer's key {path} cannot be used: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Misconfigured(f"the local issuer's key {path} is not an elliptic curve key")
    return key


def _fresh() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def issue(settings: Settings, tenant: str, role: str, party: str | None = None, seconds: int = 86_400) -> str:
    """A token of the local development issuer. Raises Misconfigured where a real issuer is set."""
    if settings.issuer:
        raise Misconfigured(f"tokens come from {settings.issuer}: the local issuer does not run beside it")
    if role not in ROLES:
        raise Misconfigured(f"there is no role {role}; roles are {', '.join(ROLES)}")
    if role == "customer" and not party:
        raise Misconfigured("a customer's token needs --party")
    now = int(time())
    claims: dict[str, Any] = {
        "iss": LOCAL,
        "aud": settings.audience,
        "sub": party or f"{tenant}-{role}",
        "iat": now,
        "exp": now + seconds,
        "tenant": tenant,
        "roles": [role],
    }
    return jwt.encode({**claims, "party": party} if party else claims, _key(settings.data), algorithm="ES256")


class Verifier:
    """Checks signature, issuer, audience and times; remembers what it checked until the token ends."""

    def __init__(self, settings: Settings) -> None:
        self._issuer, self._audience = settings.issuer or LOCAL, settings.audience
        self._known: OrderedDict[str, tuple[float, Subject]] = OrderedDict()
        self._jwks: jwt.PyJWKClient | None = None
        if settings.issuer:
            if not settings.jwks_url:
                raise Misconfigured("CONVERGEDON_ISSUER needs CONVERGEDON_JWKS_URL")
            self._jwks = jwt.PyJWKClient(settings.jwks_url, cache_keys=True, lifespan=300, timeout=5)
        else:
            self._local = _key(settings.data).public_key()

    async def verify(self, token: str) -> Subject:
        """Raises Unauthenticated with the reason, Unavailable when the issuer's keys cannot be had."""
        known = self._known.get(token)
        if known and known[0] > time():
            return known[1]
        claims = await self._claims(token)
        subject = _subject(claims)
        self._known[token] = (float(claims["exp"]), subject)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return subject

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            key: Any = self._local if self._jwks is None else await asyncio.to_thread(self._fetch, token)
            return jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise Unavailable("the issuer's keys cannot be fetched") from error
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the bearer token is not valid: {error}") from error

    def _fetch(self, token: str) -> Any:
        assert self._jwks is not None
        return self._jwks.get_signing_key_from_jwt(token).key


def _subject(claims: dict[str, Any]) -> Subject:
    tenant, roles, party = claims.get("tenant"), claims.get("roles"), claims.get("party")
    if not isinstance(tenant, str) or not tenant or not tenant.isprintable():
        raise Unauthenticated("the bearer token names no tenant")
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise Unauthenticated("the bearer token has no list of roles")
    issued = claims.get("iat")
    # the gateway's own role is never taken from a token
    return Subject(
        str(claims["sub"]),
        tenant,
        tuple(role for role in roles if role != "system"),
        str(party) if party else None,
        float(issued) if isinstance(issued, int | float) else None,
    )
