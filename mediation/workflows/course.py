"""The course of a workflow: what is to be done next, from its definition and what was told of its tasks so far.

Pure: nothing is done here and no clock is read. A course is walked from its beginning each time, and each task that
concerns the world outside is answered from what was told of it before, by its path; where nothing was told yet, it is
asked. So what is kept of a workflow is what happened to it and nothing else, and it goes on exactly where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convergedon.core.errors import Invalid
from convergedon.mediation.workflows.definitions import Definition, Task, is_effect, keyword, named, seconds
from convergedon.mediation.workflows.expressions import evaluate

MOST_ITEMS = 100
RUNTIME = {"name": "convergedon", "version": "1"}

Error = Mapping[str, Any]
"""As the DSL has it: type, status, title, detail, instance (the path of the task)."""
Told = Mapping[str, Mapping[str, Any]]
"""path -> what is known of what was asked there: {order, function, status, ...}.

``status`` is asked, done (with ``output``) or failed (with ``error``; ``unknown`` where it may have been done all the
same). ``order`` counts what was asked; ``due`` is until when an answer is waited for.
"""


@dataclass(frozen=True)
class Ask:
    """Something outside that a task wants: ``function`` is what it calls, or the kind of task; ``within`` seconds."""

    path: str
    name: str
    function: str
    given: Any
    within: float | None = None


@dataclass(frozen=True)
class Heard:
    """An event that a listen was waiting for: the number it has among those that came."""

    path: str
    number: int


@dataclass(frozen=True)
class Walked:
    """How far a walk came: what it asks for first, what it has heard, and when it is over its output or its error.

    ``unsuccessful`` are the compensations that failed: path and error.
    """

    asks: tuple[Ask, ...] = ()
    heard: tuple[Heard, ...] = ()
    over: bool = False
    output: Any = None
    error: Error | None = None
    unsuccessful: tuple[tuple[str, Error], ...] = ()


def error(type_: str, status: int, title: str, detail: str, path: str = "") -> Error:
    return {"type": type_, "status": status, "title": title, "detail": detail, "instance": path}


def walk(definition: Definition, about: Mapping[str, Any], told: Told, events: Sequence[Mapping[str, Any]]) -> Walked:
    """Walk from the beginning as far as what was told allows. ``about`` is the run: id, input, startedAt."""
    return _Walk(definition, about, told, events).forward()


def walk_back(
    definition: Definition, about: Mapping[str, Any], told: Told, events: Sequence[Mapping[str, Any]]
) -> Walked:
    """Take back what was done, or may have been, last first: each by its compensation, one after the other."""
    return _Walk(definition, about, told, events).back()


class _Pending(Exception):
    """It cannot go on here before an answer has come."""


class _Fault(Exception):
    def __init__(self, error: Error) -> None:
        super().__init__(error["detail"])
        self.error = error


class _End(Exception):
    """``then: end``."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


@dataclass
class _Walk:
    definition: Definition
    about: Mapping[str, Any]
    told: Told
    events: Sequence[Mapping[str, Any]]
    asks: list[Ask] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    effects: dict[str, tuple[Task, dict[str, Any]]] = field(default_factory=dict)
    context: Any = None

    def forward(self) -> Walked:
        over, output, wrong = True, None, None
        try:
            output = self.tasks(self.definition.document["do"], "do", self.about["input"], {})
        except _End as end:
            output = end.output
        except _Fault as fault:
            wrong = fault.error
        except _Pending:
            over = False
        return Walked(tuple(self.asks), tuple(self.heard), over, output, wrong)

    def back(self) -> Walked:
        self.forward()  # to know again what was done, and with which words
        self.asks, self.heard = [], []
        failed: list[tuple[str, Error]] = []
        done = [path for path in self.effects if _may_stand(self.told.get(path))]
        for path in sorted(done, key=lambda path: self.told[path]["order"], reverse=True):
            task, variables = self.effects[path]
            variables = {**variables, "output": self.told[path].get("output")}
            listed = task["metadata"]["compensate"]
            try:
                self.tasks(listed, f"{path}/compensate", variables["input"], variables)
            except _Fault as fault:
                failed.append((path, fault.error))
            except _End:
                continue
            except _Pending:
                return Walked(tuple(self.asks), unsuccessful=tuple(failed))
        return Walked(over=True, unsuccessful=tuple(failed))

    # lists and tasks

    def tasks(self, listed: Sequence[Task], path: str, raw: Any, scope: Mapping[str, Any]) -> Any:
        entries = list(named(listed))
        position = 0
        while position < len(entries):
            number, name, task = entries[position]
            raw, then = self.task(task, f"{path}/{number}/{name}", name, raw, scope)
            if then == "end":
                raise _End(raw)
            if then == "exit":
                return raw
            position = position + 1 if then == "continue" else [name for _, name, _ in entries].index(then)
        return raw

    def task(self, task: Task, path: str, name: str, raw: Any, scope: Mapping[str, Any]) -> tuple[Any, str]:
        """Its output and where it leads."""
        known = self._known(scope, path, name)
        if "if" in task and not self._value(task["if"], raw, known, path):
            return raw, "continue"
        given = self._value(task["input"]["from"], raw, known, path) if "from" in task.get("input", {}) else raw
        known["input"] = given
        then = task.get("then", "continue")
        if "switch" in task:
            output, then = given, self._choose(task, given, known, path, then)
        else:
            output = self._run(task, path, name, given, known, scope)
        if "as" in task.get("output", {}):
            output = self._value(task["output"]["as"], output, {**known, "output": output}, path)
        if "as" in task.get("export", {}):
            self.context = self._value(task["export"]["as"], output, {**known, "output": output}, path)
        return output, then

    def _known(self, scope: Mapping[str, Any], path: str, name: str) -> dict[str, Any]:
        workflow = {**self.about, "definition": self.definition.document}
        task = {"name": name, "reference": path}
        return {**scope, "context": self.context, "workflow": workflow, "runtime": RUNTIME, "task": task}

    def _value(self, value: Any, this: Any, known: Mapping[str, Any], path: str) -> Any:
        try:
            return evaluate(value, this, known)
        except Invalid as wrong:
            raise _Fault(error("expression", 400, "an expression failed", str(wrong), path)) from None

    def _run(
        self, task: Task, path: str, name: str, given: Any, known: dict[str, Any], scope: Mapping[str, Any]
    ) -> Any:
        match keyword(task):
            case "call":
                return self._call(task, path, name, given, known)
            case "do":
                return self.tasks(task["do"], f"{path}/do", given, scope)
            case "emit":
                told = self._value(task["emit"]["event"]["with"], given, known, path)
                self._leaf(Ask(path, name, "emit", told))
                return given
            case "for":
                return self._each(task, path, given, known, scope)
            case "fork":
                return self._fork(task, path, given, scope)
            case "listen":
                return self._listen(task, path, name, known)
            case "raise":
                raised = self._value(task["raise"]["error"], given, known, path)
                raise _Fault({"title": "", "detail": "", **raised, "instance": path})
            case "set":
                return self._value(task["set"], given, known, path)
            case "try":
                return self._try(task, path, name, given, known, scope)
            case "wait":
                self._leaf(Ask(path, name, "wait", None, seconds(task["wait"])))
                return given
        raise AssertionError(f"{path}: the schema has let through an unknown task")

    def _leaf(self, ask: Ask) -> Any:
        """What was told of something outside; where nothing was, it is asked."""
        entry = self.told.get(ask.path)
        if entry is None:
            self.asks.append(ask)
            raise _Pending
        if entry["status"] == "asked":
            raise _Pending
        if entry["status"] == "failed":
            raise _Fault(entry["error"])
        return entry.get("output")

    def _call(self, task: Task, path: str, name: str, given: Any, known: dict[str, Any]) -> Any:
        within = seconds(task["timeout"]["after"]) if "timeout" in task else None
        if is_effect(task) and "compensate" in (task.get("metadata") or {}):
            self.effects[path] = (task, dict(known))
        wanted = self._value(task.get("with") or {}, given, known, path)
        return self._leaf(Ask(path, name, task["call"], wanted, within))

    def _choose(self, task: Task, given: Any, known: Mapping[str, Any], path: str, otherwise: str) -> str:
        for case in task["switch"]:
            for about in case.values():
                if "when" not in about or self._value(about["when"], given, known, path):
                    return str(about["then"])
        return otherwise

    def _each(self, task: Task, path: str, given: Any, known: dict[str, Any], scope: Mapping[str, Any]) -> Any:
        items = self._value(task["for"]["in"], given, known, path)
        if not isinstance(items, list) or len(items) > MOST_ITEMS:
            words = f"for.in must be a list of at most {MOST_ITEMS}"
            raise _Fault(error("expression", 400, "a loop without bound", words, path))
        output = given
        for number, item in enumerate(items):
            inside = {**scope, task["for"].get("each", "item"): item, task["for"].get("at", "index"): number}
            if "while" in task and not self._value(task["while"], output, {**known, **inside}, path):
                break
            output = self.tasks(task["do"], f"{path}/do[{number}]", output, inside)
        return output

    def _fork(self, task: Task, path: str, given: Any, scope: Mapping[str, Any]) -> Any:
        """Every branch as far as it comes; the first error, by their order, once none of them waits any more."""
        outputs, pending, wrong = [], False, None
        for number, name, branch in named(task["fork"]["branches"]):
            try:
                output, _ = self.task(branch, f"{path}/fork/branches/{number}/{name}", name, given, scope)
                outputs.append(output)
            except _Pending:
                pending = True
            except (_Fault, _End) as other:
                wrong = wrong or other
        if pending:
            raise _Pending
        if wrong:
            raise wrong
        return outputs

    def _listen(self, task: Task, path: str, name: str, known: Mapping[str, Any]) -> Any:
        """The first event that came and no other listen has had; one that came before this listen began counts too."""
        entry = self.told.get(path)
        if entry is None or entry["status"] == "asked":
            taken = {one["event"] for one in self.told.values() if "event" in one} | {one.number for one in self.heard}
            for number, event in enumerate(self.events):
                if number not in taken and self._meant(task, event, known, path):
                    self.heard.append(Heard(path, number))
                    return event["data"]
        return self._leaf(Ask(path, name, "listen", None, seconds(task["timeout"]["after"])))

    def _meant(self, task: Task, event: Mapping[str, Any], known: Mapping[str, Any], path: str) -> bool:
        return any(
            one["with"]["type"] == event["type"]
            and ("data" not in one["with"] or bool(self._value(one["with"]["data"], event["data"], known, path)))
            for one in filters(task)
        )

    def _try(
        self, task: Task, path: str, name: str, given: Any, known: dict[str, Any], scope: Mapping[str, Any]
    ) -> Any:
        """Once more as often as retry says, after its delay; then what catch does, or the error if that is nothing."""
        catch = task["catch"]
        retry = catch.get("retry")
        attempts = retry["limit"]["attempt"]["count"] if retry else 0
        for attempt in range(attempts + 1):
            try:
                return self.tasks(task["try"], f"{path}/try[{attempt}]", given, scope)
            except _Fault as fault:
                inside = {**scope, catch.get("as", "error"): fault.error}
                if not self._caught(catch, fault.error, given, {**known, **inside}, path):
                    raise
                if attempt < attempts:
                    delay = seconds(retry.get("delay", {"seconds": 0}))
                    self._leaf(Ask(f"{path}/retry[{attempt}]", name, "wait", None, delay))
                elif "do" in catch:
                    return self.tasks(catch["do"], f"{path}/catch/do", given, inside)
                elif retry:
                    raise
        return given

    def _caught(self, catch: Task, wrong: Error, given: Any, known: Mapping[str, Any], path: str) -> bool:
        wanted = catch.get("errors", {}).get("with", {})
        if any(wrong.get(member) != value for member, value in wanted.items()):
            return False
        if "when" in catch and not self._value(catch["when"], given, known, path):
            return False
        return not ("exceptWhen" in catch and self._value(catch["exceptWhen"], given, known, path))


def filters(task: Task) -> Iterator[Mapping[str, Any]]:
    """What a listen waits for: any of these."""
    to = task["listen"]["to"]
    yield from [to["one"]] if "one" in to else to["any"]


def _may_stand(entry: Mapping[str, Any] | None) -> bool:
    """Whether what was asked is done outside, or may be."""
    return entry is not None and (entry["status"] in ("asked", "done") or bool(entry.get("unknown")))
