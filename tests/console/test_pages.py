"""The pages: who comes in, what they see, and what they say when something is away."""

import os
import re
import stat
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from twins import Place, form_of, log_in

from convergedon.core import bundles
from convergedon.core.bus import Parked, ParkedLast
from convergedon.core.engines import Embedded
from convergedon.core.errors import Unavailable
from convergedon.core.policy import Policy
from convergedon.core.store import Record
from convergedon.core.tokens import Verifier
from convergedon.handlers.alarms import ALARM
from convergedon.handlers.console.door import Door
from convergedon.handlers.console.reading import LATEST
from convergedon.handlers.customer_bills import APPLIED_CUSTOMER_BILLING_RATE, CUSTOMER_BILL
from convergedon.handlers.customer_notifications import CUSTOMER_NOTIFICATION
from convergedon.handlers.product_ordering import PRODUCT_ORDER
from convergedon.handlers.usage import USAGE

CUSTOMER = [{"id": "northwind", "role": "customer", "@referredType": "Organization"}]


async def order(place: Place, tenant: str = "acme", **facts: Any) -> Record:
    item = {"id": "1", "action": "add", "productOffering": {"id": "internet-access"}}
    body = {"externalId": "<b>PO-1</b>", "relatedParty": CUSTOMER, "productOrderItem": [item]}
    return await place.resources.create(PRODUCT_ORDER, tenant, body, facts)


@pytest.mark.parametrize(
    "path",
    ["", "/", "/fragment/orders", "/figures/refusals", "/record/productOrder/1", "/trace/1", "/audit", "/nowhere"],
)
async def test_without_a_session_every_page_leads_to_the_login(place: Place, path: str) -> None:
    async with place.client() as client:
        page = await client.get(f"/console{path}", follow_redirects=True)

    assert page.url.path == "/console/login"
    assert 'name="token"' in page.text


async def test_a_token_opens_a_session_that_does_not_hold_it(place: Place) -> None:
    token = place.token(role="noc")
    async with place.client() as client:
        entered = await log_in(client, token, next="/figures/refusals")
        page = await client.get(entered.headers["location"])
        cookie = entered.headers["set-cookie"]

    assert (entered.status_code, page.status_code) == (302, 200)
    assert page.url.path == "/console/figures/refusals"
    assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/console"))
    assert token[-40:] not in cookie
    assert {"what": "call.retrieve", "on": "console", "outcome": "done", "tenant": "acme"}.items() <= place.trail[
        0
    ].items()


async def test_a_bad_token_is_refused_with_its_reason(place: Place) -> None:
    async with place.client() as client:
        answer = await log_in(client, "no.real.token")
        page = await client.get("/console/")

    assert answer.status_code == 401
    assert "the bearer token is not valid" in answer.text
    assert page.status_code == 302


async def test_a_role_without_the_console_is_refused_and_recorded(place: Place) -> None:
    async with place.client() as client:
        answer = await log_in(client, place.token(role="csr"))

    assert answer.status_code == 403
    assert "none of the roles [csr] may retrieve a console" in answer.text
    assert [(one["on"], one["outcome"]) for one in place.trail] == [("console", "refused")]


async def test_a_session_ends_with_its_token(place: Place) -> None:
    async with place.client() as client:
        entered = await log_in(client, place.token(seconds=-5))  # within the verifier's leeway
        page = await client.get("/console/")

    assert entered.status_code == 302
    assert page.status_code == 302


@pytest.mark.parametrize("form", [{}, {"form": ""}, {"form": "guessed"}])
@pytest.mark.parametrize("path", ["login", "logout"])
async def test_a_form_of_another_site_is_refused(place: Place, path: str, form: dict[str, str]) -> None:
    async with place.client() as client:
        await log_in(client, place.token())
        answer = await client.post(f"/console/{path}", data={"token": place.token(), **form})
        page = await client.get("/console/")

    assert answer.status_code == 403
    assert page.status_code == 200


async def test_without_any_session_a_form_is_refused(place: Place) -> None:
    async with place.client() as client:
        answer = await client.post("/console/login", data={"token": place.token(), "form": ""})

    assert answer.status_code == 403


async def test_after_the_logout_a_copied_cookie_is_worth_nothing(place: Place) -> None:
    async with place.client() as client:
        await log_in(client, place.token())
        copied = client.cookies["convergedon_console"]
        answer = await client.post("/console/logout", data={"form": form_of(await client.get("/console/"))})
        page = await client.get("/console/", headers={"Cookie": f"convergedon_console={copied}"})

    assert answer.headers["location"] == "/console/login"
    assert page.status_code == 302


async def test_a_session_that_somebody_planted_is_not_the_one_that_is_opened(place: Place) -> None:
    """Whoever knew cookie and form of the time before the login knows nothing of the session after it."""
    async with place.client() as client:
        form = form_of(await client.get("/console/login"))
        planted = client.cookies["convergedon_console"]
        await client.post("/console/login", data={"form": form, "token": place.token()})
        opened = client.cookies["convergedon_console"]
        forged = await client.post("/console/logout", data={"form": form})
    async with place.client() as other:
        page = await other.get("/console/", headers={"Cookie": f"convergedon_console={planted}"})

    assert opened != planted
    assert forged.status_code == 403
    assert page.status_code == 302


async def test_the_policy_hears_when_an_operator_was_given_its_roles(place: Place) -> None:
    """A session says it for as long as it lasts: a role that is too old for the policies ends it."""
    token = place.token()
    issued = jwt.decode(token, options={"verify_signature": False})["iat"]
    door = Door(Policy(Embedded(bundles.read())), Verifier(place.settings), None)
    session = await door.enter(token)
    operator = door.operator(session)

    assert operator is not None
    assert operator.issued == issued
    assert door.operator({name: value for name, value in session.items() if name != "issued"}) is None


@pytest.mark.parametrize(("base", "secure"), [("http://console", False), ("https://console", True)])
async def test_by_tls_the_cookie_goes_by_tls_alone(place: Place, base: str, secure: bool) -> None:
    async with place.client(base) as client:
        entered = await log_in(client, place.token())

    assert ("Secure" in entered.headers["set-cookie"]) is secure


async def test_guessing_at_the_login_is_bounded(place: Place) -> None:
    """After some bad tokens the address has to wait, even with a good one; it is told for how long."""
    async with place.client() as client:
        form = form_of(await client.get("/console/login"))
        bad = [await client.post("/console/login", data={"form": form, "token": f"bad-{n}"}) for n in range(60)]
        good = await client.post("/console/login", data={"form": form, "token": place.token()})

    assert [answer.status_code for answer in bad[:50]] == [401] * 50
    assert bad[-1].status_code == good.status_code == 429
    assert int(good.headers["retry-after"]) >= 1
    assert "too many bearer tokens from this address" in good.text


@pytest.mark.parametrize("next_", ["//elsewhere.example", "/\\elsewhere.example", "https://elsewhere.example", ""])
async def test_the_login_leads_to_the_console_alone(place: Place, next_: str) -> None:
    async with place.client() as client:
        entered = await log_in(client, place.token(), next=next_)

    assert entered.headers["location"] == "/console/"


async def test_headers_keep_strangers_out(place: Place) -> None:
    async with place.client() as client:
        page = await client.get("/console/login")
        script = await client.get("/console/static/console.js")

    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == script.headers["x-content-type-options"] == "nosniff"
    assert (page.headers["cache-control"], page.headers["x-frame-options"]) == ("no-store", "DENY")
    assert " style=" not in page.text
    assert script.status_code == 200


async def test_the_key_is_its_owners_alone(place: Place) -> None:
    key = place.settings.data / "keys" / "console.key"

    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600


async def test_the_board_shows_the_tenants_own_things_as_text(place: Place) -> None:
    own, other = await order(place), await order(place, "globex")
    async with place.client() as client:
        await log_in(client, place.token())
        page = await client.get("/console/")
        fragment = await client.get("/console/fragment/orders")
        strange = await client.get(f"/console/record/productOrder/{other.id}")

    for shown in (page.text, fragment.text):
        assert own.id in shown
        assert other.id not in shown
    assert "&lt;b&gt;PO-1&lt;/b&gt;" in page.text
    assert strange.status_code == 404


async def test_an_order_shows_its_steps_and_the_networks_words(place: Place) -> None:
    asked = {
        "a": {"wanted": {"device": "pe1"}, "undoes": "", "status": "done", "result": "applied", "words": ""},
        "b": {"wanted": {"device": "pe2"}, "undoes": "", "status": "failed", "result": "refused", "words": "no"},
        "c": {"wanted": {"device": "pe1"}, "undoes": "a", "status": "asked", "words": ""},
    }
    made = await order(place)
    begun = await place.resources.change(PRODUCT_ORDER, made, {"state": "inProgress"}, {"asked": asked})
    note = {"author": "ConvergedON", "text": "item 1 on pe2: refused: no"}
    await place.resources.change(PRODUCT_ORDER, begun, {"state": "failed", "note": [note]})
    async with place.client() as client:
        await log_in(client, place.token())
        page = (await client.get(f"/console/record/productOrder/{made.id}")).text
        row = (await client.get("/console/fragment/orders")).text

    places = [page.index(step) for step in ("acknowledged", "in progress", "pe1: applied", "pe2: refused", "pe1: undo")]
    assert places == sorted(places)
    assert "item 1 on pe2: refused: no" in row
    assert {"what": "call.retrieve", "on": f"productOrder/{made.id}"}.items() <= place.trail[-1].items()


async def test_an_alarm_shows_whom_it_touches_and_what_they_were_told(place: Place) -> None:
    alarm = {"state": "raised", "perceivedSeverity": "major", "alarmRaisedTime": "2026-01-02T03:04:05.000Z",
             "specificProblem": "linkDown", "alarmedObject": {"id": "pe1/ge-0/0/1"}}  # fmt: skip
    raised = await place.resources.create(ALARM, "acme", alarm, {"parties": ["northwind"]})
    told = {
        "notificationType": "serviceAffected",
        "text": "disturbed",
        "relatedParty": CUSTOMER,
        "alarm": {"id": raised.id},
    }
    await place.resources.create(CUSTOMER_NOTIFICATION, "acme", told)
    async with place.client() as client:
        await log_in(client, place.token())
        page = (await client.get("/console/fragment/alarms")).text

    assert all(word in page for word in ("linkDown", "northwind", "disturbance told", "pe1/ge-0/0/1", "major"))
    assert '<time datetime="2026-01-02T03:04:05.000Z" title="2026-01-02T03:04:05.000Z">' in page


async def test_what_a_role_may_not_list_is_not_shown(place: Place) -> None:
    await place.resources.create(
        USAGE, "acme", {"usageType": "ip-traffic", "relatedParty": CUSTOMER}, id="secret-usage"
    )
    async with place.client() as client:
        await log_in(client, place.token(role="noc"))
        page = await client.get("/console/")
        usage = await client.get("/console/record/usage/secret-usage")

    assert page.status_code == 200
    assert "none of the roles [noc] may list a usage" in page.text
    assert "secret-usage" not in page.text
    assert usage.status_code == 403


async def test_a_figure_opens_the_records_behind_it(place: Place, record: Callable[..., Any]) -> None:
    made = await order(place)
    await record("order.finished", f"productOrder/{made.id}", seconds=0.5)
    await record("order.finished", "productOrder/of-globex", tenant="globex", seconds=90.0)
    async with place.client() as client:
        await log_in(client, place.token())
        board = (await client.get("/console/fragment/figures")).text
        page = (await client.get("/console/figures/activation")).text

    assert "0.50\u00a0s" in board
    assert "/console/figures/activation" in board
    assert f"/console/record/productOrder/{made.id}" in page
    assert "of-globex" not in page


async def test_parked_messages_are_shown_to_their_tenant_with_the_reason(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [{"tenant": "acme"}, {"observation": {"tenant": "acme"}}, {"about": {"tenant": "globex"}}, "no JSON"]
    rows = [Parked(n, "EVENTS", "flow", "event.1", f"reason <{n}>", 1.0, body) for n, body in enumerate(bodies)]
    asked = []

    async def parked_last(most: int) -> ParkedLast:
        asked.append(most)
        return ParkedLast(rows[:most], 1_200)

    monkeypatch.setattr(place.bus, "parked_last", parked_last)
    async with place.client() as client:
        await log_in(client, place.token())
        page = (await client.get("/console/fragment/parked")).text

    assert [f"reason &lt;{n}&gt;" in page for n in range(4)] == [True, True, False, False]
    assert "1200 more, of any tenant, were parked before them" in page
    assert max(asked) < 1_000


async def test_a_bill_leads_back_to_its_usage(place: Place) -> None:
    price = {"unit": "EUR", "value": 0.4}
    bill = await place.resources.create(
        CUSTOMER_BILL, "acme", {"billNo": "B1", "state": "new", "relatedParty": CUSTOMER}
    )
    line = {"name": "download", "bill": {"id": bill.id}, "taxExcludedAmount": price, "taxIncludedAmount": price,
            "characteristic": [{"name": "usageId", "value": ["usage-1"]}]}  # fmt: skip
    await place.resources.create(APPLIED_CUSTOMER_BILLING_RATE, "acme", line)
    async with place.client() as client:
        await log_in(client, place.token())
        page = (await client.get(f"/console/record/customerBill/{bill.id}")).text

    assert all(word in page for word in ("CustomerBill B1", "download", "0.40 EUR", "/console/record/usage/usage-1"))


async def test_a_store_that_is_away_is_said_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(*_: Any, **__: Any) -> Any:
        raise Unavailable("the store does not answer")

    monkeypatch.setattr(place.store, "find", find)
    async with place.client() as client:
        await log_in(client, place.token())
        page = await client.get("/console/")

    assert page.status_code == 503
    assert page.headers["retry-after"] == "5"
    assert "the store does not answer" in page.text


@pytest.mark.parametrize(
    "path",
    ["fragment/nix", "fragment/../pages", "figures/nix", "record/nix/1", "record/hub/1", "record/alarm/1", "nix"],
)
async def test_what_is_not_there_is_a_page_that_says_so(place: Place, path: str) -> None:
    async with place.client() as client:
        await log_in(client, place.token())
        page = await client.get(f"/console/{path}")

    assert page.status_code == 404
    assert "<h1" in page.text


async def test_a_form_that_is_too_long_is_refused(place: Place) -> None:
    async with place.client() as client:
        answer = await log_in(client, "x" * 100_000)

    assert answer.status_code == 413


async def found(client: Any, query: str = "") -> list[str]:
    """The rows of the search page's table, by their texts."""
    page = await client.get(f"/console/audit{query}")
    assert page.status_code == 200, page.text
    body = page.text.partition("<tbody>")[2].partition("</tbody>")[0]
    return [" ".join(re.sub("<[^>]+>", " ", row).split()) for row in body.split("</tr>") if "<tr>" in row]


async def test_the_audit_record_is_searched(place: Place, record: Callable[..., Any]) -> None:
    """By each field alone and by several; of the operator's tenant alone, and the search is recorded."""
    await record("call.create", "productOrder/1", "refused", reasons=["somebody may not"])
    await record("order.finished", "productOrder/1")
    await record("call.create", "productOrder/2", tenant="globex")
    async with place.client() as client:
        await log_in(client, place.token(role="auditor"))
        everything = await found(client)
        by = {
            query: len(await found(client, query))
            for query in (
                "?on=productOrder/1", "?what=call.create", "?outcome=refused", "?subject=somebody", "?subject=nobody",
                "?on=productOrder/2", "?what=call.create&outcome=done", "?since=2001-01-01T00:00", "?trace=1",
                "?until=2001-01-01T00:00:00", "?decision=1", "?on=%20productOrder/1%20&subject=somebody",
            )
        }  # fmt: skip
        page = (await client.get("/console/audit?on=%22%3E%3Cb%3E")).text

    assert sorted("order.finished" in row for row in everything) == [False, True]
    assert all("somebody" in row for row in everything)
    assert list(by.values()) == [2, 1, 1, 2, 0, 0, 0, 2, 0, 0, 0, 2]
    assert "&#34;&gt;&lt;b&gt;" in page
    assert {"what": "call.list", "on": "audit", "outcome": "done", "count": 0}.items() <= place.trail[-1].items()


async def test_a_search_says_when_there_is_more(place: Place, record: Callable[..., Any]) -> None:
    for _ in range(LATEST + 1):
        await record("order.finished", "productOrder/1")
    async with place.client() as client:
        await log_in(client, place.token(role="auditor"))
        page = await client.get("/console/audit")
        rows = await found(client)

    assert len(rows) == LATEST
    assert f"The latest {LATEST} are listed; there are more." in page.text


async def test_who_may_not_read_the_audit_record_is_told_so(place: Place, record: Callable[..., Any]) -> None:
    await record("order.finished", "productOrder/1")
    async with place.client() as client:
        await log_in(client, place.token(role="noc"))
        page = await client.get("/console/audit")

    assert page.status_code == 200
    assert "none of the roles [noc] may list a audit" in page.text
    assert "order.finished" not in page.text


async def test_a_time_that_is_none_is_refused_in_words(place: Place) -> None:
    async with place.client() as client:
        await log_in(client, place.token(role="auditor"))
        page = await client.get("/console/audit?since=yesterday")

    assert page.status_code == 400
    assert "from is a time, for example 2026-05-01T12:00" in page.text
