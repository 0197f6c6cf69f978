"""Brings devices to the desired state over NETCONF, whole or not at all.

A change is one line (``_bring``): read, lock, discard what others left, edit and validate, commit with a timer on the
device that undoes it, verify from the device, confirm, unlock. Wherever the gateway dies on that line the device ends
in the old or the new configuration: before the commit nothing was changed, and after it the device's own timer decides
unless we confirm. The commit carries an id made from the intent's key, so that whoever performs the intent next can ask
the device for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from convergedon.adapters.contract import Device, Intent, Outcome, Report
from convergedon.adapters.netconf import mapping
from convergedon.adapters.netconf.mapping import Service
from convergedon.adapters.netconf.session import CONNECT_SECONDS, RPC_TIMEOUT, Access, Connection, Denied, dial
from convergedon.core import strict, trace
from convergedon.core.errors import Invalid, Unavailable
from convergedon.core.metrics import PERFORMED
from convergedon.core.settings import Settings

LOCK_PATIENCE = 10.0
STALE_CANDIDATE = "0"  # RFC 6241, 7.5: the lock is denied in the name of session 0 when no session holds it
FIRST_WAIT = 0.01
LOOK_AGAIN = 0.5
LOCK_AGAIN = 2.0  # netconfd lets an unconfirmed commit run out only when nobody asked it anything for a second
GRACE = 3.0

Leaves = Mapping[str, str]


def create(settings: Settings, devices: Mapping[str, Device]) -> NetconfAdapter:
    logging.getLogger("ncclient").setLevel(logging.WARNING)  # below it ncclient logs whole payloads
    file = strict.mapping_file(settings.mappings, "netconf.yaml", mapping.SHIPPED)
    return NetconfAdapter(settings, devices, mapping.load(file))


class NetconfAdapter:
    """The adapter for devices with ``netconf`` settings; sessions are opened when they are needed."""

    name = "netconf"
    performs = True

    def __init__(
        self, settings: Settings, devices: Mapping[str, Device], services: Mapping[str, Service] | None = None
    ) -> None:
        self._confirm_timeout = settings.confirm_timeout
        self._services = mapping.load() if services is None else services
        self._tenants = {name: device.tenant for name, device in devices.items()}
        self._accesses = {
            name: Access.of(name, device.address, device.settings["netconf"])
            for name, device in devices.items()
            if "netconf" in device.settings
        }
        self._peers: dict[str, Peer] = {}

    async def start(self, report: Report) -> Sequence[str]:
        self._peers = {name: Peer(access, self._confirm_timeout) for name, access in self._accesses.items()}
        return ()

    async def stop(self) -> None:
        """Stop within five seconds; what is under way may finish in three, then the devices' timers undo it."""
        peers, self._peers = self._peers, {}
        await asyncio.gather(*(peer.stop() for peer in peers.values()))

    async def perform(self, intent: Intent) -> Outcome:
        service = self._services.get(intent.service)
        status = "unavailable"
        try:
            if intent.device not in self._accesses or self._tenants[intent.device] != intent.tenant:
                outcome = _refused(intent, f"no device {intent.device} with netconf settings in tenant {intent.tenant}")
            elif service is None:
                outcome = _refused(intent, f"mapping.yaml has no service {intent.service!r}")
            elif peer := self._peers.get(intent.device):
                outcome = await peer.perform(intent, service)
            else:
                raise Unavailable(f"{intent.device}: the netconf adapter is not running; the intent comes back")
            status = outcome.status
        finally:
            PERFORMED.labels(self.name, status).inc()
        return outcome

    async def health(self) -> Mapping[str, Any]:
        devices = {name: peer.health() for name, peer in self._peers.items()}
        reached = all(device["state"] != "unreachable" for device in devices.values())
        return {"state": "ready" if reached else "degraded", "devices": devices}


class Peer:
    """One device: its session, and the one thread that uses it, so that our own intents never fight for its lock."""

    def __init__(self, access: Access, confirm_timeout: int) -> None:
        self._access = access
        self._confirm_timeout = confirm_timeout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"netconf-{access.device}")
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._sever: Callable[[], None] = lambda: None
        self._waiting = 0
        self._words = ""

    async def perform(self, intent: Intent, service: Service) -> Outcome:
        self._waiting += 1
        try:
            outcome: Outcome = await self._run(self._perform, intent, service)
            return outcome
        finally:
            self._waiting -= 1

    async def stop(self) -> None:
        """End the session: a change under way may finish, then it is cut off and the device's timer undoes it."""
        self._stopping.set()
        leaving = self._run(self._leave)
        _, late = await asyncio.wait([leaving], timeout=GRACE)
        if late:
            self._sever()
            await asyncio.wait([leaving], timeout=1.0)
        self._thread.shutdown(wait=False)

    def health(self) -> dict[str, Any]:
        connection = self._connection
        connected = connection is not None and connection.alive
        state = "connected" if connected else "unreachable" if self._words else "idle"
        return {"state": state, "waiting": self._waiting, **({"words": self._words} if self._words else {})}

    def _run(self, step: Any, *arguments: Any) -> asyncio.Future[Any]:
        context = contextvars.copy_context()  # the trace goes on in the thread
        return asyncio.get_running_loop().run_in_executor(self._thread, context.run, step, *arguments)

    def _perform(self, intent: Intent, service: Service) -> Outcome:
        try:
            with trace.span("netconf perform"):
                outcome = self._change(intent, service)
        except Unavailable as error:
            self._words = str(error)
            raise
        self._words = ""
        return outcome

    def _change(self, intent: Intent, service: Service) -> Outcome:
        left = intent.deadline - time.time()
        if self._stopping.is_set():
            raise Unavailable(f"{intent.device}: the netconf adapter is stopping; the intent comes back")
        if left <= 0:
            raise Unavailable(f"{intent.device}: the deadline of the intent passed before it was its turn")
        connection = self._connected(min(left, CONNECT_SECONDS))
        bound = threading.Timer(left + self._confirm_timeout, self._sever)  # a peer that reads nothing any more
        bound.daemon = True
        bound.start()
        try:
            return Change(connection, service, intent, self._confirm_timeout, self._stopping).perform()
        except Invalid as error:
            return _refused(intent, str(error))
        except Denied as denied:
            if denied.busy:
                raise Unavailable(f"{intent.device}: {denied.words}; it is tried again later") from denied
            return _refused(intent, denied.words)
        finally:
            bound.cancel()
            if not connection.alive:
                self._connection = None

    def _connected(self, within: float) -> Connection:
        if self._connection is None or not self._connection.alive:
            self._leave()
            self._connection = dial(self._access, self._dialled, within)
            # a host key trusted on first use stays the only one until the adapter stops
            self._access = replace(self._access, host_key=self._connection.host_key)
        return self._connection

    def _dialled(self, sever: Callable[[], None]) -> None:
        self._sever = sever

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave() if connection.alive else connection.close()


@dataclass(frozen=True)
class Change:
    """One intent on its way to the device."""

    connection: Connection
    service: Service
    intent: Intent
    confirm_timeout: int
    stopping: threading.Event

    def perform(self) -> Outcome:
        """Bring the device to the desired state, or say why not."""
        if missing := self._missing():
            return _refused(
                self.intent, f"{self.intent.device} has no {missing}, without which it cannot be changed safely"
            )
        wanted, operational = self._plan()
        if self._reached(wanted, self._running(self._left())) and not self._cancel():
            return self._unchanged(operational)
        with self._locked():
            before = self._running(self._left())
            if self._reached(wanted, before):
                return self._unchanged(operational)
            return self._bring(wanted, operational, before)

    def _bring(self, wanted: dict[str, str | None] | None, operational: Leaves, before: Leaves | None) -> Outcome:
        self.connection.call("discard_changes", within=self._left())
        try:
            self._edit(wanted)
            self._commit()
        except Denied:
            pending = self._cancel()
            self.connection.call("discard_changes")
            if pending:
                raise Unavailable(
                    f"{self.intent.device}: an earlier try was pending and is undone; it is tried again"
                ) from None
            raise
        found, wrong = self._verify(wanted, operational)
        if wrong:
            return self._roll_back(wrong, before)
        try:
            self.connection.call("commit", persist_id=persist_id(self.intent))
        except Denied as denied:
            return self._roll_back(denied.words, before)
        return self._outcome("applied", diff=self._diff(before, found))

    def _missing(self) -> str:
        known = self.connection.capabilities
        if ":candidate" not in known:
            return "candidate configuration"
        return "" if ":confirmed-commit:1.1" in known else "confirmed commit 1.1 (RFC 6241, 8.4)"

    def _plan(self) -> tuple[dict[str, str | None] | None, Leaves]:
        if self.intent.values is None:
            return None, {}
        return self.service.wanted(self.intent.values), self.service.operational(self.intent.values)

    def _reached(self, wanted: Mapping[str, str | None] | None, found: Leaves | None) -> bool:
        if wanted is None or found is None:
            return wanted is None and found is None
        return not self.service.differing(wanted, found)

    def _running(self, within: float) -> dict[str, str] | None:
        chosen = self.service.subtree(self.intent.instance)
        reply = self.connection.call("get_config", source="running", filter=chosen, within=within)
        return self.service.read(reply.data_ele, self.intent.instance)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the candidate. Others' locks are waited for, bounded by patience and deadline."""
        patience = time.time() + min(LOCK_PATIENCE, self._left())
        wait = FIRST_WAIT
        while denied := self._denied_lock():
            mended = denied.holder == STALE_CANDIDATE and self._discarded()
            if time.time() + wait >= patience:
                holder = f"locked by session {denied.holder}" if denied.holder else denied.words
                raise Unavailable(f"{self.intent.device}: {holder}; it is tried again later") from denied
            if not mended and self.stopping.wait(wait):
                raise Unavailable(f"{self.intent.device}: the netconf adapter is stopping; the intent comes back")
            wait = min(2 * wait, LOCK_AGAIN)
        try:
            yield
        finally:
            if self.connection.alive:
                self._unlock()

    def _denied_lock(self) -> Denied | None:
        try:
            self.connection.call("lock", "candidate", within=self._left())
        except Denied as denied:
            if denied.busy:
                return denied
            raise
        return None

    def _unlock(self) -> None:
        try:
            self.connection.call("unlock", "candidate")
        except (Denied, Unavailable):
            self.connection.close()  # the end of the session is the end of its locks; what was done stays done

    def _discarded(self) -> bool:
        try:
            self.connection.call("discard_changes", within=self._left())
        except Denied:
            return False
        return True

    def _edit(self, wanted: Mapping[str, str | None] | None) -> None:
        """Edit the candidate and validate it in the same call: netconfd commits nothing after a separate validate."""
        options = {}
        if ":validate" in self.connection.capabilities:
            options["test_option"] = "test-then-set"
        if ":rollback-on-error" in self.connection.capabilities:
            options["error_option"] = "rollback-on-error"
        payload = self.service.payload(self.intent.instance, wanted)
        self.connection.call(
            "edit_config", payload, target="candidate", default_operation="merge", within=self._left(), **options
        )

    def _commit(self) -> None:
        timeout = str(self.confirm_timeout)
        self.connection.call(
            "commit", confirmed=True, timeout=timeout, persist=persist_id(self.intent), within=self._left()
        )

    def _verify(
        self, wanted: Mapping[str, str | None] | None, operational: Leaves
    ) -> tuple[dict[str, str] | None, str]:
        """Read what the device has now; the words say what is not as it must be, and are empty if all is."""
        found = self._running(self._patience())
        if wanted is None:
            return found, "" if found is None else f"{self.service.path[-1]} {self.intent.instance} is still there"
        if found is None:
            return found, f"{self.service.path[-1]} {self.intent.instance} is not there"
        if wrong := self.service.differing(wanted, found):
            return found, self._difference(wrong, wanted, found)
        return found, self._lag(operational)

    def _lag(self, operational: Leaves) -> str:
        """Wait until the operational leaves follow; say which do not in the time the mapping gives them."""
        if not operational:
            return ""
        until = time.time() + min(self.service.settle, self.confirm_timeout / 2)
        wait = FIRST_WAIT
        while True:
            chosen = self.service.subtree(self.intent.instance)
            reply = self.connection.call("get", filter=chosen, within=self._patience())
            found = self.service.read(reply.data_ele, self.intent.instance)
            wrong = self.service.differing(operational, found)
            if not wrong:
                return ""
            if time.time() >= until:
                return self._difference(wrong, operational, found)
            if self.stopping.wait(wait):
                self._cancel()
                raise Unavailable(f"{self.intent.device}: the netconf adapter is stopping; the intent comes back")
            wait = min(2 * wait, LOOK_AGAIN)

    def _roll_back(self, words: str, before: Leaves | None) -> Outcome:
        self._cancel()
        now = self._running(self._patience())
        if now == before:
            return self._outcome("rolledBack", f"{words}; the former configuration is back")
        return self._outcome("unknown", f"{words}; the former configuration is not back yet")

    def _cancel(self) -> bool:
        """Undo our commit where it is pending; whether it was."""
        try:
            self.connection.call("cancel_commit", persist_id=persist_id(self.intent), within=self._patience())
        except Denied:
            return False
        return True

    def _unchanged(self, operational: Leaves) -> Outcome:
        if lag := self._lag(operational):
            return self._outcome("refused", f"the configuration is there already, but {lag}")
        return self._outcome("unchanged")

    def _difference(self, leaves: Sequence[str], wanted: Mapping[str, str | None], found: Leaves | None) -> str:
        held = found or {}
        return ", ".join(
            f"leaf {leaf}: wanted {_or_nothing(wanted[leaf])}, found {_or_nothing(held.get(leaf))}" for leaf in leaves
        )

    def _diff(self, before: Leaves | None, after: Leaves | None) -> dict[str, tuple[Any, Any]]:
        old, new = before or {}, after or {}
        changed = [leaf for leaf in {**old, **new} if old.get(leaf) != new.get(leaf) and leaf != self.service.key]
        return {leaf: (mapping.plain(old.get(leaf)), mapping.plain(new.get(leaf))) for leaf in changed}

    def _outcome(self, status: Any, words: str = "", diff: Mapping[str, tuple[Any, Any]] | None = None) -> Outcome:
        said = f"{self.intent.device}: {words}" if words else ""
        return Outcome(self.intent.key, self.intent.device, status, said, diff or {})

    def _left(self) -> float:
        """Give the seconds a call may take before the commit. Raises Unavailable when the deadline has passed."""
        left = self.intent.deadline - time.time()
        if left <= 0:
            raise Unavailable(f"{self.intent.device}: the deadline passed before the commit; nothing was changed")
        return min(RPC_TIMEOUT, left)

    def _patience(self) -> float:
        """Give the seconds a call may take once the device's own timer runs."""
        return min(RPC_TIMEOUT, float(self.confirm_timeout))


def persist_id(intent: Intent) -> str:
    """Name the confirmed commit of an intent, alike for whoever performs it."""
    return "convergedon-" + hashlib.sha256(intent.key.encode()).hexdigest()[:32]


def _or_nothing(text: str | None) -> str:
    return "nothing" if text is None else text


def _refused(intent: Intent, words: str) -> Outcome:
    said = words if words.startswith(intent.device) else f"{intent.device}: {words}"
    return Outcome(intent.key, intent.device, "refused", said)
