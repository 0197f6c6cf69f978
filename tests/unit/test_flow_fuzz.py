"""Whatever exporters send: nothing is raised, and what is remembered of them is bounded; tests/fuzz goes on."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

from fuzz.targets import flow_datagram
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convergedon.adapters.flow import exports
from convergedon.adapters.flow.exports import KEPT_BYTES, KEPT_DATAGRAMS, KEPT_STREAMS, TEMPLATE_FIELDS, Exports

SENT = st.tuples(st.integers(0, 3), st.randoms(), st.integers(0, 200), st.integers(0, 3))
"""By which exporter, what by chance, and where so many bytes are left out."""


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(SENT, max_size=12))
def test_whatever_exporters_send_is_read_or_counted(sent: Any) -> None:
    """Templates that lie about their data, of no fields and of fields of no size, changed and cut: all of it."""
    dropped: Counter[str] = Counter()
    reader = Exports(lambda reason, count: dropped.update({reason: count}))
    for exporter, chance, place, cut in sent:
        whole = flow_datagram(chance)
        found = reader.read(whole[:place] + whole[place + cut :], f"192.0.2.{exporter}")
        for record in [record for export in found or () for record in export.records]:
            assert 0 <= record["start"] <= record["end"] < 2**32
            assert 0 <= record["octets"] < 2**63
            assert 0 <= record["packets"] < 2**63
    assert all(count > 0 for count in dropped.values())


def test_what_is_remembered_of_many_exporters_is_bounded() -> None:
    """A sender's address is easily forged, and a datagram holds a template of sixteen thousand fields."""
    reader = Exports(lambda reason, count: None)
    large = [(0, struct.pack("!HH", 256, 8000) + struct.pack("!HH", 8, 4) * 8000)]
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
