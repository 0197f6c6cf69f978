"""Trap storms: when one device repeats one notification too often, one alarm stands for all of them.

While a storm lasts its traps are counted and not passed on, but the last word on each condition is kept and is passed
on when the storm ends, unless a newer one on the same condition was passed on meanwhile: what stands in the alarm list
afterwards is what the device said last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple

from convergedon.adapters.contract import Observation

SECONDS = 10.0
# Beyond these what comes passes: strangers choose how many there are
WATCHED, KEPT = 20_000, 10_000


class Source(NamedTuple):
    """A device, and the notification that it sends."""

    device: str
    oid: str


@dataclass(slots=True)
class Watch:
    """How often a source spoke since ``since``; ``storm`` is the alarm that stands for it while it is too often."""

    since: float
    count: int = 0
    storm: Observation | None = None
    withheld: int = 0


@dataclass
class Storms:
    """A storm begins when a source says more than ``high`` in ten seconds and ends when it says ``low`` or less.

    With ``high`` 0 there are none.
    """

    high: int
    low: int
    begun: int = 0
    withheld: int = 0
    _watches: dict[Source, Watch] = field(default_factory=dict)
    _last: dict[str, dict[str, tuple[str, Observation]]] = field(default_factory=dict)
    _kept: int = 0

    def count(self, source: Source, now: float) -> bool:
        """One more; say whether it belongs to a storm, that is whether ``take`` is to be asked about it."""
        if not self.high:
            return False
        watch = self._watches.get(source)
        if watch is None:
            if len(self._watches) >= WATCHED:
                return False
            watch = self._watches[source] = Watch(now)
        elif now - watch.since >= SECONDS and watch.storm is None:
            watch.since, watch.count = now, 0
        watch.count += 1
        return watch.count > self.high or watch.storm is not None or source.device in self._last

    def take(self, source: Source, seen: Observation, now: float) -> Observation | None:
        """What is passed on in place of this observation: itself, the alarm of a storm that begins, or nothing."""
        watch = self._watches[source]
        if watch.storm is None and watch.count <= self.high:
            self._forget(source.device, seen.key)
            return seen
        begins = watch.storm is None
        if begins:
            watch.storm = _alarm(seen, source, self.high)
            watch.since, watch.count = now, 0
            self.begun += 1
        watch.withheld += 1
        self.withheld += 1
        self._keep(source, seen)
        return watch.storm if begins else None

    def over(self, now: float) -> Iterator[Observation]:
        """The ends of the storms that are over, each after the last words that it withheld."""
        for source, watch in list(self._watches.items()):
            if now - watch.since < SECONDS:
                continue
            if watch.storm is None:
                del self._watches[source]
            elif watch.count > self.low:
                watch.since, watch.count = now, 0
            else:
                del self._watches[source]
                yield from self._last_words(source)
                yield _cleared(watch.storm, watch.withheld, now)

    def rest(self, now: float) -> Iterator[Observation]:
        """The last words of all storms, for an adapter that stops: who starts again knows of none."""
        storms = [(source, watch) for source, watch in self._watches.items() if watch.storm]
        self._watches.clear()
        words = chain.from_iterable(self._last_words(source) for source, _ in storms)
        return chain(words, [_cleared(watch.storm, watch.withheld, now) for _, watch in storms if watch.storm])

    @property
    def raging(self) -> list[Source]:
        return [source for source, watch in self._watches.items() if watch.storm]

    def _keep(self, source: Source, seen: Observation) -> None:
        words = self._last.setdefault(source.device, {})
        if words.pop(seen.key, None) is None:
            if self._kept >= KEPT:
                return
            self._kept += 1
        words[seen.key] = (source.oid, seen)

    def _forget(self, device: str, key: str) -> None:
        words = self._last.get(device, {})
        if words.pop(key, None):
            self._kept -= 1
        if not words:
            self._last.pop(device, None)

    def _last_words(self, source: Source) -> list[Observation]:
        words = self._last.get(source.device, {})
        found = [seen for oid, seen in words.values() if oid == source.oid]
        for seen in found:
            self._forget(source.device, seen.key)
        return found


def _alarm(seen: Observation, source: Source, high: int) -> Observation:
    name = seen.attributes.get("notification", source.oid)
    about: Mapping[str, object] = {
        "alarmType": "qualityOfServiceAlarm",
        "perceivedSeverity": "warning",
        "probableCause": "thresholdCrossed",
        "specificProblem": f"trap storm: more than {high} {name} in {SECONDS:.0f} s are counted, not passed on",
        "oid": source.oid,
        "source": seen.attributes.get("source", ""),
        "details": {},
    }
    return replace(seen, id=f"{seen.id}s", kind="fault", object="", key=f"storm:{source.oid}", attributes=about)


def _cleared(storm: Observation, withheld: int, now: float) -> Observation:
    about = {**storm.attributes, "perceivedSeverity": "cleared", "details": {"withheld": str(withheld)}}
    return replace(storm, id=f"{storm.id}e", kind="clear", time=now, attributes=about)
