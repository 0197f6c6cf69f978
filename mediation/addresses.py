"""Which addresses are customers': asked of the inventory, and remembered for a moment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from time import monotonic

from convergedon.core.store import Store
from convergedon.mediation import inventory


class Addresses:
    """Traffic has the same addresses again and again: most of it is answered without the store."""

    PRESENT, ABSENT = 10.0, 2.0
    """Seconds for which an address is taken for a service's, and for nobody's: a new service is metered at once."""
    MOST = 200_000
    ASKED = 500

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], tuple[bool, float]] = OrderedDict()

    async def known(self, store: Store, tenant: str, addresses: Iterable[str]) -> set[str]:
        """Those of the addresses that services of a tenant have."""
        now = monotonic()
        found, asked = set(), []
        for address in addresses:
            there, until = self._seen.get((tenant, address), (False, 0.0))
            if until <= now:
                asked.append(address)
            elif there:
                found.add(address)
        asked.sort()
        for at in range(0, len(asked), self.ASKED):
            part = asked[at : at + self.ASKED]
            there_now = (await inventory.at(store, tenant, part)).keys()
            found |= there_now
            for address in part:
                present = address in there_now
                self._seen[tenant, address] = (present, now + (self.PRESENT if present else self.ABSENT))
                self._seen.move_to_end((tenant, address))
        while len(self._seen) > self.MOST:
            self._seen.popitem(last=False)
        return found
