"""The usage line: what was used is counted once, has a customer or a reason, and comes to one bill that adds up."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from time import time
from typing import Any

import pytest
from faulty import FaultyStore
from scene import BERLIN, STORE_KINDS, Scene, item, pumped, twice

from convergedon.core.bus import Message, Position
from convergedon.core.errors import Unavailable
from convergedon.core.memory import MemoryStore
from convergedon.handlers.customer_bills import CUSTOMER_BILL_ON_DEMAND
from convergedon.handlers.usage import USAGE
from convergedon.mediation import billing


def flow(down: int, up: int = 0, address: str = "10.1.0.10", ago: float = 0) -> list[dict[str, Any]]:
    """Records of one datagram: so many octets to an address and from it; what is longer ago has its own interval."""
    times = {"packets": 1, "start": time() - ago - 60, "end": time() - ago}
    records = [{"source": "192.0.2.1", "destination": address, "octets": down, **times}]
    return [*records, {"source": address, "destination": "192.0.2.1", "octets": up, **times}] if up else records


async def ask_for_a_bill(scene: Scene, party: str = "northwind") -> str:
    related = {"id": party, "role": "customer", "@referredType": "Organization"}
    return (await scene.resources.create(CUSTOMER_BILL_ON_DEMAND, "acme", {"name": "x", "relatedParty": related})).id


async def usages(scene: Scene, status: str) -> list[dict[str, Any]]:
    return [record.body for record in await scene.find("usage") if record.body["status"] == status]


async def check_bill(scene: Scene, asked: str) -> tuple[float, list[str]]:
    """That the bill is the sum of its lines and its lines the sum of their usages; its amount and its usages."""
    run = await scene.store.get("customerBillOnDemand", "acme", asked)
    assert run.body["state"] == "done", run.body
    id = run.body["customerBill"]["id"]
    bill = (await scene.store.get("customerBill", "acme", id)).body
    lines = [line.body for line in await scene.find("appliedCustomerBillingRate") if line.body["bill"]["id"] == id]
    billed = {record.id: record for record in await scene.find("usage") if record.facts.get("bill") == id}
    named: set[str] = set()
    for line in lines:
        (ids,) = [one["value"] for one in line["characteristic"] if one["name"] == "usageId"]
        assert len(ids) == len(set(ids))
        exact = sum((Decimal(billed[usage].facts["amounts"][line["name"]]) for usage in ids), Decimal())
        assert abs(Decimal(str(line["taxExcludedAmount"]["value"])) - exact) <= Decimal("0.005")
        named |= set(ids)
    assert named == billed.keys()
    assert all(record.body["status"] == "billed" for record in billed.values())
    for member in ("taxExcludedAmount", "taxIncludedAmount"):
        total = sum((Decimal(str(line[member]["value"])) for line in lines), Decimal())
        assert Decimal(str(bill[member]["value"])) == total
    return bill["taxExcludedAmount"]["value"], sorted(billed)


async def test_usage_that_was_deleted_is_not_looked_for(still: Scene) -> None:
    """Nobody has to look at a parked message because a client took back what it had sent, before or after guiding."""
    for status in ("received", "guided"):
        record = await still.resources.create(USAGE, "acme", {"usageSpecification": {"id": "x"}})
        if status == "guided":
            record = await still.resources.change(USAGE, record, {"status": status})
        await still.resources.delete(USAGE, record)
    await still.pump()

    assert await still.find("usage") == []
    assert await still.bus.parked() == []


async def test_from_a_datagram_to_the_bill(scene: Scene) -> None:
    """A datagram that is sent twice is one usage; the customer's bill leads back to it."""
    await scene.ended(await scene.order(item(**BERLIN)))
    for _ in range(2):
        await scene.say("flow", id="datagram-1", records=flow(5_000_000_000, 1_000_000_000))
    await scene.say("flow", id="datagram-2", records=flow(2_500_000_000, ago=10))

    async def rated() -> bool:
        await scene.pump()
        return len(await usages(scene, "rated")) == 2

    await scene.until(rated)
    await scene.settled()
    (first, second) = sorted(await usages(scene, "rated"), key=str)
    for usage in (first, second):
        assert usage["relatedParty"][0]["id"] == "northwind"
        assert {one["name"]: one["value"] for one in usage["usageCharacteristic"]}["records"] in (1, 2)
    for record in await scene.find("usage"):
        assert record.facts["sources"] in (["datagram-1"], ["datagram-2"])
    asked = await ask_for_a_bill(scene)

    async def billed() -> bool:
        return (await scene.store.get("customerBillOnDemand", "acme", asked)).body["state"] != "inProgress"

    await scene.until(billed)
    assert await check_bill(scene, asked) == (0.64, [r.id for r in await scene.find("usage")])


async def test_traffic_of_nobody_is_no_usage(still: Scene) -> None:
    """Addresses that no service has are counted, not kept."""
    await still.say("flow", records=flow(1000, address="10.1.0.99"))
    await still.settled()

    assert await still.find("usage") == []


@pytest.mark.parametrize(
    ("address", "reason"),
    [("10.1.0.99", "no service has the address 10.1.0.99"), ("nowhere", "no characteristic address"), (None, "no cha")],
)
async def test_reported_usage_of_nobody_is_rejected_with_the_reason(still: Scene, address: Any, reason: str) -> None:
    """It is not lost, and not billed to anybody."""
    listed = [{"name": "address", "value": address}] if address else []
    await still.resources.create(USAGE, "acme", {"usageType": "ip-traffic", "usageCharacteristic": listed})
    await still.settled()

    (usage,) = await usages(still, "rejected")
    assert reason in usage["description"]
    assert await still.bus.parked() == []


@pytest.mark.parametrize(
    ("type_", "octets", "reason"),
    [("voice", 5, "no usage type 'voice'"), ("ip-traffic", "many", "octetsDown"), ("ip-traffic", 1e40, "octetsDown")],
)
async def test_reported_usage_without_a_price_is_rejected_with_the_reason(
    still: Scene, type_: str, octets: Any, reason: str
) -> None:
    """One such record does not stop the customer's bill."""
    await still.ended(await still.order(item(**BERLIN)))
    listed = [{"name": "address", "value": "10.1.0.10"}, {"name": "octetsDown", "value": octets}]
    await still.resources.create(USAGE, "acme", {"usageType": type_, "usageCharacteristic": listed})
    await still.say("flow", records=flow(5_000_000_000))
    await still.settled()
    (usage,) = await usages(still, "rejected")
    assert reason in usage["description"]

    asked = await ask_for_a_bill(still)
    await still.settled()
    assert (await check_bill(still, asked))[0] == 0.40


async def test_usage_is_on_one_bill_only(still: Scene) -> None:
    """A second run takes what came since; one without anything says so."""
    await still.ended(await still.order(item(**BERLIN)))
    bills = []
    for number in range(2):
        await still.say("flow", id=f"datagram-{number}", records=flow(1_000_000_000))
        await still.settled()
        bills.append(await ask_for_a_bill(still))
        await still.settled()
    empty = await ask_for_a_bill(still)
    await still.settled()

    (_, first), (_, second) = [await check_bill(still, asked) for asked in bills]
    assert not set(first) & set(second)
    run = (await still.store.get("customerBillOnDemand", "acme", empty)).body
    assert run["state"] == "rejected"
    assert "no rated usage" in run["description"]


async def test_two_runs_at_once_share_the_usage(still: Scene) -> None:
    """Each usage is on one of the bills."""
    await still.ended(await still.order(item(**BERLIN)))
    for number in range(4):
        await still.say("flow", id=f"datagram-{number}", records=flow(1_000_000_000, ago=10 * number))
    await still.settled()
    asked = [await ask_for_a_bill(still) for _ in range(2)]
    await still.settled()

    assert len((await check_bill(still, asked[0]))[1]) == 4
    assert (await still.store.get("customerBillOnDemand", "acme", asked[1])).body["state"] == "rejected"


async def test_nobodys_bill_is_refused(still: Scene) -> None:
    """A request that names no customer ends with the reason."""
    record = await still.resources.create(CUSTOMER_BILL_ON_DEMAND, "acme", {"name": "x"})
    await still.settled()

    assert (await still.store.get("customerBillOnDemand", "acme", record.id)).body["state"] == "rejected"


async def test_second_delivery_changes_nothing(still: Scene) -> None:
    """Every message from the datagram to the bill comes twice, and is done once."""
    await still.ended(await still.order(item(**BERLIN)))
    await still.say("flow", records=flow(5_000_000_000, 7))
    changed = await twice(still)
    await still.resources.create(USAGE, "acme", {"usageType": "voice"})
    changed += await twice(still)
    asked = await ask_for_a_bill(still)
    changed += await twice(still)

    assert changed == []
    await check_bill(still, asked)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("meanwhile", [False, True])
async def test_a_bill_run_that_is_cut_anywhere_ends_in_the_same_bill(
    tmp_path: Path, when: Any, meanwhile: bool
) -> None:
    """Whichever write fails, done or not, the bill is what it would have been; usage that was rated while the run was
    cut is on this bill as a whole, or on the next."""
    for at in range(1, 100):
        store = FaultyStore(MemoryStore(STORE_KINDS), 0, when)
        async with pumped(tmp_path, store) as scene:
            await scene.ended(await scene.order(item(**BERLIN)))
            for number in range(3):
                records = flow(1_000_000_000 + number, 500, ago=10 * number)
                await scene.say("flow", id=f"datagram-{number}", records=records)
            await scene.settled()
            store.writes, store.fails_at = 0, at + 1
            asked = await ask_for_a_bill(scene)
            if meanwhile:
                await run_cut_with_usage_between(scene, store, asked)
            await scene.settled()
            amount, billed = await check_bill(scene, asked)
            passed = store.writes < at + 1
            if meanwhile:
                store.fails_at = 0
                last = await ask_for_a_bill(scene)
                await scene.settled()
                left = await scene.find("usage", **{"body.status": "rated"})
                assert left == [], at
                run = (await scene.store.get("customerBillOnDemand", "acme", last)).body
                rest = (await check_bill(scene, last))[1] if run["state"] == "done" else []
                assert len(billed) + len(rest) == 4
                assert not set(billed) & set(rest)
            else:
                assert (amount, len(billed)) == (0.24, 3), at
            assert scene.bus.parked_ == []
        if passed:
            break
    assert at > 5


async def run_cut_with_usage_between(scene: Scene, store: FaultyStore, asked: str) -> None:
    """Run the bill until it is cut, and have more usage rated before it goes on."""

    def message(name: str, id: str, **members: Any) -> Message:
        event = {"event": {name: members}}
        return Message(id, "event.0.acme.x", {"tenant": "acme", "id": id, "event": event}, {}, Position("x", 1), time())

    with suppress(Unavailable):
        await billing.bill(scene.work, message("customerBillOnDemand", asked))
    at, writes, store.fails_at = store.fails_at, store.writes, 0
    listed = [{"name": "address", "value": "10.1.0.10"}, {"name": "octetsDown", "value": 1_000_000_000}]
    body = {"usageType": "ip-traffic", "usageCharacteristic": listed}
    record = await scene.resources.create(USAGE, "acme", body)
    await billing.guide(scene.work, message("usage", record.id, status="received"))
    await billing.rate(scene.work, message("usage", record.id, status="guided"))
    assert (await scene.store.get("usage", "acme", record.id)).body["status"] == "rated"
    store.fails_at, store.writes = at, writes
