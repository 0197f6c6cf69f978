"""Each API has a page for people, made from its document alone."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from conftest import Gateway
from markupsafe import escape

from convergedon.handlers.apis import APIS
from convergedon.handlers.resource import Api
from convergedon.openapi import document


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.document)
async def test_the_page_shows_every_operation_and_every_link_leads_somewhere(gateway: Gateway, api: Api) -> None:
    """Without a token, without a script, recursive schemas included."""
    answer: httpx.Response = await gateway.ask("GET", f"{api.base}/ui", headers={"Authorization": ""})
    text, whole = answer.text, document(api.document)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "<script" not in text
    for path, item in whole["paths"].items():
        for method in item.keys() & {"get", "post", "patch", "delete"}:
            (begin,) = re.finditer(rf">{method.upper()}</span> <code>{re.escape(path)}</code>", text)
            shown = text[begin.start() : text.index("</details>", begin.start())]
            assert set(item[method]["responses"]) <= set(re.findall("<code>([0-9]{3})</code>", shown))
            for type_, media in item[method].get("requestBody", {}).get("content", {}).items():
                assert f"<code>{type_}</code>" in shown
                assert str(escape(json.dumps(media["example"], indent=2, ensure_ascii=False))) in shown
    for heading in {tag["name"] for tag in whole["tags"]}:
        assert text.count(f"<h3>{heading}</h3>") == 1
    assert "`" not in text
    anchors = set(re.findall(r'id="([^"]+)"', text))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= anchors
    assert whole["components"]["schemas"].keys() <= anchors
