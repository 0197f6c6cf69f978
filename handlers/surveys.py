"""The survey, our extension: one question after an all-clear or a completed order, answered by the link in the message.

A link is its own credential: it names tenant, customer, what is asked about and until when, and is signed by a key that
follows from the gateway's and the workers' own (``CONVERGEDON_HUB_KEY``). Whoever has it may give the one answer to the
one question, and nothing else. There is one answer for each; until the link expires, a later one replaces it.
"""

from __future__ import annotations

import hmac
from base64 import b32decode, b32encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import orjson

from convergedon.core.errors import NotFound
from convergedon.core.policy import Subject
from convergedon.core.settings import Settings
from convergedon.core.store import Record
from convergedon.handlers import signing
from convergedon.handlers.affected_parties import AFFECTED_PARTY
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.handlers.resource import Api, Resource, now

PATH = "/survey"
ROLE = "respondent"
ASKED: Mapping[str, str] = {AFFECTED_PARTY.name: "serviceRestored", PRODUCT_ORDER.name: "orderCompleted"}
"""What is asked about -> the notification in which it is asked."""
LONGEST_COMMENT = 2_000
LONGEST_LINK = 4_096
DAY = 86_400

SURVEY_ANSWER = Resource(
    "surveyAnswer",
    "SurveyAnswer",
    new=lambda _: {"answeredAt": now()},
    changed=lambda _: {"answeredAt": now()},
    indexes=(("facts.at.answeredAt", "id"),),
    untold=("comment",),
)
"""What a customer wrote stands in no event: it is read, and erased, where it is kept."""

API = Api("survey-v1", "/convergedon-api/survey/v1", (SURVEY_ANSWER,))


@dataclass(frozen=True)
class Invitation:
    """What a link says: who may answer about what until when."""

    tenant: str
    customer: str
    kind: str
    id: str
    until: int

    @property
    def subject(self) -> Subject:
        """Who answers, as policies are told."""
        return Subject(self.customer, self.tenant, (ROLE,), self.customer)

    @property
    def answer(self) -> str:
        """The id of the one answer."""
        return str(uuid5(NAMESPACE_URL, "|".join(("survey", self.tenant, self.customer, self.kind, self.id))))


@dataclass(frozen=True)
class Links:
    """``keys``: the first signs; links that another of them signed are good until they expire."""

    keys: Sequence[bytes] = field(repr=False)

    def write(self, invitation: Invitation) -> str:
        """In letters and digits alone, of which nothing that masks personal data takes a part for any."""
        one = invitation
        said = _text(orjson.dumps([one.tenant, one.customer, one.kind, one.id, one.until]))
        return f"{said}.{_text(self._signature(self.keys[0], said))}"

    def read(self, token: str) -> Invitation:
        """Raises NotFound for what nobody here has signed, and for what has expired: which, is not told."""
        said, _, signature = token.partition(".")
        given = signature.encode(errors="replace")
        signed = [_text(self._signature(key, said)).encode() for key in self.keys] if len(token) < LONGEST_LINK else []
        if not any(hmac.compare_digest(one, given) for one in signed):
            raise no_such_link()
        found = Invitation(*orjson.loads(b32decode(said.upper() + "=" * (-len(said) % 8))))
        if found.until <= time():
            raise no_such_link()
        return found

    def _signature(self, key: bytes, said: str) -> bytes:
        return hmac.digest(hmac.digest(key, b"survey links", "sha256"), said.encode(errors="replace"), "sha256")


def no_such_link() -> NotFound:
    return NotFound("this link leads nowhere, or not any more")


def _text(raw: bytes) -> str:
    return b32encode(raw).decode().rstrip("=").lower()


def links(settings: Settings) -> Links:
    """Raises Misconfigured."""
    return Links(signing.signer(settings).keys)


def link(settings: Settings, about: Record, customer: str, type_: str) -> str:
    """The link by which a customer answers about what it is told now; empty where nothing is asked."""
    if not settings.survey_days or ASKED.get(about.kind) != type_:
        return ""
    until = int(time() + settings.survey_days * DAY)
    token = links(settings).write(Invitation(about.tenant, customer, about.kind, about.id, until))
    return f"{settings.url}{PATH}/{token}"


def since(days: float) -> dict[str, Any]:
    """The answers of so many days until now, for the store."""
    return {"facts.at.answeredAt": {"$gte": int((time() - days * DAY) * 1_000_000)}}


def nps(scores: Iterable[int]) -> int | None:
    """The net promoter score: promoters (9, 10) less detractors (0 to 6), in per cent; none without answers."""
    given = list(scores)
    if not given:
        return None
    return round(100 * (sum(score >= 9 for score in given) - sum(score <= 6 for score in given)) / len(given))
