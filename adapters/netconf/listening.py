"""Hears what devices tell by themselves (RFC 5277), each over a session of its own.

What was told while nobody listened is told again: the device replays from the last notification that was made safe, and
what was safe already is known by its id. How far that is outlives us, where what we report to keeps it (``Keeping``).
What a device cannot tell again is told in its place: that something is missing, and from when to when. A device that
cannot be reached for a while is one fault until it is listened to again.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, runtime_checkable

import structlog

from convergedon.adapters.contract import Observation, Report
from convergedon.adapters.netconf.events import Events, event_time, moment, written
from convergedon.adapters.netconf.session import CONNECT_SECONDS, RPC_TIMEOUT, Access, Connection, Denied, dial
from convergedon.adapters.silence import Silence
from convergedon.core import metrics
from convergedon.core.errors import Unavailable

FIRST_WAIT, LONGEST_WAIT = 0.2, 30.0
LOOK_UP = 5.0
REMEMBERED = 1_000
SILENT_AFTER = 10.0
"""Seconds without a session after which a device counts as unreachable: one session may be lost."""
GAP = {
    "alarmType": "processingErrorAlarm",
    "perceivedSeverity": "warning",
    "probableCause": "informationMissing",
    "specificProblem": "the device cannot tell again what it told while nobody listened",
}

BEGINNINGS = ("replayLogCreationTime", "replayLogAgedTime")
"""What a device says of its log: when it was begun, and when the last was told that is not in it any more."""

T = TypeVar("T")
log = structlog.get_logger()


@runtime_checkable
class Keeping(Protocol):
    """A ``Report`` that also keeps how far each device's notifications are safe; both raise Unavailable."""

    async def reached(self, device: str) -> Mapping[str, Any] | None: ...

    async def reach(self, device: str, position: Mapping[str, Any]) -> None: ...


class Listener:
    """One device's notifications, one after another, in a thread that waits for them."""

    def __init__(
        self, access: Access, tenant: str, events: Events, report: Report, silent_after: float = SILENT_AFTER
    ) -> None:
        self._access, self._tenant, self._events, self._report = access, tenant, events, report
        self._keeping = report if isinstance(report, Keeping) else None
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._sever: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name=f"netconf-listen-{access.device}", daemon=True)
        self._since = ""
        self._at = ""
        self._alike: Counter[bytes] = Counter()
        self._known: deque[str] = deque(maxlen=REMEMBERED)
        self._safe: deque[str] = deque(maxlen=REMEMBERED)
        self._reporting: Any = None
        self._words = ""
        self._listening = False
        self._silence = Silence("netconf", "NETCONF", access.device, tenant, seconds=silent_after)
        self.received = 0
        self._waiting = 0
        self.unreadable = 0
        self.gaps = 0

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        self._stopping.set()
        self._sever()
        if reporting := self._reporting:
            reporting.cancel()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 2.0)

    def health(self) -> dict[str, Any]:
        state = "listening" if self._listening else "unreachable" if self._words else "connecting"
        words = {"words": self._words} if self._words else {}
        counts = {"received": self.received, "unreadable": self.unreadable, "gaps": self.gaps}
        return {"state": state, **counts, **words}

    def _run(self) -> None:
        wait, resumed = FIRST_WAIT, False
        while not self._stopping.is_set():
            try:
                resumed = resumed or self._resume()
                with_session = dial(self._access, self._dialled, CONNECT_SECONDS, self._stopping)
                self._listen(with_session)
            except (Unavailable, Denied) as error:
                wait = FIRST_WAIT if self._listening else min(2 * wait, LONGEST_WAIT)
                self._words, self._listening = str(error), False
                self._notice(error)
            self._stopping.wait(wait)

    def _notice(self, error: Unavailable | Denied) -> None:
        """Tell of a device that has been away for a while; one that refuses us is there."""
        self._silence.lost()
        if isinstance(error, Unavailable):
            self._tell(self._silence.missed(str(error)))

    def _tell(self, seen: Observation | None) -> None:
        if seen is not None:
            with suppress(Unavailable):  # the adapter is stopping
                self._report_safely(seen)
                self._silence.told(seen)

    def _resume(self) -> bool:
        """Go on from where whoever listened before us was; true once that is known."""
        if self._keeping is not None:
            keeping, device = self._keeping, self._access.device
            if kept := self._in_loop(lambda: keeping.reached(device)):
                self._since = kept["at"]
                self._known.extend([*kept["ids"], kept["reported"]])
                self._safe.extend(kept["ids"])
        return True

    def _listen(self, connection: Connection) -> None:
        try:
            self._subscribe(connection)
            self._words, self._listening = "", True
            self._tell(self._silence.answered())
            while not self._stopping.is_set():
                notification = connection.notification(LOOK_UP)
                self._count_waiting(connection.waiting)
                if notification is not None:
                    self._take(notification)
        finally:
            connection.close()
            self._count_waiting(0)

    def _count_waiting(self, waiting: int) -> None:
        """Of all devices together, which share the gauge."""
        metrics.QUEUE.labels("netconf").inc(waiting - self._waiting)
        self._waiting = waiting

    def _subscribe(self, connection: Connection) -> None:
        """Have everything from the last that was made safe; where nothing was, from now on."""
        began = datetime.fromtimestamp(time.time(), UTC)
        self._alike.clear()
        if not self._since:
            connection.subscribe(None, RPC_TIMEOUT)
            self._reach(began.strftime("%Y-%m-%dT%H:%M:%SZ"))  # some devices tell the time in whole seconds
        elif missing := self._replay(connection, began.isoformat()):
            until, words = missing
            log.warning("notifications cannot be replayed", device=self._access.device, reason=words)
            self._report_safely(self._gap(until, words))
            self._reach(until)
            self.gaps += 1
            metrics.GAPS.labels("netconf").inc()

    def _replay(self, connection: Connection, now: str) -> tuple[str, str] | None:
        """Have what was told since replayed; until when that is not to be had, and why, where some of it is not."""
        about = connection.stream(RPC_TIMEOUT)
        if about.get("replaySupport") != "false":
            try:
                connection.subscribe(self._since, RPC_TIMEOUT)
            except Denied as denied:
                words = denied.words
            else:
                begins = max((about.get(leaf, "") for leaf in BEGINNINGS), key=_moment)
                # of a moment of which nothing is known we may have heard the end only
                forgotten = _moment(begins) > _moment(self._since) + (0 if self._safe else 1)
                return (begins, "its log begins later") if forgotten else None
        else:
            words = "its stream has no replay"
        connection.subscribe(None, RPC_TIMEOUT)
        return now, words

    def _gap(self, until: str, words: str) -> Observation:
        device, now = self._access.device, time.time()
        id = hashlib.sha256(f"{device} gap {self._since} {until}".encode()).hexdigest()[:32]
        about = {**GAP, "details": {"from": self._since, "until": until, "words": words}}
        return Observation(id, "fault", "netconf", device, self._tenant, now, key="netconf:gap", attributes=about)

    def _take(self, notification: Any) -> None:
        self.received += 1
        metrics.RECEIVED.labels("netconf").inc()
        at, number = event_time(notification), self._number(notification)
        try:
            seen = self._events.observation(notification, self._access.device, self._tenant, number)
        except ValueError:
            self.unreadable += 1
            metrics.DROPPED.labels("netconf", "unreadable").inc()
            return
        metrics.DECODED.labels("netconf").inc()
        if seen is not None and seen.kind == "unmapped":
            metrics.UNMAPPED.labels("netconf").inc()
        if at != self._since:
            self._safe.clear()
        self._since = at
        if seen is not None and seen.id not in self._known:
            self._make_safe(seen)
            self._known.append(seen.id)

    def _number(self, notification: Any) -> int:
        """Which this is of those alike to the letter. A replay begins with a moment's first: it counts the same."""
        at, told = event_time(notification), written(notification)
        if at != self._at:
            self._at, self._alike = at, Counter()
        self._alike[told] += 1
        return self._alike[told] - 1

    def _report_safely(self, seen: Observation) -> None:
        """Report it until it is stored; nothing after it is taken before."""
        self._in_loop(lambda: _reported(self._report, seen))
        metrics.OBSERVED.labels("netconf", seen.kind).inc()

    def _make_safe(self, seen: Observation) -> None:
        """Report what the device told, and keep that it is safe."""
        self._report_safely(seen)
        self._safe.append(seen.id)
        self._keep()

    def _reach(self, at: str) -> None:
        """Go on from this moment; nothing of it is known."""
        self._since = at
        self._safe.clear()
        self._keep()

    def _keep(self) -> None:
        if self._keeping is not None:
            keeping, position = self._keeping, {"at": self._since, "ids": list(self._safe)}
            self._in_loop(lambda: keeping.reach(self._access.device, position))

    def _in_loop(self, what: Callable[[], Awaitable[T]]) -> T:
        """Have something done where the bus is, again and again until it could be."""
        wait = FIRST_WAIT
        while True:
            if self._stopping.is_set():
                raise Unavailable("the netconf adapter is stopping; the device is asked for a replay")
            self._reporting = asyncio.run_coroutine_threadsafe(_awaited(what), self._loop)
            try:
                done: T = self._reporting.result()
                return done
            except CancelledError:
                continue  # we are stopping
            except Unavailable:
                self._stopping.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _dialled(self, sever: Callable[[], None]) -> None:
        self._sever = sever
        if self._stopping.is_set():
            sever()


def _moment(text: str) -> float:
    """0 for what is no time."""
    try:
        return moment(text)
    except ValueError:
        return 0.0


async def _awaited(what: Callable[[], Awaitable[T]]) -> T:
    return await what()


async def _reported(report: Report, seen: Observation) -> None:
    await report(seen)
