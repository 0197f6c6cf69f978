"""The kit as a pytest class: each case is a test. Needs pytest and pytest-asyncio (the extra ``kit``).

class TestMine(AdapterKit):
    name = "mine"
"""

from __future__ import annotations

import pytest

from convergedon.adapters.testing.cases import CASES, Case
from convergedon.adapters.testing.checking import strange, tried
from convergedon.adapters.testing.trial import trial_of


class AdapterKit:
    """Subclasses say which installed adapter is tried."""

    name: str

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    async def test_it_holds(self, case: Case) -> None:
        verdict = await tried(self.name, trial_of(self.name), case)

        if verdict.result == "not applicable":
            return
        assert verdict.result in ("passed", "waived"), verdict.words

    def test_every_waiver_is_of_a_case(self) -> None:
        assert strange(trial_of(self.name)) == []
