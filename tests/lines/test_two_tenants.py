"""Two tenants live through whole stories side by side, and all that is kept afterwards is one's or the other's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import pytest
from scene import BERLIN, STORE_KINDS, Listener, Scene, in_memory, item, listening

from convergedon.adapters.contract import Observation
from convergedon.core.policy import Subject
from convergedon.handlers import hub
from convergedon.handlers.alarms import API as ALARMS
from convergedon.handlers.alarms import COMMENT_ALARMS
from convergedon.handlers.product_ordering import API as ORDERS
from convergedon.handlers.product_ordering import CANCEL_PRODUCT_ORDER, PRODUCT_ORDER
from convergedon.mediation import listeners

PLACES = {"acme": ("pe1", "berlin", "10.1.0.10"), "globex": ("pe3", "munich", "10.3.0.10")}
OTHER = {"acme": "globex", "globex": "acme"}


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with in_memory(tmp_path) as playing:
        yield playing


async def story(scene: Scene, tenant: str, listener: Listener) -> None:
    """An order, a fault on its port and its end, a task on all alarms, a flow, a cancellation, and who listens."""
    device, site, address = PLACES[tenant]
    desk = Subject(f"desk-{tenant}", tenant, ("admin",))
    for api in (ORDERS, ALARMS):
        await hub.register(scene.store, hub.subscription(api, desk, {"callback": listener.url(tenant)}))
    related = [{"id": f"customer-of-{tenant}", "role": "customer", "@referredType": "Organization"}]
    body = {"productOrderItem": [item(**{**BERLIN, "site": site})], "relatedParty": related}
    owner = {"owner": desk.document}
    id = (await scene.resources.create(PRODUCT_ORDER, tenant, body, owner)).id
    assert (await scene.ended(id, tenant))["state"] == "completed"
    await scene.settled()
    await scene.say("fault", device)
    await scene.settled()
    task = {"alarmPattern": [{"perceivedSeverity": "major"}], "comment": {"comment": f"seen by {tenant}"}}
    await scene.resources.create(COMMENT_ALARMS, tenant, {"state": "acknowledged", **task}, owner)
    await scene.settled()
    await scene.say("clear", device)
    about = {"source": "192.0.2.1", "destination": address, "octets": 5000, "packets": 5}
    flow = {"records": [{**about, "start": time() - 60, "end": time()}]}
    await scene.network.say(Observation(uuid4().hex, "flow", "loopback", device, tenant, time(), "", "", flow))

    async def metered() -> bool:
        return bool(await scene.find("usage", tenant))

    await scene.until(metered)
    await scene.settled()
    await scene.resources.create(CANCEL_PRODUCT_ORDER, tenant, {"productOrder": {"id": id}}, owner)
    await scene.settled()


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


async def test_everything_that_is_kept_is_somebodys(scene: Scene) -> None:
    """Each record, message and audit record names its tenant, and nothing of one is in what is the other's."""
    async with listening() as listener:
        for tenant in PLACES:
            await story(scene, tenant, listener)
        await scene.audit.stop()
        kept = [record for kind in STORE_KINDS for record in await scene.store.find(kind.name, {})]
        messages = [
            message
            for subject in ("event.>", "network.>", "intent.>", "task.>", "delivery.>")
            async for message in scene.bus.since(subject, 0)
        ]

    mine = {tenant: {record.id for record in kept if record.tenant == tenant} for tenant in PLACES}
    kinds = {tenant: {record.kind for record in kept if record.tenant == tenant} for tenant in PLACES}
    assert kinds["acme"] == kinds["globex"]
    wanted = {"productOrder", "alarm", "usage", "service", "customerNotification", "commentAlarms", "hub", "audit"}
    assert wanted <= kinds["acme"]
    for record in kept:
        assert record.tenant in PLACES, f"{record.kind} {record.id} is nobody's"
        stranger = OTHER[record.tenant]
        said = [*texts(record.body), *texts(record.facts)]
        assert not mine[stranger] & set(said), f"{record.kind} {record.id} names what is {stranger}'s"
        assert not [text for text in said if f"customer-of-{stranger}" in text or f"seen by {stranger}" in text]
        if record.kind == "audit":
            assert record.body["tenant"] == record.tenant
            assert record.body["decision"] or record.body["what"] in UNASKED, record.body["what"]
    for message in messages:
        named = unquote(message.subject.split(".")[2]) if message.subject.startswith("event.") else None
        whole = message.body
        about = next(
            whole[name] for name in ("observation", "observations", "intent", "about", "event") if name in whole
        )
        tenant = whole.get("tenant") or about.get("tenant") or whole["about"]["tenant"]
        assert tenant in PLACES, message.subject
        assert named in (None, tenant)
        assert not mine[OTHER[tenant]] & set(texts(whole)), message.subject
    assert {path for path, _ in listener.got} == PLACES.keys()
    for tenant, said in ((path, set(texts(event))) for path, event in listener.got):
        assert not mine[OTHER[tenant]] & said


UNASKED = {"order.finished", "alarm.raised", "alarm.cleared", "customer.told", "task.finished", "cancellation.ended"}
"""What follows from steps that were asked: it is in the trace of theirs."""


async def test_a_replay_tells_nothing_of_another_tenant(scene: Scene) -> None:
    """Events of both are on the bus, and the listener's own tenant's are sent again."""
    async with listening() as listener:
        for tenant in PLACES:
            await scene.order(item(**BERLIN), tenant=tenant)
        await scene.settled()
        who = Subject("desk", "globex", ("admin",))
        record = await hub.register(scene.store, hub.subscription(ORDERS, who, {"callback": listener.url("desk")}))
        count = await listeners.replay(scene.store, scene.bus, scene.work.policy, record.id, 0)

        async def all_there() -> bool:
            return len(listener.of("desk")) >= count

        await scene.until(all_there)

    orders = {record.id for record in await scene.find("productOrder", "globex")}
    assert count > 0
    assert {event["event"]["productOrder"]["id"] for event in listener.of("desk")} == orders
