"""One trace id from the first packet or request to the last notification (W3C trace context, over HTTP and NATS)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from convergedon.core.errors import Misconfigured

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("convergedon")


def configure(role: str, endpoint: str = "") -> None:
    """Give the process a tracer. Without an endpoint spans are made (ids are needed) and dropped.

    Raises Misconfigured when an endpoint is set and the exporter is not installed.
    """
    provider = TracerProvider(resource=Resource.create({"service.name": f"convergedon-{role}"}))
    if endpoint:
        try:
            from opentelemetry.exporter.otlp.proto.http import trace_exporter  # type: ignore[import-not-found]
        except ImportError as error:
            raise Misconfigured(
                "CONVERGEDON_OTLP_ENDPOINT needs the extra: pip install 'convergedon[trace]'"
            ) from error
        provider.add_span_processor(BatchSpanProcessor(trace_exporter.OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)


@contextmanager
def span(name: str, headers: Mapping[str, str] | None = None) -> Iterator[None]:
    """Work inside a span; it continues the trace of ``headers`` (``traceparent``), or of the caller, or begins one."""
    parent = _propagator.extract(headers) if headers and "traceparent" in headers else context.get_current()
    with _tracer.start_as_current_span(name, context=parent):
        yield


def headers() -> dict[str, str]:
    """The headers that carry the current trace onward; empty outside any span."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier


def trace_id() -> str:
    """The current trace's 32 hexadecimal digits, or an empty string outside any span."""
    current = trace.get_current_span().get_span_context()
    return format(current.trace_id, "032x") if current.is_valid else ""
