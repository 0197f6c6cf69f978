"""The one place that builds things: each role of the system from the settings, and what its commands answer."""

from __future__ import annotations

import asyncio
import gc
import getpass
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import structlog

from convergedon.core import (
    activation,
    audit,
    bundles,
    checking,
    checkpoints,
    decisions,
    engines,
    explaining,
    keys,
    logs,
    parking,
    peers,
    persons,
    policy,
    seals,
    tokens,
    trace,
    verification,
)
from convergedon.core.activation import Following
from convergedon.core.audit import Audit
from convergedon.core.bus import Bus, Keep, NatsBus
from convergedon.core.checkpoints import Notary
from convergedon.core.decisions import DecisionLog
from convergedon.core.engines import Closed, OpaServer
from convergedon.core.errors import ConvergedonError, Findings, Misconfigured, NotFound, Unavailable
from convergedon.core.persons import Persons
from convergedon.core.policy import Policy
from convergedon.core.proof import Asked, Proof
from convergedon.core.relay import Relay
from convergedon.core.settings import Settings, address
from convergedon.core.store import MongoStore, Store
from convergedon.core.verification import Trail

if TYPE_CHECKING:
    from convergedon.mediation.workflows.definitions import Definition

log = structlog.get_logger()

Ready = Callable[[str], None]
Opened = TypeVar("Opened")
PATIENCE = 30.0
COMMAND = "command"
LAB_METERING = "metering.yaml"
PAGE = 100
"""Parked messages that a command has in hand at a time."""


@asynccontextmanager
async def connected(settings: Settings, role: str) -> AsyncIterator[tuple[Store, Bus]]:
    """Store and bus of the system, closed at the end; waits half a minute for them. Raises Unavailable."""
    from convergedon.handlers.apis import KINDS

    async with AsyncExitStack() as stack:
        bus = await _patiently(_bus(settings, role).open)
        stack.push_async_callback(bus.close)
        url, options = settings.mongodb_url.get_secret_value(), peers.mongodb_options(settings)
        store = await _patiently(MongoStore(url, settings.database, KINDS, options=options).open)
        stack.push_async_callback(store.close)
        yield store, bus


def _bus(settings: Settings, role: str) -> NatsBus:
    """A command leaves the streams as the system's settings have them: it may have been told others."""
    keep = {
        "DECISIONS": Keep(settings.decision_age, settings.decision_bytes),
        "METERED": Keep(0, settings.metered_bytes),
        "PARKED": Keep(0, settings.parked_bytes),
    }
    url = settings.nats_url.get_secret_value()
    return NatsBus(url, f"convergedon-{role}", {} if role == COMMAND else keep, peers.nats_options(settings))


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


@asynccontextmanager
async def _carrying(bus: Bus, role: str) -> AsyncIterator[Audit]:
    """An audit writer of a process without a store."""
    writer = Audit(None, bus, role)
    await writer.start()
    try:
        yield writer
    finally:
        await writer.stop()


@asynccontextmanager
async def _attesting(settings: Settings, bus: Bus) -> AsyncIterator[None]:
    """Checkpoints of the audit record, which every worker makes."""
    notary = Notary(bus, checkpoints.signing_key(settings), settings.audit_anchor_file)
    await notary.start()
    try:
        yield
    finally:
        await notary.stop()


def _begin(settings: Settings, role: str) -> None:
    logs.configure(role, settings.log_level)
    trace.configure(role, settings.otlp_endpoint)


@asynccontextmanager
async def _policy(settings: Settings, bus: Bus, role: str) -> AsyncIterator[Policy]:
    """The policies in force, followed when others are activated, with every decision logged."""
    server = OpaServer(settings.opa_url, **peers.opa_options(settings)) if settings.opa_url else None
    if server is None:
        engines.require_embedded()
    decided = DecisionLog(bus)
    rules = Policy(server or Closed("no policies were read yet"), keys.audit(settings), decided.take)
    following = Following(rules, bus, role, settings.policies, follows=server is None)
    await decided.start()
    await following.start()
    try:
        yield rules
    finally:
        await following.stop()
        await decided.stop()
        if server:
            await server.close()


async def gateway(settings: Settings, ready: Ready) -> None:
    """Answer HTTP until cancelled."""
    from convergedon.handlers.connections import configuration

    _begin(settings, "gateway")
    with _listen(settings.host, settings.port) as listening:
        # events say where resources are: on a free port, that is known only now
        settings = settings.model_copy(update={"port": listening.getsockname()[1]})
        verifier = tokens.Verifier(settings)
        async with (
            connected(settings, "gateway") as (store, bus),
            _policy(settings, bus, "gateway") as rules,
            _recording(store, bus, "gateway") as (writer, _),
        ):
            application = _application(settings, store, bus, rules, writer, verifier)
            _settle()
            await _serve(configuration(settings, application), listening, ready)


def _application(
    settings: Settings, store: Store, bus: Bus, rules: Policy, writer: Audit, verifier: tokens.Verifier
) -> Any:
    from convergedon.handlers.apis import APIS
    from convergedon.handlers.gateway import application
    from convergedon.handlers.operations import Operations
    from convergedon.handlers.resource import Resources
    from convergedon.handlers.survey_page import Survey

    async def readiness() -> tuple[bool, Mapping[str, Any]]:
        return await readiness_of(settings, store, bus, rules, verifier)

    resources = Resources(store, APIS, settings.url)
    operations = Operations(resources, rules, writer, settings)
    survey = Survey(settings, resources, rules, writer)
    return application(
        APIS,
        operations,
        verifier,
        readiness,
        settings.body_limit,
        [*_console(settings, store, bus, rules, verifier, writer), *survey.routes],
        metrics_token=settings.metrics_token.get_secret_value(),
    )


def _console(
    settings: Settings, store: Store, bus: Bus, rules: Policy, verifier: tokens.Verifier, writer: Audit
) -> Any:
    from convergedon.handlers.console import mounts

    gateway = asyncio.current_task()
    return mounts(settings, store, bus, rules, verifier, writer, gateway.cancelling if gateway else lambda: 0)


async def readiness_of(
    settings: Settings, store: Store, bus: Bus, rules: Policy, verifier: tokens.Verifier
) -> tuple[bool, Mapping[str, Mapping[str, Any]]]:
    """Every component with its state and address: those `up` watches, and what this process itself can reach."""
    components: dict[str, Mapping[str, Any]] = {}
    file = settings.data / "run" / "components.json"
    if file.exists():
        components = json.loads(file.read_text())["components"]
    components["gateway"] = {**components.get("gateway", {}), "state": "ready"}
    asked: dict[str, Callable[[], Awaitable[None]]]
    asked = {"store": store.ping, "bus": bus.ping, "policy": partial(_policies, bus, rules)}
    for name, ask in {**asked, "issuer": verifier.ping}.items() if settings.issuer else asked.items():
        components[name] = await _state(ask)
    components["policy"] = {**components["policy"], "revision": rules.revision}
    components["parked"] = await _parked(settings, bus)
    return all(component["state"] == "ready" for component in components.values()), components


async def _policies(bus: Bus, rules: Policy) -> None:
    """This process's own, and those of the workers and adapters, which answer no HTTP.

    Raises Unavailable when one of them has none.
    """
    await rules.ping()
    closed: list[str] = []
    with suppress(Unavailable, TimeoutError):  # of the bus another component tells
        async with asyncio.timeout(1):
            closed = [one.words for one in await activation.running(bus) if one.state == "closed"]
    if closed:
        raise Unavailable("; ".join(closed))


async def _parked(settings: Settings, bus: Bus) -> Mapping[str, Any]:
    """How full the stream of parked messages is; of a bus that does not answer another component tells."""
    try:
        async with asyncio.timeout(3):
            room = await parking.room(bus, settings.parked_bytes)
    except (Unavailable, TimeoutError):
        return {"state": "ready"}
    return {"state": room.state, "bytes": room.bytes, **({"reason": room.words} if room.words else {})}


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
    from convergedon.mediation import intervals, planning, rating
    from convergedon.mediation.telling import rules as telling
    from convergedon.mediation.work import Work
    from convergedon.mediation.worker import Worker

    _begin(settings, "worker")
    products, tariff = planning.load(settings.products), rating.load(settings.tariff)
    metering, notifications = intervals.load(settings.metering), telling.load(settings)
    workflows = await _workflows(settings)
    async with (
        connected(settings, "worker") as (store, bus),
        _policy(settings, bus, "worker") as rules,
        _attesting(settings, bus),
        _recording(store, bus, "worker") as (writer, relay),
    ):
        resources = Resources(store, APIS, settings.url)
        sealing = seals.seals(settings)
        work = Work(
            resources,
            bus,
            rules,
            writer,
            products,
            tariff,
            settings,
            sealing,
            relay.published,
            metering,
            workflows=workflows,
            notifications=notifications,
        )
        running = Worker(work)
        await running.start()
        bus.consume(audit.taking(store, bus))
        _settle()
        with _on_hangup(running.reload):
            ready("")
            await _until_cancelled(running.stop)


async def _workflows(settings: Settings) -> tuple[Definition, ...]:
    """The definitions that begin from now on. Raises Misconfigured, with what is first to be mended in them."""
    from convergedon.mediation.workflows import checking as workflows
    from convergedon.mediation.workflows import definitions, remediation, secrets

    if settings.workflows is None:
        return ()
    files = definitions.sources(settings.workflows)
    # the policies in force are another matter: they change while we run
    known = secrets.names(settings.workflow_secrets)
    if wrong := await workflows.check_all(files, workflows.services(settings), None, settings.tenant, known):
        raise Misconfigured(wrong[0])
    return remediation.newest([definitions.read(file) for file in files])


async def adapter(settings: Settings, name: str, ready: Ready) -> None:
    """Run one adapter until cancelled. Raises Misconfigured for an unknown name."""
    from convergedon.adapters import contract, discovery, inventory
    from convergedon.adapters.role import AdapterRole

    _begin(settings, f"adapter-{name}")
    create = discovery.require(name)

    def read() -> tuple[Mapping[str, contract.Device], contract.Adapter]:
        found = inventory.load(settings.devices)
        return found, create(settings, found)

    devices, made = read()
    bus = await _patiently(_bus(settings, name).open)
    try:
        async with _policy(settings, bus, name) as rules, _carrying(bus, name) as writer:
            role = AdapterRole(made, bus, devices, rules, seals.seals(settings), writer, read)
            ready(await role.start())
            with _on_hangup(role.reload):
                await _until_cancelled(role.stop)
    finally:
        await bus.close()


@contextmanager
def _on_hangup(work: Callable[[], Coroutine[Any, Any, object]]) -> Iterator[None]:
    """Have something done whenever the process is sent SIGHUP."""
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[object]]()

    def begin() -> None:
        task = loop.create_task(work())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, begin)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def adapter_list(settings: Settings) -> list[dict[str, Any]]:
    from convergedon.adapters import discovery

    return discovery.listed(settings)


async def adapter_check(name: str) -> Any:
    """What the conformance kit finds. Raises Misconfigured for an adapter that cannot be tried."""
    from convergedon.adapters.testing.checking import check

    return await check(name)


async def adapter_asked(settings: Settings, what: str, name: str) -> list[Any]:
    """The answers of the adapters that run. Raises Unavailable when none does."""
    from convergedon.adapters import attending

    async with _reached(settings) as bus:
        processes = [one.process for one in await activation.running(bus)]
        known = [process for process in processes if process.partition("@")[0] not in attending.OTHERS]
        expected = [process for process in known if not name or process.partition("@")[0] == name]
        if not expected:
            raise Unavailable(f"no adapter {name} runs" if name else "no adapter runs")
        return await attending.ask(bus, seals.seals(settings), what, name, expected)


async def lab(settings: Settings, ready: Ready) -> None:
    """Run the simulated network elements; their devices file is announced as the address."""
    from convergedon.adapters.lab import Lab, Receivers
    from convergedon.adapters.labcontrol import Control
    from convergedon.core import up
    from convergedon.mediation import intervals

    def receivers() -> Receivers:
        found = up.find(settings.data)
        if not (found and found.trap and found.flow):
            raise Unavailable("nobody receives traps and flows yet: wait until convergedon up says ready")
        return Receivers(_address(found.trap), _address(found.flow), min(settings.communities).decode())

    _begin(settings, "lab")
    folder = settings.data / "lab"
    elements = Lab(folder, receivers)
    devices = await elements.start()
    (devices.parent / LAB_METERING).write_text(intervals.FOR_A_LAB, encoding="utf-8")
    control = Control(elements, folder)
    await control.start()
    ready(str(devices))

    async def stop() -> None:
        await control.stop()
        await elements.stop()

    await _until_cancelled(stop)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


async def lab_asked(settings: Settings, **asked: Any) -> str:
    """Have the lab that runs on the data folder do something; its words."""
    from convergedon.adapters import labcontrol

    return await labcontrol.ask(settings.data / "lab", **asked)


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
    """Raises ConvergedonError, naming the first bad record, when a chain is broken."""
    key = checkpoints.public_key(settings)
    async with connected(settings, COMMAND) as (store, bus):
        found = await verification.verify(store, bus, key, settings.audit_anchor_file)
    if found.wrong:
        raise ConvergedonError(f"the audit record was tampered with: {found.wrong}")
    lost = (
        f"; {found.unstored} announced and never stored: on their way, or lost with a process" if found.unstored else ""
    )
    return f"{found.records} audit records, every chain whole, {found.checkpoints} signed checkpoints{lost}"


async def audit_key(settings: Settings) -> str:
    """The public key of the checkpoints. Raises Misconfigured."""
    return checkpoints.pem(checkpoints.public_key(settings)).rstrip()


async def audit_export(settings: Settings, asked: Asked, file: Path) -> str:
    """Raises ConvergedonError when the record is not whole, Misconfigured when the file cannot be written."""
    key = checkpoints.public_key(settings)
    async with connected(settings, COMMAND) as (store, bus):
        await _attested(settings, bus)
        trail = Trail(key)
        await trail.read(bus)
        exporting = Proof(store, trail, asked, checkpoints.pem(key))
        try:
            await _written(file, exporting.lines())
        except OSError as error:
            raise Misconfigured(f"{file} cannot be written: {error.strerror}") from error
    done = exporting.done
    fresh = f"; {done.fresh} are too new: export them in {checkpoints.EVERY:g} seconds" if done.fresh else ""
    return f"{done.told} records in {file}, and {done.hashed} by their hashes alone{fresh}"


async def _attested(settings: Settings, bus: Bus) -> None:
    """Have all that is stored by now under a checkpoint, where the key that signs is at hand."""
    with suppress(ConvergedonError):
        await Notary(bus, checkpoints.signing_key(settings), settings.audit_anchor_file).attest()


async def _written(file: Path, lines: AsyncIterator[bytes]) -> None:
    """The whole file or none, for its owner's eyes alone."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as writing:
            async for line in lines:
                writing.write(line)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


async def audit_erase(settings: Settings, tenant: str, name: str) -> str:
    """Raises NotFound when neither the audit record nor the log of decisions knows the name."""
    async with connected(settings, COMMAND) as (store, bus), _recording(store, bus, COMMAND) as (writer, _):
        try:
            reference = await Persons(store).erase(tenant, name)
        except NotFound:
            reference = ""
        forgotten = await decisions.forget(bus, tenant, name)
        if not reference and not forgotten:
            raise NotFound(f"neither the audit record nor the log of decisions knows {name} of tenant {tenant}")
        on = f"{persons.KIND.name}/{reference}"
        writer.record("person.erased", tenant, _operator(), on, "done", decisions=forgotten)
    return f"{reference or 'no reference'} leads to nobody now, and {forgotten} decisions are forgotten"


async def policy_test(settings: Settings, folder: Path | None = None) -> str:
    results = checking.run_tests(bundles.read(folder or settings.policies))
    failed = [name for name, passed in results if not passed]
    if failed or not results:
        raise ConvergedonError(f"{len(failed)} of {len(results)} policy tests failed: {', '.join(failed)}")
    return f"{len(results)} policy tests passed"


async def policy_check(settings: Settings, folder: Path | None) -> str:
    """Raises ConvergedonError with a line for each thing that is to be mended."""
    from convergedon.handlers.apis import KINDS

    bundle = bundles.read(folder or settings.policies)
    wrong = checking.check(bundle, {kind.name for kind in KINDS} | policy.OTHER_KINDS)
    if wrong:
        raise Findings(wrong)
    strange = checking.strange_roles(bundle, bundles.read().data["roles"])
    more = f"; tokens must come with the roles {', '.join(strange)} that do not ship" if strange else ""
    return f"revision {bundle.revision}: nothing to be mended{more}"


async def notifications_check(settings: Settings, file: Path) -> str:
    """Raises Misconfigured with what is first to be mended."""
    from convergedon.mediation.telling import rules as telling

    if found := telling.load(settings.model_copy(update={"notifications": file})):
        await found.close()
    return f"{file}: nothing to be mended"


async def workflow_check(settings: Settings, place: Path | None) -> str:
    """Raises Findings with a line for each thing that is to be mended, Misconfigured for a place that is not there."""
    from convergedon.mediation.workflows import checking as workflows
    from convergedon.mediation.workflows import definitions, secrets

    engines.require_embedded()
    bundle = bundles.read(settings.policies)
    rules, said = Policy(engines.Embedded(bundle)), workflows.words_of(bundle)
    sources = definitions.sources(place)
    known = secrets.names(settings.workflow_secrets)
    wrong = await workflows.check_all(sources, workflows.services(settings), rules, settings.tenant, known, said)
    if wrong:
        raise Findings(wrong)
    count = len(sources)
    return f"{count} workflow{'' if count == 1 else 's'}: nothing to be mended"


async def workflow_rehearse(settings: Settings, file: Path, incident: Path) -> str:
    """Raises Misconfigured for a file that cannot be used."""
    from convergedon.mediation.workflows import definitions, rehearsal

    engines.require_embedded()
    rules = Policy(engines.Embedded(bundles.read(settings.policies)))
    played = rehearsal.read(definitions.read(file), incident, settings.tenant, rules, settings.repair_patience)
    return "\n".join(await played.run())


async def usage_sources(settings: Settings, tenant: str, id: str) -> Any:
    """What a usage was made of. Raises NotFound."""
    from convergedon.mediation import sources

    async with connected(settings, COMMAND) as (store, bus):
        return await sources.made_of(store, bus, tenant, id)


async def usage_drift(settings: Settings, tenant: str, start: datetime, end: datetime, above: float) -> list[Any]:
    """What each source has of each service. Raises NotFound where there is no usage at all."""
    from convergedon.mediation import drift

    async with connected(settings, COMMAND) as (store, _):
        found = await drift.between(store, tenant, start, end, above)
        if not found and not await drift.between(store, tenant, start, end):
            raise NotFound(f"no usage of tenant {tenant} from {start.isoformat()} to {end.isoformat()}")
    return found


async def workflow_record(settings: Settings, tenant: str, alarm: str) -> str:
    """Raises NotFound."""
    from convergedon.handlers.alarms import ALARM
    from convergedon.handlers.apis import APIS
    from convergedon.handlers.resource import Resources
    from convergedon.mediation.workflows import guards

    async with connected(settings, COMMAND) as (store, _):
        record = await store.get(ALARM.name, tenant, alarm)
        found = await guards.recorded(Resources(store, APIS, settings.url), record)
    return json.dumps({**found, "answers": {}, "events": []}, indent=2)


async def workflow_press(settings: Settings, state: str, reason: str) -> str:
    """The button for all tenants."""
    from convergedon.mediation.workflows import controls

    async with connected(settings, COMMAND) as (store, bus), _recording(store, bus, COMMAND) as (writer, _):
        await controls.press(store, state, reason)
        writer.record("workflow.control", controls.EVERYONE, getpass.getuser(), "workflows", "done", state=state)
    return f"workflows of all tenants are {state}"


async def policy_export(settings: Settings, folder: Path) -> str:
    """Raises Misconfigured for a folder that holds something."""
    async with _reached(settings) as bus:
        newest = await activation.newest(bus)
    bundle = (newest.bundle if newest else None) or bundles.read(settings.policies)
    bundles.write(bundle, folder)
    return f"revision {bundle.revision} is in {folder}"


async def policy_explain(settings: Settings, id: str) -> str:
    """Raises NotFound."""
    async with _reached(settings) as bus:
        entry = await decisions.find(bus, id)
        return explaining.explain(entry, (await _former(settings, bus))(entry.revision))


async def policy_replay(settings: Settings, folder: Path, start: float) -> explaining.Replay:
    """Raises Misconfigured for a bundle that does not compile."""
    bundle = bundles.read(folder)
    engines.compiled(bundle)
    async with _reached(settings) as bus:
        return await explaining.replay(decisions.since(bus, start), bundle, await _former(settings, bus))


async def policy_activate(settings: Settings, folder: Path, note: str) -> str:
    """Raises Misconfigured for a bundle that is not fit, Unavailable when not every process runs it."""
    _require_own_policies(settings)
    bundle = activation.fit(folder)
    return await _put_in_force(
        settings, "policy.activated", lambda bus, who: activation.activate(bus, bundle, who, note)
    )


async def policy_rollback(settings: Settings) -> str:
    """Raises NotFound when there is no way back, Unavailable when not every process went it."""
    _require_own_policies(settings)
    return await _put_in_force(settings, "policy.rolled-back", activation.roll_back)


async def policy_status(settings: Settings) -> Mapping[str, Any]:
    async with _reached(settings) as bus:
        return await activation.status(bus)


def _require_own_policies(settings: Settings) -> None:
    if settings.opa_url:
        raise Misconfigured(
            "CONVERGEDON_OPA_URL is set: the Open Policy Agent server holds the policies, change them there"
        )


async def _put_in_force(
    settings: Settings, what: str, change: Callable[[Bus, str], Awaitable[activation.Activation]]
) -> str:
    who = _operator()
    async with connected(settings, COMMAND) as (store, bus), _recording(store, bus, COMMAND) as (writer, _):
        made = await change(bus, who)
        on = f"policy/{made.revision or 'own'}"
        writer.record(what, "", who, on, "done", note=made.note, before=made.before, number=made.number)
        return activation.outcome(made, await activation.settled(bus, made))


def _operator() -> str:
    """Who runs a command on this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@asynccontextmanager
async def _reached(settings: Settings) -> AsyncIterator[Bus]:
    """The bus alone, for what asks nothing of the store."""
    bus = await _patiently(_bus(settings, COMMAND).open)
    try:
        yield bus
    finally:
        await bus.close()


async def _former(settings: Settings, bus: Bus) -> explaining.Former:
    """Finds bundles by revision: those that were activated, the folder's and the ones that ship."""
    known = {one.revision: one.bundle for one in await activation.history(bus) if one.bundle}
    for folder in (settings.policies, None):
        with suppress(Misconfigured):
            own = bundles.read(folder)
            known.setdefault(own.revision, own)
    return known.get


async def topology_import(settings: Settings, file: Path) -> str:
    """Raises Misconfigured for a file that cannot be understood, with its key."""
    from convergedon.handlers.apis import APIS
    from convergedon.handlers.resource import Resources
    from convergedon.mediation import problems, topology

    plan = topology.read(file)
    async with connected(settings, COMMAND) as (store, bus), _recording(store, bus, COMMAND) as (writer, _):
        done = await topology.keep(Resources(store, APIS, settings.url), plan)
        for look in await problems.looks(store, plan.tenant, uuid4().hex):
            await bus.publish(look.subject, look.body, look.id, look.headers)
        on = f"topology/{plan.tenant}"
        writer.record("topology.imported", plan.tenant, _operator(), on, "done", parts=dict(done))
    return f"{plan.tenant}: {', '.join(f'{done[what]} {what}' for what in ('added', 'changed', 'removed', 'same'))}"


async def parked_list(settings: Settings, most: int) -> Iterable[Mapping[str, Any]]:
    """The oldest so many."""
    async with connected(settings, COMMAND) as (_, bus):
        return [asdict(message) for message in await bus.parked(most)]


async def parked_retry(settings: Settings, ids: list[str]) -> str:
    """Raises NotFound for an id that is not parked."""
    async with connected(settings, COMMAND) as (_, bus):
        wanted = _ids(ids) or [id async for id in _all_parked(bus)]
        for id in wanted:
            await bus.retry(id)
    return f"{len(wanted)} messages go back to where they came from"


async def parked_drop(settings: Settings, ids: list[str], everything: bool) -> str:
    """Raises NotFound for an id that is not parked."""
    from convergedon.handlers.console.reading import tenant_of

    if bool(ids) == everything:
        raise Misconfigured("say which parked messages are to go for good: their ids, or --all")
    count = 0
    async with connected(settings, COMMAND) as (store, bus), _recording(store, bus, COMMAND) as (writer, _):
        for id in _ids(ids) or [id async for id in _all_parked(bus)]:
            gone = await bus.drop(id)
            tenant, who = tenant_of(gone.body), _operator()
            writer.record("message.dropped", tenant, who, gone.subject, "done", reason=gone.reason, parked=id)
            count += 1
    return f"{count} messages are gone for good"


def _ids(given: list[str]) -> list[int]:
    if not all(id.isdigit() for id in given):
        raise Misconfigured("an id of a parked message is a number")
    return [int(id) for id in given]


async def _all_parked(bus: Bus) -> AsyncIterator[int]:
    """The ids of what is parked now; not all of the messages are held at once."""
    last = 0
    while page := await bus.parked(PAGE, last):
        for message in page:
            yield message.id
        last = page[-1].id


async def hub_list(settings: Settings) -> Iterable[Mapping[str, Any]]:
    from convergedon.handlers import signing
    from convergedon.mediation import listeners

    async with connected(settings, COMMAND) as (store, bus):
        return await listeners.listed(store, bus, signing.signer(settings))


async def hub_test(settings: Settings, id: str) -> str:
    """Raises NotFound for an unknown hub, Unavailable when its listener did not take the event."""
    from convergedon.mediation import listeners

    async with connected(settings, COMMAND) as (store, _):
        return await listeners.test(store, settings, id)


async def hub_replay(settings: Settings, id: str, start: datetime) -> str:
    """Raises NotFound for an unknown hub."""
    from convergedon.mediation import listeners

    logs.configure(COMMAND, "warning")  # what it prints is its answer
    async with connected(settings, COMMAND) as (store, bus), _policy(settings, bus, COMMAND) as rules:
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
