"""A linkUp ends its linkDown whichever varbinds either carries, also when the ifIndex is another one by then."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from convergedon.adapters.contract import Device, Observation
from convergedon.adapters.intake import Datagram
from convergedon.adapters.snmp import ber, create, interfaces, mapping, remembering
from convergedon.core import settings

IF, IF_X = "1.3.6.1.2.1.2.2.1", "1.3.6.1.2.1.31.1.1.1"
DOWN, UP, COLD_START = (f"{ber.STANDARD_TRAPS}.{number}" for number in (3, 4, 1))
NAMES = {3: "ge-0/0/3", 7: "ge-0/0/7"}
COLUMNS = ("index", "oper", "name", "descr")
SOME = st.sets(st.sampled_from(COLUMNS), min_size=1)
numbers = itertools.count()


class Scene:
    """A device whose traps are heard; ``told`` are the clears that follow from a poll."""

    def __init__(self, named: Mapping[int, str] | None = None, polled: bool = False) -> None:
        snmp = {"interfaces": named} if named else {}
        device = Device("pe1", "a", "192.0.2.1", {"snmp": snmp})
        self.adapter = create(settings.load(trap_port=0), {"pe1": device})
        self.told: list[Observation] = []
        self.adapter._say = self.told.extend
        self.now = 0
        if polled:
            self.poll(NAMES)

    def poll(self, names: Mapping[int, str]) -> None:
        self.adapter._learn("pe1", names)

    def hear(
        self, trap: str, carries: Iterable[str] = (), index: int = 3, name: str = "", uptime: int | None = None
    ) -> Observation:
        self.now += 100
        called = name or NAMES[index]
        binds: dict[str, ber.Varbind] = {
            "index": (f"{IF}.1.{index}", ber.INTEGER, index),
            "oper": (f"{IF}.8.{index}", ber.INTEGER, 1),
            "name": (f"{IF_X}.1.{index}", ber.OCTETS, called.encode()),
            "descr": (f"{IF}.2.{index}", ber.OCTETS, f"Gigabit {called}".encode()),
        }
        head: list[ber.Varbind] = [
            (ber.UPTIME, ber.TICKS, 1_000_000 + self.now if uptime is None else uptime),
            (ber.TRAP_OID, ber.OID, trap),
        ]
        data = ber.encode(b"public", [*head, *(binds[one] for one in carries)], request=next(numbers))
        [found] = self.adapter._read(Datagram(data, "192.0.2.1", ("192.0.2.1", 9), 1.8e9 + self.now)) or ()
        return found.observe()


@effort(deadline=None)
@given(SOME, SOME, SOME, st.booleans(), st.sampled_from([{}, {3: "uplink"}]))
def test_a_clear_meets_its_fault(down: Any, again: Any, up: Any, polled: bool, named: Any) -> None:
    """And so does the same fault when it is told again, whatever is heard of other interfaces."""
    scene = Scene(named, polled)
    other = scene.hear(DOWN, again, index=7)
    faults = [scene.hear(DOWN, carries) for carries in (down, again)]
    clear = scene.hear(UP, up)

    assert {one.key for one in faults} == {clear.key}
    assert clear.key != other.key
    assert scene.hear(UP, up, index=7).key == other.key


@effort(deadline=None)
@given(SOME, SOME)
def test_a_name_that_comes_between_changes_nothing(down: Any, up: Any) -> None:
    """A poll reads it while the fault stands."""
    scene = Scene()
    fault = scene.hear(DOWN, down)
    scene.poll(NAMES)

    assert scene.hear(UP, up).key == fault.key


@effort(deadline=None)
@given(SOME, SOME, st.booleans())
def test_after_a_restart_an_interface_has_another_index(down: Any, up: Any, says_so: bool) -> None:
    """It is known by its name: the notification's own, or what the next poll brings."""
    scene = Scene(polled=True)
    fault = scene.hear(DOWN, {*down, "name"})
    if says_so:
        scene.hear(COLD_START, uptime=5)
    first = scene.hear(UP, up, index=9, name=NAMES[3], uptime=900)
    scene.poll({9: NAMES[3], 3: "xe-1/1/1"})

    assert fault.key == f"link:{NAMES[3]}"
    assert fault.key in {one.key for one in (first, *scene.told)}


def test_the_former_index_of_an_interface_clears_nothing_of_it() -> None:
    """It is another one's after the restart, whoever says so: the device, its uptime, or another name at that index."""
    for how in ("cold start", "uptime", "name"):
        scene = Scene()
        fault = scene.hear(DOWN, ["index", "name"])
        if how == "cold start":
            scene.hear(COLD_START, uptime=5)
        carries = ["index", "name"] if how == "name" else ["index"]
        clear = scene.hear(UP, carries, name="xe-1/1/1", uptime=900 if how != "name" else None)

        assert clear.key != fault.key, how


def test_packets_in_another_order_are_no_restart() -> None:
    scene = Scene()
    fault = scene.hear(DOWN, ["index", "name"], uptime=500_000)
    clear = scene.hear(UP, ["index"], uptime=499_000)

    assert clear.key == fault.key


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "MOST", 50)
    known = interfaces.Interfaces()
    for number in range(300):
        meaning = mapping.Meaning("fault", f"i{number}", "link:{object}", {}, number % 7, {"1": f"i{number}"})
        known.heard(f"pe{number // 7}", number, False)
        known.object(f"pe{number // 7}", meaning, number)
        known.object("pe0", replace(meaning, index=1), number)
        known.learn(f"pe{number // 9}", {number: "x"})

    assert known._size == sum(one.size for one in known._devices.values()) <= 50


def test_whoever_restarted_while_nobody_listened_has_other_indexes() -> None:
    """It is up for less than it was before and the time since then; one that is up for as long is the same."""
    for uptime, same in ((1_000_000 + 6_000 * 100, True), (900_000, False)):
        scene = Scene()
        fault = scene.hear(DOWN, ["index", "name"], uptime=1_000_000)
        known = scene.adapter._interfaces.known("pe1")
        scene.adapter._interfaces = interfaces.Interfaces()
        assert known
        scene.adapter._interfaces.restore({"pe1": known}, time.time() - 6_000)
        clear = scene.hear(UP, ["index"], uptime=uptime)

        assert (clear.key == fault.key) is same


def test_what_is_kept_is_read_as_it_was() -> None:
    """Names, what was told by them, and clears that wait for a name."""
    scene = Scene()
    scene.hear(DOWN, ["index", "name"])
    scene.hear(DOWN, ["index", "descr"], index=7)
    scene.hear(UP, ["index"], index=7)
    known = scene.adapter._interfaces.known("pe1")
    assert known
    assert known.names
    assert known.told
    assert known.unnamed

    assert remembering._known(orjson.loads(orjson.dumps(remembering._said("pe1", known)))) == known
