"""The console alone on the in-memory twins, and how a browser logs in to it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.applications import Starlette

from convergedon.core import tokens
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.settings import Settings
from convergedon.handlers.resource import Resources


class Trail(list[dict[str, Any]]):
    """Stands in for the audit writer."""

    def record(self, what: str, tenant: str, subject: str, on: str, outcome: str, **detail: Any) -> None:
        self.append({"what": what, "tenant": tenant, "subject": subject, "on": on, "outcome": outcome, **detail})


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


def form_of(page: httpx.Response) -> str:
    found = re.search(r'name="form" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]


async def log_in(client: httpx.AsyncClient, token: str, **fields: str) -> httpx.Response:
    form = form_of(await client.get("/console/login"))
    return await client.post("/console/login", data={"form": form, "token": token, **fields})
