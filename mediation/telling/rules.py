"""The file of rules for what customers are told: when, through which channels, in whose words (docs/notifications.md).

What stands at a customer goes before what stands at its tenant, and that before what stands for all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time
from functools import cached_property
from pathlib import Path
from time import time as now
from typing import Annotated, Any, Literal, Self, TypeVar, get_args
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints, field_validator, model_validator

from convergedon.core import strict
from convergedon.core.errors import Misconfigured
from convergedon.core.settings import Settings
from convergedon.core.store import Record
from convergedon.mediation.telling import wording
from convergedon.mediation.telling.channels import discovery
from convergedon.mediation.telling.channels.contract import Channel, Section, referred
from convergedon.mediation.telling.governance import Hours, Rules, Window
from convergedon.mediation.telling.wording import Wording

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*$", max_length=200)]
Severity = Literal["critical", "major", "minor", "warning", "indeterminate"]
Seconds = Annotated[float, Field(ge=0, le=604_800, strict=False)]
Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
DAYS: tuple[Day, ...] = get_args(Day)
Type = Literal[
    "serviceAffected",
    "serviceUpdated",
    "serviceRestored",
    "serviceEnded",
    "serviceSummary",
    "orderCompleted",
    "orderFailed",
    "orderCancelled",
]


def _clock(given: object) -> object:
    """A time of day. In YAML 22:00 without quotation marks is 1320: minutes, by the sixty."""
    if type(given) is int and 0 <= given < 1440:
        return time(given // 60, given % 60)
    if isinstance(given, str):
        try:
            return time.fromisoformat(given)
        except ValueError:
            pass
    raise ValueError("a time of day is hours and minutes, 22:00")


class _Quiet(strict.Strict):
    """Hours in which customers are told what breaks through alone."""

    begin: time = Field(alias="from")
    to: time
    days: list[Day] = Field(default_factory=lambda: list(DAYS), min_length=1)
    breakThrough: list[Severity] = Field(default_factory=list)

    _begins = field_validator("begin", "to", mode="before")(_clock)

    @model_validator(mode="after")
    def _come_to_an_end(self) -> Self:
        if self.begin == self.to:
            raise ValueError("quiet hours that last a whole day never end")
        return self


Named = TypeVar("Named", "_Recipient", "_Operator")


def _each_once(given: list[Named] | None) -> list[Named] | None:
    names = [one.channel for one in given or ()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} is named twice: two addresses are two channels")
    return given


class _Recipient(strict.Strict):
    """Which channel a customer is told by, at which address, and of what; of everything where nothing is said."""

    channel: Name
    to: Literal["contact"] | None = None
    toFile: str | None = None
    toEnv: str | None = None
    types: list[Type] | None = None


class _Operator(strict.Strict):
    """Which channel operators are told by of what a workflow leaves to a person, where, and of which ends of it."""

    channel: Name
    toFile: str | None = None
    toEnv: str | None = None
    states: list[Literal["refused", "compensated", "failed"]] | None = None


class _Ways(strict.Strict):
    """What may be said for all, for a tenant and for a customer."""

    holdDown: dict[Severity, Seconds] | None = None
    updateInterval: Seconds | None = None
    timezone: str | None = None
    quietHours: _Quiet | None = None
    channels: list[_Recipient] | None = None

    @field_validator("channels")
    @classmethod
    def _names_each_once(cls, given: list[_Recipient] | None) -> list[_Recipient] | None:
        return _each_once(given)

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, given: str | None) -> str | None:
        try:
            return given and ZoneInfo(given).key
        except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError, too
            raise ValueError("there is no such timezone: Europe/Berlin, UTC") from error
        except KeyError as error:
            raise ValueError("there is no such timezone: Europe/Berlin, UTC") from error


class _Operated(_Ways):
    """And who is told of what customers do not hear."""

    escalations: list[_Operator] | None = None

    @field_validator("escalations")
    @classmethod
    def _names_operators_once(cls, given: list[_Operator] | None) -> list[_Operator] | None:
        return _each_once(given)


class _Tenant(_Operated):
    customers: dict[Name, _Ways] = Field(default_factory=dict)


class _Window(strict.Strict):
    """Planned work."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    tenant: Name
    begin: datetime = Field(alias="from")
    to: datetime
    devices: list[Name] = Field(default_factory=list)
    sites: list[Name] = Field(default_factory=list)

    @field_validator("begin", "to")
    @classmethod
    def _says_where_on_earth(cls, given: datetime) -> datetime:
        if given.tzinfo is None:
            raise ValueError("a time needs its offset: 2026-12-01T22:00:00+01:00, or Z")
        return given

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.to <= self.begin:
            raise ValueError("a window ends after it begins")
        return self


class _Channel(strict.Strict):
    """The rest of it is its kind's to check."""

    model_config = strict.Strict.model_config | {"extra": "allow"}

    kind: Name


class _File(strict.Strict):
    """The file as a whole."""

    default: _Operated = Field(default_factory=_Operated)
    tenants: dict[Name, _Tenant] = Field(default_factory=dict)
    maintenance: list[_Window] = Field(default_factory=list)
    orderWindows: Seconds = 0
    templates: str | None = None
    channels: dict[Name, _Channel] = Field(default_factory=dict)


@dataclass(frozen=True)
class Recipient:
    """``contact``: the address is that which the customer's orders name. ``to`` is personal data.

    ``types`` are those of notifications; of an operator the states in which a run ends.
    """

    channel: str
    to: str = field(repr=False)
    contact: bool
    types: frozenset[str] | None

    def hears(self, type_: str) -> bool:
        """Who hears all-clears hears, too, that a disturbance ended with its service."""
        also = "serviceRestored" if type_ == "serviceEnded" else type_
        return self.types is None or not self.types.isdisjoint((type_, also))


@dataclass(frozen=True)
class Ways:
    """What holds for one customer."""

    rules: Rules
    zone: ZoneInfo
    quiet: Hours | None
    break_through: tuple[str, ...]
    recipients: tuple[Recipient, ...]

    def silence(self, now: float) -> dict[str, Any]:
        """The quiet hours that are now, as the policy is told of them; nothing outside of them."""
        until = self.quiet.until(now) if self.quiet else None
        return {} if until is None else {"quiet": {"until": until, "breakThrough": list(self.break_through)}}


@dataclass
class Notifications:
    """The rules that are in force. ``kinds`` are those of the channels; ``waiting`` is set when there is something to
    send, and ``fresh`` are letters that this process has made and claimed, each with its notification.
    """

    windows: Sequence[Window]
    order_windows: float
    wording: Wording
    channels: Mapping[str, Channel]
    kinds: Mapping[str, str]
    _ways: Mapping[tuple[str, str], Ways]
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    fresh: deque[tuple[Record, Record]] = field(default_factory=deque)
    clock: Callable[[], float] = now
    operators: Mapping[str, Sequence[Recipient]] = field(default_factory=dict)

    def operators_of(self, tenant: str) -> Sequence[Recipient]:
        """Who hears of what workflows leave to a person: the tenant's own, else those for all."""
        return self.operators.get(tenant, self.operators.get("", ()))

    def of(self, tenant: str, customer: str) -> Ways:
        """What holds for a customer: its own, else its tenant's, else what holds for all."""
        ways = self._ways
        return ways.get((tenant, customer)) or ways.get((tenant, "")) or ways["", ""]

    def become(self, fresh: Notifications) -> Sequence[Channel]:
        """Go on by other rules, all at once; returns the channels that are not used for anything new from now on."""
        former = [*self.channels.values()]
        self.windows, self.order_windows, self.wording = fresh.windows, fresh.order_windows, fresh.wording
        self.channels, self.kinds, self._ways = fresh.channels, fresh.kinds, fresh._ways
        self.operators = fresh.operators
        return former

    async def close(self) -> None:
        for channel in self.channels.values():
            await channel.close()


def load(settings: Settings) -> Notifications | None:
    """Read the rules; without a file there are none. Raises Misconfigured with file, line and key."""
    if settings.notifications is None:
        return None
    file = settings.notifications
    given = strict.read(_File, file)
    return _Reading(file, given, settings).notifications


def none() -> Notifications:
    """Rules that say nothing: everything at once, through no channel."""
    return Notifications((), 0, Wording(), {}, {}, {("", ""): Ways(Rules(), ZoneInfo("UTC"), None, (), ())})


@dataclass(frozen=True)
class _Reading:
    file: Path
    given: _File
    settings: Settings

    @property
    def notifications(self) -> Notifications:
        folder = self.file.parent / self.given.templates if self.given.templates else None
        if folder is not None and not folder.is_dir():
            raise Misconfigured(f"{strict.where(self.file, 'templates')}: there is no such folder")
        windows = [
            Window(
                one.name,
                one.tenant,
                one.begin.timestamp(),
                one.to.timestamp(),
                frozenset(one.devices),
                frozenset(one.sites),
            )
            for one in self.given.maintenance
        ]
        kinds = {name: channel.kind for name, channel in self.given.channels.items()}
        words = wording.load(folder)
        ways, operators = self._all_ways(), self._operators()
        return Notifications(windows, self.given.orderWindows, words, self.channels, kinds, ways, operators=operators)

    @cached_property
    def channels(self) -> dict[str, Channel]:
        known, made = discovery.kinds(), {}
        for name, channel in self.given.channels.items():
            if channel.kind not in known:
                where = strict.where(self.file, "channels", name, "kind")
                raise Misconfigured(f"{where}: there is no such kind; installed are {', '.join(sorted(known))}")
            about = {"kind": channel.kind, **(channel.model_extra or {})}
            made[name] = known[channel.kind](Section(name, about, self.file, ("channels", name), self.settings))
        return made

    def _all_ways(self) -> dict[tuple[str, str], Ways]:
        given = self.given
        found = {("", ""): self._ways([(("default",), given.default)])}
        for tenant, its in given.tenants.items():
            outer: list[tuple[tuple[str, ...], _Ways]] = [(("tenants", tenant), its), (("default",), given.default)]
            found[tenant, ""] = self._ways(outer)
            for customer, own in its.customers.items():
                place = ("tenants", tenant, "customers", customer)
                found[tenant, customer] = self._ways([(place, own), *outer])
        return found

    def _ways(self, levels: Sequence[tuple[tuple[str, ...], _Ways]]) -> Ways:
        """What holds where these are the levels, the nearest first."""

        def nearest(name: str) -> tuple[tuple[str, ...], Any]:
            said = ((place, getattr(level, name)) for place, level in levels)
            return next(((place, value) for place, value in said if value is not None), ((), None))

        _, held = nearest("holdDown")
        _, interval = nearest("updateInterval")
        _, zone = nearest("timezone")
        _, quiet = nearest("quietHours")
        place, recipients = nearest("channels")
        there = ZoneInfo(zone or "UTC")
        hours = Hours(quiet.begin, quiet.to, there, frozenset(map(DAYS.index, quiet.days))) if quiet else None
        return Ways(
            Rules(held or {}, Rules.interval if interval is None else interval),
            there,
            hours,
            tuple(quiet.breakThrough) if quiet else (),
            tuple(self._recipient((*place, "channels", number), one) for number, one in enumerate(recipients or ())),
        )

    def _operators(self) -> dict[str, Sequence[Recipient]]:
        """By tenant, empty for all."""
        levels: list[tuple[str, tuple[str, ...], _Operated]] = [("", ("default",), self.given.default)]
        levels += [(name, ("tenants", name), its) for name, its in self.given.tenants.items()]
        return {
            tenant: tuple(
                self._recipient((*place, "escalations", number), one) for number, one in enumerate(level.escalations)
            )
            for tenant, place, level in levels
            if level.escalations is not None
        }

    def _recipient(self, place: tuple[str | int, ...], given: _Recipient | _Operator) -> Recipient:
        if given.channel not in self.channels:
            raise Misconfigured(f"{strict.where(self.file, *place, 'channel')}: there is no such channel")
        to = referred(self.file, place, given.model_dump(exclude_none=True), "to")
        contact, ways, kinds = False, "toFile and toEnv", given.states if isinstance(given, _Operator) else given.types
        if isinstance(given, _Recipient):
            contact, ways = given.to is not None, "to: contact, toFile and toEnv"
        said, needed = bool(to) + contact, self.channels[given.channel].addressed
        if said != needed:
            words = f"it needs one of {ways}" if needed else "it leads where its url says: no to"
            raise Misconfigured(f"{strict.where(self.file, *place, 'channel')}: {words}")
        types = None if kinds is None else frozenset(map(str, kinds))
        return Recipient(given.channel, to, contact, types)
