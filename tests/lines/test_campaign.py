"""The escapes campaign: what lax policies let through is seen."""

from pathlib import Path

from convergedon.core import settings
from convergedon.demo import campaign
from convergedon.demo.attempts import TABLE
from convergedon.demo.story import Story
from convergedon.demo.tally import Tally

LAX = """package main

decision := {"allow": true, "reasons": [], "filter": {}}
"""


async def test_what_lax_policies_let_through_is_seen(tmp_path: Path) -> None:
    """The eyes see what takes effect: on the device, in the store, in an answer, at a listener, on a page."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "main.rego").write_text(LAX)
    (tmp_path / "campaign").mkdir()
    given = settings.load(policies=tmp_path / "policies")
    chosen = {
        "too much bandwidth",
        "another party's order",
        "a listener of one without a role",
        "a listener whose role is gone",
        "a page for one without the console",
        "an order by nobody",
    }
    seen = [attempt for attempt in TABLE if attempt.words in chosen]
    tally = Tally()

    editions = campaign.editions(given.policies, tmp_path / "campaign")
    await campaign.on_embedded(given, Story(), tally, {"embedded": seen, "activating": []}, editions)

    assert {outcome.words for outcome in tally.outcomes} == chosen
    assert [outcome for outcome in tally.outcomes if outcome.result != "escaped"] == []
    assert not tally.holds
