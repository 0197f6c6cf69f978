"""Brings devices to the desired state over NETCONF, whole or not at all.

The adapter says which device and which service an intent is for; ``peer`` keeps the one session that each device has,
and ``change`` says what is done on it in each stage.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from convergedon.adapters import inventory
from convergedon.adapters.contract import Capability, Device, Difference, Intent, Report, State
from convergedon.adapters.netconf import change, mapping
from convergedon.adapters.netconf.calling import Calls
from convergedon.adapters.netconf.change import Edit
from convergedon.adapters.netconf.events import Events
from convergedon.adapters.netconf.listening import SILENT_AFTER, Listener
from convergedon.adapters.netconf.mapping import Service
from convergedon.adapters.netconf.peer import Peer
from convergedon.adapters.netconf.session import Access
from convergedon.core import strict
from convergedon.core.errors import Misconfigured, Refused, Unavailable
from convergedon.core.settings import Settings
from convergedon.core.tasks import end

SPARE_FILES = 64
"""Open files that the process needs besides."""


def create(settings: Settings, devices: Mapping[str, Device]) -> NetconfAdapter:
    logging.getLogger("ncclient").setLevel(logging.WARNING)  # below it ncclient logs whole payloads
    file = strict.mapping_file(settings.mappings, "netconf.yaml", mapping.SHIPPED)
    return NetconfAdapter(settings, devices, mapping.load(file), mapping.load_events(file))


class NetconfAdapter:
    """The adapter for devices with ``netconf`` settings.

    Sessions for intents are opened when they are needed, those of devices that tell by themselves at the start.
    """

    name = "netconf"
    performs = True
    offers: frozenset[Capability] = frozenset(
        {"read", "candidate", "confirmedCommit", "rollback", "verify", "notifications"}
    )

    def __init__(
        self,
        settings: Settings,
        devices: Mapping[str, Device],
        services: Mapping[str, Service] | None = None,
        events: Events | None = None,
        silent_after: float = SILENT_AFTER,
    ) -> None:
        self._silent_after = silent_after
        self._confirm_timeout = settings.confirm_timeout
        self._call_home = (settings.call_home_host, settings.call_home_port)
        self._services = mapping.load() if services is None else services
        self._events = mapping.load_events() if events is None else events
        self._tenants = {name: device.tenant for name, device in devices.items()}
        self._accesses = {
            name: Access.of(
                name, device.address, device.settings["netconf"], partial(inventory.where, settings, name, "netconf")
            )
            for name, device in devices.items()
            if "netconf" in device.settings
        }
        self._calls: Calls | None = None
        self._welcoming: set[asyncio.Task[None]] = set()
        self._peers: dict[str, Peer] = {}
        self._listeners: dict[str, Listener] = {}
        self._seen: set[str] = set()

    async def start(self, report: Report) -> Sequence[str]:
        _refuse_too_many(self._accesses.values())
        addresses = self._take_calls()
        self._peers = {name: Peer(access) for name, access in self._accesses.items()}
        self._listeners = {
            name: Listener(access, self._tenants[name], self._events, report, self._silent_after)
            for name, access in self._accesses.items()
            if access.notifications
        }
        for listener in self._listeners.values():
            listener.start()
        return addresses

    def _take_calls(self) -> Sequence[str]:
        """Listen for the devices that call home, where there are any. Raises Misconfigured."""
        calling: dict[str, str] = {}
        for name, access in self._accesses.items():
            for key in access.host_keys if access.calls_home else ():
                if (other := calling.setdefault(key, name)) != name:
                    raise Misconfigured(f"devices {other} and {name}: both call home with the same host key")
        if not calling:
            return ()
        self._calls = Calls(self.name, *self._call_home, calling, self._welcome)
        for name in calling.values():
            self._accesses[name] = replace(self._accesses[name], called=partial(self._calls.link, name))
        return (self._calls.start(),)

    def _welcome(self, device: str) -> None:
        """Open the session at once: who calls does not wait for long."""

        async def speak(peer: Peer) -> None:
            with suppress(Unavailable, Refused):  # health says why
                await peer.run(change.capabilities)

        if peer := self._peers.get(device):
            task = asyncio.create_task(speak(peer))
            self._welcoming.add(task)
            task.add_done_callback(self._welcoming.discard)

    async def stop(self) -> None:
        """Stop within five seconds; what is under way may finish in three, then the devices' timers undo it."""
        if self._calls is not None:
            await self._calls.stop()
        await end(self._welcoming)
        await asyncio.gather(
            *(peer.stop() for peer in self._peers.values()), *(listener.stop() for listener in self._listeners.values())
        )
        self._peers, self._listeners, self._calls = {}, {}, None

    async def health(self) -> Mapping[str, Any]:
        devices = {name: peer.health() for name, peer in self._peers.items()}
        for name, listener in self._listeners.items():
            devices[name]["notifications"] = listener.health()
        reached = all(device["state"] != "unreachable" for device in devices.values())
        calls = {"callHome": self._calls.health()} if self._calls is not None else {}
        return {"state": "ready" if reached else "degraded", "devices": devices, **calls}

    async def capabilities(self, device: str) -> frozenset[Capability]:
        if device not in self._accesses:
            raise Refused(f"no device {device} with netconf settings")
        return await self._peer(device).run(change.capabilities)

    async def observe(self, intent: Intent) -> State:
        service = self._service(intent)
        return await self._peer(intent.device).run(change.observe, service, intent)

    async def compare(self, intent: Intent) -> tuple[State, Sequence[Difference]]:
        service = self._service(intent)
        return await self._peer(intent.device).run(change.compare, service, intent, self._confirm_timeout)

    async def prepare(self, intent: Intent) -> Edit:
        service = self._service(intent)
        peer = self._peer(intent.device)
        await peer.take_turn(intent.deadline)
        try:
            return await peer.run(change.prepare, service, intent, self._confirm_timeout)
        except BaseException:
            await peer.give_turn()
            raise

    async def commit(self, edit: Edit) -> None:
        if await self._peer(edit.intent.device).run(change.commit, edit):
            self._seen.add(edit.intent.key)

    async def verify(self, edit: Edit) -> Sequence[Difference]:
        if edit.intent.key in self._seen:
            return []
        return await self._peer(edit.intent.device).run(change.verify, edit)

    async def confirm(self, edit: Edit) -> None:
        await self._peer(edit.intent.device).run(change.confirm, edit)

    async def rollback(self, edit: Edit) -> Sequence[Difference]:
        peer = self._peer(edit.intent.device)
        await peer.run(change.leave, edit)
        return await peer.run(change.rollback, edit)

    async def release(self, edit: Edit) -> None:
        self._seen.discard(edit.intent.key)
        if peer := self._peers.get(edit.intent.device):
            await peer.give_turn()

    def _service(self, intent: Intent) -> Service:
        if intent.device not in self._accesses or self._tenants[intent.device] != intent.tenant:
            raise Refused(f"no device {intent.device} with netconf settings in tenant {intent.tenant}")
        if intent.service not in self._services:
            raise Refused(f"mapping.yaml has no service {intent.service!r}")
        return self._services[intent.service]

    def _peer(self, device: str) -> Peer:
        if device not in self._peers:
            raise Unavailable(f"{device}: the netconf adapter is not running; the intent comes back")
        return self._peers[device]


def _refuse_too_many(accesses: Collection[Access]) -> None:
    """Raise Misconfigured where the sessions of all devices need more open files than this process may have."""
    needed = len(accesses) + sum(access.notifications for access in accesses) + SPARE_FILES
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and needed > limit:
        if most != resource.RLIM_INFINITY and needed > most:
            raise Misconfigured(
                f"the netconf adapter needs {needed} open files for the sessions of {len(accesses)} devices"
                f" and may have {most}: raise the limit (ulimit -n), or divide the devices among several adapters"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
