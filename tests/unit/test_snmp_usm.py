"""Version 3 without a peer: what is forged, repeated or garbled is refused with its reason."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergedon.adapters.contract import Device
from convergedon.adapters.snmp import ber, usm
from convergedon.core.errors import Misconfigured

THEIRS, OURS = bytes.fromhex("8000000001020304aa"), bytes.fromhex("80007ed905aabbccddeeff0011")
NORTH = usm.User("north", frozenset({"pe1"}), "SHA-256", "north-auth-phrase", "AES", "a phrase for privacy")


def at(boots, moment, engine=THEIRS):
    return usm.Engine(engine, boots, clock=lambda: moment, began=0)


def scoped(tag=ber.TRAP, engine=THEIRS):
    named = [(ber.UPTIME, ber.TICKS, 1), (ber.TRAP_OID, ber.OID, "1.3.6.1.6.3.1.1.5.3")]
    binds = b"".join(ber.tlv(ber.SEQUENCE, ber.write(ber.OID, n) + ber.write(t, v)) for n, t, v in named)
    pdu = ber.tlv(tag, ber.write(ber.INTEGER, 7) + 2 * ber.write(ber.INTEGER, 0) + ber.tlv(ber.SEQUENCE, binds))
    return ber.tlv(ber.SEQUENCE, ber.write(ber.OCTETS, engine) + ber.write(ber.OCTETS, b"") + pdu)


WRITER = usm.Usm([], at(1, 1))
TRAP = WRITER.protect(1, NORTH, scoped(), at(5, 1000))
INFORM = WRITER.protect(9, NORTH, scoped(ber.INFORM, OURS), at(3, 500, OURS), reportable=True)


@pytest.fixture
def gate():
    return usm.Usm([NORTH], at(3, 500, OURS))


def refusal(gate, message):
    with pytest.raises(usm.Refused) as refused:
        gate.read(message)
    return refused.value


def test_a_trap_is_read_and_names_who_sent_it(gate):
    found = gate.read(TRAP)

    assert (found.user, found.notification.oid, found.notification.inform) == (NORTH, "1.3.6.1.6.3.1.1.5.3", False)


def test_the_answer_to_an_inform_is_read_by_its_sender(gate):
    """It is the inform with another tag, under the same user, and the same number."""
    found = gate.read(INFORM)
    answer = gate.answer(found)
    header, start, end = usm._header(answer)
    cipher = usm._cipher(NORTH.priv_key(OURS), header.boots, header.time, header.salt).decryptor()
    told = cipher.update(ber_contents(answer, start, end))

    assert found.notification.inform
    assert (header.message, header.engine, header.flags) == (9, OURS, usm.AUTH | usm.PRIV)
    assert header.digest == usm._digest(NORTH, OURS, answer, header)
    assert told == scoped(ber.RESPONSE, OURS)


def ber_contents(message, start, end):
    begin, close = ber.enter(message, start, end, ber.OCTETS, "payload")
    return message[begin:close]


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("digest", WRITER.protect(1, replace(NORTH, auth_phrase="another phrase"), scoped(), at(5, 1000))),
        ("digest", TRAP[:-1] + bytes((TRAP[-1] ^ 1,))),
        ("user", WRITER.protect(1, replace(NORTH, name="south"), scoped(), at(5, 1000))),
        ("level", WRITER.protect(1, replace(NORTH, priv=None), scoped(), at(5, 1000))),
        ("level", usm._message(usm.Header(1, 0, THEIRS, 5, 1000, b"north", b"", 0, b""), scoped())),
        ("user", usm._message(usm.Header(1, 0, THEIRS, 5, 1000, b"", b"", 0, b""), scoped())),
        ("decryption", WRITER.protect(1, replace(NORTH, priv_phrase="another phrase"), scoped(), at(5, 1000))),
        ("engine", WRITER.protect(1, NORTH, scoped(), at(3, 500, OURS))),
        ("engine", WRITER.protect(1, NORTH, scoped(), at(5, 1000, b"abc"))),
        ("pdu", WRITER.protect(1, NORTH, scoped(ber.INFORM), at(5, 1000))),
        ("window", WRITER.protect(1, NORTH, scoped(), at(usm.LAST_BOOT, 1000))),
        ("malformed", TRAP + b"\0"),
        ("malformed", TRAP[:40]),
    ],
)
def test_a_trap_that_is_not_to_be_believed_is_refused_without_a_word(gate, reason, message):
    refused = refusal(gate, message)

    assert (refused.drop, refused.report) == (reason, None)


@pytest.mark.parametrize(
    ("boots", "moment", "taken"), [(5, 851, True), (5, 849, False), (4, 9000, False), (6, 1, True)]
)
def test_what_was_recorded_cannot_be_sent_again_later(gate, boots, moment, taken):
    gate.read(TRAP)
    again = WRITER.protect(1, NORTH, scoped(), at(boots, moment))

    if taken:
        gate.read(again)
    else:
        assert refusal(gate, again).drop == "window"


def test_the_senders_clock_goes_on_while_it_is_silent():
    now = [0.0]
    gate = usm.Usm([NORTH], usm.Engine(OURS, 3, clock=lambda: now[0], began=0))
    gate.read(TRAP)
    now[0] = 200.0

    assert refusal(gate, TRAP).drop == "window"


def test_who_is_refused_changes_no_clock(gate):
    """Else one forged message would shut a device out."""
    gate.read(TRAP)
    refusal(gate, WRITER.protect(1, replace(NORTH, auth_phrase="another phrase"), scoped(), at(9, 9)))

    gate.read(TRAP)


def test_who_asks_for_our_engine_is_told_it_and_our_clock(gate):
    asked = usm._message(usm.Header(4, usm.REPORTABLE, b"", 0, 0, b"", b"", 0, b""), scoped(0xA0, b""))
    refused = refusal(gate, asked)
    header, *_ = usm._header(refused.report)

    assert refused.drop == "discovery"
    assert (header.message, header.engine, header.boots, header.time, header.flags) == (4, OURS, 3, 500, 0)


def test_an_inform_by_another_clock_is_told_ours_authenticated(gate):
    late = WRITER.protect(9, NORTH, scoped(ber.INFORM, OURS), at(2, 500, OURS), reportable=True)
    refused = refusal(gate, late)
    header, *_ = usm._header(refused.report)

    assert refused.drop == "window"
    assert (header.boots, header.time, header.flags) == (3, 500, usm.AUTH)
    assert header.digest == usm._digest(NORTH, OURS, refused.report, header)


@given(st.sampled_from((TRAP, INFORM)), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=4))
def test_a_changed_message_is_refused_and_nothing_else(message, changes):
    changed = bytearray(message)
    for place, byte in changes:
        changed[place % len(changed)] = byte
    gate = usm.Usm([NORTH], at(3, 500, OURS))

    for garbled in (bytes(changed), bytes(changed[: len(changed) // 2])):
        if garbled != message:
            refusal(gate, garbled)


def test_keys_are_in_no_repr():
    assert "phrase" not in repr(NORTH)


def test_the_keys_are_those_of_the_standard():
    """RFC 3414 A.3.2 and A.5.2 have the key for 'maplesyrup' and the engine 2, localized by SHA-1."""
    user = usm.User("u", frozenset(), "SHA", "maplesyrup")

    assert usm.master_key("SHA", "maplesyrup").hex() == "9fb5cc0381497b3793528939ff788d5d79145211"
    assert user.auth_key(bytes(11) + b"\x02").hex() == "6695febc9288e36282235fc7151f128497b38f3f"


def test_our_engine_is_the_same_after_a_start_and_its_boots_have_grown(tmp_path):
    first, second = (usm.own_engine(tmp_path / "new" / "engine.json") for _ in range(2))

    assert (first.id, first.boots + 1) == (second.id, second.boots)
    assert 5 <= len(first.id) <= 32


@pytest.mark.parametrize("text", ["[]", "{}x", '{"boots": 1}', '{"engineId": "zz"}'])
def test_an_engine_file_that_cannot_be_read_is_told(tmp_path, text):
    (tmp_path / "engine.json").write_text(text)

    with pytest.raises(Misconfigured, match=r"engine\.json"):
        usm.own_engine(tmp_path / "engine.json")


def test_devices_with_the_same_user_and_keys_are_one_user():
    keys = {"user": "north", "authProtocol": "SHA-256", "authKey": "north-auth-phrase"}
    settings = {"snmp": keys}
    devices = [
        Device("a", "t", "127.0.0.1", settings),
        Device("b", "t", "127.0.0.2", settings),
        Device("c", "t", "::1"),
    ]

    assert [(user.name, user.devices, user.priv) for user in usm.users(devices)] == [("north", {"a", "b"}, None)]
