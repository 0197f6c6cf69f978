"""The ways through a definition: whether on each of them a change is approved before it is made, and proven after.

A way may jump forward (``then``, ``switch``), leave out a task (``if``), or go by what is caught; all of them are
walked at once, each task once, as ways lead forward only. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from convergedon.mediation.workflows.definitions import Task, covers, keyword, named, place


@dataclass(frozen=True)
class Way:
    """How far all ways have come that lead to one place: whether something was ``approved`` on each of them, and which
    intents, by their paths, are not ``proven`` yet on some.
    """

    approved: bool = False
    unproven: Mapping[str, Task] = field(default_factory=dict)

    def without(self, proven: Iterable[str]) -> Way:
        gone = set(proven)
        return replace(self, unproven={path: task for path, task in self.unproven.items() if path not in gone})


def merged(ways: Iterable[Way | None]) -> Way | None:
    """Where several ways meet; None where none comes."""
    coming = [way for way in ways if way is not None]
    if not coming:
        return None
    unproven = {path: task for way in coming for path, task in way.unproven.items()}
    return Way(all(way.approved for way in coming), unproven)


@dataclass
class Ways:
    """What was found on the ways: intents that nobody approved before, and those that may end without a proof."""

    unapproved: list[str] = field(default_factory=list)
    ends: list[Way | None] = field(default_factory=list)

    @property
    def unproven(self) -> list[str]:
        last = merged(self.ends)
        return list(last.unproven) if last else []

    def through(self, tasks: Sequence[Task], path: str, way: Way | None, failing: list[Way | None]) -> Way | None:
        """Walk a list; returns how its end is reached. ``failing`` takes the ways on which one of its tasks fails."""
        entries = list(named(tasks))
        names = [name for _, name, _ in entries]
        coming: list[list[Way | None]] = [[] for _ in range(len(entries) + 1)]
        coming[0].append(way)
        for position, (number, name, task) in enumerate(entries):
            here = merged(coming[position])
            if here is None:
                continue
            if "if" in task:
                coming[position + 1].append(here)
            failing.append(here)
            after = self._task(task, f"{path}/{number}/{name}", here, failing)
            for then in _leads(task):
                if then == "end":
                    self.ends.append(after)
                else:
                    target = {"continue": position + 1, "exit": len(entries)}
                    coming[target[then] if then in target else names.index(then)].append(after)
        return merged(coming[-1])

    def _task(self, task: Task, path: str, way: Way, failing: list[Way | None]) -> Way | None:
        match keyword(task):
            case "call":
                return self._call(task, path, way)
            case "listen":
                return way.without(way.unproven)
            case "raise":
                return None
            case "do":
                return self.through(task["do"], f"{path}/do", way, failing)
            case "for":
                inside = self.through(task["do"], f"{path}/do", way, failing)
                return replace(inside, approved=way.approved) if inside else None  # there may be no items
            case "fork":
                return self._fork(task, path, way, failing)
            case "try":
                return self._try(task, path, way, failing)
        return way

    def _call(self, task: Task, path: str, way: Way) -> Way:
        match task["call"]:
            case "approval":
                return replace(way, approved=True)
            case "observe":
                return way.without(p for p, one in way.unproven.items() if covers(task["with"], one["with"]))
            case "intent":
                if not way.approved:
                    self.unapproved.append(path)
                # of several of one service the last is proven
                same = [p for p, one in way.unproven.items() if place(one["with"]) == place(task["with"])]
                left = way.without(same)
                return replace(left, unproven={**left.unproven, path: task})
        return way

    def _fork(self, task: Task, path: str, way: Way, failing: list[Way | None]) -> Way | None:
        """All branches come to their end: what one of them proves is proven, and what one asks is asked."""
        branches = [
            self.through([{name: branch}], f"{path}/fork/branches", way, failing)
            for _, name, branch in named(task["fork"]["branches"])
        ]
        there = [branch for branch in branches if branch is not None]
        if len(there) < len(branches):
            return None
        proven = {p for p in way.unproven for branch in there if p not in branch.unproven}
        unproven = {p: one for branch in there for p, one in branch.unproven.items() if p not in proven}
        return Way(any(branch.approved for branch in there), unproven)

    def _try(self, task: Task, path: str, way: Way, failing: list[Way | None]) -> Way | None:
        """What is caught goes on without what was done before it being proven; after retries alone it fails for good.

        A task that fails itself has changed nothing, or nobody knows: that is found when it runs.
        """
        caught: list[Way | None] = []
        after, catch = self.through(task["try"], f"{path}/try", way, caught), task["catch"]
        if "do" in catch:
            return merged([after, self.through(catch["do"], f"{path}/catch/do", merged(caught), failing)])
        return after if "retry" in catch else merged([after, *caught])


def _leads(task: Task) -> list[str]:
    """Where a task may lead."""
    then = str(task.get("then", "continue"))
    if "switch" not in task:
        return [then]
    cases = [about for case in task["switch"] for about in case.values()]
    found = [str(about["then"]) for about in cases]
    return found if any("when" not in about for about in cases) else [*found, then]


def walked(tasks: Sequence[Task]) -> Ways:
    """All ways through a definition whose tasks lead forward only."""
    ways = Ways()
    ways.ends.append(ways.through(tasks, "do", Way(), []))
    return ways
