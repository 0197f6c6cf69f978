"""Flapping: a condition that comes and goes is one alarm that stays open until it is quiet, not a storm of them.

The clear that is one too many within the window does not clear (``is_one_too_many``): the alarm is ``flapping`` from
then on, and each turn of the network says what becomes of it once it is quiet (``once_quiet``): cleared if the last one
was a clear, else an open alarm like others. How often a condition was cleared is read from its alarms, and when its
quiet is over stands on the alarm, so any worker decides and releases, also after all of them were gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from time import time
from typing import Any

from convergedon.adapters.contract import Observation
from convergedon.core import trace
from convergedon.core.errors import Stale
from convergedon.core.settings import Settings
from convergedon.core.store import Record, handfuls
from convergedon.handlers.alarms import ALARM
from convergedon.mediation.problems import CLOSED
from convergedon.mediation.work import Work

SECOND = 1_000_000
"""In the unit of the date-times that are looked up."""
AT_ONCE = 100


def is_one_too_many(settings: Settings, cleared: Iterable[float], now: float) -> bool:
    """Whether a clear makes its condition flap, which was cleared at these times before."""
    lately = sum(now - settings.flap_window <= at <= now for at in cleared)
    return bool(settings.flap_clears) and lately + 1 >= settings.flap_clears


def once_quiet(settings: Settings, alarm: Record, change: Mapping[str, Any]) -> dict[str, Any]:
    """What is remembered of the network's word on a flapping alarm: the change that is due when it stays the last.

    To say the same again is no flapping, and puts off nothing.
    """
    said = alarm.facts.get("onceQuiet")
    if not alarm.body.get("flapping") or (said is not None and bool(said) == bool(change)):
        return {}
    return {"onceQuiet": dict(change), "quietAt": time() + settings.flap_quiet}


def stays_open(settings: Settings, alarm: Record, cleared: Iterable[float], now: float) -> bool:
    """Whether a clear leaves its alarm open: that flaps, or does from now on."""
    return bool(alarm.body.get("flapping")) or is_one_too_many(settings, cleared, now)


def open_until_quiet(
    settings: Settings, alarm: Record, change: Mapping[str, Any], position: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The body and facts of an alarm that stays open in spite of a clear, which would have been this change."""
    flaps = {"flapping": True}
    return flaps, {**once_quiet(settings, alarm.with_(flaps), change), **position}


async def cleared_before(work: Work, clears: Sequence[tuple[Record, Observation]]) -> dict[str, list[float]]:
    """alarm -> when the network lately said that its condition is over. While the alarm was open, it did not."""
    window = work.settings.flap_window
    asked = [
        (alarm, seen)
        for alarm, seen in clears
        if work.settings.flap_clears and alarm.facts["at"]["alarmRaisedTime"] >= (seen.time - window) * SECOND
    ]
    found: dict[str, list[float]] = {}
    for few in handfuls(asked):
        found |= {alarm.id: [] for alarm, _ in few}
        since = min(seen.time for _, seen in few) - window
        keys = {"$in": sorted({alarm.facts["key"] for alarm, _ in few})}
        lately = {"facts.key": keys, "facts.at.alarmClearedTime": {"$gte": int(since * SECOND)}}
        for tenant in {alarm.tenant for alarm, _ in few}:
            over = await work.store.find(ALARM.name, {"tenant": tenant, **lately})
            for alarm, seen in few:
                found[alarm.id] += [_cleared(one) for one in over if _is_of(one, alarm, seen)]
    return found


def _is_of(over: Record, alarm: Record, seen: Observation) -> bool:
    """Whether the network said that this alarm is over, and of the same condition."""
    same = (over.tenant, over.facts["key"]) == (alarm.tenant, alarm.facts["key"])
    return same and over.body.get("clearSystemId") == seen.device


def _cleared(alarm: Record) -> float:
    return float(alarm.facts["at"]["alarmClearedTime"] / SECOND)


async def release(work: Work) -> None:
    """Have those flap no more that have been quiet for long enough."""
    for alarm in await work.store.find(ALARM.name, {"facts.quietAt": {"$lt": time()}}, limit=AT_ONCE):
        with suppress(Stale), trace.span("alarm.release", alarm.facts.get("carrier")):
            await _release(work, alarm)


async def _release(work: Work, alarm: Record) -> None:
    over: dict[str, Any] = dict.fromkeys(("onceQuiet", "quietAt"))
    if not alarm.body.get("flapping"):  # a person cleared it
        await work.resources.change(ALARM, alarm, facts=over)
        return
    change = alarm.facts["onceQuiet"]
    await work.resources.change(ALARM, alarm, {**change, "flapping": False}, {**over, **(CLOSED if change else {})})
    _record(work, alarm, "alarm.cleared" if change else "alarm.steady", "convergedon")


def _record(work: Work, alarm: Record, what: str, who: str) -> None:
    work.audit.record(what, alarm.tenant, who, f"alarm/{alarm.id}", "done", raised=alarm.facts["count"])
