"""What every request must be before it is looked at, and what every answer says to a browser."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convergedon.core import trace
from convergedon.core.errors import ConvergedonError, HeadersTooLarge, Invalid, TooLong
from convergedon.handlers.answers import refusal

MOST_HEADERS = 100
HEADER_BYTES = 32_768
URL_BYTES = 16_384
MOST_PARAMETERS = 500
PROTECTION: Sequence[tuple[bytes, bytes]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
"""What an answer says unless it says something else itself: pages do."""
BY_TLS = (b"strict-transport-security", b"max-age=31536000")
Headers = Sequence[tuple[bytes, bytes]]


class Guard:
    """Refuses requests that are out of proportion, and gives answers their protection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        defaults = (*PROTECTION, BY_TLS) if scope.get("scheme") == "https" else PROTECTION

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = list(message.get("headers", ()))
                names = {name for name, _ in said}
                message["headers"] = [*said, *(header for header in defaults if header[0] not in names)]
            await send(message)

        try:
            check(scope["headers"], len(scope.get("raw_path") or b""), scope.get("query_string", b""))
        except ConvergedonError as error:
            refused = refusal(error)
            with trace.span("refused", {}):
                refused.headers["X-Trace-Id"] = trace.trace_id()
            refused.headers["Connection"] = "close"  # what it sends beside is not read
            await refused(scope, receive, protected)
            return
        await self._app(scope, receive, protected)


def check(headers: Headers, path: int, query: bytes) -> None:
    """Raises TooLong, HeadersTooLarge or Invalid."""
    if path + len(query) > URL_BYTES:
        raise TooLong(f"a URL has at most {URL_BYTES} bytes")
    if query.count(b"&") >= MOST_PARAMETERS:
        raise TooLong(f"a URL has at most {MOST_PARAMETERS} parameters")
    if len(headers) > MOST_HEADERS:
        raise HeadersTooLarge(f"a request has at most {MOST_HEADERS} headers")
    if sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
        raise HeadersTooLarge(f"the headers of a request have at most {HEADER_BYTES} bytes")
    if [name for name, _ in headers].count(b"host") > 1:
        raise Invalid("a request has one Host header")
