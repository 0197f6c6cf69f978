"""The console as an operator has it: a real browser on the whole system with its lab."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import ENTER, TAB, Browser, browser
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from twins import listening

from convergedon.adapters import lab
from convergedon.adapters.snmp.lab import trap_link
from convergedon.core import settings, tokens, up
from convergedon.core.settings import Settings

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

ORDERS = "/tmf-api/productOrderingManagement/v4/productOrder"
NOTIFICATIONS = "/convergedon-api/customerNotification/v1/hub"
ARTEFACTS = Path(__file__).parents[2] / "artefacts"
FOCUSED = "return document.activeElement.getAttribute('href') || document.activeElement.textContent.trim()"


@pytest.fixture
async def chromium(tmp_path: Path) -> AsyncIterator[Browser]:
    from peers import peer

    async with browser(peer("chromedriver"), peer("chromium"), tmp_path / "profile") as running:
        yield running


@pytest.fixture
async def listener() -> AsyncIterator[str]:
    """A customer's listener, which takes everything."""

    async def take(_: Request) -> Response:
        return Response(status_code=204)

    async with listening(Starlette(routes=[Route("/", take, methods=["POST"])])) as url:
        yield f"{url}/"


def asked(site: str, vlan: int, bandwidth: int) -> dict[str, Any]:
    values = {"site": site, "vlan": vlan, "bandwidth": bandwidth}
    given = [{"name": name, "value": value} for name, value in values.items()]
    offering = {"id": "internet-access"}
    item = {"id": "1", "action": "add", "productOffering": offering, "product": {"productCharacteristic": given}}
    customer = {"id": "northwind", "role": "customer", "@referredType": "Organization"}
    return {"externalId": f"PO-{vlan}", "relatedParty": [customer], "productOrderItem": [item]}


def bearer(made: Settings, role: str, party: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens.issue(made, 'acme', role, party)}"}


async def test_an_operator_watches_the_lines_without_a_reload(chromium: Browser, listener: str, tmp_path: Path) -> None:
    made = settings.load(data=tmp_path / "data", port=0, trap_port=0, flow_port=0)
    async with up.system(made, lab=True, adapters=["netconf", "snmp"]) as system:
        gateway = system.connection.gateway
        async with httpx.AsyncClient(base_url=gateway, timeout=10) as client:
            answer = await client.post(
                NOTIFICATIONS, json={"callback": listener}, headers=bearer(made, "customer", "northwind")
            )
            assert answer.status_code == 201, answer.text
            await log_in(chromium, gateway, made)
            await an_order_is_completed(chromium, client, made)
            await a_fault_reaches_its_customer(chromium, system.connection.trap)
            await what_fails_says_why(chromium, client, made)
        await the_keyboard_reaches_everything(chromium, gateway)
        await it_fits(chromium)
        await its_pages_are_seen(chromium, gateway)
        await the_audit_record_is_searched(chromium, gateway)

    await chromium.until("#live", "Waiting for the gateway")  # the system has stopped, though a page was watching


async def log_in(chromium: Browser, gateway: str, made: Settings) -> None:
    await chromium.size(1280, 900)
    await chromium.go(f"{gateway}/console")
    await chromium.shoot(ARTEFACTS / "console-login.png")
    await chromium.type("#token", tokens.issue(made, "acme", "admin"))
    await chromium.click("button.main")
    await chromium.until("#live", "Live")
    await chromium.run("window.neverReloaded = true")


async def an_order_is_completed(chromium: Browser, client: httpx.AsyncClient, made: Settings) -> None:
    answer = await client.post(ORDERS, json=asked("berlin-1", 110, 100), headers=bearer(made, "csr"))
    row = f"tr[data-key='{answer.json()['id']}']"
    await chromium.until(row, "completed", "pe1: applied", "northwind")
    await chromium.until(".figure:nth-child(1)", "1 order completed")
    await chromium.run(f'document.querySelector("{row} a").focus()')

    assert await chromium.run("return window.neverReloaded") is True


async def a_fault_reaches_its_customer(chromium: Browser, trap: str) -> None:
    host, port = trap.split(":")
    trap_link("down", lab.address("pe1"), "ge-0/0/1", 1, "public", (host, int(port)))
    await chromium.until(".alarms tbody tr", "linkDown", "northwind", "disturbance told", "raised")
    await chromium.until(".figure:nth-child(2)", "1 message delivered")
    trap_link("up", lab.address("pe1"), "ge-0/0/1", 1, "public", (host, int(port)))
    await chromium.until(".alarms tbody tr", "all-clear told", "cleared")

    assert await chromium.run("return window.neverReloaded") is True


async def what_fails_says_why(chromium: Browser, client: httpx.AsyncClient, made: Settings) -> None:
    """The device's words for an order; the policy's refusal in its figure, which the next event brings up to date."""
    assert (
        await client.post(ORDERS, json=asked("berlin-1", 111, 9000), headers=bearer(made, "csr"))
    ).status_code == 403
    answer = await client.post(ORDERS, json=asked("berlin-1", 110, 100), headers=bearer(made, "csr"))
    focused = await chromium.run(FOCUSED)
    await chromium.until(f"tr[data-key='{answer.json()['id']}']", "failed", "refused")

    assert "record/productOrder/" in focused
    assert await chromium.run(FOCUSED) == focused  # the table under it was exchanged
    await chromium.until(".figure:nth-child(3) .value", "1")
    await chromium.until(".figure:nth-child(4) .value", "1")


async def the_keyboard_reaches_everything(chromium: Browser, gateway: str) -> None:
    """From the top, tab by tab: skip link, sections, logout, figures, orders, alarms."""
    await chromium.go(f"{gateway}/console/")
    await chromium.until("#live", "Live")
    reached = []
    for _ in range(30):
        await chromium.press(TAB)
        reached.append(await chromium.run(FOCUSED))
    wanted = ["#main", "#orders", "#alarms", "Log out", "figures/activation", "record/productOrder/", "record/alarm/"]
    places = [next((n for n, name in enumerate(reached) if part in name), None) for part in wanted]

    assert None not in places, reached
    assert places == sorted(places), reached

    await chromium.run("document.querySelector('.orders tbody tr:nth-child(2) a').focus()")
    await chromium.press(ENTER)
    await chromium.until("h1", "ProductOrder PO-110")
    await chromium.command("POST", "/back", {})
    await chromium.until("#live", "Live")


async def it_fits(chromium: Browser) -> None:
    """No sideways scrolling on a desk, nor on a phone, in light and dark."""
    for name, width, dark in (("board", 1280, False), ("board-dark", 1280, True), ("board-400", 400, False)):
        await chromium.size(width, 900, dark)
        await asyncio.sleep(0.2)
        assert await chromium.run("return document.documentElement.scrollWidth") == width
        await chromium.shoot(ARTEFACTS / f"console-{name}.png")
    await chromium.size(1280, 900)


async def its_pages_are_seen(chromium: Browser, gateway: str) -> None:
    links = {"order": ".orders tbody a", "alarm": ".alarms tbody a", "figure": ".figure:nth-child(4) a"}
    for name, css in links.items():
        await chromium.go(await chromium.run("return document.querySelector(arguments[0]).href", css))
        await chromium.until("#live", "Live")
        await chromium.until("table.entries tbody", "order.finished" if name != "alarm" else "alarm.raised")
        assert await chromium.run("return document.documentElement.scrollWidth") == 1280
        await chromium.shoot(ARTEFACTS / f"console-{name}.png")
        await chromium.go(f"{gateway}/console/")
    await chromium.until("#live", "Live")


async def the_audit_record_is_searched(chromium: Browser, gateway: str) -> None:
    """From the header, with the keyboard alone; a result leads to its record and to its trace."""
    await chromium.run("document.querySelector(\"nav a[href$='/audit']\").focus()")
    await chromium.press(ENTER)
    await chromium.until("h1", "Audit record")
    await chromium.run("document.querySelector('#what').focus()")
    await chromium.type("#what", "device.rpc")
    await chromium.press(ENTER)
    await chromium.until("table.entries tbody", "device.rpc", "edit-config", "confirm", "convergedon")
    for name, width, dark in (("audit", 1280, False), ("audit-dark", 1280, True), ("audit-400", 400, False)):
        await chromium.size(width, 900, dark)
        await asyncio.sleep(0.2)
        assert await chromium.run("return document.documentElement.scrollWidth") == width
        await chromium.shoot(ARTEFACTS / f"console-{name}.png")
    await chromium.size(1280, 900)

    await chromium.go(await chromium.run("return document.querySelector('td[data-label=Trace] a').href"))
    await chromium.until("h1", "Trace")
    await chromium.until("table.entries tbody", "order.finished")
    await chromium.go(await chromium.run("return document.querySelector('td[data-label=On] a').href"))
    await chromium.until("h1", "ProductOrder")
    await chromium.go(f"{gateway}/console/")
    await chromium.until("#live", "Live")
