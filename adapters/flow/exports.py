"""Flow export datagrams to flow records: NetFlow 5 and 9 and IPFIX, with the patience that templates need.

A datagram whose templates are not known yet (ours is a fresh start, or UDP lost them) is kept whole until they come,
so that one datagram is always one list of records. netflume decodes; the keeping, the times and the counting are ours.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeGuard

from netflume import Decoder, flow_endpoints

from convergedon.adapters.flow import sequences
from convergedon.adapters.flow.sampling import Place, Rate, Rates, Sampling, Templates, sampled
from convergedon.adapters.flow.sequences import STREAMS, Sequences
from convergedon.adapters.flow.totals import Totals

KEPT_DATAGRAMS = 256
KEPT_STREAMS = 256
KEPT_BYTES = 32 * 1024 * 1024
KNOWN_STARTS = 10_000
# An exporter has some ten with some thirty fields each; a crafted datagram one with sixteen thousand
TEMPLATES, TEMPLATE_FIELDS = 4_000, 100_000
# A datagram of an Ethernet's size has 180 records at most; a crafted one of 64 KiB has thousands, too many to store
MOST_RECORDS = 1000
HEADERS = {9: 20, 10: 16}
TEMPLATE_SETS = {9: (0, 1), 10: (2, 3)}
FIRST_DATA_SET = 256
WRAP = 1 << 32
# What MongoDB's and JSON's integers hold
LARGEST_COUNT = (1 << 63) - 1

# What is told of a flow besides; a crafted template has numbers of a thousand digits there
LARGEST_TOLD = WRAP - 1
ALSO = (("proto", "protocol"), ("tos", "trafficClass"), ("in_if", "ingress"), ("out_if", "egress"))

# What makes a flow the same as one before, beside its ends and its start
SAME_FLOW = ("proto", "src_port", "dst_port", "tos", "in_if", "out_if", "vlan", "flow_id", "direction")

Drop = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Export:
    """The records of one datagram; octets and packets were multiplied by each record's rate of sampling.

    ``sampling`` is the greatest of them, ``missing`` what was found missing before it since the last one.
    """

    datagram: bytes
    domain: int
    sampling: Rate
    records: tuple[Mapping[str, Any], ...]
    missing: int = 0


class Exports:
    """Decodes the datagrams of many exporters. ``drop`` is told the reason and count of what is lost."""

    def __init__(self, drop: Drop, clock: Callable[[], float] = monotonic) -> None:
        # Its gap events can be false, where templates are missing or datagrams overtake each other
        self._decoder = Decoder(track_sequence=False, track_sampling=False)  # type: ignore[no-untyped-call]
        self._decoder.templates = Templates(TEMPLATES)  # type: ignore[no-untyped-call]
        self._learned = 0
        self._drop = drop
        self._kept: OrderedDict[Place, deque[bytes]] = OrderedDict()
        self.kept_bytes = 0
        self._booted: OrderedDict[Place, int] = OrderedDict()
        self._sampling = Sampling()
        self._clock, self._totals = clock, Totals(clock())
        self.unknown_samplers = 0
        self.sequences = Sequences()
        self._untold: Counter[Place] = Counter()

    def read(self, datagram: bytes, exporter: str) -> list[Export] | None:
        """Decode a datagram, and with it those that waited for a template it brings; None when it was refused."""
        version = int.from_bytes(datagram[:2], "big")
        if version not in HEADERS:
            return self._decoded(datagram, exporter)
        shape = _shape(datagram, version)
        if shape is None:
            self._drop("malformed", 1)
            return None
        domain, brings, needs = shape
        earlier: list[Export] = []
        if brings and (self._missing(exporter, domain, needs) or (exporter, domain) in self._kept):
            # Its data may stand before its templates: learn them first
            if self._message(datagram, exporter) is None:
                return None
            earlier = self._released(exporter, domain)
        if self._missing(exporter, domain, needs):
            number = int.from_bytes(datagram[HEADERS[version] - 8 : HEADERS[version] - 4], "big")
            self._follow((exporter, domain, version), sequences.Datagram(number, None))
            self._keep(datagram, exporter, domain)
            return earlier
        found = self._decoded(datagram, exporter)
        return None if found is None else earlier + found

    def _follow(self, stream: sequences.Stream, one: sequences.Datagram) -> None:
        lost = self.sequences.take(stream, one)
        if lost:
            self._drop("lost before us", lost)
            self._untold[stream[:2]] += lost
            if len(self._untold) > STREAMS:
                del self._untold[next(iter(self._untold))]

    @property
    def kept(self) -> int:
        return sum(map(len, self._kept.values()))

    def _decoded(self, datagram: bytes, exporter: str, late: bool = False) -> list[Export] | None:
        message = self._message(datagram, exporter)
        if message is None:
            return None
        flows, header = message.flows, message.header
        domain, version = header["domain"], header["version"]
        if not late:
            options = 0 if version == 5 else len(message.options)
            self._follow((exporter, domain, version), sequences.Datagram(header["sequence"], len(flows), options))
        if len(flows) > MOST_RECORDS:
            self._drop("records", 1)
            return None
        place = (exporter, domain)
        for option in message.options:
            self._sampling.note(place, option, lambda number: self._fields(place, number))
            self._note_start(place, version, option)
        header = self._timed(header, place)
        rates = self._sampling.rates(place)
        found = [self._record(flow, header, place, rates) for flow in flows]
        records = tuple(record for record in found if record is not None)
        if not records:
            return []
        return [Export(datagram, domain, rates.greatest, records, self._untold.pop(place, 0))]

    def _record(
        self, flow: Mapping[str, Any], header: Mapping[str, Any], place: Place, rates: Rates
    ) -> Mapping[str, Any] | None:
        """A record as the contract words it; None for one without addresses or octets, or with too many."""
        source, destination = flow_endpoints(flow)  # type: ignore[no-untyped-call]
        counts = _counts(flow)
        if not isinstance(source, str) or not isinstance(destination, str) or counts is None:
            self._drop("record", 1)
            return None
        start, end = _times(flow, header)
        octets, packets = counts
        if "octets_total" in flow and "octets" not in flow:
            which = (*place, source, destination, start, *(flow.get(name) for name in SAME_FLOW))
            now = self._clock()
            # the exporter's clock may be any: how old the flow is, it knows, by whole seconds
            began = now - (header["unix_secs"] - start) + 1
            part = self._totals.part(which, octets, packets, start, end, began, now)
            if part is None:
                self._drop("total", 1)
                return None
            octets, packets, start = part
        rate = sampled(flow, rates)
        if rate is None:
            self.unknown_samplers += 1
            rate = 1
        if max(octets, packets) * rate > LARGEST_COUNT:
            self._drop("record", 1)
            return None
        record = {
            "source": source,
            "destination": destination,
            "octets": int(octets * rate),
            "packets": int(packets * rate),
            "start": start,
            "end": end,
        }
        for theirs, ours in ALSO:
            if (value := flow.get(theirs)) is not None and isinstance(value, int) and value <= LARGEST_TOLD:
                record[ours] = value
        return record

    def _message(self, datagram: bytes, exporter: str) -> Any:
        truncated = self._decoder.stats["truncated"]
        message = self._decoder.decode(datagram, exporter)  # type: ignore[no-untyped-call]
        self._decoder.take_events()  # type: ignore[no-untyped-call]
        if message is None:
            unknown = int.from_bytes(datagram[:2], "big") not in (5, *HEADERS)
            self._drop("version" if unknown else "malformed", 1)
        if self._decoder.templates.learned > self._learned:
            self._forget_templates()
        if message is not None and self._decoder.stats["truncated"] > truncated:
            self._drop("truncated", 1)
            return None
        return message

    def _fields(self, place: Place, number: int) -> Sequence[Any] | None:
        """Those of a template that is no option's, where it is known."""
        fields, of_options = self._decoder.templates.get(*place, number)  # type: ignore[no-untyped-call]
        return None if of_options else fields

    def _forget_templates(self) -> None:
        """Let go of the templates that were not used for longest, where all of them have too many fields."""
        templates = self._decoder.templates.templates
        self._learned = self._decoder.templates.learned
        fields = sum(len(specified) for specified, _ in templates.values())
        while fields > TEMPLATE_FIELDS:
            _, (specified, _) = templates.popitem(last=False)
            fields -= len(specified)

    def _note_start(self, place: Place, version: int, option: Mapping[str, Any]) -> None:
        if version == 10 and isinstance(option.get("system_init_time_ms"), int):
            self._booted[place] = option["system_init_time_ms"]
            self._booted.move_to_end(place)
            if len(self._booted) > KNOWN_STARTS:
                self._booted.popitem(last=False)

    def _timed(self, header: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
        """The header with the exporter's uptime, which IPFIX tells apart: by the time of its start, in an option."""
        booted = self._booted.get(place) if header["version"] == 10 else None
        return header if booted is None else {**header, "sys_uptime": (header["unix_secs"] * 1000 - booted) % WRAP}

    def _missing(self, exporter: str, domain: int, needs: set[int]) -> bool:
        known = self._decoder.templates.templates
        return any((exporter, domain, number) not in known for number in needs)

    def _keep(self, datagram: bytes, exporter: str, domain: int) -> None:
        kept = self._kept.setdefault((exporter, domain), deque())
        self._kept.move_to_end((exporter, domain))
        kept.append(datagram)
        self.kept_bytes += len(datagram)
        if len(kept) > KEPT_DATAGRAMS:
            self._forget(kept)
        while self.kept_bytes > KEPT_BYTES or len(self._kept) > KEPT_STREAMS:
            oldest, waiting = next(iter(self._kept.items()))
            self._forget(waiting)
            if not waiting:
                del self._kept[oldest]

    def _forget(self, kept: deque[bytes]) -> None:
        self.kept_bytes -= len(kept.popleft())
        self._drop("template", 1)

    def _released(self, exporter: str, domain: int) -> list[Export]:
        waiting = self._kept.pop((exporter, domain), deque())
        found: list[Export] = []
        for datagram in waiting:
            self.kept_bytes -= len(datagram)
            shape = _shape(datagram, int.from_bytes(datagram[:2], "big"))
            if shape is None or self._missing(exporter, domain, shape[2]):
                self._keep(datagram, exporter, domain)
            else:
                found += self._decoded(datagram, exporter, late=True) or []
        return found


def _shape(datagram: bytes, version: int) -> tuple[int, bool, set[int]] | None:
    """A datagram's observation domain, whether it brings templates, and the templates its data needs."""
    if len(datagram) < HEADERS[version]:
        return None
    domain = int.from_bytes(datagram[HEADERS[version] - 4 : HEADERS[version]], "big")
    numbers = set(_sets(datagram, version))
    return domain, not numbers.isdisjoint(TEMPLATE_SETS[version]), {one for one in numbers if one >= FIRST_DATA_SET}


def _sets(datagram: bytes, version: int) -> Iterator[int]:
    at, end = HEADERS[version], len(datagram)
    if version == 10:
        end = min(end, int.from_bytes(datagram[2:4], "big"))
    while at + 4 <= end:
        number, size = struct.unpack_from("!HH", datagram, at)
        if size < 4:
            return
        yield number
        at += size


def _counts(flow: Mapping[str, Any]) -> tuple[int, int] | None:
    """Octets and packets; None where it counts no octets."""
    octets = _first(flow, "octets", "octets_total", "out_octets")
    if octets is None:
        return None
    return octets, _first(flow, "packets", "packets_total", "out_packets") or 0


def _first(flow: Mapping[str, Any], *names: str) -> int | None:
    return next((flow[name] for name in names if isinstance(flow.get(name), int)), None)


ABSOLUTE = (("ms", 1000.0), ("s", 1.0), ("us", 1.0), ("ns", 1.0))


def _times(flow: Mapping[str, Any], header: Mapping[str, Any]) -> tuple[float, float]:
    """When a flow began and ended. Where the record does not say, or says nonsense, it is the time of its export."""
    exported = float(header["unix_secs"])
    start, end = _absolute(flow) or _relative(flow, header, exported)
    return (start, end) if 0 <= start <= end < WRAP else (exported, exported)


def _absolute(flow: Mapping[str, Any]) -> tuple[float, float] | None:
    for unit, divisor in ABSOLUTE:
        start, end = flow.get(f"flow_start_{unit}"), flow.get(f"flow_end_{unit}")
        if _is_time(start):
            return start / divisor, (end if _is_time(end) else start) / divisor
    return None


def _is_time(found: Any) -> TypeGuard[float]:
    """Whether it is a number of seconds or parts of them; a template may give it a hundred bytes."""
    return isinstance(found, int | float) and 0 < found < LARGEST_COUNT


def _relative(flow: Mapping[str, Any], header: Mapping[str, Any], exported: float) -> tuple[float, float]:
    start, end = (_since_boot(flow.get(name), header, exported) for name in ("first_switched", "last_switched"))
    return start, end


def _since_boot(switched: Any, header: Mapping[str, Any], exported: float) -> float:
    uptime = header["sys_uptime"]
    if not isinstance(switched, int) or uptime is None:
        return exported
    # Milliseconds since boot wrap after 49.7 days; a switch time just after the export's belongs to the export's second
    ago = (uptime - switched) % WRAP
    seconds: float = (ago - WRAP if ago >= WRAP // 2 else ago) / 1000
    return exported - seconds
