"""Whatever exporters send: nothing is raised, and what is remembered of them is bounded; tests/fuzz goes on."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convergedon.adapters.flow import exports
from convergedon.adapters.flow.exports import KEPT_BYTES, KEPT_DATAGRAMS, KEPT_STREAMS, TEMPLATE_FIELDS, Exports

# Elements that something depends on, and others; sizes that fit them, that are odd, and that vary (65535)
ELEMENT = st.sampled_from([1, 2, 4, 5, 8, 10, 12, 14, 21, 22, 23, 27, 28, 34, 48, 50, 85, 150, 152, 153, 156, 160, 302,
                           305, 306, 309, 310, 0x8001, 999])  # fmt: skip
SIZE = st.sampled_from([0, 1, 2, 3, 4, 8, 16, 255, 65535])
NUMBER = st.sampled_from([256, 257, 258, 300])
FIELDS = st.lists(st.tuples(ELEMENT, SIZE), max_size=12)


def template(kind: int, number: int, fields: Any, options: bool) -> tuple[int, bytes]:
    specified = b"".join(
        struct.pack("!HH", element, size) + (bytes(4) if kind == 10 and element & 0x8000 else b"")
        for element, size in fields
    )
    head = struct.pack("!HH", number, len(fields))
    if options:
        head = struct.pack("!HHH", number, *((4, len(specified)) if kind == 9 else (len(fields), 1)))
    return {(9, False): 0, (9, True): 1, (10, False): 2, (10, True): 3}[kind, options], head + specified


@st.composite
def datagram(draw: Any) -> bytes:
    """A datagram with templates, options and data that more or less belong together."""
    kind = draw(st.sampled_from([5, 9, 10]))
    if kind == 5:
        count = draw(st.integers(0, 40))
        head = struct.pack("!HHIIIIBBH", 5, count, *(draw(st.integers(0, 2**32 - 1)) for _ in range(4)), 0, 1,
                           draw(st.integers(0, 65535)))  # fmt: skip
        return head + draw(st.binary(max_size=48 * 4))
    sets = []
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            sets.append(template(kind, draw(NUMBER), draw(FIELDS), draw(st.booleans())))
        else:
            sets.append((draw(NUMBER), draw(st.binary(max_size=120))))
    body = b"".join(struct.pack("!HH", number, 4 + len(part)) + part for number, part in sets)
    numbers = [draw(st.integers(0, 2**32 - 1)) for _ in range(2)]
    domain = draw(st.integers(0, 3))
    if kind == 9:
        return struct.pack("!HHIIII", 9, len(sets), 1000, *numbers, domain) + body
    return struct.pack("!HHIII", 10, 16 + len(body), *numbers, domain) + body


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 3), datagram(), st.integers(0, 200), st.integers(0, 3)), max_size=12))
def test_whatever_exporters_send_is_read_or_counted(sent: Any) -> None:
    """Templates that lie about their data, of no fields and of fields of no size, changed and cut: all of it."""
    dropped: Counter[str] = Counter()
    reader = Exports(lambda reason, count: dropped.update({reason: count}))
    for exporter, whole, place, cut in sent:
        found = reader.read(whole[:place] + whole[place + cut :], f"192.0.2.{exporter}")
        for record in [record for export in found or () for record in export.records]:
            assert 0 <= record["start"] <= record["end"] < 2**32
            assert 0 <= record["octets"] < 2**63
            assert 0 <= record["packets"] < 2**63
    assert all(count > 0 for count in dropped.values())


def test_what_is_remembered_of_many_exporters_is_bounded() -> None:
    """A sender's address is easily forged, and a datagram holds a template of sixteen thousand fields."""
    reader = Exports(lambda reason, count: None)
    large = [template(9, 256, [(8, 4)] * 8000, False)]
    waiting = struct.pack("!HHIIIIHH", 9, 1, 0, 0, 0, 7, 400, 1400) + bytes(1396)
    for n in range(300):
        body = b"".join(struct.pack("!HH", number, 4 + len(part)) + part for number, part in large)
        reader.read(struct.pack("!HHIIII", 9, 1, 0, 0, n, n) + body, f"192.0.2.{n}")
        for _ in range(3):
            reader.read(waiting, f"198.51.100.{n}")
    templates = reader._decoder.templates.templates

    assert sum(len(fields) for fields, _ in templates.values()) <= TEMPLATE_FIELDS
    assert len(reader._kept) <= KEPT_STREAMS
    assert reader.kept <= KEPT_STREAMS * KEPT_DATAGRAMS
    assert reader.kept_bytes <= KEPT_BYTES
    assert exports.TEMPLATES >= len(templates) > 1
