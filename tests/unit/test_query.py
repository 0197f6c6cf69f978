"""What a list may be asked (TMF630), and which events a subscription's query lets through."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.core.errors import Invalid, Unsupported
from convergedon.handlers.documents import shape
from convergedon.handlers.query import Query, event_matches, fields, links, parse, select

ORDER = shape("TMF622-ProductOrdering-v4", "ProductOrder")
ALARM = shape("TMF642-Alarm-v4", "Alarm")
USAGE = shape("TMF635-Usage-v4", "Usage")
EVENT = {
    "eventId": "e1",
    "eventType": "AlarmCreateEvent",
    "event": {
        "alarm": {"id": "1", "perceivedSeverity": "major", "serviceAffecting": True, "comment": [{"userId": "a"}]}
    },
}


def asked(text: str, of: Any = ORDER) -> Query:
    return parse(parse_qsl(text, keep_blank_values=True), of)


def test_nothing_asked_is_everything() -> None:
    """No filter, no order, no page, all members."""
    assert asked("") == Query({}, (), 0, None, None)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("state=held", {"body.state": "held"}),
        ("state=held,pending", {"body.state": {"$in": ["held", "pending"]}}),
        ("state=held&state=pending", {"body.state": {"$in": ["held", "pending"]}}),
        ("state=held&category=b2b", {"body.state": "held", "body.category": "b2b"}),
        ("relatedParty.id=northwind", {"body.relatedParty.id": "northwind"}),
        ("productOrderItem.product.id=7", {"body.productOrderItem.product.id": "7"}),
        ("id=17", {"id": "17"}),
        ("orderDate='2026-02-20T09:30:00Z'", {"facts.at.orderDate": 1771579800000000}),
        ('category="b2b"', {"body.category": "b2b"}),
        ("category='", {"body.category": "'"}),
        ("category='it's'", {"body.category": "it's"}),
        ("category=", {"body.category": ""}),
        ("@type=ProductOrder", {"body.@type": "ProductOrder"}),
        ("productOrderItem.quantity=2", {"body.productOrderItem.quantity": 2}),
    ],
)
def test_filters_become_conditions(text: str, where: dict[str, Any]) -> None:
    """All parameters must hold; values by comma or repetition are alternatives; a pair of quotes is no part of one."""
    assert asked(text).where == where


def test_values_have_the_type_of_their_attribute() -> None:
    """true is a boolean where the document says so."""
    assert asked("serviceAffecting=true", ALARM).where == {"body.serviceAffecting": True}
    assert asked("ratedProductUsage.taxRate=0.19", USAGE).where == {"body.ratedProductUsage.taxRate": 0.19}


@pytest.mark.parametrize(
    "text", ["colour=red", "relatedParty.colour=red", "fields=colour", "sort=colour", "facts.parties=x", "tenant=acme"]
)
def test_an_unknown_attribute_is_refused_by_name(text: str) -> None:
    """A slip must not read as an empty list, and what only we know cannot be asked for."""
    with pytest.raises(Invalid, match=r"ProductOrder has no attribute (colour|relatedParty\.colour|facts|tenant)"):
        asked(text)


@pytest.mark.parametrize("name", ["limit", "offset"])
@pytest.mark.parametrize("value", ["-1", "many", "1.5", "", "1e3", "٣", "9" * 30])
def test_an_unreadable_number_is_refused(name: str, value: str) -> None:
    """limit and offset are whole numbers from 0."""
    with pytest.raises(Invalid, match=name):
        asked(f"{name}={value}")


@pytest.mark.parametrize(
    ("text", "sort"),
    [
        ("sort=orderDate", [("facts.at.orderDate", 1), ("id", 1)]),
        ("sort=-orderDate", [("facts.at.orderDate", -1), ("id", -1)]),
        ("sort=%2BorderDate,-id", [("facts.at.orderDate", 1), ("id", -1)]),
        ("sort=+orderDate", [("facts.at.orderDate", 1), ("id", 1)]),
        ("sort=-orderDate,state", [("facts.at.orderDate", -1), ("body.state", 1), ("id", 1)]),
        ("sort=-note.date&sort=state,-state", [("facts.at.note.date", -1), ("body.state", 1), ("id", 1)]),
        ("sort=-href", [("id", -1)]),
    ],
)
def test_sort_takes_signs(text: str, sort: list[tuple[str, int]]) -> None:
    """A plus that was not encoded arrives as a blank, and means the same; what is alike stands in the order of ids,
    in the direction in which an index would be read."""
    assert asked(text).sort == sort


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("state", {"id", "href", "state"}),
        ("none", {"id", "href"}),
        ("state, note.text", {"id", "href", "state", "note"}),
    ],
)
def test_fields_select_id_href_and_what_is_named(text: str, members: set[str]) -> None:
    """Exactly those, of those that are there."""
    body = {"id": "1", "href": "x", "state": "held", "note": [], "category": "b2b", "@type": "ProductOrder"}

    assert select(body, fields([("fields", text)], ORDER)).keys() == members


def linked(header: str) -> dict[str, dict[str, str]]:
    found = re.findall(r'<([^>]*)>; rel="(\w+)"', header)
    return {relation: dict(parse_qsl(urlsplit(url).query)) for url, relation in found}


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 70))
def test_following_next_visits_everything_once(total: int, limit: int, start: int) -> None:
    """From the first page, next leads over each match once and ends; prev leads back to the beginning."""
    offset, seen = 0, 0
    while True:
        pages = linked(links("http://gw/x", [], Query({}, [], offset, limit, None), total))
        seen += min(limit, total - offset)
        if "next" not in pages:
            break
        assert int(pages["next"]["offset"]) == offset + limit
        offset = int(pages["next"]["offset"])
    assert seen == total

    offset = start
    while "prev" in (pages := linked(links("http://gw/x", [], Query({}, [], offset, limit, None), total))):
        assert int(pages["prev"]["offset"]) < offset
        offset = int(pages["prev"]["offset"])
    assert offset == 0


def test_links_keep_what_else_was_asked() -> None:
    """A page of a filtered list leads to pages of the same list."""
    query = Query({}, [], 2, 2, None)
    pages = linked(links("http://gw/x", [("state", "held,pending"), ("limit", "2"), ("offset", "2")], query, 5))

    assert pages == {
        "self": {"state": "held,pending", "offset": "2", "limit": "2"},
        "first": {"state": "held,pending", "offset": "0", "limit": "2"},
        "prev": {"state": "held,pending", "offset": "0", "limit": "2"},
        "next": {"state": "held,pending", "offset": "4", "limit": "2"},
        "last": {"state": "held,pending", "offset": "4", "limit": "2"},
    }


def test_a_page_of_nothing_leads_nowhere() -> None:
    """limit=0 only counts; a next page would be the same one for ever."""
    assert "next" not in linked(links("http://gw/x", [], Query({}, [], 0, 0, None), 5))


@pytest.mark.parametrize(
    ("query", "passes"),
    [
        ("", True),
        ("eventType=AlarmCreateEvent", True),
        ("?eventType=AlarmCreateEvent", True),
        ("eventType=AlarmDeleteEvent", False),
        ("eventType=AlarmDeleteEvent,AlarmCreateEvent", True),
        ("eventType='AlarmCreateEvent'", True),
        ("event.alarm.perceivedSeverity=major", True),
        ("perceivedSeverity=major", True),
        ("perceivedSeverity=minor", False),
        ("eventType=AlarmCreateEvent&perceivedSeverity=minor", False),
        ("eventType=AlarmCreateEvent&perceivedSeverity=minor,major", True),
        ("serviceAffecting=true", True),
        ("comment.userId=a", True),
        ("colour=red", False),
        ("fields=eventType", True),
    ],
)
def test_a_subscription_hears_what_it_asked_for(query: str, passes: bool) -> None:
    """Every pair must hold; the resource's members may be named with or without their path."""
    assert event_matches(query, EVENT) is passes


@given(st.text())
def test_any_query_is_read_or_refused(query: str) -> None:
    """A subscription's query is the client's text: whatever it is, it lets events pass or not, or is refused."""
    with suppress(Invalid, Unsupported):
        assert event_matches(query, EVENT) in (True, False)
