"""What policy and audit cost: a POST with and without them, and decisions by the embedded engine and by a server.

On in-memory twins a POST is as short as it can be, and the shares are as large; beside them stands the same on the
embedded servers. A POST is counted in CPU time of the gateway's process, with all that it does for it afterwards
(outbox, audit's writes, the log of decisions): what others do on the machine does not count in that. On the embedded
servers it is counted twice more: with what store and bus spend for it, and by the clock, as its callers wait for it.
What is switched off is switched off in servers.py, by no setting.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import as_file, files
from itertools import cycle
from pathlib import Path
from socket import create_server
from time import perf_counter, process_time
from typing import Any

import httpx

from convergedon.core import bundles, embedded, settings, tokens
from convergedon.core.engines import Engine, OpaServer, compiled
from convergedon.core.policy import Policy
from tests.bench import load, servers
from tests.bench.orders import ORDER, of_circuit, request
from tests.bench.parts import SUBJECT
from tests.bench.post import CONNECTIONS, ORDERS
from tests.bench.rounds import Effort, Result, in_turn, ratios, rounded

WITHOUT: Mapping[str, tuple[str, ...]] = {
    "all": (),
    "no policy": ("policy",),
    "no audit": ("audit",),
    "neither": ("policy", "audit"),
}
SAVED = {"no policy": "policy takes", "no audit": "audit takes", "neither": "policy and audit together take"}
ALIKE = "memory: POST of the same again, all"
STANDS: Mapping[str, tuple[str, ...]] = {"memory": tuple(WITHOUT), "embedded": ("all", "neither")}
"""What store and bus are: twins in the process, or the servers that `convergedon up` brings; and what is measured."""
WAITED: Mapping[str, int] = {"one after another": 1, f"{CONNECTIONS} at once": CONNECTIONS}
PARTS_OF_A_TURN = 6
"""A wait is measured in shorter turns and more of them: what a store needs for a POST changes from one second to the
next by more than what is looked for."""
EMBEDDED, OPA = "decisions: embedded", "decisions: OPA server"
AGAIN = f"{EMBEDDED}, the same again"
VARIED = 20_000
"""Orders that differ: more than are decided on in a second, for which a decision is remembered."""
START = 20.0
"""Seconds an OPA server may take to start."""
ABOUT = {"api": "/tmf-api/productOrderingManagement/v4", "kind": "productOrder", "tenant": "acme", "id": ""}


async def measure(effort: Effort) -> Result:
    result = Result("what policy and audit cost", "in a second; us of one")
    answered: dict[str, list[float]] = defaultdict(list)
    whole: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            posts, waits = await _posts(folder, stack, effort.seconds, answered, whole)
            contestants = {**posts, **await _decisions(stack, effort.seconds / 2, answered, result)}
            found = await in_turn(contestants, effort.rounds)
            found |= await in_turn(waits, effort.rounds * PARTS_OF_A_TURN)
    for name, rates in found.items():
        rate = statistics.median(rates)
        result.figures[name] = {"rate": rounded(rate), "us": rounded(1e6 / rate)}
        if name in answered:
            result.figures[name]["by the clock"] = rounded(statistics.median(answered[name]))
        if name in whole:
            result.figures[name]["us of all servers"] = rounded(1e6 / statistics.median(whole[name]))
    pairs = [(stand, what) for stand, parts in STANDS.items() for what in parts if what != "all"]
    result.ratios = ratios(found, *((_post(stand, what), _post(stand, "all")) for stand, what in pairs))
    result.ratios |= ratios(found, (ALIKE, _post("memory", "all")), (AGAIN, EMBEDDED))
    result.ratios |= ratios(found, *((_waited("neither", how), _waited("all", how)) for how in WAITED))
    if OPA in found:
        result.ratios |= ratios(found, (EMBEDDED, OPA))
    for stand, what in pairs:
        share = _share(found[_post(stand, "all")], found[_post(stand, what)])
        result.notes.append(f"{stand}: {SAVED[what]} {share:.0f} % of the gateway's CPU time for a POST")
    share = _share(whole[_post("embedded", "all")], whole[_post("embedded", "neither")])
    result.notes.append(f"embedded: {SAVED['neither']} {share:.0f} % of all CPU time for a POST, store's and bus's too")
    for how in WAITED:
        with_both, without = found[_waited("all", how)], found[_waited("neither", how)]
        low, share, high = statistics.quantiles((_shares(with_both, without)), n=4)
        result.notes.append(
            f"embedded: {SAVED['neither']} {share:.0f} % of the time that a caller waits for a POST, {how} "
            f"(half of {len(without)} pairs of turns between {low:.0f} and {high:.0f} %)"
        )
    result.notes += [
        "rate and us are of CPU time, which others on the machine have no part in: of the gateway's process with all "
        "that follows in it (outbox, audit's writes, log of decisions), of the policy server and of who asks it; "
        "of a POST that is waited for they are of the clock, by the median of a turn",
        f"POST productOrder, {CONNECTIONS} connections, each for another circuit but where it says the same again",
    ]
    return result


def _post(stand: str, what: str) -> str:
    return f"{stand}: POST, {what}"


def _waited(what: str, how: str) -> str:
    return f"embedded: POST waited for, {how}, {what}"


def _share(whole: Sequence[float], without: Sequence[float]) -> float:
    """How much of a POST's time goes when a part is left out, in %: the median over the rounds."""
    return statistics.median(_shares(whole, without))


def _shares(whole: Sequence[float], without: Sequence[float]) -> list[float]:
    return [100 * (1 - one / other) for one, other in zip(whole, without, strict=True)]


Turns = dict[str, Callable[[], Awaitable[float]]]


async def _posts(
    folder: Path,
    stack: AsyncExitStack,
    seconds: float,
    answered: Mapping[str, list[float]],
    whole: Mapping[str, list[float]],
) -> tuple[Turns, Turns]:
    """POSTs by the CPU time that they take, and by the time that they are waited for."""
    token = tokens.issue(settings.load(data=folder), "acme", "csr")
    post = request("POST", ORDERS, token, ORDER)

    alike = request("POST", ORDERS, token, of_circuit("one"))

    def turn(
        name: str, address: str, process: int, beside: Sequence[int], asked: bytes = post
    ) -> Callable[[], Awaitable[float]]:
        async def one() -> float:
            before = [servers.spent(each) for each in (process, *beside)]
            found = await _answered(address, asked, CONNECTIONS, seconds)
            used = [servers.spent(each) - start for each, start in zip((process, *beside), before, strict=True)]
            done = _created(found)
            answered[name].append(float(found["rate"]))
            if beside:
                whole[name].append(done / sum(used))
            return done / used[0]

        return one

    def waited(address: str, at_once: int) -> Callable[[], Awaitable[float]]:
        async def one() -> float:
            found = await _answered(address, post, at_once, seconds / PARTS_OF_A_TURN)
            _created(found)
            return float(1000 / found["ms"]["p50"])

        return one

    for server in ("nats", "mongodb"):
        (folder / server).mkdir()
    nats = await stack.enter_async_context(embedded.nats(folder / "nats"))
    mongodb = await stack.enter_async_context(embedded.mongodb(folder / "mongodb"))
    turns: Turns = {}
    waits: Turns = {}
    for stand, some in STANDS.items():
        for what in some:
            metrics = folder / f"metrics {stand} {what}"
            metrics.mkdir()
            env = {
                "CONVERGEDON_DATA": str(folder),
                "CONVERGEDON_PORT": "0",
                "CONVERGEDON_LOG_LEVEL": "warning",
                "CONVERGEDON_NATS_URL": nats.url,
                "CONVERGEDON_MONGODB_URL": mongodb.url,
                "PROMETHEUS_MULTIPROC_DIR": str(metrics),
            }
            options = [word for part in WITHOUT[what] for word in ("--without", part)]
            address, process = await stack.enter_async_context(servers.process(stand, env, *options))
            beside = (nats.pid, mongodb.pid) if stand == "embedded" else ()
            turns[_post(stand, what)] = turn(_post(stand, what), address, process.pid, beside)
            if (stand, what) == ("memory", "all"):
                turns[ALIKE] = turn(ALIKE, address, process.pid, (), alike)
            if stand == "embedded":
                waits |= {_waited(what, how): waited(address, number) for how, number in WAITED.items()}
    return turns, waits


async def _answered(address: str, asked: bytes, at_once: int, seconds: float) -> Mapping[str, Any]:
    """One measurement; longer ones where nothing was answered within so short a turn, as on a busy machine."""
    while not (found := await load.measure(address, [asked], at_once, seconds))["rate"]:
        seconds *= 2
    return found


def _created(found: Mapping[str, Any]) -> int:
    """How many were answered. Raises RuntimeError unless each of them was made."""
    if set(found["statuses"]) != {"201"}:
        raise RuntimeError(f"answers other than 201: {found['statuses']}")
    return int(found["statuses"]["201"])


async def _decisions(
    stack: AsyncExitStack, seconds: float, answered: Mapping[str, list[float]], result: Result
) -> Mapping[str, Callable[[], Awaitable[float]]]:
    """Decisions one after another, and by the server also some at once: it answers beside its caller."""
    asked: dict[str, tuple[Engine, int, int]] = {EMBEDDED: (compiled(bundles.read()), 1, 0)}
    program = shutil.which(os.environ.get("CONVERGEDON_OPA") or "opa") or shutil.which(Path.home() / "go/bin/opa")
    if program is None:
        result.notes.append("no Open Policy Agent is installed: its server was not measured")
    else:
        server, process = await stack.enter_async_context(_serving(program))
        stack.push_async_callback(server.close)
        asked |= {OPA: (server, 1, process), f"{OPA}, 8 at once": (server, 8, process)}
    turns = {name: _deciding(name, *how, seconds, answered) for name, how in asked.items()}
    return turns | {AGAIN: _deciding(AGAIN, *asked[EMBEDDED], seconds, answered, varied=False)}


def _deciding(
    name: str,
    engine: Engine,
    at_once: int,
    beside: int,
    seconds: float,
    answered: Mapping[str, list[float]],
    varied: bool = True,
) -> Callable[[], Awaitable[float]]:
    """How many in a second of CPU time, of this process and of the one ``beside``."""
    rules = Policy(engine)
    orders = cycle([of_circuit(f"{number}") for number in range(VARIED if varied else 1)])

    async def decide() -> None:
        (await rules.decide(SUBJECT, "create", ABOUT, next(orders))).require()

    def spent() -> float:
        return process_time() + (servers.spent(beside) if beside else 0.0)

    async def turn() -> float:
        done, begun, before = 0, perf_counter(), spent()
        while not done or perf_counter() - begun < seconds:
            await asyncio.gather(*(decide() for _ in range(at_once))) if at_once > 1 else await decide()
            done += at_once
        answered[name].append(done / (perf_counter() - begun))
        return done / (spent() - before)

    return turn


@asynccontextmanager
async def _serving(program: str) -> AsyncIterator[tuple[OpaServer, int]]:
    """An OPA server with our policies, and the id of its process."""
    with create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    quiet = ("--skip-version-check", "--log-level", "error")  # it would ask the world for a newer one
    with as_file(files("convergedon.policies")) as policies:
        process = await asyncio.create_subprocess_exec(
            program, "run", "--server", "--addr", address, *quiet, str(policies)
        )
        try:
            await _answers(f"http://{address}/health", process)
            yield OpaServer(f"http://{address}"), process.pid
        finally:
            process.kill()
            await process.wait()


async def _answers(url: str, process: asyncio.subprocess.Process) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(START):
        while process.returncode is None:
            try:
                if (await client.get(url)).is_success:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.02)
    raise RuntimeError("the OPA server did not start")
