"""Whatever is sent to the trap port, each datagram is an observation or counted as dropped, and memory stays as it was.

A moment here, as long as one likes by `make fuzz`; the seed of a round is in what a failure says.
"""

import os
import random
import resource
import time
import tracemalloc
from pathlib import Path

import orjson
import pytest
import yaml
from test_snmp_usm import INFORM, NORTH, TRAP

from convergedon.adapters.contract import Device
from convergedon.adapters.intake import Datagram
from convergedon.adapters.snmp import ber, create, lab, usm
from convergedon.core import settings

SECONDS = float(os.environ.get("FUZZ_SECONDS", "2"))
ROUND = 2_000
GOLDEN = sorted(Path(ber.__file__).parent.glob("golden/*/packets.yaml"))
SAMPLES = [
    *(
        bytes.fromhex(packet)
        for file in GOLDEN
        for packet in yaml.safe_load(file.read_text())
        if isinstance(packet, str)
    ),
    lab.link("down", "127.0.10.1", "eth0", 3, "public"),
    lab.link("up", "127.0.10.1", "eth0", 3, "public", inform=True),
    lab.link("down", "127.0.10.1", "eth0", 3, "public", version=1),
    TRAP,
    INFORM,
]
LENGTHS = (b"\x80", b"\x84\xff\xff\xff\xff", b"\x82\x00\x01", b"\xff", b"\x88" + bytes(8), b"\x7f")


def changed(chance: random.Random) -> bytes:
    """A datagram that nobody would send, near one that somebody did."""
    data = bytearray(chance.choice(SAMPLES))
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randint(1, 20)]
            case 2:
                data[at:at] = chance.randbytes(chance.randint(1, 20))
            case 3:
                data[at:at] = chance.choice(LENGTHS)
            case 4:
                data[at:at] = chance.choice(SAMPLES)[: chance.randint(1, 200)]
            case _:
                data[at : at + 2] = data[at : at + 2] * chance.randint(1, 300)
    return bytes(data[:65_507])


@pytest.fixture
def listener(tmp_path):
    keys = {"user": NORTH.name, "authKey": NORTH.auth_phrase, "privKey": NORTH.priv_phrase}
    adapter = create(
        settings.load(trap_port=0, data=tmp_path), {"pe1": Device("pe1", "a", "127.0.0.1", {"snmp": keys})}
    )
    adapter._admit(adapter._users)
    return adapter


def heard(listener, data: bytes) -> bool:
    """Whether it became observations; each can go over the bus."""
    sent = Datagram(data, "127.0.0.1", ("127.0.0.1", 9), time.time())
    findings = listener._read(sent)
    for finding in findings or ():
        seen = finding.observe()
        orjson.dumps(vars(seen))
        assert seen.device
        assert seen.key
    assert ber.peek(data) is not None
    return findings is not None


@pytest.mark.timeout(SECONDS + 100)
def test_each_datagram_is_told_or_counted(listener):
    seed, end = 0, time.monotonic() + SECONDS
    told = refused = 0
    tracemalloc.start()
    try:
        while time.monotonic() < end or not seed:
            chance = random.Random(seed)
            for _ in range(ROUND):
                data = changed(chance)
                before = sum(listener._intake.dropped.values())
                try:
                    found = heard(listener, data)
                except Exception as error:
                    raise AssertionError(f"seed {seed}: {data.hex()}") from error
                told += found
                refused += not found
                # who asks for our engine is answered, and not counted
                assert found or sum(listener._intake.dropped.values()) >= before
            seed += 1
            if seed == 1:
                listener._storms.withheld, level = 0, tracemalloc.get_traced_memory()[0]
        grown = tracemalloc.get_traced_memory()[0] - level
    finally:
        tracemalloc.stop()

    assert told
    assert refused
    # the caches of names and the last words of storms are bounded, and full after a while
    assert grown < 64 << 20, f"{grown:,} bytes after {seed} rounds"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20


def test_what_was_told_before_is_bounded(listener):
    """Senders, notifications, users and engines that a stranger makes up."""
    for number in range(21_000):
        oid = f"1.3.6.1.4.1.{number}.0.1"
        heard(listener, ber.encode(b"public", [(ber.TRAP_OID, ber.OID, oid)], request=number))
        listener._refused.tell("digest", f"192.0.2.{number}", "why")
        listener._intake._lose(b"", f"198.51.100.{number}")

    assert len(listener._storms._watches) <= 20_000
    assert len(listener._refused._told) <= 1_000
    assert len(listener._intake.losses) <= 1_001
    assert ber._dotted.cache_info().currsize <= 8_192


def test_engines_that_were_heard_are_bounded():
    gate = usm.Usm([NORTH], usm.Engine(b"ours!", 1))
    gate._times.update((number.to_bytes(5, "big"), (1, 1, 0.0)) for number in range(usm.ENGINES))
    gate.read(TRAP)

    assert len(gate._times) == usm.ENGINES
