"""An intent that is delivered again is answered by what the device has, whatever has changed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from time import time
from typing import Any

import pytest

from convergedon.adapters.contract import Device
from convergedon.adapters.loopback.adapter import LoopbackAdapter
from convergedon.adapters.role import AdapterRole
from convergedon.core import policy
from convergedon.core.errors import Unavailable
from convergedon.core.memory import MemoryBus
from convergedon.core.policy import Decision, Embedded, Policy
from convergedon.core.seals import Seals

SEALS = Seals([b"k" * 32])
SUBJECT = "intent.loopback.pe1"
GOLD = {"bandwidth": 100}
CLOSED = "the change window has closed"


class LosesTheAnswer(MemoryBus):
    """It is away when the first answer is to be stored."""

    lost = False

    async def publish(
        self, subject: str, body: Mapping[str, Any], id: str, headers: Mapping[str, str] | None = None
    ) -> None:
        if subject.startswith("task.") and not self.lost:
            self.lost = True
            raise Unavailable("the bus is away")
        await super().publish(subject, body, id, headers)


class Closing(Policy):
    """It says no after it was asked so often whether something may be performed."""

    left = 1

    async def decide(self, subject: Any, action: str, *asked: Any, **said: Any) -> Decision:
        found = await super().decide(subject, action, *asked, **said)
        if action != "perform":
            return found
        self.left -= 1
        return found if self.left >= 0 else replace(found, allow=False, reasons=(CLOSED,))


async def answered(adapter: LoopbackAdapter, bus: MemoryBus, asking: Closing) -> dict[str, Any]:
    role = AdapterRole(adapter, bus, {"pe1": Device("pe1", "acme", "127.0.0.1")}, asking, SEALS)
    await role.start()
    intent = {"key": "order-1", "tenant": "acme", "device": "pe1", "service": "access", "instance": "a"}
    asked = {"intent": {**intent, "values": GOLD, "deadline": time() + 60}, "reply": "task.0.x", "about": {}}
    await bus.publish(SUBJECT, SEALS.sealed(SUBJECT, asked), "order-1")
    async with asyncio.timeout(20):
        while not (found := await bus.read("task.>")):
            await asyncio.sleep(0.01)
    await role.stop()
    await bus.close()
    return dict(found[0]["outcome"])


@pytest.mark.parametrize(
    ("times", "status", "words"),
    [(2, "unchanged", ""), (1, "unchanged", ""), (0, "refused", CLOSED)],
)
async def test_what_was_done_is_done_though_it_may_not_be_begun_any_more(times: int, status: str, words: str) -> None:
    """The answer was lost, and the policy says no to the second delivery; to the first it does what it always did."""
    adapter, asking = LoopbackAdapter(), Closing(Embedded(policy.read()))
    asking.left = times

    outcome = await answered(adapter, LosesTheAnswer(), asking)

    assert (outcome["status"], outcome["words"]) == (status, words)
    assert adapter.state == ({} if status == "refused" else {"pe1": {("access", "a"): GOLD}})


async def test_what_was_not_done_and_may_not_be_begun_any_more_is_refused() -> None:
    """The device could not be asked the first time."""
    adapter, asking = LoopbackAdapter(), Closing(Embedded(policy.read()))
    adapter.unreachable.add("pe1")

    class Mended(MemoryBus):
        """Somebody mends the device before the intent comes back."""

        async def last(self, subject: str) -> Any:
            if asking.left < 1:
                adapter.unreachable.clear()
            return await super().last(subject)

    outcome = await answered(adapter, Mended(), asking)

    assert (outcome["status"], outcome["reason"], outcome["words"]) == ("refused", "policy", CLOSED)
    assert adapter.state == {}
