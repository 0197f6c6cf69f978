"""The usage line from its usages on: usage is guided to its customer and rated, rated usage becomes a bill.

guide -> rate -> bill; what comes before is in metering. A line is named by its bill: what is delivered again finds its
work done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from ipaddress import ip_address
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from convergedon.core.bus import Message
from convergedon.core.errors import Conflict, Invalid, NotFound
from convergedon.core.store import Record
from convergedon.handlers.customer_bills import APPLIED_CUSTOMER_BILLING_RATE, CUSTOMER_BILL, CUSTOMER_BILL_ON_DEMAND
from convergedon.handlers.resource import now
from convergedon.handlers.usage import USAGE
from convergedon.mediation import inventory, rating
from convergedon.mediation.inventory import Service
from convergedon.mediation.work import Work

USAGES_A_LINE = 10_000


async def guide(work: Work, message: Message) -> None:
    """A UsageCreateEvent: find whose it is; a usage without a customer is rejected with the reason."""
    usage = await _found(work, message)
    if usage is None or usage.body["status"] != "received":
        return
    given = {c["name"]: c["value"] for c in usage.body.get("usageCharacteristic") or []}
    try:
        service = await _service(work, usage.tenant, given)
    except Invalid as error:
        await _reject(work, usage, str(error))
        return
    parties = [{"id": id, "role": "customer", "@referredType": "Organization"} for id in service.customers]
    await work.resources.change(USAGE, usage, {"status": "guided", "relatedParty": parties}, {"service": service.id})


async def _service(work: Work, tenant: str, given: Mapping[str, Any]) -> Service:
    """The service that a usage names, by its address or its id. Raises Invalid with the reason when there is none."""
    if "service" in given and "address" not in given:
        id = str(given["service"])
        named = await inventory.named(work.store, tenant, [id])
        if not named:
            raise Invalid(f"there is no service {id}")
        return named[0]
    try:
        address = str(ip_address(given.get("address", "")))
    except ValueError:
        raise Invalid("it has no characteristic address with an IP address") from None
    service = (await inventory.at(work.store, tenant, [address])).get(address)
    if service is None:
        raise Invalid(f"no service has the address {address}")
    return service


async def _found(work: Work, message: Message) -> Record | None:
    """The usage of an event, unless it was deleted since."""
    try:
        return await work.store.get(USAGE.name, message.body["tenant"], message.body["id"])
    except NotFound:
        return None


async def rate(work: Work, message: Message) -> None:
    """A UsageStateChangeEvent: price what was guided."""
    if message.body["event"]["event"][USAGE.name]["status"] != "guided":
        return
    usage = await _found(work, message)
    if usage is None or usage.body["status"] != "guided":
        return
    service = usage.facts.get("service")
    try:
        if service is None:
            raise Invalid("it was guided to no service")
        amounts = rating.rate(usage.body, work.tariff)
    except Invalid as error:
        await _reject(work, usage, str(error))
        return
    rated = [
        {
            "ratingDate": now(),
            "usageRatingTag": name,
            "ratingAmountType": "total",
            "isBilled": False,
            "taxRate": float(work.tariff.tax),
            "taxExcludedRatingAmount": rating.money(amount, work.tariff),
            "productRef": {"id": service},
        }
        for name, amount in amounts.items()
    ]
    exact = {name: str(amount) for name, amount in amounts.items()}
    facts = {"amounts": exact, "unbilled": usage.facts.get("parties", [])}
    await work.resources.change(USAGE, usage, {"status": "rated", "ratedProductUsage": rated}, facts)


async def _reject(work: Work, usage: Record, reason: str) -> None:
    await work.resources.change(USAGE, usage, {"status": "rejected", "description": f"rejected: {reason}"})
    work.audit.record("usage.rejected", usage.tenant, "convergedon", f"usage/{usage.id}", "failed", reason=reason)


async def bill(work: Work, message: Message) -> None:
    """A CustomerBillOnDemandCreateEvent: claim the customer's rated usage, make the lines, the bill, and say so.

    The usages are claimed first, each in one write; lines and bill follow from what is claimed, so a run that was cut
    anywhere goes on where it stopped and ends in the same bill.
    """
    asked = await work.store.get(CUSTOMER_BILL_ON_DEMAND.name, message.body["tenant"], message.body["id"])
    if asked.body["state"] != "inProgress":
        return
    customer = next(iter(asked.facts["parties"]), None)
    if customer is None:
        await _end_run(work, asked, {"state": "rejected", "description": "relatedParty names no customer"})
        return
    id = str(uuid5(NAMESPACE_URL, f"bill|{asked.tenant}|{asked.id}"))
    if not asked.facts.get("claimed"):
        await _claim(work, asked.tenant, customer, id)
        # what is rated from here on belongs to the next bill: lines that are made already do not name it
        asked = await work.resources.change(CUSTOMER_BILL_ON_DEMAND, asked, facts={"claimed": True})
    claimed = await work.store.find(USAGE.name, {"tenant": asked.tenant, "facts.bill": id})
    if not claimed:
        text = f"{customer} has no rated usage that is not billed yet"
        await _end_run(work, asked, {"state": "rejected", "description": text})
        return
    lines = [await _line(work, id, customer, *group) for group in _groups(claimed)]
    await _bill(work, asked, id, customer, claimed, lines)
    reference = {"id": id, "href": work.resources.href(CUSTOMER_BILL.name, id)}
    await _end_run(work, asked, {"state": "done", "customerBill": reference})


async def _end_run(work: Work, asked: Record, change: Mapping[str, Any]) -> None:
    await work.resources.change(CUSTOMER_BILL_ON_DEMAND, asked, change)


async def _claim(work: Work, tenant: str, customer: str, bill: str) -> None:
    for usage in await work.store.find(USAGE.name, {"tenant": tenant, "facts.unbilled": customer}):
        if usage.body["status"] != "rated":
            continue  # it is being rated again: the next bill has it
        rated = [{**part, "isBilled": True} for part in usage.body["ratedProductUsage"]]
        facts = {"bill": bill, "unbilled": None}
        await work.resources.change(USAGE, usage, {"status": "billed", "ratedProductUsage": rated}, facts)


def _groups(claimed: Sequence[Record]) -> list[tuple[str, str, int, list[Record]]]:
    """(service, charge, part, usages): one line each; a line names at most some thousand usages."""
    by_line: dict[tuple[str, str], list[Record]] = {}
    for usage in sorted(claimed, key=lambda usage: usage.id):
        for charge in usage.facts["amounts"]:
            by_line.setdefault((usage.facts["service"], charge), []).append(usage)
    return [
        (service, charge, part, usages[part : part + USAGES_A_LINE])
        for (service, charge), usages in sorted(by_line.items())
        for part in range(0, len(usages), USAGES_A_LINE)
    ]


async def _line(
    work: Work, bill: str, customer: str, service: str, charge: str, part: int, usages: Sequence[Record]
) -> tuple[Decimal, Decimal]:
    """Make a line once; returns its amount and the tax on it, both rounded."""
    exact = sum((Decimal(usage.facts["amounts"][charge]) for usage in usages), Decimal())
    amount = rating.round_money(exact, work.tariff)
    tax = rating.round_money(amount * work.tariff.tax, work.tariff)
    first = usages[0]
    body = {
        "name": charge,
        "description": f"{charge} of {service}, {len(usages)} usage records",
        "type": "usage",
        "date": now(),
        "isBilled": True,
        "bill": {"id": bill, "href": work.resources.href(CUSTOMER_BILL.name, bill)},
        "product": {"id": service},
        "periodCoverage": _period(usages),
        "taxExcludedAmount": rating.money(amount, work.tariff),
        "taxIncludedAmount": rating.money(amount + tax, work.tariff),
        "appliedTax": [
            {"taxCategory": "VAT", "taxRate": float(work.tariff.tax), "taxAmount": rating.money(tax, work.tariff)}
        ],
        "characteristic": [{"name": "usageId", "valueType": "array", "value": [usage.id for usage in usages]}],
    }
    id = str(uuid5(NAMESPACE_URL, f"{bill}|{service}|{charge}|{part}"))
    try:
        resource, facts = APPLIED_CUSTOMER_BILLING_RATE, {"parties": [customer]}
        await work.resources.create(resource, first.tenant, body, facts, id)
    except Conflict:
        pass
    return amount, tax


def _period(usages: Sequence[Record]) -> dict[str, str]:
    dates = [usage.body["usageDate"] for usage in usages]
    return {"startDateTime": min(dates), "endDateTime": max(dates)}


async def _bill(
    work: Work,
    asked: Record,
    id: str,
    customer: str,
    claimed: Sequence[Record],
    lines: Sequence[tuple[Decimal, Decimal]],
) -> None:
    amount = sum((line for line, _ in lines), Decimal())
    tax = sum((tax for _, tax in lines), Decimal())
    whole = rating.money(amount + tax, work.tariff)
    body = {
        "billNo": id[:8].upper(),
        "billDate": now(),
        "lastUpdate": now(),
        "category": "normal",
        "runType": "onCycle" if asked.facts.get("cycle") else "offCycle",
        "state": "new",
        "billingPeriod": _period(claimed),
        "relatedParty": [{"id": customer, "role": "customer", "@referredType": "Organization"}],
        "taxExcludedAmount": rating.money(amount, work.tariff),
        "taxIncludedAmount": whole,
        "amountDue": whole,
        "remainingAmount": whole,
        "taxItem": [
            {"taxCategory": "VAT", "taxRate": float(work.tariff.tax), "taxAmount": rating.money(tax, work.tariff)}
        ],
    }
    if "billingAccount" in asked.body:
        body["billingAccount"] = asked.body["billingAccount"]
    try:
        await work.resources.create(CUSTOMER_BILL, asked.tenant, body, id=id)
    except Conflict:
        return
    work.audit.record("bill.made", asked.tenant, "convergedon", f"customerBill/{id}", "done", usages=len(claimed))
