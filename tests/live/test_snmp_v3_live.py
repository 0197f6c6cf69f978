"""net-snmp's own senders of version 3: traps and informs, several users, and each way of being refused."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT

import pytest
import yaml
from peers import peer

from convergedon.adapters.contract import Device
from convergedon.adapters.snmp import create
from convergedon.core import settings
from convergedon.core.errors import Unavailable

pytestmark = pytest.mark.live

LINK_DOWN = ("1.3.6.1.6.3.1.1.5.3", "1.3.6.1.2.1.2.2.1.1.3", "i", "3", "1.3.6.1.2.1.31.1.1.1.1.3", "s", "ge-0/0/3")
ENGINE, OTHER_ENGINE = "0x8000000001020304aa", "0x8000000001020304bb"


def device(name, user, tenant="globex", **keys):
    given = {"user": user, "authProtocol": "SHA-256", "authKey": f"{user}-auth-phrase"}
    return Device(name, tenant, f"127.0.10.{len(name)}", {"snmp": given | keys})


PRIVATE = {"privProtocol": "AES", "privKey": "a phrase for privacy"}
DEVICES = (
    device("pe1", "north", **PRIVATE),
    device("edge", "south", authProtocol="SHA-512", privProtocol="AES-256", privKey="another phrase"),
    device("core12", "plain", authProtocol="SHA", tenant="acme"),
    Device("bare-device", "globex", "127.0.10.99", {"snmp": {"user": "bare"}}),
    # one name and two keys: two devices
    device("twin-one", "twin", authKey="the first phrase", **PRIVATE),
    device("twin-two2", "twin", authKey="the second phrase", **PRIVATE),
)
NORTH = (
    "-u",
    "north",
    "-l",
    "authPriv",
    "-a",
    "SHA-256",
    "-A",
    "north-auth-phrase",
    "-x",
    "AES",
    "-X",
    PRIVATE["privKey"],
)


def with_(words, **changed):
    """The options with others' values: with_(NORTH, A="wrong")."""
    found = list(words)
    for option, value in changed.items():
        found[found.index(f"-{option}") + 1] = value
    return found


@pytest.fixture
async def heard(tmp_path):
    found: asyncio.Queue = asyncio.Queue()
    failures: list[Unavailable] = []

    async def report(observation):
        if failures:
            raise failures.pop()
        await found.put(observation)

    (tmp_path / "snmp-engine.json").write_text('{"engineId": "80007ed905aabbccddeeff0011", "boots": 7}')
    adapter = create(settings.load(trap_port=0, data=tmp_path), {each.name: each for each in DEVICES})
    [adapter.where] = await adapter.start(report)
    adapter.found, adapter.failures = found, failures
    yield adapter
    await adapter.stop()


@pytest.fixture
def run(tmp_path, heard):
    async def run(name, *words):
        """Send linkDown; the exit code and what the program said."""
        own = {"MIBS": "", "SNMP_PERSISTENT_DIR": str(tmp_path), "SNMPCONFPATH": str(tmp_path)}
        command = (peer(name), "-v", "3", *words, heard.where, "", *LINK_DOWN)
        process = await asyncio.create_subprocess_exec(*command, env=os.environ | own, stderr=asyncio.subprocess.PIPE)
        _, told = await asyncio.wait_for(process.communicate(), 20)
        return process.returncode, told.decode()

    return run


async def next_of(adapter):
    return await asyncio.wait_for(adapter.found.get(), 10)


async def dropped(adapter, reason, count=1):
    async with asyncio.timeout(10):
        while (await adapter.health())["dropped"].get(reason, 0) < count:
            await asyncio.sleep(0.005)
    return (await adapter.health())["dropped"]


async def test_a_trap_with_authentication_and_privacy(heard, run):
    await run("snmptrap", "-e", ENGINE, *NORTH)
    seen = await next_of(heard)

    assert (seen.kind, seen.device, seen.tenant, seen.key) == ("fault", "pe1", "globex", "link:ge-0/0/3")


async def test_several_users_each_with_protocols_of_its_own(heard, run):
    south = ("-u", "south", "-l", "authPriv", "-a", "SHA-512", "-A", "south-auth-phrase")
    await run("snmptrap", "-e", ENGINE, *south, "-x", "AES-256", "-X", "another phrase")
    await run("snmptrap", "-e", OTHER_ENGINE, "-u", "plain", "-l", "authNoPriv", "-a", "SHA", "-A", "plain-auth-phrase")
    seen = [await next_of(heard), await next_of(heard)]

    assert [(each.device, each.tenant) for each in seen] == [("edge", "globex"), ("core12", "acme")]


@pytest.mark.parametrize("program", ["snmptrap", "snmpinform"])
async def test_one_name_with_two_keys_is_two_devices(heard, run, program):
    for phrase in ("the second phrase", "the first phrase"):
        code, told = await run(
            program, *(["-e", ENGINE] if program == "snmptrap" else []), *with_(NORTH, u="twin", A=phrase)
        )
        assert code == 0, told
    seen = [await next_of(heard), await next_of(heard)]

    assert [each.device for each in seen] == ["twin-two2", "twin-one"]


@pytest.mark.parametrize(
    "changed", [NORTH, ("-u", "plain", "-l", "authNoPriv", "-a", "SHA", "-A", "plain-auth-phrase")]
)
async def test_an_inform_learns_our_engine_and_is_answered(heard, run, changed):
    code, told = await run("snmpinform", "-r", "0", "-t", "10", *changed)

    assert code == 0, told
    assert (await next_of(heard)).kind == "fault"
    assert (await heard.health())["dropped"] == {}


async def test_an_inform_that_is_not_safe_yet_is_not_answered_and_keeps_its_id(heard, run):
    """As of version 2c: six tries of ours take longer than the second after which the sender tries again."""
    heard.failures += [Unavailable("the bus is away") for _ in range(6)]
    code, _ = await run("snmpinform", "-r", "5", "-t", "1", *NORTH)
    first, second = await next_of(heard), await next_of(heard)

    assert code == 0
    assert first.id == second.id


@pytest.mark.parametrize(
    ("reason", "changed", "words"),
    [
        ("digest", {"A": "some wrong phrase"}, "Authentication failure"),
        ("user", {"u": "nobody"}, "Unknown user name"),
        ("decryption", {"X": "some wrong phrase"}, "Decryption error"),
        ("level", {"l": "authNoPriv"}, "Unsupported security level"),
        ("level", {"l": "noAuthNoPriv"}, "Unsupported security level"),
    ],
)
async def test_who_may_not_send_is_counted_and_told_why(heard, run, reason, changed, words):
    await run("snmptrap", "-e", ENGINE, *with_(NORTH, **changed))
    counted = await dropped(heard, reason)
    code, told = await run("snmpinform", "-r", "0", "-t", "1", *with_(NORTH, **changed))

    assert counted == {reason: 1}
    assert code == 1
    assert words in told
    assert heard.found.empty()


@pytest.mark.parametrize("sender", [("-v", "2c", "-c", "public"), ("-v", "3", *NORTH)], ids=["2c", "3"])
async def test_informs_are_answered_by_the_command_that_records_them(tmp_path, sender):
    """One after another, as a sender does that waits: each is on the disk before its answer leaves, and once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    snmp = {**PRIVATE, "user": "north", "authProtocol": "SHA-256", "authKey": "north-auth-phrase"}
    devices = {"devices": {"pe1": {"tenant": "globex", "address": "127.0.10.3", "snmp": snmp}}}
    (tmp_path / "devices.yaml").write_text(yaml.safe_dump(devices))
    own = {"CONVERGEDON_DEVICES": str(tmp_path / "devices.yaml"), "CONVERGEDON_DATA": str(tmp_path)}
    record = ("adapter", "record", str(tmp_path / "case"), "--trap-port", str(port), "--count", "2")
    words = (sys.executable, "-P", "-m", "convergedon.core.cli", *record)
    recording = await asyncio.create_subprocess_exec(*words, env=os.environ | own, stdout=PIPE, stderr=STDOUT)
    theirs = os.environ | {"MIBS": "", "SNMP_PERSISTENT_DIR": str(tmp_path), "SNMPCONFPATH": str(tmp_path)}
    written = []
    for uptime in ("100", "200"):
        command = (peer("snmpinform"), *sender, "-r", "60", "-t", "0.5", f"127.0.0.1:{port}", uptime, *LINK_DOWN)
        sending = await asyncio.create_subprocess_exec(*command, env=theirs, stderr=DEVNULL)
        assert await asyncio.wait_for(sending.wait(), 40) == 0
        written.append(len(yaml.safe_load((tmp_path / "case" / "packets.yaml").read_text())))
    told, _ = await recording.communicate()

    assert recording.returncode == 0, told
    assert written == [1, 2]
    assert b"2 packets are in" in told
    assert "phrase" not in (tmp_path / "case" / "packets.yaml").read_text()


PLAIN = ("-u", "plain", "-l", "noAuthNoPriv", "-a", "SHA", "-A", "plain-auth-phrase")


@pytest.mark.parametrize(
    ("reason", "sender"), [("level", PLAIN), ("user", ("-u", "bare", "-l", "noAuthNoPriv"))], ids=["below", "nobody's"]
)
async def test_who_does_not_say_who_it_is_is_refused_and_counted(heard, run, reason, sender):
    """A user of authNoPriv below its level; and one that has no key at all, whom nobody can know."""
    await run("snmptrap", "-e", ENGINE, *sender)
    counted = await dropped(heard, reason)
    code, told = await run("snmpinform", "-r", "0", "-t", "1", *sender)

    assert counted == {reason: 1}
    assert code == 1
    assert ("Unsupported security level" if reason == "level" else "Unknown user name") in told
    assert heard.found.empty()


async def test_a_trap_that_is_older_than_the_last_is_refused(heard, run):
    """Whoever recorded a trap may not send it again later, nor after the device's next start."""
    for boots_and_time in ("5,1000", "5,849", "4,9000", "5,851", "6,1"):
        await run("snmptrap", "-e", ENGINE, "-Z", boots_and_time, *NORTH)
    counted = await dropped(heard, "window", 2)

    assert counted == {"window": 2}
    assert [(await next_of(heard)).kind for _ in range(3)] == ["fault"] * 3


async def test_an_inform_by_an_old_time_of_ours_learns_the_new_one_and_is_sent_again(heard, run):
    """As after our restart; the engine's boots are 8 here, the sender believes in 3."""
    code, _ = await run("snmpinform", "-r", "1", "-t", "2", "-Z", "3,100", *NORTH)

    assert code == 0
    assert (await heard.health())["dropped"] == {"window": 1}
    assert (await next_of(heard)).kind == "fault"


async def test_an_inform_from_a_time_of_ours_that_has_not_come_is_refused(heard, run):
    code, _ = await run("snmpinform", "-r", "0", "-t", "1", "-Z", "8,5000", *NORTH)

    assert code == 1
    assert (await heard.health())["dropped"] == {"window": 1}
    assert heard.found.empty()
