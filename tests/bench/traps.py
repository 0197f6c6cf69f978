"""Traps into JetStream, counted by sequence number, beside net-snmp's snmptrapd that writes the same to a file.

The adapter has one core; the sender, NATS and snmptrapd have the rest. Both receivers take the same datagrams at the
same rate in each round. What a trap costs is CPU time; how many a core takes follows from it, and a run at that rate
shows whether it is so.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from convergedon.adapters.snmp import ber
from convergedon.core import embedded
from convergedon.core.bus import NatsBus
from tests.bench.rounds import Effort, Result, in_turn, ratios, rounded

RATE, BURST, OVERLOAD = 20_000, 20_000, 3
SOURCES = 500
PACE = 0.002
NUMBER = "1.3.6.1.4.1.32473.1.1.0"
LINK_DOWN = "1.3.6.1.6.3.1.1.5.3"
TICKS = os.sysconf("SC_CLK_TCK")


def trap(number: int) -> bytes:
    """A linkDown of one of 500 devices with five varbinds; the last is its number."""
    source, index = number % SOURCES, number % 48 + 1
    return ber.encode(
        b"public",
        [
            (ber.UPTIME, ber.TICKS, number),
            (ber.TRAP_OID, ber.OID, LINK_DOWN),
            (f"1.3.6.1.2.1.2.2.1.1.{index}", ber.INTEGER, index),
            (ber.TRAP_ADDRESS, ber.IP, f"10.9.{source // 250}.{source % 250 + 1}"),
            (NUMBER, ber.GAUGE, number),
        ],
        request=number + 1,
    )


def send(datagrams: list[bytes], to: tuple[str, int], rate: float = 0) -> float:
    """Send at a rate, or as fast as it goes; returns the rate that it was."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(to)
        begun, sent = perf_counter(), 0
        while sent < len(datagrams):
            due = len(datagrams) if not rate else min(len(datagrams), int((perf_counter() - begun) * rate) + 1)
            for datagram in datagrams[sent:due]:
                sender.send(datagram)
            sent = due
            if rate:
                sleep(PACE)
        return len(datagrams) / (perf_counter() - begun)


class Receiver:
    """The adapter in a process of its own, its NATS server, and what came to be in the stream."""

    def __init__(self, nats: str, folder: Path, storm: int = 0) -> None:
        self._nats, self._folder, self._storm = nats, folder, storm

    async def __aenter__(self) -> Receiver:
        words = (
            self._nats,
            str(self._folder),
            str(self._storm),
            "0",
            *(["profile"] if "TRAPS_PROFILE" in os.environ else []),
        )
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.trapping", *words, stdin=pipe, stdout=pipe
        )
        host, _, port = (await self._line()).rpartition(":")
        self.place = (host, int(port))
        return self

    async def _line(self) -> str:
        assert self.process.stdout
        return (await self.process.stdout.readline()).decode().strip()

    async def health(self) -> Mapping[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(b"health\n")
        return json.loads(await self._line())

    async def quiet(self) -> Mapping[str, Any]:
        """Until all that arrived is stored or dropped."""
        former = -1
        while True:
            found = await self.health()
            if not found["queue"] and not found["inFlight"] and found["received"] == former:
                return found
            former = found["received"]
            await asyncio.sleep(0.1)

    async def __aexit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.told = json.loads(await self._line())
        await self.process.wait()


async def stored(nats: str) -> list[int]:
    """The numbers of all traps in the stream, in its order; then it is emptied."""
    bus = await NatsBus(nats, "count").open()
    found = [
        int(part["observation"]["attributes"]["details"][NUMBER])
        for body in await bus.read("network.>")
        for part in body.get("observations", [body])
        if NUMBER in part["observation"]["attributes"]["details"]
    ]
    await bus._stream.purge_stream("NETWORK")
    await bus.close()
    return found


@contextmanager
def trapd(folder: Path) -> Iterator[tuple[tuple[str, int], Path, int]]:
    """snmptrapd that logs to a file with a 4 MiB buffer: its address, the file and its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        place = free.getsockname()
    log, conf = folder / "log", folder / "conf"
    conf.write_text("authCommunity log public\nserverRecvBuf 4194304\ndisableAuthorization yes\n")
    program = shutil.which("snmptrapd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "snmptrapd is not installed: apt-get install snmptrapd"
    words = [program, "-f", "-Lf", str(log), "-C", "-c", str(conf), "-n", f"udp:127.0.0.1:{place[1]}"]
    own = {"MIBS": "", "SNMP_PERSISTENT_DIR": str(folder)}
    pid = os.posix_spawn(program, words, os.environ | own)
    try:
        for _ in range(100):
            if log.exists() and "NET-SNMP" in log.read_text(errors="replace"):
                break
            sleep(0.05)
        yield place, log, pid
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def logged(log: Path) -> int:
    return log.read_text(errors="replace").count(NUMBER.removeprefix("1.3.6.1."))


async def ours(nats: str, folder: Path, datagrams: list[bytes], rate: float) -> dict[str, Any]:
    async with Receiver(nats, folder) as receiver:
        reached = await asyncio.to_thread(send, datagrams, receiver.place, rate)
        await receiver.quiet()
    numbers = await stored(nats)
    told = receiver.told
    sound = {
        "sent/s": rounded(reached),
        "stored": len(numbers),
        "stored %": 100 * len(set(numbers)) / len(datagrams),
        "us a trap": rounded(1e6 * told["cpu"] / max(1, told["received"])),
    }
    return sound | {"told": told}


async def theirs(folder: Path, datagrams: list[bytes], rate: float) -> dict[str, Any]:
    with trapd(folder) as (place, log, pid):
        before = cpu(pid)
        reached = await asyncio.to_thread(send, datagrams, place, rate)
        former = -1
        while (now := logged(log)) != former:
            former = now
            await asyncio.sleep(0.3)
        used = cpu(pid) - before
    log.unlink()
    return {
        "sent/s": rounded(reached),
        "stored": now,
        "stored %": 100 * now / len(datagrams),
        "us a trap": rounded(1e6 * used / max(1, now)),
    }


async def measure(effort: Effort) -> Result:
    result = Result("Traps of version 2c into JetStream on one core, and into a file by snmptrapd", "one run each")
    datagrams = [trap(number) for number in range(int(RATE * effort.seconds))]
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        (folder / "nats").mkdir()
        with embedded.running(embedded.nats_command(folder / "nats")) as server:
            found: dict[str, list[dict[str, Any]]] = {"adapter": [], "snmptrapd": []}

            async def one() -> float:
                found["adapter"].append(await ours(server.url, folder, datagrams, RATE))
                return float(found["adapter"][-1]["us a trap"])

            async def other() -> float:
                found["snmptrapd"].append(await theirs(folder / "trapd", datagrams, RATE))
                return float(found["snmptrapd"][-1]["us a trap"])

            costs = await in_turn({"adapter": one, "snmptrapd": other}, effort.rounds)
            for name, turns in found.items():
                shown = {key: value for key, value in turns[-1].items() if key != "told"}
                least = min(turn["stored %"] for turn in turns)
                result.figures[f"{name}, {RATE:,}/s"] = shown | {"stored %": least}
                result.figures[f"{name}, {RATE:,}/s"]["us a trap"] = sorted(costs[name])[len(costs[name]) // 2]
            result.ratios = ratios(costs, ("adapter", "snmptrapd"))
            await _burst(server.url, folder, result)
            await _overload(server.url, folder, result, effort, min(costs["adapter"]))
    return result


async def _burst(nats: str, folder: Path, result: Result) -> None:
    """20,000 at line rate."""
    datagrams = [trap(number) for number in range(BURST)]
    for name, turn in (
        ("adapter", await ours(nats, folder, datagrams, 0)),
        ("snmptrapd", await theirs(folder / "trapd", datagrams, 0)),
    ):
        result.figures[f"{name}, burst of {BURST:,}"] = {key: value for key, value in turn.items() if key != "told"}


async def _overload(nats: str, folder: Path, result: Result, effort: Effort, cost: float) -> None:
    """Three times what a core takes: each trap is stored, or counted as lost."""
    rate = OVERLOAD * 1e6 / cost
    datagrams = [trap(number) for number in range(int(rate * effort.seconds))]
    turn = await ours(nats, folder, datagrams, rate)
    told = turn.pop("told")
    result.figures[f"adapter, {OVERLOAD} times as many"] = turn
    dropped = told["dropped"]
    accounted = turn["stored"] + sum(dropped.values())
    named = sum(one["count"] for one in told["losses"])
    result.notes += [
        f"of {len(datagrams):,} sent {turn['stored']:,} are stored, {dropped.get('queue', 0):,} found no room in the "
        f"queue, {dropped.get('kernel', 0):,} none in the kernel: {len(datagrams) - accounted:,} are unaccounted for",
        f"the adapter names {named:,} of them by sender and notification in its first lines; it took {told['mb']} MB",
    ]
