"""A NETCONF element to learn and to test with: a real server over real SSH that keeps what it is told.

It has candidate and running, locks, confirmed commit 1.1 and validation by libyang against convergedon-access.yang and
what it has of ietf-interfaces, and keeps its configuration in a folder. Its interfaces shape no faster than they can:
an access sold above the capacity of its port is accepted and then reads the capacity as its ``oper-bandwidth``, as real
shapers do. Faults are given to it as a list, so that a test says where on the line something breaks.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lxml import etree  # type: ignore[import-untyped]

from convergedon.adapters.netconf.ports import Port, Ports
from convergedon.core.errors import Misconfigured, NotFound

if TYPE_CHECKING:
    import asyncssh

NC = "urn:ietf:params:xml:ns:netconf:base:1.0"
ACCESS = "urn:convergedon:yang:access"
NOTIFICATION = "urn:ietf:params:xml:ns:netconf:notification:1.0"
REPLAYED = 1_000
INTERFACES = "urn:ietf:params:xml:ns:yang:ietf-interfaces"
TYPES = "urn:ietf:params:xml:ns:yang:iana-if-type"
MODULE = "convergedon-access"
MODULES = {ACCESS: MODULE, INTERFACES: "ietf-interfaces"}
HERE = files("convergedon.adapters.netconf")
YANG = (
    HERE / "yang" / f"{MODULE}.yang",
    HERE / "element" / "ietf-interfaces.yang",
    HERE / "element" / "iana-if-type.yang",
)
CONFIRM_TIMEOUT = 600.0  # RFC 6241, 8.4.4.1
LARGEST_MESSAGE = 16_777_216
CAPABILITIES = (
    "urn:ietf:params:netconf:base:1.0",
    "urn:ietf:params:netconf:base:1.1",
    "urn:ietf:params:netconf:capability:candidate:1.0",
    "urn:ietf:params:netconf:capability:confirmed-commit:1.0",
    "urn:ietf:params:netconf:capability:confirmed-commit:1.1",
    "urn:ietf:params:netconf:capability:notification:1.0",
    "urn:ietf:params:netconf:capability:rollback-on-error:1.0",
    "urn:ietf:params:netconf:capability:validate:1.0",
    "urn:ietf:params:netconf:capability:validate:1.1",
    f"{ACCESS}?module={MODULE}&revision=2026-11-26",
    f"{INTERFACES}?module=ietf-interfaces&revision=2018-02-20",
    f"{TYPES}?module=iana-if-type&revision=2014-05-08",
)
KEYS = {
    f"{{{space}}}{entry}": f"{{{space}}}name"
    for space, entry in ((ACCESS, "access"), (ACCESS, "interface"), (INTERFACES, "interface"))
}
CONTAINERS = frozenset({f"{{{ACCESS}}}accesses", f"{{{INTERFACES}}}interfaces"})
EDIT_OPERATIONS = frozenset({"merge", "replace", "create", "delete", "remove", "none"})

log = logging.getLogger(__name__)

FaultKind = Literal["refuse", "delay", "silence", "drop-before", "drop-after", "ignore", "garble"]


@dataclass
class Fault:
    """Something that goes wrong the next ``times`` an RPC comes.

    ``rpc`` is the operation's name; a commit that opens a confirmed commit is called ``commit-confirmed``. refuse
    answers with an error, delay waits ``seconds``, silence never answers, drop-before cuts the connection before the
    RPC is done and drop-after when it is done and not yet answered, ignore answers ok and does nothing, garble answers
    what is not XML.
    """

    kind: FaultKind
    rpc: str
    times: int = 1
    seconds: float = 0.0
    words: str = "the element was told to refuse this"


class RpcError(Exception):
    """What becomes an <rpc-error>."""

    def __init__(
        self,
        tag: str,
        message: str,
        path: str = "",
        app_tag: str = "",
        info: Mapping[str, str] | None = None,
        type_: str = "application",
    ) -> None:
        super().__init__(message)
        self.tag, self.message, self.path, self.app_tag, self.type = tag, message, path, app_tag, type_
        self.info = info or {}


class RpcErrors(Exception):
    """Several errors in one answer."""

    def __init__(self, errors: list[RpcError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = errors


@dataclass
class Pending:
    """A confirmed commit that waits for its confirmation."""

    before: etree._Element
    persist: str | None
    session: int
    timer: asyncio.TimerHandle


@dataclass(eq=False)
class Session:
    """One NETCONF session."""

    id: int
    process: asyncssh.SSHServerProcess[bytes]
    chunked: bool = False
    closing: bool = False
    subscribed: bool = False
    buffer: bytearray = field(default_factory=bytearray)

    def drop(self) -> None:
        self.closing = True
        self.process.get_extra_info("connection").abort()

    def write(self, message: bytes) -> None:
        framed = b"\n#%d\n%s\n##\n" % (len(message), message) if self.chunked else message + b"]]>]]>"
        self.process.stdout.write(framed)

    async def read(self) -> bytes | None:
        """Read one message; None when the peer has gone or breaks the framing (RFC 6242)."""
        while True:
            message, rest = (_chunked if self.chunked else _delimited)(bytes(self.buffer))
            if message is not None:
                self.buffer[:] = rest
                return message
            received = await self.process.stdin.read(65_536)
            if not received or len(self.buffer) > LARGEST_MESSAGE:
                return None
            self.buffer += received


class Element:
    """A simulated network element. It listens on loopback only."""

    def __init__(
        self,
        name: str,
        folder: Path,
        interfaces: Mapping[str, int],
        port: int = 0,
        username: str = "lab",
        password: str = "lab",
        faults: Iterable[Fault] = (),
        capabilities: Iterable[str] = CAPABILITIES,
    ) -> None:
        """Make an element with these interfaces and their capacities in Mbit/s, its memory being the folder.

        Raises Misconfigured where the extra that it needs is not installed.
        """
        _require()
        self.name = name
        self.folder = folder
        self.interfaces = dict(interfaces)
        self.port = port
        self.username = username
        self.password = password
        self.faults = list(faults)
        self.capabilities = tuple(capabilities)
        self.latency = 0.0
        self.silent = False
        self.booted = time.monotonic()
        self.requests: Counter[str] = Counter()
        self.sessions: dict[int, Session] = {}
        self.sessions_opened = 0
        self._fixed_port = port
        self._running = _empty()
        self._candidate: etree._Element | None = None  # None while it is the same as running
        self._pending: Pending | None = None
        self._locks: dict[str, int] = {}
        self._server: asyncssh.SSHAcceptor | None = None
        self._key: asyncssh.SSHKey | None = None
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._ports = Ports(interfaces, time.monotonic())
        self._switched: dict[str, bool] = {}
        self.on_link: Callable[[str, bool], None] = lambda interface, up: None
        self._told: deque[tuple[datetime, bytes]] = deque(maxlen=REPLAYED)
        self._telling: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    @property
    def host_key(self) -> str:
        """The public host key in base64, once the element was started."""
        if self._key is None:
            raise Misconfigured(f"element {self.name} has no host key before it was started")
        return self._key.export_public_key().split()[1].decode()

    def device_entry(self) -> dict[str, Any]:
        """Say how to reach the element, as an entry of the devices file."""
        netconf = {
            "host": "127.0.0.1",
            "port": self.port,
            "username": self.username,
            "password": self.password,
            "hostKey": self.host_key,
        }
        return {"name": self.name, "address": "127.0.0.1", "netconf": netconf}

    async def start(self) -> int:
        """Listen; the port is the one asked for, or the one it had before, or a free one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._key = self._host_key()
        self.booted = time.monotonic()
        self._ports.begin_anew(self.booted)
        self._restore()
        kept = self.folder / "port"
        wanted = self._fixed_port or (int(kept.read_text()) if kept.exists() else 0)
        try:
            self._server = await self._listen(wanted)
        except OSError as error:
            if self._fixed_port:
                raise Misconfigured(f"element {self.name}: port {wanted} on 127.0.0.1 is taken") from error
            self._server = await self._listen(0)
        self.port = self._server.get_port()
        _write(kept, str(self.port))
        logging.getLogger("asyncssh").setLevel(logging.WARNING)
        return self.port

    async def stop(self) -> None:
        """Close everything. A commit that is not confirmed is undone when the element starts again."""
        if self._server is not None:
            self._server.close()
            for session in list(self.sessions.values()):
                session.closing = True
            for connection in list(self._connections):
                connection.abort()
            await self._server.wait_closed()
            await self.until(lambda: not self.sessions and not self._connections)
            self._server = None
        if self._pending is not None:
            self._pending.timer.cancel()
            self._pending = None
        self._candidate = None
        self._locks.clear()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is looked at again after each RPC and each change."""
        async with self._changed:
            await self._changed.wait_for(condition)

    @property
    def pending(self) -> bool:
        """Whether a confirmed commit waits for its confirmation."""
        return self._pending is not None

    @property
    def locked(self) -> bool:
        return bool(self._locks)

    def running(self) -> dict[str, dict[str, str]]:
        """Read the accesses of the running configuration: name -> leaf -> text."""
        return {
            entry.findtext(f"{{{ACCESS}}}name"): {etree.QName(leaf).localname: leaf.text or "" for leaf in entry}
            for entry in self._running.iterfind(f"{{{ACCESS}}}accesses/{{{ACCESS}}}access")
        }

    # --- SSH

    async def _listen(self, port: int) -> asyncssh.SSHAcceptor:
        import asyncssh

        element = self

        class Login(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                self.connection = conn
                element._connections.add(conn)

            def connection_lost(self, exc: Exception | None) -> None:
                element._connections.discard(self.connection)
                element._tell_soon()

            def begin_auth(self, username: str) -> bool:
                return True

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == (element.username, element.password)

        return await asyncssh.listen(
            "127.0.0.1",
            port,
            server_factory=Login,
            server_host_keys=[self._key] if self._key else [],
            process_factory=self._serve,
            encoding=None,
            line_editor=False,
            allow_pty=False,
            agent_forwarding=False,
            server_version="ConvergedON-lab",
        )

    def _host_key(self) -> asyncssh.SSHKey:
        import asyncssh

        kept = self.folder / "host.key"
        if not kept.exists():
            _write(kept, asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode())
        return asyncssh.read_private_key(kept)

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        import asyncssh

        if process.subsystem != "netconf":
            process.exit(1)
            return
        self.sessions_opened += 1
        session = Session(self.sessions_opened, process)
        self.sessions[session.id] = session
        try:
            session.write(self._hello(session))
            if await self._greeted(session):
                while not session.closing and (message := await session.read()) is not None:
                    await self._answer(session, message)
            await process.stdout.drain()
        except (asyncssh.Error, OSError):
            session.closing = True  # the peer has gone
        finally:
            self._ended(session)
            process.close()
            await self._tell()

    def _hello(self, session: Session) -> bytes:
        hello = etree.Element(f"{{{NC}}}hello", nsmap={None: NC})
        listed = etree.SubElement(hello, f"{{{NC}}}capabilities")
        for capability in self.capabilities:
            etree.SubElement(listed, f"{{{NC}}}capability").text = capability
        etree.SubElement(hello, f"{{{NC}}}session-id").text = str(session.id)
        return _serialise(hello)

    async def _greeted(self, session: Session) -> bool:
        message = await session.read()
        try:
            hello = _parse(message or b"")
        except etree.XMLSyntaxError:
            return False
        theirs = {(node.text or "").strip() for node in hello.iter(f"{{{NC}}}capability")}
        session.chunked = "urn:ietf:params:netconf:base:1.1" in theirs & set(self.capabilities)
        return bool(hello.tag == f"{{{NC}}}hello")

    def _ended(self, session: Session) -> None:
        """Release what the session held (RFC 6241: 7.5, 8.3.5.2, 8.4.1)."""
        self.sessions.pop(session.id, None)
        for datastore in [name for name, holder in self._locks.items() if holder == session.id]:
            del self._locks[datastore]
            if datastore == "candidate":
                self._candidate = None
        if self._pending and self._pending.persist is None and self._pending.session == session.id:
            self._undo()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _tell_soon(self) -> None:
        telling = asyncio.get_running_loop().create_task(self._tell())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    # --- RPCs

    async def _answer(self, session: Session, message: bytes) -> None:
        try:
            rpc = _parse(message)
        except etree.XMLSyntaxError as error:
            session.write(_reply({}, [RpcError("malformed-message", str(error), type_="rpc")]))
            return
        operation = next(iter(rpc.iterchildren(tag=etree.Element)), None)
        name = _fault_name(operation)
        self.requests[name] += 1
        if self.silent:
            await self._tell()
            return
        fault = self._fault(name)
        try:
            if self.latency:
                await self._linger(session, self.latency)
            if fault is not None and not await self._befall(fault, session):
                return
            if "message-id" not in rpc.attrib:
                raise RpcError(
                    "missing-attribute", "an rpc needs a message-id", info={"bad-attribute": "message-id"}, type_="rpc"
                )
            found = None if fault and fault.kind == "ignore" else self._do(session, operation)
            answer = _reply(rpc.attrib, found)
        except RpcError as error:
            answer = _reply(rpc.attrib, [error])
        except RpcErrors as several:
            answer = _reply(rpc.attrib, several.errors)
        if fault and fault.kind == "drop-after":
            session.drop()
        else:
            session.write(answer.replace(b"</", b"<") if fault and fault.kind == "garble" else answer)
        await self._tell()

    def _fault(self, name: str) -> Fault | None:
        for fault in self.faults:
            if fault.rpc == name and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    async def _befall(self, fault: Fault, session: Session) -> bool:
        """Do what the fault does before the RPC; false when the RPC is not done."""
        match fault.kind:
            case "refuse":
                raise RpcError("operation-failed", fault.words)
            case "delay":
                await self._linger(session, fault.seconds)
            case "drop-before":
                session.drop()
                await self._tell()
            case "silence":
                await self._tell()
        return fault.kind not in ("drop-before", "silence")

    @staticmethod
    async def _linger(session: Session, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(session.process.wait_closed(), seconds)

    def _do(self, session: Session, operation: etree._Element | None) -> etree._Element | None:
        actions: dict[str, Callable[[Session, etree._Element], etree._Element | None]] = {
            "get": self._get,
            "get-config": self._get_config,
            "lock": self._lock,
            "unlock": self._unlock,
            "edit-config": self._edit_config,
            "validate": self._validate,
            "commit": self._commit,
            "cancel-commit": self._cancel_commit,
            "discard-changes": self._discard_changes,
            "close-session": self._close_session,
            "kill-session": self._kill_session,
            "create-subscription": self._create_subscription,
        }
        name = etree.QName(operation).localname if operation is not None else ""
        space = NOTIFICATION if name == "create-subscription" else NC
        if operation is None or name not in actions or etree.QName(operation).namespace != space:
            raise RpcError("operation-not-supported", f"there is no operation {name!r} here", type_="protocol")
        return actions[name](session, operation)

    def _get(self, session: Session, operation: etree._Element) -> etree._Element:
        return _filtered(self._with_state(), operation.find(f"{{{NC}}}filter"))

    def _get_config(self, session: Session, operation: etree._Element) -> etree._Element:
        stored = self._stored(_datastore(operation, "source"))
        return _filtered(stored, operation.find(f"{{{NC}}}filter"))

    def _lock(self, session: Session, operation: etree._Element) -> None:
        target = _datastore(operation, "target")
        self._stored(target)
        if (holder := self._locks.get(target)) is not None:
            raise RpcError("lock-denied", f"{target} is locked", info={"session-id": str(holder)}, type_="protocol")
        if target == "candidate" and self._candidate is not None:
            raise RpcError(
                "lock-denied",
                "the candidate has changes that nobody committed",
                info={"session-id": "0"},
                type_="protocol",
            )
        if target == "running" and self._pending and self._pending.session != session.id:
            raise RpcError(
                "lock-denied",
                "a confirmed commit is pending",
                info={"session-id": str(self._pending.session)},
                type_="protocol",
            )
        self._locks[target] = session.id

    def _unlock(self, session: Session, operation: etree._Element) -> None:
        target = _datastore(operation, "target")
        if self._locks.get(target) != session.id:
            raise RpcError("operation-failed", f"this session does not hold the lock of {target}", type_="protocol")
        del self._locks[target]

    def _edit_config(self, session: Session, operation: etree._Element) -> None:
        target = _datastore(operation, "target")
        if target != "candidate" and not self._can(":writable-running:"):
            raise RpcError("operation-not-supported", "only the candidate can be edited", type_="protocol")
        self._free(target, session)
        config = operation.find(f"{{{NC}}}config")
        if config is None:
            raise RpcError(
                "missing-element", "edit-config without config", info={"bad-element": "config"}, type_="protocol"
            )
        default = operation.findtext(f"{{{NC}}}default-operation", "merge").strip()
        option = operation.findtext(f"{{{NC}}}test-option", "test-then-set").strip()
        if default not in ("merge", "replace", "none") or option not in ("test-then-set", "set", "test-only"):
            raise RpcError("invalid-value", "no such default-operation or test-option", type_="protocol")
        edited = _empty() if default == "replace" else copy.deepcopy(self._stored(target))
        _edit(edited, config, default, "")
        _prune(edited)
        self._check(edited, whole=option != "set")
        if option == "test-only":
            return
        if target == "candidate":
            self._candidate = edited
        else:
            self._running = edited
            self._save()

    def _validate(self, session: Session, operation: etree._Element) -> None:
        source = operation.find(f"{{{NC}}}source")
        config = source.find(f"{{{NC}}}config") if source is not None else None
        self._check(config if config is not None else self._stored(_datastore(operation, "source")))

    def _commit(self, session: Session, operation: etree._Element) -> None:
        self._free("candidate", session)
        self._free("running", session)
        persist_id = _text(operation, "persist-id")
        pending = self._pending
        if persist_id is not None and (pending is None or pending.persist != persist_id):
            raise RpcError("invalid-value", "no confirmed commit with this persist-id is pending", type_="protocol")
        if pending and persist_id is None and (pending.persist is not None or pending.session != session.id):
            raise RpcError("in-use", "another confirmed commit is pending", type_="protocol")
        committed = copy.deepcopy(self._stored("candidate"))
        self._check(committed)
        confirmed = operation.find(f"{{{NC}}}confirmed") is not None
        timeout = _seconds(operation) if confirmed else 0.0
        before = pending.before if pending else self._running
        if pending:
            pending.timer.cancel()
        self._running, self._candidate = committed, None
        if confirmed:
            persist = _text(operation, "persist") or (pending.persist if pending else None)
            timer = asyncio.get_running_loop().call_later(timeout, self._expire)
            self._pending = Pending(before, persist, session.id, timer)
        else:
            self._pending = None
        self._save()

    def _cancel_commit(self, session: Session, operation: etree._Element) -> None:
        persist_id = _text(operation, "persist-id")
        if self._pending is None:
            raise RpcError("operation-failed", "no confirmed commit is pending", type_="protocol")
        if self._pending.persist != persist_id or (persist_id is None and self._pending.session != session.id):
            raise RpcError("invalid-value", "the pending confirmed commit has another persist-id", type_="protocol")
        self._undo()

    def _discard_changes(self, session: Session, operation: etree._Element) -> None:
        self._free("candidate", session)
        self._candidate = None

    def _close_session(self, session: Session, operation: etree._Element) -> None:
        session.closing = True

    def _kill_session(self, session: Session, operation: etree._Element) -> None:
        given = _text(operation, "session-id") or ""
        victim = self.sessions.get(int(given)) if given.isdigit() else None
        if victim is None or victim is session:
            raise RpcError("invalid-value", f"no other session {given!r}", type_="protocol")
        self._ended(victim)
        victim.drop()

    # --- notifications (RFC 5277)

    def _create_subscription(self, session: Session, operation: etree._Element) -> None:
        if session.subscribed:
            raise RpcError("operation-failed", "this session has a subscription", type_="protocol")
        stream = operation.findtext(f"{{{NOTIFICATION}}}stream", "NETCONF").strip()
        if stream != "NETCONF":
            raise RpcError("invalid-value", f"there is no stream {stream!r}", type_="protocol")
        since = operation.findtext(f"{{{NOTIFICATION}}}startTime")
        session.subscribed = True
        if since is not None:
            asyncio.get_running_loop().call_soon(self._replay, session, since.strip())  # after the answer

    def _replay(self, session: Session, since: str) -> None:
        for at, message in self._told:
            if at >= datetime.fromisoformat(since):
                session.write(message)
        session.write(_notification(datetime.now(UTC), etree.Element(f"{{{NOTIFICATION}}}replayComplete")))

    def tell_all(self, content: etree._Element) -> None:
        """Send a notification to whoever subscribed, and keep it for those who ask for it later."""
        now = datetime.now(UTC)
        message = _notification(now, content)
        self._told.append((now, message))
        for session in self.sessions.values():
            if session.subscribed and not session.closing:
                session.write(message)

    # --- datastores

    def _stored(self, name: str) -> etree._Element:
        if name == "running":
            return self._running
        if name == "candidate" and self._can(":candidate:"):
            return self._running if self._candidate is None else self._candidate
        raise RpcError("invalid-value", f"there is no datastore {name!r}", type_="protocol")

    def _can(self, capability: str) -> bool:
        return any(capability in uri for uri in self.capabilities)

    def _free(self, datastore: str, session: Session) -> None:
        holder = self._locks.get(datastore)
        if holder is not None and holder != session.id:
            raise RpcError(
                "in-use",
                f"{datastore} is locked by session {holder}",
                info={"session-id": str(holder)},
                type_="protocol",
            )

    def _check(self, config: etree._Element, whole: bool = True) -> None:
        """Refuse what the YANG module or the hardware does not allow; not whole: only what no later edit can mend."""
        errors = list(_yang_errors(config, whole))
        if whole:
            errors += self._hardware_errors(config)
        if errors:
            raise RpcErrors(errors)

    def _hardware_errors(self, config: etree._Element) -> Iterator[RpcError]:
        for entry in config.iterfind(f"{{{ACCESS}}}accesses/{{{ACCESS}}}access"):
            interface = entry.findtext(f"{{{ACCESS}}}interface")
            if interface is not None and interface not in self.interfaces:
                path = f"/{MODULE}:accesses/access[name='{entry.findtext(f'{{{ACCESS}}}name')}']/interface"
                yield RpcError("invalid-value", f"{self.name} has no interface {interface!r}", path)
        for name in _switches(config):
            if name not in self.interfaces:
                path = f"/ietf-interfaces:interfaces/interface[name='{name}']"
                yield RpcError("invalid-value", f"{self.name} has no interface {name!r}", path)

    def _with_state(self) -> etree._Element:
        found = copy.deepcopy(self._running)
        for entry in found.iterfind(f"{{{ACCESS}}}accesses/{{{ACCESS}}}access"):
            rate = self._shaped(entry)
            etree.SubElement(entry, f"{{{ACCESS}}}oper-bandwidth").text = str(rate)
            etree.SubElement(entry, f"{{{ACCESS}}}oper-status").text = "up" if rate else "down"
        self._look_at_ports()
        listed = etree.SubElement(found, f"{{{ACCESS}}}interfaces", nsmap={None: ACCESS})
        for name, capacity in self.interfaces.items():
            port = self._ports[name]
            state = {"name": name, "oper-status": "up" if port.up else "down", "capacity": capacity}
            octets = {"in-octets": int(port.octets), "out-octets": int(port.octets)}
            interface = etree.SubElement(listed, f"{{{ACCESS}}}interface")
            for leaf, value in {**state, **octets}.items():
                etree.SubElement(interface, f"{{{ACCESS}}}{leaf}").text = str(value)
        self._with_interfaces(found)
        return found

    def _with_interfaces(self, found: etree._Element) -> None:
        """Every interface is there by itself, whether it is configured or not."""
        listed = found.find(f"{{{INTERFACES}}}interfaces")
        if listed is None:
            listed = etree.SubElement(found, f"{{{INTERFACES}}}interfaces", nsmap={None: INTERFACES})
        configured = {entry.findtext(f"{{{INTERFACES}}}name"): entry for entry in listed}
        for name in self.interfaces:
            entry = configured.get(name)
            if entry is None:
                entry = etree.SubElement(listed, f"{{{INTERFACES}}}interface")
                etree.SubElement(entry, f"{{{INTERFACES}}}name").text = name
                kind = etree.SubElement(entry, f"{{{INTERFACES}}}type", nsmap={"ianaift": TYPES})
                kind.text = "ianaift:ethernetCsmacd"
            status = "up" if self._ports[name].up else "down"
            etree.SubElement(entry, f"{{{INTERFACES}}}oper-status").text = status

    def set_link(self, interface: str, up: bool, hung: bool = False) -> None:
        """Take the line of an interface up or down; one that is ``hung`` is down until the interface was off."""
        self._change_port(interface, linked=up, hung=hung)

    def enable(self, interface: str, enabled: bool) -> None:
        """Switch an interface on or off, whatever its line is."""
        port = self._ports[interface]
        mended = port.hung and not enabled
        self._change_port(interface, enabled=enabled, linked=port.linked or mended, hung=port.hung and not mended)

    def ports(self) -> Mapping[str, Port]:
        """The interfaces as they are now: up or down, and what they have counted."""
        self._look_at_ports()
        return dict(self._ports.items())

    def _switch_ports(self) -> None:
        """Switch the interfaces whose configuration says otherwise than it did."""
        before, self._switched = self._switched, _switches(self._running)
        for name in self.interfaces:
            if self._switched.get(name, True) != before.get(name, True):
                self.enable(name, self._switched.get(name, True))

    def _change_port(self, interface: str, **state: bool) -> None:
        """Change what an interface is, and tell when it goes up or down."""
        self._look_at_ports()
        port = self._ports[interface]
        before = port.up
        for name, value in state.items():
            setattr(port, name, value)
        self._look_at_ports()
        if port.up != before:
            self._tell_link(interface, port.up)
            self.on_link(interface, port.up)

    def _tell_link(self, interface: str, up: bool) -> None:
        told = etree.Element(f"{{{ACCESS}}}interface-state", nsmap={None: ACCESS})
        etree.SubElement(told, f"{{{ACCESS}}}interface").text = interface
        etree.SubElement(told, f"{{{ACCESS}}}oper-status").text = "up" if up else "down"
        self.tell_all(told)

    def link_is_up(self, interface: str) -> bool:
        """Whether an interface is up. Raises NotFound."""
        if interface not in self.interfaces:
            raise NotFound(f"{self.name} has no interface {interface}; it has {', '.join(self.interfaces)}")
        return self._ports[interface].up

    def carried(self) -> list[tuple[str, int]]:
        """The accesses that carry traffic: the address of each, and the Mbit/s that it is shaped to."""
        entries = self._running.iterfind(f"{{{ACCESS}}}accesses/{{{ACCESS}}}access")
        found = [(entry.findtext(f"{{{ACCESS}}}address"), self._shaped(entry)) for entry in entries]
        return [(address.partition("/")[0], rate) for address, rate in found if address and rate]

    def _shaped(self, entry: etree._Element) -> int:
        """What an access gives: what was configured, as far as its interface can."""
        interface = entry.findtext(f"{{{ACCESS}}}interface")
        if interface not in self.interfaces or not self._ports[interface].up:
            return 0
        return min(int(entry.findtext(f"{{{ACCESS}}}bandwidth")), self.interfaces[interface])

    def _look_at_ports(self) -> None:
        rates: Counter[str] = Counter()
        for entry in self._running.iterfind(f"{{{ACCESS}}}accesses/{{{ACCESS}}}access"):
            rates[entry.findtext(f"{{{ACCESS}}}interface")] += self._shaped(entry)
        most = {name: min(rate, self.interfaces.get(name, 0)) for name, rate in rates.items()}
        self._ports.look(time.monotonic(), most)

    def _expire(self) -> None:
        self._undo()
        self._tell_soon()

    def _undo(self) -> None:
        """Bring back what was before the pending confirmed commit."""
        if self._pending is not None:
            self._pending.timer.cancel()
            self._running, self._pending = self._pending.before, None
            self._save()

    def _save(self) -> None:
        """Keep running, and what a pending commit would go back to, before anybody is told that it is so."""
        self._look_at_ports()
        state = {"running": _serialise(self._running).decode(), "before": None}
        if self._pending is not None:
            state["before"] = _serialise(self._pending.before).decode()
        _write(self.folder / "state.json", json.dumps(state))
        self._switch_ports()

    def _restore(self) -> None:
        kept = self.folder / "state.json"
        if not kept.exists():
            return
        state = json.loads(kept.read_text(encoding="utf-8"))
        self._running = _parse((state["before"] or state["running"]).encode())
        self._look_at_ports()
        self._switch_ports()
        if state["before"]:
            self._save()


def running(element: Element) -> dict[str, dict[str, str]]:
    """Read the accesses of an element's running configuration, past NETCONF."""
    return element.running()


def _require() -> None:
    try:
        import asyncssh
        import oopt_gnpy_libyang  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise Misconfigured(f"the lab needs {error.name}: pip install 'convergedon[lab]'") from error
    del asyncssh, oopt_gnpy_libyang


# --- framing (RFC 6242)


def _delimited(received: bytes) -> tuple[bytes | None, bytes]:
    message, delimiter, rest = received.partition(b"]]>]]>")
    return (message.strip(), rest) if delimiter else (None, received)


_CHUNK = re.compile(rb"\n#([1-9]\d{0,9})\n")


def _chunked(received: bytes) -> tuple[bytes | None, bytes]:
    parts: list[bytes] = []
    at = 0
    while True:
        if parts and received.startswith(b"\n##\n", at):
            return b"".join(parts), received[at + 4 :]
        head = _CHUNK.match(received, at)
        if head is None:
            if len(received) - at >= 14 and not received.startswith(b"\n##", at):
                raise OSError("the peer breaks the chunked framing")
            return None, received
        end = head.end() + int(head[1])
        if end > len(received):
            return None, received
        parts.append(received[head.end() : end])
        at = end


# --- messages


def _parse(message: bytes) -> etree._Element:
    return etree.fromstring(
        message, etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True, remove_comments=True)
    )


def _serialise(element: etree._Element) -> bytes:
    return bytes(etree.tostring(element, xml_declaration=True, encoding="UTF-8"))


def _reply(attributes: Mapping[str, str], found: etree._Element | list[RpcError] | None) -> bytes:
    reply = etree.Element(f"{{{NC}}}rpc-reply", dict(attributes), nsmap={None: NC})
    if found is None:
        etree.SubElement(reply, f"{{{NC}}}ok")
    elif isinstance(found, list):
        for error in found:
            reply.append(_rpc_error(error))
    else:
        reply.append(found)
    return _serialise(reply)


def _notification(at: datetime, content: etree._Element) -> bytes:
    notification = etree.Element(f"{{{NOTIFICATION}}}notification", nsmap={None: NOTIFICATION})
    etree.SubElement(notification, f"{{{NOTIFICATION}}}eventTime").text = at.isoformat(timespec="microseconds")
    notification.append(content)
    return _serialise(notification)


def _rpc_error(error: RpcError) -> etree._Element:
    element = etree.Element(f"{{{NC}}}rpc-error")
    for tag, text in (("error-type", error.type), ("error-tag", error.tag), ("error-severity", "error")):
        etree.SubElement(element, f"{{{NC}}}{tag}").text = text
    if error.app_tag:
        etree.SubElement(element, f"{{{NC}}}error-app-tag").text = error.app_tag
    if error.path:
        spaces = {module: space for space, module in MODULES.items() if f"{module}:" in error.path}
        etree.SubElement(element, f"{{{NC}}}error-path", nsmap=spaces).text = error.path
    etree.SubElement(element, f"{{{NC}}}error-message").text = error.message
    if error.info:
        info = etree.SubElement(element, f"{{{NC}}}error-info")
        for tag, text in error.info.items():
            etree.SubElement(info, f"{{{NC}}}{tag}").text = text
    return element


def _fault_name(operation: etree._Element | None) -> str:
    if operation is None:
        return ""
    name = str(etree.QName(operation).localname)
    return "commit-confirmed" if name == "commit" and operation.find(f"{{{NC}}}confirmed") is not None else name


def _datastore(operation: etree._Element, where: str) -> str:
    holder = operation.find(f"{{{NC}}}{where}")
    if holder is None or not len(holder):
        raise RpcError("missing-element", f"{where} is missing", info={"bad-element": where}, type_="protocol")
    return str(etree.QName(holder[0]).localname)


def _text(operation: etree._Element, name: str) -> str | None:
    found = operation.findtext(f"{{{NC}}}{name}")
    return None if found is None else str(found).strip()


def _seconds(operation: etree._Element) -> float:
    given = _text(operation, "confirm-timeout")
    if given is None:
        return CONFIRM_TIMEOUT
    if not given.isdigit() or not int(given):
        raise RpcError("invalid-value", "confirm-timeout must be a number of seconds above 0", type_="protocol")
    return float(given)


# --- editing (RFC 6241, 7.2)


def _empty() -> etree._Element:
    return etree.Element(f"{{{NC}}}config", nsmap={None: NC})


def _edit(target: etree._Element, edits: etree._Element, inherited: str, path: str) -> None:
    for edit in edits.iterchildren(tag=etree.Element):
        operation = edit.get(f"{{{NC}}}operation", inherited)
        if operation not in EDIT_OPERATIONS:
            raise RpcError(
                "bad-attribute",
                f"there is no operation {operation!r}",
                path,
                info={"bad-attribute": "operation", "bad-element": etree.QName(edit).localname},
            )
        here = f"{path}/{_step(edit, top=not path)}"
        present = _counterpart(target, edit)
        if operation == "create" and present is not None:
            raise RpcError("data-exists", "it exists already", here)
        if operation == "delete" and present is None:
            raise RpcError("data-missing", "there is nothing to delete", here)
        if operation in ("delete", "remove"):
            if present is not None:
                target.remove(present)
            continue
        if operation == "replace" and present is not None:
            target.remove(present)
            present = None
        if present is None:
            if operation == "none" and not len(edit):
                raise RpcError("data-missing", "there is nothing here", here)
            present = etree.SubElement(target, edit.tag, nsmap={None: etree.QName(edit).namespace})
        if len(edit):
            _edit(present, edit, operation if operation != "create" else "merge", here)
        else:
            present.text = edit.text
            if (edit.text or "").partition(":")[0] in edit.nsmap:  # an identity: its prefix goes with it
                fresh = etree.Element(edit.tag, nsmap=edit.nsmap)
                fresh.text = edit.text
                target.replace(present, fresh)


def _counterpart(target: etree._Element, edit: etree._Element) -> etree._Element | None:
    key = KEYS.get(edit.tag)
    for candidate in target.iterchildren(edit.tag):
        if key is None or (candidate.findtext(key) or "").strip() == (edit.findtext(key) or "").strip():
            return candidate
    return None


def _step(edit: etree._Element, top: bool) -> str:
    name = str(etree.QName(edit).localname)
    key = KEYS.get(edit.tag)
    chosen = f"[name='{(edit.findtext(key) or '').strip()}']" if key else ""
    module = MODULES.get(etree.QName(edit).namespace, MODULE)
    return f"{module}:{name}{chosen}" if top else f"{name}{chosen}"


def _prune(config: etree._Element) -> None:
    """Take away containers that hold nothing: they mean nothing in YANG."""
    for top in list(config):
        if not len(top) and top.tag in CONTAINERS:
            config.remove(top)


def _switches(config: etree._Element) -> dict[str, bool]:
    """The interfaces that are configured, and whether they are switched on."""
    entries = config.iterfind(f"{{{INTERFACES}}}interfaces/{{{INTERFACES}}}interface")
    return {
        (entry.findtext(f"{{{INTERFACES}}}name") or "").strip(): (
            entry.findtext(f"{{{INTERFACES}}}enabled", "true").strip() != "false"
        )
        for entry in entries
    }


# --- validation


@cache
def _yang() -> tuple[Any, Any]:
    import oopt_gnpy_libyang as libyang

    libyang.set_log_options(libyang.LogOptions.Store)
    context = libyang.Context(None, libyang.ContextOptions.NoYangLibrary | libyang.ContextOptions.DisableSearchDirs)
    for module in YANG:
        context.parse_module(module.read_text(encoding="utf-8"), libyang.SchemaFormat.YANG)
    return libyang, context


def _yang_errors(config: etree._Element, whole: bool) -> Iterator[RpcError]:
    libyang, context = _yang()
    text = "".join(etree.tostring(child, encoding="unicode") for child in config)
    if not text:
        return
    reading = libyang.ParseOptions.Strict | libyang.ParseOptions.NoState
    context.clean_all_errors()
    try:
        if whole:
            context.parse_data(
                text,
                libyang.DataFormat.XML,
                reading,
                libyang.ValidationOptions.NoState | libyang.ValidationOptions.MultiError,
            )
        else:
            context.parse_data(text, libyang.DataFormat.XML, reading | libyang.ParseOptions.ParseOnly)
    except libyang.Error as error:
        said = list({(found.message, found.data_path): found for found in context.errors()}.values())
        if not said:
            yield RpcError("operation-failed", str(error))
        wrong = {found.data_path for found in said}
        for found in said:
            leaf = _MANDATORY.match(found.message)
            if (
                leaf is None or f"{found.data_path}/{leaf[1]}" not in wrong
            ):  # a leaf with a wrong value is not missing too
                yield _yang_error(found)


_MANDATORY = re.compile(r'Mandatory node "([^"]+)"')
YANG_TAGS = (
    (re.compile(r"^Unique data"), "operation-failed", "data-not-unique"),
    (re.compile(r"^Mandatory node"), "data-missing", ""),
    (re.compile(r"not found as a child|No module with namespace|Unexpected data state node"), "unknown-element", ""),
    (re.compile(r"missing its key"), "missing-element", ""),
)


def _yang_error(found: Any) -> RpcError:
    """Name the error as RFC 7950, 15 does; libyang gives words and path."""
    for pattern, tag, app_tag in YANG_TAGS:
        if pattern.search(found.message):
            return RpcError(tag, found.message, found.data_path or "", app_tag)
    return RpcError("invalid-value", found.message, found.data_path or "", found.app_tag or "")


# --- subtree filters (RFC 6241, 6)


def _filtered(stored: etree._Element, chosen: etree._Element | None) -> etree._Element:
    found = etree.Element(f"{{{NC}}}data")
    if chosen is None:
        found.extend(copy.deepcopy(child) for child in stored)
        return found
    if chosen.get("type", "subtree") != "subtree":
        raise RpcError("operation-not-supported", "only subtree filters are known here", type_="protocol")
    for child in stored:
        selected = [
            match for part in chosen.iterchildren(tag=etree.Element) if (match := _select(part, child)) is not None
        ]
        if selected:
            found.append(_union(selected))
    return found


def _select(part: etree._Element, node: etree._Element) -> etree._Element | None:
    if not _names(part, node):
        return None
    tests = [child for child in part if not len(child) and (child.text or "").strip()]
    others = [child for child in part if child not in tests]
    for test in tests:
        if not any(_names(test, leaf) and (leaf.text or "").strip() == test.text.strip() for leaf in node):
            return None
    if not others:
        return copy.deepcopy(node)
    picked = etree.Element(node.tag, nsmap=node.nsmap)
    key = KEYS.get(node.tag)
    some = False
    for leaf in node:
        selected = [match for other in others if (match := _select(other, leaf)) is not None]
        if selected:
            picked.append(_union(selected))
            some = True
        elif leaf.tag == key or any(_names(test, leaf) for test in tests):
            picked.append(copy.deepcopy(leaf))
    return picked if some or tests else None


def _union(selected: list[etree._Element]) -> etree._Element:
    """Join what several parts of a filter selected of one node."""
    first = selected[0]
    for other in selected[1:]:
        held = {etree.tostring(child) for child in first}
        first.extend(child for child in list(other) if etree.tostring(child) not in held)
    return first


def _names(part: etree._Element, node: etree._Element) -> bool:
    wanted, found = etree.QName(part), etree.QName(node)
    return bool(wanted.localname == found.localname and wanted.namespace in (None, NC, found.namespace))


# --- memory


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all, and past a crash."""
    fresh = path.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
