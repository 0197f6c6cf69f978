"""The channels that ship, against a real mail server and a real web service."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from convergedon.core import plugins, settings
from convergedon.core.errors import Misconfigured, Refused, Unavailable
from convergedon.mediation.telling import rules
from convergedon.mediation.telling.channels import discovery
from convergedon.mediation.telling.channels.contract import Channel, Letter, Section
from tests.certificates import Authority
from tests.mailserver import MailServer, mail_server

ADDRESS = "it@northwind.example"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LETTER = Letter(
    "5f3c",
    ADDRESS,
    "Gestört: Internet access",
    "it is disturbed – sorry\n",
    "<p>it is disturbed</p>\n",
    datetime(2026, 3, 2, 17, tzinfo=UTC),
    {"notificationType": "serviceAffected", "id": "7b1e"},
    {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
)


def channel(folder: Path, section: str, **files: str) -> Channel:
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "rules.yaml").write_text(f"channels: {{it: {section}}}")
    given = settings.load(data=folder, notifications=folder / "rules.yaml", callback_networks=["127.0.0.0/8"])
    found = rules.load(given)
    assert found
    return found.channels["it"]


def mail(server: MailServer, rest: str = "security: none") -> str:
    return f"{{kind: email, host: localhost, port: {server.port}, from: 'Example <noc@net.example>', {rest}}}"


async def test_a_letter_is_a_mail_of_both_forms(tmp_path: Path) -> None:
    """Under an id that stays, so that a mailbox can tell a repeat, and so that nobody's holiday answers it."""
    async with mail_server() as server:
        post = channel(tmp_path, mail(server))
        await post.send(LETTER)
        await post.send(LETTER)

    first, second = server.received
    assert first["Message-ID"] == second["Message-ID"] == "<5f3c@net.example>"
    assert (first["From"], first["To"]) == ("Example <noc@net.example>", ADDRESS)
    assert first["Subject"] == "Gestört: Internet access"
    assert first["Date"].datetime == LETTER.sent
    assert first["Auto-Submitted"] == "auto-generated"
    forms = {part.get_content_type(): part.get_content().replace("\r", "") for part in first.iter_parts()}  # type: ignore[attr-defined]
    assert forms == {"text/plain": "it is disturbed – sorry\n", "text/html": "<p>it is disturbed</p>\n"}


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_the_server_is_known_by_its_certificate(tmp_path: Path, security: str) -> None:
    """One that is signed by somebody else is told nothing, neither the password."""
    authority = Authority(tmp_path)
    shown = authority.issue("localhost")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(shown.cert, shown.key)
    login = f"security: {security}, username: us, passwordFile: password"
    async with mail_server(tls, security == "tls", "s3cret") as server:
        known = channel(tmp_path, mail(server, f"{login}, ca: authority.pem"), password="s3cret\n")
        await known.send(LETTER)
        assert server.logins == [("us", "s3cret")]
        assert len(server.received) == 1
        stranger = channel(tmp_path, mail(server, login))
        with pytest.raises(Unavailable, match=r"localhost cannot be used: .*certificate"):
            await stranger.send(LETTER)

        assert len(server.received) == len(server.logins) == 1


async def test_a_server_without_tls_is_told_nothing_where_it_is_wanted(tmp_path: Path) -> None:
    async with mail_server(password="s3cret") as server:
        post = channel(tmp_path, mail(server, "username: us, passwordFile: password"), password="s3cret")
        with pytest.raises(Unavailable, match=r"localhost cannot be used: .*STARTTLS"):
            await post.send(LETTER)

        assert server.logins == []


async def test_a_wrong_password_may_be_mended(tmp_path: Path) -> None:
    """It is the operator's, and no reason to give up what customers are to be told."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    shown = Authority(tmp_path).issue("localhost")
    tls.load_cert_chain(shown.cert, shown.key)
    async with mail_server(tls, password="s3cret") as server:
        login = "username: us, passwordFile: password, ca: authority.pem"
        post = channel(tmp_path, mail(server, login), password="wr0ng")
        with pytest.raises(Unavailable) as refused:
            await post.send(LETTER)

        assert "wr0ng" not in str(refused.value)


@pytest.mark.parametrize(
    ("rcpt", "data", "kind", "words"),
    [
        (f"550 5.1.1 <{ADDRESS}>: no such mailbox", "", Refused, "answered 550: 5.1.1 <[address]>: no such mailbox"),
        (f"450 4.2.1 {ADDRESS} try later", "", Unavailable, "answered 450: 4.2.1 [address] try later"),
        ("", "554 5.7.1 spam", Refused, "answered 554: 5.7.1 spam"),
        ("", "451 4.3.0 disk", Unavailable, "answered 451: 4.3.0 disk"),
    ],
)
async def test_what_the_server_says_decides_whether_it_is_tried_again(
    tmp_path: Path, rcpt: str, data: str, kind: type[Exception], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And nobody reads the address in its words."""
    caplog.set_level(logging.DEBUG)
    async with mail_server() as server:
        server.answers = {ADDRESS: rcpt} if rcpt else {}
        server.content = data or "250 OK"
        post = channel(tmp_path, mail(server))
        with pytest.raises(kind) as refused:
            await post.send(LETTER)

    assert words in str(refused.value)
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("mail")]  # aiosmtpd's
    assert ADDRESS not in "".join([str(refused.value), repr(LETTER), *ours])
    assert refused.value.__cause__ is None


async def test_a_server_that_is_away_or_hangs_costs_its_patience(tmp_path: Path) -> None:
    async with mail_server() as server:
        away = channel(tmp_path, mail(server))
    with pytest.raises(Unavailable, match="localhost cannot be used"):
        await away.send(LETTER)

    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    async with silent:
        server.port = silent.sockets[0].getsockname()[1]
        hangs = channel(tmp_path, mail(server, "security: none, timeout: 0.2"))
        with pytest.raises(Unavailable, match=r"localhost (did not take it within 0.2 s|cannot be used)"):
            await hangs.send(LETTER)
        for writer in writers:
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize(
    "to", ["", "nobody", "a@b.example\nBcc: c@d.example", "a@b.example, c@d.example", "@", "a@-.b\r"]
)
async def test_what_is_no_address_is_refused(tmp_path: Path, to: str) -> None:
    """An order's contact may be anything that somebody wrote."""
    async with mail_server() as server:
        post = channel(tmp_path, mail(server))
        with pytest.raises(Refused, match="no such address"):
            await post.send(Letter("1", to, "x", "y"))

        assert server.received == []


# webhook


@pytest.fixture
async def desk() -> AsyncIterator[tuple[str, list[tuple[dict[str, str], bytes]], dict[str, Any]]]:
    """Where a web service is, what it was posted, and how it answers."""
    got: list[tuple[dict[str, str], bytes]] = []
    how: dict[str, Any] = {"status": 204}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
                headers = {name.lower(): value for name, value in headers.items()}
                got.append((headers, await reader.readexactly(int(headers["content-length"]))))
                writer.write(f"HTTP/1.1 {how['status']} X\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/desk", got, how
    server.close()


def verify(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """As the documentation tells listeners to."""
    page = (Path(__file__).parents[2] / "docs" / "listen.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    given: dict[str, Any] = {}
    exec(code, given)
    return bool(given["verify"](secret, headers, body))


async def test_a_post_is_signed_and_carries_what_may_be_told(tmp_path: Path, desk: Any) -> None:
    url, got, _ = desk
    hook = channel(tmp_path, f"{{kind: webhook, url: '{url}', secretFile: secret}}", secret=SECRET)
    await hook.send(LETTER)
    await hook.close()

    ((headers, body),) = got
    assert verify(SECRET, headers, body)
    assert not verify(SECRET, headers, body.replace(b"sorry", b"happy"))
    assert headers["webhook-id"] == "5f3c"
    assert headers["traceparent"] == LETTER.headers["traceparent"]
    assert b'"type":"serviceAffected"' in body
    assert b'"notification":{"notificationType":"serviceAffected","id":"7b1e"}' in body


@pytest.mark.parametrize(
    ("status", "kind"), [(410, Refused), (404, Unavailable), (503, Unavailable), (301, Unavailable)]
)
async def test_what_the_service_answers_decides_whether_it_is_tried_again(
    tmp_path: Path, desk: Any, status: int, kind: type[Exception]
) -> None:
    url, _, how = desk
    how["status"] = status
    hook = channel(tmp_path, f"{{kind: webhook, url: '{url}', secretFile: secret}}", secret=SECRET)
    with pytest.raises(kind, match=f"answered {status}"):
        await hook.send(LETTER)
    await hook.close()


async def test_a_post_goes_where_callbacks_may(tmp_path: Path) -> None:
    """And the error says nothing of a path, in which many keep a password."""
    for place in ("10.0.0.1", "169.254.169.254"):
        section = f"{{kind: webhook, url: 'http://{place}/s3cret', secretFile: secret}}"
        hook = channel(tmp_path, section, secret=SECRET)
        with pytest.raises(Unavailable, match="CONVERGEDON_CALLBACK_NETWORKS") as refused:
            await hook.send(LETTER)
        await hook.close()
        assert "s3cret" not in str(refused.value)


# plugged in


class Pager:
    addressed, connections, patience = True, 4, 10.0

    def __init__(self, section: Section) -> None:
        self.number, self.paged = section.given["number"], list[str]()

    async def send(self, letter: Letter) -> None:
        self.paged.append(f"{self.number}: {letter.subject}")

    async def close(self) -> None:
        return None


def plugged(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    entry = EntryPoint(name, value, discovery.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == discovery.GROUP else [])


async def test_a_kind_of_somebody_elses_is_one_like_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its section is its own to read."""
    plugged(monkeypatch, "pager", f"{__name__}:Pager")
    pager = channel(tmp_path, "{kind: pager, number: 117}")
    await pager.send(LETTER)

    assert pager.paged == ["117: Gestört: Internet access"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("email", "somebody.else:create", r"channel email of somebody\.else:create has a name that is taken"),
        ("pager", "somebody.else:create", r"channel pager \(somebody\.else:create\) cannot be imported: No module"),
    ],
)
def test_what_cannot_be_plugged_in_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    plugged(monkeypatch, name, value)
    with pytest.raises(Misconfigured, match=words):
        channel(tmp_path, f"{{kind: {name}}}")
