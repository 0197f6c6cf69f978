"""A real SMTP server on loopback, for what is sent by mail."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session


@dataclass
class MailServer:
    """``answers`` says how an address is answered that is not to be taken, by RCPT; ``content`` how a message is, by
    DATA, after a ``pause``. ``taken`` is called with each message before it is answered.
    """

    port: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    content: str = "250 OK"
    received: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    password: str = ""
    taken: Callable[[EmailMessage], Any] = lambda _: None
    pause: Callable[[], Awaitable[Any]] = lambda: asyncio.sleep(0)
    bell: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        await self.pause()
        message = message_from_bytes(bytes(envelope.content or b""), policy=policy.default)
        assert isinstance(message, EmailMessage)
        if self.content.startswith("250"):
            async with self.bell:
                self.received.append(message)
                self.recipients += envelope.rcpt_tos
                self.encrypted.append(session.ssl is not None)
                self.bell.notify_all()
        self.taken(message)
        return self.content

    def login(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        user, password = given.login.decode(), given.password.decode()
        self.logins.append((user, password))
        return AuthResult(success=password == self.password, handled=False)

    def of(self, address: str) -> list[EmailMessage]:
        return [message for message in self.received if message["To"] == address]

    async def until(self, condition: Callable[[], bool], patience: float = 20) -> None:
        """Wait until the condition holds for what was received."""
        async with asyncio.timeout(patience), self.bell:
            await self.bell.wait_for(condition)


@asynccontextmanager
async def mail_server(
    tls: ssl.SSLContext | None = None, implicit: bool = False, password: str = ""
) -> AsyncIterator[MailServer]:
    """With ``tls`` it wants STARTTLS, or speaks TLS from the beginning."""
    server = MailServer(password=password)
    login = {"authenticator": server.login, "auth_required": True} if password else {}
    if tls and not implicit:
        login |= {"tls_context": tls, "require_starttls": True}
    protocols: list[SMTP] = []

    def make() -> SMTP:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a password without STARTTLS: it is what a test is about
            encrypts = bool(tls) and not implicit
            protocols.append(SMTP(server, hostname="localhost", auth_require_tls=encrypts, **login))
        return protocols[-1]

    loop = asyncio.get_running_loop()
    listening = await loop.create_server(make, "127.0.0.1", 0, ssl=tls if implicit else None)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for protocol in protocols:
            if protocol.transport is not None:
                protocol.transport.close()
        await asyncio.sleep(0)
