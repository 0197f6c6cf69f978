"""A worker is killed while customers are told: between a decision and what it says, and while it is on its way."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest

from convergedon.core import settings, tokens, up
from tests.mailserver import MailServer, mail_server

ALARM = "/tmf-api/alarmManagement/v4/alarm"
SERVICE = "/tmf-api/serviceInventory/v4/service"
NOTIFICATION = "/convergedon-api/customerNotification/v1/customerNotification"
ADDRESS = "it@northwind.example"
WORKER = "worker-1"


def rules(folder: Path, mail: MailServer) -> Path:
    (folder / "address").write_text(ADDRESS)
    server = f"kind: email, host: 127.0.0.1, port: {mail.port}, security: none"
    (folder / "notifications.yaml").write_text(
        "default: {holdDown: {critical: 2}}\n"
        f"channels: {{mail: {{{server}, from: noc@net.example, timeout: 2}}}}\n"
        "tenants: {acme: {customers: {northwind: {channels: [{channel: mail, toFile: address}]}}}}\n"
    )
    return folder / "notifications.yaml"


class Operator:
    def __init__(self, system: up.System, given: settings.Settings) -> None:
        headers = {"Authorization": f"Bearer {tokens.issue(given, 'acme', 'admin')}"}
        self.client = httpx.AsyncClient(base_url=system.connection.gateway, timeout=20, headers=headers)
        self.supervisor = system.supervisor

    async def post(self, path: str, body: dict[str, Any]) -> str:
        answer = await self.client.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def kill_worker(self) -> None:
        """The supervisor starts it again; it may be dead already."""
        with suppress(ProcessLookupError):
            os.kill(self.supervisor.components[WORKER].pid, signal.SIGKILL)

    async def reloads(self, given: settings.Settings) -> None:
        """By SIGHUP, which ends no worker: it says in its log what is wrong with the rules, and takes others."""
        await self.supervisor.ready()
        worker, log = self.supervisor.components[WORKER].pid, given.data / "log" / f"{WORKER}.log"
        assert given.notifications
        for text, words in (
            ("default: x", "notifications.yaml, line 1: default: "),
            ("{}", "0 channels and 0 windows"),
        ):
            given.notifications.write_text(text)
            self.supervisor.pass_on(signal.SIGHUP, "workers")
            async with asyncio.timeout(20):
                while words not in log.read_text():
                    await asyncio.sleep(0.05)
        assert self.supervisor.components[WORKER].pid == worker

    async def told(self) -> Counter[str]:
        answer = await self.client.get(NOTIFICATION)
        return Counter(one["notificationType"] for one in answer.json())


def once(kill: Callable[[], None]) -> Callable[[EmailMessage], None]:
    """Kills at the first message of each subject: it was taken, and whoever sent it never hears so."""
    seen: set[str] = set()

    def taken(message: EmailMessage) -> None:
        if message["Subject"] not in seen:
            seen.add(message["Subject"])
            kill()

    return taken


@pytest.mark.crash
@pytest.mark.timeout(200)
async def test_each_is_told_once_whoever_dies_and_a_mailbox_can_tell_what_came_twice(tmp_path: Path) -> None:
    """Killed in the hold-down, at each message that the mail server takes, and before the all-clear."""
    async with mail_server() as mail:
        given = settings.load(data=tmp_path, port=0, notifications=rules(tmp_path, mail))
        async with up.system(given, lab=False, workers=1, adapters=()) as system:
            operator = Operator(system, given)
            mail.taken = once(operator.kill_worker)
            party = [{"id": "northwind", "role": "customer", "@referredType": "Organization"}]
            specification = {"id": "access", "name": "access"}
            service = {"state": "active", "serviceSpecification": specification, "relatedParty": party}
            reference = [{"id": await operator.post(SERVICE, service)}]
            alarm = {
                "alarmType": "communicationsAlarm",
                "perceivedSeverity": "critical",
                "probableCause": "lossOfSignal",
                "sourceSystemId": "somebody",
                "alarmedObject": {"id": "somewhere"},
                "state": "raised",
                "alarmRaisedTime": datetime.now(UTC).isoformat(),
                "affectedService": reference,
            }
            id = await operator.post(ALARM, alarm)
            operator.kill_worker()
            await mail.until(lambda: len(mail.of(ADDRESS)) == 2, 60)
            answer = await operator.client.patch(f"{ALARM}/{id}", json={"state": "cleared"})
            assert answer.status_code == 200, answer.text
            operator.kill_worker()
            await mail.until(lambda: len(mail.of(ADDRESS)) == 4, 60)
            told = await operator.told()
            await operator.reloads(given)
            await operator.client.aclose()

    assert told == {"serviceAffected": 1, "serviceRestored": 1}
    assert [one["Subject"] for one in mail.of(ADDRESS)] == ["Disturbed: access"] * 2 + ["Works again: access"] * 2
    ids = [one["Message-ID"] for one in mail.of(ADDRESS)]
    assert ids[0] == ids[1] != ids[2] == ids[3]
