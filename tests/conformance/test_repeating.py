"""Trying again is safe: an Idempotency-Key makes one resource and one event, whoever takes the repetition."""

from __future__ import annotations

import asyncio

from conftest import Gateway
from contract import CREATABLE, Operation, each, listed, refused, settled

KEY = {"Idempotency-Key": "4711"}


@each(CREATABLE)
async def test_the_same_again_makes_nothing_more(gateway: Gateway, operation: Operation) -> None:
    """It is answered as the first time: the same resource, one event."""
    first = await gateway.ask("POST", operation.path(), headers=KEY, json=operation.examples)
    second = await gateway.ask("POST", operation.path(), headers=KEY, json=operation.examples)

    assert settled(operation, first) == settled(operation, second)
    assert (first.headers["location"], first.headers["etag"]) == (second.headers["location"], second.headers["etag"])
    assert len(await listed(gateway, operation)) == 1
    assert len(await gateway.events()) == 1


@each(CREATABLE)
async def test_many_at_once_make_one(any_gateway: Gateway, operation: Operation) -> None:
    """Twenty requests that meet in the store are all answered with the one resource."""
    once = [any_gateway.ask("POST", operation.path(), headers=KEY, json=operation.examples) for _ in range(20)]
    answers = await asyncio.gather(*once)

    assert len({settled(operation, answer)["id"] for answer in answers}) == 1
    assert len(await listed(any_gateway, operation)) == 1
    assert len(await any_gateway.events()) == 1


@each(CREATABLE)
async def test_a_key_for_something_else_is_refused(gateway: Gateway, operation: Operation) -> None:
    """422, and what was made first is as it was."""
    first = settled(operation, await gateway.ask("POST", operation.path(), headers=KEY, json=operation.examples))
    other = {**operation.examples, "@baseType": "Other"}

    refused(operation, await gateway.ask("POST", operation.path(), headers=KEY, json=other), 422)
    assert await listed(gateway, operation) == [first]


@each(CREATABLE)
async def test_a_key_is_its_callers_own(gateway: Gateway, operation: Operation) -> None:
    """The same key of another caller, or of another tenant's, makes a resource of its own."""
    callers = [
        gateway.token("admin"),
        gateway.token("admin", party="another"),
        gateway.token("admin", tenant=f"not-{gateway.tenant}"),
    ]
    ids = set()
    for caller in callers:
        answer = await gateway.ask("POST", operation.path(), headers={**KEY, **caller}, json=operation.examples)
        ids.add(settled(operation, answer)["id"])

    assert len(ids) == len(callers)


@each(CREATABLE)
async def test_a_key_has_a_length(gateway: Gateway, operation: Operation) -> None:
    """1 to 255 characters; another is refused with 400 and makes nothing."""
    for key in ("", "k" * 256):
        refused(
            operation,
            await gateway.ask("POST", operation.path(), headers={"Idempotency-Key": key}, json=operation.examples),
            400,
        )
    assert await listed(gateway, operation) == []
    longest = {"Idempotency-Key": "k" * 255}
    settled(operation, await gateway.ask("POST", operation.path(), headers=longest, json=operation.examples))
