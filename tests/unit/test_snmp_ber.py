"""The reader of SNMP notifications: what it reads, and that it refuses the rest with one exception."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.adapters.snmp import ber, lab

ARCS = st.integers(0, 0xFFFFFFFF)
OIDS = st.builds(
    lambda head, rest: ".".join(map(str, (1, head, *rest))), st.integers(0, 39), st.lists(ARCS, max_size=20)
)
VALUES = st.one_of(
    st.tuples(st.just(ber.INTEGER), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.sampled_from((ber.OCTETS, ber.OPAQUE)), st.binary(max_size=300)),
    st.tuples(st.sampled_from((ber.COUNTER, ber.GAUGE, ber.TICKS)), st.integers(0, 2**32 - 1)),
    st.tuples(st.just(ber.COUNTER64), st.integers(0, 2**64 - 1)),
    st.tuples(st.just(ber.OID), OIDS),
    st.tuples(st.just(ber.IP), st.ip_addresses(v=4).map(str)),
    st.tuples(st.sampled_from((ber.NULL, ber.NO_OBJECT, ber.NO_INSTANCE, ber.END_OF_VIEW)), st.none()),
)
VARBINDS = st.lists(st.builds(lambda oid, value: (oid, *value), OIDS, VALUES), max_size=8)
SAMPLES = (
    lab.link("down", "127.0.10.1", "eth0", 3, "public"),
    lab.link("up", "127.0.10.1", "eth0", 3, "public", inform=True),
    lab.link("down", "127.0.10.1", "eth0", 3, "public", version=1),
)
MUTATIONS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=4)
COLD_START = (ber.TRAP_OID, ber.OID, "1.3.6.1.6.3.1.1.5.1")


@given(VARBINDS, st.binary(max_size=40), st.integers(0, 2**31 - 1), st.booleans())
def test_what_is_written_is_what_is_read(varbinds, community, request, inform):
    datagram = ber.encode(community, [COLD_START, *varbinds], request=request, inform=inform)

    found = ber.decode(datagram)

    assert (found.community, found.inform, found.request, found.oid) == (community, inform, request, COLD_START[2])
    assert found.varbinds == (COLD_START, *varbinds)


@given(st.sampled_from(SAMPLES), MUTATIONS, st.integers(0, 500))
def test_a_mutated_datagram_is_read_or_refused_and_nothing_else(sample, mutations, cut):
    """Whatever a sender writes, one exception comes of it at most."""
    datagram = bytearray(sample)
    for place, byte in mutations:
        datagram[place % len(datagram)] = byte

    for changed in (bytes(datagram), bytes(datagram[:cut]), bytes(datagram + datagram[cut:])):
        with contextlib.suppress(ber.Unreadable):
            ber.decode(changed)


@given(st.binary(max_size=2000))
def test_noise_is_refused(noise):
    with pytest.raises(ber.Unreadable):
        ber.decode(noise)


def test_deep_nesting_is_refused_at_once():
    nested = b""
    for _ in range(2_000):
        nested = b"\x30\x82" + len(nested).to_bytes(2, "big") + nested

    with pytest.raises(ber.Unreadable):
        ber.decode(nested)


@pytest.mark.parametrize(
    ("generic", "oid"), [(0, "1.3.6.1.6.3.1.1.5.1"), (3, "1.3.6.1.6.3.1.1.5.4"), (6, "1.3.6.1.4.1.9.9.0.7")]
)
def test_a_version_1_trap_is_translated_as_rfc_3584_says(generic, oid):
    payload = ("1.3.6.1.2.1.2.2.1.1.3", ber.INTEGER, 3)

    found = ber.decode(ber.encode_v1(b"public", "1.3.6.1.4.1.9.9", "127.0.10.1", generic, 7, 4711, [payload]))

    assert found.oid == oid
    assert found.varbinds == (
        (ber.UPTIME, ber.TICKS, 4711),
        (ber.TRAP_OID, ber.OID, oid),
        payload,
        (ber.TRAP_ADDRESS, ber.IP, "127.0.10.1"),
        (ber.TRAP_ENTERPRISE, ber.OID, "1.3.6.1.4.1.9.9"),
    )


def test_an_agent_that_does_not_know_its_address_claims_none():
    found = ber.decode(ber.encode_v1(b"public", "1.3.6.1.4.1.9.9", "0.0.0.0", 0, 0, 1, []))

    assert found.first(ber.TRAP_ADDRESS) is None


def test_the_answer_to_an_inform_differs_in_one_byte():
    datagram = ber.encode(b"public", [COLD_START], request=77, inform=True)

    answer = ber.answer(datagram, ber.decode(datagram))

    assert [(was, now) for was, now in zip(datagram, answer, strict=True) if was != now] == [(ber.INFORM, ber.RESPONSE)]


def test_long_length_forms_are_read():
    """net-snmp writes 0x30 0x82 for sequences that a short form would hold."""
    short = ber.encode(b"public", [COLD_START], request=1)

    assert ber.decode(b"\x30\x82\x00" + short[1:2] + short[2:]).oid == COLD_START[2]


@pytest.mark.parametrize(
    ("datagram", "drop"),
    [
        (b"", "malformed"),
        (ber.encode(b"public", [], request=1), "malformed"),
        (ber.encode(b"public", [COLD_START], request=1) + b"\0", "malformed"),
        (b"\x30\x0a\x02\x01\x03\x04\x05hello", "version"),
        (ber.encode(b"c", [COLD_START], request=1).replace(b"c\xa7", b"c\xa0"), "pdu"),
        (ber.encode(b"c", [COLD_START], request=1).replace(b"\x02\x01\x01\x04", b"\x02\x01\x00\x04"), "pdu"),
    ],
    ids=["empty", "nameless", "trailing", "v3", "get", "v2-trap-in-v1"],
)
def test_each_refusal_is_counted_under_its_reason(datagram, drop):
    with pytest.raises(ber.Unreadable) as refusal:
        ber.decode(datagram)

    assert refusal.value.drop == drop


@pytest.mark.parametrize(
    "oid", [b"", b"\x2b\x86", b"\x2b\x80\x01", b"\x2b\x90\x80\x80\x80\x00", b"\x01" * 128, b"\x81" * 700], ids=range(6)
)
def test_an_impossible_object_identifier_is_refused(oid):
    value = ber.write(ber.OPAQUE, oid)
    datagram = ber.encode(b"public", [COLD_START], request=1)
    broken = ber.encode(b"public", [(COLD_START[0], ber.OPAQUE, oid)], request=1)

    assert ber.decode(datagram)
    with pytest.raises(ber.Unreadable, match="object identifier"):
        ber.decode(broken[: -len(value)] + bytes((ber.OID,)) + value[1:])


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        (ber.OCTETS, b"eth0\0", "eth0"),
        (ber.OCTETS, b"\x00\x1b\x21", "0x001b21"),
        (ber.OCTETS, "Übergang".encode(), "Übergang"),
        (ber.COUNTER64, 2**64 - 1, "18446744073709551615"),
        (ber.IP, "192.0.2.1", "192.0.2.1"),
        (ber.NO_INSTANCE, None, "noSuchInstance"),
    ],
)
def test_a_value_is_told_as_a_person_reads_it(tag, value, words):
    assert ber.text(tag, value) == words
