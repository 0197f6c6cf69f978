"""The interfaces of lab elements count what is configured on them, and what flows from them says the same."""

from __future__ import annotations

from itertools import pairwise

from convergedon.adapters.labports import OCTETS_A_MEGABIT, UTILISATION, Ports, Shaped

CARRIED = UTILISATION * OCTETS_A_MEGABIT
"""Octets that an access of one Mbit/s carries in a second."""


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def access(bandwidth: int, name: str = "a", interface: str = "ge-1") -> Shaped:
    return Shaped(name, interface, f"192.0.2.{len(name)}/30", bandwidth)


def begun(*accesses: Shaped) -> tuple[Ports, Clock]:
    clock = Clock()
    ports = Ports({"ge-1": 1000, "ge-2": 100}, clock)
    ports.configure(accesses)
    return ports, clock


def test_counters_grow_with_the_bandwidth_that_is_configured() -> None:
    """By the rate that was in force, and not at all while the link is down."""
    ports, clock = begun(access(80))
    counted = [0.0]
    for change in (lambda: None, lambda: ports.configure([access(160)]), lambda: ports.set_link("ge-1", False)):
        change()
        clock.now += 2
        counted.append(ports.read()["ge-1"].octets)

    assert [after - before for before, after in pairwise(counted)] == [160 * CARRIED, 320 * CARRIED, 0]
    assert [(port.name, port.index, port.capacity, port.up) for port in ports.read().values()] == [
        ("ge-1", 1, 1000, False),
        ("ge-2", 2, 100, True),
    ]
    assert ports.read()["ge-1"].changed == 4


def test_what_accesses_carry_adds_up_to_what_their_interface_counts() -> None:
    """Also when more was sold than it can give."""
    ports, clock = begun(access(80, "a", "ge-2"), access(80, "bb", "ge-2"), access(10, "ccc"))
    clock.now += 10

    carried = {name: octets for name, (_, octets) in ports.carried().items()}
    first, second = ports.read().values()

    assert second.octets == carried["a"] + carried["bb"] == 10 * 100 * CARRIED
    assert first.octets == carried["ccc"] == 10 * 10 * CARRIED
    assert ports.carried()["a"][0] == "192.0.2.1"


def test_an_interface_is_up_while_it_is_on_and_its_line_is() -> None:
    ports, _ = begun()
    moves = [
        ports.enable("ge-1", False),
        ports.set_link("ge-1", False),
        ports.enable("ge-1", True),
        ports.set_link("ge-1", True),
    ]

    assert moves == [True, False, False, True]
    assert ports.is_up("ge-1")


def test_an_element_that_starts_again_counts_from_nothing() -> None:
    ports, clock = begun(access(80))
    clock.now += 10
    ports.read()
    ports.restart()

    assert (ports.uptime, ports.read()["ge-1"].octets, ports.carried()["a"][1]) == (0, 0, 0)
