"""Requests of workflows to web services: to addresses that were checked, within a time, and with a key of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore
import httpx
import orjson

from convergedon.core.errors import Invalid, Unavailable
from convergedon.handlers import hub
from convergedon.mediation.posting import FAILURES, PATIENCE, CheckedNetwork

LARGEST = 262_144
"""Bytes of an answer that are kept."""


async def call(allowed: hub.Networks, given: Mapping[str, Any], key: str) -> Any:
    """Make one request; the answer as the task wants it.

    The same key says each time that it is the same request, as the draft of the IETF's Idempotency-Key header has it.
    Raises Unavailable when there is no answer or one of the kind that may be better later, Invalid for a refusal.
    """
    await hub.check_callback(given["endpoint"], allowed)
    headers = {"Content-Type": "application/json", "User-Agent": "ConvergedON", **given.get("headers", {})}
    headers["Idempotency-Key"] = key
    body = orjson.dumps(given["body"]) if "body" in given else b""
    with ThreadPoolExecutor(1, thread_name_prefix="names") as names:
        network = CheckedNetwork(allowed, names)
        try:
            async with (
                asyncio.timeout(PATIENCE),
                httpcore.AsyncConnectionPool(httpx.create_ssl_context(), network_backend=network) as pool,
            ):
                answer = await pool.request(
                    given["method"].upper(), given["endpoint"], headers=list(headers.items()), content=body
                )
        except (TimeoutError, *FAILURES) as wrong:
            raise Unavailable(f"{_host(given)} cannot be reached: {wrong or type(wrong).__name__}") from wrong
    return _told(given, answer)


def _told(given: Mapping[str, Any], answer: httpcore.Response) -> Any:
    if answer.status >= 500 or answer.status in (408, 425, 429):
        raise Unavailable(f"{_host(given)} answered {answer.status}")
    if answer.status >= 300 or len(answer.content) > LARGEST:
        raise Invalid(f"{_host(given)} answered {answer.status}")
    try:
        content = orjson.loads(answer.content) if answer.content else None
    except orjson.JSONDecodeError:
        content = answer.content.decode(errors="replace")
    return {"status": answer.status, "content": content} if given.get("output") == "response" else content


def _host(given: Mapping[str, Any]) -> str:
    """Where it goes, without what may be secret in the URL."""
    return str(httpx.URL(given["endpoint"]).host)
