"""What strangers send to the trap port is remembered within bounds; what becomes of it is tried by tests/fuzz."""

import time

import pytest
from test_snmp_usm import NORTH, TRAP

from convergedon.adapters.contract import Device
from convergedon.adapters.intake import Datagram
from convergedon.adapters.snmp import ber, create, usm
from convergedon.core import settings


@pytest.fixture
def listener(tmp_path):
    keys = {"user": NORTH.name, "authKey": NORTH.auth_phrase, "privKey": NORTH.priv_phrase}
    adapter = create(
        settings.load(trap_port=0, data=tmp_path), {"pe1": Device("pe1", "a", "127.0.0.1", {"snmp": keys})}
    )
    adapter._admit(adapter._users)
    return adapter


def heard(listener, data: bytes) -> None:
    for finding in listener._read(Datagram(data, "127.0.0.1", ("127.0.0.1", 9), time.time())) or ():
        finding.observe()


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
