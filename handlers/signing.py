"""Signatures on what listeners are sent (Standard Webhooks): who sent it, that it is whole, and when that was.

A listener's secret follows from the gateway's key and the hub's id, so no secret is stored; the listener is told it
once, when it registers.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import time

from convergedon.core import keys
from convergedon.core.errors import Misconfigured
from convergedon.core.settings import Settings


@dataclass(frozen=True)
class Signer:
    """``keys``: new secrets follow from the first; all of them sign, so that one can be replaced by and by."""

    keys: Sequence[bytes] = field(repr=False)

    def secret(self, hub: str) -> str:
        """What its listener checks signatures with."""
        return f"whsec_{b64encode(_secret(self.keys[0], hub)).decode()}"

    def headers(self, hub: str, id: str, body: bytes, now: float | None = None) -> dict[str, str]:
        """The headers that sign a message to a hub."""
        return headers([_secret(key, hub) for key in self.keys], id, body, now)

    @property
    def mark(self) -> str:
        """Tells keys apart and tells nothing of them: kept with a hub, it shows whose secret the listener has."""
        return _mark(self.keys[0])

    def knows(self, mark: str) -> bool:
        return any(mark == _mark(key) for key in self.keys)


def headers(secrets: Iterable[bytes], id: str, body: bytes, now: float | None = None) -> dict[str, str]:
    """The headers that sign a message with each secret. The time is signed too, so that an old message can be told."""
    second = int(time() if now is None else now)
    signed = b"%s.%d.%s" % (id.encode(), second, body)
    signatures = (hmac.digest(secret, signed, "sha256") for secret in secrets)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(second),
        "webhook-signature": " ".join(f"v1,{b64encode(signature).decode()}" for signature in signatures),
    }


def signer(settings: Settings) -> Signer:
    """With the keys of the setting, or the one that the data folder keeps. Raises Misconfigured."""
    if given := settings.hub_key.get_secret_value():
        return Signer([key.strip().encode() for key in given.split(",")])
    path = settings.data / "keys" / "hub.key"
    try:
        return Signer([keys.kept(path, lambda: secrets.token_hex(32).encode())])
    except OSError as error:
        raise Misconfigured(f"{path} cannot be used: {error.strerror} (or set CONVERGEDON_HUB_KEY)") from error


def _secret(key: bytes, hub: str) -> bytes:
    return hmac.digest(key, b"hub secret " + hub.encode(), "sha256")


def _mark(key: bytes) -> str:
    return hashlib.sha256(b"hub key mark " + key).hexdigest()[:12]
