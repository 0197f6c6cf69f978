"""The hub of every API: who may listen, and where to."""

from __future__ import annotations

import pytest
from conftest import URL, Gateway
from contract import (
    HUBS,
    Operation,
    each,
    hub_body,
    other,
    refused,
)


@each(HUBS)
async def test_a_listener_is_registered_and_unregistered(gateway: Gateway, operation: Operation) -> None:
    """201 with its id, callback and query; 204 once, then it is not found."""
    asked = {**hub_body(operation), "query": "eventType=ProductOrderCreateEvent"}
    answer = await gateway.ask("POST", operation.path(), json=asked)

    body = answer.json()
    assert answer.status_code == 201
    assert body == {**asked, "id": body["id"]}
    path = f"{operation.path()}/{body['id']}"
    assert answer.headers["location"] == URL + path
    assert answer.headers["x-hub-secret"].startswith("whsec_")
    assert answer.headers["cache-control"] == "no-store"
    assert (await gateway.ask("DELETE", path)).status_code == 204
    refused(operation, await gateway.ask("DELETE", path), 404)


@each(HUBS)
async def test_another_tenants_and_another_apis_listener_does_not_exist(gateway: Gateway, operation: Operation) -> None:
    """Nobody ends what others hear; afterwards its owner can."""
    body = (await gateway.ask("POST", operation.path(), json=hub_body(operation))).json()
    theirs = gateway.token("admin", tenant=f"not-{gateway.tenant}")
    elsewhere = next(hub for hub in HUBS if hub.api != operation.api)

    refused(operation, await gateway.ask("DELETE", f"{operation.path()}/{body['id']}", headers=theirs), 404)
    refused(operation, await gateway.ask("DELETE", f"{elsewhere.path()}/{body['id']}"), 404)
    assert (await gateway.ask("DELETE", f"{operation.path()}/{body['id']}")).status_code == 204


async def test_a_customer_ends_only_its_own_subscription(gateway: Gateway) -> None:
    """Another party's is not found."""
    hub = HUBS[0]
    northwind, contoso = [gateway.token("customer", party=party) for party in ("northwind", "contoso")]
    body = (await gateway.ask("POST", hub.path(), headers=northwind, json=hub_body(hub))).json()
    path = f"{hub.path()}/{body['id']}"

    refused(hub, await gateway.ask("DELETE", path, headers=contoso), 404)
    assert (await gateway.ask("DELETE", path, headers=northwind)).status_code == 204


@pytest.mark.parametrize(
    "callback",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[::ffff:169.254.169.254]/",
        "http://10.0.0.1/events",
        "http://192.168.1.1:8080/events",
        "http://0.0.0.0/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:10.0.0.1]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://100.64.0.1/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[64:ff9b::808:808]/",
        "http://[2002:7f00:1::]/",
        "http://[2002:808:808::]/",
        "http://[2001:0:808:808::80ff:fffe]/",
        "http://[::127.0.0.1]/",
        "http://[fec0::1]/",
        "http://[fd00::1]/",
        "http://[ff02::1]/",
        "http://192.88.99.1/",
        "http://2852039166/",
        "http://user:password@127.0.0.1/",
        "http://user@127.0.0.1/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "//127.0.0.1/",
        "127.0.0.1",
        "http://",
        "http:///events",
        "",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:port/",
        "http://[::1",
        "http://[nonsense]/",
        "http://a..b/",
        "http://" + "a" * 300 + "/",
        "http://a\x00b/",
        "http://127.0.0.1\x00/",
        "http://127.0.0.1/a b",
        "http://\U0001f600..example/",
    ],
)
async def test_places_that_may_not_be_called_are_refused(gateway: Gateway, callback: str) -> None:
    """400 for link-local, private, special and malformed addresses, and for what is no web address."""
    answer = await gateway.ask("POST", HUBS[0].path(), json={**hub_body(HUBS[0]), "callback": callback})

    refused(HUBS[0], answer, 400)


async def test_a_host_that_does_not_exist_is_refused(gateway: Gateway) -> None:
    """400, or 503 where names cannot be looked up now; nothing is kept."""
    answer = await gateway.ask("POST", HUBS[0].path(), json={"callback": "http://nowhere.invalid/events"})

    refused(HUBS[0], answer, 503 if answer.status_code == 503 else 400)


async def test_loopback_is_refused_unless_it_is_allowed(gateway: Gateway) -> None:
    """The setting opens a network; link-local stays closed even then."""
    from convergedon.core.errors import Invalid
    from convergedon.core.settings import load
    from convergedon.handlers.hub import check_callback

    allowed = load(callback_networks="127.0.0.0/8,::1/128,0.0.0.0/0,::/0").callback_networks
    await check_callback("http://127.0.0.1:80/", allowed)
    await check_callback("http://[::1]:80/", allowed)

    with pytest.raises(Invalid):
        await check_callback("http://127.0.0.1:80/", [])
    for address in ("169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "224.0.0.1"):
        with pytest.raises(Invalid):
            await check_callback(f"http://{address}/", allowed)


@each([hub for hub in HUBS if other(hub, "get", True)])
async def test_a_listener_is_read_by_whoever_may_end_it(gateway: Gateway, operation: Operation) -> None:
    """As it was answered when it was registered, without its secret; for others and in other APIs there is none."""
    registered = await gateway.ask("POST", operation.path(), json=hub_body(operation))
    path = f"{operation.path()}/{registered.json()['id']}"

    found = await gateway.ask("GET", path)

    assert (found.status_code, found.json()) == (200, registered.json())
    assert registered.headers["x-hub-secret"] not in f"{found.text} {found.headers}"
    theirs = gateway.token("admin", tenant=f"not-{gateway.tenant}")
    refused(operation, await gateway.ask("GET", path, headers=theirs), 404)
    customer = gateway.token("customer", party="northwind")
    refused(operation, await gateway.ask("GET", path, headers=customer), 404)
    elsewhere = next(hub for hub in HUBS if hub.api != operation.api)
    there = await gateway.ask("POST", elsewhere.path(), json=hub_body(elsewhere))
    refused(operation, await gateway.ask("GET", f"{operation.path()}/{there.json()['id']}"), 404)
