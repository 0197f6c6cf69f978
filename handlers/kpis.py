"""The figures over REST, our extension: those of the console, computed when they are asked for, written by nobody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import time
from typing import Any
from uuid import NAMESPACE_URL, uuid5
from zlib import crc32

import orjson

from convergedon.core import audit
from convergedon.core.store import Record, Store, Where
from convergedon.handlers import figures, surveys
from convergedon.handlers.figures import Definition, Figure
from convergedon.handlers.resource import Api, Body, Resource

PAGE = 10_000
"""Audit records, or answers, that are read at once; figures are computed from all there are."""
DAY = "P1D"
OPINIONS = {"P1D": 1, "P7D": 7, "P30D": 30, "P90D": 90}
"""Periods over which the answers of customers are told, in days."""


async def counted(store: Store, tenant: str, definitions: Iterable[Definition]) -> list[Body]:
    """The audit records of the last 24 hours that may count, newest first."""
    since = {"facts.at.time": {"$gte": int((time() - figures.WINDOW) * 1_000_000)}}
    where = {"tenant": tenant, **since, "$or": [dict(definition.where) for definition in definitions]}
    return await every(store, audit.KIND.name, where, "facts.at.time")


async def opinion(store: Store, tenant: str, days: int) -> Figure:
    where = {"tenant": tenant, **surveys.since(days)}
    return figures.opinion(await every(store, surveys.SURVEY_ANSWER.name, where, "facts.at.answeredAt"), days)


async def every(store: Store, kind: str, where: Where, at: str) -> list[Body]:
    """The bodies of all records that match, newest first by the time ``at``, of which the condition says since when.

    They are read a page at a time. The next begins at the time at which the one before ended, which several may have.
    """
    found: dict[str, Body] = {}
    span, page = where[at], PAGE
    while True:
        some = await store.find(kind, {**where, at: span}, [(at, -1), ("id", -1)], limit=page)
        before = len(found)
        found |= {record.id: record.body for record in some}
        if len(some) < page:
            return list(found.values())
        page = PAGE if len(found) > before else 2 * page
        span = {**where[at], "$lte": _at(some[-1], at)}


def _at(record: Record, path: str) -> Any:
    return record.facts["at"][path.rpartition(".")[2]]


async def _computed(store: Store, tenant: str) -> Sequence[Record]:
    entries = await counted(store, tenant, figures.FIGURES)
    found = [(DAY, figures.compute(definition, entries)) for definition in figures.FIGURES]
    found += [(period, await opinion(store, tenant, days)) for period, days in OPINIONS.items()]
    return [_record(tenant, period, figure) for period, figure in found]


def _record(tenant: str, period: str, figure: Figure) -> Record:
    about = figure.definition
    body: dict[str, Any] = {
        "name": about.name,
        "title": about.title,
        "definition": about.definition,
        "period": period,
        "unit": about.unit,
        "count": figure.count,
        "note": figure.note,
        **({} if figure.number is None else {"value": figure.number}),
    }
    tag = f"{crc32(orjson.dumps(body)):08x}"
    id = str(uuid5(NAMESPACE_URL, f"{tenant}|figure|{about.name}|{period}"))
    return Record(FIGURE.name, id, tenant, body, {"tag": tag})


FIGURE = Resource("figure", "Figure", parties=lambda _: [], computed=_computed)

API = Api("figure-v1", "/convergedon-api/figure/v1", (FIGURE,))
