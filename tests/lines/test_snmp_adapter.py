"""Traps and informs over real sockets: nothing is lost unseen, order holds, an answer means that it is safe."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from convergedon.adapters import transaction
from convergedon.adapters.contract import Device, Intent, Observation
from convergedon.adapters.snmp import ber, create, lab
from convergedon.adapters.snmp.adapter import SnmpAdapter
from convergedon.core import settings, trace
from convergedon.core.errors import Misconfigured, Unavailable

PE1 = Device("pe1", "globex", "127.0.10.1", {"snmp": {"interfaces": {7: "ge-0/0/7"}}})
PE2 = Device("pe2", "acme", "127.0.10.2")
DEVICES = {"pe1": PE1, "pe2": PE2}


class Safe:
    """Where observations are made safe; it can be away, and it can be slow."""

    def __init__(self) -> None:
        self.begun: list[Observation] = []
        self.stored: list[Observation] = []
        self.traces: list[str] = []
        self.away = False
        self.open = asyncio.Event()
        self.open.set()
        self.changed = asyncio.Event()

    async def report(self, observation: Observation) -> None:
        self.begun.append(observation)
        self.changed.set()
        if self.away:
            raise Unavailable("the bus is away")
        await self.open.wait()
        self.traces.append(trace.headers().get("traceparent", ""))
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
async def adapter(safe: Safe, tmp_path: Path) -> AsyncIterator[SnmpAdapter]:
    adapter = create(
        settings.load(data=tmp_path, trap_port=0, trap_communities="public,other", trap_storm_high=0), DEVICES
    )
    [adapter.where] = await adapter.start(safe.report)
    yield adapter
    await adapter.stop()


def port(adapter: SnmpAdapter) -> tuple[str, int]:
    host, _, number = adapter.where.rpartition(":")
    return host, int(number)


def send(adapter: SnmpAdapter, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, port(adapter))


async def counted(adapter: SnmpAdapter, reason: str, count: int) -> None:
    """Wait until so many datagrams are dropped for this reason."""
    async with asyncio.timeout(10):
        while (await adapter.health())["dropped"].get(reason, 0) < count:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("version", [1, 2])
async def test_a_link_trap_names_device_tenant_interface_and_condition(adapter, safe, version):
    began = time.time()
    lab.trap_link("down", PE1.address, "eth3", 3, "public", port(adapter), version)
    lab.trap_link("up", PE1.address, "eth3", 3, "public", port(adapter), version)
    await safe.until(lambda: len(safe.stored) == 2)
    down, up = safe.stored

    assert (down.kind, down.device, down.tenant, down.object) == ("fault", "pe1", "globex", "eth3")
    assert (up.kind, up.key) == ("clear", down.key) == ("clear", "link:eth3")
    assert down.attributes["perceivedSeverity"] == "major"
    assert down.attributes["details"]["1.3.6.1.2.1.2.2.1.8.3"] == "2"
    assert down.attributes["source"] == "127.0.0.1"
    assert down.id != up.id
    assert began <= down.time <= time.time()


async def test_the_devices_file_names_an_interface_by_its_index(adapter, safe):
    lab.trap_link("down", PE1.address, "eth7", 7, "public", port(adapter))
    await safe.until(lambda: bool(safe.stored))

    assert safe.stored[0].object == "ge-0/0/7"


async def test_an_unknown_device_is_its_address_and_an_unknown_trap_is_kept_whole(adapter, safe):
    unknown = [(ber.TRAP_OID, ber.OID, "1.3.6.1.4.1.4711.0.1"), ("1.3.6.1.4.1.4711.1.0", ber.OCTETS, b"fan 3")]
    secret = (ber.TRAP_COMMUNITY, ber.OCTETS, b"public")
    send(adapter, ber.encode(b"public", [*unknown, secret], request=1))
    await safe.until(lambda: bool(safe.stored))
    [found] = safe.stored

    assert (found.kind, found.device, found.tenant) == ("unmapped", "127.0.0.1", "acme")
    assert found.key == "unmapped:1.3.6.1.4.1.4711.0.1"
    assert found.attributes["perceivedSeverity"] == "indeterminate"
    assert found.attributes["details"] == {"1.3.6.1.4.1.4711.1.0": "fan 3"}


async def test_each_datagram_begins_a_trace_that_the_report_carries_on(safe, tmp_path):
    trace.configure("test")
    with trace.span("whoever starts the adapter"):
        adapter = create(settings.load(data=tmp_path, trap_port=0), DEVICES)
        [adapter.where] = await adapter.start(safe.report)
        starter = trace.trace_id()
    lab.trap_link("down", PE1.address, "eth3", 3, "public", port(adapter))
    lab.trap_link("up", PE1.address, "eth3", 3, "public", port(adapter))
    await safe.until(lambda: len(safe.stored) == 2)
    await adapter.stop()
    found = {header.split("-")[1] for header in safe.traces}

    assert len(found) == 2
    assert starter not in found


async def test_an_inform_is_answered_only_when_it_is_safe(adapter, safe):
    safe.open.clear()
    informed = asyncio.create_task(lab.inform_link("down", PE1.address, "eth3", 3, "public", port(adapter), 30, 1))
    await safe.until(lambda: bool(safe.begun))
    unanswered = not informed.done()
    safe.open.set()

    assert await informed == 1
    assert unanswered
    assert len(safe.stored) == 1


async def test_an_inform_sent_again_has_the_same_id_and_a_trap_never(adapter, safe):
    inform = lab.link("down", PE1.address, "eth3", 3, "public", inform=True)
    trap = lab.link("down", PE1.address, "eth3", 3, "public")
    send(adapter, inform)
    send(adapter, inform, trap, trap, lab.link("down", PE1.address, "eth3", 3, "public", inform=True))
    await safe.until(lambda: len(safe.stored) == 5)
    ids = [observation.id for observation in safe.stored]

    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


async def test_an_inform_is_not_answered_while_the_bus_is_away_and_is_when_it_is_back(adapter, safe):
    safe.away = True
    informed = asyncio.create_task(lab.inform_link("down", PE1.address, "eth3", 3, "public", port(adapter), 30, 1))
    await safe.until(lambda: len(safe.begun) == 2)
    degraded = await adapter.health()
    safe.away = False

    assert await informed == 1
    assert degraded["state"] == "degraded"
    assert len(safe.stored) == 1


async def test_a_bus_that_goes_away_costs_neither_a_trap_nor_the_order(adapter, safe):
    traps = [lab.link(("down", "up")[n % 2], PE1.address, f"eth{n}", 100 + n, "public") for n in range(600)]
    send(adapter, *traps[:200])
    await safe.until(lambda: len(safe.stored) >= 50)
    safe.away = True
    send(adapter, *traps[200:])
    await safe.until(lambda: len(safe.begun) > len(safe.stored) + 1)
    safe.away = False
    await safe.until(lambda: len(safe.stored) == 600)

    assert [observation.object for observation in safe.stored] == [f"eth{n}" for n in range(600)]
    assert (await adapter.health())["state"] == "ready"


async def test_reports_begin_in_the_order_of_arrival_with_many_in_flight(adapter, safe):
    safe.open.clear()
    send(adapter, *(lab.link("down", PE2.address, f"eth{n}", n, "public") for n in range(300)))
    await safe.until(lambda: len(safe.begun) == 256)
    flying = (await adapter.health())["inFlight"]
    safe.open.set()
    await safe.until(lambda: len(safe.stored) == 300)

    assert flying == 256
    assert [observation.object for observation in safe.begun] == [f"eth{n}" for n in range(300)]


async def test_a_burst_of_two_thousand_traps_loses_none(adapter, safe):
    send(adapter, *(lab.link("down", PE1.address, f"eth{n}", 100 + n, "public") for n in range(2_000)))
    await safe.until(lambda: len(safe.stored) == 2_000)
    health = await adapter.health()

    assert [observation.object for observation in safe.stored] == [f"eth{n}" for n in range(2_000)]
    assert (health["received"], health["decoded"], health["observed"]) == (2_000, 2_000, 2_000)
    assert (health["dropped"], health["queue"]) == ({}, 0)
    assert not health["lostInKernel"]


async def test_a_wrong_community_is_counted_and_never_told(adapter, safe, caplog):
    send(adapter, lab.link("down", PE1.address, "eth3", 3, "swordfish"), lab.link("up", PE1.address, "e", 3, "other"))
    await safe.until(lambda: bool(safe.stored))

    assert (await adapter.health())["dropped"] == {"community": 1}
    assert [observation.kind for observation in safe.stored] == ["clear"]
    assert "swordfish" not in caplog.text


async def test_what_is_no_notification_is_counted_by_its_reason(adapter, safe):
    get = lab.link("down", PE1.address, "e", 3, "public").replace(b"public\xa7", b"public\xa0")
    send(adapter, b"", b"noise", b"\x30\x0a\x02\x01\x03\x04\x05hello", get)
    await counted(adapter, "pdu", 1)

    assert (await adapter.health())["dropped"] == {"malformed": 2, "version": 1, "pdu": 1}
    assert not safe.begun


async def test_a_report_that_fails_otherwise_is_counted_and_holds_up_nothing(safe, tmp_path):
    async def report(observation: Observation) -> None:
        if observation.object == "eth0":
            raise ValueError("a bug")
        await safe.report(observation)

    adapter = create(settings.load(data=tmp_path, trap_port=0), DEVICES)
    [adapter.where] = await adapter.start(report)
    send(adapter, *(lab.link("down", PE1.address, f"eth{n}", n, "public") for n in range(2)))
    await safe.until(lambda: bool(safe.stored))
    await counted(adapter, "error", 1)
    await adapter.stop()

    assert [observation.object for observation in safe.stored] == ["eth1"]


async def test_a_taken_port_is_told_in_one_sentence(adapter):
    host, number = port(adapter)
    second = create(settings.load(trap_port=number), DEVICES)

    with pytest.raises(Misconfigured, match=f"UDP port {number} on {host}.*CONVERGEDON_TRAP_PORT"):
        await second.start(None)
    assert (await second.health())["state"] == "degraded"
    await second.stop()


async def test_stopping_makes_safe_what_was_queued(adapter, safe):
    send(adapter, *(lab.link("down", PE1.address, f"eth{n}", n, "public") for n in range(1_000)))
    await safe.until(lambda: bool(safe.begun))
    await adapter.stop()
    health = await adapter.health()

    assert health["received"] == health["observed"] == len(safe.stored) == 1_000
    assert health["dropped"] == {}


async def test_stopping_while_the_bus_is_away_ends_and_counts_what_is_lost(adapter, safe):
    safe.away = True
    send(adapter, *(lab.link("down", PE1.address, f"eth{n}", n, "public") for n in range(100)))
    await safe.until(lambda: bool(safe.begun))
    async with asyncio.timeout(30):
        await adapter.stop()
    health = await adapter.health()

    assert health["dropped"] == {"stopped": health["received"]}


USER = {"user": "north", "authKey": "north-auth-phrase"}


@pytest.mark.parametrize("inform", [False, True])
async def test_a_device_with_a_user_is_not_believed_by_community(safe, inform, tmp_path):
    """Who knows the community may not speak for it: counted, told once with the reason, and not answered."""
    devices = {
        "pe1": Device("pe1", "globex", "127.0.10.1", {"snmp": USER}),
        "pe2": Device("pe2", "acme", "127.0.10.2", {"snmp": USER | {"acceptCommunity": True}}),
        "pe3": Device("pe3", "acme", "127.0.10.3"),
    }
    adapter = create(settings.load(data=tmp_path, trap_port=0, trap_storm_high=0), devices)
    [adapter.where] = await adapter.start(safe.report)
    send(adapter, *(lab.link("down", one.address, "eth0", 1, "public", inform=inform) for one in devices.values()))
    await counted(adapter, "unsecured", 1)
    await safe.until(lambda: len(safe.stored) == 2)
    adapter.become(create(settings.load(data=tmp_path, trap_port=0, trap_storm_high=0), {"pe1": PE1}))
    send(adapter, lab.link("down", PE1.address, "eth0", 1, "public"))
    await safe.until(lambda: len(safe.stored) == 3)
    health = await adapter.health()
    await adapter.stop()

    assert [one.device for one in safe.stored] == ["pe2", "pe3", "pe1"]
    assert health["dropped"] == {"unsecured": 1}


async def test_a_device_that_is_not_to_be_set_is_left_alone(adapter):
    """Whoever may poll it, or hear it, has not thereby said that it may be changed."""
    outcome = await transaction.perform(adapter, Intent("k", "acme", "pe1", "port", "eth0", {"state": "down"}, 0))

    assert (outcome.status, outcome.reason) == ("refused", "capability")
    assert "pe1 is not to be set over SNMP" in outcome.words
    assert await adapter.capabilities("pe1") == {"notifications"}


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
async def test_an_interface_is_called_after_a_restart_as_before_it(safe, tmp_path, killed):
    """Its next traps say its index alone: its fault is cleared, and the next one told as what its service stands on."""
    given, up = settings.load(data=tmp_path, trap_port=0, trap_storm_high=0), iter(range(100, 900, 100))

    def trap(which: str, name: bool = False) -> bytes:
        told = (("1.3.6.1.2.1.31.1.1.1.1.3", ber.OCTETS, b"ge-0/0/3"),) if name else ()
        head = ((ber.UPTIME, ber.TICKS, next(up)), (ber.TRAP_OID, ber.OID, lab.LINK_TRAPS[which]))
        return ber.encode(b"public", [*head, ("1.3.6.1.2.1.2.2.1.1.3", ber.INTEGER, 3), *told], request=1)

    first = create(given, {"pe9": Device("pe9", "acme", "127.0.0.1")})
    [first.where] = await first.start(safe.report)
    send(first, trap("down", name=True))
    await safe.until(lambda: len(safe.stored) == 1)
    if killed:  # what was learnt a moment ago is on the disk
        async with asyncio.timeout(10):
            while not (tmp_path / "snmp-interfaces.json").exists():
                await asyncio.sleep(0.01)
    else:
        await first.stop()
    second = create(given, {"pe9": Device("pe9", "acme", "127.0.0.1")})
    [second.where] = await second.start(safe.report)
    send(second, trap("up"), trap("down"))
    await safe.until(lambda: len(safe.stored) == 3)
    await second.stop()
    await first.stop()

    assert [(one.kind, one.key) for one in safe.stored] == [
        ("fault", "link:ge-0/0/3"),
        ("clear", "link:ge-0/0/3"),
        ("fault", "link:ge-0/0/3"),
    ]


@pytest.mark.parametrize("kept", [b"", b"[]", b'{"at": 1, "devices": [{"device": 1}]}', b"\xff"])
async def test_names_that_cannot_be_read_are_learnt_anew(safe, tmp_path, kept):
    (tmp_path / "snmp-interfaces.json").write_bytes(kept)
    adapter = create(settings.load(data=tmp_path, trap_port=0), DEVICES)
    [adapter.where] = await adapter.start(safe.report)
    lab.trap_link("down", PE1.address, "eth3", 3, "public", port(adapter))
    await safe.until(lambda: len(safe.stored) == 1)
    await adapter.stop()

    assert safe.stored[0].object == "eth3"
    assert b"eth3" in (tmp_path / "snmp-interfaces.json").read_bytes()
