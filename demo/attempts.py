"""What a campaign tries: violations of every class on every path where they can occur, and what everybody may do.

This is the table; how each is played stands in plays.py. ``DATA`` is laid over the policies' data, so that the lab
could carry out what the policies forbid.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from convergedon.demo import plays
from convergedon.demo.plays import CSR, NOC, NORTHWIND, PATCHES, PLAIN, THEIR_NOC, V4, V5, Wish
from convergedon.demo.tally import LEGITIMATE
from convergedon.demo.witness import Deed, Scene, Who
from convergedon.handlers import alarms

TENANTS = "cross-tenant access"
ENTITLEMENT = "over-entitlement"
ROLES = "stale or missing role"
CLASSES = (TENANTS, ENTITLEMENT, ROLES)

CREATE, READ, TASK, HUB = "REST create", "REST read", "task with a pattern", "hub"
DELIVERY, FLOW, INTENT, CONSOLE = "delivery", "flow step", "intent on the bus", "console"

DATA: Mapping[str, Any] = {"contracts": {"acme": {"bandwidth": 500}, "globex": {"bandwidth": 400}}}
"""Contracts below what the lab's ports can carry (1000 Mbit/s): what is above them could take effect."""

READER = Who("acme-reader", "acme", ("reader",))
NOBODY = Who("acme-nobody", "acme", ())
PRETENDER = Who("acme-pretender", "acme", ("system", "root"))
FORMER = Who("acme-former", "acme", ("formerCsr", "formerNoc"))
"""Somebody whose roles were known when a listener, a task or an order was taken, and are no more."""

LISTENERS = {"acme-listens": NOC, "globex-listens": THEIR_NOC, "former-listens": FORMER}
"""Who hears every alarm of a tenant, from the beginning."""

REFUSED, HIDDEN = (403,), (404,)


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
    for name, who in LISTENERS.items():
        await scene.subscribe(alarms.API, who, name)


def _legitimate() -> list[Attempt]:
    patches = [
        Attempt(LEGITIMATE, kind, "one's own order is changed", partial(plays.own_order_changed, kind), (200,))
        for kind in PATCHES
    ]
    heard = partial(plays.listened, NOC, "acme")
    return [
        Attempt(LEGITIMATE, CREATE, "an order within the contract", partial(plays.delivered, V4), (201,)),
        Attempt(LEGITIMATE, CREATE, "an order of version 5", partial(plays.delivered, V5), (201,)),
        Attempt(LEGITIMATE, FLOW, "an order on the bus", partial(plays.taken_up, PLAIN)),
        *patches,
        Attempt(LEGITIMATE, READ, "one's own order is read", plays.own_order_read, (200,)),
        Attempt(LEGITIMATE, TASK, "one's own alarm is commented", plays.own_alarm_commented, (201,)),
        Attempt(LEGITIMATE, HUB, "one's own events are heard", heard, (201,)),
        Attempt(LEGITIMATE, DELIVERY, "a rightful listener hears", partial(plays.told, "acme-listens", NOC)),
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
        Attempt(TENANTS, INTENT, "another's device", plays.their_device_intended),
    ]


def _wished(violates: str, wish: Wish, **intent: Any) -> list[Attempt]:
    """What must not be ordered, on every path on which it can be asked for."""
    codes = (201,) if wish.waits else REFUSED
    patched = (200,) if wish.waits else REFUSED
    return [
        Attempt(violates, CREATE, wish.words, partial(plays.ordered, V4, CSR, wish), codes),
        Attempt(violates, CREATE, f"{wish.words}, version 5", partial(plays.ordered, V5, CSR, wish), codes),
        *(Attempt(violates, kind, wish.words, partial(plays.patched, kind, wish), patched) for kind in PATCHES),
        Attempt(violates, FLOW, f"{wish.words}, in an order that no door saw", partial(plays.taken_up, wish)),
    ]


def _entitlement() -> list[Attempt]:
    much = Wish("too much bandwidth", bandwidth=900)
    beside = Wish("too much beside enough", besides=900)
    inside = Wish("too much inside a bundle", bandwidth=900, inside=True)
    return [
        *_wished(ENTITLEMENT, much),
        Attempt(ENTITLEMENT, CREATE, beside.words, partial(plays.ordered, V4, CSR, beside), REFUSED),
        Attempt(ENTITLEMENT, CREATE, inside.words, partial(plays.ordered, V5, CSR, inside), REFUSED),
        Attempt(ENTITLEMENT, CREATE, "a service grows too much", partial(plays.service_changed, much), REFUSED),
        Attempt(ENTITLEMENT, INTENT, much.words, partial(plays.intended, much, {})),
    ]


def _roles() -> list[Attempt]:
    orders = [
        Attempt(ROLES, CREATE, f"an order by {_role(who)}", partial(plays.ordered, V4, who, PLAIN), REFUSED)
        for who in (READER, NOBODY, PRETENDER, NORTHWIND)
    ]
    changes = [
        Attempt(ROLES, kind, "a change by a reader", partial(plays.changed_by, READER, kind), REFUSED)
        for kind in PATCHES
    ]
    heard = partial(plays.listened, NOBODY, "acme")
    return [
        *orders,
        *changes,
        Attempt(ROLES, READ, "a look by one without a role", partial(plays.read_by, NOBODY), REFUSED),
        Attempt(ROLES, READ, "a look by one who says to be the system", partial(plays.read_by, PRETENDER), REFUSED),
        Attempt(ROLES, TASK, "a task by a reader", partial(plays.commented_by, READER), REFUSED),
        Attempt(ROLES, FLOW, "a task of one whose role is gone", partial(plays.task_taken_up, FORMER)),
        Attempt(ROLES, HUB, "a listener of one without a role", heard, REFUSED),
        Attempt(ROLES, DELIVERY, "a listener whose role is gone", partial(plays.told, "former-listens", NOC)),
        Attempt(
            ROLES, CONSOLE, "a page for one without the console", partial(plays.shown_to, CSR), (302, 303, 401, 403)
        ),
    ]


def _role(who: Who) -> str:
    return " and ".join(who.roles) or "nobody"


TABLE: Sequence[Attempt] = (*_legitimate(), *_tenants(), *_entitlement(), *_roles())
