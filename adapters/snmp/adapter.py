"""Traps and informs in, observations out: the beginning of the fault line.

Versions 1 and 2c; a datagram of version 3 is counted and dropped. An inform is answered only after its observation is
stored durably, so a sender that hears nothing sends it again.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from convergedon.adapters.contract import Capability, Device, Intent, Observation, Outcome, Report
from convergedon.adapters.intake import Datagram, Finding, Intake
from convergedon.adapters.snmp import ber, mapping
from convergedon.core import strict
from convergedon.core.errors import Misconfigured
from convergedon.core.settings import Settings

NO_INTERFACES: Mapping[int, str] = {}


def create(settings: Settings, devices: Mapping[str, Device]) -> SnmpAdapter:
    file = strict.mapping_file(settings.mappings, "snmp.yaml", mapping.SHIPPED)
    return SnmpAdapter(settings, devices, mapping.load(file))


class SnmpAdapter:
    """Listens for notifications on ``settings.trap_host`` and ``trap_port``."""

    name = "snmp"
    performs = False
    offers: frozenset[Capability] = frozenset({"notifications"})

    def __init__(
        self,
        settings: Settings,
        devices: Mapping[str, Device],
        notifications: Mapping[str, mapping.Entry] | None = None,
    ) -> None:
        self._communities = settings.communities
        self._tenant = settings.tenant
        self._mapping = mapping.load() if notifications is None else notifications
        # Reversed: where two devices share an address the first of the file is meant
        self._devices = {device.address: device for device in reversed(list(devices.values()))}
        self._interfaces = {
            device.name: mapping.interfaces(device.settings.get("snmp", {}), device.name) for device in devices.values()
        }
        self._intake = Intake(
            self.name, "snmp.trap", settings.trap_host, settings.trap_port, "CONVERGEDON_TRAP", self._read
        )

    async def start(self, report: Report) -> Sequence[str]:
        return [await self._intake.start(report)]

    async def stop(self) -> None:
        await self._intake.stop()

    def become(self, other: SnmpAdapter) -> None:
        """Go on with the devices and the mapping that another one has read; the socket stays."""
        self._devices, self._interfaces, self._mapping = other._devices, other._interfaces, other._mapping

    async def perform(self, intent: Intent) -> Outcome:
        raise Misconfigured(f"the snmp adapter takes no intents: {intent.service} on {intent.device} needs another one")

    async def health(self) -> Mapping[str, Any]:
        return self._intake.health()

    def _read(self, datagram: Datagram) -> Sequence[Finding] | None:
        try:
            notification = ber.decode(datagram.data)
        except ber.Unreadable as error:
            self._intake.drop(error.drop)
            return None
        if notification.community not in self._communities:
            self._intake.drop("community")
            return None
        if not notification.inform:
            return [Finding(lambda: self._observe(datagram, notification))]
        return [
            Finding(
                lambda: self._observe(datagram, notification),
                lambda: self._intake.send(ber.answer(datagram.data, notification), datagram.peer),
            )
        ]

    def _observe(self, datagram: Datagram, notification: ber.Notification) -> Observation:
        # Behind a relay the sender is not the device; snmpTrapAddress.0 (v1: agent-addr) is what speaks for itself
        address = notification.first(ber.TRAP_ADDRESS)
        address = address if isinstance(address, str) else datagram.address
        device = self._devices.get(address)
        name = device.name if device else address
        interfaces = self._interfaces.get(name, NO_INTERFACES)
        meaning = mapping.interpret(notification, self._mapping, interfaces, datagram.address)
        return Observation(
            id=_retransmission(datagram, notification) if notification.inform else uuid.uuid4().hex,
            kind=meaning.kind,
            adapter=self.name,
            device=name,
            tenant=device.tenant if device else self._tenant,
            time=datagram.time,
            object=meaning.object,
            key=meaning.key,
            attributes=meaning.attributes,
        )


def _retransmission(datagram: Datagram, notification: ber.Notification) -> str:
    """The same for an inform that is sent again; the port is left out, a restarted sender may have another."""
    told = f"{datagram.address} {notification.request} ".encode() + datagram.data
    return hashlib.sha256(told).hexdigest()[:32]
