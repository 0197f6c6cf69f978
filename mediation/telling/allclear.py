"""Who says that a service works again, where several cases of one customer owe that: the first to claim it, for all.

A claim is one record for each customer and service. It names the case that pays and the debts that are paid by it, so
whoever finds its own among them says nothing. Of two that claim at the same time the store lets one be the first. A
claim that was paid binds nobody who was told of the service after that: that is another debt. While the one that pays
still owes, those who come later join it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from uuid import NAMESPACE_URL, uuid5

from convergedon.core.errors import Conflict, NotFound, Stale, Unavailable
from convergedon.core.store import Record
from convergedon.handlers.customer_notifications import TELLING
from convergedon.mediation.telling.keeping import clock
from convergedon.mediation.work import Work

TRIES = 10
"""Times that somebody else may have been first before it is left for later."""

Debts = Mapping[str, int]
"""The case that owes an all-clear -> the name of its debt."""


async def claim(work: Work, case: Record, service: str, debts: Debts) -> bool:
    """Whether it is for this case to say that a service works again, for all of these debts, its own among them.

    Raises Unavailable when others are always first.
    """
    for _ in range(TRIES):
        with suppress(Conflict, Stale):  # somebody else was first: look again
            return await _claimed(work, case, service, debts)
    raise Unavailable(f"the all-clear of {service} is claimed by too many at once")


async def _claimed(work: Work, case: Record, service: str, debts: Debts) -> bool:
    """Raises Conflict or Stale when somebody else was first."""
    known = await _known(work, case, service)
    if known is None:
        facts = {"customer": case.facts["customer"], "by": case.id, "debts": {**debts}, "over": clock(work)}
        await work.store.create(Record(TELLING.name, _id(case, service), case.tenant, {}, facts))
        return True
    payer, paid = str(known.facts["by"]), known.facts["debts"]
    if paid.get(case.id) == debts[case.id]:
        return payer == case.id
    if payer != case.id and await _still_owes(work, case.tenant, payer, service, paid[payer]):
        await work.store.replace(known.with_(facts={"debts": {**paid, **debts}, "over": clock(work)}))
        return False
    await work.store.replace(known.with_(facts={"by": case.id, "debts": {**debts}, "over": clock(work)}))
    return True


async def is_paid(work: Work, payer: Record, other: Record, service: str, debt: int) -> bool:
    """Whether the all-clear that this case has told was told for that debt of the other one, too."""
    known = await _known(work, payer, service)
    return known is not None and known.facts["by"] == payer.id and known.facts["debts"].get(other.id) == debt


async def _still_owes(work: Work, tenant: str, payer: str, service: str, debt: int) -> bool:
    with suppress(NotFound):
        facts = (await work.store.get(TELLING.name, tenant, payer)).facts
        return service in facts["believed"] and facts.get("debts", {}).get(service, 0) == debt
    return False


async def _known(work: Work, case: Record, service: str) -> Record | None:
    with suppress(NotFound):
        return await work.store.get(TELLING.name, case.tenant, _id(case, service))
    return None


def _id(case: Record, service: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"all-clear|{case.tenant}|{case.facts['customer']}|{service}"))
