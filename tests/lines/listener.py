"""A listener of events on loopback, as a customer's or a vendor's system would run one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import time
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


@dataclass
class Listener:
    """``url`` of the place; a path names who listens. ``status`` says how the next events are answered."""

    url: str = ""
    status: int = 204
    received: list[dict[str, Any]] = field(default_factory=list)
    bell: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: Request) -> Response:
        event = orjson.loads(await request.body())
        async with self.bell:
            if self.status < 300:
                about = {"who": request.path_params["who"], "at": time(), "traceparent": request.headers["traceparent"]}
                self.received.append({**about, "event": event})
            self.bell.notify_all()
        return Response(status_code=self.status)

    async def until(self, condition: Any, patience: float = 30) -> None:
        """Wait until the condition holds for what was received."""
        async with asyncio.timeout(patience), self.bell:
            await self.bell.wait_for(lambda: condition(self.received))


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    listener = Listener()
    app = Starlette(routes=[Route("/{who}", listener.take, methods=["POST"])])
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[method-assign]
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    listener.url = f"http://127.0.0.1:{port}"
    try:
        yield listener
    finally:
        server.should_exit = True
        await task
