"""What rules for notifications cost: a trap until its customer's listener, and its web service, have what is told.

As fault.py, one after the other and at a rate; but customers are told under rules (no hold-down, no interval) and by a
channel, a webhook, beside the hub. Beside it stands the processor time of all processes for one trap.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from convergedon.demo.stage import NORTHWIND, NOTICES
from tests.bench import fault, servers
from tests.bench.fault import FEW, RATES, STATES, Network
from tests.bench.rounds import Effort, Result, rounded, spread
from tests.bench.scene import Listener, Scene, playing

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HUB, DESK = "one by one, hub", "one by one, webhook"


async def measure(effort: Effort) -> Result:
    result = Result("a trap until its customer is told under rules, by hub and webhook", "ms")
    desk = Listener()
    server = await asyncio.start_server(desk.serve, "127.0.0.1", 0)
    desk.url = "http://{}:{}/desk".format(*server.sockets[0].getsockname()[:2])
    with TemporaryDirectory(prefix="convergedon-bench-") as folder:
        try:
            rules = _rules(Path(folder), desk)
            async with playing("snmp", devices=fault.devices(), notifications=rules) as scene:
                await _measure(scene, desk, effort, result)
        finally:
            server.close()
    return result


def _rules(folder: Path, desk: Listener) -> Path:
    (folder / "secret").write_text(SECRET)
    (folder / "notifications.yaml").write_text(
        "default: {updateInterval: 0, channels: [{channel: desk}]}\n"
        f"channels: {{desk: {{kind: webhook, url: '{desk.url}', secretFile: secret}}}}\n"
    )
    return folder / "notifications.yaml"


async def _measure(scene: Scene, desk: Listener, effort: Effort, result: Result) -> None:
    await scene.hub(NORTHWIND, NOTICES)
    network = Network(scene, await fault.record(scene))
    found: dict[str, list[float]] = defaultdict(list)
    told: dict[str, list[float]] = defaultdict(list)
    await _in_sequence(scene, network, desk, 0)
    spent = 0.0
    for _ in range(effort.rounds):
        before = _spent()
        for name, took in (await _in_sequence(scene, network, desk, effort.seconds)).items():
            found[name] += took
        spent += _spent() - before
        for rate in RATES:
            took, share = await fault._at(rate, scene, network, effort.seconds)
            found[f"{rate}/s"] += took
            told[f"{rate}/s"].append(share)
    for name, took in found.items():
        result.figures[name] = spread(took, 1000)
        if name in told:
            result.figures[name]["told, %"] = rounded(100 * sum(told[name]) / len(told[name]))
    for rate in RATES:
        ratio = result.figures[f"{rate}/s"]["p50"] / result.figures[HUB]["p50"]
        result.ratios[f"{rate}/s / {HUB}"] = rounded(ratio)
    each = 1000 * spent / len(found[HUB])
    result.notes += [
        f"one by one, all processes together took {each:.0f} ms of processor time for each trap",
        "what is over before anybody decided on it is told in a summary, which does not count as told here",
    ]


async def _in_sequence(scene: Scene, network: Network, desk: Listener, seconds: float) -> dict[str, list[float]]:
    took: dict[str, list[float]] = defaultdict(list)
    end = perf_counter() + seconds
    while not took or perf_counter() < end:
        for port in FEW:
            for _ in STATES:
                scene.listener.heard.clear()
                desk.heard.clear()
                service, state, sent = network.toggle(port)

                def is_it(event: Any, wanted: tuple[str, str] = (service, state)) -> bool:
                    return fault._told({"event": {"customerNotification": event}}) == wanted

                hub = scene.listener.until(lambda _, event: is_it(event["event"].get("customerNotification", {})))
                web = desk.until(lambda _, letter: is_it(letter["notification"]))
                for name, (at, _event) in zip((HUB, DESK), await asyncio.gather(hub, web), strict=True):
                    took[name].append(at - sent)
    return took


def _spent() -> float:
    """Processor seconds of all processes that we have started, and they."""
    return sum(map(servers.spent, _below(os.getpid())))


def _below(process: int) -> Iterator[int]:
    for tasks in Path(f"/proc/{process}/task").iterdir():
        for child in map(int, (tasks / "children").read_text().split()):
            yield child
            yield from _below(child)
