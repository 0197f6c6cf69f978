"""Who has a share left and can read JSON is let in."""

from __future__ import annotations

import pytest

from convergedon.core.errors import NotAcceptable, TooManyRequests
from convergedon.core.policy import Subject
from convergedon.core.shares import KNOWN
from convergedon.handlers.admission import Shares, check_acceptable

ANNA, BEN = Subject("anna", "acme", ("csr",)), Subject("ben", "acme", ("csr",))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_caller_has_its_rate_and_as_much_again_at_once() -> None:
    """The next one is told when to come; who comes then is let in; another caller has a share of its own."""
    clock = Clock()
    shares = Shares(2, clock)

    for _ in range(4):
        shares.take(ANNA)
    with pytest.raises(TooManyRequests) as refused:
        shares.take(ANNA)
    shares.take(BEN)
    clock.now += refused.value.wait
    shares.take(ANNA)

    assert refused.value.wait == pytest.approx(0.5)
    with pytest.raises(TooManyRequests):
        shares.take(ANNA)


def test_a_share_does_not_grow_over_night() -> None:
    """A burst is twice the rate, however long nothing was asked."""
    clock = Clock()
    shares = Shares(1, clock)
    shares.take(ANNA)
    clock.now += 86_400

    shares.take(ANNA)
    shares.take(ANNA)
    with pytest.raises(TooManyRequests):
        shares.take(ANNA)


def test_the_same_name_in_another_tenant_is_another_caller() -> None:
    shares = Shares(0.4, Clock())
    shares.take(ANNA)

    shares.take(Subject("anna", "globex", ()))
    with pytest.raises(TooManyRequests):
        shares.take(ANNA)


def test_without_a_rate_everything_passes() -> None:
    shares = Shares(0, Clock())

    for _ in range(1000):
        shares.take(ANNA)


def test_memory_is_bounded() -> None:
    """Who was not seen for longest begins anew."""
    shares = Shares(0.4, Clock())
    for number in range(KNOWN + 1):
        shares.take(Subject(str(number), "acme", ()))

    shares.take(Subject("0", "acme", ()))
    with pytest.raises(TooManyRequests):
        shares.take(Subject(str(KNOWN), "acme", ()))


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "application/json",
        "application/*",
        "text/html, */*;q=0.1",
        "application/json;charset=utf-8",
        "APPLICATION/JSON; q=0.3",
        "text/xml;q=1.0,application/json;q=x",
        "*/*;q=0, application/json",
    ],
)
def test_who_takes_json_is_let_in(accept: str | None) -> None:
    check_acceptable(accept)


@pytest.mark.parametrize(
    "accept", ["text/html", "application/xml", "application/json;q=0, */*", "*/*;q=0.0", "nonsense", ";", ","]
)
def test_who_takes_no_json_is_told(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json"):
        check_acceptable(accept)
