"""The escapes campaign counts rightly, tries what it says, and its policy server fails as it is told."""

from __future__ import annotations

from itertools import pairwise

import pytest

from convergedon.core import bundles
from convergedon.core.engines import OpaServer
from convergedon.core.errors import Unavailable
from convergedon.core.policy import Policy, Subject
from convergedon.demo import campaign
from convergedon.demo.attempts import CLASSES, TABLE
from convergedon.demo.decider import NONSENSE, deciding
from convergedon.demo.tally import LEGITIMATE, Outcome, Result, Tally, upper_bound

CSR = Subject("vendor", "acme", ("csr",))


def outcome(result: Result, violates: str = "over-entitlement") -> Outcome:
    return Outcome(violates, "REST create", "down", "too much", result)


@pytest.mark.parametrize(
    ("found", "tried", "bound"),
    [(0, 2000, 0.0015), (0, 1, 1.0), (1, 10, 0.3942), (2, 20, 0.2826), (5, 5, 1.0), (0, 0, 1.0)],
)
def test_the_bound_is_the_one_of_the_books(found: int, tried: int, bound: float) -> None:
    """3/N where nothing escaped, else Clopper and Pearson's upper limit at 95 %, one-sided."""
    assert upper_bound(found, tried) == pytest.approx(bound, abs=5e-5)


def test_more_escapes_are_a_higher_bound() -> None:
    bounds = [upper_bound(found, 40) for found in range(41)]

    assert all(one < other for one, other in pairwise(bounds[1:]))
    assert all(bound > found / 40 for found, bound in enumerate(bounds[:-1]))


def test_one_escape_or_one_false_refusal_is_enough() -> None:
    """And a campaign that tried nothing has shown nothing."""
    good = [outcome("refused"), outcome("done", LEGITIMATE), outcome("withheld", LEGITIMATE)]

    assert Tally(good).holds
    assert not Tally([*good, outcome("escaped")]).holds
    assert not Tally([*good, outcome("refused falsely", LEGITIMATE)]).holds
    assert not Tally([outcome("done", LEGITIMATE)]).holds


def test_the_figures_are_of_violations_and_of_legitimate_actions_each() -> None:
    counted = [outcome("refused")] * 5 + [outcome("escaped")] + [outcome("done", LEGITIMATE)] * 3

    tally = Tally(counted)

    assert (tally.violations, tally.escapes, tally.legitimate, tally.false_refusals) == (6, 1, 3, 0)
    assert "1 of 6 violations took effect" in tally.sentences[0]


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    words = [[a.words for a in campaign.draw(60, seed)["slow"]] for seed in (1, 1, 2)]

    assert words[0] == words[1] != words[2]


def test_so_many_violations_are_drawn_as_were_asked_for() -> None:
    """Spread over all conditions, each of the table before any of it again, legitimate actions among them."""
    violations = [attempt for attempt in TABLE if attempt.violates != LEGITIMATE]
    drawn = campaign.draw(len(violations), 7)
    all_of_it = [attempt for some in drawn.values() for attempt in some]

    assert sorted(map(id, (a for a in all_of_it if a.violates != LEGITIMATE))) == sorted(map(id, violations))
    assert all(any(attempt.violates == LEGITIMATE for attempt in some) for some in drawn.values())
    assert set(drawn) == set(campaign.CONDITIONS)


def test_every_class_is_tried_on_several_paths() -> None:
    """A class that is tried on one path alone says little of the others."""
    paths = {violates: {a.path for a in TABLE if a.violates == violates} for violates in CLASSES}

    assert {a.violates for a in TABLE} == {*CLASSES, LEGITIMATE}
    assert all(paths.values())
    assert len({path for some in paths.values() for path in some}) >= 9


async def test_a_policy_server_fails_as_it_is_told() -> None:
    """It decides, and is away, slow or wrong in many ways; each time the gateway has no decision, until it is back."""
    async with deciding(bundles.read()) as decider:
        server = OpaServer(decider.url, wait=0.3)
        rules = Policy(server)

        async def decide() -> bool:
            return (await rules.decide(CSR, "create", {"kind": "productOrder", "tenant": "acme"}, {})).allow

        assert await decide()
        for mood, times in (("nonsense", len(NONSENSE)), ("slow", 1), ("down", 1)):
            await decider.become(mood)  # type: ignore[arg-type]
            for _ in range(times):
                with pytest.raises(Unavailable):
                    await decide()
            await decider.become("up")
            assert await decide()
        await server.close()
