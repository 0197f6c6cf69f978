"""Which service stands on which part of the network, and whose it is: written by the order line, read by the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Any

from convergedon.core.errors import Conflict, NotFound
from convergedon.core.store import Kind, Record, Store
from convergedon.mediation.planning import Present, Wanted

SERVICE = Kind("service", ("facts.objects", "facts.addresses", "facts.order", "facts.parties"))


@dataclass(frozen=True)
class Service:
    """A service as the lines need it. ``customers`` are the ids of the parties it was sold to."""

    id: str
    tenant: str
    name: str
    order: str
    customers: tuple[str, ...]


def _service(record: Record) -> Service:
    facts = record.facts
    return Service(record.id, record.tenant, record.body["name"], facts["order"], tuple(facts["customers"]))


def customers(body: Mapping[str, Any]) -> list[str]:
    """Whom something was sold to: related parties with the role customer, or with none."""
    listed = body.get("relatedParty") or []
    return sorted({party["id"] for party in listed if str(party.get("role", "customer")).lower() == "customer"})


async def find(store: Store, tenant: str, id: str) -> Record | None:
    """The active service with this id, or None."""
    try:
        record = await store.get(SERVICE.name, tenant, id)
    except NotFound:
        return None
    return record if record.body["state"] == "active" else None


def present(record: Record) -> Present:
    kept = record.facts["present"]
    return Present(kept["offering"], kept["given"], tuple(Wanted(**wanted) for wanted in kept["wanted"]))


async def keep(store: Store, order: Record, id: str, name: str, now: Present) -> None:
    """Write what the network confirmed. Writing it twice is writing it once."""
    body = {
        "name": name,
        "state": "active",
        "serviceCharacteristic": [{"name": key, "value": value} for key, value in now.given.items()],
        "relatedParty": order.body["relatedParty"],
    }
    facts = {
        "order": order.id,
        "parties": order.facts["parties"],
        "customers": customers(order.body),
        "objects": [f"{w.device}/{w.object}" for w in now.wanted] + [w.device for w in now.wanted],
        "addresses": [str(ip_address(w.address)) for w in now.wanted if w.address],
        "present": {**asdict(now), "wanted": [asdict(wanted) for wanted in now.wanted]},
    }
    fresh = Record(SERVICE.name, id, order.tenant, body, facts)
    try:
        await store.create(fresh)
    except Conflict:
        old = await store.get(SERVICE.name, order.tenant, id)
        kept = {**facts, "order": old.facts["order"]}
        if not kept["customers"]:  # a change that names nobody leaves the service to whom it belongs
            kept |= {"customers": old.facts["customers"], "parties": old.facts["parties"]}
            body["relatedParty"] = old.body["relatedParty"]
        if (old.body, old.facts) != (body, kept):
            await store.replace(Record(SERVICE.name, id, order.tenant, body, kept, old.revision, old.unsent))


async def end(store: Store, tenant: str, id: str) -> None:
    """Mark a service terminated: it carries no traffic, and no fault touches it any more."""
    record = await store.get(SERVICE.name, tenant, id)
    if record.body["state"] == "active":
        facts = {**record.facts, "objects": [], "addresses": []}
        await store.replace(record.with_({"state": "terminated"}, facts))


async def restore(store: Store, tenant: str, id: str, body: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write a service as it was before an order that was cancelled. Twice is once."""
    record = await store.get(SERVICE.name, tenant, id)
    if (record.body, record.facts) != (body, facts):
        await store.replace(Record(SERVICE.name, id, tenant, body, facts, record.revision, record.unsent))


async def on(store: Store, tenant: str, device: str, object: str) -> list[Service]:
    """The services that stand on a part of a device, or on the device as a whole when the part is empty."""
    place = f"{device}/{object}" if object else device
    return [_service(record) for record in await store.find(SERVICE.name, {"tenant": tenant, "facts.objects": place})]


async def at(store: Store, tenant: str, addresses: Iterable[str]) -> dict[str, Service]:
    """address -> the service that has it, for those that are known."""
    wanted = sorted(set(addresses))
    found = await store.find(SERVICE.name, {"tenant": tenant, "facts.addresses": {"$in": wanted}})
    return {address: _service(record) for record in found for address in record.facts["addresses"] if address in wanted}


async def named(store: Store, tenant: str, ids: list[str]) -> list[Service]:
    """The services with these ids, whatever became of them since."""
    if not ids:
        return []
    found = await store.find(SERVICE.name, {"id": {"$in": ids}})
    return [_service(record) for record in found if record.tenant == tenant]
