"""The cancel task: an order is cancelled when nothing of it stands on a device, at whatever moment it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from faulty import FaultyStore
from scene import BERLIN, HAMBURG, STORE_KINDS, PumpBus, Scene, item, on_servers, playing, twice

from convergedon.adapters import netconf
from convergedon.adapters.contract import Device
from convergedon.adapters.netconf.lab import Element, running
from convergedon.adapters.role import AdapterRole
from convergedon.core import settings
from convergedon.core.bus import Consumer, Message, Position
from convergedon.core.memory import MemoryStore
from convergedon.core.store import Record, Store
from convergedon.handlers.product_ordering import CANCEL_PRODUCT_ORDER, PRODUCT_ORDER, items
from convergedon.mediation.flows import FLOWS
from convergedon.mediation.worker import Worker

PROTECTED = {"offering": "protected-access", **BERLIN}
INCOMPLETE = {"bandwidth": 100, "site": "berlin"}


class HoldingBus(PumpBus):
    """A bus that keeps back what it is told to, until it is released. No intent overtakes another of its device."""

    def __init__(self) -> None:
        super().__init__()
        self.holds: Callable[[Message], bool] = lambda _: False
        self._held: list[tuple[Consumer, Message]] = []

    async def _deliver(self, consumer: Consumer, message: Message) -> None:
        behind = message.subject.startswith("intent.") and any(held is consumer for held, _ in self._held)
        if behind or self.holds(message):
            self._held.append((consumer, message))
        else:
            await super()._deliver(consumer, message)

    async def release(self, store: Store, holds: Callable[[Message], bool] = lambda _: False) -> None:
        """Deliver what was held, in its order, and all that comes of it; from now on hold something else."""
        self.holds = holds
        held, self._held = self._held, []
        for consumer, message in held:
            await super()._deliver(consumer, message)
        await self.run(store)


@asynccontextmanager
async def holding(folder: Path, store: Store | None = None, **given: Any) -> AsyncIterator[Scene]:
    async with playing(store or MemoryStore(STORE_KINDS), HoldingBus(), folder, **given) as scene:
        yield scene


@pytest.fixture
async def still(tmp_path: Path) -> AsyncIterator[Scene]:
    """On twins in memory, one message at a time, any of which may be held back."""
    async with holding(tmp_path) as scene:
        yield scene


async def cancel(scene: Scene, order: str, tenant: str = "acme", **given: Any) -> str:
    """A cancel task as the gateway takes it; returns its id."""
    body = {"productOrder": {"id": order}, "cancellationReason": "duplicate order", **given}
    return (await scene.resources.create(CANCEL_PRODUCT_ORDER, tenant, body)).id


async def task(scene: Scene, id: str, tenant: str = "acme") -> Mapping[str, Any]:
    return (await scene.store.get("cancelProductOrder", tenant, id)).body


async def order(scene: Scene, id: str) -> Record:
    return await scene.store.get("productOrder", "acme", id)


def states(body: Mapping[str, Any]) -> list[str]:
    return [body["state"], *(item["state"] for item in items(body))]


async def history(scene: Scene, id: str) -> list[str]:
    """The states that the events of a resource told of, in their order."""
    told = [message.body for message in scene.bus.messages if message.body.get("id") == id and "event" in message.body]
    found: list[str] = []
    for body in told:
        state = body["event"]["event"][body["kind"]]["state"]
        if body["event"]["eventType"].endswith(("CreateEvent", "StateChangeEvent")):
            found.append(state)
    return found


async def events(scene: Scene, type_: str) -> list[Mapping[str, Any]]:
    told = (message.body.get("event") for message in scene.bus.messages)
    return [event for event in told if event and event["eventType"] == type_]


async def notifications(scene: Scene) -> list[str]:
    return sorted(record.body["notificationType"] for record in await scene.find("customerNotification"))


async def active(scene: Scene) -> list[str]:
    return [service.id for service in await scene.find("service") if service.body["state"] == "active"]


STAGES: Mapping[str, Callable[[Message], bool]] = {
    "acknowledged": lambda message: message.subject.endswith(".ProductOrderCreateEvent"),
    "asked": lambda message: message.subject.startswith("intent."),
    "partly done": lambda message: message.subject == "intent.loopback.pe2",
    "done, not written": lambda message: message.subject.startswith("network."),
}
OFFICIAL = ["inProgress", "assessingCancellation", "pendingCancellation", "cancelled"]


@pytest.mark.parametrize("stage", STAGES)
async def test_an_order_is_cancelled_wherever_it_is(still: Scene, stage: str) -> None:
    """Nothing stands on a device, order and items are cancelled, the task is done, and the customer is told."""
    still.bus.holds = STAGES[stage]
    id = await still.order(item(**PROTECTED), item(id="2", **BERLIN | {"vlan": 11}))
    await still.pump()
    asked = await cancel(still, id)
    await still.pump()
    await still.bus.release(still.store)

    end = (await order(still, id)).body
    assert states(end) == ["cancelled"] * 3
    assert (end["cancellationReason"], "completionDate" in end) == ("duplicate order", False)
    assert still.network.services == {}
    assert await active(still) == []
    done = await task(still, asked)
    assert (done["state"], done["effectiveCancellationDate"]) == ("done", end["cancellationDate"])
    assert await history(still, asked) == ["acknowledged", "inProgress", "done"]
    path = ["pending", "cancelled"] if stage == "acknowledged" else OFFICIAL
    assert await history(still, id) == ["acknowledged", *path]
    assert await notifications(still) == ["orderCancelled"]
    assert await still.bus.parked() == []
    assert "due" not in (await order(still, id)).facts
    if stage == "acknowledged":
        assert still.network.performed == []


async def test_what_waits_for_a_device_is_cancelled_when_that_has_answered(scene: Scene) -> None:
    """The half that was done is taken back at once, the other when its device is there again; no earlier is it said."""
    scene.network.unreachable.add("pe2")
    id = await scene.order(item(**PROTECTED), item(id="2", **HAMBURG))
    await scene.until(lambda: answered(scene, id, "pe1"))
    asked = await cancel(scene, id)

    async def taken_back() -> bool:
        return scene.network.services == {} and states((await order(scene, id)).body)[0] == "pendingCancellation"

    await scene.until(taken_back)
    assert (await task(scene, asked))["state"] == "inProgress"
    scene.network.unreachable.clear()

    async def over() -> bool:
        return (await task(scene, asked))["state"] == "done"

    await scene.until(over)
    assert states((await order(scene, id)).body) == ["cancelled"] * 3
    assert scene.network.services == {}
    await scene.settled()
    assert await notifications(scene) == ["orderCancelled"]
    assert scene.network.services == {}


async def answered(scene: Scene, id: str, device: str) -> bool:
    asked = (await order(scene, id)).facts.get("asked", {}).values()
    return any(entry["status"] == "done" and entry["wanted"]["device"] == device for entry in asked)


@pytest.mark.parametrize(
    "asked",
    [
        item("modify", "protected-access", bandwidth=500),
        item("modify", "protected-access", site="hamburg"),
        item("delete"),
        item("noChange"),
    ],
    ids=["changed", "moved", "ended", "left alone"],
)
async def test_a_service_is_again_what_it_was(still: Scene, asked: dict[str, Any]) -> None:
    """On the devices and in the inventory, with the customer it had, though the item's part was done and confirmed."""
    first = await still.order(item(**PROTECTED))
    await still.ended(first)
    before, devices = await still.find("service"), dict(still.network.services)
    asked = {**asked, "product": {**asked["product"], "id": f"{first}-1"}}
    id = await still.order(asked, item(id="2", **BERLIN | {"vlan": 30}), party="contoso")
    still.bus.holds = lambda message: message.id.startswith(f"{id}:2:")
    await still.pump()
    made = await still.find("service")
    await cancel(still, id)
    await still.pump()
    await still.bus.release(still.store)

    assert (made != before) == (asked["action"] != "noChange")
    assert states((await order(still, id)).body) == ["cancelled"] * 3
    assert still.network.services == devices
    assert [(record.body, record.facts) for record in await still.find("service")] == [
        (record.body, record.facts) for record in before
    ]


@pytest.mark.parametrize("end", ["completed", "failed", "partial", "cancelled"])
async def test_an_order_that_has_ended_stays_as_it_ended(still: Scene, end: str) -> None:
    """The task ends in error, saying why in its event and in the audit record; nothing is touched."""
    if end in ("failed", "partial"):
        still.network.refusing["pe2"] = "no resources"
    first = item(**HAMBURG if end == "failed" else BERLIN)
    id = await still.order(*([first, item(id="2", **HAMBURG)] if end == "partial" else [first]))
    if end == "cancelled":
        await cancel(still, id)
    await still.pump()
    before, had = await order(still, id), dict(still.network.services)
    asked = await cancel(still, id)
    await still.pump()

    assert before.body["state"] == end
    await denied(still, asked, f"product order {id} is {end} already")
    assert await order(still, id) == before
    assert still.network.services == had


async def denied(scene: Scene, asked: str, words: str, tenant: str = "acme") -> None:
    """The task ended in error, in these words."""
    ended = await task(scene, asked, tenant)
    assert (ended["state"], "effectiveCancellationDate" in ended) == ("terminatedWithError", False)
    told = [event for event in await events(scene, "CancelProductOrderStateChangeEvent") if event["id"] == asked]
    assert words in told[-1]["description"]
    (kept,) = await audited(scene, "cancellation.ended", f"cancelProductOrder/{asked}")
    assert (kept["outcome"], words in kept["detail"]["reason"]) == ("refused", True)
    assert await scene.bus.parked() == []


async def audited(scene: Scene, what: str, on: str) -> list[Mapping[str, Any]]:
    await scene.audit.stop()
    found = [record.body for record in await scene.store.find("audit", {})]
    return [entry for entry in found if entry["what"] == what and entry["on"] == on]


async def test_an_order_that_is_not_there_is_not_cancelled(still: Scene) -> None:
    """Unknown or another tenant's: the task is taken, and ends in error."""
    theirs = await still.order(item(**BERLIN | {"site": "munich"}), tenant="globex")
    unknown = await cancel(still, "45f-98f-ss45")
    foreign = await cancel(still, theirs)
    await still.pump()

    await denied(still, unknown, "there is no product order 45f-98f-ss45")
    await denied(still, foreign, f"there is no product order {theirs}")
    assert await still.ended(theirs, "globex")


async def test_one_cancellation_at_a_time(still: Scene) -> None:
    """The second task says which one is under way, and the first one is not disturbed."""
    still.bus.holds = STAGES["asked"]
    id = await still.order(item(**PROTECTED))
    first = await cancel(still, id)
    second = await cancel(still, id)
    await still.pump()
    await still.bus.release(still.store)

    assert (await task(still, first))["state"] == "done"
    await denied(still, second, f"product order {id} is being cancelled by cancelProductOrder {first}")


async def test_what_others_built_on_is_not_taken_back(still: Scene) -> None:
    """A product that a later order changed is not set back under it: denied, and the order goes on to its own end."""
    id = await still.order(item(**BERLIN), item(id="2", **HAMBURG))
    still.bus.holds = lambda message: message.id.startswith(f"{id}:2:")
    await still.pump()
    await still.ended(await still.order(item("modify", product=f"{id}-1", bandwidth=200)))
    asked = await cancel(still, id)
    await still.pump()
    back = (await order(still, id)).body
    await still.bus.release(still.store)

    await denied(still, asked, f"product {id}-1 was changed since by another order")
    assert states(back) == ["inProgress"] * 3
    assert await history(still, id) == [
        "acknowledged",
        "inProgress",
        "assessingCancellation",
        "inProgress",
        "completed",
    ]
    assert still.network.services["pe1"] == [{"bandwidth": 200, "vlan": 10}]
    assert {"name": "bandwidth", "value": 200} in (await still.find("service"))[0].body["serviceCharacteristic"]


async def test_an_order_is_not_cancelled_while_something_stands(still: Scene) -> None:
    """A device that does not let go: the order says so and waits for a person, the task ends in error, in its words.

    Another task takes it up, and is done when the device lets go.
    """
    still.network.keeping["pe1"] = "the port is locked by maintenance"
    still.bus.holds = lambda message: message.subject == "intent.loopback.pe2"
    id = await still.order(item(**PROTECTED))
    await still.pump()
    first = await cancel(still, id)
    await still.pump()
    await still.bus.release(still.store)
    waiting = await order(still, id)
    (asked_for,) = await events(still, "CancelProductOrderInformationRequiredEvent")
    again = await cancel(still, id)
    await still.pump()
    still.network.keeping.clear()
    third = await cancel(still, id)
    await still.pump()

    assert states(waiting.body) == ["pendingCancellation"] * 2
    assert "cancellationDate" not in waiting.body
    words = "not taken back: item 1 on pe1: refused: the port is locked by maintenance"
    assert words in waiting.body["note"][-1]["text"]
    assert (asked_for["fieldPath"], words in asked_for["description"]) == ("productOrder", True)
    await denied(still, first, words)
    await denied(still, again, words)
    assert (await task(still, third))["state"] == "done"
    assert states((await order(still, id)).body) == ["cancelled"] * 2
    assert still.network.services == {}
    assert await notifications(still) == ["orderCancelled"]


async def test_devices_that_never_answer_leave_the_order_waiting(still: Scene) -> None:
    """After the deadline the task says that nobody knows; an answer that comes all the same cancels the order."""
    still.bus.holds = STAGES["asked"]
    id = await still.order(item(**BERLIN))
    await still.pump()
    asked = await cancel(still, id)
    await still.pump()
    await overdue(still, id)
    await still.worker.look_after()
    await still.pump()
    waiting = (await order(still, id)).body
    await still.bus.release(still.store)

    assert waiting["state"] == "pendingCancellation"
    await denied(still, asked, "the device did not answer until its deadline")
    assert states((await order(still, id)).body) == ["cancelled"] * 2
    assert still.network.services == {}


async def overdue(scene: Scene, id: str) -> None:
    """The time in which an order is waited for has run out."""
    record = await order(scene, id)
    await scene.store.replace(record.with_(facts={"due": 1.0}))


async def test_a_late_answer_of_an_order_in_progress_is_taken_back(still: Scene) -> None:
    """A device that was given up and did it all the same, while another one is still waited for: nothing is left."""
    still.bus.holds = STAGES["asked"]
    id = await still.order(item(**BERLIN), item(id="2", **HAMBURG))
    await still.pump()
    await overdue(still, id)
    await still.worker.look_after()
    await still.bus.release(still.store)

    assert states((await order(still, id)).body) == ["failed"] * 3
    assert still.network.services == {}


async def test_a_cancellation_waits_for_its_date(still: Scene) -> None:
    """Nothing happens before; then it is done, or denied if the order has ended meanwhile."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    still.bus.holds = STAGES["asked"]
    early, late = await still.order(item(**BERLIN)), await still.order(item(**HAMBURG))
    tasks = [
        await cancel(still, id, requestedCancellationDate=soon.astimezone(timezone(timedelta(hours=5))).isoformat())
        for id in (early, late)
    ]
    await still.pump()
    await still.worker.look_after()
    waiting = [(await task(still, one))["state"] for one in tasks]
    for one in tasks:
        record = await still.store.get("cancelProductOrder", "acme", one)
        assert record.facts["due"] == pytest.approx(soon.timestamp())
        past = {"requestedCancellationDate": "2020-01-01T00:00:00Z"}
        await still.store.replace(record.with_(past, {"due": 1.0}))
        if one == tasks[0]:
            await still.worker.look_after()
    await still.bus.release(still.store)
    await still.worker.look_after()
    await still.pump()

    assert waiting == ["acknowledged", "acknowledged"]
    assert [(await task(still, one))["state"] for one in tasks] == ["done", "terminatedWithError"]
    assert [(await order(still, id)).body["state"] for id in (early, late)] == ["cancelled", "completed"]
    assert [len(had) for had in still.network.services.values()] == [1]


async def test_what_a_dead_worker_left_is_taken_up(still: Scene) -> None:
    """A task whose messages went nowhere ends all the same when its time has run out, as the order's state says."""
    still.bus.holds = STAGES["asked"]
    id = await still.order(item(**BERLIN))
    await still.pump()
    asked = await cancel(still, id)
    await still.pump()
    await still.bus.release(still.store, lambda message: message.subject.endswith(".ProductOrderStateChangeEvent"))
    left = await still.store.get("cancelProductOrder", "acme", asked)
    await still.store.replace(left.with_(facts={"due": 1.0}))
    await still.worker.look_after()

    assert ((await order(still, id)).body["state"], left.body["state"]) == ("cancelled", "inProgress")
    assert (await task(still, asked))["state"] == "done"


async def test_an_order_that_is_removed_ends_its_cancellation(still: Scene) -> None:
    """It waited for information and was removed before the worker came to cancel it."""
    id = await still.order(item(**INCOMPLETE))
    await still.pump()
    asked = await cancel(still, id)
    await still.resources.delete(PRODUCT_ORDER, await order(still, id))
    await still.pump()

    await denied(still, asked, f"there is no product order {id}")


async def test_a_customer_hears_of_an_order_that_was_removed_after_its_end(still: Scene) -> None:
    """It was cancelled and removed before the worker came to tell; nothing is parked."""
    id = await still.order(item(**INCOMPLETE))
    await still.pump()
    await still.resources.change(PRODUCT_ORDER, await order(still, id), {"state": "cancelled"})
    await still.resources.delete(PRODUCT_ORDER, await order(still, id))
    await still.pump()

    (told,) = await still.find("customerNotification")
    assert told.body["notificationType"] == "orderCancelled"
    assert told.body["productOrder"][0]["id"] == id
    assert await still.bus.parked() == []


async def test_an_order_on_hold_is_taken_back_too(still: Scene) -> None:
    """Nothing of ours puts an order on hold; one that is there is not called cancelled while it stands on a device."""
    id = await still.order(item(**PROTECTED))
    still.bus.holds = STAGES["done, not written"]
    await still.pump()
    await still.resources.change(PRODUCT_ORDER, await order(still, id), {"state": "held"})
    await still.bus.release(still.store)
    had = dict(still.network.services)
    asked = await cancel(still, id)
    await still.pump()

    assert had.keys() == {"pe1", "pe2"}
    assert (await task(still, asked))["state"] == "done"
    assert await history(still, id) == ["acknowledged", "inProgress", "held", *OFFICIAL[1:]]
    assert still.network.services == {}


@pytest.mark.parametrize("by", ["task", "client"])
async def test_an_order_that_waits_for_information_is_cancelled_at_once(still: Scene, by: str) -> None:
    """By a task or by a client's PATCH: no device is asked, and the customer is told."""
    id = await still.order(item(**INCOMPLETE), item(id="2", **BERLIN))
    await still.pump()
    if by == "task":
        await cancel(still, id)
    else:
        waiting = await order(still, id)
        fresh = {**waiting.body, "state": "cancelled", "cancellationReason": "duplicate order"}
        PRODUCT_ORDER.guard(waiting.body, fresh)
        await still.resources.change(PRODUCT_ORDER, waiting, fresh, whole=True)
    await still.pump()

    end = (await order(still, id)).body
    assert states(end) == ["cancelled"] * 3
    assert (end["cancellationReason"], "cancellationDate" in end) == ("duplicate order", True)
    assert await history(still, id) == ["acknowledged", "pending", "cancelled"]
    assert await notifications(still) == ["orderCancelled"]
    assert still.network.performed == []
    if by == "client":
        later = await cancel(still, id)
        await still.pump()
        await denied(still, later, f"product order {id} is cancelled already")


async def test_second_delivery_changes_nothing(still: Scene) -> None:
    """Every message of cancelling, denying and getting stuck comes twice, and is done once."""
    first = await still.order(item(**PROTECTED))
    changed = await twice(still)
    for asked in (
        item(**PROTECTED | {"vlan": 11}),
        item("modify", "protected-access", product=f"{first}-1", site="hamburg"),
        item("delete", product=f"{first}-1"),
        item(**INCOMPLETE),
    ):
        id = await still.order(asked)
        still.bus.holds = lambda message: message.subject == "intent.loopback.pe2"
        changed += await twice(still)
        await cancel(still, id)
        await cancel(still, id)
        changed += await twice(still)
        await still.bus.release(still.store)
        assert (await order(still, id)).body["state"] == "cancelled"
    still.network.keeping["pe1"] = "no"
    still.bus.holds = STAGES["done, not written"]
    id = await still.order(item(**BERLIN | {"vlan": 12}))
    await still.pump()
    await cancel(still, id)
    changed += await twice(still)
    await still.bus.release(still.store)
    changed += await twice(still)

    assert changed == []
    assert (await order(still, id)).body["state"] == "pendingCancellation"
    assert await still.bus.parked() == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("moment", ["early", "late"])
async def test_a_cut_at_any_write_changes_no_end(tmp_path: Path, moment: str, when: Any) -> None:
    """Whichever write of the store fails, done or not, the order is cancelled and what was there is there again."""
    for at in range(1, 200):
        store = FaultyStore(MemoryStore(STORE_KINDS), 0, when)
        async with holding(tmp_path, store) as scene:
            first = await scene.order(item(**PROTECTED))
            await scene.ended(first)
            changed = item("modify", "protected-access", product=f"{first}-1", bandwidth=9)
            id = await scene.order(changed, item(id="2", **PROTECTED | {"vlan": 11}))
            scene.bus.holds = lambda message, last=f"{id}:2:1": message.id == last
            if moment == "late":
                await scene.pump()
            asked = await cancel(scene, id)
            store.writes, store.fails_at = 0, at
            await scene.pump()
            await scene.bus.release(scene.store)

            assert states((await order(scene, id)).body) == ["cancelled"] * 3, at
            assert (await task(scene, asked))["state"] == "done", at
            assert scene.network.services == {"pe1": [{"bandwidth": 100, "vlan": 10}], "pe2": [{"bandwidth": 100}]}, at
            assert await active(scene) == [f"{first}-1"], at
            assert await notifications(scene) == ["orderCancelled", "orderCompleted"], at
            assert scene.bus.parked_ == []
        if store.writes < at:
            break
    assert at > 10


class Rival(FaultyStore):
    """A store in which somebody else comes first at the chosen write."""

    first: Callable[[], Awaitable[None]] | None = None

    async def _write(self, write: Any) -> Any:
        self.writes += 1
        if self.writes == self.fails_at and self.first:
            await self.first()
        return await write


@pytest.mark.parametrize("devices", ["willing", "refusing"])
async def test_a_race_has_one_winner(tmp_path: Path, devices: str) -> None:
    """Another worker cancels between any reading and writing of the order line: what is said is what stands."""
    ends = set()
    for at in range(1, 100):
        store = Rival(MemoryStore(STORE_KINDS))
        async with holding(tmp_path, store) as scene:
            if devices == "refusing":
                scene.network.refusing["pe2"] = "no resources"
            id, asked = await scene.order(item(**PROTECTED), item(id="2", **BERLIN | {"vlan": 11})), ""

            async def rival(scene: Scene = scene, id: str = id) -> None:
                nonlocal asked
                asked = await cancel(scene, id)
                created = await scene.store.get("cancelProductOrder", "acme", asked)
                await FLOWS["CancelProductOrderCreateEvent"][0](scene.work, about(created))

            store.writes, store.fails_at, store.first = 0, at, rival
            await scene.pump()
            if not asked:
                break
            await scene.settled()
            end, said = (await order(scene, id)).body, (await task(scene, asked))["state"]
            ends.add((end["state"], said))
            assert (end["state"] == "cancelled") == (said == "done"), (at, end["state"], said)
            assert (end["state"] == "cancelled") == (await active(scene) == []), at
            assert (end["state"] == "cancelled") == (scene.network.services == {}), at
            assert len(await notifications(scene)) == 1
            assert scene.bus.parked_ == []

    other = "completed" if devices == "willing" else "partial"
    assert ends == {("cancelled", "done"), (other, "terminatedWithError")}


def about(record: Record) -> Message:
    """The message that tells of a record, as far as a flow reads it."""
    body = {"tenant": record.tenant, "kind": record.kind, "id": record.id}
    return Message("rival", "event.0.x", body, {}, Position("rival", 1), 0.0)


async def test_two_workers_agree_on_what_became_of_an_order(tmp_path: Path, mongodb_url: str) -> None:
    """Cancelled before a device answers and while it does, each order ends one way: the devices have what that says."""
    async with on_servers(tmp_path, mongodb_url) as scene:
        await both_work(scene)


async def both_work(scene: Scene) -> None:
    other = Worker(scene.work)
    await other.start()
    try:
        scene.network.unreachable.add("pe2")
        ids = [await scene.order(item(**PROTECTED | {"vlan": number})) for number in range(1, 13)]
        await scene.until(lambda: answered(scene, ids[-1], "pe1"))
        tasks = {}

        async def taken_up() -> bool:
            return {(await order(scene, id)).body["state"] for id in ids[:6]} == {"pendingCancellation"}

        for number, id in enumerate(ids):
            if number == 6:
                await scene.until(taken_up)
                scene.network.unreachable.clear()
            tasks[id] = await cancel(scene, id)
            await asyncio.sleep(0.2 * (number > 6))

        async def over() -> bool:
            found = [(await task(scene, one))["state"] for one in tasks.values()]
            orders = [(await order(scene, id)).body["state"] for id in ids]
            return {*found} <= {"done", "terminatedWithError"} and {*orders} <= {"cancelled", "completed"}

        await scene.until(over)
        await scene.settled()
    finally:
        await other.stop()

    assert [(await order(scene, id)).body["state"] for id in ids[:6]] == ["cancelled"] * 6
    standing = []
    for id in ids:
        end, said = (await order(scene, id)).body, await task(scene, tasks[id])
        assert (end["state"], said["state"]) in {("cancelled", "done"), ("completed", "terminatedWithError")}
        standing += [f"{id}-1"] if end["state"] == "completed" else []
    assert sorted(await active(scene)) == sorted(standing)
    assert sorted(name for _, name in scene.network.state.get("pe1", {})) == sorted(standing)
    assert sorted(name for _, name in scene.network.state.get("pe2", {})) == sorted(standing)
    assert await scene.bus.parked() == []


NETCONF_PRODUCTS = """
offerings:
  access:
    name: Access
    characteristics:
      bandwidth: {type: integer, minimum: 1, maximum: 400000}
      vlan: {type: integer, minimum: 1, maximum: 300}
      site: {type: site}
    intents:
      - adapter: netconf
        device: site.device
        service: internet-access
        object: site.interface
        address: "host(site.network, vlan)"
        values: {interface: site.interface, vlan: vlan, bandwidth: bandwidth}
sites:
  acme:
    berlin: {device: pe1, interface: ge-0/0/1, network: 10.1.0.0/24}
    hamburg: {device: pe2, interface: ge-0/0/1, network: 10.2.0.0/24}
"""


async def test_the_network_element_has_what_it_had(tmp_path: Path) -> None:
    """Over NETCONF, read back from the element: a new access is gone, a changed and an ended one are as they were."""
    elements = [Element(name, tmp_path / name, {"ge-0/0/1": 1000}) for name in ("pe1", "pe2")]
    for element in elements:
        await element.start()
    devices = {one.name: Device(one.name, "acme", "127.0.0.1", one.device_entry()) for one in elements}
    adapter = netconf.create(settings.load(), devices)
    try:
        async with holding(tmp_path, products=NETCONF_PRODUCTS) as scene:
            await AdapterRole(adapter, scene.bus, devices, scene.work.policy, scene.work.seals).start()
            kept = await scene.order(item(**BERLIN), item(id="2", **BERLIN | {"vlan": 11}))
            assert (await scene.ended(kept))["state"] == "completed"
            before = [running(element) for element in elements]
            id = await scene.order(
                item(id="1", **BERLIN | {"vlan": 12}),
                item("modify", id="2", product=f"{kept}-1", bandwidth=500),
                item("delete", id="3", product=f"{kept}-2"),
                item(id="4", **HAMBURG),
            )
            scene.bus.holds = lambda message: message.subject == "intent.netconf.pe2"
            await scene.pump()
            between = [running(element) for element in elements]
            asked = await cancel(scene, id)
            await scene.pump()
            taken_back = running(elements[0])
            await scene.bus.release(scene.store)

            assert states((await order(scene, id)).body) == ["cancelled"] * 5
            assert (await task(scene, asked))["state"] == "done"
            assert between[0].keys() == {f"{kept}-1", f"{id}-1"}
            assert between[0][f"{kept}-1"]["bandwidth"] == "500"
            assert taken_back == before[0]
            assert [running(element) for element in elements] == before
            assert len(before[0]) == 2
    finally:
        await adapter.stop()
        for element in elements:
            await element.stop()
