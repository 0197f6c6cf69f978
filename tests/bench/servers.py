"""The servers that are compared, each one process: our gateway on real or in-memory parts, and what it stands on.

    python -m tests.bench.servers NAME [--without policy] [--without audit] [--profile FILE]

The names stand in SERVERS.

Settings come from the environment, as for every role. The address is printed when it is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import cProfile
import os
import signal
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from socket import create_server
from typing import Any

import orjson

from tests.bench import facts
from tests.bench.orders import ORDER

BASE = "/tmf-api/productOrderingManagement/v4"
STORED = {
    "id": "5d6f9f3c-0b0e-4a57-9d2e-6a3f7f3a1f10",
    "href": f"http://gateway.example{BASE}/productOrder/5d6f9f3c-0b0e-4a57-9d2e-6a3f7f3a1f10",
    **ORDER,
    "orderDate": "2026-02-20T09:31:04.220Z",
    "state": "acknowledged",
}
"""What the servers that keep nothing answer with."""
PAGE = 20


async def embedded() -> None:
    """The gateway as it is run, on the servers that the settings name."""
    from convergedon.core import app, settings

    await app.gateway(settings.load(), _announce)


async def memory() -> None:
    """The same gateway on the in-memory twins; everything else (policy, audit, relay, console) is there."""
    from convergedon.core import app, audit, settings
    from convergedon.core.bus import Bus
    from convergedon.core.memory import MemoryBus, MemoryStore
    from convergedon.core.store import Store
    from convergedon.handlers.apis import KINDS

    @asynccontextmanager
    async def twins(*_: object) -> AsyncIterator[tuple[Store, Bus]]:
        yield MemoryStore([*KINDS, *audit.KINDS]), MemoryBus()

    app.connected = twins  # the one seam: all that is built on store and bus stays as it is
    await app.gateway(settings.load(), _announce)


def _decide_nothing() -> None:
    """Everything is allowed, and nothing asked or logged. No setting does this; it is there to be measured."""
    from convergedon.core import policy

    allowed = policy.Decision("1", True, (), {"tenant": "acme"}, "1")

    async def decide(*_: object, **__: object) -> policy.Decision:
        return allowed

    policy.Policy.decide = decide  # type: ignore[method-assign, assignment]


def _record_nothing() -> None:
    from convergedon.core import audit

    audit.Audit.record = lambda *_, **__: None  # type: ignore[method-assign, assignment]


async def connexion() -> None:
    """A bare AsyncApp with our document: it validates as connexion ships it, asks for no token and echoes."""
    from connexion import AsyncApp
    from connexion.options import SwaggerUIOptions
    from connexion.resolver import Resolution, Resolver

    from convergedon.openapi import document

    whole = copy.deepcopy(document("TMF622-ProductOrdering-v4"))
    del whole["security"]

    async def echo(body: Any = None, id: str = "") -> Any:
        return (body, 201) if body else STORED if id else [STORED] * PAGE

    class Echoes(Resolver):  # type: ignore[misc]
        def resolve(self, operation: Any) -> Resolution:
            return Resolution(echo, operation.operation_id)

    app = AsyncApp("convergedon.handlers", swagger_ui_options=SwaggerUIOptions(swagger_ui=False, serve_spec=False))
    app.add_api(whole, base_path=BASE, resolver=Echoes())
    await _serve(app)


async def frame() -> None:
    """Our gateway without its operations: connexion's routing and security, our serving, and an echo."""
    from starlette.responses import Response

    from convergedon.core import logs, settings, tokens, trace
    from convergedon.handlers.admission import Shares
    from convergedon.handlers.answers import answer
    from convergedon.handlers.apis import APIS
    from convergedon.handlers.gateway import application
    from convergedon.handlers.operations import Call

    class Echo:
        shares, public_url = Shares(0), ""

        def failed(self, call: Call, verb: str, status: int) -> None:
            """Nothing is recorded here."""

        async def create(self, call: Call) -> Response:
            return answer(await call.body(), 201)

        async def retrieve(self, call: Call) -> Response:
            return answer(STORED)

        async def list(self, call: Call) -> Response:
            return answer([STORED] * PAGE)

        patch = delete = register = subscription = unregister = retrieve

    async def ready() -> Any:
        return True, {}

    logs.configure("bench", "warning")
    trace.configure("bench")
    operations: Any = Echo()
    await _serve(application(APIS, operations, tokens.Verifier(settings.load()), ready, 1_048_576))


async def tmf_mock() -> None:
    """The PyPI package tmf-mock as it comes: FastAPI, pydantic and a dictionary; its service orders."""
    from tmf_mock.server import create_app

    await _serve(create_app(seed=False))


async def starlette() -> None:
    """Starlette and orjson alone."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def echo(request: Request) -> Response:
        return Response(orjson.dumps(orjson.loads(await request.body())), 201, media_type="application/json")

    async def retrieve(request: Request) -> Response:
        return Response(orjson.dumps(STORED), media_type="application/json")

    async def page(request: Request) -> Response:
        return Response(orjson.dumps([STORED] * PAGE), media_type="application/json")

    routes = [
        Route(f"{BASE}/productOrder", echo, methods=["POST"]),
        Route(f"{BASE}/productOrder", page),
        Route(f"{BASE}/productOrder/{{id}}", retrieve),
    ]
    await _serve(Starlette(routes=routes))


async def socket() -> None:
    """No server at all: a socket that answers anything with the same bytes, to know how fast the client can ask."""
    body = b'{"id":"1"}'
    told = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    class Answer(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self._transport = transport

        def data_received(self, _: bytes) -> None:
            self._transport.write(told)

    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0)
    _announce("{}:{}".format(*server.sockets[0].getsockname()[:2]))
    await server.serve_forever()


async def _serve(application: Any) -> None:
    """As the gateway serves: uvicorn with uvloop and httptools."""
    import uvicorn

    config = uvicorn.Config(application, log_config=None, access_log=False, server_header=False, lifespan="off")
    listening = create_server(("127.0.0.1", 0), backlog=256)
    _announce("{}:{}".format(*listening.getsockname()[:2]))  # it takes connections, if not yet requests
    await uvicorn.Server(config)._serve([listening])


def _announce(address: str) -> None:
    print(address, flush=True)


SERVERS: Mapping[str, Callable[[], Any]] = {
    "embedded": embedded,
    "memory": memory,
    "frame": frame,
    "connexion": connexion,
    "starlette": starlette,
    "tmf-mock": tmf_mock,
    "socket": socket,
}


WITHOUT: Mapping[str, Callable[[], None]] = {"policy": _decide_nothing, "audit": _record_nothing}


@asynccontextmanager
async def running(name: str, env: Mapping[str, str] | None = None, *options: str) -> AsyncIterator[str]:
    """One of them as a process, ended with the block; its address."""
    async with process(name, env, *options) as (address, _):
        yield address


@asynccontextmanager
async def process(
    name: str, env: Mapping[str, str] | None = None, *options: str
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The same with the process itself."""
    from tests.bench.load import ROOT

    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CONVERGEDON_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.servers", name, *options),
        stdout=asyncio.subprocess.PIPE,
        env={**inherited, **(env or {})},
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise RuntimeError(f"the server {name} did not start")
        yield address, process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 15)
        except TimeoutError:
            process.kill()
            await process.wait()


def spent(process: int) -> float:
    """Seconds of CPU that a process has used, as Linux counts them."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    import uvloop

    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.filterwarnings("ignore", "Using .httpx. with .starlette.testclient. is deprecated")
    parser = argparse.ArgumentParser()
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("--without", action="append", default=[], choices=WITHOUT, help="switch a part off")
    parser.add_argument("--profile", help="write a cProfile of the whole run to this file")
    given = parser.parse_args()
    if chosen := facts.cores():
        facts.keep_to(chosen[1])

    for part in given.without:
        WITHOUT[part]()

    async def until_told() -> None:
        task = asyncio.ensure_future(SERVERS[given.server]())
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(task.cancel))
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled() and task.exception():
            raise task.exception()  # type: ignore[misc]

    profile = cProfile.Profile()
    if given.profile:
        profile.enable()
    uvloop.run(until_told())
    if given.profile:
        profile.disable()
        profile.dump_stats(given.profile)


if __name__ == "__main__":
    main()
