"""What went over a device's interfaces between two readings of their counters: decisions alone.

A counter that went back has wrapped, or began again; which of the two is told by the device's uptime and by the
interface's own discontinuity time. Where it cannot be told, nothing is counted rather than something invented.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

OCTETS = ("octetsIn", "octetsOut")
COUNTED = (*OCTETS, "packetsIn", "packetsOut")
UPTIME_WRAPS = 1 << 32
# Seconds by which a device's clock and ours may drift apart between two readings, beside a hundredth of the time
DRIFT = 30.0

Loss = Literal["restart", "discontinuity", "new", "ambiguous", "unchanged"]


@dataclass(frozen=True)
class Interface:
    """One reading: ``counts`` by COUNTED, of so many ``bits``; ``since`` is ifCounterDiscontinuityTime."""

    counts: Mapping[str, int]
    bits: Literal[32, 64] = 64
    since: int = 0
    speed: int = 0
    """Bits per second, as far as the device tells."""


@dataclass(frozen=True)
class Reading:
    """All interfaces of a device by name, when (seconds since the epoch), and its uptime in hundredths of seconds."""

    time: float
    uptime: int
    interfaces: Mapping[str, Interface]


def restarted(before: Reading, after: Reading) -> bool:
    """Whether the device began to count anew. The uptime itself wraps after 497 days."""
    if after.uptime >= before.uptime:
        return False
    expected = before.uptime + 100 * (after.time - before.time)
    drift = 100 * DRIFT + (after.time - before.time)
    return abs(expected - UPTIME_WRAPS - after.uptime) > drift


def between(before: Reading, after: Reading) -> Iterator[tuple[str, dict[str, int] | Loss]]:
    """Interface -> what went over it, or why that is not known."""
    anew = restarted(before, after)
    for name, now in after.interfaces.items():
        then = before.interfaces.get(name)
        if then is None or then.bits != now.bits:
            yield name, "new"
        elif anew:
            yield name, "restart"
        elif then.since != now.since:
            yield name, "discontinuity"
        else:
            yield name, _went(then, now, after.time - before.time)


def _went(then: Interface, now: Interface, seconds: float) -> dict[str, int] | Loss:
    size = 1 << now.bits
    found = {name: (now.counts[name] - then.counts[name]) % size for name in COUNTED if name in now.counts}
    if now.bits == 64 and any(count >= size // 2 for count in found.values()):
        return "ambiguous"  # no line ever carried so much
    if now.bits == 32 and now.speed * seconds / 8 >= size:
        return "ambiguous"  # it may have wrapped more than once
    most = min(1.1 * now.speed * seconds / 8 + 65_536, size / 2) if now.speed else size / 2
    if any(found.get(name, 0) > most and now.counts[name] < then.counts[name] for name in OCTETS):
        return "ambiguous"  # it went back by more than the line takes: it began again, and the device did not say so
    return found if any(found.values()) else "unchanged"


def record(name: str, counts: Mapping[str, int], before: Reading, after: Reading) -> dict[str, Any]:
    """As an observation has it."""
    return {
        "interface": name,
        "start": before.time,
        "end": after.time,
        "counts": {**dict.fromkeys(COUNTED, 0), **counts},
    }
