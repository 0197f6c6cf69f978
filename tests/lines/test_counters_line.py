"""Counters of interfaces become usage of the services that stand on them, once however often they are told."""

from __future__ import annotations

from scene import BERLIN, Scene, item, twice

RECORD = {"interface": "ge-1", "counts": {"octetsIn": 700, "octetsOut": 90_000, "packetsIn": 7, "packetsOut": 90}}


def poll(start: float, *interfaces: str) -> list[dict[str, object]]:
    return [RECORD | {"interface": name, "start": start, "end": start + 60} for name in interfaces]


async def test_what_goes_over_an_interface_is_usage_of_its_service(scene: Scene) -> None:
    order = await scene.ended(await scene.order(item(**BERLIN)))
    assert order["state"] == "completed"
    await scene.say("counter", records=poll(1_790_000_000, "ge-1", "ge-2"))

    async def metered() -> bool:
        return any(one.body["usageType"] == "interface-traffic" for one in await scene.find("usage"))

    await scene.until(metered)
    [usage] = [one for one in await scene.find("usage") if one.body["usageType"] == "interface-traffic"]
    said = {one["name"]: one["value"] for one in usage.body["usageCharacteristic"]}
    assert (said["octetsUp"], said["octetsDown"], said["packetsUp"]) == (700, 90_000, 7)
    assert said["interface"] == "ge-1" or said["exporter"] == "pe1"


async def test_counters_that_are_delivered_again_are_counted_once(still: Scene) -> None:
    await still.order(item(**BERLIN))
    await still.pump()
    await still.say("counter", records=poll(1_790_000_000, "ge-1"))

    assert await twice(still) == []
    assert len([one for one in await still.find("usage") if one.body["usageType"] == "interface-traffic"]) == 1
