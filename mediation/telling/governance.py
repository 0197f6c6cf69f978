"""What a customer is told of a problem, and when: decided from what is known, what was told, and the clock. Pure.

A problem is told when it has lasted its hold-down and neither a maintenance window nor quiet hours keep it back; what
changes of it is told at most once in an interval; and whoever was told that services are disturbed is told when they
work again, whatever else is so. What lasted longer than its hold-down and was over before it could be told is summed up
when what kept it back has ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta, tzinfo
from typing import Literal


@dataclass(frozen=True)
class Rules:
    """``hold_down``: severity -> seconds that a problem lasts before it is told; none is said: at once.

    ``interval``: seconds between two messages of the same problem, but for its end.
    """

    hold_down: Mapping[str, float] = field(default_factory=dict)
    interval: float = 900.0


@dataclass(frozen=True)
class Told:
    """What a customer knows of a problem from the last message about it."""

    at: float
    services: frozenset[str]
    cause: str = ""
    estimate: str = ""


@dataclass(frozen=True)
class Kept:
    """What keeps messages back, and until when."""

    by: str
    until: float


@dataclass(frozen=True)
class Case:
    """A problem and one of its customers. ``since`` is when it began, or when we heard of it if that was earlier.

    ``services`` suffer by it now. One that is not going on has ``ended``, or goes on as part of another. ``well`` are
    the services of which the customer was told that they are disturbed, and which nothing disturbs any more; ``gone``
    are those that have ended meanwhile, of ``well`` or not. ``kept`` is what has kept it back so far.
    """

    severity: str
    since: float
    services: frozenset[str]
    going_on: bool = True
    ended: float | None = None
    cause: str = ""
    estimate: str = ""
    told: Told | None = None
    well: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    kept: Kept | None = None


@dataclass(frozen=True)
class Verdict:
    """``tell`` the customer now a thing of this ``type``; ``wait`` until a time and decide again; ``rest`` until news
    come; or ``summarise`` it at that time, with all else that was kept back. ``why`` is for people.
    """

    what: Literal["tell", "wait", "rest", "summarise"]
    why: str
    type: str = ""
    until: float = 0.0
    kept: Kept | None = None


def decide(case: Case, rules: Rules, now: float, window: Kept | None = None, quiet: Kept | None = None) -> Verdict:
    """What to do about a case now. ``window`` and ``quiet`` are what keeps its messages back at this moment, if any."""
    if not case.going_on:
        return _over(case, rules, now, quiet)
    if case.told is None:
        return _new(case, rules, now, window or quiet)
    return _known(case, case.told, rules, now, window or quiet)


def _new(case: Case, rules: Rules, now: float, back: Kept | None) -> Verdict:
    """A problem of which nothing was told yet."""
    held = rules.hold_down.get(case.severity, 0.0)
    if case.since + held > now:
        return Verdict("wait", f"hold-down of {held:g} s", until=case.since + held)
    if back:
        return Verdict("wait", back.by, until=back.until, kept=back)
    return Verdict("tell", f"it has lasted its hold-down of {held:g} s", "serviceAffected")


def _known(case: Case, told: Told, rules: Rules, now: float, back: Kept | None) -> Verdict:
    """A problem of which the customer knows: is there anything new?"""
    news = _news(case, told)
    if not news:
        return Verdict("rest", "nothing new")
    if told.at + rules.interval > now:
        return Verdict("wait", f"one message in {rules.interval:g} s", until=told.at + rules.interval)
    if back:
        return Verdict("wait", back.by, until=back.until)
    return Verdict("tell", news, "serviceUpdated")


def _news(case: Case, told: Told) -> str:
    """What the customer does not know yet. A service that suffers from another problem by now is told of there."""
    if case.services - told.services:
        return "more services are disturbed"
    if case.well:
        return "some services work again" if case.well - case.gone else "some services have ended"
    if case.estimate != told.estimate:
        return "the estimate has changed"
    return "the cause was found to be another" if case.cause != told.cause else ""


def _over(case: Case, rules: Rules, now: float, quiet: Kept | None) -> Verdict:
    """A problem that has ended for the customer. No window keeps an all-clear back; quiet hours may."""
    if case.well:
        if quiet:
            return Verdict("wait", quiet.by, until=quiet.until)
        if case.well <= case.gone:
            return Verdict("tell", "the disturbance ended with the services", "serviceEnded")
        return Verdict("tell", "the customer was told of the disturbance", "serviceRestored")
    if case.told:
        return Verdict("rest", "all that was told of it is over, or is told of elsewhere")
    if case.ended is None:
        return Verdict("rest", "the services have ended" if case.gone else "it goes on as part of another problem")
    held = rules.hold_down.get(case.severity, 0.0)
    if case.ended - case.since < held:
        return Verdict("rest", f"over within its hold-down of {held:g} s: never told")
    if case.kept:
        return Verdict("summarise", case.kept.by, until=case.kept.until, kept=case.kept)
    return Verdict("summarise", "over before it could be told", until=now)


# what keeps messages back


@dataclass(frozen=True)
class Hours:
    """Hours of these days of the week (Monday is 0) in a timezone; what ends before it begins ends on the next day."""

    begin: time
    end: time
    zone: tzinfo
    days: frozenset[int] = frozenset(range(7))

    def until(self, now: float) -> float | None:
        """When they end, if they are now."""
        today = datetime.fromtimestamp(now, self.zone).date()
        for day in (today, today - timedelta(days=1)):
            if day.weekday() not in self.days:
                continue
            last = day if self.begin < self.end else day + timedelta(days=1)
            begin = datetime.combine(day, self.begin, self.zone).timestamp()
            end = datetime.combine(last, self.end, self.zone).timestamp()
            if begin <= now < end:
                return end
        return None


@dataclass(frozen=True)
class Window:
    """Planned work: when, and on which devices and at which sites of a tenant; naming none it is on all of them."""

    name: str
    tenant: str
    begin: float
    end: float
    devices: frozenset[str] = frozenset()
    sites: frozenset[str] = frozenset()

    def covers(self, tenant: str, devices: Collection[str], sites: Collection[str], now: float) -> bool:
        if tenant != self.tenant or not self.begin <= now < self.end:
            return False
        everywhere = not (self.devices or self.sites)
        return everywhere or not (self.devices.isdisjoint(devices) and self.sites.isdisjoint(sites))


def window_over(
    windows: Iterable[Window], tenant: str, devices: Collection[str], sites: Collection[str], now: float
) -> Kept | None:
    """The window in which a problem at these places is expected; of several the one that ends last."""
    found = [window for window in windows if window.covers(tenant, devices, sites, now)]
    if not found:
        return None
    last = max(found, key=lambda window: (window.end, window.name))
    return Kept(f"maintenance {last.name}", last.end)
