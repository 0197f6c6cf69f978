"""How many violations of policy take effect: the campaign of `convergedon campaign escapes`, with many attempts.

It is no measurement of time: the rate is only what the campaign itself makes of the machine.
"""

from __future__ import annotations

from time import perf_counter

from convergedon.core import settings
from convergedon.demo import campaign
from convergedon.demo.story import Story
from convergedon.demo.tally import LEGITIMATE, upper_bound
from tests.bench.rounds import Effort, Result, rounded

SEED = 1


async def measure(effort: Effort) -> Result:
    """Raises RuntimeError when something escaped, or was refused falsely."""
    result = Result("violations of policy, by condition of the policy engine", "attempts")
    begun = perf_counter()
    tally = await campaign.make(settings.load(), Story(), effort.attempts, SEED)
    took = perf_counter() - begun
    for condition in campaign.CONDITIONS:
        of_it = [outcome for outcome in tally.outcomes if outcome.condition == condition]
        legitimate = sum(outcome.violates == LEGITIMATE for outcome in of_it)
        result.figures[condition] = {"violations": len(of_it) - legitimate, "legitimate": legitimate}
    result.ratios = {
        "escapes, 95 % upper bound": rounded(upper_bound(tally.escapes, tally.violations)),
        "attempts a second": rounded(len(tally.outcomes) / took),
    }
    result.notes = [*tally.sentences, f"simulated: {campaign.SIMULATED}"]
    if not tally.holds:
        raise RuntimeError("; ".join([*tally.sentences, *tally.wrong]))
    return result
