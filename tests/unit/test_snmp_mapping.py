"""What traps mean is strict data: a mapping that cannot be right is refused with the file and the key."""

import pytest
import yaml

from convergedon.adapters.contract import Device
from convergedon.adapters.snmp import ber, create, lab, mapping
from convergedon.core import settings
from convergedon.core.errors import Misconfigured

FAULT = {
    "name": "fanFailed",
    "kind": "fault",
    "alarmType": "equipmentAlarm",
    "perceivedSeverity": "minor",
    "probableCause": "coolingFanFailure",
    "specificProblem": "a fan stopped",
    "object": ["1.3.6.1.4.1.4711.2"],
    "key": "fan:{object}",
}
OID = "1.3.6.1.4.1.4711.0.1"


def refused(folder, notifications, raw=""):
    file = folder / "mapping.yaml"
    file.write_text(raw or yaml.safe_dump({"notifications": notifications}))
    with pytest.raises(Misconfigured) as refusal:
        mapping.load(file)
    assert str(refusal.value).startswith(str(file))
    return str(refusal.value).removeprefix(str(file))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "event"),
        ("alarmType", "CommunicationsAlarm"),
        ("perceivedSeverity", "cleared"),
        ("perceivedSeverity", "Major"),
        ("probableCause", "Loss Of Signal"),
        ("name", ""),
        ("key", "fan"),
        ("key", "fan:{part}"),
        ("object", ["ifName"]),
        ("object", [{"index": "1.3.6.1"}]),
        ("object", [{"index": "1.3.6.1", "as": "ifIndex"}]),
        ("severity", "minor"),
    ],
)
def test_a_wrong_entry_is_refused_with_file_and_key(tmp_path, key, value):
    sentence = refused(tmp_path, {OID: {**FAULT, key: value}})

    assert f"notifications.{OID}" in sentence
    assert key in sentence


def test_a_cause_that_nobody_knows_is_refused_with_what_may_be_meant(tmp_path):
    sentence = refused(tmp_path, {OID: {**FAULT, "probableCause": "collingFanFailure"}})

    assert sentence.startswith(f", line 10: notifications.{OID}.probableCause: ")
    assert sentence.endswith("did you mean coolingFanFailure?")


@pytest.mark.parametrize("given", ["lossOfSignal", "lossOfSignalX733", 8, 527])
def test_a_cause_is_one_whatever_its_spelling(tmp_path, given):
    (tmp_path / "snmp.yaml").write_text(yaml.safe_dump({"notifications": {OID: {**FAULT, "probableCause": given}}}))

    assert mapping.load(tmp_path / "snmp.yaml").notifications[OID].probableCause == "lossOfSignal"


@pytest.mark.parametrize(
    ("sent", "told"), [(107, "coolingFanFailure"), (519, "heatingOrVentilationOrCoolingSystemProblem"), (9999, "other")]
)
def test_a_cause_that_a_trap_carries_is_told_by_its_name(tmp_path, sent, told):
    carried = {"number": "ITU-ALARM-MIB::ituAlarmProbableCause", "otherwise": 1024}
    (tmp_path / "snmp.yaml").write_text(yaml.safe_dump({"notifications": {OID: {**FAULT, "probableCause": carried}}}))
    varbinds = [(ber.TRAP_OID, ber.OID, OID), ("1.3.6.1.2.1.121.1.1.1.1.3.7", ber.INTEGER, sent)]
    trap = ber.decode(ber.encode(b"public", varbinds, request=1))
    found = mapping.interpret(trap, mapping.load(tmp_path / "snmp.yaml").notifications, {}, "127.0.0.1")

    assert found.attributes["probableCause"] == told


def test_a_missing_key_is_refused(tmp_path):
    entry = {name: value for name, value in FAULT.items() if name != "alarmType"}

    assert refused(tmp_path, {OID: entry}) == f", line 2: notifications.{OID}.alarmType: this key is missing"


def test_a_clear_that_clears_nothing_is_refused(tmp_path):
    clear = {**FAULT, "kind": "clear", "perceivedSeverity": "cleared", "key": "fann:{object}"}

    assert "no fault has the key fann:{object}" in refused(tmp_path, {OID: FAULT, OID[:-1] + "2": clear})


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("notifications: {1.3.6.1: {}, 1.3.6.1: {}}", "given twice"),
        ("notifications: [", "line 1"),
        ("- 1", "the file"),
        ("notification: {}", "notification"),
        ("notifications: {linkDown: {}}", "linkDown"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, raw, words):
    assert words in refused(tmp_path, None, raw)


def test_what_ships_covers_the_standard_traps_in_pairs():
    shipped = mapping.load().notifications
    by_name = {entry.name: entry for entry in shipped.values()}

    assert {f"{ber.STANDARD_TRAPS}.{n}" for n in (1, 2, 3, 4, 5)} <= set(shipped)
    assert by_name["linkUp"].key == by_name["linkDown"].key
    assert by_name["bgpEstablished"].key == by_name["bgpBackwardTransition"].key


def meaning(varbinds, oid=lab.LINK_TRAPS["down"], interfaces=None):
    datagram = ber.encode(b"public", [(ber.TRAP_OID, ber.OID, oid), *varbinds], request=1)
    return mapping.interpret(ber.decode(datagram), mapping.load().notifications, interfaces or {}, "127.0.0.1")


NAME = (f"{lab.IF_NAME}.3", ber.OCTETS, b"ge-0/0/3")
DESCRIPTION = ("1.3.6.1.2.1.2.2.1.2.3", ber.OCTETS, b"GigabitEthernet0/0/3")
INDEX = (f"{lab.IF_INDEX}.3", ber.INTEGER, 3)
STATUS = (f"{lab.IF_OPER}.3", ber.INTEGER, 2)


@pytest.mark.parametrize(
    ("varbinds", "interfaces", "name"),
    [
        ([INDEX, DESCRIPTION, NAME], {}, "ge-0/0/3"),
        ([INDEX, DESCRIPTION, (NAME[0], ber.OCTETS, b"")], {}, "GigabitEthernet0/0/3"),
        ([INDEX], {}, "ifIndex.3"),
        ([STATUS], {}, "ifIndex.3"),
        ([STATUS], {3: "uplink"}, "uplink"),
        ([INDEX, NAME], {3: "uplink"}, "uplink"),
        ([INDEX, NAME], {4: "uplink"}, "ge-0/0/3"),
        ([("1.3.6.1.2.1.2.2.1.10.3", ber.COUNTER, 1)], {}, ""),
    ],
)
def test_an_interface_is_named_by_the_best_that_is_known(varbinds, interfaces, name):
    found = meaning(varbinds, interfaces=interfaces)

    assert (found.object, found.key) == (name, f"link:{name}")


@pytest.mark.parametrize("oid", ["1.3.6.1.2.1.15.7.2", "1.3.6.1.2.1.15.0.2"])
def test_a_peer_is_the_same_in_old_and_new_bgp_traps(oid):
    by_index = meaning([("1.3.6.1.2.1.15.3.1.2.10.0.0.2", ber.INTEGER, 1)], oid)
    by_value = meaning([("1.3.6.1.2.1.15.3.1.7.10.0.0.2", ber.IP, "10.0.0.2")], oid)

    assert by_index.key == by_value.key == "bgp:10.0.0.2"


def test_interfaces_that_are_no_names_are_refused_with_the_device():
    device = Device("pe1", "acme", "127.0.10.1", {"snmp": {"interfaces": {"three": "eth0"}}})

    with pytest.raises(Misconfigured, match=r"device pe1: snmp[.]interfaces"):
        create(settings.load(), {"pe1": device})
