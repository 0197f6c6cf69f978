"""Devices that call home (RFC 8071) are spoken to like any other, and like no other where they are not who they say."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from structlog.testing import capture_logs

from convergedon.adapters.contract import Device, Intent, Observation, Outcome
from convergedon.adapters.netconf import NetconfAdapter, create
from convergedon.adapters.netconf.calling import AT_ONCE
from convergedon.adapters.netconf.lab import Element, Fault, running
from convergedon.adapters.testing.trial import ignore
from convergedon.adapters.transaction import perform
from convergedon.core import metrics, settings
from convergedon.core.errors import Misconfigured

PORT = "ge-0/0/1"
GOLD = {"interface": PORT, "vlan": 100, "bandwidth": 200}
HOME = "127.0.20.1"
"""Where the elements call from: all of them, as behind a NAT."""


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

    async def until_welcomed(self) -> None:
        """Until the device is spoken to and nobody is about to open a session with it."""
        async with asyncio.timeout(10):
            while self.adapter._welcoming or not self.is_connected():
                await asyncio.sleep(0.01)

    def is_connected(self) -> bool:
        return self.adapter._peers["pe1"].health()["state"] == "connected"

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


async def test_a_device_that_does_not_answer_at_first_need_not_call_again(element: Element) -> None:
    """It is asked anew in another session over the same connection; behind it no call waits."""
    element.faults.append(Fault("silence", "get-config"))
    async with Home(device(element)) as home:
        await element.call_home(home.host, home.port, HOME)
        outcome = await home.told(element)

        assert outcome.status == "applied", outcome
        assert (element.sessions_opened, len(element._server.connections)) == (2, 1)


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
            while home.is_connected():
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


async def refusals(home: Home) -> Any:
    return (await home.adapter.health())["callHome"]["refused"]


async def test_who_calls_with_a_host_key_that_no_device_has_is_not_spoken_to(element: Element, tmp_path: Path) -> None:
    """It is counted, and the log has its key, by which an operator makes it known."""
    other = Element("pe1", tmp_path / "other", {PORT: 1000}, password="guessed")
    await other.start()
    before = metrics.DROPPED.labels("netconf", "call home: hostKey")._value.get()
    async with Home(device(element)) as home:
        with capture_logs() as logged, pytest.raises((asyncssh.Error, OSError)):
            await other.call_home(home.host, home.port, HOME)
        outcome = await home.told(element, within=0.5)
        refused = await refusals(home)
    shown = other.device_entry()["netconf"]["hostKey"]
    await other.stop()

    assert (outcome.status, outcome.reason) == ("unknown", "unreachable")
    assert other.sessions_opened == 0
    assert running(other) == {}
    assert refused == {"hostKey": 1}
    assert metrics.DROPPED.labels("netconf", "call home: hostKey")._value.get() == before + 1
    (line,) = [one for one in logged if one["event"] == "a call home with a host key that no device has"]
    assert (line["address"], line["hostKey"]) == (HOME, shown)
    assert line["fingerprint"].startswith("SHA256:")


async def test_two_devices_behind_one_address_are_told_apart_by_their_host_keys(
    element: Element, tmp_path: Path
) -> None:
    """Of neither it is known from where it calls."""
    second = Element("pe2", tmp_path / "pe2", {PORT: 1000}, password="of the second")
    await second.start()
    async with Home(device(element, "192.0.2.1"), device(second, "192.0.2.1")) as home:
        await second.call_home(home.host, home.port, HOME)
        await element.call_home(home.host, home.port, HOME)
        outcomes = [await home.told(one) for one in (element, second)]
        found = [list(running(one)) for one in (element, second)]
        refused = await refusals(home)
    await second.stop()

    assert [one.status for one in outcomes] == ["applied", "applied"]
    assert found == [["acc-1"], ["acc-1"]]
    assert refused == {}


async def test_what_is_no_ssh_server_is_counted_and_holds_up_nobody(element: Element) -> None:
    """Nor do many that say nothing: those on top of so many are hung up on, and there is room again when they go."""
    async with Home(device(element)) as home:
        silent = [await asyncio.open_connection(home.host, home.port, local_addr=(HOME, 0)) for _ in range(AT_ONCE)]
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(home.host, home.port, local_addr=(HOME, 0))
            over = await reader.read()
            for _, one in silent:
                one.write(b"GET / HTTP/1.1\r\n\r\n")
                one.close()
            while (refused := await refusals(home)) != {"busy": 1, "ssh": AT_ONCE}:
                await asyncio.sleep(0.01)
        writer.close()
        await element.call_home(home.host, home.port, HOME)
        outcome = await home.told(element)

    assert over == b""
    assert refused == {"busy": 1, "ssh": AT_ONCE}
    assert outcome.status == "applied"


async def test_a_device_with_several_keys_is_asked_for_another_when_it_calls_again(
    element: Element, tmp_path: Path
) -> None:
    """We know the second of its keys by a file, under the device's name; another device has a key of the first kind."""
    second = Element("pe2", tmp_path / "pe2", {PORT: 1000})
    await second.start()
    ours = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    (tmp_path / "known").write_text(f"pe2 {ours.export_public_key().decode()}")
    keys = {"server_host_keys": [asyncssh.generate_private_key("ssh-ed25519"), ours]}
    known = device(second, hostKey=None, knownHosts=str(tmp_path / "known"))
    async with Home(device(element), known) as home:
        for _ in range(2):
            with suppress(asyncssh.Error, OSError):
                options = second._server._options() | keys
                await asyncssh.connect_reverse(home.host, home.port, local_addr=(HOME, 0), **options)
        refused, outcome = await refusals(home), await home.told(second)
    await second.stop()

    assert refused == {"hostKey": 1}
    assert outcome.status == "applied"


async def test_who_hung_up_while_it_waited_is_not_spoken_to(element: Element) -> None:
    """A server gives up a connection on which nobody logs in for some minutes."""
    async with Home(device(element)) as home:
        await element.call_home(home.host, home.port, HOME)
        await home.until_welcomed()
        second = asyncio.ensure_future(element.call_home(home.host, home.port, HOME))
        waiting = home.adapter._calls._waiting["pe1"]  # type: ignore[union-attr]
        async with asyncio.timeout(10):
            while not waiting.qsize():
                await asyncio.sleep(0.01)
            await home.until_welcomed()  # with both, so that nobody takes the second before it has hung up
            for connection in list(element._server.connections):
                connection.abort()
            await asyncio.wait([second])
            while waiting.queue[0].is_active() or home.is_connected():
                await asyncio.sleep(0.01)
        told = asyncio.ensure_future(home.told(element))
        await element.call_home(home.host, home.port, HOME)
        outcome = await told

        assert outcome.status == "applied", outcome


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


async def test_one_key_is_of_one_device(element: Element, tmp_path: Path) -> None:
    same = {name: Device(name, "acme", HOME, device(element).settings) for name in ("pe1", "pe2")}
    adapter = create(settings.load(call_home_port=0), same)
    with pytest.raises(Misconfigured, match="devices pe1 and pe2: both call home with the same host key"):
        await adapter.start(ignore)
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    (tmp_path / "known").write_text(f"pe7 {other}")
    strange = device(element, hostKey=None, knownHosts=str(tmp_path / "known"))
    with pytest.raises(Misconfigured, match=f"pe1.netconf.knownHosts: has no key of pe1 or {HOME}, by which it is"):
        create(settings.load(), {"pe1": strange})


async def test_who_calls_must_be_known_by_a_key(element: Element) -> None:
    with pytest.raises(Misconfigured, match=r"pe1.netconf.callHome: who calls home must prove itself"):
        create(settings.load(), {"pe1": device(element, hostKey=None, trustFirstUse=True)})
