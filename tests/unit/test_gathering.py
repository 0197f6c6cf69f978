"""What is taken without waiting is written a moment later, again where it could not be, and at the end."""

from __future__ import annotations

import asyncio

from convergedon.core.errors import ConvergedonError, Unavailable
from convergedon.core.gathering import Writing


class Book:
    """What is written, once it lets itself be written to."""

    def __init__(self, away: int = 0) -> None:
        self.away, self.told = away, list[str]()
        self.waiting, self.written = list[int](), list[list[int]]()
        self.bell = asyncio.Event()

    async def flush(self) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("the bus is away")
        if self.waiting:
            self.written.append(self.waiting)
            self.waiting = []
            self.bell.set()

    def waits(self, error: ConvergedonError) -> None:
        self.told.append(str(error))


async def test_what_comes_together_is_written_together_also_where_it_has_to_be_tried_again() -> None:
    book = Book(away=1)
    writing = Writing(book.flush, book.waits)
    await writing.start()
    for number in range(3):
        book.waiting.append(number)
        writing.ring()
    async with asyncio.timeout(20):
        await book.bell.wait()
    await writing.stop()

    assert book.written == [[0, 1, 2]]
    assert book.told == ["the bus is away"]


async def test_what_is_left_is_written_at_the_end() -> None:
    book = Book()
    writing = Writing(book.flush, book.waits)
    await writing.start()
    book.waiting.append(1)
    writing.ring()
    await writing.stop()

    assert book.written == [[1]]
