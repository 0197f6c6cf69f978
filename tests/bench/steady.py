"""What a write costs the embedded store when it has just started, and after so many writes more.

In the same rounds, each on a store of its own: one that has just started, one that has taken ten thousand writes and
more, and SecantusDB as it is installed after as many. A write is a new record of a kilobyte without messages.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from convergedon.core import embedded
from convergedon.core.store import MongoStore, Record
from convergedon.handlers.apis import KINDS
from convergedon.handlers.customer_notifications import TELLING
from tests.bench import servers
from tests.bench.rounds import Effort, Result, Turn, in_turn, ratios, rounded

BEFORE = 12_000
"""Writes of a store that has been at work: in a minute or two of faults there are as many."""
WRITES = 500
"""Those of a turn."""
NEW, USED, ALONE = "just started", f"after {BEFORE:,} writes", f"SecantusDB alone, after {BEFORE:,} writes"
BODY = {"text": "x" * 900}


class Contestant:
    """A store and the process that serves it."""

    def __init__(self, store: MongoStore, process: int) -> None:
        self._store, self._process, self._numbers = store, process, count()

    async def write(self, number: int) -> None:
        for _ in range(number):
            await self._store.create(Record(TELLING.name, f"{next(self._numbers)}", "acme", BODY))

    async def turn(self) -> float:
        """Seconds of the server's processor time for a write."""
        before = servers.spent(self._process)
        await self.write(WRITES)
        return (servers.spent(self._process) - before) / WRITES


async def measure(effort: Effort) -> Result:
    result = Result("a write of the embedded store", "ms of its processor time")
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-", ignore_cleanup_errors=True) as name:
        async with AsyncExitStack() as stack:
            contestants: dict[str, Turn] = {}
            for number, (title, writes) in enumerate(((NEW, 0), (USED, BEFORE), (ALONE, BEFORE))):
                folder = Path(name) / str(number)
                folder.mkdir()
                command = embedded.mongodb_command(folder)
                contestant = await _started(stack, _as_installed(command, folder) if title == ALONE else command)
                await contestant.write(writes)
                contestants[title] = contestant.turn
            found = await in_turn(contestants, effort.rounds)
    result.figures = {title: {"ms": rounded(1000 * statistics.median(took))} for title, took in found.items()}
    result.ratios = ratios(found, (USED, NEW), (ALONE, USED))
    return result


async def _started(stack: AsyncExitStack, command: embedded.Command) -> Contestant:
    server = stack.enter_context(embedded.running(command))
    store = await MongoStore(server.url, "bench", KINDS).open()
    stack.push_async_callback(store.close)
    return Contestant(store, server.pid)


def _as_installed(command: embedded.Command, folder: Path) -> embedded.Command:
    """SecantusDB without what is ours; it knows no user, so nobody has to log in."""
    begin = command.argv.index(str(folder)) + 1
    argv = (sys.executable, "-P", "-m", "secantus", *command.argv[begin:], "--storage-path", str(folder / "store"))
    url = urlsplit(command.url)
    open_ = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    return replace(command, argv=argv, url=open_, answers=lambda pid: embedded._mongodb_pid(open_) == pid)
