"""The event stream: says which parts of the page have changed, so that the page fetches them anew.

It carries names, no content: what a name stands for is asked for, and allowed or refused, like everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any

import orjson
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadSignature
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from convergedon.core.bus import Bus, Message, token
from convergedon.core.errors import ConvergedonError
from convergedon.core.policy import Subject
from convergedon.handlers.console.door import LONGEST, Door
from convergedon.handlers.console.reading import PARTS, tenant_of

HEARTBEAT = 15.0
TICK = 0.5
MOST_STREAMS = 200
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]


class Live:
    """The ASGI application of /console/live."""

    def __init__(self, bus: Bus, flask: Flask, door: Door, stopping: Callable[[], Any]) -> None:
        self._bus, self._flask, self._door, self._stopping = bus, flask, door, stopping
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await PlainTextResponse("only GET\n", 405, {"Allow": "GET"})(scope, receive, send)
            return
        session = self._session(Request(scope))
        operator = self._door.operator(session)
        if operator is None:
            await PlainTextResponse("log in at /console/login\n", 401)(scope, receive, send)
            return
        if self._open >= MOST_STREAMS:
            await PlainTextResponse("too many streams\n", 503, {"Retry-After": "30"})(scope, receive, send)
            return
        try:
            await self._door.allowed(operator, "retrieve", "console")
        except ConvergedonError as error:
            await PlainTextResponse(f"{error}\n", error.status)(scope, receive, send)
            return
        self._open += 1
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await self._stream(operator, session, gone, send)
        except OSError:
            pass  # the client went while it was written to
        finally:
            self._open -= 1
            gone.cancel()

    def _session(self, request: Request) -> Mapping[str, Any]:
        signer = SecureCookieSessionInterface().get_signing_serializer(self._flask)
        cookie = request.cookies.get(self._flask.config["SESSION_COOKIE_NAME"])
        try:
            return dict(signer.loads(cookie, max_age=LONGEST)) if signer and cookie else {}
        except BadSignature:
            return {}

    async def _stream(
        self, operator: Subject, session: Mapping[str, Any], gone: asyncio.Task[None], send: Send
    ) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await _say(send, b"retry: 2000\n: from now on\n\n")
        async with self._news(operator.tenant) as queue:
            said = monotonic()
            while not gone.done() and not self._stopping() and self._door.operator(session):
                changed = await _changed(queue, operator.tenant)
                if changed:
                    await _say(send, b"event: changed\ndata: " + orjson.dumps(changed) + b"\n\n")
                    said = monotonic()
                elif monotonic() - said > HEARTBEAT:
                    await _say(send, b": still here\n\n")
                    said = monotonic()
        if not gone.done():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    @asynccontextmanager
    async def _news(self, tenant: str) -> AsyncIterator[asyncio.Queue[Message]]:
        """What happened to the tenant's resources, and what was parked, in one queue."""
        both: asyncio.Queue[Message] = asyncio.Queue(1000)

        async def pour(queue: asyncio.Queue[Message]) -> None:
            while True:
                await both.put(await queue.get())

        async with AsyncExitStack() as stack:
            tasks = [
                asyncio.create_task(pour(await stack.enter_async_context(self._bus.listen(subject))))
                for subject in (f"event.*.{token(tenant)}.>", "parked.>")
            ]
            try:
                yield both
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def _say(send: Send, words: bytes) -> None:
    await send({"type": "http.response.body", "body": words, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _changed(queue: asyncio.Queue[Message], tenant: str) -> list[str]:
    """The names of what changed since the last time; empty when nothing did for a moment."""
    try:
        messages = [await asyncio.wait_for(queue.get(), TICK)]
    except TimeoutError:
        return []
    while not queue.empty():
        messages.append(queue.get_nowait())
    return sorted({name for message in messages for name in names(message, tenant)})


def names(message: Message, tenant: str) -> list[str]:
    """The parts of the page that a message concerns, and the record's own page; none for another tenant."""
    if tenant_of(message.body) != tenant:
        return []
    if message.subject.startswith("parked."):
        return ["parked", "figures"]
    kind = str(message.body.get("kind", ""))
    return [*PARTS.get(kind, ()), f"{kind}/{message.body.get('id', '')}"]
