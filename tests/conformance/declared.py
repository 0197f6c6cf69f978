"""Holds every answer against the document: whichever test asked, the document must have said what may come."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from convergedon import openapi
from convergedon.handlers.apis import APIS
from convergedon.handlers.guard import PROTECTION
from convergedon.handlers.resource import Api

SOMETIMES = {("link", "200"), ("link", "206"), *(("x-decision-id", status) for status in ("400", "404", "500", "503"))}
"""Declared headers that not every answer has: a list that is whole needs no other pages; a body may be unreadable, an
id no path, and something go wrong before the policy was asked."""
PLAIN = {"content-type", "content-length", "cache-control", *(name.decode() for name, _ in PROTECTION)}
"""Headers that need no word in a document."""


async def as_declared(response: httpx.Response) -> None:
    """Assert that a document declares the answer's status, headers and body; answers elsewhere are left alone."""
    path = response.request.url.raw_path.partition(b"?")[0].decode()
    api = next((api for api in APIS if path.startswith(f"{api.base}/")), None)
    if api is None:
        return
    name, _, id = path.removeprefix(f"{api.base}/").rstrip("/").partition("/")
    template, method = f"/{name}/{{id}}" if id else f"/{name}", response.request.method.lower()
    operation = openapi.document(api.document)["paths"].get(template, {}).get(method)
    if operation is None:
        return
    await response.aread()
    asked, status = f"{method.upper()} {path}", str(response.status_code)
    assert status in operation["responses"], f"{asked} answered {status}: {response.text[:500]}"
    answer = _followed(api, operation["responses"][status])
    declared = {header.lower() for header in answer.get("headers", {})}
    wanted = {header for header in declared if (header, status) not in SOMETIMES}
    assert wanted <= response.headers.keys(), f"{asked} {status} lacks headers"
    assert response.headers.keys() - PLAIN <= declared, f"{asked} {status} has headers that nobody declared"
    if "content" not in answer:
        assert response.content == b"", asked
        return
    assert response.headers["content-type"] in answer["content"], asked
    faults = _validator(api.document, template, method, status).iter_errors(response.json())
    assert [f"{fault.instance_path}: {fault.message}" for fault in faults] == [], asked


def _followed(api: Api, node: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in node:
        return node
    _, section, key = node["$ref"].removeprefix("#/").split("/")
    found: Mapping[str, Any] = openapi.document(api.document)["components"][section][key]
    return found


@cache
def _validator(document: str, template: str, method: str, status: str) -> jsonschema_rs.Draft4Validator:
    whole = openapi.document(document)
    api = next(api for api in APIS if api.document == document)
    answer = _followed(api, whole["paths"][template][method]["responses"][status])
    schema = {**answer["content"]["application/json"]["schema"], "components": whole["components"]}
    return jsonschema_rs.Draft4Validator(schema, validate_formats=True)
