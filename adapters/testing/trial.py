"""What the kit must be given to try an adapter, and what it hands to each of its cases."""

from __future__ import annotations

import importlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from convergedon.adapters import discovery
from convergedon.adapters.contract import Adapter, Device, Intent, Observation, Report, State
from convergedon.core import settings
from convergedon.core.errors import Misconfigured

Given = TypeVar("Given")
GROUP = "convergedon.adapters.trials"
WITHIN = 60.0
"""Seconds until the deadline of an intent that is tried."""


@asynccontextmanager
async def no_devices(folder: Path) -> AsyncIterator[Mapping[str, Device]]:
    """For an adapter that is spoken to and speaks to nobody."""
    yield {}


def send(address: str, datagrams: Sequence[bytes]) -> None:
    """From this machine, to where an adapter listens."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, (host.strip("[]"), int(port)))


@dataclass(frozen=True)
class Trial:
    """How an adapter is tried; what does not concern it is left out.

    ``devices`` starts devices for as long as a block, as new each time (simulated ones, or real ones that are reset);
    the folder is theirs. ``wanted`` is an intent that one of them can fulfil and does not yet, ``refused`` one that it
    or the mapping says no to. ``place`` says where a device is reached by TCP (by UDP where ``datagrams`` says so), and
    ``moved`` is the same device reached somewhere else: so the kit puts a faulty network between. ``golden`` is a
    folder of cases (see golden.py).
    ``deliver`` brings what an adapter that listens is to hear to where it listens: datagrams, if it says nothing else.
    ``mapping`` is the adapter's mapping file: its name in the folder CONVERGEDON_MAPPINGS, and one that is right.
    ``given`` are settings. ``waivers`` name what is knowingly not held: the name of a case, and why.
    """

    devices: Callable[[Path], AbstractAsyncContextManager[Mapping[str, Device]]] = no_devices
    wanted: Intent | None = None
    refused: Intent | None = None
    place: Callable[[Device], tuple[str, int]] | None = None
    moved: Callable[[Device, str, int], Device] | None = None
    datagrams: bool = False
    golden: Traversable | None = None
    deliver: Callable[[str, Sequence[bytes]], None] = send
    mapping: tuple[str, Traversable] | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    waivers: Mapping[str, str] = field(default_factory=dict)
    patience: float = 60.0


def trial_of(name: str) -> Trial:
    """The trial of an installed adapter: the module ``trial`` beside it, or what its distribution names.

    Raises Misconfigured when there is none, or no such adapter.
    """
    discovery.require(name)
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            found: Trial = entry.load()
            return found
    try:
        module = importlib.import_module(f"convergedon.adapters.{name}.trial")
    except ImportError as error:
        raise Misconfigured(
            f"adapter {name} cannot be tried: no entry point {name} in {GROUP}, or a part is missing ({error})"
        ) from error
    ours: Trial = module.TRIAL
    return ours


def given_in(found: Given | None, name: str) -> Given:
    """A part of a trial that a case needs. Raises Misconfigured when it is left out."""
    if found is None:
        raise Misconfigured(f"its trial says nothing of what is {name}")
    return found


async def ignore(observation: Observation) -> None:
    """A report of what nobody waits for."""


class Bench:
    """An adapter on trial, as the cases see it."""

    def __init__(self, name: str, trial: Trial, folder: Path, create: discovery.Factory | None = None) -> None:
        self.name, self.trial, self.folder = name, trial, folder
        self._create = create or discovery.require(name)
        self._rounds, self._data = 0, folder

    def create(self, devices: Mapping[str, Device], **given: Any) -> Adapter:
        whole = {"data": self._data, "trap_port": 0, "flow_port": 0, **self.trial.given, **given}
        return self._create(settings.load(**whole), devices)

    @asynccontextmanager
    async def devices(self) -> AsyncIterator[Mapping[str, Device]]:
        """Devices as they are when nobody has changed them."""
        self._rounds += 1
        folder, self._data = (self.folder / f"{what}-{self._rounds}" for what in ("devices", "data"))
        folder.mkdir()
        async with self.trial.devices(folder) as found:
            yield found

    @asynccontextmanager
    async def started(self, devices: Mapping[str, Device], report: Report = ignore) -> AsyncIterator[Any]:
        """An adapter for these devices, with its addresses in ``addresses``; stopped at the end."""
        adapter = self.create(devices)
        await adapter.start(report)
        try:
            yield adapter
        finally:
            await adapter.stop()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Any]:
        """An adapter with new devices."""
        async with self.devices() as devices, self.started(devices) as adapter:
            yield adapter

    @property
    def wanted(self) -> Intent:
        return replace(given_in(self.trial.wanted, "wanted"), deadline=time.time() + WITHIN)

    @property
    def refused(self) -> Intent:
        return replace(given_in(self.trial.refused, "refused"), deadline=time.time() + WITHIN)

    @property
    def performs(self) -> bool:
        return self.create({}).performs

    async def state(self, devices: Mapping[str, Device], intent: Intent) -> State:
        """What the device has of an intent's service, read by an adapter of its own over a good network."""
        async with self.started(devices) as adapter:
            found = await adapter.observe(intent)
            return None if found is None else dict(found)


def sockets() -> set[str]:
    """The sockets this process has open, where the system lists them (Linux); else none."""
    found = set()
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found
