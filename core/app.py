"""The one place that builds things: each role of the system from the settings, and what its commands answer."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

import structlog

from convergedon.core import audit, logs, policy, tokens, trace
from convergedon.core.audit import Audit
from convergedon.core.bus import Bus, NatsBus
from convergedon.core.errors import ConvergedonError, Misconfigured, Unavailable
from convergedon.core.policy import Embedded, OpaServer, Policy
from convergedon.core.relay import Relay
from convergedon.core.settings import Settings, address
from convergedon.core.store import MongoStore, Store

log = structlog.get_logger()

Ready = Callable[[str], None]
Opened = TypeVar("Opened")
PATIENCE = 30.0


@asynccontextmanager
async def connected(settings: Settings, role: str) -> AsyncIterator[tuple[Store, Bus]]:
    """Store and bus of the system, closed at the end; waits half a minute for them. Raises Unavailable."""
    from convergedon.handlers.apis import KINDS

    async with AsyncExitStack() as stack:
        bus = await _patiently(NatsBus(settings.nats_url.get_secret_value(), f"convergedon-{role}").open)
        stack.push_async_callback(bus.close)
        kinds = [*KINDS, audit.KIND]
        store = await _patiently(MongoStore(settings.mongodb_url.get_secret_value(), settings.database, kinds).open)
        stack.push_async_callback(store.close)
        yield store, bus


async def _patiently(open_: Callable[[], Awaitable[Opened]], patience: float = PATIENCE) -> Opened:
    """Try until it works. Raises Unavailable with the last reason when that takes too long."""
    last: object = "no answer"
    try:
        async with asyncio.timeout(patience):
            while True:
                try:
                    return await open_()
                except Unavailable as error:
                    log.info("waiting", reason=str(error))
                    last = error
                    await asyncio.sleep(0.5)
    except TimeoutError as late:
        raise Unavailable(f"{last}, for {patience:g} s") from late


@asynccontextmanager
async def _recording(store: Store, bus: Bus, role: str) -> AsyncIterator[tuple[Audit, Relay]]:
    """An audit writer and an outbox relay, which every process that writes has."""
    writer, relay = Audit(store, bus, role), Relay(store, bus)
    await writer.start()
    await relay.start()
    try:
        yield writer, relay
    finally:
        await relay.stop()
        await writer.stop()


def _begin(settings: Settings, role: str) -> None:
    logs.configure(role, settings.log_level)
    trace.configure(role, settings.otlp_endpoint)


@asynccontextmanager
async def _policy(settings: Settings) -> AsyncIterator[Policy]:
    engine = OpaServer(settings.opa_url) if settings.opa_url else Embedded(policy.read(settings.policies))
    try:
        yield Policy(engine)
    finally:
        await engine.close()


async def gateway(settings: Settings, ready: Ready) -> None:
    """Answer HTTP until cancelled."""
    _begin(settings, "gateway")
    with _listen(settings.host, settings.port) as listening:
        # events say where resources are: on a free port, that is known only now
        settings = settings.model_copy(update={"port": listening.getsockname()[1]})
        verifier = tokens.Verifier(settings)
        async with (
            _policy(settings) as rules,
            connected(settings, "gateway") as (store, bus),
            _recording(store, bus, "gateway") as (writer, _),
        ):
            application = _application(settings, store, bus, rules, writer, verifier)
            _settle()
            await _serve(_http(application), listening, ready)


def _http(application: Any) -> Any:
    """How uvicorn serves the gateway."""
    import uvicorn

    from convergedon.handlers.wire import Wire

    return uvicorn.Config(
        application,
        http=Wire,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
        timeout_keep_alive=30,
    )


def _application(
    settings: Settings, store: Store, bus: Bus, rules: Policy, writer: Audit, verifier: tokens.Verifier
) -> Any:
    from convergedon.handlers.apis import APIS
    from convergedon.handlers.gateway import application
    from convergedon.handlers.operations import Operations
    from convergedon.handlers.resource import Resources

    async def readiness() -> tuple[bool, Mapping[str, Any]]:
        return await readiness_of(settings, store, bus, rules)

    operations = Operations(Resources(store, APIS, settings.url), rules, writer, settings)
    return application(
        APIS,
        operations,
        verifier,
        readiness,
        settings.body_limit,
        _console(settings, store, bus, rules, verifier, writer),
    )


def _console(
    settings: Settings, store: Store, bus: Bus, rules: Policy, verifier: tokens.Verifier, writer: Audit
) -> Any:
    from convergedon.handlers.console import mounts

    gateway = asyncio.current_task()
    return mounts(settings, store, bus, rules, verifier, writer, gateway.cancelling if gateway else lambda: 0)


async def readiness_of(
    settings: Settings, store: Store, bus: Bus, rules: Policy
) -> tuple[bool, Mapping[str, Mapping[str, Any]]]:
    """Every component with its state and address: those `up` watches, and what this process itself can reach."""
    components: dict[str, Mapping[str, Any]] = {}
    file = settings.data / "run" / "components.json"
    if file.exists():
        components = json.loads(file.read_text())["components"]
    components["gateway"] = {**components.get("gateway", {}), "state": "ready"}
    for name, ask in (("store", store.ping), ("bus", bus.ping), ("policy", rules.ping)):
        components[name] = await _state(ask)
    return all(component["state"] == "ready" for component in components.values()), components


async def _state(ask: Callable[[], Awaitable[None]]) -> Mapping[str, Any]:
    try:
        async with asyncio.timeout(3):
            await ask()
    except (ConvergedonError, TimeoutError) as error:
        return {"state": "unavailable", "reason": str(error) or "no answer within 3 s"}
    return {"state": "ready"}


async def worker(settings: Settings, ready: Ready) -> None:
    """Run the three lines until cancelled."""
    from convergedon.handlers.apis import APIS
    from convergedon.handlers.resource import Resources
    from convergedon.mediation import planning, rating
    from convergedon.mediation.work import Work
    from convergedon.mediation.worker import Worker

    _begin(settings, "worker")
    products, tariff = planning.load(settings.products), rating.load(settings.tariff)
    async with (
        _policy(settings) as rules,
        connected(settings, "worker") as (store, bus),
        _recording(store, bus, "worker") as (writer, relay),
    ):
        resources = Resources(store, APIS, settings.url)
        work = Work(resources, bus, rules, writer, products, tariff, settings, relay.published)
        running = Worker(work)
        await running.start()
        _settle()
        ready("")
        await _until_cancelled(running.stop)


async def adapter(settings: Settings, name: str, ready: Ready) -> None:
    """Run one adapter until cancelled. Raises Misconfigured for an unknown name."""
    from convergedon.adapters import discovery, inventory
    from convergedon.adapters.role import AdapterRole

    _begin(settings, f"adapter-{name}")
    known = discovery.adapters()
    if name not in known:
        raise Misconfigured(f"there is no adapter {name}; installed are {', '.join(sorted(known))}")
    devices = inventory.load(settings.devices)
    made = known[name](settings, devices)
    bus = await _patiently(NatsBus(settings.nats_url.get_secret_value(), f"convergedon-{name}").open)
    try:
        role = AdapterRole(made, bus, devices)
        ready(await role.start())
        await _until_cancelled(role.stop)
    finally:
        await bus.close()


async def lab(settings: Settings, ready: Ready) -> None:
    """Run the simulated network elements; their devices file is announced as the address."""
    from convergedon.adapters.lab import Lab

    _begin(settings, "lab")
    elements = Lab(settings.data / "lab")
    ready(str(await elements.start()))
    await _until_cancelled(elements.stop)


def _settle() -> None:
    """Leave what was built at the start out of every garbage collection from now on: it lives as long as we do.

    A full collection of it stops a process for some ten milliseconds at a time.
    """
    gc.collect()
    gc.freeze()


async def _until_cancelled(stop: Callable[[], Awaitable[None]]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await stop()


async def token(settings: Settings, tenant: str, role: str, party: str | None) -> str:
    return tokens.issue(settings, tenant, role, party)


async def audit_verify(settings: Settings) -> str:
    """Raises Misconfigured, naming the first bad record, when a chain is broken."""
    async with connected(settings, "command") as (store, bus):
        count, wrong = await audit.verify(store, bus)
    if wrong:
        raise ConvergedonError(f"the audit record was tampered with: {wrong}")
    return f"{count} audit records, every chain whole"


async def policy_test(settings: Settings) -> str:
    results = policy.run_tests(policy.read(settings.policies))
    failed = [name for name, passed in results if not passed]
    if failed or not results:
        raise ConvergedonError(f"{len(failed)} of {len(results)} policy tests failed: {', '.join(failed)}")
    return f"{len(results)} policy tests passed"


async def parked_list(settings: Settings) -> Iterable[Mapping[str, Any]]:
    async with connected(settings, "command") as (_, bus):
        return [asdict(message) for message in await bus.parked()]


async def parked_retry(settings: Settings, ids: list[str]) -> str:
    """Raises NotFound for an id that is not parked."""
    if not all(id.isdigit() for id in ids):
        raise Misconfigured("an id of a parked message is a number")
    async with connected(settings, "command") as (_, bus):
        wanted = [int(id) for id in ids] or [message.id for message in await bus.parked()]
        for id in wanted:
            await bus.retry(id)
    return f"{len(wanted)} messages go back to where they came from"


async def hub_list(settings: Settings) -> Iterable[Mapping[str, Any]]:
    from convergedon.handlers import signing
    from convergedon.mediation import listeners

    async with connected(settings, "command") as (store, bus):
        return await listeners.listed(store, bus, signing.signer(settings))


async def hub_test(settings: Settings, id: str) -> str:
    """Raises NotFound for an unknown hub, Unavailable when its listener did not take the event."""
    from convergedon.mediation import listeners

    async with connected(settings, "command") as (store, _):
        return await listeners.test(store, settings, id)


async def hub_replay(settings: Settings, id: str, start: datetime) -> str:
    """Raises NotFound for an unknown hub."""
    from convergedon.mediation import listeners

    async with _policy(settings) as rules, connected(settings, "command") as (store, bus):
        count = await listeners.replay(store, bus, rules, id, start.timestamp())
    return f"{count} events since {start.isoformat()} are queued again for hub {id}"


async def _serve(config: Any, listening: socket.socket, ready: Ready) -> None:
    """Serve until cancelled, on a socket of our own: a taken port is one sentence, a free one is known before."""
    import uvicorn

    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([listening]))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has a flag, not an event
            await asyncio.sleep(0.01)
        if not serving.done():
            ready(address(*listening.getsockname()[:2]))
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        reason = error.strerror or error
        raise Misconfigured(f"the gateway cannot listen on {host} port {port} (CONVERGEDON_PORT): {reason}") from error
    return listening
