"""A shelf to try the adapter on; not the real thing."""

from __future__ import annotations

import asyncio


class Shelf:
    """Ports by name; one takes what it knows: ``speed`` up to 1000 and ``lane``."""

    def __init__(self) -> None:
        self.ports: dict[str, dict[str, str]] = {}
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def start(self, port: int = 0) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*filter(None, self._open.values()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = asyncio.current_task()
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                writer.write(f"{self.answer(line.decode().strip())}\n".encode())
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()
            del self._open[writer]

    def answer(self, line: str) -> str:
        verb, _, rest = line.partition(" ")
        name, *pairs = rest.split(" ")
        values = dict(pair.split("=", 1) for pair in pairs if pair)
        if verb == "get":
            has = self.ports.get(name)
            return "none" if has is None else " ".join(["has", *(f"{key}={value}" for key, value in has.items())])
        if verb == "set":
            if unknown := values.keys() - {"speed", "lane"}:
                return f"error port {name} has no {min(unknown)}"
            if not 0 < int(values.get("speed", 1)) <= 1000:
                return "error speed is 1 to 1000"
            self.ports[name] = values
        elif verb == "drop":
            self.ports.pop(name, None)
        elif verb != "hello":
            return f"error what is {verb}"
        return "ok"
