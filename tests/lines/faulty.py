"""A store that fails at a chosen write, before it was done or after, as a cut wire or a killed process has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from convergedon.core.errors import Conflict, Stale, Unavailable
from convergedon.core.store import Draft, Outgoing, Published, Record, Store, Unsent, Where, Written


class FaultyStore:
    """Hands everything on to another store; the ``fails_at``-th write is answered with Unavailable.

    ``when`` says whether that write was done all the same (its answer was lost). ``writes`` counts them.
    """

    def __init__(self, store: Store, fails_at: int = 0, when: Literal["before", "after"] = "before") -> None:
        self.inner, self.fails_at, self.when = store, fails_at, when
        self.writes = 0

    @property
    def written(self) -> Written:
        return self.inner.written

    @written.setter
    def written(self, told: Written) -> None:
        self.inner.written = told

    @property
    def published(self) -> Published:
        return self.inner.published

    @published.setter
    def published(self, has_left: Published) -> None:
        self.inner.published = has_left

    async def _write(self, write: Any) -> Any:
        self.writes += 1
        fails = self.writes == self.fails_at
        if fails and self.when == "before":
            write.close()
            raise Unavailable("the store was cut off")
        done = await write
        if fails:
            raise Unavailable("the store's answer was lost")
        return done

    async def create(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        return await self._write(self.inner.create(record, messages))

    async def create_all(self, drafts: Sequence[Draft]) -> list[Record | Conflict]:
        """Cut off, those before are stored and those after are not."""
        return [await self._tried(self._write(self.inner.create(*draft))) for draft in drafts]

    async def replace_all(self, drafts: Sequence[Draft]) -> list[Record | Conflict | Stale]:
        return [await self._tried(self._write(self.inner.replace(*draft))) for draft in drafts]

    async def _tried(self, write: Any) -> Any:
        try:
            return await write
        except (Conflict, Stale) as error:
            return error

    async def append(self, records: Sequence[Record]) -> None:
        await self.inner.append(records)

    async def get(self, kind: str, tenant: str, id: str, parties: Sequence[str] | None = None) -> Record:
        return await self.inner.get(kind, tenant, id, parties)

    async def find(
        self, kind: str, where: Where, sort: Sequence[tuple[str, int]] = (), skip: int = 0, limit: int = 0
    ) -> list[Record]:
        return await self.inner.find(kind, where, sort, skip, limit)

    async def count(self, kind: str, where: Where) -> int:
        return await self.inner.count(kind, where)

    async def replace(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        return await self._write(self.inner.replace(record, messages))

    async def delete(self, record: Record, messages: Sequence[Outgoing] = ()) -> None:
        await self._write(self.inner.delete(record, messages))

    async def unsent(self, older_than: float) -> list[Unsent]:
        return await self.inner.unsent(older_than)

    async def sent(self, done: Iterable[Unsent]) -> None:
        await self.inner.sent(done)

    async def ping(self) -> None:
        await self.inner.ping()

    async def close(self) -> None:
        await self.inner.close()
