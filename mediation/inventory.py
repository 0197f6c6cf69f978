"""Which service stands on which part of the network, and whose it is: the inventories as the lines keep and ask them.

The order line writes what the network confirmed: first the device, the interface and what is configured there (TMF639),
then the service that stands on them (TMF638), and only then its order says so. Each of these finds itself done when it
is done again, and no reference leads nowhere. The fault line asks by the part that is at fault, the usage line by
address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address
from typing import Any

from convergedon.core.errors import Conflict, Stale
from convergedon.core.store import Record, Store, find_any
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.handlers.resource import Body, Resources, now
from convergedon.handlers.service_inventory import FROM_ORDERS, SERVICE
from convergedon.mediation import parts
from convergedon.mediation.planning import Present, Wanted

_LIFE = SERVICE.lifecycle
assert _LIFE
_TAKEN_BACK = replace(SERVICE, lifecycle=replace(_LIFE, moves={**_LIFE.moves, "terminated": ("active",)}))
"""A service of which an order was taken back: that it had ended was true only as long as the order was."""


@dataclass(frozen=True)
class Service:
    """A service as the lines need it. ``customers`` are the ids of the parties it was sold to.

    ``order`` is the one that made it, empty for a service that a client recorded; ``ended`` says that it is no more.
    """

    id: str
    tenant: str
    name: str
    order: str
    customers: tuple[str, ...]
    ended: bool = False


def _service(record: Record) -> Service:
    body, facts = record.body, record.facts
    name = body.get("name") or body.get("serviceSpecification", {}).get("name") or record.id
    sold_to = facts["customers"] if "customers" in facts else customers(body)
    over = body["state"] == "terminated"
    return Service(record.id, record.tenant, name, facts.get("order", ""), tuple(sold_to), over)


def reference(resources: Resources, service: Service) -> dict[str, str]:
    """A service as others name it, with where it is found."""
    return {"id": service.id, "href": resources.href(SERVICE.name, service.id), "name": service.name}


def customers(body: Mapping[str, Any]) -> list[str]:
    """Whom something was sold to: related parties with the role customer, or with none."""
    listed = body.get("relatedParty") or []
    return sorted({party["id"] for party in listed if str(party.get("role", "customer")).lower() == "customer"})


# what the order line asks and writes


async def find(store: Store, tenant: str, id: str) -> Record | None:
    """The active service with this id that an order made, or None: what clients record, orders do not change."""
    record = await parts.found(store, SERVICE, tenant, id)
    return record if record and record.body["state"] == "active" and "present" in record.facts else None


def present(record: Record) -> Present:
    return _present(record.facts)


def _present(facts: Body) -> Present:
    kept = facts["present"]
    return Present(kept["offering"], kept["given"], tuple(Wanted(**wanted) for wanted in kept["wanted"]))


async def keep(resources: Resources, order: Record, item: Body, id: str, name: str, made: Present) -> None:
    """Write what the network confirmed; ``name`` is the offering's. Writing it twice is writing it once."""
    old = await parts.found(resources.store, SERVICE, order.tenant, id)
    if old is None:
        await parts.stand(resources, order.tenant, id, made.wanted, ())
        await _create(resources, order, item, id, name, made)
        return
    if old.body["state"] == "terminated":
        return  # another order has ended it meanwhile: what has ended does not begin again
    before = present(old)
    await parts.stand(resources, order.tenant, id, made.wanted, before.wanted)
    body = _from_order(resources, order.tenant, id, name, made) | _by(resources, old, order.id, item)
    facts = _facts(made)
    if sold_to := customers(order.body):  # a change that names nobody leaves the service to whom it belongs
        facts["customers"], body["relatedParty"] = sold_to, order.body["relatedParty"]
    if before.offering != made.offering:
        body["name"] = name
    await resources.change(SERVICE, old, body, facts)


async def _create(resources: Resources, order: Record, item: Body, id: str, name: str, made: Present) -> None:
    began = now()
    body = {
        "name": name,
        "category": "CFS",
        "hasStarted": True,
        "serviceDate": began,
        "startDate": began,
        "relatedParty": order.body["relatedParty"],
        "serviceOrderItem": [_item(resources, order.id, item["id"], item["action"])],
        **_from_order(resources, order.tenant, id, name, made),
    }
    facts = {"order": order.id, "customers": customers(order.body), **_facts(made)}
    try:
        await resources.create(SERVICE, order.tenant, body, facts, id)
    except Conflict as error:
        raise Stale(f"service {id} was made by somebody else") from error


async def end(resources: Resources, tenant: str, id: str, by: tuple[str, Body] | None = None) -> None:
    """Mark a service terminated: it carries no traffic, and no fault touches it any more.

    ``by`` are the order's id and the item that ended it, None for an order that was taken back.
    """
    record = await parts.found(resources.store, SERVICE, tenant, id)
    if record is None or record.body["state"] != "active":
        return
    await parts.stand(resources, tenant, id, (), present(record).wanted)
    body = {"state": "terminated", "isServiceEnabled": False, "endDate": now(), "supportingResource": []}
    if by:
        body |= _by(resources, record, *by)
    await resources.change(SERVICE, record, body, {"addresses": [], "standing": None})


async def restore(resources: Resources, tenant: str, id: str, body: Body, facts: Body) -> None:
    """Bring a service to where it was before an order that was cancelled. Twice is once.

    What clients said of it meanwhile stays.
    """
    record = await resources.store.get(SERVICE.name, tenant, id)
    if "serviceSpecification" not in body:
        body, facts = _completed(resources, tenant, id, body, facts)
    former = _present(facts)
    standing = present(record).wanted if record.body["state"] == "active" else ()
    await parts.stand(resources, tenant, id, former.wanted, standing)
    ours = {*FROM_ORDERS} | ({"name"} if former.offering != present(record).offering else set())
    whole = {name: value for name, value in record.body.items() if name not in ours}
    whole |= {name: value for name, value in body.items() if name in ours}
    known = {**dict.fromkeys(record.facts.keys() - facts.keys()), **facts}
    await resources.change(_TAKEN_BACK, record, whole, known, whole=True)


def _from_order(resources: Resources, tenant: str, id: str, name: str, made: Present) -> dict[str, Any]:
    """The members that follow from what was ordered and is there."""
    return {
        "state": "active",
        "isServiceEnabled": True,
        "serviceType": made.offering,
        "serviceSpecification": {"id": made.offering, "name": name, "@referredType": "ServiceSpecification"},
        "serviceCharacteristic": [{"name": key, "value": value} for key, value in made.given.items()],
        "supportingResource": parts.supporting(resources, tenant, id, made.wanted),
    }


def _facts(made: Present) -> dict[str, Any]:
    return {
        "addresses": [str(ip_address(wanted.address)) for wanted in made.wanted if wanted.address],
        "present": {**asdict(made), "wanted": [asdict(wanted) for wanted in made.wanted]},
        "standing": True,
    }


def _by(resources: Resources, service: Record, order: str, item: Body) -> dict[str, Any]:
    """The items that made and changed a service, this one among them."""
    listed = service.body.get("serviceOrderItem") or []
    this = _item(resources, order, item["id"], item["action"])
    return {"serviceOrderItem": listed if this in listed else [*listed, this]}


def _item(resources: Resources, order: str, item: str, action: str) -> dict[str, str]:
    return {
        "itemId": item,
        "itemAction": action,
        "serviceOrderId": order,
        "serviceOrderHref": resources.href(PRODUCT_ORDER.name, order),
        "@referredType": PRODUCT_ORDER.schema,
    }


async def adopt(resources: Resources) -> None:
    """Complete the services of the version that kept them for itself alone, before anybody asks for them here."""
    for record in await resources.store.find(SERVICE.name, {"facts.objects": {"$exists": True}}):
        body, facts = _completed(resources, record.tenant, record.id, record.body, record.facts)
        with suppress(Stale):  # another worker, which is about the same
            if body["state"] == "active":
                await parts.stand(resources, record.tenant, record.id, present(record).wanted, ())
            # nothing has happened to the service, so nobody is told
            await resources.store.replace(replace(record, body=body, facts=facts))


def _completed(resources: Resources, tenant: str, id: str, body: Body, facts: Body) -> tuple[Body, Body]:
    made, order = _present(facts), facts["order"]
    whole = {"category": "CFS", "hasStarted": True, **_from_order(resources, tenant, id, body["name"], made), **body}
    whole["serviceOrderItem"] = [_item(resources, order, id.removeprefix(f"{order}-"), "add")]
    known = {name: value for name, value in facts.items() if name != "objects"}
    if body["state"] == "active":
        return whole, {**known, "standing": True}
    return {**whole, "isServiceEnabled": False, "supportingResource": []}, known


# what the other lines ask


async def on(store: Store, tenant: str, device: str, object: str) -> list[Service]:
    """The active services that stand on a part of a device, or on the device as a whole when the part is empty."""
    part = parts.id_of(tenant, parts.place(device, object))
    found = await store.find(SERVICE.name, {"tenant": tenant, "body.supportingResource.id": part})
    return [_service(record) for record in found if record.body["state"] == "active"]


async def standing(store: Store, tenant: str, ids: Sequence[str]) -> dict[str, list[Service]]:
    """part -> the active services that stand on it, for those of these parts on which any does."""
    found: dict[str, dict[str, Service]] = {}
    wanted = set(ids)
    for record in await find_any(store, SERVICE.name, {"tenant": tenant}, "body.supportingResource.id", sorted(wanted)):
        for part in record.body["supportingResource"] if record.body["state"] == "active" else ():
            if part.get("id") in wanted:
                found.setdefault(part["id"], {})[record.id] = _service(record)
    return {part: [services[id] for id in sorted(services)] for part, services in found.items()}


async def at(store: Store, tenant: str, addresses: Iterable[str]) -> dict[str, Service]:
    """address -> the service that has it, for those that are known."""
    wanted = sorted(set(addresses))
    found = await store.find(SERVICE.name, {"tenant": tenant, "facts.addresses": {"$in": wanted}})
    return {address: _service(record) for record in found for address in record.facts["addresses"] if address in wanted}


async def places(store: Store, tenant: str, id: str) -> list[str]:
    """The parts of the network on which an active service stands that an order made."""
    record = await find(store, tenant, id)
    return [parts.place(one.device, one.object) for one in present(record).wanted] if record else []


async def ended(store: Store, tenant: str, ids: Sequence[str]) -> dict[str, str]:
    """When those of these services have ended that have; of one that was deleted, now."""
    found = await find_any(store, SERVICE.name, {}, "id", ids)
    there = {record.id: record for record in found if record.tenant == tenant}
    over = [id for id in ids if id not in there or there[id].body["state"] == "terminated"]
    return {id: (there[id].body.get("endDate") if id in there else None) or now() for id in over}


async def named(store: Store, tenant: str, ids: list[str]) -> list[Service]:
    """The services with these ids, whatever became of them since."""
    if not ids:
        return []
    found = await store.find(SERVICE.name, {"id": {"$in": ids}})
    return [_service(record) for record in found if record.tenant == tenant]
