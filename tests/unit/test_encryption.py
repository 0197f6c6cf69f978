"""Every server of ours by TLS: real ones on loopback, with certificates that are right, wrong, or somebody else's."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import nkeys
import pytest
from issuer import SigningIssuer

from convergedon.core import embedded, peers, settings
from convergedon.core.bus import NatsBus
from convergedon.core.engines import OpaServer
from convergedon.core.errors import Misconfigured, Unavailable
from convergedon.core.settings import Settings
from convergedon.core.store import Kind, MongoStore
from convergedon.core.tokens import Verifier
from convergedon.core.up import probe
from tests.certificates import Authority, Shown, serving

KIND = Kind("thing", ())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One that signs as well, and that nobody here trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def shown(authority: Authority) -> Shown:
    return authority.issue("localhost", "127.0.0.1", name="server")


@pytest.fixture(scope="module")
def elsewhere(authority: Authority) -> Shown:
    """A good certificate, of another host."""
    return authority.issue("elsewhere.example", name="elsewhere")


# NATS


@contextmanager
def nats_server(folder: Path, more: str) -> Iterator[int]:
    """A real nats-server whose configuration says more than the embedded one's."""
    command = embedded.nats_command(folder)
    config = Path(command.argv[-1])
    lines = [line for line in config.read_text().splitlines() if not line.startswith("authorization")]
    config.write_text("\n".join([*lines, more, ""]))
    port = int(command.address.rpartition(":")[2])
    with command.log.open("ab") as log, subprocess.Popen(command.argv, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 20
            while embedded.is_free(port):
                assert process.poll() is None, command.log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()


def tls(shown: Shown, clients: Path | None = None) -> str:
    verify = f', ca_file: "{clients}", verify: true' if clients else ""
    return f'tls {{ cert_file: "{shown.cert}", key_file: "{shown.key}"{verify}, timeout: 5 }}'


@asynccontextmanager
async def bus(given: Settings) -> AsyncIterator[NatsBus]:
    made = NatsBus(given.nats_url.get_secret_value(), "test", options=peers.nats_options(given))
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def open_bus(given: Settings) -> None:
    async with bus(given):
        pass


async def all_refuse(words: str, *questions: Awaitable[None]) -> None:
    """Each is answered so, in one line; side by side, as each tries for some seconds."""
    for answer in await asyncio.gather(*questions, return_exceptions=True):
        assert isinstance(answer, Unavailable), answer
        assert re.search(words, str(answer)), answer
        assert "\n" not in str(answer)


async def nats_refuses(words: str, *given: Settings) -> None:
    """The role says why, and so does `up` before it starts anything."""
    await all_refuse(words, *map(open_bus, given), *(probe(one, 2) for one in given))


def at(port: int, scheme: str = "tls", user: str = "", **given: Any) -> Settings:
    return settings.load(nats_url=f"{scheme}://{user}localhost:{port}", **given)


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_nats_is_reached_by_tls(tmp_path: Path, authority: Authority, shown: Shown, scheme: str) -> None:
    with nats_server(tmp_path, tls(shown)) as port:
        given = at(port, scheme, nats_ca=authority.file)
        await probe(given)
        async with bus(given) as made:
            await made.publish("event.x", {"a": 1}, "1")
            assert await made.read("event.x") == [{"a": 1}]


async def test_a_nats_server_of_somebody_else_is_refused(tmp_path: Path, stranger: Authority, shown: Shown) -> None:
    with nats_server(tmp_path, tls(shown)) as port:
        await nats_refuses("its certificate is not accepted", at(port, nats_ca=stranger.file), at(port))


async def test_a_nats_server_of_another_name_is_refused(tmp_path: Path, authority: Authority, elsewhere: Shown) -> None:
    with nats_server(tmp_path, tls(elsewhere)) as port:
        await nats_refuses("[Hh]ostname mismatch", at(port, nats_ca=authority.file))


async def test_tls_is_not_given_up_because_a_server_has_none(tmp_path: Path, authority: Authority) -> None:
    """Neither password nor message goes over the wire in the clear because somebody says that there is no TLS."""
    heard = b""

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        writer.write(b'INFO {"server_id":"x","version":"2.15.0","max_payload":1000,"auth_required":true}\r\n')
        heard += await reader.read()
        writer.close()

    server = await asyncio.start_server(pretend, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        given = at(port, user="anna:s3cret@"), at(port, "nats", "anna:s3cret@", nats_ca=authority.file)
        await nats_refuses("does not speak TLS", *given)

    assert heard == b""


async def test_nats_asks_for_our_certificate(tmp_path: Path, authority: Authority, shown: Shown) -> None:
    ours = authority.issue(name="gateway")
    with nats_server(tmp_path, tls(shown, authority.file)) as port:
        async with bus(at(port, nats_ca=authority.file, nats_cert=ours.cert, nats_key=ours.key)) as made:
            await made.ping()
        async with bus(at(port, nats_ca=authority.file, nats_cert=ours.both)) as made:
            await made.ping()
        with pytest.raises(Unavailable):
            async with bus(at(port, nats_ca=authority.file)):
                pass


async def test_nats_is_told_a_password(tmp_path: Path) -> None:
    with nats_server(tmp_path, 'authorization { user: anna, password: "s3cret-word" }') as port:
        async with bus(at(port, "nats", "anna:s3cret-word@")) as made:
            await made.ping()
        with pytest.raises(Unavailable, match="Authorization Violation") as refused:
            async with bus(at(port, "nats", "anna:wr0ng-one@")):
                pass

    assert "wr0ng" not in str(refused.value)


async def test_nats_is_shown_an_nkey(tmp_path: Path) -> None:
    pair = nkeys.from_seed(nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER))
    seed = tmp_path / "gateway.nk"
    seed.write_bytes(bytes(pair.seed))
    with nats_server(
        tmp_path / "server", f"authorization {{ users: [{{ nkey: {pair.public_key.decode()} }}] }}"
    ) as port:
        async with bus(at(port, "nats", nats_seed=seed)) as made:
            await made.ping()
        with pytest.raises(Unavailable, match="Authorization Violation"):
            async with bus(at(port, "nats")):
                pass


def signed_by(seed: bytes, subject: str, said: Mapping[str, Any]) -> str:
    """A NATS JWT (version 2), which an Ed25519 key signs."""
    pair = nkeys.from_seed(bytearray(seed))
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    claims = {"jti": "x", "iat": int(time.time()), "iss": pair.public_key.decode(), "sub": subject, "nats": said}
    text = ".".join(part(json.dumps(one).encode()) for one in (head, claims))
    return f"{text}.{part(pair.sign(text.encode()))}"


def part(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


async def test_nats_is_shown_credentials(tmp_path: Path, authority: Authority, shown: Shown) -> None:
    """A server of an operator, by TLS: it lets in whoever has the .creds of a user of the account."""
    seeds = {
        kind: bytes(nkeys.encode_seed(bytes([number] * 32), prefix))
        for number, (kind, prefix) in enumerate(
            [
                ("operator", nkeys.PREFIX_BYTE_OPERATOR),
                ("account", nkeys.PREFIX_BYTE_ACCOUNT),
                ("system", nkeys.PREFIX_BYTE_ACCOUNT),
                ("user", nkeys.PREFIX_BYTE_USER),
                ("other", nkeys.PREFIX_BYTE_USER),
            ]
        )
    }
    public = {kind: nkeys.from_seed(bytearray(seed)).public_key.decode() for kind, seed in seeds.items()}
    unlimited = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    stored = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    operator = signed_by(seeds["operator"], public["operator"], {"type": "operator", "version": 2})
    accounts = {
        name: signed_by(
            seeds["operator"],
            public[name],
            {"type": "account", "version": 2, "limits": {**unlimited, **more, "wildcards": True}},
        )
        for name, more in (("account", stored), ("system", {}))
    }
    user = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
    for name in ("user", "other"):
        jwt_ = signed_by(seeds["account"], public["user"], user)
        (tmp_path / f"{name}.creds").write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt_}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seeds[name].decode()}\n------END USER NKEY SEED------\n"
        )
    preloaded = ", ".join(f"{public[name]}: {told}" for name, told in accounts.items())
    trusted = f"operator: {operator}\nsystem_account: {public['system']}\nresolver: MEMORY"
    more = f"{trusted}\nresolver_preload {{ {preloaded} }}\n{tls(shown)}"
    with nats_server(tmp_path / "server", more) as port:
        async with bus(at(port, nats_ca=authority.file, nats_creds=tmp_path / "user.creds")) as made:
            await made.publish("event.x", {"a": 1}, "1")
        with pytest.raises(Unavailable, match="Authorization Violation"):
            async with bus(at(port, nats_ca=authority.file, nats_creds=tmp_path / "other.creds")):
                pass


@pytest.mark.parametrize("name", ["creds", "seed"])
def test_a_key_for_nats_that_is_none_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").write_text("nothing")
    for file in ("missing", "empty"):
        with pytest.raises(Misconfigured, match=f"CONVERGEDON_NATS_{name.upper()}"):
            peers.nats_options(settings.load(**{f"nats_{name}": tmp_path / file}))


# MongoDB


@asynccontextmanager
async def mongodb(folder: Path, shown: Shown, clients: Path | None = None) -> AsyncIterator[int]:
    """The store that is embedded, told to speak TLS and to want no password."""
    command = embedded.mongodb_command(folder)
    plain = [sys.executable, "-P", "-m", "secantus", *command.argv[5:], "--storage-path", folder / "store"]
    more = ["--tls-cert-file", shown.cert, "--tls-key-file", shown.key]
    more += ["--tls-ca-file", clients, "--tls-require-client-cert"] if clients else []
    port = int(command.address.rpartition(":")[2])
    with command.log.open("ab") as log, subprocess.Popen([*plain, *more], stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 30
            while embedded.is_free(port):
                assert process.poll() is None, command.log.read_text()
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            yield port
        finally:
            process.kill()


@asynccontextmanager
async def store(given: Settings) -> AsyncIterator[MongoStore]:
    options = peers.mongodb_options(given)
    made = MongoStore(given.mongodb_url.get_secret_value(), "test", [KIND], options=options)
    try:
        await made.open()
        yield made
    finally:
        await made.close()


async def open_store(given: Settings) -> None:
    async with store(given):
        pass


def database(port: int, more: str = "", host: str = "localhost", **given: Any) -> Settings:
    return settings.load(mongodb_url=f"mongodb://{host}:{port}/?directConnection=true{more}", **given)


async def test_mongodb_is_reached_by_tls(
    tmp_path: Path, authority: Authority, stranger: Authority, shown: Shown
) -> None:
    """By settings or by its URL; not with the wrong authority, nor without any, nor in the clear."""
    async with mongodb(tmp_path, shown) as port:
        for given in (
            database(port, mongodb_ca=authority.file),
            database(port, f"&tls=true&tlsCAFile={authority.file}"),
        ):
            await probe(given)
            async with store(given) as made:
                await made.ping()
        wrong = (database(port, mongodb_ca=stranger.file), database(port, "&tls=true"))
        await all_refuse("its certificate is not accepted", *map(open_store, wrong), *map(probe, wrong))


async def test_mongodb_of_another_name_is_refused(tmp_path: Path, authority: Authority, elsewhere: Shown) -> None:
    async with mongodb(tmp_path, elsewhere) as port:
        with pytest.raises(Unavailable, match="Hostname mismatch"):
            async with store(database(port, mongodb_ca=authority.file)):
                pass


async def test_mongodb_asks_for_our_certificate(tmp_path: Path, authority: Authority, shown: Shown) -> None:
    ours = authority.issue(name="gateway-db")
    async with mongodb(tmp_path, shown, authority.file) as port:
        async with store(database(port, mongodb_ca=authority.file, mongodb_cert=ours.both)) as made:
            await made.ping()
        with pytest.raises(Unavailable):
            async with store(database(port, mongodb_ca=authority.file)):
                pass


@pytest.mark.parametrize(
    "more", ["&tlsInsecure=true", "&tlsAllowInvalidCertificates=true", "&tls=true&tlsAllowInvalidHostnames=true"]
)
def test_mongodb_is_never_taken_unverified(more: str) -> None:
    with pytest.raises(Misconfigured, match="would take any server for yours"):
        peers.mongodb_options(database(1, more))


# Open Policy Agent


class Decider:
    """Answers as an Open Policy Agent does, to those who bear the token."""

    def __init__(self, token: str = "") -> None:
        self._expected = f"authorization: bearer {token}" if token else ""
        self.heads: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(
                next(line.split(":")[1] for line in head.splitlines() if line.lower().startswith("content-le"))
            )
            await reader.readexactly(length)
            self.heads.append(head)
            good = self._expected in head.lower()
            body = json.dumps({"result": {"allow": True}} if good else {"code": "unauthorized"}).encode()
            status = b"200 OK" if good else b"401 Unauthorized"
            writer.write(
                b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
                % (status, len(body))
                + body
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def deciding(context: ssl.SSLContext, decider: Decider) -> AsyncIterator[str]:
    server = await asyncio.start_server(decider, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


async def asked(given: Settings) -> Any:
    server = OpaServer(given.opa_url, wait=20, **peers.opa_options(given))
    try:
        return await server.evaluate({})
    finally:
        await server.close()


async def test_opa_is_reached_by_tls_and_shown_a_token(tmp_path: Path, authority: Authority, shown: Shown) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    decider = Decider("s3cret")
    async with deciding(serving(shown), decider) as url:
        assert await asked(settings.load(opa_url=url, opa_ca=authority.file, opa_token="s3cret")) == {"allow": True}
        with pytest.raises(Unavailable) as refused:
            await asked(settings.load(opa_url=url, opa_ca=authority.file, opa_token="other-s3cret"))

    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("wrong", ["authority", "nobody", "host"])
async def test_an_opa_server_that_cannot_be_verified_decides_nothing(
    authority: Authority, stranger: Authority, shown: Shown, elsewhere: Shown, wrong: str
) -> None:
    decider = Decider()
    ca = {"authority": stranger.file, "nobody": None, "host": authority.file}[wrong]
    async with deciding(serving(elsewhere if wrong == "host" else shown), decider) as url:
        given = settings.load(opa_url=url, opa_ca=ca)
        for question in (asked, probe):
            with pytest.raises(Unavailable, match="its certificate is not accepted") as refused:
                await question(given)
            assert "\n" not in str(refused.value)

    assert decider.heads == []


# The issuer


async def test_the_issuers_keys_come_by_tls(
    tmp_path: Path, authority: Authority, stranger: Authority, shown: Shown, elsewhere: Shown
) -> None:
    """And from the issuer alone: with the wrong authority or name nothing is ready, and the reason is said."""
    for certificate, ca, words in (
        (shown, authority.file, ""),
        (shown, stranger.file, "its certificate is not accepted"),
        (shown, None, "its certificate is not accepted"),
        (elsewhere, authority.file, "IP address mismatch"),
    ):
        async with SigningIssuer().listening(serving(certificate)) as issuer:
            issuer.has("one")
            checking = Verifier(settings.load(data=tmp_path, issuer=issuer.url, jwks_ca=ca))
            if not words:
                assert await checking.verify(issuer.token("one"))
                await checking.ping()
                continue
            with pytest.raises(Unavailable, match=words):
                await checking.ping()
            with pytest.raises(Unavailable, match=words):
                await checking.verify(issuer.token("one"))
            assert issuer.asked == []


@pytest.mark.parametrize("name", ["nats_ca", "nats_cert", "mongodb_ca", "mongodb_cert", "opa_ca"])
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, name: str) -> None:
    """It names the setting and the file."""
    file = tmp_path / "some.pem"
    for content in (None, "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        if content is not None:
            file.write_text(content)
        given = settings.load(opa_url="https://localhost", **{name: file})
        options = {"n": peers.nats_options, "m": peers.mongodb_options, "o": peers.opa_options}[name[0]]
        with pytest.raises(Misconfigured, match=f"CONVERGEDON_{name.upper()}.*some.pem") as refused:
            options(given)
        assert "\n" not in str(refused.value)


# A whole gateway


@asynccontextmanager
async def role(data: Path, **env: Any) -> AsyncIterator[str]:
    """`convergedon gateway` on a free port; gives its address."""
    command = [sys.executable, "-P", "-m", "convergedon.core.cli", "gateway", "--data", str(data), "--port", "0"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONVERGEDON_")}
    told = {f"CONVERGEDON_{name.upper()}": str(value) for name, value in env.items()}
    process = await asyncio.create_subprocess_exec(
        *command, env={**clean, **told}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["address"]
    finally:
        process.terminate()
        await process.wait()


async def test_a_gateway_speaks_tls_on_every_side(tmp_path: Path, authority: Authority, shown: Shown) -> None:
    """With its clients, its bus, its store and its issuer."""
    issuer, trusting = SigningIssuer(), ssl.create_default_context(cafile=authority.file)
    async with issuer.listening(serving(shown)), mongodb(tmp_path / "mongodb", shown) as store_port:
        issuer.has("one")
        env = {
            "issuer": issuer.url,
            "jwks_ca": authority.file,
            "mongodb_url": f"mongodb://localhost:{store_port}/?directConnection=true",
            "mongodb_ca": authority.file,
            "nats_ca": authority.file,
            "tls_cert": shown.cert,
            "tls_key": shown.key,
        }
        with nats_server(tmp_path / "nats", tls(shown)) as bus_port:
            env["nats_url"] = f"tls://localhost:{bus_port}"
            async with role(tmp_path / "data", **env) as address, httpx.AsyncClient(verify=trusting) as client:
                base, token = f"https://{address}", issuer.token("one", roles=["admin"])
                ready = (await client.get(f"{base}/readyz")).json()["components"]
                orders = await client.get(
                    f"{base}/tmf-api/productOrderingManagement/v4/productOrder",
                    headers={"Authorization": f"Bearer {token}"},
                )

    assert {name: ready[name]["state"] for name in ("store", "bus", "issuer")} == dict.fromkeys(
        ("store", "bus", "issuer"), "ready"
    )
    assert (orders.status_code, orders.json()) == (200, [])
    assert orders.headers["strict-transport-security"]


async def test_a_gateway_without_its_issuer_is_not_ready(
    tmp_path: Path, nats_url: str, mongodb_url: str, authority: Authority, elsewhere: Shown
) -> None:
    """It says of whom it would take the word for, and why it does not; calls are refused with 503."""
    issuer = SigningIssuer()
    async with issuer.listening(serving(elsewhere)):
        issuer.has("one")
        env = {"issuer": issuer.url, "jwks_ca": authority.file, "nats_url": nats_url, "mongodb_url": mongodb_url}
        async with role(tmp_path, **env) as address, httpx.AsyncClient() as client:
            ready = await client.get(f"http://{address}/readyz")
            refused = await client.get(
                f"http://{address}/tmf-api/productOrderingManagement/v4/productOrder",
                headers={"Authorization": f"Bearer {issuer.token('one')}"},
            )

    assert ready.status_code == 503
    assert "its certificate is not accepted: IP address mismatch" in ready.json()["components"]["issuer"]["reason"]
    assert (refused.status_code, refused.json()["code"]) == (503, "ERR503")
    assert issuer.asked == []


async def test_up_says_at_once_what_it_does_not_trust(tmp_path: Path, stranger: Authority, shown: Shown) -> None:
    """One sentence and an exit code, before anything is started."""
    with nats_server(tmp_path / "nats", tls(shown)) as port:
        env = {"CONVERGEDON_NATS_URL": f"tls://localhost:{port}", "CONVERGEDON_NATS_CA": str(stranger.file)}
        command = [sys.executable, "-P", "-m", "convergedon.core.cli", "up", "--data", str(tmp_path / "data")]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, env={**os.environ, **env}
        )

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "CONVERGEDON_NATS_URL" in done.stderr
    assert "its certificate is not accepted" in done.stderr
