"""What comes over a connection and cannot be read as a request, answered by the server that the gateway runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from starlette.responses import JSONResponse

from convergedon.core import settings
from convergedon.core.app import _listen, _serve
from convergedon.handlers.connections import configuration

WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    """Where an application that answers everything with ``{}`` is served as the gateway is."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    config = configuration(settings.load(), JSONResponse({}))
    serving = asyncio.create_task(_serve(config, _listen("127.0.0.1", 0), ready.set_result))
    host, _, port = (await ready).rpartition(":")
    yield host, int(port)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def told(address: tuple[str, int], said: bytes) -> tuple[bytes, bytes]:
    """The head and the body of what is answered."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(said)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    body = await reader.readexactly(int(length.partition(b":")[2]))
    writer.close()
    return head, body


@pytest.mark.parametrize(
    "said",
    [
        b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /?\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
async def test_what_is_no_request_is_refused_like_every_other_mistake(address: tuple[str, int], said: bytes) -> None:
    """A client that reads the standard's Error body reads this one too."""
    head, body = await told(address, said)

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head.lower()
    assert {"code": "ERR400", "status": "400", "@type": "Error"}.items() <= json.loads(body).items()


async def test_who_asks_for_a_websocket_is_answered_in_http(address: tuple[str, int]) -> None:
    """The request is answered as if it had not asked: nothing of the gateway is served that way."""
    head, body = await told(address, WEBSOCKET)

    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"{}"
