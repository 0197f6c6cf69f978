"""Ending what runs beside: every part that starts tasks ends them this way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended.

    Once is not enough before Python 3.12: a cancellation that comes together with what is waited for is lost
    (asyncio.wait_for, which the client uses for every answer).
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        ended, pending = await asyncio.wait(pending, timeout=1)
        await asyncio.gather(*ended, return_exceptions=True)
