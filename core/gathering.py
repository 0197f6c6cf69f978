"""What is taken without waiting and written a moment later, many at a time: audit records, and decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from convergedon.core.errors import ConvergedonError
from convergedon.core.tasks import end

GATHER = 0.1
"""Seconds in which it gathers; so much of it a killed process may take with it."""
PAUSE = 0.5
"""Seconds until it is tried again, where it could not be written."""


class Writing:
    """Flushes a moment after ``ring`` (``gather`` seconds), and on ``stop``.

    ``waits`` is told why what waits could not be written.
    """

    def __init__(
        self, flush: Callable[[], Awaitable[None]], waits: Callable[[ConvergedonError], None], gather: float = GATHER
    ) -> None:
        self._flush, self._waits, self._gather = flush, waits, gather
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def ring(self) -> None:
        """There is something to write."""
        self._bell.set()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._write())

    async def stop(self) -> None:
        """Write what is left. Raises what flushing raises."""
        if self._task:
            await end([self._task])
        await self._flush()

    async def _write(self) -> None:
        while True:
            await self._bell.wait()
            await asyncio.sleep(self._gather)
            self._bell.clear()
            try:
                await self._flush()
            except ConvergedonError as error:
                self._waits(error)
                await asyncio.sleep(PAUSE)
                self._bell.set()
