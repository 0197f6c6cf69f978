"""Lists of every resource: fields, pages, filters and order."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from conftest import URL, Gateway
from contract import (
    NOBODY,
    RESOURCES,
    Operation,
    each,
    listed,
    made,
    refused,
    retrieving,
)


@each(RESOURCES)
async def test_fields_are_exactly_those_asked_for(gateway: Gateway, operation: Operation) -> None:
    """id, href and the named members that are there, in lists and alone; none is id and href (v5: and @type)."""
    whole = await made(gateway, operation)
    retrieve = retrieving(operation)
    for name in [*whole, "none", ",".join(list(whole)[:4])]:
        wanted = {"id", "href", *operation.shape.always} | ({*name.split(",")} & whole.keys())
        alone = await gateway.ask("GET", retrieve.path(whole["id"]), params={"fields": name})
        (element,) = await listed(gateway, operation, fields=name)

        assert alone.json() == element == {n: v for n, v in whole.items() if n in wanted}
    refused(operation, await gateway.ask("GET", operation.path(), params={"fields": "unknown"}), 400)


@each(RESOURCES)
async def test_pages_add_up_to_the_list(gateway: Gateway, operation: Operation) -> None:
    """206 for a page that is not everything, 200 for all; headers count; links lead over everything once."""
    ids = sorted([(await made(gateway, operation))["id"] for _ in range(5)])
    whole = await gateway.ask("GET", operation.path())
    assert (whole.status_code, whole.headers["x-total-count"], whole.headers["x-result-count"]) == (200, "5", "5")

    url, seen = f"{operation.path()}?limit=2&sort=id", []
    while url:
        page = await gateway.ask("GET", url)
        assert page.status_code == 206
        assert page.headers["x-total-count"] == "5"
        assert page.headers["x-result-count"] == str(len(page.json()))
        seen += [element["id"] for element in page.json()]
        links = dict(reversed(part.split("; rel=")) for part in page.headers["link"].split(", "))
        assert {'"self"', '"first"', '"last"'} <= links.keys()
        url = links.get('"next"', "<>")[1:-1]
        assert not url or url.startswith(f"{URL}{operation.path()}?")
        assert not url or dict(parse_qsl(urlsplit(url).query))["sort"] == "id"
    assert seen == ids


@each(RESOURCES)
@pytest.mark.parametrize(
    ("asked", "status", "count"),
    [
        ("limit=3", 200, 3),
        ("limit=9", 200, 3),
        ("limit=2", 206, 2),
        ("limit=2&offset=2", 206, 1),
        ("limit=0", 206, 0),
        ("offset=3", 200, 0),
        ("offset=99", 200, 0),
        ("limit=2&offset=99", 200, 0),
    ],
)
async def test_a_page_says_whether_it_is_everything(
    gateway: Gateway, operation: Operation, asked: str, status: int, count: int
) -> None:
    """206 only for a part; past the end is an empty list."""
    for _ in range(3):
        await made(gateway, operation)
    answer = await gateway.ask("GET", f"{operation.path()}?{asked}")

    assert (answer.status_code, len(answer.json())) == (status, count)
    assert (answer.headers["x-total-count"], answer.headers["x-result-count"]) == ("3", str(count))


@each(RESOURCES)
@pytest.mark.parametrize("asked", ["limit=-1", "limit=x", "offset=-1", "offset=x", "unknown=1", "sort=unknown"])
async def test_a_list_that_cannot_be_read_is_refused(gateway: Gateway, operation: Operation, asked: str) -> None:
    """400 rather than another list than was asked for."""
    refused(operation, await gateway.ask("GET", f"{operation.path()}?{asked}"), 400)


@each(RESOURCES)
async def test_a_list_is_filtered_and_sorted_by_members(gateway: Gateway, operation: Operation) -> None:
    """One value, several, quoted or not, and the order that was asked for."""
    ids = [(await made(gateway, operation))["id"] for _ in range(3)]

    assert {one["id"] for one in await listed(gateway, operation, id=ids[0])} == {ids[0]}
    assert {one["id"] for one in await listed(gateway, operation, id=f"'{ids[0]}'")} == {ids[0]}
    assert {one["id"] for one in await listed(gateway, operation, id=f"{ids[0]},{ids[2]}")} == {ids[0], ids[2]}
    assert await listed(gateway, operation, id=NOBODY) == []
    for sort, wanted in (("id", sorted(ids)), ("-id", sorted(ids, reverse=True))):
        assert [one["id"] for one in await listed(gateway, operation, sort=sort)] == wanted
