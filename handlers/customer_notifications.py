"""What customers were told, our extension: one resource for each thing said to one customer.

Beside it is kept what nobody is served: what a customer knows of each problem and when to decide again (``TELLING``),
and which notification still has to leave through which channel (``DISPATCH``).
"""

from __future__ import annotations

from convergedon.core.store import Kind
from convergedon.handlers.resource import Api, Resource, now

CUSTOMER_NOTIFICATION = Resource(
    "customerNotification",
    "CustomerNotification",
    new=lambda _: {"notificationTime": now()},
    indexes=("body.notificationType", "body.alarm.id"),
)
TELLING = Kind("telling", ("id", "facts.owes"), swept=("facts.due",))
DISPATCH = Kind("dispatch", ("id", "facts.lane"), swept=("facts.due",))

API = Api("customer-notification-v1", "/convergedon-api/customerNotification/v1", (CUSTOMER_NOTIFICATION,))
