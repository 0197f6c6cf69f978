"""What an adapter did stands in the audit record: each intent, and each call of a device that the adapter tells of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import time
from typing import Any

from convergedon.adapters.contract import Device, Intent, Report, Rpc, State, tell
from convergedon.adapters.readandset import ReadAndSet
from convergedon.adapters.role import AdapterRole
from convergedon.core import audit, policy, trace
from convergedon.core.audit import KIND, KINDS, Audit
from convergedon.core.errors import Refused, Unreachable
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.policy import Embedded, Policy
from convergedon.core.seals import Seals
from convergedon.core.verification import Verified, verify

SEALS = Seals([b"k" * 32])
DEVICE = Device("pe1", "acme", "127.0.0.1")


class Telling(ReadAndSet):
    """An adapter whose device is called from a thread, and does not answer the first time."""

    name = "telling"
    tries = 0
    held: State = None

    async def start(self, report: Report) -> Sequence[str]:
        return []

    async def stop(self) -> None:
        return None

    async def observe(self, intent: Intent) -> State:
        self.tries += 1
        if self.tries == 1:
            tell(Rpc("pe1", "connect", "failed", 0.5))
            raise Unreachable("pe1 does not answer")
        return self.held

    async def set(self, intent: Intent, state: State) -> None:
        await asyncio.to_thread(tell, Rpc("pe1", "edit-config", "done", 0.25))
        self.held = state

    async def health(self) -> Mapping[str, Any]:
        return {"state": "ready"}


class Silent(Telling):
    """One that knows nothing of it."""

    async def observe(self, intent: Intent) -> State:
        raise Refused("no")


async def recorded(adapter: Telling) -> list[dict[str, Any]]:
    """The records of one intent, as a worker stores them."""
    trace.configure("test")
    store, bus = MemoryStore(KINDS), MemoryBus()
    writer = Audit(None, bus, adapter.name)
    role = AdapterRole(adapter, bus, {"pe1": DEVICE}, Policy(Embedded(policy.read())), SEALS, writer)
    await role.start()
    bus.consume(audit.taking(store, bus))
    intent = {"key": "order-1", "tenant": "acme", "device": "pe1", "service": "access", "instance": "a"}
    asked = {"intent": {**intent, "values": {"password": "s3cret"}, "deadline": time() + 60}}
    with trace.span("test"):
        body = SEALS.sealed("intent.telling.pe1", {**asked, "reply": "task.0.x", "about": {}})
        await bus.publish("intent.telling.pe1", body, "order-1")
    async with asyncio.timeout(20):
        while not await bus.read("task.>"):
            await asyncio.sleep(0.01)
        await writer.stop()
        while (await verify(store, bus)).unstored:
            await asyncio.sleep(0.01)
    await bus.close()
    found = await store.find(KIND.name, {}, [("id", 1)])
    assert await verify(store, bus) == Verified(len(found))
    assert "s3cret" not in repr(found)
    return [dict(record.body) for record in found]


async def test_calls_and_intents_are_recorded_in_their_trace() -> None:
    """Also those of a try that came to nothing, and in the order in which they were made."""
    found = await recorded(Telling())

    told = [(one["what"], one["on"], one["outcome"], one["detail"].get("rpc")) for one in found]
    assert told == [
        ("device.rpc", "device/pe1", "failed", "connect"),
        ("device.rpc", "device/pe1", "done", "edit-config"),
        ("intent.performed", "device/pe1", "done", None),
    ]
    assert {one["detail"]["intent"] for one in found} == {"order-1"}
    assert found[1]["detail"]["ms"] == 250
    assert len({one["trace"] for one in found} - {""}) == 1
    assert {(one["tenant"], one["subject"]) for one in found} == {("acme", "convergedon")}


async def test_an_adapter_that_tells_nothing_works_all_the_same() -> None:
    found = await recorded(Silent())

    assert [(one["what"], one["outcome"], one["detail"]["status"]) for one in found] == [
        ("intent.performed", "failed", "refused")
    ]
