"""What depends on what in the network, as TMF639 has it: read from an operator's file, kept, and read for correlation.

The order line records devices and interfaces by itself; the file adds those that carry no service, the links between
interfaces, and the shared-risk groups (a duct, a power feed). Each is a resource whose relationships lead from what
takes others with it: a link connects interfaces, a group contains links, interfaces, devices and groups; a device may
say that it dependsOn others. The file is the whole of it: what an earlier one added and this one has not is removed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, NamedTuple, get_args

from pydantic import Field, StringConstraints

from convergedon.core import strict
from convergedon.core.errors import Conflict, Misconfigured, NotFound, Stale
from convergedon.core.lease import LEASE, settled
from convergedon.core.store import Draft, Record, Store, find_any
from convergedon.handlers.resource import Resource, Resources, now
from convergedon.handlers.resource_inventory import LOGICAL_RESOURCE, PHYSICAL_RESOURCE, RESOURCE, TOPOLOGY
from convergedon.mediation import parts
from convergedon.mediation.correlation import Kind, Relation, Topology, called, closure, device_of, kind_of
from convergedon.mediation.parts import Part

Name = Annotated[str, StringConstraints(pattern=r"^\S(?:.*\S)?$", max_length=200)]
DeviceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", max_length=200)]
CATEGORIES: Mapping[Kind, str] = {
    "device": "device",
    "interface": "interface",
    "link": "link",
    "group": "sharedRiskGroup",
}
KEPT_AS: Mapping[Kind, Resource] = {
    "device": PHYSICAL_RESOURCE,
    "interface": LOGICAL_RESOURCE,
    "link": LOGICAL_RESOURCE,
    "group": RESOURCE,
}
RELATED: Mapping[Kind, str] = {"device": "dependsOn", "link": "connects", "group": "contains"}
"""How a resource is related to those in its list."""
TOGETHER = 200
"""Parts that are written together."""
SHORTLY = 60.0
"""Seconds after which a process notices what clients recorded of links and groups over REST."""


# the file


class _Device(strict.Strict):
    interfaces: list[Name] = Field(default_factory=list)
    dependsOn: list[Name] = Field(default_factory=list)


class _Link(strict.Strict):
    ends: Annotated[list[Name], Field(min_length=2, max_length=100)]


class _Group(strict.Strict):
    members: Annotated[list[Name], Field(min_length=2, max_length=5000)]


class _File(strict.Strict):
    tenant: DeviceName
    devices: dict[DeviceName, _Device] = Field(default_factory=dict)
    links: dict[Name, _Link] = Field(default_factory=dict)
    groups: dict[Name, _Group] = Field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a file says: the parts by their places, each with what it is related to."""

    tenant: str
    parts: Mapping[str, Sequence[str]]


def read(file: Path) -> Plan:
    """Read a topology file. Raises Misconfigured with the file and the key."""
    given = strict.read(_File, file)
    found: dict[str, list[str]] = {}
    for device, about in given.devices.items():
        found[device] = about.dependsOn
        found |= {f"{device}/{port}": [] for port in about.interfaces}
    for name, link in given.links.items():
        found[f"link {name}"] = link.ends
        for number, end in enumerate(link.ends):
            if not device_of(end) or device_of(end) not in given.devices:
                raise _wrong(
                    file, f"links.{name}.ends.{number}", f"{end} is no interface (device/name) of a device here"
                )
            found.setdefault(end, [])
    for name, group in given.groups.items():
        found[f"group {name}"] = group.members
    for key, part, number, other in _references(given):
        if other not in found:
            raise _wrong(file, f"{key}.{number}", f"there is no {other} in this file")
        if part in closure([other], lambda place: _relations_of(place, found)):
            raise _wrong(file, f"{key}.{number}", f"{called(other)} depends on {called(part)} itself")
    return Plan(given.tenant, found)


def _references(given: _File) -> Iterable[tuple[str, str, int, str]]:
    for device, about in given.devices.items():
        for number, other in enumerate(about.dependsOn):
            yield f"devices.{device}.dependsOn", device, number, other
    for name, group in given.groups.items():
        for number, other in enumerate(group.members):
            yield f"groups.{name}.members", f"group {name}", number, other


def _relations_of(place: str, found: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """What a device depends on, and what is in a group: neither may lead back."""
    return found.get(place, ()) if kind_of(place) in ("device", "group") else ()


def _wrong(file: Path, key: str, words: str) -> Misconfigured:
    return Misconfigured(f"{file}: {key}: {words}")


# keeping it


async def keep(resources: Resources, plan: Plan) -> Mapping[str, int]:
    """Record what a file says; a second time changes nothing. When it returns, every process goes by it.

    What others refer to is recorded before them, as far as it can be. Returns how many parts were added, changed and
    removed, and how many stayed the same.
    """
    done = Counter({"added": 0, "changed": 0, "removed": 0})
    for kind in get_args(Kind):
        places = sorted(place for place in plan.parts if kind_of(place) == kind)
        for begin in range(0, len(places), TOGETHER):
            done.update(await _keep_parts(resources, plan, KEPT_AS[kind], places[begin : begin + TOGETHER]))
    for record in await _imported(resources.store, plan.tenant):
        if place_of(record) not in plan.parts:
            await _remove(resources, record)
            done["removed"] += 1
    await _stamp(resources.store, plan.tenant)
    await settled()
    return done


def part_at(tenant: str, place: str) -> Part:
    """As what a part is recorded."""
    kind = kind_of(place)
    name = place.partition(" ")[2] if kind in ("link", "group") else place
    where = (kind, name) if kind in ("link", "group") else (place,)
    return KEPT_AS[kind], parts.id_of(tenant, *where), name


async def _keep_parts(resources: Resources, plan: Plan, resource: Resource, places: Sequence[str]) -> list[str]:
    """Record parts of one kind. Returns what became of each."""
    ids = [part_at(plan.tenant, place)[1] for place in places]
    found = await find_any(resources.store, resource.name, {}, "id", ids)
    there = {record.id: record for record in found if record.tenant == plan.tenant}
    before = [there.get(id) for id in ids]
    drafts = [_part(resources, plan, place, record) for place, record in zip(places, before, strict=True)]
    for draft, outcome in zip(filter(None, drafts), await resources.write([one for one in drafts if one]), strict=True):
        if isinstance(outcome, Conflict | Stale) and draft.record.revision:
            raise outcome  # of a new one: an order was first
    return [_became(record, draft) for record, draft in zip(before, drafts, strict=True)]


def _became(before: Record | None, draft: Draft | None) -> str:
    if before is None:
        return "added"
    return "changed" if draft and draft.record.body != before.body else "same"


def _part(resources: Resources, plan: Plan, place: str, record: Record | None) -> Draft | None:
    """What is to be written of a part, which may be there; None when it is all so."""
    resource, id, name = part_at(plan.tenant, place)
    kind = kind_of(place)
    related = [(RELATED[kind], other) for other in plan.parts[place]]
    if device := device_of(place):
        related.append(("partOf", device))
    ours = {relation for relation, _ in related} | {RELATED.get(kind, "partOf")}
    said = [_related(resources, plan.tenant, relation, other) for relation, other in related]
    if record is None:
        body: dict[str, Any] = {"name": name, "category": CATEGORIES[kind], **parts.IN_USE, "startOperatingDate": now()}
        body |= {"usageState": "idle"} if kind in ("device", "interface") else {}
        body |= {"value": place.partition("/")[2]} if device else {}
        body |= {"resourceRelationship": said} if said else {}
        return resources.new(resource, plan.tenant, body, {"imported": True}, id)
    others = [one for one in record.body.get("resourceRelationship", []) if one.get("relationshipType") not in ours]
    fresh = [*others, *said]
    change = {"resourceRelationship": fresh} if fresh != record.body.get("resourceRelationship", []) else {}
    return resources.changed(resource, record, change, {"imported": True})


def _related(resources: Resources, tenant: str, relation: str, place: str) -> dict[str, str]:
    resource, id, _ = part_at(tenant, place)
    return {"id": id, "href": resources.href(resource.name, id), "relationshipType": relation}


async def _imported(store: Store, tenant: str) -> list[Record]:
    found = [
        await store.find(resource.name, {"tenant": tenant, "facts.imported": True})
        for resource in (RESOURCE, LOGICAL_RESOURCE, PHYSICAL_RESOURCE)
    ]
    return [record for records in found for record in records]


async def _remove(resources: Resources, record: Record) -> None:
    """What orders stand on stays, without what the file said of it."""
    resource = next(one for one in KEPT_AS.values() if one.name == record.kind)
    if not record.facts.get("standing"):
        await resources.delete(resource, record)
        return
    left = [one for one in record.body.get("resourceRelationship", []) if one.get("relationshipType") == "partOf"]
    await resources.change(resource, record, {"resourceRelationship": left}, {"imported": None})


async def _stamp(store: Store, tenant: str) -> None:
    """Let every process know that the topology is another."""
    try:
        record = await store.get(TOPOLOGY.name, tenant, tenant)
    except NotFound:
        with suppress(Conflict):  # somebody else was first, with the same
            await store.create(Record(TOPOLOGY.name, tenant, tenant, {}))
            return
        record = await store.get(TOPOLOGY.name, tenant, tenant)
    await store.replace(record)


# reading it


def place_of(record: Record) -> str:
    """The place of a part as correlation has it."""
    name, category = str(record.body.get("name", "")), record.body.get("category")
    return {"link": f"link {name}", "sharedRiskGroup": f"group {name}"}.get(str(category), name)


class _Reading(NamedTuple):
    """A topology with its revision, when it was read, and when it was last seen to be of that revision."""

    topology: Topology
    revision: int
    read: float
    seen: float


@dataclass
class Topologies:
    """The topologies of the tenants, as they were at most ``LEASE`` seconds ago; read anew when they have changed, by
    one for all.
    """

    _known: dict[str, _Reading] = field(default_factory=dict)
    _turns: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def of(self, store: Store, tenant: str) -> Topology:
        async with self._turns[tenant]:
            known = self._known.get(tenant)
            if known is None or monotonic() - known.seen > LEASE:
                known = self._known[tenant] = await self._seen(store, tenant, known)
            return known.topology

    async def _seen(self, store: Store, tenant: str, known: _Reading | None) -> _Reading:
        begun = monotonic()
        revision = await _revision(store, tenant)
        if known and known.revision == revision and begun - known.read < SHORTLY:
            return known._replace(seen=begun)
        return _Reading(Topology(await relations(store, tenant)), revision, begun, begun)


async def _revision(store: Store, tenant: str) -> int:
    try:
        return (await store.get(TOPOLOGY.name, tenant, tenant)).revision
    except NotFound:
        return 0


async def relations(store: Store, tenant: str) -> list[Relation]:
    """What the records of links, groups and devices say."""
    holders = [
        record
        for kind in RELATED
        for record in await store.find(KEPT_AS[kind].name, {"tenant": tenant, "body.category": CATEGORIES[kind]})
    ]
    named = [(record, one) for record in holders for one in record.body.get("resourceRelationship", [])]
    named = [(record, one) for record, one in named if one.get("relationshipType") in RELATED.values()]
    places = await _places(store, tenant, {str(one.get("id")) for _, one in named})
    return [
        Relation(one["relationshipType"], place_of(record), places[one["id"]])
        for record, one in named
        if one.get("id") in places
    ]


async def _places(store: Store, tenant: str, ids: set[str]) -> dict[str, str]:
    """id -> place, for the parts that are there."""
    found: dict[str, str] = {}
    for resource in (LOGICAL_RESOURCE, PHYSICAL_RESOURCE, RESOURCE):
        some = await find_any(store, resource.name, {}, "id", sorted(ids - found.keys()))
        found |= {record.id: place_of(record) for record in some if record.tenant == tenant}
    return found
