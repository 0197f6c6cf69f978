"""What a device has can be asked over the bus without changing it, by whom an intent can be asked of."""

from __future__ import annotations

from time import time
from typing import Any

from scene import Scene

from convergedon.adapters.contract import Difference, Intent, Reading

SUBJECT = "intent.loopback.pe1"
GOLD = {"bandwidth": 100, "vlan": 10}


async def read(scene: Scene, tenant: str = "acme", values: Any = GOLD, **said: Any) -> Reading:
    """Ask for a reading as a worker does, and wait for it."""
    asked = Intent("run-1:3", tenant, "pe1", "access", "a", values, time() + 60, purpose="remediation", **said)
    body = {"reading": vars(asked), "reply": "delivery.answer", "about": {"tenant": tenant}}
    await scene.bus.publish(SUBJECT, scene.work.seals.sealed(SUBJECT, body), "reading-1")
    await scene.pump()
    (answer,) = await scene.bus.read("delivery.answer.>")
    assert answer["decision"]["id"]
    return Reading.told(answer["reading"])


async def test_what_the_device_has_is_read_and_compared(still: Scene) -> None:
    """As it is, with each leaf that is not as it is wanted; nothing is changed, and no approval is asked for."""
    still.network.state["pe1"] = {("access", "a"): {"bandwidth": 50, "vlan": 10, "words": "more"}}

    reading = await read(still, workflow="reset-port")

    assert (reading.status, reading.agrees) == ("read", False)
    assert reading.state == {"bandwidth": 50, "vlan": 10, "words": "more"}
    assert reading.differences == (Difference("bandwidth", 100, 50),)
    assert reading.words == "leaf bandwidth: wanted 100, found 50"
    assert still.network.services == {"pe1": [{"bandwidth": 50, "vlan": 10, "words": "more"}]}
    assert still.network.performed == []


async def test_a_device_that_has_what_is_wanted_agrees(still: Scene) -> None:
    still.network.state["pe1"] = {("access", "a"): {**GOLD, "words": "more"}}

    assert (await read(still)).agrees


async def test_a_service_that_is_gone_agrees_with_who_wants_it_gone(still: Scene) -> None:
    assert (await read(still, values=None)).agrees


async def test_a_service_that_is_not_there_is_told_as_a_whole(still: Scene) -> None:
    reading = await read(still)

    assert (reading.status, reading.state, reading.words) == ("read", None, "the service is not there")


async def test_another_tenants_device_is_not_read(still: Scene) -> None:
    """The policy says why, and the audit record has it."""
    still.network.state["pe1"] = {("access", "a"): GOLD}

    reading = await read(still, tenant="globex")
    await still.audit.stop()

    assert (reading.status, reading.reason, reading.state) == ("refused", "policy", None)
    assert reading.words == "device pe1 is none of tenant globex's"
    found = [one.body for one in await still.store.find("audit", {"body.what": "device.read"})]
    assert [(one["on"], one["outcome"]) for one in found] == [("device/pe1", "refused")]


async def test_who_cannot_seal_reads_nothing(still: Scene) -> None:
    asked = Intent("run-1:3", "acme", "pe1", "access", "a", GOLD, time() + 60)
    body = {"reading": vars(asked), "reply": "delivery.answer", "about": {"tenant": "acme"}}
    await still.bus.publish(SUBJECT, {**body, "seal": "0" * 64}, "reading-1")
    await still.pump()

    assert await still.bus.read("delivery.answer.>") == []
    assert [reason.split(":")[0] for _, reason in await still.bus.parked()] == [
        "an intent for pe1 that no worker asked for"
    ]
