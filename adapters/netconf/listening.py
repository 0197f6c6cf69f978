"""Hears what devices tell by themselves (RFC 5277), each over a session of its own.

What was told while nobody listened is told again: after a reconnection the device replays from the last notification
that was made safe, and what was safe already is known by its id. A device that cannot be reached for a while is one
fault until it is listened to again.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import structlog

from convergedon.adapters.contract import Observation, Report
from convergedon.adapters.netconf.events import Events, event_time, written
from convergedon.adapters.netconf.session import CONNECT_SECONDS, RPC_TIMEOUT, Access, Connection, Denied, dial
from convergedon.core import metrics
from convergedon.core.errors import Unavailable

FIRST_WAIT, LONGEST_WAIT = 0.2, 30.0
LOOK_UP = 5.0
REMEMBERED = 1_000
SILENT_AFTER = 10.0
"""Seconds without a session after which a device counts as unreachable: one session may be lost."""
SILENCE = "netconf:unreachable"

log = structlog.get_logger()


class Listener:
    """One device's notifications, one after another, in a thread that waits for them."""

    def __init__(
        self, access: Access, tenant: str, events: Events, report: Report, silent_after: float = SILENT_AFTER
    ) -> None:
        self._access, self._tenant, self._events, self._report = access, tenant, events, report
        self._silent_after = silent_after
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._sever: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name=f"netconf-listen-{access.device}", daemon=True)
        self._since = ""
        self._at = ""
        self._alike: Counter[bytes] = Counter()
        self._known: deque[str] = deque(maxlen=REMEMBERED)
        self._reporting: Any = None
        self._words = ""
        self._listening = False
        self._lost: float | None = None
        self._silent: bool | None = None  # not known: what was told before this process began is not over by itself
        self.received = 0
        self.unreadable = 0

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
        return {"state": state, "received": self.received, "unreadable": self.unreadable, **words}

    def _run(self) -> None:
        wait = FIRST_WAIT
        while not self._stopping.is_set():
            try:
                with_session = dial(self._access, self._dialled, CONNECT_SECONDS, self._stopping)
                self._listen(with_session)
            except (Unavailable, Denied) as error:
                wait = FIRST_WAIT if self._listening else min(2 * wait, LONGEST_WAIT)
                self._words, self._listening = str(error), False
                self._notice(error)
            self._stopping.wait(wait)

    def _notice(self, error: Unavailable | Denied) -> None:
        """Tell of a device that has been away for a while; one that refuses us is there."""
        self._lost = self._lost or time.monotonic()
        if isinstance(error, Unavailable) and not self._silent and time.monotonic() - self._lost >= self._silent_after:
            self._tell(_silence(self._access.device, self._tenant, "fault", "major", str(error)))

    def _reached(self) -> None:
        self._lost = None
        if self._silent is not False:
            self._tell(_silence(self._access.device, self._tenant, "clear", "cleared", ""))

    def _tell(self, seen: Observation) -> None:
        with suppress(Unavailable):  # the adapter is stopping
            self._make_safe(seen)
            self._silent = seen.kind == "fault"
            metrics.OBSERVED.labels("netconf", seen.kind).inc()

    def _listen(self, connection: Connection) -> None:
        try:
            self._subscribe(connection)
            self._words, self._listening = "", True
            self._reached()
            while not self._stopping.is_set():
                notification = connection.notification(LOOK_UP)
                if notification is not None:
                    self._take(notification)
        finally:
            connection.close()

    def _subscribe(self, connection: Connection) -> None:
        """Have everything from the last that was made safe; a device without replay tells from now on."""
        began = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            connection.subscribe(self._since or None, RPC_TIMEOUT)
        except Denied as denied:
            if not self._since:
                raise
            log.warning("no replay of notifications", device=self._access.device, reason=denied.words)
            connection.subscribe(None, RPC_TIMEOUT)
        self._since = self._since or began
        self._alike.clear()

    def _take(self, notification: Any) -> None:
        self.received += 1
        number = self._number(notification)
        try:
            seen = self._events.observation(notification, self._access.device, self._tenant, number)
        except ValueError:
            self.unreadable += 1
            return
        if seen is not None and seen.id not in self._known:
            self._make_safe(seen)
            self._known.append(seen.id)
            metrics.OBSERVED.labels("netconf", seen.kind).inc()
        self._since = event_time(notification)

    def _number(self, notification: Any) -> int:
        """Which this is of those alike to the letter. A replay begins with a moment's first: it counts the same."""
        at, told = event_time(notification), written(notification)
        if at != self._at:
            self._at, self._alike = at, Counter()
        self._alike[told] += 1
        return self._alike[told] - 1

    def _make_safe(self, seen: Observation) -> None:
        """Report it until it is stored; nothing after it is taken before."""
        wait = FIRST_WAIT
        while True:
            if self._stopping.is_set():
                raise Unavailable("the netconf adapter is stopping; the device is asked for a replay")
            self._reporting = asyncio.run_coroutine_threadsafe(_reported(self._report, seen), self._loop)
            try:
                self._reporting.result()
                return
            except Unavailable:
                self._stopping.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _dialled(self, sever: Callable[[], None]) -> None:
        self._sever = sever
        if self._stopping.is_set():
            sever()


def _silence(device: str, tenant: str, kind: Literal["fault", "clear"], severity: str, words: str) -> Observation:
    now = time.time()
    about = {
        "alarmType": "communicationsAlarm",
        "perceivedSeverity": severity,
        "probableCause": "underlyingResourceUnavailable",
        "specificProblem": "the device does not answer NETCONF",
        "details": {"words": words} if words else {},
    }
    id = hashlib.sha256(f"{device} {kind} {now}".encode()).hexdigest()[:32]
    return Observation(id, kind, "netconf", device, tenant, now, key=SILENCE, attributes=about)


async def _reported(report: Report, seen: Observation) -> None:
    await report(seen)
