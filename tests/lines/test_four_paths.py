"""On the paths that no request takes the policy is asked too: steps of flows, intents at an adapter, deliveries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from time import gmtime, time
from typing import Any
from uuid import uuid4

import orjson
import pytest
from scene import BERLIN, HAMBURG, Listener, Scene, engine, in_memory, item, listening

from convergedon.adapters.contract import Intent
from convergedon.core import bundles, policy
from convergedon.core.persons import Persons
from convergedon.core.policy import Embedded, Subject
from convergedon.core.store import Record
from convergedon.handlers import hub
from convergedon.handlers.product_ordering import API, CANCEL_PRODUCT_ORDER, PRODUCT_ORDER
from convergedon.mediation.flows import FLOWS, step_name

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
VENDOR = Subject("vendor", "acme", ("csr",), issued=time() - 600)
NOBODY_MAY = {"subjects": {"acme": {"vendor": time()}}, "roles": {}}
ONLY_AUSTRIA = {"countries": {"acme": {"berlin": "DE"}}, "devices": {}, "served": {"acme": {"countries": ["AT"]}}}


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with in_memory(tmp_path) as playing:
        yield playing


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    async with listening() as one:
        yield one


@cache
def _engine(changed: bytes) -> Embedded:
    """The shipped policies with other data. Kept: the engine may not be freed in a thread that did not make it."""
    shipped = policy.read()
    return Embedded(bundles.bundle(shipped.policies, {**shipped.data, **orjson.loads(changed)}))


def under(scene: Scene, **changed: Any) -> None:
    """From now on the policies' data is as it ships, but for this."""
    scene.work.policy.swap(_engine(orjson.dumps(changed)) if changed else engine())


def opens_tomorrow() -> dict[str, Any]:
    """A change window of acme that is closed for some twenty hours."""
    tomorrow = DAYS[(gmtime().tm_wday + 1) % 7]
    hour = gmtime().tm_hour
    return {"acme": {"*": [{"days": [tomorrow], "from": [max(hour - 4, 0), 0], "to": [max(hour - 4, 0), 1]}]}}


async def ordered(scene: Scene, *items: Mapping[str, Any], owner: Subject = VENDOR, **body: Any) -> str:
    """An order as the gateway takes it from somebody; returns its id."""
    related = [{"id": "northwind", "name": "Jane Doe", "role": "customer", "@referredType": "Individual"}]
    whole = {"productOrderItem": list(items or [item(**BERLIN)]), "relatedParty": related, **body}
    return (await scene.resources.create(PRODUCT_ORDER, "acme", whole, {"owner": owner.document})).id


async def recorded(scene: Scene, what: str) -> list[dict[str, Any]]:
    """What stands in the audit record, of one kind, after everything has come to rest."""
    await scene.settled()
    await scene.audit.stop()
    found = [record.body for record in await scene.store.find("audit", {"body.what": what}, [("id", 1)])]
    return [dict(body) for body in await Persons(scene.store).told("acme", found)]


def words(order: Mapping[str, Any]) -> str:
    return " ".join(note["text"] for note in order.get("note", []))


# --- steps of flows


async def test_every_step_leaves_a_record_with_its_decision(scene: Scene) -> None:
    """Which step, on what, for whom, by which decision, and how long it took."""
    id = await ordered(scene)
    await scene.ended(id)
    ran = await recorded(scene, "step.ran")

    steps = {record["detail"]["step"] for record in ran}
    assert {"ordering.fulfil", "ordering.advance", "assurance.tell_order_ended"} <= steps
    assert steps <= {step_name(step) for flow in FLOWS.values() for step in flow}
    for record in ran:
        assert record["outcome"] == "done"
        assert record["decision"]
        assert record["detail"]["seconds"] >= 0
        assert record["detail"]["revision"]
    (fulfilled,) = [record for record in ran if record["detail"]["step"] == "ordering.fulfil"]
    assert (fulfilled["tenant"], fulfilled["on"], fulfilled["subject"]) == ("acme", f"productOrder/{id}", "vendor")


async def test_a_step_for_another_tenants_record_is_parked(still: Scene) -> None:
    """A message on one tenant's subject about another tenant's order changes nothing, and a person sees why."""
    id = await still.order(item(**BERLIN))
    (unsent,) = await still.store.unsent(-1)
    await still.store.sent([unsent])
    (message,) = unsent.messages
    await still.bus.publish(message.subject.replace(".acme.", ".globex."), message.body, "forged", message.headers)
    await still.pump()

    assert (await still.store.get("productOrder", "acme", id)).body["state"] == "acknowledged"
    assert still.network.performed == []
    assert [reason for _, reason in still.bus.parked_] == ["this belongs to another tenant"]


async def test_a_step_for_an_owner_of_another_tenant_is_parked(still: Scene) -> None:
    """Nothing is begun in the name of somebody who is not of the tenant."""
    stranger = Subject("stranger", "globex", ("admin",))
    id = await ordered(still, owner=stranger)
    await still.pump()

    assert (await still.store.get("productOrder", "acme", id)).body["state"] == "acknowledged"
    assert {reason for _, reason in still.bus.parked_} == {"who asked for this is of another tenant"}


async def test_a_repair_that_nobody_approved_is_no_step(still: Scene) -> None:
    """What says that it is a remediation needs its approval at the step, too; with it the step is run."""
    about = {"kind": "ackAlarms", "tenant": "acme", "id": "none", "purpose": "remediation", "workflow": "reset-port"}
    approval = {"by": Subject("mara", "acme", ("noc",)).document, "time": time(), "decision": "approved"}
    await still.bus.publish("task.0.acme", {"slice": 0, "about": about}, "unapproved")
    await still.bus.publish("task.0.acme", {"slice": 0, "about": {**about, "approval": approval}}, "approved")
    await still.pump()

    refused, found = [reason for _, reason in still.bus.parked_]
    assert refused == "remediation reset-port needs the approval of another person than who asked for it"
    assert found == "there is no ackAlarms none"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"contracts": {"acme": {"bandwidth": 99, "quantity": 9, "monthly": 99}}}, "bandwidth 100 Mbit/s is above"),
        ({"contracts": {"acme": {"bandwidth": 999, "quantity": 0, "monthly": 99}}}, "quantity 1 is above the 0"),
        ({"contracts": {"acme": {"bandwidth": 999, "quantity": 9, "monthly": 49}}}, "comes to 50 EUR a month, above"),
        ({"withdrawn": NOBODY_MAY}, "who asked for this has no role any more"),
        ({"geography": ONLY_AUSTRIA}, "tenant acme may not be served at site berlin"),
        ({"windows": {"acme": {"berlin": []}}}, "the change windows of tenant acme at berlin never open"),
    ],
)
async def test_what_was_allowed_when_it_was_ordered_is_asked_again(
    still: Scene, changed: dict[str, Any], why: str
) -> None:
    """A limit that was lowered since, a role that was withdrawn: the order fails in the policy's words."""
    price = {"priceType": "recurring", "price": {"taxIncludedAmount": {"unit": "EUR", "value": 50}}}
    id = await ordered(still, orderTotalPrice=[price])
    under(still, **changed)
    order = await still.ended(id)

    assert order["state"] == "failed"
    assert why in words(order)
    assert still.network.performed == []
    assert still.bus.parked_ == []


# --- change windows


async def test_an_order_waits_for_its_change_window_and_goes_on_by_itself(still: Scene) -> None:
    """Held, with a note and an event that say until when; nothing is asked of the network before."""
    under(still, windows=opens_tomorrow())
    id = await ordered(still)
    await still.pump()
    held = await still.store.get("productOrder", "acme", id)
    before = list(still.network.performed)
    await still.worker.look_after()
    early = (await still.store.get("productOrder", "acme", id)).body["state"]
    await still.resources.change(PRODUCT_ORDER, held, facts={"due": time() - 1})
    await still.worker.look_after()  # still closed
    again = (await still.store.get("productOrder", "acme", id)).body["state"]
    under(still)
    waiting = await still.store.get("productOrder", "acme", id)
    await still.resources.change(PRODUCT_ORDER, waiting, facts={"due": time() - 1})
    await still.worker.look_after()
    order = await still.ended(id)

    assert (held.body["state"], early, again, before) == ("held", "held", "held", [])
    assert {one["state"] for one in held.body["productOrderItem"]} == {"held"}
    assert 0 < held.facts["notBefore"] - time() < 2 * 86_400
    assert "The change window opens at 20" in words(held.body)
    events = [one["event"] for one in await still.bus.read("event.>") if one["kind"] == "productOrder"]
    told = [event.get("description", "") for event in events if event["event"]["productOrder"]["state"] == "held"]
    assert any("The change window opens at 20" in text for text in told)
    assert order["state"] == "completed"
    assert still.network.services == {"pe1": [{"bandwidth": 100, "vlan": 10}]}


async def test_a_worker_that_dies_while_it_holds_an_order_leaves_it_to_the_next(still: Scene) -> None:
    """Between the two writes the order is in progress and nothing was asked: it must not be taken for done."""
    under(still, windows=opens_tomorrow())
    id = await ordered(still)
    order = await still.store.get("productOrder", "acme", id)
    facts = {"notBefore": time() + 3600, "due": time() + 3600}
    await still.resources.change(PRODUCT_ORDER, order, {"state": "inProgress"}, facts)
    await still.pump()

    assert (await still.store.get("productOrder", "acme", id)).body["state"] == "held"
    assert still.network.performed == []


async def test_a_held_order_can_be_cancelled(still: Scene) -> None:
    """Nothing stands on a device, so it is cancelled at once, and stays so when the window opens."""
    under(still, windows=opens_tomorrow())
    id = await ordered(still)
    await still.pump()
    await still.resources.create(CANCEL_PRODUCT_ORDER, "acme", {"productOrder": {"id": id}})
    await still.pump()
    under(still)
    await still.worker.look_after()
    await still.pump()

    assert (await still.store.get("productOrder", "acme", id)).body["state"] == "cancelled"
    assert still.network.performed == []


# --- intents at an adapter


def intent(**given: Any) -> Intent:
    """An intent that somebody who has the key puts on the bus past every line."""
    usual: dict[str, Any] = {
        "key": uuid4().hex,
        "tenant": "acme",
        "device": "pe1",
        "service": "access",
        "instance": "forged",
        "values": {"bandwidth": 100, "vlan": 7},
        "deadline": time() + 60,
        "site": "berlin",
    }
    return Intent(**{**usual, **given})


async def answered(scene: Scene, wanted: Intent, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Put an intent on the bus; returns what is answered, with the decision."""
    subject = f"intent.loopback.{wanted.device}"
    body = {"intent": asdict(wanted), "reply": "delivery.answer", "about": about or {"tenant": "acme"}}
    await scene.bus.publish(subject, scene.work.seals.sealed(subject, body), wanted.key)
    await scene.pump()
    (answer,) = [one for one in await scene.bus.read("delivery.answer.>") if one["outcome"]["key"] == wanted.key]
    return dict(answer)


APPROVED = {"by": Subject("mara", "acme", ("noc",)).document, "time": time(), "decision": "approved"}
REPAIR = {"purpose": "remediation", "workflow": "reset-port"}


@pytest.mark.parametrize(
    ("wanted", "changed", "why"),
    [
        ({"values": {"bandwidth": 5001}}, {}, "bandwidth 5001 Mbit/s is above the 5000 Mbit/s"),
        ({"device": "pe3"}, {}, "device pe3 is none of tenant acme's"),
        ({"tenant": "globex", "device": "pe3"}, {}, "this belongs to another tenant"),
        ({"owner": VENDOR.document}, {"withdrawn": NOBODY_MAY}, "who asked for this has no role any more"),
        ({"owner": {**VENDOR.document, "tenant": "globex"}}, {}, "who asked for this is of another tenant"),
        ({}, {"geography": ONLY_AUSTRIA}, "may not be served at site berlin"),
        ({"site": ""}, {"geography": ONLY_AUSTRIA}, "it is not said at which this is"),
        ({}, {"windows": {"acme": {"berlin": []}}}, "in its change windows only, and none is open"),
        (REPAIR, {}, "needs the approval of another person"),
        ({**REPAIR, "approval": APPROVED, "owner": APPROVED["by"]}, {}, "whoever asked for remediation reset-port"),
        ({"purpose": "fun"}, {}, "fun is no purpose of an intent"),
    ],
)
async def test_an_intent_past_every_line_is_refused_at_the_adapter(
    still: Scene, wanted: dict[str, Any], changed: dict[str, Any], why: str
) -> None:
    """Each class of violation that can occur there; the device is not touched, and the answer says why."""
    under(still, **changed)
    answer = await answered(still, intent(**wanted))

    assert answer["outcome"]["status"] == "refused"
    assert why in answer["outcome"]["words"]
    assert answer["decision"]["id"]
    assert still.network.performed == []


@pytest.mark.parametrize("wanted", [{}, {**REPAIR, "approval": APPROVED}, {"owner": VENDOR.document}])
async def test_an_intent_within_the_rules_is_performed(still: Scene, wanted: dict[str, Any]) -> None:
    """The very same, without a violation."""
    answer = await answered(still, intent(**wanted))

    assert answer["outcome"]["status"] == "applied"


async def test_an_intent_of_an_earlier_build_is_understood(still: Scene) -> None:
    """It says nothing of order, site, owner and purpose, and is held to what it says."""
    older = {"key", "tenant", "device", "service", "instance", "values", "deadline"}
    for number, bandwidth in enumerate((100, 5001)):
        said = {name: value for name, value in asdict(intent(key=str(number))).items() if name in older}
        said["values"] = {"bandwidth": bandwidth}
        body = {"intent": said, "reply": "delivery.answer", "about": {"tenant": "acme"}}
        sealed = still.work.seals.sealed("intent.loopback.pe1", body)
        await still.bus.publish("intent.loopback.pe1", sealed, said["key"])
    await still.pump()

    answers = [one["outcome"]["status"] for one in await still.bus.read("delivery.answer.>")]
    assert answers == ["applied", "refused"]


async def test_what_failed_is_taken_back_though_its_limit_was_lowered(still: Scene) -> None:
    """The former state is above the contract by now: it comes back all the same."""
    id = await ordered(still, item(offering="protected-access", **BERLIN))
    await still.ended(id)
    still.network.refusing["pe2"] = "no"
    changed = await ordered(still, item("modify", offering="protected-access", product=f"{id}-1", bandwidth=50))
    under(still, contracts={"acme": {"bandwidth": 60, "quantity": 9, "monthly": 99}})
    order = await still.ended(changed)

    assert order["state"] == "failed"
    assert still.network.services["pe1"] == [{"bandwidth": 100, "vlan": 10}]


async def test_the_record_of_an_intents_answer_names_the_adapters_decision(scene: Scene) -> None:
    """Told by the adapter, kept by the worker."""
    await scene.ended(await ordered(scene))
    (answer,) = await recorded(scene, "intent.answered")

    assert len(answer["decision"]) == 32
    assert answer["detail"]["revision"] == scene.work.policy.revision


# --- what is told


async def listen(scene: Scene, listener: Listener, who: Subject, query: str = "") -> Record:
    body = {"callback": listener.url(who.id), "query": query}
    return await hub.register(scene.store, hub.subscription(API, who, body))


WATCH = Subject("watch", "acme", ("noc",))
JANE = Subject("northwind", "acme", ("customer",), party="northwind")
NOTE = {
    "id": "1",
    "author": "desk",
    "text": "ask jane@northwind.example or +49 30 1234567, DE89 3704 0044 0532 0130 00",
}


async def told(scene: Scene, listener: Listener, *who: Subject) -> list[Any]:
    """The order of each one's first event."""

    async def heard() -> bool:
        return all(listener.of(one.id) for one in who)

    await scene.until(heard)
    return [listener.of(one.id)[0]["event"]["productOrder"] for one in who]


async def test_who_only_watches_is_told_no_personal_data(scene: Scene, listener: Listener) -> None:
    """Names are taken away and texts masked; who works with the customer, and the customer, hear it whole."""
    for who in (WATCH, VENDOR, JANE):
        await listen(scene, listener, who)
    await ordered(scene, note=[NOTE])
    watched, sold, own = await told(scene, listener, WATCH, VENDOR, JANE)

    assert watched["relatedParty"] == [{"id": "northwind", "role": "customer", "@referredType": "Individual"}]
    assert watched["note"][0]["text"] == "ask [email] or [phone], [iban]"
    for whole in (sold, own):
        assert whole["relatedParty"][0]["name"] == "Jane Doe"
        assert whole["note"][0]["text"] == NOTE["text"]


async def test_a_query_finds_out_nothing_that_is_not_told(scene: Scene, listener: Listener) -> None:
    """Whether an event comes must not tell what was taken away from it."""
    await listen(scene, listener, WATCH, "event.productOrder.relatedParty.name=Jane Doe")
    await listen(scene, listener, VENDOR, "event.productOrder.relatedParty.name=Jane Doe")
    await ordered(scene)
    await told(scene, listener, VENDOR)
    await scene.settled()

    assert listener.of(WATCH.id) == []


async def test_whom_an_event_was_withheld_from_is_one_record(scene: Scene, listener: Listener) -> None:
    """However many they are: how many, by which decisions and why."""
    for number in range(25):
        await listen(scene, listener, Subject(f"other{number}", "acme", ("customer",), party=f"other{number}"))
    id = await ordered(scene)
    withheld = await recorded(scene, "event.withheld")

    (created,) = [one for one in withheld if one["detail"]["eventType"] == "ProductOrderCreateEvent"]
    assert (created["on"], created["outcome"], created["tenant"]) == (f"productOrder/{id}", "refused", "acme")
    assert created["detail"]["owners"] == 25
    assert len(created["detail"]["decisions"]) == 20
    assert created["detail"]["reasons"] == ["a customer reaches only what concerns its own party"]
    assert listener.got == []


async def test_a_delivery_names_its_decision(scene: Scene, listener: Listener) -> None:
    await listen(scene, listener, VENDOR)
    await ordered(scene)
    await told(scene, listener, VENDOR)
    delivered = await recorded(scene, "event.delivered")

    assert delivered
    assert all(len(one["decision"]) == 32 and one["detail"]["revision"] for one in delivered)


async def test_a_withdrawn_role_stops_what_is_queued(scene: Scene, listener: Listener) -> None:
    """What waits for a listener that is away is not posted to it once its owner may not hear it any more."""
    listener.answers["vendor"] = 503
    await listen(scene, listener, VENDOR)
    await ordered(scene)

    async def tried() -> bool:
        return bool(listener.of("vendor"))

    await scene.until(tried)
    under(scene, withdrawn={"subjects": {"acme": {"vendor": time() + 1}}, "roles": {}})
    listener.answers["vendor"] = 204

    async def empty() -> bool:
        return not await scene.bus.waiting("DELIVERY")

    await scene.until(empty, 40)
    withheld = await recorded(scene, "event.withheld")

    mine = [one for one in withheld if one["on"].startswith("hub/")]
    assert mine
    assert {one["subject"] for one in mine} == {"vendor"}
    assert any("was withdrawn" in reason for one in mine for reason in one["detail"]["reasons"])
    assert not [one for one in await scene.find("audit") if one.body["what"] == "event.delivered"]


async def test_what_a_device_wrote_is_masked_before_a_customer_reads_it(still: Scene) -> None:
    """A notification is read by many: what it must not hold is not in it at all."""
    still.network.refusing["pe1"] = "port is taken, call +49 30 1234567 or write to mara@acme.example"
    await still.ended(await ordered(still, item(**BERLIN), item(id="2", **HAMBURG)))
    await still.pump()
    (notified,) = await still.find("customerNotification")

    assert "port is taken, call [phone] or write to [email]" in notified.body["text"]
