"""Runs the operation that connexion has routed and authenticated a request to: the last of its middlewares.

It stands in the place of connexion's request validation and of its parameter decorators. Those work out anew at each
request what a document said at the start, and hand on the parameters that it declares; TM Forum's filters are not
declared, so operations read the request themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from time import perf_counter

import structlog
from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.operations import AbstractOperation
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from convergedon.core import metrics, trace
from convergedon.core.errors import ConvergedonError, Invalid, UnsupportedMediaType
from convergedon.core.policy import Subject
from convergedon.handlers.admission import Shares, check_acceptable, check_encoding
from convergedon.handlers.answers import refusal
from convergedon.handlers.operations import Call
from convergedon.handlers.resource import Api, Resource

log = structlog.get_logger()

Serve = Callable[[Call], Awaitable[Response]]
Failed = Callable[[Call, str, int], None]
"""Is told of a call that was not answered with success: the verb, and the status that it was answered with."""


class Service:
    """One operation of one resource, bound to the function that does it (by the resolver)."""

    def __init__(
        self, api: Api, resource: Resource, verb: str, serve: Serve, failed: Failed, shares: Shares, public_url: str
    ) -> None:
        self._api, self._resource, self._verb, self._serve, self._failed = api, resource, verb, serve, failed
        self._shares, self._public_url = shares, public_url
        self._name = f"{resource.name}.{verb}"
        self._seconds = metrics.REQUEST_SECONDS.labels(api.document, self._name)
        self._answered = cache(lambda status: metrics.REQUESTS.labels(api.document, self._name, str(status)))

    async def __call__(self, request: Request, subject: Subject, takes: frozenset[str]) -> Response:
        """Run it inside the caller's trace, counted and timed; what goes wrong is answered, not raised."""
        begun = perf_counter()
        call = self._call(request, subject)
        with trace.span(self._name, request.headers):
            try:
                response = await self._admitted(call, takes)
            except ConvergedonError as error:
                response = refusal(error)
            except ClientDisconnect:
                response = refusal(Invalid("the caller went away before its body had arrived"))
            except Exception as error:
                log.error("request failed", path=request.url.path, exc_info=error)
                response = refusal(error)
            if response.status_code >= 400:
                self._failed(call, self._verb, response.status_code)
            response.headers["X-Trace-Id"] = trace.trace_id()
        if call.decisions:
            response.headers["X-Decision-Id"] = call.decisions[-1].id
        self._answered(response.status_code).inc()
        self._seconds.observe(perf_counter() - begun)
        return response

    def _call(self, request: Request, subject: Subject) -> Call:
        type_ = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        id = request.path_params.get("id", "")
        return Call(self._api, self._resource, request, subject, id, type_, self._public_url)

    async def _admitted(self, call: Call, takes: frozenset[str]) -> Response:
        self._shares.take(call.subject)
        check_acceptable(call.request.headers.get("accept"))
        check_encoding(call.request.headers.get("content-encoding") if takes else None)
        if takes and call.media_type not in takes:
            raise UnsupportedMediaType(f"a body is {' or '.join(sorted(takes))} here, not {call.media_type}")
        return await self._serve(call)


class _Operation:
    """An operation in connexion's terms: what its document says, and the service it was resolved to."""

    def __init__(self, operation: AbstractOperation) -> None:
        self._service: Service = operation.function
        self._takes = frozenset(type_.lower() for type_ in operation.consumes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        subject: Subject = scope["extensions"]["connexion_context"]["token_info"]["subject"]
        response = await self._service(Request(scope, receive), subject, self._takes)
        await response(scope, receive, send)


class _Operations(RoutedAPI[_Operation]):  # type: ignore[misc]
    def __init__(self, *args: object, next_app: ASGIApp, **kwargs: object) -> None:
        super().__init__(*args, next_app=next_app, **kwargs)
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> _Operation:
        return _Operation(operation)


class ServingMiddleware(RoutedMiddleware[_Operations]):  # type: ignore[misc]
    """What is routed nowhere goes on to connexion's application, which finds nothing either: 404 or 405."""

    api_cls = _Operations
