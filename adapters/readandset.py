"""The stages of a change for devices that can only be read and set: read, set, read back, set back what it was."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convergedon.adapters.contract import Capability, Change, Difference, Intent, State
from convergedon.core.errors import DeadlinePassed


@dataclass(frozen=True)
class Setting(Change):
    """What the device must have in the end."""

    target: State


class ReadAndSet(ABC):
    """A Performer once ``observe`` and ``set`` say how, and the rest of an Adapter is there.

    What it cannot promise it does not declare: a device whose gateway dies while it sets stays as it is until the
    intent comes again, and is brought to the desired state then.
    """

    performs = True
    offers: frozenset[Capability] = frozenset({"read", "rollback"})

    def __init__(self) -> None:
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @abstractmethod
    async def observe(self, intent: Intent) -> State:
        """Read what the device has of the intent's service. Raises Refused for an intent that can never be done."""

    @abstractmethod
    async def set(self, intent: Intent, state: State) -> None:
        """Have the device hold exactly this state of the intent's service; None takes the service away."""

    async def capabilities(self, device: str) -> frozenset[Capability]:
        return self.offers

    async def prepare(self, intent: Intent) -> Setting:
        turn = self._turns[intent.device]
        await turn.acquire()
        try:
            if time.time() >= intent.deadline:
                raise DeadlinePassed("the deadline passed before it was the intent's turn; nothing was changed")
            before = await self.observe(intent)
            target = None if intent.values is None else with_values(before, intent.values)
            return Setting(intent, before, diff(before, target), before != target, target)
        except BaseException:
            turn.release()
            raise

    async def commit(self, change: Setting) -> None:
        await self.set(change.intent, change.target)

    async def verify(self, change: Setting) -> Sequence[Difference]:
        return differences(change.target, await self.observe(change.intent))

    async def confirm(self, change: Setting) -> None:
        return None  # what was set lasts

    async def rollback(self, change: Setting) -> Sequence[Difference]:
        await self.set(change.intent, change.before)
        return differences(change.before, await self.observe(change.intent))

    async def release(self, change: Setting) -> None:
        self._turns[change.intent.device].release()


def with_values(before: State, values: Mapping[str, Any]) -> dict[str, Any]:
    """Put values into a state; None takes a leaf away, and leaves that are not named stay as they are."""
    return {leaf: value for leaf, value in {**(before or {}), **values}.items() if value is not None}


def diff(before: State, after: State) -> dict[str, tuple[Any, Any]]:
    """Name the leaves that change, each with its value before and after."""
    old, new = before or {}, after or {}
    return {leaf: (old.get(leaf), new.get(leaf)) for leaf in {**old, **new} if old.get(leaf) != new.get(leaf)}


def differences(wanted: State, found: State) -> list[Difference]:
    """Name what is not as it must be: the service as a whole, or its leaves."""
    if (wanted is None) != (found is None):
        return [Difference("", wanted, found)]
    return [Difference(leaf, new, old) for leaf, (old, new) in diff(found, wanted).items()]
