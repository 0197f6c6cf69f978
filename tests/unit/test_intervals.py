"""The rules of adding up: said strictly, and the same sums whatever the order and however it is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.core.errors import Misconfigured
from convergedon.mediation import intervals
from convergedon.mediation.intervals import IP_TRAFFIC, LONGEST_WAIT, TRAFFIC, Rule, due

NOW = 1_790_000_000.0
ADDRESSES = ["10.0.0.1", "10.0.0.2", "192.0.2.1", "2001:db8::1"]
KNOWN = set(ADDRESSES[:2]) | {"2001:db8::1"}
RECORDS = st.lists(
    st.builds(
        lambda source, destination, octets, ago: {
            "source": source, "destination": destination, "octets": octets, "packets": 1,
            "start": NOW - ago - 1, "end": NOW - ago,
        },
        st.sampled_from(ADDRESSES), st.sampled_from(ADDRESSES), st.integers(0, 2**62), st.floats(0, 1000),
    ),
    max_size=40,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("usageTypes: {ip-traffic: {interval: 7, grace: 0}}", "usageTypes.ip-traffic.interval: must divide a day"),
        ("usageTypes: {ip-traffic: {interval: 60}}", "usageTypes.ip-traffic.grace: this key is missing"),
        ("usageTypes: {voice: {interval: 60, grace: 1}}", "usageTypes.ip-traffic: this key is missing"),
        ("usageTypes: {ip-traffic: {interval: 60, grace: 1, key: []}}", "usageTypes.ip-traffic.key: this key is not"),
        ("usageTypes: {ip-traffic: {interval: 60, grace: 1, keys: [port]}}", "ip-traffic.keys: port is none of"),
        ("usageTypes: {ip-traffic: {interval: 60, grace: 1, keys: [egress, egress]}}", "keys: egress is given twice"),
        ("usageTypes: {ip-traffic: {interval: '60', grace: 1}}", "usageTypes.ip-traffic.interval"),
        ("usageTypes: {ip-traffic: {interval: 60, interval: 60, grace: 1}}", "line 1"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_with_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "metering.yaml"
    file.write_text(text)

    with pytest.raises(Misconfigured) as refused:
        intervals.load(file)
    assert str(file) in str(refused.value)
    assert said in str(refused.value)


def test_the_rules_that_ship_are_read() -> None:
    assert intervals.load().usageTypes[IP_TRAFFIC] == Rule(interval=300, grace=60)


def test_an_interval_is_closed_when_it_is_over_and_nothing_comes_for_it_any_more() -> None:
    """A backlog after an outage does not make a correction of everything; a late talker does not hold it for ever."""
    end = 1000
    assert not due(end, 60, last=900, now=1059)
    assert due(end, 60, last=900, now=1060)
    assert not due(end, 60, last=1055, now=1100)
    assert due(end, 60, last=1055, now=1115)
    assert due(end, 60, last=end + 60 + LONGEST_WAIT, now=end + 60 + LONGEST_WAIT)


def summed(parts: list[list[dict[str, Any]]], rule: Rule) -> dict[Any, Any]:
    """interval -> who -> sums, by the way of the bus: part by part, each as an observation."""
    found: dict[int, dict[Any, Any]] = {}
    for number, records in enumerate(parts):
        totals, _, misdated = intervals.of_flows(records, KNOWN, rule, "pe1", NOW)
        assert misdated == 0
        for begin, total in totals.items():
            metered = {"observation": str(number), "names": TRAFFIC, "keys": rule.keys, "rows": intervals.rows(total)}
            intervals.merge(found.setdefault(begin, {}), metered)
    return {
        begin: {kept: (one.counts, one.records, one.start, one.end) for kept, one in sums.items()}
        for begin, sums in found.items()
    }


@given(RECORDS, st.integers(1, 7), st.sampled_from([1, 60, 3600]))
def test_sums_are_the_same_in_any_order_and_however_they_are_cut(records: Any, size: int, interval: int) -> None:
    rule = Rule(interval=interval, grace=0)
    cut = [records[at : at + size] for at in range(0, len(records), size)]
    whole = summed([records], rule)

    assert summed(cut, rule) == whole == summed([records[::-1]], rule)
    down = sum(record["octets"] for record in records if record["destination"] in KNOWN)
    assert sum(one[0]["octetsDown"] for sums in whole.values() for one in sums.values()) == down
    assert all(begin <= one[3] < begin + interval for begin, sums in whole.items() for one in sums.values())


def test_addresses_are_known_by_any_spelling() -> None:
    record = {"source": "2001:DB8:0::1", "destination": "192.0.2.1", "octets": 5, "packets": 1}
    found, unassigned, _ = intervals.of_flows([{**record, "start": NOW, "end": NOW}], KNOWN, Rule(interval=60, grace=0),
                                              "pe1", NOW)  # fmt: skip

    assert [kept.who.name for totals in found.values() for kept in totals] == ["2001:db8::1"]
    assert unassigned == 0
