"""The lab: simulated network elements for trying out, all on loopback, with faults on command."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from convergedon.adapters.flow import lab as exporter
from convergedon.adapters.labports import OCTETS_A_PACKET
from convergedon.adapters.netconf.lab import Element, Fault
from convergedon.adapters.snmp import lab as trapper
from convergedon.adapters.snmp.element import SimulatedAgent, of_element, of_recording
from convergedon.core.errors import Invalid, NotFound, Unavailable
from convergedon.core.tasks import end

ELEMENTS = {"pe1": "acme", "pe2": "acme", "pe3": "globex"}
INTERFACES = {"ge-0/0/1": 1000, "ge-0/0/2": 1000}
"""Interface name -> capacity in Mbit/s; its ifIndex is its place, from 1."""
RECORDINGS, RECORDED, MOST_RECORDED = "recordings", "acme", 250
"""The folder of recorded devices in the lab's, their tenant, and how many there are at most."""
SLOW = 0.5
"""Seconds that a slow element takes for each call."""
FLAPS, MOST_FLAPS = 6, 100
"""Times that a port goes down and up where nothing is said, more than make an alarm flap as shipped; and at most."""
EXPORTS = 15.0
"""Seconds between two exports of what the accesses of the elements carried."""
SAMPLING = {"pe2": 100}
"""Element -> it looks at one of so many packets; the others look at all."""
OUTSIDE = "192.0.2.1"
"""Whom the customers of the lab exchange traffic with (RFC 5737)."""


def address(element: str) -> str:
    """The management address that an element's traps name."""
    return f"127.0.10.{list(ELEMENTS).index(element) + 1}"


def domain(element: str) -> int:
    """The observation domain by which an element's flow records are told from the others'."""
    return list(ELEMENTS).index(element) + 1


@dataclass(frozen=True)
class Receivers:
    """Where the elements send traps and flow records, and the community of the traps."""

    trap: tuple[str, int]
    flow: tuple[str, int]
    community: str


class Lab:
    """The elements, which keep configuration, keys and ports in the folder.

    ``receivers`` says where their traps and flows go, at the moment when there are some; it raises Unavailable where
    nobody receives them.
    """

    def __init__(
        self, folder: Path, receivers: Callable[[], Receivers] | None = None, exports: float = EXPORTS
    ) -> None:
        self._folder, self._exports = folder, exports
        self._exporting: asyncio.Task[None] | None = None
        self._quiet_until = 0.0
        self._exported: Counter[str] = Counter()
        self._receivers = receivers or _nobody
        self._elements = {name: Element(name, folder / name, INTERFACES) for name in ELEMENTS}
        self._agents = {name: of_element(element, folder / name) for name, element in self._elements.items()}
        for name, element in self._elements.items():
            element.on_link = partial(self._trap, name)

    async def start(self) -> Path:
        """Start all elements; returns the devices file that describes them."""
        devices = {}
        for name, element in self._elements.items():
            await element.start()
            await self._agents[name].start()
            entry = element.device_entry()
            devices[name] = {
                "tenant": ELEMENTS[name],
                "address": address(name),
                "netconf": entry["netconf"],
                "snmp": {"interfaces": dict(enumerate(INTERFACES, 1)), **self._agents[name].device_entry()},
                "flow": {"observationDomain": domain(name)},
            }
        for number, (name, agent) in enumerate(self._recorded().items(), 1):
            await agent.start()
            reached = f"127.0.11.{number}"
            devices[name] = {"tenant": RECORDED, "address": reached, "snmp": agent.device_entry()}
        file = self._folder / "devices.yaml"
        file.write_text(yaml.safe_dump({"devices": devices}, sort_keys=False))
        file.chmod(0o600)
        self._exporting = asyncio.create_task(self._export_on(), name="lab flows")
        return file

    async def stop(self) -> None:
        if self._exporting:
            await end([self._exporting])
            self._exporting = None
        for agent in self._agents.values():
            await agent.stop()
        for element in self._elements.values():
            await element.stop()

    def _recorded(self) -> Mapping[str, SimulatedAgent]:
        """Devices that were recorded, each from its file in the folder of recordings. Raises Misconfigured."""
        found = sorted(file for file in (self._folder / RECORDINGS).glob("*.yaml") if file.stem not in ELEMENTS)
        agents = {file.stem: of_recording(file, self._folder / file.stem) for file in found[:MOST_RECORDED]}
        self._agents |= agents
        return agents

    async def fault(self, device: str, kind: str, interface: str = "", turns: int = FLAPS) -> str:
        """Have something go wrong, or end it; what was done, in words. Raises Invalid, NotFound or Unavailable.

        ``turns`` is how often an interface flaps.
        """
        if kind not in FAULTS:
            raise Invalid(f"there is no fault {kind}; there are {', '.join(FAULTS)}")
        if kind in ON_INTERFACES and not interface:
            raise Invalid(f"{kind} needs an interface: {', '.join(INTERFACES)}")
        if interface and kind not in ON_INTERFACES:
            raise Invalid(f"{kind} is of the whole element: name no interface")
        if not 1 <= turns <= MOST_FLAPS:
            raise Invalid(f"an interface flaps 1 to {MOST_FLAPS} times, not {turns}")
        if kind == "flap":
            return await self._flap(self._element(device), interface, turns)
        return await FAULTS[kind](self, self._element(device), interface)

    def quiet(self, seconds: float) -> str:
        """Export nothing of itself for so long: what the accesses carry meanwhile is no flow record. 0 ends it."""
        self._quiet_until = time.monotonic() + seconds
        return f"no flow records are exported for {seconds:g} s" if seconds else "flow records are exported again"

    async def _export_on(self) -> None:
        """What was configured is used, and told in flow records, all the time."""
        began, before = time.time(), self._carried()
        while True:
            await asyncio.sleep(self._exports)
            ended, after = time.time(), self._carried()
            for device, accesses in after.items() if time.monotonic() >= self._quiet_until else ():
                known = before[device]
                grown = [
                    (customer, octets - (known[name][1] if name in known and known[name][1] <= octets else 0))
                    for name, (customer, octets) in accesses.items()
                ]
                with suppress(Unavailable):
                    self._export(device, grown, began, ended)
            began, before = ended, after

    def _carried(self) -> Mapping[str, Mapping[str, tuple[str, float]]]:
        return {name: element.carried() for name, element in self._elements.items()}

    def traffic(self, device: str, seconds: float) -> str:
        """Export flow records of what the accesses of an element carry in so many seconds, both ways."""
        element, end = self._element(device), time.time()
        rates = element.rates()
        carried = [(address, seconds * rates.get(name, 0.0)) for name, (address, _) in element.carried().items()]
        return self._export(device, carried, end - seconds, end)

    def _export(self, device: str, carried: Iterable[tuple[str, float]], start: float, end: float) -> str:
        sampling = SAMPLING.get(device, 1)
        records = [
            {
                "source": source,
                "destination": destination,
                "octets": int(octets) // sampling,
                "packets": int(octets) // OCTETS_A_PACKET // sampling,
                "start": start,
                "end": end,
            }
            for customer, octets in carried
            if octets >= 1
            for source, destination in ((OUTSIDE, customer), (customer, OUTSIDE))
        ]
        if records:
            sent = exporter.exported(records, domain(device), self._exported[device], sampling)
            receiver = self._receivers().flow
            try:
                exporter.send(sent, receiver, address(device))
            except OSError:  # a system on which loopback has one address
                exporter.send(sent, receiver)
            self._exported[device] += len(records) + (len(sent) if sampling > 1 else 0)
        return f"{device} exported {len(records)} flow records (simulated)"

    async def _ifdown(self, element: Element, interface: str) -> str:
        return self._link(element, interface, up=False)

    async def _ifup(self, element: Element, interface: str) -> str:
        return self._link(element, interface, up=True)

    async def _hang(self, element: Element, interface: str) -> str:
        self._link(element, interface, up=False, hung=True)
        return f"{interface} of {element.name} hangs: it is down until it was switched off and on"

    async def _flap(self, element: Element, interface: str, turns: int = FLAPS) -> str:
        for _ in range(turns):
            self._link(element, interface, up=False)
            await asyncio.sleep(0.2)
            self._link(element, interface, up=True)
            await asyncio.sleep(0.2)
        return f"{interface} of {element.name} went down and up {turns} times, and is up"

    async def _refuse_commit(self, element: Element, interface: str) -> str:
        element.faults.append(Fault("refuse", "commit-confirmed", words="the element was told to refuse this commit"))
        return f"{element.name} refuses the next commit"

    async def _slow(self, element: Element, interface: str) -> str:
        element.latency = SLOW
        return f"{element.name} takes {SLOW:g} s for each call, until it is mended"

    async def _silent(self, element: Element, interface: str) -> str:
        element.silent = True
        return f"{element.name} answers nothing, by NETCONF and SNMP, until it is mended"

    async def _reboot(self, element: Element, interface: str) -> str:
        await self._agents[element.name].stop()
        await element.stop()
        await element.start()
        await self._agents[element.name].start()
        receivers = self._receivers()
        trapper.trap_cold_start(address(element.name), receivers.community, receivers.trap)
        return f"{element.name} restarted; its sessions are gone, and what was not confirmed is undone"

    async def _worse(self, element: Element, interface: str) -> str:
        element.worsen(interface)
        return f"the next change of {element.name} takes {interface} down, until what is there now is there again"

    async def _mend(self, element: Element, interface: str) -> str:
        element.mend()
        return f"{element.name} is as it should be"

    def _link(self, element: Element, interface: str, up: bool, hung: bool = False) -> str:
        """Take a link up or down; the element's agent sends the trap for it."""
        state = "up" if up else "down"
        before = element.link_is_up(interface)
        if element.ports()[interface].linked == up:
            return f"{interface} of {element.name} was {state} already"
        self._receivers()  # nothing is changed that nobody could hear of
        element.set_link(interface, up, hung)
        if element.link_is_up(interface) == before:
            return f"{interface} of {element.name} is switched off; its line is {state}"
        return f"{interface} of {element.name} is {state}"

    def _trap(self, name: str, interface: str, up: bool) -> None:
        """Send the trap that an agent sends when an interface goes up or down, whoever has it do so."""
        state: trapper.State = "up" if up else "down"
        index = self._elements[name].ports()[interface].index
        with suppress(Unavailable):
            receivers = self._receivers()
            trapper.trap_link(state, address(name), interface, index, receivers.community, receivers.trap)

    def _element(self, name: str) -> Element:
        if name not in self._elements:
            raise NotFound(f"the lab has no device {name}; it has {', '.join(self._elements)}")
        return self._elements[name]


FAULTS: Mapping[str, Callable[[Lab, Element, str], Awaitable[str]]] = {
    "ifdown": Lab._ifdown,
    "ifup": Lab._ifup,
    "hang": Lab._hang,
    "flap": Lab._flap,
    "refuse-commit": Lab._refuse_commit,
    "slow": Lab._slow,
    "silent": Lab._silent,
    "reboot": Lab._reboot,
    "worse": Lab._worse,
    "mend": Lab._mend,
}
ON_INTERFACES = frozenset({"ifdown", "ifup", "hang", "flap", "worse"})


def _nobody() -> Receivers:
    raise Unavailable("nobody receives the traps and flows of this lab")
