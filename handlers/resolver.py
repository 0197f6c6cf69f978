"""Binds an operation to its function by method and path shape: TM Forum APIs are uniform, so nothing is listed."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any

import connexion
from connexion.resolver import Resolution, Resolver
from starlette.responses import Response

from convergedon.core import metrics, trace
from convergedon.core.errors import ConvergedonError, Misconfigured
from convergedon.core.policy import Subject
from convergedon.handlers.admission import check_acceptable
from convergedon.handlers.operations import Call, Operations
from convergedon.handlers.resource import Api, Resource

SHAPES = {
    ("get", False): "list",
    ("post", False): "create",
    ("get", True): "retrieve",
    ("patch", True): "patch",
    ("delete", True): "delete",
}
HUB_SHAPES = {("post", False): "register", ("delete", True): "unregister"}


class ShapeResolver(Resolver):  # type: ignore[misc]
    def __init__(self, api: Api, operations: Operations) -> None:
        super().__init__()
        self._api, self._operations = api, operations

    def resolve(self, operation: Any) -> Resolution:
        """Raises Misconfigured for a path that fits no shape: a document declares only what is served."""
        name, _, rest = operation.path.strip("/").partition("/")
        shapes = HUB_SHAPES if name == "hub" else SHAPES
        verb = shapes.get((operation.method, rest == "{id}"))
        resource = self._api.resources[0] if name == "hub" else self._find(name)
        if verb is None or resource is None or rest not in ("", "{id}"):
            raise Misconfigured(f"{self._api.document}: nothing serves {operation.method.upper()} {operation.path}")
        serve = partial(_serve, self._api, resource, verb, self._operations)

        async def function(id: str = "") -> Response:
            return await serve(id)

        return Resolution(function, f"{self._api.document}.{operation.operation_id}")

    def _find(self, name: str) -> Resource | None:
        return next((resource for resource in self._api.resources if resource.name == name), None)


async def _serve(api: Api, resource: Resource, verb: str, operations: Operations, id: str) -> Response:
    """Run one operation inside the caller's trace, counted and timed."""
    request = connexion.request
    subject: Subject = request.context["token_info"]["subject"]
    call = Call(api, resource, request, subject, id, operations.public_url)
    begun, status, name = perf_counter(), 500, f"{resource.name}.{verb}"
    try:
        with trace.span(name, request.headers):
            operations.shares.take(subject)
            check_acceptable(request.headers.get("accept"))
            response: Response = await getattr(operations, verb)(call)
            response.headers["X-Trace-Id"] = trace.trace_id()
        status = response.status_code
        return response
    except ConvergedonError as error:
        status = error.status
        raise
    finally:
        metrics.REQUESTS.labels(api.document, name, str(status)).inc()
        metrics.REQUEST_SECONDS.labels(api.document, name).observe(perf_counter() - begun)
