"""A device as it is asked over SNMP, and told: get, bulk walks and set by pysnmp, versions 1, 2c and 3.

What goes wrong is told by what an operator does next: ``Unreachable`` when nothing answers, ``CredentialsRefused`` when
it does and does not let us, ``Refused`` with the device's word for a value that it does not take, ``OutcomeUnknown``
when it was told something and no answer came.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pysnmp.carrier.asyncio.dispatch import AsyncioDispatcher
from pysnmp.carrier.error import CarrierError
from pysnmp.error import PySnmpError
from pysnmp.hlapi.v3arch import asyncio as hlapi
from pysnmp.proto import rfc1902, rfc3412

from convergedon.adapters.contract import Device, Rpc, tell
from convergedon.adapters.snmp import answers, ber, discovery, usm
from convergedon.core.errors import CredentialsRefused, Invalid, Misconfigured, OutcomeUnknown, Refused, Unreachable

# Values in one answer: what a datagram holds of a device that fills it, and what is worth asking one that is not known
VALUES, FIRST_ROWS, LARGEST_TABLE = 100, 5, 100_000
MOST_ANSWERS = 5_000
"""In one walk of a table: as many interfaces of a device that tells one row at a time."""
PATIENCE, RETRIES = 2.0, 2
TICK = 1.0
"""Seconds by which pysnmp may be late in noticing that nothing came."""
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
NOT_LET = frozenset(
    {
        "AuthenticationError",
        "AuthenticationFailure",
        "DecryptionError",
        "NotInTimeWindow",
        "UnknownCommunityName",
        "UnknownSecurityName",
        "UnknownUserName",
        "UnsupportedAuthProtocol",
        "UnsupportedPrivProtocol",
        "UnsupportedSecurityLevel",
        "WrongDigest",
    }
)
"""What pysnmp calls it when one of the two does not trust the other."""
NO_RIGHT = frozenset({"authorizationError", "noAccess"})
TIMED_OUT = "RequestTimedOut"
NO_SUCH_NAME, UNDO_FAILED = "noSuchName", "undoFailed"
TAGS = {
    "Integer": ber.INTEGER,
    "Integer32": ber.INTEGER,
    "OctetString": ber.OCTETS,
    "ObjectIdentifier": ber.OID,
    "IpAddress": ber.IP,
    "Counter32": ber.COUNTER,
    "Gauge32": ber.GAUGE,
    "Unsigned32": ber.GAUGE,
    "TimeTicks": ber.TICKS,
    "Opaque": ber.OPAQUE,
    "Counter64": ber.COUNTER64,
}
KINDS = {
    ber.INTEGER: rfc1902.Integer32,
    ber.OCTETS: rfc1902.OctetString,
    ber.OID: rfc1902.ObjectName,
    ber.IP: rfc1902.IpAddress,
    ber.GAUGE: rfc1902.Gauge32,
    ber.TICKS: rfc1902.TimeTicks,
}

Column = dict[str, int | bytes]
"""Index -> value."""


class NoCompiler:
    """In the place of pysnmp's compiler of MIBs, which takes 0.7 s to make and would fetch what it is asked for."""

    def compile(self, *modules: str, **options: Any) -> dict[str, str]:
        return dict.fromkeys(modules, "missing")


class Messages(rfc3412.MsgAndPduDispatcher):  # type: ignore[misc]  # pysnmp says nothing of its types
    """Gives pysnmp what may be an answer, and nothing else: what strangers send breaks its decoder.

    ``dropped`` counts what it was not given, and what it could not take.
    """

    def __init__(self, dropped: Counter[str]) -> None:
        super().__init__()
        self._dropped = dropped

    def receive_message(self, engine: Any, domain: Any, address: Any, datagram: bytes) -> Any:
        try:
            answers.check(datagram)
        except Invalid:
            self._dropped["malformed"] += 1
            return b""
        try:
            return super().receive_message(engine, domain, address, datagram)
        except Exception:  # of what a device has encrypted; who waits for an answer does not wait for ever
            self._dropped["unreadable"] += 1
            return b""


class Sockets(AsyncioDispatcher):  # type: ignore[misc]
    """Brings datagrams, and the time; both go on whatever comes of one of them."""

    def __init__(self, dropped: Counter[str]) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._dropped = dropped

    def _callback_function(self, socket: Any, address: Any, datagram: bytes) -> None:
        with suppress(CarrierError):  # what came as the socket was closed is nobody's
            super()._callback_function(socket, address, datagram)

    def handle_timer_tick(self, now: float) -> None:
        try:
            super().handle_timer_tick(now)
        except Exception:  # a clock that stands still would have all devices waited for, for ever
            self._dropped["unreadable"] += 1


Where = tuple[str, int]


@dataclass
class Shared:
    """One of pysnmp's engines, and who answers it at each place: an empty id where it is asked there no more."""

    engine: Any
    answering: dict[Where, bytes] = field(default_factory=dict)

    def takes(self, where: Where, id: bytes) -> bool:
        """Whether the two can be asked by it: it takes a place for one device, and an id for one place, for ever."""
        if where in self.answering:
            return self.answering[where] == id
        return id not in self.answering.values()


class Engines:
    """pysnmp's engines: one for all devices, and more for those that it cannot tell apart.

    Those are a device that has become another one, and two that call themselves the same. Users are kept there by the
    id of the device's own engine, so that two devices may have users of one name and different keys.
    Once they are closed nobody asks by them any more, and who waits for an answer is told so: an engine that is used
    after its end opens a socket that nobody closes.
    """

    def __init__(self) -> None:
        self._open: list[Shared] = []
        self._waiting: set[asyncio.Timeout] = set()
        self._closed = False
        self.dropped: Counter[str] = Counter()

    @property
    def shared(self) -> Any:
        """For whoever has a community. Raises Unreachable once they are closed."""
        return (self._open[0] if self._open else self._new()).engine

    def join(self, where: Where, id: bytes) -> Any:
        """By which the device is asked that answers there under this id. Raises Unreachable once they are closed."""
        self._require_open()
        shared = next((one for one in self._open if one.takes(where, id)), None) or self._new()
        shared.answering[where] = id
        return shared.engine

    def leave(self, where: Where, engine: Any) -> None:
        """Ask there by this one no more; it is closed where nobody is asked by it."""
        for shared in [one for one in self._open if one.engine is engine]:
            shared.answering[where] = b""
            if shared is not self._open[0] and not any(shared.answering.values()):
                self._open.remove(shared)
                engine.close_dispatcher()

    def _new(self) -> Shared:
        self._require_open()
        engine = hlapi.SnmpEngine(msgAndPduDsp=Messages(self.dropped))
        engine.register_transport_dispatcher(Sockets(self.dropped))
        engine.get_mib_builder().set_mib_compiler(NoCompiler(), os.devnull)
        self._open.append(Shared(engine))
        return self._open[-1]

    @asynccontextmanager
    async def waiting(self, device: str, seconds: float) -> AsyncIterator[None]:
        """While a device's answer is waited for: so long at most, and not beyond our end. Raises Unreachable."""
        self._require_open()
        try:
            async with asyncio.timeout(seconds) as limit:
                self._waiting.add(limit)
                try:
                    yield
                finally:
                    self._waiting.discard(limit)
        except TimeoutError:
            self._require_open()
            raise Unreachable(f"{device} does not answer SNMP: nothing came that can be read") from None

    def _require_open(self) -> None:
        if self._closed:
            raise Unreachable("devices are not asked any more: this was stopped")

    def close(self) -> None:
        """All there are, and for good."""
        self._closed = True
        for limit in self._waiting:
            limit.reschedule(0)
        while self._open:
            self._open.pop().engine.close_dispatcher()


@dataclass(frozen=True)
class Way:
    """How a device is asked: by which engine, as whom, and where."""

    engine: Any
    auth: Any
    target: Any


class Peer:
    """One device as it is asked."""

    def __init__(self, engines: Engines, device: Device) -> None:
        self._engines, self._device = engines, device
        self._patience: float = device.settings.get("snmp", {}).get("timeout", PATIENCE)
        self._rows: dict[str, int] = {}
        self.most_answers = MOST_ANSWERS
        credentials(device)  # what cannot be spoken is said at once
        self._way: Way | None = None

    async def get(self, oids: Sequence[str]) -> list[ber.Varbind]:
        """The values of these, in their order; what the device does not have is an empty value (NO_OBJECT)."""
        objects = [hlapi.ObjectType(hlapi.ObjectIdentity(oid)) for oid in oids]
        (word, index), told = await self._call("get", hlapi.get_cmd, *objects)
        if word == NO_SUCH_NAME and 0 < index <= len(oids):  # version 1 knows no empty values: ask for the others
            rest = [oid for place, oid in enumerate(oids, 1) if place != index]
            found = {name: (name, tag, value) for name, tag, value in (await self.get(rest) if rest else ())}
            return [found.get(oid, (oid, ber.NO_OBJECT, None)) for oid in oids]
        self._require(word)
        values = [_bound(bound) for bound in told]
        if [name for name, _, _ in values] != list(oids):
            raise Unreachable(f"{self._device.name} cannot be read: it answers something else than it was asked")
        return values

    async def bulk(self, oids: Sequence[str], rows: int) -> list[ber.Varbind]:
        """Up to so many rows of what comes after each."""
        objects = [hlapi.ObjectType(hlapi.ObjectIdentity(oid)) for oid in oids]
        (word, index), told = await self._call("bulk", hlapi.bulk_cmd, 0, rows, *objects)
        if word == NO_SUCH_NAME:  # version 1 says so of all where one is at the end of everything: ask for the others
            ended = min(max(index, 1), len(oids)) - 1
            rest = [*oids[:ended], *oids[ended + 1 :]]
            others = (await self.bulk(rest, 1))[: len(rest)] if rest else []
            return [*others[:ended], (oids[ended], ber.END_OF_VIEW, None), *others[ended:]]
        self._require(word)
        return [_bound(bound) for bound in told]

    def _require(self, word: str) -> None:
        """Nothing is wrong with what was read."""
        if word in NO_RIGHT:
            raise CredentialsRefused(f"{self._device.name} answers {word}: its user or community may not read")
        if word:
            raise Unreachable(f"{self._device.name} cannot be read: it answers {word}")

    async def columns(self, table: str, wanted: Sequence[int]) -> dict[int, Column]:
        """Columns of a table side by side, by bulk requests, until each is over. Raises Unreachable where none ends."""
        found: dict[int, Column] = {column: {} for column in wanted}
        last = {column: f"{table}.{column}" for column in wanted}
        answers = 0
        while last:
            asked = list(last)
            rows = max(1, min(self._rows.get(table, FIRST_ROWS) + 1, VALUES // len(asked)))
            told = await self.bulk([last[column] for column in asked], rows)
            for place, (oid, _, value) in enumerate(told):
                column = asked[place % len(asked)]
                prefix = f"{table}.{column}."
                if column not in last or not oid.startswith(prefix) or order(oid) <= order(last[column]):
                    last.pop(column, None)  # its end, or a device that goes round in circles
                    continue
                found[column][oid.removeprefix(prefix)] = plain(value)
                last[column] = oid
            if not told:
                break
            answers += 1
            if answers > self.most_answers or sum(map(len, found.values())) > LARGEST_TABLE:
                raise Unreachable(f"{self._device.name} cannot be read: its table {table} has no end")
        self._rows[table] = max(map(len, found.values()))
        return found

    async def set(self, wanted: Sequence[ber.Varbind]) -> None:
        """Have the device hold all of these, or none."""
        objects = [hlapi.ObjectType(hlapi.ObjectIdentity(oid), KINDS[tag](value)) for oid, tag, value in wanted]
        try:
            (word, index), _ = await self._call("set", hlapi.set_cmd, *objects)
        except Unreachable as error:
            raise OutcomeUnknown(f"{self._device.name} was told, and did not answer") from error
        if not word:
            return
        about = f" ({wanted[index - 1][0]})" if 0 < index <= len(wanted) else ""
        said = f"{self._device.name} answers {word}{about}"
        if word in NO_RIGHT:
            raise CredentialsRefused(f"{said}: its user or community may not write")
        if word == NO_SUCH_NAME:  # version 1 has no other word for either
            raise Refused(f"{said}: it cannot be written, or not by this community")
        raise OutcomeUnknown(said) if word == UNDO_FAILED else Refused(said)

    async def _call(self, name: str, command: Any, *arguments: Any) -> tuple[tuple[str, int], list[Any]]:
        """The status that the device answers, with the place it is about, and the values."""
        begun, outcome = time.perf_counter(), "failed"
        try:
            way = self._way or await self._meet(1 + RETRIES)
            failed, status, index, told = await self._try(way, command, arguments)
            if _word(failed) == TIMED_OUT and (other := await self._has_become_another(way)):
                failed, status, index, told = await self._try(other, command, arguments)
            if failed:
                raise self._failure(_word(failed))
            outcome = "refused" if int(status) else "done"
        except (OSError, PySnmpError) as error:
            raise Unreachable(f"{self._device.name} cannot be reached: {error}") from error
        finally:
            tell(Rpc(self._device.name, name, outcome, time.perf_counter() - begun))  # type: ignore[arg-type]
        return (status.prettyPrint() if int(status) else "", int(index)), list(told)

    def _failure(self, word: str) -> CredentialsRefused | Unreachable:
        """By pysnmp's word, never its message: that may name the user."""
        if word in NOT_LET:
            return CredentialsRefused(f"{self._device.name} does not let us in by SNMP: {word}")
        return Unreachable(f"{self._device.name} does not answer SNMP: {word}")

    async def _try(self, way: Way, command: Any, arguments: Sequence[Any]) -> Any:
        """What pysnmp made of it; it keeps the time itself, unless an answer has broken it."""
        async with self._engines.waiting(self._device.name, self._longest):
            context = hlapi.ContextData()
            return await command(way.engine, way.auth, way.target, context, *arguments, lookupMib=False)

    @property
    def _longest(self) -> float:
        """Seconds for one thing that is waited for, be it a name that is looked up or an exchange with its retries."""
        return 2 * (1 + RETRIES) * (self._patience + TICK)

    @property
    def _where(self) -> Where:
        snmp = self._device.settings["snmp"]
        return snmp.get("host", self._device.address), snmp.get("port", 161)

    @property
    def _has_user(self) -> bool:
        return "user" in self._device.settings.get("snmp", {})

    async def _meet(self, times: int) -> Way:
        """Find out how it is asked. Raises Unreachable where it has a user, and nobody answers."""
        id = await self._id(times) if self._has_user else b""
        kind = hlapi.Udp6TransportTarget if ":" in self._where[0] else hlapi.UdpTransportTarget
        async with self._engines.waiting(self._device.name, self._longest):
            target = await kind.create(self._where, self._patience, RETRIES)  # a name is looked up
        engine = self._engines.join(self._where, id) if id else self._engines.shared
        self._way = Way(engine, credentials(self._device, id), target)
        return self._way

    async def _id(self, times: int) -> bytes:
        """What the device calls its engine: a user's keys are made for that."""
        for _ in range(times):
            async with self._engines.waiting(self._device.name, self._longest):
                if id := await discovery.engine(self._where, self._patience):
                    return id
        raise self._failure(TIMED_OUT)

    async def _has_become_another(self, former: Way) -> Way | None:
        """How it is asked now, where it answers by version 3, though not to us.

        That is a device that was replaced, or lost its memory: an engine keeps asking for the one that was before.
        """
        if not self._has_user:
            return None
        if self._way is former:
            self._engines.leave(self._where, former.engine)
            self._way = None
        try:
            return self._way or await self._meet(1)
        except Unreachable:
            return None


def credentials(device: Device, engine: bytes = b"") -> Any:
    """The community or user by which a device is asked, a user by the id of its engine.

    Raises Misconfigured for what cannot be spoken.
    """
    given = device.settings.get("snmp", {})
    if "user" not in given:
        if "community" not in given:
            raise Misconfigured(f"device {device.name}: snmp: a community or a user is needed to ask it")
        return hlapi.CommunityData(given["community"], mpModel=0 if given.get("version") == "1" else 1)
    digest = given.get("authProtocol", "SHA-256")
    auth = AUTH[digest] if "authKey" in given else hlapi.USM_AUTH_NONE
    priv = PRIV[given.get("privProtocol", "AES")] if "privKey" in given else hlapi.USM_PRIV_NONE
    # Pass phrases are stretched once for all devices that share them, not by pysnmp for each
    keys = [usm.master_key(digest, given[name]) if name in given else None for name in ("authKey", "privKey")]
    kind = hlapi.USM_KEY_TYPE_MASTER
    id = rfc1902.OctetString(engine) if engine else None
    return hlapi.UsmUserData(given["user"], *keys, auth, priv, id, authKeyType=kind, privKeyType=kind)


def _word(failed: Any) -> str:
    """pysnmp's word for what went wrong: mostly a class of its own, and in one place a text."""
    return str(failed) if isinstance(failed, str) else type(failed).__name__


def plain(value: ber.Value) -> int | bytes:
    """A value of a counter or a name; what is not there is empty."""
    if isinstance(value, str):
        return value.encode()
    return b"" if value is None else value


def order(oid: str) -> tuple[int, ...]:
    """As OIDs follow each other."""
    return tuple(map(int, oid.split(".")))


def _bound(bound: Any) -> ber.Varbind:
    oid, value = str(bound[0]), bound[1]
    tag = TAGS.get(type(value).__name__, ber.NO_OBJECT)
    if tag in (ber.OID, ber.IP):
        return oid, tag, value.prettyPrint()
    if tag in (ber.OCTETS, ber.OPAQUE):
        return oid, tag, bytes(value.asOctets())
    with suppress(ValueError, TypeError):
        if tag != ber.NO_OBJECT:
            return oid, tag, int(value)
    return oid, ber.NO_OBJECT, None  # noSuchObject, noSuchInstance, endOfMibView
