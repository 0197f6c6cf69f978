"""Several adapter processes read one folder: each record once, also where one of them is killed in the middle."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

FILES, LINES = 12, 4_000
MAPPING = """
sources:
  voice:
    files: "*.csv"
    format: csv
    usageType: voice
    whose: {service: service}
    start: {column: begin}
    counts: {seconds: {column: seconds}}
"""
READER = """
import asyncio, os, sys
from pathlib import Path
import orjson
from convergedon.adapters.file import mapping
from convergedon.adapters.file.adapter import FileAdapter

async def main():
    folder, told = Path(sys.argv[1]), os.open(sys.argv[2], os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    async def report(seen):
        seconds = [record["counts"]["seconds"] for record in seen.attributes["records"]]
        os.write(told, orjson.dumps([seen.id, seconds]) + b"\\n")
        await asyncio.sleep(0.005)

    adapter = FileAdapter(folder, mapping.load(folder.parent / "mapping.yaml"), "acme")
    await adapter.start(report)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Reader:
    """A process with an adapter, and what it has reported."""

    def __init__(self, folder: Path, name: str) -> None:
        self._told = folder.parent / name
        command = [sys.executable, "-P", "-c", READER, str(folder), str(self._told)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def ready(self) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline() == b"ready\n"

    @property
    def told(self) -> list[tuple[str, list[int]]]:
        """What it has reported whole; the bus that is played here keeps each id once."""
        written = self._told.read_bytes() if self._told.exists() else b""
        return [orjson.loads(line) for line in written.splitlines(keepends=True) if line.endswith(b"\n")]

    def end(self, kill: bool = False) -> None:
        (self.process.kill if kill else self.process.terminate)()
        self.process.wait(timeout=20)
        if self.process.stdout:
            self.process.stdout.close()


def drop(folder: Path, number: int) -> None:
    lines = [f"svc-1,2026-05-01T12:00:00Z,{number * LINES + n}" for n in range(LINES)]
    part = folder / f".{number}.csv"
    part.write_text("\n".join(["service,begin,seconds", *lines]))
    os.utime(part, (time.time() - 60,) * 2)
    part.rename(folder / f"{number}.csv")


@pytest.mark.timeout(120)
async def test_nothing_is_lost_and_nothing_is_read_twice_though_one_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "calls"
    folder.mkdir()
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    readers = [Reader(folder, "one"), Reader(folder, "two")]
    try:
        for reader in readers:
            reader.ready()
        for number in range(FILES):
            drop(folder, number)
        async with asyncio.timeout(60):
            while not all(len(reader.told) > 10 for reader in readers):
                await asyncio.sleep(0.005)
            readers[0].end(kill=True)
            readers.append(Reader(folder, "three"))
            while len(list((folder / "done").iterdir())) < FILES:
                await asyncio.sleep(0.05)
    finally:
        for reader in readers:
            if reader.process.returncode is None:
                reader.end()
    every = [part for reader in readers for part in reader.told]
    once = dict(every)

    assert sorted(second for seconds in once.values() for second in seconds) == list(range(FILES * LINES))
    assert all(once[id] == seconds for id, seconds in every), "what came again came as it was"
    assert len(every) - len(once) <= 20, "of a killed one only what it had not written down"
