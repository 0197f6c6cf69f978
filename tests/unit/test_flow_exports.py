"""Flow datagrams to records: templates may come late, times count from a boot, and nonsense is counted."""

import struct
from collections import Counter
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.adapters.flow import exports, lab

SINCE = 1_790_000_000.0


def record(source, destination, octets, packets, start, end):
    ends = {"source": source, "destination": destination}
    return {**ends, "octets": octets, "packets": packets, "start": start, "end": end}


RECORDS = [
    record("10.0.0.1", "192.0.2.7", 5_000_000_000, 12, SINCE, SINCE + 2.5),
    record("2001:db8::1", "2001:db8::2", 64, 1, SINCE + 1, SINCE + 1),
]
MUTATIONS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)
TIMES = st.integers(0, 3_000_000).map(lambda ms: SINCE + ms / 1000)
ADDRESSES = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)), st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
)
SOME = st.lists(
    st.builds(
        lambda ends, *counts: record(str(ends[0]), str(ends[1]), *counts[:2], min(counts[2]), max(counts[2])),
        ADDRESSES.filter(lambda ends: all(int(end) for end in ends)),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**63 - 1),
        st.tuples(TIMES, TIMES),
    ),
    min_size=1,
    max_size=60,
)


class Reader:
    def __init__(self):
        self.dropped = Counter()
        self.exports = exports.Exports(lambda reason, count: self.dropped.update({reason: count}))

    def read(self, datagram, exporter="127.0.10.1"):
        return self.exports.read(datagram, exporter)

    def records(self, datagram, exporter="127.0.10.1"):
        return [record for export in self.read(datagram, exporter) or () for record in export.records]


@pytest.fixture
def reader():
    return Reader()


def told(records):
    """Records without their order, which two templates do not keep, and with times to the millisecond."""
    return sorted(
        (*(one[key] for key in list(one)[:4]), round(one["start"] * 1000), round(one["end"] * 1000)) for one in records
    )


def netflow5(uptime, first, last, engine=0):
    header = struct.pack("!HHIIIIBBH", 5, 1, uptime, int(SINCE), 0, 1, 0, engine, 0)
    addresses = ip_address("10.0.0.1").packed + ip_address("192.0.2.7").packed + bytes(4)
    return header + addresses + struct.pack("!HHIIII16x", 1, 2, 12, 9000, first % 2**32, last)


@pytest.mark.parametrize("kind", [9, 10])
@given(records=SOME)
def test_what_the_lab_exports_is_what_is_read(kind, records):
    reader = Reader()
    found = [record for datagram in lab.datagrams(kind, records) for record in reader.records(datagram)]

    assert told(found) == told(records)
    assert not reader.dropped


def test_netflow_5_is_read(reader):
    [export] = reader.read(netflow5(100_000, 90_000, 95_000, engine=3))

    assert export.domain == 3
    also = {"protocol": 0, "trafficClass": 0, "ingress": 1, "egress": 2}
    assert export.records == ({**record("10.0.0.1", "192.0.2.7", 9000, 12, SINCE - 10, SINCE - 5), **also},)


def test_times_survive_the_wrap_of_the_boot_counter(reader):
    """sysUpTime wraps after 49.7 days: a flow that began before the wrap is exported after it."""
    [found] = reader.records(netflow5(1_000, -4_000, 500))

    assert (found["start"], found["end"]) == (SINCE - 5, SINCE - 0.5)


@pytest.mark.parametrize("build", [lab.netflow9, lab.ipfix])
def test_data_before_its_template_waits_and_is_then_read_in_order(reader, build):
    early = [build(RECORDS[:1], sequence=n, templates=False) for n in (1, 2)]
    waited = [reader.read(datagram) for datagram in early]
    kept = reader.exports.kept
    late = build(RECORDS[:1], sequence=3)
    found = reader.read(late)

    assert waited == [[], []]
    assert kept == 2
    assert [export.datagram for export in found] == [*early, late]
    assert (reader.exports.kept, reader.exports.kept_bytes) == (0, 0)
    assert not reader.dropped


def test_templates_are_of_one_exporter_and_one_domain(reader):
    reader.read(lab.ipfix(RECORDS, domain=1))

    assert reader.records(lab.ipfix(RECORDS, domain=1, templates=False))
    assert reader.read(lab.ipfix(RECORDS, domain=2, templates=False)) == []
    assert reader.read(lab.ipfix(RECORDS, domain=1, templates=False), "127.0.10.2") == []
    assert reader.exports.kept == 2


def test_a_refreshed_template_changes_nothing(reader):
    for _ in range(3):
        assert len(reader.records(lab.netflow9(RECORDS))) == 2
    assert len(reader.records(lab.netflow9(RECORDS, templates=False))) == 2


def test_data_before_its_template_in_one_datagram_is_read(reader):
    """RFC 7011 8 asks for templates first and takes nothing for granted."""
    whole = lab.ipfix(RECORDS[:1])
    size = struct.unpack_from("!H", whole, 18)[0]
    swapped = whole[:16] + whole[16 + size :] + whole[16 : 16 + size]

    assert len(reader.records(swapped)) == 1


def test_what_waits_for_templates_is_bounded_and_the_rest_counted(reader):
    for n in range(exports.KEPT_DATAGRAMS + 10):
        reader.read(lab.ipfix(RECORDS, sequence=n, templates=False))
    for n in range(exports.KEPT_STREAMS + 10):
        reader.read(lab.ipfix(RECORDS, domain=n + 1, templates=False))

    assert reader.exports.kept <= exports.KEPT_DATAGRAMS + exports.KEPT_STREAMS
    assert reader.dropped["template"] == 2 * exports.KEPT_DATAGRAMS + 20 - reader.exports.kept


def test_option_records_are_no_flows_and_a_sampling_rate_multiplies_the_counts(reader):
    """An options template (scope system, samplingInterval) and its data, as softflowd sends it."""
    fields = struct.pack("!HHH HH HH", 300, 4, 4, 1, 4, 34, 4)
    data = struct.pack("!II", 1, 100)
    template = struct.pack("!HH", 1, 4 + len(fields) + 2) + fields + bytes(2)
    options = template + struct.pack("!HH", 300, 4 + len(data)) + data
    header = struct.pack("!HHIIII", 9, 2, 1000, int(SINCE), 0, 0)
    assert reader.read(header + options) == []
    [export] = reader.read(lab.netflow9(RECORDS[:1]))

    assert export.sampling == 100
    assert export.records[0]["octets"] == 100 * RECORDS[0]["octets"]


def options(scope, fields, data, sets=b"", domain=0):
    """A NetFlow 9 datagram with an options template (scope system) and its data, and further sets."""
    specified = b"".join(struct.pack("!HH", *field) for field in fields)
    template = struct.pack("!HHH", 300, 4, len(specified)) + struct.pack("!HH", 1, 4) + specified
    template += bytes(-len(template) % 4)
    parts = struct.pack("!HH", 1, 4 + len(template)) + template + struct.pack("!HH", 300, 4 + len(data) + 4)
    return struct.pack("!HHIIII", 9, 2, 1000, int(SINCE), 0, domain) + parts + struct.pack("!I", scope) + data + sets


def test_each_sampler_has_its_rate_and_a_record_names_its_own(reader):
    """samplerId (48) and samplerRandomInterval (50) in options; the record has samplerId."""
    for sampler, rate in ((1, 100), (2, 1000)):
        assert reader.read(options(1, ((48, 2), (50, 4)), struct.pack("!HI", sampler, rate) + bytes(2))) == []
    fields = struct.pack("!HHHHHHHHHH", 400, 4, 8, 4, 12, 4, 1, 4, 48, 2)
    seen = [
        ip_address("10.0.0.1").packed + ip_address("192.0.2.7").packed + struct.pack("!IH", 64, n) for n in (1, 2, 9)
    ]
    sets = b"".join(
        struct.pack("!HH", number, 4 + len(part) + -len(part) % 4) + part + bytes(-len(part) % 4)
        for number, part in ((0, fields), (400, b"".join(seen)))
    )
    [export] = reader.read(struct.pack("!HHIIII", 9, 4, 1000, int(SINCE), 1, 0) + sets)

    assert [one["octets"] for one in export.records] == [6400, 64_000, 64]
    assert export.sampling == 1000


@pytest.mark.parametrize(("header", "rate"), [(0x4000 | 100, 100), (0x8000 | 16383, 16383), (100, 1), (0x4000 | 1, 1)])
def test_netflow_5_says_in_its_header_how_it_samples(reader, header, rate):
    """The mode stands in the two highest bits: without one the interval means nothing."""
    datagram = bytearray(netflow5(100_000, 90_000, 95_000))
    struct.pack_into("!H", datagram, 22, header)
    [export] = reader.read(bytes(datagram))

    assert export.records[0]["octets"] == 9000 * rate


def test_what_an_exporter_samples_is_said_of_one_domain_alone(reader):
    reader.read(options(1, ((34, 4),), struct.pack("!I", 50), domain=1))

    assert reader.records(lab.netflow9(RECORDS[1:], domain=1))[0]["octets"] == 64 * 50
    assert reader.records(lab.netflow9(RECORDS[1:], domain=2))[0]["octets"] == 64


def test_a_template_that_changes_is_followed_from_there_on_even_within_a_datagram(reader):
    """Data before the new template is of the old one; data after it of the new one."""
    ends = ip_address("10.0.0.1").packed + ip_address("192.0.2.7").packed
    parts = [
        (0, struct.pack("!HHHHHHHH", 256, 3, 8, 4, 12, 4, 1, 4)),
        (256, ends + struct.pack("!I", 11)),
        (0, struct.pack("!HHHHHHHHHH", 256, 4, 2, 4, 8, 4, 12, 4, 1, 4)),
        (256, struct.pack("!I", 5) + ends + struct.pack("!I", 22)),
    ]
    sets = [struct.pack("!HH", number, 4 + len(part)) + part for number, part in parts]
    header = struct.pack("!HHIII", 9, 4, 1000, int(SINCE), 0) + struct.pack("!I", 0)
    first = [(one["octets"], one["packets"]) for one in reader.records(header + sets[0])]
    both = [(one["octets"], one["packets"]) for one in reader.records(header + b"".join(sets[1:]))]

    assert first == []
    assert both == [(11, 0), (22, 5)]


def test_datagrams_that_never_came_are_counted_for_their_source_and_domain(reader):
    sent = lab.datagrams(9, [{**RECORDS[0], "octets": n} for n in range(24 * 60)], domain=4)
    for n, datagram in enumerate(sent):
        if n not in (20, 21):
            reader.read(datagram)

    assert reader.dropped == {"lost before us": 2}
    assert reader.exports.sequences.missing == {("127.0.10.1", 4, 9): 2}


def test_ipfix_times_since_boot_count_from_the_start_that_an_option_tells(reader):
    """As softflowd sends them: systemInitTimeMilliseconds in an option record, sysUpTime times in the flows."""
    option = struct.pack("!HHHHHHHH", 300, 2, 1, 143, 4, 160, 8, 0)
    flow = struct.pack("!HHHHHHHHHHHH", 256, 5, 8, 4, 12, 4, 1, 4, 22, 4, 21, 4)
    told = struct.pack("!IQ", 1, int(SINCE) * 1000)
    seen = ip_address("10.0.0.1").packed + ip_address("192.0.2.7").packed + struct.pack("!III", 64, 2_000, 3_500)
    parts = ((3, option), (300, told), (2, flow), (256, seen))
    sets = b"".join(struct.pack("!HH", number, 4 + len(part)) + part for number, part in parts)
    [found] = reader.records(struct.pack("!HHIII", 10, 16 + len(sets), int(SINCE) + 9, 0, 0) + sets)

    assert (found["start"], found["end"]) == (SINCE + 2, SINCE + 3.5)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "version"),
        (b"\0\x09", "malformed"),
        (b"\0\x05\0\x01", "malformed"),
        (b"\0\x07" + bytes(40), "version"),
        (lab.ipfix(RECORDS)[:-3], "truncated"),
    ],
)
def test_what_cannot_be_read_is_counted_by_its_reason(reader, datagram, reason):
    assert reader.read(datagram) is None
    assert reader.dropped == {reason: 1}


def test_a_count_that_no_store_can_hold_is_counted_and_left_out(reader):
    monstrous = {**RECORDS[0], "octets": 2**63}

    assert len(reader.records(lab.ipfix([monstrous, *RECORDS]))) == 2
    assert reader.dropped == {"record": 1}


@given(st.sampled_from((9, 10)), st.booleans(), MUTATIONS, st.integers(0, 400))
def test_a_mutated_datagram_is_read_or_counted_and_nothing_else(kind, templates, mutations, cut):
    """Whatever an exporter writes, nothing is raised, and times and counts stay within what can be stored."""
    reader = Reader()
    build = lab.netflow9 if kind == 9 else lab.ipfix
    reader.read(build(RECORDS))
    datagram = bytearray(build(RECORDS, templates=templates))
    for place, byte in mutations:
        datagram[place % len(datagram)] = byte

    for changed in (bytes(datagram), bytes(datagram[:cut]), bytes(datagram + datagram[cut:])):
        for record in reader.records(changed):
            assert 0 <= record["start"] <= record["end"] < 2**32
            assert 0 <= record["octets"] < 2**63
