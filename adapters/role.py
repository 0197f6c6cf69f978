"""An adapter as a process of the system: intents come from the bus, outcomes and observations go to it.

Nothing is done on a device that was not asked for by one of the gateway's processes, which the seal says
(``core/seals.py``), nor before the policy was asked, here too: what an intent says of itself is what that judges by.
What is asked as a ``reading`` instead of an ``intent``, in the same words on the same subject, is only read.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from time import time
from typing import Any

import structlog

from convergedon.adapters import transaction
from convergedon.adapters.attending import Answer, Attending, process_of
from convergedon.adapters.contract import (
    RETRIABLE,
    Adapter,
    Device,
    Intent,
    Outcome,
    Performer,
    Reading,
    Reason,
    Rpc,
    witness,
)
from convergedon.adapters.inuse import InUse
from convergedon.adapters.reporting import Reporting
from convergedon.core import metrics, trace
from convergedon.core.audit import Audit
from convergedon.core.bus import Bus, Consumer, Message, token
from convergedon.core.errors import ConvergedonError, Misconfigured, Refused, Unavailable
from convergedon.core.policy import Decision, Policy, system
from convergedon.core.seals import Seals
from convergedon.core.tasks import end

log = structlog.get_logger()

LONGEST_ID = 100
"""Characters of what a message calls itself that are recorded."""
PAUSE = 3.0
"""Seconds until an intent comes back whose device could not be asked; what is nearer to its deadline is answered."""
PATIENCE = 5.0
"""Seconds that a device has to say what it can do, when it is asked how it is."""
JUDGED_OF_CHANGES = ("purpose", "approval")
"""What only says whether something may be changed."""
AT_ONCE = 16
"""Devices that are asked side by side."""

Read = Callable[[], tuple[Mapping[str, Device], Adapter]]
"""Reads the devices file and the mapping again: the devices, and an adapter for them. Raises Misconfigured."""


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
        read: Read | None = None,
    ) -> None:
        self._running, self._bus, self._devices = InUse(adapter), bus, devices
        self._policy, self._seals, self._audit = policy, seals, audit
        self._report = Reporting(adapter.name, bus)
        self._read = read
        self._reloading = asyncio.Lock()
        self._attending = Attending(bus, adapter.name, seals, self._told)
        self._taking: dict[str, asyncio.Task[None]] = {}
        self._busy: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._leaving: set[asyncio.Task[None]] = set()
        self._former: set[InUse] = set()

    @property
    def _adapter(self) -> Adapter:
        return self._running.adapter

    async def start(self) -> str:
        witness.set(self._timed)  # goes along into what the adapter starts: calls that no intent asks for
        addresses = await self._adapter.start(self._report)
        self._take_intents()
        await self._attending.start()
        return ", ".join(addresses)

    async def stop(self) -> None:
        await self._attending.stop()
        await end(self._leaving)
        await asyncio.gather(*(one.adapter.stop() for one in (*self._former, self._running)))

    def _take_intents(self) -> None:
        """Those of each device that there is; of one that is gone what is under way comes to its end."""
        for name in self._taking.keys() - self._devices.keys():
            self._aside(self._left(name, self._taking.pop(name)))
        for name in self._devices.keys() - self._taking.keys() if self._adapter.performs else ():
            consumer = f"{token(self._adapter.name)}-{token(name)}"
            subject = f"intent.{token(self._adapter.name)}.{token(name)}"
            # no horizon of the bus's own: an intent ends by its deadline, with an outcome
            take = partial(self._take, name)
            self._taking[name] = self._bus.consume(Consumer(consumer, subject, take, horizon=float("inf"), pause=PAUSE))

    async def _left(self, device: str, taking: asyncio.Task[None]) -> None:
        async with self._busy[device]:
            await end([taking])

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # --- what commands ask

    async def _told(self, what: str) -> Answer:
        return await (self.reload() if what == "reload" else self.health())

    async def reload(self) -> Answer:
        """Read devices and mapping again and go on with them, unless something is wrong with them.

        No packet is lost where the adapter takes over what another one has read (``become``), and no intent where it
        does not: what is under way on the old one comes to its end there.
        """
        async with self._reloading:
            try:
                words = await self._reloaded()
            except ConvergedonError as error:
                return self._reload_told("failed", f"{error}; what was in force still is")
            except Exception as error:
                log.exception("an adapter broke", adapter=self._adapter.name)
                return self._reload_told("failed", f"the adapter broke ({error!r}); what was in force still is")
            return self._reload_told("done", words)

    async def _reloaded(self) -> str:
        if self._read is None:
            raise Misconfigured(f"the {self._adapter.name} adapter was given nothing to read again")
        devices, fresh = await asyncio.to_thread(self._read)
        become = getattr(self._adapter, "become", None)
        if become:
            become(fresh)
        else:
            await fresh.start(self._report)
            former, self._running = self._running, InUse(fresh)
            self._former.add(former)
            self._aside(self._retired(former))
        self._devices = devices
        self._take_intents()
        return f"{len(devices)} devices are in force"

    async def _retired(self, former: InUse) -> None:
        await former.retire()
        self._former.discard(former)

    def _reload_told(self, outcome: str, words: str) -> Answer:
        name = self._adapter.name
        log.info("devices and mapping were read again", outcome=outcome, words=words)
        metrics.RELOADS.labels(name, outcome).inc()
        if self._audit:
            self._audit.record("adapter.reloaded", "", "convergedon", f"adapter/{name}", outcome, words=words)
        return Answer(name, process_of(name), outcome, words)

    async def health(self) -> Answer:
        """How the adapter is, and each of its devices, which are asked."""
        name, adapter = self._adapter.name, self._adapter
        said = dict(await adapter.health())
        known = said.get("devices")
        told: Mapping[str, Any] = known if isinstance(known, Mapping) else {}
        devices = {device: dict(about) for device, about in told.items()}
        if isinstance(adapter, Performer):
            mine = [device for device in self._devices if name in self._devices[device].settings] or [*self._devices]
            turns = asyncio.Semaphore(AT_ONCE)
            asked = await asyncio.gather(*(_asked(adapter, device, turns) for device in mine))
            for device, found in zip(mine, asked, strict=True):
                devices[device] = {**devices.get(device, {}), **found}
        wrong = [f"{device}: {found['words']}" for device, found in devices.items() if found.get("words")]
        state = "degraded" if wrong else str(said["state"])
        whole = {**said, "devices": devices, "metrics": metrics.of_adapter(name)}
        return Answer(name, process_of(name), state, "; ".join(wrong), whole)

    # --- what the network says, and what is asked of it

    async def _take(self, device: str, message: Message) -> None:
        """Perform an intent that one of the gateway's processes asked for, once. Raises Refused for any other."""
        async with self._busy[device]:
            await self._take_one(device, message)

    async def _take_one(self, device: str, message: Message) -> None:
        if fault := self._seals.fault(message.subject, message.body):
            self._forged(device, message, fault)
            raise Refused(f"an intent for {device} that no worker asked for: {fault}")
        asked = _asked_for(message)
        if await self._bus.last(_answers(message, asked.key)):
            log.info("intent was answered before", device=asked.device, intent=asked.key)
            return
        await (self._read_for if "reading" in message.body else self._perform)(message, asked)

    def _forged(self, device: str, message: Message, fault: str) -> None:
        """Count and record it, as the device's tenant's: what it says of itself is not to be believed."""
        metrics.FORGED.labels(self._adapter.name).inc()
        if self._audit:
            about: dict[str, Any] = {"reason": fault, "message": message.id[:LONGEST_ID]}
            tenant = self._devices[device].tenant if device in self._devices else ""
            self._audit.record("intent.forged", tenant, "", f"device/{device}", "refused", **about)

    async def _perform(self, message: Message, intent: Intent) -> None:
        decision = await self._ask(intent, message.body["about"].get("tenant", intent.tenant))
        outcome = await self._done(intent, decision, again=message.attempt > 1)
        if outcome.retriable:
            if time() + PAUSE < intent.deadline:
                raise Unavailable(f"{outcome.words}; it is tried again")
            log.warning("intent given up", device=intent.device, intent=intent.key, reason=outcome.words)
            outcome = replace(outcome, words=f"gave up at its deadline: {outcome.words}")
        await self._answer(message, outcome, decision)

    async def _ask(self, intent: Intent, tenant: str) -> Decision:
        """Ask whether an intent may be performed for a tenant: the one that is told what becomes of it."""
        asked = question(intent, self._device(intent))
        return await self._policy.decide(system(tenant), "perform", asked, intent.values, channel="adapter")

    async def _done(self, intent: Intent, decision: Decision, again: bool) -> Outcome:
        """Perform it, if it may be; what may not be begun any more may have been done before, which the device says."""
        refused = _refused(intent, "; ".join(decision.reasons), "policy")
        if not (decision.allow or again):
            return refused
        with self._witnessed(intent), self._running.using() as adapter:
            if decision.allow and time() < intent.deadline:
                return await transaction.perform(adapter, intent)
            outcome = await transaction.look_after(adapter, intent)
        return outcome if decision.allow or outcome.status != "refused" else refused

    async def _read_for(self, message: Message, intent: Intent) -> None:
        """Say what the device has, if the policy lets whoever asks see it: as retrieving a reading, not as a change."""
        tenant, about = message.body["about"].get("tenant", intent.tenant), question(intent, self._device(intent))
        asked = {**{name: value for name, value in about.items() if name not in JUDGED_OF_CHANGES}, "kind": "reading"}
        decision = await self._policy.decide(system(tenant), "retrieve", asked, channel="adapter")
        reading = await self._seen(intent, decision)
        if reading.status == "unknown" and reading.reason in RETRIABLE and time() + PAUSE < intent.deadline:
            raise Unavailable(f"{reading.words}; it is asked again")
        if self._audit:
            done = {"read": "done", "refused": "refused", "unknown": "failed"}[reading.status]
            told: dict[str, Any] = {"reading": intent.key, "service": intent.service, "agrees": reading.agrees}
            on = f"device/{intent.device}"
            self._audit.record("device.read", intent.tenant, "convergedon", on, done, decision, **told)
        await self._tell(message, intent.key, {"reading": asdict(reading)}, decision)

    async def _seen(self, intent: Intent, decision: Decision) -> Reading:
        if not decision.allow:
            words = "; ".join(decision.reasons)
            return Reading(intent.key, intent.device, "refused", words=words, reason="policy")
        if time() >= intent.deadline:
            return Reading(intent.key, intent.device, "unknown", words="its deadline had passed", reason="deadline")
        with self._witnessed(intent), self._running.using() as adapter:
            return await transaction.read(adapter, intent)

    def _device(self, intent: Intent) -> Device | None:
        return self._devices.get(intent.device)

    @contextmanager
    def _witnessed(self, intent: Intent) -> Iterator[None]:
        """Record each call of the device that the adapter tells of, as it is told, from whichever thread."""
        loop = asyncio.get_running_loop()

        def told(rpc: Rpc) -> None:
            self._timed(rpc)
            if not loop.is_closed():  # a thread may outlive it that waits for a silent device
                loop.call_soon_threadsafe(self._record_rpc, intent, rpc)

        before = witness.set(told)
        try:
            yield
        finally:
            witness.reset(before)

    def _timed(self, rpc: Rpc) -> None:
        metrics.RPC_SECONDS.labels(self._adapter.name, rpc.name).observe(rpc.seconds)

    def _record_rpc(self, intent: Intent, rpc: Rpc) -> None:
        if self._audit:
            told: dict[str, Any] = {"rpc": rpc.name, "ms": round(1000 * rpc.seconds, 3), "intent": intent.key}
            self._audit.record("device.rpc", intent.tenant, "convergedon", f"device/{rpc.device}", rpc.outcome, **told)

    def _record(self, intent: Intent, outcome: Outcome, decision: Decision) -> None:
        if self._audit:
            told: dict[str, Any] = {"status": outcome.status, "intent": intent.key, "service": intent.service}
            on, done = f"device/{intent.device}", "done" if outcome.done else "failed"
            if not (decision.allow or outcome.done):
                done, told = "refused", {**told, "reasons": list(decision.reasons)}
            self._audit.record("intent.performed", intent.tenant, "convergedon", on, done, decision, **told)

    async def _answer(self, message: Message, outcome: Outcome, decision: Decision) -> None:
        self._record(Intent(**message.body["intent"]), outcome, decision)
        await self._tell(message, outcome.key, {"outcome": asdict(outcome)}, decision)

    async def _tell(self, message: Message, key: str, answer: Mapping[str, Any], decision: Decision) -> None:
        body = {**answer, "about": message.body["about"], "decision": {"id": decision.id, **decision.told}}
        await self._bus.publish(_answers(message, key), body, f"outcome:{key}", trace.headers())


async def _asked(adapter: Performer[Any], device: str, turns: asyncio.Semaphore) -> dict[str, Any]:
    """What a device can do, or in which state it is and why."""
    async with turns:
        try:
            async with asyncio.timeout(PATIENCE):
                found = await adapter.capabilities(device)
        except TimeoutError:
            return {"state": "timeout", "words": f"no answer within {PATIENCE:g} s"}
        except ConvergedonError as error:
            return {"state": transaction.reason(error), "words": str(error)}
    return {"state": "ready", "capabilities": sorted(found)}


def _asked_for(message: Message) -> Intent:
    return Intent(**message.body["reading" if "reading" in message.body else "intent"])


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
