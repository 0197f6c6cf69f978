"""What is missing between export datagrams, by the sequence number that each exporter and observation domain counts.

NetFlow 5 counts flow records. NetFlow 9 counts datagrams and IPFIX records, but exporters differ: some count records in
NetFlow 9, some leave option records out, softflowd's number in IPFIX is that of the last record, not of the first. So
each way to count is tried on each stream, and the one that explained most of its last steps is believed; as long as
none explained any, nothing is said. A gap is counted when it has stayed open for a while: datagrams that only overtook
each other close it themselves.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

WRAP = 1 << 32
# A step beyond is no loss: the exporter has begun anew, or somebody plays
MOST_MISSING = 100_000
# How many datagrams may overtake one
PATIENCE = 16
OPEN_GAPS = 64
# What is so far back may be late; what is further, or so many in a row, is another count
NEAR, ANEW_AFTER = 1000, 5
STREAMS = 1000
# How many steps a way to count is judged by
REMEMBERED = (1 << 16) - 1

Stream = tuple[str, int, int]
"""Exporter, observation domain and version."""


class Datagram(NamedTuple):
    """Its number, and how many flow and option records it has: None while nobody knows."""

    number: int
    flows: int | None
    options: int = 0


class Way(NamedTuple):
    """A way to count: which records, none for datagrams, and whether a number is that of the last or of the first."""

    flows: bool
    options: bool
    last: bool = False

    def covers(self, one: Datagram) -> tuple[int, int] | None:
        """The numbers from and up to (without) which a datagram stands for; None where that is not known."""
        if not self.flows:
            return one.number, one.number + 1
        if one.flows is None:
            return None
        size = one.flows + one.options * self.options
        return (one.number - size, one.number) if self.last else (one.number, one.number + size)


DATAGRAMS, RECORDS, FLOWS = Way(False, False), Way(True, True), Way(True, False)
WAYS = {
    5: (FLOWS,),
    9: (DATAGRAMS, RECORDS, FLOWS),
    10: (RECORDS, FLOWS, RECORDS._replace(last=True), FLOWS._replace(last=True), DATAGRAMS),
}


@dataclass(slots=True)
class _Gap:
    """What is missing from a number on, and how many datagrams have come since."""

    begin: int
    length: int
    age: int = 0


@dataclass(slots=True)
class _State:
    newest: Datagram
    scores: dict[Way, int]
    behind: int = 0
    gaps: deque[_Gap] = field(default_factory=deque)

    @property
    def way(self) -> Way | None:
        """The way to count that explains most; of equals the one of the standard, which stands first."""
        best = max(self.scores, key=lambda way: self.scores[way].bit_count())
        return best if self.scores[best] else None

    def step(self, way: Way, one: Datagram) -> int | None:
        """How far a datagram is beyond the newest, by one way to count."""
        before, now = way.covers(self.newest), way.covers(one)
        return None if before is None or now is None else _signed(now[0] - before[1])

    def judge(self, one: Datagram) -> None:
        """Remember which ways to count explain the step to this datagram."""
        was = self.way
        for way, score in self.scores.items():
            step = self.step(way, one)
            if step is not None:
                self.scores[way] = (score << 1 | (step == 0)) & REMEMBERED
        if self.way is not was:
            self.gaps.clear()


class Sequences:
    """Follows the numbers of many streams, of so many at a time: a sender's address is easily forged."""

    def __init__(self) -> None:
        self._states: OrderedDict[Stream, _State] = OrderedDict()
        self.missing: Counter[Stream] = Counter()
        self.restarts: Counter[Stream] = Counter()

    def take(self, stream: Stream, one: Datagram) -> int:
        """Take a datagram's number; how many are missing for certain by now that were not before."""
        state = self._states.get(stream)
        if state is None:
            self._begin(stream, one)
            return 0
        self._states.move_to_end(stream)
        way = state.way
        step = state.step(way, one) if way else None
        if way and step is not None and step < 0 and self._is_late(state, way, step, one):
            return 0
        if step is not None and not -NEAR < step <= MOST_MISSING:
            self.restarts[stream] += 1
            state.gaps.clear()
        else:
            state.judge(one)
            way = state.way
            step = state.step(way, one) if way else None
            before = way.covers(state.newest) if way else None
            if before and step is not None and 0 < step <= MOST_MISSING:
                state.gaps.append(_Gap(before[1] % WRAP, step))
        state.newest, state.behind = one, 0
        return self._overdue(stream, state)

    def _begin(self, stream: Stream, one: Datagram) -> None:
        ways = WAYS[stream[2]]
        # the one way of version 5 needs no proof
        self._states[stream] = _State(one, dict.fromkeys(ways, int(len(ways) == 1)))
        if len(self._states) > STREAMS:
            forgotten, _ = self._states.popitem(last=False)
            del self.missing[forgotten], self.restarts[forgotten]

    @staticmethod
    def _is_late(state: _State, way: Way, step: int, one: Datagram) -> bool:
        """Whether a datagram was overtaken. Then it is not missing any more; else the exporter has begun anew."""
        if any(state.step(other, one) == 0 for other in state.scores):
            return False  # it is the next one, and the way to count is another
        covered = way.covers(one) or (one.number, one.number)
        size = covered[1] - covered[0]
        for gap in state.gaps:
            before = _signed(covered[0] - gap.begin)
            if 0 <= before < gap.length:
                after = gap.length - before - size
                gap.length = before
                if after > 0:
                    state.gaps.append(_Gap(covered[1] % WRAP, after, gap.age))
                return True
        state.behind += 1
        return step > -NEAR and state.behind < ANEW_AFTER

    def _overdue(self, stream: Stream, state: _State) -> int:
        """How much of what is missing will not come any more."""
        lost = 0
        for gap in state.gaps:
            gap.age += 1
        while state.gaps and (state.gaps[0].age > PATIENCE or len(state.gaps) > OPEN_GAPS or not state.gaps[0].length):
            lost += state.gaps.popleft().length
        self.missing[stream] += lost
        return lost


def _signed(step: int) -> int:
    return (step + WRAP // 2) % WRAP - WRAP // 2
