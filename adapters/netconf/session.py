"""One NETCONF session with a device: ncclient without its waiting, and calls that end, are timed and traced.

ncclient 0.7.1 hands each message to a thread that looks at its queue every 100 ms. ``PromptSession`` writes from the
caller's thread instead and lets the session's thread only read, which needs neither selector nor wake-up pipe (one
descriptor a session instead of five). It leans on private parts of the pinned version; test_netconf_adapter notices
when they change.
"""

from __future__ import annotations

import base64
import binascii
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Literal

import paramiko  # type: ignore[import-untyped]
from lxml import etree  # type: ignore[import-untyped]
from ncclient import NCClientError  # type: ignore[import-untyped]
from ncclient.manager import Manager, make_device_handler  # type: ignore[import-untyped]
from ncclient.operations import RaiseMode, RPCError, TimeoutExpiredError  # type: ignore[import-untyped]
from ncclient.transport.errors import (  # type: ignore[import-untyped]
    AuthenticationError,
    SessionCloseError,
    SSHUnknownHostError,
    TransportError,
)
from ncclient.transport.session import NetconfBase  # type: ignore[import-untyped]
from ncclient.transport.ssh import SSHSession  # type: ignore[import-untyped]

from convergedon.adapters.contract import Rpc, tell
from convergedon.adapters.netconf.rpc import Answer, Answers, described, nothing, written
from convergedon.core import trace
from convergedon.core.errors import CredentialsRefused, Misconfigured, OutcomeUnknown, Unavailable, Unreachable

CONNECT_SECONDS = 10.0
HEARD_WITHIN = 1.0
RPC_TIMEOUT = 30.0
UNLOCK_SECONDS = 5.0
"""What is done need not wait longer to be told: a session's end gives its lock back, too."""
WORDS = 2_000
BUSY = frozenset({"lock-denied", "in-use", "resource-denied"})
CAPABILITIES = [
    "urn:ietf:params:netconf:capability:confirmed-commit:1.1",
    "urn:ietf:params:netconf:capability:validate:1.1",
]
CHANGING = frozenset({"commit", "cancel_commit", "copy_config"})
BROKEN = (NCClientError, paramiko.SSHException, OSError, EOFError)
_READ = 65_536
_SETTINGS = (
    "host",
    "port",
    "username",
    "password",
    "keyFile",
    "keyPassphrase",
    "hostKey",
    "knownHosts",
    "trustFirstUse",
    "callHome",
    "notifications",
)


@dataclass(frozen=True)
class Access:
    """Where a device answers NETCONF and who we are to it.

    One that ``calls_home`` is not connected to: ``called`` gives a connection that it has opened, and on which it has
    proved to have its host key, within so many seconds, or raises OSError.
    """

    device: str
    host: str
    port: int
    username: str
    password: str | None = field(repr=False)
    key: paramiko.PKey | None = field(repr=False)
    host_key: str | None
    known_hosts: str | None = None
    notifications: bool = False
    calls_home: bool = False
    called: Callable[[float], paramiko.Transport] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls, device: str, address: str, given: Mapping[str, Any], where: Callable[[str], str] | None = None
    ) -> Access:
        """Read the netconf settings of a device. Raises Misconfigured with device and key, never with a value.

        ``where`` says in which file and line a key stands.
        """

        def wrong(key: str, words: str) -> Misconfigured:
            return Misconfigured(f"{where(key) if where else f'device {device}: netconf.{key}'}: {words}")

        def text(key: str) -> str | None:
            value = given.get(key)
            if value is not None and (not isinstance(value, str) or not value):
                raise wrong(key, "must be text")
            return value

        for known in given:
            if known not in _SETTINGS:
                raise wrong(known, f"unknown key; known are {', '.join(_SETTINGS)}")
        port = given.get("port", 830)
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65_536:
            raise wrong("port", "must be a TCP port")
        username = text("username")
        if not username:
            raise wrong("username", "is missing")
        password, key_file, host_key = text("password"), text("keyFile"), text("hostKey")
        passphrase = text("keyPassphrase")
        if not (password or key_file):
            raise wrong("password", "is missing; a password or a keyFile is needed")
        if key_file and not Path(key_file).is_file():
            raise wrong("keyFile", "there is no such file")
        if passphrase and not key_file:
            raise wrong("keyPassphrase", "is that of a keyFile, which is missing")
        try:
            key = _key(key_file, passphrase) if key_file else None
        except ValueError as error:
            raise wrong("keyPassphrase" if passphrase else "keyFile", str(error)) from None
        known_hosts = text("knownHosts")
        if known_hosts and (fault := _unreadable(known_hosts)):
            raise wrong("knownHosts", fault)
        if not (host_key or known_hosts) and given.get("trustFirstUse") is not True:
            raise wrong(
                "hostKey",
                "is missing; take the device's public key from ssh-keyscan, name a file of knownHosts,"
                " or set trustFirstUse: true",
            )
        if host_key and not _is_host_key(host_key):
            raise wrong("hostKey", "must be the base64 part of an ed25519, ecdsa or rsa public key")
        listens, calls = given.get("notifications") is True, given.get("callHome") is True
        if calls and not (host_key or known_hosts):
            raise wrong("callHome", "who calls home must prove itself: hostKey or knownHosts is needed")
        host = text("host") or address
        found = cls(device, host, port, username, password, key, host_key, known_hosts, listens, calls)
        if calls and not found.host_keys:
            raise wrong("knownHosts", f"has no key of {device} or {host}, by which it is known when it calls home")
        return found

    @property
    def host_keys(self) -> frozenset[str]:
        """The keys by which it is known, in base64: the one that is given, or those of its name or host in the file."""
        if self.host_key or not self.known_hosts:
            return frozenset(filter(None, (self.host_key,)))
        listed = paramiko.HostKeys(self.known_hosts)
        names = (self.device, self.host, f"[{self.host}]:{self.port}")
        return frozenset(key.get_base64() for name in names for key in (listed.lookup(name) or {}).values())


class Denied(Exception):
    """The device answered a call with errors. ``words`` are its own, with what must stay secret taken out."""

    def __init__(self, rpc: str, errors: Sequence[RPCError], secrets: Sequence[str]) -> None:
        words = "; ".join(_sentence(error) for error in errors)
        for secret in secrets:
            words = words.replace(secret, "***")
        self.words = f"{rpc.replace('_', '-')} refused: {words}"[:WORDS]
        super().__init__(self.words)
        self.busy = any(error.tag in BUSY for error in errors)
        self.holder = next((holder for error in errors if (holder := _holder(error)) is not None), None)


class PromptSession(SSHSession):  # type: ignore[misc]
    """ncclient's SSH session with messages written at once, by the thread that has them, and a key of our own."""

    def __init__(self, handler: Any, key: paramiko.PKey | None) -> None:
        super().__init__(handler)
        self._key = key
        self._lost = False

    def _auth(self, username: str, password: str | None, *_: Any) -> None:
        """Log in with the key, with the password, or with both where the device wants both.

        ncclient's own takes the password for the key's pass phrase.
        """
        ways: list[Callable[[], list[str]]] = []
        if self._key is not None:
            ways.append(lambda: list(self._transport.auth_publickey(username, self._key)))
        if password is not None:
            ways.append(lambda: list(self._transport.auth_password(username, password)))
        refused: list[str] = []
        for way in ways:
            try:
                if not way():
                    return
                refused.append("it wants more")
            except paramiko.AuthenticationException as error:
                if not self._transport.is_active():
                    break  # it hung up, which some do instead of asking again
                refused.append(str(error))
        if not refused:
            raise TransportError("the connection ended during the login")
        raise AuthenticationError("; ".join(refused))

    def adopt(self, transport: paramiko.Transport, username: str, password: str | None, within: float) -> None:
        """Log in and greet over a connection whose host key was proved; ncclient's ``connect`` makes its own."""
        self._transport = transport
        if not transport.is_authenticated():
            self._auth(username, password)
        self._connected = True
        self._closing.clear()
        self._channel = transport.open_session()
        self._channel.invoke_subsystem("netconf")
        self._post_connect(within)
        self.parser = self._device_handler.get_xml_parser(self)

    def part(self) -> paramiko.Transport:
        """End the session, and leave the connection that it came over."""
        self._closing.set()
        self._channel.close()
        return self._transport

    def send(self, message: str) -> None:
        self.write(message.encode())

    def write(self, body: bytes) -> None:
        channel = self._channel
        if not self.connected or channel is None:
            raise TransportError("not connected to the NETCONF server")
        chunked = self._base == NetconfBase.BASE_11
        channel.sendall(b"\n#%d\n%s\n##\n" % (len(body), body) if chunked else body + b"]]>]]>")
        if self._lost:  # the call registered after the loss was told to all others would wait its whole time-out
            raise SessionCloseError(b"")

    def run(self) -> None:
        try:
            while received := self._channel.recv(_READ):
                self.parser.parse(received)
            if not self._closing.is_set():
                raise SessionCloseError(b"")
        except Exception as error:
            self._lost = True
            self._dispatch_error(error)
            self._notification_q.put(None)  # who waits for a notification need not wait for its time-out
            self.close()


class Connection:
    """A session that is open; after ``Unavailable`` from any call it is closed and of no more use.

    ``holds`` is the datastore that it has locked; who waits during a step waits for ``stopping``.
    """

    def __init__(
        self,
        access: Access,
        manager: Manager,
        session: PromptSession,
        link: socket.socket,
        stopping: threading.Event,
    ) -> None:
        self._access = access
        self._manager = manager
        self._session = session
        self._link = link
        self.device = access.device
        self.stopping = stopping
        self.holds = ""
        self._known: dict[str, bool] = {}
        self._answers = Answers()
        session.add_listener(self._answers)
        self.host_key: str = session.transport.get_remote_server_key().get_base64()

    def can(self, capability: str) -> bool:
        """Whether the device has a capability, by its short name (:candidate)."""
        if capability not in self._known:  # ncclient reads all of them each time
            self._known[capability] = capability in self._manager.server_capabilities
        return self._known[capability]

    @property
    def alive(self) -> bool:
        return bool(self._session.connected and self._session.is_alive() and self._session.transport.is_active())

    def call(self, rpc: str, *arguments: Any, within: float = RPC_TIMEOUT, **named: Any) -> Answer:
        """Make one call and return the answer to it.

        Raises Denied when the device answers with errors, Unreachable when it does not answer, OutcomeUnknown where
        what it was told may be in force all the same.
        """
        asked = rpc.replace("_", "-")
        try:
            with (
                _told(self._access.device, "confirm" if "persist_id" in named and rpc == "commit" else asked) as told,
                trace.span(f"netconf {rpc}"),
            ):
                reply = self._answers.ask(self._session.write, written(rpc, *arguments, **named), within)
                told(bool(reply.errors))
        except (*BROKEN, etree.LxmlError) as error:
            self.close()
            changes = rpc in CHANGING or named.get("target") == "running"
            raise (OutcomeUnknown if changes else Unreachable)(_unanswered(self.device, asked, error)) from error
        if reply.errors:
            raise Denied(rpc, reply.errors, [self._access.password] if self._access.password else [])
        return reply

    def heard(self, within: float) -> bool:
        """Whether the device answers what any device answers at once: a read of nothing (RFC 6241, 6.4.2).

        Raises what the session raises.
        """
        try:
            self._answers.ask(self._session.write, written("get_config", "running", filter=nothing()), within)
        except TimeoutExpiredError:
            return False
        return True

    def subscribe(self, since: str | None, within: float) -> None:
        """Have the device tell what happens from now on, and before that what happened since (RFC 5277)."""
        self.call("create_subscription", start_time=since, within=within)

    def stream(self, within: float) -> Mapping[str, str]:
        """What the device says of the stream that is subscribed to (RFC 5277, 3.2.5.1); empty where it says nothing."""
        try:
            found = self.call("get", filter=described(), within=within).data_ele
        except Denied:
            return {}
        leaves = [] if found is None else found.iterfind("{*}netconf/{*}streams/{*}stream/*")
        return {etree.QName(leaf).localname: (leaf.text or "").strip() for leaf in leaves}

    @property
    def waiting(self) -> int:
        """How many notifications have come that were not taken."""
        return int(self._session._notification_q.qsize())

    def notification(self, within: float) -> etree._Element | None:
        """Wait for a notification. Raises Unreachable when the session has ended."""
        found = self._manager.take_notification(timeout=within)
        if found is None and not self.alive:
            raise Unreachable(f"{self.device}: the session for notifications has ended; it is opened again")
        return None if found is None else found.notification_ele

    def lock(self, datastore: str, within: float) -> Denied | None:
        """Lock a datastore; what the device says where somebody else has it."""
        try:
            self.call("lock", datastore, within=within)
        except Denied as denied:
            if denied.busy:
                return denied
            raise
        self.holds = datastore
        return None

    def unlock(self) -> None:
        """Give back the lock that the session holds, where it holds one."""
        if not self.holds:
            return
        try:
            self.call("unlock", self.holds, within=UNLOCK_SECONDS)
        except (Denied, Unavailable):
            self.close()  # the end of the session is the end of its locks; what was done stays done
        self.holds = ""

    def close(self) -> None:
        """End the session and its connection."""
        self._session.close()
        self._link.close()

    def part(self) -> paramiko.Transport:
        """End the session alone; the connection, over which there may be another."""
        return self._session.part()

    def leave(self) -> None:
        """End the session as the protocol wants it; a device that does not answer is left all the same."""
        self._manager.timeout = 1.0
        try:
            self._manager.close_session()
        except BROKEN:
            pass
        finally:
            self.close()


@contextmanager
def _told(device: str, rpc: str) -> Iterator[Callable[[bool], None]]:
    """Tell of a call when it has ended; the function that is given is told whether the device refused."""
    begun, refused = perf_counter(), list[bool]()
    try:
        yield refused.append
    finally:
        outcome: Literal["done", "refused", "failed"] = "failed"
        if refused:
            outcome = "refused" if refused[0] else "done"
        tell(Rpc(device, rpc, outcome, perf_counter() - begun))


def dial(
    access: Access,
    dialled: Callable[[Callable[[], None]], None],
    within: float,
    stopping: threading.Event | None = None,
) -> Connection:
    """Open a session. Raises Unreachable or CredentialsRefused with what to do.

    It takes no longer than ``within``, however silent the peer.
    ``dialled`` is given a function that any thread may call to cut the link: what waits for the peer fails at once.

    A peer that is busy may read our greeting and the first call as one. netconfd takes both for one message, whose end
    never comes, since the greeting alone decides how messages end (RFC 6242, 4.1). So a session is proved by a call
    that a device answers at once, and opened anew where it does not; one that is only slow is used in the end.
    """
    until, stopping = monotonic() + within, stopping or threading.Event()
    with _told(access.device, "connect") as told:
        connection, patience = _dial(access, dialled, within, stopping), HEARD_WITHIN
        while not _heard(connection, min(patience, until - monotonic())) and monotonic() + 2 * patience < until:
            connection, patience = _anew(connection, access, dialled, until, stopping), 2 * patience
        told(False)
    return connection


def _anew(
    connection: Connection,
    access: Access,
    dialled: Callable[[Callable[[], None]], None],
    until: float,
    stopping: threading.Event,
) -> Connection:
    """Open another session over the same connection: who calls home need not call again for it (RFC 4254, 5.1).

    A device that has but one session to a connection is connected to anew, for which half of the time is kept.
    """
    try:
        return _dial(access, dialled, (until - monotonic()) / 2, stopping, over=connection.part())
    except Unreachable:
        return _dial(access, dialled, max(until - monotonic(), 0.0), stopping)


def _heard(connection: Connection, within: float) -> bool:
    try:
        return connection.heard(within)
    except (*BROKEN, etree.LxmlError) as error:
        connection.close()
        raise Unreachable(_unanswered(connection.device, "get-config", error)) from error


def _dial(
    access: Access,
    dialled: Callable[[Callable[[], None]], None],
    within: float,
    stopping: threading.Event,
    over: paramiko.Transport | None = None,
) -> Connection:
    where = f"{access.device} ({access.host}:{access.port})"
    if access.calls_home:
        where = f"{access.device} (which calls home)"
    over = over or _called(access, where, within)
    link = _link(access, where, within) if over is None else over.sock
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    dialled(lambda: _shut(link))
    handler = make_device_handler({"name": "default"})
    handler.add_additional_netconf_params({"capabilities": list(CAPABILITIES)})
    session = PromptSession(handler, access.key)
    bound = threading.Timer(within, _shut, [link])  # ncclient's own time-outs bound neither login nor key exchange
    bound.daemon = True
    bound.start()
    try:
        if over is not None:
            session.adopt(over, access.username, access.password, within)
        else:
            _connect(session, access, link, within)
        manager = Manager(session, handler, timeout=within, raise_mode=RaiseMode.NONE)
        return Connection(access, manager, session, link, stopping)
    except BROKEN as error:
        refused = isinstance(error, AuthenticationError)
        if session.transport:
            session.close()
        link.close()
        kind: type[Unavailable] = CredentialsRefused
        if isinstance(error, SSHUnknownHostError):
            where_known = "netconf.hostKey" if access.host_key else access.known_hosts
            words = f"shows another host key than the one we know: if that is meant to be, change {where_known}"
        elif refused:
            words = f"refuses the credentials of {access.username}: check netconf.username, password and keyFile"
        else:
            kind = Unreachable
            words = f"opens no NETCONF session ({_reason(error)}): check that it serves NETCONF over SSH there"
        raise kind(f"{where} {words}") from error
    finally:
        bound.cancel()


def _connect(session: PromptSession, access: Access, link: socket.socket, within: float) -> None:
    if access.known_hosts:
        session.load_known_hosts(access.known_hosts)
    session.connect(
        host=access.host,
        port=access.port,
        sock=link,
        timeout=within,
        username=access.username,
        password=access.password,
        allow_agent=False,
        look_for_keys=False,
        hostkey_verify=bool(access.host_key or access.known_hosts),
        hostkey_b64=access.host_key,
    )


def _called(access: Access, where: str, within: float) -> paramiko.Transport | None:
    """A connection that the device has opened; None for one that does not call home."""
    try:
        return None if access.called is None else access.called(within)
    except OSError as error:
        words = f"has not called within {within:g} s: check that it is up, where it calls, and its host key"
        raise Unreachable(f"{where} {words}") from error


def _link(access: Access, where: str, within: float) -> socket.socket:
    try:
        return socket.create_connection((access.host, access.port), timeout=within)
    except OSError as error:
        words = f"does not accept connections ({_reason(error)}): check that it is up and its port"
        raise Unreachable(f"{where} {words}") from error


def _shut(link: socket.socket) -> None:
    try:
        link.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already


def _unanswered(device: str, rpc: str, error: BaseException) -> str:
    return f"{device}: no answer to {rpc} ({_reason(error)}); it is asked again later"


def _reason(error: BaseException) -> str:
    if isinstance(error, SessionCloseError):
        return "the session ended"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split())[:200] or type(error).__name__


def _sentence(error: RPCError) -> str:
    message = " ".join((error.message or "").split()) or error.app_tag or error.tag or "no reason given"
    return f"{error.path.strip()}: {message}" if error.path and error.path.strip() else message


def _holder(error: RPCError) -> str | None:
    return next((node.text for node in error.xml.iter("{*}session-id")), None)


def _key(file: str, passphrase: str | None) -> paramiko.PKey:
    """A private key. Raises ValueError with what is wrong with it, and never what is in it."""
    try:
        return paramiko.PKey.from_path(file, passphrase.encode() if passphrase else None)
    except TypeError:
        words = "the key is not encrypted" if passphrase else "the key is encrypted: keyPassphrase is missing"
    except (OSError, ValueError, paramiko.SSHException):
        words = "it does not open the key" if passphrase else "there is no private key in the file"
    raise ValueError(words)


def _unreadable(known_hosts: str) -> str:
    """What is wrong with a file of known hosts."""
    try:
        return "" if paramiko.HostKeys(known_hosts) else "there is no host key in the file"
    except OSError as error:
        return f"the file cannot be read ({_reason(error)})"


def _is_host_key(text: str) -> bool:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    for kind in (paramiko.Ed25519Key, paramiko.RSAKey, paramiko.ECDSAKey):
        try:
            kind(data=raw)
        except (paramiko.SSHException, ValueError, UnicodeDecodeError):
            continue
        return True
    return False
