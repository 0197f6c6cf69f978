"""Files of call records: each record once, whoever reads, however often it stops, under whatever name it comes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from convergedon.adapters.contract import Observation
from convergedon.adapters.file import mapping, reading
from convergedon.adapters.file.adapter import FileAdapter
from convergedon.core.errors import Unavailable

MAPPING = """
sources:
  voice:
    files: "voice-*.csv"
    format: csv
    tenant: globex
    usageType: voice
    whose: {service: service}
    start: {column: begin}
    counts: {seconds: {column: seconds}}
    texts: {called: {column: called}}
  data:
    files: "*.jsonl"
    format: jsonl
    usageType: ip-session
    whose: {address: ip}
    start: {column: from, format: epoch}
    end: {column: to, format: epochMillis}
    counts: {octets: {column: kilobytes, times: 1024}}
"""
HEADER = "service,begin,seconds,called\n"
LONG_AGO = time.time() - 60


def line(number: int) -> str:
    return f"svc-{number % 3},2026-05-01T12:00:{number % 60:02d}Z,{number},+49{number}\n"


class Safe:
    """A bus that keeps what has the same id once; ``fails`` so many reports, before or after they were kept."""

    def __init__(self) -> None:
        self.stored: dict[str, Observation] = {}
        self.reports = 0
        self.fails: dict[int, str] = {}

    async def report(self, seen: Observation) -> None:
        await asyncio.sleep(0)
        self.reports += 1
        fails = self.fails.get(self.reports)
        if fails != "before":
            self.stored[seen.id] = seen
        if fails:
            raise Unavailable("the bus is away")

    @property
    def records(self) -> list[dict[str, Any]]:
        return [record for seen in self.stored.values() for record in seen.attributes["records"]]


@pytest.fixture
def safe() -> Safe:
    return Safe()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    (tmp_path / "calls").mkdir()
    return tmp_path / "calls"


def made(folder: Path) -> FileAdapter:
    return FileAdapter(folder, mapping.load(folder.parent / "mapping.yaml"), "acme")


def drop(folder: Path, name: str, content: str | bytes) -> Path:
    """As a writer does it: whole under a name that nobody reads, then renamed; long enough ago."""
    hidden = folder / f".{name}"
    hidden.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(hidden, (LONG_AGO, LONG_AGO))
    return hidden.rename(folder / name)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def read(folder: Path, safe: Safe) -> FileAdapter:
    """Let an adapter read all that is there."""
    adapter = made(folder)
    await adapter.start(safe.report)
    try:
        await until(lambda: not [one for one in folder.iterdir() if one.is_file() and not one.name.startswith(".")])
    finally:
        await adapter.stop()
    return adapter


async def test_every_record_arrives_with_what_the_mapping_says(folder: Path, safe: Safe) -> None:
    drop(folder, "voice-1.csv", "\ufeff" + HEADER + line(1) + "\n" + line(2).replace("\n", "\r\n") + line(3).strip())
    drop(folder, "s.jsonl", b'{"ip": "2001:DB8::1", "from": 1777636800, "to": "1777636801500", "kilobytes": 1.5}\n')
    adapter = await read(folder, safe)
    voice, data = sorted(safe.stored.values(), key=lambda seen: seen.device, reverse=True)

    assert [(one["service"], one["counts"], one["texts"]) for one in voice.attributes["records"]] == [
        (f"svc-{n % 3}", {"seconds": n}, {"called": f"+49{n}"}) for n in (1, 2, 3)
    ]
    assert [one["id"].rpartition(":")[2] for one in voice.attributes["records"]] == ["2", "4", "5"]
    assert (voice.kind, voice.tenant, data.tenant, voice.attributes["usageType"]) == ("call", "globex", "acme", "voice")
    (session,) = data.attributes["records"]
    assert (session["address"], session["start"], session["end"]) == ("2001:db8::1", 1777636800.0, 1777636801.5)
    assert session["counts"] == {"octets": 1536}
    assert sorted(one.name for one in (folder / "done").iterdir()) == ["s.jsonl", "voice-1.csv"]
    assert (await adapter.health())["records"] == 4


async def test_a_file_that_is_not_whole_is_left_alone(folder: Path, safe: Safe) -> None:
    """By its name, or because it was written to a moment ago by one who renames nothing."""
    for name in (".voice-1.csv", "voice-1.csv.part", "voice-1.csv.tmp"):
        (folder / name).write_text(HEADER + line(1))
        os.utime(folder / name, (LONG_AGO, LONG_AGO))
    (folder / "voice-now.csv").write_text(HEADER)
    os.utime(folder / "voice-now.csv", (time.time() + 600, time.time() + 600))
    drop(folder, "voice-2.csv", HEADER + line(2))
    (folder / "notes.txt").write_text("nobody's")
    adapter = made(folder)
    await adapter.start(safe.report)
    await until(lambda: (folder / "done" / "voice-2.csv").exists())
    health = await adapter.health()
    await adapter.stop()

    assert [record["counts"]["seconds"] for record in safe.records] == [2]
    assert health["unknown"] == 1
    assert (folder / "voice-now.csv").exists()


async def test_a_file_twice_changes_nothing_also_under_another_name(folder: Path, safe: Safe) -> None:
    for name in ("voice-1.csv", "voice-again.csv", "voice-1.csv"):
        drop(folder, name, HEADER + line(1))
        adapter = await read(folder, safe)

    assert (len(safe.records), safe.reports) == (1, 1)
    assert adapter.counts["repeated"] == 1
    assert len(list((folder / "done").iterdir())) == 3


async def test_bad_lines_are_beside_with_their_number_and_reason_and_the_others_are_read(
    folder: Path, safe: Safe
) -> None:
    bad = [
        "svc,yesterday,1,x\n",
        "svc,2026-05-01T12:00:00Z,1.5,x\n",
        "too,few\n",
        'svc,"open,1,x\n',
        "x" * 70_000 + "\n",
    ]
    drop(folder, "voice-1.csv", (HEADER + line(1) + "".join(bad)).encode() + b"\xff,,,\n" + line(9).encode())
    adapter = await read(folder, safe)
    (beside,) = (folder / "rejected").iterdir()
    told = [orjson.loads(one) for one in beside.read_bytes().splitlines()]

    assert [record["counts"]["seconds"] for record in safe.records] == [1, 9]
    assert {one["file"] for one in told} == {"voice-1.csv"}
    assert [one["line"] for one in told] == [3, 4, 5, 6, 7, 8]
    reasons = (
        "begin: 'yesterday' is no time",
        "seconds: '1.5' is no whole",
        "has 2 columns",
        "no CSV",
        "longer",
        "utf-8",
    )
    assert all(words in one["reason"] for words, one in zip(reasons, told, strict=True))
    assert [one["text"] for one in told[:3]] == [one.strip() for one in bad[:3]]
    assert (await adapter.health())["rejected"] == 6


@pytest.mark.parametrize("content", ["service,begin\n" + line(1), HEADER + "nothing,of,it,fits\n", "\n" * 3])
async def test_a_file_of_which_nothing_can_be_read_may_come_again(folder: Path, safe: Safe, content: str) -> None:
    """A wrong mapping is mended and the file dropped once more: it is not one that was read before."""
    for _ in range(2):
        drop(folder, "voice-1.csv", content)
        adapter = await read(folder, safe)

        assert (adapter.counts["refused"], adapter.counts["repeated"]) == (1, 0)
        assert [one for one in (folder / "rejected").iterdir() if one.suffix != ".jsonl"]
    assert safe.records == []


@pytest.mark.parametrize("stops", ["before", "after"])
async def test_a_restart_in_the_middle_loses_nothing_and_repeats_nothing(
    folder: Path, safe: Safe, stops: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stops, also when a part was stored and nothing written down of it: the same parts come again."""
    monkeypatch.setattr(reading, "LINES_TOGETHER", 10)
    lines = [line(n) if n % 7 else f"bad {n}\n" for n in range(1, 301)]
    drop(folder, "voice-1.csv", HEADER + "".join(lines))
    for turn in range(1, 8):
        safe.reports, safe.fails = 0, dict.fromkeys(range(3 + turn % 2, 500), stops)
        adapter = made(folder)
        await adapter.start(safe.report)
        await until(lambda: safe.reports > 3)
        if turn == 4:  # as after a crash, which writes nothing down
            for one in (folder / ".state").glob("*.json"):
                one.unlink()
        await adapter.stop()
    safe.fails = {}
    await read(folder, safe)

    assert sorted(one["counts"]["seconds"] for one in safe.records) == [n for n in range(1, 301) if n % 7]
    (beside,) = (folder / "rejected").iterdir()
    told = [orjson.loads(one)["line"] for one in beside.read_bytes().splitlines()]
    assert told == [n + 1 for n in range(1, 301) if not n % 7]


async def test_two_processes_share_a_folder_and_read_each_file_once(folder: Path, safe: Safe) -> None:
    """The lock of a file is the operating system's: it goes with the process that has it."""
    for number in range(40):
        drop(folder, f"voice-{number}.csv", HEADER + "".join(line(10 * number + n) for n in range(10)))
    both = [made(folder), made(folder)]
    for adapter in both:
        await adapter.start(safe.report)
    await until(lambda: len(list((folder / "done").iterdir())) == 40)
    for adapter in both:
        await adapter.stop()

    assert (len(safe.records), safe.reports) == (400, 40)
    assert sum(adapter.counts["files"] for adapter in both) == 40
    assert all(adapter.counts["repeated"] == 0 for adapter in both)


async def test_a_bus_that_is_away_is_waited_for(folder: Path, safe: Safe) -> None:
    safe.fails = {1: "before", 2: "after", 3: "before"}
    drop(folder, "voice-1.csv", HEADER + line(1))
    await read(folder, safe)

    assert len(safe.records) == 1
    assert safe.reports == 4


async def test_a_mapping_that_was_read_again_holds_from_the_next_file_on(folder: Path, safe: Safe) -> None:
    adapter = made(folder)
    await adapter.start(safe.report)
    drop(folder, "calls-1.csv", HEADER + line(1))
    async with asyncio.timeout(20):
        while (await adapter.health())["unknown"] == 0:
            await asyncio.sleep(0.01)
    (folder.parent / "mapping.yaml").write_text(MAPPING.replace("voice-*", "calls-*"))
    adapter.become(made(folder))
    await until(lambda: (folder / "done" / "calls-1.csv").exists())
    await adapter.stop()

    assert len(safe.records) == 1
