"""What elements tell by themselves becomes observations, none lost and none twice; and whom the adapter trusts."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from prometheus_client import REGISTRY

from convergedon.adapters.contract import Device, Observation
from convergedon.adapters.netconf import NetconfAdapter, adapter, create, mapping
from convergedon.adapters.netconf.lab import ACCESS, NOTIFICATION, Element
from convergedon.adapters.reporting import Reporting
from convergedon.adapters.silence import key
from convergedon.adapters.testing.trial import ignore
from convergedon.core import metrics, settings
from convergedon.core.errors import CredentialsRefused, Misconfigured, Unavailable
from convergedon.core.memory import MemoryBus

PORT = "ge-0/0/1"
SILENCE = key("netconf")


class Reported:
    """What was reported, of silence apart; ``away`` is how often it cannot be made safe."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.silence: list[str] = []
        self.away = 0
        self._more = asyncio.Condition()

    async def __call__(self, observation: Observation) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("the bus is away")
        async with self._more:
            if observation.key == SILENCE:
                self.silence.append(observation.kind)
            else:
                self.seen.append(observation)
            self._more.notify_all()

    async def until_silence(self, *kinds: str) -> None:
        async with asyncio.timeout(20), self._more:
            await self._more.wait_for(lambda: self.silence == [*kinds])

    async def until(self, number: int) -> list[Observation]:
        async with asyncio.timeout(20), self._more:
            await self._more.wait_for(lambda: len(self.seen) >= number)
        return self.seen


@pytest.fixture
async def element(tmp_path: Path) -> AsyncIterator[Element]:
    element = Element("pe1", tmp_path / "pe1", {PORT: 1000})
    await element.start()
    yield element
    await element.stop()


@pytest.fixture
def reported() -> Reported:
    return Reported()


@pytest.fixture
async def listening(element: Element, reported: Reported) -> AsyncIterator[NetconfAdapter]:
    adapter = create(settings.load(), {"pe1": device(element, notifications=True)})
    await adapter.start(reported)
    await element.until(lambda: any(session.subscribed for session in element.sessions.values()))
    yield adapter
    await adapter.stop()


def device(element: Element, **changed: Any) -> Device:
    entry = {**element.device_entry()["netconf"], **changed}
    return Device("pe1", "acme", "127.0.0.1", {"netconf": {key: value for key, value in entry.items() if value}})


async def test_a_link_that_goes_down_and_up_is_a_fault_and_its_clear(
    element: Element, listening: NetconfAdapter, reported: Reported
) -> None:
    """With the key of the traps that say the same: it is one condition, whoever tells."""
    element.set_link(PORT, False)
    element.set_link(PORT, True)
    down, up = await reported.until(2)

    assert (down.kind, down.device, down.tenant, down.object, down.key) == (
        "fault",
        "pe1",
        "acme",
        PORT,
        f"link:{PORT}",
    )
    assert down.attributes["perceivedSeverity"] == "major"
    assert down.attributes["details"] == {"interface": PORT, "oper-status": "down"}
    assert (up.kind, up.key) == ("clear", f"link:{PORT}")
    assert down.time <= up.time
    assert (await listening.health())["devices"]["pe1"]["notifications"]["state"] == "listening"


async def test_what_happened_while_nobody_listened_is_told_once_all_the_same(
    element: Element, listening: NetconfAdapter, reported: Reported
) -> None:
    element.set_link(PORT, False)
    await reported.until(1)
    (session,) = element.sessions.values()
    session.subscribed = False
    element.set_link(PORT, True)
    session.drop()
    await reported.until(2)
    element.set_link(PORT, False)
    seen = await reported.until(3)

    assert [one.kind for one in seen] == ["fault", "clear", "fault"]
    assert len({one.id for one in seen}) == 3


async def test_a_device_that_is_away_is_one_fault_until_it_is_listened_to(element: Element, reported: Reported) -> None:
    """What an earlier process told of it is over at the first session, too."""
    adapter = NetconfAdapter(settings.load(), {"pe1": device(element, notifications=True)}, silent_after=0.0)
    await adapter.start(reported)
    try:
        await reported.until_silence("clear")
        await element.stop()
        await reported.until_silence("clear", "fault")
        await element.start()

        await reported.until_silence("clear", "fault", "clear")
        assert (await adapter.health())["devices"]["pe1"]["notifications"]["state"] == "listening"
    finally:
        await adapter.stop()


async def test_nothing_is_taken_for_safe_that_is_not(
    element: Element, listening: NetconfAdapter, reported: Reported
) -> None:
    reported.away = 2
    element.set_link(PORT, False)
    element.set_link(PORT, True)
    seen = await reported.until(2)

    assert [one.kind for one in seen] == ["fault", "clear"]


async def test_what_is_told_twice_in_the_same_words_happened_twice(
    element: Element, listening: NetconfAdapter, reported: Reported
) -> None:
    """Some servers tell the time in seconds; a replay of the two is known all the same."""
    began = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    message = (
        f'<notification xmlns="{NOTIFICATION}"><eventTime>{began.isoformat()}</eventTime>'
        f'<interface-state xmlns="{ACCESS}"><interface>{PORT}</interface><oper-status>down</oper-status>'
        "</interface-state></notification>"
    ).encode()
    (session,) = element.sessions.values()
    for _ in range(2):
        element.stream.told.append((began, message))
        session.write(message)
    await reported.until(2)
    session.drop()
    await element.until(lambda: not element.sessions)
    await element.until(lambda: any(session.subscribed for session in element.sessions.values()))
    element.set_link(PORT, False)
    seen = await reported.until(3)

    assert len({one.id for one in seen}) == 3
    assert seen[2].time != seen[1].time


async def test_what_the_mapping_does_not_know_is_told_as_such(
    element: Element, listening: NetconfAdapter, reported: Reported
) -> None:
    strange = etree.fromstring('<fan-speed xmlns="urn:x"><fan>2</fan></fan-speed>')
    element.tell_all(strange)
    (seen,) = await reported.until(1)

    assert (seen.kind, seen.key) == ("unmapped", "unmapped:urn:x#fan-speed")
    assert seen.attributes["details"] == {"fan": "2"}


async def test_notifications_are_counted_as_datagrams_of_others_are(
    element: Element, listening: NetconfAdapter, reported: Reported
) -> None:
    """What came, what was understood, what no mapping knows, what could not be read, and what waits."""
    before = metrics.of_adapter("netconf")
    element.tell_all(etree.fromstring('<fan-speed xmlns="urn:x"><fan>2</fan></fan-speed>'))
    element.set_link(PORT, False)
    await reported.until(2)
    after = metrics.of_adapter("netconf")
    grown = {name.removeprefix("convergedon_adapter_"): value - before.get(name, 0) for name, value in after.items()}

    assert {name: grown[f"{name}_total"] for name in ("received", "decoded", "unmapped")} == {
        "received": 2, "decoded": 2, "unmapped": 1
    }  # fmt: skip
    assert (after["convergedon_adapter_queue"], grown["queue"]) == (0, 0)


# --- the adapter starts again


class Kept(Reporting):
    """What an adapter's process reports to, which outlives it: the bus."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        super().__init__("netconf", self.bus)

    async def seen(self) -> list[dict[str, Any]]:
        """What it was told by and of the device, but that it is there."""
        seen = [body["observation"] for body in await self.bus.read("network.>")]
        return [one for one in seen if one["key"] != SILENCE]

    async def begun(self) -> dict[str, Any]:
        """The position from which on everything is heard."""
        async with asyncio.timeout(20):
            while (found := await self.reached("pe1")) is None:
                await asyncio.sleep(0.01)
        return found

    async def until(self, number: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(20):
            while len(found := await self.seen()) < number:
                await asyncio.sleep(0.01)
        return found


@asynccontextmanager
async def listened(element: Element, kept: Kept) -> AsyncIterator[NetconfAdapter]:
    """An adapter's process, from when it listens to its end."""
    adapter = create(settings.load(), {"pe1": device(element, notifications=True)})
    await adapter.start(kept)
    await element.until(lambda: any(session.subscribed for session in element.sessions.values()))
    yield adapter
    await adapter.stop()
    await element.until(lambda: not element.sessions)


async def test_what_happened_while_no_adapter_ran_is_told_once_all_the_same(element: Element) -> None:
    """Whatever was reported before is not reported again, and what it missed is in its order."""
    kept = Kept()
    async with listened(element, kept):
        element.set_link(PORT, False)
        await kept.until(1)
    element.set_link(PORT, True)
    element.set_link(PORT, False)
    async with listened(element, kept):
        await kept.until(3)
    async with listened(element, kept):
        element.set_link(PORT, True)
        seen = await kept.until(4)

    assert [one["kind"] for one in seen] == ["fault", "clear", "fault", "clear"]
    assert len({one["id"] for one in seen}) == 4


async def test_a_device_that_was_quiet_until_the_adapter_ended_is_asked_for_what_came_then(element: Element) -> None:
    kept = Kept()
    async with listened(element, kept):
        await kept.begun()
    element.set_link(PORT, False)
    async with listened(element, kept):
        (seen,) = await kept.until(1)

    assert seen["kind"] == "fault"


async def test_an_adapter_that_died_before_it_kept_its_position_reports_nothing_twice(element: Element) -> None:
    """Even long after, when the bus knows the message no more by its id."""
    kept = Kept()
    async with listened(element, kept):
        began = await kept.begun()
        element.set_link(PORT, False)
        (first,) = await kept.until(1)
    await kept.reach("pe1", began)
    reported: list[str] = []

    class Again(Kept):
        async def __call__(self, seen: Observation) -> None:
            if seen.key != SILENCE:
                reported.append(seen.id)

    again = Again()
    again._bus = kept.bus
    async with listened(element, again):
        element.set_link(PORT, True)
        async with asyncio.timeout(10):
            while not reported:
                await asyncio.sleep(0.01)

    assert len(reported) == 1
    assert reported != [first["id"]]


async def restarted(element: Element) -> str:
    """Its log is gone with its memory."""
    await element.stop()
    await element.start()
    return "its log begins later"


async def forgetful(element: Element) -> str:
    """Its log is full: what was told meanwhile has pushed itself out."""
    element.stream.told = deque(element.stream.told, maxlen=1)
    for up in (True, False):
        element.set_link(PORT, up)
    return "its log begins later"


async def without_replay(element: Element) -> str:
    """It has a stream, and no log."""
    element.stream.replays = False
    return "its stream has no replay"


@pytest.mark.parametrize("happens", [restarted, forgetful, without_replay])
async def test_what_a_device_cannot_tell_again_is_told_to_be_missing(
    happens: Callable[[Element], Awaitable[str]], element: Element
) -> None:
    """As an alarm with from and until, once for each gap; and it goes on from there."""
    counted = ("convergedon_adapter_gaps_total", {"adapter": "netconf"})
    before = REGISTRY.get_sample_value(*counted) or 0
    kept = Kept()
    async with listened(element, kept):
        element.set_link(PORT, False)
        await kept.until(1)
    words = await happens(element)
    async with listened(element, kept) as adapter:
        gap = (await kept.until(2))[1]
        health = (await adapter.health())["devices"]["pe1"]["notifications"]
    async with listened(element, kept):
        element.set_link(PORT, not element.link_is_up(PORT))
        seen = await kept.until(len(await kept.seen()) + 1)

    assert (gap["kind"], gap["key"], gap["device"]) == ("fault", "netconf:gap", "pe1")
    assert gap["attributes"]["probableCause"] == "informationMissing"
    assert gap["attributes"]["details"]["words"] == words
    assert gap["attributes"]["details"]["from"] < gap["attributes"]["details"]["until"]
    assert health["gaps"] == 1
    gaps = [one for one in seen if one["key"] == "netconf:gap"]
    assert len(gaps) == (REGISTRY.get_sample_value(*counted) or 0) - before == (2 if words.endswith("replay") else 1)


async def test_a_device_that_is_away_when_the_adapter_starts_is_listened_to_later(
    element: Element, reported: Reported
) -> None:
    known = device(element, notifications=True)
    await element.stop()
    adapter = create(settings.load(), {"pe1": known})
    await adapter.start(reported)

    await element.start()
    await element.until(lambda: any(session.subscribed for session in element.sessions.values()))
    element.set_link(PORT, False)
    await reported.until(1)
    await adapter.stop()

    assert not element.sessions


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ("kind: clear", "perceivedSeverity is cleared for a clear"),
        ("key: link", "key has {object} in it"),
        ("probableCause: 1.5", "probableCause"),
    ],
)
def test_a_mapping_of_notifications_that_is_wrong_is_refused_with_its_place(
    changed: str, words: str, tmp_path: Path
) -> None:
    key = changed.partition(":")[0]
    lines = mapping.SHIPPED.read_text().splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("notifications:"))
    at = next(at for at, line in enumerate(lines) if at > first and line.strip().startswith(f"{key}:"))
    lines[at] = f"    {changed}"
    file = tmp_path / "netconf.yaml"
    file.write_text("\n".join(lines))

    with pytest.raises(Misconfigured, match=words) as raised:
        mapping.load_events(file)

    assert "netconf.yaml, line" in str(raised.value)
    assert "notifications.0" in str(raised.value)


def test_more_devices_than_open_files_are_refused_in_a_sentence(
    element: Element, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter.resource, "getrlimit", lambda _: (100, 100))
    many = [adapter.Access.of(f"pe{n}", "", device(element).settings["netconf"]) for n in range(50)]

    with pytest.raises(Misconfigured, match=r"needs 114 open files for the sessions of 50 devices and may have 100"):
        adapter._refuse_too_many(many)


# --- host keys


async def test_a_key_in_the_file_of_known_hosts_is_trusted_and_no_other(element: Element, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{element.port} ssh-ed25519 {element.host_key}\n")
    adapter = create(settings.load(), {"pe1": device(element, hostKey=None, knownHosts=str(known))})
    await adapter.start(ignore)
    trusted = await adapter.capabilities("pe1")
    await adapter.stop()
    await element.stop()
    (element.folder / "host.key").unlink()
    await element.start()
    await adapter.start(ignore)
    with pytest.raises(CredentialsRefused, match=r"another host key than the one we know: .* change .*known_hosts"):
        await adapter.capabilities("pe1")
    await adapter.stop()

    assert "read" in trusted


async def test_a_host_that_is_not_in_the_file_is_not_trusted(element: Element, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"192.0.2.1 ssh-ed25519 {element.host_key}\n")
    adapter = create(settings.load(), {"pe1": device(element, hostKey=None, knownHosts=str(known))})
    await adapter.start(ignore)

    with pytest.raises(CredentialsRefused):
        await adapter.capabilities("pe1")
    await adapter.stop()


@pytest.mark.parametrize(("text", "words"), [(None, "cannot be read"), ("", "no host key in the file")])
def test_a_file_of_known_hosts_that_says_nothing_is_refused(
    text: str | None, words: str, element: Element, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    if text is not None:
        known.write_text(text)

    with pytest.raises(Misconfigured, match=rf"pe1\.netconf\.knownHosts: .*{words}"):
        create(settings.load(), {"pe1": device(element, hostKey=None, knownHosts=str(known))})
