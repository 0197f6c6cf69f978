"""A policy server on loopback that answers like Open Policy Agent, or in one of the ways in which one can fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from convergedon.core.engines import Embedded

WRONG: dict[str, tuple[int, bytes]] = {
    "no JSON": (200, b"<html>It works!</html>"),
    "another form": (200, b'{"result": {"allow": "yes"}}'),
    "a list": (200, b"[]"),
    "an unknown obligation": (200, b'{"result": {"allow": true, "reasons": [], "obligations": {"sing": true}}}'),
    "an unknown filter": (200, b'{"result": {"allow": true, "reasons": [], "filter": {"colour": "red"}}}'),
    "undefined": (200, b"{}"),
    "a fault": (500, b'{"code": "internal_error"}'),
    "an empty bundle": (404, b"{}"),
}


@dataclass
class Decider:
    """``mode`` is ok, silent, or one of those in WRONG; only the channels in ``wrong_on`` are concerned, or all."""

    engine: Embedded
    port: int = 0
    mode: str = "ok"
    wrong_on: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].split("\r\n")[0])
                question = orjson.loads(await reader.readexactly(length)).get("input", {})
                channel = question.get("channel", "")
                failing = self.mode != "ok" and (not self.wrong_on or channel in self.wrong_on)
                if failing:
                    self.asked.append(channel)
                if failing and self.mode == "silent":
                    await asyncio.sleep(60)
                status, body = WRONG[self.mode] if failing else (200, await self._answer(question))
                told = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(told.encode() + body)
                await writer.drain()

    async def _answer(self, question: dict[str, Any]) -> bytes:
        return orjson.dumps({"result": await self.engine.evaluate(question)})


@asynccontextmanager
async def deciding(engine: Embedded) -> AsyncIterator[Decider]:
    decider = Decider(engine)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(decider.serve(reader, writer))
        tasks.add(task)

        def close(_: object) -> None:
            tasks.discard(task)
            writer.close()

        task.add_done_callback(close)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    decider.port = server.sockets[0].getsockname()[1]
    try:
        yield decider
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
