"""A web service on loopback that keeps what it was sent, with who sent it and under which key, and tells it back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Sink:
    """``statuses`` are those of the next answers, 200 when there are no more; of 0 there is none.

    ``held`` keeps back what would be answered until it is set.
    """

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    got: list[Request] = field(default_factory=list)
    held: asyncio.Event | None = None

    def keys(self) -> Counter[str]:
        """How often each Idempotency-Key has come."""
        return Counter(request.headers["idempotency-key"] for request in self.got)

    def done(self) -> list[tuple[str, Any]]:
        """What was asked, each key once, in the order in which they came first: what a service does of it."""
        first = {request.headers["idempotency-key"]: request for request in reversed(self.got)}
        return [(one.path, one.body) for one in self.got if first[one.headers["idempotency-key"]] is one]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                method, path, _ = head[0].split(" ")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.got.append(Request(method, path, headers, orjson.loads(body) if body else None))
                status = self.statuses.pop(0) if self.statuses else 200
                if status == 0:
                    continue
                if self.held:
                    await self.held.wait()
                told = orjson.dumps({"id": str(len(self.got)), "headers": headers})
                where = f"location: {self.url}/elsewhere\r\n" if 300 <= status < 400 else ""
                writer.write(f"HTTP/1.1 {status} X\r\n{where}content-length: {len(told)}\r\n\r\n".encode() + told)
                await writer.drain()


@asynccontextmanager
async def sinking() -> AsyncIterator[Sink]:
    sink = Sink()
    tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks[asyncio.create_task(sink.serve(reader, writer))] = writer

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    sink.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield sink
    finally:
        server.close()
        for task, writer in tasks.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
