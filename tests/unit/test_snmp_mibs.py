"""Names of MIB objects: the table that ships, and MIB text that is given, whatever stands in it."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from convergedon.adapters.snmp import ber, lab, mapping, mibs, trying
from convergedon.core import settings
from convergedon.core.cli import main
from convergedon.core.errors import Misconfigured

ACME = """
-- a MIB as makers write them
ACME-FAN-MIB DEFINITIONS ::= BEGIN

IMPORTS
    MODULE-IDENTITY, OBJECT-TYPE, NOTIFICATION-TYPE, enterprises, Integer32 FROM SNMPv2-SMI
    acmeProducts
        FROM ACME-SMI;

acmeFan MODULE-IDENTITY
    LAST-UPDATED "202601010000Z"
    ORGANIZATION "ACME ::= { not 1 }"
    CONTACT-INFO "nobody"
    DESCRIPTION "It says: x OBJECT IDENTIFIER ::= { enterprises 9 }"
    ::= { enterprises 4711 20 }

-- fanLie OBJECT IDENTIFIER ::= { acmeFan 99 }
fanTraps OBJECT IDENTIFIER ::= { acmeFan fans(0) }
fanIndex OBJECT-TYPE
    SYNTAX      Integer32 (1..64)
    MAX-ACCESS  read-only
    STATUS      current
    DESCRIPTION "which"
    ::= { acmeFan 1 }
fanFailed NOTIFICATION-TYPE
    OBJECTS { fanIndex }
    STATUS current
    DESCRIPTION "a fan
stopped"
    ::= { fanTraps 7 }
product OBJECT IDENTIFIER ::= { acmeProducts 1 }
END
"""
OLD = """
ACME-OLD-MIB DEFINITIONS ::= BEGIN
IMPORTS enterprises FROM RFC1155-SMI  TRAP-TYPE FROM RFC-1215;
acme OBJECT IDENTIFIER ::= { enterprises 4711 }
fanOut TRAP-TYPE ENTERPRISE acme VARIABLES { fanNumber } DESCRIPTION "a fan" ::= 3
loop OBJECT IDENTIFIER ::= { loop2 1 }
loop2 OBJECT IDENTIFIER ::= { loop 1 }
END
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mibs").mkdir()
    (tmp_path / "mibs" / "ACME-FAN-MIB.txt").write_text(ACME)
    (tmp_path / "mibs" / "old.my").write_text(OLD)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "oid"),
    [
        ("IF-MIB::linkDown", "1.3.6.1.6.3.1.1.5.3"),
        ("IF-MIB::ifName.3", "1.3.6.1.2.1.31.1.1.1.1.3"),
        ("ACME-FAN-MIB::fanFailed", "1.3.6.1.4.1.4711.20.0.7"),
        ("ACME-FAN-MIB::fanIndex", "1.3.6.1.4.1.4711.20.1"),
        ("ACME-OLD-MIB::fanOut", "1.3.6.1.4.1.4711.0.3"),
    ],
)
def test_a_name_is_the_oid_that_its_mib_says(folder, name, oid):
    assert mibs.load(folder / "mibs").oid(name) == oid


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ACME-FAN-MIB::fanLie", "ACME-FAN-MIB has no such name"),
        ("ACME-FAN-MIB::x", "ACME-FAN-MIB has no such name"),
        ("IF-MIB::linkDwn", "IF-MIB has no such name; did you mean linkDown?"),
        ("OTHER-MIB::fan", "add the text of OTHER-MIB"),
        ("ACME-FAN-MIB::product", r"ACME-FAN-MIB.txt, line 31: product stands below acmeProducts.*text of ACME-SMI"),
        ("ACME-OLD-MIB::loop", "stands below itself"),
    ],
)
def test_a_name_that_leads_nowhere_is_told_with_what_is_missing(folder, name, words):
    with pytest.raises(Misconfigured, match=words):
        mibs.load(folder / "mibs").oid(name)


def test_a_file_that_is_no_mib_is_told(folder):
    (folder / "mibs" / "notes").write_text("buy milk")

    with pytest.raises(Misconfigured, match=r"notes: this is no MIB"):
        mibs.load(folder / "mibs")


def test_a_mib_that_is_wrong_is_told_with_its_line(folder):
    (folder / "mibs" / "old.my").write_text(OLD.replace("loop2 OBJECT IDENTIFIER", "loop2 OBJECT"))

    with pytest.raises(Misconfigured, match=r"old\.my, line 7: pysmi cannot read this MIB"):
        mibs.load(folder / "mibs")


@pytest.mark.parametrize("word", mibs.SKIPPED)
def test_a_text_that_would_take_too_long_is_refused(folder, word):
    (folder / "mibs" / "odd.txt").write_text("A DEFINITIONS ::= BEGIN " + f"{word} " * 8_000)

    with pytest.raises(Misconfigured, match=f"odd.txt: a MIB with more than 100 {word}s"):
        mibs.load(folder / "mibs")


def test_a_text_is_read_once(folder, monkeypatch):
    """Its names are kept; another text, another grammar or a damaged file has it read anew."""
    kept, wanted = folder / "data" / "snmp-mibs.json", "ACME-FAN-MIB::fanFailed"
    first = mibs.load(folder / "mibs", kept)
    texts = json.loads(kept.read_text())["texts"]
    monkeypatch.setitem(sys.modules, "pysmi.parser", None)  # whoever asks for it now fails
    mibs._parser.cache_clear()
    again = mibs.load(folder / "mibs", kept)
    (folder / "mibs" / "more.txt").write_text("MORE-MIB DEFINITIONS ::= BEGIN a OBJECT IDENTIFIER ::= { iso 9 } END")
    with pytest.raises(ImportError):
        mibs.load(folder / "mibs", kept)
    monkeypatch.undo()
    kept.write_text("{")
    whole = mibs.load(folder / "mibs", kept)

    assert len(texts) == 2
    assert again.oid(wanted) == first.oid(wanted) == whole.oid(wanted)
    assert again.places == first.places
    assert whole.oid("MORE-MIB::a") == "1.9"
    assert len(json.loads(kept.read_text())["texts"]) == 3


def test_where_nothing_can_be_kept_it_is_read_each_time(folder):
    (folder / "file").write_text("")

    assert mibs.load(folder / "mibs", folder / "file" / "snmp-mibs.json").oid("ACME-FAN-MIB::fanFailed")


@given(st.text(alphabet='abA-:={}()1 "\n,;', max_size=200))
def test_whatever_stands_in_a_mib_is_read_or_refused(text):
    names = mibs.Names()
    with suppress(Misconfigured):
        for module in mibs._read(Path("file"), "A DEFINITIONS ::= BEGIN " + text):
            mibs._take(names, Path("file"), module)
        for module, symbol in list(names.places):
            names.oid(f"{module}::{symbol}")


MAPPING = {
    "ACME-FAN-MIB::fanFailed": {
        "name": "fanFailed",
        "kind": "fault",
        "alarmType": "equipmentAlarm",
        "perceivedSeverity": "minor",
        "probableCause": "heatingOrVentilationOrCoolingSystemProblem",
        "specificProblem": "a fan stopped",
        "object": [{"index": "ACME-FAN-MIB::fanIndex", "as": "fan {index}"}],
        "key": "fan:{object}",
    }
}


@pytest.fixture
def mapped(folder):
    (folder / "snmp.yaml").write_text(yaml.safe_dump({"notifications": MAPPING}, sort_keys=False))
    return folder


FAN = [(ber.TRAP_OID, ber.OID, "1.3.6.1.4.1.4711.20.0.7"), ("1.3.6.1.4.1.4711.20.1.5", ber.INTEGER, 5)]


def test_a_mapping_uses_the_names_of_mibs_beside_it(mapped):
    found = mapping.load(mapped / "snmp.yaml", mapped / "mibs").notifications

    assert found["1.3.6.1.4.1.4711.20.0.7"].object[0].index == "1.3.6.1.4.1.4711.20.1"


def test_a_name_that_is_not_known_is_told_with_file_line_and_key(mapped):
    text = (mapped / "snmp.yaml").read_text().replace("ACME-FAN-MIB::fanIndex", "ACME-FAN-MIB::fanIndx")
    (mapped / "snmp.yaml").write_text(text)
    line = next(n for n, words in enumerate(text.splitlines(), 1) if "fanIndx" in words)

    with pytest.raises(
        Misconfigured, match=rf"snmp\.yaml, line {line}: .*object.0.index: ACME-FAN-MIB::fanIndx is not"
    ):
        mapping.load(mapped / "snmp.yaml", mapped / "mibs")


def test_the_same_notification_by_name_and_by_number_is_given_twice(tmp_path):
    shipped = yaml.safe_load(mapping.SHIPPED.read_text())["notifications"]
    both = {"notifications": {**shipped, "1.3.6.1.6.3.1.1.5.3": shipped["IF-MIB::linkDown"]}}
    (tmp_path / "snmp.yaml").write_text(yaml.safe_dump(both))

    with pytest.raises(Misconfigured, match=r"1\.3\.6\.1\.6\.3\.1\.1\.5\.3 is given twice"):
        mapping.load(tmp_path / "snmp.yaml")


@pytest.mark.parametrize("written", [bytes, lambda data: data.hex().encode(), lambda data: data.hex(" ").encode()])
def test_the_command_shows_what_a_recorded_trap_would_become(mapped, written):
    (mapped / "trap").write_bytes(written(ber.encode(b"secret", FAN, request=1)))
    command = ["adapter", "map", "--trap", str(mapped / "trap"), "--source", "192.0.2.9", "--data", str(mapped)]
    done = CliRunner().invoke(main, command, env={"CONVERGEDON_MAPPINGS": str(mapped)})
    told = json.loads(done.output)

    assert (told["kind"], told["device"], told["object"], told["key"]) == ("fault", "192.0.2.9", "fan 5", "fan:fan 5")
    assert "secret" not in done.output


def test_what_is_no_trap_is_told_in_a_sentence(tmp_path):
    (tmp_path / "trap").write_bytes(b"noise")
    done = CliRunner().invoke(main, ["adapter", "map", "--trap", str(tmp_path / "trap")])

    assert done.exit_code
    assert "no notification" in done.output


def test_a_recording_is_a_golden_case_without_the_community(tmp_path):
    chosen = settings.load(data=tmp_path)
    inform = lab.link("down", "127.0.10.1", "eth0", 3, "swordfish", inform=True)
    first = lab.link("up", "127.0.10.1", "eth0", 3, "swordfish", version=1)
    sent = [trying.Packet(data, "127.0.0.1") for data in (first, inform)]
    reader = trying.Reader(chosen, {})
    case = trying.Case(reader, tmp_path / "case")
    for packet in sent:
        case.add(reader.anonymous(packet))
    said = yaml.safe_load((tmp_path / "case" / "observations.yaml").read_text())

    assert [one["key"] for one in said] == ["link:eth0", "link:eth0"]
    assert [
        ber.decode(bytes.fromhex(one)).community for one in yaml.safe_load((tmp_path / "case/packets.yaml").read_text())
    ] == [b"public"] * 2
    with pytest.raises(Misconfigured, match="is there already"):
        trying.Case(reader, tmp_path / "case")
