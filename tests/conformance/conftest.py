"""The gateway in memory, and tokens of the local issuer for whoever a test wants to be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from declared import as_declared

from convergedon.core import logs, policy, settings
from convergedon.core.audit import KINDS as AUDIT_KINDS
from convergedon.core.audit import Audit
from convergedon.core.memory import MemoryBus, MemoryStore
from convergedon.core.policy import Embedded, Policy
from convergedon.core.relay import Relay
from convergedon.core.settings import Settings
from convergedon.core.store import MongoStore, Store
from convergedon.core.tokens import LOCAL, Verifier
from convergedon.handlers import telling
from convergedon.handlers.apis import APIS, KINDS
from convergedon.handlers.gateway import application
from convergedon.handlers.operations import Operations
from convergedon.handlers.resource import Resources

URL = "http://gateway.example"
LIMIT = 65_536
STORE_KINDS = KINDS


@dataclass(frozen=True)
class Built:
    """What one application is made of; it serves all tests, each as a tenant of its own."""

    app: Any
    store: Store
    bus: MemoryBus
    settings: Settings
    resources: Resources
    audit: Audit
    audited: Store
    others: dict[Any, Built] = field(default_factory=dict)

    def beside(self, around: Callable[[Store], Any] | None = None, **changed: Any) -> Built:
        """Another application with the same issuer, whose store is this one's with something around it; built once."""
        key = (around, *sorted(changed.items()))
        if key not in self.others:
            store = around(self.store) if around else self.store
            self.others[key] = build(store, self.settings.data, **changed)
        return self.others[key]


@dataclass
class Gateway:
    """A client of the gateway that can be anybody of its test's own tenant, or of another."""

    built: Built
    client: httpx.AsyncClient
    tenant: str = field(default_factory=lambda: f"t{uuid4().hex[:10]}")

    def token(self, *roles: str, tenant: str | None = None, party: str | None = None) -> dict[str, str]:
        """The header of a caller with any roles, also such as no issuer of ours would write."""
        claims: dict[str, Any] = {"iss": LOCAL, "aud": "convergedon", "sub": party or "tester", "exp": 4e9}
        claims |= {"tenant": tenant or self.tenant, "roles": list(roles)} | ({"party": party} if party else {})
        return {"Authorization": "Bearer " + signed(self.built.settings.data, json.dumps(claims))}

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **given: Any
    ) -> httpx.Response:
        """A request of the tenant's administrator, unless the headers say who else asks."""
        said = {**(self.token("admin") if headers is None or "Authorization" not in headers else {}), **(headers or {})}
        return await self.client.request(method, path, headers=said, **given)

    def beside(self, around: Callable[[Store], Any] | None = None, **changed: Any) -> Gateway:
        """The same tenant's client of another application: with a store of its own kind, with other settings."""
        built = self.built.beside(around, **changed)
        return Gateway(built, client_of(built), self.tenant)

    async def events(self, base: str = "") -> list[Mapping[str, Any]]:
        """What the tenant's changes have put on the bus, in the words of the API at a base."""
        relay = Relay(self.built.store, self.built.bus, 0)
        await relay.start()
        async with asyncio.timeout(60):
            while await self.built.store.unsent(-1):
                await asyncio.sleep(0.001)
        await relay.stop()
        told = [body for body in await self.built.bus.read("event.>") if body["tenant"] == self.tenant]
        worded = [telling.told(body, base or body["base"]) for body in told]
        return [event for event in worded if event is not None]


@cache
def signed(folder: Path, claims: str) -> str:
    """A token by the local issuer's key; signing takes longer than most requests, so the same one is made once."""
    key: Any = load_pem_private_key((folder / "keys" / "issuer.pem").read_bytes(), None)
    return jwt.encode(json.loads(claims), key, algorithm="ES256")


def build(store: Store, data: Path, **changed: Any) -> Built:
    logs.configure("gateway", "error")  # as it is run: the default prints a failure with all variables, in a second
    # thousands of bad tokens come from one address here
    told = {"callback_networks": ["127.0.0.0/8"], "body_limit": LIMIT, "failure_limit": 0, **changed}
    given = settings.load(data=data, **told)
    bus, resources = MemoryBus(), Resources(store, APIS, URL)
    audited = MemoryStore(AUDIT_KINDS)
    writer = Audit(audited, bus, "gateway")
    operations = Operations(resources, Policy(Embedded(policy.read(given.policies))), writer, given)

    async def readiness() -> tuple[bool, Mapping[str, Any]]:
        return True, {}

    app = application(APIS, operations, Verifier(given), readiness, LIMIT)
    return Built(app, store, bus, given, resources, writer, audited)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(MemoryStore(STORE_KINDS), tmp_path_factory.mktemp("gateway"))


@pytest.fixture(scope="session")
def really_built(tmp_path_factory: pytest.TempPathFactory, mongodb_url: str) -> Iterator[Built]:
    store = MongoStore(mongodb_url, f"conformance{uuid4().hex[:8]}", STORE_KINDS)
    with ThreadPoolExecutor(1) as outside:  # a test's loop is running here already
        outside.submit(lambda: asyncio.run(store.open())).result()
        yield build(store, tmp_path_factory.mktemp("gateway"))
        outside.submit(lambda: asyncio.run(store.close())).result()


def client_of(built: Built) -> httpx.AsyncClient:
    """It runs the application itself: no connection, so nothing to close."""
    transport = httpx.ASGITransport(built.app, raise_app_exceptions=False)
    hooks: dict[str, list[Any]] = {"response": [as_declared]}
    return httpx.AsyncClient(transport=transport, base_url=URL, event_hooks=hooks)


@pytest.fixture
async def gateway(built: Built) -> Gateway:
    """The gateway with the store in memory."""
    return Gateway(built, client_of(built))


@pytest.fixture(params=["memory", "mongodb"])
async def any_gateway(request: pytest.FixtureRequest) -> Gateway:
    """The gateway with the store in memory, and with the embedded one."""
    built = request.getfixturevalue("built" if request.param == "memory" else "really_built")
    return Gateway(built, client_of(built))
