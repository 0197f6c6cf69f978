"""Devices in memory: they have what they were told to have, say no when asked to, and speak when made to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convergedon.adapters.contract import Device, Intent, Observation, Report, State
from convergedon.adapters.readandset import ReadAndSet, Setting
from convergedon.core import metrics
from convergedon.core.errors import Refused, Unavailable, Unreachable
from convergedon.core.settings import Settings

Instance = tuple[str, str]


def create(settings: Settings, devices: Mapping[str, Device]) -> LoopbackAdapter:
    adapter = LoopbackAdapter()
    known = {name: device.settings.get("loopback", {}).get("memory") for name, device in devices.items()}
    adapter.state.update({name: memory for name, memory in known.items() if memory is not None})
    return adapter


class LoopbackAdapter(ReadAndSet):
    """``state`` holds the values of each (service, instance) by device; ``unreachable`` the devices that are away.

    A device's settings may bring its ``memory``, which then outlives the adapter.
    A device refuses values that have ``refuse`` and says what stands there.
    """

    name = "loopback"

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, dict[Instance, dict[str, Any]]] = {}
        self.unreachable: set[str] = set()
        self.performed: list[Intent] = []
        self._report: Report | None = None

    async def start(self, report: Report) -> Sequence[str]:
        self._report = report
        return []

    async def stop(self) -> None:
        self._report = None

    async def observe(self, intent: Intent) -> State:
        if intent.device in self.unreachable:
            raise Unreachable(f"{intent.device} cannot be reached")
        return self.state.get(intent.device, {}).get((intent.service, intent.instance))

    async def set(self, intent: Intent, state: State) -> None:
        if state and "refuse" in state:
            raise Refused(str(state["refuse"]))
        device, instance = self.state.setdefault(intent.device, {}), (intent.service, intent.instance)
        if state is None:
            del device[instance]
        else:
            device[instance] = dict(state)

    async def prepare(self, intent: Intent) -> Setting:
        change = await super().prepare(intent)
        self.performed.append(intent)
        return change

    async def health(self) -> Mapping[str, Any]:
        return {"state": "ready" if self._report else "degraded", "devices": len(self.state)}

    async def say(self, observation: Observation) -> None:
        """Have the network say something. Raises Unavailable when it could not be made safe, or nobody listens."""
        if self._report is None:
            raise Unavailable("the loopback adapter is not started")
        await self._report(observation)
        metrics.OBSERVED.labels(self.name, observation.kind).inc()
