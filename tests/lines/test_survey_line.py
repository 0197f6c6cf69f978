"""From what a customer is told to its answer: the link is in the notification, for the customer alone."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

from scene import BERLIN, Scene, in_memory, item, listening, pumped, twice

from convergedon.core.policy import Subject
from convergedon.core.store import Record
from convergedon.handlers import customer_notifications, hub
from convergedon.handlers.customer_notifications import CUSTOMER_NOTIFICATION
from convergedon.handlers.surveys import Invitation, links
from convergedon.mediation.telling import wording


async def told(scene: Scene) -> dict[str, Record]:
    found = await scene.find("customerNotification")
    return {one.body["notificationType"]: one for one in found}


def seen_by(scene: Scene, record: Record, *parties: str) -> str:
    shown = scene.resources.present_to(parties, CUSTOMER_NOTIFICATION, record, "http://gateway.example")
    return str(shown.get("surveyLink", ""))


def invited(scene: Scene, url: str) -> Invitation:
    assert url.startswith(f"{scene.work.settings.url}/survey/")
    return links(scene.work.settings).read(url.rpartition("/")[2])


async def test_a_customer_is_asked_after_an_order_and_after_an_all_clear(still: Scene) -> None:
    """About that order and that disturbance, and not when it is told bad news."""
    order = await still.order(item(**BERLIN))
    await still.ended(order)
    for kind in ("fault", "clear"):
        await still.say(kind)
        await still.settled()
    found = await told(still)
    (affected,) = await still.find("affectedParty")
    asked = {
        type_: (one.tenant, one.customer, one.kind, one.id)
        for type_, record in found.items()
        if (url := seen_by(still, record, "northwind")) and (one := invited(still, url))
    }

    assert asked == {
        "orderCompleted": ("acme", "northwind", "productOrder", order),
        "serviceRestored": ("acme", "northwind", "affectedParty", affected.id),
    }
    assert "serviceAffected" in found


async def test_nobody_else_who_reads_notifications_sees_the_link(still: Scene) -> None:
    """Not those who see all of them, no listener of theirs, and not the log of questions to the policy."""
    await still.ended(await still.order(item(**BERLIN)))
    record = (await told(still))["orderCompleted"]
    (event,) = [one for one in await still.bus.read("event.>") if one["id"] == record.id]
    link = seen_by(still, record, "northwind")

    assert link
    assert "surveyLink" not in still.resources.present(record)
    assert seen_by(still, record, "contoso") == ""
    assert link not in str(event["event"])
    assert event["views"] == {"northwind": {"surveyLink": link}}


async def test_a_customers_listener_is_told_the_link_and_others_are_not(tmp_path: Path) -> None:
    async with in_memory(tmp_path) as scene, listening() as listener:
        for who, role, party in (("northwind", "customer", "northwind"), ("desk", "csr", None)):
            body = {"callback": listener.url(who), "query": "notificationType=orderCompleted"}
            subject = Subject(who, "acme", (role,), party)
            await hub.register(scene.store, hub.subscription(customer_notifications.API, subject, body))
        order = await scene.order(item(**BERLIN))

        async def both_heard() -> bool:
            return len(listener.got) == 2

        await scene.until(both_heard)
        (mine,), (other,) = (
            [event["event"]["customerNotification"] for event in listener.of(who)] for who in ("northwind", "desk")
        )
        assert invited(scene, mine["surveyLink"]).id == order
        assert "surveyLink" not in other


async def test_a_letter_has_the_link(tmp_path: Path) -> None:
    """By the templates that ship."""
    async with pumped(tmp_path) as scene:
        await scene.ended(await scene.order(item(**BERLIN)))
        record = (await told(scene))["orderCompleted"]
        link = seen_by(scene, record, "northwind")
        letter = wording.load(None).write("acme", {**record.body, "id": record.id, "surveyLink": link}, ZoneInfo("UTC"))

    assert link in letter.text
    assert link in letter.html


async def test_telling_it_twice_asks_once(still: Scene) -> None:
    await still.order(item(**BERLIN))

    assert await twice(still) == []


async def test_where_nothing_is_asked_there_is_no_link(tmp_path: Path) -> None:
    async with pumped(tmp_path, survey_days=0) as scene:
        await scene.ended(await scene.order(item(**BERLIN)))
        record = (await told(scene))["orderCompleted"]

    assert "surveyLink" not in record.facts
