"""An export proves itself by the lines that the documentation gives, and by nothing else of ours."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from convergedon.core import audit, checkpoints
from convergedon.core.audit import KINDS, Audit
from convergedon.core.checkpoints import Notary
from convergedon.core.errors import ConvergedonError
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.proof import Asked, Exported, Proof
from convergedon.core.verification import Trail

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
KEY = Ed25519PrivateKey.generate()
Lines = list[dict[str, Any]]


class Clock:
    """A day for each step, for records and checkpoints alike."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.day = 0
        monkeypatch.setattr(audit, "time", lambda: self.now.timestamp())
        monkeypatch.setattr(checkpoints, "now", lambda: self.now)

    @property
    def now(self) -> datetime:
        return datetime(2026, 5, 1 + self.day, tzinfo=UTC)


class System:
    """Two long-lived writers and one that begins late, of two tenants, with a checkpoint each day."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.store, self.bus = clock, MemoryStore(KINDS), MemoryBus()

    async def live(self, days: int = 6) -> None:
        writers = [Audit(self.store, self.bus, name) for name in ("gateway", "worker")]
        for day in range(days):
            self.clock.day = day
            if day == 3:
                writers.append(Audit(self.store, self.bus, "late"))
            for place, writer in enumerate(writers):
                for number in range(2 if day % (place + 1) == 0 else 0):
                    tenant = "acme" if number else "globex"
                    writer.record("order.completed", tenant, "vendor", f"productOrder/{day}", "done", words="äß€")
                await writer._flush()
            await Notary(self.bus, KEY).attest()

    async def export(self, asked: Asked) -> tuple[Lines, Exported]:
        trail = Trail(KEY.public_key())
        await trail.read(self.bus)
        proof = Proof(self.store, trail, asked, checkpoints.pem(KEY.public_key()))
        lines = [orjson.loads(line) async for line in proof.lines()]
        return lines, proof.done


@pytest.fixture
async def system(monkeypatch: pytest.MonkeyPatch) -> System:
    made = System(Clock(monkeypatch))
    await made.live()
    return made


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the lines of the documentation on an export: what they print, or why they end."""
    (code,) = re.findall(r"<!-- check -->\n```python\n(.*?)```\n<!-- /check -->", PAGE, re.DOTALL)
    lines_of_code = compile(code, "check.py", "exec")

    def run(lines: Lines, key: Ed25519PrivateKey = KEY) -> str:
        export, pem = tmp_path / "export.jsonl", tmp_path / "key.pem"
        export.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
        pem.write_text(checkpoints.pem(key.public_key()))
        monkeypatch.setattr(sys, "argv", ["check.py", str(export), str(pem)])
        said = StringIO()
        space: dict[str, Any] = {"open": lambda *given, **named: kept.enter_context(open(*given, **named))}  # noqa: SIM115
        with ExitStack() as kept, redirect_stdout(said):
            try:
                exec(lines_of_code, space)
            except Exception as error:
                return f"refused: {error!r}"
        return said.getvalue().strip()

    return run


def test_about_thirty_lines_are_enough() -> None:
    (code,) = re.findall(r"<!-- check -->\n```python\n(.*?)```", PAGE, re.DOTALL)

    assert len(code.splitlines()) <= 36
    assert "convergedon" not in code.replace('"convergedon', "")


MAY_3, MAY_4 = datetime(2026, 5, 3, tzinfo=UTC), datetime(2026, 5, 4, tzinfo=UTC)
SPANS = [Asked(), Asked("acme"), Asked(since=MAY_3), Asked(until=MAY_3), Asked("globex", MAY_3, MAY_4)]


@pytest.mark.parametrize("asked", SPANS, ids=str)
async def test_an_export_is_whole(system: System, check: Callable[..., str], asked: Asked) -> None:
    """Of a tenant, of a span: what was asked for in clear, the rest by hashes, and nothing of others."""
    lines, done = await system.export(asked)

    texts = [orjson.loads(line["text"]) for line in lines if "text" in line]
    everything = [record.body for record in await system.store.find("audit", {})]
    assert sorted(map(orjson.dumps, texts)) == sorted(audit.canonical(body) for body in everything if asked.wants(body))
    assert (done.told, done.fresh) == (len(texts), 0)
    assert not asked.tenant or all(text["tenant"] == asked.tenant for text in texts)
    assert check(lines).startswith(f"{done.told + done.hashed} records, whole up to checkpoint ")


async def test_an_export_by_another_key_is_refused(system: System, check: Callable[..., str]) -> None:
    lines, _ = await system.export(Asked())

    assert "InvalidSignature" in check(lines, Ed25519PrivateKey.generate())


def places(lines: Lines, member: str) -> list[int]:
    return [place for place, line in enumerate(lines) if member in line]


@pytest.mark.parametrize("asked", [SPANS[0], SPANS[4]], ids=str)
async def test_whatever_is_taken_out_is_missed(system: System, check: Callable[..., str], asked: Asked) -> None:
    """Any one line, the last ones, all of a writer."""
    lines, _ = await system.export(asked)
    writers = sorted({line["writer"] for line in lines if "writer" in line})

    for place in range(1, len(lines)):
        assert check(lines[:place] + lines[place + 1 :]).startswith("refused: "), lines[place]
    for left in (2, len(lines) // 2, len(lines) - 2):
        assert check(lines[:left]).startswith("refused: ")
    for writer in writers:
        assert check([line for line in lines if line.get("writer") != writer]).startswith("refused: ")


async def test_whatever_is_changed_is_seen(system: System, check: Callable[..., str]) -> None:
    """A text, a hash, an order, an addition; a checkpoint, and its signature."""
    lines, _ = await system.export(Asked("acme"))
    text, hashed, signed = places(lines, "text")[1], places(lines, "digest")[0], places(lines, "checkpoint")[2]

    def changed(place: int, **members: Any) -> Lines:
        return [*lines[:place], {**lines[place], **members}, *lines[place + 1 :]]

    said = lines[text]
    after = next(place for place in range(text + 1, len(lines)) if lines[place]["writer"] == said["writer"])
    forged = {**said, "sequence": said["sequence"] + 1, "previous": said["hash"]}
    for tampered in (
        changed(text, text=said["text"].replace("done", "none")),
        changed(text, hash="0" * 64),
        changed(text, sequence=said["sequence"] + 1),
        changed(text, text=lines[places(lines, "text")[0]]["text"]),
        changed(hashed, digest="0" * 64),
        changed(hashed, previous="f" * 64),
        changed(signed, checkpoint=lines[signed]["checkpoint"].replace("2026", "2027")),
        changed(signed, signature="0" * 128),
        [*lines[:text], lines[after], *lines[text + 1 : after], said, *lines[after + 1 :]],
        [*lines, forged],
        [*lines, lines[text]],
    ):
        assert check(tampered).startswith("refused: ")


async def test_what_no_checkpoint_covers_is_left_out_and_counted(system: System, check: Callable[..., str]) -> None:
    writer = Audit(system.store, system.bus, "new")
    writer.record("order.completed", "acme", "vendor", "productOrder/1", "done")
    await writer.stop()

    lines, done = await system.export(Asked("acme"))

    assert done.fresh == 1
    assert not check(lines).startswith("refused: ")


async def test_a_record_that_is_not_whole_is_not_exported(system: System) -> None:
    """It would be a proof of something else; which record it is, verify says."""
    gone = next(id for id in system.store._kept["audit"] if id.startswith("worker") and id.endswith("2"))
    del system.store._kept["audit"][gone]

    with pytest.raises(ConvergedonError, match=f"audit record {gone} is missing"):
        await system.export(Asked())
