"""Signed checkpoints: one statement of how far every chain of the audit record has come, each bound to the one before.

A checkpoint stands in the stream of the anchors and, where a file is named, as a line of it. Whichever worker comes
first makes the next one; a second at the same place is refused by the bus, so they are a chain without forks. What is
signed is a text, and it is kept as that text: whoever checks it needs no agreement on how JSON is written.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from convergedon.core import keys
from convergedon.core.audit import HEADS, START
from convergedon.core.bus import Bus
from convergedon.core.errors import ConvergedonError, Misconfigured, Stale
from convergedon.core.settings import Settings
from convergedon.core.tasks import end

log = structlog.get_logger()

SUBJECT = "audit.checkpoint"
TAIL = 4 << 20
"""Bytes at the end of the file within which its last checkpoint is: a message of the bus has a quarter of that."""
EVERY = 10.0
"""Seconds between two checkpoints, as long as something is recorded."""


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Checkpoint:
    """``heads`` are the ends of the chains that have grown since the one before; ``upto`` is the place in the stream of
    anchors up to which they were looked for; ``previous`` the hash of the text of the one before.
    """

    number: int
    time: str
    previous: str
    upto: int
    heads: Mapping[str, tuple[int, str]]

    @property
    def text(self) -> str:
        told = {
            "number": self.number,
            "time": self.time,
            "previous": self.previous,
            "upto": self.upto,
            "heads": {writer: list(head) for writer, head in self.heads.items()},
        }
        return orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode()


def read(said: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint that a message tells. Raises ValueError for one that is none."""
    try:
        told = orjson.loads(said["text"])
        heads = {writer: (int(sequence), str(hash)) for writer, (sequence, hash) in told.pop("heads").items()}
        found = Checkpoint(heads=heads, **told)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it does not say what a checkpoint says") from error
    if found.text != said["text"] or said.keys() != {"text", "signature"}:
        raise ValueError("it is not written as a checkpoint is")
    return found


def hash_of(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(str(said["text"]).encode()).hexdigest()


def is_signed(said: Mapping[str, Any], key: Ed25519PublicKey) -> bool:
    try:
        key.verify(bytes.fromhex(said["signature"]), said["text"].encode())
    except (InvalidSignature, ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(said["signature"] == said["signature"].lower())


def signing_key(settings: Settings) -> Ed25519PrivateKey:
    """The key that signs, from the file that is set or from the data folder, where it is made. Raises Misconfigured."""
    path = _path(settings)
    try:
        pem = path.read_bytes() if settings.audit_signing_key_file else keys.kept(path, _fresh)
        key = load_pem_private_key(pem, None)
    except (OSError, ValueError, TypeError) as error:
        raise Misconfigured(f"the key that signs audit checkpoints, {path}, cannot be used: {_words(error)}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Misconfigured(f"the key that signs audit checkpoints, {path}, is not an Ed25519 key")
    return key


def public_key(settings: Settings) -> Ed25519PublicKey:
    """The key that checks signatures; its file may hold the public part alone. Raises Misconfigured."""
    path = _path(settings)
    try:
        pem = path.read_bytes()
        if b"PUBLIC KEY" in pem:
            key: Any = load_pem_public_key(pem)
        else:
            key = load_pem_private_key(pem, None).public_key()
    except (OSError, ValueError, TypeError) as error:
        raise Misconfigured(
            f"the key of the audit checkpoints, {path}, cannot be read ({_words(error)}): "
            "set CONVERGEDON_AUDIT_SIGNING_KEY_FILE, or --data where the workers keep theirs"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise Misconfigured(f"the key of the audit checkpoints, {path}, is not an Ed25519 key")
    return key


def _words(error: Exception) -> str:
    return (error.strerror or "" if isinstance(error, OSError) else "it is not a PEM key").lower()


def pem(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _path(settings: Settings) -> Path:
    return settings.audit_signing_key_file or settings.data / "keys" / "checkpoint.pem"


def _fresh() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Notary:
    """Makes the next checkpoint when it is time, and keeps the file in step. Any number of workers has one."""

    def __init__(self, bus: Bus, key: Ed25519PrivateKey, file: Path | None = None) -> None:
        self._bus, self._key, self._file = bus, key, file
        self._place = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._attend())

    async def stop(self) -> None:
        """One more, of what has been recorded since."""
        if self._task:
            await end([self._task])
        await self._try()

    async def _attend(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self._try()

    async def _try(self) -> None:
        try:
            await self.attest()
        except Stale:
            pass  # another worker was first: its checkpoint says the same
        except ConvergedonError as error:
            log.warning("no audit checkpoint", reason=str(error))

    async def attest(self) -> bool:
        """Make a checkpoint if a chain has grown since the last one. Raises Stale when another was first."""
        last = await self._bus.last(SUBJECT)
        before = self._own(last.body) if last else Checkpoint(0, "", START, 0, {})
        heads, upto = dict[str, tuple[int, str]](), before.upto
        async for message in self._bus.since(f"{HEADS}.>", 0, before.upto):
            upto, said = message.position.sequence, message.body
            if said["stored"] and said["sequence"] > heads.get(said["writer"], (0, ""))[0]:
                heads[said["writer"]] = (said["sequence"], said["hash"])
        if heads:
            time = now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
            previous = hash_of(last.body) if last else START
            made = Checkpoint(before.number + 1, time, previous, upto, heads)
            signed = {"text": made.text, "signature": self._key.sign(made.text.encode()).hex()}
            await self._bus.publish(SUBJECT, signed, uuid4().hex, after=last.position.sequence if last else 0)
        if self._file:
            await self._follow(self._file)
        return bool(heads)

    def _own(self, said: Mapping[str, Any]) -> Checkpoint:
        """The last checkpoint, if our key signed it: a chain of two keys in turns nobody could check."""
        if not is_signed(said, self._key.public_key()):
            raise Misconfigured(
                "the last audit checkpoint was signed with another key: give all workers the same "
                "CONVERGEDON_AUDIT_SIGNING_KEY_FILE"
            )
        return read(said)

    async def _follow(self, file: Path) -> None:
        """Append to the file the checkpoints that it does not have yet, whoever made them."""
        said, place = [], self._place
        async for message in self._bus.since(SUBJECT, 0, self._place):
            said.append(message.body)
            place = message.position.sequence
        try:
            whole = not said or await asyncio.to_thread(_append, file, said)
        except (OSError, ValueError) as error:
            log.warning("the audit anchor file cannot be written", reason=str(error))
        else:
            self._place = place if whole else 0  # somebody cut it: next time all are looked at


def lines(file: Path) -> Sequence[bytes]:
    """The file's whole lines. One whose writer died over it is none: it stands last, or before itself as a whole."""
    if not file.exists():
        return []
    found = file.read_bytes().split(b"\n")
    return [one for one, after in pairwise(found) if not one or one == after or not after.startswith(one)]


def line(said: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"text": said["text"], "signature": said["signature"]})


def _append(file: Path, said: Sequence[Mapping[str, Any]]) -> bool:
    """Append what is missing; one process at a time, and durable when it returns. Whether these were enough."""
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        there, torn = _end(descriptor)
        missing = [one for one in said if read(one).number > there]
        if missing and read(missing[0]).number > there + 1:
            return False
        text = b"".join(line(one) + b"\n" for one in missing)
        if text:
            os.write(descriptor, (b"\n" if torn else b"") + text)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


def _end(descriptor: int) -> tuple[int, bool]:
    """The number of the last whole checkpoint in a file, and whether something that is not whole stands behind it."""
    size = os.fstat(descriptor).st_size
    *whole, rest = os.pread(descriptor, min(size, TAIL), size - min(size, TAIL)).split(b"\n")
    for text in reversed(whole):
        try:
            return read(orjson.loads(text)).number, bool(rest)
        except (ValueError, TypeError, AttributeError):
            continue  # a line that its writer died over
    return 0, bool(rest)
