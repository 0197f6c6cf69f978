"""A worker and a network of loopback devices, on twins in memory or on real servers, for the tests of the lines."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

import orjson

from convergedon.adapters.contract import Device, Intent, Observation, State
from convergedon.adapters.loopback.adapter import LoopbackAdapter
from convergedon.adapters.role import AdapterRole
from convergedon.core import audit, embedded, policy, seals, settings
from convergedon.core.audit import Audit
from convergedon.core.bus import Bus, Consumer, Message, NatsBus, Position, dispose, stream_of
from convergedon.core.errors import Refused
from convergedon.core.memory import MemoryBus, MemoryStore, subject_matches
from convergedon.core.policy import Embedded, Policy
from convergedon.core.relay import Relay
from convergedon.core.settings import Settings
from convergedon.core.store import MongoStore, Record, Store
from convergedon.handlers.apis import APIS, KINDS
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.handlers.resource import Resources
from convergedon.mediation import intervals, metering, planning, rating
from convergedon.mediation.intervals import LONGEST_WAIT
from convergedon.mediation.telling import rules as telling
from convergedon.mediation.work import Work
from convergedon.mediation.worker import Worker
from convergedon.mediation.workflows.definitions import Definition

STORE_KINDS = [*KINDS, audit.KIND]
PRODUCTS = """
offerings:
  access:
    name: Access
    characteristics: &asked
      bandwidth: {type: integer, minimum: 1, maximum: 400000}
      vlan: {type: integer, minimum: 1, maximum: 300}
      site: {type: site}
    intents:
      - &near
        {adapter: loopback, device: site.device, service: access, object: site.port,
         address: "host(site.network, vlan)", values: {bandwidth: bandwidth, vlan: vlan}}
  protected-access:
    name: Protected access
    characteristics: *asked
    intents:
      - *near
      - {adapter: loopback, device: site.spare, service: spare, values: {bandwidth: bandwidth}}
sites:
  acme:
    berlin: {device: pe1, port: ge-1, network: 10.1.0.0/24, spare: pe2}
    hamburg: {device: pe2, port: ge-1, network: 10.2.0.0/24, spare: pe1}
  globex:
    munich: {device: pe3, port: ge-1, network: 10.3.0.0/24, spare: pe3}
"""
METERING = "usageTypes: {ip-traffic: {interval: 1, grace: 0}}"
DEVICES = {
    name: Device(name, tenant, "127.0.0.1") for name, tenant in (("pe1", "acme"), ("pe2", "acme"), ("pe3", "globex"))
}


@cache
def engine() -> Embedded:
    """One for all tests: the engine may not be freed in a thread that did not make it, as the store's have."""
    return Embedded(policy.read())


class Network(LoopbackAdapter):
    """Loopback devices of which some say no: ``refusing`` to what is new, ``keeping`` what is to be taken away.

    ``failing`` has what is raised when an instance is set: a refusal before it is done, anything else after.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refusing: dict[str, str] = {}
        self.keeping: dict[str, str] = {}
        self.failing: dict[str, Exception] = {}

    async def set(self, intent: Intent, state: State) -> None:
        no = self.keeping if state is None else self.refusing
        if intent.device in no:
            raise Refused(no[intent.device])
        error = self.failing.get(intent.instance) if state is not None else None
        if isinstance(error, Refused):
            raise error
        await super().set(intent, state)
        if error:
            raise error

    @property
    def services(self) -> dict[str, list[dict[str, Any]]]:
        """device -> the values of all that is configured on it."""
        return {device: list(had.values()) for device, had in self.state.items() if had}


class PumpBus:
    """A bus that delivers when it is told to, every message as often as asked, and so always in the same order.

    ``between`` is called before a message is delivered again, ``after`` when that was done.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.consumers: list[Consumer] = []
        self.parked_: list[tuple[Message, str]] = []
        self._purged: dict[str, int] = {}
        self._next = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def publish(
        self, subject: str, body: Mapping[str, Any], id: str, headers: Mapping[str, str] | None = None
    ) -> None:
        if any(message.id == id for message in self.messages):
            return
        carried = {**(headers or {}), "Nats-Msg-Id": id}
        position = Position("pump", len(self.messages) + 1)
        self.messages.append(Message(id, subject, orjson.loads(orjson.dumps(body)), carried, position, time()))

    def consume(self, consumer: Consumer) -> asyncio.Task[None]:
        self.consumers.append(consumer)
        task: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(3600))
        self._tasks.append(task)
        return task

    async def run(
        self,
        store: Store,
        times: int = 1,
        between: Callable[[], Awaitable[Any]] | None = None,
        after: Callable[[Message, Any], Awaitable[None]] | None = None,
    ) -> None:
        """Deliver until nothing is left, in the outboxes neither; what may succeed later is tried again at once."""
        while True:
            for unsent in await store.unsent(-1):
                for message in unsent.messages:
                    await self.publish(message.subject, message.body, message.id, message.headers)
                await store.sent([unsent])
            if self._next == len(self.messages):
                return
            message = self.messages[self._next]
            self._next += 1
            for turn in range(times):
                before = await between() if turn and between else None
                for consumer in list(self.consumers):
                    if subject_matches(message.subject, consumer.subject):
                        await self._deliver(consumer, message)
                if turn and after:
                    await after(message, before)

    async def _deliver(self, consumer: Consumer, message: Message) -> None:
        for attempt in range(1, 100):
            what, reason, _ = await dispose(consumer, message, attempt, self._park)
            if what != "later":
                return
        raise AssertionError(f"{message.subject} came back for ever: {reason}")

    async def _park(self, message: Message, reason: str) -> None:
        self.parked_.append((message, reason))

    async def forget(self, stream: str, consumer: str, subject: str) -> None:
        self.consumers = [one for one in self.consumers if one.name != consumer]

    async def read(self, subject: str) -> list[Mapping[str, Any]]:
        return [message.body for message in self.messages if subject_matches(message.subject, subject)]

    async def waiting(self, stream: str) -> Mapping[str, int]:
        return Counter(one.subject for one in self.messages if stream_of(one.subject) == stream and self._there(one))

    async def size(self, stream: str) -> int:
        held = (one for one in self.messages if stream_of(one.subject) == stream and self._there(one))
        return sum(len(orjson.dumps(one.body)) for one in held)

    async def last(self, subject: str) -> Message | None:
        mine = [message for message in self.messages if message.subject == subject and self._there(message)]
        return mine[-1] if mine else None

    async def since(self, subject: str, start: float, beyond: int = 0) -> AsyncIterator[Message]:
        for message in list(self.messages):
            if (
                subject_matches(message.subject, subject)
                and message.position.sequence > beyond
                and self._there(message)
            ):
                yield message

    async def purge(self, subject: str, through: int) -> None:
        self._purged[subject] = through

    def _there(self, message: Message) -> bool:
        return message.position.sequence > self._purged.get(message.subject, 0)

    async def parked(self) -> list[Any]:
        return [(message.subject, reason) for message, reason in self.parked_]

    async def retry(self, id: int) -> None:
        raise NotImplementedError

    @asynccontextmanager
    async def listen(self, subject: str) -> AsyncIterator[asyncio.Queue[Message]]:
        """Nobody asks anything here."""
        yield asyncio.Queue()

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass
class Scene:
    """Everything of a running system that a test asks or makes do something; where each of its adapters listens."""

    store: Store
    bus: Any
    work: Work
    worker: Worker
    network: Network
    audit: Audit
    listens: Sequence[str] = ()

    @property
    def resources(self) -> Resources:
        return self.work.resources

    async def order(self, *items: Mapping[str, Any], party: str = "northwind", tenant: str = "acme") -> str:
        """An order as the gateway takes it; returns its id."""
        related = [{"id": party, "role": "customer", "@referredType": "Organization"}] if party else []
        body = {"productOrderItem": list(items), "relatedParty": related}
        return (await self.resources.create(PRODUCT_ORDER, tenant, body)).id

    async def find(self, kind: str, tenant: str = "acme", **where: Any) -> list[Record]:
        return await self.store.find(kind, {"tenant": tenant, **where}, sort=[("id", 1)])

    async def ended(self, id: str, tenant: str = "acme") -> dict[str, Any]:
        """The order when it has come to its end."""
        await self.pump()

        async def over() -> bool:
            order = await self.store.get("productOrder", tenant, id)
            return order.body["state"] not in ("acknowledged", "inProgress")

        await self.until(over)
        return dict((await self.store.get("productOrder", tenant, id)).body)

    async def until(self, true: Callable[[], Awaitable[bool]], patience: float = 20) -> None:
        async with asyncio.timeout(patience):
            while not await true():
                await asyncio.sleep(0.01)

    async def settled(self, quiet: float = 0.3) -> None:
        """Wait until nothing changes any more."""
        await self.pump()
        if isinstance(self.bus, PumpBus):
            return
        before: Any = None
        while before != (now := await self.snapshot()):
            before = now
            await asyncio.sleep(quiet)

    async def pump(self) -> None:
        """Deliver what there is, and then what intervals of usage come to that are over as soon as nothing is left."""
        if isinstance(self.bus, PumpBus):
            await self.bus.run(self.store)
            await self.over()
            await self.bus.run(self.store)

    async def over(self, later: float = 2 * LONGEST_WAIT) -> None:
        """Have it be so much later for the intervals of usage."""
        await metering.ask(self.work, time() + later)

    async def snapshot(self) -> dict[str, Any]:
        """All records with their revisions, and what the devices have."""
        kept = {
            f"{kind.name}/{record.id}": (record.revision, record.body, record.facts)
            for kind in STORE_KINDS
            if kind not in audit.KINDS
            for record in await self.store.find(kind.name, {})
        }
        return {**kept, "network": {device: dict(had) for device, had in self.network.state.items()}}

    async def say(self, kind: str, device: str = "pe1", object: str = "ge-1", **given: Any) -> Observation:
        """Have a device say something."""
        about = {
            "alarmType": "communicationsAlarm",
            "perceivedSeverity": "major",
            "probableCause": "lossOfSignal",
            "specificProblem": "link down",
            "details": {},
        }
        seen = Observation(
            id=given.pop("id", uuid4().hex),
            kind=kind,  # type: ignore[arg-type]
            adapter="loopback",
            device=device,
            tenant=given.pop("tenant", DEVICES[device].tenant),
            time=time(),
            object=object,
            key=given.pop("key", f"linkDown:{object}"),
            attributes={**about, **given},
        )
        await self.network.say(seen)
        return seen


def item(
    action: str = "add", offering: str = "access", id: str = "1", product: str = "", **given: Any
) -> dict[str, Any]:
    listed = [{"name": name, "value": value} for name, value in given.items()]
    named: dict[str, Any] = {"id": id, "action": action, "product": {"productCharacteristic": listed}}
    if product:
        named["product"]["id"] = product
    return named if action in ("delete", "noChange") else {**named, "productOffering": {"id": offering}}


BERLIN = {"bandwidth": 100, "vlan": 10, "site": "berlin"}
HAMBURG = {"bandwidth": 100, "vlan": 20, "site": "hamburg"}


@asynccontextmanager
async def playing(
    store: Store,
    bus: Bus,
    folder: Path,
    products: str = PRODUCTS,
    workflows: Sequence[Definition] = (),
    rules: Policy | None = None,
    adapters: Sequence[Any] = (),
    devices: Mapping[str, Device] = DEVICES,
    **given: Any,
) -> AsyncIterator[Scene]:
    """A scene with this store and bus, and with adapters of its own for real devices; ended at the end."""
    (folder / "products.yaml").write_text(products)
    chosen: Settings = settings.load(data=folder, callback_networks=["127.0.0.0/8"], **given)
    writer = Audit(store, bus, "test")
    resources = Resources(store, APIS, "http://gateway.example")
    rules, model = rules or Policy(engine()), planning.load(folder / "products.yaml")
    (folder / "metering.yaml").write_text(METERING)
    rule, seal = intervals.load(folder / "metering.yaml"), seals.seals(chosen)
    told = telling.load(chosen)
    work = Work(resources, bus, rules, writer, model, rating.load(), chosen, seal, metering=rule, workflows=workflows)
    work = replace(work, notifications=told)
    worker, network = Worker(work), Network()
    roles = [AdapterRole(one, bus, devices, rules, work.seals, writer) for one in (network, *adapters)]
    relay = Relay(store, bus, 0.2)
    running = not isinstance(bus, PumpBus)
    if running:
        await writer.start()
        await relay.start()
    listens = [await role.start() for role in roles]
    await worker.start()
    try:
        yield Scene(store, bus, work, worker, network, writer, listens)
    finally:
        for role in roles:
            await role.stop()
        await worker.stop()
        if running:
            await relay.stop()
            await writer.stop()
        await bus.close()


@asynccontextmanager
async def in_memory(folder: Path, **given: Any) -> AsyncIterator[Scene]:
    async with playing(MemoryStore(STORE_KINDS), MemoryBus(), folder, **given) as scene:
        yield scene


@asynccontextmanager
async def pumped(folder: Path, store: Store | None = None, **given: Any) -> AsyncIterator[Scene]:
    """A scene in which nothing happens until it is told to go on."""
    async with playing(store or MemoryStore(STORE_KINDS), PumpBus(), folder, **given) as scene:
        yield scene


@asynccontextmanager
async def on_servers(folder: Path, mongodb_url: str) -> AsyncIterator[Scene]:
    """On a database of its own and a bus of its own: streams are shared by all who use one."""
    store = await MongoStore(mongodb_url, f"lines{uuid4().hex[:8]}", STORE_KINDS).open()
    (folder / "nats").mkdir()
    with embedded.running(embedded.nats_command(folder / "nats")) as server:
        try:
            async with playing(store, await NatsBus(server.url, "test").open(), folder) as scene:
                yield scene
        finally:
            await store.close()


async def twice(scene: Scene) -> list[str]:
    """Deliver everything twice; returns which messages changed something the second time."""
    changed: list[str] = []

    async def compare(message: Message, before: Any) -> None:
        after = await scene.snapshot()
        different = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
        if different:
            changed.append(f"{message.subject}: {sorted(different)}")

    await scene.bus.run(scene.store, 2, scene.snapshot, compare)
    await scene.over()
    await scene.bus.run(scene.store, 2, scene.snapshot, compare)
    return changed


@dataclass
class Listener:
    """An HTTP server on loopback: ``answers`` says with which status each path is answered, 0: not at all."""

    port: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    got: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def url(self, who: str) -> str:
        return f"http://127.0.0.1:{self.port}/{who}"

    def of(self, who: str) -> list[dict[str, Any]]:
        return [event for path, event in self.got if path == who]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:")
                )
                event = orjson.loads(await reader.readexactly(length))
                who = head.split(" ")[1].strip("/")
                self.got.append((who, event))
                status = self.answers.get(who, 204)
                if status == 0:
                    await asyncio.sleep(60)
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    listener = Listener()
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(listener.serve(reader, writer))
        tasks.add(task)
        writers.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)
