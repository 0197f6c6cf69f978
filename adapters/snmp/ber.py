"""SNMP version 1 and 2c notifications to and from bytes (BER, the subset that RFC 3416 and RFC 1157 use).

The reader is strict and flat: it walks the datagram once by index, so that nothing a sender writes can make it recurse
or loop; whatever is not a well-formed notification raises ``Unreadable``. The writer serves the lab and the tests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Literal

from convergedon.core.errors import Invalid

INTEGER, OCTETS, NULL, OID, SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30
IP, COUNTER, GAUGE, TICKS, OPAQUE, COUNTER64 = 0x40, 0x41, 0x42, 0x43, 0x44, 0x46
NO_OBJECT, NO_INSTANCE, END_OF_VIEW = 0x80, 0x81, 0x82
RESPONSE, TRAP_V1, INFORM, TRAP = 0xA2, 0xA4, 0xA6, 0xA7

UPTIME = "1.3.6.1.2.1.1.3.0"
TRAP_OID = "1.3.6.1.6.3.1.1.4.1.0"
TRAP_ENTERPRISE = "1.3.6.1.6.3.1.1.4.3.0"
TRAP_ADDRESS = "1.3.6.1.6.3.18.1.3.0"
TRAP_COMMUNITY = "1.3.6.1.6.3.18.1.4.0"
STANDARD_TRAPS = "1.3.6.1.6.3.1.1.5"

# 128 sub-identifiers of at most five bytes (RFC 3416 4.1)
LONGEST_OID = 128 * 5
PEEKED = bytes.fromhex("060a2b060106030101040100")
"""snmpTrapOID.0 as a varbind's name."""
LARGEST_ARC = 0xFFFFFFFF
UNSIGNED = {COUNTER: 5, GAUGE: 5, TICKS: 5, COUNTER64: 9}
EMPTY = {NULL: "null", NO_OBJECT: "noSuchObject", NO_INSTANCE: "noSuchInstance", END_OF_VIEW: "endOfMibView"}

Value = int | bytes | str | None
Varbind = tuple[str, int, Value]
"""An OID, the tag of its value, and the value: int, bytes (OCTETS, OPAQUE), dotted text (OID, IP) or None."""


class Unreadable(Invalid):
    """A datagram that is no notification of version 1 or 2c; ``drop`` is the reason under which it is counted."""

    def __init__(self, sentence: str, drop: Literal["malformed", "version", "pdu"] = "malformed") -> None:
        super().__init__(sentence)
        self.drop = drop


@dataclass(frozen=True, slots=True)
class Notification:
    """A trap or inform. ``oid`` says which; ``pdu`` is where the tag of its PDU stands in the datagram, of
    version 3 in what that protects.
    """

    version: Literal[1, 2, 3]
    community: bytes
    inform: bool
    request: int
    oid: str
    varbinds: tuple[Varbind, ...]
    pdu: int

    def first(self, oid: str) -> Value:
        return next((value for name, _, value in self.varbinds if name == oid), None)


def decode(datagram: bytes) -> Notification:
    """Read a trap or inform; a version 1 trap comes back as RFC 3584 3.1 translates it. Raises Unreadable."""
    try:
        return _message(datagram)
    except IndexError:
        raise Unreadable("the datagram ends in the middle of a value") from None


def answer(datagram: bytes, notification: Notification) -> bytes:
    """The response to an inform is the inform with another PDU tag (RFC 3416 4.2.7)."""
    return datagram[: notification.pdu] + bytes((RESPONSE,)) + datagram[notification.pdu + 1 :]


def peek(datagram: bytes) -> str:
    """Which notification a datagram seems to be, for counting what there is no time to read; empty where unclear."""
    at = datagram.find(PEEKED)
    if at < 0:
        return ""
    at += len(PEEKED)
    with contextlib.suppress(IndexError, Unreadable):
        start, at = enter(datagram, at, len(datagram), OID, "value")
        return _oid(datagram[start:at])
    return ""


def text(tag: int, value: Value) -> str:
    """A value as a person reads it: printable octets as text, others as 0x and hexadecimal digits."""
    if isinstance(value, bytes):
        return _octets(value) if tag == OCTETS else "0x" + value.hex()
    return EMPTY.get(tag, "") if value is None else str(value)


def _octets(value: bytes) -> str:
    try:
        words = value.decode()
    except UnicodeDecodeError:
        return "0x" + value.hex()
    words = words.rstrip("\0")
    return words if all(letter.isprintable() or letter in "\t\r\n" for letter in words) else "0x" + value.hex()


def _message(data: bytes) -> Notification:
    at, end = enter(data, 0, len(data), SEQUENCE, "message")
    if end != len(data):
        raise Unreadable(f"{len(data) - end} bytes follow the message")
    version, at = integer(data, at, end, "version")
    if version not in (0, 1):
        raise Unreadable(f"version field {version} is neither 1 nor 2c", "version")
    start, at = enter(data, at, end, OCTETS, "community")
    community = data[start:at]
    tag = data[at]
    if at >= end or tag not in ((TRAP_V1,) if version == 0 else (INFORM, TRAP)):
        raise Unreadable(f"PDU type 0x{tag:02x} is no notification of version {'2c' if version else '1'}", "pdu")
    body, close = enter(data, at, end, tag, "PDU")
    if close != end:
        raise Unreadable(f"{end - close} bytes follow the PDU")
    if version == 0:
        return _trap_v1(data, body, close, community, at)
    return pdu(data, body, close, 2, community, at)


def pdu(data: bytes, at: int, end: int, version: Literal[2, 3], community: bytes, tag: int) -> Notification:
    """The notification in a version 2 PDU whose contents begin at ``at``; its tag stands at ``tag``."""
    request, at = integer(data, at, end, "request-id")
    _, at = integer(data, at, end, "error-status")
    _, at = integer(data, at, end, "error-index")
    found = varbinds(data, at, end)
    for name, kind, value in found:
        if name == TRAP_OID and kind == OID:
            return Notification(version, community, data[tag] == INFORM, request, str(value), found, tag)
    raise Unreadable("the notification does not say which it is (no snmpTrapOID.0)")


def _trap_v1(data: bytes, at: int, end: int, community: bytes, tag: int) -> Notification:
    start, at = enter(data, at, end, OID, "enterprise")
    enterprise = _oid(data[start:at])
    start, at = enter(data, at, end, IP, "agent-addr")
    agent = _address(data[start:at])
    generic, at = integer(data, at, end, "generic-trap")
    specific, at = integer(data, at, end, "specific-trap")
    start, at = enter(data, at, end, TICKS, "time-stamp")
    uptime = _unsigned(data[start:at], TICKS)
    if not 0 <= generic <= 6 or specific < 0:
        raise Unreadable(f"generic-trap {generic} with specific-trap {specific} is not defined")
    oid = f"{STANDARD_TRAPS}.{generic + 1}" if generic < 6 else f"{enterprise}.0.{specific}"
    found = list(varbinds(data, at, end))
    named = {name for name, _, _ in found}
    # RFC 3584 3.1 (4): what the version 2 form has no field for follows as varbinds, unless a proxy added it already.
    # 0.0.0.0 is an agent that does not know its address; the community is a secret and is left out.
    if agent != "0.0.0.0" and TRAP_ADDRESS not in named:
        found.append((TRAP_ADDRESS, IP, agent))
    if TRAP_ENTERPRISE not in named:
        found.append((TRAP_ENTERPRISE, OID, enterprise))
    translated: tuple[Varbind, ...] = ((UPTIME, TICKS, uptime), (TRAP_OID, OID, oid), *found)
    return Notification(1, community, False, 0, oid, translated, tag)


def varbinds(data: bytes, at: int, end: int) -> tuple[Varbind, ...]:
    """The variable bindings that fill ``data`` from ``at`` to ``end``."""
    at, close = enter(data, at, end, SEQUENCE, "variable bindings")
    if close != end:
        raise Unreadable(f"{end - close} bytes follow the variable bindings")
    found: list[Varbind] = []
    while at < end:
        at, close = enter(data, at, end, SEQUENCE, "variable binding")
        start, at = enter(data, at, close, OID, "name of a variable binding")
        name = _oid(data[start:at])
        tag = data[at]
        start, at = enter(data, at, close, tag, "value of a variable binding")
        if at != close:
            raise Unreadable(f"{close - at} bytes follow the value of {name}")
        found.append((name, tag, _value(tag, data[start:at])))
    return tuple(found)


def enter(data: bytes, at: int, end: int, tag: int, what: str) -> tuple[int, int]:
    """Where the contents of the element at ``at`` begin and end; it must have the tag and lie before ``end``."""
    # nearly every element of a notification: the rest says what is wrong, or reads the long form
    if at < end and data[at] == tag and (length := data[at + 1]) < 0x80 and at + 2 + length <= end:
        return at + 2, at + 2 + length
    return _enter(data, at, end, tag, what)


def _enter(data: bytes, at: int, end: int, tag: int, what: str) -> tuple[int, int]:
    if at >= end:
        raise Unreadable(f"the {what} is missing")
    if data[at] != tag:
        raise Unreadable(f"the {what} has tag 0x{data[at]:02x} instead of 0x{tag:02x}")
    length = data[at + 1]
    at += 2
    if length & 0x80:
        # net-snmp writes long forms where short ones would do, so they are read; no length needs more than four bytes
        size = length & 0x7F
        if not 1 <= size <= 4 or at + size > end:
            raise Unreadable(f"the {what} has a length of unknown form")
        length = int.from_bytes(data[at : at + size], "big")
        at += size
    if at + length > end:
        raise Unreadable(f"the {what} is longer than what holds it")
    return at, at + length


def integer(data: bytes, at: int, end: int, what: str) -> tuple[int, int]:
    """The integer at ``at``, and where it ends."""
    start, at = enter(data, at, end, INTEGER, what)
    return _signed(data[start:at]), at


def _signed(raw: bytes) -> int:
    if not 1 <= len(raw) <= 4:
        raise Unreadable(f"an integer has {len(raw)} bytes")
    return int.from_bytes(raw, "big", signed=True)


def _unsigned(raw: bytes, tag: int) -> int:
    longest = UNSIGNED[tag]
    # Four bytes with the top bit set are negative by the letter; devices mean the unsigned number, and so do we
    if not 1 <= len(raw) <= longest or (len(raw) == longest and raw[0]):
        raise Unreadable(f"a counter, gauge or time has {len(raw)} bytes and does not fit its type")
    return int.from_bytes(raw, "big")


def _address(raw: bytes) -> str:
    if len(raw) != 4:
        raise Unreadable(f"an IpAddress has {len(raw)} bytes")
    return ".".join(map(str, raw))


def _value(tag: int, raw: bytes) -> Value:
    if tag in (OCTETS, OPAQUE):
        return raw
    if tag == INTEGER:
        return _signed(raw)
    if tag == OID:
        return _oid(raw)
    if tag in UNSIGNED:
        return _unsigned(raw, tag)
    if tag == IP:
        return _address(raw)
    if tag in EMPTY and not raw:
        return None
    raise Unreadable(f"a value has tag 0x{tag:02x} with {len(raw)} bytes")


def _oid(raw: bytes) -> str:
    if not 1 <= len(raw) <= LONGEST_OID:
        raise Unreadable(f"an object identifier has {len(raw)} bytes")
    return _dotted(raw)


@lru_cache(maxsize=8192)
def _dotted(raw: bytes) -> str:
    """Remembered, because a device sends the same few names over and over."""
    if raw[-1] & 0x80:
        raise Unreadable("an object identifier ends in the middle of a number")
    arcs: list[int] = []
    arc = 0
    for byte in raw:
        if byte == 0x80 and not arc:
            raise Unreadable("an object identifier has a padded number")
        arc = arc << 7 | byte & 0x7F
        if byte < 0x80:
            # X.690 8.19.4 folds the first two arcs into one number, which may exceed 32 bits by the 80 of the fold
            if arc > LARGEST_ARC + (0 if arcs else 80):
                raise Unreadable("an object identifier has a number of more than 32 bits")
            arcs.append(arc)
            arc = 0
    if len(arcs) > 127:
        raise Unreadable(f"an object identifier has {len(arcs) + 1} numbers")
    top = min(arcs[0] // 40, 2)
    return ".".join(map(str, (top, arcs[0] - 40 * top, *arcs[1:])))


def encode(community: bytes, varbinds: Iterable[Varbind], *, request: int, inform: bool = False) -> bytes:
    """A version 2c trap or inform; the varbinds should begin with sysUpTime.0 and snmpTrapOID.0."""
    listed = b"".join(tlv(SEQUENCE, tlv(OID, _arcs(name)) + write(tag, value)) for name, tag, value in varbinds)
    head = write(INTEGER, request) + write(INTEGER, 0) + write(INTEGER, 0)
    pdu = tlv(INFORM if inform else TRAP, head + tlv(SEQUENCE, listed))
    return tlv(SEQUENCE, write(INTEGER, 1) + write(OCTETS, community) + pdu)


def encode_v1(
    community: bytes, enterprise: str, agent: str, generic: int, specific: int, uptime: int, varbinds: Iterable[Varbind]
) -> bytes:
    """A version 1 Trap-PDU."""
    listed = b"".join(tlv(SEQUENCE, tlv(OID, _arcs(name)) + write(tag, value)) for name, tag, value in varbinds)
    fields = write(OID, enterprise) + write(IP, agent) + write(INTEGER, generic) + write(INTEGER, specific)
    pdu = tlv(TRAP_V1, fields + write(TICKS, uptime) + tlv(SEQUENCE, listed))
    return tlv(SEQUENCE, write(INTEGER, 0) + write(OCTETS, community) + pdu)


def write(tag: int, value: Value) -> bytes:
    """One value with its tag and length."""
    if isinstance(value, int):
        return tlv(tag, value.to_bytes((value if value >= 0 else ~value).bit_length() // 8 + 1, "big", signed=True))
    if isinstance(value, str):
        return tlv(tag, IPv4Address(value).packed if tag == IP else _arcs(value))
    return tlv(tag, value or b"")


def tlv(tag: int, contents: bytes) -> bytes:
    """An element with its tag and length."""
    size = len(contents)
    if size < 0x80:
        return bytes((tag, size)) + contents
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + contents


def _arcs(oid: str) -> bytes:
    first, second, *rest = (int(arc) for arc in oid.split("."))
    return b"".join(_arc(arc) for arc in (40 * first + second, *rest))


def _arc(arc: int) -> bytes:
    septets = [arc & 0x7F]
    while arc := arc >> 7:
        septets.append(arc & 0x7F | 0x80)
    return bytes(reversed(septets))
