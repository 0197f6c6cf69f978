"""What holds while the network fails, and while the adapter's own process does.

However it is cut: the outcome says what is so, the device has the old state or the new one, and the same intent, sent
again over a good network, is done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

from convergedon.adapters.contract import Device, Outcome, State
from convergedon.adapters.testing.cases import case, performers, require
from convergedon.adapters.testing.golden import PACKETS, Heard, folders, packets
from convergedon.adapters.testing.proxy import DatagramProxy, Fault, Proxy, Wayward
from convergedon.adapters.testing.trial import Bench, given_in, send
from convergedon.adapters.transaction import perform
from convergedon.core.errors import Unavailable
from convergedon.core.tasks import end

CUTS = 8
"""Places in the device's answers at which the connection is cut, spread evenly."""
STOPS, HASTE = 6, 2.0
"""Places at which the device falls silent, and seconds until the deadline of an intent that meets it."""
CUTS_OF_DATAGRAMS = 3
"""The same where a datagram is there or is not."""
OFTEN: Mapping[str, Mapping[str, Any]] = {"once": {"times": 1, "once": True}, "always": {"reset": True}}
"""How a connection is gone: closed once, wherever that is in all that is said; or broken off each time."""
BEGUN = 2
"""Bytes of what a device says that has begun to speak, and no more."""
HELD = 0.05
"""Seconds until the other half of an answer comes."""
SLOW = 0.03
"""Seconds that each piece of a slow connection takes."""
STAGES = ("prepare", "commit", "verify", "confirm")
ORDERS = 3
"""Times that packets come in another order."""
AWAY = 3
"""Times that an observation cannot be made safe."""


def reached(bench: Bench) -> str:
    """Whether the kit can put a network between."""
    if why := performers(bench):
        return why
    return "" if bench.trial.place and bench.trial.moved else "its trial does not say where a device is (place, moved)"


def streams(bench: Bench) -> str:
    return reached(bench) or ("a datagram has no halves" if bench.trial.datagrams else "")


@dataclass
class Between:
    """A device behind a proxy: ``good`` are the devices as they are, ``faulty`` as they are reached through it."""

    bench: Bench
    proxy: Proxy | DatagramProxy
    good: Mapping[str, Device]
    faulty: Mapping[str, Device]

    async def perform(self, within: float | None = None) -> Outcome:
        wanted = self.bench.wanted
        if within is not None:
            wanted = replace(wanted, deadline=time.time() + within)
        async with self.bench.started(self.faulty) as adapter:
            return await perform(adapter, wanted)

    async def state(self) -> State:
        return await self.bench.state(self.good, self.bench.wanted)


@asynccontextmanager
async def between(bench: Bench) -> AsyncIterator[Between]:
    place, moved = given_in(bench.trial.place, "place"), given_in(bench.trial.moved, "moved")
    async with bench.devices() as devices:
        device = devices[bench.wanted.device]
        kind = DatagramProxy if bench.trial.datagrams else Proxy
        async with kind(*place(device)) as proxy:
            yield Between(bench, proxy, devices, {**devices, device.name: moved(device, proxy.host, proxy.port)})


async def new_state(bench: Bench) -> tuple[State, int, int]:
    """What the device has when the intent is done, and how many bytes of questions and answers that takes."""
    async with between(bench) as network:
        outcome = await network.perform()
        require(outcome.status == "applied", "over a good network:", outcome)
        return await network.state(), network.proxy.asked, network.proxy.answered


async def suffered(network: Between, fault: Fault, new: State, words: str, within: float | None = None) -> Outcome:
    """Perform under a fault: what is said is so, nothing is half, and it is done when the fault is over."""
    network.proxy.suffer(fault)
    outcome = await network.perform(within)
    network.proxy.recover()
    state = await network.state()
    require(state in (None, new), words, "the device has neither the old nor the new state:", state)
    require(not outcome.done or state == new, words, "it says", outcome, "and the device has", state)
    said_old = outcome.status in ("refused", "rolledBack")
    require(not said_old or state is None, words, "it says", outcome, "and the device has", state)
    require(outcome.done or outcome.reason, words, "it does not say why:", outcome)
    again = await network.perform()
    require(again.done, words, "over a good network again:", again)
    require(await network.state() == new, words, "in the end the device has", await network.state())
    return outcome


@case("faults", reached)
async def nobody_at_the_device(bench: Bench) -> None:
    """Every connection is closed at once: not done, and tried again."""
    new, *_ = await new_state(bench)
    async with between(bench) as network:
        outcome = await suffered(network, Fault(refused=True), new, "nobody answers:")

    require(not outcome.done and outcome.retriable, "it is to be tried again:", outcome)


@case("faults", reached)
async def a_slow_device(bench: Bench) -> None:
    """It takes its time, and is not taken for one that is away."""
    new, *_ = await new_state(bench)
    async with between(bench) as network:
        outcome = await suffered(network, Fault(delay=SLOW), new, "each piece takes its time:")

    require(outcome.done, outcome)


@case("faults", reached)
async def a_silent_device(bench: Bench) -> None:
    """It takes the connection and says nothing, or no more than half a word: given up before long."""
    new, *_ = await new_state(bench)

    async def silent(fault: Fault, words: str) -> None:
        async with between(bench) as network:
            async with asyncio.timeout(bench.trial.patience / 2):
                outcome = await suffered(network, fault, new, words)
        require(not outcome.done and outcome.retriable, words, "it is to be tried again:", outcome)

    faults = {"it says nothing:": Fault(silent=True)}
    if not bench.trial.datagrams:
        faults["it begins to speak:"] = Fault(held_after=BEGUN)
    await side_by_side(silent(fault, words) for words, fault in faults.items())


@case("faults", reached)
async def answers_cut_in_the_middle(bench: Bench) -> None:
    """At several places of what the device says, once and then always: never half a change."""
    new, _, length = await new_state(bench)

    async def cut(place: int, often: str) -> None:
        async with between(bench) as network:
            words = f"answers cut after {place} of {length} bytes, {often}:"
            await suffered(network, Fault(cut_after=place, **OFTEN[often]), new, words)

    await everywhere(bench, length, cut)


@case("faults", streams)
async def answers_that_stop_in_the_middle(bench: Bench) -> None:
    """Half an answer and then silence, at several places once the device was greeted: known soon after the deadline."""
    new, _, length = await new_state(bench)
    async with between(bench) as network, bench.started(network.faulty) as adapter:
        await adapter.capabilities(bench.wanted.device)
        greeted = network.proxy.answered

    async def stop(place: int, often: str) -> None:
        words = f"silent after {place} of {length} bytes, {often}:"
        async with between(bench) as network, asyncio.timeout(bench.trial.patience / 2):
            await suffered(network, Fault(held_after=place, once=often == "once"), new, words, HASTE)

    stops = [greeted + place for place in places(max(0, length - greeted), STOPS + 1)[:-1]]
    await side_by_side(stop(place, often) for place in stops for often in OFTEN)


@case("faults", streams)
async def answers_that_come_in_halves(bench: Bench) -> None:
    """The second half of what the device says comes a moment later, wherever it is parted: it is waited for."""
    new, _, length = await new_state(bench)

    async def halve(place: int) -> None:
        async with between(bench) as network:
            words = f"answers parted after {place} of {length} bytes:"
            outcome = await suffered(network, Fault(held_after=place, held=HELD, once=True), new, words)
        require(outcome.done, words, outcome)

    await side_by_side(map(halve, places(length, CUTS + 1)[:-1]))


@case("faults", reached)
async def questions_lost_on_the_way(bench: Bench) -> None:
    """At several places of what the device is told, once and then always: what it never heard is not taken for done."""
    new, length, _ = await new_state(bench)

    async def lose(place: int, often: str) -> None:
        async with between(bench) as network:
            words = f"questions lost after {place} of {length} bytes, {often}:"
            await suffered(network, Fault(lost_after=place, **OFTEN[often]), new, words)

    await everywhere(bench, length, lose)


async def everywhere(bench: Bench, length: int, suffer: Callable[[int, str], Awaitable[None]]) -> None:
    """At each place, once and always. Who loses a datagram waits long for its answer: they are tried side by side."""
    cuts = CUTS_OF_DATAGRAMS if bench.trial.datagrams else CUTS
    turns = asyncio.Semaphore(len(OFTEN) * cuts if bench.trial.datagrams else 1)

    async def in_turn(place: int, often: str) -> None:
        async with turns:
            await suffer(place, often)

    await side_by_side(in_turn(place, often) for place in places(length, cuts) for often in OFTEN)


async def side_by_side(attempts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All of them; where one fails the others are ended, and what they opened is closed."""
    tasks = [asyncio.ensure_future(attempt) for attempt in attempts]
    try:
        await asyncio.gather(*tasks)
    finally:
        await end(tasks)


def places(length: int, cuts: int) -> list[int]:
    return [round(length * number / cuts) for number in range(1, cuts + 1)]


@case("faults", performers)
async def a_restart_between_two_stages(bench: Bench) -> None:
    """We die after each stage; whoever is given the intent then brings it to its end."""
    await side_by_side(_restarted(bench, last) for last in range(1, len(STAGES) + 1))


async def _restarted(bench: Bench, last: int) -> None:
    """So many stages, on devices of their own, and then another adapter."""
    async with bench.devices() as devices:
        async with bench.started(devices) as adapter:
            change = await adapter.prepare(bench.wanted)
            for stage in STAGES[1:last]:
                await getattr(adapter, stage)(change)
        async with bench.started(devices) as adapter:
            outcome = await perform(adapter, bench.wanted)
            found = await adapter.observe(bench.wanted)
    words = f"after {STAGES[last - 1]}:"
    require(outcome.done, words, outcome)
    require(found is not None, words, "the device does not have it")


def listeners(bench: Bench) -> str:
    return "" if folders(bench, PACKETS) else "there are no golden packets"


async def all_told(bench: Bench, adapter_address: str, heard: Heard) -> None:
    """Whatever came before, and however much of it still waits: the golden packets are understood."""
    before = len(heard.seen)
    bench.trial.deliver(adapter_address, golden(bench))
    require(await heard.until(before + 1, bench.trial.patience), "after that it understands nothing any more")


@asynccontextmanager
async def listening(bench: Bench, heard: Any) -> AsyncIterator[tuple[Any, str]]:
    async with bench.devices() as devices:
        adapter = bench.create(devices)
        addresses = await adapter.start(heard)
        try:
            yield adapter, addresses[0]
        finally:
            await adapter.stop()


def datagrams(bench: Bench) -> str:
    return listeners(bench) or ("" if bench.trial.deliver is send else "it is not datagrams that it hears")


@case("faults", listeners)
async def half_packets(bench: Bench) -> None:
    """Each golden packet cut at every length: nothing is said that was not there, and it goes on."""
    heard = Heard()
    async with listening(bench, heard) as (adapter, address):
        for whole in golden(bench):
            bench.trial.deliver(address, [whole[:length] for length in range(0, len(whole), max(1, len(whole) // 60))])
        await all_told(bench, address, heard)
        require((await adapter.health())["state"] == "ready", "it is not well:", await adapter.health())


@case("faults", listeners)
async def packets_twice_and_in_another_order(bench: Bench) -> None:
    """As whoever sends them may: it goes on, and what has the same id says the same."""
    for turn in range(ORDERS):
        heard, sent = Heard(), golden(bench)
        async with listening(bench, heard) as (adapter, address):
            for packet in mixed(turn, [*sent, *sent]):
                bench.trial.deliver(address, [packet])
                await asyncio.sleep(0)
            require(await heard.until(1, bench.trial.patience), "it understands none of them")
            require((await adapter.health())["state"] == "ready", "it is not well:", await adapter.health())
        the_same_id_says_the_same(heard)


@case("faults", datagrams)
async def a_network_that_brings_packets_twice_late_and_not_at_all(bench: Bench) -> None:
    """Between the sender and us: it goes on, what has the same id says the same, and a good network is as it was."""
    for turn in range(ORDERS):
        heard, held = Heard(), list[bytes]()

        def befall(number: int, packet: bytes, turn: int = turn, held: list[bytes] = held) -> list[bytes]:
            fate = crc32(f"{turn} {number}".encode()) % 4
            if fate == 0:
                return []
            if fate == 1:
                held.append(packet)
                return []
            late, held[:] = list(held), []
            return [packet, *late, *([packet] if fate == 2 else [])]

        async with listening(bench, heard) as (adapter, address), Wayward(address, befall) as network:
            for _ in range(ORDERS):
                bench.trial.deliver(network.address, golden(bench))
                await asyncio.sleep(0)
            await all_told(bench, address, heard)
            require(network.arrived > 0, "nothing came through")
            require((await adapter.health())["state"] == "ready", "it is not well:", await adapter.health())
        the_same_id_says_the_same(heard)


def golden(bench: Bench) -> list[bytes]:
    return [packet for folder in folders(bench, PACKETS) for packet in packets(folder)]


def mixed(turn: int, sent: list[bytes]) -> list[bytes]:
    """In another order each turn, and in the same whenever it is tried."""
    order = sorted(range(len(sent)), key=lambda place: crc32(f"{turn} {place}".encode()))
    return [sent[place] for place in order]


def the_same_id_says_the_same(heard: Heard) -> None:
    said: dict[str, Any] = {}
    for one in heard.seen:
        alike = said.setdefault(one.id, replace(one, time=0.0)) == replace(one, time=0.0)
        require(alike, "of the same id are", one, "and", said[one.id])


class Away(Heard):
    """A report that cannot make anything safe the first times."""

    def __init__(self) -> None:
        super().__init__()
        self.left = AWAY

    async def __call__(self, observation: Any) -> None:
        if self.left:
            self.left -= 1
            raise Unavailable("the bus is away")
        await super().__call__(observation)


@case("faults", listeners)
async def a_bus_that_is_away(bench: Bench) -> None:
    """What cannot be made safe at once is made safe later, and what comes after it is, too."""
    heard = Away()
    async with listening(bench, heard) as (_, address):
        await all_told(bench, address, heard)

    require(heard.left == 0, "it did not try again")
