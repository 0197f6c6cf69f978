"""TM Forum's own sample payloads can be sent to us, and come back as they were sent.

They are not part of this repository: they lie in ``samples`` beside the official documents, in the folder that
CONVERGEDON_TMF_DOCUMENTS names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Gateway
from contract import CREATABLE, Operation, check, listed, members, retrieving, schema_of
from test_against_official import FOLDER

V4 = [one for one in CREATABLE if one.api.document.startswith("TMF") and one.api.document.endswith("-v4")]

Mend = Callable[[Any], Any]
OUT: Mend = lambda _: ...  # noqa: E731
"""Leaves a member out."""

# Where a sample contradicts the official document that it belongs to: what is sent instead, and why.
MENDED: Mapping[tuple[str, str], tuple[Mend, str]] = {
    ("Alarm.example.json", "parentAlarm"): (lambda parent: [parent], "an array in the document, one object here"),
    ("UsageSpecification.example.1.json", "specCharacteristic.configurable"): (
        lambda text: text == "true",
        "true or false in the document, text here",
    ),
    ("CustomerBillOnDemand.example.json", "customerBill"): (OUT, "a reference without the id that references have"),
    ("CustomerBillOnDemand.example.json", "@schemaLocation"): (OUT, "http://server:port is no URI"),
    ("CustomerBillOnDemand.example.json", "billingAccount.@schemaLocation"): (OUT, "...some href... is no URI"),
    ("CustomerBillOnDemand.example.json", "relatedParty.@schemaLocation"): (OUT, "...some href... is no URI"),
}

# Where what comes back is not what was sent. What the document does not let a client set (id, href, the state of a task
# and what came of it) needs no line: it is not sent.
DIFFERENT: Mapping[str, str] = {
    "ProductOrder.productOrderItem.state": "an item's state follows the work on the order",
    "Alarm.ackTime": "the document has no such member of an alarm, only of the task that acknowledges it",
    "Alarm.isRoot": "the document has no such member, it calls it isRootCause",
    "CustomerBillOnDemand.lastUpdate": "when it was last written is the server's to say",
    "UsageSpecification.usageSpecCharacteristic": "the document has no such member, it calls it specCharacteristic",
}


def mended(value: Any, way: list[str], mend: Mend) -> Any:
    if isinstance(value, list):
        return [mended(one, way, mend) for one in value]
    if way[0] not in value:
        return value
    fresh = mend(value[way[0]]) if len(way) == 1 else mended(value[way[0]], way[1:], mend)
    return {name: fresh if name == way[0] else had for name, had in value.items() if name != way[0] or fresh is not ...}


def samples() -> Iterator[Any]:
    """Each sample of a resource that can be created; without their folder, a skipped test for each resource."""
    for operation in V4:
        number, schema = operation.api.document.partition("-")[0], schema_of(operation)
        files = sorted(FOLDER.glob(f"samples/{number}_*/{schema}.example*.json"))
        for file in files:
            yield pytest.param(operation, file, id=file.name)
        if not FOLDER.joinpath("samples").exists():
            yield pytest.param(operation, None, id=f"{operation.name}-none")


def read(file: Path | None, operation: Operation) -> dict[str, Any]:
    if file is None:
        pytest.skip(f"no sample of {schema_of(operation)} in {FOLDER}/samples; set CONVERGEDON_TMF_DOCUMENTS")
    sample: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for (name, way), (mend, _) in MENDED.items():
        if name == file.name:
            assert mended(sample, way.split("."), mend) != sample, f"{name} needs no mending of {way}"
            sample = mended(sample, way.split("."), mend)
    return sample


def lost(sent: Any, got: Any, where: str) -> Iterator[str]:
    """Where what came back is not as it was sent; more may come back than was sent."""
    if isinstance(sent, dict) and isinstance(got, dict):
        for name, value in sent.items():
            yield from lost(value, got.get(name), f"{where}.{name}")
    elif isinstance(sent, list) and isinstance(got, list) and len(sent) == len(got):
        for mine, theirs in zip(sent, got, strict=True):
            yield from lost(mine, theirs, where)
    elif sent != got:
        yield where


def _paths(value: Any, where: str) -> set[str]:
    """The dotted paths of all that a body has."""
    if isinstance(value, list):
        return {path for one in value for path in _paths(one, where)}
    inner = value.items() if isinstance(value, dict) else ()
    return {where, *(path for name, one in inner for path in _paths(one, f"{where}.{name}"))}


@pytest.mark.parametrize(("operation", "file"), list(samples()))
async def test_a_sample_comes_back_as_it_was_sent(gateway: Gateway, operation: Operation, file: Path | None) -> None:
    """Created, read and found, with every member that a client may set as it was sent."""
    sample = read(file, operation)
    theirs = members(operation.api, schema_of(operation)) - operation.shape.creatable
    body = {name: value for name, value in sample.items() if name not in theirs}
    answer = await gateway.ask("POST", operation.path(), json=body)

    assert answer.status_code == 201, answer.text
    made = answer.json()
    check(operation.api, schema_of(operation), made)
    assert {*lost(body, made, schema_of(operation))} == {
        w for w in DIFFERENT if w in _paths(body, schema_of(operation))
    }
    assert (await gateway.ask("GET", retrieving(operation).path(made["id"]))).json() == made
    assert await listed(gateway, operation) == [made]
