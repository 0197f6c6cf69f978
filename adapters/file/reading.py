"""One file of call records, read from where it was left: in parts of some hundred lines, whatever its size.

A file is known by what is in it, not by its name. What was made safe of it is written down beside it, so that after a
restart it goes on there; a part that was made safe and not written down comes again under the same id. Lines are
counted as they stand in the file; a part ends at the same line whenever it is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from convergedon.adapters.file.mapping import BadLine, Source

LINES_TOGETHER = 500
LONGEST_LINE = 65_536
HASHED_TOGETHER = 1 << 20
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Progress:
    """How far a file was read: up to which byte and line, what came of it, and how long the file of bad lines is."""

    file: str
    offset: int = 0
    line: int = 0
    records: int = 0
    rejected: int = 0
    rejected_bytes: int = 0
    done: bool = False


class Rejected(NamedTuple):
    """A line that is no record, and why."""

    line: int
    reason: str
    text: str


@dataclass
class Part:
    """Some lines of a file, and how far it is read with them."""

    first: int
    records: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    line: int = 0
    offset: int = 0
    last: bool = False


def digest(opened: BinaryIO) -> str:
    """What a file is known by."""
    found = hashlib.sha256()
    opened.seek(0)
    while part := opened.read(HASHED_TOGETHER):
        found.update(part)
    return found.hexdigest()


def parts(opened: BinaryIO, source: Source, known_by: str, progress: Progress) -> Iterator[Part]:
    """Read on from where it was left. Raises BadLine when the file as a whole cannot be read."""
    opened.seek(0)
    header, line = b"", 0
    if source.has_header:
        header = opened.readline(LONGEST_LINE + 1)
        line = 1
        if len(header) > LONGEST_LINE:
            raise BadLine(f"its first line is longer than {LONGEST_LINE} bytes")
    read = source.reader(header.removeprefix(BOM))
    offset = len(header)
    if progress.offset:
        offset, line = progress.offset, progress.line
        opened.seek(offset)
    while True:
        part = _part(opened, read, known_by, line, offset)
        yield part
        if part.last:
            return
        line, offset = part.line, part.offset


def _part(opened: BinaryIO, read: Callable[[bytes], dict[str, Any]], known_by: str, line: int, offset: int) -> Part:
    part = Part(line + 1)
    for _ in range(LINES_TOGETHER):
        raw = opened.readline(LONGEST_LINE + 1)
        if not raw:
            part.last = True
            break
        line += 1
        offset += len(raw)
        if len(raw) > LONGEST_LINE:
            offset += _skip(opened, raw)
            part.rejected.append(Rejected(line, f"it is longer than {LONGEST_LINE} bytes", _text(raw)))
            continue
        text = raw.removeprefix(BOM) if line == 1 else raw
        if not text.strip():
            continue
        try:
            part.records.append({"id": f"{known_by[:32]}:{line}", **read(text)})
        except BadLine as bad:
            part.rejected.append(Rejected(line, str(bad), _text(text)))
    part.line, part.offset = line, offset
    return part


def _skip(opened: BinaryIO, begun: bytes) -> int:
    """Read over the rest of a line that is too long; how much that was."""
    skipped = 0
    while begun and not begun.endswith(b"\n"):
        begun = opened.readline(LONGEST_LINE)
        skipped += len(begun)
    return skipped


def _text(raw: bytes) -> str:
    return raw[:LONGEST_LINE].decode("utf-8", "replace").rstrip("\r\n")


class Ledger:
    """What is known of the files of a folder: one small file for each, by what was in it."""

    def __init__(self, folder: Path) -> None:
        self._state, self._rejected = folder / ".state", folder / "rejected"

    def prepare(self) -> None:
        for folder in (self._state, self._rejected):
            folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def turn(self, known_by: str) -> Iterator[bool]:
        """Whether it is ours to read what is known by this: of all processes one reads it at a time."""
        with (self._state / f"{known_by}.lock").open("ab") as held:
            yield lock(held)

    def progress(self, known_by: str) -> Progress | None:
        try:
            return Progress(**orjson.loads((self._state / f"{known_by}.json").read_bytes()))
        except FileNotFoundError:
            return None

    def note(self, known_by: str, progress: Progress) -> None:
        """Write down how far it is; what is written is on the disk."""
        file = self._state / f"{known_by}.json"
        fresh = file.with_suffix(".new")
        with fresh.open("wb") as opened:
            opened.write(orjson.dumps(asdict(progress)))
            opened.flush()
            os.fsync(opened.fileno())
        fresh.replace(file)

    def forget(self, known_by: str) -> None:
        (self._state / f"{known_by}.json").unlink(missing_ok=True)

    def rejected(self, known_by: str, name: str) -> Path:
        return self._rejected / f"{name}.{known_by[:8]}.jsonl"

    def reject(self, known_by: str, progress: Progress, lines: list[Rejected]) -> Progress:
        """Put bad lines beside, after those that are written down; returns the progress with them."""
        if not lines:
            return progress
        with self.rejected(known_by, progress.file).open("ab") as opened:
            opened.truncate(progress.rejected_bytes)  # what was put there and not written down comes again
            for one in lines:
                opened.write(orjson.dumps({"file": progress.file, **one._asdict()}) + b"\n")
            opened.flush()
            os.fsync(opened.fileno())
            size = opened.tell()
        return replace(progress, rejected=progress.rejected + len(lines), rejected_bytes=size)


def lock(opened: BinaryIO) -> bool:
    """Take a file for this process, until it is closed; False when another has it."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
