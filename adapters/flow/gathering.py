"""Many small datagrams to few observations: what one device exports within a moment is made safe together.

Each datagram's report returns when the observation that it went into is stored. One that could not be stored is sent
again as it was, under the same id, whichever of its datagrams is tried again first: it may have been stored all the
same.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from convergedon.adapters.contract import Observation, Report
from convergedon.core.errors import Unavailable
from convergedon.core.tasks import end

LINGER = 0.1
# A message of the bus has a megabyte, a record some 150 bytes
MOST_RECORDS = 2000

Key = tuple[str, str, Any, Any]


@dataclass(eq=False)
class _Batch:
    stored: asyncio.Future[None]
    parts: list[Observation] = field(default_factory=list)
    records: int = 0
    whole: Observation | None = None
    done: bool = False

    def observation(self) -> Observation:
        """All of it as one; the same whenever it is asked."""
        if self.whole is None:
            first = self.parts[0]
            id = hashlib.sha256(" ".join(part.id for part in self.parts).encode()).hexdigest()[:32]
            records = [record for part in self.parts for record in part.attributes["records"]]
            attributes = {**first.attributes, "records": records}
            if missing := sum(part.attributes.get("missing", 0) for part in self.parts):
                attributes["missing"] = missing
            self.whole = replace(first, id=id, attributes=attributes)
        return self.whole


class Gathering:
    """A report for the intake, in front of the bus's."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._open: dict[Key, _Batch] = {}
        self._failed: dict[str, _Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, seen: Observation) -> None:
        """Make one datagram's records safe. Raises Unavailable."""
        failed = self._failed.get(seen.id)
        if failed is not None:
            await self._again(failed)
            del self._failed[seen.id]
            return
        await asyncio.shield(self._join(seen).stored)

    async def stop(self) -> None:
        """Give up what is not stored; the intake has waited for it and counts it."""
        await end(self._tasks)
        self._open.clear()
        self._failed.clear()

    def _join(self, seen: Observation) -> _Batch:
        key = (seen.device, seen.tenant, seen.attributes.get("observationDomain"), seen.attributes.get("sampling"))
        batch = self._open.get(key)
        more = len(seen.attributes["records"])
        if batch is not None and batch.records + more > MOST_RECORDS:
            self._close(key, batch)
            batch = None
        if batch is None:
            loop = asyncio.get_running_loop()
            batch = self._open[key] = _Batch(loop.create_future())
            loop.call_later(LINGER, self._close, key, batch)
        batch.parts.append(seen)
        batch.records += more
        return batch

    def _close(self, key: Key, batch: _Batch) -> None:
        if self._open.get(key) is batch:
            del self._open[key]
            task = asyncio.get_running_loop().create_task(self._send(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, batch: _Batch) -> None:
        try:
            await self._report(batch.observation())
        except Unavailable as error:
            self._failed |= dict.fromkeys((part.id for part in batch.parts), batch)
            batch.stored.set_exception(error)
        except Exception as error:
            batch.stored.set_exception(error)
        else:
            batch.stored.set_result(None)

    async def _again(self, batch: _Batch) -> None:
        if not batch.done:
            await self._report(batch.observation())
            batch.done = True
