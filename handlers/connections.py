"""How connections are served: what a client may send, how slowly, how much of it, and how many clients at once.

uvicorn waits for ever for the rest of a request and for a client to read an answer, and with httptools takes headers of
any size; `PatientProtocol` sets bounds to each. What is wrong with a request as a whole is `guard.py`'s.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Literal

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from convergedon.core import encryption, trace
from convergedon.core.errors import ConvergedonError, HeadersTooLarge, Invalid, TooSlow, Unavailable
from convergedon.core.settings import Settings
from convergedon.handlers.answers import refusal

HEAD_BYTES = 65_536
SLOWEST = 1024
"""Bytes of a body a second."""


@dataclass(frozen=True)
class Patience:
    """Seconds.

    ``head``: in which the whole head of a request must come, the first one since the connection was made; ``body``: by
    which a body may lag behind SLOWEST; ``read``: in which a client must read something of what it is sent, and after
    which a closed connection is cut; ``look``: between two looks at a connection.
    """

    head: float = 10.0
    body: float = 10.0
    read: float = 30.0
    look: float = 1.0


def configuration(settings: Settings, application: Any, patience: Patience = Patience()) -> uvicorn.Config:
    """How uvicorn is to serve. Raises Misconfigured for a certificate that cannot be used."""
    tls = encryption.server_context("CONVERGEDON_TLS", *files) if (files := _tls(settings)) else None
    protocol: Any = partial(PatientProtocol, most=settings.connections, patience=patience)
    return uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
        timeout_keep_alive=30,
        forwarded_allow_ips=settings.proxies,
        ssl_context_factory=(lambda _, __: tls) if tls else None,
    )


def _tls(settings: Settings) -> Any:
    return (settings.tls_cert, settings.tls_key, settings.tls_client_ca) if settings.tls_cert else None


class Gathering:
    """A transport that sends the head of an answer with its body: uvicorn writes them one after another, and what goes
    out twice costs the system's way through the network twice.

    A head whose body takes longer goes out by itself, as soon as the loop comes round.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._held = transport, loop, b""
        self.is_closing, self.get_extra_info = transport.is_closing, transport.get_extra_info

    def write(self, content: bytes) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.writelines((held, content))
        elif content:
            self._held = content
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self.is_closing():
            self._transport.write(held)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class PatientProtocol(HttpToolsProtocol):
    """A connection. It is looked at now and then, so a request costs no timers of its own."""

    def __init__(self, *args: Any, most: int, patience: Patience, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most, self._patience = most, patience
        self._part: Literal["nothing", "head", "body"] = "head"
        self._since = monotonic()
        self._received = 0
        self._unread: float | None = None
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Gathering(transport, self.loop))  # type: ignore[arg-type]
        self._look = self.loop.call_later(self._patience.look, self._watch)
        if len(self.connections) > self._most:
            self._refuse(Unavailable("the gateway has as many connections as it takes"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._part == "nothing":
            self._begin("head")
        self._received += len(data)
        super().data_received(data)
        if self._part == "head" and self._received > HEAD_BYTES:
            self._refuse(HeadersTooLarge(f"the head of a request has at most {HEAD_BYTES} bytes"))

    def on_message_begin(self) -> None:
        if self._part == "nothing":
            self._begin("head")
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._begin("body")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._begin("nothing")
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Invalid("this cannot be read as an HTTP/1.1 request with a known method"))

    def _should_upgrade(self) -> bool:
        """A client that would like to go on in WebSocket is answered in HTTP (RFC 9110, 7.8)."""
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """It is not worth a warning: the answer says what is served."""

    def pause_writing(self) -> None:
        self._unread = monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread = None
        super().resume_writing()

    def _begin(self, part: Literal["nothing", "head", "body"]) -> None:
        self._part, self._since, self._received = part, monotonic(), 0

    def _watch(self) -> None:
        self._look = self.loop.call_later(self._patience.look, self._watch)
        now = monotonic()
        if self.transport.is_closing() and self._unread is None:
            self._unread = now
        if self._unread is not None and now - self._unread > self._patience.read:
            self.transport.abort()
        elif self.flow.read_paused:
            self._since += self._patience.look  # it is we who do not read
        elif self._part == "head" and now - self._since > self._patience.head:
            self._refuse(TooSlow(f"the head of a request comes within {self._patience.head:g} s"))
        elif self._part == "body" and now - self._since > self._patience.body + self._received / SLOWEST:
            self._refuse(TooSlow(f"a body comes at {SLOWEST} bytes a second at least"))

    def _refuse(self, error: ConvergedonError) -> None:
        """Answer, unless an answer is under way, and close. An operation that reads the body learns that it ended."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_whole(error))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def _whole(error: ConvergedonError) -> bytes:
    """A refusal as it goes over the wire."""
    refused = refusal(error)
    with trace.span("refused", {}):
        refused.headers["X-Trace-Id"] = trace.trace_id()
    refused.headers["Connection"] = "close"
    refused.headers["Cache-Control"] = "no-store"
    lines = [b"HTTP/1.1 %d %s" % (error.status, error.reason.encode())]
    lines += [b"%s: %s" % header for header in refused.raw_headers]
    return b"\r\n".join([*lines, b"", bytes(refused.body)])
