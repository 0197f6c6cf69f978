"""What a contract does not allow is refused however it is said: created, patched in each way, in each version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from conftest import Gateway

V4 = "/tmf-api/productOrderingManagement/v4/productOrder"
V5 = "/tmf-api/productOrderingManagement/v5/productOrder"


def item(bandwidth: int = 10, quantity: int = 1) -> dict[str, Any]:
    listed = [{"name": "site", "value": "berlin-1"}, {"name": "bandwidth", "value": bandwidth}]
    return {"id": "1", "action": "add", "quantity": quantity, "product": {"productCharacteristic": listed}}


def fifth(value: Any) -> Any:
    """The same in the words of version 5, in which numbers are characteristics of their own kind."""
    if isinstance(value, list):
        return [fifth(one) for one in value]
    if isinstance(value, dict) and value.keys() == {"name", "value"}:
        kind = "IntegerCharacteristic" if isinstance(value["value"], int) else "StringCharacteristic"
        return {**value, "@type": kind}
    return {name: fifth(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def costs(amount: float, unit: str = "EUR") -> dict[str, Any]:
    price = {"taxIncludedAmount": {"unit": unit, "value": amount}}
    return {"priceType": "recurring", "recurringChargePeriod": "month", "price": price}


VIOLATIONS: Mapping[str, tuple[dict[str, Any], str]] = {
    "bandwidth": ({"productOrderItem": [item(bandwidth=1001)]}, "bandwidth 1001 Mbit/s is above the 1000 Mbit/s"),
    "inside": (
        {"productOrderItem": [{**item(), "productOrderItem": [{**item(bandwidth=1001), "id": "2"}]}]},
        "bandwidth 1001 Mbit/s is above the 1000 Mbit/s",
    ),
    "quantity": ({"productOrderItem": [item(quantity=101)]}, "quantity 101 is above the 100"),
    "total": ({"orderTotalPrice": [costs(10000.01)]}, "the order comes to 10000.01 EUR a month"),
    "items": (
        {"productOrderItem": [{**item(quantity=100), "itemPrice": [costs(100.01)]}]},
        "the order comes to 10001 EUR a month",
    ),
    "currency": ({"orderTotalPrice": [costs(1, "USD")]}, "contract are in EUR, so USD cannot be held against it"),
}
each = pytest.mark.parametrize("violation", VIOLATIONS)


@each
@pytest.mark.parametrize("path", [V4, V5])
async def test_it_is_not_created(gateway: Gateway, violation: str, path: str) -> None:
    body, why = VIOLATIONS[violation]
    whole = {"productOrderItem": [item()], **body}
    answer = await gateway.ask("POST", path, json=fifth(whole) if path == V5 else whole)

    assert answer.status_code == 403, answer.text
    assert why in answer.json()["message"]
    assert (await gateway.ask("GET", path)).json() == []


@each
@pytest.mark.parametrize("path", [V4, V5])
@pytest.mark.parametrize("how", ["application/json", "application/merge-patch+json", "application/json-patch+json"])
async def test_it_is_not_patched(gateway: Gateway, violation: str, path: str, how: str) -> None:
    """A draft is changed in every way that there is; it stays as it was."""
    body, why = VIOLATIONS[violation]
    draft = {"productOrderItem": fifth([item()]), "requestedInitialState": "draft", "@type": "ProductOrder"}
    created = await gateway.ask("POST", V5, json=draft)
    assert created.status_code == 201, created.text
    at = f"{path}/{created.json()['id']}"
    before = (await gateway.ask("GET", at)).json()
    change: Any = fifth(body) if path == V5 else body
    if how == "application/json-patch+json":
        change = [{"op": "add", "path": f"/{name}", "value": value} for name, value in change.items()]
    answer = await gateway.ask("PATCH", at, json=change, headers={"Content-Type": how})

    assert answer.status_code == 403, answer.text
    assert why in answer.json()["message"]
    assert (await gateway.ask("GET", at)).json() == before


async def test_what_is_within_the_contract_is_taken(gateway: Gateway) -> None:
    """At the very limit of each."""
    body = {"productOrderItem": [item(bandwidth=1000, quantity=100)], "orderTotalPrice": [costs(10000)]}
    for path, sent in ((V4, body), (V5, fifth(body))):
        answer = await gateway.ask("POST", path, json=sent)

        assert answer.status_code == 201, answer.text
