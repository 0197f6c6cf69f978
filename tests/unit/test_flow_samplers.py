"""What a sampler of IPFIX selects is told in many ways (RFC 5477), and each record is multiplied by its own."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from ipaddress import ip_address

import pytest

from convergedon.adapters.flow.exports import Exports

ENDS = ip_address("10.0.0.1").packed + ip_address("192.0.2.7").packed
SELECTOR, SEQUENCE, ALGORITHM = (302, 8), (301, 8), (304, 2)
OPTIONS, FLOWS = 300, 400
Field = tuple[int, int]


class Exporter:
    """An IPFIX exporter of one observation domain, and what is read of it."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.reader = Exports(lambda reason, count: self.dropped.update({reason: count}))

    def _send(self, *sets: tuple[int, bytes]) -> list[int]:
        body = b"".join(struct.pack("!HH", number, 4 + len(part)) + part for number, part in sets)
        found = self.reader.read(struct.pack("!HHIII", 10, 16 + len(body), 1_790_000_000, 0, 7) + body, "192.0.2.250")
        return [record["octets"] for export in found or () for record in export.records]

    def say(self, fields: tuple[Field, ...], *values: bytes) -> None:
        """A Selector Report Interpretation, or a Selection Sequence one: an options template and its data."""
        specified = b"".join(struct.pack("!HH", *field) for field in fields)
        template = struct.pack("!HHH", OPTIONS, len(fields), 1) + specified
        assert self._send((3, template), (OPTIONS, b"".join(values))) == []

    def flows(self, names: Field | None, *selectors: int) -> list[int]:
        """The octets that records of 1000 come to, each of which names a selector."""
        fields = ((8, 4), (12, 4), (1, 4), *((names,) if names else ()))
        template = struct.pack("!HH", FLOWS, len(fields)) + b"".join(struct.pack("!HH", *field) for field in fields)
        records = [
            ENDS + struct.pack("!I", 1000) + (number.to_bytes(names[1], "big") if names else b"")
            for number in selectors
        ]
        return self._send((2, template), (FLOWS, b"".join(records)))


@pytest.fixture
def exporter() -> Exporter:
    return Exporter()


def whole(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


@pytest.mark.parametrize(
    ("algorithm", "fields", "values", "rate"),
    [
        (1, ((305, 4), (306, 4)), (whole(1, 4), whole(99, 4)), 100),
        (1, ((305, 4), (306, 4)), (whole(10, 4), whole(0, 4)), 1),
        (2, ((307, 4), (308, 4)), (whole(500, 4), whole(4500, 4)), 10),
        (3, ((309, 4), (310, 4)), (whole(3, 4), whole(10, 4)), Fraction(10, 3)),
        (4, ((311, 8),), (struct.pack("!d", 0.02),), 50),
        (4, ((311, 4),), (struct.pack("!f", 0.25),), 4),
        (6, ((329, 8), (330, 8), (331, 8), (332, 8)), tuple(whole(n, 8) for n in (0, 999, 100, 299)), 5),
    ],
    ids=["systematic", "all", "by time", "n of N", "probability", "probability of four bytes", "hash"],
)
def test_each_way_to_select_has_its_rate(
    exporter: Exporter, algorithm: int, fields: tuple[Field, ...], values: tuple[bytes, ...], rate: int | Fraction
) -> None:
    exporter.say((SELECTOR, ALGORITHM, *fields), whole(5, 8), whole(algorithm, 2), *values)

    assert exporter.flows(SELECTOR, 5) == [int(1000 * rate)]


def test_each_record_has_the_rate_of_its_own_selector(exporter: Exporter) -> None:
    for selector, space in ((1, 9), (2, 99)):
        exporter.say(
            (SELECTOR, ALGORITHM, (305, 4), (306, 4)), whole(selector, 8), whole(1, 2), whole(1, 4), whole(space, 4)
        )

    assert exporter.flows(SELECTOR, 1, 2, 1) == [10_000, 100_000, 10_000]


def test_a_record_that_names_its_selection_sequence_has_the_rate_of_the_selector_that_ends_it(
    exporter: Exporter,
) -> None:
    for selector, space in ((1, 9), (2, 99)):
        exporter.say((SELECTOR, (305, 4), (306, 4)), whole(selector, 8), whole(1, 4), whole(space, 4))
        exporter.say((SEQUENCE, (138, 4), SELECTOR), whole(70 + selector, 8), whole(3, 4), whole(selector, 8))

    assert exporter.flows(SEQUENCE, 71, 72) == [10_000, 100_000]


def systematic(exporter: Exporter, selector: int, space: int) -> None:
    exporter.say((SELECTOR, (305, 4), (306, 4)), whole(selector, 8), whole(1, 4), whole(space, 4))


def sequence(exporter: Exporter, number: int, *selectors: int) -> None:
    """A Selection Sequence Report Interpretation: of an observation point, and the selectors one after the other."""
    fields = (SEQUENCE, (138, 4), *(SELECTOR for _ in selectors))
    exporter.say(fields, whole(number, 8), whole(3, 4), *(whole(one, 8) for one in selectors))


@pytest.mark.parametrize("sequence_first", [True, False])
def test_the_rates_of_a_chain_of_selectors_multiply(exporter: Exporter, sequence_first: bool) -> None:
    """One in ten, of these one in five, and of these two in three, whichever is told first."""
    if sequence_first:
        sequence(exporter, 7, 1, 2, 3)
    systematic(exporter, 1, 9)
    systematic(exporter, 2, 4)
    exporter.say((SELECTOR, (309, 4), (310, 4)), whole(3, 8), whole(2, 4), whole(3, 4))
    sequence(exporter, 7, 1, 2, 3)
    sequence(exporter, 8, 2, 2)

    assert exporter.flows(SEQUENCE, 7, 8) == [75_000, 25_000]
    assert not exporter.reader.unknown_samplers


def test_a_filter_in_a_chain_takes_nothing_from_what_it_is_for(exporter: Exporter) -> None:
    """What a property match leaves out was not to be counted (RFC 5475, 6.1)."""
    exporter.say((SELECTOR, ALGORITHM, (8, 4)), whole(5, 8), whole(5, 2), ENDS[:4])
    systematic(exporter, 1, 99)
    sequence(exporter, 7, 5, 1)
    sequence(exporter, 9, 1, 5)

    assert exporter.flows(SEQUENCE, 7, 9) == [100_000, 100_000]


def test_a_chain_of_which_a_link_is_not_known_is_counted_as_unknown_until_it_is(exporter: Exporter) -> None:
    systematic(exporter, 1, 9)
    sequence(exporter, 7, 1, 2)
    before, unknown = exporter.flows(SEQUENCE, 7), exporter.reader.unknown_samplers
    systematic(exporter, 2, 4)

    assert (before, unknown) == ([1000], 1)
    assert exporter.flows(SEQUENCE, 7) == [50_000]
    assert exporter.reader.unknown_samplers == 1


def test_the_only_chain_of_a_domain_is_that_of_records_that_name_none(exporter: Exporter) -> None:
    systematic(exporter, 1, 9)
    systematic(exporter, 2, 4)
    sequence(exporter, 7, 1, 2)

    assert exporter.flows(None, 0) == [50_000]


def test_a_sequence_that_nothing_was_said_of_is_counted_as_unknown(exporter: Exporter) -> None:
    for selector, space in ((1, 9), (2, 99)):
        systematic(exporter, selector, space)

    assert exporter.flows(SEQUENCE, 70) == [1000]
    assert exporter.reader.unknown_samplers == 1


BASIC, SUB, MULTI = 291, 292, 293
ORDERED, ONE_OF = 4, 1
NAMES, SYSTEMATIC = 500, 501
"""Templates of the records in lists: of a selector alone, and of one with how it selects."""


def varying(content: bytes) -> bytes:
    """A field of no fixed length."""
    return bytes([255]) + whole(len(content), 2) + content


def selectors_in(kind: int, *selectors: int, semantic: int = ORDERED) -> bytes:
    """A list of them (RFC 6313)."""
    each = b"".join(whole(one, 8) for one in selectors)
    if kind == BASIC:
        return struct.pack("!BHH", semantic, *SELECTOR) + each
    if kind == SUB:
        return struct.pack("!BH", semantic, NAMES) + each
    parts = b"".join(struct.pack("!HH", NAMES, 12) + whole(one, 8) for one in selectors)
    return bytes([semantic]) + parts


def templates(exporter: Exporter) -> None:
    for number, fields in ((NAMES, (SELECTOR,)), (SYSTEMATIC, (SELECTOR, (305, 4), (306, 4)))):
        specified = b"".join(struct.pack("!HH", *one) for one in fields)
        assert exporter._send((2, struct.pack("!HH", number, len(fields)) + specified)) == []


def listed(exporter: Exporter, kind: int, content: bytes, number: int = 7) -> None:
    exporter.say((SEQUENCE, (138, 4), (kind, 65535)), whole(number, 8), whole(3, 4), varying(content))


@pytest.mark.parametrize("kind", [BASIC, SUB, MULTI], ids=["basicList", "subTemplateList", "subTemplateMultiList"])
def test_the_selectors_of_a_sequence_may_be_a_list(exporter: Exporter, kind: int) -> None:
    templates(exporter)
    systematic(exporter, 1, 9)
    systematic(exporter, 2, 4)
    listed(exporter, kind, selectors_in(kind, 1, 2))
    listed(exporter, kind, selectors_in(kind, 2), number=8)

    assert exporter.flows(SEQUENCE, 7, 8) == [50_000, 5_000]
    assert not exporter.reader.unknown_samplers


def test_a_list_may_say_how_its_selectors_select(exporter: Exporter) -> None:
    """Of two templates: one that takes what matches, then one in ten; and within another list one in five of these."""
    templates(exporter)
    exporter.say((SELECTOR, ALGORITHM, (8, 4)), whole(5, 8), whole(5, 2), ENDS[:4])
    parts = struct.pack("!HH", NAMES, 12) + whole(5, 8)
    parts += struct.pack("!HH", SYSTEMATIC, 20) + whole(1, 8) + whole(1, 4) + whole(9, 4)
    listed(exporter, MULTI, bytes([ORDERED]) + parts)
    inner = struct.pack("!BH", ORDERED, SYSTEMATIC) + whole(2, 8) + whole(1, 4) + whole(4, 4)
    outer = struct.pack("!BHH", ORDERED, SUB, 65535) + varying(selectors_in(SUB, 1)) + varying(inner)
    listed(exporter, BASIC, outer, number=8)

    assert exporter.flows(SEQUENCE, 7, 8) == [10_000, 50_000]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (BASIC, selectors_in(BASIC, 1, 2, semantic=ONE_OF)),
        (BASIC, struct.pack("!BHH", ORDERED, 302, 0) + bytes(100)),
        (BASIC, struct.pack("!BHHI", ORDERED, 302 | 0x8000, 8, 9) + whole(1, 8)),
        (BASIC, selectors_in(BASIC, 1)[:9]),
        (BASIC, bytes([ORDERED])),
        (SUB, struct.pack("!BH", ORDERED, 999) + whole(1, 8)),
        (SUB, struct.pack("!BH", ORDERED, OPTIONS) + whole(1, 8)),
        (MULTI, struct.pack("!BHH", ORDERED, NAMES, 3) + whole(1, 8)),
        (MULTI, struct.pack("!BHH", ORDERED, NAMES, 999) + whole(1, 8)),
        (BASIC, b""),
        (SUB, selectors_in(SUB, *[1] * 5000)),
    ],
    ids=["one of", "no size", "a maker's", "cut", "no more", "no template", "options", "short", "long", "none", "many"],
)
def test_a_list_that_says_no_sequence_is_none(exporter: Exporter, kind: int, content: bytes) -> None:
    templates(exporter)
    systematic(exporter, 1, 9)
    systematic(exporter, 2, 4)
    listed(exporter, kind, content)

    assert exporter.flows(SEQUENCE, 7) == [1000]
    assert exporter.reader.unknown_samplers == 1


def test_lists_within_lists_are_read_so_deep_and_no_deeper(exporter: Exporter) -> None:
    systematic(exporter, 1, 9)
    systematic(exporter, 2, 4)
    sequence(exporter, 1, 2)
    content = selectors_in(BASIC, 1)
    for depth in range(2, 8):
        content = struct.pack("!BHH", ORDERED, BASIC, 65535) + varying(content)
        listed(exporter, BASIC, content, number=depth)

    assert exporter.flows(SEQUENCE, *range(2, 8)) == [10_000] * 3 + [1000] * 3


@pytest.mark.parametrize("links", [3, 17], ids=["more than one in a million", "more selectors than anybody has"])
def test_a_chain_that_no_exporter_has_is_not_believed(exporter: Exporter, links: int) -> None:
    systematic(exporter, 1, 9 if links == 17 else 999)
    systematic(exporter, 2, 4)
    sequence(exporter, 7, *[1] * links)

    assert exporter.flows(SEQUENCE, 7) == [1000]
    assert exporter.reader.unknown_samplers == 1


def test_the_only_selector_of_a_domain_is_that_of_records_that_name_none(exporter: Exporter) -> None:
    exporter.say((SELECTOR, (305, 4), (306, 4)), whole(1, 8), whole(1, 4), whole(9, 4))

    assert exporter.flows(None, 0) == [10_000]


def test_of_a_selector_that_nothing_was_said_of_the_counts_are_as_they_are_and_that_is_counted(
    exporter: Exporter,
) -> None:
    """Where several are known it cannot be guessed which one it is like."""
    for selector, space in ((1, 9), (2, 99)):
        exporter.say((SELECTOR, (305, 4), (306, 4)), whole(selector, 8), whole(1, 4), whole(space, 4))

    assert exporter.flows(SELECTOR, 9) == [1000]
    assert exporter.reader.unknown_samplers == 1


def test_a_selector_that_changes_its_rate_has_the_new_one_from_there_on(exporter: Exporter) -> None:
    found = []
    for space in (9, 99):
        exporter.say((SELECTOR, (305, 4), (306, 4)), whole(1, 8), whole(1, 4), whole(space, 4))
        found += exporter.flows(SELECTOR, 1)

    assert found == [10_000, 100_000]


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        (((305, 4), (306, 255)), (whole(1, 4), b"\xff" * 255)),
        (((305, 4), (306, 4)), (whole(0, 4), whole(9, 4))),
        (((309, 4), (310, 4)), (whole(10, 4), whole(3, 4))),
        (((34, 200),), (b"\xff" * 200,)),
        (((311, 8),), (struct.pack("!d", float("nan")),)),
        (((311, 8),), (struct.pack("!d", 1e-12),)),
        (((329, 8), (330, 8), (331, 8), (332, 8)), tuple(whole(n, 8) for n in (0, 9, 9, 3))),
    ],
)
def test_what_no_sampler_does_is_not_believed(
    exporter: Exporter, fields: tuple[Field, ...], values: tuple[bytes, ...]
) -> None:
    """Found by the fuzzer: an interval of two hundred bytes is larger than any float."""
    exporter.say((SELECTOR, *fields), whole(1, 8), *values)

    assert exporter.flows(SELECTOR, 1) == [1000]


@pytest.mark.parametrize("element", [4, 152, 153, 22])
def test_what_is_told_of_a_flow_beside_its_counts_can_be_kept(element: int) -> None:
    """Found by the fuzzer: a template may say that the protocol, or a time, has two hundred bytes."""
    send: Callable[..., list[int]] = Exporter()._send
    template = struct.pack("!HH", FLOWS, 4) + struct.pack("!HHHHHHHH", 8, 4, 12, 4, 1, 4, element, 200)

    assert send((2, template), (FLOWS, ENDS + whole(5, 4) + b"\xff" * 200)) == [5]
