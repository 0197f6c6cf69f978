"""Files of call records in, observations out: what is dropped into a folder, each record of it once.

Whoever writes a file gives it a name that begins with a dot, or ends in .part or .tmp, and renames it when it is whole.
Any number of processes may watch one folder: a file is locked while it is read, and known by what is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any, BinaryIO

import structlog

from convergedon.adapters.contract import Device, Observation, Report
from convergedon.adapters.file import mapping
from convergedon.adapters.file.mapping import BadLine, CallFiles, Source
from convergedon.adapters.file.reading import Ledger, Part, Progress, Rejected, digest, lock, parts
from convergedon.core import metrics, strict, trace
from convergedon.core.errors import Misconfigured, Unavailable
from convergedon.core.settings import Settings
from convergedon.core.tasks import end

PAUSE = 0.5
# A file that was written to a moment ago may be one whose writer renames nothing
QUIET = 1.0
NOTED_EVERY = 20
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
UNFINISHED = (".part", ".tmp")

log = structlog.get_logger(__name__)


def claimed(file: Path) -> BinaryIO | None:
    """The file, locked for this process; None when another has it, or has read it."""
    try:
        opened = file.open("rb")
    except FileNotFoundError:
        return None
    with contextlib.suppress(FileNotFoundError):
        if lock(opened) and os.path.samestat(os.fstat(opened.fileno()), file.stat()):
            return opened
    opened.close()
    return None


def create(settings: Settings, devices: Mapping[str, Device]) -> FileAdapter:
    file = strict.mapping_file(settings.mappings, "file.yaml", mapping.SHIPPED)
    return FileAdapter(settings.call_folder or settings.data / "calls", mapping.load(file), settings.tenant)


class FileAdapter:
    """Watches a folder; ``counts`` has files, records, rejected lines, and files that came again."""

    name = "file"
    performs = False

    def __init__(self, folder: Path, known: CallFiles, tenant: str) -> None:
        self._folder, self._known, self._tenant = folder, known, tenant
        self._ledger = Ledger(folder)
        self._watching: asyncio.Task[None] | None = None
        self._failing = False
        self._strange: set[str] = set()
        self.counts: Counter[str] = Counter()

    async def start(self, report: Report) -> Sequence[str]:
        self._report = report
        try:
            for folder in (self._folder, self._folder / "done"):
                folder.mkdir(parents=True, exist_ok=True)
            self._ledger.prepare()
        except OSError as error:
            raise Misconfigured(
                f"call records cannot be taken from {self._folder} (CONVERGEDON_CALL_FOLDER): {error.strerror}"
            ) from error
        self._watching = asyncio.create_task(self._watch(), name="call files")
        return [str(self._folder)]

    async def stop(self) -> None:
        """Read no further; what is read and not written down comes again, under the same ids."""
        if self._watching is not None:
            await end([self._watching])
            self._watching = None

    def become(self, other: FileAdapter) -> None:
        """Go on with the mapping that another one has read; a file that is begun is read to its end as it was."""
        self._known, self._tenant = other._known, other._tenant

    async def health(self) -> Mapping[str, Any]:
        watching = self._watching is not None and not self._watching.done()
        counted = {name: self.counts[name] for name in ("files", "repeated", "refused", "records", "rejected")}
        return {
            "state": "ready" if watching and not self._failing else "degraded",
            **counted,
            "unknown": len(self._strange),
        }

    async def _watch(self) -> None:
        trace.leave()
        while True:
            try:
                waiting = await asyncio.to_thread(self._waiting)
                for number, file in enumerate(waiting):
                    metrics.QUEUE.labels(self.name).set(len(waiting) - number)
                    await self._take(file)
                metrics.QUEUE.labels(self.name).set(0)
            except OSError as error:
                log.warning("call records wait", folder=str(self._folder), reason=str(error))
            except Exception:
                log.exception("call records wait", folder=str(self._folder))
            await asyncio.sleep(PAUSE)

    def _waiting(self) -> list[Path]:
        """The files that are whole, oldest first; those that no source reads are only counted."""
        found, strange, latest = [], set(), time() - QUIET
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.endswith(UNFINISHED) or not entry.is_file():
                    continue
                if self._known.source(entry.name) is None:
                    strange.add(entry.name)
                elif (written := entry.stat().st_mtime) <= latest:
                    found.append((written, entry.name))
        for name in sorted(strange - self._strange):
            log.warning("no source reads this file", file=name, folder=str(self._folder))
            metrics.UNMAPPED.labels(self.name).inc()
        self._strange = strange
        return [self._folder / name for _, name in sorted(found)]

    async def _take(self, file: Path) -> None:
        """Read a file to its end, unless another process does."""
        with contextlib.ExitStack() as stack:
            opened = claimed(file)
            if opened is None:
                return
            stack.enter_context(opened)
            known_by = await asyncio.to_thread(digest, opened)
            if stack.enter_context(self._ledger.turn(known_by)):
                await self._read(file, opened, known_by)

    async def _read(self, file: Path, opened: BinaryIO, known_by: str) -> None:
        name = self._known.source(file.name) or ""
        progress = self._ledger.progress(known_by) or Progress(file.name)
        if progress.done:
            self.counts["repeated"] += 1
            log.info("this file was read before", file=file.name, then=progress.file)
            await asyncio.to_thread(self._put_away, file, known_by, "done")
            return
        with trace.span("file.calls"):
            progress = await self._made_safe(opened, known_by, name, progress)
        if progress.rejected and not progress.records:
            # Not known from here on: with another mapping it may be read
            self.counts["refused"] += 1
            log.warning("nothing of this file could be read", file=file.name, lines=progress.rejected)
            await asyncio.to_thread(self._ledger.forget, known_by)
            await asyncio.to_thread(self._put_away, file, known_by, "rejected")
            return
        await asyncio.to_thread(self._ledger.note, known_by, replace(progress, done=True))
        self.counts["files"] += 1
        log.info("file read", file=file.name, records=progress.records, rejected=progress.rejected)
        await asyncio.to_thread(self._put_away, file, known_by, "done")

    def _put_away(self, file: Path, known_by: str, where: str) -> None:
        there = self._folder / where / file.name
        file.rename(there if not there.exists() else there.with_name(f"{file.name}.{known_by[:8]}"))

    async def _made_safe(self, opened: BinaryIO, known_by: str, name: str, progress: Progress) -> Progress:
        source = self._known.sources[name]
        try:
            for number, part in enumerate(parts(opened, source, known_by, progress), 1):
                progress = await self._part(part, source, known_by, name, progress)
                if number % NOTED_EVERY == 0:
                    await asyncio.to_thread(self._ledger.note, known_by, progress)
                await asyncio.sleep(0)
        except BadLine as bad:
            progress = self._reject(known_by, progress, [Rejected(1, str(bad), "")])
        finally:
            self._ledger.note(known_by, progress)  # not in a thread: it may be the last that is done
        return progress

    async def _part(self, part: Part, source: Source, known_by: str, name: str, progress: Progress) -> Progress:
        metrics.RECEIVED.labels(self.name).inc(len(part.records) + len(part.rejected))
        if part.records:
            await self._safe(self._observation(part, source, known_by, name))
            self.counts["records"] += len(part.records)
            metrics.DECODED.labels(self.name).inc(len(part.records))
            metrics.OBSERVED.labels(self.name, "call").inc()
        progress = self._reject(known_by, progress, part.rejected)
        done = progress.records + len(part.records)
        return replace(progress, offset=part.offset, line=part.line, records=done)

    def _reject(self, known_by: str, progress: Progress, lines: list[Rejected]) -> Progress:
        self.counts["rejected"] += len(lines)
        if lines:
            metrics.DROPPED.labels(self.name, "line").inc(len(lines))
        return self._ledger.reject(known_by, progress, lines)

    def _observation(self, part: Part, source: Source, known_by: str, name: str) -> Observation:
        id = hashlib.sha256(f"{known_by}:{part.first}".encode()).hexdigest()[:32]
        said = {"usageType": source.usageType, "names": list(source.counts), "records": part.records}
        tenant = source.tenant or self._tenant
        return Observation(id, "call", self.name, name, tenant, time(), attributes=said)

    async def _safe(self, seen: Observation) -> None:
        """Report until it is stored: the file is there as long as it takes."""
        delay = FIRST_DELAY
        while True:
            try:
                await self._report(seen)
            except Unavailable as error:
                if not self._failing:
                    log.warning("call records wait", reason=str(error))
                self._failing = True
                await asyncio.sleep(delay * random.uniform(0.5, 1))
                delay = min(2 * delay, LONGEST_DELAY)
            else:
                self._failing = False
                return
