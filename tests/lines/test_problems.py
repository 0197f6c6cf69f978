"""Many alarms, one problem: the same whoever took which observation when, and everybody affected has the last word."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scene import STORE_KINDS, PumpBus, Scene, playing

from convergedon.adapters.contract import Observation
from convergedon.adapters.intake import Told
from convergedon.adapters.reporting import Reporting
from convergedon.core.bus import Message, partition
from convergedon.core.memory import MemoryStore, subject_matches
from convergedon.core.store import Store
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.service_inventory import SERVICE
from convergedon.mediation import assurance, problems, topology
from convergedon.mediation.topology import Plan, part_at

PLAN = Plan(
    "acme",
    {
        "pe1": [],
        "pe2": [],
        "pe3": [],
        "pe1/ge-8": [],
        "pe2/ge-8": [],
        "pe1/ge-9": [],
        "pe3/ge-9": [],
        "cpe": ["pe3"],
        "link a": ["pe1/ge-8", "pe2/ge-8"],
        "link b": ["pe1/ge-9", "pe3/ge-9"],
        "group duct": ["link a", "link b"],
        "agg": [],
        "x1": [],
        "x2": [],
        **{place: [] for place in ("agg/1", "agg/2", "x1/1", "x2/1")},
        "link c": ["agg/1", "x1/1"],
        "link d": ["agg/2", "x2/1"],
        "m": [],
        "n": [],
        **{place: [] for place in ("m/1", "m/2", "n/1", "n/2", "x1/2", "x2/2")},
        "link e": ["m/1", "x1/2"],
        "link f": ["m/2", "n/1"],
        "link g": ["n/2", "x2/2"],
    },
)
SERVICES = {
    "s1": (("pe1", "pe1/ge-1"), ("northwind",)),
    "s2": (("pe2", "pe2/ge-8"), ("contoso",)),
    "s3": (("pe3", "pe3/ge-9"), ("northwind",)),
    "s4": (("pe1", "pe1/ge-8", "pe3", "pe3/ge-1"), ("fabrikam", "contoso")),
    "s5": (("cpe",), ("fabrikam",)),
    "s6": (("agg", "agg/7"), ("northwind", "fabrikam")),
    "s7": (("m", "m/7"), ("northwind",)),
    "s8": (("n", "n/7"), ("contoso",)),
}
PLACES = ["pe1", "pe2", "pe3", "cpe", "pe1/ge-1", "pe1/ge-8", "pe1/ge-9", "pe2/ge-8", "pe3/ge-9", "pe3/ge-1"]
AROUND = ["x1/1", "x2/1", "x1/1", "x2/1", "agg/1", "agg", "agg/7", "x1"]
"""Around a device that its two neighbours lose."""
EPOCH = 1_770_000_000.0


class Scattered(PumpBus):
    """Delivers as many workers do: in each lane in order, but nobody knows which lane is next."""

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._chance = chance
        self._lanes: dict[str, deque[Message]] = defaultdict(deque)

    async def publish(
        self, subject: str, body: Mapping[str, Any], id: str, headers: Mapping[str, str] | None = None
    ) -> None:
        before = len(self.messages)
        await super().publish(subject, body, id, headers)
        for message in self.messages[before:]:
            for consumer in self.consumers:
                if subject_matches(message.subject, consumer.subject):
                    self._lanes[consumer.name].append(message)

    async def run(
        self,
        store: Store,
        times: int = 1,
        between: Callable[[], Awaitable[Any]] | None = None,
        after: Callable[[Message, Any], Awaitable[None]] | None = None,
        most: int = 1_000_000,
    ) -> None:
        """Deliver until nothing is left, or as many messages."""
        for _ in range(most):
            for unsent in await store.unsent(-1):
                for message in unsent.messages:
                    await self.publish(message.subject, message.body, message.id, message.headers)
                await store.sent([unsent])
            ready = [consumer for consumer in self.consumers if self._lanes[consumer.name]]
            if not ready:
                return
            consumer = self._chance.choice(ready)
            await self._deliver(consumer, self._lanes[consumer.name].popleft())


def observation(number: int, place: str, kind: str, severity: str = "major") -> Observation:
    device, _, port = place.partition("/")
    about = {
        "alarmType": "communicationsAlarm",
        "perceivedSeverity": severity,
        "probableCause": "lossOfSignal",
        "specificProblem": f"{place} is down",
        "details": {},
    }
    at = EPOCH + number
    return Observation(f"o{number}", kind, "loopback", device, "acme", at, port, f"down:{port}", about)  # type: ignore[arg-type]


async def furnish(scene: Scene) -> None:
    await topology.keep(scene.resources, PLAN)
    for id, (places, customers) in SERVICES.items():
        body = {
            "name": f"access {id}",
            "state": "active",
            "supportingResource": [{"id": part_at("acme", place)[1]} for place in places],
            "relatedParty": [{"id": customer, "role": "customer"} for customer in customers],
        }
        await scene.resources.create(SERVICE, "acme", body, {}, id)
    await scene.pump()


async def outcome(scene: Scene) -> dict[str, Any]:
    """What it comes to, in words that do not depend on ids."""
    open_ = [one for one in await scene.find("alarm") if one.body["state"] != "cleared"]
    at = {one.id: one.facts["key"] for one in open_}
    alarms = {
        one.facts["key"]: {
            "why": one.body["why"],
            "root": one.body["isRootCause"],
            "severity": one.body["perceivedSeverity"],
            "since": one.body["alarmRaisedTime"],
            "affecting": one.body["serviceAffecting"],
            "services": [service["id"] for service in one.body["affectedService"]],
            "parent": [at[parent["id"]] for parent in one.body.get("parentAlarm", [])],
            "children": sorted(at[child["id"]] for child in one.body.get("correlatedAlarm", [])),
            "parties": one.facts["parties"],
        }
        for one in open_
    }
    told = {}
    for one in await scene.find("affectedParty", **{"body.status": "affected"}):
        said = one.body["activity"][-1]["text"]
        alone = {"problem": one.facts["problem"], **one.body, "since": one.body["affectedSince"]}
        for share in one.facts.get("shares") or [alone]:
            told[one.facts["customer"], at[share["problem"]]] = {
                "cause": share["cause"],
                "services": [service["id"] for service in share["service"]],
                "since": share["since"],
                "said": said,
            }
    return {"alarms": alarms, "told": told, "last word": await last_words(scene)}


async def last_words(scene: Scene) -> dict[tuple[str, str], str]:
    """customer, service -> what the last notification that speaks of it says."""
    found: dict[tuple[str, str], str] = {}
    for note in await scene.store.find("customerNotification", {}):  # as they were made
        customer = note.body["relatedParty"][0]["id"]
        well = note.body["notificationType"] == "serviceRestored"
        for service in note.body["service"]:
            found[customer, service["id"]] = "works" if well else "disturbed"
        for service in [*note.body.get("restoredService", []), *note.body.get("endedService", [])]:
            found[customer, service["id"]] = "works"
    return found


async def play(seen: Iterable[Observation], chance: Random, most: int) -> dict[str, Any]:
    """What observations come to on workers of which nobody knows who is next; ``most`` messages between two of them."""
    with TemporaryDirectory() as folder:
        async with playing(MemoryStore(STORE_KINDS), Scattered(chance), Path(folder)) as scene:
            await furnish(scene)
            for one in seen:
                await scene.network.say(one)
                await scene.bus.run(scene.store, most=chance.randint(0, most))
            await scene.pump()
            assert scene.bus.parked_ == []
            await hold(scene)
            return await outcome(scene)


async def hold(scene: Scene) -> None:
    """What must be true whatever happened: no child without its parent, nobody told twice, nobody without last word."""
    found = await outcome(scene)
    for key, alarm in found["alarms"].items():
        for parent in alarm["parent"]:
            assert key in found["alarms"][parent]["children"]
        for child in alarm["children"]:
            assert found["alarms"][child]["parent"] == [key]
        assert alarm["root"] == (alarm["parent"] == [])
    disturbed = {(customer, id) for (customer, _), told in found["told"].items() for id in told["services"]}
    assert {who for who, word in found["last word"].items() if word == "disturbed"} == disturbed
    assert {
        (customer, id) for alarm in found["alarms"].values() for id in alarm["services"] for customer in SERVICES[id][1]
    } == disturbed
    for record in await scene.find("affectedParty"):
        notes = await scene.find("customerNotification", **{"body.affectedParty.id": record.id})
        kinds = [note.body["notificationType"] for note in notes]
        assert kinds.count("serviceAffected") == 1
        assert kinds.count("serviceRestored") == (record.body["status"] == "restored")
        texts = {note.body["text"] for note in notes}
        assert texts == {entry["text"] for entry in record.body["activity"]}


def reordered(seen: list[Observation], chance: Random) -> list[Observation]:
    """The same observations, those of each device in their order."""
    devices = [one.device for one in seen]
    chance.shuffle(devices)
    queues = {device: iter([one for one in seen if one.device == device]) for device in devices}
    return [next(queues[device]) for device in devices]


BESIDE = ["x1/2", "x2/2", "x1/2", "x2/2", "m/1", "n/2", "n", "x2"]
SOMEWHERE = st.sampled_from([PLACES, PLACES, AROUND, BESIDE]).flatmap(st.sampled_from)
FAULTS = st.lists(
    st.tuples(SOMEWHERE, st.sampled_from(["critical", "major", "major", "warning"])),
    min_size=1,
    max_size=10,
    unique_by=lambda one: one[0],
).map(lambda faults: [observation(number, place, "fault", severity) for number, (place, severity) in enumerate(faults)])
MIXED = st.lists(
    st.tuples(SOMEWHERE, st.sampled_from(["fault", "fault", "fault", "clear"])), min_size=1, max_size=14
).map(lambda said: [observation(number, place, kind) for number, (place, kind) in enumerate(said)])
PATIENT = effort(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
"""An example takes half a second: what fails is not made smaller."""


@PATIENT
@given(FAULTS, st.integers(0, 2**32))
def test_in_whatever_order_it_comes_to_the_same(seen: list[Observation], seed: int) -> None:
    """Problems, groups, reasons, who is affected since when, and what they heard last of what is still disturbed.

    A cut that was concluded from half of the news may have been told of services that it turns out not to touch.
    """
    at_once = asyncio.run(play(seen, Random(1), 0))
    chance = Random(seed)
    scattered = asyncio.run(play(reordered(seen, chance), chance, 40))

    assert left(scattered) == left(at_once)


@PATIENT
@given(MIXED, st.integers(0, 2**32))
def test_what_ends_meanwhile_changes_nothing_of_what_isleft(seen: list[Observation], seed: int) -> None:
    """Only since when a customer suffers may go back to a fault that ended before the next began."""
    at_once = asyncio.run(play(seen, Random(1), 0))
    chance = Random(seed)
    scattered = asyncio.run(play(reordered(seen, chance), chance, 40))

    assert timeless(scattered) == timeless(at_once)


def left(found: dict[str, Any]) -> dict[str, Any]:
    told = {
        who: {**said, "said": re.sub(r" [\w ,]* works again\.", "", said["said"])}
        for who, said in found["told"].items()
    }
    disturbed = {who for who, word in found["last word"].items() if word == "disturbed"}
    return {**found, "told": told, "last word": disturbed}


def timeless(found: dict[str, Any]) -> str:
    told = {who: {**said, "since": "", "said": ""} for who, said in found["told"].items()}
    return re.sub(r"2026-[0-9T:.-]*Z", "then", repr((sorted(found["alarms"].items()), sorted(told.items()))))


async def test_a_late_parent_takes_over_and_gives_back(still: Scene) -> None:
    """Its children name it, their customers hear of the other cause, and of each end once."""
    await furnish(still)
    for number, (place, kind) in enumerate(
        [("pe2/ge-8", "fault"), ("pe1/ge-8", "fault"), ("pe1", "fault"), ("pe1", "clear"), ("pe1/ge-8", "clear")]
    ):
        await still.network.say(observation(number, place, kind))
        await still.settled()

    notes = await still.store.find("customerNotification", {})
    heard = [
        (note.body["notificationType"], note.body["text"].partition(": ")[2])
        for note in notes
        if note.body["relatedParty"][0]["id"] == "contoso"
    ]
    assert heard == [
        ("serviceAffected", "pe2/ge-8 is down."),
        ("serviceUpdated", "link a fails."),
        ("serviceUpdated", "pe1 is down."),
        ("serviceUpdated", "link a fails."),
        ("serviceUpdated", "pe2/ge-8 is down. access s4 s4 works again."),
    ]
    assert [alarm["root"] for alarm in (await outcome(still))["alarms"].values()] == [True]


@pytest.mark.parametrize("heard", ["", "x1/2", "m/1", "n"])
async def test_two_devices_that_all_others_lose_are_problems_until_one_is_heard_of(still: Scene, heard: str) -> None:
    """By whatever: a neighbour's link works again, one of them says something of its links, or has its own alarm."""
    await furnish(still)
    for number, place in enumerate(("x1/2", "x2/2")):
        await still.network.say(observation(number, place, "fault"))
        await still.settled()
    assert await inferred(still) == {"m", "n"}
    assert {who for who, word in (await last_words(still)).items() if word == "disturbed"} == {
        ("northwind", "s7"),
        ("contoso", "s8"),
    }
    if heard:
        await still.network.say(observation(2, heard, "clear" if heard == "x1/2" else "fault"))
        await still.settled()

    assert await inferred(still) == (set() if heard else {"m", "n"}) | ({"link e"} if heard == "m/1" else set())
    await hold(still)


async def inferred(scene: Scene) -> set[str]:
    """The parts that are found to fail though nobody says so."""
    found = await scene.find("alarm")
    return {one.facts["place"] for one in found if one.facts.get("inferred") and one.body["state"] != "cleared"}


def test_of_two_it_comes_to_the_same_in_whatever_order() -> None:
    """One of them turns out to be heard of, and not any more, while others look."""
    said = [("x1/2", "fault"), ("x2/2", "fault"), ("n", "fault"), ("x1/2", "clear"), ("n", "clear"), ("x1/2", "fault")]
    seen = [observation(number, place, kind) for number, (place, kind) in enumerate(said)]
    at_once = asyncio.run(play(seen, Random(1), 0))
    assert {key for key, alarm in at_once["alarms"].items() if alarm["root"]} == {"inferred m", "inferred n"}
    for seed in range(4):
        chance = Random(seed)
        assert timeless(asyncio.run(play(reordered(seen, chance), chance, 20))) == timeless(at_once)


async def test_a_device_that_its_neighbours_lose_is_the_problem(still: Scene) -> None:
    """Nobody says that it fails. Who stands on it hears so once, and its neighbours' ports follow from it."""
    await furnish(still)
    for number, place in enumerate(("x2/1", "x1/1")):
        await still.network.say(observation(number, place, "fault"))
        await still.settled()

    (lost,) = [one for one in await still.find("alarm") if one.facts.get("inferred")]
    assert (lost.body["alarmedObject"]["id"], lost.body["alarmedObjectType"]) == ("agg", "device")
    assert lost.body["why"] == (
        "agg fails: all its neighbours say that their links to it are down (x1/1, x2/1), it does not"
    )
    assert len(lost.body["correlatedAlarm"]) == 2
    assert [service["id"] for service in lost.body["affectedService"]] == ["s6"]
    notes = await still.find("customerNotification")
    assert sorted(note.body["relatedParty"][0]["id"] for note in notes) == ["fabrikam", "northwind"]
    await hold(still)


@pytest.mark.parametrize("seed", range(4))
async def test_a_device_that_is_silent_too_is_one_problem_in_any_order(still: Scene, seed: int) -> None:
    """Its silence is the root then, and says what its neighbours say; a word of it about its link takes that back."""
    await furnish(still)
    said = [observation(number, place, "fault") for number, place in enumerate(("agg", "x1/1", "x2/1"))]
    Random(seed).shuffle(said)
    for one in said:
        await still.network.say(one)
        await still.settled()

    found = (await outcome(still))["alarms"]
    assert {key for key, alarm in found.items() if alarm["root"]} == {"agg|down:"}
    assert found["agg|down:"]["why"] == (
        "nothing that agg depends on is known to fail; the links to it are down as neighbours say (x1/1, x2/1)"
    )
    await hold(still)
    for number, (place, kind) in enumerate((("agg", "clear"), ("agg/1", "fault")), 10):
        await still.network.say(observation(number, place, kind))
        await still.settled()
    found = (await outcome(still))["alarms"]
    assert {key for key, alarm in found.items() if alarm["root"]} == {"inferred link c", "x2|down:1"}
    await hold(still)


async def test_devices_that_a_half_known_cut_seems_to_lose_are_looked_at_together(still: Scene) -> None:
    """Each is in the neighbourhood of all others: a look for each of them would read all alarms as many times."""
    names = [name for name in (f"p{n:03}" for n in range(500)) if partition(name) == 0][:23]
    links = {f"link {n}": [f"{one}/east", f"{other}/west"] for n, (one, other) in enumerate(pairwise(names))}
    ends: dict[str, list[str]] = {end: [] for ends in links.values() for end in ends}
    await topology.keep(
        still.resources, Plan("acme", {**{name: [] for name in names}, **ends, **links, "group d": [*links]})
    )
    said = [
        observation(n, f"{name}/{side}", "fault") for n, name in enumerate(names[:20:2]) for side in ("east", "west")
    ]
    for parcel in Reporting("loopback", still.bus).pack([Told(one, None) for one in said]):
        await parcel.send()
    await still.settled()

    lost = [one.facts["place"] for one in await still.find("alarm") if one.facts.get("inferred")]
    assert sorted(lost) == names[1:18:2]
    looks = [message.body for message in still.bus.messages if "look" in message.body]
    assert len(looks) == 2  # at the duct, and at a port beside it
    await hold(still)


async def test_a_neighbour_that_reaches_a_device_again_ends_what_was_concluded(still: Scene) -> None:
    await furnish(still)
    for number, (place, kind) in enumerate((("x2/1", "fault"), ("x1/1", "fault"), ("x1/1", "clear"))):
        await still.network.say(observation(number, place, kind))
        await still.settled()

    found = await outcome(still)
    assert [*found["alarms"]] == ["x2|down:1"]
    assert found["alarms"]["x2|down:1"]["root"]
    assert set(found["last word"].values()) == {"works"}
    await hold(still)


async def test_what_another_problem_takes_from_a_lost_device_is_still_a_sign_of_it(still: Scene) -> None:
    """One of its links is in a tray that fails too: the device is found, and found no more, all the same."""
    links = {"link c": ["z/1", "x1/1"], "link d": ["z/2", "x2/1"], "link e": ["y1/1", "y2/1"]}
    ends = {end: [] for ends in links.values() for end in ends}
    devices = {place.partition("/")[0]: [] for place in ends}
    await topology.keep(still.resources, Plan("acme", {**devices, **ends, **links, "group tray": ["link c", "link e"]}))
    for number, place in enumerate(("x2/1", "y1/1", "x1/1")):
        await still.network.say(observation(number, place, "fault"))
        await still.settled()

    found = (await outcome(still))["alarms"]
    assert {key: alarm["parent"] for key, alarm in found.items() if not alarm["root"]} == {
        "x2|down:1": ["inferred z"],
        "x1|down:1": ["inferred group tray"],
        "y1|down:1": ["inferred group tray"],
    }
    await still.network.say(observation(3, "x1/1", "clear"))
    await still.settled()
    found = (await outcome(still))["alarms"]
    assert {key for key, alarm in found.items() if alarm["root"]} == {"x2|down:1", "y1|down:1"} == {*found}


async def test_what_people_say_of_alarms_stays_theirs(still: Scene) -> None:
    """Acknowledgement, comment and grouping by hand outlast every regrouping."""
    await furnish(still)
    await still.network.say(observation(1, "pe2/ge-8", "fault"))
    await still.network.say(observation(2, "cpe", "fault"))
    await still.settled()
    mine = next(one for one in await still.find("alarm") if one.facts["place"] == "pe2/ge-8")
    other = next(one.id for one in await still.find("alarm") if one.facts["place"] == "cpe")
    by_hand = {"parentAlarm": [{"id": other}], "ackState": "acknowledged", "comment": [{"comment": "on my way"}]}
    await still.resources.change(ALARM, mine, by_hand)
    await still.network.say(observation(3, "pe1/ge-8", "fault"))
    await still.settled()
    (link,) = [one for one in await still.find("alarm") if one.facts.get("inferred")]
    grouped = await still.store.get("alarm", "acme", mine.id)
    assert [parent["id"] for parent in grouped.body["parentAlarm"]] == [other, link.id]
    await still.network.say(observation(4, "pe1/ge-8", "clear"))
    await still.settled()

    left = await still.store.get("alarm", "acme", mine.id)
    assert {name: left.body[name] for name in by_hand} == by_hand
    assert left.body["isRootCause"] is True


@pytest.mark.parametrize(("attempt", "done"), [(1, {"agg", "m", "n"}), (2, {"agg"})])
async def test_looks_that_wait_behind_one_are_done_with_it(still: Scene, attempt: int, done: set[str]) -> None:
    """Not with one that comes again: what keeps it from its end may be one of the others."""
    await furnish(still)
    for number, device in enumerate(("agg", "m", "n")):
        await still.network.say(observation(number, f"{device}/7", "fault"))
    for message in [one for one in still.bus.messages if one.subject.startswith("network.")]:
        await assurance.hear(still.work, message)

    first = next(one for one in still.bus.messages if "look" in one.body)
    await problems.correlate(still.work, replace(first, attempt=attempt))

    found = await still.find("alarm")
    assert {one.body["sourceSystemId"] for one in found if "why" in one.body} == done
    assert {one.body["sourceSystemId"] for one in found} == {"agg", "m", "n"}
