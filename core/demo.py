"""The demonstration: the three lines from end to end on simulated network elements, and a check of everything it says.

What the gateway claims is compared with what is outside it: the element itself (read over NETCONF by a session of our
own), the store as REST shows it, and a listener that keeps what each customer was sent. It reads in the order of the
story: `run`, then `orders`, `faults`, `usage`, `tidy`; below them is what they are made of.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import httpx
from lxml import etree  # type: ignore[import-untyped]
from ncclient import manager  # type: ignore[import-untyped]
from ncclient.operations.errors import OperationError  # type: ignore[import-untyped]
from ncclient.transport.errors import TransportError  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table
from rich.text import Text

from convergedon.adapters import inventory, lab
from convergedon.adapters.contract import Device
from convergedon.adapters.flow import lab as exporter
from convergedon.adapters.snmp import ber
from convergedon.adapters.snmp import lab as trapper
from convergedon.core import tokens, up
from convergedon.core.errors import ConvergedonError, Misconfigured, Unavailable
from convergedon.core.settings import Settings
from convergedon.core.supervisor import Component
from convergedon.mediation import planning, rating

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


SALES = (Sale(NORTHWIND, "berlin-1", 100), Sale(CONTOSO, "berlin-2", 200), Sale(INITECH, "munich-1", 300))
ABOVE_THE_PORT = Sale(CONTOSO, "berlin-2", 2500)
ABOVE_THE_CONTRACT = Sale(CONTOSO, "berlin-2", 9000)


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


async def run(settings: Settings, url: str | None, json_file: Path | None) -> bool:
    """Tell the story and say whether all of it was true.

    Raises Misconfigured or Unavailable with one sentence when it cannot be told.
    """
    story = Story()
    _check_writable(json_file)
    try:
        async with AsyncExitStack() as stack:
            place = _running(settings, url) if url else await stack.enter_async_context(_own(settings, story))
            demo = await stack.enter_async_context(_demo(place, story))
            await tell(demo)
    except httpx.HTTPError as error:
        raise Unavailable(f"the gateway does not answer: {str(error) or type(error).__name__}") from error
    story.end(json_file)
    return story.holds


async def tell(demo: Demo) -> None:
    """The three lines in their order. Whatever happens, what the demonstration made is taken away again."""
    try:
        with demo.story.line("listeners"):
            await listen(demo)
        services = await orders(demo)
        for line, part in (("fault line", faults), ("usage line", usage)):
            with demo.story.line(line):
                if demo.story.need(f"{NORTHWIND.name} has a service for the {line}", NORTHWIND.name in services):
                    await part(demo, services[NORTHWIND.name])
        with demo.story.line("afterwards"):
            await tidy(demo)
    finally:
        await undo(demo)


async def listen(demo: Demo) -> None:
    """Customers, a vendor and the operator's people subscribe to what concerns them."""
    refused = []
    for who, base in HUBS:
        callback = {"callback": f"{demo.listener.url}/{who.name}"}
        answer = await demo.gateway.ask(who, "POST", f"{base}/hub", callback)
        if answer.status_code == 201:
            demo.hubs.append((who, f"{base}/hub/{answer.json()['id']}"))
        else:
            refused.append([who.name, answer.text])
    demo.story.need(f"{', '.join(who.name for who, _ in HUBS)} listen", not refused, refused)


# --- the order line


async def orders(demo: Demo) -> dict[str, Service]:
    """Three orders that the network takes, one that it does not, one that the policy refuses."""
    services: dict[str, Service] = {}
    for sale in SALES:
        with demo.story.line("order line"):
            services[sale.customer.name] = await sell(demo, sale)
    with demo.story.line("order line"):
        await fail(demo, ABOVE_THE_PORT)
    with demo.story.line("order line"):
        await refuse(demo, ABOVE_THE_CONTRACT)
    return services


async def sell(demo: Demo, sale: Sale) -> Service:
    """An order that is completed: the device has it, the customer hears of it."""
    story, who = demo.story, sale.customer
    draft, before = await demo.draft(sale)
    trace, began = secrets.token_hex(16), time.time()
    order = await demo.order(sale, draft, trace)
    took = story.took(f"{sale.words}: confirmed by {draft.device}", time.time() - began, simulated=True)
    story.need(f"{sale.words} is completed", order["state"] == "completed", order, took)
    service = demo.keep(draft, order)

    after = await demo.element(service.device).read()
    added = {service.id: service.leaves}
    words = f"{service.device} itself has what {who.name} ordered, and else what it had before"
    story.check(words, after.config == {**before.config, **added}, after.config)
    gives = {"oper-bandwidth": str(sale.bandwidth), "oper-status": "up"}
    words = f"{service.device} itself gives {who.name} {sale.bandwidth} Mbit/s"
    story.check(words, after.state.get(service.id) == gives, after.state)

    told = await until_heard(lambda: demo.listener.told(who, "orderCompleted", order["id"]))
    took = story.took(f"{sale.words}: {who.name} told", _last(told) - began, simulated=True)
    kept = await demo.gateway.list(who, "customerNotification", notificationType="orderCompleted")
    story.check(f"{who.name} is told once, and may read it again", _once(told) and told[0].body in kept, told, took)
    words = f"the trace of the call is that of {who.name}'s notification"
    story.check(words, {heard.trace for heard in told} == {trace}, told)
    if who.tenant == VENDOR.tenant:
        expected = ["acknowledged", "inProgress", "completed"]
        seen = await until_heard(lambda: demo.listener.states(VENDOR, "productOrder", order["id"], len(expected)))
        story.check(f"the vendor sees {who.name}'s order {', '.join(expected)}", seen == expected, seen)
    return service


async def fail(demo: Demo, sale: Sale) -> None:
    """More than the port can: the device takes it, does not reach it, and gets its former configuration back."""
    story, who = demo.story, sale.customer
    draft, before = await demo.draft(sale)
    capacity, began = lab.INTERFACES[draft.interface], time.time()
    order = await demo.order(sale, draft)
    took = story.took(f"{sale.words}: rolled back by {draft.device}", time.time() - began, simulated=True)
    if order["state"] == "completed":
        demo.keep(draft, order)
    story.need(f"{sale.words}, on a port of {capacity}, is failed", order["state"] == "failed", order, took)
    words = " ".join(note["text"] for note in order.get("note", []))
    reached = f"wanted {sale.bandwidth}, found {capacity}"
    story.check("the order's note has the words of the device", reached in words and "rolledBack" in words, words)
    after = await demo.element(draft.device).read()
    story.check(f"{draft.device} itself is what it was before the failed order", after == before, after.config)
    told = await until_heard(lambda: demo.listener.told(who, "orderFailed", order["id"]))
    story.check(f"{who.name} is told once, with these words", _once(told) and reached in told[0].body["text"], told)
    story.facts["failedOrder"] = {"order": order, "words": words, "before": before.config, "after": after.config}


async def refuse(demo: Demo, sale: Sale) -> None:
    """More than the contract allows: nothing is stored and nothing is asked of the network."""
    story, who = demo.story, sale.customer
    draft, before = await demo.draft(sale)
    said = await demo.order(sale, draft)
    if said["state"] == "completed":
        demo.keep(draft, said)
    story.need(f"{sale.words} is refused with 403", said.get("status") == "403", said)
    story.check("the refusal names the contract", "contract" in said["message"], said)
    story.check("the refusal names the decision", ":decision:" in said.get("referenceError", ""), said)
    stored = await demo.gateway.list(VENDORS[who.tenant], "productOrder", externalId=demo.external_id(sale))
    story.check("nothing of the refused call is stored", not stored, stored)
    after = await demo.element(draft.device).read()
    story.check(f"{draft.device} itself is what it was before the refused call", after == before, after.config)
    story.facts["refusedCall"] = said


# --- the fault line


async def faults(demo: Demo, service: Service) -> None:
    """The port of northwind's service goes down, and comes up; then something comes that nobody knows."""
    alarm, traces = await _down(demo, service)
    cleared = await _up(demo, service, alarm, traces)
    demo.story.facts["alarm"] = cleared or alarm
    await _unknown(demo)


async def _down(demo: Demo, service: Service) -> tuple[Body, set[str]]:
    story, gateway = demo.story, demo.gateway
    port = {"alarmedObject.id": f"{service.device}/{service.interface}", "specificProblem": "linkDown"}
    await demo.mend(service, port)
    known = {alarm["id"] for alarm in await gateway.list(NOC, "alarm", **port)}

    async def fresh() -> list[dict[str, Any]]:
        return [alarm for alarm in await gateway.list(NOC, "alarm", **port) if alarm["id"] not in known]

    began = time.time()
    demo.trap_link("down", service)
    told = await until_heard(lambda: demo.listener.told(NORTHWIND, "serviceAffected", service.id))
    took = story.took("linkDown: northwind told", _last(told) - began)
    story.need("the port's linkDown trap: northwind is told", bool(told), told, took)
    text = told[0].body["text"]
    story.check(
        "what northwind is told names its service and its order", service.id in text and service.order in text, text
    )
    alarms = await fresh()
    affected = [each["id"] for alarm in alarms for each in alarm.get("affectedService", [])]
    story.need("there is one alarm, and it names the service", len(alarms) == 1 and service.id in affected, alarms)
    id = alarms[0]["id"]
    raised = await until_heard(lambda: demo.listener.of(NOC, "AlarmCreateEvent", id))
    traces = {told[0].body["traceId"], told[0].event["correlationId"], *(heard.trace for heard in told + raised)}
    words = "one trace leads from the datagram over the alarm to the notification"
    story.check(words, bool(raised) and len(traces) == 1 and all(traces), traces)

    demo.trap_link("down", service)
    counted = await until(lambda: _alarm(gateway, id, lambda alarm: alarm["alarmDetails"].endswith("seen 2 times")))
    story.check("the same trap again: the alarm counts it", bool(counted), alarms)
    alarms = await fresh()
    story.check("the same trap again: there is no second alarm", len(alarms) == 1, alarms)
    return alarms[0], traces


async def _up(demo: Demo, service: Service, alarm: Body, traces: set[str]) -> Body:
    story, gateway, listener = demo.story, demo.gateway, demo.listener
    began = time.time()
    demo.trap_link("up", service)
    cleared = await until(lambda: _alarm(gateway, alarm["id"], lambda alarm: alarm["state"] == "cleared"))
    took = story.took("linkUp: alarm cleared", time.time() - began)
    by = cleared.get("clearSystemId")
    story.need("the port's linkUp trap: the alarm is cleared on its evidence", by == service.device, cleared, took)
    told = await until_heard(lambda: listener.told(NORTHWIND, "serviceRestored", service.id))
    took = story.took("linkUp: northwind told", _last(told) - began)
    words = "northwind has the all-clear, in the trace of the fault"
    story.check(words, {heard.trace for heard in told} == traces, told, took)

    kept = await gateway.list(NOC, "customerNotification", **{"alarm.id": alarm["id"]})
    mine = sorted(each["notificationType"] for each in kept if each["relatedParty"][0]["id"] == NORTHWIND.name)
    heard = [heard.body["notificationType"] for heard in listener.of(NORTHWIND) if alarm["id"] in heard.about]
    both = ["serviceAffected", "serviceRestored"]
    story.check("northwind is told of fault and all-clear once each", mine == sorted(heard) == both, [mine, heard])
    others = {each["relatedParty"][0]["id"] for each in kept} - await demo.customers_on(service)
    strangers = [heard for who in (CONTOSO, INITECH) for heard in listener.of(who) if alarm["id"] in heard.about]
    story.check("nobody else is told of the fault", not others and not strangers, [others, strangers])
    return cleared


async def _unknown(demo: Demo) -> None:
    """A trap of a maker that no mapping knows is not lost: it becomes an alarm with all that it carried."""
    story = demo.story
    maker = f"1.3.6.1.4.1.{secrets.randbelow(2**31) + 2**31}"
    varbinds: list[ber.Varbind] = [(f"{maker}.1.0", ber.OCTETS, b"fan 3 is slow"), (f"{maker}.2.0", ber.GAUGE, 1200)]
    began = time.time()
    demo.trap(f"{maker}.0.1", "pe2", varbinds)
    seen = await until_heard(lambda: [h for h in demo.listener.of(NOC, "AlarmCreateEvent") if maker in str(h.event)])
    took = story.took("unknown trap: operator told", _last(seen) - began)
    story.need("a trap that no mapping knows is an alarm too", bool(seen), seen, took)
    alarm = await demo.gateway.get(NOC, "alarm", seen[0].body["id"])
    demo.unmapped.append(alarm["id"])
    carried = [f"{maker}.0.1", f"{maker}.1.0=fan 3 is slow", f"{maker}.2.0=1200", "pe2", demo.place.trap[0]]
    missing = [part for part in carried if part not in str(alarm)]
    story.check("that alarm has the trap's OID, source and values", not missing, {"missing": missing, "alarm": alarm})
    story.facts["unmapped"] = alarm


async def _alarm(gateway: Gateway, id: str, holds: Callable[[Body], bool]) -> Body:
    alarm = await gateway.get(NOC, "alarm", id)
    return alarm if holds(alarm) else {}


def _once(told: Sequence[Heard]) -> bool:
    return len(told) == 1


def _last(heard: Sequence[Heard]) -> float:
    """When the last of it came; now, where nothing did."""
    return heard[-1].time if heard else time.time()


# --- the usage line


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


TRAFFIC = (
    Traffic(9, (5_123_456_789, 4_100_000), (1_002_003_004, 800_000)),
    Traffic(9, (7_345_678_901, 6_200_000), (2_718_281_828, 1_900_000)),
    Traffic(10, (3_141_592_653, 2_500_000), (577_215_664, 450_000)),
)


async def usage(demo: Demo, service: Service) -> None:
    """Traffic of northwind's address becomes usage, each record once, and the usage becomes a bill."""
    story, gateway = demo.story, demo.gateway
    tariff = rating.load(demo.place.settings.tariff)
    await demo.settle(NORTHWIND)
    mine = {"description": f"IP traffic of {service.address}", "sort": "-usageDate"}
    known = {each["id"] for each in await gateway.list(MEDIATION, "usage", **mine)}

    async def rated() -> list[dict[str, Any]]:
        found = [each for each in await gateway.list(MEDIATION, "usage", **mine) if each["id"] not in known]
        return found if len(found) >= len(TRAFFIC) and all("ratedProductUsage" in each for each in found) else []

    began = time.time()
    demo.export(service, TRAFFIC)
    usages = await until(rated)
    took = story.took("flow records: last usage rated", time.time() - began)
    story.need("two NetFlow 9 datagrams and one IPFIX, the first sent twice, become usage", bool(usages), usages, took)
    numbers = TRAFFIC[0].counted.keys()
    found = [{c["name"]: c["value"] for c in each["usageCharacteristic"] if c["name"] in numbers} for each in usages]
    story.check("each datagram is one usage, with its numbers", _same(found, [one.counted for one in TRAFFIC]), found)
    parties = [[party["id"] for party in each["relatedParty"]] for each in usages]
    story.check("all usage is northwind's, by its address", parties == [[NORTHWIND.name]] * len(usages), parties)
    ids = sorted(each["id"] for each in usages)
    await _moved(demo, ids, ["received", "guided", "rated"])
    prices = [_charged(each["ratedProductUsage"]) for each in usages]
    story.check(
        "each usage has the price of what was sent", _same(prices, [_price(t, tariff) for t in TRAFFIC]), prices
    )
    story.facts["usage"] = {"usages": usages}
    await _billed(demo, service, ids, tariff)


async def _billed(demo: Demo, service: Service, ids: list[str], tariff: rating.Tariff) -> None:
    story, gateway = demo.story, demo.gateway
    began = time.time()
    asked = await demo.bill(NORTHWIND)
    took = story.took("bill on demand: bill made", time.time() - began)
    story.need("a bill is made on demand", asked["state"] == "done", asked, took)
    bill = await gateway.get(NORTHWIND, "customerBill", asked["customerBill"]["id"])
    lines = await gateway.list(BILLING, "appliedCustomerBillingRate", **{"bill.id": bill["id"]})
    story.facts["usage"] |= {"bill": bill, "lines": lines}

    used = {line["name"]: line for line in lines if line["type"] == "usage"}
    named = [sorted(c["value"]) for line in used.values() for c in line["characteristic"] if c["name"] == "usageId"]
    whole = (
        bool(used) and named == [ids] * len(used) and {line["product"]["id"] for line in used.values()} == {service.id}
    )
    story.check("its usage lines are of exactly these usages", whole, lines)
    charged, expected = {name: _amount(line) for name, line in used.items()}, _amounts(TRAFFIC, tariff)
    words = "its usage lines are what the demonstration reckons from what it sent"
    story.check(words, charged == expected, {"billed": charged, "reckoned": expected})
    amounts = [_amount(line) for line in lines]
    total = sum((net for net, _ in amounts), Decimal()), sum((gross for _, gross in amounts), Decimal())
    words = f"its lines add up to the bill, {bill['amountDue']['value']} {tariff.currency} with tax"
    story.check(words, total == _amount(bill), {"lines": total, "bill": bill})
    await _moved(demo, ids, ["received", "guided", "rated", "billed"])
    again = await demo.bill(NORTHWIND)
    story.check("asked for once more, there is nothing left to bill", again["state"] == "rejected", again)
    other = await gateway.ask(CONTOSO, "GET", f"{BILLS}/customerBill/{bill['id']}")
    story.check("northwind may read its bill, contoso may not", other.status_code == 404, other.text)


async def _moved(demo: Demo, ids: Sequence[str], states: list[str]) -> None:
    seen = [await until_heard(partial(demo.listener.states, MEDIATION, "usage", id, len(states))) for id in ids]
    demo.story.check(f"each usage is {', '.join(states)}, once each", seen == [states] * len(ids), seen)


def _charged(rated: Iterable[Body]) -> dict[str, Decimal]:
    return {part["usageRatingTag"]: part["taxExcludedRatingAmount"]["value"] for part in rated}


def _amount(billed: Body) -> tuple[Decimal, Decimal]:
    """What a bill or a line of it comes to without and with tax."""
    return billed["taxExcludedAmount"]["value"], billed["taxIncludedAmount"]["value"]


def _price(traffic: Traffic, tariff: rating.Tariff) -> dict[str, Decimal]:
    """charge -> the exact price of one datagram, reckoned here and not by the gateway."""
    charges = tariff.charges["ip-traffic"]
    return {charge.name: traffic.counted[charge.characteristic] * charge.price / charge.per for charge in charges}


def _amounts(sent: Iterable[Traffic], tariff: rating.Tariff) -> dict[str, tuple[Decimal, Decimal]]:
    """charge -> its line without and with tax, both rounded."""

    def rounded(amount: Decimal) -> Decimal:
        return amount.quantize(Decimal(10) ** -tariff.places, ROUND_HALF_UP)

    exact: dict[str, Decimal] = {}
    for traffic in sent:
        for charge, price in _price(traffic, tariff).items():
            exact[charge] = exact.get(charge, Decimal()) + price
    lines = {charge: rounded(amount) for charge, amount in exact.items()}
    return {charge: (line, line + rounded(line * tariff.tax)) for charge, line in lines.items()}


def _same(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether two lists have the same members, in whatever order."""
    return len(found) == len(expected) and all(found.count(each) == expected.count(each) for each in expected)


# --- afterwards


async def tidy(demo: Demo) -> None:
    """End what was ordered, close what was opened; then nobody must have heard what was not theirs."""
    story, heard = demo.story, demo.listener
    for service in list(demo.services):
        who, device, began = service.sale.customer, service.device, time.time()
        order = await demo.end(service)
        took = story.took(f"end of {who.name}'s service: confirmed by {device}", time.time() - began, simulated=True)
        gone = order["state"] == "completed" and service.id not in (await demo.element(device).read()).config
        story.check(f"{who.name}'s service is ended by an order, and gone from {device}", gone, order, took)
        await until_heard(partial(heard.told, who, "orderCompleted", order.get("id", "")))
    while demo.unmapped:
        answer = await demo.gateway.ask(NOC, "PATCH", f"{ALARMS}/alarm/{demo.unmapped.pop()}", {"state": "cleared"})
        story.check("the operator closes the alarm of the unknown trap", answer.status_code == 200, answer.text)

    told = [one for who in CUSTOMERS for one in heard.of(who)]
    wrong = [one for one in told if one.parties != {one.who}]
    story.check("no customer was told of another's things", bool(told) and not wrong, wrong)
    said = [(one.who, one.body["notificationType"], *one.about) for one in told]
    story.check("nobody was told anything twice", len(said) == len(set(said)), said)
    answers = [(await demo.gateway.ask(who, "DELETE", path)).status_code for who, path in demo.hubs]
    demo.hubs.clear()
    story.check("all listeners are unsubscribed", set(answers) == {204}, answers)


async def undo(demo: Demo) -> None:
    """Take away what a story that was cut short left behind; its end is told by whoever cut it."""
    with suppress(ConvergedonError, httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            for service in list(demo.services):
                await demo.end(service)
            for who, path in demo.hubs:
                await demo.gateway.ask(who, "DELETE", path)


# --- what happened, and whether it is true


class Broken(Exception):
    """A claim failed without which its line cannot go on."""


@dataclass(frozen=True)
class Claim:
    """``at`` is in seconds since the beginning; ``found`` is kept where it does not hold."""

    line: str
    words: str
    holds: bool
    at: float
    found: Any = None


@dataclass(frozen=True)
class Step:
    """How long something took; ``simulated`` when a simulated element's time is in it."""

    line: str
    words: str
    seconds: float
    simulated: bool

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s{' simulated' if self.simulated else ''}"


class Story:
    """Collects claims and times, says each as it is known, and ends with a sentence about all of them."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.steps: list[Step] = []
        self.facts: dict[str, Any] = {}
        self.services: list[Service] = []
        self.received: list[Heard] = []
        self._began, self._started = time.monotonic(), datetime.now(UTC)
        self._line = ""
        self._console = Console(highlight=False, markup=False)
        if not self._console.is_terminal:
            self._console.width = FILE_WIDTH

    @contextmanager
    def line(self, name: str) -> Iterator[None]:
        """A part of the story; one that breaks is left, and the story goes on with the next."""
        if name != self._line:
            self.say(name, "bold")
        self._line = name
        with suppress(Broken):
            yield

    def check(self, words: str, holds: bool, found: Any = None, took: Step | None = None) -> bool:
        """Keep a claim, and say it."""
        claim = Claim(self._line, words, holds, round(time.monotonic() - self._began, 3), None if holds else found)
        self.claims.append(claim)
        mark = Text("ok    ", "green") if holds else Text("FAILED", "bold red")
        self.say(Text.assemble(mark, f" {claim.at:6.2f} s  {words}", (f" ({took})" if took else "", "dim")))
        return holds

    def need(self, words: str, holds: bool, found: Any = None, took: Step | None = None) -> bool:
        """A claim without which its line cannot go on. Raises Broken."""
        if not self.check(words, holds, found, took):
            raise Broken(words)
        return True

    def took(self, words: str, seconds: float, simulated: bool = False) -> Step:
        self.steps.append(Step(self._line, words, round(seconds, 3), simulated))
        return self.steps[-1]

    def say(self, text: str | Text, style: str = "") -> None:
        """One line, cut at the edge of a terminal and whole in a file."""
        if self._console.is_terminal:
            self._console.print(text, style=style, no_wrap=True, overflow="ellipsis")
        else:
            self._console.print(text, style=style, soft_wrap=True)

    @property
    def failed(self) -> list[Claim]:
        return [claim for claim in self.claims if not claim.holds]

    @property
    def holds(self) -> bool:
        return bool(self.claims) and not self.failed

    @property
    def sentence(self) -> str:
        if self.holds:
            return f"all {len(self.claims)} claims hold"
        named = "; ".join(f"{claim.line}: {claim.words}" for claim in self.failed)
        return f"{len(self.failed)} of {len(self.claims)} claims failed: {named}"

    def end(self, json_file: Path | None) -> None:
        """The tables, what was found instead of what failed, and the last sentence."""
        if json_file:
            text = json.dumps(self.document(), indent=2, default=_plain)
            json_file.write_text(f"{text}\n", encoding="utf-8")
        for table in (_times(self.steps), _told(self.received), _not_done(self.facts)):
            self._console.print("", table)
        self.say("")
        for claim in self.failed:
            self._console.print(f"{claim.line}: {claim.words}; found {_short(claim.found)}", style="red")
        self._console.print(self.sentence, style="bold green" if self.holds else "bold red", soft_wrap=True)

    def document(self) -> dict[str, Any]:
        """All of it, for a machine."""
        return {
            "holds": self.holds,
            "sentence": self.sentence,
            "started": self._started.isoformat(timespec="milliseconds"),
            "seconds": round(time.monotonic() - self._began, 3),
            "claims": self.claims,
            "steps": self.steps,
            "services": self.services,
            **self.facts,
            "received": {who.name: [heard for heard in self.received if heard.who == who.name] for who, _ in HUBS},
        }


FILE_WIDTH = 120


def _times(steps: Sequence[Step]) -> Table:
    table = _table("time after the call or datagram (simulated: a simulated element's time is in it)")
    for before, step in zip((None, *steps), steps, strict=False):
        table.add_row("" if before and before.line == step.line else step.line, step.words, str(step))
    return table


def _told(received: Sequence[Heard]) -> Table:
    table = _table("what the customers received")
    for who in CUSTOMERS:
        for number, heard in enumerate(heard for heard in received if heard.who == who.name):
            at = datetime.fromtimestamp(heard.time, UTC).strftime("%H:%M:%S.%f")[:-3]
            table.add_row("" if number else who.name, f"{at} {heard.body['notificationType']}", heard.body["text"])
    return table


def _not_done(facts: Body) -> Table:
    table = _table("what was not done")
    if failed := facts.get("failedOrder"):
        back = "rolled back" if failed["before"] == failed["after"] else "NOT rolled back"
        table.add_row("failed", f"order {failed['order']['id']}, {back}", failed["words"])
    if refused := facts.get("refusedCall"):
        table.add_row("refused", f"with {refused['status']}", f"{refused['message']} ({refused.get('referenceError')})")
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    for number in range(3):
        table.add_column(overflow="fold", style="" if number else "cyan")
    return table


def _short(found: Any) -> str:
    text = found if isinstance(found, str) else json.dumps(found, default=_plain)
    return text if len(text) < 1000 else f"{text[:1000]} ..."


def _plain(value: Any) -> Any:
    """What JSON has no word for."""
    if isinstance(value, Decimal):
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


# --- what the story is played with


@dataclass(frozen=True)
class Place:
    """A system with a lab: where it is reached, and its simulated elements."""

    settings: Settings
    gateway: str
    trap: tuple[str, int]
    flow: tuple[str, int]
    devices: Mapping[str, Device]


@dataclass
class Demo:
    """The place, who speaks with it, and what must not be left behind."""

    place: Place
    story: Story
    gateway: Gateway
    listener: Listener
    products: planning.Products
    run: str = field(default_factory=lambda: secrets.token_hex(4))
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
        self.services.append(service)
        self.story.services.append(service)
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
        at = self._device.settings["netconf"]
        with manager.connect(
            host=at["host"],
            port=at["port"],
            username=at["username"],
            password=at["password"],
            hostkey_b64=at["hostKey"],
            allow_agent=False,
            look_for_keys=False,
            timeout=PATIENCE,
        ) as session:
            config = session.get_config("running").data_ele
            running = session.get().data_ele
        configured = _accesses(config)
        state = {
            name: {leaf: text for leaf, text in leaves.items() if leaf.startswith("oper-")}
            for name, leaves in _accesses(running).items()
        }
        return View(configured, state, etree.tostring(config, method="c14n"))


def _accesses(found: Any) -> dict[str, dict[str, str]]:
    """name -> leaf -> text, of each access."""
    entries = [{etree.QName(leaf).localname: leaf.text or "" for leaf in entry} for entry in found.iter("{*}access")]
    return {entry["name"]: entry for entry in entries}


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
async def _demo(place: Place, story: Story) -> AsyncIterator[Demo]:
    products = planning.load(place.settings.products)
    async with httpx.AsyncClient(base_url=place.gateway, timeout=PATIENCE, trust_env=False) as client:
        with Listener().open() as listener:
            story.received = listener.heard
            yield Demo(place, story, Gateway(client, place.settings), listener, products)


@asynccontextmanager
async def _own(settings: Settings, story: Story) -> AsyncIterator[Place]:
    """A system for this story alone; its folder is kept only where one was named."""
    from convergedon.core.cli import adapter_names

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


def _running(settings: Settings, url: str) -> Place:
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


def _check_writable(file: Path | None) -> None:
    try:
        if file:
            file.touch()
    except OSError as error:
        raise Misconfigured(f"cannot write to {file}: {error.strerror}") from error
