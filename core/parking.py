"""How full the stream of parked messages is, said well before it has no room left.

It lets go of nothing: what cannot be parked stays where it was and comes back, and what is behind it waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import structlog

from convergedon.core import metrics
from convergedon.core.bus import Bus

log = structlog.get_logger()

CROWDED, FULL = 0.5, 0.95
"""Parts of what it may hold: from one on it is told, from the other on it counts as full."""


@dataclass(frozen=True)
class Room:
    """Bytes that are parked, and that may be."""

    bytes: int
    most: int

    @property
    def state(self) -> Literal["ready", "full"]:
        return "full" if self.bytes >= FULL * self.most else "ready"

    @property
    def words(self) -> str:
        """What an operator has to know and do; empty while there is room enough."""
        if self.bytes < CROWDED * self.most:
            return ""
        return (
            f"parked messages take {self.bytes / self.most:.0%} of the {self.most:,} bytes that they may: see "
            "`convergedon parked list`, then `parked retry` or `parked drop`, or raise CONVERGEDON_PARKED_BYTES; when "
            "it is full, nothing is lost, and what cannot be parked holds up what comes after it"
        )


async def room(bus: Bus, most: int) -> Room:
    return Room(await bus.size("PARKED"), most)


async def watch(bus: Bus, most: int) -> None:
    """Have it in the metrics, and in the log once it is half full."""
    found = await room(bus, most)
    metrics.PARKED_BYTES.set(found.bytes)
    metrics.PARKED_MOST.set(found.most)
    if found.words:
        log.warning(found.words)
