"""The console alone on the in-memory twins, and how a browser logs in to it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette

from convergedon.core import tokens
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.policy import Decision
from convergedon.core.settings import Settings
from convergedon.handlers.resource import Resources


class Trail(list[dict[str, Any]]):
    """Stands in for the audit writer."""

    def record(
        self, what: str, tenant: str, subject: str, on: str, outcome: str, decision: Decision | None = None, **told: Any
    ) -> None:
        said = {"what": what, "tenant": tenant, "subject": subject, "on": on, "outcome": outcome}
        self.append({**said, "decision": decision.id if decision else "", **told})


@dataclass
class Place:
    settings: Settings
    store: MemoryStore
    bus: MemoryBus
    trail: Trail
    resources: Resources
    stopping: asyncio.Event
    application: Starlette

    @asynccontextmanager
    async def client(self, base: str = "http://console") -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.application), base_url=base) as client:
            yield client

    def token(self, tenant: str = "acme", role: str = "admin", seconds: int = 3600) -> str:
        return tokens.issue(self.settings, tenant, role, seconds=seconds)


@asynccontextmanager
async def listening(application: Starlette) -> AsyncIterator[str]:
    """Serve on a free port; gives the URL."""
    config = uvicorn.Config(application, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=3)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield "http://127.0.0.1:{1}".format(*server.servers[0].sockets[0].getsockname())
    finally:
        server.should_exit = True
        await serving


def form_of(page: httpx.Response) -> str:
    found = re.search(r'name="form" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]


async def log_in(client: httpx.AsyncClient, token: str, **fields: str) -> httpx.Response:
    form = form_of(await client.get("/console/login"))
    return await client.post("/console/login", data={"form": form, "token": token, **fields})
