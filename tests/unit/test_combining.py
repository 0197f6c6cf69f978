"""Calls that come while one like them is under way are made together, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from convergedon.core.combining import MOST, Combined
from convergedon.core.errors import Conflict, Unavailable


class Slow:
    """Takes calls and answers them when it is let."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.go_on = asyncio.Semaphore(0)
        self.called = asyncio.Semaphore(0)

    async def __call__(self, several: Sequence[int]) -> Sequence[int | Exception]:
        self.calls.append([*several])
        self.called.release()
        await self.go_on.acquire()
        if -1 in several:
            raise Unavailable("nobody is there")
        return [Conflict("it is there") if one == 0 else 10 * one for one in several]


async def test_what_comes_meanwhile_goes_together_next() -> None:
    slow = Slow()
    combined = Combined(slow)
    first = asyncio.create_task(combined(1))
    await slow.called.acquire()
    others = [asyncio.create_task(combined(n)) for n in (2, 0, 3)]
    await asyncio.sleep(0)
    for _ in range(2):
        slow.go_on.release()

    assert await first == 10
    assert await asyncio.gather(*others, return_exceptions=True) == [20, _conflict(others[1]), 30]
    assert slow.calls == [[1], [2, 0, 3]]


def _conflict(task: asyncio.Task[int]) -> BaseException | None:
    assert isinstance(task.exception(), Conflict)
    return task.exception()


async def test_what_fails_fails_for_those_of_one_call_alone() -> None:
    slow = Slow()
    combined = Combined(slow)
    failing = asyncio.create_task(combined(-1))
    await slow.called.acquire()
    other = asyncio.create_task(combined(4))
    await asyncio.sleep(0)
    for _ in range(2):
        slow.go_on.release()

    with pytest.raises(Unavailable):
        await failing
    assert await other == 40


async def test_who_gives_up_takes_nobody_along() -> None:
    slow = Slow()
    combined = Combined(slow)
    given_up, other = asyncio.create_task(combined(1)), asyncio.create_task(combined(2))
    await slow.called.acquire()
    given_up.cancel()
    slow.go_on.release()

    assert await other == 20
    assert given_up.cancelled()


async def test_of_many_as_many_as_may_be_go_at_once() -> None:
    slow = Slow()
    combined = Combined(slow)
    for _ in range(3):
        slow.go_on.release()

    assert await asyncio.gather(*(combined(n) for n in range(1, 2 * MOST + 2))) == [
        10 * n for n in range(1, 2 * MOST + 2)
    ]
    assert [len(call) for call in slow.calls] == [MOST, MOST, 1]
