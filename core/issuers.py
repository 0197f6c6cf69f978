"""The keys of an OAuth2 issuer: fetched from its JWKS, kept for a while, fetched anew when a token names another one.

Whatever callers send, the issuer is asked once in PAUSE seconds at most and by one request at a time. While it is away
its last keys go on being used until they are STALE, and never longer: a key that was withdrawn must end.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import orjson
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from convergedon.core import encryption
from convergedon.core.errors import Misconfigured, Unauthenticated, Unavailable

log = structlog.get_logger()

RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS: Mapping[tuple[str, str | None], tuple[str, ...]] = {
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("RSA", None): RSA,
}
"""What a key of a type (kty, crv) may check. Signatures by shared secrets (HS256) are not there, nor is `none`."""
FRESH = 300.0
"""Seconds for which keys are used without asking again."""
STALE = 3600.0
"""Seconds since they were fetched after which keys are not used any more, though the issuer is away."""
PAUSE = 5.0
"""Seconds between the end of one fetch and the beginning of the next."""
LIMIT = 262_144
MOST_KEYS = 100
RSA_BITS = range(2048, 8193)


@dataclass(frozen=True)
class Patience:
    """Seconds: that a whole fetch may take, and that a caller waits for fresh keys when there are older ones."""

    fetch: float = 5.0
    fresh: float = 1.0


@dataclass(frozen=True)
class SigningKey:
    id: str | None
    algorithms: tuple[str, ...]
    key: Any


def signing_keys(document: Any) -> tuple[SigningKey, ...]:
    """The keys of a JWKS document that can check signatures of ours. Raises ValueError when there is none."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is no key set (an object with a list of keys)")
    if len(listed) > MOST_KEYS:
        raise ValueError(f"it has more than {MOST_KEYS} keys")
    found = tuple(key for entry in listed if (key := _signing_key(entry)))
    if not found:
        raise ValueError("no key in it can check signatures")
    return found


def _signing_key(entry: Any) -> SigningKey | None:
    """A key, bound to the algorithms that its type and its own words allow; None when it is for something else."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    operations, id, named = entry.get("key_ops", ["verify"]), entry.get("kid"), entry.get("alg")
    if not isinstance(operations, list) or "verify" not in operations or not isinstance(id, str | None):
        return None
    kind, curve = entry.get("kty"), entry.get("crv")
    algorithms: tuple[str, ...] = ()
    if isinstance(kind, str) and isinstance(curve, str | None):
        algorithms = ALGORITHMS.get((kind, None if kind == "RSA" else curve), ())
    if named is not None:
        algorithms = (named,) if named in algorithms else ()
    if not algorithms:
        return None
    try:
        key = jwt.PyJWK(entry, algorithms[0]).key
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError) as error:
        log.warning("key of the issuer left out", kid=id, reason=type(error).__name__)
        return None
    if isinstance(key, RSAPublicKey) and key.key_size not in RSA_BITS:
        log.warning("key of the issuer left out", kid=id, reason=f"{key.key_size} bits")
        return None
    return SigningKey(id, algorithms, key)


def choose(keys: Sequence[SigningKey], id: str | None, algorithm: str) -> SigningKey | None:
    """The key that a token was signed with; None when it is not there. Raises Unauthenticated when it cannot be."""
    if id is None and len(keys) > 1:
        raise Unauthenticated("the bearer token does not say which of the issuer's keys it was signed with (kid)")
    named = [key for key in keys if id is None or key.id == id]
    fitting = [key for key in named if algorithm in key.algorithms]
    if named and not fitting:
        raise Unauthenticated(f"the issuer's key is not for signatures by {algorithm}")
    return fitting[0] if fitting else None


def checked(url: str, setting: str) -> str:
    """A URL that keys may come from: by https, or by http on this machine. Raises Misconfigured."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.username is not None or parts.scheme not in ("https", "http"):
        raise Misconfigured(f"{setting} must be https://HOST/PATH")
    if parts.scheme == "http" and not _is_loopback(host):
        raise Misconfigured(f"{setting} must be https: keys that come by http could be anybody's")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Issuer:
    """One issuer. Its keys are where ``jwks_url`` says, else where its discovery document does."""

    def __init__(
        self,
        name: str,
        jwks_url: str = "",
        context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = monotonic,
        patience: Patience = Patience(),
    ) -> None:
        self.name = name
        self._jwks_url = checked(jwks_url, "CONVERGEDON_JWKS_URL") if jwks_url else ""
        if not jwks_url:
            self._discovery = f"{checked(name, 'CONVERGEDON_ISSUER').rstrip('/')}/.well-known/openid-configuration"
        self._context = context or encryption.context("CONVERGEDON_JWKS")
        self._clock, self._patience = clock, patience
        self._keys: tuple[SigningKey, ...] = ()
        self._fetched = self._next = -STALE
        self._reason = ""
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, id: str | None, algorithm: str) -> SigningKey:
        """Raises Unauthenticated when the issuer has no such key, Unavailable when it cannot be asked."""
        found = choose(await self.keys(), id, algorithm)
        if found is None:
            await self._renew(None)  # it may be newer than what we know
            found = choose(self._keys, id, algorithm)
        if found is None and self._reason:
            raise self._unavailable()
        if found is None:
            raise Unauthenticated("the bearer token was signed with a key that its issuer does not have")
        return found

    async def keys(self) -> tuple[SigningKey, ...]:
        """Those that hold now. Raises Unavailable."""
        if self._age() >= FRESH:
            await self._renew(self._patience.fresh if self._age() < STALE else None)
        if self._age() >= STALE:
            raise self._unavailable()
        return self._keys

    def _age(self) -> float:
        return self._clock() - self._fetched if self._keys else STALE

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"the keys of the issuer {self.name} cannot be had: {self._reason}", PAUSE)

    async def _renew(self, patience: float | None) -> None:
        """Fetch, or wait for the fetch that is under way; not at all when the last one was just now."""
        if self._fetching is None or self._fetching.done():
            if self._clock() < self._next:
                return
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.wait([self._fetching], timeout=patience)

    async def _fetch(self) -> None:
        """Replace the keys; when that fails the old ones stay, with the reason."""
        try:
            self._keys, self._fetched, self._reason = await self._asked(), self._clock(), ""
        except (httpx.HTTPError, OSError, ValueError, Misconfigured) as error:
            self._reason = self._words(error)
            log.warning("keys of the issuer cannot be fetched", issuer=self.name, reason=self._reason)
        finally:
            self._next = self._clock() + PAUSE

    def _words(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"it does not answer within {self._patience.fetch:g} s"
        if isinstance(error, ValueError | Misconfigured):
            return str(error)
        return encryption.why(error) or f"it does not answer ({type(error).__name__})"

    async def _asked(self) -> tuple[SigningKey, ...]:
        async with asyncio.timeout(self._patience.fetch):
            return signing_keys(await _json(self._jwks_url or await self._discovered(), self._context))

    async def _discovered(self) -> str:
        """Where the issuer says that its keys are (OpenID Connect Discovery, 4.3: it must name itself)."""
        said = await _json(self._discovery, self._context)
        if not isinstance(said, dict) or said.get("issuer") != self.name or not isinstance(said.get("jwks_uri"), str):
            raise ValueError("its discovery document is another issuer's, or names no keys: set CONVERGEDON_JWKS_URL")
        return checked(said["jwks_uri"], "jwks_uri of its discovery document")


async def _json(url: str, context: ssl.SSLContext) -> Any:
    """Read a small document. No proxy, no redirect, no compression: what is asked is what answers.

    How long it may take is for the caller to say: a time-out between two bytes would wait for ever for many.
    """
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    client = httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=None)
    async with client, client.stream("GET", url, headers=headers) as answer:
        if answer.is_redirect:
            raise ValueError("it answers with a redirect, which is not followed")
        if answer.status_code != 200:
            raise ValueError(f"it answers {answer.status_code}")
        content = b""
        async for part in answer.aiter_raw():
            content += part
            if len(content) > LIMIT:
                raise ValueError(f"it answers with more than {LIMIT} bytes")
    try:
        return orjson.loads(content)
    except ValueError:
        raise ValueError("it answers with something that is not JSON") from None
