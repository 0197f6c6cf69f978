"""What a hostile device answers to who asks it over SNMP: by get, walks, a poll and a set, through a socket.

Each answer is followed by a right one, so that what is not taken for an answer is not waited for. An answer carries the
numbers of its request where the sample has REQUEST and MESSAGE, and where a name has ONWARD what was not told yet.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from fuzz.guided import Survive

from convergedon.adapters.contract import Device, Observation
from convergedon.adapters.snmp import agent, ber, discovery, polling, recording, usm
from convergedon.adapters.snmp.asking import Engines, Peer
from convergedon.core.errors import Refused, Unavailable

PATIENCE, TICK, MOST_ANSWERS = 0.03, 0.01, 8
Ask = Callable[["Asked"], Awaitable[None]]
REQUEST, MESSAGE, ONWARD = b"\x02\x04\x7fREQ", b"\x02\x04\x7fMSG", b"\x8f\xf1\xf2\x73"
AHEAD = 0x0F << 21 | 0x71 << 14 | 0x72 << 7 | 0x73
"""The number that is written so."""
USER = usm.User("north", frozenset(), "SHA-256", "north-auth-phrase", "AES", "a phrase for privacy")
KEYS = {"user": USER.name, "authKey": USER.auth_phrase, "privKey": USER.priv_phrase}
UPTIME, ADMIN, ALIAS = "1.3.6.1.2.1.1.3.0", "1.3.6.1.2.1.2.2.1.7.1", "1.3.6.1.2.1.31.1.1.1.18.1"
NAME, IN, OUT = "1.3.6.1.2.1.31.1.1.1.1.1", "1.3.6.1.2.1.31.1.1.1.6.1", "1.3.6.1.2.1.31.1.1.1.10.1"
HAS = {
    UPTIME: recording.Value(kind="ticks", value=7, grows=100.0),
    ADMIN: recording.Value(kind="integer", value=1),
    NAME: recording.Value(kind="octets", value="eth0"),
    IN: recording.Value(kind="counter64", value=7),
    "1.3.6.1.2.1.31.1.1.1.15.1": recording.Value(kind="gauge", value=10_000),
    ALIAS: recording.Value(kind="octets", value=""),
    **{f"1.3.6.1.2.1.2.2.1.{column}.1": recording.Value(kind="counter", value=7) for column in (10, 16)},
}
ENGINE = usm.Engine(bytes.fromhex("8000000001020304aa"), 5, clock=lambda: 1000.0, began=0.0)


class Hostile(agent.Agent):
    """Sends what it is given before the right answer."""

    said, told = b"", 0

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.told += 1
        with suppress(usm.Refused, ber.Unreadable, IndexError):
            self._send(self._wrong(data), addr)
        super().datagram_received(data, addr)

    def _wrong(self, data: bytes) -> bytes:
        at, end = ber.enter(data, 0, len(data), ber.SEQUENCE, "message")
        version, at = ber.integer(data, at, end, "version")
        if version == usm.VERSION:
            return self._secured_wrong(data)
        _, at = ber.enter(data, at, end, ber.OCTETS, "community")
        return self._onward().replace(REQUEST, _number(data, at + 2 + (data[at + 1] & 0x7F) * (data[at + 1] >> 7)))

    def _secured_wrong(self, data: bytes) -> bytes:
        message = ber.tlv(ber.INTEGER, usm._header(data)[0].message.to_bytes(4, "big"))
        if self.said[:1] != b"\xff":
            return self._onward().replace(MESSAGE, message)
        opened = self._gate.open(data, (*agent.READING, *agent.WRITING))
        body, _ = ber.enter(opened.scoped, opened.tag, len(opened.scoped), opened.scoped[opened.tag], "PDU")
        scoped = self._onward()[1:].replace(REQUEST, _number(opened.scoped, body))
        return self._gate.protect(opened.header.message, USER, scoped, ENGINE)

    def _onward(self) -> bytes:
        return self.said.replace(ONWARD, ber._arc((1 << 27) + self.told))


def _number(data: bytes, at: int) -> bytes:
    """The integer that stands there, in four bytes."""
    return ber.tlv(ber.INTEGER, ber.integer(data, at, len(data), "request-id")[0].to_bytes(4, "big"))


class Asked:
    """A hostile device, and who asks it."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.broken.append(context))
        self.broken: list[dict[str, Any]] = []
        access = agent.Access((b"public",), [USER], frozenset({b"public", b"north"}))
        self.device = Hostile(recording.Recording(HAS), access, ENGINE)
        self.told: list[Observation] = []
        port = self.loop.run_until_complete(self.device.start())
        snmp = {"host": "127.0.0.1", "port": port, "timeout": PATIENCE, "poll": {"interval": 60}, **given}
        self.described = Device("pe1", "acme", "192.0.2.1", {"snmp": snmp})
        self.where = ("127.0.0.1", port)
        self.loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        self.engines = Engines()
        self.peer, self.polled = Peer(self.engines, self.described), polling.Agent(self.engines, self.described)
        self.polling = polling.Polling([self.described], self.told.extend)
        self.peer.most_answers = self.polled._peer.most_answers = MOST_ANSWERS
        self.before = await self.polled.read()
        self.engines.shared.transport_dispatcher.set_timer_resolution(TICK)

    def close(self) -> None:
        self.engines.close()
        self.loop.run_until_complete(self.device.stop())
        self.loop.close()

    def survives(self, said: bytes, asking: Sequence[Ask]) -> None:
        self.device.said = said
        found = self.loop.run_until_complete(self._all(asking))
        broken = [context.get("exception") or RuntimeError(context["message"]) for context in self.broken]
        self.broken.clear()
        for error in (*found, *broken):
            if not isinstance(error, Unavailable | Refused | None):
                raise error

    async def _all(self, asking: Sequence[Ask]) -> Sequence[BaseException | None]:
        return await asyncio.gather(*(ask(self) for ask in asking), return_exceptions=True)


async def get(asked: Asked) -> None:
    found = await asked.peer.get([UPTIME, ADMIN, ALIAS])
    assert [name for name, _, _ in found] == [UPTIME, ADMIN, ALIAS]
    assert all(ber.write(tag, value) for _, tag, value in found)


async def walk(asked: Asked) -> None:
    found = await asked.peer.columns(polling.IF_X, [polling.NAME, 6, 10])
    assert all(isinstance(value, int | bytes) for column in found.values() for value in column.values())


async def walk_whole(asked: Asked) -> None:
    found = await recording.walk(asked.peer)
    assert all(ber.write(*bound) for bound in found.values())


async def poll(asked: Asked) -> None:
    after = await asked.polled.read()
    for seen in asked.polling._observe(asked.described, asked.before, after):
        orjson.dumps(vars(seen))
        counts = [count for one in seen.attributes["records"] for count in one["counts"].values()]
        assert all(0 <= count < 2**64 for count in counts)


async def put(asked: Asked) -> None:
    await asked.peer.set([(ADMIN, ber.INTEGER, 1), (ALIAS, ber.OCTETS, b"a line")])


async def discover(asked: Asked) -> None:
    found = await discovery.engine(asked.where, PATIENCE)
    assert not found or len(found) in usm.ENGINE_BYTES, "pysnmp breaks on an id that is none"


ASKED: Sequence[Ask] = (get, walk, poll, put, walk_whole)


def device(asking: Sequence[Ask] = ASKED, **given: Any) -> Callable[[Path], Survive]:
    """It is asked all of it at once; each ends with what it told, or in an error that we know."""

    @cache
    def asked() -> Asked:
        """One for all examples: pysnmp takes its time to begin."""
        made = Asked(given)
        atexit.register(made.close)
        return made

    return lambda folder: lambda data: asked().survives(data, asking)


def response(*varbinds: ber.Varbind, tag: int = ber.RESPONSE, status: int = 0, index: int = 0) -> bytes:
    listed = b"".join(ber.tlv(ber.SEQUENCE, ber.write(ber.OID, n) + ber.write(t, v)) for n, t, v in varbinds)
    return ber.tlv(
        tag, REQUEST + ber.write(ber.INTEGER, status) + ber.write(ber.INTEGER, index) + ber.tlv(ber.SEQUENCE, listed)
    )


def message(pdu: bytes, version: int = 1) -> bytes:
    return ber.tlv(ber.SEQUENCE, ber.write(ber.INTEGER, version) + ber.write(ber.OCTETS, b"public") + pdu)


def scoped(pdu: bytes) -> bytes:
    """What is protected by the user's keys."""
    return b"\xff" + ber.tlv(ber.SEQUENCE, ber.write(ber.OCTETS, ENGINE.id) + ber.write(ber.OCTETS, b"") + pdu)


def plain(pdu: bytes, flags: int = 0, user: bytes = b"", engine: bytes = ENGINE.id) -> bytes:
    """Of version 3, as nobody's."""
    header = usm.Header(0, flags, engine, 5, 1000, user, b"", 0, b"")
    told = ber.tlv(ber.SEQUENCE, ber.write(ber.OCTETS, ENGINE.id) + ber.write(ber.OCTETS, b"") + pdu)
    whole = usm._message(header, told)
    at, end = ber.enter(whole, 0, len(whole), ber.SEQUENCE, "message")
    body = whole[at:end].replace(b"\x30\x0e\x02\x01\0", b"\x30\x11" + MESSAGE, 1)
    return ber.tlv(ber.SEQUENCE, body)


NEST = b"".join(ber.tlv(ber.SEQUENCE, b"")[:1] + b"\x80" for _ in range(500))
PDUS = (
    response((UPTIME, ber.TICKS, 9), (ADMIN, ber.INTEGER, 1), (ALIAS, ber.OCTETS, b"a line")),
    response((UPTIME, ber.OCTETS, b"nine"), (ADMIN, ber.COUNTER64, 2**63), (ALIAS, ber.IP, "192.0.2.1")),
    response((UPTIME, ber.NO_OBJECT, None), (ADMIN, ber.NO_INSTANCE, None), (ALIAS, ber.END_OF_VIEW, None)),
    response((NAME, ber.OCTETS, b"eth0"), (IN, ber.COUNTER64, 2**64 - 1), (OUT, ber.COUNTER, 1)),
    response((NAME, ber.COUNTER64, 5), (IN, ber.OCTETS, b"\xff" * 60), (OUT, ber.OID, "1.3")),
    response((UPTIME, ber.TICKS, 1), ("1.3.6.1.2.1.1.3.4294967295", ber.INTEGER, 1)),
    response(*[(f"1.3.6.1.2.1.31.1.1.1.6.{n}", ber.COUNTER64, n) for n in range(200)]),
    *(response((f"1.3.6.1.2.1.{column}.{AHEAD}", ber.INTEGER, 1)) for column in ("1.3", "31.1.1.1.1", "31.1.1.1.6")),
    response(),
    response(status=1),
    response((ADMIN, ber.INTEGER, 1), status=2, index=1),
    response((ADMIN, ber.INTEGER, 1), status=17, index=200),
    response((ADMIN, ber.INTEGER, 1), status=5_000_000, index=-1),
    response(("1.3.6.1.6.3.15.1.1.2.0", ber.COUNTER, 1), tag=usm.REPORT),
    response(("1.3.6.1.6.3.15.1.1.4.0", ber.COUNTER, 1), tag=usm.REPORT),
    response((UPTIME, ber.TICKS, 9), tag=ber.INFORM),
    response((UPTIME, ber.TICKS, 9), tag=agent.GET),
    ber.tlv(ber.RESPONSE, REQUEST + NEST),
)  # fmt: skip
WORDS = (REQUEST, MESSAGE, b"\x30\x80", b"\0\0", b"\x24\x80", b"\xa2\x80", b"\x80\0", b"\x82\0", b"\x06\0",
         b"\x06\x01\x80", b"\x02\x01\xff", b"\x05\0", b"\x09\x03\x80\0\1",
         b"\x43\x05\0\xff\xff\xff\xff", b"\x41\x05\xff\xff\xff\xff\xff",
         ber.tlv(ber.SEQUENCE, ber.write(ber.OID, IN) + ber.write(ber.COUNTER64, 3)))  # fmt: skip
ANSWERS = [*map(message, PDUS), message(PDUS[0], 0), message(PDUS[9], 0), message(PDUS[0], 3)]
FIRST = [message(pdu, 0) for pdu in PDUS]
SECURED = [*map(scoped, PDUS), *(plain(pdu) for pdu in (*PDUS[:1], *PDUS[12:14])), plain(PDUS[0], 4, b"north"),
           *(plain(PDUS[14], engine=b"x" * length) for length in (1, 40))]  # fmt: skip
