"""Exporters that send totals: what a flow had is counted once, however often its total is told."""

from __future__ import annotations

import struct
from collections import Counter
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.adapters.flow import totals
from convergedon.adapters.flow.exports import Exports

BEGAN = 1_790_000_000
ENDS = ip_address("10.0.0.1").packed + ip_address("192.0.2.7").packed
FIELDS = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (85, 8), (86, 8), (152, 8), (153, 8))


class Exporter:
    """An IPFIX exporter that tells octetTotalCount and packetTotalCount; its clock is so far ahead of ours.

    Moments are seconds since the adapter began.
    """

    def __init__(self, ahead: float = 0.0) -> None:
        self.dropped: Counter[str] = Counter()
        self._now, self._ahead = 0.0, ahead
        self.reader = Exports(lambda reason, count: self.dropped.update({reason: count}), lambda: self._now)
        self._numbers = 0

    def tell(self, octets: int, end: float, start: float = 10, port: int = 80, packets: int | None = None) -> list[int]:
        packets = octets // 100 if packets is None else packets
        template = struct.pack("!HH", 256, len(FIELDS)) + b"".join(struct.pack("!HH", *field) for field in FIELDS)
        self._now = max(self._now, end)
        times = (round((BEGAN + self._ahead + moment) * 1000) for moment in (start, end))
        record = ENDS + struct.pack("!HHBQQQQ", 50_000, port, 6, octets, packets, *times)
        body = b"".join(struct.pack("!HH", n, 4 + len(part)) + part for n, part in ((2, template), (256, record)))
        found = self.reader.read(
            struct.pack("!HHIII", 10, 16 + len(body), int(BEGAN + self._ahead + self._now), self._numbers, 7) + body,
            "192.0.2.250",
        )
        self._numbers += 1
        self.last = [record for export in found or () for record in export.records]
        return [record["octets"] for record in self.last]


@pytest.fixture
def exporter() -> Exporter:
    return Exporter()


def test_a_total_that_is_told_again_adds_what_it_grew_by(exporter: Exporter) -> None:
    told = [exporter.tell(octets, end) for octets, end in ((1000, 20), (1500, 30), (1500, 40), (4000, 50))]

    assert told == [[1000], [500], [0], [2500]]
    assert exporter.last[0]["packets"] == 25
    assert exporter.last[0]["start"] == BEGAN + 40


def test_flows_are_told_apart_by_their_ends_and_by_when_they_began(exporter: Exporter) -> None:
    """Some exporters end a long flow and begin it anew: that counts from nothing."""
    told = [exporter.tell(1000, 20), exporter.tell(1000, 20, port=443), exporter.tell(700, 30, start=20)]

    assert told == [[1000], [1000], [700]]


def test_a_total_that_was_overtaken_adds_nothing_and_takes_nothing(exporter: Exporter) -> None:
    told = [exporter.tell(1000, 20), exporter.tell(3000, 40), exporter.tell(2000, 30), exporter.tell(3500, 50)]

    assert told == [[1000], [2000], [0], [500]]


def test_a_total_that_went_back_began_anew(exporter: Exporter) -> None:
    assert [exporter.tell(5000, 20), exporter.tell(300, 30), exporter.tell(400, 40)] == [[5000], [300], [100]]


@pytest.mark.parametrize("ahead", [0, 7200, -7200])
def test_of_a_flow_that_began_before_us_only_what_is_new_is_counted(ahead: float) -> None:
    """Another process has counted the rest, or nobody has: it is told as dropped. The exporter's clock may be any."""
    exporter = Exporter(ahead)
    assert exporter.tell(800, 20, port=443) == [800], "this one began after us"
    told = [exporter.tell(90_000, 20, start=-500), exporter.tell(90_500, 30, start=-500)]

    assert told == [[], [500]]
    assert exporter.dropped == {"total": 1}


def test_a_flow_that_was_forgotten_is_not_counted_twice() -> None:
    """Of more flows than are remembered those go that were not heard of for longest."""
    known = totals.Totals(0, most=10)
    known.part("long", 1000, 10, BEGAN + 10, BEGAN + 20, 10, 20)
    for number in range(10):
        known.part(number, 50, 1, BEGAN + 24, BEGAN + 25, 24, 25)

    assert known.part("long", 1200, 12, BEGAN + 10, BEGAN + 30, 10, 30) is None
    assert known.part("long", 1300, 13, BEGAN + 10, BEGAN + 40, 10, 40) == (100, 1, BEGAN + 30)
    assert known.part("new", 9, 1, BEGAN + 45, BEGAN + 50, 45, 50) == (9, 1, BEGAN + 45)


GROWING = st.lists(st.integers(0, 1000), min_size=1, max_size=20)


@given(GROWING, st.randoms(use_true_random=False))
def test_whatever_overtakes_what_the_sum_is_the_last_total(steps: list[int], chance: object) -> None:
    """Of totals that come in any order, and twice, no more is counted than there was."""
    exporter = Exporter()
    ends = [sum(steps[: n + 1]) for n in range(len(steps))]
    told = [(total, 20 + n) for n, total in enumerate(ends)]
    chance.shuffle(told)  # type: ignore[attr-defined]
    counted = sum(sum(exporter.tell(*one)) for one in told)

    assert counted == ends[-1]
