"""An adapter as a process of the system: intents come from the bus, outcomes and observations go to it.

Nothing is done on a device that was not asked for by one of the gateway's processes, which the seal says
(``core/seals.py``), nor before the policy was asked, here too: what an intent says of itself is what that judges by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from time import time
from typing import Any

import structlog

from convergedon.adapters import transaction
from convergedon.adapters.contract import Adapter, Device, Intent, Observation, Outcome, Reason, Rpc, witness
from convergedon.core import metrics, trace
from convergedon.core.audit import Audit
from convergedon.core.bus import Bus, Consumer, Message, partition, token
from convergedon.core.errors import Refused, Unavailable
from convergedon.core.policy import Decision, Policy, system
from convergedon.core.seals import Seals

log = structlog.get_logger()

LONGEST_ID = 100
"""Characters of what a message calls itself that are recorded."""
PAUSE = 3.0
"""Seconds until an intent comes back whose device could not be asked; what is nearer to its deadline is answered."""


class AdapterRole:
    """Runs one adapter. Several processes may run the same one: each device's intents are done one at a time.

    An intent is taken off its queue only after its outcome is stored, so it is answered at least once; one that was
    answered is not performed again, and the adapter sees to it that doing it twice is doing it once.
    """

    def __init__(
        self,
        adapter: Adapter,
        bus: Bus,
        devices: Mapping[str, Device],
        policy: Policy,
        seals: Seals,
        audit: Audit | None = None,
    ) -> None:
        self._adapter, self._bus, self._devices = adapter, bus, devices
        self._policy, self._seals, self._audit = policy, seals, audit

    async def start(self) -> str:
        addresses = await self._adapter.start(self._report)
        if self._adapter.performs:
            for name in self._devices:
                consumer = f"{token(self._adapter.name)}-{token(name)}"
                subject = f"intent.{token(self._adapter.name)}.{token(name)}"
                # no horizon of the bus's own: an intent ends by its deadline, with an outcome
                take = partial(self._take, self._devices[name])
                self._bus.consume(Consumer(consumer, subject, take, horizon=float("inf"), pause=PAUSE))
        return ", ".join(addresses)

    async def stop(self) -> None:
        await self._adapter.stop()

    async def _report(self, seen: Observation) -> None:
        subject = f"network.{partition(seen.device)}.{token(self._adapter.name)}.{token(seen.device)}"
        await self._bus.publish(subject, {"observation": asdict(seen)}, seen.id)

    async def _take(self, device: Device, message: Message) -> None:
        """Perform an intent that one of the gateway's processes asked for, once. Raises Refused for any other."""
        if fault := self._seals.fault(message.subject, message.body):
            self._forged(device, message, fault)
            raise Refused(f"an intent for {device.name} that no worker asked for: {fault}")
        intent = Intent(**message.body["intent"])
        if await self._bus.last(_answers(message, intent.key)):
            log.info("intent was answered before", device=intent.device, intent=intent.key)
            return
        await self._perform(message, intent)

    def _forged(self, device: Device, message: Message, fault: str) -> None:
        """Count and record it, as the device's tenant's: what it says of itself is not to be believed."""
        metrics.FORGED.labels(self._adapter.name).inc()
        if self._audit:
            about: dict[str, Any] = {"reason": fault, "message": message.id[:LONGEST_ID]}
            self._audit.record("intent.forged", device.tenant, "", f"device/{device.name}", "refused", **about)

    async def _perform(self, message: Message, intent: Intent) -> None:
        if time() >= intent.deadline:
            await self._answer(message, _refused(intent, "its deadline had passed", "deadline"))
            return
        decision = await self._ask(intent, message.body["about"].get("tenant", intent.tenant))
        outcome = await self._done(intent, decision)
        if outcome.retriable:
            if time() + PAUSE < intent.deadline:
                raise Unavailable(f"{outcome.words}; it is tried again")
            log.warning("intent given up", device=intent.device, intent=intent.key, reason=outcome.words)
            outcome = replace(outcome, words=f"gave up at its deadline: {outcome.words}")
        await self._answer(message, outcome, decision)

    async def _ask(self, intent: Intent, tenant: str) -> Decision:
        """Ask whether an intent may be performed for a tenant: the one that is told what becomes of it."""
        device = self._devices.get(intent.device)
        return await self._policy.decide(
            system(tenant), "perform", question(intent, device), intent.values, channel="adapter"
        )

    async def _done(self, intent: Intent, decision: Decision) -> Outcome:
        if not decision.allow:
            return _refused(intent, "; ".join(decision.reasons), "policy")
        with self._witnessed(intent):
            return await transaction.perform(self._adapter, intent)

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
        answers = _answers(message, outcome.key)
        await self._bus.publish(answers, body, f"outcome:{outcome.key}", trace.headers())


def _answers(message: Message, key: str) -> str:
    """Where the answer to an intent stands: a place of its own, so that it can be looked up."""
    return f"{message.body['reply']}.{token(key)}"


def _refused(intent: Intent, words: str, reason: Reason) -> Outcome:
    return Outcome(intent.key, intent.device, "refused", words, reason=reason)


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
