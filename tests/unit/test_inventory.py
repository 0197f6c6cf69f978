"""The devices file: strict, secrets by reference, and what is wrong told by file and key, never by value."""

import pytest

from convergedon.adapters import inventory, netconf
from convergedon.core import settings
from convergedon.core.errors import Misconfigured

FULL = """
devices:
  pe1:
    tenant: acme
    address: 127.0.10.1
    netconf: {host: 127.0.0.1, port: 8300, username: gateway, password: swordfish, hostKey: AAAA}
    snmp: {interfaces: {1: lo, 3: ge-0/0/3}}
    flow: {observationDomain: 7}
  pe2:
    tenant: globex
    address: 2001:DB8::0001
"""
DEVICE = "devices: {{pe1: {{tenant: acme, address: 127.0.10.1, {}}}}}"
NETCONF = "devices: {{pe1: {{tenant: acme, address: 127.0.10.1, netconf: {{username: gateway, {}}}}}}}"
SNMP = "devices: {{pe1: {{tenant: acme, address: 127.0.10.1, snmp: {{{}}}}}}}"


@pytest.fixture
def written(tmp_path):
    def write(text):
        file = tmp_path / "devices.yaml"
        file.write_text(text)
        return file

    return write


def refusal(file):
    with pytest.raises(Misconfigured) as caught:
        inventory.load(file)
    sentence = str(caught.value)
    assert str(file) in sentence
    assert "swordfish" not in sentence
    return sentence


def test_without_a_file_there_are_no_devices():
    assert inventory.load(None) == {}


def test_a_device_is_as_the_file_says(written):
    found = inventory.load(written(FULL))
    pe1, pe2 = found["pe1"], found["pe2"]

    assert (pe1.name, pe1.tenant, pe1.address) == ("pe1", "acme", "127.0.10.1")
    assert pe1.settings["netconf"]["port"] == 8300
    assert pe1.settings["snmp"] == {"interfaces": {1: "lo", 3: "ge-0/0/3"}}
    assert pe1.settings["flow"] == {"observationDomain": 7}
    assert (pe2.address, pe2.settings) == ("2001:db8::1", {})
    assert "swordfish" not in repr(found)


def test_a_password_may_stand_in_a_file_beside(written, tmp_path):
    (tmp_path / "secret").write_text("swordfish\n")
    device = inventory.load(written(NETCONF.format("passwordFile: secret")))["pe1"]

    assert device.settings["netconf"] == {"username": "gateway", "password": "swordfish"}


def test_a_password_may_stand_in_the_environment(written, monkeypatch):
    monkeypatch.setenv("PE1_PASSWORD", "swordfish")
    device = inventory.load(written(NETCONF.format("passwordEnv: PE1_PASSWORD")))["pe1"]

    assert device.settings["netconf"] == {"username": "gateway", "password": "swordfish"}


def test_a_community_and_a_users_keys_may_stand_elsewhere(written, tmp_path, monkeypatch):
    monkeypatch.setenv("COMMUNITY", "swordfish")
    (tmp_path / "auth").write_text("swordfish-1\n")
    (tmp_path / "priv").write_text("swordfish-2\n")
    first = inventory.load(written(SNMP.format("communityEnv: COMMUNITY, version: 1, poll: {interval: 30}")))["pe1"]
    users = "version: 3, user: gateway, authKeyFile: auth, privKeyFile: priv, privProtocol: AES-256"
    second = inventory.load(written(SNMP.format(users)))["pe1"]

    assert first.settings["snmp"] == {"community": "swordfish", "version": "1", "poll": {"interval": 30.0}}
    keys = {"authKey": "swordfish-1", "privKey": "swordfish-2"}
    assert second.settings["snmp"] == {"version": "3", "user": "gateway", "privProtocol": "AES-256", **keys}
    assert "swordfish" not in repr((first, second))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (FULL.replace("port: 8300", "port: 0"), 6),
        (FULL.replace("{observationDomain: 7}", "\n      observationDomain: -1"), 9),
        (FULL.replace("password: swordfish", "passwordFile: missing"), 6),
        (FULL.replace("tenant: globex", "tenants: globex"), 9),
        (FULL.replace("globex", "'glo bex'"), 10),
    ],
)
def test_the_line_of_what_is_wrong_is_told(written, text, line):
    """Of what is missing, the line of that in which it is missing."""
    assert f"devices.yaml, line {line}: devices." in refusal(written(text))


def test_a_key_file_is_found_beside_the_devices_file(written, tmp_path):
    """And its pass phrase where it is said to be."""
    (tmp_path / "id").write_text("key")
    (tmp_path / "phrase").write_text("swordfish\n")
    device = inventory.load(written(NETCONF.format("keyFile: id, keyPassphraseFile: phrase")))["pe1"]

    netconf = device.settings["netconf"]
    assert (netconf["keyFile"], netconf["keyPassphrase"]) == (str(tmp_path / "id"), "swordfish")
    assert "swordfish" not in repr(device)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (DEVICE.format("snpm: {}"), "snpm"),
        (DEVICE.format("snmp: {interfaces: {eth0: 3}}"), "devices.pe1.snmp.interfaces"),
        (SNMP.format("community: swordfish, communityEnv: HOME"), "community and communityEnv"),
        (SNMP.format("community: swordfish, user: gateway"), "a community (version 1 or 2c) or a user"),
        (SNMP.format("authKey: swordfish"), "user is missing"),
        (SNMP.format("user: gateway, privKey: swordfish"), "authKey is missing"),
        (SNMP.format("version: 3, community: swordfish"), "user is missing"),
        (SNMP.format("version: 2c, user: gateway"), "a user is of version 3"),
        (SNMP.format("version: 4"), "devices.pe1.snmp.version"),
        (SNMP.format("user: gateway, authProtocol: SHA-1"), "devices.pe1.snmp.authProtocol"),
        (SNMP.format("user: gateway, authKeyFile: missing"), "devices.pe1.snmp.authKeyFile: cannot be read"),
        (SNMP.format("user: gateway, authKeyEnv: SHORT"), "devices.pe1.snmp.authKeyEnv: a pass phrase has 8"),
        (SNMP.format("communityEnv: CONVERGEDON_NOT_SET"), "devices.pe1.snmp.communityEnv: there is no community"),
        (SNMP.format("poll: {}"), "who polls needs a community or a user"),
        (SNMP.format("set: true"), "who sets needs a community or a user"),
        (SNMP.format("community: swordfish, writeCommunity: marlin"), "set is missing"),
        (SNMP.format("user: north, writeCommunity: marlin, set: true"), "give a community"),
        (SNMP.format("community: swordfish, acceptCommunity: true"), "acceptCommunity is for a device with a user"),
        (SNMP.format("community: swordfish, timeout: 0"), "devices.pe1.snmp.timeout"),
        (SNMP.format("community: swordfish, poll: {interval: 0}"), "devices.pe1.snmp.poll.interval"),
        (DEVICE.format("flow: {observationDomain: -1}"), "devices.pe1.flow.observationDomain"),
        (DEVICE.format("address: 127.0.10.2"), "given twice"),
        (DEVICE.format("loopback: 1"), "loopback"),
        ("devices: {pe1: {address: 127.0.10.1}}", "devices.pe1.tenant"),
        ("devices: {pe1: {tenant: acme, address: pe1.example}}", "devices.pe1.address"),
        ("devices: {'pe 1': {tenant: acme, address: 127.0.10.1}}", "devices.pe 1"),
        ("device: {}", "device"),
        ("[", "line 1"),
        (NETCONF.format("port: 830"), "devices.pe1.netconf"),
        (NETCONF.format("password: 4711"), "devices.pe1.netconf.password"),
        (NETCONF.format("password: swordfish, passwordEnv: HOME"), "password and passwordEnv"),
        (NETCONF.format("password: swordfish, port: 0"), "devices.pe1.netconf.port"),
        (NETCONF.format("passwordFile: missing"), "devices.pe1.netconf.passwordFile"),
        (NETCONF.format("passwordEnv: CONVERGEDON_NOT_SET"), "devices.pe1.netconf.passwordEnv"),
        (NETCONF.format("password: swordfish, keyPassphrase: swordfish"), "keyFile, which is missing"),
        (NETCONF.format("keyFile: missing"), "devices.pe1.netconf.keyFile"),
    ],
)
def test_a_wrong_file_is_refused_with_file_line_and_key(written, text, key, monkeypatch):
    monkeypatch.setenv("SHORT", "1234567")

    assert key in refusal(written(text))
    assert ", line 1: " in refusal(written(text))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "devices.yaml")


def test_an_adapter_of_somebody_else_has_a_section_of_its_own(written):
    """Its name is known by discovery; what is in the section is the adapter's to check."""
    device = inventory.load(written(DEVICE.format("loopback: {anything: [1]}")))["pe1"]

    assert device.settings["loopback"] == {"anything": [1]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("adress: 127.0.10.1", "devices.pe1: adress: this key is not known"),
        ("address: 127.0.10.1, snmp: {community: c, poll: 60}", "snmp.poll: must be a section"),
        ("address: 127.0.10.1, snmp: {community: 7}", "snmp.community: must be text: put quotes"),
        ("address: 127.0.10.1, netconf: {port: x}", "netconf.port: must be a whole number"),
        ("address: 127.0.10.1, snmp: {user: u, authProtocol: SHA2}", "authProtocol: must be 'MD5', 'SHA'"),
    ],
)
def test_a_mistake_is_told_in_the_words_of_who_writes_the_file(written, given, words):
    assert words in refusal(written(f"devices:\n  pe1: {{tenant: acme, {given}}}\n"))


def test_what_netconf_lacks_is_told_with_file_and_line(written, tmp_path):
    file = written(
        "devices:\n  pe1:\n    tenant: acme\n    address: 127.0.10.1\n    netconf: {username: a, password: b}\n"
    )
    with pytest.raises(Misconfigured, match=r"line 5: devices\.pe1\.netconf\.hostKey: is missing; take"):
        netconf.create(settings.load(devices=file, data=tmp_path), inventory.load(file))
