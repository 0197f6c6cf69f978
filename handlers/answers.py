"""What goes back to a caller: representations, and refusals with the TM Forum Error body."""

from __future__ import annotations

from math import ceil
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from convergedon.core import errors

FAILED = "the gateway failed; its log says why"
REASONS = {
    kind.status: kind.reason
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.ConvergedonError)
}


def answer(content: Any, status: int = 200, **headers: str) -> Response:
    """A JSON answer; in the headers' names an underscore stands for a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(orjson.dumps(content), status, named, "application/json")


def refusal(error: Exception) -> Response:
    """The answer to a request that was not carried out. What is no error of ours tells nothing of our inside."""
    if isinstance(error, errors.ConvergedonError):
        status, reason, message = error.status, error.reason, str(error)
    elif isinstance(error, HTTPException):
        status, reason = error.status_code, REASONS.get(error.status_code, "Error")
        message = str(error.detail or reason)
    else:
        status, reason, message = 500, "Internal Server Error", FAILED
    body = errors.body(status, reason, message)
    if isinstance(error, errors.Forbidden) and error.decision:
        body["referenceError"] = f"urn:convergedon:decision:{error.decision}"
    return Response(orjson.dumps(body), status, _headers(error, status), "application/json")


def _headers(error: Exception, status: int) -> dict[str, str]:
    if isinstance(error, errors.TooManyRequests):
        return {"Retry-After": str(ceil(error.wait))}
    if status == 401:
        return {"WWW-Authenticate": 'Bearer realm="convergedon"'}
    return {"Retry-After": "2"} if status == 503 else {}
