"""The pages of the console: each is a function that reads through the desk of its operator and fills a template."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import structlog
from flask import Flask, Response, g, make_response, redirect, render_template, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from convergedon.core.bus import Bus
from convergedon.core.errors import ConvergedonError, Forbidden, NotFound, TooManyRequests, Unauthenticated, Unavailable
from convergedon.core.settings import Settings
from convergedon.core.store import Store
from convergedon.handlers import figures
from convergedon.handlers.apis import APIS
from convergedon.handlers.console import repairs, searching, wording
from convergedon.handlers.console.bridge import Bridge
from convergedon.handlers.console.door import LONGEST, Door, form_token, is_own_form, session_key
from convergedon.handlers.console.reading import KINDS, LATEST, MOST, Desk
from convergedon.handlers.resource import Resources

log = structlog.get_logger()

COOKIE = "convergedon_console"
OPEN = ("login", "enter", "static")
"""Pages that need no session."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Sessions(SecureCookieSessionInterface):
    """Flask's, whose cookie goes back by TLS alone where it came by TLS: to a proxy that is believed, or to us."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure or super().get_cookie_secure(app)


def site(settings: Settings, store: Store, bus: Bus, door: Door, bridge: Bridge) -> Flask:
    app = Flask("convergedon.console", root_path=str(Path(__file__).parent))
    app.config.update(
        SECRET_KEY=session_key(settings.data),
        SESSION_COOKIE_NAME=COOKIE,
        SESSION_COOKIE_PATH="/console",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=settings.url.startswith("https:"),  # and where a request came by TLS
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=LONGEST,
        MAX_CONTENT_LENGTH=65_536,
    )
    app.session_interface = Sessions()
    app.jinja_env.globals.update(
        wording=wording, form_token=lambda: form_token(session), kinds=KINDS, latest=LATEST, most=MOST
    )
    filters = (wording.moment, wording.words, wording.tone, wording.short, wording.whole)
    app.jinja_env.filters.update({filter_.__name__: filter_ for filter_ in filters})
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True

    resources = Resources(store, APIS, settings.url)

    def desk() -> Desk:
        return Desk(store, bus, door, g.operator)

    @app.before_request
    def admit() -> AnyResponse | None:
        """Only the login is open; forms must be ours; the policy is asked again at each page."""
        g.operator = door.operator(session)
        if request.method == "POST" and not is_own_form(session, request.form.get("form", "")):
            raise Forbidden(["the form has expired: go back, load the page again and send it once more"])
        if request.endpoint in OPEN:
            return None
        if g.operator is None:
            wanted = request.full_path.rstrip("?") if request.method == "GET" else "/"
            return redirect(url_for("login", next=None if wanted == "/" else wanted))
        bridge(door.allowed(g.operator, "retrieve", "console"))
        return None

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers.extend(HEADERS)
        response.headers["Cache-Control"] = "no-cache" if request.endpoint == "static" else "no-store"
        return response

    @app.get("/login")
    def login() -> AnyResponse | str:
        return redirect(url_for("board")) if g.operator else render_template("login.html", next=_local(request.args))

    @app.post("/login")
    def enter() -> AnyResponse:
        try:
            given = request.form.get("token", "").strip().removeprefix("Bearer ").strip()
            begun = bridge(door.enter(given, request.remote_addr or ""))
        except (Unauthenticated, Forbidden, TooManyRequests) as error:
            page = render_template("login.html", refused=str(error), next=_local(request.form))
            later = {"Retry-After": str(ceil(error.wait))} if isinstance(error, TooManyRequests) else {}
            return make_response(page, error.status, later)
        session.clear()  # and with it the form value that somebody may have known before
        session.permanent = True
        session.update(begun)
        return redirect(request.script_root + (_local(request.form) or "/"))

    @app.post("/logout")
    def logout() -> AnyResponse:
        door.leave(session)
        session.clear()
        return redirect(url_for("login"))

    @app.get("/")
    def board() -> str:
        parts = {**bridge(desk().board()), "repairs": bridge(repairs.seen(desk()))}
        return render_template("board.html", parts=parts)

    @app.get("/fragment/<name>")
    def fragment(name: str) -> str:
        part = bridge(repairs.seen(desk()) if name == "repairs" else desk().part(name))
        return render_template(f"part_{name}.html", part=part)

    @app.post("/approval")
    def approval() -> AnyResponse:
        bridge(repairs.answer(desk(), resources, request.form))
        return redirect(url_for("board", _anchor="repairs"))

    @app.post("/control")
    def control() -> AnyResponse:
        bridge(repairs.press(desk(), resources, request.form))
        return redirect(url_for("board", _anchor="repairs"))

    @app.get("/figures/<name>")
    def figure(name: str) -> str:
        definition = figures.named(name)
        if definition is None:
            raise NotFound(f"there is no figure {name}")
        return render_template("figure.html", figure=bridge(desk().figure(definition)))

    @app.get("/record/<kind>/<id>")
    def record(kind: str, id: str) -> str:
        page = "part_record.html" if "part" in request.args else "record.html"
        return render_template(page, detail=bridge(desk().detail(kind, id)))

    @app.get("/session")
    def alive() -> AnyResponse:
        """The page's script asks here whether its session has ended, when its stream was refused."""
        return make_response("", 204)

    @app.get("/trace/<trace>")
    def trace(trace: str) -> str:
        return render_template("trace.html", trace=trace, entries=bridge(desk().trace(trace)))

    @app.get("/audit")
    def audited() -> str:
        asked = searching.search(request.args)
        return render_template("audit.html", asked=asked, part=bridge(desk().audited(asked)))

    @app.errorhandler(ConvergedonError)
    def refuse(error: ConvergedonError) -> tuple[str, int] | AnyResponse:
        return _told(error.status, error.reason, str(error), isinstance(error, Unavailable))

    @app.errorhandler(HTTPException)
    def refuse_http(error: HTTPException) -> AnyResponse:
        return _told(error.code or 500, error.name, error.description or error.name)

    @app.errorhandler(Exception)
    def fail(error: Exception) -> AnyResponse:
        log.error("console failed", path=request.path, exc_info=error)
        return _told(500, "Internal Server Error", "the console failed; the gateway's log says why")

    return app


def _told(status: int, reason: str, message: str, later: bool = False) -> AnyResponse:
    g.setdefault("operator", None)
    response = make_response(render_template("error.html", reason=reason, message=message, later=later), status)
    if later:
        response.headers["Retry-After"] = "5"
    return response


def _local(given: Any) -> str:
    """Where to go after the login: a path of the console, or nothing. It is put behind our own prefix."""
    wanted = str(given.get("next", ""))
    return wanted if wanted.startswith("/") and not wanted.startswith(("//", "/\\")) else ""
