"""How fast one order and a page of twenty are read, beside the same bytes from the frameworks below.

The page is the first of a hundred orders in every server that keeps any; one order is another one each time.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from convergedon.core import settings, tokens
from tests.bench import load, servers
from tests.bench.orders import ORDER, SERVICE_ORDER, request
from tests.bench.post import CONNECTIONS, LABELS, ORDERS, SERVICE_ORDERS, UNIT, compare
from tests.bench.rounds import Effort, Result, in_turn

NAMES = ("memory", "frame", "connexion", "starlette", "tmf-mock")
KEPT = 100
PAIRS = (("memory", "connexion"), ("frame", "connexion"), ("memory", "starlette"), ("memory", "tmf-mock"))


async def measure(effort: Effort) -> Result:
    result = Result(f"GET productOrder, one and a page of {servers.PAGE}, {CONNECTIONS} connections", UNIT)
    samples: dict[str, list[dict[str, Any]]] = defaultdict(list)
    statuses: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-") as name:
        folder = Path(name)
        (folder / "metrics").mkdir()
        token = tokens.issue(settings.load(data=folder), "acme", "csr")
        env = {
            "CONVERGEDON_DATA": str(folder),
            "CONVERGEDON_PORT": "0",
            "CONVERGEDON_LOG_LEVEL": "warning",
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
        }
        async with AsyncExitStack() as stack:
            places = {
                name: await stack.enter_async_context(
                    servers.process(name, env if name in ("memory", "frame") else None)
                )
                for name in NAMES
            }
            asked = {}
            for name, (place, process) in places.items():
                path = SERVICE_ORDERS if name == "tmf-mock" else ORDERS
                bearer = token if name in ("memory", "frame") else ""
                ids = await _filled(place, path, bearer) if name in ("memory", "tmf-mock") else _invented()
                one = [request("GET", f"{path}/{id}", bearer) for id in ids]
                asked[f"{name}, one"] = (place, process.pid, one)
                asked[f"{name}, page"] = (place, process.pid, [request("GET", f"{path}?limit={servers.PAGE}", bearer)])

            async def turn(name: str) -> float:
                place, process, requests = asked[name]
                before = servers.spent(process)
                found = await load.measure(place, requests, CONNECTIONS, effort.seconds)
                answered = sum(found["statuses"].values())
                samples[name].append({**found, "cpu": 1e6 * (servers.spent(process) - before) / answered})
                statuses.update({f"{name} {status}": count for status, count in found["statuses"].items()})
                return float(found["rate"])

            found = await in_turn({name: lambda name=name: turn(name) for name in asked}, effort.rounds)
    pairs = [(f"{one}, {what}", f"{other}, {what}") for what in ("one", "page") for one, other in PAIRS]
    compare(result, found, samples, pairs)
    result.notes = [f"{name}: {LABELS[name].replace('POST serviceOrder', 'GET serviceOrder')}" for name in NAMES]
    wrong = {seen: count for seen, count in statuses.items() if seen.rpartition(" ")[2] not in ("200", "206")}
    if wrong:
        raise RuntimeError(f"answers other than 200 and 206: {wrong}")
    return result


def _invented() -> list[str]:
    """As many ids, for the servers that have one answer for all."""
    return [str(uuid4()) for _ in range(KEPT)]


async def _filled(place: str, path: str, token: str) -> list[str]:
    """Create the orders that are read; their ids."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = SERVICE_ORDER if path == SERVICE_ORDERS else ORDER
    ids = []
    async with httpx.AsyncClient(base_url=f"http://{place}", headers=headers, trust_env=False) as client:
        for number in range(KEPT):
            answer = await client.post(path, json={**body, "externalId": f"NW-{number}"})
            if answer.status_code != 201:
                raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text[:200]}")
            ids.append(answer.json()["id"])
    return ids
