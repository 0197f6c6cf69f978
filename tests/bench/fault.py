"""From a trap's datagram to the notification at the customer's listener.

Sequentially: linkDown, wait for the notification, linkUp, wait. At a rate: traps leave on their beat whether or not
anything was heard, linkDown of all ports by turns and then linkUp of all. Beside it, in the same rounds, what
Alertmanager needs from the call of its API to the same sink. A service stands on each port, as a client has recorded
it. Nothing is taken to flap: the same ports stand for many. How many of the traps are told stands beside how long those
took: an end and a fault that follows it before anybody looked are one disturbance that goes on.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from time import perf_counter, time
from typing import Any, NamedTuple

from convergedon.adapters.snmp import lab as trapper
from convergedon.demo.stage import NORTHWIND, NOTICES, Caller
from convergedon.mediation import parts
from tests.bench import alertmanager
from tests.bench.alertmanager import Alertmanager
from tests.bench.rounds import Effort, Result, ratios, rounded, spread
from tests.bench.scene import Scene, means, playing

RATES = (10, 50)
SERVICES = "/tmf-api/serviceInventory/v4"
OTHER = "Alertmanager"
ADMIN = Caller("admin", "acme", "admin")
CLOCK = 0.001
"""Seconds by which a time in a notification may be earlier than it was: it is cut to the millisecond."""
STATES: Mapping[str, trapper.State] = {"serviceAffected": "down", "serviceRestored": "up"}


class Port(NamedTuple):
    """Where a service stands."""

    device: str
    interface: str
    index: int


PORTS = [Port(f"pe{device}", f"ge-0/0/{index}", index) for index in range(1, 5) for device in range(1, 13)]
FEW = PORTS[:4]
"""Those that are taken one after the other."""


def address(device: str) -> str:
    return f"127.0.12.{device.removeprefix('pe')}"


def devices() -> dict[str, Any]:
    """The devices file that has these ports."""
    found: dict[str, Any] = {}
    for device, interface, index in PORTS:
        entry = {"tenant": ADMIN.tenant, "address": address(device), "snmp": {"interfaces": {}}}
        found.setdefault(device, entry)["snmp"]["interfaces"][index] = interface
    return {"devices": found}


class Network:
    """The ports; each is told of by traps and found again in notifications by its service."""

    def __init__(self, scene: Scene, services: Mapping[Port, str]) -> None:
        self._services = services
        host, _, port = scene.connection.trap.rpartition(":")
        self._to = (host, int(port))
        self._states: dict[Port, trapper.State] = dict.fromkeys(services, "up")

    def toggle(self, port: Port) -> tuple[str, trapper.State, float]:
        """Send the next trap of a port: its service, its state and when it was sent."""
        state = self._states[port] = "down" if self._states[port] == "up" else "up"
        sent = time()
        trapper.trap_link(state, address(port.device), port.interface, port.index, "public", self._to)
        return self._services[port], state, sent


async def record(scene: Scene) -> dict[Port, str]:
    """Record a service of a customer on each port, as a client does; port -> its id."""
    found = {}
    for port in PORTS:
        place = f"{port.device}/{port.interface}"
        body = {
            "name": f"access at {place}",
            "state": "active",
            "serviceSpecification": {"id": "internet-access", "name": "Internet access"},
            "relatedParty": [NORTHWIND.related],
            "supportingResource": [{"id": parts.id_of(ADMIN.tenant, place), "name": place}],
        }
        answer = await scene.gateway.ask(ADMIN, "POST", f"{SERVICES}/service", body)
        answer.raise_for_status()
        found[port] = answer.json()["id"]
    return found


def _told(event: Mapping[str, Any]) -> tuple[str, trapper.State] | None:
    """Of which service a notification says what."""
    about = event["event"].get("customerNotification", {})
    state = STATES.get(about.get("notificationType", ""))
    return (about["service"][0]["id"], state) if state else None


class Found:
    """What the rounds have found: of each contestant what each round took, and the share that was told."""

    def __init__(self) -> None:
        self.took: dict[str, list[list[float]]] = defaultdict(list)
        self.told: dict[str, list[float]] = defaultdict(list)

    def note(self, name: str, took: list[float], share: float) -> None:
        self.took[name].append(took)
        self.told[name].append(share)

    def figures(self) -> dict[str, dict[str, float]]:
        found = {name: spread([one for turn in turns for one in turn], 1000) for name, turns in self.took.items()}
        for name, shares in self.told.items():
            found[name]["told, %"] = rounded(100 * statistics.mean(shares))
        return found


async def measure(effort: Effort) -> Result:
    result = Result("a trap until its customer's listener has the notification", "ms")
    found = Found()
    for store, url in (("", ""), *effort.stores):
        result.notes.append(await _played(effort, found, f"{store}, " if store else "", url))
    result.figures = found.figures()
    medians = {name: [spread(turn)["p50"] for turn in turns] for name, turns in found.took.items()}
    names = ["one by one", *(f"{rate}/s" for rate in RATES)]
    result.ratios = ratios(medians, *((f"{rate}/s", "one by one") for rate in RATES))
    if f"{OTHER}, {names[0]}" in medians:
        result.ratios |= ratios(medians, *((name, f"{OTHER}, {name}") for name in names))
    else:
        result.notes.append("no Prometheus Alertmanager is installed: it was not measured")
    result.notes.append(
        f"{len(PORTS)} ports, four of each device; nothing was told twice, and no end without its fault"
    )
    return result


async def _played(effort: Effort, found: Found, where: str, store: str) -> str:
    """All rounds on a store; beside the embedded one plays Alertmanager. Returns how long the worker's steps took."""
    async with AsyncExitStack() as stack:
        scene = await stack.enter_async_context(playing("snmp", devices=devices(), store=store))
        other = None if store else await _alertmanager(stack, scene)
        await scene.hub(NORTHWIND, NOTICES)
        network = Network(scene, await record(scene))
        await _in_sequence(scene, network, 0)
        before = await scene.metrics()
        for _ in range(effort.rounds):
            found.took[f"{where}one by one"].append(await _in_sequence(scene, network, effort.seconds))
            for rate in RATES:
                found.note(f"{where}{rate}/s", *await _at(rate, scene, network, effort.seconds))
            if other is None:
                continue
            found.took[f"{OTHER}, one by one"].append(await other.in_sequence(effort.seconds))
            for rate in RATES:
                beats = [port[:2] for port in _beats(rate, effort.seconds)]
                found.note(f"{OTHER}, {rate}/s", *await other.at(rate, beats))
        steps = means(before, await scene.metrics(), "convergedon_flow_step_seconds", "step")
    return f"{where}steps of the worker, mean ms: " + ", ".join(
        f"{one} {1000 * took:.1f}" for one, took in steps.items()
    )


async def _in_sequence(scene: Scene, network: Network, seconds: float) -> list[float]:
    took: list[float] = []
    end = perf_counter() + seconds
    while not took or perf_counter() < end:
        for port in FEW:
            for _ in STATES:
                scene.listener.heard.clear()
                service, state, sent = network.toggle(port)
                at, _ = await scene.listener.until(lambda _, event, told=(service, state): _told(event) == told)
                took.append(at - sent)
    return took


async def _at(rate: int, scene: Scene, network: Network, seconds: float) -> tuple[list[float], float]:
    """Traps on their beat; all that was to be told is out when nothing comes any more.

    Returns what each took that was told, and their share of the traps.
    """
    scene.listener.heard.clear()
    sent: dict[tuple[str, trapper.State], list[float]] = defaultdict(list)
    begun = perf_counter()
    beats = _beats(rate, seconds)
    for number, port in enumerate(beats):
        await asyncio.sleep(max(0.0, begun + number / rate - perf_counter()))
        service, state, at = network.toggle(port)
        sent[service, state].append(at)
    await scene.listener.quiet()
    heard = dict(reversed([(event["eventId"], (at, event)) for at, _, event in scene.listener.heard]))
    took = []
    for at, event in heard.values():
        if (what := _told(event)) and (traps := [one for one in sent[what] if one <= _when(event) + CLOCK]):
            sent[what].remove(traps[-1])
            took.append(at - traps[-1])
    return took, len(took) / len(beats)


def _beats(rate: int, seconds: float) -> list[Port]:
    """Whose turn it is at each beat: at the end all ports are up again."""
    some = PORTS[: max(1, min(len(PORTS), round(rate * seconds / 2)))]
    return some * (2 * max(1, round(rate * seconds / (2 * len(some)))))


async def _alertmanager(stack: AsyncExitStack, scene: Scene) -> Alertmanager | None:
    """The other one, told of the same ports, if it is installed."""
    binary = alertmanager.program()
    if binary is None:
        return None
    ports = [port[:2] for port in FEW]
    return await stack.enter_async_context(alertmanager.running(binary, scene.listener, ports))


def _when(event: Mapping[str, Any]) -> float:
    """When the network said what a notification tells of, to the millisecond."""
    about = event["event"]["customerNotification"]
    said = about["restoredAt"] if about["notificationType"] == "serviceRestored" else about["affectedSince"]
    return datetime.fromisoformat(said).timestamp()
