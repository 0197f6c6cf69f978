"""softflowd exports what it saw in a capture; every flow, octet and packet of it arrives."""

import asyncio
import struct
import time
from ipaddress import ip_address

import pytest
from peers import peer

from convergedon.adapters.contract import Device
from convergedon.adapters.flow import create
from convergedon.core import settings

pytestmark = pytest.mark.live

FLOWS, PACKETS = 2_000, 3
SOURCE, DESTINATION = ip_address("10.1.0.0"), ip_address("192.0.2.10")


def packet(flow: int, payload: int) -> bytes:
    """An Ethernet frame with a UDP datagram over IPv4; each flow has a source of its own."""
    size = 28 + payload
    ip = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0, 64, 17, 0) + (SOURCE + flow).packed + DESTINATION.packed
    return bytes(12) + b"\x08\x00" + ip + struct.pack("!HHHH", 1024, 53, 8 + payload, 0) + bytes(payload)


@pytest.fixture
def capture(tmp_path):
    """A capture file of two seconds, and the octets in it: softflowd counts the lengths of the IP packets."""
    file, octets, began = tmp_path / "flows.pcap", 0, int(time.time()) - 60
    with file.open("wb") as pcap:
        pcap.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for n in range(FLOWS * PACKETS):
            frame = packet(n % FLOWS, 20 + n % 700)
            second, part = divmod(2 * n, FLOWS * PACKETS)
            pcap.write(struct.pack("<IIII", began + second, 1_000_000 * part // (FLOWS * PACKETS), *2 * (len(frame),)))
            pcap.write(frame)
            octets += len(frame) - 14
    return file, octets, began


@pytest.mark.parametrize("version", ["5", "9", "10"])
async def test_what_softflowd_saw_arrives_whole(tmp_path, capture, version):
    softflowd = peer("softflowd")
    file, octets, began = capture
    found, complete = [], asyncio.Event()

    async def report(observation):
        found.append(observation)
        if sum(len(one.attributes["records"]) for one in found) >= FLOWS:
            complete.set()

    adapter = create(settings.load(flow_port=0), {"pe1": Device("pe1", "globex", "127.0.0.1")})
    [where] = await adapter.start(report)
    # none: with a control socket it sometimes waits for ever for a caller before it reads the file
    places = ("-p", str(tmp_path / "pid"), "-c", "none")
    process = await asyncio.create_subprocess_exec(
        softflowd, "-d", "-r", str(file), "-v", version, "-n", where, "-m", "100000", *places,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await asyncio.wait_for(complete.wait(), 30)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await adapter.stop()
    records = [record for observation in found for record in observation.attributes["records"]]

    assert len(records) == FLOWS
    assert {one.device for one in found} == {"pe1"}
    assert sum(record["octets"] for record in records) == octets
    assert sum(record["packets"] for record in records) == FLOWS * PACKETS
    assert {record["source"] for record in records} == {str(SOURCE + n) for n in range(FLOWS)}
    # It read the capture later than it was taken: boot-relative times wrap below zero, and version 10 puts the boot
    # into an option record
    assert all(began - 2 <= record["start"] < record["end"] <= began + 4 for record in records)
    assert len({one.id for one in found}) == len(found)
    assert (await adapter.health())["dropped"] == {}
