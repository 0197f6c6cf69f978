"""What holds of each adapter, and of each that takes intents, while nothing goes wrong."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import get_args

from convergedon.adapters.contract import Capability, Intent, Performer
from convergedon.adapters.testing.cases import case, performers, require
from convergedon.adapters.testing.trial import Bench, ignore, sockets
from convergedon.adapters.transaction import look_after, perform, read

KNOWN = frozenset(get_args(Capability))


@case("contract")
async def it_has_a_name_and_says_whether_it_performs(bench: Bench) -> None:
    """Its name is the one by which it is found, in small letters; one that performs has all stages of a change."""
    adapter = bench.create({})

    require(adapter.name == bench.name == adapter.name.lower(), "its name is", adapter.name)
    require(isinstance(adapter.performs, bool), "performs is", adapter.performs)
    require(not adapter.performs or isinstance(adapter, Performer), "it performs, and lacks a stage of a change")
    require(set(getattr(adapter, "offers", ())) <= KNOWN, "it offers what nobody knows")


@case("contract")
async def stopping_leaves_no_socket_and_it_starts_again(bench: Bench) -> None:
    """After stop nothing is open that was not before, and start works once more."""
    async with bench.devices() as devices:
        adapter, before = bench.create(devices), sockets()
        for _ in range(2):
            await adapter.start(ignore)
            await adapter.stop()

        require(sockets() <= before, "it leaves sockets open")


@case("contract")
async def stopping_twice_or_before_the_start_is_no_error(bench: Bench) -> None:
    """Whoever cleans up need not know how far it came."""
    async with bench.devices() as devices:
        adapter = bench.create(devices)
        await adapter.stop()
        await adapter.start(ignore)
        await adapter.stop()
        await adapter.stop()


@case("contract")
async def the_addresses_it_listens_on_are_text(bench: Bench) -> None:
    """They are shown to people, and to those who send."""
    adapter = bench.create({})
    addresses = await adapter.start(ignore)
    await adapter.stop()

    require(all(isinstance(one, str) and one for one in addresses), "it listens on", addresses)


@case("contract")
async def health_is_json_with_a_state(bench: Bench) -> None:
    """ready or degraded, and what else it has to say."""
    async with bench.working() as adapter:
        health = await adapter.health()

    require(json.loads(json.dumps(health))["state"] in ("ready", "degraded"), "its health is", health)


@case("contract")
async def it_goes_on_with_what_was_read_again(bench: Bench) -> None:
    """It takes over what another one has read, or another one takes its place while it still runs."""
    async with bench.devices() as devices, bench.started(devices) as adapter:
        fresh = bench.create(devices)
        if become := getattr(adapter, "become", None):
            become(fresh)
        else:
            await fresh.start(ignore)
            await fresh.stop()

        require((await adapter.health())["state"] in ("ready", "degraded"), "it is not well afterwards")


def observers(bench: Bench) -> str:
    return "it takes intents" if bench.performs else ""


@case("contract", observers)
async def one_that_does_not_perform_refuses_intents_in_a_sentence(bench: Bench) -> None:
    """Refused with the reason capability, and its name in the words."""
    outcome = await perform(bench.create({}), Intent("key", "acme", "pe1", "access", "site-1", {}, 0))

    require((outcome.status, outcome.reason) == ("refused", "capability"), outcome)
    require(bench.name in outcome.words, "its words are", outcome.words)


@case("contract", performers)
async def an_intent_twice_is_done_once(bench: Bench) -> None:
    """applied and what changed, then unchanged and nothing."""
    async with bench.working() as adapter:
        first, second = await perform(adapter, bench.wanted), await perform(adapter, bench.wanted)

    require((first.status, second.status) == ("applied", "unchanged"), first, second)
    require((first.key, first.device) == (bench.wanted.key, bench.wanted.device), first)
    require(first.diff and not second.diff, "the differences are", first.diff, second.diff)


@case("contract", performers)
async def an_intent_of_another_adapter_object_is_done_once(bench: Bench) -> None:
    """What was done is asked of the device, not remembered."""
    async with bench.devices() as devices:
        async with bench.started(devices) as adapter:
            await perform(adapter, bench.wanted)
        before = await bench.state(devices, bench.wanted)
        async with bench.started(devices) as adapter:
            again = await perform(adapter, bench.wanted)

        require(again.status == "unchanged", again)
        require(await bench.state(devices, bench.wanted) == before, "it is not as it was")


@case("contract", performers)
async def what_is_taken_away_is_gone_and_stays_gone(bench: Bench) -> None:
    """applied, unchanged, and it can be had again."""
    async with bench.working() as adapter:
        absent = replace(bench.wanted, values=None)
        await perform(adapter, bench.wanted)
        statuses = [(await perform(adapter, each)).status for each in (absent, absent, bench.wanted)]

    require(statuses == ["applied", "unchanged", "applied"], statuses)


@case("contract", performers)
async def taking_away_what_was_never_there_changes_nothing(bench: Bench) -> None:
    """unchanged, which is done."""
    async with bench.working() as adapter:
        outcome = await perform(adapter, replace(bench.wanted, values=None))

    require(outcome.status == "unchanged", outcome)


@case("contract", performers)
async def a_refusal_is_a_value_with_words_and_changes_nothing(bench: Bench) -> None:
    """The device or the mapping says no, why, and goes on taking what it can do."""
    async with bench.working() as adapter:
        refusal, after = await perform(adapter, bench.refused), await perform(adapter, bench.wanted)

    require(refusal.status == "refused" and refusal.reason in ("value", "capability"), refusal)
    require(refusal.words, "it says no without a word")
    require(after.done, after)


@case("contract", performers)
async def what_comes_too_late_changes_nothing(bench: Bench) -> None:
    """Not done, with the reason deadline: an earlier try may have done it, so that it is refused is not said."""
    async with bench.devices() as devices:
        async with bench.started(devices) as adapter:
            outcome = await perform(adapter, replace(bench.wanted, deadline=time.time() - 1))

        require(not outcome.done and outcome.reason == "deadline", outcome)
        require(await bench.state(devices, bench.wanted) is None, "the device was changed")


@case("contract", performers)
async def what_was_done_before_it_came_too_late_is_done(bench: Bench) -> None:
    """The answer was lost, the deadline has passed: unchanged where the device has it, else it comes too late."""
    async with bench.working() as adapter:
        late = replace(bench.wanted, deadline=time.time() - 1)
        before = await look_after(adapter, late)
        await perform(adapter, bench.wanted)
        after = await look_after(adapter, late)

    require((before.status, before.reason) == ("refused", "deadline"), before)
    require(after.status == "unchanged", after)


@case("contract", performers)
async def reading_says_how_far_the_device_is_from_what_is_wanted(bench: Bench) -> None:
    """Nothing before, no difference after, all of it when it must not be there; and nothing is changed."""
    async with bench.devices() as devices:
        async with bench.started(devices) as adapter:
            before = await read(adapter, bench.wanted)
            await perform(adapter, bench.wanted)
            after, gone = await read(adapter, bench.wanted), await read(adapter, replace(bench.wanted, values=None))

        require((before.status, before.state, before.agrees) == ("read", None, False), before)
        require(after.agrees and after.state, after)
        require(gone.status == "read" and not gone.agrees, gone)
        require(await bench.state(devices, bench.wanted) is not None, "the device was changed")


@case("contract", performers)
async def preparing_changes_nothing_and_tells_what_would(bench: Bench) -> None:
    """The device is as it was, and the change says what it had."""
    async with bench.devices() as devices:
        async with bench.started(devices) as adapter:
            change = await adapter.prepare(bench.wanted)
            await adapter.release(change)

        require(change.needed and change.before is None and change.diff, change)
        require(await bench.state(devices, bench.wanted) is None, "the device was changed")


@case("contract", performers)
async def rolling_back_brings_back_what_was(bench: Bench) -> None:
    """Read from the device afterwards; it can be changed again then."""
    async with bench.devices() as devices:
        async with bench.started(devices) as adapter:
            change = await adapter.prepare(bench.wanted)
            await adapter.commit(change)
            missing = await adapter.rollback(change)
            await adapter.release(change)
        state = await bench.state(devices, bench.wanted)
        async with bench.started(devices) as adapter:
            after = await perform(adapter, bench.wanted)

        require(not missing and state is None, "it is not back:", missing, state)
        require(after.status == "applied", after)


@case("contract", performers)
async def a_device_says_what_it_can_do(bench: Bench) -> None:
    """What it can is known, and no more than the adapter offers."""
    async with bench.working() as adapter:
        found = await adapter.capabilities(bench.wanted.device)

    require("read" in found, "an intent is done once only where the device can be asked")
    require(found <= KNOWN, "nobody knows", sorted(found - KNOWN))
    offers = getattr(adapter, "offers", found)
    require(found <= offers, "it offers", sorted(offers), "and its device can", sorted(found))
