"""What a line of a call file means is said strictly, and whatever stands in one is a record or has a reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzz.targets import MEANT, kept
from hypothesis import given, settings
from hypothesis import strategies as st

from convergedon.adapters.file import mapping
from convergedon.adapters.file.mapping import BadLine
from convergedon.core.errors import Misconfigured

HEADER = b"ip,begin,end,kb,called\n"
GOOD = b'10.0.0.1,26.11.2026 10:00:00,2026-11-26T09:05:00Z,1.5,"+49,1"'


def source(**changes: Any) -> mapping.Source:
    return mapping.Source.model_validate({**MEANT, **changes})


def test_a_line_becomes_a_record_with_units_and_times_of_the_mapping() -> None:
    assert source().reader(HEADER)(GOOD) == {
        "address": "10.0.0.1",
        "start": 1795683600.0,
        "end": 1795683900.0,
        "counts": {"octets": 1536},
        "texts": {"called": "+49,1"},
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"counts": {}}, "voice.counts: nothing is counted"),
        ({"counts": {"start": {"column": "x"}}}, "start has a meaning already"),
        ({"counts": {"called": {"column": "x"}}}, "called is a count and a text"),
        ({"counts": {"octets": {"column": "x", "times": 0}}}, "counts.octets.times: must be more than 0"),
        ({"counts": {"octets": {"column": "x", "times": 1.5}}}, "counts.octets.times"),
        ({"whose": {}}, "whose: give one of address and service"),
        ({"start": {"column": "x", "zone": "Berlin/Europe"}}, "start.zone: Berlin/Europe is no time zone"),
        ({"start": {"column": "x", "format": "rfc"}}, "start.format: must be iso8601"),
        ({"header": False}, "columns are named by numbers"),
        ({"start": {"column": 3}}, "column 3: columns are named by the names"),
        ({"delimiter": ";;"}, "delimiter"),
        ({"format": "xml"}, "format"),
        ({"colums": 1}, "voice.colums: this key is not known"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_with_file_and_key(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(yaml.safe_dump({"sources": {"voice": {**MEANT, **changes}}}))

    with pytest.raises(Misconfigured) as refused:
        mapping.load(file)
    assert re.match(rf"{re.escape(str(file))}, line \d+: sources\.voice", str(refused.value))
    assert said in str(refused.value)


def test_the_mapping_that_ships_is_read_and_so_is_its_example() -> None:
    text = mapping.SHIPPED.read_text()
    example = "\n".join(one[2:] for one in text.splitlines() if one.startswith("# ") or one == "#").partition(
        "sources:"
    )

    assert mapping.load().sources == {}
    read = mapping.CallFiles.model_validate(yaml.safe_load("sources:" + example[2]))
    assert read.source("voice-1.csv") == "voice"
    assert read.source("voice-1.csv.gz") is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (GOOD.replace(b"10.0.0.1", b"ten"), "ip: 'ten' is no IP address"),
        (GOOD.replace(b"26.11.2026 ", b""), "begin: '10:00:00' is no time of the form"),
        (GOOD.replace(b"05:00Z", b"05:00"), "end: '2026-11-26T09:05:00' has no offset, and the mapping names no zone"),
        (GOOD.replace(b"2026-11-26T09", b"2026-11-26T08"), "it ends before it starts"),
        (GOOD.replace(b",1.5", b",1.0001"), "kb: '1.0001', times 1024, is no whole number"),
        (GOOD.replace(b",1.5", b",-1"), "kb: '-1'"),
        (GOOD.replace(b",1.5", b",NaN"), "kb: 'NaN' is no number"),
        (GOOD.replace(b",1.5", b",1e999999999"), "is no number that can be kept"),
        (GOOD.replace(b",1.5", b","), "kb: it is empty"),
        (GOOD + b",more", "it has 6 columns, the first line has 5"),
        (b"\xff" + GOOD, "it is no utf-8"),
    ],
)
def test_what_is_no_record_has_its_reason(line: bytes, said: str) -> None:
    with pytest.raises(BadLine) as bad:
        source().reader(HEADER)(line)
    assert said in str(bad.value)


def test_a_header_without_a_column_of_the_mapping_is_said() -> None:
    with pytest.raises(BadLine, match="the first line names no column kb"):
        source().reader(b"ip,begin,end,called\n")


def is_read(read: Callable[[bytes], dict[str, Any]], line: bytes) -> bool:
    """Whether a line is a record that can be kept, or has a reason."""
    try:
        return kept(read(line))
    except BadLine as bad:
        return bool(str(bad))


ODD = st.sampled_from(
    ["", "0", "-0", "1e400", "Infinity", "٣", "9" * 50, "\0", "a\ud7ff", "1777636800", "2026-05-01T12:00:00Z"]
)
FIELDS = st.lists(st.one_of(st.text(max_size=30), ODD), min_size=3, max_size=7)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), FIELDS.map(lambda fields: ",".join(fields).encode("utf-8", "ignore"))))
def test_whatever_stands_in_a_csv_line_is_a_record_or_has_a_reason(line: bytes) -> None:
    for read in (
        source().reader(HEADER),
        source(encoding="latin-1", start={"column": "begin", "format": "epoch"}, end=None).reader(HEADER),
    ):
        assert is_read(read, line)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), ODD),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)
OBJECTS = st.fixed_dictionaries({}, optional=dict.fromkeys(("ip", "begin", "end", "kb", "called"), JSON))


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.one_of(OBJECTS, JSON).map(lambda value: repr(value).replace("'", '"').encode("utf-8", "ignore")),
    )
)
def test_whatever_stands_in_a_json_line_is_a_record_or_has_a_reason(line: bytes) -> None:
    read = source(format="jsonl", start={"column": "begin", "format": "epochMillis"}, end=None).reader(b"")
    assert is_read(read, line)
