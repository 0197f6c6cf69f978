"""Whether a device answers: that it does not is one fault until it does again, and not one for each time.

It stands between whoever asks or hears a device, again and again, and the fault line.
"""

from __future__ import annotations

import hashlib
import time
from typing import Literal

from convergedon.adapters.contract import Observation


def key(adapter: str) -> str:
    """What all that is told of silence has."""
    return f"{adapter}:unreachable"


class Silence:
    """One device over one protocol; silent is who was missed so many ``times``, and since so many ``seconds``.

    What is to be told is returned, and holds once it was ``told``: what could not be told is tried again.
    """

    def __init__(
        self, adapter: str, protocol: str, device: str, tenant: str, *, times: int = 1, seconds: float = 0.0
    ) -> None:
        self._adapter, self._protocol, self._device, self._tenant = adapter, protocol, device, tenant
        self._times, self._seconds = times, seconds
        self._missed = 0
        self._since: float | None = None
        self._silent: bool | None = None  # not known: what an earlier process told of is not over by itself

    def lost(self) -> None:
        """It is not heard from now on; it may be there all the same, and refuse us."""
        if self._since is None:
            self._since = time.monotonic()

    def missed(self, words: str) -> Observation | None:
        """It did not answer."""
        self.lost()
        self._missed += 1
        enough = self._missed >= self._times and time.monotonic() - (self._since or 0.0) >= self._seconds
        return self._seen("fault", "major", words) if enough and not self._silent else None

    def answered(self) -> Observation | None:
        """It answered: what was told of it, by whomever, is over."""
        self._missed, self._since = 0, None
        return None if self._silent is False else self._seen("clear", "cleared", "")

    def told(self, seen: Observation) -> None:
        """It was told what was returned."""
        self._silent = seen.kind == "fault"

    def _seen(self, kind: Literal["fault", "clear"], severity: str, words: str) -> Observation:
        now = time.time()
        about = {
            "alarmType": "communicationsAlarm",
            "perceivedSeverity": severity,
            "probableCause": "underlyingResourceUnavailable",
            "specificProblem": f"the device does not answer {self._protocol}",
            "details": {"words": words} if words else {},
        }
        id = hashlib.sha256(f"{self._device} {kind} {now}".encode()).hexdigest()[:32]
        adapter, device, tenant = self._adapter, self._device, self._tenant
        return Observation(id, kind, adapter, device, tenant, now, key=key(adapter), attributes=about)
