"""The agent that simulated devices have: it answers as it must, goes on, and takes what real ones take."""

import asyncio
import time
from contextlib import asynccontextmanager
from importlib.resources import files

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from convergedon.adapters.contract import Device, Intent
from convergedon.adapters.snmp import agent, ber, create, recording, usm
from convergedon.adapters.snmp.asking import Engines, Peer
from convergedon.adapters.transaction import perform
from convergedon.core import settings
from convergedon.core.cli import main
from convergedon.core.errors import CredentialsRefused, Misconfigured, OutcomeUnknown, Refused, Unreachable

SHIPPED = files("convergedon.adapters.snmp") / "recordings" / "net-snmp.yaml"
VALUES = recording.read(SHIPPED)
ADMIN, OPER, ALIAS, IN = (
    "1.3.6.1.2.1.2.2.1.7.4",
    "1.3.6.1.2.1.2.2.1.8.4",
    "1.3.6.1.2.1.31.1.1.1.18.4",
    "1.3.6.1.2.1.31.1.1.1.6.1",
)
USER = usm.User("writer", frozenset(), "SHA-256", "writer-auth-phrase", "AES", "writer-priv-phrase")
KEYS = {"user": "writer", "authKey": USER.auth_phrase, "privKey": USER.priv_phrase}
ACCESS = agent.Access((b"public", b"private"), [USER], frozenset({b"private", b"writer"}))
WAYS = {"1": {"community": "private", "version": "1"}, "2c": {"community": "private"}, "3": KEYS}


@asynccontextmanager
async def asked(given, objects=None, timeout=1.0):
    """An agent, and a peer that asks it."""
    engines, answering = Engines(), agent.Agent(objects or recording.Recording(VALUES), ACCESS)
    port = await answering.start()
    snmp = {"host": "127.0.0.1", "port": port, "timeout": timeout, **given}
    try:
        yield Peer(engines, Device("sw1", "acme", "192.0.2.1", {"snmp": snmp})), answering
    finally:
        engines.close()
        await answering.stop()


@pytest.mark.parametrize("version", WAYS)
async def test_what_is_recorded_is_answered(version):
    async with asked(WAYS[version]) as (peer, _):
        found = await peer.get([ADMIN, f"{ADMIN}9", "1.3.6.1.2.1.1.2.0"])

    assert found == [(ADMIN, ber.INTEGER, 1), (f"{ADMIN}9", ber.NO_OBJECT, None), (found[2][0], ber.OID, found[2][2])]
    assert found[2][2] == "1.3.6.1.4.1.8072.3.2.10"


async def test_no_engine_has_a_compiler_that_fetches_mibs(monkeypatch):
    """pysnmp would make one for each, with sources on the Internet."""
    monkeypatch.setattr("pysnmp.smi.rfc1902.add_mib_compiler", _made)
    async with asked(WAYS["2c"]) as (peer, _):
        await peer.get([ADMIN])

        assert type(peer._way.engine.get_mib_builder().get_mib_compiler()).__name__ == "NoCompiler"


def _made(builder, **options):
    assert options["ifNotAdded"]
    assert builder.get_mib_compiler()


@pytest.mark.parametrize("version", ["2c", "3"])
async def test_a_walk_of_it_is_the_recording(version):
    """Counters that grow apart: all that was recorded comes, in its order, and nothing else."""
    async with asked(WAYS[version]) as (peer, _):
        found = await recording.walk(peer)

    assert list(found) == list(VALUES)
    still = {oid: value for oid, value in VALUES.items() if not value.grows}
    assert all(recording._text(*found[oid]) == value.value for oid, value in still.items())


@pytest.mark.parametrize("version", WAYS)
async def test_all_of_a_set_is_done_or_nothing(version):
    async with asked(WAYS[version]) as (peer, _):
        await peer.set([(ADMIN, ber.INTEGER, 2), (ALIAS, ber.OCTETS, b"a line")])
        with pytest.raises(Refused, match=f"badValue|wrongValue.*{ADMIN}"):
            await peer.set([(ALIAS, ber.OCTETS, b"another"), (ADMIN, ber.INTEGER, 9)])
        found = await peer.get([ADMIN, OPER, ALIAS])

    assert [value for _, _, value in found] == [2, 2, b"a line"]


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        ((ADMIN, ber.OCTETS, b"down"), "wrongType"),
        ((ALIAS, ber.OCTETS, b"x" * 65), "wrongLength"),
        ((OPER, ber.INTEGER, 1), "notWritable"),
        ((f"{ADMIN}9", ber.INTEGER, 1), "noCreation"),
    ],
)
async def test_what_it_does_not_take_is_refused_in_its_own_word(wanted, word):
    async with asked(WAYS["2c"]) as (peer, _):
        with pytest.raises(Refused, match=f"sw1 answers {word} .{wanted[0]}"):
            await peer.set([wanted])


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({**KEYS, "authKey": "some wrong phrase"}, "WrongDigest"),
        ({**KEYS, "privKey": "some wrong phrase"}, "DecryptionError"),
        ({**KEYS, "user": "nobody"}, "UnknownUserName"),
        ({"user": "writer", "authKey": USER.auth_phrase}, "UnsupportedSecurityLevel"),
    ],
)
async def test_who_is_not_let_in_is_told_from_who_is_not_there(given, word):
    async with asked(given) as (peer, _):
        with pytest.raises(CredentialsRefused, match=f"sw1 does not let us in by SNMP: {word}") as refusal:
            await peer.get([ADMIN])

    assert "phrase" not in str(refusal.value)
    assert "nobody" not in str(refusal.value)


async def test_who_may_read_may_not_write():
    async with asked({"community": "public"}) as (peer, _):
        with pytest.raises(CredentialsRefused, match="may not write"):
            await peer.set([(ADMIN, ber.INTEGER, 2)])


async def test_what_is_set_is_set_by_the_community_that_may_write(tmp_path):
    """The one by which a device is polled need not be."""
    answering = agent.Agent(recording.Recording(VALUES), ACCESS)
    snmp = {"host": "127.0.0.1", "port": await answering.start(), "community": "public", "set": True}
    outcomes = []
    for more in ({}, {"writeCommunity": "private"}):
        device = Device("sw1", "acme", "192.0.2.1", {"snmp": snmp | more})
        adapter = create(settings.load(data=tmp_path, trap_port=0), {"sw1": device})
        await adapter.start(_nobody)
        wanted = Intent("k", "acme", "sw1", "port", "eth0", {"description": "a line"}, time.time() + 60)
        outcomes.append(await perform(adapter, wanted))
        await adapter.stop()
    await answering.stop()

    assert [(one.status, one.reason) for one in outcomes] == [("rolledBack", "credentials"), ("applied", "")]
    assert "private" not in repr((device, outcomes))


async def _nobody(observation):
    return None


async def test_one_that_is_silent_is_unreachable_and_what_it_was_told_is_not_known():
    async with asked(WAYS["2c"], timeout=0.05) as (peer, answering):
        answering.silent = True
        with pytest.raises(Unreachable):
            await peer.get([ADMIN])
        with pytest.raises(OutcomeUnknown):
            await peer.set([(ADMIN, ber.INTEGER, 2)])


async def test_one_that_is_slow_is_waited_for():
    async with asked(WAYS["2c"], timeout=2) as (peer, answering):
        answering.latency = 0.1

        assert await peer.get([ADMIN]) == [(ADMIN, ber.INTEGER, 1)]


@pytest.mark.parametrize("engine", [b"\x80another one", agent.ENGINE + b"agent"], ids=["replaced", "restarted"])
async def test_a_device_that_was_restarted_or_replaced_is_asked_on(engine):
    """Of version 3 a manager knows engine, boots and time; none of them may keep it from asking."""
    async with asked(KEYS, timeout=0.6) as (peer, answering):
        before = await peer.get([ADMIN])
        port = answering.port
        await answering.stop()
        other = agent.Agent(recording.Recording(VALUES), ACCESS, usm.Engine(engine, 2))
        await other.start(port)
        after = await peer.get([ADMIN])
        await other.stop()

    assert before == after


async def test_two_devices_that_call_themselves_the_same_are_asked_beside_each_other():
    """An image that was copied with its engine's id: each has its own time, and keys of its own."""
    other = usm.User("writer", frozenset(), "SHA-512", "another auth phrase", "AES", "another priv phrase")
    keys = {"authProtocol": "SHA-512", "authKey": other.auth_phrase, "privKey": other.priv_phrase}
    copy = agent.Agent(
        recording.Recording(VALUES),
        agent.Access((), [other], frozenset({b"writer"})),
        usm.Engine(agent.ENGINE + b"agent", 9),
    )
    async with asked(KEYS) as (first, _):
        snmp = {"host": "127.0.0.1", "port": await copy.start(), "timeout": 1.0, "user": "writer", **keys}
        second = Peer(first._engines, Device("sw2", "acme", "192.0.2.2", {"snmp": snmp}))
        found = [await peer.get([ADMIN]) for peer in (first, second, first, second)]
    await copy.stop()

    assert found == [[(ADMIN, ber.INTEGER, 1)]] * 4


@pytest.mark.parametrize("length", [1, 4, 33, 200])
async def test_one_that_names_itself_as_no_engine_can_be_named_is_not_asked(length):
    """pysnmp would break on it."""
    answering = agent.Agent(recording.Recording(VALUES), ACCESS, usm.Engine(b"x" * length, 1))
    engines = Engines()
    snmp = {"host": "127.0.0.1", "port": await answering.start(), "timeout": 0.05, **KEYS}
    with pytest.raises(Unreachable):
        await Peer(engines, Device("sw1", "acme", "192.0.2.1", {"snmp": snmp})).get([ADMIN])
    engines.close()
    await answering.stop()


async def test_keys_that_were_corrected_count_at_once():
    """The devices file was read again: what was known by the wrong keys is known by the right ones."""
    async with asked({**KEYS, "authKey": "another auth phrase"}) as (wrong, answering):
        with pytest.raises(CredentialsRefused):
            await wrong.get([ADMIN])
        snmp = {"host": "127.0.0.1", "port": answering.port, "timeout": 1.0, **KEYS}
        right = Peer(wrong._engines, Device("sw1", "acme", "192.0.2.1", {"snmp": snmp}))

        assert await right.get([ADMIN]) == [(ADMIN, ber.INTEGER, 1)]


async def test_who_waits_for_an_answer_when_asking_ends_is_told_at_once():
    """And nobody asks any more: a socket that is opened after the end would be closed by nobody."""
    async with asked(WAYS["2c"], timeout=60) as (peer, answering):
        await peer.get([ADMIN])
        engine, answering.silent = peer._way.engine, True
        waits = asyncio.create_task(peer.get([ADMIN]))
        async with asyncio.timeout(10):
            while not peer._engines._waiting:
                await asyncio.sleep(0)
        peer._engines.close()
        with pytest.raises(Unreachable, match="stopped"):
            await waits
        with pytest.raises(Unreachable, match="stopped"):
            await peer.get([ADMIN])

        assert not engine.transport_dispatcher


@pytest.mark.parametrize("version", ["2c", "3"])
async def test_what_is_no_answer_is_dropped_and_counted_and_the_answer_is_waited_for(version):
    async with asked(WAYS[version]) as (peer, answering):
        await peer.get([ADMIN])
        [(transport, _)] = peer._way.engine.get_user_context("CommandGeneratorLcdConfigurator")["tran"].values()
        where = ("127.0.0.1", transport.transport.get_extra_info("socket").getsockname()[1])
        for noise in (b"ic", bytes(2000), b"\x30\x80" * 700, usm.question(7)):
            answering._transport.sendto(noise, where)
        found = await peer.get([ADMIN])

    assert found == [(ADMIN, ber.INTEGER, 1)]
    assert peer._engines.dropped == {"malformed": 4}


async def test_what_comes_as_a_socket_is_closed_is_nobodys_and_the_clock_goes_on():
    """Without a clock nothing that is lost would ever be noticed; pysnmp's ends at the first thing that is raised."""
    async with asked(WAYS["2c"]) as (peer, answering):
        await peer.get([ADMIN])
        sockets = peer._way.engine.transport_dispatcher
        [(transport, _)] = peer._way.engine.get_user_context("CommandGeneratorLcdConfigurator")["tran"].values()
        sockets.register_timer_callback(lambda now: [][0])
        for later in (10, 20):
            sockets.handle_timer_tick(time.time() + later)
        peer._engines.close()
        sockets._callback_function(transport, ("127.0.0.1", answering.port), b"late")

    assert peer._engines.dropped["unreadable"]


def test_counters_and_uptime_go_on_as_they_did():
    now = [0.0]
    running = recording.Recording(VALUES, lambda: now[0])
    name, uptime = tuple(map(int, IN.split("."))), tuple(map(int, recording.UPTIME.split(".")))
    before = running.value(name)[1], running.value(uptime)[1]
    now[0] = 10.0

    assert VALUES[IN].grows > 0
    assert running.value(name)[1] - before[0] == int(10 * VALUES[IN].grows)
    assert running.value(uptime)[1] - before[1] == 1000


def test_what_ships_names_nobody():
    for column in ("1.3.6.1.2.1.1.4", "1.3.6.1.2.1.1.6", "1.3.6.1.2.1.31.1.1.1.18"):
        assert {value.value for oid, value in VALUES.items() if oid.startswith(f"{column}.")} == {""}
    assert {str(value.value)[:4] for oid, value in VALUES.items() if ".2.2.1.6." in oid} <= {"", "0x02"}


def test_a_recording_tells_of_a_device_what_it_is_and_not_whose():
    found = {
        recording.NAME: (ber.OCTETS, b"core7.example.net"),
        recording.DESCR: (ber.OCTETS, b"Router core7 of core7.example.net"),
        "1.3.6.1.2.1.1.4.0": (ber.OCTETS, b"Ada, 0123"),
        "1.3.6.1.2.1.2.2.1.6.3": (ber.OCTETS, bytes.fromhex("001122334455")),
        "1.3.6.1.2.1.31.1.1.1.18.3": (ber.OCTETS, b"customer 12"),
    }

    assert {value for _, (_, value) in recording._anonymous(found, "sw1")} == {
        b"sw1",
        b"Router sw1 of sw1",
        b"",
        bytes.fromhex("020000000001"),
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {ADMIN: {"kind": "integer", "value": "up"}},
            rf"line 5: values\.{ADMIN}\.value: this is no value of kind integer",
        ),
        ({ADMIN: {"kind": "ip", "value": "192.0.2"}}, "no value of kind ip"),
        ({ADMIN: {"kind": "counter", "value": -1}}, "no value of kind counter"),
        ({ADMIN: {"kind": "counter", "value": 2**32}}, "no value of kind counter"),
        ({ADMIN: {"kind": "octets", "value": "0x1"}}, "no value of kind octets"),
        ({ADMIN: {"kind": "flag", "value": 1}}, r"line 4: .*kind"),
        ({"ifName": {"kind": "integer", "value": 1}}, "ifName"),
    ],
)
def test_a_recording_that_is_wrong_is_refused_with_its_place(tmp_path, values, words):
    file = tmp_path / "walk.yaml"
    file.write_text(yaml.safe_dump({"about": "it", "values": values}, sort_keys=False))

    with pytest.raises(Misconfigured, match=words):
        recording.read(file)


@given(st.binary(max_size=300), st.integers(0, 100), st.integers(0, 3))
def test_whatever_it_is_sent_it_answers_or_does_not(noise, at, out):
    """A whole request with some of it changed."""
    one = ber.tlv(ber.SEQUENCE, ber.tlv(ber.SEQUENCE, ber.write(ber.OID, ADMIN) + ber.write(ber.NULL, None)))
    pdu = ber.tlv(agent.BULK, ber.write(ber.INTEGER, 1) + ber.write(ber.INTEGER, 0) + ber.write(ber.INTEGER, 9) + one)
    whole = ber.tlv(ber.SEQUENCE, ber.write(ber.INTEGER, 1) + ber.write(ber.OCTETS, b"public") + pdu)
    answering = agent.Agent(recording.Recording(VALUES), ACCESS)

    assert answering.answer(whole)
    answering.answer(whole[:at] + noise + whole[at + out :])
    answering.answer(noise)


async def test_a_port_that_is_taken_is_said():
    answering = agent.Agent(recording.Recording(VALUES), ACCESS)
    port = await answering.start()
    with pytest.raises(Misconfigured, match=f"UDP port {port} on 127.0.0.1 is taken"):
        await agent.Agent(recording.Recording(VALUES), ACCESS).start(port)
    await answering.stop()


def test_the_command_records_a_device_of_the_devices_file(tmp_path):
    """Twice the walk, nothing of the device's own name, and never over a file that is there."""
    (tmp_path / "devices.yaml").write_text("devices: {}")
    command = [
        "adapter",
        "record",
        str(tmp_path / "walk"),
        "--walk",
        "sw1",
        "--seconds",
        "0.1",
        "--data",
        str(tmp_path),
    ]
    env = {"CONVERGEDON_DEVICES": str(tmp_path / "devices.yaml")}

    assert "no device sw1 in the devices file" in CliRunner().invoke(main, command, env=env).output
