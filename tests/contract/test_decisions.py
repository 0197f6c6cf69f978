"""The log of decisions: on the twin of the bus and on the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from time import time
from typing import Any
from uuid import uuid4

import pytest

from convergedon.core import decisions, policy
from convergedon.core.bus import Bus, NatsBus
from convergedon.core.decisions import DecisionLog, Entry
from convergedon.core.errors import NotFound, Unavailable
from convergedon.core.memory import MemoryBus
from convergedon.core.metrics import UNLOGGED
from convergedon.core.policy import Embedded, Policy, Subject

ENGINE = Embedded(policy.read())


@pytest.fixture(params=["memory", "nats"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "memory":
        memory = MemoryBus()
        yield memory
        await memory.close()
        return
    real = await NatsBus(request.getfixturevalue("nats_url"), "test").open()
    yield real
    await real.close()


@pytest.fixture
async def log(bus: Bus) -> AsyncIterator[DecisionLog]:
    made = DecisionLog(bus)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def asked(log: DecisionLog) -> Policy:
    return Policy(ENGINE, b"k" * 32, log.take)


@pytest.fixture
def tenant() -> str:
    """A tenant of this test's own: the real bus keeps what other tests asked."""
    return f"t.{uuid4().hex[:10]}"


def subject(tenant: str, **given: Any) -> Subject:
    return Subject(given.pop("id", "vendor"), tenant, ("csr",), **given)


def order(party: str) -> dict[str, Any]:
    return {"relatedParty": [{"id": party, "role": "customer"}], "productOrderItem": []}


async def entries(bus: Bus, tenant: str, since: float = 0) -> list[Entry]:
    found = [entry async for entry in decisions.since(bus, since)]
    return [entry for entry in found if entry.question and entry.question["subject"]["tenant"] == tenant]


async def logged(bus: Bus, tenant: str, count: int) -> list[Entry]:
    async with asyncio.timeout(20):
        while len(found := await entries(bus, tenant)) < count:
            await asyncio.sleep(0.02)
    return found


async def test_a_decision_is_kept_with_its_whole_question(bus: Bus, asked: Policy, tenant: str) -> None:
    """And with all that was answered; the caller did not wait for it."""
    resource = {"kind": "productOrder", "tenant": tenant, "id": "7"}
    made = await asked.decide(subject(tenant), "create", resource, order("northwind"), {"state": "x"}, "console")
    refused = await asked.decide(subject(tenant), "delete", {"kind": "alarm", "tenant": "other"})

    first, second = await logged(bus, tenant, 2)

    assert (first.id, first.allow, first.revision, first.input) == (made.id, True, made.revision, made.input)
    assert first.question is not None
    environment = first.question["environment"]
    assert first.question == {
        "subject": {"id": "vendor", "tenant": tenant, "roles": ["csr"]},
        "action": "create",
        "resource": resource,
        "body": order("northwind"),
        "before": {"state": "x"},
        "channel": "console",
        "environment": environment,
    }
    assert abs(environment["time"] - time()) < 60
    assert abs(first.at - time()) < 60
    assert (second.id, second.allow, second.reasons) == (refused.id, False, refused.reasons)
    assert len(second.reasons) == 2


async def test_readiness_fills_no_log(bus: Bus, asked: Policy) -> None:
    """It is asked every few seconds, and nothing hangs on it."""
    await asked.ping()
    await asked.decide(subject("t-ready"), "list", {"kind": "alarm"})

    (kept,) = await logged(bus, "t-ready", 1)
    assert kept.question is not None
    assert await entries(bus, "") == []


async def test_many_decisions_are_few_messages(bus: Bus, asked: Policy, tenant: str) -> None:
    """In their order, none lost, and on a subject of their tenant's."""
    made = [await asked.decide(subject(tenant), "list", {"kind": "alarm", "id": str(n)}) for n in range(1500)]
    found = await logged(bus, tenant, 1500)
    messages = [message async for message in bus.since(f"{decisions.subject(tenant)}.>", 0)]

    assert [entry.id for entry in found] == [one.id for one in made]
    assert len(messages) < 20
    assert all(len(message.body["decisions"]) for message in messages)


async def test_a_decision_is_found_by_its_id(bus: Bus, asked: Policy, tenant: str) -> None:
    made = [await asked.decide(subject(tenant), "list", {"kind": "alarm"}) for _ in range(3)]
    await logged(bus, tenant, 3)

    assert (await decisions.find(bus, made[1].id)).id == made[1].id
    with pytest.raises(NotFound, match="CONVERGEDON_DECISION_AGE"):
        await decisions.find(bus, made[1].id[:-4] + "0000")
    with pytest.raises(NotFound, match="is no id of a decision"):
        await decisions.find(bus, "7")


async def test_only_what_was_made_since_is_read(bus: Bus, asked: Policy, tenant: str) -> None:
    await asked.decide(subject(tenant), "list", {"kind": "alarm"})
    await logged(bus, tenant, 1)
    await asyncio.sleep(0.01)
    start = time()
    later = await asked.decide(subject(tenant), "list", {"kind": "alarm"})
    await logged(bus, tenant, 2)

    assert [entry.id for entry in await entries(bus, tenant, start)] == [later.id]


@pytest.mark.parametrize("how", ["subject", "party", "in the body", "in a reason"])
async def test_who_is_forgotten_is_in_no_decision(bus: Bus, asked: Policy, tenant: str, how: str) -> None:
    """Wherever the question names the person; those of others in the same message stay, and can be found."""
    other = await asked.decide(subject(tenant), "create", {"kind": "productOrder"}, order("contoso"))
    given: dict[str, tuple[Subject, Any]] = {
        "subject": (subject(tenant, id="anna"), None),
        "party": (subject(tenant, party="anna"), None),
        "in the body": (subject(tenant), {**order("x"), "note": [{"text": "call anna@example.org, she knows"}]}),
        "in a reason": (subject(tenant), order("anna")),
    }
    who, body = given[how]
    gone = await asked.decide(who, "create", {"kind": "productOrder"}, body)
    spared = await asked.decide(subject(tenant), "create", {"kind": "productOrder"}, order("joanna"))
    await logged(bus, tenant, 3)

    count = await decisions.forget(bus, tenant, "anna")

    assert count == 1
    assert [entry.id for entry in await entries(bus, tenant)] == [other.id, spared.id]
    assert (await decisions.find(bus, spared.id)).id == spared.id
    with pytest.raises(NotFound):
        await decisions.find(bus, gone.id)
    assert await decisions.forget(bus, tenant, "anna") == 0


async def test_another_tenants_namesake_is_not_forgotten(bus: Bus, asked: Policy, tenant: str) -> None:
    await asked.decide(subject(tenant, id="anna"), "list", {"kind": "alarm"})
    await logged(bus, tenant, 1)

    assert await decisions.forget(bus, f"{tenant}x", "anna") == 0
    assert len(await entries(bus, tenant)) == 1


async def test_what_a_listener_is_called_by_is_kept_without_its_secrets(bus: Bus, asked: Policy, tenant: str) -> None:
    """Neither the user of a callback's URL nor its query gets to the policies or their log."""
    body = {"callback": "https://bss:s3cret@listener.example:8443/events?token=s3cret#s3cret", "query": "state=held"}
    made = await asked.decide(subject(tenant), "create", {"kind": "hub", "tenant": tenant}, body)

    (kept,) = await logged(bus, tenant, 1)

    assert made.allow
    assert kept.question is not None
    assert kept.question["body"] == {"callback": "https://listener.example:8443/events", "query": "state=held"}
    stored = [message.body async for message in bus.since(f"{decisions.subject(tenant)}.>", 0)]
    assert "s3cret" not in str(stored)


async def test_a_question_too_large_is_left_out_and_its_decision_kept(bus: Bus, asked: Policy, tenant: str) -> None:
    """It would not go over the bus in one message."""
    made = await asked.decide(subject(tenant), "create", {"kind": "productOrder"}, {"text": "x" * 900_000})
    async with asyncio.timeout(20):
        while True:
            try:
                kept = await decisions.find(bus, made.id)
                break
            except NotFound:
                await asyncio.sleep(0.02)

    assert (kept.question, kept.allow, kept.input) == (None, True, made.input)


class Away(MemoryBus):
    """A bus that can be away, or takes a message and does not say so."""

    away = False
    silent = False

    async def publish(
        self, subject: str, body: Mapping[str, Any], id: str, headers: Mapping[str, str] | None = None
    ) -> None:
        if self.away:
            raise Unavailable("NATS does not answer")
        await super().publish(subject, body, id, headers)
        if self.silent:
            self.silent = False
            raise Unavailable("NATS does not answer")


async def test_a_bus_that_is_away_costs_nothing_until_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions wait, so many and no more: what is dropped is counted, and nobody is held up."""
    monkeypatch.setattr(decisions, "WAITING_BYTES", 30_000)
    bus = Away()
    bus.away = True
    log = DecisionLog(bus)
    await log.start()
    asked = Policy(ENGINE, b"k" * 32, log.take)
    before = UNLOGGED.labels("the bus is away")._value.get()
    made = [await asked.decide(subject("acme"), "list", {"kind": "alarm"}) for _ in range(200)]
    dropped = UNLOGGED.labels("the bus is away")._value.get() - before

    bus.away = False
    found = await logged(bus, "acme", int(200 - dropped))
    await log.stop()

    assert 0 < dropped < 200
    assert [entry.id for entry in found] == [one.id for one in made[: len(found)]]


async def test_a_batch_that_was_taken_unheard_is_not_there_twice() -> None:
    """It is published again as it was, though more has come meanwhile."""
    bus = Away()
    bus.silent = True
    log = DecisionLog(bus)
    await log.start()
    asked = Policy(ENGINE, b"k" * 32, log.take)
    first = await asked.decide(subject("acme"), "list", {"kind": "alarm"})
    async with asyncio.timeout(20):
        while bus.silent:
            await asyncio.sleep(0.01)
    second = await asked.decide(subject("acme"), "list", {"kind": "alarm"})
    await log.stop()

    assert [entry.id for entry in await entries(bus, "acme")] == [first.id, second.id]


async def test_what_was_decided_last_is_stored_at_the_end(bus: Bus, tenant: str) -> None:
    log = DecisionLog(bus)
    await log.start()
    made = await Policy(ENGINE, taken=log.take).decide(subject(tenant), "list", {"kind": "alarm"})
    await log.stop()

    assert [entry.id for entry in await entries(bus, tenant)] == [made.id]
