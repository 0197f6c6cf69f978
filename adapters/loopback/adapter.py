"""Devices in memory: they have what they were told to have, say no when asked to, and speak when made to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convergedon.adapters.contract import Device, Intent, Observation, Outcome, Report
from convergedon.core import metrics
from convergedon.core.errors import Unavailable
from convergedon.core.settings import Settings

Instance = tuple[str, str]


def create(settings: Settings, devices: Mapping[str, Device]) -> LoopbackAdapter:
    return LoopbackAdapter()


class LoopbackAdapter:
    """``state`` holds the values of each (service, instance) by device; ``unreachable`` the devices that are away.

    A device refuses values that have ``refuse`` and says what stands there.
    """

    name = "loopback"
    performs = True

    def __init__(self) -> None:
        self.state: dict[str, dict[Instance, dict[str, Any]]] = {}
        self.unreachable: set[str] = set()
        self.performed: list[Intent] = []
        self._report: Report | None = None

    async def start(self, report: Report) -> Sequence[str]:
        self._report = report
        return []

    async def stop(self) -> None:
        self._report = None

    async def perform(self, intent: Intent) -> Outcome:
        if intent.device in self.unreachable:
            raise Unavailable(f"{intent.device} cannot be reached")
        self.performed.append(intent)
        outcome = self._outcome(intent)
        metrics.PERFORMED.labels(self.name, outcome.status).inc()
        return outcome

    async def health(self) -> Mapping[str, Any]:
        return {"state": "ready" if self._report else "degraded", "devices": len(self.state)}

    async def say(self, observation: Observation) -> None:
        """Have the network say something. Raises Unavailable when it could not be made safe, or nobody listens."""
        if self._report is None:
            raise Unavailable("the loopback adapter is not started")
        await self._report(observation)
        metrics.OBSERVED.labels(self.name, observation.kind).inc()

    def _outcome(self, intent: Intent) -> Outcome:
        device = self.state.setdefault(intent.device, {})
        instance = (intent.service, intent.instance)
        before, after = device.get(instance), None if intent.values is None else dict(intent.values)
        if after and "refuse" in after:
            return Outcome(intent.key, intent.device, "refused", str(after["refuse"]))
        if before == after:
            return Outcome(intent.key, intent.device, "unchanged")
        if after is None:
            del device[instance]
        else:
            device[instance] = after
        return Outcome(intent.key, intent.device, "applied", diff=_diff(before or {}, after or {}))


def _diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    leaves = {**before, **after}
    return {leaf: (before.get(leaf), after.get(leaf)) for leaf in leaves if before.get(leaf) != after.get(leaf)}
