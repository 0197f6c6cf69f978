"""From a trap's datagram to the notification at the customer's listener.

Sequentially: linkDown, wait for the notification, linkUp, wait. At a rate: traps leave on their beat whether or not
anything was heard, linkDown and linkUp of each port in turn. Beside it, in the same rounds, what Alertmanager needs
from the call of its API to the same sink. Nothing is taken to flap: a few ports by turns stand for many. How many of
the traps are told stands beside how long those took: an end and a fault that follows it before anybody looked are one
disturbance that goes on.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from time import perf_counter, time
from typing import Any

from convergedon.adapters import lab
from convergedon.adapters.snmp import lab as trapper
from convergedon.demo.stage import NORTHWIND, NOTICES, ORDERING, VENDOR
from tests.bench import alertmanager
from tests.bench.alertmanager import Alertmanager
from tests.bench.rounds import Effort, Result, ratios, rounded, spread
from tests.bench.scene import SITES, Scene, add, means, playing

RATES = (10, 50)
OTHER = "Alertmanager"
CLOCK = 0.001
"""Seconds by which a time in a notification may be earlier than it was: it is cut to the millisecond."""
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
    async with AsyncExitStack() as stack:
        scene = await stack.enter_async_context(playing("netconf", "snmp"))
        other = await _alertmanager(stack, scene, result)
        await scene.hub(VENDOR, ORDERING)
        await scene.hub(NORTHWIND, NOTICES)
        orders = {site: (await scene.order(add(site, 100 + n))).order["id"] for n, site in enumerate(SITES)}
        ports = Ports(scene, orders)
        await _in_sequence(scene, ports, 0)
        before = await scene.metrics()
        for _ in range(effort.rounds):
            found["one by one"].append(await _in_sequence(scene, ports, effort.seconds))
            for rate in RATES:
                took, share = await _at(rate, scene, ports, effort.seconds)
                found[f"{rate}/s"].append(took)
                told[f"{rate}/s"].append(share)
            if other is None:
                continue
            found[f"{OTHER}, one by one"].append(await other.in_sequence(effort.seconds))
            for rate in RATES:
                took, share = await other.at(rate, _wanted(rate, effort.seconds))
                found[f"{OTHER}, {rate}/s"].append(took)
                told[f"{OTHER}, {rate}/s"].append(share)
        after = await scene.metrics()
    for name, turns in found.items():
        result.figures[name] = spread([one for turn in turns for one in turn], 1000)
        if name in told:
            result.figures[name]["told, %"] = rounded(100 * statistics.mean(told[name]))
    medians = {name: [spread(turn)["p50"] for turn in turns] for name, turns in found.items()}
    names = ["one by one", *(f"{rate}/s" for rate in RATES)]
    result.ratios = ratios(medians, *((f"{rate}/s", "one by one") for rate in RATES))
    if other:
        result.ratios |= ratios(medians, *((name, f"{OTHER}, {name}") for name in names))
    steps = means(before, after, "convergedon_flow_step_seconds", "step")
    result.notes += [
        "ports of two devices, linkDown and linkUp in turn; nothing was told twice, and no end without its fault",
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
    """Traps on their beat; all that was to be told is out when nothing comes any more.

    Returns what each took that was told, and their share of the traps.
    """
    scene.listener.heard.clear()
    sent: dict[tuple[str, trapper.State], list[float]] = defaultdict(list)
    sites, begun = list(SITES), perf_counter()
    wanted = _wanted(rate, seconds)
    for number in range(wanted):
        await asyncio.sleep(max(0.0, begun + number / rate - perf_counter()))
        order, state, at = ports.toggle(sites[number % len(sites)])
        sent[order, state].append(at)
    await scene.listener.quiet()
    heard = dict(reversed([(event["eventId"], (at, event)) for at, _, event in scene.listener.heard]))
    took = []
    for at, event in heard.values():
        if (what := _told(event)) and (traps := [one for one in sent[what] if one <= _when(event) + CLOCK]):
            sent[what].remove(traps[-1])
            took.append(at - traps[-1])
    return took, len(took) / wanted


def _wanted(rate: int, seconds: float) -> int:
    """Whole turns: all ports are up again."""
    return max(1, round(rate * seconds / (2 * len(SITES)))) * 2 * len(SITES)


async def _alertmanager(stack: AsyncExitStack, scene: Scene, result: Result) -> Alertmanager | None:
    """The other one, told of the same ports, if it is installed."""
    binary = alertmanager.program()
    if binary is None:
        result.notes.append("no Prometheus Alertmanager is installed: it was not measured")
        return None
    ports = [(about["device"], about["interface"]) for about in SITES.values()]
    return await stack.enter_async_context(alertmanager.running(binary, scene.listener, ports))


def _when(event: Mapping[str, Any]) -> float:
    """When the network said what a notification tells of, to the millisecond."""
    about = event["event"]["customerNotification"]
    said = about["restoredAt"] if about["notificationType"] == "serviceRestored" else about["affectedSince"]
    return datetime.fromisoformat(said).timestamp()
