"""What a process does about a store or a bus that is not there."""

from __future__ import annotations

import asyncio

import pytest

from convergedon.core.app import _patiently
from convergedon.core.errors import Unavailable


async def test_what_never_answers_is_given_up_with_its_reason() -> None:
    """One sentence for whoever typed the command, not the time-out's own trace."""

    async def refuse() -> None:
        raise Unavailable("the store does not answer")

    with pytest.raises(Unavailable, match=r"the store does not answer, for 0\.05 s"):
        await _patiently(refuse, 0.05)


async def test_what_hangs_is_given_up_too() -> None:
    """A peer that takes the connection and says nothing."""
    with pytest.raises(Unavailable, match="no answer, for"):
        await _patiently(asyncio.Event().wait, 0.05)


async def test_what_comes_late_is_waited_for() -> None:
    """Store and bus start beside the process that needs them."""
    answers = iter([Unavailable("not yet"), "there"])

    async def open_() -> str:
        answer = next(answers)
        if isinstance(answer, Unavailable):
            raise answer
        return str(answer)

    assert await _patiently(open_) == "there"
