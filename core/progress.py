"""How far consumers have got whose place their server keeps in its memory alone.

The server writes a file for each place that it keeps itself, when it gives a message and when that is done: with some
dozen lanes that was most of its work. Here the places of all are noted in one message, now and then. What was done
since is given again where a server dies, as anything is whose taker dies before it says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol
from uuid import uuid4

import structlog

from convergedon.core.errors import ConvergedonError, Stale
from convergedon.core.gathering import Writing

log = structlog.get_logger()

NOTED = "position.consumers"
EVERY = 0.5
"""Seconds in which places gather."""

Place = tuple[str, int]
"""The epoch of a stream, and a sequence in it."""


class Noted(Protocol):
    """The message in which the places were noted last."""

    @property
    def body(self) -> Mapping[str, Any]: ...

    @property
    def position(self) -> Any: ...


class Progress:
    """The places that this process knows of; ``last`` and ``publish`` are a bus's.

    Several processes note in one message: of each consumer the furthest place counts.
    """

    def __init__(self, last: Callable[[str], Awaitable[Noted | None]], publish: Callable[..., Awaitable[None]]) -> None:
        self._last, self._publish = last, publish
        self._fresh: dict[str, Place] = {}
        self._lost: dict[str, Place] = {}
        self._writing = Writing(self.note, self._waits, EVERY)
        self._begun = False

    async def start(self) -> None:
        if not self._begun:
            self._begun = True
            await self._writing.start()

    async def stop(self) -> None:
        """Note what is left, if there is somebody to note it."""
        if self._begun:
            with suppress(ConvergedonError):
                await self._writing.stop()

    def reached(self, consumer: str, epoch: str, sequence: int) -> None:
        """All up to this place is done."""
        self._fresh[consumer] = epoch, sequence
        self._writing.ring()

    async def of(self, consumer: str, epoch: str, last: int) -> int:
        """The sequence that a consumer has reached in this epoch; 0 where nobody knows. Raises Unavailable.

        ``last`` is that of the stream: a server that kept its messages for a while before it wrote them may have lost
        some, and what has their sequences now is yet to be done.
        """
        noted = await self._last(NOTED)
        places = (_places(noted).get(consumer) if noted else None, self._fresh.get(consumer))
        reached = max((sequence for of, sequence in filter(None, places) if of == epoch), default=0)
        if reached > last:
            self._fresh.pop(consumer, None)
            self._lost[consumer] = epoch, last
            await self.note()
        return min(reached, last)

    async def note(self) -> None:
        """Raises Stale when another process has noted meanwhile, and Unavailable."""
        noted, fresh = await self._last(NOTED), {**self._fresh}
        known = _places(noted) if noted else {}
        places = known | {name: _further(known.get(name), place) for name, place in fresh.items()} | self._lost
        if places != known:
            await self._publish(NOTED, places, uuid4().hex, after=noted.position.sequence if noted else 0)
        self._lost.clear()
        self._fresh = {name: place for name, place in self._fresh.items() if fresh.get(name) != place}

    def _waits(self, error: ConvergedonError) -> None:
        if not isinstance(error, Stale):
            log.info("places of consumers are noted later", reason=str(error))


def _places(noted: Noted) -> dict[str, Place]:
    return {name: (epoch, sequence) for name, (epoch, sequence) in noted.body.items()}


def _further(known: Place | None, reached: Place) -> Place:
    """The further of two places; one of another epoch is of a stream that is no more."""
    return known if known and known[0] == reached[0] and known[1] > reached[1] else reached
