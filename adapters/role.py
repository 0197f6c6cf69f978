"""An adapter as a process of the system: intents come from the bus, outcomes and observations go to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from time import time
from typing import Any

import structlog

from convergedon.adapters.contract import Adapter, Device, Intent, Observation, Outcome, Rpc, witness
from convergedon.core import trace
from convergedon.core.audit import Audit
from convergedon.core.bus import Bus, Consumer, Message, partition, token
from convergedon.core.errors import Unavailable

log = structlog.get_logger()


class AdapterRole:
    """Runs one adapter. Several processes may run the same one: each device's intents are done one at a time.

    An intent is taken off its queue only after its outcome is stored, so it is answered at least once; the adapter sees
    to it that doing it twice is doing it once.
    """

    def __init__(self, adapter: Adapter, bus: Bus, devices: Mapping[str, Device], audit: Audit | None = None) -> None:
        self._adapter, self._bus, self._devices, self._audit = adapter, bus, devices, audit

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
            with self._witnessed(intent):
                outcome = await self._adapter.perform(intent)
        except Unavailable as error:
            if time() < intent.deadline:
                raise
            log.warning("intent given up", device=intent.device, intent=intent.key, reason=str(error))
            outcome = Outcome(intent.key, intent.device, "unknown", f"gave up at its deadline: {error}")
        await self._answer(message, outcome)

    @contextmanager
    def _witnessed(self, intent: Intent) -> Iterator[None]:
        """Record each call of the device that the adapter tells of, as it is told, from whichever thread."""
        loop = asyncio.get_running_loop()

        def told(rpc: Rpc) -> None:
            if not loop.is_closed():  # a thread may outlive it that waits for a silent device
                loop.call_soon_threadsafe(self._record_rpc, intent, rpc)

        before = witness.set(told)
        try:
            yield
        finally:
            witness.reset(before)

    def _record_rpc(self, intent: Intent, rpc: Rpc) -> None:
        if self._audit:
            told: dict[str, Any] = {"rpc": rpc.name, "ms": round(1000 * rpc.seconds, 3), "intent": intent.key}
            self._audit.record("device.rpc", intent.tenant, "convergedon", f"device/{rpc.device}", rpc.outcome, **told)

    def _record(self, intent: Intent, outcome: Outcome) -> None:
        if self._audit:
            told: dict[str, Any] = {"status": outcome.status, "intent": intent.key, "service": intent.service}
            done = "done" if outcome.done else "failed"
            self._audit.record(
                "intent.performed", intent.tenant, "convergedon", f"device/{intent.device}", done, **told
            )

    async def _answer(self, message: Message, outcome: Outcome) -> None:
        self._record(Intent(**message.body["intent"]), outcome)
        body = {"outcome": asdict(outcome), "about": message.body["about"]}
        await self._bus.publish(message.body["reply"], body, f"outcome:{outcome.key}", trace.headers())
