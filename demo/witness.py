"""What a campaign acts with and what it sees with: callers of any kind, hands inside the system, and eyes outside it.

The eyes are never the gateway's word about itself: devices are read by plain NETCONF sessions all the time (what was
there for a while and is gone again counts), resources by their rightful owners, notifications at a listener.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from ipaddress import ip_network
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import jwt
import nats
import orjson
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo
from pydantic import SecretStr

from convergedon.adapters.contract import Intent
from convergedon.core import app, audit, peers, seals, tokens, up
from convergedon.core.bus import STREAMS, Bus
from convergedon.core.errors import Unavailable
from convergedon.core.policy import Subject
from convergedon.core.relay import Relay
from convergedon.core.seals import Seals
from convergedon.core.store import Record, Store
from convergedon.core.tasks import end
from convergedon.demo.stage import PATIENCE, Element, Listener, Place
from convergedon.handlers import hub
from convergedon.handlers.apis import APIS
from convergedon.handlers.resource import Api, Resource, Resources
from convergedon.mediation import planning

AT_LAST = 60.0
"""Seconds in which what must happen must have happened: what waits for the policy engine comes back after up to 15."""
ALL_QUIET = 300.0
"""Seconds in which everything that is under way must have ended."""

TENANTS = ("acme", "globex")
"""Whose things there are in the lab."""

Body = Mapping[str, Any]
Forge = Callable[[Seals, str, Body, Body], Body]
"""Puts a message for a subject on the bus as somebody would: from its honest body, and from what it is to say."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Who:
    """A caller, as its token says: ``age`` is for how many seconds it has had its roles."""

    name: str
    tenant: str
    roles: tuple[str, ...]
    party: str | None = None
    age: float = 0

    @property
    def subject(self) -> Subject:
        return Subject(self.name, self.tenant, self.roles, self.party, float(int(time.time() - self.age)))


@dataclass(frozen=True)
class Seen:
    """An answer, as much as is judged of it."""

    who: Who
    status: int
    text: str
    headers: Mapping[str, str]


class Scene:
    """A system in play, seen from outside and reached from all sides."""

    def __init__(
        self,
        place: Place,
        client: httpx.AsyncClient,
        listener: Listener,
        bus: Bus,
        streams: JetStreamContext,
        store: Store,
    ) -> None:
        self.place, self.listener, self.bus, self.store = place, listener, bus, store
        self._streams = streams
        self.resources = Resources(store, APIS, place.gateway)
        self.products = planning.load(place.settings.products)
        self._seals = seals.seals(place.settings)
        self.run = secrets.token_hex(3)
        self._client = client
        self._tokens: dict[Who, str] = {}
        self._consoles: dict[Who, httpx.AsyncClient] = {}
        self._browsers: list[httpx.AsyncClient] = []
        self._vlans: Counter[str] = Counter()
        self._read = 0
        self._heard: dict[str, list[str]] = defaultdict(list)
        self._ever: dict[str, dict[tuple[str, ...], Mapping[str, str]]] = {name: {} for name in place.devices}
        self._now: dict[str, Iterable[Mapping[str, str]]] = dict.fromkeys(place.devices, ())

    # --- who speaks

    def secret(self, owner: str) -> str:
        """A word that stands in all that a tenant or a party owns, and in nothing that others may read."""
        return f"of-{owner}-alone-{self.run}"

    def token(self, who: Who) -> str:
        """A token of the local issuer that says what it is told to: an issuer may err, and people change their jobs."""
        if who not in self._tokens:
            settings = self.place.settings
            plain = tokens.issue(settings, who.tenant, "reader")
            now = int(time.time())
            claims = jwt.decode(plain, options={"verify_signature": False}) | {
                "sub": who.name,
                "roles": list(who.roles),
                "iat": int(now - who.age),
                "exp": now + 3600,
            }
            claims |= {"party": who.party} if who.party else {}
            key = load_pem_private_key((settings.data / "keys" / "issuer.pem").read_bytes(), None)
            headers = jwt.get_unverified_header(plain)
            self._tokens[who] = jwt.encode(claims, key, algorithm="ES256", headers=headers)  # type: ignore[arg-type]
        return self._tokens[who]

    async def ask(
        self,
        who: Who,
        method: str,
        path: str,
        body: Any = None,
        media_type: str = "application/json",
        trace: str = "",
        **query: str,
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token(who)}"}
        if body is not None:
            headers["Content-Type"] = media_type
        if trace:
            headers["traceparent"] = f"00-{trace}-{secrets.token_hex(8)}-01"
        content = None if body is None else orjson.dumps(body)
        return await self._client.request(method, path, content=content, headers=headers, params=query or None)

    async def must(self, who: Who, method: str, path: str, body: Any = None, **query: str) -> Any:
        """What somebody who may is answered. Raises Unavailable when it is not given."""
        answer = await self.ask(who, method, path, body, **query)
        if not answer.is_success:
            raise Unavailable(f"{method} {path} as {who.name} answered {answer.status_code}: {answer.text[:300]}")
        return answer.json() if answer.content else None

    async def console(self, who: Who, path: str, trace: str = "") -> httpx.Response:
        """A page of the console, in the session of its operator; or why there is no session."""
        headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"} if trace else {}
        if who not in self._consoles:
            browser = httpx.AsyncClient(base_url=self.place.gateway, timeout=3 * PATIENCE, trust_env=False)
            self._browsers.append(browser)
            page = await browser.get("/console/login")
            form = re.search(r'name="form" value="([^"]*)"', page.text)
            given = {"form": form[1] if form else "", "token": self.token(who)}
            entered = await browser.post("/console/login", data=given, headers=headers)
            if not entered.is_redirect:
                return entered
            self._consoles[who] = browser
        return await self._consoles[who].get(path, headers=headers)

    async def close(self) -> None:
        for browser in self._browsers:
            await browser.aclose()

    # --- hands inside: what no door saw

    async def write(self, resource: Resource, who: Who, body: Body) -> str:
        """A resource and its event past the APIs; the id."""
        return (await self.resources.create(resource, who.tenant, body, {"owner": who.subject.document})).id

    async def forge(self, resource: Resource, who: Who, body: Body, subject_of: str, **said: Any) -> None:
        """A resource past the APIs, and an event of it that says more than is true, or is another tenant's."""
        whole = {**body, **resource.new(body)}
        facts = {"owner": who.subject.document, "parties": resource.parties(whole)}
        record = await self.store.create(Record(resource.name, str(uuid4()), who.tenant, whole, facts))
        event = self.resources.tell(resource, record, "Create", "")
        kind, number, _, type_ = event.subject.split(".")
        await self.bus.publish(f"{kind}.{number}.{subject_of}.{type_}", {**event.body, **said}, event.id)

    async def subscribe(self, api: Api, who: Who, name: str, query: str = "") -> None:
        """A listener that was taken long ago, when its owner might have been somebody else."""
        callback = {"callback": f"{self.listener.url}/{name}", "query": query}
        await hub.register(self.store, hub.subscription(api, who.subject, callback))

    async def intend(self, honest: Intent, intent: Intent, about: Body, trace: str, forge: Forge) -> None:
        """An intent on the bus past the orchestrator, and what a worker would have asked for in its place."""
        rest = {"reply": "network.0.outcome", "about": about}
        asked, said = ({"intent": asdict(one), **rest} for one in (honest, intent))
        headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
        subject = f"intent.netconf.{intent.device}"
        await self.bus.publish(subject, forge(self._seals, subject, asked, said), intent.key, headers)

    # --- what is ordered

    def port(self, tenant: str, site: str) -> Mapping[str, Any]:
        """The device, interface and network of a site."""
        return self.products.sites[tenant][site]

    def vlan(self, tenant: str, site: str) -> int:
        """One that nobody else in this campaign orders at the site's port."""
        port = self.port(tenant, site)
        name = f"{port['device']}/{port['interface']}"
        self._vlans[name] += 1
        return 100 + self._vlans[name]

    def values(self, tenant: str, site: str, vlan: int, bandwidth: int) -> dict[str, Any]:
        """What a device is told of an access."""
        port = self.port(tenant, site)
        address = str(ip_network(port["network"])[vlan])
        return {"interface": port["interface"], "vlan": vlan, "bandwidth": bandwidth, "address": address}

    # --- eyes

    async def look(self) -> None:
        """Read all devices, and keep whatever was ever seen on them."""
        for name, device in self.place.devices.items():
            self._now[name] = (await Element(device).read()).config.values()
            for access in self._now[name]:
                self._ever[name][tuple(f"{leaf}={text}" for leaf, text in sorted(access.items()))] = access

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except Unavailable:
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)

    def was_on(self, tenant: str, site: str, vlan: int, **leaves: str) -> bool:
        """Whether an access was ever seen on the port of a site."""
        return self._stands(self._ever[self.port(tenant, site)["device"]].values(), tenant, site, vlan, leaves)

    def is_on(self, tenant: str, site: str, vlan: int) -> bool:
        """Whether it was there when the devices were last read."""
        return self._stands(self._now[self.port(tenant, site)["device"]], tenant, site, vlan, {})

    def _stands(
        self, accesses: Iterable[Mapping[str, str]], tenant: str, site: str, vlan: int, leaves: Mapping[str, str]
    ) -> bool:
        wanted = {"interface": self.port(tenant, site)["interface"], "vlan-id": str(vlan), **leaves}
        return any(wanted.items() <= access.items() for access in accesses)

    async def until(self, words: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Wait for what must happen. Raises Unavailable."""
        end = time.monotonic() + AT_LAST
        while not (answer := await ask()):
            if time.monotonic() > end:
                raise Unavailable(f"it did not happen within {AT_LAST:g} s that {words}")
            await asyncio.sleep(0.05)
        return answer

    def heard(self, name: str, word: str) -> bool:
        """Whether a listener was sent a word."""
        for one in self.listener.heard[self._read :]:
            self._read += 1
            self._heard[one.who].append(json.dumps(one.event, ensure_ascii=False))
        return any(word in text for text in self._heard[name])

    def overheard(self, listeners: Mapping[str, str]) -> list[str]:
        """Those of the listeners (name -> tenant) that were ever sent a byte of another tenant's."""
        return [
            name
            for name, own in listeners.items()
            if any(self.heard(name, self.secret(tenant)) for tenant in TENANTS if tenant != own)
        ]

    async def ready(self) -> None:
        """Wait until the gateway says that all of it can work."""

        async def all_ready() -> bool:
            return (await self._client.get("/readyz")).status_code == 200

        await self.until("the system is ready again after its policy engine", all_ready)

    async def quiet(self) -> None:
        """Wait until nothing is under way: no event unsent, no message of the bus unanswered. Raises Unavailable."""
        end, calm, left = time.monotonic() + ALL_QUIET, 0, ""
        while calm < 2:  # what is between outbox and bus is in neither
            left = await self._under_way()
            calm = 0 if left else calm + 1
            if time.monotonic() > end:
                raise Unavailable(f"after {ALL_QUIET:g} s there is still under way: {left}")
            await asyncio.sleep(0.1)
        await self.look()

    async def _under_way(self) -> str:
        """What is, in words; empty when nothing is."""
        if unsent := await self.store.unsent(0):
            return f"{len(unsent)} records with unsent events"
        for stream in STREAMS:
            for consumer in await self._consumers(stream):
                if not consumer.config.durable_name:
                    continue  # somebody reads, and takes nothing away
                if under_way := (consumer.num_pending or 0) + (consumer.num_ack_pending or 0):
                    return f"{under_way} messages for {consumer.name}"
        return ""

    async def _consumers(self, stream: str) -> list[ConsumerInfo]:
        """All of a stream's, which come in pages."""
        found: list[ConsumerInfo] = []
        while page := await self._streams.consumers_info(stream, offset=len(found)):
            found += page
        return found

    async def records(self, traces: Sequence[str]) -> dict[str, list[Body]]:
        """The audit records of each trace."""
        found: dict[str, list[Body]] = {trace: [] for trace in traces}
        for first in range(0, len(traces), 200):
            some = list(traces[first : first + 200])
            for record in await self.store.find(audit.KIND.name, {"body.trace": {"$in": some}}):
                found[record.body["trace"]].append(record.body)
        return found


@dataclass
class Deed:
    """One attempt under way: a word and a trace that are its alone, and the answers that it was given."""

    scene: Scene
    mark: str
    trace: str = field(default_factory=lambda: secrets.token_hex(16))
    seen: list[Seen] = field(default_factory=list)

    async def ask(self, who: Who, method: str, path: str, body: Any = None, **more: Any) -> Seen:
        """Ask as somebody; what is answered is judged."""
        return self._keep(who, await self.scene.ask(who, method, path, body, trace=self.trace, **more))

    async def console(self, who: Who, path: str) -> Seen:
        return self._keep(who, await self.scene.console(who, path, self.trace))

    def _keep(self, who: Who, answer: httpx.Response) -> Seen:
        self.seen.append(Seen(who, answer.status_code, answer.text, answer.headers))
        return self.seen[-1]

    def told(self, owner: str) -> bool:
        """Whether a byte of what a tenant or party alone may read was in an answer."""
        return any(self.scene.secret(owner) in one.text for one in self.seen)

    @property
    def leaked(self) -> bool:
        """Whether a byte of another tenant's was in any answer, asked for or not."""
        return any(
            self.scene.secret(tenant) in one.text for one in self.seen for tenant in TENANTS if tenant != one.who.tenant
        )

    @property
    def succeeded(self) -> bool:
        return bool(self.seen) and all(200 <= one.status < 300 for one in self.seen)

    @property
    def withheld(self) -> bool:
        """Whether nobody could decide."""
        return any(one.status == 503 for one in self.seen)


@asynccontextmanager
async def staged(place: Place) -> AsyncIterator[Scene]:
    """The scene on a system, with its eyes open."""
    found = up.find(place.settings.data)
    if found is None:
        raise Unavailable(f"no system runs in {place.settings.data}")
    async with AsyncExitStack() as stack:
        servers = {"nats_url": SecretStr(found.nats), "mongodb_url": SecretStr(found.mongodb)}
        reached = place.settings.model_copy(update=servers)
        store, bus = await stack.enter_async_context(app.connected(reached, app.COMMAND))
        watcher = await nats.connect(found.nats, **peers.nats_options(reached))
        stack.push_async_callback(watcher.close)
        relay = Relay(store, bus)
        await relay.start()
        stack.push_async_callback(relay.stop)
        listener = stack.enter_context(Listener().open())
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=place.gateway, timeout=3 * PATIENCE, trust_env=False)
        )
        scene = Scene(place, client, listener, bus, watcher.jetstream(), store)
        stack.push_async_callback(scene.close)
        watching = asyncio.create_task(scene.watch())
        try:
            yield scene
        finally:
            await end([watching])
