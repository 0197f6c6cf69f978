"""Whatever strangers send and operators write is read or refused: nothing breaks, hangs or grows.

A minute for all targets together in every run; `make fuzz` takes as long as FUZZ_SECONDS says. What was found once
is tried again in every run: findings/TARGET/*.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest
from fuzz.guided import MOST_GROWTH, Target, bounded, fuzz, tried
from fuzz.targets import TARGETS

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("FUZZ_SEED") or 0)
FINDINGS = Path(__file__).parent / "findings"
FOUND = [(target, file) for target in TARGETS for file in sorted((FINDINGS / target.name).glob("*"))]


@pytest.mark.timeout(0)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_whatever_comes_is_survived(target: Target, tmp_path: Path) -> None:
    """And what is remembered of it stays within bounds."""
    report = fuzz(target, tmp_path, SECONDS / len(TARGETS), SEED)
    report.write()

    assert not report.findings, "\n".join(map(str, report.findings))
    within = MOST_GROWTH + target.tables + target.keeps * report.examples
    assert report.grown < within, f"{report.grown:,} bytes more after {report.examples:,} examples"


@pytest.mark.parametrize(("target", "file"), FOUND, ids=[f"{target.name}-{file.name}" for target, file in FOUND])
def test_what_was_found_once_is_survived(target: Target, file: Path, tmp_path: Path) -> None:
    with bounded():
        what = tried(target.begin(tmp_path), file.read_bytes(), nullcontext())

    assert not what
