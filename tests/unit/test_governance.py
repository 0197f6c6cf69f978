"""What a customer is told of a problem, and when: laws of the decision, over any course of events and any clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.mediation.telling.governance import Case, Hours, Kept, Rules, Told, Window, decide, window_over

RULES = Rules({"critical": 5, "major": 60, "minor": 300}, 600)
S1, S2 = frozenset({"s1"}), frozenset({"s1", "s2"})


def case(**given: object) -> Case:
    return replace(Case("major", 1000.0, S1), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("severity", "now", "what", "until"),
    [
        ("major", 1059.9, "wait", 1060),
        ("major", 1060, "tell", 0),
        ("critical", 1005, "tell", 0),
        ("minor", 1060, "wait", 1300),
        ("indeterminate", 1000, "tell", 0),
    ],
)
def test_the_hold_down_is_that_of_the_severity(severity: str, now: float, what: str, until: float) -> None:
    verdict = decide(case(severity=severity), RULES, now)

    assert (verdict.what, verdict.until) == (what, until)


def test_what_keeps_back_is_asked_when_the_hold_down_is_over() -> None:
    """A problem that a window hides and that ends within its hold-down is in no summary."""
    back = Kept("maintenance core upgrade", 5000)

    assert decide(case(), RULES, 1010, back).until == 1060
    assert decide(case(), RULES, 1060, back).kept == back
    short = decide(case(going_on=False, ended=1059, kept=back), RULES, 1061)
    assert (short.what, short.why) == ("rest", "over within its hold-down of 60 s: never told")
    long = decide(case(going_on=False, ended=1061, kept=back), RULES, 1061)
    assert (long.what, long.until) == ("summarise", 5000)


def test_no_window_keeps_back_an_all_clear_and_quiet_hours_do() -> None:
    over = case(going_on=False, ended=1100, told=Told(1060, S1), well=S1)
    back = Kept("maintenance core upgrade", 5000)

    assert decide(over, RULES, 1100, back).type == "serviceRestored"
    assert decide(over, RULES, 1100, back, Kept("quiet hours", 2000)).until == 2000


@pytest.mark.parametrize(
    ("news", "what"),
    [
        ({"services": S2}, "tell"),
        ({"services": frozenset[str](), "well": S1}, "tell"),
        ({"estimate": "2027-03-02T17:00:00Z"}, "tell"),
        ({"cause": "a link fails"}, "tell"),
        ({"services": frozenset[str]()}, "rest"),
        ({"severity": "critical"}, "rest"),
        ({}, "rest"),
    ],
)
def test_what_is_news(news: dict[str, object], what: str) -> None:
    """That a service suffers from another problem by now, or that it is graver, is none."""
    about = case(told=Told(1060, S1), **news)

    assert decide(about, RULES, 1660).what == what
    assert decide(about, RULES, 1659).what == ("wait" if what == "tell" else "rest")


# a course of events


@dataclass
class Course:
    """One problem of one customer, played second by second: ``messages`` are when what was told."""

    rules: Rules
    windows: list[tuple[int, int]]
    nights: list[tuple[int, int]]
    told: Told | None = None
    kept: Kept | None = None
    believed: frozenset[str] = frozenset()
    messages: list[tuple[int, str]] = field(default_factory=list)

    def back(self, spans: list[tuple[int, int]], now: int) -> Kept | None:
        return next((Kept("it", end) for begin, end in spans if begin <= now < end), None)

    def decide(self, now: int, about: Case) -> float | None:
        """Do what is decided; returns when to decide again."""
        well = self.believed - about.services if about.going_on else self.believed
        about = replace(about, told=self.told, kept=self.kept, well=well)
        verdict = decide(about, self.rules, now, self.back(self.windows, now), self.back(self.nights, now))
        if verdict.what == "tell":
            self.messages.append((now, verdict.type))
            self.believed = frozenset() if verdict.type == "serviceRestored" else about.services
            self.told = Told(now, self.believed, about.cause, about.estimate)
            return now
        if verdict.what == "summarise":
            self.messages.append((int(verdict.until), "serviceSummary"))
            return None
        self.kept = verdict.kept or self.kept
        return verdict.until if verdict.what == "wait" else None


SPANS = st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 800)), max_size=3).map(
    lambda spans: [(begin, begin + length) for begin, length in spans]
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 2500), st.sampled_from([S1, S2]), st.sampled_from(["", "17:00", "18:00"])), max_size=12
)


@given(SPANS, SPANS, CHANGES, st.integers(1, 3000), st.sampled_from(["critical", "major", "minor"]))
def test_the_laws_of_telling(
    windows: list[tuple[int, int]],
    nights: list[tuple[int, int]],
    changes: list[tuple[int, frozenset[str], str]],
    length: int,
    severity: str,
) -> None:
    course = Course(RULES, windows, nights)
    now, due, over = 0, 0.0, False
    about = Case(severity, 0.0, S1)
    events = sorted({at for at, _, _ in changes if at < length} | {length})
    while events or due is not None:
        times = [*events[:1], *([int(due)] if due is not None else [])]
        now = max(now, min(times))
        if events and events[0] <= now:
            events.pop(0)
            for at, services, estimate in changes:
                if at == now and not over:
                    about = replace(about, services=services, estimate=estimate)
            if now >= length:
                about, over = replace(about, going_on=False, ended=float(length)), True
        due = course.decide(now, about)
        due = None if due is None or due > 20_000 else due
    kinds, held = [kind for _, kind in course.messages], RULES.hold_down[severity]
    at = {kind: moment for moment, kind in course.messages}

    # one beginning, one end, and no end without a beginning; or one summary, or nothing
    assert kinds in (["serviceSummary"], []) or (
        kinds[0] == "serviceAffected" and kinds[-1] == "serviceRestored" and set(kinds[1:-1]) <= {"serviceUpdated"}
    )
    # never before the hold-down is over, and never at all if the problem was shorter
    assert not kinds or length >= held
    assert at.get("serviceAffected", held) >= held
    # nothing in the night, and in a window nothing but the end
    assert not [moment for moment, kind in course.messages if course.back(nights, moment) and kind != "serviceSummary"]
    assert not [
        moment
        for moment, kind in course.messages
        if course.back(windows, moment) and kind not in ("serviceRestored", "serviceSummary")
    ]
    # updates keep their distance
    spoken = [moment for moment, kind in course.messages if kind in ("serviceAffected", "serviceUpdated")]
    assert all(later - earlier >= RULES.interval for earlier, later in pairwise(spoken))
    # and an end is told at once, unless the night keeps it back
    if "serviceRestored" in at:
        late = at["serviceRestored"] - length
        assert late == 0 or any(
            begin <= length < end or begin <= at["serviceRestored"] - 1 < end for begin, end in nights
        )


# hours and windows

BERLIN = ZoneInfo("Europe/Berlin")


def instant(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-26T21:59", None),
        ("2026-11-26T22:00", "2026-11-27T07:00"),
        ("2026-11-27T06:59", "2026-11-27T07:00"),
        ("2026-11-27T07:00", None),
        # clocks go back, and forward, at three o'clock
        ("2026-10-24T23:00", "2026-10-25T07:00"),
        ("2026-03-28T23:00", "2026-03-29T07:00"),
    ],
)
def test_hours_that_end_on_the_next_day(now: str, until: str | None) -> None:
    hours = Hours(time(22), time(7), BERLIN)

    assert hours.until(instant(now)) == (until and instant(until))


def test_hours_of_some_days() -> None:
    """They are those of the day on which they begin. 2026-11-28 is a Saturday."""
    hours = Hours(time(22), time(7), BERLIN, frozenset({5}))

    assert hours.until(instant("2026-11-27T23:00")) is None
    assert hours.until(instant("2026-11-28T23:00")) == instant("2026-11-29T07:00")
    assert hours.until(instant("2026-11-29T06:00")) == instant("2026-11-29T07:00")
    assert hours.until(instant("2026-11-29T23:00")) is None


def test_hours_within_a_day_are_those_of_the_zone() -> None:
    hours = Hours(time(12), time(13), BERLIN)

    assert hours.until(instant("2026-11-26T11:30", ZoneInfo("UTC"))) == instant("2026-11-26T13:00")
    assert hours.until(instant("2026-11-26T12:30", ZoneInfo("UTC"))) is None


def test_a_window_is_of_a_tenant_and_of_places() -> None:
    devices = Window("a", "acme", 100, 200, devices=frozenset({"pe1"}))
    sites = Window("b", "acme", 100, 300, sites=frozenset({"berlin"}))
    everywhere = Window("c", "globex", 0, 400)
    windows = [devices, sites, everywhere]

    assert window_over(windows, "acme", {"pe1"}, {"berlin"}, 150) == Kept("maintenance b", 300)
    assert window_over(windows, "acme", {"pe1"}, {"hamburg"}, 150) == Kept("maintenance a", 200)
    assert window_over(windows, "acme", {"pe2"}, {"hamburg"}, 150) is None
    assert window_over(windows, "acme", {"pe1"}, {"berlin"}, 99) is None
    assert window_over(windows, "acme", {"pe1"}, {"berlin"}, 300) is None
    assert window_over(windows, "globex", set(), set(), datetime.fromtimestamp(1, UTC).timestamp()) == Kept(
        "maintenance c", 400
    )
