"""All of the kit on one adapter, and the report of it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from convergedon.adapters import discovery
from convergedon.adapters.testing import contract, faults, fuzz, golden
from convergedon.adapters.testing.cases import CASES, Case
from convergedon.adapters.testing.trial import Bench, Trial, trial_of
from convergedon.core.errors import ConvergedonError, Misconfigured

GROUPS = (contract, golden, faults, fuzz)
"""The modules whose cases there are."""
Result = Literal["passed", "failed", "waived", "unneeded", "not applicable"]
WORDS = 2_000


@dataclass(frozen=True)
class Verdict:
    """What came of one case. ``unneeded`` is a waiver of what holds: it is to be taken out."""

    group: str
    name: str
    promise: str
    result: Result
    words: str = ""
    seconds: float = 0.0


@dataclass
class Findings:
    """What came of all of them."""

    adapter: str
    version: str
    distribution: str
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not any(one.result in ("failed", "unneeded") for one in self.verdicts)

    @property
    def document(self) -> dict[str, Any]:
        counted = Counter(one.result for one in self.verdicts)
        return {
            "adapter": self.adapter,
            "version": self.version,
            "distribution": self.distribution,
            "holds": self.holds,
            **{result: counted[result] for result in ("passed", "failed", "waived", "unneeded", "not applicable")},
            "cases": [asdict(one) for one in self.verdicts],
        }

    @property
    def words(self) -> str:
        """The same for a person."""
        head = f"{self.adapter} ({self.distribution} {self.version})"
        lines = [
            f"  {one.result:<16}{one.group:<10}{one.name:<66}{one.seconds:6.2f} s"
            + (f"\n      {one.words}" if one.words else "")
            for one in self.verdicts
            if one.result != "not applicable"
        ]
        aside = Counter(one.words for one in self.verdicts if one.result == "not applicable")
        lines += [f"  {count} cases are not applicable: {words}" for words, count in aside.items()]
        counted = Counter(one.result for one in self.verdicts)
        told = ", ".join(f"{count} {result}" for result, count in counted.items())
        return "\n".join([head, *lines, f"{told}: {'it holds' if self.holds else 'it does not hold'}"])


async def check(name: str) -> Findings:
    """Try everything. Raises Misconfigured for an adapter that cannot be tried, or without what the kit needs."""
    if find_spec("hypothesis") is None:
        raise Misconfigured("hypothesis is needed to make things up: pip install 'convergedon[kit]'")
    trial, about = trial_of(name), discovery.origin(name)
    findings = Findings(name, about["version"], about["distribution"])
    findings.verdicts += [await tried(name, trial, case) for case in CASES]
    findings.verdicts += strange(trial)
    return findings


def strange(trial: Trial) -> list[Verdict]:
    """The waivers of what is no case."""
    unknown = sorted(trial.waivers.keys() - {case.name for case in CASES})
    return [Verdict("contract", name, "", "unneeded", "waived, and there is no such case") for name in unknown]


async def tried(name: str, trial: Trial, case: Case, create: discovery.Factory | None = None) -> Verdict:
    """One case, on a bench of its own."""
    begun = time.perf_counter()

    def verdict(result: Result, words: str = "") -> Verdict:
        seconds = round(time.perf_counter() - begun, 3)
        return Verdict(case.group, case.name, case.promise, result, words[:WORDS], seconds)

    waiver = trial.waivers.get(case.name)
    with tempfile.TemporaryDirectory(prefix="convergedon-kit-") as folder:
        bench = Bench(name, trial, Path(folder), create)
        if why := case.applies(bench):
            return (
                verdict("unneeded", f"waived, and not applicable: {why}") if waiver else verdict("not applicable", why)
            )
        wrong = await _wrong(case, bench)
    if waiver:
        return (
            verdict("waived", f"{waiver} ({wrong})")
            if wrong
            else verdict("unneeded", f"waived, and it holds: {waiver}")
        )
    return verdict("failed", wrong) if wrong else verdict("passed")


async def _wrong(case: Case, bench: Bench) -> str:
    """What is not kept, in words; empty when all is."""
    try:
        async with asyncio.timeout(bench.trial.patience):
            await case.play(bench)
    except Misconfigured as error:
        return f"it could not be tried: {error}"
    except TimeoutError:
        return f"it did not end within {bench.trial.patience:g} s"
    except (AssertionError, ConvergedonError) as error:
        return str(error) or type(error).__name__
    except Exception as error:
        return f"it broke: {error!r}"
    return ""
