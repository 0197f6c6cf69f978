"""Which policies are in force: a bundle is published once, and every process takes it, at once or when it starts.

activate -> (every process: look -> swap -> say so) -> settled. The newest bundle on the bus is in force; as long as
there was none, and after a way back beyond the first one, each process takes its own folder or the policies that ship.
A process that cannot compile what is in force allows nothing until there is something that it can.
"""

from __future__ import annotations

import asyncio
import os
import socket
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

import orjson
import structlog

from convergedon.core import bundles
from convergedon.core.bundles import Bundle
from convergedon.core.bus import Bus, Message, token
from convergedon.core.checking import run_tests
from convergedon.core.engines import Closed, Engine, compiled
from convergedon.core.errors import ConvergedonError, Misconfigured, NotFound, TooLarge, Unavailable
from convergedon.core.policy import Policy
from convergedon.core.tasks import end

log = structlog.get_logger()

SUBJECT = "policy.bundle"
LARGEST = 700_000
"""Bytes that a bundle may have on the bus, packed: a NATS server takes a million of one message if it is told nothing
else.
"""
EVERY = 2.0
"""Seconds between two looks: at what was published meanwhile unheard, or at a folder that is to be mended."""
BEAT = 5.0
LIVE = 3 * BEAT
"""Seconds for which a process that said what it runs counts as alive."""


@dataclass(frozen=True)
class Activation:
    """A bundle that was put in force, or None where each process's own policies were again.

    ``before`` is the number of the activation that a way back leads to; 0: to each process's own policies.
    """

    number: int
    bundle: Bundle | None
    who: str
    note: str
    time: float
    before: int = 0

    @property
    def revision(self) -> str:
        return self.bundle.revision if self.bundle else ""


@dataclass(frozen=True)
class Running:
    """What a process says of itself. ``number`` is the activation that it runs, 0: its own policies.

    One that asks a policy server follows no activation.
    """

    process: str
    revision: str
    number: int
    state: str
    reason: str
    follows: bool

    @property
    def words(self) -> str:
        return f"{self.process} {self.revision or '-'} {self.state}" + (f": {self.reason}" if self.reason else "")


def pack(bundle: Bundle) -> str:
    """Raises TooLarge."""
    content = orjson.dumps({"policies": dict(bundle.policies), "data": bundle.data})
    packed = b64encode(zlib.compress(content)).decode()
    if len(packed) > LARGEST:
        raise TooLarge(
            f"the bundle has {len(packed):,} bytes packed, and at most {LARGEST:,} go over the bus: "
            "keep large data elsewhere, or use an Open Policy Agent server (CONVERGEDON_OPA_URL)"
        )
    return packed


def unpack(packed: str, revision: str) -> Bundle:
    """Raises Misconfigured when it is not what was packed."""
    try:
        content = orjson.loads(zlib.decompress(b64decode(packed, validate=True)))
        bundle = bundles.bundle(content["policies"], content["data"])
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise Misconfigured(f"the bundle {revision} on the bus is damaged: {error}") from error
    if bundle.revision != revision:
        raise Misconfigured(f"the bundle {revision} on the bus is damaged: its content is that of {bundle.revision}")
    return bundle


def _activation(message: Message) -> Activation:
    """Raises Misconfigured for a bundle that is damaged."""
    body = message.body
    bundle = unpack(body["bundle"], body["revision"]) if body["bundle"] else None
    return Activation(message.position.sequence, bundle, body["who"], body["note"], message.stored, body["before"])


class Following:
    """Keeps a process on the policies that are in force, and says on the bus which it runs."""

    def __init__(self, policy: Policy, bus: Bus, role: str, folder: Path | None, follows: bool = True) -> None:
        self._policy, self._bus, self._folder, self._follows = policy, bus, folder, follows
        self._process = f"{role}@{socket.gethostname()}:{os.getpid()}"
        self._subject = f"running.{token(self._process)}-{uuid4().hex[:8]}"
        self._said, self._spoke = 0, 0.0
        self._taken: str | None = None
        self._number = 0
        self._closed = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.look()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task:
            await end([self._task])
        with suppress(ConvergedonError):
            await self._say("stopped")

    async def _follow(self) -> None:
        async with self._bus.listen(SUBJECT) as heard:
            while True:
                try:
                    await self.look()
                except Exception:
                    log.exception("policies are looked at later")
                with suppress(TimeoutError):
                    await asyncio.wait_for(heard.get(), EVERY)

    async def look(self) -> None:
        """Run what is in force, if that is something else than before, and say so."""
        changed = self._follows and await self._take()
        if changed or time() - self._spoke > BEAT:
            with suppress(Unavailable):
                await self._say("closed" if self._closed else "ready")

    async def _take(self) -> bool:
        try:
            newest = await self._bus.last(SUBJECT)
        except Unavailable as error:
            if self._taken is not None:
                return False  # what runs goes on; readiness tells of the bus
            return self._put(None, 0, Closed(f"the policies in force cannot be asked for: {error}"))
        if newest is None and self._taken:
            log.warning("the bus has lost the policies in force; they go on here until others are activated")
            return False
        id, number = (newest.id, newest.position.sequence) if newest else ("", 0)
        if id == self._taken and not (self._closed and self._is_own(newest)):
            return False
        return self._put(id, number, self._engine(newest))

    def _is_own(self, newest: Message | None) -> bool:
        """Whether a process's own policies are in force."""
        return newest is None or not newest.body["bundle"]

    def _engine(self, newest: Message | None) -> Engine:
        try:
            bundle = _activation(newest).bundle if newest else None
            return compiled(bundle or bundles.read(self._folder))
        except Misconfigured as error:
            return Closed(" ".join(str(error).split()))

    def _put(self, taken: str | None, number: int, engine: Engine) -> bool:
        """Put an engine in force; whether that changed anything."""
        closed = engine.reason if isinstance(engine, Closed) else ""
        if closed and (closed, taken) == (self._closed, self._taken):
            return False
        self._policy.swap(engine)
        self._taken, self._number, self._closed = taken, number, closed
        if closed:
            log.error("nothing is allowed: no policies are in force", reason=closed)
        else:
            log.info("policies in force", revision=engine.revision)
        return True

    async def _say(self, state: str) -> None:
        self._said += 1
        said = Running(self._process, self._policy.revision, self._number, state, self._closed, self._follows)
        await self._bus.publish(self._subject, asdict(said), f"{self._subject}:{self._said}")
        self._spoke = time()


def fit(folder: Path) -> Bundle:
    """The bundle of a folder, when it may be put in force: it compiles, answers, and its tests pass.

    Raises Misconfigured with what is to be mended.
    """
    bundle = bundles.read(folder)
    compiled(bundle)
    results = run_tests(bundle)
    failed = [name for name, passed in results if not passed]
    if not results:
        raise Misconfigured(f"{folder} has no tests: nothing is put in force that nobody has tried")
    if failed:
        raise Misconfigured(f"{len(failed)} of {len(results)} policy tests fail: {', '.join(failed)}")
    return bundle


async def activate(bus: Bus, bundle: Bundle, who: str, note: str = "") -> Activation:
    """Put a bundle in force in every process. Raises Misconfigured where a policy server is asked, TooLarge."""
    await _require_followers(bus)
    newest = await bus.last(SUBJECT)
    before = newest.position.sequence if newest and newest.body["bundle"] else 0
    return await _publish(bus, bundle, who, note, before)


async def roll_back(bus: Bus, who: str) -> Activation:
    """Put in force again what was so before the present bundle.

    Raises NotFound when no bundle is in force or the one before is not kept any more, Misconfigured.
    """
    await _require_followers(bus)
    past = await history(bus)
    if not past or past[-1].bundle is None:
        raise NotFound("there is nothing to go back to: each process's own policies are in force")
    present = past[-1]
    if not present.before:
        return await _publish(bus, None, who, f"back from {present.revision}", 0)
    former = next((one for one in past if one.number == present.before), None)
    if former is None:
        raise NotFound("the bundle before the present one is not kept any more: activate its folder")
    return await _publish(bus, former.bundle, who, f"back from {present.revision}", former.before)


async def _publish(bus: Bus, bundle: Bundle | None, who: str, note: str, before: int) -> Activation:
    body = {
        "bundle": pack(bundle) if bundle else "",
        "revision": bundle.revision if bundle else "",
        "who": who,
        "note": note,
        "before": before,
    }
    id = uuid4().hex
    await bus.publish(SUBJECT, body, id)
    newest = await bus.last(SUBJECT)
    if newest is None or newest.id != id:
        raise Unavailable("somebody else activated other policies at the same moment: see `convergedon policy status`")
    return _activation(newest)


async def _require_followers(bus: Bus) -> None:
    asking = [one.process for one in await running(bus) if not one.follows]
    if asking:
        raise Misconfigured(
            f"{', '.join(asking)} asks an Open Policy Agent server, which holds its own policies: change them there"
        )


async def newest(bus: Bus) -> Activation | None:
    """What is in force. Raises Misconfigured when it is damaged."""
    message = await bus.last(SUBJECT)
    return _activation(message) if message else None


async def history(bus: Bus) -> list[Activation]:
    """What was put in force, oldest first, as far as it is kept; what is damaged is left out."""
    found = []
    async for message in bus.since(SUBJECT, 0):
        with suppress(Misconfigured):
            found.append(_activation(message))
    return found


async def running(bus: Bus) -> list[Running]:
    """What the processes that are alive say that they run.

    Each is asked for by its subject: while one is just saying something else, a reading of all may pass it over.
    """
    said = await asyncio.gather(*map(bus.last, await bus.waiting("RUNNING")))
    lately = [message for message in said if message and time() - message.stored < LIVE]
    found = [Running(**message.body) for message in lately if message.body["state"] != "stopped"]
    return sorted(found, key=lambda one: one.process)


async def settled(bus: Bus, wanted: Activation, patience: float = 10.0) -> Sequence[Running]:
    """The processes, when all that live have taken it, or refused it, or the patience is over."""
    until = time() + patience
    while True:
        found = await running(bus)
        if time() > until or all(one.number >= wanted.number for one in found):
            return found
        await asyncio.sleep(0.1)


def outcome(wanted: Activation, found: Sequence[Running]) -> str:
    """A sentence on who runs it. Raises Unavailable, naming them, when some process does not."""
    name = f"revision {wanted.revision}" if wanted.bundle else "each process's own policies"
    if not found:
        return f"{name}: in force; nothing runs at the moment, what starts takes it"
    lacking = [
        f"{one.process} ({one.reason or 'has not said so yet'})"
        for one in found
        if one.number < wanted.number or one.state != "ready"
    ]
    words = f"{name}: in force in {len(found) - len(lacking)} of {len(found)} processes"
    if lacking:
        raise Unavailable(f"{words}; not in {', '.join(lacking)}")
    return words


async def status(bus: Bus) -> Mapping[str, Any]:
    """What is in force, since when, by whom, and what each process runs."""
    past = await history(bus)
    newest = past[-1] if past else None
    return {
        "revision": newest.revision if newest else "",
        "since": newest.time if newest else None,
        "by": newest.who if newest else "",
        "note": newest.note if newest else "",
        "processes": [asdict(one) for one in await running(bus)],
    }


def told(status: Mapping[str, Any]) -> str:
    """The same for a person."""
    if status["since"] is None:
        head = "nothing was activated: each process runs its own policies"
    else:
        since = datetime.fromtimestamp(status["since"], UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        what = f"revision {status['revision']}" if status["revision"] else "each process's own policies"
        head = f"{what} since {since} by {status['by']}" + (f" ({status['note']})" if status["note"] else "")
    return "\n".join([head, *(Running(**one).words for one in status["processes"])])
