"""Flow export in, observations out: the beginning of the usage line."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from convergedon.adapters.contract import Capability, Device, Observation, Report
from convergedon.adapters.flow.exports import Export, Exports
from convergedon.adapters.flow.gathering import Gathering
from convergedon.adapters.intake import Datagram, Finding, Intake
from convergedon.core import metrics
from convergedon.core.errors import Misconfigured
from convergedon.core.settings import Settings


def create(settings: Settings, devices: Mapping[str, Device]) -> FlowAdapter:
    return FlowAdapter(settings, devices)


SHOWN = 20
REMEMBERED, MEMORY = 20_000, 120.0


class Lately:
    """The datagrams of the last two minutes: networks deliver some twice."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def had(self, datagram: Datagram) -> bool:
        """Whether the same exporter has sent the same before; a count or a clock in it differs else."""
        digest = _digest(datagram.address, datagram.data)
        before = self._seen.get(digest)
        if before is not None and datagram.time - before < MEMORY:
            return True
        self._seen[digest] = datagram.time
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return False


def _digest(address: str, data: bytes) -> bytes:
    return hashlib.sha256(address.encode() + b" " + data).digest()[:16]


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
        self._gathering: Gathering | None = None
        self._lately = Lately()
        self._unmapped = metrics.UNMAPPED.labels(self.name)

    async def start(self, report: Report) -> Sequence[str]:
        self._gathering = Gathering(report)
        return [await self._intake.start(self._gathering)]

    async def stop(self) -> None:
        await self._intake.stop()
        if self._gathering is not None:
            await self._gathering.stop()

    def become(self, other: FlowAdapter) -> None:
        """Go on with the devices that another one has read; templates and sockets stay."""
        self._devices = other._devices

    async def health(self) -> Mapping[str, Any]:
        return {
            **self._intake.health(),
            "waitingForTemplate": self._exports.kept,
            "unknownSampler": self._exports.unknown_samplers,
            "missing": self._missing(),
        }

    def _missing(self) -> Mapping[str, int]:
        """How many records or datagrams each source and observation domain sent that never came: the worst of them."""
        worst = self._exports.sequences.missing.most_common(SHOWN)
        return {f"{exporter} {domain}": lost for (exporter, domain, _), lost in worst if lost}

    def _read(self, datagram: Datagram) -> Sequence[Finding] | None:
        if self._lately.had(datagram):
            self._intake.drop("duplicate")
            return ()
        exports = self._exports.read(datagram.data, datagram.address)
        return None if exports is None else [self._finding(datagram, export) for export in exports]

    def _finding(self, datagram: Datagram, export: Export) -> Finding:
        return Finding(lambda: self._observe(datagram, export))

    def _observe(self, datagram: Datagram, export: Export) -> Observation:
        place = (datagram.address, export.domain)
        device = self._devices.get(place) or self._devices.get((datagram.address, None))
        if device is None:
            self._unmapped.inc()
        attributes: dict[str, Any] = {"records": list(export.records), "observationDomain": export.domain}
        if export.sampling > 1:
            attributes["sampling"] = export.sampling if isinstance(export.sampling, int) else float(export.sampling)
        if export.missing:
            attributes["missing"] = export.missing
        return Observation(
            id=_digest(datagram.address, export.datagram).hex(),
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
