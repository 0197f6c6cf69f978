"""Simulated devices: each answers as a walk of a real one did, with counters that go on, and with habits of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from convergedon.adapters.snmp import ber

CAPTURES = Path(__file__).with_name("captures")
LINE = re.compile(r"^\.([\d.]+) = (STRING|Gauge32|Counter32|Counter64|Timeticks): (.*)$")
TAGS = {"STRING": ber.OCTETS, "Gauge32": ber.GAUGE, "Counter32": ber.COUNTER, "Counter64": ber.COUNTER64}
BULK, GET_NEXT = 0xA5, 0xA1
UPTIME = "1.3.6.1.2.1.1.3.0"
Bound = tuple[int, int | bytes]


def capture(name: str) -> dict[str, Bound]:
    """What `snmpbulkwalk -On` printed: OID -> tag and value."""
    found: dict[str, Bound] = {}
    for line in (CAPTURES / f"{name}.walk").read_text().splitlines():
        if match := LINE.match(line):
            oid, kind, text = match.groups()
            if kind == "STRING":
                found[oid] = (ber.OCTETS, text.strip('"').encode())
            elif kind == "Timeticks":
                found[oid] = (ber.TICKS, int(text[1 : text.index(")")]))
            else:
                found[oid] = (TAGS[kind], int(text))
    return found


def key(oid: str) -> tuple[int, ...]:
    return tuple(map(int, oid.split(".")))


class Agent(asyncio.DatagramProtocol):
    """``more`` is added to each counter and to the uptime for each reading of the uptime."""

    def __init__(self, values: Mapping[str, Bound], more: int = 1000) -> None:
        self.values = dict(values)
        self.order = sorted(values, key=key)
        self.more, self.silent, self.circles, self.onward, self.asked = more, False, False, False, 0
        self.change: Callable[[], None] = lambda: None

    async def start(self) -> int:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        return int(self.transport.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self.silent:
            self.transport.sendto(self._answer(data), addr)

    def _answer(self, data: bytes) -> bytes:
        at, end = ber.enter(data, 0, len(data), ber.SEQUENCE, "message")
        _, at = ber.integer(data, at, end, "version")
        start, at = ber.enter(data, at, end, ber.OCTETS, "community")
        community = data[start:at]
        body, close = ber.enter(data, at, end, BULK, "PDU")
        request, body = ber.integer(data, body, close, "request")
        _, body = ber.integer(data, body, close, "non-repeaters")
        most, body = ber.integer(data, body, close, "repetitions")
        asked = [name for name, _, _ in ber.varbinds(data, body, close)]
        if asked[0] == UPTIME.removesuffix(".0"):
            self._go_on()
        told: list[bytes] = []
        for _ in range(most):
            asked = [self._next(oid) for oid in asked]
            told += [self._bound(oid) for oid in asked]
        pdu = ber.write(ber.INTEGER, request) + 2 * ber.write(ber.INTEGER, 0)
        pdu += ber.tlv(ber.SEQUENCE, b"".join(told))
        head = ber.write(ber.INTEGER, 1) + ber.write(ber.OCTETS, community)
        return ber.tlv(ber.SEQUENCE, head + ber.tlv(ber.RESPONSE, pdu))

    def _go_on(self) -> None:
        self.asked += 1
        for oid, (tag, value) in self.values.items():
            if tag in (ber.COUNTER, ber.COUNTER64, ber.TICKS) and isinstance(value, int) and value:
                self.values[oid] = (tag, (value + self.more) % (1 << (64 if tag == ber.COUNTER64 else 32)))
        self.change()

    def _next(self, oid: str) -> str:
        if self.circles:
            return self.order[0]
        if self.onward:
            return f"{oid}.1" if oid.count(".") < 12 else f"{oid.rpartition('.')[0]}.{key(oid)[-1] + 1}"
        wanted = key(oid)
        return next((each for each in self.order if key(each) > wanted), "1.3.9")

    def _bound(self, oid: str) -> bytes:
        tag, value = self.values.get(oid, (ber.INTEGER, 1) if self.onward else (ber.END_OF_VIEW, None))
        return ber.tlv(ber.SEQUENCE, ber.write(ber.OID, oid) + ber.write(tag, value))
