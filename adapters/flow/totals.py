"""Exporters that send totals: each record says what its flow had since it began (octetTotalCount), not since the last.

What a record adds is the difference to the flow's last one. A total that was overtaken adds nothing, one that went back
began anew. Of a flow that began before we knew all its records the first total is only remembered: what of it was
counted before nobody can tell, and nothing is billed twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

FLOWS = 100_000
"""That are remembered, of all exporters together; some 70 MB."""


@dataclass(slots=True)
class Known:
    """The last total of a flow."""

    octets: int
    packets: int
    end: float
    heard: float


class Part(NamedTuple):
    """What a record adds, and since when."""

    octets: int
    packets: int
    start: float


class Totals:
    """The flows of many exporters, those that were heard of last.

    ``since`` is when we began to listen, by the clock of the moments that ``part`` is told: ours, not the exporter's.
    """

    def __init__(self, since: float, most: int = FLOWS) -> None:
        self._since, self._most = since, most
        self._flows: OrderedDict[Hashable, Known] = OrderedDict()

    def part(
        self, flow: Hashable, octets: int, packets: int, start: float, end: float, began: float, now: float
    ) -> Part | None:
        """What a record adds; None where that cannot be told. ``began`` is when the flow did, by our clock."""
        known = self._flows.get(flow)
        if known is not None and end < known.end:
            return Part(0, 0, start)
        self._remember(flow, Known(octets, packets, end, now))
        if known is None:
            return Part(octets, packets, start) if began >= self._since else None
        if octets < known.octets or packets < known.packets:
            return Part(octets, packets, known.end)
        return Part(octets - known.octets, packets - known.packets, known.end)

    def _remember(self, flow: Hashable, known: Known) -> None:
        self._flows[flow] = known
        self._flows.move_to_end(flow)
        if len(self._flows) > self._most:
            _, forgotten = self._flows.popitem(last=False)
            self._since = max(self._since, forgotten.heard)
