"""Recordings of devices: what a walk of a real one found, and how fast its counters grew, for the agent to answer from.

A recording is YAML that a person can read, and names nobody: addresses of hardware, contacts, places, descriptions of
interfaces and the device's own name are replaced when it is made.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, StringConstraints

from convergedon.adapters.snmp import agent, ber
from convergedon.adapters.snmp.asking import Peer, order
from convergedon.core import strict
from convergedon.core.errors import Misconfigured, Unavailable

WALKED = ("1.3.6.1.2.1.1", "1.3.6.1.2.1.2", "1.3.6.1.2.1.31.1.1", "1.3.6.1.2.1.47.1.1")
"""What is recorded: system, interfaces, ifXTable and entPhysicalTable."""
ROWS, LARGEST = 40, 100_000
UPTIME = "1.3.6.1.2.1.1.3.0"
DESCR, NAME, SPACES = "1.3.6.1.2.1.1.1.0", "1.3.6.1.2.1.1.5.0", re.compile(r"\s+")
NAMES_SOMEBODY = {"1.3.6.1.2.1.1.4": b"", "1.3.6.1.2.1.1.6": b"", "1.3.6.1.2.1.31.1.1.1.18": b""}
"""sysContact, sysLocation and ifAlias, and what stands there instead."""
HARDWARE = "1.3.6.1.2.1.2.2.1.6"
KINDS = {
    "integer": ber.INTEGER,
    "octets": ber.OCTETS,
    "oid": ber.OID,
    "ip": ber.IP,
    "counter": ber.COUNTER,
    "gauge": ber.GAUGE,
    "ticks": ber.TICKS,
    "opaque": ber.OPAQUE,
    "counter64": ber.COUNTER64,
}
WORDS = {tag: kind for kind, tag in KINDS.items()}
SIZES = {ber.COUNTER: 1 << 32, ber.COUNTER64: 1 << 64, ber.TICKS: 1 << 32}
TICKS_A_SECOND = 100

Kind = Literal["integer", "octets", "oid", "ip", "counter", "gauge", "ticks", "opaque", "counter64"]
Oid = Annotated[str, StringConstraints(pattern=r"^[0-2](\.(0|[1-9]\d*))+$")]


class Value(strict.Strict):
    """One of them; ``grows`` is by how much a second. Octets that are no text are written as 0x and digits."""

    kind: Kind
    value: int | str
    grows: float = Field(0.0, ge=0, strict=False)


class Recorded(strict.Strict):
    """The file."""

    about: str
    values: dict[Oid, Value]


class Recording:
    """A recorded device that runs: its uptime and counters go on, and what can be set on it can be set."""

    def __init__(self, values: Mapping[str, Value], clock: Callable[[], float] = time.monotonic) -> None:
        self._values = {tuple(map(int, oid.split("."))): _bound(value) for oid, value in values.items()}
        self._grows = {tuple(map(int, oid.split("."))): value.grows for oid, value in values.items() if value.grows}
        self._order = sorted(self._values)
        self._clock, self._began = clock, clock()

    def names(self) -> Sequence[agent.Name]:
        return self._order

    def value(self, name: agent.Name) -> agent.Bound | None:
        bound = self._values.get(name)
        grows = self._grows.get(name)
        if bound is None or not grows or not isinstance(bound[1], int):
            return bound
        return bound[0], (bound[1] + int(grows * (self._clock() - self._began))) % SIZES.get(bound[0], 1 << 31)

    def fault(self, name: agent.Name, bound: agent.Bound) -> str:
        return agent.fault(self, name, bound)

    def put(self, name: agent.Name, bound: agent.Bound) -> None:
        self._values[name] = bound
        if name[:-1] == IF_ADMIN:  # a line that is plugged in follows
            oper = (*IF_OPER, name[-1])
            if oper in self._values:
                self._values[oper] = bound


IF_ADMIN, IF_OPER = (1, 3, 6, 1, 2, 1, 2, 2, 1, 7), (1, 3, 6, 1, 2, 1, 2, 2, 1, 8)


def read(file: Traversable) -> Mapping[str, Value]:
    """What is recorded. Raises Misconfigured with the file, the line and the key."""
    values = strict.read(Recorded, file).values
    for oid, value in values.items():
        try:
            tag, plain = _bound(value)
            packed = ber.tlv(ber.SEQUENCE, _varbind(oid, tag, plain))
            ber.varbinds(packed, 0, len(packed))
        except (ValueError, AttributeError, OverflowError, ber.Unreadable):
            place = strict.where(file, "values", oid, "value")
            raise Misconfigured(f"{place}: this is no value of kind {value.kind}") from None
    return values


async def walk(peer: Peer) -> dict[str, agent.Bound]:
    """What a device has of WALKED. Raises Unavailable."""
    found: dict[str, agent.Bound] = {}
    for root in WALKED:
        last, inside, answers = root, True, 0
        while inside:
            inside, answers = False, answers + 1
            for oid, tag, value in await peer.bulk([last], ROWS):
                inside = oid.startswith(f"{root}.") and tag in WORDS and order(oid) > order(last)
                if not inside:
                    break
                found[oid] = (tag, value)
                last = oid
            if len(found) > LARGEST or answers > peer.most_answers:
                raise Unavailable(f"it has more than {LARGEST:,} values, or they have no end")
    return found


async def record(peer: Peer, seconds: float, called: str) -> Recorded:
    """Walk a device twice, so many seconds apart; it is called so in what is written. Raises Unavailable."""
    before, began = await walk(peer), time.monotonic()
    await asyncio.sleep(seconds)
    after, passed = await walk(peer), time.monotonic() - began
    if not before:
        raise Unavailable("it tells nothing of itself: may its user or community read the system and interface groups?")
    values = {
        oid: Value(kind=_kind(tag), value=_text(tag, value), grows=_growth(oid, before[oid], after.get(oid), passed))
        for oid, (tag, value) in _anonymous(before, called)
    }
    return Recorded(about=f"{called}, walked twice, {seconds:g} s apart", values=values)


def write(recorded: Recorded, file: Path) -> None:
    """Raises Misconfigured."""
    lines = [yaml.safe_dump({"about": recorded.about}, allow_unicode=True).rstrip(), "values:"]
    for oid, value in recorded.values.items():
        said = yaml.safe_dump(value.model_dump(exclude_defaults=True), default_flow_style=True, width=10_000)
        lines.append(f"  {oid}: {said.strip()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as written:
            written.write("\n".join(lines) + "\n")
    except OSError as error:
        raise Misconfigured(f"{file}: cannot be written: {error.strerror}") from error


def _anonymous(found: Mapping[str, agent.Bound], called: str) -> Iterable[tuple[str, agent.Bound]]:
    """The same without who and where it is."""
    own = found.get(NAME, (ber.OCTETS, b""))[1]
    hardware = 0
    for oid, (tag, value) in found.items():
        if not isinstance(value, bytes):
            yield oid, (tag, value)
            continue
        column = oid.rpartition(".")[0]
        if column == HARDWARE and value.strip(b"\0"):
            hardware += 1
            value = b"\x02" + hardware.to_bytes(5, "big")
        elif column in NAMES_SOMEBODY:
            value = NAMES_SOMEBODY[column]
        elif isinstance(own, bytes) and own:
            value = value.replace(own, called.encode()).replace(own.partition(b".")[0], called.encode())
        yield oid, (tag, value)


def _growth(oid: str, before: agent.Bound, after: agent.Bound | None, seconds: float) -> float:
    tag, then = before
    if oid == UPTIME:
        return TICKS_A_SECOND
    if tag not in (ber.COUNTER, ber.COUNTER64) or after is None or not isinstance(then, int):
        return 0.0
    return round(((after[1] if isinstance(after[1], int) else then) - then) % SIZES[tag] / seconds, 3)


def _kind(tag: int) -> Kind:
    found: Kind = WORDS[tag]  # type: ignore[assignment]
    return found


def _text(tag: int, value: ber.Value) -> int | str:
    return value if isinstance(value, int) else ber.text(tag, value)


def _bound(value: Value) -> agent.Bound:
    tag = KINDS[value.kind]
    if tag in (ber.OCTETS, ber.OPAQUE):
        text = str(value.value)
        return tag, bytes.fromhex(text[2:]) if text.startswith("0x") else text.encode()
    if tag in ber.UNSIGNED and not (isinstance(value.value, int) and value.value >= 0):
        raise ValueError("a number that is not negative")
    return tag, value.value


def _varbind(oid: str, tag: int, value: ber.Value) -> bytes:
    return ber.tlv(ber.SEQUENCE, ber.write(ber.OID, oid) + ber.write(tag, value))
