"""What is added up before it becomes usage: records into rows of an address and an interval, rows into totals.

Decisions alone, as metering.yaml says them: which interval a record belongs to, when one may be closed, what its sums
are. Octets, packets and whatever call records count are whole numbers: sums do not depend on the order.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, StringConstraints, field_validator, model_validator

from convergedon.core import strict

IP_TRAFFIC = "ip-traffic"
TRAFFIC = ("octetsDown", "octetsUp", "packetsDown", "packetsUp")
WAYS, PACKETS = ((0, "destination"), (1, "source")), 2
"""Where in them a record counts for each of its ends, and how much further its packets do."""
FLOW_KEYS = ("exporter", "protocol", "trafficClass", "ingress", "egress")
DAY = 86_400
AHEAD = 300.0
"""Seconds by which an exporter's clock may be before ours."""
BEHIND = 7.0 * DAY
"""And after: as long as the bus keeps what was observed. A record beyond belongs to when it was received."""
LONGEST_WAIT = 3600.0
"""Seconds after its grace for which an interval stays open because records keep coming for it."""

FOR_A_LAB = f"usageTypes: {{{IP_TRAFFIC}: {{interval: 2, grace: 1}}}}\n"
"""Rules under which one who tries things out need not wait."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class Rule(strict.Strict):
    """How one usage type is added up."""

    interval: int = Field(ge=1, le=DAY)
    grace: int = Field(ge=0, le=DAY)
    keys: list[Name] = Field(default_factory=list)

    @field_validator("interval")
    @classmethod
    def _divides_a_day(cls, given: int) -> int:
        if DAY % given:
            raise ValueError("must divide a day of 86400 seconds, so that each day begins with an interval")
        return given

    @field_validator("keys")
    @classmethod
    def _says_each_once(cls, given: list[str]) -> list[str]:
        if twice := next((key for key in given if given.count(key) > 1), None):
            raise ValueError(f"{twice} is given twice")
        return given

    def begin(self, time: float) -> int:
        """The beginning of the interval that a moment belongs to."""
        return int(time // self.interval) * self.interval


def due(end: int, grace: int, last: float, now: float) -> bool:
    """Whether an interval that ended then may be closed, for which something was last metered at ``last``."""
    over = now - end - grace
    return over >= 0 and (now - last >= grace or over >= LONGEST_WAIT)


class Metering(strict.Strict):
    """The file as a whole."""

    usageTypes: dict[Name, Rule]

    @model_validator(mode="after")
    def _knows_traffic(self) -> Metering:
        if IP_TRAFFIC not in self.usageTypes:
            raise ValueError(f"usageTypes.{IP_TRAFFIC}: this key is missing")
        if strange := set(self.usageTypes[IP_TRAFFIC].keys) - set(FLOW_KEYS):
            known = ", ".join(FLOW_KEYS)
            raise ValueError(f"usageTypes.{IP_TRAFFIC}.keys: {min(strange)} is none of {known}")
        return self


def load(path: Path | None = None) -> Metering:
    """Read a file of rules, or the one that ships. Raises Misconfigured naming file and key."""
    return strict.read(Metering, path or files(__package__).joinpath("metering.yaml"))


class Who(NamedTuple):
    """Whose a record is: ``by`` address or by the id of a service."""

    by: str
    name: str


class Kept(NamedTuple):
    """What is kept apart within an interval: whose it is, and the values of the rule's keys."""

    who: Who
    keys: tuple[Any, ...] = ()


@dataclass(slots=True)
class Total:
    """Sums in the order of their names, the time they span, and of how many records they are."""

    sums: list[int]
    start: float
    end: float
    records: int = 0


Intervals = dict[int, dict[Kept, Total]]


def of_flows(
    records: Iterable[Mapping[str, Any]], known: Container[str], rule: Rule, exporter: str, received: float
) -> tuple[Intervals, int, int]:
    """Add up flow records, to and from addresses that are known; how many concern none, and how many had no right time.

    A record between two known addresses is of both.
    """
    found: Intervals = {}
    unassigned = misdated = 0
    for record in records:
        ends = [(place, name) for place, end in WAYS if (name := canonical(record[end])) in known]
        if not ends:
            unassigned += 1
            continue
        start, end = record["start"], record["end"]
        if not received - BEHIND <= end <= received + AHEAD:
            start = end = received
            misdated += 1
        keys = tuple(exporter if key == "exporter" else str(record.get(key, "")) for key in rule.keys)
        interval = found.setdefault(rule.begin(end), {})
        for place, name in ends:
            total = _total(interval, Kept(Who("address", name), keys), start, end, len(TRAFFIC))
            total.sums[place] += record["octets"]
            total.sums[place + PACKETS] += record["packets"]
    return found, unassigned, misdated


def of_calls(
    records: Iterable[Mapping[str, Any]], names: Sequence[str], rule: Rule, exporter: str, received: float
) -> tuple[Intervals, int]:
    """Add up call records; and how many had no right time.

    They may be long past: a switch has written them, and its clock is believed unless it is before ours.
    """
    found: Intervals = {}
    misdated = 0
    for record in records:
        start, end = record["start"], record["end"]
        if end > received + AHEAD:
            start = end = received
            misdated += 1
        texts = record["texts"]
        keys = tuple(exporter if key == "exporter" else str(texts.get(key, "")) for key in rule.keys)
        total = _total(found.setdefault(rule.begin(end), {}), Kept(whose(record), keys), start, end, len(names))
        for place, name in enumerate(names):
            total.sums[place] += record["counts"].get(name, 0)
    return found, misdated


def whose(record: Mapping[str, Any]) -> Who:
    """Whose a call record is, as it says."""
    return Who("address", canonical(record["address"])) if "address" in record else Who("service", record["service"])


def _total(interval: dict[Kept, Total], kept: Kept, start: float, end: float, width: int) -> Total:
    """The total that a further record of this time belongs to."""
    total = interval.get(kept)
    if total is None:
        total = interval[kept] = Total([0] * width, start, end)
    elif end > total.end:
        total.end = end
    if start < total.start:
        total.start = start
    total.records += 1
    return total


def rows(interval: Mapping[Kept, Total]) -> list[list[Any]]:
    """Totals as they go over the bus."""
    return [[*kept.who, kept.keys, one.sums, one.start, one.end, one.records] for kept, one in interval.items()]


@dataclass(slots=True)
class Sum:
    """What all rows of an interval came to for one of those kept apart, and which observations they are from."""

    start: float
    end: float
    counts: dict[str, int] = field(default_factory=dict)
    records: int = 0
    sources: list[str] = field(default_factory=list)


def merge(into: dict[Kept, Sum], metered: Mapping[str, Any]) -> None:
    """Add the rows of one observation; its keys are kept with their names, which may have changed meanwhile."""
    for by, name, keys, sums, start, end, records in metered["rows"]:
        kept = Kept(Who(by, name), tuple(zip(metered["keys"], keys, strict=True)))
        one = into.get(kept)
        if one is None:
            one = into[kept] = Sum(start, end)
        one.start, one.end = min(one.start, start), max(one.end, end)
        one.records += records
        one.sources.append(metered["observation"])
        for counted, value in zip(metered["names"], sums, strict=True):
            one.counts[counted] = one.counts.get(counted, 0) + value


def canonical(address: str) -> str:
    """The one spelling of an address; most have it, and traffic has many."""
    return address if PLAIN(address) else _canonical(address)


PLAIN = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}").fullmatch


@lru_cache(maxsize=65_536)
def _canonical(address: str) -> str:
    return str(ip_address(address))
