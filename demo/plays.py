"""How a campaign's attempts are played: each is a generator in acts, told from top to bottom.

A play stops at each bell (a bare ``yield None``). Before the first one it prepares, with the policy engine up; between
the first and the second it acts, under the campaign's condition; after that, with the engine up again and nothing under
way any more, it yields its verdict: whether the effect of what it did is in the world. An act more may come before
that. The table of attempts says what is played by whom with what.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from time import time
from typing import Any

from convergedon.adapters.contract import Intent
from convergedon.core.seals import MEMBER, Seals
from convergedon.demo.stage import ALARMS, ORDERING
from convergedon.demo.witness import Deed, Forge, Scene, Who
from convergedon.handlers.alarms import ALARM, COMMENT_ALARMS
from convergedon.handlers.product_ordering import PRODUCT_ORDER

Play = AsyncIterator[bool | None]
Body = dict[str, Any]

V4, V5 = ORDERING, "/tmf-api/productOrderingManagement/v5"
CONSOLE = "/console/record/productOrder"

OPEN = {"acme": "hamburg-1", "globex": "munich-1"}
"""A site of each tenant that may be served at any time."""
CLOSED, FORBIDDEN = "hamburg-2", "berlin-2"
"""Sites of acme: one whose change window is days away, and one in a country where it may not be served."""
SITES = {"acme": {CLOSED: {"device": "pe2", "interface": "ge-0/0/2", "network": "10.5.0.0/16"}}}
"""What the campaign's product model has besides."""
PRIVATE = "private"
"""The category of orders with personal data, by which their listeners choose them."""

CSR = Who("acme-csr", "acme", ("csr",))
NOC = Who("acme-noc", "acme", ("noc",))
NORTHWIND = Who("northwind", "acme", ("customer",), "northwind")
THEIR_CSR = Who("globex-csr", "globex", ("csr",))
THEIR_NOC = Who("globex-noc", "globex", ("noc",))
CSRS = {"acme": CSR, "globex": THEIR_CSR}
PARTIES = {"acme": "northwind", "globex": "initech"}


@dataclass(frozen=True)
class Wish:
    """What acme orders: an access at a site, and what else an order says that may be too much.

    ``besides`` is a second value of the bandwidth, ``inside`` puts the item into another one. ``waits`` says that such
    an order is taken and not carried out.
    """

    words: str
    bandwidth: int = 10
    site: str = OPEN["acme"]
    quantity: int = 0
    monthly: int = 0
    besides: int = 0
    inside: bool = False
    waits: bool = False

    def item(self, vlan: int | None) -> Body:
        """The order's item; without a VLAN the order waits for it."""
        given = [("site", self.site), ("bandwidth", self.bandwidth), ("vlan", vlan), ("bandwidth", self.besides)]
        named = [{"name": name, "value": value} for name, value in given if value]
        item: Body = {
            "id": "1",
            "action": "add",
            "productOffering": {"id": "internet-access"},
            "product": {"productCharacteristic": named},
        }
        if self.quantity:
            item["quantity"] = self.quantity
        if self.monthly:
            amount = {"unit": "EUR", "value": self.monthly}
            price = {"dutyFreeAmount": amount, "taxIncludedAmount": amount}
            item["itemPrice"] = [{"priceType": "recurring", "recurringChargePeriod": "month", "price": price}]
        if self.inside:
            whole = {"id": "0", "action": "add", "productOffering": {"id": "bundle"}}
            return {**whole, "productOrderItem": [item]}
        return item


PLAIN = Wish("an order within the contract")


@dataclass(frozen=True)
class Lie:
    """What an intent says of itself so that no policy refuses it: of whose site it is, and what is asked for there."""

    words: str
    said: Callable[[], Mapping[str, Any]]
    wish: Wish = PLAIN
    tenant: str = "acme"


def order(scene: Scene, tenant: str, mark: str, item: Body, base: str = V4) -> Body:
    """An order; what it says of itself its tenant alone may read."""
    party = {"id": PARTIES[tenant], "@referredType": "Organization"}
    if base == V4:
        return {
            "externalId": mark,
            "description": scene.secret(tenant),
            "relatedParty": [{**party, "role": "customer"}],
            "productOrderItem": [item],
        }
    return {
        "@type": "ProductOrder",
        "externalId": [{"id": mark, "@type": "ExternalIdentifier"}],
        "description": scene.secret(tenant),
        "relatedParty": [
            {
                "@type": "RelatedPartyRefOrPartyRoleRef",
                "role": "customer",
                "partyOrPartyRole": {**party, "@type": "PartyRef"},
            }
        ],
        "productOrderItem": [_fifth(item)],
    }


def _fifth(item: Body) -> Body:
    """An item in the words of version 5."""
    fifth = {**item, "@type": "ProductOrderItem"}
    if "productOffering" in item:
        fifth["productOffering"] = {**item["productOffering"], "@type": "ProductOfferingRef"}
    if "product" in item:
        given = [
            {**one, "@type": "IntegerCharacteristic" if isinstance(one["value"], int) else "StringCharacteristic"}
            for one in item["product"]["productCharacteristic"]
        ]
        fifth["product"] = {"@type": "Product", "productCharacteristic": given}
    if "itemPrice" in item:
        fifth["itemPrice"] = [
            {**price, "@type": "OrderPrice", "price": {**price["price"], "@type": "Price"}}
            for price in item["itemPrice"]
        ]
    if "productOrderItem" in item:
        fifth["productOrderItem"] = [_fifth(part) for part in item["productOrderItem"]]
    return fifth


def alarm(scene: Scene, tenant: str, mark: str) -> Body:
    return {
        "alarmType": "communicationsAlarm",
        "perceivedSeverity": "minor",
        "probableCause": "lossOfSignal",
        "specificProblem": f"{mark} {scene.secret(tenant)}",
        "alarmedObject": {"id": f"{tenant}/{mark}"},
        "sourceSystemId": tenant,
        "state": "raised",
        "alarmRaisedTime": "2026-01-05T08:00:00Z",
    }


def comment(mark: str, pattern: Mapping[str, Any]) -> Body:
    said = {"comment": mark, "systemId": "campaign", "userId": "campaign", "time": "2026-01-05T08:00:00Z"}
    return {"comment": said, "alarmPattern": [pattern]}


PATCHES: Mapping[str, tuple[str, Callable[[str, Any], Any]]] = {
    "merge patch": ("application/merge-patch+json", lambda member, value: {member: value}),
    "JSON Patch": (
        "application/json-patch+json",
        lambda member, value: [{"op": "add", "path": f"/{member}", "value": value}],
    ),
    "json-patch-query": (
        "application/json-patch-query+json",
        lambda member, value: [{"op": "add", "path": f"$.{member}", "value": value}],
    ),
}
"""path of the campaign -> media type, and how a member is set in it."""


async def patch(deed: Deed, who: Who, kind: str, id: str, member: str, value: Any) -> None:
    media_type, written = PATCHES[kind]
    await deed.ask(who, "PATCH", f"{V4}/productOrder/{id}", written(member, value), media_type=media_type)


async def listen(deed: Deed, who: Who, tenant: str) -> None:
    """Register for what a tenant has under this mark, and for nothing else: a campaign makes many events."""
    callback = f"{deed.scene.listener.url}/{deed.mark}"
    query = f"event.alarm.alarmedObject.id={tenant}/{deed.mark}"
    await deed.ask(who, "POST", f"{ALARMS}/hub", {"callback": callback, "query": query})


async def unlisten(deed: Deed, who: Who) -> None:
    for one in deed.seen:
        if one.status == 201:
            await deed.scene.ask(who, "DELETE", one.headers["location"])


def sealed(seals: Seals, subject: str, honest: Mapping[str, Any], said: Mapping[str, Any]) -> Mapping[str, Any]:
    """By whoever has the key: a worker that was made to ask."""
    return seals.sealed(subject, said)


def unsealed(seals: Seals, subject: str, honest: Mapping[str, Any], said: Mapping[str, Any]) -> Mapping[str, Any]:
    return said


def sealed_by_another(
    seals: Seals, subject: str, honest: Mapping[str, Any], said: Mapping[str, Any]
) -> Mapping[str, Any]:
    return Seals([b"a key of somebody else's"]).sealed(subject, said)


def altered(seals: Seals, subject: str, honest: Mapping[str, Any], said: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a worker asked for and sealed, changed on the way."""
    return {**said, MEMBER: seals.sealed(subject, honest)[MEMBER]}


FORGERIES: Mapping[str, Forge] = {
    "without a seal": unsealed,
    "sealed by another key": sealed_by_another,
    "altered after it was sealed": altered,
}


async def intend(
    deed: Deed,
    tenant: str,
    site: str,
    values: Body,
    said: Mapping[str, Any],
    forge: Forge = sealed,
    told: str = "acme",
) -> None:
    """An intent of acme's for the device at a site, past the orchestrator; what it says of itself may be a lie.

    ``told`` is the tenant that is to hear what became of it.
    """
    about = {"kind": "productOrder", "tenant": told, "id": deed.mark}
    device = deed.scene.port(tenant, site)["device"]
    plain = Intent(deed.mark, "acme", device, "internet-access", deed.mark, values, time() + 60, site=site)
    await deed.scene.intend(plain, replace(plain, **said), about, deed.trace, forge)


# --- eyes


async def waiting(scene: Scene, tenant: str, mark: str, wish: Wish | None = None) -> Body:
    """A new order that waits for its VLAN."""
    body = order(scene, tenant, mark, (wish or Wish("", site=OPEN[tenant])).item(None))
    made = await scene.must(CSRS[tenant], "POST", f"{V4}/productOrder", body)

    async def pending() -> bool:
        return bool((await read(scene, tenant, made["id"]))["state"] == "pending")

    await scene.until(f"order {made['id']} waits for its VLAN", pending)
    return dict(made)


async def read(scene: Scene, tenant: str, id: str) -> Body:
    """An order as its rightful owner reads it."""
    return {"category": "", **await scene.must(CSRS[tenant], "GET", f"{V4}/productOrder/{id}")}


async def found(scene: Scene, tenant: str, mark: str) -> list[Body]:
    return list(await scene.must(CSRS[tenant], "GET", f"{V4}/productOrder", externalId=mark))


async def commented(scene: Scene, who: Who, id: str, mark: str) -> bool:
    return mark in str((await scene.must(who, "GET", f"{ALARMS}/alarm/{id}")).get("comment"))


# --- orders


async def ordered(base: str, who: Who, wish: Wish, deed: Deed) -> Play:
    """Over the API, in either version. One that is taken and waits has no effect yet."""
    scene, vlan = deed.scene, deed.scene.vlan("acme", wish.site)
    yield None
    await deed.ask(who, "POST", f"{base}/productOrder", order(scene, "acme", deed.mark, wish.item(vlan), base))
    yield None
    taken = not wish.waits and bool(await found(scene, "acme", deed.mark))
    yield scene.was_on("acme", wish.site, vlan) or taken


async def delivered(base: str, deed: Deed) -> Play:
    """What may be ordered ends on the device."""
    scene, vlan = deed.scene, deed.scene.vlan("acme", PLAIN.site)
    yield None
    await deed.ask(CSR, "POST", f"{base}/productOrder", order(scene, "acme", deed.mark, PLAIN.item(vlan), base))
    yield None
    states = [one["state"] for one in await found(scene, "acme", deed.mark)]
    yield scene.was_on("acme", PLAIN.site, vlan) and (base == V5 or states == ["completed"])


async def patched(kind: str, wish: Wish, deed: Deed) -> Play:
    """An order that waits for its VLAN is told it, and with it what would not have been taken."""
    scene, vlan = deed.scene, deed.scene.vlan("acme", wish.site)
    made = await waiting(scene, "acme", deed.mark, Wish("", site=wish.site) if wish.waits else None)
    yield None
    await patch(deed, CSR, kind, made["id"], "productOrderItem", [wish.item(vlan)])
    yield None
    taken = not wish.waits and (await read(scene, "acme", made["id"]))["state"] != "pending"
    yield scene.was_on("acme", wish.site, vlan) or taken


async def taken_up(wish: Wish, deed: Deed) -> Play:
    """An order that no door saw is taken from the bus, if not now then later."""
    scene, vlan = deed.scene, deed.scene.vlan("acme", wish.site)
    yield None
    await scene.write(PRODUCT_ORDER, CSR, order(scene, "acme", deed.mark, wish.item(vlan)))
    yield None
    yield scene.was_on("acme", wish.site, vlan)


async def intended(wish: Wish, said: Callable[[], Mapping[str, Any]], deed: Deed) -> Play:
    scene, vlan = deed.scene, deed.scene.vlan("acme", wish.site)
    yield None
    await intend(deed, "acme", wish.site, scene.values("acme", wish.site, vlan, wish.bandwidth), said())
    yield None
    yield scene.was_on("acme", wish.site, vlan)


async def lied(lie: Lie, forge: Forge, deed: Deed) -> Play:
    """An intent that no worker asked for, and that says of itself what policies let through."""
    scene, tenant, site = deed.scene, lie.tenant, lie.wish.site
    vlan = scene.vlan(tenant, site)
    yield None
    values = scene.values(tenant, site, vlan, lie.wish.bandwidth)
    await intend(deed, tenant, site, values, lie.said(), forge, tenant)
    yield None
    yield scene.was_on(tenant, site, vlan)


async def forged(wish: Wish, said: Callable[[], Mapping[str, Any]], deed: Deed) -> Play:
    """An order that no door saw, with an event that says what it is for."""
    scene, vlan = deed.scene, deed.scene.vlan("acme", wish.site)
    yield None
    body = order(scene, "acme", deed.mark, wish.item(vlan))
    await scene.forge(PRODUCT_ORDER, CSR, body, "acme", **said())
    yield None
    yield scene.was_on("acme", wish.site, vlan)


async def service_changed(wish: Wish, deed: Deed) -> Play:
    """A service that stands is to become more than may be."""
    scene, vlan = deed.scene, deed.scene.vlan("acme", PLAIN.site)
    service = await standing(scene, "acme", deed.mark, vlan)
    yield None
    item = {**wish.item(vlan), "action": "modify"}
    item["product"]["id"] = service
    await deed.ask(CSR, "POST", f"{V4}/productOrder", order(scene, "acme", f"{deed.mark}-more", item))
    yield None
    yield scene.was_on("acme", PLAIN.site, vlan, bandwidth=str(wish.bandwidth))


async def standing(scene: Scene, tenant: str, mark: str, vlan: int) -> str:
    """A service that was ordered and stands on its device; its id."""
    body = order(scene, tenant, mark, Wish("", site=OPEN[tenant]).item(vlan))
    made = await scene.must(CSRS[tenant], "POST", f"{V4}/productOrder", body)

    async def completed() -> str:
        now = await read(scene, tenant, made["id"])
        return str(now["productOrderItem"][0]["product"]["id"]) if now["state"] == "completed" else ""

    return await scene.until(f"order {made['id']} is completed", completed)


# --- what everybody may do


async def own_order_changed(kind: str, deed: Deed) -> Play:
    made = await waiting(deed.scene, "acme", deed.mark)
    yield None
    await patch(deed, CSR, kind, made["id"], "category", deed.mark)
    yield None
    yield (await read(deed.scene, "acme", made["id"]))["category"] == deed.mark


async def own_order_read(deed: Deed) -> Play:
    made = await waiting(deed.scene, "acme", deed.mark)
    yield None
    await deed.ask(CSR, "GET", f"{V4}/productOrder/{made['id']}")
    await deed.ask(NORTHWIND, "GET", f"{V4}/productOrder/{made['id']}")
    yield None
    yield deed.succeeded and deed.told("acme")


async def own_order_shown(deed: Deed) -> Play:
    made = await waiting(deed.scene, "acme", deed.mark)
    yield None
    await deed.console(NOC, f"{CONSOLE}/{made['id']}")
    yield None
    yield deed.succeeded and deed.mark in deed.seen[-1].text


async def own_alarm_commented(deed: Deed) -> Play:
    scene = deed.scene
    made = await scene.must(NOC, "POST", f"{ALARMS}/alarm", alarm(scene, "acme", deed.mark))
    yield None
    await deed.ask(NOC, "POST", f"{ALARMS}/commentAlarms", comment(deed.mark, {"id": made["id"]}))
    yield None
    yield await commented(scene, NOC, made["id"], deed.mark)


async def listened(who: Who, tenant: str, deed: Deed) -> Play:
    """Somebody registers for what a tenant has, which then happens; whether it is heard."""
    yield None
    await listen(deed, who, tenant)
    yield None
    owner = NOC if tenant == "acme" else THEIR_NOC
    await deed.scene.write(ALARM, owner, alarm(deed.scene, tenant, deed.mark))
    yield None
    await unlisten(deed, who)
    yield deed.scene.heard(deed.mark, deed.mark)


async def told(listener: str, owner: Who, deed: Deed) -> Play:
    """Something happens to a tenant; whether one who listens from the beginning hears of it, if not now then later."""
    yield None
    await deed.scene.write(ALARM, owner, alarm(deed.scene, owner.tenant, deed.mark))
    yield None
    yield deed.scene.heard(listener, deed.mark)


# --- cross-tenant access


async def their_order_read(look: Callable[[Deed, str], Awaitable[object]], deed: Deed) -> Play:
    made = await waiting(deed.scene, "globex", deed.mark)
    yield None
    await look(deed, made["id"])
    yield None
    yield deed.told("globex")


async def by_id(deed: Deed, id: str) -> None:
    await deed.ask(CSR, "GET", f"{V4}/productOrder/{id}")


async def by_list(deed: Deed, id: str) -> None:
    await deed.ask(CSR, "GET", f"{V4}/productOrder", externalId=deed.mark)


async def by_version_5(deed: Deed, id: str) -> None:
    await deed.ask(CSR, "GET", f"{V5}/productOrder/{id}")


async def by_console(deed: Deed, id: str) -> None:
    await deed.console(NOC, f"{CONSOLE}/{id}")


async def other_partys_order_read(deed: Deed) -> Play:
    """A customer reads what is another's of the same tenant."""
    scene = deed.scene
    body = order(scene, "acme", deed.mark, PLAIN.item(None)) | {"description": scene.secret("contoso")}
    body["relatedParty"] = [{**body["relatedParty"][0], "id": "contoso"}]
    made = await scene.must(CSR, "POST", f"{V4}/productOrder", body)
    yield None
    await deed.ask(NORTHWIND, "GET", f"{V4}/productOrder/{made['id']}")
    await deed.ask(NORTHWIND, "GET", f"{V4}/productOrder", externalId=deed.mark)
    yield None
    yield deed.told("contoso")


async def their_order_changed(kind: str, deed: Deed) -> Play:
    made = await waiting(deed.scene, "globex", deed.mark)
    yield None
    await patch(deed, CSR, kind, made["id"], "category", deed.mark)
    yield None
    yield deed.told("globex") or (await read(deed.scene, "globex", made["id"]))["category"] == deed.mark


async def their_order_cancelled(deed: Deed) -> Play:
    """A task of ours names an order of theirs."""
    made = await waiting(deed.scene, "globex", deed.mark)
    yield None
    task = {"productOrder": {"id": made["id"], "@referredType": "ProductOrder"}, "cancellationReason": deed.mark}
    await deed.ask(CSR, "POST", f"{V4}/cancelProductOrder", task)
    yield None
    yield deed.told("globex") or (await read(deed.scene, "globex", made["id"]))["state"] != "pending"


async def their_service_ended(deed: Deed) -> Play:
    """An order of ours ends a service of theirs."""
    scene, vlan = deed.scene, deed.scene.vlan("globex", OPEN["globex"])
    service = await standing(scene, "globex", deed.mark, vlan)
    yield None
    item = {"id": "1", "action": "delete", "product": {"id": service}}
    await deed.ask(CSR, "POST", f"{V4}/productOrder", order(scene, "acme", deed.mark, item))
    yield None
    yield deed.told("globex") or not scene.is_on("globex", OPEN["globex"], vlan)


async def their_alarm_commented(pattern: Callable[[str, str], Mapping[str, Any]], deed: Deed) -> Play:
    """A task of ours means an alarm of theirs, by its id or by what it is."""
    scene = deed.scene
    made = await scene.must(THEIR_NOC, "POST", f"{ALARMS}/alarm", alarm(scene, "globex", deed.mark))
    yield None
    await deed.ask(NOC, "POST", f"{ALARMS}/commentAlarms", comment(deed.mark, pattern(deed.mark, made["id"])))
    yield None
    yield deed.told("globex") or await commented(scene, THEIR_NOC, made["id"], deed.mark)


async def their_device_intended(said: Mapping[str, Any], deed: Deed) -> Play:
    """An intent of ours for a device of theirs."""
    scene, vlan = deed.scene, deed.scene.vlan("globex", OPEN["globex"])
    yield None
    await intend(deed, "globex", OPEN["globex"], scene.values("globex", OPEN["globex"], vlan, 10), said)
    yield None
    yield scene.was_on("globex", OPEN["globex"], vlan)


async def their_order_begun(deed: Deed) -> Play:
    """An event of ours tells of an order of theirs."""
    scene, vlan = deed.scene, deed.scene.vlan("globex", OPEN["globex"])
    yield None
    body = order(scene, "globex", deed.mark, Wish("", site=OPEN["globex"]).item(vlan))
    await scene.forge(PRODUCT_ORDER, THEIR_CSR, body, "acme")
    yield None
    yield scene.was_on("globex", OPEN["globex"], vlan)


# --- stale or missing role


async def changed_by(who: Who, kind: str, deed: Deed) -> Play:
    made = await waiting(deed.scene, "acme", deed.mark)
    yield None
    await patch(deed, who, kind, made["id"], "category", deed.mark)
    yield None
    yield (await read(deed.scene, "acme", made["id"]))["category"] == deed.mark


async def read_by(who: Who, deed: Deed) -> Play:
    made = await waiting(deed.scene, "acme", deed.mark)
    yield None
    await deed.ask(who, "GET", f"{V4}/productOrder/{made['id']}")
    await deed.ask(who, "GET", f"{V4}/productOrder", externalId=deed.mark)
    yield None
    yield deed.told("acme")


async def shown_to(who: Who, deed: Deed) -> Play:
    made = await waiting(deed.scene, "acme", deed.mark)
    yield None
    await deed.console(who, f"{CONSOLE}/{made['id']}")
    yield None
    yield any(deed.mark in one.text for one in deed.seen)


async def commented_by(who: Who, deed: Deed) -> Play:
    scene = deed.scene
    made = await scene.must(NOC, "POST", f"{ALARMS}/alarm", alarm(scene, "acme", deed.mark))
    yield None
    await deed.ask(who, "POST", f"{ALARMS}/commentAlarms", comment(deed.mark, {"id": made["id"]}))
    yield None
    yield await commented(scene, NOC, made["id"], deed.mark)


async def task_taken_up(owner: Who, deed: Deed) -> Play:
    """A task that no door saw is taken from the bus; its owner may not touch alarms, or no more."""
    scene = deed.scene
    made = await scene.must(NOC, "POST", f"{ALARMS}/alarm", alarm(scene, "acme", deed.mark))
    yield None
    await scene.write(COMMENT_ALARMS, owner, comment(deed.mark, {"id": made["id"]}))
    yield None
    yield await commented(scene, NOC, made["id"], deed.mark)


async def order_taken_up(owner: Who, deed: Deed) -> Play:
    """An order that no door saw is taken from the bus; its owner may not order, or no more."""
    scene, vlan = deed.scene, deed.scene.vlan("acme", PLAIN.site)
    yield None
    await scene.write(PRODUCT_ORDER, owner, order(scene, "acme", deed.mark, PLAIN.item(vlan)))
    yield None
    yield scene.was_on("acme", PLAIN.site, vlan)


# --- personal data in a notification


@dataclass(frozen=True)
class Person:
    """Somebody whose data an order holds, different in each attempt."""

    mark: str

    @property
    def name(self) -> str:
        return f"Jana Berg {self.mark}"

    @property
    def email(self) -> str:
        return f"jana.{self.mark}@mail.example"

    @property
    def phone(self) -> str:
        return f"+49 151 {int(self.mark.encode().hex(), 16) % 10**8:08d}"

    @property
    def data(self) -> tuple[str, ...]:
        return (self.name, self.email, self.phone)


def private_order(scene: Scene, mark: str) -> Body:
    """An order that names a person and how to reach it."""
    person = Person(mark)
    body = order(scene, "acme", mark, PLAIN.item(None)) | {"category": PRIVATE}
    body["relatedParty"] = [{**body["relatedParty"][0], "name": person.name}]
    words = f"Call {person.phone} or write to {person.email} before the visit."
    return {**body, "note": [{"id": "1", "author": "desk", "text": words}]}


async def person_told(listener: str, whole: bool, deed: Deed) -> Play:
    """A listener hears of an order with personal data; whether it hears of those too, any or the ``whole`` of them."""
    scene, person = deed.scene, Person(deed.mark)
    yield None
    await scene.write(PRODUCT_ORDER, CSR, private_order(scene, deed.mark))
    yield None
    heard = [scene.heard(listener, one) for one in person.data]
    yield all(heard) if whole else any(heard)


async def person_sought(who: Who, base: str, deed: Deed) -> Play:
    """A listener asks for what bears a name that it may not know; that it hears anything tells it."""
    scene, person = deed.scene, Person(deed.mark)
    callback = f"{scene.listener.url}/{deed.mark}"
    member = "relatedParty.name" if base == V4 else "relatedParty.partyOrPartyRole.name"
    query = f"event.productOrder.{member}={person.name}"
    yield None
    await deed.ask(who, "POST", f"{base}/hub", {"callback": callback, "query": query})
    yield None
    await scene.write(PRODUCT_ORDER, CSR, private_order(scene, deed.mark))
    yield None
    await unlisten(deed, who)
    yield scene.heard(deed.mark, "productOrder")
