"""Posts to listeners: to the very addresses that were checked, within a time, and whatever the listener does.

No redirect is followed and no proxy of the environment is used: either would lead to a place that nobody checked.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpcore
import httpx

from convergedon.core.errors import Refused, Unavailable
from convergedon.handlers import hub

PATIENCE = 10.0
"""Seconds that a post may take from the look-up of the name to the end of the answer."""
CONNECT = 3.0
ANSWER = 16_384
"""Bytes of an answer that are read, so that the connection serves again; nobody needs them."""
KEPT = 256
LOOK_UPS = 32
FAILURES = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    httpx.InvalidURL,
    OSError,
)


class Answer(NamedTuple):
    """``after``: in how many seconds the listener wants to be asked again."""

    status: int
    after: float | None


class Poster:
    """Has a connection of its own for each listener: one that hangs holds nothing that another needs."""

    def __init__(self, allowed: hub.Networks, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._names = ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="names")
        self._network = CheckedNetwork(allowed, self._names)
        self._tls = httpx.create_ssl_context()  # SSL_CERT_FILE may name authorities of one's own
        self._idle: OrderedDict[str, httpcore.AsyncHTTPConnection] = OrderedDict()

    async def post(self, who: str, callback: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post once. Raises Unavailable when there is no answer, or the place may not be called."""
        try:
            url = _url(callback)
            connection = await self._connection(who, url)
            try:
                async with asyncio.timeout(self._patience):
                    return await _exchange(connection, url, body, headers)
            finally:
                await self._keep(who, connection)
        except TimeoutError as error:
            raise Unavailable(f"no whole answer within {self._patience:g} s") from error
        except (*FAILURES, Refused) as error:
            raise Unavailable(f"cannot be reached: {error or type(error).__name__}") from error

    async def _connection(self, who: str, url: httpcore.URL) -> httpcore.AsyncHTTPConnection:
        kept = self._idle.pop(who, None)
        if kept and kept.can_handle_request(url.origin) and kept.is_available() and not kept.has_expired():
            return kept
        if kept:
            await kept.aclose()
        return httpcore.AsyncHTTPConnection(
            url.origin, self._tls, keepalive_expiry=60, network_backend=self._network, socket_options=NO_DELAY
        )

    async def _keep(self, who: str, connection: httpcore.AsyncHTTPConnection) -> None:
        if not connection.is_idle():
            await connection.aclose()
            return
        before = self._idle.pop(who, None)  # of another post at the same time
        self._idle[who] = connection
        if before:
            await before.aclose()
        elif len(self._idle) > KEPT:
            await self._idle.popitem(last=False)[1].aclose()

    async def tidy(self) -> None:
        """Close the connections that were not used for a minute, or that the listener has closed."""
        for who in [who for who, connection in self._idle.items() if connection.has_expired()]:
            await self._idle.pop(who).aclose()

    async def close(self) -> None:
        while self._idle:
            await self._idle.popitem()[1].aclose()
        self._names.shutdown(wait=False, cancel_futures=True)


NO_DELAY = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to an address that it has checked itself: what a name means may change between two look-ups."""

    def __init__(self, allowed: hub.Networks, names: ThreadPoolExecutor) -> None:
        self._allowed, self._names = allowed, names
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the protocol has it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failed: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in await hub.addresses(host, port, self._allowed, self._names):
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed


def _url(callback: str) -> httpcore.URL:
    """The URL as it is sent: a name in other letters than ASCII is encoded. Raises InvalidURL."""
    url = httpx.URL(callback)
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


async def _exchange(
    connection: httpcore.AsyncHTTPConnection, url: httpcore.URL, body: bytes, headers: Mapping[str, str]
) -> Answer:
    said = {"Content-Type": "application/json", "Accept": "*/*", "User-Agent": "ConvergedON", **headers}
    patience = {"timeout": {"connect": CONNECT}}
    async with connection.stream("POST", url, headers=list(said.items()), content=body, extensions=patience) as answer:
        read = 0
        async for part in answer.aiter_stream():
            read += len(part)
            if read > ANSWER:
                break
        given = {name.lower(): value for name, value in answer.headers}
        return Answer(answer.status, retry_after(given.get(b"retry-after", b"").decode("latin-1"), datetime.now(UTC)))


def retry_after(said: str, now: datetime) -> float | None:
    """What a Retry-After header asks for: seconds, or a date (RFC 9110, 10.2.3); None for anything else."""
    if said.strip().isascii() and said.strip().isdigit():
        return float(said)
    try:
        when = parsedate_to_datetime(said)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now.timestamp()
