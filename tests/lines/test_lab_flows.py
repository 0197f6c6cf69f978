"""What is configured on a lab element is used, and its flow records say so all the time, sampled or not."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from elements import Elements

from convergedon.adapters.flow.exports import Exports
from convergedon.adapters.lab import SAMPLING, domain

EVERY = 0.2
BANDWIDTH, HALF = 80, 80 * 125_000 * 0.5


class Heard(Elements):
    """A lab whose elements export here, and what they say."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, exports=EVERY)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.flows = self._socket.getsockname()
        self.dropped: Counter[str] = Counter()
        self._reader = Exports(lambda reason, count: self.dropped.update({reason: count}))

    async def stop(self) -> None:
        await super().stop()
        self._socket.close()

    async def exports(self, number: int) -> list[Any]:
        """What the next datagrams hold."""
        found: list[Any] = []
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            while len(found) < number:
                data, (address, _) = await loop.sock_recvfrom(self._socket, 65_535)
                found += self._reader.read(data, address) or ()
        return found


@pytest.fixture
async def heard(tmp_path: Path) -> AsyncIterator[Heard]:
    playing = Heard(tmp_path)
    await playing.start()
    yield playing
    await playing.stop()


async def test_flows_are_half_of_the_bandwidth_in_each_direction_sampled_or_not(heard: Heard) -> None:
    """Of an element on which nothing is configured there are none."""
    places = {"10.7.0.1": "pe1", "10.7.0.2": "pe2"}
    for address, device in places.items():
        await heard.access(device, f"access-{device}", bandwidth=BANDWIDTH, address=address)
    octets: Counter[tuple[str, bool]] = Counter()
    spans: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    exports = (await heard.exports(14))[4:]
    for export in exports:
        for record in export.records:
            down = record["destination"] in places
            customer = record["destination"] if down else record["source"]
            assert export.domain == domain(places[customer])
            octets[customer, down] += record["octets"]
            if down:
                spans[customer].append((record["start"], record["end"]))
    seconds = {customer: sum(end - start for start, end in told) for customer, told in spans.items()}

    assert set(seconds) == set(places)
    for (customer, _), counted in octets.items():
        assert counted == pytest.approx(HALF * seconds[customer], rel=0.02)
    assert {export.domain: export.sampling for export in exports} == {domain("pe1"): 1, domain("pe2"): SAMPLING["pe2"]}
    assert all(before[1] == after[0] for told in spans.values() for before, after in pairwise(told))
    assert not heard.dropped


async def test_elements_are_quiet_when_they_are_told_to_be(heard: Heard) -> None:
    await heard.access("pe1", "access-1", bandwidth=BANDWIDTH, address="10.7.0.1")
    await heard.exports(2)
    began = time.time()
    heard.lab.quiet(60)
    await asyncio.sleep(4 * EVERY)
    ended = time.time()
    heard.lab.quiet(0)
    starts: list[float] = []
    while not starts or starts[-1] < ended:
        starts += [export.records[0]["start"] for export in await heard.exports(1)]

    assert len([start for start in starts if began < start < ended]) <= 1, "but for what was under way"
