"""The conformance kit sees what is broken: each of these adapters breaks one promise, and one case says so."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convergedon.adapters.contract import Capability, Device, Difference, Intent, Report, State
from convergedon.adapters.readandset import Setting
from convergedon.adapters.testing.cases import CASES
from convergedon.adapters.testing.checking import Findings, Verdict, strange, tried
from convergedon.adapters.testing.proxy import Fault, Proxy
from convergedon.adapters.testing.trial import Trial, trial_of
from convergedon.core import settings
from convergedon.core.errors import Misconfigured, OutcomeUnknown

sys.path.insert(0, str(Path(__file__).parents[1] / "samples" / "shelf"))
from convergedon_shelf import ShelfAdapter, create
from convergedon_shelf.trial import TRIAL


class Loud(ShelfAdapter):
    name = "SHELF"


class Open(ShelfAdapter):
    async def start(self, report: Report) -> Sequence[str]:
        self._left = socket.socket()
        return []


class Mute(ShelfAdapter):
    async def health(self) -> Mapping[str, Any]:
        return {"state": "fine"}


class Remembering(ShelfAdapter):
    """Believes itself, not the shelf."""

    async def observe(self, intent: Intent) -> State:
        return getattr(self, "_memory", None)

    async def set(self, intent: Intent, state: State) -> None:
        await super().set(intent, state)
        self._memory = state


class Boasting(ShelfAdapter):
    async def capabilities(self, device: str) -> frozenset[Capability]:
        return frozenset({"read", "candidate"})


class Yielding(ShelfAdapter):
    """Takes what it should refuse for something else."""

    async def set(self, intent: Intent, state: State) -> None:
        await super().set(intent, {**state, "speed": min(int(state.get("speed", 1)), 1000)} if state else state)

    async def verify(self, change: Setting) -> Sequence[Difference]:
        return ()


class Hasty(ShelfAdapter):
    """Changes the shelf while it prepares."""

    async def prepare(self, intent: Intent) -> Setting:
        change = await super().prepare(intent)
        await self.set(intent, change.target)
        return change


class Stuck(ShelfAdapter):
    """Says that it has undone what it has not."""

    async def rollback(self, change: Setting) -> Sequence[Difference]:
        return ()


class Hopeful(ShelfAdapter):
    """Takes no answer for a good one, and does not look."""

    async def verify(self, change: Setting) -> Sequence[Difference]:
        return ()

    async def _answer(self, device: str, line: str) -> str:
        try:
            return await super()._answer(device, line)
        except OutcomeUnknown:
            return "none" if line.startswith("get") else "ok"


class Waiting(ShelfAdapter):
    """Waits for a silent shelf for ever, or nearly."""

    async def _answer(self, device: str, line: str) -> str:
        reader, writer = await asyncio.open_connection(*self._places[device])
        try:
            writer.write(f"{line}\n".encode())
            return (await reader.readuntil(b"\n")).decode().strip()
        finally:
            writer.transport.abort()


class Trusting(ShelfAdapter):
    """Waits for ever for the rest of what a shelf has begun to say."""

    async def _answer(self, device: str, line: str) -> str:
        reader, writer = await asyncio.open_connection(*self._places[device])
        try:
            writer.write(f"{line}\n".encode())
            begun = await asyncio.wait_for(reader.read(1), 1)
            return (begun + await reader.readuntil(b"\n")).decode().strip()
        finally:
            writer.transport.abort()


class Greedy(ShelfAdapter):
    """Takes what has come for all there is to come."""

    async def _answer(self, device: str, line: str) -> str:
        reader, writer = await asyncio.open_connection(*self._places[device])
        try:
            writer.write(f"{line}\n".encode())
            return (await reader.read(1000)).decode().strip()
        finally:
            writer.transport.abort()


class Fragile(ShelfAdapter):
    """Breaks on values that nobody asks for."""

    async def set(self, intent: Intent, state: State) -> None:
        await super().set(intent, {name: int(value) for name, value in state.items()} if state else state)


class Late(ShelfAdapter):
    async def prepare(self, intent: Intent) -> Setting:
        return await super().prepare(replace(intent, deadline=2e9))


BROKEN = {
    Loud: "it-has-a-name-and-says-whether-it-performs",
    Open: "stopping-leaves-no-socket-and-it-starts-again",
    Mute: "health-is-json-with-a-state",
    Remembering: "an-intent-of-another-adapter-object-is-done-once",
    Boasting: "a-device-says-what-it-can-do",
    Yielding: "a-refusal-is-a-value-with-words-and-changes-nothing",
    Hasty: "preparing-changes-nothing-and-tells-what-would",
    Stuck: "rolling-back-brings-back-what-was",
    Hopeful: "questions-lost-on-the-way",
    Waiting: "a-silent-device",
    Trusting: "answers-that-stop-in-the-middle",
    Greedy: "answers-that-come-in-halves",
    Fragile: "an-intent-that-nobody-would-ask-for-ends-in-an-outcome",
    Late: "what-comes-too-late-changes-nothing",
}
QUICK = replace(TRIAL, patience=8.0)


def made_by(kind: type[ShelfAdapter]) -> Callable[..., ShelfAdapter]:
    def factory(given: settings.Settings, devices: Mapping[str, Device]) -> ShelfAdapter:
        return kind(create(given, devices)._places)

    return factory


async def verdict(kind: type[ShelfAdapter], name: str, trial: Trial = QUICK) -> Verdict:
    (case,) = [case for case in CASES if case.name == name]
    return await tried("shelf", trial, case, made_by(kind))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_promise_is_seen(kind: type[ShelfAdapter]) -> None:
    found = await verdict(kind, BROKEN[kind])

    assert found.result == "failed"
    assert found.words


async def test_a_waiver_says_why_and_is_refused_when_it_is_not_needed() -> None:
    """Nor may one name a case that there is not, or that does not concern the adapter."""
    name = "health-is-json-with-a-state"
    waived = replace(QUICK, waivers={name: "the shelf has no health", "no-such-case": "?", "half-packets": "?"})
    needed, unneeded = [await verdict(kind, name, waived) for kind in (Mute, ShelfAdapter)]
    aside = await verdict(ShelfAdapter, "half-packets", waived)

    assert (needed.result, unneeded.result, aside.result) == ("waived", "unneeded", "unneeded")
    assert needed.words.startswith("the shelf has no health (")
    assert [one.name for one in strange(waived)] == ["no-such-case"]
    assert Findings("shelf", "1", "x", [needed]).holds
    assert not Findings("shelf", "1", "x", [needed, unneeded]).holds


async def test_golden_cases_that_come_out_otherwise_say_which_and_how(tmp_path: Path) -> None:
    (tmp_path / "fast").mkdir()
    (tmp_path / "fast" / "intents.yaml").write_text("[{values: {speed: 10}}]")
    (tmp_path / "fast" / "outcomes.yaml").write_text(
        "[{status: applied, diff: {speed: [null, 20]}, state: {speed: 20}}]"
    )
    found = await verdict(ShelfAdapter, "golden-cases-come-out-as-they-are-written", replace(QUICK, golden=tmp_path))
    none = await verdict(ShelfAdapter, "there-are-golden-cases", replace(QUICK, golden=tmp_path / "fast"))

    assert found.result == none.result == "failed"
    assert "fast/outcomes.yaml, number 0: wanted" in found.words


def test_what_cannot_be_tried_is_one_sentence() -> None:
    with pytest.raises(Misconfigured, match=r"there is no adapter shelves; installed are .*loopback"):
        trial_of("shelves")


def test_the_findings_are_for_people_and_for_machines() -> None:
    said = [
        Verdict("contract", "a", "It is so.", "passed", "", 0.1),
        Verdict("faults", "b", "", "not applicable", "why"),
    ]
    found = Findings("shelf", "1.2.0", "convergedon-shelf", said)

    assert found.document["holds"] is True
    assert (found.document["passed"], found.document["not applicable"]) == (1, 1)
    assert found.document["cases"][0]["promise"] == "It is so."
    assert found.words.splitlines()[0] == "shelf (convergedon-shelf 1.2.0)"
    assert found.words.splitlines()[-1] == "1 passed, 1 not applicable: it holds"


@pytest.mark.parametrize(
    ("fault", "reads"),
    [
        (Fault(held_after=4, held=0.02), [b"0123", b"456789", b""]),
        (Fault(held_after=0, held=0.02), [b"0123456789", b""]),
        (Fault(held_after=10, held=0.02), [b"0123456789", b""]),
        (Fault(cut_after=4), [b"0123", b""]),
        (Fault(cut_after=4, reset=True), [b"0123", ConnectionResetError]),
        (Fault(cut_after=14, once=True, times=1), [b"0123456789", b""]),
    ],
)
async def test_half_of_what_is_said_is_by_itself_on_the_wire(fault: Fault, reads: list[Any]) -> None:
    """And the rest comes a moment later, or the end, or the connection is broken off."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"0123456789")
        writer.close()

    async def heard(proxy: Proxy) -> list[Any]:
        loop, found = asyncio.get_running_loop(), list[Any]()
        with socket.socket() as link:  # a stream of asyncio forgets what came before a reset
            link.setblocking(False)
            await loop.sock_connect(link, (proxy.host, proxy.port))
            with suppress(ConnectionResetError):
                while not found or found[-1]:
                    found.append(await loop.sock_recv(link, 100))
                return found
        return [*found, ConnectionResetError]

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, Proxy(*server.sockets[0].getsockname()[:2]) as proxy:
        proxy.suffer(fault)
        first, second, third = [await heard(proxy) for _ in range(3)]

    assert first == reads
    if fault.once:  # the bytes of both connections count, and then it is over
        assert (second, third) == ([b"0123", b""], [b"0123456789", b""])
    else:
        assert second == third == reads


async def test_the_sample_keeps_what_is_promised_of_halves() -> None:
    for name in (
        "answers-that-come-in-halves",
        "answers-that-stop-in-the-middle",
        "answers-cut-in-the-middle",
        "a-silent-device",
    ):
        found = await verdict(ShelfAdapter, name, TRIAL)
        assert found.result == "passed", found.words
