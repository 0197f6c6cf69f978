"""How fast one order and a page of twenty are read, beside the same bytes from the frameworks below.

The page is the first of a hundred orders in every server that keeps any.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

from convergedon.core import settings, tokens
from tests.bench import load, servers
from tests.bench.orders import ORDER, SERVICE_ORDER, request
from tests.bench.post import CONNECTIONS, LABELS, ORDERS, SERVICE_ORDERS
from tests.bench.rounds import Effort, Result, in_turn, ratios, rounded

NAMES = ("memory", "frame", "connexion", "starlette", "tmf-mock")
KEPT = 100
PAIRS = (("memory", "connexion"), ("frame", "connexion"), ("memory", "starlette"), ("memory", "tmf-mock"))


async def measure(effort: Effort) -> Result:
    result = Result(f"GET productOrder, one and a page of {servers.PAGE}, {CONNECTIONS} connections", "answers/s; ms")
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
                    servers.running(name, env if name in ("memory", "frame") else None)
                )
                for name in NAMES
            }
            asked = {}
            for name, place in places.items():
                path = SERVICE_ORDERS if name == "tmf-mock" else ORDERS
                bearer = token if name in ("memory", "frame") else ""
                id = await _filled(place, path, bearer) if name in ("memory", "tmf-mock") else servers.STORED["id"]
                asked[f"{name}, one"] = (place, request("GET", f"{path}/{id}", bearer))
                asked[f"{name}, page"] = (place, request("GET", f"{path}?limit={servers.PAGE}", bearer))

            async def turn(name: str) -> float:
                found = await load.measure(*asked[name], CONNECTIONS, effort.seconds)
                samples[name].append(found)
                statuses.update({f"{name} {status}": count for status, count in found["statuses"].items()})
                return float(found["rate"])

            found = await in_turn({name: lambda name=name: turn(name) for name in asked}, effort.rounds)
    for name, rates in found.items():
        result.figures[name] = {
            "rate": rounded(statistics.median(rates)),
            "p50": rounded(statistics.median(s["ms"]["p50"] for s in samples[name])),
            "p99": rounded(statistics.median(s["ms"]["p99"] for s in samples[name])),
        }
    result.ratios = ratios(found, *((f"{a}, {what}", f"{b}, {what}") for what in ("one", "page") for a, b in PAIRS))
    result.notes = [f"{name}: {LABELS[name].replace('POST serviceOrder', 'GET serviceOrder')}" for name in NAMES]
    wrong = {seen: count for seen, count in statuses.items() if seen.rpartition(" ")[2] not in ("200", "206")}
    if wrong:
        raise RuntimeError(f"answers other than 200 and 206: {wrong}")
    return result


async def _filled(place: str, path: str, token: str) -> str:
    """Create the orders that are read; the id of the last one."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = SERVICE_ORDER if path == SERVICE_ORDERS else ORDER
    id = ""
    async with httpx.AsyncClient(base_url=f"http://{place}", headers=headers, trust_env=False) as client:
        for _ in range(KEPT):
            answer = await client.post(path, json=body)
            if answer.status_code != 201:
                raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text[:200]}")
            id = answer.json()["id"]
    return id
