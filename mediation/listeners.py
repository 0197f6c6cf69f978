"""What an operator does about listeners: sees them, sends one a test, has it told again what it missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any
from uuid import uuid4

from convergedon.core.bus import Bus, token
from convergedon.core.errors import Misconfigured, NotFound, Unavailable
from convergedon.core.policy import Policy
from convergedon.core.settings import Settings
from convergedon.core.store import Record, Store
from convergedon.handlers import hub, signing, telling
from convergedon.handlers.resource import HUB, now
from convergedon.mediation.delivery import Heard, heard, judge, queue, send, words
from convergedon.mediation.posting import Poster


async def listed(store: Store, bus: Bus, signer: signing.Signer) -> Sequence[Mapping[str, Any]]:
    """Every listener and how many events wait for it. ``signed``: it can check our signatures."""
    waiting = await bus.waiting("DELIVERY")
    return [
        {
            "id": record.id,
            "tenant": record.tenant,
            "api": record.facts["api"],
            "owner": record.facts["owner"]["id"],
            "callback": hub.shown(record.body["callback"]),
            "query": record.body["query"],
            "waiting": waiting.get(f"delivery.{record.id}", 0),
            "signed": signer.knows(record.facts.get("mark", "")),
        }
        for record in await store.find(HUB.name, {}, sort=[("tenant", 1), ("facts.api", 1), ("id", 1)])
    ]


async def replay(store: Store, bus: Bus, policy: Policy, id: str, start: float) -> int:
    """Queue again all events since a time that the listener asked for and may hear; returns how many.

    They are in their order, behind what waits already, and keep their eventId. Raises NotFound.
    """
    record, run, count = await _find(store, id), f"replay:{uuid4().hex}:", 0
    async for message in bus.since(f"event.*.{token(record.tenant)}.>", start):
        about = message.body
        if record.facts["api"] not in telling.bases(about):
            continue
        told = await heard(record, about, judge(policy, about))
        if isinstance(told, Heard):
            traced = {name: value for name, value in message.headers.items() if name == "traceparent"}
            await queue(bus, record, told, run, traced)
            count += 1
    return count


async def test(store: Store, settings: Settings, id: str) -> str:
    """Post a test event to a listener, past its queue, and say what it answered.

    Raises NotFound, Misconfigured, and Unavailable with the same sentence when the listener did not take it.
    """
    record, signer = await _find(store, id), signing.signer(settings)
    if not signer.knows(record.facts.get("mark", signer.mark)):
        raise Misconfigured(
            f"the secret of hub {id} follows from another key: set CONVERGEDON_HUB_KEY as workers have it"
        )
    poster, begun = Poster(settings.callback_networks), monotonic()
    try:
        answer = await send(poster, signer, record, _test_event(record))
    except Unavailable as error:
        raise Unavailable(f"listener {id} {error}") from error
    finally:
        await poster.close()
    said = f"listener {id} {words(answer)} after {monotonic() - begun:.3f} s"
    if not 200 <= answer.status < 300:
        raise Unavailable(said)
    return said


def _test_event(record: Record) -> Mapping[str, Any]:
    """An event of no resource, that says so; version 5 asks for ``@type``, version 4 takes it."""
    time = now()
    return {
        "@type": "HubTestEvent",
        "eventId": str(uuid4()),
        "eventTime": time,
        "eventType": "HubTestEvent",
        "title": "HubTestEvent",
        "description": "A test that an operator asked for: nothing has happened.",
        "domain": record.facts["api"].split("/")[2],
        "timeOcurred": time,
        "event": {"hub": {"id": record.id}},
    }


async def _find(store: Store, id: str) -> Record:
    found = await store.find(HUB.name, {"id": id})
    if not found:
        raise NotFound(f"there is no hub {id}")
    return found[0]
