"""Flow datagrams over real sockets: each becomes one observation of the right device, whatever is sent again."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from convergedon.adapters.contract import Device, Observation
from convergedon.adapters.flow import create, lab
from convergedon.adapters.flow.adapter import FlowAdapter
from convergedon.adapters.flow.gathering import MOST_RECORDS
from convergedon.core import metrics, settings
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
        self.answers_lost = False
        self.changed = asyncio.Event()

    async def report(self, observation: Observation) -> None:
        await asyncio.sleep(0)
        if self.away and not self.answers_lost:
            self.away -= 1
            raise Unavailable("the bus is away")
        self.stored.append(observation)
        self.changed.set()
        if self.away:
            self.away -= 1
            raise Unavailable("the bus's answer was lost")

    @property
    def records(self) -> list[dict[str, object]]:
        """The records of what is stored, as a bus keeps it: what has the same id is one."""
        once = {one.id: one for one in self.stored}
        return [record for one in once.values() for record in one.attributes["records"]]

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
    lab.send(lab.datagrams(kind, RECORDS), port(adapter), "127.0.10.1")
    await safe.until(lambda: len(safe.records) == len(RECORDS))
    records = safe.records

    assert {(one.kind, one.device, one.tenant) for one in safe.stored} == {("flow", "pe1", "globex")}
    assert [record["destination"] for record in records] == [record["destination"] for record in RECORDS]
    assert sum(record["octets"] for record in records) == sum(record["octets"] for record in RECORDS)
    assert [record["start"] for record in records] == pytest.approx([record["start"] for record in RECORDS])


async def test_a_datagram_that_comes_twice_counts_once_and_another_exporters_counts_too(adapter, safe):
    before = metrics.of_adapter("flow")["convergedon_adapter_unmapped_total"]
    [datagram] = lab.datagrams(10, RECORDS[:5])
    for address in ("127.0.10.1", "127.0.10.1", "127.0.10.7"):
        lab.send([datagram], port(adapter), address)
    await safe.until(lambda: len(safe.stored) == 2)
    one, other = safe.stored

    assert one.id != other.id
    assert [len(seen.attributes["records"]) for seen in safe.stored] == [5, 5]
    assert (other.device, other.tenant) == ("127.0.10.7", "acme")
    assert (await adapter.health())["dropped"] == {"duplicate": 1}
    assert metrics.of_adapter("flow")["convergedon_adapter_unmapped_total"] - before == 1, "it is in no devices file"


async def test_what_one_device_exports_within_a_moment_is_one_observation(adapter, safe):
    """A burst is few messages for the bus and for those who take from it, each within what a message may be."""
    found = lab.datagrams(9, [{**RECORDS[0], "octets": n} for n in range(24 * 100)])
    lab.send(found, port(adapter), "127.0.10.1")
    await safe.until(lambda: len(safe.records) == 24 * 100)

    assert 2 <= len(safe.stored) <= 20
    assert max(len(one.attributes["records"]) for one in safe.stored) <= MOST_RECORDS
    assert [record["octets"] for record in safe.records] == list(range(24 * 100))


async def test_devices_behind_one_exporter_are_told_apart_by_observation_domain(adapter, safe):
    for domain in (1, 2, 3):
        lab.send(lab.datagrams(9, RECORDS[:5], domain), port(adapter), "127.0.10.9")
    await safe.until(lambda: len(safe.stored) == 3)

    assert [one.device for one in safe.stored] == ["slice1", "slice2", "127.0.10.9"]


async def test_after_a_restart_data_waits_for_the_template_and_counts_once(adapter, safe):
    template, *rest = lab.datagrams(10, RECORDS)
    lab.send(rest, port(adapter), "127.0.10.1")
    await settled(adapter, len(rest))
    waiting = (await adapter.health())["waitingForTemplate"]
    lab.send([template, *rest], port(adapter), "127.0.10.1")
    await safe.until(lambda: len(safe.records) == len(RECORDS))
    await settled(adapter, 1 + 2 * len(rest))
    health = await adapter.health()

    assert waiting == len(rest)
    assert sorted(record["octets"] for record in safe.records) == [record["octets"] for record in RECORDS]
    assert (health["waitingForTemplate"], health["dropped"]) == (0, {"duplicate": len(rest)})


@pytest.mark.parametrize("answers_lost", [False, True])
async def test_a_bus_that_goes_away_costs_no_record_and_counts_none_twice(adapter, safe, answers_lost):
    """What was stored though its answer was lost comes again as it was: under the id that the bus knows already."""
    safe.away, safe.answers_lost = 3, answers_lost
    found = lab.datagrams(10, RECORDS * 100)
    lab.send(found, port(adapter), "127.0.10.1")
    await safe.until(lambda: len(safe.records) >= 100 * len(RECORDS))
    async with asyncio.timeout(20):
        while (await adapter.health())["inFlight"]:
            await asyncio.sleep(0.01)

    octets = sum(record["octets"] for record in safe.records)
    assert octets == 100 * sum(record["octets"] for record in RECORDS)
    assert (len(safe.stored) > len({one.id for one in safe.stored})) == answers_lost
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
