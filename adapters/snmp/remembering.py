"""What is known of interfaces, kept in a file of the data folder: a trap right after a restart is named as before it.

It is written a moment after it has changed, and at the end. What was learnt in the last moment before a kill is lost;
a file that cannot be read or written is told in the log, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import orjson
import structlog

from convergedon.adapters.contract import Observation
from convergedon.adapters.snmp.interfaces import Interfaces, Known, Told
from convergedon.adapters.snmp.mapping import Meaning
from convergedon.core.tasks import end

MOMENT, SHARE = 0.5, 20
"""Seconds between two looks whether something changed; and how many times longer than it took is not written again."""

log = structlog.get_logger(__name__)


class Remembering:
    """Keeps ``interfaces`` in ``file`` from ``start`` to ``stop``."""

    def __init__(self, file: Path, interfaces: Interfaces) -> None:
        self._file, self._interfaces = file, interfaces
        self._texts: dict[str, orjson.Fragment] = {}
        self._task: asyncio.Task[None] | None = None
        self._told = False

    def read(self) -> None:
        """Take in what was kept of devices of which nothing is known yet."""
        try:
            kept = orjson.loads(self._file.read_bytes())
            self._interfaces.restore({each["device"]: _known(each) for each in kept["devices"]}, kept["at"])
            self._interfaces.changed |= {each["device"] for each in kept["devices"]}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("names of interfaces are learnt anew", file=str(self._file), why=str(error))

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._task is not None:
            await end([self._task])
            self._task = None
            await self._write()

    async def _keep(self) -> None:
        pause = MOMENT
        while True:
            await asyncio.sleep(pause)
            pause = max(MOMENT, SHARE * await self._write())

    async def _write(self) -> float:
        """What changed; how long it took, in which nothing else was done."""
        if not self._interfaces.changed:
            return 0.0
        began = time.monotonic()
        for device in self._interfaces.changed:
            if known := self._interfaces.known(device):
                self._texts[device] = orjson.Fragment(orjson.dumps(_said(device, known)))
            else:
                self._texts.pop(device, None)
        self._interfaces.changed.clear()
        text = orjson.dumps({"at": time.time(), "devices": list(self._texts.values())})
        took = time.monotonic() - began
        await asyncio.to_thread(self._put, text)
        return took

    def _put(self, text: bytes) -> None:
        part = self._file.with_suffix(f".{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(text)
            part.replace(self._file)
            self._told = False
        except OSError as error:
            if not self._told:
                log.warning("names of interfaces are not kept", file=str(self._file), why=error.strerror)
            self._told = True


def _said(device: str, known: Known) -> dict[str, Any]:
    return {
        "device": device,
        "uptime": known.uptime,
        "names": list(known.names.items()),
        "told": [[*condition, told.object, dict(told.names)] for condition, told in known.told.items()],
        "unnamed": [[*condition, *kept] for condition, kept in known.unnamed.items()],
    }


def _known(said: dict[str, Any]) -> Known:
    known = Known(dict(map(tuple, said["names"])), uptime=said["uptime"])
    known.keep({(template, index): Told(part, names) for template, index, part, names in said["told"]})
    known.unnamed = {
        (template, index): (Meaning(**meaning), Observation(**seen))
        for template, index, meaning, seen in said["unnamed"]
    }
    return known
