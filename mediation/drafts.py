"""The beginning of the order line for an order that was taken as a draft: its customer has acknowledged it."""

from __future__ import annotations

from convergedon.core.bus import Message
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.mediation import ordering
from convergedon.mediation.work import Work


async def submit(work: Work, message: Message) -> None:
    """A ProductOrderStateChangeEvent: an order that is acknowledged now was a draft and is fulfilled."""
    if message.body["event"]["event"][PRODUCT_ORDER.name]["state"] == "acknowledged":
        await ordering.fulfil(work, message)
