"""Devices that call home (RFC 8071) are spoken to like any other, and like no other where they are not who they say."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from convergedon.adapters.contract import Device, Intent, Observation, Outcome
from convergedon.adapters.netconf import NetconfAdapter, create
from convergedon.adapters.netconf.lab import Element, running
from convergedon.adapters.testing.trial import ignore
from convergedon.adapters.transaction import perform
from convergedon.core import settings
from convergedon.core.errors import Misconfigured

PORT = "ge-0/0/1"
GOLD = {"interface": PORT, "vlan": 100, "bandwidth": 200}
HOME, OTHER = "127.0.20.1", "127.0.20.2"
"""Where the two elements call from."""


@pytest.fixture
async def element(tmp_path: Path) -> AsyncIterator[Element]:
    element = Element("pe1", tmp_path / "pe1", {PORT: 1000})
    await element.start()
    yield element
    await element.stop()


def device(element: Element, address: str = HOME, **changed: Any) -> Device:
    """It is not said where the element listens: that is not used."""
    given = element.device_entry()["netconf"]
    netconf = {name: given[name] for name in ("username", "password", "hostKey")} | {"callHome": True} | changed
    return Device(element.name, "acme", address, {"netconf": {name: one for name, one in netconf.items() if one}})


class Home:
    """An adapter at home, and where it is called."""

    def __init__(self, *devices: Device) -> None:
        self.adapter: NetconfAdapter = create(settings.load(call_home_port=0), {one.name: one for one in devices})
        self.seen: asyncio.Queue[Observation] = asyncio.Queue()

    async def __aenter__(self) -> Home:
        (address,) = await self.adapter.start(self.seen.put)
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.adapter.stop()

    async def told(self, element: Element, within: float = 30.0, key: str = "order-1") -> Outcome:
        wanted = Intent(key, "acme", element.name, "internet-access", "acc-1", GOLD, time.time() + within)
        return await perform(self.adapter, wanted)


async def test_a_device_that_called_is_changed_over_its_connection(element: Element) -> None:
    """Its session is opened as soon as it has called; nobody connects to it."""
    async with Home(device(element)) as home:
        await element.call_home(home.host, home.port, HOME)
        await element.until(lambda: len(element.sessions) == 1)
        outcome = await home.told(element)

        assert outcome.status == "applied", outcome
        assert list(running(element)) == ["acc-1"]
        assert element.sessions_opened == 1


async def test_an_intent_waits_for_the_device_to_call(element: Element) -> None:
    async with Home(device(element)) as home:
        waiting = asyncio.ensure_future(home.told(element))
        await asyncio.sleep(0)
        await element.call_home(home.host, home.port, HOME)

        assert (await waiting).status == "applied"


async def test_a_device_that_calls_again_is_spoken_to_again(element: Element) -> None:
    async with Home(device(element)) as home:
        await element.call_home(home.host, home.port, HOME)
        await home.told(element)
        for session in list(element.sessions.values()):
            session.drop()
        async with asyncio.timeout(10):
            while (await home.adapter.health())["devices"]["pe1"]["state"] == "connected":
                await asyncio.sleep(0.01)
        away = await home.told(element, within=0.5, key="order-2")
        await element.call_home(home.host, home.port, HOME)
        again = await home.told(element, key="order-2")

        assert (away.status, away.reason) == ("unknown", "unreachable")
        assert "which calls home) has not called within" in away.words
        assert again.status == "unchanged"


async def test_stopping_does_not_wait_for_a_call(element: Element) -> None:
    async with Home(device(element)) as home:
        waiting = asyncio.ensure_future(home.told(element))
        while not (await home.adapter.health())["devices"]["pe1"]["waiting"]:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(4):
            await home.adapter.stop()
            outcome = await waiting

    assert outcome.retriable


async def test_what_a_device_tells_by_itself_needs_a_second_call(element: Element) -> None:
    async with Home(device(element, notifications=True)) as home:
        for _ in range(2):
            await element.call_home(home.host, home.port, HOME)
        async with asyncio.timeout(20):
            await element.until(lambda: any(one.subscribed for one in element.sessions.values()))
            element.set_link(PORT, False)
            kinds = [(await home.seen.get()).kind for _ in range(2)]
        element.set_link(PORT, True)
        outcome = await home.told(element)

        assert "fault" in kinds
        assert outcome.done


async def test_who_calls_with_another_host_key_is_not_spoken_to(element: Element, tmp_path: Path) -> None:
    other = Element("pe1", tmp_path / "other", {PORT: 1000}, password="guessed")
    await other.start()
    async with Home(device(element)) as home:
        with pytest.raises((asyncssh.Error, OSError)):
            await other.call_home(home.host, home.port, HOME)
        outcome = await home.told(element, within=0.5)
    await other.stop()

    assert (outcome.status, outcome.reason) in {("unknown", "credentials"), ("unknown", "unreachable")}
    assert other.sessions_opened == 0
    assert running(other) == {}


async def test_who_calls_from_an_address_that_nobody_has_is_hung_up_on(element: Element) -> None:
    async with Home(device(element)) as home:
        reader, writer = await asyncio.open_connection(home.host, home.port, local_addr=(OTHER, 0))
        said = await reader.read()
        writer.close()

    assert said == b""
    assert element.sessions_opened == 0


async def test_two_devices_are_told_apart_by_where_they_call_from(element: Element, tmp_path: Path) -> None:
    second = Element("pe2", tmp_path / "pe2", {PORT: 1000}, password="of the second")
    await second.start()
    async with Home(device(element), device(second, OTHER)) as home:
        await second.call_home(home.host, home.port, OTHER)
        await element.call_home(home.host, home.port, HOME)
        outcomes = [await home.told(one) for one in (element, second)]
        found = [list(running(one)) for one in (element, second)]
    await second.stop()

    assert [one.status for one in outcomes] == ["applied", "applied"]
    assert found == [["acc-1"], ["acc-1"]]


async def test_without_such_devices_nobody_listens(element: Element) -> None:
    adapter = create(settings.load(), {"pe1": device(element, callHome=None)})
    addresses = await adapter.start(ignore)
    await adapter.stop()

    assert list(addresses) == []


async def test_a_taken_port_is_told(element: Element) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        adapter = create(settings.load(call_home_port=port), {"pe1": device(element)})

        with pytest.raises(Misconfigured, match=rf"call home to 127.0.0.1 port {port} \(CONVERGEDON_CALL_HOME_PORT\)"):
            await adapter.start(ignore)
    await adapter.stop()


async def test_where_a_device_calls_from_is_one_address_of_its_own(element: Element) -> None:
    with pytest.raises(Misconfigured, match=r"pe1: netconf.host: must be the address from which the device calls home"):
        create(settings.load(), {"pe1": device(element, host="pe1.example.net")})
    same = {name: Device(name, "acme", HOME, device(element).settings) for name in ("pe1", "pe2")}
    adapter = create(settings.load(call_home_port=0), same)
    with pytest.raises(Misconfigured, match=f"devices pe1 and pe2: both call home from {HOME}"):
        await adapter.start(ignore)


async def test_who_calls_must_be_known_by_a_key(element: Element) -> None:
    with pytest.raises(Misconfigured, match=r"pe1: netconf.callHome: who calls home must prove itself"):
        create(settings.load(), {"pe1": device(element, hostKey=None, trustFirstUse=True)})
