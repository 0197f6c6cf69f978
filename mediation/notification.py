"""What customers are told: each thing once, and only what the policy lets them hear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from convergedon.core.errors import Conflict
from convergedon.core.policy import system
from convergedon.core.store import Record
from convergedon.handlers.customer_notifications import CUSTOMER_NOTIFICATION
from convergedon.mediation.privacy import private
from convergedon.mediation.work import Work


async def notify(work: Work, about: Record, customer: str, body: Mapping[str, Any], again: str = "") -> bool:
    """Say a thing to a customer once: the same thing about the same record is the same notification.

    ``again`` tells apart what is said of it more than once. The policy says whether, and what of it: what devices and
    people wrote may hold what is nobody else's business.
    """
    id = notification_id(about, customer, body["notificationType"], again)
    resource = {"kind": CUSTOMER_NOTIFICATION.name, "tenant": about.tenant, "id": id, "parties": [customer]}
    decision = await work.policy.decide(system(about.tenant), "tell", resource, body, channel="flow")
    if not decision.allow:
        on = f"{CUSTOMER_NOTIFICATION.name}/{id}"
        reasons = list(decision.reasons)
        work.audit.record("customer.told", about.tenant, "convergedon", on, "refused", decision, reasons=reasons)
        return False
    body = private(body, decision.obligations)
    try:
        body = {**body, "traceId": about.facts.get("trace", "")}
        facts = {"trace": about.facts.get("trace", ""), "line": about.facts.get("line", about.id)}
        await work.resources.create(CUSTOMER_NOTIFICATION, about.tenant, body, facts, id)
    except Conflict:
        return False
    return True


def notification_id(about: Record, customer: str, type_: str, again: str = "") -> str:
    said = (about.kind, about.id, customer, type_, *([again] if again else []))
    return str(uuid5(NAMESPACE_URL, "|".join(said)))
