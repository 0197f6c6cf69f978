"""A connection that breaks where it is told to: a TCP proxy to put in front of any device that is asked and answers.

It knows no protocol, so an encrypted one will do. The kit's own (``proxy.py``) counts bytes, which suits any adapter;
this one is for tests that know how a device is spoken to, and counts turns: a turn begins with the first byte of the
client after a byte of the server, so that in a protocol of requests and answers each request is one. A test arms it for
a turn and sees what became of both sides.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal

How = Literal["before", "half", "after", "silence"]
"""before: nothing of the turn reaches the server. half: a part of it does. after: the server answers, and the answer
reaches nobody. silence: as after, and the connection stays as if nothing were. But for silence both ends are reset."""


class BreakingProxy:
    """Listens on loopback and passes on to ``host`` and ``port``; while ``away`` it takes no connection."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.away = False
        self.delay = 0.0
        self.turns = 0
        self._armed: tuple[int, How] | None = None
        self._broke = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.cut()
            for link in list(self._links):
                await link.ended.wait()
            await self._server.wait_closed()
            self._server = None

    def arm(self, turn: int, how: How) -> None:
        """Break the connection once, at the turn of this number from now on; the first is 1."""
        self.turns, self._armed, self._broke = 0, (turn, how), asyncio.Event()

    @property
    def broke(self) -> bool:
        """Whether what was armed has happened."""
        return self._broke.is_set()

    async def until_broke(self) -> None:
        await self._broke.wait()

    def cut(self) -> None:
        """Reset all connections now."""
        for link in list(self._links):
            link.reset()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            writer.transport.abort()
            return
        try:
            server = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, (reader, writer), server)
        self._links.add(link)
        try:
            await link.pass_on()
        finally:
            self._links.discard(link)

    def _due(self) -> How | None:
        """How the turn that is under way is to break, once."""
        if self._armed is None or self._armed[0] != self.turns:
            return None
        how, self._armed = self._armed[1], None
        return how


class _Link:
    """One connection through the proxy."""

    def __init__(
        self,
        proxy: BreakingProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.ended = asyncio.Event()
        self._proxy, self._client, self._server = proxy, client, server
        self._answered = True
        self._breaking: How | None = None

    def reset(self) -> None:
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    async def pass_on(self) -> None:
        directions = [asyncio.ensure_future(self._ask()), asyncio.ensure_future(self._answer())]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.reset()
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            self.ended.set()

    async def _ask(self) -> None:
        with suppress(OSError):
            while said := await self._client[0].read(65_536):
                if self._answered:
                    self._answered = False
                    self._proxy.turns += 1
                    self._breaking = self._proxy._due()
                if self._breaking == "before":
                    self._break()
                    return
                if self._breaking == "half":
                    self._server[1].write(said[: len(said) // 2])
                    await self._server[1].drain()
                    self._break()
                    return
                self._server[1].write(said)
                await self._server[1].drain()

    async def _answer(self) -> None:
        with suppress(OSError):
            while said := await self._server[0].read(65_536):
                self._answered = True
                if self._breaking == "after":
                    self._break()
                    return
                if self._breaking == "silence":
                    self._proxy._broke.set()
                    continue
                if self._proxy.delay:
                    await asyncio.sleep(self._proxy.delay)
                self._client[1].write(said)
                await self._client[1].drain()

    def _break(self) -> None:
        self.reset()
        self._proxy._broke.set()
