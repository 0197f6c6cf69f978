"""Flow export in, observations out: the beginning of the usage line."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from convergedon.adapters.contract import Capability, Device, Intent, Observation, Outcome, Report
from convergedon.adapters.flow.exports import Export, Exports
from convergedon.adapters.intake import Datagram, Finding, Intake
from convergedon.core.errors import Misconfigured
from convergedon.core.settings import Settings


def create(settings: Settings, devices: Mapping[str, Device]) -> FlowAdapter:
    return FlowAdapter(settings, devices)


class FlowAdapter:
    """Listens for NetFlow 5, 9 and IPFIX on ``settings.flow_host`` and ``flow_port``."""

    name = "flow"
    performs = False
    offers: frozenset[Capability] = frozenset({"notifications"})

    def __init__(self, settings: Settings, devices: Mapping[str, Device]) -> None:
        self._tenant = settings.tenant
        # Reversed: where two devices have the same place the first of the file is meant
        self._devices = {_place(device): device for device in reversed(list(devices.values()))}
        self._intake = Intake(
            self.name,
            "flow.datagram",
            settings.flow_host,
            settings.flow_port,
            "CONVERGEDON_FLOW",
            self._read,
            queue=20_000,
        )
        self._exports = Exports(self._intake.drop)

    async def start(self, report: Report) -> Sequence[str]:
        return [await self._intake.start(report)]

    async def stop(self) -> None:
        await self._intake.stop()

    def become(self, other: FlowAdapter) -> None:
        """Go on with the devices that another one has read; templates and sockets stay."""
        self._devices = other._devices

    async def perform(self, intent: Intent) -> Outcome:
        raise Misconfigured(f"the flow adapter takes no intents: {intent.service} on {intent.device} needs another one")

    async def health(self) -> Mapping[str, Any]:
        return {**self._intake.health(), "waitingForTemplate": self._exports.kept}

    def _read(self, datagram: Datagram) -> Sequence[Finding] | None:
        exports = self._exports.read(datagram.data, datagram.address)
        return None if exports is None else [self._finding(datagram, export) for export in exports]

    def _finding(self, datagram: Datagram, export: Export) -> Finding:
        return Finding(lambda: self._observe(datagram, export))

    def _observe(self, datagram: Datagram, export: Export) -> Observation:
        place = (datagram.address, export.domain)
        device = self._devices.get(place) or self._devices.get((datagram.address, None))
        attributes: dict[str, Any] = {"records": list(export.records), "observationDomain": export.domain}
        if export.sampling > 1:
            attributes["sampling"] = export.sampling
        return Observation(
            id=hashlib.sha256(datagram.address.encode() + b" " + export.datagram).hexdigest()[:32],
            kind="flow",
            adapter=self.name,
            device=device.name if device else datagram.address,
            tenant=device.tenant if device else self._tenant,
            time=datagram.time,
            attributes=attributes,
        )


def _place(device: Device) -> tuple[str, int | None]:
    """The exporter and, where it exports for several devices, the observation domain of this one."""
    domain = device.settings.get("flow", {}).get("observationDomain")
    if domain is not None and not isinstance(domain, int):
        raise Misconfigured(f"device {device.name}: flow.observationDomain: must be a number")
    return device.address, domain
