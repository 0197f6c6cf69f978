"""Who may call: tokens of the right key, issuer, audience and time, and nobody is the gateway itself."""

from __future__ import annotations

import asyncio
import hmac
import stat
import subprocess
import sys
from base64 import urlsafe_b64encode
from pathlib import Path
from time import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from convergedon.core import settings, tokens
from convergedon.core.errors import Misconfigured, Unauthenticated, Unavailable
from convergedon.core.policy import Subject
from convergedon.core.settings import Settings
from convergedon.core.tokens import Verifier, issue


@pytest.fixture
def given(tmp_path: Path) -> Settings:
    return settings.load(data=tmp_path)


def local_key(given: Settings) -> Any:
    return load_pem_private_key((given.data / "keys" / "issuer.pem").read_bytes(), None)


def signed(given: Settings, key: Any = None, algorithm: str = "ES256", **claims: Any) -> str:
    """A token of the local issuer with claims of one's own; None leaves one out."""
    Verifier(given)
    whole = {
        "iss": tokens.LOCAL,
        "aud": given.audience,
        "sub": "vendor",
        "exp": time() + 60,
        "tenant": "acme",
        "roles": ["csr"],
        **claims,
    }
    said = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(said, local_key(given) if key is None else key, algorithm=algorithm)


async def test_an_issued_token_says_who_it_is(given: Settings) -> None:
    """Tenant, role and party come back."""
    token = issue(given, "acme", "customer", "northwind")

    found = await Verifier(given).verify(token)

    assert found == Subject("northwind", "acme", ("customer",), "northwind", found.issued)
    assert time() - 5 < (found.issued or 0) <= time()


async def test_the_key_outlives_the_process(given: Settings) -> None:
    """A token from before a restart is valid after it."""
    token = issue(given, "acme", "csr")

    assert (await Verifier(given).verify(token)).tenant == "acme"
    assert (await Verifier(given).verify(token)).roles == ("csr",)


async def test_another_key_is_refused(given: Settings, tmp_path: Path) -> None:
    """Whoever makes a key of his own makes no tokens for us."""
    with pytest.raises(Unauthenticated):
        await Verifier(given).verify(signed(given, ec.generate_private_key(ec.SECP256R1())))


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"exp": time() - 3600}, "expired"),
        ({"exp": None}, "exp"),
        ({"nbf": time() + 3600}, "not yet valid"),
        ({"aud": "billing"}, "[Aa]udience"),
        ({"aud": None}, "aud"),
        ({"iss": "somebody"}, "[Ii]ssuer"),
        ({"iss": None}, "iss"),
        ({"sub": None}, "sub"),
        ({"tenant": None}, "names no tenant"),
        ({"tenant": ""}, "names no tenant"),
        ({"tenant": ["acme"]}, "names no tenant"),
        ({"roles": None}, "no list of roles"),
        ({"roles": "admin"}, "no list of roles"),
        ({"roles": [["admin"]]}, "no list of roles"),
    ],
)
async def test_a_token_that_lacks_something_is_refused_with_the_reason(
    given: Settings, claims: dict[str, Any], words: str
) -> None:
    """The signature alone is not enough."""
    with pytest.raises(Unauthenticated, match=words):
        await Verifier(given).verify(signed(given, **claims))


async def test_the_algorithm_is_ours_to_choose(given: Settings) -> None:
    """Neither none, nor our public key used as a shared secret."""
    unsigned = signed(given, "", "none")
    public = local_key(given).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=") + b"." + unsigned.split(".")[1].encode()
    signature = urlsafe_b64encode(hmac.digest(public, head, "sha256")).rstrip(b"=")
    for token in (unsigned, (head + b"." + signature).decode()):
        with pytest.raises(Unauthenticated):
            await Verifier(given).verify(token)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "ey.ey.ey", "\x00", "é" * 50, "." * 5000])
async def test_what_is_no_token_is_refused(given: Settings, token: str) -> None:
    """Any text may come in a header."""
    with pytest.raises(Unauthenticated):
        await Verifier(given).verify(token)


async def test_a_changed_token_is_refused(given: Settings) -> None:
    """The claims belong to their signature."""
    head, _, signature = signed(given).split(".")
    other = signed(given, roles=["admin"]).split(".")[1]

    with pytest.raises(Unauthenticated):
        await Verifier(given).verify(f"{head}.{other}.{signature}")


async def test_a_remembered_token_ends_when_it_says(given: Settings) -> None:
    """What was checked once is not valid for ever."""
    verifier = Verifier(given)
    token = signed(given, exp=time() - tokens.LEEWAY + 2)
    await verifier.verify(token)
    await asyncio.sleep(2.1)

    with pytest.raises(Unauthenticated, match="expired"):
        await verifier.verify(token)


async def test_the_gateways_own_role_comes_from_no_token(given: Settings) -> None:
    """system is dropped, whoever signed it."""
    subject = await Verifier(given).verify(signed(given, roles=["system", "reader"]))

    assert subject.roles == ("reader",)


@pytest.mark.parametrize(
    ("role", "party", "words"),
    [("system", None, "no role system"), ("boss", None, "no role boss"), ("customer", None, "--party")],
)
def test_the_local_issuer_makes_no_such_token(given: Settings, role: str, party: str | None, words: str) -> None:
    """Unknown roles, the gateway's own, and customers of no party."""
    with pytest.raises(Misconfigured, match=words):
        issue(given, "acme", role, party)


def test_the_local_issuer_does_not_run_beside_a_real_one(tmp_path: Path) -> None:
    """Two ways in would be one too many."""
    real = settings.load(data=tmp_path, issuer="https://id.example", jwks_url="https://id.example/keys")

    with pytest.raises(Misconfigured, match=r"id\.example"):
        issue(real, "acme", "csr")


async def test_an_issuer_whose_keys_cannot_be_had_is_unavailable(given: Settings, tmp_path: Path) -> None:
    """The caller may try again: it is not his token that is wrong."""
    real = settings.load(data=tmp_path, issuer="https://id.example", jwks_url="http://127.0.0.1:9/keys")
    key = ec.generate_private_key(ec.SECP256R1())
    token = jwt.encode({"sub": "x", "iss": "https://id.example"}, key, "ES256", {"kid": "1"})

    with pytest.raises(Unavailable):
        await Verifier(real).verify(token)


def test_only_the_owner_reads_the_key(given: Settings) -> None:
    """The file of the local issuer's key has mode 0600."""
    issue(given, "acme", "csr")

    assert stat.S_IMODE((given.data / "keys" / "issuer.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"not a key"])
def test_a_spoilt_key_is_one_sentence(given: Settings, content: bytes) -> None:
    """It names the file and nothing that stands in it."""
    path = given.data / "keys" / "issuer.pem"
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(Misconfigured, match=r"issuer\.pem"):
        Verifier(given)


def test_processes_that_make_the_key_at_once_agree(given: Settings) -> None:
    """Of several that start on an empty folder one makes the key, and all use it."""
    code = "import sys; from convergedon.core import settings, tokens; s = settings.load(data=sys.argv[1]);"
    code += "input(); print(tokens.issue(s, 'acme', 'csr'))"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(given.data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in started:
        assert process.stdin
        process.stdin.write(b"\n")
        process.stdin.flush()
    issued = [process.communicate(timeout=60)[0].decode().strip() for process in started]

    public = local_key(given).public_key()
    for token in issued:
        assert jwt.decode(token, public, algorithms=["ES256"], audience="convergedon")["tenant"] == "acme"
    assert [file.name for file in (given.data / "keys").iterdir()] == ["issuer.pem"]
