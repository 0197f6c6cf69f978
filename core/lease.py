"""For how long a process may go by what it has read of what others change: who changes it waits that long."""

from __future__ import annotations

import asyncio

LEASE = 0.1
"""Seconds for which a process may go by what it read."""


async def settled() -> None:
    """Wait until every process goes by a change that was written: only their clocks' pace must agree."""
    await asyncio.sleep(1.5 * LEASE)
