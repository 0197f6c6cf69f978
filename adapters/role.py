"""An adapter as a process of the system: intents come from the bus, outcomes and observations go to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from time import time

import structlog

from convergedon.adapters.contract import Adapter, Device, Intent, Observation, Outcome
from convergedon.core import trace
from convergedon.core.bus import Bus, Consumer, Message, partition, token
from convergedon.core.errors import Unavailable

log = structlog.get_logger()


class AdapterRole:
    """Runs one adapter. Several processes may run the same one: each device's intents are done one at a time.

    An intent is taken off its queue only after its outcome is stored, so it is answered at least once; the adapter sees
    to it that doing it twice is doing it once.
    """

    def __init__(self, adapter: Adapter, bus: Bus, devices: Mapping[str, Device]) -> None:
        self._adapter, self._bus, self._devices = adapter, bus, devices

    async def start(self) -> str:
        addresses = await self._adapter.start(self._report)
        if self._adapter.performs:
            for name in self._devices:
                consumer = f"{token(self._adapter.name)}-{token(name)}"
                subject = f"intent.{token(self._adapter.name)}.{token(name)}"
                # no horizon of the bus's own: an intent ends by its deadline, with an outcome
                self._bus.consume(Consumer(consumer, subject, self._perform, horizon=float("inf"), pause=3.0))
        return ", ".join(addresses)

    async def stop(self) -> None:
        await self._adapter.stop()

    async def _report(self, seen: Observation) -> None:
        subject = f"network.{partition(seen.device)}.{token(self._adapter.name)}.{token(seen.device)}"
        await self._bus.publish(subject, {"observation": asdict(seen)}, seen.id)

    async def _perform(self, message: Message) -> None:
        intent = Intent(**message.body["intent"])
        if time() >= intent.deadline:
            await self._answer(message, Outcome(intent.key, intent.device, "refused", "its deadline had passed"))
            return
        try:
            outcome = await self._adapter.perform(intent)
        except Unavailable as error:
            if time() < intent.deadline:
                raise
            log.warning("intent given up", device=intent.device, intent=intent.key, reason=str(error))
            outcome = Outcome(intent.key, intent.device, "unknown", f"gave up at its deadline: {error}")
        await self._answer(message, outcome)

    async def _answer(self, message: Message, outcome: Outcome) -> None:
        body = {"outcome": asdict(outcome), "about": message.body["about"]}
        await self._bus.publish(message.body["reply"], body, f"outcome:{outcome.key}", trace.headers())
