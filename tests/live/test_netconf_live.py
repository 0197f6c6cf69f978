"""The NETCONF adapter against a real server: yuma123's netconfd behind OpenSSH."""

import asyncio
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import netconfd
import pytest
from peers import lacking, peer

from convergedon.adapters import transaction
from convergedon.adapters.contract import Device, Intent, Observation, Rpc, witness
from convergedon.adapters.netconf import NetconfAdapter, mapping
from convergedon.adapters.netconf.change import persist_id
from convergedon.adapters.netconf.lab import Element
from convergedon.adapters.netconf.mapping import Service
from convergedon.adapters.netconf.session import Access, Connection, Denied, dial
from convergedon.adapters.reporting import Reporting
from convergedon.adapters.silence import key
from convergedon.adapters.testing.trial import ignore
from convergedon.adapters.testing.turns import BreakingProxy, How
from convergedon.adapters.transaction import perform
from convergedon.core import settings
from convergedon.core.memory import MemoryBus

pytestmark = pytest.mark.live

GOLD = {"interface": "ge-0/0/1", "vlan": 100, "bandwidth": 200}
CONFIRM_TIMEOUT = 3
PATIENT = 30
SILENCE = key("netconf")

Services = Mapping[str, Service]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[netconfd.Server]:
    modules = ("--module=ietf-interfaces", "--module=iana-if-type", "--module=ietf-netconf-notifications")
    with netconfd.served(tmp_path_factory.mktemp("netconfd"), *modules) as server:
        yield server


@pytest.fixture
def entry(server: netconfd.Server) -> dict[str, Any]:
    return server.entry


@pytest.fixture
def services() -> Services:
    """The mapping that ships, less the operational leaves: netconfd has no instrumentation for our module."""
    return {name: replace(service, verify={}) for name, service in mapping.load().items()}


@pytest.fixture
async def adapter(entry: dict[str, Any], services: Services) -> AsyncIterator[NetconfAdapter]:
    adapter = make_adapter(entry, services)
    await adapter.start(ignore)
    yield adapter
    await perform(adapter, intent(None, key="clean-up"))
    await adapter.stop()


def make_adapter(entry: dict[str, Any], services: Services, confirm_timeout: int = CONFIRM_TIMEOUT) -> NetconfAdapter:
    device = Device("pe1", "acme", "127.0.0.1", {"netconf": entry})
    return NetconfAdapter(settings.load(confirm_timeout=confirm_timeout), {device.name: device}, services)


def intent(values: dict[str, Any] | None, key: str = "order-1", within: float = 30, instance: str = "acc-1") -> Intent:
    return Intent(key, "acme", "pe1", "internet-access", instance, values, time.time() + within)


async def other_session(entry: dict[str, Any]) -> Connection:
    return await asyncio.to_thread(dial, Access.of("pe1", "127.0.0.1", entry), lambda _: None, 10.0)


@pytest.fixture
async def other(entry: dict[str, Any]) -> AsyncIterator[Connection]:
    """A session of somebody else, which ends, and its locks with it, also where the test fails."""
    other = await other_session(entry)
    yield other
    await asyncio.to_thread(other.close)


async def stored(entry: dict[str, Any], services: Services, instance: str = "acc-1") -> dict[str, str] | None:
    """What the device has, read by somebody else."""
    other = await other_session(entry)
    found = await read(other, services, instance)
    await asyncio.to_thread(other.close)
    return found


async def read(
    other: Connection, services: Services, instance: str = "acc-1", source: str = "running"
) -> dict[str, str] | None:
    reply = await asyncio.to_thread(other.call, "get_config", source)
    return services["internet-access"].read(reply.data_ele, instance)


async def test_service_lives_through_its_life(
    adapter: NetconfAdapter, entry: dict[str, Any], services: Services
) -> None:
    """Made, made again, changed, taken away, taken away again: each is done once and read back."""
    made = await perform(adapter, intent(GOLD))
    again = await perform(adapter, intent(GOLD))
    held = await stored(entry, services)
    changed = await perform(adapter, intent({**GOLD, "bandwidth": 300}, key="order-2"))
    gone = await perform(adapter, intent(None, key="order-3"))
    gone_again = await perform(adapter, intent(None, key="order-3"))

    statuses = [outcome.status for outcome in (made, again, changed, gone, gone_again)]
    assert statuses == ["applied", "unchanged", "applied", "applied", "unchanged"]
    assert held == {"name": "acc-1", "interface": "ge-0/0/1", "vlan-id": "100", "bandwidth": "200"}
    assert changed.diff == {"bandwidth": (200, 300)}
    assert await stored(entry, services) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({**GOLD, "vlan": 5000, "bandwidth": 0}, ("vlan-id", "bandwidth", "value not in range")),
        ({"vlan": 100, "bandwidth": 1}, ("interface",)),
    ],
)
async def test_refusal_carries_the_devices_words(
    values: dict[str, Any],
    words: tuple[str, ...],
    adapter: NetconfAdapter,
    entry: dict[str, Any],
    services: Services,
) -> None:
    outcome = await perform(adapter, intent(values))

    assert outcome.status == "refused"
    for word in words:
        assert word in outcome.words
    assert await stored(entry, services) is None


async def test_vlan_used_twice_is_refused(adapter: NetconfAdapter, entry: dict[str, Any], services: Services) -> None:
    await perform(adapter, intent(GOLD))

    outcome = await perform(adapter, intent(GOLD, key="order-2", instance="acc-2"))

    assert outcome.status == "refused"
    assert await stored(entry, services, "acc-2") is None


async def test_lock_of_another_is_respected(adapter: NetconfAdapter, other: Connection) -> None:
    await asyncio.to_thread(other.call, "lock", "candidate")

    lost = await perform(adapter, intent(GOLD, within=3))
    assert re.search("pe1: locked by session", lost.words)
    await asyncio.to_thread(other.call, "unlock", "candidate")
    outcome = await perform(adapter, intent(GOLD))

    assert outcome.status == "applied"


async def test_greeting_and_first_call_that_are_read_as_one_do_not_hold_up(
    server: netconfd.Server, adapter: NetconfAdapter
) -> None:
    """netconfd takes both for one message that has no end; it is asked anew in a session of its own."""
    server.glue()

    outcome = await perform(adapter, intent(GOLD, within=10))

    assert not server.gluing
    assert outcome.status == "applied"


async def test_commit_that_was_not_confirmed_is_settled_by_the_next_delivery(
    adapter: NetconfAdapter, entry: dict[str, Any], services: Services
) -> None:
    """A gateway that died in the confirm window: the state looks right, and the next delivery is not taken in."""
    service = services["internet-access"]
    long_ago = intent(GOLD)
    dead = await other_session(entry)
    payload = service.payload("acc-1", service.wanted(GOLD))
    await asyncio.to_thread(dead.call, "edit_config", payload, target="candidate", test_option="test-then-set")
    await asyncio.to_thread(
        dead.call, "commit", confirmed=True, timeout=str(CONFIRM_TIMEOUT), persist=persist_id(long_ago)
    )
    await asyncio.to_thread(dead.close)
    before = await stored(entry, services)

    outcome = await perform(adapter, long_ago)
    other = await other_session(entry)
    with pytest.raises(Denied):  # nothing of ours is pending, so no timer of the device will undo it
        await asyncio.to_thread(other.call, "cancel_commit", persist_id=persist_id(long_ago))
    await asyncio.to_thread(other.close)

    assert before is not None
    assert outcome.status == "applied"
    assert await stored(entry, services) == before


async def test_commit_that_nobody_confirms_is_undone_by_the_device_before_ours(
    adapter: NetconfAdapter, entry: dict[str, Any], services: Services
) -> None:
    """netconfd denies the lock while somebody's commit is pending: we wait until its timer has undone it."""
    service = services["internet-access"]
    dead = await other_session(entry)
    payload = service.payload("acc-1", service.wanted(GOLD))
    await asyncio.to_thread(dead.call, "edit_config", payload, target="candidate", test_option="test-then-set")
    await asyncio.to_thread(dead.call, "commit", confirmed=True, timeout="2", persist="nobody")
    await asyncio.to_thread(dead.close)
    during = await stored(entry, services)

    outcome = await perform(adapter, intent({**GOLD, "bandwidth": 300}, key="order-2"))

    assert during is not None
    assert outcome.status == "applied"
    assert outcome.diff["bandwidth"] == (None, 300)


async def test_refused_credentials_are_named(entry: dict[str, Any], services: Services) -> None:
    adapter = make_adapter({**entry, "username": "nobody-here"}, services)
    await adapter.start(ignore)

    lost = await perform(adapter, intent(GOLD))
    assert re.search(r"pe1 .* refuses the credentials of nobody-here", lost.words)

    await adapter.stop()


STEPS = [
    "get-config", "lock", "get-config", "discard-changes", "edit-config", "commit", "get-config", "confirm",
    "copy-config", "unlock",
]  # fmt: skip


@pytest.mark.parametrize(
    ("turn", "how"),
    [
        *((turn, "after") for turn in range(1, len(STEPS) + 1)),
        *((STEPS.index(step) + 1, "before") for step in ("commit", "confirm")),
    ],
)
async def test_a_cut_at_any_step_leaves_the_old_or_the_new(
    turn: int, how: How, entry: dict[str, Any], services: Services
) -> None:
    """What is said is what is there, and when the intent comes again it is done, once and for good."""
    proxy = BreakingProxy("127.0.0.1", entry["port"])
    adapter = make_adapter({**entry, "port": await proxy.start()}, services)
    await adapter.start(ignore)
    rpcs: list[Rpc] = []
    before = witness.set(rpcs.append)
    await perform(adapter, intent(GOLD))
    other = await other_session(entry)
    old = await read(other, services)
    new = {**(old or {}), "bandwidth": "300"}
    rpcs.clear()

    proxy.arm(turn, how)
    first = await perform(adapter, intent({**GOLD, "bandwidth": 300}, key="order-2"))
    between = await read(other, services)
    failed = [rpc.name for rpc in rpcs if rpc.outcome == "failed"]
    second = await perform(adapter, intent({**GOLD, "bandwidth": 300}, key="order-2"))
    after = await read(other, services)
    kept = await read(other, services, source="startup")
    await asyncio.to_thread(other.close)
    await perform(adapter, intent(None, key="clean-up"))
    witness.reset(before)
    await adapter.stop()
    await proxy.stop()

    assert old
    assert proxy.broke
    assert failed == [STEPS[turn - 1]]
    assert between in {"applied": [new], "rolledBack": [old], "unknown": [old, new]}[first.status]
    assert first.done or first.retriable
    assert second.status == ("unchanged" if between == new else "applied")
    assert after == new
    assert kept == new


async def test_a_server_that_loses_its_power_comes_back_with_the_old_or_the_new(
    services: Services, tmp_path: Path
) -> None:
    """In the confirm window with the old, after an intent that was applied with the new: it was copied to startup."""
    with netconfd.served(tmp_path) as server:
        adapter = make_adapter(server.entry, services)
        await adapter.start(ignore)
        await perform(adapter, intent(GOLD))
        change = await adapter.prepare(intent({**GOLD, "bandwidth": 300}, key="order-2"))
        await adapter.commit(change)
        committed = await stored(server.entry, services)
        await asyncio.to_thread(server.restart)
        await adapter.release(change)
        between = await stored(server.entry, services)
        again = await perform(adapter, intent({**GOLD, "bandwidth": 300}, key="order-2"))
        await asyncio.to_thread(server.restart)
        after = await stored(server.entry, services)
        await adapter.stop()

    assert [found and found["bandwidth"] for found in (committed, between, after)] == ["300", "200", "300"]
    assert again.status == "applied"


async def test_what_the_server_tells_by_itself_is_observed(
    entry: dict[str, Any], services: Services, tmp_path: Path
) -> None:
    """Here that somebody's commit waits for its confirmation, and that it has it; told again after a lost session."""
    file = tmp_path / "netconf.yaml"
    file.write_text(COMMITS)
    seen: list[Observation] = []
    told = asyncio.Condition()

    async def report(observation: Observation) -> None:
        async with told:
            if observation.key != SILENCE:
                seen.append(observation)
            told.notify_all()

    async def until(number: int) -> None:
        async with asyncio.timeout(20), told:
            await told.wait_for(lambda: len(seen) >= number)

    proxy = BreakingProxy("127.0.0.1", entry["port"])
    listened = Device("pe1", "acme", "", {"netconf": {**entry, "port": await proxy.start(), "notifications": True}})
    listening = NetconfAdapter(settings.load(), {"pe1": listened}, services, mapping.load_events(file))
    await listening.start(report)
    performing = make_adapter(entry, services, PATIENT)
    await performing.start(ignore)
    while (await listening.health())["devices"]["pe1"]["notifications"]["state"] != "listening":
        await asyncio.sleep(0.02)

    first = await perform(performing, intent(GOLD))
    await until(2)
    proxy.away = True
    proxy.cut()
    second = await perform(performing, intent(None, key="order-2"))
    proxy.away = False
    assert (first.status, second.status) == ("applied", "applied"), (first, second)
    await until(4)
    await listening.stop()
    await performing.stop()
    await proxy.stop()

    assert [(one.kind, one.key) for one in seen] == 2 * [("fault", "unconfirmed"), ("clear", "unconfirmed")]
    assert len({one.id for one in seen}) == 4
    assert abs(seen[0].time - time.time()) < 60


async def test_what_the_server_told_while_no_adapter_ran_is_observed_once(
    entry: dict[str, Any], services: Services, tmp_path: Path
) -> None:
    """It replays, in whole seconds; what was safe before the adapter ended is not told again."""
    file = tmp_path / "netconf.yaml"
    file.write_text(COMMITS)
    bus = MemoryBus()
    listened = Device("pe1", "acme", "", {"netconf": {**entry, "notifications": True}})
    performing = make_adapter(entry, services, PATIENT)
    await performing.start(ignore)

    async def applied(wanted: Intent) -> None:
        outcome = await perform(performing, wanted)
        assert outcome.status == "applied", outcome

    async def observed() -> list[Mapping[str, Any]]:
        seen = [body["observation"] for body in await bus.read("network.>")]
        return [one for one in seen if one["key"] != SILENCE]

    async def told(number: int) -> list[Mapping[str, Any]]:
        async with asyncio.timeout(20):
            while len(found := await observed()) < number:
                await asyncio.sleep(0.02)
        return found

    async def heard(number: int, wanted: Intent | None = None) -> list[Mapping[str, Any]]:
        listening = NetconfAdapter(settings.load(), {"pe1": listened}, services, mapping.load_events(file))
        await listening.start(Reporting("netconf", bus))
        while (await listening.health())["devices"]["pe1"]["notifications"]["state"] != "listening":
            await asyncio.sleep(0.02)
        if wanted:
            await applied(wanted)
        found = await told(number)
        await listening.stop()
        return found

    begun = int(time.time())
    while int(time.time()) == begun:  # what it told before is of another second, and not replayed
        await asyncio.sleep(0.02)
    await heard(2, intent(GOLD))
    await applied(intent(None, key="order-2"))
    seen = await heard(4)
    await heard(6, intent(GOLD, key="order-3"))
    await applied(intent(None, key="clean-up"))
    await performing.stop()

    assert [(one["kind"], one["key"]) for one in seen] == 2 * [("fault", "unconfirmed"), ("clear", "unconfirmed")]
    assert len({one["id"] for one in await told(6)}) == 6


COMMITS = """
services: {none: {namespace: "urn:x", path: /x, key: k, leaves: {a: a}}}
notifications:
  - &event
    name: netconf-confirmed-commit
    namespace: urn:ietf:params:xml:ns:yang:ietf-netconf-notifications
    where: {confirm-event: start}
    kind: fault
    alarmType: operationalViolation
    perceivedSeverity: warning
    probableCause: indeterminate
    specificProblem: a commit waits for its confirmation
    key: unconfirmed
  - {<<: *event, where: {confirm-event: complete}, kind: clear, perceivedSeverity: cleared}
silent:
  - urn:ietf:params:xml:ns:yang:ietf-netconf-notifications#netconf-config-change
  - urn:ietf:params:xml:ns:yang:ietf-netconf-notifications#netconf-session-start
  - urn:ietf:params:xml:ns:yang:ietf-netconf-notifications#netconf-session-end
"""


PORT = """
services:
  port:
    namespace: urn:ietf:params:xml:ns:yang:ietf-interfaces
    path: /interfaces/interface
    key: name
    leaves: {words: description}
    constants:
      type: {identity: ethernetCsmacd, namespace: "urn:ietf:params:xml:ns:yang:iana-if-type"}
"""


@pytest.fixture
def link() -> Iterator[str]:
    """A link of the kernel without addresses, which netconfd manages."""
    name = f"nc{os.getpid() % 100_000}"
    peer("ip")
    made = subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], capture_output=True)
    if made.returncode:
        words = f"no link can be made here, which root may do: {made.stderr.decode().strip()}"
        lacking(words) if os.geteuid() == 0 else pytest.skip(words)
    subprocess.run(["ip", "link", "set", f"{name}p", "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "del", name], check=True)


async def test_a_real_port_is_looked_at_and_one_that_stays_up_when_it_is_off_is_put_back(
    link: str, entry: dict[str, Any]
) -> None:
    """netconfd takes ``enabled`` and does nothing about it: its word about the link tells, and the change is undone."""
    services = mapping.load()
    adapter = make_adapter(entry, {"port": replace(services["port"], settle=0.2)})
    await adapter.start(ignore)
    port = replace(intent({"enabled": True}, instance=link), service="port")

    up = {"operStatus": "up"}

    made = await perform(adapter, port)
    on = await transaction.read(adapter, replace(port, values={"enabled": True, **up}))
    off = await perform(adapter, replace(port, key="order-2", values={"enabled": False}))
    after = await transaction.read(adapter, port)
    believing = make_adapter(entry, {"port": replace(services["port"], verify={})})
    await believing.start(ignore)
    taken = await perform(believing, replace(port, key="order-3", values={"enabled": False}))
    told = await transaction.read(believing, replace(port, values={"enabled": False, **up}))
    await perform(believing, replace(port, key="order-4", values=None))
    await believing.stop()
    await adapter.stop()

    assert (made.status, on.words, on.agrees) == ("applied", "", True)
    assert off.status == "rolledBack"
    assert off.words.startswith("leaf oper-status: wanted down, found up")
    assert after.agrees
    assert (taken.status, told.agrees) == ("applied", True)
    assert told.state is not None
    assert (told.state["enabled"], told.state["oper-status"]) == ("false", "up")


def is_up(link: str) -> bool:
    return bool(int(Path(f"/sys/class/net/{link}/flags").read_text(), 16) & 1)


async def test_another_mapping_moves_a_real_link(link: str, entry: dict[str, Any], tmp_path: Path) -> None:
    """With a mapping to ietf-interfaces the same adapter takes a link of the kernel up and down."""
    file = tmp_path / "mapping.yaml"
    file.write_text(PORT)
    adapter = make_adapter(entry, mapping.load(file))
    await adapter.start(ignore)
    port = replace(intent({"words": "to the customer"}, instance=link), service="port")

    made = await perform(adapter, port)
    again = await perform(adapter, port)
    up = is_up(link)
    gone = await perform(adapter, replace(port, values=None))
    down = not is_up(link)
    await adapter.stop()

    assert [outcome.status for outcome in (made, again, gone)] == ["applied", "unchanged", "applied"]
    assert made.diff["description"] == (None, "to the customer")
    assert up
    assert down


@pytest.mark.parametrize("glued", [False, True], ids=["", "greeting and first call read as one"])
async def test_the_real_server_calls_home_from_behind_the_address_of_another(
    tmp_path: Path, services: Services, glued: bool
) -> None:
    """OpenSSH is the server of a connection that was opened to us; it and an element are told apart by their keys.

    It calls once: where the first session does not answer, another is opened over the same connection.
    """
    shared = "127.0.20.9"
    element = Element("pe2", tmp_path / "pe2", {"ge-0/0/1": 1000})
    await element.start()
    (tmp_path / "real").mkdir()
    with netconfd.served(tmp_path / "real") as server:
        entries = {"real": server.entry, "pe2": element.device_entry()["netconf"]}
        devices = {
            name: Device(name, "acme", shared, {"netconf": {**_how(entry), "callHome": True}})
            for name, entry in entries.items()
        }
        adapter = NetconfAdapter(settings.load(call_home_port=0), devices, services)
        host, _, port = (await adapter.start(ignore))[0].rpartition(":")
        if glued:
            server.glue()
        sshd = server.call_home(host, int(port), shared)
        await element.call_home(host, int(port), shared)
        outcomes = [await perform(adapter, replace(intent(GOLD, key=name), device=name)) for name in entries]
        await adapter.stop()
        await asyncio.to_thread(sshd.wait, 20)
        assert not server.gluing
    await element.stop()

    assert [one.status for one in outcomes] == ["applied", "applied"], outcomes


def _how(entry: Mapping[str, Any]) -> dict[str, Any]:
    """How to log in, without where."""
    return {name: value for name, value in entry.items() if name not in ("host", "port", "notifications")}
