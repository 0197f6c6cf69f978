"""From Flask's threads to the gateway's loop, on which store, bus, policy and verifier live."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from convergedon.core.errors import Unavailable

Answer = TypeVar("Answer")


class Bridge:
    """``bridge(work())`` in a thread runs the coroutine on the loop and waits. Raises Unavailable when time is up."""

    def __init__(self, patience: float = 8.0) -> None:
        self._patience = patience
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self) -> None:
        """Remember the running loop; called by each request before its thread begins."""
        self._loop = asyncio.get_running_loop()

    def __call__(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        if self._loop is None or self._loop.is_closed():
            work.close()
            raise Unavailable("the gateway is stopping")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(self._patience)
        except TimeoutError as error:
            future.cancel()
            raise Unavailable(f"store, bus or policy has not answered within {self._patience:g} s") from error
        except CancelledError as error:
            raise Unavailable("the gateway is stopping") from error
