"""The checks of `make check` find what they are for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests import checks
from tests.checks import Finding, Installed, bounded, is_free, pinned, unwaived, wrong_with

FLASK = Installed("flask", "3.1.3", "BSD-3-Clause")
PINS = {"flask": "3.1.3"}
BOUNDS = [Requirement("flask>=3.1,<4")]


def test_a_finding_needs_a_waiver_and_a_waiver_a_finding() -> None:
    found = [Finding("core/bus.py", 7, "B311", "not random enough")]

    assert list(unwaived(found, {("core/bus.py", "B311"): "spreads retries"})) == []
    assert list(unwaived(found, {})) == ["core/bus.py:7: B311 not random enough"]
    assert "not found any more" in next(unwaived([], {("core/bus.py", "B311"): "spreads retries"}))


def test_bandit_finds_what_is_dangerous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of ours, as it is run."""
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    for folder in checks.OURS:
        (tmp_path / folder).mkdir()
    (tmp_path / "core" / "shell.py").write_text("import subprocess\nsubprocess.run('ls', shell=True)\n")

    assert ("core/shell.py", "B602") in {(finding.file, finding.test) for finding in checks.bandit()}


def test_keys_are_found_that_git_keeps(tmp_path: Path) -> None:
    begin = "-----BEGIN " + "PRIVATE KEY-----\n"
    for name, text in {
        "data/keys/a": "x",
        "b.pem": "x",
        "notes.md": f"see\n{begin}",
        "well.md": "-----BEGIN CERTIFICATE-----\n",
        "not-kept.key": "x",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for command in (["init", "-q"], ["add", "data", "b.pem", "notes.md", "well.md"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)

    assert [found.partition(":")[0] for found in checks.secret(tmp_path)] == ["b.pem", "data/keys/a", "notes.md"]


def test_what_is_as_it_was_tested_is_right() -> None:
    assert list(wrong_with([FLASK], PINS, BOUNDS)) == []


@pytest.mark.parametrize(
    ("package", "pins", "bounds", "words"),
    [
        (FLASK, {}, [], "flask 3.1.3 is not pinned"),
        (FLASK, {"flask": "3.1.2"}, [], "constraints.txt says 3.1.2"),
        (FLASK, PINS, [Requirement("flask>=3.2,<4")], "setup.cfg does not allow"),
        (FLASK, PINS, [Requirement("flask>=3")], "no upper bound"),
        (FLASK, PINS, [Requirement("other>=1,<2")], "other of setup.cfg is not pinned"),
        (Installed("flask", "3.1.3", "GPL-3.0-only"), PINS, [], "its licence (GPL-3.0-only)"),
        (Installed("flask", "3.1.3", ""), PINS, [], "none is said"),
        (Installed("pyopa", "1.0", "MIT"), PINS, [], "pyopa must not be installed"),
        (FLASK, {**PINS, "pysnmplib": "1"}, [], "pysnmplib must not stand"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    package: Installed, pins: dict[str, str], bounds: list[Requirement], words: str
) -> None:
    said = list(wrong_with([package], pins, bounds))

    assert len(said) == 1
    assert words in said[0]


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("MIT", True),
        ("Apache Software License", True),
        ("BSD License AND MIT License", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("GPL-2.0-only OR MIT", True),
        ("GPL-2.0-only AND MIT", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("LGPL-2.1", False),
        ("AGPL-3.0", False),
        ("Proprietary", False),
        ("", False),
    ],
)
def test_licences_are_read_as_they_are_written(licence: str, free: bool) -> None:
    assert is_free(licence) is free


def test_our_own_files_are_read() -> None:
    root = Path(__file__).parents[2]

    assert pinned((root / "constraints.txt").read_text())["flask"]
    assert {"pyjwt", "bandit", "secantusdb"} <= {b.name.lower() for b in bounded((root / "setup.cfg").read_text())}
