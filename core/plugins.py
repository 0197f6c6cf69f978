"""What ships and what other distributions bring, by name: they plug in by a group of entry points."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from convergedon.core.errors import Misconfigured

Factory = Callable[..., Any]


def factories(kind: str, group: str, ours: Mapping[str, str]) -> dict[str, Factory]:
    """Every factory of a kind by its name; ``ours`` are modules by name, each with a function ``create``.

    A module is imported when its factory is called, not before. Raises Misconfigured when another distribution takes a
    name that is taken.
    """
    found = {name: _ours(module) for name, module in ours.items()}
    for entry in entry_points(group=group):
        if entry.name in found:
            raise Misconfigured(
                f"{kind} {entry.name} of {entry.value} has a name that is taken: uninstall one of the two"
            )
        found[entry.name] = _theirs(kind, entry)
    return found


def _ours(module: str) -> Factory:
    return lambda *given: importlib.import_module(module).create(*given)


def _theirs(kind: str, entry: EntryPoint) -> Factory:
    def create(*given: Any) -> Any:
        try:
            factory = entry.load()
        except (ImportError, AttributeError) as error:
            raise Misconfigured(f"{kind} {entry.name} ({entry.value}) cannot be imported: {error}") from error
        return factory(*given)

    return create
