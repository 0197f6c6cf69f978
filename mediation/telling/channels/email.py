"""Letters by SMTP: over TLS with its certificate checked, or in clear to this machine alone."""

from __future__ import annotations

import asyncio
import re
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from ipaddress import ip_address
from typing import Annotated, Literal

import aiosmtplib
from aiosmtplib.errors import (
    SMTPConnectError,
    SMTPDataError,
    SMTPException,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)
from pydantic import Field, StringConstraints

from convergedon.core import strict
from convergedon.core.errors import Refused, Unavailable
from convergedon.mediation.telling.channels.contract import Channel, Letter, Section

PORTS = {"starttls": 587, "tls": 465, "none": 25}
ADDRESS = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+@[\w-]+(?:\.[\w-]+)*", re.ASCII)
"""One address as RFC 5321 has it without quoting; a domain in other letters is written as xn--."""
SHORT = 200
"""Characters of a server's words that are kept."""


class Email(strict.Strict):
    """How to reach a mail server."""

    kind: Literal["email"]
    host: Annotated[str, StringConstraints(min_length=1)]
    port: int | None = Field(None, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    ca: str | None = None
    username: str | None = None
    passwordFile: str | None = None
    passwordEnv: str | None = None
    sender: str = Field(alias="from")
    connections: int = Field(4, ge=1, le=100)
    timeout: float = Field(30, gt=0, le=300, strict=False)


def create(section: Section) -> Channel:
    """Raises Misconfigured."""
    given, password = section.read(Email), section.secret("password")
    if not ADDRESS.fullmatch(parseaddr(given.sender)[1]):
        raise section.wrong("from", "this is no e-mail address")
    if bool(given.username) != bool(password):
        raise section.wrong("username", "a username goes with passwordFile or passwordEnv")
    if given.security == "none" and not _is_here(given.host):
        raise section.wrong("security", "a server that is not on this machine is reached by starttls or tls")
    return EmailChannel(given, password, _tls(section, given))


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(section: Section, given: Email) -> ssl.SSLContext:
    authorities = section.file.parent / given.ca if given.ca else None
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:  # ssl.SSLError is one
        raise section.wrong("ca", "these authorities cannot be read") from error


class EmailChannel:
    addressed = True

    def __init__(self, given: Email, password: str, tls: ssl.SSLContext) -> None:
        self.connections, self.patience = given.connections, given.timeout
        self._given, self._password, self._tls = given, password, tls
        name, self._sender = parseaddr(given.sender)
        self._from = Address(name, addr_spec=self._sender)

    async def send(self, letter: Letter) -> None:
        """A connection for each letter: what goes wrong with one has nothing to do with the next."""
        message = self._message(letter)
        given = self._given
        server = aiosmtplib.SMTP(
            hostname=given.host,
            port=given.port or PORTS[given.security],
            username=given.username,
            password=self._password or None,
            timeout=self.patience,
            use_tls=given.security == "tls",
            start_tls=given.security == "starttls",
            tls_context=self._tls if given.security != "none" else None,
        )
        try:
            async with asyncio.timeout(self.patience), server:
                await server.send_message(message, sender=self._sender, recipients=[letter.to])
        except (SMTPRecipientsRefused, SMTPSenderRefused, SMTPDataError) as error:
            raise _answer(error, letter) from None  # the cause names the address
        except TimeoutError:
            raise Unavailable(f"{given.host} did not take it within {self.patience:g} s") from None
        except (SMTPException, OSError) as error:
            raise Unavailable(f"{given.host} cannot be used: {_words(error, letter)}") from None

    def _message(self, letter: Letter) -> EmailMessage:
        """Raises Refused for an address that is none."""
        if not ADDRESS.fullmatch(letter.to):
            raise Refused("what stands where the customer's e-mail address should be is no such address")
        message = EmailMessage()
        message["From"], message["To"] = self._from, letter.to
        message["Subject"] = " ".join(letter.subject.split())
        message["Date"] = letter.sent
        message["Message-ID"] = f"<{letter.id}@{self._from.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday answers it
        message.set_content(letter.text)
        if letter.html:
            message.add_alternative(letter.html, subtype="html")
        return message

    async def close(self) -> None:
        return None


def _answer(error: SMTPException, letter: Letter) -> Refused | Unavailable:
    """What the server said of this letter: 5xx is for good, anything else may be better later (RFC 5321, 4.2.1)."""
    said = error.recipients[0] if isinstance(error, SMTPRecipientsRefused) else error
    code = said.code if isinstance(said, SMTPResponseException) else 0
    words = f"the mail server answered {code}: {_words(said, letter)}"
    return Refused(words) if 500 <= code < 600 else Unavailable(words)


def _words(error: BaseException, letter: Letter) -> str:
    """What a server said, without the address that it may have repeated."""
    said = error.message if isinstance(error, SMTPResponseException | SMTPConnectError) else str(error)
    plain = " ".join(str(said).replace(letter.to, "[address]").split())
    return ADDRESS.sub("[address]", plain)[:SHORT] or type(error).__name__
