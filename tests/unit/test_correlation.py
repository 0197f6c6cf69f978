"""Which alarms are one problem: a function of the set of open alarms and the topology, whatever their order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from convergedon.mediation.correlation import (
    SEVERITIES,
    Alarm,
    Correlation,
    Relation,
    Topology,
    affected,
    device_of,
    evidence,
    needed,
    partners,
    reconsidered,
    walk,
)

PORTS = [f"pe{device}/ge-{port}" for device in (1, 2, 3, 4) for port in (1, 2)]
LINKS = ["link a", "link b", "link c", "link d"]
GROUPS = ["group duct", "group site"]
DEVICES = ["pe1", "pe2", "pe3", "pe4"]
TWO_LINKS = Topology(
    [
        Relation("connects", "link a", "pe1/ge-1"),
        Relation("connects", "link a", "pe2/ge-1"),
        Relation("connects", "link b", "pe1/ge-2"),
        Relation("connects", "link b", "pe3/ge-1"),
        Relation("contains", "group duct", "link a"),
        Relation("contains", "group duct", "link b"),
    ]
)


def down(*places: str) -> list[Alarm]:
    return [Alarm(f"down {place}", place, "major", says="no signal") for place in places]


def roots(alarms: Iterable[Alarm], topology: Topology = TWO_LINKS) -> dict[str, str]:
    """alarm -> the part that is the root of its problem."""
    found = Correlation(alarms, topology)
    return {key: found.verdict(key).part for key in found.alarms}


def test_a_device_that_fails_explains_its_interfaces_and_the_far_ends_of_its_links() -> None:
    found = roots(down("pe1", "pe1/ge-1", "pe1/ge-9", "pe2/ge-1", "pe2/ge-2"))

    assert found == {
        "down pe1": "pe1",
        "down pe1/ge-1": "pe1",
        "down pe1/ge-9": "pe1",
        "down pe2/ge-1": "pe1",
        "down pe2/ge-2": "pe2/ge-2",
    }


def test_a_link_whose_ends_fail_is_the_root_of_both() -> None:
    (problem,) = Correlation(down("pe1/ge-1", "pe2/ge-1"), TWO_LINKS).problems

    assert (problem.part, problem.root) == ("link a", None)
    assert problem.why == ("link a fails: all its ends do (pe1/ge-1, pe2/ge-1), and none of their devices is known to")
    assert problem.children["down pe1/ge-1"] == f"pe1/ge-1 is an end of link a; {problem.why}"


def test_one_end_says_nothing_of_the_link() -> None:
    assert roots(down("pe1/ge-1")) == {"down pe1/ge-1": "pe1/ge-1"}


def test_a_duct_in_which_every_link_fails_is_one_problem() -> None:
    (problem,) = Correlation(down("pe1/ge-1", "pe2/ge-1", "pe1/ge-2", "pe3/ge-1"), TWO_LINKS).problems

    assert (problem.part, len(problem.children)) == ("group duct", 4)
    assert problem.why == "shared-risk group duct fails: everything that shares it does (link a, link b)"


def test_of_a_link_in_a_duct_one_end_is_enough() -> None:
    """The other end may be a customer's, which has no voice."""
    assert set(roots(down("pe2/ge-1", "pe3/ge-1")).values()) == {"group duct"}


def test_links_that_a_device_takes_with_it_prove_nothing_of_their_duct() -> None:
    found = roots(down("pe1", "pe1/ge-1", "pe2/ge-1", "pe1/ge-2", "pe3/ge-1"))

    assert set(found.values()) == {"pe1"}


def test_a_duct_fails_only_if_that_explains_two_links_that_nothing_else_does() -> None:
    """One link whose device fails and another that failed by itself make no cut."""
    found = roots(down("pe2", "pe2/ge-1", "pe1/ge-2", "pe3/ge-1"))

    assert found == {"down pe2": "pe2", "down pe2/ge-1": "pe2", "down pe1/ge-2": "link b", "down pe3/ge-1": "link b"}


def test_what_a_device_explains_of_a_duct_reaches_the_other_links_of_it() -> None:
    assert {"pe3/ge-1", "pe3"} & reconsidered(["pe2"], TWO_LINKS) == {"pe3/ge-1"}


def test_devices_that_need_each_other_are_two_problems() -> None:
    """Each is the other's reason, so neither is above the other; what hangs on one is still explained by it."""
    ring = Topology([Relation("dependsOn", "pe1", "pe2"), Relation("dependsOn", "pe2", "pe1")])

    assert roots(down("pe1", "pe2", "pe1/ge-9"), ring) == {"down pe1": "pe1", "down pe2": "pe2", "down pe1/ge-9": "pe1"}


def test_a_device_that_is_known_late_takes_over_what_was_inferred() -> None:
    """And gives it back when it works again."""
    ends = down("pe1/ge-1", "pe2/ge-1")

    assert set(roots(ends).values()) == {"link a"}
    assert set(roots([*ends, *down("pe2")]).values()) == {"pe2"}


def test_what_is_no_failure_explains_nothing_but_is_explained() -> None:
    """X.733: minor and warning say that no service is affected."""
    warning = Alarm("restart pe1", "pe1", "warning")
    errors = Alarm("errors pe2/ge-1", "pe2/ge-1", "minor")
    found = roots([warning, errors, *down("pe1/ge-1")])
    assert found == {
        "restart pe1": "pe1",
        "errors pe2/ge-1": "pe2/ge-1",
        "down pe1/ge-1": "pe1/ge-1",
    }

    graver = replace(warning, severity="critical")
    assert set(roots([graver, errors, *down("pe1/ge-1")]).values()) == {"pe1"}


def test_a_matter_of_security_stands_by_itself() -> None:
    knock = Alarm("auth pe1", "pe1", "critical", "securityService")
    found = Correlation([knock, *down("pe1/ge-1")], TWO_LINKS)

    assert found.verdict("down pe1/ge-1").root == "down pe1/ge-1"
    assert found.verdict("auth pe1").why == "a matter of security: it follows from no failure"
    (problem,) = [one for one in found.problems if one.root == "auth pe1"]
    assert problem.failing == frozenset()


def test_two_alarms_of_one_part_are_one_problem_the_gravest_speaks() -> None:
    critical = Alarm("laser pe1/ge-1", "pe1/ge-1", "critical")
    (problem,) = Correlation([*down("pe1/ge-1"), critical], TWO_LINKS).problems

    assert (problem.root, [*problem.children]) == ("laser pe1/ge-1", ["down pe1/ge-1"])


def test_the_reason_names_every_step() -> None:
    found = Correlation(down("pe1", "pe2/ge-1"), TWO_LINKS)

    assert (
        found.verdict("down pe2/ge-1").why == "pe2/ge-1 is an end of link a; link a ends on pe1; pe1 fails: no signal"
    )
    assert found.verdict("down pe1").why == "nothing that pe1 depends on is known to fail"


def test_what_stands_on_any_failing_part_is_affected() -> None:
    stands_on = {"near": ["pe1", "pe1/ge-1"], "far": ["pe2", "pe2/ge-1"], "other": ["pe2", "pe2/ge-2"]}
    (problem,) = Correlation(down("pe1"), TWO_LINKS).problems
    assert affected(problem, stands_on) == ["far", "near"]

    (problem,) = Correlation(down("pe2/ge-1"), TWO_LINKS).problems
    assert affected(problem, stands_on) == ["far"]


STAR = [Relation("connects", f"link {n}", end) for n in (1, 2, 3) for end in (f"core/ge-{n}", f"pe{n}/ge-1")]
THREE = Topology([*STAR, *(Relation("contains", "group duct", f"link {n}") for n in (1, 2))])
FAR = ("pe1/ge-1", "pe2/ge-1", "pe3/ge-1")


def test_a_device_that_all_neighbours_have_lost_is_the_root_though_nobody_says_so() -> None:
    (problem,) = Correlation(down(*FAR), THREE).problems

    assert (problem.part, problem.root, len(problem.children)) == ("core", None, 3)
    assert problem.why == (
        "core fails: all its neighbours say that their links to it are down (pe1/ge-1, pe2/ge-1, pe3/ge-1), it does not"
    )
    assert problem.children["down pe1/ge-1"] == f"pe1/ge-1 is an end of link 1; link 1 ends on core; {problem.why}"
    assert {"core/ge-1", "core"} <= problem.failing


def test_while_one_neighbour_reaches_a_device_it_does_not_fail() -> None:
    assert "core" not in roots(down(*FAR[1:]), THREE).values()


def test_a_device_that_says_that_a_link_is_down_is_alive() -> None:
    """A link that is down at both ends stays a link."""
    found = roots(down(*FAR, "core/ge-3"), THREE)

    assert (found["down pe3/ge-1"], found["down core/ge-3"]) == ("link 3", "link 3")
    assert "core" not in found.values()


def test_what_a_device_says_of_other_things_is_no_sign_of_life() -> None:
    """It may have been said long ago, as that a customer's port is down."""
    found = roots([*down(*FAR, "core/ge-99"), Alarm("fan core", "core", "minor")], THREE)

    assert set(found.values()) == {"core"}


def test_one_neighbour_alone_cannot_tell_a_device_from_its_links() -> None:
    """Two links to the same one: it may be that one's card."""
    two = Topology(Relation("connects", f"link {n}", end) for n in (1, 2) for end in (f"core/ge-{n}", f"pe1/ge-{n}"))

    assert set(roots(down("pe1/ge-1", "pe1/ge-2"), two).values()) == {"pe1/ge-1", "pe1/ge-2"}


def test_a_silent_device_and_its_neighbours_ports_are_one_problem() -> None:
    """Its root is the device's silence, in whatever order they came, and the reason names both."""
    silence = Alarm("snmp:unreachable", "core", "major", says="the device does not answer SNMP")
    (problem,) = Correlation([silence, *down(*FAR[:2])], THREE).problems

    assert (problem.part, problem.root) == ("core", "snmp:unreachable")
    assert problem.children["down pe1/ge-1"] == (
        "pe1/ge-1 is an end of link 1; link 1 ends on core; core fails: the device does not answer SNMP"
    )
    assert problem.why == (
        "nothing that core depends on is known to fail; the links to it are down as neighbours say (pe1/ge-1, pe2/ge-1)"
    )


def test_neighbours_that_fail_themselves_are_no_witnesses() -> None:
    assert "core" not in roots(down(*FAR, "pe1", "pe2"), THREE).values()


def test_a_duct_that_holds_all_links_of_a_device_goes_before_it() -> None:
    """Both explain the same, and a duct more than the device where it holds others too."""
    every = Topology([*STAR, *(Relation("contains", "group duct", f"link {n}") for n in (1, 2, 3))])

    assert set(roots(down(*FAR), every).values()) == {"group duct"}
    assert set(roots(down(*FAR), THREE).values()) == {"core"}


def test_devices_that_share_a_site_and_are_cut_off_are_the_sites_problem() -> None:
    links = {"link 1": "a/1 x/1", "link 2": "a/2 y/1", "link 3": "b/1 x/2", "link 4": "b/2 y/2"}
    site = Topology(
        [
            *(Relation("connects", link, end) for link, ends in links.items() for end in ends.split()),
            Relation("contains", "group site", "a"),
            Relation("contains", "group site", "b"),
        ]
    )

    assert set(roots(down("x/1", "y/1", "x/2", "y/2"), site).values()) == {"group site"}


TWO_OF_RING = {"link 1": "x/1 a/1", "link 2": "a/2 b/1", "link 3": "b/2 y/1", "link 4": "y/2 x/2"}
PAIR = [Relation("connects", link, end) for link, ends in TWO_OF_RING.items() for end in ends.split()]
"""a and b stand between x and y."""


def test_two_linked_devices_that_all_others_have_lost_are_roots_though_nobody_says_so() -> None:
    found = Correlation(down("x/1", "y/1"), Topology(PAIR))

    assert [(problem.part, problem.root, [*problem.children]) for problem in found.problems] == [
        ("a", None, ["down x/1"]),
        ("b", None, ["down y/1"]),
    ]
    assert found.problems[0].why == (
        "a and b fail: all their other neighbours say that their links to them are down (x/1, y/1), they do not"
    )


def test_one_of_two_that_is_heard_of_is_alive_and_so_is_what_it_reaches() -> None:
    for heard in ("a/1", "b/2"):
        assert {"a", "b"}.isdisjoint(roots(down("x/1", "y/1", heard), Topology(PAIR)).values())
    assert set(roots(down("x/1", "y/1", "a/2"), Topology(PAIR)).values()) == {"x/1", "b"}


def test_a_device_that_only_the_other_one_reaches_proves_nothing() -> None:
    """As where we stand ourselves: that core is silent, and pe1 with it, says no more than that two links are down."""
    assert "core" not in roots(down(*FAR[1:]), THREE).values()


def test_one_neighbour_of_both_cannot_tell_them_from_itself() -> None:
    triangle = [Relation("connects", "link 1", "x/1"), Relation("connects", "link 1", "a/1")]
    triangle += [Relation("connects", "link 2", "x/2"), Relation("connects", "link 2", "b/1")]
    triangle += [Relation("connects", "link 3", "a/2"), Relation("connects", "link 3", "b/2")]

    assert {"a", "b"}.isdisjoint(roots(down("x/1", "x/2"), Topology(triangle)).values())


def test_of_three_in_a_row_nothing_is_taken() -> None:
    """The one in the middle has no neighbour that is heard of."""
    links = {"link 1": "x/1 a/1", "link 2": "a/2 b/1", "link 3": "b/2 c/1", "link 4": "c/2 y/1"}
    row = Topology(Relation("connects", link, end) for link, ends in links.items() for end in ends.split())

    assert roots(down("x/1", "y/1"), row) == {"down x/1": "x/1", "down y/1": "y/1"}


def test_two_linked_devices_of_one_site_are_the_sites_problem() -> None:
    site = Topology([*PAIR, *(Relation("contains", "group site", device) for device in ("a", "b"))])

    assert set(roots(down("x/1", "y/1"), site).values()) == {"group site"}


# laws

PARTS = [*PORTS, "pe1/bgp", *DEVICES, *LINKS, *GROUPS]
PLACES = st.sampled_from(PARTS)


def _related(kind: str, of: list[str], to: list[str], most: int) -> st.SearchStrategy[list[Relation]]:
    """Each of these related to some of those."""
    some = [st.lists(st.sampled_from(to), max_size=most, unique=True) for _ in of]
    return st.tuples(*some).map(
        lambda found: [Relation(kind, one, other) for one, others in zip(of, found, strict=True) for other in others]  # type: ignore[arg-type]
    )


RING = [
    Relation("connects", f"link {link}", end)
    for link, ends in {"a": "pe1/ge-1 pe2/ge-1", "b": "pe2/ge-2 pe3/ge-1", "c": "pe3/ge-2 pe1/ge-2"}.items()
    for end in ends.split()
]
"""Each device has two neighbours, which can tell together that it fails."""
FOUR = {"a": "pe1/ge-1 pe2/ge-1", "b": "pe2/ge-2 pe3/ge-1", "c": "pe3/ge-2 pe4/ge-1", "d": "pe4/ge-2 pe1/ge-2"}
RING_OF_FOUR = [Relation("connects", f"link {link}", end) for link, ends in FOUR.items() for end in ends.split()]
"""Of two that stand beside each other the other two can tell together that they fail."""
TOPOLOGIES = st.tuples(
    st.one_of(_related("connects", LINKS, PORTS, 2), st.just(RING), st.just(RING_OF_FOUR)),
    _related("contains", GROUPS, [*LINKS, *LINKS, *PORTS, *DEVICES, *GROUPS], 3),
    _related("dependsOn", DEVICES, [*DEVICES, *LINKS, *PORTS], 1),
).map(lambda found: [relation for relations in found for relation in relations])
SOME = st.lists(
    st.builds(
        lambda place, severity, kind, number: Alarm(f"{number} of {place}", place, severity, kind),
        st.sampled_from([*PORTS, *PARTS]),
        st.sampled_from(["critical", "major", "major", "warning"]),
        st.sampled_from(["communicationsAlarm", "communicationsAlarm", "communicationsAlarm", "securityService"]),
        st.integers(0, 1),
    ),
    max_size=12,
    unique_by=lambda alarm: alarm.key,
)
LOST = [
    *(("pe2/ge-1", "pe3/ge-2"), ("pe1/ge-1", "pe3/ge-1"), ("pe2/ge-2", "pe1/ge-2")),
    *(("pe2/ge-1", "pe4/ge-2"), ("pe3/ge-1", "pe1/ge-1"), ("pe2/ge-2", "pe4/ge-1"), ("pe3/ge-2", "pe1/ge-2")),
    *(("pe1/ge-2", "pe2/ge-2"), ("pe3/ge-1", "pe4/ge-2"), ("pe2/ge-1", "pe3/ge-2"), ("pe4/ge-1", "pe1/ge-1")),
]
"""Around the rings: what the neighbours of one device that fails say, or of two."""
ALARMS = st.tuples(SOME, st.sampled_from([(), *LOST])).map(lambda found: [*found[0], *down(*found[1])])


@effort(max_examples=200)
@given(TOPOLOGIES, ALARMS, st.randoms())
def test_the_answer_does_not_depend_on_order(relations: list[Relation], alarms: list[Alarm], chance: object) -> None:
    before = Correlation(alarms, Topology(relations)).problems
    others, twins = list(relations), list(alarms)
    chance.shuffle(others)  # type: ignore[attr-defined]
    chance.shuffle(twins)  # type: ignore[attr-defined]

    assert Correlation(twins, Topology(others)).problems == before


@effort(max_examples=200)
@given(TOPOLOGIES, ALARMS)
def test_every_alarm_is_in_one_problem_and_a_root_is_its_own(relations: list[Relation], alarms: list[Alarm]) -> None:
    found = Correlation(alarms, Topology(relations))
    listed = list(walk(found.problems))

    assert sorted(key for key, _ in listed) == sorted(alarm.key for alarm in alarms)
    for problem in found.problems:
        if problem.root:
            assert found.verdict(problem.root).root == problem.root
        else:
            assert found.root_of(problem.part)
            assert problem.children


@effort(max_examples=200)
@given(TOPOLOGIES, ALARMS, st.data())
def test_a_change_changes_conclusions_in_its_neighbourhood_alone(
    relations: list[Relation], alarms: list[Alarm], data: st.DataObject
) -> None:
    """And below devices that it finds cut off, or so no more. Little must be known: the rest may be left out."""
    topology = Topology(relations)
    new = data.draw(st.builds(Alarm, st.just("new"), PLACES, st.sampled_from(SEVERITIES)))
    before, after = Correlation(alarms, topology), Correlation([*alarms, new], topology)
    near = reconsidered([new.place], topology)
    known, more = _known(near, topology, [*alarms, new], before)
    part = Correlation(known, topology)
    turned = [one for one in (*DEVICES, *GROUPS) if one in more - near and part.why_root(one) != before.why_root(one)]
    for place in (*DEVICES, *GROUPS):
        if place in more:
            assert part.why_root(place) == after.why_root(place)
    elsewhere = near | reconsidered(turned, topology)

    for alarm in alarms:
        if not _in(alarm.place, elsewhere):
            assert before.verdict(alarm.key) == after.verdict(alarm.key)
        elif _in(alarm.place, near):
            assert part.verdict(alarm.key) == after.verdict(alarm.key)
    assert part.verdict("new") == after.verdict("new")
    for place in (*LINKS, *GROUPS, *DEVICES):
        if place in near:
            assert part.root_of(place) == after.root_of(place)
        elif place not in elsewhere:
            assert before.root_of(place) == after.root_of(place)


def _known(
    near: Iterable[str], topology: Topology, alarms: list[Alarm], before: Correlation
) -> tuple[list[Alarm], set[str]]:
    """The alarms that are read for a look, and the places besides that it tells of."""
    wide = needed(near, topology)
    found = _read(wide, topology, alarms)
    watched = {place for place in wide if topology.is_watched(place)}
    inferred = [place for place in (*LINKS, *GROUPS, *DEVICES) if before.root_of(place)]
    others = partners(watched, {alarm.place for alarm in found if alarm.fails}, inferred, topology) - wide
    found = _read(needed({*near, *others}, topology), topology, alarms) if others else found
    return found, watched | others | topology.groups(watched | others)


def _read(places: set[str], topology: Topology, alarms: list[Alarm]) -> list[Alarm]:
    narrow = evidence(places, topology)
    return [one for one in alarms if _in(one.place, places) or one.place in narrow]


def _in(place: str, places: Iterable[str]) -> bool:
    """A device among the places stands for all that is part of it."""
    return place in places or device_of(place) in places


@effort(max_examples=200)
@given(TOPOLOGIES)
def test_what_a_part_depends_on_takes_it_with_it(relations: list[Relation]) -> None:
    """Every relation is known from both of its sides."""
    topology = Topology(relations)
    named = {place for relation in relations for place in (relation.of, relation.to)}
    named |= {device_of(place) for place in named} - {""}

    upwards = {(up, place) for place in named for up in topology.above(place)}
    assert upwards == {(place, down) for place in named for down in topology.below(place)}
