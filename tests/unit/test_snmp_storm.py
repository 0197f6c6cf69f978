"""Trap storms: one alarm for all, and afterwards the alarm list says what the device said last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.adapters.contract import Observation
from convergedon.adapters.snmp.storm import Source, Storms

DOWN, UP = "1.3.6.1.6.3.1.1.5.3", "1.3.6.1.6.3.1.1.5.4"
HIGH, LOW = 5, 2


class Network:
    """What a device says, second by second, and what is passed on."""

    def __init__(self):
        self.storms, self.passed, self.number, self.now = Storms(HIGH, LOW), [], 0, 0

    def say(self, oid, key, now, device="pe1"):
        self.number += 1
        kind = "fault" if oid == DOWN else "clear"
        seen = Observation(f"{self.number}", kind, "snmp", device, "acme", now, key, key, {"notification": oid})
        source = Source(device, oid)
        passed = self.storms.take(source, seen, now) if self.storms.count(source, now) else seen
        self.passed += [passed] if passed else []

    def wait(self, until):
        while self.now < until:
            self.now += 1
            self.passed += self.storms.over(self.now)

    @property
    def told(self):
        return [(each.kind, each.key) for each in self.passed]


@pytest.fixture
def network():
    return Network()


def test_what_is_not_too_often_passes(network):
    for second in range(0, 100, 2):
        network.say(DOWN, "eth0", second)
        network.wait(second)

    assert len(network.passed) == 50
    assert not network.storms.raging


def test_a_storm_is_one_alarm_and_its_end_clears_it(network):
    for number in range(100):
        network.say(DOWN, f"eth{number % 3}", number / 50)
    network.wait(15)
    network.wait(30)

    storm = f"storm:{DOWN}"
    last = [("fault", "eth0"), ("fault", "eth1"), ("fault", "eth2")]
    assert network.told[:HIGH] == [("fault", f"eth{n % 3}") for n in range(HIGH)]
    assert network.told[HIGH] == ("fault", storm)
    assert sorted(network.told[HIGH + 1 : -1]) == last
    assert network.told[-1] == ("clear", storm)
    assert network.passed[-1].attributes["details"] == {"withheld": str(100 - HIGH)}


def test_a_storm_goes_on_while_more_than_the_low_water_comes(network):
    for second in range(60):
        network.say(DOWN, "eth0", second / 2)
        network.wait(second / 2)
    still = list(network.storms.raging)
    network.wait(60)

    assert still == [Source("pe1", DOWN)]
    assert network.told.count(("fault", f"storm:{DOWN}")) == 1
    assert not network.storms.raging


def test_a_storm_of_one_device_withholds_nothing_of_another(network):
    for number in range(20):
        network.say(DOWN, "eth0", number / 10)
    network.say(DOWN, "eth0", 2, device="pe2")
    network.say(UP, "eth0", 2)

    assert network.passed[-2].device == "pe2"
    assert network.told[-1] == ("clear", "eth0")


def test_the_last_word_of_a_storm_does_not_undo_a_newer_one(network):
    for number in range(20):
        network.say(DOWN, "eth0", number / 10)
    network.say(UP, "eth0", 3)
    network.wait(30)

    assert network.told[-2:] == [("clear", "eth0"), ("clear", f"storm:{DOWN}")]


@given(st.lists(st.tuples(st.sampled_from((DOWN, UP)), st.sampled_from("abc"), st.integers(0, 3)), max_size=120))
def test_in_the_end_each_condition_is_as_the_device_said_last(said):
    network, now = Network(), 0
    for oid, key, pause in said:
        now += pause
        network.say(oid, key, now)
        network.wait(now)
    network.wait(now + 11)
    network.wait(now + 22)

    last = {key: "fault" if oid == DOWN else "clear" for oid, key, _ in said}
    assert {key: kind for kind, key in network.told if not key.startswith("storm")} == last
    storms = [(kind, key) for kind, key in network.told if key.startswith("storm")]
    assert storms.count(("fault", f"storm:{DOWN}")) == storms.count(("clear", f"storm:{DOWN}"))


def test_an_adapter_that_stops_leaves_no_storm_and_no_word_behind(network):
    for number in range(20):
        network.say(DOWN, "eth0", number / 10)

    assert [(each.kind, each.key) for each in network.storms.rest(3)] == [("fault", "eth0"), ("clear", f"storm:{DOWN}")]
    assert not list(network.storms.rest(3))


def test_with_no_high_water_there_is_no_storm():
    assert not Storms(0, 0).count(Source("pe1", DOWN), 0)
