"""The queries that clients usually ask are answered by an index, on the store that reads everything otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import pytest
from pymongo.collection import Collection

from convergedon.core.errors import NotFound
from convergedon.core.store import Index, MongoStore, Record, Where
from convergedon.handlers.apis import APIS
from convergedon.handlers.documents import Shape, shape
from convergedon.handlers.query import parse
from convergedon.handlers.resource import HUB, Api, Resource

USUAL = {
    "productOrder": (
        "externalId=x",
        "relatedParty.id=northwind",
        "relatedParty.id=northwind&state=held",
        "state=held",
        "state=held,pending",
        "orderDate.gte=2026-01-01",
        "orderDate.gte=2026-01-01&orderDate.lt=2026-02-01",
        "orderDate.gte=2026-01-01&state=held",
        "externalId=x&description.regex=fibre",
        "filter=$[?(@.externalId=='x' %26%26 @.note[?(@.author=='a')])]",
    ),
    "alarm": (
        "alarmedObject.id=pe1",
        "alarmedObject.id=pe1&state=raised",
        "perceivedSeverity=critical",
        "perceivedSeverity=critical&state=raised,updated",
        "state=raised",
        "alarmRaisedTime.gte=2026-01-01&alarmRaisedTime.lt=2026-02-01",
        "filter=[?(@.perceivedSeverity=='critical')]",
    ),
    "usage": (
        "status=rated",
        "status=rated&usageDate.gte=2026-01-01&usageDate.lt=2026-02-01",
        "usageDate.gte=2026-01-01",
        "relatedParty.id=northwind&status=rated",
    ),
    "customerBill": ("relatedParty.id=northwind", "state=new", "billDate.gte=2026-01-01"),
    "appliedCustomerBillingRate": ("bill.id=b1", "bill.id=b1&name=credit"),
}
SORTED = {
    "productOrder": (
        "sort=-orderDate",
        "sort=orderDate",
        "state=held&sort=-orderDate",
        "orderDate.gte=2026-01-01&sort=-orderDate",
        "orderDate.gte=2026-01-01&state=held&sort=-orderDate",
    ),
    "alarm": (
        "sort=-alarmRaisedTime",
        "state=raised&sort=-alarmRaisedTime",
        "perceivedSeverity=critical&sort=-alarmRaisedTime",
        "alarmRaisedTime.gte=2026-01-01&sort=alarmRaisedTime",
    ),
    "usage": ("sort=-usageDate", "status=rated&sort=-usageDate"),
    "customerBill": ("sort=-billDate",),
}
RESOURCES = {resource.name: (api, resource) for api in reversed(APIS) for resource in api.resources}
ASKED = [(name, text) for name, texts in USUAL.items() for text in (*texts, "id=1", "id=1,2")]


def _shape(api: Api, resource: Resource) -> Shape:
    return shape(api.document, api.schema(resource))


@pytest.fixture
async def store(mongodb_url: str) -> AsyncIterator[MongoStore]:
    kinds = [HUB, *(resource.kind for _, resource in RESOURCES.values())]
    real = await MongoStore(mongodb_url, f"test{uuid4().hex[:8]}", kinds).open()
    yield real
    await real.close()


def _read(plan: Mapping[str, Any]) -> list[str]:
    """The stages of a plan and the indexes that they use."""
    inner = [part for name in ("inputStage", "queryPlan") if name in plan for part in _read(plan[name])]
    return [f"{plan['stage']} {plan.get('indexName', '')}".strip(), *inner]


async def _plan(store: MongoStore, kind: str, where: Mapping[str, Any]) -> list[str]:
    collection = store._collection(kind)
    asked = {"aggregate": collection.name, "pipeline": store.stages(kind, where)[0], "cursor": {}}
    told = await store._call(lambda: collection.database.command("explain", asked))
    return _read((told.get("queryPlanner") or told["stages"][0]["$cursor"]["queryPlanner"])["winningPlan"])


async def _looked_up(store: MongoStore, kind: str, where: Mapping[str, Any]) -> bool:
    """Whether an index narrows a filter down to more than all that a tenant has."""
    first = store.stages(kind, where)[0][0]["$match"]
    plan = await _plan(store, kind, where)
    used = plan[-1].removeprefix("IXSCAN ")
    return used == "_id_" or any(used.startswith(f"tenant_1_{path}_1") for path in first.keys() - {"tenant"})


async def _filled(store: MongoStore) -> None:
    for name in RESOURCES:
        await store.append([Record(name, str(n), "acme", {"state": "held"}, {"parties": []}) for n in range(3)])


@pytest.mark.parametrize("mine", [{}, {"facts.parties": {"$in": ["northwind"]}}], ids=["all", "own"])
async def test_a_usual_query_is_looked_up(store: MongoStore, mine: dict[str, Any]) -> None:
    """No usual query reads the whole collection, whether of all things or of a party's own."""
    await _filled(store)

    read_whole = []
    for name, text in ASKED:
        where = {"$and": [{"tenant": "acme", **mine}, parse(parse_qsl(text), _shape(*RESOURCES[name])).where]}
        if not await _looked_up(store, name, where):
            read_whole.append((name, text))
    assert read_whole == []


@pytest.mark.parametrize("text", ["state=held", "state=held&orderDate.gte=2026-01-01", "orderDate.gte=2026-01-01"])
async def test_a_party_is_looked_up_before_states_and_dates(store: MongoStore, text: str) -> None:
    """A party has few orders, a state and a span of time have many."""
    asked = parse(parse_qsl(text), _shape(*RESOURCES["productOrder"])).where
    named = parse(parse_qsl(f"relatedParty.id=northwind&{text}"), _shape(*RESOURCES["productOrder"])).where

    own = store.stages("productOrder", {"$and": [{"tenant": "acme", "facts.parties": {"$in": ["northwind"]}}, asked]})
    of = store.stages("productOrder", {"$and": [{"tenant": "acme"}, named]})

    assert own[0][0]["$match"] == {"tenant": "acme", "facts.parties": "northwind"}
    assert of[0][0]["$match"] == {"tenant": "acme", "body.relatedParty.id": "northwind"}


@pytest.mark.parametrize("parties", [None, ["northwind"]])
@pytest.mark.parametrize("way", ["get", "find"])
async def test_what_is_hidden_is_not_read(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch, parties: list[str] | None, way: str
) -> None:
    """The id of another's is looked up together with whose it is, in one index: nothing is fetched and then compared.

    So it takes the time that an id takes that nobody has.
    """
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(Collection, "find_one", lambda _, where: asked.append(where))
    indexes = ("tenant_1__id_1", "tenant_1_facts.parties_1__id_1")

    for name in (*RESOURCES, HUB.name):
        mine = {"tenant": "acme", "id": "1"} | ({} if parties is None else {"facts.parties": {"$in": parties}})
        if way == "find":
            plan = await _plan(store, name, mine)
        else:
            with pytest.raises(NotFound):
                await store.get(name, "acme", "1", parties)
            told = await store._call(store._collection(name).find(asked.pop()).explain)
            plan = _read(told["queryPlanner"]["winningPlan"])
        assert plan[-1] == f"IXSCAN {indexes[parties is not None]}", (name, plan)


async def test_an_unusual_query_is_not(store: MongoStore) -> None:
    """What this suite asks of a query can fail."""
    await _filled(store)

    assert not await _looked_up(store, "productOrder", {"tenant": "acme", "body.description": "x"})


async def test_every_declared_index_is_used(store: MongoStore) -> None:
    """An index costs every write: one that nothing is looked up in has to go."""
    unused = []
    for name, (_, resource) in RESOURCES.items():
        await store.append([Record(name, "1", "acme", {}, {})])
        for index in resource.kind.indexes:
            paths = [path for path in ((index,) if isinstance(index, str) else index) if path != "id"]
            plan = await _plan(store, name, {"tenant": "acme", **dict.fromkeys(paths, "x")})
            if not plan[-1].startswith("IXSCAN tenant_1_" + "_1_".join(paths)):
                unused.append((name, paths, plan))

    assert unused == []


def _read_off(index: Index, where: Where, sort: Sequence[tuple[str, int]]) -> bool:
    """MongoDB's rule: equal fields first, then the order's, all of them forward or all backward."""
    paths = (index,) if isinstance(index, str) else index
    equal = [path for path, wanted in where.items() if not isinstance(wanted, Mapping)]
    ordered = [path for path, _ in sort]
    one_way = len({way for _, way in sort}) == 1
    if where.keys() - set(equal) - set(ordered):
        return False
    return one_way and sorted(paths[: len(equal)]) == sorted(equal) and list(paths[len(equal) :]) == ordered


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in SORTED.items() for text in texts])
def test_a_page_in_the_order_of_dates_is_read_off_an_index(name: str, text: str) -> None:
    """Some declared index has the filter's fields and the order, so a server that plans has nothing to sort.

    The embedded store sorts whatever it has read, so its explain cannot show it.
    """
    query = parse(parse_qsl(text), _shape(*RESOURCES[name]))

    assert any(_read_off(index, query.where, query.sort) for index in RESOURCES[name][1].kind.indexes)
