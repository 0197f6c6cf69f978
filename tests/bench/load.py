"""A load client in a process of its own: some connections, each with one request under way at a time.

It writes prepared bytes and reads no more of an answer than its status and length, so that a core of it asks several
times what a gateway can answer; how much it can ask at most is measured beside (``socket`` in servers.py).

    echo '{"host": ..., "port": ..., "requests": [hex, ...], "connections": 8, "seconds": 3}' \\
        | python -m tests.bench.load
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from random import randrange
from time import perf_counter
from typing import Any

from tests.bench import facts
from tests.bench.rounds import spread

ROOT = Path(__file__).parents[2]
NUMBER = b"########"
"""Stands in a request for a number of its own: what is sent again and again is never the same."""


def warm_up(seconds: float) -> float:
    """How long is asked before anything counts."""
    return min(0.3, seconds)


@dataclass
class Run:
    """``requests`` are sent in turn."""

    requests: Sequence[bytes]
    begin: float
    end: float
    took: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._turns, self._numbers = cycle(self.requests), count(randrange(90_000_000))

    def request(self) -> bytes:
        """The next one."""
        return next(self._turns).replace(NUMBER, b"%08d" % next(self._numbers))


class Asking(asyncio.Protocol):
    def __init__(self, run: Run) -> None:
        self._run, self._got, self._wanted, self._asked = run, bytearray(), 0, 0.0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        request = self._run.request()
        self._asked = perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._wanted:
            head = self._got.find(b"\r\n\r\n")
            if head < 0:
                return
            length = self._got[:head].lower().find(b"content-length:")
            size = int(self._got[length + 15 : self._got.find(b"\r\n", length)]) if length >= 0 else 0
            self._wanted = head + 4 + size
        if len(self._got) >= self._wanted:
            self._answered(perf_counter())

    def _answered(self, now: float) -> None:
        self._run.statuses[self._got[9:12].decode()] += 1
        if self._run.begin <= self._asked and now <= self._run.end:
            self._run.took.append(now - self._asked)
        self._got.clear()
        self._wanted = 0
        if now < self._run.end:
            self._ask()
        else:
            self._transport.close()
            self.over.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(error or ConnectionError("the server closed the connection"))


async def ask(given: dict[str, Any]) -> dict[str, Any]:
    begin = perf_counter() + warm_up(given["seconds"])
    run = Run([*map(bytes.fromhex, given["requests"])], begin, begin + given["seconds"])
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Asking(run), given["host"], given["port"])
        for _ in range(given["connections"])
    ]
    async with asyncio.timeout(given["seconds"] + 30):
        await asyncio.gather(*(asking.over for _, asking in made))
    return {"rate": len(run.took) / given["seconds"], "ms": spread(run.took or [0.0], 1000), "statuses": run.statuses}


async def measure(address: str, requests: Sequence[bytes], connections: int, seconds: float) -> dict[str, Any]:
    """Run the client against a server: answers a second, milliseconds p50 and p99, statuses seen."""
    host, _, port = address.rpartition(":")
    asked = [request.hex() for request in requests]
    given = {"host": host, "port": int(port), "requests": asked, "connections": connections, "seconds": seconds}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    out, _ = await process.communicate(json.dumps(given).encode())
    if process.returncode:
        raise RuntimeError(f"the load client failed against {address}")
    return dict(json.loads(out))


if __name__ == "__main__":
    import uvloop

    if chosen := facts.cores():
        facts.keep_to(chosen[0])
    print(json.dumps(uvloop.run(ask(json.load(sys.stdin)))))
