"""Devices asked for the counters of their interfaces, by bulk walks, each at its own interval.

What went over the interfaces since the last reading is an observation (``counter``). A device that does not answer is
one fault until it does again, and not one for each poll.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Literal
from zlib import crc32

import structlog

from convergedon.adapters.contract import Device, Observation
from convergedon.adapters.silence import Silence
from convergedon.adapters.snmp.asking import Column, Engines, Peer
from convergedon.adapters.snmp.counters import Interface, Reading, between, record
from convergedon.adapters.snmp.mapping import LONGEST_OBJECT
from convergedon.core import trace
from convergedon.core.errors import Unavailable
from convergedon.core.tasks import end

SYSTEM_UPTIME = "1.3.6.1.2.1.1.3"
NAME, DISCONTINUITY, HIGH_SPEED = 1, 19, 15
# ifXTable: column -> what is counted in it
HIGH: Mapping[int, str] = {
    6: "octetsIn",
    7: "packetsIn",
    8: "packetsIn",
    9: "packetsIn",
    10: "octetsOut",
    11: "packetsOut",
    12: "packetsOut",
    13: "packetsOut",
}
IF_X, IF = "1.3.6.1.2.1.31.1.1.1", "1.3.6.1.2.1.2.2.1"
LOW: Mapping[int, str] = {10: "octetsIn", 16: "octetsOut"}
DESCR, SPEED = 2, 5
AT_ONCE, LONGEST_TURN = 64, 60.0
"""Devices that are read at the same time, and seconds that each may take, unless its interval is longer."""
SILENT_POLLS = 2
"""Polls without an answer after which a device counts as unreachable: one datagram may be lost."""
Tell = Callable[[Iterable[Observation]], None]
Learn = Callable[[str, Mapping[int, str]], None]
"""Is given what a device calls its interfaces, by ifIndex."""
log = structlog.get_logger(__name__)


class Polling:
    """Asks the devices whose ``snmp.poll`` says so; ``tell`` is given what there is to say, ``learn`` their names."""

    def __init__(self, devices: Iterable[Device], tell: Tell, learn: Learn = lambda *_: None) -> None:
        self._devices = [device for device in devices if "poll" in device.settings.get("snmp", {})]
        self._tell, self._learn = tell, learn
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: list[asyncio.Task[None]] = []
        self._engines = Engines()
        self.counts: Counter[str] = Counter()
        self.silent: dict[str, str] = {}

    @property
    def unreadable(self) -> int:
        """Datagrams that came in place of answers."""
        return self._engines.dropped.total()

    def start(self) -> None:
        if self._devices:
            self._engines = Engines()
            self._tasks = [asyncio.create_task(self._attend(device)) for device in self._devices]

    async def stop(self) -> None:
        """Whatever becomes of the polls, no socket stays open."""
        tasks, self._tasks = self._tasks, []
        try:
            await end(tasks)
        finally:
            self._engines.close()

    async def _attend(self, device: Device) -> None:
        """Poll one device for ever, beginning at a moment of its own within the interval."""
        trace.leave()
        interval = float(device.settings["snmp"]["poll"].get("interval", 60))
        agent, before = Agent(self._engines, device), None
        silence = Silence("snmp", "SNMP", device.name, device.tenant, times=SILENT_POLLS)
        await asyncio.sleep(interval * (crc32(device.name.encode()) % 1000) / 10_000)
        while True:
            began = time.monotonic()
            try:
                after = await self._turn(agent, device.name, max(interval, LONGEST_TURN))
                self.counts["polled"] += 1
                self.silent.pop(device.name, None)
                self._say(silence, silence.answered())
                self._learn(device.name, agent.names)
                if before is not None:
                    self._tell(self._observe(device, before, after))
                before = after
            except Unavailable as error:
                self.counts["unanswered"] += 1
                if seen := silence.missed(str(error)):
                    self.silent[device.name] = str(error)
                    self._say(silence, seen)
            except Exception:
                self.counts["error"] += 1
                log.exception("device not polled", device=device.name)
            await asyncio.sleep(max(0.0, interval - (time.monotonic() - began)))

    async def _turn(self, agent: Agent, device: str, longest: float) -> Reading:
        """One reading, when it is its turn; one that drags on does not keep others from theirs. Raises Unavailable."""
        async with self._turns:
            try:
                async with asyncio.timeout(longest):
                    return await agent.read()
            except TimeoutError:
                raise Unavailable(f"{device} is read for more than {longest:g} s and has not come to its end") from None

    def _say(self, silence: Silence, seen: Observation | None) -> None:
        if seen is not None:
            self._tell([seen])
            silence.told(seen)

    def _observe(self, device: Device, before: Reading, after: Reading) -> list[Observation]:
        records = []
        for name, went in between(before, after):
            if isinstance(went, str):
                self.counts[went] += 1
            else:
                records.append(record(name, went, before, after))
        self.counts["interfaces"] += len(records)
        if not records:
            return []
        id = hashlib.sha256(f"{device.name} {after.uptime} {after.time}".encode()).hexdigest()[:32]
        about = {"records": records}
        return [Observation(id, "counter", "snmp", device.name, device.tenant, after.time, attributes=about)]


class Agent:
    """One device as it is polled."""

    def __init__(self, engines: Engines, device: Device) -> None:
        self._peer, self._device = Peer(engines, device), device
        named = device.settings["snmp"].get("interfaces", {})
        self._named: Column = {str(index): name.encode() for index, name in named.items()}
        self.names: dict[int, str] = {}
        """What its interfaces were called when it was last read, by ifIndex."""

    async def read(self) -> Reading:
        """Raises Unavailable when it does not answer, or not what it is asked."""
        uptime = (await self._peer.columns(SYSTEM_UPTIME[: -len(".3")], [3]))[3]
        columns = await self._peer.columns(IF_X, [NAME, *HIGH, HIGH_SPEED, DISCONTINUITY])
        columns[NAME] |= self._named
        bits: Literal[32, 64] = 64 if columns[6] else 32
        if bits == 32:
            columns = await self._low(columns)
        interfaces = _interfaces(columns, HIGH if bits == 64 else LOW, bits)
        if not isinstance(since := uptime.get("0"), int) or not interfaces:
            raise Unavailable(f"{self._device.name} tells no uptime or no interfaces: may the user read IF-MIB?")
        self.names = {int(index): _text(name) for index, name in columns[NAME].items() if index.isdigit()}
        return Reading(time.time(), since, interfaces)

    async def _low(self, extended: Mapping[int, Column]) -> dict[int, Column]:
        """Of a device without counters of 64 bits."""
        columns = await self._peer.columns(IF, [DESCR, SPEED, *LOW])
        named: dict[int, Column] = {
            NAME: extended[NAME] or columns[DESCR],
            **{column: columns[column] for column in LOW},
        }
        named[HIGH_SPEED] = {index: _number(value) // 1_000_000 for index, value in columns[SPEED].items()}
        named[DISCONTINUITY] = extended[DISCONTINUITY]
        return named


def _interfaces(
    columns: Mapping[int, Column], counted: Mapping[int, str], bits: Literal[32, 64]
) -> dict[str, Interface]:
    found = {}
    for index, name in columns[NAME].items():
        counts: dict[str, int] = {}
        for column, what in counted.items():
            if isinstance(value := columns[column].get(index), int):
                counts[what] = counts.get(what, 0) + value
        if counts:
            speed = 1_000_000 * _number(columns.get(HIGH_SPEED, {}).get(index))
            since = _number(columns.get(DISCONTINUITY, {}).get(index))
            found[_text(name)] = Interface(counts, bits, since, speed)
    return found


def _text(name: int | bytes) -> str:
    return (name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name))[:LONGEST_OBJECT]


def _number(value: int | bytes | None) -> int:
    """0 for what is none."""
    return value if isinstance(value, int) else 0
