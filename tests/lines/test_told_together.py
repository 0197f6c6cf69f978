"""Observations that arrive together are stored together, and are worked through as if each had come alone."""

from __future__ import annotations

from collections import Counter
from time import time

from scene import DEVICES, Scene, twice
from structlog.testing import capture_logs

from convergedon.adapters.contract import Observation
from convergedon.adapters.intake import Parcel, Told
from convergedon.adapters.reporting import LARGEST_MESSAGE, Reporting
from convergedon.core import trace
from convergedon.core.bus import partition

ABOUT = {
    "alarmType": "communicationsAlarm",
    "perceivedSeverity": "major",
    "probableCause": "lossOfSignal",
    "specificProblem": "link down",
    "details": {},
}


def seen(number: int, device: str = "pe1", kind: str = "fault", key: str = "link", **given: object) -> Observation:
    about = ABOUT | {"details": {"1.2.3": f"{number}"}} | given
    tenant = DEVICES[device].tenant if device in DEVICES else "acme"
    return Observation(f"{number:032x}", kind, "loopback", device, tenant, time(), "ge-1", key, about)  # type: ignore[arg-type]


def packed(scene: Scene, *observations: Observation, informs: tuple[int, ...] = ()) -> list[Parcel]:
    told = [Told(each, (lambda: None) if n in informs else None) for n, each in enumerate(observations)]
    return Reporting("loopback", scene.bus).pack(told)


async def send(parcels: list[Parcel]) -> None:
    for parcel in parcels:
        await parcel.send()


async def test_many_in_one_message_are_counted_one_by_one(scene: Scene) -> None:
    parcels = packed(scene, *(seen(n, key=f"link{n % 3}") for n in range(30)), seen(30, kind="clear", key="link0"))
    await send(parcels)

    async def over() -> bool:
        found = await scene.find("alarm", "acme")
        return sorted((a.facts["key"], a.body["state"], a.facts["count"]) for a in found) == [
            ("pe1|link0", "cleared", 10),
            ("pe1|link1", "updated", 10),
            ("pe1|link2", "updated", 10),
        ]

    assert len(parcels) == 1
    await scene.until(over)


async def test_each_begins_a_trace_of_its_own_that_its_alarm_carries_on(scene: Scene) -> None:
    await send(packed(scene, *(seen(n, key=f"link{n}") for n in range(3))))

    async def raised() -> bool:
        return len(await scene.find("alarm", "acme")) == 3

    await scene.until(raised)
    found = {alarm.facts["key"]: alarm.facts["trace"] for alarm in await scene.find("alarm", "acme")}
    assert found == {f"pe1|link{n}": trace.begun_by(f"{n:032x}").split("-")[1] for n in range(3)}


async def test_a_message_of_many_that_is_delivered_again_changes_nothing(still: Scene) -> None:
    """Also where it was left off in the middle: what was counted is not counted again."""
    said = [seen(n, key=f"link{n % 2}") for n in range(4)]
    await send(packed(still, *said, seen(4, kind="clear", key="link0"), seen(5, key="link0")))

    assert await twice(still) == []
    counts = [(alarm.facts["key"], alarm.facts["count"]) for alarm in await still.find("alarm", "acme")]
    assert Counter(counts) == {("pe1|link0", 2): 1, ("pe1|link0", 1): 1, ("pe1|link1", 2): 1}


async def test_what_fails_is_tried_again_alone_and_holds_up_nothing(still: Scene) -> None:
    """As a message of its own it is parked by itself, like any other."""
    broken = seen(1, key="broken")
    del broken.attributes["alarmType"]  # type: ignore[attr-defined]
    await send(packed(still, seen(0), broken, seen(2)))
    with capture_logs():  # five tracebacks, which take seconds to print
        await still.pump()

    _, alone = await still.bus.read("network.>")
    assert alone["observation"]["key"] == "broken"
    assert [(a.facts["key"], a.facts["count"]) for a in await still.find("alarm", "acme")] == [("pe1|link", 2)]


async def test_messages_are_of_one_partition_and_one_tenant_and_keep_the_order(still: Scene) -> None:
    devices = [f"192.0.2.{n}" for n in range(40)] + list(DEVICES)
    said = [seen(n, devices[n * 7 % len(devices)]) for n in range(400)]
    parcels = packed(still, *said, informs=(17, 203))
    order: dict[str, list[str]] = {}
    for parcel in parcels:
        places = {(partition(each.observation.device), each.observation.tenant) for each in parcel.told}
        assert len(places) == 1
        for each in parcel.told:
            order.setdefault(each.observation.device, []).append(each.observation.id)

    assert order == {
        device: [each.id for each in said if each.device == device] for device in {each.device for each in said}
    }
    assert [len(parcel.told) for parcel in parcels if said[17] in [each.observation for each in parcel.told]] == [1]


async def test_no_message_is_larger_than_the_bus_takes(scene: Scene) -> None:
    """A datagram of 64 KB makes some hundred thousand characters of JSON."""
    said = [seen(n, details={"1.3": "x" * 120_000}) for n in range(12)]
    parcels = packed(scene, *said)
    await send(parcels)

    assert [each.observation for parcel in parcels for each in parcel.told] == said
    assert max(len(parcel.told) for parcel in parcels) * 120_000 < LARGEST_MESSAGE
    assert len(parcels) == 3
