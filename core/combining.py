"""Calls that come while one like them is under way, made together next: none waits longer than for one that it met."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MOST = 25
"""What is done at once."""


class Combined(Generic[T, R]):
    """One call for many. ``do`` answers for each what came of it: a result, or the error that its caller is to get.

    What ``do`` raises, all get. ``most`` are done at once.
    """

    def __init__(self, do: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]], most: int = MOST) -> None:
        self._do, self._most = do, most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, one: T) -> R:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        self._waiting.append((one, answer))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._answer(taken)
        finally:
            self._task = None
            for _, answer in self._waiting:  # only who ends the whole process interrupts this
                answer.cancel()

    async def _answer(self, taken: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            outcomes: Sequence[R | Exception] = await self._do([one for one, _ in taken])
        except Exception as error:
            outcomes = [error] * len(taken)
        for (_, answer), outcome in zip(taken, outcomes, strict=True):
            if answer.done():
                continue
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
