"""Orders and alarms as the gateway keeps them, any number of them: the same number is always the same record.

One record of each kind is made by the gateway's own code; the others are that one with other ids, states, dates and
parties, so their form is the stored form. Three tenants share a collection, one has half of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from convergedon.core.memory import MemoryStore
from convergedon.core.policy import Subject
from convergedon.core.store import Record
from convergedon.handlers import documents
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.apis import APIS, KINDS
from convergedon.handlers.product_ordering import PRODUCT_ORDER, in_state
from convergedon.handlers.resource import Resources
from tests.bench.orders import ORDER

TENANT = "acme"
TENANTS = (TENANT, TENANT, "globex", "initech")
SMALLEST = 1000
TOGETHER = 20
"""How many orders a customer has, and alarms an object, whatever the size of the collection."""
BEGIN, DAYS = datetime(2026, 1, 1, tzinfo=UTC), 365
ORDER_STATES = {
    "completed": 900,
    "failed": 30,
    "cancelled": 30,
    "rejected": 15,
    "partial": 10,
    "inProgress": 8,
    "held": 4,
    "pending": 2,
    "acknowledged": 1,
}
ALARM_STATES = {"cleared": 950, "raised": 40, "updated": 10}
SEVERITIES = {"critical": 5, "major": 25, "minor": 50, "warning": 20}
FAULT = {
    "state": "raised",
    "alarmType": "communicationsAlarm",
    "perceivedSeverity": "major",
    "probableCause": "lossOfSignal",
    "specificProblem": "linkDown",
    "alarmedObject": {"id": "pe1/ge-0/0/1"},
    "alarmedObjectType": "interface",
    "sourceSystemId": "pe1",
    "reportingSystemId": "convergedon-snmp",
    "alarmRaisedTime": "2026-02-20T09:31:04.220Z",
    "alarmDetails": "1.3.6.1.2.1.2.2.1.1.1=1, 1.3.6.1.2.1.2.2.1.7.1=1, 1.3.6.1.2.1.2.2.1.8.1=2; seen 1 time",
    "serviceAffecting": True,
    "affectedService": [],
}


@dataclass(frozen=True)
class Stock:
    """What records are made of."""

    order: Record
    alarm: Record

    def records(self, kind: str, begin: int, end: int) -> Iterator[Record]:
        return (self.record(kind, number) for number in range(begin, end))

    def record(self, kind: str, number: int) -> Record:
        chance = Random(number)
        made = self._order(number, chance) if kind == PRODUCT_ORDER.name else self._alarm(number, chance)
        id = str(UUID(int=chance.getrandbits(128), version=4))
        return replace(made, id=id, tenant=TENANTS[number % len(TENANTS)])

    def _order(self, number: int, chance: Random) -> Record:
        state, (text, moment) = _one_of(ORDER_STATES, chance), _moment(chance)
        party = f"customer-{_group(number, chance)}"
        body = {
            "externalId": f"NW-{number}",
            "orderDate": text,
            "state": state,
            "productOrderItem": in_state(self.order.body, state),
            "relatedParty": [{**self.order.body["relatedParty"][0], "id": party}],
        }
        facts = {"parties": [party], "at": {**self.order.facts["at"], "orderDate": moment}}
        return self.order.with_(body, facts)

    def _alarm(self, number: int, chance: Random) -> Record:
        state, (text, moment) = _one_of(ALARM_STATES, chance), _moment(chance)
        severity = "cleared" if state == "cleared" else _one_of(SEVERITIES, chance)
        place, party = f"pe-{_group(number, chance)}/ge-0/0/1", f"customer-{_group(number, chance)}"
        body = {
            "state": state,
            "perceivedSeverity": severity,
            "alarmedObject": {"id": place},
            "alarmRaisedTime": text,
        }
        at = {**self.alarm.facts["at"], "alarmRaisedTime": moment}
        facts: dict[str, Any] = {"parties": [party], "key": f"{place}|{number}", "at": at}
        if state != "cleared":
            facts["openKey"] = facts["key"]
        return self.alarm.with_(body, facts)

    def words(self, record: Record) -> Mapping[str, str]:
        """What a query may ask that this record answers."""
        body = record.body
        day = datetime.fromisoformat(body.get("orderDate") or body["alarmRaisedTime"]).replace(hour=0, minute=0)
        return {
            "id": record.id,
            "external": body.get("externalId", ""),
            "party": record.facts["parties"][0],
            "object": body.get("alarmedObject", {}).get("id", ""),
            "day": f"{day:%Y-%m-%d}",
            "next": f"{day + timedelta(days=1):%Y-%m-%d}",
        }


async def stock() -> Stock:
    """Have the gateway's own code make an order and an alarm."""
    resources = Resources(MemoryStore(KINDS), APIS, "http://gateway.example")
    owner = {"owner": Subject("acme-csr", TENANT, ("csr",)).document}
    known = {"count": 1, "carrier": {}, "touches": {}, "epoch": 1, "sequence": 1}
    order = await resources.create(PRODUCT_ORDER, TENANT, ORDER, owner)
    alarm = await resources.create(ALARM, TENANT, FAULT, known)
    return Stock(replace(order, unsent=()), replace(alarm, unsent=()))


def _one_of(weighted: Mapping[str, int], chance: Random) -> str:
    return chance.choices(list(weighted), list(weighted.values()))[0]


def _moment(chance: Random) -> tuple[str, int]:
    moment = BEGIN + timedelta(milliseconds=chance.randrange(DAYS * 86_400_000))
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return text, documents.instant(text)


def _group(number: int, chance: Random) -> int:
    """Whom a record concerns: chosen among as many as its size of collection has, so that groups stay as large."""
    begin = 0 if number < SMALLEST else 10 ** (len(str(number)) - 1)
    return chance.randrange(begin, max(10 * begin, SMALLEST)) // TOGETHER
