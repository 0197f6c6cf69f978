"""One trace id goes from the first packet or request to the last notification."""

from __future__ import annotations

import sys

import pytest

from convergedon.core import trace
from convergedon.core.errors import Misconfigured

PARENT = {"traceparent": f"00-{'a1' * 16}-{'b2' * 8}-01"}


@pytest.fixture(autouse=True, scope="module")
def tracer() -> None:
    trace.configure("test")


def test_a_span_continues_the_trace_it_was_given() -> None:
    """What is carried onward has the same trace and another parent."""
    with trace.span("order", PARENT):
        onward = trace.headers()["traceparent"].split("-")
        assert trace.trace_id() == "a1" * 16

    assert onward[1] == "a1" * 16
    assert onward[2] != "b2" * 8


def test_inner_spans_stay_in_the_trace() -> None:
    """Steps of a line are in the trace of the message that began it."""
    with trace.span("outer", PARENT), trace.span("inner"), trace.span("innermost", {}):
        assert trace.trace_id() == "a1" * 16


def test_a_message_of_another_trace_leaves_the_callers() -> None:
    """A worker that publishes inside one trace and handles another does not mix them."""
    with trace.span("outer"):
        outer = trace.trace_id()
        with trace.span("inner", PARENT):
            assert trace.trace_id() == "a1" * 16
        assert trace.trace_id() == outer


@pytest.mark.parametrize("said", ["", "nonsense", f"00-{'0' * 32}-{'b2' * 8}-01", "00-zz-zz-01", "\x00"])
def test_what_is_no_trace_begins_a_new_one(said: str) -> None:
    """A client's header is text; a wrong one costs nobody the trace."""
    with trace.span("order", {"traceparent": said}):
        assert len(trace.trace_id()) == 32
        assert int(trace.trace_id(), 16)


def test_outside_a_span_nothing_is_carried() -> None:
    """No header rather than a wrong one."""
    assert trace.headers() == {}
    assert trace.trace_id() == ""


def test_an_endpoint_without_its_exporter_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator reads which extra is missing."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    with pytest.raises(Misconfigured, match="CONVERGEDON_OTLP_ENDPOINT needs the extra"):
        trace.configure("test", "http://127.0.0.1:4318")
