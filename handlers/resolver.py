"""Binds an operation to its function by method and path shape: TM Forum APIs are uniform, so nothing is listed."""

from __future__ import annotations

from typing import Any

from connexion.resolver import Resolution, Resolver

from convergedon.core.errors import Misconfigured
from convergedon.handlers.operations import Operations
from convergedon.handlers.resource import Api
from convergedon.handlers.serving import Service

SHAPES = {
    ("get", False): "list",
    ("post", False): "create",
    ("get", True): "retrieve",
    ("patch", True): "patch",
    ("delete", True): "delete",
}
HUB_SHAPES = {("post", False): "register", ("get", True): "subscription", ("delete", True): "unregister"}


class ShapeResolver(Resolver):  # type: ignore[misc]
    def __init__(self, api: Api, operations: Operations) -> None:
        super().__init__()
        self._api, self._operations = api, operations

    def resolve(self, operation: Any) -> Resolution:
        """Raises Misconfigured for a path that fits no shape: a document declares only what is served."""
        name, _, rest = operation.path.strip("/").partition("/")
        shapes = HUB_SHAPES if name == "hub" else SHAPES
        verb = shapes.get((operation.method, rest == "{id}"))
        resource = self._api.resources[0] if name == "hub" else self._api.find(name)
        if verb is None or resource is None or rest not in ("", "{id}"):
            raise Misconfigured(f"{self._api.document}: nothing serves {operation.method.upper()} {operation.path}")
        service = Service(
            self._api,
            resource,
            verb,
            getattr(self._operations, verb),
            self._operations.failed,
            self._operations.shares,
            self._operations.public_url,
        )
        return Resolution(service, f"{self._api.document}.{operation.operation_id}")
