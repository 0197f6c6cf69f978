"""A worker may die at any write of a workflow with every kind of task: it goes on exactly where it was.

What a device and a web service saw is counted by the keys of what was asked of them: nothing is done twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from faulty import FaultyStore
from scene import STORE_KINDS, Scene, pumped, twice
from test_workflow_line import ASK, CLEARED, MARA, PASSES, SERVICE, WAY, definition, run_of
from websink import Sink, sinking

from convergedon.core.errors import Unavailable
from convergedon.core.memory import MemoryStore
from convergedon.core.store import Record
from convergedon.handlers.apis import APIS
from convergedon.handlers.remediation import WORKFLOW_APPROVAL
from convergedon.handlers.resource import Resources
from convergedon.mediation.workflows import remediation
from convergedon.mediation.workflows.definitions import Definition

When = Literal["before", "after"]


def change(instance: str) -> dict[str, Any]:
    there = {**SERVICE, "instance": instance}
    back = [{"back": {"call": "intent", "with": {**there, "values": None}}}]
    return {"call": "intent", "with": {**there, "values": {"via": "ge-2"}}, "metadata": {"compensate": back}}


def see(instance: str) -> dict[str, Any]:
    return {"call": "observe", "with": change(instance)["with"]}


def tell(url: str, what: str) -> dict[str, Any]:
    back = [{"withdraw": {"call": "http", "with": {"method": "post", "endpoint": f"{url}/withdraw", "body": what}}}]
    told = {"method": "post", "endpoint": f"{url}/{what}", "body": "${ $workflow.input.alarm.id }"}
    return {"call": "http", "with": told, "metadata": {"compensate": back}}


MAY = {"call": "policy", "with": {"action": "approve", "resource": {"kind": "workflowRun"}}}
NOTE = {"emit": {"event": {"with": {"type": "noted", "data": "${ $workflow.input.target }"}}}}
HEAR = {"listen": {"to": {"one": {"with": CLEARED}}}, "timeout": {"after": WAY}}
NO = {**change("no"), "with": {**SERVICE, "instance": "no", "values": {"refuse": "not here"}}}
AGAIN = {"limit": {"attempt": {"count": 1}}}
REFUSED = {"errors": {"with": {"type": "refused"}}, "do": [{"note": NOTE}]}
WORSE = {"raise": {"error": {"type": "worse", "status": 500, "detail": "worse than before"}}}


def whole(url: str, last: dict[str, Any], pause: dict[str, int]) -> Definition:
    """Each kind of task that waits for somebody or does something."""
    return definition(
        {"may": MAY},
        ASK,
        {"open": tell(url, "open")},
        {"each": {"for": {"each": "one", "in": '${ ["a", "b"] }'}, "do": [{"mend": change("${ $one }")}]}},
        {"both": {"fork": {"branches": [{"left": change("l")}, {"right": change("r")}]}}},
        {"attempt": {"try": [{"no": NO}], "catch": {**REFUSED, "retry": {**AGAIN, "delay": pause}}}},
        {"rest": {"wait": pause}},
        {"look": {"for": {"each": "one", "in": '${ ["a", "b", "l", "r"] }'}, "do": [{"see": see("${ $one }")}]}},
        {"end": last},
        {"clear": {"call": "clear"}},
        {"resolve": tell(url, "resolve")},
    )


@asynccontextmanager
async def playing(
    folder: Path, sink: Sink, last: dict[str, Any], store: Any, pause: Mapping[str, int] = PASSES
) -> AsyncIterator[Scene]:
    async with pumped(folder, store, workflows=[whole(sink.url, last, dict(pause))]) as scene:
        yield scene


async def through(scene: Scene, store: FaultyStore) -> Record:
    """The run from its alarm to its end; what the gateway writes does not fail."""
    await scene.say("fault")
    await scene.pump()
    body = {"workflowRun": {"id": (await run_of(scene)).id}, "decision": "approved"}
    gateway = Resources(store.inner, APIS, "http://gateway.example")
    await gateway.create(WORKFLOW_APPROVAL, "acme", body, {"owner": MARA.document})
    await scene.pump()
    await timers(scene)
    if "endedAt" not in (await run_of(scene)).body:
        await scene.say("clear")
        await scene.pump()
        await timers(scene)
    return await run_of(scene)


async def timers(scene: Scene) -> None:
    """Let timers run out until the run waits for nothing that time brings; a worker that dies looks once more."""

    async def idle() -> bool:
        with suppress(Unavailable):
            await remediation.look_after(scene.work)
        await scene.pump()
        run = await run_of(scene)
        return "endedAt" in run.body or run.body["step"][-1]["function"] == "listen"

    await scene.until(idle)


def done_by(run: Record) -> list[tuple[str, str]]:
    return [(step["path"], step["status"]) for step in run.body["step"]]


def seen(scene: Scene) -> list[tuple[str, str, Any]]:
    return [(intent.key.partition(":")[2], intent.instance, intent.values) for intent in scene.network.performed]


ENDS = {"completed": HEAR, "compensated": WORSE}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("end", ENDS)
async def test_whichever_write_a_worker_dies_at_the_run_ends_as_it_would(tmp_path: Path, end: str, when: When) -> None:
    async with sinking() as sink:
        counting = FaultyStore(MemoryStore(STORE_KINDS))
        async with playing(tmp_path, sink, ENDS[end], counting) as scene:
            run = await through(scene, counting)
            steps, intents = done_by(run), seen(scene)
        asked = [path for path, _ in sink.done()]
        assert run.body["state"] == end
        assert len(intents) == len({key for key, *_ in intents})
        assert {kind.rpartition("/")[2] for kind, _ in steps} >= {"may", "ask", "open", "left", "rest", "see", "note"}
        assert asked == (["/open", "/resolve"] if end == "completed" else ["/open", "/withdraw"])
        assert counting.writes > 20

        for number in range(1, counting.writes + 1):
            sink.got.clear()
            store = FaultyStore(MemoryStore(STORE_KINDS), number, when)
            async with playing(tmp_path, sink, ENDS[end], store) as scene:
                run = await through(scene, store)

                assert (number, run.body["state"]) == (number, end)
                assert (number, done_by(run)) == (number, steps)
                assert (number, seen(scene)) == (number, intents)
                assert (number, [path for path, _ in sink.done()]) == (number, asked)
                assert scene.bus.parked_ == [], number


async def test_whichever_message_comes_twice_changes_nothing(tmp_path: Path) -> None:
    """As when a worker dies between its last write and saying so: the message is delivered to another."""
    async with sinking() as sink:
        store = FaultyStore(MemoryStore(STORE_KINDS))
        async with playing(tmp_path, sink, HEAR, store, {"milliseconds": 700}) as scene:
            await scene.say("fault")
            changed = await twice(scene)
            body = {"workflowRun": {"id": (await run_of(scene)).id}, "decision": "approved"}
            await scene.resources.create(WORKFLOW_APPROVAL, "acme", body, {"owner": MARA.document})
            changed += await twice(scene)
            await timers(scene)
            await scene.say("clear")
            changed += await twice(scene)
            run = await run_of(scene)

    assert changed == []
    assert run.body["state"] == "completed"
    assert set(sink.keys().values()) == {1}
