"""Whatever is done to a token, it is refused, and nothing but a refusal comes of it."""

from __future__ import annotations

import json
import string
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from time import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from convergedon.core import settings as ours
from convergedon.core import tokens
from convergedon.core.errors import Unauthenticated
from convergedon.core.issuers import choose, signing_keys
from convergedon.core.tokens import LONGEST, Verifier

ALPHABET = string.ascii_letters + string.digits + "-_"
OTHERS = "=.+/ !\x00\n\té,~"
CLAIMS = {"iss": "https://id.example", "aud": "convergedon", "sub": "vendor", "tenant": "acme", "roles": ["csr"]}


class Fixed:
    """An issuer whose keys are known; which of them a token may use is decided as for any other."""

    name = CLAIMS["iss"]

    def __init__(self, *listed: dict[str, Any]) -> None:
        self._keys = signing_keys({"keys": list(listed)})

    async def key(self, id: str | None, algorithm: str) -> Any:
        found = choose(self._keys, id, algorithm)
        if found is None:
            raise Unauthenticated("the bearer token was signed with a key that its issuer does not have")
        return found


KEYS: dict[str, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "RS256": rsa.generate_private_key(65537, 2048),
}


@pytest.fixture(scope="module")
def checking(tmp_path_factory: pytest.TempPathFactory) -> Verifier:
    read = ours.load(data=tmp_path_factory.mktemp("keys"), issuer=CLAIMS["iss"], failure_limit=0)
    made = Verifier(read)
    listed = [
        {**jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True), "kid": name}
        for name, key in KEYS.items()
    ]
    issuer: Any = Fixed(*listed)
    made._issuers = {CLAIMS["iss"]: issuer}
    return made


class At(int):
    """So many seconds from the moment at which a token is made."""


def token(algorithm: str, **claims: Any) -> str:
    said = {name: int(time()) + value if isinstance(value, At) else value for name, value in claims.items()}
    whole = {**CLAIMS, "exp": int(time()) + 600, **said}
    return jwt.encode(whole, KEYS[algorithm], algorithm, {"kid": algorithm})


@pytest.mark.parametrize("algorithm", KEYS)
async def test_every_single_changed_character_is_refused(checking: Verifier, algorithm: str) -> None:
    """Each place, with another letter of the alphabet and with one that is in none: also the last one of a signature,
    of which not every bit counts.
    """
    whole = token(algorithm)
    await checking.verify(whole)
    for place, was in enumerate(whole):
        last = place == len(whole) - 1
        others = ALPHABET if last else (ALPHABET[(ALPHABET.find(was) + 1 + place) % 64], OTHERS[place % len(OTHERS)])
        for other in others:
            if other == was:
                continue
            with pytest.raises(Unauthenticated):
                await checking.verify(whole[:place] + other + whole[place + 1 :])


async def test_nothing_may_be_left_out_or_put_in(checking: Verifier) -> None:
    whole = token("ES256")
    for place in range(len(whole) + 1):
        for changed in (whole[:place] + "A" + whole[place:], whole[:place] + whole[place + 1 :], whole[:place]):
            if changed != whole:
                with pytest.raises(Unauthenticated):
                    await checking.verify(changed)
    for more in ("=", "==", ".", " ", "\n", "\x00"):
        with pytest.raises(Unauthenticated):
            await checking.verify(whole + more)


def part(content: Any) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
HEADERS = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "zip", "x5c"]), JSON)


@settings(max_examples=300, deadline=None)
@given(header=HEADERS | JSON | st.binary(max_size=50), claims=JSON | st.binary(max_size=50), end=st.binary(max_size=70))
async def test_no_header_and_no_claims_make_anything_but_a_refusal(
    checking: Verifier, header: Any, claims: Any, end: bytes
) -> None:
    with pytest.raises(Unauthenticated):
        await checking.verify(f"{part(header)}.{part(claims)}.{part(end)}")


NAMES = ["sub", "exp", "nbf", "iat", "aud", "iss", "tenant", "roles", "party", "jti"]


@settings(max_examples=300, deadline=None)
@given(claims=st.dictionaries(st.sampled_from(NAMES), JSON, min_size=1))
async def test_what_an_issuer_signs_is_looked_at_too(checking: Verifier, claims: dict[str, Any]) -> None:
    """Claims of any form, well signed: a subject comes of them, or a refusal."""
    try:
        signed = token("EdDSA", **claims)
    except (TypeError, OverflowError, jwt.PyJWTError):
        return  # the library that issues would not even write it
    try:
        subject = await checking.verify(signed)
    except Unauthenticated:
        return
    assert subject.tenant
    assert subject.tenant.isprintable()
    assert "system" not in subject.roles


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"alg": "none"}, "ES256|not for signatures by none"),
        ({"alg": "HS256"}, "not for signatures by HS256"),
        ({"alg": "RS256"}, "not for signatures by RS256"),
        ({"alg": ["ES256"]}, "no text|[Aa]lg"),
        ({"alg": None}, "no text|[Aa]lg"),
        ({"kid": None}, "kid|[Kk]ey ID"),
        ({"kid": "another"}, "does not have"),
        ({"kid": 7}, "kid|[Kk]ey ID"),
        ({"typ": "dpop+jwt"}, "typ"),
        ({"typ": "logout+jwt"}, "typ"),
        ({"typ": 1}, "typ"),
        ({"crit": ["exp"], "exp": 1}, "crit"),
        ({"crit": []}, "crit"),
        ({"b64": False, "crit": ["b64"]}, "b64|crit"),
    ],
)
async def test_a_header_that_asks_for_something_else_is_refused(
    checking: Verifier, changed: dict[str, Any], words: str
) -> None:
    """Though the signature fits what it says."""
    header = {"typ": "JWT", "alg": "ES256", "kid": "ES256", **changed}
    head = f"{part(header)}.{part({**CLAIMS, 'exp': int(time()) + 600})}"
    signature = jwt.get_algorithm_by_name("ES256").sign(head.encode(), KEYS["ES256"])

    with pytest.raises(Unauthenticated, match=words):
        await checking.verify(f"{head}.{part(signature)}")


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
async def test_access_tokens_are_taken(checking: Verifier, typ: str) -> None:
    whole = {**CLAIMS, "exp": int(time()) + 600}

    assert await checking.verify(jwt.encode(whole, KEYS["ES256"], "ES256", {"kid": "ES256", "typ": typ}))


async def test_an_overlong_token_is_refused_unread(checking: Verifier) -> None:
    """Before any of its parts is decoded, let alone its signature checked."""
    whole = token("RS256", padding="x" * LONGEST)

    with pytest.raises(Unauthenticated, match=f"more than {LONGEST} characters"):
        await checking.verify(whole)
    assert await checking.verify(token("RS256", padding="x" * 4000))


async def test_a_deep_token_is_refused(checking: Verifier) -> None:
    """Nested so deep that a parser gives up."""
    with pytest.raises(Unauthenticated):
        await checking.verify(f"{part(b'[' * 2900)}.{part(b'{}')}.{part(b'x')}")
    with pytest.raises(Unauthenticated):
        await checking.verify(f"{part({'alg': 'ES256'})}.{part(b'[' * 2900)}.{part(b'x')}")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": float("inf")},
        {"exp": "soon"},
        {"exp": -(10**30)},
        {"exp": At(-31)},
        {"nbf": At(40)},
        {"iat": At(40)},
        {"iat": "x"},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "x" * 256},
        {"sub": 7},
        {"aud": []},
        {"aud": ["other"]},
        {"iss": "https://id.example/"},
        {"iss": tokens.LOCAL},
    ],
)
async def test_signed_nonsense_is_refused(checking: Verifier, claims: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        await checking.verify(token("EdDSA", **claims))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": At(-20)},
        {"nbf": At(25)},
        {"iat": At(25)},
        {"aud": ["other", "convergedon"]},
    ],
)
async def test_clocks_may_differ_a_little(checking: Verifier, claims: dict[str, Any]) -> None:
    assert await checking.verify(token("EdDSA", **claims))


def test_the_local_issuer_numbers_its_tokens(tmp_path: Path) -> None:
    """Each has an id of its own, and says when it was issued."""
    read = ours.load(data=tmp_path)
    ids = set()
    for _ in range(3):
        claims = json.loads(urlsafe_b64decode(tokens.issue(read, "acme", "csr").split(".")[1] + "=="))
        ids.add(claims["jti"])
        assert abs(claims["iat"] - time()) < 5

    assert len(ids) == 3
