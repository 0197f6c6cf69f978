"""Probable causes: IANA's numbers, and one name for each cause, whoever speaks of it."""

import ast
import re
from pathlib import Path

import yaml

from convergedon.adapters import x733

ROOT = Path(__file__).parents[2]


def test_the_table_is_ianas_whole():
    """RFC 3877: M.3100 below 500, X.733 from 500, X.736 from 600, and the rest."""
    ranges = [(1, 26), (51, 82), (101, 136), (151, 166), (201, 207), (500, 555), (600, 615), (1024, 1024)]

    assert list(x733.numbered()) == [number for first, last in ranges for number in range(first, last + 1)]


def test_each_spelling_leads_to_a_name_that_leads_to_itself():
    assert all(x733.cause(name) == name for name in x733.named().values())
    assert {x733.cause(name) for name in ("underlayingResourceUnavailable", "underlyingResourceUnavailable")} == {
        x733.cause(165)
    }


def test_whatever_we_say_ourselves_is_a_cause():
    """Mappings that ship, and what adapters and correlation say by themselves."""
    said = {
        ast.literal_eval(text)
        for folder in ("adapters", "mediation", "demo")
        for file in (ROOT / folder).rglob("*.py")
        for text in re.findall(r'"probableCause": ("\w+")', file.read_text())
    }
    said |= {
        entry["probableCause"]
        for file in (ROOT / "adapters").glob("*/mapping.yaml")
        for entry in _entries(yaml.safe_load(file.read_text()).get("notifications"))
    }

    assert len(said) > 8
    assert said <= set(x733.named().values())


def _entries(given):
    return given.values() if isinstance(given, dict) else given or ()
