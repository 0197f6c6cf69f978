"""An interface of a real NETCONF server is switched off and on, and looked at without being touched."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convergedon.adapters.contract import Device, Intent
from convergedon.adapters.netconf import NetconfAdapter, create
from convergedon.adapters.netconf.lab import Element
from convergedon.adapters.testing.trial import ignore
from convergedon.adapters.transaction import perform, read
from convergedon.core import settings

PORT = "ge-0/0/1"
READING = {"get", "get-config"}


@pytest.fixture
async def element(tmp_path: Path) -> AsyncIterator[Element]:
    element = Element("pe1", tmp_path, {PORT: 1000, "ge-0/0/2": 1000}, password="of the lab")
    await element.start()
    yield element
    await element.stop()


@pytest.fixture
async def adapter(element: Element) -> AsyncIterator[NetconfAdapter]:
    netconf = element.device_entry()["netconf"]
    adapter = create(settings.load(confirm_timeout=5), {"pe1": Device("pe1", "acme", "", {"netconf": netconf})})
    await adapter.start(ignore)
    yield adapter
    await adapter.stop()


def port(values: dict[str, Any] | None, key: str = "run:1", instance: str = PORT) -> Intent:
    return Intent(key, "acme", "pe1", "port", instance, values, time.time() + 30)


async def test_a_port_is_switched_off_and_on_and_what_is_on_it_follows(
    element: Element, adapter: NetconfAdapter
) -> None:
    told: list[tuple[str, bool]] = []
    element.on_link = lambda interface, up: told.append((interface, up))
    access = replace(
        port({"interface": PORT, "vlan": 100, "bandwidth": 10}), service="internet-access", instance="acc-1"
    )
    await perform(adapter, access)

    off = await perform(adapter, port({"enabled": False}, "run:1"))
    again = await perform(adapter, port({"enabled": False}, "run:2"))
    while_off = await read(adapter, access)
    on = await perform(adapter, port({"enabled": True}, "run:3"))
    afterwards = await read(adapter, access)

    assert [each.status for each in (off, again, on)] == ["applied", "unchanged", "applied"]
    assert told == [(PORT, False), (PORT, True)]
    assert while_off.words == "leaf oper-bandwidth: wanted 10, found 0"
    assert afterwards.agrees


async def test_a_hanging_link_comes_up_when_its_port_was_off_and_another_one_does_not(
    element: Element, adapter: NetconfAdapter
) -> None:
    element.set_link(PORT, up=False, hung=True)
    element.set_link("ge-0/0/2", up=False)
    seen = {}
    for name in (PORT, "ge-0/0/2"):
        for enabled in (False, True):
            outcome = await perform(adapter, port({"enabled": enabled}, f"{name}:{enabled}", name))
            assert outcome.status == "applied", outcome
        seen[name] = await read(adapter, port({"enabled": True, "operStatus": "up"}, "look", name))

    assert seen[PORT].agrees
    assert seen["ge-0/0/2"].words == "leaf oper-status: wanted up, found down"


async def test_a_reading_asks_for_nothing_but_to_read(element: Element, adapter: NetconfAdapter) -> None:
    """Of a port that was switched off, of one as it is by itself, and of one that is not there; whatever comes out."""
    await perform(adapter, port({"enabled": False}))
    before = (await adapter.observe(port({})), element.running())
    element.requests.clear()

    found = {
        instance: [
            await read(adapter, port(values, instance=instance))
            for values in ({}, {"operStatus": "up"}, {"enabled": False}, None)
        ]
        for instance in (PORT, "ge-0/0/2", "ge-9")
    }
    asked = set(element.requests)

    assert asked <= READING
    assert {instance: [one.agrees for one in readings] for instance, readings in found.items()} == {
        PORT: [True, False, True, False],
        "ge-0/0/2": [True, True, False, True],
        "ge-9": [True, False, False, True],
    }
    states = {instance: readings[0].state or {} for instance, readings in found.items()}
    assert (states[PORT]["enabled"], states[PORT]["oper-status"]) == ("false", "down")
    assert states["ge-0/0/2"]["oper-status"] == "up"
    assert states["ge-9"] == {}
    assert (await adapter.observe(port({})), element.running()) == before


async def test_what_only_can_be_looked_at_cannot_be_ordered(adapter: NetconfAdapter) -> None:
    outcome = await perform(adapter, port({"operStatus": "up"}))

    assert (outcome.status, outcome.reason) == ("refused", "value")


async def test_a_port_that_the_device_has_not_is_refused(adapter: NetconfAdapter) -> None:
    outcome = await perform(adapter, port({"enabled": False}, instance="ge-9"))

    assert outcome.status == "refused"
    assert "pe1 has no interface 'ge-9'" in outcome.words
