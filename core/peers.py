"""How the servers that settings name are reached: NATS, MongoDB and Open Policy Agent, by TLS and with credentials.

A certificate that is not accepted is an error and never a warning, and a connection that was to be encrypted is not
made in the clear, whatever the server says.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import nats.errors
from nats.aio.client import Client

from convergedon.core import encryption
from convergedon.core.errors import Misconfigured
from convergedon.core.settings import Settings

UNVERIFIED = frozenset(
    {"tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames", "ssl_cert_reqs", "ssl_match_hostname"}
)
"""Options of a MongoDB URL that would take any server for the right one."""


def nats_options(settings: Settings) -> dict[str, Any]:
    """What the client is told beside the servers' URLs. Raises Misconfigured."""
    files = settings.nats_ca, settings.nats_cert, settings.nats_key
    options: dict[str, Any] = {}
    if any(files) or any(part.strip().startswith("tls://") for part in _urls(settings)):
        options["tls"] = encryption.context("CONVERGEDON_NATS", *files)
    if settings.nats_creds and settings.nats_seed:
        raise Misconfigured("CONVERGEDON_NATS_CREDS has a seed of its own: leave CONVERGEDON_NATS_SEED out")
    for file, name, option in (
        (settings.nats_creds, "CREDS", "user_credentials"),
        (settings.nats_seed, "SEED", "nkeys_seed"),
    ):
        if file:
            options[option] = _key_file(file, f"CONVERGEDON_NATS_{name}")
    return options


class NatsClient(Client):
    """The client, which encrypts when it was told to and not when the server, or who answers for it, agrees to."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and "tls" in self.options and not info.get("tls_required"):
            raise nats.errors.Error("the server does not speak TLS, which CONVERGEDON_NATS_URL or _CA asks for")
        await super()._process_info(info, initial_connection)


def mongodb_options(settings: Settings) -> dict[str, Any]:
    """What the driver is told beside the URL. Raises Misconfigured."""
    try:
        asked = {name.lower() for name, _ in parse_qsl(urlsplit(settings.mongodb_url.get_secret_value()).query)}
    except ValueError:
        asked = set()  # the driver says what is wrong with it
    if refused := asked & UNVERIFIED:
        raise Misconfigured(f"CONVERGEDON_MONGODB_URL: {refused.pop()} would take any server for yours")
    if not settings.mongodb_ca and not settings.mongodb_cert:
        return {}
    # made and thrown away: it says in a sentence what is wrong with the files, which the driver does not
    encryption.context("CONVERGEDON_MONGODB", settings.mongodb_ca, settings.mongodb_cert)
    files = {"tlsCAFile": settings.mongodb_ca, "tlsCertificateKeyFile": settings.mongodb_cert}
    return {"tls": True, **{name: str(file) for name, file in files.items() if file}}


def opa_options(settings: Settings) -> Mapping[str, Any]:
    """What `OpaServer` takes beside the URL. Raises Misconfigured."""
    secure = settings.opa_url.startswith("https:")
    context: ssl.SSLContext | None = encryption.context("CONVERGEDON_OPA", settings.opa_ca) if secure else None
    return {"context": context, "token": settings.opa_token.get_secret_value()}


def _urls(settings: Settings) -> list[str]:
    return settings.nats_url.get_secret_value().split(",")


def _key_file(file: Path, setting: str) -> str:
    """A file with a seed, which NKeys write as SU..; what else is wrong with it says the server."""
    try:
        if b"SU" not in file.read_bytes():
            raise Misconfigured(f"{setting}: there is no user's seed in {file}")
    except OSError as error:
        raise Misconfigured(f"{setting}: {file} cannot be read: {error.strerror}") from error
    return str(file)
