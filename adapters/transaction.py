"""An intent on its way to the device and back: one line that ends in an Outcome, whatever breaks on it.

The stages are the adapter's, their order is here. When we die between two of them the intent is delivered again and
begins again: its prepare asks the device what became of the earlier try. ``read`` asks what a device has, and changes
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias, cast

import structlog

from convergedon.adapters.contract import (
    Adapter,
    Change,
    Difference,
    Intent,
    Outcome,
    OutcomeStatus,
    Performer,
    Reading,
    ReadingStatus,
    Reason,
    State,
)
from convergedon.adapters.readandset import differences, with_values
from convergedon.core.errors import (
    CredentialsRefused,
    DeadlinePassed,
    Locked,
    OutcomeUnknown,
    Refused,
    Unavailable,
    Unreachable,
    Unsupported,
)
from convergedon.core.metrics import PERFORMED

log = structlog.get_logger()

REASONS: Mapping[type[Exception], Reason] = {
    Unsupported: "capability",
    Refused: "value",
    Unreachable: "unreachable",
    CredentialsRefused: "credentials",
    Locked: "locked",
    DeadlinePassed: "deadline",
    OutcomeUnknown: "timeout",
    Unavailable: "unavailable",
}
LATE = 20.0
"""Seconds that a device has to say what became of an intent whose deadline has passed."""
UNTOUCHED = (Refused, Locked, DeadlinePassed)
"""What a commit raises that has changed nothing."""


class Why(NamedTuple):
    """What an outcome says of an intent that is not done."""

    words: str
    reason: Reason


NOTHING = Why("", "")
Changing: TypeAlias = Callable[[Performer[Any], Change], Awaitable[Outcome]]
"""What is done with a change that is needed."""


async def perform(adapter: Adapter, intent: Intent) -> Outcome:
    """Bring the device to the desired state, whole or not at all, and say what became of it.

    Of an outcome that is ``retriable`` the same intent may come again: it is still done once.
    """
    return await _performed(adapter, intent, _changed)


async def look_after(adapter: Adapter, intent: Intent) -> Outcome:
    """Say what became of an intent whose deadline has passed: it may have been done, and the answer was lost.

    It is not begun any more; what is pending of an earlier try is taken back.
    """
    return await _performed(adapter, replace(intent, deadline=time.time() + LATE), _too_late)


async def read(adapter: Adapter, intent: Intent) -> Reading:
    """Say what the device has of the intent's service, and how far that is from what is wanted; nothing changes.

    Of an unknown one whose ``reason`` is retriable the same may be asked again.
    """
    if not adapter.performs:
        why = _takes_none(adapter, intent)
        return Reading(intent.key, intent.device, "refused", words=why.words, reason=why.reason)
    try:
        state, wrong = await _compared(cast(Performer[Any], adapter), intent)
    except Exception as error:
        why = _why(error)
        refused = isinstance(error, Refused)
        status: ReadingStatus = "refused" if refused else "unknown"
        return Reading(intent.key, intent.device, status, words=why.words, reason=why.reason)
    return Reading(intent.key, intent.device, "read", state, tuple(wrong), _sentence(wrong))


async def _compared(adapter: Performer[Any], intent: Intent) -> tuple[State, Sequence[Difference]]:
    """Ask the adapter; one that does not compare has leaves that are called as the intent's values are."""
    if compare := getattr(adapter, "compare", None):
        found: tuple[State, Sequence[Difference]] = await compare(intent)
        return found
    state = await adapter.observe(intent)
    return state, differences(None if intent.values is None else with_values(state, intent.values), state)


async def _performed(adapter: Adapter, intent: Intent, change: Changing) -> Outcome:
    if adapter.performs:
        outcome = await _prepared(cast(Performer[Any], adapter), intent, change)
    else:
        outcome = _ended(intent, "refused", _takes_none(adapter, intent))
    PERFORMED.labels(adapter.name, outcome.status).inc()
    return outcome


async def _prepared(adapter: Performer[Any], intent: Intent, changing: Changing) -> Outcome:
    try:
        change = await adapter.prepare(intent)
    except (Refused, Locked) as error:
        return _ended(intent, "refused", _why(error))
    except Exception as error:  # an earlier try may stand there: nobody could ask
        return _ended(intent, "unknown", _why(error))
    try:
        return await (changing(adapter, change) if change.needed else _left_alone(adapter, change))
    finally:
        await adapter.release(change)


async def _too_late(adapter: Performer[Any], change: Change) -> Outcome:
    words = f"its deadline had passed; {change.intent.device} was asked, and does not have it"
    return _ended(change.intent, "refused", Why(words, "deadline"))


async def _left_alone(adapter: Performer[Any], change: Change) -> Outcome:
    """Say whether the device also does what it has."""
    try:
        wrong = await adapter.verify(change)
    except Exception as error:
        return _ended(change.intent, "unknown", _why(error))
    if wrong:
        words = f"the configuration is there already, but {_sentence(wrong)}"
        return _ended(change.intent, "refused", Why(words, "verification"))
    return _ended(change.intent, "unchanged")


async def _changed(adapter: Performer[Any], change: Change) -> Outcome:
    """Commit, verify, confirm; on any doubt after the commit the former state is brought back."""
    try:
        await adapter.commit(change)
    except UNTOUCHED as error:
        return _ended(change.intent, "refused", _why(error))
    except Exception as error:
        return await _undone(adapter, change, _why(error))
    try:
        if wrong := await adapter.verify(change):
            return await _undone(adapter, change, Why(_sentence(wrong), "verification"))
        await adapter.confirm(change)
    except Exception as error:
        return await _undone(adapter, change, _why(error))
    return Outcome(change.intent.key, change.intent.device, "applied", diff=change.diff)


async def _undone(adapter: Performer[Any], change: Change, why: Why) -> Outcome:
    """Bring the former state back; only what was read back counts."""
    try:
        missing = await adapter.rollback(change)
    except Exception as error:
        words = f"{why.words}; whether it is undone is not known ({_why(error).words})"
        return _ended(change.intent, "unknown", Why(words, why.reason))
    if missing:
        words = f"{why.words}; the former state is not back: {_sentence(missing)}"
        return _ended(change.intent, "unknown", Why(words, why.reason))
    return _ended(change.intent, "rolledBack", Why(f"{why.words}; the former state is back", why.reason))


def _takes_none(adapter: Adapter, intent: Intent) -> Why:
    words = f"the {adapter.name} adapter takes no intents: {intent.service} needs another one"
    return Why(words, "capability")


def _ended(intent: Intent, status: OutcomeStatus, why: Why = NOTHING) -> Outcome:
    return Outcome(intent.key, intent.device, status, why.words, reason=why.reason)


def reason(error: Exception) -> Reason:
    """What an operator does about an error, in one word."""
    return next((found for kind, found in REASONS.items() if isinstance(error, kind)), "defect")


def _why(error: Exception) -> Why:
    if (found := reason(error)) != "defect":
        return Why(str(error), found)
    log.error("an adapter broke", exc_info=error)
    return Why(f"the adapter broke ({type(error).__name__})", "defect")


def _sentence(differences: Sequence[Difference]) -> str:
    return ", ".join(str(difference) for difference in differences)
