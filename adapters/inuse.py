"""An adapter in use: it is replaced without a break, and stopped when nothing is under way on it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from convergedon.adapters.contract import Adapter


class InUse:
    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def using(self) -> Iterator[Adapter]:
        """The adapter, for as long as the block: it is not stopped before its end."""
        self._under_way += 1
        self._idle.clear()
        try:
            yield self.adapter
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def retire(self) -> None:
        """Stop the adapter when what is under way has ended."""
        await self._idle.wait()
        await self.adapter.stop()
