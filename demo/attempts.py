"""What a campaign tries: violations of every class on every path where they can occur, and what everybody may do.

This is the table; how each is played stands in plays.py. ``data`` is laid over the policies' data, so that the lab
could carry out what the policies forbid.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from time import time
from typing import Any

from convergedon.demo import plays
from convergedon.demo.plays import CSR, NOC, NORTHWIND, OPEN, PATCHES, PLAIN, THEIR_CSR, THEIR_NOC, V4, V5, Lie, Wish
from convergedon.demo.tally import LEGITIMATE
from convergedon.demo.witness import Deed, Forge, Scene, Who
from convergedon.handlers import alarms, product_ordering, product_ordering_v5
from convergedon.handlers.resource import Api

TENANTS = "cross-tenant access"
ENTITLEMENT = "over-entitlement"
WINDOW = "outside its window"
SPEND = "spend cap"
REMEDIATION = "remediation not approved"
GEOGRAPHY = "forbidden geography"
PERSONAL = "personal data in a notification"
ROLES = "stale or missing role"
CLASSES = (TENANTS, ENTITLEMENT, WINDOW, SPEND, REMEDIATION, GEOGRAPHY, PERSONAL, ROLES)

CREATE, READ, TASK, HUB = "REST create", "REST read", "task with a pattern", "hub"
DELIVERY, FLOW, INTENT, CONSOLE = "delivery", "flow step", "intent on the bus", "console"
FORGED = "forged intent on the bus"

MONTH = 30 * 86_400
SELF_HEALING = "bounce-port"
"""A remediation that needs no approval."""

READER = Who("acme-reader", "acme", ("reader",))
NOBODY = Who("acme-nobody", "acme", ())
PRETENDER = Who("acme-pretender", "acme", ("system", "root"))
FORMER = Who("acme-former", "acme", ("formerCsr", "formerNoc"))
"""Somebody whose roles were known when a listener, a task or an order was taken, and are no more."""
DISMISSED = Who("acme-dismissed", "acme", ("csr", "noc"))
"""Somebody whose roles were withdrawn."""
STALE = Who("acme-stale", "acme", ("csr", "noc"), age=2 * MONTH)
"""Somebody whose roles were given too long ago."""
GONE = {"whose role is gone": FORMER, "who was dismissed": DISMISSED, "whose roles are too old": STALE}

ALL_PRIVATE = f"event.productOrder.category={plays.PRIVATE}"
LISTENERS: Mapping[str, tuple[Api, Who, str]] = {
    "acme-listens": (alarms.API, NOC, ""),
    "globex-listens": (alarms.API, THEIR_NOC, ""),
    **{f"{who.name}-listens": (alarms.API, who, "") for who in GONE.values()},
    "reader-listens": (product_ordering.API, READER, ALL_PRIVATE),
    "reader-listens-5": (product_ordering_v5.API, READER, ALL_PRIVATE),
    "csr-listens": (product_ordering.API, CSR, ALL_PRIVATE),
}
"""Who hears of what from the beginning."""

REFUSED, HIDDEN = (403,), (404,)
NO_DOOR = "in an order that no door saw"


def data() -> Mapping[str, Any]:
    """What the policies know in a campaign. Contracts are below what the lab's ports can carry (1000 Mbit/s)."""
    far = datetime.now(UTC) + timedelta(days=3)
    window = {"days": [far.strftime("%A").lower()], "from": [3, 0], "to": [4, 0]}
    countries = {OPEN["acme"]: "DE", plays.CLOSED: "DE", plays.FORBIDDEN: "FR"}
    return {
        "contracts": {
            "acme": {"bandwidth": 500, "quantity": 5, "monthly": 1000},
            "globex": {"bandwidth": 400, "quantity": 5, "monthly": 1000},
        },
        "windows": {"acme": {plays.CLOSED: [window]}},
        "geography": {
            "countries": {"acme": countries},
            "devices": {"pe1": "FR", "pe2": "DE", "pe3": "DE"},
            "served": {"acme": {"countries": ["DE"]}},
        },
        "withdrawn": {"subjects": {"acme": {DISMISSED.name: time() + MONTH}}},
        "longest": {"*": MONTH},
        "remediation": {"automatic": {"acme": [SELF_HEALING]}},
    }


@dataclass(frozen=True)
class Attempt:
    """``codes`` are what it may be answered while somebody can decide."""

    violates: str
    path: str
    words: str
    play: Callable[[Deed], AsyncIterator[bool | None]]
    codes: tuple[int, ...] = ()


async def prepare(scene: Scene) -> None:
    """What many attempts share."""
    await asyncio.gather(*(scene.subscribe(api, who, name, query) for name, (api, who, query) in LISTENERS.items()))


TAKEN_BACK = Lie("what is taken back at any hour", lambda: {"purpose": "undo"}, Wish("", site=plays.CLOSED))
LATE = Lie("one of a worker's that comes again after its deadline", lambda: {"deadline": time() - 1})


def _legitimate() -> list[Attempt]:
    patches = [
        Attempt(LEGITIMATE, kind, "one's own order is changed", partial(plays.own_order_changed, kind), (200,))
        for kind in PATCHES
    ]
    heard = partial(plays.listened, NOC, "acme")
    person = partial(plays.person_told, "csr-listens", True)
    approved = partial(plays.intended, PLAIN, partial(_remediation, approval=_approved))
    healing = partial(plays.intended, PLAIN, partial(_remediation, workflow=SELF_HEALING))
    return [
        Attempt(LEGITIMATE, CREATE, "an order within the contract", partial(plays.delivered, V4), (201,)),
        Attempt(LEGITIMATE, CREATE, "an order of version 5", partial(plays.delivered, V5), (201,)),
        Attempt(LEGITIMATE, FLOW, "an order on the bus", partial(plays.taken_up, PLAIN)),
        *patches,
        Attempt(LEGITIMATE, READ, "one's own order is read", plays.own_order_read, (200,)),
        Attempt(LEGITIMATE, TASK, "one's own alarm is commented", plays.own_alarm_commented, (201,)),
        Attempt(LEGITIMATE, HUB, "one's own events are heard", heard, (201,)),
        Attempt(LEGITIMATE, DELIVERY, "a rightful listener hears", partial(plays.told, "acme-listens", NOC)),
        Attempt(LEGITIMATE, DELIVERY, "who works with customers hears whole", person),
        Attempt(LEGITIMATE, INTENT, "an approved remediation", approved),
        Attempt(LEGITIMATE, INTENT, "a remediation that needs no approval", healing),
        Attempt(LEGITIMATE, INTENT, TAKEN_BACK.words, partial(plays.lied, TAKEN_BACK, plays.sealed)),
        Attempt(LEGITIMATE, CONSOLE, "one's own order is shown", plays.own_order_shown, (200,)),
    ]


def _tenants() -> list[Attempt]:
    looks: Mapping[str, tuple[str, Any, tuple[int, ...]]] = {
        "another's order by its id": (READ, plays.by_id, HIDDEN),
        "another's order by version 5": (READ, plays.by_version_5, HIDDEN),
        "another's order in a list": (READ, plays.by_list, (200,)),
        "another's order on a page": (CONSOLE, plays.by_console, HIDDEN),
    }
    patterns: Mapping[str, Callable[[str, str], Mapping[str, Any]]] = {
        "another's alarm by its id": lambda mark, id: {"id": id},
        "another's alarm by what it is": lambda mark, id: {"alarmedObject": {"id": f"globex/{mark}"}},
    }
    devices: Mapping[str, Mapping[str, Any]] = {
        "another's device": {},
        "another's device in its name": {"tenant": "globex", "owner": THEIR_CSR.subject.document},
    }
    return [
        *(
            Attempt(TENANTS, path, words, partial(plays.their_order_read, look), codes)
            for words, (path, look, codes) in looks.items()
        ),
        Attempt(TENANTS, READ, "another party's order", plays.other_partys_order_read, (404, 200)),
        *(
            Attempt(TENANTS, kind, "another's order is changed", partial(plays.their_order_changed, kind), HIDDEN)
            for kind in PATCHES
        ),
        Attempt(TENANTS, CREATE, "another's order is cancelled", plays.their_order_cancelled, (201, 404)),
        Attempt(TENANTS, CREATE, "another's service is ended", plays.their_service_ended, (201,)),
        *(
            Attempt(TENANTS, TASK, words, partial(plays.their_alarm_commented, pattern), (201,))
            for words, pattern in patterns.items()
        ),
        Attempt(TENANTS, HUB, "another's events are asked for", partial(plays.listened, NOC, "globex"), (201,)),
        Attempt(TENANTS, DELIVERY, "another's event", partial(plays.told, "acme-listens", THEIR_NOC)),
        Attempt(TENANTS, FLOW, "another's order is begun", plays.their_order_begun),
        *(
            Attempt(TENANTS, INTENT, words, partial(plays.their_device_intended, said))
            for words, said in devices.items()
        ),
    ]


def _ordered(violates: str, wish: Wish) -> list[Attempt]:
    """What must not be ordered, on every path on which an order can ask for it."""
    created, patched = ((201,), (200,)) if wish.waits else (REFUSED, REFUSED)
    return [
        Attempt(violates, CREATE, wish.words, partial(plays.ordered, V4, CSR, wish), created),
        Attempt(violates, CREATE, f"{wish.words}, version 5", partial(plays.ordered, V5, CSR, wish), created),
        *(Attempt(violates, kind, wish.words, partial(plays.patched, kind, wish), patched) for kind in PATCHES),
        Attempt(violates, FLOW, f"{wish.words}, {NO_DOOR}", partial(plays.taken_up, wish)),
    ]


def _intended(violates: str, wish: Wish) -> list[Attempt]:
    """The same in an intent that was put on the bus past the orchestrator."""
    return [Attempt(violates, INTENT, wish.words, partial(plays.intended, wish, dict))]


def _entitlement() -> list[Attempt]:
    much = Wish("too much bandwidth", bandwidth=900)
    beside = Wish("too much beside enough", besides=900)
    inside = Wish("too much inside a bundle", bandwidth=900, inside=True)
    return [
        *_ordered(ENTITLEMENT, much),
        *_ordered(ENTITLEMENT, Wish("too many", quantity=9)),
        *_intended(ENTITLEMENT, much),
        Attempt(ENTITLEMENT, CREATE, beside.words, partial(plays.ordered, V4, CSR, beside), REFUSED),
        Attempt(ENTITLEMENT, CREATE, inside.words, partial(plays.ordered, V5, CSR, inside), REFUSED),
        Attempt(ENTITLEMENT, CREATE, "a service grows too much", partial(plays.service_changed, much), REFUSED),
    ]


def _places_and_prices() -> list[Attempt]:
    closed = Wish("a site whose window is closed", site=plays.CLOSED, waits=True)
    abroad = Wish("a site where nobody may be served", site=plays.FORBIDDEN)
    return [
        *_ordered(WINDOW, closed),
        *_intended(WINDOW, closed),
        *_ordered(SPEND, Wish("too dear", monthly=5000)),
        *_ordered(GEOGRAPHY, abroad),
        *_intended(GEOGRAPHY, abroad),
    ]


def _approved(by: Who = NOC, ago: float = 0) -> Mapping[str, Any]:
    return {"by": by.subject.document, "time": time() - ago, "decision": "approved"}


def _remediation(
    workflow: str = "reroute", approval: Callable[[], Mapping[str, Any] | None] = lambda: None, owner: Who | None = None
) -> Mapping[str, Any]:
    """What an intent or a message of a remediation says of itself."""
    said = {"purpose": "remediation", "workflow": workflow, "approval": approval()}
    return {**said, "owner": owner.subject.document} if owner else said


def _remediations() -> list[Attempt]:
    lacking: Mapping[str, Callable[[], Mapping[str, Any]]] = {
        "not approved": _remediation,
        "approved by who asked for it": partial(_remediation, approval=partial(_approved, CSR), owner=CSR),
        "approved by one who may not": partial(_remediation, approval=partial(_approved, READER)),
        "approved by another tenant": partial(_remediation, approval=partial(_approved, THEIR_NOC)),
        "approved by one who was dismissed": partial(_remediation, approval=partial(_approved, DISMISSED)),
        "approved too long ago": partial(_remediation, approval=partial(_approved, NOC, 2 * 86_400)),
    }
    return [
        *(Attempt(REMEDIATION, INTENT, words, partial(plays.intended, PLAIN, said)) for words, said in lacking.items()),
        *(Attempt(REMEDIATION, FLOW, words, partial(plays.forged, PLAIN, said)) for words, said in lacking.items()),
    ]


LIES: Mapping[str, Sequence[Lie]] = {
    TENANTS: [
        Lie(
            "another's device, told to them",
            lambda: {"tenant": "globex", "owner": THEIR_CSR.subject.document},
            Wish("", site=OPEN["globex"]),
            "globex",
        )
    ],
    ENTITLEMENT: [Lie("too much, to take something back", lambda: {"purpose": "undo"}, Wish("", bandwidth=900))],
    WINDOW: [
        Lie("a closed site, to take something back", lambda: {"purpose": "undo"}, Wish("", site=plays.CLOSED)),
        Lie("a closed site, said to be an open one", lambda: {"site": OPEN["acme"]}, Wish("", site=plays.CLOSED)),
    ],
    GEOGRAPHY: [
        Lie("where nobody may be served, to take back", lambda: {"purpose": "undo"}, Wish("", site=plays.FORBIDDEN))
    ],
    REMEDIATION: [Lie("an approval that nobody gave", partial(_remediation, approval=_approved))],
    ROLES: [Lie("an owner who did not ask for it", lambda: {"owner": CSR.subject.document})],
}
"""Violations that no policy sees, as the intent says of itself what lets it through."""


def lies(forgeries: Mapping[str, Forge]) -> list[Attempt]:
    """Each lie, put on the bus in each of these ways."""
    return [
        Attempt(violates, FORGED, f"{lie.words}, {how}", partial(plays.lied, lie, forge))
        for violates, some in LIES.items()
        for lie in some
        for how, forge in forgeries.items()
    ]


def _forged() -> list[Attempt]:
    late = partial(plays.lied, LATE, plays.sealed)
    return [*lies(plays.FORGERIES), Attempt(WINDOW, FORGED, LATE.words, late)]


def _personal() -> list[Attempt]:
    return [
        Attempt(PERSONAL, DELIVERY, "a reader hears of a person", partial(plays.person_told, "reader-listens", False)),
        Attempt(PERSONAL, DELIVERY, "by version 5", partial(plays.person_told, "reader-listens-5", False)),
        Attempt(PERSONAL, HUB, "a reader seeks a person", partial(plays.person_sought, READER, V4), (201,)),
        Attempt(PERSONAL, HUB, "by version 5", partial(plays.person_sought, READER, V5), (201,)),
    ]


def _roles() -> list[Attempt]:
    lacking = {
        f"an order by {' and '.join(who.roles) or 'nobody'}": who for who in (READER, NOBODY, PRETENDER, NORTHWIND)
    }
    lacking |= {f"an order by one {words}": who for words, who in GONE.items()}
    changing = {"a change by a reader": READER, "a change by one whose roles are too old": STALE}
    looking = {
        "one without a role": NOBODY,
        "one who says to be the system": PRETENDER,
        "one who was dismissed": DISMISSED,
    }
    return [
        *(Attempt(ROLES, CREATE, words, partial(plays.ordered, V4, w, PLAIN), REFUSED) for words, w in lacking.items()),
        *(
            Attempt(ROLES, kind, words, partial(plays.changed_by, who, kind), REFUSED)
            for words, who in changing.items()
            for kind in PATCHES
        ),
        *(
            Attempt(ROLES, READ, f"a look by {words}", partial(plays.read_by, w), REFUSED)
            for words, w in looking.items()
        ),
        Attempt(ROLES, TASK, "a task by a reader", partial(plays.commented_by, READER), REFUSED),
        Attempt(ROLES, TASK, "a task by one whose roles are too old", partial(plays.commented_by, STALE), REFUSED),
        Attempt(ROLES, HUB, "a listener of one without a role", partial(plays.listened, NOBODY, "acme"), REFUSED),
        Attempt(ROLES, HUB, "a listener of one who was dismissed", partial(plays.listened, DISMISSED, "acme"), REFUSED),
        *(Attempt(ROLES, FLOW, f"a task of one {words}", partial(plays.task_taken_up, w)) for words, w in GONE.items()),
        *(
            Attempt(ROLES, FLOW, f"an order of one {words}", partial(plays.order_taken_up, w))
            for words, w in GONE.items()
        ),
        *(
            Attempt(ROLES, DELIVERY, f"a listener {words}", partial(plays.told, f"{who.name}-listens", NOC))
            for words, who in GONE.items()
        ),
        Attempt(ROLES, CONSOLE, "a page for one without the console", partial(plays.shown_to, CSR), REFUSED),
        Attempt(ROLES, CONSOLE, "a page for one who was dismissed", partial(plays.shown_to, DISMISSED), REFUSED),
    ]


TABLE: Sequence[Attempt] = (
    *_legitimate(),
    *_tenants(),
    *_entitlement(),
    *_places_and_prices(),
    *_remediations(),
    *_personal(),
    *_roles(),
    *_forged(),
)
