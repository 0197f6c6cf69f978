"""Where consumers go on whose place their server has forgotten: at the furthest that any process has noted."""

from __future__ import annotations

import pytest

from convergedon.core.errors import Stale
from convergedon.core.memory import MemoryBus
from convergedon.core.progress import Progress


async def test_of_what_several_processes_note_the_furthest_counts() -> None:
    """Whoever notes last; what was not noted yet is known to who did it."""
    bus = MemoryBus()
    mine, other, new = (Progress(bus.last, bus.publish) for _ in range(3))
    mine.reached("flow", "e", 5)
    other.reached("flow", "e", 7)
    other.reached("fan-out", "e", 2)

    assert await mine.of("flow", "e", 10) == 5
    await other.note()
    await mine.note()
    assert [await new.of(name, "e", 10) for name in ("flow", "fan-out", "unknown")] == [7, 2, 0]


async def test_a_place_in_a_stream_that_was_made_anew_is_none() -> None:
    bus = MemoryBus()
    mine = Progress(bus.last, bus.publish)
    mine.reached("flow", "e", 5)
    await mine.note()

    assert await mine.of("flow", "f", 10) == 0
    mine.reached("flow", "f", 1)
    await mine.note()
    assert await mine.of("flow", "f", 10) == 1


async def test_what_a_server_has_lost_is_not_done() -> None:
    """Others get the sequences of what was lost: they count from there, also when the server ends once more."""
    bus = MemoryBus()
    mine, new = Progress(bus.last, bus.publish), Progress(bus.last, bus.publish)
    mine.reached("flow", "e", 9)
    await mine.note()

    assert await new.of("flow", "e", 4) == 4
    assert await new.of("flow", "e", 6) == 4
    mine.reached("fan-out", "e", 6)
    await mine.note()
    assert await new.of("flow", "e", 20) == 4


async def test_what_another_process_notes_meanwhile_is_not_lost() -> None:
    bus = MemoryBus()
    mine, other = Progress(bus.last, bus.publish), Progress(bus.last, bus.publish)
    mine.reached("flow", "e", 5)
    other.reached("fan-out", "e", 3)
    before = await bus.last("position.consumers")

    async def last(_: str) -> object:
        await other.note()
        return before

    late = Progress(last, bus.publish)  # type: ignore[arg-type]
    late.reached("flow", "e", 5)
    with pytest.raises(Stale):
        await late.note()
    await mine.note()
    assert [await mine.of(name, "e", 10) for name in ("flow", "fan-out")] == [5, 3]
