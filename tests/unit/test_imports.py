"""Imports point one way: core is used by adapters and handlers, both by mediation; the demonstration stands outside."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_USE = {
    "openapi": {"openapi"},
    "policies": {"policies"},
    "core": {"core"},
    "adapters": {"adapters", "core"},
    "handlers": {"handlers", "core", "openapi"},
    "mediation": {"mediation", "adapters", "handlers", "core"},
    "demo": {"demo", "mediation", "adapters", "handlers", "core"},
}
WIRES = {"core/app.py", *(str(file.relative_to(ROOT)) for file in (ROOT / "core" / "commands").glob("*.py"))}
"""What builds and starts the rest: it imports inside functions, when it is called."""
FILES = sorted(file.relative_to(ROOT) for folder in MAY_USE for file in (ROOT / folder).rglob("*.py"))


def imported(file: Path) -> set[str]:
    """The folders that a module imports from, wherever in it."""
    tree = ast.parse((ROOT / file).read_text())
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return {match[1] for name in names if (match := re.match(r"convergedon\.(\w+)", name))}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_point_one_way(file: Path) -> None:
    beyond = imported(file) - MAY_USE[file.parts[0]]

    assert not beyond or str(file) in WIRES


@pytest.mark.parametrize("file", FILES, ids=str)
def test_nothing_imports_a_bare_folder(file: Path) -> None:
    """``import adapters`` would be somebody else's package."""
    tree = ast.parse((ROOT / file).read_text())
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]

    assert not {name.split(".")[0] for name in names} & MAY_USE.keys()


def test_core_knows_nobody_when_it_is_imported() -> None:
    """What wires the rest does so when it is asked to."""
    for file in WIRES:
        tree = ast.parse((ROOT / file).read_text())
        top = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert {node.module.split(".")[1] for node in top if (node.module or "").startswith("convergedon.")} <= {"core"}
