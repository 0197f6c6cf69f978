"""From an exporter's datagrams to usage, beside the decoder alone and nfcapd: records for each second of one core.

The stages one after the other, each by its CPU time: what netflume decodes alone; what the adapter makes of it; the
whole way over a real NATS server, into rows, intervals and usages (records in memory, so that it is our own time).
Then live, at a steady rate: a sender, and all of the gateway's way in one process, on one core; in the same round
nfcapd takes the same datagrams. What the servers beside use is told by itself.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter, process_time, time
from typing import Any

from netflume import Decoder

from convergedon.adapters.contract import Device
from convergedon.adapters.flow import lab
from convergedon.adapters.flow.adapter import FlowAdapter
from convergedon.adapters.intake import Datagram
from convergedon.adapters.role import AdapterRole
from convergedon.core import audit, embedded, policy, seals, settings
from convergedon.core.audit import Audit
from convergedon.core.bus import NatsBus
from convergedon.core.memory import MemoryStore
from convergedon.core.policy import Embedded, Policy
from convergedon.core.store import Kind, Outgoing, Record, Where
from convergedon.handlers.apis import APIS, KINDS
from convergedon.handlers.resource import Resources
from convergedon.mediation import intervals, planning, rating
from convergedon.mediation.work import Work
from convergedon.mediation.worker import Worker
from tests.bench.rounds import Effort, Result, rounded

CUSTOMERS = 2_000
RECORDS_EACH = 24
RATE = 20_000
VERSIONS: Mapping[str, Any] = {"NetFlow 9": 9, "IPFIX": 10}
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
SENDER = """
import socket, sys, time
data = open(sys.argv[1], "rb").read()
host, port, pause = sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
found, at = [], 0
while at < len(data):
    size = int.from_bytes(data[at:at + 2], "big"); found.append(data[at + 2:at + 2 + size]); at += 2 + size
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
begun = time.perf_counter()
for number, datagram in enumerate(found):
    wait = begun + number * pause - time.perf_counter()
    if wait > 0.002: time.sleep(wait)
    sender.sendto(datagram, (host, port))
print(time.perf_counter() - begun)
"""


def datagrams(count: int, kind: Any, seed: int = 0) -> list[bytes]:
    """So many records of our customers' traffic with half a million others, that ended within the last seconds."""
    chance, now = Random(seed), time()
    records = []
    for _ in range(count):
        ours = f"10.{chance.randrange(CUSTOMERS) >> 8}.{chance.randrange(CUSTOMERS) & 255}.1"
        theirs = f"198.{18 + chance.randrange(2)}.{chance.randrange(256)}.{chance.randrange(256)}"
        source, destination = (ours, theirs) if chance.random() < 0.3 else (theirs, ours)
        end = now - chance.random() * 2
        ends = {"source": source, "destination": destination, "start": end - 1, "end": end}
        records.append({**ends, "octets": chance.randrange(1 << 20), "packets": 1 + chance.randrange(1000)})
    return lab.datagrams(kind, records)


def addresses() -> list[str]:
    return sorted({f"10.{n >> 8}.{m & 255}.1" for n in range(0, CUSTOMERS, 256) for m in range(256)})


class Looked(MemoryStore):
    """Finds services by their addresses as a store with an index does; and counts what usage was made of."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        super().__init__(kinds)
        self.by_address: dict[str, Record] = {}
        self.counted = 0

    async def find(self, kind: str, where: Where, *rest: Any, **more: Any) -> list[Record]:
        wanted = where.get("facts.addresses")
        if kind == "service" and wanted:
            return [self.by_address[address] for address in wanted["$in"] if address in self.by_address]
        return await super().find(kind, where, *rest, **more)

    async def create(self, record: Record, messages: Sequence[Outgoing] = ()) -> Record:
        if record.kind == "usage":
            said = record.body["usageCharacteristic"]
            self.counted += sum(one["value"] for one in said if one["name"] == "records")
        return await super().create(record, messages)


@dataclass
class Way:
    """All of the gateway's way from the socket to usage, in this process."""

    adapter: FlowAdapter
    role: AdapterRole
    work: Work
    worker: Worker
    store: Looked
    server: int


@asynccontextmanager
async def way() -> AsyncIterator[Way]:
    kinds = [*KINDS, audit.KIND]
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "nats").mkdir()
        given, store = settings.load(data=folder, flow_port=0), Looked(kinds)
        for n, address in enumerate(addresses()):
            facts = {"addresses": [address], "customers": [f"customer-{n}"], "order": ""}
            body = {"name": "x", "state": "active"}
            store.by_address[address] = Record("service", f"service-{n}", "acme", body, facts)
        with embedded.running(embedded.nats_command(folder / "nats")) as server:
            bus = await NatsBus(server.url, "bench").open()
            writer, rules = Audit(store, bus, "bench"), Policy(Embedded(policy.read()))
            rule = intervals.Metering(usageTypes={intervals.IP_TRAFFIC: intervals.Rule(interval=5, grace=1)})
            work = Work(Resources(store, APIS, "http://x"), bus, rules, writer, planning.load(), rating.load(), given,
                        seals.seals(given), metering=rule)  # fmt: skip
            devices = {"pe1": Device("pe1", "acme", "127.0.0.1")}
            adapter = FlowAdapter(given, devices)
            role = AdapterRole(adapter, bus, devices, rules, work.seals, writer)
            worker = Worker(work)
            await writer.start()
            try:
                yield Way(adapter, role, work, worker, store, server.pid)
            finally:
                await writer.stop()
                await bus.close()


async def measure(effort: Effort) -> Result:
    result = Result("flow records into usage", "records for each second of one core")
    count = int(RATE * effort.seconds)
    stages: dict[str, list[float]] = {}
    made = {version: datagrams(count, kind) for version, kind in VERSIONS.items()}
    for _ in range(effort.rounds):
        for version, found in made.items():
            for name, spent in ((f"{version}: decoder alone", _decoded), (f"{version}: as observations", _observed)):
                stages.setdefault(name, []).append(count / spent(found))
    result.figures = {name: {"records/s": rounded(statistics.median(rates))} for name, rates in stages.items()}
    live: dict[str, list[dict[str, float]]] = {}
    for _ in range(effort.rounds):
        live.setdefault("ours, live", []).append(await _live(made["NetFlow 9"], count))
        if shutil.which("nfcapd", path=PATH):
            live.setdefault("nfcapd, live", []).append(await asyncio.to_thread(_nfcapd, made["NetFlow 9"], count))
    for name, rounds in live.items():
        result.figures[name] = {key: rounded(statistics.median(one[key] for one in rounds)) for key in rounds[0]}
    if "nfcapd, live" in live:
        pairs = zip(live["ours, live"], live["nfcapd, live"], strict=True)
        result.ratios["CPU time of ours / of nfcapd, for a record"] = rounded(
            statistics.median(theirs["records/s"] / ours["records/s"] for ours, theirs in pairs)
        )
    alone = statistics.median(stages["NetFlow 9: decoder alone"])
    whole = statistics.median(one["records/s"] for one in live["ours, live"])
    result.ratios["CPU time of ours, live / of the decoder alone"] = rounded(alone / whole)
    lost = sum(one["sent"] - one["counted"] for one in live["ours, live"])
    result.notes += [
        f"live: {RATE:,} records/s of NetFlow 9 for {effort.seconds:g} s, {CUSTOMERS:,} customers, one process for"
        f" adapter and worker, NATS beside it; {lost:g} records lost or counted twice in {effort.rounds} rounds",
        "records are kept in memory: a store's own time is not in it; nor is what comes after: guiding and rating",
        f"load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
    ]
    return result


def _spent(work: Callable[[], object]) -> float:
    begun = process_time()
    work()
    return process_time() - begun


def _decoded(found: Sequence[bytes]) -> float:
    decoder = Decoder(track_sequence=False)
    return _spent(lambda: [decoder.decode(datagram, "127.0.0.1") for datagram in found])


def _observed(found: Sequence[bytes]) -> float:
    adapter = FlowAdapter(settings.load(flow_port=0), {})
    taken = [Datagram(datagram, "127.0.0.1", None, time()) for datagram in found]
    return _spent(lambda: [each.observe() for one in taken for each in adapter._read(one) or ()])


async def _live(found: Sequence[bytes], count: int) -> dict[str, float]:
    async with way() as all_of_it:
        where = await all_of_it.role.start()
        await all_of_it.worker.start()
        server = _cpu(all_of_it.server)
        begun, cpu = perf_counter(), process_time()
        took = await asyncio.to_thread(_send, found, where)
        until = perf_counter() + 60
        while all_of_it.store.counted < count and perf_counter() < until:
            await asyncio.sleep(0.1)
        spent, wall = process_time() - cpu, perf_counter() - begun
        beside = max(_cpu(all_of_it.server) - server, 0.01)
        health = await all_of_it.adapter.health()
        await all_of_it.worker.stop()
        await all_of_it.role.stop()
    assert health["dropped"] == {}, health
    return {
        "records/s": count / spent,
        "sent": count,
        "counted": all_of_it.store.counted,
        "sent within s": took,
        "all usage after s": wall,
        "CPU s": spent,
        "NATS CPU s": beside,
    }


def _nfcapd(found: Sequence[bytes], count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-") as name:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            shutil.which("nfcapd", path=PATH) or "",
            "-p",
            str(port),
            "-b",
            "127.0.0.1",
            "-w",
            name,
            "-t",
            "3600",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = perf_counter() + 10
            while f"0100007F:{port:04X}" not in Path("/proc/net/udp").read_text() and perf_counter() < until:
                pass
            before = _cpu(process.pid)
            took = _send(found, f"127.0.0.1:{port}")
            spent = max(_cpu(process.pid) - before, 0.01)  # it is told in hundredths
        finally:
            process.terminate()
            process.wait(10)
        dump = [shutil.which("nfdump", path=PATH) or "", "-R", name, "-q", "-N", "-a", "-A", "proto", "-o", "fmt:%fl"]
        told = subprocess.run(dump, capture_output=True, text=True)
    counted = sum(int(line) for line in told.stdout.split())
    return {"records/s": count / spent, "sent": count, "counted": counted, "sent within s": took,
            "CPU s": spent}  # fmt: skip


def _send(found: Sequence[bytes], where: str) -> float:
    """Send from a process of its own, on the beat; how long it took."""
    host, _, port = where.rpartition(":")
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(len(one).to_bytes(2, "big") + one for one in found))
        file.flush()
        command = [sys.executable, "-c", SENDER, file.name, host, port, str(RECORDS_EACH / RATE)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _cpu(pid: int) -> float:
    """CPU seconds of another process, in hundredths."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
