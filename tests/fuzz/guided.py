"""Has a part of us read what nobody would write, for a while, and tells what should not have come of it.

Samples are changed by chance; what reaches a line that was not reached before is kept and changed further. A crash, an
example that takes too long or too much memory, and memory that grows are findings, each with the shortest example that
was found for it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
ARTEFACTS = ROOT / "artefacts" / "fuzz"
LONGEST = 65_507
LONGEST_SECONDS = 5.0
"""Of processor time for one example, which no load of the machine changes."""
MOST_MEMORY = 1 << 30
MOST_GROWTH = 48 << 20
"""Bytes that may be kept once caches are full: after a quarter of the time."""
KEPT, LONGEST_KEPT = 500, 16_384
TRACED_EVERY, SLOWED = 8, 20
"""Every so many examples are watched line by line, which takes so many times as long."""
WATCHED = 10.0
"""How many times as long an example may take of which each line is watched."""
FINDINGS = 10
SHRINKING_SECONDS = 10.0

Survive = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """What reads bytes: ``begin`` gives it, in a folder of its own; it raises for what must not be.

    ``words`` are what stands in such bytes, ``keeps`` the bytes that a library keeps of each example for good,
    ``tables`` what bounded tables come to that are not full after a while.
    """

    name: str
    samples: Sequence[bytes]
    begin: Callable[[Path], Survive]
    words: Sequence[bytes] = ()
    keeps: int = 0
    tables: int = 0


@dataclass(frozen=True)
class Finding:
    """What came of an example, and how that is told from others."""

    what: str
    example: bytes
    alone: bool

    def __str__(self) -> str:
        when = "" if self.alone else " (only after others)"
        return f"{self.what}{when}: {self.example[:400]!r}"


@dataclass
class Report:
    """What was tried of a target."""

    target: str
    examples: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    lines: int = 0
    kept: int = 0
    grown: int = 0
    findings: list[Finding] = field(default_factory=list)

    def write(self) -> None:
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        told = {**vars(self), "findings": [str(finding) for finding in self.findings]}
        (ARTEFACTS / f"{self.target}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        for finding in self.findings:
            name = f"{self.target}-{sha256(finding.what.encode()).hexdigest()[:8]}.bin"
            (ARTEFACTS / name).write_bytes(finding.example)


class TooLong(BaseException):
    """An example that goes on and on; nothing that catches exceptions catches it."""


class Reached:
    """Which lines of ours, and of the decoders that we use, were reached."""

    ROOTS = (str(ROOT), *(f"{Path(sys.prefix)}/lib/python3.{sys.version_info.minor}/site-packages/{name}/"
                          for name in ("netflume", "ncclient", "pysnmp/proto", "pyasn1/codec")))  # fmt: skip

    def __init__(self) -> None:
        self.lines: set[tuple[CodeType, int]] = set()
        self.new = False
        self._ours: dict[CodeType, bool] = {}

    def __enter__(self) -> Reached:
        self.new = False
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code not in self._ours:
            self._ours[code] = code.co_filename.startswith(self.ROOTS) and "/tests/" not in code.co_filename
        return self._went if self._ours[code] else None

    def _went(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and (place := (frame.f_code, frame.f_lineno)) not in self.lines:
            self.lines.add(place)
            self.new = True
        return self._went


def changed(chance: random.Random, sample: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Bytes near some that somebody would send."""
    data = bytearray(sample)
    for _ in range(chance.randint(1, 6)):
        at, more = chance.randrange(len(data) + 1), chance.randint(1, 20)
        match chance.randrange(9):
            case 0 if at < len(data):
                data[at] = chance.randrange(256)
            case 1 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 2:
                del data[at : at + more]
            case 3:
                data[at:at] = chance.randbytes(more)
            case 4:
                data[at:at] = data[at : at + more] * chance.choice((1, 2, 10, 300, 3000))
            case 5:
                data[at : at + 4] = chance.choice(NUMBERS)
            case 6:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                data[at:at] = other[start : start + chance.randint(1, 200)]
            case 7:
                end = chance.randrange(len(data) + 1)
                data[at:at] = data[end : end + 10 * more]
            case _ if words:
                data[at : at + chance.choice((0, 0, more))] = chance.choice(words) * chance.choice((1, 1, 1, 2, 1500))
    return bytes(data[:LONGEST])


NUMBERS = (b"\0", b"\xff", b"\x80", b"\0\0", b"\xff\xff", b"\0\x01", b"\0\0\0\0", b"\xff\xff\xff\xff",
           b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\x84\xff\xff\xff\xff", b"\x82\0\x01", b"\x88" + bytes(8))  # fmt: skip


def fuzz(target: Target, folder: Path, seconds: float, seed: int = 0) -> Report:
    """Try a target for so long; the same examples each time, as far as they get."""
    report, reached = Report(target.name), Reached()
    chance, corpus = random.Random(seed), list(target.samples)
    survive = target.begin(folder)
    begun, processor, level = time.monotonic(), time.process_time(), None
    with bounded():
        while (spent := time.monotonic() - begun) < seconds or not report.examples:
            if level is None and spent > seconds / 4:
                level = memory()
            example = changed(chance, chance.choice(corpus), corpus, target.words)
            report.examples += 1
            traced = report.examples % TRACED_EVERY == 0
            what = tried(survive, example, *((reached, WATCHED) if traced else ()))
            if what and what not in {finding.what for finding in report.findings}:
                report.findings.append(shortest(target, folder, what, example))
                if len(report.findings) == FINDINGS:
                    break
            elif traced and reached.new and len(example) <= LONGEST_KEPT:
                corpus.append(example)
                if len(corpus) > KEPT + len(target.samples):
                    del corpus[chance.randrange(len(target.samples), len(corpus))]
    report.grown = memory() - level if level else 0
    report.seconds, report.processor = time.monotonic() - begun, time.process_time() - processor
    report.lines, report.kept = len(reached.lines), len(corpus) - len(target.samples)
    return report


def tried(
    survive: Survive,
    example: bytes,
    watching: contextlib.AbstractContextManager[Any] = contextlib.nullcontext(),  # noqa: B008 it keeps nothing
    slower: float = 1.0,
) -> str:
    """What came of an example that should not have; nothing where it was survived, in time."""
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST_SECONDS * slower)
    try:
        with watching:
            survive(example)
    except (Exception, TooLong) as error:
        return _told(error)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return ""


def _told(error: BaseException) -> str:
    """By its kind and where it was raised, not by its words: those may have the example in them."""
    place = error.__traceback__
    while place and place.tb_next and not isinstance(error, TooLong | RecursionError | MemoryError):
        place = place.tb_next
    code = place.tb_frame.f_code if place else None
    return f"{type(error).__name__} in {code.co_qualname} ({Path(code.co_filename).name})" if code else repr(error)


def shortest(target: Target, folder: Path, what: str, example: bytes) -> Finding:
    """The example with all taken out that it takes not, as far as that is found in a while."""

    def still(shorter: bytes) -> bool:
        return tried(target.begin(folder), shorter, contextlib.nullcontext()) == what

    if not still(example):
        return Finding(what, example, False)
    size, end = len(example) // 2, time.process_time() + SHRINKING_SECONDS
    while size and time.process_time() < end:
        at = 0
        while at < len(example) and time.process_time() < end:
            shorter = example[:at] + example[at + size :]
            if still(shorter):
                example = shorter
            else:
                at += size
        size //= 2
    return Finding(what, example, True)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """No example goes on for ever, or takes all memory."""

    def stop(*_: object) -> None:
        raise TooLong

    disabled = logging.root.manager.disable
    logging.disable()  # what libraries say of each example would be kept
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGVTALRM, stop)
    with contextlib.suppress(OSError, ValueError):  # where there is no such bound
        resource.setrlimit(resource.RLIMIT_AS, (_size(0) + MOST_MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGVTALRM, handler)
        logging.disable(disabled)


def memory() -> int:
    """Bytes that this process has in memory, after what can be let go was let go."""
    gc.collect()
    return _size(1)


def _size(place: int) -> int:
    """All that is mapped (0), or what of it is in memory (1), where the kernel tells; else the most it ever was."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[place]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
