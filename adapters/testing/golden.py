"""Golden cases: folders with what comes in and what must come out, for people to read and for the kit to try.

One of an adapter that takes intents has ``intents.yaml``, a list of intents for a new device ({service, instance,
values, device, tenant, as the trial's where they are left out), and ``outcomes.yaml``, for each {status, reason, diff}
and what the device has then (state). One of an adapter that listens has ``packets.yaml``, a list of datagrams in
hexadecimal or of {text: what they say}, and ``observations.yaml``, for each observation all but id and time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from convergedon.adapters.contract import Observation
from convergedon.adapters.testing.cases import case, require
from convergedon.adapters.testing.trial import Bench
from convergedon.adapters.transaction import perform
from convergedon.core import metrics
from convergedon.core.errors import Misconfigured

PATIENCE = 10.0


INTENTS, PACKETS, TOLD = "intents.yaml", "packets.yaml", "observations.yaml"


def folders(bench: Bench, name: str) -> list[Traversable]:
    """The golden cases that begin with this file, by name."""
    given = bench.trial.golden
    found = [one for one in given.iterdir() if one.is_dir()] if given and given.is_dir() else []
    return sorted((one for one in found if name in {file.name for file in one.iterdir()}), key=lambda one: one.name)


def read(folder: Traversable, name: str) -> list[Any]:
    """Raises Misconfigured for what is no list."""
    try:
        found = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise Misconfigured(f"{folder / name}: cannot be read: {error}") from error
    if not isinstance(found, list):
        raise Misconfigured(f"{folder / name}: must be a list")
    return found


@case("golden")
async def there_are_golden_cases(bench: Bench) -> None:
    """Somebody who reads them knows what the adapter does."""
    name = INTENTS if bench.performs else PACKETS
    require(folders(bench, name), "no folder with", name, "below", bench.trial.golden)


@case("golden")
async def golden_cases_come_out_as_they_are_written(bench: Bench) -> None:
    """What goes in and what comes out, folder by folder."""
    for folder in folders(bench, INTENTS) if bench.performs else ():
        _compare(folder, "outcomes.yaml", await outcomes(bench, read(folder, INTENTS)))
    for folder in folders(bench, PACKETS):
        wanted = len(read(folder, TOLD))
        _compare(folder, TOLD, await observations(bench, packets(folder), wanted))


def _compare(folder: Traversable, name: str, found: Sequence[Any]) -> None:
    wanted = read(folder, name)
    for number, (one, other) in enumerate(zip(wanted, found, strict=False)):
        require(one == other, f"{folder.name}/{name}, number {number}: wanted {one}, found {other}")
    require(len(wanted) == len(found), f"{folder.name}/{name}: wanted {len(wanted)}, found {len(found)}")


async def outcomes(bench: Bench, intents: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What becomes of intents, one after the other on new devices, as it is written."""
    found = []
    async with bench.working() as adapter:
        for number, said in enumerate(intents):
            intent = replace(bench.wanted, key=f"golden-{number}", **said)
            outcome = await perform(adapter, intent)
            told: dict[str, Any] = {"status": outcome.status, "diff": outcome.diff}
            told |= {"reason": outcome.reason} if outcome.reason else {"state": await adapter.observe(intent)}
            found.append(_plain(told))
    return found


COUNTED = ("received_total", "decoded_total", "observations_total")


def _hears(bench: Bench) -> str:
    return "" if folders(bench, PACKETS) else "there are no golden packets"


@case("golden", _hears)
async def what_comes_in_is_counted(bench: Bench) -> None:
    """As received, as understood and as told, under the adapter's name (core/metrics.py); what waits is, too."""
    before, folder = _counted(bench), folders(bench, PACKETS)[0]
    await observations(bench, packets(folder), len(read(folder, TOLD)))
    for name, count in _counted(bench).items():
        require(count > before[name], f"it does not count what came in (convergedon_adapter_{name})")
    known = metrics.of_adapter(bench.name)
    require("convergedon_adapter_queue" in known, "it does not count what waits (convergedon_adapter_queue)")


def _counted(bench: Bench) -> dict[str, float]:
    known = metrics.of_adapter(bench.name)
    return {
        name: sum(v for key, v in known.items() if key.startswith(f"convergedon_adapter_{name}")) for name in COUNTED
    }


def packets(folder: Traversable) -> list[bytes]:
    """Each in hexadecimal, or as {text: what it says}."""
    given = read(folder, PACKETS)
    return [one["text"].encode() if isinstance(one, dict) else bytes.fromhex(one) for one in given]


async def observations(bench: Bench, sent: Sequence[bytes], wanted: int) -> list[Any]:
    """What becomes of datagrams, as it is written; those that come within the patience."""
    heard = Heard()
    async with bench.devices() as devices:
        adapter = bench.create(devices)
        addresses = await adapter.start(heard)
        try:
            bench.trial.deliver(addresses[0], sent)
            await heard.until(wanted)
        finally:
            await adapter.stop()
    return list(heard.told)


class Heard:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self._bell = asyncio.Event()

    async def __call__(self, observation: Observation) -> None:
        self.seen.append(observation)
        self._bell.set()

    async def until(self, count: int, patience: float = PATIENCE) -> bool:
        """Wait until so many were told; whether they were."""
        try:
            async with asyncio.timeout(patience):
                while len(self.seen) < count:
                    self._bell.clear()
                    await self._bell.wait()
        except TimeoutError:
            return False
        return True

    @property
    def told(self) -> Iterator[Any]:
        for one in self.seen:
            yield _plain({name: value for name, value in asdict(one).items() if name not in ("id", "time")})


def _plain(told: Mapping[str, Any]) -> Any:
    """As YAML has it: lists for tuples, and nothing but plain values."""
    return json.loads(json.dumps(told, default=str))
