"""Whose a client of an issuer is: its tenant, roles and party, by the operator's file instead of the token's own words.

Issuers name clients and scopes in their own way (``azp``, ``client_id``, ``scope``, ``realm_access.roles``); the file
says what they are here. The first entry that fits decides, and a client that none fits is not let in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from convergedon.core import strict
from convergedon.core.errors import Misconfigured, Unauthenticated

SYSTEM = "system"
"""The gateway's own role, which nobody is given."""
NAMES = ("azp", "client_id", "sub")
"""The claims that may name the client, the one that counts first."""
LISTS = ("scope", "scp")
"""Claims whose text is a list with blanks between (RFC 6749, 3.3)."""


class Source(strict.Strict):
    """Where a value comes from: the file itself (a text, or a list of them), or a claim, translated if need be."""

    fixed: list[str] = Field(default_factory=list)
    claim: str = ""
    values: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"fixed": [given]}
        return {"fixed": given} if isinstance(given, list) else given

    @model_validator(mode="after")
    def _whole(self) -> Source:
        if bool(self.fixed) == bool(self.claim):
            raise ValueError("is a value, or {claim: NAME} with values: {THEIRS: ours} if they differ")
        if any(not _is_name(value) for value in (*self.fixed, *(self.values or {}).values())):
            raise ValueError("a value is a text that can be printed")
        return self

    def of(self, claims: Mapping[str, Any]) -> list[str]:
        if not self.claim:
            return self.fixed
        found = texts(claims, self.claim)
        return found if self.values is None else [self.values[text] for text in found if text in self.values]


class Entry(strict.Strict):
    client: str = ""
    issuer: str = ""
    claims: dict[str, str | list[str]] = Field(default_factory=dict)
    tenant: Source
    roles: Source
    party: Source | None = None

    @field_validator("roles")
    @classmethod
    def _ours_is_ours(cls, given: Source) -> Source:
        if SYSTEM in (*given.fixed, *(given.values or {}).values()):
            raise ValueError(f"the role {SYSTEM} is the gateway's own")
        return given

    @model_validator(mode="after")
    def _whole(self) -> Entry:
        if not self.client and not self.claims:
            raise ValueError("an entry says which client it is for: client, claims, or both")
        if len(self.tenant.fixed) > 1 or (self.party and len(self.party.fixed) > 1):
            raise ValueError("a client has one tenant and one party")
        if "customer" in self.roles.fixed and self.party is None:
            raise ValueError("a customer needs a party")
        return self

    def fits(self, issuer: str, client: str, claims: Mapping[str, Any]) -> bool:
        return (
            self.issuer in ("", issuer)
            and self.client in ("", client)
            and all(_wanted(value) & set(texts(claims, name)) for name, value in self.claims.items())
        )


class File(strict.Strict):
    clients: list[Entry]


class Clients:
    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries

    def known(self, issuer: str, claims: Mapping[str, Any]) -> tuple[str, list[str], str | None]:
        """Tenant, roles and party of whom the claims tell. Raises Unauthenticated."""
        client = next((str(claims[name]) for name in NAMES if claims.get(name)), "")
        entry = next((entry for entry in self._entries if entry.fits(issuer, client, claims)), None)
        if entry is None:
            raise Unauthenticated(f"the client {client[:100]!r} of the bearer token is not known here")
        party = _one(entry.party, "party", client, claims) if entry.party else None
        return _one(entry.tenant, "tenant", client, claims), entry.roles.of(claims), party


def load(file: Path, issuers: Sequence[str]) -> Clients:
    """Raises Misconfigured with the file and the key."""
    entries = strict.read(File, file).clients
    for number, entry in enumerate(entries):
        key = f"{file}: clients.{number}"
        if entry.issuer and entry.issuer not in issuers:
            raise Misconfigured(f"{key}.issuer: CONVERGEDON_ISSUER does not name it")
        if not entry.issuer and len(issuers) > 1:
            raise Misconfigured(f"{key}.issuer: this key is missing, and there are several issuers")
        earlier = (before for before in entries[:number] if not before.claims)
        if any(before.client == entry.client and before.issuer in ("", entry.issuer) for before in earlier):
            raise Misconfigured(f"{key}.client: an entry before this one has it already, for whatever claims")
    return Clients(entries)


def texts(claims: Mapping[str, Any], name: str) -> list[str]:
    """The values of a claim; the name of one inside another has dots (realm_access.roles)."""
    found = claims[name] if name in claims else _inside(claims, name)
    if isinstance(found, str):
        return found.split() if name in LISTS else [found]
    if isinstance(found, list):
        return [text for text in found if isinstance(text, str)]
    return [str(found)] if isinstance(found, int) and not isinstance(found, bool) else []


def _inside(claims: Any, name: str) -> Any:
    for part in name.split("."):
        claims = claims.get(part) if isinstance(claims, Mapping) else None
    return claims


def _one(source: Source, what: str, client: str, claims: Mapping[str, Any]) -> str:
    found = source.of(claims)
    if len(found) != 1 or not _is_name(found[0]):
        raise Unauthenticated(f"the bearer token of {client[:100]!r} names no {what} (claim {source.claim})")
    return found[0]


def _wanted(value: str | list[str]) -> set[str]:
    return {value} if isinstance(value, str) else set(value)


def _is_name(text: str) -> bool:
    return bool(text) and text.isprintable()
