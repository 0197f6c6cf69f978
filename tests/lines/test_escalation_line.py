"""What a workflow leaves to a person reaches one: by mail and by a signed post, once, whatever is away or restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from scene import STORE_KINDS, Listener, PumpBus, Scene, listening, playing
from test_workflow_line import ASK, HEAR, MEND, answer, definition

from convergedon.core.bus import Message, Position
from convergedon.core.memory import MemoryStore
from convergedon.handlers import figures
from convergedon.handlers.remediation import WORKFLOW_RUN
from convergedon.mediation.telling import dispatch
from tests.mailserver import MailServer, mail_server

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
REFUSED = {"mend": {**MEND["mend"], "with": {**MEND["mend"]["with"], "values": {"refuse": "no room"}}}}
RULES = """
default: {{escalations: [{{channel: mail, toFile: duty}}]}}
tenants: {{acme: {{escalations: [{{channel: mail, toFile: duty}}, {{channel: desk{states}}}]}}}}
channels:
  mail: {{kind: email, host: 127.0.0.1, port: {port}, security: none, from: noc@net.example}}
  desk: {{kind: webhook, url: '{url}', secretFile: secret}}
"""
DUTY = "duty@net.example"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "FIRST", 0.05)
    monkeypatch.setattr(dispatch, "EVERY", 0.05)


class Office:
    """Where operators are told, and what is kept of that."""

    def __init__(self, folder: Path, mail: MailServer, desk: Listener) -> None:
        self.folder, self.mail, self.desk, self.store = folder, mail, desk, MemoryStore(STORE_KINDS)
        (folder / "duty").write_text(DUTY)
        (folder / "secret").write_text(SECRET)

    @asynccontextmanager
    async def at_work(self, *tasks: Any, states: str = "", **more: Any) -> AsyncIterator[Scene]:
        """A worker; the next one finds what this one leaves."""
        rules = self.folder / "notifications.yaml"
        rules.write_text(RULES.format(port=self.mail.port, url=self.desk.url("desk"), states=states))
        flows = [definition(*tasks)]
        async with playing(self.store, PumpBus(), self.folder, workflows=flows, notifications=rules, **more) as scene:
            yield scene

    async def letters(self, scene: Scene, *states: str) -> None:
        """Wait until there are exactly these."""

        async def there() -> bool:
            return sorted(one.body["state"] for one in await self.store.find("dispatch", {})) == sorted(states)

        await scene.until(there)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with mail_server() as mail, listening() as desk:
        yield Office(tmp_path, mail, desk)


async def failed(scene: Scene) -> Any:
    """A repair that its device refuses, once somebody has approved it."""
    await scene.say("fault")
    await scene.pump()
    await answer(scene)
    (run,) = await scene.find("workflowRun")
    assert run.body["state"] == "compensated"
    return run


async def told_again(scene: Scene, run: Any) -> None:
    """The event of the end, delivered once more: its worker died before it said that it had taken it."""
    shown = scene.resources.present(run)
    body = {"event": {"eventType": "WorkflowRunStateChangeEvent", "event": {WORKFLOW_RUN.name: shown}}}
    message = Message("again", "event.1.acme", {**body, "tenant": "acme", "id": run.id}, {}, Position("x", 1), 0.0)
    await scene.worker._flow(message)


async def test_a_person_is_told_once_by_each_channel(office: Office) -> None:
    """With what failed, where and why; it is one hand-off, and the record says by which decision it left."""
    async with office.at_work(ASK, REFUSED, HEAR) as scene:
        run = await failed(scene)
        await office.letters(scene, "sent", "sent")
        await told_again(scene, run)
        await scene.audit.start()
        await scene.audit.stop()
        audit = [one.body for one in await scene.find("audit")]
        kept = repr([vars(one) for kind in STORE_KINDS for one in await office.store.find(kind.name, {})])
    (letter,) = office.mail.of(DUTY)
    ((_, post),) = office.desk.got

    assert letter["Subject"] == "mend on pe1: compensated"
    text = letter.get_content()
    assert "mend on pe1 failed, and what it had done is taken back: refused: no room" in text
    assert f"/workflowRun/{run.id}" in text
    assert post["type"] == "workflowEscalated"
    assert post["notification"]["workflowRun"]["reason"] == "refused: no room"
    sent = [one for one in audit if one["what"] == "notification.sent"]
    assert {(one["on"], one["outcome"]) for one in sent} == {(f"workflowRun/{run.id}", "done")}
    assert all(one["decision"] for one in sent)
    counted = figures.named("hand-offs-per-100")
    assert counted
    assert figures.compute(counted, audit).note.startswith("2 hand-offs")  # the approval is the other
    assert DUTY not in kept


async def test_it_is_told_after_a_restart_and_not_again(office: Office) -> None:
    """The mail server is away, the worker dies; the next one tells what is left, and a repeated event nothing."""
    office.mail.content = "421 4.3.2 shutting down"
    async with office.at_work(ASK, REFUSED, HEAR) as scene:
        run = await failed(scene)
        await office.letters(scene, "sent", "waiting")
    assert office.mail.received == []
    office.mail.content = "250 OK"
    async with office.at_work(ASK, REFUSED, HEAR) as scene:
        await office.letters(scene, "sent", "sent")
        await told_again(scene, run)
    async with office.at_work(ASK, REFUSED, HEAR) as scene:
        await told_again(scene, run)
        await office.letters(scene, "sent", "sent")

    assert [one["Subject"] for one in office.mail.of(DUTY)] == ["mend on pe1: compensated"]
    assert len(office.desk.got) == 1


async def test_what_is_refused_for_the_same_reason_is_told_once_an_hour(office: Office) -> None:
    """As when a fibre cut finds the device locked for each of its alarms, where none may wait for its turn; what ends
    well is told to nobody.
    """
    async with office.at_work(ASK, MEND, HEAR, repair_patience=0) as scene:
        for number in range(5):
            await scene.say("fault", key=f"k{number}", object=f"ge-{number}")
        await scene.pump()
        await office.letters(scene, "sent", "sent")
        states = [one.body["state"] for one in await scene.find("workflowRun")]

    assert sorted(states) == ["refused"] * 4 + ["waitingForApproval"]
    assert "is locked by workflow mend" in office.mail.of(DUTY)[0].get_content()


async def test_whoever_wants_to_hear_of_some_ends_hears_of_those(office: Office) -> None:
    async with office.at_work(ASK, REFUSED, HEAR, states=", states: [failed]") as scene:
        await failed(scene)
        await office.letters(scene, "sent")

    assert office.desk.got == []
    assert len(office.mail.received) == 1


async def test_who_cannot_be_told_is_another_persons_matter(office: Office) -> None:
    """An address that is refused for good: parked with its reason, and by the other channel it is told all the same."""
    office.mail.content = "554 5.7.1 no"
    async with office.at_work(ASK, REFUSED, HEAR) as scene:
        run = await failed(scene)
        await office.letters(scene, "sent", "undelivered")
        await scene.pump()
        ((_, reason),) = scene.bus.parked_

    assert reason.startswith(f"escalation of run {run.id} cannot be sent by mail: the mail server answered 554")
