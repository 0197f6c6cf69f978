"""Structured logs: one JSON object a line on standard error, with the trace id and without secrets."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from convergedon.core import trace

SECRET = ("password", "secret", "token", "community", "authorization", "passphrase", "key_file")


USERINFO = re.compile(r"://[^/@\s]+@")
"""User and password in a URL."""
BEARER = re.compile(r"\b([Bb]earer) [\w.~+/=-]{8,}")


def _mask(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        event[name] = _masked(name, value)
    return event


def _masked(name: str, value: Any) -> Any:
    """The value without what its name, or a name inside it, says is secret."""
    if any(word in name.lower() for word in SECRET):
        return "***"
    if isinstance(value, dict):
        return {inner: _masked(str(inner), kept) for inner, kept in value.items()}
    if isinstance(value, list):
        return [_masked("", kept) for kept in value]
    return value


def _scrub(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask what its form says is secret, wherever a library has put it: in a sentence, or in a traceback."""
    for name, value in event.items():
        if isinstance(value, str) and ("://" in value or "earer" in value):
            event[name] = BEARER.sub(r"\1 ***", USERINFO.sub("://***@", value))
    return event


def _trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if id := trace.trace_id():
        event["trace"] = id
    return event


KEPT = True
"""Whether a logger stays as it was when it first said something: quicker, where logging is set up once."""


def configure(role: str, level: str = "info") -> None:
    """Send our own logs and those of the libraries through one pipeline. Call once, at a process's start."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _trace,
        _mask,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=KEPT,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _scrub,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    structlog.contextvars.bind_contextvars(role=role)
    # ncclient logs whole payloads at INFO, connexion each undeclared query parameter as an error
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(least)


QUIET = {
    "ncclient": logging.ERROR,
    "paramiko": logging.CRITICAL,
    "asyncssh": logging.WARNING,
    "connexion": logging.WARNING,
    "connexion.decorators.parameter": logging.CRITICAL,
    "connexion.operations": logging.ERROR,
    "pymongo": logging.WARNING,
    "httpx": logging.WARNING,
    "uvicorn.access": logging.WARNING,
    "nats": logging.CRITICAL,
}
