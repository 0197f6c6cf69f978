"""An adapter as a process of the system: intents come from the bus, outcomes and observations go to it.

Nothing is done on a device before the policy was asked, here too: whoever can put an intent on the bus has not asked.
"""

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
from convergedon.core.policy import Decision, Policy, system

log = structlog.get_logger()


class AdapterRole:
    """Runs one adapter. Several processes may run the same one: each device's intents are done one at a time.

    An intent is taken off its queue only after its outcome is stored, so it is answered at least once; the adapter sees
    to it that doing it twice is doing it once.
    """

    def __init__(
        self, adapter: Adapter, bus: Bus, devices: Mapping[str, Device], policy: Policy, audit: Audit | None = None
    ) -> None:
        self._adapter, self._bus, self._devices = adapter, bus, devices
        self._policy, self._audit = policy, audit

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
        decision = None
        try:
            decision = await self._ask(intent, message.body["about"].get("tenant", intent.tenant))
            outcome = await self._done(intent, decision)
        except Unavailable as error:
            if time() < intent.deadline:
                raise
            log.warning("intent given up", device=intent.device, intent=intent.key, reason=str(error))
            outcome = Outcome(intent.key, intent.device, "unknown", f"gave up at its deadline: {error}")
        await self._answer(message, outcome, decision)

    async def _ask(self, intent: Intent, tenant: str) -> Decision:
        """Ask whether an intent may be performed for a tenant: the one that is told what becomes of it."""
        device = self._devices.get(intent.device)
        return await self._policy.decide(
            system(tenant), "perform", question(intent, device), intent.values, channel="adapter"
        )

    async def _done(self, intent: Intent, decision: Decision) -> Outcome:
        if not decision.allow:
            return Outcome(intent.key, intent.device, "refused", "; ".join(decision.reasons))
        with self._witnessed(intent):
            return await self._adapter.perform(intent)

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

    def _record(self, intent: Intent, outcome: Outcome, decision: Decision | None) -> None:
        if self._audit:
            told: dict[str, Any] = {"status": outcome.status, "intent": intent.key, "service": intent.service}
            on, done = f"device/{intent.device}", "done" if outcome.done else "failed"
            if decision and not decision.allow:
                done, told = "refused", {**told, "reasons": list(decision.reasons)}
            self._audit.record("intent.performed", intent.tenant, "convergedon", on, done, decision, **told)

    async def _answer(self, message: Message, outcome: Outcome, decision: Decision | None = None) -> None:
        self._record(Intent(**message.body["intent"]), outcome, decision)
        body = {"outcome": asdict(outcome), "about": message.body["about"]}
        if decision:
            body["decision"] = {"id": decision.id, **decision.told}
        await self._bus.publish(message.body["reply"], body, f"outcome:{outcome.key}", trace.headers())


def question(intent: Intent, device: Device | None) -> Mapping[str, Any]:
    """The resource of the question whether an intent may be performed; what it does not say is left out."""
    said = {
        "tenant": intent.tenant,
        "device": intent.device,
        "deviceTenant": device.tenant if device else None,
        "service": intent.service,
        "instance": intent.instance,
        "purpose": intent.purpose,
        "order": intent.order,
        "site": intent.site,
        "owner": intent.owner,
        "workflow": intent.workflow,
        "approval": intent.approval,
    }
    return {"kind": "intent", **{name: value for name, value in said.items() if value}}
