"""Requests of workflows to web services: to addresses that were checked, within a time, and with a key of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpcore
import httpx
import orjson

from convergedon.core.errors import Invalid, Misconfigured, Unavailable
from convergedon.handlers import hub
from convergedon.mediation.posting import FAILURES, PATIENCE, CheckedNetwork
from convergedon.mediation.workflows import definitions
from convergedon.mediation.workflows.secrets import Credential, credential

LARGEST = 262_144
"""Bytes of an answer that are kept."""


async def call(allowed: hub.Networks, secrets: Path | None, given: Mapping[str, Any], key: str) -> Any:
    """Make one request; the answer as the task wants it, without the secret if that is told back.

    The same key says each time that it is the same request, as the draft of the IETF's Idempotency-Key header has it.
    Raises Unavailable when there is no answer or one of the kind that may be better later, Invalid for a refusal.
    """
    url, authentication = definitions.endpoint(given)
    known = _credential(secrets, url, authentication)
    await hub.check_callback(url, allowed)
    headers = {"Content-Type": "application/json", "User-Agent": "ConvergedON", **given.get("headers", {})}
    headers["Idempotency-Key"] = key
    if known.header:
        headers["Authorization"] = known.header
    body = orjson.dumps(given["body"]) if "body" in given else b""
    with ThreadPoolExecutor(1, thread_name_prefix="names") as names:
        network = CheckedNetwork(allowed, names)
        try:
            async with (
                asyncio.timeout(PATIENCE),
                httpcore.AsyncConnectionPool(httpx.create_ssl_context(), network_backend=network) as pool,
            ):
                answer = await pool.request(given["method"].upper(), url, headers=list(headers.items()), content=body)
        except (TimeoutError, *FAILURES) as wrong:
            raise Unavailable(f"{_host(url)} cannot be reached: {wrong or type(wrong).__name__}") from wrong
    return _told(given, url, answer, known)


def _credential(secrets: Path | None, url: str, authentication: Mapping[str, Any]) -> Credential:
    """Who we say we are. Raises Invalid where that is not known, or would be told to whoever listens on the way."""
    try:
        known = credential(secrets, authentication)
    except Misconfigured as error:
        raise Invalid(str(error)) from None
    target = httpx.URL(url)
    if known.header and target.scheme != "https" and not _is_this_machine(target.host):
        raise Invalid(f"{target.host} is not told who we are without TLS: use https")
    return known


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _told(given: Mapping[str, Any], url: str, answer: httpcore.Response, known: Credential) -> Any:
    if answer.status >= 500 or answer.status in (408, 425, 429):
        raise Unavailable(f"{_host(url)} answered {answer.status}")
    if answer.status >= 300 or len(answer.content) > LARGEST:
        raise Invalid(f"{_host(url)} answered {answer.status}")
    text = known.hidden(answer.content.decode(errors="replace"))
    try:
        content = orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        content = text
    return {"status": answer.status, "content": content} if given.get("output") == "response" else content


def _host(url: str) -> str:
    """Where it goes, without what may be secret in the URL."""
    return str(httpx.URL(url).host)
