"""Subscriptions to events: who listens where (TMF630 hub), and which places may be called at all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from convergedon.core.errors import Invalid, Unavailable
from convergedon.core.policy import Decision, Subject
from convergedon.core.store import Record
from convergedon.handlers.resource import HUB, Api

Networks = Sequence[IPv4Network | IPv6Network]


def subscription(api: Api, subject: Subject, body: Mapping[str, Any]) -> Record:
    """The record of a listener: it hears what its owner may hear, so the owner is kept beside it."""
    given = {name: body[name] for name in ("callback", "query") if body.get(name) is not None}
    facts: dict[str, Any] = {"api": api.base, "owner": subject.document}
    if subject.party:
        facts["parties"] = [subject.party]
    return Record(HUB.name, str(uuid4()), subject.tenant, {"query": "", **given}, facts)


def owner(record: Record) -> Subject:
    kept = record.facts["owner"]
    return Subject(kept["id"], kept["tenant"], tuple(kept["roles"]), kept.get("party"))


def owned(record: Record, subject: Subject, decision: Decision) -> bool:
    """A caller that sees only its party's things ends only its own subscriptions."""
    return "parties" not in decision.filter or owner(record).party == subject.party


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
    for address in await _addresses(parts.hostname, port or (443 if parts.scheme == "https" else 80)):
        inside = any(address in network for network in allowed if network.version == address.version)
        if address.is_link_local or address.is_multicast or not (address.is_global or inside):
            raise Invalid(f"callbacks to {address} are not allowed (CONVERGEDON_CALLBACK_NETWORKS)")


async def _addresses(host: str, port: int) -> set[IPv4Address | IPv6Address]:
    try:
        return {_plain(host)}
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except ValueError as error:  # labels that are too long or empty, a NUL
        raise Invalid(f"{host!r} is not a host name") from error
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Unavailable(f"{host} cannot be looked up now") from error
        raise Invalid(f"{host} does not exist") from error
    return {_plain(item[4][0]) for item in found}


def _plain(text: str | int) -> IPv4Address | IPv6Address:
    """The address; of an IPv4 address that is written as IPv6 the former. Raises ValueError for what is none."""
    address = ip_address(text)
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
