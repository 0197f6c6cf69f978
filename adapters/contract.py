"""The network function API: intents go in, outcomes and observations come out.

An adapter speaks one protocol and knows no TM Forum resource. It is given the devices it is responsible for and reports
what the network says by itself (a trap, a flow record) as an ``Observation``. One that takes intents (``Performer``)
is told the desired state of a service on a device (``Intent``) and offers the stages of a change: prepare, commit,
verify, confirm, rollback. ``transaction.perform`` drives an intent through them and answers with what became of it
(``Outcome``); ``readandset.ReadAndSet`` has the stages for devices that can only be read and set. What a device has can
be asked without changing anything (``Reading``). Severities and causes are those of ITU-T X.733, which TMF642 took over
word for word.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

Capability = Literal["read", "candidate", "confirmedCommit", "rollback", "verify", "notifications"]
"""What can be done with a device.

read: its state can be asked. candidate: a change is prepared beside what is in force, and put in force as a whole.
confirmedCommit: what is in force and not confirmed is undone by the device itself, whatever becomes of us. rollback:
the former state is brought back. verify: its operational state is compared too, not only what it was told.
notifications: it reports by itself.
"""
Reason = Literal[
    "",
    "value",
    "capability",
    "policy",
    "verification",
    "deadline",
    "unreachable",
    "credentials",
    "locked",
    "timeout",
    "unavailable",
    "defect",
]
"""Why an intent is not done, by what an operator does next.

value: correct what was ordered, or the mapping. capability: the device, or its adapter, cannot do it: use another.
policy: ask who makes the rules. verification: look at the device, which took the change and does not do it. deadline:
order again, with more time. unreachable: see to the device and the way to it. credentials: see to the devices file.
locked: find who holds the device. timeout: it was sent and not answered; the next try asks the device what became of
it. unavailable: nothing; something of ours was not ready. defect: tell the adapter's author; the log has the place.
"""
State = Mapping[str, Any] | None
"""What a device has of one service: leaf -> value, in the device's names. None where the service is not there."""

OutcomeStatus = Literal["applied", "unchanged", "refused", "rolledBack", "unknown"]
ReadingStatus = Literal["read", "refused", "unknown"]
ObservationKind = Literal["fault", "clear", "unmapped", "flow", "counter", "call"]


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
    says), and for a remediation the ``workflow`` and its ``approval``: {by, time, decision}. ``trace`` is the W3C
    traceparent of whatever asked for it, where there is one.
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
    trace: str = ""


@dataclass(frozen=True)
class Difference:
    """A leaf that does not hold what it should; None where it should not be there, or is not.

    Without the name of a leaf it is the service as a whole that is there or not.
    """

    leaf: str
    wanted: Any
    found: Any

    def __str__(self) -> str:
        if not self.leaf:
            return "the service is still there" if self.wanted is None else "the service is not there"
        wanted, found = ("nothing" if value is None else value for value in (self.wanted, self.found))
        return f"leaf {self.leaf}: wanted {wanted}, found {found}"


@dataclass(frozen=True)
class Change:
    """An intent that was prepared: what the device had, and what would change. Adapters add what their stages need.

    It is not ``needed`` where the device has the desired state already, and keeps it.
    """

    intent: Intent
    before: State
    diff: Mapping[str, tuple[Any, Any]]
    needed: bool


C = TypeVar("C", bound=Change)

RETRIABLE: frozenset[Reason] = frozenset({"unreachable", "credentials", "locked", "timeout", "unavailable"})


@dataclass(frozen=True)
class Outcome:
    """What became of an intent, as a value.

    applied: the device has the desired state and it was read back. unchanged: it had it before. refused: the device
    or the mapping said no and nothing was changed. rolledBack: it was changed, something went wrong, and the former
    state was read back. unknown: the device must be asked again. ``words`` are the device's own (never a secret),
    ``diff`` maps a leaf to its value before and after, ``reason`` says what to do about it, empty when it is done.
    """

    key: str
    device: str
    status: OutcomeStatus
    words: str = ""
    diff: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    reason: Reason = ""

    @property
    def done(self) -> bool:
        return self.status in ("applied", "unchanged")

    @property
    def retriable(self) -> bool:
        """Whether the same intent, tried again later, may be done."""
        return not self.done and self.reason in RETRIABLE


@dataclass(frozen=True)
class Reading:
    """What a device has of the service that an intent is for, as a value; nothing was changed and nothing was locked.

    read: ``state`` is what it has, in its own names, and ``differences`` is where that, or what it does, is not what
    the intent wants. refused: the policy or the mapping said no. unknown: the device could not be asked.
    """

    key: str
    device: str
    status: ReadingStatus
    state: State = None
    differences: Sequence[Difference] = ()
    words: str = ""
    reason: Reason = ""

    @property
    def agrees(self) -> bool:
        """Whether it was read that the device has, and does, all that the intent wants."""
        return self.status == "read" and not self.differences

    @classmethod
    def told(cls, told: Mapping[str, Any]) -> Reading:
        """Out of what came over the bus."""
        return cls(**{**told, "differences": tuple(Difference(**one) for one in told["differences"])})


@dataclass(frozen=True)
class Observation:
    """Something the network said by itself.

    ``id`` is the same for the same datagram whenever it is received again, where the protocol allows to know that
    (flow export, informs); else it is fresh. ``time`` is seconds since the epoch. ``object`` is the part of the device
    (an interface name), empty for the device itself. ``key`` is the same for all that speaks of one condition:
    a clear ends the fault with its key.

    For fault, clear and unmapped ``attributes`` has alarmType, perceivedSeverity, probableCause, specificProblem and
    details (varbinds as {oid: text}). For flow it has ``records``: a list of {source, destination, octets, packets,
    start, end}, addresses as text, octets and packets as integers, start and end in seconds since the epoch, and where
    the exporter says them protocol, trafficClass (the byte in the IP header), ingress and egress (interfaces' numbers).

    For counter (what went over interfaces between two polls) it has ``records``: a list of {interface, start, end,
    counts}, where counts are octetsIn, octetsOut, packetsIn and packetsOut as the device sees them.

    For call (call records of any service) it has ``usageType``, ``names`` (what is counted) and ``records``: a list of
    {id, address or service, start, end, counts, texts}: an id that is the same for the same record whenever it is read
    again, an IP address or a service's id, whole numbers by their names, and what else is said by its names.
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


@runtime_checkable
class Adapter(Protocol):
    """What every adapter folder offers as ``create(settings, devices) -> Adapter``, devices by their names.

    ``performs`` says whether it takes intents: then it is a Performer. ``start`` opens sockets (a taken port raises
    Misconfigured) and returns the addresses it listens on; ``stop`` closes everything within five seconds and returns
    when it has.

    Three members it may have besides: ``offers``, what it can do with a device at best; ``become(other)``, by which it
    takes over what another one, made a moment ago from the same files, has read of devices and mapping. Without the
    latter it is replaced by that other one: who listens for packets has it, so that none is lost. And of a Performer
    ``compare(intent)``, which reads what the device has of the service and what it does (a State), and how far that is
    from what the intent wants (a sequence of Difference). Without it what ``observe`` reads is compared by name.
    """

    name: str
    performs: bool

    async def start(self, report: Report) -> Sequence[str]: ...

    async def stop(self) -> None: ...

    async def health(self) -> Mapping[str, Any]:
        """JSON-ready figures for /readyz and metrics: at least {"state": "ready" | "degraded"}."""
        ...


@runtime_checkable
class Performer(Adapter, Protocol[C]):
    """An adapter that takes intents, as the stages of a change; ``transaction.perform`` calls them in their order.

    Every stage raises core.errors.Refused when the device or the mapping says no, with its words, and one of
    core.errors.Unavailable when the device cannot be asked; OutcomeUnknown when it was asked and did not answer.
    Between any two stages we may die: a prepare of the same intent, in another process, then finds out from the device
    what became of the earlier try, takes back what is pending of it, and goes on from there.
    """

    async def capabilities(self, device: str) -> frozenset[Capability]:
        """Say what can be done with the device; it may have to be asked."""
        ...

    async def observe(self, intent: Intent) -> State:
        """Read what the device has of the intent's service."""
        ...

    async def prepare(self, intent: Intent) -> C:
        """Read the device and say what would change. Nothing has changed when it returns or raises.

        Locked is raised only when it was read that nothing of the intent stands there.
        The device is the change's own, among all that go through this adapter, from here to its release.
        """
        ...

    async def commit(self, change: C) -> None:
        """Put the change in force; where the device can, for a time only, after which it undoes it by itself.

        When it raises Refused, Locked or DeadlinePassed nothing has changed; after anything else nobody knows.
        """
        ...

    async def verify(self, change: C) -> Sequence[Difference]:
        """Compare what the device has and does with what is wanted, leaf by leaf; empty when all is as it must be."""
        ...

    async def confirm(self, change: C) -> None:
        """Make a change that is in force last."""
        ...

    async def rollback(self, change: C) -> Sequence[Difference]:
        """Bring the former state back and read it; what is not back, empty when all is."""
        ...

    async def release(self, change: C) -> None:
        """Let go of what the change holds of the device: a lock, its turn. Called once, and raises nothing."""
        ...
