"""What went over an interface: wraps are counted through, what began anew is not counted, and nothing is invented."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.adapters.snmp.counters import Interface, Reading, between

GIGABIT = 1_000_000_000


def reading(time, uptime, octets, bits=64, since=0, speed=GIGABIT, name="eth0"):
    return Reading(time, uptime, {name: Interface({"octetsIn": octets, "octetsOut": 0}, bits, since, speed)})


def went(before, after):
    return dict(between(before, after))["eth0"]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (reading(0, 1000, 5), reading(60, 7000, 905), 900),
        (reading(0, 1000, 2**64 - 10), reading(60, 7000, 15), 25),
        (reading(0, 1000, 2**32 - 10, 32), reading(30, 4000, 15, 32), 25),
        # a gigabit goes round 32 bits in 34 seconds
        (reading(0, 1000, 5, 32), reading(60, 7000, 905, 32), "ambiguous"),
        (reading(0, 9000, 500_000), reading(60, 200, 900), "restart"),
        (reading(0, 9000, 500), reading(60, 15000, 900, since=12000), "discontinuity"),
        # the uptime itself wraps after 497 days
        (reading(0, 2**32 - 3000, 5), reading(60, 3000, 905), 900),
        (reading(0, 2**32 - 3000, 5), reading(600, 3000, 905), "restart"),
        # it began again and does not say so: it would have wrapped with more than the line takes
        (reading(0, 1000, 5_000), reading(60, 7000, 900), "ambiguous"),
        (reading(0, 1000, 5_000, speed=0), reading(60, 7000, 900, speed=0), "ambiguous"),
        # many a device tells a speed that is not so
        (reading(0, 1000, 5, speed=1000), reading(60, 7000, 9_000_005, speed=1000), 9_000_000),
        (reading(0, 1000, 5, 32), reading(60, 7000, 905, 64), "new"),
        (reading(0, 1000, 5, name="eth1"), reading(60, 7000, 905), "new"),
        (reading(0, 1000, 5), reading(60, 7000, 5), "unchanged"),
    ],
)
def test_what_went_over_an_interface(before, after, found):
    told = went(before, after)

    assert (told["octetsIn"] if isinstance(told, dict) else told) == found


@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(1, 5_000_000_000), min_size=1, max_size=20),
    st.sampled_from((32, 64)),
)
def test_readings_add_up_to_what_went_over_however_often_it_wrapped(start, steps, bits):
    size, counted, time = 2**bits, 0, 0.0
    speed = 0 if bits == 64 else 100_000_000
    before = reading(0, 0, start % size, bits, speed=speed)
    position = start
    for step in steps:
        step %= 2**31
        position, time = position + step, time + 300
        after = reading(time, int(time * 100), position % size, bits, speed=speed)
        told = went(before, after)
        counted += told["octetsIn"] if isinstance(told, dict) else 0
        before = after

    assert counted == position - start
