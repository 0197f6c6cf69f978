"""net-snmp's agent is set, by community and by user: what it has and what the kernel does is what was asked for."""

import asyncio
import os
import subprocess
import time
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import replace
from pathlib import Path

import pytest
from peers import lacking, peer
from test_snmp_polling_live import Heard, Snmpd

from convergedon.adapters.contract import Device, Intent
from convergedon.adapters.snmp import agent, create, recording, usm
from convergedon.adapters.snmp.trial import RECORDED
from convergedon.adapters.transaction import perform
from convergedon.core import settings
from convergedon.core.errors import CredentialsRefused

pytestmark = pytest.mark.live

WRITER = {"user": "writer", "authKey": "writer-auth-phrase", "privKey": "writer-priv-phrase"}
READER = {"user": "reader", "authKey": "reader-auth-phrase", "privKey": "reader-priv-phrase"}
CONTACT = "1.3.6.1.2.1.1.4.0"
PLAIN = {"user": "plain", "authProtocol": "SHA", "authKey": "plain-auth-phrase"}
NOBODY = {"user": "nobodys"}
WAYS = {
    "version 1": {"community": "private", "version": "1"},
    "version 2c": {"community": "private"},
    "authPriv": WRITER,
    "authNoPriv": PLAIN,
    "noAuthNoPriv": NOBODY,
}
CONF = (
    "rwcommunity private\nrocommunity public\n"
    "createUser writer SHA-256 writer-auth-phrase AES writer-priv-phrase\nrwuser writer priv\n"
    "createUser reader SHA-256 reader-auth-phrase AES reader-priv-phrase\nrouser reader priv\n"
    "createUser plain SHA plain-auth-phrase\nrwuser plain auth\n"
    "createUser nobodys\nrwuser nobodys noauth\n"
)


class Settable(Snmpd):
    def __init__(self, folder: Path, conf: str = CONF) -> None:
        super().__init__(folder)
        self.conf = conf

    async def start(self) -> None:
        conf = self.folder / "snmpd.conf"
        conf.write_text(f"agentAddress udp:127.0.0.1:{self.port}\n{self.conf}")
        words = ("-f", "-Lf", str(self.folder / "log"), "-C", "-c", str(conf), "-p", str(self.folder / "pid"))
        own = os.environ | {"MIBS": "", "SNMP_PERSISTENT_DIR": str(self.folder)}
        self.process = await asyncio.create_subprocess_exec(peer("snmpd"), *words, env=own)


@pytest.fixture
async def snmpd(tmp_path):
    snmpd = Settable(tmp_path)
    await snmpd.start()
    yield snmpd
    if snmpd.process.returncode is None:
        await snmpd.stop()


@pytest.fixture
async def at(snmpd, tmp_path):
    """An adapter for the agent, reached by what is given."""
    open_ = []

    async def at(**given):
        snmp = {"host": "127.0.0.1", "port": snmpd.port, "set": True, **given}
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


async def _answers(adapter, device="sw1"):
    try:
        return await adapter.capabilities(device)
    except Exception as error:
        return isinstance(error, CredentialsRefused)  # it answers, and does not let us in


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


async def test_an_interface_is_switched_in_the_kernel_and_must_do_so(link, at):
    """On is seen only once somebody is at the other end of the line; until then it is switched off again."""
    adapter = await at(**WRITER)
    alone = await perform(adapter, replace(intent("port", link, {"state": "up"}), deadline=time.time() + 1))
    was_off = not is_up(link)
    subprocess.run([peer("ip"), "link", "set", f"{link}p", "up"], check=True)
    on = await perform(adapter, intent("port", link, {"state": "up"}))
    was_on, again = is_up(link), await perform(adapter, intent("port", link, {"state": "up"}))
    off = await perform(adapter, intent("port", link, {"state": "down"}))

    assert (alone.status, alone.reason) == ("rolledBack", "verification"), alone
    assert "operStatus" in alone.words
    assert (on.status, again.status, off.status) == ("applied", "unchanged", "applied"), (on, again, off)
    assert on.diff == {"state": ("down", "up")}
    assert (was_off, was_on, is_up(link)) == (True, True, False)


@pytest.mark.parametrize("given", WAYS.values(), ids=WAYS)
async def test_it_is_set_by_each_version_and_level(at, given):
    """Version 1 has no word for what version 2 calls notWritable, and the rest is the same."""
    adapter = await at(**given)
    done = await perform(adapter, intent("system", "", {"contact": "the night shift"}))
    again = await perform(adapter, intent("system", "", {"contact": "the night shift"}))

    assert (done.status, again.status) == ("applied", "unchanged"), (done, again)
    assert (await adapter.observe(intent("system", "", {})))["contact"] == "the night shift"


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
        ({"user": "writer", "authKey": WRITER["authKey"]}, "authorizationError"),
        ({"user": "writer"}, "authorizationError"),
        ({"user": "plain"}, "authorizationError"),
    ],
)
async def test_who_may_not_is_told_so_and_nothing_is_changed(at, given, words):
    adapter = await at(**given)
    outcome = await perform(adapter, intent("system", "", {"contact": "us"}))

    assert not outcome.done
    assert outcome.reason == "credentials"
    assert words in outcome.words
    assert "phrase" not in outcome.words


async def test_version_1_does_not_say_who_may_not_and_the_words_say_that(at):
    adapter = await at(community="public", version="1")
    outcome = await perform(adapter, intent("system", "", {"contact": "us"}))

    assert (outcome.status, outcome.reason) == ("refused", "value")
    assert "noSuchName" in outcome.words
    assert "not by this community" in outcome.words


READ = ("-v", "1", "-c", "public")
OURS = usm.User("ours", frozenset(), "SHA-256", "ours-auth-phrase")
BOTH = usm.User("both", frozenset(), "SHA", "both-auth-phrase", "AES", "both-priv-phrase")


def user(name, level, auth="SHA"):
    return ("-v", "3", "-u", name, "-l", level, "-a", auth, "-A", f"{name}-auth-phrase",
            "-x", "AES", "-X", f"{name}-priv-phrase")  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-v", "1", "-c", "private"), ""),
        (("-v", "2c", "-c", "private"), ""),
        (user("ours", "authNoPriv", "SHA-256"), ""),
        (user("both", "authPriv"), ""),
        (READ, "noSuchName"),
        (("-v", "2c", "-c", "public"), "noAccess"),
        (user("both", "authNoPriv"), "Unsupported security level"),
        (user("both", "noAuthNoPriv"), "Unsupported security level"),
        (user("ours", "noAuthNoPriv"), "Unsupported security level"),
    ],
    ids=lambda given: " ".join(given[:4]) if isinstance(given, tuple) else "",
)
async def test_our_agent_is_set_by_net_snmp(tmp_path, words, told):
    """By each version and level; who is below the level of its user sets nothing, and is told why."""
    may = agent.Access((b"public", b"private"), (OURS, BOTH), frozenset({b"private", b"ours", b"both"}))
    ours = agent.Agent(recording.Recording(recording.read(RECORDED)), may)
    port = await ours.start()
    own = os.environ | {"MIBS": "", "SNMP_PERSISTENT_DIR": str(tmp_path), "SNMPCONFPATH": str(tmp_path)}
    command = (peer("snmpset"), "-r", "0", "-t", "5", *words, f"127.0.0.1:{port}", CONTACT, "s", "us")
    process = await asyncio.create_subprocess_exec(*command, env=own, stdout=DEVNULL, stderr=PIPE)
    _, said = await asyncio.wait_for(process.communicate(), 20)
    await ours.stop()

    assert told in said.decode()
    assert (process.returncode == 0) == (not told), said
    assert ours.objects.value(tuple(map(int, CONTACT.split("."))))[1] == (b"" if told else b"us")


async def test_devices_have_users_of_one_name_each_with_keys_of_its_own(tmp_path):
    """Both are set, read and polled beside each other, each by the keys that the devices file has for it."""
    agents, devices, heard = {}, {}, Heard()
    for name, keys in (("sw1", ("SHA-256", "AES")), ("sw2", ("SHA-512", "AES"))):
        auth, priv = (f"{name} {each} phrase" for each in ("auth", "priv"))
        (tmp_path / name).mkdir()
        conf = f'createUser twin {keys[0]} "{auth}" {keys[1]} "{priv}"\nrwuser twin priv\nsysName {name}\n'
        agents[name] = Settable(tmp_path / name, conf)
        await agents[name].start()
        given = {"user": "twin", "authProtocol": keys[0], "authKey": auth, "privKey": priv, "poll": {"interval": 0.2}}
        place = {"host": "127.0.0.1", "port": agents[name].port, "set": True}
        devices[name] = Device(name, "a", f"192.0.2.{len(devices)}", {"snmp": place | given})
    adapter = create(settings.load(trap_port=0, data=tmp_path), devices)
    await adapter.start(heard)
    try:
        async with asyncio.timeout(30):
            while not all([await _answers(adapter, name) for name in agents]):
                await asyncio.sleep(0.05)
        wanted = [
            replace(intent("system", "", {"contact": f"noc of {name}"}), device=name) for name in (*agents, *agents)
        ]
        outcomes = await asyncio.gather(*(perform(adapter, one) for one in wanted[:2]))
        states = [(await adapter.observe(one))["contact"] for one in wanted]
        for name in agents:
            await heard.until(lambda seen, name=name: (seen.kind, seen.device) == ("counter", name))
    finally:
        await adapter.stop()
        await asyncio.gather(*(one.stop() for one in agents.values()))

    assert [one.status for one in outcomes] == ["applied", "applied"], outcomes
    assert states == ["noc of sw1", "noc of sw2"] * 2


async def test_an_agent_that_ends_is_unreachable_and_the_intent_is_done_when_it_is_back(at, snmpd):
    adapter = await at(**WRITER, timeout=0.2)
    await snmpd.stop()
    away = await perform(adapter, intent("system", "", {"contact": "us"}))
    await snmpd.start()
    async with asyncio.timeout(30):
        while not (back := await perform(adapter, intent("system", "", {"contact": "us"}))).done:
            await asyncio.sleep(0.1)

    assert (away.status, away.reason) == ("unknown", "unreachable")
    assert back.status == "applied"
