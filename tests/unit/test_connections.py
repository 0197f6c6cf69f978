"""What clients may do with a connection: real sockets against a server that serves as the gateway does."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from convergedon.core import settings
from convergedon.core.errors import Misconfigured
from convergedon.handlers.connections import HEAD_BYTES, SLOWEST, Gathering, Patience, configuration
from convergedon.handlers.guard import HEADER_BYTES, MOST_HEADERS, MOST_PARAMETERS, URL_BYTES, Guard
from tests.certificates import Authority

HASTY = Patience(head=0.4, body=0.4, read=0.6, look=0.05)
ENDED = 5.0


class Echo:
    """Reads the body and says how long it was, or that the client went; /large answers with much, /deaf reads nothing,
    /stream never ends.
    """

    def __init__(self) -> None:
        self.gone: list[str] = []
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        size, more = 0, scope["path"] != "/deaf"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.append(scope["path"])
                return
            size, more = size + len(message["body"]), message["more_body"]
        body = b"x" * 50_000_000 if scope["path"] == "/large" else b"%d" % size
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone.append("/stream")
            return
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(tmp_path: Path, patience: Patience = HASTY, **given: Any) -> AsyncIterator[tuple[Echo, int]]:
    echo = Echo()
    config = configuration(settings.load(data=tmp_path, port=0, **given), Guard(echo), patience)
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield echo, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def sent(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Everything that comes back until the server closes, whatever becomes of what is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def talk() -> None:
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
        except OSError:
            pass  # it was closed: what it said is read all the same

    talking = asyncio.create_task(talk())
    try:
        async with asyncio.timeout(ENDED):
            return await reader.read()
    finally:
        talking.cancel()
        writer.close()


def refused(answer: bytes, status: int) -> dict[str, Any]:
    """The TM Forum Error that an answer carries."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert b"x-trace-id: " in head.lower()
    assert b"connection: close" in head.lower()
    said: dict[str, Any] = json.loads(body)
    assert (said["code"], said["status"], said["@type"]) == (f"ERR{status}", str(status), "Error")
    return said


def dripping(*parts: bytes, times: int = 200) -> list[bytes]:
    return [*parts, *([b"x"] * times)]


@pytest.mark.parametrize(
    "parts",
    [
        dripping(b"GET /"),
        dripping(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "),
        [b"\r\n"] * 200,
        [b"GET / HTTP/1.1\r\n"],
        [b""],
    ],
)
async def test_a_head_that_does_not_end_ends_the_connection(tmp_path: Path, parts: list[bytes]) -> None:
    """A byte now and then is not enough, nor is silence from the beginning."""
    async with serving(tmp_path) as (_, port):
        answer = await sent(port, *parts, pause=0.05)

    assert "the head of a request" in refused(answer, 408)["message"]


async def test_a_body_that_does_not_come_ends_the_connection(tmp_path: Path) -> None:
    """Whoever waits for it is told."""
    async with serving(tmp_path) as (echo, port):
        answer = await sent(
            port, *dripping(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"), pause=0.05
        )
        while not echo.gone:
            await asyncio.sleep(0.01)

    assert f"{SLOWEST} bytes" in refused(answer, 408)["message"]
    assert echo.gone == ["/slow"]


async def test_a_body_in_pieces_that_does_not_come_ends_too(tmp_path: Path) -> None:
    piece = b"1\r\nx\r\n"
    async with serving(tmp_path) as (_, port):
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = await sent(port, head, *([piece] * 200), pause=0.05)

    refused(answer, 408)


async def test_a_body_that_nobody_asked_for_does_not_hold_the_connection(tmp_path: Path) -> None:
    """The answer went out before it came."""
    async with serving(tmp_path) as (_, port):
        head = b"POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
        answer = await sent(port, *dripping(head), pause=0.05)

    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_second_request_has_to_come_in_time_as_well(tmp_path: Path) -> None:
    whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    async with serving(tmp_path) as (_, port):
        answer = await sent(port, whole, *dripping(b"GET / HTTP/1.1\r\nX: "), pause=0.05)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer


async def test_who_does_not_read_is_cut_off(tmp_path: Path) -> None:
    """An answer that nobody takes is not kept for ever."""
    async with serving(tmp_path) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(1.5)
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await reader.readexactly(40_000_000)
        writer.close()


async def test_who_is_slow_but_moves_is_served(tmp_path: Path) -> None:
    """A body of a hundred thousand bytes in pieces, and a stream that says nothing for a while."""
    pieces = [b"x" * 1000] * 20
    async with serving(tmp_path) as (echo, port):
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 20000\r\n\r\n"
        answer = await sent(port, head, *pieces, pause=0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"begun\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(100), 1.2)
        assert echo.gone == []
        writer.close()

    assert answer.endswith(b"20000\r\n0\r\n\r\n")


async def test_a_head_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, port):
        # no more than it reads: what is left unread when it closes takes the answer away
        answer = await sent(port, b"GET / HTTP/1.1\r\nX: ", *([b"x" * 8192] * (HEAD_BYTES // 8192)), pause=0.02)

    refused(answer, 431)


SMUGGLED = [
    b"Content-Length: 3\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    b"Content-Length: 3\r\nContent-Length: 4",
    b"Content-Length: 3, 3",
    b"Content-Length: +3",
    b"Content-Length: -1",
    b"Content-Length: 0x3",
    b"Content-Length : 3",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: xchunked\r\nContent-Length: 3",
    b"X: a\r\n Transfer-Encoding: chunked",
    b"X: a\x00b",
]


@pytest.mark.parametrize("header", SMUGGLED)
async def test_a_length_that_can_be_read_in_two_ways_is_refused(tmp_path: Path, header: bytes) -> None:
    """Two servers in a row must not disagree where a request ends."""
    async with serving(tmp_path) as (echo, port):
        answer = await sent(port, b"POST / HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n\r\nabc")

    refused(answer, 400)
    assert echo.scopes == []


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /?\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused_like_every_other_mistake(tmp_path: Path, said: bytes) -> None:
    """A client that reads the standard's Error body reads this one too."""
    async with serving(tmp_path) as (_, port):
        answer = await sent(port, said)

    refused(answer, 400)
    assert b"content-type: application/json" in answer.partition(b"\r\n\r\n")[0].lower()


async def test_who_asks_for_a_websocket_is_answered_in_http(tmp_path: Path) -> None:
    """The request is answered as if it had not asked: nothing of the gateway is served that way."""
    upgrade = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with serving(tmp_path) as (echo, port):
        answer = await sent(port, upgrade)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [scope["type"] for scope in echo.scopes] == ["http"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"x" * URL_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /?a=" + b"x" * URL_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /?" + b"a=1&" * MOST_PARAMETERS + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * MOST_HEADERS + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * HEADER_BYTES + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ],
)
async def test_a_request_out_of_proportion_is_refused(tmp_path: Path, request_: bytes, status: int) -> None:
    async with serving(tmp_path) as (echo, port):
        refused(await sent(port, request_), status)

    assert echo.scopes == []


async def test_what_is_just_in_proportion_is_served(tmp_path: Path) -> None:
    query = b"&".join([b"a=1"] * MOST_PARAMETERS)
    headers = b"X: 1\r\n" * (MOST_HEADERS - 2)
    async with serving(tmp_path) as (_, port):
        answer = await sent(
            port, b"GET /?" + query + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + headers + b"\r\n"
        )

    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_answers_are_protected_and_say_nothing_of_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, port):
        answer = (await sent(port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).lower()

    for header in (b"x-content-type-options: nosniff", b"cache-control: no-store", b"frame-ancestors 'none'"):
        assert header in answer
    assert b"\r\nserver:" not in answer
    assert b"strict-transport-security" not in answer


async def test_connections_are_counted(tmp_path: Path) -> None:
    """One too many is told so, and when one ends the next is let in."""
    async with serving(tmp_path, Patience(), connections=2) as (_, port):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert "as many connections" in refused(await sent(port, b""), 503)["message"]
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        answer = await sent(port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_only_named_proxies_are_believed(tmp_path: Path) -> None:
    """By default one on this machine; without any, nobody."""
    request_ = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n"
    clients = []
    for proxies in ("127.0.0.1", "192.0.2.1", ""):
        async with serving(tmp_path, proxies=proxies) as (echo, port):
            await sent(port, request_)
            clients.append(echo.scopes[0]["client"][0])

    assert clients == ["203.0.113.7", "127.0.0.1", "127.0.0.1"]


# TLS


async def get(port: int, context: ssl.SSLContext, host: str = "localhost") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_by_tls_the_gateway_serves_tls_alone(tmp_path: Path) -> None:
    """Version 1.2 at least; browsers are told never to come without again."""
    authority = Authority(tmp_path)
    shown = authority.issue("localhost")
    trusting = ssl.create_default_context(cafile=authority.file)
    old = ssl.create_default_context(cafile=authority.file)
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    async with serving(tmp_path, tls_cert=shown.cert, tls_key=shown.key) as (echo, port):
        answer = await get(port, trusting)
        plain = await sent(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await get(port, old)).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(ssl.SSLCertVerificationError):
            await get(port, ssl.create_default_context())

    assert b"strict-transport-security: max-age=31536000" in answer
    assert echo.scopes[0]["scheme"] == "https"
    assert b"200" not in plain


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_older_versions_are_not_spoken(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    old = ssl.create_default_context(cafile=authority.file)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(tmp_path, tls_cert=authority.issue("localhost").both) as (_, port):
        with pytest.raises((ssl.SSLError, OSError)):
            await get(port, old)


async def test_with_authorities_for_clients_who_shows_nothing_is_not_let_in(tmp_path: Path) -> None:
    authority, clients, others = Authority(tmp_path), Authority(tmp_path, "clients"), Authority(tmp_path, "others")
    shown = authority.issue("localhost")
    known = ssl.create_default_context(cafile=authority.file)
    known.load_cert_chain(clients.issue(name="portal").both)
    stranger = ssl.create_default_context(cafile=authority.file)
    stranger.load_cert_chain(others.issue(name="stranger").both)
    nobody = ssl.create_default_context(cafile=authority.file)
    async with serving(tmp_path, tls_cert=shown.both, tls_client_ca=clients.file) as (echo, port):
        assert (await get(port, known)).startswith(b"HTTP/1.1 200 ")
        for context in (stranger, nobody):
            with suppress(OSError):  # by TLS 1.3 a client hears of it when it reads, if at all
                assert await get(port, context) == b""

    assert len(echo.scopes) == 1


def test_a_certificate_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    shown, other = authority.issue("localhost"), authority.issue("localhost", name="other")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for given, words in (
        ({"tls_cert": tmp_path / "missing.pem"}, "CONVERGEDON_TLS_CERT"),
        ({"tls_cert": shown.cert, "tls_key": other.key}, "CONVERGEDON_TLS_KEY"),
        ({"tls_cert": shown.cert}, "CONVERGEDON_TLS_CERT"),
        ({"tls_cert": empty}, "CONVERGEDON_TLS_CERT"),
        ({"tls_cert": shown.both, "tls_client_ca": empty}, "CONVERGEDON_TLS_CLIENT_CA"),
        ({"tls_cert": shown.both, "tls_client_ca": shown.key}, "CONVERGEDON_TLS_CLIENT_CA"),
    ):
        with pytest.raises(Misconfigured, match=words) as refused_:
            configuration(settings.load(data=tmp_path, **given), None)
        assert "\n" not in str(refused_.value)


class Wire(asyncio.Transport):
    """What goes out, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.pieces.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.pieces.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


async def test_a_head_goes_out_with_its_body() -> None:
    """One piece, not two, and nothing after it."""
    wire = Wire()
    gathering = Gathering(wire, asyncio.get_running_loop())

    gathering.write(b"head ")
    gathering.write(b"body")
    at_once = list(wire.pieces)
    await asyncio.sleep(0)

    assert at_once == wire.pieces == [b"head body"]


async def test_a_head_does_not_wait_for_a_body_that_takes_long() -> None:
    """A stream begins when it begins."""
    wire = Wire()
    gathering = Gathering(wire, asyncio.get_running_loop())

    gathering.write(b"head")
    await asyncio.sleep(0)

    assert wire.pieces == [b"head"]


async def test_what_was_written_goes_out_before_the_connection_is_closed() -> None:
    """A refusal that closes is read all the same; what is cut off stays unsent."""
    whole, cut = Wire(), Wire()
    loop = asyncio.get_running_loop()

    closing = Gathering(whole, loop)
    closing.write(b"refused")
    closing.close()
    Gathering(cut, loop).write(b"never")
    cut.closed = True
    await asyncio.sleep(0)

    assert whole.pieces == [b"refused"]
    assert cut.pieces == []
