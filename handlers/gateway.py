"""The ASGI application: the APIs by connexion; health, metrics, documents and the console beside them."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import cache, partial
from typing import Any

import orjson
import structlog
from connexion import AsyncApp
from connexion.exceptions import ProblemException
from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from connexion.middleware.exceptions import ExceptionMiddleware
from connexion.middleware.routing import RoutingMiddleware
from connexion.middleware.security import SecurityMiddleware
from connexion.middleware.server_error import ServerErrorMiddleware
from connexion.spec import OpenAPISpecification
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convergedon.core import errors, trace
from convergedon.core.tokens import Verifier
from convergedon.handlers import api_page, documents
from convergedon.handlers.answers import answer, refusal
from convergedon.handlers.guard import Guard
from convergedon.handlers.operations import Operations
from convergedon.handlers.resolver import ShapeResolver
from convergedon.handlers.resource import Api
from convergedon.handlers.security import address, bearer_token, is_loopback, security_map
from convergedon.handlers.serving import ServingMiddleware
from convergedon.openapi import document

log = structlog.get_logger()

Readiness = Callable[[], Awaitable[tuple[bool, Mapping[str, Any]]]]

FORWARDED = frozenset({"forwarded", "x-forwarded-for", "x-real-ip"})
READING = ("GET", "HEAD")

# What a request needs. Swagger UI fails on recursive schemas and responses are checked in tests, so neither is here;
# serving.py says why it ends in a middleware of ours.
MIDDLEWARES = [ServerErrorMiddleware, ExceptionMiddleware, RoutingMiddleware, SecurityMiddleware, ServingMiddleware]


def application(
    apis: Sequence[Api],
    operations: Operations,
    verifier: Verifier,
    readiness: Readiness,
    body_limit: int,
    mounts: Sequence[BaseRoute] = (),
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]] | None = None,
    metrics_token: str = "",
) -> ASGIApp:
    app = AsyncApp(
        "convergedon.handlers",
        middlewares=list(MIDDLEWARES),
        security_map=security_map(verifier),
    )
    with _taken_as_they_are():
        for api in apis:
            app.add_api(
                document(api.document), base_path=api.base, name=api.document, resolver=ShapeResolver(api, operations)
            )
            for resource in api.resources:
                documents.shape(api.document, api.schema(resource))
    for kind in (errors.ConvergedonError, ProblemException, HTTPException, Exception):
        app.add_error_handler(kind, _Answer(apis))

    async def healthz(_: Request) -> Response:
        return answer({"state": "alive"})

    async def readyz(_: Request) -> Response:
        ready, components = await readiness()
        return answer({"ready": ready, "components": components}, 200 if ready else 503)

    pages = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", _Metrics(metrics_token)),
        *(Route(f"{api.base}/openapi.json", _document(api)) for api in apis),
        *(Route(f"{api.base}/ui", _page(api)) for api in apis),
    ]
    limited = _Limited(app, body_limit)
    refusing = {HTTPException: _refused_beside, Exception: _refused_beside}
    beside = Starlette(routes=[*pages, *mounts, Mount("/", limited)], lifespan=lifespan, exception_handlers=refusing)
    return Guard(_Front(apis, limited, beside, frozenset(page.path for page in pages)))


@contextmanager
def _taken_as_they_are() -> Iterator[None]:
    """Have connexion not ask whether our documents are OpenAPI: tests do, and it is most of what a start takes."""
    asked, OpenAPISpecification.openapi_schema = OpenAPISpecification.openapi_schema, {}
    try:
        yield
    finally:
        OpenAPISpecification.openapi_schema = asked


class _Front:
    """Sends what is below an API's base straight there; pages, which are only read, and all else go by a list."""

    def __init__(self, apis: Sequence[Api], api: ASGIApp, beside: ASGIApp, pages: frozenset[str]) -> None:
        self._api, self._beside, self._pages = api, beside, pages
        self._bases = tuple(f"{api.base}/" for api in apis)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path in self._pages:
            if scope["type"] == "http" and scope["method"] not in READING:
                refused = _refused_early(scope, errors.MethodNotAllowed(f"{path} is only read"))
                refused.headers["Allow"] = ", ".join(READING)
                await refused(scope, receive, send)
                return
            await self._beside(scope, receive, send)
            return
        straight = scope["type"] == "http" and path.startswith(self._bases)
        await (self._api if straight else self._beside)(scope, receive, send)


def _document(api: Api) -> Callable[[Request], Awaitable[Response]]:
    whole = {**document(api.document), "servers": [{"url": api.base}]}
    content = orjson.dumps(whole)

    async def serve(_: Request) -> Response:
        return Response(content, media_type="application/json")

    return serve


def _page(api: Api) -> Callable[[Request], Awaitable[Response]]:
    content = cache(partial(api_page.page, api.document, api.base))

    async def serve(_: Request) -> Response:
        return HTMLResponse(content(), headers=api_page.HEADERS)

    return serve


class _Metrics:
    """/metrics, for who knows the token; without one for this machine alone, and no proxy on it."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._admit(Request(scope))
            answered = Response(_measured(), media_type=CONTENT_TYPE_LATEST)
        except errors.ConvergedonError as error:
            answered = refusal(error)
            answered.headers["X-Trace-Id"] = _trace_id(Request(scope).headers)
        await answered(scope, receive, send)

    def _admit(self, request: Request) -> None:
        if request.method not in ("GET", "HEAD"):
            raise errors.MethodNotAllowed("metrics are read by GET")
        if self._token:
            if not hmac.compare_digest(bearer_token(request.headers).encode(), self._token):
                raise errors.Unauthenticated("this is not the token of CONVERGEDON_METRICS_TOKEN")
        elif not is_loopback(address(request.scope)) or not FORWARDED.isdisjoint(request.headers.keys()):
            raise errors.Unauthenticated("metrics are read on this machine, or with CONVERGEDON_METRICS_TOKEN")


def _measured() -> bytes:
    """Of all processes that share PROMETHEUS_MULTIPROC_DIR, else of this one."""
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class _Answer:
    """What goes wrong before an operation is reached, in connexion's and Starlette's cases too."""

    def __init__(self, apis: Sequence[Api]) -> None:
        self._apis = apis

    async def __call__(self, request: ConnexionRequest, error: Exception) -> ConnexionResponse:
        if not isinstance(error, errors.ConvergedonError | HTTPException):
            log.error("request failed", path=request.url.path, exc_info=error)
        refused = refusal(error)
        refused.headers["X-Trace-Id"] = _trace_id(request.headers)
        if refused.status_code == 405:
            refused.headers["Allow"] = ", ".join(self._methods(request.url.path))
        return ConnexionResponse(
            refused.status_code, content_type="application/json", body=bytes(refused.body), headers=refused.headers
        )

    def _methods(self, path: str) -> list[str]:
        """What a path takes. Starlette names only the first of the routes that share it, and answers HEAD for GET."""
        for api in self._apis:
            if path.startswith(f"{api.base}/"):
                name, _, rest = path.removeprefix(f"{api.base}/").rstrip("/").partition("/")
                item = document(api.document)["paths"].get(f"/{name}/{{id}}" if rest else f"/{name}", {})
                taken = {name.upper() for name in item if name in ("get", "post", "patch", "put", "delete")}
                return sorted(taken | {"HEAD"} if "GET" in taken else taken)
        return []


class _Limited:
    """Refuses bodies above the limit, whether or not the request tells its length."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > self._limit:
            refused = _refused_early(scope, errors.TooLarge(f"a body has at most {self._limit} bytes"))
            await refused(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise errors.TooLarge(f"a body has at most {self._limit} bytes")
            return message

        await self._app(scope, counted, send)


def _refused_early(scope: Scope, error: Exception) -> Response:
    refused = refusal(error)
    refused.headers["X-Trace-Id"] = _trace_id(Request(scope).headers)
    return refused


async def _refused_beside(request: Request, error: Exception) -> Response:
    """What goes wrong beside the APIs: a path such as ``*`` that nothing has, a page that fails."""
    if not isinstance(error, HTTPException):
        log.error("request failed", path=request.url.path, exc_info=error)
    return _refused_early(request.scope, error)


def _trace_id(headers: Mapping[str, str]) -> str:
    """The trace that the caller is in, or a new one, for a request that got to no operation."""
    with trace.span("refused", headers):
        return trace.trace_id()
