"""Which policies are in force: on the twin of the bus and on the real one, with several processes that follow."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from time import monotonic

import pytest

from convergedon.core import activation, app, bundles, embedded
from convergedon.core.activation import Following
from convergedon.core.bundles import Bundle
from convergedon.core.bus import Bus, NatsBus
from convergedon.core.engines import Closed, Embedded, OpaServer
from convergedon.core.errors import Misconfigured, NotFound, TooLarge, Unavailable
from convergedon.core.memory import MemoryBus
from convergedon.core.policy import Policy, Subject
from convergedon.core.tasks import end

MARA = Subject("mara", "acme", ("noc",))
MAIN = """package main

default decision := {"allow": false, "reasons": ["nothing is said"], "filter": {}}

decision := {"allow": true, "reasons": [], "filter": {}, "obligations": {}} if input.action in data.allowed
"""
TEST = """package main_test

import data.main

test_it_allows if main.decision.allow with input as {"action": data.allowed[0]}
"""


def saying(*allowed: str, main: str = MAIN) -> Bundle:
    return bundles.bundle({"main.rego": main, "main_test.rego": TEST}, {"allowed": list(allowed)})


def lay(folder: Path, bundle: Bundle) -> Path:
    folder.mkdir(exist_ok=True)
    for path, text in bundle.policies.items():
        (folder / path).write_text(text)
    (folder / "data.json").write_text('{"allowed": ["%s"]}' % '", "'.join(bundle.data["allowed"]))  # noqa: UP031
    return folder


@pytest.fixture(params=["memory", "nats"])
async def bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bus]:
    """Of its own: what is in force is so for everybody on a bus."""
    if request.param == "memory":
        memory = MemoryBus()
        yield memory
        await memory.close()
        return
    (tmp_path / "nats").mkdir()
    with embedded.running(embedded.nats_command(tmp_path / "nats")) as server:
        real = await NatsBus(server.url, "test").open()
        yield real
        await real.close()


Start = Callable[..., Awaitable[Policy]]


@pytest.fixture
async def start(bus: Bus, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts what follows, as a process does."""
    own = lay(tmp_path / "own", saying("list"))
    async with AsyncExitStack() as stack:

        async def begin(role: str = "gateway", folder: Path = own, follows: bool = True) -> Policy:
            policy = Policy(Closed("not read yet"))
            following = Following(policy, bus, role, folder, follows)
            await following.start()
            stack.push_async_callback(following.stop)
            return policy

        yield begin


async def may(policy: Policy, action: str) -> bool:
    return (await policy.decide(MARA, action, {"kind": "alarm"})).allow


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await true():
            await asyncio.sleep(0.01)


async def test_a_process_begins_with_its_own_policies(start: Start, bus: Bus) -> None:
    """As long as nothing was activated; and it says what it runs."""
    policy = await start()

    assert (await may(policy, "list"), await may(policy, "patch")) == (True, False)
    assert policy.revision == saying("list").revision
    (said,) = await activation.running(bus)
    assert (said.revision, said.number, said.state) == (policy.revision, 0, "ready")


async def test_an_activation_reaches_every_process_at_once(start: Start, bus: Bus) -> None:
    """Those that run, within much less than the pause between two looks, and those that start later."""
    running = [await start(role) for role in ("gateway", "worker", "snmp")]
    began = monotonic()

    made = await activation.activate(bus, saying("patch"), "mara", "for the night")
    found = await activation.settled(bus, made)
    took = monotonic() - began
    late = await start("late")

    assert activation.outcome(made, found) == f"revision {made.revision}: in force in 3 of 3 processes"
    assert took < activation.EVERY / 2
    for policy in (*running, late):
        assert (await may(policy, "list"), await may(policy, "patch")) == (False, True)
        assert policy.revision == made.revision == saying("patch").revision
    said = await activation.status(bus)
    assert (said["revision"], said["by"], said["note"]) == (made.revision, "mara", "for the night")
    assert [one["revision"] for one in said["processes"]] == [made.revision] * 4
    assert activation.told(said).splitlines()[0].endswith("by mara (for the night)")


async def test_a_decision_is_that_of_the_policies_it_was_put_to(start: Start, bus: Bus) -> None:
    """While others are put in force all the time, each answer and its revision belong together."""
    policy = await start()
    wanted = {bundle.revision: bundle.data["allowed"] for bundle in (saying("list"), saying("patch"), saying("create"))}
    stop = asyncio.Event()
    seen: set[str] = set()

    async def ask() -> None:
        while not stop.is_set():
            for action in ("list", "patch", "create"):
                decision = await policy.decide(MARA, action, {"kind": "alarm"})
                assert decision.allow is (action in wanted[decision.revision])
                seen.add(decision.revision)
            await asyncio.sleep(0)

    asking = [asyncio.create_task(ask()) for _ in range(5)]
    while not seen:
        await asyncio.sleep(0)
    for number in range(6):
        made = await activation.activate(bus, saying("patch") if number % 2 else saying("create"), "mara")
        activation.outcome(made, await activation.settled(bus, made))
    stop.set()
    await asyncio.gather(*asking)

    assert seen == wanted.keys()


async def test_the_way_back_is_one_step_and_never_leads_to_what_was_left(start: Start, bus: Bus) -> None:
    """From the third to the second, the first, and at last to each process's own; then there is none."""
    policy = await start()
    for action in ("create", "patch", "delete"):
        await activation.activate(bus, saying(action), "mara")

    for expected in ("patch", "create", "list"):
        made = await activation.roll_back(bus, "mara")
        activation.outcome(made, await activation.settled(bus, made))
        assert await may(policy, expected)
        assert not await may(policy, "delete")
    assert policy.revision == saying("list").revision
    with pytest.raises(NotFound, match="nothing to go back to"):
        await activation.roll_back(bus, "mara")


async def test_after_a_way_back_one_can_go_on(start: Start, bus: Bus) -> None:
    """What is activated then leads back to what was in force then."""
    policy = await start()
    for action in ("create", "patch"):
        await activation.activate(bus, saying(action), "mara")
    await activation.roll_back(bus, "mara")
    await activation.activate(bus, saying("delete"), "mara")

    made = await activation.roll_back(bus, "mara")
    activation.outcome(made, await activation.settled(bus, made))

    assert await may(policy, "create")


async def test_a_process_that_cannot_compile_what_is_in_force_allows_nothing(start: Start, bus: Bus) -> None:
    """Not on the old policies, either: it says why, and goes on with the next that it can."""
    policy = await start()
    assert await may(policy, "list")
    made = await activation.activate(bus, saying("list", main="package main\n\nallow if {"), "mara")
    found = await activation.settled(bus, made)

    with pytest.raises(Unavailable, match="does not compile"):
        await policy.ping()
    with pytest.raises(Unavailable, match=r"in force in 0 of 1 processes; not in gateway@.*does not compile"):
        activation.outcome(made, found)

    back = await activation.roll_back(bus, "mara")
    activation.outcome(back, await activation.settled(bus, back))

    assert await may(policy, "list")


async def test_readiness_tells_of_every_process(start: Start, bus: Bus, tmp_path: Path) -> None:
    """A worker or an adapter answers no HTTP: the gateway says that it has no policies, and why, until it has."""
    gateway = await start()
    await app._policies(bus, gateway)
    (tmp_path / "nothing").mkdir()
    await start("worker", folder=tmp_path / "nothing")

    with pytest.raises(Unavailable, match=r"worker@\S+ - closed: no policies"):
        await app._policies(bus, gateway)

    lay(tmp_path / "nothing", saying("list"))

    async def ready() -> bool:
        with suppress(Unavailable):
            await app._policies(bus, gateway)
            return True
        return False

    await until(ready)


async def test_a_bundle_that_was_tampered_with_is_not_taken(start: Start, bus: Bus) -> None:
    """Its revision follows from its content, whoever published it."""
    policy = await start()
    other = activation.pack(saying("delete"))
    body = {"bundle": other, "revision": saying("list").revision, "who": "eve", "note": "", "before": 0}
    await bus.publish(activation.SUBJECT, body, "tampered")

    async def closed() -> bool:
        try:
            await policy.ping()
        except Unavailable as error:
            return "is damaged" in str(error)
        return False

    await until(closed)


@pytest.mark.parametrize("broken", ["empty", "no rego", "not compiling", "unsafe", "undefined", "not json"])
async def test_own_policies_that_cannot_be_used_are_looked_at_again(
    start: Start, bus: Bus, tmp_path: Path, broken: str
) -> None:
    """The process runs and allows nothing; when they are mended it goes on by itself."""
    folder = lay(tmp_path / "mine", saying("list"))
    texts = {
        "no rego": ("main.rego", None),
        "empty": ("main.rego", ""),
        "not compiling": ("main.rego", "package main\n\nallow if {"),
        "unsafe": ("main.rego", "package main\n\ndecision := {} if nothing == 1\n"),
        "undefined": ("main.rego", "package main\n\nallow := true\n"),
        "not json": ("data.json", "{"),
    }
    name, text = texts[broken]
    if text is None:
        for file in folder.glob("*.rego"):
            file.unlink()
    else:
        (folder / name).write_text(text)
    policy = await start(folder=folder)
    with pytest.raises(Unavailable) as refused:
        await policy.ping()
    (said,) = await activation.running(bus)

    lay(folder, saying("list"))

    async def mended() -> bool:
        try:
            return await may(policy, "list")
        except Unavailable:
            return False

    await until(mended)
    assert said.state == "closed"
    assert said.reason == str(refused.value)
    assert "\n" not in said.reason


async def test_a_good_bundle_helps_a_process_whose_own_are_broken(start: Start, bus: Bus, tmp_path: Path) -> None:
    """It goes on without a restart."""
    (tmp_path / "nothing").mkdir()
    policy = await start(folder=tmp_path / "nothing")
    made = await activation.activate(bus, saying("list"), "mara")

    assert activation.outcome(made, await activation.settled(bus, made)).endswith("1 of 1 processes")
    assert await may(policy, "list")


async def test_a_process_that_is_just_saying_something_else_is_not_passed_over(bus: Bus) -> None:
    said = asdict(activation.Running("gateway@here:1", "r", 1, "ready", "", True))
    await bus.publish("running.here", said, "0")

    async def go_on_saying() -> None:
        for number in count(1):
            await bus.publish("running.here", said, f"{number}")
            await asyncio.sleep(0)

    speaking = asyncio.create_task(go_on_saying())
    found = [len(await activation.running(bus)) for _ in range(200)]
    await end([speaking])

    assert set(found) == {1}


async def test_who_asks_a_server_takes_no_bundle(start: Start, bus: Bus) -> None:
    """Activating would change nothing there: it is refused with a sentence."""
    await start(follows=False)

    for change in (activation.activate(bus, saying("list"), "mara"), activation.roll_back(bus, "mara")):
        with pytest.raises(Misconfigured, match=r"gateway@.* asks an Open Policy Agent server"):
            await change


async def test_a_process_that_has_not_said_so_is_named(start: Start, bus: Bus) -> None:
    """One that is stopped in its tracks is not waited for for ever."""
    await start()
    await bus.publish(
        "running.deaf",
        {
            "process": "worker@far:1",
            "revision": "x",
            "number": 0,
            "state": "ready",
            "reason": "",
            "follows": True,
        },
        "deaf",
    )
    made = await activation.activate(bus, saying("list"), "mara")

    with pytest.raises(Unavailable, match=r"in 1 of 2 processes; not in worker@far:1 \(has not said so yet\)"):
        activation.outcome(made, await activation.settled(bus, made, patience=0.5))


async def test_what_no_process_hears_is_in_force_for_the_next(bus: Bus, start: Start) -> None:
    made = await activation.activate(bus, saying("patch"), "mara")
    said = activation.outcome(made, await activation.settled(bus, made))
    policy = await start()

    assert "nothing runs at the moment" in said
    assert await may(policy, "patch")


async def test_a_bundle_that_is_too_large_is_refused(bus: Bus) -> None:
    """Before anything is published, with what can be done."""
    from random import Random

    noise = Random(1).randbytes(600_000).hex()
    with pytest.raises(TooLarge, match="at most 700,000 go over the bus"):
        await activation.activate(bus, bundles.bundle({"main.rego": MAIN}, {"noise": noise}), "mara")

    assert await bus.last(activation.SUBJECT) is None


async def test_a_large_bundle_goes_over_the_bus(bus: Bus, start: Start) -> None:
    """Half a million bytes that cannot be packed."""
    from random import Random

    noise = Random(1).randbytes(250_000).hex()
    policy = await start()
    made = await activation.activate(
        bus, bundles.bundle({"main.rego": MAIN}, {"allowed": ["patch"], "noise": noise}), "mara"
    )
    activation.outcome(made, await activation.settled(bus, made))

    assert await may(policy, "patch")


async def test_what_was_published_while_the_bus_was_away_is_caught_up(tmp_path: Path) -> None:
    """The server is away from its place, takes another bundle meanwhile that nobody hears of, and comes back."""
    folder = tmp_path / "nats"
    folder.mkdir()
    own = lay(tmp_path / "own", saying("list"))
    policy = Policy(Closed("not read yet"))
    async with AsyncExitStack() as stack:
        with embedded.running(embedded.nats_command(folder)) as server:
            place = int(server.url.rpartition(":")[2])
            bus = await NatsBus(server.url, "test").open()
            stack.push_async_callback(bus.close)
            following = Following(policy, bus, "gateway", own)
            await following.start()
            stack.push_async_callback(following.stop)
        with socket.create_server(("127.0.0.1", place)) as _, embedded.running(embedded.nats_command(folder)) as server:
            other = await NatsBus(server.url, "other").open()
            made = await activation.activate(other, saying("patch"), "mara")
            await other.close()
        assert await may(policy, "list")  # what runs goes on while the bus is away
        with embedded.running(embedded.nats_command(folder, place)):

            async def caught_up() -> bool:
                return policy.revision == made.revision

            await until(caught_up)
            await following.stop()


def test_what_is_not_fit_is_refused_with_names(tmp_path: Path) -> None:
    """Policies that do not compile, do not answer, have no tests or fail them."""
    folder = lay(tmp_path / "p", saying("list"))
    assert activation.fit(folder).revision == saying("list").revision

    (folder / "main_test.rego").write_text(TEST + "\ntest_never if false\n\ntest_nor_this if input.x\n")
    with pytest.raises(Misconfigured, match=r"2 of 3 policy tests fail: main_test.test_never, main_test.test_nor_this"):
        activation.fit(folder)
    (folder / "main_test.rego").unlink()
    with pytest.raises(Misconfigured, match="has no tests"):
        activation.fit(folder)
    (folder / "main.rego").write_text("package main\n\nallow := true\n")
    with pytest.raises(Misconfigured, match=r"no rule main\.decision that answers"):
        activation.fit(folder)


async def test_engines_close() -> None:
    """Every engine can be closed, whether or not it was used."""
    for engine in (Closed("x"), Embedded(saying("list")), OpaServer("http://127.0.0.1:9")):
        await engine.close()
