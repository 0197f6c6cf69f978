"""Without a decision nothing happens: over REST 503 with the reason, from the bus later; and all goes on by itself."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from decider import WRONG, Decider, deciding
from scene import BERLIN, Scene, engine, item

from convergedon.core import policy, settings, tokens, up
from convergedon.core.engines import Closed, Engine, OpaServer
from convergedon.core.errors import Unavailable

SHIPPED = Path(policy.__file__).parents[1] / "policies"
ORDERS = "/tmf-api/productOrderingManagement/v4/productOrder"
FAILURES = ("closed", "down", "silent", *WRONG)


class Counting:
    """Counts how often it was asked in vain."""

    def __init__(self, inner: Engine) -> None:
        self._inner, self.revision, self.failed = inner, inner.revision, 0

    async def evaluate(self, question: Any) -> Any:
        self.failed += 1
        return await self._inner.evaluate(question)

    async def close(self) -> None:
        await self._inner.close()


@asynccontextmanager
async def failing(how: str) -> AsyncIterator[Counting]:
    """An engine that gives no decision."""
    if how == "closed":
        yield Counting(Closed("no policies (*.rego) in /etc/policies"))
        return
    async with deciding(engine()) as decider:
        decider.mode = how
        url = f"http://127.0.0.1:{nobody()}" if how == "down" else decider.url
        made = Counting(OpaServer(url, wait=0.3))
        try:
            yield made
        finally:
            await made.close()


def nobody() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("how", FAILURES)
async def test_work_from_the_bus_waits_for_a_decision(scene: Scene, how: str) -> None:
    """No device is touched, nothing is parked and nothing lost; with the next decision the order is completed."""
    async with failing(how) as broken:
        scene.work.policy.swap(broken)
        with pytest.raises(Unavailable):
            await scene.work.policy.ping()
        broken.failed = 0
        id = await scene.order(item(**BERLIN))

        async def tried_again() -> bool:
            return broken.failed >= 3

        await scene.until(tried_again)
        before = await scene.store.get("productOrder", "acme", id)
        touched, parked = dict(scene.network.services), await scene.bus.parked()
        scene.work.policy.swap(engine())
        order = await scene.ended(id)

    assert before.body["state"] == "acknowledged"
    assert (touched, parked) == ({}, [])
    assert order["state"] == "completed"
    assert scene.network.services == {"pe1": [{"bandwidth": 100, "vlan": 10}]}


# --- over REST, in a system of processes


def order(vlan: int) -> dict[str, Any]:
    given = {"bandwidth": 100, "vlan": vlan, "site": "berlin-1"}
    product = {"productCharacteristic": [{"name": name, "value": value} for name, value in given.items()]}
    asked = {"id": "1", "action": "add", "productOffering": {"id": "internet-access"}, "product": product}
    party = {"id": "northwind", "role": "customer", "@referredType": "Organization"}
    return {"relatedParty": [party], "productOrderItem": [asked]}


@asynccontextmanager
async def calling(folder: Path, lab: bool = False, **given: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a system, who may order."""
    chosen = settings.load(data=folder / "data", port=0, trap_port=0, flow_port=0, **given)
    adapters = ("netconf",) if lab else ()
    async with (
        up.system(chosen, lab=lab, adapters=adapters) as system,
        httpx.AsyncClient(base_url=system.connection.gateway, timeout=20, trust_env=False) as client,
    ):
        client.headers["Authorization"] = f"Bearer {tokens.issue(chosen, 'acme', 'csr')}"
        yield client


async def until(true: Callable[[], Awaitable[bool]], patience: float = 20) -> None:
    async with asyncio.timeout(patience):
        while not await true():
            await asyncio.sleep(0.05)


async def is_refused(client: httpx.AsyncClient, words: str) -> None:
    """The call is refused with a reason, and readiness is down for the same one."""
    answer, ready = await client.get(ORDERS), await client.get("/readyz")

    body = answer.json()
    assert (answer.status_code, body["code"], body["status"], body["@type"]) == (503, "ERR503", "503", "Error"), words
    assert words in body["message"]
    assert "\n" not in body["message"]
    policy_state = ready.json()["components"]["policy"]
    assert (ready.status_code, policy_state["state"]) == (503, "unavailable")
    assert words in policy_state["reason"]


async def is_served(client: httpx.AsyncClient) -> bool:
    answer, ready = await client.get(ORDERS), await client.get("/readyz")
    return (answer.status_code, ready.status_code) == (200, 200)


async def test_a_folder_that_cannot_be_used_is_503_until_it_is_mended(tmp_path: Path) -> None:
    """Empty, not compiling, without the question, without its data's sense: each in its own words, and no restart."""
    folder = tmp_path / "policies"
    folder.mkdir()

    def lay(**texts: str) -> None:
        for file in list(folder.iterdir()):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        for name, text in texts.items():
            (folder / name.replace("_", ".")).write_text(text)

    async with calling(tmp_path, policies=folder) as client:
        await is_refused(client, f"no policies (*.rego) in {folder}")
        for texts, words in (
            ({"main_rego": "package main\n\nallow if {"}, "policy does not compile"),
            ({"main_rego": "package main\n\nallow := true\n"}, "no rule main.decision that answers"),
            ({"main_rego": "package main\n", "data_json": "{"}, "data.json is not JSON"),
        ):
            lay(**texts)

            async def heard(words: str = words) -> bool:
                return words in (await client.get(ORDERS)).json()["message"]

            await until(heard)
            await is_refused(client, words)
        lay()
        shutil.copytree(SHIPPED, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
        await until(lambda: is_served(client))
        ready = (await client.get("/readyz")).json()

    assert ready["components"]["policy"]["revision"] == policy.read(SHIPPED).revision


async def test_a_server_without_a_decision_is_503_until_it_has_one(tmp_path: Path) -> None:
    """Down, silent, and whatever nonsense: refused in time, with a reason, and served again with the next decision."""
    async with deciding(engine()) as decider, calling(tmp_path, opa_url=decider.url) as client:
        assert await is_served(client)
        for mode in WRONG:
            decider.mode = mode
            words = "policy server does not answer" if mode in ("a fault", "an empty bundle", "no JSON") else "decision"
            await is_refused(client, words)
            decider.mode = "ok"
            assert await is_served(client), mode
        decider.mode = "silent"
        await is_refused(client, "the policy server does not answer within 2 s")
        decider.mode = "ok"
        assert await is_served(client)


async def test_an_order_that_was_taken_is_done_when_there_is_a_decision_again(tmp_path: Path) -> None:
    """The gateway took it, the worker finds no decision: it waits on the bus, and a device is configured in the end."""
    async with deciding(engine()) as decider, calling(tmp_path, lab=True, opa_url=decider.url) as client:
        for vlan, mode in enumerate(("an empty bundle", "silent"), 100):
            await waits_and_ends(decider, client, mode, vlan)


async def waits_and_ends(decider: Decider, client: httpx.AsyncClient, mode: str, vlan: int) -> None:
    decider.mode, decider.wrong_on, decider.asked = mode, frozenset({"adapter", "flow"}), []
    made = await client.post(ORDERS, json=order(vlan))
    assert made.status_code == 201, made.text
    url = f"{ORDERS}/{made.json()['id']}"

    async def asked_twice() -> bool:
        return len(decider.asked) > 1

    await until(asked_twice)
    assert (await client.get(url)).json()["state"] in ("acknowledged", "inProgress")
    decider.mode = "ok"

    async def ended() -> bool:
        return (await client.get(url)).json()["state"] not in ("acknowledged", "inProgress")

    await until(ended)
    last = (await client.get(url)).json()
    assert last["state"] == "completed", last.get("note")
