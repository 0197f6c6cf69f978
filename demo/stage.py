"""What the demonstration is played with: who speaks, the system it is played on, and the eyes that check what is said.

The eyes are not the gateway's own: an element is read by a plain NETCONF session, notifications arrive at a listener.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import httpx
from lxml import etree  # type: ignore[import-untyped]
from ncclient.operations.errors import OperationError  # type: ignore[import-untyped]
from ncclient.transport.errors import TransportError  # type: ignore[import-untyped]

from convergedon.adapters import inventory, lab
from convergedon.adapters.contract import Device
from convergedon.adapters.flow import lab as exporter
from convergedon.adapters.snmp import ber
from convergedon.adapters.snmp import lab as trapper
from convergedon.core import tokens, up
from convergedon.core.commands.system import adapter_names
from convergedon.core.errors import Misconfigured, Unavailable
from convergedon.core.settings import Settings
from convergedon.core.supervisor import Component
from convergedon.demo import past
from convergedon.demo.story import Story
from convergedon.mediation import planning

ORDERING = "/tmf-api/productOrderingManagement/v4"
ALARMS = "/tmf-api/alarmManagement/v4"
USAGE = "/tmf-api/usageManagement/v4"
BILLS = "/tmf-api/customerBillManagement/v4"
NOTICES = "/convergedon-api/customerNotification/v1"
BASES = {
    "productOrder": ORDERING,
    "alarm": ALARMS,
    "usage": USAGE,
    "customerBill": BILLS,
    "customerBillOnDemand": BILLS,
    "appliedCustomerBillingRate": BILLS,
    "customerNotification": NOTICES,
}
PATIENCE = 10.0
"""Seconds that anything may take before it is said not to have happened."""

START = 90.0
"""Seconds that a system of its own may take to start."""

Body = Mapping[str, Any]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Caller:
    """Somebody with a token: a customer, or a system or person of an operator."""

    name: str
    tenant: str
    role: str

    @property
    def party(self) -> str | None:
        return self.name if self.role == "customer" else None

    @property
    def related(self) -> Body:
        return {"id": self.name, "role": self.role, "@referredType": "Organization"}


NORTHWIND = Caller("northwind", "acme", "customer")
CONTOSO = Caller("contoso", "acme", "customer")
INITECH = Caller("initech", "globex", "customer")
CUSTOMERS = (NORTHWIND, CONTOSO, INITECH)
VENDOR = Caller("vendor", "acme", "csr")
VENDORS = {"acme": VENDOR, "globex": Caller("vendor of globex", "globex", "csr")}
NOC = Caller("noc", "acme", "noc")
MEDIATION = Caller("mediation", "acme", "mediation")
BILLING = Caller("billing", "acme", "billing")
HUBS = (
    (NORTHWIND, NOTICES),
    (CONTOSO, NOTICES),
    (INITECH, NOTICES),
    (VENDOR, ORDERING),
    (NOC, ALARMS),
    (MEDIATION, USAGE),
)


@dataclass(frozen=True)
class Sale:
    """What is ordered: so many Mbit/s for a customer at a site of the product model."""

    customer: Caller
    site: str
    bandwidth: int

    @property
    def words(self) -> str:
        return f"{self.customer.name}'s order of {self.bandwidth} Mbit/s at {self.site}"


@dataclass(frozen=True)
class Service:
    """What became of a sale: the service stands on a port of a device, with a VLAN and an address."""

    id: str
    order: str
    sale: Sale
    device: str
    interface: str
    vlan: int
    address: str

    @property
    def leaves(self) -> dict[str, str]:
        """What the device should have of it."""
        return {
            "name": self.id,
            "interface": self.interface,
            "vlan-id": str(self.vlan),
            "bandwidth": str(self.sale.bandwidth),
            "address": self.address,
        }


@dataclass(frozen=True)
class Traffic:
    """What an exporter counted in one datagram, to the customer and from it."""

    kind: exporter.Kind
    down: tuple[int, int]
    up: tuple[int, int]

    @property
    def counted(self) -> dict[str, int]:
        """The characteristics that a usage should have."""
        octets, packets = zip(self.down, self.up, strict=True)
        return {"octetsDown": octets[0], "octetsUp": octets[1], "packetsDown": packets[0], "packetsUp": packets[1]}


# --- the stage


@dataclass(frozen=True)
class Place:
    """A system with a lab: where it is reached, and its simulated elements."""

    settings: Settings
    gateway: str
    trap: tuple[str, int]
    flow: tuple[str, int]
    devices: Mapping[str, Device]


@dataclass
class Stage:
    """The place, who speaks with it, and what must not be left behind."""

    place: Place
    story: Story
    gateway: Gateway
    listener: Listener
    products: planning.Products
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    sold: list[Service] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    hubs: list[tuple[Caller, str]] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)

    def element(self, name: str) -> Element:
        return Element(self.place.devices[name])

    async def draft(self, sale: Sale) -> tuple[Service, View]:
        """Where a sale would be delivered, with a VLAN that is free on the device, and what the device is now."""
        try:
            site = self.products.sites[sale.customer.tenant][sale.site]
        except KeyError:
            raise Misconfigured(
                f"the demonstration sells at {sale.site}, which the product model does not have"
            ) from None
        now = await self.element(site["device"]).read()
        on_port = [access for access in now.config.values() if access["interface"] == site["interface"]]
        taken = {int(access["vlan-id"]) for access in on_port}
        vlan = next(number for number in range(100, 4095) if number not in taken)
        address = str(ip_network(site["network"])[vlan])
        return Service("", "", sale, site["device"], site["interface"], vlan, address), now

    def external_id(self, sale: Sale) -> str:
        return f"demo-{self.run}-{sale.customer.name}-{sale.bandwidth}"

    async def order(self, sale: Sale, draft: Service, trace: str = "") -> dict[str, Any]:
        """Order a sale; the order when it is over, or what refused it."""
        given = {"bandwidth": sale.bandwidth, "vlan": draft.vlan, "site": sale.site}
        product = {"productCharacteristic": [{"name": name, "value": value} for name, value in given.items()]}
        item = {"id": "1", "action": "add", "productOffering": {"id": "internet-access"}, "product": product}
        return await self._ordered(sale, self.external_id(sale), item, trace)

    async def end(self, service: Service) -> dict[str, Any]:
        """Order the end of a service."""
        item = {"id": "1", "action": "delete", "product": {"id": service.id}}
        order = await self._ordered(service.sale, f"demo-{self.run}-end", item)
        if order["state"] == "completed":
            self.services.remove(service)
        return order

    async def _ordered(self, sale: Sale, external_id: str, item: Body, trace: str = "") -> dict[str, Any]:
        vendor = VENDORS[sale.customer.tenant]
        body = {"externalId": external_id, "relatedParty": [sale.customer.related], "productOrderItem": [item]}
        return await self._done(vendor, "productOrder", body, ("acknowledged", "inProgress"), trace)

    async def _done(
        self, who: Caller, kind: str, body: Body, under_way: Sequence[str], trace: str = ""
    ) -> dict[str, Any]:
        """Create a resource and wait until it is under way no more; a refused call has the state refused."""
        answer = await self.gateway.ask(who, "POST", f"{BASES[kind]}/{kind}", body, trace)
        if answer.status_code >= 500:
            raise Unavailable(f"the gateway answered {answer.status_code}: {answer.text}")
        if answer.status_code != 201:
            return {**answer.json(), "state": "refused"}
        found = {}

        async def over() -> bool:
            found.update(await self.gateway.get(who, kind, answer.json()["id"]))
            return found["state"] not in under_way

        await until(over)
        return found

    def keep(self, draft: Service, order: Body) -> Service:
        """The service that a completed order made; it is ended when the story is."""
        service = replace(draft, id=order["productOrderItem"][0]["product"]["id"], order=order["id"])
        self.sold.append(service)
        self.services.append(service)
        return service

    async def customers_on(self, service: Service) -> set[str]:
        """Whose accesses stand on the port, by the device and the orders that its accesses are named after."""
        accesses = (await self.element(service.device).read()).config
        on = {name.rpartition("-")[0] for name, access in accesses.items() if access["interface"] == service.interface}
        found = [await self.gateway.ask(VENDOR, "GET", f"{ORDERING}/productOrder/{order}") for order in on]
        return {party["id"] for answer in found if answer.is_success for party in answer.json()["relatedParty"]}

    def trap_link(self, state: trapper.State, service: Service) -> None:
        index = list(lab.INTERFACES).index(service.interface) + 1
        address = lab.address(service.device)
        trapper.trap_link(state, address, service.interface, index, self._community, self.place.trap)

    def trap(self, oid: str, device: str, varbinds: Sequence[ber.Varbind]) -> None:
        head: list[ber.Varbind] = [(ber.UPTIME, ber.TICKS, 100), (ber.TRAP_OID, ber.OID, oid)]
        tail: list[ber.Varbind] = [(ber.TRAP_ADDRESS, ber.IP, lab.address(device))]
        datagram = ber.encode(self._community.encode(), [*head, *varbinds, *tail], request=secrets.randbelow(2**31))
        exporter.send([datagram], self.place.trap)

    @property
    def _community(self) -> str:
        return min(self.place.settings.communities).decode()

    async def mend(self, service: Service, port: Mapping[str, str]) -> None:
        """An alarm that somebody left open on the port would take the one of this story."""

        async def none_open() -> bool:
            return all(alarm["state"] == "cleared" for alarm in await self.gateway.list(NOC, "alarm", **port))

        if not await none_open():
            self.trap_link("up", service)
            self.story.need("an alarm that was open before is cleared", await until(none_open))

    def export(self, service: Service, sent: Sequence[Traffic]) -> None:
        """Send the flow records; the first datagram twice, as it happens in networks."""
        now, peer, domain = time.time(), "192.0.2.1", lab.domain(service.device)
        datagrams = []
        for traffic in sent:
            times = {"start": now - 60, "end": now - 1}
            records = [
                {"source": source, "destination": to, "octets": octets, "packets": packets, **times}
                for source, to, (octets, packets) in (
                    (peer, service.address, traffic.down),
                    (service.address, peer, traffic.up),
                )
            ]
            datagrams += exporter.datagrams(traffic.kind, records, domain)
        again = [datagrams[0], *datagrams]
        try:
            exporter.send(again, self.place.flow, lab.address(service.device))
        except OSError:  # not every system has more addresses on loopback than one
            exporter.send(again, self.place.flow)

    async def bill(self, customer: Caller) -> dict[str, Any]:
        """Ask for a bill; what became of the request."""
        body = {"name": f"demo-{self.run}", "relatedParty": customer.related}
        return await self._done(BILLING, "customerBillOnDemand", body, ("inProgress",))

    async def settle(self, customer: Caller) -> None:
        """Bill what the customer used before, so that the story's bill has the story's usage alone."""
        left = {"status": "rated", "relatedParty.id": customer.name}
        if await self.gateway.list(MEDIATION, "usage", **left):
            self.story.need(
                "what northwind used before is billed first", (await self.bill(customer))["state"] == "done"
            )


class Gateway:
    """The APIs, as each caller reaches them with a token of its own."""

    def __init__(self, client: httpx.AsyncClient, settings: Settings) -> None:
        self._client, self._settings = client, settings
        self._tokens: dict[Caller, str] = {}

    async def ask(
        self,
        who: Caller,
        method: str,
        path: str,
        body: Body | None = None,
        trace: str = "",
        query: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        if who not in self._tokens:
            self._tokens[who] = tokens.issue(self._settings, who.tenant, who.role, who.party)
        headers = {"Authorization": f"Bearer {self._tokens[who]}"}
        if trace:
            headers["traceparent"] = f"00-{trace}-{secrets.token_hex(8)}-01"
        return await self._client.request(method, path, json=body, params=query, headers=headers)

    async def get(self, who: Caller, kind: str, id: str) -> dict[str, Any]:
        return dict(await self._read(who, f"{BASES[kind]}/{kind}/{id}"))

    async def list(self, who: Caller, kind: str, **query: str) -> Sequence[dict[str, Any]]:
        return list(await self._read(who, f"{BASES[kind]}/{kind}", **query))

    async def _read(self, who: Caller, path: str, **query: str) -> Any:
        """Money arrives as Decimal. Raises Unavailable when the gateway does not give what the caller may have."""
        answer = await self.ask(who, "GET", path, query=query)
        if not answer.is_success:
            raise Unavailable(f"GET {path} as {who.role} of {who.tenant} answered {answer.status_code}: {answer.text}")
        return json.loads(answer.text, parse_float=Decimal)


@dataclass(frozen=True)
class Heard:
    """An event that a listener received."""

    who: str
    time: float
    traceparent: str
    event: Body

    @property
    def trace(self) -> str:
        return self.traceparent.split("-")[1] if self.traceparent else ""

    @property
    def body(self) -> Body:
        """The resource that the event tells of."""
        return next(iter(self.event["event"].values()))

    @property
    def about(self) -> list[str]:
        """The ids of what a notification speaks of: orders, services, an alarm."""
        listed = [*self.body.get("productOrder", []), *self.body.get("service", []), self.body.get("alarm")]
        return [each["id"] for each in listed if each]

    @property
    def parties(self) -> set[str]:
        return {party["id"] for party in self.body.get("relatedParty", [])}


class Listener:
    """An HTTP server on loopback that keeps what each listener was sent; the path says which."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        heard = self.heard

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["content-length"])))
                who = self.path.strip("/")
                heard.append(Heard(who, time.time(), self.headers.get("traceparent", ""), event))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """What arrives is told by the story."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def open(self) -> Iterator[Listener]:
        thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def of(self, who: Caller, type_: str = "", id: str | None = None) -> list[Heard]:
        """What somebody heard, in the order of arrival; what was sent again (the same eventId) is heard once."""
        found = {h.event["eventId"]: h for h in reversed(self.heard) if h.who == who.name}
        chosen = [h for h in reversed(found.values()) if type_ in h.event["eventType"] and id in (None, h.body["id"])]
        return sorted(chosen, key=lambda h: h.time)

    def told(self, who: Caller, type_: str, about: str) -> list[Heard]:
        """The notifications of a type that a customer received about an order, an alarm or a service."""
        return [one for one in self.of(who) if one.body["notificationType"] == type_ and about in one.about]

    def states(self, who: Caller, kind: str, id: str, least: int) -> list[str]:
        """The states that somebody saw a resource in; nothing before there are as many as there should be."""
        seen = [h.body for h in self.of(who, id=id) if kind in h.event["event"]]
        states = [str(resource.get("state") or resource.get("status")) for resource in seen]
        return states if len(states) >= least else []


@dataclass(frozen=True)
class View:
    """What a device says of itself: accesses as configured and as they run, and the configuration as a whole."""

    config: Mapping[str, Mapping[str, str]]
    state: Mapping[str, Mapping[str, str]]
    whole: bytes


class Element:
    """A device, read by a plain NETCONF session of our own: what the gateway's adapter believes does not count."""

    def __init__(self, device: Device) -> None:
        self._device = device

    async def read(self) -> View:
        """Raises Unavailable when the device does not answer."""
        try:
            return await asyncio.to_thread(self._read)
        except (TransportError, OperationError, OSError) as error:
            raise Unavailable(f"{self._device.name} cannot be read: {error}") from error

    def _read(self) -> View:
        with past.session(self._device.settings["netconf"]) as session:
            config = session.get_config("running").data_ele
            running = session.get().data_ele
        configured = past.accesses(config)
        state = {
            name: {leaf: text for leaf, text in leaves.items() if leaf.startswith("oper-")}
            for name, leaves in past.accesses(running).items()
        }
        return View(configured, state, etree.tostring(config, method="c14n"))


async def until(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask until there is something to say yes to, or patience ends; the last answer either way."""
    end = time.monotonic() + PATIENCE
    while True:
        answer = await ask()
        if answer or time.monotonic() > end:
            return answer
        await asyncio.sleep(0.02)


async def until_heard(listen: Callable[[], Answer]) -> Answer:
    """The same for what arrives at the listener."""

    async def ask() -> Answer:
        return listen()

    return await until(ask)


@asynccontextmanager
async def played(place: Place, story: Story) -> AsyncIterator[Stage]:
    products = planning.load(place.settings.products)
    async with httpx.AsyncClient(base_url=place.gateway, timeout=PATIENCE, trust_env=False) as client:
        with Listener().open() as listener:
            yield Stage(place, story, Gateway(client, place.settings), listener, products)


@asynccontextmanager
async def own(settings: Settings, story: Story) -> AsyncIterator[Place]:
    """A system for this story alone; its folder is kept only where one was named."""

    def restarted(name: str, component: Component) -> None:
        if component.state == "restarting":
            story.say(f"{name} stopped ({component.reason}) and is started again")

    kept = "data" in settings.model_fields_set
    folder = settings.data if kept else Path(tempfile.mkdtemp(prefix="convergedon-demo-"))
    ours = settings.model_copy(update={"data": folder, "port": 0, "trap_port": 0, "flow_port": 0})
    story.say(f"starting a system of its own in {folder}")
    try:
        async with asyncio.timeout(START) as starting:
            async with up.system(ours, lab=True, adapters=adapter_names(), changed=restarted) as running:
                starting.reschedule(None)
                found = running.connection
                yield _place(ours, found, found.gateway, folder / "lab" / "devices.yaml")
                story.say("stopping the system")
    except TimeoutError as error:
        if not starting.expired():
            raise
        raise Unavailable(f"the system did not start within {START:g} s") from error
    finally:
        if not kept:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def running(settings: Settings, url: str) -> Place:
    """The system that is up. Raises Misconfigured when its folder is not known, or when it has no lab."""
    found = up.find(settings.data)
    if found is None:
        raise Misconfigured(
            f"no system runs in {settings.data}: --url needs the folder of the running system too, for tokens and "
            "the lab's devices (--data DIR, or CONVERGEDON_DATA)"
        )
    components = json.loads((settings.data / "run" / "components.json").read_text(encoding="utf-8"))["components"]
    if "lab" not in components or not found.trap or not found.flow:
        raise Misconfigured(
            f"the system in {settings.data} has no lab: start it with `convergedon up --lab --data {settings.data}`"
        )
    return _place(settings, found, url, settings.data / "lab" / "devices.yaml")


def _place(settings: Settings, found: up.Connection, url: str, devices: Path) -> Place:
    return Place(settings, url, _address(found.trap), _address(found.flow), inventory.load(devices))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]").replace("0.0.0.0", "127.0.0.1"), int(port)
