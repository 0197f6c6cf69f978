"""Datagrams in a capture, as tcpdump and Wireshark write it: pcap and pcapng, whichever way round their numbers are.

Ethernet with and without VLAN tags, cooked Linux captures (``-i any``), loopback and bare IP; IPv4 and IPv6. A file
that breaks off or is damaged is refused in a sentence; packets of no interest, and fragments, are passed over.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from struct import error as Short
from struct import unpack_from

from convergedon.core.errors import Invalid

PCAP = {
    b"\xd4\xc3\xb2\xa1": "<",
    b"\xa1\xb2\xc3\xd4": ">",
    b"\x4d\x3c\xb2\xa1": "<",
    b"\xa1\xb2\x3c\x4d": ">",
}
"""How a pcap begins (the latter two count nanoseconds), and the order of its bytes."""
PCAPNG = b"\x0a\x0d\x0d\x0a"
ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
INTERFACE, SIMPLE, ENHANCED = 1, 3, 6
LARGEST = 1 << 20
"""Bytes that a packet has at most: a length above that is damage."""
IPV4, IPV6 = 0x0800, 0x86DD
VLANS = frozenset({0x8100, 0x88A8, 0x9100})
MOST_VLANS = 4
UDP = 17
SKIPPED = frozenset({0, 43, 60, 135})
"""Headers of IPv6 that stand before the datagram: hop-by-hop, routing, destination options, mobility."""
NULL, ETHERNET, RAW, LOOP, COOKED, RAW_4, RAW_6, COOKED_2 = 0, 1, 101, 108, 113, 228, 229, 276


@dataclass(frozen=True)
class Captured:
    """A datagram: from whom, to which port, and what it says."""

    source: str
    port: int
    data: bytes


def is_capture(data: bytes) -> bool:
    return data[:4] in PCAP or data[:4] == PCAPNG


def datagrams(data: bytes, ports: Container[int]) -> Iterator[Captured]:
    """The UDP datagrams to these ports, in their order. Raises Invalid."""
    for link, packet in _packets(data):
        try:
            found = _datagram(link, packet)
        except (Short, IndexError, ValueError):
            continue  # it was cut when it was captured, or is damaged: it says nothing
        if found and found.port in ports:
            yield found


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each packet with the type of the link that it was seen on."""
    try:
        yield from _of_pcapng(data) if data[:4] == PCAPNG else _of_pcap(data)
    except Short:
        raise Invalid("the capture breaks off in the middle of a packet") from None


def _of_pcap(data: bytes) -> Iterator[tuple[int, bytes]]:
    order = PCAP[data[:4]]
    (link,) = unpack_from(f"{order}I", data, 20)
    link &= 0xFFFF  # above are the length of a checksum and more
    _require_known(link)
    at = 24
    while at < len(data):
        (size,) = unpack_from(f"{order}I", data, at + 8)
        yield link, _taken(data, at + 16, size)
        at += 16 + size


def _of_pcapng(data: bytes) -> Iterator[tuple[int, bytes]]:
    order, links, at = "<", list[int](), 0
    while at < len(data):
        if data[at : at + 4] == PCAPNG:
            order, links = _section(data, at), []
        kind, size = unpack_from(f"{order}II", data, at)
        if size < 12 or size % 4 or at + size > len(data):
            raise Invalid(f"the capture breaks off, or is damaged, at byte {at}")
        if kind == INTERFACE:
            links.append(unpack_from(f"{order}H", data, at + 8)[0])
            _require_known(links[-1])
        elif kind == ENHANCED:
            interface, _, _, length = unpack_from(f"{order}IIII", data, at + 8)
            yield _link(links, interface), _taken(data, at + 28, length, at + size)
        elif kind == SIMPLE:
            (length,) = unpack_from(f"{order}I", data, at + 8)
            yield _link(links, 0), _taken(data, at + 12, min(length, size - 16), at + size)
        at += size


def _section(data: bytes, at: int) -> str:
    """The order of the bytes of what follows."""
    try:
        return ORDERS[data[at + 8 : at + 12]]
    except KeyError:
        raise Invalid(f"the capture is damaged at byte {at}: the order of its bytes is not known") from None


def _link(links: list[int], interface: int) -> int:
    if interface >= len(links):
        raise Invalid(f"the capture is damaged: a packet is of interface {interface}, which it does not describe")
    return links[interface]


def _taken(data: bytes, at: int, size: int, end: int | None = None) -> bytes:
    if size > LARGEST or at + size > (len(data) if end is None else end):
        raise Invalid(f"the capture breaks off, or is damaged: {size} bytes at byte {at} are more than there is")
    return data[at : at + size]


def _require_known(link: int) -> None:
    if link not in (NULL, ETHERNET, RAW, LOOP, COOKED, RAW_4, RAW_6, COOKED_2):
        raise Invalid(f"the capture is of links of type {link}; Ethernet, cooked, loopback and bare IP can be read")


def _datagram(link: int, packet: bytes) -> Captured | None:
    """None for what is no datagram, or a part of one."""
    at = {NULL: 4, LOOP: 4, ETHERNET: 14, COOKED: 16, COOKED_2: 20}.get(link, 0)
    if link in (ETHERNET, COOKED, COOKED_2):
        (kind,) = unpack_from(">H", packet, {ETHERNET: 12, COOKED: 14, COOKED_2: 0}[link])
        for _ in range(MOST_VLANS):
            if kind in VLANS:
                (kind,) = unpack_from(">H", packet, at + 2)
                at += 4
        if kind not in (IPV4, IPV6):
            return None
    return _of_ipv4(packet, at) if packet[at] >> 4 == 4 else _of_ipv6(packet, at) if packet[at] >> 4 == 6 else None


def _of_ipv4(packet: bytes, at: int) -> Captured | None:
    length, fragment = unpack_from(">H2xH", packet, at + 2)
    if packet[at + 9] != UDP or fragment & 0x3FFF:
        return None
    return _of_udp(packet, at + 4 * (packet[at] & 15), at + length, packet[at + 12 : at + 16])


def _of_ipv6(packet: bytes, at: int) -> Captured | None:
    (length,) = unpack_from(">H", packet, at + 4)
    end, kind, source, at = at + 40 + length, packet[at + 6], packet[at + 8 : at + 24], at + 40
    while kind in SKIPPED and at < end:
        kind, at = packet[at], at + 8 * (packet[at + 1] + 1)
    return _of_udp(packet, at, end, source) if kind == UDP else None


def _of_udp(packet: bytes, at: int, end: int, source: bytes) -> Captured | None:
    _, port, length = unpack_from(">HHH", packet, at)
    # what the packet was padded with is none of it; of one that was cut nothing is said
    if length < 8 or at + length > end or end > len(packet):
        return None
    return Captured(str(ip_address(source)), port, packet[at + 8 : at + length])
