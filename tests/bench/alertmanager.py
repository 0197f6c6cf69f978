"""Prometheus Alertmanager as Debian packages it, fed with the same faults over its API and telling the same sink.

It is set to be as quick as it can: each alert is a group of its own, the first notification waits for nothing, and what
changes is looked at every ``AGAIN``. What it does is less: it decodes no trap, keeps nothing that a power cut would
leave, and knows no services and customers; its sink is told of a port.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from socket import create_server
from time import perf_counter, time
from typing import Any

import httpx

from tests.bench.scene import Listener

START = 20.0
"""Seconds that it may take to start."""
AGAIN = "10ms"
"""The shortest that is of use: below, it notifies no faster."""


Port = tuple[str, str]
"""Device and interface."""


@dataclass
class Alertmanager:
    """One that runs, and the ports of which it is told."""

    client: httpx.AsyncClient
    listener: Listener
    ports: Sequence[Port]

    def __post_init__(self) -> None:
        self._down: set[Port] = set()

    async def in_sequence(self, seconds: float) -> list[float]:
        """Each port down and up, one after another, for so long: seconds from before the call to the notification."""
        took: list[float] = []
        end = perf_counter() + seconds
        while not took or perf_counter() < end:
            for port in self.ports:
                for _ in range(2):
                    self.listener.heard.clear()
                    state, sent = await self._toggle(port)
                    at, _ = await self.listener.until(lambda _, event, what=(port, state): what in _said(event))
                    took.append(at - sent)
        return took

    async def at(self, rate: int, beats: Sequence[Port]) -> tuple[list[float], float]:
        """A change of each of these on its beat: what each took that was told, and their share."""
        self.listener.heard.clear()
        sent: dict[tuple[Port, str], list[float]] = defaultdict(list)
        begun = perf_counter()
        async with asyncio.TaskGroup() as calls:
            for number, port in enumerate(beats):
                await asyncio.sleep(max(0.0, begun + number / rate - perf_counter()))
                calls.create_task(self._count(port, sent))
        await self.listener.quiet()
        took = []
        for at, _, event in self.listener.heard:
            for what in _said(event):
                if traps := [one for one in sent[what] if one <= at]:
                    sent[what].remove(traps[-1])
                    took.append(at - traps[-1])
        return took, len(took) / len(beats)

    async def _count(self, port: Port, sent: Mapping[tuple[Port, str], list[float]]) -> None:
        state, at = await self._toggle(port)
        sent[port, state].append(at)

    async def _toggle(self, port: Port) -> tuple[str, float]:
        """Tell the next change of a port: its state and when that was sent."""
        self._down ^= {port}
        state, at = "down" if port in self._down else "up", time()
        device, interface = port
        alert: dict[str, Any] = {"labels": {"alertname": "linkDown", "device": device, "interface": interface}}
        alert["startsAt" if state == "down" else "endsAt"] = datetime.fromtimestamp(at, UTC).isoformat()
        (await self.client.post("/api/v2/alerts", json=[alert])).raise_for_status()
        return state, at


def _said(event: Mapping[str, Any]) -> list[tuple[Port, str]]:
    """Of which ports a notification says what."""
    return [
        ((alert["labels"]["device"], alert["labels"]["interface"]), "down" if alert["status"] == "firing" else "up")
        for alert in event.get("alerts", ())
    ]


def program() -> str | None:
    return shutil.which(os.environ.get("ALERTMANAGER") or "prometheus-alertmanager")


@asynccontextmanager
async def running(binary: str, listener: Listener, ports: Sequence[Port]) -> AsyncIterator[Alertmanager]:
    """One that tells the listener, ended with the block. Raises RuntimeError when it does not start."""
    with create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    route = {"receiver": "sink", "group_by": ["..."], "group_wait": "0s", "group_interval": AGAIN}
    sinks = [{"name": "sink", "webhook_configs": [{"url": f"{listener.url}/alertmanager", "send_resolved": True}]}]
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-") as folder:
        config = Path(folder) / "alertmanager.yml"
        config.write_text(json.dumps({"route": route, "receivers": sinks}))  # JSON is YAML, too
        process = await asyncio.create_subprocess_exec(
            *(binary, f"--config.file={config}", f"--storage.path={folder}", f"--web.listen-address={address}"),
            *("--cluster.listen-address=", "--log.level=error"),
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
                await _ready(client, process)
                yield Alertmanager(client, listener, ports)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _ready(client: httpx.AsyncClient, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START):
        while process.returncode is None:
            try:
                if (await client.get("/-/ready")).is_success:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.02)
    raise RuntimeError("Alertmanager did not start")
