"""Token buckets: who may do something how often, with a clock handed in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic

KNOWN = 10_000
"""Names that are remembered; who was not seen for longest begins anew."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Buckets:
    """A bucket for each name: ``rate`` a second, ``most`` at once. A rate of 0 takes any number."""

    def __init__(self, rate: float, most: float, clock: Callable[[], float] = monotonic) -> None:
        self._rate, self._most, self._clock = rate, max(most, 1.0), clock
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def wait(self, name: Hashable) -> float:
        """Seconds until one more may be taken; 0: now."""
        if not self._rate or name not in self._buckets:
            return 0.0
        bucket = self._filled(name)
        return max(0.0, (1 - bucket.left) / self._rate)

    def take(self, name: Hashable) -> float:
        """Take one, if there is one: 0; else the seconds until there is, and nothing is taken."""
        if not self._rate:
            return 0.0
        bucket = self._filled(name)
        if bucket.left < 1:
            return (1 - bucket.left) / self._rate
        bucket.left -= 1
        return 0.0

    def _filled(self, name: Hashable) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.pop(name, None) or _Bucket(self._most, now)
        self._buckets[name] = bucket
        while len(self._buckets) > KNOWN:
            self._buckets.popitem(last=False)
        bucket.left, bucket.at = min(self._most, bucket.left + (now - bucket.at) * self._rate), now
        return bucket
