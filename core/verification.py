"""Follows every chain of the audit record and names the first record that is not as it was written.

What chains there are and how far they go, the anchors say: what was stored before the records are read must be there,
what was announced by their end may be there, and nothing else. So records are asked for by their ids, a piece at a
time, whatever the store does with a question for all of them. Whether there are others beside them a count tells; only
then all ids are gone through.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from convergedon.core import checkpoints
from convergedon.core.audit import HEADS, KIND, START, canonical, digest, id_of, record_of
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
PIECE = 250
"""Records that are asked for at a time."""
AHEAD = 4
"""Pieces that are on their way while one is looked at: who looks at it and who reads take turns in one process."""
COUNTS = 10
"""How often records are counted before all ids are gone through: a count says something if nobody writes meanwhile."""


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

    @property
    def found(self) -> int:
        """How many of its records have been looked at."""
        return self.place + len(self.ahead)

    def has(self, place: int) -> bool:
        return 1 <= place <= self.place or place in self.ahead

    @property
    def is_broken(self) -> bool:
        return self.fault is not None or self.place < self.wanted


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
    stray = "" if await _is_all(store, bus, trail) else await _search(store, trail.chains)
    await trail.read(bus)
    wrong = trail.wrong or _first(trail, stray)  # the anchors are the rule by which records are measured
    if file and not wrong:
        wrong = trail.compare(file, datetime.now(UTC) - timedelta(seconds=late))
    chains = trail.chains.values()
    missing = sum(max(0, chain.announced - chain.place) for chain in chains)
    return Verified(sum(chain.found for chain in chains), wrong, len(trail.checkpoints), missing)


async def _is_all(store: Store, bus: Bus, trail: Trail) -> bool:
    """Follow the chains to their ends. Whether it is known then that there is nothing beside them, or it is too late.

    As many in the store as were found in the chains just before, and there are no others, whoever writes meanwhile:
    what was found stays. Where there are more somebody may have written in between, so it is done again.
    """
    before = -1
    for _ in range(COUNTS):
        await _follow(store, trail.chains)
        found = sum(chain.found for chain in trail.chains.values())
        if trail.wrong or any(chain.is_broken for chain in trail.chains.values()):
            return True
        if found == before:
            return False
        if await store.number(KIND.name) == found:
            return True
        before = found
        await trail.read(bus)
    return False


async def _follow(store: Store, chains: dict[str, Chain]) -> None:
    """Look at what the chains have beyond the places up to which they are known, until one of them is broken."""
    async with aclosing(pieces(store, announced(chains))) as coming:
        async for documents in coming:
            for document in documents:
                _look(chains, document)
            if any(chain.fault for chain in chains.values()):
                return


def announced(chains: Mapping[str, Chain]) -> Iterator[str]:
    """The ids of what has been announced of the chains and not been found, and one more of each."""
    for writer, chain in sorted(chains.items()):
        for place in range(chain.place + 1, chain.announced + 2):
            if place not in chain.ahead:
                yield id_of(writer, place)


async def pieces(store: Store, ids: Iterable[str]) -> AsyncGenerator[Sequence[Mapping[str, Any]], None]:
    """The records that there are of these ids, in their order, a piece at a time."""
    left = iter(ids)

    async def read(asked: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        found = {document["id"]: document for document in await store.kept(KIND.name, asked)}
        return [found[id] for id in asked if id in found]

    coming: deque[asyncio.Task[Sequence[Mapping[str, Any]]]] = deque()
    try:
        while True:
            while len(coming) < AHEAD and (asked := list(islice(left, PIECE))):
                coming.append(asyncio.create_task(read(asked)))
            if not coming:
                return
            yield await coming.popleft()
    finally:
        await asyncio.gather(*coming, return_exceptions=True)


async def _search(store: Store, chains: dict[str, Chain]) -> str:
    """Look at everything that is in the store and was not found in a chain. What belongs to none is told."""
    stray = ""
    async for ids in store.ids(KIND.name):
        for document in await store.kept(KIND.name, [id for id in ids if not _is_found(chains, id)]):
            stray = _look(chains, document) or stray
    return stray


def _is_found(chains: Mapping[str, Chain], id: Any) -> bool:
    writer, place = _place_of(id)
    return writer in chains and chains[writer].has(place)


def _place_of(id: Any) -> tuple[str, int]:
    """The writer and place that an id says; ("", 0) for one that is no record's."""
    writer, _, number = id.rpartition(":") if isinstance(id, str) else ("", "", "")
    place = int(number) if number.isascii() and number.isdigit() and len(number) < 20 else 0
    return (writer, place) if writer and place and id == id_of(writer, place) else ("", 0)


def _look(chains: dict[str, Chain], document: Mapping[str, Any]) -> str:
    """Check one record by itself and put it into its chain; what belongs to no chain is told at once."""
    id = document["id"]
    writer, place = _place_of(id)
    if not writer:
        return f"record {id} is of no writer"
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
        if chain.place < chain.wanted:  # of those that must be there each comes in its turn
            chain.blame(chain.place + 1, f"record {chain.place + 1} of {writer} is missing or moved")
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
    if chain.place < chain.wanted:
        words = f"records after {chain.place} of {writer} are missing: {chain.wanted} were written"
        chain.blame(chain.place + 1, words)
