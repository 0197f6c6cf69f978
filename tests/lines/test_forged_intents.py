"""What no worker asked for is performed by no adapter, whoever put it on the bus, and whatever it says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from time import time
from typing import Any

import pytest
from prometheus_client import REGISTRY
from scene import BERLIN, STORE_KINDS, PumpBus, Scene, in_memory, item, playing

from convergedon.adapters.contract import Intent
from convergedon.core.bus import Consumer, Message
from convergedon.core.memory import MemoryStore
from convergedon.core.seals import MEMBER, Seals

Body = dict[str, Any]
SUBJECT = "intent.loopback.pe1"
OTHER = {
    "key": "other",
    "tenant": "globex",
    "device": "pe2",
    "service": "spare",
    "instance": "another",
    "values": {"bandwidth": 5000},
    "deadline": time() + 9_999,
    "purpose": "undo",
    "order": "another",
    "site": "hamburg",
    "owner": {"id": "mara", "tenant": "acme", "roles": ["admin"]},
    "workflow": "reset-port",
    "approval": {"by": {"id": "mara", "tenant": "acme", "roles": ["noc"]}, "time": time(), "decision": "approved"},
    "trace": f"00-{'7' * 32}-{'7' * 16}-01",
}
"""Something else for each member of an intent."""


class Overheard(PumpBus):
    """A bus on which somebody listens, and answers what is told to come before each intent of a worker's."""

    before: Callable[[Message], tuple[str, Any] | None] = staticmethod(lambda _: None)

    async def _deliver(self, consumer: Consumer, message: Message) -> None:
        if message.subject.startswith("intent.") and (forged := self.before(message)):
            subject, body = forged
            fake = Message("forged", subject, body, {}, message.position, message.stored)
            await super()._deliver(consumer, fake)
        await super()._deliver(consumer, message)


@pytest.fixture
async def overheard(tmp_path: Path) -> AsyncIterator[Scene]:
    async with playing(MemoryStore(STORE_KINDS), Overheard(), tmp_path) as scene:
        yield scene


def with_intent(message: Message, **said: Any) -> Body:
    """What a worker asked for, sealed as it is, that says something else."""
    changed = deepcopy(dict(message.body))
    changed["intent"].update(said)
    return changed


def without_seal(message: Message) -> Body:
    return {name: value for name, value in message.body.items() if name != MEMBER}


FORGERIES: Mapping[str, Callable[[Message], tuple[str, Any]]] = {
    "without a seal": lambda message: (message.subject, without_seal(message)),
    "another key": lambda message: (message.subject, Seals([b"x"]).sealed(message.subject, without_seal(message))),
    "at another device": lambda message: ("intent.loopback.pe2", message.body),
    "nothing of an intent": lambda message: (message.subject, ["rm", "-rf"]),
    "answered elsewhere": lambda message: (message.subject, {**message.body, "reply": "network.0.mine"}),
    "about another order": lambda message: (message.subject, {**message.body, "about": {"tenant": "globex"}}),
    **{
        f"another {name}": lambda message, name=name: (message.subject, with_intent(message, **{name: OTHER[name]}))
        for name in OTHER
    },
}


def test_each_member_of_an_intent_is_forged() -> None:
    assert {field.name for field in fields(Intent)} == OTHER.keys()


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_intent_is_parked_and_the_workers_own_is_performed(overheard: Scene, forgery: str) -> None:
    """It touches no device and answers nobody: an order whose intent was copied and changed goes on as if nothing were.

    A person sees it among the parked messages, with the reason.
    """
    overheard.bus.before = FORGERIES[forgery]
    order = await overheard.ended(await overheard.order(item(**BERLIN)))

    assert order["state"] == "completed"
    assert [intent.device for intent in overheard.network.performed] == ["pe1"]
    assert overheard.network.services == {"pe1": [{"bandwidth": 100, "vlan": 10}]}
    ((_, reason),) = await overheard.bus.parked()
    assert reason.startswith("an intent for pe1 that no worker asked for: it")
    assert len(await overheard.bus.read("network.>")) == 1


async def test_a_forged_intent_is_recorded_and_counted(tmp_path: Path) -> None:
    """As the device's tenant's, whatever it says; of what it says itself, only what its message is called."""
    counted = ("convergedon_adapter_intents_forged_total", {"adapter": "loopback"})
    before = REGISTRY.get_sample_value(*counted) or 0
    async with in_memory(tmp_path) as scene:
        said = {"key": "k", "tenant": "globex", "device": "pe1", "values": {"password": "s3cret"}}
        await scene.bus.publish(SUBJECT, {"intent": said, "reply": "network.0.outcome", "about": {}}, "forged-1")

        async def parked() -> bool:
            return bool(await scene.bus.parked())

        await scene.until(parked)
        await scene.settled()
        await scene.audit.stop()
        (found,) = [one.body for one in await scene.store.find("audit", {"body.what": "intent.forged"})]

    assert (found["tenant"], found["on"], found["outcome"]) == ("acme", "device/pe1", "refused")
    assert found["detail"] == {"reason": "it has no seal", "message": "forged-1"}
    assert REGISTRY.get_sample_value(*counted) == before + 1


async def test_what_was_performed_and_taken_back_is_not_performed_again(still: Scene) -> None:
    """Somebody kept a worker's message and puts it on the bus once more, within its deadline."""
    id = await still.order(item(**BERLIN))
    await still.ended(id)
    (asked,) = [message for message in still.bus.messages if message.subject.startswith("intent.")]
    await still.ended(await still.order(item("delete", product=f"{id}-1")))
    before = await still.snapshot()

    await still.bus.publish(asked.subject, asked.body, "again")
    await still.pump()

    assert still.network.services == {}
    assert await still.snapshot() == before
    assert await still.bus.parked() == []


async def test_what_comes_after_its_deadline_is_not_performed(still: Scene) -> None:
    """The seal of what a worker asked for long ago still holds; its time has passed, and the device is only asked."""
    outcome = await answered_late(still)

    assert (outcome["status"], outcome["reason"]) == ("refused", "deadline")
    assert outcome["words"] == "its deadline had passed; pe1 was asked, and does not have it"
    assert still.network.services == {}


async def test_what_was_done_and_is_delivered_again_after_its_deadline_is_done(still: Scene) -> None:
    """The adapter died between the commit and the answer, and came back late: what stands there is not refused."""
    still.network.state["pe1"] = {("access", "a"): {"bandwidth": 1}}

    outcome = await answered_late(still)

    assert (outcome["status"], outcome["reason"]) == ("unchanged", "")
    assert still.network.services == {"pe1": [{"bandwidth": 1}]}


async def test_of_a_device_that_cannot_be_asked_after_the_deadline_nobody_knows(still: Scene) -> None:
    still.network.unreachable.add("pe1")

    outcome = await answered_late(still)

    assert (outcome["status"], outcome["reason"]) == ("unknown", "unreachable")


async def answered_late(scene: Scene) -> Body:
    """The outcome of an intent that comes when its deadline has passed."""
    wanted = Intent("key", "acme", "pe1", "access", "a", {"bandwidth": 1}, time() - 1, site="berlin")
    body = {"intent": vars(wanted), "reply": "delivery.answer", "about": {"tenant": "acme"}}
    await scene.bus.publish(SUBJECT, scene.work.seals.sealed(SUBJECT, body), "late")
    await scene.pump()
    (answer,) = await scene.bus.read("delivery.answer.>")
    return dict(answer["outcome"])
