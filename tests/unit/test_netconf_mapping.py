"""What a service is on a NETCONF device: strict data, and its XML there and back."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from convergedon.adapters.netconf import mapping
from convergedon.core.errors import Invalid, Misconfigured

ACCESS: dict[str, Any] = {
    "namespace": "urn:example:access",
    "path": "/accesses/access",
    "key": "name",
    "leaves": {"vlan": "vlan-id", "bandwidth": "bandwidth"},
    "verify": {"bandwidth": "oper-bandwidth"},
}
INTERFACES = """
services:
  port:
    namespace: urn:ietf:params:xml:ns:yang:ietf-interfaces
    path: /interfaces/interface
    key: name
    leaves: {words: description}
    constants:
      type: {identity: ethernetCsmacd, namespace: "urn:ietf:params:xml:ns:yang:iana-if-type"}
      enabled: true
    settle: 0.5
"""
NC = "{urn:ietf:params:xml:ns:netconf:base:1.0}"


def written(folder: Path, text: str) -> Path:
    path = folder / "mapping.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def access(folder: Path, **changed: Any) -> Path:
    body = {name: value for name, value in {**ACCESS, **changed}.items() if value is not ...}
    return written(folder, yaml.safe_dump({"services": {"access": body}}))


def test_mapping_that_ships_loads() -> None:
    service = mapping.load()["internet-access"]

    assert service.path == ("accesses", "access")
    assert service.leaves["vlan"] == "vlan-id"
    assert service.verify == {"bandwidth": "oper-bandwidth"}


def test_a_port_that_is_switched_off_must_be_seen_down_and_one_that_is_on_need_not_be_up() -> None:
    service = mapping.load()["port"]

    assert service.operational({"enabled": False}) == {"oper-status": "down"}
    assert service.operational({"enabled": True}) == {}
    assert service.compared({"enabled": True, "operStatus": "up"}) == ({"enabled": "true"}, {"oper-status": "up"})
    assert service.compared({"enabled": False}) == ({"enabled": "false"}, {"oper-status": "down"})
    assert service.compared({}) == ({}, {})


def test_state_that_stands_apart_is_read_beside_the_configuration() -> None:
    """As RFC 7223 has it; a device that has no such place says nothing there."""
    service = mapping.load()["port"]
    name, end = f"xmlns='{service.namespace}'><interface><name>ge-1</name>", "</interface>"
    configured = f"<interfaces {name}<enabled>true</enabled>{end}</interfaces>"
    state = f"<interfaces-state {name}<oper-status>up</oper-status>{end}</interfaces-state>"
    read = [service.read(etree.XML(f"<data>{text}</data>"), "ge-1") for text in (configured + state, configured, state)]
    asked = {apart: [etree.QName(top).localname for top in service.subtree("ge-1", apart)] for apart in (True, False)}

    assert asked == {True: ["interfaces", "interfaces-state"], False: ["interfaces"]}
    assert read == [
        {"name": "ge-1", "oper-status": "up", "enabled": "true"},
        {"name": "ge-1", "enabled": "true"},
        {"name": "ge-1", "oper-status": "up"},
    ]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"namespace": ...}, "services.access.namespace: this key is missing"),
        ({"namespace": ""}, "services.access.namespace: "),
        ({"path": "accesses/access"}, "services.access.path: "),
        ({"path": "/accesses//access"}, "services.access.path: "),
        ({"key": 5}, "services.access.key: "),
        ({"leaves": {}}, "services.access.leaves: "),
        ({"leaves": {"vlan": "vlan id"}}, "services.access.leaves.vlan: "),
        ({"leaves": {"vlan": "x", "bandwidth": "x"}}, "services.access: leaf 'x' is written twice"),
        ({"leaves": {"vlan": "name", "bandwidth": "b"}}, "services.access: leaf 'name' is written twice"),
        ({"constants": {"vlan-id": 1}}, "services.access: leaf 'vlan-id' is written twice"),
        ({"verify": {"colour": "oper-colour"}}, "services.access: verify.colour: no such characteristic"),
        ({"verify": None}, "services.access.verify: "),
        ({"verify": {"vlan": {"leaf": "oper-vlan"}}}, "services.access.verify.vlan"),
        ({"reads": {"vlan": "oper-vlan"}}, "services.access: reads.vlan: it stands in leaves already"),
        ({"constants": {"type": {"identity": "x"}}}, "services.access.constants.type."),
        ({"constants": {"type": []}}, "services.access.constants.type."),
        ({"constants": 1}, "services.access.constants: "),
        ({"settle": -1}, "services.access.settle: "),
        ({"settle": True}, "services.access.settle: "),
        ({"leafs": {}}, "services.access.leafs: this key is not known"),
    ],
)
def test_wrong_mapping_is_refused_with_file_and_key(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    file = access(tmp_path, **changed)

    with pytest.raises(Misconfigured) as raised:
        mapping.load(file)

    assert re.match(rf"{re.escape(str(file))}, line \d+: {re.escape(words)}", str(raised.value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "services: this key is missing"),
        ("services: {}", "services: "),
        ("services: {a: 1}", "services.a: "),
        ("services: {a: {key: x, key: y}}", "key 'key' is given twice"),
        ("services: {[a]: 1}", "found unhashable key"),
        ("services: [", "line 1: "),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_file_that_is_no_mapping_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as raised:
        mapping.load(written(tmp_path, text))

    assert words in str(raised.value)


def test_unknown_key_beside_the_services_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, access(tmp_path).read_text() + "service: {}\n")

    with pytest.raises(Misconfigured, match=r"mapping\.yaml, line \d+: service: this key is not known"):
        mapping.load(file)


def test_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"nowhere\.yaml: cannot be read"):
        mapping.load(tmp_path / "nowhere.yaml")


def test_payload_is_what_the_device_expects(tmp_path: Path) -> None:
    """The key comes first, a leaf without a value is removed, leaves that are not named are not touched."""
    service = mapping.load(access(tmp_path))["access"]

    payload = service.payload("acc-1", service.wanted({"vlan": 7, "bandwidth": None}))

    assert etree.tostring(payload, pretty_print=True).decode() == (
        '<config xmlns="urn:ietf:params:xml:ns:netconf:base:1.0">\n'
        '  <accesses xmlns="urn:example:access">\n'
        "    <access>\n"
        "      <name>acc-1</name>\n"
        "      <vlan-id>7</vlan-id>\n"
        '      <bandwidth xmlns:nc="urn:ietf:params:xml:ns:netconf:base:1.0" nc:operation="remove"/>\n'
        "    </access>\n"
        "  </accesses>\n"
        "</config>\n"
    )


def test_instance_that_must_not_be_there_is_removed_whole(tmp_path: Path) -> None:
    payload = mapping.load(access(tmp_path))["access"].payload("acc-1", None)

    (entry,) = payload.iter("{urn:example:access}access")
    assert entry.get(f"{NC}operation") == "remove"
    assert [child.text for child in entry] == ["acc-1"]


def test_another_file_maps_to_another_module(tmp_path: Path) -> None:
    """Identities are written with a prefix of their own and recognised with any prefix or none."""
    service = mapping.load(written(tmp_path, INTERFACES))["port"]
    wanted = service.wanted({"words": "to the customer"})

    payload = service.payload("eth0", wanted)

    (kind,) = payload.iter("{urn:ietf:params:xml:ns:yang:ietf-interfaces}type")
    assert kind.nsmap[kind.text.partition(":")[0]] == "urn:ietf:params:xml:ns:yang:iana-if-type"
    found = {"name": "eth0", "type": "ianaift:ethernetCsmacd", "enabled": "true", "description": "to the customer"}
    assert service.differing(wanted, found) == []
    assert service.differing(wanted, {**found, "type": "ianaift:tunnel"}) == ["type"]
    assert service.settle == 0.5


@pytest.mark.parametrize(
    ("value", "text"),
    [(100, "100"), (100.0, "100"), (1.5, "1.5"), (True, "true"), (False, "false"), ("a", "a"), (None, None)],
)
def test_values_are_written_as_yang_does(value: Any, text: str | None, tmp_path: Path) -> None:
    assert mapping.load(access(tmp_path))["access"].wanted({"vlan": value}) == {"vlan-id": text}


@pytest.mark.parametrize("value", [[1], {"a": 1}, object()])
def test_value_that_no_leaf_can_hold_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="'vlan' is not a single value"):
        mapping.load(access(tmp_path))["access"].wanted({"vlan": value})


def test_unknown_characteristic_is_refused_with_the_place_to_add_it(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"mapping\.yaml, services\.access\.leaves: no leaf for characteristic 'colour'"):
        mapping.load(access(tmp_path))["access"].wanted({"colour": "blue"})


@pytest.mark.parametrize(
    ("found", "same"), [("100", True), ("100.0", True), ("101", False), ("0100", True), ("", False)]
)
def test_numbers_are_compared_as_numbers(found: str, same: bool, tmp_path: Path) -> None:
    service = mapping.load(access(tmp_path))["access"]

    assert (service.differing({"bandwidth": "100"}, {"bandwidth": found}) == []) is same


TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"), min_size=1
)


@given(instance=TEXT, words=TEXT, number=st.integers(0, 2**32 - 1))
def test_there_and_back_is_the_identity(instance: str, words: str, number: int) -> None:
    """What the payload says is what is read when the device gives it back."""
    service = mapping.load()["internet-access"]
    wanted = service.wanted({"description": words.strip(), "bandwidth": number})

    payload = service.payload(instance.strip(), wanted)
    back = service.read(etree.fromstring(etree.tostring(payload)), instance.strip())

    assert back == {"name": instance.strip(), **wanted}
    assert service.differing(wanted, back) == []


def test_reading_finds_only_the_instance(tmp_path: Path) -> None:
    service = mapping.load(access(tmp_path))["access"]
    payload = service.payload("acc-1", {"vlan-id": "7"})

    assert service.read(payload, "acc-2") is None
    assert service.read(None, "acc-1") is None


@pytest.mark.parametrize(("text", "plain"), [("7", 7), ("-7", -7), ("007", "007"), ("ge-0", "ge-0"), (None, None)])
def test_reports_show_digits_as_numbers(text: str | None, plain: Any) -> None:
    assert mapping.plain(text) == plain
