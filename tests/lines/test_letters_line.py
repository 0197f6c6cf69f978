"""Notifications that leave through channels: each customer's in their order, whatever is away, and nothing personal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import orjson
import pytest
from scene import BERLIN, STORE_KINDS, Listener, Scene, in_memory, item, listening, playing
from structlog.testing import capture_logs

from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.store import Record
from convergedon.handlers.customer_notifications import DISPATCH
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.mediation.telling import dispatch
from tests.mailserver import MailServer, mail_server

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CUSTOMERS = {"northwind": "it@northwind.example", "contoso": "noc@contoso.example"}


@dataclass
class Office:
    """A scene, the mail server and the web service that its customers are told by."""

    scene: Scene
    mail: MailServer
    desk: Listener

    async def letters(self, **state: Any) -> list[dict[str, Any]]:
        found = await self.scene.store.find("dispatch", {f"body.{name}": value for name, value in state.items()})
        return [{**one.facts, **one.body} for one in found]

    async def until(self, number: int, **state: Any) -> None:
        """Wait until so many letters are in a state."""

        async def there() -> bool:
            return len(await self.letters(**state)) == number

        await self.scene.until(there)


def rules(mail: MailServer, desk: Listener, folder: Path) -> Path:
    for customer, address in CUSTOMERS.items():
        (folder / f"{customer}.address").write_text(address)
    (folder / "secret").write_text(SECRET)
    each = "".join(
        f"      {name}: {{channels: [{{channel: mail, toFile: {name}.address}}, {{channel: desk}}]}}\n"
        for name in CUSTOMERS
    )
    server = f"host: 127.0.0.1, port: {mail.port}, security: none"
    (folder / "notifications.yaml").write_text(
        "default: {updateInterval: 0}\n"
        "channels:\n"
        f"  mail: {{kind: email, {server}, from: noc@net.example, connections: 1}}\n"
        f"  desk: {{kind: webhook, url: '{desk.url('desk')}', secretFile: secret}}\n"
        f"tenants:\n  acme:\n    channels: [{{channel: mail, to: contact}}]\n    customers:\n{each}"
    )
    return folder / "notifications.yaml"


@asynccontextmanager
async def open_office(folder: Path, customers: int = 2) -> AsyncIterator[Office]:
    async with (
        mail_server() as mail,
        listening() as desk,
        in_memory(folder, notifications=rules(mail, desk, folder)) as scene,
    ):
        office = Office(scene, mail, desk)
        for number, customer in enumerate([*CUSTOMERS][:customers]):
            order = item(**{**BERLIN, "vlan": 10 + number})
            await scene.ended(await scene.order(order, party=customer))
        await office.until(2 * customers, state="sent")
        mail.received.clear()
        desk.got.clear()
        yield office


@pytest.fixture
async def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Office]:
    monkeypatch.setattr(dispatch, "FIRST", 0.05)
    async with open_office(tmp_path) as found:
        yield found


async def test_each_customer_is_told_by_each_of_its_channels(office: Office) -> None:
    with capture_logs() as logs:
        await office.scene.say("fault")
        await office.until(8, state="sent")
        await office.scene.say("clear")
        await office.until(12, state="sent")

    subjects = {address: [one["Subject"] for one in office.mail.of(address)] for address in CUSTOMERS.values()}
    assert subjects == {address: ["Disturbed: Access", "Works again: Access"] for address in CUSTOMERS.values()}
    posts = [post for _, post in office.desk.got]
    assert sorted(post["type"] for post in posts) == ["serviceAffected"] * 2 + ["serviceRestored"] * 2
    notes = {one.id: one for one in await office.scene.find("customerNotification")}
    assert {post["notification"]["id"] for post in posts} < notes.keys()
    # the survey's link is each customer's own, on paper as on the wire
    links = {one.facts["parties"][0]: one.facts["surveyLink"] for one in notes.values() if "restoredAt" in one.body}
    over = [post["notification"] for post in posts if post["type"] == "serviceRestored"]
    assert {one["relatedParty"][0]["id"]: one["surveyLink"] for one in over} == links
    for customer, address in CUSTOMERS.items():
        (_, letter) = office.mail.of(address)
        said = [part.get_content().replace("\n", "") for part in letter.iter_parts()]  # type: ignore[attr-defined]
        assert all(links[customer] in text for text in said)
    await office.scene.audit.stop()
    # what policies take away is not in what leaves
    texts = [part.get_content() for mail in office.mail.received for part in mail.iter_parts()]  # type: ignore[attr-defined]
    assert not [text for text in texts if "/alarm/" in text]
    # and an address is nowhere but on its letter
    kept = orjson.dumps(
        [[one.body, one.facts] for kind in STORE_KINDS for one in await office.scene.store.find(kind.name, {})]
    )
    for address in CUSTOMERS.values():
        assert address not in kept.decode() + repr(logs)


async def test_it_is_recorded_by_which_decision_it_left(office: Office) -> None:
    await office.scene.say("fault")
    await office.until(8, state="sent")

    await office.scene.audit.stop()
    found = [one.body for one in await office.scene.find("audit", **{"body.what": "notification.sent"})]
    assert {(one["outcome"], one["detail"]["channel"]) for one in found} == {("done", "mail"), ("done", "desk")}
    assert len(found) == 8
    assert all(one["decision"] for one in found)


async def test_a_channel_that_is_away_holds_up_no_other(office: Office) -> None:
    """When it is back, each customer has what it missed, once and in order."""
    office.mail.content = "421 4.3.2 shutting down"
    await office.scene.say("fault")
    await office.until(4 + 2, state="sent")
    await office.scene.say("clear")
    await office.until(4 + 4, state="sent")
    assert office.mail.received == []
    office.mail.content = "250 OK"
    await office.until(12, state="sent")

    for address in CUSTOMERS.values():
        assert [one["Subject"] for one in office.mail.of(address)] == ["Disturbed: Access", "Works again: Access"]
        assert len({one["Message-ID"] for one in office.mail.of(address)}) == 2


async def test_an_address_that_is_put_off_holds_up_nobody_else(office: Office) -> None:
    """Its own letters wait for each other."""
    office.mail.answers = {CUSTOMERS["contoso"]: "450 4.2.0 greylisted"}
    await office.scene.say("fault")
    await office.until(4 + 3, state="sent")
    await office.scene.say("clear")
    await office.until(4 + 6, state="sent")
    assert [one["Subject"] for one in office.mail.received] == ["Disturbed: Access", "Works again: Access"]
    office.mail.answers = {}
    await office.until(12, state="sent")

    found = office.mail.of(CUSTOMERS["contoso"])
    assert [one["Subject"] for one in found] == ["Disturbed: Access", "Works again: Access"]


async def test_what_will_never_arrive_waits_for_a_person(office: Office) -> None:
    """Parked with the reason, as a hand-off; who mends it has it sent again. Others go on."""
    office.mail.answers = {CUSTOMERS["contoso"]: f"550 5.1.1 <{CUSTOMERS['contoso']}> unknown"}
    await office.scene.say("fault")
    await office.until(4 + 3, state="sent")

    async def parked() -> bool:
        return len(await office.scene.bus.parked()) == 1

    await office.scene.until(parked)
    (waiting,) = await office.scene.bus.parked()
    assert waiting.reason.endswith("cannot be sent by mail: the mail server answered 550: 5.1.1 <[address]> unknown")
    await office.scene.say("clear")
    await office.until(2, state="undelivered")
    await office.until(4 + 6, state="sent")
    office.mail.answers = {}
    await office.scene.bus.retry(waiting.id)
    await office.until(4 + 7, state="sent")

    (late,) = office.mail.of(CUSTOMERS["contoso"])
    assert late["Subject"] == "Disturbed: Access"


async def test_whoever_is_not_named_is_told_as_the_order_says(office: Office) -> None:
    """An order that says nothing is nothing to guess from: a person is told."""
    for party, contact in (("fabrikam", "it@fabrikam.example"), ("tailspin", "")):
        order = {
            "productOrderItem": [item(**{**BERLIN, "vlan": 40 + len(contact)})],
            "relatedParty": [{"id": party, "role": "customer"}],
            **({"notificationContact": contact} if contact else {}),
        }
        await office.scene.ended((await office.scene.resources.create(PRODUCT_ORDER, "acme", order)).id)
    await office.until(1, state="undelivered")
    await office.until(5, state="sent")

    (mail,) = office.mail.of("it@fabrikam.example")
    assert mail["Subject"].startswith("Completed: order ")
    (stays,) = await office.letters(state="undelivered")
    assert stays["reason"] == "no order of it has a notificationContact to tell"


async def test_many_letters_to_a_dead_channel_leave_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that hang a bounded number is in line; the others step back and are not looked at again and again."""
    monkeypatch.setattr(dispatch, "IN_LINE", 2)
    async with open_office(tmp_path, customers=1) as office:
        hangs = asyncio.Event()
        office.mail.pause = hangs.wait
        (note, *_) = await office.scene.find("customerNotification")
        for number in range(40):
            facts = {"customer": "northwind", "channel": "mail", "lane": f"mail|{number}", "order": 0.0}
            facts |= {"notification": note.id, "begun": time(), "due": 0.0, "carrier": {}}
            body = {"state": "waiting", "tries": 0}
            await office.scene.store.create(Record(DISPATCH.name, f"l{number}", "acme", body, facts))
        await office.scene.say("fault")

        async def posted() -> bool:
            return len(office.desk.of("desk")) == 1

        async def stepped_back() -> bool:
            waiting = await office.letters(state="waiting")
            return len([one for one in waiting if "stepped" not in one]) <= 3

        await office.scene.until(posted)
        await office.scene.until(stepped_back)
        hangs.set()


async def test_the_rules_may_name_a_channel_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept for it is recorded as withdrawn, not sent to somebody else."""
    monkeypatch.setattr(dispatch, "NEWER", 0.0)
    store = MemoryStore(STORE_KINDS)
    async with mail_server() as mail, listening() as desk:
        mail.content = "421 4.3.2 shutting down"
        given = rules(mail, desk, tmp_path)
        async with playing(store, MemoryBus(), tmp_path, notifications=given) as scene:
            office = Office(scene, mail, desk)
            await scene.ended(await scene.order(item(**BERLIN)))
            await office.until(1, state="sent")
        (tmp_path / "notifications.yaml").write_text("{}")
        async with playing(store, MemoryBus(), tmp_path, notifications=given) as scene:
            office = Office(scene, mail, desk)
            await office.until(1, state="withdrawn")
    assert mail.received == []


async def test_a_policy_may_forbid_a_kind_of_channel(office: Office) -> None:
    class Forbidding:
        revision = "forbidding"

        def __init__(self, other: Any) -> None:
            self._other = other

        async def evaluate(self, question: Any) -> Any:
            if question["action"] == "send" and question["resource"]["viaKind"] == "email":
                return {"allow": False, "reasons": ["no mail"], "filter": {}, "obligations": {}}
            return await self._other.evaluate(question)

        async def close(self) -> None:
            return None

    office.scene.work.policy.swap(Forbidding(office.scene.work.policy._engine))
    await office.scene.say("fault")
    await office.until(2, state="withheld")
    await office.until(4 + 2, state="sent")

    assert office.mail.received == []
    assert {one["reason"] for one in await office.letters(state="withheld")} == {"no mail"}
