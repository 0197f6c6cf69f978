"""Bearer tokens (RFC 6750, JWT): the local development issuer and the verifier of any issuer's tokens."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import zip_longest
from math import isfinite
from pathlib import Path
from time import monotonic, time
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from convergedon.core import clients, encryption, keys
from convergedon.core.errors import Misconfigured, TooManyRequests, Unauthenticated
from convergedon.core.issuers import Issuer, SigningKey
from convergedon.core.policy import Subject
from convergedon.core.settings import Settings
from convergedon.core.shares import Buckets

LOCAL = "convergedon-local"
LEEWAY = 30
KEPT = 1024
REMEMBERED = 60.0
"""Seconds for which a token that was checked is taken for checked: a key that was withdrawn must end."""
LONGEST = 8192
"""Characters of a token; a longer one is refused before anything in it is looked at."""
COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
TYPES = ("jwt", "at+jwt", "application/at+jwt")
"""What a token may say it is (RFC 9068, 4): not one for logging out, nor a proof of possession."""
ROLES = ("csr", "noc", "mediation", "billing", "customer", "reader", "auditor", "admin")
GUESSES = 10
"""How many seconds' worth of failures an address may have at once."""


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
        "jti": uuid4().hex,
        "iat": now,
        "exp": now + seconds,
        "tenant": tenant,
        "roles": [role],
    }
    return jwt.encode({**claims, "party": party} if party else claims, _key(settings.data), algorithm="ES256")


class Verifier:
    """Checks signature, issuer, audience and times; remembers for a minute what it checked.

    An address from which too many bad tokens come is not listened to for a while, save for tokens that are remembered.
    """

    def __init__(
        self,
        settings: Settings,
        monotonic: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
    ) -> None:
        self._audience, self._wall = settings.audience, wall
        self._known: OrderedDict[str, tuple[float, Subject]] = OrderedDict()
        self._failures = Buckets(settings.failure_limit, GUESSES * settings.failure_limit, monotonic)
        self._issuers = {issuer.name: issuer for issuer in _issuers(settings, monotonic)}
        self._clients = clients.load(settings.clients, list(self._issuers)) if settings.clients else None
        if not self._issuers:
            self._local = SigningKey(None, ("ES256",), _key(settings.data).public_key())

    async def verify(self, token: str, address: str = "") -> Subject:
        """Raises Unauthenticated with the reason, Unavailable when the issuer's keys cannot be had, and
        TooManyRequests when too many tokens from the address were bad.
        """
        known = self._known.get(token)
        if known and known[0] > self._wall():
            return known[1]
        if wait := self._failures.wait(address):
            raise TooManyRequests("too many bearer tokens from this address were not valid", wait)
        try:
            claims = await self._claims(token)
            subject = self._subject(claims)
        except Unauthenticated:
            self._failures.take(address)
            raise
        self._known[token] = (min(float(claims["exp"]), self._wall() + REMEMBERED), subject)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return subject

    async def ping(self) -> None:
        """Raises Unavailable when tokens cannot be checked."""
        for issuer in self._issuers.values():
            await issuer.keys()

    async def _claims(self, token: str) -> dict[str, Any]:
        """What a token says, if it is valid. What it says of itself is only used to find the key."""
        try:
            header, said = _opened(token)
            issuer, key = await self._key(header, said)
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=list(key.algorithms),
                audience=self._audience,
                issuer=issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Unauthenticated(f"the bearer token is not valid: {error}") from error
        if not claims["sub"] or len(claims["sub"]) > 255 or not claims["sub"].isprintable():
            raise Unauthenticated("the bearer token is not valid: its subject (sub) is no name")
        return claims

    async def _key(self, header: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[str, SigningKey]:
        if not self._issuers:
            return LOCAL, self._local
        issuer = self._issuers.get(str(said.get("iss")))
        if issuer is None:
            raise jwt.InvalidIssuerError("Invalid issuer")
        return issuer.name, await issuer.key(header.get("kid"), header["alg"])

    def _subject(self, claims: dict[str, Any]) -> Subject:
        if self._clients is None:
            return _subject(claims)
        tenant, roles, party = self._clients.known(claims["iss"], claims)
        return _subject({**claims, "tenant": tenant, "roles": roles, "party": party})


def _issuers(settings: Settings, clock: Callable[[], float]) -> list[Issuer]:
    """Those that the settings name; none: the local one. Raises Misconfigured."""
    names = [name.strip() for name in settings.issuer.split(",") if name.strip()]
    urls = [url.strip() for url in settings.jwks_url.split(",") if url.strip()]
    if urls and len(urls) != len(names):
        raise Misconfigured("CONVERGEDON_JWKS_URL names as many URLs as CONVERGEDON_ISSUER issuers, in the same order")
    if LOCAL in names:
        raise Misconfigured(f"CONVERGEDON_ISSUER: {LOCAL} is the name of the local development issuer")
    if settings.clients and not names:
        raise Misconfigured("CONVERGEDON_CLIENTS is for the clients of CONVERGEDON_ISSUER, which is not set")
    if len(names) > 1 and not settings.clients:
        raise Misconfigured("several issuers need CONVERGEDON_CLIENTS: without it each could give any tenant's roles")
    context = encryption.context("CONVERGEDON_JWKS", settings.jwks_ca) if names else None
    return [Issuer(name, url, context, clock) for name, url in zip_longest(names, urls, fillvalue="")]


def _opened(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token that nobody has checked. Raises Unauthenticated for what is not even a token."""
    if len(token) > LONGEST:
        raise Unauthenticated(f"the bearer token is not valid: it has more than {LONGEST} characters")
    if not COMPACT.fullmatch(token):
        raise Unauthenticated("the bearer token is not valid: it is no signed JWT")
    said = jwt.decode_complete(token, options={"verify_signature": False})
    header = said["header"]
    if "crit" in header:  # RFC 7515, 4.1.11: what is not understood and critical is refused
        raise Unauthenticated("the bearer token is not valid: it has critical headers (crit) that are not understood")
    if str(header.get("typ", "JWT")).lower() not in TYPES:
        raise Unauthenticated("the bearer token is not valid: it is a token for something else (typ)")
    if not isinstance(header.get("alg"), str) or not isinstance(header.get("kid"), str | None):
        raise Unauthenticated("the bearer token is not valid: alg or kid in its header is no text")
    return header, said["payload"]


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
        tuple(role for role in roles if role != clients.SYSTEM),
        str(party) if party else None,
        float(issued) if isinstance(issued, int | float) and isfinite(issued) else None,
    )
