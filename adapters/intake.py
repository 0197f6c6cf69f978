"""From a UDP socket to durable observations: what the SNMP and flow adapters share.

The socket is read in a tight loop into a bounded queue, because the kernel's buffer holds only a few hundred small
datagrams; a task takes them from there, and reports run many at a time, started in the order of arrival. What does not
fit is counted by reason, never lost unseen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple

import structlog

from convergedon.adapters.contract import Observation, Report
from convergedon.core import metrics, trace
from convergedon.core.errors import Misconfigured, Unavailable

RECEIVE_BUFFER = 4 * 1024 * 1024
LARGEST_DATAGRAM = 65_535
QUEUE_BYTES = 64 * 1024 * 1024
# Reads and decodes between two chances for everything else in the process: of 20,000 traps at once none is lost with
# these, 2,900 in the kernel with 1024 and 64
READ_BATCH = 8192
DECODE_BATCH = 32
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
DRAIN_SECONDS = 4.0

log = structlog.get_logger(__name__)


class Datagram(NamedTuple):
    """What arrived, from whom (``address`` as text, ``peer`` to send an answer to) and when (since the epoch)."""

    data: bytes
    address: str
    peer: Any
    time: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation to come: ``observe`` is called inside its trace, ``safe`` once it is stored durably."""

    observe: Callable[[], Observation]
    safe: Callable[[], None] | None = None


Read = Callable[[Datagram], Iterable[Finding] | None]
"""Take a datagram apart; None when it was refused, after counting it with ``Intake.drop``."""


class Intake:
    """A UDP socket of one adapter and the way of its datagrams to ``report``.

    Reports are started in the order of arrival, up to ``flying`` at a time. When one raises Unavailable no new one
    starts; those that failed are tried again one by one, oldest first, with back-off, as long as the adapter runs: the
    queue is what bounds it.
    """

    def __init__(
        self,
        adapter: str,
        span: str,
        host: str,
        port: int,
        setting: str,
        read: Read,
        queue: int = 50_000,
        flying: int = 256,
    ) -> None:
        self._adapter, self._span, self._read = adapter, span, read
        self._host, self._port, self._setting = host, port, setting
        self._limit, self._flying_limit = queue, flying
        self._queue: deque[Datagram] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._flying: dict[asyncio.Task[None], asyncio.Event] = {}
        self._landed = asyncio.Event()
        self._failing = 0
        self._socket: socket.socket | None = None
        self._pump: asyncio.Task[None] | None = None
        self.counts: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._received = metrics.RECEIVED.labels(adapter)
        self._waiting = metrics.QUEUE.labels(adapter)

    async def start(self, report: Report) -> str:
        """Listen; the address is ``host:port``. Raises Misconfigured when the port is taken or is not ours to take."""
        self._report = report
        self._socket = _bind(self._host, self._port, self._setting)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._receive)
        self._pump = self._loop.create_task(self._take(), name=f"{self._adapter} intake")
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return self.address

    async def stop(self) -> None:
        """Read no more, make safe what is queued (four seconds), then close: answers still leave by the same port."""
        if self._socket is None or self._pump is None:
            return
        self._receive()  # what the kernel still holds has arrived
        self._loop.remove_reader(self._socket.fileno())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._queue or self._flying:
                    self._landed.clear()
                    await self._landed.wait()
        left = [self._pump, *self._flying]
        self.drop("stopped", len(self._queue) + len(self._flying))
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self._queue.clear()
        self._bytes = 0
        self._waiting.set(0)
        self._socket.close()
        self._socket = self._pump = None

    def drop(self, reason: str, count: int = 1) -> None:
        """Count what is not taken further."""
        if count:
            self.dropped[reason] += count
            metrics.DROPPED.labels(self._adapter, reason).inc(count)

    def send(self, data: bytes, peer: Any) -> None:
        """Answer from the port that was asked. A full buffer or an unreachable peer is the sender's to retry."""
        if self._socket is not None:
            try:
                self._socket.sendto(data, peer)
            except OSError:
                self.drop("answer")

    def health(self) -> Mapping[str, Any]:
        """Figures for /readyz; degraded while it does not listen or nothing can be made safe."""
        self._waiting.set(len(self._queue))
        return {
            "state": "degraded" if self._socket is None or self._failing else "ready",
            "received": self.counts["received"],
            "decoded": self.counts["decoded"],
            "observed": self.counts["observed"],
            "dropped": dict(self.dropped),
            "lostInKernel": _lost_in_kernel(self._socket),
            "queue": len(self._queue),
            "inFlight": len(self._flying),
        }

    def _receive(self) -> None:
        assert self._socket is not None
        now, received = time.time(), 0
        queue, receive = self._queue, self._socket.recvfrom
        for _ in range(READ_BATCH):
            try:
                data, peer = receive(LARGEST_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # an ICMP error that an earlier answer caused: the socket is well
            received += 1
            if len(queue) >= self._limit or self._bytes + len(data) > QUEUE_BYTES:
                self.drop("queue")
                continue
            self._bytes += len(data)
            queue.append(Datagram(data, address(peer[0]), peer, now))
        self.counts["received"] += received
        self._received.inc(received)
        self._arrived.set()

    async def _take(self) -> None:
        trace.leave()  # whoever started us may be in a trace; each datagram begins its own
        while True:
            if not self._queue:
                self._arrived.clear()
                self._waiting.set(0)
                await self._arrived.wait()
            for _ in range(min(DECODE_BATCH, len(self._queue))):
                for finding in self._findings(self._queue[0]):
                    await self._room()
                    self._launch(finding)
                # Only now: what is neither queued nor in flight is lost when we are stopped
                self._bytes -= len(self._queue.popleft().data)
            self._waiting.set(len(self._queue))
            self._landed.set()
            await asyncio.sleep(0)

    def _findings(self, datagram: Datagram) -> Iterable[Finding]:
        try:
            findings = self._read(datagram)
        except Exception:
            log.exception("datagram not understood", adapter=self._adapter, source=datagram.address)
            self.drop("error")
            return ()
        if findings is None:
            return ()
        self.counts["decoded"] += 1
        return findings

    async def _room(self) -> None:
        while len(self._flying) >= self._flying_limit or self._failing:
            self._landed.clear()
            await self._landed.wait()

    def _launch(self, finding: Finding) -> None:
        task = self._loop.create_task(self._deliver(finding))
        self._flying[task] = asyncio.Event()
        task.add_done_callback(self._land)

    def _land(self, task: asyncio.Task[None]) -> None:
        del self._flying[task]
        if self._failing and self._flying:
            next(iter(self._flying.values())).set()
        self._landed.set()

    async def _deliver(self, finding: Finding) -> None:
        """Report one finding; a finished call means that it is safe, or counted as dropped."""
        try:
            with trace.span(self._span):
                observation = finding.observe()
                await self._make_safe(observation)
                self.counts["observed"] += 1
                metrics.OBSERVED.labels(self._adapter, observation.kind).inc()
                if finding.safe is not None:
                    finding.safe()
        except Exception:
            log.exception("observation not reported", adapter=self._adapter)
            self.drop("error")

    async def _make_safe(self, observation: Observation) -> None:
        if not self._failing:
            try:
                return await self._report(observation)
            except Unavailable as error:
                if not self._failing:
                    log.warning("observations wait", adapter=self._adapter, reason=str(error))
        self._failing += 1
        try:
            await self._make_safe_in_turn(observation)
        finally:
            self._failing -= 1

    async def _make_safe_in_turn(self, observation: Observation) -> None:
        """Try again once all that arrived earlier is settled.

        The bus answers in order, so what failed is the tail of what was in flight: from the oldest on, the order holds.
        """
        task = asyncio.current_task()
        assert task is not None
        if next(iter(self._flying)) is not task:
            await self._flying[task].wait()
        delay = FIRST_DELAY
        while True:
            try:
                return await self._report(observation)
            except Unavailable:
                await asyncio.sleep(delay * random.uniform(0.5, 1))
                delay = min(2 * delay, LONGEST_DELAY)


def _bind(host: str, port: int, setting: str) -> socket.socket:
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        bound = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise Misconfigured(f"{setting}_HOST {host} is no address to listen on: {error.strerror}") from error
    try:
        bound.setblocking(False)
        # A wish: the kernel gives what net.core.rmem_max allows (a 122-byte trap takes 768 bytes of it)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        bound.bind(where)
    except OSError as error:
        bound.close()
        raise Misconfigured(
            f"UDP port {port} on {host} cannot be listened on ({error.strerror}): "
            f"free it or set {setting}_PORT and {setting}_HOST otherwise"
        ) from error
    return bound


def address(host: str) -> str:
    """One spelling for each sender: a socket for both families shows IPv4 senders as ::ffff:192.0.2.1."""
    if ":" not in host:
        return host
    found = ip_address(host)
    return str(found.ipv4_mapped or found) if isinstance(found, IPv6Address) else host


def _lost_in_kernel(bound: socket.socket | None) -> int | None:
    """Datagrams that the socket's buffer had no room for, where the kernel tells (Linux); else None."""
    if bound is None:
        return None
    inode = str(os.fstat(bound.fileno()).st_ino)
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        with contextlib.suppress(OSError), open(table) as lines:
            for line in lines:
                fields = line.split()
                if len(fields) > 12 and fields[9] == inode:
                    return int(fields[12])
    return None
