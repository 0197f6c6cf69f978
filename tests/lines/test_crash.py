"""Any process may die at any moment: nothing that was acknowledged is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from convergedon.adapters import lab
from convergedon.adapters.snmp.lab import inform_link, trap_link
from convergedon.core import settings, tokens, up
from convergedon.core.app import connected
from convergedon.core.commands.system import adapter_names
from convergedon.core.errors import Unavailable
from convergedon.demo import past
from tests.lines.listener import listening

ORDERING = "/tmf-api/productOrderingManagement/v4"
ALARMS = "/tmf-api/alarmManagement/v4"
NOTIFICATIONS = "/convergedon-api/customerNotification/v1"
SITES = {"berlin-1": "pe1", "berlin-2": "pe1", "hamburg-1": "pe2"}
ORDERS, TRAPS = 50, 500
VICTIMS = ("gateway", "worker-1", "worker-2", "netconf", "snmp", "flow", "file", "nats", "mongodb")
BATCH = ORDERS // (len(VICTIMS) + 1)
FINAL = {"completed", "failed", "partial", "cancelled", "rejected"}


def order(number: int) -> dict[str, Any]:
    site = list(SITES)[number % 3]
    characteristics = {"bandwidth": 10 + number, "vlan": 100 + number, "site": site}
    return {
        "externalId": f"crash-{number}",
        "relatedParty": [{"id": "northwind", "role": "customer", "@referredType": "Organization"}],
        "productOrderItem": [
            {
                "id": "1",
                "action": "add",
                "productOffering": {"id": "internet-access"},
                "product": {
                    "productCharacteristic": [{"name": name, "value": value} for name, value in characteristics.items()]
                },
            }
        ],
    }


class Operator:
    """Orders and traps go in at their own pace, while processes are killed."""

    def __init__(self, system: up.System, given: settings.Settings) -> None:
        self.system, self.settings = system, given
        self.headers = {"Authorization": f"Bearer {tokens.issue(given, 'acme', 'admin')}"}
        self.client = httpx.AsyncClient(base_url=system.connection.gateway, timeout=20, headers=self.headers)
        self.accepted: list[str] = []
        self.progress = asyncio.Condition()
        self.killed: list[str] = []

    async def tell(self) -> None:
        async with self.progress:
            self.progress.notify_all()

    async def place(self) -> None:
        """Until so many are acknowledged: some before each kill, so that they are under way, the next while it is down.

        One that was not acknowledged may be stored all the same, so each attempt has a VLAN of its own.
        """
        for attempt in count():
            if len(self.accepted) == ORDERS:
                return
            async with self.progress:
                await self.progress.wait_for(lambda: len(self.killed) >= min(len(VICTIMS), len(self.accepted) // BATCH))
            try:
                answer = await self.client.post(f"{ORDERING}/productOrder", json=order(attempt))
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
                continue
            if answer.status_code == 201:
                self.accepted.append(answer.json()["id"])
                await self.tell()
            else:
                assert answer.status_code == 503, answer.text
                await asyncio.sleep(0.1)

    async def trap(self) -> int:
        """Every tenth is an inform, which is sent until it is answered; the number of those is returned."""
        host, port = self.system.connection.trap.split(":")
        informed = 0
        for number in range(TRAPS):
            element, interface = list(SITES.values())[number % 3], list(lab.INTERFACES)[number % 2]
            index = number % 2 + 1
            if number % 10:
                trap_link("down", lab.address(element), interface, index, "public", (host, int(port)))
                await asyncio.sleep(0.04)
            else:
                await inform_link(
                    "down", lab.address(element), interface, index, "public", (host, int(port)), patience=0.5, tries=60
                )
                informed += 1
        return informed

    async def kill(self) -> None:
        """Kill each component once, in turn, as the orders go on; wait until it is ready again before the next."""
        for number, victim in enumerate(VICTIMS, 1):
            async with self.progress:
                await self.progress.wait_for(lambda number=number: len(self.accepted) >= number * BATCH)
            component = self.system.supervisor.components[victim]
            os.kill(component.pid, signal.SIGKILL)
            restarts = component.restarts
            self.killed.append(victim)
            await self.tell()
            async with asyncio.timeout(60):
                while not (component.restarts > restarts and component.state == "ready"):
                    await asyncio.sleep(0.05)

    async def orders(self) -> list[dict[str, Any]]:
        answer = await self.client.get(f"{ORDERING}/productOrder")
        return answer.json() if answer.status_code == 200 else []

    async def settled(self) -> list[dict[str, Any]]:
        async with asyncio.timeout(120):
            while True:
                try:
                    found = await self.orders()
                except httpx.HTTPError:
                    found = []
                if found and {one["state"] for one in found} <= FINAL:
                    return found
                await asyncio.sleep(0.2)


def configured(data: Path) -> dict[str, dict[str, str]]:
    """What the elements keep: access name -> leaves. They are asked over NETCONF, not through our adapter."""
    found = {}
    for device in yaml.safe_load((data / "lab" / "devices.yaml").read_text())["devices"].values():
        with past.session(device["netconf"]) as session:
            found |= past.accesses(session.get_config("running").data_ele)
    return found


@pytest.mark.crash
@pytest.mark.timeout(400)
async def test_nothing_acknowledged_is_lost_whoever_is_killed(tmp_path: Path) -> None:
    given = settings.load(data=tmp_path, port=0, trap_port=0, flow_port=0, retry_horizon=600)
    async with listening() as listener, up.system(given, lab=True, workers=2, adapters=adapter_names()) as system:
        operator = Operator(system, given)
        for base, who in ((ORDERING, "vendor"), (NOTIFICATIONS, "northwind")):
            answer = await operator.client.post(f"{base}/hub", json={"callback": f"{listener.url}/{who}"})
            assert answer.status_code == 201, answer.text

        _, informed, _ = await asyncio.gather(operator.place(), operator.trap(), operator.kill())
        orders = await operator.settled()
        counted, stored = await reported(given, system)
        told = await notifications(operator)
        await listener.until(lambda received: told <= {id_of(one) for one in received}, 60)
        finished = {one["id"] for one in orders if one["state"] == "completed"}
        await listener.until(lambda received: finished <= completed_told(received), 60)
        on_devices = await asyncio.to_thread(configured, tmp_path)
        await operator.client.aclose()

    assert operator.killed == list(VICTIMS)
    by_id = {one["id"]: one for one in orders}
    assert set(operator.accepted) <= by_id.keys()
    completed = {id: one for id, one in by_id.items() if one["state"] == "completed"}
    assert completed.keys() >= set(operator.accepted), [by_id[id].get("note") for id in by_id.keys() - completed.keys()]
    assert on_devices.keys() == {f"{id}-1" for id in completed}
    for id, one in completed.items():
        wanted = {c["name"]: c["value"] for c in one["productOrderItem"][0]["product"]["productCharacteristic"]}
        assert on_devices[f"{id}-1"]["bandwidth"] == str(wanted["bandwidth"])
        assert on_devices[f"{id}-1"]["vlan-id"] == str(wanted["vlan"])
    assert counted == stored
    assert sum(stored.values()) >= informed
    once(listener.received)
    assert completed_told(listener.received) == completed.keys()


def id_of(one: dict[str, Any]) -> str:
    return str(next(iter(one["event"]["event"].values()))["id"])


def completed_told(received: list[dict[str, Any]]) -> set[str]:
    """The orders of which the last news is that they are completed; what comes again by its eventId is no news."""
    news: dict[str, dict[str, Any]] = {}
    for one in received:
        news.setdefault(one["event"]["eventId"], one["event"])
    last = {
        event["event"]["productOrder"]["id"]: event["event"]["productOrder"]["state"]
        for event in news.values()
        if event["eventType"] == "ProductOrderStateChangeEvent"
    }
    return {id for id, state in last.items() if state == "completed"}


def once(received: list[dict[str, Any]]) -> None:
    """The same thing told again carries the same eventId: one CreateEvent for each notification."""
    events: dict[str, set[str]] = {}
    for one in received:
        if one["event"]["eventType"] == "CustomerNotificationCreateEvent":
            events.setdefault(id_of(one), set()).add(one["event"]["eventId"])
    assert {id: ids for id, ids in events.items() if len(ids) > 1} == {}


async def notifications(operator: Operator) -> set[str]:
    """All that customers are to be told, once every order and alarm has been looked at."""
    wanted = {"orderCompleted", "serviceAffected"}
    async with asyncio.timeout(60):
        while True:
            answer = await operator.client.get(f"{NOTIFICATIONS}/customerNotification")
            found = answer.json()
            ordered = sum(one["notificationType"] == "orderCompleted" for one in found)
            if ordered >= len(operator.accepted) and wanted & {one["notificationType"] for one in found}:
                return {one["id"] for one in found}
            await asyncio.sleep(0.2)


async def reported(given: settings.Settings, system: up.System) -> tuple[Counter[str], Counter[str]]:
    """For each condition: how often its alarm counted, and how often it was told of in the stream."""
    connection = system.connection
    reach = {"nats_url": connection.nats, "mongodb_url": connection.mongodb}
    async with connected(
        settings.load(**{**given.model_dump(exclude={"nats_url", "mongodb_url"}), **reach}), "test"
    ) as (
        store,
        bus,
    ):
        async with asyncio.timeout(60):
            while True:
                try:
                    messages = await bus.read("network.>")
                    parts = [part for body in messages for part in body.get("observations", [body])]
                    seen = [part["observation"] for part in parts if "observation" in part]
                    alarms = await store.find("alarm", {})
                except Unavailable:
                    continue
                faults = [one for one in seen if one["kind"] in ("fault", "unmapped")]  # not what the lab's ports carry
                stored = Counter(f"{one['device']}|{one['key']}" for one in faults)
                counted: Counter[str] = Counter()
                for alarm in alarms:
                    counted[alarm.facts["key"]] += alarm.facts["count"]
                if counted == stored and len(alarms) == len(stored):
                    return counted, stored
                await asyncio.sleep(0.3)


def test_every_component_is_a_victim(tmp_path: Path) -> None:
    """A role that is added is killed too."""
    given = settings.load(data=tmp_path, port=0)
    children = {child.name for child in up.plan(given, lab=False, workers=2, adapters=adapter_names())}

    assert children == set(VICTIMS)
