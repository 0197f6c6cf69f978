"""Several versions of one API over the same records: how what is kept looks in another version.

Records are kept in the form of the version that is declared first. What another version can say beyond that is kept
beside the body, in the fact ``beyond``, so that nothing a client said is lost and nothing stands twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Body = Mapping[str, Any]
BEYOND = "beyond"


class Translation(Protocol):
    """How one resource looks in another version. ``outward`` after ``inward`` is the identity."""

    def outward(self, body: Body, beyond: Body) -> dict[str, Any]:
        """A kept body, and what is kept beside it, in this version's form."""
        ...

    def inward(self, body: Body) -> tuple[dict[str, Any], dict[str, Any]]:
        """A body of this version as it is kept, and what only this version can say. Raises Invalid."""
        ...

    def path(self, path: str) -> str:
        """Where a record keeps an attribute that this version calls so: ``body.orderDate`` for ``creationDate``."""
        ...


class _Same:
    """The version in which records are kept."""

    def outward(self, body: Body, beyond: Body) -> dict[str, Any]:
        return dict(body)

    def inward(self, body: Body) -> tuple[dict[str, Any], dict[str, Any]]:
        return dict(body), {}

    def path(self, path: str) -> str:
        return f"body.{path}"


SAME: Translation = _Same()
