"""The demonstration: the three lines from end to end on simulated network elements, and a check of everything it says.

What the gateway claims is compared with what is outside it: the element itself, the store as REST shows it, and what
each customer was sent. `tell` is the story, its parts follow in its order; what it is played with is in stage.py.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from rich.table import Table

from convergedon.adapters import lab, labcontrol
from convergedon.adapters.snmp import ber
from convergedon.core.errors import ConvergedonError, Unavailable
from convergedon.core.settings import Settings
from convergedon.demo.stage import (
    ALARMS,
    BILLING,
    BILLS,
    CONTOSO,
    CUSTOMERS,
    HUBS,
    INITECH,
    MEDIATION,
    NOC,
    NORTHWIND,
    PATIENCE,
    VENDOR,
    VENDORS,
    Body,
    Gateway,
    Heard,
    Sale,
    Service,
    Stage,
    Traffic,
    own,
    played,
    running,
    until,
    until_heard,
)
from convergedon.demo.story import Story, check_writable, table
from convergedon.mediation import rating

SALES = (Sale(NORTHWIND, "berlin-1", 100), Sale(CONTOSO, "berlin-2", 200), Sale(INITECH, "munich-1", 300))
LONGEST = 900.0
"""Seconds that the story takes at most."""
ABOVE_THE_PORT = Sale(CONTOSO, "berlin-2", 2500)
ABOVE_THE_CONTRACT = Sale(CONTOSO, "berlin-2", 9000)


async def run(settings: Settings, url: str | None, json_file: Path | None) -> bool:
    """Tell the story and say whether all of it was true.

    Raises Misconfigured or Unavailable with one sentence when it cannot be told.
    """
    story = Story()
    check_writable(json_file)
    try:
        async with AsyncExitStack() as stack:
            place = running(settings, url) if url else await stack.enter_async_context(own(settings, story))
            stage = await stack.enter_async_context(played(place, story))
            await tell(stage)
            story.facts["services"] = stage.sold
            story.facts["received"] = {who.name: stage.listener.of(who) for who, _ in HUBS}
    except httpx.HTTPError as error:
        raise Unavailable(f"the gateway does not answer: {str(error) or type(error).__name__}") from error
    story.end(json_file, [_told(story.facts), _not_done(story.facts)])
    return story.holds


async def tell(stage: Stage) -> None:
    """The three lines in their order. Whatever happens, what the demonstration made is taken away again.

    The elements export no flows of themselves meanwhile: what is billed is reckoned from what the story sends.
    """
    flows = partial(labcontrol.ask, stage.place.settings.data / "lab", command="quiet")
    await flows(seconds=LONGEST)
    try:
        with stage.story.line("listeners"):
            await listen(stage)
        services = await orders(stage)
        for line, part in (("fault line", faults), ("usage line", usage)):
            with stage.story.line(line):
                stage.story.need(f"{NORTHWIND.name} has a service for the {line}", NORTHWIND.name in services)
                await part(stage, services[NORTHWIND.name])
        with stage.story.line("afterwards"):
            await tidy(stage)
    finally:
        await undo(stage)
        with suppress(Unavailable):
            await flows(seconds=0)


async def listen(stage: Stage) -> None:
    """Customers, a vendor and the operator's people subscribe to what concerns them."""
    refused = []
    for who, base in HUBS:
        callback = {"callback": f"{stage.listener.url}/{who.name}"}
        answer = await stage.gateway.ask(who, "POST", f"{base}/hub", callback)
        if answer.status_code == 201:
            stage.hubs.append((who, f"{base}/hub/{answer.json()['id']}"))
        else:
            refused.append([who.name, answer.text])
    stage.story.need(f"{', '.join(who.name for who, _ in HUBS)} listen", not refused, refused)


# --- the order line


async def orders(stage: Stage) -> dict[str, Service]:
    """Three orders that the network takes, one that it does not, one that the policy refuses."""
    services: dict[str, Service] = {}
    for sale in SALES:
        with stage.story.line("order line"):
            services[sale.customer.name] = await sell(stage, sale)
    with stage.story.line("order line"):
        await fail(stage, ABOVE_THE_PORT)
    with stage.story.line("order line"):
        await refuse(stage, ABOVE_THE_CONTRACT)
    return services


async def sell(stage: Stage, sale: Sale) -> Service:
    """An order that is completed: the device has it, the customer hears of it."""
    story, who = stage.story, sale.customer
    draft, before = await stage.draft(sale)
    trace, began = secrets.token_hex(16), time.time()
    order = await stage.order(sale, draft, trace)
    took = story.took(f"{sale.words}: confirmed by {draft.device}", time.time() - began, simulated=True)
    story.need(f"{sale.words} is completed", order["state"] == "completed", order, took)
    service = stage.keep(draft, order)

    after = await stage.element(service.device).read()
    added = {service.id: service.leaves}
    words = f"{service.device} itself has what {who.name} ordered, and else what it had before"
    story.check(words, after.config == {**before.config, **added}, after.config)
    gives = {"oper-bandwidth": str(sale.bandwidth), "oper-status": "up"}
    words = f"{service.device} itself gives {who.name} {sale.bandwidth} Mbit/s"
    story.check(words, after.state.get(service.id) == gives, after.state)

    told = await until_heard(lambda: stage.listener.told(who, "orderCompleted", order["id"]))
    took = story.took(f"{sale.words}: {who.name} told", _last(told) - began, simulated=True)
    kept = await stage.gateway.list(who, "customerNotification", notificationType="orderCompleted")
    story.check(f"{who.name} is told once, and may read it again", _once(told) and told[0].body in kept, told, took)
    words = f"the trace of the call is that of {who.name}'s notification"
    story.check(words, {heard.trace for heard in told} == {trace}, told)
    if who.tenant == VENDOR.tenant:
        expected = ["acknowledged", "inProgress", "completed"]
        seen = await until_heard(lambda: stage.listener.states(VENDOR, "productOrder", order["id"], len(expected)))
        story.check(f"the vendor sees {who.name}'s order {', '.join(expected)}", seen == expected, seen)
    return service


async def fail(stage: Stage, sale: Sale) -> None:
    """More than the port can: the device takes it, does not reach it, and gets its former configuration back."""
    story, who = stage.story, sale.customer
    draft, before = await stage.draft(sale)
    capacity, began = lab.INTERFACES[draft.interface], time.time()
    order = await stage.order(sale, draft)
    took = story.took(f"{sale.words}: rolled back by {draft.device}", time.time() - began, simulated=True)
    if order["state"] == "completed":
        stage.keep(draft, order)
    story.need(f"{sale.words}, on a port of {capacity}, is failed", order["state"] == "failed", order, took)
    words = " ".join(note["text"] for note in order.get("note", []))
    reached = f"wanted {sale.bandwidth}, found {capacity}"
    story.check("the order's note has the words of the device", reached in words and "rolledBack" in words, words)
    after = await stage.element(draft.device).read()
    story.check(f"{draft.device} itself is what it was before the failed order", after == before, after.config)
    told = await until_heard(lambda: stage.listener.told(who, "orderFailed", order["id"]))
    story.check(f"{who.name} is told once, with these words", _once(told) and reached in told[0].body["text"], told)
    story.facts["failedOrder"] = {"order": order, "words": words, "before": before.config, "after": after.config}


async def refuse(stage: Stage, sale: Sale) -> None:
    """More than the contract allows: nothing is stored and nothing is asked of the network."""
    story, who = stage.story, sale.customer
    draft, before = await stage.draft(sale)
    said = await stage.order(sale, draft)
    if said["state"] == "completed":
        stage.keep(draft, said)
    story.need(f"{sale.words} is refused with 403", said.get("status") == "403", said)
    story.check("the refusal names the contract", "contract" in said["message"], said)
    story.check("the refusal names the decision", ":decision:" in said.get("referenceError", ""), said)
    stored = await stage.gateway.list(VENDORS[who.tenant], "productOrder", externalId=stage.external_id(sale))
    story.check("nothing of the refused call is stored", not stored, stored)
    after = await stage.element(draft.device).read()
    story.check(f"{draft.device} itself is what it was before the refused call", after == before, after.config)
    story.facts["refusedCall"] = said


# --- the fault line


async def faults(stage: Stage, service: Service) -> None:
    """The port of northwind's service goes down, and comes up; then something comes that nobody knows."""
    alarm, traces = await _down(stage, service)
    cleared = await _up(stage, service, alarm, traces)
    stage.story.facts["alarm"] = cleared or alarm
    await _unknown(stage)


async def _down(stage: Stage, service: Service) -> tuple[Body, set[str]]:
    story, gateway = stage.story, stage.gateway
    port = {"alarmedObject.id": f"{service.device}/{service.interface}", "specificProblem": "linkDown"}
    await stage.mend(service, port)
    known = {alarm["id"] for alarm in await gateway.list(NOC, "alarm", **port)}

    async def fresh() -> list[dict[str, Any]]:
        return [alarm for alarm in await gateway.list(NOC, "alarm", **port) if alarm["id"] not in known]

    began = time.time()
    stage.trap_link("down", service)
    told = await until_heard(lambda: stage.listener.told(NORTHWIND, "serviceAffected", service.id))
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
    raised = await until_heard(lambda: stage.listener.of(NOC, "AlarmCreateEvent", id))
    traces = {told[0].body["traceId"], told[0].event["correlationId"], *(heard.trace for heard in told + raised)}
    words = "one trace leads from the datagram over the alarm to the notification"
    story.check(words, bool(raised) and len(traces) == 1 and all(traces), traces)

    stage.trap_link("down", service)
    counted = await until(lambda: _alarm(gateway, id, lambda alarm: alarm["alarmDetails"].endswith("seen 2 times")))
    story.check("the same trap again: the alarm counts it", bool(counted), alarms)
    alarms = await fresh()
    story.check("the same trap again: there is no second alarm", len(alarms) == 1, alarms)
    return alarms[0], traces


async def _up(stage: Stage, service: Service, alarm: Body, traces: set[str]) -> Body:
    story, gateway, listener = stage.story, stage.gateway, stage.listener
    began = time.time()
    stage.trap_link("up", service)
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
    others = {each["relatedParty"][0]["id"] for each in kept} - await stage.customers_on(service)
    strangers = [heard for who in (CONTOSO, INITECH) for heard in listener.of(who) if alarm["id"] in heard.about]
    story.check("nobody else is told of the fault", not others and not strangers, [others, strangers])
    return cleared


async def _unknown(stage: Stage) -> None:
    """A trap of a maker that no mapping knows is not lost: it becomes an alarm with all that it carried."""
    story = stage.story
    maker = f"1.3.6.1.4.1.{secrets.randbelow(2**31) + 2**31}"
    varbinds: list[ber.Varbind] = [(f"{maker}.1.0", ber.OCTETS, b"fan 3 is slow"), (f"{maker}.2.0", ber.GAUGE, 1200)]
    began = time.time()
    stage.trap(f"{maker}.0.1", "pe2", varbinds)
    seen = await until_heard(lambda: [h for h in stage.listener.of(NOC, "AlarmCreateEvent") if maker in str(h.event)])
    took = story.took("unknown trap: operator told", _last(seen) - began)
    story.need("a trap that no mapping knows is an alarm too", bool(seen), seen, took)
    alarm = await stage.gateway.get(NOC, "alarm", seen[0].body["id"])
    stage.unmapped.append(alarm["id"])
    carried = [f"{maker}.0.1", f"{maker}.1.0=fan 3 is slow", f"{maker}.2.0=1200", "pe2", stage.place.trap[0]]
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


TRAFFIC = (
    Traffic(9, (5_123_456_789, 4_100_000), (1_002_003_004, 800_000)),
    Traffic(9, (7_345_678_901, 6_200_000), (2_718_281_828, 1_900_000)),
    Traffic(10, (3_141_592_653, 2_500_000), (577_215_664, 450_000)),
)


async def usage(stage: Stage, service: Service) -> None:
    """Traffic of northwind's address becomes usage, each record once, and the usage becomes a bill."""
    story, gateway = stage.story, stage.gateway
    tariff = rating.load(stage.place.settings.tariff)
    await stage.settle(NORTHWIND)
    mine = {"description": f"IP traffic of {service.address}", "sort": "-usageDate"}
    known = {each["id"] for each in await gateway.list(MEDIATION, "usage", **mine)}

    sent = {name: sum(one.counted[name] for one in TRAFFIC) for name in TRAFFIC[0].counted}

    async def rated() -> list[dict[str, Any]]:
        found = [each for each in await gateway.list(MEDIATION, "usage", **mine) if each["id"] not in known]
        whole = all(_counted(found)[name] >= sent[name] for name in sent)
        return found if whole and all("ratedProductUsage" in each for each in found) else []

    began = time.time()
    stage.export(service, TRAFFIC)
    usages = await until(rated)
    took = story.took("flow records: last usage rated", time.time() - began)
    story.need("two NetFlow 9 datagrams and one IPFIX, the first sent twice, become usage", bool(usages), usages, took)
    records = sum(c["value"] for each in usages for c in each["usageCharacteristic"] if c["name"] == "records")
    story.check("each record is counted once", records == 2 * len(TRAFFIC), usages)
    story.check("what was sent is added up, to the octet", _counted(usages) == sent, usages)
    parties = [[party["id"] for party in each["relatedParty"]] for each in usages]
    story.check("all usage is northwind's, by its address", parties == [[NORTHWIND.name]] * len(usages), parties)
    ids = sorted(each["id"] for each in usages)
    await _moved(stage, ids, ["received", "guided", "rated"])
    prices = [_charged(each["ratedProductUsage"]) for each in usages]
    expected = [_price(_counted([each]), tariff) for each in usages]
    story.check("each usage has the price of what it counts", prices == expected, prices)
    story.facts["usage"] = {"usages": usages}
    await _billed(stage, service, ids, tariff)


async def _billed(stage: Stage, service: Service, ids: list[str], tariff: rating.Tariff) -> None:
    story, gateway = stage.story, stage.gateway
    began = time.time()
    asked = await stage.bill(NORTHWIND)
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
    await _moved(stage, ids, ["received", "guided", "rated", "billed"])
    again = await stage.bill(NORTHWIND)
    story.check("asked for once more, there is nothing left to bill", again["state"] == "rejected", again)
    other = await gateway.ask(CONTOSO, "GET", f"{BILLS}/customerBill/{bill['id']}")
    story.check("northwind may read its bill, contoso may not", other.status_code == 404, other.text)


async def _moved(stage: Stage, ids: Sequence[str], states: list[str]) -> None:
    seen = [await until_heard(partial(stage.listener.states, MEDIATION, "usage", id, len(states))) for id in ids]
    stage.story.check(f"each usage is {', '.join(states)}, once each", seen == [states] * len(ids), seen)


def _charged(rated: Iterable[Body]) -> dict[str, Decimal]:
    return {part["usageRatingTag"]: part["taxExcludedRatingAmount"]["value"] for part in rated}


def _amount(billed: Body) -> tuple[Decimal, Decimal]:
    """What a bill or a line of it comes to without and with tax."""
    return billed["taxExcludedAmount"]["value"], billed["taxIncludedAmount"]["value"]


def _counted(usages: Iterable[Body]) -> dict[str, int]:
    """What usages say they count, added up."""
    totals = dict.fromkeys(TRAFFIC[0].counted, 0)
    for each in usages:
        for characteristic in each["usageCharacteristic"]:
            if characteristic["name"] in totals:
                totals[characteristic["name"]] += characteristic["value"]
    return totals


def _price(counted: Mapping[str, int], tariff: rating.Tariff) -> dict[str, Decimal]:
    """charge -> the exact price of what was counted, reckoned here and not by the gateway."""
    charges = tariff.charges["ip-traffic"]
    return {charge.name: counted[charge.characteristic] * charge.price / charge.per for charge in charges}


def _amounts(sent: Iterable[Traffic], tariff: rating.Tariff) -> dict[str, tuple[Decimal, Decimal]]:
    """charge -> its line without and with tax, both rounded."""

    def rounded(amount: Decimal) -> Decimal:
        return amount.quantize(Decimal(10) ** -tariff.places, ROUND_HALF_UP)

    exact: dict[str, Decimal] = {}
    for traffic in sent:
        for charge, price in _price(traffic.counted, tariff).items():
            exact[charge] = exact.get(charge, Decimal()) + price
    lines = {charge: rounded(amount) for charge, amount in exact.items()}
    return {charge: (line, line + rounded(line * tariff.tax)) for charge, line in lines.items()}


# --- afterwards


async def tidy(stage: Stage) -> None:
    """End what was ordered, close what was opened; then nobody must have heard what was not theirs."""
    story, heard = stage.story, stage.listener
    for service in list(stage.services):
        who, device, began = service.sale.customer, service.device, time.time()
        order = await stage.end(service)
        took = story.took(f"end of {who.name}'s service: confirmed by {device}", time.time() - began, simulated=True)
        gone = order["state"] == "completed" and service.id not in (await stage.element(device).read()).config
        story.check(f"{who.name}'s service is ended by an order, and gone from {device}", gone, order, took)
        await until_heard(partial(heard.told, who, "orderCompleted", order.get("id", "")))
    while stage.unmapped:
        answer = await stage.gateway.ask(NOC, "PATCH", f"{ALARMS}/alarm/{stage.unmapped.pop()}", {"state": "cleared"})
        story.check("the operator closes the alarm of the unknown trap", answer.status_code == 200, answer.text)

    told = [one for who in CUSTOMERS for one in heard.of(who)]
    wrong = [one for one in told if one.parties != {one.who}]
    story.check("no customer was told of another's things", bool(told) and not wrong, wrong)
    said = [(one.who, one.body["notificationType"], *one.about) for one in told]
    story.check("nobody was told anything twice", len(said) == len(set(said)), said)
    answers = [(await stage.gateway.ask(who, "DELETE", path)).status_code for who, path in stage.hubs]
    stage.hubs.clear()
    story.check("all listeners are unsubscribed", set(answers) == {204}, answers)


async def undo(stage: Stage) -> None:
    """Take away what a story that was cut short left behind; its end is told by whoever cut it."""
    with suppress(ConvergedonError, httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            for service in list(stage.services):
                await stage.end(service)
            for who, path in stage.hubs:
                await stage.gateway.ask(who, "DELETE", path)


# --- the results


def _told(facts: Body) -> Table:
    rows = table("what the customers received")
    for who in CUSTOMERS:
        for number, heard in enumerate(facts["received"][who.name]):
            at = datetime.fromtimestamp(heard.time, UTC).strftime("%H:%M:%S.%f")[:-3]
            rows.add_row("" if number else who.name, f"{at} {heard.body['notificationType']}", heard.body["text"])
    return rows


def _not_done(facts: Body) -> Table:
    rows = table("what was not done")
    if failed := facts.get("failedOrder"):
        back = "rolled back" if failed["before"] == failed["after"] else "NOT rolled back"
        rows.add_row("failed", f"order {failed['order']['id']}, {back}", failed["words"])
    if refused := facts.get("refusedCall"):
        rows.add_row("refused", f"with {refused['status']}", f"{refused['message']} ({refused.get('referenceError')})")
    return rows
