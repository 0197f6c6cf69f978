"""From an order to its completion on the network, beside a script that does the same to the same element and no more.

The script is what people write: ncclient, one session that stays open, lock, edit-config, a confirmed commit, a read,
the confirming commit, unlock. It knows no order, no policy, no record, no audit and no listener.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any
from uuid import uuid4

from convergedon.adapters.contract import Device
from convergedon.adapters.netconf import mapping, session
from convergedon.demo import past
from convergedon.demo.stage import ORDERING, VENDOR
from tests.bench.rounds import Effort, Result, in_turn, ratios, rounded, spread
from tests.bench.scene import SITES, Ordered, add, delete, means, playing

SITE = "one"
DEVICE = SITES[SITE]["device"]
SERVICE = mapping.load()["internet-access"]
TIMES = {"order": 3, "ncclient": 1, "our session": 3}
"""How often each is done in a turn: what waits for a clock tells the same each time, and takes the longest."""

Calls = Callable[..., Any]
"""How a script makes a call: its name and what ncclient's Manager wants for it."""


async def measure(effort: Effort) -> Result:
    result = Result("an order until the network has it", "ms")
    ordered: list[Ordered] = []
    vlans = count(100)
    async with playing("netconf") as scene:
        await scene.hub(VENDOR, ORDERING)
        device = scene.devices[DEVICE]

        async def order() -> float:
            done = await scene.order(add(SITE, 100 + next(vlans) % 3000))
            ordered.append(done)
            await scene.order(delete(done.product))
            return done.told - done.sent

        def script(calls: Calls) -> Callable[[], Any]:
            async def turn() -> float:
                name = uuid4().hex
                wanted = _wanted(100 + next(vlans) % 3000)
                took = await asyncio.to_thread(_change, calls, name, wanted)
                await asyncio.to_thread(_change, calls, name, None)
                return took

            return turn

        with _plain(device) as plain, _ours(device) as ours:
            contestants = {"order": order, "ncclient": script(plain), "our session": script(ours)}
            for warm in contestants.values():
                await warm()
            ordered.clear()
            took: dict[str, list[float]] = {name: [] for name in contestants}

            async def several(name: str) -> float:
                latest = [await contestants[name]() for _ in range(TIMES[name])]
                took[name] += latest
                return statistics.median(latest)

            before = await scene.metrics()
            turns = {name: partial(several, name) for name in contestants}
            found = await in_turn(turns, 1, effort.seconds * effort.rounds)
            after = await scene.metrics()
    for name, values in took.items():
        result.figures[name] = spread(values, 1000)
    result.figures |= {f"order: {stage}": spread(values, 1000) for stage, values in _stages(ordered).items()}
    result.ratios = ratios(found, ("order", "ncclient"), ("order", "our session"), ("ncclient", "our session"))
    rpcs = means(before, after, "convergedon_adapter_rpc_seconds", "rpc")
    steps = means(before, after, "convergedon_flow_step_seconds", "step")
    result.notes = [
        "order: POST sent until its completion arrives at the vendor's listener; the other two: lock until unlock",
        f"NETCONF calls of the adapter, mean ms: {_listed(rpcs)}",
        f"steps of the worker, mean ms: {_listed(steps)}",
    ]
    return result


def _listed(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {rounded(1000 * took)}" for name, took in sorted(seconds.items()))


def _stages(ordered: list[Ordered]) -> dict[str, list[float]]:
    """Where the time of the orders went, by the times that orders and events carry."""
    stages: dict[str, list[float]] = {}
    for done in ordered:
        begun = next(_instant(e["eventTime"]) for e in done.events if _state(e) == "inProgress")
        accepted, completed = _instant(done.order["orderDate"]), _instant(done.order["completionDate"])
        for name, seconds in (
            ("POST answered", done.answered - done.sent),
            ("accepted - completed (record)", completed - accepted),
            ("accepted - in progress", begun - accepted),
            ("in progress - completed", completed - begun),
            ("completed - told", done.told - completed),
        ):
            stages.setdefault(name, []).append(seconds)
    return stages


def _state(event: Any) -> str:
    return str(event["event"]["productOrder"]["state"])


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _wanted(vlan: int) -> dict[str, str | None]:
    values = {"interface": SITES[SITE]["interface"], "vlan": vlan, "bandwidth": 10, "address": f"10.1.200.{vlan % 250}"}
    return SERVICE.wanted(values)


def _change(call: Calls, name: str, wanted: dict[str, str | None] | None) -> float:
    """Bring an access to the element or take it away; seconds from lock until unlock."""
    payload, chosen = SERVICE.payload(name, wanted), SERVICE.subtree(name)
    begun = perf_counter()
    call("lock", "candidate")
    call("edit_config", payload, target="candidate", default_operation="merge", test_option="test-then-set")
    call("commit", confirmed=True, timeout="30")
    found = SERVICE.read(call("get_config", source="running", filter=chosen).data_ele, name)
    call("commit")
    call("unlock", "candidate")
    took = perf_counter() - begun
    if (found is None) != (wanted is None):
        raise RuntimeError(f"the element has not done what it was told: {found}")
    return took


@contextmanager
def _plain(device: Device) -> Any:
    """ncclient as it is installed."""
    with past.session(device.settings["netconf"], 30) as connected:
        yield lambda rpc, *arguments, **named: getattr(connected, rpc)(*arguments, **named)


@contextmanager
def _ours(device: Device) -> Any:
    """The adapter's own session."""
    access = session.Access.of(device.name, device.address, device.settings["netconf"])
    connection = session.dial(access, lambda _: None, 10)
    try:
        yield connection.call
    finally:
        connection.leave()
