"""An SNMP agent to learn and to test with: it answers get, get-next, get-bulk and set of versions 1, 2c and 3.

What it has is handed in (``Objects``): a recording of a real device, or a simulated element. It listens on loopback,
believes communities and users, and is slow or silent when it is told to be.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from convergedon.adapters.snmp import ber, usm
from convergedon.core.errors import Misconfigured

GET, NEXT, SET, BULK = 0xA0, 0xA1, 0xA3, 0xA5
READING, WRITING = (GET, NEXT, BULK), (SET,)
STATUSES = (
    "noError",
    "tooBig",
    "noSuchName",
    "badValue",
    "readOnly",
    "genErr",
    "noAccess",
    "wrongType",
    "wrongLength",
    "wrongEncoding",
    "wrongValue",
    "noCreation",
    "inconsistentValue",
    "resourceUnavailable",
    "commitFailed",
    "undoFailed",
    "authorizationError",
    "notWritable",
    "inconsistentName",
)
OF_VERSION_1 = {"noAccess": "noSuchName", "notWritable": "noSuchName", "noCreation": "noSuchName"}
"""What version 1 says instead (RFC 3584 4.4); for all other words that it does not have it says badValue."""
LARGEST = 1_472
"""Bytes of an answer: what an Ethernet frame takes without being cut."""
ENGINE = bytes.fromhex("80007ed905")

Name = tuple[int, ...]
Bound = tuple[int, ber.Value]
"""The tag of a value, and the value."""


class Objects(Protocol):
    """What an agent has, by the names of instances."""

    def names(self) -> Sequence[Name]:
        """All there are, in their order."""
        ...

    def value(self, name: Name) -> Bound | None: ...

    def fault(self, name: Name, bound: Bound) -> str:
        """Why it cannot be set to that: one of STATUSES, or empty."""
        ...

    def put(self, name: Name, bound: Bound) -> None: ...


@dataclass(frozen=True)
class Access:
    """Who may ask, and who may also set: communities, and names of users."""

    communities: Iterable[bytes] = (b"public",)
    users: Sequence[usm.User] = ()
    writers: frozenset[bytes] = frozenset()


@dataclass
class Request:
    """A request as it came: its PDU's tag, and the two numbers that mean something else for get-bulk."""

    version: int
    tag: int
    id: int
    first: int
    second: int
    names: list[str]
    varbinds: tuple[ber.Varbind, ...] = field(default=())


class Refused(Exception):
    """What is answered with a status, and the place of the variable that it is about."""

    def __init__(self, status: str, place: int) -> None:
        super().__init__(status)
        self.status, self.place = status, place


class Agent(asyncio.DatagramProtocol):
    """Listens on 127.0.0.1. ``asked`` counts what came by the kind of its PDU."""

    def __init__(self, objects: Objects, access: Access = Access(), engine: usm.Engine | None = None) -> None:
        self.objects, self._access = objects, access
        self._gate = usm.Usm(access.users, engine or usm.Engine(ENGINE + b"agent", 1))
        self.silent, self.latency = False, 0.0
        self.asked: Counter[int] = Counter()
        self._transport: asyncio.DatagramTransport | None = None
        self._closed = asyncio.Event()

    async def start(self, port: int = 0) -> int:
        """The port. Raises Misconfigured when it is taken."""
        loop = asyncio.get_running_loop()
        self._closed.clear()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", port))
        except OSError as error:
            raise Misconfigured(f"UDP port {port} on 127.0.0.1 is taken") from error
        self.port = int(self._transport.get_extra_info("sockname")[1])
        return self.port

    async def stop(self) -> None:
        """The port is free when it returns."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
            await self._closed.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self.silent and (answer := self.answer(data)):
            asyncio.get_running_loop().call_later(self.latency, self._send, answer, addr)

    def _send(self, answer: bytes, addr: Any) -> None:
        if self._transport is not None:
            self._transport.sendto(answer, addr)

    def answer(self, data: bytes) -> bytes | None:
        """What is answered to a datagram; nothing to who is not believed."""
        try:
            at, end = ber.enter(data, 0, len(data), ber.SEQUENCE, "message")
            version, at = ber.integer(data, at, end, "version")
            if version == usm.VERSION:
                return self._secured(data)
            start, at = ber.enter(data, at, end, ber.OCTETS, "community")
            community = data[start:at]
            if version not in (0, 1) or community not in set(self._access.communities):
                return None
            head = ber.write(ber.INTEGER, version) + ber.write(ber.OCTETS, community)
            told = self._answered(data, at, end, version + 1, community in self._access.writers)
            return ber.tlv(ber.SEQUENCE, head + told)
        except (ber.Unreadable, IndexError):
            return None

    def _secured(self, data: bytes) -> bytes | None:
        try:
            opened = self._gate.open(data, (*READING, *WRITING))
        except usm.Refused as error:
            return error.report
        may_set = opened.user.name.encode() in self._access.writers
        told = self._answered(opened.scoped, opened.tag, len(opened.scoped), 3, may_set)
        return self._gate.reply(opened, told)

    def _answered(self, data: bytes, at: int, end: int, version: int, may_set: bool) -> bytes:
        """The PDU of the response to the one that begins at ``at``."""
        request = _request(data, at, end, version)
        self.asked[request.tag] += 1
        try:
            found, status, place = self._done(request, may_set), "noError", 0
        except Refused as error:
            # of a refused request version 1 and 2 repeat what was asked
            found, status, place = list(request.varbinds), error.status, error.place
        if version == 1 and STATUSES.index(status) > STATUSES.index("genErr"):
            status = OF_VERSION_1.get(status, "badValue")
        response = _response(request.id, status, place, found)
        if len(response) <= LARGEST:
            return response
        if request.tag != BULK:
            return _response(request.id, "tooBig", 0, [])
        while len(response) > LARGEST:
            found = found[: -max(1, len(found) // 20)]
            response = _response(request.id, "noError", 0, found)
        return response

    def _done(self, request: Request, may_set: bool) -> list[ber.Varbind]:
        if request.tag == SET:
            return self._set(request, may_set)
        if request.tag == GET:
            return [self._got(name, request.version, place) for place, name in enumerate(request.names, 1)]
        names = self.objects.names()
        if request.tag == NEXT:
            return [self._next(names, name, request.version, place) for place, name in enumerate(request.names, 1)]
        return self._bulk(request, names)

    def _got(self, name: str, version: int, place: int) -> ber.Varbind:
        bound = self.objects.value(_name(name))
        if bound and not (version == 1 and bound[0] == ber.COUNTER64):
            return name, *bound
        if version == 1:
            raise Refused("noSuchName", place)
        return name, ber.NO_INSTANCE, None

    def _next(self, names: Sequence[Name], name: str, version: int, place: int) -> ber.Varbind:
        for found in names[bisect_right(names, _name(name)) :]:
            bound = self.objects.value(found)
            if bound and not (version == 1 and bound[0] == ber.COUNTER64):
                return ".".join(map(str, found)), *bound
        if version == 1:
            raise Refused("noSuchName", place)
        return name, ber.END_OF_VIEW, None

    def _bulk(self, request: Request, names: Sequence[Name]) -> list[ber.Varbind]:
        once, rows = max(0, request.first), max(0, request.second)
        found = [self._next(names, name, 2, 0) for name in request.names[:once]]
        asked, size = request.names[once:], 0
        for _ in range(rows if asked else 0):
            row = [self._next(names, name, 2, 0) for name in asked]
            found += row
            size += sum(len(_varbind(one)) for one in row)
            if size > LARGEST or all(tag == ber.END_OF_VIEW for _, tag, _ in row):
                break
            asked = [name for name, _, _ in row]
        return found

    def _set(self, request: Request, may_set: bool) -> list[ber.Varbind]:
        """All of them, or none."""
        if not may_set:
            raise Refused("noAccess", 1)
        wanted = [(_name(name), (tag, value)) for name, tag, value in request.varbinds]
        for place, (name, bound) in enumerate(wanted, 1):
            if fault := self.objects.fault(name, bound):
                raise Refused(fault, place)
        for name, bound in wanted:
            self.objects.put(name, bound)
        return list(request.varbinds)


def _request(data: bytes, at: int, end: int, version: int) -> Request:
    tag = data[at]
    if tag not in (*READING, *WRITING) or (version == 1 and tag == BULK):
        raise ber.Unreadable(f"PDU type 0x{tag:02x} is no request", "pdu")
    body, close = ber.enter(data, at, end, tag, "PDU")
    id, body = ber.integer(data, body, close, "request-id")
    first, body = ber.integer(data, body, close, "error-status")
    second, body = ber.integer(data, body, close, "error-index")
    varbinds = ber.varbinds(data, body, close)
    return Request(version, tag, id, first, second, [name for name, _, _ in varbinds], varbinds)


def _response(id: int, status: str, place: int, found: Iterable[ber.Varbind]) -> bytes:
    numbers = ber.write(ber.INTEGER, id) + ber.write(ber.INTEGER, STATUSES.index(status))
    listed = b"".join(map(_varbind, found))
    return ber.tlv(ber.RESPONSE, numbers + ber.write(ber.INTEGER, place) + ber.tlv(ber.SEQUENCE, listed))


def _varbind(one: ber.Varbind) -> bytes:
    name, tag, value = one
    return ber.tlv(ber.SEQUENCE, ber.write(ber.OID, name) + ber.write(tag, value))


def _name(oid: str) -> Name:
    return tuple(map(int, oid.split(".")))


SETTABLE: Mapping[Name, tuple[int, range]] = {
    (1, 3, 6, 1, 2, 1, 1, 4): (ber.OCTETS, range(256)),
    (1, 3, 6, 1, 2, 1, 1, 5): (ber.OCTETS, range(256)),
    (1, 3, 6, 1, 2, 1, 1, 6): (ber.OCTETS, range(256)),
    (1, 3, 6, 1, 2, 1, 2, 2, 1, 7): (ber.INTEGER, range(1, 4)),
    (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 18): (ber.OCTETS, range(65)),
}
"""What can be set on a simulated device: sysContact, sysName, sysLocation, ifAdminStatus and ifAlias, with the type of
each and the values, or the lengths, that it takes."""


def fault(objects: Objects, name: Name, bound: Bound) -> str:
    """Why a simulated device does not take a value."""
    if objects.value(name) is None:
        return "noCreation"
    if name[:-1] not in SETTABLE:
        return "notWritable"
    tag, takes = SETTABLE[name[:-1]]
    if bound[0] != tag:
        return "wrongType"
    value = bound[1]
    if isinstance(value, bytes):
        return "" if len(value) in takes else "wrongLength"
    return "" if value in takes else "wrongValue"
