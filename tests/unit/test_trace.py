"""One trace id goes from the first packet or request to the last notification."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from convergedon.core import trace
from convergedon.core.errors import Misconfigured

PARENT = {"traceparent": f"00-{'a1' * 16}-{'b2' * 8}-01"}


@pytest.fixture(params=["kept", "sent"], autouse=True)
def sent(request: pytest.FixtureRequest) -> Iterator[InMemorySpanExporter]:
    """What is promised of a trace holds whether or not its spans are sent. Those that are."""
    exporter = InMemorySpanExporter()
    endpoint = "http://collector.example:4318" if request.param == "sent" else ""
    trace.configure("test", endpoint, lambda _: SimpleSpanProcessor(exporter))
    yield exporter
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


def test_a_trace_that_is_not_recorded_goes_on_so() -> None:
    """The one who began it decides (W3C trace-flags); what is beside it in tracestate goes along."""
    began = {"traceparent": f"00-{'a1' * 16}-{'b2' * 8}-00", "tracestate": "vendor=1"}
    with trace.span("order", began):
        onward = trace.headers()

    assert onward["traceparent"].endswith("-00")
    assert onward["tracestate"] == "vendor=1"


@pytest.mark.parametrize("sent", ["sent"], indirect=True)
def test_spans_that_are_sent_are_those_that_are_carried_onward(sent: InMemorySpanExporter) -> None:
    """A collector finds the parent of what the next process sends."""
    with trace.span("order", PARENT), trace.span("step"):
        onward = trace.headers()["traceparent"].split("-")

    step, order = sent.get_finished_spans()
    assert step.context.trace_id == int(onward[1], 16)
    assert step.context.span_id == int(onward[2], 16)
    assert step.parent == order.context
    assert order.parent is not None
    assert order.parent.span_id == int("b2" * 8, 16)


def test_who_leaves_a_trace_begins_another() -> None:
    """A task that goes on for ever is in no trace of the one who started it."""

    async def started() -> tuple[str, str]:
        trace.leave()
        before = trace.trace_id()
        with trace.span("datagram"):
            return before, trace.trace_id()

    with trace.span("starting", PARENT):
        before, own = asyncio.run(started())

    assert before == ""
    assert own != "a1" * 16


def test_outside_a_span_nothing_is_carried() -> None:
    """No header rather than a wrong one."""
    assert trace.headers() == {}
    assert trace.trace_id() == ""


def test_an_endpoint_without_its_exporter_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator reads which extra is missing."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    with pytest.raises(Misconfigured, match="CONVERGEDON_OTLP_ENDPOINT needs the extra"):
        trace.configure("test", "http://127.0.0.1:4318")
