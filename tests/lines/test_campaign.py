"""The escapes campaign as its user meets it: nothing escapes the policies that ship, everything escapes lax ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from test_demo import environment, left_behind

from convergedon.core import settings
from convergedon.demo import attempts, campaign, plays
from convergedon.demo.story import Story
from convergedon.demo.tally import LEGITIMATE, Tally

SEALED = "sealed by a worker"
LAX = """package main

decision := {"allow": true, "reasons": [], "filter": {}}
"""


def test_nothing_escapes_and_nothing_is_refused_falsely(tmp_path: Path) -> None:
    """A small one, under every condition of the policy engine; its end says what was counted."""
    told = tmp_path / "campaign.json"
    command = [sys.executable, "-P", "-m", "convergedon.core.cli", "campaign", "escapes", "-n", "36"]

    done = subprocess.run(
        [*command, "--json", str(told)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(TMPDIR=str(tmp_path)),
        timeout=230,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    counted = json.loads(told.read_text())
    assert (counted["violations"], counted["escapes"], counted["falseRefusals"]) == (36, 0, 0)
    assert (counted["unrecorded"], counted["blemishes"]) == (0, {})
    assert counted["legitimate"] >= 12
    assert counted["escapesUpperBound"] == 3 / 36
    assert {one["condition"] for one in counted["outcomes"]} == set(campaign.CONDITIONS)
    assert "withheld" in {one["result"] for one in counted["outcomes"]}
    assert "escapes: 0 of 36 violations took effect" in done.stdout
    assert done.stdout.splitlines()[-1] == "nothing escaped and nothing was refused falsely"
    assert list(tmp_path.iterdir()) == [told]
    assert left_behind(tmp_path) == []


async def test_the_eyes_see_what_takes_effect(tmp_path: Path) -> None:
    """Policies that allow everything let every attempt through, on the device, in the store, in an answer, at a
    listener or on a page; all but some at another tenant's things, which the store and the bus keep apart besides, and
    but forged intents, which no policy is asked about: the same ones take effect when a worker has sealed them.
    """
    lax, folder = tmp_path / "policies", tmp_path / "campaign"
    lax.mkdir()
    folder.mkdir()
    (lax / "main.rego").write_text(LAX)
    violations = [attempt for attempt in attempts.TABLE if attempt.violates != LEGITIMATE]
    forged = [attempt for attempt in violations if attempt.path == attempts.FORGED]
    violations += attempts.lies({SEALED: plays.sealed})
    given = settings.load(policies=lax, products=campaign.products(folder))
    tally = Tally()

    await campaign.on_embedded(
        given, Story(), tally, {"embedded": violations, "activating": []}, campaign.editions(lax, folder)
    )

    assert len(tally.outcomes) == len(violations)
    refused = [outcome for outcome in tally.outcomes if outcome.result != "escaped"]
    assert {one.violates for one in refused if one.path != attempts.FORGED} <= {attempts.TENANTS}
    assert {one.words for one in refused if one.path == attempts.FORGED} == {one.words for one in forged}
    escaped = {(outcome.violates, outcome.path) for outcome in tally.outcomes if outcome.result == "escaped"}
    assert {violates for violates, _ in escaped} == set(attempts.CLASSES)
    assert len({path for _, path in escaped}) == len({attempt.path for attempt in violations})
    assert not tally.holds
