"""What customers are told: each thing once, and only what the policy lets them hear, when it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from convergedon.core.errors import Conflict, NotFound
from convergedon.core.policy import system
from convergedon.core.store import Draft, Record
from convergedon.handlers import surveys
from convergedon.handlers.customer_notifications import CUSTOMER_NOTIFICATION, TELLING
from convergedon.mediation.privacy import private
from convergedon.mediation.telling import dispatch
from convergedon.mediation.telling.keeping import clock
from convergedon.mediation.work import Work


class Answer(NamedTuple):
    """What became of a notification: it was made, was there before, may not be, or may be at a later time."""

    what: Literal["made", "there", "refused", "later"]
    record: Record | None = None
    until: float = 0.0


async def notify(work: Work, about: Record, customer: str, body: Mapping[str, Any], again: str = "") -> bool:
    """Say a thing to a customer once, at the time that the policy lets it be said; returns whether that was now.

    The same thing about the same record is the same notification; ``again`` tells apart what is said of it more than
    once.
    """
    answer = await tell(work, about, customer, body, again)
    if answer.what == "later":
        await _put_off(work, about, customer, body, again, answer.until)
    return answer.what == "made"


async def tell(
    work: Work, about: Record, customer: str, body: Mapping[str, Any], again: str = "", severity: str = ""
) -> Answer:
    """Say a thing now, if the policy lets it be said now, through all channels that its customer has."""
    found = await word(work, about, customer, body, again, severity)
    return found if isinstance(found, Answer) else await say(work, customer, found)


async def word(
    work: Work, about: Record, customer: str, body: Mapping[str, Any], again: str = "", severity: str = ""
) -> Draft | Answer:
    """The notification that may be made now, or why none may.

    The policy also says what of it: what devices and people wrote may hold what is nobody else's business.
    """
    id = notification_id(about, customer, body["notificationType"], again)
    resource = {"kind": CUSTOMER_NOTIFICATION.name, "tenant": about.tenant, "id": id, "parties": [customer]}
    if work.notifications:
        resource |= {"type": body["notificationType"], **({"severity": severity} if severity else {})}
        resource |= work.notifications.of(about.tenant, customer).silence(clock(work))
    decision = await work.policy.decide(system(about.tenant), "tell", resource, body, channel="flow")
    if not decision.allow:
        on = f"{CUSTOMER_NOTIFICATION.name}/{id}"
        reasons = list(decision.reasons)
        work.audit.record("customer.told", about.tenant, "convergedon", on, "refused", decision, reasons=reasons)
        return Answer("refused")
    if (until := decision.obligations.get("notBefore", 0)) > clock(work):
        return Answer("later", until=until)
    body = {**private(body, decision.obligations), "traceId": about.facts.get("trace", "")}
    facts = {"trace": about.facts.get("trace", ""), "line": about.facts.get("line", about.id)}
    if link := surveys.link(work.settings, about, customer, body["notificationType"]):
        facts["surveyLink"] = link
    return work.resources.new(CUSTOMER_NOTIFICATION, about.tenant, body, facts, id)


async def say(work: Work, customer: str, draft: Draft) -> Answer:
    """Make a notification, and hand it to all channels that its customer has. Doing it twice is doing it once."""
    made, record = await _made(work, draft)
    await dispatch.begin(work, record, customer)
    work.known.said(record.id)
    return Answer("made" if made else "there", record)


async def _made(work: Work, draft: Draft) -> tuple[bool, Record]:
    try:
        return True, await work.store.create(*draft)
    except Conflict:
        return False, await work.store.get(CUSTOMER_NOTIFICATION.name, draft.record.tenant, draft.record.id)


def notification_id(about: Record, customer: str, type_: str, again: str = "") -> str:
    said = (about.kind, about.id, customer, type_, *([again] if again else []))
    return str(uuid5(NAMESPACE_URL, "|".join(said)))


async def bring_out(work: Work, tenant: str, id: str) -> bool:
    """Have what was said before on the bus, so that what is said now does not overtake it; says whether it is there.

    Whoever said it may have died before it was published, or be about to: the bus drops what comes to it twice.
    """
    try:
        told = await work.store.get(CUSTOMER_NOTIFICATION.name, tenant, id)
    except NotFound:
        return False
    for message in told.unsent:
        if not work.published(message.id):
            await work.bus.publish(message.subject, message.body, message.id, message.headers)
    return True


# what is said later


async def _put_off(work: Work, about: Record, customer: str, body: Mapping[str, Any], again: str, until: float) -> None:
    """Keep what is to be said at another time. Doing it twice is doing it once."""
    id = notification_id(about, customer, body["notificationType"], again)
    later = {"kind": about.kind, "id": about.id, "facts": dict(about.facts), "customer": customer, "again": again}
    record = Record(TELLING.name, id, about.tenant, {"notification": body}, {"later": later, "due": until})
    try:
        await work.store.create(record)
    except Conflict:
        return


async def take_up(work: Work, later: Record) -> None:
    """Say what was put off; it may be put off once more."""
    given, body = later.facts["later"], later.body["notification"]
    about = Record(given["kind"], given["id"], later.tenant, {}, given["facts"])
    answer = await tell(work, about, given["customer"], body, given["again"])
    if answer.what == "later":
        await work.store.replace(later.with_(facts={"due": answer.until}))
    else:
        await work.store.delete(later)
