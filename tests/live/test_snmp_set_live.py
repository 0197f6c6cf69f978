"""net-snmp's agent is set, by community and by user: what it has and what the kernel does is what was asked for."""

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest
from peers import lacking, peer
from test_snmp_polling_live import Snmpd

from convergedon.adapters.contract import Device, Intent
from convergedon.adapters.snmp import create
from convergedon.adapters.transaction import perform
from convergedon.core import settings

pytestmark = pytest.mark.live

WRITER = {"user": "writer", "authKey": "writer-auth-phrase", "privKey": "writer-priv-phrase"}
READER = {"user": "reader", "authKey": "reader-auth-phrase", "privKey": "reader-priv-phrase"}
CONF = (
    "rwcommunity private\nrocommunity public\n"
    "createUser writer SHA-256 writer-auth-phrase AES writer-priv-phrase\nrwuser writer priv\n"
    "createUser reader SHA-256 reader-auth-phrase AES reader-priv-phrase\nrouser reader priv\n"
)


class Settable(Snmpd):
    async def start(self) -> None:
        conf = self.folder / "snmpd.conf"
        conf.write_text(f"agentAddress udp:127.0.0.1:{self.port}\n{CONF}")
        words = ("-f", "-Lf", str(self.folder / "log"), "-C", "-c", str(conf), "-p", str(self.folder / "pid"))
        own = os.environ | {"MIBS": "", "SNMP_PERSISTENT_DIR": str(self.folder)}
        self.process = await asyncio.create_subprocess_exec(peer("snmpd"), *words, env=own)


@pytest.fixture
async def agent(tmp_path):
    agent = Settable(tmp_path)
    await agent.start()
    yield agent
    if agent.process.returncode is None:
        await agent.stop()


@pytest.fixture
async def at(agent, tmp_path):
    """An adapter for the agent, reached by what is given."""
    open_ = []

    async def at(**given):
        snmp = {"host": "127.0.0.1", "port": agent.port, "set": True, **given}
        adapter = create(
            settings.load(trap_port=0, data=tmp_path), {"sw1": Device("sw1", "a", "192.0.2.1", {"snmp": snmp})}
        )
        await adapter.start(_ignore)
        open_.append(adapter)
        async with asyncio.timeout(30):
            while not await _answers(adapter):
                await asyncio.sleep(0.05)
        return adapter

    yield at
    for adapter in open_:
        await adapter.stop()


async def _ignore(observation):
    return None


async def _answers(adapter):
    try:
        return await adapter.capabilities("sw1")
    except Exception as error:
        return "let" in str(error)  # it answers, and does not let us in


def intent(service, instance, values, key="k"):
    return Intent(key, "a", "sw1", service, instance, values, time.time() + 60)


@pytest.fixture
def link():
    """Two ends of a line in the kernel, both off; made before the agent, which looks for new ones now and then."""
    name = f"snmp{os.getpid() % 10_000}"
    made = subprocess.run(
        [peer("ip"), "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], capture_output=True
    )
    if made.returncode:
        lacking(f"no line can be made here: {made.stderr.decode().strip()}")
    yield name
    subprocess.run([peer("ip"), "link", "del", name], check=True)


def is_up(name):
    return int(Path(f"/sys/class/net/{name}/flags").read_text(), 16) & 1 == 1


@pytest.mark.parametrize("given", [{"community": "private"}, WRITER], ids=["community", "user"])
async def test_an_interface_is_switched_on_and_off_in_the_kernel(link, at, given):
    adapter = await at(**given)
    on = await perform(adapter, intent("port", link, {"state": "up"}))
    was_on, again = is_up(link), await perform(adapter, intent("port", link, {"state": "up"}))
    off = await perform(adapter, intent("port", link, {"state": "down"}))

    assert (on.status, again.status, off.status) == ("applied", "unchanged", "applied"), (on, again, off)
    assert on.diff == {"state": ("down", "up")}
    assert (was_on, is_up(link)) == (True, False)


async def test_what_was_there_is_back_when_it_is_taken_back(at):
    adapter = await at(**WRITER)
    first = intent("system", "", {"contact": "the night shift", "location": "row 7"})
    assert (await perform(adapter, first)).status == "applied"
    change = await adapter.prepare(intent("system", "", {"contact": "nobody", "location": "row 8"}))
    await adapter.commit(change)
    between = await adapter.observe(first)
    missing = await adapter.rollback(change)
    await adapter.release(change)

    assert between["contact"] == "nobody"
    assert missing == []
    assert {**await adapter.observe(first), "name": ""} == {**first.values, "name": ""}


async def test_a_value_that_the_agent_does_not_take_is_refused_in_its_word(link, at, tmp_path):
    """All of a set is left undone, and the word is net-snmp's."""
    (tmp_path / "snmp.yaml").write_text(
        "notifications: {}\n"
        "services:\n"
        "  odd:\n"
        "    instance: interface\n"
        "    leaves:\n"
        "      state: {object: IF-MIB::ifAdminStatus, type: integer}\n"
        "      mtu: {object: IF-MIB::ifMtu, type: integer}\n"
    )
    reached = await at(**WRITER)
    snmp = reached._named["sw1"].settings
    adapter = create(
        settings.load(trap_port=0, data=tmp_path, mappings=tmp_path), {"sw1": Device("sw1", "a", "192.0.2.1", snmp)}
    )
    await adapter.start(_ignore)
    wrong = await perform(adapter, intent("odd", link, {"state": 7}))
    fixed = await perform(adapter, intent("odd", link, {"state": 1, "mtu": 1400}))
    await adapter.stop()

    assert (wrong.status, wrong.reason) == ("refused", "value")
    assert "wrongValue" in wrong.words
    assert (fixed.status, fixed.reason) == ("refused", "value")
    assert "notWritable" in fixed.words
    assert not is_up(link)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (READER, "may not write"),
        ({"community": "public"}, "may not write"),
        ({**WRITER, "authKey": "some wrong phrase"}, "WrongDigest"),
        ({**WRITER, "user": "nobody"}, "UnknownUserName"),
    ],
)
async def test_who_may_not_is_told_so_and_nothing_is_changed(at, given, words):
    adapter = await at(**given)
    outcome = await perform(adapter, intent("system", "", {"contact": "us"}))

    assert not outcome.done
    assert outcome.reason == "credentials"
    assert words in outcome.words
    assert "phrase" not in outcome.words


async def test_an_agent_that_ends_is_unreachable_and_the_intent_is_done_when_it_is_back(at, agent):
    adapter = await at(**WRITER, timeout=0.2)
    await agent.stop()
    away = await perform(adapter, intent("system", "", {"contact": "us"}))
    await agent.start()
    async with asyncio.timeout(30):
        while not (back := await perform(adapter, intent("system", "", {"contact": "us"}))).done:
            await asyncio.sleep(0.1)

    assert (away.status, away.reason) == ("unknown", "unreachable")
    assert back.status == "applied"
