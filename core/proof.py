"""An export of the audit record that proves itself to somebody who has neither our store nor our code.

Hashes are of the very texts in the file. Of every writer that the checkpoints of the span speak of the file holds the
chain without a gap, from a head that an earlier checkpoint has signed (or from its beginning) to the last head in the
span. Records that are not asked for stand in it by the hash of their text alone. How it is checked is written, and
executed by a test, in docs/audit.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

import orjson

from convergedon.core.audit import canonical, id_of
from convergedon.core.checkpoints import Checkpoint
from convergedon.core.errors import ConvergedonError
from convergedon.core.store import Store
from convergedon.core.verification import MEMBERS, Trail, announced, pieces


@dataclass(frozen=True)
class Asked:
    """Which records somebody wants to read: of a tenant, of a span of time; all where nothing is said."""

    tenant: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def wants(self, body: Mapping[str, Any]) -> bool:
        if self.tenant and body["tenant"] != self.tenant:
            return False
        at = datetime.fromisoformat(body["time"]) if self.since or self.until else None
        return at is None or not ((self.since and at < self.since) or (self.until and at > self.until))


@dataclass
class Exported:
    """How many records are in the file by their texts and by their hashes alone, and how many are too new for it."""

    told: int = 0
    hashed: int = 0
    fresh: int = 0


@dataclass
class Stretch:
    """The part of one writer's chain that is exported, with the checkpoint that signed its beginning.

    ``next`` is the record whose turn it is, ``hash`` that of the one before it, once there is one.
    """

    next: int = 1
    last: int = 0
    begun: Checkpoint | None = None
    hash: str = ""


@dataclass
class Proof:
    """``key`` is the public key in words; ``done`` tells what has been exported when the lines are through."""

    store: Store
    trail: Trail
    asked: Asked
    key: str
    done: Exported = field(default_factory=Exported)

    async def lines(self) -> AsyncIterator[bytes]:
        """Raises ConvergedonError when the record is not whole, or there is no checkpoint."""
        if self.trail.wrong:
            raise ConvergedonError(f"the audit record was tampered with: {self.trail.wrong}")
        if not self.trail.checkpoints:
            raise ConvergedonError("there is no audit checkpoint yet: a worker makes one within some seconds")
        wanted = await self._wanted()
        begin, end = self._span(wanted)
        stretches = self._stretches(begin, end)
        yield _line(self._header(begin, end))
        for number in sorted({one.begun.number for one in stretches.values() if one.begun}):
            yield _line({"earlier": True, **self._checkpoint(number)})
        for number in range(begin, end + 1):
            yield _line(self._checkpoint(number))
        async for body in self._bodies():
            stretch = stretches.get(body["writer"])
            if stretch and stretch.next <= stretch.last and body["sequence"] >= stretch.next:
                yield self._taken(stretch, body)
        for writer, stretch in sorted(stretches.items()):
            if stretch.next <= stretch.last:
                raise _not_whole(id_of(writer, stretch.next))

    async def _wanted(self) -> Mapping[str, int]:
        """The last record of each writer that is asked for and that a checkpoint covers."""
        covered = {writer: head[0] for one, _ in self.trail.checkpoints for writer, head in one.heads.items()}
        found: dict[str, int] = {}
        async for body in self._bodies():
            if self.asked.wants(body):
                if body["sequence"] <= covered.get(body["writer"], 0):
                    found[body["writer"]] = max(found.get(body["writer"], 0), body["sequence"])
                else:
                    self.done.fresh += 1
        return found

    async def _bodies(self) -> AsyncIterator[Mapping[str, Any]]:
        """The records, chain by chain, as far as they look like records."""
        async for documents in pieces(self.store, announced(self.trail.chains)):
            for document in documents:
                body = document.get("body")
                if not isinstance(body, Mapping) or body.keys() != MEMBERS:
                    raise _not_whole(str(document["id"]))
                yield body

    def _span(self, wanted: Mapping[str, int]) -> tuple[int, int]:
        """The first and the last checkpoint: all that is wanted was signed between them, whenever it happened."""
        made = [one for one, _ in self.trail.checkpoints]
        since, until = self.asked.since, self.asked.until
        begin = max((one.number for one in made if since and datetime.fromisoformat(one.time) <= since), default=1)
        end = next((one.number for one in made if until and datetime.fromisoformat(one.time) >= until), len(made))
        for writer, sequence in wanted.items():
            end = max(end, next(one.number for one in made if one.heads.get(writer, (0, ""))[0] >= sequence))
        return begin, max(begin, end)

    def _stretches(self, begin: int, end: int) -> Mapping[str, Stretch]:
        found: dict[str, Stretch] = {}
        before: dict[str, Checkpoint] = {}
        for one, _ in self.trail.checkpoints[:end]:
            for writer, (sequence, _) in one.heads.items():
                if one.number < begin:
                    before[writer] = one
                else:
                    found.setdefault(writer, _beginning(writer, before.get(writer))).last = sequence
        return found

    def _header(self, begin: int, end: int) -> Mapping[str, Any]:
        return {
            "convergedon": "audit export",
            "format": 1,
            "tenant": self.asked.tenant,
            "since": self.asked.since.isoformat() if self.asked.since else "",
            "until": self.asked.until.isoformat() if self.asked.until else "",
            "checkpoints": [begin, end],
            "key": self.key,
        }

    def _checkpoint(self, number: int) -> Mapping[str, Any]:
        said = self.trail.checkpoints[number - 1][1]
        return {"checkpoint": said["text"], "signature": said["signature"]}

    def _taken(self, stretch: Stretch, body: Mapping[str, Any]) -> bytes:
        """The line of a record whose turn it is."""
        if body["sequence"] != stretch.next or stretch.hash not in ("", body["previous"]):
            raise _not_whole(id_of(body["writer"], stretch.next))
        stretch.next, stretch.hash = stretch.next + 1, body["hash"]
        return self._record(body)

    def _record(self, body: Mapping[str, Any]) -> bytes:
        text = canonical(body)
        told = {name: body[name] for name in ("writer", "sequence", "previous", "hash")}
        if self.asked.wants(body):
            self.done.told += 1
            return _line({**told, "text": text.decode()})
        self.done.hashed += 1
        return _line({**told, "digest": sha256(text).hexdigest()})


def _beginning(writer: str, before: Checkpoint | None) -> Stretch:
    return Stretch(before.heads[writer][0], begun=before) if before else Stretch()


def _not_whole(id: str) -> ConvergedonError:
    return ConvergedonError(f"audit record {id} is missing or changed: ask `convergedon audit verify`")


def _line(said: Mapping[str, Any]) -> bytes:
    return orjson.dumps(said) + b"\n"
