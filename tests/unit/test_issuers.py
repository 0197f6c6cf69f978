"""A real issuer's keys: asked for seldom, replaced without a restart, and never trusted for longer than they may be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from time import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from issuer import DISCOVERY, KEYS, Answer, SigningIssuer, as_json, plain, public

from convergedon.core import issuers, settings, tokens
from convergedon.core.errors import Misconfigured, TooManyRequests, Unauthenticated, Unavailable
from convergedon.core.issuers import FRESH, PAUSE, STALE, Issuer, Patience, choose, signing_keys
from convergedon.core.tokens import Verifier


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def real() -> AsyncIterator[SigningIssuer]:
    async with SigningIssuer().listening() as issuer:
        issuer.has("one", "two")
        yield issuer


@pytest.fixture
def clock() -> Clock:
    return Clock()


def known(real: SigningIssuer, clock: Clock, patience: Patience = Patience()) -> Issuer:  # noqa: B008 - frozen
    return Issuer(real.url, real.url + KEYS, clock=clock, patience=patience)


def verifier(real: SigningIssuer, tmp_path: Path, **given: Any) -> Verifier:
    return Verifier(settings.load(data=tmp_path, issuer=real.url, **{"jwks_url": real.url + KEYS, **given}))


async def test_keys_are_fetched_once_for_many_tokens(real: SigningIssuer, tmp_path: Path) -> None:
    checking = verifier(real, tmp_path)
    for number in range(20):
        subject = await checking.verify(real.token("one", sub=f"vendor-{number}"))

    assert (subject.id, subject.tenant, subject.roles) == ("vendor-19", "acme", ("csr",))
    assert subject.issued is not None
    assert real.asked == [KEYS]


async def test_discovery_says_where_the_keys_are(real: SigningIssuer, tmp_path: Path) -> None:
    assert await verifier(real, tmp_path, jwks_url="").verify(real.token("two"))
    assert real.asked == [DISCOVERY, KEYS]


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://other.example", "jwks_uri": "https://other.example/keys"},
        {"issuer": None, "jwks_uri": "https://other.example/keys"},
        {"jwks_uri": 1},
        [],
    ],
)
async def test_a_discovery_document_of_another_issuer_is_refused(
    real: SigningIssuer, tmp_path: Path, said: Any
) -> None:
    real.pages[DISCOVERY] = as_json(said)

    with pytest.raises(Unavailable, match="another issuer's"):
        await verifier(real, tmp_path, jwks_url="").verify(real.token("one"))


async def test_discovery_leads_to_no_keys_that_come_by_http(real: SigningIssuer, tmp_path: Path) -> None:
    real.pages[DISCOVERY] = as_json({"issuer": real.url, "jwks_uri": "http://192.0.2.1/keys"})

    with pytest.raises(Unavailable, match="must be https"):
        await verifier(real, tmp_path, jwks_url="").verify(real.token("one"))


async def test_a_new_key_is_taken_without_a_restart(real: SigningIssuer, clock: Clock) -> None:
    """And the old one is refused from then on."""
    issuer = known(real, clock)
    await issuer.key("one", "ES256")
    real.has("two", "three")
    clock.now += PAUSE

    assert (await issuer.key("three", "ES256")).id == "three"
    with pytest.raises(Unauthenticated, match="does not have"):
        await issuer.key("one", "ES256")


async def test_a_withdrawn_key_ends_when_keys_are_fetched_anew(real: SigningIssuer, clock: Clock) -> None:
    """Nobody need use the new one for it."""
    issuer = known(real, clock)
    await issuer.key("one", "ES256")
    real.has("two")
    clock.now += FRESH

    with pytest.raises(Unauthenticated):
        await issuer.key("one", "ES256")


async def test_unknown_keys_do_not_make_us_ask(real: SigningIssuer, clock: Clock) -> None:
    """A thousand tokens that name keys of their own cost one fetch in some seconds."""
    issuer = known(real, clock)
    await issuer.keys()
    for number in range(1000):
        clock.now += PAUSE / 1000
        with pytest.raises(Unauthenticated, match="does not have"):
            await issuer.key(f"guess-{number}", "ES256")

    assert len(real.asked) <= 2


async def test_many_at_once_share_one_fetch(real: SigningIssuer, clock: Clock) -> None:
    issuer = known(real, clock)

    await asyncio.gather(*(issuer.key("one", "ES256") for _ in range(100)))

    assert real.asked == [KEYS]


async def test_a_caller_that_goes_away_takes_the_fetch_from_nobody(real: SigningIssuer, clock: Clock) -> None:
    issuer = known(real, clock)
    first = asyncio.create_task(issuer.keys())
    second = asyncio.create_task(issuer.keys())
    await asyncio.sleep(0)
    first.cancel()

    assert len(await second) == 2
    assert real.asked == [KEYS]


async def test_an_outage_is_bridged_for_a_while_and_no_longer(real: SigningIssuer, clock: Clock) -> None:
    """And ends without a restart."""
    issuer = known(real, clock)
    await issuer.keys()
    await real.stop()

    clock.now += STALE - 1
    assert len(await issuer.keys()) == 2
    clock.now += 1
    with pytest.raises(Unavailable, match="does not answer") as away:
        await issuer.keys()
    assert away.value.after == PAUSE

    await real.start()
    clock.now += PAUSE
    assert len(await issuer.keys()) == 2


async def test_an_unknown_key_while_the_issuer_is_away_may_be_good(real: SigningIssuer, clock: Clock) -> None:
    """The caller is asked to come again instead of being told that its token is bad."""
    issuer = known(real, clock)
    await issuer.keys()
    await real.stop()
    clock.now += PAUSE

    with pytest.raises(Unavailable):
        await issuer.key("three", "ES256")


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def flood(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" " * 65_536)
        await writer.drain()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (plain(b"<html>"), "not JSON"),
        (plain(b""), "not JSON"),
        (plain(b"[" * 100_000), "not JSON"),
        (as_json([]), "no key set"),
        (as_json({"keys": {}}), "no key set"),
        (as_json({"keys": []}), "no key in it"),
        (as_json({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "one", "alg": "HS256"}]}), "no key in it"),
        (as_json({"keys": [{}] * 101}), "more than 100 keys"),
        (as_json({"keys": [None, 1, "x", [], {"kty": ["EC"]}, {"kty": "EC", "crv": "P-256", "x": 1}]}), "no key in it"),
        (plain(b"{}", "500 Internal Server Error"), "answers 500"),
        (plain(b"", "302 Found", "Location: /elsewhere"), "redirect"),
        (plain(b"x" * 300_000), "more than 262144 bytes"),
        (flood, "more than 262144 bytes"),
        (trickle, "within"),
    ],
)
async def test_an_answer_that_is_no_key_set_changes_nothing(
    real: SigningIssuer, clock: Clock, answer: Answer, words: str
) -> None:
    """Junk, too much, too slow, or elsewhere: the keys of before hold, and without any the reason is said."""
    patience = Patience(fetch=2) if answer is trickle else Patience()
    issuer = known(real, clock, patience)
    before = await issuer.keys()
    real.pages[KEYS] = answer
    clock.now += FRESH

    assert await issuer.keys() == before
    with pytest.raises(Unavailable, match=words):
        await known(real, clock, patience).keys()


async def test_a_redirect_is_not_followed(real: SigningIssuer, clock: Clock) -> None:
    real.pages["/elsewhere"] = real.pages[KEYS]
    real.pages[KEYS] = plain(b"", "307 Temporary Redirect", "Location: /elsewhere")

    with pytest.raises(Unavailable):
        await known(real, clock).keys()
    assert real.asked == [KEYS]


async def test_a_slow_issuer_does_not_slow_every_request(real: SigningIssuer, clock: Clock) -> None:
    """While keys may still be used a caller waits a moment for newer ones, and the fetch goes on without it."""
    issuer, gate, served = known(real, clock, Patience(fresh=0.05)), asyncio.Event(), real.pages[KEYS]
    await issuer.keys()

    async def slow(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await served(writer)

    real.pages[KEYS] = slow
    clock.now += FRESH
    for _ in range(5):
        await issuer.keys()
    gate.set()
    await issuer._renew(None)

    assert real.asked == [KEYS, KEYS]


# Which key, for which signature


EC, ED, RSA = (
    ec.generate_private_key(ec.SECP256R1()),
    ed25519.Ed25519PrivateKey.generate(),
    rsa.generate_private_key(65537, 2048),
)


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (public(EC, "1"), ("ES256",)),
        (public(ED, "1"), ("EdDSA",)),
        (public(RSA, "1"), issuers.RSA),
        (public(RSA, "1", alg="PS256"), ("PS256",)),
        (public(RSA, "1", use="sig", key_ops=["verify"]), issuers.RSA),
        (public(RSA, "1", alg="HS256"), None),
        (public(RSA, "1", alg="none"), None),
        (public(EC, "1", alg="RS256"), None),
        (public(EC, "1", use="enc"), None),
        (public(EC, "1", key_ops=["encrypt"]), None),
        (public(EC, "1", key_ops="verify"), None),
        (public(EC, "1", kid=1), None),
        (public(EC, "1", alg=["ES256"]), None),
        (public(rsa.generate_private_key(65537, 1024), "1"), None),
        ({**public(EC, "1"), "d": "AAAA"}, None),
    ],
)
def test_a_key_checks_what_its_type_and_its_issuer_allow(jwk: dict[str, Any], algorithms: Any) -> None:
    other = public(ec.generate_private_key(ec.SECP256R1()), "other")
    found = {key.id: key.algorithms for key in signing_keys(json.loads(json.dumps({"keys": [other, jwk]})))}

    assert found.get("1") == algorithms


def test_without_a_kid_there_must_be_one_key() -> None:
    one = signing_keys({"keys": [public(EC, "a")]})
    two = signing_keys({"keys": [public(EC, "a"), public(ED, "b")]})

    assert choose(one, None, "ES256") == one[0]
    with pytest.raises(Unauthenticated, match="kid"):
        choose(two, None, "ES256")
    with pytest.raises(Unauthenticated, match="EdDSA"):
        choose(two, "a", "EdDSA")


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "PS384"])
async def test_what_an_rsa_key_signs_is_taken(real: SigningIssuer, tmp_path: Path, algorithm: str) -> None:
    real._keys = {"rsa": RSA}
    real.has("rsa")

    assert await verifier(real, tmp_path).verify(real.token("rsa", algorithm))


@pytest.mark.parametrize(
    ("issuer", "jwks_url", "words"),
    [
        ("https://id.example", "http://id.example/keys", "must be https"),
        ("http://id.example", "", "must be https"),
        ("https://id.example", "ftp://id.example/keys", "https://HOST"),
        ("https://id.example", "https://user:pw@id.example/keys", "https://HOST"),
        ("https://id.example", "https://id.example:port/keys", "https://HOST"),
        ("somebody", "", "https://HOST"),
        (tokens.LOCAL, "https://id.example/keys", "local development issuer"),
        ("https://a.example,https://b.example", "", "CONVERGEDON_CLIENTS"),
        ("https://a.example", "https://a.example/1,https://a.example/2", "as many URLs"),
    ],
)
def test_an_issuer_that_cannot_be_trusted_is_refused_at_the_start(
    tmp_path: Path, issuer: str, jwks_url: str, words: str
) -> None:
    with pytest.raises(Misconfigured, match=words):
        Verifier(settings.load(data=tmp_path, issuer=issuer, jwks_url=jwks_url))


async def test_local_tokens_are_worth_nothing_beside_a_real_issuer(real: SigningIssuer, tmp_path: Path) -> None:
    """Neither one from before, nor one made from the key in the data folder that names the real issuer."""
    local = settings.load(data=tmp_path)
    before = tokens.issue(local, "acme", "admin")
    claims = jwt.decode(before, options={"verify_signature": False})
    forged = jwt.encode({**claims, "iss": real.url}, tokens._key(tmp_path), "ES256", {"kid": "one"})
    checking = verifier(real, tmp_path)

    for token in (before, forged):
        with pytest.raises(Unauthenticated):
            await checking.verify(token)


async def test_a_remembered_token_ends_with_its_key(real: SigningIssuer, tmp_path: Path, clock: Clock) -> None:
    """What was checked once is checked again after a minute, and its key is gone then."""
    wall = Clock()
    wall.now = time()
    checking = Verifier(settings.load(data=tmp_path, issuer=real.url), monotonic=clock, wall=wall)
    token = real.token("one")
    await checking.verify(token)
    real.has("two")

    clock.now += FRESH
    assert await checking.verify(token)
    wall.now += tokens.REMEMBERED
    with pytest.raises(Unauthenticated, match="does not have"):
        await checking.verify(token)


async def test_guessing_is_bounded_and_hurts_no_one_else(real: SigningIssuer, tmp_path: Path) -> None:
    """After a burst of bad tokens an address must wait; a token that is known goes on, and so does another address."""
    checking = verifier(real, tmp_path, failure_limit=0.01)
    good = real.token("one")
    await checking.verify(good, "192.0.2.1")
    with pytest.raises(Unauthenticated):
        await checking.verify("bad", "192.0.2.1")

    with pytest.raises(TooManyRequests) as refused:
        await checking.verify(real.token("one", sub="other"), "192.0.2.1")
    assert refused.value.wait > 1
    assert await checking.verify(good, "192.0.2.1")
    assert await checking.verify(real.token("one", sub="other"), "192.0.2.2")
