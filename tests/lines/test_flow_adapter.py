"""Flow datagrams over real sockets: each becomes one observation of the right device, whatever is sent again."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from convergedon.adapters.contract import Device, Observation
from convergedon.adapters.flow import create, lab
from convergedon.adapters.flow.adapter import FlowAdapter
from convergedon.core import settings
from convergedon.core.errors import Misconfigured, Unavailable

DEVICES = {
    "pe1": Device("pe1", "globex", "127.0.10.1"),
    "slice1": Device("slice1", "acme", "127.0.10.9", {"flow": {"observationDomain": 1}}),
    "slice2": Device("slice2", "globex", "127.0.10.9", {"flow": {"observationDomain": 2}}),
}
SINCE = 1_790_000_000.0
RECORDS = [
    {
        "source": "10.0.0.1",
        "destination": f"192.0.2.{n}",
        "octets": 1000 + n,
        "packets": 1 + n,
        "start": SINCE + n,
        "end": SINCE + n + 0.5,
    }
    for n in range(100)
]


class Safe:
    def __init__(self) -> None:
        self.stored: list[Observation] = []
        self.away = 0
        self.changed = asyncio.Event()

    async def report(self, observation: Observation) -> None:
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise Unavailable("the bus is away")
        self.stored.append(observation)
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def safe() -> Safe:
    return Safe()


@pytest.fixture
async def adapter(safe: Safe) -> AsyncIterator[FlowAdapter]:
    adapter = create(settings.load(flow_port=0), DEVICES)
    [adapter.where] = await adapter.start(safe.report)
    yield adapter
    await adapter.stop()


def port(adapter: FlowAdapter) -> tuple[str, int]:
    host, _, number = adapter.where.rpartition(":")
    return host, int(number)


async def settled(adapter: FlowAdapter, received: int) -> None:
    """Wait until so many datagrams have arrived and been taken apart."""
    async with asyncio.timeout(10):
        while (health := await adapter.health())["received"] < received or health["queue"]:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("kind", [9, 10])
async def test_every_record_arrives_once_in_order_for_the_exporters_device(adapter, safe, kind):
    found = lab.datagrams(kind, RECORDS)
    lab.send(found, port(adapter), "127.0.10.1")
    await safe.until(lambda: len(safe.stored) == len(found))
    records = [record for observation in safe.stored for record in observation.attributes["records"]]

    assert {(one.kind, one.device, one.tenant) for one in safe.stored} == {("flow", "pe1", "globex")}
    assert [record["destination"] for record in records] == [record["destination"] for record in RECORDS]
    assert sum(record["octets"] for record in records) == sum(record["octets"] for record in RECORDS)
    assert [record["start"] for record in records] == pytest.approx([record["start"] for record in RECORDS])


async def test_a_datagram_sent_again_has_the_same_id_and_another_exporters_has_not(adapter, safe):
    [datagram] = lab.datagrams(10, RECORDS[:5])
    for address in ("127.0.10.1", "127.0.10.1", "127.0.10.7"):
        lab.send([datagram], port(adapter), address)
    await safe.until(lambda: len(safe.stored) == 3)
    first, again, other = safe.stored

    assert first.id == again.id != other.id
    assert (other.device, other.tenant) == ("127.0.10.7", "acme")


async def test_devices_behind_one_exporter_are_told_apart_by_observation_domain(adapter, safe):
    for domain in (1, 2, 3):
        lab.send(lab.datagrams(9, RECORDS[:5], domain), port(adapter), "127.0.10.9")
    await safe.until(lambda: len(safe.stored) == 3)

    assert [one.device for one in safe.stored] == ["slice1", "slice2", "127.0.10.9"]


async def test_after_a_restart_data_waits_for_the_template_and_keeps_its_id(adapter, safe):
    template, *rest = lab.datagrams(10, RECORDS)
    lab.send(rest, port(adapter), "127.0.10.1")
    await settled(adapter, len(rest))
    waiting = (await adapter.health())["waitingForTemplate"]
    lab.send([template, *rest], port(adapter), "127.0.10.1")
    await safe.until(lambda: len(safe.stored) == 1 + 2 * len(rest))
    ids = [one.id for one in safe.stored]

    assert waiting == len(rest)
    assert ids[: len(rest)] == ids[-len(rest) :]
    assert (await adapter.health())["waitingForTemplate"] == 0


async def test_a_bus_that_goes_away_costs_no_record(adapter, safe):
    safe.away = 3
    found = lab.datagrams(10, RECORDS * 10)
    lab.send(found, port(adapter), "127.0.10.1")
    await safe.until(lambda: len(safe.stored) == len(found))

    octets = sum(record["octets"] for one in safe.stored for record in one.attributes["records"])
    assert octets == 10 * sum(record["octets"] for record in RECORDS)
    assert (await adapter.health())["dropped"] == {}


async def test_what_is_no_flow_export_is_counted(adapter):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in (b"noise", b"\0\x09\0", lab.ipfix(RECORDS[:2])[:-5]):
            sender.sendto(datagram, port(adapter))
    await settled(adapter, 3)

    assert (await adapter.health())["dropped"] == {"version": 1, "malformed": 1, "truncated": 1}


async def test_a_taken_port_is_told_in_one_sentence(adapter):
    second = create(settings.load(flow_port=port(adapter)[1]), DEVICES)

    with pytest.raises(Misconfigured, match="CONVERGEDON_FLOW_PORT"):
        await second.start(None)
