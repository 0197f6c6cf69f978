"""A large file of call records: how fast it is read, and that its size does not matter to the process that reads it.

A generated file of some hundred megabytes is dropped into a folder; the adapter reads it in a process of its own, with
a report that keeps nothing. Its peak of memory stands beside that of a file a twentieth as large.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.rounds import Effort, Result, rounded

MEGABYTES = 100
"""Of the large file, for each second of effort, where `--megabytes` does not say how large it is."""
MAPPING = """
sources:
  voice:
    files: "*.csv"
    format: csv
    usageType: voice
    whose: {address: address}
    start: {column: begin}
    end: {column: end}
    counts: {seconds: {column: seconds}, octets: {column: kilobytes, times: 1024}}
    texts: {called: {column: called}, cell: {column: cell}}
"""
READER = """
import asyncio, json, resource, sys, time
from pathlib import Path
from convergedon.adapters.file import mapping
from convergedon.adapters.file.adapter import FileAdapter
from convergedon.core import logs
logs.configure("bench", "error")

async def main():
    folder, name = Path(sys.argv[1]), sys.argv[2]
    records = 0
    async def report(seen):
        nonlocal records
        records += len(seen.attributes["records"])
    adapter = FileAdapter(folder / "calls", mapping.load(folder / "file.yaml"), "acme")
    begun, cpu = time.perf_counter(), time.process_time()
    await adapter.start(report)
    while not (folder / "calls" / "done" / name).exists():
        await asyncio.sleep(0.05)
    took, spent = time.perf_counter() - begun, time.process_time() - cpu
    await adapter.stop()
    print(json.dumps({"records": records, "s": took, "CPU s": spent,
                      "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))

asyncio.run(main())
"""


async def measure(effort: Effort) -> Result:
    large = effort.megabytes or (MEGABYTES * effort.seconds if effort.seconds >= 1 else 4.0)
    result = Result(f"call records in files of {large / 20:g} and {large:g} MB", "as the columns say")
    with tempfile.TemporaryDirectory(prefix="convergedon-bench-") as name:
        folder = Path(name)
        (folder / "file.yaml").write_text(MAPPING)
        (folder / "calls").mkdir()
        peaks = []
        for size in (large / 20, large):
            lines = await asyncio.to_thread(_write, folder / "calls" / f"{size:g}.csv", int(size * 1e6))
            command = [sys.executable, "-c", READER, str(folder), f"{size:g}.csv"]
            told = json.loads(await asyncio.to_thread(subprocess.check_output, command))
            assert told["records"] == lines, told
            told["records/CPU s"] = told["records"] / told["CPU s"]
            result.figures[f"{size:g} MB"] = {key: rounded(value) for key, value in told.items()}
            peaks.append(told["peak MB"])
    result.ratios["memory for the large file / for the small one"] = rounded(peaks[1] / peaks[0])
    result.notes.append(f"load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return result


def _write(file: Path, size: int) -> int:
    """Write call records until there are so many bytes; how many there are."""
    lines, written = 0, 0
    with file.open("w") as opened:
        opened.write("address,begin,end,seconds,kilobytes,called,cell\n")
        while written < size:
            begin = f"2026-05-01T{lines // 3600 % 24:02d}:{lines // 60 % 60:02d}:{lines % 60:02d}"
            at = f"10.{lines >> 16 & 255}.{lines >> 8 & 255}.{lines & 255}"
            written += opened.write(
                f"{at},{begin}Z,{begin}.5Z,{lines % 900},{lines % 5000},+4930{lines},cell-{lines % 99}\n"
            )
            lines += 1
    past = time.time() - 60
    os.utime(file, (past, past))
    return lines
