"""SNMP version 3: who sent a notification, whether it is whole and fresh, and what it says.

For a trap the sender is the authority on engine and time, for an inform we are: its sender first asks for our engine
and clock, and is told both in reports. Whatever is refused raises ``Refused`` with the reason under which it is
counted. Keys are derived from pass phrases once for each user; localized to an engine they cost one hash, so that no
table of users and engines grows with what strangers send. RFC 3412, 3414, 3826 and 7860.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import new
from pathlib import Path
from typing import Any, Literal

import structlog
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from convergedon.adapters.contract import Device
from convergedon.adapters.snmp import ber
from convergedon.core.errors import Invalid, Misconfigured

AuthProtocol = Literal["MD5", "SHA", "SHA-224", "SHA-256", "SHA-384", "SHA-512"]
PrivProtocol = Literal["AES", "AES-192", "AES-256"]
Reason = Literal["malformed", "model", "discovery", "engine", "user", "level", "digest", "window", "decryption", "pdu"]

log = structlog.get_logger(__name__)

VERSION, USM = 3, 3
NOTIFICATIONS = (ber.INFORM, ber.TRAP)
AUTH, PRIV, REPORTABLE = 1, 2, 4
GET, REPORT = 0xA0, 0xA8
DIGESTS: Mapping[AuthProtocol, tuple[str, int]] = {
    "MD5": ("md5", 12),
    "SHA": ("sha1", 12),
    "SHA-224": ("sha224", 16),
    "SHA-256": ("sha256", 24),
    "SHA-384": ("sha384", 32),
    "SHA-512": ("sha512", 48),
}
"""The hash of each protocol, and how much of it is sent."""
KEY_BYTES: Mapping[PrivProtocol, int] = {"AES": 16, "AES-192": 24, "AES-256": 32}
STATISTICS: Mapping[Reason, str] = {
    "level": "1.3.6.1.6.3.15.1.1.1.0",
    "window": "1.3.6.1.6.3.15.1.1.2.0",
    "user": "1.3.6.1.6.3.15.1.1.3.0",
    "discovery": "1.3.6.1.6.3.15.1.1.4.0",
    "engine": "1.3.6.1.6.3.15.1.1.4.0",
    "digest": "1.3.6.1.6.3.15.1.1.5.0",
    "decryption": "1.3.6.1.6.3.15.1.1.6.0",
}
"""usmStats: what a report tells the sender of an inform that was refused."""
WINDOW = 150
LAST_BOOT = 2**31 - 1
ENGINES, KEYS = 10_000, 10_000
ENGINE_BYTES = range(5, 33)
"""RFC 3411 5: how long an engine's id is."""
LARGEST_MESSAGE = 65_507
EXPANDED = 1 << 20
# RFC 3411 5: the top bit, an enterprise (IANA's number for examples: ours is told apart by chance, not by it), octets
ENGINE_PREFIX = bytes.fromhex("80007ed905")


class Refused(Invalid):
    """A message that is not taken; ``report`` is what its sender must be told, where it asked to be."""

    def __init__(self, drop: Reason, sentence: str, user: str = "", report: bytes | None = None) -> None:
        super().__init__(sentence)
        self.drop, self.user, self.report = drop, user, report


@dataclass(frozen=True, eq=False)
class User:
    """Who may send, with which keys; ``devices`` are the names of those that send as this user."""

    name: str
    devices: frozenset[str]
    auth: AuthProtocol
    auth_phrase: str = field(repr=False)
    priv: PrivProtocol | None = None
    priv_phrase: str = field(default="", repr=False)

    @property
    def flags(self) -> int:
        return AUTH | PRIV if self.priv else AUTH

    def auth_key(self, engine: bytes) -> bytes:
        return self._localized(self.auth_phrase, engine)

    def priv_key(self, engine: bytes) -> bytes:
        return self._localized(self.priv_phrase, engine)[: KEY_BYTES[self.priv or "AES"]]

    def _localized(self, phrase: str, engine: bytes) -> bytes:
        key = master_key(self.auth, phrase)
        return new(DIGESTS[self.auth][0], key + engine + key).digest()


@lru_cache(maxsize=KEYS)
def master_key(auth: AuthProtocol, phrase: str) -> bytes:
    """A pass phrase repeated to a megabyte and hashed (RFC 3414 A.2); some milliseconds."""
    given = phrase.encode()
    return new(DIGESTS[auth][0], (given * (EXPANDED // len(given) + 1))[:EXPANDED]).digest()


def users(devices: Iterable[Device]) -> list[User]:
    """Who may send, as the devices file says; devices with the same user and keys are one.

    Without a key for authentication nobody is believed, and what is broken or no standard is not spoken.
    """
    found: dict[tuple[Any, ...], set[str]] = {}
    for device in devices:
        given = device.settings.get("snmp", {})
        if "user" not in given:
            continue
        auth, priv = (
            given.get("authProtocol", "SHA-256"),
            given.get("privProtocol", "AES") if "privKey" in given else None,
        )
        if fault := _fault(given, auth, priv):
            log.warning("notifications of this user are refused", device=device.name, user=given["user"], why=fault)
            continue
        who = (given["user"], auth, given["authKey"], priv, given.get("privKey", ""))
        found.setdefault(who, set()).add(device.name)
    return [
        User(name, frozenset(names), auth, auth_phrase, priv, priv_phrase)
        for (name, auth, auth_phrase, priv, priv_phrase), names in found.items()
    ]


def _fault(given: Mapping[str, Any], auth: AuthProtocol, priv: str | None) -> str:
    if "authKey" not in given:
        return "without an authKey nobody knows who sends them"
    if priv == "DES":
        return "DES is broken: give privProtocol AES"
    if priv and new(DIGESTS[auth][0], usedforsecurity=False).digest_size < KEY_BYTES[priv]:  # type: ignore[index]
        return f"{priv} needs a longer key than {auth} makes; makers lengthen it in ways of their own"
    return ""


@dataclass(frozen=True)
class Engine:
    """What the senders of informs know us by. The boots grow with every start, so that an old inform stays old."""

    id: bytes
    boots: int
    clock: Callable[[], float] = time.monotonic
    began: float = field(default_factory=time.monotonic)

    @property
    def time(self) -> int:
        return int(self.clock() - self.began)


def own_engine(file: Path) -> Engine:
    """Our engine, the same after every start. Raises Misconfigured where it cannot be kept."""
    try:
        kept = json.loads(file.read_text()) if file.exists() else {}
        id = bytes.fromhex(kept["engineId"]) if kept else ENGINE_PREFIX + secrets.token_bytes(12)
        boots = min(int(kept.get("boots", 0)) + 1, LAST_BOOT)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({"engineId": id.hex(), "boots": boots}))
        part.replace(file)
    except OSError as error:
        raise Misconfigured(f"{file}: the SNMP engine's identity cannot be kept: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Misconfigured(f"{file}: this is no SNMP engine's identity: delete it to begin a new one") from error
    return Engine(id, boots)


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the payload; ``digest_at`` is where in the datagram its digest begins."""

    message: int
    flags: int
    engine: bytes
    boots: int
    time: int
    user: bytes
    digest: bytes
    digest_at: int
    salt: bytes

    @property
    def reportable(self) -> bool:
        return bool(self.flags & REPORTABLE)


@dataclass(frozen=True, slots=True)
class Opened:
    """A message that was sent by whom it says, unchanged and just now; its PDU begins at ``tag`` of ``scoped``."""

    user: User
    header: Header
    scoped: bytes
    body: int
    tag: int

    @property
    def context(self) -> bytes:
        """What stands before the PDU: the engine and the name that it is for."""
        return self.scoped[self.body : self.tag]


@dataclass(frozen=True, slots=True)
class Secured:
    """A notification in such a message."""

    notification: ber.Notification
    opened: Opened

    @property
    def user(self) -> User:
        return self.opened.user


class Usm:
    """Takes messages of version 3 apart for the users given. Times of senders are kept for 10,000 engines."""

    def __init__(self, users: Iterable[User], engine: Engine) -> None:
        self.admit(users)
        self._engine = engine
        self._times: OrderedDict[bytes, tuple[int, int, float]] = OrderedDict()
        self._salt = secrets.randbits(64)

    def admit(self, users: Iterable[User]) -> None:
        """From now on these may send, and nobody else."""
        self._users: dict[bytes, list[User]] = {}
        for user in users:
            self._users.setdefault(user.name.encode(), []).append(user)

    def read(self, data: bytes) -> Secured:
        """The notification in a message. Raises Refused."""
        opened = self.open(data, NOTIFICATIONS)
        wanted = ber.INFORM if opened.header.reportable else ber.TRAP
        try:
            if opened.scoped[opened.tag] != wanted:
                raise ber.Unreadable("an inform waits for an answer, and a trap does not", "pdu")
            body, close = ber.enter(opened.scoped, opened.tag, len(opened.scoped), wanted, "PDU")
            return Secured(ber.pdu(opened.scoped, body, close, 3, b"", opened.tag), opened)
        except IndexError:
            raise Refused("malformed", "the datagram ends in the middle of a value", opened.user.name) from None
        except ber.Unreadable as error:
            drop: Reason = "pdu" if error.drop == "pdu" else "malformed"
            raise Refused(drop, str(error), opened.user.name) from None

    def open(self, data: bytes, tags: Sequence[int]) -> Opened:
        """A message with a PDU of one of these tags. Raises Refused."""
        try:
            return self._open(data, tags)
        except IndexError:
            raise Refused("malformed", "the datagram ends in the middle of a value") from None
        except ber.Unreadable as error:
            raise Refused("pdu" if error.drop == "pdu" else "malformed", str(error)) from None

    def answer(self, secured: Secured) -> bytes:
        """The response to an inform: the same with another tag, protected as it was."""
        opened = secured.opened
        return self.reply(opened, bytes((ber.RESPONSE,)) + opened.scoped[opened.tag + 1 :])

    def reply(self, opened: Opened, pdu: bytes) -> bytes:
        """A PDU as the answer to a message, protected as that was."""
        scoped = ber.tlv(ber.SEQUENCE, opened.context + pdu)
        return self.protect(opened.header.message, opened.user, scoped, self._engine)

    def protect(self, message: int, user: User, scoped: bytes, engine: Engine, reportable: bool = False) -> bytes:
        """A message of this user, encrypted where it has a key for that, and authenticated."""
        self._salt = (self._salt + 1) & 0xFFFFFFFFFFFFFFFF
        salt = self._salt.to_bytes(8, "big") if user.priv else b""
        flags = user.flags | (REPORTABLE if reportable else 0)
        boots, moment, payload, sent = engine.boots, engine.time, scoped, DIGESTS[user.auth][1]
        if user.priv:
            cipher = _cipher(user.priv_key(engine.id), boots, moment, salt).encryptor()
            payload = ber.tlv(ber.OCTETS, cipher.update(scoped) + cipher.finalize())
        plain = Header(message, flags, engine.id, boots, moment, user.name.encode(), bytes(sent), 0, salt)
        unsigned = _message(plain, payload)
        at = _header(unsigned)[0].digest_at
        return unsigned[:at] + _digest(user, engine.id, unsigned) + unsigned[at + sent :]

    def _open(self, data: bytes, tags: Sequence[int]) -> Opened:
        header, at, end = _header(data)
        self._check_engine(header)
        user = self._author(data, header)
        self._check_time(header, user)
        if header.flags & (AUTH | PRIV) != user.flags:
            raise self._refused("level", f"user {user.name} sends with another security level than it has", header)
        scoped = self._scoped(data, at, end, header, user)
        start, close = ber.enter(scoped, 0, len(scoped), ber.SEQUENCE, "scoped PDU")
        _, tag = ber.enter(scoped, start, close, ber.OCTETS, "context engine")
        _, tag = ber.enter(scoped, tag, close, ber.OCTETS, "context name")
        if scoped[tag] not in tags:
            raise Refused("pdu", f"PDU type 0x{scoped[tag]:02x} is not what is taken here", user.name)
        return Opened(user, header, scoped[:close], start, tag)

    def _check_engine(self, header: Header) -> None:
        """Informs must name our engine, traps one of their sender's."""
        if header.reportable and header.engine != self._engine.id:
            if header.engine:
                raise self._refused("engine", "an inform is for another engine than ours", header)
            raise self._refused("discovery", "the engine is asked for", header)
        if not header.reportable and (len(header.engine) not in ENGINE_BYTES or header.engine == self._engine.id):
            raise Refused("engine", f"a trap has the impossible engine {header.engine.hex() or '(none)'}")

    def _author(self, data: bytes, header: Header) -> User:
        """The user whose key made the digest; several devices may have one name and different keys."""
        known = self._users.get(header.user)
        if known is None:
            raise self._refused("user", "the user is not known", header)
        if not header.flags & AUTH:
            raise self._refused("level", f"user {known[0].name} sends without authentication", header)
        for user in known:
            if hmac.compare_digest(_digest(user, header.engine, data, header), header.digest):
                return user
        raise self._refused("digest", f"user {known[0].name} sends with another key than it has", header)

    def _check_time(self, header: Header, user: User) -> None:
        """RFC 3414 3.2 (7): whoever recorded a message cannot send it again later."""
        if header.reportable:
            late = abs(self._engine.time - header.time) > WINDOW
            if header.boots != self._engine.boots or header.boots == LAST_BOOT or late:
                refused = f"user {user.name} sends an inform with another time than ours"
                raise self._refused("window", refused, header, user)
            return
        now = self._engine.clock()
        boots, latest, heard = self._times.get(header.engine, (0, 0, now))
        reached = latest + int(now - heard)
        if header.boots == LAST_BOOT or (header.boots, header.time) < (boots, reached - WINDOW):
            raise Refused("window", f"user {user.name} sends a trap that is older than {WINDOW} s", user.name)
        if (header.boots, header.time) > (boots, latest):
            self._times[header.engine] = (header.boots, header.time, now)
        if header.engine in self._times:
            self._times.move_to_end(header.engine)
        if len(self._times) > ENGINES:
            self._times.popitem(last=False)

    def _scoped(self, data: bytes, at: int, end: int, header: Header, user: User) -> bytes:
        if not user.priv:
            return data[at:end]
        start, close = ber.enter(data, at, end, ber.OCTETS, "encrypted PDU")
        if close != end or len(header.salt) != 8:
            raise Refused("malformed", "the encrypted PDU or its salt has the wrong size")
        cipher = _cipher(user.priv_key(header.engine), header.boots, header.time, header.salt).decryptor()
        plain = cipher.update(data[start:close]) + cipher.finalize()
        try:
            ber.enter(plain, 0, len(plain), ber.SEQUENCE, "scoped PDU")
        except (ber.Unreadable, IndexError):
            refused = f"user {user.name} sends with another privacy key than it has"
            raise self._refused("decryption", refused, header, user) from None
        return plain

    def _refused(self, drop: Reason, sentence: str, header: Header, user: User | None = None) -> Refused:
        """Only the sender of an inform waits for a report; one that is authenticated gets it authenticated."""
        name = header.user.decode(errors="replace")[:32]
        if not header.reportable:
            return Refused(drop, sentence, name)
        count = ber.tlv(ber.SEQUENCE, ber.write(ber.OID, STATISTICS[drop]) + ber.write(ber.COUNTER, 1))
        body = ber.write(ber.INTEGER, 0) * 3 + ber.tlv(ber.SEQUENCE, count)
        context = ber.write(ber.OCTETS, self._engine.id) + ber.write(ber.OCTETS, b"")
        scoped = ber.tlv(ber.SEQUENCE, context + ber.tlv(REPORT, body))
        if user:
            report = self.protect(header.message, replace(user, priv=None), scoped, self._engine)
            return Refused(drop, sentence, name, report)
        ours = self._engine
        told = Header(header.message, 0, ours.id, ours.boots, ours.time, header.user, b"", 0, b"")
        return Refused(drop, sentence, name, _message(told, scoped))


class Replay(Usm):
    """Reads what was recorded: it may be old, and informs may be for any engine."""

    def __init__(self, users: Iterable[User]) -> None:
        super().__init__(users, Engine(ENGINE_PREFIX, 1))

    def _check_engine(self, header: Header) -> None:
        if not header.engine:
            raise Refused("discovery", "this asks for an engine, and says nothing")

    def _check_time(self, header: Header, user: User) -> None:
        return None


def question(message: int) -> bytes:
    """What asks a device for its engine: a request by nobody, for none (RFC 3414 4)."""
    get = ber.tlv(GET, ber.write(ber.INTEGER, message) + ber.write(ber.INTEGER, 0) * 2 + ber.tlv(ber.SEQUENCE, b""))
    scoped = ber.tlv(ber.SEQUENCE, ber.write(ber.OCTETS, b"") * 2 + get)
    return _message(Header(message, REPORTABLE, b"", 0, 0, b"", b"", 0, b""), scoped)


def engine_in(data: bytes, message: int) -> bytes:
    """The engine of whoever answers that question; empty where it is no answer to it, or no engine's id."""
    try:
        header = _header(data)[0]
    except (Refused, ber.Unreadable, IndexError):
        return b""
    return header.engine if header.message == message and len(header.engine) in ENGINE_BYTES else b""


def payload(data: bytes) -> tuple[int, int]:
    """Where what a message protects begins and ends. Raises Unreadable, Refused and IndexError."""
    return _header(data)[1:]


def _header(data: bytes) -> tuple[Header, int, int]:
    """The header of a message, and where its payload begins and ends. Raises Unreadable, Refused and IndexError."""
    at, end = ber.enter(data, 0, len(data), ber.SEQUENCE, "message")
    if end != len(data):
        raise Refused("malformed", f"{len(data) - end} bytes follow the message")
    version, at = ber.integer(data, at, end, "version")
    if version != VERSION:
        raise Refused("malformed", f"version field {version} is not 3")
    inner, at = ber.enter(data, at, end, ber.SEQUENCE, "header")
    message, inner = ber.integer(data, inner, at, "message id")
    _, inner = ber.integer(data, inner, at, "largest message")
    start, inner = ber.enter(data, inner, at, ber.OCTETS, "flags")
    model, inner = ber.integer(data, inner, at, "security model")
    if inner - start < 1 or model != USM or data[start] & (AUTH | PRIV) == PRIV:
        raise Refused("model", f"security model {model} is not the user-based one, or the flags are impossible")
    flags = data[start]
    inner, at = ber.enter(data, at, end, ber.OCTETS, "security parameters")
    inner, close = ber.enter(data, inner, at, ber.SEQUENCE, "security parameters")
    start, inner = ber.enter(data, inner, close, ber.OCTETS, "engine")
    engine = data[start:inner]
    boots, inner = ber.integer(data, inner, close, "boots")
    moment, inner = ber.integer(data, inner, close, "time")
    start, inner = ber.enter(data, inner, close, ber.OCTETS, "user")
    user = data[start:inner]
    digest_at, inner = ber.enter(data, inner, close, ber.OCTETS, "digest")
    digest = data[digest_at:inner]
    start, inner = ber.enter(data, inner, close, ber.OCTETS, "salt")
    if close != at or inner != close or boots < 0 or moment < 0 or len(user) > 32:
        raise Refused("malformed", "the security parameters are not as they must be")
    return Header(message, flags, engine, boots, moment, user, digest, digest_at, data[start:inner]), at, end


def _message(header: Header, payload: bytes) -> bytes:
    about = ber.write(ber.INTEGER, header.message) + ber.write(ber.INTEGER, LARGEST_MESSAGE)
    about += ber.write(ber.OCTETS, bytes((header.flags,))) + ber.write(ber.INTEGER, USM)
    security = ber.write(ber.OCTETS, header.engine) + ber.write(ber.INTEGER, header.boots)
    security += ber.write(ber.INTEGER, header.time) + ber.write(ber.OCTETS, header.user)
    security += ber.write(ber.OCTETS, header.digest) + ber.write(ber.OCTETS, header.salt)
    return ber.tlv(
        ber.SEQUENCE,
        ber.write(ber.INTEGER, VERSION)
        + ber.tlv(ber.SEQUENCE, about)
        + ber.tlv(ber.OCTETS, ber.tlv(ber.SEQUENCE, security))
        + payload,
    )


def _digest(user: User, engine: bytes, data: bytes, header: Header | None = None) -> bytes:
    """The digest of a message in which the digest itself counts as zeros."""
    name, sent = DIGESTS[user.auth]
    if header is not None:
        at = header.digest_at
        data = data[:at] + bytes(len(header.digest)) + data[at + len(header.digest) :]
    return hmac.digest(user.auth_key(engine), data, name)[:sent]


def _cipher(key: bytes, boots: int, moment: int, salt: bytes) -> Cipher[CFB]:
    return Cipher(AES(key), CFB(boots.to_bytes(4, "big") + moment.to_bytes(4, "big") + salt))
