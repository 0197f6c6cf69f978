"""TLS as every connection of ours uses it: 1.2 at least, and the other side's certificate and name always checked.

``context`` is for those who connect, ``why`` finds in a library's error what a person can act on.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path

from convergedon.core.errors import Misconfigured

VERIFY = re.compile(r"certificate verify failed: ([^\n(\[]+)")


def context(setting: str, ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """For connecting: authorities of one's own instead of the system's, and a certificate to show, where given.

    ``setting`` is what their settings begin with (CONVERGEDON_NATS). Raises Misconfigured.
    """
    made = ssl.create_default_context(cafile=_readable(ca, f"{setting}_CA"))
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert:
        _show(made, setting, cert, key)
    return made


def server_context(setting: str, cert: Path, key: Path | None, clients: Path | None) -> ssl.SSLContext:
    """For listening; with authorities for clients whoever has no certificate of theirs is not let in."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=_readable(clients, f"{setting}_CLIENT_CA"))
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if clients:
        made.verify_mode = ssl.CERT_REQUIRED
    _show(made, setting, cert, key)
    return made


def why(error: BaseException) -> str:
    """What is wrong with a connection's TLS, out of the error that a library wraps it in; empty when nothing is."""
    for cause in _causes(error):
        # aiohttp's own kind of it has no words, the one within has
        if words := getattr(cause, "verify_message", ""):
            return f"its certificate is not accepted: {words}"
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS with it failed: {(cause.reason or str(cause)).replace('_', ' ').lower()}"
    found = VERIFY.search(str(error))  # some libraries keep the words alone
    return f"its certificate is not accepted: {found[1].strip()}" if found else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(20):  # a chain may lead back to where it began
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _show(made: ssl.SSLContext, setting: str, cert: Path, key: Path | None) -> None:
    try:
        made.load_cert_chain(cert, key, password=_no_passphrase)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = f"{setting}_CERT and {setting}_KEY" if key else f"{setting}_CERT"
        raise Misconfigured(f"{files}: {cert} cannot be used: {_words(error)}") from error


def _no_passphrase() -> str:
    """OpenSSL would ask at the terminal and wait."""
    raise ValueError("the key is encrypted: give one without a passphrase, readable by the gateway alone")


def _readable(file: Path | None, setting: str) -> str | None:
    """A file of certificates that holds one at least: OpenSSL takes an empty one for none and goes on without."""
    if file is None:
        return None
    try:
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trial.load_verify_locations(file)
        if not trial.cert_store_stats()["x509"]:
            raise ValueError("there is no certificate in it")
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{setting}: {file} cannot be used: {_words(error)}") from error
    return str(file)


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is no PEM file").replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
