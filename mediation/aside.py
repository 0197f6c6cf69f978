"""Doing many things side by side, and all of them to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MOST = 12
"""Writes side by side: the store commits them together, and its threads are not all taken."""


async def all_of(things: Iterable[Coroutine[Any, Any, None]], most: int = MOST) -> None:
    """Do all of these, so many at a time. Raises the first error when all have ended."""
    turns = asyncio.Semaphore(most)

    async def one(thing: Coroutine[Any, Any, None]) -> None:
        async with turns:
            await thing

    for outcome in await asyncio.gather(*map(one, things), return_exceptions=True):
        if outcome is not None:
            raise outcome


async def both(one: Awaitable[T], other: Awaitable[R]) -> tuple[T, R]:
    """What comes of these two. Raises the first error when both have ended."""
    found = await asyncio.gather(one, other, return_exceptions=True)
    for outcome in found:
        if isinstance(outcome, BaseException):
            raise outcome
    return found  # type: ignore[return-value]
