"""A network between adapter and device that is good, slow, silent or cut, as it is told: TCP or UDP on loopback.

What it counts are bytes; ``turns.py`` has a TCP proxy that counts requests. To an adapter that is only spoken to there
is one way (``Wayward``), on which datagrams come twice, in another order, cut or not at all.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any

CHUNK = 65_536


@dataclass(frozen=True)
class Fault:
    """What befalls the next ``times`` connections.

    ``refused``: closed at once. ``silent``: nothing comes back. ``delay``: seconds for each piece. ``cut_after``:
    bytes of answers after which the connection is gone, in the middle of whatever is being said; ``lost_after``: the
    same of what is asked. Then it is closed as if all were said, or, with ``reset``, broken off. ``held_after``: bytes
    of answers after which the next ones take ``held`` seconds, so that half a message arrives by itself.
    With ``once`` the bytes are those of all connections together, and the fault is over when it has happened.
    """

    times: int = 1_000_000
    refused: bool = False
    silent: bool = False
    delay: float = 0.0
    cut_after: int | None = None
    lost_after: int | None = None
    reset: bool = False
    held_after: int | None = None
    held: float = inf
    once: bool = False


class Proxy:
    """Listens on loopback and hands on to one place; ``asked`` and ``answered`` count the bytes of each way."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._fault, self._left = Fault(), 0
        self._passed: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.asked = self.answered = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.host, self.port = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.transport.abort()

    def suffer(self, fault: Fault) -> None:
        """From the next connection on."""
        self._fault, self._left, self._passed = fault, fault.times, Counter()

    def recover(self) -> None:
        self._left = 0

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._fault if self._left else Fault()
        if not fault.once:
            self._left = max(0, self._left - 1)
        task = asyncio.get_running_loop().create_task(self._serve(fault, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if fault.refused:
                return
            with suppress(OSError):
                await self._join(fault, reader, writer)
        finally:
            _part(writer, fault.reset)
            self._writers.discard(writer)

    async def _join(self, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(*self._target)
        try:
            ways = [self._carry(reader, to_writer, fault), self._bring(to_reader, writer, fault)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            _part(to_writer, fault.reset)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> None:
        """What is asked."""
        async for data in self._until(reader, fault, "lost_after"):
            self.asked += len(data)
            await asyncio.sleep(fault.delay)
            writer.write(data)
            await writer.drain()

    async def _bring(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> None:
        """What is answered."""
        async for data in self._until(reader, fault, "cut_after"):
            if fault.silent:
                continue
            self.answered += len(data)
            await asyncio.sleep(fault.delay)
            writer.write(data)
            await writer.drain()

    async def _until(self, reader: asyncio.StreamReader, fault: Fault, limit: str) -> AsyncIterator[bytes]:
        """What comes, until there is no more or so many bytes have; in two where the second is held up."""
        passed, end = self._passed if fault.once else Counter[str](), getattr(fault, limit)
        held = fault.held_after if limit == "cut_after" else None
        while data := await reader.read(CHUNK):
            while data:
                if held is not None and passed[limit] >= held:
                    held = None
                    self._happened(fault)
                    await asyncio.sleep(fault.held)
                until = min((place for place in (held, end) if place is not None), default=None)
                part = data if until is None else data[: max(0, until - passed[limit])]
                data = data[len(part) :]
                passed[limit] += len(part)
                if part:
                    yield part
                if end is not None and passed[limit] >= end:
                    self._happened(fault)
                    return

    def _happened(self, fault: Fault) -> None:
        if fault.once:
            self._left = 0


def _part(writer: asyncio.StreamWriter, reset: bool) -> None:
    """End a connection: in order, so that what was said arrives before the end, or not."""
    bound = writer.get_extra_info("socket")
    if reset and bound is not None and bound.fileno() >= 0:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


class DatagramProxy:
    """The same for datagrams: a connection is all that comes from one port, and what is cut ends in half a datagram."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._fault, self._left = Fault(), 0
        self._ways: dict[Any, _Way] = {}
        self.asked = self.answered = 0

    async def __aenter__(self) -> DatagramProxy:
        self._loop = asyncio.get_running_loop()
        heard = _Heard(self._ask)
        self._transport, _ = await self._loop.create_datagram_endpoint(lambda: heard, ("127.0.0.1", 0))
        self.host, self.port = self._transport.get_extra_info("sockname")[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()
        for way in self._ways.values():
            self._loop.remove_reader(way.socket)
            way.socket.close()

    def suffer(self, fault: Fault) -> None:
        """From the next connection on."""
        self._fault, self._left = fault, fault.times

    def recover(self) -> None:
        self._left = 0

    def _ask(self, data: bytes, sender: Any) -> None:
        way = self._ways.get(sender) or self._new_way(sender)
        if not way.fault.refused and (sent := way.part(data, "lost_after")):
            self.asked += len(sent)
            self._loop.call_later(way.fault.delay, _send, way.socket, sent, self._target)

    def _new_way(self, sender: Any) -> _Way:
        """A socket by which the device answers; the loop reads it."""
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.setblocking(False)
        bound.bind(("127.0.0.1", 0))
        way = self._ways[sender] = _Way(self._fault if self._left else Fault(), bound)
        self._left = max(0, self._left - 1)
        self._loop.add_reader(bound, self._bring, way, sender)
        return way

    def _bring(self, way: _Way, sender: Any) -> None:
        with suppress(OSError):
            data = way.socket.recv(CHUNK)
            if not way.fault.silent and (sent := way.part(data, "cut_after")):
                self.answered += len(sent)
                self._loop.call_later(way.fault.delay, self._transport.sendto, sent, sender)


@dataclass
class _Way:
    """What goes to and fro for one port; ``passed`` counts the bytes of each direction."""

    fault: Fault
    socket: socket.socket
    passed: Counter[str] = field(default_factory=Counter)

    def part(self, data: bytes, limit: str) -> bytes:
        """What of a datagram gets through."""
        most = getattr(self.fault, limit)
        kept = data if most is None else data[: max(0, most - self.passed[limit])]
        self.passed[limit] += len(kept)
        return kept


class Wayward:
    """A way to where an adapter listens: what is sent to ``address`` comes there as ``befall`` has it.

    That is given the number of each datagram and itself, and says what arrives of it and in its place; ``arrived`` is
    how much did. What is held back comes with what is sent next.
    """

    def __init__(self, address: str, befall: Callable[[int, bytes], Sequence[bytes]]) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host.strip("[]"), int(port))
        self._befall, self._numbers = befall, count()
        self.arrived = 0

    async def __aenter__(self) -> Wayward:
        loop, heard = asyncio.get_running_loop(), _Heard(self._pass_on)
        self._heard, _ = await loop.create_datagram_endpoint(lambda: heard, ("127.0.0.1", 0))
        self._sender, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=self._target)
        self.address = "{}:{}".format(*self._heard.get_extra_info("sockname")[:2])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._heard.close()
        self._sender.close()

    def _pass_on(self, data: bytes, sender: Any) -> None:
        for one in self._befall(next(self._numbers), data):
            self._sender.sendto(one)
            self.arrived += 1


class _Heard(asyncio.DatagramProtocol):
    def __init__(self, heard: Callable[[bytes, Any], None]) -> None:
        self._heard = heard

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._heard(data, addr)


def _send(bound: socket.socket, data: bytes, to: Any) -> None:
    with suppress(OSError):
        bound.sendto(data, to)
