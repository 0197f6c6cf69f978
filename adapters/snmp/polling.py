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
from contextlib import suppress
from typing import Any, Literal
from zlib import crc32

import structlog
from pysnmp.hlapi.v3arch import asyncio as hlapi

from convergedon.adapters.contract import Device, Observation
from convergedon.adapters.snmp.counters import Interface, Reading, between, record
from convergedon.core import trace
from convergedon.core.errors import Misconfigured, Unavailable, Unreachable

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
# Values in one answer: what a datagram holds of a device that fills it, and what is worth asking one that is not known
VALUES, FIRST_ROWS, LARGEST_TABLE = 100, 5, 100_000
AT_ONCE = 64
PATIENCE, RETRIES = 2.0, 2
SILENT_POLLS = 2
"""Polls without an answer after which a device counts as unreachable: one datagram may be lost."""
AUTH = {
    "MD5": hlapi.USM_AUTH_HMAC96_MD5,
    "SHA": hlapi.USM_AUTH_HMAC96_SHA,
    "SHA-224": hlapi.USM_AUTH_HMAC128_SHA224,
    "SHA-256": hlapi.USM_AUTH_HMAC192_SHA256,
    "SHA-384": hlapi.USM_AUTH_HMAC256_SHA384,
    "SHA-512": hlapi.USM_AUTH_HMAC384_SHA512,
}
PRIV = {
    "DES": hlapi.USM_PRIV_CBC56_DES,
    "AES": hlapi.USM_PRIV_CFB128_AES,
    "AES-192": hlapi.USM_PRIV_CFB192_AES_BLUMENTHAL,
    "AES-256": hlapi.USM_PRIV_CFB256_AES_BLUMENTHAL,
}

Tell = Callable[[Iterable[Observation]], None]
Column = dict[str, int | bytes]
"""Index -> value."""

log = structlog.get_logger(__name__)


class Polling:
    """Asks the devices whose ``snmp.poll`` says so; ``tell`` is given what there is to say."""

    def __init__(self, devices: Iterable[Device], tell: Tell, patience: float = PATIENCE) -> None:
        self._devices = [device for device in devices if "poll" in device.settings.get("snmp", {})]
        self._tell, self._patience = tell, patience
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: list[asyncio.Task[None]] = []
        self._engine: Any = None
        self.counts: Counter[str] = Counter()
        self.silent: dict[str, str] = {}

    def start(self) -> None:
        if self._devices:
            self._engine = hlapi.SnmpEngine()
            self._tasks = [asyncio.create_task(self._attend(self._engine, device)) for device in self._devices]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._engine:
            self._engine.close_dispatcher()
            self._engine = None

    async def _attend(self, engine: Any, device: Device) -> None:
        """Poll one device for ever, beginning at a moment of its own within the interval."""
        trace.leave()
        interval = float(device.settings["snmp"]["poll"].get("interval", 60))
        agent, before, failed = Agent(engine, device, self._patience), None, 0
        await asyncio.sleep(interval * (crc32(device.name.encode()) % 1000) / 10_000)
        while True:
            began = time.monotonic()
            try:
                async with self._turns:
                    after = await agent.read()
                self.counts["polled"] += 1
                if self.silent.pop(device.name, None) is not None:
                    self._tell([_reachable(device)])
                failed = 0
                if before is not None:
                    self._tell(self._observe(device, before, after))
                before = after
            except Unavailable as error:
                self.counts["unanswered"] += 1
                failed += 1
                if failed == SILENT_POLLS:
                    self.silent[device.name] = str(error)
                    self._tell([_unreachable(device, str(error))])
            except Exception:
                self.counts["error"] += 1
                log.exception("device not polled", device=device.name)
            await asyncio.sleep(max(0.0, interval - (time.monotonic() - began)))

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


def _unreachable(device: Device, words: str) -> Observation:
    return _reach(device, "fault", "major", words)


def _reachable(device: Device) -> Observation:
    return _reach(device, "clear", "cleared", "")


def _reach(device: Device, kind: Literal["fault", "clear"], severity: str, words: str) -> Observation:
    now = time.time()
    about = {
        "alarmType": "communicationsAlarm",
        "perceivedSeverity": severity,
        "probableCause": "underlyingResourceUnavailable",
        "specificProblem": "the device does not answer SNMP",
        "details": {"words": words} if words else {},
    }
    id = hashlib.sha256(f"{device.name} {kind} {now}".encode()).hexdigest()[:32]
    return Observation(id, kind, "snmp", device.name, device.tenant, now, key="snmp:unreachable", attributes=about)


class Agent:
    """One device as it is asked."""

    def __init__(self, engine: Any, device: Device, patience: float) -> None:
        self._engine, self._device, self._patience = engine, device, patience
        self._rows: dict[str, int] = {}
        self._auth = credentials(device)
        named = device.settings["snmp"].get("interfaces", {})
        self._names: Column = {str(index): name.encode() for index, name in named.items()}
        self._target: Any = None

    async def read(self) -> Reading:
        """Raises Unavailable when it does not answer, or not what it is asked."""
        uptime = (await self._columns(SYSTEM_UPTIME[: -len(".3")], [3]))[3]
        columns = await self._columns(IF_X, [NAME, *HIGH, HIGH_SPEED, DISCONTINUITY])
        columns[NAME] |= self._names
        interfaces = _interfaces(columns, HIGH, 64) if columns[6] else await self._low(columns)
        if "0" not in uptime or not interfaces:
            raise Unavailable(f"{self._device.name} tells no uptime or no interfaces: may the user read IF-MIB?")
        return Reading(time.time(), int(uptime["0"]), interfaces)

    async def _low(self, extended: Mapping[int, Column]) -> dict[str, Interface]:
        """Of a device without counters of 64 bits."""
        columns = await self._columns(IF, [DESCR, SPEED, *LOW])
        named = {NAME: extended[NAME] or columns[DESCR], **{column: columns[column] for column in LOW}}
        named[HIGH_SPEED] = {index: int(value) // 1_000_000 for index, value in columns[SPEED].items()}
        named[DISCONTINUITY] = extended[DISCONTINUITY]
        return _interfaces(named, LOW, 32)

    async def _columns(self, table: str, wanted: list[int]) -> dict[int, Column]:
        """Columns of a table side by side, by bulk requests, until each is over."""
        found: dict[int, Column] = {column: {} for column in wanted}
        last = {column: f"{table}.{column}" for column in wanted}
        while last:
            asked = list(last)
            told = await self._bulk([last[column] for column in asked], self._rows.get(table, FIRST_ROWS))
            for place, (oid, value) in enumerate(told):
                column = asked[place % len(asked)]
                prefix = f"{table}.{column}."
                if column not in last or not oid.startswith(prefix) or _order(oid) <= _order(last[column]):
                    last.pop(column, None)  # its end, or a device that goes round in circles
                    continue
                found[column][oid.removeprefix(prefix)] = value
                last[column] = oid
            if not told or sum(map(len, found.values())) > LARGEST_TABLE:
                break
        self._rows[table] = max(map(len, found.values()))
        return found

    async def _bulk(self, oids: list[str], expected: int) -> list[tuple[str, int | bytes]]:
        if self._target is None:
            snmp = self._device.settings["snmp"]
            where = (snmp.get("host", self._device.address), snmp.get("port", 161))
            kind = hlapi.Udp6TransportTarget if ":" in where[0] else hlapi.UdpTransportTarget
            self._target = await kind.create(where, self._patience, RETRIES)
        rows = max(1, min(expected + 1, VALUES // len(oids)))
        objects = [hlapi.ObjectType(hlapi.ObjectIdentity(oid)) for oid in oids]
        try:
            failed, status, _, told = await hlapi.bulk_cmd(
                self._engine, self._auth, self._target, hlapi.ContextData(), 0, rows, *objects, lookupMib=False
            )
        except OSError as error:
            raise Unreachable(f"{self._device.name} cannot be reached: {error}") from error
        if failed or int(status):
            # never the message itself: it may name the user
            raise Unreachable(
                f"{self._device.name} does not answer SNMP: {type(failed).__name__ if failed else status}"
            )
        return [(str(bound[0]), _plain(bound[1])) for bound in told]


def _plain(value: Any) -> int | bytes:
    if hasattr(value, "asOctets"):
        return bytes(value.asOctets())
    with suppress(ValueError, TypeError):
        return int(value)
    return b""  # noSuchObject, endOfMibView


def _order(oid: str) -> tuple[int, ...]:
    return tuple(map(int, oid.split(".")))


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
            speed = columns.get(HIGH_SPEED, {}).get(index, 0)
            since = columns.get(DISCONTINUITY, {}).get(index, 0)
            told = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
            found[told] = Interface(
                counts, bits, since if isinstance(since, int) else 0, 1_000_000 * speed if isinstance(speed, int) else 0
            )
    return found


def credentials(device: Device) -> Any:
    """The community or user by which a device is asked. Raises Misconfigured for what cannot be spoken."""
    given = device.settings.get("snmp", {})
    if "user" not in given:
        if "community" not in given:
            raise Misconfigured(f"device {device.name}: snmp: who polls needs a community or a user")
        return hlapi.CommunityData(given["community"], mpModel=0 if given.get("version") == "1" else 1)
    auth = AUTH[given.get("authProtocol", "SHA-256")] if "authKey" in given else hlapi.USM_AUTH_NONE
    priv = PRIV[given.get("privProtocol", "AES")] if "privKey" in given else hlapi.USM_PRIV_NONE
    return hlapi.UsmUserData(given["user"], given.get("authKey"), given.get("privKey"), auth, priv)
