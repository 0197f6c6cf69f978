"""The three lines against a real network: yuma123's netconfd, net-snmp's senders and softflowd, without a lab.

What the gateway says is held against others: an ncclient session of the test's own, the customers' listener, nfdump.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from importlib.resources import files
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import netconfd
import pytest
import pytest_asyncio
import yaml
from lxml import etree
from peers import peers

from convergedon.core import settings, up
from convergedon.core.commands.system import adapter_names
from convergedon.demo import past
from convergedon.demo.stage import (
    BASES,
    BILLING,
    CONTOSO,
    MEDIATION,
    NOC,
    NORTHWIND,
    NOTICES,
    VENDOR,
    Caller,
    Gateway,
    Heard,
    Listener,
)

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

PORT = "ge-0/0/1"
VLANS = count(1000)
"""One for each test: its address tells its traffic from that of others."""

LINK_DOWN, LINK_UP = "1.3.6.1.6.3.1.1.5.3", "1.3.6.1.6.3.1.1.5.4"
PER = 1000
PRICES = {"download": Decimal("0.08"), "upload": Decimal("0.04")}
TAX = Decimal("0.19")
TARIFF = {
    "currency": "EUR",
    "places": 2,
    "tax": str(TAX),
    "charges": {
        "ip-traffic": [
            {"name": "download", "characteristic": "octetsDown", "per": PER, "price": str(PRICES["download"])},
            {"name": "upload", "characteristic": "octetsUp", "per": PER, "price": str(PRICES["upload"])},
        ]
    },
}
"""The one that ships counts in gigabytes: a capture that is quickly written would cost nothing."""


@dataclass(frozen=True)
class Place:
    """A system without a lab, whose only device is netconfd, and the ears of two customers."""

    gateway: Gateway
    listener: Listener
    netconf: dict[str, Any]
    trap: str
    flow: str

    async def order(self, item: dict[str, Any], who: Caller = NORTHWIND, trace: str = "") -> dict[str, Any]:
        """An order when it has come to its end."""
        body = {"relatedParty": [who.related], "productOrderItem": [{"id": "1", **item}]}
        return await self.ended(VENDOR, "productOrder", body, ("acknowledged", "inProgress"), trace)

    async def ended(
        self, who: Caller, kind: str, body: dict[str, Any], under_way: tuple[str, ...], trace: str = ""
    ) -> dict[str, Any]:
        answer = await self.gateway.ask(who, "POST", f"{BASES[kind]}/{kind}", body, trace)
        assert answer.status_code == 201, answer.text

        found: dict[str, Any] = {}

        async def over() -> bool:
            found.update(await self.gateway.get(who, kind, answer.json()["id"]))
            return found["state"] not in under_way

        assert await eventually(over, 60), f"{found} after a minute"
        return found

    async def told(self, who: Caller, type_: str, about: str) -> list[Heard]:
        """What a customer was told of something, once there is any of it."""

        async def heard() -> list[Heard]:
            return self.listener.told(who, type_, about)

        return await eventually(heard)

    async def running(self) -> tuple[dict[str, dict[str, str]], bytes]:
        """The accesses that netconfd holds, and its whole configuration, read by somebody else."""
        return await asyncio.to_thread(read, self.netconf)


def read(at: dict[str, Any]) -> tuple[dict[str, dict[str, str]], bytes]:
    with past.session(at) as session:
        config = session.get_config("running").data_ele
    return past.accesses(config), etree.tostring(config, method="c14n")


async def eventually(ask: Callable[[], Awaitable[Any]], patience: float = 30) -> Any:
    """Ask until there is an answer. What is still empty at the end is for the test to judge."""
    end = time.monotonic() + patience
    while not (answer := await ask()) and time.monotonic() < end:
        await asyncio.sleep(0.05)
    return answer


def access(vlan: int, bandwidth: int = 200) -> dict[str, Any]:
    given = {"bandwidth": bandwidth, "vlan": vlan, "site": "berlin-1"}
    product = {"productCharacteristic": [{"name": name, "value": value} for name, value in given.items()]}
    return {"action": "add", "productOffering": {"id": "internet-access"}, "product": product}


def product(order: dict[str, Any]) -> str:
    return str(order["productOrderItem"][0]["product"]["id"])


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with netconfd.running(tmp_path_factory.mktemp("netconfd")) as reach:
        yield reach


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory, device: dict[str, Any]) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("system")
    written: dict[str, Any] = {
        "devices.yaml": {
            "devices": {
                "pe1": {
                    "tenant": "acme",
                    "address": "127.0.0.1",
                    "netconf": device,
                    "snmp": {"interfaces": {1: PORT, 2: "ge-0/0/2"}},
                }
            }
        },
        "netconf.yaml": without_verify(),
        "tariff.yaml": TARIFF,
        "metering.yaml": {"usageTypes": {"ip-traffic": {"interval": 2, "grace": 2}}},
    }
    for name, content in written.items():
        (folder / name).write_text(yaml.safe_dump(content))
    given = settings.load(
        data=folder / "data",
        port=0,
        trap_port=0,
        flow_port=0,
        devices=folder / "devices.yaml",
        mappings=folder,
        tariff=folder / "tariff.yaml",
        metering=folder / "metering.yaml",
    )
    with Listener().open() as listener:
        async with (
            up.system(given, adapters=adapter_names()) as system,
            httpx.AsyncClient(base_url=system.connection.gateway, timeout=20, trust_env=False) as client,
        ):
            gateway, found = Gateway(client, given), system.connection
            for who in (NORTHWIND, CONTOSO):
                answer = await gateway.ask(who, "POST", f"{NOTICES}/hub", {"callback": f"{listener.url}/{who.name}"})
                assert answer.status_code == 201, answer.text
            yield Place(gateway, listener, device, found.trap, found.flow)


def without_verify() -> dict[str, Any]:
    """The mapping that ships, less the operational leaves: netconfd has no instrumentation for our module."""
    shipped = yaml.safe_load((files("convergedon.adapters.netconf") / "mapping.yaml").read_text())
    for service in shipped["services"].values():
        service.pop("verify")
    return shipped


@dataclass(frozen=True)
class Service:
    id: str
    order: str
    address: str


@pytest_asyncio.fixture(loop_scope="module")
async def service(place: Place) -> AsyncIterator[Service]:
    """A service that northwind ordered; it is ended by an order, as it began."""
    vlan = next(VLANS)
    order = await place.order(access(vlan))
    assert order["state"] == "completed", order
    yield Service(product(order), order["id"], f"10.1.{vlan // 256}.{vlan % 256}")
    ended = await place.order({"action": "delete", "product": {"id": product(order)}})
    assert ended["state"] == "completed", ended


# --- the order line


async def test_an_order_is_completed_when_netconfd_holds_it(place: Place) -> None:
    """From the call to the device to the customer, in one trace; and an order takes it away again."""
    trace = secrets.token_hex(16)
    order = await place.order(access(100), trace=trace)
    held, _ = await place.running()
    told = await place.told(NORTHWIND, "orderCompleted", order["id"])
    ended = await place.order({"action": "delete", "product": {"id": product(order)}})
    left, _ = await place.running()
    told_of_end = await place.told(NORTHWIND, "orderCompleted", ended["id"])

    assert [order["state"], ended["state"]] == ["completed", "completed"], [order, ended]
    wanted = {"interface": PORT, "vlan-id": "100", "bandwidth": "200", "address": "10.1.0.100"}
    assert held[product(order)] == {"name": product(order), **wanted}
    assert product(order) not in left
    assert [one.trace for one in told] == [trace]
    assert len(told_of_end) == 1


async def test_an_order_that_netconfd_refuses_fails_with_its_words(place: Place, service: Service) -> None:
    """A VLAN that is taken: nothing of the order is left on the device, and only who ordered hears of it."""
    before, whole = await place.running()
    order = await place.order(access(int(before[service.id]["vlan-id"])), CONTOSO)
    told = await place.told(CONTOSO, "orderFailed", order["id"])
    _, after = await place.running()

    assert order["state"] == "failed"
    words = " ".join(note["text"] for note in order["note"])
    assert "pe1" in words
    assert "unique" in words
    assert after == whole
    assert len(told) == 1
    assert "unique" in told[0].body["text"]
    assert place.listener.told(NORTHWIND, "orderFailed", order["id"]) == []


# --- the fault line


async def send(program: str, *words: str, folder: Path) -> None:
    """Run a sender of net-snmp with no MIBs; an inform that is not answered makes it fail."""
    own = {"MIBS": "", "SNMP_PERSISTENT_DIR": str(folder), "SNMPCONFPATH": str(folder)}
    process = await asyncio.create_subprocess_exec(
        peers("snmptrap", "snmpinform")[program], *words, env=os.environ | own, stderr=asyncio.subprocess.PIPE
    )
    _, told = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, told.decode()


async def test_a_link_goes_down_and_comes_up(place: Place, service: Service, tmp_path: Path) -> None:
    """Two traps are one alarm and one message to the customer; the inform of linkUp clears it and tells again."""
    port = ("1.3.6.1.2.1.2.2.1.1.1", "i", "1", "1.3.6.1.2.1.2.2.1.8.1", "i")
    about = {"alarmedObject.id": f"pe1/{PORT}", "specificProblem": "linkDown"}
    version_2 = ("-v", "2c", "-c", "public", place.trap, "")
    version_1 = ("-v", "1", "-c", "public", place.trap, "1.3.6.1.4.1.4711", "127.0.0.1", "2", "0", "100")

    async def alarms(end: str) -> list[dict[str, Any]]:
        found = await place.gateway.list(NOC, "alarm", **about)
        return [one for one in found if one["state"] == end or one["alarmDetails"].endswith(end)]

    await send("snmptrap", *version_2, LINK_DOWN, *port, "2", folder=tmp_path)
    affected = await place.told(NORTHWIND, "serviceAffected", service.id)
    await send("snmptrap", *version_1, *port, "2", folder=tmp_path)
    [alarm] = await eventually(lambda: alarms("seen 2 times"))
    await send("snmpinform", "-r", "5", "-t", "2", *version_2, LINK_UP, *port, "1", folder=tmp_path)
    restored = await place.told(NORTHWIND, "serviceRestored", service.id)
    [cleared] = await eventually(lambda: alarms("cleared"))
    affected_once = place.listener.told(NORTHWIND, "serviceAffected", service.id)

    assert alarm["id"] == cleared["id"]
    assert [one["id"] for one in alarm["affectedService"]] == [service.id]
    assert cleared["clearSystemId"] == "pe1"
    assert len(affected) == len(affected_once) == len(restored) == 1
    assert alarm["id"] in affected[0].about
    assert service.order in affected[0].about
    assert len(await place.gateway.list(NOC, "alarm", **about)) == 1
    assert [one for one in place.listener.of(CONTOSO) if alarm["id"] in one.about] == []


# --- the usage line

STRANGER = "192.0.2.10"


def capture(file: Path, address: str) -> dict[str, int]:
    """A capture of two seconds in 120 flows to and from an address; the octets of IP in it, each way."""
    octets, began = {"octetsDown": 0, "octetsUp": 0}, int(time.time()) - 60
    with file.open("wb") as pcap:
        pcap.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number in range(600):
            down = number % 3
            ends, size = ((STRANGER, address), 1000 + number % 300) if down else ((address, STRANGER), 100)
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 28 + size, 0, 0, 64, 17, 0)
            udp = struct.pack("!HHHH", 1024 + number % 60, 53, 8 + size, 0)
            frame = bytes(12) + b"\x08\x00" + ip + b"".join(ip_address(end).packed for end in ends) + udp + bytes(size)
            at = (began + number // 300, number % 300 * 1000)
            pcap.write(struct.pack("<IIII", *at, len(frame), len(frame)) + frame)
            octets["octetsDown" if down else "octetsUp"] += 28 + size
    return octets


@contextmanager
def collecting(folder: Path) -> Iterator[str]:
    """Run nfcapd; the address that it listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [peers("nfcapd")["nfcapd"], "-p", str(port), "-b", "127.0.0.1", "-w", str(folder), "-t", "3600"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while f"0100007F:{port:04X}" not in Path("/proc/net/udp").read_text():
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError("nfcapd did not start")
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()  # it writes what it has
        process.wait(10)


def counted(folder: Path, address: str) -> dict[str, int]:
    """What nfdump finds in it, to an address and from it."""
    words = ("-q", "-N", "-a", "-A", "srcip,dstip", "-o", "fmt:%sa %da %pkt %byt")
    told = subprocess.run([peers("nfdump")["nfdump"], "-R", str(folder), *words], capture_output=True, text=True)
    totals: dict[str, int] = {}
    for source, _, packets, octets in (line.split() for line in told.stdout.splitlines()):
        way = "Up" if source == address else "Down"
        totals |= {f"octets{way}": int(octets), f"packets{way}": int(packets)}
    return totals


@pytest.mark.parametrize("version", ["5", "9", "10"])
async def test_traffic_becomes_a_bill(place: Place, service: Service, tmp_path: Path, version: str) -> None:
    """What softflowd exports is counted as nfdump counts it, and the bill is what that costs to the cent."""
    softflowd = peers("softflowd", "nfcapd", "nfdump")["softflowd"]
    collected = tmp_path / "collected"
    collected.mkdir()
    sent = capture(tmp_path / "traffic.pcap", service.address)
    mine = {"description": f"IP traffic of {service.address}"}

    async def rated() -> list[dict[str, Any]]:
        found = await place.gateway.list(MEDIATION, "usage", **mine)
        whole = all(sum_of(found)[way] >= octets for way, octets in sent.items())
        return list(found) if whole and all(one["status"] == "rated" for one in found) else []

    with collecting(collected) as oracle:
        replay = ("-r", str(tmp_path / "traffic.pcap"), "-v", version, "-n", f"{place.flow},{oracle}", "-m", "100000")
        # none: with a control socket it sometimes waits for ever for a caller before it reads the file
        process = await asyncio.create_subprocess_exec(
            softflowd, "-d", *replay, "-p", str(tmp_path / "pid"), "-c", "none",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await asyncio.wait_for(process.wait(), 30) == 0
        usages = await eventually(rated)
    theirs = await asyncio.to_thread(counted, collected, service.address)
    asked = {"name": f"live-{version}", "relatedParty": NORTHWIND.related}
    done = await place.ended(BILLING, "customerBillOnDemand", asked, ("inProgress",))
    bill = await place.gateway.get(NORTHWIND, "customerBill", done["customerBill"]["id"])
    lines = await place.gateway.list(BILLING, "appliedCustomerBillingRate", **{"bill.id": bill["id"]})

    assert {name: theirs[name] for name in sent} == sent
    assert sum_of(usages) == theirs
    assert {one["id"] for one in usages[0]["relatedParty"]} == {"northwind"}
    used = {line["name"]: amounts(line) for line in lines if line["type"] == "usage"}
    assert used == {name: reckoned(theirs[of], PRICES[name]) for name, of in OCTETS.items()}
    assert amounts(bill) == tuple(map(sum, zip(*map(amounts, lines), strict=True)))


OCTETS = {"download": "octetsDown", "upload": "octetsUp"}


def sum_of(usages: list[dict[str, Any]]) -> dict[str, int]:
    totals = dict.fromkeys(("octetsDown", "octetsUp", "packetsDown", "packetsUp"), 0)
    for usage in usages:
        for characteristic in usage["usageCharacteristic"]:
            if characteristic["name"] in totals:
                totals[characteristic["name"]] += characteristic["value"]
    return totals


def amounts(billed: dict[str, Any]) -> tuple[Decimal, Decimal]:
    """Without tax and with it."""
    return billed["taxExcludedAmount"]["value"], billed["taxIncludedAmount"]["value"]


def reckoned(octets: int, price: Decimal) -> tuple[Decimal, Decimal]:
    cent = Decimal("0.01")
    net = (octets * price / PER).quantize(cent, ROUND_HALF_UP)
    return net, net + (net * TAX).quantize(cent, ROUND_HALF_UP)
