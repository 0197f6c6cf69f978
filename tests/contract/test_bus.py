"""What every bus promises; the twin in memory and the real one pass the same suite."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic, time
from uuid import uuid4

import nats
import orjson
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, StreamConfig

from convergedon.core import embedded, pulling
from convergedon.core.bus import Bus, Consumer, Keep, Message, NatsBus, delay
from convergedon.core.errors import Invalid, Misconfigured, NotFound, Refused, Stale, Unavailable
from convergedon.core.memory import MemoryBus
from convergedon.core.pulling import Pull
from convergedon.core.store import Outgoing
from convergedon.core.tasks import end


@pytest.fixture(params=["memory", "nats"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "memory":
        memory = MemoryBus()
        yield memory
        await memory.close()
        return
    real = await NatsBus(request.getfixturevalue("nats_url"), "test").open()
    yield real
    await real.close()


@pytest.fixture
def tenant() -> str:
    """A tenant of this test's own: the real bus keeps what other tests published."""
    return uuid4().hex[:10]


def subject(tenant: str) -> str:
    return f"event.0.{tenant}.Thing"


class Taker:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.bell = asyncio.Event()

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)
        self.bell.set()

    async def until(self, count: int) -> list[Message]:
        async with asyncio.timeout(20):
            while len(self.messages) < count:
                self.bell.clear()
                await self.bell.wait()
        return self.messages


async def test_messages_come_in_order_with_what_they_carry(bus: Bus, tenant: str) -> None:
    for n in range(20):
        await bus.publish(
            subject(tenant), {"n": n}, f"{tenant}-{n}", {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
        )
    taker = Taker()
    bus.consume(Consumer(f"c-{tenant}", subject(tenant), taker))

    taken = await taker.until(20)

    assert [m.body["n"] for m in taken] == list(range(20))
    assert taken[0].id == f"{tenant}-0"
    assert taken[0].headers["traceparent"].split("-")[1] == "1" * 32
    assert [m.position.sequence for m in taken] == sorted(m.position.sequence for m in taken)
    assert len({m.position.epoch for m in taken}) == 1


async def test_a_message_published_twice_comes_once(bus: Bus, tenant: str) -> None:
    taker = Taker()
    bus.consume(Consumer(f"c-{tenant}", subject(tenant), taker))
    for id in ("a", "a", "b"):
        await bus.publish(subject(tenant), {"id": id}, f"{tenant}-{id}")

    assert [m.body["id"] for m in await taker.until(2)] == ["a", "b"]


async def test_what_may_succeed_later_comes_back_before_the_next(bus: Bus, tenant: str) -> None:
    seen: list[int] = []
    done = asyncio.Event()

    async def handle(message: Message) -> None:
        seen.append(message.body["n"])
        if seen.count(0) < 3 and message.body["n"] == 0:
            raise Unavailable("not yet")
        if message.body["n"] == 1:
            done.set()

    for n in range(2):
        await bus.publish(subject(tenant), {"n": n}, f"{tenant}-{n}")
    bus.consume(Consumer(f"c-{tenant}", subject(tenant), handle))
    await asyncio.wait_for(done.wait(), 20)

    assert seen == [0, 0, 0, 1]


async def test_what_cannot_succeed_is_parked_with_its_reason_and_can_be_retried(bus: Bus, tenant: str) -> None:
    mended, done = False, asyncio.Event()

    async def handle(message: Message) -> None:
        if not mended:
            raise Invalid("no such thing")
        done.set()

    bus.consume(Consumer(f"c-{tenant}", subject(tenant), handle))
    await bus.publish(subject(tenant), {"n": 1}, f"{tenant}-1")
    async with asyncio.timeout(20):
        while not (mine := [p for p in await bus.parked() if p.consumer == f"c-{tenant}"]):
            await asyncio.sleep(0.01)

    assert (mine[0].reason, mine[0].subject, mine[0].body) == ("no such thing", subject(tenant), {"n": 1})
    mended = True
    await bus.retry(mine[0].id)
    await asyncio.wait_for(done.wait(), 20)
    assert not [p for p in await bus.parked() if p.consumer == f"c-{tenant}"]


async def test_our_own_fault_is_tried_again_and_then_parked(bus: Bus, tenant: str) -> None:
    attempts = 0

    async def handle(message: Message) -> None:
        nonlocal attempts
        attempts += 1
        raise KeyError("bug")

    bus.consume(Consumer(f"c-{tenant}", subject(tenant), handle, attempts=2))
    await bus.publish(subject(tenant), {}, f"{tenant}-1")
    async with asyncio.timeout(20):
        while not (mine := [p for p in await bus.parked() if p.consumer == f"c-{tenant}"]):
            await asyncio.sleep(0.01)

    assert attempts == 2
    assert "KeyError" in mine[0].reason


async def test_several_takers_of_one_consumer_keep_the_order(bus: Bus, tenant: str) -> None:
    running, most, seen = 0, 0, []
    done = asyncio.Event()

    async def handle(message: Message) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        seen.append(message.body["n"])
        running -= 1
        if len(seen) == 30:
            done.set()

    consumer = Consumer(f"c-{tenant}", subject(tenant), handle)
    takers = [consumer] if isinstance(bus, MemoryBus) else [consumer, consumer, consumer]
    for taker in takers:
        bus.consume(taker)
    for n in range(30):
        await bus.publish(subject(tenant), {"n": n}, f"{tenant}-{n}")
    await asyncio.wait_for(done.wait(), 20)

    assert seen == list(range(30))
    assert most == 1


async def test_what_takes_longer_than_its_time_stays_with_its_taker(bus: Bus, tenant: str) -> None:
    """While a handler works no other taker is given its message; while a machine stands still, that is not promised."""
    for attempt in range(5):
        given, stood_still = await held(bus, f"{tenant}-{attempt}")
        if stood_still < ACK_WAIT / 3:
            break

    assert given == [1, 2]


ACK_WAIT = 0.6


async def held(bus: Bus, tenant: str) -> tuple[list[int], float]:
    """What two takers were given while one worked for longer than its time, and seconds that all stood still then."""
    name, taken, go_on, stood_still = f"taker-{tenant}", Taker(), asyncio.Event(), 0.0

    async def slow(message: Message) -> None:
        await taken(message)
        if len(taken.messages) == 1:
            await go_on.wait()

    takers = [bus.consume(Consumer(name, subject(tenant), slow, ack_wait=ACK_WAIT)) for _ in range(2)]
    await bus.publish(subject(tenant), {"n": 1}, f"{tenant}-1")
    await taken.until(1)
    for _ in range(50):  # nothing happens: that is the promise, and it takes this long to see it
        begun = monotonic()
        await asyncio.sleep(0.03)
        stood_still = max(stood_still, monotonic() - begun)
    go_on.set()
    await bus.publish(subject(tenant), {"n": 2}, f"{tenant}-2")
    given = [message.body["n"] for message in await taken.until(2)]
    await end(takers)
    return given, stood_still


async def test_what_was_given_and_not_taken_goes_back_at_once(nats_url: str, tenant: str) -> None:
    bus = await NatsBus(nats_url, "test").open()
    client, stream = bus._client, bus._stream
    config = ConsumerConfig(
        durable_name=f"pull-{tenant}",
        filter_subject=subject(tenant),
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=60,
        max_ack_pending=1,
    )
    one, other = Pull(client, stream, "EVENTS", config), Pull(client, stream, "EVENTS", config)
    for n in range(2):
        await bus.publish(subject(tenant), {"n": n}, f"{tenant}-{n}")

    await (await one.next()).ack_sync()
    async with asyncio.timeout(10):
        while one.given == 0:
            await asyncio.sleep(0.01)
    await one.close()
    async with asyncio.timeout(10):
        again = await other.next()

    assert orjson.loads(again.data) == {"n": 1}
    assert again.metadata.num_delivered == 2
    await other.close()
    await bus.close()


async def test_a_forgotten_consumer_leaves_nothing(bus: Bus, tenant: str) -> None:
    """Nor do messages that nobody had begun to take; it may be forgotten twice."""
    taker, mine = Taker(), f"delivery.{tenant}"
    task = bus.consume(Consumer(f"hub-{tenant}", mine, taker))
    await bus.publish(mine, {}, f"{tenant}-1")
    await taker.until(1)
    task.cancel()
    await bus.publish(mine, {}, f"{tenant}-2")
    await bus.publish(f"{mine}x", {}, f"{tenant}-3")

    for _ in range(2):
        await bus.forget("DELIVERY", f"hub-{tenant}", mine)
    await bus.forget("DELIVERY", f"hub-{tenant}x", f"{mine}x")

    assert not {mine, f"{mine}x"} & (await bus.waiting("DELIVERY")).keys()


async def test_stored_messages_can_be_read_again(bus: Bus, tenant: str) -> None:
    for n in range(3):
        await bus.publish(f"audit.{tenant}", {"n": n}, f"{tenant}-{n}")

    assert [body["n"] for body in await bus.read(f"audit.{tenant}")] == [0, 1, 2]
    assert await bus.read(f"audit.none-{tenant}") == []


async def test_the_newest_message_of_a_subject_can_be_asked_for(bus: Bus, tenant: str) -> None:
    """A large one too, and of that very subject."""
    mine, text = f"policy.{tenant}", "x" * 700_000
    nothing = await bus.last(mine)
    for n in range(3):
        await bus.publish(mine, {"n": n, "text": text}, f"{tenant}-{n}")
    await bus.publish(f"policy.{tenant}x", {"n": 9}, f"{tenant}-9")

    newest = await bus.last(mine)
    read = [message async for message in bus.since(mine, 0)]

    assert nothing is None
    assert newest is not None
    assert (newest.body, newest.id, newest.subject) == ({"n": 2, "text": text}, f"{tenant}-2", mine)
    assert newest.position.sequence == read[-1].position.sequence
    assert abs(newest.stored - read[-1].stored) < 0.01


async def test_an_erased_message_is_gone(bus: Bus, tenant: str) -> None:
    """The others stay; what is gone already may be erased again."""
    mine = f"policy.{tenant}"
    for n in range(3):
        await bus.publish(mine, {"n": n}, f"{tenant}-{n}")
    read = [message async for message in bus.since(mine, 0)]

    for _ in range(2):
        await bus.erase(read[1])

    assert [body["n"] for body in await bus.read(mine)] == [0, 2]


async def test_messages_of_a_subject_are_taken_out_up_to_a_place(bus: Bus, tenant: str) -> None:
    mine, other = (f"metered.{tenant}.{name}" for name in ("mine", "other"))
    for n in range(4):
        await bus.publish(mine, {"n": n}, f"{tenant}-{n}")
    await bus.publish(other, {"n": 9}, f"{tenant}-other")
    stored = [message async for message in bus.since(mine, 0)]
    await bus.purge(mine, stored[1].position.sequence)

    assert await bus.read(mine) == [{"n": 2}, {"n": 3}]
    assert await bus.read(other) == [{"n": 9}]


async def test_of_what_a_process_says_of_itself_the_newest_is_kept(bus: Bus, tenant: str) -> None:
    for n in range(6):
        await bus.publish(f"running.{tenant}{n % 2}", {"n": n}, f"{tenant}-{n}")

    said = [body["n"] for body in await bus.read("running.>") if "n" in body]

    assert {4, 5} <= set(said)
    assert not {0, 1, 2, 3} & set(said)


async def test_a_stream_keeps_as_many_messages_as_it_should(bus: Bus, tenant: str) -> None:
    """The newest fifty bundles of policies."""
    for n in range(60):
        await bus.publish(f"policy.{tenant}", {"n": n}, f"{tenant}-{n}")

    assert [body["n"] for body in await bus.read(f"policy.{tenant}")] == list(range(10, 60))


async def test_how_long_decisions_are_kept_is_left_to_those_who_were_told(nats_url: str) -> None:
    """A command that knows nothing of the setting of the gateway does not shorten it."""
    told = await NatsBus(nats_url, "test", {"DECISIONS": Keep(30 * 86_400, 1 << 30)}).open()
    untold = await NatsBus(nats_url, "test").open()
    kept = (await untold._stream.stream_info("DECISIONS")).config
    again = await NatsBus(nats_url, "test", {"DECISIONS": Keep(86_400, 2 << 30)}).open()
    later = (await untold._stream.stream_info("DECISIONS")).config
    for one in (told, untold, again):
        await one.close()

    assert (kept.max_age, kept.max_bytes) == (30 * 86_400, 1 << 30)
    assert (later.max_age, later.max_bytes) == (86_400, 2 << 30)


async def test_a_message_may_be_bound_to_the_one_before(bus: Bus, tenant: str) -> None:
    """Of several that want to stand behind the same one, one does; the others are told."""
    own = f"audit.{tenant}"
    assert await bus.last(own) is None

    async def publish(after: int) -> bool:
        try:
            await bus.publish(own, {"after": after}, uuid4().hex, after=after)
        except Stale:
            return False
        return True

    assert sorted(await asyncio.gather(*(publish(0) for _ in range(3)))) == [False, False, True]
    first = await bus.last(own)
    assert first
    assert first.body == {"after": 0}
    assert not await publish(first.position.sequence + 1)
    assert await publish(first.position.sequence)
    assert [one.body["after"] async for one in bus.since(own, 0)] == [0, first.position.sequence]


async def test_messages_are_read_from_a_place_on(bus: Bus, tenant: str) -> None:
    own = f"audit.{tenant}"
    for n in range(4):
        await bus.publish(own, {"n": n}, f"{tenant}-{n}")
    places = [one.position.sequence async for one in bus.since(own, 0)]

    assert [one.body["n"] async for one in bus.since(own, 0, places[1])] == [2, 3]
    assert [one.body["n"] async for one in bus.since(own, 0, places[3])] == []


async def test_a_log_larger_than_the_storage_is_one_sentence(nats_url: str) -> None:
    """It names the setting, so that the operator can lower it."""
    with pytest.raises(Misconfigured, match=r"no room for .*, or lower CONVERGEDON_DECISION_BYTES"):
        await NatsBus(nats_url, "test", {"DECISIONS": Keep(86_400, 1 << 60)}).open()


async def test_what_is_metered_is_refused_when_there_is_no_room_and_nothing_goes_for_it(tmp_path: Path) -> None:
    """Of what is not billed yet nothing may be lost: who would publish is told, and tries again when there is room."""
    with embedded.running(embedded.nats_command(tmp_path)) as server:
        bus = await NatsBus(server.url, "test", {"METERED": Keep(0, 1 << 20)}).open()
        large = {"rows": "".join(uuid4().hex for _ in range(7_000))}  # that no compression makes small
        for number in range(4):
            await bus.publish(f"metered.acme.ip-traffic.{number}", large, uuid4().hex)
        with pytest.raises(Unavailable, match=r"the stream METERED is full: raise CONVERGEDON_METERED_BYTES"):
            await bus.publish("metered.acme.ip-traffic.9", large, uuid4().hex)
        kept, size = await bus.waiting("METERED"), await bus.size("METERED")
        await bus.purge("metered.acme.ip-traffic.0", 1)
        await bus.publish("metered.acme.ip-traffic.99", large, uuid4().hex)
        await bus.close()

    assert kept == {f"metered.acme.ip-traffic.{n}": 1 for n in range(4)}
    assert len(large["rows"]) < size <= 1 << 20


@pytest.fixture(params=["memory", "nats"])
async def narrow(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bus]:
    """A bus that has room for four parked messages of a quarter of a megabyte."""
    if request.param == "memory":
        memory = MemoryBus(1 << 20)
        yield memory
        await memory.close()
        return
    with embedded.running(embedded.nats_command(tmp_path)) as server:
        bus = await NatsBus(server.url, "test", {"PARKED": Keep(0, 1 << 20)}).open()
        yield bus
        await bus.close()


async def test_what_finds_no_room_to_be_parked_comes_back_until_there_is_and_nothing_goes_for_it(
    narrow: Bus, tenant: str
) -> None:
    """It is said to be parked when it is, once, and what comes after it waits."""
    seen, told, bell = list[int](), list[int](), asyncio.Event()

    async def refuse(message: Message) -> None:
        seen.append(message.body["n"])
        bell.set()
        raise Invalid("no such thing")

    def parked(message: Message, _: str) -> None:
        told.append(message.body["n"])
        bell.set()

    async def until(are: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not are():
                bell.clear()
                await bell.wait()

    large = "x" * 220_000
    for n in range(6):
        await narrow.publish(subject(tenant), {"n": n, "words": large}, f"{tenant}-{n}")
    narrow.consume(Consumer(f"c-{tenant}", subject(tenant), refuse, pause=0.1, parked=parked))
    await until(lambda: seen.count(4) == 3)
    full = [one.body["n"] for one in await narrow.parked()], list(told), await narrow.size("PARKED")
    first, second = await narrow.parked(2)
    dropped = await narrow.drop(first.id)
    await until(lambda: 4 in told)

    assert full[:2] == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert full[2] <= 1 << 20
    assert dropped.body["n"] == 0
    assert [one.body["n"] for one in await narrow.parked()] == [1, 2, 3, 4]
    assert [one.body["n"] for one in await narrow.parked(2, second.id)] == [2, 3]
    last, everything = await narrow.parked_last(3), await narrow.parked_last(9)
    assert ([one.body["n"] for one in last.messages], last.earlier) == ([4, 3, 2], 1)
    assert ([one.body["n"] for one in everything.messages], everything.earlier) == ([4, 3, 2, 1], 0)
    assert told == [0, 1, 2, 3, 4]
    with pytest.raises(NotFound, match=f"there is no parked message {first.id}"):
        await narrow.drop(first.id)


async def test_a_stream_that_let_the_oldest_go_lets_none_go_any_more(tmp_path: Path) -> None:
    """As an earlier build made it; what it holds stays."""
    earlier = StreamConfig(name="PARKED", subjects=["parked.>"], max_bytes=1 << 20, discard=DiscardPolicy.OLD)
    with embedded.running(embedded.nats_command(tmp_path)) as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(earlier)
        await client.jetstream().publish("parked.EVENTS.c", b"{}")
        bus = await NatsBus(server.url, "test", {"PARKED": Keep(0, 1 << 20)}).open()
        found = await client.jetstream().stream_info("PARKED")
        await bus.close()
        await client.close()

    assert found.config.discard == DiscardPolicy.NEW
    assert found.state.messages == 1


def several(tenant: str, number: int, words: str = "") -> list[Outgoing]:
    carried = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    return [Outgoing(f"{tenant}-{n}", subject(tenant), {"n": n, "words": words}, carried) for n in range(number)]


async def test_what_is_stored_at_once_is_taken_and_read_one_by_one(bus: Bus, tenant: str) -> None:
    """In order, each with its own id and trace; more of it than one message holds, too."""
    taker, heard = Taker(), list[str]()
    said = several(tenant, 9, "x" * 100_000)
    async with bus.listen("event.>") as queue:
        await bus.publish_all(said)
        async with asyncio.timeout(20):
            while len(heard) < 9:
                one = await queue.get()
                heard += [one.id] if one.subject == subject(tenant) else []
    task = bus.consume(Consumer(f"c-{tenant}", f"event.0.{tenant}.>", taker))
    taken = await taker.until(9)
    await end([task])

    assert [one.id for one in taken] == [one.id for one in said] == heard
    assert {(one.subject, one.headers["traceparent"]) for one in taken} == {
        (subject(tenant), said[0].headers["traceparent"])
    }
    places = [(one.position.sequence, one.position.part) for one in taken]
    assert places == sorted(set(places))
    assert [body["n"] for body in await bus.read(f"event.0.{tenant}.>")] == list(range(9))
    assert [one.id async for one in bus.since(f"event.0.{tenant}.>", 0)] == heard


async def test_one_of_several_that_cannot_succeed_is_parked_alone(bus: Bus, tenant: str) -> None:
    """What comes later holds up those after it, as it would had each come by itself; what is refused holds up none."""
    taken: list[int] = []
    done, turns = asyncio.Event(), iter([True, False])

    async def take(message: Message) -> None:
        number = message.body["n"]
        if number == 1:
            raise Refused("no")
        if number == 2 and next(turns):
            raise Unavailable("not yet", 0.01)
        taken.append(number)
        if number == 3:
            done.set()

    await bus.publish_all(several(tenant, 4))
    task = bus.consume(Consumer(f"c-{tenant}", f"event.0.{tenant}.>", take))
    await asyncio.wait_for(done.wait(), 20)
    await end([task])

    assert [number for number in taken if number] == [2, 3]
    parked = [(one.subject, one.reason, one.body["n"]) for one in await bus.parked() if one.consumer == f"c-{tenant}"]
    assert parked == [(subject(tenant), "no", 1)]


async def test_the_size_of_a_stream_is_told(bus: Bus, tenant: str) -> None:
    before = await bus.size("EVENTS")
    await bus.publish(subject(tenant), {"n": "n" * 1000}, f"{tenant}-0")

    assert await bus.size("EVENTS") >= before + 1000


async def test_a_watcher_sees_what_is_published_from_now_on(bus: Bus, tenant: str) -> None:
    await bus.publish(subject(tenant), {"n": 0}, f"{tenant}-0")
    async with bus.listen("event.>") as queue:
        await bus.publish(subject(tenant), {"n": 1}, f"{tenant}-1")
        async with asyncio.timeout(20):
            while (seen := await queue.get()).subject != subject(tenant):
                pass

    assert seen.body == {"n": 1}


async def test_what_was_stored_since_a_time_can_be_read_again_in_order(bus: Bus, tenant: str) -> None:
    """Each with its id, and nothing that was stored before."""
    for n in range(4):
        if n == 2:
            await asyncio.sleep(0.02)
            start = time()
        await bus.publish(subject(tenant), {"n": n}, f"{tenant}-{n}")

    read = [message async for message in bus.since(subject(tenant), start)]

    assert [message.body["n"] for message in read] == [2, 3]
    assert [message.id for message in read] == [f"{tenant}-2", f"{tenant}-3"]
    assert [message async for message in bus.since(subject(f"none-{tenant}"), start)] == []


async def test_a_work_queue_tells_what_is_not_done(bus: Bus, tenant: str) -> None:
    taker, mine = Taker(), f"delivery.{tenant}"
    for n in range(3):
        await bus.publish(mine, {"n": n}, f"{tenant}-{n}")
    before = (await bus.waiting("DELIVERY"))[mine]
    bus.consume(Consumer(f"hub-{tenant}", mine, taker))
    await taker.until(3)

    assert before == 3
    async with asyncio.timeout(20):
        while mine in await bus.waiting("DELIVERY"):
            await asyncio.sleep(0.01)


async def test_what_its_peer_wants_later_comes_back_then(bus: Bus, tenant: str) -> None:
    """The wish of a peer counts, not our own pause."""
    times: list[float] = []
    done = asyncio.Event()

    async def handle(message: Message) -> None:
        times.append(time())
        if len(times) == 1:
            raise Unavailable("busy", after=0.7)
        done.set()

    await bus.publish(subject(tenant), {}, f"{tenant}-1")
    bus.consume(Consumer(f"c-{tenant}", subject(tenant), handle, pause=0.05))
    await asyncio.wait_for(done.wait(), 20)

    assert 0.65 < times[1] - times[0] < 5


def test_what_failed_together_does_not_come_back_together() -> None:
    """Pauses are by chance between nothing and twice the last bound, up to the longest."""

    async def handle(message: Message) -> None: ...

    consumer = Consumer("c", "event.>", handle, pause=10)
    for attempt, most in ((1, 0.2), (3, 0.8), (50, 10)):
        pauses = [delay(consumer, attempt) for _ in range(400)]
        assert 0 <= min(pauses) < most / 10
        assert most * 0.9 < max(pauses) <= most


async def test_what_misses_its_cancellation_is_ended_all_the_same() -> None:
    """As a consumer does whose answer comes at the same moment."""

    async def deaf() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await asyncio.wait_for(end([task]), 20)

    assert task.cancelled()


async def test_a_light_consumer_goes_on_where_it_was_when_its_server_ended(tmp_path: Path) -> None:
    """That server knows nothing of it any more; what is done is not given again, what is not is."""
    before, after = Taker(), Taker()
    with embedded.running(embedded.nats_command(tmp_path)) as server:
        bus = await NatsBus(server.url, "test").open()
        await bus.publish_all(several("acme", 3))
        bus.consume(Consumer("light", "event.0.acme.>", before, light=True))
        await before.until(3)
        await bus.publish(subject("acme"), {"n": 3}, "acme-3")
        await before.until(4)
        await bus.close()
        left = await NatsBus(server.url, "test").open()
        await left.publish(subject("acme"), {"n": 4}, "acme-4")
        await left.close()
    with embedded.running(embedded.nats_command(tmp_path)) as server:
        bus = await NatsBus(server.url, "test").open()
        bus.consume(Consumer("light", "event.0.acme.>", after, light=True))
        await bus.publish(subject("acme"), {"n": 5}, "acme-5")
        await after.until(2)
        await bus.close()

    assert [message.body["n"] for message in before.messages] == [0, 1, 2, 3]
    assert [message.body["n"] for message in after.messages] == [4, 5]


@pytest.mark.parametrize("light", [False, True])
async def test_who_waits_while_the_server_is_killed_is_given_what_comes_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, light: bool
) -> None:
    """At once: what was asked for before is forgotten by the server, and is not waited for until it would be over."""
    monkeypatch.setattr(pulling, "EXPIRES", 600.0)
    taker, come, first = Taker(), asyncio.Event(), embedded.nats_command(tmp_path)

    async def take(message: Message) -> None:
        await taker(message)
        if message.body["n"] == 1:  # what was done when the server was killed may come twice
            come.set()

    with embedded.running(first) as server:
        bus = await NatsBus(server.url, "test").open()
        bus.consume(Consumer("waiting", "event.0.acme.>", take, light=light))
        await bus.publish(subject("acme"), {"n": 0}, "acme-0")
        await taker.until(1)
        os.kill(server.pid, signal.SIGKILL)
    port = int(first.address.rpartition(":")[2])
    with embedded.running(embedded.nats_command(tmp_path, port)) as server:
        other = await NatsBus(server.url, "test").open()
        await other.publish(subject("acme"), {"n": 1}, "acme-1")
        await asyncio.wait_for(come.wait(), 20)
        await other.close()
        await bus.close()


async def test_a_consumer_of_an_earlier_build_goes_on_where_it_was_and_is_light(nats_url: str, tenant: str) -> None:
    before, after, consumer = Taker(), Taker(), Consumer(f"c-{tenant}", subject(tenant), Taker())
    bus = await NatsBus(nats_url, "test").open()
    await bus.publish(subject(tenant), {"n": 0}, f"{tenant}-0")
    task = bus.consume(replace(consumer, handler=before))
    await before.until(1)
    await end([task])
    await bus.close()

    bus = await NatsBus(nats_url, "test").open()
    await bus.publish(subject(tenant), {"n": 1}, f"{tenant}-1")
    bus.consume(replace(consumer, handler=after, light=True))
    await after.until(1)
    client = await nats.connect(nats_url)
    found = await client.jetstream().consumer_info("EVENTS", consumer.name)
    await client.close()
    await bus.close()

    assert [message.body["n"] for message in before.messages + after.messages] == [0, 1]
    assert found.config.mem_storage
