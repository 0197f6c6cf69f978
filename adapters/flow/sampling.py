"""By what the counts of a sampling exporter are multiplied: what it said of its samplers, in a header or in options.

An exporter may have several samplers in one observation domain. A record then names its own; one that names none, or
one of which nothing was said, has the domain's rate, if the domain has a single one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from netflume.sampling import sampling_rate

PLACES = 10_000
SAMPLERS = 256
MOST = 1 << 20
SAMPLER_NAMES = ("sampler_id", "selector_id")
ANY = None

Place = tuple[str, int]
"""Exporter and observation domain."""
Rates = dict[int | None, int]
"""Sampler -> one packet in so many; of the domain as a whole under ``ANY``."""


class Sampling:
    """The rates of many exporters, of so many at a time."""

    def __init__(self) -> None:
        self._places: OrderedDict[Place, Rates] = OrderedDict()

    def note(self, place: Place, option: Mapping[str, Any]) -> None:
        """Take in what an option record says of sampling, if it does; one in a million is believed at most."""
        rate = sampling_rate(option)  # type: ignore[no-untyped-call]
        if rate is None or rate > MOST:
            return
        rates = self._places.setdefault(place, {})
        self._places.move_to_end(place)
        if len(self._places) > PLACES:
            self._places.popitem(last=False)
        rates[_sampler(option)] = rate
        if len(rates) > SAMPLERS:
            del rates[next(iter(rates))]

    def rates(self, place: Place) -> Rates:
        return self._places.get(place, NONE)


NONE: Rates = {}


def sampled(flow: Mapping[str, Any], rates: Rates) -> int:
    """By what a record's counts are multiplied: as it says itself, as its sampler was said to, or as all do."""
    own = sampling_rate(flow) if not SAYS_ITSELF.isdisjoint(flow) else None  # type: ignore[no-untyped-call]
    if own is not None:
        return int(own) if own <= MOST else 1
    if not rates:
        return 1
    named = rates.get(_sampler(flow))
    if named is not None:
        return named
    several = set(rates.values())
    return rates.get(ANY) or (several.pop() if len(several) == 1 else 1)


SAYS_ITSELF = frozenset(("sampling_interval", "sampler_interval", "sampling_packet_interval", "sampling_population"))


def _sampler(record: Mapping[str, Any]) -> int | None:
    return next((record[name] for name in SAMPLER_NAMES if isinstance(record.get(name), int)), ANY)
