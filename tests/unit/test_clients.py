"""Clients of an issuer are who the operator's file says they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from issuer import SigningIssuer

from convergedon.core import clients, settings
from convergedon.core.clients import Clients, texts
from convergedon.core.errors import Misconfigured, Unauthenticated
from convergedon.core.policy import Subject
from convergedon.core.tokens import Verifier

ISSUER = "https://id.example"
WHOLE = """
clients:
  - client: acme-portal
    tenant: acme
    roles: [csr, reader]
  - client: northwind-shop
    claims: {scope: orders}
    tenant: acme
    roles: [customer]
    party: northwind
  - claims: {realm_access.roles: [operators, field], "https://claims.example/kind": staff}
    tenant: {claim: org.name, values: {ACME Corp: acme, Globex: globex}}
    roles: {claim: scope, values: {alarms: noc, orders: csr, everything: admin}}
    party: {claim: customer}
"""
STAFF = {
    "sub": "u1",
    "realm_access": {"roles": ["operators"]},
    "https://claims.example/kind": "staff",
    "org": {"name": "Globex"},
    "scope": "alarms orders profile",
    "customer": "globex-1",
}


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Clients]:
    def read(text: str, issuers: tuple[str, ...] = (ISSUER,)) -> Clients:
        file = tmp_path / "clients.yaml"
        file.write_text(text)
        return clients.load(file, issuers)

    return read


@pytest.mark.parametrize(
    ("claims", "who"),
    [
        ({"azp": "acme-portal", "sub": "x"}, ("acme", ["csr", "reader"], None)),
        ({"client_id": "acme-portal", "sub": "x"}, ("acme", ["csr", "reader"], None)),
        ({"sub": "acme-portal"}, ("acme", ["csr", "reader"], None)),
        ({"azp": "northwind-shop", "scope": "email orders"}, ("acme", ["customer"], "northwind")),
        (STAFF, ("globex", ["noc", "csr"], "globex-1")),
    ],
)
def test_the_first_entry_that_fits_says_who_it_is(load: Any, claims: dict[str, Any], who: Any) -> None:
    """By the client's name, by claims, or both; what the token says of tenant, roles and party does not count."""
    given = {"tenant": "other", "roles": ["admin"], "party": "other", **claims}

    assert load(WHOLE).known(ISSUER, given) == who


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"azp": "nobody", "sub": "acme-portal"}, "client 'nobody' of the bearer token is not known here"),
        ({"azp": "northwind-shop", "scope": "ordersx"}, "not known here"),
        ({"azp": "northwind-shop"}, "not known here"),
        ({}, "client ''"),
        ({**STAFF, "org": {"name": "ACME"}}, r"names no tenant \(claim org.name\)"),
        ({**STAFF, "org": "Globex"}, "names no tenant"),
        ({**STAFF, "customer": None}, "names no party"),
        ({**STAFF, "customer": ["a", "b"]}, "names no party"),
        ({**STAFF, "customer": "a\nb"}, "names no party"),
        ({**STAFF, "https://claims.example/kind": "guest"}, "not known here"),
        ({**STAFF, "realm_access": {"roles": "guests"}}, "not known here"),
        ({**STAFF, "realm_access": ["operators"]}, "not known here"),
    ],
)
def test_whom_no_entry_fits_is_refused_with_a_sentence(load: Any, claims: dict[str, Any], words: str) -> None:
    with pytest.raises(Unauthenticated, match=words):
        load(WHOLE).known(ISSUER, claims)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clients: [", "clients.yaml, line "),
        ("", "clients: this key is missing"),
        ("client: []", "clients.yaml, line 1: clients: this key is missing"),
        ("clients: [{client: a, tenant: acme}]", "clients.0.roles: this key is missing"),
        ("clients: [{client: a, tenant: 7, roles: [csr]}]", "clients.0.tenant"),
        ("clients: [{client: 7, tenant: acme, roles: [csr]}]", "clients.0.client"),
        ("clients: [{client: a, tenant: acme, roles: [csr], rolls: [csr]}]", "clients.0.rolls: this key is not known"),
        ("clients: [{client: a, tenant: acme, roles: [system]}]", "clients.0.roles: the role system"),
        (
            "clients: [{client: a, tenant: acme, roles: {claim: scope, values: {x: system}}}]",
            "clients.0.roles: the role system",
        ),
        ("clients: [{client: a, tenant: acme, roles: [customer]}]", "clients.0: a customer needs a party"),
        ("clients: [{client: a, tenant: [a, b], roles: [csr]}]", "clients.0: a client has one tenant"),
        ("clients: [{client: a, tenant: '', roles: [csr]}]", "clients.0.tenant"),
        ("clients: [{client: a, tenant: {values: {a: b}}, roles: [csr]}]", "clients.0.tenant"),
        ("clients: [{tenant: acme, roles: [csr]}]", "clients.0: an entry says which client"),
        ("clients: [{client: a, tenant: t, roles: [r], issuer: 'https://x'}]", "clients.0.issuer"),
        ("clients: [{client: a, tenant: t, roles: [r]}, {client: a, tenant: u, roles: [r]}]", "clients.1.client"),
        ("clients: [{client: a, client: b, tenant: t, roles: [r]}]", "key 'client' is given twice"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key(load: Any, text: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=r"clients\.yaml") as refused:
        load(text)

    assert words in str(refused.value)


def test_of_several_issuers_none_speaks_for_the_clients_of_another(load: Any) -> None:
    both = (ISSUER, "https://other.example")
    known = load(
        "clients: [{client: a, issuer: 'https://other.example', tenant: globex, roles: [csr]}, "
        "{client: a, issuer: 'https://id.example', tenant: acme, roles: [csr]}]",
        both,
    )

    assert known.known(ISSUER, {"azp": "a"})[0] == "acme"
    assert known.known("https://other.example", {"azp": "a"})[0] == "globex"
    with pytest.raises(Misconfigured, match="there are several issuers"):
        load("clients: [{client: a, tenant: acme, roles: [csr]}]", both)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("scope", ["a", "b"]),
        ("text", ["a b"]),
        ("list", ["x", "y"]),
        ("a.b", ["whole"]),
        ("c.d.e", ["deep"]),
        ("number", ["7"]),
        ("truth", []),
        ("nothing", []),
        ("c.d.x", []),
        ("text.x", []),
    ],
)
def test_claims_of_any_form_are_read(name: str, found: list[str]) -> None:
    claims = {
        "scope": "a  b",
        "text": "a b",
        "list": ["x", 1, "y", None],
        "a.b": "whole",
        "a": {"b": "parts"},
        "c": {"d": {"e": "deep"}},
        "number": 7,
        "truth": True,
    }

    assert texts(claims, name) == found


async def test_the_file_counts_and_not_the_token(tmp_path: Path) -> None:
    """A token of a real issuer that calls itself an admin of another tenant."""
    file = tmp_path / "clients.yaml"
    file.write_text("clients: [{client: vendor, tenant: globex, roles: [customer], party: northwind}]")
    async with SigningIssuer().listening() as issuer:
        issuer.has("one")
        checking = Verifier(settings.load(data=tmp_path, issuer=issuer.url, clients=file))
        subject = await checking.verify(issuer.token("one", roles=["admin"], tenant="acme"))

        assert subject == Subject("vendor", "globex", ("customer",), "northwind", subject.issued)
        with pytest.raises(Unauthenticated, match="'stranger'"):
            await checking.verify(issuer.token("one", sub="stranger"))


async def test_two_issuers_with_clients_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "clients.yaml"
    async with SigningIssuer().listening() as a, SigningIssuer().listening() as b:
        a.has("one")
        b.has("one")
        file.write_text(
            f"clients: [{{client: vendor, issuer: '{a.url}', tenant: acme, roles: [csr]}}, "
            f"{{client: vendor, issuer: '{b.url}', tenant: globex, roles: [noc]}}]"
        )
        checking = Verifier(settings.load(data=tmp_path, issuer=f"{a.url}, {b.url}", clients=file))

        assert (await checking.verify(a.token("one"))).tenant == "acme"
        assert (await checking.verify(b.token("one"))).tenant == "globex"
        with pytest.raises(Unauthenticated):
            await checking.verify(b.token("one", iss=a.url))


def test_without_an_issuer_there_are_no_clients_of_it(tmp_path: Path) -> None:
    """A file that would count for nothing is told of, and so is one that is not there."""
    file = tmp_path / "clients.yaml"
    file.write_text(WHOLE)
    with pytest.raises(Misconfigured, match="CONVERGEDON_ISSUER, which is not set"):
        Verifier(settings.load(data=tmp_path, clients=file))
    with pytest.raises(Misconfigured, match=r"missing\.yaml: cannot be read"):
        Verifier(settings.load(data=tmp_path, issuer=ISSUER, clients=tmp_path / "missing.yaml"))
