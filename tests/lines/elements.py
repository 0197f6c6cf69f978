"""The lab's elements in this process, and adapters that work on them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convergedon.adapters import inventory, netconf
from convergedon.adapters.contract import Device, Intent, Outcome, Report
from convergedon.adapters.lab import EXPORTS, Lab, Receivers
from convergedon.adapters.testing.trial import ignore
from convergedon.adapters.transaction import perform
from convergedon.core import settings

NOBODY = ("127.0.0.1", 9)
PORT = "ge-0/0/1"


class Elements:
    """A lab that sends traps and flows to where ``traps`` and ``flows`` are by then, and is spoken to by NETCONF."""

    def __init__(self, folder: Path, report: Report = ignore, exports: float = EXPORTS) -> None:
        self.folder, self._report = folder, report
        self.traps, self.flows = NOBODY, NOBODY
        self.lab = Lab(folder / "lab", lambda: Receivers(self.traps, self.flows, "public"), exports=exports)
        self.given = settings.load(trap_port=0, data=folder)

    async def start(self) -> None:
        self.devices: Mapping[str, Device] = inventory.load(await self.lab.start())
        self.netconf = netconf.create(self.given, self.devices)
        await self.netconf.start(self._report)

    async def stop(self) -> None:
        await self.netconf.stop()
        await self.lab.stop()

    async def access(self, device: str, name: str, **values: Any) -> Outcome:
        """Have an internet access on the element."""
        given = {"interface": PORT, "vlan": 100, "bandwidth": 80, **values}
        outcome = await perform(self.netconf, intent(device, "internet-access", name, given))
        assert outcome.done, outcome
        return outcome


def intent(device: str, service: str, instance: str, values: Any) -> Intent:
    return Intent(f"{service}-{instance}", "acme", device, service, instance, values, time.time() + 30)
