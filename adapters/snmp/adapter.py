"""Traps and informs in, observations out: the beginning of the fault line. And what can be set on a device, set.

Versions 1, 2c and 3 on one port. An inform is answered only after its observation is stored durably, so a sender that
hears nothing sends it again. What is refused is counted by its reason, and told in the log with its sender.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from convergedon.adapters.contract import Capability, Device, Difference, Intent, Observation, Report, State
from convergedon.adapters.intake import Datagram, Finding, Intake
from convergedon.adapters.readandset import ReadAndSet, Setting, differences, with_values
from convergedon.adapters.snmp import ber, mapping, usm
from convergedon.adapters.snmp.asking import Engines, Peer
from convergedon.adapters.snmp.interfaces import Interfaces
from convergedon.adapters.snmp.polling import Polling
from convergedon.adapters.snmp.remembering import Remembering
from convergedon.adapters.snmp.services import Place
from convergedon.adapters.snmp.storm import Source, Storms
from convergedon.core import strict
from convergedon.core.errors import OutcomeUnknown, Refused, Unavailable, Unsupported
from convergedon.core.settings import Settings

NO_INTERFACES: Mapping[int, str] = {}
BEGINNINGS = frozenset({f"{ber.STANDARD_TRAPS}.1", f"{ber.STANDARD_TRAPS}.2"})
"""coldStart and warmStart."""
ENGINE_FILE, MIBS_FILE, INTERFACES_FILE = "snmp-engine.json", "snmp-mibs.json", "snmp-interfaces.json"
# Senders whose refusals are told apart in the log, and seconds between two lines about one of them
REFUSED_TOLD_APART, REFUSED_EVERY = 1000, 60.0
# Seconds between two looks at whether a device does what it was told, at first and later
FIRST_LOOK, LOOK_AGAIN = 0.05, 0.5
UNSECURED = "{device} has a user of version 3 and is not believed by a community: snmp.acceptCommunity would have it so"

log = structlog.get_logger(__name__)


def create(settings: Settings, devices: Mapping[str, Device]) -> SnmpAdapter:
    file = strict.mapping_file(settings.mappings, "snmp.yaml", mapping.SHIPPED)
    if settings.mappings is None:
        return SnmpAdapter(settings, devices, mapping.shipped())
    meant = mapping.load(file, settings.mappings / "mibs", settings.data / MIBS_FILE)
    return SnmpAdapter(settings, devices, meant)


@dataclass(frozen=True)
class Objects(Setting):
    """A change, and what stood in each object that it writes."""

    former: tuple[ber.Varbind, ...]


class SnmpAdapter(ReadAndSet):
    """Listens for notifications on ``settings.trap_host`` and ``trap_port``, and asks devices."""

    name = "snmp"
    offers: frozenset[Capability] = frozenset({"read", "rollback", "verify", "notifications"})

    def __init__(
        self,
        settings: Settings,
        devices: Mapping[str, Device],
        meant: mapping.Meant | None = None,
    ) -> None:
        super().__init__()
        self._communities = settings.communities
        self._tenant = settings.tenant
        self._mapping = mapping.shipped() if meant is None else meant
        self._named = devices
        # Reversed: where two devices share an address the first of the file is meant
        self._devices = {device.address: device for device in reversed(list(devices.values()))}
        self._interfaces = Interfaces()
        self._remembering = Remembering(settings.data / INTERFACES_FILE, self._interfaces)
        self._named_interfaces = {
            device.name: mapping.interfaces(device.settings.get("snmp", {}), device.name) for device in devices.values()
        }
        self._users = usm.users(devices.values())
        self._secured = _secured(devices.values())
        self._engine_file = settings.data / ENGINE_FILE
        self._usm: usm.Usm | None = None
        self._storms = Storms(settings.trap_storm_high, settings.trap_storm_low)
        self._refused = Refusals()
        self._retiring: set[asyncio.Task[None]] = set()
        self._polling = Polling(devices.values(), self._say, self._learn)
        self._started = False
        self._engines = Engines()
        self._peers: dict[str, Peer] = {}
        self._intake = Intake(
            self.name,
            "snmp.trap",
            settings.trap_host,
            settings.trap_port,
            "CONVERGEDON_TRAP",
            self._read,
            name=ber.peek,
            tick=lambda: self._storms.over(time.time()),
        )

    async def start(self, report: Report) -> Sequence[str]:
        self._admit(self._users)
        self._remembering.read()
        where = await self._intake.start(report)
        self._remembering.start()
        self._engines, self._started = Engines(), True
        self._polling.start()
        return [where]

    async def stop(self) -> None:
        """Whatever becomes of the rest, no socket stays open."""
        self._started = False
        try:
            self._peers.clear()
            self._engines.close()
            await asyncio.gather(self._polling.stop(), *self._retiring)
        finally:
            self._intake.tell(self._storms.rest(time.time()))
            await self._intake.stop()
            await self._remembering.stop()

    def _say(self, observations: Iterable[Observation]) -> None:
        self._intake.tell(observations)

    def become(self, other: SnmpAdapter) -> None:
        """Go on with the devices and the mapping that another one has read; socket, engine and clocks stay."""
        self._admit(other._users)
        self._named, self._devices = other._named, other._devices
        self._named_interfaces = other._named_interfaces
        self._mapping, self._secured = other._mapping, other._secured
        self._peers.clear()
        retiring = asyncio.create_task(self._polling.stop())
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        self._polling = Polling(self._named.values(), self._say, self._learn)
        if self._started:
            self._polling.start()

    def _admit(self, users: Sequence[usm.User]) -> None:
        if users and self._usm is None:
            self._usm = usm.Usm((), usm.own_engine(self._engine_file))
        if self._usm:
            self._usm.admit(users)

    # --- intents

    async def capabilities(self, device: str) -> frozenset[Capability]:
        """One that is neither polled nor to be set may only speak by itself: its user need not be let in anywhere."""
        is_set = self._is_set(device)
        if not is_set and "poll" not in self._given(device):
            return frozenset({"notifications"})
        await self._peer(device).get([ber.UPTIME])
        return self.offers if is_set else frozenset({"read", "notifications"})

    async def prepare(self, intent: Intent) -> Objects:
        """Beside the state: what stood in each object that is written, whatever service that was of."""
        change = await super().prepare(self._checked(intent))
        try:
            peer = self._peer(intent.device)
            wanted = await self._place(intent).wanted(peer, change.target) if change.needed else []
            former = await peer.get([oid for oid, _, _ in wanted]) if wanted else []
        except BaseException:
            await self.release(change)
            raise
        return Objects(**vars(change), former=tuple(former))

    async def compare(self, intent: Intent) -> tuple[State, Sequence[Difference]]:
        """Also of a device that is not to be set, and with what can only be read."""
        place, peer = self._place(intent), self._peer(intent.device)
        reads = place.service.wanted_reads(intent.values or {})
        named = {name: value for name, value in (intent.values or {}).items() if name not in reads}
        wanted = None if intent.values is None else place.service.checked(named)
        state, seen = await place.observe(peer), await place.looked(peer)
        wrong = differences(None if wanted is None else with_values(state, wanted), state)
        wrong += [Difference(name, value, seen.get(name)) for name, value in reads.items() if seen.get(name) != value]
        whole = None if state is None else {**state, **seen}
        return whole, wrong or await self._lagging(replace(intent, values=wanted), state)

    async def verify(self, change: Setting) -> Sequence[Difference]:
        """What it has, and whether it does so, as long as the mapping gives it to follow."""
        return await super().verify(change) or await self._lagging(change.intent, change.before)

    async def _lagging(self, intent: Intent, before: State) -> Sequence[Difference]:
        """What it does not do of what it has; it is waited for."""
        place, peer = self._place(intent), self._peer(intent.device)
        until = time.monotonic() + min(place.service.settle, max(0.0, intent.deadline - time.time()))
        followed, wait = await place.followed(peer, intent.values, before), FIRST_LOOK
        while followed:
            found = await peer.get([one.oid for one in followed])
            wrong = [lag for one, bound in zip(followed, found, strict=True) if (lag := one.wrong(bound))]
            if not wrong or time.monotonic() >= until:
                return wrong
            await asyncio.sleep(wait)
            wait = min(2 * wait, LOOK_AGAIN)
        return []

    async def observe(self, intent: Intent) -> State:
        self._require_set(intent.device)
        return await self._place(intent).observe(self._peer(intent.device))

    async def set(self, intent: Intent, state: State) -> None:
        """A device that did not answer is asked whether it did it."""
        place, peer = self._place(intent), self._peer(intent.device)
        if wanted := await place.wanted(peer, state):
            await self._write(peer, wanted)

    async def rollback(self, change: Setting) -> Sequence[Difference]:
        former = change.former if isinstance(change, Objects) else ()
        peer = self._peer(change.intent.device)
        if wrong := await _not_so(peer, former):
            await self._write(peer, wrong)
        left = await _not_so(peer, former)
        missing = [Difference(oid, ber.text(tag, value), None) for oid, tag, value in left]
        return [*missing, *differences(change.before, await self.observe(change.intent))]

    @staticmethod
    async def _write(peer: Peer, wanted: Sequence[ber.Varbind]) -> None:
        try:
            await peer.set(wanted)
        except OutcomeUnknown as error:
            try:
                wrong = await _not_so(peer, wanted)
            except Unavailable:
                raise error from None
            if wrong:
                raise OutcomeUnknown(f"{error}; when it was asked, it had not done it") from error

    def _checked(self, intent: Intent) -> Intent:
        """The intent with values that its service takes. Raises Refused."""
        self._require_set(intent.device)
        if intent.values is None:
            return intent
        return replace(intent, values=self._place(intent).service.checked(intent.values))

    def _place(self, intent: Intent) -> Place:
        """Raises Refused for what can never be asked."""
        service = self._mapping.services.get(intent.service)
        if service is None:
            known = ", ".join(sorted(self._mapping.services)) or "none"
            raise Refused(f"the mapping has no service {intent.service}; it has {known}")
        if not self._given(intent.device).keys() & {"community", "writeCommunity", "user"}:
            raise Unsupported(f"{intent.device} cannot be asked over SNMP: the devices file has no user or community")
        return Place(intent.device, service, intent.instance, self._named_interfaces[intent.device])

    def _require_set(self, device: str) -> None:
        if not self._is_set(device):
            raise Unsupported(f"{device} is not to be set over SNMP: the devices file has no snmp.set for it")

    def _is_set(self, device: str) -> bool:
        return bool(self._given(device).get("set"))

    def _given(self, device: str) -> Mapping[str, Any]:
        """What the devices file says of it; nothing of one that is not there."""
        return self._named[device].settings.get("snmp", {}) if device in self._named else {}

    def _peer(self, device: str) -> Peer:
        """The device as it is asked, by the community that may write where there is one."""
        if not self._started:
            raise Unavailable("the snmp adapter is not started")
        if device not in self._peers:
            known = self._named[device]
            given = known.settings["snmp"]
            community = given.get("writeCommunity", given.get("community"))
            settings = {**known.settings, "snmp": {**given, **({"community": community} if community else {})}}
            self._peers[device] = Peer(self._engines, replace(known, settings=settings))
        return self._peers[device]

    # --- what the network says

    async def health(self) -> Mapping[str, Any]:
        storms = [{"device": device, "oid": oid} for device, oid in self._storms.raging[:20]]
        return {
            **self._intake.health(),
            "storms": storms,
            "stormsBegun": self._storms.begun,
            "withheld": self._storms.withheld,
            "unreadableAnswers": self._engines.dropped.total() + self._polling.unreadable,
            "polling": {**self._polling.counts, "unreachable": sorted(self._polling.silent)},
        }

    def _read(self, datagram: Datagram) -> Sequence[Finding] | None:
        try:
            notification = ber.decode(datagram.data)
        except ber.Unreadable as error:
            if error.drop == "version" and self._usm:
                return self._read_secured(datagram, self._usm)
            self._intake.drop(error.drop)
            return None
        if notification.community not in self._communities:
            self._intake.drop("community")
            self._refused.tell("community", datagram.address, "the community is not among CONVERGEDON_TRAP_COMMUNITIES")
            return None
        speaker = self._speaker(datagram, notification)
        if speaker[0] in self._secured:
            self._intake.drop("unsecured")
            self._refused.tell("unsecured", datagram.address, UNSECURED.format(device=speaker[0]))
            return None
        answer = (lambda: ber.answer(datagram.data, notification)) if notification.inform else None
        return self._findings(datagram, notification, speaker, answer)

    def meaning(self, datagram: Datagram, notification: ber.Notification, user: usm.User | None = None) -> Observation:
        """What a notification is told as, whoever sent it; ``user`` is whose it is, of version 3."""
        speaker = self._speaker(datagram, notification, user.devices if user else None)
        return self._observe(datagram, notification, speaker)

    def _read_secured(self, datagram: Datagram, gate: usm.Usm) -> Sequence[Finding] | None:
        try:
            secured = gate.read(datagram.data)
        except usm.Refused as error:
            if error.report:
                self._intake.send(error.report, datagram.peer)
            if error.drop != "discovery":  # every sender of informs begins with it
                self._intake.drop(error.drop)
                self._refused.tell(error.drop, datagram.address, str(error), error.user)
            return None
        speaker = self._speaker(datagram, secured.notification, secured.user.devices)
        answer = (lambda: gate.answer(secured)) if secured.notification.inform else None
        return self._findings(datagram, secured.notification, speaker, answer)

    def _speaker(
        self, datagram: Datagram, notification: ber.Notification, may: frozenset[str] | None = None
    ) -> tuple[str, str]:
        """The device that a notification is of and its tenant; ``may`` are those that its user's keys speak for."""
        # Behind a relay the sender is not the device; snmpTrapAddress.0 (v1: agent-addr) is what speaks for itself
        address = notification.first(ber.TRAP_ADDRESS)
        address = address if isinstance(address, str) else datagram.address
        device = self._devices.get(address)
        if may and (device is None or device.name not in may):
            device = self._named[min(may)] if len(may) == 1 else None
        return (device.name, device.tenant) if device else (address, self._tenant)

    def _findings(
        self,
        datagram: Datagram,
        notification: ber.Notification,
        speaker: tuple[str, str],
        answer: Callable[[], bytes] | None,
    ) -> Sequence[Finding]:
        def observe() -> Observation:
            return self._observe(datagram, notification, speaker)

        if answer:
            return [Finding(observe, lambda: self._intake.send(answer(), datagram.peer))]
        source = Source(speaker[0], notification.oid)
        if not self._storms.count(source, datagram.time):
            return [Finding(observe)]
        passed = self._storms.take(source, observe(), datagram.time)
        return [Finding(lambda: passed)] if passed else []

    def _observe(self, datagram: Datagram, notification: ber.Notification, speaker: tuple[str, str]) -> Observation:
        name, tenant = speaker
        uptime = notification.first(ber.UPTIME)
        uptime = uptime if isinstance(uptime, int) else None
        self._interfaces.heard(name, uptime, notification.oid in BEGINNINGS)
        named, known = self._named_interfaces.get(name, NO_INTERFACES), self._interfaces.names(name)
        meaning = mapping.interpret(notification, self._mapping.notifications, named, datagram.address, known)
        part = self._interfaces.object(name, meaning, uptime)
        seen = Observation(
            id=_retransmission(datagram, notification) if notification.inform else secrets.token_hex(16),
            kind=meaning.kind,
            adapter=self.name,
            device=name,
            tenant=tenant,
            time=datagram.time,
            object=part,
            key=meaning.key_of(part),
            attributes=meaning.attributes,
        )
        self._interfaces.cleared(name, meaning, seen)
        return seen

    def _learn(self, device: str, names: Mapping[int, str]) -> None:
        """A poll has read what the interfaces are called."""
        named = self._named_interfaces.get(device, NO_INTERFACES)
        self._say(
            replace(seen, id=secrets.token_hex(16), object=name, key=meaning.key_of(name))
            for meaning, seen, name in self._interfaces.learn(device, {**names, **named})
        )


def _secured(devices: Iterable[Device]) -> frozenset[str]:
    """Who is believed by version 3 alone: who has a user, and does not say otherwise."""
    given = {device.name: device.settings.get("snmp", {}) for device in devices}
    return frozenset(name for name, snmp in given.items() if "user" in snmp and not snmp.get("acceptCommunity"))


async def _not_so(peer: Peer, wanted: Sequence[ber.Varbind]) -> list[ber.Varbind]:
    """Those that the device has not."""
    found = await peer.get([oid for oid, _, _ in wanted]) if wanted else []
    return [one for one, other in zip(wanted, found, strict=True) if one != other]


def _retransmission(datagram: Datagram, notification: ber.Notification) -> str:
    """The same for an inform that is sent again; the port is left out, a restarted sender may have another.

    Of version 3 every datagram is encrypted anew: what stays is the request and what it says.
    """
    told = datagram.data if notification.version < 3 else repr(notification.varbinds).encode()
    return hashlib.sha256(f"{datagram.address} {notification.request} ".encode() + told).hexdigest()[:32]


class Refusals:
    """Tells in the log who is refused and why, once a minute for each reason and sender."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def tell(self, reason: str, source: str, sentence: str, user: str = "") -> None:
        now = time.monotonic()
        if now - self._told.get((reason, source), -REFUSED_EVERY) < REFUSED_EVERY:
            return
        self._told[reason, source] = now
        self._told.move_to_end((reason, source))
        if len(self._told) > REFUSED_TOLD_APART:
            self._told.popitem(last=False)
        log.warning("notification refused", source=source, reason=reason, user=user, why=sentence)
