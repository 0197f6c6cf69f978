"""What an operator asks of the audit record: the fields of the search form, and the filter that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from convergedon.core.errors import Invalid

LONGEST = 300


@dataclass(frozen=True)
class Search:
    """What was typed. Texts are whole ones; times are in UTC, as browsers give them."""

    trace: str = ""
    subject: str = ""
    on: str = ""
    what: str = ""
    outcome: str = ""
    decision: str = ""
    since: str = ""
    until: str = ""

    @property
    def narrow(self) -> bool:
        """Whether few records match, whatever the time."""
        return bool(self.trace or self.subject or self.on or self.decision)

    @property
    def where(self) -> dict[str, Any]:
        """Raises Invalid for a time that is none."""
        asked = ("trace", "subject", "on", "what", "outcome", "decision")
        where: dict[str, Any] = {f"body.{name}": getattr(self, name) for name in asked if getattr(self, name)}
        span = {"$gte": _micros(self.since, "from"), "$lte": _micros(self.until, "until")}
        if any(bound is not None for bound in span.values()):
            where["facts.at.time"] = {way: bound for way, bound in span.items() if bound is not None}
        return where


def search(given: Mapping[str, str]) -> Search:
    """What the query string of the page asks."""
    return Search(**{field.name: given.get(field.name, "").strip()[:LONGEST] for field in fields(Search)})


def _micros(text: str, name: str) -> int | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(f"{name} is a time, for example 2026-05-01T12:00, not {text[:40]!r}") from error
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1_000_000)
