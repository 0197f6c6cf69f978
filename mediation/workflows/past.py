"""What happened before an incident on its device: how often, how much, how restless; what the guards go by.

Pure, so that a rehearsal of a recorded incident comes to the same figures as the run that was live.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from convergedon.core.store import Record
from convergedon.handlers.remediation import NO_REASON
from convergedon.mediation.workflows.definitions import Definition

LATELY, A_DAY = 3_600.0, 86_400.0
"""Seconds that the policy is told of, and that penalties are counted over."""


@dataclass(frozen=True)
class Run:
    """A run on the device that was begun. ``object`` is the part of it that it was about."""

    workflow: str
    object: str
    changes: bool
    startedAt: str
    endedAt: str = ""
    alarm: str = ""

    def is_under_way(self, moment: float) -> bool:
        return not self.endedAt or instant(self.endedAt) > moment


def run_of(record: Record) -> Run:
    body, given = record.body, record.facts["input"]
    changes = Definition(record.facts["definition"]).changes
    where, alarm = given["target"]["object"], body["alarm"]["id"]
    return Run(body["workflow"]["name"], where, changes, body["startedAt"], body.get("endedAt", ""), alarm)


@dataclass(frozen=True)
class Past:
    """``runs`` are those of a day on the device, whosever they are; ``raised`` is when this very alarm was raised, this
    time with it; ``underWay`` how many runs of the tenant were, and ``waiting`` how many waited for the device.
    """

    runs: Sequence[Run] = ()
    raised: Sequence[str] = ()
    underWay: int = 0
    waiting: int = 0

    def earlier(self, workflow: str, object: str) -> int:
        """How often a workflow ran at this very place within a day: what a penalty grows by."""
        return sum(run.workflow == workflow and run.object == object for run in self.runs)

    def figures(self, workflow: str, given: Mapping[str, Any], moment: float) -> dict[str, int]:
        """What the policy is told: how much, how often, how restless, how many at once."""
        lately = [run for run in self.runs if instant(run.startedAt) >= moment - LATELY]
        return {
            "affected": len({one["id"] for one in given["services"]} | {one["instance"] for one in given["confirmed"]}),
            "recent": sum(run.workflow == workflow for run in lately),
            "repairs": sum(run.changes for run in lately),
            "raised": sum(instant(at) >= moment - LATELY for at in self.raised),
            "underWay": self.underWay,
            "waiting": self.waiting,
        }

    def holder(self, moment: float) -> Run | None:
        """The run that had the device at a moment, if any had."""
        return next((run for run in self.runs if run.changes and run.is_under_way(moment)), None)


@dataclass(frozen=True)
class Press:
    """The button that stops workflows, or lets them go on: of the tenant, or of ``everyone``."""

    at: str
    state: str
    reason: str = ""
    everyone: bool = False


@dataclass(frozen=True)
class Decided:
    """When it was decided whether a workflow may begin for the alarm, how many of the tenant's were under way, and how
    many waited for the device.
    """

    at: str
    underWay: int
    waiting: int = 0


@dataclass(frozen=True)
class Recorded:
    """What was recorded with an incident: until when, and of each workflow that was to begin for it when that was."""

    until: str
    past: Past
    known: bool = True
    decided: Mapping[str, Decided] = field(default_factory=dict)
    pressed: Sequence[Press] = ()

    def stopped(self, moment: float) -> str:
        """Why workflows might do nothing at a moment; empty when they might. As it is decided of a run that is live."""
        for everyone in (True, False):
            before = [one for one in self.pressed if one.everyone is everyone and instant(one.at) <= moment]
            newest = max(before, key=lambda one: instant(one.at), default=None)
            if newest and newest.state == "stopped":
                return newest.reason or NO_REASON
        return ""

    def of(self, workflow: str, alarm: str) -> tuple[Past, float]:
        """What there was when a workflow was to begin, or would be now, without itself; and when that is."""
        then = self.decided.get(workflow, Decided(self.until, self.past.underWay, self.past.waiting))
        moment = instant(then.at)
        runs = [
            run
            for run in self.past.runs
            if moment - A_DAY <= instant(run.startedAt) <= moment
            and (run.workflow, run.alarm, run.startedAt) != (workflow, alarm, then.at)
        ]
        return Past(runs, [at for at in self.past.raised if instant(at) <= moment], then.underWay, then.waiting), moment

    @property
    def written(self) -> dict[str, Any]:
        whole = asdict(self)
        return {**{name: value for name, value in whole.items() if name != "past"}, **whole["past"]}


def read(given: Mapping[str, Any]) -> Recorded:
    """What ``written`` wrote. Raises ValueError, TypeError or KeyError for anything else."""
    told = dict(given)
    runs, raised = [Run(**run) for run in told.pop("runs")], [str(at) for at in told.pop("raised")]
    decided = {name: Decided(**one) for name, one in told.pop("decided", {}).items()}
    pressed = [Press(**one) for one in told.pop("pressed", ())]
    before = Past(runs, raised, int(told.pop("underWay")), int(told.pop("waiting", 0)))
    found = Recorded(past=before, decided=decided, pressed=pressed, **told)
    begun, asked = (run.startedAt for run in runs), (one.at for one in decided.values())
    for at in (found.until, *raised, *begun, *asked, *(press.at for press in pressed)):
        instant(at)
    return found


def instant(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()
