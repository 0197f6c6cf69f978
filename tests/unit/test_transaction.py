"""Whatever breaks on an intent's way to the device and back, it ends in an outcome that is true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from convergedon.adapters.contract import Change, Difference, Intent, Performer, Report, State
from convergedon.adapters.readandset import ReadAndSet
from convergedon.adapters.transaction import perform
from convergedon.core import errors
from convergedon.core.errors import (
    CredentialsRefused,
    DeadlinePassed,
    Invalid,
    Locked,
    OutcomeUnknown,
    Unavailable,
    Unreachable,
    Unsupported,
)

OLD, NEW = {"vlan": 1, "words": "old"}, {"vlan": 2, "words": "old"}


def intent(values: Mapping[str, Any] | None = None, **changed: Any) -> Intent:
    given = {"vlan": 2} if values is None else values
    return Intent("order-1", "acme", "pe1", "access", "a", given, time.time() + 60, **changed)


class Switch(ReadAndSet):
    """A device in memory; ``breaks`` names the stages that raise, and what."""

    name = "switch"

    def __init__(self, held: State = None) -> None:
        super().__init__()
        self.held = held
        self.breaks: dict[str, Exception] = {}
        self.called: list[str] = []

    async def start(self, report: Report) -> Sequence[str]:
        return []

    async def stop(self) -> None:
        return None

    async def health(self) -> Mapping[str, Any]:
        return {"state": "ready"}

    async def observe(self, intent: Intent) -> State:
        return self.held

    async def set(self, intent: Intent, state: State) -> None:
        self.held = state

    async def prepare(self, intent: Intent) -> Any:
        self._step("prepare")
        return await super().prepare(intent)

    async def commit(self, change: Any) -> None:
        self._step("commit")
        await super().commit(change)
        self._step("committed")

    async def verify(self, change: Any) -> Sequence[Difference]:
        self._step("verify")
        return await super().verify(change)

    async def confirm(self, change: Any) -> None:
        self._step("confirm")

    async def rollback(self, change: Any) -> Sequence[Difference]:
        self._step("rollback")
        return await super().rollback(change)

    async def release(self, change: Change) -> None:
        self._step("release")
        await super().release(change)  # type: ignore[arg-type]

    def _step(self, stage: str) -> None:
        self.called.append(stage)
        if stage in self.breaks:
            raise self.breaks[stage]


async def test_the_stages_are_taken_in_their_order_and_the_outcome_says_what_changed() -> None:
    switch = Switch(OLD)

    outcome = await perform(switch, intent())

    assert isinstance(switch, Performer)
    assert switch.called == ["prepare", "commit", "committed", "verify", "confirm", "release"]
    assert (outcome.status, outcome.reason, outcome.diff) == ("applied", "", {"vlan": (1, 2)})
    assert switch.held == NEW


@pytest.mark.parametrize(
    ("error", "status", "reason", "retriable"),
    [
        (Invalid("no such vlan"), "refused", "value", False),
        (Unsupported("no candidate"), "refused", "capability", False),
        (Locked("held by another"), "refused", "locked", True),
        (Unreachable("gone"), "unknown", "unreachable", True),
        (CredentialsRefused("wrong password"), "unknown", "credentials", True),
        (DeadlinePassed("too late"), "unknown", "deadline", False),
        (OutcomeUnknown("no answer"), "unknown", "timeout", True),
        (Unavailable("stopping"), "unknown", "unavailable", True),
        (KeyError("vlan"), "unknown", "defect", False),
    ],
)
async def test_what_ends_a_prepare_says_what_to_do_next(
    error: Exception, status: str, reason: str, retriable: bool
) -> None:
    """Before the device was asked nobody knows whether an earlier try of the intent stands there."""
    switch = Switch(OLD)
    switch.breaks["prepare"] = error

    outcome = await perform(switch, intent())

    assert (outcome.status, outcome.reason, outcome.retriable) == (status, reason, retriable)
    assert switch.held == OLD


def test_each_error_that_may_pass_has_a_reason_of_its_own() -> None:
    kinds = {kind.__name__ for kind in Unavailable.__subclasses__()}

    assert kinds == {"Unreachable", "CredentialsRefused", "Locked", "DeadlinePassed", "OutcomeUnknown"}
    assert all(f"{name} " in (errors.__doc__ or "") for name in kinds)


@pytest.mark.parametrize("error", [Invalid("no"), Locked("held"), DeadlinePassed("late")])
async def test_a_commit_that_says_no_has_changed_nothing(error: Exception) -> None:
    switch = Switch(OLD)
    switch.breaks["commit"] = error

    outcome = await perform(switch, intent())

    assert (outcome.status, outcome.words) == ("refused", str(error))
    assert "rollback" not in switch.called
    assert switch.called[-1] == "release"


@pytest.mark.parametrize("stage", ["commit", "committed", "verify", "confirm"])
@pytest.mark.parametrize("error", [Unreachable("gone"), OutcomeUnknown("no answer"), KeyError("vlan")])
async def test_on_any_doubt_the_former_state_is_brought_back(stage: str, error: Exception) -> None:
    """Also when it is the adapter that broke."""
    switch = Switch(OLD)
    switch.breaks[stage] = error

    outcome = await perform(switch, intent())

    assert outcome.status == "rolledBack"
    assert outcome.words.endswith("the former state is back")
    assert switch.held == OLD
    assert switch.called[-2:] == ["rollback", "release"]


@pytest.mark.parametrize("stage", ["committed", "verify", "confirm"])
async def test_what_cannot_be_brought_back_is_unknown_until_it_comes_again(stage: str) -> None:
    switch = Switch(OLD)
    switch.breaks = {stage: OutcomeUnknown("no answer"), "rollback": Unreachable("gone")}

    lost = await perform(switch, intent())
    switch.breaks.clear()
    again = await perform(switch, intent())

    assert (lost.status, lost.reason, lost.retriable) == ("unknown", "timeout", True)
    assert "gone" in lost.words
    assert again.status == "unchanged"


async def test_a_device_that_does_not_do_what_it_was_told_gets_its_former_state_back() -> None:
    class Deaf(Switch):
        async def set(self, intent: Intent, state: State) -> None:
            self.held = OLD if state == OLD else {**(state or {}), "vlan": 4094}

    switch = Deaf(OLD)

    outcome = await perform(switch, intent())

    assert (outcome.status, outcome.reason) == ("rolledBack", "verification")
    assert "leaf vlan: wanted 2, found 4094" in outcome.words
    assert switch.held == OLD


async def test_a_former_state_that_does_not_come_back_is_not_called_back() -> None:
    class Stuck(Switch):
        async def set(self, intent: Intent, state: State) -> None:
            self.held = {"vlan": 4094}

    outcome = await perform(Stuck(OLD), intent())

    assert outcome.status == "unknown"
    assert "the former state is not back: leaf vlan: wanted 1, found 4094" in outcome.words


async def test_a_service_that_holds_nothing_is_there_or_not() -> None:
    switch = Switch(None)
    statuses = [(await perform(switch, replace(intent(), values=values))).status for values in ({}, {}, None, None)]

    assert statuses == ["applied", "unchanged", "applied", "unchanged"]


async def test_a_leaf_that_is_not_named_stays_and_one_that_is_none_goes() -> None:
    switch = Switch(OLD)

    outcome = await perform(switch, intent({"vlan": 3, "words": None}))

    assert outcome.diff == {"vlan": (1, 3), "words": ("old", None)}
    assert switch.held == {"vlan": 3}


async def test_two_changes_of_one_device_are_one_after_another() -> None:
    switch = Switch(OLD)

    outcomes = await asyncio.gather(perform(switch, intent()), perform(switch, intent()))

    assert sorted(outcome.status for outcome in outcomes) == ["applied", "unchanged"]


async def test_an_intent_whose_turn_comes_after_its_deadline_touches_nothing() -> None:
    switch = Switch(OLD)

    outcome = await perform(switch, replace(intent(), deadline=time.time() - 1))

    assert (outcome.reason, outcome.retriable) == ("deadline", False)
    assert switch.held == OLD


@pytest.mark.parametrize("taken", [["prepare"], ["prepare", "commit"], ["prepare", "commit", "verify"]])
async def test_a_gateway_that_dies_between_two_stages_finds_out_the_next_time(taken: list[str]) -> None:
    """What the one that died had begun is neither done twice nor lost."""
    dead = Switch(OLD)
    change = await dead.prepare(intent())
    for stage in taken[1:]:
        await getattr(dead, stage)(change)
    alive = Switch(dead.held)

    outcome = await perform(alive, intent())

    assert outcome.status == ("applied" if taken == ["prepare"] else "unchanged")
    assert alive.held == NEW


async def test_one_that_takes_no_intents_says_so() -> None:
    class Listener:
        name, performs = "listener", False

        async def start(self, report: Report) -> Sequence[str]:
            return []

        async def stop(self) -> None:
            return None

        async def health(self) -> Mapping[str, Any]:
            return {"state": "ready"}

    outcome = await perform(Listener(), intent())

    assert (outcome.status, outcome.reason) == ("refused", "capability")
    assert "listener" in outcome.words
