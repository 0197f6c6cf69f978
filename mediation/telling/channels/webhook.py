"""Letters as JSON to a web service, signed as hub listeners are told (Standard Webhooks), to addresses that may be
called (CONVERGEDON_CALLBACK_NETWORKS).
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Annotated, Literal

import orjson
from pydantic import Field, StringConstraints

from convergedon.core import strict
from convergedon.core.errors import Refused, Unavailable
from convergedon.handlers import signing
from convergedon.mediation.delivery import wish, words
from convergedon.mediation.posting import Poster
from convergedon.mediation.telling.channels.contract import Channel, Letter, Section

PREFIX = "whsec_"
SHORTEST = 24
"""Bytes that a secret has at least, as Standard Webhooks says."""


class Webhook(strict.Strict):
    """Where to post to. Without a URL here each customer's address is one."""

    kind: Literal["webhook"]
    url: Annotated[str, StringConstraints(pattern=r"^https?://")] | None = None
    urlFile: str | None = None
    urlEnv: str | None = None
    secretFile: str | None = None
    secretEnv: str | None = None
    connections: int = Field(16, ge=1, le=100)
    timeout: float = Field(10, gt=0, le=60, strict=False)


def create(section: Section) -> Channel:
    """Raises Misconfigured."""
    given = section.read(Webhook)
    url = given.url or section.secret("url")
    if given.url and (given.urlFile or given.urlEnv):
        raise section.wrong("url", "give one of url, urlFile and urlEnv")
    secret = section.secret("secret")
    if not secret:
        raise section.wrong("kind", "a webhook is signed: secretFile or secretEnv is missing")
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(PREFIX) or len(key) < SHORTEST:
        way = "secretFile" if given.secretFile else "secretEnv"
        raise section.wrong(way, f"a secret is {PREFIX} and {SHORTEST} bytes or more in base64")
    poster = Poster(section.settings.callback_networks, given.timeout)
    return WebhookChannel(given, url, key, poster)


class WebhookChannel:
    def __init__(self, given: Webhook, url: str, key: bytes, poster: Poster) -> None:
        self.addressed, self.connections, self.patience = not url, given.connections, given.timeout
        self._url, self._key, self._poster = url, key, poster
        # what is posted at the same time goes over connections of its own
        self._free = [str(number) for number in range(given.connections)]

    async def send(self, letter: Letter) -> None:
        told = {"subject": letter.subject, "text": letter.text, "notification": letter.notification}
        body = orjson.dumps({"id": letter.id, "type": letter.notification["notificationType"], **told})
        headers = {**letter.headers, **signing.headers([self._key], letter.id, body)}
        where = self._url or letter.to
        if not where.startswith(("http://", "https://")):
            raise Refused("what stands where the customer's URL should be is no http or https URL")
        place = self._free.pop() if self._free else letter.id
        try:
            answer = await self._poster.post(f"{place} {where}", where, body, headers)
        except Unavailable as error:
            raise Unavailable(f"the web service {error}") from error
        finally:
            self._free.append(place)
        if answer.status == 410:
            raise Refused("the web service answered 410: it is gone")
        if not 200 <= answer.status < 300:
            raise Unavailable(f"the web service {words(answer)}", wish(answer))

    async def close(self) -> None:
        await self._poster.close()
