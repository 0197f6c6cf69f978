"""What flows, counters and files say of the same service is shown side by side, with how far they are apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time
from typing import Any

import pytest
from click.testing import CliRunner
from scene import BERLIN, Scene, item

from convergedon.core import cli
from convergedon.handlers.usage import USAGE
from convergedon.mediation import drift

NOW = float(int(time()))
START, END = (datetime.fromtimestamp(NOW + seconds, UTC) for seconds in (-3600, 1))
PEER, HERE = "192.0.2.1", "10.1.0.10"


def flow(octets: int, ago: float) -> dict[str, Any]:
    ends = {"source": PEER, "destination": HERE}
    return {**ends, "octets": octets, "packets": 1, "start": NOW - ago - 60, "end": NOW - ago}


def poll(octets: int, ago: float) -> dict[str, Any]:
    counts = {"octetsIn": 0, "octetsOut": octets, "packetsIn": 0, "packetsOut": 9}
    return {"interface": "ge-1", "counts": counts, "start": NOW - ago - 60, "end": NOW - ago}


def call(service: str, ago: float) -> dict[str, Any]:
    times = {"start": NOW - ago - 60, "end": NOW - ago}
    return {"id": f"call-{ago}", "service": service, "counts": {"seconds": 60}, "texts": {}, **times}


@pytest.fixture
async def still(still: Scene) -> Scene:
    """One service: 9,500 octets by flows, 10,000 by counters, two calls; and flows of an address that is none's."""
    await still.ended(await still.order(item(**BERLIN)))
    (service,) = await still.find("service")
    for ago in (500, 400):
        await still.say("flow", records=[flow(4750, ago)])
        await still.say("counter", records=[poll(5000, ago)])
        voice = {"usageType": "voice", "names": ["seconds"], "records": [call(service.id, ago)]}
        await still.say("call", adapter="file", **voice)
    await still.settled()
    return still


async def test_each_service_shows_what_its_sources_say_and_how_far_they_are_apart(still: Scene) -> None:
    (service,) = await still.find("service")
    (found,) = await drift.between(still.store, service.tenant, START, END)
    lines = str(found).splitlines()

    assert lines[0] == f"service {service.id} ({found.name}): 5.0 % apart"
    assert [line.split(" in ")[0] for line in lines[1:]] == [
        "  interface-traffic (interface counters) octetsDown 10,000, packetsDown 18",
        "  ip-traffic (flow records) octetsDown 9,500, packetsDown 2",
        "  voice (records) seconds 120",
    ]
    assert lines[2].endswith(": 5.0 % less")
    assert found.name
    document = found.document
    assert document["percent"] == 5.0
    assert [one["percent"] for one in document["sources"]] == [0.0, 5.0, None]
    assert [one["records"] for one in document["sources"]] == [2, 2, 2]


async def test_only_what_ended_in_the_time_is_compared_and_only_what_is_further_apart(still: Scene) -> None:
    tenant = (await still.find("service"))[0].tenant
    (earlier,) = await drift.between(still.store, tenant, START, datetime.fromtimestamp(NOW - 450, UTC))

    assert earlier.sources["ip-traffic"].octets == 4750
    assert await drift.between(still.store, tenant, START, END, above=5.0) == []
    assert len(await drift.between(still.store, tenant, START, END, above=4.9)) == 1
    assert await drift.between(still.store, "globex", START, END) == []
    assert await drift.between(still.store, tenant, END, END + timedelta(hours=3)) == []


async def test_what_belongs_to_no_service_is_shown_and_compared_with_nothing(still: Scene) -> None:
    (service,) = await still.find("service")
    said = [{"name": "address", "value": "10.9.9.9"}, {"name": "octetsDown", "value": "9" * 20}]
    body = {"usageType": "ip-traffic", "usageDate": (END - timedelta(seconds=60)).isoformat()}
    await still.resources.create(USAGE, service.tenant, {**body, "usageCharacteristic": said})
    await still.settled()
    found = {one.service: one for one in await drift.between(still.store, service.tenant, START, END)}

    assert str(found[""]).startswith("of no service that is known (yet): no two sources that count octets\n")
    assert found[""].sources["ip-traffic"].octets == int("9" * 20)
    assert found[service.id].percent == 5.0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--from", "yesterday"], "--from is a time with its zone, for example 2026-05-01T12:00:00Z"),
        (["--to", "2026-05-01"], "--to is a time with its zone, for example 2026-05-01T12:00:00Z"),
        (
            ["--from", "2026-05-02T00:00:00Z", "--to", "2026-05-01T00:00:00Z"],
            "--from 2026-05-02T00:00:00+00:00 is not before --to 2026-05-01T00:00:00+00:00",
        ),
        (
            ["--from", "2020-05-01T00:00:00Z", "--to", "2026-05-01T00:00:00Z"],
            "--from and --to are 2191 days apart: compare 366 at most",
        ),
        (["--above", "101"], "--above is a number of per cent from 0 to 100, not 101"),
        (
            ["an-id", "--above", "5"],
            "--from, --to and --above compare the sources of services: leave out the id of a usage",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(tmp_path: Path, given: list[str], words: str) -> None:
    said = CliRunner().invoke(cli.main, ["usage", "sources", "--tenant", "acme", "--data", str(tmp_path), *given])

    assert said.exit_code != 0
    assert said.output.strip().endswith(words)
    assert len(said.output.strip().splitlines()) == 1
