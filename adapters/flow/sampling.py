"""By what the counts of a sampling exporter are multiplied: what it said of its samplers, in a header or in options.

An exporter may have several samplers in one observation domain. A record then names its own: by a sampler, a selector,
or a selection sequence (RFC 5476, 5477), through whose selectors its packets went one after the other: their rates
multiply. One that names none, or one of which nothing was said, has the domain's rate, if the domain has a single one.
"""

from __future__ import annotations

import math
import struct
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any

from netflume.parse import TemplateStore

from convergedon.adapters.flow.lists import AGAIN, FieldsOf, unfold

PLACES = 10_000
SAMPLERS = 256
MOST = 1 << 20
LONGEST_CHAIN = 16
"""Selectors of a sequence; RFC 5476 names two."""
SAMPLER_NAMES = ("sampler_id", "selector_id")
ANY = None
SELECTION_SEQUENCE = "ie301"
SELECTOR = "selector_id"
PROPERTY_MATCH = 5
"""The algorithm of a selector that takes what matches: what is left out is no part of what is counted."""
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
    """Of one place: sampler -> rate, of the domain as a whole under ``ANY``; and the selectors of each sequence."""

    by_sampler: dict[int | None, Rate] = field(default_factory=dict)
    by_sequence: dict[int, tuple[int, ...]] = field(default_factory=dict)
    of_sequences: dict[int, Rate | None] = field(default_factory=dict)
    """What the rates of each sequence's selectors come to; None where one of several is not known."""
    several: frozenset[Rate] = frozenset()
    """The rates that a record may have which does not say its own."""
    greatest: Rate = 1

    def add_up(self) -> None:
        """After something changed."""
        self.of_sequences = {
            sequence: self._through(chain)
            for sequence, chain in self.by_sequence.items()
            if len(chain) > 1 or chain[0] in self.by_sampler
        }
        of_chains = {rate for rate in self.of_sequences.values() if rate is not None}
        self.several = frozenset(of_chains or self.by_sampler.values())
        self.greatest = max((*of_chains, *self.by_sampler.values()), default=1)

    def _through(self, chain: Sequence[int]) -> Rate | None:
        found = [self.by_sampler[one] for one in chain if one in self.by_sampler]
        return _believed(Fraction(prod(found))) if len(found) == len(chain) else None


def sampler(record: Mapping[str, Any]) -> int | None:
    """The one that a record names."""
    for name in SAMPLER_NAMES:
        if isinstance(found := record.get(name), int):
            return found
    return ANY


class Templates(TemplateStore):
    """Templates in which no field of an option takes the place of another of its name: a sequence names selectors."""

    def put(self, exporter: Any, domain: Any, tid: Any, fields: Any, options: bool = False) -> Any:
        if options:
            fields = _numbered(fields)
        return super().put(exporter, domain, tid, fields, options)  # type: ignore[no-untyped-call]


def _numbered(fields: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    times: Counter[str] = Counter()
    found = []
    for name, *rest in fields:
        times[name] += 1
        found.append((name if times[name] == 1 else f"{name}{AGAIN}{times[name]}", *rest))
    return found


def _chain(items: Sequence[tuple[str, Any]]) -> tuple[int, ...]:
    """The selectors that an option names, in their order; none where they are more than anybody has."""
    found = [value for name, value in items if name == SELECTOR]
    return tuple(found) if len(found) <= LONGEST_CHAIN and all(isinstance(one, int) for one in found) else ()


class Sampling:
    """The rates of many exporters, of so many at a time."""

    def __init__(self) -> None:
        self._places: OrderedDict[Place, Rates] = OrderedDict()

    def note(self, place: Place, option: Mapping[str, Any], fields_of: FieldsOf) -> None:
        """Take in what an option record says of sampling, if it does; one in a million is believed at most.

        What its lists say of selectors counts as if each were told by itself.
        """
        unfolded = unfold(option, fields_of)
        for one in (*unfolded.records, option):
            self._note(place, one, unfolded.items if one is option else ())

    def _note(self, place: Place, option: Mapping[str, Any], items: Sequence[tuple[str, Any]]) -> None:
        said = 1 if option.get("selector_algorithm") == PROPERTY_MATCH else rate(option)
        sequence = option.get(SELECTION_SEQUENCE)
        chain = _chain(items) if isinstance(sequence, int) else ()
        if said is None and not chain:
            return
        rates = self._places.setdefault(place, Rates())
        self._places.move_to_end(place)
        if len(self._places) > PLACES:
            self._places.popitem(last=False)
        changed = bool(chain) and _put(rates.by_sequence, sequence, chain)
        if said is not None:
            changed |= _put(rates.by_sampler, chain[-1] if chain else sampler(option), said)
        if changed:
            rates.add_up()

    def rates(self, place: Place) -> Rates:
        return self._places.get(place, NONE)


NONE = Rates()


def _put(known: dict[Any, Any], name: Any, value: Any) -> bool:
    """Whether that is new."""
    if known.get(name) == value:
        return False
    known[name] = value
    if len(known) > SAMPLERS:
        del known[next(iter(known))]
    return True


def sampled(flow: Mapping[str, Any], rates: Rates) -> Rate | None:
    """By what a record's counts are multiplied: as it says itself, as its sampler was said to, or as all do.

    None where it names a sampler or a sequence of which too little was said, and those of which enough was differ.
    """
    if not SAYS_ITSELF.isdisjoint(flow) and (own := rate(flow)) is not None:
        return own
    if not rates.by_sampler:
        return 1
    sequence, named = flow.get(SELECTION_SEQUENCE), sampler(flow)
    if sequence in rates.of_sequences:
        return rates.of_sequences[sequence]
    if (found := rates.by_sampler.get(named) or rates.by_sampler.get(ANY)) is not None:
        return found
    if len(rates.several) == 1:
        return next(iter(rates.several))
    return None if sequence is not None or named is not ANY else 1


def rate(said: Mapping[str, Any]) -> Rate | None:
    """What a record says of a sampler, whichever way its exporter words it; None where it says nothing believable."""
    found = _fraction(said)
    return None if found is None else _believed(found)


def _believed(found: Fraction) -> Rate | None:
    if not 1 <= found <= MOST:
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
