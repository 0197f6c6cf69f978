"""What an operator's page shows, read from store and bus: only the operator's tenant, only what policy lets it see.

Lists are bounded. The embedded store reads every match before it sorts, so the newest are looked for in short spans of
time first, and one question serves all figures; a MongoDB answers each of these from an index.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Any

from convergedon.core import audit
from convergedon.core.bus import Bus, Parked
from convergedon.core.errors import Forbidden, NotFound
from convergedon.core.persons import Persons
from convergedon.core.policy import Subject
from convergedon.core.store import Record, Store
from convergedon.handlers import figures, kpis
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.apis import APIS
from convergedon.handlers.console.door import Door
from convergedon.handlers.console.searching import Search
from convergedon.handlers.customer_bills import APPLIED_CUSTOMER_BILLING_RATE, CUSTOMER_BILL
from convergedon.handlers.customer_notifications import CUSTOMER_NOTIFICATION
from convergedon.handlers.figures import Definition, Entry, Figure
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.handlers.remediation import WORKFLOW_APPROVAL, WORKFLOW_CONTROL, WORKFLOW_RUN
from convergedon.handlers.surveys import SURVEY_ANSWER
from convergedon.handlers.usage import USAGE

LATEST = 50
LOOKED_AT = 250
"""Parked messages, of all tenants, among which the operator's are looked for."""
MOST = 10_000
"""Audit records that the figures are computed from at most."""
SPANS = (3600.0, None)
NEWEST = (("facts.at.time", -1), ("id", -1))
KINDS: Mapping[str, str] = {resource.name: resource.schema for api in APIS for resource in api.resources}

PARTS: Mapping[str, tuple[str, ...]] = {
    PRODUCT_ORDER.name: ("orders", "figures"),
    ALARM.name: ("alarms", "figures"),
    CUSTOMER_NOTIFICATION.name: ("alarms", "figures"),
    USAGE.name: ("usage",),
    SURVEY_ANSWER.name: ("figures",),
    CUSTOMER_BILL.name: ("bills",),
    WORKFLOW_RUN.name: ("repairs",),
    WORKFLOW_APPROVAL.name: ("repairs",),
    WORKFLOW_CONTROL.name: ("repairs",),
}
"""Which parts of the page change with which resource."""


@dataclass(frozen=True)
class Part:
    """One part of the page: its rows, or the sentence why there are none to be seen."""

    rows: Sequence[Any] = ()
    hidden: str = ""
    earlier: int = 0
    """Others, of any tenant, that were not looked at."""


@dataclass(frozen=True)
class Alarm:
    record: Record
    told: Sequence[Record]


@dataclass(frozen=True)
class Detail:
    """A record with everything that belongs to it: ``entries`` of its trace, ``others`` on it from other traces."""

    record: Record
    entries: Sequence[Entry]
    others: Sequence[Entry]
    told: Sequence[Record] = ()
    lines: Sequence[Record] = ()


@dataclass(frozen=True)
class Desk:
    """The view of one operator."""

    store: Store
    bus: Bus
    door: Door
    operator: Subject

    async def part(self, name: str) -> Part:
        """Raises NotFound for a part that the page has not, Unavailable when the store does not answer."""
        known: Mapping[str, Callable[[], Awaitable[Part | Sequence[Any]]]] = {
            "figures": self._figures,
            "orders": self._orders,
            "alarms": self._alarms,
            "usage": self._usage,
            "bills": self._bills,
            "parked": self._parked,
        }
        if name not in known:
            raise NotFound(f"the console has no part {name}")
        try:
            found = await known[name]()
            return found if isinstance(found, Part) else Part(found)
        except Forbidden as error:
            return Part(hidden=str(error))

    async def board(self) -> Mapping[str, Part]:
        names = ("figures", "orders", "alarms", "usage", "bills", "parked")
        found = await asyncio.gather(*(self.part(name) for name in names))
        return dict(zip(names, found, strict=True))

    async def _orders(self) -> Sequence[Record]:
        return await self.latest(PRODUCT_ORDER.name, "orderDate")

    async def _alarms(self) -> Sequence[Alarm]:
        """Those that are open, then those that are over, the newest of each first."""
        where, time_ = await self._visible(ALARM.name), [("facts.at.alarmRaisedTime", -1)]
        open_ = {**where, "body.state": {"$in": ["raised", "updated"]}}
        found = await self.store.find(ALARM.name, open_, time_, limit=LATEST)
        if len(found) < LATEST:
            over = {**where, "body.state": "cleared"}
            found += await self.store.find(ALARM.name, over, time_, limit=LATEST - len(found))
        told = await self._told({"body.alarm.id": {"$in": [alarm.id for alarm in found]}})
        return [Alarm(alarm, [said for said in told if said.body["alarm"]["id"] == alarm.id]) for alarm in found]

    async def _usage(self) -> Sequence[Record]:
        return await self.latest(USAGE.name, "usageDate")

    async def _bills(self) -> Sequence[Record]:
        return await self.latest(CUSTOMER_BILL.name, "billDate")

    async def _parked(self) -> Part:
        """The operator's among those that were parked last; further back where others' stand before them."""
        mine: list[Parked] = []
        for most in (LATEST, LOOKED_AT):
            page = await self.bus.parked_last(most)
            mine = [message for message in page.messages if tenant_of(message.body) == self.operator.tenant]
            if len(mine) >= LATEST or not page.earlier:
                break
        hidden = max(0, len(mine) - LATEST)
        return Part(mine[:LATEST], earlier=page.earlier + hidden)

    async def _figures(self) -> Sequence[Figure]:
        entries = await self._counted(*figures.FIGURES)
        found = [figures.compute(definition, entries) for definition in figures.FIGURES]
        try:
            return [*found, await self._opinion()]
        except Forbidden:
            return found

    async def figure(self, definition: Definition) -> Figure:
        """Raises Forbidden."""
        if definition is figures.NPS:
            return await self._opinion()
        return figures.compute(definition, await self._counted(definition))

    async def _opinion(self) -> Figure:
        """What customers say, for those who may read that. Raises Forbidden."""
        await self._visible(SURVEY_ANSWER.name)
        return await kpis.opinion(self.store, self.operator.tenant, figures.OPINION_DAYS)

    async def _counted(self, *definitions: Definition) -> list[Entry]:
        tenant = self.operator.tenant
        return await Persons(self.store).told(tenant, await kpis.counted(self.store, tenant, definitions))

    async def trace(self, trace: str) -> Sequence[Entry]:
        """Everything that left an audit record in one trace, in its order."""
        return (await self._entries({"body.trace": trace}))[::-1] if trace else []

    async def audited(self, asked: Search) -> Part:
        """The newest audit records that a search finds, one more than are shown. Raises Invalid."""
        try:
            decision = await self.door.allowed(self.operator, "list", audit.KIND.name)
        except Forbidden as error:
            return Part(hidden=str(error))
        persons = Persons(self.store)
        wanted = audit.narrowed({**decision.where, **asked.where})
        where = await persons.asked(self.operator.tenant, wanted)
        found: list[Record] = []
        for span in (None,) if asked.narrow or asked.since else SPANS:
            since = {"$and": [where, {"facts.at.time": {"$gte": int((time() - span) * 1_000_000)}}]} if span else where
            found = await self.store.find(audit.KIND.name, since, NEWEST, limit=LATEST + 1)
            if len(found) > LATEST:
                break
        self.door.record(self.operator, "list", audit.KIND.name, "done", decision, count=len(found))
        return Part(await persons.told(self.operator.tenant, [record.body for record in found]))

    async def detail(self, kind: str, id: str) -> Detail:
        """A record as its page shows it. Raises NotFound, for another tenant's too, and Forbidden."""
        if kind not in KINDS:
            raise NotFound(f"the console shows no {kind}")
        decision = await self.door.allowed(self.operator, "retrieve", kind, id)
        record = await self.store.get(kind, self.operator.tenant, id, decision.filter.get("parties"))
        self.door.record(self.operator, "retrieve", f"{kind}/{id}", "done", decision)
        begun = record.facts.get("trace", "")
        traced, on = await asyncio.gather(self.trace(begun), self._entries({"body.on": f"{kind}/{id}"}))
        others = [entry for entry in on if not begun or entry["trace"] != begun]
        return Detail(record, traced, others, await self._told_of(record), await self._lines(record))

    async def _told_of(self, record: Record) -> Sequence[Record]:
        if record.kind == ALARM.name:
            return await self._told({"body.alarm.id": record.id})
        if record.kind == PRODUCT_ORDER.name and record.facts.get("parties"):
            parties = {"$in": list(record.facts["parties"])}  # has an index; productOrder.id has none
            return await self._told({"facts.parties": parties, "body.productOrder.id": record.id})
        return []

    async def _lines(self, record: Record) -> Sequence[Record]:
        if record.kind != CUSTOMER_BILL.name:
            return []
        try:
            visible = await self._visible(APPLIED_CUSTOMER_BILLING_RATE.name)
        except Forbidden:
            return []
        where = {**visible, "body.bill.id": record.id}
        return await self.store.find(APPLIED_CUSTOMER_BILLING_RATE.name, where, limit=MOST)

    async def _told(self, where: Mapping[str, Any]) -> Sequence[Record]:
        """What customers heard, oldest first; nothing for an operator who may not see it."""
        try:
            visible = await self._visible(CUSTOMER_NOTIFICATION.name)
        except Forbidden:
            return []
        found = await self.store.find(CUSTOMER_NOTIFICATION.name, {**visible, **where}, limit=MOST)
        return sorted(found, key=lambda told: str(told.body.get("notificationTime", "")))

    async def _visible(self, kind: str) -> dict[str, Any]:
        """What the operator may see of a kind. Raises Forbidden."""
        return (await self.door.allowed(self.operator, "list", kind)).where

    async def visible(self, kind: str, where: Mapping[str, Any]) -> list[Record]:
        """Those of a kind that are so, as many as are shown. Raises Forbidden."""
        return await self.store.find(kind, {**await self._visible(kind), **where}, limit=LATEST)

    async def latest(self, kind: str, member: str) -> Sequence[Record]:
        """The newest of a kind by one of its times, as many as are shown. Raises Forbidden."""
        where, time_ = await self._visible(kind), f"facts.at.{member}"
        found: list[Record] = []
        for span in SPANS:
            since = {time_: {"$gte": int((time() - span) * 1_000_000)}} if span else {}
            found = await self.store.find(kind, {**where, **since}, [(time_, -1)], limit=LATEST)
            if len(found) == LATEST:
                break
        return found

    async def _entries(self, where: Mapping[str, Any]) -> list[Entry]:
        """Audit records, newest first. They come with the console itself."""
        mine = {"tenant": self.operator.tenant, **where}
        found = await self.store.find(audit.KIND.name, mine, NEWEST, limit=MOST)
        return await Persons(self.store).told(self.operator.tenant, [record.body for record in found])


def tenant_of(body: Any) -> str:
    """The tenant that a message on the bus belongs to; empty when it names none."""
    if not isinstance(body, Mapping):
        return ""
    for part in (body, *(body.get(name) for name in ("about", "observation", "intent"))):
        if isinstance(part, Mapping) and isinstance(part.get("tenant"), str):
            return str(part["tenant"])
    return ""
