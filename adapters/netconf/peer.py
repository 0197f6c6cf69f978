"""One device: its session, the one thread that uses it, and whose turn it is with the device."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar

from convergedon.adapters.netconf.session import CONNECT_SECONDS, Access, Connection, Denied, dial
from convergedon.core import trace
from convergedon.core.errors import DeadlinePassed, Locked, Refused, Unavailable

GRACE = 3.0
LONGEST_STAGE = 600.0

P = ParamSpec("P")
T = TypeVar("T")


class Peer:
    """Runs steps on the device's session, one after another, so that our own changes never fight for its lock."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"netconf-{access.device}")
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._sever: Callable[[], None] = lambda: None
        self._words = ""

    async def take_turn(self, deadline: float) -> None:
        """Wait until no other change is under way on the device, and there is a session with it."""
        self._waiting += 1
        try:
            await self._turn.acquire()
        except BaseException:
            self._waiting -= 1
            raise
        try:
            await self._reach(deadline)
        except BaseException:
            await self.give_turn()
            raise

    async def give_turn(self) -> None:
        """Let the next one have the device, without our locks."""
        try:
            if self._connection is not None and self._connection.holds:
                await self._submit(self._unlock)
        finally:
            self._waiting -= 1
            self._turn.release()

    async def run(self, step: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Take a step on the session, which is opened where it is not.

        Raises Refused when the device says no, Locked when it is held by somebody else, another Unavailable when it
        cannot be asked.
        """
        bound = asyncio.get_running_loop().call_later(LONGEST_STAGE, lambda: self._sever())
        try:
            done: T = await self._submit(self._attempt, self._step, step, *args, **kwargs)
            return done
        finally:
            bound.cancel()

    async def stop(self) -> None:
        """End the session: a change under way may finish, then it is cut off and the device's timer undoes it."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if not await self._idle(GRACE):
            self._sever()
            await self._idle(1.0)
        await asyncio.wait([self._submit(self._leave)], timeout=0.5)
        self._thread.shutdown(wait=False)

    def health(self) -> dict[str, Any]:
        connection = self._connection
        connected = connection is not None and connection.alive
        state = "connected" if connected else "unreachable" if self._words else "idle"
        return {"state": state, "waiting": self._waiting, **({"words": self._words} if self._words else {})}

    async def _reach(self, deadline: float) -> None:
        left = deadline - time.time()
        self._refuse_when_stopping()
        if left <= 0:
            raise DeadlinePassed(f"{self._access.device}: the deadline of the intent passed before it was its turn")
        if self._connection is None or not self._connection.alive:
            await self._submit(self._attempt, self._connect, min(left, CONNECT_SECONDS))

    async def _idle(self, within: float) -> bool:
        """Whether no change was under way any more within these seconds."""
        try:
            async with asyncio.timeout(within), self._turn:
                return True
        except TimeoutError:
            return False

    def _submit(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        context = contextvars.copy_context()  # the trace goes on in the thread
        return asyncio.get_running_loop().run_in_executor(self._thread, lambda: context.run(step, *args, **kwargs))

    def _step(self, step: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        if self._connection is None or not self._connection.alive:
            self._connect(CONNECT_SECONDS)
        with trace.span(f"netconf {step.__name__}"):
            return step(self._connection, *args, **kwargs)

    def _attempt(self, action: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Do something with the device; keep for health's sake whether it answered."""
        device = self._access.device
        try:
            done = action(*args, **kwargs)
        except Denied as denied:
            kind = Locked if denied.busy else Refused
            raise kind(f"{device}: {denied.words}") from denied
        except Unavailable as error:
            self._words = str(error)
            raise
        finally:
            if self._connection is not None and not self._connection.alive:
                self._connection = None
        self._words = ""
        return done

    def _connect(self, within: float) -> None:
        self._refuse_when_stopping()
        if self._connection is not None and self._connection.alive:
            return  # who was before us has opened it
        self._leave()
        self._connection = dial(self._access, self._dialled, within, self._stopping)
        # a host key trusted on first use stays the only one until the adapter stops
        self._access = replace(self._access, host_key=self._connection.host_key)

    def _refuse_when_stopping(self) -> None:
        if self._stopping.is_set():
            raise Unavailable(f"{self._access.device}: the netconf adapter is stopping; the intent comes back")

    def _dialled(self, sever: Callable[[], None]) -> None:
        self._sever = sever

    def _unlock(self) -> None:
        if self._connection is not None and self._connection.alive:
            self._connection.unlock()

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave() if connection.alive else connection.close()
