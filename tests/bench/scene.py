"""What the order and fault benchmarks are measured on: the whole system with the lab, a caller and a listener."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

import httpx
import orjson
import yaml

from convergedon.adapters import inventory
from convergedon.adapters.contract import Device
from convergedon.core import settings, up
from convergedon.core.settings import Settings
from convergedon.demo.stage import NORTHWIND, ORDERING, VENDOR, Caller, Gateway

PATIENCE = 30.0
QUIET = 2.0
"""Seconds without a notification after which none comes any more."""
SITES = {
    "one": {"device": "pe1", "interface": "ge-0/0/1", "network": "10.1.0.0/16"},
    "two": {"device": "pe1", "interface": "ge-0/0/2", "network": "10.2.0.0/16"},
    "three": {"device": "pe2", "interface": "ge-0/0/1", "network": "10.3.0.0/16"},
    "four": {"device": "pe2", "interface": "ge-0/0/2", "network": "10.4.0.0/16"},
}


@dataclass
class Listener:
    """Keeps each event with the time at which its last byte was read; the path says who listens."""

    url: str = ""
    heard: list[tuple[float, str, Mapping[str, Any]]] = field(default_factory=list)
    _bell: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next(int(line[15:]) for line in head.splitlines() if line.startswith("content-length:"))
                event = await reader.readexactly(length)
                self.heard.append((time(), head.split(" ")[1].strip("/"), orjson.loads(event)))
                self._bell.set()
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async def until(self, wanted: Callable[[str, Mapping[str, Any]], bool]) -> tuple[float, Mapping[str, Any]]:
        """The first event that is wanted, with when it arrived. Raises TimeoutError."""
        looked = 0
        async with asyncio.timeout(PATIENCE):
            while True:
                for at, who, event in self.heard[looked:]:
                    if wanted(who, event):
                        return at, event
                looked = len(self.heard)
                self._bell.clear()
                await self._bell.wait()

    async def quiet(self) -> None:
        """Wait until something has come, and then nothing any more. Raises TimeoutError when nothing comes at all."""
        await self.until(lambda *_: True)
        heard = -1
        while heard < len(self.heard):
            heard = len(self.heard)
            await asyncio.sleep(QUIET)


@dataclass(frozen=True)
class Scene:
    settings: Settings
    connection: up.Connection
    devices: Mapping[str, Device]
    gateway: Gateway
    listener: Listener

    async def hub(self, who: Caller, base: str) -> None:
        answer = await self.gateway.ask(who, "POST", f"{base}/hub", {"callback": f"{self.listener.url}/{who.name}"})
        answer.raise_for_status()

    async def order(self, item: Mapping[str, Any]) -> Ordered:
        """Order, and wait until the vendor's listener has heard that the network has it."""
        body = {"relatedParty": [NORTHWIND.related], "productOrderItem": [item]}
        sent = time()
        answer = await self.gateway.ask(VENDOR, "POST", f"{ORDERING}/productOrder", body)
        answered = time()
        answer.raise_for_status()
        id = answer.json()["id"]

        def ended(who: str, event: Mapping[str, Any]) -> bool:
            order = event["event"].get("productOrder", {})
            return order.get("id") == id and order["state"] not in ("acknowledged", "inProgress")

        told, event = await self.listener.until(ended)
        order = event["event"]["productOrder"]
        if order["state"] != "completed":
            raise RuntimeError(f"the order is {order['state']}: {order.get('note')}")
        mine = [e for _, _, e in self.listener.heard if e["event"].get("productOrder", {}).get("id") == id]
        return Ordered(order, sent, answered, told, mine)

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels."""
        async with httpx.AsyncClient(base_url=self.connection.gateway, trust_env=False) as client:
            lines = (await client.get("/metrics")).text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


@dataclass(frozen=True)
class Ordered:
    """An order that was completed, with when it was sent, answered and told as completed."""

    order: Mapping[str, Any]
    sent: float
    answered: float
    told: float
    events: Sequence[Mapping[str, Any]]

    @property
    def product(self) -> str:
        return str(self.order["productOrderItem"][0]["product"]["id"])


def add(site: str, vlan: int, bandwidth: int = 10) -> dict[str, Any]:
    given = {"bandwidth": bandwidth, "vlan": vlan, "site": site}
    product = {"productCharacteristic": [{"name": name, "value": value} for name, value in given.items()]}
    return {"id": "1", "action": "add", "productOffering": {"id": "internet-access"}, "product": product}


def delete(product: str) -> dict[str, Any]:
    return {"id": "1", "action": "delete", "product": {"id": product}}


def means(before: Mapping[str, float], after: Mapping[str, float], name: str, label: str) -> dict[str, float]:
    """label -> mean seconds of a histogram between two looks at /metrics."""
    found = {}
    for sample, count in after.items():
        if sample.startswith(f"{name}_count{{"):
            total = sample.replace("_count{", "_sum{", 1)
            calls = count - before.get(sample, 0)
            if calls:
                labels = dict(part.split("=") for part in sample.partition("{")[2].rstrip("}").split(","))
                found[labels[label].strip('"')] = (after[total] - before.get(total, 0)) / calls
    return found


@asynccontextmanager
async def playing(
    *adapters: str, devices: Mapping[str, Any] | None = None, store: str = "", notifications: Path | None = None
) -> AsyncIterator[Scene]:
    """The system as `convergedon up --lab` starts it, on a folder of its own and free ports; without a lab where what
    the devices file holds is given, on a database of its own where the URL of a store is, and with rules for
    notifications where these are.
    """
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        products = yaml.safe_load((Path(up.__file__).parents[1] / "mediation" / "products.yaml").read_text())
        (folder / "products.yaml").write_text(yaml.safe_dump({**products, "sites": {"acme": SITES}}))
        file = folder / "lab" / "devices.yaml"
        if devices is not None:
            file = folder / "devices.yaml"
            file.write_text(yaml.safe_dump(devices))
            file.chmod(0o600)
        given = settings.load(
            data=folder,
            devices=file if devices is not None else None,
            mongodb_url=store,
            database=f"bench-{uuid4().hex}" if store else "convergedon",
            port=0,
            trap_port=0,
            flow_port=0,
            products=folder / "products.yaml",
            log_level="warning",
            flap_clears=0,  # a few ports by turns stand for many
            notifications=notifications,
        )
        async with up.system(given, lab=devices is None, adapters=adapters) as system:
            known = inventory.load(file)
            listener = Listener()
            server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
            listener.url = "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
            url = system.connection.gateway
            try:
                async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
                    yield Scene(given, system.connection, known, Gateway(client, given), listener)
            finally:
                server.close()
