"""An OAuth2 issuer that really listens: what it answers, how slowly and how often is for a test to say and to count."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
KEYS = "/keys"
DISCOVERY = "/.well-known/openid-configuration"


def plain(content: bytes, status: str = "200 OK", *headers: str) -> Answer:
    async def write(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + content)

    return write


def as_json(content: Any) -> Answer:
    return plain(json.dumps(content).encode())


class SigningIssuer:
    """``pages`` is what is served; ``asked`` is which pages were asked for, one after the other."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.url = ""
        self._keys: dict[str, Any] = {}
        self._server: asyncio.Server | None = None
        self._port = 0
        self._context: ssl.SSLContext | None = None

    @asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None = None) -> AsyncIterator[SigningIssuer]:
        self._context = context
        await self.start()
        self._port = self._server.sockets[0].getsockname()[1] if self._server else 0
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self._port}"
        self.pages[DISCOVERY] = as_json({"issuer": self.url, "jwks_uri": self.url + KEYS})
        try:
            yield self
        finally:
            await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, ssl=self._context)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ")[1]
            self.asked.append(path)
            await self.pages.get(path, plain(b"", "404 Not Found"))(writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # who asked has gone
        finally:
            writer.close()

    def has(self, *ids: str, make: Callable[[], Any] = lambda: ec.generate_private_key(ec.SECP256R1())) -> None:
        """From now on it signs by these keys, and serves them."""
        self._keys = {id: self._keys.get(id) or make() for id in ids}
        self.pages[KEYS] = as_json({"keys": [public(self._keys[id], id) for id in ids]})

    def token(self, id: str | None, algorithm: str = "", **claims: Any) -> str:
        """What it would issue, with claims of one's own; None leaves one out."""
        key = self._keys[id or next(iter(self._keys))]
        whole = {
            "iss": self.url,
            "aud": "convergedon",
            "sub": "vendor",
            "iat": int(time()),
            "exp": int(time()) + 600,
            "tenant": "acme",
            "roles": ["csr"],
            **claims,
        }
        said = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(said, key, algorithm or algorithm_of(key), {"kid": id} if id else {})


def algorithm_of(key: Any) -> str:
    kinds = {rsa.RSAPrivateKey: "RS256", ed25519.Ed25519PrivateKey: "EdDSA", ec.EllipticCurvePrivateKey: "ES256"}
    return next(name for kind, name in kinds.items() if isinstance(key, kind))


def public(key: Any, id: str | None, **more: Any) -> dict[str, Any]:
    """The public half as a JWK."""
    name = algorithm_of(key)
    jwk: dict[str, Any] = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)
    return {**jwk, **({"kid": id} if id else {}), **more}
