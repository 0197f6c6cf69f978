"""By what the counts of a sampling exporter are multiplied: what it said of its samplers, in a header or in options.

An exporter may have several samplers in one observation domain. A record then names its own: by a sampler, a selector
(RFC 5477), or a selection sequence that was said to end in one. One that names none, or one of which nothing was said,
has the domain's rate, if the domain has a single one.
"""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

PLACES = 10_000
SAMPLERS = 256
MOST = 1 << 20
SAMPLER_NAMES = ("sampler_id", "selector_id")
ANY = None
SELECTION_SEQUENCE = "ie301"
PROBABILITY = "ie311"
INTERVALS = ("sampling_interval", "sampler_interval")
TAKEN_AND_LEFT = (("sampling_packet_interval", "sampling_packet_space"), ("ie307", "ie308"))
"""Of packets, and of microseconds."""
SELECTED = (("sampling_size", "sampling_population"),)
HASHED = ("ie329", "ie330", "ie331", "ie332")
"""The range of a hash, and the part of it that is selected."""
SAYS_ITSELF = frozenset((*INTERVALS, "sampling_packet_interval", "ie307", "sampling_population", PROBABILITY))
"""What a record has in it that says its own rate."""

Place = tuple[str, int]
"""Exporter and observation domain."""
Rate = int | Fraction
"""One packet in so many."""


@dataclass
class Rates:
    """Of one place: sampler -> rate, of the domain as a whole under ``ANY``; and which sampler ends a sequence."""

    by_sampler: dict[int | None, Rate] = field(default_factory=dict)
    by_sequence: dict[int, int] = field(default_factory=dict)

    @property
    def greatest(self) -> Rate:
        return max(self.by_sampler.values(), default=1)

    def sampler(self, record: Mapping[str, Any]) -> int | None:
        """The one that a record names."""
        for name in SAMPLER_NAMES:
            if isinstance(found := record.get(name), int):
                return found
        sequence = record.get(SELECTION_SEQUENCE)
        return self.by_sequence.get(sequence, ANY) if isinstance(sequence, int) else ANY


class Sampling:
    """The rates of many exporters, of so many at a time."""

    def __init__(self) -> None:
        self._places: OrderedDict[Place, Rates] = OrderedDict()

    def note(self, place: Place, option: Mapping[str, Any]) -> None:
        """Take in what an option record says of sampling, if it does; one in a million is believed at most."""
        said = rate(option)
        sequence, selector = option.get(SELECTION_SEQUENCE), option.get("selector_id")
        if said is None and not (isinstance(sequence, int) and isinstance(selector, int)):
            return
        rates = self._places.setdefault(place, Rates())
        self._places.move_to_end(place)
        if len(self._places) > PLACES:
            self._places.popitem(last=False)
        if isinstance(sequence, int) and isinstance(selector, int):
            _put(rates.by_sequence, sequence, selector)
        if said is not None:
            _put(rates.by_sampler, rates.sampler(option), said)

    def rates(self, place: Place) -> Rates:
        return self._places.get(place, NONE)


NONE = Rates()


def _put(known: dict[Any, Any], name: int | None, value: Rate) -> None:
    known[name] = value
    if len(known) > SAMPLERS:
        del known[next(iter(known))]


def sampled(flow: Mapping[str, Any], rates: Rates) -> Rate | None:
    """By what a record's counts are multiplied: as it says itself, as its sampler was said to, or as all do.

    None where it names a sampler of which nothing was said, and those of which something was differ.
    """
    if not SAYS_ITSELF.isdisjoint(flow) and (own := rate(flow)) is not None:
        return own
    if not rates.by_sampler:
        return 1
    sampler = rates.sampler(flow)
    named = rates.by_sampler.get(sampler) or rates.by_sampler.get(ANY)
    if named is not None:
        return named
    several = set(rates.by_sampler.values())
    if len(several) == 1:
        return several.pop()
    return None if sampler is not ANY else 1


def rate(said: Mapping[str, Any]) -> Rate | None:
    """What a record says of a sampler, whichever way its exporter words it; None where it says nothing believable."""
    found = _fraction(said)
    if found is None or not 1 <= found <= MOST:
        return None
    return int(found) if found.denominator == 1 else found


def _fraction(said: Mapping[str, Any]) -> Fraction | None:
    for name in INTERVALS:
        if interval := _number(said, name):
            return Fraction(interval)
    for taken, left in TAKEN_AND_LEFT:
        if (interval := _number(said, taken)) and (space := _number(said, left)) is not None:
            return Fraction(interval + space, interval)
    for size, population in SELECTED:
        if (part := _number(said, size)) and (whole := _number(said, population)):
            return Fraction(whole, part)
    if (probability := _number(said, PROBABILITY)) and (chance := _float(probability)):
        return 1 / Fraction(chance).limit_denominator(MOST)
    first, last, begin, end = (_number(said, name) for name in HASHED)
    if first is not None and last is not None and begin is not None and end is not None and begin <= end:
        return Fraction(last - first + 1, end - begin + 1)
    return None


def _number(said: Mapping[str, Any], name: str) -> int | None:
    found = said.get(name)
    return found if isinstance(found, int) else None


def _float(bits: int) -> float:
    """A probability as it stands on the wire, of eight bytes or of four; 0 where it is none."""
    if bits >= 1 << 64:
        return 0.0
    packed = struct.pack("!Q", bits) if bits >= 1 << 32 else struct.pack("!I", bits)
    (found,) = struct.unpack("!d" if bits >= 1 << 32 else "!f", packed)
    return found if math.isfinite(found) and 1 / MOST <= found <= 1 else 0.0
