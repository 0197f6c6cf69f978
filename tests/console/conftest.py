"""A gateway of the console alone, on the in-memory twins."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from twins import Place, Trail

from convergedon.core import audit, policy, settings, tokens
from convergedon.core.audit import Audit
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.policy import Embedded, Policy
from convergedon.handlers.apis import APIS, KINDS
from convergedon.handlers.console import mounts
from convergedon.handlers.resource import Resources

sys.path.append(str(Path(__file__).parents[1] / "live"))  # for peers: the real programs


@pytest.fixture(scope="session")
def rules() -> Policy:
    """One engine for all tests: it must be dropped by the thread that made it, which a collection need not be."""
    return Policy(Embedded(policy.read()))


@pytest.fixture
def place(tmp_path: Path, rules: Policy) -> Place:
    made = settings.load(data=tmp_path)
    store, bus, trail, stopping = MemoryStore([*KINDS, audit.KIND]), MemoryBus(), Trail(), asyncio.Event()
    verifier = tokens.Verifier(made)
    writer: Any = trail
    routes = mounts(made, store, bus, rules, verifier, writer, stopping.is_set)
    return Place(made, store, bus, trail, Resources(store, APIS, made.url), stopping, Starlette(routes=routes))


@pytest.fixture
def record(place: Place) -> Callable[..., Any]:
    """Write audit records as the writers do."""

    async def write(what: str, on: str, outcome: str = "done", tenant: str = "acme", **detail: Any) -> None:
        writer = Audit(place.store, place.bus, "test")
        await writer.start()
        writer.record(what, tenant, "somebody", on, outcome, **detail)
        await writer.stop()

    return write
