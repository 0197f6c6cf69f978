"""What customers were told, our extension: one resource for each thing said to one customer."""

from __future__ import annotations

from convergedon.handlers.resource import Api, Resource, now

CUSTOMER_NOTIFICATION = Resource(
    "customerNotification",
    "CustomerNotification",
    new=lambda _: {"notificationTime": now()},
    indexes=("body.notificationType", "body.alarm.id"),
)

API = Api("customer-notification-v1", "/convergedon-api/customerNotification/v1", (CUSTOMER_NOTIFICATION,))
