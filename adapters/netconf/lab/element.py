"""A simulated network element: what it is asked, what it has, and what becomes of it."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lxml import etree  # type: ignore[import-untyped]

from convergedon.adapters.labports import Port, Ports, Shaped
from convergedon.adapters.netconf.lab.datastores import Datastores
from convergedon.adapters.netconf.lab.faults import Fault, name_of
from convergedon.adapters.netconf.lab.filtering import filtered
from convergedon.adapters.netconf.lab.messages import (
    ACCESS,
    INTERFACES,
    MODULE,
    NC,
    NOTIFICATION,
    TYPES,
    RpcError,
    RpcErrors,
    answer,
    datastore_of,
    parse,
    text_of,
)
from convergedon.adapters.netconf.lab.notifications import Stream
from convergedon.adapters.netconf.lab.server import Server
from convergedon.adapters.netconf.lab.session import Session
from convergedon.adapters.netconf.lab.validation import yang_errors
from convergedon.core.errors import Misconfigured, NotFound

if TYPE_CHECKING:
    import asyncssh

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


@dataclass(frozen=True)
class Worse:
    """A change that takes an interface down which it is not about, until what was there before is there again."""

    interface: str
    before: object
    befallen: bool = False


class Element:
    """A simulated network element. It listens on loopback only.

    ``ports`` says how its interfaces are, to whichever protocol asks; ``on_link`` is told when one goes up or down.
    While it is ``silent`` it answers nobody.
    """

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
        self.port = port
        self.username = username
        self.password = password
        self.faults = list(faults)
        self.capabilities = tuple(capabilities)
        self.latency = 0.0
        self.silent = False
        self.requests: Counter[str] = Counter()
        self.sessions: dict[int, Session] = {}
        self.sessions_opened = 0
        self._ports = Ports(dict(interfaces))
        self.on_link: Callable[[str, bool], None] = lambda interface, up: None
        self.stream = Stream()
        self._fixed_port = port
        self._server = Server(folder, lambda: (self.username, self.password), self._serve, self._tell_soon)
        self._datastores = Datastores(
            folder / "state.json", self._can, self._check, self._configured, expired=self._tell_soon
        )
        self._switched: dict[str, bool] = {}
        self._worse: Worse | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    @property
    def interfaces(self) -> dict[str, int]:
        """Their capacities in Mbit/s."""
        return self._ports.capacities

    @property
    def booted(self) -> float:
        """When it was started, by the clock that only goes forward."""
        return self._ports.started

    def ports(self) -> Mapping[str, Port]:
        """The interfaces as they are now: up or down, and what they have counted since the element started."""
        return self._ports.read()

    def rates(self) -> Mapping[str, float]:
        """What each access carries now, in octets a second."""
        return self._ports.rates()

    def carried(self) -> Mapping[str, tuple[str, float]]:
        """The address of each access that has one, and the octets it carried since the element started."""
        return self._ports.carried()

    @property
    def host_key(self) -> str:
        """The public host key in base64, once the element was started."""
        return self._server.host_key

    def authorize(self, key: str) -> None:
        """Let in who has this key, too: its public part in base64."""
        self._server.authorized = key

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
        self._ports.restart()
        self.stream = Stream()
        self._datastores.restore()
        try:
            self.port = await self._server.start(self._fixed_port)
        except Misconfigured as error:
            raise Misconfigured(f"element {self.name}: {error}") from error
        return self.port

    async def stop(self) -> None:
        """Close everything. A commit that is not confirmed is undone when the element starts again."""
        for session in list(self.sessions.values()):
            session.closing = True
        await self._server.stop()
        await self.until(lambda: not self.sessions and not self._server.connections)
        self._datastores.stop()

    async def call_home(self, host: str, port: int, address: str = "127.0.0.1") -> None:
        """Connect to a client that listens for it, from this address, and serve it NETCONF (RFC 8071)."""
        await self._server.call_home(host, port, address)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is looked at again after each hello, RPC and change."""
        async with self._changed:
            await self._changed.wait_for(condition)

    @property
    def pending(self) -> bool:
        """Whether a confirmed commit waits for its confirmation."""
        return self._datastores.pending is not None

    @property
    def locked(self) -> bool:
        return bool(self._datastores.locks)

    def running(self) -> dict[str, dict[str, str]]:
        """Read the accesses of the running configuration: name -> leaf -> text."""
        return {
            entry.findtext(f"{{{ACCESS}}}name"): {etree.QName(leaf).localname: leaf.text or "" for leaf in entry}
            for entry in _accesses(self._datastores.running)
        }

    # --- sessions

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        import asyncssh

        if process.subsystem != "netconf":
            process.exit(1)
            return
        self.sessions_opened += 1
        session = Session(self.sessions_opened, process)
        self.sessions[session.id] = session
        try:
            if await session.greet(self.capabilities):
                await self._tell()
                while not session.closing and (message := await session.read()) is not None:
                    await self._answer(session, message)
            await process.stdout.drain()
        except (asyncssh.Error, OSError):
            session.closing = True  # the peer has gone
        finally:
            self._ended(session)
            process.close()
            await self._tell()

    def _ended(self, session: Session) -> None:
        self.sessions.pop(session.id, None)
        self._datastores.ended(session.id)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _tell_soon(self) -> None:
        telling = asyncio.get_running_loop().create_task(self._tell())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    # --- requests

    async def _answer(self, session: Session, message: bytes) -> None:
        try:
            rpc = parse(message)
        except etree.XMLSyntaxError as error:
            session.write(answer({}, [RpcError("malformed-message", str(error), type_="rpc")]))
            return
        operation = next(iter(rpc.iterchildren(tag=etree.Element)), None)
        name = name_of(operation)
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
            written = answer(rpc.attrib, found)
        except RpcError as error:
            written = answer(rpc.attrib, [error])
        except RpcErrors as several:
            written = answer(rpc.attrib, several.errors)
        if fault and fault.kind == "drop-after":
            session.drop()
        else:
            session.write(written.replace(b"</", b"<") if fault and fault.kind == "garble" else written)
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
            "close-session": self._close_session,
            "kill-session": self._kill_session,
            "create-subscription": self.stream.subscribe,
        }
        name = str(etree.QName(operation).localname) if operation is not None else ""
        space = NOTIFICATION if name == "create-subscription" else NC
        known = name in actions or name in self._datastores.operations
        if operation is None or not known or etree.QName(operation).namespace != space:
            raise RpcError("operation-not-supported", f"there is no operation {name!r} here", type_="protocol")
        if name in actions:
            return actions[name](session, operation)
        self._datastores.operations[name](session.id, operation)
        return None

    def _get(self, session: Session, operation: etree._Element) -> etree._Element:
        return filtered(self._with_state(), operation.find(f"{{{NC}}}filter"))

    def _get_config(self, session: Session, operation: etree._Element) -> etree._Element:
        stored = self._datastores.stored(datastore_of(operation, "source"))
        return filtered(stored, operation.find(f"{{{NC}}}filter"))

    def _close_session(self, session: Session, operation: etree._Element) -> None:
        session.closing = True

    def _kill_session(self, session: Session, operation: etree._Element) -> None:
        given = text_of(operation, "session-id") or ""
        victim = self.sessions.get(int(given)) if given.isdigit() else None
        if victim is None or victim is session:
            raise RpcError("invalid-value", f"no other session {given!r}", type_="protocol")
        self._ended(victim)
        victim.drop()

    # --- what it takes, and what it does with it

    def _can(self, capability: str) -> bool:
        return any(capability in uri for uri in self.capabilities)

    def _check(self, config: etree._Element, whole: bool) -> None:
        """Refuse what the YANG module or the hardware does not allow; not whole: only what no later edit can mend."""
        errors = list(yang_errors(config, whole))
        if whole:
            errors += self._hardware_errors(config)
        if errors:
            raise RpcErrors(errors)

    def _hardware_errors(self, config: etree._Element) -> Iterator[RpcError]:
        for entry in _accesses(config):
            interface = entry.findtext(f"{{{ACCESS}}}interface")
            if interface is not None and interface not in self.interfaces:
                path = f"/{MODULE}:accesses/access[name='{entry.findtext(f'{{{ACCESS}}}name')}']/interface"
                yield RpcError("invalid-value", f"{self.name} has no interface {interface!r}", path)
        for name in _switches(config):
            if name not in self.interfaces:
                path = f"/ietf-interfaces:interfaces/interface[name='{name}']"
                yield RpcError("invalid-value", f"{self.name} has no interface {name!r}", path)

    def _configured(self) -> None:
        """Running is another one."""
        self._ports.configure(_shaped(entry) for entry in _accesses(self._datastores.running))
        before, self._switched = self._switched, _switches(self._datastores.running)
        for name in self.interfaces:
            if self._switched.get(name, True) != before.get(name, True):
                self.enable(name, self._switched.get(name, True))
        self._befall_worse()

    def _befall_worse(self) -> None:
        if (worse := self._worse) is None or (self._standing() == worse.before) != worse.befallen:
            return
        self._worse = None if worse.befallen else replace(worse, befallen=True)
        self.set_link(worse.interface, up=worse.befallen)

    def _with_state(self) -> etree._Element:
        found = copy.deepcopy(self._datastores.running)
        for entry in _accesses(found):
            rate = self._ports.shaped(_shaped(entry))
            _write(entry, ACCESS, {"oper-bandwidth": rate, "oper-status": "up" if rate else "down"})
        listed = etree.SubElement(found, f"{{{ACCESS}}}interfaces", nsmap={None: ACCESS})
        for port in self.ports().values():
            state = {"name": port.name, "oper-status": "up" if port.up else "down", "capacity": port.capacity}
            octets = {"in-octets": int(port.octets), "out-octets": int(port.octets)}
            _write(etree.SubElement(listed, f"{{{ACCESS}}}interface"), ACCESS, {**state, **octets})
        self._with_interfaces(found)
        found.append(self.stream.described())
        return found

    def _with_interfaces(self, found: etree._Element) -> None:
        """Every interface is there by itself, whether it is configured or not."""
        listed = found.find(f"{{{INTERFACES}}}interfaces")
        if listed is None:
            listed = etree.SubElement(found, f"{{{INTERFACES}}}interfaces", nsmap={None: INTERFACES})
        configured = {entry.findtext(f"{{{INTERFACES}}}name"): entry for entry in listed}
        for name, port in self.ports().items():
            entry = configured.get(name)
            if entry is None:
                entry = etree.SubElement(listed, f"{{{INTERFACES}}}interface")
                etree.SubElement(entry, f"{{{INTERFACES}}}name").text = name
                kind = etree.SubElement(entry, f"{{{INTERFACES}}}type", nsmap={"ianaift": TYPES})
                kind.text = "ianaift:ethernetCsmacd"
            _write(entry, INTERFACES, {"oper-status": "up" if port.up else "down"})

    # --- what becomes of it

    def tell_all(self, content: etree._Element) -> None:
        """Send a notification to whoever subscribed, and keep it for those who ask for it later."""
        self.stream.tell(content, self.sessions.values())

    def set_link(self, interface: str, up: bool, hung: bool = False) -> None:
        """Take the line of an interface up or down; one that is ``hung`` is down until the interface was off."""
        self.link_is_up(interface)
        if self._ports.set_link(interface, up, hung):
            self._tell_link(interface)

    def enable(self, interface: str, enabled: bool) -> None:
        """Switch an interface on or off, whatever its line is."""
        self.link_is_up(interface)
        if self._ports.enable(interface, enabled):
            self._tell_link(interface)

    def _tell_link(self, interface: str) -> None:
        up = self.link_is_up(interface)
        told = etree.Element(f"{{{ACCESS}}}interface-state", nsmap={None: ACCESS})
        _write(told, ACCESS, {"interface": interface, "oper-status": "up" if up else "down"})
        self.tell_all(told)
        self.on_link(interface, up)

    def link_is_up(self, interface: str) -> bool:
        """Whether an interface is up. Raises NotFound."""
        if interface not in self.interfaces:
            raise NotFound(f"{self.name} has no interface {interface}; it has {', '.join(self.interfaces)}")
        return self._ports.is_up(interface)

    def worsen(self, interface: str) -> None:
        """Have the next change take this interface down, until what was there before is there again."""
        self.link_is_up(interface)
        self._worse = Worse(interface, self._standing())

    def _standing(self) -> object:
        """What its configuration comes to, whichever way it is written."""
        return self.running(), {name for name, on in _switches(self._datastores.running).items() if not on}

    def mend(self) -> None:
        """Be as an element should be."""
        self.latency, self.silent, self._worse = 0.0, False, None
        self.faults.clear()
        for interface in self.interfaces:
            self.set_link(interface, True)


def running(element: Element) -> dict[str, dict[str, str]]:
    """Read the accesses of an element's running configuration, past NETCONF."""
    return element.running()


def _accesses(config: etree._Element) -> Iterator[etree._Element]:
    found: Iterator[etree._Element] = config.iterfind(f"{{{ACCESS}}}accesses/{{{ACCESS}}}access")
    return found


def _switches(config: etree._Element) -> dict[str, bool]:
    """The interfaces that are configured, and whether they are switched on."""
    entries = config.iterfind(f"{{{INTERFACES}}}interfaces/{{{INTERFACES}}}interface")
    return {
        (entry.findtext(f"{{{INTERFACES}}}name") or "").strip(): (
            entry.findtext(f"{{{INTERFACES}}}enabled", "true").strip() != "false"
        )
        for entry in entries
    }


def _shaped(entry: etree._Element) -> Shaped:
    name, interface, address, bandwidth = (
        entry.findtext(f"{{{ACCESS}}}{leaf}", "") for leaf in ("name", "interface", "address", "bandwidth")
    )
    return Shaped(name, interface, address, int(bandwidth))


def _write(parent: etree._Element, namespace: str, leaves: Mapping[str, object]) -> None:
    for leaf, value in leaves.items():
        etree.SubElement(parent, f"{{{namespace}}}{leaf}").text = str(value)


def _require() -> None:
    try:
        import asyncssh
        import oopt_gnpy_libyang  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise Misconfigured(f"the lab needs {error.name}: pip install 'convergedon[lab]'") from error
    del asyncssh, oopt_gnpy_libyang
