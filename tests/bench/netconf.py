"""From an intent to its confirmation on the device, beside a bare script that sends the same calls, and nothing else.

The script has a session like ours (``PromptSession``), or one of ncclient as it is installed, and sends what the
adapter sends: read, lock, read, discard, edit, confirmed commit, read, confirm, copy to startup where the device has
one, unlock. It knows no deadline, no
deliveries, no audit, no metrics and no trace. One device, then many at once beside a pool of threads; the devices are
lab elements in a process of their own, and netconfd where it is installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from ncclient.manager import Manager

from convergedon.adapters.contract import Device, Intent, Outcome
from convergedon.adapters.netconf import NetconfAdapter, mapping
from convergedon.adapters.netconf.lab import Element
from convergedon.adapters.netconf.mapping import Service
from convergedon.adapters.netconf.session import Access, dial
from convergedon.adapters.testing.trial import ignore
from convergedon.adapters.transaction import perform
from convergedon.core import settings
from convergedon.demo import past
from tests.bench.rounds import Effort, Result, in_turn, ratios, spread

SERVICE = mapping.load()["internet-access"]
INTERFACE, CAPACITY = "ge-0/0/1", 100_000
FLEET, MOST = 50, 200
CHANGES = 10

Script = Callable[[Service, int], None]
"""Bring the one access of a device to a bandwidth."""


async def measure(effort: Effort) -> Result:
    result = Result("an intent until the device has confirmed it", "ms")
    full = effort.seconds >= 1
    fleet, most = (FLEET, MOST) if full else (4, 8)
    with elements(most) as devices:
        await _one(result, effort, "lab", devices["pe0"], SERVICE)
        await _many(result, effort, dict(list(devices.items())[:fleet]))
        await _most(result, devices)
    with _netconfd() as real:
        if real:
            await _one(result, effort, "netconfd", real, replace(SERVICE, verify={}))
        else:
            result.notes.append("netconfd is not installed: measured on lab elements only")
    result.notes.append(f"load of the machine at the end: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    return result


async def _one(result: Result, effort: Effort, on: str, device: Device, service: Service) -> None:
    rates = count(1)
    adapter = await _adapter({device.name: device}, service)

    async def intents(number: int) -> None:
        for _ in range(number):
            _applied(await perform(adapter, _intent(device, next(rates))))

    def scripted(script: Script, number: int) -> None:
        for _ in range(number):
            script(service, next(rates))

    with _woken(device) as woken, _shipped(device) as shipped:
        contestants: dict[str, tuple[int, Callable[[int], Any]]] = {
            f"{on}: intent": (CHANGES, intents),
            f"{on}: script": (CHANGES, lambda number: asyncio.to_thread(scripted, woken, number)),
            f"{on}: ncclient as shipped": (2, lambda number: asyncio.to_thread(scripted, shipped, number)),
        }

        busy: dict[str, list[float]] = {name: [] for name in contestants}

        def turn(name: str, number: int, contestant: Callable[[int], Any]) -> Callable[[], Any]:
            async def took() -> float:
                await contestant(1)  # whoever comes after ncclient's waiting would find cold caches
                begun, worked = perf_counter(), process_time()
                await contestant(number)
                busy[name].append((process_time() - worked) / number)
                return (perf_counter() - begun) / number

            return took

        await intents(3)
        turns = {name: turn(name, *contestant) for name, contestant in contestants.items()}
        found = await in_turn(turns, effort.rounds, effort.rounds * effort.seconds)
    await adapter.stop()
    result.figures |= {name: spread(values, 1000) for name, values in found.items()}
    intent, script, stock = contestants
    result.figures |= {f"{name}, CPU": spread(values, 1000) for name, values in busy.items()}
    result.ratios |= ratios(found, (intent, script), (stock, intent))
    result.ratios |= {f"{pair}, CPU": ratio for pair, ratio in ratios(busy, (intent, script)).items()}


async def _many(result: Result, effort: Effort, devices: Mapping[str, Device]) -> None:
    """Many devices at once: the adapter, and a pool with a thread and a script for each."""
    rates = count(1)
    adapter = await _adapter(devices, SERVICE)
    names = (f"{len(devices)} devices: intents", f"{len(devices)} devices: pool of threads")

    async def intents() -> float:
        begun, rate = perf_counter(), next(rates)
        for outcome in await asyncio.gather(*(perform(adapter, _intent(one, rate)) for one in devices.values())):
            _applied(outcome)
        return perf_counter() - begun

    with ExitStack() as sessions, ThreadPoolExecutor(len(devices)) as pool:
        scripts = list(pool.map(lambda device: sessions.enter_context(_woken(device)), devices.values()))

        def pooled() -> float:
            begun, rate = perf_counter(), next(rates)
            list(pool.map(lambda script: script(SERVICE, rate), scripts))
            return perf_counter() - begun

        await intents()
        found = await in_turn({names[0]: intents, names[1]: lambda: asyncio.to_thread(pooled)}, effort.rounds)
    await adapter.stop()
    result.figures |= {name: spread(values, 1000) for name, values in found.items()}
    result.ratios |= ratios(found, names)


async def _most(result: Result, devices: Mapping[str, Device]) -> None:
    """As many devices as there are, from no session to a session and a change on each."""
    adapter = await _adapter(devices, SERVICE)
    begun = perf_counter()
    outcomes = await asyncio.gather(*(perform(adapter, _intent(one, 77)) for one in devices.values()))
    took = perf_counter() - begun
    open_files, limit = len(list(Path("/proc/self/fd").glob("*"))), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    await adapter.stop()
    for outcome in outcomes:
        _applied(outcome)
    result.figures[f"{len(devices)} devices: connect and intent"] = spread([took], 1000)
    result.notes.append(
        f"{len(devices)} devices: all changed in {took:.1f} s from no session, with {open_files} open files of {limit}"
    )


def _applied(outcome: Outcome) -> None:
    if outcome.status != "applied":
        raise RuntimeError(f"{outcome.device}: {outcome.status}: {outcome.words}")


async def _adapter(devices: Mapping[str, Device], service: Service) -> NetconfAdapter:
    adapter = NetconfAdapter(settings.load(confirm_timeout=60), devices, {service.name: service})
    await adapter.start(ignore)
    return adapter


def _intent(device: Device, rate: int) -> Intent:
    key = f"bench-{device.name}-{rate}"
    return Intent(key, "acme", device.name, SERVICE.name, "bench", _values(rate), time.time() + 300)


def _values(rate: int) -> dict[str, Any]:
    return {"interface": INTERFACE, "vlan": 7, "bandwidth": 1 + rate % CAPACITY}


# --- the bare script


def _script(connected: Manager) -> Script:
    def change(service: Service, rate: int) -> None:
        wanted, chosen = service.wanted(_values(rate)), service.subtree("bench")
        payload = service.payload("bench", wanted)
        read = connected.get if service.verify else lambda filter: connected.get_config("running", filter=filter)
        connected.get_config("running", filter=chosen)
        connected.lock("candidate")
        connected.get_config("running", filter=chosen)
        connected.discard_changes()
        connected.edit_config(
            payload,
            target="candidate",
            default_operation="merge",
            test_option="test-then-set",
            error_option="rollback-on-error",
        )
        connected.commit(confirmed=True, timeout="60", persist="bench")
        found = service.read(read(filter=chosen).data_ele, "bench")
        connected.commit(persist_id="bench")
        if ":startup" in connected.server_capabilities:
            connected.copy_config("running", "startup")
        connected.unlock("candidate")
        if found is None or found["bandwidth"] != wanted["bandwidth"]:
            raise RuntimeError(f"the device has not done what it was told: {found}")

    return change


@contextmanager
def _woken(device: Device) -> Iterator[Script]:
    """The session of the adapter, and nothing else of it."""
    connection = dial(Access.of(device.name, device.address, device.settings["netconf"]), lambda _: None, 30)
    try:
        yield _script(connection._manager)
    finally:
        connection.leave()


@contextmanager
def _shipped(device: Device) -> Iterator[Script]:
    with past.session(device.settings["netconf"], 30) as connected:
        yield _script(connected)


# --- devices


@contextmanager
def elements(number: int) -> Iterator[dict[str, Device]]:
    """So many lab elements in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.bench.netconf", str(number), folder]
        served = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert served.stdin
        assert served.stdout
        try:
            told = json.loads(served.stdout.readline())
            yield {name: Device(name, "acme", "127.0.0.1", {"netconf": entry}) for name, entry in told.items()}
        finally:
            served.stdin.close()
            served.wait(30)


async def _serve(number: int, folder: Path) -> None:
    made = [Element(f"pe{one}", folder / str(one), {INTERFACE: CAPACITY}) for one in range(number)]
    for element in made:
        await element.start()
    print(json.dumps({element.name: element.device_entry()["netconf"] for element in made}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for element in made:
        await element.stop()


@contextmanager
def _netconfd() -> Iterator[Device | None]:
    """A real server, where it is installed."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "live"))
    import netconfd
    import peers
    import pytest

    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        try:
            entry = running.enter_context(netconfd.running(Path(folder)))
        except (pytest.skip.Exception, pytest.fail.Exception):
            entry = None
        del peers
        yield Device("netconfd", "acme", "127.0.0.1", {"netconf": entry}) if entry else None


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
