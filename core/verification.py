"""Walks the audit record in one pass and names the first record that is not as it was written.

Each record is checked by itself as it comes, each link when both its ends are known; nothing is sorted. What chains
there are and how far they go, the anchors say: they are read before the records (what was stored by then must be
there) and after them (what was announced by then may be there, and nothing else).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from convergedon.core import checkpoints
from convergedon.core.audit import HEADS, KIND, START, canonical, digest, record_of
from convergedon.core.bus import Bus, Message, token
from convergedon.core.checkpoints import SUBJECT, Checkpoint
from convergedon.core.store import Store

MEMBERS = frozenset(
    [
        "time",
        "trace",
        "tenant",
        "subject",
        "what",
        "on",
        "outcome",
        "decision",
        "detail",
        "writer",
        "sequence",
        "previous",
        "hash",
    ]
)
KEPT = frozenset(("id", "tenant", "revision", "body", "facts", "outbox"))
LATE = 60.0
"""Seconds that the anchor file may be behind the stream."""


@dataclass(frozen=True)
class Verified:
    """How many records there are, and what is wrong with the first bad one (empty: nothing).

    ``unstored`` counts records that were announced and never stored: a process was killed over them, or they are on
    their way.
    """

    records: int
    wrong: str = ""
    checkpoints: int = 0
    unstored: int = 0


@dataclass
class Chain:
    """One writer's chain as far as it is known: hashes by sequence that were ``anchored``, the last ones of them."""

    anchored: dict[int, str] = field(default_factory=dict)
    announced: int = 0
    stored: int = 0
    wanted: int = 0
    """Up to here records must be there: it was stored before they were looked for."""
    place: int = 0
    hash: str = START
    ahead: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Records that came before their turn: their hash and the one that they follow."""
    fault: tuple[int, str] | None = None

    def blame(self, place: int, words: str) -> None:
        if self.fault is None or place < self.fault[0]:
            self.fault = (place, words)


class Trail:
    """The anchors and checkpoints, read in their order; ``wrong`` is what is wrong with the first bad one."""

    def __init__(self, key: Ed25519PublicKey | None) -> None:
        self.chains: dict[str, Chain] = {}
        self.checkpoints: list[tuple[Checkpoint, Mapping[str, Any]]] = []
        self.wrong = ""
        self._key = key
        self._place = 0

    async def read(self, bus: Bus) -> None:
        """Read on from where the last reading ended."""
        try:
            async for message in bus.since("audit.>", 0, self._place):
                if not self.wrong:
                    self.wrong = self._take(message)
        except orjson.JSONDecodeError:
            self.wrong = self.wrong or f"anchor {self._place + 1} cannot be read"

    def _take(self, message: Message) -> str:
        place, self._place = self._place + 1, message.position.sequence
        if self._place != place:
            return f"anchor {place} is missing"
        try:
            return self._take_checkpoint(message) if message.subject == SUBJECT else self._take_head(message)
        except (KeyError, TypeError, ValueError) as error:
            return f"anchor {place} was changed: {error}"

    def _take_head(self, message: Message) -> str:
        said = message.body
        writer, sequence, hash, stored = said["writer"], said["sequence"], said["hash"], said["stored"]
        sound = isinstance(writer, str) and type(sequence) is int and type(stored) is bool and len(said) == 4
        if not sound or message.subject != f"{HEADS}.{token(writer)}" or not _is_hash(hash) or sequence < 1:
            return f"anchor {self._place} was changed: it does not say what an anchor says"
        chain = self.chains.setdefault(writer, Chain())
        if chain.anchored.setdefault(sequence, hash) != hash:
            return (
                f"anchor {self._place} was changed or forged: record {sequence} of {writer} had been anchored otherwise"
            )
        if sequence > chain.announced if stored else sequence < chain.announced:
            return f"anchor {self._place} was moved, changed or forged: record {sequence} of {writer} out of turn"
        chain.announced = max(chain.announced, sequence)
        chain.stored = max(chain.stored, sequence if stored else 0)
        return ""

    def _take_checkpoint(self, message: Message) -> str:
        found = checkpoints.read(message.body)
        before = self.checkpoints[-1][1] if self.checkpoints else None
        if found.number != len(self.checkpoints) + 1:
            return f"checkpoint {len(self.checkpoints) + 1} is missing"
        if found.previous != (checkpoints.hash_of(before) if before else START):
            return f"checkpoint {found.number} was changed: it does not follow the one before"
        if self._key is None or not checkpoints.is_signed(message.body, self._key):
            return f"checkpoint {found.number} was changed or forged: the signature is not by the key of this system"
        for writer, (sequence, hash) in found.heads.items():
            chain = self.chains.get(writer)
            if chain is None or chain.stored < sequence or chain.anchored.get(sequence) != hash:
                return f"anchors are not those of checkpoint {found.number}: record {sequence} of {writer}"
        if found.upto >= self._place:
            return f"checkpoint {found.number} was changed: it speaks of anchors that come after it"
        self.checkpoints.append((found, message.body))
        return ""

    def compare(self, file: Path, due: datetime) -> str:
        """What is wrong with the file, which has every checkpoint that was due."""
        try:
            lines = checkpoints.lines(file)
        except OSError as error:
            return f"the anchor file {file} cannot be read: {error.strerror}"
        for number, (written, (_, said)) in enumerate(zip(lines, self.checkpoints, strict=False), 1):
            if written != checkpoints.line(said):
                return f"line {number} of {file} is not checkpoint {number}"
        if len(lines) > len(self.checkpoints):
            return f"checkpoint {len(self.checkpoints) + 1} is missing: {file} has it"
        lacking = [one for one, _ in self.checkpoints[len(lines) :] if datetime.fromisoformat(one.time) <= due]
        return f"{file} ends before checkpoint {lacking[0].number}" if lacking else ""


def _is_hash(text: Any) -> bool:
    return isinstance(text, str) and len(text) == 64


async def verify(
    store: Store, bus: Bus, key: Ed25519PublicKey | None = None, file: Path | None = None, late: float = LATE
) -> Verified:
    """Check everything; the file may be ``late`` behind. Raises Unavailable while store or bus cannot be reached."""
    trail = Trail(key)
    await trail.read(bus)
    for chain in trail.chains.values():
        chain.wanted = chain.stored
    count, stray = 0, ""
    async for batch in store.walk(KIND.name):
        count += len(batch)
        for document in batch:
            stray = _look(trail.chains, document) or stray
    await trail.read(bus)
    wrong = trail.wrong or _first(trail, stray)  # the anchors are the rule by which records are measured
    if file and not wrong:
        wrong = trail.compare(file, datetime.now(UTC) - timedelta(seconds=late))
    missing = sum(chain.announced - chain.place for chain in trail.chains.values())
    return Verified(count, wrong, len(trail.checkpoints), missing)


def _look(chains: dict[str, Chain], document: Mapping[str, Any]) -> str:
    """Check one record by itself and put it into its chain; what belongs to no chain is told at once."""
    id = document["id"]
    writer, _, number = id.rpartition(":") if isinstance(id, str) else ("", "", "")
    if not writer or not (number.isascii() and number.isdigit()) or id != f"{writer}:{int(number):012d}":
        return f"record {id} is of no writer"
    place = int(number)
    chain = chains.setdefault(writer, Chain())
    body = document.get("body")
    if not _is_sound(document, body):
        about = f" ({body.get('what')} on {body.get('on')})" if isinstance(body, Mapping) else ""
        chain.blame(place, f"record {place} of {writer} was changed{about}")
    hash, previous = (body.get("hash"), body.get("previous")) if isinstance(body, Mapping) else (None, None)
    anchored = chain.anchored.get(place)
    if anchored is not None and anchored != hash:
        chain.blame(place, f"record {place} of {writer} is not the one that was anchored")
    if place == chain.place + 1:
        _join(chain, writer, str(hash), str(previous))
        while chain.ahead and (next_ := chain.ahead.pop(chain.place + 1, None)):
            _join(chain, writer, *next_)
    else:
        chain.ahead[place] = (str(hash), str(previous))
    return ""


def _join(chain: Chain, writer: str, hash: str, previous: str) -> None:
    if previous != chain.hash:
        chain.blame(
            chain.place + 1, f"record {chain.place + 1} of {writer} was changed: it does not follow the one before"
        )
    chain.place, chain.hash = chain.place + 1, hash


def _is_sound(document: Mapping[str, Any], body: Any) -> bool:
    """Whether a record is what its own hash says, and everything beside its body what follows from it."""
    try:
        if (
            body.keys() != MEMBERS
            or document.keys() != KEPT
            or body["hash"] != digest(body["previous"], canonical(body))
        ):
            return False
        made = record_of(body)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return bool(
        document["id"] == made.id
        and document["tenant"] == made.tenant
        and document["facts"] == made.facts
        and document["revision"] == 1
        and document["outbox"] == []
    )


def _first(trail: Trail, stray: str) -> str:
    """What is wrong with the first bad record, by writers and then by their order."""
    for writer, chain in sorted(trail.chains.items()):
        _close(writer, chain)
        if chain.fault:
            return chain.fault[1]
    return stray


def _close(writer: str, chain: Chain) -> None:
    """Compare what was found of a chain with what the anchors say of it."""
    last = max([chain.place, *chain.ahead])
    if last > chain.announced:
        first = chain.announced + 1
        words = "was never announced" if chain.announced else "is of a writer that was never announced"
        chain.blame(first, f"record {first} of {writer} {words}: it was added")
    if chain.place >= chain.wanted:
        return
    if chain.ahead:
        chain.blame(chain.place + 1, f"record {chain.place + 1} of {writer} is missing or moved")
    else:
        words = f"records after {chain.place} of {writer} are missing: {chain.wanted} were written"
        chain.blame(chain.place + 1, words)
