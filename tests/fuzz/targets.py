"""What reads bytes of strangers, and of operators: samples of each, and what must hold of whatever it is given."""

from __future__ import annotations

import io
import itertools
import random
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import orjson
import yaml
from fuzz import answers
from fuzz.guided import Survive, Target
from lxml import etree
from ncclient.manager import make_device_handler
from ncclient.operations import RPCError
from ncclient.transport.session import HelloHandler, NetconfBase, NotificationHandler

from convergedon.adapters import inventory
from convergedon.adapters.contract import Device
from convergedon.adapters.file import mapping as calls
from convergedon.adapters.file.mapping import BadLine, Source
from convergedon.adapters.file.reading import Progress, parts
from convergedon.adapters.flow import create as flow_adapter
from convergedon.adapters.flow import lab as exporter
from convergedon.adapters.intake import Datagram
from convergedon.adapters.netconf import mapping as yang
from convergedon.adapters.netconf.lab.messages import NC, NOTIFICATION
from convergedon.adapters.netconf.listening import Listener
from convergedon.adapters.netconf.rpc import Answer, Answers
from convergedon.adapters.netconf.session import BROKEN, Denied, PromptSession
from convergedon.adapters.snmp import agent, ber, lab, mibs, recording, trying, usm
from convergedon.adapters.snmp import create as snmp_adapter
from convergedon.adapters.snmp import mapping as traps
from convergedon.adapters.snmp.trial import RECORDED
from convergedon.core import settings
from convergedon.core.errors import Invalid, Misconfigured
from convergedon.mediation import intervals, planning, rating

NORTH = usm.User("north", frozenset({"pe1"}), "SHA-256", "north-auth-phrase", "AES", "a phrase for privacy")
KEYS = {"user": NORTH.name, "authKey": NORTH.auth_phrase, "privKey": NORTH.priv_phrase}
DEVICES = {
    "pe1": Device("pe1", "acme", "192.0.2.1", {"snmp": KEYS | {"interfaces": {3: "ge-0/0/3"}}}),
    "pe2": Device("pe2", "acme", "192.0.2.2", {"flow": {"observationDomain": 7}}),
}
SENDERS = ("192.0.2.1", "192.0.2.2", "2001:db8::1")


# datagrams


def adapter_survives(adapter: Any, wrap: Callable[[bytes], bytes] = bytes) -> Survive:
    """Each datagram becomes observations that can go over the bus, or is counted as dropped."""
    numbers = itertools.count()

    def survive(data: bytes) -> None:
        number = next(numbers)
        sender = SENDERS[number % len(SENDERS)]
        sent = Datagram(wrap(data), sender, (sender, 9), 1.8e9 + number)
        before = adapter._intake.dropped.total()
        findings = adapter._read(sent)
        for finding in findings or ():
            seen = finding.observe()
            orjson.dumps(vars(seen))
            assert seen.device
            for record in seen.attributes.get("records", ()):
                assert 0 <= record["start"] <= record["end"] < 2**32
                assert 0 <= record["octets"] < 2**63
                assert 0 <= record["packets"] < 2**63
        assert ber.peek(data) is not None
        assert findings is not None or adapter._intake.dropped.total() > before or adapter._intake._socket is None

    return survive


def trapped(folder: Path) -> Any:
    adapter = snmp_adapter(settings.load(trap_port=0, data=folder), DEVICES)
    adapter._admit(adapter._users)
    return adapter


def trap_port(folder: Path) -> Survive:
    return adapter_survives(trapped(folder))


def inside_version_3(folder: Path) -> Survive:
    """What a user who has the keys sends: the bytes are encrypted and signed as its own."""
    adapter = trapped(folder)
    ours, theirs = adapter._usm._engine, usm.Engine(bytes.fromhex("8000000001020304aa"), 5, clock=lambda: 1000, began=0)
    writer = usm.Usm([], theirs)

    def wrap(data: bytes) -> bytes:
        inform = data[:1] == b"\xff"
        return writer.protect(1, NORTH, data[inform:], ours if inform else theirs, reportable=inform)

    return adapter_survives(adapter, wrap)


def scoped(tag: int, engine: bytes = b"\x80\0\0\0\x01") -> bytes:
    named = [(ber.UPTIME, ber.TICKS, 1), (ber.TRAP_OID, ber.OID, "1.3.6.1.6.3.1.1.5.3"),
             ("1.3.6.1.2.1.2.2.1.1.3", ber.INTEGER, 3)]  # fmt: skip
    binds = b"".join(ber.tlv(ber.SEQUENCE, ber.write(ber.OID, n) + ber.write(t, v)) for n, t, v in named)
    pdu = ber.tlv(tag, ber.write(ber.INTEGER, 7) + 2 * ber.write(ber.INTEGER, 0) + ber.tlv(ber.SEQUENCE, binds))
    return ber.tlv(ber.SEQUENCE, ber.write(ber.OCTETS, engine) + ber.write(ber.OCTETS, b"") + pdu)


def golden(adapter: str) -> list[bytes]:
    files = sorted(Path(ber.__file__).parents[1].glob(f"{adapter}/golden/*/packets.yaml"))
    packets = [packet for file in files for packet in yaml.safe_load(file.read_text())]
    return [bytes.fromhex(one) if isinstance(one, str) else one["text"].encode() for one in packets]


THEIRS = usm.Usm([], usm.Engine(b"\x80\0\0\0\x01", 1, clock=lambda: 1, began=0))
TRAPS = [
    *golden("snmp"),
    lab.link("down", "192.0.2.1", "eth0", 3, "public"),
    lab.link("up", "192.0.2.1", "eth0", 3, "public", inform=True),
    lab.link("down", "192.0.2.1", "eth0", 3, "public", version=1),
    THEIRS.protect(1, NORTH, scoped(ber.TRAP), THEIRS._engine),
    THEIRS.protect(9, NORTH, scoped(ber.INFORM), THEIRS._engine, reportable=True),
]


def a_capture(folder: Path) -> Survive:
    """It is read, each trap in it becomes what can be shown, or is refused in a sentence."""
    reader = trying.Reader(settings.load(trap_port=0, data=folder), DEVICES)
    file = folder / "capture"

    def survive(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(Misconfigured):
            for packet in trying.recorded(file):
                with suppress(Invalid):
                    orjson.dumps(reader.meaning(packet))

    return survive


def captured(datagram: bytes) -> list[bytes]:
    """A datagram in a capture of each kind: Ethernet with IPv4, cooked with IPv6, in numbers either way round."""
    udp = struct.pack(">HHHH", 50_000, 162, 8 + len(datagram), 0) + datagram
    four = struct.pack(">BBHIBBH4s4x", 0x45, 0, 20 + len(udp), 0, 64, 17, 0, b"\xc0\0\2\1") + udp
    six = struct.pack(">IHBB32s", 6 << 28, 8 + len(udp), 0, 64, bytes(32)) + b"\x11" + bytes(7) + udp
    packets = ((1, bytes(12) + b"\x81\0\0\7\x08\0" + four), (276, b"\x86\xdd" + bytes(18) + six))
    found = []
    for order, (link, packet) in itertools.product("<>", packets):
        size, fill = len(packet), bytes(-len(packet) % 4)
        found.append(struct.pack(f"{order}IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, link)
                     + struct.pack(f"{order}IIII", 1, 2, size, size) + packet)  # fmt: skip
        blocks = ((0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1)),
                  (1, struct.pack(f"{order}HHI", link, 0, 0)),
                  (6, struct.pack(f"{order}IIIII", 0, 0, 0, size, size) + packet + fill),
                  (3, struct.pack(f"{order}I", size) + packet + fill))  # fmt: skip
        found.append(b"".join(struct.pack(f"{order}II", kind, 12 + len(body)) + body
                              + struct.pack(f"{order}I", 12 + len(body)) for kind, body in blocks))  # fmt: skip
    return found


def agent_port(folder: Path) -> Survive:
    """What answers is asked anything: it answers within a frame, or not at all."""
    users = [usm.User("north", frozenset(), NORTH.auth, NORTH.auth_phrase)]
    access = agent.Access((b"public",), users, frozenset({b"public"}))
    answering = agent.Agent(recording.Recording(recording.read(RECORDED)), access)

    def survive(data: bytes) -> None:
        answer = answering.answer(data)
        assert answer is None or len(answer) < 2 * agent.LARGEST

    return survive


def requests() -> list[bytes]:
    found = []
    name = ber.write(ber.OID, "1.3.6.1.2.1.2.2.1.7.4")
    for version, tag, value in itertools.product(
        (0, 1), (agent.GET, agent.NEXT, agent.BULK, agent.SET), (b"\5\0", b"\2\1\2")
    ):
        numbers = ber.write(ber.INTEGER, 7) + ber.write(ber.INTEGER, 0) + ber.write(ber.INTEGER, 9)
        pdu = ber.tlv(tag, numbers + ber.tlv(ber.SEQUENCE, ber.tlv(ber.SEQUENCE, name + value)))
        found.append(ber.tlv(ber.SEQUENCE, ber.write(ber.INTEGER, version) + ber.write(ber.OCTETS, b"public") + pdu))
    return found


def flow_port(folder: Path) -> Survive:
    return adapter_survives(flow_adapter(settings.load(flow_port=0, data=folder), DEVICES))


def flows() -> list[bytes]:
    """Of each version, with templates and without, with options of sampling, boot time and selectors."""
    ends = {"octets": 9000, "packets": 12, "start": 1.8e9, "end": 1.8e9 + 2}
    records = [{"source": "10.0.0.1", "destination": "192.0.2.7", **ends},
               {"source": "2001:db8::1", "destination": "2001:db8::2", **ends}]  # fmt: skip
    five = struct.pack("!HHIIIIBBH", 5, 2, 100_000, 1_800_000_000, 0, 1, 0, 3, 0x4064)
    flow = struct.pack("!4s4s4sHHIIIIHHBBBBHHBBH", b"\x0a\0\0\x01", b"\xc0\0\x02\x07", bytes(4), 1, 2, 12, 9000,
                       90_000, 95_000, 80, 1024, 0, 0, 6, 0, 1, 2, 24, 24, 0)  # fmt: skip
    sampler = struct.pack("!HHHHHHHHHH", 260, 3, 1, 302, 8, 304, 2, 305, 4, 306) + struct.pack("!H", 4)
    options = [(3, sampler), (260, struct.pack("!QHII", 5, 1, 1, 99)),
               (3, struct.pack("!HHHHHHH", 261, 2, 1, 149, 4, 160, 8)), (261, struct.pack("!IQ", 0, 1_700_000_000_000)),
               (2, struct.pack("!HHHHHHHHHHHH", 262, 5, 8, 4, 12, 4, 302, 8, 85, 8, 86, 8)),
               (262, struct.pack("!4s4sQQQ", b"\x0a\0\0\x01", b"\xc0\0\x02\x07", 5, 900, 3))]  # fmt: skip
    body = b"".join(struct.pack("!HH", number, 4 + len(part)) + part for number, part in options)
    ipfix = struct.pack("!HHIII", 10, 16 + len(body), 1_800_000_000, 0, 7) + body
    made = [
        build(records, domain, number, templates=whole)
        for build in (exporter.netflow9, exporter.ipfix)
        for domain, number, whole in ((7, 0, True), (0, 1, False))
    ]
    return [five + flow * 2, ipfix, *made, *golden("flow")]


def made_flows(folder: Path) -> Survive:
    """Templates, options and data that more or less belong together: what bytes changed by chance seldom are."""
    survive = flow_port(folder)

    def made(data: bytes) -> None:
        chance = random.Random(data)
        for _ in range(chance.randint(1, 8)):
            survive(flow_datagram(chance))

    return made


def flow_datagram(chance: random.Random) -> bytes:
    """Of version 5, or of 9 and 10 with templates, options and data."""
    kind, sets = chance.choice((5, 9, 10)), []
    if kind == 5:
        numbers = [chance.randrange(1 << 32) for _ in range(4)]
        head = struct.pack("!HHIIIIBBH", 5, chance.randrange(41), *numbers, 0, 1, chance.randrange(1 << 16))
        return head + chance.randbytes(chance.randrange(48 * 4 + 1))
    for _ in range(chance.randrange(5)):
        number = chance.choice((256, 257, 258, 300))
        if kind == 10 and chance.random() < 0.2:
            sets += flow_lists(chance)
        elif chance.random() < 0.5:
            sets.append(flow_template(chance, kind, number, chance.random() < 0.3))
        else:
            sets.append((number, chance.randbytes(chance.choice((0, 4, 24, 120, 1400)))))
    body = b"".join(struct.pack("!HH", number, 4 + len(part)) + part for number, part in sets)
    count, domain = chance.randrange(1 << 32), chance.randrange(4)
    if kind == 9:
        return struct.pack("!HHIIII", 9, len(sets), chance.randrange(1 << 32), 1_800_000_000, count, domain) + body
    return struct.pack("!HHIII", 10, 16 + len(body), 1_800_000_000, count, domain) + body


def flow_template(chance: random.Random, kind: int, number: int, options: bool) -> tuple[int, bytes]:
    fields = [
        (chance.choice(ELEMENTS), chance.choice((0, 1, 2, 4, 4, 4, 8, 8, 16, 255, 65535)))
        for _ in range(chance.randrange(13))
    ]
    specified = b"".join(
        struct.pack("!HH", element, size) + (bytes(4) if kind == 10 and element & 0x8000 else b"")
        for element, size in fields
    )
    head = struct.pack("!HH", number, len(fields))
    if options:
        head = struct.pack("!HHH", number, *((4, len(specified)) if kind == 9 else (len(fields), 1)))
    return {(9, False): 0, (9, True): 1, (10, False): 2, (10, True): 3}[kind, options], head + specified


def flow_lists(chance: random.Random) -> list[tuple[int, bytes]]:
    """An option with lists in it (RFC 6313), and its data, of which a byte may be another one."""
    kind = chance.choice((291, 292, 293))
    template = struct.pack("!HHHHHHH", 301, 2, 1, 301, 8, kind, 65535)
    content = bytearray(flow_list(chance, kind, chance.randrange(8)))
    if content and chance.random() < 0.3:
        content[chance.randrange(len(content))] = chance.randrange(256)
    return [(3, template), (301, bytes(8) + b"\xff" + struct.pack("!H", len(content)) + bytes(content))]


def flow_list(chance: random.Random, kind: int, deep: int) -> bytes:
    """One of elements, or of lists of them, and the records of templates that may be there."""
    semantic, inner = chance.choice((0, 3, 4, 4, 255)), chance.choice((291, 292, 293))
    lists = [flow_list(chance, inner, deep - 1) for _ in range(chance.randrange(4))] if deep else []
    within = b"".join(b"\xff" + struct.pack("!H", len(one)) + one for one in lists)
    if kind == 291 and deep:
        return struct.pack("!BHH", semantic, inner, 65535) + within
    if kind == 291:
        return struct.pack("!BHH", semantic, chance.choice(ELEMENTS), chance.choice((0, 4, 8))) + chance.randbytes(40)
    number, records = chance.choice((256, 257, 258, 300)), within or chance.randbytes(chance.randrange(60))
    head = struct.pack("!BH", semantic, number)
    return head + (records if kind == 292 else struct.pack("!H", 4 + len(records)) + records)


TABLES = 128 << 20
"""Datagrams that wait for templates, templates, flows of which totals are known, and what came lately."""
# Elements that something depends on, and others
ELEMENTS = (1, 2, 4, 5, 8, 10, 12, 14, 21, 22, 23, 27, 28, 34, 48, 50, 85, 86, 149, 150, 152, 153, 156, 160, 291,
            292, 293, 302, 304, 305, 306, 309, 310, 0x8001, 999)  # fmt: skip


# files of call records


MEANT: dict[str, Any] = {
    "files": "*.csv",
    "format": "csv",
    "usageType": "voice",
    "whose": {"address": "ip"},
    "start": {"column": "begin", "format": "%d.%m.%Y %H:%M:%S", "zone": "Europe/Berlin"},
    "end": {"column": "end"},
    "counts": {"octets": {"column": "kb", "times": 1024}},
    "texts": {"called": {"column": "called"}},
}
VOICE = Source.model_validate(MEANT)
NUMBERED = Source.model_validate(
    {
        "files": "*.csv",
        "format": "csv",
        "header": False,
        "delimiter": ";",
        "encoding": "latin-1",
        "usageType": "data",
        "whose": {"service": 1},
        "start": {"column": 2, "format": "epoch"},
        "counts": {"octets": {"column": 3}},
    }
)
LINES = Source.model_validate(
    {
        "files": "*.jsonl",
        "format": "jsonl",
        "usageType": "data",
        "whose": {"service": "service"},
        "start": {"column": "begin", "format": "epochMillis"},
        "end": {"column": "end", "format": "iso8601", "zone": "UTC"},
        "counts": {"octets": {"column": "octets", "times": "0.5"}},
        "texts": {"apn": {"column": "apn"}},
    }
)
CSV = (
    b"ip,begin,end,kb,called\n"
    b'10.0.0.1,26.11.2026 10:00:00,2026-11-26T09:05:00Z,1.5,"+49,1"\n\n'
    b"2001:db8::1,26.11.2026 10:00:00,2026-11-26T10:05:00+01:00,7,\n"
)
PLAIN = b"svc-1;1777636800;9000\nsvc-2;1777636800.25;1\r\n"
JSON = (
    b'{"service": "svc-1", "begin": 1777636800000, "end": "2026-05-01T12:00:01Z", "octets": 8, "apn": "internet"}\n'
    b'{"service": 7, "begin": "1777636800000", "end": "2026-05-01T12:00:01", "octets": "1e1"}\n'
)


def call_file(source: Source) -> Callable[[Path], Survive]:
    """Each line of a file is a record that can be kept, or has a reason; none is left out."""

    def begin(folder: Path) -> Survive:
        def survive(data: bytes) -> None:
            told = 0
            try:
                for part in parts(io.BytesIO(data), source, "known", Progress("calls")):
                    orjson.dumps([part.records, [one._asdict() for one in part.rejected]])
                    assert all(map(kept, part.records))
                    assert all(one.reason for one in part.rejected)
                    told += len(part.records) + len(part.rejected)
                    assert part.offset <= len(data)
            except BadLine:
                return
            else:
                assert told <= data.count(b"\n") + 1

        return survive

    return begin


def kept(record: Mapping[str, Any]) -> bool:
    """Whether a record is what the contract says, and what bus and store can keep."""
    return (
        0 <= record["start"] <= record["end"] < 2**32
        and all(isinstance(value, int) and 0 <= value < 2**63 for value in record["counts"].values())
        and all(isinstance(value, str) and "\0" not in value for value in record["texts"].values())
    )


# NETCONF


SERVICE, EVENTS = yang.load()["internet-access"], yang.load_events()


def session(base: NetconfBase) -> Callable[[Path], Survive]:
    """What a device sends over a session ends as an answer, as a notification, or as the session's end."""

    def begin(folder: Path) -> Survive:
        def survive(data: bytes) -> None:
            heard = PromptSession(make_device_handler({"name": "default"}), None)
            heard._base = base
            answers = Answers()
            answers._number = "1"
            greeted: list[Any] = []
            for listener in (
                HelloHandler(lambda *said: greeted.append(said), greeted.append),
                NotificationHandler(heard._notification_q),
                answers,
            ):
                heard.add_listener(listener)
            try:
                for at in range(0, len(data), 4096):
                    heard.parser.parse(data[at : at + 4096])
            except Exception as error:
                heard._dispatch_error(error)  # as the session's thread does, which ends
            if answers._raw:
                answered(answers._raw)
            while not heard._notification_q.empty():
                notified(heard._notification_q.get().notification_ele)

        return survive

    return begin


def answered(raw: str) -> None:
    """As a call takes an answer: what is not understood is the session's end."""
    try:
        answer = Answer(raw)
    except (*BROKEN, etree.LxmlError):
        return
    if answer.errors:
        assert "secret" not in Denied("commit", answer.errors, ["secret"]).words
        assert all(isinstance(error, RPCError) for error in answer.errors)
    found = SERVICE.read(answer.data_ele, "acc-1")
    SERVICE.differing({"vlan-id": "100", "bandwidth": None}, found)


def notified(notification: etree._Element) -> None:
    """As a listener takes a notification: what is not understood is a ValueError, which it counts."""
    alone = Listener.__new__(Listener)
    alone._at, alone._alike = "", Counter()
    try:
        seen = EVENTS.observation(notification, "pe1", "acme", alone._number(notification))
    except ValueError:
        return
    if seen is not None:
        orjson.dumps(vars(seen))


def framed(*messages: str) -> bytes:
    whole = (message.encode() for message in messages)
    return b"".join(b"\n#%d\n%s\n##\n" % (len(message), message) for message in whole)


HELLO = (
    f'<?xml version="1.0" encoding="UTF-8"?><hello xmlns="{NC}"><capabilities>'
    "<capability>urn:ietf:params:netconf:base:1.1</capability>"
    "<capability>urn:ietf:params:netconf:capability:candidate:1.0</capability>"
    "<capability>urn:convergedon:yang:access?module=access&amp;revision=2026-01-01</capability>"
    "</capabilities><session-id>4</session-id></hello>"
)
REPLIES = (
    f'<rpc-reply xmlns="{NC}" message-id="1"><ok/></rpc-reply>',
    f'<rpc-reply xmlns="{NC}" message-id="1"><data><accesses xmlns="urn:convergedon:yang:access"><access>'
    "<name>acc-1</name><vlan-id>100</vlan-id><bandwidth>200</bandwidth></access></accesses></data></rpc-reply>",
    f'<rpc-reply xmlns="{NC}" message-id="1"><rpc-error><error-type>protocol</error-type><error-tag>lock-denied'
    "</error-tag><error-severity>error</error-severity><error-app-tag>x</error-app-tag><error-path>/a:b</error-path>"
    '<error-message xml:lang="en">secret</error-message><error-info><session-id>7</session-id></error-info>'
    "</rpc-error><rpc-error><error-severity>warning</error-severity></rpc-error></rpc-reply>",
)
TOLD = (
    f'<notification xmlns="{NOTIFICATION}"><eventTime>2026-05-01T12:00:00Z</eventTime>'
    '<interface-state xmlns="urn:convergedon:yang:access"><interface>ge-0/0/1</interface>'
    "<oper-status>down</oper-status></interface-state></notification>",
    f'<n:notification xmlns:n="{NOTIFICATION}"><n:eventTime>2026-05-01T12:00:00.5+01:00</n:eventTime>'
    f"<n:replayComplete/></n:notification>",
)
NAMES = 250
"""Bytes: libxml2 keeps each name that it has read, for each thread; 40 for a name, measured."""
XML_WORDS = [
    b"<!DOCTYPE a [<!ENTITY b 'bbbbbbbbbb'><!ENTITY c '&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;'>]>", b"&b;", b"&c;", b"&#0;",
    b"&#xFFFF;", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"]]>]]>", b"<?a b?>", b"<", b">", b"/>", b"</", b'xmlns="a"',
    b'xmlns:n="../relative"', b'xmlns=""', b"<a>", b"<a:b>", b"\xff\xfe", b"\xef\xbb\xbf", b"encoding='utf-16'",
    b"\n##\n", b"\n#4294967295\n", b"\n#1\n", b"\n#0\n", b"2026-05-01T12:00:00", b"0001-01-01T00:00:00",
    b"9999-12-31T23:59:59-23:59", b"99999", b"<eventTime/>", b"message-id='1'", b"<data/>", b"<rpc-error/>",
]  # fmt: skip


# what operators write


def text_file(name: str, load: Callable[[Path], Any]) -> Callable[[Path], Survive]:
    """A file is read, or refused in a sentence that names it."""

    def begin(folder: Path) -> Survive:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)

        def survive(data: bytes) -> None:
            file.write_bytes(data)
            refused = ""
            try:
                load(file)
            except Misconfigured as error:
                refused = str(error)
            assert not refused or str(file) in refused, refused

        return survive

    return begin


def all_names(file: Path) -> None:
    names = mibs.load(file.parent)
    for module, symbol in [place for place in names.places if place[0] not in ("IF-MIB", "SNMPv2-MIB")][:20]:
        names.oid(f"{module}::{symbol}")


def shipped(file: Traversable) -> bytes:
    return file.read_bytes()


MIB = b"""ACME-MIB DEFINITIONS ::= BEGIN
IMPORTS enterprises, MODULE-IDENTITY FROM SNMPv2-SMI TRAP-TYPE FROM RFC-1215;
acme MODULE-IDENTITY LAST-UPDATED "202601010000Z" ORGANIZATION "a" CONTACT-INFO "b" DESCRIPTION "c"
  ::= { enterprises 99999 }
fan OBJECT-TYPE SYNTAX INTEGER { ok(1), bad(2) } -- a comment
  MAX-ACCESS read-only STATUS current DESCRIPTION "a fan" ::= { acme box(2) 3 }
fanBad NOTIFICATION-TYPE OBJECTS { fan } STATUS current DESCRIPTION "it broke" ::= { acme 0 1 }
fanOut TRAP-TYPE ENTERPRISE acme VARIABLES { fan } DESCRIPTION "a fan" ::= 3
loop OBJECT IDENTIFIER ::= { loop2 1 }
loop2 OBJECT IDENTIFIER ::= { loop 1 }
END
"""
INVENTORY = b"""devices:
  pe1:
    tenant: acme
    address: 192.0.2.1
    netconf: {port: 830, username: us, password: secret, hostKey: AAAA, notifications: true}
    snmp:
      interfaces: {1: ge-0/0/1, 2: ge-0/0/2}
      user: north
      authKey: north-auth-phrase
      poll: {interval: 60}
    flow: {observationDomain: 7}
  "pe2": {tenant: globex, address: "2001:db8::1"}
"""
TRAP_MAPPING = b"""services:
  access-port:
    instance: {label: IF-MIB::ifAlias, at: interface}
    leaves:
      state: {object: IF-MIB::ifAdminStatus, type: integer, words: {up: 1, down: 2}, absent: down}
    reads:
      operStatus: {object: IF-MIB::ifOperStatus, type: integer, words: {up: 1, down: 2}}
  system:
    instance: device
    leaves:
      contact: {object: SNMPv2-MIB::sysContact, type: text, longest: 255, absent: ""}
      speed: {object: 1.3.6.1.4.1.99999.1, type: gauge, least: 1, most: 9}
notifications:
  IF-MIB::linkDown: &down
    name: linkDown
    kind: fault
    alarmType: communicationsAlarm
    perceivedSeverity: major
    probableCause: lossOfSignal
    specificProblem: linkDown
    object: [{index: IF-MIB::ifIndex, names: interfaces}, IF-MIB::ifName, {index: 1.3.6.1, as: "i.{index}"}]
    key: "link:{object}"
  1.3.6.1.4.1.99999.0.1:
    <<: *down
    name: fanBad
    probableCause: {number: ITU-ALARM-MIB::ituAlarmProbableCause, otherwise: 107}
"""
CALLS = b"""sources:
  voice:
    files: "voice-*.csv"
    format: csv
    delimiter: ","
    header: true
    encoding: utf-8
    tenant: acme
    usageType: voice
    whose: {service: serviceId}
    start: {column: begin, format: "%d.%m.%Y %H:%M:%S", zone: Europe/Berlin}
    end: {column: finish}
    counts:
      seconds: {column: duration}
      octets: {column: kilobytes, times: 1024}
    texts:
      called: {column: called}
"""
YAML_WORDS = [
    b"&a ", b"*a", b"<<: ", b"<<: *down", b"{", b"}", b"[", b"]", b"? ", b"- ", b": ", b"\n", b"\n  ", b"#", b"'",
    b'"', b"|\n", b">", b"!!python/object:os.system", b"!!binary ", b"!!set ", b"!!timestamp ", b"!!omap", b"null",
    b"~", b"true", b"1e400", b".inf", b".nan", b"0x10", b"0o7", b"1_000", b"190:20:30", b"2026-05-01",
    b"2026-13-45", b"%YAML 1.1", b"---\n", b"...\n", b"\0", b"\x85", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xff\xfe",
    b"\t", b"-" * 20, b"9" * 5000,
]  # fmt: skip


def written(name: str, load: Callable[[Path], Any], *samples: bytes, words: Sequence[bytes] = YAML_WORDS) -> Target:
    return Target(Path(name).name, samples, text_file(name, load), words)


TARGETS = (
    Target("trap-port", TRAPS, trap_port),
    Target(
        "snmp-version-3", [scoped(ber.TRAP), scoped(ber.TRAP, b""), b"\xff" + scoped(ber.INFORM)], inside_version_3
    ),
    Target("trap-capture", [*captured(TRAPS[0]), *captured(TRAPS[-1])], a_capture),
    Target("snmp-agent", [*requests(), usm.question(7)], agent_port),
    Target("snmp-answers", answers.ANSWERS, answers.device(community="public"), answers.WORDS),
    Target("snmp-answers-1", answers.FIRST, answers.device(community="public", version="1"), answers.WORDS),
    Target("snmp-answers-3", answers.SECURED, answers.device((*answers.ASKED, answers.discover), **answers.KEYS),
           answers.WORDS),
    Target("flow-port", flows(), flow_port, tables=TABLES),
    Target("flow-templates", [b"seed"], made_flows, tables=TABLES),
    Target("call-csv", [CSV], call_file(VOICE), [b'"', b",", b"\r", b"\n", b"\xef\xbb\xbf", b"\0", b"1e999", b"NaN"]),
    Target("call-numbered", [PLAIN], call_file(NUMBERED), [b'"', b";", b"\r\n", b"9" * 30, b"inf", b"-0", b"1e308"]),
    Target("call-json", [JSON], call_file(LINES), [b"{", b"[", b'"', b"null", b"1e999", b"\\ud800", b"9" * 30]),
    Target("netconf-1-0", [m.encode() + b"]]>]]>" for m in (HELLO, *REPLIES, *TOLD)], session(NetconfBase.BASE_10),
           XML_WORDS, NAMES),
    Target("netconf-1-1", [framed(HELLO), *map(framed, REPLIES), framed(*TOLD)], session(NetconfBase.BASE_11),
           XML_WORDS, NAMES),
    written("snmp.yaml", traps.load, TRAP_MAPPING),
    written("walk.yaml", recording.read, b"about: it\nvalues:\n"
            b"  1.3.6.1.2.1.1.3.0: {kind: ticks, value: 7, grows: 100.0}\n"
            b"  1.3.6.1.2.1.1.1.0: {kind: octets, value: '0x00ff'}\n  1.3.6.1.2: {kind: ip, value: 192.0.2.1}\n"),
    written("netconf.yaml", lambda file: (yang.load(file), yang.load_events(file)), shipped(yang.SHIPPED)),
    written("file.yaml", calls.load, CALLS),
    written("mibs/ACME-MIB.txt", all_names, MIB, words=[b"::=", b"{", b"}", b"(", b"--", b'"', b"OBJECT-TYPE",
            b"fan OBJECT-TYPE ", b"MACRO ::= BEGIN", b"END", b"DEFINITIONS ::= BEGIN", b"IMPORTS", b";", b"FROM",
            b"iso", b"OBJECT IDENTIFIER", b"a TRAP-TYPE ENTERPRISE b "]),
    written("devices.yaml", inventory.load, INVENTORY),
    written("metering.yaml", intervals.load, b"usageTypes:\n"
            b"  ip-traffic: {interval: 300, grace: 60, keys: [exporter]}\n"),
    written("products.yaml", planning.load, shipped(files("convergedon.mediation") / "products.yaml")),
    written("tariff.yaml", rating.load, b"currency: EUR\nplaces: 2\ntax: '0.19'\ncharges:\n  ip-traffic:\n"
            b"    - {name: down, characteristic: octetsDown, per: 1000, price: '0.5'}\n"),
)  # fmt: skip
