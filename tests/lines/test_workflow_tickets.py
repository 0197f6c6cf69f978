"""A ticket system that is away, slow, wrong or elsewhere: one ticket for a fault of the lab, whoever asks how often."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from test_workflow_elements import PORT, Site, hasty, on_lab
from websink import Sink, sinking

from convergedon.adapters.testing.turns import BreakingProxy
from convergedon.core.store import Record
from convergedon.mediation.workflows import web
from convergedon.mediation.workflows.definitions import Definition

TICKETS = "open-trouble-ticket"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is not answered so soon is made again."""
    monkeypatch.setattr(web, "PATIENCE", 0.5)


def ticketing(url: str, patience: Mapping[str, int]) -> Definition:
    document = json.loads(json.dumps(hasty(TICKETS).document))
    document["document"]["metadata"]["url"] = f"{url}/tickets"
    document["do"][0]["open"]["timeout"] = {"after": patience}
    return Definition(document)


@asynccontextmanager
async def at_desk(folder: Path, patience: Mapping[str, int]) -> AsyncIterator[tuple[Site, Sink, BreakingProxy]]:
    """A lab, a ticket system, and the way to that."""
    async with sinking() as sink:
        way = BreakingProxy("127.0.0.1", int(sink.url.rpartition(":")[2]))
        url = f"http://127.0.0.1:{await way.start()}"
        async with on_lab(folder / "site", ticketing(url, patience)) as site:
            yield site, sink, way
        await way.stop()


async def ended(site: Site) -> Record:
    """The run, when it has; the network clears its alarm once there is a ticket."""
    runs: list[Record] = []

    async def over() -> bool:
        runs[:] = await site.scene.find("workflowRun")
        asked = [step["name"] for run in runs for step in run.body.get("step", ())]
        if "untilItIsOver" in asked and not site.element.ports()[PORT].linked:
            await site.lab.fault("pe1", "ifup", PORT)
        return bool(runs) and "endedAt" in runs[0].body

    await site.scene.until(over, 60)
    return runs[0]


def done(sink: Sink) -> list[str]:
    """What the ticket system did, each key once; its tickets have their ids from their first answer."""
    return [path for path, _ in sink.done()]


async def test_one_ticket_whatever_the_system_does_on_the_way(tmp_path: Path) -> None:
    """Closed at first; then no answer, two errors and one that says later: the same request under the same key."""
    async with at_desk(tmp_path, {"minutes": 1}) as (site, sink, way):
        way.away, sink.statuses = True, [0, 500, 503, 429, 201, 0, 500, 200]
        await site.lab.fault("pe1", "ifdown", PORT)

        async def asking() -> bool:
            return any(run.body.get("step") for run in await site.scene.find("workflowRun"))

        await site.scene.until(asking)
        way.away = False
        run = await ended(site)
        (alarm,) = await site.scene.find("alarm", id=run.body["alarm"]["id"])

    ticket = run.facts["told"]["do/0/open"]["output"]["id"]
    assert (run.body["state"], alarm.body["state"]) == ("completed", "cleared")
    assert done(sink) == ["/tickets", f"/tickets/{ticket}/resolve"]
    assert sorted(sink.keys().values()) == [3, 5]
    opened, resolved = (body for _, body in sink.done())
    assert opened["externalId"] == run.id
    assert opened["severity"] == "major"
    assert [one["@referredType"] for one in opened["relatedEntity"]] == ["Alarm", "Service"]
    assert resolved == {"alarmClearedTime": alarm.body["alarmClearedTime"]}


@pytest.mark.parametrize(
    ("statuses", "reason", "paths"),
    [
        # it may be open though nobody was told its id
        ([0] * 9, "timeout: open: no answer in time", ["/tickets", "/tickets/withdraw"]),
        # elsewhere is not where it was to go: it is not followed
        ([302], "communication: 127.0.0.1 answered 302", ["/tickets"]),
        ([403], "communication: 127.0.0.1 answered 403", ["/tickets"]),
    ],
)
async def test_no_ticket_is_a_persons_matter(
    statuses: list[int], reason: str, paths: list[str], tmp_path: Path
) -> None:
    """Withdrawn where it may be open, escalated, and the alarm stands as long as the network says so."""
    async with at_desk(tmp_path, {"seconds": 2}) as (site, sink, _):
        sink.statuses = statuses
        await site.lab.fault("pe1", "ifdown", PORT)

        async def given_up() -> bool:
            runs = await site.scene.find("workflowRun")
            if runs and runs[0].facts.get("error"):
                sink.statuses.clear()  # well again
            return bool(runs) and "endedAt" in runs[0].body

        await site.scene.until(given_up, 60)
        (run,) = await site.scene.find("workflowRun")
        (alarm,) = await site.scene.find("alarm", id=run.body["alarm"]["id"])

    assert (run.body["state"], run.body["escalated"], run.body["reason"]) == ("compensated", True, reason)
    assert alarm.body["state"] == "raised"
    assert done(sink) == paths
    assert all(body["externalId"] == run.id for _, body in sink.done())
