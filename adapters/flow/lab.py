"""An exporter of flow records, for the demo's simulated elements and for tests: NetFlow 9 and IPFIX.

Records are as the contract words them: source, destination, octets, packets, start and end.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Literal

Record = Mapping[str, Any]
Kind = Literal[9, 10]

# Template number -> its addresses' information elements and their size, by the version of IP
ADDRESSES = {4: (256, 8, 12, 4), 6: (257, 27, 28, 16)}
COUNTS = ((1, 8), (2, 8))
TIMES = {9: ((22, 4), (21, 4)), 10: ((152, 8), (153, 8))}
TEMPLATE_SET = {9: 0, 10: 2}
RECORDS_EACH = 24
SAMPLER, SYSTEMATIC = 300, 1
"""The number of the option's template, and the algorithm that it names (RFC 5477: by count)."""


def netflow9(
    records: Sequence[Record], domain: int = 0, sequence: int = 0, boot: float | None = None, templates: bool = True
) -> bytes:
    """One NetFlow 9 datagram; ``boot`` is when the exporter started: its times count from there (49 days at most)."""
    boot = _boot(records) if boot is None else boot
    exported = _exported(records)
    uptime = round((exported - boot) * 1000) & 0xFFFFFFFF
    body, count = _sets(9, records, boot, templates)
    return struct.pack("!HHIIII", 9, count, uptime, exported, sequence, domain) + body


def ipfix(
    records: Sequence[Record], domain: int = 0, sequence: int = 0, templates: bool = True, sampling: int = 1
) -> bytes:
    """One IPFIX datagram; its times are absolute. What is sampled says in an option which one of how many packets."""
    body, _ = _sets(10, records, 0.0, templates)
    if sampling > 1:
        body += _set(3, struct.pack("!HHH8H", SAMPLER, 4, 1, 302, 8, 304, 2, 305, 4, 306, 4))
        body += _set(SAMPLER, struct.pack("!QHII", domain, SYSTEMATIC, 1, sampling - 1))
    return struct.pack("!HHIII", 10, 16 + len(body), _exported(records), sequence, domain) + body


def exported(records: Sequence[Record], domain: int, sequence: int, sampling: int) -> list[bytes]:
    """IPFIX datagrams of a sampling exporter, counted on; each has the templates and the option."""
    parts = [records[at : at + RECORDS_EACH] for at in range(0, len(records), RECORDS_EACH)]
    options = int(sampling > 1)
    return [
        ipfix(part, domain, sequence + number * (RECORDS_EACH + options), sampling=sampling)
        for number, part in enumerate(parts)
    ]


def datagrams(kind: Kind, records: Sequence[Record], domain: int = 0) -> list[bytes]:
    """As many datagrams as the records need, templates in the first."""
    found, boot = [], _boot(records)
    for number, at in enumerate(range(0, len(records), RECORDS_EACH)):
        part = records[at : at + RECORDS_EACH]
        # NetFlow 9 counts datagrams, IPFIX counts records
        made = netflow9(part, domain, number, boot, not at) if kind == 9 else ipfix(part, domain, at, not at)
        found.append(made)
    return found


def send(found: Iterable[bytes], to: tuple[str, int], address: str = "") -> None:
    """Send datagrams from an address of this machine, by which the adapter knows the device."""
    with socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((address, 0))
        for datagram in found:
            sender.sendto(datagram, to)


def _exported(records: Sequence[Record]) -> int:
    return int(max(record["end"] for record in records)) + 1


def _boot(records: Sequence[Record]) -> float:
    return float(int(min(record["start"] for record in records)) - 60)


def _sets(kind: Kind, records: Sequence[Record], boot: float, templates: bool) -> tuple[bytes, int]:
    by_family = {family: [one for one in records if _family(one) == family] for family in ADDRESSES}
    body, count = b"", len(records)
    if templates:
        body += _set(TEMPLATE_SET[kind], b"".join(_template(kind, family) for family in ADDRESSES))
        count += len(ADDRESSES)
    for family, found in by_family.items():
        if found:
            body += _set(ADDRESSES[family][0], b"".join(_data(kind, record, boot) for record in found))
    return body, count


def _template(kind: Kind, family: int) -> bytes:
    number, source, destination, size = ADDRESSES[family]
    fields = ((source, size), (destination, size), *COUNTS, *TIMES[kind])
    return struct.pack("!HH", number, len(fields)) + b"".join(struct.pack("!HH", *field) for field in fields)


def _data(kind: Kind, record: Record, boot: float) -> bytes:
    addresses = ip_address(record["source"]).packed + ip_address(record["destination"]).packed
    times = (round((record[name] - boot) * 1000) for name in ("start", "end"))
    form = "!QQII" if kind == 9 else "!QQQQ"
    return addresses + struct.pack(form, record["octets"], record["packets"], *times)


def _set(number: int, contents: bytes) -> bytes:
    padding = b"\0" * (-len(contents) % 4)
    return struct.pack("!HH", number, 4 + len(contents) + len(padding)) + contents + padding


def _family(record: Record) -> int:
    return ip_address(record["source"]).version
