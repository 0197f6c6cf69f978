"""What holds whatever comes in: mappings, intents and packets that nobody would write, made by hypothesis."""

from __future__ import annotations

import asyncio
import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import yaml

from convergedon.adapters.testing.cases import case, performers, require
from convergedon.adapters.testing.faults import all_told, golden, listeners, listening
from convergedon.adapters.testing.golden import Heard
from convergedon.adapters.testing.trial import WITHIN, Bench, given_in
from convergedon.adapters.transaction import perform
from convergedon.core.errors import Misconfigured

MAPPINGS, INTENTS, PACKETS = 60, 40, 300
STATUSES = ("applied", "unchanged", "refused", "rolledBack", "unknown")


def tried(examples: int, *strategies: Any) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Have hypothesis try so many examples of these; the same ones each time."""
    from hypothesis import HealthCheck, given, settings

    made = settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )

    def over(test: Callable[..., None]) -> Callable[[], None]:
        whole: Callable[[], None] = made(given(*strategies)(test))  # type: ignore[no-untyped-call]
        return whole

    return over


async def aside(test: Callable[[], None]) -> None:
    """Run it in a thread, as hypothesis waits for nobody.

    It takes the chance that an adapter leaves its retries to meanwhile for its own.
    """
    from hypothesis.errors import HypothesisDeprecationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisDeprecationWarning)
        await asyncio.to_thread(test)


def values() -> Any:
    from hypothesis import strategies as st

    plain = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
    return st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        max_leaves=5,
    )


def mapped(bench: Bench) -> str:
    return "" if bench.trial.mapping else "it has no mapping file"


def _places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    members = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(place for name, member in members for place in _places(member, (*path, name)))]


def _put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(document)
    whole = changed
    for name in path[:-1]:
        whole = whole[name]
    whole[path[-1]] = value
    return changed


@case("fuzz", mapped)
async def a_wrong_mapping_is_refused_in_a_sentence(bench: Bench) -> None:
    """Whatever stands where in it, it is taken, or refused with its file; never anything else."""
    from hypothesis import strategies as st

    name, shipped = given_in(bench.trial.mapping, "mapping")
    document = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    places = _places(document)
    folder = bench.folder / "mappings"
    folder.mkdir(exist_ok=True)
    file = folder / name

    @tried(MAPPINGS, st.sampled_from(places), values())
    def read(path: tuple[Any, ...], value: Any) -> None:
        file.write_text(yaml.safe_dump(_put(document, path, value), allow_unicode=True), encoding="utf-8")
        try:
            bench.create({}, mappings=folder)
        except Misconfigured as error:
            require(str(file) in str(error), "it does not name the file:", error)

    await aside(read)


@case("fuzz", performers)
async def an_intent_that_nobody_would_ask_for_ends_in_an_outcome(bench: Bench) -> None:
    """Whatever its values are: an outcome, and the device goes on."""
    from hypothesis import strategies as st

    loop = asyncio.get_running_loop()
    wanted = bench.wanted
    known = sorted(wanted.values or {})
    odd = st.dictionaries(st.sampled_from(known) | st.text(max_size=12), values(), max_size=4)

    async def one(adapter: Any, number: int, given: Any) -> None:
        intent = replace(wanted, key=f"odd-{number}", instance="odd", values=given, deadline=time.time() + WITHIN)
        outcome = await perform(adapter, intent)
        require(outcome.status in STATUSES and outcome.reason != "defect", given, "ends in", outcome)

    async with bench.working() as adapter:
        numbers = iter(range(10**9))

        @tried(INTENTS, odd)
        def ask(given: Any) -> None:
            asyncio.run_coroutine_threadsafe(one(adapter, next(numbers), given), loop).result(bench.trial.patience)

        await aside(ask)
        after = await perform(adapter, bench.wanted)

    require(after.done, "after that", after)


@case("fuzz", listeners)
async def packets_that_nobody_would_send_are_survived(bench: Bench) -> None:
    """Golden packets with bytes changed, left out and put in: it goes on, and understands what is whole."""
    from hypothesis import strategies as st

    heard, whole = Heard(), golden(bench)
    async with listening(bench, heard) as (adapter, address):

        @tried(PACKETS, st.sampled_from(whole), st.integers(0, 4096), st.integers(0, 8), st.binary(max_size=8))
        def throw(packet: bytes, place: int, out: int, put: bytes) -> None:
            start = place % (len(packet) + 1)
            odd = packet[:start] + put + packet[start + out :]
            if odd != packet:
                bench.trial.deliver(address, [odd])

        await aside(throw)
        await all_told(bench, address, heard)
        require((await adapter.health())["state"] == "ready", "it is not well:", await adapter.health())
