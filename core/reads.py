"""What of a question the policies of a bundle read, found in the engine's own syntax tree.

Two questions that agree in all of it have the same answer, whatever else they tell. What is found is never too little:
where a rule goes on from a member in a way that only shows when it runs (an item of a list, an object that is given to
a function), all of that member counts as read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

Path = tuple[str, ...]
WHOLE: Path = ()
"""The path of the question itself."""
ABSENT = {"absent": True}
"""Stands for a member that is not there."""
TEST = "is_object"
NOTHING = ""
"""Read below a member of which only matters whether it is an object: of what is none, everything is read anyway."""


class Reads:
    """The members that are read, as a tree: by name what is read below each, None for all of it."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._tree: dict[str, Any] | None = {}
        for path in sorted(paths):
            if path == WHOLE:
                self._tree = None
                return
            _add(self._tree, path)

    def of(self, question: Mapping[str, Any]) -> bytes:
        """What is read of a question, as bytes that differ where it differs. Raises orjson.JSONEncodeError."""
        return orjson.dumps(question if self._tree is None else _read(self._tree, question))


def _add(tree: dict[str, Any], path: Path) -> None:
    """Paths come in their order: what is read whole comes before what is read below it."""
    *above, last = path
    for name in above:
        below = tree.setdefault(name, {})
        if below is None:
            return
        tree = below
    tree[last] = None


def _read(tree: Mapping[str, Any], value: Mapping[str, Any]) -> list[Any]:
    """Each member that is read, whether it is there or not; of what is no object everything, whatever is read in it."""
    return [_member(below, value[name]) if name in value else ABSENT for name, below in tree.items()]


def _member(below: Mapping[str, Any] | None, member: Any) -> Any:
    if below is None:
        return [member]
    return _read(below, member) if isinstance(member, Mapping) else {"no object": member}


def reads(modules: str) -> Reads:
    """``modules`` is the syntax of all modules, as the engine gives it in JSON."""
    trees = [module["ast"] for module in orjson.loads(modules)]
    own = any(_defines(rule, TEST) for tree in trees for rule in tree["rules"])
    return Reads(_paths(trees, "" if own else TEST))


def _defines(rule: Mapping[str, Any], name: str) -> bool:
    """Whether a rule is called so."""
    kind, content = next(iter(rule.items()))
    head = content if kind == "Default" else next(iter(content["head"].values()))
    return bool(head["refr"].get("Var", {}).get("value") == name)


def _paths(node: Any, test: str) -> Iterator[Path]:
    """The path of every reference to ``input`` in a part of the tree; ``test`` is what asks for objects."""
    if isinstance(node, list):
        for each in node:
            yield from _paths(each, test)
    elif isinstance(node, dict):
        found = _reference(node)
        if found is not None:
            path, looked_up_by = found
            yield path
            yield from _paths(looked_up_by, test)
        elif asked := _asked_by(test, node):
            yield (*asked, NOTHING)
        else:
            for each in node.values():
                yield from _paths(each, test)


def _reference(node: Mapping[str, Any]) -> tuple[Path, list[Any]] | None:
    """The path of a reference to ``input``, as far as its names stand in the text, and what it is looked up by then."""
    kind: str
    content: Any
    kind, content = next(iter(node.items())) if len(node) == 1 else ("", None)
    if kind == "Var":
        return (WHOLE, []) if content["value"] == "input" else None
    found = _reference(content["refr"]) if kind in ("RefDot", "RefBrack") else None
    if found is None:
        return None
    path, looked_up_by = found
    if kind == "RefBrack":
        index = content["index"]
        named = "String" in index and not looked_up_by
        return ((*path, index["String"]["value"]), []) if named else (path, [*looked_up_by, index])
    return (path, looked_up_by) if looked_up_by else ((*path, content["field"][1]), [])


def _asked_by(test: str, node: Mapping[str, Any]) -> Path | None:
    """The path of what is given to the engine's ``test`` for objects."""
    call = node.get("Call")
    if not isinstance(call, dict) or call["fcn"].get("Var", {}).get("value") != test:
        return None
    references = [_reference(each) for each in call["params"]]
    path, looked_up_by = references[0] if len(references) == 1 and references[0] else (WHOLE, [node])
    return None if looked_up_by else path
