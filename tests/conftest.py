"""Fixtures that every suite may use: the real embedded servers, started once for all tests."""

from collections.abc import Iterator

import pytest
import structlog

from convergedon.core import embedded, logs

logs.KEPT = False


@pytest.fixture(autouse=True)
def logging_as_at_the_start() -> None:
    """What a test caught of the logs must not depend on how a command of another one had set them up."""
    structlog.reset_defaults()


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
