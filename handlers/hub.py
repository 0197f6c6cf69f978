"""Subscriptions to events: who listens where (TMF630 hub), and which places may be called at all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from convergedon.core.errors import Invalid, Unavailable
from convergedon.core.lease import LEASE, settled
from convergedon.core.policy import Decision, Subject, known
from convergedon.core.store import Record, Store
from convergedon.handlers import documents
from convergedon.handlers.query import check_event_query
from convergedon.handlers.resource import HUB, Api
from convergedon.openapi import document

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]


def subscription(api: Api, subject: Subject, body: Mapping[str, Any], mark: str = "") -> Record:
    """The record of a listener: it hears what its owner may hear, so the owner is kept beside it.

    ``mark`` tells whose key its secret follows from.
    """
    given = {name: body[name] for name in ("callback", "query") if body.get(name) is not None}
    facts: dict[str, Any] = {"api": api.base, "owner": subject.document}
    if subject.party:
        facts["parties"] = [subject.party]
    if mark:
        facts["mark"] = mark
    return Record(HUB.name, str(uuid4()), subject.tenant, {"query": "", **given}, facts)


def check_query(api: Api, query: str) -> None:
    """Refuse a query that cannot be read, or that names what none of the API's events has. Raises Refused."""
    declared = document(api.document)["components"]["schemas"]
    events = [name for name in declared if name.endswith("Event") and name != "Event"]
    names = [*events, *map(api.schema, api.resources)]
    check_event_query(query, [documents.shape(api.document, name) for name in names])


async def register(store: Store, record: Record) -> Record:
    """Keep a listener; it hears every event that is written after this has returned."""
    kept = await store.create(record)
    await settled()
    return kept


async def unregister(store: Store, record: Record) -> None:
    """End a listener; what is sent to it is under way already when this returns."""
    await store.delete(record)
    await settled()


def owner(record: Record) -> Subject:
    return known(record.facts["owner"])


def owned(record: Record, subject: Subject, decision: Decision) -> bool:
    """A caller that sees only its party's things ends only its own subscriptions."""
    return "parties" not in decision.filter or owner(record).party == subject.party


class Listeners:
    """The hubs of a tenant and API by id, as they were at most ``LEASE`` seconds ago: one reading for many events."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._readings: dict[str, tuple[float, asyncio.Task[dict[str, dict[str, Record]]]]] = {}

    async def of(self, tenant: str, base: str) -> Mapping[str, Record]:
        begun, reading = self._readings.get(tenant, (0.0, None))
        if reading is None or monotonic() - begun > LEASE or _failed(reading):
            begun, reading = monotonic(), asyncio.create_task(self._read(tenant))
            self._readings[tenant] = begun, reading
        # shielded: who gives up waiting leaves it to the others
        return (await asyncio.shield(reading)).get(base, {})

    def changed(self, tenant: str) -> None:
        """Read them anew: this process has changed them."""
        self._readings.pop(tenant, None)

    async def _read(self, tenant: str) -> dict[str, dict[str, Record]]:
        found: dict[str, dict[str, Record]] = {}
        for record in await self._store.find(HUB.name, {"tenant": tenant}):
            found.setdefault(record.facts["api"], {})[record.id] = record
        return found


def _failed(reading: asyncio.Task[Any]) -> bool:
    return reading.done() and (reading.cancelled() or reading.exception() is not None)


def shown(callback: str) -> str:
    """A callback for others than its listener: without what it has after its path, where many keep a password."""
    try:
        return urlsplit(callback)._replace(query="", fragment="").geturl()
    except ValueError:  # refused when it is checked
        return ""


async def check_callback(url: str, allowed: Networks) -> None:
    """Refuse a callback on a loopback, private or other special address unless its network is allowed.

    Link-local addresses (clouds keep credentials there) never are. Every address of the name is looked at. Raises
    Invalid; Unavailable when the name cannot be looked up now.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Invalid(f"the callback is not a URL: {error}") from error
    if any(character <= " " or character == "\x7f" for character in url):
        raise Invalid("the callback holds a blank or a control character")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid("a callback is an http or https URL")
    if parts.username or parts.password:
        raise Invalid("a callback carries no user and password")
    await addresses(parts.hostname, port or (443 if parts.scheme == "https" else 80), allowed)


async def addresses(host: str, port: int, allowed: Networks, pool: Executor | None = None) -> Sequence[Address]:
    """The addresses of a host, all of which may be called. Raises Invalid, or Unavailable, as above."""
    found = await _looked_up(host, port, pool)
    for address in found:
        if not _may_be_called(address, allowed):
            raise Invalid(f"callbacks to {address} are not allowed (CONVERGEDON_CALLBACK_NETWORKS)")
    return found


async def _looked_up(host: str, port: int, pool: Executor | None) -> Sequence[Address]:
    try:
        return [_plain(host)]
    except ValueError:
        pass
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = await asyncio.get_running_loop().run_in_executor(pool, look_up)
    except ValueError as error:  # labels that are too long or empty, a NUL
        raise Invalid(f"{host!r} is not a host name") from error
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Unavailable(f"{host} cannot be looked up now") from error
        raise Invalid(f"{host} does not exist") from error
    return list(dict.fromkeys(_plain(item[4][0]) for item in found))


def _plain(text: str | int) -> Address:
    """The address; of an IPv4 address that is written as IPv6 the former. Raises ValueError for what is none."""
    address = ip_address(text)
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


NAT64 = IPv6Network("64:ff9b::/96")
UNICAST = IPv6Network("2000::/3")
"""All that IPv6 has for hosts of the Internet; outside are NAT64, site-local, IPv4-compatible and others."""
RELAYED = (IPv4Network("192.88.99.0/24"), IPv6Network("2002::/16"), IPv6Network("2001::/32"))
"""6to4 and Teredo: a relay passes them on to an address that is written inside."""


def _may_be_called(address: Address, allowed: Networks) -> bool:
    inner = _inner(address)
    if address.is_link_local or address.is_multicast or (inner and not _may_be_called(inner, allowed)):
        return False
    return _is_public(address) or _is_in(address, allowed)


def _is_public(address: Address) -> bool:
    unicast = address.version == 4 or address in UNICAST
    return unicast and address.is_global and not _is_in(address, RELAYED)


def _is_in(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _inner(address: Address) -> IPv4Address | None:
    """The IPv4 address that packets to this IPv6 address end at."""
    if isinstance(address, IPv4Address):
        return None
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or (address.teredo[1] if address.teredo else None)
