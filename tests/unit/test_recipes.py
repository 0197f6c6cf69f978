"""The recipes of CONTRIBUTING.md work as they stand, in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = dict(re.findall(r"<!-- recipe: (\w+) -->(.*?)<!-- /recipe -->", TEXT, re.DOTALL))
BLOCK = re.compile(r"```\w+ (file|edit|run)(?:=(\S+))?\n(.*?)```", re.DOTALL)
FOLDERS = ("core", "handlers", "mediation", "adapters", "openapi", "policies", "demo")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy that is imported as convergedon, before the one that is installed."""
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / "convergedon" / folder, ignore=ignored)
    return tmp_path / "convergedon"


def follow(recipe: str, copy: Path) -> tuple[str, str]:
    """Do what the blocks say; returns what the last one printed, and what the recipe says it prints."""
    printed = ""
    for what, file, content in BLOCK.findall(RECIPES[recipe]):
        if what == "file":
            (copy / file).parent.mkdir(exist_ok=True)
            (copy / file).write_text(content)
        elif what == "edit":
            before, after = content.split("---\n")
            text = (copy / file).read_text()
            assert text.count(before) == 1, f"{file} does not have the line of the recipe once"
            (copy / file).write_text(text.replace(before, after))
        else:
            env = {**os.environ, "PYTHONPATH": str(copy.parent)}
            done = subprocess.run(
                [sys.executable, "-c", content], env=env, cwd=copy.parent, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            printed = done.stdout.strip()
    promised = re.findall(r"It prints .*?`([^`]+)`", RECIPES[recipe])
    return printed, promised[-1] if promised else ""


@pytest.mark.parametrize("recipe", ["adapter", "policy"])
def test_the_recipe_does_what_it_says(recipe: str, copy: Path) -> None:
    printed, promised = follow(recipe, copy)

    assert promised in printed


def test_an_api_by_the_recipe_passes_the_suite_of_all_apis(copy: Path) -> None:
    """The command is the recipe's, but for the copy."""
    follow("api", copy)
    (chosen,) = re.findall(r'make test ARGS="([^"]+)"', RECIPES["api"])
    folder, _, word = chosen.partition(" -k ")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / folder), "-k", word],
        env={**os.environ, "PYTHONPATH": str(copy.parent)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 50


def test_there_is_a_recipe_for_each_thing_people_add() -> None:
    assert RECIPES.keys() == {"api", "adapter", "policy"}
