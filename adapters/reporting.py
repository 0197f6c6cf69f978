"""How observations reach the bus: one in a message of its own, or many of one partition and tenant in one message.

A publish and its acknowledgement cost as much as a trap from its arrival on, so what arrives together is stored
together. Messages go out in the order of what is in them and over one connection: each device's stay in order.

An adapter whose devices can tell again keeps here how far it has heard them, for whoever goes on after it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import orjson

from convergedon.adapters.contract import Observation
from convergedon.adapters.intake import Parcel, Told
from convergedon.core import trace
from convergedon.core.bus import Bus, partition, token

LARGEST_MESSAGE = 512 * 1024
"""Half of what the bus takes."""


class Reporting:
    """The ``Report`` that an adapter role gives its adapter; an intake packs what it reports."""

    def __init__(self, adapter: str, bus: Bus) -> None:
        self._adapter, self._bus = token(adapter), bus

    async def __call__(self, seen: Observation) -> None:
        await self._bus.publish(self._subject(seen.device), {"observation": vars(seen)}, seen.id)

    async def reached(self, device: str) -> dict[str, Any] | None:
        """The position that was kept of a device, with the id of what was ``reported`` last: it may be newer."""
        kept, told = await self._bus.last(self._position(device)), await self._bus.last(self._subject(device))
        if kept is None:
            return None
        return {**kept.body, "reported": told.body["observation"]["id"] if told else ""}

    async def reach(self, device: str, position: Mapping[str, Any]) -> None:
        """Keep a position of a device in place of the former: ``at`` and ``ids``, what of that moment is safe."""
        await self._bus.publish(self._position(device), position, f"position:{uuid4().hex}")

    def _position(self, device: str) -> str:
        return f"position.{self._adapter}.{token(device)}"

    def pack(self, told: Sequence[Told]) -> list[Parcel]:
        parcels: list[Parcel] = []
        for group in self._groups(told):
            parcels += self._of_one(group) if len(group) == 1 else self._of_many(group)
        return parcels

    def _groups(self, told: Sequence[Told]) -> list[list[Told]]:
        """What may share a message; of one partition and tenant in the order of arrival.

        What its sender may send again has a message to itself: by its id the bus knows it when it comes again.
        """
        groups: list[list[Told]] = []
        open_: dict[tuple[int, str], list[Told]] = {}
        for each in told:
            place = (partition(each.observation.device), each.observation.tenant)
            if each.safe is not None:
                open_.pop(place, None)
                groups.append([each])
            elif place in open_:
                open_[place].append(each)
            else:
                open_[place] = [each]
                groups.append(open_[place])
        return groups

    def _of_one(self, group: Sequence[Told]) -> list[Parcel]:
        seen = group[0].observation
        headers = {"traceparent": trace.begun_by(seen.id)}
        return [Parcel(group, self._sending(self._subject(seen.device), {"observation": vars(seen)}, seen.id, headers))]

    def _of_many(self, group: Sequence[Told]) -> list[Parcel]:
        """Written at once, so that a message is no larger than the bus takes; the order of its parcels is theirs."""
        first = group[0].observation
        subject = f"network.{partition(first.device)}.{self._adapter}.{token('')}"
        parcels: list[Parcel] = []
        for many, written in _written(group):
            body = {"tenant": first.tenant, "observations": written}
            id = f"{many[0].observation.id}+{len(many) - 1}"
            parcels.append(Parcel(many, self._sending(subject, body, id, {"traceparent": trace.begun_by(id)})))
        return parcels

    def _sending(
        self, subject: str, body: Mapping[str, Any], id: str, headers: Mapping[str, str]
    ) -> Callable[[], Awaitable[None]]:
        return lambda: self._bus.publish(subject, body, id, headers)

    def _subject(self, device: str) -> str:
        return f"network.{partition(device)}.{self._adapter}.{token(device)}"


def _written(group: Sequence[Told]) -> list[tuple[list[Told], list[orjson.Fragment]]]:
    """The observations as JSON, in as few messages as hold them."""
    found: list[tuple[list[Told], list[orjson.Fragment]]] = []
    room = 0
    for each in group:
        seen = each.observation
        text = orjson.dumps({"traceparent": trace.begun_by(seen.id), "observation": vars(seen)})
        if len(text) > room:
            found.append(([], []))
            room = LARGEST_MESSAGE
        room -= len(text)
        found[-1][0].append(each)
        found[-1][1].append(orjson.Fragment(text))
    return found
