"""The operator's web page: what the three lines do, and figures from the audit records and the answers of customers.

Flask draws the pages in the threads of a WSGI bridge; the event stream is an ASGI route of its own, because a stream
would hold one of those few threads for as long as somebody watches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from a2wsgi import WSGIMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from convergedon.core.audit import Audit
from convergedon.core.bus import Bus
from convergedon.core.policy import Policy
from convergedon.core.settings import Settings
from convergedon.core.store import Store
from convergedon.core.tokens import Verifier
from convergedon.handlers.console.bridge import Bridge
from convergedon.handlers.console.door import Door
from convergedon.handlers.console.live import Live
from convergedon.handlers.console.pages import site

PATH = "/console"


def mounts(
    settings: Settings,
    store: Store,
    bus: Bus,
    rules: Policy,
    verifier: Verifier,
    writer: Audit | None = None,
    stopping: Callable[[], Any] = lambda: False,
) -> list[BaseRoute]:
    """The routes of the console. ``stopping`` says whether the gateway is about to end: streams end before it."""
    bridge, door = Bridge(), Door(rules, verifier, writer)
    flask = site(settings, store, bus, door, bridge)
    wsgi = WSGIMiddleware(cast(Any, flask.wsgi_app))

    async def pages(scope: Scope, receive: Receive, send: Send) -> None:
        bridge.attach()
        await wsgi(cast(Any, scope), cast(Any, receive), cast(Any, send))

    async def to_pages(_: Request) -> Response:
        return RedirectResponse(f"{PATH}/")

    return [
        Route(PATH, to_pages),
        Route(f"{PATH}/live", Live(bus, flask, door, stopping), methods=["GET"]),
        Mount(PATH, pages),
    ]
