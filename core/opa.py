"""The client of an Open Policy Agent server, told which authorities to trust: by itself it takes the system's alone."""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp
from opa_client.opa_async import AsyncOpaClient


class Client(AsyncOpaClient):  # type: ignore[misc]
    def __init__(self, context: ssl.SSLContext | None, **given: Any) -> None:
        super().__init__(**given)
        self._context = context

    async def _init_session(self) -> None:
        self._connector = aiohttp.TCPConnector(ssl=self._context or True)
        self._session = aiohttp.ClientSession(
            headers=self.headers, connector=self._connector, timeout=aiohttp.ClientTimeout(total=self.timeout)
        )
