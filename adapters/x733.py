"""What alarms are called: the words of ITU-T X.733 in the spelling of TMF642, for the mappings of all adapters.

A probable cause may be given by its name, by the name that IANA's list has for it, or by its number there; it becomes
one and the same name, so that whoever looks for alarms by their cause finds all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BeforeValidator, StringConstraints

from convergedon.core import strict

TABLE = files("convergedon.adapters") / "x733.yaml"

AlarmType = Literal[
    "communicationsAlarm",
    "processingErrorAlarm",
    "environmentalAlarm",
    "qualityOfServiceAlarm",
    "equipmentAlarm",
    "integrityViolation",
    "operationalViolation",
    "physicalViolation",
    "securityService",
    "mechanismViolation",
    "timeDomainViolation",
]
Severity = Literal["critical", "major", "minor", "warning", "indeterminate", "cleared"]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z][A-Za-z0-9]*$")]

UNMAPPED = {
    "alarmType": "processingErrorAlarm",
    "perceivedSeverity": "indeterminate",
    "probableCause": "indeterminate",
    "specificProblem": "a notification that the mapping does not know",
}
"""What is said of something that no mapping knows."""


class Table(strict.Strict):
    """The file: number -> the cause, or the cause and what IANA calls it."""

    causes: dict[int, Word | list[Word]]
    unnumbered: list[Word]


@cache
def numbered() -> Mapping[int, str]:
    """Number -> cause."""
    return {number: names if isinstance(names, str) else names[0] for number, names in _table().causes.items()}


@cache
def named() -> Mapping[str, str]:
    """Every spelling -> cause."""
    table = _table()
    found = {name: name for name in (*table.unnumbered, *numbered().values())}
    spelt = (names for names in table.causes.values() if not isinstance(names, str))
    return {**{other: names[0] for names in spelt for other in names}, **found}


@cache
def _table() -> Table:
    return strict.read(Table, TABLE)


def cause(given: object) -> str:
    """The probable cause of this name or number. Raises ValueError."""
    found = numbered().get(given) if type(given) is int else named().get(given) if isinstance(given, str) else None
    if found is None:
        alike = get_close_matches(str(given), named(), 1)
        advice = f"did you mean {named()[alike[0]]}?" if alike else f"{TABLE.name} has those that there are"
        raise ValueError(f"this is no probable cause of X.733: {advice}")
    return found


ProbableCause = Annotated[str, BeforeValidator(cause)]
