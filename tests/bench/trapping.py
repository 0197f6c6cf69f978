"""The SNMP adapter on one core, for tests.bench.traps: it stores traps until its standard input ends.

Then it prints what it counted and how much CPU time it took. ``--profile`` prints where that went instead.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import pstats
import resource
import sys
from pathlib import Path

import structlog
import uvloop

from convergedon.adapters.reporting import Reporting
from convergedon.adapters.snmp import create
from convergedon.core import settings
from convergedon.core.bus import NatsBus


async def main(nats: str, folder: str, storm: int, core: int) -> None:
    os.sched_setaffinity(0, {core})
    bus = await NatsBus(nats, "bench").open()
    adapter = create(settings.load(trap_port=0, data=Path(folder), trap_storm_high=storm), {})
    [where] = await adapter.start(Reporting("snmp", bus))
    begun = resource.getrusage(resource.RUSAGE_SELF)
    print(where, flush=True)
    loop = asyncio.get_running_loop()
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if line == "health":
            print(json.dumps(await adapter.health()), flush=True)
    await adapter.stop()
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - begun.ru_utime - begun.ru_stime
    print(json.dumps({**await adapter.health(), "cpu": cpu, "mb": used.ru_maxrss // 1024}), flush=True)
    await bus.close()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    nats, folder, storm, core, *profile = sys.argv[1:]
    if profile:
        profiler = cProfile.Profile()
        profiler.runcall(uvloop.run, main(nats, folder, int(storm), int(core)))
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(30)
    else:
        uvloop.run(main(nats, folder, int(storm), int(core)))
