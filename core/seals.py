"""Seals on intents: who may publish on the bus is not thereby one who may ask something of a device.

Whatever asks in a process of the gateway seals what it publishes, with a key that all processes of an installation
have; an adapter performs nothing without. The seal is an HMAC-SHA-256 over the canonical JSON of all that a message
says and the subject it is published on, so none of it can be changed or sent elsewhere. It does not hide anything, and
whoever has the key can seal: keep it as you keep the devices' passwords.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from convergedon.core import keys
from convergedon.core.settings import Settings

MEMBER = "seal"
"""Where a message's body has its seal."""


@dataclass(frozen=True)
class Seals:
    """``keys``: the first seals; what any of them sealed holds, so that one can be replaced by and by."""

    keys: Sequence[bytes] = field(repr=False)

    def sealed(self, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a message that is to be published on a subject, with its seal."""
        return {**body, MEMBER: _seal(self.keys[0], _content(subject, body))}

    def fault(self, subject: str, body: Any) -> str:
        """What is wrong with the seal of a message, in words that tell no key; empty when it holds."""
        given = body.get(MEMBER) if isinstance(body, Mapping) else None
        if not isinstance(given, str):
            return "it has no seal"
        content, shown = _content(subject, body), given.encode()
        if any(hmac.compare_digest(_seal(key, content).encode(), shown) for key in self.keys):
            return ""
        return "its seal is not of this message, or by a key that is not known here (CONVERGEDON_INTENT_KEY)"


def seals(settings: Settings) -> Seals:
    """With the keys of the setting, or with one that follows from the key of the audit record. Raises Misconfigured."""
    given = settings.intent_key.get_secret_value()
    secrets = [key.strip().encode() for key in given.split(",")] if given else [keys.audit(settings)]
    return Seals([hmac.digest(secret, b"seals of intents", "sha256") for secret in secrets])


def _content(subject: str, body: Mapping[str, Any]) -> bytes:
    """What is sealed: JSON with sorted members and without blanks."""
    said = {name: value for name, value in body.items() if name != MEMBER}
    return orjson.dumps([subject, said], option=orjson.OPT_SORT_KEYS)


def _seal(key: bytes, content: bytes) -> str:
    return hmac.digest(key, content, "sha256").hex()
