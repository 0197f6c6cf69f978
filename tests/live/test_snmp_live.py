"""net-snmp's own senders are understood: traps of both versions, and informs that wait for the answer."""

import asyncio
import os

import pytest
from peers import peer

from convergedon.adapters.contract import Device
from convergedon.adapters.snmp import create
from convergedon.core import settings
from convergedon.core.errors import Unavailable

pytestmark = pytest.mark.live

LINK_DOWN = "1.3.6.1.6.3.1.1.5.3"
VARBINDS = (
    *("1.3.6.1.2.1.2.2.1.1.3", "i", "3"),
    *("1.3.6.1.2.1.2.2.1.8.3", "i", "2"),
    *("1.3.6.1.2.1.31.1.1.1.1.3", "s", "ge-0/0/3"),
    *("1.3.6.1.2.1.31.1.1.1.6.3", "C", "18446744073709551615"),
)
ADDRESS = ("1.3.6.1.6.3.18.1.3.0", "a", "127.0.10.1")


@pytest.fixture
async def heard(tmp_path):
    """Observations as they are made safe, the address to send to, and how many reports fail before."""
    found: asyncio.Queue = asyncio.Queue()
    failures: list[Unavailable] = []

    async def report(observation):
        if failures:
            raise failures.pop()
        await found.put(observation)

    adapter = create(settings.load(data=tmp_path, trap_port=0), {"pe1": Device("pe1", "globex", "127.0.10.1")})
    [where] = await adapter.start(report)
    yield found, where, failures
    await adapter.stop()


@pytest.fixture
def run(tmp_path):
    """Run a program of net-snmp, with no MIBs and a folder of its own; its exit code is the answer."""

    async def run(name, *words):
        own = {"MIBS": "", "SNMP_PERSISTENT_DIR": str(tmp_path), "SNMPCONFPATH": str(tmp_path)}
        process = await asyncio.create_subprocess_exec(
            peer(name), *words, env=os.environ | own, stderr=asyncio.subprocess.PIPE
        )
        _, told = await asyncio.wait_for(process.communicate(), 20)
        return process.returncode, told.decode()

    return run


async def next_of(found):
    return await asyncio.wait_for(found.get(), 10)


async def test_a_version_2c_trap(heard, run):
    found, where, _ = heard
    await run("snmptrap", "-v", "2c", "-c", "public", where, "", LINK_DOWN, *VARBINDS, *ADDRESS)
    observation = await next_of(found)

    assert (observation.kind, observation.device, observation.tenant) == ("fault", "pe1", "globex")
    assert observation.key == "link:ge-0/0/3"
    assert observation.attributes["details"]["1.3.6.1.2.1.31.1.1.1.6.3"] == "18446744073709551615"


async def test_a_version_1_trap_names_its_agent(heard, run):
    """Counter64 does not exist in version 1."""
    found, where, _ = heard
    generic_link_up = ("1.3.6.1.4.1.4711", "127.0.10.1", "3", "0", "100")
    await run("snmptrap", "-v", "1", "-c", "public", where, *generic_link_up, *VARBINDS[:-3])
    observation = await next_of(found)

    assert (observation.kind, observation.device, observation.key) == ("clear", "pe1", "link:ge-0/0/3")


async def test_an_inform_is_answered_so_that_the_sender_is_content(heard, run):
    found, where, _ = heard
    code, told = await run(
        "snmpinform", "-v", "2c", "-c", "public", "-r", "0", "-t", "10", where, "", LINK_DOWN, *VARBINDS, *ADDRESS
    )

    assert (code, told.count("Timeout")) == (0, 0)
    assert (await next_of(found)).key == "link:ge-0/0/3"


async def test_an_inform_that_is_not_safe_yet_is_sent_again_and_keeps_its_id(heard, run):
    """The sender gives up waiting for its first try while the bus is away; both tries carry one id."""
    found, where, failures = heard
    # six pauses of at least 0.05 s, doubling: more than the second after which the sender tries again
    failures += [Unavailable("the bus is away") for _ in range(6)]
    code, _ = await run(
        "snmpinform", "-v", "2c", "-c", "public", "-r", "5", "-t", "1", where, "", LINK_DOWN, *VARBINDS, *ADDRESS
    )
    first, second = await next_of(found), await next_of(found)

    assert code == 0
    assert first.id == second.id


async def test_an_inform_with_a_wrong_community_is_not_answered(heard, run):
    found, where, _ = heard
    code, told = await run("snmpinform", "-v", "2c", "-c", "wrong", "-r", "0", "-t", "1", where, "", LINK_DOWN)

    assert code == 1
    assert "Timeout" in told
    assert found.empty()
