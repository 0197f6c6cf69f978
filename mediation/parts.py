"""The parts of the network that services stand on, as TMF639 has them: devices, interfaces, what is configured there.

Their ids follow from what they are, so that whoever knows a device and an interface knows where they are recorded.
They are written before the service that refers to them; each finds itself done when it is done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from convergedon.core.errors import Conflict, NotFound
from convergedon.core.store import Record, Store
from convergedon.handlers.resource import Body, Resource, Resources, now
from convergedon.handlers.resource_inventory import LOGICAL_RESOURCE, PHYSICAL_RESOURCE
from convergedon.handlers.service_inventory import SERVICE
from convergedon.mediation.planning import Wanted

IN_USE = {
    "administrativeState": "unlocked",
    "operationalState": "enable",
    "usageState": "active",
    "resourceStatus": "available",
}
OUT_OF_USE = {
    "administrativeState": "locked",
    "operationalState": "disable",
    "usageState": "idle",
    "resourceStatus": "suspended",
}
Part = tuple[Resource, str, str]
"""What it is recorded as, its id and its name."""


def id_of(tenant: str, *place: str) -> str:
    return str(uuid5(NAMESPACE_URL, "|".join((tenant, *place))))


def place(device: str, object: str) -> str:
    """The name of a part of a device, or of the device as a whole."""
    return f"{device}/{object}" if object else device


def _device(tenant: str, wanted: Wanted) -> Part:
    return PHYSICAL_RESOURCE, id_of(tenant, wanted.device), wanted.device


def _at(tenant: str, wanted: Wanted) -> Part:
    """Where something is configured: on an interface, or on the device as a whole."""
    name = place(wanted.device, wanted.object)
    return (LOGICAL_RESOURCE, id_of(tenant, name), name) if wanted.object else _device(tenant, wanted)


def _own(tenant: str, service: str, wanted: Wanted) -> Part:
    """What is configured for one service alone."""
    name = f"{wanted.service} of {service} on {place(wanted.device, wanted.object)}"
    return LOGICAL_RESOURCE, id_of(tenant, service, *wanted.place), name


def supporting(resources: Resources, tenant: str, service: str, wanted: Iterable[Wanted]) -> list[dict[str, str]]:
    """References to what a service stands on: what is configured for it, on which interfaces, on which devices."""
    parts = {
        part[1]: part for one in wanted for part in (_own(tenant, service, one), _at(tenant, one), _device(tenant, one))
    }
    return [
        {**_reference(resources, part), "name": part[2], "@referredType": part[0].schema} for part in parts.values()
    ]


def _reference(resources: Resources, part: Part) -> dict[str, str]:
    resource, id, _ = part
    return {"id": id, "href": resources.href(resource.name, id)}


async def found(store: Store, resource: Resource, tenant: str, id: str) -> Record | None:
    try:
        return await store.get(resource.name, tenant, id)
    except NotFound:
        return None


async def stand(
    resources: Resources, tenant: str, service: str, made: Sequence[Wanted], before: Sequence[Wanted]
) -> None:
    """Record what a service has on the network now, and that what it had before is out of use."""
    for wanted in made:
        if wanted not in before:
            await _open(resources, tenant, wanted)
            await _use(resources, tenant, service, wanted)
    kept = {wanted.place for wanted in made}
    for wanted in before:
        if wanted.place not in kept:
            await _leave(resources, tenant, service, wanted)
    shared = {part[1] for part in _shared(tenant, made)}
    for part in _shared(tenant, before):
        if part[1] not in shared:
            await _vacate(resources, tenant, service, part)


def _shared(tenant: str, wanted: Iterable[Wanted]) -> Iterator[Part]:
    """Interfaces and devices: other services may stand on them too."""
    return iter({part[1]: part for one in wanted for part in (_at(tenant, one), _device(tenant, one))}.values())


async def _open(resources: Resources, tenant: str, wanted: Wanted) -> None:
    """A device and its interface are recorded once; from then on those who look after them describe them."""
    device = _device(tenant, wanted)
    await _once(resources, tenant, device, {"category": "device"})
    if wanted.object:
        on = {**_reference(resources, device), "relationshipType": "partOf"}
        about = {"category": "interface", "value": wanted.object, "resourceRelationship": [on]}
        await _once(resources, tenant, _at(tenant, wanted), about)


async def _once(resources: Resources, tenant: str, part: Part, about: Body) -> None:
    resource, id, name = part
    record = await found(resources.store, resource, tenant, id)
    if record is None:
        body = {"name": name, **about, **IN_USE, "startOperatingDate": now()}
        with suppress(Conflict):  # somebody else was first, with the same
            await resources.create(resource, tenant, body, {"standing": True}, id)
    elif not record.facts.get("standing"):
        await resources.change(resource, record, {"usageState": "active"}, {"standing": True})


async def _vacate(resources: Resources, tenant: str, service: str, part: Part) -> None:
    """What no service stands on any more is idle, and its record may be deleted."""
    resource, id, _ = part
    others = await resources.store.find(SERVICE.name, {"tenant": tenant, "body.supportingResource.id": id})
    record = await found(resources.store, resource, tenant, id)
    if record and not any(one.id != service and one.body["state"] == "active" for one in others):
        await resources.change(resource, record, {"usageState": "idle"}, {"standing": None})


async def _use(resources: Resources, tenant: str, service: str, wanted: Wanted) -> None:
    """What is configured for a service, as it is there now."""
    _, id, name = _own(tenant, service, wanted)
    values = {**(wanted.values or {}), **({"address": wanted.address} if wanted.address else {})}
    on = {**_reference(resources, _at(tenant, wanted)), "relationshipType": "configuredOn"}
    body: dict[str, Any] = {
        "name": name,
        "category": wanted.service,
        "resourceCharacteristic": [{"name": name, "value": value} for name, value in values.items()],
        "resourceRelationship": [on],
        **IN_USE,
    }
    record = await found(resources.store, LOGICAL_RESOURCE, tenant, id)
    if record is None:
        with suppress(Conflict):
            whole = {**body, "startOperatingDate": now()}
            await resources.create(LOGICAL_RESOURCE, tenant, whole, {"standing": True}, id)
        return
    kept = {name: value for name, value in record.body.items() if name != "endOperatingDate"}
    await resources.change(LOGICAL_RESOURCE, record, {**kept, **body}, {"standing": True}, whole=True)


async def _leave(resources: Resources, tenant: str, service: str, wanted: Wanted) -> None:
    record = await found(resources.store, LOGICAL_RESOURCE, tenant, _own(tenant, service, wanted)[1])
    if record and record.facts.get("standing"):
        body = {**OUT_OF_USE, "endOperatingDate": now()}
        await resources.change(LOGICAL_RESOURCE, record, body, {"standing": None})
