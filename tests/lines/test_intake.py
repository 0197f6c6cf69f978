"""Under load nothing is lost unseen: what the queue or the kernel has no room for is counted, the queue's by name."""

import asyncio
import socket

import pytest

from convergedon.adapters.contract import Observation
from convergedon.adapters.intake import Finding, Intake
from convergedon.adapters.snmp import ber, create, lab
from convergedon.core import settings

LINK_DOWN = "1.3.6.1.6.3.1.1.5.3"


def trap(number):
    return lab.link("down", "127.0.10.1", f"eth{number}", number, "public")


def send(where, datagrams):
    host, _, port = where.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, (host, int(port)))


async def until(holds):
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
async def held():
    """An intake with room for ten, whose reports wait until they are let go."""
    go, stored = asyncio.Event(), []

    async def report(observation):
        await go.wait()
        stored.append(observation)

    def read(datagram):
        return [Finding(lambda: Observation(str(len(stored)), "fault", "t", "d", "acme", datagram.time))]

    intake = Intake("t", "t", "127.0.0.1", 0, "T", read, queue=10, name=ber.peek)
    where = await intake.start(report)
    yield intake, where, go, stored
    go.set()
    await intake.stop()


async def test_what_the_queue_has_no_room_for_is_counted_by_sender_and_notification(held):
    intake, where, go, stored = held
    for number in range(1000):
        send(where, [trap(number)])
    send(where, [b"noise"])
    await until(lambda: intake.counts["received"] + (intake.health()["lostInKernel"] or 0) == 1001)
    health = intake.health()
    go.set()
    await until(lambda: len(stored) + health["dropped"]["queue"] == health["received"])

    told = {(loss["source"], loss["what"]): loss["count"] for loss in health["losses"]}
    assert told.keys() == {("127.0.0.1", LINK_DOWN), ("127.0.0.1", "")}
    assert sum(told.values()) == health["dropped"]["queue"]


async def test_what_the_kernel_had_no_room_for_is_counted(held):
    """Nothing is read while this sends: more than four megabytes do not fit."""
    intake, where, *_ = held
    if intake.health()["lostInKernel"] is None:
        pytest.skip("this kernel does not tell what it drops")
    send(where, [b"x" * 8000] * 2000)
    await until(lambda: intake.counts["received"] + intake.health()["lostInKernel"] == 2000)

    assert intake.health()["dropped"]["kernel"] == intake.health()["lostInKernel"] > 0


async def test_a_storm_of_traps_raises_one_alarm_and_informs_pass(tmp_path):
    stored = []

    async def report(observation):
        stored.append(observation)

    adapter = create(settings.load(data=tmp_path, trap_port=0, trap_storm_high=20, trap_storm_low=2), {})
    [where] = await adapter.start(report)
    send(where, [trap(number % 3) for number in range(200)])
    host, _, port = where.rpartition(":")
    await lab.inform_link("down", "127.0.10.1", "eth9", 9, "public", (host, int(port)))
    storms = (await adapter.health())["storms"]
    await adapter.stop()

    kinds = [(each.kind, each.key) for each in stored]
    assert storms == [{"device": "127.0.10.1", "oid": LINK_DOWN}]
    assert kinds[20] == ("fault", f"storm:{LINK_DOWN}")
    assert kinds.count(("fault", "link:eth9")) == 1
    assert sorted(kinds[-4:-1]) == [("fault", f"link:eth{n}") for n in range(3)]
    assert kinds[-1] == ("clear", f"storm:{LINK_DOWN}")
    assert (await adapter.health())["withheld"] == 180
