"""Captures of traps: whatever they were seen on, the datagrams in them; and what is broken is said in a sentence."""

import contextlib
import json
import socket
import struct
import threading

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from test_snmp_usm import INFORM, NORTH, TRAP

from convergedon.adapters.snmp import ber, capture, lab
from convergedon.core.cli import main
from convergedon.core.errors import Invalid

DOWN = lab.link("down", "127.0.10.1", "eth0", 3, "secret")
FOUR, SIX = bytes.fromhex("c0000207"), bytes.fromhex("20010db8000000000000000000000007")


def udp(data=DOWN, port=162):
    return struct.pack(">HHHH", 50_000, port, 8 + len(data), 0) + data


def ipv4(payload, protocol=17, fragment=0, options=b""):
    head = struct.pack(
        ">BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 1, fragment, 64, protocol, 0
    )
    return head + FOUR + bytes(4) + options + payload


def ipv6(payload, first=17):
    return struct.pack(">IHBB", 6 << 28, len(payload), first, 64) + SIX + bytes(16) + payload


def ethernet(packet, kind, *vlans):
    tags = b"".join(struct.pack(">HH", tpid, 7) for tpid in vlans)
    return bytes(12) + tags + struct.pack(">H", kind) + packet


def pcap(*packets, link=1, order="<", magic=0xA1B2C3D4):
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65_535, link)
    return head + b"".join(struct.pack(f"{order}IIII", 1, 2, len(one), len(one)) + one for one in packets)


def block(kind, body, order="<"):
    body += bytes(-len(body) % 4)
    return struct.pack(f"{order}II", kind, 12 + len(body)) + body + struct.pack(f"{order}I", 12 + len(body))


def pcapng(*packets, link=1, order="<", simple=False):
    section = block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    interface = block(1, struct.pack(f"{order}HHI", link, 0, 0), order)
    blocks = [
        block(3, struct.pack(f"{order}I", len(one)) + one, order)
        if simple
        else block(6, struct.pack(f"{order}IIIII", 0, 0, 0, len(one), len(one)) + one, order)
        for one in packets
    ]
    return section + block(5, bytes(8), order) + interface + b"".join(blocks)


SEEN = {
    "ethernet": (1, ethernet(ipv4(udp()), 0x0800), "192.0.2.7"),
    "padded": (1, ethernet(ipv4(udp()), 0x0800) + bytes(18), "192.0.2.7"),
    "options": (1, ethernet(ipv4(udp(), options=bytes(8)), 0x0800), "192.0.2.7"),
    "a tag": (1, ethernet(ipv4(udp()), 0x0800, 0x8100), "192.0.2.7"),
    "two tags": (1, ethernet(ipv6(udp()), 0x86DD, 0x88A8, 0x8100), "2001:db8::7"),
    "hop by hop": (1, ethernet(ipv6(bytes((17, 0)) + bytes(6) + udp(), 0), 0x86DD), "2001:db8::7"),
    "cooked": (113, bytes(14) + b"\x08\x00" + ipv4(udp()), "192.0.2.7"),
    "cooked again": (276, b"\x86\xdd" + bytes(18) + ipv6(udp()), "2001:db8::7"),
    "loopback": (0, b"\x02\0\0\0" + ipv4(udp()), "192.0.2.7"),
    "bare": (101, ipv6(udp()), "2001:db8::7"),
}
WAYS = {
    "pcap": pcap,
    "pcap the other way round": lambda *given, **named: pcap(*given, **named, order=">"),
    "pcap of nanoseconds": lambda *given, **named: pcap(*given, **named, magic=0xA1B23C4D),
    "pcapng": pcapng,
    "pcapng the other way round": lambda *given, **named: pcapng(*given, **named, order=">"),
    "pcapng, simple": lambda *given, **named: pcapng(*given, **named, simple=True),
}
PASSED_OVER = (
    ethernet(ipv4(udp(port=161)), 0x0800),
    ethernet(ipv4(udp(), protocol=6), 0x0800),
    ethernet(ipv4(udp(), fragment=0x2000), 0x0800),
    ethernet(ipv4(udp(), fragment=185), 0x0800),
    ethernet(ipv6(bytes(8) + udp(), 44), 0x86DD),
    ethernet(b"\0\1", 0x0806),
    ethernet(ipv4(udp()), 0x0800)[:60],
    b"",
)


def read(data):
    return list(capture.datagrams(data, {162}))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seen", SEEN)
def test_a_trap_is_found_wherever_it_was_seen(way, seen):
    link, packet, source = SEEN[seen]

    assert read(WAYS[way](packet, link=link)) == [capture.Captured(source, 162, DOWN)]


def test_what_is_no_trap_is_passed_over():
    assert read(pcap(*PASSED_OVER, SEEN["ethernet"][1])) == [capture.Captured("192.0.2.7", 162, DOWN)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pcap(SEEN["ethernet"][1])[:-1], "breaks off"),
        (pcap(SEEN["ethernet"][1])[:30], "breaks off"),
        (pcap()[:10], "breaks off"),
        (pcap(link=147), "links of type 147"),
        (pcap() + struct.pack("<IIII", 1, 2, 1 << 30, 1 << 30), "damaged"),
        (pcapng(SEEN["ethernet"][1])[:-3], "breaks off"),
        (pcapng(link=147), "links of type 147"),
        (b"\x0a\x0d\x0d\x0a" + bytes(28), "order of its bytes"),
        (pcapng()[:-20] + block(6, bytes(20)), "interface 0, which it does not describe"),
        (pcapng() + struct.pack("<II", 6, 0), "damaged, at byte"),
        (pcapng() + block(6, struct.pack("<IIIII", 0, 0, 0, 900, 900)), "damaged"),
    ],
)
def test_a_capture_that_is_broken_is_said_in_a_sentence(data, words):
    with pytest.raises(Invalid, match=words):
        read(data)


@given(st.sampled_from([pcap, pcapng]), st.integers(0, 400), st.integers(0, 9), st.binary(max_size=9))
def test_whatever_stands_in_it_is_read_or_refused(way, at, out, put):
    whole = way(*(packet for _, packet, _ in SEEN.values()))
    with contextlib.suppress(Invalid):
        read(whole[:4] + (whole[4:][:at] + put + whole[4:][at + out :]))


def asked(folder, data, *more, devices=None):
    (folder / "traps.pcap").write_bytes(data)
    env = {}
    if devices:
        (folder / "devices.yaml").write_text(yaml.safe_dump({"devices": devices}))
        env["CONVERGEDON_DEVICES"] = str(folder / "devices.yaml")
    command = ["adapter", "map", "--trap", str(folder / "traps.pcap"), *more, "--data", str(folder)]
    return CliRunner().invoke(main, command, env=env)


NORTHS = {
    "pe1": {
        "tenant": "globex",
        "address": "192.0.2.7",
        "snmp": {"user": NORTH.name, "authKey": NORTH.auth_phrase, "privKey": NORTH.priv_phrase},
    }
}


def test_the_command_shows_each_trap_of_a_capture_with_its_source(tmp_path):
    up = lab.link("up", "127.0.10.1", "eth0", 3, "secret", version=1)
    packets = [ethernet(ipv4(udp(one)), 0x0800) for one in (DOWN, b"noise", up)]
    done = asked(tmp_path, pcapng(*packets))
    down, noise, up_again = (json.loads(line) for line in done.output.splitlines())

    assert (down["kind"], up_again["kind"], down["key"]) == ("fault", "clear", "link:eth0")
    assert down["attributes"]["source"] == noise["source"] == "192.0.2.7"
    assert noise["error"].startswith("this is no notification")
    assert "secret" not in done.output


def test_other_ports_are_named(tmp_path):
    data = pcap(ethernet(ipv4(udp(port=9162)), 0x0800))

    assert "no datagram in it is for the ports" in asked(tmp_path, data).output
    assert json.loads(asked(tmp_path, data, "--port", "9162").output)["kind"] == "fault"


@pytest.mark.parametrize("message", [TRAP, INFORM])
def test_a_trap_of_version_3_is_read_by_the_users_of_the_devices_file(tmp_path, message):
    """However long ago it was recorded, and for whichever engine; it is of its user's device."""
    done = asked(tmp_path, pcap(ethernet(ipv4(udp(message)), 0x0800)), devices=NORTHS)
    told = json.loads(done.output)

    assert (told["kind"], told["device"], told["tenant"]) == ("fault", "pe1", "globex")
    assert "phrase" not in done.output


def test_one_of_version_3_that_arrives_is_recorded_without_its_keys(tmp_path):
    """As a golden case that anybody can read: version 2c under the community public."""
    (tmp_path / "devices.yaml").write_text(yaml.safe_dump({"devices": NORTHS}))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = threading.Event()

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not done.wait(0.02):
                sender.sendto(b"noise", ("127.0.0.1", port))
                sender.sendto(TRAP, ("127.0.0.1", port))

    sending = threading.Thread(target=send)
    sending.start()
    command = ["adapter", "record", str(tmp_path / "case"), "--trap-port", str(port), "--data", str(tmp_path)]
    told = CliRunner().invoke(main, command, env={"CONVERGEDON_DEVICES": str(tmp_path / "devices.yaml")})
    done.set()
    sending.join()
    [packet] = yaml.safe_load((tmp_path / "case" / "packets.yaml").read_text())
    [observation] = yaml.safe_load((tmp_path / "case" / "observations.yaml").read_text())

    assert "1 packet is in" in told.output, told.output
    assert (ber.decode(bytes.fromhex(packet)).community, observation["kind"]) == (b"public", "fault")


def test_one_of_version_3_that_nobody_could_have_sent_says_why(tmp_path):
    data = pcap(ethernet(ipv4(udp(TRAP)), 0x0800))
    other = {"pe1": {**NORTHS["pe1"], "snmp": {**NORTHS["pe1"]["snmp"], "authKey": "another phrase"}}}

    assert "the user is not known" in asked(tmp_path, data).output
    refused = asked(tmp_path, data, devices=other)
    assert refused.exit_code
    assert "another key than it has" in refused.output


def test_a_broken_capture_is_refused_with_its_file(tmp_path):
    done = asked(tmp_path, pcap(SEEN["ethernet"][1])[:-1])

    assert done.exit_code == 78
    assert f"{tmp_path / 'traps.pcap'}: the capture breaks off" in done.output


def test_what_is_no_capture_is_a_datagram():
    assert not capture.is_capture(DOWN)
    assert ber.decode(DOWN)
