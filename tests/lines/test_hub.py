"""Events reach those who listen: in order, signed, again until they are taken; and whoever does not listen is alone."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from time import monotonic, time
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from scene import STORE_KINDS, Scene, in_memory, on_servers, playing

from convergedon.core import embedded
from convergedon.core.bus import NatsBus
from convergedon.core.errors import Misconfigured, NotFound, Unavailable
from convergedon.core.memory import MemoryStore
from convergedon.core.policy import Subject
from convergedon.core.store import Record
from convergedon.handlers import documents, hub, signing
from convergedon.handlers.apis import APIS
from convergedon.handlers.resource import Api
from convergedon.handlers.usage import API, USAGE_SPECIFICATION
from convergedon.mediation import listeners
from convergedon.mediation.posting import Poster, retry_after
from convergedon.openapi import document

LOOPBACK = [ip_network("127.0.0.0/8")]
DESK = Subject("desk", "acme", ("admin",))


@dataclass
class Heard:
    who: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def event(self) -> dict[str, Any]:
        return dict(orjson.loads(self.body))


Told = tuple[int, Mapping[str, str]]


@dataclass
class Ears:
    """Listeners on loopback, one for each path; ``answer`` says what each is told, None: nothing, ever."""

    url: str = ""
    answer: Callable[[Heard], Told | None] = lambda _: (204, {})
    heard: list[Heard] = field(default_factory=list)

    def of(self, who: str) -> list[dict[str, Any]]:
        return [one.event for one in self.heard if one.who == who]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
                headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                one = Heard(head.split(" ")[1].strip("/"), headers, body, monotonic())
                self.heard.append(one)
                said = self.answer(one)
                if said is None:
                    await asyncio.Event().wait()
                    return
                fields = "".join(f"{name}: {value}\r\n" for name, value in said[1].items())
                writer.write(f"HTTP/1.1 {said[0]} X\r\n{fields}content-length: 0\r\n\r\n".encode())
                await writer.drain()


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server on a free port of loopback."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.add(asyncio.ensure_future(serve(reader, writer)))  # type: ignore[arg-type]

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls, backlog=512)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
async def ears() -> AsyncIterator[Ears]:
    listening = Ears()
    async with serving(listening.serve) as port:
        listening.url = f"http://127.0.0.1:{port}"
        yield listening


Play = Callable[..., AbstractAsyncContextManager[Scene]]


@asynccontextmanager
async def on_nats(folder: Path, store: MemoryStore | None = None, **given: Any) -> AsyncIterator[Scene]:
    """On a bus of its own in the folder, and on a store in memory."""
    folder.mkdir(exist_ok=True)
    with embedded.running(embedded.nats_command(folder / "nats")) as server:
        bus = await NatsBus(server.url, "test").open()
        async with playing(store or MemoryStore(STORE_KINDS), bus, folder, **given) as scene:
            yield scene


@pytest.fixture(params=["memory", "nats"])
def play(request: pytest.FixtureRequest) -> Play:
    return {"memory": in_memory, "nats": on_nats}[request.param]


async def listen(scene: Scene, url: str, query: str = "", who: Subject = DESK, api: Api = API) -> Record:
    mark = signing.signer(scene.work.settings).mark
    return await hub.register(scene.store, hub.subscription(api, who, {"callback": url, "query": query}, mark))


async def happen(scene: Scene, count: int, tenant: str = "acme") -> list[str]:
    """One specification that changes again and again: so many events; returns their descriptions in order."""
    record = await scene.resources.create(USAGE_SPECIFICATION, tenant, {"name": "voice", "description": "0"})
    for number in range(1, count):
        record = await scene.resources.change(USAGE_SPECIFICATION, record, {"description": str(number)})
    return [str(number) for number in range(count)]


def descriptions(events: Sequence[Mapping[str, Any]]) -> list[str]:
    return [event["event"]["usageSpecification"]["description"] for event in events]


async def until(scene: Scene, true: Callable[[], bool], patience: float = 20) -> None:
    async def now() -> bool:
        return true()

    await scene.until(now, patience)


async def parked(scene: Scene) -> list[Any]:
    return [one for one in await scene.bus.parked() if one.stream == "DELIVERY"]


async def test_events_come_in_order_signed_and_with_their_ids(play: Play, ears: Ears, tmp_path: Path) -> None:
    """The signature is over the very bytes that were sent, with the secret that follows from the hub's id."""
    async with play(tmp_path) as scene:
        record = await listen(scene, f"{ears.url}/vendor")
        wanted = await happen(scene, 20)
        await until(scene, lambda: len(ears.of("vendor")) == 20)
        signer = signing.signer(scene.work.settings)

    assert descriptions(ears.of("vendor")) == wanted
    for one in ears.heard:
        sent = {name: value for name, value in one.headers.items() if name.startswith("webhook-")}
        assert sent == signer.headers(record.id, one.event["eventId"], one.body, float(sent["webhook-timestamp"]))
        assert abs(time() - int(sent["webhook-timestamp"])) < 60
        assert one.headers["content-type"] == "application/json"
        documents.schema(API.document, "Event").check(one.event)
    assert len({one.event["eventId"] for one in ears.heard}) == 20


async def test_secrets_are_kept_nowhere(
    play: Play, ears: Ears, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in the record, nor in the log or the audit record, nor on the bus."""
    ears.answer = lambda _: (500, {})
    async with play(tmp_path, delivery_horizon=0.3) as scene:
        record = await listen(scene, f"{ears.url}/vendor?token=hunter2")
        await happen(scene, 1)
        async with asyncio.timeout(20):
            while not await parked(scene):
                await asyncio.sleep(0.02)
        await scene.audit.stop()
        signer = signing.signer(scene.work.settings)
        listed = await listeners.listed(scene.store, scene.bus, signer)
        kept = [record, await parked(scene), await scene.find("audit", tenant=""), await scene.find("audit")]
        said = f"{kept}{capsys.readouterr()}{listed}"

    assert signer.secret(record.id).removeprefix("whsec_") not in said
    assert (tmp_path / "keys" / "hub.key").read_text() not in said
    assert "hunter2" not in f"{kept[1:]}{capsys.readouterr()}{listed}"
    assert listed[0]["callback"] == f"{ears.url}/vendor?token=hunter2".partition("?")[0]
    assert listed[0]["signed"]


async def test_the_query_chooses_events_and_members(play: Play, ears: Ears, tmp_path: Path) -> None:
    """``fields`` leaves id and href and what it names of the resource; the envelope stays whole."""
    async with play(tmp_path) as scene:
        await listen(scene, f"{ears.url}/all")
        await listen(
            scene, f"{ears.url}/some", "eventType=UsageSpecificationAttributeValueChangeEvent&fields=description"
        )
        await happen(scene, 3)
        await until(scene, lambda: len(ears.of("all")) == 3 and len(ears.of("some")) == 2)

    assert descriptions(ears.of("some")) == ["1", "2"]
    for event, whole in zip(ears.of("some"), ears.of("all")[1:], strict=True):
        assert event["event"]["usageSpecification"].keys() == {"id", "href", "description"}
        assert {**event, "event": 0} == {**whole, "event": 0}


@pytest.mark.parametrize("where", ["memory", "nats", "servers"])
async def test_who_registers_hears_all_that_is_written_after_the_answer(
    where: str, request: pytest.FixtureRequest, ears: Ears, tmp_path: Path
) -> None:
    """Also while events pour in, so that listeners are not read anew for each."""
    if where == "servers":
        playing_ = on_servers(tmp_path, request.getfixturevalue("mongodb_url"))
    else:
        playing_ = {"memory": in_memory, "nats": on_nats}[where](tmp_path)
    async with playing_ as scene:

        async def pour() -> None:
            while True:
                await scene.resources.create(USAGE_SPECIFICATION, "acme", {"name": "pour", "description": "pour"})
                await asyncio.sleep(0.02)

        pouring = asyncio.create_task(pour())
        for number in range(12):
            await listen(scene, f"{ears.url}/{number}", f"event.usageSpecification.description=first-{number}")
            body = {"name": "x", "description": f"first-{number}"}
            await scene.resources.create(USAGE_SPECIFICATION, "acme", body)
            await asyncio.sleep(0.013 * number)
        pouring.cancel()
        await until(scene, lambda: len(ears.heard) == 12)

    assert [descriptions(ears.of(str(number))) for number in range(12)] == [[f"first-{n}"] for n in range(12)]


async def test_who_has_unregistered_is_sent_nothing_more(play: Play, ears: Ears, tmp_path: Path) -> None:
    """Not even what was queued for it before."""
    async with play(tmp_path) as scene:
        record = await listen(scene, f"{ears.url}/gone")
        await listen(scene, f"{ears.url}/stays")
        happening = asyncio.create_task(happen(scene, 200))
        await until(scene, lambda: len(ears.of("gone")) > 3)
        await hub.unregister(scene.store, record)
        heard = len(ears.of("gone"))
        await happening
        await until(scene, lambda: len(ears.of("stays")) == 200)
        await scene.worker.look_after()
        async with asyncio.timeout(20):
            while await scene.bus.waiting("DELIVERY"):
                await asyncio.sleep(0.02)

    assert len(ears.of("gone")) == heard < 200


async def test_what_is_queued_survives_worker_and_bus(ears: Ears, tmp_path: Path) -> None:
    """Both end while a listener is away; then it gets everything, in order, with the ids of before."""
    store = MemoryStore(STORE_KINDS)
    ears.answer = lambda _: (503, {})
    async with on_nats(tmp_path, store) as scene:
        await listen(scene, f"{ears.url}/vendor")
        wanted = await happen(scene, 10)
        await until(scene, lambda: len(ears.heard) > 2)

        async def queued() -> bool:
            return sum((await scene.bus.waiting("DELIVERY")).values()) == 10

        await scene.until(queued)
        first = ears.heard[0].event["eventId"]

    ears.heard.clear()
    ears.answer = lambda _: (204, {})
    async with on_nats(tmp_path, store) as scene:
        await until(scene, lambda: len(ears.heard) >= 10)

        async def emptied() -> bool:
            listed = await listeners.listed(store, scene.bus, signing.signer(scene.work.settings))
            return [one["waiting"] for one in listed] == [0]

        await scene.until(emptied)

    assert descriptions(ears.of("vendor")) == wanted
    assert ears.heard[0].event["eventId"] == first


async def test_events_are_delivered_while_the_bus_is_started_again(ears: Ears, tmp_path: Path) -> None:
    """The worker stays; what happens meanwhile waits in the outbox, and nothing is lost or out of order."""
    (tmp_path / "bus").mkdir()
    command = embedded.nats_command(tmp_path / "bus")
    with embedded.running(command) as server:
        bus = await NatsBus(server.url, "test").open()
    async with _restarted(command, bus, tmp_path) as (scene, restart):
        await listen(scene, f"{ears.url}/vendor")
        happening = asyncio.create_task(happen(scene, 30))
        await until(scene, lambda: len(ears.heard) > 5)
        await restart()
        wanted = await happening
        await until(scene, lambda: len({one.event["eventId"] for one in ears.heard}) == 30, 60)

    once = list(dict.fromkeys(descriptions(ears.of("vendor"))))
    assert once == wanted


@asynccontextmanager
async def _restarted(
    command: embedded.Command, bus: NatsBus, folder: Path
) -> AsyncIterator[tuple[Scene, Callable[[], Awaitable[None]]]]:
    running = embedded.running(command)
    await asyncio.to_thread(running.__enter__)

    async def restart() -> None:
        nonlocal running
        await asyncio.to_thread(running.__exit__, None, None, None)
        running = embedded.running(command)
        await asyncio.to_thread(running.__enter__)

    try:
        async with playing(MemoryStore(STORE_KINDS), bus, folder) as scene:
            yield scene, restart
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


async def test_a_listener_says_when_it_wants_to_be_asked_again(play: Play, ears: Ears, tmp_path: Path) -> None:
    """Retry-After of 429 and 503 counts, in seconds; of others it does not."""
    said = iter([(429, {"Retry-After": "2"}), (500, {"Retry-After": "600"})])
    ears.answer = lambda _: next(said, (204, {}))
    async with play(tmp_path) as scene:
        await listen(scene, f"{ears.url}/vendor")
        await happen(scene, 1)
        await until(scene, lambda: len(ears.heard) == 3)

    first, second, third = [one.at for one in ears.heard]
    assert 1.9 < second - first < 5
    assert third - second < 5
    assert len({one.event["eventId"] for one in ears.heard}) == 1


async def test_a_parked_event_holds_up_nobody_and_can_come_back(play: Play, ears: Ears, tmp_path: Path) -> None:
    """It is shown with its reason and counts as a hand-off; put back, it comes with the same eventId."""
    broken = True

    def answer(one: Heard) -> Told:
        return (500, {}) if broken and descriptions([one.event]) == ["1"] else (204, {})

    ears.answer = answer
    async with play(tmp_path, delivery_horizon=1.5) as scene:
        record = await listen(scene, f"{ears.url}/vendor")
        await happen(scene, 3)
        await until(scene, lambda: descriptions(ears.of("vendor"))[-1:] == ["2"])
        (given_up,) = await parked(scene)
        broken = False
        await scene.bus.retry(given_up.id)
        await until(scene, lambda: descriptions(ears.of("vendor"))[-1:] == ["1"])
        await scene.audit.stop()
        told = [one.body for one in await scene.find("audit") if one.body["what"] == "message.parked"]

    assert given_up.reason == f"gave up after 2 s: listener {record.id} answered 500"
    assert [one["on"] for one in told] == [f"delivery.{record.id}"]
    assert {one["eventId"] for one in ears.of("vendor") if descriptions([one]) == ["1"]} == {
        given_up.body["event"]["eventId"]
    }


async def test_a_redirect_is_not_followed(play: Play, ears: Ears, tmp_path: Path) -> None:
    """It counts as a failure, and the reason says so."""
    ears.answer = lambda one: (307, {"Location": f"{ears.url}/inside"}) if one.who == "vendor" else (204, {})
    async with play(tmp_path, delivery_horizon=0.3) as scene:
        await listen(scene, f"{ears.url}/vendor")
        await happen(scene, 1)
        async with asyncio.timeout(20):
            while not (given_up := await parked(scene)):
                await asyncio.sleep(0.02)

    assert "answered 307: redirects are not followed" in given_up[0].reason
    assert ears.of("inside") == []


async def test_proxies_of_the_environment_are_not_used(
    ears: Ears, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would call what was not checked."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with in_memory(tmp_path) as scene:
        await listen(scene, f"{ears.url}/vendor")
        await happen(scene, 1)
        await until(scene, lambda: len(ears.heard) == 1)


COUNT, EACH = 100, 10


async def test_one_dead_and_one_that_hangs_hold_up_nobody(ears: Ears, tmp_path: Path) -> None:
    """98 of 100 get everything in order, on real servers, before the one that hangs has cost its first patience.

    That is longer here than on a busy machine the others take.
    """
    ears.answer = lambda one: None if one.who == "hangs" else (204, {})
    async with on_nats(tmp_path) as scene:
        scene.worker._delivery._poster._patience = 120.0
        urls = [f"{ears.url}/{number}" for number in range(COUNT - 2)] + ["http://127.0.0.1:9/", f"{ears.url}/hangs"]
        await asyncio.gather(*(listen(scene, url) for url in urls))
        wanted = await happen(scene, EACH)
        await until(scene, lambda: sum(one.who != "hangs" for one in ears.heard) >= (COUNT - 2) * EACH, 60)

        async def left() -> bool:
            return sorted((await scene.bus.waiting("DELIVERY")).values()) == [EACH, EACH]

        await scene.until(left)

    assert all(descriptions(ears.of(str(number))) == wanted for number in range(COUNT - 2))
    assert len(ears.of("hangs")) == 1


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for character in b"HTTP/1.1 204 No Content\r\n" + b"X-Drip: drip\r\n" * 1000:
        writer.write(bytes([character]))
        await asyncio.sleep(0.05)


async def _hinting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("serve", [_silent, _dripping, _hinting])
async def test_a_post_ends_in_time(serve: Any) -> None:
    """Whatever the listener does to keep it going."""
    async with serving(serve) as port:
        poster, begun = Poster(LOOPBACK, 0.5), monotonic()
        with pytest.raises(Unavailable, match=r"no whole answer within 0\.5 s"):
            await poster.post("hub", f"http://127.0.0.1:{port}/", b"{}", {})
        await poster.close()

    assert monotonic() - begun < 3


async def test_of_a_long_answer_little_is_read() -> None:
    """It counts by its status, and the connection is given up."""
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"x" * 10_000)
                await writer.drain()
                sent += 10_000

    async with serving(pour) as port:
        poster = Poster(LOOPBACK)
        answer = await poster.post("hub", f"http://127.0.0.1:{port}/", b"{}", {})
        await poster.close()

    assert answer.status == 200
    assert sent < 20_000_000


async def test_a_connection_serves_again_and_one_that_was_closed_does_not(ears: Ears) -> None:
    """One connection for one listener, however many events."""
    connections = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await ears.serve(reader, writer)

    async with serving(count) as port:
        poster, url = Poster(LOOPBACK), f"http://127.0.0.1:{port}/x"
        for _ in range(5):
            await poster.post("hub", url, b"{}", {})
        await poster.tidy()
        await poster.post("hub", url, b"{}", {})
        before = connections
        ears.answer = lambda _: (204, {"connection": "close"})
        for _ in range(2):
            await poster.post("hub", url, b"{}", {})
        await poster.close()

    assert (before, connections) == (1, 2)


def names(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Have every name mean each of these addresses in turn, the last for ever; returns what was asked."""
    asked: list[str] = []

    def look_up(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        address = answers[min(len(asked), len(answers)) - 1]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


async def test_the_address_that_was_checked_is_the_one_that_is_called(
    ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is looked up once for a connection, so it cannot mean something else when it is connected to."""
    asked = names(monkeypatch, "127.0.0.1", "169.254.169.254")
    port = ears.url.rpartition(":")[2]
    poster = Poster(LOOPBACK)
    answer = await poster.post("hub", f"http://crm.example:{port}/vendor", b"{}", {})
    await poster.close()

    assert answer.status == 204
    assert asked == ["crm.example"]
    assert ears.heard[0].headers["host"] == f"crm.example:{port}"


@pytest.mark.parametrize(
    "address", ["127.0.0.2", "169.254.169.254", "10.0.0.1", "::1", "64:ff9b::7f00:1", "100.64.1.1"]
)
async def test_a_name_that_has_come_to_mean_another_place_is_not_called(
    address: str, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was right at registration; what it is now counts."""
    names(monkeypatch, "127.0.0.1", address)
    allowed, url = [ip_network("127.0.0.1/32")], f"http://crm.example:{ears.url.rpartition(':')[2]}/vendor"
    await hub.check_callback(url, allowed)
    poster = Poster(allowed)

    with pytest.raises(Unavailable, match=r"callbacks to .* are not allowed"):
        await poster.post("hub", url, b"{}", {})

    await poster.close()
    assert ears.heard == []


def authority(folder: Path, name: str) -> ssl.SSLContext:
    """A server's certificate for a name, signed by an authority whose certificate is in the folder."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    now = datetime.now(UTC)
    made = []
    for subject, key, top in (("authority", keys[0], True), (name, keys[1], False)):
        builder = x509.CertificateBuilder().issuer_name(issuer).serial_number(x509.random_serial_number())
        builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(top, None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        made.append(builder.public_key(key.public_key()).sign(keys[0], hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / "authority.pem").write_bytes(made[0])
    private = keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(made[1] + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


async def test_the_certificate_is_that_of_the_name(ears: Ears, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though an address is connected to: SNI and check are by the callback's name."""
    context = authority(tmp_path, "crm.example")
    shown: list[str | None] = []
    context.sni_callback = lambda _, name, __: shown.append(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    names(monkeypatch, "127.0.0.1")
    async with serving(ears.serve, context) as port:
        poster = Poster(LOOPBACK)
        answer = await poster.post("hub", f"https://crm.example:{port}/vendor", b"{}", {})
        with pytest.raises(Unavailable, match="certificate"):
            await poster.post("other", f"https://other.example:{port}/vendor", b"{}", {})
        await poster.close()

    assert answer.status == 204
    assert shown == ["crm.example", "other.example"]
    assert len(ears.heard) == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30),
        ("Wed, 21 Oct 2026 07:27:30 GMT", -30),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 400, float("inf")),
    ],
)
def test_what_retry_after_says(said: str, seconds: float | None) -> None:
    """RFC 9110: seconds or a date; anything else is as if it were not there."""
    assert retry_after(said, datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == seconds


async def test_what_happened_can_be_told_again_since_a_time(play: Play, ears: Ears, tmp_path: Path) -> None:
    """As the listener asked for it and may hear it, in order, with the ids of the first time; nothing of others."""
    async with play(tmp_path) as scene:
        await listen(scene, f"{ears.url}/always")
        await happen(scene, 3)
        await scene.resources.create(USAGE_SPECIFICATION, "globex", {"name": "theirs"})
        await until(scene, lambda: len(ears.of("always")) == 3)
        await asyncio.sleep(0.02)
        start = time()
        wanted = await happen(scene, 5)
        await until(scene, lambda: len(ears.of("always")) == 8)
        query = "eventType=UsageSpecificationAttributeValueChangeEvent"
        late = await listen(scene, f"{ears.url}/late", query)
        nobody = await listen(scene, f"{ears.url}/nobody", who=Subject("nobody", "acme", ("stranger",)))
        elsewhere = await listen(scene, f"{ears.url}/elsewhere", api=APIS[0])
        work = scene.work
        counts = [
            await listeners.replay(scene.store, scene.bus, work.policy, one.id, start)
            for one in (late, late, nobody, elsewhere)
        ]
        await scene.worker.look_after()
        await until(scene, lambda: len(ears.of("late")) == 8)
        with pytest.raises(NotFound, match="there is no hub nix"):
            await listeners.replay(scene.store, scene.bus, work.policy, "nix", start)

    assert counts == [4, 4, 0, 0]
    assert descriptions(ears.of("late")) == wanted[1:] * 2
    ids = [event["eventId"] for event in ears.of("always")][4:]
    assert [event["eventId"] for event in ears.of("late")] == ids * 2
    assert not ears.of("nobody") + ears.of("elsewhere")


LISTENED_TO = [api for api in APIS if "/hub" in document(api.document)["paths"]]


@pytest.mark.parametrize("api", LISTENED_TO, ids=lambda api: api.document)
async def test_a_test_event_is_one_by_the_document_and_says_what_it_is(api: Api, ears: Ears, tmp_path: Path) -> None:
    """Signed as all others; what the listener answered is one sentence."""
    async with in_memory(tmp_path) as scene:
        record = await listen(scene, f"{ears.url}/vendor", api=api)
        said = await listeners.test(scene.store, scene.work.settings, record.id)
        ears.answer = lambda _: (302, {})
        with pytest.raises(Unavailable, match=f"listener {record.id} answered 302: redirects are not followed after"):
            await listeners.test(scene.store, scene.work.settings, record.id)
        with pytest.raises(NotFound, match="there is no hub nix"):
            await listeners.test(scene.store, scene.work.settings, "nix")
        other = scene.work.settings.model_copy(update={"data": tmp_path / "other"})
        with pytest.raises(Misconfigured, match="another key"):
            await listeners.test(scene.store, other, record.id)

    (event, _) = ears.of("vendor")
    documents.schema(api.document, "Event").check(event)
    assert event["eventType"] == "HubTestEvent"
    assert said.startswith(f"listener {record.id} answered 204 after 0.")
    assert ears.heard[0].headers["webhook-signature"].startswith("v1,")


async def test_an_operator_sees_tests_and_replays_by_command(ears: Ears, tmp_path: Path, mongodb_url: str) -> None:
    """One sentence and an exit code each; JSON a line for what is listed."""
    async with on_servers(tmp_path, mongodb_url) as scene:
        record = await listen(scene, f"{ears.url}/vendor")
        await happen(scene, 2)
        await until(scene, lambda: len(ears.heard) == 2)
        servers = {
            "CONVERGEDON_NATS_URL": f"nats://{scene.bus._client.connected_url.netloc}",
            "CONVERGEDON_MONGODB_URL": mongodb_url,
            "CONVERGEDON_DATABASE": scene.store._database,  # type: ignore[attr-defined]
            "CONVERGEDON_CALLBACK_NETWORKS": "127.0.0.0/8",
        }

        async def ask(*words: str) -> tuple[int | None, str]:
            command = (sys.executable, "-P", "-m", "convergedon.core.cli", "hub", *words, "--data", str(tmp_path))
            pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
            process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **servers}, **pipes)
            return (await process.communicate())[0].decode(), process.returncode  # type: ignore[return-value]

        listed, tested, unknown = await asyncio.gather(ask("list"), ask("test", record.id), ask("test", "nix"))
        again = await ask("replay", record.id, "--from", "2020-01-01T00:00:00Z")
        lost, bare = await asyncio.gather(
            ask("replay", "nix", "--from", "2020-01-01T00:00:00Z"), ask("replay", record.id, "--from", "yesterday")
        )
        await until(scene, lambda: len(ears.heard) == 5)

    (one,) = [orjson.loads(line) for line in listed[0].splitlines()]
    assert (one["id"], one["waiting"], one["signed"], listed[1]) == (record.id, 0, True, 0)
    assert tested[0].startswith(f"listener {record.id} answered 204")
    assert (tested[1], unknown) == (0, ("there is no hub nix\n", 1))
    assert again == (f"2 events since 2020-01-01T00:00:00+00:00 are queued again for hub {record.id}\n", 0)
    assert lost == ("there is no hub nix\n", 1)
    assert bare == ("--from is a time with its zone, for example 2026-05-01T12:00:00Z\n", 78)


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
async def test_public_places_may_be_called(text: str) -> None:
    host = f"[{text}]" if ":" in text else text
    await hub.check_callback(f"https://{host}/events", [])


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.1.2.3", "10.0.0.0/8"),
        ("100.64.0.1", "100.64.0.0/10"),
        ("fd00::1", "fd00::/8"),
        ("64:ff9b::808:808", "64:ff9b::/96"),
        ("2002:808:808::1", "2002::/16"),
    ],
)
async def test_special_places_may_be_called_where_the_setting_says_so(text: str, network: str) -> None:
    """And no other."""
    url = f"http://[{text}]/" if ":" in text else f"http://{text}/"
    await hub.check_callback(url, [ip_network(network)])

    with pytest.raises(hub.Invalid):
        await hub.check_callback(url, [ip_network("192.168.0.0/16"), ip_network("fc00::/16")])


@pytest.mark.parametrize("text", ["64:ff9b::a00:1", "2002:a00:1::1", "64:ff9b::a9fe:a9fe"])
async def test_what_a_relay_leads_to_is_looked_at_too(text: str) -> None:
    """A NAT64 that may be used does not lead to private networks."""
    assert ip_address(text)
    with pytest.raises(hub.Invalid):
        await hub.check_callback(f"http://[{text}]/", [ip_network("64:ff9b::/96"), ip_network("2002::/16")])
