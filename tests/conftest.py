"""Fixtures that every suite may use: the real embedded servers, started once for all tests of a process.

The processes of `make test` take files in the order in which they are collected: here it is said which come first.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from convergedon.core import embedded, logs

HERE = Path(__file__).parent
LONGEST = (
    "lines/test_campaign.py",
    "unit/test_bench.py",
    "conformance/test_schemathesis.py",
    "lines/test_demo.py",
    "lines/test_workflow_lab.py",
    "live/test_netconf_live.py",
    "lines/test_crash.py",
    "lines/test_lab_faults.py",
    "fuzz/test_decoders.py",
)
"""One that starts last leaves the other processes of a run idle, by the minute."""

logs.KEPT = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, everything else as it was."""
    places = {HERE / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True)
def logging_as_at_the_start() -> None:
    """What a test caught of the logs must not depend on how a command of another one had set them up.

    By default a traceback is shown with all variables, which takes a second of the processor for each.
    """
    structlog.reset_defaults()
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A NATS server with JetStream; streams outlive a test, so give yours names of their own."""
    with embedded.running(embedded.nats_command(tmp_path_factory.mktemp("nats"))) as server:
        yield server.url


@pytest.fixture(scope="session")
def mongodb_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that speaks MongoDB; databases outlive a test, so give yours a name of its own."""
    with embedded.running(embedded.mongodb_command(tmp_path_factory.mktemp("mongodb"))) as server:
        yield server.url
