"""Definitions of workflows: read from YAML, held against the schema, known by name, version and a hash of the whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import yaml

from convergedon.core import strict
from convergedon.core.errors import Misconfigured

HERE = files("convergedon.mediation.workflows")
SHIPPED = HERE / "shipped"
EFFECTS = ("intent", "http")
KEYWORDS = ("call", "do", "emit", "for", "fork", "listen", "raise", "set", "switch", "try", "wait")
"""The tasks that are run here; ``do`` beside ``for`` belongs to it."""
UNKNOWN = re.compile(r"Additional properties are not allowed \((.*) w(?:as|ere) unexpected\)")
UNITS = {"days": 86_400.0, "hours": 3_600.0, "minutes": 60.0, "seconds": 1.0, "milliseconds": 0.001}

Task = Mapping[str, Any]


@dataclass(frozen=True)
class Definition:
    """``document`` is the file as it was read; ``hash`` is over its canonical JSON."""

    document: Mapping[str, Any]
    source: str = ""

    @property
    def name(self) -> str:
        return str(self.document["document"]["name"])

    @property
    def version(self) -> str:
        return str(self.document["document"]["version"])

    @property
    def hash(self) -> str:
        return sha256(orjson.dumps(self.document, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def trigger(self) -> Mapping[str, Any]:
        """The filter of the event that begins it."""
        found: Mapping[str, Any] = self.document["schedule"]["on"]["one"]["with"]
        return found

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets that it says it uses, by their names."""
        return frozenset(self.document.get("use", {}).get("secrets", ()))

    def begins_with(self, event: Mapping[str, Any]) -> bool:
        """Whether it is for events of this type, and of this change."""
        changed = self.trigger.get("fieldPath")
        told = str(event["eventType"]) == self.trigger["type"]
        return told and (changed is None or changed in str(event.get("fieldPath", "")).split(","))

    @property
    def changes(self) -> bool:
        """Whether it asks anything of a device."""
        return any(task.get("call") == "intent" for _, task in every_task(self.document["do"], "do"))


def keyword(task: Task) -> str:
    """What kind of task it is; empty for one that is none, or several."""
    found = [word for word in KEYWORDS if word in task and not (word == "do" and "for" in task)]
    return found[0] if len(found) == 1 else ""


def named(tasks: Sequence[Task]) -> Iterator[tuple[int, str, Task]]:
    """The tasks of a list with their places and names."""
    for number, entry in enumerate(tasks):
        for name, task in entry.items():
            yield number, name, task


def inner(task: Task) -> Iterator[tuple[str, Sequence[Task]]]:
    """The lists of tasks inside a task, but for its compensation, each with its path."""
    match keyword(task):
        case "do" | "for":
            yield "do", task["do"]
        case "fork":
            yield "fork/branches", task["fork"]["branches"]
        case "try":
            yield "try", task["try"]
            if "do" in task["catch"]:
                yield "catch/do", task["catch"]["do"]


def every_task(tasks: Sequence[Task], path: str) -> Iterator[tuple[str, Task]]:
    """All tasks to any depth, but for compensations, with their paths."""
    for number, name, task in named(tasks):
        here = f"{path}/{number}/{name}"
        yield here, task
        for below, listed in inner(task):
            yield from every_task(listed, f"{here}/{below}")


def every_task_and_compensation(tasks: Sequence[Task], path: str) -> Iterator[tuple[str, Task]]:
    """All tasks to any depth, with their paths."""
    for here, task in every_task(tasks, path):
        yield here, task
        back = (task.get("metadata") or {}).get("compensate") or ()
        yield from every_task_and_compensation(back, f"{here}/metadata/compensate")


def seconds(duration: Mapping[str, int]) -> float:
    return sum(UNITS[unit] * number for unit, number in duration.items())


def is_effect(task: Task) -> bool:
    """Whether it changes anything outside."""
    if task.get("call") == "http":
        return bool(task["with"]["method"] != "get")
    return task.get("call") == "intent"


def place(given: Mapping[str, Any]) -> tuple[Any, ...]:
    """What an intent or an observe is of: the one service that it names."""
    return tuple(given.get(name) for name in ("adapter", "device", "service", "instance"))


def covers(seen: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether one that reads wants all that an intent asked for, and maybe more that can only be read."""
    if place(seen) != place(asked):
        return False
    wanted, values = asked["values"], seen["values"]
    if isinstance(wanted, Mapping) and isinstance(values, Mapping):
        return all(name in values and values[name] == value for name, value in wanted.items())
    return bool(wanted == values)


def endpoint(given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Where a request goes, and how it says who it is: {bearer: {use: ...}}, or nothing."""
    to = given["endpoint"]
    return (to, {}) if isinstance(to, str) else (to["uri"], to.get("authentication", {}))


def read(file: Traversable | Path) -> Definition:
    """Read one file. Raises Misconfigured with what the schema says first."""
    document = plain(strict.parsed(file)[1])
    if found := violations(document):
        raise Misconfigured(f"{file}: {found[0]}")
    return Definition(document, str(file))


def plain(document: Any) -> Any:
    """The document with ``on`` as it is written: YAML 1.1 takes it for a truth value."""
    schedule = document.get("schedule") if isinstance(document, Mapping) else None
    if isinstance(schedule, Mapping) and True in schedule:
        return {**document, "schedule": {"on" if name is True else name: v for name, v in schedule.items()}}
    return document


def sources(place: Path | None) -> list[Traversable]:
    """The files at a place: itself, or the .yaml files of the folder; of none, those that ship.

    Raises Misconfigured.
    """
    if place is None:
        return sorted((one for one in SHIPPED.iterdir() if one.name.endswith(".yaml")), key=str)
    if place.is_dir():
        return [*sorted((one for one in place.iterdir() if one.suffix in (".yaml", ".yml")), key=str)]
    if not place.exists():
        raise Misconfigured(f"{place}: there is no such file or folder")
    return [place]


def violations(document: Any) -> list[str]:
    """What the schema has against a document: sentences with the place, nearest to the root first."""
    if not isinstance(document, Mapping):
        return ["the file is no mapping"]
    if strange := list(_strange_keys(document, "")):
        return strange
    errors = sorted(_schema().iter_errors(document), key=lambda error: len(error.instance_path))
    sentences = [_sentence(document, error) for error in errors]
    if isinstance(document.get("do"), list) and not sentences:
        sentences = [
            f"{path}: it must have one of {', '.join(KEYWORDS)}"
            for path, task in every_task(document["do"], "do")
            if not keyword(task)
        ]
    return list(dict.fromkeys(sentences))


def _strange_keys(value: Any, path: str) -> Iterator[str]:
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        if isinstance(value, Mapping) and not isinstance(key, str):
            words = "a key is no text: YAML takes on, off, yes, no and numbers for others; quote it"
            yield f"{path or 'the file'}: {words}"
        yield from _strange_keys(inner, f"{path}/{key}" if path else str(key))


def _sentence(document: Any, error: Any) -> str:
    path = "/".join(str(part) for part in error.instance_path) or "the file"
    words = str(error.message)
    if unknown := UNKNOWN.search(words):
        words = f"not known here: {unknown[1]}"
    return f"{path}: {words}"


@cache
def _schema() -> Any:
    return jsonschema_rs.Draft202012Validator(yaml.safe_load((HERE / "schema.yaml").read_text(encoding="utf-8")))
