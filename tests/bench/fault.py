"""From a trap's datagram to the notification at the customer's listener.

Sequentially: linkDown, wait for the notification, linkUp, wait. At a rate: traps leave on their beat whether or not
anything was heard, linkDown and linkUp of each port in turn, so that every trap has a notification of its own.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict, deque
from collections.abc import Mapping
from time import perf_counter, time
from typing import Any

from convergedon.adapters import lab
from convergedon.adapters.snmp import lab as trapper
from convergedon.demo.stage import NORTHWIND, NOTICES, ORDERING, VENDOR
from tests.bench.rounds import Effort, Result, ratios, rounded, spread
from tests.bench.scene import SITES, Scene, add, means, playing

RATES = (10, 50)
STATES: Mapping[str, trapper.State] = {"serviceAffected": "down", "serviceRestored": "up"}


class Ports:
    """Where services stand; each is told of by traps and found again in notifications by its order."""

    def __init__(self, scene: Scene, orders: Mapping[str, str]) -> None:
        self._scene, self._orders = scene, orders
        host, _, port = scene.connection.trap.rpartition(":")
        self._to = (host, int(port))
        self._states: dict[str, trapper.State] = dict.fromkeys(SITES, "up")

    def toggle(self, site: str) -> tuple[str, trapper.State, float]:
        """Send the next trap of a port: its order, its state and when it was sent."""
        state = self._states[site] = "down" if self._states[site] == "up" else "up"
        device, interface = SITES[site]["device"], SITES[site]["interface"]
        index = list(lab.INTERFACES).index(interface) + 1
        sent = time()
        trapper.trap_link(state, lab.address(device), interface, index, "public", self._to)
        return self._orders[site], state, sent


def _told(event: Mapping[str, Any]) -> tuple[str, trapper.State] | None:
    """Of which order's port a notification says what."""
    about = event["event"].get("customerNotification", {})
    state = STATES.get(about.get("notificationType", ""))
    return (about["productOrder"][0]["id"], state) if state else None


async def measure(effort: Effort) -> Result:
    result = Result("a trap until its customer's listener has the notification", "ms")
    found: dict[str, list[list[float]]] = defaultdict(list)
    told: dict[str, list[float]] = defaultdict(list)
    async with playing("netconf", "snmp") as scene:
        await scene.hub(VENDOR, ORDERING)
        await scene.hub(NORTHWIND, NOTICES)
        orders = {site: (await scene.order(add(site, 100 + n))).order["id"] for n, site in enumerate(SITES)}
        ports = Ports(scene, orders)
        await _in_sequence(scene, ports, 0)
        before = await scene.metrics()
        for _ in range(effort.rounds):
            found["one by one"].append(await _in_sequence(scene, ports, effort.seconds))
            for rate in RATES:
                took, kept_up = await _at(rate, scene, ports, effort.seconds)
                found[f"{rate}/s"].append(took)
                told[f"{rate}/s"].append(kept_up)
        after = await scene.metrics()
    for name, turns in found.items():
        result.figures[name] = spread([one for turn in turns for one in turn], 1000)
        if name in told:
            result.figures[name]["told/s"] = rounded(statistics.median(told[name]))
    medians = {name: [spread(turn)["p50"] for turn in turns] for name, turns in found.items()}
    result.ratios = ratios(medians, *((f"{rate}/s", "one by one") for rate in RATES))
    steps = means(before, after, "convergedon_flow_step_seconds", "step")
    result.notes = [
        "every trap was told, each once; ports of two devices, linkDown and linkUp in turn",
        "steps of the worker, mean ms: " + ", ".join(f"{step} {1000 * took:.1f}" for step, took in steps.items()),
    ]
    return result


async def _in_sequence(scene: Scene, ports: Ports, seconds: float) -> list[float]:
    took: list[float] = []
    end = perf_counter() + seconds
    while not took or perf_counter() < end:
        for site in SITES:
            for _ in STATES:
                scene.listener.heard.clear()
                order, state, sent = ports.toggle(site)
                at, _ = await scene.listener.until(lambda _, event, told=(order, state): _told(event) == told)
                took.append(at - sent)
    return took


async def _at(rate: int, scene: Scene, ports: Ports, seconds: float) -> tuple[list[float], float]:
    """Traps on their beat; of one port the notifications come in the order of its traps.

    Returns what each took, and how many were told a second from the first trap to the last notification.
    """
    first = time()
    scene.listener.heard.clear()
    sent: dict[tuple[str, trapper.State], deque[float]] = defaultdict(deque)
    sites, begun = list(SITES), perf_counter()
    wanted = max(1, round(rate * seconds / (2 * len(sites)))) * 2 * len(sites)  # whole turns: all ports are up again
    for number in range(wanted):
        await asyncio.sleep(max(0.0, begun + number / rate - perf_counter()))
        order, state, at = ports.toggle(sites[number % len(sites)])
        sent[order, state].append(at)

    def told() -> dict[str, tuple[float, Mapping[str, Any]]]:  # what is delivered again was told the first time
        heard = [(event["eventId"], (at, event)) for at, _, event in scene.listener.heard if _told(event)]
        return dict(reversed(heard))

    await scene.listener.until(lambda *_: len(told()) >= wanted)
    took = []
    for at, event in sorted(told().values(), key=lambda one: one[0]):
        what = _told(event)
        assert what is not None
        took.append(at - sent[what].popleft())
    return took, wanted / (max(at for at, _ in told().values()) - first)
