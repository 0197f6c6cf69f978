"""How many orders one gateway process takes, beside the framework it uses and the bare server below that."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from pymongo import MongoClient

from convergedon.core import embedded, settings, tokens
from tests.bench import load, servers
from tests.bench.orders import ORDER, SERVICE_ORDER, request
from tests.bench.rounds import Effort, Result, in_turn, ratios, rounded

CONNECTIONS = 8
ORDERS = f"{servers.BASE}/productOrder"
SERVICE_ORDERS = "/tmf-api/serviceOrdering/v4/serviceOrder"
PAIRS = (
    ("embedded", "connexion"),
    ("memory", "connexion"),
    ("memory", "embedded"),
    ("frame", "connexion"),
    ("memory", "tmf-mock"),
    ("connexion", "starlette"),
    ("memory", "starlette"),
    ("socket", "starlette"),
)
UNIT = "answers/s; ms; us of the server's CPU for an answer"
LABELS = {
    "embedded": "our gateway, embedded store and bus",
    "memory": "our gateway, in-memory store and bus",
    "frame": "our gateway without its operations, echo",
    "connexion": "bare connexion AsyncApp, echo",
    "starlette": "Starlette + orjson, echo",
    "tmf-mock": "PyPI's tmf-mock, POST serviceOrder",
    "socket": "no server (what the client can ask)",
}


def posted(name: str, token: str) -> list[bytes]:
    if name == "tmf-mock":
        return [request("POST", SERVICE_ORDERS, body=SERVICE_ORDER)]
    return [request("POST", ORDERS, token, ORDER)]


async def measure(effort: Effort) -> Result:
    result = Result(f"POST productOrder, one process, {CONNECTIONS} connections", UNIT)
    samples: dict[str, list[dict[str, Any]]] = defaultdict(list)
    statuses: Counter[str] = Counter()
    waited: list[float] = []
    kept_up: list[float] = []
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-") as name:
        folder = Path(name)
        (folder / "metrics").mkdir()
        token = tokens.issue(settings.load(data=folder), "acme", "csr")
        async with AsyncExitStack() as stack:
            for server in ("nats", "mongodb"):
                (folder / server).mkdir()
            nats = await stack.enter_async_context(embedded.nats(folder / "nats"))
            mongodb = await stack.enter_async_context(embedded.mongodb(folder / "mongodb"))
            common = {"CONVERGEDON_DATA": str(folder), "CONVERGEDON_PORT": "0", "CONVERGEDON_LOG_LEVEL": "warning"}
            urls = {"CONVERGEDON_NATS_URL": nats.url, "CONVERGEDON_MONGODB_URL": mongodb.url}
            envs = {
                "embedded": {**common, **urls, "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics")},
                "frame": common,
                "memory": {**common, "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics-memory")},
            }
            (folder / "metrics-memory").mkdir()
            places = {name: await stack.enter_async_context(servers.process(name, envs.get(name))) for name in LABELS}

            async def turn(name: str) -> float:
                address, process = places[name]
                before = servers.spent(process.pid)
                found = await load.measure(address, posted(name, token), CONNECTIONS, effort.seconds)
                statuses.update({f"{name} {status}": count for status, count in found["statuses"].items()})
                if name == "embedded":
                    begun = perf_counter()
                    await asyncio.to_thread(_relayed, mongodb.url)
                    waited.append(perf_counter() - begun)
                    asked = load.warm_up(effort.seconds) + effort.seconds
                    kept_up.append(sum(found["statuses"].values()) / (asked + waited[-1]))
                answered = sum(found["statuses"].values())
                samples[name].append({**found, "cpu": 1e6 * (servers.spent(process.pid) - before) / answered})
                return float(found["rate"])

            found = await in_turn({name: lambda name=name: turn(name) for name in LABELS}, effort.rounds)
    compare(result, found, samples, PAIRS)
    result.notes += [f"{name}: {label}" for name, label in LABELS.items()]
    told, later = statistics.median(kept_up), statistics.median(waited)
    result.notes.append(
        f"embedded: with its events on the bus, {told:.0f}/s (the outbox was empty {later:.2f} s later)"
    )
    wrong = {seen: count for seen, count in statuses.items() if not seen.endswith(" 201")}
    if wrong:
        raise RuntimeError(f"answers other than 201: {wrong}")
    return result


def compare(
    result: Result,
    found: Mapping[str, Sequence[float]],
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    pairs: Sequence[tuple[str, str]],
) -> None:
    """Figures and ratios of what was found.

    On a shared machine the ratios of CPU time are worth more than those of rates: others have no part in them.
    """
    for name, rates in found.items():
        result.figures[name] = {
            "rate": rounded(statistics.median(rates)),
            "p50": rounded(statistics.median(sample["ms"]["p50"] for sample in samples[name])),
            "p99": rounded(statistics.median(sample["ms"]["p99"] for sample in samples[name])),
            "cpu": rounded(statistics.median(sample["cpu"] for sample in samples[name])),
        }
    result.ratios = ratios(found, *pairs)
    by_cpu = {name: [1 / sample["cpu"] for sample in some] for name, some in samples.items()}
    result.ratios |= {f"{pair}, by CPU": ratio for pair, ratio in ratios(by_cpu, *pairs).items()}


def _relayed(url: str, patience: float = 30) -> None:
    """Wait until every outbox is empty: what is left over would be paid for in another's turn."""
    end = perf_counter() + patience
    with MongoClient[dict[str, Any]](url) as client:
        orders = client["convergedon"]["productOrder"]
        while perf_counter() < end and orders.find_one({"waiting": {"$gt": 0}}):
            sleep(0.05)
