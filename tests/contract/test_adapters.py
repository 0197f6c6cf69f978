"""Every adapter that is installed keeps what every adapter promises: the conformance kit, a test for each case."""

from __future__ import annotations

import pytest

from convergedon.adapters import discovery
from convergedon.adapters.testing.cases import CASES
from convergedon.adapters.testing.suite import AdapterKit


def class_of(name: str) -> type[AdapterKit]:
    marks = [pytest.mark.timeout(180)]
    return type(f"Test{name.capitalize()}", (AdapterKit,), {"name": name, "pytestmark": marks})


globals().update({f"Test{name.capitalize()}": class_of(name) for name in discovery.adapters()})


def test_cases_are_told_apart_by_their_names_and_say_what_they_promise() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert [case.name for case in CASES if not case.promise] == []
