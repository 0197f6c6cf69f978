"""The page behind a survey's link, and the same as JSON: GET asks the question, POST takes the answer.

No token opens it but the link itself. What the link says is put before the policy like any caller's word; a link that
is forged, expired or of something that is not its customer's finds nothing, and all of them the same.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

import jinja2
import orjson
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from convergedon.core import metrics, trace
from convergedon.core.audit import Audit
from convergedon.core.errors import (
    Conflict,
    ConvergedonError,
    Invalid,
    NotFound,
    Stale,
    TooLarge,
    TooManyRequests,
    UnsupportedMediaType,
)
from convergedon.core.policy import Decision, Policy
from convergedon.core.settings import Settings
from convergedon.core.shares import Buckets
from convergedon.core.store import Record
from convergedon.handlers.answers import FAILED, answer, refusal
from convergedon.handlers.resource import Resources
from convergedon.handlers.security import address
from convergedon.handlers.surveys import (
    API,
    ASKED,
    LONGEST_COMMENT,
    PATH,
    SURVEY_ANSWER,
    Invitation,
    links,
    no_such_link,
)

log = structlog.get_logger()

JSON, FORM, HTML = "application/json", "application/x-www-form-urlencoded", "text/html"
LARGEST = 16_384
"""Bytes that an answer may have: the longest comment, and what a form makes of it."""
OFTEN, AT_ONCE = 0.2, 10
"""Requests a second by one link, and so many at once."""
TRIES = 5
STYLE = """
:root { color-scheme: light dark; --quiet: #556; --accent: #0b57a4; --error: #a4110b; }
@media (prefers-color-scheme: dark) { :root { --quiet: #aab; --accent: #7db7f5; --error: #ff9c96; } }
body { font: 18px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 40rem; padding: 1rem; }
fieldset { border: 1px solid var(--quiet); border-radius: .5rem; }
.scale { display: flex; flex-wrap: wrap; gap: .5rem; }
.scale label { padding: .5rem; min-width: 2.5rem; }
textarea { box-sizing: border-box; display: block; font: inherit; width: 100%; }
button { font: inherit; padding: .5rem 1rem; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.quiet { color: var(--quiet); } .error { color: var(--error); font-weight: 600; }
"""
STYLE_HASH = b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
QUESTION = "How likely are you to recommend us?"
THANKS = "Thank you for your answer"


class Survey:
    """``failures`` are bad links a second that are taken from one address."""

    def __init__(self, settings: Settings, resources: Resources, rules: Policy, writer: Audit) -> None:
        self._links, self._resources, self._rules, self._writer = links(settings), resources, rules, writer
        self._guesses = Buckets(settings.failure_limit, 2 * settings.failure_limit)
        self._turns = Buckets(OFTEN, AT_ONCE)
        self._template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
            files(__package__).joinpath("survey.html").read_text(encoding="utf-8")
        )

    @property
    def routes(self) -> list[BaseRoute]:
        return [Route(f"{PATH}/{{token}}", self.serve, methods=["GET", "POST"])]

    async def serve(self, request: Request) -> Response:
        """Answer one request; nothing of it is logged, as the link is a credential and the comment somebody's words."""
        with trace.span("survey", request.headers):
            try:
                response = await self._answered(request)
            except ClientDisconnect:
                response = refusal(Invalid("the caller went away before its answer had arrived"))
            except Exception as error:
                response = self._refused(request, error)
            response.headers["X-Trace-Id"] = trace.trace_id()
        response.headers.update(HEADERS)
        metrics.REQUESTS.labels(API.document, f"survey.{request.method.lower()}", str(response.status_code)).inc()
        return response

    async def _answered(self, request: Request) -> Response:
        invitation = self._admitted(request)
        action = "create" if request.method == "POST" else "retrieve"
        decision = await self._allowed(invitation, action)
        about = await self._subject_of(invitation)
        if action == "retrieve":
            return self._asked(request, invitation, about)
        given = await _given(request)
        try:
            said = _checked(given)
        except Invalid as error:
            if not _wants_page(request):
                raise
            return self._page(400, invitation, about, given, str(error))
        new, record = await self._keep(invitation, said)
        self._record(invitation, action, "done", decision)
        return self._thanked(request, record, new)

    def _admitted(self, request: Request) -> Invitation:
        """Raises NotFound, and TooManyRequests for who guesses, or asks too often."""
        who, token = address(request.scope), request.path_params["token"]
        if wait := self._guesses.wait(who):
            raise TooManyRequests("too many links that lead nowhere came from there", wait)
        try:
            found = self._links.read(token)
        except NotFound:
            self._guesses.take(who)
            raise
        if wait := self._turns.take(found.answer):
            raise TooManyRequests("this link was used too often", wait)
        return found

    async def _allowed(self, invitation: Invitation, action: str) -> Decision:
        """Ask the policy, which is not told the answer. Raises Forbidden, recorded, or Unavailable."""
        resource = {
            "kind": SURVEY_ANSWER.name,
            "tenant": invitation.tenant,
            "id": invitation.answer,
            "parties": [invitation.customer],
            "of": invitation.kind,
        }
        decision = await self._rules.decide(invitation.subject, action, resource, channel="link")
        if not decision.allow:
            self._record(invitation, action, "refused", decision, reasons=list(decision.reasons))
        return decision.require()

    def _record(self, one: Invitation, action: str, outcome: str, decision: Decision, **detail: Any) -> None:
        on = f"{SURVEY_ANSWER.name}/{one.answer}"
        told = {"channel": "link", **detail}
        self._writer.record(f"call.{action}", one.tenant, one.customer, on, outcome, decision, **told)

    async def _subject_of(self, one: Invitation) -> Record:
        """What is asked about, if it is there and its customer's. Raises NotFound."""
        if one.kind not in ASKED:
            raise no_such_link()
        try:
            return await self._resources.store.get(one.kind, one.tenant, one.id, [one.customer])
        except NotFound as error:
            raise no_such_link() from error

    async def _keep(self, one: Invitation, said: Mapping[str, Any]) -> tuple[bool, Record]:
        """The answer as it is kept now, and whether it is the first. Raises Stale when others are faster for long."""
        schema = f"{one.kind[:1].upper()}{one.kind[1:]}"
        about = {"id": one.id, "href": self._resources.href(one.kind, one.id), "@referredType": schema}
        customer = {"id": one.customer, "role": "customer", "@referredType": "Organization"}
        body = {**said, "about": about, "notificationType": ASKED[one.kind], "relatedParty": [customer]}
        store = self._resources.store
        for _ in range(TRIES):
            try:
                return True, await self._resources.create(SURVEY_ANSWER, one.tenant, body, id=one.answer)
            except Conflict:
                pass
            try:
                before = await store.get(SURVEY_ANSWER.name, one.tenant, one.answer)
                return False, await self._resources.change(SURVEY_ANSWER, before, body, whole=True)
            except (NotFound, Stale):  # erased, or answered once more, at this very moment
                continue
        raise Stale("this was answered by others at the same moment: try again")

    # what is shown

    def _asked(self, request: Request, one: Invitation, about: Record) -> Response:
        if _wants_page(request):
            return self._page(200, one, about, {})
        asked = {"question": QUESTION, "notificationType": ASKED[one.kind], "about": {"id": one.id}}
        return answer({**asked, "validUntil": _moment(one), "answerBy": {"score": "0 to 10", "comment": "optional"}})

    def _thanked(self, request: Request, record: Record, new: bool) -> Response:
        if _wants_page(request):
            return self._shown(200, title=THANKS, lines=[f"You answered {record.body['score']} of 10."])
        said = {name: record.body[name] for name in ("score", "answeredAt")}
        return answer({"id": record.id, **said}, 201 if new else 200)

    def _page(
        self, status: int, one: Invitation, about: Record, given: Mapping[str, Any], error: str = ""
    ) -> HTMLResponse:
        until = _moment(one)[:10]
        return self._shown(
            status, title=QUESTION, lines=[_words(about)], asked=True, given=given, until=until, error=error
        )

    def _shown(self, status: int, **given: Any) -> HTMLResponse:
        return HTMLResponse(self._template.render(style=STYLE, longest=LONGEST_COMMENT, **given), status)

    def _refused(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, ConvergedonError):
            log.error("survey failed", error=type(error).__name__)
        refused = refusal(error)
        if not _wants_page(request):
            return refused
        words = str(error) if isinstance(error, ConvergedonError) else FAILED
        page = self._shown(refused.status_code, title="This did not work", error=f"{words[:1].upper()}{words[1:]}.")
        page.headers.update({name: value for name, value in refused.headers.items() if name == "retry-after"})
        return page


def _words(about: Record) -> str:
    """What is asked about, as its customer knows it."""
    if ASKED[about.kind] == "orderCompleted":
        return f"This is about order {about.id}, which is completed."
    services = ", ".join(str(service.get("name") or service["id"]) for service in about.body["service"])
    return f"This is about the disturbance of {services} that began at {about.body['affectedSince']}."


def _wants_page(request: Request) -> bool:
    return HTML in request.headers.get("accept", "")


def _moment(one: Invitation) -> str:
    return datetime.fromtimestamp(one.until, UTC).isoformat().replace("+00:00", "Z")


async def _given(request: Request) -> dict[str, Any]:
    """What a form or a JSON body says, as it says it. Raises Invalid, TooLarge or UnsupportedMediaType."""
    type_ = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if type_ not in (JSON, FORM):
        raise UnsupportedMediaType(f"an answer is {JSON} or {FORM}")
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > LARGEST:
            raise TooLarge(f"an answer has at most {LARGEST} bytes")
    try:
        if type_ == JSON:
            return _members(orjson.loads(raw))
        form = parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=10, errors="strict")
    except ValueError as error:
        raise Invalid("the answer cannot be read") from error
    given: dict[str, Any] = {name: values[-1] for name, values in form.items()}
    if given.get("score", "").isascii() and given.get("score", "").isdigit():
        given["score"] = int(given["score"][:3])
    return _members(given)


def _members(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict) or not given.keys() <= {"score", "comment"}:
        raise Invalid("an answer has a score and may have a comment, nothing else")
    return given


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as it is kept. Raises Invalid, which never repeats what was written."""
    score, comment = given.get("score"), given.get("comment") or ""
    if type(score) is not int or not 0 <= score <= 10:
        raise Invalid("choose a number from 0 to 10")
    if not isinstance(comment, str):
        raise Invalid("a comment is a text")
    comment = "".join(letter for letter in comment.replace("\r\n", "\n") if letter.isprintable() or letter == "\n")
    if len(comment) > LONGEST_COMMENT:
        raise Invalid(f"a comment has at most {LONGEST_COMMENT} characters")
    return {"score": score, **({"comment": comment.strip()} if comment.strip() else {})}
