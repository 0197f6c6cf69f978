"""Which alarms are one problem, and why: a pure function of the set of open alarms and of the topology.

What fails takes with it what depends on it: a device its interfaces and the links that end on it, a link its ends, a
shared-risk group (a duct, a power feed) its members. So an alarm follows from the highest failing part that it depends
on, and that part's alarm is the root of the problem. A link of which all ends fail, and a group of which all members
do, is taken to have failed itself though nobody said so, unless a device that is known to fail explains it. So is a
device that is cut off: all its neighbours say that their links to it are down, and it does not. So are two that are
linked with each other, when neither says anything and all their other neighbours say so of both. Then the root is
inferred. Of three and more nobody's word is left on which of them it is: those fail together as a group that was named.

Neither order nor time is asked, so late news corrects what was concluded without them. What changes at one place can
change conclusions in its neighbourhood alone (``reconsidered``), and those need few alarms (``needed``, ``evidence``).
That a device is cut off is the exception: whoever finds that so, or not so any more, has its neighbourhood looked at.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["device", "interface", "link", "group"]

FAILING = ("critical", "major")
"""X.733 (8.1.2.3): these two say that a service is affected; minor and warning say that none is, yet."""
SEVERITIES = ("critical", "major", "minor", "warning", "indeterminate")
SECURITY = (
    "integrityViolation",
    "operationalViolation",
    "physicalViolation",
    "securityService",
    "timeDomainViolation",
)
"""Alarm types of X.736: that somebody knocks at a door follows from no failure, and none follows from it."""


@dataclass(frozen=True)
class Relation:
    """``kind`` is read from ``of`` to ``to``: link connects interface, group contains link, device dependsOn link."""

    kind: Literal["connects", "contains", "dependsOn"]
    of: str
    to: str


@dataclass(frozen=True)
class Alarm:
    """An open alarm. ``key`` is its condition's: no two open alarms have the same.

    ``place`` is a part: ``pe1``, ``pe1/ge-0/0/1``, ``link berlin-hamburg``, ``group duct 17``.
    """

    key: str
    place: str
    severity: str
    type: str = "communicationsAlarm"
    says: str = ""

    @property
    def follows(self) -> bool:
        """Whether it may follow from the failure of something, and other alarms from it."""
        return self.type not in SECURITY

    @property
    def fails(self) -> bool:
        """Whether it says that its part is out of service."""
        return fails(self.type, self.severity)


def fails(type_: str, severity: str) -> bool:
    """Whether an alarm of this type and severity says that its part is out of service."""
    return type_ not in SECURITY and severity in FAILING


@dataclass(frozen=True)
class Verdict:
    """What is concluded of an alarm: the part that is the root, that part's alarm (None: it is inferred), and why."""

    part: str
    root: str | None
    why: str


@dataclass(frozen=True)
class Problem:
    """A root and what follows from it. ``failing`` are all parts that are out of service because of it."""

    part: str
    root: str | None
    why: str
    children: Mapping[str, str]
    failing: frozenset[str]


def kind_of(place: str) -> Kind:
    if place.startswith("link "):
        return "link"
    if place.startswith("group "):
        return "group"
    return "interface" if "/" in place else "device"


def device_of(place: str) -> str:
    """The device that an interface is part of; empty for what is no interface."""
    return place.partition("/")[0] if kind_of(place) == "interface" else ""


def called(place: str) -> str:
    return f"shared-risk {place}" if kind_of(place) == "group" else place


class Topology:
    """What depends on what. That an interface is part of its device goes without saying: its name says so."""

    def __init__(self, relations: Iterable[Relation] = ()) -> None:
        self.ends: dict[str, set[str]] = defaultdict(set)
        self.members: dict[str, set[str]] = defaultdict(set)
        self._links: dict[str, set[str]] = defaultdict(set)
        self._groups: dict[str, set[str]] = defaultdict(set)
        self._needs: dict[str, set[str]] = defaultdict(set)
        self._needed_by: dict[str, set[str]] = defaultdict(set)
        self._on: dict[str, set[str]] = defaultdict(set)
        self._neighbourhoods: dict[frozenset[str], frozenset[str]] = {}
        self._far_ends: dict[str, dict[str, frozenset[str]]] = {}
        self._above: dict[str, dict[str, str]] = {}
        for relation in relations:
            self._take(relation)

    def _take(self, relation: Relation) -> None:
        of, to = relation.of, relation.to
        if relation.kind == "connects" and not device_of(to):
            return  # a device does not fail because a link to it does
        if relation.kind == "connects":
            self.ends[of].add(to)
            self._links[to].add(of)
        elif relation.kind == "contains":
            self.members[of].add(to)
            self._groups[to].add(of)
        else:
            self._needs[of].add(to)
            self._needed_by[to].add(of)
        for place in (of, to):
            if device := device_of(place):
                self._on[device].add(place)

    def above(self, place: str) -> Mapping[str, str]:
        """What takes this part with it when it fails, each with how they hang together."""
        if place not in self._above:
            self._above[place] = self._found_above(place)
        return self._above[place]

    def _found_above(self, place: str) -> dict[str, str]:
        found = {group: f"{called(place)} belongs to {called(group)}" for group in self._groups.get(place, ())}
        found |= {part: f"{called(place)} depends on {called(part)}" for part in self._needs.get(place, ())}
        found |= {link: f"{place} is an end of {called(link)}" for link in self._links.get(place, ())}
        if device := device_of(place):
            found[device] = f"{place} is part of {device}"
        for end in self.ends.get(place, ()):
            found[device_of(end)] = f"{called(place)} ends on {device_of(end)}"
        return found

    def below(self, place: str) -> set[str]:
        """What this part takes with it."""
        found = self.ends.get(place, set()) | self.members.get(place, set()) | self._needed_by.get(place, set())
        ports = self._on.get(place, set())
        links = {link for port in ports for link in self._links.get(port, ())}
        return found | ports | links

    def neighbourhood(self, begin: frozenset[str]) -> frozenset[str]:
        """These parts and all that they take with them."""
        if begin not in self._neighbourhoods:
            self._neighbourhoods[begin] = frozenset(closure(begin, self.below))
        return self._neighbourhoods[begin]

    def far_ends(self, device: str) -> Mapping[str, frozenset[str]]:
        """The links of a device, each with its ends on others."""
        if device not in self._far_ends:
            links = {link for port in self._on.get(device, ()) for link in self._links.get(port, ())}
            found = {link: frozenset(end for end in self.ends[link] if device_of(end) != device) for link in links}
            self._far_ends[device] = {link: ends for link, ends in found.items() if ends}
        return self._far_ends[device]

    def is_watched(self, place: str) -> bool:
        """Whether this is a device whose neighbours, two at least, can tell together that it fails."""
        if kind_of(place) != "device":
            return False
        return len({device_of(end) for ends in self.far_ends(place).values() for end in ends}) > 1

    def holders(self, device: str, partner: str = "") -> set[str]:
        """The groups to which all links of a device belong, but for those with its partner."""
        links = [link for link, ends in self.far_ends(device).items() if {*map(device_of, ends)} != {partner}]
        found = [self.groups([link]) for link in links]
        return set.intersection(*found) if found else set()

    def groups(self, places: Iterable[str]) -> set[str]:
        """The groups that any of these belong to, and those that these are in."""
        return {one for one in closure(places, lambda one: self._groups.get(one, ())) if kind_of(one) == "group"}

    def hubs(self, group: str) -> set[str]:
        """The devices on which all that is in a group ends, and other links besides."""
        inside = closure([group], lambda one: self.members.get(one, ()))
        leaves = {place for place in inside if kind_of(place) != "group"}
        found = [{device_of(end) for end in self.ends.get(leaf, ())} for leaf in leaves]
        shared = set.intersection(*found) if found else set()
        return {device for device in shared if self.far_ends(device).keys() > leaves}

    def witnessed(self, place: str) -> set[str]:
        """The links and groups of which the failure of this part is a sign."""
        return self._links.get(place, set()) | self._groups.get(place, set())

    def witnesses(self, place: str) -> set[str]:
        """The parts whose failure is a sign that this link or group fails; nothing is a sign of itself."""
        signs = self.ends.get(place, set()) | self.members.get(place, set())
        return {sign for sign in signs if place not in closure([sign], lambda one: self.members.get(one, ()))}


def closure(begin: Iterable[str], step: Callable[[str], Iterable[str]]) -> set[str]:
    """These and all that is reached from them."""
    found = set(begin)
    ahead = list(found)
    while ahead:
        fresh = set(step(ahead.pop())) - found
        found |= fresh
        ahead += fresh
    return found


def reconsidered(places: Iterable[str], topology: Topology) -> frozenset[str]:
    """The parts of whose alarms another conclusion may be drawn when something changes at these places.

    A device among them stands for all that is part of it. Places with the same neighbourhood get the very same set.
    """
    touched = closure(closure(places, topology.below), topology.witnessed)
    highest = frozenset(part for part in touched if not topology.witnessed(part))
    near = topology.neighbourhood(highest)
    return near if touched <= near else topology.neighbourhood(highest | (touched - near))


def needed(places: Iterable[str], topology: Topology) -> set[str]:
    """The parts whose alarms must be known to conclude on those of these places."""
    above = closure(places, topology.above)
    return closure(closure(above, topology.witnesses), topology.above)


def evidence(places: Iterable[str], topology: Topology) -> set[str]:
    """The parts whose alarms must be known besides, to tell which devices among these places are cut off.

    A device among them stands for itself alone.
    """
    far = {end for place in places if topology.is_watched(place) for end in signs_of(place, topology)}
    return closure(far, topology.above)


def signs_of(device: str, topology: Topology) -> set[str]:
    """The parts of others that must all fail for a device to be cut off."""
    return {end for ends in topology.far_ends(device).values() for end in ends}


def own_ends(device: str, topology: Topology) -> set[str]:
    """The ends of its links on a device: of which it says nothing if it is cut off."""
    return {end for link in topology.far_ends(device) for end in topology.ends[link] if device_of(end) == device}


def first_signs(device: str, topology: Topology) -> set[str]:
    """Two of these, of two neighbours: of a device that is cut off, be it with another one, one of them fails."""
    signs = sorted(signs_of(device, topology))
    return {signs[0], next(sign for sign in signs if device_of(sign) != device_of(signs[0]))}


def partners(devices: Iterable[str], failing: Set[str], inferred: Collection[str], topology: Topology) -> set[str]:
    """The neighbours with which devices that may be cut off are cut off together, if they are, or may have been.

    ``inferred`` are the parts that were found to fail so far.
    """
    found: set[str] = set()
    for device in devices:
        silent = {device_of(end) for end in signs_of(device, topology) if end not in failing}
        may_be = len(silent) == 1 and failing.isdisjoint({device, *own_ends(device, topology)})
        if may_be or (inferred and not closure([device], topology.above).isdisjoint(inferred)):
            found |= {one for one in silent if topology.is_watched(one)}
    return found


class Correlation:
    """The conclusions from a set of open alarms, each drawn when it is asked for."""

    def __init__(self, alarms: Iterable[Alarm], topology: Topology) -> None:
        self.alarms = {alarm.key: alarm for alarm in alarms}
        self._topology = topology
        self._said: dict[str, Alarm] = {}
        for alarm in sorted(self.alarms.values(), key=_weight, reverse=True):
            if alarm.fails:
                self._said[alarm.place] = alarm
        self._taken_to_fail: dict[str, bool] = {}
        self._cut_off: dict[str, bool] = {}
        self._partners: dict[str, str | None] = {}
        self._words: dict[str, str] = {}

    def inferred(self, place: str) -> bool:
        """Whether this link, group or device is taken to fail though no alarm says so."""
        if place not in self._taken_to_fail:
            self._taken_to_fail[place] = place not in self._said and self._all_signs(place)
        return self._taken_to_fail[place]

    def _all_signs(self, place: str) -> bool:
        if kind_of(place) == "device":
            partner = self._partner(place) or ""
            return self._is_cut_off(place) and not any(map(self._fails, self._topology.holders(place, partner)))
        signs = self._topology.witnesses(place)
        if len(signs) < 2:
            return False
        if kind_of(place) == "link":
            return all(end in self._said for end in signs)
        if not all(map(self._dead, signs)) or any(map(self._is_cut_off, self._topology.hubs(place))):
            return False
        return sum(not self._explained(member) for member in signs) > 1

    def _is_cut_off(self, device: str) -> bool:
        """Whether all neighbours of a device, two at least, say that their links to it are down, and it does not.

        Or all but one, of which the same is so.

        What it says of other things counts for nothing: that may be older. Nor does a neighbour's word that something
        else explains.
        """
        if device not in self._cut_off:
            reached = not self._topology.is_watched(device) or not self._nobody_reaches(device)
            self._cut_off[device] = not reached or self._partner(device) is not None
        return self._cut_off[device]

    def _nobody_reaches(self, *devices: str) -> bool:
        """Whether these say nothing of their links, and all neighbours they have besides say that they are down."""
        far = {device: self._heard_from_outside(device, devices) for device in devices}
        if any(ends is None for ends in far.values()):
            return False
        told = {one: {device_of(end) for end in ends or () if not self._explained(end)} for one, ends in far.items()}
        return all(told.values()) and len(set.union(*told.values())) > 1

    def _heard_from_outside(self, device: str, among: Sequence[str]) -> set[str] | None:
        """What neighbours but these say of a device; None if one of them does not, or it is heard of itself."""
        own = own_ends(device, self._topology)
        outside = {end for end in signs_of(device, self._topology) if device_of(end) not in among}
        if device in self._said or not outside <= self._said.keys() or not self._said.keys().isdisjoint(own):
            return None
        return outside

    def _partner(self, device: str) -> str | None:
        """The neighbour with which a device is cut off: the only one that does not say that its link to it is down.

        If anything else explains that one of the two is out of service, they are not taken together.
        """
        if device not in self._partners:
            self._partners[device] = self._found_partner(device)
        return self._partners[device]

    def _found_partner(self, device: str) -> str | None:
        silent = {device_of(end) for end in signs_of(device, self._topology) if end not in self._said}
        if not self._topology.is_watched(device) or len(silent) != 1:
            return None
        (other,) = silent
        together = self._nobody_reaches(device, other) and not (self._explained(device) or self._explained(other))
        return other if together else None

    def _dead(self, member: str) -> bool:
        """Whether a member of a group is out of service. Of a link one end is enough: the other may have no voice."""
        if kind_of(member) == "device":
            return member in self._said or self._is_cut_off(member)
        ends = self._topology.ends.get(member, ())
        return member in self._said or any(end in self._said for end in ends) or self.inferred(member)

    def _explained(self, place: str) -> bool:
        """Whether something that is said to fail takes this part with it."""
        return not self._said.keys().isdisjoint(closure([place], self._topology.above) - {place})

    def _fails(self, place: str) -> bool:
        return place in self._said or self.inferred(place)

    def verdict(self, key: str) -> Verdict:
        """What is concluded of an alarm."""
        alarm = self.alarms[key]
        path = self._to_the_top(alarm.place) if alarm.follows else None
        if path is None:
            return Verdict(alarm.place, key, _own(alarm))
        part, hops = path
        root = self._said.get(part)
        if root is alarm:
            return Verdict(part, key, f"nothing that {called(part)} depends on is known to fail")
        words = [*hops, f"{called(part)} fails: {root.says or root.key}"] if root else [*hops, self.signs(part)]
        return Verdict(part, root.key if root else None, "; ".join(words))

    def _to_the_top(self, place: str) -> tuple[str, Sequence[str]] | None:
        """The highest failing part that this one depends on, the nearest of several, and how they hang together."""
        reached: dict[str, tuple[str, ...]] = {place: ()}
        ahead = deque([place])
        while ahead:
            here = ahead.popleft()
            for up, words in sorted(self._topology.above(here).items()):
                if up not in reached:
                    reached[up] = (*reached[here], words)
                    ahead.append(up)
        failing = [part for part in reached if self._fails(part)]
        tops = [part for part in failing if not any(self._over(other, part) for other in failing)]
        if not tops:
            return None
        top = min(tops, key=lambda part: (len(reached[part]), part))
        return top, reached[top]

    def _over(self, other: str, part: str) -> bool:
        """Whether a part takes another with it, and not the other way round as well."""
        if other == part or other not in closure([part], self._topology.above):
            return False
        return part not in closure([other], self._topology.above)

    def signs(self, place: str) -> str:
        """Why a link, group or device is taken to fail."""
        if place not in self._words:
            self._words[place] = self._why_taken_to_fail(place)
        return self._words[place]

    def _why_taken_to_fail(self, place: str) -> str:
        if kind_of(place) == "link":
            ends = sorted(self._topology.ends[place])
            return f"{called(place)} fails: all its ends do ({_listed(ends)}), and none of their devices is known to"
        if kind_of(place) == "device":
            far = sorted(signs_of(place, self._topology))
            if partner := self._partner(place):
                both = sorted({*far, *signs_of(partner, self._topology)} & self._said.keys())
                return (
                    f"{place} and {partner} fail: all their other neighbours say that their links to them are down "
                    f"({_listed(both)}), they do not"
                )
            return (
                f"{place} fails: all its neighbours say that their links to it are down ({_listed(far)}), it does not"
            )
        members = sorted(map(called, self._topology.members[place]))
        return f"{called(place)} fails: everything that shares it does ({_listed(members)})"

    def top(self, place: str) -> str | None:
        """The highest failing part that this one depends on, which may be itself; None when nothing fails."""
        found = self._to_the_top(place)
        return found[0] if found else None

    def heard_of(self, device: str, under: Iterable[str]) -> str:
        """What neighbours say of a device that is a root, among the alarms that follow from it; begins with a mark."""
        far = signs_of(device, self._topology)
        ends = sorted({self.alarms[key].place for key in under} & far)
        return f"; the links to it are down as neighbours say ({_listed(ends)})" if ends else ""

    def root_of(self, place: str) -> bool:
        """Whether this link, group or device is the root of a problem though no alarm says that it fails."""
        return self.inferred(place) and self.top(place) == place

    def why_root(self, place: str) -> str:
        """Why a part is the root of a problem though no alarm says that it fails; nothing for one that is not."""
        return self.signs(place) if self.root_of(place) else ""

    def problem(self, part: str, children: Mapping[str, str], root: str | None) -> Problem:
        """A problem with what is out of service because of it."""
        fails = root is None or self.alarms[root].fails
        failing = closure([part], self._topology.below) if fails else ()
        why = self.verdict(root).why + self.heard_of(part, children) if root else self.signs(part)
        return Problem(part, root, why, children, frozenset(failing))

    @cached_property
    def problems(self) -> Sequence[Problem]:
        """All problems, by their roots."""
        children: dict[tuple[str, str | None], dict[str, str]] = defaultdict(dict)
        for key in sorted(self.alarms):
            found = self.verdict(key)
            under = children[found.part, found.root]
            if found.root != key:
                under[key] = found.why
        return [self.problem(part, under, root) for (part, root), under in sorted(children.items(), key=_named)]


def _named(problem: tuple[tuple[str, str | None], object]) -> tuple[str, str]:
    (part, root), _ = problem
    return part, root or ""


def rank(severity: str) -> int:
    """The gravest severity first."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _weight(alarm: Alarm) -> tuple[int, str]:
    """Who speaks for a part: the gravest of its alarms, the first by name among equals."""
    return rank(alarm.severity), alarm.key


def _own(alarm: Alarm) -> str:
    if not alarm.follows:
        return "a matter of security: it follows from no failure"
    return f"it says of nothing that it fails, and nothing that {called(alarm.place)} depends on is known to"


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def affected(problem: Problem, stands_on: Mapping[str, Iterable[str]]) -> list[str]:
    """The services that a problem takes out of service: those that stand on something that fails because of it."""
    return sorted(service for service, parts in stands_on.items() if not problem.failing.isdisjoint(parts))


def walk(problems: Iterable[Problem]) -> Iterator[tuple[str, str | None]]:
    """Each alarm with its root."""
    for problem in problems:
        if problem.root:
            yield problem.root, problem.root
        for child in problem.children:
            yield child, problem.root
