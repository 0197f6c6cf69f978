"""What a request must pass before it is looked at: whether its caller has any of its share left, and can read us."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from convergedon.core.errors import NotAcceptable, TooManyRequests, UnsupportedMediaType
from convergedon.core.policy import Subject
from convergedon.core.shares import Buckets

JSON = "application/json"


class Shares:
    """What each caller may ask of this process: ``rate`` requests a second, twice as many at once.

    A rate of 0 lets everything pass.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = monotonic) -> None:
        self._rate, self._buckets = rate, Buckets(rate, 2 * rate, clock)

    def take(self, subject: Subject) -> None:
        """Raises TooManyRequests, saying when to come again."""
        if wait := self._buckets.take((subject.tenant, subject.id)):
            raise TooManyRequests(f"{self._rate:g} requests a second are taken", wait)


def check_encoding(encoding: str | None) -> None:
    """Refuse a body that is compressed (RFC 9110, 15.5.16): it would be read as broken JSON. Raises
    UnsupportedMediaType."""
    if encoding and encoding.strip().lower() != "identity":
        raise UnsupportedMediaType(f"a body is sent as it is here, without Content-Encoding: {encoding[:100]}")


def check_acceptable(accept: str | None) -> None:
    """Refuse a caller that does not take JSON (RFC 9110, 12.5.1). Raises NotAcceptable."""
    if not accept or accept in ("*/*", JSON):
        return
    weights = dict(_range(part) for part in accept.lower().split(","))
    # the more exact range wins over the more general one
    named = next((weights[name] for name in (JSON, "application/*", "*/*") if name in weights), 0.0)
    if named <= 0:
        raise NotAcceptable(f"the answer is {JSON}, which Accept does not take")


def _range(text: str) -> tuple[str, float]:
    """A media range and its weight; what cannot be read as a weight is 1."""
    name, *parameters = (part.strip() for part in text.split(";"))
    weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
    try:
        return name, float(weight)
    except ValueError:
        return name, 1.0
