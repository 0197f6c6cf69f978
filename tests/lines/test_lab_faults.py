"""`convergedon lab fault` on a system that runs: what an operator tries before the network does it by itself."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from test_whole_system import up

from convergedon.adapters.lab import FAULTS, Lab, Receivers
from convergedon.adapters.labcontrol import FILE, Control, ask
from convergedon.core import cli
from convergedon.core import up as up_system
from convergedon.core.commands.lab import LAB_FAULTS
from convergedon.core.errors import Invalid, NotFound, Unavailable
from convergedon.core.settings import load
from convergedon.core.tokens import issue

BERLIN = {"berlin-1": "ge-0/0/1", "berlin-2": "ge-0/0/2"}
HAMBURG = ("hamburg-1", 300, 800)
"""An access on pe2, which looks at one packet in 100; nobody does anything else to that."""
PATIENCE = 50.0


class Operator:
    """Somebody with a terminal and a token."""

    def __init__(self, data: Path, client: httpx.Client) -> None:
        self._data, self._client = data, client
        self._orders = 0

    def lab(self, *arguments: str) -> str:
        found = CliRunner().invoke(cli.main, ["lab", *arguments, "--data", str(self._data)])
        assert found.exit_code == 0, found.output
        return found.output.strip()

    def order(self, site: str, vlan: int, bandwidth: int = 80) -> dict[str, Any]:
        """An order, once it has ended."""
        values = {"bandwidth": bandwidth, "vlan": vlan, "site": site}
        given = [{"name": name, "value": value} for name, value in values.items()]
        item = {"id": "1", "action": "add", "productOffering": {"id": "internet-access"}}
        parties = [{"id": "northwind", "role": "customer", "@referredType": "Organization"}]
        body = {
            "relatedParty": parties,
            "productOrderItem": [{**item, "product": {"productCharacteristic": given}}],
        }
        made = self._client.post("/tmf-api/productOrderingManagement/v4/productOrder", json=body)
        assert made.status_code == 201, made.text
        url = f"/tmf-api/productOrderingManagement/v4/productOrder/{made.json()['id']}"
        return self.until(lambda: (found := self._read(url))["state"] in ("completed", "failed", "partial") and found)

    def alarms(self, **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._read("/tmf-api/alarmManagement/v4/alarm", **query)
        return found

    def told(self, party: str, order: str) -> list[dict[str, Any]]:
        """What a customer was told of its order, as it reads that itself."""
        token = issue(load(data=self._data), "acme", "customer", party)
        url = f"{self._client.base_url}/convergedon-api/customerNotification/v1/customerNotification"
        answer = httpx.get(url, params={"productOrder.id": order}, headers={"Authorization": f"Bearer {token}"})
        assert answer.is_success, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    def figure(self, name: str, period: str) -> dict[str, Any]:
        (found,) = self._read("/convergedon-api/figure/v1/figure", name=name, period=period)
        return dict(found)

    def usage(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._read("/tmf-api/usageManagement/v4/usage")
        return found

    def until(self, ask: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while not (found := ask()):
            assert time.monotonic() < end, "it did not become so"
            time.sleep(0.05)
        return found

    def _read(self, url: str, **query: str) -> Any:
        answer = self._client.get(url, params=query)
        assert answer.is_success, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    data = tmp_path_factory.mktemp("lab")
    with up(data) as (_, printed):
        command = [sys.executable, "-P", "-m", "convergedon.core.cli", "token", "--tenant", "acme", "--role", "admin"]
        token = subprocess.run([*command, "--data", str(data)], capture_output=True, text=True, check=True).stdout
        with httpx.Client(
            base_url=printed["gateway"], headers={"Authorization": f"Bearer {token.strip()}"}, timeout=30
        ) as client:
            operator = Operator(data, client)
            operator.order(*HAMBURG)  # while the tests go on it is used, and the last looks at what was exported
            yield operator


def of_port(operator: Operator, port: str, state: str) -> list[dict[str, Any]]:
    return [
        alarm
        for alarm in operator.alarms(state=state, specificProblem="linkDown")
        if port in json.dumps(alarm["alarmedObject"]) and "pe1" in json.dumps(alarm["alarmedObject"])
    ]


def test_a_customer_answers_by_the_link_and_the_figure_counts_it(operator: Operator) -> None:
    """With the link alone; the same link again replaces the answer."""
    order = operator.order("berlin-2", 210)
    before = operator.figure("nps", "P1D")
    (note,) = operator.until(lambda: operator.told("northwind", order["id"]))
    page = httpx.get(note["surveyLink"], headers={"Accept": "text/html"})
    thanks = httpx.post(note["surveyLink"], data={"score": "9"}, headers={"Accept": "text/html"})
    again = httpx.post(note["surveyLink"], json={"score": 10})
    forged = httpx.post(f"{note['surveyLink'][:-1]}", json={"score": 0})
    after = operator.figure("nps", "P1D")

    assert order["id"] in page.text
    assert [one.status_code for one in (page, thanks, again, forged)] == [200, 200, 200, 404]
    assert ("value" in before, before["count"]) == (False, 0)
    assert (after["value"], after["count"], after["note"]) == (100, 1, "1 answer in the last 24 hours")


def test_a_link_that_is_taken_down_raises_an_alarm_and_carries_no_order(operator: Operator) -> None:
    """And all of that ends when the link is back."""
    port = BERLIN["berlin-1"]
    assert operator.lab("fault", "pe1", "ifdown", port) == f"{port} of pe1 is down"
    raised = operator.until(lambda: of_port(operator, port, "raised"))
    refused = operator.order("berlin-1", 201)
    again = operator.lab("fault", "pe1", "ifdown", port)
    operator.lab("fault", "pe1", "ifup", port)
    operator.until(lambda: not of_port(operator, port, "raised"))
    done = operator.order("berlin-1", 202)

    assert raised[0]["perceivedSeverity"] == "major"
    assert refused["state"] == "failed"
    assert "leaf oper-bandwidth: wanted 80, found 0" in json.dumps(refused["note"])
    assert again == f"{port} of pe1 was down already"
    assert done["state"] == "completed"


def test_a_link_that_flaps_is_one_alarm_that_is_cleared(operator: Operator) -> None:
    port = BERLIN["berlin-2"]
    before = len(of_port(operator, port, "cleared"))

    said = operator.lab("fault", "pe1", "flap", port, "--turns", "3")  # one more, and the alarm would stay open
    operator.until(lambda: len(of_port(operator, port, "cleared")) > before and not of_port(operator, port, "raised"))

    assert said.startswith(f"{port} of pe1 went down and up 3 times")


def test_a_commit_that_is_refused_fails_the_order_in_the_elements_words(operator: Operator) -> None:
    operator.lab("fault", "pe1", "refuse-commit")
    refused = operator.order("berlin-2", 203)
    next_one = operator.order("berlin-2", 204)

    assert refused["state"] == "failed"
    assert "the element was told to refuse this commit" in json.dumps(refused["note"])
    assert next_one["state"] == "completed"


def test_a_slow_element_is_waited_for(operator: Operator) -> None:
    operator.lab("fault", "pe1", "slow")
    done = operator.order("berlin-2", 205)
    mended = operator.lab("fault", "pe1", "mend")

    assert done["state"] == "completed"
    assert mended == "pe1 is as it should be"


def test_an_element_that_restarts_says_so_and_goes_on(operator: Operator) -> None:
    operator.lab("fault", "pe1", "reboot")
    operator.until(lambda: operator.alarms(probableCause="reinitialized", state="raised"))
    done = operator.order("berlin-2", 206)

    assert done["state"] == "completed"


def test_a_change_that_makes_it_worse_is_an_alarm_somewhere_else(operator: Operator) -> None:
    """The order is done as it was asked for, and another link of the element goes down with it."""
    port = BERLIN["berlin-1"]
    said = operator.lab("fault", "pe1", "worse", port)
    done = operator.order("berlin-2", 208)
    raised = operator.until(lambda: of_port(operator, port, "raised"))
    operator.lab("fault", "pe1", "mend")
    operator.until(lambda: not of_port(operator, port, "raised"))

    assert said == f"the next change of pe1 takes {port} down, until what is there now is there again"
    assert done["state"] == "completed"
    assert raised[0]["perceivedSeverity"] == "major"


def test_what_an_access_carries_by_itself_is_usage_at_its_bandwidth_and_priced_once(operator: Operator) -> None:
    """As it was started: the lab exports every 15 seconds to another process, and a third makes usage of it.

    The first export is of less time than it says: the access was not there at its beginning.
    """

    def exported() -> list[dict[str, Any]]:
        found = [one for one in operator.usage() if one["usageType"] == "ip-traffic" and one["status"] == "rated"]
        said = [{**one, **{each["name"]: each["value"] for each in one["usageCharacteristic"]}} for one in found]
        return sorted((one for one in said if one["address"] == "10.3.1.44"), key=lambda one: one["start"])

    first, *usages = operator.until(lambda: len(found := exported()) > 1 and found)
    asked = ["usage", "sources", "--tenant", "acme", "--data", str(operator._data)]
    of_one, of_all = (CliRunner().invoke(cli.main, [*asked, *more]).output for more in ([usages[0]["id"]], ["--json"]))
    spans = [[datetime.fromisoformat(one[end]).timestamp() for end in ("start", "end")] for one in (first, *usages)]

    for one, (start, end) in zip(usages, spans[1:], strict=True):
        for way in ("octetsDown", "octetsUp"):
            assert one[way] == pytest.approx(800 * 125_000 * 0.5 * (end - start), rel=0.02)
        priced = {part["usageRatingTag"]: part["taxExcludedRatingAmount"]["value"] for part in one["ratedProductUsage"]}
        assert priced == {
            "download": pytest.approx(one["octetsDown"] * 0.08 / 1e9, rel=0.001),
            "upload": pytest.approx(one["octetsUp"] * 0.04 / 1e9, rel=0.001),
        }
    assert all(before[1] == after[0] for before, after in pairwise(spans)), "nothing is counted twice, nor left out"
    assert "  pe2 (flow): 1 observation, 2 records, sampled 1 in 100\n  these come to the same\n" in of_one
    (service,) = {one["ratedProductUsage"][0]["productRef"]["id"] for one in usages}
    compared = {one["service"]: one for one in map(json.loads, of_all.splitlines())}
    assert "ip-traffic" in {source["usageType"] for source in compared[service]["sources"]}


def test_flows_match_the_bandwidth_that_is_configured(operator: Operator) -> None:
    """Half of it is used, in each direction: what the customer's usage says is that.

    The element exports nothing of itself meanwhile, so that the usage is of these records alone.
    """
    asyncio.run(ask(operator._data / "lab", command="quiet", seconds=60))
    assert operator.order("berlin-2", 207, bandwidth=160)["state"] == "completed"
    said = operator.lab("traffic", "pe1", "--seconds", "10")
    octets = str(int(160 * 125_000 * 0.5 * 10))
    (usage,) = operator.until(lambda: [one for one in operator.usage() if octets in json.dumps(one)])
    asked = ["usage", "sources", usage["id"], "--tenant", "acme", "--data", str(operator._data)]
    sources = CliRunner().invoke(cli.main, asked).output.splitlines()

    assert "flow records (simulated)" in said
    assert sources[1:] == ["  pe1 (flow): 1 observation, 2 records", "  these come to the same"]


def test_a_hangup_has_all_adapters_read_devices_and_mappings_again(operator: Operator) -> None:
    """Sent to `convergedon up`, which goes on; what is wrong in a file would be told by each of them."""

    def read_again() -> dict[str, float]:
        found = CliRunner().invoke(cli.main, ["adapter", "health", "--json", "--data", str(operator._data)])
        counted = "convergedon_adapter_reloads_total,result=done"
        return {one["adapter"]: one["told"]["metrics"].get(counted, 0) for one in json.loads(found.output)}

    before = read_again()
    pid = json.loads((operator._data / "run" / "connection.json").read_text())["pid"]
    os.kill(pid, signal.SIGHUP)
    operator.until(lambda: all(count > before[name] for name, count in read_again().items()))

    assert set(before) == {"file", "flow", "netconf", "snmp"}
    assert up_system.find(operator._data)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fault", "pe9", "reboot"], "the lab has no device pe9; it has pe1, pe2, pe3"),
        (["fault", "pe1", "ifdown"], "ifdown needs an interface: ge-0/0/1, ge-0/0/2"),
        (["fault", "pe1", "ifdown", "eth0"], "pe1 has no interface eth0"),
        (["fault", "pe1", "reboot", "ge-0/0/1"], "reboot is of the whole element"),
        (["fault", "pe1", "burn"], "'burn' is not one of"),
        (["fault", "pe1", "flap", "ge-0/0/1", "--turns", "0"], "0 is not in the range 1<=x<=100"),
        (["fault", "pe1", "reboot", "--turns", "2"], "--turns is of flap: reboot happens once"),
    ],
)
def test_what_the_lab_cannot_do_is_refused_in_a_sentence(arguments: list[str], words: str, operator: Operator) -> None:
    found = CliRunner().invoke(cli.main, ["lab", *arguments, "--data", str(operator._data)])

    assert found.exit_code != 0
    assert words in found.output


# --- the way to it


async def test_only_who_reads_the_labs_folder_commands_it(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    lab = Lab(folder)
    await lab.start()
    control = Control(lab, folder)
    await control.start()
    mode = os.stat(folder / FILE).st_mode & 0o777
    told = json.loads((folder / FILE).read_text())
    mended = await ask(folder, command="fault", device="pe1", kind="mend", interface="")
    (folder / FILE).write_text(json.dumps({**told, "token": "guessed"}))
    with pytest.raises(Invalid, match="not the token of this lab"):
        await ask(folder, command="fault", device="pe1", kind="mend", interface="")
    await control.stop()
    await lab.stop()

    assert mode == 0o600
    assert mended == "pe1 is as it should be"
    with pytest.raises(Unavailable, match=r"no lab runs on .*: start it with convergedon up --lab"):
        await ask(folder, command="fault", device="pe1", kind="mend", interface="")


def test_the_command_offers_the_faults_that_there_are() -> None:
    assert set(LAB_FAULTS) == set(FAULTS)


async def test_without_receivers_nothing_is_sent_and_that_is_said(tmp_path: Path) -> None:
    lab = Lab(tmp_path, lambda: Receivers(("127.0.0.1", 9), ("127.0.0.1", 9), "public"))

    assert lab.traffic("pe1", 10) == "pe1 exported 0 flow records (simulated)"
    with pytest.raises(NotFound, match="no device pe7"):
        lab.traffic("pe7", 10)
    with pytest.raises(Unavailable, match="nobody receives"):
        await Lab(tmp_path).fault("pe1", "ifdown", "ge-0/0/1")
