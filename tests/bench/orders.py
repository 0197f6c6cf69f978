"""What is ordered, and how it is asked over HTTP."""

from __future__ import annotations

from typing import Any

import orjson

from tests.bench.load import NUMBER

CIRCUIT = NUMBER.decode()
ORDER: dict[str, Any] = {
    "externalId": "NW-2291",
    "description": "Internet access for the Berlin office",
    "category": "business",
    "relatedParty": [{"id": "northwind", "role": "customer", "@referredType": "Organization"}],
    "productOrderItem": [
        {
            "id": "1",
            "action": "add",
            "productOffering": {"id": "internet-access"},
            "product": {
                "productCharacteristic": [
                    {"name": "bandwidth", "value": 100},
                    {"name": "vlan", "value": 100},
                    {"name": "site", "value": "berlin-1"},
                    {"name": "circuit", "value": CIRCUIT},
                ]
            },
        }
    ],
}
"""One that fulfilment could plan; what is ordered is never the same, or its decision would be remembered."""
SERVICE_ORDER = {
    "externalId": "NW-2291",
    "description": "Internet access for the Berlin office",
    "category": "business",
    "relatedParty": [{"id": "northwind", "role": "customer", "@referredType": "Organization"}],
    "orderItem": [
        {
            "id": "1",
            "action": "add",
            "service": {
                "serviceType": "internet-access",
                "serviceCharacteristic": [
                    {"name": "bandwidth", "value": 100},
                    {"name": "vlan", "value": 100},
                    {"name": "site", "value": "berlin-1"},
                    {"name": "circuit", "value": CIRCUIT},
                ],
            },
        }
    ],
}
"""The same in the words of TMF641, for the one who serves only that."""


def of_circuit(name: str) -> dict[str, Any]:
    """The order of another circuit."""
    whole: dict[str, Any] = orjson.loads(orjson.dumps(ORDER).replace(NUMBER, name.encode()))
    return whole


def request(method: str, path: str, token: str = "", body: Any = None) -> bytes:
    """The bytes of one request on a connection that stays open. A body's externalId is of each time it is sent."""
    lines = [f"{method} {path} HTTP/1.1", "host: gateway.example"]
    if token:
        lines.append(f"authorization: Bearer {token}")
    content = b"" if body is None else orjson.dumps({**body, "externalId": f"NW-{NUMBER.decode()}"})
    if content:
        lines += ["content-type: application/json", f"content-length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content
