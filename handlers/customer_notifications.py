"""What customers were told, our extension: one resource for each thing said to one customer.

Beside it is kept what nobody is served: what a customer knows of each problem and when to decide again (``TELLING``),
and which notification still has to leave through which channel (``DISPATCH``). What is over of both goes after a while
(mediation/telling/keeping.py).
"""

from __future__ import annotations

from convergedon.core.store import Kind
from convergedon.handlers.resource import Api, Body, Resource, now


def _views(facts: Body) -> dict[str, Body]:
    """The link of a survey is its customer's alone: whoever has it can answer."""
    link = facts.get("surveyLink")
    return {customer: {"surveyLink": link} for customer in facts.get("parties", ())} if link else {}


CUSTOMER_NOTIFICATION = Resource(
    "customerNotification",
    "CustomerNotification",
    new=lambda _: {"notificationTime": now()},
    indexes=("body.notificationType", "body.alarm.id"),
    views=_views,
    viewed=("surveyLink",),
)
TELLING = Kind("telling", ("id", "facts.owes"), swept=("facts.due", "facts.over"))
DISPATCH = Kind("dispatch", ("id", "facts.lane"), swept=("facts.due", "facts.over"))

API = Api("customer-notification-v1", "/convergedon-api/customerNotification/v1", (CUSTOMER_NOTIFICATION,))
