"""The NETCONF adapter against elements that are real servers over real SSH and keep what they are told."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh
import ncclient.transport.session
import pytest
from ncclient.manager import Manager, make_device_handler
from ncclient.operations import TimeoutExpiredError
from ncclient.transport.ssh import SSHSession

from convergedon.adapters.contract import Device, Intent, Outcome, Rpc, witness
from convergedon.adapters.netconf import NetconfAdapter, create
from convergedon.adapters.netconf.lab import CAPABILITIES, Element, Fault, running
from convergedon.adapters.netconf.session import Access, Connection, dial
from convergedon.adapters.testing.trial import ignore
from convergedon.adapters.transaction import look_after, perform, read
from convergedon.core import settings
from convergedon.core.errors import Misconfigured

INTERFACES = {"ge-0/0/1": 1000, "ge-0/0/2": 10_000}
GOLD = {"interface": "ge-0/0/1", "vlan": 100, "bandwidth": 200}
ON_DEVICE = {"acc-1": {"name": "acc-1", "interface": "ge-0/0/1", "vlan-id": "100", "bandwidth": "200"}}

MakeElement = Callable[..., Awaitable[Element]]
MakeAdapter = Callable[..., Awaitable[NetconfAdapter]]


@pytest.fixture
async def make_element(tmp_path: Path) -> AsyncIterator[MakeElement]:
    made: list[Element] = []

    async def make(name: str = "pe1", **options: Any) -> Element:
        element = Element(name, tmp_path / name, INTERFACES, **{"password": "s3cret-of-pe", **options})
        await element.start()
        made.append(element)
        return element

    yield make
    for element in made:
        await element.stop()


@pytest.fixture
async def element(make_element: MakeElement) -> Element:
    return await make_element()


@pytest.fixture
async def make_adapter() -> AsyncIterator[MakeAdapter]:
    made: list[NetconfAdapter] = []

    async def make(*elements: Element, confirm_timeout: int = 20, **changed: Any) -> NetconfAdapter:
        devices = {element.name: device(element, **changed) for element in elements}
        made.append(create(settings.load(confirm_timeout=confirm_timeout), devices))
        await made[-1].start(ignore)
        return made[-1]

    yield make
    for adapter in made:
        await adapter.stop()


@pytest.fixture
async def adapter(element: Element, make_adapter: MakeAdapter) -> NetconfAdapter:
    return await make_adapter(element)


def device(element: Element, **changed: Any) -> Device:
    entry = {**element.device_entry()["netconf"], **changed}
    return Device(element.name, "acme", "127.0.0.1", {"netconf": {k: v for k, v in entry.items() if v is not None}})


def intent(values: dict[str, Any] | None, key: str = "order-1", within: float = 60, **changed: Any) -> Intent:
    given = {"tenant": "acme", "device": "pe1", "service": "internet-access", "instance": "acc-1", **changed}
    return Intent(key=key, values=values, deadline=time.time() + within, **given)


async def die_after(stages: list[str], adapter: NetconfAdapter, intent: Intent, element: Element) -> None:
    """Prepare an intent and take these stages of it; then nobody goes on with it."""
    change = await adapter.prepare(intent)
    for stage in stages:
        await getattr(adapter, stage)(change)
    for session in list(element.sessions.values()):
        session.drop()
    await element.until(lambda: not element.sessions)
    await adapter.release(change)


async def session_of_another(element: Element) -> Connection:
    """What an operator with another client does."""
    access = Access.of(element.name, "127.0.0.1", element.device_entry()["netconf"])
    return await asyncio.to_thread(dial, access, lambda _: None, 10.0)


# --- what is told of it


async def test_each_call_of_the_device_is_told_and_nothing_of_its_content(
    adapter: NetconfAdapter, element: Element
) -> None:
    """By name, in order, with how it ended; a refusal and a silent device too, and never a payload or a secret."""
    told: list[Rpc] = []
    before = witness.set(told.append)
    await perform(adapter, intent(GOLD))
    done = [(rpc.name, rpc.outcome) for rpc in told]
    told.clear()
    await perform(adapter, intent({**GOLD, "interface": "ge-9/9/9"}, key="order-2", instance="acc-2"))
    refused = [rpc.name for rpc in told if rpc.outcome == "refused"]
    await element.stop()
    told.clear()
    lost = await perform(adapter, intent(GOLD, key="order-3", instance="acc-3"))
    witness.reset(before)

    names = [name for name, _ in done]
    steps = ["connect", "lock", "discard-changes", "edit-config", "commit", "confirm", "unlock"]
    assert [name for name in names if name in steps] == steps
    assert "get-config" in names
    assert {outcome for name, outcome in done if name != "cancel-commit"} == {"done"}
    assert "edit-config" in refused
    assert told[-1].outcome == "failed"
    assert lost.reason == "unreachable"
    assert all(rpc.device == "pe1" and 0 <= rpc.seconds < 60 for rpc in told)
    assert "s3cret" not in repr(told)


# --- what becomes of an intent


async def test_new_service_is_applied_and_confirmed(adapter: NetconfAdapter, element: Element) -> None:
    """The device holds every leaf, nothing is left pending or locked, and the outcome says what is new."""
    outcome = await perform(adapter, intent(GOLD))

    assert outcome.status == "applied"
    assert outcome.diff == {"interface": (None, "ge-0/0/1"), "vlan-id": (None, 100), "bandwidth": (None, 200)}
    assert running(element) == ON_DEVICE
    assert not element.pending
    assert not element.locked


async def test_state_that_is_there_already_is_left_alone(adapter: NetconfAdapter, element: Element) -> None:
    await perform(adapter, intent(GOLD))
    element.requests.clear()

    outcome = await perform(adapter, intent(GOLD, key="order-2"))

    assert outcome.status == "unchanged"
    assert not {"lock", "edit-config", "commit", "commit-confirmed"} & set(element.requests)


async def test_second_delivery_changes_nothing(adapter: NetconfAdapter, element: Element) -> None:
    """The same intent at the same time from two deliveries is one change."""
    outcomes = await asyncio.gather(perform(adapter, intent(GOLD)), perform(adapter, intent(GOLD)))

    assert sorted(outcome.status for outcome in outcomes) == ["applied", "unchanged"]
    assert element.requests["commit-confirmed"] == 1


async def test_change_names_only_the_leaves_that_changed(adapter: NetconfAdapter, element: Element) -> None:
    await perform(adapter, intent({**GOLD, "description": "old words", "address": "192.0.2.1/30"}))

    outcome = await perform(adapter, intent({"bandwidth": 300, "description": None}, key="order-2"))

    assert outcome.status == "applied"
    assert outcome.diff == {"bandwidth": (200, 300), "description": ("old words", None)}
    assert running(element)["acc-1"]["address"] == "192.0.2.1/30"


async def test_service_that_must_go_is_gone(adapter: NetconfAdapter, element: Element) -> None:
    await perform(adapter, intent(GOLD))

    first = await perform(adapter, intent(None, key="cease-1"))
    second = await perform(adapter, intent(None, key="cease-1"))

    assert (first.status, second.status) == ("applied", "unchanged")
    assert first.diff["bandwidth"] == (200, None)
    assert running(element) == {}


async def test_refusal_carries_all_words_of_the_device(adapter: NetconfAdapter, element: Element) -> None:
    outcome = await perform(adapter, intent({**GOLD, "vlan": 5000, "bandwidth": 0}))

    assert outcome.status == "refused"
    for leaf in ("/vlan-id", "/bandwidth"):
        assert f"access[name='acc-1']{leaf}: Unsatisfied range" in outcome.words
    assert running(element) == {}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({**GOLD, "interface": "xe-9/9/9"}, "has no interface 'xe-9/9/9'"),
        ({"bandwidth": 10}, 'Mandatory node "interface"'),
        ({**GOLD, "address": "not an address"}, "Unsatisfied pattern"),
        ({**GOLD, "colour": "blue"}, "no leaf for characteristic 'colour'"),
        ({**GOLD, "description": "\x00"}, "characters that XML cannot carry"),
        ({**GOLD, "bandwidth": [1, 2]}, "is not a single value"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    values: dict[str, Any], words: str, adapter: NetconfAdapter, element: Element
) -> None:
    outcome = await perform(adapter, intent(values))

    assert (outcome.status, outcome.reason) == ("refused", "value")
    assert words in outcome.words
    assert running(element) == {}


async def test_vlan_used_twice_on_an_interface_is_refused(adapter: NetconfAdapter, element: Element) -> None:
    await perform(adapter, intent(GOLD))

    outcome = await perform(adapter, intent(GOLD, key="order-2", instance="acc-2"))

    assert outcome.status == "refused"
    assert 'Unique data leaf(s) "interface vlan-id" not satisfied' in outcome.words
    assert running(element) == ON_DEVICE


@pytest.mark.parametrize(
    ("rpc", "words"),
    [
        ("edit-config", "pe1: edit-config refused: not on a Friday"),
        ("commit-confirmed", "pe1: commit refused: not on a Friday"),
    ],
)
async def test_refused_change_leaves_a_clean_candidate(
    rpc: str, words: str, adapter: NetconfAdapter, element: Element
) -> None:
    """After a refusal nobody is locked out and nobody else's commit carries our leaves."""
    element.faults.append(Fault("refuse", rpc, words="not on a Friday"))

    refused = await perform(adapter, intent(GOLD))
    after = await perform(adapter, intent({**GOLD, "vlan": 7}, key="order-2", instance="acc-2"))

    assert refused == Outcome("order-1", "pe1", "refused", words, reason="value")
    assert after.status == "applied"
    assert list(running(element)) == ["acc-2"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"device": "pe9"}, "no device pe9"),
        ({"tenant": "globex"}, "in tenant globex"),
        ({"service": "tea"}, "no service 'tea'"),
    ],
)
async def test_intent_for_nobody_here_is_refused(
    changed: dict[str, str], words: str, adapter: NetconfAdapter, element: Element
) -> None:
    outcome = await perform(adapter, intent(GOLD, **changed))

    assert outcome.status == "refused"
    assert words in outcome.words
    assert element.sessions_opened == 0


# --- verification from the device


async def test_rate_that_the_port_cannot_give_is_rolled_back(adapter: NetconfAdapter, element: Element) -> None:
    """The device takes the configuration and shapes lower: the former configuration comes back and is read back."""
    await perform(adapter, intent(GOLD))

    outcome = await perform(adapter, intent({**GOLD, "bandwidth": 2000}, key="order-2"))

    assert outcome.status == "rolledBack"
    assert "leaf oper-bandwidth: wanted 2000, found 1000" in outcome.words
    assert running(element) == ON_DEVICE
    assert not element.pending
    assert not element.locked


async def test_commit_that_changes_nothing_is_noticed(adapter: NetconfAdapter, element: Element) -> None:
    """A device that answers ok and does nothing (netconfd does after a separate validate) is not believed."""
    element.faults.append(Fault("ignore", "commit-confirmed"))

    outcome = await perform(adapter, intent(GOLD))

    assert outcome.status == "rolledBack"
    assert "the service is not there" in outcome.words


async def test_refused_confirmation_is_rolled_back(adapter: NetconfAdapter, element: Element) -> None:
    element.faults.append(Fault("refuse", "commit"))

    outcome = await perform(adapter, intent(GOLD))

    assert outcome.status == "rolledBack"
    assert running(element) == {}
    assert not element.pending


async def test_configuration_without_effect_is_not_called_done(
    make_element: MakeElement, make_adapter: MakeAdapter
) -> None:
    """What others configured above the port's capacity is neither changed by us nor called the desired state."""
    element = await make_element()
    element.interfaces["ge-0/0/1"] = 10_000
    adapter = await make_adapter(element)
    await perform(adapter, intent({**GOLD, "bandwidth": 2000}))
    element.interfaces["ge-0/0/1"] = 1000

    outcome = await perform(adapter, intent({**GOLD, "bandwidth": 2000}, key="order-2"))

    assert outcome.status == "refused"
    assert "is there already, but leaf oper-bandwidth: wanted 2000, found 1000" in outcome.words


async def test_a_reading_says_what_the_device_has_and_does_and_locks_nothing(
    adapter: NetconfAdapter, element: Element
) -> None:
    """Its configuration is as wanted, and the port gives less: that is a difference too."""
    nothing = await read(adapter, intent(GOLD))
    await perform(adapter, intent(GOLD))
    element.requests.clear()

    agrees = await read(adapter, intent(GOLD, key="reading-1"))
    element.interfaces["ge-0/0/1"] = 100
    lacks = await read(adapter, intent(GOLD, key="reading-2"))
    gone = await read(adapter, intent(None, key="reading-3"))

    assert (nothing.status, nothing.state, nothing.words) == ("read", None, "the service is not there")
    assert agrees.agrees
    assert (agrees.state or {})["oper-bandwidth"] == "200"
    assert (lacks.agrees, lacks.words) == (False, "leaf oper-bandwidth: wanted 200, found 100")
    assert gone.words == "the service is still there"
    assert element.requests.keys() == {"get", "get-config"}
    assert running(element) == ON_DEVICE


async def test_a_reading_of_what_cannot_be_asked_is_unknown(adapter: NetconfAdapter, element: Element) -> None:
    refused = await read(adapter, intent(GOLD, service="no-such"))
    await element.stop()
    away = await read(adapter, intent(GOLD))

    assert (refused.status, refused.reason) == ("refused", "value")
    assert (away.status, away.reason) == ("unknown", "unreachable")


async def test_a_link_that_a_change_takes_down_is_back_when_the_change_is_taken_back(
    adapter: NetconfAdapter, element: Element
) -> None:
    """The lab's fault ``worse``: on another interface, whichever way the change is taken back."""
    moved: list[tuple[str, bool]] = []
    element.on_link = lambda interface, up: moved.append((interface, up))
    element.worsen("ge-0/0/2")
    outcome = await perform(adapter, intent(GOLD))
    worse = element.link_is_up("ge-0/0/2")
    await perform(adapter, intent(None, key="order-2"))
    back = element.link_is_up("ge-0/0/2")
    await perform(adapter, intent(GOLD, key="order-3"))

    assert (outcome.status, worse, back) == ("applied", False, True)
    assert moved == [("ge-0/0/2", False), ("ge-0/0/2", True)]


# --- devices that cannot be asked now


async def test_unreachable_device_is_unavailable_until_it_is_back(adapter: NetconfAdapter, element: Element) -> None:
    await element.stop()

    lost = await perform(adapter, intent(GOLD))
    assert re.search(r"pe1 .* does not accept connections", lost.words)
    assert lost.reason == "unreachable"
    degraded = await adapter.health()
    await element.start()
    outcome = await perform(adapter, intent(GOLD))
    ready = await adapter.health()

    assert degraded["state"] == "degraded"
    assert degraded["devices"]["pe1"]["state"] == "unreachable"
    assert outcome.status == "applied"
    assert ready == {"state": "ready", "devices": {"pe1": {"state": "connected", "waiting": 0}}}


async def test_two_that_find_no_session_open_one(adapter: NetconfAdapter, element: Element) -> None:
    """Of a device that called home there is no second connection to be had."""
    capabilities, outcome = await asyncio.gather(adapter.capabilities("pe1"), perform(adapter, intent(GOLD)))

    assert "confirmedCommit" in capabilities
    assert outcome.status == "applied"
    assert element.sessions_opened == 1


async def test_session_lost_while_idle_is_opened_again(adapter: NetconfAdapter, element: Element) -> None:
    await perform(adapter, intent(GOLD))
    await element.stop()
    await element.start()

    outcome = await perform(adapter, intent({**GOLD, "bandwidth": 300}, key="order-2"))

    assert outcome.status == "applied"
    assert element.sessions_opened == 2


async def test_refused_credentials_are_named_and_not_shown(element: Element, make_adapter: MakeAdapter) -> None:
    adapter = await make_adapter(element, password="wr0ng-one")

    lost = await perform(adapter, intent(GOLD))

    assert (lost.status, lost.reason) == ("unknown", "credentials")
    assert re.search(r"pe1 .* refuses the credentials of lab: check netconf\.username", lost.words)
    assert "wr0ng-one" not in repr(lost)


async def test_another_host_key_is_not_trusted(make_element: MakeElement, make_adapter: MakeAdapter) -> None:
    """With a pinned key no credentials are given to a server that shows another."""
    element, stranger = await make_element(), await make_element("stranger")
    adapter = await make_adapter(element, hostKey=stranger.host_key)

    lost = await perform(adapter, intent(GOLD))
    assert re.search("shows another host key than the one we know", lost.words)
    assert lost.reason == "credentials"

    assert element.sessions_opened == 0


async def test_key_trusted_on_first_use_stays_the_only_one(element: Element, make_adapter: MakeAdapter) -> None:
    adapter = await make_adapter(element, hostKey=None, trustFirstUse=True)
    first = await perform(adapter, intent(GOLD))
    await element.stop()
    (element.folder / "host.key").unlink()
    await element.start()

    lost = await perform(adapter, intent({**GOLD, "bandwidth": 300}, key="order-2"))
    assert re.search("shows another host key", lost.words)
    assert lost.reason == "credentials"

    assert first.status == "applied"


async def test_peer_that_says_nothing_is_left_at_the_deadline(element: Element, make_adapter: MakeAdapter) -> None:
    """A TCP peer that accepts and is silent bounds nothing by itself."""
    gone = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()
        gone.set()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    adapter = await make_adapter(element, port=server.sockets[0].getsockname()[1])

    lost = await perform(adapter, intent(GOLD, within=0.3))
    assert re.search("opens no NETCONF session", lost.words)
    assert lost.reason == "unreachable"

    await gone.wait()
    server.close()
    await server.wait_closed()


async def test_call_without_an_answer_ends_at_the_deadline(adapter: NetconfAdapter, element: Element) -> None:
    element.faults.append(Fault("silence", "edit-config"))

    lost = await perform(adapter, intent(GOLD, within=2))
    assert re.search("pe1: no answer to edit-config", lost.words)
    assert lost.reason == "unreachable"
    await element.until(lambda: not element.locked)
    outcome = await perform(adapter, intent(GOLD))

    assert outcome.status == "applied"


async def test_deadline_that_has_passed_touches_no_device(adapter: NetconfAdapter, element: Element) -> None:
    lost = await perform(adapter, intent(GOLD, within=-1))
    assert re.search("the deadline of the intent passed", lost.words)
    assert lost.reason == "deadline"

    assert element.sessions_opened == 0


async def test_stopped_adapter_gives_intents_back(adapter: NetconfAdapter, element: Element) -> None:
    await perform(adapter, intent(GOLD))

    await adapter.stop()
    await adapter.stop()

    await element.until(lambda: not element.sessions)
    lost = await perform(adapter, intent(GOLD, key="order-2"))
    assert re.search("the netconf adapter is not running", lost.words)
    assert lost.reason == "unavailable"


async def test_answer_that_is_not_xml_is_no_answer(adapter: NetconfAdapter, element: Element) -> None:
    element.faults.append(Fault("garble", "get-config"))

    lost = await perform(adapter, intent(GOLD))
    assert re.search("pe1: no answer to get-config", lost.words)
    assert lost.reason == "unreachable"
    again = await perform(adapter, intent(GOLD))

    assert again.status == "applied"


async def test_stopping_gives_back_what_waits_for_a_lock(adapter: NetconfAdapter, element: Element) -> None:
    """Neither the one under way nor those behind it keep the adapter from stopping."""
    other = await session_of_another(element)
    await asyncio.to_thread(other.call, "lock", "candidate")
    performing = [asyncio.ensure_future(perform(adapter, intent(GOLD, key=key))) for key in ("order-1", "order-2")]
    await element.until(lambda: element.requests["lock"] >= 2)

    await adapter.stop()
    given_back = await asyncio.gather(*performing)

    assert [outcome.reason for outcome in given_back] == ["unavailable", "unavailable"]
    assert all(outcome.retriable for outcome in given_back)
    assert all("the netconf adapter is stopping" in outcome.words for outcome in given_back)
    await asyncio.to_thread(other.close)


async def test_stopping_does_not_wait_for_a_silent_device(adapter: NetconfAdapter, element: Element) -> None:
    """A confirmed commit that is under way then is undone by the device's own timer."""
    element.faults.append(Fault("silence", "commit"))
    performing = asyncio.ensure_future(perform(adapter, intent(GOLD)))
    await element.until(lambda: element.requests["commit"] == 1)

    async with asyncio.timeout(5):
        await adapter.stop()

    lost = await performing
    assert (lost.status, lost.reason) == ("unknown", "timeout")
    assert lost.words.startswith("pe1: no answer to commit")
    assert element.pending


# --- locks


async def test_lock_of_another_is_waited_for(adapter: NetconfAdapter, element: Element) -> None:
    other = await session_of_another(element)
    await asyncio.to_thread(other.call, "lock", "candidate")
    performing = asyncio.ensure_future(perform(adapter, intent(GOLD)))
    await element.until(lambda: element.requests["lock"] >= 3)

    await asyncio.to_thread(other.call, "unlock", "candidate")
    outcome = await performing

    assert outcome.status == "applied"
    await asyncio.to_thread(other.close)


async def test_lock_held_too_long_names_its_holder(adapter: NetconfAdapter, element: Element) -> None:
    other = await session_of_another(element)
    await asyncio.to_thread(other.call, "lock", "candidate")

    lost = await perform(adapter, intent(GOLD, within=1))
    assert re.search("pe1: locked by session 1", lost.words)
    assert (lost.status, lost.reason) == ("refused", "locked")

    assert running(element) == {}
    await asyncio.to_thread(other.close)


async def test_changes_that_others_left_are_not_committed(adapter: NetconfAdapter, element: Element) -> None:
    """A candidate that somebody edited and left is discarded, not carried along."""
    other = await session_of_another(element)
    theirs = '<config xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><accesses xmlns="urn:convergedon:yang:access">'
    theirs += "<access><name>left-over</name><interface>ge-0/0/2</interface><vlan-id>9</vlan-id>"
    theirs += "<bandwidth>9</bandwidth></access></accesses></config>"
    await asyncio.to_thread(other.call, "edit_config", theirs, target="candidate")

    outcome = await perform(adapter, intent(GOLD))

    assert outcome.status == "applied"
    assert running(element) == ON_DEVICE
    await asyncio.to_thread(other.close)


async def test_session_whose_first_call_is_unanswered_is_opened_anew(adapter: NetconfAdapter, element: Element) -> None:
    """Over the same connection, without another login."""
    known, logins = element._server._login, list[tuple[str, str]]()
    element._server._login = lambda: (logins.append(known()), known())[1]
    element.faults.append(Fault("silence", "get-config"))

    outcome = await perform(adapter, intent(GOLD, within=8))

    assert outcome.status == "applied"
    assert running(element) == ON_DEVICE
    assert (element.sessions_opened, len(logins)) == (2, 1)


class Single(Element):
    """Has one session to a connection."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.served: list[asyncssh.SSHServerConnection] = []

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        connection = process.get_extra_info("connection")
        if connection in self.served:
            process.exit(1)
            return
        self.served.append(connection)
        await super()._serve(process)


async def test_a_device_with_one_session_to_a_connection_is_connected_to_anew(
    tmp_path: Path, make_adapter: MakeAdapter
) -> None:
    element = Single("pe1", tmp_path / "single", INTERFACES)
    await element.start()
    adapter = await make_adapter(element)
    element.faults.append(Fault("silence", "get-config"))

    outcome = await perform(adapter, intent(GOLD, within=10))
    await adapter.stop()
    await element.stop()

    assert outcome.status == "applied", outcome
    assert len(element.served) == 2


# --- the connection breaks: the device ends in the old or the new configuration, never between


@pytest.mark.parametrize("rpc", ["get-config", "lock", "discard-changes", "edit-config", "commit-confirmed"])
async def test_drop_before_the_commit_changes_nothing(rpc: str, adapter: NetconfAdapter, element: Element) -> None:
    element.faults.append(Fault("drop-before", rpc))

    lost = await perform(adapter, intent(GOLD))
    assert re.search("pe1: no answer to", lost.words)
    between = running(element)
    again = await perform(adapter, intent(GOLD))

    assert between == {}
    assert again.status == "applied"
    assert running(element) == ON_DEVICE
    assert not element.pending


LINE = ("get-config", "lock", "discard-changes", "edit-config", "commit-confirmed", "get", "commit")


@pytest.mark.parametrize("kind", ["drop-before", "drop-after"])
@pytest.mark.parametrize("rpc", LINE)
async def test_wherever_the_line_breaks_nothing_is_half_done(
    rpc: str, kind: Any, adapter: NetconfAdapter, element: Element
) -> None:
    """Between the deliveries the device has the old or the new configuration, after the second the new, for good."""
    wanted = intent({**GOLD, "vlan": 101, "bandwidth": 300}, key="order-2")
    await perform(adapter, intent(GOLD))
    old = running(element)
    element.faults.append(Fault(kind, rpc))

    first = await perform(adapter, wanted)
    between = running(element)
    second = await perform(adapter, wanted)

    new = {"acc-1": {**old["acc-1"], "vlan-id": "101", "bandwidth": "300"}}
    assert first.retriable
    assert between == (new if (rpc, kind) == ("commit", "drop-after") else old)
    assert first.status == ("rolledBack" if between == old and rpc not in ("get-config", "lock") else "unknown")
    assert second.done
    assert running(element) == new
    assert not element.pending
    assert not element.locked


@pytest.mark.parametrize("kind", ["drop-before", "drop-after"])
async def test_drop_at_the_unlock_does_not_lose_the_outcome(
    kind: Any, adapter: NetconfAdapter, element: Element
) -> None:
    element.faults.append(Fault(kind, "unlock"))

    outcome = await perform(adapter, intent(GOLD))
    after = await perform(adapter, intent({**GOLD, "bandwidth": 300}, key="order-2"))

    assert (outcome.status, after.status) == ("applied", "applied")
    assert element.sessions_opened == 2


@pytest.mark.parametrize("stages", [["commit"], ["commit", "verify"]])
async def test_gateway_that_dies_in_the_confirm_window_is_settled_by_the_next(
    stages: list[str], adapter: NetconfAdapter, element: Element, make_adapter: MakeAdapter
) -> None:
    """The state looks right but would be undone: whoever performs next, here another process, is not taken in."""
    await die_after(stages, adapter, intent(GOLD), element)
    pending = element.pending
    again = await perform(await make_adapter(element), intent(GOLD))

    assert pending
    assert again.status == "applied"
    assert not element.pending
    assert running(element) == ON_DEVICE


async def test_gateway_that_dies_after_the_confirmation_has_done_it(
    adapter: NetconfAdapter, element: Element, make_adapter: MakeAdapter
) -> None:
    await die_after(["commit", "verify", "confirm"], adapter, intent(GOLD), element)
    again = await perform(await make_adapter(element), intent(GOLD))

    assert again.status == "unchanged"
    assert element.requests["commit-confirmed"] == 1


async def test_what_is_pending_when_its_deadline_has_passed_is_taken_back(
    adapter: NetconfAdapter, element: Element, make_adapter: MakeAdapter
) -> None:
    """It looks done and would be undone by the device: it is said not to be, and is not, at once."""
    await die_after(["commit", "verify"], adapter, intent(GOLD), element)
    late = await look_after(await make_adapter(element), intent(GOLD, within=-1))

    assert (late.status, late.reason) == ("refused", "deadline")
    assert not element.pending
    assert running(element) == {}


async def test_what_was_confirmed_before_its_deadline_is_done_after_it(
    adapter: NetconfAdapter, element: Element, make_adapter: MakeAdapter
) -> None:
    await die_after(["commit", "verify", "confirm"], adapter, intent(GOLD), element)
    late = await look_after(await make_adapter(element), intent(GOLD, within=-1))

    assert (late.status, late.reason) == ("unchanged", "")
    assert running(element) == ON_DEVICE


async def test_commit_that_nobody_confirms_is_undone_by_the_device(element: Element, make_adapter: MakeAdapter) -> None:
    """A gateway that never comes back leaves the former configuration."""
    adapter = await make_adapter(element, confirm_timeout=2)
    await perform(adapter, intent(GOLD))

    await die_after(["commit"], adapter, intent({**GOLD, "bandwidth": 300}, key="order-2"), element)
    new = running(element)
    await element.until(lambda: not element.pending)

    assert new["acc-1"]["bandwidth"] == "300"
    assert running(element) == ON_DEVICE


async def test_lost_answer_to_the_confirmation_is_no_second_change(adapter: NetconfAdapter, element: Element) -> None:
    element.faults.append(Fault("drop-after", "commit"))

    lost = await perform(adapter, intent(GOLD))
    again = await perform(adapter, intent(GOLD))

    assert (lost.status, lost.reason) == ("unknown", "timeout")
    assert again.status == "unchanged"
    assert element.requests["commit-confirmed"] == 1
    assert running(element) == ON_DEVICE


async def test_element_that_restarts_in_the_confirm_window_has_the_former_configuration(
    adapter: NetconfAdapter, element: Element
) -> None:
    await perform(adapter, intent(GOLD))
    await die_after(["commit"], adapter, intent({**GOLD, "bandwidth": 300}, key="order-2"), element)

    await element.stop()
    await element.start()
    between = running(element)
    again = await perform(adapter, intent({**GOLD, "bandwidth": 300}, key="order-2"))

    assert between == ON_DEVICE
    assert again.status == "applied"


# --- what a device must be able to do


async def test_device_with_the_old_framing_and_no_validate_works(
    make_element: MakeElement, make_adapter: MakeAdapter
) -> None:
    old = [uri for uri in CAPABILITIES if "base:1.1" not in uri and "validate" not in uri]
    element = await make_element(capabilities=old)

    outcome = await perform(await make_adapter(element), intent({**GOLD, "description": "]]>]]&gt; & ü"}))

    assert outcome.status == "applied"


async def test_twenty_elements_in_one_process_are_served_at_once(
    make_element: MakeElement, make_adapter: MakeAdapter
) -> None:
    elements = [await make_element(f"pe{number}") for number in range(20)]
    adapter = await make_adapter(*elements)

    outcomes = await asyncio.gather(*(perform(adapter, intent(GOLD, device=element.name)) for element in elements))

    assert {outcome.status for outcome in outcomes} == {"applied"}
    assert all(running(element) == ON_DEVICE for element in elements)


# --- ncclient


async def test_no_call_waits_for_ncclients_tick(
    adapter: NetconfAdapter, element: Element, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tick of an hour everything is done all the same: our session does not look at a queue now and then."""
    monkeypatch.setattr(ncclient.transport.session, "TICK", 3600)

    outcome = await perform(adapter, intent(GOLD))

    assert outcome.status == "applied"


async def test_ncclient_as_shipped_still_waits_for_its_tick(element: Element, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails ncclient has changed: PromptSession may be needed no longer."""
    monkeypatch.setattr(ncclient.transport.session, "TICK", 3600)
    entry = element.device_entry()["netconf"]
    handler = make_device_handler({"name": "default"})
    session = SSHSession(handler)
    named = {"host": entry["host"], "port": entry["port"], "username": "lab", "password": entry["password"]}
    await asyncio.to_thread(session.connect, **named, hostkey_verify=False, allow_agent=False, look_for_keys=False)

    with pytest.raises(TimeoutExpiredError):
        await asyncio.to_thread(Manager(session, handler, timeout=0.5).get_config, "running")

    assert element.requests["get-config"] == 0
    await asyncio.to_thread(session.close)


async def test_logs_carry_neither_payloads_nor_passwords(
    adapter: NetconfAdapter, element: Element, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    await perform(adapter, intent({**GOLD, "description": "words of the customer"}))

    assert "words of the customer" not in caplog.text
    assert element.password not in caplog.text


# --- keys


PHRASE = "s3cret of the key"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that is encrypted and one that is not."""
    folder = tmp_path_factory.mktemp("keys")
    for name, phrase in (("encrypted", PHRASE), ("plain", None)):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / name, passphrase=phrase)
        key.write_public_key(folder / f"{name}.pub")
    return folder


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("encrypted", {"keyPassphrase": PHRASE, "password": None}),
        ("plain", {"password": None}),
        ("plain", {"password": "not that of the element"}),
    ],
)
async def test_a_key_logs_in_whether_it_is_encrypted_or_not(
    name: str,
    changed: dict[str, Any],
    keys: Path,
    element: Element,
    make_adapter: MakeAdapter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A password that stands beside is the device's, not the key's; and the pass phrase is in no log."""
    caplog.set_level(logging.DEBUG)
    element.authorize((keys / f"{name}.pub").read_text().split()[1])
    adapter = await make_adapter(element, keyFile=str(keys / name), **changed)

    outcome = await perform(adapter, intent(GOLD))

    assert outcome.status == "applied"
    assert "s3cret" not in caplog.text


async def test_a_key_that_the_device_does_not_know_is_refused_credentials(
    keys: Path, element: Element, make_adapter: MakeAdapter
) -> None:
    """Whether it asks again after it or, as some do, hangs up."""
    element.authorize("another")
    for password in (None, element.password):
        adapter = await make_adapter(element, keyFile=str(keys / "plain"), password=password)
        outcome = await perform(adapter, intent(GOLD))

        assert (outcome.status, outcome.reason) == ("unknown", "credentials")
        assert "check netconf.username, password and keyFile" in outcome.words


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("encrypted", {}, "netconf.keyFile: the key is encrypted: keyPassphrase is missing"),
        ("encrypted", {"keyPassphrase": "s3cret of another"}, "netconf.keyPassphrase: it does not open the key"),
        ("plain", {"keyPassphrase": PHRASE}, "netconf.keyPassphrase: the key is not encrypted"),
        ("plain.pub", {}, "netconf.keyFile: there is no private key in the file"),
    ],
)
async def test_a_key_that_cannot_be_opened_is_refused_at_start(
    name: str, changed: dict[str, Any], words: str, keys: Path, element: Element, make_adapter: MakeAdapter
) -> None:
    with pytest.raises(Misconfigured, match=words) as raised:
        await make_adapter(element, keyFile=str(keys / name), **changed)

    assert "s3cret" not in str(raised.value)


def test_what_is_known_of_a_device_shows_no_secret(keys: Path) -> None:
    given = {"username": "lab", "password": PHRASE, "keyFile": str(keys / "encrypted"), "keyPassphrase": PHRASE}

    assert "s3cret" not in repr(Access.of("pe1", "127.0.0.1", {**given, "trustFirstUse": True}))


# --- settings


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"hostKey": None}, "netconf.hostKey: is missing"),
        ({"hostKey": "AAAA"}, "netconf.hostKey: must be the base64"),
        ({"password": None}, "netconf.password: is missing"),
        ({"keyPassphrase": "s3cret-of-pe"}, "netconf.keyPassphrase: is that of a keyFile, which is missing"),
        ({"keyFile": "/nowhere/key"}, "netconf.keyFile: there is no such file"),
        ({"username": None}, "netconf.username: is missing"),
        ({"port": 0}, "netconf.port: must be a TCP port"),
        ({"passwort": "x"}, "netconf.passwort: unknown key"),
    ],
)
async def test_device_settings_that_are_wrong_are_refused_at_start(
    changed: dict[str, Any], words: str, element: Element, make_adapter: MakeAdapter
) -> None:
    with pytest.raises(Misconfigured, match=words) as raised:
        await make_adapter(element, **changed)

    assert str(raised.value).startswith("devices.pe1.netconf.")
    assert element.password not in str(raised.value)
