"""What never came is counted, and nothing else: whatever an exporter counts, and in whatever order it arrives."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.adapters.flow import sequences
from convergedon.adapters.flow.sequences import PATIENCE, STREAMS, WAYS, WRAP, Datagram, Sequences, Way

STREAM = ("192.0.2.1", 0)
SIZES = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 2)), min_size=40, max_size=80)
COUNTED = [(version, way) for version, ways in WAYS.items() for way in ways]


def numbered(sizes: list[tuple[int, int]], way: Way, begin: int) -> list[Datagram]:
    """Datagrams as an exporter numbers them that counts in this way."""
    found, at = [], begin
    for flows, options in sizes:
        size = flows + options * way.options if way.flows else 1
        number = at + size if way.last else at
        found.append(Datagram(number % WRAP, flows, options))
        at += size
    return found


def lost(version: int, found: list[Datagram]) -> int:
    following = Sequences()
    return sum(following.take((*STREAM, version), one) for one in found)


@pytest.mark.parametrize(("version", "way"), COUNTED)
@given(sizes=SIZES, begin=st.sampled_from([0, 7, WRAP - 50]), seed=st.integers())
def test_a_stream_that_is_whole_has_no_gap_however_it_counts_and_is_shuffled(version, way, sizes, begin, seed):
    """Nor do datagrams that overtake each other, once it is known how the exporter counts."""
    found = numbered(sizes, way, begin)
    later = found[30:]
    chance = Random(seed)
    for at in range(0, len(later) - 4, 4):
        part = later[at : at + 4]
        chance.shuffle(part)
        later[at : at + 4] = part

    assert lost(version, found) == 0
    if version == 5:
        assert lost(version, found[:30] + later) == 0


@pytest.mark.parametrize(("version", "way"), COUNTED)
def test_what_never_came_is_counted_in_what_the_exporter_counts(version, way):
    sizes = [(1 + n % 7, n % 3) for n in range(200)]
    found = numbered(sizes, way, WRAP - 100)
    missing = {50, 51, 120}
    size = {n: sizes[n][0] + sizes[n][1] * way.options if way.flows else 1 for n in missing}

    assert lost(version, [one for n, one in enumerate(found) if n not in missing]) == sum(size.values())


def test_a_gap_is_no_loss_before_the_datagram_can_not_be_late_any_more():
    found = numbered([(10, 0)] * 40, WAYS[5][0], 0)
    following, stream = Sequences(), (*STREAM, 5)
    told = [following.take(stream, one) for n, one in enumerate(found) if n != 3]

    assert told.index(10) == 2 + PATIENCE + 1
    assert sum(told) == following.missing[stream] == 10


@pytest.mark.parametrize("begin", [0, 2_000_000])
def test_an_exporter_that_begins_anew_has_lost_nothing(begin):
    first, second = (numbered([(10, 0)] * 30, WAYS[5][0], at) for at in (1_000_000, begin))

    assert lost(5, first + second) == 0


def test_an_exporter_that_begins_anew_near_its_old_count_is_followed_again():
    """The first few numbers might be late ones: after them a gap is counted as ever."""
    first, second = (numbered([(10, 0)] * 60, WAYS[5][0], at) for at in (300, 0))
    del second[30]

    assert lost(5, first + second) in (0, 10)


def test_data_whose_template_is_not_there_yet_makes_no_gap():
    found = numbered([(1 + n % 5, 0) for n in range(100)], WAYS[10][0], 0)
    unknown = [one._replace(flows=None) if n % 10 == 5 else one for n, one in enumerate(found)]

    assert lost(10, unknown) == 0


def test_streams_are_told_apart_and_bounded():
    following = Sequences()
    for n in range(STREAMS + 50):
        for number in (0, 10, 500):
            following.take((f"sender {n}", n % 3, 5), Datagram(number, 10))

    assert len(following._states) == STREAMS
    assert not following.missing.total()


@given(st.lists(st.tuples(st.sampled_from([5, 9, 10]), st.integers(0, WRAP - 1), st.integers(0, 50)), max_size=200))
def test_whatever_is_numbered_at_random_is_taken(found):
    following = Sequences()
    for version, number, flows in found:
        assert 0 <= following.take((*STREAM, version), Datagram(number, flows)) <= 65 * sequences.MOST_MISSING
