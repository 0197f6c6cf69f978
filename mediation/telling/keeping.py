"""For how long it is kept what customers know of problems, and what became of letters, once it is over.

What is over bears the time since when it is (``over``). While it is kept it guards against telling a thing twice; what
comes later than that is not told again because it is that old (``is_past``). What still waits, or owes somebody an
all-clear, is not over. Notifications, affectedParty and orders are resources, and are not touched.
"""

from __future__ import annotations

from contextlib import suppress
from time import time

from convergedon.core.errors import NotFound, Stale
from convergedon.core.store import Record
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
