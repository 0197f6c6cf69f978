"""A policy server for trials: speaks as much of Open Policy Agent's REST API as the gateway asks, and fails on request.

It evaluates with the embedded engine; what it simulates is not how Open Policy Agent decides but how it can be away,
slow or wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any, Literal

import orjson
from aiohttp import web

from convergedon.core.bundles import Bundle
from convergedon.core.engines import Embedded

Mood = Literal["up", "down", "slow", "nonsense"]
LATE = 6.0
"""Seconds to an answer of one that is slow: three times what the gateway waits."""

ALLOWED = {"allow": True, "reasons": [], "filter": {}}
NONSENSE = (
    b"",
    b"<html>Bad Gateway</html>",
    b'{"result": {"allow": tr',
    b"null",
    b"[]",
    b"{}",
    b'{"result": null}',
    b'{"result": true}',
    b'{"result": {"allow": "true"}}',
    b'{"result": {"allow": 1, "reasons": []}}',
    b'{"result": {"reasons": []}}',
    orjson.dumps({"result": {**ALLOWED, "filter": {"tenants": ["acme"]}}}),
    orjson.dumps({"result": {**ALLOWED, "obligations": {"unheardOf": True}}}),
    orjson.dumps({"result": {**ALLOWED, "reasons": "none"}}),
    orjson.dumps({"code": "internal_error", "message": "eval_conflict_error"}),
)
"""Answers that are no decision. One that is may be wrong, but nobody could tell."""


class Decider:
    """On a port of loopback that it keeps; ``become`` says how it answers from then on."""

    def __init__(self, bundle: Bundle) -> None:
        self._engine, self.mood = Embedded(bundle), "down"
        self._nonsense = cycle(NONSENSE)
        self._port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def become(self, mood: Mood) -> None:
        """A server that is down does not listen, and its connections are closed."""
        self.mood = mood
        if mood == "down":
            await self._close()
        elif self._runner is None:
            await self._listen()

    async def _listen(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/v1/data/{path:.*}", self._answer)
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = int(self._runner.addresses[0][1])

    async def _close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _answer(self, request: web.Request) -> web.Response:
        asked = await request.json() if request.can_read_body else {}
        if self.mood == "nonsense":
            return web.Response(body=next(self._nonsense), content_type="application/json")
        if self.mood == "slow":
            await asyncio.sleep(LATE)
        rule = ".".join(("data", *request.match_info["path"].strip("/").split("/")))
        found: Any = self._engine.ask(rule, asked.get("input") or {})
        return web.json_response({} if found is None else {"result": found})


@asynccontextmanager
async def deciding(bundle: Bundle) -> AsyncIterator[Decider]:
    """One that is up; closed with the block."""
    decider = Decider(bundle)
    await decider.become("up")
    try:
        yield decider
    finally:
        await decider.become("down")
