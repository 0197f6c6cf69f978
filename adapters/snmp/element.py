"""What an agent of a lab element has: its system group and its interfaces (IF-MIB), as they are at the moment.

The counters are those of the element's ports, so that SNMP, NETCONF and flow records of the same seconds say the same.
An interface is switched off and on by ifAdminStatus, and labelled by ifAlias.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from convergedon.adapters.labports import Port
from convergedon.adapters.snmp import agent, ber, recording
from convergedon.core.errors import Misconfigured

SYSTEM, IF, IF_X = (1, 3, 6, 1, 2, 1, 1), (1, 3, 6, 1, 2, 1, 2, 2, 1), (1, 3, 6, 1, 2, 1, 31, 1, 1, 1)
IF_NUMBER = (1, 3, 6, 1, 2, 1, 2, 1, 0)
ADMIN, ALIAS = (*IF, 7), (*IF_X, 18)
UP, DOWN = 1, 2
POLLED = 60
"""Seconds between two polls of a lab element."""
ETHERNET, MTU = 6, 1500
SMALL = 1 << 32
FASTEST = SMALL - 1
"""What ifSpeed says of all that is faster (RFC 2863 3.1.15)."""
OURS = "1.3.6.1.4.1.8072.3.2.255"
"""sysObjectID: an unknown system."""


class Element(Protocol):
    """What is asked of an element of the lab."""

    name: str
    silent: bool
    latency: float

    @property
    def booted(self) -> float: ...

    def ports(self) -> Mapping[str, Port]: ...

    def enable(self, interface: str, enabled: bool) -> None: ...


class SimulatedAgent:
    """The agent of an element or of a recorded device: on the same port, by the same community, after every start."""

    def __init__(self, folder: Path, make: Callable[[agent.Access], agent.Agent]) -> None:
        self._folder, self._make = folder, make
        self._agent: agent.Agent | None = None
        self._community = ""

    async def start(self) -> None:
        """Listen; the port is the one it had before, or a free one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        kept = self._folder / "snmp.json"
        said = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        self._community = said.get("community") or secrets.token_urlsafe(12)
        access = agent.Access((self._community.encode(),), writers=frozenset({self._community.encode()}))
        self._agent = self._make(access)
        try:
            port = await self._agent.start(said.get("port", 0))
        except Misconfigured:
            port = await self._agent.start()
        kept.touch(mode=0o600)
        kept.write_text(json.dumps({"port": port, "community": self._community}), encoding="utf-8")

    async def stop(self) -> None:
        if self._agent:
            await self._agent.stop()

    def device_entry(self) -> dict[str, Any]:
        """How it is asked, as a part of the devices file."""
        port = self._agent.port if self._agent else 0
        reach = {"host": "127.0.0.1", "port": port, "community": self._community}
        return {**reach, "set": True, "poll": {"interval": POLLED}}


def of_element(element: Element, folder: Path) -> SimulatedAgent:
    """As slow and as silent as the element is."""
    objects = ElementObjects(element)
    return SimulatedAgent(folder, lambda access: ElementAgent(element, objects, access))


def of_recording(file: Path, folder: Path) -> SimulatedAgent:
    """A recorded device that goes on. Raises Misconfigured."""
    objects = recording.Recording(recording.read(file))
    return SimulatedAgent(folder, lambda access: agent.Agent(objects, access))


class ElementAgent(agent.Agent):
    """Every answer is of one moment."""

    def __init__(self, element: Element, objects: ElementObjects, access: agent.Access) -> None:
        super().__init__(objects, access)
        self._element, self._elements_objects = element, objects

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.silent, self.latency = self._element.silent, self._element.latency
        self._elements_objects.look()
        super().datagram_received(data, addr)


class ElementObjects:
    """The objects of one element. What is written into system and ifAlias is remembered until the lab ends."""

    def __init__(self, element: Element) -> None:
        self._element = element
        self._system = {4: b"", 5: element.name.encode(), 6: b""}
        self._aliases: dict[int, bytes] = {}
        self.look()

    def look(self) -> None:
        """How it is now; what is asked is answered from that."""
        self._seen = self._all()
        self._order = sorted(self._seen)

    def names(self) -> Sequence[agent.Name]:
        return self._order

    def value(self, name: agent.Name) -> agent.Bound | None:
        return self._seen.get(name)

    def fault(self, name: agent.Name, bound: agent.Bound) -> str:
        return agent.fault(self, name, bound)

    def put(self, name: agent.Name, bound: agent.Bound) -> None:
        value = bound[1]
        if name[:-1] == ADMIN:
            port = next(port for port in self._element.ports().values() if port.index == name[-1])
            self._element.enable(port.name, value == UP)
        elif isinstance(value, bytes):
            if name[:-1] == ALIAS:
                self._aliases[name[-1]] = value
            else:
                self._system[name[-2]] = value

    def _all(self) -> dict[agent.Name, agent.Bound]:
        uptime = int(100 * (time.monotonic() - self._element.booted)) % SMALL
        ports = self._element.ports()
        found: dict[agent.Name, agent.Bound] = {
            (*SYSTEM, 1, 0): (ber.OCTETS, b"ConvergedON lab element (simulated)"),
            (*SYSTEM, 2, 0): (ber.OID, OURS),
            (*SYSTEM, 3, 0): (ber.TICKS, uptime),
            **{(*SYSTEM, column, 0): (ber.OCTETS, text) for column, text in self._system.items()},
            (*SYSTEM, 7, 0): (ber.INTEGER, 76),
            IF_NUMBER: (ber.INTEGER, len(ports)),
        }
        for port in ports.values():
            found |= {(*IF, column, port.index): bound for column, bound in _entry(port).items()}
            found |= {(*IF_X, column, port.index): bound for column, bound in self._extended(port).items()}
        return found

    def _extended(self, port: Port) -> dict[int, agent.Bound]:
        """A row of ifXTable."""
        octets, packets = int(port.octets), port.packets
        return {
            1: (ber.OCTETS, port.name.encode()),
            6: (ber.COUNTER64, octets),
            7: (ber.COUNTER64, packets),
            8: (ber.COUNTER64, 0),
            9: (ber.COUNTER64, 0),
            10: (ber.COUNTER64, octets),
            11: (ber.COUNTER64, packets),
            12: (ber.COUNTER64, 0),
            13: (ber.COUNTER64, 0),
            14: (ber.INTEGER, 1),
            15: (ber.GAUGE, port.capacity),
            17: (ber.INTEGER, 1),
            18: (ber.OCTETS, self._aliases.get(port.index, b"")),
            19: (ber.TICKS, 0),
        }


def _entry(port: Port) -> dict[int, agent.Bound]:
    """A row of ifTable."""
    octets, packets = int(port.octets) % SMALL, port.packets % SMALL
    return {
        1: (ber.INTEGER, port.index),
        2: (ber.OCTETS, port.name.encode()),
        3: (ber.INTEGER, ETHERNET),
        4: (ber.INTEGER, MTU),
        5: (ber.GAUGE, min(1_000_000 * port.capacity, FASTEST)),
        7: (ber.INTEGER, UP if port.enabled else DOWN),
        8: (ber.INTEGER, UP if port.up else DOWN),
        9: (ber.TICKS, int(100 * port.changed) % SMALL),
        10: (ber.COUNTER, octets),
        11: (ber.COUNTER, packets),
        16: (ber.COUNTER, octets),
        17: (ber.COUNTER, packets),
    }
