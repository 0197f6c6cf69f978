"""What every adapter promises, as suites that an adapter's own tests subclass. Needs pytest and pytest-asyncio.

class TestMine(AdapterContract):
    @pytest.fixture
    def adapter(self): return create(settings, devices)
    @pytest.fixture
    def intent(self): return Intent(...)        # one that its device can fulfil and does not yet
    @pytest.fixture
    def impossible(self): return Intent(...)    # one that the device or the mapping refuses
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from convergedon.adapters.contract import Adapter, Intent, Observation
from convergedon.adapters.transaction import perform


async def ignore(observation: Observation) -> None:
    """A report for suites that send nothing."""


def sockets() -> set[str]:
    """The sockets this process has open, where the system lists them (Linux); else none."""
    found = set()
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


class ObserverContract:
    """What holds of each adapter, whether it takes intents or not. Subclasses give the fixture ``adapter``."""

    async def test_stopping_leaves_no_socket_and_it_starts_again(self, adapter: Adapter) -> None:
        before = sockets()
        for _ in range(2):
            await adapter.start(ignore)
            await adapter.stop()

        assert sockets() <= before

    async def test_stopping_twice_or_before_the_start_is_no_error(self, adapter: Adapter) -> None:
        await adapter.stop()
        await adapter.start(ignore)
        await adapter.stop()
        await adapter.stop()

    async def test_the_addresses_it_listens_on_are_text(self, adapter: Adapter) -> None:
        addresses = await adapter.start(ignore)
        await adapter.stop()

        assert all(isinstance(address, str) and address for address in addresses)

    async def test_health_is_json_with_a_state(self, adapter: Adapter) -> None:
        await adapter.start(ignore)
        health = await adapter.health()
        await adapter.stop()

        assert json.loads(json.dumps(health))["state"] in ("ready", "degraded")

    async def test_it_has_a_name_and_says_whether_it_performs(self, adapter: Adapter) -> None:
        assert adapter.name == adapter.name.lower()
        assert isinstance(adapter.performs, bool)

    async def test_one_that_does_not_perform_refuses_intents_in_a_sentence(self, adapter: Adapter) -> None:
        if not adapter.performs:
            intent = Intent("key", "acme", "pe1", "access", "site-1", {}, 0)
            outcome = await perform(adapter, intent)

            assert (outcome.status, outcome.reason) == ("refused", "capability")
            assert adapter.name in outcome.words


class AdapterContract(ObserverContract):
    """What holds of an adapter that takes intents. Subclasses give ``adapter``, ``intent`` and ``impossible``."""

    @pytest.fixture
    async def started(self, adapter: Adapter) -> AsyncIterator[Adapter]:
        await adapter.start(ignore)
        yield adapter
        await adapter.stop()

    async def test_an_intent_twice_is_done_once(self, started: Adapter, intent: Intent) -> None:
        first = await perform(started, intent)
        second = await perform(started, intent)

        assert (first.status, second.status) == ("applied", "unchanged")
        assert (first.key, first.device) == (intent.key, intent.device)
        assert first.diff
        assert not second.diff

    async def test_what_is_taken_away_is_gone_and_stays_gone(self, started: Adapter, intent: Intent) -> None:
        absent = replace(intent, values=None)
        await perform(started, intent)
        statuses = [(await perform(started, each)).status for each in (absent, absent, intent)]

        assert statuses == ["applied", "unchanged", "applied"]

    async def test_taking_away_what_was_never_there_changes_nothing(self, started: Adapter, intent: Intent) -> None:
        outcome = await perform(started, replace(intent, values=None))

        assert outcome.status == "unchanged"
        assert outcome.done

    async def test_a_refusal_is_a_value_with_words_and_changes_nothing(
        self, started: Adapter, intent: Intent, impossible: Intent
    ) -> None:
        refusal = await perform(started, impossible)
        after = await perform(started, intent)

        assert refusal.status == "refused"
        assert not refusal.done
        assert refusal.words
        assert after.done
