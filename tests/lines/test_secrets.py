"""No secret is told: the whole system works, and fails, with secrets that can be recognised, and then is searched."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import nats
import pymongo
import pytest
import yaml
from nats.js.api import ConsumerConfig, DeliverPolicy

from convergedon.adapters.netconf.lab import Element
from convergedon.adapters.snmp import lab as trapper
from convergedon.core import settings, tokens, up
from convergedon.core.bus import STREAMS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ORDERS = "/tmf-api/productOrderingManagement/v4"
PEM = re.compile(r"^[A-Za-z0-9+/=]{40,}$", re.MULTILINE)
INTERFACES = {"ge-0/0/1": 1000, "ge-0/0/2": 1000}


def secret(of: str) -> str:
    return f"s3cret-{of}-{secrets.token_hex(16)}"


@asynccontextmanager
async def elements(folder: Path, password: str) -> AsyncIterator[dict[str, Element]]:
    made = {name: Element(name, folder / name, INTERFACES, password=password) for name in ("pe1", "pe2")}
    for element in made.values():
        await element.start()
    try:
        yield made
    finally:
        for element in made.values():
            await element.stop()


def devices(made: Mapping[str, Element], wrong: str) -> dict[str, Any]:
    """pe1 as it is, pe2 with a password that it does not take."""
    found = {}
    for number, (name, element) in enumerate(made.items(), 1):
        entry = element.device_entry()
        found[name] = {
            "tenant": "acme",
            "address": f"127.0.10.{number}",
            "netconf": entry["netconf"],
            "snmp": {"interfaces": {1: "ge-0/0/1"}},
        }
    found["pe2"]["netconf"]["password"] = wrong
    return {"devices": found}


@asynccontextmanager
async def running(data: Path, env: Mapping[str, str]) -> AsyncIterator[up.Connection]:
    ports = ["--port", "0", "--trap-port", "0", "--flow-port", "0"]
    command = [sys.executable, "-P", "-m", "convergedon.core.cli", "up", "--data", str(data), *ports]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONVERGEDON_")}
    process = await asyncio.create_subprocess_exec(*command, env={**clean, **env}, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        while (await process.stdout.readline()).strip() != b"ready":
            assert not process.stdout.at_eof(), "it ended before it was ready"
        found = up.find(data)
        assert found is not None
        yield found
    finally:
        process.terminate()
        await process.wait()


def order(site: str) -> dict[str, Any]:
    characteristics = [("bandwidth", 100), ("vlan", 110), ("site", site)]
    item = {
        "id": "1",
        "action": "add",
        "productOffering": {"id": "internet-access"},
        "product": {"productCharacteristic": [{"name": name, "value": value} for name, value in characteristics]},
    }
    customer = {"id": "northwind", "role": "customer", "@referredType": "Organization"}
    return {"relatedParty": [customer], "productOrderItem": [item]}


async def eventually(ask: Any, words: str, patience: float = 40.0) -> None:
    deadline = monotonic() + patience
    while not await ask():
        assert monotonic() < deadline, words
        await asyncio.sleep(0.2)


async def on_the_bus(url: str) -> AsyncIterator[tuple[str, str]]:
    """Every message that is kept, with its headers."""
    client = await nats.connect(url)
    try:
        stream = client.jetstream()
        for name in STREAMS:
            waiting = (await stream.stream_info(name)).state.messages
            config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
            if not waiting or str(STREAMS[name].retention).endswith("WORK_QUEUE"):
                continue
            reader = await stream.subscribe(">", stream=name, ordered_consumer=True, config=config)
            for _ in range(waiting):
                message = await reader.next_msg(timeout=5)
                yield f"bus {name} {message.subject}", f"{message.headers} {message.data.decode(errors='replace')}"
            await reader.unsubscribe()
    finally:
        await client.close()


def in_the_store(url: str) -> Iterator[tuple[str, str]]:
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        database = client["convergedon"]
        for name in database.list_collection_names():
            for document in database[name].find({}):
                yield f"store {name}", str(document)


def in_files(data: Path) -> Iterator[tuple[str, str]]:
    for folder in ("log", "run"):
        for file in (data / folder).rglob("*"):
            if file.is_file() and file.name != "connection.json":
                yield str(file), file.read_text(errors="replace")
    for name in ("nats/nats.log", "mongodb/mongodb.log"):
        if (data / name).exists():
            yield name, (data / name).read_text(errors="replace")


def on_command_lines(data: Path) -> Iterator[tuple[str, str]]:
    for pid in json.loads((data / "run" / "pids.json").read_text()):
        yield f"command line of {pid}", Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


def of_keys(data: Path) -> dict[str, str]:
    """A piece of each key that the data folder keeps."""
    found = {}
    for file in (data / "keys").iterdir():
        content = file.read_bytes()
        lines = PEM.findall(content.decode(errors="replace"))
        found[f"key {file.name}"] = lines[0] if lines else content[:32].hex()
    return found


@pytest.mark.timeout(180)
async def test_no_secret_is_told(tmp_path: Path) -> None:
    """Orders that succeed and that a device refuses, traps, listeners that are away, bad tokens, the console: what is
    kept and said of all this holds no password, community, key or token.
    """
    data, told = tmp_path / "data", {name: secret(name) for name in ("device", "wrong", "community", "foreign")}
    told |= {name: secret(name) for name in ("hub", "audit", "metrics", "callback", "intent")}
    (tmp_path / "hub").write_text(told["hub"])
    said: list[tuple[str, str]] = []
    async with elements(tmp_path / "elements", told["device"]) as made:
        file = tmp_path / "devices.yaml"
        file.write_text(yaml.safe_dump(devices(made, told["wrong"])))
        env = {
            "CONVERGEDON_DEVICES": str(file),
            "CONVERGEDON_HUB_KEY_FILE": str(tmp_path / "hub"),
            "CONVERGEDON_AUDIT_KEY": told["audit"],
            "CONVERGEDON_INTENT_KEY": told["intent"],
            "CONVERGEDON_METRICS_TOKEN": told["metrics"],
            "CONVERGEDON_TRAP_COMMUNITIES": told["community"],
            "CONVERGEDON_DELIVERY_HORIZON": "1",
            "CONVERGEDON_RETRY_HORIZON": "3",
            "CONVERGEDON_LOG_LEVEL": "debug",
        }
        async with running(data, env) as connection:
            read = settings.load(data=data)
            good = tokens.issue(read, "acme", "csr")
            admin = tokens.issue(read, "acme", "admin")
            bad = f"{good[:-20]}{secrets.token_hex(10)}"
            told |= {"token": good.rpartition(".")[2], "admin": admin.rpartition(".")[2], "bad": bad[-20:]}
            told["nats"] = (data / "nats" / "token").read_text()
            told["store"] = (data / "mongodb" / "password").read_text()

            async with httpx.AsyncClient(base_url=connection.gateway, timeout=20) as client:

                async def call(method: str, path: str, token: str = good, **given: Any) -> httpx.Response:
                    headers = {"Authorization": f"Bearer {token}"}
                    answer = await client.request(method, path, headers=headers, **given)
                    said.append((f"{method} {path}", f"{answer.text}"))
                    return answer

                callback = f"http://127.0.0.1:9/hook?key={told['callback']}"
                registered = await call("POST", f"{ORDERS}/hub", admin, json={"callback": callback})
                assert registered.status_code == 201, registered.text
                said.pop()  # the listener hears its own callback
                told["listener"] = registered.headers["X-Hub-Secret"].removeprefix("whsec_")
                first = await call("POST", f"{ORDERS}/productOrder", json=order("berlin-1"))
                second = await call("POST", f"{ORDERS}/productOrder", json=order("hamburg-1"))
                assert (first.status_code, second.status_code) == (201, 201), (first.text, second.text)
                where = connection.trap.rsplit(":", 1)
                for community in (told["community"], told["foreign"]):
                    trapper.trap_link("down", "127.0.10.1", "ge-0/0/1", 1, community, (where[0], int(where[1])))
                for token in (bad, f"x.{told['bad']}.y", told["metrics"]):
                    assert (await call("GET", f"{ORDERS}/productOrder", token)).status_code == 401
                assert (await call("GET", "/metrics", bad)).status_code == 401
                form = re.search(r'name="form" value="([^"]+)"', (await client.get("/console/login")).text)
                assert form
                for token in (bad, admin):
                    entered = await client.post("/console/login", data={"form": form[1], "token": token})
                    said.append(("console", entered.text))
                told["session"] = client.cookies["convergedon_console"].rpartition(".")[2]
                for page in ("/", "/fragment/parked", "/fragment/orders", "/fragment/alarms"):
                    said.append(("console", (await client.get(f"/console{page}")).text))

                async def state(order: httpx.Response) -> str:
                    return str((await call("GET", f"{ORDERS}/productOrder/{order.json()['id']}")).json()["state"])

                async def completed() -> bool:
                    return await state(first) == "completed"

                async def parked() -> bool:
                    return (
                        "parked"
                        in (await call("GET", "/metrics", told["metrics"])).text.partition(
                            'convergedon_parked_total{stream="DELIVERY"}'
                        )[1]
                    )

                async def alarmed() -> bool:
                    answer = await call("GET", "/tmf-api/alarmManagement/v4/alarm", admin)
                    return len(answer.json()) > 0

                await eventually(completed, "the order on pe1 is not completed")
                await eventually(alarmed, "the trap became no alarm")
                await eventually(parked, "what the listener did not take is not parked")
                await state(second)
                said += [entry async for entry in on_the_bus(connection.nats)]
                for where_, text in in_the_store(connection.mongodb):
                    # a listener's record holds its callback, or it could not be called
                    said.append((where_, text.replace(callback, "") if where_ == "store hub" else text))
                said += on_command_lines(data)
        said += in_files(data)
        told |= of_keys(data)

    leaks = sorted({f"{name} in {where}" for where, text in said for name, value in told.items() if value in text})
    assert leaks == []
    kinds = {where.split()[0] for where, _ in said}
    assert {"bus", "store", "command", "GET", "POST", "console"} <= kinds
    assert any("/log/" in where for where, _ in said)
    assert sum(len(text) for _, text in said) > 50_000
    assert all(len(value) >= 20 for value in told.values())
    assert_closed(data, told)


def assert_closed(data: Path, told: Mapping[str, str]) -> None:
    """The data folder is its owner's alone, and so is each file in it that holds a secret.

    The servers write their stores as they like, in folders that are their owner's alone.
    """
    for folder in (data, *(data / name for name in ("keys", "mongodb", "nats", "run", "log"))):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    for file in data.rglob("*"):
        if file.is_file() and "store" not in file.parts:
            content = file.read_bytes()
            held = [name for name, value in told.items() if value.encode() in content]
            if held or file.parent.name == "keys":
                assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, (file, held)
