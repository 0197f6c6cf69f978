"""From a UDP socket to durable observations: what the SNMP and flow adapters share.

The socket is read in a tight loop into a bounded queue, because the kernel's buffer holds only some thousand small
datagrams; a task takes them from there in batches, which run several at a time, started in the order of arrival. What
does not fit is counted by reason, by sender and by what it was, never lost unseen.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple, Protocol

import structlog

from convergedon.adapters.contract import Observation, Report
from convergedon.core import metrics, trace
from convergedon.core.errors import Misconfigured, Unavailable
from convergedon.core.tasks import end

RECEIVE_BUFFER = 4 * 1024 * 1024
LARGEST_DATAGRAM = 65_535
QUEUE_BYTES = 64 * 1024 * 1024
# Datagrams read at once while the queue has room for them: a burst of 20,000 is more than the kernel's buffer takes.
# Once it is half full, reading more takes time from what would empty it; with these three times as many as are taken
# are still read, and named where they are lost
READ_BATCH, READ_BATCH_WHEN_FULL = 8192, 2048
# Observations made between two chances for everything else in the process: with twice as many a burst of 20,000 found
# the kernel's buffer full, which nobody empties meanwhile
OBSERVE_BATCH = 256
# Observations that may wait for their acknowledgement: one in each message, and many in one
IN_FLIGHT, IN_FLIGHT_PACKED = 256, 8192
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
DRAIN_SECONDS = 4.0
TICK = 1.0
# Senders and names that losses are told apart by; strangers choose both
LOSSES_TOLD_APART, LOSSES_SHOWN = 1000, 20
SO_MEMINFO, DROPS_PLACE = 55, 8

log = structlog.get_logger(__name__)


class Datagram(NamedTuple):
    """What arrived, from whom (``address`` as text, ``peer`` to send an answer to) and when (since the epoch)."""

    data: bytes
    address: str
    peer: Any
    time: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation to come: ``safe`` is called once it is stored durably.

    With ``safe`` its sender waits for an answer, and sends it again, with the same id, where it hears none.
    """

    observe: Callable[[], Observation]
    safe: Callable[[], None] | None = None


class Told(NamedTuple):
    """An observation on its way, and what is to be done when it is safe."""

    observation: Observation
    safe: Callable[[], None] | None


class Parcel(NamedTuple):
    """Observations that are stored together or not at all; sending it again changes nothing."""

    told: Sequence[Told]
    send: Callable[[], Awaitable[None]]


class Packing(Protocol):
    """A report that can store many observations at once; those of one device stay in order."""

    def pack(self, told: Sequence[Told]) -> Sequence[Parcel]: ...


Read = Callable[[Datagram], Iterable[Finding] | None]
"""Take a datagram apart; None when it was refused, after counting it with ``Intake.drop``."""


class Intake:
    """A UDP socket of one adapter and the way of its datagrams to ``report``.

    Reports are started in the order of arrival, for some hundred or thousand observations at a time. When one raises
    Unavailable no new one starts; those that failed are tried again one by one, oldest first, with back-off, as long as
    the adapter runs: the queue is what bounds it. ``name`` says cheaply what a datagram is that has to be dropped;
    ``tick`` is asked once a second for observations of the adapter's own.
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
        name: Callable[[bytes], str] = lambda _: "",
        tick: Callable[[], Iterable[Observation]] = tuple,
    ) -> None:
        self._adapter, self._span, self._read = adapter, span, read
        self._host, self._port, self._setting = host, port, setting
        self._limit, self._flying_limit = queue, IN_FLIGHT
        self._name, self._tick = name, tick
        self._queue: deque[Datagram] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._flying: dict[asyncio.Task[None], asyncio.Event] = {}
        self._in_flight = 0
        self._landed = asyncio.Event()
        self._failing = 0
        self._socket: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lost_in_kernel: int | None = None
        self.counts: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.losses: Counter[tuple[str, str]] = Counter()
        self._received = metrics.RECEIVED.labels(adapter)
        self._decoded = metrics.DECODED.labels(adapter)
        self._waiting = metrics.QUEUE.labels(adapter)

    async def start(self, report: Report) -> str:
        """Listen; the address is ``host:port``. Raises Misconfigured when the port is taken or is not ours to take."""
        packing = getattr(report, "pack", None)
        self._pack: Callable[[Sequence[Told]], Sequence[Parcel]] = packing or self._singly(report)
        self._flying_limit = IN_FLIGHT_PACKED if packing else IN_FLIGHT
        self._socket = _bind(self._host, self._port, self._setting)
        self._lost_in_kernel = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._receive)
        self._tasks = [self._loop.create_task(work, name=self._adapter) for work in (self._take(), self._keep_watch())]
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return self.address

    async def stop(self) -> None:
        """Read no more, make safe what is queued (four seconds), then close: answers still leave by the same port."""
        if self._socket is None:
            return
        self._receive()  # what the kernel still holds has arrived
        self._loop.remove_reader(self._socket.fileno())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._queue or self._flying:
                    self._landed.clear()
                    await self._landed.wait()
        left = [*self._tasks, *self._flying]
        self.drop("stopped", len(self._queue) + self._in_flight)
        await end(left)
        self._count_lost_in_kernel()
        self._queue.clear()
        self._bytes = 0
        self._waiting.set(0)
        self._socket.close()
        self._socket, self._tasks = None, []

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

    def tell(self, observations: Iterable[Observation]) -> None:
        """Report what the adapter itself has to say, after what it has reported before."""
        if self._socket is not None:
            self._launch([Told(observation, None) for observation in observations])

    def health(self) -> Mapping[str, Any]:
        """Figures for /readyz; degraded while it does not listen or nothing can be made safe."""
        self._waiting.set(len(self._queue))
        self._count_lost_in_kernel()
        return {
            "state": "degraded" if self._socket is None or self._failing else "ready",
            "received": self.counts["received"],
            "decoded": self.counts["decoded"],
            "observed": self.counts["observed"],
            "dropped": dict(self.dropped),
            "losses": [
                {"source": source, "what": what, "count": count}
                for (source, what), count in self.losses.most_common(LOSSES_SHOWN)
            ],
            "lostInKernel": self._lost_in_kernel,
            "queue": len(self._queue),
            "inFlight": self._in_flight,
        }

    def _receive(self) -> None:
        assert self._socket is not None
        now, received = time.time(), 0
        queue, receive = self._queue, self._socket.recvfrom
        for _ in range(READ_BATCH if 2 * len(queue) < self._limit else READ_BATCH_WHEN_FULL):
            try:
                data, peer = receive(LARGEST_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # an ICMP error that an earlier answer caused: the socket is well
            received += 1
            if len(queue) >= self._limit or self._bytes + len(data) > QUEUE_BYTES:
                self._lose(data, peer[0])
                continue
            self._bytes += len(data)
            queue.append(Datagram(data, address(peer[0]), peer, now))
        self.counts["received"] += received
        self._received.inc(received)
        self._arrived.set()

    def _lose(self, data: bytes, host: str) -> None:
        """Count a datagram that the queue has no room for, by its sender and by what it is."""
        self.drop("queue")
        who = (address(host), self._name(data))
        known = who in self.losses or len(self.losses) < LOSSES_TOLD_APART
        self.losses[who if known else ("others", "")] += 1

    async def _take(self) -> None:
        trace.leave()  # whoever started us may be in a trace; each datagram begins its own
        while True:
            if not self._queue:
                self._arrived.clear()
                self._waiting.set(0)
                await self._arrived.wait()
            await self._room()
            # No await from here on: what is neither queued nor in flight is lost when we are stopped
            self._launch(self._next())
            self._waiting.set(len(self._queue))
            self._landed.set()
            await asyncio.sleep(0)

    def _next(self) -> list[Told]:
        """What the oldest datagrams tell, as many as may be in flight."""
        told: list[Told] = []
        before = self.counts["decoded"]
        most = min(OBSERVE_BATCH, self._flying_limit - self._in_flight)
        while self._queue and len(told) < most:
            datagram = self._queue.popleft()
            self._bytes -= len(datagram.data)
            try:
                findings = self._read(datagram)
                if findings is not None:
                    self.counts["decoded"] += 1
                    told += [Told(finding.observe(), finding.safe) for finding in findings]
            except Exception:
                log.exception("datagram not understood", adapter=self._adapter, source=datagram.address)
                self.drop("error")
        self._decoded.inc(self.counts["decoded"] - before)
        return told

    async def _room(self) -> None:
        while self._in_flight >= self._flying_limit or self._failing:
            self._landed.clear()
            await self._landed.wait()

    def _launch(self, told: Sequence[Told]) -> None:
        if not told:
            return
        task = self._loop.create_task(self._deliver(told))
        self._in_flight += len(told)
        self._flying[task] = asyncio.Event()
        task.add_done_callback(self._land)

    def _land(self, task: asyncio.Task[None]) -> None:
        del self._flying[task]
        if self._failing and self._flying:
            next(iter(self._flying.values())).set()
        self._landed.set()

    def _singly(self, report: Report) -> Callable[[Sequence[Told]], Sequence[Parcel]]:
        """How a report is used that takes one observation at a time: each in a trace of its own."""

        def sending(each: Told) -> Callable[[], Awaitable[None]]:
            async def send() -> None:
                with trace.span(self._span):
                    await report(each.observation)

            return send

        return lambda told: [Parcel([each], sending(each)) for each in told]

    async def _deliver(self, told: Sequence[Told]) -> None:
        """Make a batch safe; a finished call means that all of it is, or is counted as dropped."""
        try:
            parcels = self._pack(told)
        except Exception:
            log.exception("observations not reported", adapter=self._adapter)
            self._settle("error", told)
            return
        left = parcels
        if not self._failing:
            results = await asyncio.gather(*(self._try(parcel) for parcel in parcels))
            left = [parcel for parcel, settled in zip(parcels, results, strict=True) if not settled]
        if left:
            await self._make_safe_in_turn(left)

    async def _try(self, parcel: Parcel) -> bool:
        """Send a parcel; say whether it is off our hands, safe or counted as dropped."""
        try:
            await parcel.send()
        except Unavailable as error:
            if not self._failing:
                log.warning("observations wait", adapter=self._adapter, reason=str(error))
            return False
        except Exception:
            log.exception("observation not reported", adapter=self._adapter)
            self._settle("error", parcel.told)
            return True
        self._settle("", parcel.told)
        return True

    def _settle(self, drop: str, told: Sequence[Told]) -> None:
        """These are safe, or dropped for a reason."""
        self._in_flight -= len(told)
        self._landed.set()
        if drop:
            self.drop(drop, len(told))
            return
        self.counts["observed"] += len(told)
        for kind, count in Counter(each.observation.kind for each in told).items():
            metrics.OBSERVED.labels(self._adapter, kind).inc(count)
            if kind == "unmapped":
                metrics.UNMAPPED.labels(self._adapter).inc(count)
        for each in told:
            if each.safe is not None:
                each.safe()

    async def _make_safe_in_turn(self, parcels: Sequence[Parcel]) -> None:
        """Try again once all that arrived earlier is settled.

        The bus answers in order, so what failed is the tail of what was in flight: from the oldest on, the order holds.
        """
        self._failing += 1
        try:
            task = asyncio.current_task()
            assert task is not None
            if next(iter(self._flying)) is not task:
                await self._flying[task].wait()
            for parcel in parcels:
                delay = FIRST_DELAY
                while not await self._try(parcel):
                    await asyncio.sleep(delay * random.uniform(0.5, 1))
                    delay = min(2 * delay, LONGEST_DELAY)
        finally:
            self._failing -= 1

    async def _keep_watch(self) -> None:
        """Once a second: what the adapter itself has to say, and what was lost since."""
        trace.leave()
        lost = 0
        while True:
            await asyncio.sleep(TICK)
            try:
                self.tell(self._tick())
            except Exception:
                log.exception("nothing observed", adapter=self._adapter)
            self._count_lost_in_kernel()
            if (now := self.dropped["queue"] + self.dropped["kernel"]) > lost:
                told = {f"{source} {what}".strip(): count for (source, what), count in self.losses.most_common(5)}
                kernel = self.dropped["kernel"]
                log.warning(
                    "more arrives than is taken", adapter=self._adapter, lost=now - lost, kernel=kernel, most=told
                )
                lost = now

    def _count_lost_in_kernel(self) -> None:
        """Count the datagrams that the socket's buffer had no room for, where the kernel tells (Linux)."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError, struct.error):
            # the buffer of what the kernel keeps of a socket (sock_diag: SK_MEMINFO); the drops wrap at 32 bits
            given = self._socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36)
            (lost,) = struct.unpack_from("=I", given, 4 * DROPS_PLACE)
            self.drop("kernel", (lost - (self._lost_in_kernel or 0)) & 0xFFFFFFFF)
            self._lost_in_kernel = lost


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
