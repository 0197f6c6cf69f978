"""What a step of a line is given: everything outside it, built once for each worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from convergedon.core.audit import Audit
from convergedon.core.bus import Bus
from convergedon.core.policy import Policy
from convergedon.core.seals import Seals
from convergedon.core.settings import Settings
from convergedon.core.store import Store
from convergedon.handlers.resource import Resources
from convergedon.mediation import intervals
from convergedon.mediation.addresses import Addresses
from convergedon.mediation.intervals import Metering
from convergedon.mediation.known import Known
from convergedon.mediation.planning import Products
from convergedon.mediation.rating import Tariff
from convergedon.mediation.telling.rules import Notifications
from convergedon.mediation.workflows.definitions import Definition


@dataclass(frozen=True)
class Work:
    """``published`` says of a message's id whether this process has put it on the bus lately.

    ``workflows`` are those that begin from now on, one of each name; ``notifications`` the rules of what customers are
    told, without which it is all told at once.
    """

    resources: Resources
    bus: Bus
    policy: Policy
    audit: Audit
    products: Products
    tariff: Tariff
    settings: Settings
    seals: Seals
    published: Callable[[str], bool] = lambda _: False
    metering: Metering = field(default_factory=intervals.load)
    addresses: Addresses = field(default_factory=Addresses)
    workflows: Sequence[Definition] = ()
    known: Known = field(default_factory=Known)
    notifications: Notifications | None = None

    @property
    def store(self) -> Store:
        return self.resources.store
