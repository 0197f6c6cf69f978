"""For how long it is kept what customers know of problems, and what became of letters, once it is over.

What is over bears the time since when it is (``over``). While it is kept it guards against telling a thing twice; what
comes later than that is not told again because it is that old (``is_past``). What still waits, or owes somebody an
all-clear, is not over. Notifications, affectedParty and orders are resources, and are not touched. What an earlier
build left without that time is given it by what it says itself (``adopt``).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from time import time

from convergedon.core.errors import NotFound, Stale
from convergedon.core.store import Record
from convergedon.handlers.affected_parties import AFFECTED_PARTY
from convergedon.handlers.customer_notifications import DISPATCH, TELLING
from convergedon.mediation import aside
from convergedon.mediation.work import Work

DAY = 86_400
MOST = 500
"""Records of a kind that are looked for, and removed, at once."""


def clock(work: Work) -> float:
    """The time that telling goes by."""
    return work.notifications.clock() if work.notifications else time()


def is_past(work: Work, instant: float) -> bool:
    """Whether what was over by then need not be known any more."""
    return instant < clock(work) - work.settings.telling_days * DAY


async def forget(work: Work) -> None:
    """Remove what has been over for long enough; of several workers that do each removes what is left."""
    where = {"facts.over": {"$lt": clock(work) - work.settings.telling_days * DAY}}

    async def remove(record: Record) -> None:
        with suppress(Stale, NotFound):
            await work.store.delete(record)

    for kind in (TELLING.name, DISPATCH.name):
        while over := await work.store.find(kind, where, limit=MOST):
            await aside.all_of(map(remove, over))
            if len(over) < MOST:
                break


async def adopt(work: Work) -> None:
    """Give what is over and does not say since when the time that it must be; of others nothing changes.

    Each record is looked at once: whoever starts does this, and does it again should it be cut short.
    """

    async def look_at(record: Record) -> None:
        if record.facts.keys().isdisjoint(("over", "due")) and (since := await _over_since(work, record)) is not None:
            with suppress(Stale, NotFound):
                await work.store.replace(replace(record, facts={**record.facts, "over": since}))

    for kind in (TELLING.name, DISPATCH.name):
        last = ""
        while some := await work.store.find(kind, {"id": {"$gt": last}}, sort=[("id", 1)], limit=MOST):
            await aside.all_of(map(look_at, some))
            last = some[-1].id


async def _over_since(work: Work, record: Record) -> float | None:
    """Since when something is over for which no time is set; None for what is not."""
    facts = record.facts
    if record.kind == DISPATCH.name:
        return None if record.body["state"] == "waiting" else float(facts["begun"])
    if facts.get("entries") or facts.get("believed"):
        return None
    if "entries" in facts:
        return clock(work)  # a summary does not say when it was told
    with suppress(NotFound):
        problem = (await work.store.get(AFFECTED_PARTY.name, record.tenant, record.id)).body
        last = datetime.fromisoformat(problem["activity"][-1]["date"]).timestamp()
        return None if problem["status"] == "affected" else last
    return float(facts.get("told", {}).get("at") or facts.get("seen") or clock(work))
