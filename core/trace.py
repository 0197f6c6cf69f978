"""One trace id from the first packet or request to the last notification (W3C trace context, over HTTP and NATS)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from hashlib import blake2b

from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from convergedon.core.errors import Misconfigured

Carrier = Mapping[str, str]
"""The headers that say where in which trace we are."""

_here: ContextVar[Carrier] = ContextVar("trace", default={})  # noqa: B039  nobody changes it
_propagator = TraceContextTextMapPropagator()
_ids = RandomIdGenerator()
_tracer: Tracer | None = None
"""Makes the spans that are sent. Without one there are only their ids, which cost a fifth."""


def _otlp(endpoint: str) -> SpanProcessor:
    try:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter  # type: ignore[import-not-found]
    except ImportError as error:
        raise Misconfigured("CONVERGEDON_OTLP_ENDPOINT needs the extra: pip install 'convergedon[trace]'") from error
    return BatchSpanProcessor(trace_exporter.OTLPSpanExporter(endpoint=endpoint))


def configure(role: str, endpoint: str = "", sending: Callable[[str], SpanProcessor] = _otlp) -> None:
    """Say where spans are sent; without an endpoint nowhere.

    Raises Misconfigured when an endpoint is set and the exporter is not installed.
    """
    global _tracer
    _tracer = None
    if endpoint:
        provider = TracerProvider(resource=Resource.create({"service.name": f"convergedon-{role}"}))
        provider.add_span_processor(sending(endpoint))
        _tracer = provider.get_tracer("convergedon")


def span(name: str, headers: Carrier | None = None) -> AbstractContextManager[None]:
    """Work inside a span; it continues the trace of ``headers`` (``traceparent``), or of the caller, or begins one."""
    said = _propagator.extract(headers) if headers and "traceparent" in headers else None
    return _sent(_tracer, name, said) if _tracer else _kept(said)


@contextmanager
def _kept(said: Context | None) -> Iterator[None]:
    parent = _here.get() if said is None else _written(said)
    begun = parent.get("traceparent") or f"00-{_ids.generate_trace_id():032x}-{'0' * 16}-01"
    token = _here.set({**parent, "traceparent": f"{begun[:36]}{_ids.generate_span_id():016x}{begun[52:]}"})
    try:
        yield
    finally:
        _here.reset(token)


@contextmanager
def _sent(tracer: Tracer, name: str, said: Context | None) -> Iterator[None]:
    with tracer.start_as_current_span(name, said):
        token = _here.set(_written())
        try:
            yield
        finally:
            _here.reset(token)


def _written(of: Context | None = None) -> Carrier:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, of)
    return carrier


def leave() -> None:
    """Be in no trace from here on, whatever trace whoever started this task is in."""
    context.attach(Context())
    _here.set({})


def headers() -> dict[str, str]:
    """The headers that carry the current trace onward; empty outside any span."""
    return dict(_here.get())


def begun_by(id: str) -> str:
    """The ``traceparent`` of the trace that something with this id begins, the same whenever it is asked for.

    It takes no span, which would cost more than all else that is done with one of 20,000 traps a second.
    """
    digest = blake2b(id.encode(), digest_size=24).hexdigest()
    return f"00-{digest[:32]}-{digest[32:]}-01"


def trace_id() -> str:
    """The current trace's 32 hexadecimal digits, or an empty string outside any span."""
    return _here.get().get("traceparent", "")[3:35]
