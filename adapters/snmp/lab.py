"""Senders of notifications, for the demo's simulated elements and for tests."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from typing import Literal

from convergedon.adapters.snmp import ber
from convergedon.core.errors import Unavailable

LINK_TRAPS = {"down": f"{ber.STANDARD_TRAPS}.3", "up": f"{ber.STANDARD_TRAPS}.4"}
IF_INDEX, IF_NAME = "1.3.6.1.2.1.2.2.1.1", "1.3.6.1.2.1.31.1.1.1.1"
IF_ADMIN, IF_OPER = "1.3.6.1.2.1.2.2.1.7", "1.3.6.1.2.1.2.2.1.8"
OPER_STATUS = {"up": 1, "down": 2}

State = Literal["up", "down"]


def trap_link(
    state: State,
    address: str,
    interface: str,
    index: int,
    community: str,
    to: tuple[str, int],
    version: Literal[1, 2] = 2,
) -> None:
    """Send linkUp or linkDown of an interface of the device with this address; nobody answers a trap."""
    with socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(link(state, address, interface, index, community, version), to)


def trap_cold_start(address: str, community: str, to: tuple[str, int]) -> None:
    """Send the trap of a device that has just started."""
    varbinds: list[ber.Varbind] = [
        (ber.UPTIME, ber.TICKS, 0),
        (ber.TRAP_OID, ber.OID, f"{ber.STANDARD_TRAPS}.1"),
        (ber.TRAP_ADDRESS, ber.IP, address),
    ]
    with socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(ber.encode(community.encode(), varbinds, request=secrets.randbelow(2**31)), to)


async def inform_link(
    state: State,
    address: str,
    interface: str,
    index: int,
    community: str,
    to: tuple[str, int],
    patience: float = 1.0,
    tries: int = 5,
) -> int:
    """Send linkUp or linkDown as an inform until it is answered; say at which try. Raises Unavailable."""
    datagram = link(state, address, interface, index, community, inform=True)
    expected = ber.answer(datagram, ber.decode(datagram))
    loop = asyncio.get_running_loop()
    transport, answers = await loop.create_datagram_endpoint(lambda: _Answers(expected), remote_addr=to)
    try:
        for count in range(1, tries + 1):
            transport.sendto(datagram)
            try:
                await asyncio.wait_for(asyncio.shield(answers.heard), patience)
                return count
            except TimeoutError:
                continue
    finally:
        transport.close()
    raise Unavailable(f"inform to {to[0]} port {to[1]} was not answered in {tries} tries")


def link(
    state: State,
    address: str,
    interface: str,
    index: int,
    community: str,
    version: Literal[1, 2] = 2,
    inform: bool = False,
) -> bytes:
    """The datagram of a linkUp or linkDown."""
    uptime = int(time.monotonic() * 100) & 0xFFFFFFFF
    interface_binds: list[ber.Varbind] = [
        (f"{IF_INDEX}.{index}", ber.INTEGER, index),
        (f"{IF_ADMIN}.{index}", ber.INTEGER, 1),
        (f"{IF_OPER}.{index}", ber.INTEGER, OPER_STATUS[state]),
        (f"{IF_NAME}.{index}", ber.OCTETS, interface.encode()),
    ]
    if version == 1:
        generic = {"down": 2, "up": 3}[state]
        return ber.encode_v1(community.encode(), ber.STANDARD_TRAPS, address, generic, 0, uptime, interface_binds)
    head: list[ber.Varbind] = [(ber.UPTIME, ber.TICKS, uptime), (ber.TRAP_OID, ber.OID, LINK_TRAPS[state])]
    tail: list[ber.Varbind] = [(ber.TRAP_ADDRESS, ber.IP, address)]
    request = secrets.randbelow(2**31)
    return ber.encode(community.encode(), head + interface_binds + tail, request=request, inform=inform)


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, expected: bytes) -> None:
        self.heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected = expected

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data == self._expected and not self.heard.done():
            self.heard.set_result(None)
