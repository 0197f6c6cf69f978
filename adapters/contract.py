"""The network function API: intents go in, outcomes and observations come out.

An adapter speaks one protocol and knows no TM Forum resource. It is given the devices it is responsible for, is told
the desired state of a service on a device (``Intent``) and answers with what became of it (``Outcome``); what the
network says by itself (a trap, a flow record) it reports as an ``Observation``. Severities and causes are those of
ITU-T X.733, which TMF642 took over word for word.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

OutcomeStatus = Literal["applied", "unchanged", "refused", "rolledBack", "unknown"]
ObservationKind = Literal["fault", "clear", "unmapped", "flow"]


@dataclass(frozen=True)
class Device:
    """A network element as the inventory file describes it.

    ``settings`` holds what one protocol needs: for NETCONF host, port, username, password or key file, hostKey.
    Passwords arrive here resolved and never leave: they are not in ``repr``.
    """

    name: str
    tenant: str
    address: str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Intent:
    """The desired state of one service on one device. Doing it twice is doing it once (``key``).

    ``service`` names an entry of the adapter's mapping.yaml; ``instance`` is the name of this one service on the
    device; ``values`` are its characteristics (bandwidth in Mbit/s, vlan, interface ...), ``None`` when the service
    must not be there. ``deadline`` is seconds since the epoch: after it the answer is of no use.

    The rest is what policies judge by before anything is done: ``purpose`` (order; undo: taking back what failed or
    was cancelled; remediation), for which ``order`` and ``site``, ``owner`` (whoever asked for it, as its subject
    says), and for a remediation the ``workflow`` and its ``approval``: {by, time, decision}.
    """

    key: str
    tenant: str
    device: str
    service: str
    instance: str
    values: Mapping[str, Any] | None
    deadline: float
    purpose: str = "order"
    order: str = ""
    site: str = ""
    owner: Mapping[str, Any] | None = None
    workflow: str = ""
    approval: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of an intent, as a value.

    applied: the device has the desired state and it was read back. unchanged: it had it before. refused: the device
    or the mapping said no and nothing was changed. rolledBack: it was changed, verification failed, and the former
    state was read back. unknown: the device must be asked again. ``words`` are the device's own (never a secret),
    ``diff`` maps a leaf to its value before and after.
    """

    key: str
    device: str
    status: OutcomeStatus
    words: str = ""
    diff: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.status in ("applied", "unchanged")


@dataclass(frozen=True)
class Observation:
    """Something the network said by itself.

    ``id`` is the same for the same datagram whenever it is received again, where the protocol allows to know that
    (flow export, informs); else it is fresh. ``time`` is seconds since the epoch. ``object`` is the part of the device
    (an interface name), empty for the device itself. ``key`` is the same for all that speaks of one condition:
    a clear ends the fault with its key.

    For fault, clear and unmapped ``attributes`` has alarmType, perceivedSeverity, probableCause, specificProblem and
    details (varbinds as {oid: text}). For flow it has ``records``: a list of {source, destination, octets, packets,
    start, end}, addresses as text, octets and packets as integers, start and end in seconds since the epoch.
    """

    id: str
    kind: ObservationKind
    adapter: str
    device: str
    tenant: str
    time: float
    object: str = ""
    key: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rpc:
    """One call of a device, for the audit record: its name and how it ended, never what was said in it.

    done: the device did it. refused: it answered with an error. failed: it did not answer.
    """

    device: str
    name: str
    outcome: Literal["done", "refused", "failed"]
    seconds: float


witness: ContextVar[Callable[[Rpc], None]] = ContextVar("witness")
"""Who is told of calls while an intent is performed; it goes along into tasks, and into threads with their context."""


def tell(rpc: Rpc) -> None:
    """Have a call of a device recorded; an adapter that does not tell works all the same. From any thread."""
    told = witness.get(None)
    if told:
        told(rpc)


Report = Callable[[Observation], Awaitable[None]]
"""Make an observation safe. Returns when it is stored durably; raises Unavailable when it could not be."""


class Adapter(Protocol):
    """What every adapter folder offers as ``create(settings, devices) -> Adapter``, devices by their names.

    ``performs`` says whether it takes intents. ``start`` opens sockets (a taken port raises Misconfigured) and returns
    the addresses it listens on; ``stop`` closes everything within five seconds and returns when it has.
    """

    name: str
    performs: bool

    async def start(self, report: Report) -> Sequence[str]: ...

    async def stop(self) -> None: ...

    async def perform(self, intent: Intent) -> Outcome:
        """Bring the device to the desired state.

        Raises Unavailable when the device cannot be reached, is locked or refuses the credentials: the intent comes
        back later and is done once. Everything the device itself decides is an Outcome.
        """
        ...

    async def health(self) -> Mapping[str, Any]:
        """JSON-ready figures for /readyz and metrics: at least {"state": "ready" | "degraded"}."""
        ...
